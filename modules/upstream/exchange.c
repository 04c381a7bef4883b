/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The exchange: a server is chosen, a connection taken from the pool or made, the request sent,
 * the answer read and decoded by the backend; when that fails, another attempt. What the answer's
 * head means is head.c's, its body's way to the client flow.c's. Everything here runs from the
 * loop, except exchange_start and the end of a request (the wait's cancel).
 */
#include <errno.h>

#include "core/base/clock.h"
#include "modules/upstream/internal.h"

#define READS_PER_EVENT 8 /* then others have their turn */
/* The server has answered, with that status. */
#define NEXT_ANSWERED                                                                         \
    (NEXT_HTTP_500 | NEXT_HTTP_502 | NEXT_HTTP_503 | NEXT_HTTP_504 | NEXT_HTTP_403 | NEXT_HTTP_404 \
     | NEXT_HTTP_429)
#define BODY_ROOM 8192    /* less left in a block: a new one */

static void send_request(struct exchange *x);
static void pump_body(struct exchange *x);

struct exchange *exchange_of(const struct req *r)
{
    return req_ctx(r, upstream_slot);
}

/* ", upstream: "http://127.0.0.1:80/uri"" of the log line. */
static size_t describe(const struct req *r, char *buf, size_t size)
{
    const struct exchange *x = exchange_of(r);
    int n;

    if (x == NULL || x->record == 0)
        return 0;
    n = snprintf(buf, size, "%s%.*s%s%.*s", x->scheme != NULL ? x->scheme : x->backend->scheme,
                 STR_ARG(r->upstream.items[x->record - 1].peer),
                 str_starts(r->upstream.items[x->record - 1].peer, STR("unix:")) ? ":" : "",
                 STR_ARG(x->uri));
    return n < 0 ? 0 : MIN((size_t) n, size - 1);
}

/* The end ------------------------------------------------------------------------------------ */

/* What the group's method wants to know of a complete answer. Negative: nothing. */
static float answer_time(struct exchange *x)
{
    const struct upstream_record *rec;

    if (likely(x->group->method.time == TIME_NONE))
        return -1;
    rec = exchange_record(x);
    return (float) (x->group->method.time == TIME_HEADER ? rec->header_us : rec->response_us) / 1000;
}

/*
 * A connection from a port of its own closes with a reset once all has been said: otherwise that port would not lead to
 * this server for a minute, while the client whose port it is ($remote_port) may ask again at once.
 */
static bool frees_port(const struct upconn *u)
{
    return u->fixed && addr_port(u->local) != 0;
}

/* The connection of the attempt goes; complete: it may be kept. */
void exchange_detach(struct exchange *x, bool complete)
{
    struct upconn *u = x->up;

    if (u == NULL)
        return;
    x->up = NULL;
    exchange_record_end(x);
    if (unlikely(x->group->sticky != NULL) && complete)
        sticky_done(x);
    exchange_count(x, exchange_record(x)->status);
    choice_end(&x->choice, PEER_OK, complete ? answer_time(x) : -1);
    timer_stop(&u->conn->timer);
    complete = complete && !x->send_broken && chain_empty(&x->out) && x->sent_all;
    u->conn->reset_on_close = complete && unlikely(frees_port(u));
    if (complete && x->backend->reusable(x)) {
        if (likely(!x->group->ntlm) || !ntlm_keep(x, u))
            pool_give(u);
    } else {
        pool_close(u);
    }
}

void exchange_forget_hup(struct exchange *x)
{
    struct req *main = x->req->main;

    if (!x->watches_hup)
        return;
    x->watches_hup = false;
    if (--main->hup_watchers == 0)
        main->on_hup = NULL;
}

/* Everything but the wait: what the exchange holds is given back. */
static void let_go(struct exchange *x)
{
    struct req *r = x->req;

    if (x->state == X_OVER)
        return;
    if (x->state == X_RESOLVE)
        resolve_cancel(&x->query);
    if (x->state == X_QUEUE)
        queue_leave(x);
    tunnel_free(x);
    exchange_detach(x, false);
    choice_end(&x->choice, PEER_OK, -1);
    exchange_record_end(x);
    x->state = X_OVER;
    store_give_up(x);
    chain_drop(&x->out);
    flow_free(x);
    exchange_forget_hup(x);
    if (r->on_drain == flow_drained)
        r->on_drain = NULL;
    if (x->stream_body && r->body.streaming)
        r->body.on_data = NULL;
    r->log.action = NULL;
}

static void cancel(struct wait *w)
{
    let_go(container_of(w, struct exchange, wait));
}

void exchange_over(struct exchange *x)
{
    let_go(x);
    wait_end(&x->wait);
}

void exchange_finish(struct exchange *x, enum verdict v)
{
    if (x->state == X_OVER)
        return;
    exchange_over(x);
    if (x->starting)
        x->verdict = v;
    else
        req_deliver(x->req, v);
}

/* Blocks that x->head's fields lie in live until the request's memory goes. */
static void free_blocks(void *arg)
{
    struct exchange *x = arg;

    block_unref(x->in);
    x->in = NULL;
    x->backend->free(x);
}

/* Failed attempts ---------------------------------------------------------------------------- */

static unsigned status_of(unsigned why)
{
    switch (why) {
    case NEXT_TIMEOUT:
    case NEXT_HTTP_504: return 504;
    case NEXT_HTTP_500: return 500;
    case NEXT_HTTP_503: return 503;
    case NEXT_HTTP_403: return 403;
    case NEXT_HTTP_404: return 404;
    case NEXT_HTTP_429: return 429;
    default: return 502;
    }
}

/* Conditions on another attempt that hold whatever went wrong. */
static bool may_repeat(const struct exchange *x, unsigned why)
{
    const struct upstream_conf *conf = x->conf;

    if (x->request_sent && (x->req->method & (METHOD_POST | METHOD_LOCK | METHOD_PATCH)))
        why |= NEXT_NON_IDEMPOTENT;
    if ((conf->next_upstream & why) != why)
        return false;
    if (x->request_sent && x->stream_body && x->req->body.streaming)
        return false;
    return conf->next_upstream_timeout_ms == 0
           || clock_ms() - x->first_ms < conf->next_upstream_timeout_ms;
}

static void end_attempt(struct exchange *x, unsigned why, unsigned status,
                        enum peer_outcome outcome)
{
    exchange_count(x, why & NEXT_ANSWERED ? status : 0);
    choice_end(&x->choice, outcome, -1);
    if (x->record != 0) {
        exchange_record_end(x);
        exchange_record(x)->status = status;
    }
    if (x->up != NULL) {
        struct upconn *u = x->up;

        x->up = NULL;
        pool_close(u);
    }
    chain_clear(&x->out);
}

static void attempt_failed(struct exchange *x, unsigned why, enum peer_outcome outcome)
{
    unsigned status = status_of(why);

    if (x->choice.peer == NULL)
        why |= NEXT_NO_LIVE;
    end_attempt(x, why, status, outcome);
    if (x->choice.tries > 0 && may_repeat(x, why)) {
        exchange_next(x);
        return;
    }
    exchange_finish(x, req_status(x->req, status));
}

void exchange_attempt_failed(struct exchange *x, unsigned why)
{
    /* A kept-alive connection that had died is not the server's failure. */
    bool stale = x->up != NULL && x->up->reused && why == NEXT_ERROR && x->head_bytes == 0;

    attempt_failed(x, why, stale ? PEER_STALE : PEER_FAILED);
}

bool exchange_try_next(struct exchange *x, unsigned status)
{
    static const struct {
        unsigned status, bit;
    } bits[] = {
        { 500, NEXT_HTTP_500 }, { 502, NEXT_HTTP_502 }, { 503, NEXT_HTTP_503 },
        { 504, NEXT_HTTP_504 }, { 403, NEXT_HTTP_403 }, { 404, NEXT_HTTP_404 },
        { 429, NEXT_HTTP_429 },
    };
    unsigned why = 0;

    for (unsigned i = 0; i < ARRAY_LEN(bits); i++) {
        if (bits[i].status == status)
            why = bits[i].bit;
    }
    if (why == 0 || x->choice.tries < 2 || !may_repeat(x, why))
        return false;
    end_attempt(x, why, status, why & (NEXT_HTTP_403 | NEXT_HTTP_404) ? PEER_NEXT : PEER_FAILED);
    exchange_next(x);
    return true;
}

/* Reading ------------------------------------------------------------------------------------ */

/* Room for the next read. The head stays in one block, which is large enough for the largest. */
static void make_room(struct exchange *x)
{
    struct block *b = x->in;

    if (b != NULL && x->state == X_HEAD)
        return;
    if (b != NULL && b->refs == 1)
        x->start = x->end = 0;
    else if (b != NULL && b->size - x->end < BODY_ROOM) {
        block_unref(b);
        b = x->in = NULL;
    }
    if (b == NULL) {
        x->in = block_new(x->state == X_HEAD ? MAX(BLOCK_LARGE, x->conf->buffer_size + 1)
                                             : BLOCK_LARGE);
        x->start = x->end = x->head_start = x->head_end = 0;
    }
}

/* The server's side is at its end or broken in the midst of the body. */
static void cut(struct exchange *x)
{
    store_give_up(x);
    x->cut = x->ended = true;
    exchange_detach(x, false);
    flow(x);
}

static void too_big(struct exchange *x)
{
    log_error(&x->req->log, 0, "upstream sent too big header");
    exchange_attempt_failed(x, NEXT_INVALID_HEADER);
}

/* False: the exchange or the attempt is over. */
static bool process_head(struct exchange *x)
{
    if (!x->decoding) {
        /* Only now: what the request writes before it waits would be out of the caches by then. */
        x->decoding = true;
        x->backend->reset(x);
    }
    for (;;) {
        size_t used = 0;
        enum backend_result result;

        result = x->backend->head(x, x->in->data + x->start, x->end - x->start, &used);
        x->start += used;
        if (result == BACKEND_INVALID) {
            log_error(&x->req->log, 0, "%s", x->error);
            exchange_attempt_failed(x, NEXT_INVALID_HEADER);
            return false;
        }
        if (unlikely((result == BACKEND_MORE ? x->end : x->start) > x->conf->buffer_size)) {
            too_big(x);
            return false;
        }
        if (result == BACKEND_MORE)
            return true;
        if (result == BACKEND_DONE) {
            x->head_end = x->start;
            return answer_head_received(x);
        }
        answer_interim(x);
        if (x->state != X_HEAD)
            return false;
        x->backend->reset(x);
        x->head_start = x->start;
    }
}

void exchange_decode(struct exchange *x)
{
    size_t used = 0;
    struct chain fresh = CHAIN_INIT, *to = unlikely(x->store != NULL) ? &fresh : &x->body;
    uint64_t before = to->bytes;
    enum backend_result result;

    result = x->backend->body(x, x->in, x->in->data + x->start, x->end - x->start, to, &used);
    x->start += used;
    x->received += to->bytes - before;
    if (unlikely(x->store != NULL)) {
        store_take(x, &fresh);
        chain_append(&x->body, &fresh);
    }
    if (result == BACKEND_INVALID) {
        log_error(&x->req->log, 0, "%s", x->error);
        store_give_up(x);
        x->cut = x->ended = true;
        exchange_detach(x, false);
    } else if (result == BACKEND_DONE) {
        bool rest = x->start < x->end;

        if (rest)
            log_warn(&x->req->log, 0,
                     "upstream sent more data than specified in \"Content-Length\" header");
        x->ended = true;
        store_done(x);
        exchange_detach(x, !rest);
    }
}

/* Bytes of the answer lie in x->in. False: the exchange, or this attempt, is over. */
static bool process(struct exchange *x)
{
    if (x->state == X_HEAD)
        return process_head(x);
    exchange_decode(x);
    flow(x);
    return x->state == X_BODY && !x->ended;
}

static void read_failed(struct exchange *x, ssize_t n, int error)
{
    bool head = x->state == X_HEAD;

    if (n == 0 && !head && x->backend->eof(x) && secure_is_cut(&x->up->tls, x->up->conn)) {
        /* RFC 9112, 9.8: anybody on the way could have ended it. */
        log_error(&x->req->log, 0,
                  "upstream closed connection without close_notify: its answer may be cut");
        cut(x);
        return;
    }
    if (n == 0 && !head && x->backend->eof(x)) {
        x->ended = true;
        store_done(x);
        exchange_detach(x, false);
        flow(x);
        return;
    }
    if (n == 0)
        log_error(&x->req->log, 0, "upstream prematurely closed connection");
    else
        secure_log_failure(&x->up->tls, x->up->conn, &x->req->log, LOG_ERROR_LEVEL, error,
                           "recv() failed");
    if (head)
        exchange_attempt_failed(x, NEXT_ERROR);
    else
        cut(x);
}

/* proxy_limit_rate: how much may be read now. 0: the timer has been set. */
static size_t rate_allows(struct exchange *x, size_t room)
{
    uint64_t rate, elapsed_ms, allowed;

    if (likely(x->conf->limit_rate.value == 0 && x->conf->limit_rate.expr == NULL)
        || !x->buffering || x->state != X_BODY)
        return room;
    rate = expr_size(&x->req->eval, &x->conf->limit_rate);
    if (rate == 0)
        return room;
    /* From the head on: what a server took to think is not saved up. */
    elapsed_ms = (clock_us() - x->started_us - (uint64_t) exchange_record(x)->header_us) / 1000;
    if (rate > UINT64_MAX / 2 / (elapsed_ms + 1000))
        return room; /* more than any socket gives */
    allowed = rate * (elapsed_ms + 1000) / 1000;
    if (allowed > x->received)
        return (size_t) MIN((uint64_t) room, allowed - x->received);
    x->delayed = true;
    conn_want(x->up->conn, x->sent_all ? 0 : CONN_WRITE);
    timer_set(&x->up->conn->timer, (x->received - allowed) * 1000 / rate + 1);
    return 0;
}

static void read_answer(struct exchange *x)
{
    struct upconn *u = x->up;
    struct conn *conn = u->conn;

    for (unsigned i = 0; i < READS_PER_EVENT && (conn->ready & CONN_READ); i++) {
        ssize_t n;
        size_t room;

        if (x->paused || x->delayed)
            return;
        make_room(x);
        room = rate_allows(x, x->in->size - x->end);
        if (room == 0)
            return;
        n = conn_read(conn, x->in->data + x->end, room);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            read_failed(x, n, errno);
            return;
        }
        x->end += (size_t) n;
        x->head_bytes += (size_t) n;
        exchange_record(x)->bytes_received += (uint64_t) n;
        if (!process(x) || x->up != u)
            return;
        /* Only now: an answer that came in one piece needs no timer, and pauses have stopped it. */
        if (x->sent_all && !x->paused && !x->delayed)
            timer_set(&conn->timer, x->conf->read_timeout_ms);
    }
    if (x->in != NULL && x->state == X_BODY && x->in->refs == 1 && x->start == x->end) {
        /* While the server is silent, nothing is held. */
        block_unref(x->in);
        x->in = NULL;
    }
    if (!x->paused && !x->delayed)
        conn_want(conn, CONN_READ | (x->sent_all ? 0 : CONN_WRITE));
}

