/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writing JSON (RFC 8259): a text that grows in an arena, one value behind the other. Commas and
 * colons come by themselves; what a program writes in the wrong place (a key in an array, an end too
 * many) is a bug and stops it. The text is valid UTF-8 whatever the strings hold.
 */
#ifndef CORE_BASE_JSON_H
#define CORE_BASE_JSON_H

#include "core/base/arena.h"
#include "core/base/str.h"

#define JSON_DEPTH 32

struct json {
    struct arena *arena;
    char *text;
    unsigned len, capacity;
    unsigned depth;
    bool more;             /* a value stands before: a comma is due */
    bool key;              /* a key stands before: a value is due */
    char open[JSON_DEPTH]; /* '{' or '[' */
};

void json_init(struct json *j, struct arena *arena);
/* What was written: NUL-terminated, in the arena. All that was begun must have been ended. */
struct str json_text(struct json *j);

void json_object(struct json *j);
void json_array(struct json *j);
void json_end(struct json *j); /* of what was begun last */
/* Inside an object, before each value. */
void json_key(struct json *j, const char *name);
void json_key_str(struct json *j, struct str name);
/* Bytes that are no UTF-8 become U+FFFD. A string whose ptr is NULL is null. */
void json_str(struct json *j, struct str s);
void json_u64(struct json *j, uint64_t n);
void json_i64(struct json *j, int64_t n);
void json_bool(struct json *j, bool b);
void json_null(struct json *j);

/* Key and value. */
void json_put_str(struct json *j, const char *name, struct str s);
void json_put_u64(struct json *j, const char *name, uint64_t n);
void json_put_bool(struct json *j, const char *name, bool b);

#endif
