/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load generator for TLS: a closed loop of GET requests over N connections, or of new connections with one request
 * each. Each answer must be a 200 with the expected length. Prints one line of JSON, as load.c does.
 *
 *     load_tls --connect=ADDR:PORT --path=/1k --expect=1024 --connections=64
 *          (--seconds=2.5 | --requests=N) [--new-connections [--resume]] [--version=1.2|1.3] [--idle]
 *
 * --new-connections: a handshake for each request, which says "Connection: close"; the server's close is awaited.
 *     --resume: each place among the N comes again with the session it was given last. One that is not resumed is an error.
 * --idle: one request on each of N connections, "ready" on stdout, and then they stay open until stdin ends.
 */
#include "common.h"

#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <time.h>

#define STALL_S 10.0
#define HEAD_MAX 8192
#define ERRORS_MAX 1000
#define TIMES_MAX (1 << 20)

struct conn {
    int fd; /* -1: none */
    SSL *ssl;
    SSL_SESSION *session; /* of the connection before */
    int shaken, asked, done;
    char head[HEAD_MAX];
    size_t head_len; /* 0 after it is complete */
    int head_seen;
    size_t left; /* of the body */
    double started;
};

static struct {
    struct sockaddr_in server;
    const char *path, *host;
    size_t expect;
    long connections, requests;
    double seconds;
    int fresh, resume, idle, version;
} opt = { .path = "/1k", .host = "bench.example.com", .expect = 1024, .connections = 64 };

static SSL_CTX *ctx;
static char request[1024];
static int request_len;
static char buffer[64 * 1024];
static struct conn *conns;
static int ep;
static long started, finished, errors, in_flight, times;
static unsigned long long octets;
static double begin, deadline, now;
static float *time_us;
static char first_error[160];

static double clock_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}

static int want_more(void)
{
    if (errors >= ERRORS_MAX)
        return 0;
    return opt.requests > 0 ? started < opt.requests : now < deadline;
}

static void conn_drop(struct conn *c)
{
    if (c->ssl != NULL) {
        if (opt.resume && c->done) {
            SSL_SESSION_free(c->session);
            c->session = SSL_get1_session(c->ssl);
        }
        SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(c->ssl);
    }
    c->ssl = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void conn_error(struct conn *c, const char *what)
{
    if (errors++ == 0)
        snprintf(first_error, sizeof first_error, "%s", what);
    ERR_clear_error();
    conn_drop(c);
    in_flight--;
}

static void conn_ask(struct conn *c)
{
    c->asked = 1;
    c->head_len = c->left = 0;
    c->head_seen = c->done = 0;
    if (!opt.fresh)
        c->started = now;
    if (SSL_write(c->ssl, request, request_len) != request_len)
        conn_error(c, "the request could not be written");
}

static void conn_start(struct conn *c)
{
    started++;
    in_flight++;
    c->started = now;
    if (c->fd >= 0) {
        conn_ask(c);
        return;
    }
    c->shaken = c->asked = c->done = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        bench_die("socket");
    bench_nodelay(c->fd);
    if (connect(c->fd, (struct sockaddr *) &opt.server, sizeof opt.server) != 0 && errno != EINPROGRESS) {
        conn_error(c, "connect");
        return;
    }
    c->ssl = SSL_new(ctx);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1)
        bench_die("SSL_new");
    SSL_set_tlsext_host_name(c->ssl, opt.host);
    if (c->session != NULL)
        SSL_set_session(c->ssl, c->session);
    SSL_set_connect_state(c->ssl);
    bench_watch(ep, c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c);
}

/* An answer is complete (and the connection closed, where that was to be awaited). */
static void conn_finished(struct conn *c)
{
    finished++;
    in_flight--;
    if (times < TIMES_MAX)
        time_us[times++] = (float) ((now - c->started) * 1e6);
    if (opt.fresh)
        conn_drop(c);
    if (!opt.idle && want_more())
        conn_start(c);
}

/* 0, or -1: the connection is gone. */
static int take_bytes(struct conn *c, const char *p, size_t n)
{
    size_t end;

    octets += n;
    if (!c->head_seen) {
        size_t room = HEAD_MAX - c->head_len, part = n < room ? n : room;

        memcpy(c->head + c->head_len, p, part);
        end = bench_head_end(c->head, c->head_len + part);
        if (end == 0) {
            c->head_len += part;
            if (c->head_len == HEAD_MAX)
                return conn_error(c, "a head that is too long"), -1;
            return 0;
        }
        if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0)
            return conn_error(c, "not a 200"), -1;
        c->left = bench_content_length(c->head, end);
        if (c->left != opt.expect)
            return conn_error(c, "not the expected length"), -1;
        c->head_seen = 1;
        p += end - c->head_len;
        n -= end - c->head_len;
    }
    if (n > c->left)
        return conn_error(c, "more than the answer"), -1;
    c->left -= n;
    return 0;
}

