/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keyed table of sessions, keyval and cache indexes. It owns nodes in the zone's slab
 * and a run of bucket heads; its users own the values. Every call is made with the lock held.
 *
 * The truth is the singly linked chains: an entry exists from the store that puts it at the
 * head of its chain to the store that takes it out. Derived are the count and the order of
 * use, whose links from old to young are always a list that lacks at most the one node that is
 * being moved. `pending` names the node that is being made or unmade, so that recovery can give
 * back what no chain holds: a death loses no memory.
 *
 * References are offsets in units of 16 bytes (what the slab aligns to) in 32 bits.
 */
#include "core/base/hash.h"
#include "core/os/process.h"
#include "core/zone/keyed.h"
#include "core/zone/layout.h"

#define UNIT 16
#define KEYED_MAGIC 0x6b657964u

struct keyed {
    uint32_t magic;
    uint32_t mask;
    uint64_t buckets;    /* offset of uint32_t[mask + 1] */
    uint64_t value_size; /* rounded up to 8 */
    uint64_t seed[2];    /* in here, since all processes, of an older binary too, must agree */
    uint64_t pending;
    uint64_t count;
    uint32_t oldest;
    uint32_t youngest;
    uint32_t pass; /* number of the recovery, the mark it leaves in nodes */
};

/* The value follows, then the key. */
struct node {
    uint32_t chain;
    uint32_t younger;
    uint32_t older;
    uint32_t hash;
    uint32_t key_len;
    uint32_t mark; /* of recovery: pass * 2 when seen in a chain, + 1 when placed in the order */
};

static struct node *node_at(const struct zone *zone, uint32_t ref)
{
    return (struct node *) (void *) (zone->base + (size_t) ref * UNIT);
}

static uint32_t node_ref(const struct zone *zone, const struct node *node)
{
    return (uint32_t) ((size_t) ((const char *) node - zone->base) / UNIT);
}

static void *node_value(struct node *node)
{
    return node + 1;
}

static struct node *value_node(const void *value)
{
    return (struct node *) (uintptr_t) value - 1;
}

static const char *node_key(const struct keyed *t, const struct node *node)
{
    return (const char *) (node + 1) + t->value_size;
}

static size_t node_size(const struct keyed *t, size_t key_len)
{
    return sizeof(struct node) + t->value_size + key_len;
}

static uint32_t *bucket(const struct zone *zone, const struct keyed *t, uint32_t hash)
{
    return (uint32_t *) (void *) (zone->base + t->buckets) + (hash & t->mask);
}

static uint32_t hash_with(const uint64_t seed[2], struct str key)
{
    uint64_t hash = hash_keyed(seed, key);

    return (uint32_t) (hash ^ hash >> 32);
}

/* Takes the node out of the order of use; one store takes it out of the list from old to young. */
static void order_drop(struct zone *zone, struct keyed *t, struct node *node)
{
    if (node->older != 0)
        ZONE_SET(node_at(zone, node->older)->younger, node->younger);
    else
        ZONE_SET(t->oldest, node->younger);
    if (node->younger != 0)
        ZONE_SET(node_at(zone, node->younger)->older, node->older);
    else
        ZONE_SET(t->youngest, node->older);
}

/* Puts a node that is not in the order at its young end. */
static void order_add(struct zone *zone, struct keyed *t, struct node *node)
{
    uint32_t ref = node_ref(zone, node);

    ZONE_SET(node->younger, 0);
    ZONE_SET(node->older, t->youngest);
    if (t->youngest != 0)
        ZONE_SET(node_at(zone, t->youngest)->younger, ref);
    else
        ZONE_SET(t->oldest, ref);
    ZONE_SET(t->youngest, ref);
}

static uint32_t bucket_count(const struct zone *zone, size_t value_size, size_t wanted)
{
    size_t fit = zone_bytes_free(zone) / (sizeof(struct node) + value_size + 16 + sizeof(uint32_t));
    uint32_t n = 1;

    /* One or two entries with short keys to a bucket when full. */
    if (wanted == 0)
        wanted = fit / 2 + 1;
    while (n < wanted && n < 1u << 31)
        n *= 2;
    return n;
}

