/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Certificates and keys whose names hold variables: what the names come to is known at a handshake, and they are loaded then,
 * for this one connection. The values may be the client's choice ($ssl_server_name), and so a name is looked
 * at before it is opened: values lead to no folder above the one that the configuration names, and no value makes a
 * name of a file one of a store. Keys that are given as data stand in no line of the log.
 */
#include <ctype.h>
#include <limits.h>
#include <openssl/err.h>

#include "core/config/expr.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/pairs.h"

/* A path with variables. */
struct ssl_name {
    struct expr *expr;
    struct str folder; /* of what is relative, with a slash at its end */
    unsigned ups;      /* how often ".." stands in it as it was written */
};

/* How many parts of a path are "..". */
static unsigned count_ups(struct str path)
{
    unsigned n = 0;

    while (path.len > 0) {
        ssize_t slash = str_chr(path, '/');
        struct str part = str_from(path.ptr, slash < 0 ? path.len : (size_t) slash);

        n += str_eq(part, STR(".."));
        path = str_skip(path, slash < 0 ? path.len : (size_t) slash + 1);
    }
    return n;
}

const struct ssl_name *ssl_name_compile(struct conf *cf, const char **error)
{
    struct ssl_name *name = ARENA_NEW(cf->arena, struct ssl_name);

    if (str_starts(cf->args[1], STR("store:"))) {
        *error = conf_error_arg(cf, 1, "variables in \"store:\" are not supported");
        return NULL;
    }
    name->expr = expr_compile(cf, cf->args[1], EXPR_Z, error);
    if (name->expr == NULL)
        return NULL;
    name->folder = str_cstr(cf->config->conf_prefix);
    name->ups = count_ups(cf->args[1]);
    return name;
}

/* What stands behind the last variable. */
static struct str behind_variables(struct str path)
{
    size_t at = path.len;

    while (path.ptr[at - 1] != '$')
        at--;
    if (at < path.len && path.ptr[at] == '{') {
        while (at < path.len && path.ptr[at++] != '}') {
        }
        return str_skip(path, at);
    }
    while (at < path.len && (isalnum((unsigned char) path.ptr[at]) || path.ptr[at] == '_'))
        at++;
    return str_skip(path, at);
}

const struct ssl_bounds *ssl_name_bounds(struct conf *cf, const struct ssl_file *file)
{
    struct ssl_bounds *b = ARENA_NEW(cf->arena, struct ssl_bounds);
    ssize_t dollar = str_chr(file->path, '$');

    if (file->name == NULL || dollar < 0) {
        *b =
            (struct ssl_bounds){ .begin = file->path, .ups = count_ups(file->path), .whole = true };
        return b;
    }
    b->begin = str_from(file->path.ptr, (size_t) dollar);
    if (dollar > 0 && file->path.ptr[0] != '/')
        b->begin =
            str_printf(cf->arena, "%.*s%.*s", STR_ARG(file->name->folder), STR_ARG(b->begin));
    b->end = behind_variables(file->path);
    /* Those of the folder are the configuration's as well. */
    b->ups = count_ups(file->path) + count_ups(file->name->folder);
    return b;
}

bool ssl_is_within(const struct ssl_bounds *b, struct str path)
{
    if (b->whole)
        return str_eq(path, b->begin);
    return path.len >= b->begin.len + b->end.len && str_starts(path, STR("/")) &&
           str_starts(path, b->begin) && str_eq(str_skip(path, path.len - b->end.len), b->end) &&
           str_chr(path, '\0') < 0 && count_ups(path) <= b->ups;
}

bool ssl_pair_is_dynamic(const struct ssl_spec *spec, unsigned i)
{
    return spec->certificates.items[i].name != NULL ||
           (i < spec->keys.count && spec->keys.items[i].name != NULL);
}

bool ssl_has_dynamic(const struct ssl_spec *spec)
{
    for (unsigned i = 0; i < spec->certificates.count; i++) {
        if (ssl_pair_is_dynamic(spec, i))
            return true;
    }
    return false;
}

static struct str evaluate(struct eval *e, const struct ssl_file *file)
{
    return file->name != NULL ? expr_eval(e, file->name->expr) : file->path;
}

struct ssl_pair_names ssl_pair_eval(struct eval *e, const struct ssl_spec *spec, unsigned i)
{
    return (struct ssl_pair_names){ .certificate = evaluate(e, &spec->certificates.items[i]),
                                    .key = evaluate(e, &spec->keys.items[i]) };
}

/* One of a pair, for the time of its being loaded. */
struct load {
    const struct ssl_file *file;
    struct str name, shown; /* as the variables make it, and the path that comes of it */
    const char *what;       /* "certificate" */
    const struct logger *log;
    const struct keyproc_key *kept; /* the key process opens it; NULL: we do */
    char path[PATH_MAX];
};

static int refuse(const struct load *l, const char *why)
{
    /* Whatever is in it, it fits into the line, and it ends where it seems to. */
    log_error(l->log, 0, "cannot load %s \"%.*s\": %s in %s:%u", l->what,
              (int) MIN(l->name.len, (size_t) 256), l->name.ptr, why, l->file->pos.file,
              l->file->pos.line);
    return -1;
}

