/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One question to an OCSP responder by HTTP (RFC 6960, A.1): GET with the request in base64 behind the path, HTTP/1.0, so that
 * the answer ends with the connection or as its length says. Addresses are tried in turn until one has
 * answered. Everything goes on from the loop, nobody waits; size and time are bounded.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/fmt.h"
#include "core/event/conn.h"
#include "core/event/resolve.h"
#include "modules/ssl/ocsp.h"

#define ADDRS_MAX 8

struct ocsp_fetch {
    struct ocsp_question question;
    struct conn *conn;
    struct timer timer;
    struct resolve_query query;
    struct later later; /* what ends before it has begun ends from the loop too */
    struct doomed doomed;
    struct logger log;
    struct arena *arena;
    struct addr addrs[ADDRS_MAX];
    unsigned addr_count, tried;
    struct str request;
    size_t sent;
    char *answer; /* OCSP_RESPONSE_MAX bytes */
    size_t have;
    size_t body;     /* where it begins; 0: the head is not complete */
    uint64_t length; /* of the body; UINT64_MAX: to the end of the connection */
    bool resolving, ended;
    char peer[ADDR_TEXT];
};

static size_t describe(const struct logger *log, char *buf, size_t size)
{
    const struct ocsp_fetch *f = log->data;
    int n = snprintf(buf, size, ", responder: %.*s%s%s%s%.*s%s",
                     STR_ARG(f->question.responder->name), f->peer[0] != '\0' ? ", peer: " : "",
                     f->peer, f->question.certificate.len > 0 ? ", certificate: \"" : "",
                     STR_ARG(f->question.certificate), f->question.certificate.len > 0 ? "\"" : "");

    return n < 0 ? 0 : MIN((size_t) n, size);
}

static void fetch_free(struct doomed *item)
{
    struct ocsp_fetch *f = container_of(item, struct ocsp_fetch, doomed);

    arena_destroy(f->arena);
    free(f->answer);
    free(f);
}

static void disconnect(struct ocsp_fetch *f)
{
    timer_drop(&f->timer);
    if (f->conn != NULL)
        conn_close(f->conn);
    f->conn = NULL;
}

static void dispose(struct ocsp_fetch *f)
{
    f->ended = true;
    disconnect(f);
    if (f->resolving)
        resolve_cancel(&f->query);
    f->resolving = false;
    loop_later_cancel(&f->later);
    loop_destroy_later(&f->doomed);
}

void ocsp_fetch_cancel(struct ocsp_fetch *f)
{
    if (f != NULL && !f->ended)
        dispose(f);
}

static void finish(struct ocsp_fetch *f, struct str der)
{
    disconnect(f);
    f->ended = true;
    f->question.done(f->question.data, der, &f->log);
    dispose(f);
}

static void try_next(struct ocsp_fetch *f);

/* This address has not answered as it should, which has been logged. */
static void next(struct ocsp_fetch *f)
{
    disconnect(f);
    try_next(f);
}

/* The answer --------------------------------------------------------------------------------- */

static bool header(struct ocsp_fetch *f, struct str line)
{
    ssize_t colon = str_chr(line, ':');
    struct str name, value;

    if (colon <= 0)
        return false;
    name = str_from(line.ptr, (size_t) colon);
    value = str_trim(str_skip(line, (size_t) colon + 1));
    if (str_caseeq(name, STR("content-type")) &&
        !str_caseeq(value, STR("application/ocsp-response"))) {
        log_error(&f->log, 0, "OCSP responder sent invalid \"Content-Type\" header: \"%.*s\"",
                  STR_ARG(value));
        return false;
    }
    if (str_caseeq(name, STR("content-length")))
        return str_to_u64(value, &f->length) == 0;
    return !str_caseeq(name, STR("transfer-encoding"));
}

