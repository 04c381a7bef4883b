/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The filter that reads FILE pieces into memory: where sendfile is off, where a later filter must see
 * the bytes, for direct I/O, and through a pool of threads where aio says so. It holds back what
 * is not read yet and keeps no more than output_buffers in flight.
 */
#include "modules/http/file_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "core/event/loop.h"
#include "core/event/threads.h"
#include "core/http/answer.h"

/* configure: switch=http_file_mem_module default=always */

#define ALIGNMENT 4096u
/* nginx's for the pool that nobody defined. */
#define POOL_THREADS 32
#define POOL_QUEUE 65536

static unsigned file_mem_slot;
static char direct_mark;

/* A read in a thread. Outlives the request if it must. */
struct read_task {
    struct thread_task task;
    struct file_mem *owner; /* NULL: the request is gone */
    struct chain_file *file;
    struct block *block;
    char *at;
    size_t len;
    off_t offset;
    ssize_t result;
    int err;
};

struct file_mem {
    struct req *r;
    struct chain held;   /* not read yet, in order */
    unsigned flags;      /* BODY_END withheld */
    bool direct, threads;
    bool waiting;        /* for a thread, for the next turn, or, */
    bool paused;         /* for output to drain, or a later filter to work off what it has */
    struct wait wait;
    struct later later;
    struct read_task *task;
};

void file_mem_direct(struct req *r)
{
    req_ctx_set(r, file_mem_slot, &direct_mark, CTX_PASS);
}

/* Reading ------------------------------------------------------------------------------------- */

static size_t buffer_size(const struct file_mem *m)
{
    const struct conf_bufs *bufs = &m->r->loc->core->output_buffers;

    return MIN(MAX(bufs->size, (size_t) 4096), (size_t) (BLOCK_LARGE - 3 * ALIGNMENT));
}

static size_t window(const struct file_mem *m)
{
    return buffer_size(m) * MAX(m->r->loc->core->output_buffers.count, 1u);
}

/*
 * One read of the first held piece. With direct I/O, offset, length and memory are widened to the
 * alignment; *skip says where the wanted bytes begin.
 */
static void plan_read(const struct file_mem *m, struct read_task *t, size_t *skip)
{
    const struct piece *p = m->held.first;
    size_t want = (size_t) MIN(p->len, (uint64_t) buffer_size(m));
    uintptr_t at;

    *skip = 0;
    t->file = p->file.file;
    t->offset = p->file.offset;
    t->len = want;
    t->block = block_new(BLOCK_LARGE);
    t->at = t->block->data;
    if (!m->direct)
        return;
    *skip = (size_t) (t->offset & (ALIGNMENT - 1));
    t->offset -= (off_t) *skip;
    t->len = (*skip + want + ALIGNMENT - 1) & ~(size_t) (ALIGNMENT - 1);
    at = ((uintptr_t) t->at + ALIGNMENT - 1) & ~(uintptr_t) (ALIGNMENT - 1);
    t->at = (char *) at;
}

static void do_read(struct read_task *t)
{
    do
        t->result = pread(t->file->fd, t->at, t->len, t->offset);
    while (t->result < 0 && errno == EINTR);
    if (t->result < 0 && errno == EINVAL) {
        /* The file system is choosier than it said: go on without direct I/O. */
        int flags = fcntl(t->file->fd, F_GETFL);

        if (flags >= 0 && (flags & O_DIRECT)
            && fcntl(t->file->fd, F_SETFL, flags & ~O_DIRECT) == 0)
            t->result = pread(t->file->fd, t->at, t->len, t->offset);
    }
    t->err = t->result < 0 ? errno : 0;
}

/* Puts what was read behind `out`. 0, or -1: logged. Takes over the block. */
static int take_read(struct file_mem *m, struct read_task *t, size_t skip, struct chain *out)
{
    uint64_t want = m->held.first->len;
    size_t n;

    if (t->result <= (ssize_t) skip) {
        if (t->result < 0)
            log_crit(&m->r->log, t->err, "pread() failed");
        else
            log_alert(&m->r->log, 0, "the file was truncated while it was sent");
        block_unref(t->block);
        return -1;
    }
    n = (size_t) MIN((uint64_t) t->result - skip, want);
    chain_push_mem(out, t->block, t->at + skip, n);
    block_unref(t->block);
    chain_consume(&m->held, n);
    return 0;
}

