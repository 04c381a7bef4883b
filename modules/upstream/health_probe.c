/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One probe: asks a server, judges its answer and says what came of it (shared_check_end), then waits
 * for its next turn. A small HTTP client of its own: no request stands behind it. It never waits but for its
 * socket and its timers, and holds memory only while it runs. Driven by health.c.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/http/client.h"
#include "core/os/process.h"
#include "modules/upstream/health.h"

#define READS_PER_EVENT 8
/* So many at a time of one worker. One that has waited for DEFER_MAX_MS begins all the same: silent servers do not keep others from being asked. */
#define RUNNING_MAX 64
#define DEFER_MS 20
#define DEFER_MAX_MS 1000
#define FIELDS_MAX 60000 /* the size of the head is what limits */

static unsigned running;

static void probe_connect(struct probe *p);

/* The log -------------------------------------------------------------------------------------- */

static size_t describe(const struct logger *log, char *buf, size_t size)
{
    const struct probe *p = log->data;
    int n = snprintf(buf, size, ", health check \"%.*s\" of peer %.*s in upstream \"%.*s\"",
                     STR_ARG(p->check->match_name), STR_ARG(p->peer->name),
                     STR_ARG(p->prober->group->name));

    return n < 0 ? 0 : MIN((size_t) n, size - 1);
}

/* The end of a probe --------------------------------------------------------------------------- */

static void close_conn(struct probe *p)
{
    if (p->conn != NULL)
        conn_close(p->conn);
    p->conn = NULL;
}

/* Gives back what only a running probe needs. */
static void release(struct probe *p)
{
    running--;
    if (p->answer != NULL)
        h1_body_free(&p->answer->decoder);
    p->answer = NULL;
    chain_drop(&p->out);
    if (p->head_block != NULL)
        block_unref(p->head_block);
    if (p->block != NULL)
        block_unref(p->block);
    p->head_block = p->block = NULL;
    free(p->body);
    p->body = NULL;
    p->body_len = p->body_size = 0;
    arena_destroy(p->arena);
    p->arena = NULL;
}

/* The next one begins an interval after this one began. */
static void schedule(struct probe *p)
{
    const struct health_check *hc = p->check;
    uint64_t due_ms = p->started_us / 1000 + hc->interval_ms, now_ms = clock_ms();

    if (hc->jitter_ms > 0)
        due_ms += random_u64() % (hc->jitter_ms + 1);
    timer_set(&p->timer, due_ms > now_ms ? due_ms - now_ms : 1);
}

/* keep: the connection may be used again. */
static void probe_end(struct probe *p, bool passed, bool keep)
{
    enum health_change change =
        shared_check_end(p->prober->group, p->check_index, p->peer, passed);

    if (change == HEALTH_SICK)
        log_warn(&p->log, 0, "peer is unhealthy");
    else if (change == HEALTH_WELL)
        log_notice(&p->log, 0, "peer is healthy");
    p->log.action = NULL;
    if (!keep)
        close_conn(p);
    p->state = PROBE_IDLE;
    if (p->conn != NULL) {
        timer_stop(&p->conn->timer);
        conn_want(p->conn, CONN_READ);
    }
    release(p);
    schedule(p);
    if (change == HEALTH_WELL && p->prober->group->queue != NULL)
        queue_wake(p->prober->group->queue);
}

static void probe_failed(struct probe *p, int error, const char *why)
{
    log_info(&p->log, error, "%s", why);
    probe_end(p, false, false);
}

/* Judging -------------------------------------------------------------------------------------- */

/* The address that the location's server listens on. */
static struct http_listen *listen_of(const struct server *server)
{
    struct list *all = &server->http->listens;

    for (struct list *n = all->next; n != all; n = n->next) {
        struct http_listen *l = container_of(n, struct http_listen, link);

        for (unsigned i = 0; i < l->server_count; i++) {
            if (l->servers[i] == server)
                return l;
        }
    }
    return list_empty(all) ? NULL : container_of(all->next, struct http_listen, link);
}

/*
 * Variables are a request's: one is made up that has got this answer, so that $upstream_status and
 * what is made of it have their values. Nobody asked, so that most others have none.
 */
