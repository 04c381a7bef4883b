/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the http_ssl module share. */
#ifndef MODULES_SSL_HTTP_H
#define MODULES_SSL_HTTP_H

#include "core/http/client.h"
#include "modules/ssl/ocsp_check.h"
#include "modules/ssl/ssl.h"
#include "modules/ssl/stapling.h"

enum { SSL_LOAD_EAGER, SSL_LOAD_LAZY };

/* The ssl_… directives of a server. */
struct http_ssl {
    struct ssl_spec spec;
    size_t buffer_size;
    bool reject_handshake;
    bool compress_certificates;
    bool certificate_watch;
    unsigned certificate_load;
    bool early_data;
    struct stapling_spec stapling;
    struct ocsp_spec ocsp;
    /* Made when the file has been read. */
    struct staples *staples;         /* NULL: nothing is stapled */
    SSL_CTX *ctx;                    /* NULL: there is no certificate (and nothing to reject) */
    struct conn_tls_options options;
    bool takes_early; /* early_data, as far as it is safe */
};

/* http_ssl.c: a server's settings. Never NULL. */
struct http_ssl *http_ssl_of(const struct server *server);
/* sni.c: what a context of a listening address needs to choose the server by the name the client asks for, and ALPN. */
void http_ssl_prepare(SSL_CTX *ctx);
/* provide.c: the library's callback for certificates; arg: struct http_ssl. */
int http_ssl_provide(SSL *ssl, void *arg);
/* In a worker: what is stapled follows the certificates that are replaced; until the end. */
void http_ssl_follow(const struct http_main *http);
void http_ssl_follow_end(void);
/* fingerprint.c: hellos that come to this context leave their fingerprints, which are empty otherwise. */
void http_ssl_fingerprint(SSL_CTX *ctx);
struct str http_ssl_ja3(SSL *ssl);
struct str http_ssl_ja4(SSL *ssl);
/* verify.c: struct http_tls's check. */
unsigned http_ssl_check(struct req *r);
/* early.c: a context that may accept early data does; and struct http_tls's waits. */
void http_ssl_early(struct http_ssl *ssl);
bool http_ssl_waits(struct req *r);
/* And its admit. */
bool http_ssl_admit(struct client *c);
/* Whether a verification's result is but a want of trust in the chain (optional_no_ca). */
bool http_ssl_is_untrusted(long result);
/* variables.c */
extern const struct var_row http_ssl_variables[];

#endif
