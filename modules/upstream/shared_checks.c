/* SPDX-License-Identifier: BSD-2-Clause */
/* What active checks have found out about the servers of a group in a zone, and who makes them (health.c). */
#include "modules/upstream/shared.h"

static struct peer_check *check_at(struct zone *zone, const struct zone_group *zg, unsigned c,
                                   unsigned i)
{
    const struct zone_places *p = places_of(zone, zg);
    struct peer_check *all = zone_at(zone, p->checks);

    return &all[(size_t) c * p->capacity + i];
}

/* What all checks together say of a server. */
static uint32_t checked_state(struct zone *zone, const struct zone_group *zg, unsigned i)
{
    uint32_t state = 0;

    for (unsigned c = 0; c < zg->check_count; c++) {
        const struct peer_check *pc = check_at(zone, zg, c, i);

        state |= (pc->sick ? PEER_SICK : 0) | (pc->unchecked ? PEER_UNCHECKED : 0);
    }
    return state;
}

void shared_checks_begin(struct zone *zone, const struct zone_group *zg, unsigned i,
                         const struct health *health)
{
    for (unsigned c = 0; c < zg->check_count; c++)
        *check_at(zone, zg, c, i) =
            (struct peer_check){ .id = health->checks[c]->id,
                                 .unchecked = health->checks[c]->mandatory };
}

void shared_checks_copy(struct zone *zone, const struct zone_group *zg, unsigned i,
                        const struct zone_group *old, unsigned k, const struct health *health)
{
    struct peer_view v;

    for (unsigned c = 0; c < zg->check_count; c++) {
        struct peer_check *to = check_at(zone, zg, c, i);

        if (health->checks[c]->mandatory && !health->checks[c]->persistent)
            continue;
        for (unsigned o = 0; o < old->check_count; o++) {
            const struct peer_check *from = check_at(zone, old, o, k);

            if (from->id == to->id)
                *to = *from;
        }
    }
    shared_view(zone, zg, &v);
    shared_checks_settle(zone, zg, &v, i);
}

void shared_checks_settle(struct zone *zone, const struct zone_group *zg, struct peer_view *v,
                          unsigned i)
{
    peers_checked(v, i, checked_state(zone, zg, i), clock_ms() / 1000);
    shared_note_state(&shared_server(zone, zg, i)->stats, v->state[i]);
}

/* The prober ---------------------------------------------------------------------------------------------- */

bool shared_prober_take(struct upstream *g)
{
    return shared_office_take(g, offsetof(struct zone_group, prober));
}

void shared_prober_leave(struct upstream *g)
{
    shared_office_leave(g, offsetof(struct zone_group, prober));
}

uint64_t shared_check_started(struct upstream *g, unsigned check, const struct peer *peer,
                              bool *awaited)
{
    struct zone_group *zg = shared_lock(g);
    const struct peer_check *pc = check_at(g->zone, zg, check, peer->index);
    uint64_t ms = pc->started_ms;

    *awaited = pc->unchecked;
    zone_unlock(g->zone);
    return ms;
}

/* Whether this worker checks the server, and it is the one that it was. */
static bool is_mine(const struct upstream *g, const struct zone_group *zg, const struct peer *peer)
{
    return zg->prober.holder == g->zone_held && g->peers[peer->index] == peer && !peer->gone;
}

bool shared_check_begin(struct upstream *g, unsigned check, const struct peer *peer)
{
    struct zone_group *zg = shared_lock(g);
    bool go = is_mine(g, zg, peer) && !(g->view.state[peer->index] & PEER_DOWN);

    if (go)
        check_at(g->zone, zg, check, peer->index)->started_ms = clock_ms();
    zone_unlock(g->zone);
    return go;
}

/* Counts the result. */
static void count_check(struct peer_check *pc, struct peer_record *rec,
                        const struct health_check *conf, bool passed)
{
    rec->checks++;
    rec->last_passed = passed;
    if (passed) {
        pc->fails = 0;
        pc->passes = MIN(pc->passes + 1, conf->passes);
        if (pc->unchecked || pc->passes == conf->passes)
            pc->sick = false;
    } else {
        rec->failed_checks++;
        pc->passes = 0;
        pc->fails = MIN(pc->fails + 1, conf->fails);
        if (pc->unchecked || pc->fails == conf->fails)
            pc->sick = true;
    }
    pc->unchecked = false;
}

enum health_change shared_check_end(struct upstream *g, unsigned check, const struct peer *peer,
                                    bool passed)
{
    struct zone_group *zg = shared_lock(g);
    struct peer_view *v = &g->view;
    const uint32_t bits = PEER_SICK | PEER_UNCHECKED;
    unsigned i = peer->index;
    uint32_t before = v->state[i] & bits, after = before;

    if (is_mine(g, zg, peer)) {
        count_check(check_at(g->zone, zg, check, i), &v->records[i], g->health->checks[check],
                    passed);
        shared_checks_settle(g->zone, zg, v, i);
        after = v->state[i] & bits;
    }
    zone_unlock(g->zone);
    if (after & ~before & PEER_SICK)
        return HEALTH_SICK;
    return before != 0 && after == 0 ? HEALTH_WELL : HEALTH_SAME;
}
