/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of core/config share among themselves: the lexer, the parser's state, errors with
 * their place, and what is known of the modules' tables. Included by core/config/ alone.
 */
#ifndef CORE_CONFIG_PARSE_H
#define CORE_CONFIG_PARSE_H

#include "core/config/config.h"
#include "core/module.h"

/* lex.c ------------------------------------------------------------------------------------- */

enum lex_kind { LEX_WORD, LEX_SEMICOLON, LEX_OPEN, LEX_CLOSE, LEX_END, LEX_BAD };

/* Reads a buffer that it may write to: words are unescaped and terminated where they stand. */
struct lexer {
    char *p;
    char *end; /* a NUL that is not part of the text stands here */
    char *line_start;
    unsigned line;
    const char *file;
    struct arena *arena;    /* for sentences */
    enum lex_kind held;     /* a ";" or "{" that ended the last word; LEX_WORD: none */
    struct conf_pos held_pos;
};

struct token {
    enum lex_kind kind;
    struct str text;     /* of a word; of LEX_BAD: the sentence */
    struct conf_pos pos; /* of its first byte */
    unsigned opened;     /* of LEX_END inside quotes: the line where they begin; else 0 */
    bool quoted;         /* a word in quotes */
};

/* text must be followed by a NUL. file is kept. */
void lex_init(struct lexer *lx, struct arena *arena, char *text, size_t len, const char *file);
enum lex_kind lex_next(struct lexer *lx, struct token *t);
/* After "{": the text up to the matching "}" (quoted strings skipped over), which is
 * consumed. 0, or -1 at the end of the file. */
int lex_raw_block(struct lexer *lx, struct str *out);

/* parse.c ----------------------------------------------------------------------------------- */

struct words {
    struct str *items;
    struct conf_pos *pos;
    bool *quoted;
    unsigned count;
    unsigned capacity;
};

typedef const char *conf_line(struct conf *cf, void *data);

struct parser {
    struct lexer *lex;    /* of the file being read */
    struct words words;   /* of the directive being read */
    conf_line *line;      /* inside conf_lines; else NULL */
    void *line_data;
    bool stop;            /* the syntax is broken, or there were too many errors */
    bool globals;         /* reading -g */
    bool block_pending;   /* "{" was read and nobody has taken the block yet */
    unsigned caret;       /* argument that the sentence just made is about */
    const char *hint;     /* a few words to stand behind the caret */
    unsigned includes;    /* depth */
    unsigned blocks;      /* depth */
    struct conf_node *record_in;   /* where what comes next is recorded; NULL: nowhere */
    struct conf_node *record_last; /* what came last */
    struct table files;   /* struct conf_file by path */
};

static inline struct parser *conf_parser(const struct conf *cf)
{
    return cf->parser;
}

/* A setter's answer after the syntax broke: already reported. */
extern const char conf_stopped[];
/* The "file" of -g. */
extern const char conf_command_line[];

/* Reads one file at the current level, or line by line inside conf_lines. NULL or a sentence that
 * says why it could not be opened. */
const char *parse_file(struct conf *cf, struct str path);
void parse_globals(struct conf *cf, const char *text);
/* Splits text (a default) into words; only words may stand in it. */
void parse_words(struct arena *arena, const char *text, struct words *words);

/* include.c --------------------------------------------------------------------------------- */

extern const struct directive include_row;
const char *conf_include(struct conf *cf);
/* Among the rows of a map: whether this one includes a file. */
bool conf_is_include(const struct conf *cf);

/* env.c ------------------------------------------------------------------------------------- */

/* Replaces each ${env:NAME} in the word. NULL, or a sentence. */
const char *env_expand(struct conf *cf, struct str *word);

/* record.c ---------------------------------------------------------------------------------- */

void record_begin(struct conf *cf);
/* The words in cf become a node, if there is a record. */
void record_directive(struct conf *cf);

/* error.c ----------------------------------------------------------------------------------- */

/* Reports a sentence at a place: the log line, then the source line with a caret and the hint. */
void error_report(struct conf *cf, struct conf_pos pos, const char *sentence, const char *hint);
/*
 * `did you mean "x"?` for the nearest known directive, those of the current context first; or NULL.
 */
const char *error_near_directive(struct conf *cf, struct str name);
/* The nearest of `count` names within the distance that a typing mistake makes, or -1. */
int error_nearest(struct str name, const struct str *names, unsigned count);
/* "http, server, location" for a set of CTX_ bits. */
struct str context_names(struct arena *arena, unsigned contexts);

/* nginx_names.c ----------------------------------------------------------------------------- */

bool nginx_has_directive(struct str name);

/* table.c ----------------------------------------------------------------------------------- */

/* A row in the index by name; rows of one name hang together. */
struct known_row {
    const struct module *module;
    const struct directive *row;
    unsigned number; /* of the row in its module */
    struct known_row *next;
};

/* What inheritance does for one member. Rows that share a member or a group share `key`. */
struct conf_member {
    const struct directive *row;
    unsigned number;
    unsigned key; /* number of the first row of the group */
};

struct module_info {
    unsigned rows;
    struct conf_member *members[STORES];
    unsigned member_count[STORES];
    unsigned short *keys; /* by row */
};

const struct module_info *module_info(const struct module *module);
const struct known_row *known_row(struct str name);
/* Visits the first row of every name: *i starts at 0. */
const struct known_row *known_next(unsigned *i);
/* The row `name` of a module that may stand in the context, or else any of that name; its number in
 * *number. NULL: none. */
const struct directive *module_row(const struct module *module, const char *name, unsigned context,
                                   unsigned *number);

/* inherit.c --------------------------------------------------------------------------------- */

/*
 * The structures a level made for one module, and which rows were set: a bit per row, then a bit
 * per key.
 */
struct level_own {
    struct level_own *next;
    const struct module *module;
    unsigned char *set;
    void *conf[STORES];
};

/* The level, this one or above, where the module's store lives; NULL: none. */
struct level *level_home(struct level *level, const struct module *module, unsigned store);
bool level_row_set(const struct level *level, const struct module *module, unsigned number);
void level_mark(struct conf *cf, struct level *level, const struct module *module, unsigned number);
/*
 * Where the row's setter writes when called for this level: NULL if the module has no structure
 * there.
 */
void *level_field(struct conf *cf, struct level *level, const struct module *module,
                  const struct directive *row);
/* Inheritance and finish for all levels, from main down. Errors are counted in the config. */
void inherit_all(struct conf *cf);

#endif
