/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts of the master that workers show. */
#include "core/os/instance.h"

#include "core/base/clock.h"
#include "core/os/process.h"

struct instance instance;

/* Each word has one writer at a time: the master, or whoever resets. */
struct shared {
    uint64_t respawned;
    uint64_t respawned_base;
};
static struct shared alone;
static struct shared *shared = &alone;

void instance_init(void)
{
    int fd;
    struct shared *memory = shm_create("instance", process_page_size(), &fd);

    if (memory == NULL)
        return; /* whoever asks is told 0 */
    shared = memory;
    shm_destroy(NULL, 0, fd); /* the mapping stays */
}

void instance_loaded(void)
{
    clock_update();
    instance.generation++;
    instance.loaded_ms = (uint64_t) clock_time() * 1000 + clock_time_ms();
}

void instance_respawned(void)
{
    __atomic_fetch_add(&shared->respawned, 1, __ATOMIC_RELAXED);
}

uint64_t instance_respawns(void)
{
    return __atomic_load_n(&shared->respawned, __ATOMIC_RELAXED) -
           __atomic_load_n(&shared->respawned_base, __ATOMIC_RELAXED);
}

void instance_reset_respawns(void)
{
    __atomic_store_n(&shared->respawned_base, __atomic_load_n(&shared->respawned, __ATOMIC_RELAXED),
                     __ATOMIC_RELAXED);
}
