/* SPDX-License-Identifier: BSD-2-Clause */
/* The keyed table without any accident; its cost with a million keys is printed as a remark. */
#include <time.h>

#include "t/unit/core/zone/check.h"
#include "t/unit/tap.h"

static const struct zone_kind kind = { .name = "keyed", .version = 1 };

static struct zone *open_zone(size_t size)
{
    struct zone_spec spec = { STR("keyed"), size, &kind, STR(""), NULL };

    return zone_create(&spec, log_main);
}

static struct str key(unsigned n)
{
    static char buf[24];

    return str_from(buf, (size_t) snprintf(buf, sizeof(buf), "%u", n));
}

static uint32_t *put(struct zone *zone, struct keyed *t, unsigned n, unsigned evict, bool *created)
{
    uint32_t *value = keyed_put(zone, t, key(n), evict, created);

    if (value != NULL)
        *value = n;
    return value;
}

/* The keys from old to young, as a text. */
static const char *order(struct zone *zone, struct keyed *t)
{
    static char text[256];
    size_t len = 0;

    text[0] = '\0';
    for (void *v = keyed_next(zone, t, NULL); v != NULL && len < 200; v = keyed_next(zone, t, v))
        len += (size_t) snprintf(text + len, sizeof(text) - len, "%.*s ",
                                 STR_ARG(keyed_key(zone, t, v)));
    return text;
}

static void test_order(void)
{
    struct zone *zone = open_zone(ZONE_MIN);
    struct keyed *t = keyed_new(zone, sizeof(uint32_t), 3);
    bool created;
    struct str oldest;
    uint32_t *v;

    is_uint(t->mask + 1, 4, "buckets are rounded up to a power of two");
    ok(keyed_oldest(zone, t, &oldest) == NULL && keyed_next(zone, t, NULL) == NULL, "empty");
    ok(keyed_get(zone, t, key(1), true) == NULL, "absent");
    for (unsigned i = 1; i <= 9; i++) {
        v = put(zone, t, i, 0, &created);
        ok(v != NULL && created && (uintptr_t) v % 8 == 0, "put %u", i);
    }
    is_str(order(zone, t), "1 2 3 4 5 6 7 8 9 ", "in order of use");
    v = keyed_get(zone, t, key(3), false);
    ok(v != NULL && *v == 3, "get");
    is_str(order(zone, t), "1 2 3 4 5 6 7 8 9 ", "a get without touch leaves the order");
    (void) keyed_get(zone, t, key(3), true);
    (void) keyed_get(zone, t, key(1), true);
    (void) keyed_get(zone, t, key(1), true);
    v = keyed_put(zone, t, key(5), 0, &created);
    ok(v != NULL && !created && *v == 5, "put of an existing key gives its value");
    is_str(order(zone, t), "2 4 6 7 8 9 3 1 5 ", "what was touched is young");
    v = keyed_oldest(zone, t, &oldest);
    ok(v != NULL && *v == 2 && str_eq(oldest, STR("2")), "the oldest");
    keyed_delete(zone, t, v);
    keyed_delete(zone, t, keyed_get(zone, t, key(5), false));
    keyed_delete(zone, t, keyed_get(zone, t, key(8), false));
    is_str(order(zone, t), "4 6 7 9 3 1 ", "deleted at both ends and between");
    is_uint(keyed_count(t), 6, "counted");
    ok(keyed_check(zone, t) == NULL && slab_check(zone) == NULL, "sound");
    ok(keyed_recover(zone, t), "a sound table is recovered");
    is_str(order(zone, t), "4 6 7 9 3 1 ", "and is as it was");
    zone_destroy(zone);
}

static void test_keys(void)
{
    struct zone *zone = open_zone(64 * ZONE_PAGE);
    struct keyed *t = keyed_new(zone, 13, 0);
    size_t before = zone_bytes_free(zone);
    static char buf[9000];
    bool created, sound = true;
    void *v;

    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (char) (i * 31);
    for (size_t len = 0; len < sizeof(buf); len = len * 2 + 1) {
        v = keyed_put(zone, t, str_from(buf, len), 0, &created);
        sound = sound && v != NULL && created && memcmp(v, "\0\0\0\0\0\0\0\0\0\0\0\0", 13) == 0;
        if (v != NULL)
            memset(v, 0xff, 13);
    }
    ok(sound, "keys of any length, the empty one too");
    for (size_t len = 0; len < sizeof(buf); len = len * 2 + 1) {
        v = keyed_get(zone, t, str_from(buf, len), true);
        sound = sound && v != NULL && str_eq(keyed_key(zone, t, v), str_from(buf, len));
    }
    ok(sound, "are found");
    ok(keyed_get(zone, t, str_from(buf, 2), false) == NULL, "a part of a key is not");
    ok(keyed_put(zone, t, str_from(buf, SIZE_MAX / 2), 9, &created) == NULL,
       "a key that is larger than the zone");
    while ((v = keyed_oldest(zone, t, NULL)) != NULL)
        keyed_delete(zone, t, v);
    is_uint(zone_bytes_free(zone), before, "all of it given back");
    zone_destroy(zone);
}

