/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections over socket pairs, loopback TCP and memory: readiness, ends, resets, sending chains.
 */
#include "core/event/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "t/unit/tap.h"

/* What a handler saw, and what it is to do. */
struct seen {
    unsigned calls;
    unsigned bits; /* all that were ever ready */
    bool drain;    /* read everything */
    bool close;
    uint64_t got;
    bool end;
    int error;
    unsigned char next; /* the expected value of the next byte of the pattern */
    bool corrupt;
};

static void drain(struct conn *c, struct seen *s)
{
    static unsigned char buf[100000];

    for (;;) {
        ssize_t n = conn_read(c, buf, sizeof(buf));

        if (n <= 0) {
            s->end = n == 0;
            s->error = n < 0 ? errno : 0;
            return;
        }
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != s->next++)
                s->corrupt = true;
        s->got += (uint64_t) n;
    }
}

static void on_ready(struct conn *c, unsigned ready)
{
    struct seen *s = c->owner;

    s->calls++;
    s->bits |= ready;
    if (s->drain && (ready & CONN_READ))
        drain(c, s);
    if (s->close)
        conn_close(c);
}

static struct conn *attach(struct conn *c, struct seen *s)
{
    *s = (struct seen){ 0 };
    c->handler = on_ready;
    c->owner = s;
    return c;
}

static struct conn *over(int fd, struct seen *s)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);

    memset(&peer, 0, sizeof(peer));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    getpeername(fd, (struct sockaddr *) &peer, &len);
    return attach(conn_tcp(fd, (struct sockaddr *) &peer, len), s);
}

static void unix_pair(int fds[2])
{
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
}

static void tcp_pair(int fds[2])
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM, 0);

    ASSERT(bind(l, (struct sockaddr *) &a, len) == 0 && listen(l, 1) == 0);
    getsockname(l, (struct sockaddr *) &a, &len);
    fds[1] = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT(connect(fds[1], (struct sockaddr *) &a, len) == 0);
    fds[0] = accept(l, NULL, NULL);
    ASSERT(fds[0] >= 0);
    close(l);
}

/* Until cond, or long enough for it to be a failure. */
#define RUN_UNTIL(cond) \
    do { \
        for (int turns_ = 0; !(cond) && turns_ < 5000; turns_++) \
            loop_turn(2); \
    } while (0)

static void test_readiness(void (*pair)(int fds[2]), const char *kind)
{
    struct seen s;
    struct conn_info info;
    char buf[64];
    int fds[2];
    struct conn *c;

    pair(fds);
    c = over(fds[0], &s);
    conn_info(c, &info);
    is_str(info.kind, kind, "%s: kind", kind);
    ok(c->ready == 0 && conn_read(c, buf, 1) == -1 && errno == EAGAIN, "nothing is ready unasked");
    conn_want(c, CONN_READ);
    loop_turn(0);
    is_uint(s.calls, 0, "no call for what is not wanted");
    ok(c->ready & CONN_WRITE, "but it is noted");
    ok(write(fds[1], "hello world", 11) == 11, "the peer writes");
    RUN_UNTIL(s.calls);
    is_uint(s.bits, CONN_READ, "readable");
    is_int(conn_read(c, buf, 5), 5, "a full read");
    ok(c->ready & CONN_READ, "leaves it readable");
    s.calls = 0;
    loop_turn(0);
    is_uint(s.calls, 0, "what is left is not told twice");
    conn_want(c, CONN_READ);
    is_uint(s.calls, 0, "nor from inside conn_want");
    loop_turn(UINT64_MAX);
    is_uint(s.calls, 1, "but when asked for again, by the end of the turn");
    is_int(conn_read(c, buf, sizeof(buf)), 6, "a short read");
    ok(!(c->ready & CONN_READ), "means drained");
    ok(c->bytes_in == 11, "counted");
    conn_want(c, CONN_WRITE);
    conn_want(c, 0);
    s.calls = 0;
    loop_turn(0);
    is_uint(s.calls, 0, "a wish withdrawn in time is not fulfilled");
    conn_close(c);
    is_int(read(fds[1], buf, 1), 0, "closed at once");
    ok(c->closed, "the memory is there until the turn is over");
    close(fds[1]);
    loop_turn(0);
}

