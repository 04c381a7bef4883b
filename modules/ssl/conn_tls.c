/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS over any conn, either end: the operations of a conn. A connection at rest holds the library's objects and nothing of ours:
 * buffers belong to the call that needs them.
 */
#include <limits.h>
#include <openssl/err.h>

#include "core/base/clock.h"
#include "modules/ssl/conn_tls.h"

#define PAUSE_MS 1000 /* after which records are small again */
#define TLS_SLAB 32

struct tls_slab {
    struct conn_tls items[TLS_SLAB]; /* first: cache lines */
    struct tls_slab *next;
};

static struct tls_slab *slabs;
static struct conn_tls *free_tls; /* linked by conn.owner */
static unsigned tls_in_use;

static const struct conn_ops tls_ops;

/* Memory ------------------------------------------------------------------------------------- */

static struct conn_tls *tls_alloc(void)
{
    struct conn_tls *t;

    if (free_tls == NULL) {
        struct tls_slab *slab = mem_alloc_line(sizeof(*slab));

        slab->next = slabs;
        slabs = slab;
        for (unsigned i = TLS_SLAB; i-- > 0;) {
            slab->items[i].conn.owner = free_tls;
            free_tls = &slab->items[i];
        }
    }
    t = free_tls;
    free_tls = t->conn.owner;
    tls_in_use++;
    memset(t, 0, sizeof(*t));
    return t;
}

static void tls_recycle(struct doomed *doomed)
{
    struct conn_tls *t = container_of(doomed, struct conn_tls, conn.doomed);

    tls_in_use--;
    t->conn.owner = free_tls;
    free_tls = t;
    ssl_memory_gone(tls_in_use);
}

void conn_tls_trim(void)
{
    if (tls_in_use > 0)
        return;
    free_tls = NULL;
    while (slabs != NULL) {
        struct tls_slab *slab = slabs;

        slabs = slab->next;
        free(slab);
    }
    wire_trim();
}

/* Events -------------------------------------------------------------------------------------- */

static void raw_event(struct conn *raw, unsigned ready)
{
    struct conn_tls *t = raw->owner;
    unsigned what = ready & (CONN_READ | CONN_HUP);

    if (t->conn.closed || t->state == TLS_FAILED)
        return;
    if (wire_flush(t) != 0) {
        if (t->state == TLS_SHAKING || t->state == TLS_EARLY) {
            tls_shake_failed(t, SSL_ERROR_SYSCALL, errno);
        } else {
            tls_tell_failure(t, SSL_ERROR_SYSCALL, errno, "SSL_write() failed");
            tls_fail(t);
        }
        return;
    }
    if (t->state == TLS_SHAKING || t->state == TLS_EARLY) {
        tls_shake(t);
        return;
    }
    if ((raw->wants & CONN_WRITE) && t->out == NULL) {
        conn_want(raw, CONN_READ | CONN_HUP);
        what |= CONN_WRITE;
        what |= tls_more_in(t) ? CONN_READ : 0;
    }
    if (what != 0)
        conn_deliver(&t->conn, what);
}

/* Operations --------------------------------------------------------------------------------- */

/* What a read that yielded nothing means; got: what those before it have. */
static ssize_t read_stopped(struct conn_tls *t, int n, size_t got)
{
    int err = errno;
    int sslerr = SSL_get_error(t->ssl, n);

    switch (sslerr) {
    case SSL_ERROR_WANT_READ:
        t->conn.ready &= (unsigned char) ~CONN_READ;
        if (unlikely(tls_more_in(t)))
            conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP); /* raw_event goes on with it */
        errno = EAGAIN;
        return got > 0 ? (ssize_t) got : -1;
    case SSL_ERROR_ZERO_RETURN: t->conn.ready |= CONN_HUP; return (ssize_t) got;
    case SSL_ERROR_SYSCALL:
        if (ERR_peek_error() == 0 && err != 0) {
            tls_give_up(t, err);
            return got > 0 ? (ssize_t) got : -1;
        }
        /* fall through */
    default:
        tls_tell_failure(t, sslerr, err, "SSL_read() failed");
        tls_give_up(t, EPROTO);
        return got > 0 ? (ssize_t) got : -1;
    }
}

/* Of what came before the handshake's end. */
static ssize_t read_early(struct conn_tls *t, void *buf, size_t len)
{
    size_t n = MIN(len, t->early_end - t->early_start);

    memcpy(buf, t->early->data + t->early_start, n);
    t->early_start += n;
    if (t->early_start == t->early_end)
        tls_drop_early(t);
    if (t->early == NULL && (t->state == TLS_EARLY || !tls_more_in(t)))
        t->conn.ready &= (unsigned char) ~CONN_READ;
    t->conn.bytes_in += n;
    return (ssize_t) n;
}

