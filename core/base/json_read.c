/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The JSON reader: what may come next is a state, what is open a stack of bits with a fixed depth, so that no
 * text makes it recurse or allocate more than the strings it holds.
 */
#include "core/base/json_read.h"

#include "core/base/arena.h"

enum expect {
    EXPECT_VALUE,
    EXPECT_FIRST_KEY,  /* or the object's end */
    EXPECT_KEY,        /* behind a comma */
    EXPECT_FIRST_ITEM, /* or the array's end */
    EXPECT_MORE,       /* a comma or the end of what is open */
    EXPECT_END,
    EXPECT_NOTHING, /* it was no JSON */
};

void json_read(struct json_reader *j, struct arena *arena, struct str text)
{
    memset(j, 0, offsetof(struct json_reader, open_object));
    j->arena = arena;
    j->start = j->p = j->token = text.ptr;
    j->end = text.ptr + text.len;
    j->expect = EXPECT_VALUE;
}

unsigned json_line(const struct json_reader *j)
{
    unsigned line = 1;

    for (const char *p = j->start; p < j->token; p++)
        line += *p == '\n';
    return line;
}

static enum json_token bad(struct json_reader *j, const char *error)
{
    if (j->error == NULL) {
        j->error = error;
        j->token = j->p;
        j->expect = EXPECT_NOTHING;
    }
    return JSON_BAD;
}

static enum json_token unexpected(struct json_reader *j)
{
    return bad(j, j->p == j->end ? "unexpected end" : "unexpected character");
}

/* Strings ---------------------------------------------------------------------------------------- */

