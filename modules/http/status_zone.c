/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * status_zone: counts the requests of servers and of locations, over all workers, under a name. A server's are counted
 * from their head on, by its name; a location's when they end, in the location that they end in.
 */
#include "core/http/req.h"
#include "core/http/status.h"

/* configure: switch=http_status_zone_module default=on */

static unsigned status_slot;

struct status_loc {
    struct counter_set *set; /* NULL: none, or "off" */
};

/* Behind ZONE_PROCESSING a location's counters are a server's. */
#define OF_LOCATION(counter) ((counter) -1)

static enum verdict begin_request(struct req *r)
{
    struct counter_set *set = r->server->status;

    if (r != r->main || set == NULL || req_ctx(r, status_slot) != NULL)
        return V_NEXT;
    counters_add(set, ZONE_PROCESSING, 1);
    counters_add(set, ZONE_REQUESTS, 1);
    req_ctx_set(r, status_slot, set, CTX_REQUEST);
    return V_NEXT;
}

static void count_answer(struct counter_set *set, const struct req *r, unsigned first)
{
    unsigned status = r->out.status;

    counters_add(set, first + ZONE_RECEIVED, r->head_bytes + r->body.wire);
    counters_add(set, first + ZONE_SENT, r->sent_bytes);
    if (r->sent_bytes == 0) {
        counters_add(set, first + ZONE_DISCARDED, 1);
        return;
    }
    if (status >= 100 && status < 600)
        counters_add(set, first + ZONE_1XX + status / 100 - 1, 1);
    counters_add(set, first + ZONE_RESPONSES, 1);
    if (status != 0)
        counters_tag(set, status);
}

static enum verdict end_request(struct req *r)
{
    const struct status_loc *loc = req_loc_conf(r, status_slot);
    struct counter_set *set = r->server->status, *begun = req_ctx(r, status_slot);

    if (r != r->main)
        return V_NEXT;
    if (begun != NULL)
        counters_add(begun, ZONE_PROCESSING, (uint64_t) -1);
    else if (set != NULL) /* a head that could not be understood */
        counters_add(set, ZONE_REQUESTS, 1);
    if (set != NULL)
        count_answer(set, r, 0);
    if (loc->set != NULL) {
        counters_add(loc->set, OF_LOCATION(ZONE_REQUESTS), 1);
        count_answer(loc->set, r, OF_LOCATION(0));
    }
    return V_NEXT;
}

static const char *define(struct conf *cf, const struct counter_kind *kind,
                          struct counter_set **set)
{
    struct str name = cf->args[1];

    if (name.len == 0)
        return conf_error_arg(cf, 1, "invalid zone name \"\"");
    if (!str_eq(name, STR("off")))
        *set = counters_define(cf, kind, name);
    return NULL;
}

static const char *set_server_zone(struct conf *cf, void *field)
{
    (void) field;
    return define(cf, &server_zone_kind, &conf_server(cf)->status);
}

static const char *set_location_zone(struct conf *cf, void *field)
{
    return define(cf, &location_zone_kind, &((struct status_loc *) field)->set);
}

static struct server *server_of(const struct level *level)
{
    while (level != NULL && level->context != CTX_SERVER)
        level = level->parent;
    return level != NULL ? level->object : NULL;
}

static bool server_wanted(const struct level *level)
{
    const struct server *s = server_of(level);

    return s != NULL && s->status != NULL;
}

static bool log_wanted(const struct level *level)
{
    const struct status_loc *loc = level_conf(level, STORE_LOC, status_slot);

    return server_wanted(level) || loc->set != NULL;
}

static const struct directive directives[] = {
    ROW_CALL("status_zone", CTX_SERVER, ARGS1, set_server_zone, STORE_LOC, "zone",
             "Counts the server's requests under a name; several servers may share it."),
    ROW("status_zone", CTX_LOCATION | CTX_IF_LOCATION, ARGS1, set_location_zone, STORE_LOC,
        struct status_loc, set, INHERIT_SCALAR, NULL, "zone | off",
        "Counts the requests that end in the location under a name; off: those of nested ones are "
        "not counted."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_POST_READ, 5, begin_request, server_wanted },
    { PHASE_LOG, HOOK_LOG - 10, end_request, log_wanted },
    HOOK_END,
};

static const struct http_module http_status_zone = { .hooks = hooks };

const struct module module_http_status_zone = {
    .name = "http_status_zone",
    .slot = &status_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct status_loc) },
    .directives = directives,
    .http = &http_status_zone,
};
