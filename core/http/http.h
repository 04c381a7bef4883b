/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration side of HTTP: what the http block becomes, and what a module adds to it.
 * Run-time structures are in req.h. Everything here is constant once the file has been read.
 */
#ifndef CORE_HTTP_HTTP_H
#define CORE_HTTP_HTTP_H

#include "core/config/expr.h"
#include "core/config/resource.h"
#include "core/event/resolve.h"
#include "core/event/tls.h"
#include "core/http/msg.h"
#include "core/module.h"

struct req;
struct location;
struct server;

/*
 * One verdict, with one meaning everywhere: hooks, handlers, body reads, filters.
 * Values other than V_NEXT and V_WAIT come with data that helpers in req.h put into the request.
 */
enum verdict {
    V_NEXT,    /* go on */
    V_WAIT,    /* call me again: something will call req_resume */
    V_STATUS,  /* nothing produced yet: error_page and the built-in pages apply (req_status) */
    V_ANSWER,  /* a response is under way */
    V_RESTART, /* internal redirect of a named kind (req_restart_uri, …) */
    V_ABORT,   /* close without a byte */
    V_ALLOW,   /* ACCESS hooks only: granted (V_NEXT there: no opinion) */
};

/* nginx's phases. Location search and the checks between them are plain code in req.c. */
enum phase {
    PHASE_POST_READ,
    PHASE_SERVER_REWRITE,
    PHASE_REWRITE,
    PHASE_PREACCESS,
    PHASE_ACCESS,
    PHASE_PRECONTENT,
    PHASE_CONTENT, /* of locations without a handler of their own: index, autoindex, static … */
    PHASE_LOG,
    PHASES
};

/* Order of hooks within their phase (semantics.md, 2.1). */
enum hook_order {
    HOOK_REALIP = 10, HOOK_LIMIT_PREPARE = 15, HOOK_LIMIT_REQ = 20, HOOK_LIMIT_CONN = 30,
    HOOK_ACCESS = 10, HOOK_AUTH_BASIC = 20, HOOK_AUTH_REQUEST = 30, HOOK_AUTH_REQUIRE = 90,
    HOOK_INTERNAL_REDIRECT = 5, HOOK_TRY_FILES = 10, HOOK_MIRROR = 20,
    HOOK_REWRITE = 10,
    HOOK_RANDOM_INDEX = 10, HOOK_INDEX = 20, HOOK_AUTOINDEX = 30, HOOK_DAV = 40, HOOK_GZIP_STATIC = 50, HOOK_STATIC = 60,
    HOOK_LOG = 50,
};

struct hook {
    enum phase phase;
    int order;
    enum verdict (*run)(struct req *r);
    /* Whether a location (or, for SERVER_REWRITE and POST_READ, the server's own level) needs it: asked once, at load. NULL: always. */
    bool (*wanted)(const struct level *level);
};
#define HOOK_END { .run = NULL }

/* Output filters, first to last (semantics.md, 3). Filters above FILTER_LINK run for each request, subrequests
 * included, with its own location's settings; those below run once, on the main request's merged stream. */
enum filter_rank {
    FILTER_SLICE, FILTER_NOT_MODIFIED, FILTER_RANGE_BODY, FILTER_FILE_TO_MEM, FILTER_MORE_HEADERS,
    FILTER_HEADERS, FILTER_USERID, FILTER_GUNZIP, FILTER_ADDITION, FILTER_SUB, FILTER_IMAGE, FILTER_XSLT,
    FILTER_CHARSET, FILTER_SSI,
    FILTER_LINK, /* the boundary: no filter has this rank */
    FILTER_BROTLI, FILTER_ZSTD, FILTER_GZIP, FILTER_RANGE, FILTER_RANKS
};

/* What a filter says of the head. */
enum head_verdict {
    HEAD_PASS,    /* not interested in the body */
    HEAD_TAKE,    /* body calls wanted; the filter may have changed the head */
    HEAD_HOLD,    /* as TAKE, and the head waits until the filter calls answer_release_head */
    HEAD_REPLACE, /* forget this response: r->status_wanted instead (412, 416 …) */
    HEAD_FAIL,    /* abort */
};

