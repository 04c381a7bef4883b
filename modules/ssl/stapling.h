/* SPDX-License-Identifier: BSD-2-Clause */
/* OCSP stapling: what is made of the directives (stapling_conf.c), and what workers do with it (stapling.c). */
#ifndef MODULES_SSL_STAPLING_H
#define MODULES_SSL_STAPLING_H

#include <openssl/sha.h>

#include "core/config/resource.h"
#include "modules/ssl/ocsp.h"

/* A certificate and what is stapled to it. */
struct staple {
    X509 *cert;      /* of the context, or in its place */
    struct str name; /* as the directive says it */
    struct ocsp_subject subject;
    struct ocsp_responder responder;
    struct ocsp_trust trust;
    unsigned char key[SHA256_DIGEST_LENGTH]; /* in the zone */
    struct res_zone *zone;
    const struct core_loc *core;
    struct str fixed;   /* ssl_stapling_file */
    time_t fixed_until; /* 0: for ever */
    /* Of the worker. */
    struct str der; /* malloc'd; empty: nothing to show */
    time_t valid;   /* 0: for ever */
    time_t stored;  /* which one of the zone it is */
    struct timer timer;
    unsigned failures;
    struct ocsp_fetch *fetch;
    /* Of a certificate that has replaced the context's: references. */
    X509 *replacement;
    STACK_OF(X509) * signers;
    bool lost; /* nobody can be asked about it before a reload */
};

struct staples {
    struct staple *items; /* one for each of a context's certificates, at most */
    unsigned count;
    bool started;
};

/* The ssl_stapling… directives. */
struct stapling_spec {
    bool on, verify;
    struct ssl_file file;
    struct ssl_text responder;
};

/*
 * Prepares a server's context. core: of the server, for its resolver and its log. Certificates that nothing can be
 * stapled to are warned about. NULL when errors were reported.
 */
struct staples *stapling_prepare(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *ssl,
                                 const struct core_loc *core, const struct stapling_spec *spec);
/* The shared memory for so many certificates; NULL: reported. */
struct res_zone *stapling_zone(struct conf *cf, unsigned count);

extern const struct zone_kind stapling_kind;
/* In a worker: asks at once, and again in time. Each context once. */
void stapling_start(struct staples *staples);
/* Asks no more: a worker that is to end does not wait for a responder. What there is goes on being shown. */
void stapling_rest(struct staples *staples);
void stapling_stop(struct staples *staples);
/*
 * stapling_renew.c: the certificate of that name is another one now. Nothing of the old one is shown with it; its own responder is
 * asked, if that is where the old one's was.
 */
void stapling_follow(struct staples *staples, struct str name, X509 *cert, STACK_OF(X509) * chain);
/* What a replacement holds is given back. */
void stapling_drop(struct staple *s);
/* stapling_conf.c: the key of a certificate and its responder in the zone; false: the library failed. */
bool stapling_set_key(struct staple *s);
/* The library's callback; arg: struct staples. */
int stapling_show(SSL *ssl, void *arg);

#endif
