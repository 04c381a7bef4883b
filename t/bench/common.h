/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the three benchmark programs (relay, origin, load) share: a listening socket, an address,
 * the end of a head, a Content-Length. They are separate, single-file programs on purpose, so
 * everything here is static inline. Nothing of proxyd is used: a yardstick must not be made
 * from what it measures.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#define BENCH_EVENTS 512
#define BENCH_NO_LENGTH ((size_t) -1)

/* Ends the program with the reason. what: what was tried. */
static inline _Noreturn void bench_die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, errno ? strerror(errno) : "invalid");
    exit(1);
}

/* Does not outlive its starter, is not killed by a closed peer, may open many descriptors. */
static inline void bench_setup(void)
{
    struct rlimit rl;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

/* Parses "127.0.0.1:8080" into *sin; ends the program where it is something else. */
static inline void bench_address(const char *text, struct sockaddr_in *sin)
{
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t) (colon - text) : 0;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;

    errno = 0;
    memset(sin, 0, sizeof *sin);
    if (len == 0 || len >= sizeof host || port < 1 || port > 65535)
        bench_die(text);
    memcpy(host, text, len);
    host[len] = '\0';
    sin->sin_family = AF_INET;
    sin->sin_port = htons((uint16_t) port);
    if (inet_pton(AF_INET, host, &sin->sin_addr) != 1)
        bench_die(text);
}

/* A nonblocking listening socket on the address; ends the program where there is none. */
static inline int bench_listen(const char *text)
{
    struct sockaddr_in sin;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    bench_address(text, &sin);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0
        || bind(fd, (struct sockaddr *) &sin, sizeof sin) != 0 || listen(fd, 4096) != 0)
        bench_die(text);
    return fd;
}

static inline void bench_nodelay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Adds fd to the epoll set, once and for all, edge-triggered; ptr comes back with its events. */
static inline void bench_watch(int ep, int fd, uint32_t events, void *ptr)
{
    struct epoll_event ev = {.events = events, .data.ptr = ptr};

    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0)
        bench_die("epoll_ctl");
}

/* Length of the head in buf, its empty line included; 0 where it is not complete. */
static inline size_t bench_head_end(const char *buf, size_t len)
{
    const char *end = memmem(buf, len, "\r\n\r\n", 4);

    return end ? (size_t) (end - buf) + 4 : 0;
}

/* Finds field `name` ("\nname:", lower case name of nlen octets) in a complete head of len
 * octets: pointer to its value, inside the head, or NULL. */
static inline const char *bench_field(const char *head, size_t len, const char *name, size_t nlen)
{
    const char *p = head, *end = head + len;

    while ((p = memchr(p, '\n', (size_t) (end - p))) != NULL) {
        p++;
        if ((size_t) (end - p) <= nlen)
            return NULL;
        if (p[nlen] == ':' && (p[0] | 0x20) == name[0] && strncasecmp(p, name, nlen) == 0) {
            for (p += nlen + 1; *p == ' '; p++)
                ;
            return p;
        }
    }
    return NULL;
}

/* Content-Length of a complete head, or BENCH_NO_LENGTH. */
static inline size_t bench_content_length(const char *head, size_t len)
{
    const char *value = bench_field(head, len, "content-length", 14);

    return value ? strtoul(value, NULL, 10) : BENCH_NO_LENGTH;
}

#endif
