/* SPDX-License-Identifier: BSD-2-Clause */
/* The choice among a group's servers: weights, failures, backups, limits; and addresses as written. */
#include "core/base/clock.h"
#include "modules/upstream/internal.h"
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
        g->peers[i]->name = str_printf(arena, "%c", 'a' + (int) (i % 26));
    return g;
}

/* The last `n` of the servers are backups. */
static void make_backups(struct upstream *g, unsigned n)
{
    for (unsigned i = g->count - n; i < g->count; i++) {
        g->view.state[i] |= PEER_BACKUP;
        g->view.set->primary_live--;
        g->view.set->backup_live++;
        g->view.set->weight -= g->view.weight[i];
    }
}

static void set_weight(struct upstream *g, unsigned i, int32_t weight)
{
    g->view.set->weight += weight - g->view.weight[i];
    g->view.set->uniform = false;
    g->view.weight[i] = g->view.effective[i] = weight;
}

static struct choice begin(struct upstream *g)
{
    struct choice c;

    choice_start(&c, g, req);
    return c;
}

/* One request that goes well. */
static char once(struct upstream *g)
{
    struct choice c = begin(g);
    char name;

    if (choice_next(&c) != 0)
        return '-';
    name = c.peer->name.ptr[0];
    choice_end(&c, PEER_OK, -1);
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
    g->view.state[0] |= PEER_DOWN;
    is_str(sequence(g, 3), "bbb", "a server that is down");
}

static void test_attempts(void)
{
    struct upstream *g = group(3);
    struct choice c = begin(g);

    is_uint(c.tries, 3, "as many tries as servers");
    for (unsigned i = 0; i < 3; i++) {
        is_int(choice_next(&c), 0, "try %u", i + 1);
        is_int(c.peer->name.ptr[0], "abc"[i], "each server once");
        choice_end(&c, PEER_NEXT, -1);
    }
    is_uint(c.tries, 0, "no try left");
    is_int(choice_next(&c), -1, "and no server");
    c = begin(g);
    choice_next(&c);
    const struct peer *first = c.peer;

    choice_end(&c, PEER_STALE, -1);
    is_uint(c.tries, 3, "a dead kept-alive connection costs no try");
    is_uint(g->view.records[first->index].fails, 0, "and is no failure");
    is_uint(g->view.conns[first->index], 0, "connections are given back");
}

static void test_failures(void)
{
    struct upstream *g = group(2);
    struct choice c = begin(g);

    g->view.records[0].fail_timeout_s = g->view.records[1].fail_timeout_s = 5;
    choice_next(&c);
    choice_end(&c, PEER_FAILED, -1);
    is_str(sequence(g, 4), "bbbb", "max_fails=1: passed over after one failure");
    g->view.records[0].checked_s -= 6;
    g->view.records[0].accessed_s -= 6;
    g->view.set->looked_s = 0;
    /* Its weight was lowered and grows back, so it need not be the very next. */
    ok(strchr(sequence(g, 3), 'a') != NULL, "asked again after fail_timeout");
    is_uint(g->view.records[0].fails, 0, "and forgiven when that went well");
    g = group(2);
    g->view.records[0].max_fails = 0;
    c = begin(g);
    choice_next(&c);
    choice_end(&c, PEER_FAILED, -1);
    ok(strchr(sequence(g, 4), 'a') != NULL, "max_fails=0: never taken out");
    g = group(1);
    c = begin(g);
    choice_next(&c);
    choice_end(&c, PEER_FAILED, -1);
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
        choice_next(&c);
        choice_end(&c, PEER_FAILED, -1);
    }
    is_int(choice_next(&c), 0, "all others failed");
    is_int(c.peer->name.ptr[0], 'c', "then it is asked");
    choice_end(&c, PEER_OK, -1);
    is_int(once(g), 'c', "by the next request at once");
    g = group(4);
    g->balancer = &balancer_least_conn;
    make_backups(g, 2);
    g->view.state[0] = g->view.state[1] = PEER_DOWN;
    c = begin(g);
    choice_next(&c);
    is_int(c.peer->name.ptr[0], 'c', "backups are chosen by the method, too");
    is_str(sequence(g, 3), "ddd", "by their connections");
    choice_end(&c, PEER_OK, -1);
}

