/* SPDX-License-Identifier: BSD-2-Clause */
/* Headers of the PROXY protocol in front of connections to servers, both versions. */
#include "core/base/fmt.h"
#include "core/http/proxy_protocol.h"

#include <arpa/inet.h>

#define V2_HEAD 16
#define V2_LOCAL 0x20
#define V2_PROXY 0x21
#define V2_TCP4 0x11
#define V2_TCP6 0x21

static bool is_internet(const struct addr *a)
{
    return a->sa.sa_family == AF_INET || a->sa.sa_family == AF_INET6;
}

/* As IPv6: an IPv4 address is mapped into it (RFC 4291, 2.5.5.2). */
static void as_v6(const struct addr *a, struct in6_addr *out)
{
    if (a->sa.sa_family == AF_INET6) {
        *out = a->in6.sin6_addr;
        return;
    }
    memset(out, 0, sizeof(*out));
    out->s6_addr[10] = out->s6_addr[11] = 0xff;
    memcpy(&out->s6_addr[12], &a->in.sin_addr, 4);
}

static char *put_ip(char *p, const struct addr *a, bool v6)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr in6;

    if (v6) {
        as_v6(a, &in6);
        inet_ntop(AF_INET6, &in6, text, sizeof(text));
    } else {
        inet_ntop(AF_INET, &a->in.sin_addr, text, sizeof(text));
    }
    return fmt_str(p, str_cstr(text));
}

static size_t write_v1(char *buf, const struct addr *source, const struct addr *dest, bool v6)
{
    char *p = fmt_str(buf, v6 ? STR("PROXY TCP6 ") : STR("PROXY TCP4 "));

    p = put_ip(p, source, v6);
    *p++ = ' ';
    p = put_ip(p, dest, v6);
    *p++ = ' ';
    p = fmt_u64(p, addr_port(source));
    *p++ = ' ';
    p = fmt_u64(p, addr_port(dest));
    p = fmt_str(p, STR("\r\n"));
    return (size_t) (p - buf);
}

static char *put_bytes(char *p, const void *from, size_t n)
{
    return mempcpy(p, from, n);
}

static char *put_port(char *p, const struct addr *a)
{
    uint16_t port = htons((uint16_t) addr_port(a));

    return put_bytes(p, &port, sizeof(port));
}

static size_t write_v2(char *buf, const struct addr *source, const struct addr *dest, bool v6)
{
    char *p = buf + V2_HEAD;
    struct in6_addr in6;

    if (v6) {
        as_v6(source, &in6);
        p = put_bytes(p, &in6, sizeof(in6));
        as_v6(dest, &in6);
        p = put_bytes(p, &in6, sizeof(in6));
    } else {
        p = put_bytes(p, &source->in.sin_addr, 4);
        p = put_bytes(p, &dest->in.sin_addr, 4);
    }
    p = put_port(p, source);
    p = put_port(p, dest);
    buf[12] = V2_PROXY;
    buf[13] = v6 ? V2_TCP6 : V2_TCP4;
    buf[15] = (char) (p - buf - V2_HEAD);
    return (size_t) (p - buf);
}

size_t proxy_protocol_write(char buf[PROXY_PROTOCOL_MAX], unsigned version,
                            const struct addr *source, const struct addr *dest)
{
    bool known = source != NULL && dest != NULL && is_internet(source) && is_internet(dest);
    bool v6 = known && (source->sa.sa_family == AF_INET6 || dest->sa.sa_family == AF_INET6);

    if (version == 1) {
        if (known)
            return write_v1(buf, source, dest, v6);
        return (size_t) (fmt_str(buf, STR("PROXY UNKNOWN\r\n")) - buf);
    }
    memcpy(buf, "\r\n\r\n\0\r\nQUIT\n", 12);
    memset(buf + 12, 0, V2_HEAD - 12);
    if (known)
        return write_v2(buf, source, dest, v6);
    buf[12] = V2_LOCAL;
    return V2_HEAD;
}
