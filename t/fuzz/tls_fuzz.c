/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: bytes of a peer's on the server's end of TLS, cut into pieces, before the handshake or, after one with a client
 * of ours, between its records, or behind the flight of one with early data. Whatever comes, the conn keeps to its contract: it says EAGAIN only with the
 * ready bit clear, and what has failed stays failed.
 */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/x509.h>

#include "core/base/clock.h"
#include "modules/ssl/ssl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static SSL_CTX *server_ctx, *client_ctx;
static const struct conn_tls_options options = { .buffer_size = 16384, .early_data = true };
static SSL_SESSION *session;

static void quiet(struct conn *c, unsigned ready)
{
    char buf[5000];
    ssize_t n = 0;

    if (c->owner == NULL)
        return; /* the client, or one that is closed */
    while ((ready & CONN_READ) && (n = conn_read(c, buf, sizeof(buf))) > 0)
        continue;
    if (n < 0 && errno == EAGAIN && (c->ready & CONN_READ) && conn_tls_established(c))
        abort();
    if (n < 0 && errno == EPROTO && conn_tls_established(c))
        abort();
    if (c->bytes_in > 0 && conn_tls_early(c)) {
        struct iovec iov = { buf, c->bytes_in & 1 ? 3 : sizeof(buf) };

        conn_writev(c, &iov, 1);
        if (c->bytes_in % 5 == 0)
            conn_tls_hold(c);
        if (c->bytes_in % 7 == 0)
            conn_shutdown(c);
    }
    if (n >= 0 || errno == EAGAIN)
        conn_want(c, CONN_READ);
}

static int keep_session(SSL *ssl, SSL_SESSION *new)
{
    (void) ssl;
    SSL_SESSION_free(session);
    session = new;
    return 1;
}

static void make_contexts(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    if (X509_sign(cert, key, EVP_sha256()) <= 0)
        abort();
    server_ctx = SSL_CTX_new(TLS_server_method());
    client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_use_certificate(server_ctx, cert);
    SSL_CTX_use_PrivateKey(server_ctx, key);
    SSL_CTX_set_mode(server_ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(server_ctx, 1);
    SSL_CTX_set_options(server_ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION |
                                        SSL_OP_NO_ANTI_REPLAY);
    SSL_CTX_set_max_early_data(server_ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, keep_session);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* The first flight of a client with early data, which is the first bytes of the input. What there is of the flight. */
static size_t make_flight(const uint8_t *data, size_t size, char *out, size_t room)
{
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    SSL *ssl = SSL_new(client_ctx);
    BIO *to = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    size_t n;
    int len;

    BIO_set_mem_eof_return(from, -1);
    SSL_set_bio(ssl, from, to);
    SSL_set_connect_state(ssl);
    SSL_set_session(ssl, copy);
    SSL_write_early_data(ssl, data, size, &n);
    len = BIO_read(to, out, (int) room);
    SSL_SESSION_free(copy);
    SSL_free(ssl);
    return len > 0 ? (size_t) len : 0;
}

static void turns(unsigned n)
{
    while (n-- > 0)
        loop_turn(0);
}

/* A session for early data, from a connection with ourselves. */
static void make_session(void)
{
    struct conn *raw[2], *server, *client;
    static int mark;

    conn_mem_pair(raw, 20000);
    server = conn_tls_accept(raw[1], server_ctx, &options, (struct tls_first){ .block = NULL });
    client = conn_tls_connect(raw[0], client_ctx, &options);
    server->handler = client->handler = quiet;
    server->owner = client->owner = &mark;
    conn_want(server, CONN_READ);
    conn_want(client, CONN_READ);
    turns(10);
    server->owner = client->owner = NULL;
    conn_close(server);
    conn_close(client);
    turns(2);
    if (session == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    static int mark;
    struct conn *raw[2], *server, *client = NULL, *from;
    uint8_t how;

    if (!ready) {
        clock_update();
        if (loop_init(64) != 0)
            abort();
        make_contexts();
        make_session();
        ready = true;
    }
    if (size < 1)
        return 0;
    how = *data++;
    size--;
    conn_mem_pair(raw, 20000);
    server = conn_tls_accept(raw[1], server_ctx, &options, (struct tls_first){ .block = NULL });
    server->handler = quiet;
    server->owner = &mark;
    conn_want(server, CONN_READ);
    if (how & 1) {
        SSL_CTX_set_max_proto_version(client_ctx, how & 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        client = conn_tls_connect(raw[0], client_ctx, &options);
        client->handler = quiet;
        turns(8);
        if (!conn_tls_established(server))
            abort();
    }
    from = raw[0];
    if ((how & 3) == 2) {
        char flight[8192];
        size_t early = MIN(size, (size_t) 3000), left, at;

        SSL_CTX_set_max_proto_version(client_ctx, TLS1_3_VERSION);
        left = make_flight(data, early, flight, sizeof(flight));
        data += early / 2;
        size -= early / 2;
        for (at = 0; left > 0;) {
            size_t n = MIN(left, (size_t) (how >> 2) * 16 + 1);
            struct iovec iov = { flight + at, n };

            conn_writev(from, &iov, 1);
            at += n;
            left -= n;
            turns(1);
        }
    }
    while (size > 0) {
        size_t n = MIN(size, (size_t) (how >> 2) + 1);
        struct iovec iov = { (void *) data, n };

        conn_writev(from, &iov, 1);
        data += n;
        size -= n;
        turns(1);
    }
    turns(2);
    server->owner = NULL;
    conn_close(server);
    conn_close(client != NULL ? client : from);
    turns(2);
    return 0;
}