static void test_only_one(void)
{
    struct upstream *g = group(1);
    struct choice c;

    g->view.state[0] = PEER_DRAIN;
    is_int(once(g), '-', "a single server that drains");
    c = begin(g);
    c.wanted = 0;
    is_int(choice_next(&c), 0, "serves those who are bound to it");
    choice_end(&c, PEER_OK, -1);
    g = group(2);
    g->view.records[0].fail_timeout_s = 5;
    c = begin(g);
    choice_next(&c);
    choice_end(&c, PEER_FAILED, -1);
    peers_leave(&g->view, 1);
    peers_recount(&g->view);
    is_int(once(g), 'a', "who has become the only one is asked, whatever it did");
    g->view.records[0].checked_s -= 6;
    c = begin(g);
    choice_next(&c);
    is_int(once(g), 'a', "also while somebody else looks whether it is well again");
    choice_end(&c, PEER_OK, -1);
}

/* A worker whose clock is behind. */
static void test_clocks(void)
{
    struct upstream *g = group(2);
    uint64_t now_s = clock_ms() / 1000;

    g->view.records[0].fail_timeout_s = 5;
    peers_failed(&g->view, 0, now_s);
    peers_look(&g->view, now_s - 1);
    is_uint(g->view.state[0], PEER_BROKEN, "a failure by another's clock is not long ago");
    g->view.records[0].slow_start_s = 10;
    set_weight(g, 0, 100);
    peers_look(&g->view, now_s + 6);
    peers_checked(&g->view, 0, PEER_SICK, now_s + 6);
    peers_checked(&g->view, 0, 0, now_s + 6);
    peers_look(&g->view, now_s + 5);
    is_int(g->view.weight[0], 1, "nor is a slow start over");
}

static void test_limits(void)
{
    struct upstream *g = group(2);
    struct choice held = begin(g), c;

    g->view.records[0].max_conns = g->view.records[1].max_conns = 1;
    choice_next(&held);
    is_int(once(g), 'b', "max_conns");
    c = begin(g);
    choice_next(&c);
    is_int(once(g), '-', "all are busy");
    choice_end(&c, PEER_OK, -1);
    choice_end(&held, PEER_OK, -1);
    is_int(once(g) != '-', 1, "free again");
}

static void test_many(void)
{
    struct upstream *g = group(300);
    struct choice c;
    unsigned n = 0;

    choice_start(&c, g, req);
    while (choice_next(&c) == 0) {
        choice_end(&c, PEER_NEXT, -1);
        n++;
    }
    is_uint(n, 300, "more servers than bits at hand: each once");
}

/* Another method for a group. */
static struct upstream *with(struct upstream *g, const struct balancer *method)
{
    g->balancer = method;
    if (method->build != NULL)
        method->build(arena, g);
    return g;
}

static void test_least_conn(void)
{
    struct upstream *g = with(group(3), &balancer_least_conn);
    struct choice a, b;

    is_str(sequence(g, 6), "abcabc", "equals take turns");
    a = begin(g);
    choice_next(&a);
    is_int(a.peer->name.ptr[0], 'a', "one is busy");
    is_str(sequence(g, 4), "bcbc", "the others take turns");
    b = begin(g);
    choice_next(&b);
    is_str(sequence(g, 2), "cc", "one is left");
    choice_end(&a, PEER_OK, -1);
    choice_end(&b, PEER_OK, -1);
    g = group(2);
    set_weight(g, 0, 3);
    with(g, &balancer_least_conn);
    /* a: 1/3, 2/3; b: 1/1 */
    {
        struct choice held[4];
        char order[5] = "";

        for (unsigned i = 0; i < 4; i++) {
            held[i] = begin(g);
            choice_next(&held[i]);
            order[i] = held[i].peer->name.ptr[0];
        }
        is_str(order, "abaa", "connections for their weight");
        for (unsigned i = 0; i < 4; i++)
            choice_end(&held[i], PEER_OK, -1);
    }
}

