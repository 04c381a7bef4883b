/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who holds what. A ledger notes what in a zone a worker counts on (a connection that is
 * counted, a place in a queue), so that they can be given back when the worker has died, and so
 * that counts which a death left half changed can be made anew: entries are the truth, a count is
 * derived from them. What is held is named by an even number that the user chooses.
 *
 * A ledger lies in the slot of each worker; its entries lie in chunks of the zone's slab, which are kept
 * until the worker ends. Taking and giving write two words of the worker's own, under whatever lock
 * guards what is held.
 */
#ifndef CORE_ZONE_LEDGER_H
#define CORE_ZONE_LEDGER_H

#include "core/zone/zone.h"

/* In the slot of the kind. */
struct ledger {
    zone_off_t chunks; /* the newest */
    zone_off_t free;   /* an entry, which names the next */
    zone_off_t making; /* a chunk that is not among them yet */
};

/* Makes sure that there is a free entry. Takes the zone's lock if it must. False: the zone is full. */
static inline bool ledger_reserve(struct zone *zone, struct ledger *ledger);
/* Notes that the worker holds what that even number names. The entry, which was reserved. */
zone_off_t ledger_take(struct zone *zone, struct ledger *ledger, uint64_t what);
/* Entries are forgotten by a wipe: see zone_generation. */
void ledger_give(struct zone *zone, struct ledger *ledger, zone_off_t entry);

/* All that follow: with the zone's lock, or of a dead worker's ledger in the master, which drops it. */

/* In recover, for each worker: gives back the chunk that a death kept out of the ledger. */
void ledger_recover(struct zone *zone, struct ledger *ledger);
/*
 * Calls each with every entry that holds something, and what that is, for as long as it says true. True: all
 * were shown. The worker may live: what it takes or gives meanwhile may be shown or not.
 */
bool ledger_each(struct zone *zone, const struct ledger *ledger,
                 bool (*each)(struct zone *zone, zone_off_t entry, uint64_t what, void *data),
                 void *data);
/* The worker has ended: its chunks go back to the zone. What it held is the caller's business. */
void ledger_drop(struct zone *zone, struct ledger *ledger);
/* In init: the chunks that slots speak of went with a wipe. */
void ledger_forget_all(struct zone *zone);

bool ledger_grow(struct zone *zone, struct ledger *ledger); /* private */
static inline bool ledger_reserve(struct zone *zone, struct ledger *ledger)
{
    return likely(ledger->free != 0) || ledger_grow(zone, ledger);
}

#endif
