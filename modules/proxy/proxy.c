/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The proxy module: directives, variables, and the content handler that hands a request to an
 * HTTP server. The settings common to all families are the upstream module's (UPSTREAM_ROWS).
 */
#include "core/http/client.h"
#include "modules/proxy/proxy.h"
#include "proxyd_config.h"

/* configure: switch=http_proxy_module default=on needs=upstream */

unsigned proxy_slot;

/* Not passed to clients unless proxy_pass_header says so. */
static const char *const hidden[] = {
    "Date", "Server", "X-Pad", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate",
    "X-Accel-Buffering", "X-Accel-Charset", NULL,
};

/* The handler --------------------------------------------------------------------------------- */

/* Whether the request's body can go on as it comes: a length is needed for HTTP/1.0. */
static bool may_stream(const struct req *r, const struct proxy_loc *conf)
{
    return !conf->up.request_buffering && r == r->main && !r->body.complete && !r->body.discarding
           && conf->up.pass_request_body && conf->body == NULL
           && (conf->http_version == HTTP_11 || r->in->content_length >= 0);
}

/* Others neither send the body nor take it from those who do. */
static bool shares_body(const struct req *r)
{
    return r == r->main || r->sub_with_body;
}

static bool has_body(const struct req *r, const struct proxy_loc *conf)
{
    if (!conf->up.pass_request_body || !shares_body(r))
        return false;
    return r->in->content_length >= 0 || r->in->chunked;
}

static struct str method_of(struct req *r, const struct proxy_loc *conf)
{
    struct str method;

    if (conf->method == NULL)
        return r->method_name;
    method = expr_eval(&r->eval, conf->method);
    return method.len > 0 ? method : r->method_name;
}

void proxy_make_parts(struct exchange *x, struct proxy_req *pr)
{
    struct req *r = x->req;

    pr->method = method_of(r, pr->conf);
    pr->head_request = x->head_only = str_eq(pr->method, STR("HEAD"));
    if (pr->conf->body == NULL)
        return;
    pr->body = expr_eval(&r->eval, pr->conf->body);
    if (pr->body.ptr == NULL)
        pr->body = STR("");
}

/* OPTIONS that may not go further is answered here (RFC 9110, 7.6.2). */
static bool is_last_hop(const struct req *r)
{
    return r->method == METHOD_OPTIONS
           && str_eq(fields_value(&r->in->fields, T_MAX_FORWARDS), STR("0"));
}

static void fill_exchange(struct exchange *x, const struct req *r, struct proxy_req *pr)
{
    const struct proxy_loc *conf = pr->conf;

    x->conf = &conf->up;
    x->backend = &backend_http1;
    x->data = pr;
    x->group = pr->target.group;
    x->resolve_name = pr->target.host;
    x->resolve_port = pr->target.port_number;
    x->uri = pr->target.uri;
    x->tag = conf->pass;
    if (unlikely(pr->target.tls)) {
        x->tls = &conf->up.tls;
        x->scheme = "https://";
    }
    x->http_upgrade = pr->upgrade.len > 0;
    x->http_upgrade |= conf->template->sets_upgrade && r->in->version == HTTP_11 && r == r->main
                      && fields_get(&r->in->fields, T_UPGRADE) != NULL
                      && r->ops->tunnel != NULL;
    x->pass_trailers = conf->pass_trailers;
}

enum verdict proxy_handler(struct req *r)
{
    const struct proxy_loc *conf = req_loc_conf(r, proxy_slot);
    bool stream = may_stream(r, conf), bodiless = false;
    struct proxy_req *pr;
    struct exchange *x;

    if (unlikely(is_last_hop(r)))
        return answer_text(r, 200, STR_NULL, STR(""));
    if (unlikely(stream)) {
        /* A body that came with the head can be sent again: it is treated as any other. */
        body_stream(r, NULL);
        stream = !r->body.complete || body_is_gone(r);
    }
    if (unlikely(body_is_gone(r)) && has_body(r, conf)) {
        /* An attempt before this redirect took it; without one a page can still be fetched. */
        if ((r->method & (METHOD_GET | METHOD_HEAD)) == 0)
            return req_status(r, 502);
        stream = false;
        bodiless = true;
    } else if (!stream && shares_body(r)
               && (!r->main->body.complete || r->main->body.streaming)) {
        enum verdict v = body_read(r);

        if (v != V_NEXT)
            return v;
    }
    pr = ARENA_NEW(r->arena, struct proxy_req);
    x = exchange_new(r);
    req_ctx_set(r, proxy_slot, pr, CTX_REQUEST);
    pr->conf = conf;
    pr->loc = r->loc;
    if (proxy_find_target(r, conf->pass, &pr->target) != 0)
        return req_status(r, 500);
    req_trace(r, req_where(r, "proxy_pass"), "proxy_pass http%s://%.*s%.*s",
              pr->target.tls ? "s" : "", STR_ARG(pr->target.host_port),
              STR_ARG(pr->target.uri));
    if (unlikely(conf->upgrade) && !conf->template->own_upgrade && conf->body == NULL)
        pr->upgrade = proxy_upgrade_value(r);
    if (pr->upgrade.len > 0)
        req_trace(r, req_where(r, "proxy_upgrade"), "proxy_upgrade passes \"%.*s\" on",
                  STR_ARG(pr->upgrade));
    if (conf->body == NULL)
        pr->has_body = !bodiless && has_body(r, conf);
    pr->chunked = stream && r->in->content_length < 0;
    fill_exchange(x, r, pr);
    x->stream_body = stream;
    return exchange_start(x);
}

