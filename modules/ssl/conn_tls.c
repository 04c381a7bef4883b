/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS over any conn, either end. The library never touches a socket: it reads through a BIO straight from the conn below, a
 * buffer full at a time (read_ahead), and writes into memory that all connections of the process share (`wire`), from
 * where a whole flight, or as many records as one call produced, leave with one send. Only what the socket does not take is
 * kept by the connection, and while something is kept nothing more is encrypted: what writev reports
 * has gone into the socket, so that whoever closes afterwards loses nothing.
 *
 * A connection at rest holds the library's objects and nothing of ours: buffers belong to the call that needs them.
 *
 * Early data (RFC 8446, 2.3) is handed up as soon as it has come, and is answered, while the handshake goes on by itself: what
 * the owner has not read yet is kept here, and is never more than EARLY_MAX, which is what sessions allow and the library counts.
 */
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>

#include "core/base/clock.h"
#include "core/base/list.h"
#include "core/event/conn_kind.h"
#include "modules/ssl/fibre.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/seal.h"

#define WIRE_SIZE (72 * 1024) /* encrypted bytes that one send takes at most: a large block's, and a head before it */
#define WIRE_MAX \
    (1024 * 1024) /* of a flight, or of answers that the peer does not read: then it is given up */
#define RECORD_MAX 16384
#define RECORD_EXTRA 256 /* what encryption adds to a record at most */
#define RECORDS 64       /* in one batch */
/*
 * A client can use a record when all of it has come. So a connection that begins, or begins again after a pause, is sent
 * records of a packet each, then of three; a long answer soon has large ones, which cost less.
 */
#define RECORD_PACKET 1400
#define RECORD_MEDIUM 4096
#define PACKETS_UNTIL (16 * 1024)
#define MEDIUM_UNTIL (128 * 1024)
#define PAUSE_MS 1000
#define SILENT_MAX \
    32 /* records without data (key updates, alerts) that one read looks at: then others have their turn */
#define EARLY_MAX CONN_TLS_EARLY_MAX

#define KEY_RECORDS (1u << 24) /* under one key: of 16 KiB AES-GCM bears 2^24.5 (RFC 8446, 5.5) */

#define TLS_SLAB 32

enum {
    TLS_SHAKING,
    TLS_EARLY, /* shaking, but early data has come: it can be read, and answers be written */
    TLS_OPEN,
    TLS_FAILED,
};

struct conn_tls {
    struct conn conn; /* first */
    struct conn *raw;
    SSL *ssl;
    const struct conn_tls_options *options;
    struct tls_first first; /* to be read before anything of raw */
    struct block *out;      /* encrypted and not sent: bytes out_start..out_end */
    size_t out_start, out_end;
    struct block *
        early; /* came before the handshake's end and has not been read: bytes early_start..early_end */
    size_t early_start, early_end;
    size_t accepted;   /* bytes that were encrypted, but that writev has not reported yet */
    uint64_t wrote_ms; /* when something was last written */
    uint32_t burst;    /* bytes written since the last pause */
    uint32_t records;  /* written since we last changed our key */
    char *failure; /* the client's end: what failed, for whoever uses it, who knows what it was about */
    int failure_errno, failure_reason;
    struct seal seal;  /* active: records are encrypted by us */
    uint8_t seal_type; /* of what the library writes next; 0: data */
    uint8_t state;
    bool eof;        /* of raw */
    bool rejected;   /* a callback of ours wanted the handshake to fail */
    bool shut;       /* close_notify is out, or on its way */
    bool shut_raw;   /* raw is to be shut as soon as `out` has gone */
    bool early_due;  /* early data may come, or more of it */
    bool held;       /* early data is not to be told of before the handshake has ended */
    bool shut_later; /* shutdown was asked for before the handshake's end */
    bool answered;   /* what the fibre waits for has come */
    bool queued;     /* in `waiting` */
    struct fibre *fibre; /* the handshake has paused in it; NULL: it has not */
    struct list wait;    /* for a fibre, in `waiting` */
};

