/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a request's URI to a file's path and its media type: root and alias, types and default_type.
 * Called by whatever serves files and by variables; opens nothing.
 */
#include "core/http/req.h"

/* What root or alias amounts to for this request. 0, or -1, logged. */
static int base_path(struct req *r, const struct expr *x, struct str *out)
{
    struct str base;

    if (expr_is_literal(x, out))
        return 0; /* completed when the file was read */
    base = expr_eval(&r->eval, x);
    if (base.len > 0 && memchr(base.ptr, '\0', base.len) != NULL) {
        /* A decoded credential, say: the system would take what stands before it for the name. */
        log_error(&r->log, 0, "zero byte in the path made from \"%.*s\"", STR_ARG(expr_source(x)));
        return -1;
    }
    if (base.len == 0 || base.ptr[0] != '/')
        base = str_printf(r->arena, "%s%.*s", r->server->config->prefix, STR_ARG(base));
    *out = base;
    return 0;
}

int req_root_path(struct req *r, struct str *out)
{
    const struct core_loc *core = r->loc->core;

    return base_path(r, core->alias != NULL ? core->alias : core->root, out);
}

int req_map_path(struct req *r, struct str *path, size_t *root_len, size_t extra)
{
    const struct core_loc *core = r->loc->core;
    struct str base, rest = r->uri;
    char *p;

    if (core->alias != NULL
        && (!r->valid_location || (!core->alias_regex && r->uri.len < core->alias_prefix))) {
        log_alert(&r->log, 0,
                  "\"alias\" cannot be used in location \"%.*s\" where URI was rewritten",
                  STR_ARG(r->loc->name));
        return -1;
    }
    if (core->alias != NULL && core->alias_regex) {
        rest = r->uri_below_alias ? r->uri : STR("");
    } else if (core->alias != NULL) {
        rest = str_skip(r->uri, core->alias_prefix);
    }
    if (req_root_path(r, &base) != 0)
        return -1;
    p = arena_bytes(r->arena, base.len + rest.len + 1 + extra);
    if (base.len > 0)
        memcpy(p, base.ptr, base.len);
    if (rest.len > 0)
        memcpy(p + base.len, rest.ptr, rest.len);
    p[base.len + rest.len] = '\0';
    *path = str_from(p, base.len + rest.len);
    *root_len = base.len;
    return 0;
}

struct str req_content_type(struct req *r)
{
    const struct core_loc *core = r->loc->core;
    struct str exten = r->exten;
    const struct str *type;

    if (exten.len == 0)
        return core->default_type;
    for (size_t i = 0; i < exten.len; i++) {
        if (exten.ptr[i] >= 'A' && exten.ptr[i] <= 'Z') {
            exten = str_lower(r->arena, exten);
            break;
        }
    }
    type = table_get(&core->types->by_ext, exten);
    return type != NULL ? *type : core->default_type;
}
