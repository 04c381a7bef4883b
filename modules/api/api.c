/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * api: the REST interface of a location, with nginx Plus's paths and objects. Finds the call behind the location's
 * prefix, reads its body and writes errors; what a path does is in the table of routes.c. Whoever may come to the location
 * may call it: access rules are the configuration's.
 */
#include <unistd.h>

#include "core/base/fmt.h"
#include "modules/api/internal.h"

/* configure: switch=http_api_module default=on */

#define HREF "https://nginx.org/en/docs/http/ngx_http_api_module.html"
#define METHODS_READ (METHOD_GET | METHOD_HEAD | METHOD_OPTIONS)
#define METHODS_BODY (METHOD_POST | METHOD_PATCH)

static unsigned api_slot;

struct api_conf {
    bool write;
};

/* Answers -------------------------------------------------------------------------------------- */

static enum verdict answer(struct api *a, unsigned status, struct str body)
{
    struct req *r = a->r;

    fields_set(&r->out, &r->out.fields, T_CACHE_CONTROL, STR("no-cache"));
    return answer_text(r, status, body.len > 0 ? STR("application/json") : STR(""), body);
}

enum verdict api_ok(struct api *a)
{
    return answer(a, 200, json_text(&a->json));
}

enum verdict api_created(struct api *a, struct str location)
{
    struct req *r = a->r;

    if (location.len > 0)
        fields_set(&r->out, &r->out.fields, T_LOCATION, location);
    return answer(a, 201, a->json.len > 0 ? json_text(&a->json) : STR(""));
}

enum verdict api_no_content(struct api *a)
{
    return answer(a, 204, STR(""));
}

enum verdict api_error(struct api *a, unsigned status, const char *code, const char *fmt, ...)
{
    struct str text, id;
    struct json j;
    va_list ap;

    va_start(ap, fmt);
    text = str_vprintf(a->r->arena, fmt, ap);
    va_end(ap);
    if (!var_by_name(&a->r->eval, STR("request_id"), &id))
        id = STR("");
    json_init(&j, a->r->arena);
    json_object(&j);
    if (a->version > 0 && a->version < 4) {
        json_put_str(&j, "path", STR(""));
        json_put_str(&j, "method", STR(""));
    }
    json_key(&j, "error");
    json_object(&j);
    json_put_u64(&j, "status", status);
    json_put_str(&j, "text", text);
    json_put_str(&j, "code", str_cstr(code));
    json_end(&j);
    json_put_str(&j, "request_id", id);
    json_put_str(&j, "href", STR(HREF));
    json_end(&j);
    return answer(a, status, json_text(&j));
}

/* Calls ---------------------------------------------------------------------------------------- */

bool api_arg(const struct req *r, struct str name, struct str *out)
{
    struct str rest = r->args;

    while (rest.len > 0) {
        ssize_t end = str_chr(rest, '&');
        struct str arg = str_from(rest.ptr, end < 0 ? rest.len : (size_t) end);
        char *p;

        rest = str_skip(rest, end < 0 ? rest.len : (size_t) end + 1);
        if (arg.len <= name.len || arg.ptr[name.len] != '=' || !str_starts(arg, name))
            continue;
        arg = str_skip(arg, name.len + 1);
        p = arena_bytes(r->arena, arg.len + 1);
        *out = str_from(p, (size_t) (fmt_unescape(p, arg) - p));
        return true;
    }
    return false;
}

static void take_fields(struct api *a)
{
    struct str rest;

    a->has_fields = api_arg(a->r, STR("fields"), &rest);
    while (a->has_fields && rest.len > 0) {
        ssize_t end = str_chr(rest, ',');
        struct str field = str_from(rest.ptr, end < 0 ? rest.len : (size_t) end);

        if (field.len > 0)
            str_list_add(a->r->arena, &a->fields, field);
        rest = str_skip(rest, end < 0 ? rest.len : (size_t) end + 1);
    }
}

