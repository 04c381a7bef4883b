/* SPDX-License-Identifier: BSD-2-Clause */
/* Timers against a plain model, by a clock of the test's own: the machine's load is no matter. */
#include "core/event/timer.h"

#include "core/base/clock.h"
#include "core/event/loop.h"
#include "t/unit/tap.h"

static char order[64];

struct named {
    struct timer timer;
    char name;
    struct timer *drops, *sets;
};

static void note(struct timer *timer)
{
    struct named *n = container_of(timer, struct named, timer);
    size_t len = strlen(order);

    order[len] = n->name;
    order[len + 1] = '\0';
    if (n->drops)
        timer_drop(n->drops);
    if (n->sets)
        timer_set(n->sets, 0);
}

static struct named named(char name)
{
    return (struct named){ .timer = { .deadline_ms = TIMER_OFF, .fire = note }, .name = name };
}

static uint64_t now_ms = 1000000;

/* In the place of the library's, for all that is linked into this program. */
int clock_gettime(clockid_t id TAP_UNUSED, struct timespec *ts)
{
    ts->tv_sec = (time_t) (now_ms / 1000);
    ts->tv_nsec = (long) (now_ms % 1000) * 1000000;
    return 0;
}

static void wait_ms(uint64_t ms)
{
    now_ms += ms;
    clock_update();
}

static void test_order(void)
{
    struct named a = named('a'), b = named('b'), c = named('c'), d = named('d');

    clock_update();
    order[0] = '\0';
    timer_set(&a.timer, 2);
    timer_set(&b.timer, 3);
    timer_set(&c.timer, 4);
    timer_set(&d.timer, 50);
    timer_set(&a.timer, 9); /* later: lazily */
    timer_set(&d.timer, 1); /* earlier */
    ok(timer_next_ms() <= 1, "the earliest counts after moving one forward");
    timer_stop(&b.timer);
    ok(!timer_active(&b.timer) && timer_active(&a.timer), "stopped is not active");
    wait_ms(6);
    timer_fire_due();
    is_str(order, "dc", "moved and stopped timers did not fire at their old time");
    ok(!timer_active(&c.timer), "fired is not active");
    wait_ms(6);
    timer_fire_due();
    is_str(order, "dca", "a moved timer fires at its new time");
    ok(timer_next_ms() == UINT64_MAX, "none left");
    timer_set(&b.timer, 1);
    timer_drop(&b.timer);
    timer_drop(&b.timer);
    ok(b.timer.slot == 0 && timer_next_ms() == UINT64_MAX, "dropped is out of the heap");
    timer_set(&b.timer, UINT64_MAX);
    ok(timer_active(&b.timer), "an endless timeout does not wrap");
    timer_drop(&b.timer);
}

static void test_callbacks(void)
{
    struct named a = named('a'), b = named('b'), c = named('c');

    clock_update();
    order[0] = '\0';
    a.drops = &b.timer;
    c.sets = &c.timer;
    timer_set(&a.timer, 0);
    timer_set(&b.timer, 1);
    timer_set(&c.timer, 2);
    wait_ms(3);
    timer_fire_due();
    is_str(order, "ac",
           "a dropped due timer does not fire; re-arming with 0 waits for another round");
    ok(timer_active(&c.timer), "it is armed again");
    timer_drop(&c.timer);
}

#define MODEL 500

struct modelled {
    struct timer timer;
    uint64_t at; /* TIMER_OFF: should not fire */
    bool fired;
};

static struct modelled model[MODEL];
static int wrong;
static uint64_t last_fired;

static void model_fire(struct timer *timer)
{
    struct modelled *m = container_of(timer, struct modelled, timer);

    if (m->at == TIMER_OFF || m->at > clock_ms() || m->at < last_fired)
        wrong++;
    last_fired = m->at;
    m->at = TIMER_OFF;
}

static void test_model(void)
{
    uint64_t seed = 12345;

    for (int i = 0; i < MODEL; i++)
        model[i] = (struct modelled){ .timer = { .deadline_ms = TIMER_OFF, .fire = model_fire },
                                      .at = TIMER_OFF };
    for (int round = 0; round < 60; round++) {
        int late = 0;

        for (int k = 0; k < 400; k++) {
            struct modelled *m;
            unsigned what;
            uint64_t ms;

            seed = seed * 6364136223846793005u + 1442695040888963407u;
            m = &model[(seed >> 33) % MODEL];
            what = (unsigned) (seed >> 20) % 8;
            ms = (seed >> 50) % 40;
            if (what == 0) {
                timer_stop(&m->timer);
                m->at = TIMER_OFF;
            } else if (what == 1) {
                timer_drop(&m->timer);
                m->at = TIMER_OFF;
            } else {
                timer_set(&m->timer, ms);
                m->at = clock_ms() + ms;
            }
            if (timer_active(&m->timer) != (m->at != TIMER_OFF))
                wrong++;
        }
        wait_ms(1);
        last_fired = 0;
        timer_fire_due();
        for (int i = 0; i < MODEL; i++)
            late += model[i].at <= clock_ms();
        wrong += late;
    }
    is_int(wrong, 0, "random sets, stops and drops: all fire in order, none early, late or twice");
    timer_free_all();
    is_int(model[0].timer.slot, 0, "after timer_free_all no timer is in the heap");
}

int main(void)
{
    test_order();
    test_callbacks();
    test_model();
    return done_testing();
}
