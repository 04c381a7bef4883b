/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Answers kept as files (*_store): all bytes of a 200's body go to a temporary file as they are
 * decoded, which takes the file's name once the answer is complete. The temporary file is the spool
 * as well (flow.c): what a slow client has not taken need not stay in memory, so that the server is
 * never waited for. When the disk fails, the client still gets its answer; nothing is stored.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fmt.h"
#include "core/os/file.h"
#include "core/os/process.h"
#include "modules/upstream/internal.h"

#define STORE_IOV 64

struct store {
    struct str path; /* NUL-terminated, as the next */
    struct str temp; /* empty: renamed */
    int fd;          /* of x->file */
    uint64_t written;
    time_t modified; /* -1: the server did not say */
};

/* Setters -------------------------------------------------------------------------------------- */

/* How often a path climbs. */
static unsigned count_climbs(struct str path)
{
    unsigned n = 0;
    struct str rest = path, part;

    while (rest.len > 0) {
        ssize_t slash = str_chr(rest, '/');

        part = slash < 0 ? rest : str_from(rest.ptr, (size_t) slash);
        n += str_eq(part, STR(".."));
        rest = str_skip(rest, MIN(part.len + 1, rest.len));
    }
    return n;
}

const char *upstream_set_store(struct conf *cf, void *field)
{
    struct upstream_store *s = field;
    const char *error = NULL;

    if (str_eq(cf->args[1], STR("off")))
        return NULL;
    if (cf->args[1].len == 0)
        return conf_error_arg(cf, 1, "empty path");
    s->on = true;
    if (str_eq(cf->args[1], STR("on")))
        return NULL;
    s->path = expr_compile(cf, cf->args[1], EXPR_PREFIX, &error);
    if (s->path == NULL)
        return error;
    s->climbs = count_climbs(cf->args[1]) + count_climbs(str_cstr(cf->config->prefix));
    return NULL;
}

/* Beginning ------------------------------------------------------------------------------------ */

/*
 * Where the answer is to lie. 0, or -1: nowhere. Variables may hold what the client or the server
 * made up: such a name must not lead out of where the configuration points.
 */
static int find_path(struct req *r, const struct upstream_store *conf, struct str *path)
{
    struct str text;
    size_t root;

    if (conf->path == NULL) {
        if (req_map_path(r, path, &root, 0) != 0)
            return -1;
    } else {
        text = expr_eval(&r->eval, conf->path);
        if (memchr(text.ptr, '\0', text.len) != NULL || count_climbs(text) > conf->climbs) {
            log_error(&r->log, 0, "unsafe path \"%.*s\" of an answer to be stored", STR_ARG(text));
            return -1;
        }
        *path = str_dup(r->arena, text);
    }
    if (path->len == 0)
        return -1;
    if (path->ptr[path->len - 1] == '/') {
        log_error(&r->log, EISDIR, "upstream response cannot be stored as \"%s\"", path->ptr);
        return -1;
    }
    return 0;
}

/* The lowest directory above path that is there already. False: none can be told. */
static bool existing_above(struct arena *arena, struct str path, struct str *dir, struct stat *st)
{
    char *copy = (char *) str_dup(arena, path).ptr;
    ssize_t slash;

    *dir = path;
    while ((slash = str_rchr(*dir, '/')) > 0) {
        copy[slash] = '\0';
        *dir = str_from(copy, (size_t) slash);
        if (stat(copy, st) == 0)
            return S_ISDIR(st->st_mode);
        if (errno != ENOENT)
            return false;
    }
    return false;
}

/* A name nobody else has, in the directory of the file system that path will be in. */
static struct str name_beside(struct arena *arena, struct str dir)
{
    return str_printf(arena, "%.*s/.proxyd-store-%016llx", STR_ARG(dir),
                      (unsigned long long) random_u64());
}

/*
 * A temporary file where all others are, unless that is another file system than path's: a rename
 * must do, for copying would hold up the worker.
 */