static void test_data_and_end(void)
{
    struct seen s;
    char buf[64];
    int fds[2];
    struct conn *c;

    tcp_pair(fds);
    c = over(fds[0], &s);
    loop_turn(0);
    ok(write(fds[1], "bye", 3) == 3 && shutdown(fds[1], SHUT_WR) == 0, "data and FIN in one event");
    conn_want(c, CONN_READ);
    RUN_UNTIL(s.calls && (c->ready & CONN_HUP));
    is_int(conn_read(c, buf, sizeof(buf)), 3, "the data");
    ok(c->ready & CONN_READ, "a short read does not hide the end");
    is_int(conn_read(c, buf, sizeof(buf)), 0, "the end");
    is_int(conn_read(c, buf, sizeof(buf)), 0, "which stays");
    is_int(conn_writev(c, &(struct iovec){ (char *) "still here", 10 }, 1), 10,
           "half closed: the other way is open");
    is_int(read(fds[1], buf, sizeof(buf)), 10, "and arrives");
    is_int(conn_shutdown(c), 0, "shutdown");
    is_int(read(fds[1], buf, sizeof(buf)), 0, "ends it");
    conn_close(c);
    close(fds[1]);
    loop_turn(0);
}

static void test_hup_without_read(void)
{
    struct seen s;
    int fds[2];
    struct conn *c;

    tcp_pair(fds);
    c = over(fds[0], &s);
    conn_want(c, CONN_HUP);
    ok(write(fds[1], "x", 1) == 1, "data");
    RUN_UNTIL(c->ready & CONN_READ);
    is_uint(s.calls, 0, "is not what was wanted");
    shutdown(fds[1], SHUT_WR);
    RUN_UNTIL(s.calls);
    is_uint(s.bits, CONN_HUP, "the peer's FIN is seen with the data unread");
    conn_close(c);
    close(fds[1]);
    loop_turn(0);
}

static void test_reset(void)
{
    struct seen s, t;
    int fds[2];
    struct conn *c, *d;
    char buf[8];

    tcp_pair(fds);
    c = over(fds[0], &s);
    d = over(fds[1], &t);
    conn_want(c, CONN_READ | CONN_HUP);
    d->reset_on_close = true;
    conn_close(d);
    RUN_UNTIL(s.bits & CONN_HUP);
    is_uint(s.bits, CONN_READ | CONN_HUP, "RST makes it readable and hung up");
    ok(conn_read(c, buf, 1) == -1 && errno == ECONNRESET, "the read tells why");
    ok(conn_writev(c, &(struct iovec){ buf, 1 }, 1) == -1 && errno != EAGAIN,
       "no SIGPIPE on write");
    ok(c->ready & CONN_READ, "an error stays ready");
    conn_close(c);
    loop_turn(0);
}

static void test_refused(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM, 0), fd;
    struct addr to = { .len = sizeof(a) };
    bool connected;
    struct seen s;
    struct conn *c;

    ASSERT(bind(l, (struct sockaddr *) &a, len) == 0); /* bound, not listening: refuses */
    getsockname(l, (struct sockaddr *) &a, &len);
    to.in = a;
    fd = socket_connect(&to, NULL, &connected);
    if (fd < 0) {
        is_int(errno, ECONNREFUSED, "refused at once");
    } else {
        c = over(fd, &s);
        conn_want(c, CONN_WRITE);
        RUN_UNTIL(s.calls);
        ok(s.bits & CONN_WRITE, "a failed connect is told as CONN_WRITE");
        is_int(socket_error(fd), ECONNREFUSED, "and socket_error says what it was");
        conn_close(c);
    }
    close(l);
    loop_turn(0);
}

static int pattern_file(size_t len, unsigned char first)
{
    char name[] = "/tmp/conn_testXXXXXX";
    int fd = mkstemp(name);
    char *bytes = mem_alloc(len);

    unlink(name);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char) (unsigned char) (first + i);
    ASSERT(write(fd, bytes, len) == (ssize_t) len);
    free(bytes);
    return fd;
}

/* A chain of the pattern 0, 1 … 255, 0 …, in MEM pieces of all sizes and FILE ranges. */
static uint64_t build(struct chain *chain, uint64_t total)
{
    int fd = pattern_file(1 << 20, 0);
    struct chain_file *file = chain_file_new(fd);
    static char bytes[70000];
    uint64_t at = 0, seed = 99;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char) (unsigned char) i;
    while (at < total) {
        uint64_t len;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        switch ((seed >> 40) % 4) {
        case 0:
            len = MIN((seed >> 33) % 300000 + 1, total - at);
            chain_push_file(chain, file, (off_t) (at % 256), len);
            break;
        case 1: {
            struct block *b = block_new(60000);

            len = MIN((seed >> 33) % 60000 + 1, total - at);
            memcpy(b->data, bytes + at % 256, len);
            chain_push_mem(chain, b, b->data, len);
            block_unref(b);
            break;
        }
        default: /* runs of small ones, more than one writev takes */
            len = 0;
            for (int i = 0; i < 100 && at + len < total; i++) {
                chain_push_str(chain, str_from(bytes + (at + len) % 256, 1));
                len++;
            }
        }
        at += len;
    }
    chain_file_unref(file);
    return at;
}