enum { BODY_END = 1, BODY_FLUSH = 2 };

struct filter {
    enum filter_rank rank;
    /* Judges the head r->out as its predecessors left it. *ctx is handed to body. */
    enum head_verdict (*head)(struct req *r, void **ctx);
    /* Changes the chain in place: what it leaves goes on. May clear or set flags (BODY_END withheld while it holds data).
     * V_NEXT, V_WAIT (called again with an empty chain after req_resume… the chain it kept is its own), V_ABORT. NULL: head only. */
    enum verdict (*body)(struct req *r, void *ctx, struct chain *chain, unsigned *flags);
    /* Output has drained, or a filter behind it has gone on: one that held back for that may go on. NULL: it never does. */
    void (*drained)(struct req *r, void *ctx);
    bool (*wanted)(const struct level *level); /* NULL: always; asked once per location, at load */
    bool in_memory; /* its body must see MEM pieces (and LINKs): FILE pieces are read before it */
    bool after;     /* its head is judged behind all others', its body still has the place of its rank */
};
#define FILTER_END { .head = NULL }

struct client;

/* What `listen … ssl` needs: TLS, and what it has to say about a request. */
struct http_tls {
    struct tls_ops conn;
    /*
     * A request's head is complete and its server is chosen: whether that one may answer on this connection. 0, or the
     * status that refuses it (421, 495, 496), logged.
     */
    unsigned (*check)(struct req *r);
    /* A request came as early data: whether it is to wait for the handshake's end. */
    bool (*waits)(struct req *r);
    /*
     * The handshake has ended. False: what the client has shown is looked into; client_admitted is called when that is
     * over, unless the client is closed before.
     */
    bool (*admit)(struct client *c);
};

struct http_module {
    const struct var_row *variables;
    const struct hook *hooks;
    const struct filter *filters;
    const struct http_tls *tls;   /* of the one module that speaks TLS; else NULL */
};

/* The http block. config->http. */
struct http_main {
    struct config *config;
    struct level *level;
    struct var_space vars;
    struct server **servers;
    unsigned server_count, server_capacity;
    struct list listens;           /* struct http_listen.link */
    struct table listen_by_text;   /* private to listen.c */
    struct table upstreams;        /* name -> struct upstream (modules/upstream) */
    struct core_main *core;
    struct res_zone *client_counts; /* private to client_counts.c */
    const struct http_tls *tls;    /* NULL: no module is there that speaks it */
};

/* One name table per listening address: exact, wildcard and regex names (server_name). */
struct name_table;

/* A listening address, as HTTP sees it. */
struct http_listen {
    struct list link;
    struct http_main *http;
    struct addr addr;
    struct str text;               /* as `listen` said, normalised: "0.0.0.0:80" */
    struct res_listen *socket;     /* NULL: shares the wildcard's socket (chosen by local address) */
    struct http_listen **specific; /* addresses without a socket of their own on this wildcard, NULL-terminated; or NULL */
    unsigned specific_count, specific_capacity;
    struct server *default_server;
    struct server **servers;       /* all servers of the address, in file order */
    unsigned server_count, server_capacity;
    struct name_table *names;      /* NULL: only the default server, which has no regex name */
    struct listen_options options;
    bool proxy_protocol, ssl, http2, quic;
    void *tls_context;             /* with ssl: the TLS module's own, set when the file has been read */
    bool default_set, options_set, bind, wildcard;
    struct conf_pos pos;
};

struct server_name {
    struct str name;          /* lower case; ".example.com" kept as such */
    struct regex *regex;      /* "~…" */
    struct var **captures;    /* for named groups: variable by group number, NULL where none */
};

struct location_tree;

struct server {
    struct http_main *http;
    struct config *config;
    struct level *level;
    struct core_srv *core;
    struct core_loc *core_loc;      /* the server's own location level */
    struct server_name *names;
    unsigned name_count, name_capacity;
    struct str name;                /* $server_name: the first name */
    struct location *root;          /* stands for the server level itself: request has no location yet */
    const struct location **named;  /* NULL-terminated */
    bool listens;                   /* a listen directive was given */
    struct counter_set *status;     /* status_zone (core/http/status.h); NULL: none */
    bool allow_connect;             /* somewhere CONNECT is answered */
    struct conf_pos pos;
};

