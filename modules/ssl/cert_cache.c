/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_certificate_cache and its like: what certificate and key files hold whose names variables have made, kept by each worker,
 * those used last at the front. A file is looked at again (stat) when what is kept of it has been there for `valid`, and
 * read again if it is another one; what nobody has asked for in `inactive` goes. A key that a password has opened is
 * for those who have given the password: passwords are a part of what it is found by.
 */
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/list.h"
#include "modules/ssl/pairs.h"

#define INACTIVE_S 10
#define VALID_S 60
#define FILE_MAX (1024 * 1024) /* bytes; a client may have chosen the name, and all wait for the disk */
#define BUCKETS_MAX 65536
#define SWEEP 2 /* stale ones that each new one drives out, so that none stays for ever */

struct entry {
    struct list link; /* ssl_cache.used */
    struct entry *next;
    uint64_t hash;
    const struct ssl_passwords *passwords; /* of a key */
    struct ssl_object object;
    struct stat st; /* of the file, before it was read */
    uint64_t checked_ms, used_ms;
    size_t len;
    bool key;
    char path[];
};

struct ssl_cache {
    uint64_t inactive_ms, valid_ms; /* valid_ms 0: looked at each time */
    unsigned max;
    /* Of the worker. */
    struct entry **buckets;
    unsigned mask, count;
    struct list used; /* last used one first */
};

/* Configuration ------------------------------------------------------------------------------- */

static void drop(struct ssl_cache *c, struct entry *e)
{
    struct entry **p = &c->buckets[e->hash & c->mask];

    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    list_remove(&e->link);
    c->count--;
    ssl_object_free(&e->object);
    free(e);
}

static void cache_free(void *arg)
{
    struct ssl_cache *c = arg;

    while (!list_empty(&c->used))
        drop(c, container_of(c->used.next, struct entry, link));
    free(c->buckets);
}

unsigned ssl_cache_max(const struct ssl_cache *cache)
{
    return cache != NULL ? cache->max : 0;
}

struct ssl_cache *ssl_cache_new(unsigned max)
{
    struct ssl_cache *c = mem_zalloc(sizeof(*c));

    c->max = max;
    c->inactive_ms = UINT64_MAX;
    list_init(&c->used);
    return c;
}

void ssl_cache_free(struct ssl_cache *c)
{
    if (c != NULL)
        cache_free(c);
    free(c);
}

/* "NAME=…" of the argument: its value. */
static bool parameter(struct str arg, struct str name, struct str *value)
{
    *value = str_starts(arg, name) ? str_skip(arg, name.len) : STR_NULL;
    return value->ptr != NULL;
}

static const char *read_parameter(struct conf *cf, unsigned n, struct ssl_cache *c)
{
    struct str arg = cf->args[n], value;
    uint64_t number = 0;
    int rc = -1;

    if (parameter(arg, STR("max="), &value)) {
        rc = str_to_u64(value, &number) == 0 && number > 0 && number <= INT32_MAX ? 0 : -1;
        c->max = (unsigned) MIN(number, (uint64_t) INT32_MAX);
    } else if (parameter(arg, STR("inactive="), &value)) {
        rc = str_to_ms(value, true, &c->inactive_ms);
    } else if (parameter(arg, STR("valid="), &value)) {
        rc = str_to_ms(value, true, &c->valid_ms);
    }
    return rc == 0 ? NULL : conf_error_arg(cf, n, "invalid parameter \"%.*s\"", STR_ARG(arg));
}

const char *ssl_set_certificate_cache(struct conf *cf, void *field)
{
    struct ssl_cache *c = ARENA_NEW(cf->arena, struct ssl_cache);
    const char *error = NULL;

    *(struct ssl_cache **) field = NULL;
    if (cf->nargs == 2 && str_eq(cf->args[1], STR("off")))
        return NULL;
    c->inactive_ms = INACTIVE_S * 1000;
    c->valid_ms = VALID_S * 1000;
    list_init(&c->used);
    for (unsigned i = 1; i < cf->nargs && error == NULL; i++)
        error = read_parameter(cf, i, c);
    if (error != NULL)
        return error;
    if (c->max == 0)
        return conf_error(cf, "\"%.*s\" must have the \"max\" parameter", STR_ARG(cf->args[0]));
    arena_defer(cf->arena, cache_free, c);
    *(struct ssl_cache **) field = c;
    return NULL;
}

/* Objects ------------------------------------------------------------------------------------- */

void ssl_object_free(struct ssl_object *o)
{
    X509_free(o->leaf);
    sk_X509_pop_free(o->chain, X509_free);
    EVP_PKEY_free(o->key);
    *o = (struct ssl_object){ .leaf = NULL };
}

/* 0, or -1: out of memory in the library. */
static int share(const struct ssl_object *o, struct ssl_object *out)
{
    *out = *o;
    if (o->chain != NULL && (out->chain = X509_chain_up_ref(o->chain)) == NULL) {
        *out = (struct ssl_object){ .leaf = NULL };
        return -1;
    }
    if (o->leaf != NULL)
        X509_up_ref(o->leaf);
    if (o->key != NULL)
        EVP_PKEY_up_ref(o->key);
    return 0;
}

