/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One probe: asks a server, over TLS where the location's requests are, and says what came of it (shared_check_end), then
 * waits for its next turn. A small client of its own: no request stands behind it. It never waits but for its socket and
 * its timers, and holds memory only while it runs. What is asked and how answers are judged is a protocol's
 * (health_http.c, health_grpc.c). Driven by health.c.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/http/req.h"
#include "core/os/process.h"
#include "modules/upstream/health.h"

#define READS_PER_EVENT 8
/* So many at a time of one worker. One that has waited for DEFER_MAX_MS begins all the same: silent servers do not keep others from being asked. */
#define RUNNING_MAX 64
#define DEFER_MS 20
#define DEFER_MAX_MS 1000

static unsigned running;

static void probe_connect(struct probe *p);

/* The log -------------------------------------------------------------------------------------- */

static size_t describe(const struct logger *log, char *buf, size_t size)
{
    const struct probe *p = log->data;
    int n = snprintf(buf, size, ", health check \"%.*s\" of peer %.*s in upstream \"%.*s\"",
                     STR_ARG(p->check->match_name), STR_ARG(p->peer->name),
                     STR_ARG(p->prober->group->name));

    return n < 0 ? 0 : MIN((size_t) n, size - 1);
}

/* The end of a probe --------------------------------------------------------------------------- */

static void close_conn(struct probe *p)
{
    if (p->conn != NULL)
        conn_close(p->conn);
    p->conn = NULL;
    secure_forget(&p->tls);
}

/* Gives back what only a running probe needs. */
static void release(struct probe *p)
{
    running--;
    if (p->data != NULL)
        p->protocol->free(p);
    p->data = NULL;
    chain_drop(&p->out);
    arena_destroy(p->arena);
    p->arena = NULL;
}

/* The next one begins an interval after this one began. */
static void schedule(struct probe *p)
{
    const struct health_check *hc = p->check;
    uint64_t due_ms = p->started_us / 1000 + hc->interval_ms, now_ms = clock_ms();

    if (hc->jitter_ms > 0)
        due_ms += random_u64() % (hc->jitter_ms + 1);
    timer_set(&p->timer, due_ms > now_ms ? due_ms - now_ms : 1);
}

static void rest(struct probe *p, bool keep)
{
    p->log.action = NULL;
    if (!keep)
        close_conn(p);
    p->state = PROBE_IDLE;
    if (p->conn != NULL) {
        timer_stop(&p->conn->timer);
        conn_want(p->conn, CONN_READ);
    }
    release(p);
    schedule(p);
}

void probe_end(struct probe *p, bool passed, bool keep)
{
    enum health_change change = shared_check_end(p->prober->group, p->check_index, p->peer, passed);

    if (change == HEALTH_SICK)
        log_warn(&p->log, 0, "peer is unhealthy");
    else if (change == HEALTH_WELL)
        log_notice(&p->log, 0, "peer is healthy");
    p->hindered = false;
    rest(p, keep);
    if (change == HEALTH_WELL && p->prober->group->queue != NULL)
        queue_wake(p->prober->group->queue);
}

/* It could not be made, by no fault of the server's. That is said once for as long as it stays so; why, each time, by others. */
static void hindered(struct probe *p, const char *why, const struct conf_pos *pos)
{
    if (!p->hindered && pos != NULL)
        log_error(&p->log, 0,
                  "the server is not checked, and stays as it is: %s in %s:%u cannot be used", why,
                  pos->file, pos->line);
    else if (!p->hindered)
        log_error(&p->log, 0, "the server is not checked, and stays as it is: %s", why);
    p->hindered = true;
    rest(p, false);
}

void probe_failed(struct probe *p, int error, const char *why)
{
    log_info(&p->log, error, "%s", why);
    probe_end(p, false, false);
}

/* Reading -------------------------------------------------------------------------------------- */

/* A connection that was kept had been closed meanwhile: that says nothing of the server. */
static bool try_again(struct probe *p)
{
    if (!p->reused || p->received > 0)
        return false;
    close_conn(p);
    chain_drop(&p->out);
    probe_connect(p);
    return true;
}

static void call_failed(struct probe *p, int error, const char *call)
{
    secure_log_failure(&p->tls, p->conn, &p->log, LOG_INFO_LEVEL, error, call);
    probe_end(p, false, false);
}

/* Reading has failed, or come to the end of the data (n is 0). */
static void read_failed(struct probe *p, ssize_t n, int error)
{
    if (n == 0 && p->protocol->closed(p, secure_is_cut(&p->tls, p->conn)))
        return;
    if (try_again(p))
        return;
    if (n == 0)
        probe_failed(p, 0, "upstream prematurely closed connection");
    else
        call_failed(p, error, "recv() failed");
}

/* The time that the answer may still take. */
static void arm(struct probe *p)
{
    uint64_t now_ms = clock_ms();

    /* Else it fires in this turn: a byte in each would put it off forever. */
    if (p->deadline_ms >= now_ms)
        timer_set(&p->conn->timer, MIN(p->check->conf->read_timeout_ms, p->deadline_ms - now_ms));
}

