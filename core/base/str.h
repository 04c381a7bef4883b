/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A counted string: a view of bytes that somebody else owns. Not terminated by NUL unless a
 * function says so. An empty string has len 0 and any ptr; "absent" is ptr == NULL.
 */
#ifndef CORE_BASE_STR_H
#define CORE_BASE_STR_H

#include "core/base/base.h"

struct arena;

struct str {
    size_t len;
    const char *ptr;
};

#define STR(lit) ((struct str){ sizeof(lit) - 1, (lit) })
#define STR_INIT(lit) { sizeof(lit) - 1, (lit) } /* for static initialisers */
#define STR_NULL ((struct str){ 0, NULL })
/* For "%.*s". */
#define STR_ARG(s) (int) (s).len, (s).ptr

static inline struct str str_from(const char *ptr, size_t len)
{
    return (struct str){ len, ptr };
}

static inline struct str str_cstr(const char *z)
{
    return (struct str){ strlen(z), z };
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline unsigned char ascii_lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char) (c | 0x20) : c;
}

/* The rest of s from byte n on; n may not exceed s.len. */
static inline struct str str_skip(struct str s, size_t n)
{
    return (struct str){ s.len - n, s.ptr + n };
}

bool str_caseeq(struct str a, struct str b); /* ASCII case folded */
int str_cmp(struct str a, struct str b);     /* memcmp order, then length */
bool str_starts(struct str s, struct str prefix);
bool str_casestarts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* First position of the byte or the sub-string, or -1. */
ssize_t str_chr(struct str s, char c);
ssize_t str_rchr(struct str s, char c);
ssize_t str_find(struct str s, struct str needle);
ssize_t str_casefind(struct str s, struct str needle);
/* s without spaces and tabs at both ends. */
struct str str_trim(struct str s);

/*
 * Copies into an arena, terminated by a NUL that len does not count: the result's ptr is
 * also a C string (as long as s holds no NUL).
 */
struct str str_dup(struct arena *arena, struct str s);
struct str str_lower(struct arena *arena, struct str s); /* same, ASCII lower case */
struct str str_printf(struct arena *arena, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct str str_vprintf(struct arena *arena, const char *fmt, va_list ap);
const char *str_z(struct arena *arena, struct str s); /* NUL-terminated copy */

/*
 * The one place where integers are read. All of s must be the number; an empty string, a
 * foreign byte or an overflow is -1 and *out is untouched; otherwise 0.
 */
int str_to_u64(struct str s, uint64_t *out);
int str_to_i64(struct str s, int64_t *out); /* with an optional minus sign */
int str_to_hex64(struct str s, uint64_t *out);
/* "10", "10k", "10m", "10g" (either case), bytes. */
int str_to_size(struct str s, uint64_t *out);
/*
 * nginx's time syntax: "1h 30m", "10s", "250ms", "1y", "1M", "1w", "1d"; units in falling
 * order, a bare number is seconds. Result in milliseconds. With `seconds`, "ms" is refused.
 */
int str_to_ms(struct str s, bool seconds, uint64_t *out);

/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. How many of the `left` (at least
 * one) bytes at p make one character; 0: they are none.
 */
unsigned str_utf8_sequence(const unsigned char *p, size_t left);
bool str_is_utf8(struct str s);

/* A growable array of strings in an arena. */
struct str_list {
    struct str *items;
    unsigned count;
    unsigned capacity;
};

void str_list_add(struct arena *arena, struct str_list *list, struct str s);

#endif
