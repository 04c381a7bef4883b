/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory by lifetime: configuration, connection, request. Everything in an arena ends
 * together; there is no free of a single object. Blocks are recycled through a per-process
 * free list, so that creating and destroying a request's arena costs no call to malloc once
 * warm. Not for sharing between threads.
 */
#ifndef CORE_BASE_ARENA_H
#define CORE_BASE_ARENA_H

#include "core/base/base.h"
#include "core/base/sanitize.h"

#ifdef WITH_ASAN
#define ARENA_REDZONE 16
#else
#define ARENA_REDZONE 0
#endif

/* The size of a recycled block: a proxied request takes half of one. Larger requests go to malloc and are freed with the arena. */
#define ARENA_BLOCK 16384

struct arena_block;
struct arena_defer;

/* Private but for the inline functions below: objects grow up from ptr, bytes down from end. */
struct arena {
    char *ptr; /* aligned to 16 */
    char *end;
    struct arena_block *blocks;
    struct arena_defer *defers;
    size_t used; /* in blocks that are not the current one */
    size_t room; /* what the current block held when it became current */
    bool large;
};

/* An empty arena; the header itself lives in its first block. Never NULL. */
struct arena *arena_new(void);

/* For long-lived arenas that will hold a lot (the configuration): blocks of 64 KiB, not recycled. */
struct arena *arena_new_large(void);

/* Runs the deferred calls, newest first, and gives all memory back. NULL is allowed. */
void arena_destroy(struct arena *arena);

/* Frees all recycled blocks (for leak checks at exit, and when memory is short). */
void arena_trim(void);

/* Private: what the inline functions do when the current block is full. size is a multiple of 16. */
void *arena_alloc_slow(struct arena *arena, size_t size) __attribute__((malloc, returns_nonnull));

/* size bytes, aligned to 16 (alloc, zalloc), to a cache line (zalloc_line) or 1 (bytes). Never NULL. size may be 0. */
static inline __attribute__((malloc, returns_nonnull)) void *arena_alloc(struct arena *arena,
                                                                         size_t size)
{
    /* Under the sanitizer every object is followed by 16 bytes that nobody may touch. */
    size_t need = (size + 15 + ARENA_REDZONE) & ~(size_t) 15;
    void *p = arena->ptr;

    if (unlikely(need < size || need > (size_t) (arena->end - arena->ptr)))
        p = arena_alloc_slow(arena, need < size ? SIZE_MAX : need);
    else
        arena->ptr += need;
    MEM_UNPOISON(p, size);
    return p;
}

static inline __attribute__((malloc, returns_nonnull)) void *arena_zalloc(struct arena *arena,
                                                                          size_t size)
{
    void *p = arena_alloc(arena, size);

    return memset(p, 0, size);
}

static inline __attribute__((returns_nonnull)) void *arena_zalloc_line(struct arena *arena,
                                                                       size_t size)
{
    char *p = arena_zalloc(arena, size + 63);

    return p + (-(uintptr_t) p & 63);
}

static inline __attribute__((malloc, returns_nonnull)) char *arena_bytes(struct arena *arena,
                                                                         size_t size)
{
    if (ARENA_REDZONE || unlikely(size > (size_t) (arena->end - arena->ptr)))
        return (char *) arena_alloc(arena, size);
    arena->end -= size;
    return arena->end;
}

/* n zeroed elements of size bytes; a product that overflows ends the process. */
static inline __attribute__((malloc, returns_nonnull)) void *arena_array(struct arena *arena,
                                                                         size_t n, size_t size)
{
    size_t bytes;

    if (unlikely(__builtin_mul_overflow(n, size, &bytes)))
        bytes = SIZE_MAX;
    return arena_zalloc(arena, bytes);
}

#define ARENA_NEW(arena, type) ((type *) arena_zalloc((arena), sizeof(type)))
#define ARENA_ARRAY(arena, type, n) ((type *) arena_array((arena), (n), sizeof(type)))

/* Calls fn(arg) when the arena is destroyed, in reverse order of registration. */
void arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg);

/* Bytes handed out so far, rounding included, for limits and status. */
size_t arena_used(const struct arena *arena);

/*
 * Grows an array kept in an arena: makes room for one more element behind `count` and
 * returns the array (moved, old copy left to the arena). *capacity counts elements.
 */
void *arena_grow(struct arena *arena, void *array, unsigned count, unsigned *capacity, size_t elem);

#endif