/*
 * What follows the location's prefix, or, where a regular expression has found the location, what follows its first
 * part, "/api".
 */
static struct str call_path(const struct req *r)
{
    const struct location *loc = r->loc;
    ssize_t slash;

    while (loc->kind == LOC_IF || loc->kind == LOC_LIMIT_EXCEPT)
        loc = loc->parent;
    if ((loc->kind == LOC_PREFIX || loc->kind == LOC_PREFIX_FINAL || loc->kind == LOC_EXACT) &&
        str_starts(r->uri, loc->name)) {
        struct str path = str_skip(r->uri, loc->name.len);

        /* "location /api/" has taken the slash that the path begins with. */
        if (loc->name.len > 0 && loc->name.ptr[loc->name.len - 1] == '/')
            path = str_skip(r->uri, loc->name.len - 1);
        return path;
    }
    slash = r->uri.len > 1 ? str_chr(str_skip(r->uri, 1), '/') : -1;
    return slash < 0 ? STR("") : str_skip(r->uri, (size_t) slash + 1);
}

/* "/9/nginx": takes the version off. False: there is no such version. */
static bool take_version(struct api *a, struct str *path)
{
    struct str rest = str_skip(*path, 1);
    ssize_t slash = str_chr(rest, '/');
    struct str text = str_from(rest.ptr, slash < 0 ? rest.len : (size_t) slash);
    uint64_t version;

    if (str_to_u64(text, &version) != 0 || version < 1 || version > API_VERSION_MAX ||
        text.ptr[0] == '0')
        return false;
    a->version = (unsigned) version;
    *path = str_skip(rest, text.len);
    return true;
}

static enum verdict show_versions(struct api *a)
{
    json_array(&a->json);
    for (unsigned i = 1; i <= API_VERSION_MAX; i++)
        json_u64(&a->json, i);
    json_end(&a->json);
    return api_ok(a);
}

/* Allow, of what the path has and the location lets. */
static void set_allow(struct api *a, bool write)
{
    const struct api_route *route = a->route;
    struct req *r = a->r;

    write &= route != NULL;
    fields_set(&r->out, &r->out.fields, T_ALLOW,
               str_printf(r->arena, "GET, HEAD, OPTIONS%s%s%s",
                          write && route->post != NULL ? ", POST" : "",
                          write && route->patch != NULL ? ", PATCH" : "",
                          write && route->delete_ != NULL ? ", DELETE" : ""));
}

static api_handler *handler_of(const struct api_route *route, enum method method)
{
    switch (method) {
    case METHOD_GET:
    case METHOD_HEAD: return route->get;
    case METHOD_POST: return route->post;
    case METHOD_PATCH: return route->patch;
    case METHOD_DELETE: return route->delete_;
    default: return NULL;
    }
}

static enum verdict too_large(struct api *a)
{
    return api_error(a, 413, "BodyTooLarge", "request body is larger than client_body_buffer_size");
}

/* Reads the body, all of which has to be in memory. V_NEXT: it is in a->body; else what the call comes to. */
static enum verdict read_body(struct api *a)
{
    struct req *r = a->r;
    size_t max = r->loc->core->client_body_buffer_size;
    enum verdict v;

    if (r->body.length > 0 && (uint64_t) r->body.length > max)
        return too_large(a);
    v = body_read(r);
    if (v == V_STATUS)
        return api_error(a, r->status_wanted, "BodyReadError", "reading request body failed");
    if (v != V_NEXT)
        return v;
    a->body = STR("");
    if (r->body.received > max)
        return too_large(a);
    if (r->body.file != NULL) { /* client_body_in_file_only */
        char *p = arena_bytes(r->arena, (size_t) r->body.received + 1);
        ssize_t n = pread(r->body.file->fd, p, (size_t) r->body.received, 0);

        if (n < 0 || (uint64_t) n != r->body.received)
            return api_error(a, 400, "BodyReadError", "reading request body failed");
        a->body = str_from(p, (size_t) n);
    } else if (r->body.received > 0) {
        a->body = chain_flatten(&r->body.chain, r->arena);
    }
    return V_NEXT;
}

