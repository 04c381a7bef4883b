/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS with servers: contexts of locations, which those with the same settings share; the handshake on a new connection; whether
 * the server is who it should be; and sessions, so that the next handshake is short. A session, as a kept connection, is used
 * again only for the same settings, server and name. Called by the exchange and the pool.
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
static int upconn_index = -1;

/* Configuration ------------------------------------------------------------------------------- */

const char *upstream_set_tls_log(struct conf *cf, void *field)
{
    *(bool *) field = false;
    return conf_error(cf, "\"%.*s\" is not supported yet", STR_ARG(cf->args[0]));
}

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
    c->ctx = ssl_context_new(cf, spec, false);
    if (c->ctx == NULL)
        return NULL;
    if (upconn_index < 0)
        upconn_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
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

static struct session_slot *slot_of(const struct upconn *u)
{
    uint64_t h = shared_mix(SHARED_MIX_START, str_cstr(u->tls_name));

    h = shared_mix(h, str_from((const char *) &u->peer->addr.sa, u->peer->addr.len));
    h = shared_mix(h, str_from((const char *) u->tls_pair, sizeof(u->tls_pair)));
    return &u->tls->slots[(h ^ h >> 32) % SESSIONS];
}

static bool slot_is(const struct session_slot *s, const struct upconn *u)
{
    return s->session != NULL && s->sni == u->tls_sni && s->addr.len == u->peer->addr.len
           && memcmp(&s->addr.sa, &u->peer->addr.sa, s->addr.len) == 0
           && memcmp(s->pair, u->tls_pair, sizeof(s->pair)) == 0
           && strcmp(s->name, u->tls_name) == 0;
}

/* Takes the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    const struct upconn *u = SSL_get_ex_data(ssl, upconn_index);
    struct session_slot *s;

    if (u == NULL || u->tls == NULL)
        return 0;
    s = slot_of(u);
    slot_clear(s);
    s->session = session;
    s->addr = u->peer->addr;
    s->name = mem_alloc(strlen(u->tls_name) + 1);
    memcpy(s->name, u->tls_name, strlen(u->tls_name) + 1);
    s->sni = u->tls_sni;
    memcpy(s->pair, u->tls_pair, sizeof(s->pair));
    return 1;
}

/* Connections --------------------------------------------------------------------------------- */

/* The certificate to be shown goes by variables. */
static bool has_pair(const struct tls_client *c)
{
    return c->spec.certificates.count > 0 && ssl_pair_is_dynamic(&c->spec, 0);
}

void secure_name(struct exchange *x)
{
    const struct upstream_tls *tls = x->tls;
    struct str name = STR("");
    ssize_t end;

    if (tls->name != NULL && (tls->server_name || tls->verify))
        name = expr_eval(&x->req->eval, tls->name);
    if (name.len > 0 && name.ptr[0] == '[') {
        end = str_chr(name, ']');
        name = end < 0 ? name : str_from(name.ptr + 1, (size_t) end - 1);
    } else {
        end = str_chr(name, ':');
        name = end < 0 ? name : str_from(name.ptr, (size_t) end);
    }
    if (str_chr(name, '\0') >= 0)
        name = STR(""); /* no certificate is for that */
    x->tls_name = name;
    x->tls_pair = (struct ssl_pair_names){ .certificate = STR_NULL };
    if (has_pair(tls->client))
        x->tls_pair = ssl_pair_eval(&x->req->eval, &tls->client->spec, 0);
}

/* Whose certificate is shown, where that is told by variables; zeroes where it is not. */
static void digest_pair(const struct exchange *x, unsigned char out[32])
{
    const struct ssl_pair_names *names = &x->tls_pair;
    EVP_MD_CTX *md;

    memset(out, 0, 32);
    if (likely(!has_pair(x->tls->client)))
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

    if (u->tls == NULL || x->tls == NULL)
        return false;
    if (u->tls != x->tls->client || u->tls_sni != x->tls->server_name
        || !str_eq(str_cstr(u->tls_name), x->tls_name))
        return false;
    if (likely(!has_pair(u->tls)))
        return true;
    digest_pair(x, pair);
    return memcmp(pair, u->tls_pair, sizeof(pair)) == 0;
}

