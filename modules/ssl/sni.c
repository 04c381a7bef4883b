/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choice of a server within the handshake, by the name that the client asks for. It is made as soon as the hello has been read,
 * before the library looks at anything else in it: versions, curves, tickets are judged by the chosen server's settings.
 */
#include "core/http/h1.h"
#include "modules/ssl/http.h"

/* The name in the hello, empty where there is none, or none that the library will not complain of itself. */
static struct str hello_name(SSL *ssl)
{
    const unsigned char *p;
    size_t len, n;

    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &len) || len < 5)
        return STR("");
    /* RFC 6066, 3: the list's length, the type of its one entry, the entry's length */
    n = (size_t) p[3] << 8 | p[4];
    if (((size_t) p[0] << 8 | p[1]) != len - 2 || p[2] != TLSEXT_NAMETYPE_host_name || n != len - 5)
        return STR("");
    return str_from((const char *) p + 5, n);
}

static const struct server *server_by_name(struct client *c, struct str name)
{
    struct arena *arena = arena_new();
    const struct server *server = NULL;
    struct str host, found;
    unsigned port;

    if (h1_host_normalize(arena, name, &host, &port) == 0 && port == 0) {
        server = http_server_reason(c->listen, host, &found);
        if (found.ptr == NULL)
            server = NULL;
    }
    arena_destroy(arena);
    return server;
}

static int hello(SSL *ssl, int *alert, void *arg UNUSED)
{
    struct conn *conn = conn_tls_of(ssl);
    struct client *c = conn->owner;
    struct str name = hello_name(ssl);
    const struct server *server = name.len > 0 ? server_by_name(c, name) : NULL;
    const struct http_ssl *conf;

    /* A second hello, where one has been asked for, may have another name, or none. */
    c->named = server != NULL;
    c->server = server != NULL ? server : c->listen->default_server;
    if (c->debug == NULL)
        conn->log.scope = c->server->core_loc->error_log;
    conf = http_ssl_of(c->server);
    if (conf->reject_handshake) {
        conn_tls_rejected(conn);
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (conf->ctx == NULL)
        conf = http_ssl_of(c->listen->default_server); /* it has no certificate of its own */
    conn_tls_set_options(conn, &conf->options);
    if (ssl_context_switch(ssl, conf->ctx, &conf->spec) != 0 || ssl_context_name(ssl, name) != 0) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* The name has been heeded: that is told to the client. */
static int acknowledge(SSL *ssl UNUSED, int *alert UNUSED, void *arg UNUSED)
{
    return SSL_TLSEXT_ERR_OK;
}

static int choose_protocol(SSL *ssl UNUSED, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg UNUSED)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0\x08http/0.9";

    if (SSL_select_next_proto((unsigned char **) out, out_len, ours, sizeof(ours) - 1, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

void http_ssl_prepare(SSL_CTX *ctx)
{
    SSL_CTX_set_client_hello_cb(ctx, hello, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, acknowledge);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
}
