/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Latches: one at a time has one, whoever waits gets it, a dead owner's is inherited by one of those who want it, whatever state it
 * died in, and a child is somebody else than its parent. Also to be built with -fsanitize=thread.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/zone/latch.c"
#include "t/unit/tap.h"

/* Sanitizers cannot follow threads that end without their library's knowing. */
#ifdef __has_feature
#define SANITIZED (__has_feature(thread_sanitizer) || __has_feature(address_sanitizer))
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define THREADS 6
#define ROUNDS 40000
#define DIE_EVERY 5000

/* What two latches guard: twins are alike, but while somebody has the latch, or has died with it. */
static struct guarded {
    struct zone_latch latch __attribute__((aligned(64)));
    uint64_t one, twin, repairs;
} *shared;

static void take(struct guarded *g)
{
    while (!latch_lock(&g->latch)) {
        if (!latch_inherit(&g->latch))
            continue;
        g->twin = g->one;
        g->repairs++;
        latch_unlock(&g->latch);
    }
}

/* The kernel ends the thread; its library learns nothing. */
static void die(void)
{
    (void) syscall(SYS_exit, 0);
}

static unsigned wrong, deaths;

static void *work(void *dies)
{
    for (unsigned i = 1; i <= ROUNDS; i++) {
        struct guarded *g = &shared[i % 2];

        take(g);
        if (g->one != g->twin)
            (void) __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
        g->one++;
        if (dies != NULL && i == DIE_EVERY) {
            (void) __atomic_add_fetch(&deaths, 1, __ATOMIC_RELAXED);
            die();
        }
        g->twin++;
        latch_unlock(&g->latch);
    }
    return NULL;
}

static void run(void *dies)
{
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++)
        (void) pthread_create(&threads[i], NULL, work, i % 2 == 0 ? NULL : dies);
    for (unsigned i = 0; i < THREADS; i++)
        (void) pthread_join(threads[i], NULL);
}

static void test_threads(void)
{
    memset(shared, 0, 2 * sizeof(*shared));
    run(NULL);
    ok(wrong == 0 && shared[0].one + shared[1].one == (uint64_t) THREADS * ROUNDS,
       "%u threads, one at a time", THREADS);
    ok(shared[0].latch.word == 0 && shared[0].repairs == 0, "nobody has it in the end");
}

static void test_deaths(void)
{
    memset(shared, 0, 2 * sizeof(*shared));
    for (unsigned i = 0; i < 20; i++)
        run(&shared);
    take(&shared[0]);
    latch_unlock(&shared[0].latch);
    ok(wrong == 0, "threads that die, one at a time");
    ok(deaths == 60 && shared[0].repairs == deaths, "each death was seen once");
}

static pid_t start(void (*fn)(void))
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    fn();
    _exit(0);
}

static bool killed(pid_t pid)
{
    int status;

    return kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status);
}

static void hold(void)
{
    take(shared);
    __atomic_store_n(&shared->one, 7, __ATOMIC_RELEASE);
    for (;;)
        (void) pause();
}

static void take_once(void)
{
    take(shared);
    __atomic_add_fetch(&shared->one, 1, __ATOMIC_RELEASE);
    latch_unlock(&shared->latch);
}

/* Somebody has said that he waits, and is asleep; or he is about to. */
static void await_waiter(void)
{
    while (!(__atomic_load_n(&shared->latch.word, __ATOMIC_RELAXED) & FUTEX_WAITERS))
        (void) sched_yield();
}

static void test_waiters(void)
{
    pid_t first, second;
    int status;

    memset(shared, 0, sizeof(*shared));
    take(shared);
    first = start(take_once);
    second = start(take_once);
    await_waiter();
    ok(killed(first), "one who waits dies");
    latch_unlock(&shared->latch);
    ok(waitpid(second, &status, 0) == second && shared->one == 1, "another gets it");

    first = start(hold);
    while (__atomic_load_n(&shared->one, __ATOMIC_ACQUIRE) != 7)
        (void) sched_yield();
    second = start(take_once);
    await_waiter();
    ok(killed(first), "an owner dies while another waits");
    ok(waitpid(second, &status, 0) == second && shared->one == 8 && shared->repairs == 1,
       "who inherits");
    ok(shared->latch.word == 0, "and gives it back");
}

static void inherit_and_die(void)
{
    while (latch_lock(&shared->latch))
        latch_unlock(&shared->latch);
    if (latch_inherit(&shared->latch))
        (void) kill(getpid(), SIGKILL);
}

static void test_dead_heir(void)
{
    pid_t pid;
    int status;

    memset(shared, 0, sizeof(*shared));
    pid = start(hold);
    while (__atomic_load_n(&shared->one, __ATOMIC_ACQUIRE) != 7)
        (void) sched_yield();
    (void) killed(pid);
    pid = start(inherit_and_die);
    ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "an heir dies before all is well");
    ok(!latch_lock(&shared->latch) && latch_inherit(&shared->latch), "and is inherited from");
    ok(!latch_inherit(&shared->latch), "once");
    latch_unlock(&shared->latch);
}

static void take_as_child(void)
{
    shared->one = (shared->latch.word & FUTEX_TID_MASK) != (uint32_t) getpid();
    latch_unlock(&shared->latch);
    take(shared);
    shared->twin = (shared->latch.word & FUTEX_TID_MASK) == (uint32_t) getpid();
    latch_unlock(&shared->latch);
}

static void test_fork(void)
{
    pid_t pid;
    int status;

    memset(shared, 0, sizeof(*shared));
    take(shared);
    pid = start(take_as_child);
    ok(waitpid(pid, &status, 0) == pid && shared->one == 1 && shared->twin == 1,
       "a child is not its parent");
    latch_pending(NULL);
}

int main(void)
{
    (void) alarm(300);
    shared = mmap(NULL, 2 * sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                  0);
    test_threads();
    if (!SANITIZED)
        test_deaths();
    test_waiters();
    test_dead_heir();
    test_fork();
    return done_testing();
}
