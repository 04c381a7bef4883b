/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The head of the request that is sent on. What the configuration says of it is compiled into a
 * template at load: fields of its own, and which of the client's are not passed. The rest of
 * the client's fields follow in their order and spelling.
 */
#include "core/base/fmt.h"
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

int proxy_make_template(struct conf *cf, struct level *level, struct proxy_loc *p)
{
    struct proxy_template *t = ARENA_NEW(cf->arena, struct proxy_template);
    const char *error = NULL;
    bool has_host = false;

    (void) level;
    t->fields = ARENA_ARRAY(cf->arena, struct proxy_field, p->set_headers.count + 1);
    for (unsigned i = 0; i < ARRAY_LEN(always_dropped); i++)
        t->drop[always_dropped[i]] = 1;
    for (unsigned i = 0; i < p->set_headers.count; i++) {
        const struct proxy_field *f = &p->set_headers.items[i];

        has_host |= str_caseeq(f->name, STR("Host"));
        t->sets_length |= str_caseeq(f->name, STR("Content-Length"));
        t->sets_encoding |= str_caseeq(f->name, STR("Transfer-Encoding"));
        drop(cf->arena, t, f->name, p->set_headers.count);
        if (is_empty(f->value))
            continue;
        t->sets_upgrade |= str_caseeq(f->name, STR("Upgrade"));
        t->fields[t->count++] = *f;
    }
    if (!has_host) {
        t->fields[t->count].name = STR("Host");
        t->fields[t->count].value = expr_compile(cf, STR("$proxy_host"), 0, &error);
        if (t->fields[t->count++].value == NULL)
            return -1;
    }
    p->template = t;
    return 0;
}

/* Encoding ------------------------------------------------------------------------------------ */

/* What must not go on because the client's Connection names it. */
static struct str hop_names(struct req *r)
{
    struct str v = fields_value(&r->in->fields, T_CONNECTION);

    if (likely(v.ptr == NULL) || str_caseeq(v, STR("keep-alive")) || str_caseeq(v, STR("close"))
        || str_caseeq(v, STR("upgrade")))
        return STR_NULL;
    return fields_joined(&r->in->fields, STR("Connection"), STR(", "), r->arena);
}

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

static size_t field_size(struct str name, struct str value)
{
    return value.len ? name.len + value.len + 4 : 0;
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

static void evaluate(struct exchange *x, const struct proxy_req *pr, struct head_parts *h)
{
    const struct proxy_template *t = pr->conf->template;
    struct req *r = x->req;

    h->value = t->count <= VALUES_ON_STACK ? h->values
                                           : ARENA_ARRAY(r->arena, struct str, t->count);
    for (unsigned i = 0; i < t->count; i++)
        h->value[i] = expr_eval(&r->eval, t->fields[i].value);
    h->via = pr->conf->via.mode == VIA_OFF ? STR_NULL : proxy_via_value(r, &pr->conf->via);
    h->hops = hop_names(r);
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

struct str proxy_encode_head(struct exchange *x, struct proxy_req *pr)
{
    const struct proxy_template *t = pr->conf->template;
    const struct fields *in = &x->req->in->fields;
    bool pass = x->conf->pass_request_headers;
    struct head_parts h;
    char *buf, *p;
    size_t size;

    evaluate(x, pr, &h);
    size = pr->method.len + x->uri.len + sizeof(" HTTP/1.1\r\n\r\n ")
           + sizeof("Content-Length: \r\nTransfer-Encoding: chunked\r\nVia: \r\n") + FMT_U64_MAX
           + h.via.len;
    for (unsigned i = 0; i < t->count; i++)
        size += field_size(t->fields[i].name, h.value[i]);
    for (unsigned i = 0; pass && i < in->count; i++)
        size += in->items[i].name.len + in->items[i].value.len + 4;
    p = buf = arena_bytes(x->req->arena, size);
    p = fmt_str(p, pr->method);
    *p++ = ' ';
    p = fmt_str(p, x->uri);
    p = fmt_str(p, pr->conf->http_version == HTTP_10 ? STR(" HTTP/1.0\r\n") : STR(" HTTP/1.1\r\n"));
    for (unsigned i = 0; i < t->count; i++)
        p = put_field(p, t->fields[i].name, h.value[i]);
    p = put_field(p, STR("Content-Length"), h.content_length);
    if (h.chunked)
        p = fmt_str(p, STR("Transfer-Encoding: chunked\r\n"));
    for (unsigned i = 0; pass && i < in->count; i++) {
        const struct field *f = &in->items[i];
        struct str value = f->value;

        if (!is_passed(t, f, h.hops) || replaces(&h, f, &value))
            continue;
        p = fmt_str(p, f->name);
        *p++ = ':';
        *p++ = ' ';
        p = fmt_str(p, value);
        *p++ = '\r';
        *p++ = '\n';
    }
    if (!t->drop[T_VIA])
        p = put_field(p, STR("Via"), h.via);
    *p++ = '\r';
    *p++ = '\n';
    ASSERT((size_t) (p - buf) <= size);
    return str_from(buf, (size_t) (p - buf));
}
