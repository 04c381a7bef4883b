/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fields that the configuration adds to answers: add_header, add_trailer, expires. Runs for main
 * requests with the settings of the location in force when the head goes out.
 */
#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "modules/http/expires.h"

/* configure: switch=http_headers_module default=always */

#define DAY_S 86400

static unsigned headers_slot;
extern const struct module module_http_headers;

struct header {
    struct str name;
    enum token token;
    uint32_t hash;
    struct expr *value;
    bool always;
};

struct header_list {
    struct header *items;
    unsigned count, capacity;
};

enum { INHERIT_RULE_ON, INHERIT_RULE_OFF, INHERIT_RULE_MERGE };

struct headers_conf {
    struct header_list headers, trailers;
    unsigned header_rule, trailer_rule;
    struct expires expires;
    struct expr *expires_expr; /* with variables; expires.kind then says "modified" or not */
};

/* expires --------------------------------------------------------------------------------------- */

enum expires_error expires_parse(struct str text, bool modified, struct expires *out)
{
    bool minus = false;
    uint64_t ms;

    *out = (struct expires){ modified ? EXPIRES_MODIFIED : EXPIRES_ACCESS, 0 };
    if (!modified) {
        if (str_eq(text, STR("epoch")))
            return out->kind = EXPIRES_EPOCH, EXPIRES_FINE;
        if (str_eq(text, STR("max")))
            return out->kind = EXPIRES_MAX, EXPIRES_FINE;
        if (str_eq(text, STR("off")))
            return out->kind = EXPIRES_OFF, EXPIRES_FINE;
    }
    if (text.len > 0 && text.ptr[0] == '@') {
        if (modified)
            return EXPIRES_DAILY_MODIFIED;
        out->kind = EXPIRES_DAILY;
        text = str_skip(text, 1);
    } else if (text.len > 0 && (text.ptr[0] == '+' || text.ptr[0] == '-')) {
        minus = text.ptr[0] == '-';
        text = str_skip(text, 1);
    }
    if (str_to_ms(text, true, &ms) != 0)
        return EXPIRES_INVALID;
    if (out->kind == EXPIRES_DAILY && ms / 1000 > DAY_S)
        return EXPIRES_LONG_DAILY;
    out->seconds = minus ? -(int64_t) (ms / 1000) : (int64_t) (ms / 1000);
    return EXPIRES_FINE;
}

static void set_expires_fields(struct req *r, struct str date, struct str control)
{
    fields_set(&r->out, &r->out.fields, T_EXPIRES, date);
    fields_set(&r->out, &r->out.fields, T_CACHE_CONTROL, control);
}

/* Seconds from now until that time of the (local) day comes next. */
static int64_t until_time_of_day(int64_t seconds)
{
    time_t now = clock_time(), then;
    struct tm tm;

    localtime_r(&now, &tm);
    tm.tm_hour = (int) (seconds / 3600);
    tm.tm_min = (int) (seconds / 60 % 60);
    tm.tm_sec = (int) (seconds % 60);
    tm.tm_isdst = -1;
    then = mktime(&tm);
    if (then == (time_t) -1)
        return 0;
    if (then <= now) {
        tm.tm_mday++;
        tm.tm_isdst = -1;
        then = mktime(&tm);
    }
    return then == (time_t) -1 ? 0 : (int64_t) (then - now);
}

static void expire_in(struct req *r, const struct expires *x)
{
    int64_t age = x->seconds;
    bool negative = x->seconds < 0 && x->kind != EXPIRES_DAILY;
    char *date = arena_bytes(r->arena, FMT_HTTP_DATE);
    time_t modified = answer_last_modified(r);

    if (x->kind == EXPIRES_DAILY)
        age = until_time_of_day(x->seconds);
    else if (x->kind == EXPIRES_MODIFIED && x->seconds != 0 && modified != -1)
        age = modified + x->seconds - clock_time();
    fmt_http_date(date, clock_time() + age);
    set_expires_fields(r, str_from(date, FMT_HTTP_DATE),
                       negative || age < 0
                           ? STR("no-cache")
                           : str_printf(r->arena, "max-age=%lld", (long long) age));
}

static void add_expires(struct req *r, const struct headers_conf *conf)
{
    struct expires x = conf->expires;

    if (conf->expires_expr != NULL
        && expires_parse(expr_eval(&r->eval, conf->expires_expr), x.kind == EXPIRES_MODIFIED, &x)
               != EXPIRES_FINE)
        return;
    switch (x.kind) {
    case EXPIRES_OFF:
        break;
    case EXPIRES_EPOCH:
        set_expires_fields(r, STR("Thu, 01 Jan 1970 00:00:01 GMT"), STR("no-cache"));
        break;
    case EXPIRES_MAX:
        set_expires_fields(r, STR("Thu, 31 Dec 2037 23:55:55 GMT"), STR("max-age=315360000"));
        break;
    default:
        expire_in(r, &x);
    }
}

/* add_header ------------------------------------------------------------------------------------- */

