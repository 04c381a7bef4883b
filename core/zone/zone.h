/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared memory that workers agree in. A zone is a mapping made by the master (a memfd), with a
 * slab allocator, one process-shared robust mutex and per-worker slots of atomics. It survives a
 * reload when name, owner, size and parameters are the same, and a binary upgrade through
 * its descriptor (layout version checked). Pointers inside a zone are only valid if the mapping
 * lies at the same address everywhere: it does in forked workers, but not in a new binary; so
 * what is stored is always an offset (zone_off, zone_at).
 */
#ifndef CORE_ZONE_ZONE_H
#define CORE_ZONE_ZONE_H

#include "core/base/str.h"

struct logger;

#define ZONE_MIN (8 * 4096)
#define ZONE_MAX (UINT64_C(32) << 30)
#define ZONE_WORKERS 1024 /* slots; more workers than that are refused by the configuration */

struct zone; /* one per process and mapping; private */

/* The kind of user a zone has: one static structure per kind. */
struct zone_kind {
    const char *name; /* "limit_req", "upstream": part of the identity */
    uint32_t version; /* layout version of what the user keeps in it */
    bool scattered;   /* is read and written all over, a line here and there: huge pages are worth what they waste */
    bool tried;       /* -t makes one: what the configuration says may not fit into it */
    size_t slot_size; /* bytes of the per-worker slot, zeroed for a new worker; 0: none */
    /*
     * First use of fresh memory, the lock held. Called in the master; after a wipe in whatever
     * process locked. 0 or -1 (logged); what went well once must go well again.
     */
    int (*init)(struct zone *zone, void *data);
    /*
     * The configuration changed, memory was kept from an older cycle or binary: adopt, the lock
     * held. -1: refuse the reload (logged), memory as it was.
     */
    int (*adopt)(struct zone *zone, void *data);
    /*
     * The lock's owner died inside a critical section: bring the data back to a sound state (the
     * lock is held by the caller, the slab is sound already). Must cope with any half-done change,
     * its own included: who dies in recovery has it called again. False, or no such function: the
     * zone is then wiped and init is called again.
     */
    bool (*recover)(struct zone *zone);
    /*
     * A worker died or left: give back what its slot says it held. Called in the master, lock not
     * held. NULL: nothing to give.
     */
    void (*worker_gone)(struct zone *zone, void *slot);
};

/* Name, total bytes, owner kind, identity of parameters ("key=$binary_remote_addr"). */
struct zone_spec {
    struct str name;
    size_t size;
    const struct zone_kind *kind;
    struct str params;
    void *data; /* handed to init and adopt: the configuration object */
};

/* Makes the mapping and calls init. NULL with the reason logged. */
struct zone *zone_create(const struct zone_spec *spec, const struct logger *log);
/*
 * Attaches the memfd of an older binary, which the zone then owns: NULL (a notice says why, fd
 * stays the caller's) when identity, size or version differ; then create. Both binaries may use it
 * at once.
 */
struct zone *zone_attach(int fd, const struct zone_spec *spec, const struct logger *log);
/* True if an existing zone can serve the spec unchanged (name, kind, size, params). */
bool zone_matches(const struct zone *zone, const struct zone_spec *spec);
/*
 * Calls the kind's adopt. From then on data is the new specification's: if the reload fails after
 * all, adopt the old specification again before the new configuration goes.
 */
int zone_adopt(struct zone *zone, const struct zone_spec *spec, const struct logger *log);
/* One more owner: several configurations have the same zone while their workers live. The zone. */
struct zone *zone_share(struct zone *zone);
/* One owner less; the last one's destroys it. */
void zone_destroy(struct zone *zone);
int zone_fd(const struct zone *zone);
struct str zone_name(const struct zone *zone);
const struct zone_kind *zone_kind(const struct zone *zone);

