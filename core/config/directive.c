/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The typed setters: from the words of a directive to a value in a structure, with nginx's
 * sentences when a word is no such value. Named in the rows of the modules' tables and called by
 * the parser, and for defaults by inheritance. Each writes through `field` only.
 */
#include <limits.h>

#include "core/config/expr.h"
#include "core/config/parse.h"
#include "core/config/resource.h"

static const char *invalid(struct conf *cf, unsigned n, const char *what)
{
    return conf_error_arg(cf, n, "\"%s\" directive invalid %s", cf->args[0].ptr, what);
}

/* What an enum or a bit set may be: "one of: a, b, c". */
static const char *choices(struct conf *cf, const struct conf_enum *e)
{
    struct str s = STR("one of:");

    for (unsigned i = 0; e[i].name; i++)
        s = str_printf(cf->arena, "%s%s %s", s.ptr, i ? "," : "", e[i].name);
    return s.ptr;
}

static const struct conf_enum *find_enum(const struct conf_enum *e, struct str name)
{
    for (; e->name; e++) {
        if (str_caseeq(name, str_cstr(e->name)))
            return e;
    }
    return NULL;
}

static const char *invalid_choice(struct conf *cf, unsigned n, const struct conf_enum *e)
{
    const char *sentence = conf_error_arg(cf, n, "invalid value \"%s\"", cf->args[n].ptr);

    conf_parser(cf)->hint = choices(cf, e);
    return sentence;
}

const char *conf_set_flag(struct conf *cf, void *field)
{
    bool *flag = field;

    if (str_caseeq(cf->args[1], STR("on")))
        *flag = true;
    else if (str_caseeq(cf->args[1], STR("off")))
        *flag = false;
    else
        return conf_error_arg(cf, 1,
            "invalid value \"%s\" in \"%s\" directive, it must be \"on\" or \"off\"",
            cf->args[1].ptr, cf->args[0].ptr);
    return NULL;
}

const char *conf_set_num(struct conf *cf, void *field)
{
    static const struct conf_range any = { 0, INT32_MAX };
    const struct conf_range *range = cf->row->extra ? cf->row->extra : &any;
    int64_t n;

    if (str_to_i64(cf->args[1], &n) || (range->min >= 0 && cf->args[1].ptr[0] == '-'))
        return invalid(cf, 1, "number");
    if (n >= range->min && n <= range->max) {
        *(int64_t *) field = n;
        return NULL;
    }
    if (range == &any)
        return invalid(cf, 1, "number");
    if (range->max == INT64_MAX || range->max == INT32_MAX)
        return conf_error_arg(cf, 1, "value must be equal to or greater than %lld",
            (long long) range->min);
    return conf_error_arg(cf, 1, "value must be between %lld and %lld", (long long) range->min,
        (long long) range->max);
}

/* A size in k and m; "g" is for offsets only, as in nginx. */
static int parse_size(struct str s, size_t *out)
{
    uint64_t n;

    if (s.len && ascii_lower((unsigned char) s.ptr[s.len - 1]) == 'g')
        return -1;
    if (str_to_size(s, &n) || n > SSIZE_MAX)
        return -1;
    *out = n;
    return 0;
}

const char *conf_set_size(struct conf *cf, void *field)
{
    return parse_size(cf->args[1], field) ? invalid(cf, 1, "value") : NULL;
}

const char *conf_set_off(struct conf *cf, void *field)
{
    uint64_t n;

    if (str_to_size(cf->args[1], &n) || n > INT64_MAX)
        return invalid(cf, 1, "value");
    *(uint64_t *) field = n;
    return NULL;
}

const char *conf_set_ms(struct conf *cf, void *field)
{
    uint64_t n;

    if (str_to_ms(cf->args[1], false, &n) || n > INT64_MAX)
        return invalid(cf, 1, "value");
    *(uint64_t *) field = n;
    return NULL;
}

const char *conf_set_sec(struct conf *cf, void *field)
{
    uint64_t n;

    if (str_to_ms(cf->args[1], true, &n) || n > INT64_MAX)
        return invalid(cf, 1, "value");
    *(uint64_t *) field = n / 1000;
    return NULL;
}

const char *conf_set_enum(struct conf *cf, void *field)
{
    const struct conf_enum *e = find_enum(cf->row->extra, cf->args[1]);

    if (e == NULL)
        return invalid_choice(cf, 1, cf->row->extra);
    *(unsigned *) field = e->value;
    return NULL;
}

const char *conf_set_bits(struct conf *cf, void *field)
{
    unsigned *bits = field;

    for (unsigned i = 1; i < cf->nargs; i++) {
        const struct conf_enum *e = find_enum(cf->row->extra, cf->args[i]);

        if (e == NULL)
            return invalid_choice(cf, i, cf->row->extra);
        if (e->value && (*bits & e->value) == e->value)
            conf_warn_at(cf, cf->arg_pos[i], "duplicate value \"%s\"", cf->args[i].ptr);
        *bits |= e->value;
    }
    return NULL;
}

