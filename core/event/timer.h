/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers of the loop: a 4-ary heap of deadlines in milliseconds. Re-arming a timer to a later
 * time, which is what every keep-alive connection does with every request, only writes
 * the new deadline: the heap is put right when the old one comes up. Stopping is as cheap.
 */
#ifndef CORE_EVENT_TIMER_H
#define CORE_EVENT_TIMER_H

#include "core/base/base.h"

struct timer {
    uint64_t deadline_ms; /* monotonic; TIMER_OFF: stopped */
    uint64_t filed_ms;    /* private: the deadline under which it lies in the heap */
    void (*fire)(struct timer *timer);
    uint32_t slot; /* private: place in the heap + 1, 0: not in it */
};

#define TIMER_OFF UINT64_MAX

/* Sets or moves the deadline to `ms` after the loop's now. */
void timer_set(struct timer *timer, uint64_t ms);
/* Stops it; it may lazily stay in the heap, so the memory must live on until timer_drop. */
static inline void timer_stop(struct timer *timer)
{
    timer->deadline_ms = TIMER_OFF;
}
/* Stops it and takes it out of the heap: before the memory goes. */
void timer_drop(struct timer *timer);
static inline bool timer_active(const struct timer *timer)
{
    return timer->slot != 0 && timer->deadline_ms != TIMER_OFF;
}

/*
 * For the loop: milliseconds until the first deadline (UINT64_MAX: none), and firing what is due.
 */
uint64_t timer_next_ms(void);
void timer_fire_due(void);
void timer_free_all(void);

#endif
