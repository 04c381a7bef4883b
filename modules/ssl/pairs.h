/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files on certificates with variables in their names share: pairs.c and cert_cache.c. */
#ifndef MODULES_SSL_PAIRS_H
#define MODULES_SSL_PAIRS_H

#include <sys/stat.h>

#include "modules/ssl/ssl.h"

/* The argument of the directive, which holds variables. NULL + *error. */
const struct ssl_name *ssl_name_compile(struct conf *cf, const char **error);

/* What a file holds: one of the two. The references are whoever's has it. */
struct ssl_object {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

void ssl_object_free(struct ssl_object *o);
/* Whether a file is the one it was. */
bool ssl_same_file(const struct stat *a, const struct stat *b);

/*
 * A file's certificate, or key, from the cache, or read and put there. cache NULL, or anew: read. passwords: never NULL. The
 * references are the caller's. 0, or -1 + *error, as ssl_load_certificate has it.
 */
int ssl_cache_get(struct ssl_cache *cache, struct str path, bool key, bool anew,
                  const struct ssl_passwords *passwords, struct ssl_object *out,
                  const char **error);

#endif
