/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the key process is asked, read as what it may be: the work of an attacker who has taken over a worker. A key signs what TLS has
 * signed, whole, so that nobody obtains a signature under a certificate, a token or a program; and a server's key nothing that
 * a client would sign. No state, no allocation, no library.
 */
#include "modules/ssl/keyproc.h"

#define RANDOMS 64
#define SPACES 64
#define CLIENT_HELLO 1
#define NAMED_CURVE 3
#define POINT_MAX 133 /* secp521r1, uncompressed */
#define DIGEST_MIN 32
#define DIGEST_MAX 48

static const char *const digest_names[] = {
    [KEYPROC_NO_DIGEST] = "",      [KEYPROC_MD5_SHA1] = "MD5-SHA1", [KEYPROC_SHA1] = "SHA1",
    [KEYPROC_SHA224] = "SHA2-224", [KEYPROC_SHA256] = "SHA2-256",   [KEYPROC_SHA384] = "SHA2-384",
    [KEYPROC_SHA512] = "SHA2-512",
};

static const struct {
    const char *name;
    unsigned digest;
} other_names[] = {
    { "SHA-1", KEYPROC_SHA1 },     { "SHA224", KEYPROC_SHA224 },  { "SHA256", KEYPROC_SHA256 },
    { "SHA384", KEYPROC_SHA384 },  { "SHA512", KEYPROC_SHA512 },  { "SHA-224", KEYPROC_SHA224 },
    { "SHA-256", KEYPROC_SHA256 }, { "SHA-384", KEYPROC_SHA384 }, { "SHA-512", KEYPROC_SHA512 },
};

const char *keyproc_digest_name(unsigned digest)
{
    return digest_names[digest];
}

unsigned keyproc_digest_by_name(const char *name)
{
    struct str s = str_cstr(name);

    for (unsigned i = 0; i < KEYPROC_DIGESTS; i++) {
        if (str_caseeq(s, str_cstr(digest_names[i])))
            return i;
    }
    for (unsigned i = 0; i < ARRAY_LEN(other_names); i++) {
        if (str_caseeq(s, str_cstr(other_names[i].name)))
            return other_names[i].digest;
    }
    return KEYPROC_DIGESTS;
}

static unsigned get16(const unsigned char *p)
{
    return (unsigned) p[0] << 8 | p[1];
}

/* TLS 1.3: spaces, whose end it is, a zero, the digest of what was said. */
static bool is_verify(const unsigned char *p, size_t len, unsigned uses)
{
    static const char server[] = "TLS 1.3, server CertificateVerify";
    static const char client[] = "TLS 1.3, client CertificateVerify";
    const size_t head = SPACES + sizeof(server);

    if (len < head + DIGEST_MIN || len > head + DIGEST_MAX)
        return false;
    for (unsigned i = 0; i < SPACES; i++) {
        if (p[i] != ' ')
            return false;
    }
    return ((uses & KEYPROC_SERVER) && memcmp(p + SPACES, server, sizeof(server)) == 0) ||
           ((uses & KEYPROC_CLIENT) && memcmp(p + SPACES, client, sizeof(client)) == 0);
}

/* Both randoms, then a named curve and a point on it (RFC 8422, 5.4). */
static bool is_curve(const unsigned char *p, size_t len)
{
    return len > RANDOMS + 4 && p[RANDOMS] == NAMED_CURVE && p[RANDOMS + 3] <= POINT_MAX &&
           len == RANDOMS + 4u + p[RANDOMS + 3];
}

/* Both randoms, then a prime, a generator and a public value. */
static bool is_dhe(const unsigned char *p, size_t len)
{
    size_t at = RANDOMS;

    for (unsigned i = 0; i < 3; i++) {
        if (len < at + 2)
            return false;
        at += 2 + get16(p + at);
    }
    return len == at;
}

/* A client's, up to TLS 1.2: all messages since its hello. */
static bool is_transcript(const unsigned char *p, size_t len)
{
    size_t at = 0;
    unsigned count = 0;

    if (len == 0 || p[0] != CLIENT_HELLO)
        return false;
    for (; at < len; count++) {
        if (len - at < 4)
            return false;
        at += 4 + ((size_t) p[at + 1] << 16 | get16(p + at + 2));
    }
    return at == len && count >= 4;
}

bool keyproc_is_signed_by_tls(const unsigned char *p, size_t len, unsigned uses)
{
    if (is_verify(p, len, uses))
        return true;
    if ((uses & KEYPROC_SERVER) && (is_curve(p, len) || ((uses & KEYPROC_DHE) && is_dhe(p, len))))
        return true;
    return (uses & KEYPROC_CLIENT) && is_transcript(p, len);
}

int keyproc_parse(struct keyproc_request *rq, const unsigned char *data, size_t size)
{
    if (size < sizeof(*rq))
        return -1;
    memcpy(rq, data, sizeof(*rq));
    if (rq->len > KEYPROC_PAYLOAD_MAX || rq->name_len > KEYPROC_NAME_MAX)
        return -1;
    return size == sizeof(*rq) + rq->name_len + rq->len ? 0 : -1;
}

static const char *check_sign(const struct keyproc_request *rq, const unsigned char *payload,
                              enum keyproc_kind kind, unsigned uses)
{
    bool edwards = kind == KEYPROC_ED25519 || kind == KEYPROC_ED448;

    if (rq->digest >= KEYPROC_DIGESTS || edwards != (rq->digest == KEYPROC_NO_DIGEST))
        return "a digest that is not used with the key";
    if (kind == KEYPROC_RSA
            ? rq->padding != KEYPROC_PKCS1 && rq->padding != KEYPROC_PSS
            : rq->padding != (kind == KEYPROC_RSA_PSS ? KEYPROC_PSS : KEYPROC_PLAIN))
        return "a padding that is not used with the key";
    if (rq->padding == KEYPROC_PSS && rq->digest < KEYPROC_SHA256)
        return "a digest that is not used with the padding";
    if (rq->version != 0 || rq->other_version != 0)
        return "a version where there is none";
    return keyproc_is_signed_by_tls(payload, rq->len, uses) ? NULL
                                                            : "what is to be signed is not TLS";
}

static bool is_version(unsigned version)
{
    return version >= 0x0300 && version <= 0x0304;
}

static const char *check_find(const struct keyproc_request *rq)
{
    if (rq->name_len == 0 || rq->len != 0 || rq->padding != 0 || rq->digest != 0 ||
        rq->version != 0 || rq->other_version != 0)
        return "what is to be found has no more than a name";
    return NULL;
}

const char *keyproc_check(const unsigned char *data, size_t size, enum keyproc_kind kind,
                          unsigned uses)
{
    struct keyproc_request rq;

    if (keyproc_parse(&rq, data, size) != 0)
        return "sizes do not match";
    if (rq.zero != 0)
        return "unknown flags";
    if (rq.op == KEYPROC_SIGN)
        return check_sign(&rq, data + sizeof(rq) + rq.name_len, kind, uses);
    if (rq.op == KEYPROC_FIND)
        return check_find(&rq);
    if (rq.op != KEYPROC_DECRYPT)
        return "unknown operation";
    if (kind != KEYPROC_RSA || !(uses & KEYPROC_SERVER))
        return "the key does not decrypt";
    if (rq.padding != KEYPROC_PLAIN || rq.digest != KEYPROC_NO_DIGEST)
        return "unknown parameters";
    if (!is_version(rq.version) || (rq.other_version != 0 && !is_version(rq.other_version)))
        return "not a version of TLS";
    return NULL;
}
