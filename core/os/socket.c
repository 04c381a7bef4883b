/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Socket addresses, networks, and making and tuning sockets. Used by the listening sockets, by
 * connections and by whatever reads an address from the configuration. Nothing is logged.
 */
#include "core/os/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/fmt.h"
#include "core/base/hash.h"

#define UNIX_PATH_OFFSET offsetof(struct sockaddr_un, sun_path)

static struct addr addr_v4(uint32_t host, unsigned port)
{
    struct addr a;

    memset(&a, 0, sizeof(a));
    a.len = sizeof(a.in);
    a.in.sin_family = AF_INET;
    a.in.sin_addr.s_addr = htonl(host);
    a.in.sin_port = htons((uint16_t) port);
    return a;
}

/* A port number, 1 to 65535. 0 or -2. */
static int parse_port(struct str text, unsigned *port)
{
    uint64_t n;

    if (str_to_u64(text, &n) || n == 0 || n > 65535)
        return -2;
    *port = (unsigned) n;
    return 0;
}

static int parse_unix(struct addr *a, struct str path)
{
    if (path.len == 0 || path.len >= sizeof(a->un.sun_path) || str_chr(path, '\0') >= 0)
        return -2;
    memset(a, 0, sizeof(*a));
    a->un.sun_family = AF_UNIX;
    memcpy(a->un.sun_path, path.ptr, path.len);
    a->len = (socklen_t) (UNIX_PATH_OFFSET + path.len + 1);
    return 0;
}

/* Whether text is a numeric address of that family; out takes 4 or 16 bytes. */
static bool parse_host(int family, struct str text, void *out)
{
    char z[INET6_ADDRSTRLEN];

    if (text.len == 0 || text.len >= sizeof(z) || str_chr(text, '\0') >= 0)
        return false;
    *fmt_str(z, text) = '\0';
    return inet_pton(family, z, out) == 1;
}

static int set_v6(struct addr *a, const struct in6_addr *host, unsigned port)
{
    if (port == 0)
        return -2;
    memset(a, 0, sizeof(*a));
    a->len = sizeof(a->in6);
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_addr = *host;
    a->in6.sin6_port = htons((uint16_t) port);
    return 0;
}

/* "[::1]" and "[::1]:80". */
static int parse_bracketed(struct addr *a, struct str text, unsigned port)
{
    ssize_t close_at = str_chr(text, ']');
    struct in6_addr host;
    struct str rest;

    if (close_at < 0 || !parse_host(AF_INET6, str_from(text.ptr + 1, (size_t) close_at - 1), &host))
        return -2;
    rest = str_skip(text, (size_t) close_at + 1);
    if (rest.len && (rest.ptr[0] != ':' || parse_port(str_skip(rest, 1), &port)))
        return -2;
    return set_v6(a, &host, port);
}

int addr_parse(struct addr *a, struct str text, unsigned default_port, bool wildcard)
{
    unsigned port = default_port;
    struct str host = text;
    struct in6_addr v6;
    struct in_addr v4;
    uint64_t number;
    ssize_t colon;

    ASSERT(default_port <= 65535);
    if (text.len == 0)
        return -2;
    if (str_casestarts(text, STR("unix:")))
        return parse_unix(a, str_skip(text, 5));
    if (text.ptr[0] == '[')
        return parse_bracketed(a, text, default_port);
    if (wildcard && str_to_u64(text, &number) == 0) {
        if (parse_port(text, &port))
            return -2;
        *a = addr_v4(INADDR_ANY, port);
        return 0;
    }
    colon = str_rchr(text, ':');
    if (colon >= 0 && str_chr(text, ':') != colon)
        return parse_host(AF_INET6, text, &v6) ? set_v6(a, &v6, default_port) : -2;
    if (colon >= 0) {
        host.len = (size_t) colon;
        if (host.len == 0 || parse_port(str_skip(text, (size_t) colon + 1), &port))
            return -2;
    }
    if (wildcard && str_eq(host, STR("*")))
        v4.s_addr = htonl(INADDR_ANY);
    else if (!parse_host(AF_INET, host, &v4))
        return -1;
    if (port == 0)
        return -2;
    *a = addr_v4(ntohl(v4.s_addr), port);
    return 0;
}

static char *format_v4(char *p, const struct in_addr *host)
{
    const unsigned char *b = (const unsigned char *) &host->s_addr;

    for (int i = 0; i < 4; i++) {
        if (i)
            *p++ = '.';
        p = fmt_u64(p, b[i]);
    }
    return p;
}

