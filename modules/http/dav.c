/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dav: files are put, deleted, copied and moved, directories made (RFC 4918, as far as nginx has
 * it). This file has the directives, DELETE and MKCOL; PUT is in dav_put.c, COPY and MOVE in
 * dav_copy.c. Whatever takes long is done in steps, between which the worker serves others.
 */
#include "modules/http/dav.h"

#include <errno.h>

#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/os/process.h"
#include "modules/http/small_files.h"

/* configure: switch=http_dav_module default=on */

unsigned dav_slot;

/* Answers -------------------------------------------------------------------------------------- */

enum verdict dav_answer(struct req *r, unsigned status, struct str created)
{
    if (created.ptr != NULL)
        fields_set(&r->out, &r->out.fields, T_LOCATION,
                   fmt_escape_dup(r->arena, created, FMT_ESCAPE_URI));
    return answer_text(r, status, STR_NULL, STR(""));
}

void dav_explain(struct req *r, const char *what, struct str path)
{
    req_trace(r, req_where(r, "dav_methods"), "dav_methods would %s \"%.*s\"", what,
              STR_ARG(path));
}

enum verdict dav_failed(struct req *r, int err, unsigned missing, const char *call,
                        const char *path)
{
    enum log_level level = LOG_ERROR_LEVEL;
    unsigned status;

    switch (err) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG: status = missing; break;
    case EACCES:
    case EPERM: status = 403; break;
    case EEXIST: status = 405; break;
    case ENOSPC:
    case EDQUOT:
        level = LOG_CRIT_LEVEL;
        status = 507;
        break;
    default: level = LOG_CRIT_LEVEL; status = 500;
    }
    LOG(&r->log, level, err, "%s \"%s\" failed", call, path);
    return req_status(r, status);
}

enum verdict dav_check_links(struct req *r, struct str path)
{
    struct file_info info;
    struct str dir = path;

    if (likely(r->loc->core->disable_symlinks == SYMLINKS_ALLOWED))
        return V_NEXT;
    while (dir.len > 1 && dir.ptr[dir.len - 1] == '/')
        dir.len--;
    while (dir.len > 1 && dir.ptr[dir.len - 1] != '/')
        dir.len--;
    dir = str_dup(r->arena, dir);
    if (file_lookup(r, dir, 0, &info) == 0 || (info.err != ELOOP && info.err != EMLINK))
        return V_NEXT;
    return req_status(r, file_failure(r, dir, &info));
}

struct str dav_without_slash(struct arena *arena, struct str path)
{
    while (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    return str_dup(arena, path);
}

int dav_make_path(struct arena *arena, struct str path, unsigned access)
{
    char *copy = (char *) str_dup(arena, path).ptr;

    for (size_t i = 1; i < path.len; i++) {
        if (copy[i] != '/' || copy[i - 1] == '/')
            continue;
        copy[i] = '\0';
        if (mkdir(copy, dav_dir_access(access)) == 0)
            (void) chmod(copy, dav_dir_access(access)); /* whatever the umask is */
        else if (errno != EEXIST)
            return -1;
        copy[i] = '/';
    }
    return 0;
}

struct str dav_beside(struct arena *arena, struct str path)
{
    ssize_t slash = str_rchr(path, '/');

    return str_printf(arena, "%.*s/.proxyd-dav-%016llx", (int) MAX(slash, 0), path.ptr,
                      (unsigned long long) random_u64());
}

bool dav_has_body(const struct req *r)
{
    return r == r->main && (r->in->content_length > 0 || r->in->chunked);
}

/* Conditions (RFC 9110, 13) -------------------------------------------------------------------- */

/* Whether a list of tags names this one. */
static bool names_tag(struct str list, struct str tag, bool weak)
{
    struct str member;
    size_t pos = 0;

    while (list_next(list, &pos, &member)) {
        if (weak && str_starts(member, STR("W/")))
            member = str_skip(member, 2);
        if (str_eq(member, tag))
            return true;
    }
    return false;
}

static bool holds(const struct field *f, const struct stat *st, bool weak)
{
    struct file_info info = { .err = 0 };
    char etag[FILE_ETAG_MAX];
    size_t len;

    if (st == NULL)
        return false;
    if (str_eq(f->value, STR("*")))
        return true;
    info.size = (uint64_t) st->st_size;
    info.mtime = st->st_mtim;
    len = file_etag(etag, &info);
    return names_tag(f->value, str_from(etag, len), weak);
}

enum verdict dav_precondition(struct req *r, const struct stat *st)
{
    const struct fields *in = &r->in->fields;
    const struct field *match = fields_get(in, T_IF_MATCH), *none = fields_get(in, T_IF_NONE_MATCH);
    const struct field *since = fields_get(in, T_IF_UNMODIFIED_SINCE);
    bool fine = true;

