/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host and port of a Host field or of an absolute request target (RFC 3986, 3.2.2; RFC 9110,
 * 7.2). Strict: what two servers could read as two hosts is no host. Called by the parser
 * and by whoever needs the normal form.
 */
#include <arpa/inet.h>

#include "core/base/arena.h"
#include "core/http/h1.h"

/*
 * Signs of a reg-name: 1: as it is, 2: to be lowered, 3: '%', which takes two hexadecimal digits.
 */
static const unsigned char host_class[128] = {
    ['a' ... 'z'] = 1, ['0' ... '9'] = 1, ['-'] = 1,         ['.'] = 1, ['_'] = 1,
    ['~'] = 1,         ['!'] = 1,         ['$'] = 1,         ['&'] = 1, ['\''] = 1,
    ['('] = 1,         [')'] = 1,         ['*'] = 1,         ['+'] = 1, [','] = 1,
    [';'] = 1,         ['='] = 1,         ['A' ... 'Z'] = 2, ['%'] = 3,
};

static bool is_hex(char c)
{
    unsigned char l = ascii_lower((unsigned char) c);

    return (l >= '0' && l <= '9') || (l >= 'a' && l <= 'f');
}

/* "[…]" at the front: its length, or 0 if that is no IPv6 address in brackets. */
static size_t scan_literal(struct str s, bool *upper)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    size_t n = 1;

    while (n < s.len && s.ptr[n] != ']') {
        if (n > sizeof(text) - 1)
            return 0;
        if (s.ptr[n] >= 'A' && s.ptr[n] <= 'F')
            *upper = true;
        text[n - 1] = s.ptr[n];
        n++;
    }
    if (n == s.len || n > sizeof(text) - 1)
        return 0;
    text[n - 1] = '\0';
    /* A NUL inside would end the text early: the lengths must agree. */
    if (strlen(text) != n - 1 || inet_pton(AF_INET6, text, &addr) != 1)
        return 0;
    return n + 1;
}

/*
 * A registered name or IPv4 address at the front: its length, or 0. Ends before ':' or at the end.
 */
static size_t scan_name(struct str s, bool *upper)
{
    size_t i;

    for (i = 0; i < s.len && s.ptr[i] != ':'; i++) {
        unsigned char c = (unsigned char) s.ptr[i];
        unsigned char class_ = c < 128 ? host_class[c] : 0;

        if (class_ == 0)
            return 0;
        if (class_ == 2)
            *upper = true;
        if (class_ == 3 && (s.len - i < 3 || !is_hex(s.ptr[i + 1]) || !is_hex(s.ptr[i + 2])))
            return 0;
        if (c == '.' && i > 0 && s.ptr[i - 1] == '.')
            return 0;
    }
    return i;
}

/* *len: of the host without port and final dot. */
static int host_scan(struct str host, size_t *len, bool *upper, unsigned *port)
{
    uint64_t number = 0;
    size_t n;

    *upper = false;
    if (host.len == 0)
        return -1;
    n = host.ptr[0] == '[' ? scan_literal(host, upper) : scan_name(host, upper);
    if (n == 0)
        return -1;
    if (n < host.len) {
        struct str digits = str_skip(host, n + 1);

        /* "host:" with nothing behind is valid (RFC 3986, 3.2.3). */
        if (host.ptr[n] != ':' ||
            (digits.len > 0 && (str_to_u64(digits, &number) != 0 || number > 65535)))
            return -1;
    }
    if (host.ptr[n - 1] == '.')
        n--;
    *len = n;
    *port = (unsigned) number;
    return n > 0 ? 0 : -1;
}

bool h1_host_valid(struct str host)
{
    size_t len;
    unsigned port;
    bool upper;

    return host_scan(host, &len, &upper, &port) == 0;
}

int h1_host_normalize(struct arena *arena, struct str host, struct str *out, unsigned *port)
{
    size_t len;
    bool upper;

    if (host_scan(host, &len, &upper, port) != 0)
        return -1;
    host.len = len;
    *out = upper ? str_lower(arena, host) : host;
    return 0;
}