static char *format_v6(char *p, const struct in6_addr *host, bool brackets)
{
    if (brackets)
        *p++ = '[';
    /* The buffer is ours and large enough, and the family is known: this cannot fail. */
    inet_ntop(AF_INET6, host, p, INET6_ADDRSTRLEN);
    p += strlen(p);
    if (brackets)
        *p++ = ']';
    return p;
}

size_t addr_format(const struct addr *a, bool with_port, char *buf, size_t size)
{
    char text[ADDR_TEXT];
    char *p = text;
    size_t len;

    switch (a->sa.sa_family) {
    case AF_INET: p = format_v4(p, &a->in.sin_addr); break;
    case AF_INET6: p = format_v6(p, &a->in6.sin6_addr, with_port); break;
    case AF_UNIX:
        p = fmt_str(p, STR("unix:"));
        /* A peer without a name, and one whose name is abstract, have none to show. */
        if (with_port && a->len > UNIX_PATH_OFFSET)
            p = fmt_str(
                p, str_from(a->un.sun_path, strnlen(a->un.sun_path, a->len - UNIX_PATH_OFFSET)));
        break;
    }
    if (with_port && (a->sa.sa_family == AF_INET || a->sa.sa_family == AF_INET6)) {
        *p++ = ':';
        p = fmt_u64(p, addr_port(a));
    }
    if (size == 0)
        return 0;
    len = MIN((size_t) (p - text), size - 1);
    memcpy(buf, text, len);
    buf[len] = '\0';
    return len;
}

struct str addr_dup_text(struct arena *arena, const struct addr *a, bool with_port)
{
    char buf[ADDR_TEXT];

    return str_dup(arena, str_from(buf, addr_format(a, with_port, buf, sizeof(buf))));
}

bool addr_eq(const struct addr *a, const struct addr *b, bool with_port)
{
    if (a->sa.sa_family != b->sa.sa_family || (with_port && addr_port(a) != addr_port(b)))
        return false;
    switch (a->sa.sa_family) {
    case AF_INET: return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0 &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id;
    case AF_UNIX: return a->len == b->len && memcmp(&a->un, &b->un, a->len) == 0;
    }
    return false;
}

unsigned addr_port(const struct addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET: return ntohs(a->in.sin_port);
    case AF_INET6: return ntohs(a->in6.sin6_port);
    }
    return 0;
}

void addr_set_port(struct addr *a, unsigned port)
{
    if (a->sa.sa_family == AF_INET)
        a->in.sin_port = htons((uint16_t) port);
    else if (a->sa.sa_family == AF_INET6)
        a->in6.sin6_port = htons((uint16_t) port);
}

bool addr_is_wildcard(const struct addr *a)
{
    switch (a->sa.sa_family) {
    case AF_INET: return a->in.sin_addr.s_addr == htonl(INADDR_ANY);
    case AF_INET6: return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
    }
    return false;
}

/* One family of getaddrinfo's answer, appended to out. */
static unsigned collect(const struct addrinfo *list, int family, unsigned port, struct addr *out)
{
    unsigned n = 0;

    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        struct addr *a = &out[n];

        if (ai->ai_family != family || ai->ai_addrlen > sizeof(a->ss))
            continue;
        memset(a, 0, sizeof(*a));
        a->len = ai->ai_addrlen;
        memcpy(&a->ss, ai->ai_addr, ai->ai_addrlen);
        addr_set_port(a, port);
        n++;
    }
    return n;
}

bool addr_offline;

/* The same address for the same name. */
static int stand_in(struct arena *arena, struct str host, unsigned port, struct addr **out)
{
    struct addr *a = ARENA_NEW(arena, struct addr);

    if (addr_parse(a, host, port, false) == 0 ||
        (str_caseeq(host, STR("localhost")) && addr_parse(a, STR("127.0.0.1"), port, false) == 0)) {
        addr_set_port(a, port);
    } else {
        a->len = sizeof(a->in);
        a->in.sin_family = AF_INET;
        a->in.sin_addr.s_addr = htonl(1 + hash_name(host) % 0xfffffe);
        addr_set_port(a, port);
    }
    *out = a;
    return 1;
}

bool addr_is_stand_in(const struct addr *a)
{
    return a->sa.sa_family == AF_INET && a->in.sin_addr.s_addr != 0 &&
           ntohl(a->in.sin_addr.s_addr) >> 24 == 0;
}

