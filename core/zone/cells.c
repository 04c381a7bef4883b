/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of cells. They own pages, which are one run of the zone's slab, and everything in them but
 * the values. The truth of a page is its cells' digests: a cell is in use from the store of its digest to the
 * store of a zero. Derived is what is counted in lines and pages, which is made anew when a process died
 * with the page's lock; until then what a line counts as passed may be too great, never too small.
 *
 * Pages are added by linear hashing: the page that is due, not the crowded one, is split in two. What belongs to
 * the new page is copied to it, then one store of `in_use` makes it known, then the copied cells are dropped. Both the
 * store and the cells are guarded by the lock of the page that is split: whoever has the lock of a
 * page and finds that it still is the digest's, may rely on it.
 */
#include <errno.h>

#include "core/base/hash.h"
#include "core/os/process.h"
#include "core/zone/cells.h"
#include "core/zone/layout.h"

#define FIRST_PAGES 16
#ifndef CROWDED /* tests have smaller ones */
#define CROWDED (CELLS_LINES * CELLS_IN_LINE / 2)
#endif
#define EVICT_LINES \
    32 /* of which the least worthy cell goes: to search all of a full page would take too long */

_Static_assert(sizeof(struct cells_line) == 64, "a line of cells is a cache line");
_Static_assert(sizeof(struct cells_page) == ZONE_PAGE, "a page of cells is a page");

/* Of the tables that this process and its parents made, so that one digest may serve several. */
static uint64_t common_seed[2];

static const struct cell no_cell = { NULL, 0 };

static struct cells_page *page_at(const struct zone *zone, const struct cells *t, uint32_t n)
{
    return (struct cells_page *) (void *) (zone->base + t->pages) + n;
}

struct cells *cells_new(struct zone *zone, size_t bytes)
{
    struct cells *t = zone_alloc(zone, sizeof(*t));
    size_t count = MIN(bytes, zone_bytes_free(zone)) / sizeof(struct cells_page);

    if (t == NULL || count == 0)
        return NULL;
    t->pages = zone_off(zone, zone_alloc(zone, count * sizeof(struct cells_page)));
    if (t->pages == 0 || zone_mutex_init(&t->grow_lock) != 0)
        return NULL;
    t->page_count = (uint32_t) count;
    t->in_use = MIN(t->page_count, FIRST_PAGES);
    if (common_seed[0] == 0)
        random_bytes(common_seed, sizeof(common_seed));
    memcpy(t->seed, common_seed, sizeof(t->seed));
    return t;
}

struct cells *cells_of(const struct zone *zone)
{
    return (struct cells *) (void *) (zone->base + zone->header->root);
}

void cells_learn(struct cells_known *known, const struct zone *zone)
{
    struct cells *t;

    known->generation = zone_generation(zone);
    t = cells_of(zone);
    known->zone = zone;
    known->table = t;
    known->pages = page_at(zone, t, 0);
    known->in_use = t->in_use;
    memcpy(known->seed, t->seed, sizeof(known->seed));
}

uint64_t cells_digest(const uint64_t seed[2], struct str key)
{
    uint64_t digest = hash_keyed(seed, key) & ~UINT64_C(1);

    return likely(digest != 0) ? digest : 2;
}

/* Of so many pages the one for a digest: by as many bits as needed, or one less if there is no such page yet. */
static uint32_t page_number(uint64_t digest, uint32_t in_use)
{
    uint32_t high = (uint32_t) (digest >> 32);
    uint32_t mask = UINT32_MAX >> __builtin_clz(in_use);

    return (high & mask) < in_use ? high & mask : high & mask >> 1;
}

static uint32_t pages_in_use(const struct cells *t)
{
    return __atomic_load_n(&t->in_use, __ATOMIC_ACQUIRE);
}

static struct cells_page *page_of(const struct zone *zone, const struct cells *t, uint64_t digest)
{
    return page_at(zone, t, page_number(digest, pages_in_use(t)));
}

bool cells_is_page_of(const struct zone *zone, const struct cells *t, const struct cells_page *page,
                      uint64_t digest)
{
    return page_of(zone, t, digest) == page;
}

/* The line in which the search for a digest begins. */
static unsigned home_of(uint64_t digest)
{
    return (unsigned) ((digest & UINT32_MAX) * CELLS_LINES >> 32);
}

static unsigned line_after(unsigned line)
{
    return line + 1 < CELLS_LINES ? line + 1 : 0;
}

/* By the pages that were in use when we looked last: most of what was asked for since is where it was. */
void cells_prefetch(struct cells_known *known, uint64_t digest)
{
    const struct cells_page *page = known->pages + page_number(digest, known->in_use);

    __builtin_prefetch(page, 1);
    __builtin_prefetch(&page->lines[home_of(digest)], 1);
    known->in_use = pages_in_use(known->table);
}

