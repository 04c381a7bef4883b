/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * geo: a variable whose value depends on an address: the client's, or what another variable says, or,
 * behind trusted proxies, what they say in X-Forwarded-For. What is no IP address counts as
 * 255.255.255.255.
 */
#include "core/http/client.h"
#include "core/http/forwarded.h"
#include "modules/http/geo_table.h"

/* configure: switch=http_geo_module default=on */

static unsigned geo_slot;

struct geo {
    const struct var *source; /* NULL: the client's address */
    struct cidr *proxies;
    unsigned proxy_count, proxy_capacity;
    bool recursive, is_volatile, ranges;
    struct geo_table *table;
    uint32_t fallback;        /* of ranges; networks have one of length 0 */
    struct str *values;       /* by number; 0 is the empty one that nobody has given */
    unsigned value_count, value_capacity;
    struct conf_pos pos;
};

/* The address ------------------------------------------------------------------------------------ */

static bool is_trusted(const void *owner, const struct addr *a)
{
    const struct geo *geo = owner;

    for (unsigned i = 0; i < geo->proxy_count; i++) {
        if (cidr_match(&geo->proxies[i], &a->sa))
            return true;
    }
    return false;
}

/* An IP address without a port. */
static bool parse_address(struct addr *a, struct str text)
{
    if (text.len == 0 || text.ptr[0] == '[' || str_casestarts(text, STR("unix:")))
        return false;
    /* "1.2.3.4:80" */
    if (str_chr(text, '.') >= 0 && str_chr(text, ':') >= 0
        && str_rchr(text, ':') == str_chr(text, ':'))
        return false;
    return addr_parse(a, text, 1, false) == 0;
}

/* The one variable whose address has a port behind it, and which is made for this. */
static bool has_port(const struct var *v)
{
    return str_eq(v->name, STR("upstream_last_addr"));
}

static bool find_address(struct eval *e, const struct geo *geo, struct addr *a)
{
    struct req *r = req_of(e);
    struct str text;
    struct addr room;

    if (geo->source == NULL)
        *a = *req_peer(r, &room);
    else if (!var_value(e, geo->source, &text))
        return false;
    else if (has_port(geo->source) ? addr_parse(a, text, 0, false) != 0 || a->sa.sa_family == AF_UNIX
                                   : !parse_address(a, text))
        return false;
    if (geo->proxy_count > 0)
        forwarded_for(&(struct forwarded){ is_trusted, geo, geo->recursive }, &r->in->fields, a);
    return true;
}

/* The number of the value for an address; what is neither IPv4 nor a network's IPv6 is 255.255.255.255. */
static uint32_t look_up(const struct geo *geo, const struct addr *a)
{
    uint32_t v4 = INADDR_NONE, value;

    if (a->sa.sa_family == AF_INET) {
        v4 = ntohl(a->in.sin_addr.s_addr);
    } else if (a->sa.sa_family == AF_INET6) {
        const unsigned char *v6 = a->in6.sin6_addr.s6_addr;

        if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
            v4 = (uint32_t) v6[12] << 24 | (uint32_t) v6[13] << 16 | (uint32_t) v6[14] << 8 | v6[15];
        else if (!geo->ranges)
            return geo_find6(geo->table, v6);
    }
    value = geo_find4(geo->table, v4);
    return value != 0 ? value : geo->fallback;
}

