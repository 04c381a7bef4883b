/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * COPY and MOVE (RFC 4918, 9.8 and 9.9). What is copied is made under a name of its own beside the
 * destination and then takes its place; what was there before is gone only when the new is there.
 * A move within one file system is a rename. Where nginx would empty a file that is copied to
 * itself, this refuses.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/fmt.h"
#include "core/http/client.h"
#include "core/http/h1.h"
#include "modules/http/dav.h"

enum copy_stage { COPY_COPYING, COPY_REMOVING_OLD, COPY_REMOVING_SOURCE };

struct copy_job {
    struct str from, to; /* NUL-terminated, without a final slash */
    struct str dest;     /* the URI it is to have */
    bool move, collection, exists, overwrite;
    bool only_this; /* Depth: 0 */
    struct stat source, old;
    enum copy_stage stage;
    struct str temp;  /* the copy under way; empty: none */
    struct str aside; /* what was there before; empty: none */
    struct dav_tree tree;
};

static void remove_tree(struct arena *arena, struct str path)
{
    struct dav_tree t;

    dav_tree_init(&t, arena, DAV_DELETE, path, STR_NULL);
    while (dav_tree_step(&t) > 0)
        ;
}

/* A request that ends early leaves nothing of its own behind. */
static void clean_up(void *arg)
{
    struct copy_job *j = arg;
    struct arena *arena = arena_new();

    dav_tree_close(&j->tree);
    if (j->temp.len > 0)
        remove_tree(arena, j->temp);
    if (j->aside.len > 0)
        remove_tree(arena, j->aside);
    arena_destroy(arena);
}

/* The destination ------------------------------------------------------------------------------ */

static enum verdict invalid(struct req *r, struct str value)
{
    log_error(&r->log, 0, "client sent invalid \"Destination\" header: \"%.*s\"", STR_ARG(value));
    return req_status(r, 400);
}

/* "http://this.host/path" or "/path": the part from the slash on. V_NEXT, or the refusal. */
static enum verdict strip_authority(struct req *r, struct str value, struct str *path)
{
    struct str scheme =
        r->client->listen != NULL && r->client->listen->ssl ? STR("https://") : STR("http://");
    struct str rest, host;
    unsigned port;
    ssize_t slash;

    *path = value;
    if (value.len > 0 && value.ptr[0] == '/')
        return V_NEXT;
    if (r->host.len == 0 || !str_casestarts(value, scheme))
        return invalid(r, value);
    rest = str_skip(value, scheme.len);
    slash = str_chr(rest, '/');
    if (slash < 0 ||
        h1_host_normalize(r->arena, str_from(rest.ptr, (size_t) slash), &host, &port) != 0)
        return invalid(r, value);
    if (!str_eq(host, r->host)) {
        log_error(
            &r->log, 0,
            "\"Destination\" URI \"%.*s\" is handled by different repository than the source URI",
            STR_ARG(value));
        return req_status(r, 400);
    }
    *path = str_skip(rest, (size_t) slash);
    return V_NEXT;
}

static enum verdict find_destination(struct req *r, struct str *uri)
{
    const struct field *f = fields_get(&r->in->fields, T_DESTINATION);
    struct uri_parts parts;
    struct str path;
    enum verdict v;

    if (f == NULL) {
        log_error(&r->log, 0, "client sent no \"Destination\" header");
        return req_status(r, 400);
    }
    v = strip_authority(r, f->value, &path);
    if (v != V_NEXT)
        return v;
    if (uri_check_unsafe(path) != 0 ||
        uri_normalize(r->arena, path, r->server->core->merge_slashes, &parts) != 0)
        return invalid(r, f->value);
    *uri = parts.uri;
    if ((r->uri.ptr[r->uri.len - 1] == '/') == (uri->ptr[uri->len - 1] == '/'))
        return V_NEXT;
    log_error(&r->log, 0,
              "both URI \"%.*s\" and \"Destination\" URI \"%.*s\" should be either collections or "
              "non-collections",
              STR_ARG(r->uri), STR_ARG(f->value));
    return req_status(r, 409);
}

/* A location that was found for the destination, and the captures of its pattern. */
struct found {
    const struct location *loc;
    struct eval eval;
};

