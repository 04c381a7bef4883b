/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * num_map: a variable whose value is looked up by a number: single numbers come first, then the
 * ranges in the order of the file, then the default. At load all of that becomes one sorted list of
 * intervals, so that a look-up is a binary search. Numbers may have up to nine decimals, for times.
 */
#include <stdlib.h>

#include "core/http/req.h"

/* configure: switch=http_num_map_module default=on */

#define SCALE 1000000000 /* a number is kept in units of 1/SCALE */

static unsigned num_map_slot;

typedef __int128 number;

struct interval {
    number first, last; /* both belong to it */
    const struct expr *value;
};

struct num_map {
    struct expr *source;
    struct expr *fallback;     /* NULL: empty */
    struct interval *items;    /* in order, not touching each other's numbers */
    unsigned count;
    bool is_volatile;
    struct conf_pos pos;
};

/* An integer part, an optional fraction: the number at the front of *text, which is then what follows. */
static bool take_number(struct str *text, number *out)
{
    bool minus = text->len > 0 && text->ptr[0] == '-';
    size_t i = minus ? 1 : 0, from = i;
    uint64_t whole, fraction = 0;
    number n;

    while (i < text->len && text->ptr[i] >= '0' && text->ptr[i] <= '9')
        i++;
    if (str_to_u64(str_from(text->ptr + from, i - from), &whole) != 0)
        return false;
    if (i < text->len && text->ptr[i] == '.') {
        uint64_t unit = SCALE;

        for (from = ++i; i < text->len && text->ptr[i] >= '0' && text->ptr[i] <= '9'; i++) {
            unit /= 10;
            fraction += unit * (uint64_t) (text->ptr[i] - '0'); /* beyond the ninth: cut off */
        }
        if (i == from)
            return false;
    }
    n = (number) whole * SCALE + (number) fraction;
    *out = minus ? -n : n;
    *text = str_skip(*text, i);
    return true;
}

/* Looking up ------------------------------------------------------------------------------------- */

static const struct expr *find(const struct num_map *m, number n)
{
    unsigned low = 0, high = m->count;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (m->items[middle].first <= n)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && n <= m->items[low - 1].last ? m->items[low - 1].value : NULL;
}

