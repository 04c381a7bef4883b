/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of cells: random changes against a model while the table grows, by several threads too (the test is also to be built with
 * -fsanitize=thread), how many keys a zone holds before one of them
 * makes way, and which one does.
 */
#include "t/unit/core/zone/cells_check.h"
#include "t/unit/tap.h"

#define KEYS 6000
#define CHANGES 400000

static struct zone *zone;

static struct cells *table(void)
{
    return zone_at(zone, zone_root(zone));
}

static int start(struct zone *z, void *data)
{
    struct cells *t = cells_new(z, zone_bytes_free(z));

    (void) data;
    zone_set_root(z, zone_off(z, t));
    return t != NULL ? 0 : -1;
}

static const struct zone_kind zone_kind_ = { .name = "cells", .version = 1, .init = start };

static void zone_open(size_t size)
{
    struct zone_spec spec = { STR_INIT("cells"), size, &zone_kind_, STR_INIT(""), NULL };

    zone = zone_create(&spec, log_main);
}

static uint64_t digest_of(unsigned n)
{
    return cells_digest(table()->seed, str_from((const char *) &n, sizeof(n)));
}

static uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

static const struct cells_kind kept = { NULL, NULL };

static void test_model(void)
{
    static uint32_t model[KEYS]; /* 0: absent */
    uint64_t seed = 88172645463325252u;
    unsigned wrong = 0, first;
    size_t in_model = 0;

    zone_open(1 << 20);
    first = table()->in_use;
    for (unsigned i = 0; i < CHANGES; i++) {
        unsigned n = (unsigned) (rnd(&seed) % KEYS);
        uint64_t digest = digest_of(n);
        struct cells_page *page = cells_lock(zone, table(), &kept, digest);
        struct cell cell = cells_find(page, digest);

        if (cell.line == NULL) {
            wrong += model[n] != 0;
            cell = cells_put(table(), &kept, page, digest, NULL);
            wrong += cell.line->narrow[cell.n] != 0 || cell.line->wide[cell.n] != 0;
            cell.line->narrow[cell.n] = model[n] = i + 1;
            cell.line->wide[cell.n] = ~(uint64_t) i;
            in_model++;
        } else {
            wrong += cell.line->narrow[cell.n] != model[n] ||
                     cell.line->wide[cell.n] != ~(uint64_t) (model[n] - 1);
            if (i % 3 == 0) {
                cells_drop(page, cell);
                model[n] = 0;
                in_model--;
            }
        }
        cells_unlock(zone, table(), &kept, page);
    }
    is_uint(wrong, 0, "a cell is there when it should be, with its value");
    is_uint(cells_each(zone, table(), NULL, NULL), in_model, "and there are no others");
    is_str(cells_check(zone, table()), NULL, "all is sound");
    ok(table()->in_use > first && table()->in_use < 200, "the table has grown from %u pages to %u",
       first, (unsigned) table()->in_use);
    zone_destroy(zone);
}

/* data: since when cells are worth something. */
static uint64_t age(struct cell cell, const void *data)
{
    const uint64_t *from = data;

    return cell.line->wide[cell.n] >= *from ? cell.line->wide[cell.n] : 0;
}

static const struct cells_kind aging = { age, NULL };

static void put(const struct cells_kind *kind, unsigned n, uint64_t from)
{
    uint64_t digest = digest_of(n);
    struct cells_page *page = cells_lock(zone, table(), kind, digest);
    struct cell cell = cells_find(page, digest);

    if (cell.line == NULL)
        cell = cells_put(table(), kind, page, digest, &from);
    if (cell.line != NULL)
        cell.line->wide[cell.n] = n + 1;
    cells_unlock(zone, table(), kind, page);
}

static size_t held(unsigned from, unsigned to)
{
    size_t count = 0;

    for (unsigned n = from; n < to; n++) {
        uint64_t digest = digest_of(n);
        struct cells_page *page = cells_lock(zone, table(), &aging, digest);

        count += cells_find(page, digest).line != NULL;
        cells_unlock(zone, table(), &aging, page);
    }
    return count;
}

