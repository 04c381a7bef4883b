/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's sockets across changes: more workers, fewer, other addresses, a failure half way, and
 * what the next binary gets. Real sockets on loopback, in this one process.
 */
#include "workers/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "t/unit/tap.h"

/* A configuration that asks for nothing but these addresses. */
static struct config *config_of(const struct addr *addrs, unsigned n)
{
    struct arena *arena = arena_new();
    struct config *config = ARENA_NEW(arena, struct config);

    config->arena = arena;
    config->resources = ARENA_NEW(arena, struct resources);
    list_init(&config->resources->listens);
    for (unsigned i = 0; i < n; i++) {
        struct res_listen *res = ARENA_NEW(arena, struct res_listen);

        res->addr = addrs[i];
        res->options = LISTEN_OPTIONS_DEFAULT;
        list_push_back(&config->resources->listens, &res->link);
    }
    return config;
}

/* Puts it into force. The result of listen_open. */
static int use(const struct addr *addrs, unsigned n, unsigned workers)
{
    struct config *config = config_of(addrs, n);
    int rc = listen_open(config, workers, false);

    if (rc == 0)
        listen_commit();
    arena_destroy(config->arena);
    return rc;
}

/* A port that was free a moment ago, below those that the system gives to others meanwhile. */
static struct addr free_addr(const char *host)
{
    static unsigned tried;
    struct sockaddr_in in = { .sin_family = AF_INET };
    char text[64];
    struct addr a;

    for (bool found = false; !found;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        in.sin_port = htons((uint16_t) (10000 + ((unsigned) getpid() * 31 + tried++) % 20000));
        found = bind(fd, (struct sockaddr *) &in, sizeof(in)) == 0;
        close(fd);
    }
    snprintf(text, sizeof(text), "%s:%u", host, ntohs(in.sin_port));
    ASSERT(addr_parse(&a, str_cstr(text), 0, true) == 0);
    return a;
}