void exchange_resume_reading(struct exchange *x)
{
    x->paused = false;
    if (x->up == NULL)
        return;
    timer_set(&x->up->conn->timer, x->conf->read_timeout_ms);
    conn_want(x->up->conn, CONN_READ | (x->sent_all ? 0 : CONN_WRITE));
}

/* Sending ------------------------------------------------------------------------------------ */

static void send_failed(struct exchange *x, int error)
{
    struct conn *conn = x->up->conn;

    secure_log_failure(&x->up->tls, conn, &x->req->log,
                       x->request_sent ? LOG_INFO_LEVEL : LOG_ERROR_LEVEL, error,
                       "writev() failed");
    /*
     * A server may answer without reading all of a request: what it said is worth reading, though
     * the event that tells of it may be still to come. Once the answer has begun, nobody else can
     * be asked anyway.
     */
    if (x->request_sent) {
        chain_clear(&x->out);
        x->send_broken = true;
        x->sent_all = true;
        if (x->state == X_HEAD)
            x->req->log.action = "reading response header from upstream";
        if (x->paused || x->delayed)
            return;
        timer_set(&conn->timer, x->conf->read_timeout_ms);
        conn_want(conn, CONN_READ);
        return;
    }
    exchange_attempt_failed(x, NEXT_ERROR);
}

