/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The passes over a group's servers, LANES at a time. passes.c includes this once for each set of instructions:
 * PASS(name) is the name of a function or type there, PASS_TARGET the functions' attribute, PASS_INDEX what the lanes are numbered, PASS_ANY
 * whether any lane of a mask is set. They read behind the last server, where each array has room for that, and take
 * nothing from there.
 */

typedef int32_t PASS(ints) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float PASS(floats) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define ints PASS(ints)
#define floats PASS(floats)
#define LOAD(array, i) (*(ints *) (void *) ((array) + (i)))

/* Those of servers i … i + LANES - 1 that may be chosen. */
PASS_TARGET static inline __attribute__((always_inline)) ints
PASS(eligible)(const struct peer_view *v, uint32_t want, unsigned i)
{
    const ints lanes = PASS_INDEX;

    return (LOAD(v->state, i) == (int32_t) want) & (lanes < (int32_t) (v->set->count - i));
}

PASS_TARGET static inline __attribute__((always_inline)) floats
PASS(weights)(const struct peer_view *v, unsigned i)
{
    return __builtin_convertvector(LOAD(v->weight, i), floats);
}

/* Connections for their weight. */
PASS_TARGET static inline __attribute__((always_inline)) floats
PASS(ratios)(const struct peer_view *v, unsigned i)
{
    return __builtin_convertvector(LOAD(v->conns, i), floats) / PASS(weights)(v, i);
}

/* peers_glance(). */
PASS_TARGET static void PASS(glance)(const struct peer_view *v, bool *free, bool *full)
{
    const ints lanes = PASS_INDEX;
    ints some_free = lanes * 0, some_full = some_free;

    for (unsigned i = 0; i < v->set->count; i += LANES) {
        ints state = LOAD(v->state, i) & ~PEER_BACKUP, in = lanes < (int32_t) (v->set->count - i);

        some_free |= in & (state == 0);
        some_full |= in & (state == PEER_FULL);
    }
    *free = PASS_ANY(some_free);
    *full = PASS_ANY(some_full);
}

/* What is divided by the weight. */
PASS_TARGET static inline __attribute__((always_inline)) floats
PASS(loads)(const struct peer_view *v, enum score kind, unsigned i)
{
    floats conns = __builtin_convertvector(LOAD(v->conns, i), floats);

    if (kind == SCORE_TIME)
        conns = *(const floats *) (const void *) (v->time_ms + i) * (conns + 1);
    return conns;
}

/* Those whose score may be as low as that of which limit was made (score_limit). `even`: all weigh 1, whatever they weigh. */
PASS_TARGET static inline __attribute__((always_inline)) ints
PASS(near)(const struct peer_view *v, enum score kind, float limit, bool even, unsigned i)
{
    floats load = PASS(loads)(v, kind, i);

    return even ? (ints) (load <= limit) : (ints) (load <= limit * PASS(weights)(v, i));
}

/* Those of the lanes that have exactly the score. */
PASS_TARGET static inline __attribute__((always_inline)) ints
PASS(exactly)(const struct peer_view *v, enum score kind, double least, ints lanes, unsigned i)
{
    for (unsigned k = 0; k < LANES; k++) {
        if (lanes[k] && peers_score(v, kind, i + k) != least)
            lanes[k] = 0;
    }
    return lanes;
}

/* Those of the lanes whose turn it can be. */
PASS_TARGET static inline __attribute__((always_inline)) ints
PASS(chosen)(const struct peer_view *v, enum among among, enum score kind, double least, ints on,
             unsigned i)
{
    switch (among) {
    case AMONG_CONNS: return on & (LOAD(v->conns, i) == (int32_t) least);
    case AMONG_RATIO: return on & (ints) (PASS(ratios)(v, i) == (float) least);
    case AMONG_EXACT:
        on &= PASS(near)(v, kind, score_limit(least), false, i);
        return PASS_ANY(on) ? PASS(exactly)(v, kind, least, on, i) : on;
    default: return on;
    }
}

