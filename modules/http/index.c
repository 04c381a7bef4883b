/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * index: which file stands for a directory. The first one that is there is redirected to, so that
 * another location may take it.
 */
#include <errno.h>

#include "modules/http/file_cache.h"

/* configure: switch=http_index_module default=always */

static unsigned index_slot;

struct index_conf {
    struct expr_list names;
};

/* A directory that is not there, or may not be looked into. */
static enum verdict no_directory(struct req *r, struct str path, int err)
{
    if (err == EACCES) {
        log_error(&r->log, err, "\"%.*s\" is forbidden", STR_ARG(path));
        return req_status(r, 403);
    }
    if (r->loc->core->log_not_found)
        log_error(&r->log, err, "\"%.*s\" is not found", STR_ARG(path));
    return req_status(r, 404);
}

/* dir + name, NUL-terminated. */
static struct str join(struct req *r, struct str dir, struct str name)
{
    char *p = arena_bytes(r->arena, dir.len + name.len + 1);

    memcpy(p, dir.ptr, dir.len);
    memcpy(p + dir.len, name.ptr, name.len);
    p[dir.len + name.len] = '\0';
    return str_from(p, dir.len + name.len);
}

/* Whether the file is there; V_NEXT: no. */
static enum verdict try_one(struct req *r, struct str dir, struct str name, bool *dir_seen)
{
    struct str path = join(r, dir, name);
    struct file_info info;

    if (file_lookup(r, path, 0, &info) == 0) {
        req_trace(r, req_where(r, "index"), "index %.*s: is there", STR_ARG(path));
        return req_restart_uri(r, join(r, r->uri, name), r->args);
    }
    req_trace(r, req_where(r, "index"), "index %.*s: not there", STR_ARG(path));
    if (info.err == EMLINK || info.err == ELOOP)
        return req_status(r, file_failure(r, path, &info));
    if (info.err == ENOTDIR || info.err == ENAMETOOLONG || info.err == EACCES)
        return no_directory(r, path, info.err);
    if (info.err != ENOENT)
        return req_status(r, file_failure(r, path, &info));
    if (*dir_seen)
        return V_NEXT;
    *dir_seen = true;
    if (file_lookup(r, str_from(dir.ptr, dir.len), 0, &info) == 0) {
        if (S_ISDIR(info.mode))
            return V_NEXT;
        log_alert(&r->log, 0, "\"%.*s\" is not a directory", STR_ARG(dir));
        return req_status(r, 500);
    }
    return no_directory(r, path, info.err);
}

static enum verdict index_run(struct req *r)
{
    const struct index_conf *conf = req_loc_conf(r, index_slot);
    bool dir_seen = false;
    struct str dir = STR_NULL;
    size_t root;

    if (r->uri.len == 0 || r->uri.ptr[r->uri.len - 1] != '/'
        || (r->method & (METHOD_GET | METHOD_HEAD | METHOD_POST)) == 0)
        return V_NEXT;
    for (unsigned i = 0; i < conf->names.count; i++) {
        struct str name = expr_eval(&r->eval, conf->names.items[i]);
        enum verdict v;

        if (name.len == 0)
            continue;
        if (name.ptr[0] == '/')
            return req_restart_uri(r, str_dup(r->arena, name), r->args);
        if (dir.ptr == NULL && req_map_path(r, &dir, &root, 0) != 0)
            return req_status(r, 500);
        v = try_one(r, dir, name, &dir_seen);
        if (v != V_NEXT)
            return v;
    }
    return V_NEXT;
}

static const char *set_index(struct conf *cf, void *field)
{
    for (unsigned i = 1; i < cf->nargs; i++) {
        if (cf->args[i].len == 0)
            return conf_error_arg(cf, i, "index \"\" in \"index\" directive is invalid");
        if (cf->args[i].ptr[0] == '/' && i != cf->nargs - 1)
            conf_warn_at(cf, cf->arg_pos[i],
                         "only the last index in \"index\" directive should be absolute");
    }
    return conf_set_exprs(cf, field);
}

static const struct directive directives[] = {
    ROW("index", CTX_HSL, ARGS1_MORE | ARG_REPEAT, set_index, STORE_LOC, struct index_conf, names,
        INHERIT_WHOLE, "index.html", "file ...", "Files that stand for a directory."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_CONTENT, HOOK_INDEX, index_run, NULL },
    HOOK_END,
};

static const struct http_module http_index = { .hooks = hooks };

const struct module module_http_index = {
    .name = "http_index",
    .slot = &index_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct index_conf) },
    .directives = directives,
    .http = &http_index,
};
