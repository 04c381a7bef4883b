/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client's connection: what is known of it before, between and during requests. At rest it holds
 * no request memory and no I/O buffer. HTTP/1 drives it (server_h1.c); HTTP/2 will take it over
 * after ALPN or the preface.
 */
#ifndef CORE_HTTP_CLIENT_H
#define CORE_HTTP_CLIENT_H

#include "core/event/conn.h"
#include "core/http/h1.h"
#include "core/http/req.h"

struct h1_state;

enum client_state {
    CLIENT_NEW,     /* accepted, nothing received yet (or a PROXY header is due) */
    CLIENT_SHAKE,   /* a TLS handshake is under way */
    CLIENT_CHECK,   /* it has ended; the client's certificate is looked into */
    CLIENT_IDLE,    /* between requests */
    CLIENT_HEAD,    /* a head has begun */
    CLIENT_EARLY,   /* a head is complete, which came as early data and waits for the end of the handshake */
    CLIENT_REQUEST, /* a request runs, or its answer is being sent */
    CLIENT_DISCARD, /* the answer is out, the rest of the request's body is read and dropped */
    CLIENT_LINGER,  /* our end is shut, what comes is dropped until the client closes */
    CLIENT_CLOSED,
};

struct client {
    struct conn *conn;              /* owner is the client; TLS takes the place of the accepted one */
    struct http_listen *listen;
    const struct server *server;    /* default server of the address, later SNI's */
    struct h1_state *h1;            /* NULL at rest */
    struct list link;               /* among the worker's clients at rest, or among the others */
    const struct log_scope *debug;  /* debug_connection: replaces every error_log; else NULL */
    struct client_extra *extra;     /* what few connections need; NULL */
    struct doomed doomed;
    struct later later;             /* goes on with what is already buffered */
    uint64_t start_ms;              /* of the connection */
    uint64_t server_keepalive_ms;   /* keepalive_timeout of the last answer's location */
    uint32_t requests;              /* so far */
    uint8_t state;                  /* enum client_state */
    bool nodelay;                   /* TCP_NODELAY as the socket has it */
    bool draining;                  /* close after this answer */
    bool pipelined;                 /* the request under way was already buffered behind another */
    bool tls;                       /* TLS is spoken (on an address with `ssl` a plain request is not) */
    bool named;                     /* by TLS the client asked for a server, which was found */
};

/* Something that ends with a client's connection. Embedded in whoever does the work. */
struct client_tie {
    struct list link;
    void (*gone)(struct client_tie *t); /* called once; it is in no list any more */
};

/* Addresses that are known only for some connections. Lives with the connection. */
struct client_extra {
    struct addr local;              /* getsockname, on demand */
    bool have_local;
    bool proxy_seen;                /* the PROXY header has been read */
    bool have_proxy;                /* and gave these two */
    struct addr proxy_source, proxy_dest;
    struct list ties;               /* struct client_tie.link */
    struct str proxy_tlvs;          /* what followed the addresses (version 2), in malloc'd memory */
    struct tls_first first;         /* the beginning of a PROXY header in front of TLS */
};

/* The socket's peer, or what realip put in its place for the request under way. Who has the request asks req_peer. */
const struct addr *client_peer(struct client *c, struct addr *room);
/* The socket's peer, whatever realip says. */
const struct addr *client_socket_peer(const struct client *c, struct addr *room);
/* The local address (one getsockname a connection). Never NULL. */
const struct addr *client_local(struct client *c);
struct client_extra *client_extra(struct client *c);
/* The request under way, or NULL. */
struct req *client_req(const struct client *c);

/* Entry: called by listeners of HTTP addresses (res_listen.accept); l->owner is the http_listen. */
void client_accept(struct listener *l, struct conn *conn);
/* Closes idle clients now (QUIT, reload), lets the others finish with Connection: close. */
void client_drain_all(void);
/* Between two requests, or lingering: may be closed when connections run out. */
void client_rests(struct client *c);
/* The opposite: something is under way. */
void client_works(struct client *c);
/* Between two requests: nothing has been read of the next. */
void client_idle(struct client *c);
/* Closes up to n clients at rest, those which have rested longest first; returns how many. */
unsigned client_shed(unsigned n);
/*
 * worker_shutdown_timeout is over: closes all, but for those who have taken leave of their client and may wait for its
 * answer. Whether there still are any; may be asked again.
 */
bool client_part_all(void);
/* Closes all at once (TERM, or after client_part_all). */
void client_close_all(void);

/* For status (client_counts.c). waiting is only filled in for those who ask for sums. */
struct client_counts {
    uint64_t accepted, handled, requests;
    unsigned active, reading, writing, waiting;
};
/* This worker's, in memory that all share, written by it alone. Never NULL. */
extern struct client_counts *client_counts;
/* Those of all workers, of an older configuration's and binary's too, and what ended ones have left. */
void client_counts_sum(struct client_counts *sum);
/* The same since the last reset. */
void client_counts_since(struct client_counts *sum);
enum { CLIENT_RESET_CONNECTIONS = 1, CLIENT_RESET_REQUESTS = 2 };
/* From now on client_counts_since begins at 0 (what is active is not reset). */
void client_counts_reset(unsigned what);

/* One worker, and what it has counted since the last reset of its numbers. */
struct client_worker {
    unsigned id; /* 0 … */
    pid_t pid;
    struct client_counts counts;
};
/* The workers of this process's configuration, by id, in the arena. How many. */
unsigned client_counts_workers(struct arena *arena, struct client_worker **out);
/* False: there is no such worker. UINT_MAX: all of them. */
bool client_counts_reset_worker(unsigned id);
/* Once the file is read: asks for the memory. 0, or -1 (reported). */
int client_counts_configure(struct conf *cf);
/* In a worker: takes its slot. */
void client_counts_start(const struct config *config);

/*
 * The PROXY header that is due in front of the first byte of an address with proxy_protocol. How many of the bytes it
 * takes; 0: it is not complete; -1: the client has been closed, for it is broken.
 */
ssize_t client_take_proxy(struct client *c, const char *data, size_t len, bool full);

/* For protocol drivers (server_h1.c) ---------------------------------------------------------- */

/* Closes the connection; the struct lives until the end of the turn. */
void client_close(struct client *c);
/* See struct http_tls's admit. */
void client_admitted(struct client *c);
/* What has been read came before the end of TLS's handshake, which has not come yet. */
bool client_is_early(const struct client *c);
/* Our end is shut; drops what still comes until the peer closes, for lingering_time. */
void client_linger(struct client *c, const struct core_loc *core);
/* A readable connection at rest or in the midst of a head. */
void h1_server_readable(struct client *c);
/* The same for bytes that somebody else has read: start..end of a block, whose reference goes along. */
void h1_server_bytes(struct client *c, struct block *block, size_t start, size_t end);
void h1_server_event(struct client *c, unsigned ready);
void h1_server_timeout(struct client *c);
/* The handshake that a request in early data waited for has ended, well or not. */
void h1_server_shaken(struct client *c, bool well);
/* Gives up whatever the state holds; for client_close. */
void h1_server_free(struct client *c);

#endif
