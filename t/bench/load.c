/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load generator: a closed loop of GET requests over N connections, on one epoll loop. Each
 * answer must be a 200 with the expected length; anything else is an error, and the result says
 * how many there were and what the first one was. Prints one line of JSON.
 *
 *     load --connect=ADDR:PORT --path=/1k --expect=1024 --connections=64
 *          (--seconds=2.5 | --requests=N) [--host=NAME] [--big-headers]
 *          [--new-connections [--server-closes]] [--idle]
 *          [--keys=N]
 *
 * --new-connections: each request on a connection of its own, with "Connection: close", and the
 *     server's close is awaited; --server-closes: the same without that field, for a server that
 *     closes anyhow.
 * --keys=N: "?k=" and a random number of eight digits below N behind the path of each request.
 * --idle: one request on each of N connections (--flight=1 of them at a time), "ready" on stdout,
 *     and then they stay open until stdin ends. One that the server closed meanwhile is an error.
 *
 * A run ends when its time or count is over and the requests under way are answered: CPU time
 * measured around it belongs to counted requests only. Nothing waits longer than STALL_S.
 */
#include "common.h"

#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <time.h>

#define STALL_S 10.0
#define HEAD_MAX 8192
#define ERRORS_MAX 1000

/* Latency histogram: 32 linear steps per power of two of microseconds, error below 3.2 %. */
#define HIST_SUB 32
#define HIST_SIZE (40 * HIST_SUB)

struct conn {
    int fd;             /* -1: none */
    int done;           /* has had its answer: idle, or waiting for the server's close */
    size_t head_len;    /* octets of the head collected in head; 0 after it is complete */
    int head_seen;
    size_t left;        /* of the body */
    double started;
    char *head;         /* only where a head comes in pieces */
};

static struct {
    struct sockaddr_in server;
    const char *path, *host;
    size_t expect;
    long connections, requests, flight, keys;
    double seconds;
    int big, fresh, server_closes, idle;
} opt = {.path = "/1k", .host = "bench.example.com", .expect = 1024, .connections = 64,
         .flight = 1};

static char request[2048];
static size_t request_len;
static char *request_key; /* the eight digits in it; NULL: none */
static char buffer[256 * 1024];
static struct conn *conns;
static int ep;
static long started, finished, errors, in_flight;
static unsigned long long octets;
static double begin, deadline, now;
static unsigned long hist[HIST_SIZE];
static char first_error[160];
static unsigned source;

static void conn_start(struct conn *c);

static double clock_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}

static void hist_add(double s)
{
    unsigned long us = s > 0 ? (unsigned long) (s * 1e6) : 0;
    unsigned shift = 0;

    while ((us >> shift) >= 2 * HIST_SUB)
        shift++;
    us = shift * HIST_SUB + (us >> shift);
    hist[us < HIST_SIZE ? us : HIST_SIZE - 1]++;
}

/* Upper bound, in µs, of the class in which the share q of all latencies ends. */
static double hist_quantile(double q)
{
    double want = ceil(q * (double) finished), seen = 0;

    for (unsigned i = 0; i < HIST_SIZE; i++) {
        seen += (double) hist[i];
        if (seen >= want && seen > 0) {
            unsigned shift = i < 2 * HIST_SUB ? 0 : i / HIST_SUB - 1;

            return ldexp((double) (i - shift * HIST_SUB + 1), (int) shift);
        }
    }
    return 0;
}

static int want_more(void)
{
    if (errors >= ERRORS_MAX)
        return 0;
    return opt.requests > 0 ? started < opt.requests : now < deadline;
}

static void conn_drop(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    free(c->head);
    c->head = NULL;
    c->head_len = 0;
}

/* The request under way has failed: counted, and a new connection takes its place. */
static void conn_fail(struct conn *c, const char *why)
{
    if (errors++ == 0)
        snprintf(first_error, sizeof first_error, "%s%s%s", why, errno ? ": " : "",
                 errno ? strerror(errno) : "");
    conn_drop(c);
    in_flight--;
    if (!opt.idle && want_more())
        conn_start(c);
}

static int conn_open(struct conn *c)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return -1;
    /* Sixteen source addresses: the ephemeral ports of one run out in seconds. */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source++ % 16);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *) &from, sizeof from) != 0
        || connect(c->fd, (struct sockaddr *) &opt.server, sizeof opt.server) != 0)
        return -1;
    bench_nodelay(c->fd);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    bench_watch(ep, c->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, c);
    return 0;
}

