/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * $upstream_…: what the records of a request's attempts and the head of its last exchange say.
 * Records of one exchange are joined by ", ", exchanges by " : ".
 */
#include "modules/upstream/internal.h"

enum {
    VALUE_ADDR, VALUE_STATUS, VALUE_CONNECT, VALUE_HEADER, VALUE_RESPONSE, VALUE_LENGTH,
    VALUE_RECEIVED, VALUE_SENT, VALUE_QUEUE,
};

#define VALUE_MAX 32

static int print_time(char *buf, int64_t us)
{
    if (us < 0)
        return snprintf(buf, VALUE_MAX, "-");
    return snprintf(buf, VALUE_MAX, "%lld.%03lld", (long long) us / 1000000,
                    (long long) us / 1000 % 1000);
}

static int print_one(char *buf, const struct upstream_record *rec, uintptr_t what)
{
    switch (what) {
    case VALUE_STATUS:
        return rec->status ? snprintf(buf, VALUE_MAX, "%u", rec->status)
                           : snprintf(buf, VALUE_MAX, "-");
    case VALUE_CONNECT: return print_time(buf, rec->connect_us);
    case VALUE_HEADER: return print_time(buf, rec->header_us);
    case VALUE_RESPONSE: return print_time(buf, rec->response_us);
    case VALUE_QUEUE: return print_time(buf, rec->queue_us);
    case VALUE_LENGTH:
        return snprintf(buf, VALUE_MAX, "%llu", (unsigned long long) rec->response_length);
    case VALUE_RECEIVED:
        return snprintf(buf, VALUE_MAX, "%llu", (unsigned long long) rec->bytes_received);
    default:
        return snprintf(buf, VALUE_MAX, "%llu", (unsigned long long) rec->bytes_sent);
    }
}

static bool get_joined(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct upstream_records *all = &r->upstream;
    size_t size = 0;
    char *buf, *p;

    if (all->count == 0)
        return false;
    for (unsigned i = 0; i < all->count; i++)
        size += 3 + (v->data == VALUE_ADDR ? all->items[i].peer.len : VALUE_MAX);
    p = buf = arena_bytes(e->arena, size);
    for (unsigned i = 0; i < all->count; i++) {
        const struct upstream_record *rec = &all->items[i];

        if (i > 0) {
            struct str sep = rec->new_exchange ? STR(" : ") : STR(", ");

            memcpy(p, sep.ptr, sep.len);
            p += sep.len;
        }
        if (v->data == VALUE_ADDR) {
            memcpy(p, rec->peer.ptr, rec->peer.len);
            p += rec->peer.len;
        } else {
            char one[VALUE_MAX];
            int n = print_one(one, rec, v->data);

            memcpy(p, one, (size_t) n);
            p += n;
        }
    }
    *out = str_from(buf, (size_t) (p - buf));
    return true;
}

static bool get_last_addr(struct eval *e, const struct var *v, struct str *out)
{
    const struct upstream_records *all = &req_of(e)->upstream;

    (void) v;
    if (all->count == 0)
        return false;
    *out = all->items[all->count - 1].peer;
    return true;
}

/* Of the server that was asked last, as the configuration calls it. */
static bool get_last_server(struct eval *e, const struct var *v, struct str *out)
{
    const struct upstream_records *all = &req_of(e)->upstream;

    (void) v;
    if (all->count == 0 || all->items[all->count - 1].server.len == 0)
        return false;
    *out = all->items[all->count - 1].server;
    return true;
}

static bool get_http(struct eval *e, const struct var *v, struct str *out)
{
    const struct req *r = req_of(e);

    return r->upstream.head != NULL
           && fields_variable(&r->upstream.head->fields, v->suffix, r->arena, out);
}

static bool get_trailer(struct eval *e, const struct var *v, struct str *out)
{
    const struct req *r = req_of(e);

    return r->upstream.head != NULL
           && fields_variable(&r->upstream.head->trailers, v->suffix, r->arena, out);
}

static struct str without_blanks(struct str s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = str_skip(s, 1);
    return s;
}

/* The value of a Set-Cookie field: "name=value; …". Blanks behind it belong to it, as in nginx. */
static bool get_cookie(struct eval *e, const struct var *v, struct str *out)
{
    const struct req *r = req_of(e);
    struct field *f;

    if (r->upstream.head == NULL)
        return false;
    for (f = fields_get(&r->upstream.head->fields, T_SET_COOKIE); f != NULL;
         f = fields_next(&r->upstream.head->fields, f)) {
        struct str rest;
        ssize_t end;

        if (!str_casestarts(f->value, v->suffix))
            continue;
        rest = without_blanks(str_skip(f->value, v->suffix.len));
        if (rest.len == 0 || rest.ptr[0] != '=')
            continue;
        rest = without_blanks(str_skip(rest, 1));
        end = str_chr(rest, ';');
        *out = end < 0 ? rest : str_from(rest.ptr, (size_t) end);
        return true;
    }
    return false;
}

static bool get_nothing(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    (void) out;
    return false;
}

const struct var_row upstream_variables[] = {
    { "upstream_addr", get_joined, NULL, VALUE_ADDR, VAR_FRESH },
    { "upstream_last_addr", get_last_addr, NULL, 0, VAR_FRESH },
    { "upstream_last_server_name", get_last_server, NULL, 0, VAR_FRESH },
    { "upstream_status", get_joined, NULL, VALUE_STATUS, VAR_FRESH },
    { "upstream_connect_time", get_joined, NULL, VALUE_CONNECT, VAR_FRESH },
    { "upstream_header_time", get_joined, NULL, VALUE_HEADER, VAR_FRESH },
    { "upstream_response_time", get_joined, NULL, VALUE_RESPONSE, VAR_FRESH },
    { "upstream_response_length", get_joined, NULL, VALUE_LENGTH, VAR_FRESH },
    { "upstream_bytes_received", get_joined, NULL, VALUE_RECEIVED, VAR_FRESH },
    { "upstream_bytes_sent", get_joined, NULL, VALUE_SENT, VAR_FRESH },
    { "upstream_queue_time", get_joined, NULL, VALUE_QUEUE, VAR_FRESH },
    { "upstream_cache_status", get_nothing, NULL, 0, VAR_FRESH },
    { "upstream_cache_last_modified", get_nothing, NULL, 0, VAR_FRESH },
    { "upstream_cache_etag", get_nothing, NULL, 0, VAR_FRESH },
    { "upstream_http_", get_http, NULL, 0, VAR_FRESH | VAR_PREFIX },
    { "upstream_trailer_", get_trailer, NULL, 0, VAR_FRESH | VAR_PREFIX },
    { "upstream_cookie_", get_cookie, NULL, 0, VAR_FRESH | VAR_PREFIX },
    { NULL, NULL, NULL, 0, 0 },
};
