/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * auth_request: a subrequest decides. 2xx lets the request in; 401 and 403 are passed on, with the
 * challenges that came along; anything else is an error of the configuration or of the deciding
 * server.
 */
#include "core/http/req.h"

/* configure: switch=http_auth_request_module default=on */

static unsigned auth_request_slot;

struct assignment {
    struct var *var;
    struct expr *value;
};

struct assignments {
    struct assignment *items;
    unsigned count, capacity;
};

struct auth_request_conf {
    struct str uri; /* empty: off */
    struct conf_pos pos;
    struct assignments sets;
};

/* A question that has been asked in this pass. */
struct question {
    struct wait wait;
    struct req *child; /* in the main request's memory: may be looked at after its end */
    bool answered;
};

static void answered(struct req *child, void *data)
{
    struct question *q = data;
    struct req *r = child->parent;

    q->answered = true;
    wait_end(&q->wait);
    req_resume(r);
}

/* The engine ends the child. */
static void cancel(struct wait *w)
{
    (void) w;
}

static enum verdict ask(struct req *r, const struct auth_request_conf *conf)
{
    struct question *q = ARENA_NEW(r->arena, struct question);

    q->child = req_subrequest(r, conf->uri, STR_NULL, SUB_HEAD_ONLY, answered, q);
    if (q->child == NULL)
        return req_status(r, 500);
    req_ctx_set(r, auth_request_slot, q, CTX_PASS);
    wait_begin(r, &q->wait, cancel);
    return V_WAIT;
}

/* Whatever the decision: so they are there in error pages too. */
static void set_variables(struct req *r, struct req *child, const struct assignments *sets)
{
    for (unsigned i = 0; i < sets->count; i++) {
        const struct assignment *a = &sets->items[i];
        struct str value = expr_eval(&child->eval, a->value);

        if (a->var->set != NULL)
            a->var->set(&r->eval, a->var, value);
        else
            var_store(&r->eval, a->var, value);
    }
}

/* The challenges of the child's answer; of its server's, if the answer is an error page instead. */
static void pass_challenges(struct req *r, const struct req *child)
{
    const struct fields *from = &child->out.fields;
    const struct field *f = fields_get(from, T_WWW_AUTHENTICATE);

    if (f == NULL && child->upstream.head != NULL) {
        from = &child->upstream.head->fields;
        f = fields_get(from, T_WWW_AUTHENTICATE);
    }
    for (; f != NULL; f = fields_next(from, f))
        fields_add(&r->out, &r->out.fields, f->name, f->value);
}

static enum verdict auth_request_run(struct req *r)
{
    const struct auth_request_conf *conf = req_loc_conf(r, auth_request_slot);
    const struct question *q = req_ctx(r, auth_request_slot);
    unsigned status;

    if (q == NULL)
        return ask(r, conf);
    if (!q->answered)
        return V_WAIT;
    set_variables(r, q->child, &conf->sets);
    status = q->child->out.status;
    if (status >= 200 && status < 300) {
        req_trace(r, conf->pos, "access granted by \"auth_request %.*s\"", STR_ARG(conf->uri));
        return V_ALLOW;
    }
    if (status != 401 && status != 403) {
        log_error(&r->log, 0, "auth request unexpected status: %u", status);
        return req_status(r, 500);
    }
    if (status == 401)
        pass_challenges(r, q->child);
    req_refused(r, conf->pos, "access refused with %u by \"auth_request %.*s\"", status,
                STR_ARG(conf->uri));
    return req_status(r, status);
}

/* Configuration ------------------------------------------------------------------------------- */

static const char *set_uri(struct conf *cf, void *field)
{
    struct auth_request_conf *conf = container_of(field, struct auth_request_conf, uri);

    conf->uri = str_eq(cf->args[1], STR("off")) ? STR("") : cf->args[1];
    conf->pos = cf->pos;
    return NULL;
}

static bool absent(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    (void) out;
    return false;
}

static const char *set_assignment(struct conf *cf, void *field)
{
    struct assignments *sets = field;
    struct assignment *a;
    struct str name = cf->args[1];
    const char *error = NULL;
    struct var *v;

    if (name.len < 2 || name.ptr[0] != '$')
        return conf_error_arg(cf, 1, "invalid variable name \"%.*s\"", STR_ARG(name));
    name = str_skip(name, 1);
    v = var_define(cf, conf_var_space(cf), name, VAR_CHANGEABLE | VAR_WEAK, &error);
    if (v == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (v->get == NULL && v->set == NULL)
        v->get = absent;
    sets->items = arena_grow(cf->arena, sets->items, sets->count, &sets->capacity,
                             sizeof(*sets->items));
    a = &sets->items[sets->count++];
    a->var = var_refer(cf, conf_var_space(cf), name);
    a->value = expr_compile(cf, cf->args[2], 0, &error);
    return a->value != NULL ? NULL : conf_error_arg(cf, 2, "%s", error);
}

static bool auth_request_wanted(const struct level *level)
{
    const struct auth_request_conf *conf = level_conf(level, STORE_LOC, auth_request_slot);

    return conf->uri.len > 0;
}

enum { GROUP_URI = 1 };

static const struct directive directives[] = {
    ROW("auth_request", CTX_HSL, ARGS1, set_uri, STORE_LOC, struct auth_request_conf, uri,
        INHERIT_SCALAR, "off", "uri | off", "Lets a subrequest to that URI decide on access.",
        .group = GROUP_URI),
    { .name = ".pos", .store = STORE_LOC, .offset = offsetof(struct auth_request_conf, pos),
      .size = sizeof(struct conf_pos), .inherit = INHERIT_SCALAR, .group = GROUP_URI },
    ROW("auth_request_set", CTX_HSL, ARGS2 | ARG_REPEAT, set_assignment, STORE_LOC,
        struct auth_request_conf, sets, INHERIT_WHOLE, NULL, "$variable value",
        "Sets a variable from the answer to the subrequest."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_ACCESS, HOOK_AUTH_REQUEST, auth_request_run, auth_request_wanted },
    HOOK_END,
};

static const struct http_module http_auth_request = { .hooks = hooks };

const struct module module_http_auth_request = {
    .name = "http_auth_request",
    .slot = &auth_request_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct auth_request_conf) },
    .directives = directives,
    .http = &http_auth_request,
};
