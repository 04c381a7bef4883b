/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys that variables name (ssl_certificate_key certs/$ssl_server_name.key). A worker says which one, by the path that the variables came to, and
 * by the public half that it must have. It may be lying: what it gets at is what the directive can lead to, and what the process may
 * open by its own rights, which are no longer the master's. Each worker's thread keeps those that were used last, as long as their files stay as
 * they are.
 */
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "modules/ssl/keyproc.h"
#include "modules/ssl/pairs.h"

int keyproc_print(EVP_PKEY *key, unsigned char *out)
{
    const char *what = EVP_PKEY_is_a(key, "EC") ? OSSL_PKEY_PARAM_EC_PUB_X : OSSL_PKEY_PARAM_RSA_N;
    unsigned char bytes[KEYPROC_RESULT_MAX];
    BIGNUM *n = NULL;
    size_t len = 0;
    int ok;

    if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448")) {
        ok = EVP_PKEY_get_raw_public_key(key, NULL, &len) == 1 && len <= sizeof(bytes) &&
             EVP_PKEY_get_raw_public_key(key, bytes, &len) == 1;
    } else {
        ok = EVP_PKEY_get_bn_param(key, what, &n) == 1 && BN_num_bytes(n) <= (int) sizeof(bytes);
        len = ok ? (size_t) BN_bn2bin(n, bytes) : 0;
        BN_free(n);
    }
    return ok && EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : -1;
}

bool keyproc_named_allows(const struct keyproc_key *key, struct str name)
{
    return name.len > KEYPROC_PRINT_LEN && name.len - KEYPROC_PRINT_LEN < PATH_MAX &&
           ssl_is_within(key->bounds, str_skip(name, KEYPROC_PRINT_LEN));
}

static bool is_meant(EVP_PKEY *key, struct str name)
{
    unsigned char print[KEYPROC_PRINT_LEN];

    return keyproc_print(key, print) == 0 && memcmp(print, name.ptr, sizeof(print)) == 0;
}

/* anew: whatever is kept of it. */
static const char *get(struct ssl_cache *cache, const struct keyproc_key *key, struct str path,
                       bool anew, EVP_PKEY **out)
{
    static const struct ssl_passwords none;
    const struct ssl_passwords *passwords = key->passwords != NULL ? key->passwords : &none;
    struct ssl_object o = { .leaf = NULL };
    const char *error = NULL;
    int rc;

    ERR_clear_error();
    ssl_memory_wipe(true);
    rc = ssl_cache_get(cache, path, true, anew, passwords, &o, &error);
    ssl_memory_wipe(false);
    *out = o.key;
    return rc == 0 ? NULL : error;
}

const char *keyproc_named_get(struct ssl_cache **cache, const struct keyproc_key *key,
                              struct str name, struct keyproc_secret *s)
{
    const char *why = NULL;
    char path[PATH_MAX];

    name.len = MIN(name.len, KEYPROC_PRINT_LEN + sizeof(path) - 1);
    memcpy(path, name.ptr + KEYPROC_PRINT_LEN, name.len - KEYPROC_PRINT_LEN);
    path[name.len - KEYPROC_PRINT_LEN] = '\0';
    if (*cache == NULL)
        *cache = ssl_cache_new(key->cache_max);
    *s = (struct keyproc_secret){ .uses = key->uses };
    /* A file that was written anew within the same moment looks the same: then it is read once more. */
    for (unsigned n = 0; n < 2; n++) {
        why = get(*cache, key, str_cstr(path), n > 0, &s->key);
        if (why != NULL || is_meant(s->key, name))
            break;
        EVP_PKEY_free(s->key);
        s->key = NULL;
        why = "it is not the certificate's key";
    }
    if (why != NULL)
        return why;
    s->kind = keyproc_kind_of(s->key);
    if (s->kind != KEYPROC_KINDS && EVP_PKEY_get_size(s->key) <= KEYPROC_RESULT_MAX &&
        keyproc_secret_prepare(s) == 0)
        return NULL;
    keyproc_named_put(s);
    return "only RSA, ECDSA, Ed25519 and Ed448 keys can be kept by \"ssl_key_process\"";
}

void keyproc_named_put(struct keyproc_secret *s)
{
    EVP_PKEY_free(s->key);
    OPENSSL_cleanse(s, sizeof(*s));
}
