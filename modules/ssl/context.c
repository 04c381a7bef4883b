/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An SSL_CTX from what the configuration says, for either end. Called while the file is read, by the master (or by -t), which may
 * read keys that workers may not; they inherit the result. Every error names the directive's line.
 */
#include <openssl/dh.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>

#include "modules/ssl/lazy.h"
#include "modules/ssl/provided.h"
#include "modules/ssl/seal.h"
#include "modules/ssl/sessions.h"

/* Certificates and keys ---------------------------------------------------------------------- */

static int use_certificate(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    STACK_OF(X509) *chain = NULL;
    const char *error;
    X509 *leaf = ssl_object_certificate(cf, file->path, &chain, &error);
    int rc = -1;

    if (leaf == NULL) {
        ssl_conf_error(cf, file->pos, "cannot load certificate \"%.*s\": %s", STR_ARG(file->path),
                       error);
        return -1;
    }
    if (SSL_CTX_use_certificate(ctx, leaf) == 0) {
        ssl_conf_error(cf, file->pos, "SSL_CTX_use_certificate(\"%.*s\") failed",
                       STR_ARG(file->path));
    } else if (SSL_CTX_set0_chain(ctx, chain) == 0) {
        ssl_conf_error(cf, file->pos, "SSL_CTX_set0_chain(\"%.*s\") failed", STR_ARG(file->path));
    } else {
        chain = NULL;
        rc = 0;
    }
    sk_X509_pop_free(chain, X509_free);
    X509_free(leaf);
    return rc;
}

/* NULL: reported. */
static EVP_PKEY *load_key(struct conf *cf, const struct ssl_file *file,
                          const struct ssl_passwords *passwords)
{
    EVP_PKEY *key = ssl_provided_find(cf, file, passwords);
    const char *error;

    if (key != NULL)
        return key;
    key = ssl_object_key(cf, file->path, passwords, &error);
    if (key == NULL) {
        ssl_conf_error(cf, file->pos, "cannot load certificate key \"%.*s\": %s",
                       STR_ARG(ssl_shown(file->path)), error);
        return NULL;
    }
    return ssl_store_is_foreign(key) ? ssl_provided_wrap(cf, file, passwords, key) : key;
}

/* The key of the certificate that was last used; where the key process has it, its number. NULL: reported. */
static EVP_PKEY *find_key(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec, unsigned i,
                          unsigned uses)
{
    const struct ssl_file *file = &spec->keys.items[i];
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    EVP_PKEY *key;

    if (keyproc_is_on(cf)) {
        if (ssl_watch_key(cf, spec->watch, i, leaf, uses, &key) != 0 || key != NULL)
            return key;
        return keyproc_key(cf, file, spec->passwords, leaf, uses);
    }
    return load_key(cf, file, spec->passwords);
}

static int use_key(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec, unsigned i,
                   unsigned uses)
{
    const struct ssl_file *file = &spec->keys.items[i];
    EVP_PKEY *key = find_key(cf, ctx, spec, i, uses);
    int ok;

    if (key == NULL)
        return -1;
    ok = SSL_CTX_use_PrivateKey(ctx, key);
    EVP_PKEY_free(key);
    if (ok)
        return 0;
    ssl_conf_error(cf, file->pos, "SSL_CTX_use_PrivateKey(\"%.*s\") failed",
                   STR_ARG(ssl_shown(file->path)));
    return -1;
}

/* Whether a certificate of that type has its key. */
static bool has_pair_of(SSL_CTX *ctx, int type)
{
    for (int more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST); more == 1;
         more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT)) {
        if (EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_CTX_get0_certificate(ctx))) == type)
            return true;
    }
    return false;
}

/*
 * The library keeps one certificate and one key of each type, and pairs them by it: a key of another type than its certificate's is no
 * error, since the next certificate may be the one that it belongs to. But a certificate for which none has come is of no use.
 */
