/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The passes over a group's servers choose what a plain loop over them chooses, in every way of making them, whatever
 * befalls the servers: two sets of numbers go through the same, one by the passes and one by the loops below.
 */
#include <float.h>

#include "modules/upstream/peers.h"
#include "t/unit/tap.h"

/* The loops ------------------------------------------------------------------------------------ */

enum method { SMOOTH, LEAST, FASTEST, METHODS };

static double score(const struct peer_view *v, enum method method, unsigned i)
{
    switch (method) {
    case LEAST: return (double) v->conns[i] / v->weight[i];
    case FASTEST: return (double) v->time_ms[i] * (v->conns[i] + 1) / v->weight[i];
    default: return 0;
    }
}

static unsigned plain_choice(struct peer_view *v, uint32_t want, enum method method)
{
    double least = DBL_MAX;
    unsigned many = 0, best = PEERS_NONE;
    int32_t total = 0;

    for (unsigned i = 0; i < v->set->count; i++) {
        if (v->state[i] == want && score(v, method, i) < least)
            least = score(v, method, i);
    }
    for (unsigned i = 0; i < v->set->count; i++) {
        if (v->state[i] == want && score(v, method, i) == least) {
            many++;
            best = i;
        }
    }
    if (many <= 1 && method >= LEAST)
        return best;
    best = PEERS_NONE;
    for (unsigned i = 0; i < v->set->count; i++) {
        int32_t lacks = v->weight[i] - v->effective[i];

        if (v->state[i] != want || score(v, method, i) != least)
            continue;
        v->current[i] += v->effective[i];
        total += v->effective[i];
        v->effective[i] += MIN(lacks, (int32_t) v->set->scale);
        if (best == PEERS_NONE || v->current[i] > v->current[best])
            best = i;
    }
    if (best != PEERS_NONE)
        v->current[best] -= total;
    return best;
}

static unsigned pass_choice(struct peer_view *v, uint32_t want, enum method method)
{
    switch (method) {
    case LEAST: return peers_least(v, want);
    case FASTEST: return peers_fastest(v, want);
    default: return peers_smooth(v, want);
    }
}

/* Two sets ------------------------------------------------------------------------------------- */

static uint64_t seed = 1;

static unsigned below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned) ((seed >> 33) % n);
}

enum weights { ALL_ONE, ALL_SAME, SMALL, LARGE, WEIGHTS };

static int32_t some_weight(enum weights weights)
{
    switch (weights) {
    case ALL_ONE: return 1;
    case ALL_SAME: return 7;
    case SMALL: return 1 + (int32_t) below(9);
    default: return 1 + (int32_t) below(PEER_WEIGHT_MAX);
    }
}

struct pair {
    struct peer_view pass, plain;
    void *memory[2], *copy;
    unsigned count;
    unsigned given_back;  /* of ten connections at once */
    unsigned kept;        /* choices by an order that was kept */
    uint64_t now_s;
    enum method method;
};

static void fill(struct pair *p, unsigned count, enum weights weights, bool slow)
{
    struct peer_view *views[] = { &p->pass, &p->plain };

    for (unsigned k = 0; k < 2; k++) {
        p->memory[k] = mem_zalloc(peers_size(count));
        peers_init(views[k], p->memory[k], count, slow);
    }
    p->copy = mem_zalloc(peers_size(count));
    p->count = count;
    p->now_s = 1000;
    for (unsigned i = 0; i < count; i++) {
        struct peer_record record = {
            .max_fails = below(3),
            .fail_timeout_s = 1 + below(4),
            .max_conns = below(4) ? 0 : 1 + below(3),
            .slow_start_s = slow ? below(6) : 0,
        };
        int32_t weight = some_weight(weights);
        uint32_t state = below(8) == 0 ? PEER_BACKUP : 0;

        if (weights <= ALL_SAME && below(2))
            record.max_conns = 0;
        for (unsigned k = 0; k < 2; k++)
            peers_add(views[k], weight, state, &record);
    }
}

static void unfill(struct pair *p)
{
    free(p->memory[0]);
    free(p->memory[1]);
    free(p->copy);
}

