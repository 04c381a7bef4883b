/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many WebSockets for tests, at both ends of a proxy.
 *
 *   websockets origin PORT          takes upgrades and sends back whatever comes; to other requests it says "ok"
 *   websockets client PORT COUNT    opens COUNT of them, says "open N", and does what standard input asks, a line each:
 *                                   "ping" sends a message over each and awaits all of them back: "alive N lost M"
 *                                   (behind each answer there is a line with a dot)
 *
 * Ends when standard input does. Built and run by t/lib/Load.pm.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 60000
#define AT_A_TIME 200 /* handshakes under way */

struct socket {
    int fd; /* -1: closed */
    bool open;
    unsigned pending; /* bytes that are to come back */
};

static const char upgrade[] = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                              "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const char accepted[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                               "Upgrade: websocket\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char plain[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/* A masked text frame, "ping". */
static const unsigned char message[] = {
    0x81, 0x84, 1, 2, 3, 4, 'p' ^ 1, 'i' ^ 2, 'n' ^ 3, 'g' ^ 4
};

static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t) atoi(port)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void watch(int fd, void *data)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = data };

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0)
        die("epoll_ctl");
}

static bool put(int fd, const void *ptr, size_t len)
{
    return send(fd, ptr, len, MSG_NOSIGNAL) == (ssize_t) len;
}

/* The origin ---------------------------------------------------------------------------------- */

static void origin_accept(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct socket *s = calloc(1, sizeof(*s));

        s->fd = fd;
        watch(fd, s);
    }
}

static void origin_read(struct socket *s)
{
    char buf[65536];
    ssize_t n = recv(s->fd, buf, sizeof(buf), 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n > 0 && !s->open) {
        /* Heads of tests come in one piece; without Upgrade: what the API's load asks. */
        s->open = memmem(buf, (size_t) n, "pgrade: websocket", 17) != NULL;
        if (s->open ? put(s->fd, accepted, sizeof(accepted) - 1)
                    : put(s->fd, plain, sizeof(plain) - 1))
            return;
    } else if (n > 0 && put(s->fd, buf, (size_t) n)) {
        return;
    }
    close(s->fd);
    free(s);
}

static void origin(const char *port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = address(port);
    struct epoll_event events[256];

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *) &at, sizeof(at)) != 0 || listen(listener, 4096) != 0)
        die("listen");
    watch(listener, &listener);
    watch(0, &epoll_fd);
    puts("ready\n.");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &listener)
                origin_accept(listener);
            else if (events[i].data.ptr == &epoll_fd)
                exit(0);
            else
                origin_read(events[i].data.ptr);
        }
    }
}

/* The client ---------------------------------------------------------------------------------- */

static struct socket *sockets;
static unsigned count, opened, lost, waiting;

static void client_open(const struct sockaddr_in *to, struct socket *s)
{
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (const struct sockaddr *) to, sizeof(*to)) != 0)
        die("connect");
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    watch(s->fd, s);
    if (!put(s->fd, upgrade, sizeof(upgrade) - 1))
        die("send");
    waiting++;
}

static void client_lost(struct socket *s)
{
    close(s->fd);
    s->fd = -1;
    lost++;
    if (s->pending > 0 || !s->open)
        waiting--;
    s->pending = 0;
}

static void client_read(struct socket *s)
{
    char buf[4096];
    ssize_t n = recv(s->fd, buf, sizeof(buf), 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        client_lost(s);
    } else if (!s->open) {
        if (n < 12 || memcmp(buf, "HTTP/1.1 101", 12) != 0) {
            client_lost(s);
            return;
        }
        s->open = true;
        opened++;
        waiting--;
    } else if (s->pending > 0) {
        s->pending -= (unsigned) n < s->pending ? (unsigned) n : s->pending;
        if (s->pending == 0)
            waiting--;
    }
}

/* Reads until no more than `most` are awaited. */
static void client_wait(unsigned most)
{
    struct epoll_event events[256];

    while (waiting > most) {
        int n = epoll_wait(epoll_fd, events, 256, WAIT_MS);

        if (n == 0) {
            printf("%u did not come\n", waiting);
            return;
        }
        for (int i = 0; i < n; i++)
            client_read(events[i].data.ptr);
    }
}

static void client_ping(void)
{
    for (unsigned i = 0; i < count; i++) {
        struct socket *s = &sockets[i];

        if (s->fd < 0)
            continue;
        s->pending = sizeof(message);
        waiting++;
        if (!put(s->fd, message, sizeof(message)))
            client_lost(s);
        client_wait(4 * AT_A_TIME);
    }
    client_wait(0);
}

static void client(const char *port)
{
    struct sockaddr_in to = address(port);
    char line[64];

    sockets = calloc(count, sizeof(*sockets));
    for (unsigned i = 0; i < count; i++) {
        client_open(&to, &sockets[i]);
        client_wait(AT_A_TIME);
    }
    client_wait(0);
    printf("open %u\n.\n", opened);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        client_ping();
        printf("alive %u lost %u\n.\n", opened - lost, lost);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    epoll_fd = epoll_create1(0);
    if (argc == 3 && strcmp(argv[1], "origin") == 0)
        origin(argv[2]);
    if (argc != 4 || strcmp(argv[1], "client") != 0) {
        fprintf(stderr, "usage: websockets origin PORT | client PORT COUNT\n");
        return 2;
    }
    count = (unsigned) atoi(argv[3]);
    client(argv[2]);
    return 0;
}
