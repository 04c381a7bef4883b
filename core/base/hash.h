/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hashing, and a string-keyed table for configuration data: open addressing, grows, entries
 * stay until the arena goes. Keys are compared by bytes; whoever wants case folding lowers
 * keys first. Tables filled from outside input use a per-process random seed.
 */
#ifndef CORE_BASE_HASH_H
#define CORE_BASE_HASH_H

#include "core/base/str.h"

/*
 * A fast 64-bit hash, seeded (hash_seed) once in the master before any table is filled, for tables
 * that a peer can fill. Not for memory shared with another binary, whose seed is another.
 */
uint64_t hash_bytes(const void *ptr, size_t len);
void hash_seed(uint64_t seed);
/*
 * SipHash-1-3, 64 bit, with a key of the table's own: for memory shared with another binary, and where two keys that
 * a peer chooses must not collide.
 */
uint64_t hash_keyed(const uint64_t seed[2], struct str key);
/*
 * 32 bit, without seed: the hash of field names, the same however the name is spelled. Eight bytes a
 * step; setting bit 5 stands for folding: that signs collide as well ('_' and DEL) costs nothing,
 * for whoever finds an equal hash compares the names.
 */
static inline uint32_t hash_name(struct str s)
{
    const uint64_t fold = 0x2020202020202020u, mix = 0x9e3779b97f4a7c15u;
    uint64_t h = s.len, w = 0;
    const char *p = s.ptr, *end = p + s.len;
    uint32_t a, b;

    if (s.len >= 8) {
        for (; end - p > 8; p += 8) {
            memcpy(&w, p, 8);
            h = (h ^ (w | fold)) * mix;
            h ^= h >> 32;
        }
        memcpy(&w, end - 8, 8);
    } else if (s.len >= 4) {
        memcpy(&a, p, 4);
        memcpy(&b, end - 4, 4);
        w = (uint64_t) a << 32 | b;
    } else if (s.len > 0) {
        w = (uint64_t) (unsigned char) p[0] << 16 | (uint64_t) (unsigned char) p[s.len / 2] << 8
            | (unsigned char) end[-1];
    }
    h = (h ^ (w | fold)) * mix;
    return (uint32_t) (h >> 32);
}
/* CRC-32 (IEEE), 32 bit, for consistent hashing and checksums. */
uint32_t hash_crc32(uint32_t crc, const void *ptr, size_t len);

struct table_entry {
    struct str key;
    uint64_t hash;
    void *value;
};

struct table {
    struct arena *arena;
    struct table_entry *slots;
    unsigned count;
    unsigned mask; /* slots - 1, or 0 when empty */
};

void table_init(struct table *t, struct arena *arena);
/* NULL when absent. */
void *table_get(const struct table *t, struct str key);
/* Adds or replaces; returns the old value or NULL. The key is not copied. value may not be NULL. */
void *table_put(struct table *t, struct str key, void *value);
/* Visits all entries: for (i = 0; (e = table_next(t, &i)) != NULL; ) in no particular order. */
const struct table_entry *table_next(const struct table *t, unsigned *i);

#endif
