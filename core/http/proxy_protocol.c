/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PROXY protocol's headers, versions 1 (a line of text) and 2 (binary), as a load balancer puts
 * them in front of a connection. Read by the drivers of listening addresses that ask for it.
 * Strict: whoever may send this header decides what addresses the logs and the access rules see.
 */
#include "core/http/proxy_protocol.h"

#include <arpa/inet.h>

#define V1_MAX 107
#define V2_MAX 4096
#define V2_HEAD 16

static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* The word in front of the next single space; takes both off. -1: there is no such thing. */
static int take_word(struct str *s, char *out, size_t size)
{
    ssize_t n = str_chr(*s, ' ');

    if (n <= 0 || (size_t) n >= size)
        return -1;
    memcpy(out, s->ptr, (size_t) n);
    out[n] = '\0';
    *s = str_skip(*s, (size_t) n + 1);
    return strlen(out) == (size_t) n ? 0 : -1;
}

static int read_port(struct str s, unsigned *port)
{
    uint64_t n;

    /* No leading zeros, says the specification. */
    if (s.len == 0 || s.len > 5 || (s.len > 1 && s.ptr[0] == '0') || str_to_u64(s, &n) != 0 ||
        n > 65535)
        return -1;
    *port = (unsigned) n;
    return 0;
}

static int set_text(struct addr *a, bool v6, const char *text)
{
    memset(a, 0, sizeof(*a));
    if (v6) {
        a->len = sizeof(a->in6);
        a->in6.sin6_family = AF_INET6;
        return inet_pton(AF_INET6, text, &a->in6.sin6_addr) == 1 ? 0 : -1;
    }
    a->len = sizeof(a->in);
    a->in.sin_family = AF_INET;
    return inet_pton(AF_INET, text, &a->in.sin_addr) == 1 ? 0 : -1;
}

/* "TCP4 1.2.3.4 5.6.7.8 1234 80": what stands between "PROXY " and CRLF. */
static int v1_addresses(struct str s, struct addr *source, struct addr *dest)
{
    char family[8], from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], port[8];
    unsigned from_port, to_port;
    struct addr a, b;
    bool v6;

    if (take_word(&s, family, sizeof(family)) != 0 || take_word(&s, from, sizeof(from)) != 0 ||
        take_word(&s, to, sizeof(to)) != 0 || take_word(&s, port, sizeof(port)) != 0)
        return -1;
    v6 = strcmp(family, "TCP6") == 0;
    if (!v6 && strcmp(family, "TCP4") != 0)
        return -1;
    if (set_text(&a, v6, from) != 0 || set_text(&b, v6, to) != 0 ||
        read_port(str_cstr(port), &from_port) != 0 || read_port(s, &to_port) != 0)
        return -1;
    addr_set_port(&a, from_port);
    addr_set_port(&b, to_port);
    *source = a;
    *dest = b;
    return 0;
}

static ssize_t parse_v1(const char *ptr, size_t len, struct addr *source, struct addr *dest,
                        bool *known)
{
    static const char prefix[] = "PROXY ";
    const char *end = memchr(ptr, '\n', MIN(len, V1_MAX));
    size_t have = MIN(len, sizeof(prefix) - 1);
    struct str s;

    if (memcmp(ptr, prefix, have) != 0)
        return -1;
    if (end == NULL)
        return len < V1_MAX ? 0 : -1;
    if ((size_t) (end - ptr) < sizeof(prefix) || end[-1] != '\r')
        return -1;
    s = str_from(ptr + have, (size_t) (end - ptr) - have - 1);
    *known = false;
    /* What may follow UNKNOWN is to be ignored. */
    if (!str_eq(s, STR("UNKNOWN")) && !str_starts(s, STR("UNKNOWN "))) {
        if (v1_addresses(s, source, dest) != 0)
            return -1;
        *known = true;
    }
    return end + 1 - ptr;
}

static void set_v4(struct addr *a, const char *ip, const char *port)
{
    memset(a, 0, sizeof(*a));
    a->len = sizeof(a->in);
    a->in.sin_family = AF_INET;
    memcpy(&a->in.sin_addr, ip, 4);
    memcpy(&a->in.sin_port, port, 2);
}

static void set_v6(struct addr *a, const char *ip, const char *port)
{
    memset(a, 0, sizeof(*a));
    a->len = sizeof(a->in6);
    a->in6.sin6_family = AF_INET6;
    memcpy(&a->in6.sin6_addr, ip, 16);
    memcpy(&a->in6.sin6_port, port, 2);
}

static void set_unix(struct addr *a, const char *path)
{
    size_t n = strnlen(path, sizeof(a->un.sun_path));

    memset(a, 0, sizeof(*a));
    a->un.sun_family = AF_UNIX;
    memcpy(a->un.sun_path, path, n);
    /* A path that fills its place has no NUL behind it. */
    a->len =
        (socklen_t) (offsetof(struct sockaddr_un, sun_path) + MIN(n + 1, sizeof(a->un.sun_path)));
}

/* The n bytes behind the fixed part. -1 if the family's addresses do not fit in them. */
static int v2_addresses(unsigned family, const char *p, size_t n, struct addr *source,
                        struct addr *dest, bool *known)
{
    switch (family >> 4) {
    case 1:
        if (n < 12)
            return -1;
        set_v4(source, p, p + 8);
        set_v4(dest, p + 4, p + 10);
        break;
    case 2:
        if (n < 36)
            return -1;
        set_v6(source, p, p + 32);
        set_v6(dest, p + 16, p + 34);
        break;
    case 3:
        if (n < 216)
            return -1;
        set_unix(source, p);
        set_unix(dest, p + 108);
        break;
    default: return 0;
    }
    *known = true;
    return 0;
}

static ssize_t parse_v2(const char *ptr, size_t len, struct addr *source, struct addr *dest,
                        bool *known)
{
    const unsigned char *head = (const unsigned char *) ptr;
    unsigned command, family;
    size_t n;

    if (len < V2_HEAD)
        return len > 12 && head[12] >> 4 != 2 ? -1 : 0;
    command = head[12] & 15;
    family = head[13];
    n = (size_t) head[14] << 8 | head[15];
    if (head[12] >> 4 != 2 || command > 1 || V2_HEAD + n > V2_MAX)
        return -1;
    /* Families and transports that are not defined: the sender speaks something else. */
    if (family >> 4 > 3 || (family & 15) > 2)
        return -1;
    if (len < V2_HEAD + n)
        return 0;
    *known = false;
    if (command == 1 && (family & 15) != 0 &&
        v2_addresses(family, ptr + V2_HEAD, n, source, dest, known) != 0)
        return -1;
    return (ssize_t) (V2_HEAD + n);
}

ssize_t proxy_protocol_parse(const char *ptr, size_t len, struct addr *source, struct addr *dest,
                             bool *known)
{
    if (len == 0)
        return 0;
    if (memcmp(ptr, v2_signature, MIN(len, sizeof(v2_signature))) == 0)
        return len < sizeof(v2_signature) ? 0 : parse_v2(ptr, len, source, dest, known);
    return parse_v1(ptr, len, source, dest, known);
}
