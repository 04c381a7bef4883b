/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Signals as data: blocked, and read from a descriptor, by the master between its waits and by a
 * worker from its loop. Nothing runs inside a signal handler.
 */
#ifndef WORKERS_SIGNALS_H
#define WORKERS_SIGNALS_H

#include <signal.h>

#include "core/base/base.h"

struct signal_event {
    int number;
    pid_t sender; /* 0: unknown */
};

/* Blocks the signals of the server and makes the descriptor; after a fork the child calls it again. fd or -1. */
int signals_init(void);
/* The next one that has come. */
bool signals_next(struct signal_event *event);
/* Waits for one, at most max_ms. False: none came. */
bool signals_wait(struct signal_event *event, uint64_t max_ms);
/* Before exec: signals as any program expects to find them. */
void signals_restore(void);
/* "SIGHUP". */
const char *signal_name(int number);
/* "signal 1 (SIGHUP) received from 123, reconfiguring" */
void signal_log(const struct signal_event *event, const char *what);
/* -s: the signal's number, or 0 for an unknown word. */
int signal_by_word(const char *word);

#endif
