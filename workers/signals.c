/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Signals as data, by signalfd. The set is blocked before the first fork and stays so in all
 * threads: what arrives while nobody looks is kept by the kernel.
 */
#include "workers/signals.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/base/log.h"

static const struct {
    int number;
    const char *name;
    const char *word;
} signals[] = {
    { SIGTERM, "SIGTERM", "stop" }, { SIGQUIT, "SIGQUIT", "quit" }, { SIGHUP, "SIGHUP", "reload" },
    { SIGUSR1, "SIGUSR1", "reopen" }, { SIGUSR2, "SIGUSR2", NULL }, { SIGWINCH, "SIGWINCH", NULL },
    { SIGINT, "SIGINT", NULL }, { SIGCHLD, "SIGCHLD", NULL },
};

static int signal_fd = -1;

const char *signal_name(int number)
{
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
        if (signals[i].number == number)
            return signals[i].name;
    }
    return "SIG?";
}

int signal_by_word(const char *word)
{
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
        if (signals[i].word && strcmp(signals[i].word, word) == 0)
            return signals[i].number;
    }
    return 0;
}

int signals_init(void)
{
    sigset_t set;

    sigemptyset(&set);
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
        sigaddset(&set, signals[i].number);
    if (sigprocmask(SIG_BLOCK, &set, NULL)) {
        log_emerg(log_main, errno, "sigprocmask() failed");
        return -1;
    }
    /* A starter may have left it ignored, and then children are never reported. */
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    /* A file that has reached its limit is an error of one write, not the end of the server. */
    signal(SIGXFSZ, SIG_IGN);
    /* A child's would still be tied to the parent's epoll. */
    if (signal_fd >= 0)
        close(signal_fd);
    signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signal_fd < 0)
        log_emerg(log_main, errno, "signalfd() failed");
    return signal_fd;
}

bool signals_next(struct signal_event *event)
{
    struct signalfd_siginfo info;
    ssize_t n;

    do
        n = read(signal_fd, &info, sizeof(info));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t) sizeof(info))
        return false;
    event->number = (int) info.ssi_signo;
    event->sender = (pid_t) info.ssi_pid;
    return true;
}

bool signals_wait(struct signal_event *event, uint64_t max_ms)
{
    struct pollfd p = { .fd = signal_fd, .events = POLLIN };

    if (signals_next(event))
        return true;
    poll(&p, 1, max_ms > INT_MAX ? -1 : (int) max_ms);
    return signals_next(event);
}

void signals_restore(void)
{
    sigset_t none;

    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void signal_log(const struct signal_event *event, const char *what)
{
    log_notice(log_main, 0, "signal %d (%s) received from %d%s", event->number,
               signal_name(event->number), (int) event->sender, what);
}
