/* SPDX-License-Identifier: BSD-2-Clause */
/* The cache of small files, on real ones: what is kept, for how long it is true, how much fits. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "modules/http/small_files.h"
#include "t/unit/tap.h"

static char dir[] = "/tmp/proxyd-files-XXXXXX";

static struct str path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return str_cstr(path);
}

static void write_file(const char *name, const char *text, size_t len)
{
    int fd = open(path_of(name).ptr, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    ASSERT(fd >= 0 && write(fd, text, len) == (ssize_t) len);
    close(fd);
}

/* The file as a look-up would tell, with its change long ago when `old`. */
static void look(const char *name, struct file_info *info, bool old)
{
    struct stat st;
    int fd = open(path_of(name).ptr, O_RDONLY);

    ASSERT(fd >= 0 && fstat(fd, &st) == 0);
    memset(info, 0, sizeof(*info));
    info->size = (uint64_t) st.st_size;
    info->mtime = st.st_mtim;
    info->ctime = st.st_ctim;
    info->ino = st.st_ino;
    info->dev = st.st_dev;
    info->mode = st.st_mode;
    if (old)
        info->ctime.tv_sec -= 100;
    info->file = chain_file_new(fd);
}

static void test_kept(void)
{
    struct file_info info, now;
    struct small_file *f;

    write_file("a", "hello", 5);
    look("a", &info, true);
    f = small_files_read(path_of("a"), &info);
    ok(f != NULL && f->content->size == 5 && memcmp(f->content->data, "hello", 5) == 0, "read");
    ok(small_files_find(path_of("a")) == f, "found again");
    now = info;
    ok(small_file_current(f, &now), "current");
    now.ctime.tv_nsec ^= 1;
    ok(!small_file_current(f, &now), "a changed inode is another");
    now = info;
    now.mtime.tv_nsec ^= 1;
    ok(!small_file_current(f, &now), "a nanosecond is enough");
    now = info;
    now.ino++;
    ok(!small_file_current(f, &now), "another file in its place");
    now = info;
    now.size++;
    ok(!small_file_current(f, &now), "another size");
    ok(small_files_find(path_of("b")) == NULL, "another path");
    small_files_forget(path_of("a"));
    ok(small_files_find(path_of("a")) == NULL, "forgotten");
    chain_file_unref(info.file);
}

static void test_not_kept(void)
{
    struct file_info info;
    struct small_file *f;

    write_file("new", "now", 3);
    clock_update();
    look("new", &info, false);
    f = small_files_read(path_of("new"), &info);
    ok(f != NULL && memcmp(f->content->data, "now", 3) == 0, "a file that changed just now is read");
    ok(small_files_find(path_of("new")) == NULL, "and not kept");
    info.ctime.tv_sec -= 100;
    info.size = 4;
    ok(small_files_read(path_of("new"), &info) == NULL, "a file that became shorter is refused");
    info.size = 2;
    ok(small_files_read(path_of("new"), &info) == NULL, "one that became longer too");
    chain_file_unref(info.file);
    write_file("empty", "", 0);
    look("empty", &info, true);
    f = small_files_read(path_of("empty"), &info);
    ok(f != NULL && f->content == NULL, "an empty file has no content");
    chain_file_unref(info.file);
}

static void test_bounds(void)
{
    static char text[10000];
    struct file_info info;
    struct small_file *f;
    struct block *held = NULL;

    small_files_free();
    small_files_limit(35000);
    for (unsigned i = 0; i < 4; i++) {
        char name[8];

        snprintf(name, sizeof(name), "f%u", i);
        write_file(name, text, sizeof(text));
        look(name, &info, true);
        f = small_files_read(path_of(name), &info);
        ok(f != NULL, "file %u", i);
        chain_file_unref(info.file);
        if (i == 0)
            held = block_ref(f->content);
        if (i == 2)
            ok(small_files_find(path_of("f0")) != NULL, "the first is used again");
    }
    ok(small_files_find(path_of("f1")) == NULL, "the one unused for longest made room");
    ok(small_files_find(path_of("f0")) && small_files_find(path_of("f3")), "the others are there");
    small_files_free();
    is_int(held->refs, 1, "content that is being sent outlives the cache");
    block_unref(held);
    small_files_limit(0);
    look("f0", &info, true);
    ok(small_files_read(path_of("f0"), &info) == NULL, "off: nothing is read");
    chain_file_unref(info.file);
}

int main(void)
{
    ASSERT(mkdtemp(dir) != NULL);
    clock_update();
    small_files_limit(1 << 20);
    test_kept();
    test_not_kept();
    test_bounds();
    small_files_free();
    block_trim();
    for (const char *const *n = (const char *const[]){ "a", "new", "empty", "f0", "f1", "f2", "f3",
                                                       NULL }; *n; n++)
        unlink(path_of(*n).ptr);
    rmdir(dir);
    return done_testing();
}
