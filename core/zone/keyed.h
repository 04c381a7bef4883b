/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A keyed table with expiry inside a zone: what sessions, keyval and cache indexes
 * share. Chained hash sized from the zone, least-recently-used order, fixed value size per table.
 * All calls need the zone's lock. A full zone evicts from the old end (keyed_put with evict).
 */
#ifndef CORE_ZONE_KEYED_H
#define CORE_ZONE_KEYED_H

#include "core/zone/zone.h"

struct keyed; /* lives in the zone */

/*
 * A new table with values of value_size bytes; buckets is rounded up to a power of two, 0: as many
 * as what is free in the zone can hold entries. NULL: zone full.
 */
struct keyed *keyed_new(struct zone *zone, size_t value_size, size_t buckets);
/* The value, moved to the young end of the LRU when touch; NULL when absent. */
void *keyed_get(struct zone *zone, struct keyed *t, struct str key, bool touch);
/*
 * The value of a new or existing key (*created tells), zeroed when new, aligned to 8, moved to the
 * young end. Who dies before filling a new value leaves it zeroed: recover must know such. NULL:
 * full and nothing could be evicted (at most evict_max old entries are).
 */
void *keyed_put(struct zone *zone, struct keyed *t, struct str key, unsigned evict_max,
                bool *created);
void keyed_delete(struct zone *zone, struct keyed *t, void *value);
/* The oldest entry, its key, for expiry; NULL when empty. */
void *keyed_oldest(struct zone *zone, struct keyed *t, struct str *key);
/*
 * The next younger entry, or with NULL the oldest; NULL at the end. For recover, dumps and
 * adoption. To delete while walking, take the next one first.
 */
void *keyed_next(struct zone *zone, struct keyed *t, const void *value);
struct str keyed_key(struct zone *zone, struct keyed *t, const void *value);
size_t keyed_count(const struct keyed *t);
/*
 * After an owner died inside a change: drops or completes the entry that was being changed,
 * rebuilds the order of use, loses no memory. May die and be called again. False: hopeless.
 */
bool keyed_recover(struct zone *zone, struct keyed *t);

#endif
