/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections to servers: making them, and keeping idle ones for the next request, youngest
 * first. An idle connection holds no buffer; one that becomes readable is closed, since a server
 * that speaks unasked has nothing to say but goodbye. Called by the exchange.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/http/client.h"
#include "core/http/proxy_protocol.h"
#include "modules/upstream/internal.h"

_Static_assert(offsetof(struct upconn, group) <= 64 && offsetof(struct peer, addr) <= 64,
               "what each request touches is a cache line");

static struct list free_upconns = { &free_upconns, &free_upconns };

static struct upconn *upconn_new(void)
{
    struct list *n = list_pop_front(&free_upconns);
    struct upconn *u = n != NULL ? container_of(n, struct upconn, link)
                                 : mem_alloc_line(sizeof(struct upconn));

    memset(u, 0, sizeof(*u));
    return u;
}

void pool_trim(void)
{
    struct list *n;

    while ((n = list_pop_front(&free_upconns)) != NULL)
        free(container_of(n, struct upconn, link));
}

static void unlink_idle(struct upconn *u, struct upstream *g)
{
    list_remove(&u->link);
    list_remove(&u->peer_link);
    u->resting = false;
    g->idle_count--;
    shared_publish_idle(g);
}

void pool_close(struct upconn *u)
{
    if (unlikely(u->bound))
        ntlm_untie(u);
    else if (u->resting)
        unlink_idle(u, u->group);
    conn_close(u->conn);
    if (unlikely(u->secure))
        secure_forget(&u->tls);
    if (unlikely(u->fixed))
        free(u->local);
    list_push_front(&free_upconns, &u->link);
}

static void idle_event(struct conn *conn, unsigned ready)
{
    const struct upconn *u = conn->owner;

    (void) ready;
    if (unlikely(u->secure) && pool_is_quiet(conn)) {
        conn_want(conn, CONN_READ); /* a session ticket */
        return;
    }
    pool_close(conn->owner);
}

static void idle_timeout(struct timer *timer)
{
    pool_close(container_of(timer, struct conn, timer)->owner);
}

/* From the same address, which may be a client's. */
static bool same_local(const struct addr *a, const struct addr *b)
{
    return b != NULL && addr_eq(a, b, true);
}

bool pool_fits(const struct upconn *u, const struct exchange *x)
{
    if (unlikely(u->fixed || x->local != NULL) && !(u->fixed && same_local(u->local, x->local)))
        return false;
    if (x->group->keepalive.local && u->tag != x->tag)
        return false;
    return likely(!u->secure && x->tls == NULL) || secure_fits(u, x);
}

void pool_expect(const struct peer *peer)
{
    const struct conn *conn;

    if (list_empty(&peer->idle))
        return;
    conn = container_of(peer->idle.next, struct upconn, peer_link)->conn;
    __builtin_prefetch(conn, 1);
    __builtin_prefetch(&conn->timer, 1);
}

struct upconn *pool_take(const struct exchange *x, struct peer *peer)
{
    for (struct list *n = peer->idle.next, *next; n != &peer->idle; n = next) {
        struct upconn *u = container_of(n, struct upconn, peer_link);

        next = n->next;
        if (!pool_fits(u, x))
            continue;
        if (unlikely(u->conn->ready & (CONN_READ | CONN_HUP))
            && (!u->secure || !pool_is_quiet(u->conn))) {
            /* Closed by the server in this very turn: its event has not been delivered yet. */
            pool_close(u);
            continue;
        }
        unlink_idle(u, x->group);
        u->reused = true;
        return u;
    }
    return NULL;
}

bool pool_is_quiet(struct conn *conn)
{
    char byte;

    if (conn->ready & CONN_HUP)
        return false;
    if (likely(!(conn->ready & CONN_READ)))
        return true;
    return conn_read(conn, &byte, 1) < 0 && errno == EAGAIN;
}

void pool_give(struct upconn *u)
{
    struct upstream *g = u->x->group;

    u->requests++;
    if (u->announced || g->keepalive.connections == 0 || u->peer->gone || (int64_t) u->requests >= g->keepalive_requests
        || clock_ms() - u->opened_ms > g->keepalive_time_ms || !pool_is_quiet(u->conn)) {
        pool_close(u);
        return;
    }
    if (g->idle_count >= g->keepalive.connections)
        pool_close(container_of(g->idle.prev, struct upconn, link));
    u->resting = true;
    list_push_front(&g->idle, &u->link);
    list_push_front(&u->peer->idle, &u->peer_link);
    g->idle_count++;
    shared_publish_idle(g);
    u->conn->handler = idle_event;
    u->conn->timer.fire = idle_timeout;
    timer_set(&u->conn->timer, g->keepalive_timeout_ms);
    conn_want(u->conn, CONN_READ);
}

