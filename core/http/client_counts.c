/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many connections and requests there are and were, over all workers. Each worker counts in a slot of its
 * own of a zone that is always there: a cache line that nobody else writes, without lock. When a worker
 * has ended, what it had accepted and served is added to the totals, and what it had open is
 * forgotten. Read by stub_status and its like.
 */
#include "core/http/client.h"

static struct client_counts alone; /* outside of a worker, and under -t */
struct client_counts *client_counts = &alone;
static struct zone *counts_zone;

/* The zone's root: of workers that have ended. */
struct ended {
    uint64_t accepted, handled, requests;
};

static struct ended *ended_of(const struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static int counts_init(struct zone *zone, void *data)
{
    struct ended *ended = zone_alloc(zone, sizeof(*ended));

    (void) data;
    if (ended == NULL)
        return -1;
    zone_set_root(zone, zone_off(zone, ended));
    return 0;
}

/* At worst the counts of one ended worker are in it twice, or in part. */
static bool counts_recover(struct zone *zone)
{
    return zone_root(zone) != 0;
}

static void worker_gone(struct zone *zone, void *slot)
{
    struct client_counts *c = slot;
    struct ended *ended;

    zone_lock(zone);
    ended = ended_of(zone);
    ended->accepted += c->accepted;
    ended->handled += c->handled;
    ended->requests += c->requests;
    memset(c, 0, sizeof(*c)); /* under the lock, so that a sum has it once */
    zone_unlock(zone);
}

static const struct zone_kind counts_kind = {
    .name = "client_counts",
    .version = 1,
    .slot_size = sizeof(struct client_counts),
    .init = counts_init,
    .recover = counts_recover,
    .worker_gone = worker_gone,
};

#define ADD(sum, of, member) ((sum)->member += __atomic_load_n(&(of)->member, __ATOMIC_RELAXED))

static void add(struct client_counts *sum, const struct client_counts *c)
{
    ADD(sum, c, accepted);
    ADD(sum, c, handled);
    ADD(sum, c, requests);
    ADD(sum, c, active);
    ADD(sum, c, reading);
    ADD(sum, c, writing);
}

void client_counts_sum(struct client_counts *sum)
{
    const struct ended *ended;

    memset(sum, 0, sizeof(*sum));
    if (counts_zone == NULL) {
        add(sum, client_counts);
    } else {
        zone_lock(counts_zone);
        ended = ended_of(counts_zone);
        sum->accepted = ended->accepted;
        sum->handled = ended->handled;
        sum->requests = ended->requests;
        for (unsigned worker = 0; worker < ZONE_WORKERS; worker++)
            add(sum, zone_slot(counts_zone, worker));
        zone_unlock(counts_zone);
    }
    /* Who is neither sending a head nor waiting for an answer rests. Others count on while we add. */
    if (sum->active > sum->reading + sum->writing)
        sum->waiting = sum->active - sum->reading - sum->writing;
}

int client_counts_configure(struct conf *cf)
{
    const char *error = NULL;

    conf_http(cf)->client_counts =
        res_zone(cf, STR("client counts"), ZONE_MIN, &counts_kind, &error);
    if (error == NULL)
        return 0;
    conf_error_at(cf, conf_http(cf)->level->pos, "%s", error);
    return -1;
}

void client_counts_start(const struct config *config)
{
    const struct http_main *http = config->http;

    counts_zone = http->client_counts->zone;
    client_counts = zone_my_slot(counts_zone);
}
