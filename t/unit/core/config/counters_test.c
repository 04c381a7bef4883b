/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sets of counters: sums over workers that live, have ended, and began with an older configuration; tags, gauges,
 * resets, and a configuration that has other sets.
 */
#include "core/config/counters.h"

#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/tap.h"

const struct module *const modules[] = { NULL };

static const char *const names[] = { "now", "all", "by.tag", "bytes", NULL };
static const struct counter_kind kind = { "test", names, 1, 3 };
static const char *const other_names[] = { "only", NULL };
static const struct counter_kind other = { "other", other_names, 0, 0 };

/* A configuration with one set of kind `test` for each letter, and one of the other kind. */
struct setup {
    struct config config;
    struct conf cf;
    struct zone *zone;
};

static struct counter_set *set_of(struct setup *s, const char *name)
{
    return counters_define(&s->cf, &kind, str_cstr(name));
}

static struct setup *setup_new(const char *letters, struct zone *zone)
{
    struct arena *arena = arena_new_large();
    struct setup *s = ARENA_NEW(arena, struct setup);

    s->config.arena = arena;
    s->config.resources = resources_new(&s->config);
    s->cf = (struct conf){ .config = &s->config, .arena = arena };
    for (; *letters != '\0'; letters++)
        set_of(s, (char[]){ *letters, '\0' });
    counters_define(&s->cf, &other, STR("a"));
    ASSERT(counters_configure(&s->cf) == 0);
    s->zone = zone;
    if (zone == NULL)
        s->zone = zone_create(&s->config.resources->counters_zone->spec, log_main);
    else
        ASSERT(zone_adopt(zone, &s->config.resources->counters_zone->spec, log_main) == 0);
    s->config.resources->counters_zone->zone = s->zone;
    return s;
}

static void count(struct setup *s, const char *name, unsigned n, unsigned tag)
{
    struct counter_set *set = set_of(s, name);

    counters_add(set, 0, 1);
    counters_add(set, 1, n);
    for (unsigned i = 0; i < n; i++)
        counters_tag(set, tag);
    counters_add(set, 3, (uint64_t) n << 33);
}

/* A worker that counts and ends, without or with (`tell`) the master's looking after it. */
static void worker(struct setup *s, unsigned number, bool tell, unsigned n, unsigned tag)
{
    pid_t pid = fork();

    if (pid == 0) {
        zone_set_worker(number);
        counters_start(&s->config);
        count(s, "a", n, tag);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    if (tell)
        zone_worker_gone(s->zone, number, log_main);
}

static struct counter_sums sums_of(struct setup *s, const char *name)
{
    struct counter_sums sums;

    counters_sum(set_of(s, name), s->cf.arena, &sums);
    return sums;
}

static void test_sums(struct setup *s)
{
    struct counter_sums sums;

    worker(s, 1, false, 10, 200);
    worker(s, 2, true, 5, 404);
    worker(s, 3, false, 7, 200);
    sums = sums_of(s, "a");
    is_uint(sums.values[1], 22, "workers that live and one that has ended");
    is_uint(sums.values[0], 2, "a gauge ends with its worker");
    is_uint(sums.values[3], UINT64_C(22) << 33, "large numbers");
    is_uint(sums.tag_count, 2, "two tags");
    is_uint(sums.tags[0].tag * 1000 + sums.tags[0].count, 200017, "of two workers, in order");
    is_uint(sums.tags[1].tag * 1000 + sums.tags[1].count, 404005, "and of the one that has ended");
    is_uint(sums_of(s, "b").values[1], 0, "another set");
    counters_reset(set_of(s, "a"));
    sums = sums_of(s, "a");
    is_uint(sums.values[1] + sums.values[3] + sums.tag_count, 0, "reset");
    is_uint(sums.values[0], 2, "not what there is now");
    zone_worker_gone(s->zone, 1, log_main);
    is_uint(sums_of(s, "a").values[1], 0, "a worker that ends after it adds nothing");
    worker(s, 4, false, 3, 404);
    sums = sums_of(s, "a");
    is_uint(sums.values[1] * 10 + sums.tag_count, 31, "counting goes on");
    is_uint(sums.tags[0].tag * 1000 + sums.tags[0].count, 404003, "from 0");
}

static void test_tags(struct setup *s)
{
    struct counter_set *set = set_of(s, "b");
    struct counter_sums sums;

    for (unsigned tag = 1; tag <= COUNTER_TAGS + 5; tag++)
        counters_tag(set, tag * 100);
    sums = sums_of(s, "b");
    is_uint(sums.tag_count, COUNTER_TAGS, "so many different tags");
    is_uint(sums.tags[COUNTER_TAGS - 1].tag, COUNTER_TAGS * 100, "the first ones");
}

static void test_reload(struct setup *before)
{
    /* c is new, b is gone; workers of before go on. */
    struct setup *now = setup_new("ca", before->zone);
    pid_t pid;

    zone_set_worker(6);
    counters_start(&now->config);
    is_uint(sums_of(now, "a").values[1], 3, "what was counted before stays");
    worker(now, 7, false, 4, 200);
    pid = fork();
    if (pid == 0) {
        count(before, "a", 0, 200); /* the test's own first worker, 5 */
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    is_uint(sums_of(now, "a").values[1], 7, "and more comes to it");
    count(now, "c", 2, 1);
    is_uint(sums_of(now, "c").values[1], 2, "the new set");
    zone_worker_gone(now->zone, 3, log_main);
    zone_worker_gone(now->zone, 5, log_main);
    is_uint(sums_of(now, "a").values[1], 7, "workers of before end");
    arena_destroy(now->config.arena);
}

int main(void)
{
    struct setup *s = setup_new("ab", NULL);
    struct counter_set *set = NULL;
    unsigned n = 0;

    ok(set_of(s, "a") == set_of(s, "a"), "one set of a name");
    while ((set = counters_next(&s->config, "test", set)) != NULL)
        n++;
    is_uint(n, 2, "sets of a kind");
    counters_add(set_of(s, "a"), 1, 1000); /* nobody sees what is counted outside of workers */
    zone_set_worker(5);
    counters_start(&s->config);
    test_sums(s);
    test_tags(s);
    test_reload(s);
    zone_destroy(s->zone);
    arena_destroy(s->config.arena);
    arena_trim();
    return done_testing();
}
