/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Values by address: against a list that is looked through one by one, for random networks and ranges
 * crowded into few bits so that they nest. With PROXYD_BENCH=1 also how long half a million networks
 * take to load and to look up.
 */
#include <arpa/inet.h>
#include <time.h>

#include "core/base/arena.h"
#include "modules/http/geo_table.h"
#include "t/unit/tap.h"

static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static struct cidr cidr(const char *text)
{
    struct cidr c;

    ok(cidr_parse(&c, str_cstr(text)) == 0, "%s", text);
    return c;
}

static uint32_t find(const struct geo_table *t, const char *text)
{
    unsigned char v6[16];
    struct in_addr v4;

    if (inet_pton(AF_INET, text, &v4) == 1)
        return geo_find4(t, ntohl(v4.s_addr));
    ok(inet_pton(AF_INET6, text, v6) == 1, "%s is an address", text);
    return geo_find6(t, v6);
}

static void test_nets(void)
{
    static const struct {
        const char *net;
        uint32_t value;
    } rows[] = {
        { "10.0.0.0/8", 1 }, { "10.1.0.0/16", 2 }, { "10.1.2.3/32", 3 }, { "10.1.2.4/31", 4 },
        { "255.255.255.255/32", 5 }, { "0.0.0.0/32", 6 }, { "192.0.0.0/2", 7 },
        { "2001:db8::/32", 8 }, { "2001:db8:1::/48", 9 }, { "::1/128", 10 }, { "ff00::/8", 11 },
        { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 12 },
    };
    static const struct {
        const char *addr;
        uint32_t value;
    } finds[] = {
        { "9.255.255.255", 0 }, { "10.0.0.0", 1 }, { "10.1.2.2", 2 }, { "10.1.2.3", 3 },
        { "10.1.2.4", 4 }, { "10.1.2.5", 4 }, { "10.1.2.6", 2 }, { "10.255.255.255", 1 },
        { "11.0.0.0", 0 }, { "0.0.0.0", 6 }, { "0.0.0.1", 0 }, { "255.255.255.255", 5 },
        { "255.255.255.254", 7 }, { "191.255.255.255", 0 }, { "2001:db7:ffff::", 0 },
        { "2001:db8::", 8 }, { "2001:db8:1::5", 9 }, { "2001:db8:2::", 8 }, { "2001:db9::", 0 },
        { "::", 0 }, { "::1", 10 }, { "::2", 0 }, { "ff01::", 11 },
        { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 12 },
    };
    struct arena *arena = arena_new(), *other = arena_new_large();
    struct geo_builder *b = geo_builder_new(other);
    struct geo_table *t;
    struct cidr c;

    t = geo_table_new(b, arena);
    is_uint(find(t, "1.2.3.4"), 0, "an empty table");
    is_uint(find(t, "::1"), 0, "nor IPv6");
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        c = cidr(rows[i].net);
        is_uint(geo_add_net(b, &c, rows[i].value), 0, "%s is new", rows[i].net);
        is_uint(geo_add_net(b, &c, rows[i].value), rows[i].value, "and then is not");
    }
    c = cidr("10.2.0.0/16");
    ok(!geo_delete_net(b, &c), "what is not there cannot be deleted");
    is_uint(geo_add_net(b, &c, 99), 0, "a net");
    ok(geo_delete_net(b, &c), "that is deleted");
    ok(!geo_delete_net(b, &c), "once");
    t = geo_table_new(b, arena);
    arena_destroy(other);
    for (unsigned i = 0; i < ARRAY_LEN(finds); i++)
        is_uint(find(t, finds[i].addr), finds[i].value, "%s", finds[i].addr);
    arena_destroy(arena);
}

/* A random network whose address has few bits that vary, so that many nest. */
static struct cidr random_net(int family)
{
    struct cidr c = { .family = family };
    unsigned bits = family == AF_INET ? 32 : 128, len;

    len = (unsigned) (next_random() % (bits + 1));
    for (unsigned i = 0; i < bits / 8; i++) {
        unsigned n = len > i * 8 ? MIN(len - i * 8, 8) : 0;

        c.mask[i] = (unsigned char) (0xff00u >> n);
        c.addr[i] = (unsigned char) ((next_random() & 0x81) & c.mask[i]);
    }
    return c;
}

static unsigned mask_len(const struct cidr *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 16; i++)
        n += (unsigned) __builtin_popcount(c->mask[i]);
    return n;
}