struct tls_slab {
    struct conn_tls items[TLS_SLAB]; /* first: cache lines */
    struct tls_slab *next;
};

static struct tls_slab *slabs;
static struct conn_tls *free_tls; /* linked by conn.owner */
static unsigned tls_in_use;
static BIO_METHOD *bio_method;

uint32_t conn_tls_key_records = KEY_RECORDS;

/* What the library writes while one of its functions runs. */
static char *wire;
static size_t wire_len, wire_size;
static struct conn_tls *wire_of; /* whose it is; NULL between calls */

/* Handshakes that may need the key process, while as many as may be have paused for it: first come, first served. */
static struct list waiting = { &waiting, &waiting };

static const struct conn_ops tls_ops;

static struct conn_tls *tls_of(const struct conn *c)
{
    return container_of(c, struct conn_tls, conn);
}

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
    free(wire);
    wire = NULL;
    wire_size = 0;
    seal_trim();
    BIO_meth_free(bio_method);
    bio_method = NULL;
}

/* What the library reads and writes ---------------------------------------------------------- */

static int bio_read(BIO *bio, char *buf, int len)
{
    struct conn_tls *t = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (unlikely(t->first.block != NULL)) {
        n = (ssize_t) MIN((size_t) len, t->first.end - t->first.start);
        memcpy(buf, t->first.block->data + t->first.start, (size_t) n);
        t->first.start += (size_t) n;
        if (t->first.start == t->first.end) {
            block_unref(t->first.block);
            t->first.block = NULL;
        }
        return (int) n;
    }
    n = conn_read(t->raw, buf, (size_t) len);
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    else if (n == 0)
        t->eof = true;
    return (int) n;
}

/* Room for n bytes more on the wire. False: that would be too many. */
static bool wire_room(size_t n)
{
    if (wire_len + n > WIRE_MAX)
        return false;
    if (unlikely(wire_len + n > wire_size)) {
        wire_size = MAX(wire_len + n, wire_size * 2);
        wire = mem_realloc(wire, wire_size);
    }
    return true;
}

/*
 * What the library wants to have said under the keys that it handed over: data, or an alert or message (a ticket, a key update). After
 * a key update it encrypts by itself again: it has made new keys meanwhile, and does not offer them.
 */
static int write_sealed(struct conn_tls *t, const char *data, size_t len)
{
    uint8_t type = t->seal_type != 0 ? t->seal_type : SEAL_DATA;

    t->seal_type = 0;
    for (size_t done = 0, n; done < len; done += n) {
        size_t size;

        n = MIN(len - done, (size_t) SEAL_MAX);
        if (!wire_room(n + SEAL_EXTRA))
            return -1;
        seal_begin(&t->seal, type, n, wire + wire_len);
        seal_add(data + done, n);
        size = seal_end();
        if (size == 0)
            return -1;
        wire_len += size;
    }
    if (unlikely(type == SEAL_HANDSHAKE)) {
        OSSL_HANDSHAKE_STATE state = SSL_get_state(t->ssl);

        if (state == TLS_ST_SW_KEY_UPDATE || state == TLS_ST_CW_KEY_UPDATE)
            seal_drop(&t->seal);
    }
    return (int) len;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    struct conn_tls *t = BIO_get_data(bio);
    size_t n = (size_t) len;

    BIO_clear_retry_flags(bio);
    if (wire_of != t || len < 0)
        return -1;
    if (seal_active(&t->seal))
        return write_sealed(t, data, n);
    if (!wire_room(n))
        return -1;
    memcpy(wire + wire_len, data, n);
    wire_len += n;
    return len;
}

/* What the library asks of a socket to which it can hand its keys; public by their numbers only. */
#define CTRL_TAKE_KEYS 72 /* num: for writing; ptr: in the kernel's form */
#define CTRL_NEXT_TYPE 74 /* num: the type of the record that is written next */

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    struct conn_tls *t = BIO_get_data(bio);

    switch (cmd) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return t->eof;
    case CTRL_TAKE_KEYS: return num != 0 && seal_take(&t->seal, ptr);
    case BIO_CTRL_GET_KTLS_SEND: return seal_active(&t->seal);
    case CTRL_NEXT_TYPE: t->seal_type = (uint8_t) num; return 0;
    default: return 0;
    }
}

