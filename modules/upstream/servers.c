/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The servers of an upstream block: `server` and its parameters, `state`, and what they come to once the file has been
 * read. A name is resolved through the system then; with `resolve` it is left to the resolver, in the zone (names.c). Where a name does not
 * resolve, and that is to be no more than a warning, and a resolver is known, it is left to that as well, as are names in *_pass.
 */
#include <unistd.h>

#include "modules/upstream/servers.h"

const struct server_settings server_defaults = {
    .weight = 1,
    .record = { .max_fails = 1, .fail_timeout_s = 10 },
};

/* The directives ------------------------------------------------------------------------------ */

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
        return server_number(cf, arg, str_skip(text, 10), 0, INT32_MAX, &p->record.max_fails);
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
    else if (str_starts(text, STR("sid=")) && text.len > 4 && text.len <= 4 + ROUTE_MAX)
        p->route = str_skip(text, 4); /* what others call it */
    else if (str_eq(text, STR("resolve")))
        p->resolve = true;
    else if (str_starts(text, STR("service=")) && text.len == 8)
        return conf_error_arg(cf, arg, "service name is empty");
    else if (str_starts(text, STR("service=")))
        p->service = str_skip(text, 8);
    else
        return invalid_parameter(cf, arg);
    return NULL;
}

/* An address, not a name: nothing is to be resolved. */
static bool is_address(const struct upstream_address *a)
{
    struct addr addr;

    return a->is_unix || addr_parse(&addr, a->host, a->port ? a->port : 1, false) == 0;
}

static const char *check_service(struct conf *cf, const struct server_line *line)
{
    const char *what = NULL;

    if (line->settings.service.len == 0)
        return NULL;
    if (!line->settings.resolve)
        what = "requires \"resolve\" parameter";
    else if (is_address(&line->address))
        what = "requires domain name";
    else if (line->address.has_port)
        what = "may not have port";
    return what ? conf_error_arg(cf, 1, "service upstream \"%s\" %s", cf->args[1].ptr, what) : NULL;
}

const char *server_set(struct conf *cf, void *field)
{
    struct block_object *b = cf->level->object;
    struct server_lines *lines = &b->lines;
    struct server_line line = { .text = cf->args[1], .pos = cf->pos };
    const char *error;

    (void) field;
    if (b->group.state.len > 0 && !b->reading_state)
        return conf_error(cf, "\"server\" is not allowed in an upstream with \"state\"");
    line.settings = server_defaults;
    line.settings.server = cf->args[1];
    for (unsigned i = 2; i < cf->nargs; i++) {
        error = server_parameter(cf, i, &line.settings);
        if (error != NULL)
            return error;
    }
    error = upstream_address_parse(&line.address, cf->args[1], 80);
    if (error != NULL)
        return conf_error_arg(cf, 1, "%s in upstream \"%s\"", error, cf->args[1].ptr);
    error = check_service(cf, &line);
    if (error != NULL)
        return error;
    lines->items =
        arena_grow(cf->arena, lines->items, lines->count, &lines->capacity, sizeof(*lines->items));
    lines->items[lines->count++] = line;
    return NULL;
}

const char *server_set_state(struct conf *cf, void *field)
{
    struct block_object *b = cf->level->object;
    const char *error;

    (void) field;
    if (cf->args[1].len == 0)
        return conf_error_arg(cf, 1, "invalid value \"\" in \"state\" directive");
    if (b->lines.count > 0)
        return conf_error(cf, "\"state\" is not allowed in an upstream with \"server\"");
    b->group.state = conf_path(cf, cf->args[1], false);
    /* Before the first change there is none. */
    if (access(b->group.state.ptr, F_OK) != 0)
        return NULL;
    b->reading_state = true;
    error = conf_read_file(cf, b->group.state);
    b->reading_state = false;
    return error;
}

/* After the file is read ------------------------------------------------------------------------ */

static struct found_server *add_found(struct arena *arena, struct found_servers *found,
                                      const struct server_settings *settings)
{
    found->items =
        arena_grow(arena, found->items, found->count, &found->capacity, sizeof(*found->items));
    found->items[found->count] =
        (struct found_server){ .settings = settings, .parent = PEERS_NONE };
    return &found->items[found->count++];
}

void found_address(struct arena *arena, struct found_servers *found,
                   const struct server_settings *settings, const struct addr *addr, unsigned parent)
{
    struct found_server *f = add_found(arena, found, settings);

    f->addr = *addr;
    f->parent = parent;
}