enum location_kind { LOC_SERVER, LOC_PREFIX, LOC_PREFIX_FINAL /* ^~ */, LOC_EXACT, LOC_REGEX, LOC_NAMED, LOC_IF, LOC_LIMIT_EXCEPT };

struct location {
    enum location_kind kind;
    struct str name;                /* "/images/", the pattern, "@fallback" */
    struct level *level;
    struct server *server;
    struct location *parent;        /* enclosing location, or the server's root */
    bool allow_connect;             /* the handler answers CONNECT; it goes to no other */
    struct core_loc *core;          /* level_conf of the http core: on every path */
    struct location_tree *tree;     /* of nested locations; NULL: none */
    struct regex *regex;
    struct var **captures;          /* named groups of the regex */
    /* The content handler (proxy_pass, return is rewrite's, stub_status …); NULL: PHASE_CONTENT hooks. Inherited by if and limit_except. */
    enum verdict (*handler)(struct req *r);
    bool auto_slash;                /* a prefix location ending in '/' with a handler answers 301 for the URI without it */
    bool in_regex;
    bool caseless;                  /* the regex: "~*" */
    /* Computed at load: what runs here. NULL-terminated arrays; never NULL themselves. */
    enum verdict (**hooks[PHASES])(struct req *r);
    const struct filter **filters;
    bool filters_after;             /* among them are some that are judged after the others */
    /* limit_except */
    struct conf_pos pos;
    unsigned limit_except_methods;  /* METHOD_ bits that the outer settings hold for; 0: no limit_except here */
    struct location *limit_except;  /* settings for other methods */
};

/* The directive's block is inside an http level: what cf->level stands for. */
static inline struct http_main *conf_http(const struct conf *cf)
{
    return cf->config->http;
}
/* The location (or the server's root) that cf->level is; NULL at http level. */
struct location *conf_location(const struct conf *cf);
struct server *conf_server(const struct conf *cf);
/* Makes a LOC_IF child of cf->level for the rewrite module. */
struct location *http_if_location(struct conf *cf, struct level **level);

/* Compiles a pattern of the configuration and names its groups' variables. NULL or a sentence. */
const char *http_regex(struct conf *cf, unsigned arg, struct str pattern, bool caseless,
                       struct regex **re, struct var ***captures);

/* The server for a host name (lower case, no port) on an address. Named captures and match are stored
 * into e when given. Never NULL. */
struct server *http_server_find(struct http_listen *l, struct str host, struct eval *e, struct regex_match *match);
/* The same for people, in a configuration read for explaining: *name is the server_name that fits; STR_NULL: none does, it is
 * the default server. */
struct server *http_server_reason(struct http_listen *l, struct str host, struct str *name);
/*
 * The location for a normalised URI, beginning at `from` (server's root): exact, longest prefix, nested, regexes. On a regex hit
 * e's captures are set. NULL: none. *redirect: the URI lacks only the slash of an auto_slash location. *failed: the regex
 * engine gave up (logged), so that nobody can say which location it is: 500.
 */
const struct location *http_location_find(const struct location *from, struct str uri, struct eval *e,
                                          struct regex_match *match, bool *redirect, bool *failed);
const struct location *http_location_named(const struct server *s, struct str name);
/* Whether regexes are asked before this prefix location is taken. */
bool http_location_has_regexes(const struct location *loc);

/* --- http core's own settings (directives in core_directives.c) ------------------------------ */

struct core_main {
    int64_t hash_sizes[8]; /* *_hash_max_size and *_hash_bucket_size: accepted, our tables grow by themselves */
};

struct core_srv {
    uint64_t client_header_timeout_ms;
    size_t client_header_buffer_size;
    struct conf_bufs large_client_header_buffers;
    int64_t max_headers;
    size_t connection_pool_size, request_pool_size;
    bool ignore_invalid_headers, underscores_in_headers, merge_slashes;
};

struct error_page {
    unsigned *codes;
    unsigned code_count;
    int overwrite;          /* -1: keep the status; 0: "=": what the target answers; N: "=N" */
    struct expr *uri;
    struct conf_pos pos;
};
struct error_pages {
    struct error_page *items;
    unsigned count, capacity;
};

