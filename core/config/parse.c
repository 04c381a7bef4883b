/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser: directives and blocks from words, each checked against its row and handed to its
 * setter. After an error it goes on with the next directive, so that one run shows several. Also
 * the whole of config_read. Knows no directive but include.
 */
#include <errno.h>

#include "core/config/parse.h"

#include "core/config/counters.h"
#include "core/config/resource.h"
#include "core/os/file.h"
#include "core/os/socket.h"

const char conf_command_line[] = "command line";

/* Words and tokens --------------------------------------------------------------------------- */

static void words_add(struct arena *arena, struct words *w, const struct token *t)
{
    if (w->count == w->capacity) {
        unsigned capacity = w->capacity;

        w->items = arena_grow(arena, w->items, w->count, &capacity, sizeof(*w->items));
        capacity = w->capacity;
        w->quoted = arena_grow(arena, w->quoted, w->count, &capacity, sizeof(*w->quoted));
        w->pos = arena_grow(arena, w->pos, w->count, &w->capacity, sizeof(*w->pos));
    }
    w->items[w->count] = t->text;
    w->quoted[w->count] = t->quoted;
    w->pos[w->count++] = t->pos;
}

void parse_words(struct arena *arena, const char *text, struct words *words)
{
    struct str copy = str_dup(arena, str_cstr(text));
    struct lexer lx;
    struct token t;

    lex_init(&lx, arena, (char *) copy.ptr, copy.len, NULL);
    while (lex_next(&lx, &t) == LEX_WORD)
        words_add(arena, words, &t);
    /* The text is a programmer's. */
    ASSERT(t.kind == LEX_END && t.opened == 0);
}

static const char brace_hint[] = "a \"{\" ends a word: put quotes around what it belongs to";

/* Reads the words of a directive and what ends it. */
static enum lex_kind read_words(struct conf *cf, struct token *t)
{
    struct parser *parser = conf_parser(cf);

    parser->words.count = 0;
    while (lex_next(parser->lex, t) == LEX_WORD)
        words_add(cf->arena, &parser->words, t);
    return t->kind;
}

/*
 * The rest of an expression whose "{2,3}" stands outside quotes: the "{" was read as one that opens a
 * block, and the "}" is within this word.
 */
static bool is_quantifier(struct str word)
{
    size_t i = 0;

    while (i < word.len && ((word.ptr[i] >= '0' && word.ptr[i] <= '9') || word.ptr[i] == ','))
        i++;
    return i > 0 && i < word.len && word.ptr[i] == '}';
}

/*
 * Over the block whose "{" was just read; if that belonged to an expression, over the directive that it
 * has broken in two.
 */
static void skip_block(struct conf *cf)
{
    struct parser *parser = conf_parser(cf);
    struct conf_pos open = cf->pos;
    unsigned depth = 1;
    bool broken = false;
    struct token t;

    parser->block_pending = false;
    while (depth > 0 || broken) {
        switch (lex_next(parser->lex, &t)) {
        case LEX_OPEN:
            depth++;
            broken = false;
            break;
        case LEX_CLOSE:
            if (depth > 0) {
                depth--;
                break;
            }
            parser->stop = true; /* what it closes cannot be known */
            return;
        case LEX_SEMICOLON: broken = false; break;
        case LEX_WORD:
            if (depth > 0 && !t.quoted && is_quantifier(t.text))
                broken = --depth == 0;
            break;
        case LEX_END:
            error_report(
                cf, t.pos, "unexpected end of file, expecting \"}\"",
                str_printf(cf->arena, "the block that begins in line %u is not closed", open.line)
                    .ptr);
            parser->stop = true;
            return;
        default: break;
        }
    }
}

/*
 * What the words take from the environment. -1: something is missing there (reported), and the directive,
 * which ended with `end`, is passed over.
 */
