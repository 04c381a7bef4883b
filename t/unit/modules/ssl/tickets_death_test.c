/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keys of tickets in a zone whose user died while he made a new one: what tickets have been made with is still there, or
 * the next key is, whole, with the one before it.
 */
#define ZONE_STEPS

#include "t/unit/core/zone/check.h"
#include "modules/ssl/kept.c"
#include "modules/ssl/tickets.c"
#include "t/unit/core/zone/steps.h"

#define LIFETIME_S 100

static struct ssl_ticket_key first;
static bool fresh; /* a key of a lifetime that had none */

/* As current_key, but the lock is the test's. */
static void make(uint64_t lifetime_s)
{
    struct kept *k =
        kept_entry(zone, str_from((const char *) &lifetime_s, sizeof(lifetime_s)));
    struct rotating r = rotating_of(zone, k);

    r.lifetime_s = lifetime_s;
    (void) rotate(zone, k, &r, (uint64_t) time(NULL));
}

static void op_rotate(void) { make(LIFETIME_S); }
static void op_fresh(void) { make(LIFETIME_S + 1); }

static bool is_zero(const void *p, size_t n)
{
    static const char zeros[sizeof(struct rotating)];

    return memcmp(p, zeros, n) == 0;
}

static const char *check(void)
{
    struct keyed *t = kept_table(zone);
    const char *wrong = slab_check(zone);
    unsigned count = 0;
    bool there = false;
    struct kept *k;

    if (wrong == NULL)
        wrong = keyed_check(zone, t);
    for (k = keyed_next(zone, t, NULL); wrong == NULL && k != NULL; k = keyed_next(zone, t, k)) {
        struct rotating r = rotating_of(zone, k);

        count++;
        there = there || memcmp(&r.current.key, &first, sizeof(first)) == 0 ||
                memcmp(&r.previous.key, &first, sizeof(first)) == 0;
        if (r.current.made_s == 0 || r.current.key.size != 32 ||
            is_zero(r.current.key.mac, sizeof(r.current.key.mac)) ||
            is_zero(r.current.key.cipher, sizeof(r.current.key.cipher)))
            wrong = "a key is torn";
    }
    if (wrong == NULL && !there)
        wrong = "the key of tickets that were made is gone";
    if (wrong == NULL && (count < 1 || count > (fresh ? 2u : 1u)))
        wrong = "there are other keys than before or after";
    return wrong;
}

int main(void)
{
    struct zone_spec spec = { STR("keys"), ZONE_MIN, &keys_kind, STR(""), NULL };
    struct ssl_ticket_key key;

    log_quietly();
    zone = zone_create(&spec, log_main);
    if (!ok(zone != NULL && current_key(zone, LIFETIME_S, &first), "a zone with a key"))
        return done_testing();
    image_save();
    test_killed("another key", op_rotate, check);
    test_killed_twice("another key", op_rotate, check);
    fresh = true;
    test_killed("another lifetime", op_fresh, check);
    test_killed_twice("another lifetime", op_fresh, check);
    image_restore();
    op_rotate();
    op_fresh();
    ok(current_key(zone, LIFETIME_S, &key) && memcmp(&key, &first, sizeof(key)) != 0, "a new key");
    ok(find_shared(zone, first.name, &key) && memcmp(&key, &first, sizeof(key)) == 0,
       "and the one before is found");
    op_rotate();
    ok(!find_shared(zone, first.name, &key), "but not the one before that");
    for (uint64_t n = 0; n < 1000; n++) {
        if (!current_key(zone, 1000 + n, &key))
            break;
    }
    ok(current_key(zone, 9999, &key), "there is a key for any number of lifetimes");
    image_close();
    return done_testing();
}
