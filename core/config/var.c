/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Variables: the names of one space (http's or stream's), their definitions by modules' tables and
 * by directives in any order, and the values of one subject, computed when first asked for. Knows
 * of no request: what computes a value is a module's function.
 */
#include "core/config/expr.h"
#include "core/config/parse.h"

#define NAME_MAX_LOWER 128 /* longer names are lowered in the arena */

void var_space_init(struct var_space *s, struct arena *arena)
{
    *s = (struct var_space){ .arena = arena };
    table_init(&s->names, arena);
}

static bool is_lower(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z')
            return false;
    }
    return true;
}

static struct var *find(const struct var_space *s, struct str name)
{
    char lower[NAME_MAX_LOWER];

    if (is_lower(name))
        return table_get(&s->names, name);
    if (name.len > sizeof(lower))
        return NULL;
    for (size_t i = 0; i < name.len; i++)
        lower[i] = (char) ascii_lower((unsigned char) name.ptr[i]);
    return table_get(&s->names, str_from(lower, name.len));
}

static struct var *find_or_add(struct var_space *s, struct str name)
{
    struct var *v = find(s, name);

    if (v)
        return v;
    name = str_lower(s->arena, name);
    v = table_get(&s->names, name); /* a long name in capitals */
    if (v)
        return v;
    v = ARENA_NEW(s->arena, struct var);
    v->name = name;
    v->index = -1;
    table_put(&s->names, name, v);
    return v;
}

static void add_prefix(struct var_space *s, const struct var_row *row)
{
    unsigned i;

    s->prefixes = arena_grow(s->arena, s->prefixes, s->prefix_count, &s->prefix_capacity,
        sizeof(*s->prefixes));
    for (i = s->prefix_count++; i > 0 && strlen(s->prefixes[i - 1]->name) < strlen(row->name); i--)
        s->prefixes[i] = s->prefixes[i - 1];
    s->prefixes[i] = row;
}

void var_space_rows(struct var_space *s, const struct var_row *rows)
{
    for (; rows && rows->name; rows++) {
        struct var *v;

        ASSERT(is_lower(str_cstr(rows->name)));
        if (rows->flags & VAR_PREFIX) {
            add_prefix(s, rows);
            continue;
        }
        v = find_or_add(s, str_cstr(rows->name));
        ASSERT(v->get == NULL && !(v->flags & VAR_WEAK));
        v->get = rows->get;
        v->set = rows->set;
        v->data = rows->data;
        v->flags = rows->flags;
    }
}

static const struct var_row *find_prefix(const struct var_space *s, struct str name)
{
    for (unsigned i = 0; i < s->prefix_count; i++) {
        if (str_casestarts(name, str_cstr(s->prefixes[i]->name)))
            return s->prefixes[i];
    }
    return NULL;
}

static void take_prefix(struct var *v, const struct var_row *row)
{
    v->get = row->get;
    v->set = row->set;
    v->data = row->data;
    v->flags = row->flags;
    v->suffix = str_skip(v->name, strlen(row->name));
}

static bool is_name(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char) name.ptr[i];

        if (c == '\0')
            return false;
    }
    return name.len > 0;
}

struct var *var_define(struct conf *cf, struct var_space *s, struct str name, unsigned flags,
                       const char **error)
{
    struct var *v;

    if (!is_name(name)) {
        *error = conf_error(cf, "invalid variable name \"$%.*s\"", STR_ARG(name));
        return NULL;
    }
    v = find_or_add(s, name);
    if (v->get == NULL && v->flags == 0) {
        v->flags = flags;
        return v;
    }
    if (!(v->flags & VAR_CHANGEABLE)) {
        *error = conf_error(cf, "the duplicate \"%s\" variable", v->name.ptr);
        return NULL;
    }
    if (!(flags & VAR_WEAK))
        v->flags &= ~(unsigned) VAR_WEAK;
    return v;
}

const char *conf_define_var(struct conf *cf, unsigned n, var_get *get, const void *data,
                            struct var **v)
{
    struct str name = cf->args[n];
    const char *error = NULL;

    if (name.len < 2 || name.ptr[0] != '$')
        return conf_error_arg(cf, n, "invalid variable name \"%.*s\"", STR_ARG(name));
    *v = var_define(cf, conf_var_space(cf), str_skip(name, 1), VAR_CHANGEABLE, &error);
    if (*v == NULL)
        return conf_error_arg(cf, n, "%s", error);
    (*v)->get = get;
    (*v)->data = (uintptr_t) data;
    return NULL;
}

