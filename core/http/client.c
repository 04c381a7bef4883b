/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Client connections from accept to close: their memory, timers at rest, lingering close and
 * draining. Requests on them are the protocol drivers' business.
 */
#include "core/http/client.h"

#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/http/proxy_protocol.h"

#define CLIENT_SLAB 64
#define LINGER_BUFFER 4096
#define LINGER_READS 16 /* then others have their turn */

struct client_slab {
    struct client clients[CLIENT_SLAB]; /* first: a client begins with a cache line */
    struct client_slab *next;
};

static struct client_slab *slabs;
static struct client *free_clients; /* linked by conn */
/* Every client is in one of them; resting: longest first. */
static struct list working = { &working, &working };
static struct list resting = { &resting, &resting };

static void client_destroy(struct doomed *item)
{
    struct client *c = container_of(item, struct client, doomed);

    c->conn = (void *) free_clients;
    free_clients = c;
}

static void client_later(struct later *later)
{
    struct client *c = container_of(later, struct client, later);

    /* An event may have come first and have parsed what was there: then a request is under way. */
    if (c->state == CLIENT_HEAD || c->state == CLIENT_DISCARD)
        h1_server_readable(c);
}

static struct client *client_alloc(void)
{
    struct client *c;

    if (free_clients == NULL) {
        struct client_slab *slab = mem_alloc_line(sizeof(*slab));

        slab->next = slabs;
        slabs = slab;
        for (unsigned i = CLIENT_SLAB; i-- > 0;)
            client_destroy(&slab->clients[i].doomed);
    }
    c = free_clients;
    free_clients = (void *) c->conn;
    memset(c, 0, sizeof(*c));
    c->doomed.destroy = client_destroy;
    c->later.run = client_later;
    return c;
}

/* ", client: 1.2.3.4, server: 0.0.0.0:80": lines that belong to no request. */
static size_t describe_client(const struct logger *log, char *buf, size_t size)
{
    struct client *c = log->data;
    char peer[ADDR_TEXT];
    struct addr room;
    size_t n = addr_format(client_peer(c, &room), false, peer, sizeof(peer));
    int len = snprintf(buf, size, ", client: %.*s, server: %.*s", (int) n, peer,
                       STR_ARG(c->listen->text));

    return len < 0 ? 0 : MIN((size_t) len, size);
}

/* Addresses --------------------------------------------------------------------------------- */

struct client_extra *client_extra(struct client *c)
{
    if (c->extra == NULL) {
        c->extra = mem_zalloc(sizeof(*c->extra));
        list_init(&c->extra->ties);
    }
    return c->extra;
}

const struct addr *client_peer(struct client *c, struct addr *room)
{
    const struct req *r = client_req(c);

    return r != NULL && unlikely(r->realip != NULL) ? r->realip : client_socket_peer(c, room);
}

const struct addr *client_socket_peer(const struct client *c, struct addr *room)
{
    room->len = c->conn->peer_len;
    memset(&room->ss, 0, sizeof(room->un));
    memcpy(&room->sa, &c->conn->peer, sizeof(c->conn->peer));
    return room;
}

const struct addr *client_local(struct client *c)
{
    struct client_extra *x = client_extra(c);

    if (!x->have_local) {
        if (conn_local_addr(c->conn, &x->local) != 0)
            x->local = c->listen->addr;
        x->have_local = true;
    }
    return &x->local;
}

ssize_t client_take_proxy(struct client *c, const char *data, size_t len, bool full)
{
    struct addr source, dest;
    bool known = false;
    ssize_t n = proxy_protocol_parse(data, len, &source, &dest, &known);

    if (n == 0 && !full)
        return 0;
    if (n <= 0) {
        log_error(&c->conn->log, 0, "broken header: \"%.*s\" while reading PROXY protocol",
                  (int) MIN(len, 107), data);
        client_close(c);
        return -1;
    }
    client_extra(c)->proxy_seen = true;
    if (known) {
        c->extra->have_proxy = true;
        c->extra->proxy_source = source;
        c->extra->proxy_dest = dest;
        c->extra->proxy_tlvs = proxy_protocol_tlvs(data, (size_t) n);
    }
    return n;
}