const char *conf_set_str(struct conf *cf, void *field)
{
    *(struct str *) field = cf->args[1];
    return NULL;
}

const char *conf_set_list(struct conf *cf, void *field)
{
    for (unsigned i = 1; i < cf->nargs; i++)
        str_list_add(cf->arena, field, cf->args[i]);
    return NULL;
}

const char *conf_set_bufs(struct conf *cf, void *field)
{
    struct conf_bufs *bufs = field;
    uint64_t count;
    size_t size;

    if (str_to_u64(cf->args[1], &count) || count == 0 || count > INT32_MAX)
        return invalid(cf, 1, "value");
    if (parse_size(cf->args[2], &size) || size == 0)
        return invalid(cf, 2, "value");
    bufs->count = (unsigned) count;
    bufs->size = size;
    return NULL;
}

/* Directories are shared by all who name them, so they must agree on the levels. */
static const char *register_path(struct conf *cf, const struct conf_path *path)
{
    struct res_path *res = res_path(cf->config, path, cf->pos);

    if (memcmp(res->path.levels, path->levels, sizeof(path->levels)) == 0)
        return NULL;
    return conf_error_arg(cf, 1,
        "the same path name \"%s\" has other levels than in %s:%u", path->path.ptr,
        res->pos.file, res->pos.line);
}

const char *conf_set_path(struct conf *cf, void *field)
{
    struct conf_path *path = field;

    if (cf->nargs > 5)
        return conf_error(cf, "invalid number of arguments in \"%s\" directive", cf->args[0].ptr);
    path->path = conf_path(cf, cf->args[1], false);
    while (path->path.len > 1 && path->path.ptr[path->path.len - 1] == '/')
        path->path = str_dup(cf->arena, str_from(path->path.ptr, path->path.len - 1));
    for (unsigned i = 2; i < cf->nargs; i++) {
        uint64_t level;

        if (str_to_u64(cf->args[i], &level) || level < 1 || level > 3 || i > 4)
            return invalid(cf, i, "value");
        path->levels[i - 2] = (unsigned char) level;
    }
    return register_path(cf, path);
}

const char *conf_set_file(struct conf *cf, void *field)
{
    *(struct str *) field = conf_path(cf, cf->args[1], false);
    return NULL;
}

const char *conf_set_conf_file(struct conf *cf, void *field)
{
    *(struct str *) field = conf_path(cf, cf->args[1], true);
    return NULL;
}

const char *conf_set_expr(struct conf *cf, void *field)
{
    return conf_arg_expr(cf, 1, field);
}

const char *conf_set_exprs(struct conf *cf, void *field)
{
    struct expr_list *list = field;

    for (unsigned i = 1; i < cf->nargs; i++) {
        struct expr *x;
        const char *error = conf_arg_expr(cf, i, &x);

        if (error)
            return error;
        list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity, sizeof(x));
        list->items[list->count++] = x;
    }
    return NULL;
}

const char *conf_set_expr_size(struct conf *cf, void *field)
{
    struct expr_size *size = field;
    struct expr *x;
    struct str text;
    size_t n;
    const char *error = conf_arg_expr(cf, 1, &x);

    if (error)
        return error;
    if (!expr_is_literal(x, &text)) {
        size->expr = x;
        return NULL;
    }
    if (parse_size(text, &n))
        return invalid(cf, 1, "value");
    size->value = n;
    return NULL;
}

/* Where a group or all may do something, the user may read and write unless it is said. */
const char *conf_set_access(struct conf *cf, void *field)
{
    static const struct {
        const char *who;
        unsigned shift;
    } parts[] = {
        { "user:", 6 },
        { "group:", 3 },
        { "all:", 0 },
    };
    unsigned *out = field, access = 0, user = 0600;

    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str text = cf->args[i], right;
        unsigned k = 0;

        while (k < ARRAY_LEN(parts) && !str_starts(text, str_cstr(parts[k].who)))
            k++;
        if (k == ARRAY_LEN(parts))
            return conf_error_arg(cf, i, "invalid value \"%.*s\"", STR_ARG(text));
        right = str_skip(text, strlen(parts[k].who));
        if (!str_eq(right, STR("rw")) && !str_eq(right, STR("r")))
            return conf_error_arg(cf, i, "invalid value \"%.*s\"", STR_ARG(text));
        access |= (right.len == 2 ? 6u : 4u) << parts[k].shift;
        if (parts[k].shift == 6)
            user = 0;
    }
    *out = access | user;
    return NULL;
}

const char *conf_ignored(struct conf *cf, void *field)
{
    (void) field;
    log_info(cf->log, 0, "\"%s\" directive has no effect in %s:%u", cf->args[0].ptr,
        cf->pos.file ? cf->pos.file : "", cf->pos.line);
    return NULL;
}
