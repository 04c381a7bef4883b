/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The API's own: a call under way, the table of paths, and helpers for those who answer. A file for each area: general.c
 * (the process), sets.c (whatever is counted in sets of counters), keyvals.c, upstreams.c, servers.c. They get numbers from the core
 * and from other modules' public headers, and write JSON; how numbers come about is not known here.
 */
#ifndef MODULES_API_INTERNAL_H
#define MODULES_API_INTERNAL_H

#include "core/base/json.h"
#include "core/base/json_read.h"
#include "core/http/answer.h"
#include "core/http/req.h"

#define API_VERSION_MAX 9
#define API_NAMES 2 /* {}s in a path */
/* JSON that an answer may have; above it the answer is an error. */
#define API_TEXT_MAX (1u << 30)

struct api;

typedef enum verdict api_handler(struct api *a);

/* A path: what it needs to be known, and who answers which method. NULL: not supported. */
struct api_route {
    const char *path;    /* "/http/upstreams/{}/servers": without a slash at its end */
    unsigned char since; /* the API's version */
    bool stream;         /* only where there is a stream block */
    api_handler *get, *post, *patch, *delete_;
    const void *data; /* for them */
};

/* A call. Lives in the request's arena. */
struct api {
    struct req *r;
    const struct config *config;
    const struct api_route *route;
    unsigned version;
    struct str names[API_NAMES]; /* what stands in the path for {} */
    bool has_fields;             /* ?fields= is given: */
    struct str_list fields;      /* only these are shown */
    struct json json;            /* the answer */
    struct str body;             /* POST, PATCH */
};

/* routes.c */
extern const struct api_route api_routes[]; /* path NULL ends */
/* The route of a path behind the version, and its names. NULL: none. */
const struct api_route *api_find(struct api *a, struct str path);
api_handler api_endpoints, api_empty;

/* api.c: ends of a call. */
enum verdict api_ok(struct api *a); /* 200 with a->json, which must be whole */
enum verdict api_created(struct api *a, struct str location); /* 201 with it, if there is any */
enum verdict api_no_content(struct api *a);                   /* 204 */
/* {"error":{"status":404,"text":"…","code":"PathNotFound"}, …} */
enum verdict api_error(struct api *a, unsigned status, const char *code, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* An argument of the request, decoded. False: it is not there. */
bool api_arg(const struct req *r, struct str name, struct str *out);

/* show.c */
/* Whether ?fields= lets the field of the object that was asked for be seen. */
bool api_wants(const struct api *a, const char *field);
/* A list is asked for with an empty ?fields=: only names are wanted. */
bool api_names_only(const struct api *a);
struct counter_set;
struct counter_kind;
/* An object of all its counters. */
void api_show_counters(struct api *a, const struct counter_set *set);
void api_show_kind(struct api *a, const struct counter_set *set, const struct counter_kind *kind);
/* ISO 8601 with milliseconds. */
void api_put_time(struct json *j, const char *name, uint64_t ms);

/* general.c */
api_handler api_nginx, api_processes, api_processes_reset, api_connections, api_connections_reset,
    api_requests, api_requests_reset, api_workers, api_worker, api_workers_reset, api_worker_reset,
    api_slabs, api_slab, api_slab_reset, api_ssl, api_ssl_reset;

/* sets.c. Of a route for sets: which, and what is said when there is none of that name. */
struct api_sets {
    const char *kind, *code, *text;
};
api_handler api_sets, api_set, api_set_reset;

/* keyvals.c */
api_handler api_keyvals, api_keyval, api_keyval_add, api_keyval_change, api_keyval_clear;

/* upstreams.c */
api_handler api_upstreams, api_upstream, api_upstream_reset;
struct upstream;
/* The group that the path names, with a zone; or NULL, and *v is the answer. */
struct upstream *api_group(struct api *a, enum verdict *v);

/* servers.c */
api_handler api_servers, api_server, api_server_add, api_server_change, api_server_remove;

/* A text that should be one object, read from its first brace on. False: *v is the answer. */
bool api_read_object(struct api *a, struct json_reader *j, const char *code, enum verdict *v);

#endif