static void conn_ready(struct conn *c)
{
    int n;

    if (c->fd < 0)
        return;
    if (!c->shaken) {
        n = SSL_do_handshake(c->ssl);
        if (n != 1) {
            n = SSL_get_error(c->ssl, n);
            if (n != SSL_ERROR_WANT_READ && n != SSL_ERROR_WANT_WRITE)
                conn_error(c, "the handshake failed");
            return;
        }
        c->shaken = 1;
        if (c->session != NULL && !SSL_session_reused(c->ssl)) {
            conn_error(c, "the session was not resumed");
            return;
        }
        conn_ask(c);
        if (c->fd < 0)
            return;
    }
    while ((n = SSL_read(c->ssl, buffer, sizeof buffer)) > 0) {
        if (take_bytes(c, buffer, (size_t) n) != 0)
            return;
        if (c->head_seen && c->left == 0 && !c->done) {
            c->done = 1;
            if (!opt.fresh) {
                conn_finished(c);
                if (c->fd < 0 || opt.idle)
                    return;
            }
        }
    }
    n = SSL_get_error(c->ssl, n);
    if (n == SSL_ERROR_WANT_READ || n == SSL_ERROR_WANT_WRITE)
        return;
    if (opt.fresh && c->done && n == SSL_ERROR_ZERO_RETURN)
        conn_finished(c);
    else
        conn_error(c, c->done ? "an end without close_notify" : "closed before the answer");
}

static void turn_until(long left)
{
    struct epoll_event events[BENCH_EVENTS];
    double progress = now;
    long before = finished;

    while (in_flight > left) {
        int n = epoll_wait(ep, events, BENCH_EVENTS, 1000);

        now = clock_s();
        for (int i = 0; i < n; i++)
            conn_ready(events[i].data.ptr);
        if (finished != before)
            progress = now, before = finished;
        if (now - progress > STALL_S) {
            if (errors++ == 0)
                snprintf(first_error, sizeof first_error, "nothing came for %g s", STALL_S);
            return;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *) a, y = *(const float *) b;

    return (x > y) - (x < y);
}

static void print_result(void)
{
    double seconds = now - begin;

    qsort(time_us, (size_t) times, sizeof *time_us, by_size);
    printf("{\"requests\": %ld, \"errors\": %ld, \"seconds\": %.6f, \"rps\": %.1f, \"octets\": %llu, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"first_error\": \"%s\"}\n",
           finished, errors, seconds, seconds > 0 ? (double) finished / seconds : 0, octets,
           times > 0 ? (double) time_us[times / 2] : 0, times > 0 ? (double) time_us[times * 99 / 100] : 0,
           first_error);
}

static void run_idle(void)
{
    char c;

    for (long i = 0; i < opt.connections && errors == 0; i++) {
        conn_start(conns + i);
        turn_until(0);
    }
    if (errors == 0) {
        printf("ready\n");
        fflush(stdout);
        while (read(0, &c, 1) > 0) /* ends with its starter */
            ;
    }
    print_result();
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        { "connect", 1, NULL, 'c' }, { "path", 1, NULL, 'p' },      { "host", 1, NULL, 'h' },
        { "expect", 1, NULL, 'e' },  { "connections", 1, NULL, 'n' }, { "requests", 1, NULL, 'r' },
        { "seconds", 1, NULL, 's' }, { "new-connections", 0, NULL, 'f' }, { "resume", 0, NULL, 'R' },
        { "idle", 0, NULL, 'i' },    { "version", 1, NULL, 'v' },   { "flight", 1, NULL, 'F' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'c': bench_address(optarg, &opt.server); break;
        case 'p': opt.path = optarg; break;
        case 'h': opt.host = optarg; break;
        case 'e': opt.expect = strtoul(optarg, NULL, 10); break;
        case 'n': opt.connections = strtol(optarg, NULL, 10); break;
        case 'r': opt.requests = strtol(optarg, NULL, 10); break;
        case 's': opt.seconds = strtod(optarg, NULL); break;
        case 'f': opt.fresh = 1; break;
        case 'R': opt.resume = 1; break;
        case 'i': opt.idle = 1; break;
        case 'v': opt.version = strcmp(optarg, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION; break;
        case 'F': break; /* one at a time */
        default: exit(1);
        }
    }
    errno = 0;
    if (opt.server.sin_port == 0 || opt.connections < 1 || opt.connections > 100000
        || (!opt.idle && opt.requests <= 0 && opt.seconds <= 0) || (opt.resume && !opt.fresh))
        bench_die("options");
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    bench_setup();
    request_len = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n%s\r\n",
                           opt.path, opt.host, opt.fresh ? "Connection: close\r\n" : "");
    conns = calloc((size_t) opt.connections, sizeof *conns);
    time_us = calloc(TIMES_MAX, sizeof *time_us);
    ep = epoll_create1(EPOLL_CLOEXEC);
    ctx = SSL_CTX_new(TLS_client_method());
    if (conns == NULL || time_us == NULL || ep < 0 || ctx == NULL
        || request_len >= (int) sizeof request)
        bench_die("start");
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_min_proto_version(ctx, opt.version);
    SSL_CTX_set_max_proto_version(ctx, opt.version);
    for (long i = 0; i < opt.connections; i++)
        conns[i].fd = -1;
    begin = now = clock_s();
    deadline = begin + opt.seconds;
    if (opt.idle) {
        run_idle();
    } else {
        for (long i = 0; i < opt.connections && want_more(); i++)
            conn_start(conns + i);
        turn_until(0);
        print_result();
    }
    for (long i = 0; i < opt.connections; i++) {
        conn_drop(conns + i);
        SSL_SESSION_free(conns[i].session);
    }
    SSL_CTX_free(ctx);
    free(conns);
    free(time_us);
    return errors > 0;
}
