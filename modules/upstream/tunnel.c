/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After 101 Switching Protocols: bytes go both ways as they come, until either end closes. The
 * server's go through the answer's body like any others; the client's come through the
 * request's body, streamed, which the protocol treats as unbounded from then on.
 */
#include <errno.h>

#include "modules/upstream/internal.h"

#define READS_PER_EVENT 8 /* then others have their turn */

static void end(struct exchange *x)
{
    exchange_finish(x, V_ABORT);
}

/* The server has closed: what it sent is still to reach the client. */
static void server_closed(struct exchange *x)
{
    x->ended = true;
    if (answer_buffered(x->req) == 0) {
        end(x);
        return;
    }
    timer_stop(&x->up->conn->timer);
    conn_want(x->up->conn, 0);
}

/* From the client to the server. */
static void to_server(struct exchange *x)
{
    struct req *r = x->req;
    struct conn *conn = x->up->conn;
    ssize_t n;

    if (x->ended) {
        chain_clear(&r->body.chain);
        if (r->body.complete || r->body.failed)
            end(x);
        return;
    }
    chain_append(&x->out, &r->body.chain);
    if (!chain_empty(&x->out)) {
        n = conn_send(conn, &x->out, 0, false);
        if (n < 0) {
            log_info(&r->log, errno, "writev() failed");
            end(x);
            return;
        }
        exchange_record(x)->bytes_sent += (uint64_t) n;
        timer_set(&conn->timer, x->conf->read_timeout_ms);
    }
    if ((r->body.complete || r->body.failed) && chain_empty(&x->out)) {
        /* Closed by the client, and all that it sent has been passed on. */
        end(x);
        return;
    }
    conn_want(conn, (x->paused ? 0 : CONN_READ) | (chain_empty(&x->out) ? 0 : CONN_WRITE));
    if (chain_empty(&x->out))
        body_consumed(r);
}

static void client_came(struct req *r)
{
    struct exchange *x = exchange_of(r);

    if (x != NULL && x->state == X_TUNNEL && !x->pumping) {
        x->pumping = true;
        to_server(x);
        x->pumping = false;
    }
}

/* Hands n bytes of the block on. False: the exchange is over. */
static bool to_client(struct exchange *x, const char *ptr, size_t n)
{
    struct chain out = CHAIN_INIT;

    chain_push_mem(&out, x->in, ptr, n);
    x->received += n;
    if (answer_body(x->req, &out, BODY_FLUSH) == V_ABORT) {
        chain_clear(&out);
        if (x->state != X_OVER)
            end(x);
        return false;
    }
    return x->state == X_TUNNEL;
}

static void from_server(struct exchange *x)
{
    struct conn *conn = x->up->conn;

    for (unsigned i = 0; i < READS_PER_EVENT && !x->paused && (conn->ready & CONN_READ); i++) {
        ssize_t n;

        if (x->in == NULL || x->in->refs > 1) {
            block_unref(x->in);
            x->in = block_new(BLOCK_SMALL);
        }
        n = conn_read(conn, x->in->data, x->in->size);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            if (n < 0)
                log_info(&x->req->log, errno, "recv() failed");
            server_closed(x);
            return;
        }
        exchange_record(x)->bytes_received += (uint64_t) n;
        timer_set(&conn->timer, x->conf->read_timeout_ms);
        if (!to_client(x, x->in->data, (size_t) n))
            return;
        x->paused = answer_full(x->req, x->conf->busy);
    }
    if (x->in != NULL && x->in->refs == 1) {
        block_unref(x->in);
        x->in = NULL;
    }
    conn_want(conn, (x->paused ? 0 : CONN_READ) | (chain_empty(&x->out) ? 0 : CONN_WRITE));
}

static void drained(struct req *r)
{
    struct exchange *x = exchange_of(r);

    if (x == NULL || x->state != X_TUNNEL)
        return;
    if (x->ended) {
        if (answer_buffered(r) == 0)
            end(x);
        return;
    }
    if (!x->paused || answer_full(r, x->conf->busy))
        return;
    x->paused = false;
    conn_want(x->up->conn, CONN_READ | (chain_empty(&x->out) ? 0 : CONN_WRITE));
}

void tunnel_upstream_event(struct exchange *x, unsigned ready)
{
    if (ready & CONN_WRITE) {
        to_server(x);
        if (x->state != X_TUNNEL)
            return;
    }
    if (ready & (CONN_READ | CONN_HUP))
        from_server(x);
}

void tunnel_timeout(struct exchange *x)
{
    log_error(&x->req->log, ETIMEDOUT, "upstream timed out");
    end(x);
}

void tunnel_start(struct exchange *x)
{
    struct req *r = x->req;
    struct conn *conn = x->up->conn;
    size_t rest = x->end - x->start;
    struct chain none = CHAIN_INIT;

    x->state = X_TUNNEL;
    r->log.action = "proxying upgraded connection";
    r->keep_alive = false;
    r->header_only = false;
    r->limit_rate = 0;
    exchange_forget_hup(x); /* the end of the client's data is seen as the end of the body */
    r->on_drain = drained;
    if (answer_body(r, &none, BODY_FLUSH) == V_ABORT) {
        end(x);
        return;
    }
    if (rest > 0 && !to_client(x, x->in->data + x->start, rest))
        return;
    timer_set(&conn->timer, x->conf->read_timeout_ms);
    conn_want(conn, CONN_READ);
    chain_clear(&r->body.chain); /* of the request that asked for the tunnel: sent */
    r->ops->tunnel(r);
    body_stream(r, client_came);
    client_came(r);
}

void tunnel_free(struct exchange *x)
{
    if (x->state == X_TUNNEL)
        x->req->body.on_data = NULL;
}
