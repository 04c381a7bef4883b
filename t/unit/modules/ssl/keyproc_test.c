/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the key process signs and what not, message by message; keys as a worker's library sees them; and the stacks on which handshakes
 * wait.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "modules/ssl/fibre.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/pairs.h"
#include "t/unit/tap.h"

/* Messages ----------------------------------------------------------------------------------- */

static unsigned char text[KEYPROC_PAYLOAD_MAX + 1],
    datagram[sizeof(struct keyproc_request) + sizeof(text)];

static size_t verify(const char *whose, size_t digest)
{
    size_t n = 64;

    memset(text, ' ', n);
    n += (size_t) sprintf((char *) text + n, "TLS 1.3, %s CertificateVerify", whose) + 1;
    memset(text + n, 0xab, digest);
    return n + digest;
}

static size_t curve(unsigned point)
{
    memset(text, 0x5a, 64);
    text[64] = 3;
    text[65] = 0;
    text[66] = 0x1d;
    text[67] = (unsigned char) point;
    memset(text + 68, 1, point);
    return 68 + point;
}

static size_t dhe(unsigned prime)
{
    size_t n = 64;

    for (unsigned i = 0; i < 3; i++) {
        unsigned len = i == 1 ? 1 : prime;

        text[n] = (unsigned char) (len >> 8);
        text[n + 1] = (unsigned char) len;
        n += 2 + len;
    }
    return n;
}

/* Handshake messages of ten bytes each. */
static size_t transcript(unsigned count)
{
    static const unsigned char types[] = { 1, 2, 11, 12, 14, 11, 16 };

    for (unsigned i = 0; i < count; i++) {
        memset(text + i * 14, 0, 14);
        text[i * 14] = types[i];
        text[i * 14 + 3] = 10;
    }
    return (size_t) count * 14;
}

static void test_texts(void)
{
    enum { S = KEYPROC_SERVER, C = KEYPROC_CLIENT, D = KEYPROC_DHE };
    size_t n;
    bool all = true;

    n = verify("server", 32);
    ok(keyproc_is_signed_by_tls(text, n, S), "a server's signature of TLS 1.3");
    ok(!keyproc_is_signed_by_tls(text, n, C), "not by a client's key");
    for (size_t cut = 0; cut < n; cut++)
        all &= !keyproc_is_signed_by_tls(text, cut, S | C | D);
    ok(all, "not if it is cut");
    ok(keyproc_is_signed_by_tls(text, verify("server", 48), S), "with SHA-384");
    ok(!keyproc_is_signed_by_tls(text, verify("server", 49), S), "not with more behind it");
    n = verify("client", 32);
    ok(keyproc_is_signed_by_tls(text, n, C), "a client's");
    ok(!keyproc_is_signed_by_tls(text, n, S | D), "not by a server's key");
    text[10] = 'x';
    ok(!keyproc_is_signed_by_tls(text, n, S | C | D), "not without all spaces");
    ok(!keyproc_is_signed_by_tls(text, verify("sErver", 32), S | C), "not with another text");
    ok(keyproc_is_signed_by_tls(text, curve(32), S), "parameters of a curve");
    ok(!keyproc_is_signed_by_tls(text, curve(32) + 1, S | D), "not with more behind them");
    ok(!keyproc_is_signed_by_tls(text, curve(32), C), "not by a client's key");
    ok(!keyproc_is_signed_by_tls(text, curve(134), S), "not with a point that no curve has");
    ok(!keyproc_is_signed_by_tls(text, curve(0), S), "or without one");
    ok(keyproc_is_signed_by_tls(text, dhe(256), S | D), "DHE where it is configured");
    ok(!keyproc_is_signed_by_tls(text, dhe(256), S | C), "and only there");
    ok(keyproc_is_signed_by_tls(text, transcript(7), C), "what a client of TLS 1.2 signs");
    ok(!keyproc_is_signed_by_tls(text, transcript(7), S | D), "not by a server's key");
    ok(!keyproc_is_signed_by_tls(text, transcript(7) - 1, C), "not if it is cut");
    ok(!keyproc_is_signed_by_tls(text, transcript(3), C), "not a hello and little more");
    ok(!keyproc_is_signed_by_tls((const unsigned char *) "{\"alg\":\"RS256\"}", 15, S | C | D),
       "no token");
}

