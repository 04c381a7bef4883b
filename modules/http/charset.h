/* SPDX-License-Identifier: BSD-2-Clause */
/* Recoding of text, without a request: for charset.c and its test. */
#ifndef MODULES_HTTP_CHARSET_H
#define MODULES_HTTP_CHARSET_H

#include "core/base/arena.h"
#include "core/base/chain.h"

#define UTF8_MAX 4 /* bytes of a character */

enum recode_kind { RECODE_BYTES, RECODE_TO_UTF8, RECODE_FROM_UTF8 };

/* From one charset to another; `to` names the other by its number. */
struct recoding {
    struct recoding *next;
    unsigned to;
    enum recode_kind kind;
    unsigned char bytes[256]; /* BYTES */
    struct {
        unsigned char len;
        char text[UTF8_MAX];
    } wide[256]; /* TO_UTF8 */
    unsigned char
        *pages[256]; /* FROM_UTF8: by the code point's high byte, each 256 long; NULL: none */
};

/* ASCII is itself, everything else is unknown. */
struct recoding *recoding_new(struct arena *arena, unsigned to, enum recode_kind kind);
/* FROM_UTF8: a code point, below 0x10000, is that byte. */
void recoding_add_page(struct arena *arena, struct recoding *rec, unsigned code,
                       unsigned char byte);

/* The bytes of a character that a piece ended within. */
struct recode_state {
    unsigned char len;
    unsigned char partial[UTF8_MAX];
};

/*
 * Recodes what is in the chain, LINKs stay where they are. `end`: nothing follows, an unfinished
 * character cannot be completed any more.
 */
void recode_chain(const struct recoding *rec, struct recode_state *state, struct chain *chain,
                  bool end);

/*
 * One character of UTF-8 (RFC 3629) at p. How many bytes it has, with *code; 0: it is cut short by
 * the end; -1: none begins here.
 */
int utf8_decode(const unsigned char *p, size_t len, unsigned *code);

#endif
