/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients' certificates are checked by OCSP (ssl_ocsp) between the handshake and the first request, which waits meanwhile: one
 * certificate after the other from the client's up to, but without, the trusted one. Whatever goes wrong counts
 * against the client; the request is then refused as with any other fault of the certificate (verify.c).
 *
 * A resumed session is checked like a new one: what a responder says now counts, not what it said then.
 */
#include "modules/ssl/ocsp_check.h"

#include <openssl/err.h>
#include <stdlib.h>

/* One client's, while something is not known yet. */
struct check {
    struct client_tie tie;
    struct client *client;
    const struct ocsp_spec *spec;
    STACK_OF(X509) * chain;
    STACK_OF(X509) *
        signers;         /* the chain without the client's own, which is not to speak for itself */
    int at, count;       /* which one of the chain; how many are asked about */
    struct arena *arena; /* of the responder */
    struct ocsp_responder responder;
    struct ocsp_subject subject;
    struct ocsp_key key;
    struct ocsp_fetch *fetch;
    bool waits;
};

#define REVOKED "certificate revoked"
#define UNKNOWN "certificate status unknown"
#define NO_ANSWER "certificate status request failed"

static int failure_index = -1, spec_index = -1;

/* The outcome ---------------------------------------------------------------------------------- */

static void subject_over(struct check *k)
{
    ocsp_subject_free(&k->subject);
    arena_destroy(k->arena);
    k->arena = NULL;
}

static void check_free(struct check *k)
{
    ocsp_fetch_cancel(k->fetch);
    if (k->arena != NULL)
        subject_over(k);
    sk_X509_pop_free(k->chain, X509_free);
    sk_X509_free(k->signers);
    free(k);
}

/* The client is closed. */
static void gone(struct client_tie *tie)
{
    check_free(container_of(tie, struct check, tie));
}

/* "": all is good. */
static void finish(struct check *k, const char *failure)
{
    struct client *c = k->client;
    SSL *ssl = conn_tls_ssl(c->conn);
    bool waits = k->waits;

    /* Without a note the check counts as not made, and the client is refused. */
    if (!SSL_set_ex_data(ssl, failure_index, (void *) (uintptr_t) failure) ||
        !SSL_set_ex_data(ssl, spec_index, (void *) (uintptr_t) k->spec))
        ERR_clear_error();
    if (waits)
        list_remove(&k->tie.link);
    check_free(k);
    if (waits)
        client_admitted(c);
}

static bool same_question(const struct ocsp_spec *a, const struct ocsp_spec *b)
{
    return a != NULL && (a == b || (a->mode == b->mode && str_eq(a->url.text, b->url.text)));
}

const char *ocsp_check_failure(const SSL *ssl, const struct ocsp_spec *spec, bool *asked)
{
    const char *failure = failure_index >= 0 ? SSL_get_ex_data(ssl, failure_index) : NULL;

    *asked = failure != NULL && same_question(SSL_get_ex_data(ssl, spec_index), spec);
    return failure != NULL && failure[0] != '\0' ? failure : NULL;
}

/* Asking ----------------------------------------------------------------------------------------- */

static const char *words_of(int status)
{
    switch (status) {
    case V_OCSP_CERTSTATUS_GOOD: return NULL;
    case V_OCSP_CERTSTATUS_REVOKED: return REVOKED;
    default: return UNKNOWN;
    }
}

static bool set_key(struct check *k, X509 *cert, X509 *issuer)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char digests[2][EVP_MAX_MD_SIZE];
    struct str url = k->responder.url;
    unsigned n;
    bool ok = md != NULL && X509_digest(cert, EVP_sha256(), digests[0], &n) &&
              X509_digest(issuer, EVP_sha256(), digests[1], &n) &&
              EVP_DigestInit_ex(md, EVP_sha256(), NULL) && EVP_DigestUpdate(md, digests[0], n) &&
              EVP_DigestUpdate(md, digests[1], n) && EVP_DigestUpdate(md, url.ptr, url.len) &&
              EVP_DigestFinal_ex(md, k->key.digest, NULL);

    EVP_MD_CTX_free(md);
    return ok;
}

static bool find_responder(struct check *k, X509 *cert)
{
    const struct logger *log = &k->client->conn->log;
    const char *error = NULL;
    struct str url;

    if (k->spec->responder != NULL) {
        k->responder = *k->spec->responder;
        return true;
    }
    url = ocsp_responder_of(k->arena, cert);
    if (url.len == 0) {
        log_error(log, 0, "no OCSP responder URL in the client's certificate");
        return false;
    }
    if (ocsp_responder_parse(k->arena, url, false, &k->responder, &error) == 0)
        return true;
    log_error(log, 0, "%s in OCSP responder \"%.*s\" in the client's certificate", error,
              STR_ARG(url));
    return false;
}

static bool go_on(struct check *k);

static void answered(void *data, struct str der, const struct logger *log)
{
    struct check *k = data;
    SSL *ssl = conn_tls_ssl(k->client->conn);
    struct ocsp_trust trust = { .certs = k->signers,
                                .store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)) };
    struct ocsp_verdict verdict;
    const char *failure = NO_ANSWER;

    k->fetch = NULL;
    if (der.ptr != NULL && ocsp_judge(&k->subject, &trust, der, log, &verdict) == 0) {
        ocsp_cache_put(k->spec->cache, &k->key, &verdict, log);
        failure = words_of(verdict.status);
    }
    if (failure != NULL) {
        finish(k, failure);
        return;
    }
    subject_over(k);
    k->at++;
    go_on(k);
}

