/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * auth_require: variables decide, those of other access modules among them; so it is asked last.
 * Every value of every line must be neither empty nor "0".
 */
#include "core/http/req.h"

/* configure: switch=http_auth_require_module default=on */

static unsigned require_slot;

struct requirement {
    struct expr_list values;
    unsigned status;
    struct conf_pos pos;
};

struct requirements {
    struct requirement *items;
    unsigned count, capacity;
    bool off;
};

struct require_conf {
    struct requirements list;
};

static bool is_true(struct req *r, struct expr *x)
{
    struct str value = expr_eval(&r->eval, x);

    return value.len > 0 && !str_eq(value, STR("0"));
}

static enum verdict require_run(struct req *r)
{
    const struct require_conf *conf = req_loc_conf(r, require_slot);

    for (unsigned i = 0; i < conf->list.count; i++) {
        const struct requirement *q = &conf->list.items[i];

        for (unsigned k = 0; k < q->values.count; k++) {
            struct str source = expr_source(q->values.items[k]);

            if (is_true(r, q->values.items[k]))
                continue;
            if (r->loc->core->satisfy == SATISFY_ALL)
                log_error(&r->log, 0, "access forbidden by \"auth_require\"");
            req_refused(r, q->pos, "access refused with %u by \"auth_require %.*s\"", q->status,
                        STR_ARG(source));
            return req_status(r, q->status);
        }
    }
    return V_ALLOW;
}

static const char *set_require(struct conf *cf, void *field)
{
    struct requirements *list = field;
    struct requirement *q;
    const char *error = NULL;
    bool has_status = false;

    if (cf->nargs == 2 && str_eq(cf->args[1], STR("off"))) {
        if (list->count > 0)
            return conf_error(cf, "\"auth_require off\" cannot be mixed with other requirements");
        list->off = true;
        return NULL;
    }
    if (list->off)
        return conf_error(cf, "\"auth_require off\" cannot be mixed with other requirements");
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    q = &list->items[list->count++];
    *q = (struct requirement){ .status = 403, .pos = cf->pos };
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str text = cf->args[i];
        uint64_t status;

        if (str_starts(text, STR("error="))) {
            if (has_status || str_to_u64(str_skip(text, 6), &status) != 0 || status < 400
                || status > 599)
                return conf_error_arg(cf, i, "invalid parameter \"%.*s\"", STR_ARG(text));
            has_status = true;
            q->status = (unsigned) status;
            continue;
        }
        q->values.items = arena_grow(cf->arena, q->values.items, q->values.count,
                                     &q->values.capacity, sizeof(*q->values.items));
        q->values.items[q->values.count] = expr_compile(cf, text, 0, &error);
        if (q->values.items[q->values.count++] == NULL)
            return conf_error_arg(cf, i, "%s", error);
    }
    return q->values.count > 0 ? NULL
                               : conf_error(cf, "invalid number of arguments in \"auth_require\" "
                                                "directive");
}

static bool require_wanted(const struct level *level)
{
    const struct require_conf *conf = level_conf(level, STORE_LOC, require_slot);

    return conf->list.count > 0;
}

static const struct directive directives[] = {
    ROW("auth_require", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1_MORE | ARG_REPEAT, set_require, STORE_LOC,
        struct require_conf, list, INHERIT_WHOLE, NULL, "$value ... [error=4xx | 5xx] | off",
        "Lets in only if all values are neither empty nor \"0\"."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_ACCESS, HOOK_AUTH_REQUIRE, require_run, require_wanted },
    HOOK_END,
};

static const struct http_module http_auth_require = { .hooks = hooks };

const struct module module_http_auth_require = {
    .name = "http_auth_require",
    .slot = &require_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct require_conf) },
    .directives = directives,
    .http = &http_auth_require,
};
