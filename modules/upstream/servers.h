/* SPDX-License-Identifier: BSD-2-Clause */
/* The servers of a group as the configuration has them: what groups.c, servers.c and state_file.c share. */
#ifndef MODULES_UPSTREAM_SERVERS_H
#define MODULES_UPSTREAM_SERVERS_H

#include "modules/upstream/internal.h"

#define ROUTE_MAX 32 /* bytes, as in nginx */

enum { RESOLVE_FAILURE_WARN, RESOLVE_FAILURE_EMERG };

/* Settings of a block that are rows. */
struct upstream_srv {
    struct keepalive_conf keepalive;
    int64_t keepalive_requests;
    uint64_t keepalive_time_ms, keepalive_timeout_ms;
    struct resolver_spec *resolver;
    struct resolver **resolver_instance;
    uint64_t resolver_timeout_ms;
    unsigned resolve_failure;
};

/* What `server` says besides the address. */
struct server_settings {
    struct str server, route, service;
    bool resolve;
    int32_t weight;
    uint32_t state; /* PEER_DOWN, PEER_DRAIN, PEER_BACKUP */
    struct peer_record record;
};

extern const struct server_settings server_defaults;

struct server_line {
    struct upstream_address address;
    struct str text;
    struct conf_pos pos;
    struct server_settings settings;
};

struct server_lines {
    struct server_line *items;
    unsigned count, capacity;
};

/* A block's object while the file is read. */
struct block_object {
    struct upstream group; /* first */
    struct server_lines lines;
    bool reading_state;    /* the lines are those of the state file */
};

/* A server found, not yet in the group. */
struct found_server {
    struct addr addr;
    const struct server_settings *settings;
    unsigned parent; /* index of the name that it is an address of, or PEERS_NONE */
    bool resolves;   /* that name */
};

struct found_servers {
    struct found_server *items;
    unsigned count, capacity;
};
void found_address(struct arena *arena, struct found_servers *found,
                   const struct server_settings *settings, const struct addr *addr, unsigned parent);
/* The group's servers, and the numbers that choices are made from. */
void servers_complete(struct arena *arena, struct upstream *g, const struct found_servers *found);
/* After the file is read: finds and completes. 0, or -1: reported. */
int servers_find(struct conf *cf, struct upstream *g, const struct upstream_srv *s);
conf_setter server_set, server_set_state;

#endif
