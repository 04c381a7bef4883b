/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups of servers: the `upstream` block, implicit groups of literal addresses, and one-request
 * groups of names resolved at run time. Names in the file are resolved through the system once it
 * has been read. Choosing among the servers is the balancer's (balance.c), connections are
 * pool.c's.
 */
#include "modules/upstream/internal.h"

/* configure: switch=http_upstream_keepalive_module default=always libs=openssl also=http_upstream_module,http_upstream_zone_module,http_upstream_sticky_module,http_upstream_hash_module,http_upstream_ip_hash_module,http_upstream_least_conn_module,http_upstream_random_module,http_upstream_hc_module */

#define ROUTE_MAX 32 /* bytes, as in nginx */

unsigned upstream_slot;

/* Settings of a block that are rows. */
struct upstream_srv {
    struct keepalive_conf keepalive;
    int64_t keepalive_requests;
    uint64_t keepalive_time_ms, keepalive_timeout_ms;
};

/* What `server` says besides the address. */
struct server_settings {
    struct str server, route;
    int32_t weight;
    uint32_t state; /* PEER_DOWN, PEER_DRAIN, PEER_BACKUP */
    struct peer_record record;
};

static const struct server_settings default_settings = {
    .weight = 1, .record = { .max_fails = 1, .fail_timeout_s = 10 },
};

struct server_line {
    struct upstream_address address;
    struct str text;
    struct conf_pos pos;
    struct server_settings settings;
};

struct server_lines {
    struct server_line *items;
    unsigned count, capacity;
};

/* A block's object while the file is read. */
struct block_object {
    struct upstream group; /* first */
    struct server_lines lines;
};

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

/* An address found, not yet in the group. */
struct found_peer {
    struct addr addr;
    const struct server_settings *settings;
};

struct found_peers {
    struct found_peer *items;
    unsigned count, capacity;
};

static void add_found(struct arena *arena, struct found_peers *found,
                      const struct server_settings *settings, const struct addr *addr)
{
    found->items = arena_grow(arena, found->items, found->count, &found->capacity,
                              sizeof(*found->items));
    found->items[found->count++] = (struct found_peer){ .addr = *addr, .settings = settings };
}

/* Adds the peers of one server. NULL or a sentence. */
static const char *resolve_server(struct conf *cf, struct found_peers *found, struct str host,
                                  unsigned port, bool is_unix,
                                  const struct server_settings *settings)
{
    struct addr one, *addrs = &one;
    const char *error = NULL;
    int n = 1;

    if (is_unix) {
        if (addr_parse(&one, host, 0, false) != 0)
            return "invalid unix domain socket path";
    } else if (addr_parse(&one, host, port, false) != 0) {
        n = addr_resolve(cf->arena, host, port, &addrs, &error);
        if (n < 0)
            return error;
    }
    for (int i = 0; i < n; i++)
        add_found(cf->arena, found, settings, &addrs[i]);
    return NULL;
}

/* The group's servers, and the numbers that choices are made from. */
static void complete_group(struct arena *arena, struct upstream *g, const struct found_peers *found)
{
    bool slow = false;

    g->count = found->count;
    g->peers = ARENA_ARRAY(arena, struct peer, g->count);
    for (unsigned i = 0; i < found->count; i++)
        slow |= found->items[i].settings->record.slow_start_s > 0;
    peers_init(&g->own, arena_zalloc(arena, peers_size(g->count)), g->count, slow);
    for (unsigned i = 0; i < g->count; i++) {
        const struct found_peer *f = &found->items[i];
        const struct server_settings *s = f->settings;
        struct peer *p = &g->peers[i];

        p->addr = f->addr;
        p->name = addr_dup_text(arena, &f->addr, true);
        p->server = s->server;
        p->route = s->route;
        p->id = shared_peer_id(p);
        p->index = peers_add(&g->own, s->weight, s->state, &s->record);
        list_init(&p->idle);
    }
    g->view = g->own;
    if (g->balancer->build != NULL)
        g->balancer->build(arena, g);
    if (g->sticky != NULL)
        sticky_build(arena, g);
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
    if (g != NULL)
        return g;
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
}

struct upstream *upstream_temporary(struct arena *arena, struct str name, const struct addr *addrs,
                                    unsigned count)
{
    struct upstream *g = ARENA_NEW(arena, struct upstream);
    struct server_settings settings = default_settings;
    struct found_peers found = { NULL, 0, 0 };

    settings.server = name;
    init_group(g, name);
    for (unsigned i = 0; i < count; i++)
        add_found(arena, &found, &settings, &addrs[i]);
    complete_group(arena, g, &found);
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
    if (container_of(g, struct block_object, group)->lines.count == 0
        && cf->config->errors == errors)
        return conf_error(cf, "no servers are inside upstream");
    return NULL;
}

static const char *invalid_parameter(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid parameter \"%s\"", cf->args[arg].ptr);
}

