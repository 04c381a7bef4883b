/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lists of media types that a filter is asked for. Called by setters of modules and by their
 * filters.
 */
#include "core/http/mime_types.h"

static bool holds(const struct mime_types *types, struct str type)
{
    for (unsigned i = 0; i < types->names.count; i++) {
        if (str_caseeq(types->names.items[i], type))
            return true;
    }
    return false;
}

/* A row's default says all that is meant, text/html too. */
static bool is_default(const struct conf *cf)
{
    const struct conf_pos *block = &cf->level->pos;

    return cf->pos.line == block->line && cf->pos.column == block->column &&
           cf->pos.file == block->file;
}

const char *conf_set_mime_types(struct conf *cf, void *field)
{
    struct mime_types *types = field;

    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str type = str_lower(cf->arena, cf->args[i]);

        if (str_eq(type, STR("*")))
            types->any = true;
        else if (!str_eq(type, STR("text/html")) && !holds(types, type))
            str_list_add(cf->arena, &types->names, type);
        else if (!is_default(cf))
            conf_warn_at(cf, cf->pos, "duplicate MIME type \"%.*s\"", STR_ARG(cf->args[i]));
    }
    return NULL;
}

bool mime_types_match(const struct mime_types *types, const struct req *r)
{
    struct str type = fields_value(&r->out.fields, T_CONTENT_TYPE);
    ssize_t end = str_chr(type, ';');

    if (type.len == 0)
        return false;
    if (end >= 0)
        type.len = (size_t) end;
    type = str_trim(type);
    return types->any || str_caseeq(type, STR("text/html")) || holds(types, type);
}