/* Sends total bytes from a to b, in portions of `limit`. */
static void send_through(struct conn *a, struct conn *b, uint64_t total, uint64_t limit,
                         const char *what)
{
    struct seen *s = b->owner;
    struct seen *sa = a->owner;
    struct chain chain = CHAIN_INIT;
    uint64_t before = a->bytes_out;
    int stuck = 0, error = 0, over_limit = 0;

    build(&chain, total);
    *s = (struct seen){ .drain = true };
    conn_want(b, CONN_READ);
    conn_want(a, CONN_WRITE);
    while (!chain_empty(&chain) && !error && stuck < 2000) {
        unsigned calls = sa->calls;
        ssize_t n = conn_send(a, &chain, limit, false);

        error = n < 0;
        over_limit += limit && n > (ssize_t) limit;
        if (n == 0)
            stuck++;
        if (limit || (a->ready & CONN_WRITE))
            loop_turn(0);
        else
            for (int i = 0; i < 200 && sa->calls == calls; i++)
                loop_turn(5);
    }
    RUN_UNTIL(s->got >= total);
    is_uint(s->got, total, "%s: every byte arrived", what);
    ok(!s->corrupt && !error && !over_limit, "%s: in order, within the limit", what);
    is_uint(a->bytes_out - before, total, "%s: counted", what);
    ok(stuck < 2000, "%s: never stuck", what);
    chain_clear(&chain);
}

static void test_send(void)
{
    struct seen s, t;
    struct conn *a, *b, *ends[2];
    int fds[2];

    tcp_pair(fds);
    a = over(fds[0], &s);
    b = over(fds[1], &t);
    send_through(a, b, 30 * 1000 * 1000, 0, "tcp");
    send_through(a, b, 256 * 1000, 1024, "tcp, limited");
    conn_close(a);
    conn_close(b);
    unix_pair(fds);
    a = over(fds[0], &s);
    b = over(fds[1], &t);
    send_through(a, b, 5 * 1000 * 1000, 0, "unix");
    conn_close(a);
    conn_close(b);
    conn_mem_pair(ends, 5000);
    attach(ends[0], &s);
    attach(ends[1], &t);
    send_through(ends[0], ends[1], 2 * 1000 * 1000, 0, "mem");
    conn_close(ends[0]);
    conn_close(ends[1]);
    loop_turn(0);
}

static void test_truncated_file(void)
{
    struct seen s, t;
    struct conn *ends[2];
    int fds[2];

    for (int mem = 0; mem < 2; mem++) {
        struct chain chain = CHAIN_INIT;
        struct chain_file *file = chain_file_new(pattern_file(1000, 0));
        ssize_t n;

        if (mem) {
            conn_mem_pair(ends, 5000);
            attach(ends[0], &s);
            attach(ends[1], &t);
        } else {
            tcp_pair(fds);
            ends[0] = over(fds[0], &s);
            ends[1] = over(fds[1], &t);
        }
        loop_turn(0);
        chain_push_file(&chain, file, 0, 2000);
        chain_file_unref(file);
        n = conn_send(ends[0], &chain, 0, false);
        ok(n == -1 && errno == ENODATA, "%s: a file that has been cut is an error, not a wait",
           mem ? "mem" : "tcp");
        is_uint(ends[0]->bytes_out, 1000, "after the bytes that were there");
        chain_clear(&chain);
        conn_close(ends[0]);
        conn_close(ends[1]);
        loop_turn(0);
    }
}

static void test_link_stops(void)
{
    struct chain chain = CHAIN_INIT, inner = CHAIN_INIT;
    struct conn *ends[2];
    struct seen s, t;

    conn_mem_pair(ends, 100);
    attach(ends[0], &s);
    attach(ends[1], &t);
    chain_push_str(&chain, STR("before"));
    chain_push_link(&chain, &inner);
    chain_push_str(&chain, STR("after"));
    is_int(conn_send(ends[0], &chain, 0, false), 6, "sending stops at a LINK");
    is_int(conn_send(ends[0], &chain, 0, false), 0, "and waits there");
    chain_clear(&chain);
    conn_close(ends[0]);
    conn_close(ends[1]);
    loop_turn(0);
}

