/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The type-length-value fields of a PROXY protocol header, version 2, for variables. The header as
 * a whole was accepted before; what is inside is read defensively all the same.
 */
#include "core/base/fmt.h"
#include "core/http/proxy_protocol.h"

#define V2_HEAD 16
#define TLV_HEAD 3
#define TLV_SSL 0x20
#define SSL_HEAD 5 /* a byte of flags, four of the verification's result */

struct str proxy_protocol_tlvs(const char *header, size_t len)
{
    /* By address family: none, IPv4, IPv6, unix. */
    static const size_t addresses[] = { 0, 12, 36, 216 };
    unsigned family;
    size_t skip;
    char *copy;

    if (len < V2_HEAD || header[0] != '\r')
        return STR_NULL;
    family = (unsigned char) header[13] >> 4;
    skip = V2_HEAD + (family < ARRAY_LEN(addresses) ? addresses[family] : 0);
    if (len <= skip)
        return STR_NULL;
    copy = mem_alloc(len - skip);
    memcpy(copy, header + skip, len - skip);
    return str_from(copy, len - skip);
}

static int find(struct str tlvs, unsigned type, struct str *out)
{
    while (tlvs.len >= TLV_HEAD) {
        const unsigned char *p = (const unsigned char *) tlvs.ptr;
        size_t n = (size_t) p[1] << 8 | p[2];

        if (n > tlvs.len - TLV_HEAD)
            return -1;
        if (p[0] == type) {
            *out = str_from(tlvs.ptr + TLV_HEAD, n);
            return 0;
        }
        tlvs = str_skip(tlvs, TLV_HEAD + n);
    }
    return -1;
}

static int verify_result(struct str ssl, char buf[16], struct str *out)
{
    const unsigned char *p = (const unsigned char *) ssl.ptr + 1;
    uint32_t n = (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];

    *out = str_from(buf, (size_t) (fmt_u64(buf, n) - buf));
    return 0;
}

int proxy_protocol_tlv(struct str tlvs, struct str name, char buf[16], struct str *out)
{
    static const struct {
        struct str name;
        unsigned char type;
        bool in_ssl;
    } names[] = {
        { STR_INIT("alpn"), 0x01, false },       { STR_INIT("authority"), 0x02, false },
        { STR_INIT("unique_id"), 0x05, false },  { STR_INIT("ssl"), TLV_SSL, false },
        { STR_INIT("netns"), 0x30, false },      { STR_INIT("ssl_version"), 0x21, true },
        { STR_INIT("ssl_cn"), 0x22, true },      { STR_INIT("ssl_cipher"), 0x23, true },
        { STR_INIT("ssl_sig_alg"), 0x24, true }, { STR_INIT("ssl_key_alg"), 0x25, true },
    };
    bool verify = str_eq(name, STR("ssl_verify"));
    struct str ssl;
    uint64_t type;

    if (str_starts(name, STR("0x")))
        return str_to_hex64(str_skip(name, 2), &type) != 0 || type > 0xff
                   ? -1
                   : find(tlvs, (unsigned) type, out);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (!str_eq(name, names[i].name))
            continue;
        if (!names[i].in_ssl)
            return find(tlvs, names[i].type, out);
        if (find(tlvs, TLV_SSL, &ssl) != 0 || ssl.len < SSL_HEAD)
            return -1;
        return find(str_skip(ssl, SSL_HEAD), names[i].type, out);
    }
    if (!verify || find(tlvs, TLV_SSL, &ssl) != 0 || ssl.len < SSL_HEAD)
        return -1;
    return verify_result(ssl, buf, out);
}
