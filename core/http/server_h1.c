/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HTTP/1 on a client's connection: reads heads and bodies through the codec, starts requests and goes on
 * with the connection when they have ended; their answers are written by server_h1_out.c. All
 * memory of a request, this driver's state included, lives in the request's arena, so that a
 * connection at rest holds none.
 */
#include <errno.h>

#include "core/base/clock.h"
#include "core/http/req_log.h"
#include "core/http/server_h1.h"
#include "core/http/trace.h"

#define FIELDS_HINT 24
#define READS_PER_EVENT 16 /* then others have their turn */

static const struct answer_ops h1_ops;

struct req *client_req(const struct client *c)
{
    return c->state == CLIENT_REQUEST && c->h1 != NULL ? c->h1->req : NULL;
}

/* Heads ------------------------------------------------------------------------------------- */

static void apply_server_limits(struct h1_parser *p, const struct core_srv *core)
{
    p->line_max = MAX(core->client_header_buffer_size, core->large_client_header_buffers.size);
    p->field_max = p->line_max;
    p->fields_max = (unsigned) core->max_headers;
    p->ignore_invalid = core->ignore_invalid_headers;
    p->underscores = core->underscores_in_headers;
}

/* The Host has been seen: the server it names governs what follows. */
static void host_seen(struct h1_parser *p, struct str host)
{
    struct req *r = p->data;
    struct client *c = r->client;

    if (h1_host_normalize(r->arena, host, &r->host, &r->host_port) != 0) {
        p->error = H1_BAD_HOST;
        p->bad = host;
        return;
    }
    if (c->listen->names != NULL)
        r->server = http_server_find(c->listen, r->host, &r->eval, &r->match);
    apply_server_limits(p, r->server->core);
    p->allow_connect = r->server->allow_connect;
    r->log.scope = c->debug ? c->debug : r->server->core_loc->error_log;
}

static void invalid_field(struct h1_parser *p, struct str line)
{
    struct req *r = p->data;

    log_info(&r->log, 0, "client sent invalid header line: \"%.*s\"", STR_ARG(line));
}

/* Request memory for a connection that was at rest. block: already holds bytes start..end. */
static void begin(struct client *c, struct block *block, size_t start, size_t end)
{
    struct arena *arena = arena_new();
    struct req *r = req_new(c, arena);
    struct h1_state *st = ARENA_NEW(arena, struct h1_state);

    r->ops = &h1_ops;
    r->server = c->server;
    r->loc = c->server->root;
    r->eval.space = &c->listen->http->vars;
    r->log.scope = c->debug ? c->debug : c->server->core_loc->error_log;
    r->log.conn = c->conn->log.conn;
    r->log.action = "reading client request line";
    r->log.describe = req_describe;
    r->log.data = r;
    r->in = &st->msg;
    msg_init(&st->msg, arena, FIELDS_HINT);
    h1_parser_init(&st->parser, &st->msg, false);
    st->parser.host = host_seen;
    st->parser.invalid = invalid_field;
    st->parser.data = r;
    apply_server_limits(&st->parser, c->server->core);
    st->req = r;
    st->in = block;
    st->start = start;
    st->end = end;
    st->write_timer.fire = h1_out_timeout;
    st->write_timer.deadline_ms = TIMER_OFF;
    c->h1 = st;
    c->state = CLIENT_HEAD;
    client_works(c);
    client_counts->reading++;
}

/* The state's own references go; the arena with the rest goes with the request. */
static void state_release(struct h1_state *st)
{
    timer_drop(&st->write_timer);
    chain_clear(&st->out);
    block_unref(st->in);
    block_unref(st->frame);
    h1_body_free(&st->body);
    h1_body_free(&st->old_body);
    for (struct kept *k = st->kept; k != NULL; k = k->next)
        block_unref(k->block);
}

void h1_server_free(struct client *c)
{
    struct h1_state *st = c->h1;

    if (st == NULL)
        return;
    c->h1 = NULL;
    state_release(st);
    if (!st->req->finished) {
        /* A head or a body's rest was being read: no request has run that the engine knows of. */
        chain_clear(&st->req->body.chain);
        st->req->finished = true;
        loop_destroy_soon(&st->req->doomed);
    }
}

