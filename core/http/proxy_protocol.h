/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PROXY protocol, versions 1 and 2, in front of the first request: read from clients (`listen … proxy_protocol`),
 * written to servers.
 */
#ifndef CORE_HTTP_PROXY_PROTOCOL_H
#define CORE_HTTP_PROXY_PROTOCOL_H

#include "core/os/socket.h"

/*
 * Parses a header at ptr. Bytes it takes; 0: incomplete so far; -1: not a PROXY header, or one
 * longer than is allowed (107 bytes for version 1, 4096 for version 2). For LOCAL and UNKNOWN
 * *known is false and the addresses are untouched. Version 2 TLVs are skipped.
 */
ssize_t proxy_protocol_parse(const char *ptr, size_t len, struct addr *source, struct addr *dest,
                             bool *known);
/*
 * Writes a header: of a connection from source to dest, or, where one of them is NULL or not an IP address, one that says nothing of
 * addresses (UNKNOWN, LOCAL). An IPv4 address beside an IPv6 one is written as that. Bytes.
 */
#define PROXY_PROTOCOL_MAX 108
size_t proxy_protocol_write(char buf[PROXY_PROTOCOL_MAX], unsigned version,
                            const struct addr *source, const struct addr *dest);
/* What stands behind the addresses of a version 2 header of len bytes that was accepted: a copy from malloc, or nothing. */
struct str proxy_protocol_tlvs(const char *header, size_t len);
/*
 * A field of those by the name that $proxy_protocol_tlv_NAME has: alpn, authority, unique_id, ssl, netns, ssl_verify,
 * ssl_version, ssl_cn, ssl_cipher, ssl_sig_alg, ssl_key_alg, or its type in hexadecimal: 0xe0. out points into tlvs;
 * ssl_verify is a number as text, in buf. 0; -1: not there.
 */
int proxy_protocol_tlv(struct str tlvs, struct str name, char buf[16], struct str *out);

#endif
