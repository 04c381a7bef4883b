/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's life: privileges, modules, listeners, the loop, draining, the end. Signals and the
 * master's death come through the loop. Nothing here knows what is served: that is what the
 * modules and res_listen.accept are for.
 */
#include "workers/worker.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/config/counters.h"
#include "core/config/resource.h"
#include "core/event/splice.h"
#include "core/os/instance.h"
#include "core/os/process.h"
#include "workers/cycle.h"
#include "workers/listen.h"
#include "workers/privileges.h"
#include "workers/settings.h"
#include "workers/signals.h"

#define FULL_COMPLAINT_MS 1000 /* at most one line on worker_connections per second */
#define FAREWELL_MS 1000 /* for clients to answer a goodbye */

/* A socket that this worker accepts from. The listener's owner is the res_listen's. */
struct worker_listener {
    struct listener listener;
    struct res_listen *res;
    struct worker_listener *next;
    struct timer close; /* of surplus */
    int fd;
};

static struct {
    const struct worker *worker;
    const struct events_conf *events;
    struct worker_listener *listeners;
    struct watch signals;
    struct watch channel;
    struct timer shutdown;
    struct timer tick;
    struct log_scope debug_scope; /* main's targets, at level debug */
    unsigned limit;               /* worker_connections */
    uint64_t complained_ms;
    bool full, draining, stopping, reopen, overdue;
    bool parting, parted;         /* the last moment: it runs; it is over */
} self;

/* Connections ------------------------------------------------------------------------------ */

/* Called once a turn: the limit is on all connections, those to upstreams included. */
static void watch_limit(void)
{
    bool full = conn_count >= self.limit;

    if (likely(full == self.full) || self.draining)
        return;
    self.full = full;
    for (struct worker_listener *l = self.listeners; l; l = l->next) {
        if (l->fd < 0)
            continue;
        if (full)
            listener_pause(&l->listener);
        else
            listener_resume(&l->listener);
    }
    if (!full || (self.complained_ms && clock_ms() - self.complained_ms < FULL_COMPLAINT_MS))
        return;
    self.complained_ms = clock_ms();
    log_alert(log_main, 0, "%u worker_connections are not enough", self.limit);
}

/* A sixteenth of the connections is kept free, at the cost of those that only rest. */
static void make_room(void)
{
    const struct config *config = self.worker->config;
    unsigned want = MAX(1, MIN(32, self.limit / 64)), closed = 0;

    for (unsigned i = 0; i < module_count && closed < want; i++) {
        if (modules[i]->worker_shed)
            closed += modules[i]->worker_shed(config, want - closed);
    }
    if (closed == 0 || (self.complained_ms && clock_ms() - self.complained_ms < FULL_COMPLAINT_MS))
        return;
    self.complained_ms = clock_ms();
    log_warn(log_main, 0, "%u worker_connections are not enough, reusing connections", self.limit);
}

static void worker_accept(struct listener *l, struct conn *c)
{
    const struct res_listen *res = container_of(l, struct worker_listener, listener)->res;

    if (unlikely(conn_count > self.limit - self.limit / 16))
        make_room();
    if (unlikely(conn_count >= self.limit))
        watch_limit();
    if (unlikely(self.events->debug_count || self.events->debug_unix) &&
        events_debug_peer(self.events, &c->peer.sa))
        c->log.scope = &self.debug_scope;
    res->accept(l, c);
}

static void listener_close(struct worker_listener *l)
{
    if (l->fd < 0)
        return;
    timer_drop(&l->close);
    listener_stop(&l->listener);
    close(l->fd);
    l->fd = -1;
}

static void surplus_over(struct timer *timer)
{
    listener_close(container_of(timer, struct worker_listener, close));
}

static void listener_add(struct res_listen *res, const struct socket_group *group, int fd,
                         bool surplus, void *failed)
{
    struct worker_listener *l = mem_zalloc(sizeof(*l));

    l->fd = fd;
    l->close = (struct timer){ .deadline_ms = TIMER_OFF, .fire = surplus_over };
    l->res = res;
    l->listener.owner = res->owner;
    l->listener.burst = self.events->multi_accept ? UINT32_MAX : 1;
    l->listener.accept = worker_accept;
    l->next = self.listeners;
    self.listeners = l;
    if (listener_start(&l->listener, fd)) {
        log_emerg(log_main, errno, "epoll_ctl() for %s failed", group->text);
        *(bool *) failed = true;
        return;
    }
    if (surplus)
        timer_set(&l->close, group->surplus_until_ms - MIN(clock_ms(), group->surplus_until_ms));
}

/* The end --------------------------------------------------------------------------------- */

static void shutdown_overdue(struct timer *timer UNUSED)
{
    self.parted = self.parting;
    self.overdue = true;
}

static void drain(void)
{
    const struct core_conf *core = core_settings(self.worker->config);

    if (self.draining || self.stopping)
        return;
    self.draining = true;
    log_notice(log_main, 0, "gracefully shutting down");
    process_title(self.worker->single ? "proxyd: process is shutting down"
                                      : "proxyd: worker process is shutting down");
    for (struct worker_listener *l = self.listeners; l; l = l->next)
        listener_close(l);
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->worker_drain)
            modules[i]->worker_drain(self.worker->config);
    }
    if (core->shutdown_timeout_ms)
        timer_set(&self.shutdown, core->shutdown_timeout_ms);
}

static void master_gone(struct watch *watch, uint32_t events UNUSED)
{
    char byte;
    ssize_t n = recv(watch->fd, &byte, 1, MSG_DONTWAIT);

    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    loop_unwatch(watch);
    log_alert(log_main, 0, "the master process has gone, shutting down");
    drain();
}

