/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocator inside a zone. Objects up to 2 KiB come from pages of their size class, larger
 * ones are runs of whole pages. Called with the zone's lock held, by whoever keeps data in
 * the zone; it never logs and never waits.
 *
 * The truth is in the descriptors (layout.h): a page's kind and its bitmap. Lists of pages with
 * room, bins of free runs and counts are derived. So an object is taken or given back by one
 * store, and a process that dies around it leaves nothing but derived data to be rebuilt.
 */
#include "core/os/process.h"
#include "core/zone/layout.h"

static unsigned log2_floor(uint32_t n)
{
    return 31u - (unsigned) __builtin_clz(n);
}

/* Multiples of 16 up to 128, then four classes to each doubling. size is 1..ZONE_SMALL_MAX. */
static unsigned class_of(size_t size)
{
    uint32_t last = (uint32_t) size - 1;
    unsigned log;

    if (last < 128)
        return last >> 4;
    log = log2_floor(last);
    return 8 + 4 * (log - 7) + ((last >> (log - 2)) & 3);
}

static uint32_t class_size(unsigned class_)
{
    unsigned log;

    if (class_ < 8)
        return (class_ + 1) * 16;
    log = 7 + (class_ - 8) / 4;
    return (1u << log) + (((class_ - 8) & 3) + 1) * (1u << (log - 2));
}

static uint32_t class_objects(unsigned class_)
{
    return ZONE_PAGE / class_size(class_);
}

/* The bits of word w of a bitmap that stand for no object. */
static uint64_t map_outside(uint32_t objects, unsigned w)
{
    if (objects <= w * 64)
        return ~0ull;
    if (objects >= (w + 1) * 64)
        return 0;
    return ~0ull << (objects - w * 64);
}

static unsigned page_type(const struct zone_page *page)
{
    return page->kind & 0xff;
}

static uint64_t page_arg(const struct zone_page *page)
{
    return page->kind >> 8;
}

static char *page_memory(const struct zone *zone, uint32_t p)
{
    return zone->pool + (size_t) p * ZONE_PAGE;
}

static void list_put(struct zone *zone, uint32_t *head, uint32_t p)
{
    struct zone_page *page = &zone->pages[p];

    ZONE_SET(page->prev, 0);
    ZONE_SET(page->next, *head);
    if (*head != 0)
        ZONE_SET(zone->pages[*head - 1].prev, p + 1);
    ZONE_SET(*head, p + 1);
}

static void list_drop(struct zone *zone, uint32_t *head, uint32_t p)
{
    struct zone_page *page = &zone->pages[p];

    if (page->prev != 0)
        ZONE_SET(zone->pages[page->prev - 1].next, page->next);
    else
        ZONE_SET(*head, page->next);
    if (page->next != 0)
        ZONE_SET(zone->pages[page->next - 1].prev, page->prev);
}

static void bin_put(struct zone *zone, uint32_t p, uint32_t n)
{
    struct zone_slab *slab = &zone->header->slab;
    unsigned bin = log2_floor(n);

    ZONE_SET(zone->pages[p].run, n);
    ZONE_SET(zone->pages[p + n - 1].run, n);
    list_put(zone, &slab->bins[bin], p);
    ZONE_SET(slab->bin_mask, slab->bin_mask | 1u << bin);
}

static void bin_drop(struct zone *zone, uint32_t p)
{
    struct zone_slab *slab = &zone->header->slab;
    unsigned bin = log2_floor(zone->pages[p].run);

    list_drop(zone, &slab->bins[bin], p);
    if (slab->bins[bin] == 0)
        ZONE_SET(slab->bin_mask, slab->bin_mask & ~(1u << bin));
}

/* Looks at no more than `most` runs of a bin for one of n pages. False: none. */
static bool bin_find(const struct zone *zone, unsigned bin, uint32_t n, uint32_t most, uint32_t *p)
{
    uint32_t at;

    for (at = zone->header->slab.bins[bin]; at != 0 && most-- != 0; at = zone->pages[at - 1].next) {
        if (zone->pages[at - 1].run >= n) {
            *p = at - 1;
            return true;
        }
    }
    return false;
}

/* A free run of at least n pages. A few of the best bin first, then any larger one, then all. */
static bool run_find(const struct zone *zone, uint32_t n, uint32_t *p)
{
    const struct zone_slab *slab = &zone->header->slab;
    unsigned bin = log2_floor(n);
    uint32_t above;

    if (bin_find(zone, bin, n, 16, p))
        return true;
    above = bin + 1 < ZONE_BINS ? slab->bin_mask & (~0u << (bin + 1)) : 0;
    if (above != 0) {
        *p = slab->bins[__builtin_ctz(above)] - 1;
        return true;
    }
    return bin_find(zone, bin, n, UINT32_MAX, p);
}

