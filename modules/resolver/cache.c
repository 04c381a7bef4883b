/* SPDX-License-Identifier: BSD-2-Clause */
/* The answers that a resolver remembers: bounded in number, least recently used out first. */
#include "modules/resolver/internal.h"

#include "core/base/clock.h"
#include "core/base/hash.h"

void addr_set_add(struct addr_set *set, const struct resolve_addr *a)
{
    if (set->count == RESOLVER_ADDRS_MAX)
        return;
    if (set->count == set->capacity) {
        set->capacity = set->capacity ? set->capacity * 2 : 2;
        set->items = mem_realloc(set->items, set->capacity * sizeof(*set->items));
    }
    set->items[set->count++] = *a;
}

void cache_init(struct resolver_cache *c)
{
    memset(c, 0, sizeof(*c));
    list_init(&c->recent);
}

static struct cache_entry **find(struct resolver_cache *c, struct str key, uint64_t hash)
{
    struct cache_entry **at = &c->buckets[hash % CACHE_BUCKETS];

    while (*at && ((*at)->hash != hash || !str_eq((*at)->key, key)))
        at = &(*at)->next;
    return at;
}

static void drop(struct resolver_cache *c, struct cache_entry **at)
{
    struct cache_entry *e = *at;

    ASSERT(e);
    *at = e->next;
    list_remove(&e->recent);
    c->count--;
    free(e->addrs.items);
    free(e);
}

void cache_clear(struct resolver_cache *c)
{
    for (unsigned i = 0; i < CACHE_BUCKETS; i++)
        while (c->buckets[i])
            drop(c, &c->buckets[i]);
}

struct cache_entry *cache_get(struct resolver_cache *c, struct str key)
{
    struct cache_entry **at = find(c, key, hash_bytes(key.ptr, key.len));
    struct cache_entry *e = *at;

    if (!e)
        return NULL;
    if (e->expires_ms <= clock_ms()) {
        drop(c, at);
        return NULL;
    }
    list_remove(&e->recent);
    list_push_front(&c->recent, &e->recent);
    return e;
}

void cache_put(struct resolver_cache *c, struct str key, struct addr_set addrs, uint32_t ttl_s,
               uint64_t valid_ms)
{
    uint64_t hash = hash_bytes(key.ptr, key.len);
    struct cache_entry **at = find(c, key, hash);
    struct cache_entry *e;

    if (*at)
        drop(c, at);
    if (c->count == RESOLVER_CACHE_MAX) {
        e = container_of(c->recent.prev, struct cache_entry, recent);
        drop(c, find(c, e->key, e->hash));
    }
    e = mem_zalloc(sizeof(*e) + key.len);
    memcpy(e->key_bytes, key.ptr, key.len);
    e->key = str_from(e->key_bytes, key.len);
    e->hash = hash;
    e->addrs = addrs;
    e->ttl_s = ttl_s;
    e->expires_ms = clock_ms() + valid_ms;
    e->next = c->buckets[hash % CACHE_BUCKETS];
    c->buckets[hash % CACHE_BUCKETS] = e;
    list_push_front(&c->recent, &e->recent);
    c->count++;
}
