/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the head of a server's answer means: another attempt, an error page, an internal redirect,
 * or an answer for the client; and which of its fields go there. Called by exchange.c when the
 * backend has decoded a head.
 */
#include "core/base/clock.h"
#include "core/http/h1.h"
#include "modules/upstream/internal.h"

/* X-Accel-Redirect ---------------------------------------------------------------------------- */

/* What an internal redirect takes along (semantics: nothing else). */
static const enum token redirect_fields[] = {
    T_CONTENT_TYPE, T_CONTENT_DISPOSITION, T_SET_COOKIE, T_CACHE_CONTROL, T_EXPIRES,
    T_ACCEPT_RANGES,
};

/* The target of a redirect: a named location, or a URI that may not climb. */
static enum verdict redirect_to(struct req *r, struct str target)
{
    struct uri_parts parts;
    ssize_t mark;
    struct str args = STR_NULL;

    if (target.len > 0 && target.ptr[0] == '@')
        return req_restart_named(r, target);
    mark = str_chr(target, '?');
    if (mark >= 0) {
        args = str_skip(target, (size_t) mark + 1);
        target.len = (size_t) mark;
    }
    if (target.len == 0 || target.ptr[0] != '/' || uri_check_unsafe(target) != 0
        || uri_normalize(r->arena, target, true, &parts) != 0) {
        log_error(&r->log, 0, "upstream sent unsafe \"X-Accel-Redirect\" header: \"%.*s\"",
                  STR_ARG(target));
        return req_status(r, 404);
    }
    if (r->method != METHOD_HEAD) {
        r->method = METHOD_GET;
        r->method_name = STR("GET");
    }
    return req_restart_uri(r, parts.uri, args);
}

/* True: the answer asked for an internal redirect; the exchange is over. */
static bool redirected(struct exchange *x)
{
    struct req *r = x->req;
    struct str target;

    if (likely(!fields_may_have(&x->head->fields, T_X_ACCEL_REDIRECT))
        || (x->conf->ignore_headers & IGNORE_XA_REDIRECT))
        return false;
    if (fields_get(&x->head->fields, T_X_ACCEL_REDIRECT) == NULL)
        return false;
    answer_head_move(x);
    target = fields_value(&x->head->fields, T_X_ACCEL_REDIRECT);
    for (unsigned i = 0; i < ARRAY_LEN(redirect_fields); i++) {
        enum token t = redirect_fields[i];
        struct field *f = fields_get(&x->head->fields, t);

        /* What an answer before said, had it redirected too, is out of date; its cookies are not. */
        if (f != NULL && t != T_SET_COOKIE)
            fields_delete(&r->out.fields, t);
        for (; f != NULL; f = fields_next(&x->head->fields, f))
            fields_add_hashed(&r->out, &r->out.fields, t, f->hash, f->name, f->value);
    }
    exchange_finish(x, redirect_to(r, target));
    return true;
}

/* proxy_intercept_errors ---------------------------------------------------------------------- */

static bool has_error_page(const struct core_loc *core, unsigned status)
{
    for (unsigned i = 0; i < core->error_page.count; i++) {
        const struct error_page *p = &core->error_page.items[i];

        for (unsigned k = 0; k < p->code_count; k++) {
            if (p->codes[k] == status)
                return true;
        }
    }
    return false;
}

static bool intercepted(struct exchange *x, unsigned status)
{
    struct req *r = x->req;
    struct field *f;

    if (status < 300 || !x->conf->intercept_errors || r->sub_head_only
        || !has_error_page(r->loc->core, status))
        return false;
    answer_head_move(x);
    if (status == 401) {
        fields_delete(&r->out.fields, T_WWW_AUTHENTICATE);
        for (f = fields_get(&x->head->fields, T_WWW_AUTHENTICATE); f != NULL;
             f = fields_next(&x->head->fields, f))
            fields_add_hashed(&r->out, &r->out.fields, T_WWW_AUTHENTICATE, f->hash, f->name,
                              f->value);
    }
    exchange_finish(x, req_status(r, status));
    return true;
}

/* Fields -------------------------------------------------------------------------------------- */

static struct str moved(struct str s, const char *from, size_t len, const char *to)
{
    if (s.ptr >= from && s.ptr <= from + len && s.ptr + s.len <= from + len)
        s.ptr = to + (s.ptr - from);
    return s;
}

void answer_head_move(struct exchange *x)
{
    const char *from;
    size_t len = x->head_end - x->head_start;
    char *to;

    if (x->in == NULL || len == 0)
        return;
    from = x->in->data + x->head_start;
    to = arena_bytes(x->req->arena, len);
    memcpy(to, from, len);
    for (unsigned i = 0; i < x->head->fields.count; i++) {
        struct field *f = &x->head->fields.items[i];

        f->name = moved(f->name, from, len, to);
        f->value = moved(f->value, from, len, to);
    }
    x->head->reason = moved(x->head->reason, from, len, to);
    x->head->line = moved(x->head->line, from, len, to);
    x->head_start = x->head_end;
}

