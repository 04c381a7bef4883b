/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Preloaded into a server by `scripts/bench --allocs`: counts the calls that allocate and free
 * memory in a file shared with the benchmark, BENCH_MALLOC_COUNT, as two 64-bit numbers. The
 * mapping is made before the server forks, so that its workers count into the same place.
 * Needs glibc, whose __libc_ names are the way past ourselves that does not itself allocate.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

static uint64_t none[2];
static uint64_t *count = none;

static void count_one(int which)
{
    __atomic_fetch_add(count + which, 1, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("BENCH_MALLOC_COUNT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        count = map;
    close(fd);
}

void *malloc(size_t size)
{
    count_one(0);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count_one(0);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    count_one(0);
    return __libc_realloc(p, size);
}

void *memalign(size_t align, size_t size);
void *memalign(size_t align, size_t size)
{
    count_one(0);
    return __libc_memalign(align, size);
}

void *aligned_alloc(size_t align, size_t size)
{
    count_one(0);
    return __libc_memalign(align, size);
}

int posix_memalign(void **p, size_t align, size_t size)
{
    void *new = __libc_memalign(align, size);

    count_one(0);
    if (new == NULL)
        return ENOMEM;
    *p = new;
    return 0;
}

void free(void *p)
{
    if (p != NULL)
        count_one(1);
    __libc_free(p);
}
