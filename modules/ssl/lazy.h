/* SPDX-License-Identifier: BSD-2-Clause */
/* ssl_certificate_load lazy: pairs that are parsed at the first handshake that needs them. */
#ifndef MODULES_SSL_LAZY_H
#define MODULES_SSL_LAZY_H

#include "modules/ssl/pairs.h"

/* Reads the bytes of a spec's files. NULL: reported. */
struct ssl_lazy *ssl_lazy_new(struct conf *cf, const struct ssl_spec *spec);
/* Whether it has this pair: then the context is made without; and the bytes of its certificate. */
bool ssl_lazy_has(const struct ssl_lazy *lazy, unsigned i);
struct str ssl_lazy_bytes(const struct ssl_lazy *lazy, unsigned i);
/* From the callback for certificates: all pairs are put into the connection and its context. 0, or -1: logged. */
int ssl_lazy_use(SSL *ssl, struct ssl_lazy *lazy, const struct logger *log);

#endif