/* Waiting ------------------------------------------------------------------------------------- */

static void cancel(struct wait *w)
{
    struct file_mem *m = container_of(w, struct file_mem, wait);

    loop_later_cancel(&m->later);
    if (m->task != NULL)
        m->task->owner = NULL;
    m->task = NULL;
    chain_clear(&m->held);
}

/* Runs the filters again: this one goes on where it stopped. */
static void go_on(struct file_mem *m)
{
    wait_end(&m->wait);
    m->waiting = m->paused = false;
    answer_go_on(m->r);
}

/* What a later filter keeps while it waits is no output yet: it would be given the whole file. */
static bool enough(const struct file_mem *m)
{
    return answer_full(m->r, window(m)) || answer_waits_behind(m->r, FILTER_FILE_TO_MEM);
}

static void later_run(struct later *later)
{
    struct file_mem *m = container_of(later, struct file_mem, later);

    if (enough(m))
        m->paused = true;
    else
        go_on(m);
}

static void file_mem_drained(struct req *r, void *ctx)
{
    struct file_mem *m = ctx;

    (void) r;
    if (m->paused && !enough(m))
        go_on(m);
}

static void begin_wait(struct file_mem *m)
{
    m->waiting = true;
    wait_begin(m->r, &m->wait, cancel);
}

/* Output has to drain first; where it has already, the next turn goes on. */
static void wait_for_output(struct file_mem *m)
{
    begin_wait(m);
    if (enough(m))
        m->paused = true;
    else
        loop_later(&m->later);
}

static void task_work(struct thread_task *task)
{
    do_read(container_of(task, struct read_task, task));
}

static void task_done(struct thread_task *task)
{
    struct read_task *t = container_of(task, struct read_task, task);
    struct file_mem *m = t->owner;

    if (m == NULL)
        block_unref(t->block);
    chain_file_unref(t->file);
    if (m != NULL)
        go_on(m); /* takes the result and the task */
    else
        free(t);
}

static struct thread_pool *pool_of(const struct core_loc *core)
{
    struct res_pool *p = core->aio_pool;

    if (p->pool == NULL)
        p->pool = thread_pool_new(p->name, p->threads ? p->threads : POOL_THREADS,
                                  p->max_queue ? p->max_queue : POOL_QUEUE);
    return p->pool;
}

/* Starts a read in a thread. False: none could be had, read here. */
static bool post_read(struct file_mem *m, const struct read_task *plan)
{
    struct thread_pool *pool = req_explained() ? NULL : pool_of(m->r->loc->core);
    struct read_task *t;

    if (pool == NULL)
        return false;
    t = mem_alloc(sizeof(*t));
    *t = *plan;
    t->task = (struct thread_task){ .work = task_work, .done = task_done };
    t->owner = m;
    t->file->refs++;
    if (thread_pool_post(pool, &t->task) != 0) {
        log_error(&m->r->log, errno, "thread pool \"%.*s\" queue overflow",
                  STR_ARG(m->r->loc->core->aio_pool->name));
        t->file->refs--;
        free(t);
        return false;
    }
    m->task = t;
    begin_wait(m);
    return true;
}

/* The filter ---------------------------------------------------------------------------------- */

/* What a thread has brought. 1: taken, 0: nothing was under way, -1: failed. */
static int take_task(struct file_mem *m, struct chain *out)
{
    struct read_task *t = m->task;
    size_t skip = 0;
    int rc;

    if (t == NULL)
        return 0;
    m->task = NULL;
    if (m->direct)
        skip = (size_t) (m->held.first->file.offset & (ALIGNMENT - 1));
    rc = take_read(m, t, skip, out);
    free(t);
    return rc == 0 ? 1 : -1;
}