static bool get_geo(struct eval *e, const struct var *v, struct str *out)
{
    const struct geo *geo = (const struct geo *) v->data;
    struct addr a;

    if (!find_address(e, geo, &a))
        a.sa.sa_family = AF_UNSPEC;
    *out = geo->values[look_up(geo, &a)];
    req_trace(req_of(e), geo->pos, "geo makes $%.*s \"%.*s\" of the address", STR_ARG(v->name),
              STR_ARG(*out));
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

struct geo_block {
    struct geo *geo;
    struct geo_builder *builder;
    struct arena *arena;      /* what is needed only while the block is read */
    struct table numbers;     /* text -> its place in geo->values */
    bool filled;              /* there is a network or a range */
};

static uint32_t number_of(struct conf *cf, struct geo_block *block, struct str text)
{
    struct geo *geo = block->geo;
    uintptr_t n = (uintptr_t) table_get(&block->numbers, text);

    if (n != 0)
        return (uint32_t) n;
    geo->values = arena_grow(cf->arena, geo->values, geo->value_count, &geo->value_capacity,
                             sizeof(*geo->values));
    n = geo->value_count++;
    geo->values[n] = str_dup(cf->arena, text);
    table_put(&block->numbers, geo->values[n], (void *) n);
    return (uint32_t) n;
}

/* 0, or a sentence; low bits of the address are warned of and cleared. */
static const char *parse_net(struct conf *cf, unsigned arg, struct cidr *net)
{
    int rc = cidr_parse(net, cf->args[arg]);

    if (rc < 0)
        return conf_error_arg(cf, arg, "invalid network \"%s\"", cf->args[arg].ptr);
    if (rc > 0)
        conf_warn_at(cf, cf->arg_pos[arg], "low address bits of %s are meaningless",
                     cf->args[arg].ptr);
    return NULL;
}

static void add_net(struct conf *cf, struct geo_block *block, const struct cidr *net)
{
    const struct str *values;
    uint32_t old = geo_add_net(block->builder, net, number_of(cf, block, cf->args[1]));

    values = block->geo->values;
    if (old != 0)
        conf_warn_at(cf, cf->pos, "duplicate network \"%s\", value: \"%s\", old value: \"%.*s\"",
                     cf->args[0].ptr, cf->args[1].ptr, STR_ARG(values[old]));
}

static const char *net_line(struct conf *cf, struct geo_block *block)
{
    bool delete = str_eq(cf->args[0], STR("delete"));
    struct cidr net = { .family = AF_INET };
    const char *error;

    block->filled = true;
    if (str_eq(cf->args[0], STR("default"))) {
        add_net(cf, block, &net);
        net.family = AF_INET6;
        add_net(cf, block, &net);
        return NULL;
    }
    if ((error = parse_net(cf, delete, &net)) != NULL)
        return error;
    if (!delete)
        add_net(cf, block, &net);
    else if (!geo_delete_net(block->builder, &net))
        conf_warn_at(cf, cf->pos, "no network \"%s\" to delete", cf->args[1].ptr);
    return NULL;
}

static bool parse_v4(struct str text, uint32_t *out)
{
    struct cidr host;

    if (str_chr(text, '/') >= 0 || cidr_parse(&host, text) != 0 || host.family != AF_INET)
        return false;
    *out = (uint32_t) host.addr[0] << 24 | (uint32_t) host.addr[1] << 16
           | (uint32_t) host.addr[2] << 8 | host.addr[3];
    return true;
}

static const char *range_overlaps(struct conf *cf, struct geo_range other)
{
    return conf_error_arg(
        cf, 0, "range \"%s\" overlaps \"%u.%u.%u.%u-%u.%u.%u.%u\"", cf->args[0].ptr,
        other.first >> 24, other.first >> 16 & 255, other.first >> 8 & 255, other.first & 255,
        other.last >> 24, other.last >> 16 & 255, other.last >> 8 & 255, other.last & 255);
}

static const char *add_range(struct conf *cf, struct geo_block *block, struct geo_range range)
{
    uint32_t old = 0;
    struct geo_range other;

    switch (geo_add_range(block->builder, range, number_of(cf, block, cf->args[1]), &old, &other)) {
    case GEO_RANGE_REPLACED:
        conf_warn_at(cf, cf->pos, "duplicate range \"%s\", value: \"%s\", old value: \"%.*s\"",
                     cf->args[0].ptr, cf->args[1].ptr, STR_ARG(block->geo->values[old]));
        break;
    case GEO_RANGE_OVERLAPS:
        return range_overlaps(cf, other);
    case GEO_RANGE_ADDED:
        break;
    }
    return NULL;
}

static const char *range_line(struct conf *cf, struct geo_block *block)
{
    bool delete = str_eq(cf->args[0], STR("delete"));
    struct str text = cf->args[delete];
    ssize_t dash = str_chr(text, '-');
    struct geo *geo = block->geo;
    struct geo_range range;

    if (str_eq(cf->args[0], STR("default"))) {
        if (geo->fallback != 0)
            conf_warn_at(cf, cf->pos,
                         "duplicate default geo range value: \"%s\", old value: \"%.*s\"",
                         cf->args[1].ptr, STR_ARG(geo->values[geo->fallback]));
        geo->fallback = number_of(cf, block, cf->args[1]);
        return NULL;
    }
    if (dash < 0 || !parse_v4(str_from(text.ptr, (size_t) dash), &range.first)
        || !parse_v4(str_skip(text, (size_t) dash + 1), &range.last) || range.first > range.last)
        return conf_error_arg(cf, delete, "invalid range \"%s\"", text.ptr);
    if (!delete)
        return add_range(cf, block, range);
    if (!geo_delete_range(block->builder, range))
        conf_warn_at(cf, cf->pos, "no address range \"%s\" to delete", text.ptr);
    return NULL;
}

static const char *add_proxy(struct conf *cf, struct geo *geo)
{
    geo->proxies = arena_grow(cf->arena, geo->proxies, geo->proxy_count, &geo->proxy_capacity,
                              sizeof(*geo->proxies));
    return parse_net(cf, 1, &geo->proxies[geo->proxy_count++]);
}

static const char *geo_line(struct conf *cf, void *data)
{
    struct geo_block *block = data;
    struct geo *geo = block->geo;

    if (cf->nargs == 1 && str_eq(cf->args[0], STR("ranges"))) {
        if (block->filled)
            return "the \"ranges\" directive must be the first directive inside \"geo\" block";
        geo->ranges = true;
        return NULL;
    }
    if (cf->nargs == 1 && str_eq(cf->args[0], STR("proxy_recursive"))) {
        geo->recursive = true;
        return NULL;
    }
    if (cf->nargs == 1 && str_eq(cf->args[0], STR("volatile"))) {
        geo->is_volatile = true;
        return NULL;
    }
    if (cf->nargs != 2)
        return "invalid number of the geo parameters";
    if (str_eq(cf->args[0], STR("proxy")))
        return add_proxy(cf, geo);
    return geo->ranges ? range_line(cf, block) : net_line(cf, block);
}

static const char *read_block(struct conf *cf, struct geo *geo)
{
    struct geo_block block = { .geo = geo, .arena = arena_new_large() };
    const char *error;

    table_init(&block.numbers, block.arena);
    block.builder = geo_builder_new(block.arena);
    geo->values = arena_grow(cf->arena, NULL, 0, &geo->value_capacity, sizeof(*geo->values));
    geo->values[geo->value_count++] = STR("");
    error = conf_lines(cf, geo_line, &block);
    geo->table = geo_table_new(block.builder, cf->arena);
    arena_destroy(block.arena);
    return error;
}

static const char *set_geo(struct conf *cf, void *field)
{
    struct geo *geo = ARENA_NEW(cf->arena, struct geo);
    struct str source = cf->args[1];
    const char *error;
    struct var *v;

    (void) field;
    geo->pos = cf->pos;
    if (cf->nargs == 3) {
        if (source.len < 2 || source.ptr[0] != '$')
            return conf_error_arg(cf, 1, "invalid variable name \"%s\"", source.ptr);
        geo->source = var_refer(cf, conf_var_space(cf), str_skip(source, 1));
    }
    error = conf_define_var(cf, cf->nargs - 1, get_geo, geo, &v);
    if (error != NULL)
        return error;
    error = read_block(cf, geo);
    if (geo->is_volatile)
        v->flags |= VAR_FRESH;
    return error;
}

static const struct directive directives[] = {
    ROW_CALL("geo", CTX_HTTP, ARGS12 | ARG_BLOCK | ARG_REPEAT, set_geo, STORE_MAIN,
             "[$address] $variable { ... }", "A variable whose value depends on an address."),
    ROW_END,
};

static const struct http_module http_geo = { .variables = NULL };

const struct module module_http_geo = {
    .name = "http_geo",
    .slot = &geo_slot,
    .directives = directives,
    .http = &http_geo,
};
