/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files and directories. Everything here may block: configuration, start-up, spilling and caches
 * call it. Nothing is logged; errno tells why a call failed, and callers know what it was for.
 */
#include "core/os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/fmt.h"
#include "core/os/process.h"

#define TEMP_DIGITS 10
#define TEMP_TRIES 100

/* Closes without disturbing the errno that is being returned. */
static void close_quietly(int fd)
{
    int saved = errno;

    close(fd);
    errno = saved;
}

/* Reads until the end of the file or until size bytes are there. -1 with errno. */
static ssize_t read_up_to(int fd, char *buf, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, buf + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t) n;
    }
    return (ssize_t) done;
}

/* The file's size is a hint: it may be growing, and it is 0 in /proc. */
static int read_all(struct arena *arena, int fd, size_t hint, size_t max, struct str *out)
{
    size_t size = MIN(MAX(hint, 4095), max) + 1;

    for (;;) {
        char *buf = mem_alloc(size + 1);
        ssize_t n = lseek(fd, 0, SEEK_SET) < 0 ? -1 : read_up_to(fd, buf, size);

        if (n >= 0 && (size_t) n < size) {
            *out = str_dup(arena, str_from(buf, (size_t) n));
            free(buf);
            return 0;
        }
        free(buf);
        if (n < 0)
            return -1;
        if (size > max) {
            errno = EFBIG;
            return -1;
        }
        size = size > max / 2 ? max + 1 : size * 2;
    }
}

int file_read(struct arena *arena, const char *path, size_t max, struct str *out)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = -1;

    if (fd < 0)
        return -1;
    max = MIN(max, (size_t) SSIZE_MAX - 2);
    if (fstat(fd, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        else if ((uint64_t) st.st_size > max)
            errno = EFBIG;
        else
            rc = read_all(arena, fd, (size_t) st.st_size, max, out);
    }
    close_quietly(fd);
    return rc;
}

int file_write(int fd, const void *ptr, size_t len)
{
    const char *p = ptr;

    while (len) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t) n;
    }
    return 0;
}

int file_pwrite(int fd, const void *ptr, size_t len, off_t offset)
{
    const char *p = ptr;

    while (len) {
        ssize_t n = pwrite(fd, p, len, offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t) n;
        offset += n;
    }
    return 0;
}

int file_pwritev(int fd, struct iovec *iov, int n, off_t offset)
{
    int i = 0;

    while (i < n) {
        ssize_t done = pwritev(fd, iov + i, MIN(n - i, IOV_MAX), offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        offset += done;
        for (; i < n && (size_t) done >= iov[i].iov_len; i++)
            done -= (ssize_t) iov[i].iov_len;
        if (i < n && done) {
            iov[i].iov_base = (char *) iov[i].iov_base + done;
            iov[i].iov_len -= (size_t) done;
        }
    }
    return 0;
}

int file_open_append(const char *path, mode_t mode)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, mode);
}

/* The directory's entry of path is on the disk, as far as the file system has such a notion. */
static void sync_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? strdup(".") : strndup(path, MAX((size_t) (slash - path), 1));
    int fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        (void) fsync(fd);
        close(fd);
    }
    free(dir);
}

/* 0 or -1 with errno. */
static int fill(int fd, struct str content)
{
    return file_write(fd, content.ptr, content.len) == 0 && fsync(fd) == 0 ? 0 : -1;
}

/*
 * The new file, ours alone until it is closed: another process that replaces the same path, an older
 * or a newer one of the server, waits or takes its turn first. -1 with errno.
 */
static int open_alone(const char *path, mode_t mode)
{
    for (;;) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
        struct stat ours, now;

        if (fd < 0)
            return -1;
        if (flock(fd, LOCK_EX) != 0 || fstat(fd, &ours) != 0) {
            close_quietly(fd);
            return -1;
        }
        /* Not if it has been renamed or removed meanwhile. */
        if (lstat(path, &now) == 0 && now.st_dev == ours.st_dev && now.st_ino == ours.st_ino)
            return fd;
        close(fd);
    }
}

