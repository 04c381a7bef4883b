/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * match: what an answer to a health check must look like. Read from a block of lines, each of which
 * is a test; all must pass. Knows nothing of how the answer was got.
 */
#include "modules/upstream/internal.h"

#define STATUS_MIN 100
#define STATUS_MAX 599

struct status_range {
    unsigned from, to;
};

/* status [!] N | N-M ... */
struct status_test {
    struct status_range *ranges;
    unsigned count, capacity;
    bool none; /* it must be none of them */
};

enum header_op {
    HEADER_PRESENT,
    HEADER_ABSENT,
    HEADER_EQUAL,
    HEADER_OTHER,
    HEADER_LIKE,
    HEADER_UNLIKE
};

struct header_test {
    struct str name, value;
    struct regex *regex;
    enum header_op op;
};

struct body_test {
    struct regex *regex;
    bool unlike;
};

struct health_match {
    struct status_test *statuses;
    unsigned status_count, status_capacity;
    struct header_test *headers;
    unsigned header_count, header_capacity;
    struct body_test *bodies;
    unsigned body_count, body_capacity;
    struct expr_list required;
};

/* Judging -------------------------------------------------------------------------------------- */

bool health_match_body(const struct health_match *m)
{
    return m != NULL && m->body_count > 0;
}

bool health_match_variables(const struct health_match *m)
{
    return m != NULL && m->required.count > 0;
}

static bool status_is_in(const struct status_test *t, unsigned status)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (status >= t->ranges[i].from && status <= t->ranges[i].to)
            return true;
    }
    return false;
}

const char *health_match_status(const struct health_match *m, const struct msg *head,
                                struct arena *arena)
{
    bool fits = true;

    if (m == NULL)
        fits = head->status >= 200 && head->status < 400;
    for (unsigned i = 0; m != NULL && i < m->status_count; i++)
        fits &= status_is_in(&m->statuses[i], head->status) != m->statuses[i].none;
    return fits ? NULL : str_printf(arena, "the status is %u", head->status).ptr;
}

/* 1, 0, or -1 where the engine gave up, which is no match of either kind. */
static int matches(const struct regex *re, struct str subject)
{
    return regex_exec(re, subject, NULL);
}

/* Whether a field of that name has the value. */
static bool has_value(const struct header_test *t, const struct fields *f,
                      const struct field *first)
{
    for (const struct field *item = first; item != NULL; item = fields_next(f, item)) {
        if (str_eq(item->value, t->value))
            return true;
    }
    return false;
}