static const char *checked(struct keyproc_request rq, size_t len, enum keyproc_kind kind,
                           unsigned uses)
{
    rq.len = (uint32_t) len;
    memcpy(datagram, &rq, sizeof(rq));
    memcpy(datagram + sizeof(rq), text, MIN(len, sizeof(text)));
    return keyproc_check(datagram, sizeof(rq) + len, kind, uses);
}

#define RQ(op_, padding_, digest_, ...) \
    ((struct keyproc_request){ .op = op_, .padding = padding_, .digest = digest_, __VA_ARGS__ })

static void test_requests(void)
{
    static const struct {
        const char *what;
        struct keyproc_request rq;
        enum keyproc_kind kind;
        bool good;
    } rows[] = {
        { "RSA", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, ), KEYPROC_RSA, true },
        { "RSA of old", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_MD5_SHA1, ), KEYPROC_RSA, true },
        { "PSS", RQ(KEYPROC_SIGN, KEYPROC_PSS, KEYPROC_SHA512, ), KEYPROC_RSA, true },
        { "PSS with SHA-1", RQ(KEYPROC_SIGN, KEYPROC_PSS, KEYPROC_SHA1, ), KEYPROC_RSA, false },
        { "RSA without padding", RQ(KEYPROC_SIGN, KEYPROC_PLAIN, KEYPROC_SHA256, ), KEYPROC_RSA,
          false },
        { "RSA without digest", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_NO_DIGEST, ), KEYPROC_RSA,
          false },
        { "a PSS key", RQ(KEYPROC_SIGN, KEYPROC_PSS, KEYPROC_SHA256, ), KEYPROC_RSA_PSS, true },
        { "a PSS key with PKCS1", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, ),
          KEYPROC_RSA_PSS, false },
        { "ECDSA", RQ(KEYPROC_SIGN, KEYPROC_PLAIN, KEYPROC_SHA384, ), KEYPROC_EC, true },
        { "ECDSA with a padding", RQ(KEYPROC_SIGN, KEYPROC_PSS, KEYPROC_SHA384, ), KEYPROC_EC,
          false },
        { "Ed25519", RQ(KEYPROC_SIGN, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, ), KEYPROC_ED25519, true },
        { "Ed448 with a digest", RQ(KEYPROC_SIGN, KEYPROC_PLAIN, KEYPROC_SHA512, ), KEYPROC_ED448,
          false },
        { "a digest out of range", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_DIGESTS, ), KEYPROC_RSA,
          false },
        { "a version to sign with",
          RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, .version = 0x303), KEYPROC_RSA, false },
        { "a flag", RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, .zero = 1), KEYPROC_RSA,
          false },
        { "to be found by no name", RQ(KEYPROC_FIND, 0, 0, ), KEYPROC_RSA, false },
        { "no operation", RQ(0, KEYPROC_PKCS1, KEYPROC_SHA256, ), KEYPROC_RSA, false },
        { "another operation", RQ(4, KEYPROC_PKCS1, KEYPROC_SHA256, ), KEYPROC_RSA, false },
        { "decryption", RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, .version = 0x303),
          KEYPROC_RSA, true },
        { "with two versions",
          RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, .version = 0x303,
             .other_version = 0x301),
          KEYPROC_RSA, true },
        { "without version", RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, ), KEYPROC_RSA,
          false },
        { "of a strange version",
          RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, .version = 0x3ff), KEYPROC_RSA,
          false },
        { "with PKCS1, which tells",
          RQ(KEYPROC_DECRYPT, KEYPROC_PKCS1, KEYPROC_NO_DIGEST, .version = 0x303), KEYPROC_RSA,
          false },
        { "by a PSS key", RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, .version = 0x303),
          KEYPROC_RSA_PSS, false },
        { "by an EC key", RQ(KEYPROC_DECRYPT, KEYPROC_PLAIN, KEYPROC_NO_DIGEST, .version = 0x303),
          KEYPROC_EC, false },
    };
    struct keyproc_request rq = RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, ), out;
    size_t n = verify("server", 32);

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        is_int(checked(rows[i].rq, n, rows[i].kind, KEYPROC_SERVER) == NULL, rows[i].good, "%s",
               rows[i].what);
    ok(checked(RQ(KEYPROC_DECRYPT, 0, 0, .version = 0x303), n, KEYPROC_RSA, KEYPROC_CLIENT) != NULL,
       "a client's key does not decrypt");
    ok(checked(rq, 100, KEYPROC_RSA, KEYPROC_SERVER) != NULL, "a text that is not TLS");
    ok(checked(rq, KEYPROC_PAYLOAD_MAX + 1, KEYPROC_RSA, KEYPROC_SERVER) != NULL, "too long");
    rq.len = (uint32_t) n;
    memcpy(datagram, &rq, sizeof(rq));
    is_int(keyproc_parse(&out, datagram, sizeof(rq) + n), 0, "the header");
    is_int(keyproc_parse(&out, datagram, sizeof(rq) + n - 1), -1, "less than it says");
    is_int(keyproc_parse(&out, datagram, sizeof(rq) + n + 1), -1, "more than it says");
    is_int(keyproc_parse(&out, datagram, sizeof(rq) - 1), -1, "less than a header");
    is_int(keyproc_parse(&out, datagram, 0), -1, "nothing");
}

