/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Search for several strings at once, ASCII case folded, in text that comes in pieces: the
 * leftmost place counts, and of the strings that match there the one that was given first.
 */
#ifndef MODULES_HTTP_SEARCH_H
#define MODULES_HTTP_SEARCH_H

#include "core/base/arena.h"
#include "core/base/str.h"

#define SEARCH_PAIRS 4

struct search {
    struct str *strings; /* lower case, none empty, in the order given */
    unsigned count;
    size_t min_len, max_len;
    /* Strings by their byte at min_len - 1, in the order given: those of byte b are
     * order[bucket[b]] up to order[bucket[b + 1]]. */
    unsigned *order;
    unsigned bucket[257];
    unsigned char shift[256]; /* how far the window moves for its last byte; 0: look closer */
    uint64_t starts[4];       /* bit set of bytes that a string begins with */
    /* First and last byte of the window, where there are few such pairs: sixteen places a step. */
    struct {
        unsigned char first, first_fold, last, last_fold;
    } pairs[SEARCH_PAIRS];
    unsigned pair_count; /* 0: too many */
};

enum { SEARCH_NONE = -1, SEARCH_MORE = -2 };

/* strings are lower case and not empty, count is at least 1; they are not copied. */
void search_init(struct search *s, struct arena *arena, struct str *strings, unsigned count);
/*
 * The first place from `from` on and before `limit` at which a string begins, or, unless `end`
 * says that nothing follows text, may begin (SEARCH_MORE); *which is the string's number. limit:
 * SEARCH_NONE. Strings with a mark in `used` (NULL: none is) are left out.
 */
size_t search_find(const struct search *s, struct str text, size_t from, size_t limit, bool end,
                   const bool *used, int *which);

#endif
