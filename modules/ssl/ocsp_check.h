/* SPDX-License-Identifier: BSD-2-Clause */
/* The check of clients' certificates by OCSP: the directives ssl_ocsp…, what is known already (ocsp_cache.c), asking (ocsp_check.c). */
#ifndef MODULES_SSL_OCSP_CHECK_H
#define MODULES_SSL_OCSP_CHECK_H

#include <openssl/sha.h>

#include "core/config/resource.h"
#include "core/http/client.h"
#include "modules/ssl/ocsp.h"

enum { OCSP_CHECK_OFF, OCSP_CHECK_ON, OCSP_CHECK_LEAF };

struct ocsp_cache {
    struct res_zone *shared; /* NULL: off */
};

/* The ssl_ocsp… directives of a server. */
struct ocsp_spec {
    unsigned mode;            /* OCSP_CHECK_… */
    struct ssl_text url;      /* ssl_ocsp_responder */
    struct ocsp_cache *cache; /* NULL: off */
    /* Made when the file has been read. */
    const struct ocsp_responder *responder; /* NULL: the one that each certificate names */
};

extern const struct conf_enum ocsp_mode_names[];
conf_setter ocsp_set_cache; /* [struct ocsp_cache *] */
/* The file has been read: who is to be asked. 0, or -1 (reported). */
int ocsp_check_prepare(struct conf *cf, struct ssl_spec *ssl, struct ocsp_spec *spec,
                       const struct core_loc *core);

/*
 * The handshake with a client has ended. True: there is nothing to be asked, or all is known. False: client_admitted will be
 * called, unless the client is closed before.
 */
bool ocsp_check_client(struct client *c, const struct ocsp_spec *spec);
/*
 * What the check has said against the client's certificate, in nginx's words; NULL: nothing. *asked: whether it was made as
 * spec wants it.
 */
const char *ocsp_check_failure(const SSL *ssl, const struct ocsp_spec *spec, bool *asked);

/*
 * The certificates from a client's to the trusted one, verified now, as the connection's context wants it; NULL: there is no such
 * way. others: what else is known of it, may be NULL. To be freed with its items.
 */
STACK_OF(X509) * ocsp_chain(SSL *ssl, X509 *cert, STACK_OF(X509) * others);

/* What is the same for all who ask the same responder about the same certificate. */
struct ocsp_key {
    unsigned char digest[SHA256_DIGEST_LENGTH];
};

bool ocsp_cache_get(const struct ocsp_cache *cache, const struct ocsp_key *key, int *status);
void ocsp_cache_put(const struct ocsp_cache *cache, const struct ocsp_key *key,
                    const struct ocsp_verdict *verdict, const struct logger *log);

#endif