void pool_drain(struct upstream *group)
{
    while (!list_empty(&group->idle))
        pool_close(container_of(group->idle.next, struct upconn, link));
}

/* Connecting ---------------------------------------------------------------------------------- */

const struct addr *pool_local(struct exchange *x)
{
    const struct upstream_bind *b = &x->conf->bind;
    struct addr *local;
    struct str text;

    text = expr_eval(&x->req->eval, b->addr);
    if (text.len == 0)
        return NULL;
    local = arena_alloc(x->req->arena, sizeof(*local));
    if (upstream_bind_parse(local, text) == 0)
        return local;
    log_error(&x->req->log, 0, "invalid local address \"%.*s\"", STR_ARG(text));
    return NULL;
}

/* What the server or the way to it brings about; anything else is for us to mend. */
static bool is_networks_errno(int error)
{
    switch (error) {
    case ECONNREFUSED:
    case EAGAIN: /* a unix socket's queue is full */
    case ECONNRESET:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH: return true;
    default: return false;
    }
}

/* The call that failed, in nginx's words and at its levels; and who is to blame. */
static enum peer_outcome judge(const struct exchange *x, const struct peer *peer, int error,
                               const char *step)
{
    const struct logger *log = &x->req->log;

    if (strcmp(step, "connect()") == 0) {
        LOG(log, is_networks_errno(error) ? LOG_ERROR_LEVEL : LOG_CRIT_LEVEL, error,
            "connect() to %.*s failed", STR_ARG(peer->name));
        /* From this address no port is left to lead to the server, which concerns nobody else. */
        return error == EADDRNOTAVAIL && x->local != NULL ? PEER_NEXT : PEER_FAILED;
    }
    if (strcmp(step, "bind()") == 0) {
        char text[ADDR_TEXT];

        addr_format(x->local, addr_port(x->local) != 0, text, sizeof(text));
        log_crit(log, error, "bind(%s) failed", text);
    } else if (error == EPERM && x->local != NULL) {
        log_alert(
            log, error,
            "\"transparent\" needs the capability CAP_NET_RAW, which this worker does not have: %s failed",
            step);
    } else {
        log_alert(log, error, "%s failed", step);
    }
    return PEER_OK;
}

static struct conn *connect_to(const struct exchange *x, const struct peer *peer, const char **step)
{
    const struct upstream_conf *conf = x->conf;
    struct connect_options options = {
        .local = x->local,
        .transparent = conf->bind.transparent,
        .keepalive = conf->socket_keepalive,
        .rcvbuf = (int) conf->socket_rcvbuf,
        .sndbuf = (int) conf->socket_sndbuf,
        .step = step,
    };
    bool connected;
    int fd = socket_connect(&peer->addr, &options, &connected);
    struct conn *conn;

    if (fd < 0)
        return NULL;
    *step = "epoll_ctl()";
    conn = conn_tcp(fd, &peer->addr.sa, peer->addr.len);
    if (conn == NULL) {
        int error = errno;

        close(fd);
        errno = error;
        return NULL;
    }
    if (connected)
        conn->ready |= CONN_WRITE;
    return conn;
}

struct upconn *pool_connect(struct exchange *x, struct peer *peer, enum peer_outcome *blame)
{
    const char *step;
    struct conn *conn = connect_to(x, peer, &step);
    struct upconn *u;

    if (conn == NULL) {
        *blame = judge(x, peer, errno, step);
        return NULL;
    }
    u = upconn_new();
    u->conn = conn;
    u->group = x->group;
    u->peer = peer;
    u->tag = x->tag;
    u->x = x;
    u->opened_ms = clock_ms();
    if (unlikely(x->local != NULL)) {
        u->fixed = true;
        u->local = mem_alloc(sizeof(*u->local));
        *u->local = *x->local;
    }
    conn->owner = u;
    return u;
}

void pool_announce(struct arena *arena, const struct upstream_conf *conf, struct req *r,
                   struct chain *out)
{
    struct chain first = CHAIN_INIT;
    const struct addr *source = NULL, *dest = NULL;
    struct addr room;
    char *header = arena_bytes(arena, PROXY_PROTOCOL_MAX);

    if (r != NULL) {
        source = req_peer(r, &room);
        dest = client_local(r->client);
    }
    chain_push_mem(&first, NULL, header,
                   proxy_protocol_write(header, conf->proxy_protocol, source, dest));
    chain_prepend(out, &first);
}
