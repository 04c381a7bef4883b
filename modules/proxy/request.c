/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The head of the request that is sent on. What the configuration says of it is compiled into a
 * template at load: runs of bytes that are known then, fields whose values are not, and which of
 * the client's are not passed. The rest of the client's fields follow in their order and spelling.
 */
#include "core/base/fmt.h"
#include "core/http/h1.h"
#include "modules/proxy/proxy.h"

#define VALUES_ON_STACK 24

/* Not passed in any case: they concern one connection only, or are sent in another way. */
static const enum token always_dropped[] = {
    T_HOST, T_CONNECTION, T_CONTENT_LENGTH, T_TRANSFER_ENCODING, T_TE, T_KEEP_ALIVE, T_EXPECT,
    T_UPGRADE, T_PROXY_CONNECTION,
};

/* The template -------------------------------------------------------------------------------- */

const char *proxy_set_set_header(struct conf *cf, void *field)
{
    struct proxy_fields *list = field;
    struct proxy_field f = { .name = cf->args[1] };
    const char *error = NULL;

    f.value = expr_compile(cf, cf->args[2], 0, &error);
    if (f.value == NULL)
        return error;
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity,
                             sizeof(*list->items));
    list->items[list->count++] = f;
    return NULL;
}

enum { RULE_ON, RULE_OFF, RULE_MERGE };

const struct conf_enum proxy_header_rules[] = {
    { "on", RULE_ON }, { "off", RULE_OFF }, { "merge", RULE_MERGE }, { NULL, 0 }
};

/* Levels below one with another rule than "on" are looked at, also those that set nothing. */
const char *proxy_set_header_rule(struct conf *cf, void *field)
{
    const char *error = conf_set_enum(cf, field);

    if (error == NULL && *(unsigned *) field != RULE_ON)
        conf_own(cf, cf->level, &module_http_proxy, STORE_LOC);
    return error;
}

static bool sets(const struct proxy_fields *list, struct str name)
{
    for (unsigned i = 0; i < list->count; i++) {
        if (str_caseeq(list->items[i].name, name))
            return true;
    }
    return false;
}

/* Merged, a level's own fields take the place of outer ones of the same name: nobody wants two Hosts. */
void proxy_inherit_headers(struct conf *cf, struct level *level, struct proxy_loc *p,
                           const struct proxy_loc *outer)
{
    bool set_here = conf_is_set(level, &module_http_proxy, "proxy_set_header");
    struct proxy_fields all = { NULL, 0, 0 }, *own = &p->set_headers;

    if (outer == NULL || outer == p)
        return;
    if (p->set_header_rule == RULE_OFF) {
        if (!set_here)
            *own = all;
        if (own->count > 0)
            conf_own(cf, level, &module_http_proxy, STORE_LOC);
    }
    if (p->set_header_rule != RULE_MERGE || !set_here)
        return;
    for (unsigned i = 0; i < own->count + outer->set_headers.count; i++) {
        const struct proxy_field *f = i < own->count ? &own->items[i]
                                                     : &outer->set_headers.items[i - own->count];

        if (i >= own->count && sets(own, f->name))
            continue;
        all.items = arena_grow(cf->arena, all.items, all.count, &all.capacity, sizeof(*all.items));
        all.items[all.count++] = *f;
    }
    *own = all;
}

static void drop(struct arena *arena, struct proxy_template *t, struct str name, unsigned most)
{
    uint32_t hash;
    enum token token = token_lookup(name, &hash);

    if (token != T_NONE) {
        t->drop[token] = 1;
        return;
    }
    if (t->names == NULL) {
        t->names = ARENA_ARRAY(arena, struct str, most);
        t->hashes = ARENA_ARRAY(arena, uint32_t, most);
    }
    t->names[t->name_count] = name;
    t->hashes[t->name_count++] = hash;
}

/* True if the value is the empty string: such a field is not sent. */
static bool is_empty(const struct expr *value)
{
    struct str text;

    return expr_is_literal(value, &text) && text.len == 0;
}

/* The value if it is the same for all requests of this location. */
static bool is_known(const struct proxy_loc *p, const struct expr *value, struct str *text)
{
    struct str source;

    if (expr_is_literal(value, text))
        return true;
    source = expr_source(value);
    if (p->pass == NULL || p->pass->url != NULL
        || !(str_eq(source, STR("$proxy_host")) || str_eq(source, STR("${proxy_host}"))))
        return false;
    *text = p->pass->host_port;
    return true;
}

