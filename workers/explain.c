/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --explain. The configuration is read as for a start, and the request goes through the real engine over a
 * connection that ends in this file: what it writes is dropped, and each step that the engine and the modules
 * tell req_tracer is kept. Whatever would leave the process or be written is held back where it would happen
 * (req_explained). Called by main.
 */
#include "workers/explain.h"

#include <errno.h>
#include <stdio.h>

#include "core/config/resource.h"
#include "core/http/client.h"
#include "core/os/process.h"
#include "core/os/socket.h"
#include "workers/explain_steps.h"
#include "workers/internal.h"

#define TURNS_MAX 200 /* of at most TURN_MS each: then the request waits for something that will not come */
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
    struct explain_url url;
    struct http_listen *listen;
    struct addr from, local;
    struct str unread;           /* of the request */
    struct req *main;            /* NULL: its head has not been read */
    struct known_request *requests;
    unsigned request_count;
    bool ended;
} self;

static const struct conf_pos nowhere = { NULL, 0, 0 };

/* Returns -1. */
static int fail(const char *sentence)
{
    self.out.error = sentence;
    fprintf(stderr, "proxyd: %s\n", sentence);
    return -1;
}

/* Where the client connects to ---------------------------------------------------------------- */

#define EACH_LISTEN(http, l) \
    for (struct list *l##_n = (http)->listens.next; \
         l##_n != &(http)->listens && (l = container_of(l##_n, struct http_listen, link), true); \
         l##_n = l##_n->next)

/* 0: it does not take connections to this address; 2: the very address; 1: a wildcard. */
static unsigned fits(const struct http_listen *l, const struct addr *to)
{
    if (addr_eq(&l->addr, to, true))
        return 2;
    if (!l->wildcard || addr_port(&l->addr) != addr_port(to))
        return 0;
    if (l->addr.sa.sa_family == to->sa.sa_family)
        return 1;
    return l->addr.sa.sa_family == AF_INET6 && to->sa.sa_family == AF_INET && !l->options.ipv6only;
}

static struct http_listen *listen_at(struct http_main *http, const struct addr *to)
{
    struct http_listen *l, *best = NULL;
    unsigned found = 0;

    EACH_LISTEN(http, l) {
        if (fits(l, to) > found) {
            found = fits(l, to);
            best = l;
        }
    }
    return best;
}

/* Of the addresses with the URL's port: where a server is called by that name, else one for all addresses, else the first. */
static struct http_listen *listen_on_port(struct http_main *http, unsigned *others)
{
    struct http_listen *l, *best = NULL;
    struct str host = str_lower(self.out.arena, self.url.host), name;
    int best_score = -1;

    *others = 0;
    EACH_LISTEN(http, l) {
        int score = (l->wildcard ? 2 : 0) + (l->addr.sa.sa_family == AF_INET ? 1 : 0);

        if (l->addr.sa.sa_family == AF_UNIX || addr_port(&l->addr) != self.url.port)
            continue;
        http_server_reason(l, host, &name);
        score += name.ptr != NULL ? 4 : 0;
        *others += best != NULL;
        if (score > best_score) {
            best_score = score;
            best = l;
        }
    }
    return best;
}

static int no_listen(struct http_main *http, struct str where)
{
    struct arena *arena = self.out.arena;
    struct http_listen *l;
    struct str text = list_empty(&http->listens) ? STR("no listening address at all") : STR("");

    EACH_LISTEN(http, l)
        text = str_printf(arena, "%.*s%s%.*s (%s:%u)", STR_ARG(text), text.len > 0 ? ", " : "",
                          STR_ARG(l->text), l->pos.file, l->pos.line);
    return fail(str_printf(arena, "nothing listens on %.*s; there is %.*s", STR_ARG(where),
                           STR_ARG(text)).ptr);
}

static void add_listen_steps(unsigned others)
{
    const struct http_listen *l = self.listen;
    struct str note = STR("");

    if (others > 0)
        note = str_printf(self.out.arena, " (one of %u on this port: --to ADDRESS chooses another)",
                          others + 1);
    explain_add(&self.out, 0, STR("listen"),
                str_printf(self.out.arena, "%.*s%.*s", STR_ARG(l->text), STR_ARG(note)), l->pos);
    if (self.url.https && !l->ssl)
        explain_add(&self.out, 0, STR("note"),
                    STR("no TLS is spoken here (\"listen\" without \"ssl\"): an https client gets no "
                        "answer; what follows is that to a plain request"),
                    l->pos);
    else if (!self.url.https && l->ssl)
        explain_add(&self.out, 0, STR("note"),
                    STR("TLS is spoken here: a plain request gets 400"), l->pos);
}

/* 0, or -1: said. */
static int choose_listen(struct http_main *http)
{
    struct addr to;
    unsigned others = 0;
    struct str text = self.o->to != NULL ? str_cstr(self.o->to) : self.url.host;
    int rc = addr_parse(&to, text, self.url.port, false);
    struct str port = str_printf(self.out.arena, "port %u", self.url.port);

    if (self.o->to != NULL && rc != 0)
        return fail(str_printf(self.out.arena, "invalid address \"%.*s\" of --to", STR_ARG(text)).ptr);
    self.listen = rc == 0 ? listen_at(http, &to) : listen_on_port(http, &others);
    if (self.listen == NULL)
        return no_listen(http, rc == 0 ? addr_dup_text(self.out.arena, &to, true) : port);
    self.local = self.listen->addr;
    if (rc == 0)
        self.local = to;
    else if (self.listen->wildcard)
        addr_parse(&self.local,
                   self.listen->addr.sa.sa_family == AF_INET6 ? STR("[::1]") : STR("127.0.0.1"),
                   addr_port(&self.listen->addr), false);
    add_listen_steps(others);
    return 0;
}

static int choose_from(void)
{
    int family = self.listen->addr.sa.sa_family;
    const char *given = self.o->from;
    struct str text = given != NULL          ? str_cstr(given)
                      : family == AF_UNIX    ? STR("unix:client")
                      : self.local.sa.sa_family == AF_INET6 ? STR("::1")
                                             : STR("127.0.0.1");

    if (text.len > 0 && text.ptr[0] != '[' && str_chr(text, ':') != str_rchr(text, ':'))
        text = str_printf(self.out.arena, "[%.*s]", STR_ARG(text));
    if (addr_parse(&self.from, text, 40000, false) != 0)
        return fail(str_printf(self.out.arena, "invalid address \"%.*s\" of --from", STR_ARG(text)).ptr);
    return 0;
}

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
    *info = (struct conn_info){ .kind = "explained", .fd = -1, .sendfile = true };
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

static void add_fields(struct req *r)
{
    unsigned number = number_of(r);

    for (unsigned i = 0; i < r->out.fields.count; i++) {
        const struct field *f = &r->out.fields.items[i];

        if (f->deleted)
            continue;
        explain_add(&self.out, number, STR("header"),
                    str_printf(self.out.arena, "%.*s: %.*s", STR_ARG(f->name), STR_ARG(f->value)),
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
        text = r->err_status ? str_printf(self.out.arena, "%u: the connection is closed without an answer",
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

static void add_step(unsigned request, struct str sentence, struct conf_pos pos)
{
    ssize_t blank = str_chr(sentence, ' ');
    size_t n = blank < 0 ? sentence.len : (size_t) blank;

    explain_add(&self.out, request, str_from(sentence.ptr, n),
                str_trim(str_skip(sentence, n)), pos);
}

static void trace(struct req *r, struct conf_pos pos, const char *text)
{
    struct str sentence;

    if (self.main == NULL) {
        self.main = r->main;
        number_of(r->main);
        /* A body may be announced, but none comes: what reads it finds it complete, and holds nothing. */
        r->main->body.complete = true;
        r->main->body.received = (uint64_t) MAX(r->main->body.length, 0);
    }
    if (text == NULL) {
        add_end(r);
        return;
    }
    sentence = str_cstr(text);
    /* What refuses says it to the log as well. */
    if (self.out.last != NULL && str_eq(self.out.last->what, STR("log"))
        && str_find(self.out.last->text, sentence) >= 0) {
        struct explain_step *s = self.out.last;
        ssize_t blank = str_chr(sentence, ' ');

        s->what = str_dup(self.out.arena, str_from(sentence.ptr, blank < 0 ? 0 : (size_t) blank));
        s->text = str_dup(self.out.arena, str_skip(sentence, (size_t) (blank + 1)));
        s->pos = pos;
        s->request = number_of(r);
        return;
    }
    add_step(number_of(r), sentence, pos);
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
    explain_add(&self.out, self.request_count > 0 ? self.requests->number : 0, STR("log"),
                str_printf(self.out.arena, "[%s] %.*s", log_level_name(level), STR_ARG(str_trim(text))),
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
    conn->unix_peer = self.from.sa.sa_family == AF_UNIX;
    conn->peer_len = (uint16_t) MIN(self.from.len, sizeof(conn->peer));
    memcpy(&conn->peer, &self.from.ss, sizeof(conn->peer));
    conn->ready = CONN_READ | CONN_WRITE;
    /* Taken for one under debug_connection: all its lines come here, whatever error_log says. */
    conn->log.scope = &kept_scope;
    listener.owner = self.listen;
    client_accept(&listener, conn);
    x = client_extra(conn->owner);
    x->local = self.local;
    x->have_local = true;
    if (self.listen->proxy_protocol) {
        x->proxy_seen = x->have_proxy = true;
        x->proxy_source = self.from;
        x->proxy_dest = self.local;
    }
}

/* The head is out and nothing that could still be told is under way: how fast the rest would flow is of no interest. */
static bool all_said(void)
{
    return self.ended || (self.main != NULL && self.main->head_sent && !self.main->filter_waits
                          && list_empty(&self.main->children));
}

static int run(struct config *config)
{
    /* Zones of our own, which nobody has counted anything in: limits are as at the first request. */
    if (zones_open(config, NULL) != 0)
        return fail("no shared memory for the zones of the configuration");
    zone_set_worker(0);
    if (loop_init(16) != 0)
        return fail("epoll_create1() failed");
    log_set_stderr(false, LOG_WARN_LEVEL);
    /* Modules hold back by themselves what would leave the process; this is for what they forget. */
    process_renounce();
    req_tracer = trace;
    connect_client();
    for (unsigned i = 0; i < TURNS_MAX && !all_said(); i++)
        loop_turn(TURN_MS);
    if (!all_said())
        explain_add(&self.out, 0, STR("note"), STR("the request still waits for something: no more can be said"),
                    nowhere);
    client_close_all();
    req_tracer = NULL;
    loop_free();
    conn_trim();
    zones_close(config, NULL, false);
    return 0;
}

static int prepare(struct http_main *http)
{
    const char *error = explain_parse_url(self.out.arena, self.o->explain, &self.url);

    if (error == NULL)
        self.unread = explain_request(self.out.arena, self.o, &self.url, &error);
    if (error != NULL)
        return fail(error);
    if (http == NULL)
        return fail("the configuration has no \"http\" block");
    return choose_listen(http) != 0 || choose_from() != 0 ? -1 : 0;
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
        rc = fail("writing to standard output failed");
    arena_destroy(self.out.arena);
    config_free(config);
    arena_trim();
    block_trim();
    return rc == 0 ? 0 : 1;
}
