/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is counted of servers, locations and TLS: the order of the counters in their sets. Filled by
 * status_zone's module and by whoever does TLS.
 */
#ifndef CORE_HTTP_STATUS_H
#define CORE_HTTP_STATUS_H

#include "core/config/counters.h"

/* Of TLS with clients, in the order in which each set that has them has them. */
enum {
    SSL_HANDSHAKES,
    SSL_HANDSHAKES_FAILED,
    SSL_SESSION_REUSES,
    SSL_NO_COMMON_PROTOCOL,
    SSL_NO_COMMON_CIPHER,
    SSL_HANDSHAKE_TIMEOUT,
    SSL_PEER_REJECTED_CERT,
    SSL_NO_CERT,
    SSL_EXPIRED_CERT,
    SSL_REVOKED_CERT,
    SSL_HOSTNAME_MISMATCH,
    SSL_OTHER,
};

/* Requests; of a server besides how many there are now (a gauge, so the first), and TLS. */
enum {
    ZONE_PROCESSING,
    ZONE_REQUESTS,
    ZONE_1XX,
    ZONE_CODES = ZONE_1XX + 5, /* counted by tag */
    ZONE_RESPONSES,
    ZONE_DISCARDED,
    ZONE_RECEIVED,
    ZONE_SENT,
    ZONE_SSL, /* SSL_HANDSHAKES, and so on */
};

/* server->status; a location's has no ZONE_PROCESSING and no ZONE_SSL: take one off. */
extern const struct counter_kind server_zone_kind, location_zone_kind;
/* status_zone of `resolver`: in the order of RESOLVER_NAMES and so on. */
extern const struct counter_kind resolver_kind;
/* The whole server's TLS; one set, without a name, which whoever does TLS defines. */
extern const struct counter_kind ssl_kind;

#endif
