/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choices that look at all servers of a group: smooth round robin, the fewest connections, the least time. They
 * are made by the order that peers_order.c keeps, where there is one, and by passes else. The passes are in passes.h: for any
 * processor, and for those with AVX2, with the same results to the bit.
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
    return kind == SCORE_TIME ? peers_time_score(v, i) : (double) v->conns[i] / v->weight[i];
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

/* Passes -------------------------------------------------------------------------------------- */

unsigned peers_smooth(struct peer_view *v, uint32_t want)
{
    unsigned i;

    if (want == 0 && peers_next(v, PEERS_KEEP_ALL, &i))
        return i;
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

    if (want != 0)
        return at_hand()->least(v, want, SCORE_CONNS_PER_WEIGHT, false);
    if (!v->set->busy && peers_next(v, PEERS_KEEP_IDLE, &i) && i != PEERS_NONE)
        return i;
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
    unsigned i;

    if (want == 0 && peers_next_time(v, &i))
        return i;
    return at_hand()->least(v, want, SCORE_TIME, is_even(v, want));
}

void peers_glance(const struct peer_view *v, bool *free, bool *full)
{
    at_hand()->glance(v, free, full);
}
