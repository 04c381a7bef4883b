/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * charset: which charset an answer says it is in, and its recoding when it is in another one. The
 * answer's own charset is what its Content-Type names, else source_charset. The text of
 * subrequests is recoded to what the main answer has announced. Tables are charset_map's; the
 * recoding itself is in charset_recode.c.
 */
#include "modules/http/charset.h"

#include "core/http/answer.h"
#include "core/http/mime_types.h"

/* configure: switch=http_charset_module default=always */

static unsigned charset_slot;
extern const struct module module_http_charset;

struct charset {
    struct str name;
    unsigned number;
    bool utf8;
    struct recoding *recodings;
};

struct charset_main {
    struct charset **items;
    unsigned count, capacity;
};

/* What `charset` or `source_charset` named; all empty: off. */
struct charset_ref {
    const struct charset *charset;
    struct expr *name; /* with a variable */
};

struct charset_conf {
    struct charset_ref charset, source;
    bool override;
    struct mime_types types;
};

/* Names ---------------------------------------------------------------------------------------- */

static const struct charset_main *charset_main(const struct level *level)
{
    return level_conf(level, STORE_MAIN, charset_slot);
}

static const struct charset *find(const struct charset_main *m, struct str name)
{
    for (unsigned i = 0; m != NULL && i < m->count; i++) {
        if (str_caseeq(m->items[i]->name, name))
            return m->items[i];
    }
    return NULL;
}

/* The charset of that name, which the configuration now knows. */
static struct charset *add(struct conf *cf, struct str name)
{
    struct charset_main *m = conf_own(cf, conf_http(cf)->level, &module_http_charset, STORE_MAIN);
    struct charset *c = (struct charset *) find(m, name);

    if (c != NULL)
        return c;
    c = ARENA_NEW(cf->arena, struct charset);
    c->name = name;
    c->number = m->count;
    c->utf8 = str_caseeq(name, STR("utf-8"));
    m->items = arena_grow(cf->arena, m->items, m->count, &m->capacity, sizeof(*m->items));
    m->items[m->count++] = c;
    return c;
}

static struct recoding *recoding_of(const struct charset *from, const struct charset *to)
{
    struct recoding *rec = from->recodings;

    while (rec != NULL && rec->to != to->number)
        rec = rec->next;
    return rec;
}

/* The head ------------------------------------------------------------------------------------- */

/* The charset an answer names: set apart, or a parameter of Content-Type. */
static struct str declared(const struct req *r)
{
    struct str type = fields_value(&r->out.fields, T_CONTENT_TYPE), value;
    ssize_t at;

    if (r->charset.len > 0)
        return r->charset;
    at = str_casefind(type, STR("charset="));
    if (at <= 0 || (type.ptr[at - 1] != ';' && type.ptr[at - 1] != ' '))
        return STR_NULL;
    value = str_skip(type, (size_t) at + 8);
    at = str_chr(value, ';');
    if (at >= 0)
        value.len = (size_t) at;
    value = str_trim(value);
    if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"')
        value = str_from(value.ptr + 1, value.len - 2);
    return value;
}

/* A charset as an answer has it: the name, and what is known of it. */
struct named {
    struct str name;
    const struct charset *charset;
};

static struct named resolve(struct req *r, const struct charset_ref *ref)
{
    struct named n = { STR_NULL, ref->charset };

    if (ref->charset != NULL) {
        n.name = ref->charset->name;
    } else if (ref->name != NULL) {
        n.name = expr_eval(&r->eval, ref->name);
        if (n.name.ptr == NULL)
            n.name = STR("");
        n.charset = find(charset_main(r->loc->level), n.name);
    }
    return n;
}

/* What the answer is to be in. False: it is left alone. */
static bool destination(struct req *r, const struct charset_conf *conf, struct named *to)
{
    if (r != r->main) { /* of whatever type, or none: it becomes a part of the main answer's text */
        to->name = declared(r->main);
        to->charset = find(charset_main(r->loc->level), to->name);
        return to->name.len > 0;
    }
    if (fields_value(&r->out.fields, T_CONTENT_TYPE).len == 0)
        return false;
    if (r->override_charset.len > 0) {
        to->name = r->override_charset;
        to->charset = find(charset_main(r->loc->level), to->name);
        if (to->charset == NULL)
            log_error(&r->log, 0, "unknown charset \"%.*s\" to override", STR_ARG(to->name));
        return to->charset != NULL;
    }
    if (conf->charset.charset == NULL && conf->charset.name == NULL)
        return false;
    if (declared(r).len > 0 ? !conf->override : !mime_types_match(&conf->types, r))
        return false;
    *to = resolve(r, &conf->charset);
    return true;
}

