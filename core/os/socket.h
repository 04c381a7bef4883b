/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Socket addresses and the options set on sockets. The only place that knows of
 * platform differences between them. errno tells why a call failed.
 */
#ifndef CORE_OS_SOCKET_H
#define CORE_OS_SOCKET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/base/str.h"

struct addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage ss;
    };
};

#define ADDR_TEXT (sizeof(struct sockaddr_un) + 16) /* room for any address as text, NUL included */

/*
 * A numeric address: "1.2.3.4", "1.2.3.4:80", "[::1]:80", "unix:/path", "*:80" and "80"
 * (any address) when `wildcard`. A missing port takes default_port; 0 means a port is required.
 * 0; -1: not numeric (a name, perhaps); -2: malformed (bad port…).
 */
int addr_parse(struct addr *a, struct str text, unsigned default_port, bool wildcard);
/* "127.0.0.1:80", "[::1]:80", "unix:/path" (with_port), or "127.0.0.1", "::1", "unix:". */
size_t addr_format(const struct addr *a, bool with_port, char *buf, size_t size);
struct str addr_dup_text(struct arena *arena, const struct addr *a, bool with_port);
bool addr_eq(const struct addr *a, const struct addr *b, bool with_port);
unsigned addr_port(const struct addr *a);
void addr_set_port(struct addr *a, unsigned port);
bool addr_is_wildcard(const struct addr *a);
/* Resolves at load time through the system (hosts file, search list). Blocks. Returns a count >= 1,
 * or -1 with *error a static sentence ("host not found"). Ports are set to `port`. */
int addr_resolve(struct arena *arena, struct str host, unsigned port, struct addr **out,
                 const char **error);
/* While set, addr_resolve asks nobody: each name gets an address of its own in 0.0.0.0/8, which no
 * host has. A test without the network. */
extern bool addr_offline;
/* Whether addr_offline made it up. */
bool addr_is_stand_in(const struct addr *a);

/* A network: address and prefix length; "1.2.3.4", "10.0.0.0/8", "::1/128". -1 malformed,
 * 1: low bits of the address were meaningless (cleared), 0 fine. */
struct cidr {
    int family;
    unsigned char addr[16];
    unsigned char mask[16];
};
int cidr_parse(struct cidr *c, struct str text);
bool cidr_match(const struct cidr *c, const struct sockaddr *sa); /* v4-mapped v6 counts as v4 */

/* The parameters of `listen` that are socket options. -1: leave as the system has it. */
struct listen_options {
    int backlog, rcvbuf, sndbuf, fastopen, setfib;
    int keepalive; /* -1 unset, 0 off, 1 on */
    int keepidle, keepintvl, keepcnt; /* seconds, seconds, count; 0: system's */
    bool ipv6only, deferred, reuseport, nodelay /* accepted sockets inherit it */;
    bool multipath; /* MPTCP; fixed when the socket is made */
    unsigned char ipv6only_set;
    const char *accept_filter;
};
#define LISTEN_OPTIONS_DEFAULT \
    ((struct listen_options){ .backlog = 511, .rcvbuf = -1, .sndbuf = -1, .fastopen = -1, \
                              .setfib = -1, .keepalive = -1, .ipv6only = true })
/*
 * A bound and listening, non-blocking, close-on-exec socket. `first`: bind without SO_REUSEPORT so
 * that a port in use is noticed, then set it (semantics: one socket per worker on the address).
 * fd, or -1 with errno and *step naming the call that failed ("bind()").
 */
int socket_listen(const struct addr *a, const struct listen_options *o, bool first,
                  const char **step);
/* Applies the options that may change on an inherited socket. */
int socket_listen_options(int fd, const struct addr *a, const struct listen_options *o);

int socket_nonblock(int fd);
int socket_cloexec(int fd, bool on);
int socket_nodelay(int fd, bool on);  /* TCP_NODELAY; no error on a unix socket */
int socket_cork(int fd, bool on);     /* TCP_CORK */
int socket_linger_reset(int fd);      /* SO_LINGER 0: close sends RST */
int socket_error(int fd);             /* SO_ERROR */
/* What a socket that connects is to be. All zero: nothing special. */
struct connect_options {
    const struct addr *local; /* NULL: any */
    bool transparent;         /* local need not be an address of this host */
    bool keepalive;           /* SO_KEEPALIVE */
    int rcvbuf, sndbuf;       /* bytes; 0: the system's */
    const char **step;        /* gets the name of the call that failed, "connect()" or one before it; NULL: nobody asks */
};
/* A non-blocking stream socket connecting to a. o may be NULL. fd, *connected. -1 errno. */
int socket_connect(const struct addr *a, const struct connect_options *o, bool *connected);

#endif
