/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker knows of the server that it is part of: its number, how often the configuration was read, and
 * what the master counts. Filled in by the master; workers have it as it was when they were started, but for the counts,
 * which lie in memory that all share.
 */
#ifndef CORE_OS_INSTANCE_H
#define CORE_OS_INSTANCE_H

#include "core/base/base.h"

struct instance {
    unsigned worker;     /* which of the configuration's workers this is, from 0 on */
    uint64_t generation; /* how often a configuration came into force before; the first one is 1 */
    uint64_t loaded_ms;  /* when this one did: wall clock, ms since 1970 */
};
extern struct instance instance;

/* In the master, first of all. Without it nothing is counted. */
void instance_init(void);
/* In the master: a configuration is in force. */
void instance_loaded(void);
/* In the master: a worker that had died has a successor. */
void instance_respawned(void);
/* How often that happened since the last reset. */
uint64_t instance_respawns(void);
void instance_reset_respawns(void);

#endif
