/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop of this process: epoll, timers, a run-later list. There is one loop a process and
 * one thread that runs it. A turn is: epoll_wait, clock_update, handlers of ready descriptors, due
 * timers, the run-later list, then destruction. Nothing is destroyed inside its own callback:
 * whoever ends a thing calls loop_destroy_later, and the memory stays valid until the turn is
 * over, so a stale event in the same batch finds a live (if closed) object.
 */
#ifndef CORE_EVENT_LOOP_H
#define CORE_EVENT_LOOP_H

#include <sys/epoll.h>

#include "core/base/base.h"

/* A descriptor in epoll. Embedded in its owner. events is what epoll reported (EPOLLIN …). */
struct watch {
    int fd; /* -1: not watched */
    void (*handler)(struct watch *watch, uint32_t events);
};

/* Work for the end of this turn. Embedded; may be queued from anywhere; run clears `queued` first,
 * so that a run may queue itself again (it then runs in the next turn, which will not block). */
struct later {
    struct later *next;
    struct later *prev; /* NULL when not queued */
    void (*run)(struct later *later);
};

/* 0 or -1 with errno. events_per_turn: how many epoll events one turn takes (epoll_events). */
int loop_init(unsigned events_per_turn);
/* After fork in a child that will run a loop of its own: drops the inherited epoll descriptor. */
void loop_free(void);

/* One turn, blocking at most max_ms (UINT64_MAX: until something happens). */
void loop_turn(uint64_t max_ms);

/* events: EPOLLIN|…; edge-triggered only if EPOLLET is among them. 0 or -1 with errno. */
int loop_watch(struct watch *watch, uint32_t events);
/*
 * Changes or ends the watch. Not needed before close(fd) of a descriptor that no other process
 * shares.
 */
int loop_rewatch(struct watch *watch, uint32_t events);
void loop_unwatch(struct watch *watch);

void loop_later(struct later *later);
void loop_later_cancel(struct later *later);
static inline bool later_queued(const struct later *later)
{
    return later->prev != NULL;
}

/*
 * Calls destroy(item) when this turn is over (also if called from outside a turn: at the next
 * one's end).
 */
struct doomed {
    struct doomed *next;
    void (*destroy)(struct doomed *item);
};
void loop_destroy_later(struct doomed *item);
/*
 * The same as soon as the callback that the loop runs now has returned: for what nothing but that
 * callback still refers to (no watch, no timer, no queued later). Memory that comes back within the turn
 * is still in the processor's cache when the turn's next event takes it.
 */
void loop_destroy_soon(struct doomed *item);

/* How many turns have run; for tests and status. */
uint64_t loop_turns(void);

#endif