/* What the protocol has to say in the midst of an answer. False: the probe is over. */
static bool reply(struct probe *p)
{
    int error;

    if (chain_empty(&p->out) || conn_send(p->conn, &p->out, 0, false) >= 0)
        return true;
    error = errno;
    call_failed(p, error, "writev() failed");
    return false;
}

static void read_answer(struct probe *p)
{
    struct conn *conn = p->conn;

    for (unsigned i = 0; i < READS_PER_EVENT && (conn->ready & CONN_READ); i++) {
        size_t size;
        char *to = p->protocol->room(p, &size);
        ssize_t n = conn_read(conn, to, size);

        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            read_failed(p, n, errno);
            return;
        }
        p->received += (uint64_t) n;
        if (!p->protocol->take(p, (size_t) n) || !reply(p))
            return;
        /* Who brings a byte again and again would keep the timer from ever firing. */
        if (clock_ms() >= p->deadline_ms) {
            probe_failed(p, ETIMEDOUT, "upstream timed out");
            return;
        }
        arm(p);
    }
    if (p->protocol->pause != NULL)
        p->protocol->pause(p);
    conn_want(conn, chain_empty(&p->out) ? CONN_READ : CONN_READ | CONN_WRITE);
}

/* Connecting and sending ----------------------------------------------------------------------- */

static void send_request(struct probe *p)
{
    p->log.action = "sending request to upstream";
    p->state = PROBE_SEND;
    if (conn_send(p->conn, &p->out, 0, false) < 0) {
        int error = errno;

        if (!try_again(p))
            call_failed(p, error, "writev() failed");
        return;
    }
    if (!chain_empty(&p->out)) {
        timer_set(&p->conn->timer, p->check->conf->send_timeout_ms);
        conn_want(p->conn, CONN_WRITE);
        return;
    }
    p->log.action = "reading response header from upstream";
    p->state = PROBE_ANSWER;
    /* As long as it brings something an answer may take a while, but not forever. */
    p->deadline_ms = clock_ms() + 2 * p->check->conf->read_timeout_ms;
    arm(p);
    conn_want(p->conn, CONN_READ);
}

static void ask(struct probe *p)
{
    p->protocol->start(p);
    send_request(p);
}

static void probe_event(struct conn *conn, unsigned ready);
static void probe_timeout(struct timer *timer);

/* The name that the server is asked for and must be, of what *_ssl_name says. */
static struct str tls_name(struct probe *p, const struct upstream_tls *tls)
{
    struct str name = p->check->tls_name;

    if (tls->name == NULL || !(tls->server_name || tls->verify))
        return STR("");
    if (name.ptr == NULL) {
        struct req *r = probe_request(p, p->conn);

        name = r != NULL ? expr_eval(&r->eval, tls->name) : STR("");
    }
    return secure_host(name);
}

/* The certificate that is shown, where variables tell. */
static struct ssl_pair_names tls_pair(struct probe *p, const struct upstream_tls *tls)
{
    struct ssl_pair_names none = { .certificate = STR_NULL };
    struct req *r = secure_has_pair(tls) ? probe_request(p, p->conn) : NULL;

    return r != NULL ? ssl_pair_eval(&r->eval, &tls->spec, 0) : none;
}

/* TLS begins: within what is left of the time for connecting. */
static void shake_hands(struct probe *p)
{
    const struct health_check *hc = p->check;
    uint64_t spent_ms = (clock_us() - p->started_us) / 1000;
    uint64_t limit_ms = hc->conf->connect_timeout_ms;
    struct secure_want want = { .tls = &hc->conf->tls,
                                .name = tls_name(p, &hc->conf->tls),
                                .addr = &p->addr,
                                .pair = tls_pair(p, &hc->conf->tls),
                                .alpn = hc->grpc ? "\x02h2" : NULL,
                                .level = LOG_INFO_LEVEL };

    p->log.action = "SSL handshaking to upstream";
    if (secure_announce(p->conn, &p->out, &p->log, LOG_INFO_LEVEL) != 0) {
        probe_end(p, false, false);
        return;
    }
    if (secure_begin(&p->tls, &p->conn, &want, &p->log) != 0) {
        if (want.pair.certificate.len > 0)
            hindered(p, "\"proxy_ssl_certificate\"", &hc->conf->tls.spec.certificates.items[0].pos);
        else
            hindered(p, "TLS cannot be set up", NULL);
        return;
    }
    p->state = PROBE_SHAKE;
    p->conn->handler = probe_event;
    p->conn->timer.fire = probe_timeout;
    timer_set(&p->conn->timer, limit_ms > spent_ms ? limit_ms - spent_ms : 1);
    conn_want(p->conn, CONN_WRITE);
}

static void shaken(struct probe *p)
{
    if (secure_end(&p->tls, p->conn, &p->log, LOG_INFO_LEVEL) != 0) {
        probe_end(p, false, false);
        return;
    }
    p->connect_us = clock_us() - p->started_us;
    ask(p);
}

