/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sets of counters lie in one zone. It holds an entry for each set: where in a worker's block its counters are,
 * what ended workers have counted, and what was counted at the last reset. A worker's slot names its block, of the length
 * that was needed when it started: places of sets are never used anew, so that blocks of workers of an older
 * configuration can still be read. A set that no configuration names any more keeps its entry, and its counts should
 * it come back.
 */
#include "core/config/counters.h"

#include <stdlib.h>

/* Blocks that there is room for: of workers, those of an older configuration included. Memory that no worker uses costs
 * only addresses. */
#define BLOCKS 256
#define SIZE_LEAST ((size_t) 4 << 20)

struct counter_slot {
    zone_off_t block;
    uint64_t words;
};

struct counter_root {
    zone_off_t first, last; /* struct counter_entry */
    uint64_t words;         /* of the block of a worker that starts now */
    uint64_t slots;         /* only slots below have been used */
};

struct counter_entry {
    zone_off_t next;
    uint64_t place;        /* in a block, in words */
    uint32_t count, words; /* as in counter_set */
    uint32_t gauges;
    uint32_t key_len;
    zone_off_t ended; /* uint64_t[count]; behind them COUNTER_TAGS_SUM tagged words */
    zone_off_t base;  /* the same: as they were at the reset */
    char key[];       /* the set's */
};

/* A tag in 16 bits and its count above them: one word, so that it is read whole. */
#define TAG_BITS 16
#define TAG_MASK ((UINT64_C(1) << TAG_BITS) - 1)

static struct zone *counters_zone; /* in a worker */

/* Configuration ------------------------------------------------------------------------------ */

static unsigned kind_count(const struct counter_kind *kind)
{
    unsigned n = 0;

    while (kind->names[n] != NULL)
        n++;
    return n;
}

struct counter_set *counters_define(struct conf *cf, const struct counter_kind *kind,
                                    struct str name)
{
    struct resources *r = cf->config->resources;
    struct str key = str_printf(cf->arena, "%s %.*s", kind->name, STR_ARG(name));
    struct counter_set *set = table_get(&r->by_counters, key);

    if (set != NULL)
        return set;
    set = ARENA_NEW(cf->arena, struct counter_set);
    set->kind = kind;
    set->key = key;
    set->name = str_skip(key, strlen(kind->name) + 1);
    set->count = kind_count(kind);
    set->words = set->count + (kind->tags ? COUNTER_TAGS : 0);
    set->mine = arena_zalloc(cf->arena, set->words * sizeof(uint64_t));
    list_push_back(&r->counters, &set->link);
    table_put(&r->by_counters, key, set);
    return set;
}

struct counter_set *counters_next(const struct config *config, const char *kind,
                                  const struct counter_set *prev)
{
    const struct list *sets = &config->resources->counters;
    const struct list *l = prev != NULL ? prev->link.next : sets->next;

    for (; l != sets; l = l->next) {
        struct counter_set *set = container_of(l, struct counter_set, link);

        if (strcmp(set->kind->name, kind) == 0)
            return set;
    }
    return NULL;
}

/* The zone ----------------------------------------------------------------------------------- */

static size_t sums_size(const struct counter_set *set)
{
    return (set->count + (set->kind->tags ? COUNTER_TAGS_SUM : 0)) * sizeof(uint64_t);
}

static bool entry_is(const struct counter_entry *e, const struct counter_set *set)
{
    return e->count == set->count && e->words == set->words && e->gauges == set->kind->gauges &&
           str_eq(str_from(e->key, e->key_len), set->key);
}

/* A new set's; linked when it is whole. NULL: the zone is full. */
static struct counter_entry *entry_new(struct zone *zone, const struct counter_set *set)
{
    struct counter_root *root = zone_at(zone, zone_root(zone));
    struct counter_entry *e = zone_alloc(zone, sizeof(*e) + set->key.len);

    if (e == NULL)
        return NULL;
    e->ended = zone_off(zone, zone_alloc(zone, sums_size(set)));
    e->base = zone_off(zone, zone_alloc(zone, sums_size(set)));
    if (e->ended == 0 || e->base == 0)
        return NULL;
    e->count = set->count;
    e->words = set->words;
    e->gauges = set->kind->gauges;
    e->key_len = (uint32_t) set->key.len;
    memcpy(e->key, set->key.ptr, set->key.len);
    e->place = root->words;
    ZONE_SET(root->words, root->words + e->words);
    if (root->last != 0)
        ZONE_SET(((struct counter_entry *) zone_at(zone, root->last))->next, zone_off(zone, e));
    else
        ZONE_SET(root->first, zone_off(zone, e));
    ZONE_SET(root->last, zone_off(zone, e));
    return e;
}