/*
 * Says it in the head. A redirect's own page is read by nobody: old browsers took its charset for
 * the next one's.
 */
static void announce(struct req *r, struct str name)
{
    struct field *type = fields_get(&r->out.fields, T_CONTENT_TYPE);
    ssize_t at;

    if (r != r->main)
        return;
    at = str_casefind(type->value, STR("charset="));
    if (at > 0 && declared(r).len > 0) {
        struct str rest = str_from(type->value.ptr, (size_t) at);

        while (rest.len > 0 && (rest.ptr[rest.len - 1] == ' ' || rest.ptr[rest.len - 1] == ';'))
            rest.len--;
        type->value = rest;
    }
    r->charset = r->out.status == 301 || r->out.status == 302 ? STR_NULL : name;
}

struct recode_run {
    const struct recoding *rec;
    struct recode_state state;
};

static enum head_verdict charset_head(struct req *r, void **ctx)
{
    const struct charset_conf *conf = req_loc_conf(r, charset_slot);
    const struct recoding *rec = NULL;
    struct recode_run *run;
    struct named from, to;

    if (!destination(r, conf, &to))
        return HEAD_PASS;
    from.name = declared(r);
    if (from.name.len > 0)
        from.charset = find(charset_main(r->loc->level), from.name);
    else
        from = resolve(r, &conf->source);
    if (from.name.ptr == NULL || str_caseeq(from.name, to.name)) {
        announce(r, to.name);
        return HEAD_PASS;
    }
    if (fields_value(&r->out.fields, T_CONTENT_ENCODING).len > 0)
        return HEAD_PASS; /* the text is not to be seen */
    if (from.charset != NULL && to.charset != NULL)
        rec = recoding_of(from.charset, to.charset);
    if (rec == NULL) {
        log_error(&r->log, 0, "no \"charset_map\" between the charsets \"%.*s\" and \"%.*s\"",
                  STR_ARG(from.name), STR_ARG(to.name));
        return HEAD_PASS;
    }
    announce(r, to.name);
    if (rec->kind != RECODE_BYTES) {
        answer_clear_length(r);
        answer_clear_ranges(r);
    }
    run = ARENA_NEW(r->arena, struct recode_run);
    run->rec = rec;
    *ctx = run;
    return HEAD_TAKE;
}

static enum verdict charset_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct recode_run *run = ctx;

    if (!r->header_only)
        recode_chain(run->rec, &run->state, chain, *flags & BODY_END);
    return V_NEXT;
}

/* Configuration -------------------------------------------------------------------------------- */

static const char *set_charset(struct conf *cf, void *field)
{
    struct charset_ref *ref = field;
    struct str name = cf->args[1];
    const char *error = NULL;

    *ref = (struct charset_ref){ NULL, NULL };
    if (str_eq(cf->args[0], STR("charset")) && str_eq(name, STR("off")))
        return NULL;
    if (str_chr(name, '$') >= 0) {
        ref->name = expr_compile(cf, name, 0, &error);
        return ref->name != NULL ? NULL : conf_error_arg(cf, 1, "%s", error);
    }
    ref->charset = add(cf, name);
    return NULL;
}

struct map_block {
    struct charset *from, *to;
    struct recoding *there, *back;
};

/* Hexadecimal digits as bytes. 0, or -1: malformed, or too many. */
static int read_bytes(struct str text, unsigned char *out, size_t max, size_t *len)
{
    *len = 0;
    if (text.len == 0 || text.len % 2 != 0 || text.len / 2 > max)
        return -1;
    for (size_t i = 0; i < text.len; i += 2) {
        uint64_t n;

        if (str_to_hex64(str_from(text.ptr + i, 2), &n) != 0)
            return -1;
        out[(*len)++] = (unsigned char) n;
    }
    return 0;
}

/* One or two digits. */
static int read_code(struct str text, unsigned char *out)
{
    uint64_t n;

    if (str_to_hex64(text, &n) != 0 || n > 255)
        return -1;
    *out = (unsigned char) n;
    return 0;
}

static const char *map_line(struct conf *cf, void *data)
{
    struct map_block *m = data;
    unsigned char from, to[UTF8_MAX];
    unsigned code;
    size_t len;

    if (cf->nargs != 2)
        return conf_error(cf, "invalid parameters number");
    if (m->from->utf8)
        return conf_error(cf, "\"utf-8\" must be the second charset of a \"charset_map\"");
    if (read_code(cf->args[0], &from) != 0)
        return conf_error_arg(cf, 0, "invalid value \"%.*s\"", STR_ARG(cf->args[0]));
    if (m->to->utf8) {
        if (read_bytes(cf->args[1], to, UTF8_MAX, &len) != 0 ||
            utf8_decode(to, len, &code) != (int) len || code > 0xffff)
            return conf_error_arg(cf, 1, "invalid value \"%.*s\"", STR_ARG(cf->args[1]));
        m->there->wide[from].len = (unsigned char) len;
        memcpy(m->there->wide[from].text, to, len);
        recoding_add_page(cf->arena, m->back, code, from);
        return NULL;
    }
    if (read_code(cf->args[1], to) != 0)
        return conf_error_arg(cf, 1, "invalid value \"%.*s\"", STR_ARG(cf->args[1]));
    m->there->bytes[from] = to[0];
    m->back->bytes[to[0]] = from;
    return NULL;
}

