/* SPDX-License-Identifier: BSD-2-Clause */
/* The Range field (RFC 9110, 14.2), read without a request: for range.c and its test. */
#ifndef MODULES_HTTP_RANGE_H
#define MODULES_HTTP_RANGE_H

#include "core/base/arena.h"
#include "core/base/str.h"

struct byte_range {
    uint64_t start, end; /* [start, end) */
};

struct byte_ranges {
    struct byte_range *items;
    unsigned count, capacity;
    uint64_t bytes; /* of all together */
};

enum range_result {
    RANGE_IGNORE,        /* not bytes, too many, or more than the whole: the whole content */
    RANGE_PARTIAL,       /* *out says what */
    RANGE_UNSATISFIABLE, /* 416 */
};

/* At most max ranges of a content of `length` bytes. */
enum range_result range_parse(struct arena *arena, struct str value, uint64_t length, uint64_t max,
                              struct byte_ranges *out);

#endif
