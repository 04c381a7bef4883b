/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load of t/lost.t, and the origin behind it: two programs in one file, so that both agree on
 * what a body holds. Built and run by t/lib/Load.pm; nothing else uses it.
 *
 *     lost_load origin PORT
 *         Answers GET /app/…?seed=S&len=L&chunked=0|1 with L octets made from the seed S, and any
 *         request that has a body with that body.
 *     lost_load load RATE KEPT FRESH PORT…
 *         RATE requests a second over KEPT kept-alive connections and FRESH that serve one request
 *         each. Commands on stdin, one a line: "targets PORT…" (new connections go there only;
 *         answered with a dot when those that go elsewhere are in use or gone), "report" (counts
 *         since the last report, the first failures, then a line with a dot); the end of stdin
 *         ends it.
 *
 * Whatever is not a complete 200 with the right body counts as failed: a refused connection, one
 * reset or closed before the answer, and a request that lost the race against the server's close
 * of a connection at rest. Nothing is repeated. Only a close that was seen before a request was
 * sent is no failure: the next request then opens a new connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "message.h"

#define SHOWN 20
#define STALL_S 8.0

struct slot {
    int fd;               /* -1: none */
    int fresh;            /* one request to a connection */
    int busy;             /* a request is under way */
    int reused;           /* it went over a connection that had served before */
    unsigned seed;
    size_t body_len;      /* of the expected answer */
    size_t out_len, sent, in_len;
    double started;
    int port;
    char what[80];
    char *out, *in;
};

static struct slot *slots;
static int slot_count, ep, targets[64], target_count, unconfirmed;
static unsigned long requests, failures, fresh_count, kept_count;
static char shown[SHOWN][240];
static double rate;
static unsigned serial;

static double clock_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}

__attribute__((format(printf, 2, 3)))
static void fail(struct slot *s, const char *format, ...)
{
    char why[120];
    va_list ap;

    va_start(ap, format);
    vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    for (char *p = why; *p; p++) {
        if (*p == '\r' || *p == '\n')
            *p = ' ';
    }
    if (failures < SHOWN)
        snprintf(shown[failures], sizeof shown[0], "F %s :%d %s: %s", s->reused ? "kept" : "new",
                 s->port, s->what, why);
    failures++;
}

static void slot_close(struct slot *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->busy = 0;
}

/* ------------------------------------------------------------------ the client */

static void watch(int fd, void *p)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};

    ev.data.ptr = p;
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static int slot_connect(struct slot *s)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    int one = 1;

    s->port = targets[serial % (unsigned) target_count];
    sa.sin_port = htons((uint16_t) s->port);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return -1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s->fd, (struct sockaddr *) &sa, sizeof sa) < 0 && errno != EINPROGRESS)
        return -1;
    watch(s->fd, s);
    return 0;
}

static size_t put_request(struct slot *s, unsigned kind)
{
    static const size_t sizes[] = {0, 13, 900, 3000, 900, 40, 1500, 30000};
    static char body[32768];
    const char *close = s->fresh ? "Connection: close\r\n" : "";
    size_t len = sizes[serial / 8 % 8], n;
    int at;

    s->seed = serial % 1000;
    s->body_len = len;
    if (kind == 0) {
        s->seed = 7;
        s->body_len = 2000;
        snprintf(s->what, sizeof s->what, "GET /file");
        return (size_t) sprintf(s->out, "GET /file HTTP/1.1\r\nHost: a\r\n%s\r\n", close);
    }
    if (kind == 1) {
        snprintf(s->what, sizeof s->what, "GET /app/ %zu", len);
        return (size_t) sprintf(s->out, "GET /app/?seed=%u&len=%zu&chunked=%u HTTP/1.1\r\n"
                                "Host: a\r\n%s\r\n", s->seed, len, serial & 1, close);
    }
    fill(body, s->seed, len);
    snprintf(s->what, sizeof s->what, "POST /app/ %zu%s", len, kind == 2 ? "" : " in chunks");
    at = sprintf(s->out, "POST /app/ HTTP/1.1\r\nHost: a\r\n%s", close);
    if (kind == 2) {
        n = (size_t) at + (size_t) sprintf(s->out + at, "Content-Length: %zu\r\n\r\n", len);
        memcpy(s->out + n, body, len);
        return n + len;
    }
    n = (size_t) at + (size_t) sprintf(s->out + at, "Transfer-Encoding: chunked\r\n\r\n");
    return n + put_chunked(s->out + n, body, len);
}