static void test_capacity(void)
{
    static const unsigned megabytes[] = { 1, 3, 10, 32 };

    for (unsigned i = 0; i < ARRAY_LEN(megabytes); i++) {
        unsigned many = megabytes[i] * 16384;

        zone_open((size_t) megabytes[i] << 20);
        for (unsigned n = 0; n < many; n++)
            put(&aging, n, 0);
        /* One page of a few thousand, of those that have no other half, may be too full by chance. */
        ok(held(0, many) >= many - many / 20000, "%u MB hold %u keys", megabytes[i], many);
        for (unsigned n = many; n < many * 4; n++)
            put(&aging, n, 0);
        ok(held(many * 3, many * 4) >= many - many / 20000, "of more, the youngest remain");
        ok(held(0, many) < many / 2, "the oldest do not");
        is_str(cells_check(zone, table()), NULL, "all is sound");
        zone_destroy(zone);
    }
}

static void test_expiry(void)
{
    unsigned before;

    zone_open(1 << 20);
    for (unsigned n = 0; n < 8000; n++)
        put(&aging, n, 0);
    before = table()->in_use;
    for (unsigned n = 8000; n < 200000; n++)
        put(&aging, n, n - 4000);
    is_uint(held(196000, 200000), 4000, "what is worth something stays");
    /* By chance a page may have been about to. */
    ok(table()->in_use <= before + 2, "and the table does not grow for what is worth nothing");
    zone_destroy(zone);
}

static void test_full(void)
{
    unsigned n = 0;

    zone_open(ZONE_MIN);
    for (; n < 2000; n++)
        put(&kept, n, 0);
    ok(held(0, 2000) > 5 * 180 && held(0, 2000) < 2000, "without worth, a full page takes no more");
    is_uint(held(0, 500), 500, "and what was there stays");
    zone_destroy(zone);
}

/* Several at once, each with keys of its own, of which it alone knows what is there, while the table grows. */
#define THREADS 4

static void *change(void *arg)
{
    static unsigned wrong[THREADS];
    unsigned me = *(unsigned *) arg;
    uint32_t *model = mem_zalloc(KEYS * sizeof(*model));
    uint64_t seed = 88172645463325252u + me;

    for (unsigned i = 0; i < CHANGES / 4; i++) {
        unsigned n = (unsigned) (rnd(&seed) % KEYS);
        uint64_t digest = digest_of(n * THREADS + me);
        struct cells_page *page = cells_lock(zone, table(), &kept, digest);
        struct cell cell = cells_find(page, digest);

        wrong[me] += (cell.line != NULL) != (model[n] != 0);
        if (cell.line == NULL)
            cell = cells_put(table(), &kept, page, digest, NULL);
        else
            wrong[me] += cell.line->narrow[cell.n] != model[n];
        /* A page may be full while the thread that makes the table grow has lost its processor. */
        if (cell.line != NULL)
            cell.line->narrow[cell.n] = model[n] = i + 1;
        if (cell.line != NULL && i % 5 == 0) {
            cells_drop(page, cell);
            model[n] = 0;
        }
        cells_unlock(zone, table(), &kept, page);
    }
    free(model);
    return &wrong[me];
}

static void test_threads(void)
{
    unsigned numbers[THREADS], wrong = 0, first;
    pthread_t threads[THREADS];

    zone_open(2 << 20);
    first = table()->in_use;
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        (void) pthread_create(&threads[i], NULL, change, &numbers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;

        (void) pthread_join(threads[i], &result);
        wrong += *(unsigned *) result;
    }
    is_uint(wrong, 0, "%u threads at once: nobody meets what is another's", THREADS);
    is_str(cells_check(zone, table()), NULL, "all is sound");
    ok(table()->in_use > first, "the table has grown from %u pages to %u", first,
       (unsigned) table()->in_use);
    zone_destroy(zone);
}

int main(void)
{
    test_model();
    test_threads();
    test_capacity();
    test_expiry();
    test_full();
    return done_testing();
}
