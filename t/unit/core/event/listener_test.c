/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening sockets: bursts, pauses by the owner, pauses for want of descriptors. */
#include "core/event/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "t/unit/tap.h"

#define CLIENTS 6

static unsigned accepted;
static struct conn *conns[64];
static unsigned errors_logged;

static void on_accept(struct listener *l UNUSED, struct conn *c)
{
    conns[accepted++] = c;
}

static void count_line(struct log_file *file UNUSED, enum log_level level, const char *line UNUSED,
                       size_t len UNUSED)
{
    errors_logged += level == LOG_CRIT_LEVEL;
}

static struct log_file log_file = { .fd = -1, .write = count_line };
static struct log_target log_target = { .level = LOG_CRIT_LEVEL, .file = &log_file };
static struct log_scope log_scope = { .max = LOG_CRIT_LEVEL, .targets = &log_target };
static struct logger logger = { .scope = &log_scope };

static struct sockaddr_in address = { .sin_family = AF_INET };

static int listening(void)
{
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT(bind(fd, (struct sockaddr *) &address, len) == 0 && listen(fd, 16) == 0);
    getsockname(fd, (struct sockaddr *) &address, &len);
    return fd;
}

static int client(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ASSERT(connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0);
    return fd;
}

static void close_all(int fds[CLIENTS])
{
    for (unsigned i = 0; i < accepted; i++)
        conn_close(conns[i]);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    accepted = 0;
    loop_turn(0);
}

static void test_accept(struct listener *l, int fd)
{
    int fds[CLIENTS];
    struct addr local, peer = { .len = sizeof(peer.in) };

    l->burst = 1;
    is_int(listener_start(l, fd), 0, "listener_start");
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client();
    loop_turn(1000);
    is_uint(accepted, 1, "one at a time");
    loop_turn(1000);
    is_uint(accepted, 2, "each turn, without a new event");
    listener_pause(l);
    loop_turn(0);
    is_uint(accepted, 2, "none while paused");
    l->burst = UINT32_MAX;
    listener_resume(l);
    loop_turn(1000);
    is_uint(accepted, CLIENTS, "all at once with a burst without end");
    ok(conns[0]->ready == CONN_WRITE && conns[0]->log.conn > 0, "a fresh connection");
    ok(conns[1]->log.conn > conns[0]->log.conn, "numbers rise");
    is_int(conn_local_addr(conns[0], &local), 0, "its local address");
    is_uint(addr_port(&local), ntohs(address.sin_port), "is the listener's");
    peer.in = conns[0]->peer.in;
    ok(conns[0]->peer_len == sizeof(peer.in) && addr_port(&peer) != 0, "the peer's is known");
    close_all(fds);
    listener_stop(l);
    fds[0] = client();
    loop_turn(0);
    is_uint(accepted, 0, "none after the stop");
    is_int(listener_start(l, fd), 0, "but it can be started again");
    loop_turn(1000);
    is_uint(accepted, 1, "and finds what was queued");
    conn_close(conns[0]);
    close(fds[0]);
    accepted = 0;
    loop_turn(0);
}

static void test_starved(struct listener *l)
{
    struct rlimit before, none;
    int fds[CLIENTS];
    uint64_t start;

    for (int i = 0; i < CLIENTS; i++)
        fds[i] = client();
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = (rlim_t) fds[CLIENTS - 1] + 1;
    setrlimit(RLIMIT_NOFILE, &none);
    loop_turn(1000);
    start = clock_ms();
    setrlimit(RLIMIT_NOFILE, &before);
    is_uint(accepted, 0, "no descriptors, no connections");
    is_uint(errors_logged, 1, "logged at crit");
    ok(l->starved && timer_active(&l->timer), "paused");
    ok(timer_next_ms() > 0 && timer_next_ms() <= 500, "for half a second");
    setrlimit(RLIMIT_NOFILE, &none);
    while (clock_ms() < start + 600)
        loop_turn(100);
    is_uint(errors_logged, 1, "a second time in a row is not logged");
    setrlimit(RLIMIT_NOFILE, &before);
    listener_pause(l);
    while (l->starved)
        loop_turn(1000);
    loop_turn(0);
    is_uint(accepted, 0, "the end of the pause does not override the owner's");
    listener_resume(l);
    loop_turn(1000);
    is_uint(accepted, CLIENTS, "then all are accepted");
    close_all(fds);
}

int main(void)
{
    struct listener l = { .accept = on_accept };
    int fd;

    log_main = &logger;
    loop_init(64);
    fd = listening();
    test_accept(&l, fd);
    test_starved(&l);
    listener_stop(&l);
    close(fd);
    loop_free();
    conn_trim();
    return done_testing();
}