/* A name for the resolver, and the addresses that it has already. */
static void found_name(struct arena *arena, struct found_servers *found,
                       const struct server_settings *settings, const struct addr *addrs, int n)
{
    unsigned parent = found->count;

    add_found(arena, found, settings)->resolves = true;
    for (int i = 0; i < n; i++)
        found_address(arena, found, settings, &addrs[i], parent);
}

static void complete_peer(struct arena *arena, struct upstream *g, const struct found_server *f)
{
    const struct server_settings *s = f->settings;
    struct peer_record record = s->record;
    struct peer *p = arena_zalloc_line(arena, sizeof(*p));
    unsigned i = g->own.set->count;

    p->addr = f->addr;
    p->name = f->resolves ? STR("") : addr_dup_text(arena, &f->addr, true);
    p->server = s->server;
    p->route = s->route;
    p->service = s->service;
    p->id = shared_peer_id(p);
    p->index = i;
    p->parent = f->parent;
    p->resolves = f->resolves;
    list_init(&p->idle);
    list_init(&p->retired);
    g->peers[i] = p;
    record.weight = s->weight;
    record.state = s->state;
    peers_place(&g->own, i, s->weight, f->resolves ? PEER_GONE | PEER_BACKUP : s->state, &record);
}

void servers_complete(struct arena *arena, struct upstream *g, const struct found_servers *found)
{
    bool slow = false;

    g->peers = ARENA_ARRAY(arena, struct peer *, found->count);
    for (unsigned i = 0; i < found->count; i++)
        slow |= found->items[i].settings->record.slow_start_s > 0;
    peers_init(&g->own, arena_zalloc(arena, peers_size(MAX(found->count, 1))), MAX(found->count, 1),
               slow);
    for (unsigned i = 0; i < found->count; i++)
        complete_peer(arena, g, &found->items[i]);
    peers_recount(&g->own);
    g->own.set->lowered = false;
    g->count = found->count;
    g->view = g->own;
    upstream_build(arena, g);
}

/* A name that the system does not know. 0, or -1: reported. */
static int not_found(struct conf *cf, struct upstream *g, const struct upstream_srv *s,
                     struct conf_pos pos, const char *error, struct str text)
{
    if (s->resolve_failure == RESOLVE_FAILURE_EMERG ||
        str_eq(str_cstr(error), STR("invalid host"))) {
        conf_error_at(cf, pos, "%s in upstream \"%.*s\"", error, STR_ARG(text));
        return -1;
    }
    conf_warn_at(cf, pos, "%s in upstream \"%.*s\"%s", error, STR_ARG(text),
                 g->resolver != NULL ? ", the resolver is asked from now on" : "");
    g->unresolved = text;
    return 0;
}

/* One server. 0, or -1: reported. */
static int find_server(struct conf *cf, struct upstream *g, const struct upstream_srv *s,
                       struct found_servers *found, const struct server_line *line)
{
    const struct upstream_address *a = &line->address;
    const char *error = NULL;
    struct addr one, *addrs = &one;
    int n = 1;

    if (a->is_unix) {
        if (addr_parse(&one, a->host, 0, false) != 0) {
            conf_error_at(cf, line->pos, "invalid unix domain socket path in upstream \"%.*s\"",
                          STR_ARG(line->text));
            return -1;
        }
    } else if (addr_parse(&one, a->host, a->port, false) != 0) {
        /* A line of a state file stays one: it is written again. */
        if (line->settings.resolve || (g->state.len > 0 && g->resolver != NULL)) {
            /* Who only explains has a stand-in to show. */
            n = addr_offline ? addr_resolve(cf->arena, a->host, a->port, &addrs, &error) : 0;
            found_name(cf->arena, found, &line->settings, addrs, n);
            return 0;
        }
        n = addr_resolve(cf->arena, a->host, a->port, &addrs, &error);
        if (n < 0 && not_found(cf, g, s, line->pos, error, line->text) != 0)
            return -1;
        /* A name in *_pass follows its records, where there is somebody to ask. */
        if (g->resolver != NULL && (n < 0 || g->level == NULL)) {
            found_name(cf->arena, found, &line->settings, addrs, n);
            return 0;
        }
    }
    for (int i = 0; i < n; i++)
        found_address(cf->arena, found, &line->settings, &addrs[i], PEERS_NONE);
    return 0;
}

static int find_block(struct conf *cf, struct upstream *g, const struct upstream_srv *s,
                      struct found_servers *found)
{
    struct block_object *b = container_of(g, struct block_object, group);
    int rc = 0;

