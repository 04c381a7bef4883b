/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Active health checks: one worker of all, the group's prober, has each server asked every `interval`
 * (health_probe.c); what follows from the answers lies in the zone (shared.c), where all workers see it
 * at once. When the prober's worker goes another one takes over within a second.
 * Called by groups.c when a worker starts and drains.
 */
#include "core/base/clock.h"
#include "modules/upstream/health.h"

#define LOOK_MS 1000 /* how often a worker looks whether there is a prober */
#define SPREAD_MS 5  /* between the first checks of two servers, at most */

/* When the first one is due: where somebody else has checked before, it is that one's turn that goes on. */
static uint64_t first_ms(const struct probe *p, unsigned number, unsigned count)
{
    const struct health_check *hc = p->check;
    uint64_t now_ms = clock_ms(), span_ms = MIN(hc->interval_ms, (uint64_t) count * SPREAD_MS);
    uint64_t turn_ms = number * span_ms / count, last_ms;
    bool awaited;

    last_ms = shared_check_started(p->prober->group, p->check_index, p->peer, &awaited);
    if (awaited || last_ms == 0)
        return turn_ms;
    return last_ms + hc->interval_ms > now_ms
               ? MIN(last_ms + hc->interval_ms - now_ms, hc->interval_ms)
               : turn_ms;
}

/* Whether there is a server to be checked. */
static bool is_there(const struct upstream *g, const struct peer *peer)
{
    return peer != NULL && g->peers[peer->index] == peer && !peer->gone && !peer->resolves;
}

static bool is_checked(const struct prober *prober, unsigned check, const struct peer *peer)
{
    for (unsigned n = 0; n < prober->count; n++) {
        if (prober->probes[n]->check_index == check && prober->probes[n]->peer == peer)
            return true;
    }
    return false;
}

/* Those of servers that have gone. */
static void drop_probes(struct prober *prober)
{
    unsigned kept = 0;

    for (unsigned n = 0; n < prober->count; n++) {
        struct probe *p = prober->probes[n];

        if (is_there(prober->group, p->peer)) {
            prober->probes[kept++] = p;
            continue;
        }
        probe_drop(p);
        free(p);
    }
    prober->count = kept;
}

/* For each server that has none. What is under way goes on. */
static void add_probes(struct prober *prober)
{
    struct upstream *g = prober->group;
    unsigned count = g->count, known = prober->count;

    prober->generation = g->generation;
    prober->probes = mem_realloc(prober->probes, (known + (size_t) g->health->count * count + 1)
                                                     * sizeof(*prober->probes));
    for (unsigned c = 0; c < g->health->count; c++) {
        for (unsigned i = 0; i < count; i++) {
            struct peer *peer = g->peers[i];
            struct probe *p;

            if (!is_there(g, peer) || (known > 0 && is_checked(prober, c, peer)))
                continue;
            p = prober->probes[prober->count++] = mem_zalloc(sizeof(*p));
            probe_init(p, prober, c, peer);
            timer_set(&p->timer, first_ms(p, i, count));
        }
    }
}

static void start_probes(struct prober *prober)
{
    add_probes(prober);
    log_debug(log_main, "this worker checks the servers of upstream \"%.*s\"",
              STR_ARG(prober->group->name));
}

static void stop_probes(struct prober *prober)
{
    for (unsigned i = 0; i < prober->count; i++) {
        probe_drop(prober->probes[i]);
        free(prober->probes[i]);
    }
    free(prober->probes);
    prober->probes = NULL;
    prober->count = 0;
}

static void look(struct timer *timer)
{
    struct prober *prober = container_of(timer, struct prober, timer);

    bool mine = shared_prober_take(prober->group);

    if (mine && prober->probes == NULL)
        start_probes(prober);
    else if (!mine && prober->probes != NULL)
        stop_probes(
            prober); /* this worker was silent for so long that another one has taken over */
    timer_set(&prober->timer, LOOK_MS);
}

void health_renew(struct upstream *g)
{
    struct prober *prober = g->health != NULL ? g->health->prober : NULL;

    if (prober == NULL || prober->probes == NULL || prober->generation == g->generation)
        return;
    drop_probes(prober);
    add_probes(prober);
}

void health_start(struct upstream *g)
{
    struct prober *prober;

    if (g->health == NULL || g->zone == NULL)
        return;
    prober = g->health->prober = mem_zalloc(sizeof(*prober));
    prober->group = g;
    prober->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = look };
    look(&prober->timer);
}

void health_stop(struct upstream *g)
{
    struct prober *prober = g->health != NULL ? g->health->prober : NULL;

    if (prober == NULL)
        return;
    g->health->prober = NULL;
    if (prober->probes != NULL) {
        stop_probes(prober);
        shared_prober_leave(g);
    }
    timer_drop(&prober->timer);
    free(prober);
}
