/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Arenas: bump allocation in blocks that are recycled per process, a list of deferred calls, and
 * one free for everything. The fast path is inline in the header; here is what happens when a
 * block is full, and the end. Knows nothing of what is stored.
 */
#include "core/base/arena.h"

#define LARGE_BLOCK (64 * 1024)

/* Kept for the next request: 4 MiB; what a burst needed beyond that goes back to malloc. */
#define FREE_BLOCKS_MAX 256

struct arena_block {
    struct arena_block *next;
    size_t size; /* of the whole block; ARENA_BLOCK ones are recycled */
};

struct arena_defer {
    struct arena_defer *next;
    void (*fn)(void *arg);
    void *arg;
};

static struct arena_block *free_blocks;
static unsigned free_count;

_Static_assert(sizeof(struct arena_block) % 16 == 0, "what follows the block header is aligned");

static struct arena_block *block_get(size_t size)
{
    struct arena_block *b = free_blocks;

    if (likely(b != NULL && size == ARENA_BLOCK)) {
        free_blocks = b->next;
        free_count--;
    } else {
        b = mem_alloc(size);
        b->size = size;
    }
    return b;
}

static void block_put(struct arena_block *b)
{
    if (b->size != ARENA_BLOCK || free_count >= FREE_BLOCKS_MAX) {
        MEM_UNPOISON(b, b->size);
        free(b);
        return;
    }
    b->next = free_blocks;
    free_blocks = b;
    free_count++;
    /* Not the header: a leak check follows the list through it. */
    MEM_POISON(b + 1, ARENA_BLOCK - sizeof(*b));
}

static struct arena *arena_create(size_t size)
{
    struct arena_block *b = block_get(size);
    struct arena *arena = (struct arena *) (void *) (b + 1);
    size_t header = (sizeof(*arena) + 15) & ~(size_t) 15;

    MEM_UNPOISON(arena, sizeof(*arena));
    b->next = NULL;
    arena->ptr = (char *) arena + header;
    arena->end = (char *) b + size;
    arena->blocks = b;
    arena->defers = NULL;
    arena->used = 0;
    arena->room = (size_t) (arena->end - arena->ptr);
    arena->large = size != ARENA_BLOCK;
    MEM_POISON(arena->ptr, arena->room);
    return arena;
}

struct arena *arena_new(void)
{
    return arena_create(ARENA_BLOCK);
}

struct arena *arena_new_large(void)
{
    return arena_create(LARGE_BLOCK);
}

/* A block of its own for one object. */
static void *alloc_alone(struct arena *arena, size_t size)
{
    struct arena_block *b;

    if (size > SIZE_MAX - sizeof(*b))
        size = SIZE_MAX - sizeof(*b); /* malloc will refuse it and name the size */
    b = block_get(sizeof(*b) + size == ARENA_BLOCK ? ARENA_BLOCK + 16 : sizeof(*b) + size);
    b->next = arena->blocks;
    arena->blocks = b;
    arena->used += size;
    MEM_POISON(b + 1, size);
    return b + 1;
}

void *arena_alloc_slow(struct arena *arena, size_t size)
{
    size_t block = arena->large ? LARGE_BLOCK : ARENA_BLOCK;
    size_t capacity = block - sizeof(struct arena_block);
    size_t left = (size_t) (arena->end - arena->ptr);
    struct arena_block *b;
    char *p;

    if (size > capacity || (arena->large && size > capacity / 4))
        return alloc_alone(arena, size);
    b = block_get(block);
    p = (char *) (b + 1);
    MEM_POISON(p, capacity);
    b->next = arena->blocks;
    arena->blocks = b;
    if (capacity - size < left) {
        /* The old block has more left than the new one would: it stays the current one. */
        arena->used += size;
        return p;
    }
    arena->used += arena->room - left;
    arena->room = capacity;
    arena->ptr = p + size;
    arena->end = (char *) b + block;
    return p;
}

void arena_destroy(struct arena *arena)
{
    struct arena_block *b, *next;

    if (arena == NULL)
        return;
    while (arena->defers) {
        struct arena_defer *d = arena->defers;

        /* Taken off first: the call may use this arena and defer something more. */
        arena->defers = d->next;
        d->fn(d->arg);
    }
    for (b = arena->blocks; b; b = next) {
        next = b->next;
        block_put(b);
    }
}

void arena_trim(void)
{
    while (free_blocks) {
        struct arena_block *b = free_blocks;

        MEM_UNPOISON(b, ARENA_BLOCK);
        free_blocks = b->next;
        free(b);
    }
    free_count = 0;
}

void arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg)
{
    struct arena_defer *d = arena_alloc(arena, sizeof(*d));

    d->fn = fn;
    d->arg = arg;
    d->next = arena->defers;
    arena->defers = d;
}

size_t arena_used(const struct arena *arena)
{
    return arena->used + arena->room - (size_t) (arena->end - arena->ptr);
}

void *arena_grow(struct arena *arena, void *array, unsigned count, unsigned *capacity, size_t elem)
{
    unsigned more;
    void *moved;

    if (likely(count < *capacity))
        return array;
    more = *capacity ? *capacity * 2 : 8;
    ASSERT(more > *capacity);
    moved = arena_array(arena, more, elem);
    if (count)
        memcpy(moved, array, (size_t) count * elem);
    *capacity = more;
    return moved;
}