static int expand_words(struct conf *cf, const struct token *end)
{
    struct words *w = &conf_parser(cf)->words;
    const char *error = NULL;
    unsigned i;

    /* A directive's name is a name; the first word of a map's row is a value like any. */
    for (i = conf_parser(cf)->line ? 0 : 1; i < w->count && error == NULL; i++)
        error = env_expand(cf, &w->items[i]);
    if (likely(error == NULL))
        return 0;
    error_report(cf, w->pos[i - 1], error, NULL);
    if (end->kind == LEX_OPEN) {
        cf->pos = end->pos;
        skip_block(cf);
    }
    return -1;
}

bool conf_arg_quoted(const struct conf *cf, unsigned n)
{
    return conf_parser(cf)->words.quoted[n];
}

/* One directive ------------------------------------------------------------------------------ */

static bool count_allowed(const struct directive *row, unsigned n)
{
    unsigned args = row->args;

    if (args & ARGS_ANY)
        return true;
    if (args & ARG_FLAG)
        return n == 1;
    if ((args & ARGS1_MORE) && n >= 1)
        return true;
    if ((args & ARGS2_MORE) && n >= 2)
        return true;
    return n < 8 && (args & (1u << n));
}

static void fail(struct conf *cf, const char *sentence, const char *hint)
{
    struct parser *parser = conf_parser(cf);

    error_report(cf, cf->arg_pos[parser->caret < cf->nargs ? parser->caret : 0], sentence, hint);
}

static void unexpected(struct conf *cf, const struct token *t, char c, const char *hint)
{
    error_report(cf, t->pos, conf_error(cf, "unexpected \"%c\"", c), hint);
}

/* A word at the start of a line that is a directive's name: the line before lacks its ";". */
static const char *missing_semicolon(struct conf *cf)
{
    for (unsigned i = 1; i < cf->nargs; i++) {
        if (cf->arg_pos[i].line == cf->arg_pos[i - 1].line || known_row(cf->args[i]) == NULL)
            continue;
        return str_printf(cf->arena, "is a \";\" missing before \"%s\" in line %u?",
            cf->args[i].ptr, cf->arg_pos[i].line).ptr;
    }
    return NULL;
}

static void remember_place(struct conf *cf)
{
    struct conf_place *place = ARENA_NEW(cf->arena, struct conf_place);

    place->row = cf->row;
    place->arg = cf->nargs > 1 ? cf->args[1] : STR_NULL;
    place->pos = cf->pos;
    place->next = cf->level->places;
    cf->level->places = place;
}

struct conf_pos conf_where(const struct level *level, const char *name, struct str arg)
{
    struct conf_pos pos = { NULL, 0, 0 };

    for (; level != NULL && pos.file == NULL; level = level->parent) {
        for (const struct conf_place *p = level->places; p != NULL; p = p->next) {
            if (strcmp(p->row->name, name) == 0 && (arg.ptr == NULL || str_caseeq(p->arg, arg)))
                pos = p->pos;
        }
    }
    return pos;
}

static const char *call_setter(struct conf *cf, const struct known_row *known)
{
    const struct directive *row = known->row;
    struct parser *parser = conf_parser(cf);
    void *field;

    cf->module = known->module;
    cf->row = row;
    parser->caret = 0;
    parser->hint = NULL;
    if (!(row->args & ARG_REPEAT) && level_row_set(cf->level, known->module, known->number))
        return conf_error(cf, "\"%s\" directive is duplicate", row->name);
    field = level_field(cf, cf->level, known->module, row);
    ASSERT(field != NULL || row->size == 0); /* a row's contexts lie where its store lives */
    level_mark(cf, cf->level, known->module, known->number);
    if (unlikely(cf->config->explaining))
        remember_place(cf);
    if (row->args & ARG_RAW_BLOCK) {
        parser->block_pending = false;
        if (lex_raw_block(parser->lex, &cf->raw)) {
            parser->stop = true;
            return "unexpected end of file, expecting \"}\"";
        }
    }
    return row->set(cf, field);
}

