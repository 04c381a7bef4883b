/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counted strings: comparing, searching, copying into arenas, and the one place where integers,
 * sizes and times are read from text. Called from everywhere; knows of no protocol.
 */
#include "core/base/str.h"

#include "core/base/arena.h"

/* 0 if two words differ in nothing but the case of ASCII letters. */
static inline uint64_t words_differ(const char *a, const char *b)
{
    const uint64_t ones = 0x0101010101010101u, high = ones * 0x80;
    uint64_t x, y, diff, low, letters;

    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    diff = x ^ y;
    if (likely(diff == 0))
        return 0;
    /* In each byte's high bit: whether it is a letter, seen without its case. */
    low = (x | ones * 0x20) & ~high;
    letters = (low + ones * (0x80 - 'a')) & ~(low + ones * (0x80 - 'z' - 1)) & ~x & high;
    return diff & ~(letters >> 2);
}

/* Eight bytes a step: names of fields are compared some twenty times a request. */
static bool bytes_caseeq(const char *a, const char *b, size_t len)
{
    if (len >= 8) {
        for (size_t i = 0; i < len - 8; i += 8) {
            if (words_differ(a + i, b + i))
                return false;
        }
        return !words_differ(a + len - 8, b + len - 8);
    }
    for (size_t i = 0; i < len; i++) {
        if (ascii_lower((unsigned char) a[i]) != ascii_lower((unsigned char) b[i]))
            return false;
    }
    return true;
}

bool str_caseeq(struct str a, struct str b)
{
    return a.len == b.len && bytes_caseeq(a.ptr, b.ptr, a.len);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.len, b.len);
    int d = n ? memcmp(a.ptr, b.ptr, n) : 0;

    if (d != 0)
        return d;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && str_eq(str_from(s.ptr, prefix.len), prefix);
}

bool str_casestarts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && bytes_caseeq(s.ptr, prefix.ptr, prefix.len);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

ssize_t str_chr(struct str s, char c)
{
    const char *p = s.len ? memchr(s.ptr, c, s.len) : NULL;

    return p ? p - s.ptr : -1;
}

ssize_t str_rchr(struct str s, char c)
{
    const char *p = s.len ? memrchr(s.ptr, c, s.len) : NULL;

    return p ? p - s.ptr : -1;
}

ssize_t str_find(struct str s, struct str needle)
{
    const char *p;

    if (needle.len == 0)
        return 0;
    if (s.len < needle.len)
        return -1;
    p = memmem(s.ptr, s.len, needle.ptr, needle.len);
    return p ? p - s.ptr : -1;
}

ssize_t str_casefind(struct str s, struct str needle)
{
    if (needle.len == 0)
        return 0;
    for (size_t i = 0; s.len - i >= needle.len && i < s.len; i++) {
        if (bytes_caseeq(s.ptr + i, needle.ptr, needle.len))
            return (ssize_t) i;
    }
    return -1;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.len && is_blank(s.ptr[0]))
        s = str_skip(s, 1);
    while (s.len && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

struct str str_dup(struct arena *arena, struct str s)
{
    char *p = arena_bytes(arena, s.len + 1);

    if (s.len)
        memcpy(p, s.ptr, s.len);
    p[s.len] = '\0';
    return str_from(p, s.len);
}

struct str str_lower(struct arena *arena, struct str s)
{
    char *p = arena_bytes(arena, s.len + 1);

    for (size_t i = 0; i < s.len; i++)
        p[i] = (char) ascii_lower((unsigned char) s.ptr[i]);
    p[s.len] = '\0';
    return str_from(p, s.len);
}

struct str str_vprintf(struct arena *arena, const char *fmt, va_list ap)
{
    char small[256];
    va_list again;
    int n;
    char *p;

    va_copy(again, ap);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    ASSERT(n >= 0);
    p = arena_bytes(arena, (size_t) n + 1);
    if ((size_t) n < sizeof(small))
        memcpy(p, small, (size_t) n + 1);
    else
        vsnprintf(p, (size_t) n + 1, fmt, again);
    va_end(again);
    return str_from(p, (size_t) n);
}

struct str str_printf(struct arena *arena, const char *fmt, ...)
{
    va_list ap;
    struct str s;

    va_start(ap, fmt);
    s = str_vprintf(arena, fmt, ap);
    va_end(ap);
    return s;
}

const char *str_z(struct arena *arena, struct str s)
{
    return str_dup(arena, s).ptr;
}

int str_to_u64(struct str s, uint64_t *out)
{
    uint64_t n = 0;

    if (s.len == 0)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        unsigned d = (unsigned) (unsigned char) s.ptr[i] - '0';

        if (d > 9 || n > (UINT64_MAX - d) / 10)
            return -1;
        n = n * 10 + d;
    }
    *out = n;
    return 0;
}

