/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A group's servers come, change and go while others are being chosen. Places are stable: a server keeps its index, and the place of
 * one that has gone is free for another when its connections are over. The sums are made anew after each change: changes
 * are rare, and a sum that is made anew is right whatever was before, also a death in the midst of a change.
 */
#include "modules/upstream/peers.h"

/* What a place without a server looks like: nothing divides by zero, nothing counts it. */
static void clear(struct peer_view *v, unsigned i)
{
    v->state[i] = PEER_GONE | PEER_BACKUP;
    v->weight[i] = v->effective[i] = 1;
    v->current[i] = 0;
    v->time_ms[i] = 0;
}

void peers_place(struct peer_view *v, unsigned i, int32_t weight, uint32_t state,
                 const struct peer_record *record)
{
    ASSERT(i <= v->set->count && i < v->set->capacity);
    ASSERT(i == v->set->count || ((v->state[i] & PEER_GONE) && v->conns[i] == 0));
    peers_settle(v);
    clear(v, i);
    v->records[i] = *record;
    if (!(state & PEER_GONE)) {
        v->weight[i] = v->effective[i] = weight * (int32_t) v->set->scale;
        v->state[i] = state;
    }
    if (i == v->set->count) {
        v->conns[i] = 0;
        v->set->count++;
    }
}

void peers_change(struct peer_view *v, unsigned i, int32_t weight, uint32_t state,
                  const struct peer_record *record)
{
    const uint32_t bits = PEER_DOWN | PEER_DRAIN | PEER_BACKUP;
    struct peer_record *rec = &v->records[i];
    int32_t full = weight * (int32_t) v->set->scale;
    bool slow = rec->slow_from_s != 0 && record->slow_start_s > 0 && !(state & PEER_DOWN);

    peers_settle(v);
    rec->max_fails = record->max_fails;
    rec->fail_timeout_s = record->fail_timeout_s;
    rec->max_conns = record->max_conns;
    rec->slow_start_s = record->slow_start_s;
    if (v->state[i] & PEER_GONE) {
        rec->slow_from_s = 0;
        return;
    }
    /* Who is still being warmed does not get his full share because something about him changes. */
    if (slow) {
        rec->slow_weight = full;
        v->weight[i] = v->effective[i] = MIN(v->weight[i], full);
    } else {
        v->weight[i] = v->effective[i] = full;
        __atomic_store_n(&rec->slow_from_s, 0, __ATOMIC_RELEASE);
    }
    v->state[i] = (v->state[i] & ~(bits | PEER_FULL)) | (state & bits);
    if (rec->max_conns > 0 && v->conns[i] >= rec->max_conns)
        v->state[i] |= PEER_FULL;
    if (rec->max_fails == 0 || rec->fails < rec->max_fails)
        v->state[i] &= ~(uint32_t) PEER_BROKEN;
}

void peers_leave(struct peer_view *v, unsigned i)
{
    peers_settle(v);
    clear(v, i);
    v->records[i].slow_from_s = 0;
    v->records[i].max_conns = 0;
}

int32_t peers_weight(const struct peer_view *v, unsigned i)
{
    const struct peer_record *rec = &v->records[i];
    int32_t weight = rec->slow_from_s != 0 ? rec->slow_weight : v->weight[i];

    return weight / (int32_t) v->set->scale;
}

void peers_rescale(struct peer_view *v)
{
    if (v->set->scale == PEERS_SCALE)
        return;
    peers_settle(v);
    for (unsigned i = 0; i < v->set->count; i++) {
        if (v->state[i] & PEER_GONE)
            continue;
        v->weight[i] *= PEERS_SCALE;
        v->effective[i] = v->weight[i];
        v->current[i] = 0;
    }
    v->set->scale = PEERS_SCALE;
}

void peers_recount(struct peer_view *v)
{
    struct peer_set *set = v->set;
    int32_t first = 0;

    peers_settle(v);
    set->primary_live = set->backup_live = set->broken = set->slowing = set->gone = 0;
    set->conns = 0;
    set->weight = 0;
    set->uniform = true;
    set->lowered = true;
    set->looked_s = 0; /* other times may be over now */
    for (unsigned i = 0; i < set->count; i++) {
        uint32_t state = v->state[i];

        set->conns += v->conns[i];
        if (state & PEER_GONE) {
            set->gone++;
            continue;
        }
        set->broken += (state & PEER_BROKEN) != 0;
        set->slowing += v->records[i].slow_from_s != 0;
        if (state & PEER_BACKUP) {
            set->backup_live += !(state & PEER_DOWN);
            continue;
        }
        if (set->weight == 0)
            first = v->weight[i];
        set->uniform &= v->weight[i] == first;
        set->weight += v->weight[i];
        set->primary_live += !(state & PEER_DOWN);
    }
    if (!peers_alone(v))
        return;
    /* Who has become the only one is not kept out, now or later, for what it did while there were others. */
    set->broken = 0;
    for (unsigned i = 0; i < set->count; i++) {
        v->state[i] &= ~(uint32_t) PEER_BROKEN;
        v->records[i].fails = 0;
    }
}

void peers_move(struct peer_view *from, void *memory, unsigned capacity)
{
    unsigned count = from->set->count;
    struct peer_view to;

    peers_settle(from);
    memcpy(memory, from->set, sizeof(*from->set));
    ((struct peer_set *) memory)->capacity = capacity;
    peers_map(&to, memory);
    memcpy(to.state, from->state, count * sizeof(*to.state));
    memcpy(to.current, from->current, count * sizeof(*to.current));
    memcpy(to.effective, from->effective, count * sizeof(*to.effective));
    memcpy(to.weight, from->weight, count * sizeof(*to.weight));
    memcpy(to.conns, from->conns, count * sizeof(*to.conns));
    memcpy(to.time_ms, from->time_ms, count * sizeof(*to.time_ms));
    memcpy(to.records, from->records, count * sizeof(*to.records));
}
