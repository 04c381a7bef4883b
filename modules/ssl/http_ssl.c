/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS for clients of HTTP: the directives, and a context for each server that has certificates. A server that adds
 * nothing to what stands above it shares that level's context, so that ten thousand names under one certificate cost one.
 */
#include "modules/ssl/http.h"

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
    if (spec->certificates.count > spec->keys.count) {
        const struct ssl_file *bare = &spec->certificates.items[spec->keys.count];

        conf_error_at(cf, bare->pos,
                      "no \"ssl_certificate_key\" is defined for certificate \"%.*s\"",
                      STR_ARG(bare->path));
        return -1;
    }
    if (cf->config->offline)
        return 0;
    ssl->ctx = ssl_context_new(cf, spec, true);
    if (ssl->ctx == NULL)
        return -1;
    http_ssl_prepare(ssl->ctx);
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
    l->tls_context = http_ssl_of(l->default_server);
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

static int http_ssl_post(struct conf *cf)
{
    struct http_main *http = conf_http(cf);

    if (http == NULL)
        return 0;
    for (unsigned i = 0; i < http->server_count; i++) {
        struct http_ssl *ssl = http_ssl_of(http->servers[i]);

        if (ssl->ctx == NULL && (ssl->spec.certificates.count > 0 || ssl->reject_handshake) &&
            make_context(cf, http->servers[i], ssl) != 0)
            return -1;
    }
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

static void http_ssl_stop(const struct config *config UNUSED)
{
    conn_tls_trim();
    ssl_memory_trim();
}

/* Directives --------------------------------------------------------------------------------- */

#define SSL_ROW(name_, args_, set_, member_, inherit_, def_, syntax_, doc_, ...)                  \
    ROW(name_, CTX_HTTP | CTX_SERVER, args_, set_, STORE_SRV, struct http_ssl, member_, inherit_, \
        def_, syntax_, doc_, __VA_ARGS__)

static const struct directive directives[] = {
    SSL_ROW("ssl_certificate", ARGS1 | ARG_REPEAT, ssl_set_file_list, spec.certificates,
            INHERIT_WHOLE, NULL, "file | data:value",
            "The certificate in PEM, followed by intermediate ones; one directive for each type of "
            "key."),
    SSL_ROW("ssl_certificate_key", ARGS1 | ARG_REPEAT, ssl_set_file_list, spec.keys, INHERIT_WHOLE,
            NULL, "file | data:value | store:uri", "The secret key of each certificate, in PEM."),
    SSL_ROW("ssl_password_file", ARGS1, ssl_set_password_file, spec.passwords, INHERIT_SCALAR, NULL,
            "file", "Passwords of secret keys, one a line, tried in turn."),
    SSL_ROW("ssl_protocols", ARGS1_MORE, conf_set_bits, spec.protocols, INHERIT_WHOLE,
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
    SSL_ROW("ssl_buffer_size", ARGS1, conf_set_size, buffer_size, INHERIT_SCALAR, "16k", "size",
            "The largest record; small ones let the client begin earlier."),
    SSL_ROW("ssl_session_timeout", ARGS1, conf_set_sec, spec.session_timeout_s, INHERIT_SCALAR,
            "5m", "time", "How long a session may be resumed."),
    SSL_ROW("ssl_reject_handshake", ARG_FLAG, conf_set_flag, reject_handshake, INHERIT_SCALAR,
            "off", "on | off", "Refuses the handshake: for names that no other server has."),
    SSL_ROW(
        "ssl_client_certificate", ARGS1, ssl_set_file, spec.client_ca, INHERIT_SCALAR, NULL, "file",
        "Authorities that clients' certificates are verified by; they are named to the client."),
    SSL_ROW("ssl_trusted_certificate", ARGS1, ssl_set_file, spec.trusted, INHERIT_SCALAR, NULL,
            "file", "Authorities that are trusted, but not named to the client."),
    SSL_ROW("ssl_crl", ARGS1, ssl_set_file, spec.crl, INHERIT_SCALAR, NULL, "file",
            "Certificates that have been revoked, in PEM."),
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
              .protocol = conn_tls_protocol },
    .check = http_ssl_check,
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
    .worker_stop = http_ssl_stop,
};