static bool is_address(const char *name)
{
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);

    ASN1_OCTET_STRING_free(ip);
    ERR_clear_error();
    return ip != NULL;
}

/* A PROXY header goes in front of TLS. It fits into any socket that has just connected. */
static int announce(struct exchange *x)
{
    struct chain header = CHAIN_INIT;
    ssize_t n;

    pool_announce(x->req->arena, x->conf, x->req, &header);
    n = conn_send(x->up->conn, &header, 0, false);
    if (n < 0 || !chain_empty(&header)) {
        log_error(&x->req->log, n < 0 ? errno : 0, "could not send PROXY protocol header");
        chain_clear(&header);
        return -1;
    }
    return 0;
}

/* 0, -1 or -2, as secure_begin. */
static int prepare(struct exchange *x, SSL *ssl)
{
    struct upconn *u = x->up;
    const struct session_slot *s = slot_of(u);

    SSL_set_ex_data(ssl, upconn_index, u);
    /* An empty name: none is shown. */
    if (unlikely(has_pair(u->tls)) && x->tls_pair.certificate.len > 0
        && ssl_pair_use(ssl, &u->tls->spec, 0, &x->tls_pair, &x->req->log) != 0)
        return -2;
    if (u->tls_sni && u->tls_name[0] != '\0' && !is_address(u->tls_name)
        && SSL_set_tlsext_host_name(ssl, u->tls_name) == 0) {
        log_error(&x->req->log, 0, "SSL_set_tlsext_host_name(\"%s\") failed%s", u->tls_name,
                  ssl_errors());
        return -1;
    }
    if (u->tls->session_reuse && slot_is(s, u) && SSL_set_session(ssl, s->session) == 0)
        ERR_clear_error(); /* then without it */
    return 0;
}

int secure_begin(struct exchange *x)
{
    struct upconn *u = x->up;
    struct conn *raw = u->conn, *conn;

    if (u->announced && announce(x) != 0)
        return -1;
    if (!raw->unix_peer)
        socket_nodelay(raw->watch.fd, true);
    u->nodelay = true;
    timer_stop(&raw->timer);
    conn = conn_tls_connect(raw, x->tls->client->ctx, &options);
    if (conn == NULL) {
        log_error(&x->req->log, 0, "could not set up TLS");
        return -1;
    }
    conn->owner = u;
    u->conn = conn;
    u->tls = x->tls->client;
    u->tls_sni = x->tls->server_name;
    u->tls_name = mem_alloc(x->tls_name.len + 1);
    if (x->tls_name.len > 0)
        memcpy(u->tls_name, x->tls_name.ptr, x->tls_name.len);
    u->tls_name[x->tls_name.len] = '\0';
    digest_pair(x, u->tls_pair);
    return prepare(x, conn_tls_ssl(conn));
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

int secure_end(struct exchange *x)
{
    struct upconn *u = x->up;
    SSL *ssl = conn_tls_ssl(u->conn);
    long result;
    int error;

    if (!conn_tls_established(u->conn)) {
        const char *why = conn_tls_failure(u->conn, &error);

        log_error(&x->req->log, error, "%s", why);
        if (slot_is(slot_of(u), u))
            slot_clear(slot_of(u)); /* it may be the session's fault */
        return -1;
    }
    if (!u->tls->verify)
        return 0;
    result = SSL_get_verify_result(ssl);
    if (result != X509_V_OK) {
        log_error(&x->req->log, 0, "upstream SSL certificate verify error: (%ld:%s)", result,
                  X509_verify_cert_error_string(result));
    } else if (!is_for(ssl, u->tls_name)) {
        log_error(&x->req->log, 0, "upstream SSL certificate does not match \"%s\"", u->tls_name);
    } else {
        return 0;
    }
    if (slot_is(slot_of(u), u))
        slot_clear(slot_of(u));
    return -1;
}

void secure_forget(struct upconn *u)
{
    u->tls = NULL;
    free(u->tls_name);
    u->tls_name = NULL;
}

bool secure_is_cut(const struct upconn *u)
{
    return unlikely(u->tls != NULL) && !conn_tls_ended(u->conn);
}
