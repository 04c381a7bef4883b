/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two connections that are each other's peer, in memory: what one writes into the other's buffer
 * the other reads. For tests of everything that works over a conn. They behave as sockets do:
 * short writes, end of data after shutdown, a reset when closed with reset_on_close.
 */
#include "core/event/conn_kind.h"

#include <errno.h>

struct mem_end {
    struct conn conn;
    struct mem_end *peer; /* NULL once closed */
    size_t capacity;
    size_t head; /* first unread byte in buf */
    size_t held; /* unread bytes */
    bool ended;  /* the peer will write no more */
    bool reset;
    bool shut;   /* no more writing from here */
    char buf[];  /* what the peer wrote: a ring */
};

static struct mem_end *mem_end(struct conn *c)
{
    return container_of(c, struct mem_end, conn);
}

static int fail(int err)
{
    errno = err;
    return -1;
}

static ssize_t mem_read(struct conn *c, void *buf, size_t len)
{
    struct mem_end *e = mem_end(c);
    size_t n = MIN(len, e->held);
    size_t run = MIN(n, e->capacity - e->head);

    if (n == 0 && e->reset)
        return fail(ECONNRESET);
    if (n == 0 && !e->ended) {
        c->ready &= (unsigned char) ~CONN_READ;
        return fail(EAGAIN);
    }
    if (n > 0) {
        memcpy(buf, e->buf + e->head, run);
        memcpy((char *) buf + run, e->buf, n - run);
    }
    e->head = (e->head + n) % e->capacity;
    e->held -= n;
    c->bytes_in += n;
    if (n < len && !e->ended)
        c->ready &= (unsigned char) ~CONN_READ;
    if (n > 0 && e->peer && !(e->peer->conn.ready & CONN_WRITE))
        conn_set_ready(&e->peer->conn, CONN_WRITE);
    return (ssize_t) n;
}

static size_t mem_put(struct mem_end *e, const char *ptr, size_t len)
{
    size_t tail = (e->head + e->held) % e->capacity;
    size_t n = MIN(len, e->capacity - e->held);
    size_t run = MIN(n, e->capacity - tail);

    if (n == 0)
        return 0;
    memcpy(e->buf + tail, ptr, run);
    memcpy(e->buf, ptr + run, n - run);
    e->held += n;
    return n;
}

static ssize_t mem_writev(struct conn *c, const struct iovec *iov, int n)
{
    struct mem_end *e = mem_end(c);
    size_t asked = 0, sent = 0;

    if (e->reset)
        return fail(ECONNRESET);
    if (e->shut || !e->peer)
        return fail(EPIPE);
    for (int i = 0; i < n; i++) {
        sent += mem_put(e->peer, iov[i].iov_base, iov[i].iov_len);
        asked += iov[i].iov_len;
    }
    if (sent < asked)
        c->ready &= (unsigned char) ~CONN_WRITE;
    if (sent == 0 && asked > 0)
        return fail(EAGAIN);
    c->bytes_out += sent;
    conn_set_ready(&e->peer->conn, CONN_READ);
    return (ssize_t) sent;
}

static int mem_shutdown(struct conn *c)
{
    struct mem_end *e = mem_end(c);

    e->shut = true;
    if (e->peer) {
        e->peer->ended = true;
        conn_set_ready(&e->peer->conn, CONN_READ | CONN_HUP);
    }
    return 0;
}

static void mem_destroy(struct doomed *doomed)
{
    free(mem_end(container_of(doomed, struct conn, doomed)));
}

static void mem_close(struct conn *c)
{
    struct mem_end *e = mem_end(c);
    struct mem_end *peer = e->peer;

    c->doomed.destroy = mem_destroy;
    if (!peer)
        return;
    peer->peer = NULL;
    peer->ended = true;
    peer->reset = c->reset_on_close || e->held > 0; /* as TCP does with unread data */
    conn_set_ready(&peer->conn, CONN_READ | CONN_WRITE | CONN_HUP);
}

static void mem_info(const struct conn *c UNUSED, struct conn_info *info)
{
    info->kind = "mem";
    info->fd = -1;
    info->plain = false;
}

static const struct conn_ops mem_ops = {
    .kind = "mem",
    .read = mem_read,
    .writev = mem_writev,
    .want = conn_want_later,
    .shutdown = mem_shutdown,
    .close = mem_close,
    .info = mem_info,
};

static struct mem_end *mem_new(size_t capacity)
{
    struct mem_end *e = mem_zalloc(sizeof(*e) + capacity);

    conn_setup(&e->conn, &mem_ops);
    e->conn.watch.fd = -1;
    e->conn.unix_peer = true;
    e->conn.peer.sa.sa_family = AF_UNIX;
    e->conn.peer_len = sizeof(e->conn.peer.sa.sa_family);
    e->conn.ready = CONN_WRITE;
    e->capacity = capacity;
    return e;
}

void conn_mem_pair(struct conn *ends[2], size_t capacity)
{
    struct mem_end *a, *b;

    ASSERT(capacity > 0);
    a = mem_new(capacity);
    b = mem_new(capacity);
    a->peer = b;
    b->peer = a;
    ends[0] = &a->conn;
    ends[1] = &b->conn;
}
