/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's part of ssl_certificate_watch. A handshake that needs a certificate compares a number in shared memory; where it has
 * grown the worker takes the pair from there, parses it once, and keeps it. The context stays as it was made: what has been
 * replaced is put into each connection, in the place of all that the context has, so that a key of another type replaces the
 * one before it too.
 */
#include <openssl/err.h>

#include "modules/ssl/watch.h"

/* A copy of what the master has published last, in malloc'd memory; NULL: it is writing just now. */
static char *copy_slot(const struct watch_slot *slot, uint64_t generation, uint32_t *certificate,
                       uint32_t *key)
{
    char *bytes;

    /* Each read once: what has been judged is what is used. */
    *certificate = __atomic_load_n(&slot->certificate_len, __ATOMIC_RELAXED);
    *key = __atomic_load_n(&slot->key_len, __ATOMIC_RELAXED);
    if (*certificate > WATCH_PAIR_MAX || *key > WATCH_PAIR_MAX - *certificate)
        return NULL;
    bytes = mem_alloc(*certificate + *key);
    memcpy(bytes, slot->bytes, *certificate + *key);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&slot->generation, __ATOMIC_RELAXED) == generation)
        return bytes;
    OPENSSL_cleanse(bytes, *certificate + *key);
    free(bytes);
    return NULL;
}

static void parse(struct watched *w, const char *bytes, uint32_t certificate, uint32_t key,
                  const struct logger *log)
{
    static const struct ssl_passwords none;
    struct ssl_object leaf = { .leaf = NULL }, secret = { .leaf = NULL };
    const char *error = NULL;

    ERR_clear_error();
    leaf.leaf = ssl_load_certificate(str_from(bytes, certificate), &leaf.chain, &error);
    if (leaf.leaf == NULL)
        leaf.chain = NULL;
    else
        secret.key = ssl_load_key(str_from(bytes + certificate, key),
                                  w->passwords != NULL ? w->passwords : &none, &error);
    if (secret.key == NULL) {
        /* The master could: this is want of memory, or the like. */
        log_error(log, 0, "cannot load the new certificate \"%.*s\": %s%s",
                  STR_ARG(w->certificate.path), error, ssl_errors());
        ssl_object_free(&leaf);
        return;
    }
    ERR_clear_error();
    ssl_object_free(&w->certificate_object);
    ssl_object_free(&w->key_object);
    w->certificate_object = leaf;
    w->key_object = secret;
}

bool watched_refresh(struct watched *w, const struct logger *log)
{
    uint64_t generation;
    uint32_t certificate, key;
    char *bytes;

    if (w->slot == NULL)
        return false;
    generation = __atomic_load_n(&w->slot->generation, __ATOMIC_ACQUIRE);
    if (likely(generation == w->generation) || generation % 2 != 0)
        return w->generation != 0;
    bytes = copy_slot(w->slot, generation, &certificate, &key);
    if (bytes == NULL)
        return w->generation != 0;
    parse(w, bytes, certificate, key, log);
    OPENSSL_cleanse(bytes, certificate + key);
    free(bytes);
    w->generation = generation;
    return true;
}

int ssl_watch_use(SSL *ssl, const struct ssl_watch *watch, const struct logger *log)
{
    bool replaced = false;

    for (unsigned i = 0; i < watch->count; i++)
        replaced |= watch->pairs[i] != NULL && watched_refresh(watch->pairs[i], log);
    if (likely(!replaced))
        return 0;
    SSL_certs_clear(ssl);
    for (unsigned i = 0; i < watch->count; i++) {
        const struct watched *w = watch->pairs[i];

        if (w != NULL && SSL_use_cert_and_key(ssl, w->certificate_object.leaf, w->key_object.key,
                                              w->certificate_object.chain, 1) != 1) {
            log_error(log, 0, "SSL_use_cert_and_key(\"%.*s\") failed%s",
                      STR_ARG(w->certificate.path), ssl_errors());
            return -1;
        }
    }
    return 0;
}
