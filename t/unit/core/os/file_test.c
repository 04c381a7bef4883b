/* SPDX-License-Identifier: BSD-2-Clause */
/* Files: whole reads and their limit, complete writes, replacing, temporary files, levels. */
#include "core/os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "t/unit/tap.h"

static char dir[] = "/tmp/proxyd-file-XXXXXX";
static struct arena *arena;

static const char *in_dir(const char *name)
{
    return str_printf(arena, "%s/%s", dir, name).ptr;
}

static void test_read(void)
{
    const char *path = in_dir("a");
    size_t len = 100000;
    char *big = mem_alloc(len);
    struct str s = STR_NULL;
    int fd = file_open_append(path, 0640);
    struct stat st;

    memset(big, 'b', len);
    ok(fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0640, "a file is created");
    ok(fcntl(fd, F_GETFD) & FD_CLOEXEC, "and not inherited");
    is_int(file_read(arena, path, 10, &s), 0, "an empty file");
    is_uint(s.len, 0, "is empty");
    is_int(file_write(fd, "hello", 5), 0, "a write");
    is_int(file_read(arena, path, 5, &s), 0, "a file of just the limit");
    is_str(s.ptr, "hello", "ends with a NUL");
    errno = 0;
    is_int(file_read(arena, path, 4, &s), -1, "a larger one");
    is_int(errno, EFBIG, "is too big");
    is_int(file_write(fd, big, len), 0, "more");
    is_int(file_read(arena, path, SIZE_MAX, &s), 0, "all of it");
    is_uint(s.len, len + 5, "is read");
    close(fd);
    is_int(file_read(arena, in_dir("none"), 10, &s), -1, "no file");
    is_int(errno, ENOENT, "says so");
    is_int(file_read(arena, dir, 10, &s), -1, "a directory");
    is_int(errno, EISDIR, "is no file");
    is_int(file_read(arena, "/proc/self/status", 100000, &s), 0, "a file that claims to be empty");
    ok(s.len > 100, "is read all the same");
    is_int(file_read(arena, "/proc/self/status", 20, &s), -1, "and measured");
    is_int(errno, EFBIG, "while it is read");
    free(big);
}

static void test_write(void)
{
    const char *path = in_dir("w");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct iovec iov[2000];
    struct str s;
    bool same = true;

    for (unsigned i = 0; i < ARRAY_LEN(iov); i++)
        iov[i] = (struct iovec){ (void *) (uintptr_t) "0123456789", i % 11 };
    is_int(file_pwritev(fd, iov, ARRAY_LEN(iov), 3), 0, "more pieces than one call takes");
    is_int(file_pwrite(fd, "abc", 3, 0), 0, "a write at an offset");
    is_int(file_read(arena, path, 100000, &s), 0, "reads back");
    size_t at = 3;
    for (unsigned i = 0; i < ARRAY_LEN(iov); i++) {
        same = same && memcmp(s.ptr + at, "0123456789", i % 11) == 0;
        at += i % 11;
    }
    is_uint(s.len, at, "all of them");
    ok(same && memcmp(s.ptr, "abc", 3) == 0, "in their places");
    close(fd);
    errno = 0;
    ok(file_write(fd, "x", 1) == -1 && errno == EBADF, "a write that fails");
    ok(file_pwrite(fd, "x", 1, 0) == -1 && errno == EBADF, "at an offset");
    iov[0].iov_len = 1;
    ok(file_pwritev(fd, iov, 1, 0) == -1 && errno == EBADF, "in pieces");
}

static void test_replace(void)
{
    const char *path = in_dir("r");
    struct str s;

    is_int(file_replace(path, STR("one"), 0644), 0, "a new file");
    is_int(file_replace(path, STR("two!"), 0644), 0, "replaced");
    is_int(file_read(arena, path, 100, &s), 0, "is there");
    is_str(s.ptr, "two!", "with what is new");
    ok(access(in_dir("r.tmp"), F_OK) != 0, "and nothing is left behind");
    errno = 0;
    ok(file_replace(in_dir("no/r"), STR("x"), 0644) == -1 && errno == ENOENT, "no directory");
    is_int(mkdir(in_dir("d"), 0700), 0, "a directory");
    ok(file_replace(in_dir("d"), STR("x"), 0644) == -1, "is not replaced");
    ok(access(in_dir("d.tmp"), F_OK) != 0, "and nothing is left of the attempt");
}

#define WRITERS 4
#define TIMES 100