/* Which of the rows of that name is meant here, or NULL with the error reported. */
static const struct known_row *choose_row(struct conf *cf)
{
    const struct known_row *first = known_row(cf->args[0]), *k;
    unsigned contexts = 0;

    if (first == NULL) {
        const char *s = conf_error(cf, "unknown directive \"%s\"", cf->args[0].ptr);
        const char *hint = missing_semicolon(cf);

        if (hint == NULL && nginx_has_directive(cf->args[0]))
            hint = "a directive of nginx that this build of proxyd does not have";
        if (hint == NULL && is_quantifier(cf->args[0])) {
            hint = brace_hint;
            conf_parser(cf)->stop = true; /* the levels are no longer what they seem */
        }
        error_report(cf, cf->arg_pos[0], s, hint ? hint : error_near_directive(cf, cf->args[0]));
        return NULL;
    }
    for (k = first; k; k = k->next) {
        if (k->row->contexts & cf->level->context)
            return k;
        contexts |= k->row->contexts;
    }
    error_report(cf, cf->arg_pos[0],
        conf_error(cf, "\"%s\" directive is not allowed here", cf->args[0].ptr),
        str_printf(cf->arena, "it may stand in: %s",
            context_names(cf->arena, contexts).ptr).ptr);
    return NULL;
}

/* The sentence about a wrong terminator or count, or NULL. */
static const char *check_shape(struct conf *cf, const struct directive *row)
{
    bool block = row->args & ARG_BLOCK;

    if (!block && cf->has_block)
        return conf_error(cf, "directive \"%s\" is not terminated by \";\"", row->name);
    if (block && !cf->has_block)
        return conf_error(cf, "directive \"%s\" has no opening \"{\"", row->name);
    if (!count_allowed(row, cf->nargs - 1))
        return conf_error(cf, "invalid number of arguments in \"%s\" directive", row->name);
    return NULL;
}

static const char *shape_hint(struct conf *cf, const struct directive *row)
{
    const char *hint = missing_semicolon(cf);

    if (hint == NULL && cf->has_block && !(row->args & ARG_BLOCK) && cf->nargs > 1)
        hint = brace_hint;
    if (hint == NULL && row->syntax && (!cf->has_block || (row->args & ARG_BLOCK)))
        hint = str_printf(cf->arena, "its syntax: %s %s", row->name, row->syntax).ptr;
    return hint;
}

static void run_directive(struct conf *cf)
{
    struct parser *parser = conf_parser(cf);
    const struct known_row *known;
    const char *error;

    parser->caret = 0;
    parser->hint = NULL;
    cf->row = NULL;
    if (str_eq(cf->args[0], STR("include"))) {
        cf->module = NULL;
        cf->row = &include_row;
        error = check_shape(cf, cf->row);
        if (error == NULL)
            error = conf_include(cf);
        if (error)
            fail(cf, error, NULL);
        return;
    }
    known = choose_row(cf);
    if (known == NULL)
        return;
    error = check_shape(cf, known->row);
    if (error) {
        fail(cf, error, shape_hint(cf, known->row));
        return;
    }
    record_directive(cf);
    error = call_setter(cf, known);
    if (error && error != conf_stopped)
        fail(cf, error, parser->hint ? parser->hint : missing_semicolon(cf));
}

/* Inside map and the like: include, or a line for the callback. */
static void run_line(struct conf *cf)
{
    struct parser *parser = conf_parser(cf);
    const char *error;

    parser->caret = 0;
    parser->hint = NULL;
    if (conf_is_include(cf)) {
        error = conf_include(cf);
    } else {
        record_directive(cf);
        error = parser->line(cf, parser->line_data);
    }
    if (error && error != conf_stopped)
        fail(cf, error, parser->hint);
}

