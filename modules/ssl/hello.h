/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a ClientHello says of the program that sent it: its JA3 and JA4 fingerprints. The library
 * drops extensions that it does not know, and these are what tells clients apart, so the message is
 * read here once more. No state and no allocation: everything points into the message.
 */
#ifndef MODULES_SSL_HELLO_H
#define MODULES_SSL_HELLO_H

#include "core/base/str.h"

/* Counted bytes of the message. */
struct hello_part {
    const unsigned char *ptr;
    size_t len;
};

struct hello {
    unsigned version;             /* legacy_version: 0x0303 for TLS 1.2 and all later ones */
    struct hello_part ciphers;    /* 2 bytes each, as the four that follow */
    struct hello_part groups, signatures;
    struct hello_part versions;   /* supported_versions; empty before TLS 1.3 */
    struct hello_part formats;    /* of points, 1 byte each */
    struct hello_part extensions; /* the whole block, checked */
    struct hello_part alpn;       /* the protocol named first */
    bool has_name;                /* the server_name extension is there */
};

/*
 * Reads a handshake message that begins with its type and length (RFC 8446, 4.1.2). 0, or -1: it is no
 * ClientHello or is malformed.
 */
int hello_parse(struct hello *h, const unsigned char *msg, size_t len);

#define HELLO_JA3_LEN 32
#define HELLO_JA4_LEN 36

/* The MD5 digest, in hex, of the text which JA3 makes of it. 0, or -1: the library failed. */
int hello_ja3(const struct hello *h, char out[HELLO_JA3_LEN]);
/* JA4 of a connection over TCP ("t13d1516h2_8daaf6152771_e5627efa2ab1"). 0, or -1: as above, or there is too much to sort. */
int hello_ja4(const struct hello *h, char out[HELLO_JA4_LEN]);

#endif
