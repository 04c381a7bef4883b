/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formats of access logs: compiled to literals and variables, rendered into one growing buffer
 * of the process, with the values escaped so that a line stays a line.
 */
#include "modules/http/log.h"

#define GROWTH 6 /* "\u0000" for one byte */

static char *line;
static size_t line_size;

/* Compiling --------------------------------------------------------------------------------------- */

static struct log_segment *add(struct conf *cf, struct log_format *f)
{
    f->segments = arena_grow(cf->arena, f->segments, f->count, &f->capacity, sizeof(*f->segments));
    memset(&f->segments[f->count], 0, sizeof(*f->segments));
    return &f->segments[f->count++];
}

/* Strings of one log_format join without anything between them, so literals may too. */
static void add_literal(struct conf *cf, struct log_format *f, struct str text)
{
    struct log_segment *last = f->count ? &f->segments[f->count - 1] : NULL;

    if (text.len == 0)
        return;
    if (last != NULL && last->var == NULL)
        last->text = str_printf(cf->arena, "%.*s%.*s", STR_ARG(last->text), STR_ARG(text));
    else
        add(cf, f)->text = str_dup(cf->arena, text);
}

/* The variable behind a "$"; *rest is what follows it. */
static const char *add_variable(struct conf *cf, struct log_format *f, struct str *rest)
{
    struct str name;
    const char *error = var_take_name(cf, rest, &name);

    if (error != NULL)
        return error;
    if (name.len == 0)
        return "invalid parameter \"$\"";
    add(cf, f)->var = var_refer(cf, conf_var_space(cf), name);
    return NULL;
}

const char *log_format_compile(struct conf *cf, struct log_format *format, struct str text)
{
    while (text.len > 0) {
        ssize_t dollar = str_chr(text, '$');
        const char *error;

        if (dollar != 0) {
            struct str literal = str_from(text.ptr, dollar < 0 ? text.len : (size_t) dollar);

            add_literal(cf, format, literal);
            text = str_skip(text, literal.len);
            continue;
        }
        text = str_skip(text, 1);
        error = add_variable(cf, format, &text);
        if (error != NULL)
            return error;
    }
    return NULL;
}

/* Escaping ---------------------------------------------------------------------------------------- */

static const char hex[] = "0123456789ABCDEF";

/* Bytes that would end a quoted value, a line, or be obeyed by a terminal: as \xXX. */
static char *escape_default(char *p, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];

        if (likely(c >= 0x20 && c < 0x7f && c != '"' && c != '\\')) {
            *p++ = (char) c;
            continue;
        }
        *p++ = '\\';
        *p++ = 'x';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 15];
    }
    return p;
}

static char json_letter(unsigned char c)
{
    switch (c) {
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '"':
    case '\\':
        return (char) c;
    default:
        return 0;
    }
}

/* RFC 8259, 7. Bytes above 0x7f stay: they are UTF-8 or were not to begin with. */
static char *escape_json(char *p, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];
        char letter;

        if (likely(c >= 0x20 && c != '"' && c != '\\')) {
            *p++ = (char) c;
            continue;
        }
        *p++ = '\\';
        letter = json_letter(c);
        if (letter != 0) {
            *p++ = letter;
            continue;
        }
        memcpy(p, "u00", 3);
        p += 3;
        *p++ = hex[c >> 4];
        *p++ = hex[c & 15];
    }
    return p;
}

char *log_escape(char *p, struct str s, enum log_escape how)
{
    switch (how) {
    case ESCAPE_DEFAULT:
        return escape_default(p, s);
    case ESCAPE_JSON:
        return escape_json(p, s);
    case ESCAPE_NONE:
        break;
    }
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return p + s.len;
}

/* Rendering --------------------------------------------------------------------------------------- */

/* Room for n more bytes at p. */
static char *reserve(char *p, size_t n)
{
    size_t used = line ? (size_t) (p - line) : 0;

    if (likely(line_size - used >= n))
        return p;
    line_size = MAX(line_size * 2, used + n + 1024);
    line = mem_realloc(line, line_size);
    return line + used;
}

struct str log_format_line(struct req *r, const struct log_format *format, bool line_feed)
{
    char *p = reserve(line, 1);

    for (unsigned i = 0; i < format->count; i++) {
        const struct log_segment *seg = &format->segments[i];
        struct str value;

        if (seg->var == NULL) {
            p = reserve(p, seg->text.len + 1);
            memcpy(p, seg->text.ptr, seg->text.len);
            p += seg->text.len;
        } else if (var_value(&r->eval, seg->var, &value)) {
            p = reserve(p, value.len * GROWTH + 1);
            p = log_escape(p, value, format->escape);
        } else if (format->escape == ESCAPE_DEFAULT) {
            p = reserve(p, 2);
            *p++ = '-';
        }
    }
    if (line_feed)
        *p++ = '\n';
    return str_from(line, (size_t) (p - line));
}

void log_format_free(void)
{
    free(line);
    line = NULL;
    line_size = 0;
}
