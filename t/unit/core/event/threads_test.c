/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread pool: delivery in the loop's thread, the queue's limit, the end with work under way.
 */
#include "core/event/threads.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "core/event/loop.h"
#include "t/unit/tap.h"

#define TASKS 200

struct job {
    struct thread_task task;
    unsigned value;
    pthread_t worked_by;
    int wait_fd; /* work reads a byte from here first, unless 0 */
    struct job *then;
};

static unsigned done_count;
static bool foreign; /* done came in another thread than main's */
static pthread_t main_thread;

static void work(struct thread_task *task)
{
    struct job *j = container_of(task, struct job, task);
    char c;

    if (j->wait_fd && read(j->wait_fd, &c, 1) != 1)
        return;
    j->value *= 2;
    j->worked_by = pthread_self();
}

static void done(struct thread_task *task)
{
    struct job *j = container_of(task, struct job, task);

    foreign |= !pthread_equal(pthread_self(), main_thread) ||
               pthread_equal(j->worked_by, main_thread) || task->posted;
    done_count++;
    if (j->then)
        thread_pool_post(task->pool, &j->then->task);
}

static struct job job(unsigned value)
{
    return (struct job){ .task = { .work = work, .done = done }, .value = value };
}

int main(void)
{
    static struct job jobs[TASKS];
    struct job last, blocked, extra;
    struct thread_pool *pool;
    bool right = true;
    int fds[2];

    main_thread = pthread_self();
    loop_init(16);
    pool = thread_pool_new(STR("default"), 4, TASKS);
    ok(pool != NULL, "thread_pool_new");
    last = job(1);
    for (unsigned i = 0; i < TASKS; i++) {
        jobs[i] = job(i);
        right = right && thread_pool_post(pool, &jobs[i].task) == 0;
        if (i == 0)
            jobs[i].then = &last;
    }
    ok(right, "as many tasks as the queue holds");
    while (done_count < TASKS + 1)
        loop_turn(1000);
    for (unsigned i = 0; i < TASKS; i++)
        right = right && jobs[i].value == i * 2;
    ok(right && last.value == 2, "each was worked on once, one posted from done too");
    ok(!foreign, "done in the loop's thread, work not");
    thread_pool_free(pool);
    loop_turn(0);

    ok(pipe(fds) == 0, "a pipe to hold up a thread");
    pool = thread_pool_new(STR("a name that is too long for a thread"), 1, 1);
    blocked = job(1);
    blocked.wait_fd = fds[0];
    jobs[0] = job(1);
    extra = job(1);
    done_count = 0;
    is_int(thread_pool_post(pool, &blocked.task), 0, "one task");
    /* Until the only thread has taken it, the queue is full. */
    while (thread_pool_post(pool, &jobs[0].task) != 0)
        usleep(100);
    ok(thread_pool_post(pool, &extra.task) == -1 && errno == EAGAIN && !extra.task.posted,
       "beyond the queue's limit: refused");
    ok(write(fds[1], "x", 1) == 1, "let go");
    thread_pool_free(pool);
    is_uint(done_count, 2, "freeing waits for all, queued ones too, and delivers them");
    close(fds[0]);
    close(fds[1]);
    loop_turn(0);
    loop_free();
    return done_testing();
}
