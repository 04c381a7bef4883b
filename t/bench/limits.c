/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tables of limits cost alone: cycles of the time stamp counter per request that limit_req and limit_conn judge,
 * of a million keys by random, and of one that is always the same. Nothing but tables, locks and ledgers is in
 * it. Best and median of batches of a thousand, since machines are shared:
 *
 *     cc -O2 -D_GNU_SOURCE -I. -IBUILD -o limits t/bench/limits.c BUILD/libproxyd.a -lcrypt -lz -lssl -lcrypto
 *         -lbrotlienc -lpcre2-8 -lcares -lpthread -lm && ./limits
 */
#include <x86intrin.h>

#include "modules/http/limit_conn.c"

#define KEYS 1000000
#define BATCH 1000
#define BATCHES 3000
#define IN_FLIGHT 64

static int init_requests(struct zone *zone, void *data)
{
    struct cells *t = cells_new(zone, zone_bytes_free(zone));

    (void) data;
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

static uint64_t worth(struct cell cell, const void *data)
{
    (void) data;
    return cell.line->wide[cell.n];
}

static const struct cells_kind requests_cells = { .worth = worth };
static struct zone *requests, *connections;
static struct held_one flight[IN_FLIGHT];

/* As limit_req does, but for the arithmetic. */
static void judge_request(uint64_t digest)
{
    struct cells *t = limit_table(requests);
    struct cells_page *page = cells_lock(requests, t, &requests_cells, digest);
    struct cell cell = cells_find(page, digest);

    if (cell.line == NULL)
        cell = cells_put(t, &requests_cells, page, digest, NULL);
    cell.line->wide[cell.n]++;
    cells_unlock(requests, t, &requests_cells, page);
}

static uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

/* With all that limits do between a key and its release, which comes IN_FLIGHT requests later. */
static void one(unsigned n, unsigned key)
{
    static struct cells_known of_connections, of_requests;
    struct held_one *held = &flight[n % IN_FLIGHT];
    struct str text = str_from((const char *) &key, sizeof(key));
    uint64_t digest = cells_digest(cells_know(&of_connections, connections)->seed, text);

    (void) cells_know(&of_requests, requests);
    cells_prefetch(&of_connections, digest);
    cells_prefetch(&of_requests, digest);
    if (held->zone != NULL)
        give_one(connections, held->table, zone_my_slot(connections), held->digest, held->entry);
    judge_request(digest);
    ASSERT(count(connections, of_connections.table, digest, 1000, held) == COUNTED);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void measure(const char *name, unsigned keys)
{
    static uint64_t took[BATCHES];
    uint64_t seed = 88172645463325252u;

    for (unsigned b = 0; b < BATCHES; b++) {
        uint64_t start = __rdtsc();

        for (unsigned i = 0; i < BATCH; i++)
            one(i, (unsigned) (rnd(&seed) % keys));
        took[b] = (__rdtsc() - start) / BATCH;
    }
    qsort(took, BATCHES, sizeof(took[0]), by_value);
    printf("%-10s best %llu, median %llu cycles a request\n", name, (unsigned long long) took[0],
           (unsigned long long) took[BATCHES / 2]);
}

int main(void)
{
    struct zone_kind kind = conn_kind;
    struct zone_spec spec = { STR_INIT("bench"), (size_t) 200 << 20, &conn_kind, STR_INIT(""),
                              NULL };

    connections = zone_create(&spec, log_main);
    kind.name = "requests";
    kind.init = init_requests;
    spec.kind = &kind;
    requests = zone_create(&spec, log_main);
    for (unsigned key = 0; key < KEYS; key++)
        judge_request(cells_digest(limit_table(requests)->seed,
                                   str_from((const char *) &key, sizeof(key))));
    measure("one key", 1);
    measure("a million", KEYS);
    return 0;
}
