/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After 101 Switching Protocols: bytes go both ways as they come, until either end closes. The
 * server's go through the answer's body like any others; the client's come through the
 * request's body, streamed, which the protocol treats as unbounded from then on. Where both are plain
 * sockets, a direction that has much to move is left to the kernel for as long as that lasts (splice). A tunnel
 * at rest holds neither buffers nor pipes.
 *
 * WebSocket frames are followed by their heads, so that when the worker ends both sides can be told
 * between two of them. The body of a frame may be spliced, since its length is known; a head is always read.
 */
#include <errno.h>

#include "core/event/splice.h"
#include "modules/upstream/internal.h"
#include "modules/upstream/websocket.h"

#define READS_PER_EVENT 8 /* then others have their turn */
#define BURST_MIN ((uint64_t) 64 * 1024)  /* moved without a pause before it is worth a pipe */
#define FRAME_MIN ((uint64_t) 64 * 1024)  /* of a WebSocket frame still to come */

/* One direction. */
struct flow_way {
    struct ws_track frames;
    struct splice_pipe *pipe; /* lent while bytes are in it */
    uint64_t burst;           /* moved since the sender was last seen to pause */
    bool told;                /* it got a Close from here: nothing follows */
};

struct tunnel {
    struct exchange *x;
    struct conn *client;      /* where both sides may be spliced, else NULL */
    struct flow_way down, up; /* to the client, to the server */
    bool websocket;
    bool raw;                 /* what the client sends is spliced */
    bool farewell;            /* the worker ends */
};

static void end(struct exchange *x)
{
    exchange_finish(x, V_ABORT);
}

/* Nothing more comes: what the client has not got yet still goes out, and then its connection is closed. */
static void finish(struct exchange *x)
{
    struct req *r = x->req;
    struct chain none = CHAIN_INIT;

    exchange_over(x);
    if (answer_body(r, &none, BODY_END) == V_ABORT)
        req_deliver(r, V_ABORT);
}

/* Time and wishes ------------------------------------------------------------------------------ */

static bool server_is_full(const struct exchange *x)
{
    return !chain_empty(&x->out) || x->tunnel->up.pipe != NULL;
}

/* Something has moved, in whichever direction. While only the client makes us wait, its connection has a limit of its own. */
static void touch(struct exchange *x)
{
    uint64_t ms = x->conf->read_timeout_ms;

    if (server_is_full(x))
        ms = MIN(ms, x->conf->send_timeout_ms);
    else if (x->paused) {
        timer_stop(&x->up->conn->timer);
        return;
    }
    timer_set(&x->up->conn->timer, ms);
}

static void want_server(struct exchange *x)
{
    conn_want(x->up->conn, (x->paused ? 0 : CONN_READ) | (server_is_full(x) ? CONN_WRITE : 0));
}

/* Splicing ------------------------------------------------------------------------------------- */

/* How much of this direction may be moved unseen. 0: it does not pay, or cannot be. */
static size_t unseen(const struct tunnel *t, const struct flow_way *way)
{
    if (t->client == NULL || way->burst < BURST_MIN || t->farewell)
        return 0;
    if (!t->websocket || way->frames.lost)
        return SPLICE_MOST;
    return way->frames.left < FRAME_MIN ? 0 : (size_t) MIN(way->frames.left, SPLICE_MOST);
}

/*
 * Fills the direction's pipe. Bytes; 0: the sender pauses, or only reading can tell what is the matter. So that few
 * bytes at a time are read instead, a burst ends when they are few.
 */
static size_t fill(struct flow_way *way, struct conn *from, size_t most, bool websocket)
{
    ssize_t n;

    if (way->pipe == NULL)
        way->pipe = splice_borrow();
    if (way->pipe == NULL) {
        way->burst = 0;
        return 0;
    }
    n = splice_fill(way->pipe, from, most);
    if (n < (ssize_t) BLOCK_SMALL)
        way->burst = 0;
    if (n <= 0) {
        splice_return(way->pipe);
        way->pipe = NULL;
        return 0;
    }
    if (websocket && !way->frames.lost)
        ws_skip(&way->frames, (uint64_t) n);
    return (size_t) n;
}

