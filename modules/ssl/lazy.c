/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_certificate_load lazy: of ten thousand certificates a worker sees a few. The configuration's reader, which may read keys, takes the
 * files' bytes, and that is all; whoever makes a handshake parses what that needs, once, and gives it to the context, so
 * that the next handshake finds it there. That a file is rubbish is found out then, or by -t, which reads all of them. With a
 * key process the keys' bytes are taken, and parsed, by that alone: here they are numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/module.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/lazy.h"
#include "modules/ssl/provided.h"

#define FILE_MAX (1024 * 1024)

/* A file of a lazy pair, or what is in the configuration itself, however many servers name it. */
struct lazy {
    struct str data;             /* "data:" and the bytes */
    const struct ssl_file *file; /* who named it first */
    const struct ssl_passwords *passwords;
    struct keyproc_key
        *kept; /* a key that is the key process's, of this certificate; data is empty then */
    const struct lazy *certificate;
    bool key, failed;
    struct ssl_object object; /* of the process; empty: not parsed yet */
};

struct ssl_lazy {
    struct lazy **certificates, **keys; /* by the number of the pair; NULL: the context has it */
    unsigned count;
    bool done;  /* the context has all of them */
    bool mixed; /* and others besides */
};

struct lazy_main {
    struct table files;
};

static unsigned ssl_lazy_slot;

/* Configuration ------------------------------------------------------------------------------- */

static void lazy_free(void *arg)
{
    struct lazy *l = arg;

    ssl_object_free(&l->object);
    if (l->key && l->data.len > 0)
        OPENSSL_cleanse((char *) l->data.ptr, l->data.len);
}

/* "data:" and what the file holds. An empty string: reported, in the library's words. */
static struct str read_file(struct conf *cf, const struct ssl_file *file, const char *what)
{
    int fd = open(file->path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    size_t n = 5, room = 0;
    ssize_t got = -1;
    char *buf = NULL;
    struct stat st;

    /* Of what has no length (a pipe) nothing would be read, and handshakes would fail. */
    if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        conf_error_at(cf, file->pos,
                      "cannot load %s \"%.*s\": \"ssl_certificate_load lazy\" needs a regular file",
                      what, STR_ARG(file->path));
        close(fd);
        return STR("");
    }
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= 0 && st.st_size < FILE_MAX) {
        room = (size_t) st.st_size + 5;
        buf = arena_bytes(cf->arena, room + 1);
        memcpy(buf, "data:", 5);
        while (n < room && (got = read(fd, buf + n, room - n)) > 0)
            n += (size_t) got;
        got = n == room ? 0 : got;
    } else if (fd >= 0) {
        errno = EFBIG;
    }
    if (got < 0) {
        conf_error_at(cf, file->pos, "cannot load %s \"%.*s\": it cannot be read (%d: %s)", what,
                      STR_ARG(file->path), errno, strerror(errno));
        n = 0;
    }
    if (fd >= 0)
        close(fd);
    return str_from(buf, n);
}

extern const struct module module_ssl_lazy;

/* What is to be parsed. 0, or -1: reported. */
static int take(struct conf *cf, struct lazy *l, bool elsewhere)
{
    if (elsewhere)
        l->kept = keyproc_key_late(cf, l->file, l->passwords, l->certificate->data);
    else if (ssl_is_file(l->file->path))
        l->data = read_file(cf, l->file, l->key ? "certificate key" : "certificate");
    else
        l->data = l->file->path;
    return l->kept != NULL || l->data.len > 0 ? 0 : -1;
}

/* A certificate's file, or, where that is given, its key's. NULL: reported. */
static struct lazy *lazy_of(struct conf *cf, const struct ssl_file *file,
                            const struct lazy *certificate, const struct ssl_passwords *passwords)
{
    struct lazy_main *m = conf_own(cf, cf->config->main, &module_ssl_lazy, STORE_MAIN);
    bool key = certificate != NULL, elsewhere = key && keyproc_is_on(cf) && ssl_is_file(file->path);
    struct str name =
        str_printf(cf->arena, "%d %p %p %.*s", key, (const void *) passwords,
                   elsewhere ? (const void *) certificate : NULL, STR_ARG(file->path));
    struct lazy *l;

    if (m->files.arena == NULL)
        table_init(&m->files, cf->arena);
    l = table_get(&m->files, name);
    if (l != NULL)
        return l;
    l = ARENA_NEW(cf->arena, struct lazy);
    l->file = file;
    l->key = key;
    l->certificate = certificate;
    l->passwords = passwords;
    if (take(cf, l, elsewhere) != 0)
        return NULL;
    arena_defer(cf->arena, lazy_free, l);
    table_put(&m->files, name, l);
    return l;
}

struct ssl_lazy *ssl_lazy_new(struct conf *cf, const struct ssl_spec *spec)
{
    struct ssl_lazy *lazy = ARENA_NEW(cf->arena, struct ssl_lazy);
    bool elsewhere = keyproc_is_on(cf);