static void *entry_next(const struct zone *zone, const struct counter_entry *prev)
{
    const struct counter_root *root = zone_at(zone, zone_root(zone));

    return zone_at(zone, prev != NULL ? prev->next : root->first);
}

/* Entries for all sets of a configuration. */
static int counters_adopt(struct zone *zone, void *data)
{
    struct list *sets = data;
    struct arena *arena = arena_new();
    struct counter_entry *e = NULL;
    struct table known;
    int rc = 0;

    table_init(&known, arena);
    while ((e = entry_next(zone, e)) != NULL)
        table_put(&known, str_from(e->key, e->key_len), e);
    for (struct list *l = sets->next; l != sets; l = l->next) {
        struct counter_set *set = container_of(l, struct counter_set, link);

        e = table_get(&known, set->key);
        if (e == NULL || !entry_is(e, set))
            e = entry_new(zone, set);
        if (e == NULL) {
            log_emerg(log_main, 0, "no room for the counters of %.*s", STR_ARG(set->key));
            rc = -1;
            break;
        }
        set->entry = zone_off(zone, e);
    }
    arena_destroy(arena);
    return rc;
}

static int counters_init(struct zone *zone, void *data)
{
    struct counter_root *root = zone_alloc(zone, sizeof(*root));

    if (root == NULL)
        return -1;
    zone_set_root(zone, zone_off(zone, root));
    return counters_adopt(zone, data);
}

/* Counts of one ended worker may be in the sums twice or in part. */
static bool counters_recover(struct zone *zone)
{
    return zone_root(zone) != 0;
}

/* Adding up --------------------------------------------------------------------------------- */

