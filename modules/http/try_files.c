/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * try_files: the first of several files that is there becomes the URI, in place; else the last
 * argument is redirected to, or is the status.
 */
#include <errno.h>

#include "modules/http/file_cache.h"

/* configure: switch=http_try_files_module default=always */

static unsigned try_slot;

struct try_item {
    struct expr *name;
    bool dir; /* it ended in a slash: a directory is looked for */
};

struct try_list {
    struct try_item *items; /* the last one is where to go when none is there */
    unsigned count;
    unsigned code; /* "=code": the last one's; else 0 */
};

struct try_conf {
    struct try_list *list;
};

/* The bytes of the URI that alias stands for; 0 under root. SIZE_MAX: all of it (a regex location). */
static size_t aliased(const struct req *r)
{
    const struct core_loc *core = r->loc->core;

    if (core->alias == NULL)
        return 0;
    return core->alias_regex ? SIZE_MAX : core->alias_prefix;
}

/*
 * The location's part of the name, which the alias already stands for, is left out of names that are made for the
 * request; one that is written out is meant as it is, as in nginx.
 */
static struct str below_alias(const struct req *r, size_t alias, const struct expr *x, struct str name)
{
    struct str literal;

    if (expr_is_literal(x, &literal) || alias == 0 || alias == SIZE_MAX || name.len < alias || r->uri.len < alias
        || memcmp(name.ptr, r->uri.ptr, alias) != 0)
        return name;
    return str_skip(name, alias);
}

/*
 * nginx leaves the location's part out here as well, so that people write it twice. Where what remains is no URI it is
 * meant to stay.
 */
static enum verdict fall_back(struct req *r, const struct try_list *list)
{
    const struct expr *last = list->items[list->count - 1].name;
    struct str target, below, args = STR_NULL;
    ssize_t mark;

    req_trace(r, req_where(r, "try_files"), "try_files the last argument: %.*s",
              STR_ARG(expr_source(last)));
    if (list->code != 0)
        return req_status(r, list->code);
    target = str_dup(r->arena, expr_eval(&r->eval, last));
    below = below_alias(r, aliased(r), last, target);
    if (below.len > 0 && below.ptr[0] == '/')
        target = below;
    if (target.len > 0 && target.ptr[0] == '@')
        return req_restart_named(r, target);
    mark = str_chr(target, '?');
    if (mark >= 0) {
        args = str_skip(target, (size_t) mark + 1);
        target.len = (size_t) mark;
    }
    return req_restart_uri(r, target, args);
}

/* root + name, NUL-terminated; one slash where they meet without any. */
static struct str path_of(struct req *r, struct str root, struct str name)
{
    char *p = arena_bytes(r->arena, root.len + name.len + 1);

    memcpy(p, root.ptr, root.len);
    memcpy(p + root.len, name.ptr, name.len);
    p[root.len + name.len] = '\0';
    return str_from(p, root.len + name.len);
}

static void use(struct req *r, size_t alias, struct str name, bool dir)
{
    if (alias == 0) {
        r->uri = str_dup(r->arena, name);
    } else if (alias == SIZE_MAX) {
        /* Under the alias of a regex location the path of a directory does not depend on the URI. */
        if (!dir) {
            r->uri = str_dup(r->arena, name);
            r->uri_below_alias = true;
        }
    } else {
        char *p = arena_bytes(r->arena, alias + name.len + 1);

        memcpy(p, r->uri.ptr, alias);
        memcpy(p + alias, name.ptr, name.len);
        r->uri = str_from(p, alias + name.len);
    }
    req_set_exten(r);
}

static enum verdict try_run(struct req *r)
{
    const struct try_conf *conf = req_loc_conf(r, try_slot);
    const struct try_list *list = conf->list;
    size_t alias = aliased(r), root;
    struct str path, root_path;

    if (list == NULL)
        return V_NEXT;
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    root_path = str_from(path.ptr, root);
    for (unsigned i = 0; i + 1 < list->count; i++) {
        const struct try_item *item = &list->items[i];
        struct str name = below_alias(r, alias, item->name, expr_eval(&r->eval, item->name));
        struct file_info info;

        path = path_of(r, root_path, name);
        if (file_lookup(r, path, 0, &info) != 0) {
            req_trace(r, req_where(r, "try_files"), "try_files %.*s: not there", STR_ARG(path));
            if (info.err != ENOENT && info.err != ENOTDIR && info.err != ENAMETOOLONG)
                log_crit(&r->log, info.err, "%s \"%.*s\" failed", info.failed, STR_ARG(path));
            continue;
        }
        if (S_ISDIR(info.mode) != item->dir) {
            req_trace(r, req_where(r, "try_files"), "try_files %.*s: is %s directory", STR_ARG(path),
                      item->dir ? "no" : "a");
            continue;
        }
        req_trace(r, req_where(r, "try_files"), "try_files %.*s: is there", STR_ARG(path));
        use(r, alias, name, item->dir);
        return V_NEXT;
    }
    return fall_back(r, list);
}

static const char *set_try_files(struct conf *cf, void *field)
{
    struct try_list **out = field, *list = ARENA_NEW(cf->arena, struct try_list);

    list->count = cf->nargs - 1;
    list->items = ARENA_ARRAY(cf->arena, struct try_item, list->count);
    for (unsigned i = 0; i < list->count; i++) {
        struct str text = cf->args[i + 1];
        const char *error = NULL;
        bool last = i + 1 == list->count;

        if (last && text.len > 0 && text.ptr[0] == '=') {
            uint64_t code;

            if (str_to_u64(str_skip(text, 1), &code) != 0 || code > 999)
                return conf_error_arg(cf, i + 1, "invalid code \"%.*s\"", STR_ARG(text));
            list->code = (unsigned) code;
        }
        if (!last && text.len > 0 && text.ptr[text.len - 1] == '/') {
            list->items[i].dir = true;
            text.len--;
        }
        list->items[i].name = expr_compile(cf, text, 0, &error);
        if (list->items[i].name == NULL)
            return conf_error_arg(cf, i + 1, "%s", error);
    }
    *out = list;
    return NULL;
}

static bool try_wanted(const struct level *level)
{
    const struct try_conf *conf = level_conf(level, STORE_LOC, try_slot);

    return conf->list != NULL;
}

static const struct directive directives[] = {
    ROW("try_files", CTX_SERVER | CTX_LOCATION, ARGS2_MORE, set_try_files, STORE_LOC,
        struct try_conf, list, INHERIT_NONE, NULL, "file ... uri | =code",
        "Uses the first file that is there, else the last argument."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_PRECONTENT, HOOK_TRY_FILES, try_run, try_wanted },
    HOOK_END,
};

static const struct http_module http_try_files = { .hooks = hooks };

const struct module module_http_try_files = {
    .name = "http_try_files",
    .slot = &try_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct try_conf) },
    .directives = directives,
    .http = &http_try_files,
};
