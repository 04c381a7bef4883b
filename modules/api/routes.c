/* SPDX-License-Identifier: BSD-2-Clause */
/* The API's paths. */
#include "core/config/counters.h"
#include "modules/api/internal.h"

static const struct api_sets server_zones = { "server_zone", "ServerZoneNotFound",
                                              "server zone not found" };
static const struct api_sets location_zones = { "location_zone", "LocationZoneNotFound",
                                                "location zone not found" };
static const struct api_sets limit_conns = { "limit_conn", "LimitConnNotFound",
                                             "limit_conn not found" };
static const struct api_sets limit_reqs = { "limit_req", "LimitReqNotFound",
                                            "limit_req not found" };
static const struct api_sets caches = { "cache", "CacheNotFound", "cache not found" };
static const struct api_sets resolvers = { "resolver", "ResolverZoneNotFound",
                                           "resolver zone not found" };
static const struct api_sets stream_zones = { "stream_server_zone", "ServerZoneNotFound",
                                              "server zone not found" };
static const struct api_sets stream_limit_conns = { "stream_limit_conn", "LimitConnNotFound",
                                                    "limit_conn not found" };

#define SETS(path_, since_, data_, ...)                                                   \
    { .path = path_, .since = (since_), .get = api_sets, .data = &(data_), __VA_ARGS__ }, \
    {                                                                                     \
        .path = path_ "/{}", .since = (since_), .get = api_set, .delete_ = api_set_reset, \
        .data = &(data_), __VA_ARGS__                                                     \
    }

const struct api_route api_routes[] = {
    { .path = "", .since = 1, .get = api_endpoints },
    { .path = "/nginx", .since = 1, .get = api_nginx },
    { .path = "/processes", .since = 1, .get = api_processes, .delete_ = api_processes_reset },
    { .path = "/connections",
      .since = 1,
      .get = api_connections,
      .delete_ = api_connections_reset },
    { .path = "/slabs", .since = 1, .get = api_slabs },
    { .path = "/slabs/{}", .since = 1, .get = api_slab, .delete_ = api_slab_reset },
    { .path = "/http", .since = 1, .get = api_endpoints },
    { .path = "/http/requests", .since = 1, .get = api_requests, .delete_ = api_requests_reset },
    SETS("/http/server_zones", 1, server_zones, ),
    SETS("/http/location_zones", 5, location_zones, ),
    SETS("/http/caches", 1, caches, ),
    SETS("/http/limit_conns", 6, limit_conns, ),
    SETS("/http/limit_reqs", 6, limit_reqs, ),
    { .path = "/http/keyvals", .since = 1, .get = api_keyvals },
    { .path = "/http/keyvals/{}",
      .since = 1,
      .get = api_keyval,
      .post = api_keyval_add,
      .patch = api_keyval_change,
      .delete_ = api_keyval_clear },
    { .path = "/http/upstreams", .since = 1, .get = api_upstreams },
    { .path = "/http/upstreams/{}",
      .since = 1,
      .get = api_upstream,
      .delete_ = api_upstream_reset },
    { .path = "/http/upstreams/{}/servers",
      .since = 1,
      .get = api_servers,
      .post = api_server_add },
    { .path = "/http/upstreams/{}/servers/{}",
      .since = 1,
      .get = api_server,
      .patch = api_server_change,
      .delete_ = api_server_remove },
    { .path = "/stream", .since = 1, .stream = true, .get = api_endpoints },
    SETS("/stream/server_zones", 1, stream_zones, .stream = true),
    SETS("/stream/limit_conns", 6, stream_limit_conns, .stream = true),
    { .path = "/stream/keyvals", .since = 2, .stream = true, .get = api_empty },
    { .path = "/stream/upstreams", .since = 1, .stream = true, .get = api_empty },
    SETS("/resolvers", 5, resolvers, ),
    { .path = "/ssl", .since = 1, .get = api_ssl, .delete_ = api_ssl_reset },
    { .path = "/workers", .since = 9, .get = api_workers, .delete_ = api_workers_reset },
    { .path = "/workers/{}", .since = 9, .get = api_worker, .delete_ = api_worker_reset },
    { .path = NULL },
};

static bool known(const struct api *a, const struct api_route *route)
{
    return a->version >= route->since && (!route->stream || a->config->stream != NULL);
}

/* Cuts the first segment off a path that begins with a slash. */
static struct str take_segment(struct str *path)
{
    struct str rest = str_skip(*path, 1);
    ssize_t slash = str_chr(rest, '/');
    struct str segment = str_from(rest.ptr, slash < 0 ? rest.len : (size_t) slash);

    *path = str_skip(rest, segment.len);
    return segment;
}

static bool matches(struct api *a, const struct api_route *route, struct str path)
{
    struct str pattern = str_cstr(route->path);
    unsigned n = 0;

    while (pattern.len > 0 && path.len > 0) {
        struct str want = take_segment(&pattern), have = take_segment(&path);

        if (str_eq(want, STR("{}")) && have.len > 0 && n < API_NAMES)
            a->names[n++] = have;
        else if (!str_eq(want, have))
            return false;
    }
    return pattern.len == 0 && path.len == 0;
}

const struct api_route *api_find(struct api *a, struct str path)
{
    if (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    for (const struct api_route *route = api_routes; route->path != NULL; route++) {
        if (known(a, route) && matches(a, route, path))
            return route;
    }
    return NULL;
}

/* The names of what is directly below the path. */
enum verdict api_endpoints(struct api *a)
{
    struct str above = str_cstr(a->route->path);

    json_array(&a->json);
    for (const struct api_route *route = api_routes; route->path != NULL; route++) {
        struct str path = str_cstr(route->path);

        if (!known(a, route) || path.len <= above.len || !str_starts(path, above))
            continue;
        path = str_skip(path, above.len + 1);
        if (str_chr(path, '/') < 0)
            json_str(&a->json, path);
    }
    json_end(&a->json);
    return api_ok(a);
}

/* A list of what is not there yet. */
enum verdict api_empty(struct api *a)
{
    json_object(&a->json);
    json_end(&a->json);
    return api_ok(a);
}