static const char *judge_variables(struct probe *p)
{
    const struct location *loc = p->check->location;
    struct http_listen *listen = listen_of(loc->server);
    struct client *client = ARENA_NEW(p->arena, struct client);
    struct upstream_record *record = ARENA_NEW(p->arena, struct upstream_record);
    struct msg *in = ARENA_NEW(p->arena, struct msg);
    struct req *r;

    if (listen == NULL)
        return "there is no server that listens";
    *client = (struct client){
        .conn = p->conn, .listen = listen, .server = loc->server, .start_ms = clock_ms()
    };
    *record = (struct upstream_record){ .peer = p->peer->name,
                                        .server = p->peer->server,
                                        .status = p->answer->head.status,
                                        .connect_us = (int64_t) p->connect_us,
                                        .header_us = (int64_t) p->header_us,
                                        .response_us = (int64_t) (clock_us() - p->started_us),
                                        .queue_us = -1,
                                        .bytes_received = p->received,
                                        .bytes_sent = p->check->request.len,
                                        .response_length = p->answer->decoder.received };
    r = req_new(client, p->arena);
    msg_init(in, p->arena, 1);
    in->method = r->method = METHOD_GET;
    in->method_name = r->method_name = STR("GET");
    in->version = HTTP_10;
    in->content_length = -1;
    r->in = in;
    r->server = loc->server;
    r->loc = loc;
    r->log = p->log;
    r->eval.space = &loc->server->http->vars;
    r->uri = r->unparsed_uri = p->check->uri;
    r->host = p->prober->group->name;
    r->body.complete = true;
    r->upstream =
        (struct upstream_records){ .items = record, .count = 1, .head = &p->answer->head };
    r->out.status = record->status;
    return health_match_require(p->check->match, &r->eval);
}

/* The answer is complete, or as much of it as is looked at. */
static void judge(struct probe *p, bool keep)
{
    const struct health_match *m = p->check->match;
    const char *fault = NULL;

    if (health_match_body(m)) {
        p->log.action = "checking body";
        fault =
            health_match_text(m, str_from(p->body != NULL ? p->body : "", p->body_len), p->arena);
    }
    if (fault == NULL && health_match_variables(m)) {
        p->log.action = "checking variables";
        fault = judge_variables(p);
    }
    if (fault != NULL)
        log_info(&p->log, 0, "%s", fault);
    probe_end(p, fault == NULL, keep);
}

/* False: the probe is over. */
static bool judge_head(struct probe *p)
{
    const struct health_match *m = p->check->match;
    const char *fault;

    p->log.action = "checking status code";
    fault = health_match_status(m, &p->answer->head, p->arena);
    if (fault == NULL) {
        const char *before = p->log.action;

        p->log.action = "checking header";
        fault = health_match_fields(m, &p->answer->head, p->arena);
        if (fault == NULL)
            p->log.action = before;
    }
    if (fault == NULL)
        return true;
    probe_failed(p, 0, fault);
    return false;
}

/* Reading -------------------------------------------------------------------------------------- */

static const char *head_fault(const struct probe *p)
{
    switch (p->answer->parser.error) {
    case H1_BAD_STATUS_LINE:
    case H1_BAD_VERSION:
    case H1_VERSION_UNSUPPORTED: return "upstream sent no valid HTTP/1.0 header";
    case H1_LINE_TOO_LONG:
    case H1_FIELD_TOO_LONG:
    case H1_HEAD_TOO_LARGE:
    case H1_TOO_MANY_FIELDS: return "upstream sent too big header";
    default: return "upstream sent invalid header";
    }
}

static void expect_head(struct probe *p)
{
    struct probe_answer *a = p->answer;

    if (a == NULL) {
        a = p->answer = arena_alloc(p->arena, sizeof(*a));
        a->decoder.carry = NULL;
    }
    msg_init(&a->head, p->arena, 16);
    h1_parser_init(&a->parser, &a->head, true);
    a->parser.line_max = a->parser.field_max = p->check->conf->buffer_size;
    a->parser.fields_max = FIELDS_MAX;
    a->parser.underscores = true;
}

/* Keeps of the body what the match may look at. */
static void keep_body(struct probe *p, struct chain *in)
{
    struct iovec iov[16];
    size_t bytes;
    int n;

    while ((n = chain_iov(in, iov, ARRAY_LEN(iov), &bytes)) > 0) {
        for (int i = 0; i < n; i++) {
            size_t len = MIN(iov[i].iov_len, HEALTH_BODY_MAX - p->body_len);

            if (p->body_len + len > p->body_size) {
                p->body_size =
                    MIN(MAX(2 * p->body_size, MAX(4096, p->body_len + len)), HEALTH_BODY_MAX);
                p->body = mem_realloc(p->body, p->body_size);
            }
            if (len > 0)
                memcpy(p->body + p->body_len, iov[i].iov_base, len);
            p->body_len += len;
        }
        chain_consume(in, bytes);
    }
}

