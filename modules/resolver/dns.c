/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads DNS answers for resolver.c. Everything here is input from outside: each length is
 * checked against the message before it is used.
 */
#include "modules/resolver/dns.h"

#define CARES_NO_DEPRECATED
#include <ares.h>

#define HEADER 12
#define TYPE_CNAME 5
#define CLASS_IN 1

struct cursor {
    const unsigned char *msg;
    size_t len;
    size_t at;
};

static unsigned get16(const unsigned char *p)
{
    return (unsigned) p[0] << 8 | p[1];
}

static uint32_t get32(const unsigned char *p)
{
    return (uint32_t) get16(p) << 16 | get16(p + 2);
}

/* Steps over a name; a compression pointer ends it (RFC 1035, 4.1.4). */
static int skip_name(struct cursor *c)
{
    while (c->at < c->len) {
        unsigned n = c->msg[c->at];

        if (n >= 0xc0) {
            c->at += 2;
            return c->at <= c->len ? 0 : -1;
        }
        if (n > 63)
            return -1;
        c->at += n + 1;
        if (n == 0)
            return c->at <= c->len ? 0 : -1;
    }
    return -1;
}

static int read_srv(const struct cursor *c, unsigned rdlen, struct dns_record *r)
{
    const unsigned char *p = c->msg + c->at;
    char *name;
    long used;
    int status;
    size_t n;

    if (rdlen < 7)
        return -1;
    r->priority = (uint16_t) get16(p);
    r->weight = (uint16_t) get16(p + 2);
    r->port = (uint16_t) get16(p + 4);
    status = ares_expand_name(p + 6, c->msg, (int) c->len, &name, &used);
    if (status != ARES_SUCCESS || used > (long) rdlen - 6) {
        if (status == ARES_SUCCESS)
            ares_free_string(name);
        return -1;
    }
    n = strlen(name);
    if (n < sizeof(r->target))
        memcpy(r->target, name, n + 1);
    ares_free_string(name);
    return n < sizeof(r->target) ? 0 : -1;
}

static int read_data(const struct cursor *c, unsigned type, unsigned rdlen, struct dns_record *r)
{
    const unsigned char *p = c->msg + c->at;

    switch (type) {
    case DNS_A:
        if (rdlen != 4)
            return -1;
        r->addr.len = sizeof(r->addr.in);
        r->addr.in.sin_family = AF_INET;
        memcpy(&r->addr.in.sin_addr, p, 4);
        return 0;
    case DNS_AAAA:
        if (rdlen != 16)
            return -1;
        r->addr.len = sizeof(r->addr.in6);
        r->addr.in6.sin6_family = AF_INET6;
        memcpy(&r->addr.in6.sin6_addr, p, 16);
        return 0;
    default: return read_srv(c, rdlen, r);
    }
}

/* A TTL with the top bit set counts as 0 (RFC 2181, 8). */
static uint32_t read_ttl(const unsigned char *p)
{
    uint32_t ttl = get32(p);

    return ttl > INT32_MAX ? 0 : ttl;
}

int dns_answers(const unsigned char *msg, size_t len, unsigned type,
                void (*found)(void *arg, const struct dns_record *record), void *arg)
{
    struct cursor c = { msg, len, HEADER };
    uint32_t least = INT32_MAX;
    unsigned questions, answers;
    int count = 0;

    if (len < HEADER)
        return -1;
    questions = get16(msg + 4);
    answers = get16(msg + 6);
    for (; questions > 0; questions--) {
        if (skip_name(&c) != 0 || c.len - c.at < 4)
            return -1;
        c.at += 4;
    }
    for (; answers > 0; answers--) {
        struct dns_record r = { 0 };
        const unsigned char *p;
        unsigned rdlen;

        if (skip_name(&c) != 0 || c.len - c.at < 10)
            return -1;
        p = msg + c.at;
        rdlen = get16(p + 8);
        c.at += 10;
        if (c.len - c.at < rdlen)
            return -1;
        if (get16(p + 2) == CLASS_IN && get16(p) == TYPE_CNAME)
            least = MIN(least, read_ttl(p + 4));
        if (get16(p + 2) == CLASS_IN && get16(p) == type) {
            if (read_data(&c, type, rdlen, &r) != 0)
                return -1;
            r.ttl_s = MIN(least, read_ttl(p + 4));
            found(arg, &r);
            count++;
        }
        c.at += rdlen;
    }
    return count;
}
