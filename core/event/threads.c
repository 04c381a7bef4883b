/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool of threads for blocking file work. The loop's thread posts tasks and gets them back
 * through an eventfd; the pool's threads run nothing but their `work`. Threads are started
 * one by one, when a task comes and none is idle.
 */
#include "core/event/threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/event/loop.h"

struct task_queue {
    struct thread_task *first;
    struct thread_task **end;
};

struct thread_pool {
    struct watch watch; /* the eventfd: something is done */
    struct doomed doomed;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct task_queue queued;
    struct task_queue finished;
    unsigned queue_len;
    unsigned max_queue;
    unsigned idle;
    bool stopping;
    unsigned started; /* the loop's thread only, from here on */
    unsigned max_threads;
    char name[16]; /* as threads are called: 15 bytes */
    pthread_t threads[];
};

static void queue_push(struct task_queue *q, struct thread_task *task)
{
    task->next = NULL;
    *q->end = task;
    q->end = &task->next;
}

static struct thread_task *queue_pop(struct task_queue *q)
{
    struct thread_task *task = q->first;

    if (task) {
        q->first = task->next;
        if (!q->first)
            q->end = &q->first;
    }
    return task;
}

static void queue_init(struct task_queue *q)
{
    q->first = NULL;
    q->end = &q->first;
}

static void *thread_main(void *arg)
{
    struct thread_pool *pool = arg;
    static const uint64_t one = 1;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct thread_task *task = queue_pop(&pool->queued);

        if (!task) {
            if (pool->stopping)
                break;
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
            continue;
        }
        pool->queue_len--;
        pthread_mutex_unlock(&pool->lock);
        task->work(task);
        pthread_mutex_lock(&pool->lock);
        /* Under the lock, so that the loop's thread cannot close the descriptor in between. */
        if (!pool->finished.first && write(pool->watch.fd, &one, sizeof(one)) < 0)
            ASSERT(errno == EAGAIN);
        queue_push(&pool->finished, task);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void deliver(struct thread_pool *pool)
{
    struct task_queue done;
    struct thread_task *task;

    pthread_mutex_lock(&pool->lock);
    done = pool->finished;
    if (!done.first)
        done.end = &done.first;
    queue_init(&pool->finished);
    pthread_mutex_unlock(&pool->lock);
    while ((task = queue_pop(&done)) != NULL) {
        task->posted = false;
        task->done(task);
    }
}

static void pool_event(struct watch *watch, uint32_t events UNUSED)
{
    struct thread_pool *pool = container_of(watch, struct thread_pool, watch);
    uint64_t count;

    if (read(watch->fd, &count, sizeof(count)) < 0 && errno == EAGAIN)
        return;
    deliver(pool);
}

struct thread_pool *thread_pool_new(struct str name, unsigned threads, unsigned max_queue)
{
    struct thread_pool *pool;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    ASSERT(threads > 0);
    if (fd < 0)
        return NULL;
    pool = mem_zalloc(sizeof(*pool) + threads * sizeof(pool->threads[0]));
    pool->watch.fd = fd;
    pool->watch.handler = pool_event;
    if (loop_watch(&pool->watch, EPOLLIN) != 0) {
        int err = errno;

        close(fd);
        free(pool);
        errno = err;
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    queue_init(&pool->queued);
    queue_init(&pool->finished);
    pool->max_threads = threads;
    pool->max_queue = max_queue;
    snprintf(pool->name, sizeof(pool->name), "%.*s", STR_ARG(name));
    return pool;
}

/* One more thread, deaf to signals: they are the loop's. 0 or an errno value. */
static int start_thread(struct thread_pool *pool)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&pool->threads[pool->started], NULL, thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return err;
    pthread_setname_np(pool->threads[pool->started], pool->name);
    pool->started++;
    return 0;
}

int thread_pool_post(struct thread_pool *pool, struct thread_task *task)
{
    bool more;

    ASSERT(!task->posted);
    pthread_mutex_lock(&pool->lock);
    if (pool->stopping || pool->queue_len >= pool->max_queue) {
        pthread_mutex_unlock(&pool->lock);
        errno = EAGAIN;
        return -1;
    }
    more = pool->idle <= pool->queue_len && pool->started < pool->max_threads;
    pthread_mutex_unlock(&pool->lock);
    if (more) {
        int err = start_thread(pool);

        /* Those that run already will see to it, if there are any. */
        if (err && pool->started == 0) {
            errno = err;
            return -1;
        }
    }
    task->pool = pool;
    task->posted = true;
    pthread_mutex_lock(&pool->lock);
    queue_push(&pool->queued, task);
    pool->queue_len++;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

static void pool_destroy(struct doomed *doomed)
{
    free(container_of(doomed, struct thread_pool, doomed));
}

void thread_pool_free(struct thread_pool *pool)
{
    int fd = pool->watch.fd;

    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    deliver(pool);
    loop_unwatch(&pool->watch);
    close(fd);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    /* An event of this turn may still point here. */
    pool->doomed.destroy = pool_destroy;
    loop_destroy_later(&pool->doomed);
}