/* Offsets. Offset 0 is "none" (NULL). */
typedef uint64_t zone_off_t;
void *zone_at(const struct zone *zone, zone_off_t off);
zone_off_t zone_off(const struct zone *zone, const void *ptr);
/* The user's root object, set by init, found again after adopt/attach. */
void zone_set_root(struct zone *zone, zone_off_t root);
zone_off_t zone_root(const struct zone *zone);

/*
 * Grows whenever the zone was wiped: who keeps an offset while the lock is not held (in a slot, in
 * a request) keeps this with it, and forgets the offset when it has changed.
 */
unsigned zone_generation(const struct zone *zone);
/* How often the lock's owner died, for status. */
uint64_t zone_recoveries(const struct zone *zone);

/*
 * The lock: blocks. If the previous owner died the kind's recover runs before this returns.
 * Never held across anything that can wait, nor while another zone's lock is taken.
 */
void zone_lock(struct zone *zone);
void zone_unlock(struct zone *zone);

/*
 * Slab: lock held. NULL when the zone is full; zeroed memory aligned to 16. Crash-safe: a death in
 * the midst of either call leaves at worst one object leaked, never a broken list (tests kill it at
 * each step). Freeing NULL is allowed.
 */
void *zone_alloc(struct zone *zone, size_t size);
/*
 * The same; stores the object's offset at *into, in the zone, before it takes the object: a user whose recover looks there
 * loses no memory in a death.
 */
void *zone_alloc_into(struct zone *zone, size_t size, zone_off_t *into);
void zone_free(struct zone *zone, void *ptr);
/* For recover: whether an offset is the start of an object in use that has room for size bytes. Any offset may be asked for. */
bool zone_is_object(const struct zone *zone, zone_off_t off, size_t size);
size_t zone_bytes_free(const struct zone *zone); /* approximate, for status */
size_t zone_bytes_total(const struct zone *zone);

/* For status. What others change meanwhile may be counted or not. */
#define ZONE_SLOTS_MAX 24
struct zone_slab_status {
    uint64_t pages_used, pages_free;
    unsigned count;
    struct {
        uint32_t size;         /* of an object */
        uint64_t used, free;   /* objects */
        uint64_t asked, failed; /* since the last reset */
    } slots[ZONE_SLOTS_MAX];
};
void zone_slab_status(const struct zone *zone, struct zone_slab_status *out);
void zone_slab_reset(struct zone *zone); /* asked and failed; the lock not held */

/*
 * One store that whoever recovers finds done or not done, in program order with others of its kind (layout.h says what
 * that is good for): for what a user's own recover takes for the truth.
 * With ZONE_STEPS (tests only) zone_step is called before each store of shared structure, so
 * that a process can be killed at every one of them.
 */
#ifdef ZONE_STEPS
void zone_step(void);
#else
#define zone_step() ((void) 0)
#endif

#define ZONE_SET(lvalue, value)                                 \
    do {                                                        \
        zone_step();                                            \
        __atomic_signal_fence(__ATOMIC_SEQ_CST);                \
        __atomic_store_n(&(lvalue), (value), __ATOMIC_RELAXED); \
        __atomic_signal_fence(__ATOMIC_SEQ_CST);                \
    } while (0)

/*
 * Slots outlive a wipe. While two binaries run side by side their workers share the slots: a new
 * binary must number its workers from the half (of ZONE_WORKERS) that the old one does not use.
 */
/*
 * This worker's slot (number 0..ZONE_WORKERS-1 is set by the master after fork with
 * zone_set_worker).
 */
void zone_set_worker(unsigned worker);
void *zone_slot(struct zone *zone, unsigned worker);
static inline void *zone_my_slot(struct zone *zone);
/* In the master after a worker has ended: worker_gone for each zone, then the slot is zeroed. */
void zone_worker_gone(struct zone *zone, unsigned worker, const struct logger *log);

extern unsigned zone_worker;
static inline void *zone_my_slot(struct zone *zone)
{
    return zone_slot(zone, zone_worker);
}

#endif