static void warn_of_lone(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    for (unsigned i = 0; i < spec->certificates.count; i++) {
        const struct ssl_file *file = &spec->certificates.items[i];
        STACK_OF(X509) *chain = NULL;
        const char *error;
        X509 *leaf = !ssl_pair_is_dynamic(spec, i) && !ssl_lazy_has(spec->lazy, i)
                         ? ssl_object_certificate(cf, file->path, &chain, &error)
                         : NULL;

        if (leaf == NULL)
            continue;
        if (!has_pair_of(ctx, EVP_PKEY_get_base_id(X509_get0_pubkey(leaf))))
            conf_warn_at(cf, spec->keys.items[i].pos,
                         "certificate \"%.*s\" cannot be used: no certificate key of its type is "
                         "defined, \"%.*s\" is of another one",
                         STR_ARG(file->path), STR_ARG(ssl_shown(spec->keys.items[i].path)));
        sk_X509_pop_free(chain, X509_free);
        X509_free(leaf);
    }
    ERR_clear_error();
}

/* Keys that handshakes will ask for by name. */
static void keep_named(struct conf *cf, struct ssl_spec *spec, unsigned uses)
{
    if (!keyproc_is_on(cf) || !ssl_has_dynamic(spec))
        return;
    spec->kept = ARENA_ARRAY(cf->arena, const struct keyproc_key *, spec->certificates.count);
    for (unsigned i = 0; i < spec->certificates.count; i++) {
        if (ssl_pair_is_dynamic(spec, i))
            spec->kept[i] =
                keyproc_key_named(cf, &spec->keys.items[i], spec->passwords, spec->cache, uses);
    }
}

static int use_pairs(struct conf *cf, SSL_CTX *ctx, struct ssl_spec *spec, bool server)
{
    unsigned uses = keyproc_uses(spec, server);
    bool lone = false;

    if (keyproc_allows(cf, spec) != 0)
        return -1;
    for (unsigned i = 0; i < spec->certificates.count; i++) {
        const struct ssl_file *certificate = &spec->certificates.items[i];
        const X509 *leaf;

        if (i >= spec->keys.count) {
            conf_error_at(cf, certificate->pos,
                          "no \"ssl_certificate_key\" is defined for certificate \"%.*s\"",
                          STR_ARG(certificate->path));
            return -1;
        }
        if (ssl_pair_is_dynamic(spec, i) || ssl_lazy_has(spec->lazy, i))
            continue;
        if (use_certificate(cf, ctx, certificate) != 0)
            return -1;
        leaf = SSL_CTX_get0_certificate(ctx);
        if (use_key(cf, ctx, spec, i, uses) != 0)
            return -1;
        lone |= SSL_CTX_get0_certificate(ctx) != leaf; /* the one of the key's type, now */
        if (spec->watch != NULL)
            ssl_watch_keep(spec->watch, i, ctx);
    }
    if (unlikely(lone))
        warn_of_lone(cf, ctx, spec);
    keep_named(cf, spec, uses);
    return 0;
}

/* For -t, when all that the context trusts is known. */
static void judge_pairs(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    for (unsigned i = 0; i < spec->certificates.count; i++) {
        const struct ssl_file *file = &spec->certificates.items[i];
        STACK_OF(X509) *chain = NULL;
        const char *error;
        X509 *leaf = !ssl_pair_is_dynamic(spec, i) && ssl_object_unjudged(file->path)
                         ? ssl_object_certificate(cf, file->path, &chain, &error)
                         : NULL;

        if (leaf == NULL)
            continue;
        ssl_judge(cf, file, ctx, leaf, chain);
        sk_X509_pop_free(chain, X509_free);
        X509_free(leaf);
    }
}

/* Verification ------------------------------------------------------------------------------- */

/* The chain's faults are judged when the handshake is over: HTTP answers them with a page. */
static int tolerate(int ok UNUSED, X509_STORE_CTX *store UNUSED)
{
    return 1;
}

