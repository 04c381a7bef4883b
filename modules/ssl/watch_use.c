/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's part of ssl_certificate_watch. A handshake that needs a certificate compares a number in shared memory; where it has
 * grown the worker takes the pair from there, parses it once, and keeps it. The context stays as it was made: what has been
 * replaced is put into each connection, in the place of all that the context has, so that a key of another type replaces the
 * one before it too.
 */
#include <openssl/err.h>

#include "modules/ssl/keyproc.h"
#include "modules/ssl/watch.h"

/* What the master has published last. */
struct pair {
    char *bytes; /* malloc'd */
    uint32_t certificate, key, key_generation;
};

static void pair_free(struct pair *p)
{
    OPENSSL_cleanse(p->bytes, p->certificate + p->key);
    free(p->bytes);
}

/* False: it is writing just now. */
static bool copy_slot(const struct watch_slot *slot, uint64_t generation, struct pair *p)
{
    /* Each read once: what has been judged is what is used. */
    p->certificate = __atomic_load_n(&slot->certificate_len, __ATOMIC_RELAXED);
    p->key = __atomic_load_n(&slot->key_len, __ATOMIC_RELAXED);
    p->key_generation = __atomic_load_n(&slot->key_generation, __ATOMIC_RELAXED);
    if (p->certificate > WATCH_PAIR_MAX || p->key > WATCH_PAIR_MAX - p->certificate)
        return false;
    p->bytes = mem_alloc(p->certificate + p->key);
    memcpy(p->bytes, slot->bytes, p->certificate + p->key);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&slot->generation, __ATOMIC_RELAXED) == generation)
        return true;
    pair_free(p);
    return false;
}

/* The key itself, or, where the key process has it, its number. */
static EVP_PKEY *key_of(const struct watched *w, const struct pair *p, X509 *leaf,
                        const char **error)
{
    static const struct ssl_passwords none;
    EVP_PKEY *public_half;

    if (w->kept == NULL)
        return ssl_load_key(str_from(p->bytes + p->certificate, p->key),
                            w->passwords != NULL ? w->passwords : &none, error);
    *error = "its key cannot be used";
    public_half = X509_get0_pubkey(leaf);
    if (public_half == NULL || keyproc_kind_of(public_half) == KEYPROC_KINDS)
        return NULL;
    return keyproc_handle(public_half, keyproc_kind_of(public_half), w->kept->number,
                          p->key_generation);
}

static void parse(struct watched *w, const struct pair *p, const struct logger *log)
{
    struct ssl_object leaf = { .leaf = NULL }, secret = { .leaf = NULL };
    const char *error = NULL;

    ERR_clear_error();
    leaf.leaf = ssl_load_certificate(str_from(p->bytes, p->certificate), &leaf.chain, &error);
    if (leaf.leaf == NULL)
        leaf.chain = NULL;
    else
        secret.key = key_of(w, p, leaf.leaf, &error);
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
    struct pair p;

    if (w->slot == NULL)
        return false;
    generation = __atomic_load_n(&w->slot->generation, __ATOMIC_ACQUIRE);
    if (likely(generation == w->generation) || generation % 2 != 0)
        return w->generation != 0;
    if (!copy_slot(w->slot, generation, &p))
        return w->generation != 0;
    parse(w, &p, log);
    pair_free(&p);
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
