/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads ClientHello messages for the variables that tell clients apart. Everything here is input from
 * outside: each length is checked against what is left of the part that it stands in.
 */
#include "modules/ssl/hello.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "core/base/fmt.h"

enum {
    EXT_SERVER_NAME = 0,
    EXT_GROUPS = 10,
    EXT_POINT_FORMATS = 11,
    EXT_SIGNATURES = 13,
    EXT_ALPN = 16,
    EXT_VERSIONS = 43,
};

#define CLIENT_HELLO 1
#define RANDOM_LEN 32
#define SORTED_MAX 512 /* ciphers, or extensions: ten times what any client sends */

static unsigned get16(const unsigned char *p)
{
    return (unsigned) p[0] << 8 | p[1];
}

/* Takes n bytes off the front. */
static int take(struct hello_part *from, size_t n, struct hello_part *out)
{
    if (from->len < n)
        return -1;
    *out = (struct hello_part){ from->ptr, n };
    from->ptr += n;
    from->len -= n;
    return 0;
}

/* Takes a part whose length stands before it, in `width` bytes. */
static int take_counted(struct hello_part *from, unsigned width, struct hello_part *out)
{
    struct hello_part prefix;
    size_t n = 0;

    if (take(from, width, &prefix) != 0)
        return -1;
    for (unsigned i = 0; i < width; i++)
        n = n << 8 | prefix.ptr[i];
    return take(from, n, out);
}

/* A list of two-byte numbers that is all there is in `body`. */
static int take_list(struct hello_part body, unsigned width, struct hello_part *out)
{
    return take_counted(&body, width, out) == 0 && body.len == 0 && out->len % 2 == 0 ? 0 : -1;
}

static int read_alpn(struct hello_part body, struct hello *h)
{
    struct hello_part list;

    if (take_counted(&body, 2, &list) != 0)
        return -1;
    return take_counted(&list, 1, &h->alpn);
}

static int read_extension(unsigned type, struct hello_part body, struct hello *h)
{
    switch (type) {
    case EXT_SERVER_NAME: h->has_name = true; return 0;
    case EXT_GROUPS: return take_list(body, 2, &h->groups);
    case EXT_POINT_FORMATS: return take_counted(&body, 1, &h->formats);
    case EXT_SIGNATURES: return take_list(body, 2, &h->signatures);
    case EXT_ALPN: return read_alpn(body, h);
    case EXT_VERSIONS: return take_list(body, 1, &h->versions);
    default: return 0;
    }
}

/* The next extension's type, or -1: there is none, or it is cut short. */
static int next_extension(struct hello_part *rest, struct hello_part *body)
{
    struct hello_part type;

    if (take(rest, 2, &type) != 0 || take_counted(rest, 2, body) != 0)
        return -1;
    return (int) get16(type.ptr);
}

int hello_parse(struct hello *h, const unsigned char *msg, size_t len)
{
    struct hello_part all = { msg, len }, part, rest;

    memset(h, 0, sizeof(*h));
    if (take(&all, 1, &part) != 0 || part.ptr[0] != CLIENT_HELLO)
        return -1;
    if (take_counted(&all, 3, &rest) != 0 || all.len != 0)
        return -1;
    if (take(&rest, 2, &part) != 0)
        return -1;
    h->version = get16(part.ptr);
    if (take(&rest, RANDOM_LEN, &part) != 0 || take_counted(&rest, 1, &part) != 0
        || take_counted(&rest, 2, &h->ciphers) != 0 || h->ciphers.len % 2 != 0
        || take_counted(&rest, 1, &part) != 0)
        return -1;
    if (rest.len == 0)
        return 0; /* from before extensions */
    if (take_counted(&rest, 2, &h->extensions) != 0 || rest.len != 0)
        return -1;
    for (rest = h->extensions; rest.len > 0;) {
        int type = next_extension(&rest, &part);

        if (type < 0 || read_extension((unsigned) type, part, h) != 0)
            return -1;
    }
    return 0;
}