struct var *var_refer(struct conf *cf, struct var_space *s, struct str name)
{
    struct var *v = find_or_add(s, name);

    if (v->index >= 0)
        return v;
    s->indexed = arena_grow(s->arena, s->indexed, s->count, &s->capacity, sizeof(*s->indexed));
    v->index = (int) s->count;
    s->indexed[s->count++] = v;
    v->pos = cf->pos;
    return v;
}

static const char *near_variable(struct conf *cf, const struct var_space *s, struct str name)
{
    struct str *names = ARENA_ARRAY(cf->arena, struct str, s->names.count);
    const struct table_entry *e;
    unsigned i = 0, n = 0;
    int nearest;

    while ((e = table_next(&s->names, &i)) != NULL) {
        const struct var *v = e->value;

        if (v->get || (v->flags & VAR_WEAK))
            names[n++] = v->name;
    }
    nearest = error_nearest(name, names, n);
    if (nearest < 0)
        return NULL;
    return str_printf(cf->arena, "did you mean \"$%.*s\"?", STR_ARG(names[nearest])).ptr;
}

int var_space_check(struct conf *cf, struct var_space *s)
{
    int rc = 0;

    for (unsigned i = 0; i < s->count; i++) {
        struct var *v = s->indexed[i];
        const struct var_row *row;

        if (v->get && !(v->flags & VAR_WEAK))
            continue;
        row = find_prefix(s, v->name);
        if (row) {
            unsigned flags = v->flags;

            take_prefix(v, row);
            v->flags |= flags;
        }
        if (v->get || (v->flags & VAR_WEAK))
            continue;
        error_report(cf, v->pos, conf_error(cf, "unknown \"%s\" variable", v->name.ptr),
            near_variable(cf, s, v->name));
        rc = -1;
    }
    return rc;
}

/* Values ------------------------------------------------------------------------------------- */

static struct value *slot_of(struct eval *e, const struct var *v)
{
    if (unlikely(*e->values == NULL))
        *e->values = ARENA_ARRAY(e->arena, struct value, e->space->count);
    return &(*e->values)[v->index];
}

static bool compute(struct eval *e, const struct var *v, struct str *out)
{
    *out = STR("");
    if (v->get == NULL || !v->get(e, v, out)) {
        *out = STR("");
        return false;
    }
    return true;
}

bool var_value(struct eval *e, const struct var *v, struct str *out)
{
    struct value *slot;
    bool found;

    if (unlikely(v->index < 0))
        return compute(e, v, out);
    slot = slot_of(e, v);
    if (slot->state == VALUE_FOUND) {
        *out = slot->str;
        return true;
    }
    *out = STR("");
    if (slot->state == VALUE_ABSENT)
        return false;
    if (unlikely(slot->state == VALUE_BUSY)) {
        log_error(e->log, 0, "cycle while evaluating variable \"%.*s\"", STR_ARG(v->name));
        return false;
    }
    slot->state = VALUE_BUSY;
    found = compute(e, v, out);
    /* The function may have stored a value itself (a map that sets captures, a cycle's end). */
    if (v->flags & VAR_FRESH) {
        if (slot->state == VALUE_BUSY)
            slot->state = VALUE_UNKNOWN;
        return found;
    }
    slot->str = *out;
    slot->state = found ? VALUE_FOUND : VALUE_ABSENT;
    return found;
}

void var_store(struct eval *e, const struct var *v, struct str value)
{
    struct value *slot;

    if (v->index < 0)
        return;
    slot = slot_of(e, v);
    slot->str = value;
    slot->state = VALUE_FOUND;
}

void var_forget(struct eval *e, const struct var *v)
{
    if (v->index >= 0 && *e->values)
        (*e->values)[v->index].state = VALUE_UNKNOWN;
}

bool var_by_name(struct eval *e, struct str name, struct str *out)
{
    const struct var *v = find(e->space, name);
    const struct var_row *row;
    struct var instance = { .index = -1 };

    if (v && (v->get || v->index >= 0))
        return var_value(e, v, out);
    *out = STR("");
    row = find_prefix(e->space, name);
    if (row == NULL)
        return false;
    instance.name = is_lower(name) ? name : str_lower(e->arena, name);
    take_prefix(&instance, row);
    return compute(e, &instance, out);
}