/* The path to be opened, or the data. 0, or -1: logged. */
static int complete(struct load *l, struct str *out)
{
    const struct ssl_name *name = l->file->name;
    bool relative = l->name.len > 0 && l->name.ptr[0] != '/';
    int n;

    *out = l->name;
    if (name == NULL || str_starts(l->name, STR("data:")))
        return 0;
    if (l->name.len == 0)
        return refuse(l, "the variables leave it empty");
    if (str_chr(l->name, '\0') >= 0)
        return refuse(l, "the variables put a zero byte into it");
    if (count_ups(l->name) > name->ups)
        return refuse(l, "the variables lead upwards by \"..\"");
    n = snprintf(l->path, sizeof(l->path), "%.*s%.*s", relative ? (int) name->folder.len : 0,
                 name->folder.ptr, STR_ARG(l->name));
    if (n < 0 || (size_t) n >= sizeof(l->path))
        return refuse(l, "the name is too long");
    *out = str_from(l->path, (size_t) n);
    return 0;
}

/* anew: whatever is kept of it. 0, or -1: logged. */
static int load(const struct ssl_spec *spec, struct load *l, bool anew, struct ssl_object *out)
{
    static const struct ssl_passwords none; /* nobody is asked on a terminal */
    bool key = strcmp(l->what, "certificate") != 0;
    const char *error = NULL;
    struct ssl_cache *cache;
    struct str path;

    if (complete(l, &path) != 0)
        return -1;
    l->shown = path;
    cache = ssl_is_file(path) ? spec->cache : NULL;
    if (ssl_cache_get(cache, path, key, anew, spec->passwords != NULL ? spec->passwords : &none,
                      out, &error) == 0)
        return 0;
    if (str_starts(path, STR("data:")))
        path = l->file->path;
    log_error(l->log, 0, "cannot load %s \"%.*s\": %s%s", l->what, STR_ARG(path), error,
              ssl_errors());
    return -1;
}

static int complain(const struct load *l, const char *function)
{
    bool data = str_starts(l->name, STR("data:"));

    log_error(l->log, 0, "%s(\"%.*s\") failed%s", function,
              STR_ARG(data ? l->file->path : l->shown), ssl_errors());
    return -1;
}

/* The key process's key of a certificate. 0, or -1: logged; -2: not, for that may change when both are read anew. */
static int find(struct load *l, X509 *leaf, bool may_change, struct ssl_object *out)
{
    EVP_PKEY *public_half = X509_get0_pubkey(leaf);
    struct str path;

    if (complete(l, &path) != 0)
        return -1;
    l->shown = path;
    if (!ssl_is_file(path))
        return refuse(l, "\"ssl_key_process\" can keep keys in files only");
    if (public_half != NULL && keyproc_find(public_half, l->kept->number, path))
        out->key = keyproc_handle_named(public_half, l->kept->number, path);
    if (out->key != NULL)
        return 0;
    if (may_change)
        return -2;
    return refuse(l, "the key process cannot open it, or it is not the certificate's key");
}

static int load_both(const struct ssl_spec *spec, struct load *certificate, struct load *key,
                     bool anew, struct ssl_object *c, struct ssl_object *k)
{
    int rc;

    if (load(spec, certificate, anew, c) != 0)
        return -1;
    rc = key->kept != NULL ? find(key, c->leaf, spec->cache != NULL && !anew, k)
                           : load(spec, key, anew, k);
    if (rc != 0)
        ssl_object_free(c);
    return rc;
}

/* Takes c's chain. 0, or -1: logged. */
static int use(SSL *ssl, const struct load *certificate, const struct load *key,
               struct ssl_object *c, const struct ssl_object *k)
{
    if (SSL_use_certificate(ssl, c->leaf) == 0)
        return complain(certificate, "SSL_use_certificate");
    if (SSL_set0_chain(ssl, c->chain) == 0)
        return complain(certificate, "SSL_set0_chain");
    c->chain = NULL;
    return SSL_use_PrivateKey(ssl, k->key) != 0 ? 0 : complain(key, "SSL_use_PrivateKey");
}

int ssl_pair_use(SSL *ssl, const struct ssl_spec *spec, unsigned i,
                 const struct ssl_pair_names *names, const struct logger *log)
{
    struct load certificate = { .file = &spec->certificates.items[i],
                                .name = names->certificate,
                                .what = "certificate",
                                .log = log };
    struct load key = {
        .file = &spec->keys.items[i], .name = names->key, .what = "certificate key", .log = log
    };

    struct ssl_object c = { .leaf = NULL }, k = { .leaf = NULL };
    int rc;

    key.kept = spec->kept != NULL ? spec->kept[i] : NULL;
    ERR_clear_error();
    log_debug(log, "SSL certificate: \"%.*s\"",
              STR_ARG(str_starts(names->certificate, STR("data:")) ? certificate.file->path
                                                                   : names->certificate));
    rc = load_both(spec, &certificate, &key, false, &c, &k);
    if (rc == -1)
        return -1;
    /* Of a pair that has been replaced the cache may have looked at one file only. */
    if (spec->cache != NULL && (rc != 0 || X509_check_private_key(c.leaf, k.key) != 1)) {
        ERR_clear_error();
        ssl_object_free(&c);
        ssl_object_free(&k);
        if (load_both(spec, &certificate, &key, true, &c, &k) != 0)
            return -1;
    }
    rc = use(ssl, &certificate, &key, &c, &k);
    ssl_object_free(&c);
    ssl_object_free(&k);
    return rc;
}