/* Gives the head up with a status that is only logged: nothing is sent (408, 400). */
static void head_lost(struct client *c, unsigned status)
{
    struct req *r = c->h1->req;

    client_counts->reading--;
    client_counts->writing++;
    c->state = CLIENT_REQUEST;
    r->keep_alive = false;
    req_abort(r, status);
}

/* What the request line asked for. 0, or -1: the URI is malformed. */
static int take_target(struct req *r, struct h1_state *st)
{
    struct uri_parts parts;

    if (unlikely(st->msg.method == METHOD_CONNECT)) {
        /* It names a server and nothing on it: what is said of everything there holds. */
        r->unparsed_uri = st->msg.target;
        r->uri = STR("/");
        r->head_bytes = st->head_bytes;
        return 0;
    }
    r->unparsed_uri = st->parser.path;
    if (uri_normalize(r->arena, st->parser.path, r->server->core->merge_slashes, &parts) != 0)
        return -1;
    r->uri = parts.uri;
    r->args = parts.args.len > 0 ? parts.args : STR_NULL;
    r->exten = parts.exten;
    r->complex_uri = parts.complex;
    r->head_bytes = st->head_bytes;
    return 0;
}

/* A request that TLS has something against: answered with a status, once its head is known. */
static void head_refused(struct client *c, unsigned status)
{
    struct req *r = c->h1->req;

    r->keep_alive = false;
    r->lingering = !r->body.complete;
    r->body.complete = true;
    req_start_error(r, status);
}

/* Whether the request may be answered here. A status, or 0. */
static unsigned tls_objects(struct client *c, struct req *r)
{
    if (!c->tls) {
        log_info(&r->log, 0, "client sent plain HTTP request to HTTPS port");
        return 497;
    }
    return req_explained() ? 0 : c->listen->http->tls->check(r);
}

static void head_failed(struct client *c, enum h1_error error)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;
    struct str bad = st->parser.bad;

    if (req_explained())
        trace_server(r);
    if (bad.ptr != NULL)
        log_info(&r->log, 0, "%s: \"%.*s\"", h1_error_text(error), STR_ARG(bad));
    else
        log_info(&r->log, 0, "%s", h1_error_text(error));
    client_counts->reading--;
    client_counts->writing++;
    client_counts->requests++;
    c->requests++;
    c->state = CLIENT_REQUEST;
    timer_stop(&c->conn->timer);
    r->method = st->msg.method ? st->msg.method : METHOD_UNKNOWN;
    r->method_name = st->msg.method_name;
    r->body.complete = true;
    r->keep_alive = false;
    r->lingering = true;
    /* Behind a line that was in order, the page and the log know what it was. */
    if (st->msg.version == 0 || error == H1_BAD_URI || take_target(r, st) != 0)
        r->uri = STR("");
    if (st->msg.version == 0)
        st->msg.version = HTTP_11;
    conn_want(c->conn, CONN_HUP);
    req_start_error(r, h1_error_status(error));
}

/* True: it came as early data, which anybody may have sent again, and is not to be acted on yet. */
static bool head_waits(struct client *c, struct req *r)
{
    if (likely(!client_is_early(c)) || !c->listen->http->tls->waits(r))
        return false;
    c->listen->http->tls->conn.hold(c->conn);
    c->state = CLIENT_EARLY;
    r->log.action = "waiting for the end of the SSL handshake";
    conn_want(c->conn, CONN_WRITE);
    return true;
}

