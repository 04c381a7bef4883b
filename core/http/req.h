/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request in flight: its phases, its waits, its subrequests. There is no reference count and
 * no recursive "finalize": a request is advanced by req_run, everything asynchronous is a wait that it
 * owns, and ending it cancels its waits.
 */
#ifndef CORE_HTTP_REQ_H
#define CORE_HTTP_REQ_H

#include "core/base/chain.h"
#include "core/http/http.h"

struct client;   /* the client's connection: client.h */
struct req;

/* Something a request waits for. Embedded in whoever does the work. */
struct wait {
    struct list link;
    struct req *req;
    void (*cancel)(struct wait *w); /* stop it, free it: called when the request ends first */
};

enum restart { RESTART_URI, RESTART_NAMED };

/* Lifetimes of module state. */
enum { CTX_PASS, CTX_REQUEST };

struct req_ctx {
    struct req_ctx *next;
    unsigned slot;
    unsigned lifetime;
    void *data;
};

/* The client's request body. */
struct body {
    struct chain chain;          /* in memory, not yet consumed (MEM), and, when spooled, the file as a FILE piece */
    int64_t length;              /* declared; -1: chunked */
    uint64_t received;           /* content bytes so far */
    uint64_t wire;               /* bytes of the connection they took, chunk framing included: $request_length */
    uint64_t spooled;            /* of them in the temporary file */
    struct chain_file *file;
    struct str file_name;        /* client_body_in_file_only; else empty */
    bool started, complete, streaming, discarding, continued;
    unsigned failed;             /* status of a body that cannot be had (400, 408, 413, 500); 0: fine */
    struct req *reader;          /* waits in body_read */
    /* Streaming: called from the loop when there is more in chain, or complete or failed turned true. */
    void (*on_data)(struct req *r);
    struct wait wait;            /* of a buffered read */
};

/* An attempt at an upstream: what $upstream_* report. The request owns the records (semantics.md 1.10). */
struct upstream_record {
    struct str peer;             /* "127.0.0.1:80", or the group's name when none was live */
    struct str server;           /* what the `server` directive calls it; empty: none was chosen */
    unsigned status;             /* 0: "-" */
    int64_t connect_us, header_us, response_us; /* -1: "-" */
    int64_t queue_us;            /* spent waiting for a server to have a connection to spare; -1: there is no queue */
    uint64_t bytes_received, bytes_sent, response_length;
    bool new_exchange;           /* first of its exchange: " : " before it, else ", " */
};
struct upstream_records {
    struct upstream_record *items;
    unsigned count, capacity;
    const struct msg *head;      /* the last exchange's parsed head: $upstream_http_* */
};

struct req {
    struct eval eval;            /* first: hooks and variables are handed &r->eval */
    struct arena *arena;
    struct req *main;            /* itself for a main request */
    struct req *parent;
    struct client *client;
    const struct addr *realip;   /* main: the client's address by the realip module; NULL: the socket's (req_peer) */
    const struct answer_ops *ops; /* the protocol under this request: answer.h */
    const struct server *server;
    const struct location *loc;   /* never NULL: the server's root before the search */
    struct logger log;

    /* The request. Subrequests share in (fields) with their parent. */
    struct msg *in;
    enum method method;
    struct str method_name;
    struct str unparsed_uri;     /* as received, with arguments: $request_uri */
    struct str uri;              /* normalised path */
    struct str args;
    struct str exten;
    struct str host;             /* lower case, no port, no final dot; empty: none given */
    unsigned host_port;          /* the port that came with it; 0: none */
    uint64_t start_ms;
    time_t start_s;
    unsigned start_msec;
    struct body body;

