/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Password files (`name:hash[:comment]` lines) and the hashes in them. Nothing here knows of
 * requests; checking a password may be done in a thread.
 */
#ifndef MODULES_HTTP_HTPASSWD_H
#define MODULES_HTTP_HTPASSWD_H

#include "core/base/str.h"

#define HTPASSWD_HASH_MAX 1024          /* a longer hash fits no password */
#define HTPASSWD_FILE_MAX (64u << 20)

/* The search for one user's hash in a file that comes in pieces of any size. */
struct htpasswd {
    struct str user;    /* not empty */
    unsigned char state;
    bool found;         /* hash[0 … len) is the user's */
    bool unusable;      /* … and is longer than it may be */
    size_t matched;     /* bytes of the name in this line */
    size_t len;
    char hash[HTPASSWD_HASH_MAX + 1];
};

void htpasswd_start(struct htpasswd *h, struct str user);
/* True: found, the search is over. htpasswd_end takes a last line that has no end as it is. */
bool htpasswd_feed(struct htpasswd *h, const char *p, size_t len);
bool htpasswd_end(struct htpasswd *h);
/* Reads a file so. 0 (h->found tells), or -1 with errno: EFBIG past HTPASSWD_FILE_MAX. */
int htpasswd_search(struct htpasswd *h, int fd);

/* Whether the hash is of a kind that takes long on purpose, or may: to be checked in a thread. */
bool password_is_slow(struct str hash);
/*
 * Whether the password fits the hash: crypt(3)'s, $apr1$, {PLAIN}, {SHA}, {SSHA}. Both are also
 * terminated by NUL; with one inside, nothing fits. The time taken does not tell how much is equal.
 */
bool password_matches(struct str password, struct str hash);

#endif
