/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the upstream module share; nobody else includes it. */
#ifndef MODULES_UPSTREAM_INTERNAL_H
#define MODULES_UPSTREAM_INTERNAL_H

#include "modules/upstream/upstream.h"

extern unsigned upstream_slot;

/* All groups of a configuration, and what its locations ask to be checked. */
struct upstream_main {
    struct list groups;   /* struct upstream.link */
    struct list checks;   /* struct health_check.link */
    struct table matches; /* name -> struct health_match */
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
/* Once all groups are known. 0, or -1: reported. */
int health_configure(struct conf *cf);

/* health.c: the checks. */
/* In a worker. */
void health_start(struct upstream *g);
/* No more of them. May be called again. */
void health_stop(struct upstream *g);

/* sticky.c */
conf_setter sticky_set;
/* Once the group's servers are known. */
void sticky_build(struct arena *arena, struct upstream *g);
/* The server that the client is bound to, or PEERS_NONE. */
unsigned sticky_find(const struct upstream *g, struct req *r);
/* The answer's fields are in r->out; the answer is complete. */
void sticky_head(struct exchange *x);
void sticky_done(struct exchange *x);

/* shared.c */
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
/* In a worker that starts: the group's numbers are those in its zone. */
void shared_attach(struct upstream *g);
/*
 * Active checks: one worker of all, the prober, makes them. Whether it is this one, which it becomes where there is none. To be
 * asked every second: who does not is taken to be stuck, and another one takes over. When a worker ends, in whatever way, it no
 * longer is.
 */
bool shared_prober_take(struct upstream *g);
void shared_prober_leave(struct upstream *g);
/* When a check of a server was last begun, by whomever; 0: never. And whether requests wait for it. */
uint64_t shared_check_started(struct upstream *g, unsigned check, unsigned peer, bool *awaited);
/* Begins one; false: the server is marked "down", or this worker is not the prober any more. */
bool shared_check_begin(struct upstream *g, unsigned check, unsigned peer);
enum health_change { HEALTH_SAME, HEALTH_SICK, HEALTH_WELL };
/* How it ended, and what that means for the server. */
enum health_change shared_check_end(struct upstream *g, unsigned check, unsigned peer, bool passed);

/* pool.c: connections to servers. */
struct upconn {
    struct conn *conn;
    struct upstream *group;
    struct peer *peer;
    const void *tag;
    struct exchange *x;    /* NULL: idle */
    struct list link;      /* upstream.idle */
    struct list peer_link; /* peer.idle */
    uint64_t opened_ms;
    uint32_t requests;
    bool reused;           /* has served a request before this one */
    bool nodelay;
    bool announced;        /* by a PROXY header: of one client */
};
/* An idle connection to the chosen server, or NULL. */
struct upconn *pool_take(struct upstream *group, struct peer *peer, const void *tag);
/* A new one; the socket may still be connecting (conn->ready lacks CONN_WRITE). NULL with errno. */
struct upconn *pool_connect(struct exchange *x, struct peer *peer);
/*
 * The PROXY header that a new connection begins with, in front of what is to be sent. req NULL: no client stands
 * behind it. Such a connection serves this one request: it speaks of one client alone.
 */
void pool_announce(struct arena *arena, const struct upstream_conf *conf, struct req *r,
                   struct chain *out);
/* Keeps it if the group's settings allow, else closes it. */
void pool_give(struct upconn *u);
void pool_close(struct upconn *u);
/* Closes all idle connections of a group. */
void pool_drain(struct upstream *group);
/* Gives recycled memory back. */
void pool_trim(void);

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

/* tunnel.c */
void tunnel_start(struct exchange *x);
void tunnel_upstream_event(struct exchange *x, unsigned ready);
void tunnel_timeout(struct exchange *x);
void tunnel_free(struct exchange *x);

/* variables.c */
extern const struct var_row upstream_variables[];

#endif
