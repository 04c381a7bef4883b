/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about which directives are in force at all: if, try_files, error_page, servers, zones, resolvers. */
#include "modules/lint/rules.h"

/* if ------------------------------------------------------------------------------------------ */

void lint_if_settings(struct lint *l, const struct conf_node *n)
{
    struct conf_node *c;

    CONF_NODE_EACH(n, c) {
        if (lint_in(c->args[0], " return rewrite set break access_log error_log rewrite_log limit_rate "
                                "limit_rate_after uninitialized_variable_warn log_not_found "))
            continue;
        lint_say(l, c, 0, "keep to return, rewrite and set; choose values with a \"map\"",
                 "\"%s\" inside \"%s\": of several that are true only the last one's settings are in force, and "
                 "those of the location around may be lost",
                 c->args[0].ptr, n->args[0].ptr);
        return;
    }
}

void lint_if_try_files(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *try_files = lint_child(n->parent, " try_files ");

    if (!try_files || lint_child(n, " return rewrite ") || n->children.next == &n->children)
        return;
    lint_say(l, n, 0, "set the variable with a \"map\", or on the server's level",
             "when this is true, the try_files in line %u is not in force", try_files->pos.line);
}

/* try_files, error_page ----------------------------------------------------------------------- */

void lint_try_files_proxy(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *pass = lint_child(n->parent, " proxy_pass grpc_pass ");
    struct str last = n->args[n->nargs - 1];

    if (!pass || !str_starts(last, STR("=")))
        return;
    lint_say(l, n, n->nargs - 1, "let the last parameter be a named location with the proxy_pass in it",
             "only requests for files that exist here get to the %s in line %u, all others end with %.*s",
             pass->args[0].ptr, pass->pos.line, STR_ARG(str_skip(last, 1)));
}

static const struct conf_node *named_location(const struct conf_node *server, struct str name)
{
    struct conf_node *c;

    CONF_NODE_EACH(server, c) {
        if (conf_node_is(c, "location") && c->nargs == 2 && str_eq(c->args[1], name))
            return c;
    }
    return NULL;
}

void lint_error_page(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *server = conf_node_is(n->parent, "server") ? n->parent
                                                                       : conf_node_around(n, "server");
    struct str last = n->args[n->nargs - 1];
    const struct conf_node *location;

    if (!server || !str_starts(last, STR("@")) || str_starts(n->args[n->nargs - 2], STR("=")))
        return;
    location = named_location(server, last);
    if (!location
        || !lint_child(location, " proxy_pass fastcgi_pass uwsgi_pass scgi_pass grpc_pass memcached_pass "))
        return;
    lint_say(l, n, n->nargs - 1, "write \"=\" before the location's name",
             "the answer of \"%.*s\" goes out with the status %.*s, whatever status it has itself",
             STR_ARG(last), STR_ARG(n->args[1]));
}

/* server_name --------------------------------------------------------------------------------- */

static struct str listen_address(struct str a)
{
    if (str_starts(a, STR("*:")))
        return str_skip(a, 2);
    return str_starts(a, STR("0.0.0.0:")) ? str_skip(a, 8) : a;
}

static bool listens_on(const struct conf_node *server, struct str address, bool *is_default)
{
    struct conf_node *c;
    bool any = false, found = false;

    CONF_NODE_EACH(server, c) {
        if (!conf_node_is(c, "listen") || c->nargs < 2)
            continue;
        any = true;
        if (!str_eq(listen_address(c->args[1]), address))
            continue;
        found = true;
        for (unsigned i = 2; i < c->nargs; i++)
            *is_default |= lint_in(c->args[i], " default_server default ");
    }
    return found || (!any && str_eq(address, STR("80")));
}

/* Another server gets what nobody else wants on this address. */
static const struct conf_node *default_server(const struct conf_node *server, struct str address)
{
    const struct conf_node *first = NULL;
    struct conf_node *c;

    CONF_NODE_EACH(server->parent, c) {
        bool is_default = false;

        if (!conf_node_is(c, "server") || !listens_on(c, address, &is_default))
            continue;
        if (is_default)
            return c;
        if (!first)
            first = c;
    }
    return first;
}

void lint_server_name(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *server = n->parent, *listen = lint_child(server, " listen "), *other;
    struct str address = listen && listen->nargs > 1 ? listen_address(listen->args[1]) : STR("80");

    if (n->nargs != 2 || !str_eq(n->args[1], STR("_")))
        return;
    other = default_server(server, address);
    if (!other || other == server)
        return;
    lint_say(l, n, 1, "write \"default_server\" behind the address of \"listen\"",
             "\"_\" is a name like any, which nobody asks for: unknown hosts go to the server in line %u",
             other->pos.line);
}

/* resolver ------------------------------------------------------------------------------------ */

