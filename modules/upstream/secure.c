/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS with servers: contexts of locations, which those with the same settings share; the handshake on a new connection; whether
 * the server is who it should be; and sessions, so that the next handshake is short. A session, as a kept connection, is used
 * again only for the same settings, server and name. Called by the exchange, the pool and health checks.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "modules/upstream/internal.h"

#define SESSIONS 64 /* kept of each client; one that falls on another's place takes it */

struct session_slot {
    SSL_SESSION *session;
    struct addr addr;
    char *name;
    bool sni;
    unsigned char pair[32];
};

/* The settings of a location, or of several. In a worker: the sessions had with them. */
struct tls_client {
    struct tls_client *next;
    struct ssl_spec spec;
    bool session_reuse, verify;
    SSL_CTX *ctx;
    struct session_slot slots[SESSIONS];
};

static const struct conn_tls_options options = { .buffer_size = 16384 };
static int secure_index = -1;

/* Configuration ------------------------------------------------------------------------------- */

static void slot_clear(struct session_slot *s)
{
    SSL_SESSION_free(s->session);
    free(s->name);
    *s = (struct session_slot){ .session = NULL };
}

static void client_free(void *arg)
{
    struct tls_client *c = arg;

    for (unsigned i = 0; i < SESSIONS; i++)
        slot_clear(&c->slots[i]);
}

static int keep_session(SSL *ssl, SSL_SESSION *session);

static struct tls_client *client_new(struct conf *cf, const struct ssl_spec *spec)
{
    struct tls_client *c = ARENA_NEW(cf->arena, struct tls_client);

    memcpy(&c->spec, spec, sizeof(*spec));
    c->ctx = ssl_context_new(cf, &c->spec, false);
    if (c->ctx == NULL)
        return NULL;
    if (secure_index < 0)
        secure_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    arena_defer(cf->arena, client_free, c);
    return c;
}

/* What cannot be told from the values alone. 0, or -1: reported. */
static int check(struct conf *cf, struct level *level, const struct upstream_tls *tls,
                 const char *prefix, const struct ssl_spec *spec)
{
    if (tls->verify && spec->trusted.path.len == 0) {
        conf_error_at(cf, level->pos, "no %s_ssl_trusted_certificate for %s_ssl_verify", prefix,
                      prefix);
        return -1;
    }
    if (spec->certificates.count > 0 && spec->keys.count == 0) {
        conf_error_at(cf, spec->certificates.items[0].pos,
                      "no \"%s_ssl_certificate_key\" is defined for certificate \"%.*s\"", prefix,
                      STR_ARG(spec->certificates.items[0].path));
        return -1;
    }
    return 0;
}

int upstream_tls_finish(struct conf *cf, struct level *level, struct upstream_tls *tls,
                        const char *prefix)
{
    struct upstream_main *m = upstream_main_of(cf);
    struct tls_client *c;
    struct ssl_spec spec;

    memcpy(&spec, &tls->spec, sizeof(spec)); /* with what lies between members: it is compared */
    spec.verify = tls->verify ? SSL_VERIFY_ON : SSL_VERIFY_OFF;
    if (spec.certificates.count > 0 && spec.certificates.items[0].path.len == 0)
        spec.certificates.count = 0;
    if (!tls->verify) {
        /* As nginx: neither is looked at. */
        spec.trusted.path = spec.crl.path = STR("");
    }
    if (check(cf, level, tls, prefix, &spec) != 0)
        return -1;
    for (c = m->tls_clients; c != NULL; c = c->next) {
        if (c->session_reuse == tls->session_reuse && memcmp(&c->spec, &spec, sizeof(spec)) == 0)
            break;
    }
    tls->client = c;
    if (c != NULL)
        return 0;
    spec.pos = level->pos;
    c = client_new(cf, &spec);
    if (c == NULL)
        return -1;
    c->spec.pos = tls->spec.pos;
    c->verify = tls->verify;
    c->session_reuse = tls->session_reuse;
    if (c->session_reuse) {
        SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT
                                                   | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(c->ctx, keep_session);
    }
    c->next = m->tls_clients;
    m->tls_clients = c;
    tls->client = c;
    return 0;
}

