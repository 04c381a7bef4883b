/* SPDX-License-Identifier: BSD-2-Clause */
/* What the rewrite module's two files share: the compiled form of a level's directives. */
#ifndef MODULES_HTTP_REWRITE_H
#define MODULES_HTTP_REWRITE_H

#include "core/http/req.h"

enum code_op { CODE_REWRITE, CODE_RETURN, CODE_SET, CODE_BREAK, CODE_IF };

/* One piece of a replacement: text with variables, or a capture, which may have to be escaped. */
struct replace_part {
    struct expr *text; /* NULL: a capture */
    unsigned capture;
};

struct replacement {
    struct replace_part *parts;
    unsigned count, capacity;
    int args_from;   /* the first part of the arguments; -1: no '?' in it */
};

struct rewrite_code {
    struct regex *regex;
    struct var **captures;
    struct replacement to;
    unsigned status; /* of a redirect; 0: internal */
    bool last, is_break;
    bool keep_args;  /* the request's own arguments are added */
    bool has_args;   /* of a redirect: there is a '?' in the replacement */
};

struct return_code {
    unsigned status;
    struct expr *text; /* NULL: none */
};

struct set_code {
    const struct var *var;
    struct expr *value;
};

enum if_test { IF_TRUE, IF_EQUAL, IF_REGEX, IF_FILE, IF_DIR, IF_EXISTS, IF_EXEC };

struct code_list;

struct if_code {
    enum if_test test;
    bool negated;
    const struct var *var;
    struct expr *operand; /* text to compare with, path */
    struct regex *regex;
    struct var **captures;
    const struct location *loc;
    const struct code_list *inner; /* NULL: no directives of this module in the block */
};

struct code {
    enum code_op op;
    union {
        struct rewrite_code rewrite;
        struct return_code ret;
        struct set_code set;
        struct if_code cond;
    };
};

struct code_list {
    struct code *items;
    unsigned count, capacity;
};

struct rewrite_conf {
    struct code_list *codes; /* of this level alone; NULL: none */
    bool log, warn;
};

extern const struct module module_http_rewrite;
unsigned rewrite_index(void); /* the module's slot */
struct rewrite_conf *rewrite_conf_of(struct conf *cf, struct level *level);

/* Compiles a replacement; args: a '?' separates the arguments. NULL or a sentence. */
const char *replacement_compile(struct conf *cf, struct str text, bool args, struct replacement *out);

conf_setter set_rewrite, set_return, set_set, set_break, set_if;

#endif
