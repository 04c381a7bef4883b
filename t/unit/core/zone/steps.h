/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deaths at every single store of a change to a zone, and once more at every store of the recovery that
 * follows. A test defines ZONE_STEPS and includes this behind the code that it tests; it makes `zone`, and
 * `image`, from which each case begins.
 */
#ifndef T_UNIT_CORE_ZONE_STEPS_H
#define T_UNIT_CORE_ZONE_STEPS_H

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/core/zone/check.h"
#include "t/unit/tap.h"

static unsigned long steps_left; /* 0: nobody dies */
static bool steps_kill;          /* by a signal; else what runs is left by longjmp */
static jmp_buf steps_end;

void zone_step(void)
{
    if (steps_left == 0 || --steps_left != 0)
        return;
    if (steps_kill)
        (void) kill(getpid(), SIGKILL);
    longjmp(steps_end, 1);
}

static struct zone *zone;
static char *image;

static void image_save(void)
{
    if (image == NULL)
        image = mem_alloc(zone->total);
    memcpy(image, zone->base, zone->total);
}

static void image_restore(void)
{
    memcpy(zone->base, image, zone->total);
}

/* The zone is done with. */
static TAP_UNUSED void image_close(void)
{
    free(image);
    image = NULL;
    zone_destroy(zone);
}

/* Runs fn until its step'th store. True if it did not get so far as to end. */
static TAP_UNUSED bool cut_short(void (*fn)(void), unsigned long step)
{
    volatile bool cut = true;

    steps_left = step;
    if (setjmp(steps_end) == 0) {
        fn();
        cut = false;
    }
    steps_left = 0;
    return cut;
}

/* In a process of its own, since a lock must be a dead one's. False: it came to the end. */
static bool child_dies(void (*fn)(void), unsigned long step)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        steps_kill = true;
        steps_left = step;
        fn();
        steps_left = 0;
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status)
           && WTERMSIG(status) == SIGKILL;
}

static void (*steps_run)(void);

/* The child dies only behind this: taking the lock is no store of the change. */
static TAP_UNUSED void run_locked(void)
{
    unsigned long left = steps_left;

    steps_left = 0;
    zone_lock(zone);
    steps_left = left;
    steps_run();
    steps_left = 0;
    zone_unlock(zone);
}

/* A child that holds the lock is killed at each store of run. check: NULL, or what is wrong; may destroy the contents. */
static TAP_UNUSED void test_killed(const char *name, void (*run)(void), const char *(*check)(void))
{
    const char *wrong = NULL;
    unsigned long step;
    bool died = true;

    steps_run = run;
    for (step = 1; died && wrong == NULL; step++) {
        uint64_t recoveries;

        image_restore();
        recoveries = zone_recoveries(zone);
        died = child_dies(run_locked, step);
        zone_lock(zone);
        if (zone_recoveries(zone) != recoveries + died)
            wrong = "a death was not noticed";
        else
            wrong = zone_generation(zone) != 0 ? "the zone was wiped" : check();
        zone_unlock(zone);
    }
    ok(wrong == NULL, "%s: killed at each of %lu steps%s%s", name, step - 2,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
}

static void steps_recover(void)
{
    zone_recover(zone);
}

/* The first death at every store, the second at every store of the recovery from it. */
static TAP_UNUSED void test_killed_twice(const char *name, void (*run)(void), const char *(*check)(void))
{
    const char *wrong = NULL;
    unsigned long first, second = 0, cases = 0;
    bool again;

    for (first = 1; wrong == NULL; first++) {
        image_restore();
        if (!cut_short(run, first))
            break;
        for (second = 1, again = true; again && wrong == NULL; second++, cases++) {
            image_restore();
            (void) cut_short(run, first);
            again = cut_short(steps_recover, second);
            if (again)
                zone_recover(zone);
            wrong = check();
        }
    }
    ok(wrong == NULL, "%s: dead in the recovery too, %lu cases%s%s", name, cases,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
    if (wrong != NULL)
        diag("at step %lu, then %lu", first - 1, second - 1);
}

#endif
