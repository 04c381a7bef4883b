/* SPDX-License-Identifier: BSD-2-Clause */
/* The file with the master's process id; written only once the sockets listen. */
#include "workers/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/os/file.h"

static char *old_path(const char *path)
{
    size_t size = strlen(path) + sizeof(".oldbin");
    char *old = mem_alloc(size);

    snprintf(old, size, "%s.oldbin", path);
    return old;
}

int pidfile_check(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool created = fd >= 0;

    if (!created && errno == EEXIST)
        fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        log_emerg(log_main, errno, "open() \"%s\" failed", path);
        return -1;
    }
    close(fd);
    if (created)
        unlink(path);
    return 0;
}

int pidfile_write(const char *path)
{
    char text[32];
    int len = snprintf(text, sizeof(text), "%d\n", (int) getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0) {
        log_emerg(log_main, errno, "open() \"%s\" failed", path);
        return -1;
    }
    if (file_write(fd, text, (size_t) len)) {
        log_emerg(log_main, errno, "write() to \"%s\" failed", path);
        close(fd);
        return -1;
    }
    close(fd);
    return 0;
}

void pidfile_remove(const char *path)
{
    if (unlink(path) && errno != ENOENT)
        log_alert(log_main, errno, "unlink() \"%s\" failed", path);
}

static int move(const char *from, const char *to)
{
    if (rename(from, to) == 0)
        return 0;
    log_alert(log_main, errno, "rename() %s to %s failed", from, to);
    return -1;
}

int pidfile_to_old(const char *path)
{
    char *old = old_path(path);
    int rc = move(path, old);

    free(old);
    return rc;
}

int pidfile_from_old(const char *path)
{
    char *old = old_path(path);
    int rc = move(old, path);

    free(old);
    return rc;
}

void pidfile_remove_old(const char *path)
{
    char *old = old_path(path);

    pidfile_remove(old);
    free(old);
}

pid_t pidfile_read(const char *path)
{
    char text[64];
    struct str id;
    uint64_t n;
    ssize_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        log_error(log_main, errno, "open() \"%s\" failed", path);
        return -1;
    }
    len = read(fd, text, sizeof(text));
    close(fd);
    if (len < 0) {
        log_error(log_main, errno, "read() \"%s\" failed", path);
        return -1;
    }
    id = str_from(text, (size_t) len);
    while (id.len && (id.ptr[id.len - 1] == '\n' || id.ptr[id.len - 1] == '\r'))
        id.len--;
    if (str_to_u64(id, &n) || n == 0 || n > INT_MAX) {
        log_error(log_main, 0, "invalid PID number \"%.*s\" in \"%s\"", STR_ARG(id), path);
        return -1;
    }
    return (pid_t) n;
}
