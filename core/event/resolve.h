/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names resolved at run time by a `resolver` directive's servers, as an interface: the
 * implementation (c-ares) is a module's. Names known at load time go through addr_resolve instead.
 * One resolver has one cache; equal questions under way are joined. Nothing is read from the system
 * (no hosts file, no search list).
 */
#ifndef CORE_EVENT_RESOLVE_H
#define CORE_EVENT_RESOLVE_H

#include "core/base/log.h"
#include "core/os/socket.h"

struct resolver;

/* What is counted of a resolver: questions to its servers, and what became of them. */
enum {
    RESOLVER_NAMES, /* A, AAAA */
    RESOLVER_SRVS,
    RESOLVER_ADDRS, /* PTR */
    RESOLVER_NOERROR,
    RESOLVER_FORMERR,
    RESOLVER_SERVFAIL,
    RESOLVER_NXDOMAIN,
    RESOLVER_NOTIMP,
    RESOLVER_REFUSED,
    RESOLVER_TIMEDOUT,
    RESOLVER_UNKNOWN,
};

/* What the `resolver` directive said. */
struct resolver_spec {
    struct addr *servers;
    unsigned server_count;
    uint64_t valid_ms; /* overrides the TTL; 0: the answer's */
    bool ipv4, ipv6;
    uint64_t *const *counts; /* status_zone: where this worker counts, by the names above; NULL: nowhere */
};

enum resolve_status {
    RESOLVE_OK,
    RESOLVE_NOT_FOUND, /* NXDOMAIN, or no address of the wanted families */
    RESOLVE_TIMEOUT,
    RESOLVE_FAILED,    /* SERVFAIL, malformed, refused, no server reachable */
};

struct resolve_addr {
    struct addr addr;   /* port from SRV, or 0 */
    uint16_t priority;  /* SRV */
    uint16_t weight;
    uint32_t ttl_s;
};

struct resolve_query {
    struct str name;      /* must live until done or cancelled */
    struct str service;   /* SRV: "_http._tcp" or empty */
    uint64_t timeout_ms;
    void (*done)(struct resolve_query *q);
    void *data;
    /* Result, valid during done only. */
    enum resolve_status status;
    const struct resolve_addr *addrs;
    unsigned addr_count;
    uint32_t ttl_s; /* smallest */
    void *impl;     /* private */
};

/* In the worker. The spec must outlive it. */
struct resolver *resolver_new(const struct resolver_spec *spec, const struct logger *log);
/* Also from inside done. Questions under way end without a word. NULL is allowed. */
void resolver_free(struct resolver *r);
/*
 * done is called from the loop, never from inside. An answer from the cache also comes that way
 * unless resolve_cached finds it first.
 */
void resolve_start(struct resolver *r, struct resolve_query *q);
/*
 * True and result fields filled if the cache has a fresh answer; addrs is valid until the next
 * call into the resolver or the end of the turn.
 */
bool resolve_cached(struct resolver *r, struct resolve_query *q);
void resolve_cancel(struct resolve_query *q);
const char *resolve_status_text(enum resolve_status s); /* "Host not found" … */

#endif
