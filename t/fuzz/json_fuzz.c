/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: JSON. What is read has sound structure, its strings are UTF-8, its depth is bounded, and skipping a value
 * comes to the same end as reading it.
 */
#include "core/base/arena.h"
#include "core/base/json_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The number of tokens; the last one in *last. */
static size_t read_all(struct json_reader *j, enum json_token *last)
{
    size_t n = 0;

    while ((*last = json_next(j)) > JSON_END) {
        n++;
        if (j->depth > JSON_DEPTH_MAX)
            abort();
        if ((*last == JSON_KEY || *last == JSON_STRING) && !str_is_utf8(j->str))
            abort();
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    char *copy = malloc(size > 0 ? size : 1);
    enum json_token last;
    struct json_reader j;
    bool whole;

    if (size > 0)
        memcpy(copy, data, size);
    json_read(&j, arena, str_from(copy, size));
    if (read_all(&j, &last) > size)
        abort();
    if (last == JSON_BAD && (j.error == NULL || json_line(&j) < 1))
        abort();
    json_read(&j, arena, str_from(copy, size));
    whole = json_skip(&j, json_next(&j));
    if (whole ? json_next(&j) != last : last == JSON_END)
        abort();
    arena_destroy(arena);
    arena_trim();
    free(copy);
    return 0;
}