/* Whether the value of some field of that name matches; -1: that cannot be said. */
static int has_match(const struct header_test *t, const struct fields *f, const struct field *first)
{
    for (const struct field *item = first; item != NULL; item = fields_next(f, item)) {
        int rc = matches(t->regex, item->value);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static bool header_passes(const struct header_test *t, const struct fields *f)
{
    const struct field *first = fields_find(f, t->name);

    if (first == NULL)
        return t->op == HEADER_ABSENT;
    switch (t->op) {
    case HEADER_ABSENT: return false;
    case HEADER_EQUAL: return has_value(t, f, first);
    case HEADER_OTHER: return !has_value(t, f, first);
    case HEADER_LIKE: return has_match(t, f, first) > 0;
    case HEADER_UNLIKE: return has_match(t, f, first) == 0;
    default: return true;
    }
}

const char *health_match_fields(const struct health_match *m, const struct msg *head,
                                struct arena *arena)
{
    for (unsigned i = 0; m != NULL && i < m->header_count; i++) {
        const struct header_test *t = &m->headers[i];
        const struct field *first = fields_find(&head->fields, t->name);

        if (header_passes(t, &head->fields))
            continue;
        if (first == NULL)
            return str_printf(arena, "there is no header \"%.*s\"", STR_ARG(t->name)).ptr;
        return str_printf(arena, "the header is \"%.*s: %.*s\"", STR_ARG(first->name),
                          (int) MIN(first->value.len, 200), first->value.ptr)
            .ptr;
    }
    return NULL;
}

const char *health_match_text(const struct health_match *m, struct str body, struct arena *arena)
{
    for (unsigned i = 0; m != NULL && i < m->body_count; i++) {
        const struct body_test *t = &m->bodies[i];
        int rc = matches(t->regex, body);

        if (rc < 0)
            return str_printf(arena, "%s on the body using \"%.*s\"", regex_error(),
                              STR_ARG(regex_pattern(t->regex)))
                .ptr;
        if ((rc > 0) == t->unlike)
            return str_printf(arena, "the body of %zu bytes %s \"%.*s\"", body.len,
                              rc > 0 ? "matches" : "does not match",
                              STR_ARG(regex_pattern(t->regex)))
                .ptr;
    }
    return NULL;
}

const char *health_match_require(const struct health_match *m, struct eval *e)
{
    for (unsigned i = 0; m != NULL && i < m->required.count; i++) {
        struct str value = expr_eval(e, m->required.items[i]);

        if (value.len == 0 || str_eq(value, STR("0")))
            return str_printf(e->arena, "%.*s is \"%.*s\"",
                              STR_ARG(expr_source(m->required.items[i])), STR_ARG(value))
                .ptr;
    }
    return NULL;
}

/* Reading -------------------------------------------------------------------------------------- */

static const char *invalid(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid parameter \"%s\"", cf->args[arg].ptr);
}

static const char *wrong_number(struct conf *cf)
{
    return conf_error(cf, "invalid number of arguments in \"%s\" directive", cf->args[0].ptr);
}

static int parse_range(struct str text, struct status_range *range)
{
    ssize_t dash = str_chr(text, '-');
    struct str first = dash < 0 ? text : str_from(text.ptr, (size_t) dash);
    struct str last = dash < 0 ? text : str_skip(text, (size_t) dash + 1);
    uint64_t from, to;

    if (str_to_u64(first, &from) != 0 || str_to_u64(last, &to) != 0 || from < STATUS_MIN ||
        to > STATUS_MAX || from > to)
        return -1;
    *range = (struct status_range){ (unsigned) from, (unsigned) to };
    return 0;
}

static const char *add_status(struct conf *cf, struct health_match *m)
{
    struct status_test t = { .none = cf->nargs > 1 && str_eq(cf->args[1], STR("!")) };
    unsigned first = t.none ? 2 : 1;

    if (first >= cf->nargs)
        return wrong_number(cf);
    for (unsigned i = first; i < cf->nargs; i++) {
        t.ranges = arena_grow(cf->arena, t.ranges, t.count, &t.capacity, sizeof(*t.ranges));
        if (parse_range(cf->args[i], &t.ranges[t.count++]) != 0)
            return conf_error_arg(cf, i, "invalid status \"%s\"", cf->args[i].ptr);
    }
    m->statuses = arena_grow(cf->arena, m->statuses, m->status_count, &m->status_capacity,
                             sizeof(*m->statuses));
    m->statuses[m->status_count++] = t;
    return NULL;
}

static const char *compile(struct conf *cf, unsigned arg, struct regex **re)
{
    struct str error;

    *re = regex_compile(cf->arena, cf->args[arg], false, &error);
    return *re != NULL ? NULL : conf_error_arg(cf, arg, "%.*s", STR_ARG(error));
}

/* header NAME | ! NAME | NAME OP VALUE */
static const char *add_header(struct conf *cf, struct health_match *m)
{
    static const struct {
        const char *text;
        enum header_op op;
    } ops[] = {
        { "=", HEADER_EQUAL },
        { "!=", HEADER_OTHER },
        { "~", HEADER_LIKE },
        { "!~", HEADER_UNLIKE },
    };
    struct header_test t = { .name = cf->nargs > 1 ? cf->args[1] : STR_NULL };
    const char *error = NULL;

    if (cf->nargs == 3 && str_eq(t.name, STR("!"))) {
        t.op = HEADER_ABSENT;
        t.name = cf->args[2];
    } else if (cf->nargs == 4) {
        for (unsigned i = 0; i < ARRAY_LEN(ops) && t.op == HEADER_PRESENT; i++) {
            if (str_eq(cf->args[2], str_cstr(ops[i].text)))
                t.op = ops[i].op;
        }
        if (t.op == HEADER_PRESENT)
            return invalid(cf, 2);
        t.value = cf->args[3];
        if (t.op == HEADER_LIKE || t.op == HEADER_UNLIKE)
            error = compile(cf, 3, &t.regex);
    } else if (cf->nargs != 2) {
        return wrong_number(cf);
    }
    if (error == NULL && !is_token(t.name))
        return conf_error(cf, "invalid header name \"%.*s\"", STR_ARG(t.name));
    m->headers = arena_grow(cf->arena, m->headers, m->header_count, &m->header_capacity,
                            sizeof(*m->headers));
    m->headers[m->header_count++] = t;
    return error;
}

static const char *add_body(struct conf *cf, struct health_match *m)
{
    struct body_test t = { .regex = NULL };
    const char *error;

    if (cf->nargs != 3)
        return wrong_number(cf);
    t.unlike = str_eq(cf->args[1], STR("!~"));
    if (!t.unlike && !str_eq(cf->args[1], STR("~")))
        return invalid(cf, 1);
    error = compile(cf, 2, &t.regex);
    m->bodies =
        arena_grow(cf->arena, m->bodies, m->body_count, &m->body_capacity, sizeof(*m->bodies));
    m->bodies[m->body_count++] = t;
    return error;
}

static const char *add_required(struct conf *cf, struct health_match *m)
{
    struct expr_list *list = &m->required;

    if (cf->nargs < 2)
        return wrong_number(cf);
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct expr *x;
        const char *error;

        if (!str_starts(cf->args[i], STR("$")))
            return conf_error_arg(cf, i, "invalid variable name \"%s\"", cf->args[i].ptr);
        error = conf_arg_expr(cf, i, &x);
        if (error != NULL)
            return error;
        list->items =
            arena_grow(cf->arena, list->items, list->count, &list->capacity, sizeof(*list->items));
        list->items[list->count++] = x;
    }
    return NULL;
}

static const char *match_line(struct conf *cf, void *data)
{
    static const struct {
        const char *name;
        const char *(*add)(struct conf *cf, struct health_match *m);
    } tests[] = {
        { "status", add_status },
        { "header", add_header },
        { "body", add_body },
        { "require", add_required },
    };

    for (unsigned i = 0; i < ARRAY_LEN(tests); i++) {
        if (str_eq(cf->args[0], str_cstr(tests[i].name)))
            return tests[i].add(cf, data);
    }
    return conf_error_arg(cf, 0, "unknown directive \"%s\"", cf->args[0].ptr);
}

const char *health_set_match(struct conf *cf, void *field)
{
    struct table *matches = &upstream_main_of(cf)->matches;
    struct health_match *m = ARENA_NEW(cf->arena, struct health_match);

    (void) field;
    if (table_get(matches, cf->args[1]) != NULL)
        return conf_error_arg(cf, 1, "duplicate match \"%s\"", cf->args[1].ptr);
    table_put(matches, cf->args[1], m);
    return conf_lines(cf, match_line, m);
}

const struct health_match *health_match_find(struct conf *cf, struct str name)
{
    return table_get(&upstream_main_of(cf)->matches, name);
}