/* Of a key that variables name: a name stands before what is to be signed. */
static void test_named_requests(void)
{
    struct keyproc_request rq = RQ(KEYPROC_SIGN, KEYPROC_PKCS1, KEYPROC_SHA256, .name_len = 40),
                           find = RQ(KEYPROC_FIND, 0, 0, .name_len = 40), out;
    size_t n = verify("server", 32);

    rq.len = (uint32_t) n;
    memcpy(datagram, &rq, sizeof(rq));
    memset(datagram + sizeof(rq), 'x', rq.name_len);
    memcpy(datagram + sizeof(rq) + rq.name_len, text, n);
    ok(keyproc_check(datagram, sizeof(rq) + 40 + n, KEYPROC_RSA, KEYPROC_SERVER) == NULL,
       "a name, and what is signed");
    ok(keyproc_check(datagram, sizeof(rq) + 39 + n, KEYPROC_RSA, KEYPROC_SERVER) != NULL, "less");
    ok(keyproc_check(datagram, sizeof(rq) + 41 + n, KEYPROC_RSA, KEYPROC_SERVER) != NULL, "more");
    rq.name_len = 0;
    rq.len += 40;
    memcpy(datagram, &rq, sizeof(rq));
    ok(keyproc_check(datagram, sizeof(rq) + 40 + n, KEYPROC_RSA, KEYPROC_SERVER) != NULL,
       "the name is not signed");
    memcpy(datagram, &find, sizeof(find));
    ok(keyproc_check(datagram, sizeof(find) + 40, KEYPROC_EC, KEYPROC_SERVER) == NULL,
       "a key is to be found");
    find.len = 1;
    memcpy(datagram, &find, sizeof(find));
    ok(keyproc_check(datagram, sizeof(find) + 41, KEYPROC_EC, KEYPROC_SERVER) != NULL,
       "and nothing besides");
    rq.len = 0;
    rq.name_len = KEYPROC_NAME_MAX + 1;
    memcpy(datagram, &rq, sizeof(rq));
    is_int(keyproc_parse(&out, datagram, sizeof(rq) + rq.name_len), -1, "a name that is too long");
    rq.len = 16;
    rq.name_len = UINT32_MAX - 15;
    memcpy(datagram, &rq, sizeof(rq));
    is_int(keyproc_parse(&out, datagram, sizeof(rq)), -1, "sizes that wrap around");
}