/* The location whose rules hold for the destination and this request's method. 0 or -1. */
static int find_location(struct req *r, struct str uri, struct found *found)
{
    struct regex_match *match = ARENA_NEW(r->arena, struct regex_match);
    struct value **values = ARENA_NEW(r->arena, struct value *);
    const struct location *loc;
    bool redirect, failed;

    found->eval =
        r->eval; /* named captures go into values of its own: these are not this request's */
    found->eval.values = values;
    loc = http_location_find(r->server->root, uri, &found->eval, match, &redirect, &failed);
    if (failed)
        return -1;
    if (loc == NULL)
        loc = r->server->root;
    if (loc->limit_except != NULL && (r->method & loc->limit_except_methods) == 0)
        loc = loc->limit_except;
    found->loc = loc;
    return 0;
}

/*
 * Whether whatever guards the destination also guarded this request: the very same settings, not
 * equal ones. A location that rewrites may answer otherwise altogether.
 */
static bool same_guards(const struct location *from, const struct location *to)
{
    if (from->core->satisfy != to->core->satisfy)
        return false;
    for (unsigned i = 0; i < module_count; i++) {
        const struct hook *hook = modules[i]->http != NULL ? modules[i]->http->hooks : NULL;

        for (; hook != NULL && hook->run != NULL; hook++) {
            if ((hook->phase != PHASE_ACCESS && hook->phase != PHASE_REWRITE) ||
                (hook->wanted != NULL && !hook->wanted(to->level)))
                continue;
            if (from->level->conf[STORE_LOC][i] != to->level->conf[STORE_LOC][i])
                return false;
        }
    }
    return true;
}

/*
 * The destination's own location has its say: nginx asks only the source's, so that one could
 * write to where one may not.
 */
static enum verdict check_location(struct req *r, struct str uri, const struct location *loc)
{
    const struct dav_conf *conf = level_conf(loc->level, STORE_LOC, dav_slot);
    const struct location *from = r->loc;

    /* A block that was entered by `if` is in a location that was found. */
    while (from->kind == LOC_IF)
        from = from->parent;
    if (loc == from)
        return V_NEXT;
    if (!loc->core->internal && loc->handler == NULL && (conf->methods & r->method) &&
        same_guards(from, loc))
        return V_NEXT;
    log_error(&r->log, 0, "\"Destination\" URI \"%.*s\" is not where this %.*s is allowed",
              STR_ARG(uri), STR_ARG(r->method_name));
    req_refused(r, loc->level->pos, "destination forbidden by location \"%.*s\"",
                STR_ARG(loc->name));
    return req_status(r, 403);
}

/* The path of the destination, by the settings of its location. */
static enum verdict map_destination(struct req *r, struct copy_job *j)
{
    const struct location *loc = r->loc;
    struct eval eval = r->eval;
    struct str uri = r->uri;
    struct found found;
    enum verdict v;
    size_t root;
    int rc;

    if (find_location(r, j->dest, &found) != 0)
        return req_status(r, 500);
    v = check_location(r, j->dest, found.loc);
    if (v != V_NEXT)
        return v;
    r->uri = j->dest;
    r->loc = found.loc;
    r->eval.match = found.eval.match;
    r->eval.match_subject = found.eval.match_subject;
    rc = req_map_path(r, &j->to, &root, 0);
    r->uri = uri;
    r->loc = loc;
    r->eval = eval;
    return rc == 0 ? dav_check_links(r, j->to) : req_status(r, 500);
}

/* Fields --------------------------------------------------------------------------------------- */

static enum verdict read_depth(struct req *r, struct copy_job *j)
{
    unsigned depth = dav_depth(r, DEPTH_INFINITY);

    j->only_this = depth == DEPTH_ZERO;
    if (depth == DEPTH_INFINITY || (depth == DEPTH_ZERO && !j->move))
        return V_NEXT;
    log_error(&r->log, 0, "\"Depth\" header must be %s", j->move ? "infinity" : "0 or infinity");
    return req_status(r, 400);
}

static enum verdict read_overwrite(struct req *r, struct copy_job *j)
{
    const struct field *f = fields_get(&r->in->fields, T_OVERWRITE);

    j->overwrite = f == NULL || str_caseeq(f->value, STR("T"));
    if (j->overwrite || str_caseeq(f->value, STR("F")))
        return V_NEXT;
    log_error(&r->log, 0, "client sent invalid \"Overwrite\" header: \"%.*s\"", STR_ARG(f->value));
    return req_status(r, 400);
}