    for (unsigned i = 0; i < b->lines.count; i++)
        rc |= find_server(cf, g, s, found, &b->lines.items[i]);
    return rc;
}

static int find_implicit(struct conf *cf, struct upstream *g, const struct upstream_srv *s,
                         struct found_servers *found)
{
    struct server_line *line = ARENA_NEW(cf->arena, struct server_line);
    struct upstream_address a;

    /* A group's name with a port behind it is not that group, and hardly a host. */
    if (upstream_address_parse(&a, g->name, 0) == NULL && a.has_port &&
        upstream_find(conf_http(cf), a.host) != NULL) {
        conf_error_at(cf, g->pos, "upstream \"%.*s\" may not have port %u", STR_ARG(a.host),
                      a.port);
        return -1;
    }
    if (g->port == 0 && !str_starts(g->host, STR("unix:"))) {
        conf_error_at(cf, g->pos, "no port in upstream \"%.*s\"", STR_ARG(g->name));
        return -1;
    }
    line->settings = server_defaults;
    line->settings.server = line->text = g->name;
    line->pos = g->pos;
    line->address = (struct upstream_address){ .host = g->host,
                                               .port = g->port,
                                               .is_unix = str_starts(g->host, STR("unix:")) };
    return find_server(cf, g, s, found, line);
}

/* Sums are kept in 32 bits, and a group of nothing but backups has nobody to back up. */
static int check_sums(struct conf *cf, const struct upstream *g, const struct found_servers *found)
{
    uint64_t weight = 0;
    unsigned primary = 0;
    bool slow = false;

    for (unsigned i = 0; i < found->count; i++) {
        weight += (uint64_t) found->items[i].settings->weight;
        slow |= found->items[i].settings->record.slow_start_s > 0;
        primary += !(found->items[i].settings->state & PEER_BACKUP);
    }
    if (found->count > 0 && primary == 0 && g->state.len == 0) {
        conf_error_at(cf, g->pos, "no servers are inside upstream");
        return -1;
    }
    if (weight * (slow ? PEERS_SCALE : 1) > PEERS_WEIGHT_MAX) {
        conf_error_at(cf, g->pos,
                      "the weights of the servers in upstream \"%.*s\" add up to more than %d",
                      STR_ARG(g->name), PEERS_WEIGHT_MAX / (slow ? PEERS_SCALE : 1));
        return -1;
    }
    return 0;
}

/* Whether `resolve` was said. */
static bool asks(struct upstream *g)
{
    const struct server_lines *lines = &container_of(g, struct block_object, group)->lines;

    for (unsigned i = 0; i < lines->count; i++) {
        if (lines->items[i].settings.resolve && !is_address(&lines->items[i].address))
            return true;
    }
    return false;
}

/* What a group whose servers change needs. 0, or -1: reported. */
static int check_shared(struct conf *cf, struct upstream *g, const struct found_servers *found)
{
    bool names = false;

    for (unsigned i = 0; i < found->count; i++)
        names |= found->items[i].resolves;
    if (g->state.len > 0 && g->zone_spec == NULL) {
        conf_error_at(cf, g->pos,
                      "\"state\" requires upstream \"%.*s\" to be in shared memory (\"zone\")",
                      STR_ARG(g->name));
        return -1;
    }
    if (!names)
        return 0;
    if (g->zone_spec == NULL && g->level != NULL && asks(g)) {
        conf_error_at(
            cf, g->pos,
            "resolving names at run time requires upstream \"%.*s\" to be in shared memory",
            STR_ARG(g->name));
        return -1;
    }
    if (g->resolver == NULL) {
        conf_error_at(cf, g->pos,
                      "no resolver defined to resolve names at run time in upstream \"%.*s\"",
                      STR_ARG(g->name));
        return -1;
    }
    return g->zone_spec == NULL && !cf->config->explaining ? shared_private_zone(cf, g) : 0;
}

int servers_find(struct conf *cf, struct upstream *g, const struct upstream_srv *s)
{
    struct found_servers found = { NULL, 0, 0 };

    if ((g->level != NULL ? find_block(cf, g, s, &found) : find_implicit(cf, g, s, &found)) != 0 ||
        check_sums(cf, g, &found) != 0 || check_shared(cf, g, &found) != 0)
        return -1;
    servers_complete(cf->arena, g, &found);
    if (g->state.len > 0)
        g->state_hash = state_hash(cf->arena, g);
    return 0;
}
