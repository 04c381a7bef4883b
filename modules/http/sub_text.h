/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A text that comes in pieces, with strings in it replaced. What does not match goes on by
 * reference; what may be the beginning of a match at the end of a piece is held back, at most one
 * byte less than the longest string.
 */
#ifndef MODULES_HTTP_SUB_TEXT_H
#define MODULES_HTTP_SUB_TEXT_H

#include "core/base/chain.h"
#include "modules/http/search.h"

struct sub_text {
    const struct search *search;
    struct arena *arena;
    /* What stands for a string of the search; must live as long as the output. */
    struct str (*value)(void *data, unsigned which);
    void *data;
    bool *used;    /* each once: which have had their turn; NULL: as often as they come */
    unsigned left; /* of them have not */
    struct chain
        held;   /* may be the beginning of a match; the owner clears it when all is given up */
    char *seam; /* a copy of it, with room for what could complete it */
};

/* t is zeroed but for search. */
void sub_text_init(struct sub_text *t, struct arena *arena, bool once,
                   struct str (*value)(void *data, unsigned which), void *data);
/* Takes the first piece of chain, which is a MEM piece; what can go on is appended to out. */
void sub_text_feed(struct sub_text *t, struct chain *chain, struct chain *out);
/* The text is over: nothing is held any longer. Another one may begin. */
void sub_text_end(struct sub_text *t, struct chain *out);
/* Nothing will be replaced any more (and nothing is held). */
static inline bool sub_text_over(const struct sub_text *t)
{
    return t->used != NULL && t->left == 0;
}

#endif