/* first, name, ": ", and with a value that and the end of the line. */
static struct str add_line(struct arena *arena, struct str first, struct str name,
                           const struct str *value)
{
    size_t room = first.len + name.len + 4 + (value != NULL ? value->len : 0);
    char *buf = arena_bytes(arena, room), *p = fmt_str(buf, first);

    p = fmt_str(p, name);
    p = fmt_str(p, STR(": "));
    if (value != NULL)
        p = fmt_str(fmt_str(p, *value), STR("\r\n"));
    return str_from(buf, (size_t) (p - buf));
}

static void add_field(struct arena *arena, struct proxy_template *t, const struct proxy_loc *p,
                      const struct proxy_field *f)
{
    struct proxy_run *run = &t->runs[t->count];
    struct str value;

    if (is_known(p, f->value, &value)) {
        if (value.len > 0)
            run->text = add_line(arena, run->text, f->name, &value);
        return;
    }
    run->name = add_line(arena, STR(""), f->name, NULL);
    run->value = f->value;
    t->size += run->text.len + run->name.len + 2;
    t->count++;
}

int proxy_make_template(struct conf *cf, struct level *level, struct proxy_loc *p)
{
    struct proxy_template *t = ARENA_NEW(cf->arena, struct proxy_template);
    struct proxy_field host = { .name = STR("Host") };
    const char *error = NULL;
    bool has_host = false;

    (void) level;
    t->runs = ARENA_ARRAY(cf->arena, struct proxy_run, p->set_headers.count + 2);
    t->runs[0].text = p->http_version == HTTP_10 ? STR(" HTTP/1.0\r\n") : STR(" HTTP/1.1\r\n");
    for (unsigned i = 0; i < ARRAY_LEN(always_dropped); i++)
        t->drop[always_dropped[i]] = 1;
    for (unsigned i = 0; i < p->set_headers.count; i++) {
        const struct proxy_field *f = &p->set_headers.items[i];

        t->own_upgrade |= str_caseeq(f->name, STR("Upgrade"));
        has_host |= str_caseeq(f->name, STR("Host"));
        t->sets_length |= str_caseeq(f->name, STR("Content-Length"));
        t->sets_encoding |= str_caseeq(f->name, STR("Transfer-Encoding"));
        drop(cf->arena, t, f->name, p->set_headers.count);
        if (is_empty(f->value))
            continue;
        /* An empty Connection is written for kept-alive connections, and forbids nothing. */
        t->own_upgrade |= str_caseeq(f->name, STR("Connection"));
        t->sets_upgrade |= str_caseeq(f->name, STR("Upgrade"));
        add_field(cf->arena, t, p, f);
    }
    if (!has_host) {
        host.value = expr_compile(cf, STR("$proxy_host"), 0, &error);
        if (host.value == NULL)
            return -1;
        add_field(cf->arena, t, p, &host);
    }
    t->size += t->runs[t->count++].text.len;
    p->template = t;
    return 0;
}

/* Encoding ------------------------------------------------------------------------------------ */

static bool is_passed(const struct proxy_template *t, const struct field *f, struct str hops)
{
    if (f->deleted || t->drop[f->token])
        return false;
    if (f->token == T_NONE) {
        for (unsigned i = 0; i < t->name_count; i++) {
            if (t->hashes[i] == f->hash && str_caseeq(t->names[i], f->name))
                return false;
        }
    }
    return hops.len == 0 || !list_has(hops, f->name);
}

/* ", 1.1 name" behind a Via that is there, or one of its own (RFC 9110, 7.6.3). */
struct str proxy_via_value(struct req *r, const struct proxy_via *via)
{
    struct str old = fields_joined(&r->in->fields, STR("Via"), STR(", "), r->arena);
    struct str name = STR("proxyd");
    unsigned v = r->in->version;

    if (via->mode == VIA_OFF)
        return STR_NULL;
    if (via->mode == VIA_NAME)
        name = expr_eval(&r->eval, via->name);
    else if (r->server->name.len > 0)
        name = r->server->name;
    return str_printf(r->arena, "%.*s%s%u.%u %.*s", STR_ARG(old), old.len ? ", " : "", v / 10,
                      v % 10, STR_ARG(name));
}

/* "name" or "name/version". */
static bool is_protocol(struct str s)
{
    ssize_t slash = str_chr(s, '/');

    if (slash < 0)
        return is_token(s);
    return is_token(str_from(s.ptr, (size_t) slash)) && is_token(str_skip(s, (size_t) slash + 1));
}

/*
 * Only with a request that has no body: how much of one the server reads before it changes the protocol would be
 * a matter of opinion, and what is left would be read as something else. Never h2c, which RFC 9113 (3.1) has given up: nobody here
 * would judge the requests inside.
 */
struct str proxy_upgrade_value(struct req *r)
{
    const struct fields *f = &r->in->fields;
    struct str all, one;
    char *buf, *p;

