/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A check by HTTP: one request, and whether its answer is what `match` asks for. Driven by health_probe.c, which knows
 * of connections and time; here is what is sent and read.
 */
#include "core/base/clock.h"
#include "core/http/client.h"
#include "modules/upstream/health.h"

#define FIELDS_MAX 60000 /* the size of the head is what limits */

/* An answer under way. */
struct http_check {
    struct msg head;
    struct h1_parser parser;
    struct h1_body decoder;
    bool in_body;
    struct block *head_block, *block;
    size_t start, end; /* of what is read of the head and not parsed */
    char *body;        /* as far as it is looked at */
    size_t body_len, body_size;
};

static struct http_check *check_of(const struct probe *p)
{
    return p->data;
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

struct req *probe_request(struct probe *p, struct conn *conn)
{
    const struct location *loc = p->check->location;
    struct http_listen *listen = listen_of(loc->server);
    struct client *client = ARENA_NEW(p->arena, struct client);
    struct msg *in = ARENA_NEW(p->arena, struct msg);
    struct req *r;

    if (listen == NULL)
        return NULL;
    *client = (struct client){
        .conn = conn, .listen = listen, .server = loc->server, .start_ms = clock_ms()
    };
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
    return r;
}

static const char *judge_by(struct probe *p, struct conn *conn)
{
    const struct http_check *a = check_of(p);
    struct upstream_record *record = ARENA_NEW(p->arena, struct upstream_record);
    struct req *r = probe_request(p, conn);

    if (r == NULL)
        return "there is no server that listens";
    *record = (struct upstream_record){ .peer = p->peer->name,
                                        .server = p->peer->server,
                                        .status = a->head.status,
                                        .connect_us = (int64_t) p->connect_us,
                                        .header_us = (int64_t) p->header_us,
                                        .response_us = (int64_t) (clock_us() - p->started_us),
                                        .queue_us = -1,
                                        .bytes_received = p->received,
                                        .bytes_sent = p->check->request.len,
                                        .response_length = a->decoder.received };
    r->upstream = (struct upstream_records){ .items = record, .count = 1, .head = &a->head };
    r->out.status = record->status;
    return health_match_require(p->check->match, &r->eval);
}

/*
 * Variables are a request's: one is made up that has got this answer, so that $upstream_status and what is made of it
 * have their values. Nobody asked, so that most others have none: those of TLS are a client's, not the server's.
 */
static const char *judge_variables(struct probe *p)
{
    struct conn *ends[2];
    const char *fault;

    if (p->tls.client == NULL)
        return judge_by(p, p->conn);
    conn_mem_pair(ends, 1);
    fault = judge_by(p, ends[0]);
    conn_close(ends[0]);
    conn_close(ends[1]);
    return fault;
}

/* The answer is complete, or as much of it as is looked at. */
static void judge(struct probe *p, bool keep)
{
    const struct http_check *a = check_of(p);
    const struct health_match *m = p->check->match;
    const char *fault = NULL;

    if (health_match_body(m)) {
        p->log.action = "checking body";
        fault =
            health_match_text(m, str_from(a->body != NULL ? a->body : "", a->body_len), p->arena);
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
    fault = health_match_status(m, &check_of(p)->head, p->arena);
    if (fault == NULL) {
        const char *before = p->log.action;

        p->log.action = "checking header";
        fault = health_match_fields(m, &check_of(p)->head, p->arena);
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
    switch (check_of(p)->parser.error) {
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
    struct http_check *a = check_of(p);

    msg_init(&a->head, p->arena, 16);
    h1_parser_init(&a->parser, &a->head, true);
    a->parser.line_max = a->parser.field_max = p->check->conf->buffer_size;
    a->parser.fields_max = FIELDS_MAX;
    a->parser.underscores = true;
}

/* Keeps of the body what the match may look at. */
static void keep_body(struct http_check *a, struct chain *in)
{
    struct iovec iov[16];
    size_t bytes;
    int n;

    while ((n = chain_iov(in, iov, ARRAY_LEN(iov), &bytes)) > 0) {
        for (int i = 0; i < n; i++) {
            size_t len = MIN(iov[i].iov_len, HEALTH_BODY_MAX - a->body_len);

            if (a->body_len + len > a->body_size) {
                a->body_size =
                    MIN(MAX(2 * a->body_size, MAX(4096, a->body_len + len)), HEALTH_BODY_MAX);
                a->body = mem_realloc(a->body, a->body_size);
            }
            if (len > 0)
                memcpy(a->body + a->body_len, iov[i].iov_base, len);
            a->body_len += len;
        }
        chain_consume(in, bytes);
    }
}

/* Bytes of the body. False: the probe is over. */
static bool take_body(struct probe *p, struct block *block, const char *ptr, size_t len)
{
    struct h1_body *decoder = &check_of(p)->decoder;
    struct chain content = CHAIN_INIT;
    bool wanted = health_match_body(p->check->match);
    size_t used = 0;
    enum h1_result result =
        h1_body_decode(decoder, block, ptr, len, UINT64_MAX, wanted ? &content : NULL, &used);

    keep_body(check_of(p), &content);
    chain_clear(&content);
    if (result == H1_ERROR) {
        p->log.action = "reading response body from upstream";
        probe_failed(p, 0,
                     decoder->error == H1_BAD_TRAILER ? "upstream sent invalid trailer"
                                                      : "upstream sent invalid chunked response");
        return false;
    }
    if (result == H1_DONE) {
        judge(p, used == len && check_of(p)->head.keep_alive && p->check->keepalive_time_ms > 0);
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
    struct http_check *a = check_of(p);

    for (;;) {
        size_t used = 0;
        enum h1_result result =
            h1_parse(&a->parser, a->head_block->data + a->start, a->end - a->start, &used);

        a->start += used;
        if (result == H1_ERROR) {
            probe_failed(p, 0, head_fault(p));
            return false;
        }
        if ((result == H1_MORE ? a->end : a->start) > p->check->conf->buffer_size) {
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
    a->in_body = true;
    return take_body(p, a->head_block, a->head_block->data + a->start, a->end - a->start);
}

/* For the reading ------------------------------------------------------------------------------- */

static void http_start(struct probe *p)
{
    struct http_check *a = p->data;

    if (a == NULL)
        a = p->data = ARENA_NEW(p->arena, struct http_check);
    a->start = a->end = 0;
    expect_head(p);
    chain_push_str(&p->out, p->check->request);
}

static char *http_room(struct probe *p, size_t *size)
{
    struct http_check *a = check_of(p);

    if (!a->in_body) {
        if (a->head_block == NULL)
            a->head_block = block_new(MAX(BLOCK_LARGE, p->check->conf->buffer_size + 1));
        *size = a->head_block->size - a->end;
        return a->head_block->data + a->end;
    }
    if (a->block == NULL)
        a->block = block_new(BLOCK_LARGE);
    *size = a->block->size;
    return a->block->data;
}

static bool http_take(struct probe *p, size_t n)
{
    struct http_check *a = check_of(p);

    if (a->in_body)
        return take_body(p, a->block, a->block->data, n);
    a->end += n;
    return take_head(p);
}

/* While the server is silent the block is not held: what was in it has been looked at. */
static void http_pause(struct probe *p)
{
    struct http_check *a = check_of(p);

    block_unref(a->block);
    a->block = NULL;
}

static bool http_closed(struct probe *p, bool cut)
{
    const struct http_check *a = check_of(p);

    if (a->in_body && a->decoder.kind == H1_BODY_CLOSE) {
        if (cut)
            probe_failed(p, 0,
                         "upstream closed connection without close_notify: its answer may be cut");
        else
            judge(p, false);
        return true;
    }
    if (a->in_body)
        p->log.action = "reading response body from upstream";
    return false;
}

static void http_free(struct probe *p)
{
    struct http_check *a = check_of(p);

    h1_body_free(&a->decoder);
    block_unref(a->head_block);
    block_unref(a->block);
    free(a->body);
}

const struct probe_protocol probe_http = {
    .start = http_start,
    .room = http_room,
    .take = http_take,
    .pause = http_pause,
    .closed = http_closed,
    .free = http_free,
};
