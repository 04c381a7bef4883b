/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all kinds of connection share: their recycled memory, serial numbers, the end of
 * life, and sending a chain over the seven operations. The kinds (conn_tcp.c, conn_mem.c,
 * TLS in its module) supply the operations; nothing here touches a socket.
 */
#include "core/event/conn_kind.h"

#include <errno.h>
#include <unistd.h>

#include "core/base/sanitize.h"
#include "core/os/process.h"

#define SEND_IOV 64
#define SEND_COPY (32 * 1024) /* a piece of file read for a conn that cannot send files */

/*
 * Structs are carved from slabs and recycled last in, first out. Slabs stay until conn_trim
 * finds none in use.
 */
#define CONN_SLAB 64

_Static_assert(sizeof(void *) < 8 || sizeof(struct conn) % 64 == 0,
               "each conn begins with a cache line");

struct conn_slab {
    struct conn conns[CONN_SLAB]; /* first: it is aligned */
    struct conn_slab *next;
};

static struct conn_slab *slabs;
static struct conn *free_conns; /* linked by owner */
static unsigned conns_in_use;   /* not yet given back; at least conn_count */
static uint64_t own_numbers;

unsigned conn_count;
static uint64_t *numbers = &own_numbers;

uint64_t conn_next_number(void)
{
    return __atomic_add_fetch(numbers, 1, __ATOMIC_RELAXED);
}

void conn_share_numbers(void)
{
    int fd;
    uint64_t *shared = shm_create("connections", sizeof(*shared), &fd);

    if (shared == NULL)
        return;
    close(fd);
    *shared = *numbers;
    numbers = shared;
}

static struct conn *conn_alloc(void)
{
    struct conn *c;

    if (!free_conns) {
        struct conn_slab *slab = mem_alloc_line(sizeof(*slab));

        slab->next = slabs;
        slabs = slab;
        for (unsigned i = CONN_SLAB; i-- > 0;) {
            slab->conns[i].owner = free_conns;
            free_conns = &slab->conns[i];
        }
        MEM_POISON(slab->conns, sizeof(slab->conns));
    }
    c = free_conns;
    MEM_UNPOISON(c, sizeof(*c));
    free_conns = c->owner;
    conns_in_use++;
    memset(c, 0, sizeof(*c));
    return c;
}

static void conn_recycle(struct doomed *doomed)
{
    struct conn *c = container_of(doomed, struct conn, doomed);

    conns_in_use--;
    c->owner = free_conns;
    free_conns = c;
    MEM_POISON(c, sizeof(*c));
}

void conn_trim(void)
{
    if (conns_in_use > 0)
        return;
    free_conns = NULL;
    while (slabs) {
        struct conn_slab *slab = slabs;

        slabs = slab->next;
        MEM_UNPOISON(slab->conns, sizeof(slab->conns));
        free(slab);
    }
}

static void run_later(struct later *later)
{
    struct conn *c = container_of(later, struct conn, later);
    unsigned what = c->ready & c->wants;

    if (what)
        c->handler(c, what);
}

void conn_setup(struct conn *c, const struct conn_ops *ops)
{
    c->ops = ops;
    c->later.run = run_later;
    c->log = *log_main;
    c->log.conn = conn_next_number();
    conn_count++;
}

void conn_setup_over(struct conn *c, const struct conn_ops *ops, const struct conn *below)
{
    c->ops = ops;
    c->later.run = run_later;
    c->layered = true;
    c->watch.fd = -1;
    c->log = below->log;
    c->unix_peer = below->unix_peer;
    c->peer_len = below->peer_len;
    c->peer = below->peer;
}

struct conn *conn_new(const struct conn_ops *ops)
{
    struct conn *c = conn_alloc();

    conn_setup(c, ops);
    return c;
}

void conn_want_later(struct conn *c, unsigned what)
{
    ASSERT(!c->closed);
    c->wants = (unsigned char) what;
    if (c->ready & what)
        loop_later(&c->later);
}

void conn_set_ready(struct conn *c, unsigned what)
{
    if (c->closed)
        return;
    c->ready |= (unsigned char) what;
    if (c->wants & what)
        loop_later(&c->later);
}

void conn_deliver(struct conn *c, unsigned what)
{
    c->ready |= (unsigned char) what;
    what = c->ready & c->wants;
    if (!what)
        return;
    loop_later_cancel(&c->later);
    c->handler(c, what);
}

