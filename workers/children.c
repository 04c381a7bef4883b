/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's book of workers. Each has an index within its generation, which says whose sockets
 * it has, and a slot, which is its own among all that live, draining ones included, so that what
 * its slot counts in zones is given back once, when it has ended.
 *
 * A worker that ends without having been told to is started again at once; if it keeps dying within
 * a second of its start, after a pause, so that a broken configuration does not eat the machine.
 */
#include "workers/children.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/config/resource.h"
#include "core/os/instance.h"
#include "workers/cycle.h"
#include "workers/helpers.h"
#include "workers/listen.h"
#include "workers/settings.h"
#include "workers/upgrade.h"
#include "workers/worker.h"

#define YOUNG_MS 1000   /* who dies younger than this died young */
#define YOUNG_DEATHS 5  /* in a row, before there is a pause, the longer the more follow */
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 1000

#define SLOTS (ZONE_WORKERS / 2)

struct generation {
    struct list link;
    struct config *config;
    unsigned count;          /* workers it should have */
    unsigned alive;
    struct {
        unsigned young_deaths;
        uint64_t start_at_ms; /* UINT64_MAX: nothing to start */
    } *places;               /* by index */
};

struct child {
    struct list link;
    struct generation *generation;
    pid_t pid;
    unsigned index, slot;
    int channel;             /* our end: closed when we die */
    uint64_t started_ms;
    bool told;               /* to end */
};

static struct list children = { &children, &children };
static struct list generations = { &generations, &generations };
static struct generation *current;
static bool used[SLOTS];
static bool respawn;

