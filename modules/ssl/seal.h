/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Encryption of records by ourselves (seal.c), for conn_tls_wire.c alone.
 */
#ifndef MODULES_SSL_SEAL_H
#define MODULES_SSL_SEAL_H

#include <linux/tls.h>

#include "core/base/str.h"

#define SEAL_DATA 23      /* the type of a record with data */
#define SEAL_ALERT 21     /* with an alert */
#define SEAL_HANDSHAKE 22 /* with a message of the handshake's kind */
#define SEAL_EXTRA 32     /* what a record has more than its contents, at most */
#define SEAL_MAX 16384    /* contents of a record */

/* Ciphers: AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305; the first is none. */
#define SEAL_KINDS 4

/* Keys in the kernel's form. */
struct seal_info {
    union {
        struct tls_crypto_info common;
        struct tls12_crypto_info_aes_gcm_128 aes128;
        struct tls12_crypto_info_aes_gcm_256 aes256;
        struct tls12_crypto_info_chacha20_poly1305 chacha20;
    };
};

/* What the library handed over with its write keys. Zeroed: nothing. */
struct seal {
    uint8_t kind;       /* private: the cipher; 0: none */
    bool tls13;
    unsigned char key[32];
    unsigned char iv[12];
    uint64_t sequence;  /* of the next record */
    uint64_t explicit_; /* TLS 1.2 with GCM: the part of the next nonce that is sent with it */
};

static inline bool seal_active(const struct seal *s)
{
    return s->kind != 0;
}

/* Whether this library hands its keys over in the form that is known here; else nothing is ever taken. */
bool seal_known(void);
/* Keys in the kernel's form, by the library. Whether it is one that is known; else s is as it was. */
bool seal_take(struct seal *s, const void *info);
/* The other way, with the number of the next record. How long they are. */
size_t seal_give(const struct seal *s, struct seal_info *info);
/* The number in keys that came back from the kernel. */
uint64_t seal_sequence_of(const struct seal_info *info);
/* What a record has more than its contents. */
uint8_t seal_extra(const struct seal *s);
const char *seal_name(const struct seal *s);
/* The keys are forgotten. */
void seal_drop(struct seal *s);

/*
 * One record of len bytes of that type, written from out on, which has room for len + SEAL_EXTRA: begin, then the contents in any number
 * of pieces, then the end, which says how long it became. Zero: the library could not do it, and the record is void.
 */
void seal_begin(struct seal *s, uint8_t type, size_t len, char *out);
void seal_add(const char *ptr, size_t len);
size_t seal_end(void);

/* Frees what all connections share (leak checks). */
void seal_trim(void);

#endif
