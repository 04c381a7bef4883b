/* SPDX-License-Identifier: BSD-2-Clause */
/* Servers that come, change and go: sums that agree with what is there, choices among those that are. */
#include "modules/upstream/internal.h"
#include "t/unit/tap.h"

static const struct peer_record usual = { .max_fails = 1, .fail_timeout_s = 10 };

static struct peer_view make(struct arena *arena, unsigned capacity)
{
    struct peer_view v;

    peers_init(&v, arena_zalloc(arena, peers_size(capacity)), capacity, false);
    return v;
}

static void place(struct peer_view *v, unsigned i, int32_t weight, uint32_t state)
{
    peers_place(v, i, weight, state, &usual);
    peers_recount(v);
}

/* Who is chosen, n times. */
static const char *turns(struct arena *arena, struct peer_view *v, unsigned n)
{
    char *s = arena_zalloc(arena, n + 1);

    for (unsigned i = 0; i < n; i++) {
        unsigned k = peers_smooth(v, 0);

        s[i] = k == PEERS_NONE ? '-' : (char) ('a' + (int) k);
    }
    return s;
}

static void test_places(struct arena *arena)
{
    struct peer_view v = make(arena, 4);

    is_str(turns(arena, &v, 2), "--", "nobody");
    place(&v, 0, 1, 0);
    ok(peers_alone(&v), "the only one");
    place(&v, 1, 1, 0);
    place(&v, 2, 1, 0);
    is_str(turns(arena, &v, 6), "abcabc", "three take turns");
    peers_leave(&v, 1);
    peers_recount(&v);
    is_uint(v.set->gone, 1, "one place is free");
    is_int(v.set->weight, 2, "its weight is gone");
    is_str(turns(arena, &v, 4), "acac", "two take turns");
    is_uint(peers_least(&v, 0), 0, "the least connections: not it");
    is_uint(peers_smooth(&v, PEER_BACKUP), PEERS_NONE, "nor is it a backup");
    place(&v, 1, 2, 0);
    is_str(turns(arena, &v, 4), "bcab", "another one in its place, heavier");
    ok(!v.set->uniform, "they do not weigh the same");
    peers_leave(&v, 0);
    peers_leave(&v, 2);
    peers_recount(&v);
    ok(peers_alone(&v), "one is left");
    is_str(turns(arena, &v, 2), "bb", "and is chosen");
    peers_leave(&v, 1);
    peers_recount(&v);
    is_str(turns(arena, &v, 2), "--", "none is");
    is_uint(v.set->primary_live, 0, "none is live");
}

static void test_connections(struct arena *arena)
{
    struct peer_view v = make(arena, 4);
    struct peer_record record = usual;

    place(&v, 0, 1, 0);
    place(&v, 1, 1, 0);
    record.max_conns = 1;
    peers_take(&v, 0, 1);
    peers_change(&v, 0, 1, 0, &record);
    peers_recount(&v);
    is_uint(v.state[0], PEER_FULL, "a limit that is reached already");
    record.max_conns = 2;
    peers_change(&v, 0, 1, 0, &record);
    peers_recount(&v);
    is_uint(v.state[0], 0, "one that is not");
    peers_leave(&v, 0);
    peers_recount(&v);
    is_uint(v.set->conns, 1, "connections of one that has gone are counted");
    peers_give_back(&v, 0);
    is_uint(v.set->conns, 0, "until they are over");
    is_uint(v.state[0], PEER_GONE | PEER_BACKUP, "it stays gone");
}

static void test_failures(struct arena *arena)
{
    struct peer_view v = make(arena, 4);
    struct peer_record record = usual;

    place(&v, 0, 1, 0);
    place(&v, 1, 1, 0);
    peers_take(&v, 0, 1);
    peers_give_back(&v, 0);
    ok(peers_failed(&v, 0, 1), "one fails");
    is_str(turns(arena, &v, 2), "bb", "and is out");
    record.max_fails = 3;
    peers_change(&v, 0, 1, 0, &record);
    peers_recount(&v);
    is_uint(v.state[0], 0, "more failures are allowed: it is back");
    record.max_fails = 1;
    peers_change(&v, 0, 1, 0, &record);
    peers_failed(&v, 0, 1);
    peers_leave(&v, 1);
    peers_recount(&v);
    is_uint(v.state[0], 0, "the only one left is not kept out");
    is_uint(v.set->broken, 0, "the sums know");
}

static void test_slow_start(struct arena *arena)
{
    struct peer_view v = make(arena, 2);
    struct peer_record record = usual;

    place(&v, 0, 1, 0);
    place(&v, 1, 1, 0);
    peers_rescale(&v);
    record.slow_start_s = 100;
    v.records[0].slow_start_s = 100;
    v.records[0].slow_from_s = 1;
    v.records[0].slow_weight = PEERS_SCALE;
    v.weight[0] = v.effective[0] = 1;
    peers_change(&v, 0, 5, 0, &record);
    peers_recount(&v);
    is_int(v.weight[0], 1, "a change does not end a slow start");
    is_int(peers_weight(&v, 0), 5, "which goes to the new weight");
    peers_look(&v, 51);
    is_int(v.weight[0], 5 * PEERS_SCALE / 2, "in the time that it had");
    record.slow_start_s = 0;
    peers_change(&v, 0, 5, 0, &record);
    peers_recount(&v);
    is_int(v.weight[0], 5 * PEERS_SCALE, "no slow start any more: all at once");
    is_uint(v.set->slowing, 0, "the sums know");
}

static void test_scale(struct arena *arena)
{
    struct peer_view v = make(arena, 2), w;
    void *memory = arena_zalloc(arena, peers_size(8));

    place(&v, 0, 3, 0);
    place(&v, 1, 1, PEER_BACKUP);
    peers_rescale(&v);
    peers_recount(&v);
    is_int(v.set->weight, 300, "weights in small steps");
    is_int(peers_weight(&v, 0), 3, "are said as before");
    is_uint(peers_smooth(&v, 0), 0, "and chosen by");
    peers_move(&v, memory, 8);
    peers_map(&w, memory);
    is_uint(w.set->capacity, 8, "moved into a larger set");
    is_int(peers_weight(&w, 0), 3, "with all numbers");
    is_uint(w.state[1], PEER_BACKUP, "and states");
    place(&w, 2, 1, 0);
    is_int(w.set->weight, 400, "and with room");
}

int main(void)
{
    struct arena *arena = arena_new();

    test_places(arena);
    test_connections(arena);
    test_failures(arena);
    test_slow_start(arena);
    test_scale(arena);
    arena_destroy(arena);
    return done_testing();
}
