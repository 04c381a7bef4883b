/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that are killed at any moment while they change the pairs of a zone, two at a time, each replaced after its
 * death. Whatever is found afterwards is a value that somebody wrote, whole; in the end no memory is lost.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modules/keyval/internal.h"
#include "t/unit/tap.h"

#define DEATHS 300
#define KEYS 400

static struct keyval_zone kz;
static struct res_zone res;

static uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

/* "KEY:" and one letter, repeated. */
static void change(uint64_t *seed)
{
    char key[32], value[1200];
    unsigned n = (unsigned) (rnd(seed) % KEYS);
    size_t k, v = 40 + rnd(seed) % 1100;

    k = (size_t) snprintf(key, sizeof(key), "/%.*s%u", (int) (n % 7), "a/b/c/d", n);
    if (rnd(seed) % 4 == 0) {
        (void) keyval_delete(&kz, str_from(key, k));
        return;
    }
    memset(value, (int) ('a' + rnd(seed) % 26), v);
    memcpy(value, key, k);
    value[k] = ':';
    (void) keyval_set(&kz, str_from(key, k), str_from(value, v), 0, KEYVAL_PUT);
}

static pid_t worker_start(unsigned worker, uint64_t seed)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    zone_set_worker(worker);
    for (;;)
        change(&seed);
}

static void check_pair(void *data, const struct keyval_pair *pair)
{
    unsigned *torn = data;
    bool whole = str_starts(pair->value, pair->key) && pair->value.ptr[pair->key.len] == ':';

    for (size_t i = pair->key.len + 2; whole && i < pair->value.len; i++)
        whole = pair->value.ptr[i] == pair->value.ptr[pair->key.len + 1];
    *torn += !whole;
}

static unsigned torn_pairs(void)
{
    struct keyval_walk walk = { .serial = 0 };
    unsigned torn = 0;

    while (keyval_walk(&kz, &walk, 100, check_pair, &torn))
        ;
    return torn;
}

static void ignore_log(struct log_file *file, enum log_level level, const char *line, size_t len)
{
    (void) file;
    (void) level;
    (void) line;
    (void) len;
}

int main(void)
{
    static struct log_file file = { .fd = -1, .write = ignore_log };
    static struct log_target target = { LOG_ERROR_LEVEL, &file, NULL };
    static const struct log_scope scope = { LOG_ERROR_LEVEL, &target };
    struct zone_spec spec = { STR("pairs"), 64 * 4096, &keyval_kind, STR(""), &kz };
    uint64_t seed = 0x9e3779b97f4a7c15ull, empty;
    unsigned torn = 0, deaths = 0;
    struct arena *arena = arena_new();
    struct str value;
    pid_t pid[2];

    log_main->scope = &scope;
    kz.type = KEYVAL_PREFIX;
    kz.res = &res;
    res.zone = zone_create(&spec, log_main);
    if (!ok(res.zone != NULL, "a zone"))
        return done_testing();
    empty = zone_bytes_free(res.zone);
    for (unsigned w = 0; w < 2; w++)
        pid[w] = worker_start(w, rnd(&seed) | 1);
    for (; deaths < DEATHS; deaths++) {
        unsigned w = (unsigned) (rnd(&seed) % 2);

        usleep((useconds_t) (200 + rnd(&seed) % 2000));
        (void) kill(pid[w], SIGKILL);
        (void) waitpid(pid[w], NULL, 0);
        zone_worker_gone(res.zone, w, log_main);
        torn += torn_pairs();
        pid[w] = worker_start(w, rnd(&seed) | 1);
    }
    for (unsigned w = 0; w < 2; w++) {
        (void) kill(pid[w], SIGKILL);
        (void) waitpid(pid[w], NULL, 0);
    }
    torn += torn_pairs();
    is_uint(torn, 0, "no pair was torn in %u deaths", deaths);
    is_uint(zone_generation(res.zone), 0, "the zone was never wiped");
    ok(zone_recoveries(res.zone) > 0, "some died with the lock (%u)",
       (unsigned) zone_recoveries(res.zone));
    keyval_clear(&kz);
    is_uint(zone_bytes_free(res.zone), empty, "no memory was lost");
    ok(!keyval_match(&kz, STR("/a/b/c"), arena, &value), "and nothing is left");
    zone_destroy(res.zone);
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