static void ask(struct check *k)
{
    const struct logger *log = &k->client->conn->log;
    struct ocsp_question question = { .responder = &k->responder,
                                      .core = k->client->server->core_loc,
                                      .subject = &k->subject,
                                      .done = answered,
                                      .data = k };

    if (!k->waits) {
        k->waits = true;
        k->tie.gone = gone;
        list_push_back(&client_extra(k->client)->ties, &k->tie.link);
    }
    k->fetch = ocsp_fetch_start(&question, log->scope, k->client->conn->log.conn);
}

/* From one certificate to the next, as long as all is known to be good. False: somebody is asked; else it is over. */
static bool go_on(struct check *k)
{
    while (k->at < k->count) {
        X509 *cert = sk_X509_value(k->chain, k->at), *issuer = sk_X509_value(k->chain, k->at + 1);
        const char *failure;
        int status;

        k->arena = arena_new();
        if (!find_responder(k, cert) || ocsp_subject_init(&k->subject, cert, issuer) != 0 ||
            !set_key(k, cert, issuer)) {
            ERR_clear_error();
            finish(k, NO_ANSWER);
            return true;
        }
        if (!ocsp_cache_get(k->spec->cache, &k->key, &status)) {
            ask(k);
            return false;
        }
        failure = words_of(status);
        if (failure != NULL) {
            finish(k, failure);
            return true;
        }
        subject_over(k);
        k->at++;
    }
    finish(k, "");
    return true;
}

/* The chain -------------------------------------------------------------------------------------- */

STACK_OF(X509) * ocsp_chain(SSL *ssl, X509 *cert, STACK_OF(X509) * others)
{
    SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    STACK_OF(X509) *chain = NULL;

    if (store != NULL && X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), cert, others) &&
        X509_STORE_CTX_set_default(store, "ssl_client")) {
        X509_STORE_CTX_set_depth(store, SSL_CTX_get_verify_depth(ctx));
        if (X509_verify_cert(store) == 1)
            chain = X509_STORE_CTX_get1_chain(store);
    }
    X509_STORE_CTX_free(store);
    ERR_clear_error();
    return chain;
}

static STACK_OF(X509) * chain_of(SSL *ssl, X509 *cert)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);

    /* A session that is resumed has none. */
    return chain != NULL ? X509_chain_up_ref(chain)
                         : ocsp_chain(ssl, cert, SSL_get_peer_cert_chain(ssl));
}

bool ocsp_check_client(struct client *c, const struct ocsp_spec *spec)
{
    SSL *ssl = conn_tls_ssl(c->conn);
    X509 *cert = SSL_get0_peer_certificate(ssl);
    struct check *k;
    int n;

    if (cert == NULL || SSL_get_verify_result(ssl) != X509_V_OK)
        return true;
    k = mem_zalloc(sizeof(*k));
    k->client = c;
    k->spec = spec;
    k->chain = chain_of(ssl, cert);
    k->signers = k->chain != NULL ? sk_X509_dup(k->chain) : NULL;
    if (k->signers == NULL) {
        log_error(&c->conn->log, 0,
                  "the chain of the client's certificate cannot be verified again");
        finish(k, NO_ANSWER);
        return true;
    }
    sk_X509_shift(k->signers);
    n = sk_X509_num(k->chain);
    k->count = MIN(n - 1, spec->mode == OCSP_CHECK_LEAF ? 1 : n - 1);
    return go_on(k);
}

/* The configuration ------------------------------------------------------------------------------ */

const struct conf_enum ocsp_mode_names[] = {
    { "off", OCSP_CHECK_OFF },
    { "on", OCSP_CHECK_ON },
    { "leaf", OCSP_CHECK_LEAF },
    { NULL, 0 },
};

static const struct ocsp_responder *parse_responder(struct conf *cf, const struct ssl_text *url,
                                                    bool lookup)
{
    struct ocsp_responder *responder = ARENA_NEW(cf->arena, struct ocsp_responder);
    struct str text = url->text;
    const char *error = NULL;

    if (ocsp_responder_parse(cf->arena, text, lookup, responder, &error) == 0)
        return responder;
    if (str_casestarts(text, STR("http://")))
        text = str_skip(text, sizeof("http://") - 1); /* as nginx quotes it */
    conf_error_at(cf, url->pos, "%s in OCSP responder \"%.*s\" in \"ssl_ocsp_responder\"", error,
                  STR_ARG(text));
    return NULL;
}

int ocsp_check_prepare(struct conf *cf, struct ssl_spec *ssl, struct ocsp_spec *spec,
                       const struct core_loc *core)
{
    if (spec->mode == OCSP_CHECK_OFF)
        return 0;
    if (ssl->verify == SSL_VERIFY_NO_CA) {
        conf_error_at(cf, ssl->pos,
                      "\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"");
        return -1;
    }
    ssl->keep_chain = true;
    if (failure_index < 0)
        failure_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (spec_index < 0)
        spec_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (failure_index < 0 || spec_index < 0) {
        ssl_conf_error(cf, ssl->pos, "SSL_get_ex_new_index() failed");
        return -1;
    }
    if (spec->url.text.len == 0)
        return 0;
    spec->responder =
        parse_responder(cf, &spec->url, !cf->config->offline && core->resolver == NULL);
    return spec->responder != NULL ? 0 : -1;
}