static void test_bounds(void)
{
    static const struct ssl_bounds within = { .begin = { .ptr = "/certs/", .len = 7 },
                                              .end = { .ptr = ".key", .len = 4 } },
                                   up = { .begin = { .ptr = "/a/../certs/", .len = 12 },
                                          .end = { .ptr = "", .len = 0 },
                                          .ups = 1 },
                                   all = { .begin = { .ptr = "", .len = 0 },
                                           .end = { .ptr = "", .len = 0 } },
                                   whole = { .begin = { .ptr = "/certs/a.key", .len = 12 },
                                             .whole = true };
    static const struct {
        const struct ssl_bounds *bounds;
        const char *path;
        bool is;
    } rows[] = {
        { &within, "/certs/a.key", true },
        { &within, "/certs/a/b.key", true },
        { &within, "/certs/.key", true },
        { &within, "/certs.key", false },
        { &within, "/certs/a.crt", false },
        { &within, "certs/a.key", false },
        { &within, "/certs/../a.key", false },
        { &within, "/certs/a/../b.key", false },
        { &within, "/certs/...key", true },
        { &within, "/certs/a/..", false },
        { &within, "/other/a.key", false },
        { &within, "", false },
        { &up, "/a/../certs/b", true },
        { &up, "/a/../certs/../b", false },
        { &up, "/certs/b", false },
        { &all, "/etc/x", true },
        { &all, "x", false },
        { &all, "/x/../y", false },
        { &all, "data:x", false },
        { &whole, "/certs/a.key", true },
        { &whole, "/certs/a.key.key", false },
        { &whole, "/certs/a.ke", false },
    };

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        is_int(ssl_is_within(rows[i].bounds, str_cstr(rows[i].path)), rows[i].is, "within: %s",
               rows[i].path);
    ok(!ssl_is_within(&within, str_from("/certs/a.key\0.key", 17)), "within: no zero byte");
}

static void test_digests(void)
{
    bool all = true;

    for (unsigned i = 0; i < KEYPROC_DIGESTS; i++)
        all &= keyproc_digest_by_name(keyproc_digest_name(i)) == i;
    ok(all, "digests have names that lead back");
    is_int(keyproc_digest_by_name("sha256"), KEYPROC_SHA256, "other names");
    is_int(keyproc_digest_by_name("SM3"), KEYPROC_DIGESTS, "a digest that is none of ours");
}

/* Keys --------------------------------------------------------------------------------------- */

static void test_handle(EVP_PKEY *key, enum keyproc_kind kind, const char *name)
{
    EVP_PKEY *handle;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char sig[1024];
    size_t len = sizeof(sig);
    BIGNUM *secret = NULL;

    is_int(keyproc_kind_of(key), kind, "%s", name);
    handle = keyproc_handle(key, kind, 7, 1);
    ok(handle != NULL, "a handle");
    ok(EVP_PKEY_eq(handle, key) == 1, "with the same public half");
    is_int(keyproc_kind_of(handle), kind, "of the same kind");
    is_int(EVP_PKEY_get_size(handle), EVP_PKEY_get_size(key), "and size");
    ok(EVP_PKEY_get_bn_param(handle, "d", &secret) != 1 &&
           EVP_PKEY_get_bn_param(handle, "priv", &secret) != 1,
       "which has no secret");
    ok(EVP_DigestSignInit_ex(md, NULL, kind == KEYPROC_ED25519 ? NULL : "SHA256", NULL, NULL,
                             handle, NULL) == 1,
       "with which a signature begins");
    ok(EVP_DigestSign(md, sig, &len, (const unsigned char *) "text", 4) != 1,
       "and fails where there is no process to make it");
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(handle);
}

/* The same for a key and its public half, another one for another key. */
static void test_prints(EVP_PKEY *key, EVP_PKEY *other, const char *name)
{
    unsigned char print[KEYPROC_PRINT_LEN], again[KEYPROC_PRINT_LEN];
    unsigned char *der = NULL;
    const unsigned char *p;
    int len = i2d_PUBKEY(key, &der);
    EVP_PKEY *half, *handle;

    p = der;
    half = d2i_PUBKEY(NULL, &p, len);
    OPENSSL_free(der);
    is_int(keyproc_print(key, print), 0, "%s: a print", name);
    ok(keyproc_print(half, again) == 0 && memcmp(print, again, sizeof(print)) == 0,
       "%s: of the public half", name);
    ok(keyproc_print(other, again) == 0 && memcmp(print, again, sizeof(print)) != 0,
       "%s: of no other", name);
    handle = keyproc_handle_named(half, 3, STR("/certs/a.key"));
    ok(handle != NULL && EVP_PKEY_eq(handle, key) == 1, "%s: a handle with a name", name);
    EVP_PKEY_free(handle);
    EVP_PKEY_free(half);
}

