/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that are counted by workers which are killed at any moment: three at a time count and
 * give back, one of them at an address of its own, and each is killed after a random number of
 * changes and replaced. After each death every count is what the ledgers of the living say, and at
 * the end, when all have gone, nothing is counted.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define CROWDED 8 /* 40 keys make it grow */

#include "t/unit/core/zone/cells_check.h"
#include "core/zone/ledger.c"
#include "modules/http/limit_conn.c"
#include "t/unit/tap.h"

#define WORKERS 3
#define KEYS 40
#define LIMIT 25
#define HELD 300
#define DEATHS 300

static uint64_t rnd(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

static const struct zone_spec spec = { STR_INIT("connections"), 24 * ZONE_PAGE, &conn_kind,
                                       STR_INIT(""), NULL };

/* How many changes each worker has made. */
static uint64_t *done;

static uint64_t digest_of(struct zone *zone, unsigned n)
{
    static char text[64];

    return cells_digest(
        limit_table(zone)->seed,
        str_from(text, (size_t) snprintf(text, sizeof(text), "%0*u", (int) (n % 40) + 1, n)));
}

static void NORETURN work(struct zone *zone, unsigned worker, uint64_t seed)
{
    struct held *held[HELD];

    for (unsigned i = 0; i < HELD; i++)
        held[i] = mem_zalloc(sizeof(*held[i]) + sizeof(held[i]->items[0]));
    log_quietly();
    if (worker == 1)
        zone = zone_attach(fcntl(zone_fd(zone), F_DUPFD_CLOEXEC, 3), &spec, log_main);
    zone_set_worker(worker);
    for (;;) {
        unsigned i = (unsigned) (rnd(&seed) % HELD);

        if (held[i]->count > 0) {
            give_back(held[i]);
        } else {
            uint64_t digest = digest_of(zone, (unsigned) (rnd(&seed) % KEYS));

            held[i]->count = count(zone, limit_table(zone), digest, LIMIT, &held[i]->items[0]) == COUNTED ? 1 : 0;
        }
        (void) __atomic_add_fetch(&done[worker], 1, __ATOMIC_RELEASE);
    }
}

static pid_t worker_start(struct zone *zone, unsigned worker, uint64_t seed)
{
    pid_t pid = fork();

    if (pid == 0)
        work(zone, worker, seed);
    return pid;
}

static bool worker_end(struct zone *zone, unsigned worker, pid_t pid, uint64_t changes,
                       unsigned spin)
{
    int status;

    changes += __atomic_load_n(&done[worker], __ATOMIC_ACQUIRE);
    while (__atomic_load_n(&done[worker], __ATOMIC_ACQUIRE) < changes &&
           waitpid(pid, &status, WNOHANG) == 0)
        ;
    for (volatile unsigned i = 0; i < spin; i++)
        ;
    (void) kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        return false;
    zone_worker_gone(zone, worker, log_main);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static uint32_t seen;

static bool see(struct zone *zone, zone_off_t entry, uint64_t what, void *data)
{
    (void) zone;
    (void) entry;
    (void) what;
    (void) data;
    seen++;
    return true;
}

static uint32_t sum;
static bool impossible;

static void add(struct cell cell, void *data)
{
    (void) data;
    sum += *count_of(cell);
    impossible = impossible || *count_of(cell) == 0 || *count_of(cell) > LIMIT;
}

/* The sum of all counts is that of all entries; no count is zero or above the limit. */
static const char *examine(struct zone *zone, uint32_t *total)
{
    struct cells *t = limit_table(zone);
    const char *wrong;

    cells_lock_all(zone, t, &counts);
    zone_lock(zone);
    wrong = slab_check(zone);
    if (wrong == NULL)
        wrong = cells_check(zone, t);
    sum = seen = 0;
    (void) cells_each(zone, t, add, NULL);
    if (impossible)
        wrong = "a count that cannot be";
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++) {
        if (!ledger_each(zone, zone_slot(zone, worker), see, NULL))
            wrong = "a ledger is broken";
    }
    if (seen != sum)
        wrong = "counts and ledgers differ";
    zone_unlock(zone);
    cells_unlock_all(zone, t);
    *total = sum;
    return wrong;
}

int main(void)
{
    struct zone *zone = zone_create(&spec, log_main);
    uint64_t seed = 0x9e3779b97f4a7c15ull, most = 0;
    uint32_t total = 0;
    size_t empty;
    const char *wrong = NULL;
    unsigned deaths = 0;
    pid_t pid[WORKERS];
    int fd;

    log_quietly();
    done = shm_create("done", sizeof(*done) * WORKERS, &fd);
    if (!ok(zone != NULL && done != NULL, "a zone"))
        return done_testing();
    empty = zone_bytes_free(zone);
    limit_table(zone)->in_use = 1;
    for (unsigned w = 0; w < WORKERS; w++)
        pid[w] = worker_start(zone, w, rnd(&seed) | 1);
    for (; deaths < DEATHS && wrong == NULL; deaths++) {
        unsigned w = (unsigned) (rnd(&seed) % WORKERS);

        if (!worker_end(zone, w, pid[w], 1 + rnd(&seed) % 2000, (unsigned) (rnd(&seed) % 2000)))
            wrong = "a worker ended by itself";
        pid[w] = worker_start(zone, w, rnd(&seed) | 1);
        if (wrong == NULL)
            wrong = examine(zone, &total);
        most = MAX(most, total);
    }
    for (unsigned w = 0; w < WORKERS; w++)
        (void) worker_end(zone, w, pid[w], 1, 0);
    if (wrong == NULL)
        wrong = examine(zone, &total);
    ok(wrong == NULL, "%u workers killed%s%s", deaths, wrong ? ": " : "", wrong ? wrong : "");
    ok(zone_recoveries(zone) > 0 && zone_generation(zone) == 0,
       "some of them with the lock, nothing was wiped");
    ok(most > KEYS, "much was counted");
    is_uint(total, 0, "all was given back");
    is_uint(cells_each(zone, limit_table(zone), NULL, NULL), 0, "and forgotten");
    ok(limit_table(zone)->in_use > 3, "the table has grown meanwhile");
    is_uint(zone_bytes_free(zone), empty, "no memory was lost");
    diag("%u deaths, %u with the lock, %llu counted at most", deaths,
         (unsigned) zone_recoveries(zone), (unsigned long long) most);
    zone_destroy(zone);
    shm_destroy(done, sizeof(*done) * WORKERS, fd);
    return done_testing();
}