static int load_authorities(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    if (SSL_CTX_load_verify_locations(ctx, file->path.ptr, NULL) != 0) {
        ERR_clear_error(); /* the end of a PEM file leaves something there */
        return 0;
    }
    ssl_conf_error(cf, file->pos, "SSL_CTX_load_verify_locations(\"%.*s\") failed",
                   STR_ARG(file->path));
    return -1;
}

static int use_client_authorities(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    STACK_OF(X509_NAME) * names;

    if (load_authorities(cf, ctx, file) != 0)
        return -1;
    names = SSL_load_client_CA_file(file->path.ptr);
    if (names == NULL) {
        ssl_conf_error(cf, file->pos, "SSL_load_client_CA_file(\"%.*s\") failed",
                       STR_ARG(file->path));
        return -1;
    }
    ERR_clear_error();
    SSL_CTX_set_client_CA_list(ctx, names);
    return 0;
}

/* Where no client is asked for a certificate they may still vouch for OCSP answers; nginx does not open the file then. */
static void use_idle_authorities(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    if (SSL_CTX_load_verify_locations(ctx, file->path.ptr, NULL) == 0)
        conf_warn_at(cf, file->pos,
                     "SSL_CTX_load_verify_locations(\"%.*s\") failed%s, which is ignored because "
                     "no clients are verified",
                     STR_ARG(file->path), ssl_errors());
    ERR_clear_error();
}

static int use_authorities(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    SSL_CTX_set_verify_depth(ctx, (int) spec->verify_depth);
    if (spec->client_ca.path.len > 0 && spec->verify == SSL_VERIFY_OFF)
        use_idle_authorities(cf, ctx, &spec->client_ca);
    else if (spec->client_ca.path.len > 0 && use_client_authorities(cf, ctx, &spec->client_ca) != 0)
        return -1;
    return spec->trusted.path.len > 0 ? load_authorities(cf, ctx, &spec->trusted) : 0;
}

static int use_revocations(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());

    if (lookup == NULL || X509_LOOKUP_load_file(lookup, file->path.ptr, X509_FILETYPE_PEM) == 0) {
        ssl_conf_error(cf, file->pos, "X509_LOOKUP_load_file(\"%.*s\") failed",
                       STR_ARG(file->path));
        return -1;
    }
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return 0;
}

static int use_verification(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    if (spec->verify != SSL_VERIFY_OFF)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, tolerate);
    if (use_authorities(cf, ctx, spec) != 0)
        return -1;
    return spec->crl.path.len > 0 ? use_revocations(cf, ctx, &spec->crl) : 0;
}

/* Parameters --------------------------------------------------------------------------------- */

static const struct {
    unsigned bit;
    int version;
} versions[] = {
    { SSL_PROTO_SSL3, SSL3_VERSION },    { SSL_PROTO_TLS1, TLS1_VERSION },
    { SSL_PROTO_TLS11, TLS1_1_VERSION }, { SSL_PROTO_TLS12, TLS1_2_VERSION },
    { SSL_PROTO_TLS13, TLS1_3_VERSION },
};

static uint64_t versions_off(unsigned protocols)
{
    uint64_t off = 0;

    off |= protocols & SSL_PROTO_SSL3 ? 0 : SSL_OP_NO_SSLv3;
    off |= protocols & SSL_PROTO_TLS1 ? 0 : SSL_OP_NO_TLSv1;
    off |= protocols & SSL_PROTO_TLS11 ? 0 : SSL_OP_NO_TLSv1_1;
    off |= protocols & SSL_PROTO_TLS12 ? 0 : SSL_OP_NO_TLSv1_2;
    off |= protocols & SSL_PROTO_TLS13 ? 0 : SSL_OP_NO_TLSv1_3;
    return off;
}

#define VERSIONS_OFF \
    (SSL_OP_NO_SSLv3 | SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1 | SSL_OP_NO_TLSv1_2 | SSL_OP_NO_TLSv1_3)

