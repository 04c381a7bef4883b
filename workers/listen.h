/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The listening sockets of this server, kept by the master by address, across configurations,
 * workers' deaths and new binaries. A configuration's res_listen.fds name them; what follows a change is in listen.c.
 */
#ifndef WORKERS_LISTEN_H
#define WORKERS_LISTEN_H

#include "core/config/resource.h"

/* An address's sockets, in the order in which they joined the kernel's group: socket i is worker i's. */
struct socket_group {
    struct list link;
    struct addr addr;
    char text[ADDR_TEXT];
    struct listen_options options;
    int *fds;
    unsigned count;             /* open */
    unsigned active;            /* those that workers have; the others are surplus */
    unsigned wanted;            /* by the configuration that is being opened; 0: not in it */
    unsigned before;            /* count before that, for the way back */
    uint64_t surplus_until_ms;  /* monotonic: surplus is accepted from until then; 0: no surplus */
    bool share;                 /* by the configuration that is being opened: SO_REUSEPORT */
    bool inherited;             /* came from another binary or from systemd */
};

/*
 * Opens what the configuration needs, reusing what is open, and sets each res_listen's fds. Waits
 * for a busy port (five tries, 500 ms apart). With `testing` sockets are closed again and busy ports
 * are fine. 0, or -1 with nothing changed and the reason logged.
 */
int listen_open(struct config *config, unsigned workers, bool testing);
/* The configuration that was opened last is in force: gives up what it does not need. */
void listen_commit(void);
/* It is not, after all. */
void listen_rollback(void);

/* Closes surplus whose time is over. Milliseconds until there is more to do; UINT64_MAX: never. */
uint64_t listen_tick(void);
/* Says again to the kernel which sockets of each address get connections: another binary may have
 * said otherwise. only_ours: none but those that we know of, as when that binary still has more. */
void listen_select(bool only_ours);

/* In a new worker: closes all sockets but those of worker `index` and the surplus it has to drain. */
void listen_keep(unsigned index);
/* Calls fn for each socket that the worker is to accept from: its own ones and surplus. */
void listen_each(const struct config *config, unsigned index,
                 void (*fn)(struct res_listen *res, const struct socket_group *group, int fd,
                            bool surplus, void *data),
                 void *data);

/* Closes everything; unlink_names removes the names of unix sockets. */
void listen_close_all(bool unlink_names);

/* Takes over the descriptors that an older binary or systemd has left, by their addresses. */
void listen_inherit(int fd);
/* All sockets as "6;7;8;", in an arena. */
struct str listen_export(struct arena *arena);
/* For exec: whether the sockets stay open across it. */
void listen_cloexec(bool on);
/* For tests. */
struct socket_group *listen_group(const struct addr *addr);

#endif
