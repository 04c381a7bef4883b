/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The writer of JSON texts. Used for what programs read: -t --json, status, logs. Knows nothing of
 * what is written.
 */
#include "core/base/json.h"

#include "core/base/fmt.h"

void json_init(struct json *j, struct arena *arena)
{
    *j = (struct json){ .arena = arena };
}

static void add(struct json *j, const char *ptr, size_t len)
{
    ASSERT(len < UINT32_MAX - j->len);
    while (j->capacity - j->len < len)
        j->text = arena_grow(j->arena, j->text, j->capacity, &j->capacity, 1);
    if (len)
        memcpy(j->text + j->len, ptr, len);
    j->len += (unsigned) len;
}

static void add_char(struct json *j, char c)
{
    add(j, &c, 1);
}

/* Before each value: the comma, and the check that one may stand here. */
static void begin_value(struct json *j)
{
    bool in_object = j->depth > 0 && j->open[j->depth - 1] == '{';

    ASSERT(in_object == j->key);
    ASSERT(j->depth > 0 || !j->more);
    if (j->more && !j->key)
        add_char(j, ',');
    j->key = false;
    j->more = true;
}

static void begin(struct json *j, char c)
{
    begin_value(j);
    ASSERT(j->depth < JSON_DEPTH);
    j->open[j->depth++] = c;
    add_char(j, c);
    j->more = false;
}

void json_object(struct json *j)
{
    begin(j, '{');
}

void json_array(struct json *j)
{
    begin(j, '[');
}

void json_end(struct json *j)
{
    ASSERT(j->depth > 0 && !j->key);
    add_char(j, j->open[--j->depth] == '{' ? '}' : ']');
    j->more = true;
}

/* The letter behind the backslash for what has one; else 0. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\': return (char) c;
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

static void add_escaped(struct json *j, unsigned char c)
{
    char letter = short_escape(c);
    char hex[6] = { '\\', 'u', '0', '0', 0, 0 };

    if (letter) {
        add_char(j, '\\');
        add_char(j, letter);
        return;
    }
    fmt_hex_bytes(hex + 4, &c, 1);
    add(j, hex, sizeof(hex));
}

static void add_string(struct json *j, struct str s)
{
    size_t from = 0, i = 0; /* what lies between is copied as it is */

    add_char(j, '"');
    while (i < s.len) {
        unsigned char c = (unsigned char) s.ptr[i];
        unsigned n = str_utf8_sequence((const unsigned char *) s.ptr + i, s.len - i);

        if (n && c >= 0x20 && c != 0x7f && short_escape(c) == 0) {
            i += n;
            continue;
        }
        add(j, s.ptr + from, i - from);
        if (n)
            add_escaped(j, c);
        else
            add(j, "\xef\xbf\xbd", 3);
        from = ++i;
    }
    add(j, s.ptr + from, s.len - from);
    add_char(j, '"');
}

void json_key(struct json *j, const char *name)
{
    json_key_str(j, str_cstr(name));
}

void json_key_str(struct json *j, struct str name)
{
    ASSERT(j->depth > 0 && j->open[j->depth - 1] == '{' && !j->key);
    if (j->more)
        add_char(j, ',');
    add_string(j, name);
    add_char(j, ':');
    j->key = true;
}

void json_str(struct json *j, struct str s)
{
    if (s.ptr == NULL) {
        json_null(j);
        return;
    }
    begin_value(j);
    add_string(j, s);
}

void json_u64(struct json *j, uint64_t n)
{
    char digits[FMT_U64_MAX];

    begin_value(j);
    add(j, digits, (size_t) (fmt_u64(digits, n) - digits));
}

void json_i64(struct json *j, int64_t n)
{
    char digits[FMT_U64_MAX + 1], *p = digits;

    begin_value(j);
    if (n < 0)
        *p++ = '-';
    p = fmt_u64(p, n < 0 ? -(uint64_t) n : (uint64_t) n);
    add(j, digits, (size_t) (p - digits));
}

void json_bool(struct json *j, bool b)
{
    begin_value(j);
    add(j, b ? "true" : "false", b ? 4 : 5);
}

void json_null(struct json *j)
{
    begin_value(j);
    add(j, "null", 4);
}

void json_put_str(struct json *j, const char *name, struct str s)
{
    json_key(j, name);
    json_str(j, s);
}

void json_put_u64(struct json *j, const char *name, uint64_t n)
{
    json_key(j, name);
    json_u64(j, n);
}

void json_put_bool(struct json *j, const char *name, bool b)
{
    json_key(j, name);
    json_bool(j, b);
}

struct str json_text(struct json *j)
{
    ASSERT(j->depth == 0);
    add_char(j, '\0');
    j->len--;
    return str_from(j->text, j->len);
}
