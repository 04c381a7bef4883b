/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's listening sockets. Called by the master (opening, closing, handing over) and at
 * the start of a worker (keeping its own). Nothing is accepted here.
 *
 * Each address has one SO_REUSEPORT socket per worker, and the kernel spreads new connections over all
 * of the address's group. A connection belongs to the socket it was given to from its first packet
 * on: closing that socket resets it. So a socket is closed only when nothing can be on it:
 *
 * - An address that stays keeps its sockets, and with them what is queued, for the new workers.
 * - More workers: sockets are added behind the others.
 * - Fewer workers: the last sockets become surplus. A program is attached to the group that makes
 *   the kernel choose among the first ones only, so that no new connection comes to the surplus;
 *   the new workers also accept from the surplus (each from every n-th one) until even a
 *   half-open connection, whose handshake ends where it began, has come or died. The kernel repeats
 *   SYN-ACKs for 63 seconds (tcp_synack_retries 5); after SURPLUS_MS the workers
 *   close theirs, the master some seconds later its own, and the program goes.
 *   Should workers be added again before that, surplus sockets simply are put to use again.
 * - Where the program cannot be attached, the surplus is still accepted from until it is closed.
 *
 * Positions in the group are those in fds: sockets join at the end, and when one leaves, the kernel moves
 * the last into its place, which only happens among the surplus, behind the others.
 */
#include "workers/listen.h"

#include <errno.h>
#include <linux/filter.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"

#ifndef SO_DETACH_REUSEPORT_BPF
#define SO_DETACH_REUSEPORT_BPF 68
#endif

#define SURPLUS_MS 65000
#define SURPLUS_GRACE_MS 5000 /* the workers close first */
#define BIND_TRIES 5
#define BIND_PAUSE_MS 500

struct inherited {
    struct list link;
    int fd;
    struct addr addr;
};

static struct list groups = { &groups, &groups };
static struct list heirlooms = { &heirlooms, &heirlooms };

#define EACH_GROUP(g) \
    for (struct list *g##_l = groups.next, *g##_n = g##_l->next; \
         g##_l != &groups && (g = container_of(g##_l, struct socket_group, link), true); \
         g##_l = g##_n, g##_n = g##_l->next)

struct socket_group *listen_group(const struct addr *addr)
{
    struct socket_group *group;

    EACH_GROUP(group) {
        if (addr_eq(&group->addr, addr, true))
            return group;
    }
    return NULL;
}

static bool is_inet(const struct socket_group *group)
{
    return group->addr.sa.sa_family != AF_UNIX;
}

/* Selection ------------------------------------------------------------------------------- */

/* Makes the kernel choose among the first `active` sockets; all of them: its own way, by hash. */
static void select_active(const struct socket_group *group, bool only_ours)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t) (SKF_AD_OFF + SKF_AD_RANDOM)),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, MAX(group->active, 1)),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = { ARRAY_LEN(code), code };
    int none = 0;

    if (!is_inet(group) || group->count == 0)
        return;
    if (group->count <= MAX(group->active, 1) && !only_ours) {
        /* ENOENT when there was no program. */
        setsockopt(group->fds[0], SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &none, sizeof(none));
        return;
    }
    if (setsockopt(group->fds[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                   sizeof(program)))
        log_info(log_main, errno, "setsockopt(SO_ATTACH_REUSEPORT_CBPF) %s failed", group->text);
}

void listen_select(bool only_ours)
{
    struct socket_group *group;

    EACH_GROUP(group)
        select_active(group, only_ours);
}

/* Groups ---------------------------------------------------------------------------------- */

static struct socket_group *group_new(const struct res_listen *res)
{
    struct socket_group *group = mem_zalloc(sizeof(*group));

    group->addr = res->addr;
    addr_format(&res->addr, true, group->text, sizeof(group->text));
    list_push_back(&groups, &group->link);
    return group;
}

static void group_add(struct socket_group *group, int fd)
{
    group->fds = mem_realloc(group->fds, (group->count + 1) * sizeof(*group->fds));
    group->fds[group->count++] = fd;
}

