/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The search behind sub_filter. A window as long as the shortest string moves over the text. Of
 * few strings the window's first and last byte are compared at sixteen places a step; of many its
 * last byte says how far it may jump. Only places that pass are compared in full. Knows of no
 * request.
 */
#include "modules/http/search.h"

typedef unsigned char bytes16 __attribute__((vector_size(16)));

static unsigned char fold_of(unsigned char c)
{
    return c >= 'a' && c <= 'z' ? 0x20 : 0;
}

/* Counts by the byte that decides, then places: the order given is kept within each byte. */
static void sort_strings(struct search *s, struct arena *arena)
{
    size_t at = s->min_len - 1;
    unsigned next[256];

    for (unsigned i = 0; i < s->count; i++)
        s->bucket[(unsigned char) s->strings[i].ptr[at] + 1]++;
    for (unsigned b = 0; b < 256; b++) {
        s->bucket[b + 1] += s->bucket[b];
        next[b] = s->bucket[b];
    }
    s->order = ARENA_ARRAY(arena, unsigned, s->count);
    for (unsigned i = 0; i < s->count; i++)
        s->order[next[(unsigned char) s->strings[i].ptr[at]]++] = i;
}

static void set_shifts(struct search *s)
{
    size_t most = MIN(s->min_len, (size_t) 255);

    memset(s->shift, (int) most, sizeof(s->shift));
    for (unsigned i = 0; i < s->count; i++) {
        for (size_t k = s->min_len - most; k < s->min_len; k++) {
            unsigned char c = (unsigned char) s->strings[i].ptr[k];
            unsigned char by = (unsigned char) (s->min_len - 1 - k);

            if (by < s->shift[c])
                s->shift[c] = by;
        }
    }
    for (unsigned c = 'A'; c <= 'Z'; c++)
        s->shift[c] = s->shift[c | 0x20];
}

static void set_pairs(struct search *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        unsigned char first = (unsigned char) s->strings[i].ptr[0];
        unsigned char last = (unsigned char) s->strings[i].ptr[s->min_len - 1];
        unsigned k = 0;

        while (k < s->pair_count && (s->pairs[k].first != first || s->pairs[k].last != last))
            k++;
        if (k < s->pair_count)
            continue;
        if (k == SEARCH_PAIRS) {
            s->pair_count = 0;
            return;
        }
        s->pairs[k].first = first;
        s->pairs[k].first_fold = fold_of(first);
        s->pairs[k].last = last;
        s->pairs[k].last_fold = fold_of(last);
        s->pair_count++;
    }
}

void search_init(struct search *s, struct arena *arena, struct str *strings, unsigned count)
{
    memset(s, 0, sizeof(*s));
    s->strings = strings;
    s->count = count;
    s->min_len = SIZE_MAX;
    for (unsigned i = 0; i < count; i++) {
        unsigned char c = (unsigned char) strings[i].ptr[0];

        ASSERT(strings[i].len > 0);
        s->min_len = MIN(s->min_len, strings[i].len);
        s->max_len = MAX(s->max_len, strings[i].len);
        s->starts[c / 64] |= (uint64_t) 1 << c % 64;
    }
    sort_strings(s, arena);
    set_shifts(s);
    set_pairs(s);
}

static inline bool same(const char *text, const char *lower, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (ascii_lower((unsigned char) text[i]) != (unsigned char) lower[i])
            return false;
    }
    return true;
}

/* One string at one place: its number, SEARCH_MORE or SEARCH_NONE. */
static inline int compare(const struct search *s, unsigned i, struct str text, size_t at, bool end,
                          const bool *used)
{
    struct str string = s->strings[i];
    size_t n = MIN(string.len, text.len - at);

    if ((used != NULL && used[i]) || (end && n < string.len) || !same(text.ptr + at, string.ptr, n))
        return SEARCH_NONE;
    return n == string.len ? (int) i : SEARCH_MORE;
}

