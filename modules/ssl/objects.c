/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What certificate and key files hold, each file read once per configuration however many servers name it; and not even once where the
 * configuration that it replaces had read the file and it is still the same one (ssl_object_cache_inheritable). Only the
 * process that reads configurations uses this. Where there are many files they are parsed by as many threads as there are processors,
 * before anybody asks: the library takes half a millisecond for a key.
 */
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/module.h"
#include "modules/ssl/provided.h"

#define PRELOAD_LEAST 64   /* files; fewer are read one by one */
#define PRELOAD_THREADS 16 /* at most */

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

/* Many at once ------------------------------------------------------------------------------ */

/* A file that is to be read, and what has been read of it. */
struct job {
    struct object *object;
    struct str path;
    bool key;
};

struct ssl_preload {
    struct conf *cf;
    struct job *jobs;
    unsigned count, capacity;
    struct table paths; /* of all jobs, to have each once; "c…" or "k…" */
    unsigned next;      /* the first job that nobody has taken */
};

struct ssl_preload *ssl_preload_new(struct conf *cf)
{
    struct ssl_preload *p = ARENA_NEW(cf->arena, struct ssl_preload);

    p->cf = cf;
    table_init(&p->paths, cf->arena);
    return p;
}

static void preload_add(struct ssl_preload *p, struct str path, bool key)
{
    struct str name = str_printf(p->cf->arena, "%c%.*s", key ? 'k' : 'c', STR_ARG(path));
    struct object *fresh = NULL;

    if (!ssl_is_file(path) || table_get(&p->paths, name) != NULL)
        return;
    table_put(&p->paths, name, p);
    if (find(p->cf, key, path, &fresh) != NULL || !S_ISREG(fresh->st.st_mode))
        return; /* what is no file at all whoever opens it will say; a pipe can be read but once */
    p->jobs = arena_grow(p->cf->arena, p->jobs, p->count, &p->capacity, sizeof(*p->jobs));
    p->jobs[p->count++] = (struct job){ .object = fresh, .path = path, .key = key };
}

void ssl_preload_add(struct ssl_preload *p, const struct ssl_spec *spec)
{
    for (unsigned i = 0; i < spec->certificates.count && i < spec->keys.count; i++) {
        if (ssl_pair_is_dynamic(spec, i))
            continue;
        preload_add(p, spec->certificates.items[i].path, false);
        if (spec->passwords == NULL && !keyproc_is_on(p->cf))
            preload_add(p, spec->keys.items[i].path, true);
    }
}

/* What fails here is done again, one by one, by whoever can report it, or ask for a password. */
static void *preload_work(void *arg)
{
    static const struct ssl_passwords none;
    struct ssl_preload *p = arg;
    const char *error;
    unsigned i;

    while ((i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < p->count) {
        struct job *job = &p->jobs[i];
        STACK_OF(X509) *chain = NULL;

        if (job->key && !ssl_store_is_reference(job->path))
            job->object->key = ssl_load_key(job->path, &none, &error);
        else if (!job->key)
            job->object->leaf = ssl_load_certificate(job->path, &chain, &error);
        if (job->object->leaf != NULL)
            job->object->chain = chain;
        ERR_clear_error();
    }
    return NULL;
}

static void *preload_thread(void *arg)
{
    preload_work(arg);
    OPENSSL_thread_stop();
    ssl_memory_trim();
    return NULL;
}

static void preload_run(struct ssl_preload *p)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[PRELOAD_THREADS];
    unsigned n = 0, want = (unsigned) MAX(MIN(cores, (long) PRELOAD_THREADS), 1l) - 1;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (n < want && pthread_create(&threads[n], NULL, preload_thread, p) == 0)
        n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    preload_work(p);
    while (n > 0)
        pthread_join(threads[--n], NULL);
}

void ssl_preload(struct ssl_preload *p)
{
    if (p->count < PRELOAD_LEAST)
        return;
    preload_run(p);
    for (unsigned i = 0; i < p->count; i++) {
        struct job *job = &p->jobs[i];

        if (job->object->key != NULL || job->object->leaf != NULL)
            table_put(job->key ? &current->keys : &current->certificates,
                      str_dup(current->arena, job->path), job->object);
    }
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
