/* SPDX-License-Identifier: BSD-2-Clause */
/* The arithmetic of the leaky bucket, how it lies in a cell, and which buckets make way for new ones. */
#include "t/unit/core/zone/cells_check.h"
#include "modules/http/limit_req.c"
#include "t/unit/tap.h"

/* Milliseconds; the real clock is not asked. */
#define NOW UINT64_C(1000000000)

static void test_bucket(void)
{
    static const struct {
        const char *what;
        uint64_t excess, age, rate, want;
    } rows[] = {
        { "the same millisecond", 0, 0, 1000, 1000 },
        { "one request a second, a second later", 0, 1000, 1000, 0 },
        { "half a second", 0, 500, 1000, 500 },
        { "a millisecond", 5000, 1, 1000, 5999 },
        { "fractions are cut", 0, 1, 1500, 999 },
        { "30 a minute, a second later", 3000, 1000, 500, 3500 },
        { "long ago", 5000, 3600000, 1000, 0 },
        { "a product beyond 64 bits", UINT64_C(1) << 60, UINT64_C(1) << 38, UINT64_C(1) << 41, 0 },
        { "a slow rate and much to leak", 100000000, 86400000, 16, 98618600 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t now = UINT64_C(1) << 39;
        struct bucket b = { now - rows[i].age, now, rows[i].excess };

        is_uint(bucket_with_one(&b, rows[i].rate, now), rows[i].want, "%s", rows[i].what);
    }
}

static void test_clocks(void)
{
    struct bucket b = { NOW + 5, NOW, 1000 };

    is_uint(bucket_age(&b, NOW), 0, "another worker's clock may be a little ahead");
    bucket_charge(&b, 2000, NOW);
    is_uint(b.time_ms, NOW + 5, "and is not set back");
    b.time_ms = NOW + CLOCKS_MAY_DIFFER_MS + 1;
    is_uint(bucket_age(&b, NOW), 1, "but not by a minute");
    bucket_charge(&b, 2000, NOW);
    is_uint(b.time_ms, NOW, "then it is set right");
}

static void test_packing(void)
{
    static const struct bucket rows[] = {
        { NOW, NOW, 0 },
        { NOW, NOW + 17, 999 },
        { NOW, NOW + ASKED_MAX, UINT32_MAX },
        { (UINT64_C(1) << 40) - 1, (UINT64_C(1) << 40) - 1, BURST_MAX * REQUEST },
    };
    struct cells_line line = { .passed = 0 };
    struct cell cell = { &line, 2 };
    struct bucket b = { NOW, NOW + 100000, UINT64_MAX };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bucket_store(cell, &rows[i]);
        b = bucket_of(cell);
        ok(b.time_ms == rows[i].time_ms && b.asked_ms == rows[i].asked_ms &&
               b.excess == rows[i].excess,
           "a bucket in a cell, %zu", i);
    }
    b = (struct bucket){ NOW, NOW + 100000, UINT64_MAX };
    bucket_store(cell, &b);
    b = bucket_of(cell);
    ok(b.time_ms == NOW && b.asked_ms == NOW + ASKED_MAX && b.excess == EXCESS_MAX,
       "what does not fit is cut");
    ok(BURST_MAX * REQUEST <= EXCESS_MAX, "every burst fits");
}

static void test_worth(void)
{
    struct newcomer newcomer = { 1000, NOW };
    struct cells_line line = { .passed = 0 };
    struct cell cell = { &line, 1 };
    struct bucket b = { NOW - 999, NOW - 10, 0 };

    bucket_store(cell, &b);
    is_uint(bucket_worth(cell, &newcomer), NOW - 10 + 1, "wanted: as old as it was asked for");
    b.time_ms = NOW - 1000;
    bucket_store(cell, &b);
    is_uint(bucket_worth(cell, &newcomer), 0, "no more than a new one would say");
    b.excess = 1;
    bucket_store(cell, &b);
    ok(bucket_worth(cell, &newcomer) > 0, "a little more");
}

static struct zone *zone;
static struct expr *no_key;

static bool passes(const struct req_limit *limit, unsigned n)
{
    uint64_t excess,
        digest = cells_digest(limit_table(zone)->seed, str_from((const char *) &n, sizeof(n)));

    return judge(limit, digest, true, &excess);
}

static void next_millisecond(void)
{
    uint64_t now = clock_ms();

    while (clock_ms() == now)
        clock_update();
}

static void test_zone(void)
{
    struct req_zone z = { .zone = { .key = no_key }, .rate = 16 };
    struct zone_spec spec = { STR_INIT("requests"), ZONE_MIN, &req_kind, STR_INIT(""), &z };
    struct res_zone res = { .spec = spec };
    struct req_limit limit = { .res = &res };
    unsigned passed = 0, n;

    res.zone = zone = zone_create(&spec, log_main);
    cells_know(&z.zone.known, zone);
    ok(passes(&limit, 0) && !passes(&limit, 0), "a bucket");
    for (n = 1; n < 400; n++)
        passed += passes(&limit, n) && !passes(&limit, n);
    is_uint(passed, 399, "many keys");
    for (; n < 5000; n++) {
        passed += passes(&limit, n);
        if (n % 20 == 0) {
            next_millisecond();
            passed -= passes(&limit, 0);
        }
    }
    is_uint(passed, 4999, "a full zone: old ones make way, not one that is asked for");
    ok(!passes(&limit, 4999), "the youngest are there");
    ok(passes(&limit, 1), "the oldest have gone");
    limit.burst = 3 * REQUEST;
    for (n = 0, passed = 0; n < 10; n++)
        passed += passes(&limit, 10000);
    is_uint(passed, 4, "the burst and one");
    is_str(cells_check(zone, limit_table(zone)), NULL, "all is sound");
    zone_destroy(zone);
}

int main(void)
{
    clock_update();
    test_bucket();
    test_clocks();
    test_packing();
    test_worth();
    test_zone();
    return done_testing();
}