/* Moves what needs no reading, reads what does, up to the window. */
static enum verdict advance(struct file_mem *m, struct chain *out)
{
    struct req *r = m->r;

    while (m->held.first != NULL) {
        struct read_task t;
        size_t skip;

        if (m->held.first->kind != PIECE_FILE) {
            struct chain one = CHAIN_INIT;

            if (m->held.first->kind == PIECE_LINK) {
                chain_push_link(&one, m->held.first->link);
                chain_drop_link(&m->held);
            } else {
                chain_take(&one, &m->held, m->held.first->len);
            }
            chain_append(out, &one);
            continue;
        }
        if (out->bytes + answer_buffered(r) >= window(m)
            || answer_waits_behind(r, FILTER_FILE_TO_MEM))
            return wait_for_output(m), V_WAIT;
        plan_read(m, &t, &skip);
        if (m->threads && post_read(m, &t))
            return V_WAIT;
        do_read(&t);
        if (take_read(m, &t, skip, out) != 0)
            return V_ABORT;
    }
    return V_NEXT;
}

static enum verdict file_mem_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct file_mem *m = ctx;
    struct chain out = CHAIN_INIT;
    enum verdict v;

    chain_append(&m->held, chain);
    m->flags |= *flags;
    *flags &= BODY_FLUSH;
    if (m->waiting)
        return V_WAIT;
    if (m->held.first == NULL && m->task == NULL) {
        *flags |= m->flags;
        m->flags = 0;
        return V_NEXT;
    }
    v = take_task(m, &out) < 0 ? V_ABORT : advance(m, &out);
    if (v == V_ABORT) {
        chain_clear(&out);
        chain_clear(&m->held);
        return V_ABORT;
    }
    chain_append(chain, &out);
    if (v == V_NEXT) {
        *flags |= m->flags;
        m->flags = 0;
    } else if (!chain_empty(chain)) {
        *flags |= BODY_FLUSH;
    }
    (void) r;
    return v;
}

static void release(void *arg)
{
    struct file_mem *m = arg;

    chain_clear(&m->held);
}

static enum head_verdict file_mem_head(struct req *r, void **ctx)
{
    const struct core_loc *core = r->loc->core;
    bool direct = req_ctx(r, file_mem_slot) != NULL;
    bool memory = r->in_memory || r->main->merged_in_memory;
    struct file_mem *m;

    if (r->header_only || (r != r->main && !memory))
        return HEAD_PASS;
    if (core->sendfile && !direct && !memory && core->aio != AIO_THREADS)
        return HEAD_PASS;
    m = ARENA_NEW(r->arena, struct file_mem);
    m->r = r;
    m->direct = direct;
    m->threads = core->aio == AIO_THREADS && r == r->main;
    m->later.run = later_run;
    arena_defer(r->arena, release, m);
    *ctx = m;
    return HEAD_TAKE;
}

static bool file_mem_wanted(const struct level *level)
{
    const struct core_loc *core = level_core(level);

    /* The engine adds it where a filter needs bytes in memory. */
    return !core->sendfile || core->aio == AIO_THREADS || core->directio != UINT64_MAX;
}

/* Threads have nothing to do any more: no request is left. */
static void file_mem_stop(const struct config *config)
{
    struct list *pools = &config->resources->pools;

    for (struct list *l = pools->next; l != pools; l = l->next) {
        struct res_pool *p = container_of(l, struct res_pool, link);

        if (p->pool != NULL)
            thread_pool_free(p->pool);
        p->pool = NULL;
    }
}

static const struct filter filters[] = {
    { .rank = FILTER_FILE_TO_MEM, .head = file_mem_head, .body = file_mem_body,
      .drained = file_mem_drained, .wanted = file_mem_wanted, .after = true },
    FILTER_END,
};

static const struct http_module http_file_mem = { .filters = filters };

const struct module module_http_file_mem = {
    .name = "http_file_mem",
    .slot = &file_mem_slot,
    .http = &http_file_mem,
    .worker_stop = file_mem_stop,
};
