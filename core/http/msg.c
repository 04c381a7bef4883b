/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages: known names, methods, reasons, and the ordered list of fields with its look-ups. Filled
 * by the codecs, read and changed by everything between them. Knows nothing of framing: a field is
 * a name and a value here. Strings are never copied; they live as long as whoever gave them says.
 */
#include "core/http/msg.h"

#include "core/base/hash.h"
#include "core/http/h1.h"

/* Names ------------------------------------------------------------------------------------- */

static const struct str names[T_KNOWN] = {
    [T_ACCEPT] = STR_INIT("Accept"),
    [T_ACCEPT_ENCODING] = STR_INIT("Accept-Encoding"),
    [T_ACCEPT_LANGUAGE] = STR_INIT("Accept-Language"),
    [T_ACCEPT_RANGES] = STR_INIT("Accept-Ranges"),
    [T_AGE] = STR_INIT("Age"),
    [T_ALLOW] = STR_INIT("Allow"),
    [T_AUTHORIZATION] = STR_INIT("Authorization"),
    [T_CACHE_CONTROL] = STR_INIT("Cache-Control"),
    [T_CONNECTION] = STR_INIT("Connection"),
    [T_CONTENT_DISPOSITION] = STR_INIT("Content-Disposition"),
    [T_CONTENT_ENCODING] = STR_INIT("Content-Encoding"),
    [T_CONTENT_LANGUAGE] = STR_INIT("Content-Language"),
    [T_CONTENT_LENGTH] = STR_INIT("Content-Length"),
    [T_CONTENT_RANGE] = STR_INIT("Content-Range"),
    [T_CONTENT_TYPE] = STR_INIT("Content-Type"),
    [T_COOKIE] = STR_INIT("Cookie"),
    [T_DATE] = STR_INIT("Date"),
    [T_DEPTH] = STR_INIT("Depth"),
    [T_DESTINATION] = STR_INIT("Destination"),
    [T_EARLY_DATA] = STR_INIT("Early-Data"),
    [T_ETAG] = STR_INIT("ETag"),
    [T_EXPECT] = STR_INIT("Expect"),
    [T_EXPIRES] = STR_INIT("Expires"),
    [T_FORWARDED] = STR_INIT("Forwarded"),
    [T_HOST] = STR_INIT("Host"),
    [T_IF_MATCH] = STR_INIT("If-Match"),
    [T_IF_MODIFIED_SINCE] = STR_INIT("If-Modified-Since"),
    [T_IF_NONE_MATCH] = STR_INIT("If-None-Match"),
    [T_IF_RANGE] = STR_INIT("If-Range"),
    [T_IF_UNMODIFIED_SINCE] = STR_INIT("If-Unmodified-Since"),
    [T_KEEP_ALIVE] = STR_INIT("Keep-Alive"),
    [T_LAST_MODIFIED] = STR_INIT("Last-Modified"),
    [T_LINK] = STR_INIT("Link"),
    [T_LOCATION] = STR_INIT("Location"),
    [T_MAX_FORWARDS] = STR_INIT("Max-Forwards"),
    [T_ORIGIN] = STR_INIT("Origin"),
    [T_OVERWRITE] = STR_INIT("Overwrite"),
    [T_PRAGMA] = STR_INIT("Pragma"),
    [T_PROXY_AUTHENTICATE] = STR_INIT("Proxy-Authenticate"),
    [T_PROXY_AUTHORIZATION] = STR_INIT("Proxy-Authorization"),
    [T_PROXY_CONNECTION] = STR_INIT("Proxy-Connection"),
    [T_RANGE] = STR_INIT("Range"),
    [T_REFERER] = STR_INIT("Referer"),
    [T_REFRESH] = STR_INIT("Refresh"),
    [T_RETRY_AFTER] = STR_INIT("Retry-After"),
    [T_SERVER] = STR_INIT("Server"),
    [T_SET_COOKIE] = STR_INIT("Set-Cookie"),
    [T_STRICT_TRANSPORT_SECURITY] = STR_INIT("Strict-Transport-Security"),
    [T_TE] = STR_INIT("TE"),
    [T_TRAILER] = STR_INIT("Trailer"),
    [T_TRANSFER_ENCODING] = STR_INIT("Transfer-Encoding"),
    [T_UPGRADE] = STR_INIT("Upgrade"),
    [T_USER_AGENT] = STR_INIT("User-Agent"),
    [T_VARY] = STR_INIT("Vary"),
    [T_VIA] = STR_INIT("Via"),
    [T_WWW_AUTHENTICATE] = STR_INIT("WWW-Authenticate"),
    [T_X_ACCEL_BUFFERING] = STR_INIT("X-Accel-Buffering"),
    [T_X_ACCEL_CHARSET] = STR_INIT("X-Accel-Charset"),
    [T_X_ACCEL_EXPIRES] = STR_INIT("X-Accel-Expires"),
    [T_X_ACCEL_LIMIT_RATE] = STR_INIT("X-Accel-Limit-Rate"),
    [T_X_ACCEL_REDIRECT] = STR_INIT("X-Accel-Redirect"),
    [T_X_FORWARDED_FOR] = STR_INIT("X-Forwarded-For"),
    [T_X_FORWARDED_PROTO] = STR_INIT("X-Forwarded-Proto"),
    [T_X_PAD] = STR_INIT("X-Pad"),
    [T_X_REAL_IP] = STR_INIT("X-Real-IP"),
    [T_STATUS] = STR_INIT("Status"),
};