/* Sessions ------------------------------------------------------------------------------------ */

static struct session_slot *slot_of(const struct secure *c)
{
    uint64_t h = shared_mix(SHARED_MIX_START, str_cstr(c->name));

    h = shared_mix(h, str_from((const char *) &c->addr->sa, c->addr->len));
    h = shared_mix(h, str_from((const char *) c->pair, sizeof(c->pair)));
    return &c->client->slots[(h ^ h >> 32) % SESSIONS];
}

static bool slot_is(const struct session_slot *s, const struct secure *c)
{
    return s->session != NULL && s->sni == c->sni && s->addr.len == c->addr->len
           && memcmp(&s->addr.sa, &c->addr->sa, s->addr.len) == 0
           && memcmp(s->pair, c->pair, sizeof(s->pair)) == 0 && strcmp(s->name, c->name) == 0;
}

/* Takes the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    const struct secure *c = SSL_get_ex_data(ssl, secure_index);
    struct session_slot *s;

    if (c == NULL || c->client == NULL)
        return 0;
    s = slot_of(c);
    slot_clear(s);
    s->session = session;
    s->addr = *c->addr;
    s->name = mem_alloc(strlen(c->name) + 1);
    memcpy(s->name, c->name, strlen(c->name) + 1);
    s->sni = c->sni;
    memcpy(s->pair, c->pair, sizeof(s->pair));
    return 1;
}

/* It may be the session's fault. */
static void drop_session(const struct secure *c)
{
    if (slot_is(slot_of(c), c))
        slot_clear(slot_of(c));
}

/* Connections --------------------------------------------------------------------------------- */

/* The certificate to be shown goes by variables. */
static bool has_pair(const struct tls_client *c)
{
    return c->spec.certificates.count > 0 && ssl_pair_is_dynamic(&c->spec, 0);
}

bool secure_has_pair(const struct upstream_tls *tls)
{
    return has_pair(tls->client);
}

struct str secure_host(struct str name)
{
    ssize_t end = name.len > 0 && name.ptr[0] == '[' ? str_chr(name, ']') : -1;

    if (end >= 0)
        return str_from(name.ptr + 1, (size_t) end - 1);
    end = str_chr(name, ':');
    if (end >= 0)
        name.len = (size_t) end;
    /* What names the root of the domain names with a dot means the same as without. */
    if (name.len > 1 && name.ptr[name.len - 1] == '.')
        name.len--;
    return str_chr(name, '\0') >= 0 ? STR("") : name; /* no certificate is for that */
}

int secure_name(struct exchange *x)
{
    const struct upstream_tls *tls = x->tls;
    struct str name = STR("");

    if (tls->name != NULL && (tls->server_name || tls->verify))
        name = secure_host(expr_eval(&x->req->eval, tls->name));
    x->tls_name = name;
    x->tls_pair = (struct ssl_pair_names){ .certificate = STR_NULL };
    if (has_pair(tls->client))
        x->tls_pair = ssl_pair_eval(&x->req->eval, &tls->client->spec, 0);
    if (likely(!tls->server_name || name.len <= TLSEXT_MAXLEN_host_name))
        return 0;
    /* The client's fault, maybe, but none of the server's. */
    log_error(&x->req->log, 0, "SSL_set_tlsext_host_name(\"%.*s\") failed", STR_ARG(name));
    return -1;
}

