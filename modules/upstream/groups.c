/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups of servers: the `upstream` block, implicit groups of literal addresses, and one-request
 * groups of names resolved at run time. The servers of a block are read and found by servers.c. Choosing among the servers is the balancer's (balance.c), connections are
 * pool.c's.
 */
#include "core/http/http_config.h"
#include "core/os/process.h"
#include "modules/upstream/servers.h"

/* configure: switch=http_upstream_keepalive_module default=always libs=openssl needs=http_ssl also=http_upstream_module,http_upstream_zone_module,http_upstream_sticky_module,http_upstream_hash_module,http_upstream_ip_hash_module,http_upstream_least_conn_module,http_upstream_random_module,http_upstream_hc_module */

unsigned upstream_slot;

/* Addresses ---------------------------------------------------------------------------------- */

const char *upstream_address_parse(struct upstream_address *a, struct str text,
                                   unsigned default_port)
{
    ssize_t colon;
    uint64_t port;
    size_t host_end = 0;

    memset(a, 0, sizeof(*a));
    if (str_starts(text, STR("unix:"))) {
        if (text.len == 5)
            return "no path in the unix domain socket";
        a->host = text;
        a->is_unix = true;
        return NULL;
    }
    if (text.len > 0 && text.ptr[0] == '[') {
        ssize_t close = str_chr(text, ']');

        if (close < 0)
            return "invalid host";
        host_end = (size_t) close + 1;
        if (host_end < text.len && text.ptr[host_end] != ':')
            return "invalid host";
    }
    colon = str_chr(str_skip(text, host_end), ':');
    a->host = text;
    a->port = default_port;
    if (colon >= 0) {
        size_t at = host_end + (size_t) colon;

        if (str_to_u64(str_skip(text, at + 1), &port) != 0 || port == 0 || port > 65535)
            return "invalid port";
        a->host = str_from(text.ptr, at);
        a->port = (unsigned) port;
        a->has_port = true;
    }
    return a->host.len == 0 ? "no host" : NULL;
}

/* Groups ------------------------------------------------------------------------------------- */

struct upstream_main *upstream_main_of(struct conf *cf)
{
    struct upstream_main *m = conf_own(cf, conf_http(cf)->level, &module_upstream, STORE_MAIN);

    if (!m->ready) {
        list_init(&m->groups);
        list_init(&m->checks);
        table_init(&m->matches, cf->arena);
        m->ready = true;
    }
    return m;
}

static void init_group(struct upstream *g, struct str name)
{
    g->name = name;
    g->balancer = &balancer_round_robin;
    g->live = &g->generation;
    list_init(&g->idle);
    list_init(&g->link);
}

struct upstream *upstream_find(const struct http_main *http, struct str name)
{
    struct upstream *g = table_get(&http->upstreams, name);

    return g != NULL && g->level != NULL ? g : NULL;
}

struct upstream *upstream_refer(struct conf *cf, const struct upstream_address *a)
{
    struct http_main *http = conf_http(cf);
    struct str name = str_lower(cf->arena, a->host);
    struct upstream *g;

    if (a->is_unix)
        name = a->host;
    else if (a->has_port)
        name = str_printf(cf->arena, "%.*s:%u", STR_ARG(name), a->port);
    g = table_get(&http->upstreams, name);
    if (g != NULL && g->level == NULL && !a->has_port && a->port != 0 && g->port != 0
        && g->port != a->port) {
        /* Of another scheme: as if its port had been written. */
        name = str_printf(cf->arena, "%.*s:%u", STR_ARG(name), a->port);
        g = table_get(&http->upstreams, name);
    }
    if (g != NULL) {
        /* Whoever has no default port must not get another's: without a block of that name it is an error, there. */
        if (g->level == NULL && a->port == 0 && g->port != 0) {
            g->port = 0;
            g->pos = cf->pos;
        }
        return g;
    }
    g = &ARENA_NEW(cf->arena, struct block_object)->group;
    init_group(g, name);
    g->pos = cf->pos;
    g->host = a->host;
    g->port = a->port;
    list_push_back(&upstream_main_of(cf)->groups, &g->link);
    table_put(&http->upstreams, name, g);
    return g;
}

