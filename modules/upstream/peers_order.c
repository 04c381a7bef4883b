/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The next server, without a look at all of them. A step of smooth round robin lets every server of some gain its weight. Those that
 * weigh the same gain the same, so that their order stays: what they have gained is kept once for all of them, as of a
 * class, and each server's number without it. A step then comes down to the richest of each class, and to one number
 * that changes. least_time keeps the scores in the same way.
 *
 * A server whose state is 0 takes part; with least_conn only while it has no connection. Servers sit by class, in
 * the order of their indexes; 16 seats are a row, of which the highest number is kept. Whatever does not go into this order (a weight
 * that changes, or is lowered after a failure) ends it: what it knows is written down, passes go on, and it begins again when they have
 * made some choices. The choices are those of the passes.
 */
#include <math.h>

#include "modules/upstream/peers.h"

/* After so many passes: to seat everybody takes as long as some of them. */
#define PASSES_BEFORE 64
/* Integers are exact up to 2^53. */
#define GAINED_MAX 0x1p52
#define NOBODY (-INFINITY)

/* Seats ----------------------------------------------------------------------------------------- */

static inline double highest_of(const double *numbers, unsigned count)
{
    double a = NOBODY, b = a, c = a, d = a;
    unsigned i = 0;

    for (; i + 4 <= count; i += 4) {
        a = MAX(a, numbers[i]);
        b = MAX(b, numbers[i + 1]);
        c = MAX(c, numbers[i + 2]);
        d = MAX(d, numbers[i + 3]);
    }
    for (; i < count; i++)
        a = MAX(a, numbers[i]);
    a = MAX(a, b);
    c = MAX(c, d);
    return MAX(a, c);
}

static void set_number(struct peer_view *v, unsigned seat, double number)
{
    unsigned row = seat / PEER_ROW;
    double before = v->number[seat];

    v->number[seat] = number;
    if (number >= v->highest[row])
        v->highest[row] = number;
    else if (before == v->highest[row])
        v->highest[row] = highest_of(v->number + (size_t) row * PEER_ROW, PEER_ROW);
}

static double class_highest(const struct peer_view *v, const struct peer_class *c)
{
    return highest_of(v->highest + c->row, c->rows);
}

/* The first of the class that has the number, which is its highest. */
static unsigned class_find(const struct peer_view *v, const struct peer_class *c, double number)
{
    unsigned row = c->row, last = c->row + c->rows - 1, seat, end;

    while (row < last && v->highest[row] != number)
        row++;
    seat = row * PEER_ROW;
    end = seat + PEER_ROW - 1;
    while (seat < end && v->number[seat] != number)
        seat++;
    return v->sitting[seat];
}

static struct peer_class *class_of(const struct peer_view *v, unsigned i)
{
    struct peer_class *c = v->set->classes;

    while (v->seat[i] / PEER_ROW >= c->row + c->rows)
        c++;
    return c;
}

/* Who takes part -------------------------------------------------------------------------------- */

static bool takes_part(const struct peer_view *v, unsigned i)
{
    return v->state[i] == 0 && (v->set->kept != PEERS_KEEP_IDLE || v->conns[i] == 0);
}

static void join(struct peer_view *v, unsigned i, const struct peer_class *c)
{
    v->set->taking_part += v->weight[i];
    set_number(v, v->seat[i], v->current[i] - c->gained);
}

static void leave(struct peer_view *v, unsigned i, const struct peer_class *c)
{
    v->current[i] = (int32_t) (v->number[v->seat[i]] + c->gained);
    v->set->taking_part -= v->weight[i];
    set_number(v, v->seat[i], NOBODY);
}

void peers_reorder(struct peer_view *v, unsigned i)
{
    bool in, was_in;

    if (v->state[i] & PEER_BACKUP)
        return;
    in = takes_part(v, i);
    if (v->set->kept == PEERS_KEEP_TIMES) {
        set_number(v, v->seat[i], in ? -peers_time_score(v, i) : NOBODY);
        return;
    }
    was_in = v->number[v->seat[i]] != NOBODY;
    if (in && unlikely(v->effective[i] != v->weight[i]))
        peers_settle(v);
    else if (in && !was_in)
        join(v, i, class_of(v, i));
    else if (!in && was_in)
        leave(v, i, class_of(v, i));
}

/* Begin and end ----------------------------------------------------------------------------------- */

/* The class of a weight, a new one if need be; NULL: there are too many. Of times all servers are one class. */
static struct peer_class *class_for(struct peer_set *set, int32_t weight, bool times)
{
    for (unsigned k = 0; k < set->class_count; k++) {
        if (times || set->classes[k].weight == weight)
            return &set->classes[k];
    }
    if (set->class_count == PEER_CLASSES)
        return NULL;
    set->classes[set->class_count] = (struct peer_class){ .weight = weight };
    return &set->classes[set->class_count++];
}

