/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Upstreams: groups of servers, the choice among them, kept-alive connections, and the exchange:
 * attempts to get an answer for a request from one of them. The one public header of the module:
 * modules that pass requests on (proxy and its kin) fill in a struct exchange, name a backend that
 * speaks the protocol, and call exchange_start from their content handler.
 */
#ifndef MODULES_UPSTREAM_UPSTREAM_H
#define MODULES_UPSTREAM_UPSTREAM_H

#include "core/event/conn.h"
#include "core/http/answer.h"
#include "core/http/req.h"
#include "modules/ssl/ssl.h"
#include "modules/upstream/peers.h"

struct exchange;
struct health;
struct sticky;
struct upstream;
struct tls_client;
struct upconn;

/* Groups ------------------------------------------------------------------------------------- */

/* Handshakes with a server: those that went well, and why others did not. */
enum peer_tls {
    PEER_TLS_HANDSHAKES, PEER_TLS_FAILED, PEER_TLS_REUSES, PEER_TLS_NO_PROTOCOL, PEER_TLS_TIMEOUT, PEER_TLS_REJECTED,
    PEER_TLS_EXPIRED, PEER_TLS_REVOKED, PEER_TLS_HOSTNAME, PEER_TLS_OTHER,
    PEER_TLS_COUNTS,
};
/*
 * Statuses of answers that are counted one by one: those that are registered (RFC 9110, 16.2.1), and a few that are not but are met with.
 * A fixed set, so that no server can fill the places with others.
 */
#define PEER_STATUSES(X)                                                                       \
    X(101) X(200) X(201) X(202) X(203) X(204) X(205) X(206) X(207) X(208) X(226) X(300) X(301) \
    X(302) X(303) X(304) X(305) X(307) X(308) X(400) X(401) X(402) X(403) X(404) X(405) X(406) \
    X(407) X(408) X(409) X(410) X(411) X(412) X(413) X(414) X(415) X(416) X(417) X(418) X(419) \
    X(421) X(422) X(423) X(424) X(425) X(426) X(428) X(429) X(431) X(451) X(499) X(500) X(501) \
    X(502) X(503) X(504) X(505) X(506) X(507) X(508) X(510) X(511) X(520)
#define PEER_STATUS_PLACE(status) PEER_STATUS_##status,
enum { PEER_STATUSES(PEER_STATUS_PLACE) PEER_CODES };
extern const uint16_t peer_codes[PEER_CODES]; /* ascending */

/* What a server has done since it came, in the zone: added to without the lock. */
struct peer_stats {
    /* Two cache lines: what each request adds to, and the first of `codes`. */
    uint64_t requests;
    uint64_t sent, received; /* bytes */
    int64_t header_us, response_us; /* moving averages; 0: none yet */
    int64_t selected_ms;     /* last chosen, on the wall clock; 0: never */
    int64_t downstart_ms;    /* since when it cannot be asked, on the wall clock; 0: it can */
    uint64_t fails;
    uint64_t codes[PEER_CODES]; /* by peer_codes */
    uint64_t responses[5];   /* those whose status is not among peer_codes */
    uint64_t unavail;
    uint64_t downtime_ms;    /* of the times in which it could not be asked that are over */
    uint64_t tls[PEER_TLS_COUNTS];
};

/*
 * One address of a server, as a worker knows it. What changes about it is in the group's peer_view, at `index`. Of a group in a zone a worker has
 * peers of its own, which go when the server has gone and nobody in this worker has to do with it any more
 * (shared_local.c): a request that is done with its attempt keeps no pointer to one, nor to its strings.
 */
struct peer {
    /* A cache line: all that a request touches. */
    struct str name;         /* "127.0.0.1:80"; of a name that is resolved at run time: empty */
    struct str server;       /* as `server` said */
    struct peer_stats *stats; /* in the zone; NULL: nobody counts */
    struct list idle;        /* struct upconn.peer_link: kept-alive connections, youngest first */
    unsigned index;
    bool resolves;           /* a name whose addresses are servers: not one itself */
    bool resolved;           /* in a worker: one of these addresses */
    bool gone;               /* its server was removed: connections are not kept any more */
    /* To here. */
    struct addr addr;
    struct str route;        /* `route`; empty: none */
    struct str service;      /* `service`; empty: none */
    struct str cookie;       /* sticky cookie: what the client is told */
    uint64_t id;             /* of server and name: the same in all processes */
    unsigned parent;         /* in the configuration: index of the name that this is an address of; PEERS_NONE */
    uint32_t number;         /* in a zone: what upstream_server.id is */
    struct list retired;     /* upstream.retired, once it has gone */
};

/* A request's way through a group. */
struct choice {
    struct upstream *group;
    struct req *req;
    struct peer *peer;       /* chosen; NULL between attempts */
    struct peer *last;       /* the same, also when the attempt is over */
    unsigned tries;          /* left, this one included */
    unsigned wanted;         /* sticky: the server that the client is bound to; PEERS_NONE: none */
    uint32_t hash;           /* of a method that hashes: where it stands */
    uint32_t rehashes;
    struct str key;
    uint32_t *tried;         /* servers asked already, by index */
    unsigned tried_count, tried_capacity;
    uint32_t tried_room[6];
};

