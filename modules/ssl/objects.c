/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What certificate and key files hold, each file read once per configuration however many servers name it; and not even once where the
 * configuration that it replaces had read the file and it is still the same one (ssl_object_cache_inheritable). Only the
 * process that reads configurations uses this.
 */
#include <openssl/err.h>
#include <sys/stat.h>

#include "core/base/hash.h"
#include "core/module.h"
#include "modules/ssl/ssl.h"

struct object {
    struct stat st; /* of the file, before it was read */
    X509 *leaf;     /* one of these two: a file may be named for both, then there are two objects */
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    bool judged;
};

struct objects {
    struct arena *arena;
    struct table certificates, keys;
};

struct openssl_main {
    bool inheritable;
};

static unsigned openssl_slot;
static struct objects *current,
    *last; /* of the configuration being read, and of the one before it */

static void object_free(struct object *o)
{
    X509_free(o->leaf);
    sk_X509_pop_free(o->chain, X509_free);
    EVP_PKEY_free(o->key);
    o->leaf = NULL;
    o->chain = NULL;
    o->key = NULL;
}

static void table_free(struct table *t)
{
    const struct table_entry *entry;

    for (unsigned i = 0; (entry = table_next(t, &i)) != NULL;)
        object_free(entry->value);
}

static void objects_free(struct objects **which)
{
    struct objects *o = *which;

    *which = NULL;
    if (o == NULL)
        return;
    table_free(&o->certificates);
    table_free(&o->keys);
    arena_destroy(o->arena);
}

static struct objects *objects_new(void)
{
    struct arena *arena = arena_new();
    struct objects *o = ARENA_NEW(arena, struct objects);

    o->arena = arena;
    table_init(&o->certificates, arena);
    table_init(&o->keys, arena);
    return o;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static bool may_inherit(const struct conf *cf)
{
    const struct openssl_main *m = level_conf(cf->config->main, STORE_MAIN, openssl_slot);

    return last != NULL && m->inheritable;
}

/* The object of this configuration, or the one before it. NULL: the file is to be read; *fresh is where it goes. */
static struct object *find(const struct conf *cf, bool key, struct str path, struct object **fresh)
{
    struct table *mine = key ? &current->keys : &current->certificates;
    struct object *o = table_get(mine, path), *old;

    *fresh = NULL;
    if (o != NULL)
        return o;
    o = ARENA_NEW(current->arena, struct object);
    *fresh = o;
    if (stat(path.ptr, &o->st) != 0)
        return NULL; /* whoever opens it will say so */
    old = may_inherit(cf) ? table_get(key ? &last->keys : &last->certificates, path) : NULL;
    if (old == NULL || !is_same(&old->st, &o->st))
        return NULL;
    o->leaf = old->leaf;
    o->chain = old->chain;
    o->key = old->key;
    old->leaf = NULL;
    old->chain = NULL;
    old->key = NULL;
    memset(&old->st, 0, sizeof(old->st));
    table_put(mine, str_dup(current->arena, path), o);
    return o;
}

X509 *ssl_object_certificate(struct conf *cf, struct str path, STACK_OF(X509) * *chain,
                             const char **error)
{
    struct object *o, *fresh = NULL;
    X509 *leaf;

    if (!ssl_is_file(path))
        return ssl_load_certificate(path, chain, error);
    o = find(cf, false, path, &fresh);
    if (o == NULL) {
        leaf = ssl_load_certificate(path, chain, error);
        if (leaf == NULL)
            return NULL;
        fresh->leaf = leaf;
        fresh->chain = *chain;
        table_put(&current->certificates, str_dup(current->arena, path), fresh);
        o = fresh;
    }
    *chain = X509_chain_up_ref(o->chain);
    *error = "X509_chain_up_ref() failed";
    if (*chain == NULL)
        return NULL;
    X509_up_ref(o->leaf);
    return o->leaf;
}

EVP_PKEY *ssl_object_key(struct conf *cf, struct str path, const struct ssl_passwords *passwords,
                         const char **error)
{
    struct object *o, *fresh = NULL;

    /* What a password opens is for those who have given it. */
    if (!ssl_is_file(path) || passwords != NULL)
        return ssl_load_key(path, passwords, error);
    o = find(cf, true, path, &fresh);
    if (o == NULL) {
        o = fresh;
        o->key = ssl_load_key(path, passwords, error);
        if (o->key == NULL)
            return NULL;
        table_put(&current->keys, str_dup(current->arena, path), o);
    }
    EVP_PKEY_up_ref(o->key);
    return o->key;
}

bool ssl_object_unjudged(struct str path)
{
    struct object *o = ssl_is_file(path) ? table_get(&current->certificates, path) : NULL;
    bool judged = o != NULL && o->judged;

    if (o != NULL)
        o->judged = true;
    return !judged;
}

void ssl_objects_free(void)
{
    objects_free(&last);
    objects_free(&current);
}

static int openssl_begin(struct conf *cf UNUSED)
{
    objects_free(&last);
    last = current;
    current = objects_new();
    return 0;
}

static const struct directive directives[] = {
    ROW("ssl_object_cache_inheritable", CTX_MAIN, ARG_FLAG, conf_set_flag, STORE_MAIN,
        struct openssl_main, inheritable, INHERIT_SCALAR, "on", "on | off",
        "Certificates and keys in unchanged files are not read again at a reload.", ),
    ROW_END,
};

const struct module module_openssl = {
    .name = "openssl",
    .slot = &openssl_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct openssl_main) },
    .directives = directives,
    .begin = openssl_begin,
};