/* Cells ---------------------------------------------------------------------------------------- */

struct cell cells_find(struct cells_page *page, uint64_t digest)
{
    unsigned at = home_of(digest);

    for (unsigned i = 0; i < CELLS_LINES; i++, at = line_after(at)) {
        struct cells_line *line = &page->lines[at];

        for (unsigned n = 0; n < CELLS_IN_LINE; n++) {
            if (line->digest[n] == digest)
                return (struct cell){ line, n };
        }
        if (likely(line->passed == 0))
            break;
    }
    return no_cell;
}

/* The lines from a digest's home to where its cell is have been passed by one more, or one less. */
static void path_add(struct cells_page *page, const struct cells_line *end, uint64_t digest,
                     uint32_t one)
{
    unsigned at = home_of(digest);

    for (; &page->lines[at] != end; at = line_after(at))
        ZONE_SET(page->lines[at].passed, page->lines[at].passed + one);
}

void cells_drop(struct cells_page *page, struct cell cell)
{
    uint64_t digest = cell.line->digest[cell.n];

    ZONE_SET(cell.line->digest[cell.n], 0);
    ZONE_SET(page->used, page->used - 1);
    path_add(page, cell.line, digest, (uint32_t) -1);
}

static void cell_fill(struct cells_page *page, struct cell cell, uint64_t digest, uint64_t wide,
                      uint32_t narrow)
{
    path_add(page, cell.line, digest, 1);
    ZONE_SET(page->used, page->used + 1);
    ZONE_SET(cell.line->wide[cell.n], wide);
    ZONE_SET(cell.line->narrow[cell.n], narrow);
    ZONE_SET(cell.line->digest[cell.n], digest);
}

/*
 * Where a new digest goes, in so many lines: the first cell that is free or worth nothing, or the one of the
 * least worth.
 */
static struct cell place(const struct cells_kind *kind, struct cells_page *page, uint64_t digest,
                         unsigned lines, const void *data)
{
    uint64_t least = UINT64_MAX;
    unsigned at = home_of(digest);
    struct cell victim = no_cell;

    for (unsigned i = 0; i < lines; i++, at = line_after(at)) {
        struct cell cell = { &page->lines[at], 0 };

        for (; cell.n < CELLS_IN_LINE; cell.n++) {
            uint64_t worth = 0;

            if (cell.line->digest[cell.n] != 0)
                worth = kind->worth != NULL ? kind->worth(cell, data) : UINT64_MAX;
            if (worth == 0)
                return cell;
            if (worth < least) {
                least = worth;
                victim = cell;
            }
        }
    }
    return victim;
}

/* Drops all that is worth nothing; if that is not enough, the table is to grow. */
static void relieve(const struct cells_kind *kind, struct cells_page *page, const void *data)
{
    struct cell cell = { page->lines, 0 };

    for (; kind->worth != NULL && cell.line < page->lines + CELLS_LINES; cell.line++) {
        for (cell.n = 0; cell.n < CELLS_IN_LINE; cell.n++) {
            if (cell.line->digest[cell.n] != 0 && kind->worth(cell, data) == 0)
                cells_drop(page, cell);
        }
    }
    if (page->used >= CROWDED)
        ZONE_SET(page->crowded, 1);
}

/* A free cell where the search for a digest begins. */
static struct cell free_at_home(struct cells_page *page, uint64_t digest)
{
    struct cell cell = { &page->lines[home_of(digest)], 0 };

    for (; cell.n < CELLS_IN_LINE; cell.n++) {
        if (cell.line->digest[cell.n] == 0)
            return cell;
    }
    return no_cell;
}

struct cell cells_put(const struct cells *t, const struct cells_kind *kind, struct cells_page *page,
                      uint64_t digest, const void *data)
{
    bool can_grow = pages_in_use(t) < t->page_count;
    struct cell cell;

    if (unlikely(page->used >= CROWDED) && can_grow)
        relieve(kind, page, data);
    cell = free_at_home(page, digest);
    if (unlikely(cell.line == NULL))
        cell = place(kind, page, digest,
                     can_grow || kind->worth == NULL ? CELLS_LINES : EVICT_LINES, data);
    if (unlikely(cell.line == NULL))
        return no_cell;
    if (cell.line->digest[cell.n] != 0)
        cells_drop(page, cell);
    cell_fill(page, cell, digest, 0, 0);
    return cell;
}

/* Locks ---------------------------------------------------------------------------------------- */