static bool is_hidden_name(const struct hidden_fields *h, const struct field *f)
{
    for (unsigned i = 0; i < h->count; i++) {
        if (h->hashes[i] == f->hash && str_caseeq(h->names[i], f->name))
            return true;
    }
    return false;
}

struct str fields_hop_names(const struct fields *f, struct arena *arena)
{
    struct str v;

    if (!fields_may_have(f, T_CONNECTION))
        return STR_NULL;
    v = f->items[f->index->first[T_CONNECTION] - 1].value;
    if (likely(str_eq(v, STR("keep-alive"))) || str_caseeq(v, STR("keep-alive"))
        || str_caseeq(v, STR("close")) || str_caseeq(v, STR("upgrade")))
        return STR_NULL;
    return fields_joined(f, STR("Connection"), STR(", "), arena);
}

/* Fields that steer the server. The index says that there are none: four calls less. */
static bool steers(const struct fields *f)
{
    return fields_may_have(f, T_X_ACCEL_BUFFERING) || fields_may_have(f, T_X_ACCEL_LIMIT_RATE)
           || fields_may_have(f, T_X_ACCEL_CHARSET);
}

/* Contents that make sense only as they come. */
static bool is_stream(struct str type)
{
    static const struct str types[] = {
        STR_INIT("text/event-stream"), STR_INIT("application/x-ndjson"), STR_INIT("application/ndjson"),
        STR_INIT("application/stream+json"), STR_INIT("application/json-seq"),
        STR_INIT("application/grpc"), STR_INIT("multipart/x-mixed-replace"),
    };

    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        if (str_casestarts(type, types[i]))
            return true;
    }
    return false;
}

/* proxy_buffering auto. */
static void choose_buffering(struct exchange *x)
{
    const struct msg *m = x->head;

    if (is_stream(fields_value(&m->fields, T_CONTENT_TYPE)))
        x->buffering = false;
    x->flushes = m->content_length < 0;
}

static void obey(struct exchange *x)
{
    struct req *r = x->req;
    const struct fields *f = &x->head->fields;
    unsigned ignored = x->conf->ignore_headers;
    struct str v;
    uint64_t n;

    v = fields_value(f, T_X_ACCEL_BUFFERING);
    if (unlikely(v.len > 0) && !(ignored & IGNORE_XA_BUFFERING)) {
        if (str_caseeq(v, STR("no")))
            x->buffering = false;
        else if (str_caseeq(v, STR("yes")))
            x->buffering = true;
    }
    v = fields_value(f, T_X_ACCEL_LIMIT_RATE);
    if (unlikely(v.len > 0) && !(ignored & IGNORE_XA_LIMIT_RATE) && str_to_size(v, &n) == 0) {
        r->main->limit_rate = n;
        r->main->limit_rate_after = 0;
    }
    v = fields_value(f, T_X_ACCEL_CHARSET);
    if (unlikely(v.len > 0) && !(ignored & IGNORE_XA_CHARSET))
        r->override_charset = v;
}

static int64_t length_for_client(const struct exchange *x)
{
    const struct msg *m = x->head;
    struct str v;
    uint64_t n;

    if (m->status == 204 || m->status < 200)
        return -1;
    if (x->req->method != METHOD_HEAD && m->status != 304)
        return m->content_length;
    /* There is no body; what its length would be is passed on. */
    v = fields_value(&m->fields, T_CONTENT_LENGTH);
    return v.len > 0 && str_to_u64(v, &n) == 0 && n <= INT64_MAX ? (int64_t) n : -1;
}

/* Where the server's Server or Date is passed, one that it did not send is not made up. */
static void pass_absence(struct req *r, const struct hidden_fields *hidden, enum token t)
{
    if (unlikely(!(hidden->token[t] & FIELD_HIDDEN)) && fields_get(&r->out.fields, t) == NULL)
        fields_add_token(&r->out, &r->out.fields, t, STR_NULL)->in_order = true;
}

static __attribute__((noinline)) struct field *add_field(struct req *r, const struct field *f)
{
    return fields_add_hashed(&r->out, &r->out.fields, (enum token) f->token, f->hash, f->name,
                             f->value);
}

/*
 * As it is. The first of its name, into room that is there, needs no call: 140 instructions less
 * for a head of eight fields.
 */
static inline struct field *copy_field(struct req *r, const struct field *f)
{
    struct fields *to = &r->out.fields;
    enum token t = (enum token) f->token;
    struct field *out;

    if (unlikely(to->count == to->capacity || (t != T_NONE && fields_may_have(to, t))))
        return add_field(r, f);
    out = &to->items[to->count++];
    *out = *f;
    out->next = 0;
    if (t != T_NONE)
        to->index->first[t] = (uint16_t) to->count;
    return out;
}