/* The words just read become cf->args. A block's must outlive the directives in it. */
static void take_words(struct conf *cf, bool keep)
{
    struct words *w = &conf_parser(cf)->words;

    cf->nargs = w->count;
    cf->args = w->items;
    cf->arg_pos = w->pos;
    cf->pos = w->pos[0];
    cf->has_block = keep;
    cf->raw = STR_NULL;
    if (!keep && !str_eq(w->items[0], STR("include")))
        return;
    cf->args = arena_alloc(cf->arena, w->count * sizeof(*cf->args));
    cf->arg_pos = arena_alloc(cf->arena, w->count * sizeof(*cf->arg_pos));
    memcpy(cf->args, w->items, w->count * sizeof(*cf->args));
    memcpy(cf->arg_pos, w->pos, w->count * sizeof(*cf->arg_pos));
}

static void run_block_directive(struct conf *cf, const struct token *t)
{
    struct parser *parser = conf_parser(cf);

    if (parser->globals) {
        error_report(cf, t->pos, "block directives are not supported in -g option", NULL);
        parser->stop = true;
        return;
    }
    if (parser->words.count == 0 || parser->line) {
        cf->pos = t->pos;
        unexpected(cf, t, '{', NULL);
        skip_block(cf);
        return;
    }
    take_words(cf, true);
    parser->block_pending = true;
    run_directive(cf);
    cf->before = cf->row;
    /* The setter refused, or nobody knew the directive. */
    if (parser->block_pending && !parser->stop)
        skip_block(cf);
    parser->block_pending = false;
}

/* Runs of directives ------------------------------------------------------------------------- */

static void report_end(struct conf *cf, const struct token *t, bool top, struct conf_pos open)
{
    struct parser *parser = conf_parser(cf);
    const char *hint = NULL;

    if (t->opened)
        hint =
            str_printf(cf->arena, "the quote that opens in line %u is not closed", t->opened).ptr;
    else if (!top && parser->words.count == 0)
        hint =
            str_printf(cf->arena, "the block that begins in line %u is not closed", open.line).ptr;
    if (parser->words.count == 0 && t->opened == 0) {
        if (top)
            return;
        error_report(cf, t->pos, "unexpected end of file, expecting \"}\"", hint);
    } else if (parser->globals) {
        error_report(cf, t->pos, "unexpected end of parameter, expecting \";\"", NULL);
    } else {
        error_report(cf, t->pos, "unexpected end of file, expecting \";\" or \"}\"", hint);
    }
    parser->stop = true;
}

static void report_bad(struct conf *cf, const struct token *bad)
{
    struct token t;

    error_report(cf, bad->pos, bad->text.ptr, NULL);
    /* On to the end of this directive. */
    for (;;) {
        switch (lex_next(conf_parser(cf)->lex, &t)) {
        case LEX_OPEN:
            cf->pos = t.pos;
            skip_block(cf);
            return;
        case LEX_SEMICOLON: return;
        case LEX_CLOSE:
            /* Given back: it closes the block around. */
            conf_parser(cf)->lex->held = LEX_CLOSE;
            conf_parser(cf)->lex->held_pos = t.pos;
            return;
        case LEX_END: return;
        default: break;
        }
    }
}

/*
 * Directives up to the "}" of the block that opened at `open`, or up to the end of the file when
 * `top`. Goes on after errors; parser->stop ends it.
 */
static void parse_run(struct conf *cf, bool top, struct conf_pos open)
{
    struct parser *parser = conf_parser(cf);
    struct token t;

    while (!parser->stop) {
        enum lex_kind end = read_words(cf, &t);

        if ((end == LEX_SEMICOLON || end == LEX_OPEN) && expand_words(cf, &t))
            continue;
        switch (end) {
        case LEX_SEMICOLON:
            if (parser->words.count == 0) {
                unexpected(cf, &t, ';', NULL);
                break;
            }
            take_words(cf, false);
            if (parser->line)
                run_line(cf);
            else
                run_directive(cf);
            cf->before = cf->row;
            break;
        case LEX_OPEN: run_block_directive(cf, &t); break;
        case LEX_CLOSE:
            if (parser->words.count)
                unexpected(cf, &t, '}', "is a \";\" missing before it?");
            if (!top)
                return;
            if (parser->words.count == 0)
                unexpected(cf, &t, '}', "no block is open here");
            /* What follows would be judged in the wrong block. */
            parser->stop = true;
            return;
        case LEX_END: report_end(cf, &t, top, open); return;
        default: report_bad(cf, &t); break;
        }
    }
}

