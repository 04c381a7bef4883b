/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HPACK's Huffman code (RFC 7541, 5.2): short codes, which nearly all of a field are, by one look into a table of 2 KiB;
 * the others by where the codes of a length begin. Called by hpack.c.
 */
#include "core/http/hpack.h"

#define HPACK_TABLE_HUFFMAN
#include "core/http/hpack_tables.h"

size_t hpack_huffman_len(struct str s)
{
    size_t bits = 0;

    for (size_t i = 0; i < s.len; i++)
        bits += huffman_codes[(unsigned char) s.ptr[i]].bits;
    return (bits + 7) / 8;
}

char *hpack_huffman_encode(char *p, struct str s)
{
    uint64_t word = 0;
    unsigned have = 0; /* bits of word that are to be written: fewer than 8 between two bytes */

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];

        word = word << huffman_codes[c].bits | huffman_codes[c].code;
        have += huffman_codes[c].bits;
        while (have >= 8) {
            have -= 8;
            *p++ = (char) (word >> have);
        }
    }
    if (have > 0)
        *p++ = (char) (word << (8 - have) | 0xffu >> have);
    return p;
}

/* The symbol of a code that begins a word of 32 bits, and its length. */
static unsigned long_code(uint32_t word, unsigned *bits)
{
    unsigned i = 0;

    while (i + 1 < ARRAY_LEN(huffman_long) && word >= huffman_long[i + 1].first)
        i++;
    *bits = huffman_long[i].bits;
    return huffman_bytes[huffman_long[i].index + ((word - huffman_long[i].first) >> (32 - *bits))];
}

char *hpack_huffman_decode(char *p, struct str s)
{
    const unsigned char *in = (const unsigned char *) s.ptr, *end = in + s.len;
    uint64_t word = 0;
    unsigned have = 0; /* the lowest bits of word: so many are still to be decoded */

    for (;;) {
        unsigned bits, symbol;
        uint32_t next;

        while (have <= 32 && in < end) {
            word = word << 8 | *in++;
            have += 8;
        }
        /* Behind the end there are ones, as the padding has: they begin no code that is whole. */
        next = have >= 32
                   ? (uint32_t) (word >> (have - 32))
                   : (uint32_t) (word << (32 - have)) | (uint32_t) (UINT64_C(0xffffffff) >> have);
        symbol = huffman_fast[next >> (32 - FAST_BITS)];
        bits = symbol >> 8;
        symbol &= 0xff;
        if (bits == 0)
            symbol = long_code(next, &bits);
        if (bits > have)
            break;
        if (symbol == HUFFMAN_EOS)
            return NULL;
        have -= bits;
        *p++ = (char) symbol;
    }
    if (have >= 8 || (word & ((1u << have) - 1)) != (1u << have) - 1)
        return NULL;
    return p;
}
