/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS connections whose records the kernel makes (ssl_conf_command Options KTLS). The handshake and what follows it closely are
 * encrypted here as ever; keys are handed over when a file is to be sent, which then goes from the page cache into records without being
 * read, or when a connection has proved to be one that is written much to. Short answers do not pay for it.
 *
 * The kernel says of up to a record more than TCP has room for that it is written, and drops that if the socket is shut or closed before
 * there is room. So connections are let go here only when all has been passed on.
 */
#include "modules/ssl/conn_tls.h"

#define FILE_BYTES (32 * 1024)  /* of a file, in one piece, for which keys are handed over */
#define DATA_BYTES (256 * 1024) /* written before: the connection is one that is written much to */
#define VECTOR 64
#define LOOK_MS 10       /* after which it is looked again whether the kernel has passed on all */
#define STALLED_MS 60000 /* without anything that the peer has confirmed */
#define IDLE_MS 1000     /* with nothing left in TCP's queue */

/* The keys ----------------------------------------------------------------------------------- */

static bool hand_over(struct conn_tls *t)
{
    struct conn_info info;
    int n;

    if (!ssl_asks_kernel(t->ssl)) {
        t->kernel_settled = true;
        return false;
    }
    if (t->state != TLS_OPEN || t->shut || t->accepted > 0 ||
        SSL_get_key_update_type(t->ssl) != SSL_KEY_UPDATE_NONE)
        return false;
    /* What has been encrypted goes first; if it does not, another time will do. */
    t->raw->corked = true;
    n = wire_flush(t);
    t->raw->corked = false;
    if (n != 0 || t->out != NULL)
        return false;
    t->kernel_settled = true;
    conn_info(t->raw, &info);
    if (!info.plain || info.fd < 0 || t->raw->unix_peer)
        return false;
    if (!seal_active(&t->seal)) {
        log_info(&t->conn.log, 0, "kTLS is not used: the library keeps the keys of %s, \"%s\"",
                 SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl));
        return false;
    }
    if (!ktls_give(&t->kernel, info.fd, &t->seal, &t->conn.log))
        return false;
    seal_drop(&t->seal);
    log_debug(&t->conn.log, "kTLS: the kernel encrypts");
    return true;
}

bool kernel_writes(struct conn_tls *t, size_t file_bytes)
{
    if (ktls_active(&t->kernel))
        return true;
    if (likely(t->kernel_settled) || (file_bytes < FILE_BYTES && t->conn.bytes_out < DATA_BYTES))
        return false;
    return hand_over(t);
}

/*
 * The peer wants our next data under another key, which the kernel does not take. Nothing but the end can be said with the one that it
 * has.
 */
static ssize_t refuse_new_key(struct conn_tls *t)
{
    log_info(&t->conn.log, 0,
             "kTLS: the peer asks for a new key, which the kernel cannot be given");
    if (wire_goodbye(t) != 0)
        return tls_give_up(t, errno);
    return tls_give_up(t, EPROTO);
}

/* Data --------------------------------------------------------------------------------------- */

/* What a write to raw has yielded, of so many bytes. */
static ssize_t wrote(struct conn_tls *t, ssize_t n, size_t asked)
{
    if (n < 0) {
        if (errno == EINVAL) /* a file that cannot be sent so: it is read */
            errno = EOPNOTSUPP;
        if (errno != EAGAIN)
            return errno == ENODATA || errno == EOPNOTSUPP ? -1 : tls_give_up(t, errno);
        wire_blocked(t);
        errno = EAGAIN;
        return -1;
    }
    ktls_wrote(&t->kernel, (size_t) n);
    if ((size_t) n < asked && !(t->raw->ready & CONN_WRITE))
        wire_blocked(t);
    return n;
}

