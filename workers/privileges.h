/* SPDX-License-Identifier: BSD-2-Clause */
/* What makes a process a worker: limits, priority, processors, environment, user, directory. */
#ifndef WORKERS_PRIVILEGES_H
#define WORKERS_PRIVILEGES_H

#include "core/config/config.h"

/*
 * In a new worker, before anything of a client is seen: limits and privileges as the configuration has
 * them. 0, or -1 when the worker must not run (logged): never with privileges that it should have lost.
 */
int privileges_apply(const struct config *config, unsigned index);
/* An environment of what `env` allows, and TZ; extra: more of them, NULL-terminated, or NULL. Strings are shared with environ and the configuration. */
char **environment_make(const struct config *config, const char *const *extra);

#endif
