/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS as the core sees it: something that makes a conn out of a conn. Interfaces only; modules/ssl fills
 * them in with OpenSSL. What comes back is a conn like any other:
 *
 *   - Nothing is ready before the handshake has ended. CONN_WRITE then comes with the outcome, as it does on a
 *     socket that connects: ask `established`. A handshake that failed has been logged; reading and
 *     writing yield EPROTO, and only close makes sense.
 *   - With early data (TLS 1.3) that outcome is told when the first of it has come: then `early` is true, data can be read and
 *     answered, and the handshake goes on by itself. What is read may be a replay. If the handshake fails after all,
 *     everything yields EPROTO from then on.
 *   - An errno of EPROTO from an operation means that the reason has been logged already, in the words of the library.
 *   - shutdown sends close_notify and then shuts the conn below (both wait for the end of a handshake with early data);
 *     close sends one where that is due.
 */
#ifndef CORE_EVENT_TLS_H
#define CORE_EVENT_TLS_H

#include "core/event/conn.h"

/* What was read of a connection before it became TLS: bytes start..end of a block. The reference goes along. */
struct tls_first {
    struct block *block; /* NULL: nothing */
    size_t start, end;
};

struct tls_ops {
    /*
     * The server's end of TLS over an accepted conn, which now belongs to what is returned, as do its number and its log
     * lines. context: the module's own, of the listening address. The handshake goes on from the loop:
     * the caller sets owner, handler, log, timer and wishes first. NULL (logged): raw is still the caller's.
     */
    struct conn *(*accept)(void *context, struct conn *raw, struct tls_first first);
    /* Whether the handshake has ended well, or early data has come. */
    bool (*established)(const struct conn *c);
    /* Whether it has not ended yet: what has been read is early data. */
    bool (*early)(const struct conn *c);
    /* Then nothing is ready any more before it has ended, and CONN_WRITE comes with the outcome, again. */
    void (*hold)(struct conn *c);
    /* The protocol that was agreed on (ALPN); empty: none was. Lives as long as the connection. */
    struct str (*protocol)(const struct conn *c);
};

/* The first byte of a TLS record with a handshake message, or of an SSLv2 hello: no request begins with one. */
static inline bool tls_begins(const char *first)
{
    return *first == 0x16 || ((unsigned char) *first & 0x80) != 0;
}

#endif
