/* SPDX-License-Identifier: BSD-2-Clause */
/* A group's numbers, and what attempts do to them. The passes over them are in passes.c. */
#include "modules/upstream/peers.h"

/* How much of a new time goes into the average. */
#define TIME_SHARE 0.125f

/* The set ------------------------------------------------------------------------------------- */

/* Each array begins on a cache line of its own and fills it: passes read up to seven numbers behind the last. */
static size_t array_size(unsigned capacity)
{
    return ((size_t) capacity * 4 + 63) & ~(size_t) 63;
}

/* Every class may leave a row half empty. */
static size_t row_count(unsigned capacity)
{
    return capacity / PEER_ROW + MIN(capacity, PEER_CLASSES);
}

static size_t header_size(void)
{
    return (sizeof(struct peer_set) + 63) & ~(size_t) 63;
}

size_t peers_size(unsigned capacity)
{
    size_t rows = row_count(capacity);

    return header_size() + 7 * array_size(capacity) + capacity * sizeof(struct peer_record) +
           rows * PEER_ROW * (sizeof(double) + sizeof(uint32_t)) + rows * sizeof(double);
}

void peers_init(struct peer_view *v, void *memory, unsigned capacity, bool slow)
{
    struct peer_set *set = memory;

    set->capacity = capacity;
    set->scale = slow ? PEERS_SCALE : 1;
    peers_map(v, memory);
}

void peers_map(struct peer_view *v, void *memory)
{
    char *p = memory;
    size_t step, seats;

    v->set = memory;
    v->held = NULL;
    step = array_size(v->set->capacity);
    p += header_size();
    v->state = (uint32_t *) (void *) p;
    v->current = (int32_t *) (void *) (p + step);
    v->effective = (int32_t *) (void *) (p + 2 * step);
    v->weight = (int32_t *) (void *) (p + 3 * step);
    v->conns = (uint32_t *) (void *) (p + 4 * step);
    v->time_ms = (float *) (void *) (p + 5 * step);
    v->seat = (uint32_t *) (void *) (p + 6 * step);
    p += 7 * step;
    seats = row_count(v->set->capacity) * PEER_ROW;
    v->number = (double *) (void *) p;
    v->sitting = (uint32_t *) (void *) (v->number + seats);
    v->highest = (double *) (void *) (v->sitting + seats);
    v->records = (struct peer_record *) (void *) (v->highest + seats / PEER_ROW);
}

unsigned peers_add(struct peer_view *v, int32_t weight, uint32_t state,
                   const struct peer_record *record)
{
    struct peer_set *set = v->set;
    unsigned i = set->count++;

    ASSERT(i < set->capacity);
    peers_settle(v);
    weight *= (int32_t) set->scale;
    v->weight[i] = v->effective[i] = weight;
    v->state[i] = state;
    v->records[i] = *record;
    if (state & PEER_BACKUP) {
        set->backup_live += !(state & PEER_DOWN);
    } else {
        set->uniform = set->weight == 0 || (set->uniform && weight == v->weight[0]);
        set->weight += weight;
        set->primary_live += !(state & PEER_DOWN);
    }
    return i;
}

/* Attempts ------------------------------------------------------------------------------------ */

/* Time does not go back: what has happened already by another worker's clock would be long ago. */
static inline uint64_t latest(struct peer_set *set, uint64_t now_s)
{
    if (now_s > set->now_s)
        set->now_s = now_s;
    return set->now_s;
}

/* Every change of a state while servers serve comes through here. */
static void set_state(struct peer_view *v, unsigned i, uint32_t state)
{
    v->state[i] = state;
    if (v->set->kept != PEERS_KEEP_NOTHING)
        peers_reorder(v, i);
}

/* Its connections or its time are others than before. */
static inline void load_changed(struct peer_view *v, unsigned i)
{
    if (v->set->kept >= PEERS_KEEP_IDLE)
        peers_reorder(v, i);
}

/* Its weight from now on, and how much of it. */
static void set_weight(struct peer_view *v, unsigned i, int32_t weight)
{
    peers_settle(v);
    v->weight[i] = v->effective[i] = weight;
}

/* A server that is well again begins with little. */
static void slow_begin(struct peer_view *v, unsigned i, uint64_t now_s)
{
    struct peer_record *rec = &v->records[i];

    if (likely(rec->slow_start_s == 0) || rec->slow_from_s != 0)
        return;
    rec->slow_weight = v->weight[i];
    /* A worker may die here: from now on slow_weight is what counts. */
    __atomic_store_n(&rec->slow_from_s, MAX(latest(v->set, now_s), 1), __ATOMIC_RELEASE);
    v->set->slowing++;
    set_weight(v, i, 1);
}

static void slow_end(struct peer_view *v, unsigned i)
{
    struct peer_record *rec = &v->records[i];

    if (likely(rec->slow_from_s == 0))
        return;
    set_weight(v, i, rec->slow_weight);
    __atomic_store_n(&rec->slow_from_s, 0, __ATOMIC_RELEASE);
    v->set->slowing--;
}

static void slow_grow(struct peer_view *v, unsigned i, uint64_t now_s)
{
    struct peer_record *rec = &v->records[i];
    uint64_t elapsed_s = now_s - rec->slow_from_s;

    if (rec->slow_from_s == 0)
        return;
    if (elapsed_s >= rec->slow_start_s)
        slow_end(v, i);
    else
        set_weight(v, i, MAX(1, (int32_t) ((uint64_t) rec->slow_weight * elapsed_s / rec->slow_start_s)));
}

