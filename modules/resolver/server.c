/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One name server, spoken to by c-ares: UDP, and TCP where an answer was cut. c-ares owns
 * the sockets and says which to watch; the loop and one timer drive it. It retries nothing and
 * reads no system configuration: which server is asked, and how often, is resolver.c's business.
 */
#include "modules/resolver/internal.h"

#define CARES_NO_DEPRECATED
#include <ares.h>
#include <arpa/inet.h>

#define TRY_MS 1500 /* for one question to one server */

/* A socket of c-ares in the loop. Closed by c-ares right after it says that it is done with it. */
struct server_watch {
    struct watch watch;
    struct doomed doomed;
    struct server_watch *next;
    struct name_server *server;
};

/* c-ares knows when it next wants to look after its questions. */
static void timer_renew(struct name_server *s)
{
    struct timeval tv, *next = ares_timeout(s->channel, NULL, &tv);

    if (next)
        timer_set(&s->timer,
                  (uint64_t) next->tv_sec * 1000 + (uint64_t) (next->tv_usec + 999) / 1000);
    else
        timer_stop(&s->timer);
}

static void server_timer(struct timer *timer)
{
    struct name_server *s = container_of(timer, struct name_server, timer);

    ares_process_fd(s->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    timer_renew(s);
}

static void server_event(struct watch *watch, uint32_t events)
{
    struct server_watch *w = container_of(watch, struct server_watch, watch);
    struct name_server *s = w->server;
    bool broken = events & (EPOLLERR | EPOLLHUP);

    ares_process_fd(s->channel, events & EPOLLIN || broken ? watch->fd : ARES_SOCKET_BAD,
                    events & EPOLLOUT ? watch->fd : ARES_SOCKET_BAD);
    timer_renew(s);
}

static void watch_destroy(struct doomed *doomed)
{
    free(container_of(doomed, struct server_watch, doomed));
}

/* From c-ares: what it wants to know of this socket; nothing: it is about to be closed. */
static void socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct name_server *s = arg;
    uint32_t events = (readable ? (uint32_t) EPOLLIN : 0) | (writable ? (uint32_t) EPOLLOUT : 0);
    struct server_watch **at = &s->watches, *w;

    while (*at && (*at)->watch.fd != fd)
        at = &(*at)->next;
    w = *at;
    if (!events) {
        if (!w)
            return;
        *at = w->next;
        loop_unwatch(&w->watch);
        w->doomed.destroy = watch_destroy;
        loop_destroy_later(&w->doomed);
        return;
    }
    if (w) {
        loop_rewatch(&w->watch, events);
        return;
    }
    w = mem_zalloc(sizeof(*w));
    w->watch.fd = fd;
    w->watch.handler = server_event;
    w->server = s;
    w->next = s->watches;
    s->watches = w;
    loop_watch(&w->watch, events);
}

static int set_server(ares_channel channel, const struct addr *addr)
{
    struct ares_addr_port_node node = { .family = addr->sa.sa_family };

    node.udp_port = node.tcp_port = (int) addr_port(addr);
    if (node.family == AF_INET)
        memcpy(&node.addr.addr4, &addr->in.sin_addr, sizeof(node.addr.addr4));
    else
        memcpy(&node.addr.addr6, &addr->in6.sin6_addr, sizeof(node.addr.addr6));
    return ares_set_servers_ports(channel, &node);
}

int name_server_init(struct name_server *s, const struct addr *addr, const struct logger *log)
{
    static char empty[] = "/dev/null", lookups[] = "b";
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP,
        .timeout = TRY_MS,
        .tries = 1,
        .sock_state_cb = socket_state,
        .sock_state_cb_data = s,
        .lookups = lookups,
        .resolvconf_path = empty,
    };
    int rc = ares_init_options(&s->channel, &options,
                               ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                   ARES_OPT_SOCK_STATE_CB | ARES_OPT_LOOKUPS | ARES_OPT_RESOLVCONF);

    if (rc == ARES_SUCCESS) {
        rc = set_server(s->channel, addr);
        if (rc != ARES_SUCCESS)
            ares_destroy(s->channel);
    }
    if (rc != ARES_SUCCESS) {
        log_emerg(log, 0, "resolver could not be set up: %s", ares_strerror(rc));
        s->channel = NULL;
        return -1;
    }
    s->addr = *addr;
    s->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = server_timer };
    return 0;
}

void name_server_free(struct name_server *s)
{
    if (!s->channel)
        return;
    ares_destroy(s->channel);
    timer_drop(&s->timer);
}

struct question {
    struct name_server *server;
    void (*replied)(void *arg, const struct server_reply *reply);
    void *arg;
};

static void reply_status(struct server_reply *r, int status)
{
    switch (status) {
    case ARES_SUCCESS: r->status = RESOLVE_OK; break;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME: r->status = RESOLVE_NOT_FOUND; break;
    case ARES_ETIMEOUT:
        r->status = RESOLVE_TIMEOUT;
        r->lame = true;
        break;
    default: /* SERVFAIL is often the name's own fault */
        r->status = RESOLVE_FAILED;
        r->lame = status != ARES_ESERVFAIL && status != ARES_EFORMERR;
        break;
    }
}

static void count(const struct name_server *s, unsigned counter)
{
    if (s->counts != NULL)
        (*s->counts)[counter]++;
}

static unsigned counter_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA: return RESOLVER_NOERROR;
    case ARES_EFORMERR: return RESOLVER_FORMERR;
    case ARES_ESERVFAIL: return RESOLVER_SERVFAIL;
    case ARES_ENOTFOUND: return RESOLVER_NXDOMAIN;
    case ARES_ENOTIMP: return RESOLVER_NOTIMP;
    case ARES_EREFUSED: return RESOLVER_REFUSED;
    case ARES_ETIMEOUT: return RESOLVER_TIMEDOUT;
    default: return RESOLVER_UNKNOWN;
    }
}

static void answered(void *arg, int status, int timeouts UNUSED, unsigned char *msg, int len)
{
    struct question *q = arg;
    struct server_reply reply = { .msg = msg, .len = len > 0 ? (size_t) len : 0 };

    if (status != ARES_EDESTRUCTION && status != ARES_ECANCELLED) {
        reply_status(&reply, status);
        count(q->server, counter_of(status));
        q->replied(q->arg, &reply);
    }
    free(q);
}

void name_server_ask(struct name_server *s, const char *name, unsigned type,
                     void (*replied)(void *arg, const struct server_reply *reply), void *arg)
{
    struct question *q = mem_alloc(sizeof(*q));

    q->server = s;
    q->replied = replied;
    q->arg = arg;
    count(s, type == DNS_SRV ? RESOLVER_SRVS : RESOLVER_NAMES);
    ares_query(s->channel, name, 1, (int) type, answered, q);
    timer_renew(s);
}
