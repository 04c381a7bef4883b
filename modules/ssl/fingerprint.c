/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * $ssl_ja3_hash and $ssl_ja4: which program a client is, by its first hello. Both are computed when the hello comes, for it is gone
 * afterwards; 68 bytes hang on the library's object. Where the configuration has neither variable, nobody looks at hellos.
 */
#include <openssl/err.h>
#include <openssl/ssl3.h>

#include "modules/ssl/hello.h"
#include "modules/ssl/http.h"

struct fingerprint {
    char ja3[HELLO_JA3_LEN], ja4[HELLO_JA4_LEN];
};

static int slot = -1; /* of the library's objects; once for the process */

static void fingerprint_free(void *parent UNUSED, void *ptr, CRYPTO_EX_DATA *data UNUSED,
                             int index UNUSED, long argl UNUSED, void *argp UNUSED)
{
    OPENSSL_free(ptr);
}

static void keep(SSL *ssl, const void *message, size_t len)
{
    struct fingerprint *f = OPENSSL_malloc(sizeof(*f));
    struct hello h;

    if (f != NULL && hello_parse(&h, message, len) == 0 && hello_ja3(&h, f->ja3) == 0 &&
        hello_ja4(&h, f->ja4) == 0 && SSL_set_ex_data(ssl, slot, f) == 1)
        return;
    OPENSSL_free(f);
    ERR_clear_error(); /* whether the hello is bad is the library's to say */
}

/* The second hello that a retry request brings is not looked at: it tells of our answer, too. */
static void see(int sent, int version UNUSED, int type, const void *message, size_t len, SSL *ssl,
                void *arg UNUSED)
{
    if (sent || type != SSL3_RT_HANDSHAKE)
        return;
    SSL_set_msg_callback(ssl, NULL);
    keep(ssl, message, len);
}

void http_ssl_fingerprint(SSL_CTX *ctx)
{
    if (slot < 0)
        slot = SSL_get_ex_new_index(0, NULL, NULL, NULL, fingerprint_free);
    if (slot >= 0)
        SSL_CTX_set_msg_callback(ctx, see);
}

struct str http_ssl_ja3(SSL *ssl)
{
    const struct fingerprint *f = slot >= 0 ? SSL_get_ex_data(ssl, slot) : NULL;

    return f != NULL ? str_from(f->ja3, sizeof(f->ja3)) : STR("");
}

struct str http_ssl_ja4(SSL *ssl)
{
    const struct fingerprint *f = slot >= 0 ? SSL_get_ex_data(ssl, slot) : NULL;

    return f != NULL ? str_from(f->ja4, sizeof(f->ja4)) : STR("");
}
