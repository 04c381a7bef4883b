/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups of servers: the `upstream` block, implicit groups of literal addresses, and one-request
 * groups of names resolved at run time. Names in the file are resolved through the system once it
 * has been read. Choosing among the servers is the balancer's (balance.c), connections are
 * pool.c's.
 */
#include "modules/upstream/internal.h"

/* configure: switch=http_upstream_keepalive_module default=always also=http_upstream_module */

unsigned upstream_slot;

/* Settings of a block that are rows. */
struct upstream_srv {
    struct keepalive_conf keepalive;
    int64_t keepalive_requests;
    uint64_t keepalive_time_ms, keepalive_timeout_ms;
};

/* All groups of a configuration, and the servers that stand in the blocks. */
struct upstream_main {
    struct list groups;
    bool ready;
};

struct server_line {
    struct upstream_address address;
    struct str text;
    struct conf_pos pos;
    struct peer settings;
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

static struct peer *add_peer(struct arena *arena, struct upstream *g, const struct peer *settings,
                             const struct addr *addr)
{
    struct peer *p;

    g->peers = arena_grow(arena, g->peers, g->count, &g->capacity, sizeof(*g->peers));
    p = &g->peers[g->count++];
    *p = *settings;
    p->addr = *addr;
    p->name = addr_dup_text(arena, addr, true);
    return p;
}

/* Adds the peers of one server. NULL or a sentence. */
static const char *resolve_server(struct conf *cf, struct upstream *g, struct str host,
                                  unsigned port, bool is_unix, const struct peer *settings)
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
        add_peer(cf->arena, g, settings, &addrs[i]);
    return NULL;
}

/* Primary servers first, states allotted, sums made. */
static void complete_group(struct arena *arena, struct upstream *g)
{
    struct peer *sorted = ARENA_ARRAY(arena, struct peer, g->count);
    unsigned n = 0;

    for (int backup = 0; backup < 2; backup++) {
        for (unsigned i = 0; i < g->count; i++) {
            if (g->peers[i].backup == (backup == 1))
                sorted[n++] = g->peers[i];
        }
        if (backup == 0)
            g->primary = n;
    }
    g->peers = sorted;
    g->states = ARENA_ARRAY(arena, struct peer_state, g->count);
    for (unsigned i = 0; i < g->count; i++) {
        struct peer *p = &g->peers[i];

        p->state = &g->states[i];
        p->state->effective_weight = p->weight;
        list_init(&p->idle);
        g->weighted |= p->weight != 1;
        if (i < g->primary) {
            g->live += !p->down;
            g->weight += p->weight;
        } else {
            g->live_backup += !p->down;
            g->weight_backup += p->weight;
        }
    }
}

/* Groups ------------------------------------------------------------------------------------- */

static struct upstream_main *main_of(struct conf *cf)
{
    struct upstream_main *m = conf_own(cf, conf_http(cf)->level, &module_upstream, STORE_MAIN);

    if (!m->ready) {
        list_init(&m->groups);
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
    list_push_back(&main_of(cf)->groups, &g->link);
    table_put(&http->upstreams, name, g);
    return g;
}

struct upstream *upstream_temporary(struct arena *arena, struct str name, const struct addr *addrs,
                                    unsigned count)
{
    struct upstream *g = ARENA_NEW(arena, struct upstream);
    struct peer settings = { .server = name, .weight = 1, .max_fails = 1, .fail_timeout_s = 10 };

    init_group(g, name);
    for (unsigned i = 0; i < count; i++)
        add_peer(arena, g, &settings, &addrs[i]);
    complete_group(arena, g);
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
        list_push_back(&main_of(cf)->groups, &g->link);
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
                                 int64_t *out)
{
    uint64_t n;

    if (str_to_u64(text, &n) != 0 || n < min || n > INT32_MAX)
        return invalid_parameter(cf, arg);
    *out = (int64_t) n;
    return NULL;
}

/* Parameters of `server` that are not there yet: an error that says so beats a silent loss. */
static bool not_yet(struct str p)
{
    static const char *const names[] = { "resolve", "service=", "slow_start=", "route=", "drain",
                                         "sid=" };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (str_starts(p, str_cstr(names[i])))
            return true;
    }
    return false;
}