/* Eight slots a name: hardly one look-up in a hundred needs a second probe. */
#define NAME_SLOTS 512

static struct name_slot {
    uint32_t hash;
    uint8_t token; /* T_NONE: empty */
} name_slots[NAME_SLOTS];
static bool names_ready;

static unsigned name_slot(uint32_t hash)
{
    return (hash ^ hash >> 16) & (NAME_SLOTS - 1);
}

/* The table is derived from the names at the first look-up: no generated numbers to keep true. */
static __attribute__((noinline)) void names_init(void)
{
    for (unsigned t = T_NONE + 1; t < T_KNOWN; t++) {
        uint32_t hash = hash_name(names[t]);
        unsigned i = name_slot(hash);

        while (name_slots[i].token != T_NONE)
            i = (i + 1) & (NAME_SLOTS - 1);
        name_slots[i].hash = hash;
        name_slots[i].token = (uint8_t) t;
    }
    names_ready = true;
}

enum token token_lookup_hashed(struct str name, uint32_t hash)
{
    if (unlikely(!names_ready))
        names_init();
    for (unsigned i = name_slot(hash); name_slots[i].token != T_NONE;
         i = (i + 1) & (NAME_SLOTS - 1)) {
        /* Equal hashes are not enough: a client could make them. */
        if (name_slots[i].hash == hash && str_caseeq(name, names[name_slots[i].token]))
            return (enum token) name_slots[i].token;
    }
    return T_NONE;
}

enum token token_lookup(struct str name, uint32_t *hash)
{
    *hash = hash_name(name);
    return token_lookup_hashed(name, *hash);
}

struct str token_name(enum token t)
{
    ASSERT(t > T_NONE && t < T_KNOWN);
    return names[t];
}

static const struct method_row {
    struct str name;
    enum method method;
} methods[] = {
    { STR_INIT("GET"), METHOD_GET },
    { STR_INIT("POST"), METHOD_POST },
    { STR_INIT("HEAD"), METHOD_HEAD },
    { STR_INIT("PUT"), METHOD_PUT },
    { STR_INIT("DELETE"), METHOD_DELETE },
    { STR_INIT("OPTIONS"), METHOD_OPTIONS },
    { STR_INIT("PATCH"), METHOD_PATCH },
    { STR_INIT("PROPFIND"), METHOD_PROPFIND },
    { STR_INIT("PROPPATCH"), METHOD_PROPPATCH },
    { STR_INIT("MKCOL"), METHOD_MKCOL },
    { STR_INIT("COPY"), METHOD_COPY },
    { STR_INIT("MOVE"), METHOD_MOVE },
    { STR_INIT("LOCK"), METHOD_LOCK },
    { STR_INIT("UNLOCK"), METHOD_UNLOCK },
    { STR_INIT("TRACE"), METHOD_TRACE },
    { STR_INIT("CONNECT"), METHOD_CONNECT },
};

enum method method_lookup(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++) {
        if (str_eq(name, methods[i].name))
            return methods[i].method;
    }
    return METHOD_UNKNOWN;
}