/* The files ------------------------------------------------------------------------------------ */

/* Whether a path leads through that directory, by whatever name: links may lead back into it. */
static bool leads_through(struct req *r, struct str path, const struct stat *dir)
{
    char *copy = (char *) str_dup(r->arena, path).ptr;
    struct stat st;

    if (!S_ISDIR(dir->st_mode))
        return false;
    for (size_t i = 1; i < path.len; i++) {
        int rc;

        if (copy[i] != '/')
            continue;
        copy[i] = '\0';
        rc = stat(copy, &st);
        copy[i] = '/';
        if (rc != 0)
            return false; /* it is not there as a whole: whoever uses it will say so */
        if (st.st_dev == dir->st_dev && st.st_ino == dir->st_ino)
            return true;
    }
    return false;
}

static enum verdict look_at_destination(struct req *r, struct copy_job *j, bool slash)
{
    if (lstat(j->to.ptr, &j->old) != 0)
        return errno == ENOENT ? V_NEXT : dav_failed(r, errno, 409, "lstat()", j->to.ptr);
    j->exists = true;
    if (S_ISDIR(j->old.st_mode) && !slash) {
        log_error(&r->log, EISDIR, "\"%.*s\" could not be %s to collection \"%.*s\"",
                  STR_ARG(r->uri), j->move ? "MOVEd" : "COPYed", STR_ARG(j->dest));
        return req_status(r, 409);
    }
    if (j->overwrite)
        return V_NEXT;
    log_error(&r->log, EEXIST, "\"%s\" could not be created", j->to.ptr);
    return req_status(r, 412);
}

static enum verdict look_at_both(struct req *r, struct copy_job *j)
{
    bool slash = r->uri.ptr[r->uri.len - 1] == '/';
    struct str from = j->from;
    enum verdict v;

    j->to = dav_without_slash(r->arena, j->to);
    v = look_at_destination(r, j, slash);
    if (v != V_NEXT)
        return v;
    if (lstat(from.ptr, &j->source) != 0)
        return dav_failed(r, errno, 404, "lstat()", from.ptr);
    j->collection = S_ISDIR(j->source.st_mode);
    if (j->collection && !slash) {
        log_error(&r->log, EISDIR, "\"%.*s\" is collection", STR_ARG(r->uri));
        return req_status(r, 400);
    }
    j->from = dav_without_slash(r->arena, from);
    if ((j->exists && j->source.st_dev == j->old.st_dev && j->source.st_ino == j->old.st_ino) ||
        leads_through(r, j->to, &j->source) ||
        (j->exists && leads_through(r, j->from, &j->old))) {
        log_error(&r->log, 0, "\"%s\" and \"%s\" are the same, or one is in the other", j->from.ptr,
                  j->to.ptr);
        return req_status(r, 403);
    }
    return V_NEXT;
}

/* Working -------------------------------------------------------------------------------------- */

static enum verdict run_job(struct req *r, struct copy_job *j);

static enum verdict done(struct req *r, const struct copy_job *j)
{
    return dav_answer(r, j->collection ? 201 : 204, STR_NULL);
}

static enum verdict start_stage(struct req *r, struct copy_job *j, enum copy_stage stage)
{
    j->stage = stage;
    switch (stage) {
    case COPY_COPYING:
        j->temp = dav_beside(r->arena, j->to);
        dav_tree_init(&j->tree, r->arena, DAV_COPY, j->from, j->temp);
        j->tree.keep_links = j->move;
        j->tree.only_this = j->only_this;
        break;
    case COPY_REMOVING_OLD:
        dav_tree_init(&j->tree, r->arena, DAV_DELETE, j->aside, STR_NULL);
        break;
    case COPY_REMOVING_SOURCE:
        dav_tree_init(&j->tree, r->arena, DAV_DELETE, j->from, STR_NULL);
        break;
    }
    return run_job(r, j);
}

/* What is left to be removed, one after the other; then the answer. */
static enum verdict tidy(struct req *r, struct copy_job *j, bool source)
{
    if (j->aside.len > 0)
        return start_stage(r, j, COPY_REMOVING_OLD);
    return source ? start_stage(r, j, COPY_REMOVING_SOURCE) : done(r, j);
}

static enum verdict rename_failed(struct req *r, struct str from, struct str to)
{
    int err = errno;
    struct str call = str_printf(r->arena, "rename() \"%.*s\" to", STR_ARG(from));

