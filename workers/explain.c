/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --explain. The configuration is read as for a start, and the request goes through the real engine
 * over a connection that ends in this file: what it writes is dropped, and each step that the
 * engine and the modules tell req_tracer is kept. Whatever would leave the process or be written is
 * held back where it would happen (req_explained). Called by main.
 */
#include "workers/explain.h"

#include <errno.h>
#include <stdio.h>

#include "core/config/resource.h"
#include "core/http/client.h"
#include "core/os/process.h"
#include "workers/explain_steps.h"
#include "workers/internal.h"

#define TURNS_MAX \
    200 /* of at most TURN_MS each: then the request waits for something that will not come */
#define TURN_MS 50

/* A subrequest, or the request itself, and its number. */
struct known_request {
    struct known_request *next;
    const struct req *r;
    unsigned number;
};

static struct {
    struct explanation out;
    const struct options *o;
    struct explain_route route;
    struct str unread; /* of the request */
    struct req *main;  /* NULL: its head has not been read */
    struct known_request *requests;
    unsigned request_count;
    bool ended;
} self;

static const struct conf_pos nowhere = { NULL, 0, 0 };

/* The connection ------------------------------------------------------------------------------- */

static ssize_t explain_read(struct conn *c, void *buf, size_t len)
{
    size_t n = MIN(len, self.unread.len);

    if (n == 0) {
        c->ready &= (unsigned char) ~CONN_READ;
        errno = EAGAIN;
        return -1;
    }
    memcpy(buf, self.unread.ptr, n);
    self.unread = str_skip(self.unread, n);
    return (ssize_t) n;
}

static ssize_t drop_written(struct conn *c UNUSED, const struct iovec *iov, int n)
{
    size_t all = 0;

    for (int i = 0; i < n; i++)
        all += iov[i].iov_len;
    return (ssize_t) all;
}

static ssize_t drop_file(struct conn *c UNUSED, int fd UNUSED, off_t offset UNUSED, size_t len)
{
    return (ssize_t) len;
}

static void explain_want(struct conn *c, unsigned what)
{
    c->wants = (unsigned char) what;
    if (c->ready & what)
        loop_later(&c->later);
}

static int explain_shutdown(struct conn *c UNUSED)
{
    return 0;
}

static void explain_close(struct conn *c UNUSED)
{
    self.ended = true;
}

static void explain_info(const struct conn *c UNUSED, struct conn_info *info)
{
    *info = (struct conn_info){ .kind = "explained", .fd = -1 };
}

static const struct conn_ops explain_ops = {
    .kind = "explained",
    .read = explain_read,
    .writev = drop_written,
    .sendfile = drop_file,
    .want = explain_want,
    .shutdown = explain_shutdown,
    .close = explain_close,
    .info = explain_info,
};

/* Steps ---------------------------------------------------------------------------------------- */

static unsigned number_of(const struct req *r)
{
    struct known_request *k;

    for (k = self.requests; k != NULL; k = k->next) {
        if (k->r == r)
            return k->number;
    }
    k = ARENA_NEW(self.out.arena, struct known_request);
    k->r = r;
    k->number = self.request_count++;
    k->next = self.requests;
    self.requests = k;
    return k->number;
}

/* As the protocol writes it: a line end that a variable brought along is a blank. */
static struct str field_text(const struct field *f)
{
    struct str text = str_printf(self.out.arena, "%.*s: %.*s", STR_ARG(f->name), STR_ARG(f->value));
    char *p = (char *) text.ptr;

    for (size_t i = 0; i < text.len; i++) {
        if (p[i] == '\r' || p[i] == '\n' || p[i] == '\0')
            p[i] = ' ';
    }
    return text;
}

static void add_fields(struct req *r)
{
    unsigned number = number_of(r);

    for (unsigned i = 0; i < r->out.fields.count; i++) {
        const struct field *f = &r->out.fields.items[i];

        if (f->deleted)
            continue;
        explain_add(&self.out, number, STR("header"), field_text(f),
                    conf_where(r->loc->level, "add_header", f->name));
    }
}