/* The words are nginx's, old ones included: tools and error pages know them. */
struct str status_reason(unsigned status)
{
    switch (status) {
    case 100: return STR("Continue");
    case 101: return STR("Switching Protocols");
    case 102: return STR("Processing");
    case 103: return STR("Early Hints");
    case 200: return STR("OK");
    case 201: return STR("Created");
    case 202: return STR("Accepted");
    case 204: return STR("No Content");
    case 206: return STR("Partial Content");
    case 301: return STR("Moved Permanently");
    case 302: return STR("Moved Temporarily");
    case 303: return STR("See Other");
    case 304: return STR("Not Modified");
    case 307: return STR("Temporary Redirect");
    case 308: return STR("Permanent Redirect");
    case 400: return STR("Bad Request");
    case 401: return STR("Unauthorized");
    case 402: return STR("Payment Required");
    case 403: return STR("Forbidden");
    case 404: return STR("Not Found");
    case 405: return STR("Not Allowed");
    case 406: return STR("Not Acceptable");
    case 407: return STR("Proxy Authentication Required");
    case 408: return STR("Request Time-out");
    case 409: return STR("Conflict");
    case 410: return STR("Gone");
    case 411: return STR("Length Required");
    case 412: return STR("Precondition Failed");
    case 413: return STR("Request Entity Too Large");
    case 414: return STR("Request-URI Too Large");
    case 415: return STR("Unsupported Media Type");
    case 416: return STR("Requested Range Not Satisfiable");
    case 421: return STR("Misdirected Request");
    case 425: return STR("Too Early");
    case 429: return STR("Too Many Requests");
    case 500: return STR("Internal Server Error");
    case 501: return STR("Not Implemented");
    case 502: return STR("Bad Gateway");
    case 503: return STR("Service Temporarily Unavailable");
    case 504: return STR("Gateway Time-out");
    case 505: return STR("HTTP Version Not Supported");
    case 507: return STR("Insufficient Storage");
    default: return STR("");
    }
}

/* Fields ------------------------------------------------------------------------------------ */

void msg_init(struct msg *m, struct arena *arena, unsigned fields_hint)
{
    /* Not index.last, which is read only where it has been set: three heads a request, two lines each. */
    memset(m, 0, offsetof(struct msg, index.last));
    m->arena = arena;
    m->fields.index = &m->index;
    m->content_length = -1;
    if (fields_hint > 0) {
        m->fields.items = arena_alloc(arena, fields_hint * sizeof(struct field));
        m->fields.capacity = fields_hint;
    }
}

void fields_grow(struct msg *m, struct fields *f)
{
    f->items = arena_grow(m->arena, f->items, f->count, &f->capacity, sizeof(*f->items));
}

void fields_repeated(struct fields *f, enum token t, uint16_t at)
{
    struct field_index *x = f->index;
    struct field *first = &f->items[x->first[t] - 1];

    if (first->next == 0)
        first->next = at;
    else
        f->items[x->last[t] - 1].next = at;
    x->last[t] = at;
}

struct field *fields_add(struct msg *m, struct fields *f, struct str name, struct str value)
{
    uint32_t hash;
    enum token t = token_lookup(name, &hash);

    return fields_add_hashed(m, f, t, hash, name, value);
}

struct field *fields_add_token(struct msg *m, struct fields *f, enum token t, struct str value)
{
    struct str name = token_name(t);

    return fields_add_hashed(m, f, t, hash_name(name), name, value);
}

/* From index + 1 `at` along the token's list, the first that is not deleted. */
static struct field *live(const struct fields *f, unsigned at)
{
    while (at != 0) {
        struct field *item = &f->items[at - 1];

        if (!item->deleted)
            return item;
        at = item->next;
    }
    return NULL;
}

/* The first of the token from index i on, where there is no index. */
static struct field *scan_token(const struct fields *f, unsigned i, enum token t)
{
    for (; i < f->count; i++) {
        if (f->items[i].token == t && !f->items[i].deleted)
            return &f->items[i];
    }
    return NULL;
}

/* The first field from index i on with this name, which has no token. */
static struct field *search(const struct fields *f, unsigned i, struct str name, uint32_t hash)
{
    for (; i < f->count; i++) {
        struct field *item = &f->items[i];

        if (item->hash == hash && !item->deleted && str_caseeq(item->name, name))
            return item;
    }
    return NULL;
}

struct field *fields_get(const struct fields *f, enum token t)
{
    ASSERT(t > T_NONE && t < T_KNOWN);
    if (unlikely(f->index == NULL))
        return scan_token(f, 0, t);
    return live(f, f->index->first[t]);
}

struct field *fields_find(const struct fields *f, struct str name)
{
    uint32_t hash;
    enum token t = token_lookup(name, &hash);

    return t != T_NONE ? fields_get(f, t) : search(f, 0, name, hash);
}

struct field *fields_next(const struct fields *f, const struct field *prev)
{
    unsigned after = (unsigned) (prev - f->items) + 1;

    if (prev->token == T_NONE)
        return search(f, after, prev->name, prev->hash);
    return likely(f->index != NULL) ? live(f, prev->next)
                                    : scan_token(f, after, (enum token) prev->token);
}

