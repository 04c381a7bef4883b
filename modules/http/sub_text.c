/* SPDX-License-Identifier: BSD-2-Clause */
/* Replacing strings in a text that comes in pieces, for sub_filter. Knows of no request. */
#include "modules/http/sub_text.h"

void sub_text_init(struct sub_text *t, struct arena *arena, bool once,
                   struct str (*value)(void *data, unsigned which), void *data)
{
    t->arena = arena;
    t->value = value;
    t->data = data;
    if (once) {
        t->used = ARENA_ARRAY(arena, bool, t->search->count);
        t->left = t->search->count;
    }
}

/* The held bytes begin with string `which`. Returns how many those were. */
static size_t replace(struct sub_text *t, int which, struct chain *out)
{
    size_t len = t->search->strings[which].len;

    chain_consume(&t->held, len);
    chain_push_str(out, t->value(t->data, (unsigned) which));
    if (t->used != NULL) {
        t->used[which] = true;
        t->left--;
    }
    return len;
}

/*
 * Searches text, which t->held holds from its beginning on, for strings that begin in its first
 * `limit` bytes. Returns how many bytes are dealt with; *which tells why it stopped: SEARCH_MORE,
 * a match may begin there, or SEARCH_NONE.
 */
static size_t work_off(struct sub_text *t, struct str text, size_t from, size_t limit, bool end,
                       struct chain *out, int *which)
{
    size_t at = from;

    *which = SEARCH_NONE;
    while (at < limit && !sub_text_over(t)) {
        size_t found = search_find(t->search, text, at, limit, end, t->used, which);

        chain_take(out, &t->held, found - at);
        at = found;
        if (*which < 0)
            return at;
        at += replace(t, *which, out);
    }
    *which = SEARCH_NONE;
    return at;
}

void sub_text_end(struct sub_text *t, struct chain *out)
{
    size_t held = (size_t) t->held.bytes;
    int which;

    if (held > 0)
        work_off(t, str_from(t->seam, held), 0, held, true, out, &which);
    chain_append(out, &t->held);
}

void sub_text_feed(struct sub_text *t, struct chain *chain, struct chain *out)
{
    struct str piece = str_from(chain->first->mem.ptr, (size_t) chain->first->len);
    size_t held = (size_t) t->held.bytes, at = 0;
    int which;

    chain_take(&t->held, chain, piece.len);
    if (held > 0) {
        size_t more = MIN(piece.len, t->search->max_len - 1);

        memcpy(t->seam + held, piece.ptr, more);
        at = work_off(t, str_from(t->seam, held + more), 0, held, false, out, &which);
        if (which == SEARCH_MORE) {
            memmove(t->seam, t->seam + at, held + more - at);
            return;
        }
        at = at > held ? at - held : 0; /* a match may have reached into the piece */
    }
    at = work_off(t, piece, at, piece.len, false, out, &which);
    if (which != SEARCH_MORE) {
        chain_append(out, &t->held);
        return;
    }
    if (t->seam == NULL)
        t->seam = arena_bytes(t->arena, 2 * (t->search->max_len - 1));
    memcpy(t->seam, piece.ptr + at, piece.len - at);
}