static void head_done(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;
    unsigned refused;

    if (st->parser.error == H1_BAD_HOST) {
        head_failed(c, H1_BAD_HOST);
        return;
    }
    if (r->server == c->server && st->parser.host_value.ptr == NULL && c->listen->names != NULL)
        r->server = http_server_find(c->listen, STR(""), &r->eval, &r->match);
    if (take_target(r, st) != 0) {
        st->parser.bad = STR_NULL;
        head_failed(c, H1_BAD_URI);
        return;
    }
    r->method = st->msg.method;
    r->method_name = st->msg.method_name;
    if (unlikely(c->tls) && head_waits(c, r))
        return;
    client_counts->reading--;
    client_counts->writing++;
    client_counts->requests++;
    c->requests++;
    c->state = CLIENT_REQUEST;
    timer_stop(&c->conn->timer);
    r->valid_unparsed_uri = true;
    r->keep_alive = st->msg.keep_alive;
    r->request_number = c->requests;
    h1_body_init(&st->body, &st->msg, false, false);
    if (st->body.kind == H1_BODY_NONE || (st->body.kind == H1_BODY_LENGTH && st->body.left == 0)) {
        r->body.complete = true;
    } else {
        r->body.length = st->body.kind == H1_BODY_CHUNKED ? -1 : st->msg.content_length;
    }
    conn_want(c->conn, CONN_HUP);
    if (req_explained())
        trace_server(r);
    refused = unlikely(c->listen->ssl) ? tls_objects(c, r) : 0;
    r->log.action = NULL;
    if (unlikely(refused != 0))
        head_refused(c, refused);
    else
        req_start(r);
}

void h1_server_shaken(struct client *c, bool well)
{
    if (well) {
        c->state = CLIENT_HEAD;
        c->h1->req->log.action = "reading client request headers";
        head_done(c);
    } else {
        head_lost(c, 400);
    }
}

/* The buffer moves on; what was parsed goes on pointing into the old block. */
static void keep_block(struct h1_state *st)
{
    struct kept *k;

    if (st->in_is_body) {
        block_unref(st->in);
        return;
    }
    k = ARENA_NEW(st->req->arena, struct kept);
    k->block = st->in;
    k->next = st->kept;
    st->kept = k;
}

/* Makes room for more of an incomplete line. What was parsed stays where it is. */
static void make_room(struct h1_state *st)
{
    size_t have = st->end - st->start;
    struct block *bigger;

    if (st->end < st->in->size)
        return;
    bigger = block_new(MAX(BLOCK_SMALL, have * 2));
    memcpy(bigger->data, st->in->data + st->start, have);
    keep_block(st);
    st->in = bigger;
    st->in_is_body = false;
    st->start = 0;
    st->end = have;
}

/* Drops what is left of the previous request's body. False: more is needed, or the connection is at rest or gone. */
static bool drop_old_body(struct client *c)
{
    struct h1_state *st = c->h1;
    size_t used = 0;
    enum h1_result result;

    if (st->old_body.kind == H1_BODY_NONE)
        return true;
    result = h1_body_decode(&st->old_body, st->in, st->in->data + st->start, st->end - st->start,
                            UINT64_MAX, NULL, &used);
    st->start += used;
    if (result == H1_ERROR) {
        client_close(c);
        return false;
    }
    if (result == H1_MORE) {
        const struct core_loc *core = c->server->core_loc;
        uint64_t spent_ms = clock_ms() - st->req->start_ms;

        st->start = st->end = 0;
        if (spent_ms < core->lingering_time_ms)
            timer_set(&c->conn->timer,
                      MIN(core->lingering_timeout_ms, core->lingering_time_ms - spent_ms));
        return false;
    }
    if (st->start == st->end) {
        h1_server_free(c);
        client_idle(c);
        return false;
    }
    st->old_body.kind = H1_BODY_NONE;
    c->state = CLIENT_HEAD;
    client_counts->reading++;
    timer_set(&c->conn->timer, c->server->core->client_header_timeout_ms);
    return true;
}

/* The PROXY header in front of the first request. False: not complete, or the client is closed. */
static bool take_proxy_header(struct client *c)
{
    struct h1_state *st = c->h1;
    ssize_t n;

    if (likely(!c->listen->proxy_protocol) || c->requests > 0
        || (c->extra != NULL && c->extra->proxy_seen))
        return true;
    n = client_take_proxy(c, st->in->data + st->start, st->end - st->start,
                          st->end - st->start == st->in->size);
    if (n <= 0)
        return false;
    st->start += (size_t) n;
    return true;
}

