/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ssl_stapling… directives: for each certificate of a context whom to ask about it, and by whom the answer may be
 * signed. What cannot be asked about is a warning: the certificate is good without.
 */
#include <openssl/err.h>

#include "modules/ssl/stapling.h"

#define ZONE_PER_STAPLE (8 * 1024)
#define ZONE_LEAST (1024 * 1024)

/* Context, file and place of what is being prepared. */
struct preparation {
    struct conf *cf;
    SSL_CTX *ctx;
    const struct stapling_spec *spec;
    const struct ssl_file *file;
};

static void free_subject(void *subject)
{
    ocsp_subject_free(subject);
}

static void free_certs(void *certs)
{
    sk_X509_pop_free(certs, X509_free);
}

/* Who has signed it, among the chain or the authorities; a reference of its own. */
static X509 *issuer_of(SSL_CTX *ctx, X509 *cert)
{
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    STACK_OF(X509) *chain = NULL;
    X509 *issuer = NULL;

    SSL_CTX_get0_chain_certs(ctx, &chain);
    for (int i = 0; issuer == NULL && chain != NULL && i < sk_X509_num(chain); i++) {
        if (X509_check_issued(sk_X509_value(chain, i), cert) == X509_V_OK) {
            issuer = sk_X509_value(chain, i);
            X509_up_ref(issuer);
        }
    }
    if (issuer == NULL && store != NULL &&
        X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), NULL, NULL) == 1 &&
        X509_STORE_CTX_get1_issuer(&issuer, store, cert) != 1)
        issuer = NULL;
    X509_STORE_CTX_free(store);
    ERR_clear_error();
    return issuer;
}

static int find_responder(struct preparation *p, struct staple *s)
{
    struct arena *arena = p->cf->arena;
    struct str url = p->spec->responder.text;
    const char *error = NULL;
    bool lookup = !p->cf->config->offline && s->core->resolver == NULL;

    if (url.len == 0)
        url = ocsp_responder_of(arena, s->cert);
    if (url.len == 0) {
        conf_warn_at(p->cf, p->file->pos,
                     "\"ssl_stapling\" ignored, no OCSP responder URL in the certificate \"%.*s\"",
                     STR_ARG(s->name));
        return -1;
    }
    if (ocsp_responder_parse(arena, url, lookup, &s->responder, &error) == 0)
        return 0;
    conf_warn_at(
        p->cf, p->file->pos,
        "\"ssl_stapling\" ignored, %s in OCSP responder \"%.*s\" in the certificate \"%.*s\"",
        error, STR_ARG(url), STR_ARG(s->name));
    return -1;
}

/* The chain's certificates and the issuer may sign; with ssl_stapling_verify other signers need the authorities' word. */
static bool set_trust(struct preparation *p, struct staple *s, X509 *issuer)
{
    STACK_OF(X509) *chain = NULL, *certs;

    SSL_CTX_get0_chain_certs(p->ctx, &chain);
    certs = chain != NULL ? X509_chain_up_ref(chain) : sk_X509_new_null();
    if (certs == NULL || sk_X509_push(certs, issuer) == 0) {
        free_certs(certs);
        return false;
    }
    X509_up_ref(issuer);
    arena_defer(p->cf->arena, free_certs, certs);
    s->trust = (struct ocsp_trust){ .certs = certs,
                                    .store = SSL_CTX_get_cert_store(p->ctx),
                                    .flags = p->spec->verify ? OCSP_TRUSTOTHER : OCSP_NOVERIFY };
    return true;
}

/* What is the same for all who staple it: certificate and responder. */
bool stapling_set_key(struct staple *s)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n;
    bool ok = md != NULL && X509_digest(s->cert, EVP_sha256(), digest, &n) &&
              EVP_DigestInit_ex(md, EVP_sha256(), NULL) && EVP_DigestUpdate(md, digest, n) &&
              EVP_DigestUpdate(md, s->responder.url.ptr, s->responder.url.len) &&
              EVP_DigestFinal_ex(md, s->key, NULL);

    EVP_MD_CTX_free(md);
    return ok;
}

/* A certificate to be asked about. 1: nothing can be stapled to it; -1: reported. */
static int set_question(struct preparation *p, struct staple *s)
{
    X509 *issuer = issuer_of(p->ctx, s->cert);
    bool ok;

    if (issuer == NULL) {
        conf_warn_at(
            p->cf, p->file->pos,
            "\"ssl_stapling\" ignored, issuer certificate not found for certificate \"%.*s\"",
            STR_ARG(s->name));
        return 1;
    }
    if (find_responder(p, s) != 0) {
        X509_free(issuer);
        return 1;
    }
    ok = ocsp_subject_init(&s->subject, s->cert, issuer) == 0 && set_trust(p, s, issuer) &&
         stapling_set_key(s);
    arena_defer(p->cf->arena, free_subject, &s->subject);
    X509_free(issuer);
    if (!ok)
        ssl_conf_error(p->cf, p->file->pos, "OCSP request for \"%.*s\" failed", STR_ARG(s->name));
    return ok ? 0 : -1;
}