/* Whose certificate is shown, where that is told by variables; zeroes where it is not. */
static void digest_pair(const struct tls_client *c, const struct ssl_pair_names *names,
                        unsigned char out[32])
{
    EVP_MD_CTX *md;

    memset(out, 0, 32);
    if (likely(!has_pair(c)))
        return;
    md = EVP_MD_CTX_new();
    if (md == NULL || !EVP_DigestInit_ex(md, EVP_sha256(), NULL)
        || !EVP_DigestUpdate(md, &names->certificate.len, sizeof(names->certificate.len))
        || !EVP_DigestUpdate(md, names->certificate.ptr, names->certificate.len)
        || !EVP_DigestUpdate(md, names->key.ptr, names->key.len)
        || !EVP_DigestFinal_ex(md, out, NULL))
        RAND_bytes(out, 32); /* nobody else's */
    EVP_MD_CTX_free(md);
}

bool secure_fits(const struct upconn *u, const struct exchange *x)
{
    unsigned char pair[32];

    if (u->tls.client == NULL || x->tls == NULL)
        return false;
    if (u->tls.client != x->tls->client || u->tls.sni != x->tls->server_name
        || !str_eq(str_cstr(u->tls.name), x->tls_name))
        return false;
    if (likely(!has_pair(u->tls.client)))
        return true;
    digest_pair(u->tls.client, &x->tls_pair, pair);
    return memcmp(pair, u->tls.pair, sizeof(pair)) == 0;
}

static bool is_address(const char *name)
{
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);

    ASN1_OCTET_STRING_free(ip);
    ERR_clear_error();
    return ip != NULL;
}

/* It fits into any socket that has just connected. */
int secure_announce(struct conn *conn, struct chain *header, const struct logger *log,
                    enum log_level level)
{
    ssize_t n = chain_empty(header) ? 0 : conn_send(conn, header, 0, false);

    if (n < 0 || !chain_empty(header)) {
        LOG(log, level, n < 0 ? errno : 0, "could not send PROXY protocol header");
        chain_clear(header);
        return -1;
    }
    return 0;
}

/* 0, or -1: logged. */
static int prepare(struct secure *c, SSL *ssl, const struct secure_want *want,
                   const struct logger *log)
{
    const struct session_slot *s = slot_of(c);

    SSL_set_ex_data(ssl, secure_index, c);
    /* An empty name: none is shown. */
    if (unlikely(has_pair(c->client)) && want->pair.certificate.len > 0
        && ssl_pair_use(ssl, &c->client->spec, 0, &want->pair, log) != 0)
        return -1;
    if (c->sni && c->name[0] != '\0' && c->name[0] != '[' && !is_address(c->name)
        && SSL_set_tlsext_host_name(ssl, c->name) == 0) {
        LOG(log, want->level, 0, "SSL_set_tlsext_host_name(\"%s\") failed%s", c->name,
                  ssl_errors());
        return -1;
    }
    if (want->alpn != NULL
        && SSL_set_alpn_protos(ssl, (const unsigned char *) want->alpn,
                               (unsigned) strlen(want->alpn)) != 0) {
        LOG(log, want->level, 0, "SSL_set_alpn_protos() failed%s", ssl_errors());
        return -1;
    }
    if (c->client->session_reuse && slot_is(s, c) && SSL_set_session(ssl, s->session) == 0)
        ERR_clear_error(); /* then without it */
    return 0;
}

int secure_begin(struct secure *s, struct conn **conn, const struct secure_want *want,
                 const struct logger *log)
{
    struct conn *raw = *conn, *conn_tls;
    void *owner = raw->owner;

    if (!raw->unix_peer)
        socket_nodelay(raw->watch.fd, true);
    timer_stop(&raw->timer);
    conn_tls = conn_tls_connect(raw, want->tls->client->ctx, &options);
    if (conn_tls == NULL) {
        LOG(log, want->level, 0, "could not set up TLS");
        return -1;
    }
    conn_tls->owner = owner;
    *conn = conn_tls;
    s->client = want->tls->client;
    s->sni = want->tls->server_name;
    s->addr = want->addr;
    s->counts = want->counts;
    s->name = mem_alloc(want->name.len + 1);
    if (want->name.len > 0)
        memcpy(s->name, want->name.ptr, want->name.len);
    s->name[want->name.len] = '\0';
    digest_pair(s->client, &want->pair, s->pair);
    return prepare(s, conn_tls_ssl(conn_tls), want, log);
}

