/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that are killed at any moment while they use a zone, as they come from the compiler (no
 * steps): two at a time work on one table, one of them at an address of its own, and each is
 * killed after a random number of operations and replaced. After each death the zone is examined;
 * at the end nothing may be lost but what each death may cost.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/core/zone/check.h"
#include "t/unit/tap.h"

#define KEYS 3000
#define DEATHS 400

static uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

struct root {
    zone_off_t table;
    uint64_t torn; /* values that recovery found half written */
};

struct value {
    uint64_t a;
    uint64_t filler[3];
    uint64_t b; /* ~a once written */
};

static struct root *root_of(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static struct keyed *table_of(struct zone *zone)
{
    return zone_at(zone, root_of(zone)->table);
}

static int start(struct zone *zone, void *data)
{
    struct root *root = zone_alloc(zone, sizeof(*root));

    (void) data;
    root->table = zone_off(zone, keyed_new(zone, sizeof(struct value), 512));
    zone_set_root(zone, zone_off(zone, root));
    return 0;
}

/* As a user would: the table first, then its own values. */
static bool recover(struct zone *zone)
{
    void *v, *next;

    if (!keyed_recover(zone, table_of(zone)))
        return false;
    for (v = keyed_next(zone, table_of(zone), NULL); v != NULL; v = next) {
        struct value *value = v;

        next = keyed_next(zone, table_of(zone), v);
        if (value->b != ~value->a) {
            root_of(zone)->torn++;
            keyed_delete(zone, table_of(zone), v);
        }
    }
    return true;
}

static const struct zone_kind kind = {
    .name = "kill", .version = 1, .slot_size = sizeof(uint64_t), .init = start, .recover = recover
};

static const struct zone_spec spec = { STR_INIT("kill"), 48 * ZONE_PAGE, &kind, STR_INIT(""),
                                       NULL };

/* One change under the lock. Key lengths vary, so that pages of several classes come and go. */
static void change(struct zone *zone, uint64_t *seed)
{
    struct keyed *t = table_of(zone);
    char name[64];
    unsigned n = (unsigned) (rnd(seed) % KEYS);
    struct str key =
        str_from(name, (size_t) snprintf(name, sizeof(name), "%0*u", 4 + (int) (n % 40), n));
    struct value *value;
    bool created;

    zone_lock(zone);
    switch (rnd(seed) % 4) {
    case 0:
        value = keyed_get(zone, t, key, false);
        if (value != NULL)
            keyed_delete(zone, t, value);
        break;
    case 1: (void) keyed_get(zone, t, key, true); break;
    default:
        value = keyed_put(zone, t, key, 16, &created);
        if (value != NULL) {
            ZONE_SET(value->a, rnd(seed));
            memset(value->filler, (int) value->a, sizeof(value->filler));
            ZONE_SET(value->b, ~value->a);
        }
    }
    zone_unlock(zone);
}

static pid_t worker_start(struct zone *zone, unsigned worker, uint64_t seed)
{
    pid_t pid = fork();
    uint64_t *done;

    if (pid != 0)
        return pid;
    log_quietly();
    if (worker == 1)
        zone = zone_attach(fcntl(zone_fd(zone), F_DUPFD_CLOEXEC, 3), &spec, log_main);
    zone_set_worker(worker);
    done = zone_my_slot(zone);
    for (;;) {
        change(zone, &seed);
        (void) __atomic_add_fetch(done, 1, __ATOMIC_RELEASE);
    }
}

/* Kills the worker when it has made some changes, wherever it is by then. */
static bool worker_end(struct zone *zone, unsigned worker, pid_t pid, uint64_t changes,
                       unsigned spin)
{
    uint64_t *done = zone_slot(zone, worker);
    int status;

    while (__atomic_load_n(done, __ATOMIC_ACQUIRE) < changes && waitpid(pid, &status, WNOHANG) == 0)
        ;
    for (volatile unsigned i = 0; i < spin; i++)
        ;
    (void) kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        return false;
    zone_worker_gone(zone, worker, log_main);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static const char *examine(struct zone *zone)
{
    const char *wrong;

    zone_lock(zone);
    wrong = slab_check(zone);
    if (wrong == NULL)
        wrong = keyed_check(zone, table_of(zone));
    for (struct value *v = NULL; (v = keyed_next(zone, table_of(zone), v)) != NULL;)
        wrong = wrong == NULL && v->b != ~v->a ? "a half-written value" : wrong;
    zone_unlock(zone);
    return wrong;
}

int main(void)
{
    struct zone *zone = zone_create(&spec, log_main);
    uint64_t seed = 0x9e3779b97f4a7c15ull, empty;
    const char *wrong = NULL;
    unsigned deaths = 0;
    pid_t pid[2];
    void *v;

    log_quietly();
    if (!ok(zone != NULL, "a zone"))
        return done_testing();
    empty = zone_bytes_free(zone);
    for (unsigned w = 0; w < 2; w++)
        pid[w] = worker_start(zone, w, rnd(&seed) | 1);
    for (; deaths < DEATHS && wrong == NULL; deaths++) {
        unsigned w = (unsigned) (rnd(&seed) % 2);

        if (!worker_end(zone, w, pid[w], 1 + rnd(&seed) % 500, (unsigned) (rnd(&seed) % 2000)))
            wrong = "a worker ended by itself";
        pid[w] = worker_start(zone, w, rnd(&seed) | 1);
        if (wrong == NULL)
            wrong = examine(zone);
    }
    for (unsigned w = 0; w < 2; w++)
        (void) worker_end(zone, w, pid[w], 1, 0);
    if (wrong == NULL)
        wrong = examine(zone);
    ok(wrong == NULL, "%u workers killed%s%s", deaths, wrong ? ": " : "", wrong ? wrong : "");
    ok(zone_recoveries(zone) > 0, "some of them with the lock");
    ok(zone_generation(zone) == 0 && keyed_count(table_of(zone)) > 0,
       "and the data is still there");
    ok(root_of(zone)->torn <= zone_recoveries(zone), "at most one value was lost by each");
    diag("%u deaths, %u with the lock, %u values lost, %zu entries left", deaths,
         (unsigned) zone_recoveries(zone), (unsigned) root_of(zone)->torn,
         keyed_count(table_of(zone)));
    while ((v = keyed_oldest(zone, table_of(zone), NULL)) != NULL)
        keyed_delete(zone, table_of(zone), v);
    is_uint(zone_bytes_free(zone), empty, "no memory was lost");
    ok(examine(zone) == NULL, "sound to the end");
    zone_destroy(zone);
    return done_testing();
}