/* Another key: a linear congruence does, since only its high bits are used. */
static void next_key(void)
{
    static unsigned long long state = 1;
    unsigned long n;

    state = state * 6364136223846793005ull + 1442695040888963407ull;
    n = (unsigned long) ((state >> 32) * (unsigned long long) opt.keys >> 32);
    for (unsigned i = 8; i-- > 0; n /= 10)
        request_key[i] = (char) ('0' + n % 10);
}

/* Sends a request, on a new connection where there is none. */
static void conn_start(struct conn *c)
{
    started++;
    in_flight++;
    errno = 0;
    c->done = c->head_seen = 0;
    c->started = now;
    if (request_key != NULL)
        next_key();
    if (c->fd < 0 && conn_open(c) != 0)
        conn_fail(c, "connect");
    else if (write(c->fd, request, request_len) != (ssize_t) request_len)
        conn_fail(c, "write");
}

/* Takes n octets at p that belong to a head; how many of them it used, or -1. */
static ssize_t conn_head(struct conn *c, const char *p, size_t n)
{
    const char *head = p;
    size_t len = n, end, before = c->head_len;

    if (before > 0 || (end = bench_head_end(p, n)) == 0) {
        if (n > HEAD_MAX - before || (c->head == NULL && (c->head = malloc(HEAD_MAX)) == NULL)) {
            conn_fail(c, "head too long");
            return -1;
        }
        memcpy(c->head + before, p, n);
        head = c->head;
        len = c->head_len = before + n;
        if ((end = bench_head_end(head, len)) == 0)
            return (ssize_t) n;
    }
    if (end < 16 || memcmp(head, "HTTP/1.1 200", 12) != 0) {
        conn_fail(c, "status is not 200");
        return -1;
    }
    c->left = bench_content_length(head, end);
    if (c->left != opt.expect) {
        conn_fail(c, "Content-Length is not as expected");
        return -1;
    }
    c->head_seen = 1;
    c->head_len = 0;
    return (ssize_t) (end - before);
}

/* The answer is complete and, with --new-connections, closed by the server. */
static void conn_finish(struct conn *c)
{
    double t = clock_s();

    now = t;
    hist_add(t - c->started);
    finished++;
    in_flight--;
    c->done = 1;
    if (opt.fresh)
        conn_drop(c);
    if (!opt.idle && want_more())
        conn_start(c);
}

/* Takes what was read; -1 where the connection is no more to be read. */
static int conn_take(struct conn *c, size_t n)
{
    const char *p = buffer;

    octets += n;
    if (!c->head_seen) {
        ssize_t used = conn_head(c, p, n);

        if (used < 0)
            return -1;
        n -= (size_t) used;
        if (!c->head_seen)
            return 0;
    }
    if (n > c->left) {
        conn_fail(c, "more octets than Content-Length");
        return -1;
    }
    c->left -= n;
    if (c->left > 0)
        return 0;
    if (opt.fresh)
        return 0;       /* the end of the connection completes it */
    conn_finish(c);
    return -1;
}

static void conn_readable(struct conn *c)
{
    while (c->fd >= 0) {
        ssize_t n = read(c->fd, buffer, sizeof buffer);

        errno = n < 0 ? errno : 0;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 && c->done) {            /* closed while at rest: reopened when needed */
            if (opt.idle) {
                in_flight++;
                conn_fail(c, "idle connection closed by the server");
            } else {
                conn_drop(c);
            }
            return;
        }
        if (n <= 0) {
            if (n == 0 && opt.fresh && c->head_seen && c->left == 0)
                conn_finish(c);
            else
                conn_fail(c, n < 0 ? "read" : "connection closed early");
            return;
        }
        if (c->done) {
            in_flight++;
            conn_fail(c, "octets without a request");
            return;
        }
        if (conn_take(c, (size_t) n) != 0)
            return;
        if ((size_t) n < sizeof buffer && !opt.fresh)
            return;     /* a short read has emptied the socket; an end makes another edge */
        if (opt.fresh && c->left > 0 && (size_t) n < sizeof buffer)
            return;
    }
}

/* Handles events until `flight` requests at most are under way, or nothing moves for STALL_S. */
static void turn_until(long flight)
{
    static struct epoll_event events[BENCH_EVENTS];
    double moved = clock_s();

    while (in_flight > flight) {
        int n = epoll_wait(ep, events, BENCH_EVENTS, 1000);

        now = clock_s();
        if (n > 0)
            moved = now;
        for (int i = 0; i < n; i++)
            conn_readable(events[i].data.ptr);
        if (now - moved > STALL_S) {
            errors += in_flight;
            snprintf(first_error, sizeof first_error, "no answer within %.0f s", STALL_S);
            return;
        }
    }
}

