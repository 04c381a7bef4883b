/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library's memory. Its buffers for a record, about 17 KiB, come and go with each read and write of a connection
 * (SSL_MODE_RELEASE_BUFFERS): they are kept at hand here, so that the same few, warm in the processor's cache, serve all
 * connections. Everything else is malloc's.
 */
#include <malloc.h>
#include <openssl/crypto.h>

#include "core/base/sanitize.h"
#include "core/event/timer.h"
#include "modules/ssl/ssl.h"

#define BUFFER_MIN (16 * 1024)
#define BUFFER_SIZE (18 * 1024)
#define KEPT_MAX 16
#define CROWD 512 /* connections: from when on memory is looked for once most have gone */
#define TRIM_AFTER_MS 1000

struct kept {
    struct kept *next;
};

/* A thread that computes something of its own has its own. */
static __thread struct kept *kept;
static __thread unsigned kept_count;
static __thread bool wiping;

static bool is_buffer(size_t usable)
{
    return usable >= BUFFER_SIZE && usable < BUFFER_SIZE + 1024;
}

static void *take(size_t size, const char *file UNUSED, int line UNUSED)
{
    struct kept *k = kept;

    if (likely(size < BUFFER_MIN || size > BUFFER_SIZE))
        return size > 0 ? malloc(size) : NULL;
    if (k == NULL)
        return malloc(BUFFER_SIZE);
    MEM_UNPOISON(k, malloc_usable_size(k));
    kept = k->next;
    kept_count--;
    return k;
}

static void give(void *ptr, const char *file UNUSED, int line UNUSED)
{
    struct kept *k = ptr;
    size_t usable;

    if (ptr == NULL)
        return;
    usable = malloc_usable_size(ptr);
    if (unlikely(wiping))
        OPENSSL_cleanse(ptr, usable);
    if (likely(!is_buffer(usable)) || kept_count >= KEPT_MAX) {
        free(ptr);
        return;
    }
    k->next = kept;
    kept = k;
    kept_count++;
    MEM_POISON(k + 1, usable - sizeof(*k));
}

static void *move(void *ptr, size_t size, const char *file, int line)
{
    void *to = take(size, file, line);

    if (to != NULL) {
        memcpy(to, ptr, MIN(malloc_usable_size(ptr), size));
        give(ptr, file, line);
    }
    return to;
}

static void *resize(void *ptr, size_t size, const char *file, int line)
{
    if (ptr == NULL)
        return take(size, file, line);
    if (size == 0) {
        give(ptr, file, line);
        return NULL;
    }
    return unlikely(wiping) ? move(ptr, size, file, line) : realloc(ptr, size);
}

void ssl_memory_init(void)
{
    /* Refused once the library has allocated something: then it goes on with its own. */
    CRYPTO_set_mem_functions(take, resize, give);
}

void ssl_memory_trim(void)
{
    while (kept != NULL) {
        struct kept *k = kept;

        MEM_UNPOISON(k, malloc_usable_size(k));
        kept = k->next;
        free(k);
    }
    kept_count = 0;
}

void ssl_memory_wipe(bool on)
{
    wiping = on;
}

/* Connections, since memory was last given back: now, and at most. */
static unsigned live, most;

static bool most_have_gone(void)
{
    return most >= CROWD && live <= most / 4;
}

static void trim(struct timer *timer UNUSED)
{
    if (!most_have_gone())
        return; /* others have come */
    most = live;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/*
 * What a crowd of connections took lies between what others still hold: malloc would keep it, in pages that the process does not need.
 * So when three of four have gone it is told to give back whatever is free: a moment later, when all who go have gone, for it takes
 * some milliseconds for each hundred thousand pieces, and whoever comes and goes in crowds must not make it do so each time.
 */
void ssl_memory_gone(unsigned in_use)
{
    static struct timer timer = { .deadline_ms = TIMER_OFF, .fire = trim };

    live = in_use;
    most = MAX(most, in_use + 1);
    if (unlikely(most_have_gone()) && !timer_active(&timer))
        timer_set(&timer, TRIM_AFTER_MS);
}
