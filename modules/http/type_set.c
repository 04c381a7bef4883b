/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of media types, shared by the filters that have a NAME_types directive. */
#include "modules/http/type_set.h"

#define TYPE_MAX 128 /* longer ones are in no set that anybody writes */

/* What it finds, of names that are no key yet: any pointer will do. */
static char present;

/* A row's default is set as if it stood where its block begins; text/html is in already. */
static bool is_default(const struct conf *cf)
{
    return cf->pos.line == cf->level->pos.line && cf->pos.column == cf->level->pos.column;
}

const char *type_set_setter(struct conf *cf, void *field)
{
    struct type_set **member = field, *set = *member;

    if (set == NULL) {
        set = *member = ARENA_NEW(cf->arena, struct type_set);
        table_init(&set->names, cf->arena);
        table_put(&set->names, STR("text/html"), &present);
        if (is_default(cf))
            return NULL;
    }
    for (unsigned i = 1; i < cf->nargs && !set->any; i++) {
        struct str name = str_lower(cf->arena, cf->args[i]);

        if (str_eq(name, STR("*")))
            set->any = true;
        else if (table_put(&set->names, name, &present) != NULL)
            conf_warn_at(cf, cf->pos, "duplicate MIME type \"%.*s\"", STR_ARG(name));
    }
    return NULL;
}

bool type_set_has(const struct type_set *set, const struct req *r)
{
    struct str type;
    char lower[TYPE_MAX];
    size_t len = 0;

    if (set->any)
        return true;
    type = fields_value(&r->out.fields, T_CONTENT_TYPE);
    while (len < type.len && len < sizeof(lower) && type.ptr[len] != ';') {
        lower[len] = (char) ascii_lower((unsigned char) type.ptr[len]);
        len++;
    }
    if (len == sizeof(lower))
        return false;
    while (len > 0 && (lower[len - 1] == ' ' || lower[len - 1] == '\t'))
        len--;
    return len > 0 && table_get(&set->names, str_from(lower, len)) != NULL;
}
