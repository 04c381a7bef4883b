/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Latches, when somebody has to wait or has died. They own nothing but the "pending" place of the calling thread's robust
 * list, and that only while the C library is not in one of its own robust mutexes.
 */
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/zone/latch.h"
#include "core/zone/layout.h"

#define SPINS 200
#define LOOK_AGAIN_MS 50 /* a wake that went to a waiter who died is lost */

__thread struct latch_self latch_self;

static void forget_self(void)
{
    latch_self.thread = 0;
}

/* A forked child is another thread. */
static void forget_in_children(void)
{
    int err = pthread_atfork(NULL, NULL, forget_self);

    ASSERT(err == 0);
}

static struct robust_list_head *robust_list(void)
{
    struct robust_list_head *list = NULL;
    size_t len = 0;

    if (syscall(SYS_get_robust_list, 0, &list, &len) != 0 || list == NULL)
        return NULL;
    ASSERT(len == sizeof(*list));
    return list;
}

/* Some libraries (musl) tell the kernel of their list with a thread's first robust mutex only. */
static void use_robust_mutex(void)
{
    pthread_mutex_t mutex;
    int err = zone_mutex_init(&mutex);

    ASSERT(err == 0);
    (void) pthread_mutex_lock(&mutex);
    (void) pthread_mutex_unlock(&mutex);
    (void) pthread_mutex_destroy(&mutex);
}

void latch_know_self(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void) pthread_once(&once, forget_in_children);
    latch_self.robust = robust_list();
    if (latch_self.robust == NULL) {
        use_robust_mutex();
        latch_self.robust = robust_list();
    }
    ASSERT(latch_self.robust != NULL);
    latch_self.thread = (uint32_t) syscall(SYS_gettid);
}

static uint32_t word_of(const struct zone_latch *latch)
{
    return __atomic_load_n(&latch->word, __ATOMIC_RELAXED);
}

static bool word_becomes(struct zone_latch *latch, uint32_t was, uint32_t word)
{
    return __atomic_compare_exchange_n(&latch->word, &was, word, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static bool is_orphan(uint32_t word)
{
    return (word & FUTEX_OWNER_DIED) != 0 && (word & FUTEX_TID_MASK) == 0;
}

static inline void spin(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

bool latch_wait(struct zone_latch *latch)
{
    static const struct timespec look_again = { 0, LOOK_AGAIN_MS * 1000000L };
    uint32_t waiters = 0; /* having slept, one cannot know whether others still do */

    for (unsigned spins = 0;; spins++) {
        uint32_t word = word_of(latch);

        if (is_orphan(word)) {
            latch_pending(NULL);
            return false;
        }
        if (word == 0) {
            if (word_becomes(latch, 0, latch_self.thread | waiters))
                return true;
        } else if (spins < SPINS) {
            spin();
        } else if ((word & FUTEX_WAITERS) != 0 || word_becomes(latch, word, word | FUTEX_WAITERS)) {
            (void) syscall(SYS_futex, &latch->word, FUTEX_WAIT, word | FUTEX_WAITERS, &look_again,
                           NULL, 0);
            waiters = FUTEX_WAITERS;
        }
    }
}

void latch_wake(struct zone_latch *latch)
{
    (void) syscall(SYS_futex, &latch->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool latch_inherit(struct zone_latch *latch)
{
    uint32_t word;

    if (latch_self.thread == 0)
        latch_know_self();
    latch_pending(latch);
    word = word_of(latch);
    while (is_orphan(word)) {
        if (word_becomes(latch, word, word | latch_self.thread))
            return true;
        word = word_of(latch);
    }
    latch_pending(NULL);
    return false;
}
