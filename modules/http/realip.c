/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * realip: behind a trusted proxy the client's address is the one that the proxy names, in a field
 * or in a PROXY header. It belongs to the request: the next one on the connection begins with the
 * socket's peer again. Runs when the head has been read, with the server's settings, and again
 * with the location's; the first replacement stays.
 */
#include "core/http/client.h"
#include "core/http/forwarded.h"

/* configure: switch=http_realip_module default=on */

static unsigned realip_slot;

struct trusted {
    bool is_unix;
    struct cidr net;
};

struct trusted_list {
    struct trusted *items;
    unsigned count, capacity;
};

enum source { FROM_FIELD, FROM_FORWARDED, FROM_PROXY_PROTOCOL };

struct realip_conf {
    struct trusted_list from;
    enum source source;
    struct str field;
    bool recursive;
};

static bool is_trusted(const void *owner, const struct addr *a)
{
    const struct trusted_list *from = owner;

    for (unsigned i = 0; i < from->count; i++) {
        const struct trusted *t = &from->items[i];

        if (t->is_unix ? a->sa.sa_family == AF_UNIX
                       : a->sa.sa_family != AF_UNIX && cidr_match(&t->net, &a->sa))
            return true;
    }
    return false;
}

static bool search(struct req *r, const struct realip_conf *conf, struct addr *a)
{
    const struct client_extra *x = r->client->extra;
    struct forwarded how = { is_trusted, &conf->from, conf->recursive };
    const struct field *field;

    switch (conf->source) {
    case FROM_FORWARDED:
        return forwarded_for(&how, &r->in->fields, a);
    case FROM_PROXY_PROTOCOL:
        if (x == NULL || !x->have_proxy || x->proxy_source.sa.sa_family == AF_UNIX
            || !is_trusted(&conf->from, a))
            return false;
        *a = x->proxy_source;
        return true;
    case FROM_FIELD:
        break;
    }
    field = fields_find(&r->in->fields, conf->field);
    return field != NULL && forwarded_in(&how, field->value, a);
}

static enum verdict realip_run(struct req *r)
{
    const struct realip_conf *conf = req_loc_conf(r, realip_slot);
    struct addr a, room, *keep;

    if (conf->from.count == 0 || r->main->realip != NULL)
        return V_NEXT;
    a = *client_socket_peer(r->client, &room);
    if (!search(r, conf, &a))
        return V_NEXT;
    keep = arena_alloc(r->arena, sizeof(*keep));
    *keep = a;
    r->main->realip = keep;
    req_trace(r, req_where(r, "set_real_ip_from"), "set_real_ip_from lets %.*s be the client",
              STR_ARG(addr_dup_text(r->arena, keep, false)));
    return V_NEXT;
}

/* Variables ----------------------------------------------------------------------------------- */

static bool get_addr(struct eval *e, const struct var *v, struct str *out)
{
    struct addr room;

    (void) v;
    *out = addr_dup_text(e->arena, client_socket_peer(req_of(e)->client, &room), false);
    return true;
}

static bool get_port(struct eval *e, const struct var *v, struct str *out)
{
    struct addr room;
    unsigned port = addr_port(client_socket_peer(req_of(e)->client, &room));

    (void) v;
    *out = port > 0 ? str_printf(e->arena, "%u", port) : STR("");
    return true;
}

static const struct var_row variables[] = {
    { "realip_remote_addr", get_addr, NULL, 0, 0 },
    { "realip_remote_port", get_port, NULL, 0, 0 },
    { NULL, NULL, NULL, 0, 0 },
};

/* Configuration ------------------------------------------------------------------------------- */

static struct trusted *add(struct conf *cf, struct trusted_list *from)
{
    from->items = arena_grow(cf->arena, from->items, from->count, &from->capacity,
                             sizeof(*from->items));
    memset(&from->items[from->count], 0, sizeof(*from->items));
    return &from->items[from->count++];
}

/* A name stands for all its addresses at the time of loading. */
static const char *add_host(struct conf *cf, struct trusted_list *from, struct str host)
{
    struct addr *addrs;
    const char *error;
    int n = addr_resolve(cf->arena, host, 0, &addrs, &error);

    if (n < 0)
        return conf_error_arg(cf, 1, "%s in set_real_ip_from \"%.*s\"", error, STR_ARG(host));
    for (int i = 0; i < n; i++) {
        if (cidr_parse(&add(cf, from)->net, addr_dup_text(cf->arena, &addrs[i], false)) < 0)
            from->count--;
    }
    return NULL;
}

static const char *set_from(struct conf *cf, void *field)
{
    struct trusted_list *from = field;
    struct str text = cf->args[1];
    struct cidr net;
    int rc;

    if (str_eq(text, STR("unix:"))) {
        add(cf, from)->is_unix = true;
        return NULL;
    }
    rc = cidr_parse(&net, text);
    if (rc < 0)
        return add_host(cf, from, text);
    if (rc > 0)
        conf_warn_at(cf, cf->arg_pos[1], "low address bits of %.*s are meaningless",
                     STR_ARG(text));
    add(cf, from)->net = net;
    return NULL;
}

static const char *set_header(struct conf *cf, void *field)
{
    struct realip_conf *conf = container_of(field, struct realip_conf, source);
    struct str name = cf->args[1];

    if (str_eq(name, STR("proxy_protocol")))
        conf->source = FROM_PROXY_PROTOCOL;
    else if (str_eq(name, STR("X-Forwarded-For")))
        conf->source = FROM_FORWARDED;
    else
        conf->source = FROM_FIELD;
    conf->field = name;
    return NULL;
}

static bool realip_wanted(const struct level *level)
{
    const struct realip_conf *conf = level_conf(level, STORE_LOC, realip_slot);

    return conf->from.count > 0;
}

enum { GROUP_HEADER = 1 };

static const struct directive directives[] = {
    ROW("set_real_ip_from", CTX_HSL, ARGS1 | ARG_REPEAT, set_from, STORE_LOC, struct realip_conf,
        from, INHERIT_WHOLE, NULL, "address | CIDR | unix:",
        "Addresses that are trusted to name the client's address."),
    ROW("real_ip_header", CTX_HSL, ARGS1, set_header, STORE_LOC, struct realip_conf, source,
        INHERIT_SCALAR, "X-Real-IP", "field | X-Real-IP | X-Forwarded-For | proxy_protocol",
        "The field that holds the client's address.", .group = GROUP_HEADER),
    { .name = ".field", .store = STORE_LOC, .offset = offsetof(struct realip_conf, field),
      .size = sizeof(struct str), .inherit = INHERIT_SCALAR, .group = GROUP_HEADER },
    ROW("real_ip_recursive", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct realip_conf,
        recursive, INHERIT_SCALAR, "off", "on | off",
        "Whether trusted addresses in the field are passed over too."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_POST_READ, HOOK_REALIP, realip_run, realip_wanted },
    { PHASE_PREACCESS, HOOK_REALIP, realip_run, realip_wanted },
    HOOK_END,
};

static const struct http_module http_realip = { .variables = variables, .hooks = hooks };

const struct module module_http_realip = {
    .name = "http_realip",
    .slot = &realip_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct realip_conf) },
    .directives = directives,
    .http = &http_realip,
};