static void send_request(struct exchange *x)
{
    struct upconn *u = x->up;
    struct conn *conn = u->conn;
    ssize_t n;

    if (x->sent_all)
        return;
    n = conn_send(conn, &x->out, 0, false);
    if (n < 0) {
        send_failed(x, errno);
        return;
    }
    exchange_record(x)->bytes_sent += (uint64_t) n;
    x->request_sent = true;
    if (!chain_empty(&x->out)) {
        if (!u->nodelay && !conn->unix_peer) {
            socket_nodelay(conn->watch.fd, true);
            u->nodelay = true;
        }
        timer_set(&conn->timer, x->conf->send_timeout_ms);
        conn_want(conn, CONN_READ | CONN_WRITE);
        return;
    }
    if (x->stream_body && !x->body_end) {
        timer_stop(&conn->timer);
        conn_want(conn, CONN_READ);
        pump_body(x);
        return;
    }
    x->sent_all = true;
    if (x->state == X_HEAD)
        x->req->log.action = "reading response header from upstream";
    timer_set(&conn->timer, x->conf->read_timeout_ms);
    if (!x->paused && !x->delayed)
        conn_want(conn, CONN_READ);
}

/* Moves what has come of a streamed body on, as long as the server takes it. */
static void pump_body(struct exchange *x)
{
    struct req *main = x->req->main;

    if (x->pumping)
        return;
    x->pumping = true;
    while (x->up != NULL && !x->sent_all && !x->body_end && chain_empty(&x->out)) {
        bool end = main->body.complete;

        if (main->body.failed || (chain_empty(&main->body.chain) && !end))
            break;
        x->backend->encode_body(x, &main->body.chain, end, &x->out);
        x->body_end = end;
        send_request(x);
        if (!end && x->up != NULL)
            body_consumed(x->req);
    }
    x->pumping = false;
}

