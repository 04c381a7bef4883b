/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load of t/chaos.t, and the origins behind it that misbehave on command. Built and run by
 * t/lib/Load.pm; nothing else uses it.
 *
 *     chaos_load origin PORT LOG SEED
 *         Answers requests that end in "?id=I&len=L&chunked=0|1" with L octets made from I. Writes
 *         to LOG, unbuffered so that nothing is forgotten when it is killed:
 *             B I METHOD TIME     the head of a request has come
 *             A I ACTION TIME     it is complete; what will be done with it
 *             H NAME TIME         a health check of /health-NAME
 *             W I TIME            a request of /…hold?id=I: it is never answered
 *         TIME is of the monotonic clock, in microseconds. "mode NAME" on stdin says what is done
 *         from now on; it is answered with a line that holds a dot.
 *     chaos_load load RATE KEPT FRESH PORT LOG
 *         RATE requests a second over KEPT kept-alive connections and FRESH that serve one request
 *         each; some clients hang up before the end. Commands: "report" (started, complete, cut, refused, wrong, and a dot), "settle" (a
 *         dot once all requests that are under way have ended) and "pause" (starts nothing more; a dot
 *         once all connections are closed). Writes to LOG whatever did not go well:
 *             C I METHOD          the answer's head came, its end did not
 *             E I METHOD STATUS   no answer of an origin came, but a complete 502 or 504
 *             F I METHOD WHY      what should never be
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "message.h"

#define STALL_S 30.0
#define QUITS(id) ((id) % 13 == 0) /* a client that does not wait for the end */
#define PATIENCE_S(id) ((id) % 41 * 0.002)
#define FDS 65536
#define TICK_S 0.02

struct slot {
    int fd;    /* -1: none */
    int fresh; /* one request to a connection */
    int busy;  /* a request is under way */
    int begun; /* an origin's: the head of the next message has been logged */
    unsigned id;
    const char *method;
    size_t body_len; /* of the expected answer */
    size_t out_len, sent, in_len;
    double started;
    char *out, *in;
};

enum mode {
    OK,
    GARBAGE,
    SLOW,
    SLOWBODY,
    RESET,
    EARLY,
    HEADCLOSE,
    SHORT,
    LONG,
    MIDWAY,
    TRICKLE,
    MIXED,
    REFUSE
};
static const char *const modes[] = { "ok",      "garbage",   "slow",  "slowbody", "reset",
                                     "early",   "headclose", "short", "long",     "midway",
                                     "trickle", "mixed",     "refuse" };

static int ep, log_fd;

static double clock_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec * 1e-9;
}

static unsigned long clock_us(void)
{
    return (unsigned long) (clock_s() * 1e6);
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    char line[256];
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(line, sizeof line - 1, format, ap);
    va_end(ap);
    if (n > (int) sizeof line - 2)
        n = (int) sizeof line - 2;
    for (int i = 0; i < n; i++) {
        if (line[i] == '\r' || line[i] == '\n')
            line[i] = ' ';
    }
    line[n++] = '\n';
    if (write(log_fd, line, (size_t) n) != n)
        abort();
}

static void say(const char *text)
{
    printf("%s.\n", text);
    fflush(stdout);
}

static void watch(int fd, void *p)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };

    ev.data.ptr = p;
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

/* ------------------------------------------------------------------ the client */

static struct slot *slots;
static int slot_count, port, paused, waiting;
static unsigned settled; /* the last request that is waited for */
static unsigned long started, complete, cut, refused, wrong;
static unsigned serial;

static void slot_close(struct slot *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->busy = 0;
}

static void fail(struct slot *s, const char *why)
{
    wrong++;
    note("F %u %s %s", s->id, s->method, why);
    slot_close(s);
}

static int slot_connect(struct slot *s)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };
    int one = 1;

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

