/* SPDX-License-Identifier: BSD-2-Clause */
/* The ways to end a process on purpose: a failed assertion, and memory that nobody has. */
#include "core/base/base.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/list.h"
#include "t/unit/tap.h"

static void fail_assertion(void)
{
    volatile int one = 1;

    ASSERT(one == 2);
}

static void exhaust(void)
{
    arena_array(arena_new(), SIZE_MAX / 2, 3);
}

/* What fn writes to stderr before it is aborted; NULL if it is not. */
static const char *dying_words(void (*fn)(void))
{
    static char buf[512];
    int fds[2], status = 0;
    ssize_t n;
    pid_t pid;

    if (pipe(fds))
        return NULL;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], STDERR_FILENO);
        fn();
        _exit(0);
    }
    close(fds[1]);
    n = read(fds[0], buf, sizeof(buf) - 1);
    buf[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? buf : NULL;
}

static void test_list(void)
{
    struct list l, a, b, c;

    list_init(&l);
    list_init(&c);
    ok(list_empty(&l) && list_pop_front(&l) == NULL, "an empty list");
    list_push_back(&l, &a);
    list_push_back(&l, &b);
    list_push_front(&l, &c);
    ok(l.next == &c && l.prev == &b, "front and back");
    list_remove(&a);
    list_remove(&a);
    ok(list_pop_front(&l) == &c && list_pop_front(&l) == &b && list_empty(&l),
       "removal from the middle, twice");
}

int main(void)
{
    uint64_t before = mem_allocations;
    unsigned char *p = mem_zalloc(100);
    const char *words;
    bool zero = true;

    for (int i = 0; i < 100; i++)
        zero = zero && p[i] == 0;
    ok(zero, "zeroed memory");
    p = mem_realloc(p, 10000);
    p[9999] = 1;
    free(p);
    free(mem_alloc(0));
    is_uint(mem_allocations - before, 3, "each call to the allocator is counted");
    words = dying_words(fail_assertion);
    ok(words && strstr(words, "proxyd: assertion failed: one == 2 at ") &&
           strstr(words, "base_test.c:"),
       "a failed assertion says what and where, and aborts");
#ifdef WITH_ASAN
    skip("the sanitizer's allocator ends the process itself");
#else
    words = dying_words(exhaust);
    ok(words && strstr(words, "proxyd: out of memory: cannot allocate "),
       "so does a product that overflows, as memory that is not there");
#endif
    (void) exhaust;
    test_list();
    return done_testing();
}