static int connect_to(const struct addr *a)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, &a->sa, a->len)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool queued(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

/* Connects n times, and accepts all that came to each socket: counts[i]. */
static unsigned spread(const struct addr *a, const struct socket_group *g, unsigned n,
                       unsigned *counts)
{
    unsigned total = 0;
    int *fds = mem_alloc(n * sizeof(*fds));

    for (unsigned i = 0; i < n; i++)
        fds[i] = connect_to(a);
    for (unsigned i = 0; i < g->count; i++) {
        counts[i] = 0;
        while (queued(g->fds[i])) {
            close(accept(g->fds[i], NULL, NULL));
            counts[i]++;
        }
        total += counts[i];
    }
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
    free(fds);
    return total;
}

static void test_workers(void)
{
    struct addr a = free_addr("127.0.0.1");
    struct socket_group *g;
    unsigned counts[8];
    int first, waiting, fd;

    is_int(use(&a, 1, 1), 0, "one worker");
    g = listen_group(&a);
    is_uint(g->count, 1, "one socket");
    first = g->fds[0];
    is_int(use(&a, 1, 4), 0, "four workers");
    is_uint(g->count, 4, "four sockets");
    is_int(g->fds[0], first, "the first is the one there was");
    is_uint(spread(&a, g, 200, counts), 200, "200 connections came");
    ok(counts[0] && counts[1] && counts[2] && counts[3], "to all of them: %u %u %u %u", counts[0],
       counts[1], counts[2], counts[3]);

    /* One that is queued on the last socket when that becomes surplus. */
    do
        waiting = connect_to(&a);
    while (waiting >= 0 && !queued(g->fds[3]));
    is_int(use(&a, 1, 2), 0, "two workers");
    is_uint(g->count, 4, "the surplus stays open");
    is_uint(g->active, 2, "behind the active");
    fd = accept(g->fds[3], NULL, NULL);
    ok(fd >= 0, "what is queued on it is not lost");
    close(fd);
    close(waiting);
    spread(&a, g, 0, counts);
    is_uint(spread(&a, g, 200, counts), 200, "200 connections came");
    ok(counts[0] && counts[1], "to the active: %u %u", counts[0], counts[1]);
    is_uint(counts[2] + counts[3], 0, "none to the surplus");
    ok(listen_tick() > 60000 && g->count == 4, "there is time to drain it");

    is_int(use(&a, 1, 3), 0, "three workers");
    is_uint(g->count, 4, "a surplus socket is used again");
    is_uint(spread(&a, g, 300, counts), 300, "300 connections came");
    ok(counts[0] && counts[1] && counts[2] && !counts[3], "to the three");
    g->surplus_until_ms = 1;
    is_uint(listen_tick(), UINT64_MAX, "when its time is over");
    is_uint(g->count, 3, "surplus is closed");
    is_int(use(&a, 1, 5), 0, "five workers");
    is_uint(spread(&a, g, 500, counts), 500, "500 connections came");
    ok(counts[0] && counts[1] && counts[2] && counts[3] && counts[4], "to the five");
    listen_close_all(true);
}

static void test_addresses(void)
{
    struct addr two[2] = { free_addr("127.0.0.1"), free_addr("127.0.0.1") };
    struct addr busy = free_addr("127.0.0.1"), any = two[0];
    struct addr bad[3];
    int fd, other, on = 1;

    any.in.sin_addr.s_addr = 0;
    is_int(use(two, 2, 2), 0, "two addresses");
    is_int(use(two, 1, 2), 0, "one of them");
    ok(connect_to(&two[1]) < 0, "the other refuses");
    ok(listen_group(&two[1]) == NULL, "it is forgotten");

    /* Somebody of our own user, with the option that would let us share. */
    other = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    ASSERT(bind(other, &busy.sa, busy.len) == 0 && listen(other, 1) == 0);
    bad[0] = two[0];
    bad[1] = two[1];
    bad[2] = busy;
    is_int(use(bad, 3, 4), -1, "a busy port is noticed");
    is_uint(listen_group(&two[0])->count, 2, "what was there is as it was");
    ok(listen_group(&two[1]) == NULL && listen_group(&busy) == NULL, "the rest is gone");
    fd = connect_to(&two[0]);
    ok(fd >= 0, "it still listens");
    close(fd);
    close(other);
    is_int(use(bad, 3, 4), 0, "once it is free all is well");
    is_int(use(two, 1, 2), 0, "back");

    is_int(use(&any, 1, 2), 0, "one address becomes all of them, on its own port");
    fd = connect_to(&two[0]);
    ok(fd >= 0, "which listens");
    close(fd);
    listen_close_all(true);
}

/* All addresses of a port, and one of them with sockets of its own, in either order. */
static void test_overlap(void)
{
    unsigned counts[2];

    for (unsigned order = 0; order < 2; order++) {
        struct addr one = free_addr("127.0.0.1"), any = one, both[2];

        any.in.sin_addr.s_addr = 0;
        both[order] = any;
        both[!order] = one;
        is_int(use(both, 2, 2), 0, "addresses that overlap (%u)", order);
        is_uint(spread(&one, listen_group(&one), 10, counts), 10, "connections come to the closer");
        listen_close_all(true);
    }
}

static void test_testing(void)
{
    struct addr a = free_addr("127.0.0.1");
    struct config *config = config_of(&a, 1);
    int fd;

    is_int(listen_open(config, 2, true), 0, "-t of a free port");
    ok(connect_to(&a) < 0, "leaves nothing behind");
    ASSERT(use(&a, 1, 1) == 0);
    fd = dup(listen_group(&a)->fds[0]);
    listen_close_all(true);
    is_int(listen_open(config, 2, true), 0, "-t of a busy port");
    close(fd);
    arena_destroy(config->arena);
    listen_close_all(true);
}

static void test_unix(void)
{
    char dir[] = "/tmp/proxyd-listen-XXXXXX", text[64];
    const char *path = text + 5;
    struct addr a;

    ok(mkdtemp(dir) != NULL, "a directory");
    snprintf(text, sizeof(text), "unix:%s/s", dir);
    ASSERT(addr_parse(&a, str_cstr(text), 0, false) == 0);
    is_int(use(&a, 1, 3), 0, "a unix socket");
    is_uint(listen_group(&a)->count, 1, "is one for all workers");
    is_int(use(&a, 1, 1), 0, "a reload");
    ok(access(path, F_OK) == 0, "keeps its name");
    is_int(use(NULL, 0, 1), 0, "a reload without it");
    ok(access(path, F_OK) != 0, "removes it");
    is_int(use(&a, 1, 1), 0, "again");
    listen_close_all(false);
    ok(access(path, F_OK) == 0, "a name that another binary uses stays");
    unlink(path);
    rmdir(dir);
}

/* What an older binary exports is what a newer one has, in the same order. */
static void test_upgrade(void)
{
    struct addr a = free_addr("127.0.0.1");
    struct arena *arena = arena_new();
    struct socket_group *g;
    char want[64];
    int fds[3], pair[2];
    unsigned counts[3];

    ASSERT(use(&a, 1, 3) == 0);
    g = listen_group(&a);
    snprintf(want, sizeof(want), "%d;%d;%d;", g->fds[0], g->fds[1], g->fds[2]);
    is_str(listen_export(arena).ptr, want, "all sockets are exported");
    listen_cloexec(false);
    ok(!(fcntl(g->fds[1], F_GETFD) & FD_CLOEXEC), "and stay open across exec");
    for (int i = 0; i < 3; i++)
        fds[i] = dup(g->fds[i]);
    listen_close_all(false);
    ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    listen_inherit(pair[0]); /* no listening socket: refused */
    for (int i = 0; i < 3; i++)
        listen_inherit(fds[i]);
    is_int(use(&a, 1, 2), 0, "inherited, for two workers");
    g = listen_group(&a);
    is_uint(g->count, 3, "all of them");
    is_int(g->fds[0], fds[0], "in order");
    is_int(g->fds[2], fds[2], "up to the last");
    ok(fcntl(fds[1], F_GETFD) & FD_CLOEXEC, "closed by an exec again");
    is_uint(spread(&a, g, 100, counts), 100, "100 connections came");
    is_uint(counts[2], 0, "none to the surplus");
    listen_close_all(true);
    close(pair[0]);
    close(pair[1]);
    arena_destroy(arena);
}

int main(void)
{
    static struct log_scope silent = { LOG_STDERR_LEVEL, NULL };

    log_main->scope = &silent;
    clock_update();
    test_workers();
    test_addresses();
    test_overlap();
    test_testing();
    test_unix();
    test_upgrade();
    arena_trim();
    return done_testing();
}
