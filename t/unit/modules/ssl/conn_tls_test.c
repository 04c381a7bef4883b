/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS over a pair of connections in memory, both ends ours: handshakes through buffers of any size, chains of
 * memory and files, full buffers, ends with and without close_notify, what a peer may do to us.
 */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "modules/ssl/seal.h"
#include "modules/ssl/ssl.h"
#include "t/unit/tap.h"

static SSL_CTX *server_ctx, *client_ctx;
static const struct conn_tls_options options = { .buffer_size = 16384 }, small = { .buffer_size = 1000 };

struct seen {
    unsigned bits; /* all that were ever ready */
    bool drain;
    uint64_t got;
    bool end;
    int error;
    unsigned char next;
    bool corrupt;
};

static void drain(struct conn *c, struct seen *s)
{
    static unsigned char buf[30000];

    for (;;) {
        ssize_t n = conn_read(c, buf, sizeof(buf));

        if (n <= 0) {
            s->end = n == 0;
            s->error = n < 0 ? errno : 0;
            return;
        }
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != s->next++)
                s->corrupt = true;
        s->got += (uint64_t) n;
    }
}

static void on_ready(struct conn *c, unsigned ready)
{
    struct seen *s = c->owner;

    s->bits |= ready;
    if (s->drain && (ready & CONN_READ))
        drain(c, s);
}

static struct conn *attach(struct conn *c, struct seen *s)
{
    *s = (struct seen){ 0 };
    c->handler = on_ready;
    c->owner = s;
    conn_want(c, CONN_WRITE);
    return c;
}

static void make_contexts(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);

    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *) "test", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    ASSERT(X509_sign(cert, key, EVP_sha256()) > 0);
    server_ctx = SSL_CTX_new(TLS_server_method());
    client_ctx = SSL_CTX_new(TLS_client_method());
    ASSERT(SSL_CTX_use_certificate(server_ctx, cert) && SSL_CTX_use_PrivateKey(server_ctx, key));
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = i ? server_ctx : client_ctx;

        SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_read_ahead(ctx, 1);
        SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
}

struct pair {
    struct conn *raw[2];
    struct conn *a, *b; /* client, server */
    struct seen s, t;
};

static void turns(unsigned n)
{
    while (n-- > 0)
        loop_turn(0);
}

static void pair_new(struct pair *p, size_t capacity, int version, const struct conn_tls_options *o)
{
    conn_mem_pair(p->raw, capacity);
    SSL_CTX_set_max_proto_version(client_ctx, version);
    p->a = attach(conn_tls_connect(p->raw[0], client_ctx, o), &p->s);
    p->b = attach(conn_tls_accept(p->raw[1], server_ctx, o, (struct tls_first){ .block = NULL }), &p->t);
    for (int i = 0; i < 50000 && !((p->s.bits & CONN_WRITE) && (p->t.bits & CONN_WRITE)); i++)
        loop_turn(0);
}

static void pair_close(struct pair *p)
{
    conn_close(p->a);
    conn_close(p->b);
    turns(2);
}

static const int all_versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

static void test_handshake(void)
{
    static const size_t capacities[] = { 1, 7, 100, 4096, 100000 };
    struct pair p;

    for (unsigned v = 0; v < ARRAY_LEN(all_versions); v++) {
        for (unsigned i = 0; i < ARRAY_LEN(capacities); i++) {
            unsigned before = conn_count;

            pair_new(&p, capacities[i], all_versions[v], &options);
            ok(conn_tls_established(p.a) && conn_tls_established(p.b), "%x: a handshake through %zu bytes",
               (unsigned) all_versions[v], capacities[i]);
            is_uint(conn_count - before, 2, "counted once an end");
            ok(p.a->log.conn == p.raw[0]->log.conn, "under the number of the conn below");
            ok(p.t.bits & CONN_WRITE, "readiness to write is the outcome");
            pair_close(&p);
            is_uint(conn_count, before, "and not counted any more");
        }
    }
}

