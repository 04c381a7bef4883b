/* SPDX-License-Identifier: BSD-2-Clause */
/* The processes that modules have beside the workers (struct module_processes): all modules in turn. Used by the master only. */
#ifndef WORKERS_HELPERS_H
#define WORKERS_HELPERS_H

#include <sys/types.h>

#include "core/config/config.h"

/* 0, or -1 with the reason logged and nothing left open. */
int helpers_open(const struct config *config);
void helpers_close(const struct config *config);
/* 0, or -1 (logged). helpers_worker_ended must follow if the worker is not forked after all. */
int helpers_worker_begin(const struct config *config, unsigned slot);
void helpers_worker_forked(const struct config *config, unsigned slot, bool child);
void helpers_worker_ended(const struct config *config, unsigned slot);
void helpers_logs_reopened(const struct config *config);
bool helpers_reaped(pid_t pid, int status);
uint64_t helpers_tick(void);
void helpers_stop(void);

#endif