/* Variables ----------------------------------------------------------------------------------- */

static const struct proxy_target *target_of(struct eval *e)
{
    const struct proxy_req *pr = req_ctx(req_of(e), proxy_slot);

    return pr != NULL ? &pr->target : NULL;
}

static bool get_host(struct eval *e, const struct var *v, struct str *out)
{
    const struct proxy_target *t = target_of(e);

    (void) v;
    if (t == NULL)
        return false;
    *out = t->host_port;
    return true;
}

static bool get_port(struct eval *e, const struct var *v, struct str *out)
{
    const struct proxy_target *t = target_of(e);

    (void) v;
    if (t == NULL)
        return false;
    *out = t->port;
    return true;
}

/* The client's X-Forwarded-For with its address behind it. */
static bool get_forwarded_for(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct addr room;
    struct str peer = addr_dup_text(r->arena, req_peer(r, &room), false);
    struct str old = fields_joined(&r->in->fields, STR("X-Forwarded-For"), STR(", "), r->arena);

    (void) v;
    *out = old.len == 0 ? peer
                        : str_printf(r->arena, "%.*s, %.*s", STR_ARG(old), STR_ARG(peer));
    return true;
}

static bool get_via(struct eval *e, const struct var *v, struct str *out)
{
    static const struct proxy_via on = { .mode = VIA_ON };

    (void) v;
    *out = proxy_via_value(req_of(e), &on);
    return true;
}