static void test_handles(void)
{
    EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t) 2048);
    EVP_PKEY *ec = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_PKEY *exchange = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");

    test_handle(rsa, KEYPROC_RSA, "RSA");
    test_handle(ec, KEYPROC_EC, "EC");
    test_handle(ed, KEYPROC_ED25519, "Ed25519");
    is_int(keyproc_kind_of(exchange), KEYPROC_KINDS, "a key that does not sign");
    test_prints(rsa, ec, "RSA");
    test_prints(ec, ed, "EC");
    test_prints(ed, rsa, "Ed25519");
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(ed);
    EVP_PKEY_free(exchange);
}

/* What is done with a key -------------------------------------------------------------------- */

static void test_signatures(struct keyproc_secret *s, const char *name, unsigned padding,
                            unsigned digest)
{
    struct keyproc_request rq = RQ(KEYPROC_SIGN, (uint8_t) padding, (uint8_t) digest, );
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *ctx;
    unsigned char out[KEYPROC_RESULT_MAX];
    size_t len;

    rq.len = (uint32_t) verify("server", 32);
    is_int(keyproc_secret_use(s, &rq, text, out, &len), 0, "%s signs", name);
    ok(EVP_DigestVerifyInit_ex(md, &ctx, digest != 0 ? keyproc_digest_name(digest) : NULL, NULL,
                               NULL, s->key, NULL) == 1,
       "%s verifies", name);
    if (padding == KEYPROC_PSS)
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING);
    ok(EVP_DigestVerify(md, out, len, text, rq.len) == 1, "%s: the signature is right", name);
    EVP_MD_CTX_free(md);
}

static size_t encrypt(EVP_PKEY *key, int padding, const unsigned char *in, size_t len,
                      unsigned char *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    size_t n = KEYPROC_RESULT_MAX;

    EVP_PKEY_encrypt_init(ctx);
    EVP_PKEY_CTX_set_rsa_padding(ctx, padding);
    ok(EVP_PKEY_encrypt(ctx, out, &n, in, len) == 1, "encrypted");
    EVP_PKEY_CTX_free(ctx);
    return n;
}

/* The answer to one message, twice: whether it is the secret that was encrypted. It must be the same each time. */
static bool decrypts(struct keyproc_secret *s, const unsigned char *in, size_t len,
                     unsigned version, const unsigned char *secret)
{
    struct keyproc_request rq = RQ(KEYPROC_DECRYPT, 0, 0, .version = (uint16_t) version);
    unsigned char first[KEYPROC_RESULT_MAX], second[KEYPROC_RESULT_MAX];
    size_t n, m;

    rq.len = (uint32_t) len;
    ok(keyproc_secret_use(s, &rq, in, first, &n) == 0 &&
           keyproc_secret_use(s, &rq, in, second, &m) == 0 && n == KEYPROC_SECRET_LEN && m == n,
       "a secret of the usual length comes out");
    ok(memcmp(first, second, n) == 0, "the same one each time");
    ok(first[0] == version >> 8 && first[1] == (version & 0xff), "with the version in front");
    return memcmp(first, secret, KEYPROC_SECRET_LEN) == 0;
}

static void test_decryption(struct keyproc_secret *s)
{
    unsigned char secret[KEYPROC_SECRET_LEN + 1], in[KEYPROC_RESULT_MAX], block[256];
    struct keyproc_request rq = RQ(KEYPROC_DECRYPT, 0, 0, .version = 0x303);
    size_t n;

    for (unsigned i = 0; i < sizeof(secret); i++)
        secret[i] = (unsigned char) (i + 1);
    secret[0] = secret[1] = 3;
    n = encrypt(s->key, RSA_PKCS1_PADDING, secret, KEYPROC_SECRET_LEN, in);
    ok(decrypts(s, in, n, 0x303, secret), "a good message is decrypted");
    ok(!decrypts(s, in, n, 0x302, secret), "not with another version");
    n = encrypt(s->key, RSA_PKCS1_PADDING, secret, KEYPROC_SECRET_LEN + 1, in);
    ok(!decrypts(s, in, n, 0x303, secret + 1), "nor one that is too long");
    n = encrypt(s->key, RSA_PKCS1_PADDING, secret, KEYPROC_SECRET_LEN - 1, in);
    ok(!decrypts(s, in, n, 0x303, secret), "or too short");
    for (unsigned bad = 0; bad < 4; bad++) {
        memset(block, 7, sizeof(block));
        block[0] = 0;
        block[1] = bad == 1 ? 1 : 2;
        block[sizeof(block) - KEYPROC_SECRET_LEN - 1] = bad == 2;
        if (bad == 3)
            block[20] = 0;
        memcpy(block + sizeof(block) - KEYPROC_SECRET_LEN, secret, KEYPROC_SECRET_LEN);
        n = encrypt(s->key, RSA_NO_PADDING, block, sizeof(block), in);
        is_int(decrypts(s, in, n, 0x303, secret), bad == 0, "padding %u", bad);
    }
    memset(in, 0xff, sizeof(in));
    rq.len = 256;
    is_int(keyproc_secret_use(s, &rq, in, block, &n), -1, "no message of this key");
    rq.len = 0;
    keyproc_secret_use(s, &rq, in, block, &n);
    rq.len = KEYPROC_RESULT_MAX;
    is_int(keyproc_secret_use(s, &rq, in, block, &n), -1, "a message that is too long");
}