/* "HTTP/1.1 200 …", header fields. False: it is no answer that we want. */
static bool take_head(struct ocsp_fetch *f, struct str head)
{
    struct str line;
    bool first = true;

    f->length = UINT64_MAX;
    while (head.len > 0) {
        ssize_t end = str_chr(head, '\n');

        line = str_from(head.ptr, end < 0 ? head.len : (size_t) end);
        head = str_skip(head, MIN(line.len + 1, head.len));
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (first && (!str_starts(line, STR("HTTP/1.")) || line.len < 12 ||
                      !str_eq(str_from(line.ptr + 8, 4), STR(" 200"))))
            return false;
        if (!first && line.len > 0 && !header(f, line))
            return false;
        first = false;
    }
    return true;
}

/* What has come so far. full: nothing more will. */
static void judge(struct ocsp_fetch *f, bool full)
{
    struct str all = str_from(f->answer, f->have);

    if (f->body == 0) {
        ssize_t end = str_find(all, STR("\r\n\r\n"));

        if (end >= 0) {
            f->body = (size_t) end + 4;
            if (!take_head(f, str_from(all.ptr, (size_t) end))) {
                log_error(&f->log, 0, "OCSP responder sent invalid response");
                next(f);
                return;
            }
        }
    }
    if (f->body > 0 && (f->have - f->body >= f->length || (full && f->length == UINT64_MAX))) {
        finish(f, str_from(f->answer + f->body, (size_t) MIN(f->length, f->have - f->body)));
    } else if (full) {
        log_error(&f->log, 0, "OCSP responder prematurely closed connection");
        next(f);
    } else if (f->have == OCSP_RESPONSE_MAX) {
        log_error(&f->log, 0, "OCSP responder sent too large response");
        next(f);
    } else {
        conn_want(f->conn, CONN_READ);
    }
}

static void receive(struct ocsp_fetch *f)
{
    ssize_t n = 1;

    while (n > 0 && f->have < OCSP_RESPONSE_MAX) {
        n = conn_read(f->conn, f->answer + f->have, OCSP_RESPONSE_MAX - f->have);
        f->have += (size_t) MAX(n, 0);
    }
    if (n < 0 && errno != EAGAIN) {
        log_error(&f->log, errno, "recv() failed");
        next(f);
        return;
    }
    judge(f, n == 0);
}

/* The question ------------------------------------------------------------------------------- */

static void send_question(struct ocsp_fetch *f)
{
    struct iovec iov = { (char *) f->request.ptr + f->sent, f->request.len - f->sent };
    ssize_t n = iov.iov_len > 0 ? conn_writev(f->conn, &iov, 1) : 0;

    if (n < 0 && errno != EAGAIN) {
        log_error(&f->log, errno, "send() failed");
        next(f);
        return;
    }
    f->sent += (size_t) MAX(n, 0);
    conn_want(f->conn, f->sent < f->request.len ? CONN_WRITE : CONN_READ);
}

static void connected(struct ocsp_fetch *f)
{
    struct conn_info info;
    int err;

    conn_info(f->conn, &info);
    err = socket_error(info.fd);
    if (err != 0) {
        log_error(&f->log, err, "connect() failed");
        next(f);
        return;
    }
    send_question(f);
}

static void fetch_event(struct conn *conn, unsigned ready UNUSED)
{
    struct ocsp_fetch *f = conn->owner;

    if (f->sent == 0)
        connected(f);
    else if (f->sent < f->request.len)
        send_question(f);
    else
        receive(f);
}

static void fetch_timeout(struct timer *timer)
{
    struct ocsp_fetch *f = container_of(timer, struct ocsp_fetch, timer);

    log_error(&f->log, ETIMEDOUT, "OCSP responder timed out");
    next(f);
}

static void try_next(struct ocsp_fetch *f)
{
    while (f->tried < f->addr_count) {
        const struct addr *addr = &f->addrs[f->tried++];
        size_t n = addr_format(addr, true, f->peer, sizeof(f->peer) - 1);
        bool at_once = false;
        int fd = socket_connect(addr, NULL, &at_once);

        f->peer[n] = '\0';
        f->sent = f->have = f->body = 0;
        f->conn = fd >= 0 ? conn_tcp(fd, &addr->sa, addr->len) : NULL;
        if (f->conn != NULL) {
            f->conn->owner = f;
            f->conn->handler = fetch_event;
            if (at_once)
                f->conn->ready |= CONN_WRITE;
            timer_set(&f->timer, OCSP_TIMEOUT_MS);
            conn_want(f->conn, CONN_WRITE);
            return;
        }
        log_error(&f->log, errno, "connect() failed");
        if (fd >= 0)
            close(fd);
    }
    finish(f, STR_NULL);
}