/* TLS --------------------------------------------------------------------------------------- */

static void client_event(struct conn *conn, unsigned ready);
static void client_timeout(struct timer *timer);

/* From here on the connection is TLS: what has been read belongs to its first record. */
static void start_tls(struct client *c, struct tls_first first)
{
    struct conn *raw = c->conn;
    uint64_t deadline_ms = raw->timer.deadline_ms;
    struct conn *conn;

    raw->log.action = "SSL handshaking";
    conn = c->listen->http->tls->conn.accept(c->listen->tls_context, raw, first);
    if (conn == NULL) {
        client_close(c);
        return;
    }
    timer_stop(&raw->timer);
    c->conn = conn;
    c->tls = true;
    c->state = CLIENT_SHAKE;
    conn->owner = c;
    conn->handler = client_event;
    conn->timer.fire = client_timeout;
    timer_set(&conn->timer, deadline_ms > clock_ms() ? deadline_ms - clock_ms() : 0);
    conn_want(conn, CONN_WRITE);
}

/* The first bytes on an address with `ssl`: what is behind a PROXY header says whether TLS is spoken. */
static void take_first(struct client *c, struct tls_first first)
{
    bool want_proxy = c->listen->proxy_protocol && (c->extra == NULL || !c->extra->proxy_seen);

    if (want_proxy) {
        ssize_t n = client_take_proxy(c, first.block->data + first.start, first.end - first.start,
                                      first.end == first.block->size);

        if (n < 0) {
            block_unref(first.block);
            return;
        }
        first.start += (size_t) n;
        want_proxy = n == 0;
    }
    if (want_proxy || first.start == first.end) {
        client_extra(c)->first = first;
        conn_want(c->conn, CONN_READ);
    } else if (tls_begins(first.block->data + first.start)) {
        start_tls(c, first);
    } else {
        h1_server_bytes(c, first.block, first.start, first.end);
    }
}

/* Something can be read from a connection that is not TLS yet. */
static void before_tls(struct client *c)
{
    struct tls_first first = { .block = NULL };
    ssize_t n;

    if (c->extra != NULL) {
        first = c->extra->first;
        c->extra->first.block = NULL;
    }
    if (first.block == NULL)
        first = (struct tls_first){ .block = block_new(BLOCK_SMALL) };
    n = conn_read(c->conn, first.block->data + first.end, first.block->size - first.end);
    if (n > 0) {
        first.end += (size_t) n;
        take_first(c, first);
        return;
    }
    if (n < 0 && errno == EAGAIN) {
        if (first.end > 0)
            client_extra(c)->first = first;
        else
            block_unref(first.block);
        conn_want(c->conn, CONN_READ);
        return;
    }
    if (n < 0)
        log_info(&c->conn->log, errno, "recv() failed");
    block_unref(first.block);
    client_close(c);
}

bool client_is_early(const struct client *c)
{
    return c->tls && !req_explained() && c->listen->http->tls->conn.early(c->conn);
}

static void shaken(struct client *c)
{
    if (!c->listen->http->tls->conn.established(c->conn)) {
        client_close(c); /* the reason has been logged */
        return;
    }
    if (unlikely(!c->listen->http->tls->admit(c))) {
        c->state = CLIENT_CHECK;
        conn_want(c->conn, 0);
        return;
    }
    client_admitted(c);
}

void client_admitted(struct client *c)
{
    c->state = CLIENT_NEW;
    c->conn->log.action = "waiting for request";
    timer_set(&c->conn->timer, c->server->core->client_header_timeout_ms);
    h1_server_readable(c);
}

/* Events ------------------------------------------------------------------------------------ */

