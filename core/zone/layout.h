/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of core/zone share and nobody else includes: how a zone lies in memory, and the
 * store by which it is changed. A mapping is: the header, the workers' slots, then `size` bytes
 * of pages, of which the first hold the page descriptors.
 *
 * A process may be killed between any two instructions. What it had stored by then is what the
 * next owner of the lock finds, in program order, provided that the compiler keeps that order
 * and does not tear a store: every change of shared structure is therefore one ZONE_SET. Of each
 * structure one part is the truth, changed by a single such store; the rest is derived, and
 * recovery builds it anew from the truth.
 */
#ifndef CORE_ZONE_LAYOUT_H
#define CORE_ZONE_LAYOUT_H

#include <pthread.h>

#include "core/zone/zone.h"

#define ZONE_MAGIC 0x316e6f7a2d797870ull /* "pxy-zon1" */
#define ZONE_LAYOUT 2                    /* of everything in this file and of struct keyed */
#define ZONE_PAGE 4096u
#define ZONE_BINS 32
#define ZONE_CLASSES 24
#define ZONE_SMALL_MAX 2048u
#define ZONE_MAPS 4 /* words of the bitmap of a page: 4096 / 16 objects */

/*
 * A page descriptor. kind is the truth: PAGE_FREE, PAGE_SMALL with the class above the low byte,
 * or PAGE_RUN with the number of pages above it, in the run's first page; the others of a run
 * keep kind PAGE_FREE, so that one store gives the run back. used is the truth of a small page.
 */
enum { PAGE_FREE, PAGE_SMALL, PAGE_RUN };

struct zone_page {
    uint64_t kind;
    uint64_t used[ZONE_MAPS]; /* a bit per object; bits without an object are set */
    uint32_t next;            /* derived: in a bin or a class's list; page number + 1, 0: none */
    uint32_t prev;
    uint32_t run;   /* derived: length, in the first and last page of a free run; else 0 there */
    uint32_t taken; /* derived: objects in use */
    uint64_t pad;
};

struct zone_slab {
    uint64_t pages;                 /* descriptors, from the mapping's start */
    uint64_t pool;                  /* first page */
    uint32_t count;                 /* pages in the pool */
    uint32_t bin_mask;              /* derived: bins that are not empty */
    uint64_t bytes_free;            /* derived */
    uint32_t bins[ZONE_BINS];       /* derived: free runs of 2^n .. 2^(n+1)-1 pages */
    uint32_t partial[ZONE_CLASSES]; /* derived: pages with room, per class */
    uint64_t asked[ZONE_CLASSES];   /* for status: how often, and how often in vain */
    uint64_t failed[ZONE_CLASSES];
};

enum zone_state { ZONE_NEW, ZONE_READY, ZONE_WIPING };

struct zone_header {
    uint64_t magic;
    uint32_t layout;
    uint32_t lock_size; /* of pthread_mutex_t: another C library must not attach */
    uint64_t identity;  /* hash of all that zone_spec says */
    uint64_t total;     /* bytes mapped */
    char name[64];      /* for people with a debugger; may be cut */
    uint64_t slots;
    uint64_t slot_stride;
    uint32_t state;
    uint32_t generation; /* grows with each wipe */
    uint64_t recoveries;
    uint64_t root;
    pthread_mutex_t lock __attribute__((aligned(64)));
    struct zone_slab slab __attribute__((aligned(64)));
};

/* One per process and mapping. */
struct zone {
    char *base;
    struct zone_header *header;
    struct zone_page *pages;
    char *pool;
    size_t total;
    uint32_t page_count; /* what slab.count is to be, whatever was written there */
    size_t size;         /* as configured */
    int fd;
    unsigned owners; /* configurations of this process */
    const struct zone_kind *kind;
    void *data;
    struct str name; /* own copies */
    struct str params;
};

/* lock.c. A robust mutex for all processes, in fresh memory; 0 or an errno value. */
int zone_mutex_init(pthread_mutex_t *mutex);
/*
 * Makes everything sound again while the lock is held: the slab, then the kind's data, or a wipe.
 */
void zone_recover(struct zone *zone);
/* Counts and logs a recovery after a death with another lock in the zone. */
void zone_recovered(struct zone *zone);

/*
 * slab.c. All pages free. Needs header->slab.pages, pool and count. fresh: the memory holds zeros, and the descriptors of pages
 * that are never used stay untouched, so that they cost nothing.
 */
void slab_init(struct zone *zone, bool fresh);
/* Builds all that is derived anew. False: the truth itself makes no sense. */
bool slab_recover(struct zone *zone);
/* As zone_alloc; stores the object's offset at *into, in the zone, before it takes the object. */
void *slab_alloc(struct zone *zone, size_t size, uint64_t *into);
/* True if off is the start of an object in use of at least size bytes. */
bool slab_is_object(const struct zone *zone, uint64_t off, size_t size);

#endif