/* Parses what is buffered. Afterwards the client is in HEAD or DISCARD (needs more), IDLE, REQUEST or closed. */
static void parse(struct client *c)
{
    struct h1_state *st = c->h1;
    enum h1_result result;
    size_t used = 0, total;
    const struct core_srv *core;

    if (!drop_old_body(c) || !take_proxy_header(c))
        return;
    result = h1_parse(&st->parser, st->in->data + st->start, st->end - st->start, &used);
    st->start += used;
    st->head_bytes += used;
    if (st->msg.version != 0)
        st->req->log.action = "reading client request headers";
    if (st->parser.error != H1_OK || result == H1_ERROR) {
        head_failed(c, st->parser.error);
        return;
    }
    core = st->req->server->core;
    total = core->client_header_buffer_size
            + core->large_client_header_buffers.count * core->large_client_header_buffers.size;
    if (st->head_bytes > total) {
        head_failed(c, H1_HEAD_TOO_LARGE);
        return;
    }
    if (result == H1_DONE) {
        head_done(c);
        return;
    }
    if (h1_line_too_long(&st->parser, st->end - st->start))
        head_failed(c, st->parser.error);
}

/* Nothing more will come, or reading failed. */
static void read_ended(struct client *c, ssize_t n)
{
    struct h1_state *st = c->h1;

    if (st == NULL || c->state == CLIENT_DISCARD
        || (st->start == st->end && st->head_bytes == 0)) {
        if (n < 0 && errno != EPROTO)
            log_info(&c->conn->log, errno, "recv() failed");
        client_close(c);
        return;
    }
    if (n < 0 && errno != EPROTO)
        log_info(&st->req->log, errno, "recv() failed");
    else if (n == 0)
        log_info(&st->req->log, 0, "client prematurely closed connection");
    head_lost(c, 400);
}

/* More is needed: a head is not complete, or the rest of a body. What is buffered behind a request has its own turn. */
static bool needs_more(const struct client *c)
{
    return (c->state == CLIENT_HEAD || c->state == CLIENT_DISCARD) && !c->pipelined;
}

/* Something can be read, or already is buffered (a pipelined request). */
void h1_server_readable(struct client *c)
{
    struct h1_state *st;

    if (c->pipelined && (c->state == CLIENT_HEAD || c->state == CLIENT_DISCARD)) {
        c->pipelined = false;
        parse(c);
        if (!needs_more(c))
            return;
    }
    for (unsigned i = 0; i < READS_PER_EVENT && (c->conn->ready & CONN_READ); i++) {
        struct block *block;
        ssize_t n;

        st = c->h1;
        if (st != NULL)
            make_room(st);
        block = st != NULL ? st->in : block_new(BLOCK_SMALL);
        n = conn_read(c->conn, block->data + (st ? st->end : 0), block->size - (st ? st->end : 0));
        if (n <= 0) {
            int error = errno;

            if (st == NULL)
                block_unref(block);
            if (n < 0 && error == EAGAIN)
                break;
            errno = error;
            read_ended(c, n);
            return;
        }
        if (st == NULL) {
            if (c->state == CLIENT_IDLE || c->state == CLIENT_NEW)
                timer_set(&c->conn->timer, c->server->core->client_header_timeout_ms);
            begin(c, block, 0, (size_t) n);
        } else {
            st->end += (size_t) n;
        }
        parse(c);
        if (!needs_more(c))
            return;
    }
    if (c->state != CLIENT_CLOSED)
        conn_want(c->conn, CONN_READ);
}

void h1_server_bytes(struct client *c, struct block *block, size_t start, size_t end)
{
    timer_set(&c->conn->timer, c->server->core->client_header_timeout_ms);
    begin(c, block, start, end);
    parse(c);
    if (needs_more(c))
        h1_server_readable(c);
}

