/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deleting and copying trees of the file system in steps: some entries, or a megabyte, at a time.
 * Directories are walked by descriptors and links are never followed, so that nobody who may write
 * below can lead the walk elsewhere. Knows of no request.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "core/os/file.h"
#include "modules/http/dav.h"

#define STEP_ENTRIES 256
#define STEP_BYTES (1u << 20)

struct dav_level {
    DIR *dir;
    int to; /* COPY: the directory that is made */
    mode_t mode;
    struct timespec times[2];
    char name[NAME_MAX + 1];
};

void dav_tree_init(struct dav_tree *t, struct arena *arena, enum dav_op op, struct str from,
                   struct str to)
{
    *t = (struct dav_tree){ .op = op, .from = from, .to = to, .arena = arena, .in = -1, .out = -1 };
}

static int fail_at(struct dav_tree *t, struct str path, const char *call, const char *name)
{
    t->err = errno;
    t->call = call;
    for (unsigned i = 1; i < t->depth; i++)
        path = str_printf(t->arena, "%.*s/%s", STR_ARG(path), t->levels[i].name);
    if (name != NULL)
        path = str_printf(t->arena, "%.*s/%s", STR_ARG(path), name);
    t->path = path;
    dav_tree_close(t);
    return -1;
}

static int fail(struct dav_tree *t, const char *call, const char *name)
{
    return fail_at(t, t->from, call, name);
}

/* It was about what is being made. */
static int fail_to(struct dav_tree *t, const char *call, const char *name)
{
    return fail_at(t, t->to, call, name);
}

static void close_file(struct dav_tree *t)
{
    if (t->in >= 0)
        close(t->in);
    if (t->out >= 0)
        close(t->out);
    t->in = t->out = -1;
}

static void pop(struct dav_tree *t)
{
    struct dav_level *top = &t->levels[--t->depth];

    closedir(top->dir);
    if (top->to >= 0)
        close(top->to);
}

void dav_tree_close(struct dav_tree *t)
{
    close_file(t);
    while (t->depth > 0)
        pop(t);
}

/* Where names of the level at the top are looked up. */
static int from_dir(const struct dav_tree *t)
{
    return t->depth > 0 ? dirfd(t->levels[t->depth - 1].dir) : AT_FDCWD;
}

static int to_dir(const struct dav_tree *t)
{
    return t->depth > 0 ? t->levels[t->depth - 1].to : AT_FDCWD;
}