#define BOTH(p, call)                     \
    do {                                  \
        struct peer_view *v = &(p)->pass; \
                                          \
        call;                             \
        v = &(p)->plain;                  \
        call;                             \
    } while (0)

/* Something happens to a server. */
static void befall(struct pair *p, unsigned trouble)
{
    unsigned i = below(p->count), what = below(trouble);
    uint64_t now_s = p->now_s;
    float ms = (float) below(5) * (below(2) ? 0.37f : 10);

    if (what < 5 && p->pass.conns[i] > 0)
        BOTH(p, peers_give_back(v, i));
    if (what < 5 && p->method == FASTEST)
        BOTH(p, peers_timed(v, i, ms));
    switch (what) {
    case 0: BOTH(p, peers_failed(v, i, now_s)); break;
    case 1: BOTH(p, peers_fine(v, i, now_s)); break;
    case 2: BOTH(p, peers_checked(v, i, PEER_SICK, now_s)); break;
    case 3: BOTH(p, peers_checked(v, i, 0, now_s)); break;
    case 4: p->now_s++; break;
    default: break;
    }
}

static bool same(struct pair *p, unsigned a, unsigned b)
{
    size_t size = p->count * sizeof(int32_t);
    struct peer_view copy;

    if (a != b)
        return false;
    /* What is kept as an order is not in `current`. */
    memcpy(p->copy, p->memory[0], peers_size(p->count));
    peers_map(&copy, p->copy);
    peers_settle(&copy);
    return memcmp(copy.current, p->plain.current, size) == 0 &&
           memcmp(copy.effective, p->plain.effective, size) == 0;
}

static bool same_glance(const struct peer_view *v)
{
    bool free = false, full = false, a, b;

    for (unsigned i = 0; i < v->set->count; i++) {
        uint32_t state = v->state[i] & ~(uint32_t) PEER_BACKUP;

        free |= state == 0;
        full |= state == PEER_FULL;
    }
    peers_glance(v, &a, &b);
    return a == free && b == full;
}

/* How many choices differ. */
static unsigned differing(struct pair *p, unsigned choices, unsigned trouble)
{
    unsigned wrong = 0;

    for (unsigned n = 0; n < choices; n++) {
        unsigned tried = below(20) == 0 ? below(p->count) : PEERS_NONE, a, b;
        uint32_t want = below(30) == 0 ? PEER_BACKUP : 0;

        befall(p, trouble);
        /* An order is kept again sooner than after so many passes. */
        if (below(4) == 0)
            p->pass.set->passes = 1000;
        BOTH(p, peers_look(v, p->now_s));
        if (tried != PEERS_NONE)
            BOTH(p, peers_tried(v, tried, true));
        a = pass_choice(&p->pass, want, p->method);
        b = plain_choice(&p->plain, want, p->method);
        if (tried != PEERS_NONE)
            BOTH(p, peers_tried(v, tried, false));
        p->kept += p->pass.set->kept != PEERS_KEEP_NOTHING;
        wrong += !same(p, a, b) || !same_glance(&p->pass);
        if (a == PEERS_NONE || a != b)
            continue;
        BOTH(p, peers_take(v, a, p->now_s));
        if (below(10) < p->given_back)
            BOTH(p, peers_give_back(v, a));
    }
    return wrong;
}

static void run(const char *way)
{
    static const char *const names[] = { "smooth", "least", "fastest" };
    static const unsigned counts[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000 };

    for (unsigned method = 0; method < METHODS; method++) {
        unsigned wrong = 0, kept = 0;

        for (unsigned round = 0; round < 4 * ARRAY_LEN(counts) * WEIGHTS; round++) {
            struct pair p = { .method = (enum method) method, .given_back = 6 + below(5) };
            enum weights weights = (enum weights)(round % WEIGHTS);
            unsigned count = counts[round / WEIGHTS % ARRAY_LEN(counts)];
            /* From none at all to much; one in a while lets weights recover. */
            static const unsigned troubles[] = { 1000000, 300, 40, 8 };

            /* In sum weights are below PEERS_WEIGHT_MAX. */
            fill(&p, count, weights, weights == SMALL && below(2));
            wrong += differing(&p, count == 1000 ? 300 : 600,
                               troubles[round / WEIGHTS / ARRAY_LEN(counts)]);
            kept += p.kept;
            unfill(&p);
        }
        is_uint(wrong, 0, "%s, %s: the same choices and numbers", way, names[method]);
        ok(kept > 10000, "by a kept order many of them");
    }
}