    /* The answer. */
    struct msg out;
    time_t last_modified;        /* -1: unknown; written as a field by the head writer */
    struct str charset;          /* added to Content-Type when set */
    struct str override_charset; /* what the upstream wants the answer to be in (X-Accel-Charset) */
    bool allow_ranges;           /* the content may be cut by the range filter */
    bool single_range;           /* into one part only: it passes by and is kept nowhere (an upstream's) */
    bool range_refused;          /* a 416 is about this location's content: fields that go with that go with it too */
    bool expect_trailers;        /* fields may follow the body: HTTP/1.1 needs chunks for them */
    bool ranges_of_main;         /* subrequest: its content is a part of the main request's, and cut by that one's ranges */
    uint64_t content_offset;     /* where what follows as body begins in the content that content_length is of */
    bool in_memory;              /* an accepted body filter needs MEM pieces */
    bool merged_in_memory;       /* main: one below the boundary does, so that children's output must be in memory too */
    bool head_sent;              /* the head has been handed to the protocol */
    bool location_as_is;         /* a relative Location stays relative (an upstream's) */
    bool header_only;            /* HEAD, 204, 304: no body goes out */
    bool ended;                  /* BODY_END was handed to the protocol */
    bool aborted;
    bool answer_started;
    unsigned char limited[2];    /* main: how limit_req and limit_conn judged it: modules/http/limit.h */
    uint64_t limit_rate;         /* 0: none; UINT64_MAX: not decided yet (read at the first write) */
    uint64_t limit_rate_after;   /* UINT64_MAX: not decided yet */
    /* The producer of the body, told when output has drained: answer_full may have turned false. NULL: none. */
    void (*on_drain)(struct req *r);
    /*
     * Of the main request: told that the client has closed or half-closed its end while this is set (499). NULL: nobody
     * cares. Set by req_on_hup.
     */
    void (*on_hup)(struct req *r);
    /*
     * Of the main request: told that the worker ends and closes its connections. True: it has taken leave of its client and
     * may be given a moment for the answer to that. NULL: it is aborted.
     */
    bool (*on_farewell)(struct req *r);
    unsigned hup_watchers;       /* for whom it was set */
    unsigned outlives;           /* main: how many are at work on something that is to be finished though the client has gone */
    struct filter_run *filters;  /* accepted body filters, by rank */
    unsigned filter_count;
    unsigned next_filter;        /* of loc->filters: where the head pass stopped (HEAD_HOLD) */
    bool heads_after;            /* the pass has come to the filters that are judged behind the others */
    bool head_held;
    bool filter_waits;
    unsigned held_flags;
    struct chain boundary;       /* main request: what waits at the LINK boundary, from the first unfinished child on */
    bool has_links;              /* main request: there are or were children whose output is part of the answer */
    unsigned boundary_flags;
    struct later drain;          /* main request: producers go on, for what waited at the boundary has moved */

    /* Engine. */
    unsigned char step;          /* private to req.c */
    unsigned short hook;         /* index of the hook that runs or waits */
    unsigned status_wanted;      /* with V_STATUS */
    unsigned err_status;         /* overrides the status of the answer: error_page without "=" */
    unsigned restarts_left;      /* 10 … 0 */
    unsigned char restart;       /* enum restart, with V_RESTART */
    struct str restart_name;     /* "@name" */
    bool uri_changed;            /* rewrite module: the location search is due again */
    bool internal;               /* internal redirect, subrequest or rewritten */
    bool valid_unparsed_uri;     /* unparsed_uri still corresponds to uri: proxy_pass may send it raw */
    bool uri_below_alias;        /* the alias of a regex location stands before uri: try_files found it there */
    bool valid_location;         /* uri begins with what the location search matched: no rewrite since */
    bool complex_uri;
    bool delayed;                /* auth_delay has been waited out for the refusal under way */
    bool error_page_used;        /* a status has been handed to error_page already */
    unsigned refused;            /* first refusal of the access phase */
    bool background;             /* mirror, cache update: not tied to the client's output */
    bool keep_alive;             /* after this answer */
    bool pipelined;              /* its first bytes had come before the answer to the request before was out */
    bool lingering;
    bool logged;
    struct list waits;           /* struct wait.link */
    struct later run_later;
    enum verdict pending;        /* verdict delivered from outside, for the next run */
    bool has_pending, running;
    struct req_ctx *ctx;

    /* Subrequests. */
    struct list children;        /* struct req.sibling */
    struct list sibling;
    unsigned depth_left;         /* 51 … */
    unsigned subrequests;        /* of a main request: how many there have been, clones left out */
    struct list queue;           /* main: subrequests that have not been started, for others are at work (struct req.turn) */
    struct list turn;
    unsigned at_work;            /* children with output that have been started and are not over; of main: of all its subrequests */
    bool queued;
    struct chain sub_out;        /* a child's output, which the parent's LINK stands for */
    bool linked;                 /* sub_out stands in some chain as a LINK */
    void (*on_child)(struct req *child, void *data); /* the child has ended: status in child->out.status */
    void *on_child_data;
    /* A child: what it answers when nothing has been produced and a status is wanted, instead of the error page. NULL: the page. */
    enum verdict (*on_status)(struct req *child);

    /* Upstream attempts, for variables and the log. */
    struct upstream_records upstream;

