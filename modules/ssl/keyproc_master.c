/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's part of the key process: one for each configuration that is in force or has workers left. Each worker gets a socket pair
 * when it is forked. Its own end is its alone; the other one goes to the process, and the master keeps it too, so
 * that a successor of the process finds it as it was left.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/list.h"
#include "core/module.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/watch.h"

#define YOUNG_MS 1000
#define PAUSE_MS 1000 /* after one that died young */
#define STOP_MS 1000
#define STOP_STEP_MS 2

struct end {
    unsigned slot;
    int fd;
};

struct process {
    struct list link;
    const struct config *config; /* NULL: closed, it is to end */
    pid_t pid;                   /* 0: none at present */
    pid_t parent; /* who has started it: not the master, if that went into the background later */
    int control;  /* -1: none */
    uint64_t instance;
    struct end *ends; /* its ends of the sockets of living workers */
    unsigned count, capacity;
    uint64_t started_ms, start_at_ms;
};

static struct list processes = { &processes, &processes };
static int worker_end = -1; /* of the worker that is being forked */
static uint64_t instances;

#define EACH_PROCESS(p)                                                                  \
    for (struct list *p##_l = processes.next, *p##_n = p##_l->next;                      \
         p##_l != &processes && ((p) = container_of(p##_l, struct process, link), true); \
         p##_l = p##_n, p##_n = p##_l->next)

static struct process *process_of(const struct config *config)
{
    struct process *p;

    EACH_PROCESS(p)
    {
        if (p->config == config)
            return p;
    }
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Starting ----------------------------------------------------------------------------------- */

static void NORETURN become_process(const struct process *p, int control, bool first)
{
    int *fds = mem_alloc(MAX(p->count, 1u) * sizeof(*fds));
    struct keyproc_start start = {
        .config = p->config, .control = control, .workers = fds, .count = p->count, .first = first
    };

    for (unsigned i = 0; i < p->count; i++)
        fds[i] = p->ends[i].fd;
    keyproc_serve(&start);
}

/* 0, or -1: none could be started. */
static int start(struct process *p, bool first)
{
    int ends[2];

    p->start_at_ms = UINT64_MAX;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        log_alert(log_main, errno, "socketpair() failed while starting the key process");
        return -1;
    }
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0)
        become_process(p, ends[1], first);
    close(ends[1]);
    if (p->pid < 0) {
        log_alert(log_main, errno, "fork() failed while starting the key process");
        close(ends[0]);
        p->pid = 0;
        return -1;
    }
    p->parent = getpid();
    p->control = ends[0];
    p->instance = ++instances;
    p->started_ms = clock_ms();
    log_notice(log_main, 0, "start key process %d", (int) p->pid);
    return 0;
}