static uint64_t load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* Adds to (or, for a reset's base, takes from) the tag's word among `room` ones. */
static void tag_add(uint64_t *tags, unsigned room, uint64_t word, bool minus)
{
    uint64_t count = word & ~TAG_MASK;
    unsigned i = 0;

    if (word == 0)
        return;
    while (i < room && tags[i] != 0 && (tags[i] & TAG_MASK) != (word & TAG_MASK))
        i++;
    if (i == room)
        return;
    if (tags[i] == 0)
        tags[i] = word & TAG_MASK;
    tags[i] += minus ? -count : count;
}

void counters_tag(struct counter_set *set, unsigned tag)
{
    uint64_t *tags = set->mine + set->count;

    for (unsigned i = 0; i < COUNTER_TAGS; i++) {
        if ((tags[i] & TAG_MASK) != tag && tags[i] != 0)
            continue;
        __atomic_store_n(&tags[i], (tags[i] == 0 ? tag : tags[i]) + (UINT64_C(1) << TAG_BITS),
                         __ATOMIC_RELAXED);
        return;
    }
}

/* A worker's block into sums, which are as long as sums_size says. */
static void add_block(const struct counter_entry *e, const uint64_t *block, unsigned from,
                      uint64_t *sums)
{
    const uint64_t *mine = block + e->place;

    for (unsigned i = from; i < e->count; i++)
        sums[i] += load(&mine[i]);
    for (unsigned i = e->count; i < e->words; i++)
        tag_add(sums + e->count, COUNTER_TAGS_SUM, load(&mine[i]), false);
}

/* What was ever counted, with the lock held. */
static void sum_all(struct zone *zone, const struct counter_entry *e, uint64_t *sums)
{
    const struct counter_root *root = zone_at(zone, zone_root(zone));
    const uint64_t *ended = zone_at(zone, e->ended);
    bool tags = e->words > e->count;

    memcpy(sums, ended, e->count * sizeof(*sums));
    if (tags)
        memcpy(sums + e->count, ended + e->count, COUNTER_TAGS_SUM * sizeof(*sums));
    for (unsigned worker = 0; worker < root->slots; worker++) {
        const struct counter_slot *slot = zone_slot(zone, worker);

        if (slot->block != 0 && e->place + e->words <= slot->words)
            add_block(e, zone_at(zone, slot->block), 0, sums);
    }
}

static int by_tag(const void *a, const void *b)
{
    const struct counter_tag *x = a, *y = b;

    return (x->tag > y->tag) - (x->tag < y->tag);
}

void counters_sum(const struct counter_set *set, struct arena *arena, struct counter_sums *out)
{
    uint64_t *sums = arena_zalloc(arena, sums_size(set));
    const struct counter_entry *e;
    const uint64_t *base;

    *out = (struct counter_sums){ .values = sums };
    if (counters_zone == NULL || set->entry == 0) {
        memcpy(sums, set->mine, set->words * sizeof(*sums));
    } else {
        zone_lock(counters_zone);
        e = zone_at(counters_zone, set->entry);
        sum_all(counters_zone, e, sums);
        base = zone_at(counters_zone, e->base);
        for (unsigned i = e->gauges; i < set->count; i++)
            sums[i] -= base[i];
        for (unsigned i = 0; set->kind->tags && i < COUNTER_TAGS_SUM; i++)
            tag_add(sums + set->count, COUNTER_TAGS_SUM, base[set->count + i], true);
        zone_unlock(counters_zone);
    }
    if (set->kind->tags == 0)
        return;
    out->tags = ARENA_ARRAY(arena, struct counter_tag, COUNTER_TAGS_SUM);
    for (const uint64_t *t = sums + set->count; t < sums + set->count + COUNTER_TAGS_SUM; t++) {
        if (*t >> TAG_BITS)
            out->tags[out->tag_count++] =
                (struct counter_tag){ (unsigned) (*t & TAG_MASK), *t >> TAG_BITS };
    }
    qsort(out->tags, out->tag_count, sizeof(*out->tags), by_tag);
}

void counters_reset(const struct counter_set *set)
{
    const struct counter_entry *e;

    if (counters_zone == NULL || set->entry == 0)
        return;
    zone_lock(counters_zone);
    e = zone_at(counters_zone, set->entry);
    sum_all(counters_zone, e, zone_at(counters_zone, e->base));
    zone_unlock(counters_zone);
}

/* Workers ----------------------------------------------------------------------------------- */

static void worker_gone(struct zone *zone, void *memory)
{
    struct counter_slot *slot = memory;
    const struct counter_entry *e = NULL;
    uint64_t *block;

    if (slot->block == 0)
        return;
    zone_lock(zone);
    block = zone_at(zone, slot->block);
    while ((e = entry_next(zone, e)) != NULL) {
        if (e->place + e->words <= slot->words)
            add_block(e, block, e->gauges, zone_at(zone, e->ended));
    }
    ZONE_SET(slot->block, 0);
    zone_free(zone, block);
    zone_unlock(zone);
}

static const struct zone_kind counters_kind = {
    .name = "counters",
    .version = 1,
    .slot_size = sizeof(struct counter_slot),
    .init = counters_init,
    .adopt = counters_adopt,
    .recover = counters_recover,
    .worker_gone = worker_gone,
};

int counters_configure(struct conf *cf)
{
    struct resources *r = cf->config->resources;
    size_t need = 0, size = SIZE_LEAST;
    const char *error = NULL;

    for (struct list *l = r->counters.next; l != &r->counters; l = l->next) {
        struct counter_set *set = container_of(l, struct counter_set, link);

        need += set->words * sizeof(uint64_t) * BLOCKS + 2 * sums_size(set) + set->key.len + 1024;
    }
    if (need == 0)
        return 0;
    /* In large steps, so that the zone is kept when a few sets come. */
    while (size < need + need / 4)
        size *= 4;
    r->counters_zone =
        res_zone(cf, STR("counters"), MIN(size, (size_t) ZONE_MAX), &counters_kind, &error);
    if (r->counters_zone == NULL) {
        conf_error_at(cf, cf->pos, "%s", error);
        return -1;
    }
    r->counters_zone->spec.data = &r->counters;
    return 0;
}

void counters_start(const struct config *config)
{
    const struct resources *r = config->resources;
    struct zone *zone = r->counters_zone != NULL ? r->counters_zone->zone : NULL;
    struct counter_slot *slot;
    struct counter_root *root;
    uint64_t *block = NULL;

    counters_zone = zone;
    if (zone == NULL)
        return;
    slot = zone_my_slot(zone);
    zone_lock(zone);
    root = zone_at(zone, zone_root(zone));
    if (zone_worker >= root->slots)
        ZONE_SET(root->slots, zone_worker + 1);
    if (slot->block == 0)
        block = zone_alloc_into(zone, root->words * sizeof(uint64_t), &slot->block);
    slot->words = root->words;
    zone_unlock(zone);
    if (block == NULL) {
        log_alert(log_main, 0, "no room for this worker's counters: they will not be seen");
        return;
    }
    for (struct list *l = r->counters.next; l != &r->counters; l = l->next) {
        struct counter_set *set = container_of(l, struct counter_set, link);
        const struct counter_entry *e = zone_at(zone, set->entry);

        set->mine = block + e->place;
    }
}