enum peer_outcome {
    PEER_OK,
    PEER_FAILED, /* counts against the server */
    PEER_NEXT,   /* another one is asked, but this one is not to blame */
    PEER_STALE,  /* a kept-alive connection turned out to be dead: as if it had not been tried */
};

/* A way of choosing. */
struct balancer {
    const char *name;
    /* Once the servers are known, at load: tables, in the arena. NULL: none are needed. */
    void (*build)(struct arena *arena, struct upstream *g);
    /* A new request; may evaluate its key. NULL: nothing to prepare. */
    void (*start)(struct choice *c);
    /* The index of a server that is not a backup and whose state is 0; those asked already have PEER_TRIED. PEERS_NONE: none is live. */
    unsigned (*pick)(struct choice *c);
    /* Instead, of one that is not fixed: so, by the numbers alone, of those whose state is exactly `want`, 0 or PEER_BACKUP. */
    unsigned (*among)(struct peer_view *v, uint32_t want);
    bool fixed; /* goes by the weights as they are written: no slow starts, and no backups */
};

/* A new request. Sets c->tries. */
void choice_start(struct choice *c, struct upstream *g, struct req *r);
/* Sets c->peer and counts the connection. 0, or -1: none is live. */
int choice_next(struct choice *c);
/*
 * The attempt at c->peer, if there is one, is over; clears it. time_ms: how long the answer took, as far as the method
 * asks; negative: not known.
 */
void choice_end(struct choice *c, enum peer_outcome outcome, float time_ms);

struct keepalive_conf {
    unsigned connections; /* idle ones kept per worker; 0: none */
    bool local;           /* each is used again only by the location that opened it */
};

/* least_time, random two: which time counts. */
enum peer_time { TIME_NONE, TIME_HEADER, TIME_LAST_BYTE };

struct balancer_conf {
    struct expr *key;         /* hash, maglev */
    double bound;             /* hash … consistent bounded_load=: so many times the average; 0: no bound */
    enum peer_time time;
    bool two;                 /* random two */
};

struct upstream {
    struct str name;          /* of the group; "host:port" of an implicit one */
    struct level *level;      /* of the block; NULL: implicit */
    struct conf_pos pos;
    const struct balancer *balancer;
    struct balancer_conf method; /* what its directive said */
    void *table;              /* what the balancer built */
    bool tls;                 /* some location speaks TLS with its servers */
    bool ntlm;                /* connections belong to the client that authenticated over them */
    struct sticky *sticky;    /* NULL: clients are not bound to servers */
    struct upstream_queue *queue; /* NULL: nobody waits for a server */
    struct health *health;    /* active checks; NULL: none */
    struct peer **peers;      /* by index; NULL: no server is in this place */
    struct peer_view view;    /* own, or in the zone */
    struct peer_view own;     /* as the configuration says; of a group in a zone, in a worker: as its servers were when it last looked */
    unsigned count;           /* places, those without a server included */
    const uint32_t *live;     /* changes whenever servers change; never NULL */
    uint32_t generation;      /* of what peers and own say, */
    uint32_t table_generation; /* and of the tables that the balancer and sticky have built from them */
    struct res_zone *zone_spec; /* `zone`; NULL: each worker has numbers of its own */
    struct zone *zone;        /* in a worker: where view lies; its lock is held while view is used */
    struct upstream *next_shared; /* in the same zone */
    uint64_t zone_group, zone_held; /* where in the zone (shared.h): of the configuration, in a worker */
    struct shared_local *local; /* in a worker, of a group in a zone: what belongs to its peers (shared_local.c) */
    struct str state;         /* `state`: absolute path; empty: none */
    uint64_t state_hash;      /* of the servers that were read from it */
    /* names that are resolved at run time */
    struct resolver_spec *resolver; /* NULL: none is known */
    struct resolver **resolver_instance; /* in a worker, made at first use */
    uint64_t resolver_timeout_ms;
    struct names *names;      /* in a worker (names.c); NULL: there is nothing to ask for */
    struct str unresolved;    /* a name that did not resolve at load; empty: there is none */
    /* implicit: what is to be resolved */
    struct str host;
    unsigned port;
    const struct level **passes; /* levels that pass requests here */
    unsigned pass_count, pass_capacity;
    /* kept-alive connections */
    struct list idle;         /* struct upconn.link: youngest first */
    unsigned idle_count;
    struct keepalive_conf keepalive;
    int64_t keepalive_requests;
    uint64_t keepalive_time_ms, keepalive_timeout_ms;
    struct list link;         /* among all groups of the configuration */
};

/* An address as `server` and *_pass write it: "host", "host:port", "[v6]:port", "unix:path". */
struct upstream_address {
    struct str host;      /* without port; with brackets as written; "unix:/path" */
    unsigned port;        /* the default one if none was given; 0 for unix */
    bool has_port, is_unix;
};
/* NULL or a sentence. text is the whole address. */
const char *upstream_address_parse(struct upstream_address *a, struct str text,
                                   unsigned default_port);