static void got_signal(const struct signal_event *event)
{
    bool told = self.worker->single || event->sender != getppid();

    switch (event->number) {
    case SIGTERM:
    case SIGINT:
        if (told)
            signal_log(event, ", exiting");
        self.stopping = true;
        break;
    case SIGQUIT:
    case SIGWINCH:
        if (event->number == SIGWINCH && self.worker->single)
            break;
        if (told)
            signal_log(event, ", shutting down");
        drain();
        break;
    case SIGUSR1:
        if (told)
            signal_log(event, ", reopening logs");
        self.reopen = true;
        break;
    case SIGHUP:
        if (self.worker->single)
            log_warn(log_main, 0, "reconfiguration needs a master process, SIGHUP is ignored");
        break;
    default:
        break;
    }
}

static void signals_ready(struct watch *watch UNUSED, uint32_t events UNUSED)
{
    struct signal_event event;

    while (signals_next(&event))
        got_signal(&event);
}

/* Start ----------------------------------------------------------------------------------- */

static void debug_targets(const struct config *config)
{
    struct log_target **end = &self.debug_scope.targets;

    self.debug_scope.max = LOG_DEBUG_LEVEL;
    for (const struct log_target *t = config->log.targets; t; t = t->next) {
        struct log_target *copy = ARENA_NEW(config->arena, struct log_target);

        *copy = (struct log_target){ LOG_DEBUG_LEVEL, t->file, NULL };
        *end = copy;
        end = &copy->next;
    }
}

/* Without a master its work is this process's. */
static void tick(struct timer *timer)
{
    uint64_t next = cycle_tick(self.worker->config);

    if (next != UINT64_MAX)
        timer_set(timer, next);
}

static int watch_descriptors(int signal_fd)
{
    self.signals = (struct watch){ signal_fd, signals_ready };
    self.channel = (struct watch){ self.worker->channel, master_gone };
    if (loop_watch(&self.signals, EPOLLIN) ||
        (self.channel.fd >= 0 && loop_watch(&self.channel, EPOLLIN | EPOLLRDHUP))) {
        log_emerg(log_main, errno, "epoll_ctl() failed");
        return -1;
    }
    return 0;
}

static int start_modules(void)
{
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->worker_start && modules[i]->worker_start(self.worker->config)) {
            log_emerg(log_main, 0, "module \"%s\" could not start", modules[i]->name);
            return -1;
        }
    }
    return 0;
}

static int prepare_modules(void)
{
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->worker_prepare && modules[i]->worker_prepare(self.worker->config))
            return -1;
    }
    return 0;
}

static int worker_start(const struct worker *worker)
{
    bool failed = false;
    int signal_fd;

    self.worker = worker;
    self.events = events_settings(worker->config);
    self.limit = (unsigned) self.events->connections;
    self.shutdown = (struct timer){ .deadline_ms = TIMER_OFF, .fire = shutdown_overdue };
    zone_set_worker(worker->slot);
    instance.worker = worker->index;
    signal_fd = signals_init();
    if (signal_fd < 0)
        return -1;
    if (prepare_modules())
        return -1;
    if (worker->single) {
        process_title("proxyd: single process");
    } else {
        process_title("proxyd: worker process");
        if (privileges_apply(worker->config, worker->index))
            return -1;
    }
    if (loop_init(self.events->epoll_events > 0 ? (unsigned) self.events->epoll_events : 512)) {
        log_emerg(log_main, errno, "epoll_create1() failed");
        return -1;
    }
    debug_targets(worker->config);
    counters_start(worker->config);
    if (watch_descriptors(signal_fd) || start_modules())
        return -1;
    self.tick = (struct timer){ .deadline_ms = TIMER_OFF, .fire = tick };
    if (worker->single)
        tick(&self.tick);
    listen_each(worker->config, worker->index, listener_add, &failed);
    return failed ? -1 : 0;
}

static void worker_end(void)
{
    struct config *config = self.worker->config;

    for (struct worker_listener *l = self.listeners; l; l = l->next)
        listener_close(l);
    for (unsigned i = module_count; i-- > 0;) {
        if (modules[i]->worker_stop)
            modules[i]->worker_stop(config);
    }
    logs_flush(config);
    timer_drop(&self.shutdown);
    timer_drop(&self.tick);
    while (self.listeners) {
        struct worker_listener *l = self.listeners;

        self.listeners = l->next;
        free(l);
    }
    loop_free();
    conn_trim();
    splice_trim();
    arena_trim();
    block_trim();
}

/* worker_shutdown_timeout is over: those who can say goodbye do, and have a moment for the answer. */
static bool say_goodbye(void)
{
    bool waiting = false;

    if (!self.parting) {
        self.parting = true;
        log_notice(log_main, 0, "worker_shutdown_timeout is over, closing %u connections",
                   conn_count);
        timer_set(&self.shutdown, FAREWELL_MS);
    }
    if (self.parted)
        return false;
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->worker_part)
            waiting |= modules[i]->worker_part(self.worker->config);
    }
    return waiting;
}

static bool serving(void)
{
    if (self.stopping)
        return false;
    if (!self.draining)
        return true;
    if (self.overdue)
        return say_goodbye();
    return conn_count > 0;
}

int worker_run(const struct worker *worker)
{
    if (worker_start(worker))
        return WORKER_EXIT_FAILED;
    while (serving()) {
        loop_turn(UINT64_MAX);
        watch_limit();
        if (self.reopen) {
            self.reopen = false;
            log_notice(log_main, 0, "reopening logs");
            logs_reopen(worker->config, worker->single);
        }
    }
    log_notice(log_main, 0, "exiting");
    worker_end();
    log_notice(log_main, 0, "exit");
    return WORKER_EXIT_OK;
}