static void test_evict(void)
{
    struct zone *zone = open_zone(ZONE_MIN);
    struct keyed *t = keyed_new(zone, 16, 0);
    unsigned n = 0, full;
    bool created;

    while (put(zone, t, n, 0, &created) != NULL)
        n++;
    full = n;
    ok(full > 400, "entries in the smallest zone: %u", full);
    ok(!created && keyed_count(t) == full, "without eviction a full zone refuses");
    ok(put(zone, t, n, 1, &created) != NULL && created, "with it there is room");
    ok(keyed_count(t) == full && keyed_get(zone, t, key(0), false) == NULL, "where the oldest was");
    while (n++ < 5000 && put(zone, t, n, 1, &created) != NULL)
        ;
    is_uint(n, 5001, "again and again");
    ok(keyed_check(zone, t) == NULL && slab_check(zone) == NULL, "sound");
    ok(keyed_put(zone, t, str_from("", 0), 0, &created) == NULL, "still full");
    zone_destroy(zone);
}

/* Threads of one process are kept apart by the lock as well; what status reads needs none. */
static void *thread_main(void *arg)
{
    struct zone *zone = arg;

    for (unsigned i = 0; i < 20000; i++) {
        struct keyed *t = zone_at(zone, zone_root(zone));
        bool created;
        uint32_t k = i % 3000;
        void *v;

        zone_lock(zone);
        v = keyed_put(zone, t, str_from((char *) &k, 4), 4, &created);
        if (v != NULL && i % 3 == 0)
            keyed_delete(zone, t, v);
        zone_unlock(zone);
        if (zone_bytes_free(zone) > zone_bytes_total(zone) || zone_recoveries(zone) != 0)
            return arg;
    }
    return NULL;
}

static void test_threads(void)
{
    struct zone *zone = open_zone(ZONE_MIN);
    struct keyed *t = keyed_new(zone, 16, 64);
    pthread_t thread[4];
    void *result, *wrong = NULL;

    zone_set_root(zone, zone_off(zone, t));
    for (unsigned i = 0; i < ARRAY_LEN(thread); i++) {
        if (pthread_create(&thread[i], NULL, thread_main, zone) != 0)
            abort();
    }
    for (unsigned i = 0; i < ARRAY_LEN(thread); i++) {
        (void) pthread_join(thread[i], &result);
        wrong = result != NULL ? result : wrong;
    }
    ok(wrong == NULL && keyed_check(zone, t) == NULL && slab_check(zone) == NULL, "four threads");
    zone_destroy(zone);
}

static double seconds(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void test_million(void)
{
    enum { N = 1000000 };
    struct zone *zone = open_zone((size_t) 96 << 20);
    struct keyed *t = keyed_new(zone, 16, 0);
    uint32_t k, x = 12345, missing = 0, refused = 0;
    double t0, t1, t2, t3;
    bool created;

    t0 = seconds();
    for (k = 0; k < N; k++) {
        zone_lock(zone);
        refused += keyed_put(zone, t, str_from((char *) &k, 4), 0, &created) == NULL;
        zone_unlock(zone);
    }
    t1 = seconds();
    for (unsigned i = 0; i < N; i++) {
        x = x * 1664525 + 1013904223;
        k = (uint32_t) ((uint64_t) x * N >> 32);
        zone_lock(zone);
        missing += keyed_get(zone, t, str_from((char *) &k, 4), true) == NULL;
        zone_unlock(zone);
    }
    t2 = seconds();
    for (unsigned i = 0; i < N; i++) { /* what a limit does for a new client in a full zone */
        k = N + i;
        zone_lock(zone);
        if (keyed_get(zone, t, str_from((char *) &k, 4), true) == NULL) {
            keyed_delete(zone, t, keyed_oldest(zone, t, NULL));
            refused += keyed_put(zone, t, str_from((char *) &k, 4), 0, &created) == NULL;
        }
        zone_unlock(zone);
    }
    t3 = seconds();
    ok(refused == 0 && missing == 0 && keyed_count(t) == N, "a million keys");
    diag("ns per operation: put %.0f, random get %.0f, get + delete + put %.0f",
         (t1 - t0) * 1e9 / N, (t2 - t1) * 1e9 / N, (t3 - t2) * 1e9 / N);
    t0 = seconds();
    for (k = 0; k < N; k++) {
        zone_lock(zone);
        zone_unlock(zone);
    }
    t1 = seconds();
    ok(slab_recover(zone) && keyed_recover(zone, t), "recovered");
    t2 = seconds();
    diag("lock and unlock %.0f ns; recovery of a million keys %.0f ms; %zu bytes of memory a key",
         (t1 - t0) * 1e9 / N, (t2 - t1) * 1e3,
         (zone_bytes_total(zone) - zone_bytes_free(zone)) / N);
    ok(keyed_check(zone, t) == NULL, "sound");
    zone_destroy(zone);
}

int main(void)
{
    test_order();
    test_keys();
    test_evict();
    test_threads();
    test_million();
    return done_testing();
}