    lazy->count = spec->certificates.count;
    lazy->certificates = ARENA_ARRAY(cf->arena, struct lazy *, MAX(lazy->count, 1u));
    lazy->keys = ARENA_ARRAY(cf->arena, struct lazy *, MAX(lazy->count, 1u));
    for (unsigned i = 0; i < lazy->count; i++) {
        const struct ssl_file *certificate = &spec->certificates.items[i],
                              *key = &spec->keys.items[i];

        /* The provider of a reference knows only keys that were read before the rights were given up. */
        if (ssl_pair_is_dynamic(spec, i) || str_starts(key->path, STR("store:")) ||
            (elsewhere && ssl_store_is_reference(key->path))) {
            lazy->mixed = true;
            continue;
        }
        lazy->certificates[i] = lazy_of(cf, certificate, NULL, NULL);
        if (lazy->certificates[i] == NULL)
            return NULL;
        lazy->keys[i] = lazy_of(cf, key, lazy->certificates[i], spec->passwords);
        if (lazy->keys[i] == NULL)
            return NULL;
        if (lazy->keys[i]->kept != NULL) {
            keyproc_use_late(lazy->keys[i]->kept, keyproc_uses(spec, true));
        } else if (!elsewhere && ssl_store_is_reference(lazy->keys[i]->data)) {
            lazy->certificates[i] = lazy->keys[i] = NULL;
            lazy->mixed = true;
        }
    }
    return lazy;
}

bool ssl_lazy_has(const struct ssl_lazy *lazy, unsigned i)
{
    return lazy != NULL && lazy->certificates[i] != NULL;
}

struct str ssl_lazy_bytes(const struct ssl_lazy *lazy, unsigned i)
{
    return lazy->certificates[i]->data;
}

/* Handshakes ---------------------------------------------------------------------------------- */

/* A key, or its number. */
static EVP_PKEY *parse_key(const struct lazy *l, const char **error)
{
    static const struct ssl_passwords none;
    EVP_PKEY *public_half;

    if (l->kept == NULL)
        return ssl_load_key(l->data, l->passwords != NULL ? l->passwords : &none, error);
    *error = "\"ssl_key_process\" can keep only RSA, ECDSA, Ed25519 and Ed448 keys";
    public_half = X509_get0_pubkey(l->certificate->object.leaf);
    if (public_half == NULL || keyproc_kind_of(public_half) == KEYPROC_KINDS)
        return NULL;
    return keyproc_handle(public_half, keyproc_kind_of(public_half), l->kept->number, 0);
}

/* 0, or -1: logged. What has failed once is not tried again: it is the same bytes. A key's certificate is parsed before it. */
static int parse(struct lazy *l, const struct logger *log)
{
    const char *what = l->key ? "certificate key" : "certificate", *error = "it was tried before";

    if (l->object.leaf != NULL || l->object.key != NULL)
        return 0;
    ERR_clear_error();
    if (!l->failed && l->key)
        l->object.key = parse_key(l, &error);
    else if (!l->failed)
        l->object.leaf = ssl_load_certificate(l->data, &l->object.chain, &error);
    if (l->object.leaf != NULL || l->object.key != NULL) {
        ERR_clear_error();
        return 0;
    }
    l->object.chain = NULL;
    l->failed = true;
    log_error(
        log, 0,
        "cannot load %s \"%.*s\": %s%s in %s:%u (by \"ssl_certificate_load lazy\"; \"proxyd -t\" "
        "checks all certificates)",
        what, STR_ARG(str_starts(l->file->path, STR("data:")) ? STR("data") : l->file->path), error,
        ssl_errors(), l->file->pos.file, l->file->pos.line);
    return -1;
}

int ssl_lazy_use(SSL *ssl, struct ssl_lazy *lazy, const struct logger *log)
{
    SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);

    /* A connection has what the context had when it began, which may be nothing yet. */
    if (likely(lazy->done && !lazy->mixed && SSL_get_certificate(ssl) != NULL))
        return 0;
    for (unsigned i = 0; i < lazy->count; i++) {
        struct lazy *c = lazy->certificates[i], *k = lazy->keys[i];

        if (c == NULL)
            continue;
        if (parse(c, log) != 0 || parse(k, log) != 0)
            return -1;
        if (SSL_use_cert_and_key(ssl, c->object.leaf, k->object.key, c->object.chain, 1) != 1 ||
            (!lazy->done && SSL_CTX_use_cert_and_key(ctx, c->object.leaf, k->object.key,
                                                     c->object.chain, 1) != 1)) {
            log_error(log, 0, "SSL_CTX_use_PrivateKey(\"%.*s\") failed%s in %s:%u",
                      STR_ARG(k->file->path), ssl_errors(), k->file->pos.file, k->file->pos.line);
            return -1;
        }
    }
    lazy->done = true;
    return 0;
}

static const struct directive directives[] = { ROW_END };

const struct module module_ssl_lazy = {
    .name = "ssl_lazy",
    .slot = &ssl_lazy_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct lazy_main) },
    .directives = directives,
};
