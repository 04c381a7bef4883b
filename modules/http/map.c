/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * map: a variable whose value is looked up by that of another string: exact names, host names with
 * wildcards, then regular expressions in their order, then the default. Names cost one look-up in a
 * hash, however many there are; regexes are tried one by one, but for those which begin with "^" and
 * plain text that text is compared first.
 */
#include "core/http/hostnames.h"
#include "core/http/req.h"

/* configure: switch=http_map_module default=on */

#define KEY_ON_STACK 512

static unsigned map_slot;

struct map_regex {
    struct regex *regex;
    struct str prefix; /* nothing else can match; empty: not known */
    struct var **captures;
    struct expr *value;
};

struct map {
    struct expr *source;
    struct hostnames names; /* lower case -> struct expr * */
    struct map_regex *regexes;
    unsigned regex_count, regex_capacity;
    struct expr *fallback;  /* default; NULL: none given, which is an empty value */
    bool hostnames, is_volatile;
    struct conf_pos pos;
};

/* Looking up ------------------------------------------------------------------------------------- */

static const struct expr *find_name(struct eval *e, const struct map *m, struct str key)
{
    char room[KEY_ON_STACK], *lower = room;
    struct str found;

    if (key.len > sizeof(room))
        lower = arena_bytes(e->arena, key.len);
    for (size_t i = 0; i < key.len; i++)
        lower[i] = (char) ascii_lower((unsigned char) key.ptr[i]);
    key.ptr = lower;
    return m->hostnames ? hostnames_find(&m->names, key, &found) : table_get(&m->names.exact, key);
}

static const struct expr *find_regex(struct eval *e, const struct map *m, struct str key)
{
    struct req *r = req_of(e);

    for (unsigned i = 0; i < m->regex_count; i++) {
        const struct map_regex *x = &m->regexes[i];
        struct regex_match match;
        int rc;

        if (x->prefix.len > 0 && !str_starts(key, x->prefix))
            continue;
        rc = regex_exec(x->regex, key, &match);
        if (rc == 0)
            continue;
        if (rc < 0) {
            log_alert(e->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(), STR_ARG(key),
                      STR_ARG(regex_pattern(x->regex)));
            return NULL;
        }
        r->match = match;
        e->match = &r->match;
        e->match_subject = key;
        if (x->captures != NULL)
            http_store_captures(e, x->captures, &r->match, key);
        return x->value;
    }
    return NULL;
}

/* An empty string is compared with names only. */
static const struct expr *find(struct eval *e, const struct map *m, struct str key)
{
    const struct expr *x = NULL;

    if (m->hostnames && key.len > 0 && key.ptr[key.len - 1] == '.')
        key.len--;
    if (!hostnames_empty(&m->names))
        x = find_name(e, m, key);
    return x != NULL || m->regex_count == 0 || key.len == 0 ? x : find_regex(e, m, key);
}