/* The richest, of equals the first. */
PASS_TARGET static inline __attribute__((always_inline)) unsigned PASS(richest)(ints best,
                                                                                ints where)
{
    unsigned k = 0;

    for (unsigned n = 1; n < LANES; n++) {
        if (best[n] > best[k] || (best[n] == best[k] && where[n] < where[k]))
            k = n;
    }
    return best[k] == INT32_MIN ? PEERS_NONE : (unsigned) where[k];
}

/* One step of smooth round robin among some. `lowered`: a constant; without it every effective weight is the weight. */
PASS_TARGET static inline __attribute__((always_inline)) unsigned
PASS(step)(const struct peer_view *v, uint32_t want, enum among among, enum score kind,
           double least, bool lowered)
{
    ints index = PASS_INDEX, best = index * 0 + INT32_MIN, where = index;
    ints total = index * 0, below = index * 0;
    int32_t scale = (int32_t) v->set->scale;
    unsigned i;

    for (i = 0; i < v->set->count; i += LANES, index += LANES) {
        ints on = PASS(chosen)(v, among, kind, least, PASS(eligible)(v, want, i), i);
        ints weight = LOAD(v->weight, i), effective = weight, current, better;

        if (lowered) {
            ints grown = effective = LOAD(v->effective, i), lacks = weight - effective;

            grown += SELECT(lacks < scale, lacks, index * 0 + scale) & on;
            below |= grown < weight;
            LOAD(v->effective, i) = grown;
        }
        effective &= on;
        total += effective;
        current = LOAD(v->current, i) + effective;
        LOAD(v->current, i) = current;
        better = on & (current > best);
        best = SELECT(better, current, best);
        where = SELECT(better, index, where);
    }
    if (lowered)
        v->set->lowered = PASS_ANY(below);
    i = PASS(richest)(best, where);
    if (i != PEERS_NONE) {
        for (unsigned k = 0; k < LANES; k++)
            v->current[i] -= total[k];
    }
    return i;
}

PASS_TARGET static unsigned PASS(turn)(const struct peer_view *v, uint32_t want)
{
    return v->set->lowered ? PASS(step)(v, want, AMONG_ALL, SCORE_NONE, 0, true)
                           : PASS(step)(v, want, AMONG_ALL, SCORE_NONE, 0, false);
}

/*
 * Who of those with the least score is next. One alone is chosen without a step. Where no weight is lowered the step would change
 * nothing, so that nobody has to be counted first.
 */
PASS_TARGET static inline __attribute__((always_inline)) unsigned
PASS(among)(const struct peer_view *v, uint32_t want, enum among among, enum score kind,
            double least)
{
    ints index = PASS_INDEX, many = index * 0, where = many;
    unsigned n = 0, first = 0;

    if (likely(!v->set->lowered))
        return PASS(step)(v, want, among, kind, least, false);
    for (unsigned i = 0; i < v->set->count; i += LANES, index += LANES) {
        ints on = PASS(chosen)(v, among, kind, least, PASS(eligible)(v, want, i), i);

        many -= on;
        where |= index & on;
    }
    for (unsigned k = 0; k < LANES; k++) {
        n += (unsigned) many[k];
        first |= (unsigned) where[k];
    }
    if (n <= 1)
        return n == 0 ? PEERS_NONE : first;
    return PASS(step)(v, want, among, kind, least, true);
}

/* Among those without a connection, where that needs no count of them. */
PASS_TARGET static unsigned PASS(idle)(const struct peer_view *v, uint32_t want)
{
    return PASS(step)(v, want, AMONG_CONNS, SCORE_NONE, 0, false);
}