static BIO *bio_new(struct conn_tls *t)
{
    BIO *bio;

    if (bio_method == NULL) {
        bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "conn");
        if (bio_method == NULL)
            return NULL;
        BIO_meth_set_read(bio_method, bio_read);
        BIO_meth_set_write(bio_method, bio_write);
        BIO_meth_set_ctrl(bio_method, bio_ctrl);
    }
    bio = BIO_new(bio_method);
    if (bio == NULL)
        return NULL;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    return bio;
}

/* Sending ------------------------------------------------------------------------------------ */

/* Before a function of the library is called. What was kept goes first. */
static void wire_begin(struct conn_tls *t)
{
    ASSERT(wire_of == NULL);
    if (unlikely(wire == NULL)) {
        wire = mem_alloc(WIRE_SIZE);
        wire_size = WIRE_SIZE;
    }
    wire_of = t;
    wire_len = 0;
    if (unlikely(ERR_peek_error() != 0))
        ERR_clear_error(); /* costs more than to look whether there is anything */
    if (likely(t->out == NULL))
        return;
    wire_len = t->out_end - t->out_start;
    if (wire_len > wire_size) {
        wire_size = wire_len;
        wire = mem_realloc(wire, wire_size);
    }
    memcpy(wire, t->out->data + t->out_start, wire_len);
    block_unref(t->out);
    t->out = NULL;
}

/* Keeps what is behind the first n bytes. */
static void wire_keep(struct conn_tls *t, size_t n)
{
    wire_of = NULL;
    if (n == wire_len)
        return;
    t->out = block_new(wire_len - n);
    t->out_start = 0;
    t->out_end = wire_len - n;
    memcpy(t->out->data, wire + n, wire_len - n);
}

/*
 * After it: one send. How many bytes of the wire have gone; what has not is kept, and raw will say when it takes more. -1 with
 * errno: raw is broken.
 */
static ssize_t wire_end(struct conn_tls *t)
{
    struct iovec iov = { .iov_base = wire, .iov_len = wire_len };
    ssize_t n = 0;

    if (likely(wire_len > 0)) {
        t->raw->corked = t->conn.corked;
        n = conn_writev(t->raw, &iov, 1);
        t->raw->corked = false;
    }
    if (n < 0 && errno != EAGAIN) {
        wire_of = NULL;
        return -1;
    }
    n = MAX(n, 0);
    wire_keep(t, (size_t) n);
    if (unlikely(t->out != NULL) && (t->state == TLS_OPEN || t->state == TLS_EARLY)) {
        t->conn.ready &= (unsigned char) ~CONN_WRITE;
        conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP);
    }
    return n;
}

/* What is kept, as far as raw takes it. 0 or -1. */
static int flush(struct conn_tls *t)
{
    struct iovec iov;
    ssize_t n;

    if (likely(t->out == NULL))
        return 0;
    iov.iov_base = t->out->data + t->out_start;
    iov.iov_len = t->out_end - t->out_start;
    n = conn_writev(t->raw, &iov, 1);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    t->out_start += (size_t) n;
    if (t->out_start < t->out_end)
        return 0;
    block_unref(t->out);
    t->out = NULL;
    return t->shut_raw ? conn_shutdown(t->raw) : 0;
}

/* More can be read without waiting: of what has come already, or of raw. */
static bool more_in(const struct conn_tls *t)
{
    return t->early != NULL || SSL_has_pending(t->ssl) || t->first.block != NULL ||
           (t->raw->ready & CONN_READ);
}

/* close_notify, once, between wire_begin and wire_end. */
static void put_goodbye(struct conn_tls *t)
{
    if (t->shut)
        return;
    t->shut = true;
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}

