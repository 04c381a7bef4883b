/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client's connection: what is known of it before and between requests. At rest it holds no
 * request memory and no I/O buffer. HTTP/1 drives it (server_h1.c); HTTP/2 will take it over after ALPN or preface.
 */
#ifndef CORE_HTTP_CLIENT_H
#define CORE_HTTP_CLIENT_H

#include "core/event/conn.h"
#include "core/http/h1.h"
#include "core/http/req.h"

struct client {
    struct conn *conn;              /* owner is the client */
    struct http_listen *listen;
    const struct server *server;    /* default server of the address, later SNI's */
    struct req *req;                /* HTTP/1: the request under way; NULL at rest */
    struct h1_state *h1;            /* NULL at rest */
    struct list link;               /* of idle clients, for drain */
    struct addr *local;             /* filled on demand */
    struct addr *proxy_addr;        /* PROXY protocol: source and destination, else NULL */
    struct addr *proxy_server_addr;
    struct arena *arena;            /* of the connection: created on demand, usually NULL */
    struct later later;
    uint64_t start_ms;              /* of the connection */
    uint64_t idle_since_ms;
    unsigned requests;              /* so far */
    bool idle, draining, pipelining;
};

/* The address the client is taken for: its own, or what realip or the PROXY protocol said. */
const struct sockaddr *client_peer(const struct client *c, socklen_t *len);
/* The local address (one getsockname a connection). */
const struct addr *client_local(struct client *c);
/* The connection's arena, made on demand. */
struct arena *client_arena(struct client *c);

/* Entry: called by listeners of HTTP addresses (res_listen.accept). */
void client_accept(struct listener *l, struct conn *c);
/* Closes idle clients now (QUIT, reload), lets the others finish with Connection: close. */
void client_drain_all(void);
/* For status: accepted, handled, requests, reading, writing, waiting. */
struct client_counts {
    uint64_t accepted, handled, requests;
    unsigned active, reading, writing, waiting;
};
extern struct client_counts client_counts;

#endif
