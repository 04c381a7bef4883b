/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor: the least a process can do and still stand between client and origin. One epoll
 * loop; per request one read and one write on each side; of HTTP it sees only where a head ends
 * and what Content-Length says. Upstream connections are taken from a pool and given back. What
 * a real server costs above this is what its features cost.
 *
 * Of a request for /peersN/… it makes the least one can of choosing among N servers, the addresses
 * 127.1.0.1, 127.1.0.2 … of the origin: each has a connection, and they take turns, or with "random" it is any of them. What that costs
 * more with more of them is what the sockets cost, not the choice; in turn less than in another order, which memory cannot foresee.
 *
 *     relay LISTEN LISTEN-CLOSE ORIGIN [random]        (each ADDRESS:PORT)
 *
 * Clients of LISTEN are kept alive; those of LISTEN-CLOSE are closed after one answer (for the
 * workload with a new connection per request). It is a yardstick, not a server: a head that
 * does not come in one read, a pipelined request or a request body ends the connection.
 */
#include "common.h"

#define BUFFER (64 * 1024)
#define PEERS_MAX 1000
#define PLACES_MIN 100  /* more than there are clients at a time */

enum kind { LISTENER, CLIENT, UPSTREAM };

struct end {
    enum kind kind;
    int fd;
    int close_after;    /* listener and client: one answer each */
    struct end *peer;   /* the other side of the exchange under way, or NULL */
    struct end *next;   /* upstream: in the pool; any: among the dead */
    size_t left;        /* upstream: octets of the answer still to read */
    int head_seen;      /* upstream: left is known */
    struct end **place; /* upstream: where it stands in a ring; NULL: it is of the pool */
    int ending;         /* upstream: the origin has closed its side, after this answer */
    char *pending;      /* client: what its socket did not take, BUFFER octets once allocated */
    size_t pending_off;
    size_t pending_len;
};

static int ep;
static struct sockaddr_in origin;
static struct end *pool, *dead;
/* The connections to so many peers, and whose turn it is. */
static struct ring {
    unsigned peers, turn;
    struct end *places[PEERS_MAX];
} rings[2];
static int at_random;
static char buffer[BUFFER];

static struct end *end_new(enum kind kind, int fd)
{
    struct end *e = calloc(1, sizeof *e);

    if (e == NULL)
        bench_die("calloc");
    e->kind = kind;
    e->fd = fd;
    return e;
}

static void pool_remove(struct end *up)
{
    if (up->place != NULL) {
        *up->place = NULL;
        return;
    }
    for (struct end **p = &pool; *p != NULL; p = &(*p)->next) {
        if (*p == up) {
            *p = up->next;
            return;
        }
    }
}

static void end_bury(struct end *e)
{
    close(e->fd);
    e->fd = -1;
    e->peer = NULL;
    e->next = dead;
    dead = e;
}

/* Closes e, and its peer: half an answer is of use to nobody. The memory stays until the end of
 * the turn, since an event may still name it. */
static void end_close(struct end *e)
{
    struct end *up = e->kind == UPSTREAM ? e : e->peer;

    if (up != NULL && (up->peer == NULL || up->place != NULL))
        pool_remove(up);
    if (e->peer != NULL)
        end_bury(e->peer);
    end_bury(e);
}

static void bury(void)
{
    while (dead != NULL) {
        struct end *e = dead;

        dead = e->next;
        free(e->pending);
        free(e);
    }
}

static struct end *upstream_connect(const struct sockaddr_in *address)
{
    struct end *up;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return NULL;
    if (connect(fd, (const struct sockaddr *) address, sizeof *address) != 0) {
        close(fd);
        return NULL;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    bench_nodelay(fd);
    up = end_new(UPSTREAM, fd);
    bench_watch(ep, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, up);
    return up;
}

static struct end *peer_connect(struct ring *ring, unsigned at)
{
    struct sockaddr_in address = origin;

    at %= ring->peers;
    address.sin_addr.s_addr = htonl(0x7f010000 + (at / 250 << 8) + at % 250 + 1);
    return upstream_connect(&address);
}

static struct ring *ring_of(unsigned peers)
{
    for (unsigned i = 0; i < sizeof rings / sizeof rings[0]; i++) {
        if (rings[i].peers == 0)
            rings[i].peers = peers;
        if (rings[i].peers == peers)
            return &rings[i];
    }
    return NULL;
}

static unsigned next_place(struct ring *ring, unsigned places)
{
    static unsigned seed = 2463534242u;

    if (!at_random)
        return ring->turn++ % places;
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % places;
}

/* The next connection that is free. */
static struct end *peer_take(unsigned peers)
{
    struct ring *ring = ring_of(peers);
    unsigned places = peers > PLACES_MIN ? peers : PLACES_MIN;

    for (unsigned tries = 0; ring != NULL && tries < places; tries++) {
        unsigned at = next_place(ring, places);
        struct end **place = &ring->places[at];

        if (*place == NULL && (*place = peer_connect(ring, at)) != NULL)
            (*place)->place = place;
        if (*place == NULL || (*place)->peer == NULL)
            return *place;
    }
    return NULL;
}

static struct end *pool_take(void)
{
    struct end *up = pool;

