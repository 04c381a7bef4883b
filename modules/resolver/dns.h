/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading DNS answers: the records that the resolver uses, out of one message that came from
 * the network. No state, no allocation beyond c-ares' name expansion.
 */
#ifndef MODULES_RESOLVER_DNS_H
#define MODULES_RESOLVER_DNS_H

#include "core/base/str.h"
#include "core/os/socket.h"

enum {
    DNS_A = 1,
    DNS_AAAA = 28,
    DNS_SRV = 33,
    DNS_NAME_MAX = 255,
};

struct dns_record {
    uint32_t ttl_s;
    struct addr addr;  /* A, AAAA; port 0 */
    uint16_t priority; /* SRV */
    uint16_t weight;
    uint16_t port;
    char target[DNS_NAME_MAX + 1]; /* SRV; "" is the root: no such service */
};

/*
 * Calls found for each record of `type` in the answer section (RFC 1035, 4.1; RFC 2782). ttl_s is
 * the least of the record's own and of the CNAMEs before it. Returns how many, or -1 if the
 * message is malformed: what was found before that does not count.
 */
int dns_answers(const unsigned char *msg, size_t len, unsigned type,
                void (*found)(void *arg, const struct dns_record *record), void *arg);

#endif