void h1_server_timeout(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;

    c->conn->reset_on_close = r->loc->core->reset_timedout_connection;
    if (c->state == CLIENT_HEAD || c->state == CLIENT_EARLY) {
        if (st->head_bytes == 0 && st->start == st->end) {
            client_close(c);
            return;
        }
        log_info(&r->log, ETIMEDOUT, "client timed out");
        head_lost(c, 408);
    } else if (c->state == CLIENT_DISCARD) {
        client_close(c);
    } else if (st->wants_body) {
        log_info(&r->log, ETIMEDOUT, "client timed out");
        st->wants_body = false;
        body_failed(r, 408);
    }
}

/* Bodies of requests ------------------------------------------------------------------------ */

void h1_update_wants(struct client *c)
{
    struct h1_state *st = c->h1;
    unsigned wants = CONN_HUP;

    if (st->wants_body || st->raw)
        wants = CONN_READ;
    if (st->blocked)
        wants |= CONN_WRITE;
    conn_want(c->conn, wants);
}

/* Decodes what is buffered and hands it on. False: the request has ended meanwhile. */
static bool feed_buffered(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;
    struct chain got = CHAIN_INIT;
    size_t used = 0;
    enum h1_result result;

    result = h1_body_decode(&st->body, st->in, st->in->data + st->start, st->end - st->start,
                            UINT64_MAX, r->body.discarding ? NULL : &got, &used);
    st->start += used;
    r->body.wire += used;
    if (result == H1_ERROR) {
        chain_clear(&got);
        log_info(&r->log, 0, "client sent invalid chunked body");
        st->wants_body = false;
        r->keep_alive = false;
        body_failed(r, 400);
        return false;
    }
    if (result == H1_DONE)
        st->wants_body = false;
    body_feed(r, &got, result == H1_DONE);
    chain_clear(&got);
    return !r->finished;
}

/* Behind a 101 the end of the client's data is nothing premature. */
static void tunnel_ended(struct req *r, struct h1_state *st)
{
    struct chain none = CHAIN_INIT;

    st->wants_body = false;
    body_feed(r, &none, true);
}

static void read_body_more(struct client *c)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;

    for (unsigned i = 0; i < READS_PER_EVENT && st->wants_body && (c->conn->ready & CONN_READ);
         i++) {
        ssize_t n;

        if (st->in == NULL || !st->in_is_body || st->in->refs > 1) {
            /* What was decoded is still in use by reference; feed_buffered left nothing undecoded. */
            if (st->in != NULL)
                keep_block(st);
            st->in = block_new(BLOCK_LARGE);
            st->in_is_body = true;
        }
        st->start = st->end = 0;
        n = conn_read(c->conn, st->in->data + st->end, st->in->size - st->end);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n == 0 && st->tunnel) {
            tunnel_ended(r, st);
            return;
        }
        if (n <= 0) {
            if (n < 0 && errno != EPROTO)
                log_info(&r->log, errno, "recv() failed");
            else if (n == 0)
                log_info(&r->log, 0, "client prematurely closed connection");
            st->wants_body = false;
            r->keep_alive = false;
            body_failed(r, 400);
            return;
        }
        st->end += (size_t) n;
        if (!st->tunnel)
            timer_set(&c->conn->timer, r->loc->core->client_body_timeout_ms);
        if (!feed_buffered(c))
            return;
    }
    if (!st->wants_body)
        timer_stop(&c->conn->timer);
    if (st->tunnel && st->in != NULL && st->in_is_body && st->in->refs == 1) {
        /* While the client is silent, nothing is held. */
        block_unref(st->in);
        st->in = NULL;
        st->start = st->end = 0;
    }
    h1_update_wants(c);
}

static void h1_read_body(struct req *r, bool on)
{
    struct client *c = r->client;
    struct h1_state *st = c->h1;

    if (st->wants_body == on || r->body.complete)
        return;
    st->wants_body = on;
    if (on) {
        if (st->start < st->end && !feed_buffered(c))
            return;
        if (st->wants_body && !st->tunnel)
            timer_set(&c->conn->timer, r->loc->core->client_body_timeout_ms);
    } else {
        timer_stop(&c->conn->timer);
    }
    h1_update_wants(c);
}

