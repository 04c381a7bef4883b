/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PUT: the body is written as it comes to a temporary file, which takes the name's place when it
 * is complete: readers see the old file or the new one, never a part. What can be refused is
 * refused before the body is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/os/file.h"
#include "modules/http/dav.h"

#define PUT_IOV 64

struct put {
    const struct dav_conf *conf;
    struct str path;
    bool exists;
    int fd;
    struct str temp;   /* the file being written; empty: none any more */
    struct str beside; /* a copy of it on the other file system; empty: none */
    uint64_t written;
    int err; /* of a write */
    bool copying;
    struct dav_tree tree; /* copies temp to beside */
};

/* Whatever happens to the request, nothing half done stays. */
static void clean_up(void *arg)
{
    struct put *p = arg;

    dav_tree_close(&p->tree);
    if (p->fd >= 0)
        close(p->fd);
    if (p->temp.len > 0)
        unlink(p->temp.ptr);
    if (p->beside.len > 0)
        unlink(p->beside.ptr);
}

/* Receiving ------------------------------------------------------------------------------------ */

static int write_file_piece(struct put *p, const struct piece *piece)
{
    off_t from = piece->file.offset, to = (off_t) p->written;
    uint64_t left = piece->len;
    char buf[64 * 1024];

    while (left > 0) {
        ssize_t n = pread(piece->file.file->fd, buf, MIN(left, sizeof(buf)), from);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || file_pwrite(p->fd, buf, (size_t) n, to) != 0) {
            if (n == 0)
                errno = EIO;
            return -1;
        }
        from += n;
        to += n;
        left -= (uint64_t) n;
    }
    p->written += piece->len;
    return 0;
}

/* Writes all that is in the chain and empties it. */
static void take(struct put *p, struct chain *chain)
{
    struct iovec iov[PUT_IOV];

    while (p->err == 0 && !chain_empty(chain)) {
        size_t bytes = (size_t) chain->first->len;
        int rc;

        if (chain->first->kind == PIECE_FILE) {
            rc = write_file_piece(p, chain->first);
        } else {
            int n = chain_iov(chain, iov, PUT_IOV, &bytes);

            rc = file_pwritev(p->fd, iov, n, (off_t) p->written);
            p->written += bytes;
        }
        if (rc != 0)
            p->err = errno;
        else
            chain_consume(chain, bytes);
    }
    chain_clear(chain);
}

static void on_data(struct req *r)
{
    struct put *p = req_ctx(r, dav_slot);

    take(p, &r->body.chain);
    if (r->body.complete || r->body.failed || p->err != 0)
        req_resume(r);
    else
        body_consumed(r);
}

static enum verdict open_temp(struct req *r, struct put *p)
{
    const struct conf_path *dir = &r->loc->core->client_body_temp_path;

    p->fd = file_temp(r->arena, dir->path, dir->levels, false, 0600, &p->temp);
    if (p->fd >= 0)
        return V_NEXT;
    log_crit(&r->log, errno, "open() of a temporary file in \"%.*s\" failed", STR_ARG(dir->path));
    return req_status(r, errno == ENOSPC ? 507 : 500);
}

/* The stream is left to whoever drops what is not wanted. */
static enum verdict write_failed(struct req *r, struct put *p)
{
    r->main->body.on_data = NULL;
    r->main->keep_alive = false;
    r->main->lingering = true;
    return dav_failed(r, p->err, 500, "write()", p->temp.ptr);
}

/* Placing -------------------------------------------------------------------------------------- */

static enum verdict placed(struct req *r, struct put *p)
{
    p->temp = p->beside = STR_NULL;
    return p->exists ? dav_answer(r, 204, STR_NULL) : dav_answer(r, 201, r->uri);
}

static enum verdict place_failed(struct req *r, struct put *p, struct str from)
{
    int err = errno;
    struct str call = str_printf(r->arena, "rename() \"%.*s\" to", STR_ARG(from));

    return dav_failed(r, err, 409, call.ptr, p->path.ptr);
}

static enum verdict copy_some(struct req *r, struct put *p)
{
    switch (dav_tree_step(&p->tree)) {
    case 1: req_resume(r); return V_WAIT;
    case 0:
        if (rename(p->beside.ptr, p->path.ptr) != 0)
            return place_failed(r, p, p->beside);
        p->beside = STR_NULL;
        unlink(p->temp.ptr);
        return placed(r, p);
    default: return dav_failed(r, p->tree.err, 409, p->tree.call, p->beside.ptr);
    }
}

/* The temporary files are on another file system: a copy beside the name can take its place. */
static enum verdict begin_copy(struct req *r, struct put *p)
{
    p->beside = dav_beside(r->arena, p->path);
    dav_tree_init(&p->tree, r->arena, DAV_COPY, p->temp, p->beside);
    p->copying = true;
    return copy_some(r, p);
}