/* size bytes of the pattern through the pair, in memory and from a file, limit at a time. */
static void send_through(struct pair *p, uint64_t size, uint64_t limit, bool file, const char *what)
{
    struct chain chain = CHAIN_INIT;
    uint64_t sent = 0;
    unsigned char *bytes = malloc(size);
    bool wrong = false;

    for (uint64_t i = 0; i < size; i++)
        bytes[i] = (unsigned char) (i + p->t.next);
    if (file) {
        FILE *f = tmpfile();
        struct chain_file *cf = chain_file_new(dup(fileno(f)));

        ASSERT(fwrite(bytes, 1, size, f) == size && fflush(f) == 0);
        fclose(f);
        chain_push_file(&chain, cf, 0, size);
        chain_file_unref(cf);
    } else {
        /* pieces of all sizes: what belongs into one record has to be gathered */
        for (uint64_t at = 0, n = 1; at < size; at += n, n = n * 3 % 40009 + 1)
            chain_push_mem(&chain, NULL, (const char *) bytes + at, (size_t) MIN(n, size - at));
    }
    p->t.drain = true;
    conn_want(p->b, CONN_READ);
    for (int i = 0; i < 300000 && sent < size; i++) {
        ssize_t n;

        if (!(p->a->ready & CONN_WRITE)) {
            conn_want(p->a, CONN_WRITE);
            loop_turn(0);
            conn_want(p->b, CONN_READ);
            continue;
        }
        n = conn_send(p->a, &chain, limit, false);
        wrong |= n < 0 || (limit > 0 && (uint64_t) n > limit);
        sent += n > 0 ? (uint64_t) n : 0;
    }
    turns(20);
    is_uint(sent, size, "%s: all sent", what);
    is_uint(p->t.got, size, "%s: all there", what);
    ok(!p->t.corrupt && !wrong, "%s: as it was", what);
    is_uint(p->a->bytes_out, p->b->bytes_in, "%s: counted", what);
    chain_clear(&chain);
    free(bytes);
}

static void test_transfer(void)
{
    static const size_t capacities[] = { 100, 5000, 70000, 1000000 };
    struct pair p;

    for (unsigned v = 0; v < ARRAY_LEN(all_versions); v++) {
        for (unsigned i = 0; i < ARRAY_LEN(capacities); i++) {
            for (int how = 0; how < 4; how++) {
                char what[64];

                snprintf(what, sizeof(what), "%x, %zu, %s, %s", (unsigned) all_versions[v], capacities[i],
                         how & 1 ? "file" : "memory", how & 2 ? "1000 at a time" : "no limit");
                pair_new(&p, capacities[i], all_versions[v], how & 2 ? &small : &options);
                send_through(&p, i == 0 ? 20000 : 400000, how & 2 ? 1000 : 0, how & 1, what);
                pair_close(&p);
            }
        }
    }
}

/* What writev reports is in the conn below: closing at once loses nothing of it. */
static void test_reported_is_sent(void)
{
    static char bytes[50000];
    struct iovec iov = { bytes, sizeof(bytes) };
    struct pair p;
    ssize_t n;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char) i;
    pair_new(&p, 20000, TLS1_3_VERSION, &options);
    n = conn_writev(p.a, &iov, 1);
    ok(n > 0 && n < 20000, "a part fits: %zd", n);
    ok(!(p.a->ready & CONN_WRITE), "then it is full");
    ok(conn_writev(p.a, &iov, 1) == -1 && errno == EAGAIN, "and says so");
    conn_close(p.a);
    p.t.drain = true;
    conn_want(p.b, CONN_READ);
    turns(10);
    ok(p.t.got >= (uint64_t) n && !p.t.corrupt, "what was reported arrives");
    conn_close(p.b);
    turns(2);
}