/* More of a streamed body, its end, or its failure. */
static void body_came(struct req *main)
{
    struct exchange *x = exchange_of(main);

    if (x == NULL || x->state == X_OVER)
        return;
    if (main->body.failed) {
        /*
         * The client's fault: no server is to blame. After a timeout nobody is there to be
         * answered.
         */
        if (main->body.failed == 408)
            req_abort(main, 408);
        else
            exchange_finish(x, x->answering ? V_ABORT : req_status(main, main->body.failed));
        return;
    }
    if (x->state == X_HEAD || x->state == X_BODY)
        pump_body(x);
}

/* Connecting --------------------------------------------------------------------------------- */

/* CONNECT: the connection is what was asked for. */
static void join(struct exchange *x)
{
    struct req *r = x->req;
    enum verdict v;

    exchange_record(x)->status = 200;
    x->sent_all = true;
    x->state = X_BODY;
    r->out.status = 200;
    r->out.content_length = -1;
    v = answer_head(r);
    if (r->finished || x->state == X_OVER)
        return;
    if (v != V_NEXT) {
        exchange_finish(x, v);
        return;
    }
    x->answering = true;
    req_deliver(r, V_ANSWER);
    tunnel_start(x);
}

/* The connection stands. */
static void ask(struct exchange *x)
{
    if (unlikely(x->joins)) {
        join(x);
        return;
    }
    x->state = X_HEAD;
    x->req->log.action = "sending request to upstream";
    send_request(x);
}