static const char *set_charset_map(struct conf *cf, void *field)
{
    struct map_block m;

    (void) field;
    m.from = add(cf, cf->args[1]);
    m.to = add(cf, cf->args[2]);
    if (m.from == m.to)
        return conf_error(cf, "\"charset_map\" between the same charsets \"%.*s\" and \"%.*s\"",
                          STR_ARG(cf->args[1]), STR_ARG(cf->args[2]));
    if (recoding_of(m.from, m.to) != NULL)
        return conf_error(cf, "duplicate \"charset_map\" between \"%.*s\" and \"%.*s\"",
                          STR_ARG(cf->args[1]), STR_ARG(cf->args[2]));
    m.there = recoding_new(cf->arena, m.to->number, m.to->utf8 ? RECODE_TO_UTF8 : RECODE_BYTES);
    m.back = recoding_new(cf->arena, m.from->number, m.to->utf8 ? RECODE_FROM_UTF8 : RECODE_BYTES);
    m.there->next = m.from->recodings;
    m.from->recodings = m.there;
    m.back->next = m.to->recodings;
    m.to->recodings = m.back;
    return conf_lines(cf, map_line, &m);
}

/* Where both charsets are known now, so must be the way from one to the other. */
static int charset_finish(struct conf *cf, struct level *level, struct level *parent)
{
    const struct charset_conf *conf = level_conf(level, STORE_LOC, charset_slot);
    const struct charset *from, *to;

    (void) parent;
    if (conf == NULL || (!conf_is_set(level, &module_http_charset, "charset") &&
                         !conf_is_set(level, &module_http_charset, "source_charset")))
        return 0;
    from = conf->source.charset;
    to = conf->charset.charset;
    if (from == NULL || to == NULL || from == to || recoding_of(from, to) != NULL)
        return 0;
    conf_error_at(cf, level->pos, "no \"charset_map\" between the charsets \"%.*s\" and \"%.*s\"",
                  STR_ARG(from->name), STR_ARG(to->name));
    return -1;
}

/* X-Accel-Charset may name any charset that is known. */
static bool charset_wanted(const struct level *level)
{
    const struct charset_conf *conf = level_conf(level, STORE_LOC, charset_slot);
    const struct charset_main *m = charset_main(level);

    return conf->charset.name != NULL || (m != NULL && m->count > 0);
}

static const struct directive directives[] = {
    ROW("charset", CTX_HSLI, ARGS1, set_charset, STORE_LOC, struct charset_conf, charset,
        INHERIT_SCALAR, "off", "charset | off",
        "The charset that answers are announced in, and recoded to."),
    ROW("source_charset", CTX_HSLI, ARGS1, set_charset, STORE_LOC, struct charset_conf, source,
        INHERIT_SCALAR, NULL, "charset", "The charset that answers are in when they name none."),
    ROW("override_charset", CTX_HSLI, ARG_FLAG, conf_set_flag, STORE_LOC, struct charset_conf,
        override, INHERIT_SCALAR, "off", "on | off",
        "Recodes also answers that name their charset themselves."),
    ROW("charset_types", CTX_HSL, ARGS1_MORE | ARG_REPEAT, conf_set_mime_types, STORE_LOC, struct charset_conf,
        types, INHERIT_WHOLE,
        "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        "mime-type ...", "Types besides text/html that get a charset."),
    ROW_CALL("charset_map", CTX_HTTP, ARGS2 | ARG_BLOCK | ARG_REPEAT, set_charset_map, STORE_MAIN,
             "charset1 charset2 { ... }", "A table of recoding, for both ways."),
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_CHARSET,
      .head = charset_head,
      .body = charset_body,
      .wanted = charset_wanted,
      .in_memory = true },
    FILTER_END,
};

static const struct http_module http_charset = { .filters = filters };

const struct module module_http_charset = {
    .name = "http_charset",
    .slot = &charset_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct charset_main),
                   [STORE_LOC] = sizeof(struct charset_conf) },
    .directives = directives,
    .http = &http_charset,
    .finish = charset_finish,
};