/* Drops what a split has copied, and makes all counts anew. */
static void page_mend(const struct zone *zone, const struct cells *t, struct cells_page *page)
{
    uint32_t used = 0;

    for (unsigned l = 0; l < CELLS_LINES; l++)
        ZONE_SET(page->lines[l].passed, 0);
    for (unsigned l = 0; l < CELLS_LINES; l++) {
        for (unsigned n = 0; n < CELLS_IN_LINE; n++) {
            uint64_t digest = page->lines[l].digest[n];

            if (digest == 0)
                continue;
            if (!cells_is_page_of(zone, t, page, digest)) {
                ZONE_SET(page->lines[l].digest[n], 0);
                continue;
            }
            used++;
            path_add(page, &page->lines[l], digest, 1);
        }
    }
    ZONE_SET(page->used, used);
    ZONE_SET(page->crowded, 0);
}

/* The zone's lock is taken first, so that nothing but the page's needs to be held by a latch. */
static __attribute__((noinline, cold)) void page_of_dead(struct zone *zone, const struct cells *t,
                                                         const struct cells_kind *kind,
                                                         struct cells_page *page)
{
    zone_lock(zone);
    if (latch_inherit(&page->lock)) {
        page_mend(zone, t, page);
        if (kind->mend != NULL)
            kind->mend(zone, t, page);
        zone_recovered(zone);
        latch_unlock(&page->lock);
    }
    zone_unlock(zone);
}

static inline void page_lock(struct zone *zone, const struct cells *t,
                             const struct cells_kind *kind, struct cells_page *page)
{
    while (unlikely(!latch_lock(&page->lock)))
        page_of_dead(zone, t, kind, page);
}

static void unlock(pthread_mutex_t *lock)
{
    int err = pthread_mutex_unlock(lock);

    ASSERT(err == 0);
}

struct cells_page *cells_lock(struct zone *zone, struct cells *t, const struct cells_kind *kind,
                              uint64_t digest)
{
    for (;;) {
        uint32_t in_use = pages_in_use(t);
        struct cells_page *page = page_at(zone, t, page_number(digest, in_use));

        page_lock(zone, t, kind, page);
        if (likely(pages_in_use(t) == in_use) || cells_is_page_of(zone, t, page, digest))
            return page;
        latch_unlock(&page->lock); /* it was split meanwhile */
    }
}

/* Copies to the new page, which nobody knows yet, what belongs there. False: that cannot be. */
static bool split_copy(const struct cells *t, const struct cells_page *old, struct cells_page *new)
{
    static const struct cells_kind only_free = { NULL, NULL };

    memset(new, 0, sizeof(*new)); /* whoever tried before us may have died */
    for (unsigned l = 0; l < CELLS_LINES; l++) {
        const struct cells_line *line = &old->lines[l];

        for (unsigned n = 0; n < CELLS_IN_LINE; n++) {
            struct cell cell;

            if (line->digest[n] == 0 || page_number(line->digest[n], t->in_use + 1) != t->in_use)
                continue;
            cell = place(&only_free, new, line->digest[n], CELLS_LINES, NULL);
            if (cell.line == NULL)
                return false;
            cell_fill(new, cell, line->digest[n], line->wide[n], line->narrow[n]);
        }
    }
    return true;
}

static void split(struct zone *zone, struct cells *t, const struct cells_kind *kind)
{
    uint32_t half = 1u << (31 - __builtin_clz(t->in_use));
    struct cells_page *old = page_at(zone, t, t->in_use - half);
    struct cells_page *new = page_at(zone, t, t->in_use);

    /*
     * Half of what a look-up costs in a large table is to find out where its page lies, unless the processor can remember that
     * of 512 pages at once.
     */
    shm_make_huge(new, (size_t) (zone->base + zone->total - (char *) new));
    page_lock(zone, t, kind, old);
    if (split_copy(t, old, new)) {
        zone_step();
        __atomic_store_n(&t->in_use, t->in_use + 1, __ATOMIC_RELEASE);
        page_mend(zone, t, old);
    }
    latch_unlock(&old->lock);
}

static void table_grow(struct zone *zone, struct cells *t, const struct cells_kind *kind)
{
    int err = pthread_mutex_trylock(&t->grow_lock);

    if (err == EBUSY)
        return; /* somebody else makes it grow */
    ASSERT(err == 0 || err == EOWNERDEAD);
    if (err == EOWNERDEAD)
        (void) pthread_mutex_consistent(&t->grow_lock);
    if (t->in_use < t->page_count)
        split(zone, t, kind);
    unlock(&t->grow_lock);
}

void cells_unlock(struct zone *zone, struct cells *t, const struct cells_kind *kind,
                  struct cells_page *page)
{
    bool crowded = page->crowded != 0;

    if (unlikely(crowded))
        ZONE_SET(page->crowded, 0);
    latch_unlock(&page->lock);
    if (unlikely(crowded))
        table_grow(zone, t, kind);
}
