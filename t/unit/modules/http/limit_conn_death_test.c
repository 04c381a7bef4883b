/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker that counts or gives back dies at every single store of the change, and whoever recovers
 * dies once more at every store of the recovery. Each count is then as before or as after; when
 * the master has given back what the dead one held, only the other's remain, and when that one
 * has gone too, no byte of the zone is missing.
 */
#define ZONE_STEPS

#define CROWDED 8

#include "t/unit/core/zone/cells_check.h"
#include "core/zone/ledger.c"
#include "modules/http/limit_conn.c"
#include "t/unit/core/zone/steps.h"

#define LIMIT 60
#define FULL 58 /* entries, which two small chunks of a ledger have: the next one needs another */

static size_t empty_free;

/* Worker 0 lives and holds "both" once; worker 1 dies: it holds "both", "own" and "many" often. */
static struct held_one both, own, many[FULL];

static uint64_t digest_of(const char *text)
{
    return cells_digest(limit_table(zone)->seed, str_cstr(text));
}

static enum outcome take(const char *text, struct held_one *one)
{
    return count(zone, limit_table(zone), digest_of(text), LIMIT, one);
}

static void give(const struct held_one *one)
{
    struct held *held = mem_zalloc(sizeof(*held) + sizeof(held->items[0]));

    held->count = 1;
    held->items[0] = *one;
    give_back(held);
    free(held);
}

static void setup(void)
{
    struct held_one other;
    unsigned n;

    zone_set_worker(0);
    (void) take("both", &other);
    zone_set_worker(1);
    (void) take("both", &both);
    (void) take("own", &own);
    for (n = 0; page_of(zone, limit_table(zone), digest_of("grow"))->used < CROWDED; n++) {
        char text[16];

        (void) snprintf(text, sizeof(text), "fill%u", n);
        if (page_of(zone, limit_table(zone), digest_of(text)) ==
            page_of(zone, limit_table(zone), digest_of("grow")))
            (void) take(text, &other);
    }
    n = 0;
    while (((struct ledger *) zone_my_slot(zone))->free != 0)
        (void) take("many", &many[n++]);
}

static void op_new(void)
{
    struct held_one one;

    (void) take("new", &one);
}

static void op_grow(void)
{
    struct held_one one;

    (void) take("grow", &one);
}

static void op_known(void)
{
    struct held_one one;

    give(&many[0]);
    (void) take("both", &one);
}

static void op_last(void)
{
    give(&own);
}
static void op_not_last(void)
{
    give(&both);
}

static const struct op {
    const char *name;
    void (*run)(void);
} ops[] = {
    { "a new key and a new chunk", op_new },
    { "a new key that makes the table grow", op_grow },
    { "a known key", op_known },
    { "the last of a key", op_last },
    { "not the last", op_not_last },
};

static uint32_t seen;

static bool see(struct zone *z, zone_off_t entry, uint64_t what, void *data)
{
    (void) z;
    (void) entry;
    (void) what;
    (void) data;
    seen++;
    return true;
}

static uint32_t counted(const char *text)
{
    struct cell cell =
        cells_find(page_of(zone, limit_table(zone), digest_of(text)), digest_of(text));

    return cell.line != NULL ? *count_of(cell) : 0;
}

static uint32_t sum;
static bool zero;

static void add(struct cell cell, void *data)
{
    (void) data;
    sum += *count_of(cell);
    zero = zero || *count_of(cell) == 0;
}

/* Empties the zone on the way. */
static const char *check(void)
{
    struct cells *t = limit_table(zone);
    const char *wrong;

    cells_lock_all(zone, t, &counts);
    zone_lock(zone);
    wrong = slab_check(zone);
    if (wrong == NULL)
        wrong = cells_check(zone, t);
    sum = seen = 0;
    (void) cells_each(zone, t, add, NULL);
    if (wrong == NULL && zero)
        wrong = "a count of zero stays";
    for (unsigned worker = 0; worker < 2; worker++)
        (void) ledger_each(zone, zone_slot(zone, worker), see, NULL);
    if (wrong == NULL && seen != sum)
        wrong = "counts and ledgers differ";
    zone_unlock(zone);
    cells_unlock_all(zone, t);
    if (wrong == NULL && zone_generation(zone) != 0)
        wrong = "the zone was wiped";
    zone_worker_gone(zone, 1, log_main);
    if (wrong == NULL && (counted("both") != 1 || cells_each(zone, t, NULL, NULL) != 1))
        wrong = "not what the living one holds";
    zone_worker_gone(zone, 0, log_main);
    return wrong == NULL && zone_bytes_free(zone) != empty_free ? "memory was lost" : wrong;
}

/* The recovery dies at the second step, if any. */
static void lock_only(void)
{
    zone_lock(zone);
    zone_unlock(zone);
    cells_lock_all(zone, limit_table(zone), &counts);
    cells_unlock_all(zone, limit_table(zone));
}

static void test(const struct op *op)
{
    unsigned long first, second, cases = 0;
    const char *wrong = NULL;
    bool died = true;

    for (first = 1; died && wrong == NULL; first++) {
        bool again = true;

        /* 0: nobody dies in the recovery */
        for (second = 0; again && wrong == NULL; second += 1 + second / 8, cases++) {
            image_restore();
            zone_set_worker(1);
            died = child_dies(op->run, first);
            again = died && (second == 0 || child_dies(lock_only, second));
            wrong = check();
        }
    }
    ok(wrong == NULL, "%s: killed at each of %lu steps, %lu cases%s%s", op->name, first - 2, cases,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
    if (wrong != NULL)
        diag("at step %lu, then %lu", first - 1, second);
}

int main(void)
{
    struct zone_spec spec = { STR("connections"), 24 * ZONE_PAGE, &conn_kind, STR(""), NULL };

    log_quietly();
    zone = zone_create(&spec, log_main);
    if (!ok(zone != NULL, "a zone"))
        return done_testing();
    empty_free = zone_bytes_free(zone);
    limit_table(zone)->in_use = 2;
    setup();
    image_save();
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
        test(&ops[i]);
    image_close();
    return done_testing();
}