struct str fields_value(const struct fields *f, enum token t)
{
    struct field *item = fields_get(f, t);

    return item != NULL ? item->value : STR_NULL;
}

struct str fields_joined(const struct fields *f, struct str name, struct str sep,
                         struct arena *arena)
{
    struct field *first = fields_find(f, name), *item;
    size_t len;
    char *ptr, *p;

    if (first == NULL)
        return STR_NULL;
    if (fields_next(f, first) == NULL)
        return first->value;
    len = 0;
    for (item = first; item != NULL; item = fields_next(f, item))
        len += item->value.len + sep.len;
    ptr = p = arena_bytes(arena, len);
    for (item = first; item != NULL; item = fields_next(f, item)) {
        if (item != first) {
            memcpy(p, sep.ptr, sep.len);
            p += sep.len;
        }
        if (item->value.len > 0)
            memcpy(p, item->value.ptr, item->value.len);
        p += item->value.len;
    }
    return str_from(ptr, (size_t) (p - ptr));
}

unsigned fields_delete(struct fields *f, enum token t)
{
    unsigned n = 0;

    for (struct field *item = fields_get(f, t); item != NULL; item = fields_next(f, item)) {
        item->deleted = true;
        n++;
    }
    if (f->index != NULL)
        f->index->first[t] = 0;
    return n;
}

unsigned fields_delete_name(struct fields *f, struct str name)
{
    uint32_t hash;
    enum token t = token_lookup(name, &hash);
    struct field *item;
    unsigned n = 0;

    if (t != T_NONE)
        return fields_delete(f, t);
    for (item = search(f, 0, name, hash); item != NULL; item = fields_next(f, item)) {
        item->deleted = true;
        n++;
    }
    return n;
}

struct field *fields_set(struct msg *m, struct fields *f, enum token t, struct str value)
{
    struct field *item = fields_get(f, t);

    if (item == NULL)
        return fields_add_token(m, f, t, value);
    for (struct field *other = fields_next(f, item); other != NULL; other = fields_next(f, other))
        other->deleted = true;
    item->name = token_name(t);
    item->value = value;
    return item;
}

/* Lists and cookies ------------------------------------------------------------------------- */

bool list_next(struct str value, size_t *pos, struct str *member)
{
    size_t i = *pos;

    while (i < value.len) {
        size_t start = i;

        while (i < value.len && value.ptr[i] != ',') {
            const char *close;

            /* A quote that is never closed is a sign like any other. */
            if (value.ptr[i] == '"' &&
                (close = memchr(value.ptr + i + 1, '"', value.len - i - 1)) != NULL)
                i = (size_t) (close - value.ptr);
            i++;
        }
        *member = str_trim(str_from(value.ptr + start, i - start));
        if (i < value.len)
            i++;
        if (member->len > 0) {
            *pos = i;
            return true;
        }
    }
    *pos = i;
    return false;
}

bool list_has(struct str value, struct str member)
{
    struct str m;

    for (size_t pos = 0; list_next(value, &pos, &m);) {
        if (str_caseeq(m, member))
            return true;
    }
    return false;
}

/* The byte behind the pair that begins a list; commas separate too, but belong to a value that was asked for. */
static struct str after_pair(struct str list)
{
    size_t n = 0;

    while (n < list.len && list.ptr[n] != ';' && list.ptr[n] != ',')
        n++;
    return str_skip(list, MIN(n + 1, list.len));
}

static struct str without_blanks(struct str s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = str_skip(s, 1);
    return s;
}

bool cookie_get(const struct fields *f, struct str name, struct str *out)
{
    for (struct field *item = fields_get(f, T_COOKIE); item != NULL; item = fields_next(f, item)) {
        for (struct str rest = item->value; rest.len > 0; rest = without_blanks(after_pair(rest))) {
            struct str value;
            ssize_t end;

            if (!str_casestarts(rest, name))
                continue;
            value = without_blanks(str_skip(rest, name.len));
            if (value.len == 0 || value.ptr[0] != '=')
                continue;
            value = without_blanks(str_skip(value, 1));
            end = str_chr(value, ';');
            *out = end < 0 ? value : str_from(value.ptr, (size_t) end);
            return true;
        }
    }
    return false;
}

bool is_token(struct str s)
{
    return s.len > 0 && scan_span(SCAN_TOKEN, s.ptr, s.len) == s.len;
}

bool is_field_value(struct str s)
{
    return scan_span(SCAN_FIELD_VALUE, s.ptr, s.len) == s.len;
}
