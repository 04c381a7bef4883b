/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master process: waits for signals and does what they ask, as nginx does. It never reads a
 * byte that came from a client, and holds whatever must outlive a worker: sockets, zones, logs.
 */
#include "workers/master.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/event/conn.h"
#include "core/os/instance.h"
#include "core/os/process.h"
#include "workers/children.h"
#include "workers/cycle.h"
#include "workers/helpers.h"
#include "workers/listen.h"
#include "workers/pidfile.h"
#include "workers/settings.h"
#include "workers/signals.h"
#include "workers/upgrade.h"

#define KILL_AFTER_MS 1000 /* after TERM, workers that still live are killed */

static struct {
    struct config_request request;
    char *pid_path;      /* ours; a reload may change it */
    pid_t new_binary;    /* 0: none */
    pid_t parent;        /* the older binary that started us; 0: none */
    uint64_t kill_at_ms; /* UINT64_MAX: not now */
    bool daemon, quitting, terminating, no_workers;
} self;

static void set_pid_path(const struct config *config)
{
    free(self.pid_path);
    self.pid_path = strdup(core_settings(config)->pid.ptr);
    ASSERT(self.pid_path != NULL);
}

/* Whether both we and another binary are masters of the same sockets. */
static bool parent_lives(void)
{
    return self.parent && getppid() == self.parent;
}

/* What happens on signals ------------------------------------------------------------------ */

static void notify_reloading(void)
{
    struct timespec now;
    char text[80];

    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long) now.tv_sec * 1000000 + (unsigned long long) now.tv_nsec / 1000);
    process_notify(text);
}

static void move_pid_file(const struct config *config)
{
    if (strcmp(self.pid_path, core_settings(config)->pid.ptr) == 0)
        return;
    if (pidfile_write(core_settings(config)->pid.ptr))
        return;
    pidfile_remove(self.pid_path);
    set_pid_path(config);
}

/* Reads the file again; if anything is wrong with it, all stays as it is. */
static void reload(void)
{
    struct config *old = children_config();
    struct config *config;

    log_notice(log_main, 0, "reconfiguring");
    notify_reloading();
    self.request.old = old;
    config = config_read(&self.request, log_main);
    if (config && cycle_open(config, old)) {
        config_free(config);
        config = NULL;
    }
    if (!config) {
        log_error(log_main, 0, "the configuration was not changed, the old one stays in force");
        process_notify("READY=1");
        return;
    }
    config->old = NULL;
    cycle_commit(config);
    instance_loaded();
    logs_close(old);
    if (self.daemon && logs_error_fd(config) >= 0)
        dup2(logs_error_fd(config), STDERR_FILENO);
    move_pid_file(config);
    children_start(config);
    children_drain(false);
    process_notify("READY=1");
}

static void hang_up(void)
{
    self.terminating = self.quitting = false;
    if (!self.new_binary) {
        self.no_workers = false;
        reload();
        return;
    }
    /* Back from an upgrade that did not please: the old program with the old configuration. */
    log_notice(log_main, 0, "reconfiguring");
    if (!self.no_workers)
        return;
    self.no_workers = false;
    listen_select(true);
    children_start(children_config());
}

static void change_binary(void)
{
    if (self.new_binary || parent_lives()) {
        log_notice(log_main, 0, "the changing binary signal is ignored: you should shutdown or "
                   "terminate before either old or new binary's process");
        return;
    }
    log_notice(log_main, 0, "changing binary");
    if (pidfile_to_old(self.pid_path))
        return;
    self.new_binary = upgrade_start(children_config());
    if (self.new_binary > 0)
        return;
    self.new_binary = 0;
    pidfile_from_old(self.pid_path);
}

static void new_binary_ended(int status)
{
    char text[40];

    if (WIFSIGNALED(status))
        log_alert(log_main, 0, "new binary process %d exited on signal %d", (int) self.new_binary,
                  WTERMSIG(status));
    else
        log_notice(log_main, 0, "new binary process %d exited with code %d",
                   (int) self.new_binary, WEXITSTATUS(status));
    self.new_binary = 0;
    pidfile_from_old(self.pid_path);
    snprintf(text, sizeof(text), "MAINPID=%d\nREADY=1", (int) getpid());
    process_notify(text);
    listen_select(false);
    if (self.no_workers && !self.quitting && !self.terminating) {
        self.no_workers = false;
        children_start(children_config());
    }
}

