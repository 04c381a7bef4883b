/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the upstream module share; nobody else includes it. */
#ifndef MODULES_UPSTREAM_INTERNAL_H
#define MODULES_UPSTREAM_INTERNAL_H

#include "modules/upstream/upstream.h"

extern unsigned upstream_slot;

/* Most chains are empty when they are given up: five calls less a request. */
static inline void chain_drop(struct chain *c)
{
    if (!chain_empty(c))
        chain_clear(c);
}

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
};
/* An idle connection to the chosen server, or NULL. */
struct upconn *pool_take(struct upstream *group, struct peer *peer, const void *tag);
/* A new one; the socket may still be connecting (conn->ready lacks CONN_WRITE). NULL with errno. */
struct upconn *pool_connect(struct exchange *x, struct peer *peer);
/* Keeps it if the group's settings allow, else closes it. */
void pool_give(struct upconn *u);
void pool_close(struct upconn *u);
/* Closes all idle connections of a group. */
void pool_drain(struct upstream *group);
/* Gives recycled memory back. */
void pool_trim(void);

/* exchange.c */
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
