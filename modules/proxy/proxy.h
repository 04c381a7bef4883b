/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the proxy module share: its settings, and what a request keeps of them. */
#ifndef MODULES_PROXY_PROXY_H
#define MODULES_PROXY_PROXY_H

#include "core/http/h1.h"
#include "modules/upstream/upstream.h"

extern unsigned proxy_slot;

/* proxy_pass ---------------------------------------------------------------------------------- */

struct proxy_pass {
    struct expr *url;        /* with variables; else NULL and: */
    struct upstream *group;
    struct str host_port;    /* $proxy_host: as written, without the default port */
    struct str port;         /* $proxy_port */
    struct str uri;          /* empty: none was given */
    struct str text;         /* "http://host:port": what proxy_redirect default begins with */
    struct str location;     /* the part of the request's URI that uri replaces */
    bool tls;                /* https */
    bool in_regex;           /* or in a named location, `if`, limit_except: no URI allowed */
};

/* Where this request goes. */
struct proxy_target {
    struct upstream *group;  /* NULL: the host is to be resolved */
    struct str host;         /* without port */
    unsigned port_number;
    struct str host_port, port;
    struct str uri;          /* as sent */
    bool tls;
};

conf_setter proxy_set_pass;
enum verdict proxy_handler(struct req *r);
/* 0, or -1: logged. */
int proxy_find_target(struct req *r, const struct proxy_pass *pass, struct proxy_target *t);

/* The request's head -------------------------------------------------------------------------- */

struct proxy_field {
    struct str name;
    struct expr *value;
};
struct proxy_fields {
    struct proxy_field *items;
    unsigned count, capacity;
};
/* Bytes of the head that are known at load, and the field behind them whose value is not. */
struct proxy_run {
    struct str text;         /* whole lines; the first run begins with the version */
    struct str name;         /* with ": " */
    struct expr *value;      /* NULL: the last run, text only */
};
/* proxy_set_header and the defaults, compiled. */
struct proxy_template {
    struct proxy_run *runs;
    unsigned count;
    size_t size;             /* of all but the values */
    bool sets_length, sets_encoding;   /* the framing is the configuration's business */
    bool sets_upgrade;                 /* Upgrade is sent: 101 may come */
    bool own_upgrade;                  /* Upgrade and Connection are the configuration's business */
    unsigned char drop[T_KNOWN];       /* client's fields that are not passed */
    struct str *names;                 /* and those that are not well-known */
    uint32_t *hashes;
    unsigned name_count;
};

enum { VIA_OFF, VIA_ON, VIA_NAME };
struct proxy_via {
    unsigned mode;
    struct expr *name;
};

/* What an answer's fields are changed by ------------------------------------------------------ */

struct proxy_rewrite {
    struct expr *from;       /* or: */
    struct regex *regex;
    struct var **captures;
    struct expr *to;
    bool is_default;         /* proxy_redirect default: completed in finish */
};
struct proxy_rewrites {
    struct proxy_rewrite *items;
    unsigned count, capacity;
    bool off;
};
enum {
    COOKIE_SECURE = 1, COOKIE_HTTPONLY = 2, COOKIE_STRICT = 4, COOKIE_LAX = 8, COOKIE_NONE = 16,
    COOKIE_NO_SECURE = 32, COOKIE_NO_HTTPONLY = 64, COOKIE_NO_SAMESITE = 128,
};
struct proxy_cookie_flag {
    struct expr *name;
    struct regex *regex;
    struct expr_list flags;
};
struct proxy_cookie_flags {
    struct proxy_cookie_flag *items;
    unsigned count, capacity;
    bool off;
};

struct proxy_loc {
    struct upstream_conf up;
    struct proxy_pass *pass;
    struct proxy_fields set_headers;
    unsigned set_header_rule;
    struct proxy_rewrites redirects, cookie_domains, cookie_paths;
    struct proxy_cookie_flags cookie_flags;
    struct expr *method, *body;
    unsigned http_version;
    bool pass_trailers;
    unsigned upgrade;          /* proxy_upgrade: 1: auto */
    struct proxy_via via;
    int64_t hash_sizes[2];
    /* computed */
    const struct proxy_template *template;
    const struct proxy_rewrites *redirect;
};

/* An answer that is decoded. */
struct proxy_answer {
    struct h1_parser parser;
    struct h1_body decoder;
    struct msg head;
};
/* One request's, in its arena. */
struct proxy_req {
    const struct proxy_loc *conf;
    const struct location *loc; /* whose settings these are */
    struct proxy_target target;
    struct str method;
    struct str body;            /* proxy_set_body */
    struct str upgrade;         /* proxy_upgrade auto: the protocols that are offered; empty: none */
    bool head_request;          /* the method sent was HEAD */
    bool has_body;              /* the client's goes along */
    bool chunked;               /* streamed, of unknown length */
    struct str head;            /* encoded once for all attempts */
    struct proxy_answer *answer; /* NULL: none has begun */
};

/* proxy.c: method and body, as far as the configuration says what they are. */
void proxy_make_parts(struct exchange *x, struct proxy_req *pr);

/* request.c */
conf_setter proxy_set_set_header, proxy_set_header_rule;
extern const struct conf_enum proxy_header_rules[];
/* What a level has after proxy_set_header_inherit; outer: the level's above, or NULL. */
void proxy_inherit_headers(struct conf *cf, struct level *level, struct proxy_loc *p,
                           const struct proxy_loc *outer);
int proxy_make_template(struct conf *cf, struct level *level, struct proxy_loc *p);
/* The bytes of the request's head. */
/* The value of Via, a received one in front. STR_NULL when it is off. */
struct str proxy_via_value(struct req *r, const struct proxy_via *via);
struct str proxy_encode_head(struct exchange *x, struct proxy_req *pr);

/*
 * The protocols that the client would change to, as far as they may be passed on. Empty: none, or not with this request.
 */
struct str proxy_upgrade_value(struct req *r);

/* Fields of the configuration that depend on no request, for struct upstream_family. */
struct str proxy_literal_fields(struct arena *arena, const struct level *level, bool *host);
bool proxy_known_value(const struct level *level, const struct expr *value, struct str *text);

/* rewrite.c */
conf_setter proxy_set_redirect, proxy_set_cookie_domain, proxy_set_cookie_path;
conf_setter proxy_set_cookie_flags;
/* Completes proxy_redirect default for this location. 0 or -1. */
int proxy_finish_redirects(struct conf *cf, struct level *level, struct proxy_loc *p);
bool proxy_rewrite_field(struct exchange *x, const struct field *f, struct str *value);

/* http1.c */
extern const struct backend backend_http1;

extern const struct upstream_family proxy_family;
extern const struct module module_http_proxy;

#endif