/* GET, PUT (may be repeated), POST and PATCH (may not), all but the first with a body. */
static size_t put_request(struct slot *s)
{
    static const char *const methods[] = {
        "GET", "GET", "POST", "GET", "PUT", "GET", "PATCH", "GET"
    };
    static const size_t sizes[] = { 900, 0, 13, 3000, 20000, 60000, 40, 8000, 30000, 1500, 1 };
    static char body[BUFFER];
    size_t n;

    s->id = ++serial;
    s->method = methods[s->id % 8];
    s->body_len = sizes[s->id / 8 % 11];
    n = (size_t) sprintf(s->out, "%s /%s/?id=%u&len=%zu&chunked=%u HTTP/1.1\r\nHost: a\r\n%s",
                         s->method, s->id / 16 % 2 ? "lc" : "rr", s->id, s->body_len, s->id / 8 % 2,
                         s->fresh ? "Connection: close\r\n" : "");
    if (s->method[0] == 'G')
        return n + (size_t) sprintf(s->out + n, "\r\n");
    fill(body, s->id, s->body_len);
    if (s->id / 32 % 2) {
        n += (size_t) sprintf(s->out + n, "Transfer-Encoding: chunked\r\n\r\n");
        return n + put_chunked(s->out + n, body, s->body_len);
    }
    n += (size_t) sprintf(s->out + n, "Content-Length: %zu\r\n\r\n", s->body_len);
    memcpy(s->out + n, body, s->body_len);
    return n + s->body_len;
}

static void slot_write(struct slot *s)
{
    while (s->busy && s->sent < s->out_len) {
        ssize_t n = send(s->fd, s->out + s->sent, s->out_len - s->sent, MSG_NOSIGNAL);

        if (n < 0)
            return; /* reading says what became of it */
        s->sent += (size_t) n;
    }
}

static void slot_start(struct slot *s)
{
    started++;
    s->started = clock_s();
    s->sent = s->in_len = 0;
    s->out_len = put_request(s);
    s->busy = 1;
    if (s->fd < 0 && slot_connect(s) < 0)
        fail(s, "connect");
    else
        slot_write(s);
}

/* A complete answer. */
static void slot_done(struct slot *s, size_t total, const char *body, size_t len)
{
    size_t head = head_length(s->in, s->in_len), right = 0;
    const char *conn = field(s->in, head, "Connection");
    int closing = conn && strncasecmp(conn, "close", 5) == 0;

    while (right < len && len == s->body_len && body[right] == octet(s->id, right))
        right++;
    if (strncmp(s->in, "HTTP/1.1 502 ", 13) == 0 || strncmp(s->in, "HTTP/1.1 504 ", 13) == 0) {
        refused++;
        note("E %u %s %.3s", s->id, s->method, s->in + 9);
    } else if (strncmp(s->in, "HTTP/1.1 200 ", 13) != 0) {
        fail(s, "neither 200, 502 nor 504");
    } else if (len != s->body_len || right != len) {
        fail(s, "complete with a wrong body");
    } else if (total != s->in_len) {
        fail(s, "octets after the answer");
    } else {
        complete++;
    }
    s->busy = 0;
    s->in_len = 0;
    if (closing || s->fresh)
        slot_close(s);
}

static void slot_ended(struct slot *s)
{
    if (s->busy && s->in_len == 0)
        fail(s, "no answer at all");
    else if (s->busy && strncmp(s->in, "HTTP/1.1 200 ", 13) != 0)
        fail(s, "cut, and not a 200");
    else if (s->busy) {
        cut++;
        note("C %u %s", s->id, s->method);
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
            slot_ended(s);
            return;
        }
        s->in_len += (size_t) n;
        s->in[s->in_len] = 0;
        if (!s->busy)
            fail(s, "something unasked");
        /* What is cut from the stream is changed on the way: only a message that is all there. */
        else if ((total = message(s->in, s->in_len, &body, &len)) > 0)
            slot_done(s, (size_t) total, body, len);
        else if (total < 0)
            fail(s, "no message");
    }
}

