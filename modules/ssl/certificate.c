/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Certificates and keys, from where the configuration has them: a PEM file, "data:" with PEM behind it, or "store:" with a
 * URI that a provider of the library understands (PKCS #11, a TPM …). What went wrong is said by a name of the function
 * that failed, as nginx does; the library's queue holds the rest.
 */
#include <openssl/err.h>
#include <openssl/pem.h>

#include "modules/ssl/provided.h"

#define SHOWN_MAX 1024

bool ssl_is_file(struct str path)
{
    return !str_starts(path, STR("data:")) && !str_starts(path, STR("store:")) &&
           !str_starts(path, STR("engine:"));
}

struct str ssl_shown(struct str path)
{
    static const struct str pin = STR_INIT("pin-value=");
    static char text[SHOWN_MAX];
    const char *value =
        str_starts(path, STR("store:")) ? memmem(path.ptr, path.len, pin.ptr, pin.len) : NULL;
    struct str rest;
    size_t n;

    if (value == NULL)
        return path;
    value += pin.len;
    rest = str_skip(path, (size_t) (value - path.ptr));
    n = strcspn(value, "&;");
    rest = str_skip(rest, MIN(n, rest.len));
    n = (size_t) snprintf(text, sizeof(text), "%.*s***%.*s", (int) (value - path.ptr), path.ptr,
                          STR_ARG(rest));
    return str_from(text, MIN(n, sizeof(text) - 1));
}

static BIO *open_pem(struct str path, const char **error)
{
    BIO *bio;

    if (str_starts(path, STR("data:"))) {
        bio = BIO_new_mem_buf(path.ptr + 5, (int) path.len - 5);
        *error = "BIO_new_mem_buf() failed";
    } else {
        bio = BIO_new_file(path.ptr, "r");
        *error = "BIO_new_file() failed";
    }
    return bio;
}

/* The certificates behind the leaf. 0, or -1 + *error. */
static int read_chain(BIO *bio, STACK_OF(X509) * chain, const char **error)
{
    for (;;) {
        X509 *more = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        unsigned long code;

        if (more != NULL) {
            if (sk_X509_push(chain, more) > 0)
                continue;
            X509_free(more);
            *error = "sk_X509_push() failed";
            return -1;
        }
        code = ERR_peek_last_error();
        if (ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE) {
            ERR_clear_error(); /* the end of the file */
            return 0;
        }
        *error = "PEM_read_bio_X509() failed";
        return -1;
    }
}

X509 *ssl_load_certificate(struct str path, STACK_OF(X509) * *chain, const char **error)
{
    BIO *bio = open_pem(path, error);
    X509 *leaf;

    if (bio == NULL)
        return NULL;
    leaf = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    if (leaf == NULL) {
        *error = "PEM_read_bio_X509_AUX() failed";
        BIO_free(bio);
        return NULL;
    }
    *chain = sk_X509_new_null();
    if (*chain == NULL || read_chain(bio, *chain, error) != 0) {
        sk_X509_pop_free(*chain, X509_free);
        X509_free(leaf);
        leaf = NULL;
    }
    BIO_free(bio);
    return leaf;
}

/* Which password is being tried. */
struct attempt {
    struct str password;
};

static int give_password(char *buf, int size, int rwflag, void *data)
{
    const struct attempt *attempt = data;
    size_t n = MIN(attempt->password.len, (size_t) size);

    if (rwflag)
        return 0;
    memcpy(buf, attempt->password.ptr, n);
    return (int) n;
}

EVP_PKEY *ssl_load_key(struct str path, const struct ssl_passwords *passwords, const char **error)
{
    EVP_PKEY *key = NULL;
    BIO *bio;

    if (str_starts(path, STR("engine:"))) {
        *error = "engines are not supported, OpenSSL 3 has providers (\"store:\") in their place";
        return NULL;
    }
    if (str_starts(path, STR("store:")))
        return ssl_store_load(path.ptr + 6, NULL, passwords, error);
    bio = open_pem(path, error);
    if (bio == NULL)
        return NULL;
    if (ssl_store_bio_is_reference(bio)) {
        key = ssl_store_load(NULL, bio, passwords, error);
        BIO_free(bio);
        return key;
    }
    *error = "PEM_read_bio_PrivateKey() failed";
    if (passwords == NULL)
        key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    for (unsigned i = 0; passwords != NULL && key == NULL && i < MAX(passwords->list.count, 1u);
         i++) {
        struct attempt attempt = { .password = STR("") };

        if (i < passwords->list.count)
            attempt.password = passwords->list.items[i];
        if (i > 0) {
            ERR_clear_error();
            if (BIO_reset(bio) < 0)
                break;
        }
        key = PEM_read_bio_PrivateKey(bio, NULL, give_password, &attempt);
    }
    BIO_free(bio);
    return key;
}
