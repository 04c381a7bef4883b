/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rewrite module's directives, read into the short list of instructions that rewrite.c runs.
 * Called by the parser only.
 */
#include "modules/http/rewrite.h"

struct code *rewrite_add_code(struct conf *cf, enum code_op op)
{
    struct rewrite_conf *conf = rewrite_conf_of(cf, cf->level);
    struct code_list *list = conf->codes;
    struct code *code;

    if (list == NULL)
        list = conf->codes = ARENA_NEW(cf->arena, struct code_list);
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    code = &list->items[list->count++];
    memset(code, 0, sizeof(*code));
    code->op = op;
    code->pos = cf->pos;
    return code;
}

/* rewrite ---------------------------------------------------------------------------------------- */

static struct replace_part *add_part(struct conf *cf, struct replacement *out)
{
    out->parts = arena_grow(cf->arena, out->parts, out->count, &out->capacity,
                            sizeof(*out->parts));
    memset(&out->parts[out->count], 0, sizeof(*out->parts));
    return &out->parts[out->count++];
}

static const char *add_text(struct conf *cf, struct str text, struct replacement *out)
{
    const char *error = NULL;

    if (text.len == 0)
        return NULL;
    return (add_part(cf, out)->text = expr_compile(cf, text, 0, &error)) ? NULL : error;
}

static bool is_capture(struct str s, size_t at)
{
    return s.ptr[at] == '$' && at + 1 < s.len && s.ptr[at + 1] >= '1' && s.ptr[at + 1] <= '9';
}

const char *replacement_compile(struct conf *cf, struct str text, bool args, struct replacement *out)
{
    size_t from = 0, i = 0;
    const char *error;

    *out = (struct replacement){ .args_from = -1 };
    while (i < text.len) {
        bool capture = is_capture(text, i);

        if (!capture && !(args && text.ptr[i] == '?' && out->args_from < 0)) {
            i++;
            continue;
        }
        error = add_text(cf, str_from(text.ptr + from, i - from), out);
        if (error != NULL)
            return error;
        if (capture)
            add_part(cf, out)->capture = (unsigned) (text.ptr[i + 1] - '0');
        else
            out->args_from = (int) out->count;
        i += capture ? 2 : 1;
        from = i;
    }
    return add_text(cf, str_from(text.ptr + from, i - from), out);
}

const char *rewrite_compile(struct conf *cf, unsigned arg, unsigned flags, struct value_code *out)
{
    const char *error = NULL;

    out->text = expr_compile(cf, cf->args[arg], flags, &error);
    if (out->text != NULL && flags == 0 && expr_uses_captures(out->text)) {
        out->parts = ARENA_NEW(cf->arena, struct replacement);
        error = replacement_compile(cf, cf->args[arg], false, out->parts);
    }
    return error != NULL ? conf_error_arg(cf, arg, "%s", error) : NULL;
}

static bool is_url(struct str s)
{
    return str_starts(s, STR("http://")) || str_starts(s, STR("https://"))
           || str_starts(s, STR("$scheme"));
}

static const char *rewrite_flag(struct conf *cf, struct rewrite_code *code)
{
    struct str flag = cf->args[3];

    if (str_eq(flag, STR("last"))) {
        code->last = true;
    } else if (str_eq(flag, STR("break"))) {
        code->last = code->is_break = true;
    } else if (str_eq(flag, STR("redirect"))) {
        code->status = 302;
    } else if (str_eq(flag, STR("permanent"))) {
        code->status = 301;
    } else {
        return conf_error_arg(cf, 3, "invalid parameter \"%.*s\"", STR_ARG(flag));
    }
    return NULL;
}

const char *set_rewrite(struct conf *cf, void *field)
{
    struct rewrite_code code = { .keep_args = true };
    struct str to = cf->args[2];
    const char *error;

    (void) field;
    if (to.len == 0)
        return conf_error(cf, "empty replacement");
    error = http_regex(cf, 1, cf->args[1], false, &code.regex, &code.captures);
    if (error != NULL)
        return error;
    if (is_url(to))
        code.status = 302;
    if (cf->nargs == 4 && (error = rewrite_flag(cf, &code)) != NULL)
        return error;
    /* A final "?" drops the request's own arguments. */
    if (to.ptr[to.len - 1] == '?') {
        to.len--;
        code.keep_args = false;
    }
    code.has_args = str_chr(to, '?') >= 0;
    error = replacement_compile(cf, to, code.status == 0, &code.to);
    if (error != NULL)
        return conf_error_arg(cf, 2, "%s", error);
    rewrite_add_code(cf, CODE_REWRITE)->rewrite = code;
    return NULL;
}

/* return, set, break ----------------------------------------------------------------------------- */

const char *set_return(struct conf *cf, void *field)
{
    struct return_code code = { 0, NULL };
    struct str first = cf->args[1], text = STR("");
    unsigned arg = 2;
    uint64_t status;
    const char *error = NULL;

    (void) field;
    if (str_to_u64(first, &status) != 0) {
        if (cf->nargs != 2 || !is_url(first))
            return conf_error_arg(cf, 1, "invalid return code \"%.*s\"", STR_ARG(first));
        status = 302;
        text = first;
        arg = 1;
    } else {
        if (status > 999)
            return conf_error_arg(cf, 1, "invalid return code \"%.*s\"", STR_ARG(first));
        if (cf->nargs == 3)
            text = cf->args[2];
    }
    code.status = (unsigned) status;
    if (text.len > 0 && (code.text = expr_compile(cf, text, 0, &error)) == NULL)
        return conf_error_arg(cf, arg, "%s", error);
    rewrite_add_code(cf, CODE_RETURN)->ret = code;
    return NULL;
}

const char *set_break(struct conf *cf, void *field)
{
    (void) field;
    rewrite_add_code(cf, CODE_BREAK);
    return NULL;
}

static bool uninitialized(struct eval *e, const struct var *v, struct str *out)
{
    const struct req *r = req_of(e);
    const struct rewrite_conf *conf = req_loc_conf(r, rewrite_index());

    if (conf->warn)
        log_warn(&r->log, 0, "using uninitialized \"%.*s\" variable", STR_ARG(v->name));
    *out = STR("");
    return true;
}

const char *set_set(struct conf *cf, void *field)
{
    struct str name = cf->args[1];
    struct set_code code = { NULL };
    const char *error = NULL;
    struct var *v;

    (void) field;
    if (name.len < 2 || name.ptr[0] != '$')
        return conf_error_arg(cf, 1, "invalid variable name \"%.*s\"", STR_ARG(name));
    name = str_skip(name, 1);
    v = var_define(cf, conf_var_space(cf), name, VAR_CHANGEABLE | VAR_WEAK, &error);
    if (v == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (v->get == NULL && v->set == NULL)
        v->get = uninitialized;
    code.var = var_refer(cf, conf_var_space(cf), name);
    error = rewrite_compile(cf, 2, 0, &code.value);
    if (error != NULL)
        return error;
    rewrite_add_code(cf, CODE_SET)->set = code;
    return NULL;
}