static void test_slow_start(void)
{
    struct upstream *g = group(2);
    unsigned first = 0, later = 0;
    struct choice c;

    g->own.set->scale = PEERS_SCALE;
    for (unsigned i = 0; i < 2; i++) {
        set_weight(g, i, PEERS_SCALE);
        g->view.records[i].fail_timeout_s = 5;
        g->view.records[i].slow_start_s = 10;
    }
    g->view.set->uniform = true;
    c = begin(g);
    choice_next(&c);
    is_int(c.peer->name.ptr[0], 'a', "the first server");
    choice_end(&c, PEER_FAILED, -1);
    g->view.records[0].checked_s -= 6;
    g->view.records[0].accessed_s -= 6;
    g->view.set->looked_s = 0;
    while (once(g) != 'a')
        continue;
    is_uint(g->view.records[0].fails, 0, "it is well again");
    ok(g->view.records[0].slow_from_s != 0, "and begins slowly");
    for (unsigned i = 0; i < 50; i++)
        first += once(g) == 'a';
    ok(first <= 1, "with hardly a request");
    g->view.records[0].slow_from_s -= 5;
    g->view.set->looked_s = 0;
    for (unsigned i = 0; i < 60; i++)
        later += once(g) == 'a';
    ok(later >= 18 && later <= 22, "half the weight after half the time");
    g->view.records[0].slow_from_s -= 5;
    g->view.set->looked_s = 0;
    once(g);
    is_uint(g->view.set->slowing, 0, "all of it in the end");
    ok(strstr(sequence(g, 4), "aa") == NULL, "turns as before");
}

static void test_checked(void)
{
    struct upstream *g = group(3);
    uint64_t now_s = clock_ms() / 1000;

    g->own.set->scale = PEERS_SCALE;
    for (unsigned i = 0; i < 3; i++)
        set_weight(g, i, PEERS_SCALE);
    g->view.set->uniform = true;
    g->view.records[1].slow_start_s = 10;
    peers_checked(&g->view, 1, PEER_SICK, now_s + 5);
    ok(!peers_serves(&g->view, 1), "and serves nobody, bound to it or not");
    ok(strchr(sequence(g, 12), 'b') == NULL, "it is not chosen");
    peers_checked(&g->view, 1, PEER_SICK, now_s + 6);
    is_uint(g->view.records[1].unhealthy, 1, "it became sick once");
    peers_checked(&g->view, 1, 0, now_s + 7);
    is_uint(g->view.state[1], 0, "well again");
    is_uint(g->view.records[1].slow_from_s, now_s + 7, "it begins slowly");
    peers_checked(&g->view, 1, PEER_UNCHECKED, now_s + 8);
    is_uint(g->view.set->slowing, 0, "not while it waits for a check");
    is_int(g->view.weight[1], PEERS_SCALE, "its weight is what it was");
    ok(!peers_serves(&g->view, 1), "and it does not serve");
    peers_reset(&g->view);
    is_uint(g->view.state[1], PEER_UNCHECKED, "which is not forgotten after an accident");
}

static void test_least_time(void)
{
    struct upstream *g = with(group(3), &balancer_least_time);
    static const float times[] = { 30, 10, 20 };

    for (unsigned i = 0; i < 3; i++) {
        struct choice c = begin(g);

        choice_next(&c);
        is_int(c.peer->name.ptr[0], "abc"[i], "those without a time come first");
        choice_end(&c, PEER_OK, times[i]);
    }
    is_str(sequence(g, 3), "bbb", "the fastest");
    {
        struct choice a = begin(g), b = begin(g);

        choice_next(&a);
        is_int(once(g), 'c', "20 ms for one are as good as 10 ms for each of two: in turn");
        choice_next(&b);
        is_int(b.peer->name.ptr[0], 'b', "and then the other");
        choice_end(&a, PEER_OK, -1);
        choice_end(&b, PEER_OK, -1);
    }
}

/* Requests that each of the servers got out of n, in per mille of n. */
static void shares(struct upstream *g, unsigned n, unsigned *per_mille)
{
    unsigned *counts = ARENA_ARRAY(arena, unsigned, g->count);

    for (unsigned i = 0; i < n; i++) {
        struct choice c = begin(g);

        ASSERT(choice_next(&c) == 0);
        counts[c.peer->index]++;
        choice_end(&c, PEER_OK, -1);
    }
    for (unsigned i = 0; i < g->count; i++)
        per_mille[i] = (unsigned) ((uint64_t) counts[i] * 1000 / n);
}

