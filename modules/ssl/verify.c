/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What became of the client's certificate, judged when a request has come: by then it is known which server it is for, and the
 * client can be told in a page. The handshake itself fails for no certificate.
 */
#include <openssl/x509_vfy.h>

#include "modules/ssl/http.h"
#include "modules/ssl/sessions.h"

bool http_ssl_is_untrusted(long result)
{
    switch (result) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: return true;
    default: return false;
    }
}

/* The name in the handshake is that of the request. */
static bool same_name(const SSL *ssl, struct str host)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    struct str asked = name != NULL ? str_cstr(name) : STR("");

    if (asked.len > 0 && asked.ptr[asked.len - 1] == '.')
        asked.len--;
    return str_caseeq(asked, host);
}

/* Whom the one believes, the other does. */
static bool same_trust(const struct ssl_spec *a, const struct ssl_spec *b)
{
    return a == b || (str_eq(a->client_ca.path, b->client_ca.path) &&
                      str_eq(a->trusted.path, b->trusted.path) &&
                      str_eq(a->crl.path, b->crl.path) && a->verify_depth == b->verify_depth);
}

static unsigned misdirected(const struct req *r)
{
    log_info(&r->log, 0,
             "client attempted to request the server name "
             "different from the one that was negotiated");
    return 421;
}

/* What OCSP has to say of a certificate that is good otherwise. */
static unsigned check_status(struct req *r, const struct http_ssl *conf, const SSL *ssl)
{
    bool asked;
    const char *failure = ocsp_check_failure(ssl, &conf->ocsp, &asked);

    if (failure != NULL) {
        log_info(&r->log, 0, "client SSL certificate verify error: %s", failure);
        return 495;
    }
    if (asked)
        return 0;
    /* Without a name in the handshake another server's word was asked for, or nobody's. */
    log_info(&r->log, 0, "client's certificate was not checked as this server wants it");
    return 421;
}

unsigned http_ssl_check(struct req *r)
{
    const struct http_ssl *conf = http_ssl_of(r->server);
    const SSL *ssl;
    long result;
    X509 *cert;

    if (likely(conf->spec.verify == SSL_VERIFY_OFF))
        return 0;
    ssl = conn_tls_ssl(r->client->conn);
    if (r->client->named && !same_name(ssl, r->host))
        return misdirected(r);
    result = SSL_get_verify_result(ssl);
    if (result != X509_V_OK &&
        (conf->spec.verify != SSL_VERIFY_NO_CA || !http_ssl_is_untrusted(result))) {
        log_info(&r->log, 0, "client SSL certificate verify error: (%ld:%s)", result,
                 X509_verify_cert_error_string(result));
        return 495;
    }
    cert = SSL_get0_peer_certificate(ssl);
    if (conf->spec.verify == SSL_VERIFY_ON && cert == NULL) {
        log_info(&r->log, 0, "client sent no required SSL certificate");
        return 496;
    }
    /*
     * Without a name, or for a server that has no certificate, the address's first server judged: its authorities vouch for
     * nobody at a server with others.
     */
    if (cert != NULL && !same_trust(&conf->spec, ssl_spec_of(ssl)))
        return misdirected(r);
    return conf->ocsp.mode != OCSP_CHECK_OFF && cert != NULL ? check_status(r, conf, ssl) : 0;
}

bool http_ssl_admit(struct client *c)
{
    const struct http_ssl *conf = http_ssl_of(c->server);

    if (likely(conf->ocsp.mode == OCSP_CHECK_OFF) || conf->spec.verify == SSL_VERIFY_OFF)
        return true;
    return ocsp_check_client(c, &conf->ocsp);
}