int addr_resolve(struct arena *arena, struct str host, unsigned port, struct addr **out,
                 const char **error)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct addrinfo *list = NULL;
    unsigned n = 0;
    const char *z;
    int rc;

    *error = "host not found";
    if (host.len == 0 || host.len > 255 || str_chr(host, '\0') >= 0)
        return -1;
    if (addr_offline)
        return stand_in(arena, host, port, out);
    z = str_z(arena, host);
    rc = getaddrinfo(z, NULL, &hints, &list);
    if (rc != 0) {
        /* With nothing but loopback no family is "configured", yet names may be local. */
        hints.ai_flags = 0;
        rc = getaddrinfo(z, NULL, &hints, &list);
    }
    if (rc == EAI_AGAIN)
        *error = "host not found: temporary failure in name resolution";
    if (rc != 0)
        return -1;
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
        n++;
    *out = ARENA_ARRAY(arena, struct addr, n);
    /* IPv4 first, whatever the system's preference: peers keep their order from load to load. */
    n = collect(list, AF_INET, port, *out);
    n += collect(list, AF_INET6, port, *out + n);
    freeaddrinfo(list);
    return n ? (int) n : -1;
}

int cidr_parse(struct cidr *c, struct str text)
{
    ssize_t slash = str_chr(text, '/');
    struct str host = slash < 0 ? text : str_from(text.ptr, (size_t) slash);
    uint64_t bits;
    int cleared = 0;
    unsigned len;

    memset(c, 0, sizeof(*c));
    if (parse_host(AF_INET, host, c->addr))
        c->family = AF_INET;
    else if (parse_host(AF_INET6, host, c->addr))
        c->family = AF_INET6;
    else
        return -1;
    len = c->family == AF_INET ? 4 : 16;
    bits = len * 8;
    if (slash >= 0 && (str_to_u64(str_skip(text, (size_t) slash + 1), &bits) || bits > len * 8))
        return -1;
    for (unsigned i = 0; i < len; i++) {
        unsigned n = bits > i * 8 ? (unsigned) MIN(bits - i * 8, 8) : 0;

        c->mask[i] = (unsigned char) (0xff00u >> n);
        if (c->addr[i] & ~c->mask[i])
            cleared = 1;
        c->addr[i] &= c->mask[i];
    }
    return cleared;
}

bool cidr_match(const struct cidr *c, const struct sockaddr *sa)
{
    const unsigned char *p;
    unsigned len = c->family == AF_INET ? 4 : 16;

    if (sa->sa_family == AF_INET) {
        if (c->family != AF_INET)
            return false;
        p = (const unsigned char *) &((const struct sockaddr_in *) (const void *) sa)->sin_addr;
    } else if (sa->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *) (const void *) sa)->sin6_addr;

        p = v6->s6_addr;
        if (c->family == AF_INET) {
            if (!IN6_IS_ADDR_V4MAPPED(v6))
                return false;
            p += 12;
        }
    } else {
        return false;
    }
    for (unsigned i = 0; i < len; i++) {
        if ((p[i] & c->mask[i]) != c->addr[i])
            return false;
    }
    return true;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

/* Keep-alive probes; the system's settings stay where nothing is said. */
static int set_keepalive(int fd, const struct listen_options *o)
{
    if (o->keepalive >= 0 && set_option(fd, SOL_SOCKET, SO_KEEPALIVE, o->keepalive))
        return -1;
    if (o->keepidle > 0 && set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, o->keepidle))
        return -1;
    if (o->keepintvl > 0 && set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, o->keepintvl))
        return -1;
    if (o->keepcnt > 0 && set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, o->keepcnt))
        return -1;
    return 0;
}

static int set_deferred(int fd, bool on)
{
    int now = 0;
    socklen_t len = sizeof(now);

    if (getsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &now, &len))
        now = 0;
    if ((now != 0) == on)
        return 0;
    return set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, on);
}

static int apply_options(int fd, const struct addr *a, const struct listen_options *o,
                         const char **step)
{
    *step = "setsockopt(SO_RCVBUF)";
    if (o->rcvbuf >= 0 && set_option(fd, SOL_SOCKET, SO_RCVBUF, o->rcvbuf))
        return -1;
    *step = "setsockopt(SO_SNDBUF)";
    if (o->sndbuf >= 0 && set_option(fd, SOL_SOCKET, SO_SNDBUF, o->sndbuf))
        return -1;
    if (a->sa.sa_family == AF_UNIX)
        return 0;
    *step = "setsockopt(SO_KEEPALIVE)";
    if (set_keepalive(fd, o))
        return -1;
    *step = "setsockopt(TCP_DEFER_ACCEPT)";
    if (set_deferred(fd, o->deferred))
        return -1;
    *step = "setsockopt(TCP_NODELAY)";
    if (set_option(fd, IPPROTO_TCP, TCP_NODELAY, o->nodelay))
        return -1;
    *step = "setsockopt(TCP_FASTOPEN)";
    if (o->fastopen >= 0 && set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, o->fastopen))
        return -1;
    return 0;
}

