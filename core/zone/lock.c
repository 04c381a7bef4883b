/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lock of a zone, and what happens when its owner dies. It is a robust, process-shared
 * mutex in the zone's header: the kernel marks it when the thread that holds it ends, whatever
 * ended it, and the next to lock brings the data back to a sound state before anybody sees it.
 *
 * The mutex works at different addresses in different processes: a waiter sleeps on the file
 * and offset behind the address, and the links that the C library keeps inside a robust mutex
 * are those of its present owner, written when it locks, and read by nobody else.
 */
#include <errno.h>

#include "core/base/log.h"
#include "core/zone/layout.h"

int zone_mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    int err = pthread_mutexattr_init(&attr);

    if (err != 0)
        return err;
    err = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (err == 0)
        err = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (err == 0)
        err = pthread_mutex_init(mutex, &attr);
    (void) pthread_mutexattr_destroy(&attr);
    return err;
}

/*
 * Everything is forgotten and the user starts anew. state says so first: whoever finds the lock
 * of a process that died in here wipes again, rather than recover what is half wiped.
 */
static void zone_wipe(struct zone *zone)
{
    struct zone_header *header = zone->header;

    ZONE_SET(header->state, ZONE_WIPING);
    ZONE_SET(header->generation, header->generation + 1);
    ZONE_SET(header->root, 0);
    slab_init(zone, false);
    if (zone->kind->init != NULL && zone->kind->init(zone, zone->data) != 0) {
        log_emerg(log_main, 0, "shared memory zone \"%.*s\" could not be initialised again",
                  STR_ARG(zone->name));
        ASSERT(!"a zone that was initialised once can be again");
    }
    ZONE_SET(header->state, ZONE_READY);
}

static void recovered(struct zone *zone, bool kept)
{
    (void) __atomic_add_fetch(&zone->header->recoveries, 1, __ATOMIC_RELAXED);
    log_error(log_main, 0, "a process died holding the lock of shared memory zone \"%.*s\": %s",
              STR_ARG(zone->name),
              kept ? "its data was recovered" : "its data was lost, starting anew");
}

void zone_recovered(struct zone *zone)
{
    recovered(zone, true);
}

void zone_recover(struct zone *zone)
{
    struct zone_header *header = zone->header;
    bool kept;

    ZONE_SET(header->slab.count, zone->page_count);
    kept = header->state == ZONE_READY && slab_recover(zone) && zone->kind->recover != NULL &&
           zone->kind->recover(zone);
    if (!kept)
        zone_wipe(zone);
    recovered(zone, kept);
}

void zone_lock(struct zone *zone)
{
    int err = pthread_mutex_lock(&zone->header->lock);

    if (likely(err == 0))
        return;
    /* Any other error is ours: locking twice, or memory that is no zone. */
    ASSERT(err == EOWNERDEAD);
    zone_recover(zone);
    /* Not before: should we die in recovery, the next owner must learn of it too. */
    err = pthread_mutex_consistent(&zone->header->lock);
    ASSERT(err == 0);
}

void zone_unlock(struct zone *zone)
{
    int err = pthread_mutex_unlock(&zone->header->lock);

    ASSERT(err == 0);
}
