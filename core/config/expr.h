/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strings with $variables, compiled once and evaluated lazily, and the variables themselves.
 * Works for HTTP requests and stream sessions alike: the subject is whatever embeds a
 * `struct eval`. A variable gets an index when something refers to it; values are cached by index
 * in
 * the subject, except for variables marked fresh.
 */
#ifndef CORE_CONFIG_EXPR_H
#define CORE_CONFIG_EXPR_H

#include "core/config/config.h"
#include "core/event/regex.h"

struct eval;
struct var;

/* Computes the value: sets *out and returns true, or returns false: there is none ("not found").
 * out->ptr must live as long as the request. */
typedef bool var_get(struct eval *e, const struct var *v, struct str *out);
/* For `set $name value` on a built-in variable ($args, $limit_rate). */
typedef void var_set(struct eval *e, const struct var *v, struct str value);

enum {
    VAR_FRESH = 1,      /* never cached: always asked anew */
    VAR_CHANGEABLE = 2, /* may be defined again by set, map, geo … */
    VAR_PREFIX = 4,     /* a family: name is "arg_", data of an instance is the rest of the name */
    /* No error when nothing defines it: its value is then absent. A weak definition (set) takes
     * what a built-in or a family computes, until something is stored. */
    VAR_WEAK = 8,
};

/* A row in a module's table of variables. */
struct var_row {
    const char *name; /* without $; NULL ends */
    var_get *get;
    var_set *set;
    uintptr_t data;
    unsigned flags;
};

struct var {
    struct str name;  /* lower case */
    var_get *get;     /* NULL until defined */
    var_set *set;
    uintptr_t data;
    struct str suffix; /* of a VAR_PREFIX instance: "foo" in $arg_foo */
    unsigned flags;
    int index;        /* into eval.values; -1: nothing refers to it */
    struct conf_pos pos; /* first reference, for "unknown … variable" */
};

struct var_space {  /* all variables of http, or of stream */
    struct arena *arena;
    struct table names;
    struct var **indexed;
    unsigned count, capacity; /* of indexed */
    const struct var_row **prefixes; /* longest name first */
    unsigned prefix_count, prefix_capacity;
};

struct value {
    struct str str;
    unsigned char state; /* VALUE_… */
};
enum { VALUE_UNKNOWN, VALUE_FOUND, VALUE_ABSENT, VALUE_BUSY };

/* Embedded in the subject. */
struct eval {
    struct arena *arena;
    const struct var_space *space;
    /* *values: space->count entries, allocated on first use; shared by subrequests. */
    struct value **values;
    struct str match_subject;          /* what the last regex was run on */
    const struct regex_match *match;   /* its captures: $1… ; NULL: none */
    struct logger *log;
};

void var_space_init(struct var_space *s, struct arena *arena);
/* Adds a module's table, whose names are lower case. Duplicates are a programming error. */
void var_space_rows(struct var_space *s, const struct var_row *rows);
/*
 * Defines a variable by configuration (set, map, geo …); name without "$", any case. NULL with a
 * sentence in *error if the name is taken or is none. The caller then sets get and data (set only
 * where get is NULL).
 */
struct var *var_define(struct conf *cf, struct var_space *s, struct str name, unsigned flags,
                       const char **error);
/*
 * For blocks that make a variable (map, geo, split_clients …): defines the one that argument n names, "$name",
 * with that function and data. NULL, or a sentence.
 */
const char *conf_define_var(struct conf *cf, unsigned n, var_get *get, const void *data,
                            struct var **v);
/* Refers to a variable, which may be defined later: gives it an index. */
struct var *var_refer(struct conf *cf, struct var_space *s, struct str name);
/* After the file is read: resolves prefixes, reports each unknown variable once. 0 or -1. */
int var_space_check(struct conf *cf, struct var_space *s);
/* A name met at run time (SSI, perl-like uses): NULL if unknown; never indexed anew. */
bool var_by_name(struct eval *e, struct str name, struct str *out);

/* The value, cached or computed. False: not found (*out is empty). */
bool var_value(struct eval *e, const struct var *v, struct str *out);
/* Stores into the cache (set directive, named captures). */
void var_store(struct eval *e, const struct var *v, struct str value);
void var_forget(struct eval *e, const struct var *v);

/*
 * The name at *rest, which begins behind a "$": letters, digits and underscores, or the same in braces. *rest is then
 * what follows. An empty name where none is there. NULL, or a sentence for a brace that is not closed.
 */
const char *var_take_name(struct conf *cf, struct str *rest, struct str *name);

struct expr;
struct expr_list {
    struct expr **items;
    unsigned count, capacity;
};
struct expr_size {
    uint64_t value;
    struct expr *expr; /* NULL: value holds */
};

enum {
    EXPR_Z = 1,        /* results are NUL-terminated */
    EXPR_PREFIX = 2,   /* a path: completed with the prefix when relative */
    EXPR_CONF_PREFIX = 4,
};

/* The space that strings at cf->level refer to (http's or stream's); NULL outside of both. */
struct var_space *conf_var_space(struct conf *cf);
/*
 * NULL with a sentence in *error ("invalid variable name"). Text without $ is a literal; outside of
 * http and stream
 * everything is.
 */
struct expr *expr_compile(struct conf *cf, struct str text, unsigned flags, const char **error);
/* Argument n, for setters: NULL, or a sentence. */
const char *conf_arg_expr(struct conf *cf, unsigned n, struct expr **out);
struct expr *expr_literal(struct arena *arena, struct str text);
/* The text if it holds no variable; *literal tells. */
bool expr_is_literal(const struct expr *x, struct str *text);
bool expr_uses_captures(const struct expr *x);
unsigned expr_max_capture(const struct expr *x); /* highest $N, 0: none */
struct str expr_source(const struct expr *x);
/*
 * The result lives in the subject's arena or longer. Unknown values count as empty. A literal
 * costs no allocation, a single variable or capture none unless EXPR_Z or a prefix demands a copy.
 */
struct str expr_eval(struct eval *e, const struct expr *x);
/* True if any item is neither empty nor "0" (nginx's predicate rule). */
bool expr_any_true(struct eval *e, const struct expr_list *list);
/* True if all are, or there are none. */
bool expr_all_true(struct eval *e, const struct expr_list *list);
/* Size in bytes; 0 when the value is malformed. */
uint64_t expr_size(struct eval *e, const struct expr_size *x);

#endif