    if (up == NULL)
        return upstream_connect(&origin);
    pool = up->next;
    return up;
}

/* How many servers the request in buffer is for: N of "GET /peersN/", or 1. */
static unsigned request_peers(size_t n)
{
    static const char begin[] = "GET /peers";
    unsigned long count;

    if (n < sizeof begin + 5 || memcmp(buffer, begin, sizeof begin - 1) != 0)
        return 1;
    count = strtoul(buffer + sizeof begin - 1, NULL, 10);
    return count > PEERS_MAX ? PEERS_MAX : (unsigned) count;
}

static struct end *upstream_take(size_t request)
{
    unsigned n = request_peers(request);

    return n > 1 ? peer_take(n) : pool_take();
}

/* The answer has been read: the upstream connection is free for the next request. */
static void upstream_give(struct end *up)
{
    up->peer->peer = NULL;
    up->peer = NULL;
    if (up->ending) {
        if (up->place != NULL)
            *up->place = NULL;
        end_bury(up);
        return;
    }
    up->head_seen = 0;
    if (up->place != NULL)
        return;
    up->next = pool;
    pool = up;
}

/* Hands n octets of buffer to the client; -1 where it is gone. What does not fit is kept, and
 * from the first time on the client is watched for room, too. */
static int client_write(struct end *client, size_t n)
{
    ssize_t done = write(client->fd, buffer, n);

    if (done < 0) {
        if (errno != EAGAIN)
            return -1;
        done = 0;
    }
    if ((size_t) done == n)
        return 0;
    if (client->pending == NULL) {
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                 .data.ptr = client};

        client->pending = malloc(BUFFER);
        if (client->pending == NULL || epoll_ctl(ep, EPOLL_CTL_MOD, client->fd, &ev) != 0)
            bench_die("client_write");
    }
    client->pending_off = 0;
    client->pending_len = n - (size_t) done;
    memcpy(client->pending, buffer + done, client->pending_len);
    return 0;
}

/* Counts n octets off the answer; -1 where it is not one that we can relay. */
static int upstream_count(struct end *up, size_t n)
{
    if (!up->head_seen) {
        size_t head = bench_head_end(buffer, n), length;

        if (head == 0 || (length = bench_content_length(buffer, head)) == BENCH_NO_LENGTH)
            return -1;
        up->head_seen = 1;
        up->left = head + length;
    }
    if (n > up->left)
        return -1;
    up->left -= n;
    return 0;
}

/* Moves what has arrived of the answer on to the client, until one of the two has to wait. */
static void upstream_readable(struct end *up)
{
    struct end *client = up->peer;

    if (client == NULL) {   /* in the pool: anything but silence ends it */
        if (read(up->fd, buffer, 1) >= 0 || errno != EAGAIN)
            end_close(up);
        return;
    }
    while (client->pending_len == 0) {
        ssize_t n = read(up->fd, buffer, BUFFER);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || upstream_count(up, (size_t) n) != 0
            || client_write(client, (size_t) n) != 0) {
            end_close(up);
            return;
        }
        if (up->left == 0) {
            upstream_give(up);
            if (client->close_after && client->pending_len == 0)
                end_close(client);
            return;
        }
        if (n < BUFFER)     /* a short read has emptied the socket */
            return;
    }
}

static void client_readable(struct end *client)
{
    struct end *up;
    ssize_t n = read(client->fd, buffer, BUFFER);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || client->peer != NULL || bench_head_end(buffer, (size_t) n) != (size_t) n
        || (up = upstream_take((size_t) n)) == NULL) {
        end_close(client);
        return;
    }
    client->peer = up;
    up->peer = client;
    if (write(up->fd, buffer, (size_t) n) != n)
        end_close(client);
}

static void client_writable(struct end *client)
{
    ssize_t n = write(client->fd, client->pending + client->pending_off, client->pending_len);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) {
        end_close(client);
        return;
    }
    client->pending_off += (size_t) n;
    client->pending_len -= (size_t) n;
    if (client->pending_len > 0)
        return;
    if (client->peer != NULL)
        upstream_readable(client->peer);
    else if (client->close_after)
        end_close(client);
}

static void listener_readable(struct end *listener)
{
    int fd;

    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct end *client = end_new(CLIENT, fd);

        client->close_after = listener->close_after;
        bench_nodelay(fd);
        bench_watch(ep, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, client);
    }
}

static void dispatch(struct end *e, uint32_t events)
{
    if (e->fd < 0)
        return;
    if (e->kind == LISTENER) {
        listener_readable(e);
    } else if (e->kind == UPSTREAM) {
        if (events & (EPOLLRDHUP | EPOLLHUP))
            e->ending = 1;
        upstream_readable(e);
    } else {
        if ((events & EPOLLOUT) && e->pending_len > 0)
            client_writable(e);
        if (e->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            client_readable(e);
    }
}

int main(int argc, char **argv)
{
    static struct epoll_event events[BENCH_EVENTS];

    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: relay LISTEN LISTEN-CLOSE ORIGIN [random]\n");
        return 1;
    }
    at_random = argc == 5;
    bench_setup();
    bench_address(argv[3], &origin);
    ep = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        struct end *listener = end_new(LISTENER, bench_listen(argv[1 + i]));

        listener->close_after = i;
        bench_watch(ep, listener->fd, EPOLLIN | EPOLLET, listener);
    }
    for (;;) {      /* ends by a signal */
        int n = epoll_wait(ep, events, BENCH_EVENTS, -1);

        if (n < 0 && errno != EINTR)
            bench_die("epoll_wait");
        for (int i = 0; i < n; i++)
            dispatch(events[i].data.ptr, events[i].events);
        bury();
    }
}
