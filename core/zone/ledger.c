/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ledgers: which worker holds what in a zone. They own chunks of entries in the slab and the
 * head of each worker's slot. Who dies in the midst of a change has its own ledger dropped soon after;
 * until then its list of free entries may lack one, which nobody will ask for. So the only rule for the
 * order of stores is that an entry is never seen to hold what it does not.
 */
#include "core/zone/layout.h"
#include "core/zone/ledger.h"

/* A few chunks of one size first, since the slab gives each size a page of its own; then whole pages. */
#define CHUNK_MIN 256
#define CHUNK_MAX ZONE_PAGE
#define CHUNKS_SMALL 16
#define ENTRY_FREE 1u /* set in a free entry, beside the offset of the next free one */

struct chunk {
    zone_off_t older;
    uint32_t size;   /* of the chunk, in bytes */
    uint32_t number; /* counted from the oldest */
    zone_off_t entries[];
};

static struct chunk *chunk_at(const struct zone *zone, zone_off_t off)
{
    return (struct chunk *) (void *) (zone->base + off);
}

static zone_off_t *entry_at(const struct zone *zone, zone_off_t off)
{
    return (zone_off_t *) (void *) (zone->base + off);
}

static size_t chunk_entries(const struct chunk *chunk)
{
    return (chunk->size - sizeof(*chunk)) / sizeof(chunk->entries[0]);
}

/* A new chunk, all of it free. False: the zone is full. */
static bool grow(struct zone *zone, struct ledger *ledger)
{
    uint32_t number = ledger->chunks != 0 ? chunk_at(zone, ledger->chunks)->number + 1 : 0;
    uint32_t size = number < CHUNKS_SMALL ? CHUNK_MIN : CHUNK_MAX;
    struct chunk *chunk = zone_alloc_into(zone, size, &ledger->making);
    zone_off_t first;
    size_t n;

    if (chunk == NULL && size > CHUNK_MIN) {
        size = CHUNK_MIN;
        chunk = zone_alloc_into(zone, size, &ledger->making);
    }
    if (chunk == NULL)
        return false;
    chunk->older = ledger->chunks;
    chunk->size = size;
    chunk->number = number;
    n = chunk_entries(chunk);
    first = zone_off(zone, chunk->entries);
    for (size_t i = 0; i < n; i++)
        chunk->entries[i] =
            (i + 1 < n ? first + (i + 1) * sizeof(first) : ledger->free) | ENTRY_FREE;
    ZONE_SET(ledger->chunks, zone_off(zone, chunk));
    ZONE_SET(ledger->making, 0);
    ZONE_SET(ledger->free, first);
    return true;
}

bool ledger_grow(struct zone *zone, struct ledger *ledger)
{
    bool grown;

    zone_lock(zone);
    grown = grow(zone, ledger);
    zone_unlock(zone);
    return grown;
}

zone_off_t ledger_take(struct zone *zone, struct ledger *ledger, uint64_t what)
{
    zone_off_t entry = ledger->free;

    ASSERT(entry != 0 && (what & ENTRY_FREE) == 0);
    ZONE_SET(ledger->free, *entry_at(zone, entry) & ~(zone_off_t) ENTRY_FREE);
    ZONE_SET(*entry_at(zone, entry), what);
    return entry;
}

void ledger_give(struct zone *zone, struct ledger *ledger, zone_off_t entry)
{
    ASSERT((*entry_at(zone, entry) & ENTRY_FREE) == 0);
    ZONE_SET(*entry_at(zone, entry), ledger->free | ENTRY_FREE);
    ZONE_SET(ledger->free, entry);
}

/* What a dead process left: a chunk that the slab knows, with a size that it has room for. */
static bool chunk_is_sound(const struct zone *zone, zone_off_t off)
{
    uint32_t size;

    if (!slab_is_object(zone, off, CHUNK_MIN))
        return false;
    size = chunk_at(zone, off)->size;
    return size >= CHUNK_MIN && size <= CHUNK_MAX && slab_is_object(zone, off, size);
}

void ledger_recover(struct zone *zone, struct ledger *ledger)
{
    if (likely(ledger->making == 0))
        return;
    if (ledger->making != ledger->chunks && slab_is_object(zone, ledger->making, CHUNK_MIN))
        zone_free(zone, chunk_at(zone, ledger->making));
    ZONE_SET(ledger->making, 0);
}

bool ledger_each(struct zone *zone, const struct ledger *ledger,
                 bool (*each)(struct zone *zone, zone_off_t entry, uint64_t what, void *data),
                 void *data)
{
    uint64_t most = (uint64_t) zone->page_count * (ZONE_PAGE / CHUNK_MIN);

    for (zone_off_t off = ledger->chunks; off != 0; off = chunk_at(zone, off)->older) {
        const struct chunk *chunk = chunk_at(zone, off);

        if (most-- == 0 || !chunk_is_sound(zone, off))
            return false;
        for (size_t i = 0; i < chunk_entries(chunk); i++) {
            uint64_t what = __atomic_load_n(&chunk->entries[i], __ATOMIC_RELAXED);

            if ((what & ENTRY_FREE) == 0 &&
                !each(zone, zone_off(zone, &chunk->entries[i]), what, data))
                return false;
        }
    }
    return true;
}

void ledger_drop(struct zone *zone, struct ledger *ledger)
{
    ZONE_SET(ledger->free, 0);
    while (ledger->chunks != 0) {
        struct chunk *chunk = chunk_at(zone, ledger->chunks);

        ZONE_SET(ledger->chunks, chunk->older);
        zone_free(zone, chunk);
    }
}

void ledger_forget_all(struct zone *zone)
{
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++) {
        struct ledger *ledger = zone_slot(zone, worker);

        if (ledger->chunks == 0 && ledger->free == 0 && ledger->making == 0)
            continue;
        ZONE_SET(ledger->making, 0);
        ZONE_SET(ledger->free, 0);
        ZONE_SET(ledger->chunks, 0);
    }
}