/* By its names, or by its addresses where it was asked for by one. */
static bool is_for(SSL *ssl, const char *name)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    bool ok;

    if (cert == NULL || name[0] == '\0')
        return false;
    ok = X509_check_host(cert, name, 0, 0, NULL) == 1
         || (is_address(name) && X509_check_ip_asc(cert, name, 0) == 1);
    ERR_clear_error();
    return ok;
}

static void count(const struct secure *s, enum peer_tls what)
{
    if (s->counts != NULL)
        __atomic_add_fetch(&s->counts[what], 1, __ATOMIC_RELAXED);
}

/* A handshake has come to nothing; PEER_TLS_FAILED: for a reason that is not counted by itself. */
static void count_failure(const struct secure *s, enum peer_tls why)
{
    count(s, PEER_TLS_FAILED);
    if (why != PEER_TLS_FAILED)
        count(s, why);
}

void secure_late(const struct secure *s)
{
    count_failure(s, PEER_TLS_TIMEOUT);
}

/* By what the library said. */
static enum peer_tls failure_of(int reason)
{
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: return PEER_TLS_NO_PROTOCOL;
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return PEER_TLS_REJECTED;
    default: return PEER_TLS_FAILED;
    }
}

static enum peer_tls verify_failure(long result)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return PEER_TLS_EXPIRED;
    case X509_V_ERR_CERT_REVOKED: return PEER_TLS_REVOKED;
    default: return PEER_TLS_OTHER;
    }
}

/* How the line of a failure begins if the server gave this reason for it; else empty. */
static const char *refusal(struct conn *conn)
{
    if (failure_of(conn_tls_reason(conn)) != PEER_TLS_REJECTED)
        return "";
    return SSL_get_certificate(conn_tls_ssl(conn)) != NULL
               ? "the server refused our certificate: "
               : "the server wants a certificate, and none was shown: ";
}

/* The handshake went well, and the server is who it should be. */
static int well(const struct secure *s, SSL *ssl)
{
    count(s, PEER_TLS_HANDSHAKES);
    if (SSL_session_reused(ssl))
        count(s, PEER_TLS_REUSES);
    return 0;
}

int secure_end(struct secure *s, struct conn *conn, const struct logger *log, enum log_level level)
{
    SSL *ssl = conn_tls_ssl(conn);
    long result;
    int error;

    if (!conn_tls_established(conn)) {
        const char *why = conn_tls_failure(conn, &error);

        LOG(log, level, error, "%s%s", refusal(conn), why);
        count_failure(s, failure_of(conn_tls_reason(conn)));
        drop_session(s);
        return -1;
    }
    if (!s->client->verify)
        return well(s, ssl);
    result = SSL_get_verify_result(ssl);
    if (result != X509_V_OK) {
        LOG(log, level, 0, "upstream SSL certificate verify error: (%ld:%s)", result,
                  X509_verify_cert_error_string(result));
        count_failure(s, verify_failure(result));
    } else if (!is_for(ssl, s->name)) {
        LOG(log, level, 0, "upstream SSL certificate does not match \"%s\"", s->name);
        count_failure(s, PEER_TLS_HOSTNAME);
    } else {
        return well(s, ssl);
    }
    drop_session(s);
    return -1;
}

void secure_log_failure(struct secure *s, struct conn *conn, const struct logger *log,
                        enum log_level level, int error, const char *call)
{
    const char *refused;

    if (likely(s->client == NULL) || error != EPROTO) {
        LOG(log, level, error, "%s", call);
        return;
    }
    call = conn_tls_failure(conn, &error);
    refused = refusal(conn);
    LOG(log, level, error, "%s%s", refused, call);
    if (refused[0] == '\0' || s->refused)
        return;
    s->refused = true;
    count_failure(s, PEER_TLS_REJECTED);
    drop_session(s);
}

void secure_forget(struct secure *s)
{
    free(s->name);
    *s = (struct secure){ .client = NULL };
}