static void add_end(struct req *r)
{
    struct str reason = r->out.reason.ptr ? r->out.reason : status_reason(r->out.status);
    bool upstream = r->out.reason.ptr != NULL;
    struct str text;

    if (r == r->main) {
        self.ended = true;
        self.out.status = r->head_sent ? r->out.status : 0;
        self.out.upstream = upstream && r->head_sent;
    }
    if (!r->head_sent && !r->sub_head_only)
        text = r->err_status
                   ? str_printf(self.out.arena, "%u: the connection is closed without an answer",
                                r->err_status)
                   : STR("the connection is closed without an answer");
    else if (upstream)
        text = str_printf(self.out.arena, "%.*s%s", STR_ARG(reason),
                          r == r->main ? "; with 200 it would have these:" : " (taken to be 200)");
    else
        text = str_printf(self.out.arena, "%u%s%.*s", r->out.status, reason.len ? " " : "",
                          STR_ARG(reason));
    explain_add(&self.out, number_of(r), STR("status"), text, nowhere);
    if (r == r->main && r->head_sent)
        add_fields(r);
}

/* The directive that stands there, in the request's location or around it; STR_NULL: none. */
static struct str directive_at(const struct req *r, struct conf_pos pos)
{
    for (const struct level *l = r->loc->level; l != NULL; l = l->parent) {
        for (const struct conf_place *p = l->places; p != NULL; p = p->next) {
            if (p->pos.file == pos.file && p->pos.line == pos.line && p->pos.column == pos.column)
                return str_cstr(p->row->name);
        }
    }
    return STR_NULL;
}

/* Words that are no directive's name and still say what a step is about. */
static bool is_subject(struct str word)
{
    static const char *const words[] = { "access", "file", "limit",    "location",  "redirect",
                                         "peer",   "send", "upstream", "subrequest" };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        if (str_eq(word, str_cstr(words[i])))
            return true;
    }
    return false;
}

/*
 * What a sentence is about: its first word, unless that is just any word and the directive says
 * more.
 */
static void split_sentence(const struct req *r, struct conf_pos pos, struct str sentence,
                           struct str *what, struct str *text)
{
    struct str directive = pos.file != NULL ? directive_at(r, pos) : STR_NULL;
    ssize_t blank = str_chr(sentence, ' ');
    size_t n = blank < 0 ? sentence.len : (size_t) blank;

    *what = str_from(sentence.ptr, n);
    *text = str_trim(str_skip(sentence, n));
    if (directive.ptr == NULL || is_subject(*what) || str_eq(*what, directive))
        return;
    *what = directive;
    *text = sentence;
}

static void trace(struct req *r, struct conf_pos pos, const char *text)
{
    struct explain_step *last;
    struct str sentence, what, rest;

    if (self.main == NULL) {
        self.main = r->main;
        number_of(r->main);
        /*
         * A body may be announced, but none comes: what reads it finds it complete, and holds
         * nothing.
         */
        r->main->body.complete = true;
        r->main->body.received = (uint64_t) MAX(r->main->body.length, 0);
    }
    if (text == NULL) {
        add_end(r);
        return;
    }
    sentence = str_cstr(text);
    split_sentence(r, pos, sentence, &what, &rest);
    /* What refuses says it to the log as well: once is enough. */
    last = self.out.last;
    if (last != NULL && str_eq(last->what, STR("log")) && str_find(last->text, sentence) >= 0)
        explain_replace(&self.out, last, what, rest, pos);
    else
        explain_add(&self.out, number_of(r), what, rest, pos);
}

/* "1994/11/06 08:49:37 [error] 1#1: *1 MESSAGE, client: …": what is said, and how loud. */
static void keep_log_line(struct log_file *file UNUSED, enum log_level level, const char *line,
                          size_t len)
{
    struct str text = str_from(line, len);
    ssize_t at = str_find(text, STR(": "));

    if (at >= 0)
        text = str_skip(text, (size_t) at + 2);
    at = str_chr(text, ' ');
    if (text.len > 0 && text.ptr[0] == '*' && at >= 0)
        text = str_skip(text, (size_t) at + 1);
    at = str_find(text, STR(", client: "));
    if (at >= 0)
        text.len = (size_t) at;
    explain_add(
        &self.out, self.out.last != NULL ? self.out.last->request : 0, STR("log"),
        str_printf(self.out.arena, "[%s] %.*s", log_level_name(level), STR_ARG(str_trim(text))),
        nowhere);
    if (str_find(text, STR("(1: Operation not permitted)")) >= 0)
        explain_add(
            &self.out, self.out.last->request, STR("note"),
            STR("nothing is changed for --explain: a real request may get further than this"),
            nowhere);
}

