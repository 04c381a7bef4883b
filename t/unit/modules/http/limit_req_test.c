/* SPDX-License-Identifier: BSD-2-Clause */
/* The arithmetic of the leaky bucket, and which buckets make way for new ones. */
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
        { "a product beyond 64 bits", UINT64_C(1) << 60, UINT64_C(1) << 40, UINT64_C(1) << 41, 0 },
        { "a slow rate and much to leak", 100000000, 86400000, 16, 98618600 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t now = UINT64_C(1) << 41;
        struct bucket b = { (now - rows[i].age) << 1, rows[i].excess };

        is_uint(bucket_with_one(&b, rows[i].rate, now), rows[i].want, "%s", rows[i].what);
    }
}

static void test_clocks(void)
{
    struct bucket b = { (NOW + 5) << 1, 1000 };

    is_uint(bucket_age(&b, NOW), 0, "another worker's clock may be a little ahead");
    bucket_put(&b, 2000, NOW);
    is_uint(bucket_time(&b), NOW + 5, "and is not set back");
    b.time = (NOW + CLOCKS_MAY_DIFFER_MS + 1) << 1;
    is_uint(bucket_age(&b, NOW), 1, "but not by a minute");
    bucket_put(&b, 2000, NOW);
    is_uint(bucket_time(&b), NOW, "then it is set right");
    ok((b.time & USED) != 0, "what was charged was used");
    b = (struct bucket){ 0, 0 };
    is_uint(bucket_with_one(&b, 1, NOW), 0, "a bucket of zeroes has run dry");
}

static void test_wanted(void)
{
    struct bucket b = { (NOW - 1000) << 1, 0 };

    ok(bucket_is_wanted(&b, 1000, NOW), "dry, but used a second ago");
    b.time = (NOW - IDLE_MS) << 1;
    ok(!bucket_is_wanted(&b, 1000, NOW), "dry for a minute");
    b.excess = 61000;
    ok(bucket_is_wanted(&b, 1000, NOW), "idle for a minute, and a second's worth in it");
    b.excess = 60000;
    ok(!bucket_is_wanted(&b, 1000, NOW), "all has leaked");
}

static struct zone *zone;
static unsigned next_key;

static struct bucket *add(uint64_t time, unsigned *n)
{
    char text[16];
    struct keyed_key key;
    struct bucket *b;

    *n = next_key++;
    keyed_prepare(zone, limit_table(zone), str_from(text, (size_t) sprintf(text, "key%u", *n)),
                  &key);
    b = bucket_new(zone, limit_table(zone), &key, 1000, NOW);
    if (b != NULL)
        b->time = time << 1;
    return b;
}

static bool has(unsigned n)
{
    char text[16];

    return keyed_get(zone, limit_table(zone), str_from(text, (size_t) sprintf(text, "key%u", n)),
                     false) != NULL;
}

static void test_eviction(void)
{
    struct zone_spec spec = { STR_INIT("requests"), ZONE_MIN, &req_kind, STR_INIT(""), NULL };
    unsigned old[4], n, first;
    struct bucket *b;
    size_t full;

    zone = zone_create(&spec, log_main);
    for (unsigned i = 0; i < 4; i++)
        (void) add(NOW - 2 * IDLE_MS, &old[i]);
    ok(!has(old[0]) && has(old[3]), "a new bucket takes those along that are dry");
    for (unsigned i = 0; i < 3; i++)
        (void) add(NOW, &n);
    ok(!has(old[1]) && !has(old[2]) && !has(old[3]), "all in the end");
    is_uint(keyed_count(limit_table(zone)), 3, "those in use stay");
    first = n - 2;
    do {
        full = keyed_count(limit_table(zone));
        b = add(NOW, &n);
    } while (b != NULL && keyed_count(limit_table(zone)) > full && n < 10000);
    ok(b != NULL && full > 200, "a full zone: the oldest makes way");
    ok(!has(first) && has(first + 1), "and nobody else");
    b = keyed_oldest(zone, limit_table(zone), NULL);
    b->time |= USED;
    (void) add(NOW, &n);
    ok(has(first + 1) && !has(first + 2), "what was used since has a second chance");
    for (b = NULL; (b = keyed_next(zone, limit_table(zone), b)) != NULL;)
        b->time |= USED;
    ok(add(NOW, &n) != NULL && has(n), "but not when all were used");
    is_uint(keyed_count(limit_table(zone)), full, "as many as before");
    zone_destroy(zone);
}

int main(void)
{
    test_bucket();
    test_clocks();
    test_wanted();
    test_eviction();
    return done_testing();
}
