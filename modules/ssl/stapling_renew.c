/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stapling goes on when ssl_certificate_watch has replaced a certificate: in a worker, where no name is looked up and no
 * file is read. What cannot be found out so waits for a reload, and the certificate is shown with nothing stapled to it.
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "modules/ssl/stapling.h"

static X509 *find_issuer(const STACK_OF(X509) * certs, X509 *cert)
{
    for (int i = 0; certs != NULL && i < sk_X509_num(certs); i++) {
        if (X509_check_issued(sk_X509_value(certs, i), cert) == X509_V_OK)
            return sk_X509_value(certs, i);
    }
    return NULL;
}

/* Whether the responder of the old certificate is to be asked about the new one: both name it, or neither is asked for its own. */
static bool same_responder(const struct staple *s, X509 *cert)
{
    struct arena *arena = arena_new();
    struct str before = ocsp_responder_of(arena, s->cert), now = ocsp_responder_of(arena, cert);
    bool same = str_eq(now, s->responder.url) || !str_eq(before, s->responder.url);

    arena_destroy(arena);
    return same;
}

void stapling_drop(struct staple *s)
{
    X509_free(s->replacement);
    sk_X509_pop_free(s->signers, X509_free);
    s->replacement = NULL;
    s->signers = NULL;
}

/* NULL, or why nothing is asked. */
static const char *renew(struct staple *s, X509 *cert, STACK_OF(X509) * chain)
{
    X509 *issuer = find_issuer(chain, cert);
    STACK_OF(X509) *signers = chain != NULL ? X509_chain_up_ref(chain) : sk_X509_new_null();
    struct ocsp_subject subject;

    if (issuer == NULL)
        issuer = find_issuer(s->trust.certs, cert);
    if (signers == NULL || (issuer != NULL && sk_X509_push(signers, issuer) == 0)) {
        sk_X509_pop_free(signers, X509_free);
        return "out of memory";
    }
    if (issuer != NULL)
        X509_up_ref(issuer);
    if (issuer == NULL || !same_responder(s, cert) ||
        ocsp_subject_init(&subject, cert, issuer) != 0) {
        sk_X509_pop_free(signers, X509_free);
        return issuer == NULL ? "its issuer is not known" : "its responder is another one";
    }
    ocsp_subject_free(&s->subject);
    s->subject = subject;
    X509_up_ref(cert);
    stapling_drop(s);
    s->cert = s->replacement = cert;
    s->trust.certs = s->signers = signers;
    return stapling_set_key(s) ? NULL : "the library failed";
}

static void follow(struct staple *s, X509 *cert, STACK_OF(X509) * chain)
{
    const struct logger log = { .scope = s->core->error_log };
    const char *why = "its response is in a file";

    ocsp_fetch_cancel(s->fetch);
    s->fetch = NULL;
    timer_drop(&s->timer);
    free((char *) s->der.ptr);
    s->der = STR_NULL;
    s->stored = s->valid = 0;
    s->failures = 0;
    if (s->fixed.len == 0)
        why = s->lost ? "as for the one before it" : renew(s, cert, chain);
    if (why == NULL) {
        timer_set(&s->timer, 1);
        return;
    }
    /* A reference: what is compared by its address must not be another one at the same place. */
    X509_up_ref(cert);
    X509_free(s->replacement);
    s->cert = s->replacement = cert;
    s->fixed = STR_NULL;
    s->lost = true;
    ERR_clear_error();
    log_warn(&log, 0, "nothing is stapled to the new certificate \"%.*s\" until a reload: %s",
             STR_ARG(s->name), why);
}

void stapling_follow(struct staples *staples, struct str name, X509 *cert, STACK_OF(X509) * chain)
{
    for (unsigned i = 0; i < staples->count; i++) {
        if (str_eq(staples->items[i].name, name) && staples->items[i].cert != cert)
            follow(&staples->items[i], cert, chain);
    }
}