static void linger_readable(struct client *c)
{
    char buf[LINGER_BUFFER];
    ssize_t n;

    for (unsigned i = 0; i < LINGER_READS && (c->conn->ready & CONN_READ); i++) {
        n = conn_read(c->conn, buf, sizeof(buf));
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            client_close(c);
            return;
        }
    }
    /* lingering_timeout counts from the last data, lingering_time from the start. */
    timer_set(&c->conn->timer, c->server->core_loc->lingering_timeout_ms);
    if (clock_ms() >= c->start_ms)
        client_close(c);
    else
        conn_want(c->conn, CONN_READ);
}

static void client_event(struct conn *conn, unsigned ready)
{
    struct client *c = conn->owner;

    switch ((enum client_state) c->state) {
    case CLIENT_SHAKE:
        shaken(c);
        break;
    case CLIENT_NEW:
        if (unlikely(c->listen->ssl) && !c->tls) {
            before_tls(c);
            break;
        }
        h1_server_readable(c);
        break;
    case CLIENT_IDLE:
    case CLIENT_HEAD:
    case CLIENT_DISCARD:
        h1_server_readable(c);
        break;
    case CLIENT_REQUEST:
        h1_server_event(c, ready);
        break;
    case CLIENT_EARLY:
        h1_server_shaken(c, c->listen->http->tls->conn.established(conn));
        break;
    case CLIENT_LINGER:
        linger_readable(c);
        break;
    case CLIENT_CHECK:
    case CLIENT_CLOSED:
        break;
    }
}

static void client_timeout(struct timer *timer)
{
    struct conn *conn = container_of(timer, struct conn, timer);
    struct client *c = conn->owner;

    if (c->state == CLIENT_NEW || c->state == CLIENT_SHAKE || c->state == CLIENT_CHECK)
        log_info(&conn->log, ETIMEDOUT, "client timed out");
    if (c->state == CLIENT_NEW || c->state == CLIENT_SHAKE || c->state == CLIENT_CHECK
        || c->state == CLIENT_IDLE || c->state == CLIENT_LINGER) {
        client_close(c);
        return;
    }
    h1_server_timeout(c);
}

/* A wildcard socket also serves addresses without one of their own: chosen by the local address. */
static struct http_listen *choose_listen(struct client *c, struct http_listen *l)
{
    const struct addr *local;

    if (likely(l->specific == NULL))
        return l;
    local = client_local(c);
    for (struct http_listen **s = l->specific; *s != NULL; s++) {
        if (addr_eq(&(*s)->addr, local, false))
            return *s;
    }
    return l;
}

void client_accept(struct listener *l, struct conn *conn)
{
    struct client *c = client_alloc();

    client_counts->accepted++;
    client_counts->handled++;
    client_counts->active++;
    c->conn = conn;
    c->listen = l->owner;
    c->listen = choose_listen(c, c->listen);
    c->server = c->listen->default_server;
    c->start_ms = clock_ms();
    c->nodelay = c->listen->options.nodelay;
    conn->owner = c;
    conn->handler = client_event;
    conn->timer.fire = client_timeout;
    if (unlikely(conn->log.scope != log_main->scope))
        c->debug = conn->log.scope;
    else
        conn->log.scope = c->server->core_loc->error_log;
    conn->log.action = "waiting for request";
    conn->log.describe = describe_client;
    conn->log.data = c;
    c->tls = c->listen->ssl && req_explained(); /* who explains has no key to show */
    list_push_back(&resting, &c->link);
    timer_set(&conn->timer, c->server->core->client_header_timeout_ms);
    conn_want(conn, CONN_READ);
}

/* The end ----------------------------------------------------------------------------------- */

static void extra_free(struct client *c)
{
    struct list *n;

    while ((n = list_pop_front(&c->extra->ties)) != NULL) {
        struct client_tie *t = container_of(n, struct client_tie, link);

        t->gone(t);
    }
    free((char *) c->extra->proxy_tlvs.ptr);
    block_unref(c->extra->first.block);
    free(c->extra);
    c->extra = NULL;
}