static const struct var_row proxy_variables[] = {
    { "proxy_host", get_host, NULL, 0, VAR_FRESH },
    { "proxy_port", get_port, NULL, 0, VAR_FRESH },
    { "proxy_add_x_forwarded_for", get_forwarded_for, NULL, 0, VAR_FRESH },
    { "proxy_add_via", get_via, NULL, 0, VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

/* Directives ---------------------------------------------------------------------------------- */

static const struct conf_enum proxy_upgrade_modes[] = {
    { "off", false }, { "auto", true }, { NULL, 0 }
};

static const char *set_http_version(struct conf *cf, void *field)
{
    unsigned *version = field;

    if (str_eq(cf->args[1], STR("1.0")))
        *version = HTTP_10;
    else if (str_eq(cf->args[1], STR("1.1")))
        *version = HTTP_11;
    else if (str_eq(cf->args[1], STR("2")))
        return conf_error_arg(cf, 1, "\"proxy_http_version 2\" is not supported yet");
    else
        return conf_error_arg(cf, 1, "invalid value \"%s\"", cf->args[1].ptr);
    return NULL;
}

static const char *set_via(struct conf *cf, void *field)
{
    struct proxy_via *via = field;
    const char *error = NULL;

    if (str_eq(cf->args[1], STR("off")))
        return NULL;
    if (str_eq(cf->args[1], STR("on"))) {
        via->mode = VIA_ON;
        return NULL;
    }
    via->mode = VIA_NAME;
    via->name = expr_compile(cf, cf->args[1], 0, &error);
    return via->name == NULL ? error : NULL;
}

static int proxy_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct proxy_loc *p = level_conf(level, STORE_LOC, proxy_slot);
    const struct proxy_loc *above = NULL;

    if (p == NULL)
        return 0;
    if (parent != NULL && parent->conf[STORE_LOC] != NULL)
        above = level_conf(parent, STORE_LOC, proxy_slot);
    proxy_inherit_headers(cf, level, p, above);
    if (upstream_conf_finish(cf, level, &p->up, above ? &above->up : NULL, "proxy", hidden) != 0
        || proxy_make_template(cf, level, p) != 0)
        return -1;
    if (p->pass != NULL && p->pass->tls && p->pass->group != NULL)
        p->pass->group->tls = true;
    if (p->pass != NULL && (p->pass->tls || p->pass->url != NULL)
        && upstream_tls_finish(cf, level, &p->up.tls, "proxy") != 0)
        return -1;
    return proxy_finish_redirects(cf, level, p);
}

#define P_ROW(name_, args_, set_, member_, def_, syntax_, doc_, ...) \
    ROW("proxy_" name_, CTX_HSL, args_, set_, STORE_LOC, struct proxy_loc, member_, INHERIT_SCALAR, \
        def_, syntax_, doc_, __VA_ARGS__)
#define P_LIST(name_, args_, set_, member_, syntax_, doc_) \
    ROW("proxy_" name_, CTX_HSL, (args_) | ARG_REPEAT, set_, STORE_LOC, struct proxy_loc, member_, \
        INHERIT_WHOLE, NULL, syntax_, doc_, )

static const struct directive proxy_directives[] = {
    ROW("proxy_pass", CTX_LOCATION | CTX_IF_LOCATION | CTX_LIMIT_EXCEPT, ARGS1, proxy_set_pass,
        STORE_LOC, struct proxy_loc, pass, INHERIT_IMPLICIT, NULL, "URL",
        "Passes requests to an HTTP server or group of servers.", ),
    UPSTREAM_ROWS("proxy_", struct proxy_loc, up),
    UPSTREAM_TLS_ROWS("proxy_", struct proxy_loc, up.tls, "$proxy_host"),
    P_ROW("temp_path", ARGS1 | ARGS2 | ARGS3 | ARGS4, conf_set_path, up.temp_path,
          PROXYD_PROXY_TEMP_PATH, "path [level1 [level2 [level3]]]",
          "Where temporary files of answers lie."),
    P_ROW("http_version", ARGS1, set_http_version, http_version, "1.1", "1.0 | 1.1",
          "The protocol's version spoken with servers."),
    P_LIST("set_header", ARGS2, proxy_set_set_header, set_headers, "field value",
           "A field of the request that is passed on; an empty value: not passed."),
    P_ROW("set_header_inherit", ARGS1, proxy_set_header_rule, set_header_rule, "on",
          "on | off | merge",
          "Whether proxy_set_header of outer levels holds here too, and beside the level's own.",
          .extra = proxy_header_rules),
    P_LIST("redirect", ARGS12, proxy_set_redirect, redirects,
           "default | off | redirect replacement", "Changes Location and Refresh of answers."),
    P_LIST("cookie_domain", ARGS12, proxy_set_cookie_domain, cookie_domains,
           "off | domain replacement", "Changes the domain of cookies that are set."),
    P_LIST("cookie_path", ARGS12, proxy_set_cookie_path, cookie_paths, "off | path replacement",
           "Changes the path of cookies that are set."),
    P_LIST("cookie_flags", ARGS1_MORE, proxy_set_cookie_flags, cookie_flags,
           "off | cookie [flag ...]", "Adds flags to cookies that are set, or takes them away."),
    P_ROW("method", ARGS1, conf_set_expr, method, NULL, "method",
          "The method of requests that are passed on."),
    P_ROW("set_body", ARGS1, conf_set_expr, body, NULL, "value",
          "The body of requests that are passed on."),
    P_ROW("pass_trailers", ARG_FLAG, conf_set_flag, pass_trailers, "off", "on | off",
          "Passes trailer fields of answers."),
    P_ROW("upgrade", ARGS1, conf_set_enum, upgrade, "off", "auto | off",
          "Passes a client's wish to change the protocol on by itself, without proxy_set_header.",
          .extra = proxy_upgrade_modes),
    P_ROW("send_proxy_protocol", ARGS1, conf_set_enum, up.proxy_protocol, "off", "off | v1 | v2",
          "Begins each connection to a server with a PROXY header; it then serves one request, or one client with ntlm.",
          .extra = upstream_protocol_names),
    P_ROW("via", ARGS1, set_via, via, NULL, "on | off | name",
          "Adds a Via field to requests that are passed on, with the server's name or this one."),
    P_ROW("headers_hash_max_size", ARGS1, conf_set_num, hash_sizes[0], "512", "size",
          "Accepted; tables grow by themselves."),
    P_ROW("headers_hash_bucket_size", ARGS1, conf_set_num, hash_sizes[1], "64", "size",
          "Accepted; tables grow by themselves."),
    ROW_END,
};

static const struct http_module proxy_http = { .variables = proxy_variables };

const struct module module_http_proxy = {
    .name = "http_proxy",
    .slot = &proxy_slot,
    .conf_size = { 0, 0, sizeof(struct proxy_loc) },
    .directives = proxy_directives,
    .http = &proxy_http,
    .finish = proxy_finish,
};

const struct upstream_family proxy_family = {
    .module = &module_http_proxy,
    .conf = offsetof(struct proxy_loc, up),
    .fields = proxy_literal_fields,
    .known = proxy_known_value,
};
