/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker: the process that serves. */
#ifndef WORKERS_WORKER_H
#define WORKERS_WORKER_H

#include "core/config/config.h"

struct worker {
    struct config *config;
    unsigned index;  /* within its generation: which sockets are its own */
    unsigned slot;   /* in zones: unlike any other living worker's */
    int channel;     /* end of file: the master is dead. -1: there is no master */
    bool single;     /* master_process off: the one process there is */
};

/* What a worker ends with, as the master reads it. */
enum { WORKER_EXIT_OK = 0, WORKER_EXIT_FAILED = 2 };

/* Serves until told to stop; the result is the exit status. signals_init has not been called in this process yet. */
int worker_run(const struct worker *worker);

#endif