int file_replace(const char *path, struct str content, mode_t mode)
{
    size_t len = strlen(path);
    char *tmp = mem_alloc(len + 5);
    int fd, rc = -1;

    memcpy(tmp, path, len);
    memcpy(tmp + len, ".tmp", 5);
    fd = open_alone(tmp, mode);
    if (fd >= 0) {
        rc = ftruncate(fd, 0);
        if (rc == 0)
            rc = fill(fd, content);
        if (rc == 0)
            rc = rename(tmp, path);
        if (rc != 0) {
            int saved = errno;

            unlink(tmp);
            errno = saved;
        }
        close_quietly(fd);
    }
    if (rc == 0)
        sync_dir(path);
    free(tmp);
    return rc;
}

static int make_dir(const char *path, mode_t mode)
{
    struct stat st;

    if (mkdir(path, mode) == 0)
        return 0;
    if (errno != EEXIST)
        return -1;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    errno = ENOTDIR;
    return -1;
}

int file_mkdirs(const char *path, mode_t mode)
{
    size_t len = strlen(path);
    char *copy;
    int rc;

    if (len == 0) {
        errno = ENOENT;
        return -1;
    }
    if (make_dir(path, mode) == 0)
        return 0;
    if (errno != ENOENT)
        return -1;
    copy = mem_alloc(len + 1);
    memcpy(copy, path, len + 1);
    rc = 0;
    for (size_t i = 1; rc == 0 && i < len; i++) {
        if (copy[i] != '/' || copy[i - 1] == '/')
            continue;
        copy[i] = '\0';
        rc = make_dir(copy, mode);
        copy[i] = '/';
    }
    if (rc == 0)
        rc = make_dir(copy, mode);
    free(copy);
    return rc;
}

/* Writes "dir/3/12/0000000123": the levels are digits of the number, taken from its end. */
static struct str temp_name(char *buf, struct str dir, const unsigned char levels[3],
                            uint64_t number)
{
    char digits[TEMP_DIGITS];
    size_t at = TEMP_DIGITS;
    char *p = fmt_str(buf, dir);

    for (int i = TEMP_DIGITS - 1; i >= 0; i--, number /= 10)
        digits[i] = (char) ('0' + number % 10);
    for (int i = 0; i < 3 && levels[i]; i++) {
        ASSERT(levels[i] <= 3);
        at -= levels[i];
        *p++ = '/';
        p = fmt_str(p, str_from(digits + at, levels[i]));
    }
    *p++ = '/';
    p = fmt_str(p, str_from(digits, TEMP_DIGITS));
    *p = '\0';
    return str_from(buf, (size_t) (p - buf));
}

/* open, with the directories above created when they are what is missing. */
static int open_temp(char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    char *slash;

    if (fd >= 0 || errno != ENOENT)
        return fd;
    slash = strrchr(path, '/');
    *slash = '\0';
    fd = file_mkdirs(path, 0700);
    *slash = '/';
    return fd == 0 ? open(path, flags, mode) : -1;
}

int file_temp(struct arena *arena, struct str dir, const unsigned char levels[3], bool unlinked,
              mode_t mode, struct str *path_out)
{
    /* Behind the directory: three levels of "/123", a slash, the number and a NUL. */
    char path[PATH_MAX];
    int fd = -1;

    if (dir.len == 0 || dir.len + 3 * 4 + 1 + TEMP_DIGITS + 1 > sizeof(path)) {
        errno = dir.len ? ENAMETOOLONG : ENOENT;
        return -1;
    }
    for (int i = 0; i < TEMP_TRIES; i++) {
        struct str name = temp_name(path, dir, levels, random_u64() % 10000000000u);

        fd = open_temp(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0) {
            if (unlinked && unlink(path) != 0) {
                close_quietly(fd);
                return -1;
            }
            if (path_out)
                *path_out = unlinked ? STR_NULL : str_dup(arena, name);
            return fd;
        }
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}