static void test_secrets(void)
{
    struct keyproc_secret rsa = { .key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t) 2048),
                                  .kind = KEYPROC_RSA };
    struct keyproc_secret ec = { .key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384"),
                                 .kind = KEYPROC_EC };
    struct keyproc_secret ed = { .key = EVP_PKEY_Q_keygen(NULL, NULL, "ED448"),
                                 .kind = KEYPROC_ED448 };

    ok(keyproc_secret_prepare(&rsa) == 0 && keyproc_secret_prepare(&ec) == 0, "prepared");
    test_signatures(&rsa, "PKCS1", KEYPROC_PKCS1, KEYPROC_SHA1);
    test_signatures(&rsa, "PKCS1 of old", KEYPROC_PKCS1, KEYPROC_MD5_SHA1);
    test_signatures(&rsa, "PSS", KEYPROC_PSS, KEYPROC_SHA512);
    test_signatures(&ec, "ECDSA", KEYPROC_PLAIN, KEYPROC_SHA384);
    test_signatures(&ed, "Ed448", KEYPROC_PLAIN, KEYPROC_NO_DIGEST);
    test_decryption(&rsa);
    EVP_PKEY_free(rsa.key);
    EVP_PKEY_free(ec.key);
    EVP_PKEY_free(ed.key);
}

/* Stacks ------------------------------------------------------------------------------------- */

static int pauses(void *arg)
{
    int *n = arg;
    char space[16 * 1024];

    memset(space, *n, sizeof(space));
    for (int left = *n; left > 0 && !fibre_is_cancelled(fibre_current()); left--)
        fibre_pause();
    errno = ENOTTY;
    return space[sizeof(space) / 2] == *n && fibre_arg(fibre_current()) == arg ? *n * 2 : -1;
}

static void test_fibres(void)
{
    static struct fibre *many[FIBRES_MAX];
    struct fibre *f = NULL, *more = NULL;
    int result = 0, none = 0, three = 3, i = 0;
    bool all = true;

    is_int(fibre_run(&f, pauses, &none, &result), FIBRE_ENDED, "work that does not pause");
    ok(f == NULL && result == 0 && errno == ENOTTY, "its result and errno");
    while (fibre_run(&f, pauses, &three, &result) == FIBRE_PAUSED)
        i++;
    ok(i == 3 && result == 6 && f == NULL, "three pauses");
    fibre_run(&f, pauses, &three, &result);
    fibre_cancel(f);
    is_int(fibre_run(&f, pauses, &three, &result), FIBRE_ENDED, "cancelled");
    for (unsigned n = 0; n < FIBRES_MAX; n++)
        all &= fibre_run(&many[n], pauses, &three, &result) == FIBRE_PAUSED;
    ok(all && !fibre_available(), "as many as may be");
    is_int(fibre_run(&more, pauses, &three, &result), FIBRE_NONE, "and no more");
    for (unsigned n = 0; n < FIBRES_MAX; n++) {
        fibre_cancel(many[n]);
        all &= fibre_run(&many[n], pauses, &three, &result) == FIBRE_ENDED && result == 6;
    }
    ok(all && fibre_available(), "all end");
    ok(fibre_current() == NULL, "none runs");
    fibre_trim();
}

int main(void)
{
    test_texts();
    test_requests();
    test_named_requests();
    test_bounds();
    test_digests();
    test_handles();
    test_secrets();
    test_fibres();
    return done_testing();
}
