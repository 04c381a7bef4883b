/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The online certificate status protocol (RFC 6960): whom to ask (ocsp_url.c), asking (ocsp_http.c), what an answer is
 * worth (ocsp.c). Stapling (stapling.c) and the check of clients' certificates (ocsp_check.c) stand on these.
 */
#ifndef MODULES_SSL_OCSP_H
#define MODULES_SSL_OCSP_H

#include <openssl/ocsp.h>

#include "core/http/http.h"
#include "modules/ssl/ssl.h"

/* Whom to ask. */
struct ocsp_responder {
    struct str url;  /* as it was written: for the log */
    struct str host; /* of the Host header: with the port where one was written */
    struct str name; /* to be resolved, without brackets */
    struct str path; /* begins with a slash */
    unsigned port;
    struct addr *addrs; /* what is known without a resolver; may be none */
    unsigned addr_count;
    bool numeric;
};

/*
 * 0, or -1 with *error ("invalid URL prefix", "host not found" …), which "in OCSP responder …" completes. lookup: ask the
 * system for a name's addresses, which blocks: while the configuration is read only.
 */
int ocsp_responder_parse(struct arena *arena, struct str url, bool lookup,
                         struct ocsp_responder *out, const char **error);
/* The responder that a certificate names, in its authority information; ptr NULL: none. */
struct str ocsp_responder_of(struct arena *arena, X509 *cert);

/* The certificate that is asked about. */
struct ocsp_subject {
    OCSP_CERTID *id;
    struct str request; /* DER, in malloc'd memory */
};

/* 0, or -1: the library's queue knows why. */
int ocsp_subject_init(struct ocsp_subject *s, X509 *cert, X509 *issuer);
void ocsp_subject_free(struct ocsp_subject *s);

/* By what a response's signature is judged. */
struct ocsp_trust {
    STACK_OF(X509) *
        certs; /* that may have signed it, or stand between its signer and the authorities */
    X509_STORE *store;
    unsigned long flags; /* of OCSP_basic_verify */
};

struct ocsp_verdict {
    int status;   /* V_OCSP_CERTSTATUS_… */
    time_t valid; /* until then, by the wall clock; 0: it does not say */
};

/*
 * A response about the subject: its signature, that it is about this certificate, and that it is in force. 0, or -1, which has
 * been logged.
 */
int ocsp_judge(const struct ocsp_subject *s, const struct ocsp_trust *trust, struct str der,
               const struct logger *log, struct ocsp_verdict *out);

/* What the wall clock shows then; 0: not to be told. */
time_t ocsp_time(const ASN1_GENERALIZEDTIME *t);

/* Asking: by HTTP, without ever waiting. */
#define OCSP_RESPONSE_MAX (64 * 1024) /* bytes, head and body */
#define OCSP_TIMEOUT_MS 15000         /* for one exchange with one address */

struct ocsp_fetch;

struct ocsp_question {
    const struct ocsp_responder *responder; /* lives until done or cancelled */
    const struct core_loc *core;            /* for its resolver */
    const struct ocsp_subject *subject;
    struct str certificate; /* its name, for the log; may be empty */
    /* Once, from the loop. der.ptr NULL: there was no answer, which has been logged. log: to go on with. */
    void (*done)(void *data, struct str der, const struct logger *log);
    void *data;
};

struct ocsp_fetch *ocsp_fetch_start(const struct ocsp_question *question,
                                    const struct log_scope *scope, uint64_t conn);
/* done will not be called. NULL is allowed; not from inside done. */
void ocsp_fetch_cancel(struct ocsp_fetch *f);

#endif