/* The group of that name, or an implicit one resolved after the file is read. */
struct upstream *upstream_refer(struct conf *cf, const struct upstream_address *a);
/* How a family of directives passes requests on, for those who send some of their own (health checks). */
struct upstream_family {
    const struct module *module;
    size_t conf; /* offset of struct upstream_conf in the module's STORE_LOC structure */
    /*
     * The fields that requests of this level are given and that depend on no request: "NAME: VALUE" CRLF each. *host:
     * Host is among them. NULL: there are none.
     */
    struct str (*fields)(struct arena *arena, const struct level *level, bool *host);
    /* What an expression comes to for all requests of this level. False: that depends on the request. NULL: it always may. */
    bool (*known)(const struct level *level, const struct expr *value, struct str *text);
};
/* Said by the setter of a *_pass directive: the location being read passes its requests to g; NULL: known at run time only. */
void upstream_passes(struct conf *cf, struct upstream *g, const struct upstream_family *family);
/* A group defined by an upstream block (run-time names). NULL: none. */
struct upstream *upstream_find(const struct http_main *http, struct str name);
/* A group for one request: addresses that a name resolved to, or one literal address. */
struct upstream *upstream_temporary(struct arena *arena, struct str name, const struct addr *addrs,
                                    unsigned count);

/* Servers that change while they serve -------------------------------------------------------- */

/*
 * Of groups in a zone (dynamic.c). All workers see a change at once. A server is known by its id: numbers from 0 on in the order of the
 * `server` lines, then of coming; none is used twice. A name that is resolved at run time (`resolve`) is a server that no
 * request goes to; each of its addresses is a further one, whose `parent` it is, that comes and goes with the answers.
 */
#define UPSTREAM_NO_PARENT UINT32_MAX

struct upstream_server {
    uint32_t id;
    uint32_t parent;           /* of an address that a name resolved to; else UPSTREAM_NO_PARENT */
    struct str server;         /* as `server` says; of an address with a parent "127.0.0.1:80" */
    struct str name;           /* "127.0.0.1:80"; of a name that is resolved at run time: empty */
    struct str host;           /* of an address with a parent: the parent's name; else empty */
    struct str service;        /* service=; else empty */
    struct str route;          /* route=; with `sticky cookie` what the cookie says where none was given; else empty */
    bool resolves;             /* a name that is resolved at run time: requests go to its addresses */
    bool backup, down, drain;
    int32_t weight;
    uint32_t max_conns;        /* 0: no limit */
    int64_t max_fails;
    uint64_t fail_timeout_s, slow_start_s;
    /* How it is now; meaningless where `resolves`. */
    const char *state;         /* "up", "down", "unavail", "draining", "checking", "unhealthy" */
    uint32_t active;           /* connections, of all workers */
    uint64_t requests;
    uint64_t responses[5];     /* 1xx .. 5xx */
    uint64_t codes[PEER_CODES]; /* of them, those of each of peer_codes */
    bool has_tls;              /* requests go to it over TLS, or did */
    uint64_t tls[PEER_TLS_COUNTS];
    uint64_t sent, received;   /* bytes */
    uint64_t fails;            /* attempts that failed */
    uint64_t unavail;          /* how often it was taken out for failures */
    bool checked;              /* an active health check has ended: what follows says something */
    bool last_passed;
    uint64_t checks, failed_checks, unhealthy;
    uint64_t downtime_ms;      /* in the states unavail, checking and unhealthy, the present one included */
    int64_t downstart_ms;      /* since when it is in one of them: wall clock, ms since 1970; 0: it is not */
    int64_t selected_ms;       /* when it was last chosen: the same; 0: never */
    int64_t header_time_ms, response_time_ms; /* averages; -1: no answer yet */
};

struct upstream_status {
    struct str zone;               /* its name */
    struct upstream_server *servers; /* by id; names that resolve at run time are among them */
    unsigned count;
    uint32_t keepalive;            /* idle connections, of all workers */
    uint32_t zombies;              /* removed servers that still have connections */
    bool has_queue;
    uint32_t queue_size, queue_max; /* waiting in all workers; how many may, in all workers together */
    uint64_t queue_overflows;
};

/* The groups of upstream blocks with a zone, one after the other (first: prev NULL); NULL: no more. */
struct upstream *upstream_shared_next(const struct http_main *http, const struct upstream *prev);
/* In a worker: whether servers of the group can be listed and changed (it has a zone). */
bool upstream_is_shared(const struct upstream *g);
/* What is known of the group now, in the arena. False: it has no zone. */
bool upstream_snapshot(struct upstream *g, struct arena *arena, struct upstream_status *out);

enum upstream_edit {
    EDIT_OK,
    EDIT_STATIC,        /* the group has no zone */
    EDIT_NOT_FOUND,     /* no server with that id */
    EDIT_NO_ADDRESS,    /* `server` is missing */
    EDIT_BAD_ADDRESS,
    EDIT_BAD_PARAMETER, /* a value, or a parameter that the group's method does not support */
    EDIT_NO_BACKUP,     /* the group's method knows none */
    EDIT_NO_RESOLVER,   /* a name, and no `resolver` in the upstream block or in http */
    EDIT_IMMUTABLE,     /* an address that a name resolved to: only its parent can be changed or removed */
    EDIT_NO_MEMORY,     /* the zone is full */
    EDIT_NOT_SAVED,     /* the state file could not be written: nothing has been changed */
};

