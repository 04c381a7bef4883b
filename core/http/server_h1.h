/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the two halves of the HTTP/1 driver share: server_h1.c reads and knows the order of things on a
 * connection, server_h1_out.c frames and writes answers. Nobody else includes this.
 */
#ifndef CORE_HTTP_SERVER_H1_H
#define CORE_HTTP_SERVER_H1_H

#include "core/http/answer.h"
#include "core/http/client.h"

/* Blocks that parsed fields still point into after the buffer moved on. */
struct kept {
    struct kept *next;
    struct block *block;
};

struct h1_state {
    struct req *req;
    struct block *in; /* what was read: bytes start..end are not consumed */
    size_t start, end;
    struct kept *kept;
    struct h1_parser parser;
    struct msg msg;
    struct h1_body body;     /* of the request under way */
    struct h1_body old_body; /* the previous request's rest, to be dropped first (DISCARD) */
    uint64_t head_bytes;
    struct chain out;
    struct block *frame;     /* where chunk heads are written */
    size_t frame_used;
    struct timer write_timer;
    bool in_is_body; /* `in` holds body bytes only: nothing parsed points into it */
    bool wants_body;
    bool chunked;
    bool crlf_due;  /* the chunk before is not closed yet */
    bool out_end;   /* all output has been queued */
    bool blocked;   /* the socket is full */
    bool tunnel;    /* behind a 101: no framing, no limit of time */
    bool deaf;      /* the client has gone; the request goes on (req.outlives), and its output is dropped */
    bool raw;       /* the tunnel's owner reads for itself, when it is told that there is something */
    bool delayed;   /* limit_rate holds the output until write_timer */
};

/* The wishes of a connection whose request runs, by what the state waits for. */
void h1_update_wants(struct client *c);

/* server_h1_out.c: members of the driver's answer_ops. */
enum verdict h1_out_head(struct req *r);
enum verdict h1_out_body(struct req *r, struct chain *chain, unsigned flags);
uint64_t h1_out_buffered(const struct req *r);
void h1_out_informational(struct req *r, unsigned status, const struct fields *fields);
/*
 * Writes what is queued, as far as socket and rate allow. With everything out and the end queued the
 * request is done: it is logged and released before this returns. 0, or -1 when the client is gone:
 * whoever is below on the stack ends the request.
 */
int h1_out_write(struct client *c);
/* After a write that the loop asked for: the producer goes on, or the request ends. */
void h1_out_wrote(struct client *c, int result);
/* The write timer's: limit_rate lets the output go on, or the client has not taken any for too long. */
void h1_out_timeout(struct timer *timer);

#endif