/* The lowest and the highest version asked for. */
static void version_range(unsigned protocols, int *low, int *high)
{
    *low = *high = 0;
    for (unsigned i = 0; i < ARRAY_LEN(versions); i++) {
        if (!(protocols & versions[i].bit))
            continue;
        *low = *low != 0 ? *low : versions[i].version;
        *high = versions[i].version;
    }
}

static int use_dhparam(struct conf *cf, SSL_CTX *ctx, const struct ssl_file *file)
{
    BIO *bio = BIO_new_file(file->path.ptr, "r");
    EVP_PKEY *dh;

    if (bio == NULL) {
        ssl_conf_error(cf, file->pos, "BIO_new_file(\"%.*s\") failed", STR_ARG(file->path));
        return -1;
    }
    dh = PEM_read_bio_Parameters(bio, NULL);
    BIO_free(bio);
    if (dh == NULL) {
        ssl_conf_error(cf, file->pos, "PEM_read_bio_DHparams(\"%.*s\") failed",
                       STR_ARG(file->path));
        return -1;
    }
    if (SSL_CTX_set0_tmp_dh_pkey(ctx, dh) == 1)
        return 0;
    EVP_PKEY_free(dh);
    ssl_conf_error(cf, file->pos, "SSL_CTX_set0_tmp_dh_pkey(\"%.*s\") failed", STR_ARG(file->path));
    return -1;
}

static int use_parameters(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    const struct ssl_text *ciphers = &spec->ciphers, *curves = &spec->curves;

    if (ciphers->text.ptr != NULL && SSL_CTX_set_cipher_list(ctx, ciphers->text.ptr) == 0) {
        ssl_conf_error(cf, ciphers->pos, "SSL_CTX_set_cipher_list(\"%.*s\") failed",
                       STR_ARG(ciphers->text));
        return -1;
    }
    if (spec->prefer_server_ciphers)
        SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (curves->text.ptr != NULL && !str_eq(curves->text, STR("auto")) &&
        SSL_CTX_set1_curves_list(ctx, curves->text.ptr) == 0) {
        ssl_conf_error(cf, curves->pos, "SSL_CTX_set1_curves_list(\"%.*s\") failed",
                       STR_ARG(curves->text));
        return -1;
    }
    return spec->dhparam.path.len > 0 ? use_dhparam(cf, ctx, &spec->dhparam) : 0;
}

/* A file's path and what is in it. */
static int add_file(EVP_MD_CTX *md, struct str path)
{
    int ok = EVP_DigestUpdate(md, path.ptr, path.len) && EVP_DigestUpdate(md, "", 1);
    BIO *bio = path.len > 0 ? BIO_new_file(path.ptr, "r") : NULL;
    char buf[4096];

    for (int n = 1; ok && bio != NULL && n > 0;) {
        n = BIO_read(bio, buf, sizeof(buf));
        ok = n <= 0 || EVP_DigestUpdate(md, buf, (size_t) n);
    }
    BIO_free(bio);
    return ok;
}

static int session_index = -1;

/* For connections that come to this context: the library does not tell. 0 or -1. */
static int keep_session_context(struct conf *cf, SSL_CTX *ctx, const unsigned char *id)
{
    void *copy = arena_bytes(cf->arena, SSL_MAX_SID_CTX_LENGTH);

    memcpy(copy, id, SSL_MAX_SID_CTX_LENGTH);
    if (session_index < 0)
        session_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    return session_index >= 0 && SSL_CTX_set_ex_data(ctx, session_index, copy) ? 0 : -1;
}

static const unsigned char *session_context(const SSL *ssl)
{
    return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), session_index);
}

