/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading JSON (RFC 8259), token by token and without building a tree: whoever reads knows what should come
 * and says what is wrong otherwise. The text is judged strictly: UTF-8 (RFC 3629), no lone surrogates, no
 * comments, nothing behind the value; it is nested at most JSON_DEPTH_MAX deep.
 */
#ifndef CORE_BASE_JSON_READ_H
#define CORE_BASE_JSON_READ_H

#include "core/base/str.h"

#define JSON_DEPTH_MAX 64

enum json_token {
    JSON_BAD, /* not JSON: json->error says why; every further call says so again */
    JSON_END, /* behind the one value of a text */
    JSON_OBJECT,
    JSON_OBJECT_END,
    JSON_ARRAY,
    JSON_ARRAY_END,
    JSON_KEY,    /* str; a value follows */
    JSON_STRING, /* str, decoded */
    JSON_NUMBER, /* str, as it is written */
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json_reader {
    struct str str;    /* of the last token: in the text itself, or in the arena where it had escapes */
    const char *error; /* "unexpected end", "invalid UTF-8" …; static memory */
    unsigned depth;    /* objects and arrays that are open */
    /* Private. */
    struct arena *arena;
    const char *start, *p, *end;
    const char *token; /* where the last token begins, or what is wrong stands */
    unsigned char expect;
    bool open_object[JSON_DEPTH_MAX];
};

/* text and arena must outlive what is read. */
void json_read(struct json_reader *j, struct arena *arena, struct str text);
enum json_token json_next(struct json_reader *j);
/* Reads past the rest of a value whose first token was `first`. False: not JSON. */
bool json_skip(struct json_reader *j, enum json_token first);
/* The line, counted from 1, of the last token or of what is wrong. */
unsigned json_line(const struct json_reader *j);

#endif
