/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the tests of core/zone: the zone's sources themselves, so that a test sees their private
 * structures and may compile them with ZONE_STEPS, and functions that compare all that is derived
 * in a zone with its truth. Each check returns NULL or the invariant that does not hold.
 */
#ifndef T_UNIT_CORE_ZONE_CHECK_H
#define T_UNIT_CORE_ZONE_CHECK_H

#include "core/zone/slab.c"
#include "core/zone/lock.c"
#include "core/zone/keyed.c"
#include "core/zone/zone.c"

static unsigned log_lines UNUSED;

static inline void log_count(struct log_file *file, enum log_level level, const char *line,
                             size_t len)
{
    (void) file;
    (void) level;
    (void) line;
    (void) len;
    log_lines++;
}

/* Counts what is logged at error and above instead of printing it. */
static inline void UNUSED log_quietly(void)
{
    static struct log_file file = { .fd = -1, .write = log_count };
    static struct log_target target = { LOG_ERROR_LEVEL, &file, NULL };
    static const struct log_scope scope = { LOG_ERROR_LEVEL, &target };

    log_main->scope = &scope;
}

/* Is page p + 1 in the list, every link of which must be answered by its neighbour? */
static inline bool page_listed(const struct zone *zone, uint32_t head, uint32_t p, bool *sound)
{
    uint32_t at, prev = 0, hops = 0;
    bool found = false;

    for (at = head; at != 0; prev = at, at = zone->pages[at - 1].next) {
        if (at > zone->header->slab.count || zone->pages[at - 1].prev != prev ||
            ++hops > zone->header->slab.count) {
            *sound = false;
            return false;
        }
        found = found || at == p + 1;
    }
    return found;
}

static inline uint32_t list_length(const struct zone *zone, uint32_t head)
{
    uint32_t n = 0;

    for (; head != 0 && n <= zone->header->slab.count; head = zone->pages[head - 1].next)
        n++;
    return n;
}

/* One small page against its bitmap. */
static inline const char *small_check(const struct zone *zone, uint32_t p, uint64_t *taken_bytes)
{
    const struct zone_page *page = &zone->pages[p];
    unsigned class_ = (unsigned) page_arg(page), w;
    uint32_t taken = 0;
    bool sound = true, listed;

    for (w = 0; w < ZONE_MAPS; w++) {
        uint64_t outside = map_outside(class_objects(class_), w);

        if ((page->used[w] & outside) != outside)
            return "a bit without an object is clear";
        taken += (uint32_t) __builtin_popcountll(page->used[w] & ~outside);
    }
    if (taken != page->taken)
        return "taken differs from the bitmap";
    if (taken == 0)
        return "an empty page was kept";
    listed = page_listed(zone, zone->header->slab.partial[class_], p, &sound);
    if (!sound)
        return "the list of a class is broken";
    if (listed != (taken < class_objects(class_)))
        return "a page's room and its place in the list disagree";
    if (page->run != 0)
        return "a used page looks free";
    *taken_bytes += (uint64_t) taken * class_size(class_);
    return NULL;
}

static inline const char *free_run_check(const struct zone *zone, uint32_t p, uint32_t n)
{
    bool sound = true;

    if (zone->pages[p].run != n || zone->pages[p + n - 1].run != n)
        return "a free run's length is wrong: not joined, or not noted";
    if (!page_listed(zone, zone->header->slab.bins[log2_floor(n)], p, &sound) || !sound)
        return "a free run is not in its bin";
    return NULL;
}

static inline const char *UNUSED slab_check(const struct zone *zone)
{
    const struct zone_slab *slab = &zone->header->slab;
    uint32_t p, n, runs = 0, small = 0, listed = 0, full = 0;
    uint64_t taken = 0;
    const char *wrong;
    unsigned i;

    for (p = 0; p < slab->count; p += n) {
        const struct zone_page *page = &zone->pages[p];

        n = 1;
        if (page_type(page) == PAGE_SMALL) {
            small++;
            full += page->taken == class_objects((unsigned) page_arg(page));
            wrong = small_check(zone, p, &taken);
        } else if (page_type(page) == PAGE_RUN) {
            n = (uint32_t) page_arg(page);
            taken += (uint64_t) n * ZONE_PAGE;
            wrong =
                page->run != 0 || zone->pages[p + n - 1].run != 0 ? "a used run looks free" : NULL;
        } else {
            while (p + n < slab->count && zone->pages[p + n].kind == PAGE_FREE)
                n++;
            runs++;
            wrong = free_run_check(zone, p, n);
        }
        if (wrong != NULL)
            return wrong;
    }
    if (p != slab->count)
        return "a run leaves the pool";
    for (i = 0; i < ZONE_CLASSES; i++)
        listed += list_length(zone, slab->partial[i]);
    if (listed != small - full)
        return "the classes list pages that are not theirs";
    for (listed = 0, i = 0; i < ZONE_BINS; i++) {
        listed += list_length(zone, slab->bins[i]);
        if ((slab->bin_mask >> i & 1) != (slab->bins[i] != 0))
            return "the mask of bins is wrong";
    }
    if (listed != runs)
        return "the bins list runs that are not free";
    return slab->bytes_free + taken == zone_bytes_total(zone) ? NULL : "bytes_free is wrong";
}

/* Chains against the order of use in both directions. */
static inline const char *UNUSED keyed_check(struct zone *zone, struct keyed *t)
{
    uint64_t i, chained = 0, ordered = 0;
    uint32_t ref, older = 0;

    for (i = 0; i <= t->mask; i++) {
        for (ref = *bucket(zone, t, (uint32_t) i); ref != 0; ref = node_at(zone, ref)->chain) {
            struct node *node = node_at(zone, ref);

            if (!node_is_sound(zone, t, ref) || ++chained > t->count)
                return "a chain is broken";
            if (node_find(zone, t, keyed_key(zone, t, node_value(node)),
                          hash_with(t->seed, keyed_key(zone, t, node_value(node)))) != node)
                return "an entry is not found by its key";
        }
    }
    if (chained != t->count)
        return "the count differs from the chains";
    for (ref = t->oldest; ref != 0; older = ref, ref = node_at(zone, ref)->younger) {
        if (!node_is_sound(zone, t, ref) || ++ordered > t->count)
            return "the order of use is broken";
        if (node_at(zone, ref)->older != older)
            return "the order of use differs backwards";
    }
    if (ordered != t->count || t->youngest != older)
        return "the order of use lacks entries";
    return t->pending == 0 ? NULL : "something is still pending";
}

#endif