struct types_table {
    struct table by_ext;    /* lower-case extension -> struct str * */
};

enum { TOKENS_OFF, TOKENS_ON, TOKENS_BUILD, TOKENS_STRING };
enum { SATISFY_ALL, SATISFY_ANY };
enum { SYMLINKS_ALLOWED, SYMLINKS_REFUSED, SYMLINKS_SAME_OWNER };
enum { IMS_OFF, IMS_EXACT, IMS_BEFORE };
enum { LINGER_OFF, LINGER_ON, LINGER_ALWAYS };
enum { BODY_FILE_OFF, BODY_FILE_ON, BODY_FILE_CLEAN };
enum { AIO_OFF, AIO_ON, AIO_THREADS };
enum { KA_DISABLE_NONE = 1, KA_DISABLE_MSIE6 = 2, KA_DISABLE_SAFARI = 4 };

struct open_file_cache_conf {
    bool on;
    unsigned max;
    uint64_t inactive_s;
};

struct core_loc {
    struct log_scope *error_log;       /* effective scope, never NULL after finish */
    /* root, alias: a group */
    struct expr *root;
    struct expr *alias;
    size_t alias_prefix;               /* bytes of the URI that alias replaces (location's name) */
    bool alias_regex;
    struct types_table *types;
    struct str default_type;
    uint64_t client_max_body_size;
    size_t client_body_buffer_size;
    uint64_t client_body_timeout_ms;
    struct conf_path client_body_temp_path;
    unsigned client_body_in_file_only;
    bool client_body_in_single_buffer;
    unsigned satisfy;
    uint64_t auth_delay_ms;
    uint64_t send_timeout_ms, keepalive_timeout_ms, keepalive_time_ms, keepalive_min_timeout_ms;
    uint64_t keepalive_header_s;       /* second argument of keepalive_timeout */
    int64_t keepalive_requests;
    unsigned keepalive_disable;
    uint64_t lingering_time_ms, lingering_timeout_ms;
    unsigned lingering_close;
    bool reset_timedout_connection, tcp_nodelay, tcp_nopush, sendfile, internal;
    bool absolute_redirect, port_in_redirect, server_name_in_redirect, recursive_error_pages;
    bool chunked_transfer_encoding, log_not_found, log_subrequest, etag, msie_padding, msie_refresh;
    unsigned if_modified_since;
    int64_t max_ranges;
    size_t postpone_output;
    uint64_t sendfile_max_chunk;
    struct conf_bufs output_buffers;
    size_t read_ahead, subrequest_output_buffer_size;
    int64_t subrequests_limit;
    unsigned aio;
    struct res_pool *aio_pool;
    bool aio_write;
    uint64_t directio;                 /* UINT64_MAX: off */
    uint64_t directio_alignment;
    unsigned disable_symlinks;
    struct expr *disable_symlinks_from;
    struct expr_size limit_rate, limit_rate_after;
    struct error_pages error_page;
    unsigned server_tokens;
    struct expr *server_tokens_text;
    struct resolver_spec *resolver;
    struct resolver **resolver_instance; /* per worker, made at first use: core_resolver(r) */
    uint64_t resolver_timeout_ms;
    struct open_file_cache_conf open_file_cache;
    uint64_t open_file_cache_valid_s;
    int64_t open_file_cache_min_uses;
    bool open_file_cache_errors;
    struct expr_list early_hints;
    size_t send_lowat;
    int64_t types_hash_sizes[2];
};

/* The http core's settings of a level. */
struct core_loc *level_core(const struct level *level);
/* NULL without an http block. */
struct http_main *config_http(const struct config *config);
/* Stores a match's named groups into their variables. */
void http_store_captures(struct eval *e, struct var **captures, const struct regex_match *match,
                         struct str subject);

/*
 * $http_NAME and its like: the field whose name, in lower case and with "_" for "-", is `variable`. Several are
 * joined with ", " (cookies with "; ") in the arena. False: there is none.
 */
bool fields_variable(const struct fields *f, struct str variable, struct arena *arena,
                     struct str *out);

extern const struct module module_http_core;

#endif
