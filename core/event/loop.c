/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop: one epoll descriptor, one batch of events a turn, the run-later list and
 * the list of what is to be destroyed when the turn is over. The worker calls loop_turn for
 * as long as it lives. Nothing here knows what a descriptor is for.
 */
#include "core/event/loop.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/event/timer.h"

static int epoll_fd = -1;
static struct epoll_event *batch;
static unsigned batch_size;
static uint64_t turns;
/* Sentinel of the run-later list. */
static struct later waiting = { &waiting, &waiting, NULL };
static struct doomed *doomed_first;
/* Those that wait for no more than the end of the callback that runs. */
static struct doomed *doomed_soon;

int loop_init(unsigned events_per_turn)
{
    ASSERT(epoll_fd < 0 && events_per_turn > 0);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return -1;
    batch_size = MIN(events_per_turn, 65536u);
    batch = mem_alloc(batch_size * sizeof(*batch));
    clock_update();
    return 0;
}

static void destroy_list(struct doomed **first)
{
    while (*first) {
        struct doomed *list = *first;

        *first = NULL;
        while (list) {
            struct doomed *item = list;

            list = list->next;
            item->destroy(item);
        }
    }
}

static void destroy_doomed(void)
{
    destroy_list(&doomed_soon);
    destroy_list(&doomed_first);
}

void loop_free(void)
{
    if (epoll_fd < 0)
        return;
    close(epoll_fd);
    epoll_fd = -1;
    while (waiting.next != &waiting)
        loop_later_cancel(waiting.next);
    destroy_doomed();
    timer_free_all();
    free(batch);
    batch = NULL;
}

static int control(int op, struct watch *watch, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.ptr = watch };

    ASSERT(watch->fd >= 0);
    return epoll_ctl(epoll_fd, op, watch->fd, &ev);
}

int loop_watch(struct watch *watch, uint32_t events)
{
    return control(EPOLL_CTL_ADD, watch, events);
}

int loop_rewatch(struct watch *watch, uint32_t events)
{
    return control(EPOLL_CTL_MOD, watch, events);
}

void loop_unwatch(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    control(EPOLL_CTL_DEL, watch, 0);
    watch->fd = -1;
}

void loop_later(struct later *later)
{
    if (later->prev)
        return;
    later->prev = waiting.prev;
    later->next = &waiting;
    waiting.prev->next = later;
    waiting.prev = later;
}

void loop_later_cancel(struct later *later)
{
    if (!later->prev)
        return;
    later->prev->next = later->next;
    later->next->prev = later->prev;
    later->prev = NULL;
}

/* Runs what is queued now; what is queued meanwhile is the next turn's. */
static void run_later(void)
{
    struct later now;

    if (waiting.next == &waiting)
        return;
    /* The list moves to a sentinel of its own, so that cancelling from a run still works. */
    now = waiting;
    now.next->prev = now.prev->next = &now;
    waiting.next = waiting.prev = &waiting;
    while (now.next != &now) {
        struct later *first = now.next;

        loop_later_cancel(first);
        first->run(first);
        destroy_list(&doomed_soon);
    }
}

void loop_destroy_later(struct doomed *item)
{
    ASSERT(item->destroy);
    item->next = doomed_first;
    doomed_first = item;
}

void loop_destroy_soon(struct doomed *item)
{
    ASSERT(item->destroy);
    item->next = doomed_soon;
    doomed_soon = item;
}

static int turn_timeout(uint64_t max_ms)
{
    uint64_t ms = MIN(max_ms, timer_next_ms());

    if (waiting.next != &waiting)
        return 0;
    if (ms == UINT64_MAX)
        return -1;
    return ms > INT_MAX ? INT_MAX : (int) ms;
}

void loop_turn(uint64_t max_ms)
{
    int n = epoll_wait(epoll_fd, batch, (int) batch_size, turn_timeout(max_ms));

    ASSERT(n >= 0 || errno == EINTR);
    clock_update();
    for (int i = 0; i < n; i++) {
        struct watch *watch = batch[i].data.ptr;

        /* The next one's first line comes from memory meanwhile: waiting for it was half of this
         * function's time. */
        if (i + 1 < n)
            __builtin_prefetch(batch[i + 1].data.ptr);
        /* Closed by a handler earlier in this batch: the event is stale. */
        if (likely(watch->fd >= 0))
            watch->handler(watch, batch[i].events);
        destroy_list(&doomed_soon);
    }
    timer_fire_due();
    run_later();
    destroy_doomed();
    turns++;
}

uint64_t loop_turns(void)
{
    return turns;
}
