/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The blocks of HTTP's configuration: http, server, location, limit_except (and `if` for the
 * rewrite module), and what is computed once all is read: which hooks and filters run in each
 * location, the search structures, and the check of variables.
 */
#include "core/http/http_config.h"

#include "core/http/client.h"

static unsigned http_slot;

struct http_main *config_http(const struct config *config)
{
    return config->http;
}

struct core_loc *level_core(const struct level *level)
{
    return level_conf(level, STORE_LOC, http_slot);
}

static struct core_srv *level_core_srv(const struct level *level)
{
    return level_conf(level, STORE_SRV, http_slot);
}

/* Blocks ------------------------------------------------------------------------------------ */

const char *set_http_block(struct conf *cf, void *field)
{
    struct http_main *http = ARENA_NEW(cf->arena, struct http_main);

    (void) field;
    http->config = cf->config;
    cf->config->http = http;
    http->level = conf_level(cf, CTX_HTTP, http);
    list_init(&http->listens);
    table_init(&http->upstreams, cf->arena);
    var_space_init(&http->vars, cf->arena);
    http->level->vars = &http->vars;
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->http != NULL && modules[i]->http->variables != NULL)
            var_space_rows(&http->vars, modules[i]->http->variables);
        if (modules[i]->http != NULL && modules[i]->http->tls != NULL)
            http->tls = modules[i]->http->tls;
    }
    return conf_block(cf, http->level);
}

static struct location *location_new(struct conf *cf, enum location_kind kind, struct server *server,
                                     struct location *parent)
{
    struct location *loc = ARENA_NEW(cf->arena, struct location);

    loc->kind = kind;
    loc->server = server;
    loc->parent = parent;
    loc->pos = cf->pos;
    return loc;
}

const char *set_server_block(struct conf *cf, void *field)
{
    struct http_main *http = conf_http(cf);
    struct server *server = ARENA_NEW(cf->arena, struct server);
    const char *error;

    (void) field;
    server->http = http;
    server->config = cf->config;
    server->pos = cf->pos;
    server->root = location_new(cf, LOC_SERVER, server, NULL);
    server->level = conf_level(cf, CTX_SERVER, server);
    server->root->level = server->level;
    http->servers = arena_grow(cf->arena, http->servers, http->server_count, &http->server_capacity,
                               sizeof(struct server *));
    http->servers[http->server_count++] = server;
    error = conf_block(cf, server->level);
    if (error == NULL && !server->listens)
        error = listen_default(cf, server);
    return error;
}

struct server *conf_server(const struct conf *cf)
{
    for (const struct level *l = cf->level; l != NULL; l = l->parent) {
        if (l->context == CTX_SERVER)
            return l->object;
    }
    return NULL;
}

struct location *conf_location(const struct conf *cf)
{
    const struct level *l = cf->level;

    if (l->context == CTX_SERVER)
        return ((struct server *) l->object)->root;
    if (l->context & (CTX_LOCATION | CTX_IF_LOCATION | CTX_IF_SERVER | CTX_LIMIT_EXCEPT))
        return l->object;
    return NULL;
}

/* A named group's variable before anything has matched. */
static bool no_match_yet(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    (void) out;
    return false;
}

/* Named groups of a pattern become variables. */
static const char *name_captures(struct conf *cf, const struct regex *re, struct var ***out)
{
    unsigned n = regex_names(re);
    struct var **captures;

    if (n == 0)
        return NULL;
    captures = ARENA_ARRAY(cf->arena, struct var *, regex_groups(re) + 1);
    for (unsigned i = 0; i < n; i++) {
        unsigned group;
        const char *error = NULL;
        struct var *v = var_define(cf, conf_var_space(cf), regex_name(re, i, &group),
                                   VAR_CHANGEABLE, &error);

        if (v == NULL)
            return error;
        if (v->get == NULL)
            v->get = no_match_yet;
        captures[group] = var_refer(cf, conf_var_space(cf), v->name);
    }
    *out = captures;
    return NULL;
}

const char *http_regex(struct conf *cf, unsigned arg, struct str pattern, bool caseless,
                       struct regex **re, struct var ***captures)
{
    struct str error;

    *re = regex_compile(cf->arena, pattern, caseless, &error);
    if (*re == NULL)
        return conf_error_arg(cf, arg, "%.*s", STR_ARG(error));
    return name_captures(cf, *re, captures);
}

