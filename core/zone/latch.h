/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lock in shared memory for what is done in some ten instructions with every request: one word, of
 * which the kernel says when its owner has died. What makes a robust mutex of the C library cost four times as
 * much is the list of all that a thread holds. A thread holds one latch at most, and that is in the one place
 * beside the list at which the kernel looks too, when a thread ends: "pending", where the C library notes what it is about
 * to lock or unlock.
 *
 * Hence the rule: with a latch, neither another one nor any robust mutex is locked or unlocked.
 */
#ifndef CORE_ZONE_LATCH_H
#define CORE_ZONE_LATCH_H

#include <linux/futex.h>

#include "core/base/str.h"

/* 0: free; else as the kernel wants it: the owner's thread, FUTEX_WAITERS, FUTEX_OWNER_DIED. */
struct zone_latch {
    uint32_t word;
};

struct latch_self {
    struct robust_list_head *robust; /* the C library's */
    uint32_t thread;                 /* 0: not asked for yet in this process */
};
extern __thread struct latch_self latch_self;

/* What is not common. */
void latch_know_self(void);
bool latch_wait(struct zone_latch *latch);
void latch_wake(struct zone_latch *latch);
/*
 * Of a latch whose owner has died: takes it, to be given back when what it guards is sound. Until then others learn of the
 * death, should its new owner die as well. False: somebody else has seen to that.
 */
bool latch_inherit(struct zone_latch *latch);

static inline void latch_pending(const struct zone_latch *latch)
{
    struct robust_list_head *robust = latch_self.robust;
    uintptr_t at = (uintptr_t) latch - (uintptr_t) robust->futex_offset;

    __atomic_store_n(&robust->list_op_pending, latch != NULL ? (struct robust_list *) at : NULL,
                     __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* False: the owner has died, and nobody has the latch. See latch_inherit. */
static inline bool latch_lock(struct zone_latch *latch)
{
    uint32_t is_free = 0;

    if (unlikely(latch_self.thread == 0))
        latch_know_self();
    latch_pending(latch);
    return likely(__atomic_compare_exchange_n(&latch->word, &is_free, latch_self.thread, false,
                                              __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) ||
           latch_wait(latch);
}

static inline void latch_unlock(struct zone_latch *latch)
{
    uint32_t was = __atomic_exchange_n(&latch->word, 0, __ATOMIC_RELEASE);

    if (unlikely((was & FUTEX_WAITERS) != 0))
        latch_wake(latch);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    latch_pending(NULL);
}

#endif