/* Bytes of the body. False: the probe is over. */
static bool take_body(struct probe *p, struct block *block, const char *ptr, size_t len)
{
    struct h1_body *decoder = &p->answer->decoder;
    struct chain content = CHAIN_INIT;
    bool wanted = health_match_body(p->check->match);
    size_t used = 0;
    enum h1_result result =
        h1_body_decode(decoder, block, ptr, len, UINT64_MAX, wanted ? &content : NULL, &used);

    keep_body(p, &content);
    chain_clear(&content);
    if (result == H1_ERROR) {
        p->log.action = "reading response body from upstream";
        probe_failed(p, 0,
                     decoder->error == H1_BAD_TRAILER ? "upstream sent invalid trailer"
                                                      : "upstream sent invalid chunked response");
        return false;
    }
    if (result == H1_DONE) {
        judge(p, used == len && p->answer->head.keep_alive && p->check->keepalive_time_ms > 0);
        return false;
    }
    if (decoder->received < HEALTH_BODY_MAX)
        return true;
    judge(p, false);
    return false;
}

/* Bytes of the head lie in the block. False: the probe is over. */
static bool take_head(struct probe *p)
{
    struct probe_answer *a = p->answer;

    for (;;) {
        size_t used = 0;
        enum h1_result result =
            h1_parse(&a->parser, p->head_block->data + p->start, p->end - p->start, &used);

        p->start += used;
        if (result == H1_ERROR) {
            probe_failed(p, 0, head_fault(p));
            return false;
        }
        if ((result == H1_MORE ? p->end : p->start) > p->check->conf->buffer_size) {
            probe_failed(p, 0, "upstream sent too big header");
            return false;
        }
        if (result == H1_MORE)
            return true;
        if (a->head.status >= 200 || a->head.status == 101)
            break;
        expect_head(p);
    }
    p->header_us = clock_us() - p->started_us;
    h1_body_init(&a->decoder, &a->head, true, false);
    if (!judge_head(p))
        return false;
    p->state = PROBE_BODY;
    return take_body(p, p->head_block, p->head_block->data + p->start, p->end - p->start);
}

/* Where the next bytes go. */
static char *room(struct probe *p, size_t *size)
{
    if (p->state == PROBE_HEAD) {
        if (p->head_block == NULL)
            p->head_block = block_new(MAX(BLOCK_LARGE, p->check->conf->buffer_size + 1));
        *size = p->head_block->size - p->end;
        return p->head_block->data + p->end;
    }
    if (p->block == NULL)
        p->block = block_new(BLOCK_LARGE);
    *size = p->block->size;
    return p->block->data;
}

/* A connection that was kept had been closed meanwhile: that says nothing of the server. */
static bool try_again(struct probe *p)
{
    if (!p->reused || p->received > 0)
        return false;
    close_conn(p);
    chain_drop(&p->out);
    chain_push_str(&p->out, p->check->request);
    probe_connect(p);
    return true;
}

/* Reading has failed, or come to the end of the data (n is 0). */
static void read_failed(struct probe *p, ssize_t n, int error)
{
    if (n == 0 && p->state == PROBE_BODY && p->answer->decoder.kind == H1_BODY_CLOSE) {
        judge(p, false);
        return;
    }
    if (try_again(p))
        return;
    if (p->state == PROBE_BODY)
        p->log.action = "reading response body from upstream";
    probe_failed(p, n == 0 ? 0 : error,
                 n == 0 ? "upstream prematurely closed connection" : "recv() failed");
}

/* The time that the answer may still take. */
static void arm(struct probe *p)
{
    uint64_t now_ms = clock_ms(), left_ms = p->deadline_ms > now_ms ? p->deadline_ms - now_ms : 1;

    timer_set(&p->conn->timer, MIN(p->check->conf->read_timeout_ms, left_ms));
}

static void read_answer(struct probe *p)
{
    struct conn *conn = p->conn;

    for (unsigned i = 0; i < READS_PER_EVENT && (conn->ready & CONN_READ); i++) {
        size_t size;
        char *to = room(p, &size);
        ssize_t n = conn_read(conn, to, size);
        bool more;

        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            read_failed(p, n, errno);
            return;
        }
        p->received += (uint64_t) n;
        if (p->state == PROBE_HEAD) {
            p->end += (size_t) n;
            more = take_head(p);
        } else {
            more = take_body(p, p->block, to, (size_t) n);
        }
        if (!more)
            return;
        arm(p);
    }
    /* While the server is silent the block is not held: what was in it has been looked at. */
    if (p->block != NULL)
        block_unref(p->block);
    p->block = NULL;
    conn_want(conn, CONN_READ);
}

/* Connecting and sending ----------------------------------------------------------------------- */