/* Everybody has a seat, and no number yet. False: these servers have no order that can be kept. */
static bool be_seated(struct peer_view *v, bool times)
{
    struct peer_set *set = v->set;
    uint32_t rows = 0;

    set->class_count = 0;
    for (unsigned i = 0; i < set->count; i++) {
        struct peer_class *c;

        if (v->state[i] & PEER_BACKUP)
            continue;
        c = class_for(set, v->weight[i], times);
        if (c == NULL)
            return false;
        v->seat[i] = c->seats++;
    }
    for (unsigned k = 0; k < set->class_count; k++) {
        struct peer_class *c = &set->classes[k];

        c->row = rows;
        c->rows = (c->seats + PEER_ROW - 1) / PEER_ROW;
        rows += c->rows;
    }
    for (unsigned seat = 0; seat < rows * PEER_ROW; seat++)
        v->number[seat] = v->highest[seat / PEER_ROW] = NOBODY;
    for (unsigned i = 0; i < set->count; i++) {
        if (v->state[i] & PEER_BACKUP)
            continue;
        v->seat[i] += class_for(set, v->weight[i], times)->row * PEER_ROW;
        v->sitting[v->seat[i]] = i;
    }
    return true;
}

/* Whether the order is kept, from now on perhaps. */
static bool is_kept(struct peer_view *v, enum peers_keep keep)
{
    struct peer_set *set = v->set;

    if (likely(set->kept == keep))
        return true;
    peers_settle(v);
    if (likely(++set->passes < PASSES_BEFORE))
        return false;
    set->passes = 0;
    if (!be_seated(v, keep == PEERS_KEEP_TIMES))
        return false;
    set->taking_part = 0;
    /* A worker may die here: what is kept is whole. */
    __atomic_store_n(&set->kept, keep, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < set->count && set->kept == keep; i++)
        peers_reorder(v, i);
    return set->kept == keep;
}

void peers_settle(struct peer_view *v)
{
    struct peer_set *set = v->set;
    uint32_t kept = set->kept;

    if (likely(kept == PEERS_KEEP_NOTHING))
        return;
    set->passes = 0;
    for (unsigned k = 0; k < set->class_count && kept != PEERS_KEEP_TIMES; k++) {
        const struct peer_class *c = &set->classes[k];

        for (unsigned seat = c->row * PEER_ROW, end = seat + c->seats; seat < end; seat++) {
            if (v->number[seat] != NOBODY)
                v->current[v->sitting[seat]] = (int32_t) (v->number[seat] + c->gained);
        }
    }
    set->kept = PEERS_KEEP_NOTHING;
}

/* Choices ------------------------------------------------------------------------------------------ */

bool peers_next(struct peer_view *v, enum peers_keep keep, unsigned *chosen)
{
    struct peer_set *set = v->set;
    double highest[PEER_CLASSES], best = NOBODY, furthest = 0;
    unsigned next = PEERS_NONE, i;

    if (!is_kept(v, keep))
        return false;
    for (unsigned k = 0; k < set->class_count; k++) {
        struct peer_class *c = &set->classes[k];

        c->gained += c->weight;
        furthest = MAX(furthest, c->gained);
        highest[k] = class_highest(v, c);
        best = MAX(best, highest[k] + c->gained);
    }
    for (unsigned k = 0; k < set->class_count && best != NOBODY; k++) {
        if (highest[k] + set->classes[k].gained != best)
            continue;
        i = class_find(v, &set->classes[k], highest[k]);
        next = MIN(next, i);
    }
    if (next != PEERS_NONE)
        set_number(v, v->seat[next], v->number[v->seat[next]] - set->taking_part);
    if (unlikely(furthest > GAINED_MAX))
        peers_settle(v);
    *chosen = next;
    return true;
}

bool peers_next_time(struct peer_view *v, unsigned *chosen)
{
    const struct peer_class *all = v->set->classes;
    unsigned equal = 0;
    double best;

    if (!is_kept(v, PEERS_KEEP_TIMES))
        return false;
    if (v->set->class_count == 0)
        return false;
    best = class_highest(v, all);
    *chosen = best == NOBODY ? PEERS_NONE : class_find(v, all, best);
    if (best == NOBODY)
        return true;
    for (unsigned row = all->row; row < all->row + all->rows; row++) {
        if (v->highest[row] != best)
            continue;
        for (unsigned seat = row * PEER_ROW; seat < (row + 1) * PEER_ROW; seat++)
            equal += v->number[seat] == best;
    }
    return equal == 1;
}
