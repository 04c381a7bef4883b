/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map: a variable whose value is looked up by that of another string: exact names, host names with
 * wildcards, then regular expressions in their order, then the default.
 */
#include "core/http/req.h"

/* configure: switch=http_map_module default=on */

static unsigned map_slot;

struct map_regex {
    struct regex *regex;
    struct var **captures;
    struct expr *value;
};

struct map {
    struct expr *source;
    struct table exact;   /* lower case -> struct expr * */
    struct table heads;   /* "*.example.com" as ".example.com" */
    struct table tails;   /* "www.example.*" as "www.example." */
    struct map_regex *regexes;
    unsigned regex_count, regex_capacity;
    struct expr *fallback; /* default; NULL: none given, which is an empty value */
    bool hostnames, is_volatile;
};

/* Looking up ------------------------------------------------------------------------------------- */

static const struct expr *find_wildcard(const struct map *m, struct str key)
{
    const struct expr *x;

    if (m->heads.count > 0) {
        for (size_t i = 0; i < key.len; i++) {
            if (key.ptr[i] == '.' && (x = table_get(&m->heads, str_skip(key, i))) != NULL)
                return x;
        }
    }
    if (m->tails.count > 0) {
        for (size_t i = key.len; i > 0; i--) {
            if (key.ptr[i - 1] == '.' && (x = table_get(&m->tails, str_from(key.ptr, i))) != NULL)
                return x;
        }
    }
    return NULL;
}

static const struct expr *find_regex(struct eval *e, const struct map *m, struct str key)
{
    struct req *r = req_of(e);

    for (unsigned i = 0; i < m->regex_count; i++) {
        const struct map_regex *x = &m->regexes[i];
        struct regex_match match;
        int rc = regex_exec(x->regex, key, &match);

        if (rc < 0)
            log_alert(e->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(), STR_ARG(key),
                      STR_ARG(regex_pattern(x->regex)));
        if (rc <= 0)
            continue;
        r->match = match;
        e->match = &r->match;
        e->match_subject = key;
        if (x->captures != NULL)
            http_store_captures(e, x->captures, &r->match, key);
        return x->value;
    }
    return NULL;
}

static struct str without_final_dot(struct str s)
{
    return s.len > 0 && s.ptr[s.len - 1] == '.' ? str_from(s.ptr, s.len - 1) : s;
}

static const struct expr *find(struct eval *e, const struct map *m, struct str key)
{
    struct str lower;
    const struct expr *x = NULL;

    if (m->exact.count + m->heads.count + m->tails.count > 0) {
        lower = str_lower(e->arena, m->hostnames ? without_final_dot(key) : key);
        x = table_get(&m->exact, lower);
        if (x == NULL && m->hostnames)
            x = find_wildcard(m, lower);
    }
    return x != NULL || m->regex_count == 0 ? x : find_regex(e, m, key);
}