static void client_command(char *text)
{
    char line[200];

    if (strncmp(text, "report", 6) == 0) {
        snprintf(line, sizeof line, "%lu %lu %lu %lu %lu\n", started, complete, cut, refused,
                 wrong);
        say(line);
    } else {
        paused |= strncmp(text, "pause", 5) == 0;
        settled = serial;
        waiting = 1;
    }
}

static void say_when_settled(void)
{
    for (int i = 0; i < slot_count; i++) {
        if (slots[i].busy && slots[i].id <= settled)
            return;
    }
    for (int i = 0; paused && i < slot_count; i++)
        slot_close(&slots[i]);
    waiting = 0;
    say("");
}

static void start_due(double *budget, int *next)
{
    double now = clock_s();

    for (int i = 0; i < slot_count; i++) {
        struct slot *s = &slots[(*next + i) % slot_count];

        if (s->busy && now - s->started > STALL_S)
            fail(s, "no end of the answer");
        if (s->busy && QUITS(s->id) && now - s->started > PATIENCE_S(s->id))
            slot_close(s);
        if (*budget >= 1 && !s->busy && !paused) {
            slot_start(s);
            if (--*budget < 1)
                *next = (*next + i + 1) % slot_count;
        }
    }
}

static int load(char **argv)
{
    struct epoll_event events[256], in = { .events = EPOLLIN };
    double rate = atof(argv[0]), last = clock_s(), budget = 0;
    int kept = atoi(argv[1]), next = 0;

    slot_count = kept + atoi(argv[2]);
    port = atoi(argv[3]);
    slots = calloc((size_t) slot_count, sizeof *slots);
    for (int i = 0; i < slot_count; i++) {
        slots[i].fd = -1;
        slots[i].fresh = i >= kept;
        slots[i].out = malloc(BUFFER);
        slots[i].in = malloc(BUFFER + 1);
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &in);
    for (;;) {
        int n = epoll_wait(ep, events, 256, 1);
        double now = clock_s();
        char line[200];

        for (int i = 0; i < n; i++) {
            struct slot *s = events[i].data.ptr;

            if (s == NULL) {
                if (fgets(line, sizeof line, stdin) == NULL)
                    return 0;
                client_command(line);
                continue;
            }
            if (events[i].events & EPOLLOUT)
                slot_write(s);
            if (s->fd >= 0 && events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                slot_read(s);
        }
        budget += (now - last) * rate;
        last = now;
        if (budget > rate / 20 + 1)
            budget = rate / 20 + 1;
        start_due(&budget, &next);
        if (waiting)
            say_when_settled();
    }
}

/* ------------------------------------------------------------------ the origin */

static struct slot *by_fd[FDS];
static enum mode mode = OK;
static int listener = -1;

static int trickling; /* connections with an answer on its way in small pieces */
static double tick_s;

static void conn_close(struct slot *s)
{
    trickling -= s->out_len > 0;
    by_fd[s->fd] = NULL;
    close(s->fd);
    free(s->in);
    free(s->out);
    free(s);
}

static void conn_reset(struct slot *s)
{
    struct linger l = { .l_onoff = 1 };

    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    conn_close(s);
}

static void write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        struct pollfd pfd = { .fd = fd, .events = POLLOUT };

        if (done < 0 && errno == EAGAIN && poll(&pfd, 1, 5000) == 1)
            continue;
        if (done < 0)
            return;
        p += done;
        n -= (size_t) done;
    }
}

static void write_text(struct slot *s, const char *text)
{
    write_all(s->fd, text, strlen(text));
}

/* What is no answer: some of it ends the connection, some leaves it open. True: closed. */
static int answer_garbage(struct slot *s)
{
    static const char *const kinds[] = {
        "\377\376\200garbage\n\n\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\n\r\n\r\n",
        "<html>no head</html>\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad\001Name: x\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
        "HTTP/1.1 999999 x\r\n\r\n",
    };
    unsigned kind = (unsigned) rand() % (sizeof kinds / sizeof *kinds);

    if (rand() % 8 == 0) {
        memset(s->out, 'x', 40000); /* a head that never ends */
        write_all(s->fd, s->out, 40000);
    } else {
        write_text(s, kinds[kind]);
    }
    if (rand() % 4 == 0)
        return 0;
    conn_close(s);
    return 1;
}

