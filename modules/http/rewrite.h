/* SPDX-License-Identifier: BSD-2-Clause */
/* What the rewrite module's three files share: the compiled form of a level's directives. */
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

/* A text whose captures are escaped while nothing has been rewritten yet. */
struct value_code {
    struct expr *text;
    struct replacement *parts; /* NULL: no captures in it */
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
    struct value_code value;
};

enum if_test {
    IF_TRUE, IF_EQUAL, IF_REGEX, IF_FILE, IF_DIR, IF_EXISTS, IF_EXEC,
    IF_ALL, IF_ANY, /* of the inner conditions */
};

/* A condition; a tree of them where "and", "or" and parentheses are used. */
struct condition {
    enum if_test test;
    bool negated;
    const struct var *var;
    struct value_code operand; /* text to compare with, path */
    struct regex *regex;
    struct var **captures;
    struct condition *inner; /* the first of IF_ALL, IF_ANY */
    struct condition *next;  /* beside this one */
};

struct code_list;

/* One block of an if … elif … else chain. */
struct if_arm {
    struct condition *condition; /* NULL: else */
    struct str text;             /* as it was written, for people */
    struct conf_pos pos;
    const struct location *loc;
    const struct code_list *inner; /* NULL: no directives of this module in the block */
};

struct if_code {
    struct if_arm *arms;
    unsigned count, capacity;
};

struct code {
    enum code_op op;
    struct conf_pos pos;
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

/* The next instruction of the level that is being read. */
struct code *rewrite_add_code(struct conf *cf, enum code_op op);
const char *rewrite_compile(struct conf *cf, unsigned arg, unsigned flags, struct value_code *out);

conf_setter set_rewrite, set_return, set_set, set_break, set_if, set_elif, set_else;

/* One pass over a level's instructions. */
struct run {
    bool log;    /* rewrite_log */
    bool stop;   /* break, last: the rest is not run */
    bool escape; /* captures in values are escaped: until the first rewrite */
};

struct str rewrite_value(struct req *r, const struct value_code *v, const struct run *run);
/* 1: matches, and $1… are its captures; 0: does not, and there are none; -1: failed, logged. */
int rewrite_match(struct req *r, const struct regex *re, struct var **captures, struct str subject,
                  bool log);
/* Whether the condition holds: 1, 0, or -1: a regular expression failed, logged. */
int condition_test(struct req *r, const struct condition *c, const struct run *run);

#endif
