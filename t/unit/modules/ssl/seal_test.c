/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records that we encrypt, as a plain peer of the library reads them: random writes through a pipe that is cut at every byte, key
 * updates from either side at any moment, what a peer may negotiate about sizes, nonces as they stand on the wire.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "core/base/clock.h"
#include "modules/ssl/seal.h"
#include "modules/ssl/ssl.h"
#include "t/unit/tap.h"

#define PATTERN 70000 /* bytes that are ever offered at once */
#define WALKS 36      /* of each cipher */

static SSL_CTX *server_ctx, *client_ctx;
static const struct conn_tls_options options = { .buffer_size = 16384 };
static unsigned char pattern[PATTERN + 256];

/* The same numbers in each run. */
static uint64_t dice;

static size_t any(size_t n)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (size_t) (dice >> 33) % n;
}

/* Our end, a pipe of some capacity, and a peer of the library's own. */
struct rig {
    struct conn *raw[2];
    struct conn *c; /* over raw[1] */
    SSL *peer;
    BIO *in, *out; /* the peer's */
    bool server;   /* c is the server's end */
    bool ready;    /* its handshake has ended */
    uint64_t sent, got;  /* from c to the peer */
    uint64_t said, heard; /* from the peer to c */
    bool wrong, ended;
    size_t largest;  /* encrypted record, as on the wire */
    unsigned records; /* after the peer's handshake, or TLS 1.2's change of ciphers */
    unsigned char header[5 + 8];
    size_t have, left; /* of a record on the wire: bytes of header[], bytes of it to come */
    bool changed, nonces_wrong;
    uint64_t nonce;
};