/* The whole answer in s->out; *head is how much of it is the head. */
static size_t make_answer(struct slot *s, size_t len, int chunked, size_t *head)
{
    static char made[BUFFER];
    size_t n;

    fill(made, s->id, len);
    if (chunked) {
        n = *head =
            (size_t) sprintf(s->out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        return n + put_chunked(s->out + n, made, len);
    }
    n = *head = (size_t) sprintf(s->out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    memcpy(s->out + n, made, len);
    return n + len;
}

/* True: the connection has been closed. */
static int answer(struct slot *s, enum mode how, size_t len, int chunked)
{
    size_t head, n, part;

    if (how == GARBAGE)
        return answer_garbage(s);
    if (how == EARLY || how == MIDWAY) {
        rand() % 2 ? conn_close(s) : conn_reset(s);
        return 1;
    }
    n = make_answer(s, len, chunked, &head);
    part = n > head ? head + (size_t) rand() % (n - head) : head; /* less than all of it */
    switch (how) {
    case SLOW: /* nothing, or a part of the head */
        write_all(s->fd, s->out, rand() % 2 ? 0 : (size_t) rand() % head);
        return 0;
    case SLOWBODY: write_all(s->fd, s->out, part); return 0;
    case HEADCLOSE:
    case SHORT:
        write_all(s->fd, s->out, how == SHORT ? part : head);
        conn_close(s);
        return 1;
    case RESET:
        write_all(s->fd, s->out, part);
        conn_reset(s);
        return 1;
    case TRICKLE:
        s->out_len = n;
        s->sent = 0;
        trickling++;
        return 0;
    case LONG:
        n += (size_t) sprintf(s->out + n, "more than there should be");
        write_all(s->fd, s->out, n);
        return 0;
    default: write_all(s->fd, s->out, n); return 0;
    }
}

/* A tenth more of each answer that trickles. */
static void trickle(void)
{
    tick_s = clock_s() + TICK_S;
    for (int fd = 0; fd < FDS; fd++) {
        struct slot *s = by_fd[fd];
        size_t n;

        if (s == NULL || s->out_len == 0)
            continue;
        n = s->out_len / 10 + 1;
        if (n > s->out_len - s->sent)
            n = s->out_len - s->sent;
        write_all(fd, s->out + s->sent, n);
        s->sent += n;
        if (s->sent == s->out_len) {
            s->out_len = 0;
            trickling--;
        }
    }
}

/* A complete request is there. True: the connection has been closed. */
static int serve(struct slot *s)
{
    enum mode how = mode == MIXED ? (enum mode)((unsigned) rand() % MIXED) : mode;
    size_t len = 0;
    int chunked = 0;
    char name[20];

    if (sscanf(s->in, "GET /health-%19[a-z]", name) == 1) {
        note("H %s %lu", name, clock_us());
        len = 2;
    } else if (strstr(s->in, "hold?")) {
        note("W %u %lu", s->id, clock_us());
        return 0;
    } else {
        sscanf(strchr(s->in, '?'), "?id=%*u&len=%zu&chunked=%d", &len, &chunked);
        if (len == 0 && !chunked &&
            (how == SLOWBODY || how == HEADCLOSE || how == SHORT || how == RESET))
            how = EARLY; /* there is no midst of the body */
        note("A %u %s %lu", s->id, modes[how], clock_us());
    }
    return answer(s, how, len, chunked);
}

static void log_head(struct slot *s)
{
    char *at;

    if (s->begun || head_length(s->in, s->in_len) == 0)
        return;
    s->begun = 1;
    s->id = 0;
    if ((at = strstr(s->in, "?id=")) != NULL)
        s->id = (unsigned) atoi(at + 4);
    if (s->id != 0)
        note("B %u %.*s %lu", s->id, (int) strcspn(s->in, " "), s->in, clock_us());
}

static void conn_read(struct slot *s)
{
    char *body = NULL;
    size_t len = 0;
    ssize_t n, total;

    while ((n = recv(s->fd, s->in + s->in_len, BUFFER - s->in_len, 0)) > 0) {
        s->in_len += (size_t) n;
        s->in[s->in_len] = 0;
        for (;;) {
            log_head(s);
            total = message(s->in, s->in_len, &body, &len);
            if (total <= 0 && mode == MIDWAY && s->begun) {
                /* In the midst of a request's body. */
                note("A %u midway %lu", s->id, clock_us());
                conn_reset(s);
                return;
            }
            if (total <= 0)
                break;
            if (serve(s))
                return;
            s->begun = 0;
            s->in_len -= (size_t) total;
            memmove(s->in, s->in + total, s->in_len + 1);
        }
    }
    if (n == 0 || errno != EAGAIN)
        conn_close(s);
}

static int open_listener(void)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };
    struct epoll_event in = { .events = EPOLLIN, .data.ptr = &listener };
    int one = 1;

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *) &sa, sizeof sa) < 0 || listen(listener, 1024) < 0) {
        perror("chaos_load: origin");
        return -1;
    }
    return epoll_ctl(ep, EPOLL_CTL_ADD, listener, &in);
}