    /* Appends the upstream's URL to a log line; NULL while there is none. */
    size_t (*describe_upstream)(const struct req *r, char *buf, size_t size);

    struct regex_match match;    /* storage for eval.match */
    unsigned request_number;     /* on the connection */
    uint64_t head_bytes;         /* of the request, as received */
    uint64_t response_head_bytes;
    uint64_t sent_bytes;         /* response bytes handed to the socket, head included */
    uint64_t body_sent;          /* without the head */
    struct value *values;        /* cached variables; of the main request */
    struct doomed doomed;
    bool finished;               /* req_done or req_abort has run */
    bool output_done;            /* main: everything was sent, background children are waited for */
    bool sub_in_memory, sub_head_only, sub_with_body, sub_clone;
    bool dropped;                /* a child whose output nobody sees: in the background, of the head only, or below such a one */
    struct req *collector;       /* the subrequest kept in memory that the output becomes part of (itself or one above); NULL: the answer's */
    uint64_t collected;          /* of a collector: bytes so far, its children's among them */
};

static inline struct req *req_of(struct eval *e)
{
    return container_of(e, struct req, eval);
}

/* The client's address: the socket's peer, or what realip put in its place. */
const struct addr *req_peer(const struct req *r, struct addr *room);

/* Verdicts ---------------------------------------------------------------------------------- */

/* V_STATUS with that code. With a Location: set it in r->out first. */
enum verdict req_status(struct req *r, unsigned status);
/* V_RESTART: internal redirect to a URI (args STR_NULL: none) or a named location ("@name"). Strings must be in r's arena. */
enum verdict req_restart_uri(struct req *r, struct str uri, struct str args);
enum verdict req_restart_named(struct req *r, struct str name);
/* r->uri has been changed in place: the extension anew. */
void req_set_exten(struct req *r);
/* A 301…308 with an absolute or server-relative Location. */
enum verdict req_redirect(struct req *r, unsigned status, struct str location);

/* Running ----------------------------------------------------------------------------------- */

/* A main request for a parsed head; the caller has set in, client, server. Runs from the loop (req_start → run). */
struct req *req_new(struct client *client, struct arena *arena);
void req_start(struct req *r);
/* The head could not be parsed: answer status through the default server's error_page, phases' log included. */
void req_start_error(struct req *r, unsigned status);
/* Whatever r waited for has come: calls the hook or handler that said V_WAIT again (from the loop, not from inside). */
void req_resume(struct req *r);
/* The same, but the waiting hook's verdict is v and it is not called again. */
void req_deliver(struct req *r, enum verdict v);
/* The client has gone, or something is broken: cancels waits and children, logs, frees. status: what the log shows (499, 408, 0: as is). */
void req_abort(struct req *r, unsigned status);
/* For protocols: all output has been handed to the socket and the body dealt with. Logs and frees. */
void req_done(struct req *r);
/* A subrequest is over, or given up, with all children that it waited for: tells the parent. */
void req_child_end(struct req *r);
/* A subrequest has handed out the end of its output: it is over as soon as its children are. */
void req_child_ended(struct req *r);
/* A location's settings come into force (also for `if`). */
void req_enter_location(struct req *r, const struct location *loc);
/* Drops module state of the pass and the accepted filters. */
void req_forget_pass(struct req *r);
/* True while nothing has gone to the client and nothing was decided. */
static inline bool req_undecided(const struct req *r)
{
    return !r->answer_started;
}

/* Sets on_hup; a client that has gone before is told of too, from the loop. */
void req_on_hup(struct req *main, void (*f)(struct req *r));
/* While r waits for something of its own: a client that closes its end has the request aborted, 499. */
void req_watch_client(struct req *r, bool on);

void wait_begin(struct req *r, struct wait *w, void (*cancel)(struct wait *w));
void wait_end(struct wait *w);

/* Module state ------------------------------------------------------------------------------ */
void *req_ctx(const struct req *r, unsigned slot);
void req_ctx_set(struct req *r, unsigned slot, void *data, unsigned lifetime);
/* Module's settings at the request's current location / server. */
static inline void *req_loc_conf(const struct req *r, unsigned slot)
{
    return r->loc->level->conf[STORE_LOC][slot];
}

