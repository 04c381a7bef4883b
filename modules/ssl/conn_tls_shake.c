/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The handshake of a TLS connection, either end: as far as it goes whenever something comes, on a stack of its own where keys are
 * another process's.
 *
 * Early data (RFC 8446, 2.3) is handed up as soon as it has come, and is answered, while the handshake goes on by itself: what
 * the owner has not read yet is kept here, and is never more than EARLY_MAX, which is what sessions allow and the library counts.
 */
#include <openssl/err.h>

#include "modules/ssl/conn_tls.h"
#include "modules/ssl/fibre.h"
#include "modules/ssl/keyproc.h"

/* Handshakes that may need the key process, while as many as may be have paused for it: first come, first served. */
static struct list waiting = { &waiting, &waiting };

void tls_drop_early(struct conn_tls *t)
{
    block_unref(t->early);
    t->early = NULL;
}

/* Of no further use; whoever waits for anything learns of it. */
void tls_fail(struct conn_tls *t)
{
    tls_drop_early(t);
    t->state = TLS_FAILED;
    conn_deliver(&t->conn, CONN_READ | CONN_WRITE | CONN_HUP);
}

/* A function of the library has failed: logged, or, at the client's end, noted. */
void tls_tell_failure(struct conn_tls *t, int sslerr, int err, const char *what)
{
    const char *errors;
    size_t size;

    if (SSL_is_server(t->ssl)) {
        ssl_log_failure(&t->conn.log, sslerr, err, what);
        return;
    }
    t->failure_reason = ERR_GET_REASON(ERR_peek_last_error());
    errors = ssl_errors();
    size = strlen(what) + strlen(errors) + 1;
    free(t->failure);
    t->failure = mem_alloc(size);
    snprintf(t->failure, size, "%s%s", what, errors);
    t->failure_errno = sslerr == SSL_ERROR_SYSCALL ? err : 0;
}

void tls_shake_failed(struct conn_tls *t, int sslerr, int err)
{
    const struct logger *log = &t->conn.log;

    err = sslerr == SSL_ERROR_SYSCALL ? err : 0;
    if (!SSL_is_server(t->ssl)) {
        bool closed = sslerr == SSL_ERROR_ZERO_RETURN || (ERR_peek_error() == 0 && err == 0);

        tls_tell_failure(t, sslerr, err,
                     closed ? "peer closed connection in SSL handshake"
                            : "SSL_do_handshake() failed");
        tls_fail(t);
        return;
    }
    if (t->rejected) {
        log_info(log, err, "handshake rejected");
        ERR_clear_error();
    } else if (sslerr == SSL_ERROR_ZERO_RETURN || ERR_peek_error() == 0) {
        log_info(log, err, "peer closed connection in SSL handshake");
    } else {
        ssl_log_failure(log, sslerr, err, "SSL_do_handshake() failed");
    }
    tls_fail(t);
}

/*
 * The keys that secrets were agreed with have done their work. The library keeps them until the connection goes; made keys of another
 * kind, they lose what they hold: no memory is spent on it, and nobody finds it there later.
 */
static void forget_ephemeral(SSL *ssl)
{
    EVP_PKEY *key;

    if (SSL_get_tmp_key(ssl, &key)) {
        EVP_PKEY_set_type(key, EVP_PKEY_RSA);
        EVP_PKEY_free(key);
    }
    if (SSL_get_peer_tmp_key(ssl, &key)) {
        EVP_PKEY_set_type(key, EVP_PKEY_RSA);
        EVP_PKEY_free(key);
    }
}

static void shaken(struct conn_tls *t)
{
    unsigned what = t->raw->ready & CONN_HUP;
    /* Then what is left to say are session tickets, which need not have gone before data. */
    bool tickets = SSL_is_server(t->ssl) && SSL_version(t->ssl) == TLS1_3_VERSION;

    t->state = TLS_OPEN;
    forget_ephemeral(t->ssl);
    log_debug(&t->conn.log, "SSL: %s, cipher: \"%s\"", SSL_get_version(t->ssl),
              SSL_get_cipher_name(t->ssl));
    if (tls_more_in(t))
        what |= CONN_READ;
    if ((what & CONN_READ) && tickets && t->wrote_ms == 0) {
        wire_keep(t, 0); /* they leave with what answers the data that is there already */
    } else if (wire_end(t) < 0) {
        tls_tell_failure(t, SSL_ERROR_SYSCALL, errno, "SSL_do_handshake() failed");
        tls_fail(t);
        return;
    }
    /* Else the outcome is told when the last flight has gone, or the answer to early data that has been encrypted. */
    if (likely(t->out == NULL) || (tickets && t->accepted == 0))
        what |= CONN_WRITE;
    conn_want(t->raw, CONN_READ | CONN_HUP | (~t->raw->ready & CONN_WRITE));
    if (unlikely(t->shut_later) && wire_shut(t) != 0) {
        tls_fail(t);
        return;
    }
    conn_deliver(&t->conn, what);
}

