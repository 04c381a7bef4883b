/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Early data (ssl_early_data; RFC 8446, 2.3 and 8; RFC 8470): which contexts accept it, and which requests in it are acted on at
 * once.
 *
 * Whoever has recorded it can send it again, as often as the ticket lives, to any worker: nothing here keeps track of what
 * has been seen (the library's own way of doing so keeps sessions in one process). So only what may be asked twice is answered
 * before the handshake has ended; everything else waits for its end, which a replay does not reach.
 */
#include "modules/ssl/http.h"

#define SAFE_METHODS (METHOD_GET | METHOD_HEAD | METHOD_OPTIONS | METHOD_TRACE)

void http_ssl_early(struct http_ssl *ssl)
{
    /* What a client with a certificate may do is not to be done at the word of a recording. */
    ssl->takes_early = ssl->early_data && ssl->spec.verify == SSL_VERIFY_OFF;
    if (!ssl->takes_early)
        return;
    SSL_CTX_set_max_early_data(ssl->ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set_recv_max_early_data(ssl->ctx, CONN_TLS_EARLY_MAX);
    SSL_CTX_set_options(ssl->ctx, SSL_OP_NO_ANTI_REPLAY);
}

bool http_ssl_waits(struct req *r)
{
    const struct http_ssl *ssl = http_ssl_of(r->server);

    /* What is said in a tunnel may be anything. The Host may have led to a server that wants none of it. */
    return !(r->in->method & SAFE_METHODS) || r->in->upgrade || !ssl->early_data ||
           ssl->spec.verify != SSL_VERIFY_OFF;
}