/* Whether a server group of that name exists anywhere. */
static bool is_group(const struct conf_node *http, struct str host)
{
    struct conf_node *c;

    CONF_NODE_EACH(http, c) {
        if (conf_node_is(c, "upstream") && c->nargs == 2 && str_caseeq(c->args[1], host))
            return true;
    }
    return false;
}

/* A value that a variable may have needs no name to be looked up. */
static bool is_known_host(const struct conf_node *http, struct str value)
{
    struct str host, rest;

    lint_split_url(value, &host, &rest);
    return !lint_has_var(value) && (host.len == 0 || lint_is_address(host) || is_group(http, host));
}

/* What the rows of a map say. */
static bool rows_known(const struct conf_node *http, const struct conf_node *map)
{
    struct conf_node *c;

    CONF_NODE_EACH(map, c) {
        if (c->nargs == 2 && !is_known_host(http, c->args[1]))
            return false;
    }
    return true;
}

/* Looks through all that gives the variable a value. */
static bool values_known(const struct conf_node *http, const struct conf_node *block, struct str name,
                         unsigned *found)
{
    struct conf_node *c;

    CONF_NODE_EACH(block, c) {
        struct str var = c->nargs ? c->args[c->nargs - 1] : STR("");

        if (conf_node_is(c, "set") && c->nargs == 3 && c->args[1].len > 1
            && str_caseeq(str_skip(c->args[1], 1), name)) {
            ++*found;
            if (!is_known_host(http, c->args[2]))
                return false;
        } else if (lint_in(c->args[0], " map split_clients geo ") && var.len > 1
                   && str_caseeq(str_skip(var, 1), name)) {
            ++*found;
            if (!rows_known(http, c))
                return false;
        } else if (c->block && !values_known(http, c, name, found)) {
            return false;
        }
    }
    return true;
}

void lint_resolver(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *http = conf_node_around(n, "http");
    struct str host, rest, name;
    unsigned found = 0;

    if (!http || lint_in_force(n, " resolver "))
        return;
    lint_split_url(n->args[1], &host, &rest);
    if (lint_is_address(host))
        return;
    rest = host;
    /* Only a port may vary. */
    if (!lint_next_var(&rest, &name) || (str_chr(host, ':') >= 0 && str_chr(host, '$') > str_chr(host, ':')))
        return;
    if (values_known(http, http, name, &found) && found > 0)
        return;
    lint_say(l, n, 1, "add \"resolver ADDRESS;\"",
             "the host comes from $%.*s, and names met at run time need a resolver, which is not there: "
             "requests end with 502", STR_ARG(name));
}

/* Zones --------------------------------------------------------------------------------------- */

/* What names the zone, and the directive that uses it, with the parameter before the name. */
static const struct zone_use {
    const char *directive, *parameter, *user, *prefix;
} uses[] = {
    { "limit_req_zone", "zone=", "limit_req", "zone=" },
    { "limit_conn_zone", "zone=", "limit_conn", "" },
    { "proxy_cache_path", "keys_zone=", "proxy_cache", "" },
    { "fastcgi_cache_path", "keys_zone=", "fastcgi_cache", "" },
    { "uwsgi_cache_path", "keys_zone=", "uwsgi_cache", "" },
    { "scgi_cache_path", "keys_zone=", "scgi_cache", "" },
};

static bool is_used(const struct conf_node *block, const struct zone_use *use, struct str name)
{
    struct conf_node *c;

    CONF_NODE_EACH(block, c) {
        if (conf_node_is(c, use->user)) {
            for (unsigned i = 1; i < c->nargs; i++) {
                struct str a = c->args[i], prefix = str_cstr(use->prefix);

                if (str_starts(a, prefix) && str_eq(str_skip(a, prefix.len), name))
                    return true;
                /* Chosen at run time. */
                if (lint_has_var(a))
                    return true;
            }
        }
        if (c->block && is_used(c, use, name))
            return true;
    }
    return false;
}

void lint_zone_unused(struct lint *l, const struct conf_node *n)
{
    for (unsigned u = 0; u < ARRAY_LEN(uses); u++) {
        const struct zone_use *use = &uses[u];

        if (!conf_node_is(n, use->directive))
            continue;
        for (unsigned i = 1; i < n->nargs; i++) {
            struct str name = n->args[i];
            ssize_t colon;

            if (!str_starts(name, str_cstr(use->parameter)))
                continue;
            name = str_skip(name, strlen(use->parameter));
            colon = str_chr(name, ':');
            if (colon >= 0)
                name.len = (size_t) colon;
            if (!is_used(lint_root(l), use, name))
                lint_say(l, n, i, "use it, or take it out",
                         "no \"%s\" uses the zone \"%.*s\": nothing is %s by it", use->user, STR_ARG(name),
                         strstr(use->user, "cache") ? "cached" : "limited");
        }
    }
}
