/* SPDX-License-Identifier: BSD-2-Clause */
/* The master: starts workers, keeps their number, and does what signals ask. */
#ifndef WORKERS_MASTER_H
#define WORKERS_MASTER_H

#include "core/config/config.h"

/* A configuration in force, with what the master must know besides. */
struct master_start {
    struct config *config;            /* opened and committed; taken over */
    struct config_request request;    /* how to read it again; strings live on */
    bool inherited;                   /* an older binary started us */
    bool daemon;                      /* in the background */
};

/* Runs until told to stop; the pid file was written before. The result is the exit status. */
int master_run(const struct master_start *start);

#endif