static struct log_file kept_log = { .fd = -1, .write = keep_log_line };
static struct log_target kept_target = { LOG_INFO_LEVEL, &kept_log, NULL };
static const struct log_scope kept_scope = { LOG_INFO_LEVEL, &kept_target };

/* The run -------------------------------------------------------------------------------------- */

static void connect_client(void)
{
    static struct listener listener;
    struct conn *conn = conn_new(&explain_ops);
    struct client_extra *x;

    conn->watch.fd = -1;
    conn->unix_peer = self.route.from.sa.sa_family == AF_UNIX;
    conn->peer_len = (uint16_t) MIN(self.route.from.len, sizeof(conn->peer));
    memcpy(&conn->peer, &self.route.from.ss, sizeof(conn->peer));
    conn->ready = CONN_READ | CONN_WRITE;
    /* Taken for one under debug_connection: all its lines come here, whatever error_log says. */
    conn->log.scope = &kept_scope;
    listener.owner = self.route.listen;
    client_accept(&listener, conn);
    x = client_extra(conn->owner);
    x->local = self.route.local;
    x->have_local = true;
    if (self.route.listen->proxy_protocol) {
        x->proxy_seen = x->have_proxy = true;
        x->proxy_source = self.route.from;
        x->proxy_dest = self.route.local;
    }
}

/*
 * The head is out and nothing that could still be told is under way: how fast the rest would flow
 * is of no interest.
 */
static bool all_said(void)
{
    return self.ended || (self.main != NULL && self.main->head_sent && !self.main->filter_waits &&
                          list_empty(&self.main->children));
}

static int run(struct config *config)
{
    /*
     * Zones of our own, which nobody has counted anything in: limits are as at the first request.
     */
    if (zones_open(config, NULL) != 0)
        return explain_fail(&self.out, "no shared memory for the zones of the configuration");
    zone_set_worker(0);
    if (loop_init(16) != 0)
        return explain_fail(&self.out, "epoll_create1() failed");
    log_set_stderr(false, LOG_WARN_LEVEL);
    /*
     * Modules hold back by themselves what would leave the process; this is for what they forget.
     */
    process_renounce();
    req_tracer = trace;
    connect_client();
    for (unsigned i = 0; i < TURNS_MAX && !all_said(); i++)
        loop_turn(TURN_MS);
    if (!all_said())
        explain_add(&self.out, 0, STR("note"),
                    STR("the request still waits for something: no more can be said"), nowhere);
    client_close_all();
    req_tracer = NULL;
    loop_free();
    conn_trim();
    zones_close(config, NULL);
    return 0;
}

static int prepare(struct http_main *http)
{
    struct explain_url url;
    const char *error = explain_parse_url(self.out.arena, self.o->explain, &url);

    if (error == NULL)
        self.unread = explain_request(self.out.arena, self.o, &url, &error);
    if (error != NULL)
        return explain_fail(&self.out, error);
    if (http == NULL)
        return explain_fail(&self.out, "the configuration has no \"http\" block");
    return explain_find_route(&self.out, self.o, &url, http, &self.route);
}

int explain(const struct options *o, const struct config_request *request)
{
    struct config_request mine = *request;
    struct config *config;
    int rc;

    mine.testing = mine.offline = mine.explaining = true;
    config = config_read(&mine, log_main);
    self.o = o;
    self.out.config = config;
    self.out.arena = arena_new_large();
    self.out.method = str_cstr(o->method != NULL ? o->method : "GET");
    self.out.url = o->explain;
    if (config == NULL) {
        self.out.error = "the configuration cannot be read"; /* why has been logged */
        rc = -1;
    } else {
        rc = prepare(config->http) != 0 || run(config) != 0 ? -1 : 0;
    }
    if (o->json ? explain_print_json(&self.out) != 0 : rc == 0 && explain_print(&self.out) != 0)
        rc = explain_fail(&self.out, "writing to standard output failed");
    arena_destroy(self.out.arena);
    config_free(config);
    arena_trim();
    block_trim();
    return rc == 0 ? 0 : 1;
}
