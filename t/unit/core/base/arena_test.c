/* SPDX-License-Identifier: BSD-2-Clause */
/* Arenas: alignment, large objects, order of deferred calls, recycling without malloc. */
#include "core/base/arena.h"

#include "core/base/str.h"
#include "t/unit/tap.h"

static char order[16];
static unsigned order_len;

static void note(void *arg)
{
    order[order_len++] = *(const char *) arg;
}

static void defer_more(void *arg)
{
    static char late = 'L';

    note(&late);
    arena_defer(arg, note, arena_zalloc(arg, 1));
    *(char *) arena_bytes(arg, 1) = 'x';
}

static void test_alignment(struct arena *arena, const char *what)
{
    bool aligned = true, intact = true;
    unsigned char *seen[400];
    size_t sizes[400];

    for (unsigned i = 0; i < ARRAY_LEN(seen); i++) {
        sizes[i] = i * 7 % 190;
        if (i % 3 == 0)
            seen[i] = (unsigned char *) arena_bytes(arena, sizes[i]);
        else
            seen[i] = arena_alloc(arena, sizes[i]);
        if (i % 3 && (uintptr_t) seen[i] % 16)
            aligned = false;
        memset(seen[i], (int) (i & 255), sizes[i]);
    }
    for (unsigned i = 0; i < ARRAY_LEN(seen); i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            intact = intact && seen[i][j] == (i & 255);
    }
    ok(aligned, "%s: objects are aligned to 16", what);
    ok(intact, "%s: nothing overlaps", what);
}

static void test_sizes(bool large)
{
    static const size_t sizes[] = { 0,    1,    15,    16,    4000,  4064,  4079,  4080,   4081,
                                    4096, 5000, 16384, 65519, 65520, 65521, 65536, 1000000 };
    struct arena *arena = large ? arena_new_large() : arena_new();
    size_t sum = 0;
    bool zero = true;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        char *p = arena_zalloc(arena, sizes[i]);

        for (size_t j = 0; j < sizes[i]; j++)
            zero = zero && p[j] == 0;
        memset(p, 0x5a, sizes[i]);
        p = arena_bytes(arena, sizes[i]);
        memset(p, 0xa5, sizes[i]);
        sum += 2 * sizes[i];
    }
    ok(zero, "%s blocks: zeroed objects of any size", large ? "large" : "small");
    ok(arena_used(arena) >= sum, "%s blocks: all of it is counted", large ? "large" : "small");
    ok(arena_used(arena) < sum + 17 * 64 + 5000, "%s blocks: and little else",
       large ? "large" : "small");
    arena_destroy(arena);
}

static void test_defer(void)
{
    struct arena *arena = arena_new();

    arena_defer(arena, note, memcpy(arena_bytes(arena, 1), "1", 1));
    arena_defer(arena, defer_more, arena);
    arena_defer(arena, note, memcpy(arena_bytes(arena, 1), "3", 1));
    arena_destroy(arena);
    is_bytes(order, order_len, "3L\0001", 4,
             "deferred calls run newest first, also one that was deferred meanwhile");
    arena_destroy(NULL);
}

/* What a request does, over and over. */
static void one_request(void)
{
    struct arena *arena = arena_new();

    for (int i = 0; i < 40; i++) {
        memset(arena_alloc(arena, 300), 1, 300);
        memset(arena_bytes(arena, 77), 2, 77);
    }
    /* Nearly a block, while the current block has room left: a block, and no malloc. */
    memset(arena_alloc(arena, 3900), 3, 3900);
    arena_destroy(arena);
}

static void test_recycling(void)
{
    uint64_t before;

    one_request();
    before = mem_allocations;
    for (int i = 0; i < 1000; i++)
        one_request();
    is_uint(mem_allocations, before, "a warm arena costs no call to malloc");
    arena_trim();
    one_request();
    ok(mem_allocations > before, "after a trim the blocks are made anew");
}

static void test_accounting(void)
{
    struct arena *arena = arena_new();
    size_t used = arena_used(arena);

    is_uint(used, 0, "an empty arena has handed out nothing");
    (void) arena_alloc(arena, 100);
    ok(arena_used(arena) >= 100 && arena_used(arena) <= 144, "100 bytes, rounded");
    for (int i = 0; i < 1000; i++)
        (void) arena_alloc(arena, 64);
    ok(arena_used(arena) >= 64100 && arena_used(arena) < 64100 + 1000 * 16 + 200,
       "over many blocks");
    arena_destroy(arena);
}

static void test_grow(void)
{
    struct arena *arena = arena_new();
    uint64_t *array = NULL;
    unsigned capacity = 0;
    bool same = true;

    for (unsigned i = 0; i < 5000; i++) {
        array = arena_grow(arena, array, i, &capacity, sizeof(*array));
        array[i] = i * 3u;
    }
    for (unsigned i = 0; i < 5000; i++)
        same = same && array[i] == i * 3u;
    ok(same, "a grown array keeps its elements");
    ok(capacity >= 5000 && capacity < 10000 + 8, "and at most doubles");
    arena_destroy(arena);
}

/* Only the sanitizer can tell; without it there is nothing to be seen. */
static void test_poison(void)
{
#ifdef WITH_ASAN
    struct arena *arena = arena_new();
    char *p = arena_alloc(arena, 24), *q = arena_bytes(arena, 5);

    ok(!__asan_region_is_poisoned(p, 24) && !__asan_region_is_poisoned(q, 5), "memory handed out");
    ok(__asan_address_is_poisoned(p + 24) && __asan_address_is_poisoned(q + 5),
       "what lies behind it is not to be touched");
    arena_destroy(arena);
    ok(__asan_address_is_poisoned(p) && __asan_address_is_poisoned(q),
       "nor is the memory of an arena that has ended");
#else
    skip("built without the sanitizer");
#endif
}

int main(void)
{
    struct arena *arena = arena_new();

    test_alignment(arena, "small");
    arena_destroy(arena);
    arena = arena_new();
    test_alignment(arena, "recycled");
    arena_destroy(arena);
    arena = arena_new_large();
    test_alignment(arena, "large");
    arena_destroy(arena);
    test_sizes(false);
    test_sizes(true);
    test_defer();
    test_recycling();
    test_accounting();
    test_grow();
    test_poison();
    arena_trim();
    return done_testing();
}
