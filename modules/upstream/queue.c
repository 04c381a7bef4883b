/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * queue: requests wait until a server that had max_conns connections has one to spare. In the order in which they
 * came, for at most `timeout`; each worker has a queue of its own. Where the group is in a zone, connections that other workers give
 * back are looked for every few milliseconds, for nobody tells of them.
 */
#include "core/base/clock.h"
#include "core/event/loop.h"
#include "modules/upstream/internal.h"

#define LOOK_MS 10

struct upstream_queue {
    struct upstream *group;
    struct list waiting; /* struct exchange.queue_link */
    unsigned count, max;
    uint64_t timeout_ms;
    struct timer timer;
    struct later later;
};

/* Whether a server could be asked now; full: whether one only lacks a free connection. */
static bool look(struct upstream *g, bool *full)
{
    bool free;

    upstream_lock(g);
    peers_glance(&g->view, &free, full);
    upstream_unlock(g);
    return free;
}

static struct exchange *first(const struct upstream_queue *q)
{
    return list_empty(&q->waiting) ? NULL
                                   : container_of(q->waiting.next, struct exchange, queue_link);
}

static void arm(struct upstream_queue *q)
{
    const struct exchange *x = first(q);
    uint64_t now_ms = clock_ms(), due_ms;

    if (x == NULL) {
        timer_stop(&q->timer);
        return;
    }
    due_ms = x->queued_ms + q->timeout_ms;
    due_ms = due_ms > now_ms ? due_ms - now_ms : 0;
    timer_set(&q->timer, q->group->zone != NULL ? MIN(due_ms, LOOK_MS) : due_ms);
}

void queue_leave(struct exchange *x)
{
    struct upstream_queue *q = x->group->queue;

    list_remove(&x->queue_link);
    x->queue_us += (int64_t) (clock_ms() - x->queued_ms) * 1000;
    q->count--;
    shared_publish_idle(q->group);
}

/* Those who can go on do, as many as were waiting when it began. */
static void serve(struct upstream_queue *q)
{
    unsigned n = q->count;
    struct exchange *x;
    bool full;

    for (; n > 0 && (x = first(q)) != NULL && look(q->group, &full); n--) {
        queue_leave(x);
        exchange_next(x);
    }
    arm(q);
}

static void serve_later(struct later *later)
{
    serve(container_of(later, struct upstream_queue, later));
}

static void fire(struct timer *timer)
{
    struct upstream_queue *q = container_of(timer, struct upstream_queue, timer);
    struct exchange *x;

    while ((x = first(q)) != NULL && clock_ms() - x->queued_ms >= q->timeout_ms) {
        queue_leave(x);
        exchange_not_served(x, "no server had a connection to spare in time (queue)");
    }
    serve(q);
}

bool queue_enter(struct exchange *x)
{
    struct upstream_queue *q = x->group->queue;
    bool full;

    if (q == NULL || look(x->group, &full) || !full)
        return false;
    if (q->count >= q->max) {
        log_error(&x->req->log, 0, "the queue of upstream \"%.*s\" is full", STR_ARG(x->group->name));
        if (q->group->zone != NULL)
            shared_queue_overflow(q->group);
        return false;
    }
    x->queued_ms = clock_ms();
    list_push_back(&q->waiting, &x->queue_link);
    q->count++;
    shared_publish_idle(q->group);
    if (q->count == 1)
        arm(q);
    return true;
}

void queue_wake(struct upstream_queue *q)
{
    if (q->count > 0)
        loop_later(&q->later);
}

unsigned queue_length(const struct upstream_queue *q)
{
    return q->count;
}

unsigned queue_max(const struct upstream_queue *q)
{
    return q->max;
}

void queue_stop(struct upstream *g)
{
    if (g->queue == NULL)
        return;
    loop_later_cancel(&g->queue->later);
    timer_drop(&g->queue->timer);
}

const char *queue_set(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;
    struct upstream_queue *q = ARENA_NEW(cf->arena, struct upstream_queue);
    uint64_t n;

    (void) field;
    if (str_to_u64(cf->args[1], &n) != 0 || n == 0 || n > 1000000)
        return conf_error_arg(cf, 1, "invalid value \"%s\" in \"queue\" directive", cf->args[1].ptr);
    q->timeout_ms = 60000;
    if (cf->nargs == 3
        && (!str_starts(cf->args[2], STR("timeout="))
            || str_to_ms(str_skip(cf->args[2], 8), false, &q->timeout_ms) != 0))
        return conf_error_arg(cf, 2, "invalid parameter \"%s\"", cf->args[2].ptr);
    q->group = g;
    q->max = (unsigned) n;
    list_init(&q->waiting);
    q->timer.fire = fire;
    q->timer.deadline_ms = TIMER_OFF;
    q->later.run = serve_later;
    g->queue = q;
    return NULL;
}