/* Which fields of a struct upstream_change are meant. */
enum {
    CHANGE_WEIGHT = 1, CHANGE_MAX_CONNS = 2, CHANGE_MAX_FAILS = 4, CHANGE_FAIL_TIMEOUT = 8,
    CHANGE_SLOW_START = 16, CHANGE_ROUTE = 32, CHANGE_BACKUP = 64, CHANGE_DOWN = 128,
    CHANGE_DRAIN = 256, CHANGE_SERVICE = 512,
};
/* What is to be. Numbers outside of what `server` allows are EDIT_BAD_PARAMETER, as are a route or a name that is too long. */
struct upstream_change {
    unsigned what;          /* CHANGE_ bits; a new server has nginx's defaults for the rest */
    struct str server;      /* add only: "address", "address:port", "unix:/path", "name[:port]" (needs a resolver) */
    int64_t weight, max_conns, max_fails;
    uint64_t fail_timeout_s, slow_start_s;
    struct str route;
    struct str service;     /* add only: of a name without port */
    bool backup;            /* add only: a server cannot become a backup, nor stop being one */
    bool down, drain;       /* drain: only true; `down: false` ends draining too */
};

/*
 * In a worker. On success *id is the server's; else *error is a sentence in the arena ("no servers …"), without a stop. What is
 * EDIT_OK is in the state file, if there is one, and seen by each choice that begins afterwards, in any worker.
 */
enum upstream_edit upstream_server_add(struct upstream *g, struct arena *arena,
                                       const struct upstream_change *change, uint32_t *id,
                                       struct str *error);
enum upstream_edit upstream_server_change(struct upstream *g, struct arena *arena, uint32_t id,
                                          const struct upstream_change *change, struct str *error);
/* Requests under way finish. With a name its addresses go. */
enum upstream_edit upstream_server_remove(struct upstream *g, struct arena *arena, uint32_t id,
                                          struct str *error);
/* Counters of all its servers, or of one, begin anew: requests, responses, bytes, failures, checks, downtime, queue overflows. */
enum upstream_edit upstream_reset(struct upstream *g);
enum upstream_edit upstream_server_reset(struct upstream *g, uint32_t id);

/* Settings of a family ------------------------------------------------------------------------ */

enum {
    NEXT_ERROR = 1 << 0, NEXT_TIMEOUT = 1 << 1, NEXT_INVALID_HEADER = 1 << 2,
    NEXT_HTTP_500 = 1 << 3, NEXT_HTTP_502 = 1 << 4, NEXT_HTTP_503 = 1 << 5, NEXT_HTTP_504 = 1 << 6,
    NEXT_HTTP_403 = 1 << 7, NEXT_HTTP_404 = 1 << 8, NEXT_HTTP_429 = 1 << 9,
    NEXT_NON_IDEMPOTENT = 1 << 10, NEXT_OFF = 1 << 11,
    NEXT_DENIED = 1 << 13, /* by *_allow_upstream */
    NEXT_NO_LIVE = 1 << 12, /* no server could be asked: never in a setting */
};
enum {
    IGNORE_XA_REDIRECT = 1, IGNORE_XA_EXPIRES = 2, IGNORE_XA_LIMIT_RATE = 4,
    IGNORE_XA_BUFFERING = 8, IGNORE_XA_CHARSET = 16, IGNORE_EXPIRES = 32,
    IGNORE_CACHE_CONTROL = 64, IGNORE_SET_COOKIE = 128, IGNORE_VARY = 256,
};

struct upstream_bind {
    struct expr *addr;    /* NULL: off */
    bool transparent;
};
/* A local address with or without a port (then 0). 0, or -1: it is none. */
int upstream_bind_parse(struct addr *addr, struct str text);

/* *_allow_upstream: the servers that may be asked. */
struct upstream_allow {
    struct expr_list conditions;
    struct str name;      /* of the directive */
    struct conf_pos pos;
};

/* *_store: where answers are kept as files. */
struct upstream_store {
    bool on;
    struct expr *path;    /* NULL: where root or alias point */
    unsigned climbs;      /* ".." in what the configuration says */
};

/* What becomes of a field of an answer on its way to the client. */
enum {
    FIELD_HIDDEN = 1, /* by the configuration */
    FIELD_HOP = 2,    /* concerns only this connection, or is sent in another way */
    FIELD_LOOK = 4,   /* depends on the answer, or may be changed: looked at by itself */
    FIELD_PLACE = 8,  /* ours would have a certain place: it comes where the server put it */
};
/* That by token, and the other names that are hidden. Computed by upstream_conf_finish. */
struct hidden_fields {
    unsigned char token[T_KNOWN];
    struct str *names;    /* not well-known ones */
    uint32_t *hashes;
    unsigned count;
};

/* What UPSTREAM_TLS_ROWS are the rows of. */
struct upstream_tls {
    struct ssl_spec spec;
    struct expr *name;       /* that is asked for, and that the certificate must be for */
    bool server_name, verify, session_reuse;
    struct tls_client *client; /* computed by upstream_tls_finish; NULL: nothing is passed over TLS here */
};

