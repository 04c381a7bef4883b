/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of this folder share and nobody else needs. */
#ifndef MODULES_KEYVAL_INTERNAL_H
#define MODULES_KEYVAL_INTERNAL_H

#include "modules/keyval/keyval.h"

/* In the zone's slot of a worker. */
struct keyval_slot {
    uint32_t writer; /* as in the root: this worker has claimed the file */
};

/* The zone's root. The pairs in `table` are the truth, all but the two words of the file is derived from them. */
struct keyval_root {
    enum keyval_type type;
    zone_off_t table;
    zone_off_t counts;   /* uint32_t[]: keys by class (classes.c); 0 for strings */
    uint64_t present[16]; /* a bit for each class that has keys */
    zone_off_t making;   /* a value that may not have its place yet */
    zone_off_t dropping; /* a value that may have lost its place already */
    uint64_t serial;     /* of the pair made last */
    uint64_t timeout_ms;
    uint64_t next_expiry_ms; /* no pair expires before */
    uint64_t version;    /* grows with each change */
    uint64_t saved;      /* the version in the file */
    uint32_t writer;     /* the worker's slot + 1 that writes the file; 0: nobody does */
};

extern const struct zone_kind keyval_kind;

static inline struct keyval_root *keyval_root_of(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

/* classes.c ------------------------------------------------------------------------------------- */

/*
 * Keys whose matching means "the longest one that fits" are divided into classes by their length: bytes of a prefix,
 * bits of a network's address. One look-up per class that has keys finds the longest.
 */
#define CLASS_MAX 1024
#define CLASS_IP4 0
#define CLASS_IP6 33
#define CLASS_IP_END (CLASS_IP6 + 129)
#define IP_KEY_MAX 17

struct key {
    struct str bytes; /* as they stand in the table */
    unsigned class_;
    char room[IP_KEY_MAX];
};

unsigned class_count(enum keyval_type type);
/* The key of a pair as the table has it. */
enum keyval_result key_make(enum keyval_type type, struct str text, struct key *key);
/* Cuts a key of a longer class to a shorter one (of the same address family). */
void key_cut(enum keyval_type type, struct key *key, unsigned class_);
/* The lowest class that a cut key may have. */
unsigned class_floor(enum keyval_type type, unsigned class_);
/* The key as people write it; room: for addresses. */
#define KEY_TEXT_MAX 64
struct str key_text(enum keyval_type type, struct str bytes, char *room);
/* The class of a key in the table. */
unsigned key_class(enum keyval_type type, struct str bytes);
/* The highest class present from `from` down to floor, or -1. */
int class_next(const uint64_t *present, unsigned from, unsigned floor);

/* state.c --------------------------------------------------------------------------------------- */

/* Reads the file into the zone, whose lock is held. 0; or -1 with the reason logged. */
int keyval_load(struct keyval_zone *kz, struct zone *zone);
/* Something has changed: the file is due. Lock not held; nothing outside of workers. */
void keyval_changed(struct keyval_zone *kz);

/* table.c --------------------------------------------------------------------------------------- */

/* keyval_set with the lock held. */
enum keyval_result keyval_put(struct zone *zone, enum keyval_type type, struct str text,
                              struct str value, uint64_t expires_ms, enum keyval_mode mode);

#endif
