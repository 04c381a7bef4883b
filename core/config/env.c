/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ${env:NAME} and ${env:NAME:-default} in the words of a configuration, replaced while it is read. The
 * value is part of its word, whatever is in it: blanks, quotes, ";" and braces have no meaning there.
 * As in a shell the default also stands for an empty value. Called by the parser.
 */
#include "core/config/parse.h"

static const struct str opening = STR_INIT("${env:");

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = ascii_lower((unsigned char) s.ptr[i]);

        if (!(c >= 'a' && c <= 'z') && c != '_' && !(i && c >= '0' && c <= '9'))
            return false;
    }
    return s.len > 0;
}

/* The new program of an upgrade will need it too. */
static void remember(struct conf *cf, struct str name)
{
    struct str_list *list = &cf->config->env;

    for (unsigned i = 0; i < list->count; i++) {
        if (str_eq(list->items[i], name))
            return;
    }
    str_list_add(cf->arena, list, name);
}

/* What stands between "${env:" and "}". NULL, or a sentence. */
static const char *value_of(struct conf *cf, struct str text, struct str *out)
{
    ssize_t dash = str_find(text, STR(":-"));
    struct str name = dash < 0 ? text : str_from(text.ptr, (size_t) dash);
    const char *value;

    if (!is_name(name))
        return conf_error(cf, "invalid name of an environment variable in \"${env:%.*s}\"",
                          STR_ARG(text));
    name = str_dup(cf->arena, name);
    remember(cf, name);
    value = getenv(name.ptr);
    if (value && (value[0] || dash < 0)) {
        *out = str_dup(cf->arena, str_cstr(value));
        return NULL;
    }
    if (dash < 0)
        return conf_error(cf, "environment variable \"%s\" is not set", name.ptr);
    *out = str_skip(text, (size_t) dash + 2);
    return NULL;
}

const char *env_expand(struct conf *cf, struct str *word)
{
    struct str rest = *word, done = STR("");
    ssize_t at = str_find(rest, opening);

    if (likely(at < 0))
        return NULL;
    for (; at >= 0; at = str_find(rest, opening)) {
        struct str value = STR(""), inside = str_skip(rest, (size_t) at + opening.len);
        ssize_t end = str_chr(inside, '}');
        const char *error;

        if (end < 0)
            return conf_error(cf, "the closing bracket in \"%.*s\" is missing",
                              STR_ARG(str_skip(rest, (size_t) at)));
        error = value_of(cf, str_from(inside.ptr, (size_t) end), &value);
        if (error)
            return error;
        if (done.len + (size_t) at + value.len > CONF_WORD_MAX)
            return conf_error(cf, "too long parameter after \"${env:%.*s}\"", (int) end, inside.ptr);
        done = str_printf(cf->arena, "%.*s%.*s%.*s", STR_ARG(done), (int) at, rest.ptr,
                          STR_ARG(value));
        rest = str_skip(inside, (size_t) end + 1);
    }
    *word = str_printf(cf->arena, "%.*s%.*s", STR_ARG(done), STR_ARG(rest));
    return NULL;
}