/* Early data as the library yields it. It has counted it: there is room. */
static bool keep_early(struct conn_tls *t, const char *data, size_t n)
{
    if (t->early == NULL) {
        t->early = block_new(EARLY_MAX);
        t->early_start = t->early_end = 0;
    }
    if (n > t->early->size - t->early_end)
        return false;
    memcpy(t->early->data + t->early_end, data, n);
    t->early_end += n;
    return true;
}

/* What has come of it. 1: that was all (or the client has none, or it is not accepted); else as of SSL_do_handshake. */
static int take_early(struct conn_tls *t)
{
    static char buf[EARLY_MAX];
    unsigned silent = 0;
    size_t n;

    for (;;) {
        switch (SSL_read_early_data(t->ssl, buf, sizeof(buf), &n)) {
        case SSL_READ_EARLY_DATA_SUCCESS:
            if (!keep_early(t, buf, n))
                return -1;
            break;
        case SSL_READ_EARLY_DATA_FINISH: return 1;
        default:
            /* A record without data is told like a want of data. */
            if (SSL_get_error(t->ssl, 0) != SSL_ERROR_WANT_READ || !SSL_has_pending(t->ssl) ||
                SSL_get_state(t->ssl) != TLS_ST_EARLY_DATA || ++silent == SILENT_MAX)
                return 0;
        }
    }
}

static int step(struct conn_tls *t)
{
    if (unlikely(t->early_due)) {
        int n = take_early(t);

        if (n <= 0)
            return n;
        t->early_due = false;
    }
    return SSL_do_handshake(t->ssl);
}

/* The handshake waits for the client. Its early data need not. came: there is more of it than before. */
static void tell_early(struct conn_tls *t, bool came)
{
    unsigned what = t->raw->ready & CONN_HUP;

    if (t->held || (t->state == TLS_SHAKING && !came))
        return;
    t->state = TLS_EARLY;
    if (t->out == NULL)
        what |= CONN_WRITE;
    else
        conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP);
    what &= ~(unsigned) t->conn.ready;
    if (came)
        what |= CONN_READ;
    if (what != 0)
        conn_deliver(&t->conn, what);
}

static int do_handshake(void *conn)
{
    return step(tls_of(conn));
}

static void stop_waiting(struct conn_tls *t)
{
    if (t->queued)
        list_remove(&t->wait);
    t->queued = false;
}

/*
 * The next one that waits has its turn, if it could pause now. Whoever has had it calls this again, whether it has paused, ended or
 * gone: one that needed no key after all leaves the turn to the next, or those behind it would wait for nobody.
 */
static void serve_waiting(void)
{
    struct list *first = fibre_available() ? list_pop_front(&waiting) : NULL;
    struct conn_tls *t;

    if (likely(first == NULL))
        return;
    t = container_of(first, struct conn_tls, wait);
    t->queued = false;
    conn_tls_go_on(&t->conn);
}

/*
 * As far as it goes now. Where keys are another process's, it runs on a stack of its own, on which it waits for the answers. False: it
 * does wait.
 */
static bool handshake(struct conn_tls *t, int *result)
{
    if (likely(!keyproc_client_active())) {
        *result = do_handshake(&t->conn);
        return true;
    }
    stop_waiting(t);
    t->answered = false;
    switch (fibre_run(&t->fibre, do_handshake, &t->conn, result)) {
    case FIBRE_ENDED: serve_waiting(); return true;
    case FIBRE_PAUSED: serve_waiting(); return false;
    default:
        list_push_back(&waiting, &t->wait);
        t->queued = true;
        return false;
    }
}

/* The connection ends in the midst of it: the library gets no answer, and comes back. */
void tls_abandon(struct conn_tls *t)
{
    int result;

    stop_waiting(t);
    if (t->fibre != NULL) {
        fibre_cancel(t->fibre);
        wire_begin(t);
        fibre_run(&t->fibre, do_handshake, &t->conn, &result);
        wire_void();
        ASSERT(t->fibre == NULL);
    }
    serve_waiting();
}

void tls_shake(struct conn_tls *t)
{
    size_t before = t->early != NULL ? t->early_end : 0;
    int n, err, sslerr;

    if (t->fibre != NULL && !t->answered)
        return; /* whatever else has come is read later */
    if (unlikely(t->queued) && !fibre_available())
        return; /* who sends more does not lose the place */
    wire_begin(t);
    if (!handshake(t, &n)) {
        wire_end(t); /* if that fails, so will the next thing that is written */
        return;
    }
    err = errno;
    if (n == 1) {
        shaken(t);
        return;
    }
    sslerr = SSL_get_error(t->ssl, n);
    if (wire_end(t) < 0 && sslerr == SSL_ERROR_WANT_READ) {
        sslerr = SSL_ERROR_SYSCALL;
        err = errno;
    }
    switch (sslerr) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_ASYNC:
    case SSL_ERROR_WANT_ASYNC_JOB:
    case SSL_ERROR_WANT_X509_LOOKUP:
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        tell_early(t, t->early != NULL && t->early_end > before);
        return;
    default: tls_shake_failed(t, sslerr, err);
    }
}