    return dav_failed(r, err, 409, call.ptr, to.ptr);
}

/* Only a file can take a file's place in one step. */
static int put_aside(struct req *r, struct copy_job *j)
{
    struct str aside;

    if (!j->exists || (!j->collection && !S_ISDIR(j->old.st_mode)))
        return 0;
    aside = dav_beside(r->arena, j->to);
    if (rename(j->to.ptr, aside.ptr) != 0)
        return -1;
    j->aside = aside;
    return 0;
}

/* `from` takes the destination's place. 0; or -1 with errno, and everything as it was. */
static int take_place(struct req *r, struct copy_job *j, struct str from)
{
    int err;

    if (put_aside(r, j) != 0)
        return -1;
    if (rename(from.ptr, j->to.ptr) == 0)
        return 0;
    err = errno;
    if (j->aside.len > 0 && rename(j->aside.ptr, j->to.ptr) == 0)
        j->aside = STR_NULL;
    errno = err;
    return -1;
}

static enum verdict copied(struct req *r, struct copy_job *j)
{
    if (take_place(r, j, j->temp) != 0)
        return rename_failed(r, j->temp, j->to);
    j->temp = STR_NULL;
    return tidy(r, j, j->move);
}

static enum verdict run_job(struct req *r, struct copy_job *j)
{
    int rc = dav_tree_step(&j->tree);

    if (rc > 0) {
        req_resume(r);
        return V_WAIT;
    }
    if (rc < 0)
        return dav_failed(r, j->tree.err, 409, j->tree.call, j->tree.path.ptr);
    switch (j->stage) {
    case COPY_COPYING: return copied(r, j);
    case COPY_REMOVING_OLD:
        j->aside = STR_NULL;
        /* The source is still there only if it was copied to another file system. */
        return tidy(r, j, j->move && access(j->from.ptr, F_OK) == 0);
    case COPY_REMOVING_SOURCE: break;
    }
    return done(r, j);
}

static enum verdict start(struct req *r, struct copy_job *j, const struct dav_conf *conf)
{
    if (!j->move)
        return start_stage(r, j, COPY_COPYING);
    if (take_place(r, j, j->from) == 0)
        return tidy(r, j, false);
    if (errno == ENOENT && !j->collection && !j->exists) {
        /* As nginx has it: a file that is moved makes its way. */
        if (dav_make_path(r->arena, j->to, conf->access) != 0)
            return dav_failed(r, errno, 409, "mkdir()", j->to.ptr);
        if (rename(j->from.ptr, j->to.ptr) == 0)
            return done(r, j);
    }
    return errno == EXDEV ? start_stage(r, j, COPY_COPYING) : rename_failed(r, j->from, j->to);
}

static enum verdict prepare(struct req *r, struct copy_job *j)
{
    size_t root;
    enum verdict v = find_destination(r, &j->dest);

    if (v == V_NEXT)
        v = read_depth(r, j);
    if (v == V_NEXT)
        v = read_overwrite(r, j);
    if (v == V_NEXT && req_map_path(r, &j->from, &root, 0) != 0)
        v = req_status(r, 500);
    if (v == V_NEXT)
        v = dav_check_links(r, j->from);
    if (v == V_NEXT)
        v = map_destination(r, j);
    return v == V_NEXT ? look_at_both(r, j) : v;
}

enum verdict dav_copy_move(struct req *r, const struct dav_conf *conf)
{
    struct copy_job *j = req_ctx(r, dav_slot);
    enum verdict v;

    if (j != NULL)
        return run_job(r, j);
    if (dav_has_body(r)) {
        log_error(&r->log, 0, "COPY and MOVE with body are unsupported");
        return req_status(r, 415);
    }
    j = ARENA_NEW(r->arena, struct copy_job);
    j->move = r->method == METHOD_MOVE;
    v = prepare(r, j);
    if (v != V_NEXT)
        return v;
    if (req_explained()) {
        dav_explain(r, j->move ? "move" : "copy", j->from);
        return done(r, j);
    }
    dav_tree_init(&j->tree, r->arena, DAV_COPY, STR_NULL, STR_NULL);
    arena_defer(r->arena, clean_up, j);
    req_ctx_set(r, dav_slot, j, CTX_PASS);
    return start(r, j, conf);
}