void upstream_passes(struct conf *cf, struct upstream *g, const struct upstream_family *family)
{
    struct upstream_loc *loc = conf_own(cf, cf->level, &module_upstream, STORE_LOC);

    *loc = (struct upstream_loc){ .level = cf->level, .group = g, .family = family };
    if (g == NULL)
        return;
    g->passes = arena_grow(cf->arena, g->passes, g->pass_count, &g->pass_capacity, sizeof(*g->passes));
    g->passes[g->pass_count++] = cf->level;
}

struct upstream *upstream_temporary(struct arena *arena, struct str name, const struct addr *addrs,
                                    unsigned count)
{
    struct upstream *g = ARENA_NEW(arena, struct upstream);
    struct server_settings settings = server_defaults;
    struct found_servers found = { NULL, 0, 0 };
    /* Each request begins with another one: there is nobody who would remember whose turn it is. */
    unsigned first = count > 1 ? (unsigned) (random_u64() % count) : 0;

    settings.server = name;
    init_group(g, name);
    for (unsigned i = 0; i < count; i++)
        found_address(arena, &found, &settings, &addrs[(first + i) % count], PEERS_NONE);
    servers_complete(arena, g, &found);
    return g;
}

/* The block ---------------------------------------------------------------------------------- */

static const char *set_upstream(struct conf *cf, void *field)
{
    struct http_main *http = conf_http(cf);
    struct str name = str_lower(cf->arena, cf->args[1]);
    struct upstream *g = table_get(&http->upstreams, name);
    const char *error;
    unsigned errors;

    (void) field;
    if (g != NULL && g->level != NULL)
        return conf_error_arg(cf, 1, "duplicate upstream \"%s\"", cf->args[1].ptr);
    if (g == NULL) {
        g = &ARENA_NEW(cf->arena, struct block_object)->group;
        init_group(g, cf->args[1]);
        list_push_back(&upstream_main_of(cf)->groups, &g->link);
        table_put(&http->upstreams, name, g);
    }
    g->name = cf->args[1];
    g->pos = cf->pos;
    g->level = conf_level(cf, CTX_UPSTREAM, g);
    errors = cf->config->errors;
    error = conf_block(cf, g->level);
    if (error != NULL)
        return error;
    /* Where something in the block was at fault already, that may be why it is empty. */
    if (container_of(g, struct block_object, group)->lines.count == 0 && g->zone_spec == NULL
        && g->state.len == 0 && cf->config->errors == errors)
        return conf_error(cf, "no servers are inside upstream");
    return NULL;
}

static const char *set_keepalive(struct conf *cf, void *field)
{
    struct keepalive_conf *k = field;
    uint64_t n;

    if (str_to_u64(cf->args[1], &n) != 0 || n > 1u << 20)
        return conf_error_arg(cf, 1, "invalid value \"%s\" in \"keepalive\" directive",
                              cf->args[1].ptr);
    k->connections = (unsigned) n;
    k->local = cf->nargs == 3;
    if (cf->nargs == 3 && !str_eq(cf->args[2], STR("local")))
        return conf_error_arg(cf, 2, "invalid parameter \"%s\"", cf->args[2].ptr);
    return NULL;
}

/* After the file is read --------------------------------------------------------------------- */

void upstream_build(struct arena *arena, struct upstream *g)
{
    if (g->balancer->build != NULL)
        g->balancer->build(arena, g);
    if (g->sticky != NULL)
        sticky_build(arena, g);
}

/* Whom to ask for names while running. */
static void find_resolver(struct upstream *g, const struct upstream_srv *s, const struct http_main *http)
{
    const struct core_loc *core = level_core(http->level);

    if (s->resolver != NULL) {
        g->resolver = s->resolver;
        g->resolver_instance = s->resolver_instance;
        g->resolver_timeout_ms = s->resolver_timeout_ms;
        return;
    }
    /* An implicit group is that of all who pass requests to the name: the first one that knows a resolver. */
    for (unsigned i = 0; i < g->pass_count && g->level == NULL; i++) {
        const struct core_loc *loc = level_core(g->passes[i]);

        if (loc->resolver != NULL) {
            core = loc;
            break;
        }
    }
    g->resolver = core->resolver;
    g->resolver_instance = core->resolver_instance;
    g->resolver_timeout_ms = core->resolver_timeout_ms;
}