static ssize_t tls_read(struct conn *c, void *buf, size_t len)
{
    struct conn_tls *t = tls_of(c);
    unsigned silent = 0;
    size_t got = 0;
    ssize_t result;
    int n, err;

    if ((t->state != TLS_OPEN && t->state != TLS_EARLY) || !(c->ready & CONN_READ)) {
        errno = t->state == TLS_FAILED ? EPROTO : EAGAIN;
        return -1;
    }
    if (unlikely(t->early != NULL))
        return read_early(t, buf, len);
    if (unlikely(t->state == TLS_EARLY)) {
        c->ready &= (unsigned char) ~CONN_READ;
        errno = EAGAIN;
        return -1;
    }
    wire_begin(t);
    do {
        n = SSL_read(t->ssl, (char *) buf + got, (int) MIN(len - got, (size_t) INT_MAX));
        if (unlikely(n <= 0)) {
            /* A record without data is told like a want of data. */
            if (SSL_get_error(t->ssl, n) != SSL_ERROR_WANT_READ || !tls_more_in(t) ||
                ++silent == SILENT_MAX)
                break;
            continue;
        }
        got += (size_t) n;
    } while (got < len && tls_more_in(t));
    if (n > 0) {
        result = (ssize_t) got;
        if (!tls_more_in(t))
            c->ready &= (unsigned char) ~CONN_READ;
    } else {
        result = read_stopped(t, n, got);
    }
    err = errno;
    c->bytes_in += got;
    /* Tickets of the handshake still wait for the answer, unless nothing is there to be answered. */
    if (wire_is_empty() || (result > 0 && t->wrote_ms == 0))
        wire_keep(t, 0);
    else if (wire_end(t) < 0 && result <= 0 && err == EAGAIN)
        return tls_give_up(t, errno);
    errno = err;
    return result;
}

static ssize_t tls_writev(struct conn *c, const struct iovec *iov, int n)
{
    struct conn_tls *t = tls_of(c);
    struct cursor at = { .iov = iov };
    uint64_t now_ms = clock_ms();
    size_t total;

    if ((t->state != TLS_OPEN && t->state != TLS_EARLY) || !(c->ready & CONN_WRITE)) {
        errno = t->state == TLS_FAILED ? EPROTO : EAGAIN;
        return -1;
    }
    for (int i = 0; i < n; i++)
        at.left += iov[i].iov_len;
    if (unlikely((t->shut || t->shut_later) && at.left > t->accepted)) {
        errno = EPIPE;
        return -1;
    }
    if (now_ms - t->wrote_ms > PAUSE_MS)
        t->burst = 0;
    t->wrote_ms = now_ms;
    /* The caller comes again with what could not be sent then; it has gone meanwhile. */
    total = MIN(t->accepted, at.left);
    t->accepted -= total;
    cursor_skip(&at, total);
    while (at.left > 0 && (c->ready & CONN_WRITE)) {
        ssize_t done = wire_write(t, &at);

        if (done < 0 && total == 0)
            return -1;
        total += (size_t) MAX(done, 0);
        if (done < 0)
            break;
    }
    c->bytes_out += total;
    if (total == 0 && iov[0].iov_len > 0) {
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t) total;
}