static enum verdict call(struct api *a, bool write)
{
    enum method method = a->r->method;
    api_handler *handler = handler_of(a->route, method);

    if (method == METHOD_OPTIONS) {
        set_allow(a, write);
        return api_no_content(a);
    }
    if (handler == NULL) {
        set_allow(a, write);
        return api_error(a, 405, "MethodNotAllowed", "method is not allowed for this path");
    }
    if (method & METHODS_BODY) {
        enum verdict v = read_body(a);

        if (v != V_NEXT)
            return v;
    }
    req_trace(a->r, req_where(a->r, "api"), "api answers for %s", a->route->path);
    return handler(a);
}

static enum verdict api_run(struct req *r)
{
    const struct api_conf *conf = req_loc_conf(r, api_slot);
    struct api *a = ARENA_NEW(r->arena, struct api);
    struct str path = call_path(r);

    a->r = r;
    a->config = r->server->config;
    json_init(&a->json, r->arena);
    take_fields(a);
    /* Nothing is to be changed while a request is only explained, nor twice by a page's subrequests. */
    if ((r->method & METHODS_READ) == 0 && (!conf->write || r != r->main || req_explained())) {
        set_allow(a, false);
        return api_error(a, 405, "MethodDisabled", "method disabled");
    }
    if (path.len == 0 || str_eq(path, STR("/"))) {
        static const struct api_route versions = { .path = "", .get = show_versions };

        a->route = &versions;
        return call(a, conf->write);
    }
    if (path.ptr[0] != '/')
        return api_error(a, 404, "PathNotFound", "path not found");
    if (!take_version(a, &path))
        return api_error(a, 404, "UnknownVersion", "unknown version");
    a->route = api_find(a, path);
    if (a->route == NULL)
        return api_error(a, 404, "PathNotFound", "path not found");
    return call(a, conf->write);
}

bool api_read_object(struct api *a, struct json_reader *j, const char *code, enum verdict *v)
{
    struct json_reader check;
    enum json_token t;

    json_read(&check, a->r->arena, a->body);
    t = json_next(&check);
    if (!json_skip(&check, t) || json_next(&check) != JSON_END) {
        *v = api_error(a, 415, "JsonError", "%s",
                       check.error != NULL
                           ? str_printf(a->r->arena, "json error: %s", check.error).ptr
                           : "json error");
        return false;
    }
    json_read(j, a->r->arena, a->body);
    if (json_next(j) != JSON_OBJECT) {
        *v = api_error(a, 400, code, "invalid JSON: an object is expected");
        return false;
    }
    return true;
}

/* Configuration -------------------------------------------------------------------------------- */

static const char *set_api(struct conf *cf, void *field)
{
    struct api_conf *conf = field;

    if (cf->nargs == 2) {
        if (str_eq(cf->args[1], STR("write=on")))
            conf->write = true;
        else if (!str_eq(cf->args[1], STR("write=off")))
            return conf_error_arg(cf, 1, "invalid parameter \"%.*s\"", STR_ARG(cf->args[1]));
    }
    conf_location(cf)->handler = api_run;
    return NULL;
}

static const struct directive directives[] = {
    ROW("api", CTX_LOCATION, ARGS0 | ARGS1, set_api, STORE_LOC, struct api_conf, write,
        INHERIT_IMPLICIT, NULL, "[write=on|off]",
        "Answers with the server's state as JSON; write=on: and changes upstreams, pairs, counters."),
    ROW_END,
};

static const struct http_module http_api = { .variables = NULL };

const struct module module_http_api = {
    .name = "http_api",
    .slot = &api_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct api_conf) },
    .directives = directives,
    .http = &http_api,
};
