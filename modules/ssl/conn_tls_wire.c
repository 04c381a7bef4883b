/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What TLS connections say and hear. The library never touches a socket: it reads through a BIO straight from the conn below, a
 * buffer full at a time (read_ahead), and writes into memory that all connections of the process share (`wire`), from
 * where a whole flight, or as many records as one call produced, leave with one send. Only what the socket does not take is
 * kept by the connection, and while something is kept nothing more is encrypted: what writev reports
 * has gone into the socket, so that whoever closes afterwards loses nothing.
 */
#include <openssl/err.h>

#include "modules/ssl/conn_tls.h"

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
#define KEY_RECORDS (1u << 24) /* under one key: of 16 KiB AES-GCM bears 2^24.5 (RFC 8446, 5.5) */

uint32_t conn_tls_key_records = KEY_RECORDS;

/* What the library writes while one of its functions runs. */
static char *wire;
static size_t wire_len, wire_size;
static struct conn_tls *wire_of; /* whose it is; NULL between calls */
static uint8_t wire_type;        /* of what it holds, where the kernel encrypts; else 0 */
static BIO_METHOD *bio_method;

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

/* The same, where the kernel has the keys: alerts. There is no other message that it could be given. */
static int write_plain(struct conn_tls *t, const char *data, size_t len)
{
    uint8_t type = t->seal_type;

    t->seal_type = 0;
    if (type != SEAL_ALERT || (wire_len > 0 && wire_type != type) || !wire_room(len))
        return -1;
    wire_type = type;
    memcpy(wire + wire_len, data, len);
    wire_len += len;
    return (int) len;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    struct conn_tls *t = BIO_get_data(bio);
    size_t n = (size_t) len;

    BIO_clear_retry_flags(bio);
    if (wire_of != t || len < 0)
        return -1;
    if (unlikely(ktls_active(&t->kernel)))
        return write_plain(t, data, n);
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
    case CTRL_TAKE_KEYS: return num != 0 && !ktls_active(&t->kernel) && seal_take(&t->seal, ptr);
    case BIO_CTRL_GET_KTLS_SEND: return seal_active(&t->seal) || ktls_active(&t->kernel);
    case CTRL_NEXT_TYPE: t->seal_type = (uint8_t) num; return 0;
    default: return 0;
    }
}

BIO *wire_bio(struct conn_tls *t)
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
void wire_begin(struct conn_tls *t)
{
    ASSERT(wire_of == NULL);
    if (unlikely(wire == NULL)) {
        wire = mem_alloc(WIRE_SIZE);
        wire_size = WIRE_SIZE;
    }
    wire_of = t;
    wire_len = 0;
    wire_type = 0;
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
    wire_type = t->out_type;
    block_unref(t->out);
    t->out = NULL;
}

/* Keeps what is behind the first n bytes. */
void wire_keep(struct conn_tls *t, size_t n)
{
    wire_of = NULL;
    if (n == wire_len)
        return;
    t->out = block_new(wire_len - n);
    t->out_start = 0;
    t->out_end = wire_len - n;
    t->out_type = wire_type;
    memcpy(t->out->data, wire + n, wire_len - n);
}

/* One send. */
static ssize_t wire_send(struct conn_tls *t, char *ptr, size_t len, uint8_t type)
{
    struct iovec iov = { .iov_base = ptr, .iov_len = len };
    ssize_t n;

    if (likely(type == 0))
        return conn_writev(t->raw, &iov, 1);
    n = ktls_say(&t->kernel, t->raw->watch.fd, type, ptr, len);
    if (n < 0 && errno == EAGAIN)
        t->raw->ready &= (unsigned char) ~CONN_WRITE;
    return n;
}

void wire_blocked(struct conn_tls *t)
{
    t->conn.ready &= (unsigned char) ~CONN_WRITE;
    conn_want(t->raw, CONN_READ | CONN_WRITE | CONN_HUP);
}

/*
 * After it: one send. How many bytes of the wire have gone; what has not is kept, and raw will say when it takes more. -1 with
 * errno: raw is broken.
 */
ssize_t wire_end(struct conn_tls *t)
{
    ssize_t n = 0;

    if (likely(wire_len > 0)) {
        t->raw->corked = t->conn.corked;
        n = wire_send(t, wire, wire_len, wire_type);
        t->raw->corked = false;
    }
    if (n < 0 && errno != EAGAIN) {
        wire_of = NULL;
        return -1;
    }
    n = MAX(n, 0);
    wire_keep(t, (size_t) n);
    if (unlikely(t->out != NULL) && (t->state == TLS_OPEN || t->state == TLS_EARLY))
        wire_blocked(t);
    return n;
}

