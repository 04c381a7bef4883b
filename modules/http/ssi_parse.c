/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of server side includes: one step a byte within a command, a search between them.
 * What is wrong with a command is logged where it is noticed; the rest of it, up to "-->", is
 * skipped.
 */
#include "modules/http/ssi_parse.h"

#define OPENING_LEN (sizeof(SSI_OPENING) - 1)

enum state {
    IN_TEXT,
    BEFORE_COMMAND,
    IN_COMMAND,
    BEFORE_PARAM,
    IN_PARAM,
    BEFORE_EQUAL,
    BEFORE_VALUE,
    IN_DOUBLE_QUOTES,
    IN_SINGLE_QUOTES,
    AFTER_BACKSLASH,
    AFTER_VALUE,
    END_1, /* "-" */
    END_2, /* "--" */
    SKIP,
    SKIP_END_1,
    SKIP_END_2,
};

struct search *ssi_opening(struct arena *arena)
{
    struct search *s = ARENA_NEW(arena, struct search);
    struct str *string = ARENA_NEW(arena, struct str);

    *string = STR(SSI_OPENING);
    search_init(s, arena, string, 1);
    return s;
}

/* Text ---------------------------------------------------------------------------------------- */

/* Returns true when the piece has come to a command; *used tells where. */
static bool find_command(struct ssi_parser *p, struct str piece, size_t *used,
                         struct ssi_text *text)
{
    unsigned before = p->matched;
    size_t at = 0;
    int which;

    while (p->matched > 0 && at < piece.len && piece.ptr[at] == SSI_OPENING[p->matched]) {
        at++;
        if (++p->matched == OPENING_LEN) {
            p->matched = 0;
            *used = at;
            return true;
        }
    }
    *used = piece.len;
    if (p->matched > 0 && at == piece.len)
        return false;
    p->matched = 0;
    text->opening = before;
    text->len = search_find(p->opening, piece, at, piece.len, false, NULL, &which);
    if (which == SEARCH_MORE)
        p->matched = (unsigned) (piece.len - text->len);
    if (which < 0)
        return false;
    *used = text->len + OPENING_LEN;
    return true;
}

unsigned ssi_parse_end(struct ssi_parser *p)
{
    unsigned n = p->matched;

    p->matched = 0;
    p->state = IN_TEXT;
    return n;
}

/* Commands ------------------------------------------------------------------------------------ */

static void put(struct ssi_parser *p, char c)
{
    if (p->len == p->size) {
        size_t size = MAX(p->size * 2, (size_t) 256);
        char *buf = arena_bytes(p->arena, size);

        if (p->len > 0)
            memcpy(buf, p->buf, p->len);
        p->buf = buf;
        p->size = size;
    }
    p->buf[p->len++] = c;
}

/* The parameter under way. Those that are too many share the last place. */
static struct ssi_place *place(struct ssi_parser *p)
{
    return &p->places[MIN(p->param_count, SSI_PARAMS_MAX + 1u) - 1];
}

static struct str command_name(const struct ssi_parser *p)
{
    return str_from(p->buf, p->command_len);
}

static struct str param_name(struct ssi_parser *p)
{
    return str_from(p->buf + place(p)->name, place(p)->name_len);
}

static struct str param_value(struct ssi_parser *p)
{
    return str_from(p->buf + place(p)->value, place(p)->value_len);
}

static void begin_param(struct ssi_parser *p, char c)
{
    if (p->param_count > SSI_PARAMS_MAX)
        p->len = p->places[SSI_PARAMS_MAX].name;
    p->param_count++;
    *place(p) = (struct ssi_place){ .name = p->len, .name_len = 1 };
    put(p, c);
}

/* A sign that does not belong there; a '-' may begin the end. */
static unsigned skip_from(char c)
{
    return c == '-' ? SKIP_END_1 : SKIP;
}

static unsigned command_byte(struct ssi_parser *p, char c)
{
    if (p->command_len == SSI_NAME_MAX) {
        log_error(p->log, 0, "the \"%.*s%c...\" SSI command is too long", STR_ARG(command_name(p)),
                  c);
        return SKIP;
    }
    put(p, c);
    p->command_len++;
    return IN_COMMAND;
}

static unsigned param_byte(struct ssi_parser *p, char c)
{
    if (place(p)->name_len == SSI_NAME_MAX) {
        log_error(p->log, 0, "too long \"%.*s%c...\" parameter in \"%.*s\" SSI command",
                  STR_ARG(param_name(p)), c, STR_ARG(command_name(p)));
        return SKIP;
    }
    put(p, c);
    place(p)->name_len++;
    return IN_PARAM;
}

static unsigned value_byte(struct ssi_parser *p, char c, unsigned next)
{
    if (place(p)->value_len == p->value_max) {
        log_error(p->log, 0,
                  "too long \"%.*s%c...\" value of \"%.*s\" parameter in \"%.*s\" SSI command",
                  STR_ARG(param_value(p)), c, STR_ARG(param_name(p)), STR_ARG(command_name(p)));
        return SKIP;
    }
    put(p, c);
    place(p)->value_len++;
    return next;
}

