/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The body of a server's answer on its way to the client: how much waits in memory, what goes by
 * way of a temporary file, and when reading pauses. Buffered, the server is read as fast as it
 * sends; unbuffered, as fast as the client takes it. Bytes are handed on by reference.
 */
#include <errno.h>

#include "core/os/file.h"
#include "modules/upstream/internal.h"

#define SPOOL_IOV 64

void flow_free(struct exchange *x)
{
    chain_drop(&x->body);
    if (unlikely(x->file != NULL)) {
        chain_file_unref(x->file);
        x->file = NULL;
    }
}

/* The temporary file ------------------------------------------------------------------------- */

static int open_spool(struct exchange *x)
{
    const struct conf_path *dir = &x->conf->temp_path;
    int fd = file_temp(x->req->arena, dir->path, dir->levels, true, 0600, NULL);

    if (fd < 0) {
        log_crit(&x->req->log, errno, "open() of a temporary file in \"%.*s\" failed",
                 STR_ARG(dir->path));
        x->disk_failed = true;
        return -1;
    }
    x->file = chain_file_new(fd);
    log_warn(&x->req->log, 0, "an upstream response is buffered to a temporary file");
    return 0;
}

/* Moves what is in memory to the file. 0 or -1, logged. */
static int spool(struct exchange *x)
{
    struct iovec iov[SPOOL_IOV];

    if (x->file == NULL && open_spool(x) != 0)
        return -1;
    while (x->body.bytes > 0) {
        size_t bytes;
        int n = chain_iov(&x->body, iov, SPOOL_IOV, &bytes);

        if (file_pwritev(x->file->fd, iov, n, (off_t) x->file_written) != 0) {
            log_crit(&x->req->log, errno, "pwritev() to a temporary file failed");
            x->disk_failed = true;
            return -1;
        }
        x->file_written += bytes;
        chain_consume(&x->body, bytes);
    }
    return 0;
}

static bool file_waits(const struct exchange *x)
{
    return x->file_sent < x->file_written;
}

/* Handing on ---------------------------------------------------------------------------------- */

static void give_trailers(struct exchange *x)
{
    struct req *r = x->req;
    const struct fields *from = &x->head->trailers;

    if (!x->pass_trailers || x->cut)
        return;
    for (unsigned i = 0; i < from->count; i++) {
        const struct field *f = &from->items[i];

        if (!f->deleted)
            fields_add_hashed(&r->out, &r->out.trailers, (enum token) f->token, f->hash, f->name,
                              f->value);
    }
}

/* As much waits at the client's side as may, or a filter has to work off what it has. */
static bool is_full(const struct exchange *x)
{
    return x->req->filter_waits
           || answer_full(x->req, x->buffering ? x->conf->busy : x->conf->buffer_size);
}

/* All that waits, in order: the file's part, then what is in memory. */
static void take_waiting(struct exchange *x, struct chain *out)
{
    if (file_waits(x)) {
        chain_push_file(out, x->file, (off_t) x->file_sent, x->file_written - x->file_sent);
        x->file_sent = x->file_written;
    }
    if (unlikely(x->store != NULL))
        x->file_sent = x->file_written += x->body.bytes; /* it is in the file as well */
    chain_append(out, &x->body);
}

/* proxy_buffering auto: the server says no more for now, and nobody knows for how long. */
static bool is_silent(const struct exchange *x)
{
    return unlikely(x->flushes) && x->up != NULL && (x->up->conn->ready & CONN_READ) == 0;
}

/* Hands on what waits. False: the request has ended, or the exchange has. */
static bool hand_on(struct exchange *x)
{
    struct req *r = x->req;
    struct chain out = CHAIN_INIT;
    bool last = x->ended && !x->cut;
    unsigned flags = !x->buffering || x->cut || is_silent(x) ? BODY_FLUSH : 0;
    enum verdict v;

    take_waiting(x, &out);
    if (last) {
        give_trailers(x);
        flags |= BODY_END;
        exchange_over(x);
    } else if (chain_empty(&out) && !x->cut) {
        return true;
    }
    v = answer_body(r, &out, flags);
    chain_drop(&out);
    if (last) {
        if (v == V_ABORT)
            req_deliver(r, V_ABORT);
        return false;
    }
    if (x->state == X_OVER)
        return false;
    if (v == V_ABORT) {
        exchange_finish(x, V_ABORT);
        return false;
    }
    return true;
}

static void pause_reading(struct exchange *x)
{
    if (x->up == NULL || x->paused)
        return;
    x->paused = true;
    conn_want(x->up->conn, x->sent_all ? 0 : CONN_WRITE);
    if (x->sent_all)
        timer_stop(&x->up->conn->timer);
}

/* The client is slow, or other parts of the answer come first: memory, then the file, then a pause. */
static void hold_back(struct exchange *x)
{
    uint64_t held = answer_buffered(x->req) - MIN(x->file_sent, answer_buffered(x->req));

    if (x->up == NULL)
        return;
    if (!x->buffering && x->store == NULL) {
        pause_reading(x);
        return;
    }
    if (held + x->body.bytes < x->conf->memory)
        return;
    if (unlikely(x->store != NULL)) {
        /* All of it is in the file, which is what others may be waiting for: it never pauses. */
        x->file_written += x->body.bytes;
        chain_clear(&x->body);
        return;
    }
    if (x->body.bytes < x->conf->write_size && x->file_written < x->conf->max_temp_file_size)
        return;
    /* Where the disk fails, the server has to wait for the client. */
    if (x->disk_failed || x->file_written + x->body.bytes > x->conf->max_temp_file_size
        || spool(x) != 0)
        pause_reading(x);
}

void flow(struct exchange *x)
{
    struct req *r = x->req;

    if (x->state != X_BODY)
        return;
    if (is_full(x) && !(x->ended && !file_waits(x) && chain_empty(&x->body))) {
        hold_back(x);
        return;
    }
    if (!hand_on(x))
        return;
    if (x->cut) {
        /* What came before the break is to arrive; then the client sees a close. */
        if (answer_buffered(r) == 0 && !r->filter_waits)
            exchange_finish(x, V_ABORT);
        return;
    }
    if (!x->buffering && x->store == NULL && is_full(x))
        pause_reading(x);
    else if (x->paused)
        exchange_resume_reading(x);
}

void flow_drained(struct req *r)
{
    struct exchange *x = exchange_of(r);

    if (x != NULL && x->state == X_BODY)
        flow(x);
}
