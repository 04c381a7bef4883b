/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * include: a file, or all files that match a mask in the order of their names. A mask without a
 * match is fine, a plain name without a file is so only if it is said to be optional. Called by the
 * parser wherever a directive may stand, and inside map-like blocks.
 */
#include <errno.h>
#include <glob.h>
#include <unistd.h>

#include "core/config/parse.h"

const struct directive include_row = {
    .name = "include",
    .contexts = CTX_ANY,
    .args = ARGS12 | ARG_REPEAT,
    .inherit = INHERIT_DONE,
    .syntax = "file | mask [optional]",
    .doc = "Reads another file, or all files that match a mask, in this place.",
};

static bool is_optional(const struct conf *cf)
{
    return cf->nargs == 3 && str_eq(cf->args[2], STR("optional"));
}

bool conf_is_include(const struct conf *cf)
{
    return str_eq(cf->args[0], STR("include")) && (cf->nargs == 2 || is_optional(cf));
}

static bool is_missing(const char *path)
{
    return access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR);
}

static const char *include_matches(struct conf *cf, const glob_t *found)
{
    const char *error = NULL;

    for (size_t i = 0; i < found->gl_pathc && error == NULL; i++) {
        if (conf_parser(cf)->stop)
            break;
        error = parse_file(cf, str_dup(cf->arena, str_cstr(found->gl_pathv[i])));
    }
    return error;
}

const char *conf_include(struct conf *cf)
{
    struct parser *parser = conf_parser(cf);
    struct conf saved = *cf;
    struct str path = conf_path(cf, cf->args[1], true);
    const char *error;
    glob_t found;
    int rc;

    if (cf->nargs == 3 && !is_optional(cf))
        return conf_error(cf, "invalid number of arguments in \"include\" directive");
    if (parser->includes >= CONF_INCLUDE_MAX)
        return conf_error_arg(cf, 1, "too many nested includes, the limit is %d", CONF_INCLUDE_MAX);
    parser->includes++;
    if (strpbrk(path.ptr, "*?[") == NULL) {
        error = is_optional(cf) && is_missing(path.ptr) ? NULL : parse_file(cf, path);
    } else {
        rc = glob(path.ptr, 0, NULL, &found);
        if (rc == 0)
            error = include_matches(cf, &found);
        else if (rc == GLOB_NOMATCH)
            error = NULL;
        else
            error =
                conf_error(cf, "glob() \"%s\" failed (%d: %s)", path.ptr, errno, strerror(errno));
        if (rc == 0 || rc == GLOB_NOMATCH)
            globfree(&found);
    }
    parser->includes--;
    *cf = saved;
    if (error)
        parser->caret = 1;
    return error;
}

const char *conf_read_file(struct conf *cf, struct str path)
{
    struct parser *parser = conf_parser(cf);
    struct conf saved = *cf;
    const char *error;

    if (parser->includes >= CONF_INCLUDE_MAX)
        return conf_error_arg(cf, 1, "too many nested includes, the limit is %d", CONF_INCLUDE_MAX);
    parser->includes++;
    error = parse_file(cf, path);
    parser->includes--;
    *cf = saved;
    return error;
}