static const char *server_parameter(struct conf *cf, unsigned arg, struct peer *p)
{
    struct str text = cf->args[arg];
    uint64_t ms;
    int64_t n = 0;

    if (str_starts(text, STR("weight=")))
        return server_number(cf, arg, str_skip(text, 7), 1, &p->weight);
    if (str_starts(text, STR("max_fails=")))
        return server_number(cf, arg, str_skip(text, 10), 0, &p->max_fails);
    if (str_starts(text, STR("max_conns="))) {
        const char *error = server_number(cf, arg, str_skip(text, 10), 0, &n);

        if (error == NULL)
            p->max_conns = (uint32_t) n;
        return error;
    }
    if (str_starts(text, STR("fail_timeout="))) {
        if (str_to_ms(str_skip(text, 13), true, &ms) != 0)
            return invalid_parameter(cf, arg);
        p->fail_timeout_s = ms / 1000;
        return NULL;
    }
    if (str_eq(text, STR("backup")))
        p->backup = true;
    else if (str_eq(text, STR("down")))
        p->down = true;
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
    line.settings = (struct peer){ .server = cf->args[1], .weight = 1, .max_fails = 1,
                                   .fail_timeout_s = 10 };
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

static const char *set_zone(struct conf *cf, void *field)
{
    (void) field;
    return conf_error(cf, "\"zone\" in upstream is not supported yet");
}

/* After the file is read --------------------------------------------------------------------- */

static int resolve_block(struct conf *cf, struct upstream *g)
{
    struct block_object *b = container_of(g, struct block_object, group);
    int rc = 0;

    for (unsigned i = 0; i < b->lines.count; i++) {
        struct server_line *line = &b->lines.items[i];
        const char *error = resolve_server(cf, g, line->address.host, line->address.port,
                                           line->address.is_unix, &line->settings);

        if (error != NULL) {
            conf_error_at(cf, line->pos, "%s in upstream \"%.*s\"", error, STR_ARG(line->text));
            rc = -1;
        }
    }
    return rc;
}

static int resolve_implicit(struct conf *cf, struct upstream *g)
{
    struct peer settings = { .server = g->name, .weight = 1, .max_fails = 1, .fail_timeout_s = 10 };
    struct upstream_address a;
    const char *error;

    /* A group's name with a port behind it is not that group, and hardly a host. */
    if (upstream_address_parse(&a, g->name, 0) == NULL && a.has_port
        && upstream_find(conf_http(cf), a.host) != NULL) {
        conf_error_at(cf, g->pos, "upstream \"%.*s\" may not have port %u", STR_ARG(a.host),
                      a.port);
        return -1;
    }
    error = resolve_server(cf, g, g->host, g->port, str_starts(g->host, STR("unix:")), &settings);
    if (error != NULL) {
        conf_error_at(cf, g->pos, "%s in upstream \"%.*s\"", error, STR_ARG(g->name));
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
    m = main_of(cf);
    for (struct list *n = m->groups.next; n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);
        const struct level *level = g->level != NULL ? g->level : http->level;
        const struct upstream_srv *s = level_conf(level, STORE_SRV, upstream_slot);

        if ((g->level != NULL ? resolve_block(cf, g) : resolve_implicit(cf, g)) != 0) {
            rc = -1;
            continue;
        }
        complete_group(cf->arena, g);
        g->keepalive = s->keepalive;
        g->keepalive_requests = s->keepalive_requests;
        g->keepalive_time_ms = s->keepalive_time_ms;
        g->keepalive_timeout_ms = s->keepalive_timeout_ms;
        if (g->count > 0 && g->primary == 0) {
            conf_error_at(cf, g->pos, "no servers are inside upstream");
            rc = -1;
        }
    }
    return rc;
}

/* Workers ------------------------------------------------------------------------------------ */

static void upstream_drain(const struct config *config)
{
    struct http_main *http = config->http;
    struct upstream_main *m;

    if (http == NULL)
        return;
    m = level_conf(http->level, STORE_MAIN, upstream_slot);
    if (m == NULL || !m->ready)
        return;
    for (struct list *n = m->groups.next; n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);

        g->keepalive.connections = 0;
        pool_drain(g);
    }
}

static void upstream_stop(const struct config *config)
{
    upstream_drain(config);
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
             "[backup] [down]", "A server of the group.", ),
    ROW_CALL("zone", CTX_UPSTREAM, ARGS12, set_zone, STORE_SRV, "name [size]",
             "Shares the group's state among workers.", ),
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
    .conf_size = { sizeof(struct upstream_main), sizeof(struct upstream_srv), 0 },
    .directives = upstream_directives,
    .http = &upstream_http,
    .post = upstream_post,
    .worker_drain = upstream_drain,
    .worker_stop = upstream_stop,
};