    if (likely(fields_get(f, T_UPGRADE) == NULL) || r->in->version != HTTP_11 || r != r->main
        || r->ops->tunnel == NULL || r->in->content_length > 0 || r->in->chunked
        || !list_has(fields_joined(f, STR("Connection"), STR(", "), r->arena), STR("upgrade")))
        return STR("");
    all = fields_joined(f, STR("Upgrade"), STR(", "), r->arena);
    p = buf = arena_bytes(r->arena, 2 * all.len + 1);
    for (size_t pos = 0; list_next(all, &pos, &one);) {
        if (!is_protocol(one) || str_caseeq(one, STR("h2c")))
            continue;
        if (p > buf)
            p = fmt_str(p, STR(", "));
        p = fmt_str(p, one);
    }
    return str_from(buf, (size_t) (p - buf));
}

/* RFC 9110, 7.6.2: one hop less. Empty: nothing to change. */
static struct str max_forwards(struct req *r)
{
    struct str v;
    uint64_t n;

    if (likely(!(r->method & (METHOD_OPTIONS | METHOD_TRACE))))
        return STR_NULL;
    v = fields_value(&r->in->fields, T_MAX_FORWARDS);
    if (v.len == 0 || str_to_u64(v, &n) != 0 || n == 0)
        return STR_NULL;
    return str_printf(r->arena, "%llu", (unsigned long long) (n - 1));
}

/* What the head is made of, besides the client's own fields. */
struct head_parts {
    struct str values[VALUES_ON_STACK], *value;
    struct str via, hops, forwards;
    char length[FMT_U64_MAX];
    struct str content_length;
    bool chunked;
};

static void body_framing(struct exchange *x, const struct proxy_req *pr, struct head_parts *h)
{
    const struct req *r = x->req;
    uint64_t n;

    if (pr->body.ptr != NULL)
        n = pr->body.len;
    else if (!pr->has_body)
        return;
    else if (pr->chunked) {
        h->chunked = !pr->conf->template->sets_encoding;
        return;
    } else
        n = x->stream_body && r->in->content_length >= 0 ? (uint64_t) r->in->content_length
                                                          : r->main->body.received;
    if (!pr->conf->template->sets_length)
        h->content_length = str_from(h->length, (size_t) (fmt_u64(h->length, n) - h->length));
}

