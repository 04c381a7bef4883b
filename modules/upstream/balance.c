/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Smooth weighted round robin, and the count of failures that takes a server out for a while.
 * Called by the exchange through struct balancer. State is per worker; it stands apart from
 * the peers (struct peer_state) so that it can be shared later.
 */
#include "core/base/clock.h"
#include "modules/upstream/internal.h"

#define TRIED_BITS 128

static uint64_t *tried_word(struct choice *c, unsigned i)
{
    return c->tried_more != NULL ? &c->tried_more[i / 64] : &c->tried[i / 64];
}

static uint64_t tried_bit(unsigned i)
{
    return UINT64_C(1) << (i % 64);
}

static bool is_tried(struct choice *c, unsigned i)
{
    return (*tried_word(c, i) & tried_bit(i)) != 0;
}

static void set_tried(struct choice *c, unsigned i)
{
    *tried_word(c, i) |= tried_bit(i);
}

static void clear_tried(struct choice *c, unsigned i)
{
    *tried_word(c, i) &= ~tried_bit(i);
}

static void start(struct choice *c)
{
    const struct upstream *g = c->group;

    c->tries = g->live + g->live_backup;
    c->on_backup = false;
    c->peer = NULL;
    memset(c->tried, 0, sizeof(c->tried));
    if (unlikely(g->count > TRIED_BITS))
        c->tried_more = ARENA_ARRAY(c->req->arena, uint64_t, (g->count + 63) / 64);
}

static bool is_usable(const struct peer *p, uint64_t now_s)
{
    const struct peer_state *s = p->state;

    if (p->down || (p->max_conns > 0 && s->conns >= p->max_conns))
        return false;
    return p->max_fails == 0 || s->fails < p->max_fails || now_s - s->checked_s > p->fail_timeout_s;
}

/* The best of the servers from..to that this request has not asked yet, or NULL. */
static struct peer *pick(struct choice *c, unsigned from, unsigned to, uint64_t now_s)
{
    struct peer *best = NULL;
    int64_t total = 0;

    for (unsigned i = from; i < to; i++) {
        struct peer *p = &c->group->peers[i];
        struct peer_state *s = p->state;

        if (is_tried(c, i) || !is_usable(p, now_s))
            continue;
        s->current_weight += s->effective_weight;
        total += s->effective_weight;
        if (s->effective_weight < p->weight)
            s->effective_weight++;
        if (best == NULL || s->current_weight > best->state->current_weight)
            best = p;
    }
    if (best != NULL)
        best->state->current_weight -= total;
    return best;
}

static int get(struct choice *c)
{
    struct upstream *g = c->group;
    uint64_t now_s = 0;
    struct peer *p;

    if (g->count == 1) {
        /* A server without alternatives is never taken out for failures. */
        p = &g->peers[0];
        if (p->down || (p->max_conns > 0 && p->state->conns >= p->max_conns))
            p = NULL;
    } else {
        now_s = clock_ms() / 1000;
        p = c->on_backup ? NULL : pick(c, 0, g->primary, now_s);
        if (p == NULL && g->primary < g->count) {
            c->on_backup = true;
            p = pick(c, g->primary, g->count, now_s);
        }
    }
    c->peer = p;
    if (p == NULL)
        return -1;
    if (g->count > 1) {
        set_tried(c, (unsigned) (p - g->peers));
        if (now_s - p->state->checked_s > p->fail_timeout_s)
            p->state->checked_s = now_s;
    }
    p->state->conns++;
    return 0;
}

static void note_failure(struct choice *c, struct peer *p)
{
    struct peer_state *s = p->state;
    uint64_t now_s = clock_ms() / 1000;

    s->fails++;
    s->accessed_s = now_s;
    s->checked_s = now_s;
    if (p->max_fails == 0)
        return;
    s->effective_weight = MAX(0, s->effective_weight - p->weight / p->max_fails);
    if (s->fails >= p->max_fails)
        log_warn(&c->req->log, 0, "upstream server temporarily disabled");
}

static void put_back(struct choice *c, enum peer_outcome outcome)
{
    struct peer *p = c->peer;

    if (p == NULL)
        return;
    c->peer = NULL;
    ASSERT(p->state->conns > 0);
    p->state->conns--;
    if (outcome == PEER_STALE) {
        clear_tried(c, (unsigned) (p - c->group->peers));
        return;
    }
    if (c->tries > 0)
        c->tries--;
    if (c->group->count == 1)
        return;
    if (outcome == PEER_FAILED)
        note_failure(c, p);
    else if (p->state->accessed_s < p->state->checked_s)
        p->state->fails = 0; /* the look after fail_timeout found it well */
}

const struct balancer balancer_round_robin = {
    .name = "round_robin",
    .start = start,
    .get = get,
    .free = put_back,
};