#define EACH_CHILD(c) \
    for (struct list *c##_l = children.next, *c##_n = c##_l->next; \
         c##_l != &children && (c = container_of(c##_l, struct child, link), true); \
         c##_l = c##_n, c##_n = c##_l->next)

unsigned children_count(void)
{
    unsigned n = 0;

    for (struct list *l = children.next; l != &children; l = l->next)
        n++;
    return n;
}

struct config *children_config(void)
{
    return current->config;
}

/* The lowest free one; -1: all are taken. */
static int slot_take(void)
{
    for (int i = 0; i < SLOTS; i++) {
        if (!used[i]) {
            used[i] = true;
            return i;
        }
    }
    return -1;
}

static unsigned slot_number(unsigned slot)
{
    return upgrade_half() * SLOTS + slot;
}

/* In the new process. */
static void NORETURN become_worker(const struct child *self, int channel)
{
    struct worker worker = {
        .config = self->generation->config,
        .index = self->index,
        .slot = slot_number(self->slot),
        .channel = channel,
    };
    struct child *other;

    /* Whoever holds the master's end of a channel keeps its worker from seeing the master die. */
    EACH_CHILD(other) {
        if (other->channel >= 0)
            close(other->channel);
    }
    close(self->channel);
    helpers_worker_forked(self->generation->config, self->slot, true);
    listen_keep(self->index);
    exit(worker_run(&worker));
}

static int child_start(struct generation *generation, unsigned index)
{
    struct child *child;
    int ends[2];
    int slot = slot_take();

    if (slot < 0) {
        log_alert(log_main, 0, "no more than %d worker processes can be alive", SLOTS);
        return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
        log_alert(log_main, errno, "socketpair() failed while starting a worker process");
        used[slot] = false;
        return -1;
    }
    if (helpers_worker_begin(generation->config, (unsigned) slot)) {
        close(ends[0]);
        close(ends[1]);
        used[slot] = false;
        return -1;
    }
    child = mem_zalloc(sizeof(*child));
    child->generation = generation;
    child->index = index;
    child->slot = (unsigned) slot;
    child->channel = ends[0];
    child->started_ms = clock_ms();
    fflush(NULL);
    child->pid = fork();
    if (child->pid == 0) {
        close(ends[0]);
        child->channel = -1;
        become_worker(child, ends[1]);
    }
    close(ends[1]);
    if (child->pid < 0) {
        log_alert(log_main, errno, "fork() failed while starting a worker process");
        close(ends[0]);
        helpers_worker_ended(generation->config, child->slot);
        used[slot] = false;
        free(child);
        return -1;
    }
    helpers_worker_forked(generation->config, child->slot, false);
    log_notice(log_main, 0, "start worker process %d", (int) child->pid);
    list_push_back(&children, &child->link);
    generation->alive++;
    return 0;
}

static void generation_free(struct generation *g)
{
    list_remove(&g->link);
    cycle_free(g->config);
    free(g->places);
    free(g);
}

static void place_start(struct generation *g, unsigned index)
{
    g->places[index].start_at_ms = UINT64_MAX;
    if (child_start(g, index))
        g->places[index].start_at_ms = clock_ms() + PAUSE_MAX_MS;
}

void children_start(struct config *config)
{
    struct generation *g = current;
    struct generation *old = current;

    clock_update();
    if (!g || g->config != config) {
        g = mem_zalloc(sizeof(*g));
        g->config = config;
        g->count = core_settings(config)->workers;
        g->places = mem_zalloc(g->count * sizeof(*g->places));
        list_push_back(&generations, &g->link);
        current = g;
    }
    respawn = true;
    log_notice(log_main, 0, "start worker processes");
    for (unsigned i = 0; i < g->count; i++)
        place_start(g, i);
    if (old && old != g && old->alive == 0)
        generation_free(old);
}

static void tell(struct child *child, int number)
{
    if (number != SIGUSR1)
        child->told = true;
    if (kill(child->pid, number) && errno != ESRCH)
        log_alert(log_main, errno, "kill(%d, %d) failed", (int) child->pid, number);
}

void children_drain(bool all)
{
    struct child *child;

    EACH_CHILD(child) {
        if ((all || child->generation != current) && !child->told)
            tell(child, SIGQUIT);
    }
}

void children_signal(int number)
{
    struct child *child;

    EACH_CHILD(child)
        tell(child, number);
}

void children_stop_respawn(void)
{
    respawn = false;
}

static void log_end(pid_t pid, int status)
{
    if (WIFSIGNALED(status))
        log_alert(log_main, 0, "worker process %d exited on signal %d%s", (int) pid,
                  WTERMSIG(status), WCOREDUMP(status) ? " (core dumped)" : "");
    else
        log_notice(log_main, 0, "worker process %d exited with code %d", (int) pid,
                   WEXITSTATUS(status));
}

/* The successor of a worker that ended by itself. */
static void succeed(const struct child *child)
{
    struct generation *g = child->generation;
    bool young = clock_ms() - child->started_ms < YOUNG_MS;
    unsigned deaths, pause;

    if (!respawn || child->told || g != current)
        return;
    instance_respawned();
    deaths = young ? g->places[child->index].young_deaths + 1 : 0;
    g->places[child->index].young_deaths = deaths;
    if (deaths >= YOUNG_DEATHS) {
        pause = MIN(PAUSE_MIN_MS << MIN(deaths - YOUNG_DEATHS, 10u), PAUSE_MAX_MS);
        log_error(log_main, 0, "worker process %d died soon after its start, as others before "
                  "it: the next one starts in %u ms", (int) child->pid, pause);
        g->places[child->index].start_at_ms = clock_ms() + pause;
        return;
    }
    place_start(g, child->index);
}

bool children_reaped(pid_t pid, int status)
{
    struct child *child = NULL, *c;

    EACH_CHILD(c) {
        if (c->pid == pid)
            child = c;
    }
    if (!child)
        return false;
    clock_update();
    log_end(pid, status);
    list_remove(&child->link);
    close(child->channel);
    helpers_worker_ended(child->generation->config, child->slot);
    zones_worker_gone(child->generation->config, slot_number(child->slot));
    used[child->slot] = false;
    child->generation->alive--;
    succeed(child);
    if (child->generation != current && child->generation->alive == 0)
        generation_free(child->generation);
    free(child);
    return true;
}

uint64_t children_tick(void)
{
    uint64_t next = UINT64_MAX;

    if (!respawn || !current)
        return next;
    for (unsigned i = 0; i < current->count; i++) {
        uint64_t at = current->places[i].start_at_ms;

        if (at == UINT64_MAX)
            continue;
        if (at <= clock_ms()) {
            place_start(current, i);
            at = current->places[i].start_at_ms;
        }
        if (at != UINT64_MAX)
            next = MIN(next, at > clock_ms() ? at - clock_ms() : 0);
    }
    return next;
}