static int upstream_post(struct conf *cf)
{
    struct http_main *http = conf_http(cf);
    struct upstream_main *m;
    int rc = 0;

    if (http == NULL)
        return 0;
    m = upstream_main_of(cf);
    for (struct list *n = m->groups.next; n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);
        const struct level *level = g->level != NULL ? g->level : http->level;
        const struct upstream_srv *s = level_conf(level, STORE_SRV, upstream_slot);

        g->keepalive = s->keepalive;
        g->keepalive_requests = s->keepalive_requests;
        g->keepalive_time_ms = s->keepalive_time_ms;
        g->keepalive_timeout_ms = s->keepalive_timeout_ms;
        find_resolver(g, s, http);
        if (servers_find(cf, g, s) != 0)
            rc = -1;
    }
    return health_configure(cf) != 0 ? -1 : rc;
}

/* Workers ------------------------------------------------------------------------------------ */

static void each_group(const struct config *config, void (*f)(struct upstream *g))
{
    struct http_main *http = config->http;
    struct upstream_main *m = http ? level_conf(http->level, STORE_MAIN, upstream_slot) : NULL;

    if (m == NULL || !m->ready)
        return;
    for (struct list *n = m->groups.next; n != &m->groups; n = n->next)
        f(container_of(n, struct upstream, link));
}

static void start_group(struct upstream *g)
{
    shared_attach(g);
    health_start(g);
    names_start(g);
}

static void drain_group(struct upstream *g)
{
    health_stop(g);
    names_stop(g);
    g->keepalive.connections = 0;
    pool_drain(g);
}

static int upstream_start(const struct config *config)
{
    struct http_main *http = config->http;
    struct upstream_main *m = http ? level_conf(http->level, STORE_MAIN, upstream_slot) : NULL;

    each_group(config, start_group);
    for (struct list *n = m != NULL && m->ready ? m->groups.next : NULL; n != NULL && n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);

        if (g->local != NULL)
            arena_defer(config->arena, shared_free, g);
    }
    return 0;
}

static void upstream_drain(const struct config *config)
{
    each_group(config, drain_group);
}

static void upstream_stop(const struct config *config)
{
    upstream_drain(config);
    each_group(config, queue_stop);
    each_group(config, shared_stop);
    pool_trim();
}

#define SRV_ROW(name_, args_, set_, member_, def_, syntax_, doc_) \
    ROW(name_, CTX_UPSTREAM, args_, set_, STORE_SRV, struct upstream_srv, member_, INHERIT_SCALAR, \
        def_, syntax_, doc_, )

static const struct conf_enum resolve_failures[] = {
    { "warn", RESOLVE_FAILURE_WARN },
    { "emerg", RESOLVE_FAILURE_EMERG },
    { NULL, 0 },
};

static const char *set_resolver(struct conf *cf, void *field)
{
    struct upstream_srv *s = container_of(field, struct upstream_srv, resolver);

    s->resolver_instance = ARENA_NEW(cf->arena, struct resolver *);
    return conf_set_resolver(cf, field);
}