static bool covers(const struct cidr *c, const unsigned char *addr)
{
    for (unsigned i = 0; i < (c->family == AF_INET ? 4 : 16); i++) {
        if ((addr[i] & c->mask[i]) != c->addr[i])
            return false;
    }
    return true;
}

static void test_random_nets(int family, unsigned count)
{
    struct arena *arena = arena_new_large();
    struct geo_builder *b = geo_builder_new(arena);
    struct cidr *nets = ARENA_ARRAY(arena, struct cidr, count);
    struct geo_table *t;
    unsigned wrong = 0;

    for (unsigned i = 0; i < count; i++) {
        nets[i] = random_net(family);
        geo_add_net(b, &nets[i], i + 1);
    }
    t = geo_table_new(b, arena);
    for (unsigned n = 0; n < 5000; n++) {
        unsigned char addr[16];
        uint32_t want = 0, got;
        unsigned best = 0;

        for (unsigned i = 0; i < 16; i++)
            addr[i] = (unsigned char) (n % 3 ? next_random() & 0x81 : next_random());
        for (unsigned i = 0; i < count; i++) {
            if (covers(&nets[i], addr) && (want == 0 || mask_len(&nets[i]) >= best)) {
                want = i + 1;
                best = mask_len(&nets[i]);
            }
        }
        got = family == AF_INET ? geo_find4(t, (uint32_t) addr[0] << 24 | (uint32_t) addr[1] << 16
                                                   | (uint32_t) addr[2] << 8 | addr[3])
                                : geo_find6(t, addr);
        wrong += got != want;
    }
    is_uint(wrong, 0, "%u random networks of family %d", count, family);
    arena_destroy(arena);
}

/* Addresses that differ in their lower halves only. */
static void test_hosts(void)
{
    struct arena *arena = arena_new_large();
    struct geo_builder *b = geo_builder_new(arena);
    struct geo_table *t;
    unsigned wrong = 0;
    unsigned char addr[16] = { 0x20, 1 };

    for (unsigned i = 0; i < 1000; i++) {
        struct cidr c = { .family = AF_INET6, .addr = { 0x20, 1 } };

        memset(c.mask, 0xff, 16);
        c.addr[14] = (unsigned char) (i * 2 >> 8);
        c.addr[15] = (unsigned char) (i * 2);
        geo_add_net(b, &c, i + 1);
    }
    t = geo_table_new(b, arena);
    for (unsigned i = 0; i < 2010; i++) {
        addr[14] = (unsigned char) (i >> 8);
        addr[15] = (unsigned char) i;
        wrong += geo_find6(t, addr) != (i % 2 == 0 && i < 2000 ? i / 2 + 1 : 0);
    }
    is_uint(wrong, 0, "1000 hosts in one network");
    arena_destroy(arena);
}

static void test_ranges(void)
{
    struct arena *arena = arena_new_large();
    struct geo_builder *b = geo_builder_new(arena);
    struct geo_table *t;
    struct geo_range other;
    uint32_t old = 0;

    is_int(geo_add_range(b, (struct geo_range){ 0, UINT32_MAX }, 1, &old, &other), GEO_RANGE_ADDED,
           "all addresses");
    is_int(geo_add_range(b, (struct geo_range){ 100, 200 }, 2, &old, &other), GEO_RANGE_ADDED,
           "a range in it");
    is_int(geo_add_range(b, (struct geo_range){ 100, 150 }, 3, &old, &other), GEO_RANGE_ADDED,
           "its beginning");
    is_int(geo_add_range(b, (struct geo_range){ 180, 200 }, 4, &old, &other), GEO_RANGE_ADDED,
           "its end");
    is_int(geo_add_range(b, (struct geo_range){ 160, 160 }, 5, &old, &other), GEO_RANGE_ADDED,
           "one address");
    is_int(geo_add_range(b, (struct geo_range){ 160, 160 }, 6, &old, &other), GEO_RANGE_REPLACED,
           "which changes its value");
    is_uint(old, 5, "the old one");
    is_int(geo_add_range(b, (struct geo_range){ 150, 170 }, 7, &old, &other), GEO_RANGE_OVERLAPS,
           "what cuts others is refused");
    is_uint(other.first, 161, "the one in the way");
    is_uint(other.last, 179, "and its end");
    is_int(geo_add_range(b, (struct geo_range){ 0x1fff0, 0x20010 }, 8, &old, &other),
           GEO_RANGE_ADDED, "over the border of two slices");
    ok(geo_delete_range(b, (struct geo_range){ 0x1fff0, 0x20010 }), "it is deleted");
    ok(!geo_delete_range(b, (struct geo_range){ 0x1fff0, 0x20010 }), "once");
    t = geo_table_new(b, arena);
    is_uint(geo_find4(t, 99), 1, "before");
    is_uint(geo_find4(t, 100), 3, "beginning");
    is_uint(geo_find4(t, 151), 2, "middle");
    is_uint(geo_find4(t, 160), 6, "one");
    is_uint(geo_find4(t, 161), 2, "middle again");
    is_uint(geo_find4(t, 200), 4, "end");
    is_uint(geo_find4(t, 201), 1, "after");
    is_uint(geo_find4(t, 0x20000), 0, "deleted");
    is_uint(geo_find4(t, 0x20011), 1, "behind it");
    is_uint(geo_find4(t, UINT32_MAX), 1, "the last address");
    arena_destroy(arena);
}