static bool is_usual(const struct req *r)
{
    switch (r->out.status) {
    case 200:
    case 201:
    case 204:
    case 206:
    case 301:
    case 302:
    case 303:
    case 304:
    case 307:
    case 308:
        return true;
    case 416:
        return r->range_refused; /* the content was there, and judged usual */
    default:
        return false;
    }
}

/*
 * Behind those that are there already, also where the head's writer has a place for such a field, or makes
 * one itself, and as it is: a Location is not made absolute. Framing is the writer's business alone.
 */
static void append_field(struct req *r, const struct header *h, struct str value)
{
    struct fields *f = &r->out.fields;
    bool apart = h->token == T_SERVER || h->token == T_DATE || h->token == T_ACCEPT_RANGES
                 || h->token == T_LOCATION;
    enum token token = apart ? T_NONE : h->token;

    fields_add_hashed(&r->out, f, token, h->hash, h->name, value)->in_order =
        token != T_CONTENT_LENGTH && token != T_TRANSFER_ENCODING;
}

/* Fields that are there once are replaced, by nothing too; the others are added if they say anything. */
static void add_header(struct req *r, const struct header *h)
{
    struct str value = expr_eval(&r->eval, h->value);

    switch (h->token) {
    case T_LAST_MODIFIED:
        answer_clear_last_modified(r);
        if (value.len > 0)
            r->last_modified = fmt_parse_http_date(value);
        break;
    case T_ETAG:
        if (value.len > 0)
            fields_set(&r->out, &r->out.fields, T_ETAG, value); /* where the old one stands */
        else
            answer_clear_etag(r);
        return;
    default:
        break;
    }
    if (value.len > 0)
        append_field(r, h, value);
}

/* Whether there may be one: what it says is asked at the end, when more is known. */
static bool wants_trailers(struct req *r, const struct headers_conf *conf)
{
    bool usual = is_usual(r);

    if (r->header_only || r->in->version < HTTP_11)
        return false;
    for (unsigned i = 0; i < conf->trailers.count; i++) {
        const struct header *h = &conf->trailers.items[i];

        if (usual || h->always)
            return true;
    }
    return false;
}

static enum head_verdict headers_head(struct req *r, void **ctx)
{
    const struct headers_conf *conf = req_loc_conf(r, headers_slot);
    bool usual = is_usual(r);

    if (r != r->main)
        return HEAD_PASS;
    if (usual)
        add_expires(r, conf);
    for (unsigned i = 0; i < conf->headers.count; i++) {
        if (usual || conf->headers.items[i].always)
            add_header(r, &conf->headers.items[i]);
    }
    if (!wants_trailers(r, conf))
        return HEAD_PASS;
    r->expect_trailers = true;
    *ctx = (void *) conf;
    return HEAD_TAKE;
}

static enum verdict headers_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    const struct headers_conf *conf = ctx;
    bool usual = is_usual(r);

    (void) chain;
    if ((*flags & BODY_END) == 0)
        return V_NEXT;
    for (unsigned i = 0; i < conf->trailers.count; i++) {
        const struct header *h = &conf->trailers.items[i];
        struct str value;

        if (!usual && !h->always)
            continue;
        value = expr_eval(&r->eval, h->value);
        if (value.len > 0)
            fields_add(&r->out, &r->out.trailers, h->name, value);
    }
    return V_NEXT;
}

/* Configuration ---------------------------------------------------------------------------------- */

static const char *set_add_header(struct conf *cf, void *field)
{
    struct header_list *list = field;
    struct header h = { .name = cf->args[1] };
    const char *error = NULL;

    if (cf->nargs == 4) {
        if (!str_eq(cf->args[3], STR("always")))
            return conf_error_arg(cf, 3, "invalid parameter \"%.*s\"", STR_ARG(cf->args[3]));
        h.always = true;
    }
    h.token = token_lookup(h.name, &h.hash);
    h.value = expr_compile(cf, cf->args[2], 0, &error);
    if (h.value == NULL)
        return conf_error_arg(cf, 2, "%s", error);
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    list->items[list->count++] = h;
    return NULL;
}

static const char *set_expires(struct conf *cf, void *field)
{
    struct headers_conf *conf = container_of(field, struct headers_conf, expires);
    bool modified = cf->nargs == 3;
    struct str text = cf->args[cf->nargs - 1];
    enum expires_error error;

    if (modified && !str_eq(cf->args[1], STR("modified")))
        return conf_error_arg(cf, 1, "\"expires\" directive invalid value");
    conf->expires_expr = NULL;
    if (str_chr(text, '$') >= 0) {
        const char *why = NULL;

        conf->expires = (struct expires){ modified ? EXPIRES_MODIFIED : EXPIRES_ACCESS, 0 };
        conf->expires_expr = expr_compile(cf, text, 0, &why);
        return conf->expires_expr ? NULL : conf_error_arg(cf, cf->nargs - 1, "%s", why);
    }
    error = expires_parse(text, modified, &conf->expires);
    if (error == EXPIRES_FINE)
        return NULL;
    if (error == EXPIRES_DAILY_MODIFIED)
        return conf_error_arg(cf, cf->nargs - 1,
                              "\"expires\" directive daily time cannot be used with \"modified\" "
                              "parameter");
    if (error == EXPIRES_LONG_DAILY)
        return conf_error_arg(cf, cf->nargs - 1,
                              "\"expires\" directive daily time value must be less than 24 hours");
    return conf_error_arg(cf, cf->nargs - 1, "\"expires\" directive invalid value");
}