static char *put_field(char *p, struct str name, struct str value)
{
    if (value.len == 0)
        return p;
    p = fmt_str(p, name);
    *p++ = ':';
    *p++ = ' ';
    p = fmt_str(p, value);
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

/*
 * A decoded $uri may hold line ends: in a field they would begin another one, or another request,
 * of the client's making (RFC 9112, 11.1). They become blanks.
 */
static struct str one_line(struct arena *arena, struct str value)
{
    size_t clean = scan_span(SCAN_FIELD_VALUE, value.ptr, value.len);
    char *copy;

    if (likely(clean == value.len))
        return value;
    copy = arena_bytes(arena, value.len);
    memcpy(copy, value.ptr, value.len);
    for (size_t i = clean; i < value.len; i++) {
        if (copy[i] == '\r' || copy[i] == '\n' || copy[i] == '\0')
            copy[i] = ' ';
    }
    return str_from(copy, value.len);
}

static void evaluate(struct exchange *x, const struct proxy_req *pr, struct head_parts *h)
{
    const struct proxy_template *t = pr->conf->template;
    struct req *r = x->req;

    h->value = t->count <= VALUES_ON_STACK ? h->values
                                           : ARENA_ARRAY(r->arena, struct str, t->count);
    for (unsigned i = 0; i < t->count; i++)
        h->value[i] = t->runs[i].value
                          ? one_line(r->arena, expr_eval(&r->eval, t->runs[i].value))
                          : STR_NULL;
    h->via = pr->conf->via.mode == VIA_OFF ? STR_NULL : proxy_via_value(r, &pr->conf->via);
    h->hops = fields_hop_names(&r->in->fields, r->arena);
    h->forwards = max_forwards(r);
    h->content_length = STR_NULL;
    h->chunked = false;
    body_framing(x, pr, h);
}

static bool replaces(const struct head_parts *h, const struct field *f, struct str *value)
{
    if (unlikely(f->token == T_MAX_FORWARDS) && h->forwards.ptr != NULL)
        *value = h->forwards;
    return unlikely(f->token == T_VIA) && h->via.ptr != NULL;
}

/* The template's part, behind the URI. */
static char *put_runs(char *p, const struct proxy_template *t, const struct head_parts *h)
{
    for (unsigned i = 0; i < t->count; i++) {
        p = fmt_str(p, t->runs[i].text);
        if (h->value[i].len == 0)
            continue;
        p = fmt_str(p, t->runs[i].name);
        p = fmt_str(p, h->value[i]);
        *p++ = '\r';
        *p++ = '\n';
    }
    return p;
}

/*
 * A field of the client's. As a rule name and value lie in what was read with ": " between them:
 * one copy then instead of two.
 */
static char *put_own_field(char *p, const struct field *f, struct str value)
{
    const char *colon = f->name.ptr + f->name.len;

    if (likely(value.len > 0 && value.ptr == colon + 2 && colon[0] == ':' && colon[1] == ' ')) {
        p = fmt_str(p, str_from(f->name.ptr, f->name.len + 2 + value.len));
    } else {
        p = fmt_str(p, f->name);
        *p++ = ':';
        *p++ = ' ';
        p = fmt_str(p, value);
    }
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

/* Those of the client's fields that are passed on. */
static char *put_own_fields(char *p, const struct proxy_template *t, const struct fields *in,
                            const struct head_parts *h)
{
    for (const struct field *f = in->items, *end = f + in->count; f < end; f++) {
        struct str value = f->value;

        if (is_passed(t, f, h->hops) && !replaces(h, f, &value))
            p = put_own_field(p, f, value);
    }
    return p;
}

static size_t head_size(const struct exchange *x, const struct proxy_req *pr,
                        const struct head_parts *h, bool pass)
{
    const struct proxy_template *t = pr->conf->template;
    const struct fields *in = &x->req->in->fields;
    size_t size = pr->method.len + x->uri.len + t->size + sizeof(" \r\n")
                  + sizeof("Content-Length: \r\nTransfer-Encoding: chunked\r\nVia: \r\n")
                  + sizeof("Upgrade: \r\nConnection: upgrade\r\n") + FMT_U64_MAX + h->via.len
                  + pr->upgrade.len;

    for (unsigned i = 0; i < t->count; i++)
        size += h->value[i].len;
    if (!pass)
        return size;
    for (const struct field *f = in->items, *end = f + in->count; f < end; f++)
        size += f->name.len + f->value.len + 4;
    return size;
}

struct str proxy_encode_head(struct exchange *x, struct proxy_req *pr)
{
    const struct proxy_template *t = pr->conf->template;
    bool pass = x->conf->pass_request_headers;
    struct head_parts h;
    char *buf, *p, *version;
    size_t size;

    evaluate(x, pr, &h);
    size = head_size(x, pr, &h, pass);
    p = buf = arena_bytes(x->req->arena, size);
    p = fmt_str(p, pr->method);
    *p++ = ' ';
    p = fmt_str(p, x->uri);
    version = p;
    p = put_runs(p, t, &h);
    if (unlikely(pr->upgrade.len > 0)) {
        version[sizeof(" HTTP/1.") - 1] = '1'; /* whatever others are sent with */
        p = put_field(p, STR("Connection"), STR("upgrade"));
        p = put_field(p, STR("Upgrade"), pr->upgrade);
    }
    p = put_field(p, STR("Content-Length"), h.content_length);
    if (h.chunked)
        p = fmt_str(p, STR("Transfer-Encoding: chunked\r\n"));
    if (pass)
        p = put_own_fields(p, t, &x->req->in->fields, &h);
    if (!t->drop[T_VIA])
        p = put_field(p, STR("Via"), h.via);
    *p++ = '\r';
    *p++ = '\n';
    ASSERT((size_t) (p - buf) <= size);
    return str_from(buf, (size_t) (p - buf));
}

/* Whether it is about the connection or a body: the business of who sends the request. */
static bool is_framing(struct str name)
{
    switch (token_lookup(name, &(uint32_t){ 0 })) {
    case T_CONNECTION:
    case T_KEEP_ALIVE:
    case T_UPGRADE:
    case T_TE:
    case T_EXPECT:
    case T_CONTENT_LENGTH:
    case T_TRANSFER_ENCODING: return true;
    default: return false;
    }
}

struct str proxy_literal_fields(struct arena *arena, const struct level *level, bool *host)
{
    const struct proxy_loc *p = level_conf(level, STORE_LOC, proxy_slot);
    struct str all = STR(""), value;

    *host = false;
    for (unsigned i = 0; i < p->set_headers.count; i++) {
        const struct proxy_field *f = &p->set_headers.items[i];

        if (!expr_is_literal(f->value, &value) || value.len == 0 || is_framing(f->name)
            || !is_field_value(value))
            continue;
        all = str_printf(arena, "%.*s%.*s: %.*s\r\n", STR_ARG(all), STR_ARG(f->name), STR_ARG(value));
        *host |= str_caseeq(f->name, STR("Host"));
    }
    return all;
}

bool proxy_known_value(const struct level *level, const struct expr *value, struct str *text)
{
    return is_known(level_conf(level, STORE_LOC, proxy_slot), value, text);
}