/* Takes n pages out of the bins; they are free until the caller stores their kind. False: full. */
static bool run_take(struct zone *zone, uint32_t n, uint32_t *p)
{
    uint32_t len;

    if (!run_find(zone, n, p))
        return false;
    len = zone->pages[*p].run;
    bin_drop(zone, *p);
    if (len > n)
        bin_put(zone, *p + n, len - n);
    ZONE_SET(zone->pages[*p].run, 0);
    ZONE_SET(zone->pages[*p + n - 1].run, 0);
    return true;
}

/* Puts n pages, whose kind is PAGE_FREE by now, into the bins, joined with free neighbours. */
static void run_give(struct zone *zone, uint32_t p, uint32_t n)
{
    uint32_t count = zone->header->slab.count;
    uint32_t more;

    if (p + n < count && (more = zone->pages[p + n].run) != 0) {
        bin_drop(zone, p + n);
        n += more;
    }
    if (p > 0 && (more = zone->pages[p - 1].run) != 0) {
        p -= more;
        bin_drop(zone, p);
        n += more;
    }
    bin_put(zone, p, n);
}

static void *run_alloc(struct zone *zone, size_t size, uint64_t *into)
{
    struct zone_slab *slab = &zone->header->slab;
    uint32_t p, n;
    char *ptr;

    if (size > (size_t) slab->count * ZONE_PAGE)
        return NULL;
    n = (uint32_t) ((size + ZONE_PAGE - 1) / ZONE_PAGE);
    if (!run_take(zone, n, &p))
        return NULL;
    ptr = page_memory(zone, p);
    if (into != NULL)
        ZONE_SET(*into, (uint64_t) (ptr - zone->base));
    ZONE_SET(slab->bytes_free, slab->bytes_free - (uint64_t) n * ZONE_PAGE);
    ZONE_SET(zone->pages[p].kind, PAGE_RUN | (uint64_t) n << 8);
    shm_zero(ptr, (size_t) n * ZONE_PAGE);
    return ptr;
}

/* A page with room for the class: the first of its list, or a free one made into one. */
static struct zone_page *small_page(struct zone *zone, unsigned class_)
{
    struct zone_slab *slab = &zone->header->slab;
    struct zone_page *page;
    unsigned w;
    uint32_t p;

    if (slab->partial[class_] != 0)
        return &zone->pages[slab->partial[class_] - 1];
    if (!run_take(zone, 1, &p))
        return NULL;
    page = &zone->pages[p];
    for (w = 0; w < ZONE_MAPS; w++)
        ZONE_SET(page->used[w], map_outside(class_objects(class_), w));
    ZONE_SET(page->taken, 0);
    ZONE_SET(page->kind, PAGE_SMALL | (uint64_t) class_ << 8);
    list_put(zone, &slab->partial[class_], p);
    return page;
}

void *slab_alloc(struct zone *zone, size_t size, uint64_t *into)
{
    struct zone_slab *slab = &zone->header->slab;
    struct zone_page *page;
    unsigned class_, w = 0;
    unsigned bit;
    char *ptr;

    if (size > ZONE_SMALL_MAX)
        return run_alloc(zone, size, into);
    class_ = class_of(size == 0 ? 1 : size);
    slab->asked[class_]++;
    page = small_page(zone, class_);
    if (page == NULL) {
        slab->failed[class_]++;
        return NULL;
    }
    while (page->used[w] == ~0ull) {
        w++;
        ASSERT(w < ZONE_MAPS);
    }
    bit = (unsigned) __builtin_ctzll(~page->used[w]);
    ptr = page_memory(zone, (uint32_t) (page - zone->pages)) + (w * 64 + bit) * class_size(class_);
    memset(ptr, 0, class_size(class_));
    if (into != NULL)
        ZONE_SET(*into, (uint64_t) (ptr - zone->base));
    ZONE_SET(page->used[w], page->used[w] | 1ull << bit);
    ZONE_SET(page->taken, page->taken + 1);
    ZONE_SET(slab->bytes_free, slab->bytes_free - class_size(class_));
    if (page->taken == class_objects(class_))
        list_drop(zone, &slab->partial[class_], (uint32_t) (page - zone->pages));
    return ptr;
}