/* Where all weigh the same: the fewest connections. */
PASS_TARGET static unsigned PASS(fewest)(const struct peer_view *v, uint32_t want)
{
    ints zero = { 0 }, least = zero + INT32_MAX;
    int32_t min = INT32_MAX;

    for (unsigned i = 0; i < v->set->count; i += LANES) {
        ints conns = LOAD(v->conns, i), on = PASS(eligible)(v, want, i) & (conns < least);

        least = SELECT(on, conns, least);
    }
    for (unsigned k = 0; k < LANES; k++)
        min = MIN(min, least[k]);
    v->set->busy = min > 0;
    return PASS(among)(v, want, AMONG_CONNS, SCORE_NONE, min);
}

/* The least score, nearly. Floats that are not negative compare as integers do, which takes a fraction of the time. */
PASS_TARGET static inline __attribute__((always_inline)) float
PASS(nearly_least)(const struct peer_view *v, uint32_t want, enum score kind, bool even)
{
    ints index = PASS_INDEX, none = index * 0 + INT32_MAX, least = none;
    float min = FLT_MAX;

    for (unsigned i = 0; i < v->set->count; i += LANES) {
        floats score = PASS(loads)(v, kind, i);
        ints bits;

        if (!even)
            score /= PASS(weights)(v, i);
        bits = SELECT(PASS(eligible)(v, want, i), (ints) score, none);
        least = SELECT(bits < least, bits, least);
    }
    for (unsigned k = 0; k < LANES; k++) {
        if (least[k] != INT32_MAX)
            min = MIN(min, ((floats) least)[k]);
    }
    return min;
}

/* The least score, by floats; exactly only where these do not tell. */
PASS_TARGET static inline __attribute__((always_inline)) unsigned
PASS(exactly_least)(const struct peer_view *v, uint32_t want, enum score kind, bool even)
{
    double least = DBL_MAX;
    float limit = score_limit((double) PASS(nearly_least)(v, want, kind, even));
    unsigned many = 0, first = PEERS_NONE;

    for (unsigned i = 0; i < v->set->count; i += LANES) {
        ints on = PASS(near)(v, kind, limit, even, i);

        if (likely(!PASS_ANY(on)))
            continue;
        on &= PASS(eligible)(v, want, i);
        for (unsigned k = 0; k < LANES; k++) {
            double score = on[k] ? peers_score(v, kind, i + k) : DBL_MAX;

            if (score < least) {
                least = score;
                many = 1;
                first = i + k;
            } else if (on[k] && score == least) {
                many++;
            }
        }
    }
    return many <= 1 ? first : PASS(among)(v, want, AMONG_EXACT, kind, least);
}

/* even: those who are wanted weigh the same. */
PASS_TARGET static unsigned PASS(least)(const struct peer_view *v, uint32_t want, enum score kind,
                                        bool even)
{
    return even ? PASS(exactly_least)(v, want, kind, true)
                : PASS(exactly_least)(v, want, kind, false);
}

/*
 * Connections for their weight. Quotients of numbers below 2048 are the same float if and only if they are equal:
 * two that differ do so by more than a part in 2^22.
 */
PASS_TARGET static unsigned PASS(lightest)(const struct peer_view *v, uint32_t want)
{
    ints zero = { 0 }, bits = zero;
    floats least = __builtin_convertvector(zero, floats) + FLT_MAX;
    float min = FLT_MAX;
    int32_t all = 0;

    for (unsigned i = 0; i < v->set->count; i += LANES) {
        ints on = PASS(eligible)(v, want, i);
        floats ratio = PASS(ratios)(v, i);

        bits |= on & (LOAD(v->conns, i) | LOAD(v->weight, i));
        on &= (ints) (ratio < least);
        least = (floats) SELECT(on, (ints) ratio, (ints) least);
    }
    for (unsigned k = 0; k < LANES; k++) {
        all |= bits[k];
        min = MIN(min, least[k]);
    }
    v->set->busy = min > 0;
    return likely(all < 2048) ? PASS(among)(v, want, AMONG_RATIO, SCORE_NONE, (double) min)
                              : PASS(least)(v, want, SCORE_CONNS_PER_WEIGHT, false);
}

#undef ints
#undef floats
#undef LOAD
