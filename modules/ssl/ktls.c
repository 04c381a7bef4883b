/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kTLS: a TCP socket takes the keys for writing (setsockopt), and from then on what is written to it leaves in records. That cannot be taken
 * back, and before Linux 6.14 no other keys can follow. Reading stays with the library.
 */
#include "modules/ssl/ktls.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#define TCP_STATE_CLOSE 7

/* What has failed once and would fail with the next socket, too. */
static bool absent;
static bool refused[SEAL_KINDS][2]; /* by cipher; TLS 1.3 */

static void say_why(const struct logger *log, int err, const char *what)
{
    log_notice(log, err, "kTLS is not used: %s failed%s", what,
               err == ENOENT ? ", is the kernel's module \"tls\" loaded?" : "");
}

void ktls_prepare(const struct logger *log)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    if (fd < 0)
        return;
    err = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 ? 0 : errno;
    close(fd);
    /* It wants a socket that is connected, which it says after it has looked for the module. */
    absent = err != 0 && err != ENOTCONN;
    if (absent)
        say_why(log, err, "setsockopt(TCP_ULP, \"tls\")");
}

/* That this socket could not is no sign for others. */
static bool is_passing(int err)
{
    return err == ENOTCONN || err == ENOMEM || err == ENOBUFS;
}

/* Bytes that TCP has been given. False: it cannot be said. */
static bool tcp_given(int fd, struct tcp_info *info, uint64_t *given, bool *idle)
{
    socklen_t len;
    uint64_t acked;
    int queued;

    /* Two questions: between them some of the queue may have been confirmed. */
    for (int i = 0; i < 8; i++) {
        len = sizeof(*info);
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) != 0 ||
            len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info->tcpi_bytes_acked))
            return false;
        if (i > 0 && acked == info->tcpi_bytes_acked)
            break;
        acked = info->tcpi_bytes_acked;
        if (ioctl(fd, SIOCOUTQ, &queued) != 0)
            return false;
    }
    *given = acked + (uint64_t) queued;
    *idle = queued == 0;
    return true;
}

bool ktls_give(struct ktls *k, int fd, const struct seal *s, const struct logger *log)
{
    struct seal_info info;
    struct tcp_info tcp;
    size_t len = seal_give(s, &info);
    uint64_t given;
    bool idle, given_up = false;

    if (absent || refused[s->kind][s->tls13] || !tcp_given(fd, &tcp, &given, &idle))
        return false;
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) != 0 && errno != EEXIST) {
        absent = !is_passing(errno);
        if (absent)
            say_why(log, errno, "setsockopt(TCP_ULP, \"tls\")");
        given_up = true;
    } else if (setsockopt(fd, SOL_TLS, TLS_TX, &info, (socklen_t) len) != 0) {
        refused[s->kind][s->tls13] = !is_passing(errno);
        if (!is_passing(errno))
            log_notice(log, errno,
                       "kTLS is not used with %s of TLS 1.%d: setsockopt(TLS_TX) failed",
                       seal_name(s), s->tls13 ? 3 : 2);
        given_up = true;
    }
    explicit_bzero(&info, sizeof(info));
    if (given_up)
        return false;
    k->extra = seal_extra(s);
    k->info_len = (uint8_t) len;
    k->sum = given - s->sequence * k->extra;
    return true;
}

ssize_t ktls_say(struct ktls *k, int fd, uint8_t type, const void *ptr, size_t len)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(type))];
    } control = { .header = { .cmsg_level = SOL_TLS,
                              .cmsg_type = TLS_SET_RECORD_TYPE,
                              .cmsg_len = CMSG_LEN(sizeof(type)) } };
    struct iovec iov = { .iov_base = (void *) ptr, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = &control,
                          .msg_controllen = CMSG_LEN(sizeof(type)) };
    ssize_t n;

    *CMSG_DATA(&control.header) = type;
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        k->sum += (uint64_t) n;
    return n;
}

struct ktls_progress ktls_progress(const struct ktls *k, int fd)
{
    struct ktls_progress p = { .done = true };
    struct seal_info info;
    struct tcp_info tcp;
    socklen_t len = k->info_len;
    uint64_t given;

    if (!tcp_given(fd, &tcp, &given, &p.idle) || tcp.tcpi_state == TCP_STATE_CLOSE ||
        getsockopt(fd, SOL_TLS, TLS_TX, &info, &len) != 0)
        return p;
    p.acked = tcp.tcpi_bytes_acked;
    p.done = given == k->sum + seal_sequence_of(&info) * k->extra;
    explicit_bzero(&info, sizeof(info));
    return p;
}
