/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys of the three types: how they stand in the table, and how a longer one is cut to a shorter one in search of the
 * longest that is there. An address stands as its class and its bytes, masked, so that all ways to write a network are one key.
 */
#include <arpa/inet.h>

#include "core/base/fmt.h"
#include "core/os/socket.h"
#include "modules/keyval/internal.h"

unsigned class_count(enum keyval_type type)
{
    switch (type) {
    case KEYVAL_STRING:
        break;
    case KEYVAL_IP:
        return CLASS_IP_END;
    case KEYVAL_PREFIX:
        return CLASS_MAX;
    }
    return 0;
}

unsigned class_floor(enum keyval_type type, unsigned class_)
{
    return type == KEYVAL_IP && class_ >= CLASS_IP6 ? CLASS_IP6 : 0;
}

unsigned key_class(enum keyval_type type, struct str bytes)
{
    if (type == KEYVAL_IP)
        return (unsigned char) bytes.ptr[0];
    return (unsigned) bytes.len;
}

static unsigned mask_bits(const struct cidr *c)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < 16; i++)
        bits += (unsigned) __builtin_popcount(c->mask[i]);
    return bits;
}

static enum keyval_result ip_key(struct str text, struct key *key)
{
    static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
    const unsigned char *addr;
    struct cidr c;
    unsigned bits;
    size_t len;

    if (cidr_parse(&c, text) < 0)
        return KEYVAL_BAD_KEY;
    bits = mask_bits(&c);
    addr = c.addr;
    len = c.family == AF_INET ? 4 : 16;
    if (len == 16 && bits >= 96 && memcmp(addr, mapped, sizeof(mapped)) == 0) {
        addr += 12; /* an IPv4 address on an IPv6 socket */
        bits -= 96;
        len = 4;
    }
    key->class_ = (len == 4 ? CLASS_IP4 : CLASS_IP6) + bits;
    key->room[0] = (char) key->class_;
    memcpy(key->room + 1, addr, len);
    key->bytes = str_from(key->room, len + 1);
    return KEYVAL_OK;
}

enum keyval_result key_make(enum keyval_type type, struct str text, struct key *key)
{
    if (type == KEYVAL_IP)
        return ip_key(text, key);
    if (text.len > (type == KEYVAL_PREFIX ? KEYVAL_PREFIX_MAX : KEYVAL_KEY_MAX))
        return KEYVAL_TOO_LONG;
    key->bytes = text;
    key->class_ = (unsigned) text.len;
    return KEYVAL_OK;
}

void key_cut(enum keyval_type type, struct key *key, unsigned class_)
{
    unsigned bits;

    key->class_ = class_;
    if (type != KEYVAL_IP) {
        key->bytes.len = class_;
        return;
    }
    bits = class_ - class_floor(type, class_);
    key->room[0] = (char) class_;
    for (unsigned i = 0; i + 1 < key->bytes.len; i++) {
        unsigned n = bits > i * 8 ? MIN(bits - i * 8, 8) : 0;

        key->room[i + 1] = (char) ((unsigned char) key->room[i + 1] & (0xff00u >> n));
    }
}

struct str key_text(enum keyval_type type, struct str bytes, char *room)
{
    unsigned class_, bits, full;
    char *p;

    if (type != KEYVAL_IP)
        return bytes;
    class_ = key_class(type, bytes);
    bits = class_ - class_floor(type, class_);
    full = (unsigned) (bytes.len - 1) * 8;
    if (inet_ntop(full == 32 ? AF_INET : AF_INET6, bytes.ptr + 1, room, KEY_TEXT_MAX) == NULL)
        return STR("");
    p = room + strlen(room);
    if (bits < full) {
        *p++ = '/';
        p = fmt_u64(p, bits);
    }
    return str_from(room, (size_t) (p - room));
}

int class_next(const uint64_t *present, unsigned from, unsigned floor)
{
    unsigned word = from / 64;
    uint64_t bits = present[word] & (UINT64_MAX >> (63 - from % 64));

    for (;;) {
        if (bits != 0) {
            unsigned class_ = word * 64 + 63 - (unsigned) __builtin_clzll(bits);

            return class_ >= floor ? (int) class_ : -1;
        }
        if (word == 0 || word * 64 <= floor)
            return -1;
        bits = present[--word];
    }
}