/* Empties it as far as the receiver has room. 0 or -1. */
static int empty(struct flow_way *way, struct conn *to, uint64_t *moved)
{
    ssize_t n = splice_empty(way->pipe, to);

    *moved = n > 0 ? (uint64_t) n : 0;
    if (n < 0 && errno != EAGAIN)
        return -1;
    if (way->pipe->held == 0) {
        splice_return(way->pipe);
        way->pipe = NULL;
    }
    return 0;
}

/* The last words ------------------------------------------------------------------------------- */

static void tell_client(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    char *frame;
    struct chain out = CHAIN_INIT;

    if (t->down.told || !ws_between(&t->down.frames) || t->down.pipe != NULL)
        return;
    t->down.told = true;
    frame = arena_bytes(x->req->arena, WS_CLOSE_MAX);
    chain_push_mem(&out, NULL, frame, ws_going_away(frame, false));
    if (answer_body(x->req, &out, BODY_FLUSH) == V_ABORT) {
        chain_clear(&out);
        if (x->state != X_OVER)
            end(x);
    }
}

static void tell_server(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    char *frame;
    ssize_t n;

    if (t->up.told || !ws_between(&t->up.frames) || t->up.pipe != NULL)
        return;
    t->up.told = true;
    frame = arena_bytes(x->req->arena, WS_CLOSE_MAX);
    chain_push_mem(&x->out, NULL, frame, ws_going_away(frame, true));
    n = conn_send(x->up->conn, &x->out, 0, false);
    if (n < 0) {
        end(x);
        return;
    }
    exchange_record(x)->bytes_sent += (uint64_t) n;
    want_server(x);
}

static void say_goodbye(struct exchange *x)
{
    tell_client(x);
    if (x->state == X_TUNNEL)
        tell_server(x);
}

/* The worker ends. True: the tunnel may be given a moment, for its client can be told. */
static bool farewell(struct req *r)
{
    struct exchange *x = exchange_of(r);
    struct tunnel *t;

    if (x == NULL || x->state != X_TUNNEL)
        return false;
    t = x->tunnel;
    if (!t->websocket || t->down.frames.lost || t->up.frames.closed)
        return false;
    t->farewell = true;
    say_goodbye(x);
    return x->state == X_TUNNEL;
}

/* From the client to the server ---------------------------------------------------------------- */

/* Looks at what the client has sent, and cuts it off where nothing more goes to the server. */
static void follow_up(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    struct body *b = &x->req->body;
    struct chain pass = CHAIN_INIT;

    while (!chain_empty(&b->chain)) {
        const struct piece *p = b->chain.first;
        bool stop = t->farewell && !t->up.told;
        size_t n = ws_follow(&t->up.frames, p->mem.ptr, (size_t) p->len, stop);

        if (t->up.told)
            chain_consume(&b->chain, n);
        else
            chain_take(&pass, &b->chain, n);
        if (stop && ws_between(&t->up.frames)) {
            chain_append(&x->out, &pass);
            tell_server(x);
            if (x->state != X_TUNNEL)
                return;
        }
    }
    chain_append(&b->chain, &pass);
}

/* What is left to be sent to the server. False: the exchange is over. */
static bool send_up(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    struct conn *conn = x->up->conn;
    uint64_t moved = 0;
    ssize_t n = 0;

    if (t->up.pipe != NULL) {
        if (empty(&t->up, conn, &moved) != 0)
            n = -1;
    } else if (!chain_empty(&x->out)) {
        n = conn_send(conn, &x->out, 0, false);
        moved = n > 0 ? (uint64_t) n : 0;
    } else {
        return true;
    }
    if (n < 0) {
        secure_log_failure(&x->up->tls, conn, &x->req->log, LOG_INFO_LEVEL, errno,
                           "writev() failed");
        end(x);
        return false;
    }
    exchange_record(x)->bytes_sent += moved;
    if (moved > 0)
        touch(x);
    return true;
}

/* The client's bytes go through the kernel while there are many. False: the exchange is over. */
static bool splice_up(struct exchange *x)
{
    struct tunnel *t = x->tunnel;

    for (unsigned i = 0; i < READS_PER_EVENT && t->up.pipe == NULL; i++) {
        size_t most = unseen(t, &t->up);

        if (most == 0 || fill(&t->up, t->client, most, t->websocket) == 0) {
            t->up.burst = 0;
            break;
        }
        if (!send_up(x))
            return false;
    }
    if (t->up.pipe == NULL && t->up.burst == 0) {
        t->raw = false;
        x->req->ops->tunnel_want(x->req, 0);
        x->req->ops->read_body(x->req, true);
        return x->state == X_TUNNEL;
    }
    if (t->up.pipe == NULL)
        x->req->ops->tunnel_want(x->req, CONN_READ);
    return true;
}