/* Ranges that are accepted, painted into an array one over the other. */
static void test_random_ranges(void)
{
    static uint32_t painted[1 << 18];
    struct arena *arena = arena_new_large();
    struct geo_builder *b = geo_builder_new(arena);
    struct geo_table *t;
    unsigned wrong = 0, accepted = 0;

    for (uint32_t n = 1; n < 3000; n++) {
        uint32_t first = (uint32_t) (next_random() % ARRAY_LEN(painted)), old;
        uint32_t last = MIN(first + (uint32_t) (next_random() % 300), ARRAY_LEN(painted) - 1);
        struct geo_range r = { first, last }, other;

        /* A refused one may have been added in part, if it lies in two slices. */
        if (first >> 16 != last >> 16)
            continue;
        if (geo_add_range(b, r, n, &old, &other) == GEO_RANGE_OVERLAPS)
            continue;
        accepted++;
        for (uint32_t i = first; i <= last; i++)
            painted[i] = n;
    }
    t = geo_table_new(b, arena);
    for (uint32_t i = 0; i < ARRAY_LEN(painted); i++)
        wrong += geo_find4(t, i) != painted[i];
    is_uint(wrong, 0, "%u random ranges", accepted);
    ok(accepted > 1000, "enough of them");
    arena_destroy(arena);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* shared: upper bytes that all networks and addresses have in common. */
static void bench(int family, unsigned shared)
{
    enum { NETS = 500000, FINDS = 2000000 };
    struct arena *arena = arena_new_large();
    struct geo_builder *b = geo_builder_new(arena);
    struct geo_table *t;
    uint64_t sum = 0;
    double from = seconds(), loaded;

    for (unsigned i = 0; i < NETS; i++) {
        struct cidr c = { .family = family };
        unsigned len = (family == AF_INET ? 16 : 32) + shared * 8 + (unsigned) (next_random() % 9);

        for (unsigned k = 0; k < 8; k++) {
            unsigned n = len > k * 8 ? MIN(len - k * 8, 8) : 0;

            c.mask[k] = (unsigned char) (0xff00u >> n);
            c.addr[k] = (unsigned char) (k < shared ? 0x2a : next_random() & c.mask[k]);
        }
        geo_add_net(b, &c, 1 + i % 250);
    }
    t = geo_table_new(b, arena);
    loaded = seconds();
    for (unsigned i = 0; i < FINDS; i++) {
        uint64_t words[2] = { next_random(), next_random() };

        memset(words, 0x2a, shared);
        sum += family == AF_INET ? geo_find4(t, (uint32_t) words[0])
                                 : geo_find6(t, (const unsigned char *) words);
    }
    diag("%d networks of family %d in one of %u bits: %.3f s to build, %.0f ns a look-up of a random address (%llu)",
         NETS, family, shared * 8, loaded - from, (seconds() - loaded) / FINDS * 1e9,
         (unsigned long long) sum);
    arena_destroy(arena);
}

int main(void)
{
    test_nets();
    for (unsigned i = 1; i < 400; i = i * 2 + 1) {
        test_random_nets(AF_INET, i);
        test_random_nets(AF_INET6, i);
    }
    test_random_nets(AF_INET, 3000);
    test_random_nets(AF_INET6, 3000);
    test_hosts();
    test_ranges();
    test_random_ranges();
    if (getenv("PROXYD_BENCH") != NULL) {
        bench(AF_INET, 0);
        bench(AF_INET6, 0);
        bench(AF_INET6, 2);
    }
    arena_trim();
    return done_testing();
}