static void mend(struct peer_view *v, unsigned i)
{
    if (v->state[i] & PEER_BROKEN) {
        set_state(v, i, v->state[i] & ~(uint32_t) PEER_BROKEN);
        v->set->broken--;
    }
}

static bool breaks(struct peer_view *v, unsigned i)
{
    const struct peer_record *rec = &v->records[i];

    if (rec->max_fails == 0 || rec->fails < rec->max_fails || (v->state[i] & PEER_BROKEN))
        return false;
    set_state(v, i, v->state[i] | PEER_BROKEN);
    v->set->broken++;
    slow_end(v, i);
    return true;
}

void peers_look(struct peer_view *v, uint64_t now_s)
{
    struct peer_set *set = v->set;

    now_s = latest(set, now_s);
    if (likely(set->broken + set->slowing == 0) || set->looked_s == now_s)
        return;
    set->looked_s = now_s;
    for (unsigned i = 0; i < set->count; i++) {
        slow_grow(v, i, now_s);
        if ((v->state[i] & PEER_BROKEN) && now_s - v->records[i].checked_s > v->records[i].fail_timeout_s)
            mend(v, i);
    }
}

void peers_take(struct peer_view *v, unsigned i, uint64_t now_s)
{
    struct peer_record *rec = &v->records[i];

    now_s = latest(v->set, now_s);
    if (v->held != NULL)
        v->held[i]++;
    v->conns[i]++;
    v->set->conns++;
    load_changed(v, i);
    if (unlikely(rec->max_conns > 0) && v->conns[i] >= rec->max_conns)
        set_state(v, i, v->state[i] | PEER_FULL);
    if (unlikely(rec->fails > 0) && now_s - rec->checked_s > rec->fail_timeout_s) {
        /* One request looks whether it is well again; until that is known the others go elsewhere. */
        rec->checked_s = now_s;
        breaks(v, i);
    }
}

void peers_give_back(struct peer_view *v, unsigned i)
{
    ASSERT(v->conns[i] > 0 && v->set->conns > 0);
    if (v->held != NULL)
        v->held[i]--;
    peers_count(v, i, -1);
}

void peers_count(struct peer_view *v, unsigned i, int64_t n)
{
    uint32_t max = v->records[i].max_conns;

    v->conns[i] += (uint32_t) n;
    v->set->conns += (uint32_t) n;
    load_changed(v, i);
    if (unlikely(max > 0))
        set_state(v, i, v->conns[i] >= max ? v->state[i] | PEER_FULL
                                           : v->state[i] & ~(uint32_t) PEER_FULL);
}

void peers_copy(struct peer_view *v, unsigned i, const struct peer_view *from, unsigned k)
{
    v->records[i].fails = from->records[k].fails;
    v->records[i].accessed_s = from->records[k].accessed_s;
    v->records[i].checked_s = from->records[k].checked_s;
    v->records[i].unhealthy = from->records[k].unhealthy;
    v->records[i].checks = from->records[k].checks;
    v->records[i].failed_checks = from->records[k].failed_checks;
    v->records[i].last_passed = from->records[k].last_passed;
    v->time_ms[i] = from->time_ms[k];
    load_changed(v, i);
    if (from->state[k] & PEER_BROKEN)
        breaks(v, i);
}

void peers_reset(struct peer_view *v)
{
    struct peer_set *set = v->set;

    set->conns = set->broken = 0;
    set->lowered = false;
    set->kept = PEERS_KEEP_NOTHING;
    for (unsigned i = 0; i < set->count; i++) {
        v->conns[i] = 0;
        v->current[i] = 0;
        v->effective[i] = v->weight[i];
        v->state[i] &= ~(uint32_t) (PEER_TRIED | PEER_FULL);
        set->broken += (v->state[i] & PEER_BROKEN) != 0;
    }
}

bool peers_failed(struct peer_view *v, unsigned i, uint64_t now_s)
{
    struct peer_record *rec = &v->records[i];

    rec->fails++;
    rec->accessed_s = rec->checked_s = latest(v->set, now_s);
    if (rec->max_fails == 0)
        return false;
    v->effective[i] = MAX(0, v->effective[i] - (int32_t) (v->weight[i] / rec->max_fails));
    v->set->lowered = true;
    if (!breaks(v, i) && v->set->kept != PEERS_KEEP_NOTHING)
        peers_reorder(v, i);
    return rec->fails >= rec->max_fails;
}

void peers_fine(struct peer_view *v, unsigned i, uint64_t now_s)
{
    struct peer_record *rec = &v->records[i];

    if (likely(rec->fails == 0) || rec->accessed_s >= rec->checked_s)
        return;
    rec->fails = 0;
    if (v->state[i] & PEER_BROKEN)
        slow_begin(v, i, now_s);
    mend(v, i);
}

void peers_checked(struct peer_view *v, unsigned i, uint32_t state, uint64_t now_s)
{
    const uint32_t bits = PEER_SICK | PEER_UNCHECKED;
    uint32_t before = v->state[i] & bits;

    if (before == state)
        return;
    set_state(v, i, (v->state[i] & ~bits) | state);
    if (state == 0)
        slow_begin(v, i, now_s);
    else
        slow_end(v, i);
    if (state & ~before & PEER_SICK)
        v->records[i].unhealthy++;
}

void peers_timed(struct peer_view *v, unsigned i, float ms)
{
    v->time_ms[i] = v->time_ms[i] > 0 ? v->time_ms[i] + (ms - v->time_ms[i]) * TIME_SHARE : ms;
    load_changed(v, i);
}

void peers_tried(struct peer_view *v, unsigned i, bool on)
{
    set_state(v, i, on ? v->state[i] | PEER_TRIED : v->state[i] & ~(uint32_t) PEER_TRIED);
}
