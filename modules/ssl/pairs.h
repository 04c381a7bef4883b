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

unsigned ssl_cache_max(const struct ssl_cache *cache); /* NULL: 0 */
/* One that belongs to no configuration. Each file is looked at each time. */
struct ssl_cache *ssl_cache_new(unsigned max);
void ssl_cache_free(struct ssl_cache *cache);

/* What a path comes to whatever the variables in it are: whole, or how it begins and ends, and how often it may lead upwards. */
struct ssl_bounds {
    struct str begin, end;
    unsigned ups;
    bool whole; /* it is `begin`, there are no variables in it */
};

const struct ssl_bounds *ssl_name_bounds(struct conf *cf, const struct ssl_file *file);
/* Whether a path may have come of that. */
bool ssl_is_within(const struct ssl_bounds *b, struct str path);

#endif
