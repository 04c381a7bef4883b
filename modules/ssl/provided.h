/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys that a provider of the library keeps to itself: in a token, a TPM, a network's HSM. What the library has of such a key is a
 * reference, which is good for the process that has opened the token, and for no fork of it (PKCS #11 2.40, 6.6): two
 * processes that talk over one connection get each other's answers. So
 *
 *   store.c     reads keys by a library context that each process which uses them has for itself. The master uses none, and only has
 *               the key looked for: a module of PKCS #11 that it had initialised could be of no use to forks of it;
 *   provided.c  gives contexts a handle in the key's place, for which each worker reads the key.
 *
 * The key process (keyproc.h) reads them for itself as well, and is the better place: one connection to the token, and no
 * worker waits for it.
 */
#ifndef MODULES_SSL_PROVIDED_H
#define MODULES_SSL_PROVIDED_H

#include "modules/ssl/keyproc.h"

/* Handles of this number and above are a table's of the process itself (provided.c), not the key process's. */
#define SSL_PROVIDED_FIRST 0x80000000u

/* store.c ------------------------------------------------------------------------------------- */

/*
 * This process uses keys, and does not fork any more: from now on it opens tokens itself, by providers that are loaded when one is
 * needed first. Until then, what is loaded of a provider's key is the public half.
 */
void ssl_store_use_here(void);
/* The library context for keys of providers: NULL is the default one. */
OSSL_LIB_CTX *ssl_store_library(void);
/* The private key that a URI names, or that a file (bio) refers to. NULL + *error. */
EVP_PKEY *ssl_store_load(const char *uri, BIO *bio, const struct ssl_passwords *passwords,
                         const char **error);
/* Whether what a PEM file, or "data:", holds is only a reference to a key, by which a provider finds it. */
bool ssl_store_is_reference(struct str path);
bool ssl_store_bio_is_reference(BIO *bio);
/* Whether a provider keeps it that is not one of the library's own; whether this is the public half of one. */
bool ssl_store_is_foreign(const EVP_PKEY *key);
bool ssl_store_is_elsewhere(const EVP_PKEY *key);

/* provided.c ---------------------------------------------------------------------------------- */

/* The handle of a key that this configuration has already; NULL: none. The reference is the caller's. */
EVP_PKEY *ssl_provided_find(const struct conf *cf, const struct ssl_file *file,
                            const struct ssl_passwords *passwords);
/* A foreign key's handle. Takes the key; the reference is the caller's. NULL: reported. */
EVP_PKEY *ssl_provided_wrap(struct conf *cf, const struct ssl_file *file,
                            const struct ssl_passwords *passwords, EVP_PKEY *key);
/* What a handle is asked to do, as keyproc_call, without a pause. */
int ssl_provided_call(const struct keyproc_request *rq, const unsigned char *payload,
                      unsigned char *out, size_t *len);

#endif