    if (match != NULL) {
        fine = holds(match, st, false);
    } else if (since != NULL && st != NULL) {
        time_t t = fmt_parse_http_date(since->value);

        fine = t == -1 || st->st_mtime <= t;
    }
    if (none != NULL && holds(none, st, true))
        fine = false;
    return fine ? V_NEXT : req_status(r, 412);
}

/* Depth ---------------------------------------------------------------------------------------- */

unsigned dav_depth(struct req *r, unsigned otherwise)
{
    const struct field *f = fields_get(&r->in->fields, T_DEPTH);

    if (f == NULL)
        return otherwise;
    if (str_eq(f->value, STR("0")))
        return DEPTH_ZERO;
    if (str_eq(f->value, STR("1")))
        return DEPTH_ONE;
    if (str_caseeq(f->value, STR("infinity")))
        return DEPTH_INFINITY;
    log_error(&r->log, 0, "client sent invalid \"Depth\" header: \"%.*s\"", STR_ARG(f->value));
    return DEPTH_INVALID;
}

/* DELETE --------------------------------------------------------------------------------------- */

static void close_tree(void *arg)
{
    dav_tree_close(arg);
}

/* Whether the URI has as many elements as min_delete_depth demands. */
static bool is_deep_enough(const struct str uri, int64_t min)
{
    int64_t depth = 0;

    for (size_t i = 0; i < uri.len;) {
        if (uri.ptr[i++] == '/' && ++depth >= min && i < uri.len)
            return true;
    }
    return min == 0;
}

static enum verdict delete_some(struct req *r, struct dav_tree *t)
{
    switch (dav_tree_step(t)) {
    case 0: return dav_answer(r, 204, STR_NULL);
    case 1: req_resume(r); return V_WAIT;
    default: return dav_failed(r, t->err, 404, t->call, t->path.ptr);
    }
}

static enum verdict begin_delete(struct req *r, struct str path, bool is_dir)
{
    struct dav_tree *t = ARENA_NEW(r->arena, struct dav_tree);

    if (req_explained()) {
        dav_explain(r, "remove", path);
        return dav_answer(r, 204, STR_NULL);
    }
    if (is_dir)
        path = dav_without_slash(r->arena, path);
    dav_tree_init(t, r->arena, DAV_DELETE, path, STR_NULL);
    arena_defer(r->arena, close_tree, t);
    req_ctx_set(r, dav_slot, t, CTX_PASS);
    return delete_some(r, t);
}

static enum verdict dav_delete(struct req *r, const struct dav_conf *conf)
{
    struct dav_tree *under_way = req_ctx(r, dav_slot);
    struct stat st;
    struct str path;
    unsigned depth;
    size_t root;
    enum verdict v;

    if (under_way != NULL)
        return delete_some(r, under_way);
    if (dav_has_body(r)) {
        log_error(&r->log, 0, "DELETE with body is unsupported");
        return req_status(r, 415);
    }
    if (!is_deep_enough(r->uri, conf->min_delete_depth)) {
        log_error(&r->log, 0, "insufficient URI depth:%lld to DELETE",
                  (long long) conf->min_delete_depth);
        return req_status(r, 409);
    }
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    v = dav_check_links(r, path);
    if (v != V_NEXT)
        return v;
    if (lstat(path.ptr, &st) != 0)
        return dav_failed(r, errno, errno == ENOTDIR ? 409 : 404, "lstat()", path.ptr);
    v = dav_precondition(r, &st);
    if (v != V_NEXT)
        return v;
    depth = dav_depth(r, S_ISDIR(st.st_mode) ? DEPTH_INFINITY : DEPTH_ZERO);
    if (!S_ISDIR(st.st_mode)) {
        if (depth == DEPTH_ZERO || depth == DEPTH_INFINITY)
            return begin_delete(r, path, false);
        log_error(&r->log, 0, "\"Depth\" header must be 0 or infinity");
        return req_status(r, 400);
    }
    if (r->uri.ptr[r->uri.len - 1] != '/') {
        log_error(&r->log, EISDIR, "DELETE \"%s\" failed", path.ptr);
        return req_status(r, 409);
    }
    if (depth != DEPTH_INFINITY) {
        log_error(&r->log, 0, "\"Depth\" header must be infinity");
        return req_status(r, 400);
    }
    return begin_delete(r, path, true);
}

/* MKCOL ---------------------------------------------------------------------------------------- */

/* What mkdir would say. */
static enum verdict explain_mkcol(struct req *r, struct str path)
{
    struct str parent = str_from(path.ptr, (size_t) str_rchr(path, '/') + 1);
    struct stat st;