/*
 * Call it from the module's finish where requests may be passed over TLS. prefix: "proxy". 0, or -1: reported.
 */
int upstream_tls_finish(struct conf *cf, struct level *level, struct upstream_tls *tls,
                        const char *prefix);

/* What UPSTREAM_ROWS are the rows of. */
struct upstream_conf {
    unsigned buffering;   /* BUFFERING_… */
    bool request_buffering, ignore_client_abort, intercept_errors;
    bool pass_request_headers, pass_request_body, force_ranges, socket_keepalive;
    bool bind_dynamic;
    unsigned proxy_protocol; /* the version sent in front of each connection; 0: none */
    size_t buffer_size, busy_buffers_size, temp_file_write_size;
    size_t socket_rcvbuf, socket_sndbuf; /* 0: the system's */
    size_t send_lowat;
    struct conf_bufs buffers;
    uint64_t max_temp_file_size;
    struct conf_path temp_path;
    uint64_t connect_timeout_ms, send_timeout_ms, read_timeout_ms, next_upstream_timeout_ms;
    int64_t next_upstream_tries;
    unsigned next_upstream, ignore_headers;
    struct str_list hide_headers, pass_headers;
    struct upstream_bind bind;
    struct expr_size limit_rate;
    struct upstream_allow allow;
    bool request_dynamic;    /* the request is made anew for each attempt */
    struct upstream_tls tls; /* of families that have UPSTREAM_TLS_ROWS */
    struct upstream_store store;
    unsigned store_access;   /* permission bits of stored files */
    /* computed by upstream_conf_finish */
    const struct hidden_fields *hidden;
    size_t busy, write_size; /* *_busy_buffers_size, *_temp_file_write_size, set or derived */
    size_t memory;           /* of the body, at most */
};

enum { BUFFERING_OFF, BUFFERING_ON, BUFFERING_AUTO };
conf_setter upstream_set_bind, upstream_set_socket_size, upstream_set_store;
conf_setter upstream_set_allow;
extern const struct conf_enum upstream_protocol_names[];
extern const struct conf_enum upstream_next_names[], upstream_ignore_names[], upstream_buffering_names[];

/* Checks sizes, completes what was not set, and computes `hidden`. 0, or -1: reported. Call it from
 * the module's finish. `parent` is what was inherited from, NULL at the top: faults that it has are
 * reported there. `hide` is the family's own list of what is not passed, NULL-terminated. */
int upstream_conf_finish(struct conf *cf, struct level *level, struct upstream_conf *uc,
                         const struct upstream_conf *parent, const char *family,
                         const char *const *hide);

/*
 * The rows of a family: UPSTREAM_ROWS("proxy_", struct proxy_loc, up), in a table of directives of a module whose
 * STORE_LOC structure has a struct upstream_conf as that member.
 */
#define UP_ROW(name_, args_, set_, type_, member_, def_, syntax_, doc_, ...) \
    ROW(name_, CTX_HSL, args_, set_, STORE_LOC, type_, member_, INHERIT_SCALAR, def_, syntax_, \
        doc_, __VA_ARGS__)
#define UP_LIST(name_, args_, set_, type_, member_, syntax_, doc_) \
    ROW(name_, CTX_HSL, (args_) | ARG_REPEAT, set_, STORE_LOC, type_, member_, INHERIT_WHOLE, NULL, \
        syntax_, doc_, )
#define UPSTREAM_ALLOW(p, t, m) \
    UP_ROW(p "allow_upstream", ARGS1_MORE, upstream_set_allow, t, m.allow, NULL, "string ...", \
           "A server is asked only if all strings are neither empty nor \"0\".", )
