/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration: what a file becomes. A `config` is one reading of the file: an arena, the
 * tree of levels (main, events, http, server, location, if, upstream …) and what it asks of
 * the process (files, sockets, zones, paths). Directive rows say everything about a directive;
 * the core parses, checks, stores, defaults, inherits and documents from them.
 *
 * Each module has up to three structures. Where they live:
 *   STORE_MAIN  once: at the http (stream) level if the module has .http (.stream), else at main
 *   STORE_SRV   http, server, upstream, and the same of stream
 *   STORE_LOC   http, server, location, if, limit_except (and stream, stream's server)
 * A block where a store does not live (events; a location, for STORE_SRV) sees that of the next
 * level above.
 * A level that sets nothing of a module shares its parent's structure: what is not used costs
 * nothing, neither memory nor time. Only what belongs to a row is inherited: other members of a
 * structure are zero at each level that owns one, and finish fills them.
 *
 * Flow: parse all (setters write into the level's own zeroed structure and a bit per row
 * remembers what was set) → level by level from the top down: inherit by the rows' rules (defaults
 * at the top), then each module's finish if the level owns a structure of it → each module's post.
 */
#ifndef CORE_CONFIG_CONFIG_H
#define CORE_CONFIG_CONFIG_H

#include "core/base/arena.h"
#include "core/base/hash.h"
#include "core/base/list.h"
#include "core/base/log.h"

struct module;
struct conf;
struct resources;

enum {
    CTX_MAIN = 1 << 0,
    CTX_EVENTS = 1 << 1,
    CTX_HTTP = 1 << 2,
    CTX_SERVER = 1 << 3,
    CTX_LOCATION = 1 << 4,
    CTX_IF_SERVER = 1 << 5,   /* "if" in server */
    CTX_IF_LOCATION = 1 << 6, /* "if" in location */
    CTX_LIMIT_EXCEPT = 1 << 7,
    CTX_UPSTREAM = 1 << 8,
    CTX_STREAM = 1 << 9,
    CTX_STREAM_SERVER = 1 << 10,
    CTX_STREAM_UPSTREAM = 1 << 11,
    CTX_MATCH = 1 << 12,
    CTX_ANY = (1 << 13) - 1,
    CTX_HSL = CTX_HTTP | CTX_SERVER | CTX_LOCATION,
    CTX_HSLI = CTX_HSL | CTX_IF_LOCATION,
};

enum { STORE_MAIN, STORE_SRV, STORE_LOC, STORES };

/* Where a thing stands in the files. file lives as long as the config. */
struct conf_pos {
    const char *file;
    unsigned line;
    unsigned column; /* 1 is the first byte of the line; 0: unknown */
};

/* One block of the file. */
struct level {
    unsigned context;       /* one CTX_ bit */
    struct level *parent;   /* NULL for main */
    struct list children;   /* struct level.sibling, in file order */
    struct list sibling;
    struct conf_pos pos;
    void **conf[STORES];    /* by module index; filled by inheritance, NULL while reading */
    struct level_own *own;  /* private: the structures made here and which rows were set */
    /* What $variables here refer to: the parent's unless the block's setter sets another. */
    struct var_space *vars;
    void *object;           /* the block's own: struct server, struct location, struct upstream … */
    struct conf_place *places; /* of the directives in it, last one first; NULL unless config->explaining */
};

/* Where a directive of a block was written: kept for those who explain, not for those who serve. */
struct conf_place {
    struct conf_place *next;
    const struct directive *row;
    struct str arg;         /* the first one; STR_NULL: none */
    struct conf_pos pos;
};

enum inherit {
    INHERIT_SCALAR,   /* this level's value if set here, else the parent's */
    INHERIT_WHOLE,    /* the same for arrays: replaced as a whole if anything is set here */
    INHERIT_NONE,     /* never inherited: zero (or the default) where not set */
    INHERIT_IMPLICIT, /* by `if` and `limit_except` only */
    INHERIT_DONE,     /* no storage (blocks, rows that write elsewhere) */
};