static void set_time(struct req *r, const struct put *p)
{
    const struct field *f = fields_get(&r->in->fields, T_DATE);
    time_t t = f != NULL ? fmt_parse_http_date(f->value) : -1;
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = t } };

    if (t != -1 && futimens(p->fd, times) != 0)
        log_crit(&r->log, errno, "futimens() \"%s\" failed", p->temp.ptr);
}

static enum verdict place(struct req *r, struct put *p)
{
    int fd = p->fd;

    if (fchmod(fd, p->conf->access) != 0)
        return dav_failed(r, errno, 500, "fchmod()", p->temp.ptr);
    set_time(r, p);
    p->fd = -1;
    if (close(fd) != 0)
        return dav_failed(r, errno, 500, "close()", p->temp.ptr);
    if (rename(p->temp.ptr, p->path.ptr) == 0)
        return placed(r, p);
    if (errno == ENOENT && p->conf->create_full_put_path) {
        if (dav_make_path(r->arena, p->path, p->conf->access) != 0)
            return dav_failed(r, errno, 409, "mkdir()", p->path.ptr);
        if (rename(p->temp.ptr, p->path.ptr) == 0)
            return placed(r, p);
    }
    return errno == EXDEV ? begin_copy(r, p) : place_failed(r, p, p->temp);
}

/* Beginning ------------------------------------------------------------------------------------ */

/* Whether the directory is there that the file is to be in. */
static bool has_parent(struct req *r, struct str path)
{
    ssize_t slash = str_rchr(path, '/');
    struct stat st;

    return stat(str_dup(r->arena, str_from(path.ptr, (size_t) slash + 1)).ptr, &st) == 0 ||
           errno != ENOENT;
}

/* What can be said before the body is there. V_NEXT: go on. */
static enum verdict check(struct req *r, const struct dav_conf *conf, struct put *p)
{
    struct stat st;
    enum verdict v;
    size_t root;

    if (r->uri.ptr[r->uri.len - 1] == '/') {
        log_error(&r->log, 0, "cannot PUT to a collection");
        return req_status(r, 409);
    }
    if (fields_get(&r->in->fields, T_CONTENT_RANGE) != NULL) {
        log_error(&r->log, 0, "PUT with range is unsupported");
        return req_status(r, 501);
    }
    if (req_map_path(r, &p->path, &root, 0) != 0)
        return req_status(r, 500);
    v = dav_check_links(r, p->path);
    if (v != V_NEXT)
        return v;
    p->exists = stat(p->path.ptr, &st) == 0;
    if (p->exists && S_ISDIR(st.st_mode)) {
        log_error(&r->log, EISDIR, "\"%s\" could not be created", p->path.ptr);
        return req_status(r, 409);
    }
    if (!p->exists && !conf->create_full_put_path && !has_parent(r, p->path)) {
        log_error(&r->log, ENOENT, "\"%s\" could not be created", p->path.ptr);
        return req_status(r, 409);
    }
    return dav_precondition(r, p->exists ? &st : NULL);
}

static enum verdict begin(struct req *r, const struct dav_conf *conf)
{
    struct put *p = ARENA_NEW(r->arena, struct put);
    enum verdict v = check(r, conf, p);

    if (v != V_NEXT)
        return v;
    if (req_explained()) {
        dav_explain(r, p->exists ? "replace" : "write", p->path);
        return placed(r, p);
    }
    /* Somebody has it, or is at it, already: it is read as a whole. */
    if (r != r->main || r->body.started) {
        v = body_read(r);
        if (v != V_NEXT)
            return v;
    }
    if (body_is_gone(r)) {
        log_error(&r->log, 0, "PUT request body is unavailable");
        return req_status(r, 500);
    }
    p->conf = conf;
    p->fd = -1;
    dav_tree_init(&p->tree, r->arena, DAV_COPY, STR_NULL, STR_NULL);
    v = open_temp(r, p);
    if (v != V_NEXT)
        return v;
    arena_defer(r->arena, clean_up, p);
    req_ctx_set(r, dav_slot, p, CTX_PASS);
    if (r->main->body.complete) {
        struct chain whole = CHAIN_INIT;

        body_copy(r, &whole);
        take(p, &whole);
        return V_NEXT;
    }
    body_stream(r, on_data);
    take(p, &r->body.chain);
    if (!r->body.complete && !r->body.failed && p->err == 0)
        body_consumed(r);
    return V_NEXT;
}

enum verdict dav_put(struct req *r, const struct dav_conf *conf)
{
    struct put *p = req_ctx(r, dav_slot);
    const struct body *b = &r->main->body;

    if (p == NULL) {
        enum verdict v = begin(r, conf);

        if (v != V_NEXT)
            return v;
        p = req_ctx(r, dav_slot);
    }
    if (p->copying)
        return copy_some(r, p);
    if (p->err != 0)
        return write_failed(r, p);
    if (b->failed)
        return body_read(r);
    if (!b->complete)
        return V_WAIT;
    return place(r, p);
}