static void send_request(struct probe *p)
{
    p->log.action = "sending request to upstream";
    p->state = PROBE_SEND;
    if (conn_send(p->conn, &p->out, 0, false) < 0) {
        int error = errno;

        if (!try_again(p))
            probe_failed(p, error, "writev() failed");
        return;
    }
    if (!chain_empty(&p->out)) {
        timer_set(&p->conn->timer, p->check->conf->send_timeout_ms);
        conn_want(p->conn, CONN_WRITE);
        return;
    }
    p->log.action = "reading response header from upstream";
    p->state = PROBE_HEAD;
    p->start = p->end = 0;
    expect_head(p);
    /* As long as it brings something an answer may take a while, but not forever. */
    p->deadline_ms = clock_ms() + 2 * p->check->conf->read_timeout_ms;
    arm(p);
    conn_want(p->conn, CONN_READ);
}

static void connected(struct probe *p)
{
    int error = socket_error(p->conn->watch.fd);

    if (error != 0) {
        probe_failed(p, error, "connect() failed");
        return;
    }
    p->connect_us = clock_us() - p->started_us;
    if (p->check->tcp)
        probe_end(p, true, false);
    else
        send_request(p);
}

static void probe_timeout(struct timer *timer)
{
    struct probe *p = container_of(timer, struct conn, timer)->owner;

    probe_failed(p, ETIMEDOUT, "upstream timed out");
}

static void probe_event(struct conn *conn, unsigned ready)
{
    struct probe *p = conn->owner;

    (void) ready;
    switch (p->state) {
    case PROBE_IDLE:
        /* Closed by the server, or it speaks unasked. */
        close_conn(p);
        break;
    case PROBE_CONNECT: connected(p); break;
    case PROBE_SEND: send_request(p); break;
    default: read_answer(p);
    }
}

static void probe_connect(struct probe *p)
{
    bool done = false;
    int fd = socket_connect(&p->addr, NULL, &done);

    p->log.action = "connecting to upstream";
    p->reused = false;
    if (fd >= 0) {
        p->conn = conn_tcp(fd, &p->addr.sa, p->addr.len);
        if (p->conn == NULL) {
            int error = errno;

            close(fd);
            errno = error;
        }
    }
    if (p->conn == NULL) {
        probe_failed(p, errno, "connect() failed");
        return;
    }
    p->conn->owner = p;
    p->conn->handler = probe_event;
    p->conn->timer.fire = probe_timeout;
    p->opened_ms = clock_ms();
    if (p->check->conf->proxy_protocol != 0)
        pool_announce(p->arena, p->check->conf, NULL, &p->out);
    p->state = PROBE_CONNECT;
    if (done) {
        p->conn->ready |= CONN_WRITE;
        connected(p);
        return;
    }
    timer_set(&p->conn->timer, p->check->conf->connect_timeout_ms);
    conn_want(p->conn, CONN_WRITE);
}

static void probe_begin(struct probe *p)
{
    p->started_us = clock_us();
    if (!shared_check_begin(p->prober->group, p->check_index, p->peer)) {
        close_conn(p);
        schedule(p);
        return;
    }
    running++;
    p->arena = arena_new();
    p->received = p->connect_us = p->header_us = 0;
    if (p->conn != NULL && clock_ms() - p->opened_ms >= p->check->keepalive_time_ms)
        close_conn(p);
    chain_push_str(&p->out, p->check->request);
    if (p->conn == NULL) {
        probe_connect(p);
        return;
    }
    p->reused = true;
    send_request(p);
}

static void probe_due(struct timer *timer)
{
    struct probe *p = container_of(timer, struct probe, timer);

    if (running >= RUNNING_MAX && p->deferred_ms < DEFER_MAX_MS) {
        if (p->deferred_ms == 0)
            log_debug(&p->log, "waits, for %u others are under way", running);
        p->deferred_ms += DEFER_MS;
        timer_set(&p->timer, DEFER_MS);
        return;
    }
    p->deferred_ms = 0;
    probe_begin(p);
}

/* Life ----------------------------------------------------------------------------------------- */

void probe_init(struct probe *p, struct prober *prober, unsigned check,
                       const struct peer *peer)
{
    const struct health_check *hc = prober->group->health->checks[check];

    p->prober = prober;
    p->check = hc;
    p->check_index = check;
    p->peer = peer;
    p->addr = peer->addr;
    if (hc->port != 0 && p->addr.sa.sa_family != AF_UNIX)
        addr_set_port(&p->addr, hc->port);
    p->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = probe_due };
    p->log =
        (struct logger){ .scope = hc->location->core->error_log, .describe = describe, .data = p };
}

void probe_drop(struct probe *p)
{
    timer_drop(&p->timer);
    close_conn(p);
    if (p->state != PROBE_IDLE)
        release(p);
}