#define UPSTREAM_ROWS(p, t, m) \
    UPSTREAM_ALLOW(p, t, m), \
    UP_ROW(p "buffering", ARGS1, conf_set_enum, t, m.buffering, "on", "on | off | auto", \
           "Takes the answer from the server as fast as it comes, into memory and a temporary file; " \
           "auto: but for streams, whose parts go on at once.", .extra = upstream_buffering_names), \
    UP_ROW(p "request_buffering", ARG_FLAG, conf_set_flag, t, m.request_buffering, "on", "on | off", \
           "Reads the whole request body before a server is asked.", ), \
    UP_ROW(p "ignore_client_abort", ARG_FLAG, conf_set_flag, t, m.ignore_client_abort, "off", \
           "on | off", "Goes on with the exchange when the client has closed its connection.", ), \
    UP_ROW(p "intercept_errors", ARG_FLAG, conf_set_flag, t, m.intercept_errors, "off", "on | off", \
           "Lets error_page see answers with status 300 and above.", ), \
    UP_ROW(p "pass_request_headers", ARG_FLAG, conf_set_flag, t, m.pass_request_headers, "on", \
           "on | off", "Passes the client's request fields to the server.", ), \
    UP_ROW(p "pass_request_body", ARG_FLAG, conf_set_flag, t, m.pass_request_body, "on", \
           "on | off", "Passes the request's body to the server.", ), \
    UP_ROW(p "force_ranges", ARG_FLAG, conf_set_flag, t, m.force_ranges, "off", "on | off", \
           "Serves byte ranges whatever the server's Accept-Ranges says.", ), \
    UP_ROW(p "socket_keepalive", ARG_FLAG, conf_set_flag, t, m.socket_keepalive, "off", "on | off", \
           "SO_KEEPALIVE on connections to servers.", ), \
    UP_ROW(p "socket_rcvbuf", ARGS1, upstream_set_socket_size, t, m.socket_rcvbuf, NULL, "size", \
           "SO_RCVBUF of connections to servers.", ), \
    UP_ROW(p "socket_sndbuf", ARGS1, upstream_set_socket_size, t, m.socket_sndbuf, NULL, "size", \
           "SO_SNDBUF of connections to servers.", ), \
    UP_ROW(p "send_lowat", ARGS1, conf_set_size, t, m.send_lowat, "0", "size", \
           "SO_SNDLOWAT of connections to servers; without effect, for Linux has no such thing.", ), \
    UP_ROW(p "bind_dynamic", ARG_FLAG, conf_set_flag, t, m.bind_dynamic, "off", "on | off", \
           "Evaluates " p "bind for each connection; without effect, for that is always so.", ), \
    UP_ROW(p "buffer_size", ARGS1, conf_set_size, t, m.buffer_size, "4k", "size", \
           "The largest head of an answer.", ), \
    UP_ROW(p "buffers", ARGS2, conf_set_bufs, t, m.buffers, "8 4k", "number size", \
           "Memory for the body of an answer; what exceeds it waits in a temporary file.", ), \
    UP_ROW(p "busy_buffers_size", ARGS1, conf_set_size, t, m.busy_buffers_size, NULL, "size", \
           "How much of an answer may wait for the client's connection (8k unless set).", ), \
    UP_ROW(p "max_temp_file_size", ARGS1, conf_set_off, t, m.max_temp_file_size, "1024m", "size", \
           "The largest temporary file of an answer; 0: none.", ), \
    UP_ROW(p "temp_file_write_size", ARGS1, conf_set_size, t, m.temp_file_write_size, NULL, "size", \
           "How much is written to the temporary file at a time (8k unless set).", ), \
    UP_ROW(p "connect_timeout", ARGS1, conf_set_ms, t, m.connect_timeout_ms, "60s", "time", \
           "How long a connection to a server may take to establish.", ), \
    UP_ROW(p "send_timeout", ARGS1, conf_set_ms, t, m.send_timeout_ms, "60s", "time", \
           "Between two successful writes of the request.", ), \
    UP_ROW(p "read_timeout", ARGS1, conf_set_ms, t, m.read_timeout_ms, "60s", "time", \
           "Between two successful reads of the answer.", ), \
    UP_ROW(p "next_upstream", ARGS1_MORE | ARG_REPEAT, conf_set_bits, t, m.next_upstream, "error timeout", \
           "error | timeout | denied | invalid_header | http_500 | http_502 | http_503 | http_504 | " \
           "http_403 | http_404 | http_429 | non_idempotent | off ...", \
           "When the next server is asked.", .extra = upstream_next_names), \
    UP_ROW(p "next_upstream_tries", ARGS1, conf_set_num, t, m.next_upstream_tries, "0", "number", \
           "How many servers may be asked; 0: each once.", ), \
    UP_ROW(p "next_upstream_timeout", ARGS1, conf_set_ms, t, m.next_upstream_timeout_ms, "0", \
           "time", "For how long next servers may be asked; 0: no limit.", ), \
    UP_ROW(p "ignore_headers", ARGS1_MORE | ARG_REPEAT, conf_set_bits, t, m.ignore_headers, NULL, "field ...", \
           "Fields of the answer that steer the server and are not to be heeded.", \
           .extra = upstream_ignore_names), \
    UP_LIST(p "hide_header", ARGS1, conf_set_list, t, m.hide_headers, "field", \
            "A field of the answer that is not passed to the client."), \
    UP_LIST(p "pass_header", ARGS1, conf_set_list, t, m.pass_headers, "field", \
            "A field of the answer that is passed although it would be hidden."), \
    UP_ROW(p "bind", ARGS12, upstream_set_bind, t, m.bind, NULL, "address [transparent] | off", \
           "The local address of connections to servers.", ), \
    UP_ROW(p "limit_rate", ARGS1, conf_set_expr_size, t, m.limit_rate, "0", "rate", \
           "Bytes a second that are read of an answer while buffering; 0: no limit.", ), \
    UP_ROW(p "request_dynamic", ARG_FLAG, conf_set_flag, t, m.request_dynamic, "off", "on | off", \
           "Makes the request anew for each server that is asked.", ), \
    UP_ROW(p "store", ARGS1, upstream_set_store, t, m.store, "off", "on | off | string", \
           "Keeps answers as files: where root or alias point, or in the one that is named.", ), \
    UP_ROW(p "store_access", ARGS123, conf_set_access, t, m.store_access, "user:rw", \
           "users:permissions ...", "Permissions of stored files, and of directories made for them.", )