void *zone_alloc(struct zone *zone, size_t size)
{
    return slab_alloc(zone, size, NULL);
}

void *zone_alloc_into(struct zone *zone, size_t size, zone_off_t *into)
{
    return slab_alloc(zone, size, into);
}

/* Gives back one object of a small page, and the page with its last one. */
static void small_free(struct zone *zone, uint32_t p, size_t within)
{
    struct zone_slab *slab = &zone->header->slab;
    struct zone_page *page = &zone->pages[p];
    unsigned class_ = (unsigned) page_arg(page);
    uint32_t size = class_size(class_);
    uint32_t object = (uint32_t) within / size;
    uint64_t bit = 1ull << (object & 63);

    ASSERT(object * size == within && object < class_objects(class_));
    ASSERT((page->used[object / 64] & bit) != 0);
    ZONE_SET(page->used[object / 64], page->used[object / 64] & ~bit);
    if (page->taken == class_objects(class_))
        list_put(zone, &slab->partial[class_], p);
    ZONE_SET(page->taken, page->taken - 1);
    ZONE_SET(slab->bytes_free, slab->bytes_free + size);
    if (page->taken == 0) {
        list_drop(zone, &slab->partial[class_], p);
        ZONE_SET(page->kind, PAGE_FREE);
        run_give(zone, p, 1);
    }
}

void zone_free(struct zone *zone, void *ptr)
{
    struct zone_slab *slab = &zone->header->slab;
    uint32_t p, n;
    size_t off;

    if (ptr == NULL)
        return;
    off = (size_t) ((char *) ptr - zone->pool);
    p = (uint32_t) (off / ZONE_PAGE);
    ASSERT((char *) ptr >= zone->pool && off / ZONE_PAGE < slab->count);
    if (page_type(&zone->pages[p]) == PAGE_SMALL) {
        small_free(zone, p, off % ZONE_PAGE);
        return;
    }
    ASSERT(page_type(&zone->pages[p]) == PAGE_RUN && off % ZONE_PAGE == 0);
    n = (uint32_t) page_arg(&zone->pages[p]);
    ZONE_SET(zone->pages[p].kind, PAGE_FREE);
    ZONE_SET(slab->bytes_free, slab->bytes_free + (uint64_t) n * ZONE_PAGE);
    run_give(zone, p, n);
}

size_t zone_bytes_free(const struct zone *zone)
{
    return __atomic_load_n(&zone->header->slab.bytes_free, __ATOMIC_RELAXED);
}

size_t zone_bytes_total(const struct zone *zone)
{
    return (size_t) zone->header->slab.count * ZONE_PAGE;
}

void zone_slab_status(const struct zone *zone, struct zone_slab_status *out)
{
    const struct zone_slab *slab = &zone->header->slab;
    uint64_t left = 0; /* of a run */

    *out = (struct zone_slab_status){ .count = ZONE_CLASSES };
    for (unsigned i = 0; i < ZONE_CLASSES; i++) {
        out->slots[i].size = class_size(i);
        out->slots[i].asked = __atomic_load_n(&slab->asked[i], __ATOMIC_RELAXED);
        out->slots[i].failed = __atomic_load_n(&slab->failed[i], __ATOMIC_RELAXED);
    }
    for (uint32_t p = 0; p < zone->page_count; p++) {
        uint64_t kind = __atomic_load_n(&zone->pages[p].kind, __ATOMIC_RELAXED);
        uint32_t taken = __atomic_load_n(&zone->pages[p].taken, __ATOMIC_RELAXED);
        uint64_t arg = kind >> 8;
        uint32_t run = __atomic_load_n(&zone->pages[p].run, __ATOMIC_RELAXED);

        if ((kind & 0xff) == PAGE_RUN)
            left = arg;
        if (kind == PAGE_FREE && left == 0 && run > 1 && run <= zone->page_count - p) {
            out->pages_free += run; /* not looked at one by one: they may never have been used */
            p += run - 1;
            continue;
        }
        if ((kind & 0xff) == PAGE_SMALL && arg < ZONE_CLASSES) {
            out->slots[arg].used += taken;
            out->slots[arg].free += class_objects((unsigned) arg) - taken;
            out->pages_used++;
        } else if (left > 0) {
            left--;
            out->pages_used++;
        } else {
            out->pages_free++;
        }
    }
}

void zone_slab_reset(struct zone *zone)
{
    struct zone_slab *slab = &zone->header->slab;

    zone_lock(zone);
    memset(slab->asked, 0, sizeof(slab->asked));
    memset(slab->failed, 0, sizeof(slab->failed));
    zone_unlock(zone);
}

