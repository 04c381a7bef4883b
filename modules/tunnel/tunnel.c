/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tunnel module: CONNECT (RFC 9110, 9.3.6). A client is joined with the server that it names, or with one that the
 * configuration names; what then passes is theirs alone. An exchange of the upstream module makes the connection. Whom clients
 * may reach that way is for the configuration to say: with access rules, maps of $host and $request_port, and, where names resolve to
 * addresses, tunnel_allow_upstream.
 */
#include "core/http/http_config.h"
#include "modules/upstream/upstream.h"

/* configure: switch=http_tunnel_module default=on needs=upstream */

static unsigned tunnel_slot;

struct tunnel_pass {
    struct expr *address;     /* with variables; else NULL and: */
    struct upstream *group;
    struct str text;
};

struct tunnel_loc {
    struct upstream_conf up;
    struct tunnel_pass *pass;
};

static const struct upstream_family tunnel_family;

/* The backend: nothing is said --------------------------------------------------------------------- */

static int encode(struct exchange *x, struct chain *out)
{
    (void) x;
    (void) out;
    return 0;
}

static bool reusable(const struct exchange *x)
{
    (void) x;
    return false;
}

static void release(struct exchange *x)
{
    (void) x;
}

static const struct backend backend_tunnel = {
    .scheme = "",
    .encode = encode,
    .reusable = reusable,
    .free = release,
};

/* The handler -------------------------------------------------------------------------------------- */

/* 0, or -1: logged. */
static int find_target(struct req *r, const struct tunnel_pass *pass, struct exchange *x)
{
    struct upstream_address a;
    struct addr addr;
    const char *error;
    struct str text;

    x->group = pass->group;
    if (pass->address == NULL)
        return 0;
    text = expr_eval(&r->eval, pass->address);
    error = upstream_address_parse(&a, text, 0);
    if (error != NULL) {
        log_error(&r->log, 0, "%s in upstream \"%.*s\"", error, STR_ARG(text));
        return -1;
    }
    if (!a.has_port && !a.is_unix) {
        x->group = upstream_find(r->server->http, str_lower(r->arena, a.host));
        if (x->group != NULL)
            return 0;
        log_error(&r->log, 0, "no port in upstream \"%.*s\"", STR_ARG(text));
        return -1;
    }
    if (addr_parse(&addr, a.is_unix ? a.host : text, 0, false) == 0)
        x->group = upstream_temporary(r->arena, text, &addr, 1);
    x->resolve_name = a.host;
    x->resolve_port = a.port;
    return 0;
}

static enum verdict tunnel_handler(struct req *r)
{
    const struct tunnel_loc *conf = req_loc_conf(r, tunnel_slot);
    struct exchange *x;

    if (r->method != METHOD_CONNECT || r != r->main || r->ops->tunnel == NULL)
        return req_status(r, 405);
    /* Content has no meaning here, and whoever sends it does not mean what the other end would read. */
    if (r->in->content_length > 0 || r->in->chunked) {
        log_info(&r->log, 0, "client sent CONNECT request with a body");
        r->keep_alive = false;
        return req_status(r, 400);
    }
    x = exchange_new(r);
    x->conf = &conf->up;
    x->backend = &backend_tunnel;
    x->tag = conf->pass;
    x->uri = STR("");
    x->joins = true;
    if (find_target(r, conf->pass, x) != 0)
        return req_status(r, 502);
    req_trace(r, req_where(r, "tunnel_pass"), "tunnel_pass joins the client with %.*s",
              STR_ARG(x->group != NULL ? x->group->name : x->resolve_name));
    return exchange_start(x);
}

/* Directives --------------------------------------------------------------------------------------- */

static const char *set_pass(struct conf *cf, void *field)
{
    struct tunnel_pass **out = field, *pass = ARENA_NEW(cf->arena, struct tunnel_pass);
    struct str text = cf->nargs > 1 ? cf->args[1] : STR("$host:$request_port"), literal;
    struct location *loc = conf_location(cf);
    struct upstream_address a;
    const char *error = NULL;

    pass->address = expr_compile(cf, text, 0, &error);
    if (pass->address == NULL)
        return error;
    loc->handler = tunnel_handler;
    loc->allow_connect = true;
    conf_server(cf)->allow_connect = true;
    *out = pass;
    if (!expr_is_literal(pass->address, &literal)) {
        upstream_passes(cf, NULL, &tunnel_family);
        return NULL;
    }
    pass->address = NULL;
    error = upstream_address_parse(&a, literal, 0);
    if (error != NULL)
        return conf_error_arg(cf, 1, "%s in upstream \"%.*s\"", error, STR_ARG(literal));
    pass->group = upstream_refer(cf, &a);
    upstream_passes(cf, pass->group, &tunnel_family);
    return NULL;
}

