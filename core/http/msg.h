/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one version-neutral HTTP message (RFC 9110): start line, fields, framing, trailers. Field
 * names stay as they were received, so that HTTP/1 goes out as it came in; a case-folded hash and a
 * token for well-known names make look-ups cheap. All rules on framing and smuggling are
 * enforced where a msg is built (the codecs), nowhere else.
 */
#ifndef CORE_HTTP_MSG_H
#define CORE_HTTP_MSG_H

#include "core/base/arena.h"
#include "core/base/str.h"

/* Well-known field names, requests and responses alike. The table of names is in msg.c. */
enum token {
    T_NONE, /* not a known name */
    T_ACCEPT, T_ACCEPT_ENCODING, T_ACCEPT_LANGUAGE, T_ACCEPT_RANGES, T_AGE, T_ALLOW,
    T_AUTHORIZATION, T_CACHE_CONTROL, T_CONNECTION, T_CONTENT_DISPOSITION, T_CONTENT_ENCODING, T_CONTENT_LANGUAGE,
    T_CONTENT_LENGTH, T_CONTENT_RANGE, T_CONTENT_TYPE, T_COOKIE, T_DATE, T_DEPTH, T_DESTINATION,
    T_EARLY_DATA, T_ETAG, T_EXPECT, T_EXPIRES, T_FORWARDED, T_HOST, T_IF_MATCH, T_IF_MODIFIED_SINCE,
    T_IF_NONE_MATCH, T_IF_RANGE, T_IF_UNMODIFIED_SINCE, T_KEEP_ALIVE, T_LAST_MODIFIED, T_LINK,
    T_LOCATION, T_MAX_FORWARDS, T_ORIGIN, T_OVERWRITE, T_PRAGMA, T_PROXY_AUTHENTICATE,
    T_PROXY_AUTHORIZATION, T_PROXY_CONNECTION, T_RANGE, T_REFERER, T_REFRESH, T_RETRY_AFTER,
    T_SERVER, T_SET_COOKIE, T_STRICT_TRANSPORT_SECURITY, T_TE, T_TRAILER, T_TRANSFER_ENCODING, T_UPGRADE,
    T_USER_AGENT, T_VARY, T_VIA, T_WWW_AUTHENTICATE, T_X_ACCEL_BUFFERING, T_X_ACCEL_CHARSET,
    T_X_ACCEL_EXPIRES, T_X_ACCEL_LIMIT_RATE, T_X_ACCEL_REDIRECT, T_X_FORWARDED_FOR,
    T_X_FORWARDED_PROTO, T_X_PAD, T_X_REAL_IP, T_STATUS, T_KNOWN
};

/* Methods, as bits, for limit_except, cache methods and the like. */
enum method {
    METHOD_UNKNOWN = 1 << 0, METHOD_GET = 1 << 1, METHOD_HEAD = 1 << 2, METHOD_POST = 1 << 3,
    METHOD_PUT = 1 << 4, METHOD_DELETE = 1 << 5, METHOD_MKCOL = 1 << 6, METHOD_COPY = 1 << 7,
    METHOD_MOVE = 1 << 8, METHOD_OPTIONS = 1 << 9, METHOD_PROPFIND = 1 << 10,
    METHOD_PROPPATCH = 1 << 11, METHOD_LOCK = 1 << 12, METHOD_UNLOCK = 1 << 13,
    METHOD_PATCH = 1 << 14, METHOD_TRACE = 1 << 15, METHOD_CONNECT = 1 << 16,
};

enum { HTTP_09 = 9, HTTP_10 = 10, HTTP_11 = 11, HTTP_20 = 20, HTTP_30 = 30 };

struct field {
    struct str name;
    struct str value;
    uint32_t hash;      /* hash_name(name) */
    uint16_t next;      /* index + 1 of the next field with the same token (T_NONE: unused) */
    uint8_t token;
    bool deleted : 1;   /* stays in place, is not sent and not found */
    bool in_order : 1;  /* sent where it stands, also if it is one with a place of its own (an upstream's) */
};

/*
 * Ordered. At most FIELDS_LIMIT entries: codecs limit what comes from outside (max_headers is far
 * below).
 */
#define FIELDS_LIMIT 65534
struct fields {
    struct field *items;
    unsigned count;
    unsigned capacity;
    struct field_index *index; /* NULL: few fields, looked through one by one (trailers) */
};

/* Index + 1 of a known token's fields. */
struct field_index {
    uint16_t first[T_KNOWN]; /* 0: none */
    uint16_t last[T_KNOWN];  /* set from the second on: appending costs the same however many there are */
};

