/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many connections and requests there are and were, over all workers. Each worker counts in a slot of its
 * own of a zone that is always there: a cache line that nobody else writes, without lock. When a worker
 * has ended, what it had accepted and served is added to the totals, and what it had open is
 * forgotten. Read by stub_status and its like.
 */
#include <limits.h>
#include <unistd.h>

#include "core/http/client.h"
#include "core/os/instance.h"

static struct client_counts alone; /* outside of a worker, and under -t */
struct client_counts *client_counts = &alone;
static struct zone *counts_zone;

/* What only grows. */
struct totals {
    uint64_t accepted, handled, requests;
};

/* A worker's slot. */
struct counts_slot {
    struct client_counts counts; /* the worker's own */
    uint64_t generation;         /* of its configuration */
    unsigned id;
    pid_t pid;          /* 0: no worker */
    pid_t master;       /* of two binaries, each has its own */
    struct totals base; /* at the reset: written under the lock by whoever resets */
};

/* The zone's root: of workers that have ended, and of all as they were at the reset. */
struct ended {
    struct totals totals, base;
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
    const struct client_counts *c = &((struct counts_slot *) slot)->counts;
    struct totals *ended;

    zone_lock(zone);
    ended = &ended_of(zone)->totals;
    ended->accepted += c->accepted;
    ended->handled += c->handled;
    ended->requests += c->requests;
    memset(slot, 0, sizeof(struct counts_slot)); /* under the lock, so that a sum has it once */
    zone_unlock(zone);
}

static const struct zone_kind counts_kind = {
    .name = "client_counts",
    .version = 2,
    .slot_size = sizeof(struct counts_slot),
    .init = counts_init,
    .recover = counts_recover,
    .worker_gone = worker_gone,
};

#define LOAD(of, member) __atomic_load_n(&(of)->member, __ATOMIC_RELAXED)
#define ADD(sum, of, member) ((sum)->member += LOAD(of, member))

static void add(struct client_counts *sum, const struct client_counts *c)
{
    ADD(sum, c, accepted);
    ADD(sum, c, handled);
    ADD(sum, c, requests);
    ADD(sum, c, active);
    ADD(sum, c, reading);
    ADD(sum, c, writing);
}

static void subtract(struct client_counts *sum, const struct totals *base)
{
    sum->accepted -= base->accepted;
    sum->handled -= base->handled;
    sum->requests -= base->requests;
}

static const struct counts_slot *slot_of(unsigned worker)
{
    return zone_slot(counts_zone, worker);
}

/* Who is neither sending a head nor waiting for an answer rests. Others count on while we add. */
static void complete(struct client_counts *sum)
{
    if (sum->active > sum->reading + sum->writing)
        sum->waiting = sum->active - sum->reading - sum->writing;
}

/* With the lock held. */
static void sum_all(struct client_counts *sum)
{
    const struct totals *ended = &ended_of(counts_zone)->totals;

    *sum = (struct client_counts){ .accepted = ended->accepted,
                                   .handled = ended->handled,
                                   .requests = ended->requests };
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++)
        add(sum, &slot_of(worker)->counts);
}

static void sum_since(struct client_counts *sum, bool since)
{
    memset(sum, 0, sizeof(*sum));
    if (counts_zone == NULL) {
        add(sum, client_counts);
    } else {
        zone_lock(counts_zone);
        sum_all(sum);
        if (since)
            subtract(sum, &ended_of(counts_zone)->base);
        zone_unlock(counts_zone);
    }
    complete(sum);
}

void client_counts_sum(struct client_counts *sum)
{
    sum_since(sum, false);
}

void client_counts_since(struct client_counts *sum)
{
    sum_since(sum, true);
}

void client_counts_reset(unsigned what)
{
    struct client_counts sum;
    struct totals *base;

    if (counts_zone == NULL)
        return;
    zone_lock(counts_zone);
    sum_all(&sum);
    base = &ended_of(counts_zone)->base;
    if (what & CLIENT_RESET_CONNECTIONS) {
        base->accepted = sum.accepted;
        base->handled = sum.handled;
    }
    if (what & CLIENT_RESET_REQUESTS)
        base->requests = sum.requests;
    zone_unlock(counts_zone);
}

/* Each worker by itself ---------------------------------------------------------------------- */

/* A worker of our configuration: those of an older one, or of another binary, go on only with what they have. */
static bool is_ours(const struct counts_slot *slot)
{
    return slot->pid != 0 && slot->generation == instance.generation && slot->master == getppid();
}

unsigned client_counts_workers(struct arena *arena, struct client_worker **out)
{
    struct client_worker *workers = NULL;
    unsigned count = 0, capacity = 0;

    if (counts_zone == NULL)
        return 0;
    zone_lock(counts_zone);
    for (unsigned i = 0; i < ZONE_WORKERS; i++) {
        const struct counts_slot *slot = slot_of(i);
        struct client_worker w = { .id = slot->id, .pid = slot->pid };
        unsigned at = count;

        if (!is_ours(slot))
            continue;
        add(&w.counts, &slot->counts);
        subtract(&w.counts, &slot->base);
        complete(&w.counts);
        workers = arena_grow(arena, workers, count++, &capacity, sizeof(*workers));
        for (; at > 0 && workers[at - 1].id > w.id; at--)
            workers[at] = workers[at - 1];
        workers[at] = w;
    }
    zone_unlock(counts_zone);
    *out = workers;
    return count;
}

bool client_counts_reset_worker(unsigned id)
{
    bool found = false;

    if (counts_zone == NULL)
        return false;
    zone_lock(counts_zone);
    for (unsigned i = 0; i < ZONE_WORKERS; i++) {
        struct counts_slot *slot = zone_slot(counts_zone, i);

        if (!is_ours(slot) || (id != UINT_MAX && slot->id != id))
            continue;
        slot->base = (struct totals){ LOAD(&slot->counts, accepted), LOAD(&slot->counts, handled),
                                      LOAD(&slot->counts, requests) };
        found = true;
    }
    zone_unlock(counts_zone);
    return found;
}

/* ---------------------------------------------------------------------------------------------- */

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
    struct counts_slot *slot;

    counts_zone = http->client_counts->zone;
    slot = zone_my_slot(counts_zone);
    slot->generation = instance.generation;
    slot->id = instance.worker;
    slot->master = getppid();
    slot->pid = getpid();
    client_counts = &slot->counts;
}