static void connected(struct probe *p)
{
    int error = socket_error(p->conn->watch.fd);

    if (error != 0) {
        probe_failed(p, error, "connect() failed");
        return;
    }
    p->connect_us = clock_us() - p->started_us;
    if (p->protocol == NULL)
        probe_end(p, true, false);
    else if (p->check->conf->tls.client != NULL)
        shake_hands(p);
    else
        ask(p);
}

static void probe_timeout(struct timer *timer)
{
    struct probe *p = container_of(timer, struct conn, timer)->owner;

    probe_failed(p, ETIMEDOUT, "upstream timed out");
}

static void probe_event(struct conn *conn, unsigned ready)
{
    struct probe *p = conn->owner;

    (void) ready;
    switch (p->state) {
    case PROBE_IDLE:
        if (p->tls.client != NULL && pool_is_quiet(conn))
            conn_want(conn, CONN_READ); /* a session ticket */
        else
            close_conn(p); /* by the server, or it speaks unasked */
        break;
    case PROBE_CONNECT: connected(p); break;
    case PROBE_SHAKE: shaken(p); break;
    case PROBE_SEND: send_request(p); break;
    case PROBE_ANSWER:
        if (reply(p))
            read_answer(p);
    }
}

/* A connection that is being made, or NULL: logged, and the probe is over. */
static struct conn *open_conn(struct probe *p, bool *done)
{
    const char *step = NULL;
    struct connect_options options = { .step = &step };
    int fd = socket_connect(&p->addr, &options, done);
    struct conn *conn = fd >= 0 ? conn_tcp(fd, &p->addr.sa, p->addr.len) : NULL;
    int error = errno;

    if (conn != NULL)
        return conn;
    if (fd >= 0)
        close(fd);
    if (fd < 0 && strcmp(step, "connect()") == 0) {
        probe_failed(p, error, "connect() failed");
        return NULL;
    }
    /* No more descriptors, maybe: what says nothing of the server. */
    log_error(&p->log, error, "%s failed", fd < 0 ? step : "epoll_ctl()");
    hindered(p, "no connection can be made", NULL);
    return NULL;
}

static void probe_connect(struct probe *p)
{
    bool done = false;

    p->log.action = "connecting to upstream";
    p->reused = false;
    p->conn = open_conn(p, &done);
    if (p->conn == NULL)
        return;
    p->conn->owner = p;
    p->conn->handler = probe_event;
    p->conn->timer.fire = probe_timeout;
    p->opened_ms = clock_ms();
    if (p->check->conf->proxy_protocol != 0)
        pool_announce(p->arena, p->check->conf, NULL, &p->out);
    p->state = PROBE_CONNECT;
    if (done) {
        p->conn->ready |= CONN_WRITE;
        connected(p);
        return;
    }
    timer_set(&p->conn->timer, p->check->conf->connect_timeout_ms);
    conn_want(p->conn, CONN_WRITE);
}

static void probe_begin(struct probe *p)
{
    p->started_us = clock_us();
    if (!shared_check_begin(p->prober->group, p->check_index, p->peer)) {
        close_conn(p);
        schedule(p);
        return;
    }
    running++;
    p->arena = arena_new();
    p->received = p->connect_us = p->header_us = 0;
    if (p->conn != NULL && clock_ms() - p->opened_ms >= p->check->keepalive_time_ms)
        close_conn(p);
    if (p->conn == NULL) {
        probe_connect(p);
        return;
    }
    p->reused = true;
    ask(p);
}

static void probe_due(struct timer *timer)
{
    struct probe *p = container_of(timer, struct probe, timer);

    if (running >= RUNNING_MAX && p->deferred_ms < DEFER_MAX_MS) {
        if (p->deferred_ms == 0)
            log_debug(&p->log, "waits, for %u others are under way", running);
        p->deferred_ms += DEFER_MS;
        timer_set(&p->timer, DEFER_MS);
        return;
    }
    p->deferred_ms = 0;
    probe_begin(p);
}

/* Life ----------------------------------------------------------------------------------------- */

void probe_init(struct probe *p, struct prober *prober, unsigned check,
                       const struct peer *peer)
{
    const struct health_check *hc = prober->group->health->checks[check];

    p->prober = prober;
    p->check = hc;
    p->protocol = hc->tcp ? NULL : hc->grpc ? &probe_grpc : &probe_http;
    p->check_index = check;
    p->peer = peer;
    p->addr = peer->addr;
    if (hc->port != 0 && p->addr.sa.sa_family != AF_UNIX)
        addr_set_port(&p->addr, hc->port);
    p->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = probe_due };
    p->log =
        (struct logger){ .scope = hc->location->core->error_log, .describe = describe, .data = p };
}

void probe_drop(struct probe *p)
{
    timer_drop(&p->timer);
    close_conn(p);
    if (p->state != PROBE_IDLE)
        release(p);
}
