/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the upstream module share; nobody else includes it. */
#ifndef MODULES_UPSTREAM_INTERNAL_H
#define MODULES_UPSTREAM_INTERNAL_H

#include "core/http/client.h"
#include "core/zone/zone.h"
#include "modules/upstream/upstream.h"

extern unsigned upstream_slot;

/* All groups of a configuration, and what its locations ask to be checked. */
struct upstream_main {
    struct list groups;   /* struct upstream.link */
    struct list checks;   /* struct health_check.link */
    struct table matches; /* name -> struct health_match */
    struct tls_client *tls_clients;
    bool ready;
};
struct upstream_main *upstream_main_of(struct conf *cf);

/* Where a location's requests go. */
struct upstream_loc {
    const struct level *level; /* whose this is: it is not inherited */
    struct upstream *group;    /* NULL: known at run time only */
    const struct upstream_family *family;
};

/* Most chains are empty when they are given up: five calls less a request. */
static inline void chain_drop(struct chain *c)
{
    if (!chain_empty(c))
        chain_clear(c);
}

/* balance.c, balance_hash.c */
extern const struct balancer balancer_round_robin, balancer_least_conn, balancer_least_time;
extern const struct balancer balancer_random, balancer_ip_hash, balancer_hash, balancer_consistent,
    balancer_maglev;
/* The rows of an upstream block that choose a method. */
conf_setter upstream_set_method, upstream_set_hash, upstream_set_random, upstream_set_least_time;

/* queue.c */
conf_setter queue_set;
/* Waits for a server, if the group has a queue with room and a server may come free: exchange_next will be called. */
bool queue_enter(struct exchange *x);
/* Before exchange_next, and when the exchange ends. */
void queue_leave(struct exchange *x);
/* A connection was given back in this worker. */
void queue_wake(struct upstream_queue *q);
/* How many wait; may wait in each worker. */
unsigned queue_length(const struct upstream_queue *q);
unsigned queue_max(const struct upstream_queue *q);
/* The worker ends. */
void queue_stop(struct upstream *g);

/* health_match.c: what an answer to a health check must look like. */
struct health_match;
/* The `match` block. */
conf_setter health_set_match;
/* The block of that name, or NULL. */
const struct health_match *health_match_find(struct conf *cf, struct str name);
/* Whether it looks at the body; at variables. */
bool health_match_body(const struct health_match *m);
bool health_match_variables(const struct health_match *m);
#define HEALTH_BODY_MAX (256 * 1024) /* bytes of the body that are looked at */
/*
 * The tests of one kind. NULL: passed; or what is wrong, in the arena. A match that is NULL asks for a status 2xx or 3xx.
 */
const char *health_match_status(const struct health_match *m, const struct msg *head,
                                struct arena *arena);
const char *health_match_fields(const struct health_match *m, const struct msg *head,
                                struct arena *arena);
const char *health_match_text(const struct health_match *m, struct str body, struct arena *arena);
const char *health_match_require(const struct health_match *m, struct eval *e);

/* health_conf.c: active checks as the configuration has them. */
struct health_check {
    struct list link;         /* of upstream_main.checks */
    const struct location *location;
    const struct level *level;
    struct conf_pos pos;
    struct upstream *group;
    const struct upstream_conf *conf; /* the location's, for its time-outs */
    uint64_t id;              /* of what is asked: the same in all processes */
    uint64_t interval_ms, jitter_ms;
    uint64_t keepalive_time_ms; /* 0: a connection for each check */
    uint32_t fails, passes;
    unsigned port;            /* 0: the server's */
    struct str uri, match_name;
    const struct health_match *match;
    struct str request;       /* as it is sent */
    bool tcp;                 /* the connection is all that is asked for */
    bool grpc;
    struct str grpc_service;  /* empty: the server as a whole */
    unsigned grpc_status;     /* 0, or one that is a healthy server's too */
    struct str tls_name;      /* what *_ssl_name says; ptr NULL: that depends on variables */
    bool mandatory, persistent;
};

/* Those of a group. */
struct health {
    struct health_check **checks;
    unsigned count, capacity;
    uint64_t epoch;           /* not 0: states are not taken over from another reading of the configuration */
    struct prober *prober;    /* in a worker */
};

conf_setter health_set_check;
/* The name of a status of gRPC; NULL: it has none. */
const char *health_grpc_status(unsigned status);
/* health_grpc.c: all that is sent to a server that speaks gRPC; fields: "NAME: VALUE" CRLF each. ptr NULL: they are too many. */
struct str health_grpc_request(struct arena *arena, const struct health_check *hc,
                               struct str fields);