static bool get_map(struct eval *e, const struct var *v, struct str *out)
{
    const struct map *m = (const struct map *) v->data;
    struct str key = expr_eval(e, m->source);
    const struct expr *x = find(e, m, key);

    if (x == NULL)
        x = m->fallback;
    *out = x != NULL ? expr_eval(e, x) : STR("");
    req_trace(req_of(e), m->pos, "map makes $%.*s \"%.*s\" of \"%.*s\"", STR_ARG(v->name),
              STR_ARG(*out), STR_ARG(key));
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

struct map_block {
    struct map *map;
    struct table values; /* text -> struct expr *: large maps have few values */
};

static const char *add_name(struct conf *cf, struct map *m, struct str key, struct expr *value)
{
    enum hostnames_error error = HOSTNAMES_FINE;

    key = str_lower(cf->arena, key);
    if (m->hostnames)
        error = hostnames_add(&m->names, key, value);
    else if (table_get(&m->names.exact, key) != NULL)
        error = HOSTNAMES_CONFLICT;
    else
        table_put(&m->names.exact, key, value);
    switch (error) {
    case HOSTNAMES_CONFLICT:
        return conf_error_arg(cf, 0, "conflicting parameter \"%.*s\"", STR_ARG(key));
    case HOSTNAMES_INVALID:
        return conf_error_arg(cf, 0, "invalid hostname or wildcard \"%.*s\"", STR_ARG(key));
    case HOSTNAMES_FINE:
        break;
    }
    return NULL;
}

static bool is_alnum(char c)
{
    unsigned char lower = ascii_lower((unsigned char) c);

    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9');
}

/*
 * The text that everything the pattern matches begins with, as far as that can be seen without
 * understanding it: "^/api/v1/(.*)" has "/api/v1/". Empty where there is any doubt.
 */
static struct str literal_prefix(struct arena *arena, struct str pattern)
{
    char *prefix = arena_bytes(arena, pattern.len + 1);
    size_t n = 0;

    if (pattern.len < 2 || pattern.ptr[0] != '^' || str_chr(pattern, '|') >= 0)
        return STR("");
    for (size_t i = 1; i < pattern.len; i++) {
        char c = pattern.ptr[i];

        if (c == '\\' && i + 1 < pattern.len && pattern.ptr[i + 1] > ' ' &&
            pattern.ptr[i + 1] < 0x7f && !is_alnum(pattern.ptr[i + 1]))
            c = pattern.ptr[++i];
        else if (!is_alnum(c) && strchr("/-_:;,=@%&!~", c) == NULL)
            break;
        /* A quantifier that allows none takes the character back. */
        if (i + 1 < pattern.len && strchr("?*{", pattern.ptr[i + 1]) != NULL)
            break;
        prefix[n++] = c;
    }
    return str_from(prefix, n);
}

static const char *add_regex(struct conf *cf, struct map *m, struct str pattern, struct expr *value)
{
    struct map_regex *x;
    bool caseless = pattern.len > 0 && pattern.ptr[0] == '*';

    if (caseless)
        pattern = str_skip(pattern, 1);
    m->regexes = arena_grow(cf->arena, m->regexes, m->regex_count, &m->regex_capacity,
                            sizeof(*m->regexes));
    x = &m->regexes[m->regex_count++];
    memset(x, 0, sizeof(*x));
    x->value = value;
    if (!caseless)
        x->prefix = literal_prefix(cf->arena, pattern);
    return http_regex(cf, 0, pattern, caseless, &x->regex, &x->captures);
}

static const char *take_value(struct conf *cf, struct map_block *block, struct expr **value)
{
    const char *error;

    *value = table_get(&block->values, cf->args[1]);
    if (*value != NULL)
        return NULL;
    error = conf_arg_expr(cf, 1, value);
    if (error == NULL)
        table_put(&block->values, expr_source(*value), *value);
    return error;
}

static const char *map_line(struct conf *cf, void *data)
{
    struct map_block *block = data;
    struct map *m = block->map;
    struct str key = cf->args[0];
    struct expr *value;
    const char *error;

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
    if ((error = take_value(cf, block, &value)) != NULL)
        return error;
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
    return add_name(cf, m, key, value);
}

static const char *set_map(struct conf *cf, void *field)
{
    struct map *m = ARENA_NEW(cf->arena, struct map);
    struct map_block block = { .map = m };
    const char *error;
    struct var *v;

    (void) field;
    m->pos = cf->pos;
    error = conf_arg_expr(cf, 1, &m->source);
    if (error == NULL)
        error = conf_define_var(cf, 2, get_map, m, &v);
    if (error != NULL)
        return error;
    hostnames_init(&m->names, cf->arena);
    table_init(&block.values, cf->arena);
    error = conf_lines(cf, map_line, &block);
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
        hash_sizes[0], INHERIT_SCALAR, "2048", "size",
        "Table of a map. Accepted; tables here grow by themselves."),
    ROW("map_hash_bucket_size", CTX_HTTP, ARGS1, conf_set_num, STORE_MAIN, struct map_main,
        hash_sizes[1], INHERIT_SCALAR, "64", "size",
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
