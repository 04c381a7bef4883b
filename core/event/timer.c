/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The timers of this process: a 4-ary heap whose entries carry the deadline they were filed
 * under, so that sifting touches no timer's owner. A timer's own deadline may since have
 * moved later (or off); that is noticed when the filed one comes up, in timer_fire_due. The
 * loop drives it; everybody else sets, stops and drops.
 */
#include "core/event/timer.h"

#include "core/base/clock.h"

#define HEAP_FIRST 64

struct slot {
    uint64_t filed_ms;
    struct timer *timer;
};

static struct slot *heap;
static uint32_t heap_count;
static uint32_t heap_capacity;
/* While due timers fire: the moment they are due at. A timer set meanwhile lies behind it. */
static uint64_t firing_ms;
static bool firing;

static void slot_put(uint32_t i, struct slot s)
{
    heap[i] = s;
    s.timer->slot = i + 1;
    s.timer->filed_ms = s.filed_ms;
}

static void sift_up(uint32_t i, struct slot s)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;

        if (heap[parent].filed_ms <= s.filed_ms)
            break;
        slot_put(i, heap[parent]);
        i = parent;
    }
    slot_put(i, s);
}

static void sift_down(uint32_t i, struct slot s)
{
    for (;;) {
        uint32_t child = i * 4 + 1;
        uint32_t end = MIN(child + 4, heap_count);
        uint32_t least = child;

        if (child >= heap_count)
            break;
        for (uint32_t k = child + 1; k < end; k++)
            if (heap[k].filed_ms < heap[least].filed_ms)
                least = k;
        if (heap[least].filed_ms >= s.filed_ms)
            break;
        slot_put(i, heap[least]);
        i = least;
    }
    slot_put(i, s);
}

static void heap_insert(struct timer *timer)
{
    if (heap_count == heap_capacity) {
        heap_capacity = heap_capacity ? heap_capacity * 2 : HEAP_FIRST;
        heap = mem_realloc(heap, heap_capacity * sizeof(*heap));
    }
    heap_count++;
    sift_up(heap_count - 1, (struct slot){ timer->deadline_ms, timer });
}

static void heap_remove(uint32_t i)
{
    struct slot last = heap[heap_count - 1];

    heap[i].timer->slot = 0;
    heap_count--;
    if (i == heap_count)
        return;
    if (i > 0 && last.filed_ms < heap[(i - 1) / 4].filed_ms)
        sift_up(i, last);
    else
        sift_down(i, last);
}

void timer_set(struct timer *timer, uint64_t ms)
{
    uint64_t now = clock_ms();
    uint64_t at = ms >= TIMER_OFF - now ? TIMER_OFF - 1 : now + ms;

    if (firing && at <= firing_ms)
        at = firing_ms + 1;
    timer->deadline_ms = at;
    if (timer->slot == 0) {
        heap_insert(timer);
        return;
    }
    /* The heap itself is not looked at: its place there is seldom in the caches. */
    ASSERT(timer->slot <= heap_count);
    if (at < timer->filed_ms)
        sift_up(timer->slot - 1, (struct slot){ at, timer });
}

void timer_drop(struct timer *timer)
{
    timer->deadline_ms = TIMER_OFF;
    if (timer->slot == 0)
        return;
    ASSERT(timer->slot <= heap_count && heap[timer->slot - 1].timer == timer);
    heap_remove(timer->slot - 1);
}

uint64_t timer_next_ms(void)
{
    uint64_t now;

    if (heap_count == 0)
        return UINT64_MAX;
    now = clock_ms();
    return heap[0].filed_ms > now ? heap[0].filed_ms - now : 0;
}

void timer_fire_due(void)
{
    firing_ms = clock_ms();
    firing = true;
    while (heap_count > 0 && heap[0].filed_ms <= firing_ms) {
        struct timer *timer = heap[0].timer;
        uint64_t deadline = timer->deadline_ms;

        if (deadline == TIMER_OFF) {
            heap_remove(0);
        } else if (deadline > heap[0].filed_ms) {
            sift_down(0, (struct slot){ deadline, timer });
        } else {
            heap_remove(0);
            timer->deadline_ms = TIMER_OFF;
            timer->fire(timer);
        }
    }
    firing = false;
}

void timer_free_all(void)
{
    for (uint32_t i = 0; i < heap_count; i++) {
        heap[i].timer->slot = 0;
        heap[i].timer->deadline_ms = TIMER_OFF;
    }
    free(heap);
    heap = NULL;
    heap_count = heap_capacity = 0;
}