static void test_ends(void)
{
    static char words[] = { 0, 1, 2 };
    static char garbage[] = "garbage that is no record";
    struct iovec iov = { words, 3 }, bad = { garbage, sizeof(garbage) };
    struct pair p;

    for (unsigned v = 0; v < ARRAY_LEN(all_versions); v++) {
        pair_new(&p, 5000, all_versions[v], &options);
        p.t.drain = true;
        conn_want(p.b, CONN_READ);
        is_int(conn_writev(p.a, &iov, 1), 3, "the last words");
        is_int(conn_shutdown(p.a), 0, "shutdown");
        ok(conn_writev(p.a, &iov, 1) == -1 && errno == EPIPE, "then nothing can be written");
        turns(5);
        ok(p.t.got == 3 && p.t.end, "are followed by the end");
        ok(conn_tls_ended(p.b), "which was announced");
        p.s.drain = true;
        conn_want(p.a, CONN_READ);
        is_int(conn_writev(p.b, &iov, 1), 3, "the other direction is open");
        turns(5);
        is_uint(p.s.got, 3, "and carries");
        pair_close(&p);

        pair_new(&p, 5000, all_versions[v], &options);
        p.t.drain = true;
        conn_want(p.b, CONN_READ);
        conn_shutdown(p.raw[0]); /* behind the back of TLS */
        turns(5);
        ok(p.t.end && !conn_tls_ended(p.b), "an end that was not announced");
        pair_close(&p);

        pair_new(&p, 5000, all_versions[v], &options);
        p.t.drain = true;
        conn_want(p.b, CONN_READ);
        conn_writev(p.raw[0], &bad, 1);
        turns(5);
        is_int(p.t.error, EPROTO, "garbage between records");
        ok(conn_writev(p.b, &iov, 1) == -1 && errno == EPROTO, "is the end of writing too");
        pair_close(&p);

        pair_new(&p, 5000, all_versions[v], &options);
        p.a->reset_on_close = true;
        p.t.drain = true;
        conn_want(p.b, CONN_READ);
        conn_close(p.a);
        turns(5);
        is_int(p.t.error, ECONNRESET, "a reset");
        conn_close(p.b);
        turns(2);
    }
}