/* Values sent so that servers learn to ignore what they do not know (RFC 8701): noise here. */
static bool is_grease(unsigned n)
{
    return (n & 0x0f0f) == 0x0a0a && n >> 8 == (n & 0xff);
}

/* Digests of text that is made piece by piece ------------------------------------------------------ */

struct digest {
    EVP_MD_CTX *ctx;
    bool failed;
    bool started; /* an element of the list has been written */
};

static void digest_begin(struct digest *d, const EVP_MD *md)
{
    *d = (struct digest){ .ctx = EVP_MD_CTX_new() };
    d->failed = d->ctx == NULL || EVP_DigestInit_ex(d->ctx, md, NULL) != 1;
}

static void digest_add(struct digest *d, const char *ptr, size_t len)
{
    if (!d->failed && EVP_DigestUpdate(d->ctx, ptr, len) != 1)
        d->failed = true;
}

/* Ends a list of elements; the next one follows. */
static void digest_field(struct digest *d, char sep)
{
    digest_add(d, &sep, 1);
    d->started = false;
}

/* Adds an element of a list: decimal, as JA3 has it, or four hex digits, as JA4. */
static void digest_number(struct digest *d, char sep, unsigned n, bool hex)
{
    unsigned char bytes[2] = { (unsigned char) (n >> 8), (unsigned char) n };
    char text[FMT_U64_MAX + 1], *p = text;

    if (d->started)
        *p++ = sep;
    p = hex ? fmt_hex_bytes(p, bytes, 2) : fmt_u64(p, n);
    digest_add(d, text, (size_t) (p - text));
    d->started = true;
}

/* 0, or -1: something failed on the way. out has room for EVP_MAX_MD_SIZE. */
static int digest_end(struct digest *d, unsigned char *out)
{
    bool ok = !d->failed && EVP_DigestFinal_ex(d->ctx, out, NULL) == 1;

    EVP_MD_CTX_free(d->ctx);
    return ok ? 0 : -1;
}

/* JA3 ------------------------------------------------------------------------------------------------ */

static void ja3_list(struct digest *d, struct hello_part list)
{
    for (size_t i = 0; i + 1 < list.len; i += 2) {
        unsigned n = get16(list.ptr + i);

        if (!is_grease(n))
            digest_number(d, '-', n, false);
    }
    digest_field(d, ',');
}

int hello_ja3(const struct hello *h, char out[HELLO_JA3_LEN])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    struct hello_part rest = h->extensions, body;
    struct digest d;

    digest_begin(&d, EVP_md5());
    digest_number(&d, '-', h->version, false);
    digest_field(&d, ',');
    ja3_list(&d, h->ciphers);
    while (rest.len > 0) {
        unsigned type = (unsigned) next_extension(&rest, &body);

        if (!is_grease(type))
            digest_number(&d, '-', type, false);
    }
    digest_field(&d, ',');
    ja3_list(&d, h->groups);
    for (size_t i = 0; i < h->formats.len; i++)
        digest_number(&d, '-', h->formats.ptr[i], false);
    if (digest_end(&d, md) != 0)
        return -1;
    fmt_hex_bytes(out, md, HELLO_JA3_LEN / 2);
    return 0;
}

/* JA4 ------------------------------------------------------------------------------------------------ */

struct numbers {
    uint16_t items[SORTED_MAX];
    unsigned count;
};

static int numbers_add(struct numbers *n, unsigned value)
{
    if (is_grease(value))
        return 0;
    if (n->count == SORTED_MAX)
        return -1;
    n->items[n->count++] = (uint16_t) value;
    return 0;
}

static int compare(const void *a, const void *b)
{
    return (int) *(const uint16_t *) a - (int) *(const uint16_t *) b;
}

static void digest_sorted(struct digest *d, struct numbers *n)
{
    qsort(n->items, n->count, sizeof(n->items[0]), compare);
    for (unsigned i = 0; i < n->count; i++)
        digest_number(d, ',', n->items[i], true);
}