/* close_notify, once. 0, or -1: raw is broken. */
static int say_goodbye(struct conn_tls *t)
{
    if (t->shut)
        return 0;
    wire_begin(t);
    put_goodbye(t);
    return wire_end(t) < 0 ? -1 : 0;
}

/* close_notify and the end of raw, as soon as what is kept has gone. */
static int shut(struct conn_tls *t)
{
    if (say_goodbye(t) != 0)
        return -1;
    if (t->out == NULL)
        return conn_shutdown(t->raw);
    t->shut_raw = true;
    return 0;
}

/* The handshake ------------------------------------------------------------------------------ */

static void drop_early(struct conn_tls *t)
{
    block_unref(t->early);
    t->early = NULL;
}

/* Of no further use; whoever waits for anything learns of it. */
static void fail(struct conn_tls *t)
{
    drop_early(t);
    t->state = TLS_FAILED;
    conn_deliver(&t->conn, CONN_READ | CONN_WRITE | CONN_HUP);
}

/* A function of the library has failed: logged, or, at the client's end, noted. */
static void tell_failure(struct conn_tls *t, int sslerr, int err, const char *what)
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

static void shake_failed(struct conn_tls *t, int sslerr, int err)
{
    const struct logger *log = &t->conn.log;

    err = sslerr == SSL_ERROR_SYSCALL ? err : 0;
    if (!SSL_is_server(t->ssl)) {
        bool closed = sslerr == SSL_ERROR_ZERO_RETURN || (ERR_peek_error() == 0 && err == 0);

        tell_failure(t, sslerr, err,
                     closed ? "peer closed connection in SSL handshake"
                            : "SSL_do_handshake() failed");
        fail(t);
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
    fail(t);
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
    if (more_in(t))
        what |= CONN_READ;
    if ((what & CONN_READ) && tickets && t->wrote_ms == 0) {
        wire_keep(t, 0); /* they leave with what answers the data that is there already */
    } else if (wire_end(t) < 0) {
        tell_failure(t, SSL_ERROR_SYSCALL, errno, "SSL_do_handshake() failed");
        fail(t);
        return;
    }
    /* Else the outcome is told when the last flight has gone, or the answer to early data that has been encrypted. */
    if (likely(t->out == NULL) || (tickets && t->accepted == 0))
        what |= CONN_WRITE;
    conn_want(t->raw, CONN_READ | CONN_HUP | (~t->raw->ready & CONN_WRITE));
    if (unlikely(t->shut_later) && shut(t) != 0) {
        fail(t);
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
static void abandon(struct conn_tls *t)
{
    int result;

    stop_waiting(t);
    if (t->fibre != NULL) {
        fibre_cancel(t->fibre);
        wire_begin(t);
        fibre_run(&t->fibre, do_handshake, &t->conn, &result);
        wire_of = NULL;
        ASSERT(t->fibre == NULL);
    }
    serve_waiting();
}

static void shake(struct conn_tls *t)
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
    default: shake_failed(t, sslerr, err);
    }
}

static void raw_event(struct conn *raw, unsigned ready)
{
    struct conn_tls *t = raw->owner;
    unsigned what = ready & (CONN_READ | CONN_HUP);

    if (t->conn.closed || t->state == TLS_FAILED)
        return;
    if (flush(t) != 0) {
        if (t->state == TLS_SHAKING || t->state == TLS_EARLY) {
            shake_failed(t, SSL_ERROR_SYSCALL, errno);
        } else {
            tell_failure(t, SSL_ERROR_SYSCALL, errno, "SSL_write() failed");
            fail(t);
        }
        return;
    }
    if (t->state == TLS_SHAKING || t->state == TLS_EARLY) {
        shake(t);
        return;
    }
    if ((raw->wants & CONN_WRITE) && t->out == NULL) {
        conn_want(raw, CONN_READ | CONN_HUP);
        what |= CONN_WRITE;
        what |= more_in(t) ? CONN_READ : 0;
    }
    if (what != 0)
        conn_deliver(&t->conn, what);
}

/* Operations --------------------------------------------------------------------------------- */

static int give_up(struct conn_tls *t, int err)
{
    t->state = TLS_FAILED;
    t->conn.ready = CONN_READ | CONN_WRITE | CONN_HUP;
    errno = err;
    return -1;
}

/* What a read that yielded nothing means; got: what those before it have. */
static ssize_t read_stopped(struct conn_tls *t, int n, size_t got)
{
    int err = errno;
    int sslerr = SSL_get_error(t->ssl, n);

    switch (sslerr) {
    case SSL_ERROR_WANT_READ:
        t->conn.ready &= (unsigned char) ~CONN_READ;
        if (unlikely(more_in(t)))
            conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP); /* raw_event goes on with it */
        errno = EAGAIN;
        return got > 0 ? (ssize_t) got : -1;
    case SSL_ERROR_ZERO_RETURN: t->conn.ready |= CONN_HUP; return (ssize_t) got;
    case SSL_ERROR_SYSCALL:
        if (ERR_peek_error() == 0 && err != 0) {
            give_up(t, err);
            return got > 0 ? (ssize_t) got : -1;
        }
        /* fall through */
    default:
        tell_failure(t, sslerr, err, "SSL_read() failed");
        give_up(t, EPROTO);
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
        drop_early(t);
    if (t->early == NULL && (t->state == TLS_EARLY || !more_in(t)))
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
            if (SSL_get_error(t->ssl, n) != SSL_ERROR_WANT_READ || !more_in(t) ||
                ++silent == SILENT_MAX)
                break;
            continue;
        }
        got += (size_t) n;
    } while (got < len && more_in(t));
    if (n > 0) {
        result = (ssize_t) got;
        if (!more_in(t))
            c->ready &= (unsigned char) ~CONN_READ;
    } else {
        result = read_stopped(t, n, got);
    }
    err = errno;
    c->bytes_in += got;
    /* Tickets of the handshake still wait for the answer, unless nothing is there to be answered. */
    if (wire_len == 0 || (result > 0 && t->wrote_ms == 0))
        wire_keep(t, 0);
    else if (wire_end(t) < 0 && result <= 0 && err == EAGAIN)
        return give_up(t, errno);
    errno = err;
    return result;
}

