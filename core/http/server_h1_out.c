/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Answers of the HTTP/1 driver: heads and chunks are framed behind each other into one queue, which goes out
 * in one writev for each turn that produced enough of it, as fast as the socket, limit_rate and
 * sendfile_max_chunk allow. Called by the engine through answer_ops and by server_h1.c.
 */
#include <errno.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/server_h1.h"

static struct str server_field(struct req *r)
{
    return fields_get(&r->out.fields, T_SERVER) != NULL ? STR_NULL : answer_server(r);
}

/* The listening socket has the default server's setting; another one costs a call, once. */
static void set_nodelay(struct conn *conn, bool on)
{
    struct conn_info info;

    conn_info(conn, &info);
    if (info.fd >= 0)
        socket_nodelay(info.fd, on);
}

enum verdict h1_out_head(struct req *r)
{
    struct client *c = r->client;
    struct h1_state *st = c->h1;
    const struct core_loc *core = r->loc->core;
    struct h1_response w = { .msg = &r->out, .connection_field = true };
    bool joined = r->method == METHOD_CONNECT && r->out.status / 100 == 2;
    char *buf, *end;

    if (r->in->version == HTTP_09) {
        r->keep_alive = false;
        return V_NEXT;
    }
    if (unlikely(r->expect_trailers) && r->in->version >= HTTP_11 && core->chunked_transfer_encoding
        && !r->header_only)
        r->out.content_length = -1;
    if (r->out.content_length < 0 && !r->header_only) {
        st->chunked = r->in->version >= HTTP_11 && core->chunked_transfer_encoding;
        if (!st->chunked)
            r->keep_alive = false;
    }
    if (c->draining)
        r->keep_alive = false;
    if (unlikely(core->tcp_nodelay != c->nodelay) && !c->conn->unix_peer) {
        c->nodelay = core->tcp_nodelay;
        set_nodelay(c->conn, c->nodelay);
    }
    w.server = server_field(r);
    w.date = fields_get(&r->out.fields, T_DATE) ? STR_NULL : clock_http_date();
    r->out.chunked = w.chunked = st->chunked;
    /* Behind it is no answer, but another connection (RFC 9110, 9.3.6). */
    w.connection_field = !joined;
    if (unlikely(joined))
        r->keep_alive = false;
    w.keep_alive = r->keep_alive;
    w.upgrade = r->out.status == 101;
    w.keep_alive_s = r->keep_alive ? core->keepalive_header_s : 0;
    buf = arena_bytes(r->arena, h1_response_size(&w));
    end = h1_write_response(&w, buf);
    r->response_head_bytes = (uint64_t) (end - buf);
    chain_push_mem(&st->out, NULL, buf, (size_t) (end - buf));
    return V_NEXT;
}

/* n bytes of chunk framing at the end of the output. They live in blocks of their own, many to a block. */
static char *frame_space(struct h1_state *st, size_t n)
{
    if (st->frame == NULL || st->frame->size - st->frame_used < n) {
        block_unref(st->frame);
        st->frame = block_new(n);
        st->frame_used = 0;
    }
    return st->frame->data + st->frame_used;
}

static void frame_commit(struct h1_state *st, const char *start, const char *end)
{
    chain_push_mem(&st->out, st->frame, start, (size_t) (end - start));
    st->frame_used += (size_t) (end - start);
}

static void queue_chunk(struct h1_state *st, struct chain *chain)
{
    char *start = frame_space(st, 2 + H1_CHUNK_HEAD_MAX), *p = start;

    if (st->crlf_due)
        p = fmt_str(p, STR("\r\n"));
    p = h1_write_chunk_head(p, chain->bytes);
    frame_commit(st, start, p);
    chain_append(&st->out, chain);
    st->crlf_due = true;
}

static void queue_last_chunk(struct req *r, struct h1_state *st)
{
    if (st->crlf_due)
        chain_push_str(&st->out, STR("\r\n"));
    h1_write_last_chunk(&r->out.trailers, &st->out);
}

/* Nobody is there any more. True: the request goes on nevertheless, to the end of what it produces. */
static bool go_on_without(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;

    if (likely(r->outlives == 0))
        return false;
    r->keep_alive = false;
    st->deaf = true;
    st->blocked = st->delayed = false;
    timer_stop(&st->write_timer);
    chain_clear(&st->out);
    conn_want(c->conn, 0);
    return true;
}

/* The answer is over that nobody has seen the end of. */
static enum verdict end_unseen(struct req *r, unsigned flags)
{
    if (flags & BODY_END) {
        r->client->h1->out_end = r->ended = true;
        return V_ABORT;
    }
    return r->outlives > 0 ? V_NEXT : V_ABORT;
}

enum verdict h1_out_body(struct req *r, struct chain *chain, unsigned flags)
{
    struct client *c = r->client;
    struct h1_state *st = c->h1;

