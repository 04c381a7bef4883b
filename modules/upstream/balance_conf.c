/* SPDX-License-Identifier: BSD-2-Clause */
/* The directives of an upstream block that say how its servers are chosen. Called by the parser only. */
#include "modules/upstream/internal.h"

static void choose_method(struct conf *cf, const struct balancer *method)
{
    struct upstream *g = cf->level->object;

    if (g->balancer != &balancer_round_robin)
        conf_warn_at(cf, cf->pos, "load balancing method redefined");
    g->balancer = method;
    g->method = (struct balancer_conf){ .key = NULL };
}

static const char *invalid(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid parameter \"%s\"", cf->args[arg].ptr);
}

const char *upstream_set_method(struct conf *cf, void *field)
{
    (void) field;
    choose_method(cf, cf->row->extra);
    return NULL;
}

/* "bounded_load=1.25": how far above its share a server may go. Thousandths are kept. */
static const char *parse_bound(struct conf *cf, unsigned arg, double *bound)
{
    struct str text = cf->args[arg];
    char *end;

    if (!str_starts(text, STR("bounded_load=")))
        return invalid(cf, arg);
    *bound = strtod(text.ptr + sizeof("bounded_load=") - 1, &end);
    if (*end != '\0' || !(*bound >= 1 && *bound <= 1000))
        return conf_error_arg(cf, arg, "invalid factor in \"%s\", it must be 1 .. 1000", text.ptr);
    return NULL;
}

const char *upstream_set_hash(struct conf *cf, void *field)
{
    bool maglev = str_eq(cf->args[0], STR("maglev"));
    struct upstream *g = cf->level->object;
    const char *error = NULL;
    double bound = 0;
    struct expr *key;

    (void) field;
    key = expr_compile(cf, cf->args[1], 0, &error);
    if (key == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (cf->nargs > 2 && !str_eq(cf->args[2], STR("consistent")))
        return invalid(cf, 2);
    if (cf->nargs > 3 && (error = parse_bound(cf, 3, &bound)) != NULL)
        return error;
    choose_method(cf, maglev           ? &balancer_maglev
                      : cf->nargs > 2 ? &balancer_consistent
                                      : &balancer_hash);
    g->method.key = key;
    g->method.bound = bound;
    return NULL;
}

const char *upstream_set_random(struct conf *cf, void *field)
{
    static const struct conf_enum ways[] = {
        { "least_conn", TIME_NONE },
        { "least_time=header", TIME_HEADER },
        { "least_time=last_byte", TIME_LAST_BYTE },
        { NULL, 0 },
    };
    struct upstream *g = cf->level->object;
    struct balancer_conf method = { .two = cf->nargs > 1 };

    (void) field;
    if (cf->nargs > 1 && !str_eq(cf->args[1], STR("two")))
        return invalid(cf, 1);
    if (cf->nargs > 2) {
        const struct conf_enum *way = ways;

        while (way->name != NULL && !str_eq(cf->args[2], str_cstr(way->name)))
            way++;
        if (way->name == NULL)
            return invalid(cf, 2);
        method.time = (enum peer_time) way->value;
    }
    choose_method(cf, &balancer_random);
    g->method = method;
    return NULL;
}

const char *upstream_set_least_time(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;
    enum peer_time time = TIME_HEADER;

    (void) field;
    if (str_eq(cf->args[1], STR("last_byte")))
        time = TIME_LAST_BYTE;
    else if (!str_eq(cf->args[1], STR("header")))
        return invalid(cf, 1);
    /* What is under way counts in any case, by the connections. */
    if (cf->nargs > 2 && !str_eq(cf->args[2], STR("inflight")))
        return invalid(cf, 2);
    choose_method(cf, &balancer_least_time);
    g->method.time = time;
    return NULL;
}
