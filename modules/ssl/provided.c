/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys of providers where there is no key process. The configuration's reader has each looked for, which shows that it is there; contexts
 * get a handle (keyproc_provider.c) with a number. Each worker, while it still has the master's rights, loads the keys by
 * providers of its own. A key that one could not load is said to be missing, and the worker goes on with the others.
 */
#include <openssl/err.h>

#include "core/module.h"
#include "modules/ssl/provided.h"

struct provided {
    const struct config *config;
    struct str path;
    const struct ssl_passwords *passwords;
    struct conf_pos pos;
    EVP_PKEY *handle;
    struct keyproc_secret secret;
    bool tried; /* to load it in this process */
};

static unsigned provided_slot;

/* By number; of all configurations that are alive. */
static struct {
    struct provided **items;
    unsigned count;
} table;

/* Configuration ------------------------------------------------------------------------------- */

static unsigned take_number(struct provided *p)
{
    unsigned i = 0;

    while (i < table.count && table.items[i] != NULL)
        i++;
    if (i == table.count) {
        table.count = MAX(table.count * 2, 8u);
        table.items = mem_realloc(table.items, table.count * sizeof(struct provided *));
        memset(table.items + i, 0, (table.count - i) * sizeof(struct provided *));
    }
    table.items[i] = p;
    return i;
}

static void provided_free(void *arg)
{
    struct provided *p = arg;
    bool any = false;

    for (unsigned i = 0; i < table.count; i++) {
        if (table.items[i] == p)
            table.items[i] = NULL;
        any |= table.items[i] != NULL;
    }
    EVP_PKEY_free(p->handle);
    EVP_PKEY_free(p->secret.key);
    if (any)
        return;
    free(table.items);
    table.items = NULL;
    table.count = 0;
}

EVP_PKEY *ssl_provided_find(const struct conf *cf, const struct ssl_file *file,
                            const struct ssl_passwords *passwords)
{
    for (unsigned i = 0; i < table.count; i++) {
        struct provided *p = table.items[i];

        if (p == NULL || p->config != cf->config || p->passwords != passwords ||
            !str_eq(p->path, file->path))
            continue;
        EVP_PKEY_up_ref(p->handle);
        return p->handle;
    }
    return NULL;
}

EVP_PKEY *ssl_provided_wrap(struct conf *cf, const struct ssl_file *file,
                            const struct ssl_passwords *passwords, EVP_PKEY *key)
{
    enum keyproc_kind kind = keyproc_kind_of(key);
    struct provided *p;

    if (kind == KEYPROC_KINDS || EVP_PKEY_get_size(key) > KEYPROC_RESULT_MAX) {
        conf_error_at(cf, file->pos,
                      "certificate key \"%.*s\" cannot be used: of a provider's, only RSA, ECDSA, "
                      "Ed25519 and Ed448 keys can",
                      STR_ARG(ssl_shown(file->path)));
        EVP_PKEY_free(key);
        return NULL;
    }
    p = ARENA_NEW(cf->arena, struct provided);
    *p = (struct provided){ .config = cf->config,
                            .path = file->path,
                            .passwords = passwords,
                            .pos = file->pos,
                            .secret = { .kind = kind } };
    arena_defer(cf->arena, provided_free, p);
    p->handle = keyproc_handle(key, kind, SSL_PROVIDED_FIRST + take_number(p), 0);
    EVP_PKEY_free(key);
    if (p->handle == NULL) {
        ssl_conf_error(cf, file->pos,
                       "cannot use certificate key \"%.*s\": its provider does not tell the public "
                       "half",
                       STR_ARG(ssl_shown(file->path)));
        return NULL;
    }
    EVP_PKEY_up_ref(p->handle);
    return p->handle;
}

/* Workers ------------------------------------------------------------------------------------- */

static void load(struct provided *p)
{
    const char *error = "it is another key now";

    p->tried = true;
    p->secret.key = ssl_load_key(p->path, p->passwords, &error);
    if (p->secret.key != NULL && EVP_PKEY_eq(p->handle, p->secret.key) == 1 &&
        keyproc_secret_prepare(&p->secret) == 0) {
        ERR_clear_error();
        return;
    }
    EVP_PKEY_free(p->secret.key);
    p->secret.key = NULL;
    log_alert(
        log_main, 0,
        "cannot load certificate key \"%.*s\": %s%s, the worker process goes on without it in "
        "%s:%u",
        STR_ARG(ssl_shown(p->path)), error, ssl_errors(), p->pos.file, p->pos.line);
}

static int worker_prepare(const struct config *config)
{
    ssl_store_use_here();
    for (unsigned i = 0; i < table.count; i++) {
        if (table.items[i] != NULL && table.items[i]->config == config)
            load(table.items[i]);
    }
    return 0;
}

int ssl_provided_call(const struct keyproc_request *rq, const unsigned char *payload,
                      unsigned char *out, size_t *len)
{
    struct provided *p = table.items[rq->key - SSL_PROVIDED_FIRST];
    unsigned char result[KEYPROC_RESULT_MAX];
    size_t n = 0;
    bool ok;

    if (!p->tried)
        load(p); /* without a master: of a configuration that was read since */
    ok = p->secret.key != NULL && keyproc_secret_use(&p->secret, rq, payload, result, &n) == 0 &&
         n <= *len;
    if (ok) {
        memcpy(out, result, n);
        *len = n;
    } else {
        log_error(log_main, 0, "the provider of certificate key \"%.*s\" %s in %s:%u",
                  STR_ARG(ssl_shown(p->path)),
                  p->secret.key == NULL    ? "did not give it to this process"
                  : rq->op == KEYPROC_SIGN ? "did not sign"
                                           : "did not decrypt",
                  p->pos.file, p->pos.line);
    }
    OPENSSL_cleanse(result, sizeof(result));
    return ok ? 0 : -1;
}

static const struct directive directives[] = { ROW_END };

const struct module module_ssl_provided = {
    .name = "ssl_provided",
    .slot = &provided_slot,
    .directives = directives,
    .worker_prepare = worker_prepare,
};