/* A field that is not simply copied (FIELD_LOOK). */
static void pass_special(struct exchange *x, const struct field *f)
{
    struct req *r = x->req;
    struct str value = f->value;

    switch ((enum token) f->token) {
    case T_CONTENT_TYPE:
        if (fields_may_have(&r->out.fields, T_CONTENT_TYPE))
            fields_delete(&r->out.fields, T_CONTENT_TYPE);
        copy_field(r, f)->name = STR("Content-Type");
        return;
    case T_UPGRADE:
        if (x->head->status != 101)
            return;
        break;
    case T_TRAILER:
        if (!x->pass_trailers)
            return;
        break;
    case T_ACCEPT_RANGES:
        if (x->conf->force_ranges)
            return;
        break;
    default: { /* Location, Refresh, Set-Cookie */
        bool changed = x->backend->field != NULL && x->backend->field(x, f, &value);

        if (f->token == T_LOCATION) {
            /* That of the status for which this is the error page makes way. */
            fields_delete(&r->out.fields, T_LOCATION);
            r->location_as_is = !changed;
        }
        break;
    }
    }
    copy_field(r, f)->value = value;
}

void answer_fields(struct exchange *x)
{
    struct req *r = x->req;
    const struct fields *from = &x->head->fields;
    const struct hidden_fields *hidden = x->conf->hidden;
    struct str hops = fields_hop_names(from, r->arena);

    r->out.status = x->head->status;
    r->out.reason = x->head->reason;
    r->out.content_length = length_for_client(x);
    r->location_as_is = false;
    if (unlikely(x->conf->buffering == BUFFERING_AUTO))
        choose_buffering(x);
    if (unlikely(steers(from)))
        obey(x);
    if (!x->buffering)
        r->main->limit_rate = 0;
    for (const struct field *f = from->items, *end = f + from->count; f < end; f++) {
        unsigned how = hidden->token[f->token];

        if (f->deleted || (how & (FIELD_HIDDEN | FIELD_HOP))
            || (f->token == T_NONE && is_hidden_name(hidden, f))
            || (unlikely(hops.len > 0) && list_has(hops, f->name)))
            continue;
        if (how & FIELD_LOOK)
            pass_special(x, f);
        else
            copy_field(r, f)->in_order = (how & FIELD_PLACE) != 0;
    }
    pass_absence(r, hidden, T_SERVER);
    pass_absence(r, hidden, T_DATE);
    if (x->conf->force_ranges && x->head->status == 200)
        r->allow_ranges = r->single_range = true;
    if (unlikely(x->group->sticky != NULL))
        sticky_head(x);
}

/* Heads --------------------------------------------------------------------------------------- */

/* Those that the answer itself would pass too: nothing that is hidden, and nothing of one hop. */
static void copy_hints(struct exchange *x, struct msg *to)
{
    const struct fields *from = &x->head->fields;
    const struct hidden_fields *hidden = x->conf->hidden;
    struct str hops = fields_hop_names(from, x->req->arena);

    msg_init(to, x->req->arena, from->count);
    for (const struct field *f = from->items, *end = f + from->count; f < end; f++) {
        if (f->deleted || (hidden->token[f->token] & (FIELD_HIDDEN | FIELD_HOP))
            || f->token == T_CONTENT_LENGTH || f->token == T_UPGRADE
            || (f->token == T_NONE && is_hidden_name(hidden, f))
            || (hops.len > 0 && list_has(hops, f->name)))
            continue;
        fields_add_hashed(to, &to->fields, (enum token) f->token, f->hash, f->name, f->value)
            ->in_order = true;
    }
}

void answer_interim(struct exchange *x)
{
    struct req *r = x->req;
    const struct core_loc *core = r->loc->core;
    struct msg hints;

    /* 100 answers our own request; others are hints for the client. */
    if (x->head->status != 103 || r != r->main || core->early_hints.count == 0
        || !expr_any_true(&r->eval, &core->early_hints))
        return;
    copy_hints(x, &hints);
    answer_informational(r, 103, &hints.fields);
}

bool answer_head_received(struct exchange *x)
{
    struct req *r = x->req;
    struct upstream_record *rec = exchange_record(x);
    unsigned status = x->head->status;
    bool upgrade = status == 101;
    enum verdict v;

    rec->header_us = (int64_t) (clock_us() - x->started_us);
    rec->status = status;
    r->upstream.head = x->head;
    if ((status >= 400 && exchange_try_next(x, status)) || intercepted(x, status) || redirected(x))
        return false;
    x->state = X_BODY;
    r->log.action = "reading upstream";
    if (unlikely(x->conf->store.on))
        store_begin(x);
    if (!upgrade)
        exchange_decode(x);
    if (!x->ended)
        answer_head_move(x);
    answer_fields(x);
    if (r->main->body.length != 0 && !r->main->body.complete && !r->main->body.started)
        body_discard(r);
    v = answer_head(r);
    if (r->finished || x->state == X_OVER)
        return false;
    if (v != V_NEXT) {
        exchange_finish(x, v);
        return false;
    }
    x->answering = true;
    r->on_drain = flow_drained;
    req_deliver(r, V_ANSWER);
    if (upgrade) {
        tunnel_start(x);
        return false;
    }
    flow(x);
    return x->state == X_BODY && !x->ended;
}
