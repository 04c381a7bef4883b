/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker processes: forking them, their numbers and slots, and starting again what crashed.
 * A generation is the workers of one configuration. Used by the master only.
 */
#ifndef WORKERS_CHILDREN_H
#define WORKERS_CHILDREN_H

#include "core/config/config.h"

/* Starts the workers of a configuration, which becomes the current one. The configuration is freed by
 * children_reaped once it is no longer current and its last worker has ended. */
void children_start(struct config *config);
/* The workers of all configurations but the current one (or all) drain. */
void children_drain(bool all);
/* Sends a signal to each worker. */
void children_signal(int number);
/* A process that has ended, if it was a worker: true. */
bool children_reaped(pid_t pid, int status);
/* Starts what is to be started again and when. Milliseconds until there is more to do. */
uint64_t children_tick(void);
/* Nothing is started again from now on (QUIT, TERM, WINCH); children_start allows it again. */
void children_stop_respawn(void);
unsigned children_count(void);
struct config *children_config(void);

#endif