int socket_listen_options(int fd, const struct addr *a, const struct listen_options *o)
{
    const char *step;

    if (apply_options(fd, a, o, &step))
        return -1;
    /* Listening once more changes the backlog of a socket that already listens. */
    return listen(fd, o->backlog);
}

static int bind_and_listen(int fd, const struct addr *a, const struct listen_options *o, bool first,
                           bool *bound, const char **step)
{
    bool inet = a->sa.sa_family != AF_UNIX;
    bool share = inet && o->reuseport;

    *step = "setsockopt(SO_REUSEADDR)";
    if (inet && set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1))
        return -1;
    *step = "setsockopt(IPV6_V6ONLY)";
    if (a->sa.sa_family == AF_INET6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->ipv6only))
        return -1;
    *step = "setsockopt(SO_REUSEPORT)";
    if (share && !first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1))
        return -1;
    if (apply_options(fd, a, o, step))
        return -1;
    *step = "bind()";
    if (bind(fd, &a->sa, a->len))
        return -1;
    *bound = true;
    /* Whoever may connect is decided by the directory, as people expect of nginx's sockets. */
    *step = "chmod()";
    if (!inet && chmod(a->un.sun_path, 0666))
        return -1;
    /* Before listen(), so that the kernel makes the group of sockets that later ones join. */
    *step = "setsockopt(SO_REUSEPORT)";
    if (share && first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1))
        return -1;
    *step = "listen()";
    return listen(fd, o->backlog);
}

int socket_listen(const struct addr *a, const struct listen_options *o, bool first,
                  const char **step)
{
    int protocol = o->multipath && a->sa.sa_family != AF_UNIX ? IPPROTO_MPTCP : 0;
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    bool bound = false;

    *step = "socket()";
    if (fd < 0)
        return -1;
    if (bind_and_listen(fd, a, o, first, &bound, step)) {
        int saved = errno;

        /* A unix socket that was bound has left a name behind. */
        if (a->sa.sa_family == AF_UNIX && bound)
            unlink(a->un.sun_path);
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int socket_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -1;
    return flags & O_NONBLOCK ? 0 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int socket_cloexec(int fd, bool on)
{
    return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

/* An option of TCP; a unix socket has none and needs none. */
static int set_tcp_option(int fd, int name, bool on)
{
    if (set_option(fd, IPPROTO_TCP, name, on) == 0 || errno == EOPNOTSUPP || errno == ENOPROTOOPT)
        return 0;
    return -1;
}

int socket_nodelay(int fd, bool on)
{
    return set_tcp_option(fd, TCP_NODELAY, on);
}

int socket_cork(int fd, bool on)
{
    return set_tcp_option(fd, TCP_CORK, on);
}

int socket_linger_reset(int fd)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };

    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

int socket_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) ? errno : err;
}

static int set_transparent(int fd, int family, const char **step)
{
    bool v6 = family == AF_INET6;

    *step = v6 ? "setsockopt(IPV6_TRANSPARENT)" : "setsockopt(IP_TRANSPARENT)";
    return set_option(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT,
                      1);
}

/*
 * From which address. Without a port one is only chosen when the destination is known, so that ports last: each serves for
 * every destination. One that is given is so shared with other destinations too, and with what is left of an earlier connection.
 */
static int bind_local(int fd, int family, const struct connect_options *o, const char **step)
{
    const struct addr *local = o->local;

    if (o->transparent && set_transparent(fd, family, step) != 0)
        return -1;
    *step = "bind()";
    if (addr_port(local) == 0)
        (void) set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    else
        (void) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    return bind(fd, &local->sa, local->len);
}

static int connect_options(int fd, int family, const struct connect_options *o, const char **step)
{
    *step = "setsockopt(SO_KEEPALIVE)";
    if (o->keepalive && set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1) != 0)
        return -1;
    *step = "setsockopt(SO_RCVBUF)";
    if (o->rcvbuf > 0 && set_option(fd, SOL_SOCKET, SO_RCVBUF, o->rcvbuf) != 0)
        return -1;
    *step = "setsockopt(SO_SNDBUF)";
    if (o->sndbuf > 0 && set_option(fd, SOL_SOCKET, SO_SNDBUF, o->sndbuf) != 0)
        return -1;
    return o->local == NULL ? 0 : bind_local(fd, family, o, step);
}

int socket_connect(const struct addr *a, const struct connect_options *o, bool *connected)
{
    const char *unasked, **step = o != NULL && o->step != NULL ? o->step : &unasked;
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *connected = false;
    *step = "socket()";
    if (fd < 0)
        return -1;
    if (o == NULL || connect_options(fd, a->sa.sa_family, o, step) == 0) {
        *step = "connect()";
        *connected = connect(fd, &a->sa, a->len) == 0;
        if (*connected || errno == EINPROGRESS)
            return fd;
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}