/* Splits "location [modifier] uri" into the kind and the name. */
static const char *parse_location(struct conf *cf, struct location *loc)
{
    struct str mod = cf->nargs == 3 ? cf->args[1] : STR("");
    struct str name = cf->args[cf->nargs - 1];
    bool regex = false, caseless = false;

    if (cf->nargs == 2 && name.len > 0) {
        /* The modifier may stand against the URI: "~*\.png$", "=/". */
        if (name.ptr[0] == '=') {
            mod = STR("="), name = str_skip(name, 1);
        } else if (str_starts(name, STR("^~"))) {
            mod = STR("^~"), name = str_skip(name, 2);
        } else if (str_starts(name, STR("~*"))) {
            mod = STR("~*"), name = str_skip(name, 2);
        } else if (name.ptr[0] == '~') {
            mod = STR("~"), name = str_skip(name, 1);
        }
    }
    loc->name = name;
    if (str_eq(mod, STR("="))) {
        loc->kind = LOC_EXACT;
    } else if (str_eq(mod, STR("^~"))) {
        loc->kind = LOC_PREFIX_FINAL;
    } else if (str_eq(mod, STR("~")) || str_eq(mod, STR("~*"))) {
        loc->kind = LOC_REGEX;
        regex = true;
        caseless = loc->caseless = mod.len == 2;
    } else if (mod.len > 0) {
        return conf_error_arg(cf, 1, "invalid location modifier \"%.*s\"", STR_ARG(mod));
    } else {
        loc->kind = name.len > 0 && name.ptr[0] == '@' ? LOC_NAMED : LOC_PREFIX;
    }
    return regex ? http_regex(cf, cf->nargs - 1, name, caseless, &loc->regex, &loc->captures)
                 : NULL;
}

static const char *check_nesting(struct conf *cf, const struct location *loc)
{
    const struct location *up = loc->parent;

    if (up->kind == LOC_SERVER)
        return NULL;
    if (up->kind == LOC_EXACT)
        return conf_error(cf, "location \"%.*s\" cannot be inside the exact location \"%.*s\"",
                          STR_ARG(loc->name), STR_ARG(up->name));
    if (up->kind == LOC_NAMED)
        return conf_error(cf, "location \"%.*s\" cannot be inside the named location \"%.*s\"",
                          STR_ARG(loc->name), STR_ARG(up->name));
    if (loc->kind == LOC_NAMED)
        return conf_error(cf, "named location \"%.*s\" can be on the server level only",
                          STR_ARG(loc->name));
    if (loc->kind != LOC_REGEX && up->kind != LOC_REGEX && !str_starts(loc->name, up->name))
        return conf_error(cf, "location \"%.*s\" is outside location \"%.*s\"",
                          STR_ARG(loc->name), STR_ARG(up->name));
    return NULL;
}

const char *set_location_block(struct conf *cf, void *field)
{
    struct location *parent = conf_location(cf);
    struct location *loc = location_new(cf, LOC_PREFIX, conf_server(cf), parent);
    const char *error = parse_location(cf, loc);

    (void) field;
    if (error == NULL)
        error = check_nesting(cf, loc);
    if (error != NULL)
        return error;
    loc->in_regex = parent->in_regex || parent->kind == LOC_REGEX;
    loc->level = conf_level(cf, CTX_LOCATION, loc);
    return conf_block(cf, loc->level);
}

/* An inner set of settings that is no location to search for. Its handler is its parent's unless it has one. */
static struct location *inner_location(struct conf *cf, enum location_kind kind, unsigned context)
{
    struct location *parent = conf_location(cf);
    struct location *loc = location_new(cf, kind, parent->server, parent);

    loc->name = parent->name;
    loc->in_regex = parent->in_regex || parent->kind == LOC_REGEX;
    loc->level = conf_level(cf, context, loc);
    return loc;
}

struct location *http_if_location(struct conf *cf, struct level **level)
{
    struct location *loc = inner_location(
        cf, LOC_IF, cf->level->context == CTX_SERVER ? CTX_IF_SERVER : CTX_IF_LOCATION);

    *level = loc->level;
    return loc;
}

const char *set_limit_except_block(struct conf *cf, void *field)
{
    struct location *outer = conf_location(cf);
    unsigned methods = 0;

    (void) field;
    for (unsigned i = 1; i < cf->nargs; i++) {
        enum method m = method_lookup(cf->args[i]);

        if (m == METHOD_UNKNOWN || m == METHOD_TRACE || m == METHOD_CONNECT)
            return conf_error_arg(cf, i, "invalid method \"%.*s\"", STR_ARG(cf->args[i]));
        methods |= m;
    }
    if (methods & METHOD_GET)
        methods |= METHOD_HEAD;
    outer->limit_except_methods = methods;
    outer->limit_except = inner_location(cf, LOC_LIMIT_EXCEPT, CTX_LIMIT_EXCEPT);
    return conf_block(cf, outer->limit_except->level);
}

/* What runs where --------------------------------------------------------------------------- */

struct hook_set {
    const struct hook **items;
    unsigned count, capacity;
};