/* Those about TLS: name: the default of *_ssl_name. */
#define UP_TLS(name_, args_, set_, type_, member_, inherit_, def_, syntax_, doc_, ...) \
    ROW(name_, CTX_HSL, args_, set_, STORE_LOC, type_, member_, inherit_, def_, syntax_, doc_, \
        __VA_ARGS__)
#define UPSTREAM_TLS_ROWS(p, t, m, name_) \
    UP_TLS(p "ssl_certificate", ARGS1, ssl_set_file_list, t, m.spec.certificates, INHERIT_WHOLE, \
           NULL, "file", "The certificate that is shown to servers, in PEM; \"\": none.", ), \
    UP_TLS(p "ssl_certificate_key", ARGS1, ssl_set_file_list, t, m.spec.keys, INHERIT_WHOLE, NULL, \
           "file", "Its secret key.", ), \
    UP_ROW(p "ssl_certificate_cache", ARGS123, ssl_set_certificate_cache, t, m.spec.cache, "off", \
           "off | max=N [inactive=time] [valid=time]", \
           "Keeps certificates and keys whose names hold variables, in each worker.", ), \
    UP_ROW(p "ssl_password_file", ARGS1, ssl_set_password_file, t, m.spec.passwords, NULL, "file", \
           "Passwords of the secret key, one a line, tried in turn.", ), \
    UP_ROW(p "ssl_ciphers", ARGS1, ssl_set_text, t, m.spec.ciphers, "DEFAULT", "ciphers", \
           "The ciphers for TLS up to 1.2, as OpenSSL writes them.", ), \
    UP_TLS(p "ssl_protocols", ARGS1_MORE | ARG_REPEAT, conf_set_bits, t, m.spec.protocols, INHERIT_WHOLE, \
           "TLSv1.2 TLSv1.3", "[SSLv2] [SSLv3] [TLSv1] [TLSv1.1] [TLSv1.2] [TLSv1.3]", \
           "The protocol versions that are spoken with servers.", .extra = ssl_protocol_names), \
    UP_TLS(p "ssl_conf_command", ARGS2 | ARG_REPEAT, ssl_set_command, t, m.spec.commands, \
           INHERIT_WHOLE, NULL, "name value", "A configuration command of OpenSSL, run last.", ), \
    UP_ROW(p "ssl_name", ARGS1, conf_set_expr, t, m.name, name_, "name", \
           "The name that the server's certificate must be for, and that " p "ssl_server_name sends.", ), \
    UP_ROW(p "ssl_server_name", ARG_FLAG, conf_set_flag, t, m.server_name, "off", "on | off", \
           "Tells the server the name in the handshake (SNI).", ), \
    UP_ROW(p "ssl_verify", ARG_FLAG, conf_set_flag, t, m.verify, "off", "on | off", \
           "Verifies the server's certificate, and that it is for the name.", ), \
    UP_ROW(p "ssl_verify_depth", ARGS1, conf_set_num, t, m.spec.verify_depth, "1", "number", \
           "How many authorities may stand between the certificate and a trusted one.", ), \
    UP_ROW(p "ssl_trusted_certificate", ARGS1, ssl_set_file, t, m.spec.trusted, NULL, "file", \
           "The authorities that servers' certificates are verified by.", ), \
    UP_ROW(p "ssl_crl", ARGS1, ssl_set_file, t, m.spec.crl, NULL, "file", \
           "Certificates that have been revoked, in PEM.", ), \
    UP_ROW(p "ssl_session_reuse", ARG_FLAG, conf_set_flag, t, m.session_reuse, "on", "on | off", \
           "Resumes sessions with servers.", ), \
    UP_ROW(p "ssl_key_log", ARGS1, ssl_set_key_log, t, m.spec.key_log, NULL, "path", \
           "A file that the secrets of connections with servers are written to (SSLKEYLOGFILE).", )

/* The exchange ------------------------------------------------------------------------------- */

enum backend_result {
    BACKEND_MORE,    /* all bytes were taken */
    BACKEND_DONE,    /* the head, or the body, is complete */
    BACKEND_INTERIM, /* an informational head: x->head holds it, another one follows */
    BACKEND_INVALID, /* x->error says why, for the log */
};

/* A protocol spoken with servers. Functions are given the exchange; they do no I/O. */
struct backend {
    const char *scheme; /* "http://": for the log */
    /*
     * Appends the request's head, and its body as far as it is there, to out. For each attempt. 0,
     * or -1: logged.
     */
    int (*encode)(struct exchange *x, struct chain *out);
    /* A streamed body: takes all of `in`; end: that was the last of it. */
    void (*encode_body)(struct exchange *x, struct chain *in, bool end, struct chain *out);
    /*
     * The first bytes of an attempt's answer, or of the head behind an informational one, have
     * come: forgets what was decoded. Sets and empties x->head.
     */
    void (*reset)(struct exchange *x);
    /*
     * Decodes the answer's head. The bytes stay where they are until x->head is no longer needed.
     */
    enum backend_result (*head)(struct exchange *x, const char *ptr, size_t len, size_t *used);
    /*
     * Decodes body bytes into out, by reference to block. What is left over after DONE does not
     * belong to the answer.
     */
    enum backend_result (*body)(struct exchange *x, struct block *block, const char *ptr,
                                size_t len, struct chain *out, size_t *used);
    /* The server has closed: whether the body was complete by that. */
    bool (*eof)(struct exchange *x);
    /* The answer is complete: whether the connection may serve another request. */
    bool (*reusable)(const struct exchange *x);
    /* A field on its way to the client may be changed. True: *value is new. NULL: never. */
    bool (*field)(struct exchange *x, const struct field *f, struct str *value);
    /* The exchange is over. */
    void (*free)(struct exchange *x);
};