    if (r->aborted || st->out_end) {
        chain_clear(chain);
        return V_ABORT;
    }
    if (unlikely(st->deaf)) {
        chain_clear(chain);
        return end_unseen(r, flags);
    }
    r->body_sent += chain->bytes;
    if (chain->bytes > 0) {
        if (st->chunked)
            queue_chunk(st, chain);
        else
            chain_append(&st->out, chain);
    }
    if (flags & BODY_END) {
        st->out_end = true;
        r->ended = true;
        if (st->chunked)
            queue_last_chunk(r, st);
        if (r->out.content_length >= 0 && !r->header_only && r->in->version != HTTP_09
            && r->body_sent != (uint64_t) r->out.content_length) {
            /* A body cut short must be seen as such. */
            r->keep_alive = false;
        }
    }
    if (st->blocked || st->delayed)
        return V_NEXT;
    if (!st->out_end && !(flags & BODY_FLUSH) && st->out.bytes < r->loc->core->postpone_output)
        return V_NEXT;
    return h1_out_write(c) == 0 ? V_NEXT : V_ABORT;
}

uint64_t h1_out_buffered(const struct req *r)
{
    return r->client->h1->out.bytes;
}

void h1_out_informational(struct req *r, unsigned status, const struct fields *fields)
{
    struct client *c = r->client;
    struct msg m = { .status = status, .content_length = -1 };
    struct h1_response w = { .msg = &m };
    char *buf;

    if (r->in->version < HTTP_11)
        return;
    if (fields != NULL)
        m.fields = *fields;
    buf = arena_bytes(r->arena, h1_response_size(&w));
    chain_push_mem(&c->h1->out, NULL, buf, (size_t) (h1_write_response(&w, buf) - buf));
    if (!c->h1->blocked && !c->h1->delayed && !c->h1->deaf)
        h1_out_write(c); /* a failure shows again when the answer is written */
}

/* Bytes that limit_rate allows now: 0: wait (the timer is set), UINT64_MAX: no limit. */
static uint64_t rate_allows(struct req *r, struct h1_state *st)
{
    const struct core_loc *core = r->loc->core;
    uint64_t elapsed_ms, allowed, sent = r->sent_bytes;

    if (r->limit_rate == UINT64_MAX)
        r->limit_rate = expr_size(&r->eval, &core->limit_rate);
    if (r->limit_rate_after == UINT64_MAX)
        r->limit_rate_after = expr_size(&r->eval, &core->limit_rate_after);
    if (r->limit_rate == 0)
        return UINT64_MAX;
    elapsed_ms = clock_ms() - r->start_ms;
    if (r->limit_rate > UINT64_MAX / 2 / (elapsed_ms + 1000))
        return UINT64_MAX; /* more than any socket takes */
    allowed = r->limit_rate_after + r->limit_rate * (elapsed_ms + 1000) / 1000;
    if (sent < allowed)
        return allowed - sent;
    st->delayed = true;
    timer_set(&st->write_timer, (sent - allowed) * 1000 / r->limit_rate + 1);
    return 0;
}

int h1_out_write(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;
    uint64_t limit, chunk = r->loc->core->sendfile_max_chunk;
    ssize_t n;

    if (unlikely(st->delayed)) {
        /* An event comes before the timer: whether to wait on is decided anew. */
        st->delayed = false;
        timer_stop(&st->write_timer);
    }
    limit = rate_allows(r, st);
    if (limit == 0)
        return 0;
    /* A fast client must not keep the worker to itself: the rest follows in the next turn. */
    if (chunk == 0 || limit <= chunk)
        chunk = limit;
    c->conn->ends = st->out_end && !r->keep_alive;
    n = conn_send(c->conn, &st->out, chunk == UINT64_MAX ? 0 : chunk, false);
    if (n < 0) {
        if (errno != EPROTO)
            log_info(&r->log, errno, "writev() failed");
        if (go_on_without(c) && !st->out_end)
            return 0;
        r->keep_alive = false;
        r->aborted = true;
        return -1;
    }
    r->sent_bytes += (uint64_t) n;
    if (!chain_empty(&st->out)) {
        if (limit == chunk && limit != UINT64_MAX && (c->conn->ready & CONN_WRITE)) {
            st->delayed = true;
            timer_set(&st->write_timer, 1000 * MIN(st->out.bytes, limit) / r->limit_rate + 1);
            return 0;
        }
        st->blocked = true;
        timer_set(&st->write_timer, r->loc->core->send_timeout_ms);
        h1_update_wants(c);
        return 0;
    }
    if (st->blocked) {
        st->blocked = false;
        timer_stop(&st->write_timer);
        h1_update_wants(c);
    }
    if (st->out_end)
        req_done(r);
    return 0;
}

void h1_out_wrote(struct client *c, int result)
{
    struct h1_state *st = c->h1;
    struct req *r;

    if (st == NULL)
        return;
    r = st->req;
    if (result != 0) {
        req_abort(r, 499);
        return;
    }
    if (!r->finished && !st->out_end)
        answer_drained(r);
}

void h1_out_timeout(struct timer *timer)
{
    struct h1_state *st = container_of(timer, struct h1_state, write_timer);
    struct req *r = st->req;
    struct client *c = r->client;

    if (st->delayed) {
        st->delayed = false;
        h1_out_wrote(c, h1_out_write(c));
        return;
    }
    if (r->log.action == NULL || strncmp(r->log.action, "sending", 7) != 0)
        r->log.action = "sending to client";
    log_info(&r->log, ETIMEDOUT, "client timed out");
    if (!st->out_end && go_on_without(c)) {
        h1_out_wrote(c, 0);
        return;
    }
    c->conn->reset_on_close = r->loc->core->reset_timedout_connection;
    req_abort(r, 408);
}
