/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stacks are mapped, with a page below that nobody may touch, and recycled: few are in use at a time, and what one handshake has
 * touched the next one finds warm.
 */
#include "modules/ssl/fibre.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "core/base/sanitize.h"
#include "core/os/process.h"

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (1024 * 1024) /* its frames are several times as large */
#else
#define STACK_SIZE (128 * 1024) /* address space: what is not touched is not there */
#endif
#define KEPT_MAX 32

struct fibre {
    struct fibre *next; /* while it is kept */
    ucontext_t here, back;
    int (*work)(void *arg);
    void *arg;
    char *stack; /* the lowest byte that may be touched */
    int result, err;
    bool ended, cancelled;
    /* Of the sanitizer: what it keeps of the stack that is left, and where that is. */
    void *fake, *fake_back;
    const void *back_bottom;
    size_t back_size;
};

static struct fibre *current, *kept;
static unsigned in_use, kept_count;

/* The sanitizer must be told which stack is the one in use. */
static void switch_begin(void **save UNUSED, const void *bottom UNUSED, size_t size UNUSED)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}

static void switch_end(void *saved UNUSED, const void **bottom UNUSED, size_t *size UNUSED)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
}

static void trampoline(void)
{
    struct fibre *f = current;

    switch_end(NULL, &f->back_bottom, &f->back_size);
    f->result = f->work(f->arg);
    f->err = errno;
    f->ended = true;
    switch_begin(NULL, f->back_bottom, f->back_size);
    setcontext(&f->back);
    abort();
}

static struct fibre *fibre_new(void)
{
    size_t page = process_page_size();
    struct fibre *f = kept;
    char *map;

    if (in_use == FIBRES_MAX)
        return NULL;
    if (f != NULL) {
        kept = f->next;
        kept_count--;
        return f;
    }
    map = mmap(NULL, STACK_SIZE + page, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map, page, PROT_NONE) != 0) {
        munmap(map, STACK_SIZE + page);
        return NULL;
    }
    f = mem_zalloc(sizeof(*f));
    f->stack = map + page;
    return f;
}

static void fibre_free(struct fibre *f)
{
    size_t page = process_page_size();

    munmap(f->stack - page, STACK_SIZE + page);
    free(f);
}

static void recycle(struct fibre *f)
{
    in_use--;
    if (kept_count == KEPT_MAX) {
        fibre_free(f);
        return;
    }
    MEM_UNPOISON(f->stack, STACK_SIZE);
    f->next = kept;
    kept = f;
    kept_count++;
}

/* On its own: the compiler takes getcontext for a function that may return twice. */
static void __attribute__((noinline)) set_up(struct fibre *f)
{
    getcontext(&f->here);
    f->here.uc_stack.ss_sp = f->stack;
    f->here.uc_stack.ss_size = STACK_SIZE;
    f->here.uc_link = NULL;
    makecontext(&f->here, trampoline, 0);
}

static struct fibre *start(int (*work)(void *arg), void *arg)
{
    struct fibre *f = fibre_new();

    if (f == NULL)
        return NULL;
    in_use++;
    f->work = work;
    f->arg = arg;
    f->ended = f->cancelled = false;
    f->fake = NULL;
    set_up(f);
    return f;
}

enum fibre_state fibre_run(struct fibre **fibre, int (*work)(void *arg), void *arg, int *result)
{
    struct fibre *f = *fibre;

    ASSERT(current == NULL);
    if (f == NULL && (f = start(work, arg)) == NULL)
        return FIBRE_NONE;
    current = f;
    switch_begin(&f->fake_back, f->stack, STACK_SIZE);
    swapcontext(&f->back, &f->here);
    switch_end(f->fake_back, NULL, NULL);
    current = NULL;
    if (!f->ended) {
        *fibre = f;
        return FIBRE_PAUSED;
    }
    *result = f->result;
    errno = f->err;
    *fibre = NULL;
    recycle(f);
    return FIBRE_ENDED;
}

void fibre_pause(void)
{
    struct fibre *f = current;

    ASSERT(f != NULL && !f->cancelled);
    switch_begin(&f->fake, f->back_bottom, f->back_size);
    swapcontext(&f->here, &f->back);
    switch_end(f->fake, &f->back_bottom, &f->back_size);
}

struct fibre *fibre_current(void)
{
    return current;
}

void *fibre_arg(const struct fibre *fibre)
{
    return fibre->arg;
}

void fibre_cancel(struct fibre *fibre)
{
    fibre->cancelled = true;
}

bool fibre_is_cancelled(const struct fibre *fibre)
{
    return fibre->cancelled;
}

bool fibre_available(void)
{
    return in_use < FIBRES_MAX;
}

void fibre_trim(void)
{
    while (kept != NULL) {
        struct fibre *f = kept;

        kept = f->next;
        fibre_free(f);
    }
    kept_count = 0;
}
