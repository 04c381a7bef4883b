/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heads of HTTP/1 responses and the framing of chunks into bytes (RFC 9112, 2 to 7). The writer
 * alone decides what goes out about framing and the connection: such fields in the msg are left
 * out. It lets no value end its line early, wherever that value came from.
 */
#include "core/base/fmt.h"
#include "core/http/h1.h"

/* All that is written besides the msg's own fields, reason, server and date. */
#define FIXED_MAX 256

/* Those with a place of their own, and those that only the writer makes. */
static bool written_elsewhere(enum token t)
{
    switch (t) {
    case T_SERVER:
    case T_DATE:
    case T_CONTENT_TYPE:
    case T_CONTENT_LENGTH:
    case T_LAST_MODIFIED:
    case T_LOCATION:
    case T_TRANSFER_ENCODING:
    case T_CONNECTION:
    case T_KEEP_ALIVE:
    case T_VARY: return true;
    default: return false;
    }
}

/* A NUL, CR or LF in a value would begin a line, or a response, of somebody else's making. */
static char *put_value(char *p, struct str value)
{
    size_t clean = scan_span(SCAN_FIELD_VALUE, value.ptr, value.len);

    p = fmt_str(p, value);
    for (char *at = p - (value.len - clean); at < p; at++) {
        if (*at == '\0' || *at == '\r' || *at == '\n')
            *at = ' ';
    }
    return p;
}

static char *put_field(char *p, struct str name, struct str value)
{
    p = put_value(p, name);
    *p++ = ':';
    *p++ = ' ';
    p = put_value(p, value);
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

static char *put_token(char *p, const struct fields *f, enum token t)
{
    for (const struct field *item = fields_get(f, t); item != NULL; item = fields_next(f, item))
        if (!item->in_order)
            p = put_field(p, item->name, item->value);
    return p;
}

static char *put_status_line(char *p, const struct msg *m)
{
    struct str reason = m->reason.ptr != NULL ? m->reason : status_reason(m->status);

    p = fmt_str(p, STR("HTTP/1.1 "));
    p = fmt_u64(p, m->status);
    *p++ = ' ';
    p = put_value(p, reason);
    return fmt_str(p, STR("\r\n"));
}

static bool has_length(const struct h1_response *r)
{
    const struct msg *m = r->msg;

    return m->content_length >= 0 && m->status >= 200 && m->status != 204 && !r->chunked;
}

static char *put_connection(char *p, const struct h1_response *r)
{
    if (r->chunked)
        p = fmt_str(p, STR("Transfer-Encoding: chunked\r\n"));
    if (!r->connection_field)
        return p;
    if (r->upgrade)
        return fmt_str(p, STR("Connection: upgrade\r\n"));
    if (!r->keep_alive)
        return fmt_str(p, STR("Connection: close\r\n"));
    p = fmt_str(p, STR("Connection: keep-alive\r\n"));
    if (r->keep_alive_s > 0) {
        p = fmt_str(p, STR("Keep-Alive: timeout="));
        p = fmt_u64(p, r->keep_alive_s);
        p = fmt_str(p, STR("\r\n"));
    }
    return p;
}

static char *put_rest(char *p, const struct fields *f)
{
    for (unsigned i = 0; i < f->count; i++) {
        const struct field *item = &f->items[i];

        /* A Server or Date without a value stands for the one that is not to be made up. */
        if (!item->deleted && item->value.ptr != NULL
            && (item->in_order || !written_elsewhere((enum token) item->token)))
            p = put_field(p, item->name, item->value);
    }
    return p;
}

size_t h1_response_size(const struct h1_response *r)
{
    const struct fields *f = &r->msg->fields;
    size_t n = FIXED_MAX + r->msg->reason.len + r->server.len + r->date.len;

    for (unsigned i = 0; i < f->count; i++) {
        if (!f->items[i].deleted)
            n += f->items[i].name.len + f->items[i].value.len + 4;
    }
    return n;
}

char *h1_write_response(const struct h1_response *r, char *p)
{
    const struct fields *f = &r->msg->fields;

    p = put_status_line(p, r->msg);
    if (fields_get(f, T_SERVER) != NULL)
        p = put_token(p, f, T_SERVER);
    else if (r->server.len > 0)
        p = put_field(p, STR("Server"), r->server);
    if (fields_get(f, T_DATE) != NULL)
        p = put_token(p, f, T_DATE);
    else if (r->date.len > 0)
        p = put_field(p, STR("Date"), r->date);
    p = put_token(p, f, T_CONTENT_TYPE);
    if (has_length(r)) {
        p = fmt_str(p, STR("Content-Length: "));
        p = fmt_u64(p, (uint64_t) r->msg->content_length);
        p = fmt_str(p, STR("\r\n"));
    }
    p = put_token(p, f, T_LAST_MODIFIED);
    p = put_token(p, f, T_LOCATION);
    p = put_connection(p, r);
    p = put_token(p, f, T_VARY);
    p = put_rest(p, f);
    return fmt_str(p, STR("\r\n"));
}

char *h1_write_chunk_head(char *p, uint64_t size)
{
    p = fmt_hex(p, size);
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

static void chain_put_value(struct chain *out, struct str value)
{
    while (value.len > 0) {
        size_t n = scan_span(SCAN_FIELD_VALUE, value.ptr, value.len);

        chain_write(out, value.ptr, n);
        if (n == value.len)
            break;
        chain_write(out, " ", 1);
        value = str_skip(value, n + 1);
    }
}

void h1_write_last_chunk(const struct fields *trailers, struct chain *out)
{
    if (trailers == NULL || trailers->count == 0) {
        chain_push_str(out, STR("0\r\n\r\n"));
        return;
    }
    chain_push_str(out, STR("0\r\n"));
    for (unsigned i = 0; i < trailers->count; i++) {
        const struct field *item = &trailers->items[i];

        if (item->deleted)
            continue;
        chain_put_value(out, item->name);
        chain_write(out, ": ", 2);
        chain_put_value(out, item->value);
        chain_write(out, "\r\n", 2);
    }
    chain_write(out, "\r\n", 2);
}