static void slot_write(struct slot *s)
{
    while (s->busy && s->sent < s->out_len) {
        ssize_t n = send(s->fd, s->out + s->sent, s->out_len - s->sent, MSG_NOSIGNAL);

        if (n < 0) {
            /* An answer may still be there to be read: reading says what became of it. */
            if (errno != EAGAIN && errno != ENOTCONN && errno != EPIPE && errno != ECONNRESET) {
                fail(s, "send: %s", strerror(errno));
                slot_close(s);
            }
            return;
        }
        s->sent += (size_t) n;
    }
}

static void slot_start(struct slot *s)
{
    static const unsigned mix[] = {0, 1, 2, 1, 0, 3, 1, 2};

    serial++;
    requests++;
    s->started = clock_s();
    s->reused = s->fd >= 0;
    *(s->reused ? &kept_count : &fresh_count) += 1;
    s->sent = s->in_len = 0;
    s->out_len = put_request(s, mix[serial % 8]);
    s->busy = 1;
    if (s->fd < 0 && slot_connect(s) < 0) {
        fail(s, "connect: %s", strerror(errno));
        slot_close(s);
        return;
    }
    slot_write(s);
}

static void slot_done(struct slot *s, size_t total, const char *body, size_t len)
{
    size_t head = head_length(s->in, s->in_len);
    const char *conn = field(s->in, head, "Connection");
    int closing = conn && strncasecmp(conn, "close", 5) == 0;
    size_t wrong = 0;

    while (wrong < len && len == s->body_len && body[wrong] == octet(s->seed, wrong))
        wrong++;
    if (strncmp(s->in, "HTTP/1.1 200 ", 13) != 0)
        fail(s, "answered %.12s", s->in);
    else if (len != s->body_len || wrong != len)
        fail(s, "%zu octets, %zu right, %zu wanted", len, wrong, s->body_len);
    else if (total != s->in_len)
        fail(s, "%zu octets too many", s->in_len - total);
    s->busy = 0;
    s->in_len = 0;
    if (closing || s->fresh)
        slot_close(s);
}

static void slot_ended(struct slot *s, const char *why)
{
    if (s->busy) {
        int error = 0;
        socklen_t n = sizeof error;

        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        fail(s, "%s after %zu of the answer%s", error ? strerror(error) : why, s->in_len,
             s->sent < s->out_len ? ", request not all sent" : "");
    }
    slot_close(s);
}

static void slot_read(struct slot *s)
{
    while (s->fd >= 0) {
        ssize_t n = recv(s->fd, s->in + s->in_len, BUFFER - s->in_len, 0), total;
        char *body = NULL;
        size_t len = 0;

        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
            return;
        if (n <= 0) {
            slot_ended(s, n == 0 ? "closed" : strerror(errno));
            return;
        }
        s->in_len += (size_t) n;
        total = message(s->in, s->in_len, &body, &len);
        if (!s->busy || total < 0) {
            fail(s, "unexpected: %.40s", s->in);
            slot_close(s);
        } else if (total > 0) {
            slot_done(s, (size_t) total, body, len);
        }
    }
}

static void report(void)
{
    printf("%lu %lu %lu %lu\n", requests, failures, kept_count, fresh_count);
    for (unsigned long i = 0; i < failures && i < SHOWN; i++)
        puts(shown[i]);
    puts(".");
    fflush(stdout);
    requests = failures = kept_count = fresh_count = 0;
}

static void set_targets(char **list, int n)
{
    target_count = 0;
    for (int i = 0; i < n && i < 64; i++)
        targets[target_count++] = atoi(list[i]);
}

static int is_target(int port)
{
    for (int i = 0; i < target_count; i++) {
        if (targets[i] == port)
            return 1;
    }
    return 0;
}

/* Says that new targets are in force: once no other has a connection that it may not know of yet. */
static void confirm_targets(void)
{
    for (int i = 0; i < slot_count; i++) {
        if (slots[i].busy && !slots[i].reused && !is_target(slots[i].port))
            return;
    }
    unconfirmed = 0;
    puts(".");
    fflush(stdout);
}

static void command(char *line)
{
    char *words[64], *save = NULL;
    int n = 0;

    for (char *w = strtok_r(line, " \n", &save); w && n < 64; w = strtok_r(NULL, " \n", &save))
        words[n++] = w;
    if (n > 1 && strcmp(words[0], "targets") == 0) {
        set_targets(words + 1, n - 1);
        unconfirmed = 1;
    } else if (n == 1 && strcmp(words[0], "report") == 0) {
        report();
    }
}