static bool get_num_map(struct eval *e, const struct var *v, struct str *out)
{
    const struct num_map *m = (const struct num_map *) v->data;
    struct str key = str_trim(expr_eval(e, m->source)), text = key;
    const struct expr *x = NULL;
    number n;

    if (take_number(&text, &n) && text.len == 0)
        x = find(m, n);
    if (x == NULL)
        x = m->fallback;
    *out = x != NULL ? expr_eval(e, x) : STR("");
    req_trace(req_of(e), m->pos, "num_map makes $%.*s \"%.*s\" of \"%.*s\"", STR_ARG(v->name),
              STR_ARG(*out), STR_ARG(key));
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

/* A line of the block. */
struct rule {
    struct interval interval;
    bool single;
};

struct num_block {
    struct num_map *map;
    struct rule *rules;
    unsigned count, capacity;
};

#define NUMBER_MAX ((number) UINT64_MAX * SCALE + SCALE)

/* "80", "8080-8090", "<1024", "<=1023", ">1", ">=1". */
static bool parse_rule(struct str text, struct rule *rule)
{
    struct interval *x = &rule->interval;
    char op = text.len > 0 ? text.ptr[0] : '\0';
    bool equal;
    number n;

    if (op == '<' || op == '>') {
        equal = text.len > 1 && text.ptr[1] == '=';
        text = str_skip(text, equal ? 2 : 1);
        if (!take_number(&text, &n) || text.len > 0)
            return false;
        x->first = op == '<' ? -NUMBER_MAX : equal ? n : n + 1;
        x->last = op == '>' ? NUMBER_MAX : equal ? n : n - 1;
        return true;
    }
    if (!take_number(&text, &x->first))
        return false;
    x->last = x->first;
    if (text.len == 0)
        return rule->single = true;
    if (text.ptr[0] != '-')
        return false;
    text = str_skip(text, 1);
    return take_number(&text, &x->last) && text.len == 0 && x->first <= x->last;
}

static const char *num_map_line(struct conf *cf, void *data)
{
    struct num_block *block = data;
    struct str key = cf->args[0];
    struct rule rule = { .single = false };
    struct expr *value;
    const char *error;

    if (cf->nargs == 1 && str_eq(key, STR("volatile"))) {
        block->map->is_volatile = true;
        return NULL;
    }
    if (cf->nargs != 2)
        return conf_error(cf, "invalid number of the num_map parameters");
    if ((error = conf_arg_expr(cf, 1, &value)) != NULL)
        return error;
    if (str_eq(key, STR("default"))) {
        if (block->map->fallback != NULL)
            return conf_error_arg(cf, 0, "duplicate default num_map parameter");
        block->map->fallback = value;
        return NULL;
    }
    if (!parse_rule(key, &rule))
        return conf_error_arg(cf, 0, "invalid number or range \"%.*s\"", STR_ARG(key));
    rule.interval.value = value;
    block->rules = arena_grow(cf->arena, block->rules, block->count, &block->capacity,
                              sizeof(*block->rules));
    block->rules[block->count++] = rule;
    return NULL;
}

static int by_number(const void *a, const void *b)
{
    const number *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static unsigned index_of(const number *bounds, unsigned count, number n)
{
    const number *at = bsearch(&n, bounds, count, sizeof(*bounds), by_number);

    return (unsigned) (at - bounds);
}

/*
 * The bounds of all rules cut the numbers into cells. Each rule, the most important first, takes those of its cells
 * that are free; next[] leads over the taken ones, so that none is looked at twice.
 */
struct cells {
    number *bounds; /* where a cell begins */
    unsigned count;
    unsigned *next;
    const struct expr **values;
};

static unsigned first_free(struct cells *c, unsigned i)
{
    unsigned end = i;

    while (c->next[end] != end)
        end = c->next[end];
    while (c->next[i] != end) {
        unsigned then = c->next[i];

        c->next[i] = end;
        i = then;
    }
    return end;
}

static void paint(struct cells *c, const struct interval *x)
{
    unsigned end = index_of(c->bounds, c->count, x->last + 1);
    unsigned i = first_free(c, index_of(c->bounds, c->count, x->first));

    for (; i < end; i = first_free(c, i + 1)) {
        c->values[i] = x->value;
        c->next[i] = i + 1;
    }
}

static void make_cells(struct arena *arena, const struct num_block *block, struct cells *c)
{
    unsigned n = 0;

    c->bounds = ARENA_ARRAY(arena, number, 2 * (size_t) block->count + 1);
    for (unsigned i = 0; i < block->count; i++) {
        c->bounds[n++] = block->rules[i].interval.first;
        c->bounds[n++] = block->rules[i].interval.last + 1;
    }
    qsort(c->bounds, n, sizeof(*c->bounds), by_number);
    for (unsigned i = 0; i < n; i++) {
        if (i == 0 || c->bounds[i] != c->bounds[c->count - 1])
            c->bounds[c->count++] = c->bounds[i];
    }
    c->next = ARENA_ARRAY(arena, unsigned, (size_t) c->count + 1);
    c->values = ARENA_ARRAY(arena, const struct expr *, (size_t) c->count + 1);
    for (unsigned i = 0; i <= c->count; i++)
        c->next[i] = i;
}

static void build(struct arena *arena, const struct num_block *block)
{
    struct num_map *m = block->map;
    struct cells c = { .count = 0 };

    make_cells(arena, block, &c);
    for (unsigned i = 0; i < block->count; i++) {
        if (block->rules[i].single)
            paint(&c, &block->rules[i].interval);
    }
    for (unsigned i = 0; i < block->count; i++) {
        if (!block->rules[i].single)
            paint(&c, &block->rules[i].interval);
    }
    m->items = ARENA_ARRAY(arena, struct interval, c.count);
    for (unsigned i = 0; i + 1 < c.count; i++) {
        if (c.values[i] != NULL)
            m->items[m->count++]
                = (struct interval){ c.bounds[i], c.bounds[i + 1] - 1, c.values[i] };
    }
}

static const char *set_num_map(struct conf *cf, void *field)
{
    struct num_map *m = ARENA_NEW(cf->arena, struct num_map);
    struct num_block block = { .map = m };
    const char *error;
    struct var *v;

    (void) field;
    m->pos = cf->pos;
    if (cf->nargs == 2)
        return conf_error(cf, "the number that $%s depends on must be given",
                          cf->args[1].ptr + (cf->args[1].ptr[0] == '$'));
    error = conf_arg_expr(cf, 1, &m->source);
    if (error == NULL)
        error = conf_define_var(cf, 2, get_num_map, m, &v);
    if (error != NULL)
        return error;
    error = conf_lines(cf, num_map_line, &block);
    if (m->is_volatile)
        v->flags |= VAR_FRESH;
    build(cf->arena, &block);
    return error;
}

static const struct directive directives[] = {
    ROW_CALL("num_map", CTX_HTTP, ARGS12 | ARG_BLOCK | ARG_REPEAT, set_num_map, STORE_MAIN,
             "$number $variable { ... }", "A variable whose value depends on a number."),
    ROW_END,
};

static const struct http_module http_num_map = { .variables = NULL };

const struct module module_http_num_map = {
    .name = "http_num_map",
    .slot = &num_map_slot,
    .directives = directives,
    .http = &http_num_map,
};