/* Answers and what follows them ---------------------------------------------------------------- */

void h1_server_event(struct client *c, unsigned ready)
{
    struct h1_state *st = c->h1;
    struct req *r = st->req;

    if ((ready & CONN_WRITE) && st->blocked) {
        h1_out_wrote(c, h1_out_write(c));
        if (c->h1 != st || r->finished)
            return;
    }
    if ((ready & (CONN_READ | CONN_HUP)) && st->wants_body) {
        read_body_more(c);
        return;
    }
    if ((ready & (CONN_READ | CONN_HUP)) && st->raw) {
        if (r->body.on_data != NULL)
            r->body.on_data(r);
        return;
    }
    if ((ready & CONN_HUP) && r->on_hup != NULL)
        r->on_hup(r);
}

/* After a request --------------------------------------------------------------------------- */

/* The next request's memory, with what is already buffered. */
static void next_request(struct client *c, struct h1_state *old)
{
    struct block *in = old->in;
    size_t start = old->start, end = old->end;
    bool discard = !old->req->body.complete;
    struct h1_body rest = old->body;

    old->in = NULL;
    memset(&old->body, 0, sizeof(old->body));
    c->h1 = NULL;
    state_release(old);
    if (start == end && !discard) {
        block_unref(in);
        client_idle(c);
        return;
    }
    begin(c, in, start, end);
    c->h1->req->pipelined = !discard;
    c->pipelined = true;
    if (discard) {
        c->h1->old_body = rest;
        c->h1->old_body.msg = NULL;
        c->state = CLIENT_DISCARD;
        client_counts->reading--;
        timer_set(&c->conn->timer, c->server->core_loc->lingering_timeout_ms);
    } else {
        timer_set(&c->conn->timer, c->server->core->client_header_timeout_ms);
    }
    loop_later(&c->later);
}

/* What has not been read would make the kernel reset the connection and the client lose the answer. */
static bool must_linger(struct client *c, struct h1_state *st, const struct core_loc *core)
{
    struct req *r = st->req;

    if (core->lingering_close == LINGER_OFF)
        return false;
    return core->lingering_close == LINGER_ALWAYS || r->lingering || !r->body.complete
           || st->start < st->end || (c->conn->ready & CONN_READ) || client_is_early(c);
}

static void h1_finished(struct req *r)
{
    struct client *c = r->client;
    struct h1_state *st = c->h1;
    const struct core_loc *core = r->loc->core;

    client_counts->writing--;
    c->server_keepalive_ms = core->keepalive_timeout_ms;
    if (r->keep_alive && !c->draining) {
        next_request(c, st);
        return;
    }
    if (must_linger(c, st, core)) {
        c->h1 = NULL;
        state_release(st);
        client_linger(c, core);
        return;
    }
    client_close(c);
}

static void h1_reset(struct req *r)
{
    struct client *c = r->client;

    client_counts->writing--;
    client_close(c);
}

static struct conn *h1_tunnel(struct req *r)
{
    struct h1_state *st = r->client->h1;

    st->tunnel = true;
    st->body.kind = H1_BODY_CLOSE;
    r->body.length = 0;
    r->body.complete = r->body.started = r->body.discarding = false;
    return r->client->conn;
}

static void h1_tunnel_want(struct req *r, unsigned what)
{
    struct h1_state *st = r->client->h1;

    st->raw = (what & CONN_READ) != 0;
    if (what & CONN_WRITE) {
        st->blocked = true;
        timer_set(&st->write_timer, r->loc->core->send_timeout_ms);
    }
    h1_update_wants(r->client);
}

static const struct answer_ops h1_ops = {
    .head = h1_out_head,
    .body = h1_out_body,
    .buffered = h1_out_buffered,
    .informational = h1_out_informational,
    .read_body = h1_read_body,
    .finished = h1_finished,
    .reset = h1_reset,
    .tunnel = h1_tunnel,
    .tunnel_want = h1_tunnel_want,
};