/* Closes the sockets from position `from` on, the last first. */
static void group_cut(struct socket_group *group, unsigned from)
{
    while (group->count > from)
        close(group->fds[--group->count]);
}

static void group_free(struct socket_group *group, bool unlink_name)
{
    if (unlink_name && !is_inet(group) && group->addr.un.sun_path[0] && group->count > 0 &&
        unlink(group->addr.un.sun_path) && errno != ENOENT)
        log_emerg(log_main, errno, "unlink() \"%s\" failed", group->addr.un.sun_path);
    group_cut(group, 0);
    list_remove(&group->link);
    free(group->fds);
    free(group);
}

void listen_close_all(bool unlink_names)
{
    struct socket_group *group;
    struct list *l;

    EACH_GROUP(group)
        group_free(group, unlink_names);
    while ((l = list_pop_front(&heirlooms)) != NULL) {
        struct inherited *h = container_of(l, struct inherited, link);

        close(h->fd);
        free(h);
    }
}

/* Opening --------------------------------------------------------------------------------- */

/* What was inherited for the address becomes its sockets. */
static void group_adopt(struct socket_group *group)
{
    struct list *l = heirlooms.next;

    while (l != &heirlooms) {
        struct inherited *h = container_of(l, struct inherited, link);

        l = l->next;
        if (!addr_eq(&h->addr, &group->addr, true))
            continue;
        group_add(group, h->fd);
        group->inherited = true;
        list_remove(&h->link);
        free(h);
    }
}

/* "*:80" and "127.0.0.1:80", each with a socket of its own. */
static bool overlap(const struct addr *a, const struct addr *b)
{
    return a->sa.sa_family == b->sa.sa_family && (addr_is_wildcard(a) || addr_is_wildcard(b));
}

/* A socket of ours on the same port is in the way, so that binding succeeds only if both say
 * SO_REUSEPORT: of an address that this configuration gives up, as when "127.0.0.1:80" becomes
 * "*:80", or of one that overlaps with this one. */
static bool ours_is_in_the_way(const struct socket_group *group)
{
    struct socket_group *other;

    EACH_GROUP(other) {
        if (other != group && other->count > 0 && is_inet(other) && is_inet(group) &&
            addr_port(&other->addr) == addr_port(&group->addr) &&
            (other->wanted == 0 || overlap(&other->addr, &group->addr)))
            return true;
    }
    return false;
}

/* 1: opened, 0: busy, -1: failed. Both of the latter are logged. */
static int group_open_one(struct socket_group *group, bool testing)
{
    bool first = group->count == 0 && !ours_is_in_the_way(group);
    struct listen_options options = group->options;
    const char *step = "socket()";
    int fd, err;

    options.reuseport = group->share;
    fd = socket_listen(&group->addr, &options, first, &step);
    err = errno;
    if (fd >= 0) {
        group_add(group, fd);
        return 1;
    }
    if (err == EADDRINUSE && strcmp(step, "bind()") == 0) {
        if (!testing)
            log_emerg(log_main, err, "bind() to %s failed", group->text);
        return 0;
    }
    if (strcmp(step, "bind()") == 0)
        log_emerg(log_main, err, "bind() to %s failed", group->text);
    else if (strcmp(step, "listen()") == 0)
        log_emerg(log_main, err, "listen() to %s, backlog %d failed", group->text,
                  group->options.backlog);
    else
        log_emerg(log_main, err, "%s %s failed", step, group->text);
    return -1;
}

/* The others of an address whose first socket is there. */
static int group_grow(struct socket_group *group)
{
    int on = 1;

    if (group->count < group->wanted && is_inet(group) &&
        setsockopt(group->fds[0], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on))) {
        log_emerg(log_main, errno, "setsockopt(SO_REUSEPORT) %s failed", group->text);
        return -1;
    }
    while (group->count < group->wanted) {
        int rc = group_open_one(group, false);

        if (rc <= 0)
            return -1;
    }
    return 0;
}