const char *conf_block(struct conf *cf, struct level *child)
{
    struct parser *parser = conf_parser(cf);
    struct conf saved = *cf;
    conf_line *line = parser->line;
    struct conf_node *record_in;

    ASSERT(parser->block_pending);
    if (parser->blocks >= CONF_BLOCK_MAX)
        return conf_error(cf, "too many nested blocks, the limit is %d", CONF_BLOCK_MAX);
    parser->block_pending = false;
    parser->line = NULL;
    parser->blocks++;
    cf->level = child;
    cf->before = NULL;
    record_in = parser->record_in;
    parser->record_in = parser->record_in ? parser->record_last : NULL;
    parse_run(cf, false, saved.pos);
    parser->record_in = record_in;
    *cf = saved;
    parser->blocks--;
    parser->line = line;
    parser->caret = 0;
    parser->hint = NULL;
    return parser->stop ? conf_stopped : NULL;
}

const char *conf_lines(struct conf *cf, const char *(*line)(struct conf *cf, void *data),
                       void *data)
{
    struct parser *parser = conf_parser(cf);
    struct conf saved = *cf;
    struct conf_node *record_in = parser->record_in;

    ASSERT(parser->block_pending);
    parser->block_pending = false;
    parser->line = line;
    parser->line_data = data;
    parser->record_in = record_in ? parser->record_last : NULL;
    parse_run(cf, false, saved.pos);
    parser->record_in = record_in;
    *cf = saved;
    parser->line = NULL;
    parser->caret = 0;
    parser->hint = NULL;
    return parser->stop ? conf_stopped : NULL;
}

/* Files -------------------------------------------------------------------------------------- */

/* The file's content, read at most once. NULL with errno. */
static struct conf_file *load_file(struct conf *cf, struct str path)
{
    struct parser *parser = conf_parser(cf);
    struct conf_file *f = table_get(&parser->files, path);

    if (f)
        return f;
    f = ARENA_NEW(cf->arena, struct conf_file);
    f->path = str_z(cf->arena, path);
    if (file_read(cf->arena, f->path, CONF_FILE_MAX, &f->content))
        return NULL;
    list_push_back(&cf->config->files, &f->link);
    table_put(&parser->files, str_cstr(f->path), f);
    return f;
}

static void parse_text(struct conf *cf, const char *file, struct str text)
{
    struct parser *parser = conf_parser(cf);
    struct lexer *outer = parser->lex;
    struct lexer lx;

    lex_init(&lx, cf->arena, (char *) str_dup(cf->arena, text).ptr, text.len, file);
    parser->lex = &lx;
    if (str_starts(text, STR("\xef\xbb\xbf"))) {
        error_report(cf, (struct conf_pos){ file, 1, 1 }, "unexpected UTF-8 byte order mark",
            "save the file without a byte order mark (BOM)");
        lx.p += 3;
    }
    parse_run(cf, true, (struct conf_pos){ file, 1, 1 });
    parser->lex = outer;
}

const char *parse_file(struct conf *cf, struct str path)
{
    struct conf_file *f = load_file(cf, path);

    if (f == NULL)
        return conf_error(cf, "open() \"%s\" failed (%d: %s)", path.ptr, errno, strerror(errno));
    parse_text(cf, f->path, f->content);
    return NULL;
}

void parse_globals(struct conf *cf, const char *text)
{
    struct parser *parser = conf_parser(cf);

    parser->globals = true;
    parse_text(cf, conf_command_line, str_cstr(text));
    parser->globals = false;
}

struct level *conf_level(struct conf *cf, unsigned context, void *object)
{
    struct level *level = ARENA_NEW(cf->arena, struct level);