/* Once all groups are known. 0, or -1: reported. */
int health_configure(struct conf *cf);

/* health.c: the checks. Servers have come or gone: checks of those that have are no more. */
void health_renew(struct upstream *g);
/* In a worker. */
void health_start(struct upstream *g);
/* No more of them. May be called again. */
void health_stop(struct upstream *g);

/* groups.c: the tables that a method and sticky make of the servers. */
void upstream_build(struct arena *arena, struct upstream *g);

/* state_file.c */
/* The text of a state file for the servers of the configuration, as a number. */
uint64_t state_hash(struct arena *arena, const struct upstream *g);

/* names.c: names that are resolved while the group serves. */
/* In a worker. */
void names_start(struct upstream *g);
/* No more of it. May be called again. */
void names_stop(struct upstream *g);

/* sticky.c */
conf_setter sticky_set;
/* Once the group's servers are known. */
void sticky_build(struct arena *arena, struct upstream *g);
/* The server that the client is bound to, or PEERS_NONE. */
unsigned sticky_find(const struct upstream *g, struct req *r);
/* The answer's fields are in r->out; the answer is complete. */
void sticky_head(struct exchange *x);
void sticky_done(struct exchange *x);

/* shared.c, shared_local.c, shared_checks.c */
/* The groups of a zone: data of its specification. */
struct shared_groups {
    struct upstream *first;
};
conf_setter shared_set_zone;
/* A hash that is the same in every process: of h, and of the bytes of s. */
uint64_t shared_mix(uint64_t h, struct str s);
#define SHARED_MIX_START UINT64_C(0xcbf29ce484222325)
/* Who a server is, by its address and how it was written. */
uint64_t shared_peer_id(const struct peer *p);
/* A zone for a group that has none and whose servers change nevertheless. 0, or -1: reported. */
int shared_private_zone(struct conf *cf, struct upstream *g);
/* In a worker that starts: the group's numbers are those in its zone. */
void shared_attach(struct upstream *g);
/* The worker ends; requests may still have to be cut off. */
void shared_stop(struct upstream *g);
/* And when the configuration goes (a struct upstream). */
void shared_free(void *arg);
/* A server was chosen; without the lock. */
void shared_selected(struct upstream *g, unsigned i);
/* With the lock held, an attempt was judged: it failed, the server is out for a while now. */
void shared_judged(struct upstream *g, unsigned i, bool failed, bool out);
/* How many kept-alive connections, and waiting requests, this worker has is in the zone for all to see. */
void shared_publish(struct upstream *g);
static inline void shared_publish_idle(struct upstream *g)
{
    if (g->zone != NULL)
        shared_publish(g);
}
/* A request was turned away. */
void shared_queue_overflow(struct upstream *g);
/* With the lock held: what this worker knows of the servers is brought up to date. */
void shared_refresh(struct upstream *g);
/* Without it: that, and the tables that are made from it. */
void shared_look(struct upstream *g);
static inline void upstream_look(struct upstream *g)
{
    uint32_t live = __atomic_load_n(g->live, __ATOMIC_RELAXED);

    if (unlikely(live != g->generation || live != g->table_generation))
        shared_look(g);
}
/* Around all uses of g->view that are more than a glance. */
static inline void upstream_lock(struct upstream *g)
{
    if (g->zone == NULL)
        return;
    zone_lock(g->zone);
    if (unlikely(*g->live != g->generation))
        shared_refresh(g);
}
static inline void upstream_unlock(const struct upstream *g)
{
    if (g->zone != NULL)
        zone_unlock(g->zone);
}
/*
 * Active checks: one worker of all, the prober, makes them. Whether it is this one, which it becomes where there is none. To be
 * asked every second: who does not is taken to be stuck, and another one takes over. When a worker ends, in whatever way, it no
 * longer is.
 */
bool shared_prober_take(struct upstream *g);
void shared_prober_leave(struct upstream *g);
/* When a check of a server was last begun, by whomever; 0: never. And whether requests wait for it. */
uint64_t shared_check_started(struct upstream *g, unsigned check, const struct peer *peer,
                              bool *awaited);
/* Begins one; false: the server is marked "down", or has gone, or this worker is not the prober any more. */
bool shared_check_begin(struct upstream *g, unsigned check, const struct peer *peer);
enum health_change { HEALTH_SAME, HEALTH_SICK, HEALTH_WELL };
/* How it ended, and what that means for the server. */
enum health_change shared_check_end(struct upstream *g, unsigned check, const struct peer *peer,
                                    bool passed);