/* All of the window is there. */
static int decide(const struct search *s, struct str text, size_t at, bool end, const bool *used)
{
    unsigned char c = ascii_lower((unsigned char) text.ptr[at + s->min_len - 1]);

    for (unsigned k = s->bucket[c]; k < s->bucket[c + 1]; k++) {
        int which = compare(s, s->order[k], text, at, end, used);

        if (which != SEARCH_NONE)
            return which;
    }
    return SEARCH_NONE;
}

/* Less than a window is left. */
static int decide_short(const struct search *s, struct str text, size_t at, const bool *used)
{
    unsigned char c = ascii_lower((unsigned char) text.ptr[at]);

    if ((s->starts[c / 64] >> c % 64 & 1) == 0)
        return SEARCH_NONE;
    for (unsigned i = 0; i < s->count; i++) {
        int which = compare(s, i, text, at, false, used);

        if (which != SEARCH_NONE)
            return which;
    }
    return SEARCH_NONE;
}

static inline bytes16 load(const char *p)
{
    bytes16 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static inline bytes16 all(unsigned char c)
{
    return (bytes16){ 0 } + c;
}

static inline uint64_t any(bytes16 v)
{
    uint64_t half[2];

    memcpy(half, &v, sizeof(half));
    return half[0] | half[1];
}

/*
 * The next place from `at` on and before `end` whose window begins and ends like a string's, or
 * one with fewer than 16 after it.
 */
static inline __attribute__((always_inline)) size_t
skip_pairs(const struct search *s, const char *ptr, size_t at, size_t end, unsigned pairs)
{
    size_t last = s->min_len - 1;
    bytes16 first_byte[SEARCH_PAIRS], first_fold[SEARCH_PAIRS];
    bytes16 last_byte[SEARCH_PAIRS], last_fold[SEARCH_PAIRS];

    for (unsigned k = 0; k < pairs; k++) {
        first_byte[k] = all(s->pairs[k].first);
        first_fold[k] = all(s->pairs[k].first_fold);
        last_byte[k] = all(s->pairs[k].last);
        last_fold[k] = all(s->pairs[k].last_fold);
    }
    for (; end - at >= 16; at += 16) {
        bytes16 a = load(ptr + at), b = load(ptr + at + last), hit = { 0 };

        for (unsigned k = 0; k < pairs; k++)
            hit |= (bytes16) ((a | first_fold[k]) == first_byte[k]) &
                   (bytes16) ((b | last_fold[k]) == last_byte[k]);
        if (unlikely(any(hit))) {
            unsigned k = 0;

            while (hit[k] == 0)
                k++;
            return at + k;
        }
    }
    return at;
}

/* The next place worth a look. end: how many places have their whole window in the text. */
static size_t skip(const struct search *s, const char *ptr, size_t at, size_t end)
{
    switch (s->pair_count) {
    case 1: at = skip_pairs(s, ptr, at, end, 1); break;
    case 2: at = skip_pairs(s, ptr, at, end, 2); break;
    case 3: at = skip_pairs(s, ptr, at, end, 3); break;
    case 4: at = skip_pairs(s, ptr, at, end, 4); break;
    default: break;
    }
    while (at < end) {
        unsigned char by = s->shift[(unsigned char) ptr[at + s->min_len - 1]];

        if (by == 0)
            return at;
        at += by;
    }
    return MIN(at, end);
}

size_t search_find(const struct search *s, struct str text, size_t from, size_t limit, bool end,
                   const bool *used, int *which)
{
    size_t windows = text.len >= s->min_len ? text.len - s->min_len + 1 : 0;
    size_t at = from;

    windows = MIN(windows, limit);
    for (; at < windows; at++) {
        at = skip(s, text.ptr, at, windows);
        if (at == windows)
            break;
        *which = decide(s, text, at, end, used);
        if (*which != SEARCH_NONE)
            return at;
    }
    for (; !end && at < limit; at++) {
        *which = decide_short(s, text, at, used);
        if (*which != SEARCH_NONE)
            return at;
    }
    *which = SEARCH_NONE;
    return limit;
}