static void append(struct conf *cf, struct header_list *list, const struct header_list *more)
{
    for (unsigned i = 0; i < more->count; i++) {
        list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                                 sizeof(*list->items));
        list->items[list->count++] = more->items[i];
    }
}

/* What a level has after its rule: `list` holds its own rows, or all of the outer ones when it has none. */
static void apply_rule(struct conf *cf, struct level *level, struct header_list *list, unsigned rule,
                       bool set_here, const struct header_list *outer)
{
    if (rule == INHERIT_RULE_MERGE && set_here && outer->count > 0) {
        struct header_list all = { NULL, 0, 0 };

        append(cf, &all, list);
        append(cf, &all, outer);
        *list = all;
    }
    if (rule == INHERIT_RULE_OFF) {
        if (!set_here)
            *list = (struct header_list){ NULL, 0, 0 };
        /* Levels below must not share it: they have to forget what is set here. */
        if (list->count > 0)
            conf_own(cf, level, &module_http_headers, STORE_LOC);
    }
}

static int headers_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct headers_conf *conf = level_conf(level, STORE_LOC, headers_slot);
    const struct headers_conf *outer = NULL;

    if (conf == NULL || (level->context & (CTX_HSLI | CTX_IF_SERVER | CTX_LIMIT_EXCEPT)) == 0)
        return 0;
    if (parent != NULL && parent->conf[STORE_LOC] != NULL)
        outer = level_conf(parent, STORE_LOC, headers_slot);
    if (outer == NULL || outer == conf)
        return 0;
    apply_rule(cf, level, &conf->headers, conf->header_rule,
               conf_is_set(level, &module_http_headers, "add_header"), &outer->headers);
    apply_rule(cf, level, &conf->trailers, conf->trailer_rule,
               conf_is_set(level, &module_http_headers, "add_trailer"), &outer->trailers);
    return 0;
}

static const struct conf_enum rule_names[] = {
    { "on", INHERIT_RULE_ON }, { "off", INHERIT_RULE_OFF }, { "merge", INHERIT_RULE_MERGE },
    { NULL, 0 }
};

/* A rule "off" above means that each level below is looked at, even one that sets nothing. */
static const char *set_rule(struct conf *cf, void *field)
{
    const char *error = conf_set_enum(cf, field);

    if (error == NULL && *(unsigned *) field != INHERIT_RULE_ON)
        conf_own(cf, cf->level, &module_http_headers, STORE_LOC);
    return error;
}

static bool headers_wanted(const struct level *level)
{
    const struct headers_conf *conf = level_conf(level, STORE_LOC, headers_slot);

    return conf->headers.count > 0 || conf->trailers.count > 0 || conf->expires_expr != NULL
           || conf->expires.kind != EXPIRES_OFF;
}

static const struct directive directives[] = {
    ROW("add_header", CTX_HSLI, ARGS2 | ARGS3 | ARG_REPEAT, set_add_header, STORE_LOC,
        struct headers_conf, headers, INHERIT_WHOLE, NULL, "name value [always]",
        "Adds a field to answers of the usual statuses, or to all."),
    ROW("add_trailer", CTX_HSLI, ARGS2 | ARGS3 | ARG_REPEAT, set_add_header, STORE_LOC,
        struct headers_conf, trailers, INHERIT_WHOLE, NULL, "name value [always]",
        "Adds a field behind the body."),
    ROW("add_header_inherit", CTX_HSLI, ARGS1, set_rule, STORE_LOC, struct headers_conf,
        header_rule, INHERIT_SCALAR, "on", "on | off | merge",
        "Whether add_header of outer levels holds here too, and beside the level's own.",
        .extra = rule_names),
    ROW("add_trailer_inherit", CTX_HSLI, ARGS1, set_rule, STORE_LOC, struct headers_conf,
        trailer_rule, INHERIT_SCALAR, "on", "on | off | merge",
        "Whether add_trailer of outer levels holds here too, and beside the level's own.",
        .extra = rule_names),
    ROW("expires", CTX_HSLI, ARGS12, set_expires, STORE_LOC, struct headers_conf, expires,
        INHERIT_SCALAR, "off", "[modified] time | epoch | max | off",
        "Sets Expires and Cache-Control.", .group = 1),
    /* Written by the same setter: it travels along. */
    { .name = ".expires_expr", .store = STORE_LOC,
      .offset = offsetof(struct headers_conf, expires_expr), .size = sizeof(struct expr *),
      .inherit = INHERIT_SCALAR, .group = 1 },
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_HEADERS, .head = headers_head, .body = headers_body,
      .wanted = headers_wanted },
    FILTER_END,
};

static const struct http_module http_headers = { .filters = filters };

const struct module module_http_headers = {
    .name = "http_headers",
    .slot = &headers_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct headers_conf) },
    .directives = directives,
    .http = &http_headers,
    .finish = headers_finish,
};