static char *put_utf8(char *p, uint32_t c)
{
    if (c < 0x80) {
        *p++ = (char) c;
    } else if (c < 0x800) {
        *p++ = (char) (0xc0 | c >> 6);
        *p++ = (char) (0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *p++ = (char) (0xe0 | c >> 12);
        *p++ = (char) (0x80 | (c >> 6 & 0x3f));
        *p++ = (char) (0x80 | (c & 0x3f));
    } else {
        *p++ = (char) (0xf0 | c >> 18);
        *p++ = (char) (0x80 | (c >> 12 & 0x3f));
        *p++ = (char) (0x80 | (c >> 6 & 0x3f));
        *p++ = (char) (0x80 | (c & 0x3f));
    }
    return p;
}

static bool take_hex4(struct json_reader *j, uint32_t *out)
{
    uint64_t n;

    if (j->end - j->p < 4 || str_to_hex64(str_from(j->p, 4), &n) != 0)
        return false;
    j->p += 4;
    *out = (uint32_t) n;
    return true;
}

/* Behind "\u". -1: malformed. */
static int64_t take_code(struct json_reader *j)
{
    uint32_t c, low;

    if (!take_hex4(j, &c))
        return -1;
    if (c < 0xd800 || c > 0xdfff)
        return c;
    if (c > 0xdbff || j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
        return -1;
    j->p += 2;
    if (!take_hex4(j, &low) || low < 0xdc00 || low > 0xdfff)
        return -1;
    return 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
}

/* Behind the backslash. NULL: malformed. */
static char *take_escape(struct json_reader *j, char *out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int64_t code;

    if (j->p == j->end || *j->p == '\0')
        return NULL;
    at = strchr(names, *j->p);
    if (at != NULL) {
        j->p++;
        *out++ = values[at - names];
        return out;
    }
    if (*j->p != 'u')
        return NULL;
    j->p++;
    code = take_code(j);
    return code < 0 ? NULL : put_utf8(out, (uint32_t) code);
}

/* The end of the string that begins at p: its quote, NULL if there is none. */
static const char *closing_quote(const struct json_reader *j, bool *escapes)
{
    const char *p;

    *escapes = false;
    for (p = j->p; p < j->end && *p != '"'; p++) {
        if (*p == '\\') {
            *escapes = true;
            if (++p == j->end)
                break;
        }
    }
    return p < j->end ? p : NULL;
}

/* At the opening quote. */
static bool take_string(struct json_reader *j)
{
    const char *quote, *from;
    char *room = NULL, *out = NULL;
    bool escapes;

    from = ++j->p;
    quote = closing_quote(j, &escapes);
    if (quote == NULL) {
        j->p = j->end;
        bad(j, "unexpected end");
        return false;
    }
    if (escapes) /* a decoded text is never longer */
        room = out = arena_bytes(j->arena, (size_t) (quote - from));
    while (j->p < quote) {
        unsigned n;

        if ((unsigned char) *j->p < 0x20) {
            bad(j, "control character in a string");
            return false;
        }
        if (*j->p == '\\') {
            j->p++;
            out = take_escape(j, out);
            if (out == NULL) {
                bad(j, "invalid escape");
                return false;
            }
            continue;
        }
        n = str_utf8_sequence((const unsigned char *) j->p, (size_t) (quote - j->p));
        if (n == 0) {
            bad(j, "invalid UTF-8");
            return false;
        }
        if (escapes) {
            memcpy(out, j->p, n);
            out += n;
        }
        j->p += n;
    }
    j->p = quote + 1;
    j->str = escapes ? str_from(room, (size_t) (out - room))
                     : str_from(from, (size_t) (quote - from));
    return true;
}

/* Numbers and words -------------------------------------------------------------------------------- */

static bool take_digits(struct json_reader *j)
{
    const char *from = j->p;

    while (j->p < j->end && *j->p >= '0' && *j->p <= '9')
        j->p++;
    return j->p > from;
}

static bool take_number(struct json_reader *j)
{
    const char *from = j->p;

    if (*j->p == '-')
        j->p++;
    if (j->p < j->end && *j->p == '0')
        j->p++;
    else if (!take_digits(j))
        return false;
    if (j->p < j->end && *j->p == '.') {
        j->p++;
        if (!take_digits(j))
            return false;
    }
    if (j->p < j->end && (*j->p == 'e' || *j->p == 'E')) {
        j->p++;
        if (j->p < j->end && (*j->p == '+' || *j->p == '-'))
            j->p++;
        if (!take_digits(j))
            return false;
    }
    j->str = str_from(from, (size_t) (j->p - from));
    return true;
}

static enum json_token take_word(struct json_reader *j, struct str word, enum json_token token)
{
    if (!str_starts(str_from(j->p, (size_t) (j->end - j->p)), word))
        return unexpected(j);
    j->p += word.len;
    return token;
}

/* Structure ------------------------------------------------------------------------------------------ */

static void skip_blanks(struct json_reader *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
        j->p++;
}

static void value_done(struct json_reader *j)
{
    j->expect = j->depth > 0 ? EXPECT_MORE : EXPECT_END;
}

static enum json_token open_value(struct json_reader *j, bool object)
{
    if (j->depth == JSON_DEPTH_MAX)
        return bad(j, "nested too deep");
    j->p++;
    j->open_object[j->depth++] = object;
    j->expect = object ? EXPECT_FIRST_KEY : EXPECT_FIRST_ITEM;
    return object ? JSON_OBJECT : JSON_ARRAY;
}

static enum json_token close_value(struct json_reader *j)
{
    bool object = j->open_object[j->depth - 1];

    if (*j->p != (object ? '}' : ']'))
        return unexpected(j);
    j->p++;
    j->depth--;
    value_done(j);
    return object ? JSON_OBJECT_END : JSON_ARRAY_END;
}

static enum json_token take_value(struct json_reader *j)
{
    enum json_token token;

    switch (j->p < j->end ? *j->p : '\0') {
    case '{':
        return open_value(j, true);
    case '[':
        return open_value(j, false);
    case '"':
        token = take_string(j) ? JSON_STRING : JSON_BAD;
        break;
    case 't':
        token = take_word(j, STR("true"), JSON_TRUE);
        break;
    case 'f':
        token = take_word(j, STR("false"), JSON_FALSE);
        break;
    case 'n':
        token = take_word(j, STR("null"), JSON_NULL);
        break;
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        token = take_number(j) ? JSON_NUMBER : bad(j, "invalid number");
        break;
    default:
        return unexpected(j);
    }
    if (token != JSON_BAD)
        value_done(j);
    return token;
}

static enum json_token take_key(struct json_reader *j)
{
    if (j->p == j->end || *j->p != '"')
        return unexpected(j);
    if (!take_string(j))
        return JSON_BAD;
    skip_blanks(j);
    if (j->p == j->end || *j->p != ':')
        return unexpected(j);
    j->p++;
    j->expect = EXPECT_VALUE;
    return JSON_KEY;
}

enum json_token json_next(struct json_reader *j)
{
    skip_blanks(j);
    if (j->expect != EXPECT_NOTHING)
        j->token = j->p;
    if (j->expect == EXPECT_MORE && j->p < j->end && *j->p == ',') {
        j->p++;
        skip_blanks(j);
        j->token = j->p;
        j->expect = j->open_object[j->depth - 1] ? EXPECT_KEY : EXPECT_VALUE;
    }
    switch ((enum expect) j->expect) {
    case EXPECT_FIRST_KEY:
        if (j->p < j->end && *j->p == '}')
            return close_value(j);
        return take_key(j);
    case EXPECT_KEY:
        return take_key(j);
    case EXPECT_FIRST_ITEM:
        if (j->p < j->end && *j->p == ']')
            return close_value(j);
        return take_value(j);
    case EXPECT_VALUE:
        return take_value(j);
    case EXPECT_MORE:
        return j->p < j->end ? close_value(j) : unexpected(j);
    case EXPECT_END:
        return j->p == j->end ? JSON_END : unexpected(j);
    case EXPECT_NOTHING:
        break;
    }
    return JSON_BAD;
}

bool json_skip(struct json_reader *j, enum json_token first)
{
    unsigned depth = j->depth;

    if (first != JSON_OBJECT && first != JSON_ARRAY)
        return first != JSON_BAD;
    while (j->depth >= depth) {
        if (json_next(j) == JSON_BAD)
            return false;
    }
    return true;
}