/* Argument counts: a bit per allowed count 0..7, and shapes. */
enum {
    ARGS0 = 1 << 0,
    ARGS1 = 1 << 1,
    ARGS2 = 1 << 2,
    ARGS3 = 1 << 3,
    ARGS4 = 1 << 4,
    ARGS12 = ARGS1 | ARGS2,
    ARGS123 = ARGS1 | ARGS2 | ARGS3,
    ARGS1_MORE = 1 << 8,  /* one or more */
    ARGS2_MORE = 1 << 9,
    ARGS_ANY = 1 << 10,
    ARG_BLOCK = 1 << 11,  /* takes { … } */
    ARG_FLAG = 1 << 12,   /* one argument, "on" or "off" */
    ARG_REPEAT = 1 << 13, /* may stand several times on a level; otherwise it "is duplicate" */
    /* With ARG_BLOCK: the lexer hands the block over unread in cf->raw. (map, types … use conf_lines.) */
    ARG_RAW_BLOCK = 1 << 14,
};

/*
 * Writes the parsed arguments (cf->args) to field: the level's structure plus the row's offset.
 * Returns NULL, or a sentence for the user without position (arena or static memory), which the
 * core completes: "SENTENCE in FILE:LINE".
 */
typedef const char *conf_setter(struct conf *cf, void *field);

struct directive {
    const char *name; /* NULL ends the table */
    unsigned contexts;
    unsigned args;
    conf_setter *set;
    unsigned store;
    size_t offset;
    size_t size;          /* bytes that inheritance copies */
    enum inherit inherit;
    const char *def;      /* the default, as one would write it, for the same setter; NULL: zero */
    const char *doc;      /* one line */
    const void *extra;    /* for the setter: enum table, range … */
    /* Rows of one module and group (> 0) are inherited together: if one is set here, none is taken
     * over and none gets its default. Rows that share a member always go together. */
    unsigned char group;
    const char *syntax;   /* manual's syntax line without the name: "on | off" */
};

/*
 * A name that begins with "." is a member without a directive (a content handler that another
 * module
 * sets): it is inherited like any row's and set with conf_field.
 *
 * The usual row: a value in a member of the module's structure. Further members may follow as
 * designated initialisers.
 */
#define ROW(name_, ctx_, args_, set_, store_, type_, member_, inherit_, def_, syntax_, doc_, ...) \
    { .name = name_, .contexts = (ctx_), .args = (args_), .set = (set_), .store = (store_), \
      .offset = offsetof(type_, member_), .size = sizeof(((type_ *) 0)->member_), \
      .inherit = (inherit_), .def = (def_), .syntax = (syntax_), .doc = (doc_), __VA_ARGS__ }
/* A row that stores nothing of its own: field is the whole structure (or NULL if the module has
 * none there). What the setter writes there is this level's alone. */
#define ROW_CALL(name_, ctx_, args_, set_, store_, syntax_, doc_, ...) \
    { .name = name_, .contexts = (ctx_), .args = (args_), .set = (set_), .store = (store_), \
      .inherit = INHERIT_DONE, .syntax = (syntax_), .doc = (doc_), __VA_ARGS__ }
#define ROW_END { .name = NULL }

struct config {
    struct arena *arena;
    const char *prefix;    /* absolute, with a final slash: logs, roots, pid are relative to it */
    const char *conf_prefix; /* directory of the file, with a final slash: include, keys */
    const char *file;
    struct level *main;
    struct resources *resources; /* core/config/resource.h */
    struct log_scope log;  /* error_log of the main level */
    void *http;            /* struct http_main, core/http/http.h; NULL without an http block */
    void *stream;
    FILE *details;         /* where source lines with carets go while reading; else NULL */
    const struct config *old; /* during a reload's parse: what is in force; else NULL */
    unsigned errors;
    unsigned warnings;
    bool testing;          /* -t */
    bool offline;          /* --offline: no name is resolved, nothing is opened but what is read */
    bool explaining;       /* --explain: nothing is started from it; conf_where knows where each directive stands */
    struct list files;     /* struct conf_file, for -T, in the order first read */
    struct str_list env;   /* the variables of the environment that the files name */
    struct conf_report *report; /* what was logged meanwhile, for --json; or NULL */
    struct conf_node *record;   /* the directives as they were written, for --lint; or NULL */
};

struct conf_file {
    struct list link;
    const char *path;
    struct str content;
    unsigned line; /* private: the line last looked for, counted from 0, */
    size_t at;     /* and where it begins */
};

