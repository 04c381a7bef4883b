/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choices that look at all servers of a group: smooth round robin, the fewest connections, the least time; and
 * round robin in constant time while it comes down to taking turns. The passes themselves are in passes.h: for any processor,
 * and for those with AVX2, with the same results to the bit.
 */
#include <float.h>

#include "modules/upstream/peers.h"

/* No vector is handed from one function to another but where it is inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define SELECT(mask, yes, no) (((yes) & (mask)) | ((no) & ~(mask)))

/*
 * What is compared. A quotient of two integers of this size is the same double for equal fractions and another
 * one for others, so that equals are told exactly.
 */
enum score { SCORE_NONE, SCORE_CONNS_PER_WEIGHT, SCORE_TIME };

/* Among whom: all, those with as many connections, with the same quotient as a float, with the same score. */
enum among { AMONG_ALL, AMONG_CONNS, AMONG_RATIO, AMONG_EXACT };

static inline double peers_score(const struct peer_view *v, enum score kind, unsigned i)
{
    return kind == SCORE_TIME ? (double) v->time_ms[i] * (v->conns[i] + 1) / v->weight[i]
                              : (double) v->conns[i] / v->weight[i];
}

/* What a float can have become of a score: a few roundings, and whatever is left of numbers that are next to 0. */
static inline float score_limit(double least)
{
    return (float) (least * (1 + 0x1p-19) + 1e-30);
}

/* Four lanes: what most processors have. */
static inline bool any_of_four(const void *mask)
{
    uint64_t halves[2];

    memcpy(halves, mask, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

#define PASS(name) name##_portable
#define PASS_TARGET
#define PASS_INDEX \
    {              \
        0, 1, 2, 3 \
    }
#define PASS_ANY(mask) any_of_four(&(mask))
#define LANES 4
#include "modules/upstream/passes.h"
#undef PASS
#undef PASS_TARGET
#undef PASS_INDEX
#undef PASS_ANY
#undef LANES

struct passes {
    unsigned (*turn)(const struct peer_view *v, uint32_t want);
    unsigned (*idle)(const struct peer_view *v, uint32_t want);
    unsigned (*fewest)(const struct peer_view *v, uint32_t want);
    unsigned (*lightest)(const struct peer_view *v, uint32_t want);
    unsigned (*least)(const struct peer_view *v, uint32_t want, enum score kind, bool even);
    void (*glance)(const struct peer_view *v, bool *free, bool *full);
};

static const struct passes portable = { turn_portable,     idle_portable,  fewest_portable,
                                        lightest_portable, least_portable, glance_portable };
static const struct passes *passes;

#if defined(__x86_64__) || defined(__i386__)

typedef float floats_register __attribute__((vector_size(32)));

#define PASS(name) name##_avx2
#define PASS_TARGET __attribute__((target("avx2")))
#define PASS_INDEX             \
    {                          \
        0, 1, 2, 3, 4, 5, 6, 7 \
    }
#define PASS_ANY(mask) (__builtin_ia32_movmskps256((floats_register) (mask)) != 0)
#define LANES 8
#include "modules/upstream/passes.h"
#undef PASS
#undef PASS_TARGET
#undef PASS_INDEX
#undef PASS_ANY
#undef LANES

static const struct passes avx2 = { turn_avx2,     idle_avx2,  fewest_avx2,
                                    lightest_avx2, least_avx2, glance_avx2 };

static const struct passes *best(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &avx2 : &portable;
}

#else

static const struct passes *best(void)
{
    return &portable;
}

#endif

void peers_force_portable(bool on)
{
    passes = on ? &portable : best();
}

static const struct passes *at_hand(void)
{
    if (unlikely(passes == NULL))
        passes = best();
    return passes;
}

/* Turns ------------------------------------------------------------------------------------------ */

/* How many primary servers there are, and how many of them before the one whose turn it is. */
static void count_primary(const struct peer_view *v, int32_t *primary, int32_t *before)
{
    *primary = *before = 0;
    for (unsigned i = 0; i < v->set->count; i++) {
        *primary += !(v->state[i] & PEER_BACKUP);
        *before += !(v->state[i] & PEER_BACKUP) && i < v->set->turn;
    }
}

/* What smooth round robin would have made of a number while servers simply took turns: those whose turn was have paid for all, all have gained. */
static int32_t turned(const struct peer_view *v, int32_t primary, int32_t before, unsigned i)
{
    return (before - (i < v->set->turn ? primary : 0)) * v->weight[i];
}

void peers_settle(struct peer_view *v)
{
    int32_t primary, before;

    if (likely(!v->set->turning))
        return;
    v->set->turning = false;
    count_primary(v, &primary, &before);
    for (unsigned i = 0; i < v->set->count; i++) {
        if (!(v->state[i] & PEER_BACKUP))
            v->current[i] = turned(v, primary, before, i);
    }
}

/* Whether servers only take turns from now on: whom a pass would choose begins. */
static bool start_turning(struct peer_view *v)
{
    struct peer_set *set = v->set;
    int32_t primary, before;
    unsigned first = PEERS_NONE;

    for (unsigned i = 0; i < set->count; i++) {
        if (v->state[i] == 0 && (first == PEERS_NONE || v->current[i] > v->current[first]))
            first = i;
    }
    if (first == PEERS_NONE)
        return false;
    set->turn = first;
    count_primary(v, &primary, &before);
    for (unsigned i = 0; i < set->count; i++) {
        /* Out of step since somebody had trouble: what nginx does then is not a row of turns any more. */
        if (!(v->state[i] & PEER_BACKUP) && v->current[i] != turned(v, primary, before, i)) {
            set->uneven = true;
            return false;
        }
    }
    return set->turning = true;
}

unsigned peers_turn(struct peer_view *v)
{
    struct peer_set *set = v->set;

    if (!set->uniform || set->uneven || set->troubled + set->slowing > 0 || set->lowered ||
        (!set->turning && !start_turning(v)))
        return peers_smooth(v, 0);
    for (unsigned n = 0; n < set->count; n++) {
        unsigned i = set->turn;

        set->turn = i + 1 == set->count ? 0 : i + 1;
        if (likely(v->state[i] == 0))
            return i;
    }
    return PEERS_NONE;
}

/* Passes -------------------------------------------------------------------------------------- */

unsigned peers_smooth(struct peer_view *v, uint32_t want)
{
    peers_settle(v);
    return at_hand()->turn(v, want);
}

/* Whether those who are wanted weigh the same. */
static bool is_even(const struct peer_view *v, uint32_t want)
{
    return want == 0 && v->set->uniform && v->set->slowing == 0;
}

unsigned peers_least(struct peer_view *v, uint32_t want)
{
    unsigned i;

    peers_settle(v);
    /* Mostly somebody has no connection, and nobody has fewer. */
    if (likely(!v->set->lowered && !v->set->busy)) {
        i = at_hand()->idle(v, want);
        if (i != PEERS_NONE)
            return i;
    }
    return is_even(v, want) ? at_hand()->fewest(v, want) : at_hand()->lightest(v, want);
}

unsigned peers_fastest(struct peer_view *v, uint32_t want)
{
    peers_settle(v);
    return at_hand()->least(v, want, SCORE_TIME, is_even(v, want));
}

void peers_glance(const struct peer_view *v, bool *free, bool *full)
{
    at_hand()->glance(v, free, full);
}