/* Where in the caller's vector a write is. */
struct cursor {
    const struct iovec *iov;
    size_t offset; /* into *iov */
    size_t left;   /* in all */
};

static void cursor_skip(struct cursor *at, size_t n)
{
    at->left -= n;
    at->offset += n;
    while (at->left > 0 && at->offset >= at->iov->iov_len)
        at->offset -= (at->iov++)->iov_len;
}

/* A record of the next n bytes, encrypted by us. False: the library could not do it. */
static bool cursor_seal(struct conn_tls *t, struct cursor *at, size_t n)
{
    size_t size;

    seal_begin(&t->seal, SEAL_DATA, n, wire + wire_len);
    while (n > 0) {
        size_t run = MIN(n, at->iov->iov_len - at->offset);

        seal_add((const char *) at->iov->iov_base + at->offset, run);
        cursor_skip(at, run);
        n -= run;
    }
    size = seal_end();
    wire_len += size;
    return size > 0;
}

/* The next n bytes in one piece, in memory that is good until the next call. */
static const char *cursor_take(struct cursor *at, size_t n)
{
    static char record[RECORD_MAX];
    const char *ptr = (const char *) at->iov->iov_base + at->offset;
    size_t have = 0;

    if (at->iov->iov_len - at->offset >= n) {
        cursor_skip(at, n);
        return ptr;
    }
    while (have < n) {
        size_t run = MIN(n - have, at->iov->iov_len - at->offset);

        memcpy(record + have, (const char *) at->iov->iov_base + at->offset, run);
        have += run;
        cursor_skip(at, run);
    }
    return record;
}