ssize_t kernel_write(struct conn_tls *t, struct cursor *at)
{
    struct iovec iov[VECTOR];
    size_t bytes = 0, offset = at->offset;
    bool ends;
    int count = 0;
    ssize_t n;

    if (unlikely(SSL_get_key_update_type(t->ssl) != SSL_KEY_UPDATE_NONE))
        return refuse_new_key(t);
    for (const struct iovec *from = at->iov; bytes < at->left && count < VECTOR; from++) {
        iov[count].iov_base = (char *) from->iov_base + offset;
        iov[count].iov_len = from->iov_len - offset;
        bytes += iov[count++].iov_len;
        offset = 0;
    }
    ends = t->conn.last && bytes == at->left;
    /* With MSG_MORE a record stays open: whatever follows goes into it, or closes it if it is an alert. */
    t->raw->corked = t->conn.corked || ends || bytes < at->left;
    n = conn_writev(t->raw, iov, count);
    t->raw->corked = false;
    n = wrote(t, n, bytes);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    cursor_skip(at, (size_t) n);
    if (ends && (size_t) n == bytes && wire_goodbye(t) != 0)
        return tls_give_up(t, errno);
    return n;
}

ssize_t kernel_sendfile(struct conn_tls *t, int fd, off_t offset, size_t len)
{
    if (unlikely(SSL_get_key_update_type(t->ssl) != SSL_KEY_UPDATE_NONE))
        return refuse_new_key(t);
    return wrote(t, t->raw->ops->sendfile(t->raw, fd, offset, len), len);
}

/* The end ------------------------------------------------------------------------------------ */

static struct conn *raw_of(struct timer *timer)
{
    return container_of(timer, struct conn, timer);
}

static void shut_again(struct timer *timer)
{
    kernel_shut(raw_of(timer)->owner);
}

int kernel_shut(struct conn_tls *t)
{
    if (ktls_progress(&t->kernel, t->raw->watch.fd).done)
        return conn_shutdown(t->raw);
    /* Whoever waits for the peer's answer to that has a timer. */
    t->raw->timer.fire = shut_again;
    timer_set(&t->raw->timer, LOOK_MS);
    return 0;
}

/* A socket that nobody uses any more. */
struct leaving {
    struct ktls kernel;
    unsigned char alert[2]; /* still to be said */
    uint8_t alert_len;
    uint64_t acked;
    uint64_t quiet_ms; /* for so long nothing has been confirmed */
};

static void look_again(struct timer *timer)
{
    struct conn *raw = raw_of(timer);
    struct leaving *l = raw->owner;
    struct ktls_progress now;

    if (l->alert_len > 0 &&
        (ktls_say(&l->kernel, raw->watch.fd, SEAL_ALERT, l->alert, l->alert_len) >= 0 ||
         errno != EAGAIN))
        l->alert_len = 0;
    now = ktls_progress(&l->kernel, raw->watch.fd);
    l->quiet_ms = now.acked == l->acked ? l->quiet_ms + LOOK_MS : 0;
    l->acked = now.acked;
    if ((!now.done || l->alert_len > 0) && l->quiet_ms < (now.idle ? IDLE_MS : STALLED_MS)) {
        timer_set(&raw->timer, LOOK_MS);
        return;
    }
    conn_close(raw);
    free(l);
}

static void leaving_event(struct conn *raw, unsigned ready UNUSED)
{
    look_again(&raw->timer);
}

void kernel_close(struct conn_tls *t)
{
    struct ktls_progress now = ktls_progress(&t->kernel, t->raw->watch.fd);
    struct leaving *l;

    if (likely(now.done && t->out == NULL) || t->raw->reset_on_close) {
        conn_close(t->raw);
        return;
    }
    l = mem_alloc(sizeof(*l));
    *l = (struct leaving){ .kernel = t->kernel, .acked = now.acked };
    if (t->out != NULL) {
        l->alert_len = (uint8_t) MIN(t->out_end - t->out_start, sizeof(l->alert));
        memcpy(l->alert, t->out->data + t->out_start, l->alert_len);
    }
    t->raw->owner = l;
    t->raw->handler = leaving_event;
    t->raw->timer.fire = look_again;
    timer_set(&t->raw->timer, LOOK_MS);
    conn_want(t->raw, CONN_HUP);
}