static const char *server_number(struct conf *cf, unsigned arg, struct str text, uint64_t min,
                                 uint64_t max, int64_t *out)
{
    uint64_t n;

    if (str_to_u64(text, &n) != 0 || n < min || n > max)
        return invalid_parameter(cf, arg);
    *out = (int64_t) n;
    return NULL;
}

/* Parameters of `server` that are not there yet: an error that says so beats a silent loss. */
static bool not_yet(struct str p)
{
    static const char *const names[] = { "resolve", "service=", "sid=" };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (str_starts(p, str_cstr(names[i])))
            return true;
    }
    return false;
}

/* Methods that go by a number know neither backups nor weights that change. */
static const char *unsupported(struct conf *cf, unsigned arg)
{
    const struct upstream *g = cf->level->object;

    if (!g->balancer->fixed)
        return NULL;
    return conf_error_arg(cf, arg, "balancing method does not support parameter \"%s\"",
                          cf->args[arg].ptr);
}

static const char *server_parameter(struct conf *cf, unsigned arg, struct server_settings *p)
{
    struct str text = cf->args[arg];
    uint64_t ms;
    int64_t n = 0;

    if (str_starts(text, STR("weight="))) {
        const char *error = server_number(cf, arg, str_skip(text, 7), 1, PEER_WEIGHT_MAX, &n);

        if (error == NULL)
            p->weight = (int32_t) n;
        return error;
    }
    if (str_starts(text, STR("max_fails=")))
        return server_number(cf, arg, str_skip(text, 10), 0, INT32_MAX,
                             &p->record.max_fails);
    if (str_starts(text, STR("max_conns="))) {
        const char *error = server_number(cf, arg, str_skip(text, 10), 0, INT32_MAX, &n);

        if (error == NULL)
            p->record.max_conns = (uint32_t) n;
        return error;
    }
    if (str_starts(text, STR("fail_timeout="))) {
        if (str_to_ms(str_skip(text, 13), true, &ms) != 0)
            return invalid_parameter(cf, arg);
        p->record.fail_timeout_s = ms / 1000;
        return NULL;
    }
    if (str_starts(text, STR("slow_start="))) {
        if (str_to_ms(str_skip(text, 11), true, &ms) != 0)
            return invalid_parameter(cf, arg);
        p->record.slow_start_s = ms / 1000;
        return unsupported(cf, arg);
    }
    if (str_eq(text, STR("backup")) && unsupported(cf, arg) != NULL)
        return unsupported(cf, arg);
    if (str_eq(text, STR("backup")))
        p->state |= PEER_BACKUP;
    else if (str_eq(text, STR("down")))
        p->state |= PEER_DOWN;
    else if (str_eq(text, STR("drain")))
        p->state |= PEER_DRAIN;
    else if (str_starts(text, STR("route=")) && text.len > 6 && text.len <= 6 + ROUTE_MAX)
        p->route = str_skip(text, 6);
    else if (not_yet(text))
        return conf_error_arg(cf, arg, "parameter \"%s\" is not supported yet", text.ptr);
    else
        return invalid_parameter(cf, arg);
    return NULL;
}

static const char *set_server(struct conf *cf, void *field)
{
    struct block_object *b = cf->level->object;
    struct server_lines *lines = &b->lines;
    struct server_line line = { .text = cf->args[1], .pos = cf->pos };
    const char *error;

    (void) field;
    line.settings = default_settings;
    line.settings.server = cf->args[1];
    for (unsigned i = 2; i < cf->nargs; i++) {
        error = server_parameter(cf, i, &line.settings);
        if (error != NULL)
            return error;
    }
    error = upstream_address_parse(&line.address, cf->args[1], 80);
    if (error != NULL)
        return conf_error_arg(cf, 1, "%s in upstream \"%s\"", error, cf->args[1].ptr);
    lines->items = arena_grow(cf->arena, lines->items, lines->count, &lines->capacity,
                              sizeof(*lines->items));
    lines->items[lines->count++] = line;
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
        return invalid_parameter(cf, 2);
    return NULL;
}

/* After the file is read --------------------------------------------------------------------- */

static int resolve_block(struct conf *cf, struct upstream *g, struct found_peers *found)
{
    struct block_object *b = container_of(g, struct block_object, group);
    int rc = 0;

    for (unsigned i = 0; i < b->lines.count; i++) {
        struct server_line *line = &b->lines.items[i];
        const char *error = resolve_server(cf, found, line->address.host, line->address.port,
                                           line->address.is_unix, &line->settings);

        if (error != NULL) {
            conf_error_at(cf, line->pos, "%s in upstream \"%.*s\"", error, STR_ARG(line->text));
            rc = -1;
        }
    }
    return rc;
}