/* Closed by the client, or its answer to our Close has come, and all that it sent has been passed on. */
static bool up_is_over(const struct exchange *x)
{
    const struct tunnel *t = x->tunnel;
    const struct body *b = &x->req->body;

    return !server_is_full(x) && (b->complete || b->failed || (t->farewell && t->up.frames.closed));
}

static void to_server(struct exchange *x)
{
    struct req *r = x->req;
    struct tunnel *t = x->tunnel;
    size_t n = r->body.chain.bytes;

    if (t->websocket && n > 0) {
        follow_up(x);
        if (x->state != X_TUNNEL)
            return;
    }
    chain_append(&x->out, &r->body.chain);
    if (!send_up(x))
        return;
    if (up_is_over(x)) {
        if (r->body.failed)
            end(x);
        else
            finish(x);
        return;
    }
    t->up.burst = n >= BLOCK_SMALL ? t->up.burst + n : n > 0 ? 0 : t->up.burst;
    want_server(x);
    if (server_is_full(x) || t->raw)
        return;
    if (unseen(t, &t->up) > 0 && !r->body.complete) {
        t->raw = true;
        r->ops->read_body(r, false);
        r->ops->tunnel_want(r, CONN_READ);
    } else {
        body_consumed(r);
    }
}

/* There is something from the client, or room at the server. */
static void pump_up(struct exchange *x)
{
    if (x->pumping)
        return;
    x->pumping = true;
    if (!x->tunnel->raw) {
        to_server(x);
    } else if (send_up(x) && (x->tunnel->up.pipe != NULL || splice_up(x))) {
        want_server(x);
    }
    x->pumping = false;
}

static void client_came(struct req *r)
{
    struct exchange *x = exchange_of(r);

    if (x != NULL && x->state == X_TUNNEL)
        pump_up(x);
}

/* From the server to the client ---------------------------------------------------------------- */

/* Hands n bytes of the block on. False: the exchange is over. */
static bool to_client(struct exchange *x, const char *ptr, size_t n)
{
    struct tunnel *t = x->tunnel;
    struct chain out = CHAIN_INIT;

    if (t->websocket && !t->down.told)
        n = ws_follow(&t->down.frames, ptr, n, t->farewell);
    if (t->down.told)
        return true;
    chain_push_mem(&out, x->in, ptr, n);
    x->received += n;
    if (answer_body(x->req, &out, BODY_FLUSH) == V_ABORT) {
        chain_clear(&out);
        if (x->state != X_OVER)
            end(x);
        return false;
    }
    if (x->state == X_TUNNEL && t->farewell)
        say_goodbye(x);
    return x->state == X_TUNNEL;
}

/* What lies in the pipe goes to the client, if there is room; else we are told when. False: the exchange is over. */
static bool send_down(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    uint64_t moved;

    if (empty(&t->down, t->client, &moved) != 0) {
        log_info(&x->req->log, errno, "splice() failed");
        end(x);
        return false;
    }
    x->req->sent_bytes += moved;
    x->req->body_sent += moved;
    x->received += moved;
    x->paused = t->down.pipe != NULL;
    if (x->paused)
        x->req->ops->tunnel_want(x->req, CONN_WRITE | (t->raw && t->up.pipe == NULL ? CONN_READ : 0));
    return true;
}

/* 1: moved some, 0: to be read instead, -1: the exchange is over. */
static int splice_down(struct exchange *x)
{
    struct tunnel *t = x->tunnel;
    size_t most = unseen(t, &t->down), n;

    if (most == 0 || answer_buffered(x->req) > 0)
        return 0;
    n = fill(&t->down, x->up->conn, most, t->websocket);
    if (n == 0)
        return 0;
    exchange_record(x)->bytes_received += n;
    touch(x);
    return send_down(x) ? 1 : -1;
}

