/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A configuration taken in hand: its log files, directories, zones and sockets, all or nothing.
 * Called by the master; workers reopen and flush their logs through it.
 */
#ifndef WORKERS_CYCLE_H
#define WORKERS_CYCLE_H

#include "core/config/config.h"

/*
 * Opens everything that `config` asks for. old: what is in force (its zones are taken over), or
 * NULL. 0; or -1 with nothing changed and the reason logged. After 0, cycle_commit must follow, unless testing.
 */
int cycle_open(struct config *config, const struct config *old);
/* From now on this configuration is in force: its error log is the process's. */
void cycle_commit(struct config *config);
/* Gives back what only this configuration had and frees it. */
void cycle_free(struct config *config);

/* What modules do by themselves in the process that read the configuration. In how many milliseconds there is more. */
uint64_t cycle_tick(const struct config *config);

/* Flushes and opens all logs anew. In the master the files are given to the workers' user. */
void logs_reopen(struct config *config, bool master);
void logs_flush(struct config *config);
void logs_close(struct config *config);
/* The descriptor of the first error log that is a file; -1: there is none. */
int logs_error_fd(const struct config *config);
/* Gives back what a worker's slot in each zone says. */
void zones_worker_gone(const struct config *config, unsigned slot);

#endif