/* Key updates without end, whose answers nobody reads, and bytes that come before. */
static void test_peers_tricks(void)
{
    struct pair p;
    struct block *block = block_new(100);
    struct conn *raw[2], *c;
    struct seen s;
    bool failed = false;

    pair_new(&p, 200000, TLS1_3_VERSION, &options);
    p.t.drain = true;
    for (int i = 0; i < 2000 && !failed; i++) {
        if (SSL_key_update(conn_tls_ssl(p.a), SSL_KEY_UPDATE_REQUESTED) != 1
            || conn_writev(p.a, &(struct iovec){ "", 1 }, 1) < 0)
            break;
        p.t.next = 0;
        conn_want(p.b, CONN_READ);
        loop_turn(0);
        failed = p.t.error != 0 && p.t.error != EAGAIN;
    }
    ok(true, "many key updates: %s", failed ? "given up" : "answered");
    pair_close(&p);

    /* more of them at once than one read looks at: what is behind them comes all the same */
    pair_new(&p, 200000, TLS1_3_VERSION, &options);
    p.t.drain = true;
    for (int i = 0; i < 200; i++) {
        if (SSL_key_update(conn_tls_ssl(p.a), SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
            break;
        conn_writev(p.a, &(struct iovec){ "", 0 }, 1);
    }
    conn_writev(p.a, &(struct iovec){ "", 1 }, 1);
    conn_want(p.b, CONN_READ);
    turns(30);
    is_uint(p.t.got, 1, "data behind many key updates");
    pair_close(&p);

    conn_mem_pair(raw, 1000);
    memcpy(block->data, "GET / HTTP/1.1\r\n\r\n", 18);
    c = attach(conn_tls_accept(raw[1], server_ctx, &options, (struct tls_first){ block, 0, 18 }), &s);
    turns(5);
    ok((s.bits & CONN_WRITE) && !conn_tls_established(c), "what came before is read first");
    conn_close(c);
    conn_close(raw[0]);
    turns(2);
}

/* How often something is written to the conn below. */
static const struct conn_ops *mem_ops;
static unsigned writes;

static ssize_t counting_writev(struct conn *c, const struct iovec *iov, int n)
{
    writes++;
    return mem_ops->writev(c, iov, n);
}

/* The end is said together with the last of what is said before it. */
static void test_goodbye_with_the_last(void)
{
    static const size_t capacities[] = { 200000, 1000 };
    static const char text[40000];

    for (unsigned i = 0; i < 2 * ARRAY_LEN(capacities); i++) {
        size_t capacity = capacities[i / 2];
        bool file = i & 1;
        struct conn_ops ops;
        struct chain chain = CHAIN_INIT;
        struct pair p;
        ssize_t n = 0;

        pair_new(&p, capacity, TLS1_3_VERSION, &options);
        conn_want(p.a, CONN_READ); /* tickets */
        turns(3);
        mem_ops = p.raw[1]->ops;
        ops = *mem_ops;
        ops.writev = counting_writev;
        p.raw[1]->ops = &ops;
        chain_push_str(&chain, STR("head"));
        if (file) {
            FILE *f = tmpfile();
            struct chain_file *cf = chain_file_new(dup(fileno(f)));

            ASSERT(fwrite(text, 1, 20000, f) == 20000 && fflush(f) == 0);
            fclose(f);
            chain_push_file(&chain, cf, 0, 20000);
            chain_file_unref(cf);
        } else {
            chain_push_mem(&chain, NULL, text, 20000);
        }
        writes = 0;
        p.b->ends = true;
        p.s.drain = true;
        for (int turn = 0; turn < 10000 && n >= 0 && !chain_empty(&chain); turn++) {
            n = conn_send(p.b, &chain, 0, false);
            conn_want(p.a, CONN_READ);
            conn_want(p.b, CONN_WRITE);
            loop_turn(0);
        }
        ok(n >= 0 && chain_empty(&chain), "%zu, file %d: all is sent", capacity, file);
        if (capacity > 20000)
            is_uint(writes, file ? 2 : 1, "%zu, file %d: by one write each", capacity, file);
        turns(5);
        is_uint(p.s.got, 20004, "%zu, file %d: all arrives", capacity, file);
        ok(p.s.end && conn_tls_ended(p.a), "%zu, file %d: and then the end", capacity, file);
        ok(conn_writev(p.b, &(struct iovec){ "", 1 }, 1) == -1 && errno == EPIPE, "nothing comes after it");
        writes = 0;
        conn_close(p.b);
        is_uint(writes, 0, "closing says nothing more");
        conn_close(p.a);
        turns(2);
    }
}

/* Whether both ends offer the library to encrypt their records for it. */
static void set_sealing(bool sealing)
{
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = i ? server_ctx : client_ctx;

        if (sealing)
            SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
        else
            SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_KTLS);
    }
}

static bool seals(const struct conn *c)
{
    return BIO_get_ktls_send(SSL_get_wbio(conn_tls_ssl(c)));
}