/* 1: some bytes, 0: no more for now, -1: the exchange is over. */
static int read_down(struct exchange *x)
{
    struct conn *conn = x->up->conn;
    ssize_t n;

    if (x->in == NULL || x->in->refs > 1) {
        block_unref(x->in);
        x->in = block_new(MAX(BLOCK_SMALL, x->joins ? x->conf->buffer_size : 0));
    }
    n = conn_read(conn, x->in->data, x->in->size);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        if (n < 0)
            secure_log_failure(&x->up->tls, conn, &x->req->log, LOG_INFO_LEVEL, errno,
                               "recv() failed");
        finish(x);
        return -1;
    }
    x->tunnel->down.burst = (size_t) n == x->in->size ? x->tunnel->down.burst + (uint64_t) n : 0;
    exchange_record(x)->bytes_received += (uint64_t) n;
    touch(x);
    if (!to_client(x, x->in->data, (size_t) n))
        return -1;
    x->paused = answer_full(x->req, x->conf->busy);
    return 1;
}

static void drop_buffer(struct exchange *x)
{
    if (x->in != NULL && x->in->refs == 1) {
        block_unref(x->in);
        x->in = NULL;
    }
}

static void from_server(struct exchange *x)
{
    struct conn *conn = x->up->conn;

    for (unsigned i = 0; i < READS_PER_EVENT && !x->paused && (conn->ready & CONN_READ); i++) {
        int moved = splice_down(x);

        if (moved == 0)
            moved = read_down(x);
        if (moved < 0)
            return;
        if (moved == 0)
            break;
    }
    drop_buffer(x);
    if (x->paused)
        touch(x);
    want_server(x);
}

/* The client has room again. */
static void drained(struct req *r)
{
    struct exchange *x = exchange_of(r);

    if (x == NULL || x->state != X_TUNNEL || !x->paused)
        return;
    if (x->tunnel->down.pipe != NULL && !send_down(x))
        return;
    if (x->tunnel->down.pipe != NULL || answer_full(r, x->conf->busy))
        return;
    x->paused = false;
    touch(x);
    want_server(x);
}

/* Called by the exchange ----------------------------------------------------------------------- */

void tunnel_upstream_event(struct exchange *x, unsigned ready)
{
    if (ready & CONN_WRITE) {
        pump_up(x);
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

static struct tunnel *tunnel_new(struct exchange *x, struct conn *client)
{
    struct tunnel *t = ARENA_NEW(x->req->arena, struct tunnel);
    const struct req *r = x->req;

    t->x = x;
    t->websocket = x->head != NULL
                   && str_caseeq(fields_value(&x->head->fields, T_UPGRADE),
                                 STR("websocket"));
    /* What a filter has to see passes through this process. */
    if (client != NULL && r->filter_count == 0 && splice_possible(client)
        && splice_possible(x->up->conn))
        t->client = client;
    return t;
}

void tunnel_start(struct exchange *x)
{
    struct req *r = x->req;
    size_t rest = x->end - x->start;
    struct chain none = CHAIN_INIT;

    x->state = X_TUNNEL;
    r->log.action = x->joins ? "proxying connection" : "proxying upgraded connection";
    r->keep_alive = false;
    r->header_only = false;
    r->limit_rate = 0;
    exchange_forget_hup(x); /* the end of the client's data is seen as the end of the body */
    chain_clear(&r->body.chain); /* of the request that asked for the tunnel: sent */
    x->tunnel = tunnel_new(x, r->ops->tunnel(r));
    r->on_drain = drained;
    r->on_farewell = farewell;
    if (answer_body(r, &none, BODY_FLUSH) == V_ABORT) {
        end(x);
        return;
    }
    if (rest > 0 && !to_client(x, x->in->data + x->start, rest))
        return;
    drop_buffer(x);
    touch(x);
    conn_want(x->up->conn, CONN_READ);
    body_stream(r, client_came);
    client_came(r);
}

void tunnel_free(struct exchange *x)
{
    if (x->state != X_TUNNEL)
        return;
    x->req->body.on_data = NULL;
    x->req->on_drain = NULL;
    x->req->on_farewell = NULL;
    splice_return(x->tunnel->down.pipe);
    splice_return(x->tunnel->up.pipe);
    x->tunnel->down.pipe = x->tunnel->up.pipe = NULL;
}