/* One round over all addresses. 1: all are there, 0: some are busy, -1: failed. */
static int open_first_sockets(bool testing)
{
    struct socket_group *group;
    int result = 1;

    EACH_GROUP(group) {
        int rc = group->wanted && group->count == 0 ? group_open_one(group, testing) : 1;

        if (rc < 0)
            return -1;
        result = MIN(result, rc);
    }
    return result;
}

static int open_retrying(bool testing)
{
    const struct timespec pause = { 0, BIND_PAUSE_MS * 1000000L };

    for (int try = 0; try < BIND_TRIES; try++) {
        int rc = open_first_sockets(testing);

        if (rc < 0)
            return -1;
        if (rc == 1 || testing)
            return 0;
        log_notice(log_main, 0, "try again to bind() after %dms", BIND_PAUSE_MS);
        nanosleep(&pause, NULL);
        clock_update();
    }
    log_emerg(log_main, 0, "still could not bind()");
    return -1;
}

#define EACH_LISTEN(config, res) \
    for (struct list *res##_l = (config)->resources->listens.next; \
         res##_l != &(config)->resources->listens && \
         (res = container_of(res##_l, struct res_listen, link), true); res##_l = res##_l->next)

/* Marks what is needed; nothing is opened yet. */
static void plan(struct config *config, unsigned workers)
{
    struct socket_group *group;
    struct res_listen *res;

    EACH_GROUP(group) {
        group->wanted = 0;
        group->before = group->count;
    }
    EACH_LISTEN(config, res) {
        bool single = res->single || res->addr.sa.sa_family == AF_UNIX;

        group = listen_group(&res->addr);
        if (!group) {
            group = group_new(res);
            group_adopt(group);
        }
        group->wanted = single ? 1 : workers;
        if (group->count == 0)
            group->options = res->options;
        group->share = !single;
        res->inherited = group->inherited;
    }
}

/* The way back: closes what was opened for nothing. Sockets inherited stay for the next try. */
void listen_rollback(void)
{
    struct socket_group *group;

    EACH_GROUP(group) {
        if (group->before == 0 && !group->inherited)
            group_free(group, true);
        else if (!group->inherited || group->before > 0)
            group_cut(group, group->before);
    }
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_options(const struct listen_options *a, const struct listen_options *b)
{
    return a->backlog == b->backlog && a->rcvbuf == b->rcvbuf && a->sndbuf == b->sndbuf
           && a->fastopen == b->fastopen && a->setfib == b->setfib && a->keepalive == b->keepalive
           && a->keepidle == b->keepidle && a->keepintvl == b->keepintvl
           && a->keepcnt == b->keepcnt && a->ipv6only == b->ipv6only && a->deferred == b->deferred
           && a->reuseport == b->reuseport && a->nodelay == b->nodelay
           && a->multipath == b->multipath && a->ipv6only_set == b->ipv6only_set
           && same_text(a->accept_filter, b->accept_filter);
}

/* Options that may be changed on a socket that is there. */
static void apply_options(struct config *config)
{
    struct socket_group *group;
    struct res_listen *res;

    EACH_LISTEN(config, res) {
        struct listen_options options = res->options;

        group = listen_group(&res->addr);
        options.reuseport = group->share;
        if (same_options(&group->options, &options) && !group->inherited)
            continue;
        group->options = options;
        for (unsigned i = 0; i < group->count; i++) {
            if (socket_listen_options(group->fds[i], &group->addr, &options))
                log_alert(log_main, errno, "options of the listening socket %s failed",
                          group->text);
        }
    }
}

int listen_open(struct config *config, unsigned workers, bool testing)
{
    struct socket_group *group;
    struct res_listen *res;

    plan(config, workers);
    /* First one socket for each new address: if one of them fails, the others were not touched. */
    if (open_retrying(testing))
        goto failed;
    if (testing) {
        listen_rollback();
        return 0;
    }
    EACH_GROUP(group) {
        if (group->wanted && group_grow(group))
            goto failed;
    }
    EACH_LISTEN(config, res) {
        group = listen_group(&res->addr);
        res->fd_count = group->wanted;
        res->fds = ARENA_ARRAY(config->arena, int, group->wanted);
        memcpy(res->fds, group->fds, group->wanted * sizeof(*res->fds));
    }
    apply_options(config);
    return 0;
failed:
    listen_rollback();
    return -1;
}

void listen_commit(void)
{
    struct socket_group *group;
    struct list *l;

    EACH_GROUP(group) {
        if (group->wanted == 0) {
            group_free(group, true);
            continue;
        }
        if (group->wanted < group->count) {
            if (group->active != group->wanted || group->surplus_until_ms == 0)
                group->surplus_until_ms = clock_ms() + SURPLUS_MS;
        } else {
            group->surplus_until_ms = 0;
        }
        group->active = group->wanted;
        select_active(group, false);
    }
    /* What nobody asked for. */
    while ((l = list_pop_front(&heirlooms)) != NULL) {
        struct inherited *h = container_of(l, struct inherited, link);

        close(h->fd);
        free(h);
    }
}

uint64_t listen_tick(void)
{
    uint64_t next = UINT64_MAX;
    struct socket_group *group;

    EACH_GROUP(group) {
        uint64_t end = group->surplus_until_ms + SURPLUS_GRACE_MS;

        if (group->surplus_until_ms == 0)
            continue;
        if (end > clock_ms()) {
            next = MIN(next, end - clock_ms());
            continue;
        }
        group_cut(group, group->active);
        group->surplus_until_ms = 0;
        select_active(group, false);
    }
    return next;
}

/* In the worker --------------------------------------------------------------------------- */

static bool drains(const struct socket_group *group, unsigned position, unsigned index)
{
    return position >= group->active && position % MAX(group->active, 1) == index &&
        group->surplus_until_ms > clock_ms();
}

static bool keeps(const struct socket_group *group, unsigned position, unsigned index)
{
    if (!group->options.reuseport && position == 0)
        return true;
    return position < group->active ? position == index : drains(group, position, index);
}

void listen_keep(unsigned index)
{
    struct socket_group *group;

    EACH_GROUP(group) {
        for (unsigned i = 0; i < group->count; i++) {
            if (keeps(group, i, index))
                continue;
            close(group->fds[i]);
            group->fds[i] = -1;
        }
    }
}

void listen_each(const struct config *config, unsigned index,
                 void (*fn)(struct res_listen *res, const struct socket_group *group, int fd,
                            bool surplus, void *data),
                 void *data)
{
    struct res_listen *res;

    EACH_LISTEN(config, res) {
        const struct socket_group *group = listen_group(&res->addr);

        ASSERT(group != NULL);
        for (unsigned i = 0; i < group->count; i++) {
            if (keeps(group, i, index))
                fn(res, group, group->fds[i], i >= group->active, data);
        }
    }
}

/* From and to other binaries -------------------------------------------------------------- */

void listen_inherit(int fd)
{
    struct inherited *h = mem_zalloc(sizeof(*h));
    int accepts = 0, type = 0;
    socklen_t len = sizeof(accepts);

    h->fd = fd;
    h->addr.len = sizeof(h->addr.ss);
    if (getsockname(fd, &h->addr.sa, &h->addr.len)) {
        log_alert(log_main, errno, "getsockname() of the inherited socket #%d failed", fd);
        free(h);
        return;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) || !accepts ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM) {
        log_warn(log_main, 0, "the inherited descriptor #%d is no listening stream socket", fd);
        socket_cloexec(fd, true);
        free(h);
        return;
    }
    socket_nonblock(fd);
    socket_cloexec(fd, true);
    list_push_back(&heirlooms, &h->link);
}

struct str listen_export(struct arena *arena)
{
    struct str all = str_dup(arena, STR(""));
    struct socket_group *group;

    EACH_GROUP(group) {
        for (unsigned i = 0; i < group->count; i++)
            all = str_printf(arena, "%.*s%d;", STR_ARG(all), group->fds[i]);
    }
    return all;
}

void listen_cloexec(bool on)
{
    struct socket_group *group;

    EACH_GROUP(group) {
        for (unsigned i = 0; i < group->count; i++)
            socket_cloexec(group->fds[i], on);
    }
}