/* All hooks of a phase in their order; equal ones keep the modules' order. */
static void collect_hooks(struct arena *arena, enum phase phase, struct hook_set *set)
{
    for (unsigned m = 0; m < module_count; m++) {
        const struct hook *h = modules[m]->http ? modules[m]->http->hooks : NULL;

        for (; h != NULL && h->run != NULL; h++) {
            unsigned i;

            if (h->phase != phase)
                continue;
            set->items = arena_grow(arena, set->items, set->count, &set->capacity,
                                    sizeof(*set->items));
            for (i = set->count++; i > 0 && set->items[i - 1]->order > h->order; i--)
                set->items[i] = set->items[i - 1];
            set->items[i] = h;
        }
    }
}

struct plan {
    struct hook_set hooks[PHASES];
    const struct filter **filters; /* by rank */
    unsigned filter_count, filter_capacity;
    bool in_memory; /* some location has a filter that must see bytes, and subrequests may be part of its answer */
};

static void collect_filters(struct arena *arena, struct plan *plan)
{
    for (unsigned m = 0; m < module_count; m++) {
        const struct filter *f = modules[m]->http ? modules[m]->http->filters : NULL;

        for (; f != NULL && f->head != NULL; f++) {
            unsigned i;

            plan->filters = arena_grow(arena, plan->filters, plan->filter_count,
                                       &plan->filter_capacity, sizeof(*plan->filters));
            for (i = plan->filter_count++; i > 0 && plan->filters[i - 1]->rank > f->rank; i--)
                plan->filters[i] = plan->filters[i - 1];
            plan->filters[i] = f;
        }
    }
}

typedef enum verdict (*hook_run)(struct req *r);

/*
 * The hooks of a level. Most locations want what their parent wants: then the array is the
 * parent's, so that ten thousand servers do not hold ten thousand copies.
 */
static hook_run *hooks_of(struct arena *arena, const struct hook_set *set, const struct level *level,
                          hook_run *above)
{
    hook_run *run = arena_alloc(arena, (set->count + 1) * sizeof(*run));
    unsigned n = 0;

    for (unsigned i = 0; i < set->count; i++) {
        if (set->items[i]->wanted == NULL || set->items[i]->wanted(level))
            run[n++] = set->items[i]->run;
    }
    run[n] = NULL;
    if (above != NULL) {
        unsigned k = 0;

        while (above[k] != NULL && above[k] == run[k])
            k++;
        if (above[k] == run[k])
            return above;
    }
    return run;
}

static bool filter_wanted(const struct filter *f, const struct level *level)
{
    return f->wanted == NULL || f->wanted(level);
}

static void choose_filters(struct arena *arena, const struct plan *plan, struct location *loc)
{
    const struct filter **list = arena_alloc(arena, (plan->filter_count + 1) * sizeof(*list));
    unsigned n = 0;

    for (unsigned i = 0; i < plan->filter_count; i++) {
        const struct filter *f = plan->filters[i];

        if (!filter_wanted(f, loc->level) && !(plan->in_memory && f->rank == FILTER_FILE_TO_MEM))
            continue;
        list[n++] = f;
        loc->filters_after |= f->after;
    }
    list[n] = NULL;
    loc->filters = list;
}

/* Whether a filter wants bytes in memory anywhere at or below a level. */
static bool needs_memory(const struct plan *plan, const struct level *level)
{
    for (unsigned i = 0; i < plan->filter_count; i++) {
        if (plan->filters[i]->in_memory && filter_wanted(plan->filters[i], level))
            return true;
    }
    for (const struct list *n = level->children.next; n != &level->children; n = n->next) {
        const struct level *child = container_of(n, const struct level, sibling);

        if ((child->context & (CTX_LOCATION | CTX_IF_LOCATION | CTX_IF_SERVER | CTX_LIMIT_EXCEPT))
            && needs_memory(plan, child))
            return true;
    }
    return false;
}

static void complete_location(struct conf *cf, const struct plan *plan, struct location *loc)
{
    const struct location *above = loc->parent;

    loc->core = level_core(loc->level);
    if (loc->kind == LOC_IF || loc->kind == LOC_LIMIT_EXCEPT) {
        if (loc->handler == NULL) {
            loc->handler = above->handler;
            loc->allow_connect = above->allow_connect;
        }
    }
    loc->auto_slash = (loc->kind == LOC_PREFIX || loc->kind == LOC_PREFIX_FINAL
                       || loc->kind == LOC_EXACT)
                      && loc->handler != NULL && loc->name.len > 0
                      && loc->name.ptr[loc->name.len - 1] == '/';
    for (unsigned p = 0; p < PHASES; p++)
        loc->hooks[p] = hooks_of(cf->arena, &plan->hooks[p], loc->level,
                                 above ? (hook_run *) above->hooks[p] : NULL);
    choose_filters(cf->arena, plan, loc);
}

