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

bool pool_fits(const struct upconn *u, const struct exchange *x)
{
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

/* proxy_bind. 0: none, 1: *local is set, -1: errno. */
static int local_address(struct exchange *x, struct addr *local)
{
    const struct upstream_bind *b = &x->conf->bind;
    struct str text;

    if (likely(b->addr == NULL))
        return 0;
    text = expr_eval(&x->req->eval, b->addr);
    if (text.len == 0)
        return 0;
    if (addr_parse(local, text, 0, false) == 0)
        return 1;
    /* Without a port: any. */
    if (addr_parse(local, text, 1, false) == 0) {
        addr_set_port(local, 0);
        return 1;
    }
    log_error(&x->req->log, 0, "invalid local address \"%.*s\"", STR_ARG(text));
    return 0;
}

struct upconn *pool_connect(struct exchange *x, struct peer *peer)
{
    struct addr local;
    const struct upstream_conf *conf = x->conf;
    struct connect_options options = {
        .local = local_address(x, &local) > 0 ? &local : NULL,
        .transparent = conf->bind.transparent,
        .keepalive = conf->socket_keepalive,
        .rcvbuf = (int) conf->socket_rcvbuf,
        .sndbuf = (int) conf->socket_sndbuf,
    };
    struct upconn *u;
    struct conn *conn;
    bool connected;
    int fd = socket_connect(&peer->addr, &options, &connected);

    if (fd < 0)
        return NULL;
    conn = conn_tcp(fd, &peer->addr.sa, peer->addr.len);
    if (conn == NULL) {
        int error = errno;

        close(fd);
        errno = error;
        return NULL;
    }
    if (connected)
        conn->ready |= CONN_WRITE;
    u = upconn_new();
    u->conn = conn;
    u->group = x->group;
    u->peer = peer;
    u->tag = x->tag;
    u->x = x;
    u->opened_ms = clock_ms();
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