static void make_contexts(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    ASSERT(X509_sign(cert, key, EVP_sha256()) > 0);
    server_ctx = SSL_CTX_new(TLS_server_method());
    client_ctx = SSL_CTX_new(TLS_client_method());
    ASSERT(SSL_CTX_use_certificate(server_ctx, cert) && SSL_CTX_use_PrivateKey(server_ctx, key));
    for (int i = 0; i < 2; i++) {
        SSL_CTX *ctx = i ? server_ctx : client_ctx;

        SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION | SSL_OP_ENABLE_KTLS);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void on_ready(struct conn *c, unsigned ready)
{
    struct rig *r = c->owner;

    r->ready |= (ready & CONN_WRITE) != 0;
}

static void on_raw(struct conn *c UNUSED, unsigned ready UNUSED)
{
}

static uint64_t number(const unsigned char *p)
{
    uint64_t n = 0;

    for (int i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return n;
}

static void look_at_record(struct rig *r)
{
    bool gcm = SSL_version(r->peer) == TLS1_2_VERSION && strstr(SSL_get_cipher_name(r->peer), "GCM") != NULL;

    if (r->changed) {
        if (gcm && r->records > 0 && number(r->header + 5) != r->nonce + 1)
            r->nonces_wrong = true;
        r->nonce = number(r->header + 5);
        r->records++;
    }
    if (SSL_version(r->peer) == TLS1_2_VERSION && r->header[0] == 20)
        r->changed = true;
    if (SSL_is_init_finished(r->peer) || r->changed)
        r->largest = MAX(r->largest, (size_t) r->header[3] << 8 | r->header[4]);
}

/* What stands on the wire, from us. */
static void look(struct rig *r, const unsigned char *p, size_t n)
{
    while (n > 0) {
        size_t head, take;

        if (r->have < 5) {
            r->header[r->have++] = *p++;
            n--;
            if (r->have == 5)
                r->left = (size_t) r->header[3] << 8 | r->header[4];
            continue;
        }
        head = MIN(MIN(n, r->left), sizeof(r->header) - r->have);
        memcpy(r->header + r->have, p, head);
        r->have += head;
        take = MIN(n, r->left);
        r->left -= take;
        p += take;
        n -= take;
        if (r->left == 0) {
            look_at_record(r);
            r->have = 0;
        }
    }
}

/* At most n bytes each way. */
static void pump(struct rig *r, size_t n)
{
    static unsigned char buf[100000];
    ssize_t got = conn_read(r->raw[0], buf, MIN(n, sizeof(buf)));
    char *bytes;
    long have;

    if (got > 0) {
        look(r, buf, (size_t) got);
        ASSERT(BIO_write(r->in, buf, (int) got) == got);
    }
    have = BIO_get_mem_data(r->out, &bytes);
    if (have > 0) {
        struct iovec iov = { bytes, MIN((size_t) have, n) };

        got = conn_writev(r->raw[0], &iov, 1);
        if (got > 0)
            ASSERT(BIO_read(r->out, buf, (int) got) == got);
    }
    conn_want(r->raw[0], CONN_READ | CONN_WRITE);
    loop_turn(0);
}

static void peer_reads(struct rig *r)
{
    static unsigned char buf[20000];
    int n;

    while ((n = SSL_read(r->peer, buf, sizeof(buf))) > 0) {
        r->wrong |= memcmp(buf, pattern + r->got % 256, (size_t) n) != 0;
        r->got += (uint64_t) n;
    }
    n = SSL_get_error(r->peer, n);
    r->ended |= n == SSL_ERROR_ZERO_RETURN;
    r->wrong |= n != SSL_ERROR_ZERO_RETURN && n != SSL_ERROR_WANT_READ;
    ERR_clear_error();
}

static void we_read(struct rig *r)
{
    static unsigned char buf[20000];
    ssize_t n;

    while ((n = conn_read(r->c, buf, 1 + any(sizeof(buf)))) > 0) {
        r->wrong |= memcmp(buf, pattern + r->heard % 256, (size_t) n) != 0;
        r->heard += (uint64_t) n;
    }
    r->wrong |= n < 0 && errno != EAGAIN;
}

/* Of the pattern, n bytes in pieces. */
static void we_write(struct rig *r, size_t n)
{
    struct iovec iov[8];
    unsigned count = 0;
    unsigned char *p = pattern + r->sent % 256;
    ssize_t done;

    while (n > 0 && count < ARRAY_LEN(iov)) {
        size_t run = count == ARRAY_LEN(iov) - 1 ? n : any(n + 1);

        iov[count++] = (struct iovec){ p, run };
        p += run;
        n -= run;
    }
    done = conn_writev(r->c, iov, (int) count);
    r->wrong |= done < 0 && errno != EAGAIN;
    r->sent += done > 0 ? (uint64_t) done : 0;
}

static void peer_writes(struct rig *r, size_t n)
{
    int done = SSL_write(r->peer, pattern + r->said % 256, (int) n);

    r->said += done > 0 ? (uint64_t) done : 0;
    ERR_clear_error();
}

static void rig_new(struct rig *r, bool server, size_t capacity, int version)
{
    *r = (struct rig){ .server = server };
    conn_mem_pair(r->raw, capacity);
    r->raw[0]->handler = on_raw;
    SSL_CTX_set_max_proto_version(client_ctx, version);
    r->c = server ? conn_tls_accept(r->raw[1], server_ctx, &options, (struct tls_first){ .block = NULL })
                  : conn_tls_connect(r->raw[1], client_ctx, &options);
    r->c->handler = on_ready;
    r->c->owner = r;
    conn_want(r->c, CONN_WRITE);
    r->peer = SSL_new(server ? client_ctx : server_ctx);
    SSL_clear_options(r->peer, SSL_OP_ENABLE_KTLS);
    r->in = BIO_new(BIO_s_mem());
    r->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(r->in, -1);
    SSL_set_bio(r->peer, r->in, r->out);
    if (server)
        SSL_set_connect_state(r->peer);
    else
        SSL_set_accept_state(r->peer);
}

static void rig_shake(struct rig *r)
{
    for (int i = 0; i < 50000 && !(r->ready && SSL_is_init_finished(r->peer)); i++) {
        SSL_do_handshake(r->peer);
        ERR_clear_error();
        pump(r, 100000);
    }
}

/* All that has been encrypted arrives, and is reported when it is offered again. */
static void rig_settle(struct rig *r)
{
    for (int i = 0; i < 200000 && !r->wrong; i++) {
        pump(r, 100000);
        conn_want(r->c, CONN_READ | CONN_WRITE);
        peer_reads(r);
        we_read(r);
        if (r->got > r->sent)
            we_write(r, (size_t) (r->got - r->sent));
        else if (r->got == r->sent && r->heard == r->said)
            break;
    }
}

static void rig_free(struct rig *r)
{
    conn_close(r->c);
    for (int i = 0; i < 50000 && !r->ended && !r->wrong; i++) {
        pump(r, 100000);
        peer_reads(r);
    }
    conn_close(r->raw[0]);
    loop_turn(0);
    loop_turn(0);
    SSL_free(r->peer);
}

static bool seals(const struct rig *r)
{
    return BIO_get_ktls_send(SSL_get_wbio(conn_tls_ssl(r->c)));
}

static const struct {
    int version;
    const char *name;
} ciphers[] = {
    { TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256" },
    { TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384" },
    { TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256" },
    { TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256" },
    { TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384" },
    { TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305" },
};

static void choose(unsigned cipher)
{
    if (ciphers[cipher].version == TLS1_3_VERSION)
        SSL_CTX_set_ciphersuites(client_ctx, ciphers[cipher].name);
    else
        SSL_CTX_set_cipher_list(client_ctx, ciphers[cipher].name);
}

/* A step of a walk: somebody says something, or some bytes pass. */
static void step(struct rig *r, bool updates, bool large)
{
    static const size_t sizes[] = { 2, 40, 300, 6000, 17000, PATTERN };
    size_t size = sizes[any(large ? ARRAY_LEN(sizes) : 3)];

    switch (any(updates ? 12 : 10)) {
    case 0: case 1: case 2: case 3:
        conn_want(r->c, CONN_READ | CONN_WRITE);
        we_write(r, 1 + any(size));
        break;
    case 4: case 5: case 6: pump(r, 1 + any(size)); break;
    case 7: peer_reads(r); break;
    case 8: peer_writes(r, 1 + any(large ? 3000 : 30)); break;
    case 9: we_read(r); break;
    case 10:
        SSL_key_update(r->peer, any(2) ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        ERR_clear_error();
        break;
    default:
        if (any(10) == 0)
            SSL_key_update(conn_tls_ssl(r->c), any(2) ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        ERR_clear_error();
    }
}

static void test_walks(void)
{
    static const size_t capacities[] = { 3, 30, 1000, 9000, 20000, 300000 };
    struct rig r;

    for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
        unsigned bad = 0, sealed = 0, left = 0;

        choose(i);
        for (unsigned walk = 0; walk < WALKS; walk++) {
            size_t capacity = capacities[walk % ARRAY_LEN(capacities)];
            bool updates = ciphers[i].version == TLS1_3_VERSION && walk % 5 != 0;

            dice = i * 1000 + walk;
            rig_new(&r, walk / 6 % 2, capacity, ciphers[i].version);
            rig_shake(&r);
            sealed += seals(&r);
            for (int n = 0; n < 300; n++)
                step(&r, updates, capacity > 100);
            rig_settle(&r);
            left += !seals(&r);
            bad += r.wrong || r.nonces_wrong || r.got != r.sent || r.heard != r.said;
            rig_free(&r);
            bad += r.wrong || r.nonces_wrong;
        }
        is_uint(bad, 0, "%s: walks that went wrong", ciphers[i].name);
        is_uint(sealed, seal_known() ? WALKS : 0, "%s: records are ours", ciphers[i].name);
        ok(ciphers[i].version != TLS1_3_VERSION || left > WALKS / 2, "%s: and the library's after an update (%u)",
           ciphers[i].name, left);
    }
}

/* A small answer is cut at each byte that the socket may take of it. */
static void test_cuts(void)
{
    struct rig r;

    for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
        unsigned bad = 0;

        choose(i);
        for (size_t cut = 1; cut < 130; cut += i % 3 ? 7 : 1) {
            rig_new(&r, true, 100000, ciphers[i].version);
            rig_shake(&r);
            peer_reads(&r); /* tickets */
            /* As much is on the way that the first send of the answer takes so many bytes. */
            while (r.c->ready & CONN_WRITE && r.raw[1]->bytes_out < 99000)
                we_write(&r, 16000);
            for (int n = 0; n < 40; n++) {
                pump(&r, cut);
                conn_want(r.c, CONN_READ | CONN_WRITE);
                we_write(&r, 1 + n % 60);
                if (n % 3 == 0)
                    peer_reads(&r);
            }
            rig_settle(&r);
            bad += r.wrong || r.nonces_wrong || r.got != r.sent;
            rig_free(&r);
        }
        is_uint(bad, 0, "%s: cuts that went wrong", ciphers[i].name);
    }
}

/* A client that wants small records (RFC 6066) has them, and whoever wants padding as well. */
static void test_sizes(void)
{
    struct rig r;

    for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
        choose(i);
        SSL_CTX_set_tlsext_max_fragment_length(client_ctx, TLSEXT_max_fragment_length_512);
        rig_new(&r, true, 100000, ciphers[i].version);
        rig_shake(&r);
        we_write(&r, 60000);
        rig_settle(&r);
        ok(r.got > 50000 && !r.wrong, "%s: through records of 512 bytes", ciphers[i].name);
        ok(r.largest <= 512 + SEAL_EXTRA, "%s: none is larger (%zu)", ciphers[i].name, r.largest);
        rig_free(&r);
        SSL_CTX_set_tlsext_max_fragment_length(client_ctx, TLSEXT_max_fragment_length_DISABLED);
        rig_new(&r, true, 300000, ciphers[i].version);
        rig_shake(&r);
        for (int n = 0; n < 4; n++)
            we_write(&r, 60000);
        rig_settle(&r);
        ok(!r.wrong && r.largest > 16384 && r.largest <= 16384 + SEAL_EXTRA - 5, "%s: full ones (%zu)", ciphers[i].name,
           r.largest);
        rig_free(&r);
    }
}

/* After so many records the key is changed, whoever makes them, and the end is said under the new one. */
static void test_renewed_keys(void)
{
    uint32_t usual = conn_tls_key_records;
    struct rig r;

    conn_tls_key_records = 20;
    for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
        bool tls13 = ciphers[i].version == TLS1_3_VERSION;

        choose(i);
        for (int n = 19; n < 70; n += 7) {
            rig_new(&r, n % 2, 300000, ciphers[i].version);
            rig_shake(&r);
            for (int k = 0; k < n; k++)
                we_write(&r, 10);
            is_int(seals(&r), seal_known() && (n <= 20 || !tls13), "%s: %d records", ciphers[i].name, n);
            rig_settle(&r);
            ok(r.got == 10u * (unsigned) n && !r.wrong, "%s: %d records are read", ciphers[i].name, n);
            rig_free(&r);
            ok(r.ended && !r.wrong, "%s: %d records, then the end", ciphers[i].name, n);
        }
    }
    conn_tls_key_records = usual;
}

/* Keys in the kernel's form, as they come and, some records later, go. */
static void test_keys_go_on(void)
{
    struct tls12_crypto_info_aes_gcm_128 aes128 = {
        .info = { .cipher_type = TLS_CIPHER_AES_GCM_128 }, .salt = "salt", .iv = "\0\0\0\0\0\0\0\xff", .key = "key of 16 bytes", .rec_seq = { 0, 0, 0, 0, 0, 0, 1, 254 } };
    struct tls12_crypto_info_aes_gcm_256 aes256 = {
        .info = { .cipher_type = TLS_CIPHER_AES_GCM_256 }, .salt = "SALT", .iv = "12345678", .key = "key of 32 bytes in all, of which", .rec_seq = { 0 } };
    struct tls12_crypto_info_chacha20_poly1305 chacha20 = {
        .info = { .cipher_type = TLS_CIPHER_CHACHA20_POLY1305 }, .iv = "123456789012", .key = "another key of 32 bytes in all..", .rec_seq = { [7] = 7 } };
    const struct {
        struct tls_crypto_info *info;
        size_t len;
        const unsigned char *iv;
        uint64_t sequence;
        uint8_t extra13, extra12;
    } keys[] = {
        { &aes128.info, sizeof(aes128), aes128.iv, 510, 22, 29 },
        { &aes256.info, sizeof(aes256), aes256.iv, 0, 22, 29 },
        { &chacha20.info, sizeof(chacha20), NULL, 7, 22, 21 },
    };
    static char out[100];

    for (unsigned i = 0; seal_known() && i < ARRAY_LEN(keys); i++) {
        for (int tls13 = 0; tls13 < 2; tls13++) {
            struct seal s = { 0 };
            struct seal_info info;
            size_t iv_at = (size_t) (keys[i].iv - (const unsigned char *) keys[i].info);
            size_t size;

            keys[i].info->version = tls13 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
            ok(seal_take(&s, keys[i].info), "%s, TLS 1.%d: taken", seal_name(&s), 2 + tls13);
            is_uint(seal_give(&s, &info), keys[i].len, "given: as long");
            ok(memcmp(&info, keys[i].info, keys[i].len) == 0, "and the same");
            is_uint(seal_sequence_of(&info), keys[i].sequence, "the number of the next record");
            for (int n = 0; n < 3; n++) {
                seal_begin(&s, SEAL_DATA, 10, out);
                seal_add("0123456789", 10);
                size = seal_end();
            }
            is_uint(size - 10, seal_extra(&s), "what a record has more");
            is_uint(seal_extra(&s), tls13 ? keys[i].extra13 : keys[i].extra12, "is what it should be");
            seal_give(&s, &info);
            is_uint(seal_sequence_of(&info), keys[i].sequence + 3, "three records later");
            if (keys[i].iv != NULL)
                is_uint(number((unsigned char *) &info + iv_at) - number(keys[i].iv), tls13 ? 0 : 3,
                        "the nonce's part that is sent goes up in TLS 1.2 alone");
            seal_drop(&s);
        }
    }
}

int main(void)
{
    clock_update();
    is_int(loop_init(64), 0, "loop_init");
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (unsigned char) i;
    make_contexts();
    test_walks();
    test_cuts();
    test_sizes();
    test_renewed_keys();
    test_keys_go_on();
    SSL_CTX_free(server_ctx);
    SSL_CTX_free(client_ctx);
    loop_free();
    conn_tls_trim();
    conn_trim();
    block_trim();
    return done_testing();
}