static void up_event(struct conn *conn, unsigned ready);
static void up_timeout(struct timer *timer);

/* The PROXY header that goes in front of TLS. 0, or -1: logged. */
static int announce(struct exchange *x)
{
    struct chain header = CHAIN_INIT;

    if (x->up->announced)
        pool_announce(x->req->arena, x->conf, x->req, &header);
    return secure_announce(x->up->conn, &header, &x->req->log, LOG_ERROR_LEVEL);
}

static int begin_tls(struct exchange *x)
{
    struct upconn *u = x->up;
    struct secure_want want = { .tls = x->tls,
                                .name = x->tls_name,
                                .addr = &u->peer->addr,
                                .pair = x->tls_pair,
                                .counts = u->peer->stats != NULL ? u->peer->stats->tls : NULL,
                                .level = LOG_ERROR_LEVEL };

    u->nodelay = u->secure = true;
    return secure_begin(&u->tls, &u->conn, &want, &x->req->log);
}

/* The socket has connected, and TLS begins: within what is left of the time for connecting. */
static void shake_hands(struct exchange *x)
{
    uint64_t spent_ms = (clock_us() - x->started_us) / 1000;
    uint64_t limit_ms = x->conf->connect_timeout_ms;
    struct conn *conn;

    x->state = X_CONNECT;
    x->req->log.action = "SSL handshaking to upstream";
    if (announce(x) != 0) {
        exchange_attempt_failed(x, NEXT_ERROR);
        return;
    }
    if (begin_tls(x) != 0) {
        exchange_finish(x, req_status(x->req, 500));
        return;
    }
    conn = x->up->conn;
    conn->handler = up_event;
    conn->timer.fire = up_timeout;
    timer_set(&conn->timer, limit_ms > spent_ms ? limit_ms - spent_ms : 1);
    conn_want(conn, CONN_WRITE);
}

