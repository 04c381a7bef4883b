/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys of providers where there is no key process. The configuration's reader loads each once, which shows that it is there; contexts get a
 * handle (keyproc_provider.c) with a number. Each worker, while it still has the master's rights, loads the keys again by
 * providers of its own, and uses these. The inherited ones are neither used nor freed in it: that, too, would speak to the token.
 */
#include <openssl/err.h>
#include <unistd.h>

#include "core/module.h"
#include "modules/ssl/provided.h"

struct provided {
    const struct config *config;
    struct str path;
    const struct ssl_passwords *passwords;
    struct conf_pos pos;
    EVP_PKEY *handle;
    pid_t process; /* which has loaded the key */
    struct keyproc_secret secret;
};

static unsigned provided_slot;

/* Keys that a process has from the one it is a fork of. */
static struct {
    EVP_PKEY **keys;
    unsigned count, capacity;
} inherited;

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

static void forget_key(struct provided *p)
{
    EVP_PKEY *key = p->secret.key;

    p->secret.key = NULL;
    if (key == NULL || p->process == getpid()) {
        EVP_PKEY_free(key);
        return;
    }
    if (inherited.count == inherited.capacity) {
        inherited.capacity = MAX(inherited.capacity * 2, 8u);
        inherited.keys = mem_realloc(inherited.keys, inherited.capacity * sizeof(EVP_PKEY *));
    }
    inherited.keys[inherited.count++] = key;
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
    forget_key(p);
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

    if (kind == KEYPROC_KINDS || EVP_PKEY_get_size(key) > KEYPROC_RESULT_MAX)
        return key; /* the library may know what to do with it */
    p = ARENA_NEW(cf->arena, struct provided);
    *p = (struct provided){ .config = cf->config,
                            .path = file->path,
                            .passwords = passwords,
                            .pos = file->pos,
                            .process = getpid() };
    p->secret = (struct keyproc_secret){ .key = key, .kind = kind };
    arena_defer(cf->arena, provided_free, p);
    p->handle = keyproc_handle(key, kind, SSL_PROVIDED_FIRST + take_number(p));
    if (p->handle == NULL || keyproc_secret_prepare(&p->secret) != 0) {
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

    forget_key(p);
    p->process = getpid();
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

/* The master that has gone into the background is a fork of the process that has read its first configuration. */
static int begin(struct conf *cf UNUSED)
{
    static pid_t reader;

    if (reader != 0 && reader != getpid())
        ssl_store_forked();
    reader = getpid();
    return 0;
}

static int worker_prepare(const struct config *config)
{
    ssl_store_forked();
    for (unsigned i = 0; i < table.count; i++) {
        if (table.items[i] != NULL && table.items[i]->config == config)
            load(table.items[i]);
    }
    return 0;
}

int ssl_provided_call(const struct keyproc_request *rq, const unsigned char *payload,
                      unsigned char *out, size_t *len)
{
    const struct provided *p = table.items[rq->key - SSL_PROVIDED_FIRST];
    unsigned char result[KEYPROC_RESULT_MAX];
    size_t n = 0;
    bool ok = p->secret.key != NULL &&
              keyproc_secret_use(&p->secret, rq, payload, result, &n) == 0 && n <= *len;

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
    .begin = begin,
    .worker_prepare = worker_prepare,
};
