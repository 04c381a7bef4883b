/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_certificate_watch: pairs of files that are served anew when they have been replaced. The master looks at the files and
 * reads them (watch.c), for workers may not be allowed to; what it has found good lies in shared memory, from where
 * workers take it (watch_use.c).
 */
#ifndef MODULES_SSL_WATCH_H
#define MODULES_SSL_WATCH_H

#include "modules/ssl/pairs.h"

#define WATCH_PAIR_MAX (64 * 1024 - 64) /* bytes of both files together */

/*
 * What the master has read of a pair. The generation is odd while it writes; 0: it is still what the configuration's
 * reader has seen. Written by the master alone.
 */
struct watch_slot {
    uint64_t generation;
    uint32_t certificate_len, key_len;
    char bytes[WATCH_PAIR_MAX]; /* "data:" and the one file, "data:" and the other */
};

/* Two files, and what became of them. Zeroes stand for a file that is not there. */
struct watch_state {
    struct stat certificate, key;
};

/* A pair of files, however many servers name it. */
struct watched {
    struct watched *next;
    struct ssl_file certificate, key;
    const struct ssl_passwords *passwords;
    struct watch_slot *slot; /* NULL: nothing that could be watched (data, a store) */
    /* Of the master. */
    struct watch_state settled, bad;
    unsigned char digest[32]; /* of the bytes that are in force, where they have been read here */
    bool young;               /* the files may still have changed without its being seen */
    bool complained;          /* of `bad` */
    /* Of each worker; at first what the configuration's reader has read. */
    uint64_t generation;
    struct ssl_object certificate_object, key_object;
};

/* Of a context: by the number of the pair; NULL where it is a matter of variables. */
struct ssl_watch {
    struct watched **pairs;
    unsigned count;
};

/* watch_use.c, in a worker: the newest of it that there is. True: it is another one than the configuration's reader has seen. */
bool watched_refresh(struct watched *w, const struct logger *log);
/*
 * The pairs of a context as they are now, put into a connection whose handshake has come to that. 0, or -1: logged. Where none
 * has been replaced nothing is done: the context has them.
 */
int ssl_watch_use(SSL *ssl, const struct ssl_watch *watch, const struct logger *log);

#endif