static void origin_command(char *text)
{
    char name[20] = "";

    sscanf(text, "mode %19s", name);
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i], name) == 0)
            mode = (enum mode) i;
    }
    if (mode == REFUSE) {
        close(listener);
        listener = -1;
        for (int fd = 0; fd < FDS; fd++) {
            if (by_fd[fd])
                conn_close(by_fd[fd]);
        }
    } else if (listener < 0 && open_listener() < 0) {
        exit(1);
    }
    say("");
}

static void conn_accept(void)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct slot *s;

    if (fd < 0)
        return;
    if (fd >= FDS)
        abort();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    s = calloc(1, sizeof *s);
    s->fd = fd;
    s->out = malloc(BUFFER);
    s->in = malloc(BUFFER + 1);
    s->in[0] = 0;
    by_fd[fd] = s;
    watch(fd, s);
}

static int origin(char **argv)
{
    struct epoll_event event, in = { .events = EPOLLIN };
    char line[200];

    port = atoi(argv[0]);
    srand((unsigned) atoi(argv[2]));
    if (open_listener() < 0)
        return 1;
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &in);
    say("");
    /* One event at a time: what a command closes is in no list of events. */
    for (;;) {
        int n = epoll_wait(ep, &event, 1, trickling ? 10 : -1);

        if (trickling && clock_s() >= tick_s)
            trickle();
        if (n <= 0) {
            /* To be stopped and continued interrupts. */
            if (n < 0 && errno != EINTR)
                return 1;
        } else if (event.data.ptr == &listener) {
            conn_accept();
        } else if (event.data.ptr) {
            conn_read(event.data.ptr);
        } else {
            if (fgets(line, sizeof line, stdin) == NULL)
                return 0;
            origin_command(line);
        }
    }
}

int main(int argc, char **argv)
{
    const char *log = argc == 5 ? argv[3] : argc == 7 ? argv[6] : NULL;

    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdin, NULL, _IONBF, 0);
    ep = epoll_create1(EPOLL_CLOEXEC);
    log_fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (log_fd >= 0 && argc == 5 && strcmp(argv[1], "origin") == 0)
        return origin(argv + 2);
    if (log_fd >= 0 && argc == 7 && strcmp(argv[1], "load") == 0)
        return load(argv + 2);
    fprintf(stderr, "usage: chaos_load origin PORT LOG SEED | load RATE KEPT FRESH PORT LOG\n");
    return 2;
}
