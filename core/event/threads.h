/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool of threads for blocking file work (`aio threads`). A task is embedded in its owner;
 * `work` runs in a pool thread and may touch nothing but the task; `done` runs in the loop.
 * Arenas, chains, logs and conns belong to the loop's thread.
 */
#ifndef CORE_EVENT_THREADS_H
#define CORE_EVENT_THREADS_H

#include "core/base/str.h"

struct thread_pool;

struct thread_task {
    struct thread_task *next;
    void (*work)(struct thread_task *task);
    void (*done)(struct thread_task *task);
    struct thread_pool *pool;
    bool posted;
};

/* Threads start with the first task. Needs the loop. NULL + errno. */
struct thread_pool *thread_pool_new(struct str name, unsigned threads, unsigned max_queue);
/* 0, or -1 when the queue is full (EAGAIN) or no thread could be started. */
int thread_pool_post(struct thread_pool *pool, struct thread_task *task);
/* Waits for running tasks, delivers all done calls, joins. */
void thread_pool_free(struct thread_pool *pool);

#endif