/* What the answers of other protocols are cut by has no meaning here. */
static int tunnel_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct tunnel_loc *t = level_conf(level, STORE_LOC, tunnel_slot);

    (void) cf;
    (void) parent;
    if (t != NULL)
        t->up.busy = 2 * t->up.buffer_size;
    return 0;
}

static const struct conf_enum next_names[] = {
    { "error", NEXT_ERROR }, { "timeout", NEXT_TIMEOUT }, { "denied", NEXT_DENIED },
    { "off", NEXT_OFF },     { NULL, 0 },
};

#define T_ROW(name_, args_, set_, member_, def_, syntax_, doc_, ...) \
    UP_ROW("tunnel_" name_, args_, set_, struct tunnel_loc, up.member_, def_, syntax_, doc_, __VA_ARGS__)

static const struct directive tunnel_directives[] = {
    ROW("tunnel_pass", CTX_SERVER | CTX_LOCATION | CTX_IF_LOCATION, ARGS0 | ARGS1, set_pass, STORE_LOC,
        struct tunnel_loc, pass, INHERIT_IMPLICIT, NULL, "[address]",
        "Answers CONNECT: joins the client with the server that it names, or with this one.", ),
    UPSTREAM_ALLOW("tunnel_", struct tunnel_loc, up),
    T_ROW("bind", ARGS1, upstream_set_bind, bind, NULL, "address | off",
          "The local address of connections to servers."),
    T_ROW("bind_dynamic", ARG_FLAG, conf_set_flag, bind_dynamic, "off", "on | off",
          "Evaluates tunnel_bind for each connection; without effect, for that is always so."),
    T_ROW("buffer_size", ARGS1, conf_set_size, buffer_size, "16k", "size",
          "How much is read at a time."),
    T_ROW("connect_timeout", ARGS1, conf_set_ms, connect_timeout_ms, "60s", "time",
          "How long a connection to a server may take to establish."),
    T_ROW("next_upstream", ARGS1_MORE | ARG_REPEAT, conf_set_bits, next_upstream, "error timeout",
          "error | timeout | denied | off ...", "When the next server is asked.",
          .extra = next_names),
    T_ROW("next_upstream_timeout", ARGS1, conf_set_ms, next_upstream_timeout_ms, "0", "time",
          "For how long next servers may be asked; 0: no limit."),
    T_ROW("next_upstream_tries", ARGS1, conf_set_num, next_upstream_tries, "0", "number",
          "How many servers may be asked; 0: each once."),
    T_ROW("read_timeout", ARGS1, conf_set_ms, read_timeout_ms, "60s", "time",
          "How long a tunnel may be silent in both directions."),
    T_ROW("send_lowat", ARGS1, conf_set_size, send_lowat, "0", "size",
          "SO_SNDLOWAT of connections to servers; without effect, for Linux has no such thing."),
    T_ROW("send_timeout", ARGS1, conf_set_ms, send_timeout_ms, "60s", "time",
          "Between two successful writes to the server."),
    T_ROW("socket_keepalive", ARG_FLAG, conf_set_flag, socket_keepalive, "off", "on | off",
          "SO_KEEPALIVE on connections to servers."),
    T_ROW("socket_rcvbuf", ARGS1, upstream_set_socket_size, socket_rcvbuf, NULL, "size",
          "SO_RCVBUF of connections to servers."),
    T_ROW("socket_sndbuf", ARGS1, upstream_set_socket_size, socket_sndbuf, NULL, "size",
          "SO_SNDBUF of connections to servers."),
    ROW_END,
};

static const struct http_module tunnel_http = { .variables = NULL };

const struct module module_http_tunnel = {
    .name = "http_tunnel",
    .slot = &tunnel_slot,
    .conf_size = { 0, 0, sizeof(struct tunnel_loc) },
    .directives = tunnel_directives,
    .http = &tunnel_http,
    .finish = tunnel_finish,
};

static const struct upstream_family tunnel_family = {
    .module = &module_http_tunnel,
    .conf = offsetof(struct tunnel_loc, up),
};
