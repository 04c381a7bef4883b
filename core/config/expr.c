/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strings with $variables: compiled once while the configuration is read, evaluated for a subject
 * with at most one allocation. Called by setters (compile) and by everything that serves (eval).
 * Knows variables only through var.c.
 */
#include "core/config/expr.h"
#include "core/config/parse.h"

enum expr_kind { EXPR_LITERAL, EXPR_VAR, EXPR_CAPTURE, EXPR_CONCAT };

struct expr_part {
    enum expr_kind kind;
    unsigned capture;      /* N of $N */
    const struct var *var;
    struct str text;       /* of a literal: NUL-terminated when the expression is one */
};

struct expr {
    enum expr_kind kind;
    unsigned flags;
    unsigned count;
    unsigned max_capture;
    struct str prefix;     /* what completes a relative path */
    struct str source;
    struct expr_part *parts;
};

#define PARTS_ON_STACK 32

/* Compiling ---------------------------------------------------------------------------------- */

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* A literal that is a path is completed now, once for all. */
static struct str complete_path(struct arena *arena, const struct expr *x, struct str text)
{
    if (x->prefix.ptr == NULL || (text.len && text.ptr[0] == '/'))
        return str_dup(arena, text);
    return str_printf(arena, "%.*s%.*s", STR_ARG(x->prefix), STR_ARG(text));
}

static struct expr_part *add_part(struct arena *arena, struct expr *x, unsigned *capacity)
{
    x->parts = arena_grow(arena, x->parts, x->count, capacity, sizeof(*x->parts));
    return &x->parts[x->count++];
}

const char *var_take_name(struct conf *cf, struct str *rest, struct str *name)
{
    bool brace = rest->len && rest->ptr[0] == '{';
    size_t n = 0;

    if (brace)
        *rest = str_skip(*rest, 1);
    while (n < rest->len && is_name_byte(rest->ptr[n]))
        n++;
    *name = str_from(rest->ptr, n);
    *rest = str_skip(*rest, n);
    if (!brace)
        return NULL;
    if (rest->len == 0 || rest->ptr[0] != '}')
        return conf_error(cf, "the closing bracket in \"%.*s\" variable is missing", STR_ARG(*name));
    *rest = str_skip(*rest, 1);
    return NULL;
}

/* One $name, ${name} or $N at the front of *rest ("$" not included). NULL or a sentence. */
static const char *compile_variable(struct conf *cf, struct var_space *space, struct str *rest,
                                    struct expr_part *part)
{
    const char *error;
    struct str name;

    if (rest->len && rest->ptr[0] >= '1' && rest->ptr[0] <= '9') {
        part->kind = EXPR_CAPTURE;
        part->capture = (unsigned) (rest->ptr[0] - '0');
        *rest = str_skip(*rest, 1);
        return NULL;
    }
    error = var_take_name(cf, rest, &name);
    if (error)
        return error;
    if (name.len == 0)
        return "invalid variable name";
    part->kind = EXPR_VAR;
    part->var = var_refer(cf, space, name);
    return NULL;
}

static const char *compile_parts(struct conf *cf, struct var_space *space, struct expr *x)
{
    struct str rest = x->source;
    unsigned capacity = 0;

    while (rest.len) {
        ssize_t dollar = str_chr(rest, '$');
        struct expr_part part = { 0 };
        const char *error;

        if (dollar != 0) {
            part.kind = EXPR_LITERAL;
            part.text = str_from(rest.ptr, dollar < 0 ? rest.len : (size_t) dollar);
            rest = str_skip(rest, part.text.len);
        } else {
            rest = str_skip(rest, 1);
            error = compile_variable(cf, space, &rest, &part);
            if (error)
                return error;
            x->max_capture = MAX(x->max_capture, part.capture);
        }
        *add_part(cf->arena, x, &capacity) = part;
    }
    return NULL;
}

static void make_literal(struct arena *arena, struct expr *x, struct str text)
{
    x->kind = EXPR_LITERAL;
    x->count = 1;
    x->parts = ARENA_NEW(arena, struct expr_part);
    x->parts->kind = EXPR_LITERAL;
    x->parts->text = complete_path(arena, x, text);
}

struct var_space *conf_var_space(struct conf *cf)
{
    return cf->level->vars;
}

struct expr *expr_compile(struct conf *cf, struct str text, unsigned flags, const char **error)
{
    struct expr *x = ARENA_NEW(cf->arena, struct expr);
    struct var_space *space = conf_var_space(cf);

