/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files on sessions share: sessions.c (caches) and tickets.c (keys of tickets). */
#ifndef MODULES_SSL_SESSIONS_H
#define MODULES_SSL_SESSIONS_H

#include "core/config/resource.h"
#include "modules/ssl/ssl.h"

/* A server's context takes the spec's cache, lifetime and tickets. 0 or -1. */
int ssl_use_sessions(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec);
/* tickets.c: the part on keys. Also for contexts without tickets: a server chosen by name, which has some, is asked through them. */
int ssl_use_tickets(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec);
/* The spec of the context that a connection has now: of the server chosen by name. */
const struct ssl_spec *ssl_spec_of(const SSL *ssl);

#endif
