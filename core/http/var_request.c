/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Variables of the request as it came and as it was rewritten: line, URI, arguments, fields,
 * cookies, body, paths. Values point into the request wherever they can.
 */
#include <errno.h>
#include <limits.h>
#include <sys/random.h>

#include "core/base/fmt.h"
#include "core/http/var.h"

/* Line and URI -------------------------------------------------------------------------------- */

static bool if_there(struct str *out, struct str value)
{
    *out = value;
    return value.ptr != NULL;
}

bool var_args(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return if_there(out, req_of(e)->args);
}

void var_set_args(struct eval *e, const struct var *v, struct str value)
{
    struct req *r = req_of(e);

    (void) v;
    r->args = value.ptr != NULL ? value : STR("");
    r->valid_unparsed_uri = false;
}

bool var_is_args(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->args.len > 0 ? STR("?") : STR(""));
}

/* The first "name=" in the arguments, whatever the case, not decoded. */
bool var_arg(struct eval *e, const struct var *v, struct str *out)
{
    struct str rest = req_of(e)->args;

    while (rest.len > 0 && v->suffix.len > 0) {
        ssize_t end = str_chr(rest, '&');
        struct str item = end < 0 ? rest : str_from(rest.ptr, (size_t) end);

        if (item.len > v->suffix.len && item.ptr[v->suffix.len] == '=' &&
            str_casestarts(item, v->suffix))
            return var_is(out, str_skip(item, v->suffix.len + 1));
        if (end < 0)
            break;
        rest = str_skip(rest, (size_t) end + 1);
    }
    return false;
}

/* Empty: there was no line to take it from. */
bool var_uri(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return req_of(e)->uri.len > 0 && if_there(out, req_of(e)->uri);
}

bool var_request_uri(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return if_there(out, req_of(e)->unparsed_uri);
}

bool var_request_line(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return if_there(out, req_of(e)->in->line);
}

/* The main request's: what the client asked for, unless error_page made a GET of it. */
bool var_request_method(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return if_there(out, req_of(e)->main->method_name);
}

bool var_server_protocol(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    switch (req_of(e)->in->version) {
    case HTTP_10: return var_is(out, STR("HTTP/1.0"));
    case HTTP_11: return var_is(out, STR("HTTP/1.1"));
    case HTTP_20: return var_is(out, STR("HTTP/2.0"));
    case HTTP_30: return var_is(out, STR("HTTP/3.0"));
    default: return false; /* HTTP/0.9 names none */
    }
}

bool var_host(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is(out, r->host.len > 0 ? r->host : r->server->name);
}

/* data: only ":" if there is a port. */
bool var_request_port(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    unsigned port = r->main->host_port;

    if (port == 0)
        return var_is(out, STR(""));
    return v->data ? var_is(out, STR(":")) : var_is_number(r, out, port);
}

/* 16 random bytes in hexadecimal. */
bool var_request_id(struct eval *e, const struct var *v, struct str *out)
{
    unsigned char id[16];
    char *p;

    (void) v;
    if (getrandom(id, sizeof(id), 0) != (ssize_t) sizeof(id)) {
        log_alert(e->log, errno, "getrandom() failed");
        return false;
    }
    p = arena_bytes(e->arena, 2 * sizeof(id));
    *out = str_from(p, (size_t) (fmt_hex_bytes(p, id, sizeof(id)) - p));
    return true;
}

/* Fields -------------------------------------------------------------------------------------- */

/* Whether a field's name is the variable's: lower case, "_" where the field has "-". */
static bool is_named(struct str name, struct str variable)
{
    if (name.len != variable.len)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = ascii_lower((unsigned char) name.ptr[i]);

        if ((c == '-' ? '_' : c) != (unsigned char) variable.ptr[i])
            return false;
    }
    return true;
}

bool fields_variable(const struct fields *f, struct str variable, struct arena *arena,
                     struct str *out)
{
    struct str sep = str_eq(variable, STR("cookie")) ? STR("; ") : STR(", ");
    const struct field *first = NULL;
    unsigned count = 0;
    size_t len = 0;
    char *start, *p;