/* The first twelve digits of the digest; zeros if there was nothing to make it of. */
static int ja4_hash(struct digest *d, bool empty, char *out)
{
    unsigned char md[EVP_MAX_MD_SIZE];

    if (digest_end(d, md) != 0)
        return -1;
    if (empty)
        memset(md, 0, 6);
    fmt_hex_bytes(out, md, 6);
    return 0;
}

static const char *ja4_version(const struct hello *h)
{
    unsigned version = 0;

    for (size_t i = 0; i + 1 < h->versions.len; i += 2) {
        unsigned n = get16(h->versions.ptr + i);

        if (!is_grease(n))
            version = MAX(version, n);
    }
    switch (h->versions.len > 0 ? version : h->version) {
    case 0x0304: return "13";
    case 0x0303: return "12";
    case 0x0302: return "11";
    case 0x0301: return "10";
    case 0x0300: return "s3";
    case 0x0002: return "s2";
    default: return "00";
    }
}

static bool is_alnum(unsigned char c)
{
    return (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
}

/* The first and the last sign of the protocol; of its hex digits where that is not printable. */
static void ja4_alpn(struct hello_part alpn, char out[2])
{
    unsigned char first, last;
    char hex[2];

    out[0] = out[1] = '0';
    if (alpn.len == 0)
        return;
    first = alpn.ptr[0];
    last = alpn.ptr[alpn.len - 1];
    if (is_alnum(first) && is_alnum(last)) {
        out[0] = (char) first;
        out[1] = (char) last;
        return;
    }
    fmt_hex_bytes(hex, &first, 1);
    out[0] = hex[0];
    fmt_hex_bytes(hex, &last, 1);
    out[1] = hex[1];
}

static char *ja4_count(char *p, unsigned n)
{
    n = MIN(n, 99);
    *p++ = (char) ('0' + n / 10);
    *p++ = (char) ('0' + n % 10);
    return p;
}

static int ja4_ciphers(const struct hello *h, unsigned *count, char *out)
{
    struct numbers n = { .count = 0 };
    struct digest d;

    for (size_t i = 0; i + 1 < h->ciphers.len; i += 2) {
        if (numbers_add(&n, get16(h->ciphers.ptr + i)) != 0)
            return -1;
    }
    *count = n.count;
    digest_begin(&d, EVP_sha256());
    digest_sorted(&d, &n);
    return ja4_hash(&d, n.count == 0, out);
}

/* Names and protocols differ from site to site with the same program: they are counted only. */
static int ja4_extensions(const struct hello *h, unsigned *count, char *out)
{
    struct hello_part rest = h->extensions, body;
    struct numbers n = { .count = 0 };
    struct digest d;
    unsigned uncounted = 0;

    while (rest.len > 0) {
        unsigned type = (unsigned) next_extension(&rest, &body);

        if (type == EXT_SERVER_NAME || type == EXT_ALPN)
            uncounted++;
        else if (numbers_add(&n, type) != 0)
            return -1;
    }
    *count = n.count + uncounted;
    digest_begin(&d, EVP_sha256());
    digest_sorted(&d, &n);
    if (h->signatures.len > 0)
        digest_field(&d, '_');
    for (size_t i = 0; i + 1 < h->signatures.len; i += 2) {
        unsigned value = get16(h->signatures.ptr + i);

        if (!is_grease(value))
            digest_number(&d, ',', value, true);
    }
    return ja4_hash(&d, n.count == 0, out);
}

int hello_ja4(const struct hello *h, char out[HELLO_JA4_LEN])
{
    const char *version = ja4_version(h);
    unsigned ciphers, extensions;
    char *p = out;

    if (ja4_ciphers(h, &ciphers, out + 11) != 0 || ja4_extensions(h, &extensions, out + 24) != 0)
        return -1;
    *p++ = 't';
    *p++ = version[0];
    *p++ = version[1];
    *p++ = h->has_name ? 'd' : 'i';
    p = ja4_count(p, ciphers);
    p = ja4_count(p, extensions);
    ja4_alpn(h->alpn, p);
    out[10] = out[23] = '_';
    return 0;
}
