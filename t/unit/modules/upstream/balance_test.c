/* SPDX-License-Identifier: BSD-2-Clause */
/* The choice among a group's servers: weights, failures, backups, limits; and addresses as written. */
#include "core/base/clock.h"
#include "modules/upstream/upstream.h"
#include "t/unit/tap.h"

static struct arena *arena;
static struct req *req;

/* n servers named a, b, c … */
static struct upstream *group(unsigned n)
{
    struct addr *addrs = ARENA_ARRAY(arena, struct addr, n);
    struct upstream *g;

    for (unsigned i = 0; i < n; i++)
        addr_parse(&addrs[i], str_printf(arena, "127.0.0.1:%u", 1000 + i), 0, false);
    g = upstream_temporary(arena, STR("group"), addrs, n);
    for (unsigned i = 0; i < n; i++)
        g->peers[i].name = str_printf(arena, "%c", 'a' + (int) (i % 26));
    return g;
}

/* The last `n` of the servers are backups. */
static void make_backups(struct upstream *g, unsigned n)
{
    g->primary = g->count - n;
    g->live -= n;
    g->live_backup = n;
}

static void set_weight(struct upstream *g, unsigned i, int64_t weight)
{
    g->peers[i].weight = weight;
    g->peers[i].state->effective_weight = weight;
}

static struct choice begin(struct upstream *g)
{
    struct choice c = { .group = g, .req = req };

    g->balancer->start(&c);
    return c;
}

/* One request that goes well. */
static char once(struct upstream *g)
{
    struct choice c = begin(g);
    char name;

    if (g->balancer->get(&c) != 0)
        return '-';
    name = c.peer->name.ptr[0];
    g->balancer->free(&c, PEER_OK);
    return name;
}

static const char *sequence(struct upstream *g, unsigned n)
{
    char *s = arena_zalloc(arena, n + 1);

    for (unsigned i = 0; i < n; i++)
        s[i] = once(g);
    return s;
}

static void test_weights(void)
{
    struct upstream *g = group(3);

    is_str(sequence(g, 6), "abcabc", "equal weights take turns");
    g = group(3);
    set_weight(g, 0, 5);
    is_str(sequence(g, 7), "aabacaa", "5, 1, 1: spread out");
    is_str(sequence(g, 7), "aabacaa", "and so on");
    g = group(2);
    g->peers[0].down = true;
    is_str(sequence(g, 3), "bbb", "a server that is down");
}

static void test_attempts(void)
{
    struct upstream *g = group(3);
    struct choice c = begin(g);

    is_uint(c.tries, 3, "as many tries as servers");
    for (unsigned i = 0; i < 3; i++) {
        is_int(g->balancer->get(&c), 0, "try %u", i + 1);
        is_int(c.peer->name.ptr[0], "abc"[i], "each server once");
        g->balancer->free(&c, PEER_NEXT);
    }
    is_uint(c.tries, 0, "no try left");
    is_int(g->balancer->get(&c), -1, "and no server");
    c = begin(g);
    g->balancer->get(&c);
    const struct peer *first = c.peer;

    g->balancer->free(&c, PEER_STALE);
    is_uint(c.tries, 3, "a dead kept-alive connection costs no try");
    is_uint(first->state->fails, 0, "and is no failure");
    is_uint(first->state->conns, 0, "connections are given back");
}

static void test_failures(void)
{
    struct upstream *g = group(2);
    struct choice c = begin(g);

    g->peers[0].fail_timeout_s = g->peers[1].fail_timeout_s = 3600;
    g->balancer->get(&c);
    g->balancer->free(&c, PEER_FAILED);
    is_str(sequence(g, 4), "bbbb", "max_fails=1: passed over after one failure");
    g->peers[0].state->checked_s -= 3601;
    g->peers[0].state->accessed_s -= 3601;
    /* Its weight was lowered and grows back, so it need not be the very next. */
    ok(strchr(sequence(g, 3), 'a') != NULL, "asked again after fail_timeout");
    is_uint(g->peers[0].state->fails, 0, "and forgiven when that went well");
    g = group(2);
    g->peers[0].max_fails = 0;
    c = begin(g);
    g->balancer->get(&c);
    g->balancer->free(&c, PEER_FAILED);
    ok(strchr(sequence(g, 4), 'a') != NULL, "max_fails=0: never taken out");
    g = group(1);
    c = begin(g);
    g->balancer->get(&c);
    g->balancer->free(&c, PEER_FAILED);
    is_int(once(g), 'a', "a single server is never taken out");
}

static void test_backups(void)
{
    struct upstream *g = group(3);
    struct choice c;

    make_backups(g, 1);
    is_str(sequence(g, 4), "abab", "a backup rests");
    c = begin(g);
    for (unsigned i = 0; i < 2; i++) {
        g->balancer->get(&c);
        g->balancer->free(&c, PEER_FAILED);
    }
    is_int(g->balancer->get(&c), 0, "all others failed");
    is_int(c.peer->name.ptr[0], 'c', "then it is asked");
    g->balancer->free(&c, PEER_OK);
    is_int(once(g), 'c', "by the next request at once");
}

static void test_limits(void)
{
    struct upstream *g = group(2);
    struct choice held = begin(g), c;

    g->peers[0].max_conns = g->peers[1].max_conns = 1;
    g->balancer->get(&held);
    is_int(once(g), 'b', "max_conns");
    c = begin(g);
    g->balancer->get(&c);
    is_int(once(g), '-', "all are busy");
    g->balancer->free(&c, PEER_OK);
    g->balancer->free(&held, PEER_OK);
    is_int(once(g) != '-', 1, "free again");
}

static void test_many(void)
{
    struct upstream *g = group(300);
    struct choice c = begin(g);
    unsigned n = 0;

    while (g->balancer->get(&c) == 0) {
        g->balancer->free(&c, PEER_NEXT);
        n++;
    }
    is_uint(n, 300, "more servers than bits at hand: each once");
}

static void test_addresses(void)
{
    struct upstream_address a;

    ok(upstream_address_parse(&a, STR("host"), 80) == NULL && a.port == 80 && !a.has_port,
       "a default port");
    ok(upstream_address_parse(&a, STR("host:81"), 80) == NULL && a.port == 81 && a.has_port,
       "a port");
    ok(upstream_address_parse(&a, STR("[::1]:81"), 80) == NULL && a.host.len == 5 && a.port == 81,
       "IPv6 with a port");
    ok(upstream_address_parse(&a, STR("[::1]"), 80) == NULL && !a.has_port, "and without");
    ok(upstream_address_parse(&a, STR("unix:/a/b"), 80) == NULL && a.is_unix, "a unix socket");
    is_str(upstream_address_parse(&a, STR("host:0"), 80), "invalid port", "port 0");
    is_str(upstream_address_parse(&a, STR("host:65536"), 80), "invalid port", "too large");
    is_str(upstream_address_parse(&a, STR("host:x"), 80), "invalid port", "no number");
    is_str(upstream_address_parse(&a, STR(":80"), 80), "no host", "no host");
    is_str(upstream_address_parse(&a, STR("[::1"), 80), "invalid host", "an open bracket");
    ok(upstream_address_parse(&a, STR("unix:"), 80) != NULL, "a unix socket without a path");
}

int main(void)
{
    static struct log_scope quiet;

    arena = arena_new();
    clock_update();
    req = ARENA_NEW(arena, struct req);
    req->arena = arena;
    req->log.scope = &quiet;
    test_weights();
    test_attempts();
    test_failures();
    test_backups();
    test_limits();
    test_many();
    test_addresses();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
