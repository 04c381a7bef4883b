/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Producing a response: the head runs through the filters in the order of their rank, the body only
 * through those that accepted the head, then both go to the protocol, which writes when there is
 * enough (postpone_output), on FLUSH and at the END.
 */
#ifndef CORE_HTTP_ANSWER_H
#define CORE_HTTP_ANSWER_H

#include "core/http/req.h"

/*
 * The head r->out is complete (status, fields, content_length or -1). V_NEXT: accepted, body may follow
 * (or r->header_only: none is wanted; still call answer_body with BODY_END). V_STATUS: a filter replaced it.
 * V_ABORT. Sets r->answer_started.
 */
enum verdict answer_head(struct req *r);
/* Takes all of chain. flags: BODY_END, BODY_FLUSH. V_NEXT (or V_WAIT: a filter waits; data is kept, go on when on_drain comes) or V_ABORT. */
enum verdict answer_body(struct req *r, struct chain *chain, unsigned flags);
/* A whole response in one call: type may be empty, body may be empty. Returns V_ANSWER or what answer_head said. */
enum verdict answer_text(struct req *r, unsigned status, struct str type, struct str body);
/* The built-in page for a status, or an empty body where there is none. Used by the engine. */
enum verdict answer_builtin(struct req *r, unsigned status);
/* What the Server field and the built-in pages call us (server_tokens). */
struct str answer_server(struct req *r);
/* A filter that said HEAD_HOLD lets the head go. */
void answer_release_head(struct req *r);
/* A filter whose body call said V_WAIT goes on: all are run again, then those who held back because it waited. */
void answer_go_on(struct req *r);
/* Whether a filter behind that rank waits, and keeps what it is given. */
bool answer_waits_behind(const struct req *r, enum filter_rank rank);
/* Bytes of body accepted and not yet written; the producer pauses while answer_full. */
uint64_t answer_buffered(const struct req *r);
bool answer_full(const struct req *r, uint64_t mark);
/* An informational response (100, 103) at once. */
void answer_informational(struct req *r, unsigned status, const struct fields *fields);
/* Helpers for filters that change the body: forget length, ranges, and make ETag weak. */
void answer_clear_length(struct req *r);
void answer_clear_ranges(struct req *r);
void answer_weak_etag(struct req *r);
void answer_clear_etag(struct req *r);
void answer_clear_last_modified(struct req *r);
/* All of that for a body whose every byte may be another one; last_modified: the date still holds, and a weak ETag. */
void answer_body_changes(struct req *r, bool last_modified);
/* When the content changed last, by what the head says; -1: it does not, or not in a way to be understood. */
time_t answer_last_modified(const struct req *r);

/* A body filter that accepted the head. */
struct filter_run {
    const struct filter *filter;
    void *ctx;
    bool waits; /* its last body call said V_WAIT */
};

/*
 * A child's output has grown or ended: what can be moved past the LINK boundary moves. flags: BODY_FLUSH, if the child wants
 * it out at once.
 */
void answer_splice(struct req *main, unsigned flags);
/* A subrequest kept in memory is over: what its own children wrote stands in its body now. */
void answer_settle(struct req *child);
/* From protocols: output of a main request has gone out. Those who produce what comes next go on. */
void answer_drained(struct req *main);

/* What a protocol does for a request. HTTP/1 now; HTTP/2 streams and subrequests implement the same. */
struct answer_ops {
    /* Takes the head (r->out). */
    enum verdict (*head)(struct req *r);
    /* Takes all of chain; never blocks. */
    enum verdict (*body)(struct req *r, struct chain *chain, unsigned flags);
    uint64_t (*buffered)(const struct req *r);
    void (*informational)(struct req *r, unsigned status, const struct fields *fields);
    /* Wants request body bytes: the protocol calls body_feed. */
    void (*read_body)(struct req *r, bool on);
    /* The request is logged and released (memory is valid until the turn's end): go on with the connection. */
    void (*finished)(struct req *r);
    /* Sends RST_STREAM / closes the connection: the response cannot be completed. */
    void (*reset)(struct req *r);
    /* After the head of a 101: what the client sends from now on is a body without end, read when streamed, without
     * limits of size or time; what is sent goes out unframed. The connection that carries both and nothing else, or NULL. No such
     * operation: not for this protocol. */
    struct conn *(*tunnel)(struct req *r);
    /* On that connection the owner of the tunnel reads and writes for itself, while no body is read and no output waits: CONN_READ,
     * body.on_data is called when there is something; CONN_WRITE, on_drain is when there is room, and until then send_timeout counts. */
    void (*tunnel_want)(struct req *r, unsigned what);
};
extern const struct answer_ops subrequest_ops;
/* Runs on where a body filter waited. For req.c. */
enum verdict answer_continue(struct req *r);
/* From protocols: body bytes have arrived (in takes effect by reference), end, or failure (status 400, 413…). */
void body_feed(struct req *r, struct chain *in, bool end);
void body_failed(struct req *r, unsigned status);

#endif
