/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Values and conditions in server side includes: "$name", "${name}", backslashes, comparisons,
 * regular expressions. Needs no request: names are looked up by whoever calls.
 */
#ifndef MODULES_HTTP_SSI_EXPR_H
#define MODULES_HTTP_SSI_EXPR_H

#include "core/base/arena.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/event/regex.h"

/* A value may not become longer: "$a$a" set to $a doubles it. */
#define SSI_RESULT_MAX ((size_t) 1 << 20)

/* Room that is used anew for each value. */
struct ssi_buf {
    char *ptr; /* malloc'd; NULL at first */
    size_t len, size;
};

struct ssi_scope {
    const struct logger *log;
    struct str uri; /* what a value that names a place is relative to */
    bool (*lookup)(void *data, struct str name, struct str *out);
    /* A regular expression has matched. */
    void (*matched)(void *data, const struct regex *re, const struct regex_match *m,
                    struct str subject);
    void *data;
    struct ssi_buf left, right;
};

void ssi_scope_free(struct ssi_scope *s);

enum { SSI_RELATIVE = 1 /* a path that does not begin with '/' is completed by that of uri */ };
/* *out is in s->right, until the next call. 0, or -1: logged. */
int ssi_evaluate(struct ssi_scope *s, struct str text, unsigned flags, struct str *out);
/* 1 true, 0 false, -1 malformed: logged. */
int ssi_condition(struct ssi_scope *s, struct str text);

#endif