/* The parse in progress; what a setter gets. */
struct conf {
    struct config *config;
    struct arena *arena; /* config->arena */
    struct logger *log;
    /* args[0] is the directive's name; each is NUL-terminated. The strings live as long as the
     * config, the array until the setter returns. */
    struct str *args;
    unsigned nargs;
    struct conf_pos pos; /* of the directive */
    struct conf_pos *arg_pos; /* of each argument, for the caret */
    struct level *level;
    const struct module *module;
    const struct directive *row;
    const struct directive *before; /* the row that stands before in the block; NULL: none, or a bad one */
    bool has_block;      /* "{" follows: the setter must call conf_block or conf_lines */
    struct str raw;      /* of an ARG_RAW_BLOCK row: what is between the braces, NUL-terminated */
    void *parser;        /* private */
};

/* Something that was said about the configuration. */
struct conf_message {
    struct list link;
    enum log_level level;
    struct str text;     /* without the place, where that is known */
    struct conf_pos pos; /* file NULL: of no place */
    const char *hint;    /* what stands behind the caret; or NULL */
    const char *rule;    /* of --lint; or NULL */
};

/*
 * All of it, in order. Who wants one adds a log target whose writer calls conf_report_line, so that what
 * modules log in their own way is in it too; a message about a place comes with it in its parts.
 */
struct conf_report {
    struct arena *arena;
    struct list messages;                /* struct conf_message */
    const struct conf_message *pending;  /* private: the parts of the line being logged */
};

void conf_report_init(struct conf_report *report, struct arena *arena);
/* A line of the log, from the first byte of its time to its line feed. */
void conf_report_line(struct conf_report *report, enum log_level level, struct str line);
/* A copy is kept. */
void conf_report_add(struct conf_report *report, const struct conf_message *m);

/* What config_read is told. */
struct config_request {
    const char *prefix;
    const char *file;          /* absolute */
    const char *globals;       /* -g text or NULL; read before the file */
    FILE *details;             /* stderr: errors show the source line and a caret; NULL: not */
    bool testing;
    bool offline;
    bool explaining;
    bool record;               /* keep the directives as they are written */
    struct conf_report *report;
    const struct config *old;
};

/*
 * Reads a configuration. All errors found (up to 20) are logged to log with FILE:LINE, the source
 * line with
 * a caret and, for unknown names, the nearest known one. NULL after any error; the arena is then
 * gone. modules[] is NULL-terminated; config_modules_init must have been called.
 */
struct config *config_read(const struct config_request *req, struct logger *log);
void config_free(struct config *config);
/* Limits of the language, far above what people write. */
#define CONF_WORD_MAX (4u << 20)     /* bytes of one parameter */
#define CONF_FILE_MAX (256u << 20)   /* bytes of one file */
#define CONF_INCLUDE_MAX 32          /* files including files */
#define CONF_BLOCK_MAX 128           /* blocks inside blocks */
#define CONF_ERRORS_MAX 20

/*
 * Once per process: numbers the modules (*module->slot) and checks the tables for contradictions.
 */
void config_modules_init(void);
/* Gives back what config_modules_init made (leak checks at exit). */
void config_modules_free(void);
extern const struct module *const modules[];
extern unsigned module_count;
/* Prints the configuration dump of -T: each file once, "# configuration file PATH:" before it. */
void config_dump(const struct config *config, FILE *out);
/* The source line (of a long one the part that matters), below it a caret and the hint, which may be NULL. */
void conf_show_source(const struct config *config, FILE *out, struct conf_pos pos, const char *hint);
/* Prints the manual made from the rows ("-x directives"): Markdown, by module. */
void config_manual(FILE *out);

/* For setters ------------------------------------------------------------------------------- */

/* A sentence in the config's arena. */
const char *conf_error(struct conf *cf, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Marks argument n as the one the caret should point at; returns the sentence. */
const char *conf_error_arg(struct conf *cf, unsigned n, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Logs an error found late (in finish or post), counts it. */
void conf_error_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);
void conf_warn_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);
void conf_notice_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Whether argument n stood in quotes. To be asked before the directive's block is read. */
bool conf_arg_quoted(const struct conf *cf, unsigned n);