static int open_temp(struct exchange *x, struct str path, struct str *temp)
{
    const struct conf_path *dir = &x->conf->temp_path;
    struct arena *arena = x->req->arena;
    struct stat ours, theirs;
    struct str above;
    int fd;

    if (existing_above(arena, path, &above, &theirs) && stat(dir->path.ptr, &ours) == 0 &&
        ours.st_dev != theirs.st_dev) {
        *temp = name_beside(arena, above);
        fd = open(temp->ptr, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            log_crit(&x->req->log, errno, "open() \"%s\" failed", temp->ptr);
        return fd;
    }
    fd = file_temp(arena, dir->path, dir->levels, false, 0600, temp);
    if (fd < 0)
        log_crit(&x->req->log, errno, "open() of a temporary file in \"%.*s\" failed",
                 STR_ARG(dir->path));
    return fd;
}

void store_begin(struct exchange *x)
{
    struct req *r = x->req;
    const struct field *f;
    struct str path, temp;
    struct store *s;
    int fd;

    if (x->head->status != 200 || x->head_only || find_path(r, &x->conf->store, &path) != 0)
        return;
    fd = open_temp(x, path, &temp);
    if (fd < 0)
        return;
    s = ARENA_NEW(r->arena, struct store);
    f = fields_get(&x->head->fields, T_LAST_MODIFIED);
    *s = (struct store){ .path = path,
                         .temp = temp,
                         .fd = fd,
                         .modified = f != NULL ? fmt_parse_http_date(f->value) : -1 };
    x->file = chain_file_new(fd);
    x->store = s;
    r->main->outlives++;
}

/* Writing -------------------------------------------------------------------------------------- */

void store_give_up(struct exchange *x)
{
    struct store *s = x->store;

    if (likely(s == NULL))
        return;
    x->store = NULL;
    x->req->main->outlives--;
    if (s->temp.len > 0)
        unlink(s->temp.ptr);
}

void store_take(struct exchange *x, const struct chain *fresh)
{
    struct store *s = x->store;
    struct iovec iov[STORE_IOV];
    const struct piece *p = fresh->first;

    while (p != NULL) {
        size_t bytes = 0;
        int n = 0;

        for (; p != NULL && n < STORE_IOV; p = p->next, n++) {
            iov[n] = (struct iovec){ (void *) p->mem.ptr, (size_t) p->len };
            bytes += (size_t) p->len;
        }
        if (file_pwritev(s->fd, iov, n, (off_t) s->written) != 0) {
            log_crit(&x->req->log, errno, "pwritev() \"%s\" failed", s->temp.ptr);
            x->disk_failed = true;
            store_give_up(x);
            return;
        }
        s->written += bytes;
    }
}

/* The end -------------------------------------------------------------------------------------- */

/* Permissions of directories: whoever may read may also look in. */
static unsigned dir_access(unsigned access)
{
    return access | (access & 0444) >> 2;
}

/* Makes the missing directories above path. 0, or -1, logged. */
static int make_path(struct req *r, struct str path, unsigned access)
{
    char *copy = (char *) str_dup(r->arena, path).ptr;

    for (size_t i = 1; i < path.len; i++) {
        if (copy[i] != '/' || copy[i - 1] == '/')
            continue;
        copy[i] = '\0';
        if (mkdir(copy, dir_access(access)) == 0) {
            (void) chmod(copy, dir_access(access)); /* whatever the umask is */
        } else if (errno != EEXIST) {
            log_crit(&r->log, errno, "mkdir() \"%s\" failed", copy);
            return -1;
        }
        copy[i] = '/';
    }
    return 0;
}

static int set_attributes(struct req *r, const struct store *s, unsigned access)
{
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = s->modified } };

    if (fchmod(s->fd, access) != 0) {
        log_crit(&r->log, errno, "chmod() \"%s\" failed", s->temp.ptr);
        return -1;
    }
    if (s->modified != -1 && futimens(s->fd, times) != 0)
        log_crit(&r->log, errno, "utimes() \"%s\" failed", s->temp.ptr);
    return 0;
}

static void rename_to(struct exchange *x)
{
    struct store *s = x->store;
    struct req *r = x->req;
    int rc = rename(s->temp.ptr, s->path.ptr);

    if (rc != 0 && errno == ENOENT) {
        if (make_path(r, s->path, x->conf->store_access) != 0)
            return;
        rc = rename(s->temp.ptr, s->path.ptr);
    }
    if (rc != 0) {
        log_crit(&r->log, errno, "rename() \"%s\" to \"%s\" failed", s->temp.ptr, s->path.ptr);
        return;
    }
    s->temp = STR_NULL;
}

void store_done(struct exchange *x)
{
    if (likely(x->store == NULL))
        return;
    if (set_attributes(x->req, x->store, x->conf->store_access) == 0)
        rename_to(x);
    store_give_up(x);
}