struct msg {
    struct arena *arena;      /* what fields.items and new values are allocated from */
    /* request */
    struct str method_name;
    enum method method;
    struct str target;        /* request-target as received */
    struct str line;          /* the whole start line as received, without its end */
    /* response */
    unsigned status;
    struct str reason;        /* as received, may be empty; ptr NULL: the standard one */
    unsigned version;         /* HTTP_… */
    struct fields fields;
    struct fields trailers;
    /* framing and connection, derived when the head is complete */
    int64_t content_length;   /* of the body; -1: unknown (chunked, until close, or none) */
    bool chunked;
    bool keep_alive;          /* by version and Connection */
    bool upgrade;             /* Connection names upgrade and there is an Upgrade field */
    bool expect_continue;
    struct field_index index; /* of fields; behind all else, for `last` is left as it is */
};

/* Empties and prepares; field storage for `fields_hint` entries is taken from the arena. */
void msg_init(struct msg *m, struct arena *arena, unsigned fields_hint);

/* Case-insensitive; also yields hash_name(name), which the second has been given already. */
enum token token_lookup(struct str name, uint32_t *hash);
enum token token_lookup_hashed(struct str name, uint32_t hash);
struct str token_name(enum token t);                      /* canonical spelling, "Content-Type" */
enum method method_lookup(struct str name);               /* case-sensitive; METHOD_UNKNOWN */
struct str status_reason(unsigned status);                /* "Not Found"; empty when unknown */

/* Appends; strings are not copied. Returns the field, valid until the next append. */
struct field *fields_add(struct msg *m, struct fields *f, struct str name, struct str value);
struct field *fields_add_token(struct msg *m, struct fields *f, enum token t, struct str value);
/* Private: room for one more; the field with index + 1 `at` is another one of token t. */
void fields_grow(struct msg *m, struct fields *f);
void fields_repeated(struct fields *f, enum token t, uint16_t at);
/*
 * The same for codecs that have the token and hash already. Inline, since some twenty fields a
 * request come through here, and a value that is passed on the stack in halves and loaded whole
 * stalls the processor: two thirds of this function's time.
 */
static inline struct field *fields_add_hashed(struct msg *m, struct fields *f, enum token t,
                                              uint32_t hash, struct str name, struct str value)
{
    struct field *item;

    ASSERT(f->count < FIELDS_LIMIT);
    if (unlikely(f->count == f->capacity))
        fields_grow(m, f);
    item = &f->items[f->count++];
    item->name = name;
    item->value = value;
    item->hash = hash;
    item->next = 0;
    item->token = (uint8_t) t;
    item->deleted = false;
    item->in_order = false;
    if (t != T_NONE && f->index != NULL) {
        if (likely(f->index->first[t] == 0))
            f->index->first[t] = (uint16_t) f->count;
        else
            fields_repeated(f, t, (uint16_t) f->count);
    }
    return item;
}
/* The first undeleted field of that token or name, or NULL. */
struct field *fields_get(const struct fields *f, enum token t);
struct field *fields_find(const struct fields *f, struct str name);
/* The next one of the same name, or NULL. */
struct field *fields_next(const struct fields *f, const struct field *prev);
/* Value of the first, or STR_NULL. */
struct str fields_value(const struct fields *f, enum token t);
/* All values of a name joined with sep (", " or "; " for cookies); STR_NULL if there is none. */
struct str fields_joined(const struct fields *f, struct str name, struct str sep,
                         struct arena *arena);
/* Deletes all of that token or name. Returns how many. */
unsigned fields_delete(struct fields *f, enum token t);
unsigned fields_delete_name(struct fields *f, struct str name);
/* Replaces all of that token by one. */
struct field *fields_set(struct msg *m, struct fields *f, enum token t, struct str value);
/* True if the comma-separated list value holds the member (case-insensitive). */
bool list_has(struct str value, struct str member);
/*
 * Iterates members of a comma-separated list, trimmed, empty ones left out: pos starts at 0; false
 * at the end. A comma inside a quoted string does not separate.
 */
bool list_next(struct str value, size_t *pos, struct str *member);
/* The value of a cookie in all Cookie fields; its name is compared without case, as nginx does. */
bool cookie_get(const struct fields *f, struct str name, struct str *out);

/* Character classes, one table: token chars, field-value chars, … */
bool is_token(struct str s);            /* RFC 9110 5.6.2, not empty */
bool is_field_value(struct str s);      /* no NUL, CR, LF */

#endif
