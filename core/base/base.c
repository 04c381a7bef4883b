/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The assertion's end and the allocator that never returns NULL. Called from everywhere; must
 * not use anything else of ours, since it also runs when the process is already broken.
 */
#include "core/base/base.h"

#include <unistd.h>

uint64_t mem_allocations;

/* stdio would allocate and lock; a dying process writes its line itself. */
static void NORETURN die(const char *line, int len, size_t size)
{
    size_t n = len < 0 ? 0 : MIN((size_t) len, size - 1);

    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody listens: the abort alone must tell */
    }
    abort();
}

void assert_failed(const char *expr, const char *file, int line)
{
    char buf[512];
    int n = snprintf(buf, sizeof(buf), "proxyd: assertion failed: %s at %s:%d\n", expr, file, line);

    die(buf, n, sizeof(buf));
}

static void NORETURN out_of_memory(size_t size)
{
    char buf[128];
    int n = snprintf(buf, sizeof(buf), "proxyd: out of memory: cannot allocate %zu bytes\n", size);

    die(buf, n, sizeof(buf));
}

void *mem_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);

    if (unlikely(p == NULL))
        out_of_memory(size);
    mem_allocations++;
    return p;
}

void *mem_alloc_line(size_t size)
{
    void *p;

    if (unlikely(posix_memalign(&p, 64, size ? size : 1) != 0))
        out_of_memory(size);
    mem_allocations++;
    return p;
}

void *mem_zalloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);

    if (unlikely(p == NULL))
        out_of_memory(size);
    mem_allocations++;
    return p;
}

void *mem_realloc(void *ptr, size_t size)
{
    void *p = realloc(ptr, size ? size : 1);

    if (unlikely(p == NULL))
        out_of_memory(size);
    mem_allocations++;
    return p;
}