    x->flags = flags;
    x->source = str_dup(cf->arena, text);
    if (flags & EXPR_PREFIX)
        x->prefix = str_cstr(cf->config->prefix);
    else if (flags & EXPR_CONF_PREFIX)
        x->prefix = str_cstr(cf->config->conf_prefix);
    if (space == NULL || str_chr(text, '$') < 0) {
        make_literal(cf->arena, x, text);
        return x;
    }
    *error = compile_parts(cf, space, x);
    if (*error)
        return NULL;
    x->kind = x->count == 1 ? x->parts->kind : EXPR_CONCAT;
    return x;
}

const char *conf_arg_expr(struct conf *cf, unsigned n, struct expr **out)
{
    const char *error = NULL;

    *out = expr_compile(cf, cf->args[n], 0, &error);
    if (*out == NULL)
        conf_parser(cf)->caret = n;
    return *out ? NULL : error;
}

struct expr *expr_literal(struct arena *arena, struct str text)
{
    struct expr *x = ARENA_NEW(arena, struct expr);

    x->source = str_dup(arena, text);
    make_literal(arena, x, text);
    return x;
}

bool expr_is_literal(const struct expr *x, struct str *text)
{
    if (x->kind != EXPR_LITERAL)
        return false;
    if (text)
        *text = x->parts->text;
    return true;
}

bool expr_uses_captures(const struct expr *x)
{
    return x->max_capture > 0;
}

unsigned expr_max_capture(const struct expr *x)
{
    return x->max_capture;
}

struct str expr_source(const struct expr *x)
{
    return x->source;
}

/* Evaluating --------------------------------------------------------------------------------- */

static struct str capture(const struct eval *e, unsigned n)
{
    const struct regex_match *m = e->match;
    int from, to;

    if (m == NULL || n >= m->count)
        return STR("");
    from = m->pos[2 * n];
    to = m->pos[2 * n + 1];
    if (from < 0 || to < from || (size_t) to > e->match_subject.len)
        return STR("");
    return str_from(e->match_subject.ptr + from, (size_t) (to - from));
}

static struct str part_value(struct eval *e, const struct expr_part *part)
{
    struct str s;

    switch (part->kind) {
    case EXPR_VAR: var_value(e, part->var, &s); return s;
    case EXPR_CAPTURE: return capture(e, part->capture);
    default: return part->text;
    }
}

/*
 * The values one behind the other, after the prefix if the first byte does not make them absolute.
 */
static struct str join(struct eval *e, const struct expr *x, const struct str *values)
{
    size_t len = 0;
    bool absolute = false, decided = false;
    struct str prefix = x->prefix;
    char *start, *p;

    for (unsigned i = 0; i < x->count; i++) {
        if (!decided && values[i].len) {
            absolute = values[i].ptr[0] == '/';
            decided = true;
        }
        len += values[i].len;
    }
    if (prefix.ptr == NULL || absolute)
        prefix = STR("");
    start = p = arena_bytes(e->arena, prefix.len + len + 1);
    memcpy(p, prefix.ptr, prefix.len);
    p += prefix.len;
    for (unsigned i = 0; i < x->count; i++) {
        if (values[i].len)
            memcpy(p, values[i].ptr, values[i].len);
        p += values[i].len;
    }
    *p = '\0';
    return str_from(start, (size_t) (p - start));
}

static struct str eval_many(struct eval *e, const struct expr *x)
{
    struct str on_stack[PARTS_ON_STACK];
    struct str *values = on_stack;

    if (x->count > PARTS_ON_STACK)
        values = arena_alloc(e->arena, x->count * sizeof(*values));
    for (unsigned i = 0; i < x->count; i++)
        values[i] = part_value(e, &x->parts[i]);
    return join(e, x, values);
}

struct str expr_eval(struct eval *e, const struct expr *x)
{
    if (x->kind == EXPR_LITERAL)
        return x->parts->text;
    if (x->kind != EXPR_CONCAT && !(x->flags & EXPR_Z) && x->prefix.ptr == NULL)
        return part_value(e, x->parts);
    return eval_many(e, x);
}

static bool is_true(struct eval *e, const struct expr *x)
{
    struct str s = expr_eval(e, x);

    return s.len && !(s.len == 1 && s.ptr[0] == '0');
}

bool expr_any_true(struct eval *e, const struct expr_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        if (is_true(e, list->items[i]))
            return true;
    }
    return false;
}

bool expr_all_true(struct eval *e, const struct expr_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        if (!is_true(e, list->items[i]))
            return false;
    }
    return true;
}

uint64_t expr_size(struct eval *e, const struct expr_size *x)
{
    uint64_t n;

    if (x->expr == NULL)
        return x->value;
    return str_to_size(expr_eval(e, x->expr), &n) ? 0 : n;
}