int conn_shutdown(struct conn *c)
{
    return c->ops->shutdown(c);
}

void conn_close(struct conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    c->wants = 0;
    timer_drop(&c->timer);
    loop_later_cancel(&c->later);
    c->doomed.destroy = conn_recycle; /* close may name another */
    c->ops->close(c);
    conn_count -= !c->layered;
    loop_destroy_later(&c->doomed);
}

void conn_info(const struct conn *c, struct conn_info *info)
{
    c->ops->info(c, info);
}

int conn_local_addr(const struct conn *c, struct addr *out)
{
    struct conn_info info;

    conn_info(c, &info);
    memset(out, 0, sizeof(*out));
    out->len = sizeof(out->ss);
    if (info.fd < 0) {
        errno = ENOTSOCK;
        return -1;
    }
    return getsockname(info.fd, &out->sa, &out->len);
}

/* One writev of the leading MEM pieces, at most `limit` bytes. *asked says how much that was. */
static ssize_t send_mem(struct conn *c, const struct chain *chain, uint64_t limit, bool more,
                        size_t *asked)
{
    struct iovec iov[SEND_IOV];
    size_t bytes;
    int n = chain_iov(chain, iov, SEND_IOV, &bytes);
    ssize_t sent;

    if (bytes > limit) {
        size_t excess = bytes - (size_t) limit;

        while (iov[n - 1].iov_len <= excess)
            excess -= iov[--n].iov_len;
        iov[n - 1].iov_len -= excess;
        bytes = (size_t) limit;
    }
    *asked = bytes;
    c->corked = more || (bytes < limit && bytes < chain->bytes);
    c->last = c->ends && bytes == chain->bytes;
    sent = c->ops->writev(c, iov, n);
    c->corked = c->last = false;
    return sent;
}

/* A piece of file for a conn that cannot send files: what is not taken is read again. */
static ssize_t send_copy(struct conn *c, int fd, off_t offset, size_t len, bool whole)
{
    static char buf[SEND_COPY];
    struct iovec iov = { .iov_base = buf };
    ssize_t n, sent;

    do
        n = pread(fd, buf, MIN(len, sizeof(buf)), offset);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        errno = ENODATA;
    if (n <= 0)
        return -1;
    iov.iov_len = (size_t) n;
    c->last = c->ends && whole && (size_t) n == len;
    sent = c->ops->writev(c, &iov, 1);
    c->last = false;
    return sent;
}

/* From the FILE piece in front. *asked: what would have been a full transfer. */
static ssize_t send_file(struct conn *c, const struct chain *chain, uint64_t limit, size_t *asked)
{
    const struct piece *piece = chain->first;
    uint64_t len = MIN(piece->len, limit);
    int fd = piece->file.file->fd;
    ssize_t n;

    if (c->ops->sendfile != NULL) {
        *asked = (size_t) MIN(len, (uint64_t) 0x7ffff000); /* more than Linux moves in one call */
        n = c->ops->sendfile(c, fd, piece->file.offset, *asked);
        if (n >= 0 || errno != EOPNOTSUPP)
            return n;
    }
    len = MIN(len, (uint64_t) SEND_COPY);
    n = send_copy(c, fd, piece->file.offset, (size_t) len, len == chain->bytes);
    /* Fewer bytes than fit the buffer may be all that the file had; go on unless told EAGAIN. */
    *asked = n > 0 ? (size_t) n : 1;
    return n;
}

ssize_t conn_send(struct conn *c, struct chain *chain, uint64_t limit, bool more)
{
    uint64_t left = limit ? limit : UINT64_MAX;
    uint64_t total = 0;

    while (left > 0 && (c->ready & CONN_WRITE) && chain->first) {
        const struct piece *piece = chain->first;
        size_t asked = 0;
        ssize_t n;

        if (piece->kind == PIECE_LINK)
            break;
        n = piece->kind == PIECE_FILE ? send_file(c, chain, left, &asked)
                                      : send_mem(c, chain, left, more, &asked);
        if (n < 0) {
            if (errno == EAGAIN)
                break;
            return -1;
        }
        chain_consume(chain, (uint64_t) n);
        total += (uint64_t) n;
        left -= (uint64_t) n;
        if ((size_t) n < asked && !(c->ready & CONN_WRITE))
            break;
    }
    return (ssize_t) total;
}