static const struct directive upstream_directives[] = {
    ROW_CALL("upstream", CTX_HTTP, ARGS1 | ARG_BLOCK | ARG_REPEAT, set_upstream, STORE_MAIN,
             "name { ... }", "A group of servers.", ),
    ROW_CALL("server", CTX_UPSTREAM, ARGS1_MORE | ARG_REPEAT, server_set, STORE_SRV,
             "address [weight=number] [max_fails=number] [fail_timeout=time] [max_conns=number] "
             "[slow_start=time] [route=string] [backup] [down] [drain] [resolve] [service=name]",
             "A server of the group.", ),
    ROW_CALL("state", CTX_UPSTREAM, ARGS1, server_set_state, STORE_SRV, "file",
             "Keeps the group's servers, which are changed while they serve, in a file.", ),
    ROW_CALL("zone", CTX_UPSTREAM, ARGS12, shared_set_zone, STORE_SRV, "name [size]",
             "Keeps the group's connections and failures in memory that all workers share.", ),
    ROW_CALL("least_conn", CTX_UPSTREAM, ARGS0, upstream_set_method, STORE_SRV, "",
             "Chooses the server with the fewest connections for its weight.",
             .extra = &balancer_least_conn),
    ROW_CALL("ip_hash", CTX_UPSTREAM, ARGS0, upstream_set_method, STORE_SRV, "",
             "Chooses by the client's address: IPv4 without its last number, IPv6 as a whole.",
             .extra = &balancer_ip_hash),
    ROW_CALL("hash", CTX_UPSTREAM, ARGS123, upstream_set_hash, STORE_SRV,
             "key [consistent [bounded_load=factor]]",
             "Chooses by a key; consistent: few keys move when servers come or go.", ),
    ROW_CALL("maglev", CTX_UPSTREAM, ARGS1, upstream_set_hash, STORE_SRV, "key",
             "Chooses by a key from a table in which each server has its share, and of which little "
             "moves when servers come or go.", ),
    ROW_CALL("random", CTX_UPSTREAM, ARGS0 | ARGS12, upstream_set_random, STORE_SRV,
             "[two [least_conn | least_time=header | least_time=last_byte]]",
             "Chooses at random by weight; two: the better of two so chosen.", ),
    ROW_CALL("least_time", CTX_UPSTREAM, ARGS12, upstream_set_least_time, STORE_SRV,
             "header | last_byte [inflight]",
             "Chooses the server that answers soonest, by the average of its times and its connections; "
             "inflight: without effect, for what is under way counts always.", ),
    ROW_CALL("queue", CTX_UPSTREAM, ARGS12, queue_set, STORE_SRV, "number [timeout=time]",
             "How many requests of a worker wait for a server with max_conns to come free.", ),
    ROW_CALL("ntlm", CTX_UPSTREAM, ARGS0, ntlm_set, STORE_SRV, "",
             "Keeps a connection for the client that authenticated over it by NTLM or Negotiate.", ),
    ROW_CALL("sticky", CTX_UPSTREAM, ARGS1_MORE, sticky_set, STORE_SRV,
             "cookie name [expires=time] [domain=domain] [httponly] [samesite=strict | lax | none | $variable] "
             "[secure] [path=path] | route $variable ... | learn create=$variable lookup=$variable "
             "zone=name:size [timeout=time] [header]",
             "Sends the requests of one client to one server.", ),
    ROW_CALL("health_check", CTX_LOCATION, ARGS_ANY | ARG_REPEAT, health_set_check, STORE_LOC,
             "[interval=time] [jitter=time] [fails=number] [passes=number] [uri=uri] "
             "[mandatory [persistent]] [match=name] [port=number] [keepalive_time=time] "
             "[type=http | type=tcp | type=grpc [grpc_service=name] [grpc_status=code]]",
             "Asks the servers of the group that the location passes requests to whether they are well.", ),
    ROW_CALL("match", CTX_HTTP, ARGS1 | ARG_BLOCK | ARG_REPEAT, health_set_match, STORE_MAIN,
             "name { ... }", "Tests that an answer to a health check must pass.", ),
    ROW("resolver", CTX_UPSTREAM, ARGS1_MORE, set_resolver, STORE_SRV, struct upstream_srv, resolver,
        INHERIT_SCALAR, NULL, "address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]",
        "Name servers for the names of this group's servers; http's if there is none here.", ),
    SRV_ROW("resolver_timeout", ARGS1, conf_set_ms, resolver_timeout_ms, "30s", "time",
            "How long they may take to answer."),
    ROW("upstream_resolve_failure", CTX_HTTP | CTX_UPSTREAM, ARGS1, conf_set_enum, STORE_SRV,
        struct upstream_srv, resolve_failure, INHERIT_SCALAR, "warn", "warn | emerg",
        "What becomes of a server whose name does not resolve when the configuration is read: it is "
        "missing until the resolver, if there is one, finds it; or the configuration is refused.",
        .extra = resolve_failures),
    SRV_ROW("keepalive", ARGS12, set_keepalive, keepalive, "32 local", "connections [local]",
            "Idle connections to servers that each worker keeps; local: each for one location."),
    SRV_ROW("keepalive_requests", ARGS1, conf_set_num, keepalive_requests, "1000", "number",
            "Requests over one kept-alive connection."),
    SRV_ROW("keepalive_time", ARGS1, conf_set_ms, keepalive_time_ms, "1h", "time",
            "For how long a kept-alive connection is used."),
    SRV_ROW("keepalive_timeout", ARGS1, conf_set_ms, keepalive_timeout_ms, "60s", "time",
            "How long an idle connection is kept."),
    ROW_END,
};

static const struct http_module upstream_http = { .variables = upstream_variables };

const struct module module_upstream = {
    .name = "upstream",
    .slot = &upstream_slot,
    .conf_size = { sizeof(struct upstream_main), sizeof(struct upstream_srv),
                   sizeof(struct upstream_loc) },
    .directives = upstream_directives,
    .http = &upstream_http,
    .post = upstream_post,
    .worker_start = upstream_start,
    .worker_drain = upstream_drain,
    .worker_stop = upstream_stop,
};