static void connected(struct exchange *x)
{
    struct conn *conn = x->up->conn;
    bool shaken = x->up->tls.client != NULL;
    int error = !shaken && (conn->ready & CONN_HUP) ? socket_error(conn->watch.fd) : 0;

    if (error != 0) {
        log_error(&x->req->log, error, "connect() failed");
        exchange_attempt_failed(x, NEXT_ERROR);
        return;
    }
    if (unlikely(x->tls != NULL) && !shaken) {
        shake_hands(x);
        return;
    }
    if (unlikely(shaken) && secure_end(&x->up->tls, conn, &x->req->log, LOG_ERROR_LEVEL) != 0) {
        exchange_attempt_failed(x, NEXT_ERROR);
        return;
    }
    exchange_record(x)->connect_us = (int64_t) (clock_us() - x->started_us);
    ask(x);
}

static void up_event(struct conn *conn, unsigned ready)
{
    struct upconn *u = conn->owner;
    struct exchange *x = u->x;

    if (x->state == X_CONNECT) {
        connected(x);
        return;
    }
    if (unlikely(x->state == X_TUNNEL)) {
        tunnel_upstream_event(x, ready);
        return;
    }
    if ((ready & CONN_WRITE) && !x->sent_all) {
        send_request(x);
        if (x->up != u)
            return;
    }
    if (ready & (CONN_READ | CONN_HUP))
        read_answer(x);
}

static void up_timeout(struct timer *timer)
{
    struct upconn *u = container_of(timer, struct conn, timer)->owner;
    struct exchange *x = u->x;

    if (unlikely(x->state == X_TUNNEL)) {
        tunnel_timeout(x);
        return;
    }
    if (x->delayed) {
        x->delayed = false;
        exchange_resume_reading(x);
        return;
    }
    log_error(&x->req->log, ETIMEDOUT, "upstream timed out");
    if (x->state == X_CONNECT && unlikely(u->tls.client != NULL))
        secure_late(&u->tls);
    if (x->state == X_BODY)
        cut(x);
    else
        exchange_attempt_failed(x, NEXT_TIMEOUT);
}

/* Empties what the attempt before left, and encodes the request. 0 or -1. */
static int prepare(struct exchange *x)
{
    struct req *r = x->req;

    chain_drop(&x->out);
    chain_drop(&x->body);
    if (x->in != NULL && x->in->refs > 1) {
        block_unref(x->in);
        x->in = NULL;
    }
    x->start = x->end = x->head_start = x->head_bytes = 0;
    x->received = 0;
    x->sent_all = x->send_broken = x->body_end = false;
    x->paused = x->delayed = false;
    x->decoding = false;
    r->upstream.head = NULL;
    return x->backend->encode(x, &x->out);
}

void exchange_not_served(struct exchange *x, const char *why)
{
    exchange_record_begin(x, x->group->name);
    x->req->log.action = "connecting to upstream";
    log_error(&x->req->log, 0, "%s", why);
    exchange_attempt_failed(x, NEXT_NO_LIVE);
}