static void print_result(void)
{
    double took = clock_s() - begin;

    printf("{\"requests\": %ld, \"errors\": %ld, \"seconds\": %.4f, \"rps\": %.1f, "
           "\"octets\": %llu, \"p50_us\": %.0f, \"p90_us\": %.0f, \"p99_us\": %.0f, "
           "\"p999_us\": %.0f, \"max_us\": %.0f, \"first_error\": \"%s\"}\n",
           finished, errors, took, (double) finished / took, octets, hist_quantile(.5),
           hist_quantile(.9), hist_quantile(.99), hist_quantile(.999), hist_quantile(1),
           first_error);
    fflush(stdout);
}

static void run_idle(void)
{
    struct pollfd in = {.fd = 0, .events = POLLIN};
    char c;

    for (long i = 0; i < opt.connections && errors == 0; i++) {
        conn_start(conns + i);
        turn_until(opt.flight - 1);
    }
    turn_until(0);
    if (errors == 0) {
        printf("ready\n");
        fflush(stdout);
        while (poll(&in, 1, -1) < 0 || read(0, &c, 1) > 0)      /* ends with its starter */
            ;
        in_flight = 0;
        for (long i = 0; i < opt.connections; i++)              /* are they still there? */
            conn_readable(conns + i);
    }
    print_result();
}

static void make_request(void)
{
    int n = snprintf(request, sizeof request, "GET %s%s HTTP/1.1\r\nHost: %s\r\n", opt.path,
                     opt.keys > 0 ? "?k=00000000" : "", opt.host);

    if (n >= (int) sizeof request)
        bench_die("path and host are too long");
    if (opt.keys > 0)
        request_key = request + strlen("GET ") + strlen(opt.path) + strlen("?k=");
    n += snprintf(request + n, sizeof request - (size_t) n, "%s%s\r\n",
        opt.big
            ? "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
              "Chrome/126.0.0.0 Safari/537.36\r\n"
              "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,"
              "image/webp,*/*;q=0.8\r\n"
              "Accept-Language: en-GB,en;q=0.9,de;q=0.6\r\n"
              "Accept-Encoding: gzip, deflate, br, zstd\r\n"
              "Referer: https://bench.example.com/products/list?page=3\r\n"
              "Cookie: session=4f1c9a7be0d24c55a1b2; theme=dark; consent=yes; "
              "_ga=GA1.2.1234567.89\r\n"
              "Upgrade-Insecure-Requests: 1\r\n"
              "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
              "Sec-Fetch-Site: same-origin\r\nCache-Control: max-age=0\r\n"
            : "User-Agent: curl/8.5.0\r\nAccept: */*\r\n",
        opt.fresh && !opt.server_closes ? "Connection: close\r\n" : "");
    if (n >= (int) sizeof request)
        bench_die("path and host are too long");
    request_len = (size_t) n;
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"connect", 1, NULL, 'c'},      {"path", 1, NULL, 'p'},
        {"host", 1, NULL, 'h'},         {"expect", 1, NULL, 'e'},
        {"connections", 1, NULL, 'n'},  {"requests", 1, NULL, 'r'},
        {"seconds", 1, NULL, 's'},      {"big-headers", 0, NULL, 'b'},
        {"new-connections", 0, NULL, 'f'}, {"server-closes", 0, NULL, 'S'},
        {"idle", 0, NULL, 'i'},         {"flight", 1, NULL, 'F'},
        {"keys", 1, NULL, 'k'},
        {NULL, 0, NULL, 0},
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
        case 'b': opt.big = 1; break;
        case 'f': opt.fresh = 1; break;
        case 'S': opt.server_closes = 1; break;
        case 'i': opt.idle = 1; break;
        case 'k': opt.keys = strtol(optarg, NULL, 10); break;
        case 'F': opt.flight = strtol(optarg, NULL, 10); break;
        default: exit(1);
        }
    }
    errno = 0;
    if (opt.server.sin_port == 0 || opt.flight < 1 || opt.connections < 1
        || opt.connections > 1000000 || opt.keys < 0 || opt.keys > 100000000
        || (!opt.idle && opt.requests <= 0 && opt.seconds <= 0) || (opt.idle && opt.fresh))
        bench_die("options");
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    bench_setup();
    make_request();
    conns = calloc((size_t) opt.connections, sizeof *conns);
    ep = epoll_create1(EPOLL_CLOEXEC);
    if (conns == NULL || ep < 0)
        bench_die("start");
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
    for (long i = 0; i < opt.connections; i++)
        conn_drop(conns + i);
    free(conns);
    return errors > 0;
}