/* A connection over TLS: set up by these settings for this name, and of use to nobody else. */
struct secure {
    struct tls_client *client; /* NULL: it is none */
    char *name;
    bool sni;                  /* the name was sent */
    const struct addr *addr;   /* of the server */
    unsigned char pair[32];    /* whose certificate was shown: a digest of its names, where they hold variables */
    uint64_t *counts;          /* enum peer_tls; NULL: nobody counts */
    bool refused;              /* our certificate, which has been counted */
};

/* pool.c: connections to servers. */
struct upconn {
    /* A cache line: all that a request touches of a connection that is kept for everybody. */
    struct conn *conn;
    struct peer *peer;
    struct list link;      /* resting: upstream.idle */
    union {
        struct list peer_link; /* resting: peer.idle */
        struct exchange *x;    /* at work */
    };
    uint64_t opened_ms;
    uint32_t requests;
    bool resting : 1;      /* waits for a request */
    bool reused : 1;       /* has served a request before this one */
    bool nodelay : 1;
    bool announced : 1;    /* by a PROXY header: of one client */
    bool secure : 1;       /* tls holds something */
    bool bound : 1;        /* to a client (tie), by ntlm */
    bool fixed : 1;        /* from the address that *_bind named: local */
    /* To here. */
    struct upstream *group;
    const void *tag;
    struct client_tie tie;
    struct addr *local;    /* with `fixed`: of use only for who wants the same */
    struct secure tls;
};
/* An idle connection to the chosen server, or NULL. */
struct upconn *pool_take(const struct exchange *x, struct peer *peer);
/* Whether an idle connection may serve x: TLS and the location, where that counts. */
bool pool_fits(const struct upconn *u, const struct exchange *x);
/* What *_bind, which is set, comes to now, in the request's arena; NULL: the system's choice (what is no address is logged). */
const struct addr *pool_local(struct exchange *x);
/*
 * A new one; the socket may still be connecting (conn->ready lacks CONN_WRITE). NULL: logged, and *blame says whose fault it
 * is: PEER_FAILED: the server's; PEER_NEXT: not the server's, but another one may do; PEER_OK: ours, and no server helps.
 */
struct upconn *pool_connect(struct exchange *x, struct peer *peer, enum peer_outcome *blame);
/*
 * The PROXY header that a new connection begins with, in front of what is to be sent. req NULL: no client stands
 * behind it. Such a connection serves this one request: it speaks of one client alone.
 */
void pool_announce(struct arena *arena, const struct upstream_conf *conf, struct req *r,
                   struct chain *out);
/* Its exchange is done with it: keeps it if the group's settings allow, else closes it. */
void pool_give(struct upconn *u);
/* Memory of the connection that pool_take is likely to find comes meanwhile. */
void pool_expect(const struct peer *peer);
void pool_close(struct upconn *u);
/* True if the socket has nothing to read, in spite of what the ready bits allow. */
bool pool_is_quiet(struct conn *conn);
/* Closes all idle connections of a group. */
void pool_drain(struct upstream *group);
/* Gives recycled memory back. */
void pool_trim(void);

/* secure.c: TLS with servers. */
/* The name that x asks for, before a connection is looked for. 0, or -1: it cannot be told to a server (logged). */
int secure_name(struct exchange *x);
/* The certificate to be shown is told by variables. */
bool secure_has_pair(const struct upstream_tls *tls);
/* The name as it is used, of what *_ssl_name came to: without a port, and without brackets. */
struct str secure_host(struct str name);
/* What u's connection was set up for is what x wants. */
bool secure_fits(const struct upconn *u, const struct exchange *x);
/*
 * A connection that has just been made takes what goes in front of TLS: the PROXY header, if there is one to be sent.
 * 0, or -1: logged at that level.
 */
int secure_announce(struct conn *conn, struct chain *header, const struct logger *log,
                    enum log_level level);
/*
 * The socket of *conn, to the server at that address, has connected: TLS begins, over a conn that takes the place of
 * *conn. alpn: in the form of the wire; NULL: none is offered. 0, or -1: logged. That is not the server's fault:
 * it has not been asked anything yet.
 */
struct secure_want {
    const struct upstream_tls *tls;
    struct str name;
    const struct addr *addr;
    const char *alpn;
    struct ssl_pair_names pair; /* the certificate to be shown, where variables tell; empty: none */
    uint64_t *counts;
    enum log_level level; /* of what goes wrong */
};
int secure_begin(struct secure *s, struct conn **conn, const struct secure_want *want,
                 const struct logger *log);
