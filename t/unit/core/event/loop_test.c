/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop: the order of a turn, run-later, destruction, stale events, and starting anew in a
 * child.
 */
#include "core/event/loop.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/event/timer.h"
#include "t/unit/tap.h"

static char trace[64];

static void mark(char c)
{
    size_t len = strlen(trace);

    trace[len] = c;
    trace[len + 1] = '\0';
}

struct step {
    struct later later;
    char name;
    bool again;
    struct later *cancels, *queues;
};

static void step_run(struct later *later)
{
    struct step *s = container_of(later, struct step, later);

    mark(s->name);
    if (s->again)
        loop_later(later);
    if (s->cancels)
        loop_later_cancel(s->cancels);
    if (s->queues)
        loop_later(s->queues);
}

static struct step step(char name)
{
    return (struct step){ .later = { .run = step_run }, .name = name };
}

static void test_later(void)
{
    struct step a = step('a'), b = step('b'), c = step('c'), d = step('d');

    trace[0] = '\0';
    a.cancels = &b.later;
    a.queues = &d.later;
    c.again = true;
    loop_later(&a.later);
    loop_later(&b.later);
    loop_later(&c.later);
    loop_later(&c.later);
    loop_turn(UINT64_MAX);
    is_str(trace, "ac", "in order, once, without what was cancelled on the way");
    ok(later_queued(&c.later) && !later_queued(&b.later), "queued again for the next turn");
    c.again = false;
    loop_turn(UINT64_MAX);
    is_str(trace, "acdc", "which did not block");
    ok(!later_queued(&c.later), "and then no more");
}

struct thing {
    struct watch watch;
    struct timer timer;
    struct doomed doomed;
    struct thing *other;
    int *destroyed;
    int events;
};

static void thing_destroy(struct doomed *doomed)
{
    struct thing *t = container_of(doomed, struct thing, doomed);

    (*t->destroyed)++;
    mark('x');
    free(t);
}

static void thing_close(struct thing *t)
{
    int fd = t->watch.fd;

    loop_unwatch(&t->watch);
    close(fd);
    t->doomed.destroy = thing_destroy;
    loop_destroy_later(&t->doomed);
}

static void thing_event(struct watch *watch, uint32_t events UNUSED)
{
    struct thing *t = container_of(watch, struct thing, watch);

    t->events++;
    mark('e');
    /* Both have an event in this batch: whoever comes first closes the two. */
    thing_close(t->other);
    thing_close(t);
}

static void timer_mark(struct timer *timer UNUSED)
{
    mark('t');
}

static void test_destruction(void)
{
    int a[2], b[2], destroyed = 0;
    struct thing *t = mem_zalloc(sizeof(*t)), *u = mem_zalloc(sizeof(*u));
    struct step l = step('l');
    struct timer timer = { .deadline_ms = TIMER_OFF, .fire = timer_mark };

    ok(socketpair(AF_UNIX, SOCK_STREAM, 0, a) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, b) == 0,
       "two pairs of sockets");
    *t = (struct thing){ .watch = { a[0], thing_event }, .other = u, .destroyed = &destroyed };
    *u = (struct thing){ .watch = { b[0], thing_event }, .other = t, .destroyed = &destroyed };
    ok(loop_watch(&t->watch, EPOLLIN) == 0 && loop_watch(&u->watch, EPOLLIN) == 0, "watched");
    ok(write(a[1], "1", 1) == 1 && write(b[1], "1", 1) == 1, "both have an event");
    trace[0] = '\0';
    loop_later(&l.later);
    timer_set(&timer, 0);
    loop_turn(UINT64_MAX);
    is_int(destroyed, 2, "both destroyed when the turn was over");
    is_str(trace, "etlxx", "the stale event was not delivered; events, timers, later, destruction");
    close(a[1]);
    close(b[1]);
    timer_drop(&timer);
}

static void test_blocking(void)
{
    struct timer timer = { .deadline_ms = TIMER_OFF, .fire = timer_mark };
    uint64_t turns = loop_turns();

    trace[0] = '\0';
    clock_update();
    timer_set(&timer, 5);
    while (!trace[0])
        loop_turn(UINT64_MAX);
    is_str(trace, "t", "the loop wakes for a timer");
    is_uint(loop_turns() - turns, 1, "once");
    loop_turn(1);
    is_uint(loop_turns() - turns, 2, "and blocks no longer than asked");
}

static void test_fork(void)
{
    struct step a = step('a');
    struct timer timer = { .deadline_ms = TIMER_OFF, .fire = timer_mark };
    int status = -1;
    pid_t pid;

    trace[0] = '\0';
    loop_later(&a.later);
    timer_set(&timer, 0);
    pid = fork();
    if (pid == 0) {
        loop_free();
        if (later_queued(&a.later) || timer_active(&timer) || loop_init(8) != 0)
            _exit(1);
        loop_turn(2);
        _exit(trace[0] ? 2 : 0);
    }
    waitpid(pid, &status, 0);
    is_int(status, 0, "a child begins with an empty loop");
    loop_turn(0);
    loop_turn(0);
    ok(strchr(trace, 'a') && strchr(trace, 't'), "the parent's is untouched");
}

int main(void)
{
    is_int(loop_init(64), 0, "loop_init");
    test_later();
    test_destruction();
    test_blocking();
    test_fork();
    loop_free();
    return done_testing();
}