    for (unsigned i = 0; i < f->count; i++) {
        const struct field *item = &f->items[i];

        if (item->deleted || !is_named(item->name, variable))
            continue;
        if (count++ == 0)
            first = item;
        len += item->value.len + sep.len;
    }
    if (count == 0)
        return false;
    if (likely(count == 1))
        return var_is(out, first->value.ptr != NULL ? first->value : STR(""));
    start = p = arena_bytes(arena, len);
    for (unsigned i = 0; i < f->count; i++) {
        const struct field *item = &f->items[i];

        if (item->deleted || !is_named(item->name, variable))
            continue;
        if (p > start)
            p = fmt_str(p, sep);
        p = fmt_str(p, item->value);
    }
    *out = str_from(start, (size_t) (p - start));
    return true;
}

bool var_http(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    return fields_variable(&r->in->fields, v->suffix, r->arena, out);
}

bool var_cookie(struct eval *e, const struct var *v, struct str *out)
{
    return cookie_get(&req_of(e)->in->fields, v->suffix, out);
}

bool var_content_type(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return if_there(out, fields_value(&req_of(e)->in->fields, T_CONTENT_TYPE));
}

/* A chunked body's length is known once it has been read. */
bool var_content_length(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct body *b = &r->main->body;

    (void) v;
    if (if_there(out, fields_value(&r->in->fields, T_CONTENT_LENGTH)))
        return true;
    return b->length < 0 && b->complete && !b->discarding && var_is_number(r, out, b->received);
}

/* The user of Basic credentials (RFC 7617, 2). */
bool var_remote_user(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct str value = fields_value(&r->in->fields, T_AUTHORIZATION), plain;
    ssize_t colon;

    (void) v;
    if (!str_casestarts(value, STR("Basic ")))
        return false;
    value = str_trim(str_skip(value, 6));
    if (value.len == 0 || fmt_base64_decode(r->arena, value, false, &plain) != 0)
        return false;
    colon = str_chr(plain, ':');
    return colon > 0 && var_is(out, str_from(plain.ptr, (size_t) colon));
}

/* Body ---------------------------------------------------------------------------------------- */

/* Only a body that is in memory, all of it. */
bool var_request_body(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct body *b = &r->main->body;
    char *start, *p;

    (void) v;
    if (!b->started || !b->complete || b->streaming || b->discarding || b->file != NULL)
        return false;
    if (b->chain.first != NULL && b->chain.first->next == NULL && b->chain.first->kind == PIECE_MEM)
        return var_is(out, str_from(b->chain.first->mem.ptr, (size_t) b->chain.first->len));
    start = p = arena_bytes(r->arena, (size_t) b->chain.bytes);
    for (const struct piece *piece = b->chain.first; piece != NULL; piece = piece->next) {
        if (piece->kind == PIECE_MEM)
            p = fmt_str(p, str_from(piece->mem.ptr, (size_t) piece->len));
    }
    *out = str_from(start, (size_t) (p - start));
    return true;
}

bool var_request_body_file(struct eval *e, const struct var *v, struct str *out)
{
    const struct body *b = &req_of(e)->main->body;

    (void) v;
    return b->file_name.len > 0 && var_is(out, b->file_name);
}

/* Paths --------------------------------------------------------------------------------------- */

bool var_request_filename(struct eval *e, const struct var *v, struct str *out)
{
    size_t root_len;

    (void) v;
    return req_map_path(req_of(e), out, &root_len, 0) == 0;
}

bool var_document_root(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return req_root_path(req_of(e), out) == 0;
}

bool var_realpath_root(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    char real[PATH_MAX];
    struct str root;
    const char *path;

    (void) v;
    if (req_root_path(r, &root) != 0)
        return false;
    path = root.len > 0 ? str_z(r->arena, root) : "/";
    if (realpath(path, real) == NULL) {
        log_crit(&r->log, errno, "realpath() \"%s\" failed", path);
        return false;
    }
    *out = str_dup(r->arena, str_cstr(real));
    return true;
}