/* A new level below cf->level, at cf->pos. object is the block's own structure. */
struct level *conf_level(struct conf *cf, unsigned context, void *object);
/* Parses the block that follows into `child`. Errors in it are reported there. What comes back is to be
 * returned by the setter: NULL, or when the syntax is broken a mark that ends the parse. */
const char *conf_block(struct conf *cf, struct level *child);
/*
 * Parses the block that follows line by line: `line` is called as a setter for each (cf->args),
 * include is handled.
 */
const char *conf_lines(struct conf *cf, const char *(*line)(struct conf *cf, void *data),
                       void *data);
/*
 * The module's own structure at a level (or at the level above where the store lives; NULL if it
 * lives at none), created
 * zeroed if the level had none; in finish and post, when what is inherited is already there, as a
 * copy of it.
 * For members that are no row's: they stay this level's. Whoever sets a row's member uses
 * conf_field.
 */
void *conf_own(struct conf *cf, struct level *level, const struct module *module, unsigned store);
/* Whether the row `name` of the module was set at this very level. */
bool conf_is_set(const struct level *level, const struct module *module, const char *name);
/*
 * The member of the row `name` at a level, marked as set there: for one module that sets another's.
 */
void *conf_field(struct conf *cf, struct level *level, const struct module *module,
                 const char *name);
/* Sets a row as if the text had been written at this level (derived defaults). */
const char *conf_apply(struct conf *cf, struct level *level, const struct module *module,
                       const char *name, const char *text);
/* Reads a file at the level being read, as `include` does. NULL, or a sentence that says why it could not be opened. */
const char *conf_read_file(struct conf *cf, struct str path);
/* Absolute, NUL-terminated path: relative ones are completed with prefix or conf_prefix. */
struct str conf_path(struct conf *cf, struct str path, bool conf_dir);

/* Typed setters. field type in brackets. */
conf_setter conf_set_flag;     /* [bool] */
conf_setter conf_set_num;      /* [int64_t] extra: struct conf_range or NULL (0..INT32_MAX) */
conf_setter conf_set_size;     /* [size_t] bytes, k m */
conf_setter conf_set_off;      /* [uint64_t] bytes, k m g */
conf_setter conf_set_ms;       /* [uint64_t] milliseconds */
conf_setter conf_set_sec;      /* [uint64_t] seconds */
conf_setter conf_set_enum;     /* [unsigned] extra: struct conf_enum[] */
conf_setter conf_set_bits;     /* [unsigned] extra: struct conf_enum[], all arguments */
conf_setter conf_set_str;      /* [struct str] */
conf_setter conf_set_list;     /* [struct str_list] all arguments appended */
conf_setter conf_set_bufs;     /* [struct conf_bufs] NUMBER SIZE */
conf_setter conf_set_path;     /* [struct conf_path] PATH [level …]; also a res_path, made at start */
conf_setter conf_set_file;     /* [struct str] path completed with the prefix */
conf_setter conf_set_conf_file;/* [struct str] path completed with conf_prefix */
conf_setter conf_set_expr;     /* [struct expr *] */
conf_setter conf_set_exprs;    /* [struct expr_list] all arguments appended (predicates) */
conf_setter conf_set_expr_size;/* [struct expr_size] a size or an expression that yields one */
conf_setter conf_set_access;   /* [unsigned] permission bits: "user:rw group:r all:r" */
conf_setter conf_ignored;      /* accepted without effect; the doc says why; notice at info level */

struct conf_range {
    int64_t min, max;
};
struct conf_enum {
    const char *name; /* NULL ends */
    unsigned value;
};
struct conf_bufs {
    unsigned count;
    size_t size;
};
struct conf_path {
    struct str path; /* absolute, NUL-terminated */
    unsigned char levels[3];
};

/*
 * The line that a directive in force at this level was written in: the nearest block that has it counts, the first of
 * several there. arg: its first argument must be that; STR_NULL: whatever it is. file is NULL where it is the default,
 * and always unless the configuration was read with `explaining`.
 */
struct conf_pos conf_where(const struct level *level, const char *name, struct str arg);

/* A module's structure at a level. index: *module.slot. */
static inline void *level_conf(const struct level *level, unsigned store, unsigned index)
{
    return level->conf[store][index];
}

#endif