static size_t record_size(const struct conn_tls *t, size_t left)
{
    size_t size = MIN(t->options->buffer_size, RECORD_MAX);

    if (left > RECORD_MEDIUM && t->burst < PACKETS_UNTIL)
        size = MIN(size, RECORD_PACKET);
    else if (left > RECORD_MEDIUM && t->burst < MEDIUM_UNTIL)
        size = MIN(size, RECORD_MEDIUM);
    return MIN(size, left);
}

/* One record. */
static int encrypt(struct conn_tls *t, const char *data, size_t size)
{
    size_t n;

    if (unlikely(t->state == TLS_EARLY))
        return SSL_write_early_data(t->ssl, data, size, &n);
    return SSL_write(t->ssl, data, (int) size);
}

/* TLS 1.3: the library changes our key before it encrypts what is written next. */
static void renew_key(struct conn_tls *t)
{
    t->records = 0;
    if (SSL_version(t->ssl) == TLS1_3_VERSION)
        SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
}

/* Encrypts as much as one send takes, and sends it. Bytes reported, -1 with errno. */
static ssize_t write_batch(struct conn_tls *t, struct cursor *at)
{
    struct {
        size_t plain, wire;
    } ends[RECORDS];
    size_t plain = 0, done = 0;
    unsigned count = 0;
    ssize_t sent;

    wire_begin(t);
    while (at->left > 0 && count < RECORDS && wire_len + 2 * RECORD_EXTRA < WIRE_SIZE) {
        size_t size = MIN(record_size(t, at->left), WIRE_SIZE - RECORD_EXTRA - wire_len);
        bool direct;
        int n;

        if (unlikely(t->records++ >= conn_tls_key_records && t->state == TLS_OPEN))
            renew_key(t);
        /* The library has nothing to say before it: a key update comes out with data. */
        direct = seal_active(&t->seal) && t->state == TLS_OPEN &&
                 SSL_get_key_update_type(t->ssl) == SSL_KEY_UPDATE_NONE;
        n = direct ? cursor_seal(t, at, size) : encrypt(t, cursor_take(at, size), size);
        if (unlikely(n <= 0)) {
            int err = errno;

            tell_failure(t, SSL_get_error(t->ssl, n), err, "SSL_write() failed");
            wire_of = NULL;
            return give_up(t, EPROTO);
        }
        plain += size;
        t->burst = t->burst > UINT32_MAX - RECORD_MAX ? t->burst : t->burst + (uint32_t) size;
        ends[count].plain = plain;
        ends[count++].wire = wire_len;
    }
    if (unlikely(t->conn.last) && at->left == 0) {
        if (t->state == TLS_OPEN)
            put_goodbye(t);
        else
            t->shut_later = true;
    }
    sent = wire_end(t);
    if (sent < 0)
        return give_up(t, errno);
    for (unsigned i = 0; i < count && ends[i].wire <= (size_t) sent; i++)
        done = ends[i].plain;
    t->accepted = plain - done;
    return (ssize_t) done;
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
        ssize_t done = write_batch(t, &at);

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

static int tls_shutdown(struct conn *c)
{
    struct conn_tls *t = tls_of(c);

    if (t->state == TLS_FAILED) {
        errno = EPROTO;
        return -1;
    }
    if (t->state == TLS_OPEN)
        return shut(t);
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

    abandon(t);
    if (t->state == TLS_OPEN && !t->eof && !(t->raw->ready & CONN_HUP) && !c->reset_on_close &&
        t->accepted == 0)
        say_goodbye(t);
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
    block_unref(t->out);
    drop_early(t);
    t->raw->reset_on_close = c->reset_on_close;
    conn_close(t->raw);
    c->doomed.destroy = tls_recycle;
}

static void tls_info(const struct conn *c, struct conn_info *info)
{
    conn_info(tls_of(c)->raw, info);
    info->kind = "tls";
    info->sendfile = false;
}

static const struct conn_ops tls_ops = {
    .kind = "tls",
    .read = tls_read,
    .writev = tls_writev,
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
    bio = bio_new(t);
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
