/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zones as a whole: identity, adoption, slots, and the lock between processes that have the zone at
 * different addresses. For the latter this program starts itself anew with the memfd, as a new
 * binary is started with it, and both sides use and lose the lock.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/core/zone/check.h"
#include "t/unit/tap.h"

#define ROUNDS 50000

struct shared {
    uint64_t counter; /* under the lock */
    uint64_t recovered;
    uint64_t ready;   /* atomic: processes that have arrived */
    uint64_t base[4]; /* where each has the zone */
    uint64_t inside;  /* atomic: somebody holds the lock and waits to be killed */
};

static int config; /* what data points to */
static void *seen_data;
static int adopt_result;

static int shared_init(struct zone *zone, void *data)
{
    void *s = zone_alloc(zone, sizeof(struct shared));

    seen_data = data;
    zone_set_root(zone, zone_off(zone, s));
    return s != NULL ? 0 : -1;
}

static int failing_init(struct zone *zone, void *data)
{
    (void) zone;
    (void) data;
    return -1;
}

static int shared_adopt(struct zone *zone, void *data)
{
    (void) zone;
    seen_data = data;
    return adopt_result;
}

static struct shared *shared_of(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static bool shared_recover(struct zone *zone)
{
    shared_of(zone)->recovered++;
    return true;
}

/* What a slot says was held goes back to the counter. */
static void shared_gone(struct zone *zone, void *slot)
{
    zone_lock(zone);
    shared_of(zone)->counter -= *(uint32_t *) slot;
    zone_unlock(zone);
}

static const struct zone_kind kind = { .name = "shared",
                                       .version = 3,
                                       .slot_size = 100,
                                       .init = shared_init,
                                       .adopt = shared_adopt,
                                       .recover = shared_recover,
                                       .worker_gone = shared_gone };

static struct zone_spec spec_of(void)
{
    struct zone_spec spec = { STR("one"), 16 * ZONE_PAGE, &kind, STR("key=$host"), &config };

    return spec;
}

static bool attaches(int fd, const struct zone_spec *spec)
{
    int copy_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    struct zone *zone = zone_attach(copy_fd, spec, log_main);

    if (zone == NULL)
        close(copy_fd);
    else
        zone_destroy(zone);
    return zone != NULL;
}

static void test_identity(void)
{
    struct zone_kind other_kind = kind;
    struct zone_spec spec = spec_of();
    struct zone *zone = zone_create(&spec, log_main);
    int fd = zone_fd(zone);

    ok(str_eq(zone_name(zone), STR("one")) && zone_kind(zone) == &kind,
       "a zone knows its name and kind");
    ok(seen_data == &config, "init is given the configuration");
    ok(zone_at(zone, 0) == NULL && zone_off(zone, NULL) == 0, "offset 0 is none");
    ok(zone_off(zone, shared_of(zone)) == zone_root(zone), "an offset and back");
    ok(zone_matches(zone, &spec) && attaches(fd, &spec), "the same specification");
    spec.name = STR("two");
    ok(!zone_matches(zone, &spec) && !attaches(fd, &spec), "another name");
    spec = spec_of();
    spec.params = STR("key=$uri");
    ok(!zone_matches(zone, &spec) && !attaches(fd, &spec), "other parameters");
    spec = spec_of();
    spec.size -= ZONE_PAGE;
    ok(!zone_matches(zone, &spec) && !attaches(fd, &spec), "a smaller size");
    spec.size += 2 * ZONE_PAGE;
    ok(!zone_matches(zone, &spec) && !attaches(fd, &spec), "a larger size");
    spec.size = ZONE_MIN - 1;
    ok(!attaches(fd, &spec) && zone_create(&spec, log_main) == NULL, "too small a size");
    spec = spec_of();
    other_kind.version++;
    spec.kind = &other_kind;
    ok(!zone_matches(zone, &spec) && !attaches(fd, &spec), "another version of the data");
    other_kind = kind;
    other_kind.name = "other";
    ok(!attaches(fd, &spec), "another owner");
    spec = spec_of();
    zone->header->layout++;
    ok(!attaches(fd, &spec), "another layout");
    zone->header->layout--;
    zone->header->magic = 0;
    ok(!attaches(fd, &spec), "no zone at all");
    zone_destroy(zone);
    other_kind.init = failing_init;
    spec.kind = &other_kind;
    ok(zone_create(&spec, log_main) == NULL, "an init that fails");
}

static void test_adopt(void)
{
    struct zone_spec spec = spec_of();
    struct zone *zone = zone_create(&spec, log_main);
    int newer;

    spec.data = &newer;
    ok(zone_adopt(zone, &spec, log_main) == 0 && seen_data == &newer, "adopted");
    ok(zone->data == &newer, "a wipe would use the new configuration");
    spec.data = &config;
    adopt_result = -1;
    ok(zone_adopt(zone, &spec, log_main) == -1 && zone->data == &newer, "refused, as it was");
    adopt_result = 0;
    zone_destroy(zone);
}

static void test_slots(void)
{
    struct zone_spec spec = spec_of();
    struct zone *zone = zone_create(&spec, log_main);
    char *first = zone_slot(zone, 0), *last = zone_slot(zone, ZONE_WORKERS - 1);
    bool zero = true;

    for (unsigned i = 0; i < 100; i++)
        zero = zero && first[i] == 0 && last[i] == 0;
    ok(zero, "slots begin zeroed");
    memset(first, 0xff, 100);
    memset(last, 0xff, 100);
    ok(slab_check(zone) == NULL && shared_of(zone)->counter == 0, "and lie beside everything else");
    ok(((char *) zone_slot(zone, 1) - first) % 64 == 0, "no two in a cache line");
    zone_set_worker(7);
    ok(zone_my_slot(zone) == zone_slot(zone, 7), "one's own");
    *(uint32_t *) zone_my_slot(zone) = 5;
    shared_of(zone)->counter = 12;
    zone_worker_gone(zone, 7, log_main);
    is_uint(shared_of(zone)->counter, 7, "what a dead worker held is given back");
    is_uint(*(uint32_t *) zone_slot(zone, 7), 0, "and its slot is as new");
    ok(first[99] == -1, "the others' are not touched");
    zone_destroy(zone);
}

static void arrive(struct shared *s, uint64_t all)
{
    (void) __atomic_add_fetch(&s->ready, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE) < all)
        (void) sched_yield();
}

