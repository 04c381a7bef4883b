/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log files: opened by the master, inherited by the workers, opened again on USR1 by each for itself.
 * Files are created by the master and given to the workers' user, or a worker could not do that.
 */
#include <errno.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "core/os/file.h"
#include "workers/cycle.h"
#include "workers/internal.h"
#include "workers/settings.h"

static bool is_file(const struct res_file *f)
{
    return f->file.path.len > 0 && !f->file.is_stderr && !f->file.write;
}

#define EACH_FILE(config, f) \
    for (struct list *f##_l = (config)->resources->files.next; \
         f##_l != &(config)->resources->files && \
         (f = container_of(f##_l, struct res_file, link), true); f##_l = f##_l->next) \
        if (is_file(f))

/* The workers will open it by name: it has to be theirs. */
static void give_away(const struct core_conf *core, const struct res_file *f, int fd)
{
    struct stat st;

    if (geteuid() != 0 || !core->user || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return;
    if (st.st_uid != core->uid && fchown(fd, core->uid, (gid_t) -1)) {
        log_emerg(log_main, errno, "chown(\"%s\", %u) failed", f->file.path.ptr, core->uid);
        return;
    }
    if ((st.st_mode & (S_IRUSR | S_IWUSR)) != (S_IRUSR | S_IWUSR) &&
        fchmod(fd, st.st_mode | S_IRUSR | S_IWUSR))
        log_emerg(log_main, errno, "chmod() \"%s\" failed", f->file.path.ptr);
}

int logs_open(struct config *config)
{
    struct res_file *f;

    EACH_FILE(config, f) {
        if (f->file.fd >= 0)
            continue;
        f->file.fd = file_open_append(f->file.path.ptr, f->secret ? 0600 : 0644);
        if (f->file.fd < 0) {
            log_emerg(log_main, errno, "open() \"%s\" failed", f->file.path.ptr);
            return -1;
        }
    }
    return 0;
}

void logs_close(struct config *config)
{
    struct res_file *f;

    EACH_FILE(config, f) {
        if (f->file.fd >= 0)
            close(f->file.fd);
        f->file.fd = -1;
    }
}

void logs_flush(struct config *config)
{
    struct res_file *f;

    EACH_FILE(config, f) {
        if (f->flush)
            f->flush(f);
    }
}

void logs_reopen(struct config *config, bool master)
{
    struct res_file *f;

    EACH_FILE(config, f) {
        int fd;

        if (f->flush)
            f->flush(f);
        fd = file_open_append(f->file.path.ptr, f->secret ? 0600 : 0644);
        if (fd < 0) {
            /* The old one goes on being written to. */
            log_emerg(log_main, errno, "open() \"%s\" failed", f->file.path.ptr);
            continue;
        }
        if (master)
            give_away(core_settings(config), f, fd);
        if (f->file.fd >= 0)
            close(f->file.fd);
        f->file.fd = fd;
        f->file.failed = false;
    }
}

int logs_error_fd(const struct config *config)
{
    for (const struct log_target *t = config->log.targets; t; t = t->next) {
        if (!t->file->is_stderr && !t->file->write && t->file->fd >= 0)
            return t->file->fd;
    }
    return -1;
}