/* Addresses ---------------------------------------------------------------------------------- */

static void resolved(struct resolve_query *q)
{
    struct ocsp_fetch *f = q->data;

    f->resolving = false;
    if (q->status == RESOLVE_OK) {
        f->addr_count = MIN(q->addr_count, (unsigned) ADDRS_MAX);
        for (unsigned i = 0; i < f->addr_count; i++) {
            f->addrs[i] = q->addrs[i].addr;
            addr_set_port(&f->addrs[i], f->question.responder->port);
        }
    } else {
        log_error(&f->log, 0, "%.*s could not be resolved (%d: %s)", STR_ARG(q->name),
                  (int) q->status, resolve_status_text(q->status));
    }
    try_next(f);
}

static void begin(struct later *later)
{
    struct ocsp_fetch *f = container_of(later, struct ocsp_fetch, later);
    const struct ocsp_responder *responder = f->question.responder;
    const struct core_loc *core = f->question.core;

    if (!responder->numeric && core->resolver != NULL) {
        if (*core->resolver_instance == NULL)
            *core->resolver_instance = resolver_new(core->resolver, log_main);
        f->query = (struct resolve_query){ .name = responder->name,
                                           .timeout_ms = core->resolver_timeout_ms,
                                           .done = resolved,
                                           .data = f };
        f->resolving = true;
        resolve_start(*core->resolver_instance, &f->query);
        return;
    }
    if (f->addr_count == 0)
        log_error(&f->log, 0, "no resolver defined to resolve %.*s", STR_ARG(responder->name));
    try_next(f);
}

/* Base64 has three letters that a path does not take. */
static struct str in_path(struct arena *arena, struct str base64)
{
    char *out = arena_bytes(arena, base64.len * 3), *p = out;

    for (size_t i = 0; i < base64.len; i++) {
        char c = base64.ptr[i];

        if (c == '+' || c == '/' || c == '=') {
            memcpy(p, c == '+' ? "%2B" : c == '/' ? "%2F" : "%3D", 3);
            p += 3;
        } else {
            *p++ = c;
        }
    }
    return str_from(out, (size_t) (p - out));
}

struct ocsp_fetch *ocsp_fetch_start(const struct ocsp_question *question,
                                    const struct log_scope *scope, uint64_t conn)
{
    const struct ocsp_responder *responder = question->responder;
    struct ocsp_fetch *f = mem_zalloc(sizeof(*f));
    struct str der;

    f->question = *question;
    f->arena = arena_new();
    f->answer = mem_alloc(OCSP_RESPONSE_MAX);
    f->later.run = begin;
    f->doomed.destroy = fetch_free;
    f->timer.fire = fetch_timeout;
    f->log = (struct logger){ .scope = scope,
                              .conn = conn,
                              .describe = describe,
                              .data = f,
                              .action = "requesting certificate status" };
    f->addr_count = MIN(responder->addr_count, (unsigned) ADDRS_MAX);
    if (f->addr_count > 0)
        memcpy(f->addrs, responder->addrs, f->addr_count * sizeof(f->addrs[0]));
    der = in_path(f->arena, fmt_base64(f->arena, question->subject->request, false));
    f->request = str_printf(
        f->arena,
        "GET %.*s%s%.*s HTTP/1.0\r\nHost: %.*s\r\nAccept: application/ocsp-response\r\n\r\n",
        STR_ARG(responder->path), str_ends(responder->path, STR("/")) ? "" : "/", STR_ARG(der),
        STR_ARG(responder->host));
    loop_later(&f->later);
    return f;
}