int ssl_context_name(SSL *ssl, struct str name)
{
    unsigned char id[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *md;
    unsigned len = 0;
    int ok;

    if (likely(!ssl_has_dynamic(ssl_spec_of(ssl))))
        return 0;
    md = EVP_MD_CTX_new();
    ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
         EVP_DigestUpdate(md, session_context(ssl), SSL_MAX_SID_CTX_LENGTH) &&
         EVP_DigestUpdate(md, name.ptr, name.len) && EVP_DigestFinal_ex(md, id, &len) &&
         SSL_set_session_id_context(ssl, id, MIN(len, SSL_MAX_SID_CTX_LENGTH));
    EVP_MD_CTX_free(md);
    return ok ? 0 : -1;
}

/*
 * A session is good for those contexts only that ask the same of a client and show it the same certificate: a client that has been let
 * in by one server is a stranger to the next. So is one whose certificate another list of revocations may name.
 */
static int set_session_context(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    unsigned char id[EVP_MAX_MD_SIZE], digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    STACK_OF(X509_NAME) *names = SSL_CTX_get_client_CA_list(ctx);
    unsigned len = 0, n;
    int ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    struct str files[] = { spec->client_ca.path, spec->trusted.path, spec->crl.path };

    ok = ok && EVP_DigestUpdate(md, &spec->verify, sizeof(spec->verify)) &&
         EVP_DigestUpdate(md, &spec->verify_depth, sizeof(spec->verify_depth));
    for (unsigned i = 0; ok && i < ARRAY_LEN(files); i++)
        ok = add_file(md, files[i]);
    for (int more = spec->watch == NULL && SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST);
         ok && more; more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT))
        ok = X509_digest(SSL_CTX_get0_certificate(ctx), EVP_sha256(), digest, &n) &&
             EVP_DigestUpdate(md, digest, n);
    /* What only a handshake will tell, or what may be replaced, goes by its names, as they are written. */
    for (unsigned i = 0; ok && i < spec->certificates.count; i++)
        ok = (spec->watch == NULL && !ssl_pair_is_dynamic(spec, i)) ||
             EVP_DigestUpdate(md, spec->certificates.items[i].path.ptr,
                              spec->certificates.items[i].path.len + 1);
    for (unsigned i = 0; ok && spec->lazy != NULL && i < spec->certificates.count; i++)
        ok = !ssl_lazy_has(spec->lazy, i) || EVP_DigestUpdate(md, ssl_lazy_bytes(spec->lazy, i).ptr,
                                                              ssl_lazy_bytes(spec->lazy, i).len);
    for (int i = 0; ok && names != NULL && i < sk_X509_NAME_num(names); i++)
        ok = X509_NAME_digest(sk_X509_NAME_value(names, i), EVP_sha256(), digest, &n) &&
             EVP_DigestUpdate(md, digest, n);
    ok = ok && EVP_DigestFinal_ex(md, id, &len);
    EVP_MD_CTX_free(md);
    if (!ok || !SSL_CTX_set_session_id_context(ctx, id, MIN(len, SSL_MAX_SID_CTX_LENGTH)))
        return -1;
    return keep_session_context(cf, ctx, id);
}

static void set_options(SSL_CTX *ctx, const struct ssl_spec *spec, bool server)
{
    int low, high;

    version_range(spec->protocols, &low, &high);
    SSL_CTX_set_min_proto_version(ctx, low);
    SSL_CTX_set_max_proto_version(ctx, high);
    SSL_CTX_set_options(ctx, versions_off(spec->protocols) | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                 (seal_known() ? SSL_OP_ENABLE_KTLS : 0) |
                                 (server ? SSL_OP_SINGLE_DH_USE : 0));
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (spec->session_timeout_s > 0)
        SSL_CTX_set_timeout(ctx, (long) MIN(spec->session_timeout_s, (uint64_t) INT32_MAX));
}

static void context_free(void *ctx)
{
    /* Sessions outlive this configuration. */
    SSL_CTX_sess_set_remove_cb(ctx, NULL);
    SSL_CTX_free(ctx);
}