/* Texts of one letter and of different lengths: a mixture would show. */
static void replace_often(const char *path, unsigned n)
{
    static char text[60000];

    memset(text, 'a' + (int) n, sizeof(text));
    for (unsigned i = 0; i < TIMES; i++) {
        if (file_replace(path, str_from(text, sizeof(text) / (n + 1)), 0644) != 0)
            _exit(1);
    }
    _exit(0);
}

static void test_replace_at_once(void)
{
    const char *path = in_dir("many");
    unsigned mixed = 0, failed = 0, running = WRITERS;
    int status;

    is_int(file_replace(path, STR("a"), 0644), 0, "a file");
    for (unsigned i = 0; i < WRITERS; i++) {
        pid_t pid = fork();

        ASSERT(pid >= 0);
        if (pid == 0)
            replace_often(path, i);
    }
    while (running > 0) {
        struct str s;
        struct arena *room = arena_new();

        ASSERT(file_read(room, path, 100000, &s) == 0);
        for (size_t i = 1; i < s.len; i++)
            mixed += s.ptr[i] != s.ptr[0];
        mixed += s.len != 1 && s.len * (unsigned) (s.ptr[0] - 'a' + 1) != 60000;
        arena_destroy(room);
        while (running > 0 && waitpid(-1, &status, WNOHANG) > 0) {
            running--;
            failed += status != 0;
        }
    }
    is_int(failed, 0, "all who replace a file at once succeed");
    is_int(mixed, 0, "and each text is one's own");
    ok(access(in_dir("many.tmp"), F_OK) != 0, "nothing is left behind");
}

static void test_dirs(void)
{
    struct stat st;

    is_int(file_mkdirs(in_dir("x/y//z/"), 0750), 0, "a path of directories");
    ok(stat(in_dir("x/y/z"), &st) == 0 && (st.st_mode & 0777) == 0750, "is made");
    is_int(file_mkdirs(in_dir("x/y/z"), 0750), 0, "it may be there already");
    ok(file_mkdirs("", 0700) == -1 && errno == ENOENT, "no path");
    is_int(file_replace(in_dir("f"), STR(""), 0644), 0, "a file");
    ok(file_mkdirs(in_dir("f"), 0700) == -1 && errno == ENOTDIR, "in the place of a directory");
    ok(file_mkdirs(in_dir("f/g"), 0700) == -1 && errno == ENOTDIR, "or above it");
}

static void test_temp(void)
{
    static const unsigned char none[3] = { 0, 0, 0 }, levels[3] = { 1, 2, 0 },
                               deep[3] = { 3, 3, 3 };
    struct str root = str_cstr(in_dir("temp")), path, tail;
    struct stat st;
    int fd = file_temp(arena, root, none, false, 0600, &path);

    ok(fd >= 0 && stat(path.ptr, &st) == 0, "a temporary file in a directory that was not there");
    is_uint(path.len, root.len + 1 + 10, "with a name of ten digits");
    ok((st.st_mode & 0777) == 0600 && fcntl(fd, F_GETFD) & FD_CLOEXEC, "for us alone");
    close(fd);
    fd = file_temp(arena, root, levels, false, 0600, &path);
    ok(fd >= 0, "a temporary file in levels");
    tail = str_skip(path, root.len);
    is_uint(tail.len, 2 + 3 + 11, "two of them");
    ok(tail.ptr[1] == path.ptr[path.len - 1], "the first is the last digit");
    is_mem(tail.ptr + 3, path.ptr + path.len - 3, 2, "the second the two before it");
    is_int(file_write(fd, "x", 1), 0, "it can be written");
    close(fd);
    fd = file_temp(arena, root, deep, true, 0600, NULL);
    ok(fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0, "without a name");
    ok(file_pwrite(fd, "x", 1, 0) == 0, "but usable");
    close(fd);
    errno = 0;
    ok(file_temp(arena, STR_NULL, none, true, 0600, NULL) == -1 && errno == ENOENT, "no directory");
    ok(file_temp(arena, STR("/proc/none"), none, true, 0600, NULL) == -1,
       "a directory that cannot be made");
}

int main(void)
{
    char command[64];

    umask(022);
    arena = arena_new();
    if (mkdtemp(dir) == NULL)
        return 1;
    test_read();
    test_write();
    test_replace();
    test_replace_at_once();
    test_dirs();
    test_temp();
    snprintf(command, sizeof(command), "rm -r %s", dir);
    is_int(system(command), 0, "cleaned up");
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
