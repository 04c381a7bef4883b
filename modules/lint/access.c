/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about who may come in, and where requests may be sent. */
#include "modules/lint/rules.h"

#define AUTHS " auth_basic auth_request auth_jwt auth_digest auth_oidc "

void lint_allow(struct lint *l, const struct conf_node *n)
{
    if (!lint_is_first(n) || str_eq(n->args[1], STR("all")) || lint_child(n->parent, " deny "))
        return;
    lint_say(l, n, 0, "end the list with \"deny all;\"",
             "there is no \"deny\" beside this \"allow\": everybody else is let in as well");
}

void lint_satisfy(struct lint *l, const struct conf_node *n)
{
    static const char rules[] = " allow deny ";
    bool lists, auths;

    if (n->nargs < 2 || !str_eq(n->args[1], STR("any")))
        return;
    lists = lint_in_force(n, rules) || lint_below(n->parent, rules);
    auths = lint_in_force(n, AUTHS) || lint_below(n->parent, AUTHS);
    if (lists && auths)
        return;
    lint_say(l, n, 0,
             lists ? "add auth_basic or another check, or take \"satisfy any\" out"
                   : "add \"allow …; deny all;\", or take \"satisfy any\" out",
             "\"satisfy any\" has nothing to choose from: there is no %s here",
             lists ? "authentication" : "list of allowed addresses");
}

/* Prefix locations that keep somebody out are what merge_slashes protects. */
static bool has_guarded_location(const struct conf_node *block)
{
    struct conf_node *c;
    struct lint_location loc;

    CONF_NODE_EACH (block, c) {
        if (lint_location(c, &loc) && loc.kind == LINT_PREFIX && loc.path.len > 1 &&
            lint_child(c, " allow deny internal " AUTHS))
            return true;
        if (c->block && has_guarded_location(c))
            return true;
    }
    return false;
}

void lint_merge_slashes(struct lint *l, const struct conf_node *n)
{
    if (n->nargs < 2 || !str_eq(n->args[1], STR("off")) || !has_guarded_location(n->parent))
        return;
    lint_say(
        l, n, 0, "leave it on",
        "\"//admin\" no longer matches \"location /admin\", so that its rules are walked around");
}

/* Whether the server around n is reached from this machine alone. */
static bool is_local_server(const struct conf_node *n)
{
    const struct conf_node *server =
        conf_node_is(n->parent, "server") ? n->parent : conf_node_around(n, "server");
    struct conf_node *c;
    bool any = false;

    if (!server)
        return false;
    CONF_NODE_EACH (server, c) {
        struct str a = conf_node_is(c, "listen") && c->nargs > 1 ? c->args[1] : STR_NULL;

        if (!a.ptr)
            continue;
        any = true;
        if (!str_starts(a, STR("127.")) && !str_starts(a, STR("unix:")) &&
            !str_starts(a, STR("[::1]")) && !str_starts(a, STR("localhost")))
            return false;
    }
    return any;
}

void lint_status(struct lint *l, const struct conf_node *n)
{
    if (lint_in_force(n, " deny allow internal satisfy " AUTHS) || is_local_server(n))
        return;
    lint_say(l, n, 0, "add \"allow …; deny all;\", or listen on 127.0.0.1",
             "anybody who can reach this server can read \"%s\"", n->args[0].ptr);
}

/* A capture which may be any host, or the variable is the client's. */
static bool is_clients(const struct conf_node *n, struct str name)
{
    const struct conf_node *around = lint_location_around(n);
    struct lint_location loc;
    struct str group;

    if (str_starts(name, STR("arg_")) || str_starts(name, STR("http_")) ||
        str_starts(name, STR("cookie_")))
        return true;
    if (lint_in(name, " host request_uri args query_string "))
        return true;
    if (!around || !lint_location(around, &loc) || loc.kind != LINT_REGEX)
        return false;
    if (name.len == 1 && name.ptr[0] >= '1' && name.ptr[0] <= '9')
        group = lint_group(loc.path, (unsigned) (name.ptr[0] - '0'));
    else
        group = lint_named_group(loc.path, name);
    return group.ptr && (str_find(group, STR(".")) >= 0 || str_find(group, STR("[^")) >= 0);
}

void lint_proxy_target(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *around = lint_location_around(n);
    struct str host, rest, name;

    if (around && lint_child(around, " internal "))
        return;
    lint_split_url(n->args[1], &host, &rest);
    while (lint_next_var(&host, &name)) {
        if (!is_clients(n, name))
            continue;
        lint_say(
            l, n, 1, "choose among known hosts with a \"map\"",
            "the client decides with $%.*s where the request goes: it can reach whatever this server can",
            STR_ARG(name));
        return;
    }
}

/* Where clients choose the server; a test in front ("if ($allow_port …)") is taken to be about that. */
void lint_tunnel_open(struct lint *l, const struct conf_node *n)
{
    static const char tests[] = " if elif ";

    if (n->nargs > 1 && str_chr(n->args[1], '$') < 0)
        return;
    if (lint_in_force(n, " deny allow tunnel_allow_upstream satisfy " AUTHS) || is_local_server(n) ||
        lint_child(n->parent, tests) || conf_node_is(n->parent, "if") ||
        (n->parent->parent && lint_child(n->parent->parent, tests)))
        return;
    lint_say(l, n, 0, "test $host and $request_port, say \"allow …; deny all;\", or use tunnel_allow_upstream",
             "anybody can be joined with whatever this server can reach, its own network included");
}

void lint_protocols(struct lint *l, const struct conf_node *n)
{
    for (unsigned i = 1; i < n->nargs; i++) {
        if (!lint_in(n->args[i], " SSLv2 SSLv3 TLSv1 TLSv1.1 "))
            continue;
        lint_say(l, n, i, "ssl_protocols TLSv1.2 TLSv1.3;",
                 "%s is broken or out of use (RFC 8996), and clients that need it are rare",
                 n->args[i].ptr);
        return;
    }
}

void lint_listen_443(struct lint *l, const struct conf_node *n)
{
    struct str a = n->nargs > 1 ? n->args[1] : STR("");

    if (!str_eq(a, STR("443")) && !str_ends(a, STR(":443")))
        return;
    for (unsigned i = 2; i < n->nargs; i++) {
        if (lint_in(n->args[i], " ssl quic "))
            return;
    }
    if (lint_in_force(n, " ssl ") || !lint_in_force(n, " ssl_certificate "))
        return;
    lint_say(
        l, n, 1, "add \"ssl\" to it",
        "there is a certificate, but without the parameter \"ssl\" port 443 speaks plain HTTP");
}
