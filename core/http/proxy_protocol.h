/* SPDX-License-Identifier: BSD-2-Clause */
/* The PROXY protocol, versions 1 and 2, in front of the first request (`listen … proxy_protocol`). */
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

#endif
