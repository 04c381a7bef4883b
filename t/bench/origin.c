/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The origin behind the servers under test: HTTP/1.1 on one epoll loop, answers from memory, as
 * cheap as it can be, so that the processor it shares with the load generator is not the limit.
 *
 *     origin ADDRESS:PORT
 *
 * GET /any/prefix/1k answers 200 with 1 KiB; the last segment is a number and perhaps k or m, up
 * to 16m. Everything else is 404. The head has what origins commonly send. Request bodies are
 * not understood; a head has to fit into 4 KiB.
 */
#include "common.h"

#include <sys/uio.h>
#include <time.h>

#define BODY_MAX (16UL * 1024 * 1024)
#define REQUEST_MAX 4096

struct client {
    int fd;
    int closing;            /* after the answer */
    struct client *next;    /* among the dead */
    size_t in_len;
    char in[REQUEST_MAX];
    char head[512];
    struct iovec out[2];    /* what is left of head and body */
};

static int ep, listener;
static struct client *dead;
static char *body;
static char date[40];
static time_t date_time;

static const char *http_date(void)
{
    time_t now = time(NULL);
    struct tm tm;

    if (now != date_time) {
        date_time = now;
        gmtime_r(&now, &tm);
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return date;
}

static void client_close(struct client *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    c->next = dead;
    dead = c;
}

/* Size asked for by the target "/x/64k HTTP/1.1…", or -1. */
static long target_size(const char *target, const char *end)
{
    const char *p = target, *segment = NULL;
    char *rest;
    unsigned long n;

    for (; p < end && *p != ' ' && *p != '?'; p++)
        if (*p == '/')
            segment = p + 1;
    if (segment == NULL || *segment < '0' || *segment > '9')
        return -1;
    n = strtoul(segment, &rest, 10);
    if (n > BODY_MAX)
        return -1;
    if (*rest == 'k')
        n *= 1024;
    else if (*rest == 'm')
        n *= 1024 * 1024;
    return n > BODY_MAX ? -1 : (long) n;
}

/* Writes what is left of the answer: 1 done, 0 the socket is full, -1 closed. */
static int client_flush(struct client *c)
{
    while (c->out[0].iov_len + c->out[1].iov_len > 0) {
        int first = c->out[0].iov_len == 0;
        ssize_t n = writev(c->fd, c->out + first, 2 - first);

        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0) {
            client_close(c);
            return -1;
        }
        for (int i = first; i < 2; i++) {
            size_t take = (size_t) n < c->out[i].iov_len ? (size_t) n : c->out[i].iov_len;

            c->out[i].iov_base = (char *) c->out[i].iov_base + take;
            c->out[i].iov_len -= take;
            n -= (ssize_t) take;
        }
    }
    if (c->closing) {
        client_close(c);
        return -1;
    }
    return 1;
}

/* Makes the answer to the complete request head of len octets. */
static void client_answer(struct client *c, size_t len)
{
    const char *connection = bench_field(c->in, len, "connection", 10);
    const char *line = memchr(c->in, '\n', len);
    long size = strncmp(c->in, "GET ", 4) == 0 ? target_size(c->in + 4, line) : -1;
    size_t length = size < 0 ? 0 : (size_t) size;

    c->closing = (connection != NULL && strncasecmp(connection, "close", 5) == 0)
        || (line[-2] == '0' && (connection == NULL || strncasecmp(connection, "keep", 4) != 0));
    c->out[0].iov_base = c->head;
    c->out[0].iov_len = (size_t) snprintf(c->head, sizeof c->head,
        "HTTP/1.1 %s\r\nServer: origin\r\nDate: %s\r\nContent-Type: text/html; charset=utf-8\r\n"
        "Content-Length: %zu\r\nConnection: %s\r\nLast-Modified: Tue, 04 Mar 2025 10:00:00 GMT\r\n"
        "ETag: \"67c6d020-%zx\"\r\nAccept-Ranges: bytes\r\n\r\n",
        size < 0 ? "404 Not Found" : "200 OK", http_date(), length,
        c->closing ? "close" : "keep-alive", length);
    c->out[1].iov_base = body;
    c->out[1].iov_len = length;
}

/* Reads, answers and writes until it has to wait; a short read has emptied the socket. */
static void client_run(struct client *c)
{
    int drained = 0;

    while (client_flush(c) == 1) {
        size_t head = c->in_len > 0 ? bench_head_end(c->in, c->in_len) : 0;
        size_t room = REQUEST_MAX - c->in_len;
        ssize_t n;

        if (head > 0) {
            client_answer(c, head);
            c->in_len -= head;
            memmove(c->in, c->in + head, c->in_len);
            continue;
        }
        if (drained)
            return;
        n = room > 0 ? read(c->fd, c->in + c->in_len, room) : 0;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            client_close(c);
            return;
        }
        c->in_len += (size_t) n;
        drained = (size_t) n < room;
    }
}

static void accept_all(void)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *c = calloc(1, sizeof *c);

        if (c == NULL)
            bench_die("calloc");
        c->fd = fd;
        bench_nodelay(fd);
        bench_watch(ep, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, c);
    }
}

int main(int argc, char **argv)
{
    static struct epoll_event events[BENCH_EVENTS];
    static const char text[] = "The quick brown fox jumps over the lazy dog, 0123456789 times.\n";

    if (argc != 2) {
        fprintf(stderr, "usage: origin ADDRESS:PORT\n");
        return 1;
    }
    bench_setup();
    body = malloc(BODY_MAX);
    if (body == NULL)
        bench_die("malloc");
    for (size_t i = 0; i < BODY_MAX; i++)
        body[i] = text[i % (sizeof text - 1)];
    ep = epoll_create1(EPOLL_CLOEXEC);
    listener = bench_listen(argv[1]);
    bench_watch(ep, listener, EPOLLIN | EPOLLET, NULL);
    for (;;) {      /* ends by a signal */
        int n = epoll_wait(ep, events, BENCH_EVENTS, -1);

        if (n < 0 && errno != EINTR)
            bench_die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;

            if (c == NULL)
                accept_all();
            else if (c->fd >= 0 && (events[i].events & ~(uint32_t) EPOLLOUT || c->out[1].iov_len))
                client_run(c);
        }
        while (dead != NULL) {
            struct client *c = dead;

            dead = c->next;
            free(c);
        }
    }
}