/* A head in memory and a file behind it fill packets together: MSG_MORE. */
static void test_more(void)
{
    struct chain chain = CHAIN_INIT;
    struct seen s, t;
    struct conn *a, *b;
    int fds[2], before = -1, after = -1;

    tcp_pair(fds);
    a = over(fds[0], &s);
    b = over(fds[1], &t);
    loop_turn(0);
    chain_push_str(&chain, STR("head"));
    is_int(conn_send(a, &chain, 0, true), 4, "sent with more to come");
    loop_turn(0);
    ioctl(fds[1], FIONREAD, &before);
    chain_push_str(&chain, STR("tail"));
    conn_send(a, &chain, 0, false);
    for (int i = 0; i < 1000 && after != 8; i++) {
        loop_turn(1);
        ioctl(fds[1], FIONREAD, &after);
    }
    is_int(before, 0, "is held back by the system");
    is_int(after, 8, "until the rest comes");
    conn_close(a);
    conn_close(b);
    loop_turn(0);
}

static void test_mem_ends(void)
{
    struct conn *ends[2];
    struct seen s, t;
    char buf[32];

    conn_mem_pair(ends, 10);
    attach(ends[0], &s);
    attach(ends[1], &t);
    conn_want(ends[1], CONN_READ);
    is_int(conn_writev(ends[0], &(struct iovec){ (char *) "0123456789abc", 13 }, 1), 10,
           "mem: a short write at the capacity");
    ok(conn_writev(ends[0], &(struct iovec){ buf, 1 }, 1) == -1 && errno == EAGAIN, "then EAGAIN");
    is_uint(t.calls, 0, "the reader is called from the loop only");
    conn_want(ends[0], CONN_WRITE);
    loop_turn(UINT64_MAX);
    is_uint(t.bits, CONN_READ, "readable");
    is_int(conn_read(ends[1], buf, 4), 4, "reading makes room");
    loop_turn(UINT64_MAX);
    is_uint(s.bits, CONN_WRITE, "which the writer is told");
    is_int(conn_writev(ends[0], &(struct iovec){ (char *) "ABCD", 4 }, 1), 4, "the ring wraps");
    conn_shutdown(ends[0]);
    is_int(conn_read(ends[1], buf, sizeof(buf)), 10, "all of it");
    is_mem(buf, "456789ABCD", 10, "in order");
    is_int(conn_read(ends[1], buf, sizeof(buf)), 0, "then the end");
    conn_want(ends[1], CONN_HUP);
    t.close = true;
    loop_turn(UINT64_MAX);
    is_uint(t.bits & CONN_HUP, CONN_HUP, "hung up; closed by its own handler");
    ok(conn_writev(ends[0], &(struct iovec){ buf, 1 }, 1) == -1 && errno == EPIPE, "nobody there");
    conn_close(ends[0]);
    loop_turn(0);
}

static void test_recycling(void)
{
    struct conn *c, *first = NULL;
    struct seen s;
    uint64_t allocations = 0;
    unsigned count = conn_count;
    bool same = true;

    for (int i = 0; i < 20; i++) {
        int fds[2];

        unix_pair(fds);
        c = over(fds[0], &s);
        if (i == 0)
            first = c;
        if (i == 1)
            allocations = mem_allocations;
        same = same && c == first && c->bytes_in == 0 && c->ready == 0;
        timer_set(&c->timer, 100);
        conn_want(c, CONN_READ | CONN_WRITE);
        c->bytes_in = 7;
        conn_close(c);
        conn_close(c);
        close(fds[1]);
        loop_turn(0);
    }
    ok(same, "the memory last given back is used first, zeroed");
    is_uint(mem_allocations, allocations, "without an allocation once warm");
    is_uint(conn_count, count, "conn_count is back");
    ok(timer_next_ms() == UINT64_MAX, "timers are gone with their connections");
    ok(sizeof(struct conn) <= 192, "a conn has %zu bytes", sizeof(struct conn));
}

static void test_epoll_refuses(void)
{
    int fd = pattern_file(10, 0);
    unsigned count = conn_count;
    struct sockaddr sa = { .sa_family = AF_UNIX };

    ok(conn_tcp(fd, &sa, sizeof(sa)) == NULL && errno == EPERM,
       "what epoll does not take is no conn");
    ok(fcntl(fd, F_GETFD) >= 0 && conn_count == count, "and the descriptor stays the caller's");
    close(fd);
    loop_turn(0);
}

int main(void)
{
    is_int(loop_init(64), 0, "loop_init");
    test_readiness(unix_pair, "unix");
    test_readiness(tcp_pair, "tcp");
    test_data_and_end();
    test_hup_without_read();
    test_reset();
    test_refused();
    test_send();
    test_truncated_file();
    test_link_stops();
    test_more();
    test_mem_ends();
    test_recycling();
    test_epoll_refuses();
    is_uint(conn_count, 0, "nothing is left open");
    loop_free();
    conn_trim();
    block_trim();
    return done_testing();
}