SSL_CTX *ssl_context_new(struct conf *cf, struct ssl_spec *spec, bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    if (ctx == NULL) {
        ssl_conf_error(
            cf, spec->pos, "SSL_CTX_new() failed%s",
            OSSL_PROVIDER_available(NULL, "default")
                ? ""
                : ": the library's configuration (OPENSSL_CONF) activates providers, and "
                  "\"default\" is none of them");
        return NULL;
    }
    arena_defer(cf->arena, context_free, ctx);
    set_options(ctx, spec, server);
    if (server && ssl_use_sessions(cf, ctx, spec) != 0) {
        ssl_conf_error(cf, spec->pos, "the session cache cannot be set up");
        return NULL;
    }
    if (spec->key_log != NULL && ssl_log_keys(ctx, spec->key_log) != 0) {
        ssl_conf_error(cf, spec->pos, "keys cannot be logged");
        return NULL;
    }
    if (use_pairs(cf, ctx, spec, server) != 0 || use_parameters(cf, ctx, spec) != 0 ||
        use_verification(cf, ctx, spec) != 0 || ssl_use_commands(cf, ctx, &spec->commands, server) != 0)
        return NULL;
    if (server && set_session_context(cf, ctx, spec) != 0) {
        ssl_conf_error(cf, spec->pos, "SSL_CTX_set_session_id_context() failed");
        return NULL;
    }
    if (cf->config->testing && !cf->config->explaining)
        judge_pairs(cf, ctx, spec);
    ERR_clear_error();
    return ctx;
}

/* What the library has when nothing else is said: it can be asked for by name from 3.5 on only. */
#if OPENSSL_VERSION_NUMBER >= 0x30500000L
#define DEFAULT_GROUPS "DEFAULT"
#else
#define DEFAULT_GROUPS \
    "X25519:P-256:X448:P-521:P-384:ffdhe2048:ffdhe3072:ffdhe4096:ffdhe6144:ffdhe8192"
#endif

/* NULL: as the library has them. */
static const char *groups_of(const struct ssl_spec *spec)
{
    const char *groups = NULL;

    if (spec->curves.text.len > 0 && !str_eq(spec->curves.text, STR("auto")))
        groups = spec->curves.text.ptr;
    for (unsigned i = 0; i < spec->commands.count; i++) {
        const struct ssl_command *c = &spec->commands.items[i];

        if (str_caseeq(c->name, STR("Groups")) || str_caseeq(c->name, STR("Curves")))
            groups = c->value.ptr;
    }
    return groups;
}

int ssl_context_switch(SSL *ssl, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    const struct ssl_spec *before = ssl_spec_of(ssl);
    const char *groups = groups_of(spec);

    if (SSL_get_SSL_CTX(ssl) == ctx)
        return 0;
    if (SSL_set_SSL_CTX(ssl, ctx) == NULL)
        return -1;
    /* Whatever a hello before this one (it may have been asked for again) has led to. */
    if (!SSL_set_session_id_context(ssl, session_context(ssl), SSL_MAX_SID_CTX_LENGTH))
        return -1;
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), SSL_CTX_get_verify_callback(ctx));
    SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(ctx));
    SSL_clear_options(ssl, SSL_get_options(ssl) & ~SSL_CTX_get_options(ctx));
    SSL_set_options(ssl, SSL_CTX_get_options(ctx));
    SSL_set_min_proto_version(ssl, (int) SSL_CTX_get_min_proto_version(ctx));
    SSL_set_max_proto_version(ssl, (int) SSL_CTX_get_max_proto_version(ctx));
    SSL_set_max_early_data(ssl, SSL_CTX_get_max_early_data(ctx));
    SSL_set_num_tickets(ssl, SSL_CTX_get_num_tickets(ctx));
    if (groups == NULL && groups_of(before) != NULL)
        groups = DEFAULT_GROUPS;
    if (groups != NULL && SSL_set1_groups_list(ssl, groups) == 0)
        ERR_clear_error();
    return 0;
}