/* Completes everything below a location's level and builds the search structure of its children. */
static void complete_tree(struct conf *cf, const struct plan *plan, struct location *loc)
{
    struct location **found = NULL;
    unsigned count = 0, capacity = 0, named = 0, named_capacity = 0;
    const struct location **names = NULL;

    complete_location(cf, plan, loc);
    for (struct list *n = loc->level->children.next; n != &loc->level->children; n = n->next) {
        struct level *level = container_of(n, struct level, sibling);
        struct location *child = level->object;

        if (!(level->context & (CTX_LOCATION | CTX_IF_LOCATION | CTX_IF_SERVER | CTX_LIMIT_EXCEPT)))
            continue;
        complete_tree(cf, plan, child);
        if (child->kind == LOC_NAMED) {
            names = arena_grow(cf->arena, names, named, &named_capacity, sizeof(*names));
            names[named++] = child;
        } else if (child->kind != LOC_IF && child->kind != LOC_LIMIT_EXCEPT) {
            found = arena_grow(cf->arena, found, count, &capacity, sizeof(*found));
            found[count++] = child;
        }
    }
    if (count > 0)
        loc->tree = location_tree_build(cf, found, count);
    if (loc->kind == LOC_SERVER && named > 0) {
        names = arena_grow(cf->arena, names, named, &named_capacity, sizeof(*names));
        names[named] = NULL;
        loc->server->named = names;
    }
}

const struct location *http_location_named(const struct server *s, struct str name)
{
    for (const struct location *const *l = (const struct location *const *) s->named;
         l != NULL && *l != NULL; l++) {
        if (str_eq((*l)->name, name))
            return *l;
    }
    return NULL;
}

/* Once per level: what is not a row's value. */
static int http_core_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct core_loc *core = level_core(level);

    (void) parent;
    if (core != NULL && core->error_log == NULL)
        core->error_log = &cf->config->log;
    if (core != NULL && core->types == NULL) {
        static const struct {
            struct str type;
            const char *ext;
        } types[] = {
            { STR_INIT("text/html"), "html" },
            { STR_INIT("image/gif"), "gif" },
            { STR_INIT("image/jpeg"), "jpg" },
        };

        core->types = ARENA_NEW(cf->arena, struct types_table);
        table_init(&core->types->by_ext, cf->arena);
        for (unsigned i = 0; i < ARRAY_LEN(types); i++)
            table_put(&core->types->by_ext, str_cstr(types[i].ext), (void *) &types[i].type);
    }
    return 0;
}

/* After the whole file, and after every module's settings are complete. */
static int http_core_post(struct conf *cf)
{
    struct http_main *http = conf_http(cf);
    struct plan plan = { 0 };

    if (http == NULL)
        return 0;
    http->core = level_conf(http->level, STORE_MAIN, http_slot);
    for (unsigned p = 0; p < PHASES; p++)
        collect_hooks(cf->arena, (enum phase) p, &plan.hooks[p]);
    collect_filters(cf->arena, &plan);
    for (unsigned i = 0; i < http->server_count && !plan.in_memory; i++)
        plan.in_memory = needs_memory(&plan, http->servers[i]->level);
    for (unsigned i = 0; i < http->server_count; i++) {
        struct server *s = http->servers[i];

        s->core = level_core_srv(s->level);
        s->core_loc = level_core(s->level);
        if (s->name_count > 0)
            s->name = s->names[0].name;
        if (s->name.len > 1 && s->name.ptr[0] == '.')
            s->name = str_skip(s->name, 1);
        complete_tree(cf, &plan, s->root);
    }
    if (http_listens_finish(cf, http) != 0 || var_space_check(cf, &http->vars) != 0)
        return -1;
    return client_counts_configure(cf);
}

static int http_core_start(const struct config *config)
{
    if (config->http != NULL)
        client_counts_start(config);
    return 0;
}

static void http_core_drain(const struct config *config)
{
    if (config->http != NULL)
        client_drain_all();
}

static unsigned http_core_shed(const struct config *config, unsigned n)
{
    return config->http != NULL ? client_shed(n) : 0;
}

static bool http_core_part(const struct config *config)
{
    return config->http != NULL && client_part_all();
}

static void http_core_stop(const struct config *config)
{
    if (config->http != NULL)
        client_close_all();
}

static const struct http_module http_core = { .variables = http_core_variables };

const struct module module_http_core = {
    .name = "http_core",
    .slot = &http_slot,
    .conf_size = { sizeof(struct core_main), sizeof(struct core_srv), sizeof(struct core_loc) },
    .directives = http_core_directives,
    .http = &http_core,
    .finish = http_core_finish,
    .post = http_core_post,
    .worker_start = http_core_start,
    .worker_drain = http_core_drain,
    .worker_part = http_core_part,
    .worker_shed = http_core_shed,
    .worker_stop = http_core_stop,
};