static bool get_map(struct eval *e, const struct var *v, struct str *out)
{
    const struct map *m = (const struct map *) v->data;
    struct str key = expr_eval(e, m->source);
    const struct expr *x = find(e, m, key);

    if (x == NULL)
        x = m->fallback;
    *out = x != NULL ? expr_eval(e, x) : STR("");
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

static const char *put(struct conf *cf, struct table *t, struct str key, struct expr *value)
{
    if (table_put(t, key, value) != NULL)
        return conf_error_arg(cf, 0, "conflicting parameter \"%.*s\"", STR_ARG(cf->args[0]));
    return NULL;
}

/* ".example.com" is the name itself and all below it. */
static const char *add_host(struct conf *cf, struct map *m, struct str key, struct expr *value)
{
    const char *error = NULL;

    if (key.len > 1 && key.ptr[0] == '.') {
        error = put(cf, &m->exact, str_skip(key, 1), value);
        return error ? error : put(cf, &m->heads, key, value);
    }
    if (str_starts(key, STR("*.")))
        return put(cf, &m->heads, str_skip(key, 1), value);
    if (str_ends(key, STR(".*")))
        return put(cf, &m->tails, str_from(key.ptr, key.len - 1), value);
    return put(cf, &m->exact, key, value);
}

static const char *add_regex(struct conf *cf, struct map *m, struct str pattern, struct expr *value)
{
    struct map_regex *x;
    bool caseless = pattern.len > 0 && pattern.ptr[0] == '*';

    m->regexes = arena_grow(cf->arena, m->regexes, m->regex_count, &m->regex_capacity,
                            sizeof(*m->regexes));
    x = &m->regexes[m->regex_count++];
    memset(x, 0, sizeof(*x));
    x->value = value;
    return http_regex(cf, 0, str_skip(pattern, caseless ? 1 : 0), caseless, &x->regex,
                      &x->captures);
}

static const char *map_line(struct conf *cf, void *data)
{
    struct map *m = data;
    struct str key = cf->args[0];
    const char *error = NULL;
    struct expr *value;

    if (cf->nargs == 1 && str_eq(key, STR("hostnames"))) {
        m->hostnames = true;
        return NULL;
    }
    if (cf->nargs == 1 && str_eq(key, STR("volatile"))) {
        m->is_volatile = true;
        return NULL;
    }
    if (cf->nargs != 2)
        return conf_error(cf, "invalid number of the map parameters");
    value = expr_compile(cf, cf->args[1], 0, &error);
    if (value == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (str_eq(key, STR("default"))) {
        if (m->fallback != NULL)
            return conf_error_arg(cf, 0, "duplicate default map parameter");
        m->fallback = value;
        return NULL;
    }
    if (key.len > 0 && key.ptr[0] == '~')
        return add_regex(cf, m, str_skip(key, 1), value);
    /* A backslash takes the meaning off what follows. */
    if (key.len > 0 && key.ptr[0] == '\\')
        key = str_skip(key, 1);
    key = str_lower(cf->arena, key);
    return m->hostnames ? add_host(cf, m, key, value) : put(cf, &m->exact, key, value);
}

static const char *set_map(struct conf *cf, void *field)
{
    struct map *m = ARENA_NEW(cf->arena, struct map);
    struct str name = cf->args[2];
    const char *error = NULL;
    struct var *v;

    (void) field;
    m->source = expr_compile(cf, cf->args[1], 0, &error);
    if (m->source == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (name.len < 2 || name.ptr[0] != '$')
        return conf_error_arg(cf, 2, "invalid variable name \"%.*s\"", STR_ARG(name));
    v = var_define(cf, conf_var_space(cf), str_skip(name, 1), VAR_CHANGEABLE, &error);
    if (v == NULL)
        return conf_error_arg(cf, 2, "%s", error);
    table_init(&m->exact, cf->arena);
    table_init(&m->heads, cf->arena);
    table_init(&m->tails, cf->arena);
    v->get = get_map;
    v->data = (uintptr_t) m;
    error = conf_lines(cf, map_line, m);
    if (m->is_volatile)
        v->flags |= VAR_FRESH;
    return error;
}

struct map_main {
    int64_t hash_sizes[2];
};

static const struct directive directives[] = {
    ROW_CALL("map", CTX_HTTP, ARGS2 | ARG_BLOCK | ARG_REPEAT, set_map, STORE_MAIN,
             "string $variable { ... }", "A variable whose value depends on that of a string."),
    ROW("map_hash_max_size", CTX_HTTP, ARGS1, conf_set_num, STORE_MAIN, struct map_main,
        hash_sizes[0], INHERIT_SCALAR, NULL, "size",
        "Table of a map. Accepted; tables here grow by themselves."),
    ROW("map_hash_bucket_size", CTX_HTTP, ARGS1, conf_set_num, STORE_MAIN, struct map_main,
        hash_sizes[1], INHERIT_SCALAR, NULL, "size",
        "Table of a map. Accepted; tables here grow by themselves."),
    ROW_END,
};

static const struct http_module http_map = { .variables = NULL };

const struct module module_http_map = {
    .name = "http_map",
    .slot = &map_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct map_main) },
    .directives = directives,
    .http = &http_map,
};
