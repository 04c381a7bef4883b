/* SPDX-License-Identifier: BSD-2-Clause */
/* Regular expressions, as an interface: the implementation is a module's (PCRE2). */
#ifndef CORE_EVENT_REGEX_H
#define CORE_EVENT_REGEX_H

#include "core/base/str.h"

struct regex;

#define REGEX_CAPTURES_MAX 32 /* groups that a match reports, group 0 included */

/* A match: pairs of offsets into the subject; count groups, unset ones are -1. */
struct regex_match {
    unsigned count;
    int pos[REGEX_CAPTURES_MAX * 2];
};

/*
 * Compiles in the arena (freed with it). NULL with a sentence in *error (arena memory):
 * `pcre2_compile() failed: unmatched parentheses in "(" at "("`. JIT if regex_use_jit(true) came
 * before.
 */
struct regex *regex_compile(struct arena *arena, struct str pattern, bool caseless,
                            struct str *error);
void regex_use_jit(bool on);
/*
 * 1 match, 0 none, -1 an error of the engine (limits), to be logged: regex_error says which. match
 * may be NULL.
 */
int regex_exec(const struct regex *re, struct str subject, struct regex_match *match);
const char *regex_error(void);
unsigned regex_groups(const struct regex *re); /* without group 0 */
/* Named groups: how many, and the i-th one's name (lives as long as re) and number. */
unsigned regex_names(const struct regex *re);
struct str regex_name(const struct regex *re, unsigned i, unsigned *group);
struct str regex_pattern(const struct regex *re);

#endif
