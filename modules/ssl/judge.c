/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a test of the configuration (-t) has to say of a certificate that could be loaded: when it expires, which is a warning only if
 * that is soon and else for programs (--json), and whether clients will find the way from it to a root.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "modules/ssl/ssl.h"

#define SOON_DAYS 30

static void judge_time(struct conf *cf, const struct ssl_file *file, X509 *leaf)
{
    const ASN1_TIME *end = X509_get0_notAfter(leaf);
    int days = 0, seconds = 0;
    struct tm tm;
    char date[32];

    if (!ASN1_TIME_diff(&days, &seconds, NULL, end) || !ASN1_TIME_to_tm(end, &tm) ||
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        return;
    if (days < 0 || seconds < 0)
        conf_warn_at(cf, file->pos, "certificate \"%.*s\" has expired on %s", STR_ARG(file->path),
                     date);
    else if (days < SOON_DAYS)
        conf_warn_at(cf, file->pos, "certificate \"%.*s\" expires in %d day%s, on %s",
                     STR_ARG(file->path), days, days == 1 ? "" : "s", date);
    else
        conf_notice_at(cf, file->pos, "certificate \"%.*s\" expires in %d days, on %s",
                       STR_ARG(file->path), days, date);
    if (ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(leaf), NULL) &&
        (days < 0 || seconds < 0))
        conf_warn_at(cf, file->pos, "certificate \"%.*s\" is not valid yet", STR_ARG(file->path));
}

/* The system's authorities, or NULL. Read once. */
static X509_STORE *system_roots(void)
{
    static X509_STORE *store;

    if (store == NULL) {
        store = X509_STORE_new();
        if (store != NULL)
            X509_STORE_set_default_paths(store);
    }
    return store;
}

static bool has_issuer(X509_STORE *store, X509 *cert)
{
    X509_STORE_CTX *ctx = store != NULL ? X509_STORE_CTX_new() : NULL;
    X509 *issuer = NULL;
    bool found = false;

    if (ctx != NULL && X509_STORE_CTX_init(ctx, store, cert, NULL))
        found = X509_STORE_CTX_get1_issuer(&issuer, ctx, cert) == 1;
    X509_free(issuer);
    X509_STORE_CTX_free(ctx);
    return found;
}

/* Each certificate's issuer is the next one; that of the last is a root which somebody knows. */
static void judge_chain(struct conf *cf, const struct ssl_file *file, SSL_CTX *ctx, X509 *leaf,
                        STACK_OF(X509) * chain)
{
    int n = sk_X509_num(chain);
    X509 *last = leaf;
    char *name;

    for (int i = 0; i < n; i++) {
        X509 *next = sk_X509_value(chain, i);

        if (X509_check_issued(next, last) != X509_V_OK) {
            conf_warn_at(cf, file->pos,
                         "certificate number %d in \"%.*s\" has not issued the one before it",
                         i + 2, STR_ARG(file->path));
            return;
        }
        last = next;
    }
    if (X509_check_issued(last, last) == X509_V_OK ||
        has_issuer(SSL_CTX_get_cert_store(ctx), last) || has_issuer(system_roots(), last))
        return;
    name = X509_NAME_oneline(X509_get_issuer_name(last), NULL, 0);
    conf_warn_at(cf, file->pos,
                 "the chain in \"%.*s\" may be incomplete: \"%s\", which is not known here, is "
                 "missing",
                 STR_ARG(file->path), name != NULL ? name : "");
    OPENSSL_free(name);
}

void ssl_judge(struct conf *cf, const struct ssl_file *file, SSL_CTX *ctx, X509 *leaf,
               STACK_OF(X509) * chain)
{
    judge_time(cf, file, leaf);
    judge_chain(cf, file, ctx, leaf, chain);
    ERR_clear_error();
}