static unsigned begin_value(struct ssi_parser *p, char quote)
{
    place(p)->value = p->len;
    place(p)->quote = quote;
    return quote == '"' ? IN_DOUBLE_QUOTES : IN_SINGLE_QUOTES;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\r' || c == '\n' || c == '\t';
}

/* Up to the value of a parameter. */
static unsigned step_names(struct ssi_parser *p, char c)
{
    switch (p->state) {
    case BEFORE_COMMAND:
        if (is_space(c))
            return BEFORE_COMMAND;
        p->len = p->command_len = p->param_count = 0;
        return command_byte(p, c);
    case IN_COMMAND: return is_space(c) ? BEFORE_PARAM : c == '-' ? END_1 : command_byte(p, c);
    case BEFORE_PARAM:
        if (is_space(c))
            return BEFORE_PARAM;
        if (c == '-')
            return END_1;
        begin_param(p, c);
        return IN_PARAM;
    case IN_PARAM:
        if (is_space(c))
            return BEFORE_EQUAL;
        if (c == '=')
            return BEFORE_VALUE;
        if (c != '-')
            return param_byte(p, c);
        break;
    case BEFORE_EQUAL:
        if (is_space(c))
            return BEFORE_EQUAL;
        if (c == '=')
            return BEFORE_VALUE;
        break;
    default: break;
    }
    log_error(p->log, 0,
              "unexpected \"%c\" symbol after \"%.*s\" parameter in \"%.*s\" SSI command", c,
              STR_ARG(param_name(p)), STR_ARG(command_name(p)));
    return skip_from(c);
}

static unsigned step_value(struct ssi_parser *p, char c)
{
    unsigned next;

    switch (p->state) {
    case BEFORE_VALUE:
        if (is_space(c))
            return BEFORE_VALUE;
        if (c == '"' || c == '\'')
            return begin_value(p, c);
        log_error(
            p->log, 0,
            "unexpected \"%c\" symbol before value of \"%.*s\" parameter in \"%.*s\" SSI command",
            c, STR_ARG(param_name(p)), STR_ARG(command_name(p)));
        return skip_from(c);
    case IN_DOUBLE_QUOTES:
    case IN_SINGLE_QUOTES:
        if (c == place(p)->quote)
            return AFTER_VALUE;
        p->quoted_state = p->state;
        next = c == '\\' ? (unsigned) AFTER_BACKSLASH : p->state;
        return value_byte(p, c, next);
    case AFTER_BACKSLASH: return value_byte(p, c, p->quoted_state);
    default: break;
    }
    if (is_space(c))
        return BEFORE_PARAM;
    if (c == '-')
        return END_1;
    log_error(
        p->log, 0,
        "unexpected \"%c\" symbol after \"%.*s\" value of \"%.*s\" parameter in \"%.*s\" SSI command",
        c, STR_ARG(param_value(p)), STR_ARG(param_name(p)), STR_ARG(command_name(p)));
    return SKIP;
}

/* From the first '-' on. IN_TEXT: the command is complete. */
static unsigned step_end(struct ssi_parser *p, char c)
{
    switch (p->state) {
    case END_1:
        if (c == '-')
            return END_2;
        break;
    case END_2:
        if (c == '>')
            return IN_TEXT;
        break;
    case SKIP: return skip_from(c);
    case SKIP_END_1: return c == '-' ? SKIP_END_2 : SKIP;
    default: return c == '>' ? IN_TEXT : SKIP;
    }
    log_error(p->log, 0, "unexpected \"%c\" symbol in \"%.*s\" SSI command", c,
              STR_ARG(command_name(p)));
    return SKIP;
}

static void complete(struct ssi_parser *p)
{
    p->command = command_name(p);
    for (unsigned i = 0; i < MIN(p->param_count, (unsigned) SSI_PARAMS_MAX); i++) {
        const struct ssi_place *at = &p->places[i];

        p->params[i].name = str_from(p->buf + at->name, at->name_len);
        p->params[i].value = str_from(p->buf + at->value, at->value_len);
        p->params[i].quote = at->quote;
    }
}

enum ssi_event ssi_parse(struct ssi_parser *p, struct str piece, size_t *used,
                         struct ssi_text *text)
{
    *text = (struct ssi_text){ 0, 0 };
    *used = 0;
    if (p->state == IN_TEXT) {
        if (find_command(p, piece, used, text))
            p->state = BEFORE_COMMAND;
        if (text->opening > 0 || text->len > 0)
            return SSI_TEXT;
    }
    while (*used < piece.len) {
        char c = piece.ptr[(*used)++];
        bool broken = p->state >= SKIP;

        p->state = p->state >= END_1          ? step_end(p, c)
                   : p->state >= BEFORE_VALUE ? step_value(p, c)
                                              : step_names(p, c);
        if (p->state != IN_TEXT)
            continue;
        if (broken)
            return SSI_BROKEN;
        complete(p);
        return SSI_COMMAND;
    }
    return SSI_MORE;
}
