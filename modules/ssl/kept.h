/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data of any length under keys, in a zone of its own: what sessions, keys of tickets and stapled responses share. Data is made
 * beside what it replaces, and takes its place with one store, so that whoever dies in here leaves either the old
 * or the new, whole, and no memory is lost. What is given up is wiped: much of it is secret.
 *
 * All calls are made with the zone's lock held.
 */
#ifndef MODULES_SSL_KEPT_H
#define MODULES_SSL_KEPT_H

#include "core/zone/keyed.h"

/* The table's values begin with it. */
struct kept {
    zone_off_t data; /* 0: none yet; such entries do not survive a death */
};

/* For the kind's init: a table of values of that size as the zone's root. 0 or -1. */
int kept_init(struct zone *zone, size_t value_size);
/* The kind's recover. */
bool kept_recover(struct zone *zone);
/* In the order of last use, for those who look through it. */
struct keyed *kept_table(const struct zone *zone);

/* The entry of a key, a new one if there is none, for which old ones make way. NULL: no room. */
void *kept_entry(struct zone *zone, struct str key);
/* Room for an entry's new data, likewise; to be filled, and shown by kept_show. NULL: no room; what there was remains. */
void *kept_room(struct zone *zone, struct kept *k, size_t len);
void kept_show(struct zone *zone, struct kept *k);
/* ptr NULL: there is none. */
struct str kept_data(const struct zone *zone, const struct kept *k);
void kept_drop(struct zone *zone, struct kept *k);

#endif
