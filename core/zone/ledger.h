/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who holds what. A ledger notes which objects of a zone a worker counts on (a connection that is
 * counted, a place in a queue), so that they can be given back when the worker has died, and so
 * that counts which a death left half changed can be made anew: entries are the truth, a count in
 * an object is derived from them.
 *
 * A ledger begins the slot of each worker; its entries lie in chunks of the zone's slab, which are kept
 * until the worker ends. All calls need the zone's lock. Taking and giving write two words of the
 * worker's own.
 */
#ifndef CORE_ZONE_LEDGER_H
#define CORE_ZONE_LEDGER_H

#include "core/zone/zone.h"

/* Begins (or is) the slot of the kind: slot_size is at least this. */
struct ledger {
    zone_off_t chunks; /* the newest */
    zone_off_t free;   /* an entry, which names the next */
    zone_off_t making; /* a chunk that is not among them yet */
};

/* Notes that this worker holds the object, which is aligned to 8. The entry; 0: the zone is full. */
zone_off_t ledger_take(struct zone *zone, const void *object);
/* What the entry holds. Entries are forgotten by a wipe: see zone_generation. */
void *ledger_held(const struct zone *zone, zone_off_t entry);
void ledger_give(struct zone *zone, zone_off_t entry);

/* In recover, for each worker, before ledger_each: gives back the chunk that a death kept out of the ledger. */
void ledger_recover(struct zone *zone, struct ledger *ledger);
/*
 * Calls each with the offset of every object that a worker holds, as often as it does, and stops when
 * it says false. True: all were shown. each must leave this ledger alone.
 */
bool ledger_each(struct zone *zone, const struct ledger *ledger,
                 bool (*each)(struct zone *zone, zone_off_t object));
/* The worker has ended: its chunks go back to the zone. What it held is the caller's business. */
void ledger_drop(struct zone *zone, struct ledger *ledger);
/* In init: the chunks that slots speak of went with a wipe. */
void ledger_forget_all(struct zone *zone);

#endif
