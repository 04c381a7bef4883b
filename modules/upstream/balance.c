/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choice among a group's servers: what all methods have in common (attempts of one request, failures, backups,
 * the count of connections), and those methods that are one pass over the numbers. Called by the exchange. Methods that
 * hash are in balance_hash.c.
 */
#include "core/base/clock.h"
#include "modules/upstream/internal.h"

/* A request's attempts -------------------------------------------------------------------------- */

void choice_start(struct choice *c, struct upstream *g, struct req *r)
{
    c->group = g;
    c->req = r;
    c->peer = NULL;
    upstream_look(g);
    c->tries = g->view.set->primary_live + g->view.set->backup_live;
    c->tried_count = 0;
    c->wanted = unlikely(g->sticky != NULL) ? sticky_find(g, r) : PEERS_NONE;
    if (unlikely(g->balancer->start != NULL))
        g->balancer->start(c);
}

/* Servers that this request has asked already stand aside while it chooses again. */
static void mark_tried(struct choice *c, bool on)
{
    for (unsigned i = 0; i < c->tried_count; i++)
        peers_tried(&c->group->view, c->tried[i], on);
}

static void add_tried(struct choice *c, unsigned i)
{
    if (c->tried_count == 0) {
        c->tried = c->tried_room;
        c->tried_capacity = ARRAY_LEN(c->tried_room);
    }
    if (c->tried_count == c->tried_capacity) {
        uint32_t *more = arena_alloc(c->req->arena, 2 * c->tried_capacity * sizeof(*more));

        memcpy(more, c->tried, c->tried_count * sizeof(*more));
        c->tried = more;
        c->tried_capacity *= 2;
    }
    c->tried[c->tried_count++] = i;
}

static unsigned by_method(struct choice *c, uint32_t want)
{
    const struct balancer *b = c->group->balancer;

    if (b->among != NULL)
        return b->among(&c->group->view, want);
    return want == 0 ? b->pick(c) : PEERS_NONE;
}

static unsigned pick(struct choice *c, uint64_t now_s)
{
    struct peer_view *v = &c->group->view;
    unsigned i;

    if (likely(v->set->count == 1)) {
        /* A server without alternatives is never taken out for failures. */
        bool serves = v->state[0] == 0 || v->state[0] == PEER_BACKUP ||
                      (c->wanted == 0 && peers_serves(v, 0));

        return serves && c->tried_count == 0 ? 0 : PEERS_NONE;
    }
    peers_look(v, now_s);
    if (unlikely(c->wanted != PEERS_NONE) && c->tried_count == 0 && peers_serves(v, c->wanted))
        return c->wanted;
    mark_tried(c, true);
    /* Tables of nothing are not looked at. */
    i = likely(v->set->weight > 0) ? by_method(c, 0) : PEERS_NONE;
    if (i == PEERS_NONE && v->set->backup_live > 0)
        i = by_method(c, PEER_BACKUP);
    mark_tried(c, false);
    return i;
}

int choice_next(struct choice *c)
{
    struct upstream *g = c->group;
    uint64_t now_s = clock_ms() / 1000;
    unsigned i;

    upstream_look(g);
    upstream_lock(g);
    i = pick(c, now_s);
    if (i != PEERS_NONE)
        peers_take(&g->view, i, now_s);
    upstream_unlock(g);
    if (g->zone != NULL && i != PEERS_NONE)
        shared_selected(g, i);
    c->peer = NULL;
    if (i == PEERS_NONE)
        return -1;
    c->peer = c->last = g->peers[i];
    add_tried(c, i);
    return 0;
}

/* What the end of an attempt says of the server. True: it is out for a while now. */
static bool judge_attempt(struct peer_view *v, unsigned i, enum peer_outcome outcome, float time_ms)
{
    if (time_ms >= 0)
        peers_timed(v, i, time_ms);
    if (peers_alone(v) || (v->state[i] & PEER_GONE))
        return false;
    if (outcome == PEER_FAILED)
        return peers_failed(v, i, clock_ms() / 1000);
    peers_fine(v, i, clock_ms() / 1000);
    return false;
}

static bool judge(struct upstream *g, unsigned i, enum peer_outcome outcome, float time_ms)
{
    bool out = judge_attempt(&g->view, i, outcome, time_ms);

    if (g->zone != NULL)
        shared_judged(g, i, outcome == PEER_FAILED, out);
    return out;
}

void choice_end(struct choice *c, enum peer_outcome outcome, float time_ms)
{
    struct upstream *g = c->group;
    bool out = false;
    unsigned i;

    if (c->peer == NULL)
        return;
    i = c->peer->index;
    c->peer = NULL;
    upstream_lock(g);
    peers_give_back(&g->view, i);
    if (outcome != PEER_STALE)
        out = judge(g, i, outcome, time_ms);
    upstream_unlock(g);
    if (outcome == PEER_STALE)
        c->tried_count--; /* it was the last one */
    else if (c->tries > 0)
        c->tries--;
    if (unlikely(g->queue != NULL))
        queue_wake(g->queue);
    if (out)
        log_warn(&c->req->log, 0, "upstream server temporarily disabled");
}

/* Methods ---------------------------------------------------------------------------------------- */

const struct balancer balancer_round_robin = { .name = "round robin", .among = peers_smooth };
const struct balancer balancer_least_conn = { .name = "least_conn", .among = peers_least };
const struct balancer balancer_least_time = { .name = "least_time", .among = peers_fastest };
