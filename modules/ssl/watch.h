/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_certificate_watch: pairs of files that are served anew when they have been replaced. The master looks at the files and
 * reads them (watch.c), for workers may not be allowed to; what it has found good lies in shared memory, from where
 * workers take it (watch_use.c). Where there is a key process the master reads certificates only (watch_offer.c).
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
    uint32_t key_generation; /* where the key process has the key: key_len is 0 then */
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
    struct keyproc_key *kept; /* the key, if it is the key process's; NULL: in the slot */
    struct watch_offer *offer; /* of which the process has not reported yet */
    unsigned *offers;          /* how many there are */
    bool lacks;                /* the process had to begin without the key */
    /* Of each worker; at first what the configuration's reader has read. */
    uint64_t generation;
    struct ssl_object certificate_object, key_object;
};

/* Of a context: by the number of the pair; NULL where it is a matter of variables. */
struct ssl_watch {
    struct watched **pairs;
    unsigned count;
};

/* In a worker that has been forked: it only reads what the master publishes. */
void ssl_watch_forked(void);

/* Both files in a slot's form, or, where the key is not the master's to read, the certificate: a scratch. */
struct watch_reading {
    uint32_t certificate_len, key_len;
    char bytes[WATCH_PAIR_MAX];
    char why[1200];
    bool known; /* it is what the configuration's reader has seen */
};

/* watch.c, in the master. The state of the files. */
void watch_look_at(const struct watched *w, struct watch_state *now);
bool watch_same_state(const struct watch_state *a, const struct watch_state *b);
/* False, and why a file is not fit: with what is in the library's queue. */
bool watch_blame(struct watch_reading *r, const struct ssl_file *file, const char *why);
bool watch_same_chain(const STACK_OF(X509) * a, const STACK_OF(X509) * b);
/* The certificate alone, as watch_file has it. False: with why, unless it changes as we speak. */
bool watch_read_certificate(const struct watched *w, const struct watch_state *now,
                            struct watch_reading *r);
/* For all workers to see: a slot's bytes; of the key only the generation, where the key process has it. */
void watch_publish(struct watched *w, const char *bytes, uint32_t certificate_len,
                   uint32_t key_len, uint32_t key_generation);
/* What is there is what is served now; or is not fit to be, which is told when it looks the same at the next look. */
void watch_settle(struct watched *w, const struct watch_state *now);
void watch_unfit(struct watched *w, const struct watch_state *now, const char *why);

/*
 * watch_offer.c: a pair whose key is the key process's. The files are offered to that (false: why not, in r, or nothing: not now);
 * what it has reported is heeded; an offer is forgotten.
 */
bool watch_offer(const struct config *config, struct watched *w, const struct watch_state *now,
                 struct watch_reading *r);
void watch_heed_reports(const struct config *config);
void watch_offer_free(struct watched *w);

/* watch_use.c, in a worker: the newest of it that there is. True: it is another one than the configuration's reader has seen. */
bool watched_refresh(struct watched *w, const struct logger *log);
/*
 * The pairs of a context as they are now, put into a connection whose handshake has come to that. 0, or -1: logged. Where none
 * has been replaced nothing is done: the context has them.
 */
int ssl_watch_use(SSL *ssl, const struct ssl_watch *watch, const struct logger *log);

#endif