int str_to_i64(struct str s, int64_t *out)
{
    bool minus = s.len && s.ptr[0] == '-';
    uint64_t n;

    if (str_to_u64(minus ? str_skip(s, 1) : s, &n))
        return -1;
    if (n > (uint64_t) INT64_MAX + minus)
        return -1;
    /* -(n - 1) - 1 reaches INT64_MIN without passing through +2^63. */
    *out = minus && n ? -(int64_t) (n - 1) - 1 : (int64_t) n;
    return 0;
}

int str_to_hex64(struct str s, uint64_t *out)
{
    uint64_t n = 0;

    if (s.len == 0)
        return -1;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = ascii_lower((unsigned char) s.ptr[i]);
        unsigned d = c >= 'a' && c <= 'f' ? c - 'a' + 10u : (unsigned) c - '0';

        if (d > 15 || (d > 9 && c < 'a') || n >> 60)
            return -1;
        n = n << 4 | d;
    }
    *out = n;
    return 0;
}

int str_to_size(struct str s, uint64_t *out)
{
    unsigned shift = 0;
    uint64_t n;

    if (s.len == 0)
        return -1;
    switch (ascii_lower((unsigned char) s.ptr[s.len - 1])) {
    case 'k': shift = 10; break;
    case 'm': shift = 20; break;
    case 'g': shift = 30; break;
    }
    if (shift)
        s.len--;
    if (str_to_u64(s, &n) || n > UINT64_MAX >> shift)
        return -1;
    *out = n << shift;
    return 0;
}

/* The units of a time, in falling order; a bare number (seconds) stands with "s". */
static const struct time_unit {
    struct str name;
    uint64_t ms;
} time_units[] = {
    { STR_INIT("y"), 365ull * 86400 * 1000 },
    { STR_INIT("M"), 30ull * 86400 * 1000 },
    { STR_INIT("w"), 7ull * 86400 * 1000 },
    { STR_INIT("d"), 86400ull * 1000 },
    { STR_INIT("h"), 3600ull * 1000 },
    { STR_INIT("m"), 60ull * 1000 },
    { STR_INIT("s"), 1000 },
    { STR_INIT("ms"), 1 },
};

#define UNIT_SECONDS 6
#define UNIT_MS 7

/* Takes digits, a unit and spaces off the front of s. The unit's index, or -1. */
static int time_part(struct str *s, uint64_t *n)
{
    size_t digits = 0, letters = 0;
    struct str unit;
    int found = -1;

    while (digits < s->len && s->ptr[digits] >= '0' && s->ptr[digits] <= '9')
        digits++;
    if (str_to_u64(str_from(s->ptr, digits), n))
        return -1;
    *s = str_skip(*s, digits);
    while (letters < s->len && s->ptr[letters] != ' ' &&
           (s->ptr[letters] < '0' || s->ptr[letters] > '9'))
        letters++;
    unit = str_from(s->ptr, letters);
    if (letters == 0)
        found = UNIT_SECONDS;
    for (unsigned i = 0; found < 0 && i < ARRAY_LEN(time_units); i++) {
        if (str_eq(unit, time_units[i].name))
            found = (int) i;
    }
    /* A number without a unit ends the time: "1 5" and "10 m" are mistakes, not seconds. */
    *s = str_skip(*s, letters);
    if (letters == 0 && s->len)
        return -1;
    while (s->len && s->ptr[0] == ' ')
        *s = str_skip(*s, 1);
    return found;
}

int str_to_ms(struct str s, bool seconds, uint64_t *out)
{
    uint64_t total = 0;
    int last = -1;

    if (s.len == 0 || s.ptr[s.len - 1] == ' ')
        return -1;
    while (s.len) {
        uint64_t n, ms;
        int unit = time_part(&s, &n);

        if (unit <= last || (seconds && unit == UNIT_MS))
            return -1;
        if (__builtin_mul_overflow(n, time_units[unit].ms, &ms) ||
            __builtin_add_overflow(total, ms, &total))
            return -1;
        last = unit;
    }
    *out = total;
    return 0;
}

void str_list_add(struct arena *arena, struct str_list *list, struct str s)
{
    list->items = arena_grow(arena, list->items, list->count, &list->capacity, sizeof(struct str));
    list->items[list->count++] = s;
}

unsigned str_utf8_sequence(const unsigned char *p, size_t left)
{
    unsigned char low = 0x80, high = 0xbf;
    unsigned len;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (left < len)
        return 0;
    /* The second byte tells overlong forms, surrogates and what lies above U+10FFFF. */
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (unsigned i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

bool str_is_utf8(struct str s)
{
    const unsigned char *p = (const unsigned char *) s.ptr;
    size_t left = s.len;

    while (left > 0) {
        unsigned n = str_utf8_sequence(p, left);

        if (n == 0)
            return false;
        p += n;
        left -= n;
    }
    return true;
}
