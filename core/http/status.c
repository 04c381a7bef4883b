/* SPDX-License-Identifier: BSD-2-Clause */
/* What counters of requests and of TLS are called. */
#include "core/http/status.h"

#define SSL_NAMES(prefix)                                                                   \
    prefix "handshakes", prefix "handshakes_failed", prefix "session_reuses",               \
        prefix "no_common_protocol", prefix "no_common_cipher", prefix "handshake_timeout", \
        prefix "peer_rejected_cert", prefix "verify_failures.no_cert",                      \
        prefix "verify_failures.expired_cert", prefix "verify_failures.revoked_cert",       \
        prefix "verify_failures.hostname_mismatch", prefix "verify_failures.other"

#define REQUEST_NAMES                                                               \
    "requests", "responses.1xx", "responses.2xx", "responses.3xx", "responses.4xx", \
        "responses.5xx", "responses.codes", "responses.total", "discarded", "received", "sent"

static const char *const server_names[] = { "processing", REQUEST_NAMES, SSL_NAMES("ssl."), NULL };
static const char *const location_names[] = { REQUEST_NAMES, NULL };
static const char *const ssl_names[] = { SSL_NAMES(""), NULL };
static const char *const resolver_names[] = {
    "requests.name",     "requests.srv",       "requests.addr",      "responses.noerror",
    "responses.formerr", "responses.servfail", "responses.nxdomain", "responses.notimp",
    "responses.refused", "responses.timedout", "responses.unknown",  NULL,
};

const struct counter_kind server_zone_kind = { "server_zone", server_names, 1, ZONE_CODES + 1 };
const struct counter_kind location_zone_kind = { "location_zone", location_names, 0, ZONE_CODES };
const struct counter_kind resolver_kind = { "resolver", resolver_names, 0, 0 };
const struct counter_kind ssl_kind = { "ssl", ssl_names, 0, 0 };