struct keyed *keyed_new(struct zone *zone, size_t value_size, size_t buckets)
{
    size_t rounded = (value_size + 7) / 8 * 8;
    uint32_t n = bucket_count(zone, rounded, buckets);
    struct keyed *t = zone_alloc(zone, sizeof(*t));
    void *heads;

    if (t == NULL)
        return NULL;
    heads = zone_alloc(zone, (size_t) n * sizeof(uint32_t));
    if (heads == NULL) {
        zone_free(zone, t);
        return NULL;
    }
    t->mask = n - 1;
    t->buckets = zone_off(zone, heads);
    t->value_size = rounded;
    random_bytes(t->seed, sizeof(t->seed));
    ZONE_SET(t->magic, KEYED_MAGIC);
    return t;
}

static struct node *node_find(struct zone *zone, struct keyed *t, struct str key, uint32_t hash)
{
    uint32_t ref = *bucket(zone, t, hash);

    while (ref != 0) {
        struct node *node = node_at(zone, ref);

        if (node->hash == hash && node->key_len == key.len &&
            (key.len == 0 || memcmp(node_key(t, node), key.ptr, key.len) == 0))
            return node;
        ref = node->chain;
    }
    return NULL;
}

static void *node_touch(struct zone *zone, struct keyed *t, struct node *node)
{
    if (node->younger != 0) {
        order_drop(zone, t, node);
        order_add(zone, t, node);
    }
    return node_value(node);
}

void *keyed_get(struct zone *zone, struct keyed *t, struct str key, bool touch)
{
    struct node *node = node_find(zone, t, key, hash_with(t->seed, key));

    if (node == NULL)
        return NULL;
    return touch ? node_touch(zone, t, node) : node_value(node);
}

static void node_delete(struct zone *zone, struct keyed *t, struct node *node)
{
    uint32_t ref = node_ref(zone, node);
    uint32_t *link = bucket(zone, t, node->hash);

    while (*link != ref) {
        ASSERT(*link != 0);
        link = &node_at(zone, *link)->chain;
    }
    ZONE_SET(t->pending, (uint64_t) ref * UNIT);
    ZONE_SET(*link, node->chain);
    ZONE_SET(t->count, t->count - 1);
    order_drop(zone, t, node);
    zone_free(zone, node);
    ZONE_SET(t->pending, 0);
}

void keyed_delete(struct zone *zone, struct keyed *t, void *value)
{
    node_delete(zone, t, value_node(value));
}

static struct node *node_new(struct zone *zone, struct keyed *t, size_t size, unsigned evict_max)
{
    struct node *node;

    while ((node = slab_alloc(zone, size, &t->pending)) == NULL) {
        if (evict_max == 0 || t->oldest == 0)
            return NULL;
        evict_max--;
        node_delete(zone, t, node_at(zone, t->oldest));
    }
    return node;
}

void *keyed_put(struct zone *zone, struct keyed *t, struct str key, unsigned evict_max,
                bool *created)
{
    struct node *node;
    uint32_t *head, hash;

    *created = false;
    if (key.len > zone->size) /* also keeps the sum below from overflowing */
        return NULL;
    hash = hash_with(t->seed, key);
    node = node_find(zone, t, key, hash);
    if (node != NULL)
        return node_touch(zone, t, node);
    node = node_new(zone, t, node_size(t, key.len), evict_max);
    if (node == NULL)
        return NULL;
    head = bucket(zone, t, hash);
    node->chain = *head;
    node->hash = hash;
    node->key_len = (uint32_t) key.len;
    if (key.len != 0)
        memcpy((char *) node_value(node) + t->value_size, key.ptr, key.len);
    order_add(zone, t, node);
    ZONE_SET(*head, node_ref(zone, node));
    ZONE_SET(t->count, t->count + 1);
    ZONE_SET(t->pending, 0);
    *created = true;
    return node_value(node);
}

void *keyed_oldest(struct zone *zone, struct keyed *t, struct str *key)
{
    struct node *node;

    if (t->oldest == 0)
        return NULL;
    node = node_at(zone, t->oldest);
    if (key != NULL)
        *key = str_from(node_key(t, node), node->key_len);
    return node_value(node);
}

