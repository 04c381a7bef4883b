/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes through a pipe between two sockets: all of them, in order, and what is said when one side cannot go on. */
#include "core/event/splice.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "t/unit/tap.h"

static void on_ready(struct conn *c, unsigned ready)
{
    (void) c;
    (void) ready;
}

/* A connection; *far is the other end. */
static struct conn *pair(int *far)
{
    struct sockaddr sa = { .sa_family = AF_UNIX };
    int fds[2];
    struct conn *c;

    ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    for (unsigned i = 0; i < 2; i++)
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    *far = fds[1];
    c = conn_tcp(fds[0], &sa, sizeof(sa.sa_family));
    c->handler = on_ready;
    conn_want(c, 0);
    loop_turn(0);
    return c;
}

static void test_transfer(void)
{
    static unsigned char data[3000000], got[sizeof(data)];
    int source, sink;
    struct conn *from = pair(&source), *to = pair(&sink);
    struct splice_pipe *p = splice_borrow();
    size_t sent = 0, received = 0;
    unsigned full = 0;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char) (i * 7 + i / 251);
    ok(splice_possible(from) && splice_possible(to), "sockets can be spliced");
    while (received < sizeof(data)) {
        ssize_t n = sent < sizeof(data) ? write(source, data + sent, sizeof(data) - sent) : 0;

        if (n > 0)
            sent += (size_t) n;
        loop_turn(0);
        if (p->held == 0)
            splice_fill(p, from, SIZE_MAX);
        if (p->held > 0 && splice_empty(p, to) < 0 && errno == EAGAIN)
            full++;
        if (full > 0 || sent == sizeof(data)) {
            n = read(sink, got + received, sizeof(got) - received);
            received += n > 0 ? (size_t) n : 0;
        }
    }
    is_mem(got, data, sizeof(data), "all that was sent arrives");
    ok(full > 0, "a receiver that is full says EAGAIN");
    is_uint(from->bytes_in, sizeof(data), "counted as read");
    is_uint(to->bytes_out, sizeof(data), "counted as written");
    ok(splice_fill(p, from, 1) == -1 && errno == EAGAIN, "nothing there");
    ok(!(from->ready & CONN_READ), "and that is kept in mind");
    is_int(write(source, "abc", 3), 3, "three more bytes");
    loop_turn(0);
    is_int(splice_fill(p, from, 2), 2, "no more than asked for");
    is_int(splice_empty(p, to), 2, "go through");
    is_int(splice_fill(p, from, 2), 1, "then the last one");
    close(sink);
    loop_turn(0);
    ok(splice_empty(p, to) == -1 && errno != EAGAIN, "a receiver that is gone is an error");
    splice_return(p);
    p = splice_borrow();
    is_uint(p->held, 0, "what a pipe still held is not lent with it");
    close(source);
    loop_turn(0);
    is_int(splice_fill(p, from, 2), 0, "the end of data");
    splice_return(p);
    conn_close(from);
    conn_close(to);
}

static void test_bound(void)
{
    static struct splice_pipe *lent[1000];
    struct conn *mem[2];
    unsigned n = 0, again = 0;

    while (n < ARRAY_LEN(lent) && (lent[n] = splice_borrow()) != NULL)
        n++;
    ok(n > 0 && n < ARRAY_LEN(lent), "so many pipes are lent and no more: %u", n);
    for (unsigned i = 0; i < n; i++)
        splice_return(lent[i]);
    while (again < ARRAY_LEN(lent) && (lent[again] = splice_borrow()) != NULL)
        again++;
    is_uint(again, n, "and again");
    for (unsigned i = 0; i < again; i++)
        splice_return(lent[i]);
    splice_return(NULL);
    conn_mem_pair(mem, 100);
    ok(!splice_possible(mem[0]), "what has no descriptor is not spliced");
    conn_close(mem[0]);
    conn_close(mem[1]);
}

int main(void)
{
    is_int(loop_init(64), 0, "loop_init");
    signal(SIGPIPE, SIG_IGN);
    test_transfer();
    test_bound();
    loop_turn(0);
    splice_trim();
    loop_free();
    conn_trim();
    block_trim();
    return done_testing();
}