static void count(struct zone *zone)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        zone_lock(zone);
        shared_of(zone)->counter++; /* not atomic: the lock is all there is */
        zone_unlock(zone);
    }
}

static void hold_for_ever(struct zone *zone)
{
    zone_lock(zone);
    __atomic_store_n(&shared_of(zone)->inside, 1, __ATOMIC_RELEASE);
    for (;;)
        (void) pause();
}

/* The new binary: attaches the descriptor and does as it is told. */
static int other_binary(int fd, const char *what)
{
    struct zone_spec spec = spec_of();
    struct zone *zone;

    log_quietly();
    /* A mapping of another size first, so that the addresses differ even without randomisation. */
    (void) mmap(NULL, 77 * ZONE_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    zone = zone_attach(fd, &spec, log_main);
    if (zone == NULL)
        return 2;
    shared_of(zone)->base[1] = (uintptr_t) zone->base;
    if (strcmp(what, "hold") == 0)
        hold_for_ever(zone);
    arrive(shared_of(zone), 2);
    if (strcmp(what, "count") == 0)
        count(zone);
    if (strcmp(what, "wait") == 0) {
        uint64_t before = zone_recoveries(zone);

        zone_lock(zone);
        if (zone_recoveries(zone) != before + 1)
            return 3;
        zone_unlock(zone);
    }
    zone_destroy(zone);
    return 0;
}

static pid_t start_other(struct zone *zone, const char *what)
{
    char fd[16];
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    (void) snprintf(fd, sizeof(fd), "%d", zone_fd(zone));
    (void) fcntl(zone_fd(zone), F_SETFD, 0);
    (void) execl("/proc/self/exe", "zone_test", fd, what, (char *) NULL);
    _exit(127);
}

static int status_of(pid_t pid)
{
    int status = -1;

    return waitpid(pid, &status, 0) == pid ? status : -1;
}

/* Until the process sleeps: it has nothing to sleep on but the lock. */
static void await_sleep(pid_t pid)
{
    char path[64], text[256], state = '?';

    (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
    while (state != 'S' && state != 'Z') {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
        char *end;

        if (fd >= 0)
            close(fd);
        text[MAX(n, 0)] = '\0';
        end = strrchr(text, ')');
        state = end != NULL && end[1] == ' ' ? end[2] : 'Z';
    }
}

static void test_two_binaries(void)
{
    struct zone_spec spec = spec_of();
    struct zone *zone = zone_create(&spec, log_main);
    struct shared *s = shared_of(zone);
    pid_t pid, holder;

    pid = start_other(zone, "count");
    arrive(s, 2);
    count(zone);
    is_int(status_of(pid), 0, "another binary attaches the zone and counts in it");
    is_uint(s->counter, 2 * ROUNDS, "both at once, and no count is lost");
    ok(s->base[1] != 0 && s->base[1] != (uintptr_t) zone->base, "at different addresses");

    pid = start_other(zone, "hold");
    while (__atomic_load_n(&s->inside, __ATOMIC_ACQUIRE) == 0)
        (void) sched_yield();
    (void) kill(pid, SIGKILL);
    is_int(status_of(pid), SIGKILL, "the other dies holding the lock");
    zone_lock(zone);
    zone_unlock(zone);
    ok(s->recovered == 1 && zone_recoveries(zone) == 1, "we learn of it");

    s->inside = s->ready = 0;
    holder = fork();
    if (holder == 0)
        hold_for_ever(zone);
    while (__atomic_load_n(&s->inside, __ATOMIC_ACQUIRE) == 0)
        (void) sched_yield();
    pid = start_other(zone, "wait");
    arrive(s, 2);
    await_sleep(pid);
    (void) kill(holder, SIGKILL);
    is_int(status_of(holder), SIGKILL,
           "one of ours dies while the other binary waits for the lock");
    is_int(status_of(pid), 0, "which gets it, and recovers");
    zone_lock(zone);
    zone_unlock(zone);
    ok(s->recovered == 2 && zone_recoveries(zone) == 2, "once");
    is_uint(zone_generation(zone), 0, "nothing was wiped");
    zone_destroy(zone);
}

/* exec while holding the lock is a death too: the new program knows nothing of it. */
static void test_exec(void)
{
    struct zone_spec spec = spec_of();
    struct zone *zone = zone_create(&spec, log_main);
    pid_t pid = fork();

    if (pid == 0) {
        zone_lock(zone);
        (void) execl("/proc/self/exe", "zone_test", "-1", "none", (char *) NULL);
        _exit(127);
    }
    is_int(WEXITSTATUS(status_of(pid)), 2, "a process execs while it holds the lock");
    zone_lock(zone);
    zone_unlock(zone);
    is_uint(zone_recoveries(zone), 1, "the lock is taken as that of a dead one");
    zone_destroy(zone);
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return other_binary(atoi(argv[1]), argv[2]);
    log_quietly();
    test_identity();
    test_adopt();
    test_slots();
    test_two_binaries();
    test_exec();
    return done_testing();
}
