/* SPDX-License-Identifier: BSD-2-Clause */
/* For the tests of what uses cells: the source itself, all locks at once, and what must hold in a table. */
#ifndef T_UNIT_CORE_ZONE_CELLS_CHECK_H
#define T_UNIT_CORE_ZONE_CELLS_CHECK_H

#include "t/unit/core/zone/check.h"
#include "core/zone/cells.c"

/* Nobody changes the table meanwhile; what dead processes left is mended. */
static inline void UNUSED cells_lock_all(struct zone *zone, struct cells *t,
                                         const struct cells_kind *kind)
{
    if (pthread_mutex_lock(&t->grow_lock) == EOWNERDEAD)
        (void) pthread_mutex_consistent(&t->grow_lock);
    /* One after the other first: who dies here may hold but one. */
    for (uint32_t n = 0; n < t->in_use; n++) {
        page_lock(zone, t, kind, page_at(zone, t, n));
        latch_unlock(&page_at(zone, t, n)->lock);
    }
    for (uint32_t n = 0; n < t->in_use; n++)
        page_lock(zone, t, kind, page_at(zone, t, n));
}

static inline void UNUSED cells_unlock_all(struct zone *zone, struct cells *t)
{
    for (uint32_t n = t->in_use; n-- > 0;)
        latch_unlock(&page_at(zone, t, n)->lock);
    unlock(&t->grow_lock);
}

/* Calls each with every cell in use; how many there are. each may be NULL. */
static inline size_t UNUSED cells_each(struct zone *zone, struct cells *t,
                                       void (*each)(struct cell cell, void *data), void *data)
{
    size_t count = 0;

    for (uint32_t p = 0; p < t->in_use; p++) {
        struct cells_page *page = page_at(zone, t, p);
        struct cell cell = { page->lines, 0 };

        for (; cell.line < page->lines + CELLS_LINES; cell.line++) {
            for (cell.n = 0; cell.n < CELLS_IN_LINE; cell.n++) {
                if (cell.line->digest[cell.n] == 0)
                    continue;
                count++;
                if (each != NULL)
                    each(cell, data);
            }
        }
    }
    return count;
}

static inline const char *page_check(struct zone *zone, struct cells *t, struct cells_page *page)
{
    uint32_t passed[CELLS_LINES] = { 0 }, used = 0;

    for (unsigned l = 0; l < CELLS_LINES; l++) {
        for (unsigned n = 0; n < CELLS_IN_LINE; n++) {
            uint64_t digest = page->lines[l].digest[n];
            struct cell cell;

            if (digest == 0)
                continue;
            used++;
            if (!cells_is_page_of(zone, t, page, digest))
                return "a cell lies in another page than its digest's";
            for (unsigned at = home_of(digest); at != l; at = line_after(at))
                passed[at]++;
            cell = cells_find(page, digest);
            if (cell.line != &page->lines[l] || cell.n != n)
                return "a cell is not found";
        }
    }
    for (unsigned l = 0; l < CELLS_LINES; l++) {
        if (page->lines[l].passed != passed[l])
            return "a line miscounts what has passed it";
    }
    return page->used == used ? NULL : "a page miscounts its cells";
}

static inline const char *UNUSED cells_check(struct zone *zone, struct cells *t)
{
    const char *wrong = NULL;

    for (uint32_t n = 0; n < t->in_use && wrong == NULL; n++)
        wrong = page_check(zone, t, page_at(zone, t, n));
    return wrong;
}

#endif