/* The kernel encrypts it, or else whoever calls reads it. */
static ssize_t tls_sendfile(struct conn *c, int fd, off_t offset, size_t len)
{
    struct conn_tls *t = tls_of(c);
    ssize_t n;

    if (t->state != TLS_OPEN || t->shut || !kernel_writes(t, len)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    if (!(c->ready & CONN_WRITE)) {
        errno = EAGAIN;
        return -1;
    }
    n = kernel_sendfile(t, fd, offset, len);
    t->wrote_ms = clock_ms();
    c->bytes_out += (uint64_t) MAX(n, 0);
    return n;
}

static int tls_shutdown(struct conn *c)
{
    struct conn_tls *t = tls_of(c);

    if (t->state == TLS_FAILED) {
        errno = EPROTO;
        return -1;
    }
    if (t->state == TLS_OPEN)
        return wire_shut(t);
    if (t->state == TLS_EARLY) {
        t->shut_later = true; /* nothing but data can be said before the handshake has ended */
        return 0;
    }
    if (t->out == NULL)
        return conn_shutdown(t->raw);
    t->shut_raw = true;
    return 0;
}

static void tls_close(struct conn *c)
{
    struct conn_tls *t = tls_of(c);

    tls_abandon(t);
    if (t->state == TLS_OPEN && !t->eof && !(t->raw->ready & CONN_HUP) && !c->reset_on_close &&
        t->accepted == 0)
        wire_goodbye(t);
    else if (t->state != TLS_FAILED)
        /* Not said, but no fault of the session's either: it may be resumed. */
        SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    t->ssl = NULL;
    seal_drop(&t->seal);
    free(t->failure);
    t->failure = NULL;
    ERR_clear_error();
    block_unref(t->first.block);
    tls_drop_early(t);
    t->raw->reset_on_close = c->reset_on_close;
    if (unlikely(ktls_active(&t->kernel)))
        kernel_close(t);
    else
        conn_close(t->raw);
    block_unref(t->out);
    c->doomed.destroy = tls_recycle;
}

static void tls_info(const struct conn *c, struct conn_info *info)
{
    conn_info(tls_of(c)->raw, info);
    info->kind = "tls";
    info->plain = false;
}

static const struct conn_ops tls_ops = {
    .kind = "tls",
    .read = tls_read,
    .writev = tls_writev,
    .sendfile = tls_sendfile,
    .want = conn_want_later,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .info = tls_info,
};

/* Both ends ---------------------------------------------------------------------------------- */

static struct conn_tls *tls_new(struct conn *raw, SSL_CTX *ctx,
                                const struct conn_tls_options *options, struct tls_first first)
{
    SSL *ssl = SSL_new(ctx);
    struct conn_tls *t;
    BIO *bio;

    if (ssl == NULL) {
        ssl_log_failure(&raw->log, SSL_ERROR_NONE, 0, "SSL_new() failed");
        block_unref(first.block);
        return NULL;
    }
    t = tls_alloc();
    bio = wire_bio(t);
    if (bio == NULL) {
        ssl_log_failure(&raw->log, SSL_ERROR_NONE, 0, "BIO_new() failed");
        SSL_free(ssl);
        tls_recycle(&t->conn.doomed);
        block_unref(first.block);
        return NULL;
    }
    SSL_set_bio(ssl, bio, bio);
    SSL_clear_mode(ssl, SSL_MODE_AUTO_RETRY); /* the loop in tls_read has an end */
    /* The library must not hold on to what it passed through as plain text, when it encrypts by itself again. */
    SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_set_app_data(ssl, &t->conn);
    conn_setup_over(&t->conn, &tls_ops, raw);
    t->raw = raw;
    t->ssl = ssl;
    t->options = options;
    t->first = first;
    if (first.start == first.end) {
        block_unref(first.block);
        t->first.block = NULL;
    }
    raw->owner = t;
    raw->handler = raw_event;
    conn_want(raw, CONN_READ | CONN_WRITE | CONN_HUP);
    return t;
}

struct conn *conn_tls_accept(struct conn *raw, SSL_CTX *ctx, const struct conn_tls_options *options,
                             struct tls_first first)
{
    struct conn_tls *t = tls_new(raw, ctx, options, first);

    if (t == NULL)
        return NULL;
    SSL_set_accept_state(t->ssl);
    t->early_due = options->early_data;
    return &t->conn;
}

struct conn *conn_tls_connect(struct conn *raw, SSL_CTX *ctx,
                              const struct conn_tls_options *options)
{
    struct conn_tls *t = tls_new(raw, ctx, options, (struct tls_first){ .block = NULL });

    if (t == NULL)
        return NULL;
    SSL_set_connect_state(t->ssl);
    return &t->conn;
}

bool conn_is_tls(const struct conn *c)
{
    return c->ops == &tls_ops;
}

SSL *conn_tls_ssl(const struct conn *c)
{
    return tls_of(c)->ssl;
}

struct conn *conn_tls_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

void conn_tls_set_options(struct conn *c, const struct conn_tls_options *options)
{
    tls_of(c)->options = options;
}

bool conn_tls_established(const struct conn *c)
{
    return tls_of(c)->state == TLS_OPEN || tls_of(c)->state == TLS_EARLY;
}

bool conn_tls_early(const struct conn *c)
{
    return tls_of(c)->state == TLS_EARLY;
}

void conn_tls_hold(struct conn *c)
{
    struct conn_tls *t = tls_of(c);

    if (t->state != TLS_EARLY)
        return;
    t->held = true;
    c->ready = 0;
}

const char *conn_tls_failure(const struct conn *c, int *err)
{
    *err = tls_of(c)->failure_errno;
    return tls_of(c)->failure != NULL ? tls_of(c)->failure : "SSL connection failed";
}

int conn_tls_reason(const struct conn *c)
{
    return tls_of(c)->failure_reason;
}

struct str conn_tls_protocol(const struct conn *c)
{
    const unsigned char *name;
    unsigned len;

    SSL_get0_alpn_selected(tls_of(c)->ssl, &name, &len);
    return str_from((const char *) name, len);
}

void conn_tls_rejected(struct conn *c)
{
    tls_of(c)->rejected = true;
}

void conn_tls_go_on(struct conn *c)
{
    struct conn_tls *t = tls_of(c);

    t->answered = true;
    if ((t->state == TLS_SHAKING || t->state == TLS_EARLY) && !t->conn.closed)
        conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP);
}

bool conn_tls_ended(const struct conn *c)
{
    const struct conn_tls *t = tls_of(c);

    return (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN) && !t->eof;
}