enum exchange_state { X_START, X_RESOLVE, X_QUEUE, X_CONNECT, X_HEAD, X_BODY, X_TUNNEL, X_OVER };

struct exchange {
    /* Set by the caller, before exchange_start. */
    struct req *req;
    const struct upstream_conf *conf;
    const struct backend *backend;
    void *data;                    /* the backend's */
    struct upstream *group;        /* NULL: the name below is resolved first */
    struct str resolve_name;
    unsigned resolve_port;
    struct str uri;                /* as sent, for the log */
    const void *tag;               /* of kept-alive connections: the location */
    const struct upstream_tls *tls; /* the server is spoken to over TLS; NULL: it is not */
    const char *scheme;            /* for the log; NULL: the backend's */
    struct str tls_name;           /* the exchange's own: what tls->name comes to, */
    struct ssl_pair_names tls_pair; /* and the names of the certificate and its key, where they hold variables */
    bool stream_body;              /* the request's body is passed on as it comes */
    bool http_upgrade;             /* a 101 is acceptable */
    bool joins;                    /* nothing is asked: client and server are joined as soon as there is a connection */
    bool pass_trailers;
    bool head_only;                /* the answer has no body, for HEAD was sent; backend->encode may say so */

    /* The rest is the exchange's own; backends may read it. */
    enum exchange_state state;
    struct wait wait;
    struct choice choice;
    struct upconn *up;
    const struct addr *local;      /* of the attempt: *_bind; NULL: none */
    struct msg *head;              /* of the answer, the backend's; NULL until it begins */
    const char *error;             /* BACKEND_INVALID: a sentence, "upstream sent …" */
    struct chain out;              /* of the request, not yet sent */
    struct tunnel *tunnel;         /* X_TUNNEL */
    struct block *in;
    size_t start, end;             /* of what is read and not decoded */
    size_t head_start, head_end;   /* where the current head lies in it */
    size_t head_bytes;             /* read so far, informational heads included */
    struct chain body;             /* decoded, not yet handed on */
    uint64_t received;             /* of the body */
    uint64_t started_us;           /* the attempt */
    uint64_t first_ms;             /* the first attempt, where next_upstream_timeout asks */
    struct list queue_link;        /* X_QUEUE */
    uint64_t queued_ms;            /* since when */
    int64_t queue_us;              /* how long it has waited so far */
    unsigned record;               /* index + 1 into req->upstream.items; 0: none */
    struct chain_file *file;       /* the spool */
    struct store *store;           /* the answer is being stored: all of its body is in file. NULL: it is not */
    uint64_t file_written, file_sent;
    bool starting;                 /* inside the handler: */
    enum verdict verdict;          /* what it returns */
    bool request_sent, sent_all, body_end, pumping;
    bool decoding;                 /* backend->reset was called for this attempt */
    bool buffering;
    bool flushes;                  /* what has come of a body whose end is not known goes out when no more is there */
    bool paused, delayed;          /* not reading: the client is slow; proxy_limit_rate */
    bool ended;                    /* the answer is complete */
    bool cut;                      /* the answer broke off: the client is to see that */
    bool answering;                /* the head was handed on */
    bool watches_hup;
    bool disk_failed;              /* nothing more goes to the spool */
    bool send_broken;              /* the server takes no more; its answer may be there */

    /* Not zeroed: set before use. */
    struct upstream_record first_record; /* of the request, where this is its first exchange */
    struct resolve_query query;
};

/* In the request's arena, zeroed but for req and what is said above. The caller fills it in. */
struct exchange *exchange_new(struct req *r);
/*
 * From a content handler: asks a server. V_WAIT, or what the handler is to return at once.
 */
enum verdict exchange_start(struct exchange *x);
/*
 * Whether there may be a field of that token, in a msg's own fields: one look at the index where
 * fields_get would be a call, for names that are hardly ever there.
 */
static inline bool fields_may_have(const struct fields *f, enum token t)
{
    return f->index->first[t] != 0;
}
/*
 * All values of Connection, where they name more than the usual "keep-alive", "close" and
 * "upgrade": fields that go no further (RFC 9110, 7.6.1). STR_NULL: none does.
 */
struct str fields_hop_names(const struct fields *f, struct arena *arena);
/* The request's exchange of late, or NULL. */
struct exchange *exchange_of(const struct req *r);
/* Of the attempt under way, or the last one. */
static inline struct upstream_record *exchange_record(struct exchange *x)
{
    return &x->req->upstream.items[x->record - 1];
}

extern const struct module module_upstream;

#endif