/* Quotients that a float does not tell apart. */
static void test_close(const char *way)
{
    struct pair p = { .method = LEAST };
    struct peer_record record = { .max_fails = 0 };

    fill(&p, 1, LARGE, false);
    unfill(&p);
    p.memory[0] = mem_zalloc(peers_size(3));
    peers_init(&p.pass, p.memory[0], 3, false);
    peers_add(&p.pass, 999998, 0, &record);
    peers_add(&p.pass, 999999, 0, &record);
    peers_add(&p.pass, 1000000, 0, &record);
    for (unsigned i = 0; i < 3; i++)
        p.pass.conns[i] = 999996 + i; /* of n - 2 of n the smallest is that with the smallest n */
    is_uint(peers_least(&p.pass, 0), 0, "%s: 999996/999998 is less than 999998/1000000", way);
    p.pass.conns[0]++;
    is_uint(peers_least(&p.pass, 0), 1, "%s: and 999997/999999 less than 999997/999998", way);
    free(p.memory[0]);
}

/* What members of a class have gained goes only so far. */
static void test_far(void)
{
    struct pair p = { .method = SMOOTH, .given_back = 10 };
    unsigned wrong;

    fill(&p, 100, SMALL, false);
    p.pass.set->passes = 1000;
    wrong = differing(&p, 10, 1000000);
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "an order is kept");
    for (unsigned k = 0; k < p.pass.set->class_count; k++) {
        struct peer_class *c = &p.pass.set->classes[k];

        c->gained += 0x1p52 - 1000;
        for (unsigned seat = 0; seat < c->rows * PEER_ROW; seat++)
            p.pass.number[c->row * PEER_ROW + seat] -= 0x1p52 - 1000;
        for (unsigned row = c->row; row < c->row + c->rows; row++)
            p.pass.highest[row] -= 0x1p52 - 1000;
    }
    wrong += differing(&p, 50, 1000000);
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "still");
    wrong += differing(&p, 200, 1000000);
    ok(p.pass.set->classes[0].gained < 10000, "it has begun anew");
    is_uint(wrong, 0, "the choices are the same");
    unfill(&p);
}

/* Of too many different weights no order is kept, nor of servers that are lowered; of one that is out it is. */
static void test_kept(void)
{
    struct pair p = { .method = SMOOTH, .given_back = 10 };
    unsigned first;

    fill(&p, 1000, LARGE, false);
    is_uint(differing(&p, 200, 1000000), 0, "many weights: the same choices");
    is_uint(p.pass.set->kept, PEERS_KEEP_NOTHING, "by passes");
    unfill(&p);
    fill(&p, 1000, ALL_SAME, false);
    BOTH(&p, v->records[5].max_fails = 1; v->records[5].fail_timeout_s = 1);
    is_uint(differing(&p, 2, 1000000), 0, "two passes");
    p.pass.set->passes = 1000;
    first = differing(&p, 2, 1000000);
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "equals: an order is kept");
    BOTH(&p, peers_failed(v, 5, 1000));
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "also when one of them is out");
    is_uint(first + differing(&p, 2000, 1000000), 0, "the choices are the same");
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "still");
    p.now_s += 2;
    is_uint(differing(&p, 1, 1000000), 0, "it is asked again");
    is_uint(p.pass.set->kept, PEERS_KEEP_NOTHING, "with little of its weight: by passes");
    is_uint(differing(&p, 200, 1000000), 0, "until it has it again");
    is_uint(p.pass.set->kept, PEERS_KEEP_ALL, "an order is kept");
    unfill(&p);
}

int main(void)
{
    test_far();
    test_kept();
    peers_force_portable(true);
    run("for any processor");
    test_close("for any processor");
    seed = 1;
    peers_force_portable(false);
    run("the fastest here");
    test_close("the fastest here");
    return done_testing();
}
