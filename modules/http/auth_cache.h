/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Passwords that were found to fit a slow hash a moment ago, so that a page of fifty files does not cost fifty
 * computations of bcrypt. What is kept is a keyed digest of hash and password together: it is of no
 * use outside of this worker, and a hash that has changed in the file is another one.
 */
#ifndef MODULES_HTTP_AUTH_CACHE_H
#define MODULES_HTTP_AUTH_CACHE_H

#include "core/base/str.h"

#define AUTH_CACHE_PASSWORD_MAX 256 /* a longer one is computed anew each time */

struct auth_mac {
    unsigned char bytes[32];
};

/* 0, or -1: too long, or the library refuses; then this pair is not cached. The other calls want a digest from here. */
int auth_cache_mac(struct str password, struct str hash, struct auth_mac *out);
bool auth_cache_has(const struct auth_mac *mac, uint64_t now_ms);
/* Displaces the one that would have ended first. */
void auth_cache_put(const struct auth_mac *mac, uint64_t until_ms);
void auth_cache_free(void);

#endif