bool ssl_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int read_object(struct str path, bool key, const struct ssl_passwords *passwords,
                       struct ssl_object *out, const char **error)
{
    *out = (struct ssl_object){ .leaf = NULL };
    if (key)
        out->key = ssl_load_key(path, passwords, error);
    else
        out->leaf = ssl_load_certificate(path, &out->chain, error);
    if (out->key == NULL && out->leaf == NULL) {
        out->chain = NULL;
        return -1;
    }
    return 0;
}

/* The cache ----------------------------------------------------------------------------------- */

static uint64_t hash_of(struct str path, bool key, const struct ssl_passwords *passwords)
{
    return hash_bytes(path.ptr, path.len) ^ (uintptr_t) passwords >> 4 ^ (key ? 1 : 0);
}

static struct entry *find(const struct ssl_cache *c, uint64_t hash, struct str path, bool key,
                          const struct ssl_passwords *passwords)
{
    struct entry *e = c->buckets != NULL ? c->buckets[hash & c->mask] : NULL;

    while (e != NULL && (e->hash != hash || e->key != key || e->passwords != passwords ||
                         !str_eq(str_from(e->path, e->len), path)))
        e = e->next;
    return e;
}

/* What is kept, unless its time is over or its file is another one now. */
static struct entry *fresh(struct ssl_cache *c, uint64_t hash, struct str path, bool key,
                           const struct ssl_passwords *passwords)
{
    struct entry *e = find(c, hash, path, key, passwords);
    struct stat st;

    if (e == NULL)
        return NULL;
    if (clock_ms() - e->used_ms > c->inactive_ms) {
        drop(c, e);
        return NULL;
    }
    if (c->valid_ms == 0 || clock_ms() - e->checked_ms > c->valid_ms) {
        if (stat(path.ptr, &st) != 0 || !ssl_same_file(&st, &e->st)) {
            drop(c, e);
            return NULL;
        }
        e->checked_ms = clock_ms();
    }
    e->used_ms = clock_ms();
    list_remove(&e->link);
    list_push_front(&c->used, &e->link);
    return e;
}

static void make_room(struct ssl_cache *c)
{
    while (c->count >= c->max)
        drop(c, container_of(c->used.prev, struct entry, link));
    for (unsigned i = 0; i < SWEEP && c->count > 0; i++) {
        struct entry *e = container_of(c->used.prev, struct entry, link);

        if (clock_ms() - e->used_ms <= c->inactive_ms)
            break;
        drop(c, e);
    }
}

static void keep(struct ssl_cache *c, uint64_t hash, struct str path, bool key,
                 const struct ssl_passwords *passwords, const struct stat *st,
                 const struct ssl_object *o)
{
    struct entry *e;

    if (c->buckets == NULL) {
        unsigned n = 16;

        while (n < c->max && n < BUCKETS_MAX)
            n *= 2;
        c->buckets = mem_zalloc(n * sizeof(struct entry *));
        c->mask = n - 1;
    }
    make_room(c);
    e = mem_zalloc(sizeof(*e) + path.len + 1);
    if (share(o, &e->object) != 0) {
        free(e);
        return;
    }
    e->hash = hash;
    e->key = key;
    e->passwords = passwords;
    e->st = *st;
    e->checked_ms = e->used_ms = clock_ms();
    e->len = path.len;
    memcpy(e->path, path.ptr, path.len);
    e->next = c->buckets[hash & c->mask];
    c->buckets[hash & c->mask] = e;
    list_push_front(&c->used, &e->link);
    c->count++;
}

int ssl_cache_get(struct ssl_cache *cache, struct str path, bool key, bool anew,
                  const struct ssl_passwords *passwords, struct ssl_object *out, const char **error)
{
    uint64_t hash = hash_of(path, key, key ? passwords : NULL);
    const struct ssl_passwords *opens = key ? passwords : NULL;
    struct entry *e = cache != NULL ? fresh(cache, hash, path, key, opens) : NULL;
    struct stat st;
    bool there;

    if (e != NULL && anew) {
        drop(cache, e);
    } else if (e != NULL) {
        *error = "X509_chain_up_ref() failed";
        return share(&e->object, out);
    }
    /* A pipe would stop the worker; what is not there at all the library says in nginx's words. */
    there = ssl_is_file(path) && stat(path.ptr, &st) == 0;
    if (there && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        *error = "it is not a regular file";
        return -1;
    }
    if (there && S_ISREG(st.st_mode) && st.st_size > FILE_MAX) {
        *error = "it is too large";
        return -1;
    }
    if (read_object(path, key, passwords, out, error) != 0)
        return -1;
    if (cache != NULL && there)
        keep(cache, hash, path, key, opens, &st, out);
    return 0;
}