/* Records of our making, read by the library's record layer. */
static void test_sealing(void)
{
    static const struct {
        int version;
        const char *name;
        bool known;
    } ciphers[] = {
        { TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256", true },
        { TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384", true },
        { TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256", true },
        { TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", true },
        { TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", true },
        { TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", true },
        { TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", false },
    };
    struct pair p;

    for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
        const char *name = ciphers[i].name;

        for (int sealing = 0; sealing < 2; sealing++) {
            set_sealing(sealing);
            if (ciphers[i].version == TLS1_3_VERSION)
                SSL_CTX_set_ciphersuites(client_ctx, name);
            else
                SSL_CTX_set_cipher_list(client_ctx, name);
            pair_new(&p, 100000, ciphers[i].version, &options);
            is_str(SSL_get_cipher_name(conn_tls_ssl(p.b)), name, "%s", name);
            is_int(seals(p.a), sealing && ciphers[i].known && seal_known(), "%s: client", name);
            is_int(seals(p.b), sealing && ciphers[i].known && seal_known(), "%s: server", name);
            send_through(&p, 300000, 0, false, name);
            pair_close(&p);
        }
    }
    SSL_CTX_set_ciphersuites(client_ctx, TLS_DEFAULT_CIPHERSUITES);
    SSL_CTX_set_cipher_list(client_ctx, "DEFAULT");
}

/* A word from one end to the other. */
static void say(struct conn *from, struct conn *to, struct seen *s, const char *what)
{
    static char words[] = { 0, 1, 2 };

    s->drain = true;
    s->got = 0;
    s->next = 0;
    is_int(conn_writev(from, &(struct iovec){ words, 3 }, 1), 3, "%s: said", what);
    conn_want(to, CONN_READ);
    turns(3);
    ok(s->got == 3 && !s->corrupt, "%s: heard", what);
}

/* With other keys the library encrypts again: it does not offer them. */
static void test_sealed_key_update(void)
{
    struct pair p;

    set_sealing(true);
    pair_new(&p, 100000, TLS1_3_VERSION, &options);
    say(p.a, p.b, &p.t, "first keys");
    say(p.b, p.a, &p.s, "first keys, back");
    is_int(SSL_key_update(conn_tls_ssl(p.a), SSL_KEY_UPDATE_REQUESTED), 1, "an update is asked for");
    say(p.a, p.b, &p.t, "second keys");
    is_int(seals(p.a), 0, "with them the library encrypts");
    is_int(seals(p.b), seal_known(), "at this end only");
    say(p.b, p.a, &p.s, "second keys, back");
    is_int(seals(p.b), 0, "until the other has answered it");
    say(p.a, p.b, &p.t, "more");
    say(p.b, p.a, &p.s, "more, back");
    is_int(SSL_key_update(conn_tls_ssl(p.b), SSL_KEY_UPDATE_REQUESTED), 1, "another update");
    say(p.b, p.a, &p.s, "third keys");
    say(p.a, p.b, &p.t, "third keys, back");
    pair_close(&p);
}

/* Two connections in turn share a cipher's context, and each has its own keys. */
static void test_sealed_in_turn(void)
{
    struct pair p, q;

    set_sealing(true);
    pair_new(&p, 100000, TLS1_3_VERSION, &options);
    pair_new(&q, 100000, TLS1_3_VERSION, &options);
    for (int i = 0; i < 3; i++) {
        say(p.a, p.b, &p.t, "one");
        say(q.a, q.b, &q.t, "the other");
    }
    pair_close(&p);
    pair_new(&p, 100000, TLS1_3_VERSION, &options);
    say(p.a, p.b, &p.t, "in the first one's place");
    say(q.b, q.a, &q.s, "the other, back");
    pair_close(&p);
    pair_close(&q);
}

/* Early data ---------------------------------------------------------------------------------- */

static SSL_SESSION *kept_session;

static int keep_session(SSL *ssl UNUSED, SSL_SESSION *session)
{
    SSL_SESSION_free(kept_session);
    kept_session = session;
    return 1;
}

/* A client of the library's alone, behind memory. */
struct early_client {
    SSL *ssl;
    BIO *in, *out;
    struct conn *raw, *server;
    struct seen t, ignored;
    size_t piece;
};

static const struct conn_tls_options early_options = { .buffer_size = 16384, .early_data = true };

/* What the client has written goes to the server, piece bytes at a time; what that has written, to the client. */
static void pump(struct early_client *e)
{
    char *data;
    long len = BIO_get_mem_data(e->out, &data);
    char buf[4096];
    ssize_t n;

    for (long at = 0; at < len;) {
        struct iovec iov = { data + at, MIN(e->piece, (size_t) (len - at)) };

        n = conn_writev(e->raw, &iov, 1);
        at += n > 0 ? n : 0;
        turns(e->piece < 100 ? 1 : 2);
    }
    (void) BIO_reset(e->out);
    turns(3);
    while ((n = conn_read(e->raw, buf, sizeof(buf))) > 0)
        BIO_write(e->in, buf, (int) n);
}

/* A copy: the library uses each but once. */
static void set_session(SSL *ssl)
{
    SSL_SESSION *copy = kept_session != NULL ? SSL_SESSION_dup(kept_session) : NULL;

    if (copy != NULL)
        SSL_set_session(ssl, copy);
    SSL_SESSION_free(copy);
}

static void early_new(struct early_client *e, size_t piece)
{
    struct conn *raw[2];

    conn_mem_pair(raw, 100000);
    *e = (struct early_client){ .raw = raw[0], .piece = piece };
    e->raw->handler = on_ready;
    e->raw->owner = &e->ignored;
    e->server = attach(conn_tls_accept(raw[1], server_ctx, &early_options, (struct tls_first){ .block = NULL }), &e->t);
    e->ssl = SSL_new(client_ctx);
    e->in = BIO_new(BIO_s_mem());
    e->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(e->in, -1);
    SSL_set_bio(e->ssl, e->in, e->out);
    SSL_set_connect_state(e->ssl);
    set_session(e->ssl);
}

static void early_close(struct early_client *e)
{
    conn_close(e->server);
    conn_close(e->raw);
    SSL_set_shutdown(e->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else the session is of no more use */
    SSL_free(e->ssl);
    turns(2);
}

static bool send_early(struct early_client *e, const char *data, size_t len)
{
    size_t n = 0;

    return SSL_write_early_data(e->ssl, data, len, &n) == 1 && n == len;
}

static bool shake_client(struct early_client *e)
{
    for (int i = 0; i < 10; i++) {
        if (SSL_do_handshake(e->ssl) == 1) {
            pump(e);
            return true;
        }
        pump(e);
    }
    return false;
}

static const size_t early_pieces[] = { 1, 7, 100, 100000 };
static char early_words[] = { 0, 1, 2 }, early_large[CONN_TLS_EARLY_MAX + 1];

static void test_early_answered(void)
{
    struct early_client e;
    char buf[100];

    for (unsigned i = 0; i < ARRAY_LEN(early_pieces); i++) {
        size_t p = early_pieces[i];

        early_new(&e, p);
        ok(send_early(&e, early_words, 3), "%zu: written", p);
        pump(&e);
        ok(conn_tls_established(e.server) && conn_tls_early(e.server), "%zu: early", p);
        ok((e.t.bits & CONN_WRITE) && (e.server->ready & CONN_READ), "%zu: is told", p);
        drain(e.server, &e.t);
        ok(e.t.got == 3 && e.t.error == EAGAIN && !(e.server->ready & CONN_READ), "%zu: read", p);
        is_int(conn_writev(e.server, &(struct iovec){ early_words, 3 }, 1), 3, "%zu: answered", p);
        pump(&e);
        e.t.drain = true;
        conn_want(e.server, CONN_READ);
        ok(shake_client(&e), "%zu: the handshake goes on", p);
        is_int(SSL_get_early_data_status(e.ssl), SSL_EARLY_DATA_ACCEPTED, "%zu: accepted", p);
        ok(conn_tls_established(e.server) && !conn_tls_early(e.server), "%zu: and ends", p);
        ok(SSL_read(e.ssl, buf, sizeof(buf)) == 3 && memcmp(buf, early_words, 3) == 0, "%zu: the answer", p);
        ok(SSL_write(e.ssl, "\3\4", 2) == 2, "%zu: more data", p);
        pump(&e);
        ok(e.t.got == 5 && !e.t.corrupt, "%zu: is read behind it", p);
        is_int(conn_writev(e.server, &(struct iovec){ early_words, 3 }, 1), 3, "%zu: and answered", p);
        pump(&e);
        ok(SSL_read(e.ssl, buf, sizeof(buf)) == 3, "%zu: which comes", p);
        early_close(&e);
    }
}

/* Unread: it waits for its reader, behind the handshake's end too. */
static void test_early_unread(void)
{
    struct early_client e;

    early_new(&e, 1000);
    ok(send_early(&e, early_large, CONN_TLS_EARLY_MAX), "all that is allowed");
    pump(&e);
    ok(shake_client(&e) && !conn_tls_early(e.server), "the handshake does not wait for its reader");
    ok(SSL_write(e.ssl, early_large, 100) == 100, "more");
    pump(&e);
    e.t.drain = true;
    conn_want(e.server, CONN_READ);
    turns(3);
    ok(e.t.got == CONN_TLS_EARLY_MAX + 100 && !e.t.corrupt, "all is there");
    early_close(&e);
}

/* Held: nothing is told before the end. */
static void test_early_held(void)
{
    struct early_client e;
    char buf[100];

    early_new(&e, 1000);
    send_early(&e, early_words, 3);
    pump(&e);
    conn_tls_hold(e.server);
    e.t.bits = 0;
    ok(conn_read(e.server, buf, 1) == -1 && errno == EAGAIN && conn_writev(e.server, &(struct iovec){ early_words, 3 }, 1) == -1
           && errno == EAGAIN, "held: nothing is ready");
    conn_want(e.server, CONN_READ | CONN_WRITE);
    turns(3);
    is_uint(e.t.bits, 0, "nor told");
    e.t.drain = true;
    ok(shake_client(&e), "until the end");
    ok((e.t.bits & CONN_WRITE) && e.t.got == 3, "then it is");
    early_close(&e);
}

/* Shut before the end: announced when it has come. */
static void test_early_shut(void)
{
    struct early_client e;
    char buf[100];

    early_new(&e, 1000);
    send_early(&e, early_words, 3);
    pump(&e);
    is_int(conn_shutdown(e.server), 0, "shutdown");
    ok(conn_writev(e.server, &(struct iovec){ early_words, 3 }, 1) == -1 && errno == EPIPE, "then nothing can be written");
    ok(shake_client(&e), "the handshake goes on");
    ok(SSL_read(e.ssl, buf, sizeof(buf)) <= 0 && (SSL_get_shutdown(e.ssl) & SSL_RECEIVED_SHUTDOWN), "and the end is announced");
    early_close(&e);
}

/* A client that goes away, one that breaks off, and one that is closed in the midst. */
static void test_early_lost(void)
{
    struct early_client e;

    early_new(&e, 1000);
    send_early(&e, early_words, 3);
    pump(&e);
    e.t.bits = 0;
    conn_want(e.server, CONN_HUP);
    conn_shutdown(e.raw);
    turns(3);
    ok((e.t.bits & CONN_HUP) && !conn_tls_established(e.server), "an end before the handshake's is a failure");
    drain(e.server, &e.t);
    ok(e.t.got == 0 && e.t.error == EPROTO, "and what came is void");
    early_close(&e);
    early_new(&e, 1000);
    send_early(&e, early_words, 3);
    pump(&e);
    early_close(&e);
    early_new(&e, 3);
    send_early(&e, early_words, 3);
    conn_writev(e.raw, &(struct iovec){ "\26\3\1", 3 }, 1);
    early_close(&e);
}

/* More than is allowed, by a client that does not care. */
static void test_early_too_much(void)
{
    struct early_client e;

    early_new(&e, 100000);
    SSL_SESSION_set_max_early_data(kept_session, CONN_TLS_EARLY_MAX * 2);
    set_session(e.ssl);
    ok(send_early(&e, early_large, CONN_TLS_EARLY_MAX), "as much as is allowed");
    send_early(&e, early_large, 600);
    pump(&e);
    ok(!conn_tls_established(e.server), "more is refused");
    early_close(&e);
}

/* What cannot be accepted is passed over. */
static void test_early_refused(void)
{
    struct early_client e;

    SSL_CTX_set_max_early_data(server_ctx, 0);
    for (unsigned i = 0; i < ARRAY_LEN(early_pieces); i++) {
        early_new(&e, early_pieces[i]);
        send_early(&e, early_words, 3);
        pump(&e);
        ok(!conn_tls_established(e.server), "%zu: not accepted", early_pieces[i]);
        ok(shake_client(&e) && SSL_get_early_data_status(e.ssl) == SSL_EARLY_DATA_REJECTED, "%zu: a handshake without", early_pieces[i]);
        e.t.drain = true;
        conn_want(e.server, CONN_READ);
        SSL_write(e.ssl, early_words, 3);
        pump(&e);
        ok(e.t.got == 3 && !e.t.corrupt, "%zu: the client says it again", early_pieces[i]);
        early_close(&e);
    }
    SSL_CTX_set_max_early_data(server_ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set1_groups_list(server_ctx, "P-384");
    early_new(&e, 50);
    send_early(&e, early_words, 3);
    pump(&e);
    ok(shake_client(&e) && SSL_get_early_data_status(e.ssl) == SSL_EARLY_DATA_REJECTED, "another group is asked for: a handshake without");
    early_close(&e);
}

static void test_early_data(void)
{
    struct early_client e;
    char buf[100];

    for (size_t i = 0; i < sizeof(early_large); i++)
        early_large[i] = (char) i;
    SSL_CTX_set1_groups_list(server_ctx, "X25519:P-256:P-384");
    SSL_CTX_set_max_early_data(server_ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set_recv_max_early_data(server_ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set_options(server_ctx, SSL_OP_NO_ANTI_REPLAY);
    SSL_CTX_set_max_proto_version(client_ctx, 0);
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, keep_session);

    early_new(&e, 100000);
    ok(shake_client(&e) && SSL_read(e.ssl, buf, sizeof(buf)) <= 0, "a handshake without early data");
    ok(conn_tls_established(e.server) && !conn_tls_early(e.server), "is over");
    ok(kept_session != NULL && SSL_SESSION_get_max_early_data(kept_session) == CONN_TLS_EARLY_MAX, "a session for early data");
    early_close(&e);

    test_early_answered();
    test_early_unread();
    test_early_held();
    test_early_shut();
    test_early_lost();
    test_early_too_much();
    test_early_refused();
    SSL_SESSION_free(kept_session);
    kept_session = NULL;

    SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION);
    early_new(&e, 5);
    ok(shake_client(&e) && conn_tls_established(e.server), "TLS 1.2");
    early_close(&e);
    SSL_SESSION_free(kept_session);
    kept_session = NULL;
}

int main(void)
{
    clock_update();
    is_int(loop_init(64), 0, "loop_init");
    make_contexts();
    for (int sealing = 0; sealing < 2; sealing++) {
        set_sealing(sealing);
        test_handshake();
        test_transfer();
        test_reported_is_sent();
        test_ends();
        test_goodbye_with_the_last();
        test_peers_tricks();
    }
    test_sealing();
    test_sealed_key_update();
    test_sealed_in_turn();
    for (int sealing = 0; sealing < 2; sealing++) {
        set_sealing(sealing);
        test_early_data();
    }
    SSL_CTX_free(server_ctx);
    SSL_CTX_free(client_ctx);
    loop_free();
    conn_tls_trim();
    conn_trim();
    block_trim();
    return done_testing();
}
