/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the key process does with a key, when a request has been checked. Nothing but these functions touches a private key.
 */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <pthread.h>

#include "modules/ssl/provided.h"

/* What only the key can make: itself, or, if its provider keeps it, a signature that no worker obtains. How many bytes; 0: none. */
static size_t make_secret(const struct keyproc_secret *s, unsigned char *bytes, size_t size)
{
    static const char text[] = "proxyd: what is made of messages that do not decrypt";
    struct keyproc_request rq = {
        .op = KEYPROC_SIGN, .padding = KEYPROC_PKCS1, .digest = KEYPROC_SHA256, .len = sizeof(text)
    };
    BIGNUM *d = NULL;
    size_t n = 0;

    if (s->properties[0] != '\0')
        return keyproc_secret_use(s, &rq, (const unsigned char *) text, bytes, &n) == 0 ? n : 0;
    if (EVP_PKEY_get_bn_param(s->key, OSSL_PKEY_PARAM_RSA_D, &d) == 1 &&
        BN_num_bytes(d) <= (int) size)
        n = (size_t) BN_bn2bin(d, bytes);
    BN_clear_free(d);
    return n;
}

/*
 * A message that does not decrypt must yield the same each time, and nothing by which it can be told from others. A key that does not
 * sign in this way (it may be one for PSS alone) does not decrypt either.
 */
static int prepare_rejection(struct keyproc_secret *s)
{
    unsigned char bytes[KEYPROC_RESULT_MAX];
    size_t n = make_secret(s, bytes, sizeof(bytes));
    int ok = EVP_Digest(bytes, n, s->rejection, NULL, EVP_sha256(), NULL) == 1;

    s->decrypts = n > 0;
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return ok && (n > 0 || s->properties[0] != '\0') ? 0 : -1;
}

int keyproc_secret_prepare(struct keyproc_secret *s)
{
    if (ssl_store_is_foreign(s->key)) {
        /* Without that the library may hand what it can export of the key, its public half, to a provider of its own. */
        snprintf(s->properties, sizeof(s->properties), "?provider=%s",
                 OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(s->key)));
        s->library = ssl_store_library();
    }
    return s->kind == KEYPROC_RSA ? prepare_rejection(s) : 0;
}

static const char *properties_of(const struct keyproc_secret *s)
{
    return s->properties[0] != '\0' ? s->properties : NULL;
}

static int sign(const struct keyproc_secret *s, const struct keyproc_request *rq,
                const unsigned char *in, unsigned char *out, size_t *len)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *ctx = NULL;
    const char *digest = rq->digest != KEYPROC_NO_DIGEST ? keyproc_digest_name(rq->digest) : NULL;
    int ok = md != NULL && EVP_DigestSignInit_ex(md, &ctx, digest, s->library, properties_of(s),
                                                 s->key, NULL) == 1;

    if (ok && rq->padding == KEYPROC_PSS)
        ok = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
    ok = ok && EVP_DigestSign(md, out, len, in, rq->len) == 1;
    EVP_MD_CTX_free(md);
    return ok ? 0 : -1;
}

/* Without branches: all ones if the bytes are equal, or zero. */
static unsigned char same(unsigned a, unsigned b)
{
    return (unsigned char) (((a ^ b) - 1) >> 8);
}

/* em: 0 2, at least eight bytes that are not zero, 0, the secret (RFC 8017, 7.2.2). All ones, or zero. */
static unsigned char is_secret(const unsigned char *em, size_t size,
                               const struct keyproc_request *rq)
{
    const unsigned char *secret = em + size - KEYPROC_SECRET_LEN;
    unsigned char good = same(em[0], 0) & same(em[1], 2);
    unsigned char version;

    for (size_t i = 2; i < size - KEYPROC_SECRET_LEN - 1; i++)
        good &= (unsigned char) ~same(em[i], 0);
    good &= same(secret[-1], 0);
    version = same(secret[0], rq->version >> 8) & same(secret[1], rq->version & 0xff);
    if (rq->other_version != 0)
        version |=
            same(secret[0], rq->other_version >> 8) & same(secret[1], rq->other_version & 0xff);
    return good & version;
}

/* RFC 5246, 7.4.7.1: what does not decrypt yields a secret as well, which nobody knows. */
static int decrypt(const struct keyproc_secret *s, const struct keyproc_request *rq,
                   const unsigned char *in, unsigned char *out, size_t *len)
{
    size_t size = (size_t) EVP_PKEY_get_size(s->key), n = size;
    unsigned char em[KEYPROC_RESULT_MAX], rejection[EVP_MAX_MD_SIZE];
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(s->library, s->key, properties_of(s));
    unsigned char good;
    int ok = ctx != NULL && s->decrypts && size >= KEYPROC_SECRET_LEN + 11 && rq->len <= size &&
             EVP_PKEY_decrypt_init(ctx) == 1 &&
             EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) == 1 &&
             EVP_PKEY_decrypt(ctx, em, &n, in, rq->len) == 1 && n == size;

    EVP_PKEY_CTX_free(ctx);
    ok = ok && HMAC(EVP_sha384(), s->rejection, sizeof(s->rejection), in, rq->len, rejection,
                    NULL) != NULL;
    if (ok) {
        rejection[0] = (unsigned char) (rq->version >> 8);
        rejection[1] = (unsigned char) rq->version;
        good = is_secret(em, size, rq);
        for (unsigned i = 0; i < KEYPROC_SECRET_LEN; i++)
            out[i] =
                (em[size - KEYPROC_SECRET_LEN + i] & good) | (rejection[i] & (unsigned char) ~good);
        *len = KEYPROC_SECRET_LEN;
    }
    OPENSSL_cleanse(em, sizeof(em));
    OPENSSL_cleanse(rejection, sizeof(rejection));
    return ok ? 0 : -1;
}

int keyproc_secret_use(const struct keyproc_secret *s, const struct keyproc_request *rq,
                       const unsigned char *in, unsigned char *out, size_t *len)
{
    /* The threads of the key process: not every provider bears two of them at once in one token (tpm2 1.1 does not). */
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    bool foreign = s->properties[0] != '\0';
    int rc;

    *len = KEYPROC_RESULT_MAX;
    if (foreign)
        pthread_mutex_lock(&lock);
    rc = rq->op == KEYPROC_SIGN ? sign(s, rq, in, out, len) : decrypt(s, rq, in, out, len);
    if (foreign)
        pthread_mutex_unlock(&lock);
    ERR_clear_error();
    if (rc != 0)
        *len = 0;
    return rc;
}