void *keyed_next(struct zone *zone, struct keyed *t, const void *value)
{
    uint32_t ref = value != NULL ? value_node(value)->younger : t->oldest;

    return ref != 0 ? node_value(node_at(zone, ref)) : NULL;
}

struct str keyed_key(struct zone *zone, struct keyed *t, const void *value)
{
    const struct node *node = value_node(value);

    (void) zone;
    return str_from(node_key(t, node), node->key_len);
}

size_t keyed_count(const struct keyed *t)
{
    return (size_t) t->count;
}

static bool table_is_sound(const struct zone *zone, const struct keyed *t)
{
    uint64_t off = (uint64_t) ((const char *) t - zone->base);

    return slab_is_object(zone, off, sizeof(*t)) && t->magic == KEYED_MAGIC &&
           slab_is_object(zone, t->buckets, ((size_t) t->mask + 1) * sizeof(uint32_t));
}

static bool node_is_sound(const struct zone *zone, const struct keyed *t, uint32_t ref)
{
    uint64_t off = (uint64_t) ref * UNIT;

    return slab_is_object(zone, off, node_size(t, 0)) &&
           slab_is_object(zone, off, node_size(t, node_at(zone, ref)->key_len));
}

/*
 * Marks all that chains hold. A node met twice, or that is none, is damage beyond a half-done
 * change.
 */
static bool chains_mark(struct zone *zone, struct keyed *t)
{
    uint64_t count = 0, i;
    uint32_t ref;

    for (i = 0; i <= t->mask; i++) {
        for (ref = *bucket(zone, t, (uint32_t) i); ref != 0; ref = node_at(zone, ref)->chain) {
            struct node *node = node_at(zone, ref);

            if (!node_is_sound(zone, t, ref) || node->mark == t->pass * 2 ||
                (node->hash & t->mask) != i)
                return false;
            ZONE_SET(node->mark, t->pass * 2);
            count++;
        }
    }
    ZONE_SET(t->count, count);
    return true;
}

/* Walks from old to young, drops what no chain holds, and writes the links back to the old end. */
static bool order_rebuild(struct zone *zone, struct keyed *t)
{
    uint32_t older = 0;
    uint32_t *link = &t->oldest;

    while (*link != 0) {
        uint32_t ref = *link;
        struct node *node = node_at(zone, ref);

        if (!node_is_sound(zone, t, ref) || node->mark == t->pass * 2 + 1)
            return false;
        if (node->mark != t->pass * 2) {
            ZONE_SET(*link, node->younger);
            continue;
        }
        ZONE_SET(node->mark, t->pass * 2 + 1);
        ZONE_SET(node->older, older);
        older = ref;
        link = &node->younger;
    }
    ZONE_SET(t->youngest, older);
    return true;
}

/* What was on its way to the young end, when death came, arrives there. */
static void order_complete(struct zone *zone, struct keyed *t)
{
    uint64_t i;
    uint32_t ref;

    for (i = 0; i <= t->mask; i++) {
        for (ref = *bucket(zone, t, (uint32_t) i); ref != 0; ref = node_at(zone, ref)->chain) {
            struct node *node = node_at(zone, ref);

            if (node->mark == t->pass * 2) {
                ZONE_SET(node->mark, t->pass * 2 + 1);
                order_add(zone, t, node);
            }
        }
    }
}

bool keyed_recover(struct zone *zone, struct keyed *t)
{
    if (!table_is_sound(zone, t))
        return false;
    /* Marks of older recoveries are smaller; zero is that of a node since the last one. */
    if (t->pass == UINT32_MAX / 2)
        return false;
    ZONE_SET(t->pass, t->pass + 1);
    if (!chains_mark(zone, t) || !order_rebuild(zone, t))
        return false;
    order_complete(zone, t);
    if (t->pending != 0) {
        struct node *node = node_at(zone, (uint32_t) (t->pending / UNIT));

        if (slab_is_object(zone, t->pending, node_size(t, 0)) && node->mark < t->pass * 2)
            zone_free(zone, node);
        ZONE_SET(t->pending, 0);
    }
    return true;
}