/* A terminal that changes its size sends SIGWINCH too: heeded only where there is none. */
static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void quit(void)
{
    self.quitting = true;
    children_stop_respawn();
    if (!self.new_binary)
        process_notify("STOPPING=1");
    children_drain(true);
    /* What nobody will accept from is not to be connected to either. */
    listen_close_all(!self.new_binary && !parent_lives());
}

static void terminate(void)
{
    self.terminating = true;
    children_stop_respawn();
    if (!self.new_binary)
        process_notify("STOPPING=1");
    children_signal(SIGTERM);
    if (self.kill_at_ms == UINT64_MAX)
        self.kill_at_ms = clock_ms() + KILL_AFTER_MS;
}

static void reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == self.new_binary)
            new_binary_ended(status);
        else if (!children_reaped(pid, status))
            helpers_reaped(pid, status);
    }
}

static void stop_accepting(const struct signal_event *event)
{
    if (!self.daemon && has_terminal()) {
        signal_log(event, "");
        return;
    }
    signal_log(event, ", stop accepting connections");
    self.no_workers = true;
    children_stop_respawn();
    children_drain(true);
}

static void handle(const struct signal_event *event)
{
    switch (event->number) {
    case SIGTERM:
    case SIGINT:
        signal_log(event, ", exiting");
        terminate();
        break;
    case SIGQUIT:
        signal_log(event, ", shutting down");
        if (!self.quitting && !self.terminating)
            quit();
        break;
    case SIGHUP:
        if (self.quitting || self.terminating) {
            signal_log(event, ", ignored");
            break;
        }
        signal_log(event, ", reconfiguring");
        hang_up();
        break;
    case SIGUSR1:
        signal_log(event, ", reopening logs");
        log_notice(log_main, 0, "reopening logs");
        logs_reopen(children_config(), true);
        if (self.daemon && logs_error_fd(children_config()) >= 0)
            dup2(logs_error_fd(children_config()), STDERR_FILENO);
        helpers_logs_reopened(children_config());
        children_signal(SIGUSR1);
        break;
    case SIGUSR2:
        if (self.quitting || self.terminating) {
            signal_log(event, ", ignored");
            break;
        }
        signal_log(event, ", changing binary");
        change_binary();
        break;
    case SIGWINCH:
        stop_accepting(event);
        break;
    case SIGCHLD:
        signal_log(event, "");
        reap();
        break;
    default:
        break;
    }
}

/* The loop --------------------------------------------------------------------------------- */

/* What is due without a signal. Milliseconds until there is more. */
static uint64_t tick(void)
{
    uint64_t next;

    clock_update();
    next = MIN(children_tick(), helpers_tick());
    if (!self.new_binary && !self.quitting)
        next = MIN(next, listen_tick());
    if (!self.quitting && !self.terminating)
        next = MIN(next, cycle_tick(children_config()));
    if (self.kill_at_ms != UINT64_MAX && clock_ms() >= self.kill_at_ms) {
        children_signal(SIGKILL);
        self.kill_at_ms = clock_ms() + KILL_AFTER_MS;
    }
    if (self.kill_at_ms != UINT64_MAX)
        next = MIN(next, self.kill_at_ms - clock_ms());
    return next;
}

static int leave(void)
{
    struct config *config = children_config();

    if (self.new_binary)
        pidfile_remove_old(self.pid_path);
    else
        pidfile_remove(self.pid_path);
    listen_close_all(!self.new_binary && !parent_lives());
    helpers_stop();
    logs_flush(config);
    log_notice(log_main, 0, "exit");
    return 0;
}

int master_run(const struct master_start *start)
{
    struct signal_event event;
    char text[40];

    self.request = start->request;
    self.daemon = start->daemon;
    self.parent = start->inherited ? getppid() : 0;
    self.kill_at_ms = UINT64_MAX;
    set_pid_path(start->config);
    conn_share_numbers();
    children_start(start->config);
    snprintf(text, sizeof(text), "MAINPID=%d\nREADY=1", (int) getpid());
    process_notify(text);
    while (!((self.quitting || self.terminating) && children_count() == 0)) {
        if (signals_wait(&event, tick())) {
            clock_update();
            handle(&event);
        }
    }
    return leave();
}
