/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening sockets in the loop: accepting, and pausing when connections or descriptors have run
 * out. The descriptor is the master's; here it is only watched. Level-triggered: what one event's
 * burst leaves queued is reported again. A unix socket is shared by all workers, hence
 * EPOLLEXCLUSIVE.
 */
#include "core/event/conn.h"

#include <errno.h>
#include <unistd.h>

#define STARVED_MS 500

/* With multi_accept off: how many one event may accept once connections are known to queue up. */
#define BURST_MAX 8

static int listener_update(struct listener *l)
{
    bool on = !l->paused && !l->starved;

    if (on == (l->watch.fd >= 0))
        return 0;
    if (!on) {
        loop_unwatch(&l->watch);
        return 0;
    }
    l->watch.fd = l->fd;
    if (loop_watch(&l->watch, EPOLLIN | EPOLLEXCLUSIVE) != 0) {
        l->watch.fd = -1;
        return -1;
    }
    return 0;
}

static void listener_fed(struct timer *timer)
{
    struct listener *l = container_of(timer, struct listener, timer);

    l->starved = false;
    if (listener_update(l) != 0)
        log_alert(log_main, errno, "epoll_ctl() for a listening socket failed");
}

/* Whether accepting may go on at once. */
static bool accept_failed(struct listener *l, int err)
{
    switch (err) {
    case EAGAIN:
        return false;
    case EINTR:
        return true;
    case ECONNABORTED:
        log_error(log_main, err, "accept4() failed");
        return true;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        if (!l->complained)
            log_crit(log_main, err, "accept4() failed");
        l->complained = true;
        l->starved = true;
        listener_update(l);
        timer_set(&l->timer, STARVED_MS);
        return false;
    default:
        /* Errors pending on the new connection (accept(2)): its loss, not the listener's. */
        log_alert(log_main, err, "accept4() failed");
        return false;
    }
}

/*
 * An event accepts one connection. Where the turn before accepted all that it was allowed and epoll
 * reports more at once, there is a queue, and this one may accept one more: a call to
 * epoll_wait for each connection becomes one for several, and hardly an accept4 is made in vain.
 */
static void adapt(struct listener *l, unsigned taken, unsigned allowed)
{
    uint64_t turn = loop_turns();

    if (taken < allowed) {
        l->allowed = MIN(MAX(taken, 1), BURST_MAX);
        return;
    }
    if (l->last_turn + 1 == turn && l->allowed < BURST_MAX)
        l->allowed++;
    l->last_turn = turn;
}

static void listener_event(struct watch *watch, uint32_t events UNUSED)
{
    struct listener *l = container_of(watch, struct listener, watch);
    unsigned taken = 0, allowed = MAX(l->allowed, l->burst);

    for (; taken < allowed && l->watch.fd >= 0; taken++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(l->fd, (struct sockaddr *) &peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct conn *c;

        if (fd < 0) {
            if (!accept_failed(l, errno))
                break;
            continue;
        }
        c = conn_tcp(fd, (const struct sockaddr *) &peer, len);
        if (!c) {
            log_alert(log_main, errno, "epoll_ctl() for an accepted connection failed");
            close(fd);
            continue;
        }
        l->complained = false;
        c->ready = CONN_WRITE;
        l->accept(l, c);
    }
    adapt(l, taken, allowed);
}

int listener_start(struct listener *l, int fd)
{
    ASSERT(l->accept && l->burst > 0);
    l->fd = fd;
    l->watch.fd = -1;
    l->watch.handler = listener_event;
    l->allowed = 1;
    l->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = listener_fed };
    l->paused = l->starved = l->complained = false;
    return listener_update(l);
}

void listener_stop(struct listener *l)
{
    timer_drop(&l->timer);
    loop_unwatch(&l->watch);
    l->paused = true;
}

void listener_pause(struct listener *l)
{
    l->paused = true;
    listener_update(l);
}

void listener_resume(struct listener *l)
{
    l->paused = false;
    if (listener_update(l) != 0)
        log_alert(log_main, errno, "epoll_ctl() for a listening socket failed");
}
