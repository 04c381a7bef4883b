/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table of small values by the digest of a key, for what is asked with every request: limits. It
 * lies in a zone as pages. A digest has its page, which has a lock of its own, and in that page its line,
 * a cache line of three cells: a look-up touches the page's lock and one line. What finds its line full
 * goes into the next one with room; each line counts what went past it, so that a search knows where to
 * end, and a page's lines share what room they have.
 *
 * A table begins with a few pages and takes one more whenever it finds a page crowded, so that few keys in
 * a large zone lie close together, and stay in the processor's caches.
 *
 * Keys are not kept. Digests are SipHash with a key of the table's own, of which nobody sees a bit: two
 * keys of a million have the same one once in 20 million tables, and nobody can make it happen.
 */
#ifndef CORE_ZONE_CELLS_H
#define CORE_ZONE_CELLS_H

#include <pthread.h>

#include "core/zone/latch.h"
#include "core/zone/zone.h"

#define CELLS_IN_LINE 3
#define CELLS_LINES 63 /* of a page, behind the line of its lock */

struct cells_line {
    uint64_t digest[CELLS_IN_LINE]; /* 0: the cell is free */
    uint64_t wide[CELLS_IN_LINE];   /* its value, the user's */
    uint32_t narrow[CELLS_IN_LINE]; /* more of it */
    uint32_t passed; /* how many cells lie behind this line whose search begins before */
};

struct cells_page {
    struct zone_latch lock;
    uint32_t used;    /* cells */
    uint32_t crowded; /* the table is to grow when the lock is given back */
    struct cells_line lines[CELLS_LINES] __attribute__((aligned(64)));
};

/* The table, in the zone: its root. */
struct cells {
    uint64_t seed[2];
    zone_off_t pages;
    uint32_t page_count; /* as many as it can have */
    uint32_t in_use;     /* the first ones */
    pthread_mutex_t grow_lock;
};

struct cell {
    struct cells_line *line; /* NULL: there is none */
    unsigned n;
};

/* What the user of a table says of it: one static structure per kind. */
struct cells_kind {
    /*
     * What a cell is worth to whoever wants a new one (data: of cells_put): 0 if it may go. If none may, in a table that can
     * grow no more, the one of the least worth goes, of those near by. NULL: what is in use stays, and a full page takes no more.
     */
    uint64_t (*worth)(struct cell cell, const void *data);
    /*
     * A process died with the page's lock. The table itself is sound again; of the user's values each is as it was before or
     * after the store at which death came. With the zone's lock. May die and be called again. NULL: there is nothing to do.
     */
    void (*mend)(struct zone *zone, const struct cells *t, struct cells_page *page);
};

/* In the kind's init: a table of at most that many bytes. NULL: no room for a page. */
struct cells *cells_new(struct zone *zone, size_t bytes);
/* The table that is a zone's root. */
struct cells *cells_of(const struct zone *zone);

/*
 * What a process knows of a zone's table by itself, so that it need not go from the zone to its header, to the table and
 * to its pages before it can ask for the memory that it wants: each step may be one into memory that is far away. All zero:
 * nothing yet.
 */
struct cells_known {
    const struct zone *zone;
    unsigned generation; /* of the zone, for which this holds */
    uint32_t in_use;     /* pages: for a guess */
    struct cells *table;
    const struct cells_page *pages;
    uint64_t seed[2];
};
void cells_learn(struct cells_known *known, const struct zone *zone); /* private */
/* As it is now. */
static inline const struct cells_known *cells_know(struct cells_known *known,
                                                   const struct zone *zone)
{
    if (unlikely(known->zone != zone || known->generation != zone_generation(zone)))
        cells_learn(known, zone);
    return known;
}
/* Even, and never 0. */
uint64_t cells_digest(const uint64_t seed[2], struct str key);
/* Asks the memory for what a look-up will need. */
void cells_prefetch(struct cells_known *known, uint64_t digest);

/*
 * The page of a digest, locked, by a latch: see there for what must not be done before cells_unlock. Order of locks: that by
 * which a table grows, the zone's (only after a death), a page's.
 */
struct cells_page *cells_lock(struct zone *zone, struct cells *t, const struct cells_kind *kind,
                              uint64_t digest);
void cells_unlock(struct zone *zone, struct cells *t, const struct cells_kind *kind,
                  struct cells_page *page);
bool cells_is_page_of(const struct zone *zone, const struct cells *t, const struct cells_page *page,
                      uint64_t digest);

/* These: with the page's lock. */
struct cell cells_find(struct cells_page *page, uint64_t digest);
/* A cell for a digest that has none, its value zero. None: the page is full. */
struct cell cells_put(const struct cells *t, const struct cells_kind *kind, struct cells_page *page,
                      uint64_t digest, const void *data);
void cells_drop(struct cells_page *page, struct cell cell);

#endif