/* All that was to be said has been. */
static int shut_raw(struct conn_tls *t)
{
    return ktls_active(&t->kernel) ? kernel_shut(t) : conn_shutdown(t->raw);
}

/* What is kept, as far as raw takes it. 0 or -1. */
int wire_flush(struct conn_tls *t)
{
    ssize_t n;

    if (likely(t->out == NULL))
        return 0;
    n = wire_send(t, t->out->data + t->out_start, t->out_end - t->out_start, t->out_type);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    t->out_start += (size_t) n;
    if (t->out_start < t->out_end)
        return 0;
    block_unref(t->out);
    t->out = NULL;
    return t->shut_raw ? shut_raw(t) : 0;
}

/* close_notify, once, between wire_begin and wire_end. */
static void wire_put_goodbye(struct conn_tls *t)
{
    if (t->shut)
        return;
    t->shut = true;
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}

/* close_notify, once. 0, or -1: raw is broken. */
int wire_goodbye(struct conn_tls *t)
{
    if (t->shut)
        return 0;
    wire_begin(t);
    wire_put_goodbye(t);
    return wire_end(t) < 0 ? -1 : 0;
}

/* close_notify and the end of raw, as soon as what is kept has gone. */
int wire_shut(struct conn_tls *t)
{
    if (wire_goodbye(t) != 0)
        return -1;
    if (t->out == NULL)
        return shut_raw(t);
    t->shut_raw = true;
    return 0;
}

void wire_void(void)
{
    wire_of = NULL;
}

bool wire_is_empty(void)
{
    return wire_len == 0;
}

void wire_trim(void)
{
    free(wire);
    wire = NULL;
    wire_size = 0;
    seal_trim();
    BIO_meth_free(bio_method);
    bio_method = NULL;
}

/* Records ------------------------------------------------------------------------------------- */

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

/*
 * The peer takes no more. It may have said why, by an alert that nobody has read yet: with TLS 1.3 a server says what it
 * thinks of our certificate when our handshake is over. The client's end looks for that, as the connection is given up
 * anyway. The errno that stands for it.
 */
static int why_broken(struct conn_tls *t, int err)
{
    char byte;
    int n;

    if (SSL_is_server(t->ssl) || t->state != TLS_OPEN || (err != ECONNRESET && err != EPIPE))
        return err;
    t->raw->ready |= CONN_READ;
    wire_begin(t);
    n = SSL_peek(t->ssl, &byte, 1);
    if (n <= 0 && SSL_get_error(t->ssl, n) == SSL_ERROR_SSL) {
        tls_tell_failure(t, SSL_ERROR_SSL, 0, "SSL_read() failed");
        err = EPROTO;
    }
    ERR_clear_error();
    wire_of = NULL;
    return err;
}

/* Encrypts as much as one send takes, and sends it. Bytes reported, -1 with errno. */
ssize_t wire_write(struct conn_tls *t, struct cursor *at)
{
    struct {
        size_t plain, wire;
    } ends[RECORDS];
    size_t plain = 0, done = 0;
    unsigned count = 0;
    ssize_t sent;

    if (unlikely(kernel_writes(t, 0)))
        return kernel_write(t, at);
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

            tls_tell_failure(t, SSL_get_error(t->ssl, n), err, "SSL_write() failed");
            wire_of = NULL;
            return tls_give_up(t, EPROTO);
        }
        plain += size;
        t->burst = t->burst > UINT32_MAX - RECORD_MAX ? t->burst : t->burst + (uint32_t) size;
        ends[count].plain = plain;
        ends[count++].wire = wire_len;
    }
    if (unlikely(t->conn.last) && at->left == 0) {
        if (t->state == TLS_OPEN)
            wire_put_goodbye(t);
        else
            t->shut_later = true;
    }
    sent = wire_end(t);
    if (unlikely(sent < 0))
        return tls_give_up(t, why_broken(t, errno));
    for (unsigned i = 0; i < count && ends[i].wire <= (size_t) sent; i++)
        done = ends[i].plain;
    t->accepted = plain - done;
    return (ssize_t) done;
}
