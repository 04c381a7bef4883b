/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the resolver share: its cache (cache.c), servers (server.c) and jobs
 * (resolver.c).
 */
#ifndef MODULES_RESOLVER_INTERNAL_H
#define MODULES_RESOLVER_INTERNAL_H

#include "core/base/list.h"
#include "core/event/loop.h"
#include "core/event/resolve.h"
#include "core/event/timer.h"
#include "modules/resolver/dns.h"

#define RESOLVER_CACHE_MAX 1024 /* answers kept by one resolver */
#define RESOLVER_JOBS_MAX 1024  /* names asked for at a time */
#define RESOLVER_ADDRS_MAX 128  /* addresses of one answer; more are left out */
#define RESOLVER_TARGETS_MAX 32 /* SRV records followed */
#define RESOLVER_KEY_MAX (2 * DNS_NAME_MAX + 2)

/* A growing set of addresses. */
struct addr_set {
    struct resolve_addr *items;
    unsigned count;
    unsigned capacity;
};
void addr_set_add(struct addr_set *set, const struct resolve_addr *a);

/* Answers by key, at most RESOLVER_CACHE_MAX; the least recently used goes first. */
#define CACHE_BUCKETS 512
struct cache_entry;
struct resolver_cache {
    struct cache_entry *buckets[CACHE_BUCKETS];
    struct list recent; /* most recently used first */
    unsigned count;
};
struct cache_entry {
    struct cache_entry *next;
    struct list recent;
    uint64_t hash;
    uint64_t expires_ms;
    uint32_t ttl_s;
    struct str key;
    struct addr_set addrs;
    char key_bytes[];
};
void cache_init(struct resolver_cache *c);
void cache_clear(struct resolver_cache *c);
/* NULL if there is none or it has expired. */
struct cache_entry *cache_get(struct resolver_cache *c, struct str key);
/* Takes over addrs. */
void cache_put(struct resolver_cache *c, struct str key, struct addr_set addrs, uint32_t ttl_s,
               uint64_t valid_ms);

/* One name server: a c-ares channel of its own, so that which one answers is known. */
struct ares_channeldata;
struct server_watch;
struct name_server {
    struct resolver *resolver;
    struct ares_channeldata *channel;
    struct server_watch *watches;
    struct timer timer;
    uint64_t lame_until_ms; /* it failed; others are asked first until then */
    struct addr addr;
    uint64_t *const *counts; /* resolver_spec's */
};
/* 0 or -1 with the reason logged. */
int name_server_init(struct name_server *s, const struct addr *addr, const struct logger *log);
void name_server_free(struct name_server *s);

struct server_reply {
    enum resolve_status status;
    bool lame; /* the server is at fault, not the name: ask others first for a while */
    const unsigned char *msg;
    size_t len;
};
/*
 * One question, asked once. replied is called once, perhaps from inside, unless the server is freed
 * before. With OK, msg is an answer that is still to be parsed.
 */
void name_server_ask(struct name_server *s, const char *name, unsigned type,
                     void (*replied)(void *arg, const struct server_reply *reply), void *arg);

#endif