void client_close(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->state == CLIENT_HEAD || c->state == CLIENT_EARLY)
        client_counts->reading--;
    c->state = CLIENT_CLOSED;
    client_counts->active--;
    h1_server_free(c);
    loop_later_cancel(&c->later);
    list_remove(&c->link);
    conn_close(c->conn);
    if (c->extra != NULL)
        extra_free(c);
    loop_destroy_later(&c->doomed);
}

void client_linger(struct client *c, const struct core_loc *core)
{
    c->state = CLIENT_LINGER;
    client_rests(c);
    if (conn_shutdown(c->conn) != 0) {
        client_close(c);
        return;
    }
    c->start_ms = clock_ms() + core->lingering_time_ms;
    timer_set(&c->conn->timer, core->lingering_timeout_ms);
    conn_want(c->conn, CONN_READ);
}

/*
 * A connection at rest is closed, but not in the very moment in which its client may be sending the
 * next request: one that was busy within the last second stays until it has been idle for that
 * long (or for keepalive_min_timeout). A request that comes meanwhile is answered, with Connection: close.
 */
#define DRAIN_IDLE_MS 1000

static void drain(struct client *c)
{
    uint64_t min_ms = MAX(c->server->core_loc->keepalive_min_timeout_ms, DRAIN_IDLE_MS);
    uint64_t since_ms, idle_ms;

    c->draining = true;
    if (c->state != CLIENT_IDLE)
        return;
    since_ms = c->conn->timer.deadline_ms - c->server_keepalive_ms;
    idle_ms = clock_ms() - since_ms;
    if (idle_ms < min_ms)
        timer_set(&c->conn->timer, min_ms - idle_ms);
    else
        client_close(c);
}

void client_idle(struct client *c)
{
    c->state = CLIENT_IDLE;
    client_rests(c);
    timer_set(&c->conn->timer, c->server_keepalive_ms);
    conn_want(c->conn, CONN_READ);
    if (unlikely(c->draining))
        drain(c); /* it was promised to stay before that began */
}

static void each(struct list *clients, void (*f)(struct client *))
{
    struct list *n, *next;

    for (n = clients->next; n != clients; n = next) {
        next = n->next;
        f(container_of(n, struct client, link));
    }
}

void client_drain_all(void)
{
    each(&working, drain);
    each(&resting, drain);
}

void client_rests(struct client *c)
{
    list_remove(&c->link);
    list_push_back(&resting, &c->link);
}

void client_works(struct client *c)
{
    list_remove(&c->link);
    list_push_back(&working, &c->link);
}

unsigned client_shed(unsigned n)
{
    unsigned closed = 0;

    for (; closed < n && !list_empty(&resting); closed++)
        client_close(container_of(resting.next, struct client, link));
    return closed;
}

/* True: it takes leave, and an answer may come. */
static bool take_leave(struct client *c)
{
    struct req *r = client_req(c);

    return r != NULL && !r->finished && r->on_farewell != NULL && r->on_farewell(r);
}

static void close_now(struct client *c)
{
    struct req *r;

    take_leave(c);
    r = client_req(c);
    if (r != NULL && !r->finished)
        req_abort(r, 0);
    if (c->state != CLIENT_CLOSED)
        client_close(c);
}

static void part(struct client *c)
{
    if (!take_leave(c) && c->state != CLIENT_CLOSED)
        close_now(c);
}

bool client_part_all(void)
{
    static bool parted;

    if (!parted) {
        parted = true;
        each(&working, part);
    }
    return !list_empty(&working);
}

void client_close_all(void)
{
    while (!list_empty(&working))
        close_now(container_of(working.next, struct client, link));
    while (!list_empty(&resting))
        close_now(container_of(resting.next, struct client, link));
}