/* Subrequests ------------------------------------------------------------------------------- */
enum {
    SUB_IN_MEMORY = 1,   /* the answer's body is collected, not sent */
    SUB_BACKGROUND = 2,  /* has a life of its own */
    SUB_KEEP_METHOD = 4, /* clone, mirror */
    SUB_HEAD_ONLY = 8,   /* only the head is wanted (auth_request) */
    SUB_WITH_BODY = 16,  /* may send the parent's body again */
    SUB_CLONE = 32,      /* enters the parent's location at its content; keeps the method (slice) */
};
/*
 * NULL when a limit is reached (logged): a depth of 51 (as nginx has it), subrequests_limit of them in one request (clones come one behind the other and
 * are not counted). The child starts in the next turn, or, when 64 of one request are at work, after others have ended. done may be NULL; it is called once, when the child and those that
 * it waited for are over, unless the parent ended first. child->aborted: its answer is not complete.
 * A child without SUB_IN_MEMORY, SUB_BACKGROUND, SUB_HEAD_ONLY has an output that the caller places with
 * chain_push_link(…, &child->sub_out), exactly once. With SUB_IN_MEMORY the body, of at most subrequest_output_buffer_size bytes, is in
 * child->sub_out when done is called, in MEM pieces, that of its own children in its place. Should one of those fail, all of it has.
 */
struct req *req_subrequest(struct req *parent, struct str uri, struct str args, unsigned flags,
                           void (*done)(struct req *child, void *data), void *data);

/* Request body ------------------------------------------------------------------------------ */
/* Reads it all: memory up to client_body_buffer_size, then a temporary file. V_NEXT: complete, in r->body.chain; V_WAIT;
 * V_STATUS (400, 413, 408, 500); V_ABORT. Sends 100 Continue. Call again after V_WAIT. */
enum verdict body_read(struct req *r);
/* Starts streaming: on_data is called as data comes; V_NEXT at once. Unconsumed data above the buffer size stops reading. */
enum verdict body_stream(struct req *r, void (*on_data)(struct req *r));
/* After taking from r->body.chain while streaming: read on. */
void body_consumed(struct req *r);
/* Part of it has been taken from the stream by whoever read it first: nobody else can have it. */
bool body_is_gone(const struct req *r);
/* Nobody wants it: read and drop while the answer is sent. */
void body_discard(struct req *r);
/* A second reader (error_page fallback, retry): FILE and MEM pieces again. The body is never consumed by readers: copy references. */
void body_copy(struct req *r, struct chain *out);

/* When the request ends: files and blocks. */
void body_release(struct req *r);

/* What the configuration did ------------------------------------------------------------------ */

/*
 * Beside the error in nginx's wording: says at level info which line refused the request, as "SENTENCE in FILE:LINE",
 * 'access forbidden by "deny 10.0.0.0/8" in /etc/proxyd/proxyd.conf:12'.
 */
void req_refused(struct req *r, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);
/*
 * A step that is worth telling the person who asks what becomes of a request (--explain): a rewrite, a variable set, an
 * access rule that allowed, the server chosen. Nothing is formatted unless somebody listens. Refusals are told too.
 * The first word says what it is about ("access", or the name of the directive) and is shown in a column of its own.
 * text NULL: the request has ended, and r->out is its answer.
 *
 * A request that is traced is explained, not served: nothing may leave the process for it, and nothing be written. Whoever
 * would connect, send, write or wait looks at req_explained() first, says what it would do, and does without.
 */
extern void (*req_tracer)(struct req *r, struct conf_pos pos, const char *text);
static inline bool req_explained(void)
{
    return unlikely(req_tracer != NULL);
}
/* The line of a directive that is in force for the request, or one of no file. For req_trace: only --explain keeps them. */
static inline struct conf_pos req_where(const struct req *r, const char *directive)
{
    return conf_where(r->loc->level, directive, STR_NULL);
}
#define req_trace(r, pos, ...) \
    do { \
        if (unlikely(req_tracer != NULL)) \
            req_trace_write((r), (pos), __VA_ARGS__); \
    } while (0)
void req_trace_write(struct req *r, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Paths ------------------------------------------------------------------------------------- */
/* The file path for r->uri under root or alias: NUL-terminated, in the arena. root_len: bytes of the root part. extra bytes of
 * room are reserved behind the NUL. 0, or -1 with the reason logged. */
int req_map_path(struct req *r, struct str *path, size_t *root_len, size_t extra);
/* What root or alias amounts to for this request. 0, or -1, logged. */
int req_root_path(struct req *r, struct str *out);
/* Content-Type by extension or default_type. */
struct str req_content_type(struct req *r);

#endif
