/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS for clients of HTTP: the directives, and a context for each server that has certificates. A server that adds
 * nothing to what stands above it shares that level's context, so that ten thousand names under one certificate cost one.
 */
#include "modules/ssl/http.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/lazy.h"

/* configure: switch=http_ssl_module default=always libs=openssl */

static unsigned http_ssl_slot;

struct http_ssl *http_ssl_of(const struct server *server)
{
    return level_conf(server->level, STORE_SRV, http_ssl_slot);
}

static struct conn *accept_tls(void *context, struct conn *raw, struct tls_first first)
{
    const struct http_ssl *ssl = context;

    return conn_tls_accept(raw, ssl->ctx, &ssl->options, first);
}

/* Completion --------------------------------------------------------------------------------- */

static bool is_used(struct conf *cf, struct str variable)
{
    const struct var *v = table_get(&conf_http(cf)->vars.names, variable);

    return v != NULL && v->index >= 0;
}

/* RFC 8879, which the library has from 3.2 on: by itself it would compress, and accept what is compressed. */
static void compress_certificates(struct conf *cf UNUSED, const struct http_ssl *ssl UNUSED)
{
#ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
    SSL_CTX_set_options(ssl->ctx, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
    if (ssl->compress_certificates)
        SSL_CTX_compress_certs(ssl->ctx, 0);
    else
        SSL_CTX_set_options(ssl->ctx, SSL_OP_NO_TX_CERTIFICATE_COMPRESSION);
#else
    if (ssl->compress_certificates)
        conf_warn_at(cf, ssl->spec.pos,
                     "\"ssl_certificate_compression\" is not supported on this platform, ignored");
#endif
}

static const char *set_ech_file(struct conf *cf, void *field UNUSED)
{
    return conf_error(cf, "\"ssl_ech_file\" is not supported on this platform");
}

/* Whether the files are parsed later, by handshakes: a test (-t) looks at all, and what is stapled is about one that is known at the start. */
static bool is_lazy(const struct conf *cf, const struct http_ssl *ssl)
{
    return ssl->certificate_load == SSL_LOAD_LAZY && !cf->config->testing && !ssl->stapling.on &&
           !ssl->certificate_watch;
}

/* 0 or -1. */
static int load_later(struct conf *cf, struct http_ssl *ssl)
{
    struct ssl_spec *spec = &ssl->spec;

    if (ssl->certificate_watch) {
        conf_error_at(
            cf, spec->pos,
            "\"ssl_certificate_load lazy\" and \"ssl_certificate_watch\" cannot be combined yet");
        return -1;
    }
    if (!is_lazy(cf, ssl) || spec->certificates.count == 0)
        return 0;
    spec->lazy = ssl_lazy_new(cf, spec);
    return spec->lazy != NULL ? 0 : -1;
}

static int make_context(struct conf *cf, const struct server *server, struct http_ssl *ssl)
{
    struct ssl_spec *spec = &ssl->spec;

    spec->pos = server->pos;
    ssl->options.buffer_size = MAX(ssl->buffer_size, 1u);
    if (spec->verify != SSL_VERIFY_OFF && spec->verify != SSL_VERIFY_NO_CA &&
        spec->client_ca.path.len == 0 && spec->trusted.path.len == 0) {
        conf_error_at(cf, server->pos, "no ssl_client_certificate for ssl_verify_client");
        return -1;
    }
    if (ocsp_check_prepare(cf, spec, &ssl->ocsp, server->core_loc) != 0)
        return -1;
    if (spec->certificates.count > spec->keys.count) {
        const struct ssl_file *bare = &spec->certificates.items[spec->keys.count];

        conf_error_at(cf, bare->pos,
                      "no \"ssl_certificate_key\" is defined for certificate \"%.*s\"",
                      STR_ARG(bare->path));
        return -1;
    }
    if (cf->config->offline)
        return 0;
    if (ssl->certificate_load == SSL_LOAD_LAZY && load_later(cf, ssl) != 0)
        return -1;
    ssl->ctx = ssl_context_new(cf, spec, true);
    if (ssl->ctx == NULL)
        return -1;
    http_ssl_prepare(ssl->ctx);
    if (ssl_has_dynamic(spec) || spec->watch != NULL || spec->lazy != NULL)
        SSL_CTX_set_cert_cb(ssl->ctx, http_ssl_provide, ssl);
    compress_certificates(cf, ssl);
    http_ssl_early(ssl);
    if (is_used(cf, STR("ssl_ja3_hash")) || is_used(cf, STR("ssl_ja4")))
        http_ssl_fingerprint(ssl->ctx);
    if (!ssl->stapling.on)
        return 0;
    ssl->staples = stapling_prepare(cf, ssl->ctx, spec, server->core_loc, &ssl->stapling);
    return ssl->staples != NULL ? 0 : -1;
}

/* Servers may share settings: what is stapled may come by more than once. */
static int share_staples(struct conf *cf, const struct http_main *http)
{
    struct res_zone *zone = NULL;
    unsigned count = 0;

    for (unsigned i = 0; i < http->server_count; i++) {
        const struct staples *staples = http_ssl_of(http->servers[i])->staples;

        count += staples != NULL ? staples->count : 0;
    }
    if (count > 0 && (zone = stapling_zone(cf, count)) == NULL)
        return -1;
    for (unsigned i = 0; i < http->server_count; i++) {
        struct staples *staples = http_ssl_of(http->servers[i])->staples;

        for (unsigned n = 0; staples != NULL && n < staples->count; n++)
            staples->items[n].zone = zone;
    }
    return 0;
}

static bool has_certificate(const struct server *server)
{
    return http_ssl_of(server)->spec.certificates.count > 0;
}

static int complain(struct conf *cf, const struct server *server)
{
    conf_error_at(cf, server->pos,
                  "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive");
    return -1;
}

/* Whoever comes to the address must be shown something, or be refused on purpose. */
static int check_listen(struct conf *cf, struct http_listen *l)
{
    struct http_ssl *first = http_ssl_of(l->default_server);

    l->tls_context = first;
    for (unsigned i = 0; i < l->server_count; i++)
        first->options.early_data |= http_ssl_of(l->servers[i])->takes_early;
    if (has_certificate(l->default_server))
        return 0;
    if (!http_ssl_of(l->default_server)->reject_handshake)
        return complain(cf, l->default_server);
    for (unsigned i = 0; i < l->server_count; i++) {
        if (!has_certificate(l->servers[i]) && !http_ssl_of(l->servers[i])->reject_handshake)
            return complain(cf, l->servers[i]);
    }
    return 0;
}

/* What is looked after is looked at before anything of it is read: a change in between is seen so. 0 or -1. */
static int watch(struct conf *cf, const struct http_main *http)
{
    for (unsigned i = 0; i < http->server_count; i++) {
        struct http_ssl *ssl = http_ssl_of(http->servers[i]);
        struct ssl_spec *spec = &ssl->spec;

        keyproc_handshakes_last(cf, http->servers[i]->core->client_header_timeout_ms);
        if (!ssl->certificate_watch || spec->watch != NULL || spec->certificates.count == 0 ||
            spec->keys.count < spec->certificates.count)
            continue;
        spec->pos = http->servers[i]->pos;
        spec->watch = ssl_watch_new(cf, spec);
        if (spec->watch == NULL)
            return -1;
    }
    return 0;
}

static void preload(struct conf *cf, const struct http_main *http)
{
    struct ssl_preload *p = ssl_preload_new(cf);

    for (unsigned i = 0; i < http->server_count; i++) {
        const struct http_ssl *ssl = http_ssl_of(http->servers[i]);

        if (!is_lazy(cf, ssl))
            ssl_preload_add(p, &ssl->spec);
    }
    ssl_preload(p);
}

static int http_ssl_post(struct conf *cf)
{
    struct http_main *http = conf_http(cf);

    if (http == NULL)
        return 0;
    if (!cf->config->offline) {
        if (watch(cf, http) != 0)
            return -1;
        preload(cf, http);
    }
    for (unsigned i = 0; i < http->server_count; i++) {
        struct http_ssl *ssl = http_ssl_of(http->servers[i]);

        if (ssl->ctx == NULL && (ssl->spec.certificates.count > 0 || ssl->reject_handshake) &&
            make_context(cf, http->servers[i], ssl) != 0)
            return -1;
    }
    if (share_staples(cf, http) != 0)
        return -1;
    for (struct list *n = http->listens.next; n != &http->listens; n = n->next) {
        struct http_listen *l = container_of(n, struct http_listen, link);

        if (l->ssl && l->default_server != NULL && check_listen(cf, l) != 0)
            return -1;
    }
    return 0;
}

static int http_ssl_begin(struct conf *cf UNUSED)
{
    ssl_memory_init();
    return 0;
}

static void each_staples(const struct config *config, void (*f)(struct staples *staples))
{
    const struct http_main *http = config->http;

    for (unsigned i = 0; http != NULL && i < http->server_count; i++) {
        struct staples *staples = http_ssl_of(http->servers[i])->staples;

        if (staples != NULL)
            f(staples);
    }
}

static int http_ssl_start(const struct config *config)
{
    each_staples(config, stapling_start);
    if (config->http != NULL)
        http_ssl_follow(config->http);
    return 0;
}

static void http_ssl_drain(const struct config *config)
{
    http_ssl_follow_end();
    each_staples(config, stapling_rest);
}

static void http_ssl_stop(const struct config *config)
{
    http_ssl_follow_end();
    each_staples(config, stapling_stop);
    conn_tls_trim();
    ssl_objects_free();
    ssl_memory_trim();
}

/* Directives --------------------------------------------------------------------------------- */

#define SSL_ROW(name_, args_, set_, member_, inherit_, def_, syntax_, doc_, ...)                  \
    ROW(name_, CTX_HTTP | CTX_SERVER, args_, set_, STORE_SRV, struct http_ssl, member_, inherit_, \
        def_, syntax_, doc_, __VA_ARGS__)

static const struct conf_enum load_names[] = {
    { "eager", SSL_LOAD_EAGER },
    { "lazy", SSL_LOAD_LAZY },
    { NULL, 0 },
};

static const struct directive directives[] = {
    SSL_ROW("ssl_certificate", ARGS1 | ARG_REPEAT, ssl_set_file_list, spec.certificates,
            INHERIT_WHOLE, NULL, "file | data:value",
            "The certificate in PEM, followed by intermediate ones; one directive for each type of "
            "key. With variables it is loaded at each handshake."),
    SSL_ROW("ssl_certificate_key", ARGS1 | ARG_REPEAT, ssl_set_file_list, spec.keys, INHERIT_WHOLE,
            NULL, "file | data:value | store:uri", "The secret key of each certificate, in PEM."),
    SSL_ROW("ssl_certificate_cache", ARGS123, ssl_set_certificate_cache, spec.cache, INHERIT_SCALAR,
            "off", "off | max=N [inactive=time] [valid=time]",
            "Keeps certificates and keys whose names hold variables, in each worker."),
    SSL_ROW("ssl_certificate_load", ARGS1, conf_set_enum, certificate_load, INHERIT_SCALAR, "eager",
            "eager | lazy",
            "When certificates and keys are parsed: at the start, or by the first handshake that needs "
            "them.",
            .extra = load_names),
    SSL_ROW("ssl_certificate_watch", ARG_FLAG, conf_set_flag, certificate_watch, INHERIT_SCALAR,
            "off", "on | off",
            "Certificates and keys in files that have been replaced are served at once, without a reload."),
    SSL_ROW("ssl_certificate_compression", ARG_FLAG, conf_set_flag, compress_certificates,
            INHERIT_SCALAR, "off", "on | off",
            "Compresses certificates for clients that can take it (OpenSSL 3.2 and later)."),
    ROW_CALL("ssl_ech_file", CTX_HTTP | CTX_SERVER, ARGS1 | ARG_REPEAT, set_ech_file, STORE_SRV,
             "file", "Keys for the encrypted client hello; not supported."),
    SSL_ROW("ssl_password_file", ARGS1, ssl_set_password_file, spec.passwords, INHERIT_SCALAR, NULL,
            "file", "Passwords of secret keys, one a line, tried in turn."),
    SSL_ROW("ssl_protocols", ARGS1_MORE | ARG_REPEAT, conf_set_bits, spec.protocols, INHERIT_WHOLE,
            "TLSv1.2 TLSv1.3", "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]",
            "The protocol versions that are spoken.", .extra = ssl_protocol_names),
    SSL_ROW("ssl_ciphers", ARGS1, ssl_set_text, spec.ciphers, INHERIT_SCALAR, "HIGH:!aNULL:!MD5",
            "ciphers", "The ciphers for TLS up to 1.2, as OpenSSL writes them."),
    SSL_ROW("ssl_prefer_server_ciphers", ARG_FLAG, conf_set_flag, spec.prefer_server_ciphers,
            INHERIT_SCALAR, "off", "on | off", "The server's order of ciphers counts."),
    SSL_ROW("ssl_ecdh_curve", ARGS1, ssl_set_text, spec.curves, INHERIT_SCALAR, "auto", "curve",
            "The groups for the exchange of keys, most wanted first, with colons between."),
    SSL_ROW("ssl_dhparam", ARGS1, ssl_set_file, spec.dhparam, INHERIT_SCALAR, NULL, "file",
            "Parameters for ciphers with DHE; without them there are none."),
    SSL_ROW("ssl_conf_command", ARGS2 | ARG_REPEAT, ssl_set_command, spec.commands, INHERIT_WHOLE,
            NULL, "name value", "A configuration command of OpenSSL, run last."),
    SSL_ROW("ssl_key_log", ARGS1, ssl_set_key_log, spec.key_log, INHERIT_SCALAR, NULL, "path",
            "A file that the secrets of clients' connections are written to, for who decrypts what "
            "he has captured (SSLKEYLOGFILE)."),
    SSL_ROW("ssl_buffer_size", ARGS1, conf_set_size, buffer_size, INHERIT_SCALAR, "16k", "size",
            "The largest record; small ones let the client begin earlier."),
    SSL_ROW("ssl_session_timeout", ARGS1, conf_set_sec, spec.session_timeout_s, INHERIT_SCALAR,
            "5m", "time", "How long a session may be resumed."),
    SSL_ROW("ssl_session_cache", ARGS1_MORE | ARG_REPEAT, ssl_set_session_cache, spec.session_cache,
            INHERIT_SCALAR, NULL, "off | none | [builtin[:size]] [shared:name:size]",
            "Where sessions are kept: in each worker, or in a zone for all of them."),
    SSL_ROW("ssl_session_tickets", ARG_FLAG, conf_set_flag, spec.session_tickets, INHERIT_SCALAR,
            "on", "on | off", "Sessions are kept by the clients, in encrypted tickets."),
    SSL_ROW("ssl_session_ticket_key", ARGS1 | ARG_REPEAT, ssl_set_ticket_key, spec.ticket_keys,
            INHERIT_WHOLE, NULL, "file",
            "48 or 80 random bytes to encrypt tickets with; all further files decrypt only."),
    SSL_ROW(
        "ssl_early_data", ARG_FLAG, conf_set_flag, early_data, INHERIT_SCALAR, "off", "on | off",
        "Accepts requests before the end of a handshake of TLS 1.3, which can be replayed: those "
        "with other methods than GET, HEAD, OPTIONS and TRACE wait for its end. Not with "
        "ssl_verify_client."),
    SSL_ROW("ssl_reject_handshake", ARG_FLAG, conf_set_flag, reject_handshake, INHERIT_SCALAR,
            "off", "on | off", "Refuses the handshake: for names that no other server has."),
    SSL_ROW(
        "ssl_client_certificate", ARGS1, ssl_set_file, spec.client_ca, INHERIT_SCALAR, NULL, "file",
        "Authorities that clients' certificates are verified by; they are named to the client."),
    SSL_ROW("ssl_trusted_certificate", ARGS1, ssl_set_file, spec.trusted, INHERIT_SCALAR, NULL,
            "file", "Authorities that are trusted, but not named to the client."),
    SSL_ROW("ssl_crl", ARGS1, ssl_set_file, spec.crl, INHERIT_SCALAR, NULL, "file",
            "Certificates that have been revoked, in PEM."),
    SSL_ROW(
        "ssl_ocsp", ARGS1, conf_set_enum, ocsp.mode, INHERIT_SCALAR, "off", "on | off | leaf",
        "Asks OCSP responders about the client's certificate and those up to the trusted one, or "
        "about the client's only, before the first request, of resumed sessions too. Without an "
        "answer the certificate counts as bad.",
        .extra = ocsp_mode_names),
    SSL_ROW("ssl_ocsp_responder", ARGS1, ssl_set_text, ocsp.url, INHERIT_SCALAR, NULL, "url",
            "Whom to ask, in place of the one that the certificate names (http:// only)."),
    SSL_ROW("ssl_ocsp_cache", ARGS1, ocsp_set_cache, ocsp.cache, INHERIT_SCALAR, NULL,
            "off | shared:name:size",
            "Where all workers keep what responders have said, as long as it holds."),
    SSL_ROW("ssl_stapling", ARG_FLAG, conf_set_flag, stapling.on, INHERIT_SCALAR, "off", "on | off",
            "Shows clients what the authority's OCSP responder says of the certificate, from the "
            "worker's start on."),
    SSL_ROW("ssl_stapling_file", ARGS1, ssl_set_file, stapling.file, INHERIT_SCALAR, NULL, "file",
            "An OCSP response in DER to be shown, instead of asking; until its time is over."),
    SSL_ROW("ssl_stapling_responder", ARGS1, ssl_set_text, stapling.responder, INHERIT_SCALAR, NULL,
            "url", "Whom to ask, in place of the one that the certificate names (http:// only)."),
    SSL_ROW("ssl_stapling_verify", ARG_FLAG, conf_set_flag, stapling.verify, INHERIT_SCALAR, "off",
            "on | off", "The authorities must vouch for who has signed the OCSP response."),
    SSL_ROW("ssl_verify_client", ARGS1, conf_set_enum, spec.verify, INHERIT_SCALAR, "off",
            "on | off | optional | optional_no_ca", "Asks the client for a certificate.",
            .extra = ssl_verify_names),
    SSL_ROW("ssl_verify_depth", ARGS1, conf_set_num, spec.verify_depth, INHERIT_SCALAR, "1",
            "number",
            "How many authorities may stand between the client's certificate and a trusted one."),
    ROW_END,
};

static const struct http_tls http_tls = {
    .conn = { .accept = accept_tls,
              .established = conn_tls_established,
              .early = conn_tls_early,
              .hold = conn_tls_hold,
              .protocol = conn_tls_protocol },
    .check = http_ssl_check,
    .waits = http_ssl_waits,
    .admit = http_ssl_admit,
};

static const struct http_module http_ssl = { .variables = http_ssl_variables, .tls = &http_tls };

const struct module module_http_ssl = {
    .name = "http_ssl",
    .slot = &http_ssl_slot,
    .conf_size = { [STORE_SRV] = sizeof(struct http_ssl) },
    .directives = directives,
    .http = &http_ssl,
    .begin = http_ssl_begin,
    .post = http_ssl_post,
    .worker_start = http_ssl_start,
    .worker_drain = http_ssl_drain,
    .worker_stop = http_ssl_stop,
};