/* Why a group is empty. */
static const char *unresolved(struct exchange *x)
{
    return str_printf(x->req->arena, "no live upstreams (\"%.*s\" did not resolve)",
                      STR_ARG(x->group->unresolved)).ptr;
}

/* *_allow_upstream. False: the attempt is over. */
static bool is_allowed(struct exchange *x)
{
    const struct upstream_allow *a = &x->conf->allow;
    struct req *r = x->req;

    if (likely(a->conditions.count == 0) || expr_all_true(&r->eval, &a->conditions))
        return true;
    log_error(&r->log, 0, "access to upstream server denied");
    req_refused(r, a->pos, "access to %.*s denied by \"%.*s %.*s%s\"",
                STR_ARG(x->choice.peer->name), STR_ARG(a->name),
                STR_ARG(expr_source(a->conditions.items[0])),
                a->conditions.count > 1 ? " ..." : "");
    exchange_attempt_failed(x, NEXT_DENIED);
    return false;
}

/* A connection to the chosen server. NULL: as pool_connect says. */
static struct upconn *get_connection(struct exchange *x, enum peer_outcome *blame)
{
    struct upconn *u = NULL;

    x->local = likely(x->conf->bind.addr == NULL) ? NULL : pool_local(x);
    if (unlikely(x->group->ntlm) && !x->joins)
        u = ntlm_take(x);
    if (u == NULL && likely(x->conf->proxy_protocol == 0 && !x->joins))
        u = pool_take(x, x->choice.peer);
    if (u == NULL)
        return pool_connect(x, x->choice.peer, blame);
    u->conn->reset_on_close = false;
    return u;
}

static void not_connected(struct exchange *x, enum peer_outcome blame)
{
    if (blame == PEER_OK)
        exchange_finish(x, req_status(x->req, 500));
    else
        attempt_failed(x, NEXT_ERROR, blame);
}

/* Chooses a server and gets through to it. */
void exchange_next(struct exchange *x)
{
    const struct upstream *g = x->group;
    enum peer_outcome blame = PEER_FAILED;
    struct upconn *u;

    x->state = X_START;
    if (choice_next(&x->choice) != 0) {
        if (!req_explained() && queue_enter(x))
            x->state = X_QUEUE;
        else
            exchange_not_served(x, unlikely(g->unresolved.len > 0 && g->view.set->gone == g->view.set->count)
                                       ? unresolved(x) : "no live upstreams");
        return;
    }
    exchange_record_begin(x, x->choice.peer->name);
    x->req->log.action = "connecting to upstream";
    if (!is_allowed(x))
        return;
    pool_expect(x->choice.peer);
    if (prepare(x) != 0) {
        exchange_finish(x, req_status(x->req, 500));
        return;
    }
    if (req_explained()) {
        exchange_explain(x);
        return;
    }
    if (unlikely(x->tls != NULL) && secure_name(x) != 0) {
        exchange_finish(x, req_status(x->req, 500));
        return;
    }
    u = get_connection(x, &blame);
    if (u == NULL) {
        not_connected(x, blame);
        return;
    }
    if (unlikely(x->conf->proxy_protocol != 0) && !u->reused) {
        u->announced = true;
        if (x->tls == NULL)
            pool_announce(x->req->arena, x->conf, x->req, &x->out);
    }
    u->x = x;
    x->up = u;
    u->conn->handler = up_event;
    u->conn->timer.fire = up_timeout;
    if (unlikely(x->tls != NULL) && !u->reused && (u->conn->ready & CONN_WRITE)) {
        shake_hands(x);
        return;
    }
    if ((u->conn->ready & CONN_WRITE) || u->secure) {
        exchange_record(x)->connect_us = 0;
        ask(x);
        return;
    }
    x->state = X_CONNECT;
    timer_set(&u->conn->timer, x->conf->connect_timeout_ms);
    conn_want(u->conn, CONN_WRITE);
}

static void begin(struct exchange *x)
{
    choice_start(&x->choice, x->group, x->req);
    if (unlikely(x->group->ntlm))
        ntlm_want(x);
    if (x->conf->next_upstream_tries > 0)
        x->choice.tries = (unsigned) MIN((int64_t) x->choice.tries, x->conf->next_upstream_tries);
    if (x->conf->next_upstream_timeout_ms > 0)
        x->first_ms = clock_ms();
    exchange_next(x);
}

