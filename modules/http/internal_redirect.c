/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * internal_redirect: another URI or a named location takes over, behind the limits and the access
 * rules of the one that the client asked for.
 */
#include "core/http/req.h"

/* configure: switch=http_internal_redirect_module default=on */

static unsigned redirect_slot;

struct redirect_conf {
    struct expr *uri;
};

/*
 * Where it leads to may have inherited the directive: one that leads to where the request is
 * already does nothing, instead of going round until the limit of redirects.
 */
static bool is_here(const struct req *r, struct str target)
{
    return str_eq(target, target.ptr[0] == '@' ? r->loc->name : r->uri);
}

static enum verdict redirect_run(struct req *r)
{
    const struct redirect_conf *conf = req_loc_conf(r, redirect_slot);
    struct str uri, args = STR_NULL;
    ssize_t mark;

    uri = str_dup(r->arena, expr_eval(&r->eval, conf->uri));
    if (uri.len > 0 && uri.ptr[0] == '@')
        return is_here(r, uri) ? V_NEXT : req_restart_named(r, uri);
    mark = str_chr(uri, '?');
    if (mark >= 0) {
        args = str_skip(uri, (size_t) mark + 1);
        uri.len = (size_t) mark;
    }
    if (uri.len == 0 || is_here(r, uri))
        return V_NEXT;
    return req_restart_uri(r, uri, args);
}

static bool redirect_wanted(const struct level *level)
{
    const struct redirect_conf *conf = level_conf(level, STORE_LOC, redirect_slot);
    struct str text;

    return conf->uri != NULL && !(expr_is_literal(conf->uri, &text) && text.len == 0);
}

static const struct directive directives[] = {
    ROW("internal_redirect", CTX_SERVER | CTX_LOCATION, ARGS1, conf_set_expr, STORE_LOC,
        struct redirect_conf, uri, INHERIT_SCALAR, NULL, "uri",
        "Redirects internally to a URI or named location, behind limits and access rules."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_PRECONTENT, HOOK_INTERNAL_REDIRECT, redirect_run, redirect_wanted },
    HOOK_END,
};

static const struct http_module http_internal_redirect = { .hooks = hooks };

const struct module module_http_internal_redirect = {
    .name = "http_internal_redirect",
    .slot = &redirect_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct redirect_conf) },
    .directives = directives,
    .http = &http_internal_redirect,
};