static int resolve_implicit(struct conf *cf, struct upstream *g, struct found_peers *found)
{
    struct server_settings *settings = ARENA_NEW(cf->arena, struct server_settings);
    struct upstream_address a;
    const char *error;

    /* A group's name with a port behind it is not that group, and hardly a host. */
    if (upstream_address_parse(&a, g->name, 0) == NULL && a.has_port
        && upstream_find(conf_http(cf), a.host) != NULL) {
        conf_error_at(cf, g->pos, "upstream \"%.*s\" may not have port %u", STR_ARG(a.host),
                      a.port);
        return -1;
    }
    if (g->port == 0 && !str_starts(g->host, STR("unix:"))) {
        conf_error_at(cf, g->pos, "no port in upstream \"%.*s\"", STR_ARG(g->name));
        return -1;
    }
    *settings = default_settings;
    settings->server = g->name;
    error = resolve_server(cf, found, g->host, g->port, str_starts(g->host, STR("unix:")), settings);
    if (error != NULL) {
        conf_error_at(cf, g->pos, "%s in upstream \"%.*s\"", error, STR_ARG(g->name));
        return -1;
    }
    return 0;
}

/* Sums are kept in 32 bits, and a group of nothing but backups has nobody to back up. */
static int check_group(struct conf *cf, const struct upstream *g, const struct found_peers *found)
{
    uint64_t weight = 0;
    unsigned primary = 0;
    bool slow = false;

    for (unsigned i = 0; i < found->count; i++) {
        weight += (uint64_t) found->items[i].settings->weight;
        slow |= found->items[i].settings->record.slow_start_s > 0;
        primary += !(found->items[i].settings->state & PEER_BACKUP);
    }
    if (found->count > 0 && primary == 0) {
        conf_error_at(cf, g->pos, "no servers are inside upstream");
        return -1;
    }
    if (weight * (slow ? PEERS_SCALE : 1) > PEERS_WEIGHT_MAX) {
        conf_error_at(cf, g->pos, "the weights of the servers in upstream \"%.*s\" add up to more than %d",
                      STR_ARG(g->name), PEERS_WEIGHT_MAX / (slow ? PEERS_SCALE : 1));
        return -1;
    }
    return 0;
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

        struct found_peers found = { NULL, 0, 0 };

        if ((g->level != NULL ? resolve_block(cf, g, &found) : resolve_implicit(cf, g, &found)) != 0
            || check_group(cf, g, &found) != 0) {
            rc = -1;
            continue;
        }
        complete_group(cf->arena, g, &found);
        g->keepalive = s->keepalive;
        g->keepalive_requests = s->keepalive_requests;
        g->keepalive_time_ms = s->keepalive_time_ms;
        g->keepalive_timeout_ms = s->keepalive_timeout_ms;
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
}

static void drain_group(struct upstream *g)
{
    health_stop(g);
    g->keepalive.connections = 0;
    pool_drain(g);
}

static int upstream_start(const struct config *config)
{
    each_group(config, start_group);
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
    pool_trim();
}

#define SRV_ROW(name_, args_, set_, member_, def_, syntax_, doc_) \
    ROW(name_, CTX_UPSTREAM, args_, set_, STORE_SRV, struct upstream_srv, member_, INHERIT_SCALAR, \
        def_, syntax_, doc_, )

static const struct directive upstream_directives[] = {
    ROW_CALL("upstream", CTX_HTTP, ARGS1 | ARG_BLOCK | ARG_REPEAT, set_upstream, STORE_MAIN,
             "name { ... }", "A group of servers.", ),
    ROW_CALL("server", CTX_UPSTREAM, ARGS1_MORE | ARG_REPEAT, set_server, STORE_SRV,
             "address [weight=number] [max_fails=number] [fail_timeout=time] [max_conns=number] "
             "[slow_start=time] [route=string] [backup] [down] [drain]", "A server of the group.", ),
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
    ROW_CALL("sticky", CTX_UPSTREAM, ARGS1_MORE, sticky_set, STORE_SRV,
             "cookie name [expires=time] [domain=domain] [httponly] [samesite=strict | lax | none | $variable] "
             "[secure] [path=path] | route $variable ... | learn create=$variable lookup=$variable "
             "zone=name:size [timeout=time] [header]",
             "Sends the requests of one client to one server.", ),
    ROW_CALL("health_check", CTX_LOCATION, ARGS_ANY | ARG_REPEAT, health_set_check, STORE_LOC,
             "[interval=time] [jitter=time] [fails=number] [passes=number] [uri=uri] "
             "[mandatory [persistent]] [match=name] [port=number] [keepalive_time=time] "
             "[type=http | type=tcp]",
             "Asks the servers of the group that the location passes requests to whether they are well.", ),
    ROW_CALL("match", CTX_HTTP, ARGS1 | ARG_BLOCK | ARG_REPEAT, health_set_match, STORE_MAIN,
             "name { ... }", "Tests that an answer to a health check must pass.", ),
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