static bool near(unsigned got, unsigned expected)
{
    bool yes = got + 20 >= expected && got <= expected + 20;

    if (!yes)
        diag("%u, expected about %u", got, expected);
    return yes;
}

static void test_random(void)
{
    struct upstream *g = group(4);
    unsigned s[4];

    set_weight(g, 0, 3);
    with(g, &balancer_random);
    shares(g, 100000, s);
    ok(near(s[0], 500) && near(s[1], 167) && near(s[2], 167) && near(s[3], 167),
       "random: by weight");
    g = with(group(4), &balancer_random);
    g->method.two = true;
    shares(g, 100000, s);
    ok(near(s[0], 250) && near(s[1], 250) && near(s[2], 250) && near(s[3], 250), "random two: evenly");
    {
        struct choice held[3];

        for (unsigned i = 0; i < 3; i++) {
            held[i] = begin(g);
            choice_next(&held[i]);
        }
        for (unsigned i = 0; i < 3; i++)
            choice_end(&held[i], PEER_OK, -1);
        g->view.conns[2] = 5;
        g->view.set->conns = 5;
        shares(g, 20000, s);
        is_uint(s[2], 0, "never the busier one of two");
        g->view.conns[2] = g->view.set->conns = 0;
    }
    g = group(3);
    g->view.state[1] |= PEER_DOWN;
    with(g, &balancer_random);
    shares(g, 30000, s);
    ok(near(s[0], 500) && s[1] == 0 && near(s[2], 500), "a server that is down");
}

static char by_key(struct upstream *g, unsigned key)
{
    struct choice c = begin(g);
    char name;

    c.key = str_printf(arena, "key%u", key);
    c.hash = c.rehashes = 0;
    if (g->balancer == &balancer_maglev)
        c.hash = hash_crc32(0, c.key.ptr, c.key.len) % 65537;
    ASSERT(choice_next(&c) == 0);
    name = c.peer->name.ptr[0];
    choice_end(&c, PEER_OK, -1);
    return name;
}

static void test_maglev(void)
{
    struct upstream *g = group(5);
    unsigned counts[5] = { 0 }, moved = 0, strayed = 0;
    char *before = arena_zalloc(arena, 20000);
    const char *error = NULL;

    (void) error;
    g->method.key = expr_literal(arena, STR(""));
    with(g, &balancer_maglev);
    for (unsigned i = 0; i < 20000; i++) {
        before[i] = by_key(g, i);
        counts[before[i] - 'a']++;
    }
    for (unsigned i = 0; i < 5; i++)
        ok(near(counts[i] / 20, 200), "maglev: server %u has its share", i);
    g->view.state[2] |= PEER_DOWN;
    for (unsigned i = 0; i < 20000; i++) {
        char now = by_key(g, i);

        moved += now != before[i];
        strayed += now != before[i] && before[i] != 'c';
    }
    ok(near(moved / 20, 200), "what a server had goes elsewhere");
    is_uint(strayed, 0, "and nothing else does");
}

static void test_bound(void)
{
    struct upstream *g = group(4);
    struct choice held[40];
    unsigned most = 0;

    g->method.key = expr_literal(arena, STR("the same for all"));
    g->method.bound = 1.25;
    with(g, &balancer_consistent);
    for (unsigned i = 0; i < 40; i++) {
        held[i] = begin(g);
        ASSERT(choice_next(&held[i]) == 0);
    }
    for (unsigned i = 0; i < 4; i++)
        most = MAX(most, g->view.conns[i]);
    ok(most <= 13, "bounded_load: nobody holds more than 1.25 times its share");
    for (unsigned i = 0; i < 40; i++)
        choice_end(&held[i], PEER_OK, -1);
    is_uint(g->view.set->conns, 0, "all given back");
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
    test_only_one();
    test_clocks();
    test_limits();
    test_many();
    test_least_conn();
    test_least_time();
    test_slow_start();
    test_checked();
    test_random();
    test_maglev();
    test_bound();
    test_addresses();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