/* Starts what is due, the connection that has rested longest first. */
static void start_due(double *budget, int *next)
{
    double now = clock_s();

    for (int i = 0; i < slot_count; i++) {
        struct slot *s = &slots[(*next + i) % slot_count];

        if (s->busy && now - s->started > STALL_S) {
            fail(s, "no answer in %.0f s", STALL_S);
            slot_close(s);
        }
        if (*budget >= 1 && !s->busy) {
            slot_start(s);
            *budget -= 1;
            if (*budget < 1)
                *next = (*next + i + 1) % slot_count;
        }
    }
}

static int load(int argc, char **argv)
{
    struct epoll_event events[256];
    struct epoll_event in = {.events = EPOLLIN};
    int kept = atoi(argv[1]), next = 0;
    double last = clock_s(), budget = 0;

    rate = atof(argv[0]);
    slot_count = kept + atoi(argv[2]);
    set_targets(argv + 3, argc - 3);
    slots = calloc((size_t) slot_count, sizeof *slots);
    for (int i = 0; i < slot_count; i++) {
        slots[i].fd = -1;
        slots[i].fresh = i % slot_count >= kept;
        slots[i].out = malloc(BUFFER);
        slots[i].in = malloc(BUFFER + 1);
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &in);
    for (;;) {
        int n = epoll_wait(ep, events, 256, 1);
        double now = clock_s();
        char line[1024];

        for (int i = 0; i < n; i++) {
            struct slot *s = events[i].data.ptr;

            if (s == NULL) {
                if (fgets(line, sizeof line, stdin) == NULL)
                    return 0;
                command(line);
                continue;
            }
            if (events[i].events & EPOLLOUT)
                slot_write(s);
            if (s->fd >= 0 && events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                slot_read(s);
        }
        budget += (now - last) * rate;
        last = now;
        if (budget > rate / 20)
            budget = rate / 20;
        start_due(&budget, &next);
        if (unconfirmed)
            confirm_targets();
    }
}

/* ------------------------------------------------------------------ the origin */

static void write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};

        if (done < 0 && errno == EAGAIN && poll(&pfd, 1, 5000) == 1)
            continue;
        if (done < 0)
            return;
        p += done;
        n -= (size_t) done;
    }
}

static void origin_answer(struct slot *s, const char *body, size_t len)
{
    static char made[BUFFER];
    const char *seed = strstr(s->in, "?seed="), *nl = memchr(s->in, '\r', s->in_len);
    unsigned chunked = 0;
    size_t n;

    if (seed && seed < nl && sscanf(seed, "?seed=%u&len=%zu&chunked=%u", &s->seed, &len, &chunked)) {
        fill(made, s->seed, len);
        body = made;
    }
    if (chunked) {
        n = (size_t) sprintf(s->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        n += put_chunked(s->out + n, body, len);
    } else {
        n = (size_t) sprintf(s->out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
        memcpy(s->out + n, body, len);
        n += len;
    }
    write_all(s->fd, s->out, n);
}

static void origin_read(struct slot *s)
{
    char *body = NULL;
    size_t len = 0;
    ssize_t n, total;

    while ((n = recv(s->fd, s->in + s->in_len, BUFFER - s->in_len, 0)) > 0) {
        s->in_len += (size_t) n;
        s->in[s->in_len] = 0;
        while ((total = message(s->in, s->in_len, &body, &len)) > 0) {
            origin_answer(s, body, len);
            s->in_len -= (size_t) total;
            memmove(s->in, s->in + total, s->in_len);
        }
    }
    if (n == 0 || errno != EAGAIN) {
        close(s->fd);
        free(s->in);
        free(s->out);
        free(s);
    }
}

static int origin(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
    struct epoll_event events[64], in = {.events = EPOLLIN};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *) &sa, sizeof sa) < 0 || listen(listener, 1024) < 0) {
        perror("lost_load: origin");
        return 1;
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &in);
    puts(".");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, events, 64, -1);

        for (int i = 0; i < n; i++) {
            struct slot *s = events[i].data.ptr;
            int fd;

            if (s) {
                origin_read(s);
                continue;
            }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            s = calloc(1, sizeof *s);
            s->fd = fd;
            s->out = malloc(BUFFER);
            s->in = malloc(BUFFER + 1);
            watch(fd, s);
        }
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdin, NULL, _IONBF, 0);
    if (argc == 3 && strcmp(argv[1], "origin") == 0)
        return origin(atoi(argv[2]));
    if (argc >= 6 && strcmp(argv[1], "load") == 0)
        return load(argc - 2, argv + 2);
    fprintf(stderr, "usage: lost_load origin PORT | load RATE KEPT FRESH PORT...\n");
    return 2;
}