/* Until it has read its keys. 0, or -1: it has ended, and said why. */
static int wait_ready(const struct process *p)
{
    char byte;
    ssize_t n;

    do
        n = recv(p->control, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : -1;
}

static void process_free(struct process *p)
{
    list_remove(&p->link);
    close_fd(&p->control);
    for (unsigned i = 0; i < p->count; i++)
        close(p->ends[i].fd);
    free(p->ends);
    free(p);
}

static int check(const struct config *config, const struct keyproc_conf *c, uid_t workers,
                 bool alone)
{
    if (alone) {
        log_emerg(log_main, 0, "\"ssl_key_process\" needs \"master_process on\" in %s:%u",
                  c->pos.file, c->pos.line);
    } else if (geteuid() == 0 && c->uid == workers) {
        log_emerg(log_main, 0,
                  "the key process has the workers' user \"%s\", name another one by "
                  "\"ssl_key_process_user\" in %s:%u",
                  c->user, c->pos.file, c->pos.line);
    } else {
        return 0;
    }
    if (config->details != NULL)
        conf_show_source(config, config->details, c->pos, NULL);
    return -1;
}

static void keyproc_close(const struct config *config);

static int keyproc_open(const struct config *config, uid_t workers, bool alone)
{
    const struct keyproc_conf *c = keyproc_conf_of(config);
    struct process *p;

    if (!c->on)
        return 0;
    if (check(config, c, workers, alone) != 0)
        return -1;
    if (config->testing)
        return 0;
    if (config->old != NULL && !keyproc_conf_of(config->old)->on)
        log_warn(
            log_main, 0,
            "the master has read keys for the old configuration: \"ssl_key_process\" protects those "
            "only after a restart");
    p = mem_zalloc(sizeof(*p));
    p->config = config;
    p->control = -1;
    list_push_back(&processes, &p->link);
    if (start(p, true) == 0 && wait_ready(p) == 0)
        return 0;
    keyproc_close(config);
    return -1;
}

/* Ending ------------------------------------------------------------------------------------- */

/* It sees that its socket has been closed, and ends. */
static void keyproc_close(const struct config *config)
{
    struct process *p = process_of(config);

    if (p == NULL)
        return;
    p->config = NULL;
    p->start_at_ms = UINT64_MAX;
    close_fd(&p->control);
    if (p->pid == 0 || p->parent != getpid())
        process_free(p);
}

static bool keyproc_reaped(pid_t pid, int status)
{
    struct process *p, *found = NULL;

    EACH_PROCESS(p)
    {
        if (p->pid == pid && p->parent == getpid())
            found = p;
    }
    if (found == NULL)
        return false;
    if (WIFSIGNALED(status))
        log_alert(log_main, 0, "key process %d exited on signal %d", (int) pid, WTERMSIG(status));
    else
        log_notice(log_main, 0, "key process %d exited with code %d", (int) pid,
                   WEXITSTATUS(status));
    found->pid = 0;
    close_fd(&found->control);
    if (found->config == NULL) {
        process_free(found);
        return true;
    }
    clock_update();
    found->start_at_ms = clock_ms();
    if (clock_ms() - found->started_ms < YOUNG_MS)
        found->start_at_ms += PAUSE_MS;
    return true;
}

static uint64_t keyproc_tick(void)
{
    uint64_t next = UINT64_MAX;
    struct process *p;

    EACH_PROCESS(p)
    {
        if (p->start_at_ms == UINT64_MAX)
            continue;
        if (p->start_at_ms <= clock_ms() && start(p, false) != 0)
            p->start_at_ms = clock_ms() + PAUSE_MS;
        if (p->start_at_ms != UINT64_MAX)
            next = MIN(next, p->start_at_ms - clock_ms());
    }
    return next;
}

static void keyproc_stop(void)
{
    const struct timespec step = { .tv_nsec = STOP_STEP_MS * 1000000L };
    struct process *p;

    EACH_PROCESS(p)
    close_fd(&p->control);
    EACH_PROCESS(p)
    {
        bool ours = p->pid > 0 && p->parent == getpid();

        for (unsigned i = 0; ours && waitpid(p->pid, NULL, WNOHANG) == 0; i++) {
            if (i == STOP_MS / STOP_STEP_MS)
                kill(p->pid, SIGKILL);
            nanosleep(&step, NULL);
        }
        process_free(p);
    }
}

/* Orders and reports -------------------------------------------------------------------------- */

/* fd -1: none. 0, or -1 with errno. */
static int order(const struct process *p, const struct keyproc_order *what,
                 const unsigned char *bytes, int fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } space;
    struct iovec iov[] = { { (void *) (uintptr_t) what, sizeof(*what) },
                           { (void *) (uintptr_t) bytes, what->len } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = ARRAY_LEN(iov) };
    struct cmsghdr *c;

    if (fd >= 0) {
        memset(&space, 0, sizeof(space));
        msg.msg_control = &space;
        msg.msg_controllen = sizeof(space);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    return sendmsg(p->control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ? 0 : -1;
}

static struct process *live_process_of(const struct config *config)
{
    struct process *p = process_of(config);

    return p != NULL && p->pid > 0 && p->parent == getpid() && p->control >= 0 ? p : NULL;
}

uint64_t keyproc_instance(const struct config *config)
{
    const struct process *p = live_process_of(config);

    return p != NULL ? p->instance : 0;
}

int keyproc_send(const struct config *config, const struct keyproc_order *what,
                 const unsigned char *bytes, int fd)
{
    const struct process *p = live_process_of(config);

    return p != NULL ? order(p, what, bytes, fd) : -1;
}

bool keyproc_next_report(const struct config *config, struct keyproc_report *report)
{
    const struct process *p = live_process_of(config);
    ssize_t n;

    /* What is shorter says that it has read its keys. */
    while (p != NULL && (n = recv(p->control, report, sizeof(*report), MSG_DONTWAIT)) > 0) {
        report->why[sizeof(report->why) - 1] = '\0';
        if ((size_t) n == sizeof(*report))
            return true;
    }
    return false;
}

/* Workers ------------------------------------------------------------------------------------ */

/* The master has gone into the background since: the process is to be a child of this one, which learns of its end. */
static int adopt(struct process *p)
{
    if (p->pid == 0 || p->parent == getpid())
        return 0;
    close_fd(&p->control);
    p->pid = 0;
    if (start(p, false) == 0 && wait_ready(p) == 0)
        return 0;
    return -1;
}

static int keyproc_worker_begin(const struct config *config, unsigned slot)
{
    const struct keyproc_order worker = { .what = KEYPROC_WORKER };
    struct process *p = process_of(config);
    int ends[2];

    if (p == NULL)
        return 0;
    if (adopt(p) != 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        log_alert(log_main, errno, "socketpair() failed while starting a worker process");
        return -1;
    }
    /* If it has just died, the next one inherits the socket. */
    if (p->pid > 0 && order(p, &worker, NULL, ends[0]) != 0 && errno != EPIPE &&
        errno != ECONNRESET) {
        log_alert(log_main, errno,
                  "sendmsg() to the key process failed while starting a worker process");
        close(ends[0]);
        close(ends[1]);
        return -1;
    }
    if (p->count == p->capacity) {
        p->capacity = MAX(p->capacity * 2, 8u);
        p->ends = mem_realloc(p->ends, p->capacity * sizeof(*p->ends));
    }
    p->ends[p->count++] = (struct end){ slot, ends[0] };
    worker_end = ends[1];
    return 0;
}

static void keyproc_worker_ended(const struct config *config, unsigned slot)
{
    struct process *p = process_of(config);

    close_fd(&worker_end);
    for (unsigned i = 0; p != NULL && i < p->count; i++) {
        if (p->ends[i].slot != slot)
            continue;
        close(p->ends[i].fd);
        p->ends[i] = p->ends[--p->count];
        return;
    }
}

/* A worker has nothing of the master's: no other worker's socket, no password, and no say in what is published. */
static void become_worker(void)
{
    struct process *p;

    EACH_PROCESS(p)
    {
        if (p->config != NULL)
            keyproc_wipe(p->config, false);
        process_free(p);
    }
    ssl_watch_forked();
    if (worker_end >= 0)
        keyproc_client_init(worker_end);
    worker_end = -1;
}

static void keyproc_worker_forked(const struct config *config UNUSED, unsigned slot UNUSED,
                                  bool child)
{
    if (child)
        become_worker();
    else
        close_fd(&worker_end);
}

static void keyproc_logs_reopened(const struct config *config)
{
    const struct process *p = process_of(config);
    struct keyproc_order log = { .what = KEYPROC_LOG };

    if (p == NULL || p->control < 0)
        return;
    for (const struct log_target *t = config->log.targets; t != NULL; t = t->next, log.number++) {
        if (t->file->fd >= 0 && !t->file->is_stderr && t->file->path.len > 0)
            order(p, &log, NULL, t->file->fd);
    }
}

const struct module_processes keyproc_processes = {
    .open = keyproc_open,
    .close = keyproc_close,
    .worker_begin = keyproc_worker_begin,
    .worker_forked = keyproc_worker_forked,
    .worker_ended = keyproc_worker_ended,
    .logs_reopened = keyproc_logs_reopened,
    .reaped = keyproc_reaped,
    .tick = keyproc_tick,
    .stop = keyproc_stop,
};