/* Names at run time -------------------------------------------------------------------------- */

/* The numbers of nginx's log: DNS's own, or the system's for a timeout. */
static int resolve_number(enum resolve_status status)
{
    switch (status) {
    case RESOLVE_NOT_FOUND: return 3;
    case RESOLVE_TIMEOUT: return ETIMEDOUT;
    default: return 2;
    }
}

static void resolved(struct resolve_query *q)
{
    struct exchange *x = container_of(q, struct exchange, query);
    struct req *r = x->req;
    struct addr *addrs;
    struct str name = str_printf(r->arena, "%.*s:%u", STR_ARG(x->resolve_name), x->resolve_port);

    x->state = X_START;
    if (q->status != RESOLVE_OK || q->addr_count == 0) {
        log_error(&r->log, 0, "%.*s could not be resolved (%d: %s)", STR_ARG(x->resolve_name),
                  resolve_number(q->status), resolve_status_text(q->status));
        exchange_finish(x, req_status(r, 502));
        return;
    }
    addrs = ARENA_ARRAY(r->arena, struct addr, q->addr_count);
    for (unsigned i = 0; i < q->addr_count; i++) {
        addrs[i] = q->addrs[i].addr;
        addr_set_port(&addrs[i], x->resolve_port);
    }
    x->group = upstream_temporary(r->arena, name, addrs, q->addr_count);
    begin(x);
}

static void resolve(struct exchange *x)
{
    struct req *r = x->req;
    const struct core_loc *core = r->loc->core;

    if (core->resolver == NULL) {
        log_error(&r->log, 0, "no resolver defined to resolve %.*s", STR_ARG(x->resolve_name));
        exchange_finish(x, req_status(r, 502));
        return;
    }
    if (req_explained()) {
        exchange_explain(x);
        return;
    }
    if (*core->resolver_instance == NULL)
        *core->resolver_instance = resolver_new(core->resolver, log_main);
    x->query = (struct resolve_query){ .name = x->resolve_name, .done = resolved,
                                       .timeout_ms = core->resolver_timeout_ms };
    if (resolve_cached(*core->resolver_instance, &x->query)) {
        resolved(&x->query);
        return;
    }
    x->state = X_RESOLVE;
    resolve_start(*core->resolver_instance, &x->query);
}

/* The start ---------------------------------------------------------------------------------- */

/* The client has closed or half-closed its connection. */
static void client_gone(struct req *main)
{
    struct exchange *x = exchange_of(main);

    main->on_hup = NULL;
    if (x != NULL && x->ended && x->watches_hup && main->hup_watchers == 1)
        return; /* all that is left is to send what is here */
    log_info(&main->log, 0,
             "client prematurely closed connection, so upstream connection is closed too");
    req_abort(main, 499);
}

struct exchange *exchange_new(struct req *r)
{
    struct exchange *x = arena_alloc(r->arena, sizeof(*x));

    memset(x, 0, offsetof(struct exchange, first_record));
    x->req = r;
    return x;
}

enum verdict exchange_start(struct exchange *x)
{
    struct req *r = x->req;

    x->starting = true;
    x->verdict = V_WAIT;
    x->buffering = x->conf->buffering != BUFFERING_OFF;
    req_ctx_set(r, upstream_slot, x, CTX_REQUEST);
    r->describe_upstream = describe;
    arena_defer(r->arena, free_blocks, x);
    wait_begin(r, &x->wait, cancel);
    if (!x->conf->ignore_client_abort && !r->background && !x->conf->store.on) {
        req_on_hup(r->main, client_gone);
        r->main->hup_watchers++;
        x->watches_hup = true;
    }
    if (x->stream_body)
        body_stream(r, body_came);
    if (r->main->body.failed)
        exchange_finish(x, r->main->body.failed == 408 ? V_ABORT
                                                       : req_status(r, r->main->body.failed));
    else if (x->group == NULL)
        resolve(x);
    else
        begin(x);
    x->starting = false;
    return x->verdict;
}