static void slab_clear(struct zone_slab *slab)
{
    unsigned i;

    for (i = 0; i < ZONE_BINS; i++)
        ZONE_SET(slab->bins[i], 0);
    for (i = 0; i < ZONE_CLASSES; i++)
        ZONE_SET(slab->partial[i], 0);
    ZONE_SET(slab->bin_mask, 0);
}

void slab_init(struct zone *zone, bool fresh)
{
    struct zone_slab *slab = &zone->header->slab;
    uint32_t p;

    slab_clear(slab);
    for (p = 0; p < slab->count && !fresh; p++) {
        ZONE_SET(zone->pages[p].kind, PAGE_FREE);
        ZONE_SET(zone->pages[p].run, 0);
    }
    bin_put(zone, 0, slab->count);
    ZONE_SET(slab->bytes_free, (uint64_t) slab->count * ZONE_PAGE);
}

/* Counts a small page's objects and lists it if it has room; an empty one becomes free. */
static bool small_recover(struct zone *zone, uint32_t p)
{
    struct zone_slab *slab = &zone->header->slab;
    struct zone_page *page = &zone->pages[p];
    uint64_t class_ = page_arg(page);
    uint32_t taken = 0, objects;
    unsigned w;

    if (class_ >= ZONE_CLASSES)
        return false;
    objects = class_objects((unsigned) class_);
    for (w = 0; w < ZONE_MAPS; w++) {
        uint64_t outside = map_outside(objects, w);

        if ((page->used[w] & outside) != outside)
            return false;
        taken += (uint32_t) __builtin_popcountll(page->used[w] & ~outside);
    }
    ZONE_SET(page->run, 0);
    ZONE_SET(page->taken, taken);
    if (taken == 0) {
        ZONE_SET(page->kind, PAGE_FREE);
        return true;
    }
    ZONE_SET(slab->bytes_free, slab->bytes_free - (uint64_t) taken * class_size((unsigned) class_));
    if (taken < objects)
        list_put(zone, &slab->partial[class_], p);
    return true;
}

bool slab_recover(struct zone *zone)
{
    struct zone_slab *slab = &zone->header->slab;
    uint32_t p, n, free_from = 0;

    slab_clear(slab);
    ZONE_SET(slab->bytes_free, (uint64_t) slab->count * ZONE_PAGE);
    for (p = 0; p < slab->count; p += n) {
        struct zone_page *page = &zone->pages[p];

        n = 1;
        if (page_type(page) == PAGE_SMALL) {
            if (!small_recover(zone, p))
                return false;
        } else if (page_type(page) == PAGE_RUN) {
            if (page_arg(page) == 0 || page_arg(page) > slab->count - p)
                return false;
            n = (uint32_t) page_arg(page);
            ZONE_SET(page->run, 0);
            ZONE_SET(zone->pages[p + n - 1].run, 0);
            ZONE_SET(slab->bytes_free, slab->bytes_free - (uint64_t) n * ZONE_PAGE);
        } else if (page->kind != PAGE_FREE) {
            return false;
        }
        if (page->kind == PAGE_FREE)
            continue;
        if (p > free_from)
            bin_put(zone, free_from, p - free_from);
        free_from = p + n;
    }
    if (p > free_from)
        bin_put(zone, free_from, p - free_from);
    return true;
}

bool slab_is_object(const struct zone *zone, uint64_t off, size_t size)
{
    const struct zone_slab *slab = &zone->header->slab;
    const struct zone_page *page;
    uint64_t within;
    uint32_t object;

    if (off < slab->pool || (off - slab->pool) / ZONE_PAGE >= slab->count)
        return false;
    page = &zone->pages[(off - slab->pool) / ZONE_PAGE];
    within = (off - slab->pool) % ZONE_PAGE;
    if (page_type(page) == PAGE_RUN)
        return within == 0 && size <= page_arg(page) * ZONE_PAGE;
    if (page_type(page) != PAGE_SMALL || size > class_size((unsigned) page_arg(page)))
        return false;
    object = (uint32_t) within / class_size((unsigned) page_arg(page));
    return (uint64_t) object * class_size((unsigned) page_arg(page)) == within &&
           (page->used[object / 64] >> (object & 63) & 1) != 0 &&
           object < class_objects((unsigned) page_arg(page));
}

bool zone_is_object(const struct zone *zone, zone_off_t off, size_t size)
{
    return slab_is_object(zone, off, size);
}
