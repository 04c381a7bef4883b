/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every file includes: fixed-width types, the assertion that stays on in release
 * builds, and a handful of macros. Nothing here allocates, logs or knows of HTTP.
 */
#ifndef CORE_BASE_BASE_H
#define CORE_BASE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED __attribute__((unused))
#define NORETURN __attribute__((noreturn))

/* The structure of type `type` whose member `member` is at `ptr`. */
#define container_of(ptr, type, member) \
    ((type *) (void *) ((char *) (ptr) - offsetof(type, member)))

/*
 * States an invariant of ours. Stays on in release builds: a worker whose own state is
 * wrong stops and is respawned. Input from outside must never reach one.
 */
#define ASSERT(x) (likely(x) ? (void) 0 : assert_failed(#x, __FILE__, __LINE__))

/* Writes the failed expression to standard error and aborts. */
void assert_failed(const char *expr, const char *file, int line) NORETURN;

/*
 * malloc, zeroed malloc and realloc that never return NULL: a process that is truly out of
 * memory says so on standard error and aborts. Sizes in bytes. Freed with free().
 */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
/* The same at the start of a cache line (64 bytes). */
void *mem_alloc_line(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *ptr, size_t size) __attribute__((returns_nonnull));

/*
 * How often this process has called the system allocator through mem_alloc and friends.
 * The hot path is free of allocation once warm; tests and the benchmark read this to show it.
 */
extern uint64_t mem_allocations;

#endif