/* When the response's time is over; 0: never, or not to be told. */
static time_t end_of(OCSP_RESPONSE *response)
{
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
    OCSP_SINGLERESP *single = basic != NULL ? OCSP_resp_get0(basic, 0) : NULL;
    ASN1_GENERALIZEDTIME *next = NULL;
    time_t end = 0;

    if (single != NULL && OCSP_single_get0_status(single, NULL, NULL, NULL, &next) >= 0)
        end = ocsp_time(next);
    OCSP_BASICRESP_free(basic);
    ERR_clear_error();
    return end;
}

static int read_fixed(struct preparation *p, struct staple *s)
{
    const struct ssl_file *file = &p->spec->file;
    BIO *bio = BIO_new_file(file->path.ptr, "rb");
    OCSP_RESPONSE *response;
    unsigned char *out;
    int len;

    if (bio == NULL) {
        ssl_conf_error(p->cf, file->pos, "BIO_new_file(\"%.*s\") failed", STR_ARG(file->path));
        return -1;
    }
    response = d2i_OCSP_RESPONSE_bio(bio, NULL);
    BIO_free(bio);
    len = response != NULL ? i2d_OCSP_RESPONSE(response, NULL) : 0;
    if (len <= 0) {
        OCSP_RESPONSE_free(response);
        ssl_conf_error(p->cf, file->pos, "d2i_OCSP_RESPONSE_bio(\"%.*s\") failed",
                       STR_ARG(file->path));
        return -1;
    }
    out = arena_alloc(p->cf->arena, (size_t) len);
    s->fixed = str_from((char *) out, (size_t) len);
    i2d_OCSP_RESPONSE(response, &out);
    s->fixed_until = end_of(response);
    OCSP_RESPONSE_free(response);
    return 0;
}

/* The context's certificate that was read from the file, which becomes the current one; NULL: it is not there. */
static X509 *find_certificate(struct preparation *p)
{
    STACK_OF(X509) *chain = NULL;
    const char *error;
    X509 *leaf = ssl_object_certificate(p->cf, p->file->path, &chain, &error), *found = NULL;

    for (int more = SSL_CTX_set_current_cert(p->ctx, SSL_CERT_SET_FIRST);
         leaf != NULL && more && found == NULL;
         more = found == NULL ? SSL_CTX_set_current_cert(p->ctx, SSL_CERT_SET_NEXT) : 0) {
        if (X509_cmp(leaf, SSL_CTX_get0_certificate(p->ctx)) == 0)
            found = SSL_CTX_get0_certificate(p->ctx);
    }
    sk_X509_pop_free(chain, X509_free);
    X509_free(leaf);
    ERR_clear_error();
    return found;
}

struct staples *stapling_prepare(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *ssl,
                                 const struct core_loc *core, const struct stapling_spec *spec)
{
    struct staples *staples = ARENA_NEW(cf->arena, struct staples);
    struct preparation p = { .cf = cf, .ctx = ctx, .spec = spec };

    staples->items = ARENA_ARRAY(cf->arena, struct staple, ssl->certificates.count);
    for (unsigned i = 0; i < ssl->certificates.count; i++) {
        struct staple *s = &staples->items[staples->count];
        int rc;

        p.file = &ssl->certificates.items[i];
        *s = (struct staple){ .name = p.file->path, .core = core, .cert = find_certificate(&p) };
        if (s->cert == NULL)
            continue;
        rc = spec->file.path.len > 0 ? read_fixed(&p, s) : set_question(&p, s);
        if (rc < 0)
            return NULL;
        staples->count += rc == 0 ? 1 : 0;
    }
    SSL_CTX_set_tlsext_status_cb(ctx, stapling_show);
    SSL_CTX_set_tlsext_status_arg(ctx, staples);
    return staples;
}

struct res_zone *stapling_zone(struct conf *cf, unsigned count)
{
    size_t size = ZONE_LEAST;
    struct res_zone *zone;
    const char *error = NULL;

    while (size / ZONE_PER_STAPLE < count)
        size *= 2; /* so that a few certificates more or less leave what is there as it is */
    zone = res_zone(cf, STR("ssl stapling"), size, &stapling_kind, &error);
    if (zone == NULL)
        conf_error_at(cf, cf->pos, "%s", error);
    return zone;
}