/* Enters the directory `name` of the top level, or the first one. 0 or -1, told. */
static int enter(struct dav_tree *t, const char *name, const char *to_name, const struct stat *st)
{
    const char *shown = t->depth > 0 ? name : NULL;
    struct dav_level *level;
    int fd, to = -1;
    DIR *dir;

    if (t->depth >= DAV_DEPTH_MAX) {
        errno = ENAMETOOLONG;
        return fail(t, "opendir()", shown);
    }
    if (t->op == DAV_COPY) {
        /* Until it is filled it must be writable; the mode is set when it is left. */
        if (mkdirat(to_dir(t), to_name, 0700) != 0)
            return fail_to(t, "mkdir()", shown);
        to = openat(to_dir(t), to_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (to < 0)
            return fail_to(t, "open()", shown);
    }
    fd = openat(from_dir(t), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int err = errno;

        if (fd >= 0)
            close(fd);
        if (to >= 0)
            close(to);
        errno = err;
        return fail(t, "opendir()", shown);
    }
    if (t->levels == NULL)
        t->levels = ARENA_ARRAY(t->arena, struct dav_level, DAV_DEPTH_MAX);
    level = &t->levels[t->depth++];
    level->dir = dir;
    level->to = to;
    level->mode = st->st_mode & 07777;
    level->times[0] = st->st_atim;
    level->times[1] = st->st_mtim;
    snprintf(level->name, sizeof(level->name), "%s", t->depth > 1 ? name : "");
    return 0;
}

/* All that is in the top level has been dealt with. */
static int leave(struct dav_tree *t)
{
    struct dav_level *top = &t->levels[t->depth - 1];

    if (t->op == DAV_COPY) {
        if (fchmod(top->to, top->mode) != 0)
            return fail_to(t, "fchmod()", NULL);
        (void) futimens(top->to, top->times);
        pop(t);
        return 0;
    }
    pop(t);
    if (t->depth == 0) {
        if (rmdir(t->from.ptr) != 0)
            return fail(t, "rmdir()", NULL);
    } else if (unlinkat(from_dir(t), top->name, AT_REMOVEDIR) != 0) {
        return fail(t, "rmdir()", top->name);
    }
    return 0;
}

/* Files ---------------------------------------------------------------------------------------- */

static int open_copy(struct dav_tree *t, const char *name, const char *to_name,
                     const struct stat *st)
{
    const char *shown = t->depth > 0 ? name : NULL;

    t->in = openat(from_dir(t), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (t->in < 0)
        return fail(t, "open()", shown);
    t->out = openat(to_dir(t), to_name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (t->out < 0)
        return fail_to(t, "open()", shown);
    /* Not set-user-id and its like: the copy has another owner. */
    if (fchmod(t->out, st->st_mode & 0777) != 0)
        return fail_to(t, "fchmod()", shown);
    t->times[0] = st->st_atim;
    t->times[1] = st->st_mtim;
    return 0;
}

/* Some bytes by way of memory, where the system cannot copy them itself. */
static ssize_t copy_bytes(int in, int out)
{
    char buf[64 * 1024];
    ssize_t n;

    do
        n = read(in, buf, sizeof(buf));
    while (n < 0 && errno == EINTR);
    if (n > 0 && file_write(out, buf, (size_t) n) != 0)
        return -1;
    return n;
}

/* As much of the file under way as a step may do. */
static int copy_some(struct dav_tree *t)
{
    size_t left = STEP_BYTES;

    while (left > 0) {
        ssize_t n = copy_file_range(t->in, NULL, t->out, NULL, left, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
            n = copy_bytes(t->in, t->out);
        if (n < 0)
            return fail_to(t, "write()", NULL);
        if (n == 0) {
            (void) futimens(t->out, t->times);
            close_file(t);
            return 0;
        }
        left -= MIN(left, (size_t) n);
    }
    return 0;
}

static int copy_link(struct dav_tree *t, const char *name, const char *to_name)
{
    const char *shown = t->depth > 0 ? name : NULL;
    char target[PATH_MAX];
    ssize_t n = readlinkat(from_dir(t), name, target, sizeof(target) - 1);

    if (n < 0)
        return fail(t, "readlink()", shown);
    target[n] = '\0';
    return symlinkat(target, to_dir(t), to_name) == 0 ? 0 : fail_to(t, "symlink()", shown);
}

/* Walking -------------------------------------------------------------------------------------- */

static int copy_entry(struct dav_tree *t, const char *name, const char *to_name,
                      const struct stat *st)
{
    if (S_ISREG(st->st_mode))
        return open_copy(t, name, to_name, st);
    if (t->depth > 0 && !t->keep_links)
        return 0;
    if (S_ISLNK(st->st_mode))
        return copy_link(t, name, to_name);
    errno = EXDEV; /* a device, a socket: it can only be renamed */
    return fail(t, "open()", t->depth > 0 ? name : NULL);
}

/* One name in the top level, or the first one (to_name then is a path of its own). */
static int visit(struct dav_tree *t, const char *name, const char *to_name)
{
    const char *shown = t->depth > 0 ? name : NULL;
    struct stat st;

    /* Below the first, what somebody else has removed meanwhile is no failure. */
    if (fstatat(from_dir(t), name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return t->depth > 0 && errno == ENOENT ? 0 : fail(t, "lstat()", shown);
    if (S_ISDIR(st.st_mode))
        return enter(t, name, to_name, &st);
    if (t->op == DAV_COPY)
        return copy_entry(t, name, to_name, &st);
    if (unlinkat(from_dir(t), name, 0) == 0 || (t->depth > 0 && errno == ENOENT))
        return 0;
    return fail(t, "unlink()", shown);
}

static int next_entry(struct dav_tree *t)
{
    const struct dirent *d = NULL;

    errno = 0;
    if (!t->only_this)
        d = readdir(t->levels[t->depth - 1].dir);
    if (d == NULL)
        return errno != 0 ? fail(t, "readdir()", NULL) : leave(t);
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return 0;
    return visit(t, d->d_name, d->d_name);
}

int dav_tree_step(struct dav_tree *t)
{
    for (unsigned i = 0; i < STEP_ENTRIES; i++) {
        bool file = t->in >= 0;

        if (!t->begun) {
            t->begun = true;
            if (visit(t, t->from.ptr, t->to.ptr) != 0)
                return -1;
        } else if (file) {
            if (copy_some(t) != 0)
                return -1;
            if (t->in >= 0)
                return 1; /* as much as a step may do */
        } else if (t->depth > 0) {
            if (next_entry(t) != 0)
                return -1;
        }
        if (t->in < 0 && t->depth == 0)
            return 0;
    }
    return 1;
}