    if (lstat(path.ptr, &st) == 0)
        return dav_failed(r, EEXIST, 409, "mkdir()", path.ptr);
    if (stat(str_dup(r->arena, parent).ptr, &st) != 0)
        return dav_failed(r, errno, 409, "mkdir()", path.ptr);
    dav_explain(r, "make", path);
    return dav_answer(r, 201, r->uri);
}

static enum verdict dav_mkcol(struct req *r, const struct dav_conf *conf)
{
    unsigned mode = dav_dir_access(conf->access);
    struct str path;
    size_t root;
    enum verdict v;

    if (dav_has_body(r)) {
        log_error(&r->log, 0, "MKCOL with body is unsupported");
        return req_status(r, 415);
    }
    if (r->uri.ptr[r->uri.len - 1] != '/') {
        log_error(&r->log, 0, "MKCOL can create a collection only");
        return req_status(r, 409);
    }
    if (req_map_path(r, &path, &root, 0) != 0)
        return req_status(r, 500);
    v = dav_check_links(r, path);
    if (v != V_NEXT)
        return v;
    path = dav_without_slash(r->arena, path);
    if (req_explained())
        return explain_mkcol(r, path);
    if (mkdir(path.ptr, mode) != 0)
        return dav_failed(r, errno, 409, "mkdir()", path.ptr);
    (void) chmod(path.ptr, mode); /* whatever the umask is */
    return dav_answer(r, 201, r->uri);
}

/* The hook ------------------------------------------------------------------------------------- */

static enum verdict dav_run(struct req *r)
{
    const struct dav_conf *conf = req_loc_conf(r, dav_slot);

    if ((r->method & conf->methods) == 0 || r->uri.len == 0)
        return V_NEXT;
    switch (r->method) {
    case METHOD_PUT: return dav_put(r, conf);
    case METHOD_DELETE: return dav_delete(r, conf);
    case METHOD_MKCOL: return dav_mkcol(r, conf);
    default: return dav_copy_move(r, conf);
    }
}

/* Configuration -------------------------------------------------------------------------------- */

static const char *set_methods(struct conf *cf, void *field)
{
    static const struct conf_enum methods[] = { { "off", 0 },
                                                { "put", METHOD_PUT },
                                                { "delete", METHOD_DELETE },
                                                { "mkcol", METHOD_MKCOL },
                                                { "copy", METHOD_COPY },
                                                { "move", METHOD_MOVE },
                                                { NULL, 0 } };
    unsigned *out = field;

    for (unsigned i = 1; i < cf->nargs; i++) {
        unsigned k = 0;

        while (methods[k].name != NULL && !str_caseeq(cf->args[i], str_cstr(methods[k].name)))
            k++;
        if (methods[k].name == NULL)
            return conf_error_arg(cf, i, "invalid value \"%.*s\"", STR_ARG(cf->args[i]));
        if (methods[k].value & *out)
            conf_warn_at(cf, cf->arg_pos[i], "duplicate value \"%.*s\"", STR_ARG(cf->args[i]));
        *out |= methods[k].value;
    }
    return NULL;
}

static bool dav_wanted(const struct level *level)
{
    const struct dav_conf *conf = level_conf(level, STORE_LOC, dav_slot);

    return conf->methods != 0;
}

static const struct directive directives[] = {
    ROW("dav_methods", CTX_HSL, ARGS1_MORE, set_methods, STORE_LOC, struct dav_conf, methods,
        INHERIT_SCALAR, "off", "off | method ...",
        "Allows PUT, DELETE, MKCOL, COPY and MOVE of files."),
    ROW("create_full_put_path", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct dav_conf,
        create_full_put_path, INHERIT_SCALAR, "off", "on | off",
        "Makes the directories that a PUT needs."),
    ROW("min_delete_depth", CTX_HSL, ARGS1, conf_set_num, STORE_LOC, struct dav_conf,
        min_delete_depth, INHERIT_SCALAR, "0", "number",
        "The fewest elements of a path that may be deleted."),
    ROW("dav_access", CTX_HSL, ARGS123, conf_set_access, STORE_LOC, struct dav_conf, access,
        INHERIT_SCALAR, "user:rw", "users:permissions ...",
        "Permissions of new files and directories."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_CONTENT, HOOK_DAV, dav_run, dav_wanted },
    HOOK_END,
};

static const struct http_module http_dav = { .hooks = hooks };

const struct module module_http_dav = {
    .name = "http_dav",
    .slot = &dav_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct dav_conf) },
    .directives = directives,
    .http = &http_dav,
};