    level->context = context;
    level->parent = cf->level;
    level->pos = cf->pos;
    level->object = object;
    list_init(&level->children);
    list_init(&level->sibling);
    if (cf->level) {
        level->vars = cf->level->vars;
        list_push_back(&cf->level->children, &level->sibling);
    }
    return level;
}

struct str conf_path(struct conf *cf, struct str path, bool conf_dir)
{
    const char *prefix = conf_dir ? cf->config->conf_prefix : cf->config->prefix;

    if (path.len && path.ptr[0] == '/')
        return str_dup(cf->arena, path);
    return str_printf(cf->arena, "%s%.*s", prefix ? prefix : "", STR_ARG(path));
}

/* Reading ------------------------------------------------------------------------------------ */

/* A directory name with a final slash. */
static const char *with_slash(struct arena *arena, struct str dir)
{
    if (str_ends(dir, STR("/")))
        return str_z(arena, dir);
    return str_printf(arena, "%.*s/", STR_ARG(dir)).ptr;
}

static struct config *config_new(const struct config_request *req)
{
    struct arena *arena = arena_new_large();
    struct config *config = ARENA_NEW(arena, struct config);
    struct str file = str_cstr(req->file);
    ssize_t slash = str_rchr(file, '/');

    config->arena = arena;
    config->prefix = with_slash(arena, str_cstr(req->prefix));
    config->file = str_z(arena, file);
    config->conf_prefix = slash < 0 ? config->prefix
                                    : str_z(arena, str_from(file.ptr, (size_t) slash + 1));
    config->details = req->details;
    config->old = req->old;
    config->testing = req->testing;
    config->explaining = req->explaining;
    config->offline = addr_offline = req->offline;
    config->report = req->report;
    list_init(&config->files);
    config->resources = resources_new(config);
    return config;
}

/* begin or post of all modules. */
static void run_hooks(struct conf *cf, bool begin)
{
    for (unsigned i = 0; modules[i]; i++) {
        int (*hook)(struct conf *cf) = begin ? modules[i]->begin : modules[i]->post;
        unsigned errors = cf->config->errors;

        cf->module = modules[i];
        cf->level = cf->config->main;
        if (hook && hook(cf) && cf->config->errors == errors)
            cf->config->errors++; /* the module has logged it in its own way */
    }
    cf->module = NULL;
    cf->level = cf->config->main;
}

static void read_all(struct conf *cf, const struct config_request *req)
{
    struct config *config = cf->config;
    const char *error;

    if (req->globals && req->globals[0])
        parse_globals(cf, req->globals);
    if (config->errors || conf_parser(cf)->stop)
        return;
    error = parse_file(cf, str_cstr(config->file));
    if (error)
        error_report(cf, (struct conf_pos){ NULL, 0, 0 }, error, NULL);
    if (config->errors)
        return;
    cf->nargs = 0;
    cf->pos = (struct conf_pos){ config->file, 0, 0 };
    inherit_all(cf);
    if (config->errors == 0)
        run_hooks(cf, false);
    counters_configure(cf);
    res_zones_check(cf);
}

struct config *config_read(const struct config_request *req, struct logger *log)
{
    struct config *config = config_new(req);
    struct parser parser = { 0 };
    struct conf cf = { .config = config, .arena = config->arena, .log = log, .parser = &parser };

    table_init(&parser.files, config->arena);
    config->main = conf_level(&cf, CTX_MAIN, NULL);
    config->main->pos = (struct conf_pos){ config->file, 0, 0 };
    cf.level = config->main;
    if (req->record)
        record_begin(&cf);
    run_hooks(&cf, true);
    if (config->errors == 0)
        read_all(&cf, req);
    config->details = NULL;
    if (config->errors) {
        config_free(config);
        return NULL;
    }
    return config;
}

void config_free(struct config *config)
{
    if (config)
        arena_destroy(config->arena);
}