/* The handshake is over. 0: the server is who it should be; or -1: logged. */
int secure_end(struct secure *s, struct conn *conn, const struct logger *log,
               enum log_level level);
/*
 * An operation on a connection, over TLS or not, has failed with that error: logs it, in the library's words where TLS failed. With TLS 1.3 this
 * is how a server tells us that it does not like our certificate: our handshake has ended by then. It is counted here.
 */
void secure_log_failure(struct secure *s, struct conn *conn, const struct logger *log,
                        enum log_level level, int error, const char *call);
/* It has taken too long. */
void secure_late(const struct secure *s);
/* The connection goes. */
void secure_forget(struct secure *s);
/* An answer that ends with the connection may have been cut. */
static inline bool secure_is_cut(const struct secure *s, const struct conn *conn)
{
    return unlikely(s->client != NULL) && !conn_tls_ended(conn);
}

/* ntlm.c: connections that belong to a client. */
conf_setter ntlm_set;
/* The client's server is to be chosen, if it has one. */
void ntlm_want(struct exchange *x);
/* The client's idle connection to the chosen server, or NULL. */
struct upconn *ntlm_take(struct exchange *x);
/* The connection is kept for the client alone, if that has authenticated over it. */
bool ntlm_keep(struct exchange *x, struct upconn *u);
/* The connection is about to be closed. */
void ntlm_untie(struct upconn *u);

/* record.c */
/* An attempt begins, at a server or, where there is none, at a group of that name. */
void exchange_record_begin(struct exchange *x, struct str peer);
/* Its time is over. May be called again. */
void exchange_record_end(struct exchange *x);
/* What it came to, before its server is let go. status: 0: there was no answer. */
void exchange_count(struct exchange *x, unsigned status);

/* exchange.c */
/* Asks the next server. */
void exchange_next(struct exchange *x);
/* There is none: an attempt without a server. */
void exchange_not_served(struct exchange *x, const char *why);
/* The attempt came to nothing: another one, or the end with a status. why: one NEXT_ bit. */
void exchange_attempt_failed(struct exchange *x, unsigned why);
/* Whether a status means that the next server is to be asked; if so it has been. */
bool exchange_try_next(struct exchange *x, unsigned status);
/* Ends the exchange: the connection is closed, the request goes on with v. */
void exchange_finish(struct exchange *x, enum verdict v);
/* The answer has been read to its end: the connection is kept or closed. */
void exchange_detach(struct exchange *x, bool complete);
/* Reading goes on after a pause. */
void exchange_resume_reading(struct exchange *x);
/*
 * Decodes what lies in x->in; the connection goes with the answer's end, or where the answer is
 * broken (x->cut).
 */
void exchange_decode(struct exchange *x);
/* The exchange is over but for what the caller still hands on. */
void exchange_over(struct exchange *x);
/* The client's end of the connection is no longer this exchange's concern. */
void exchange_forget_hup(struct exchange *x);

/* explain.c: says what would be asked of whom, and answers for the server. */
void exchange_explain(struct exchange *x);

/* head.c: the answer's head on its way into the request's. */
/* What the head says is done with. False: the exchange is over, or another attempt runs. */
bool answer_head_received(struct exchange *x);
/* Fills r->out from x->head. */
void answer_fields(struct exchange *x);
/* Before the block with the head is given up: the head moves into the arena. */
void answer_head_move(struct exchange *x);
/* An informational answer. */
void answer_interim(struct exchange *x);

/* flow.c: the answer's body on its way to the client. */
/* Hands on what may be handed on; pauses, spools. May end the request: look at x->state after. */
void flow(struct exchange *x);
void flow_drained(struct req *r);
void flow_free(struct exchange *x);

/* store.c: answers kept as files. */
/* A head has come that goes to the client: whether and where its body is stored. */
void store_begin(struct exchange *x);
/* More of the body. May give up. */
void store_take(struct exchange *x, const struct chain *fresh);
/* The answer is complete: the file gets its name. */
void store_done(struct exchange *x);
/* Nothing is stored. The file stays for what is still to be read from it. */
void store_give_up(struct exchange *x);

/* tunnel.c */
void tunnel_start(struct exchange *x);
void tunnel_upstream_event(struct exchange *x, unsigned ready);
void tunnel_timeout(struct exchange *x);
void tunnel_free(struct exchange *x);

/* variables.c */
extern const struct var_row upstream_variables[];

#endif
