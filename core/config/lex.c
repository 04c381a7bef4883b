/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lexer: nginx's words. A word ends at a blank, ";" or "{" (but not at the "{" of "${"); quotes
 * count only at its start; a backslash takes the next byte along and is dropped before quotes
 * and itself, while \t \r \n become what they mean; everything else keeps its backslash. Behind
 * a closing quote only a blank, ";", "{" or ")" may stand. Called by the parser alone; reports
 * nothing itself.
 */
#include "core/config/parse.h"

void lex_init(struct lexer *lx, struct arena *arena, char *text, size_t len, const char *file)
{
    *lx = (struct lexer){
        .p = text,
        .end = text + len,
        .line_start = text,
        .line = 1,
        .file = file,
        .arena = arena,
        .held = LEX_WORD,
    };
}

static struct conf_pos pos_here(const struct lexer *lx, const char *p)
{
    return (struct conf_pos){ lx->file, lx->line, (unsigned) (p - lx->line_start) + 1 };
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void newline(struct lexer *lx, char *p)
{
    lx->line++;
    lx->line_start = p + 1;
}

/* Over blanks and comments. */
static void skip_blanks(struct lexer *lx)
{
    for (; lx->p < lx->end; lx->p++) {
        char c = *lx->p;

        if (c == '#') {
            char *nl = memchr(lx->p, '\n', (size_t) (lx->end - lx->p));

            lx->p = nl ? nl : lx->end;
            if (nl == NULL)
                return;
            c = '\n';
        }
        if (c == '\n')
            newline(lx, lx->p);
        else if (!is_blank(c))
            return;
    }
}

static enum lex_kind bad(struct lexer *lx, struct token *t, char *at, struct str sentence)
{
    t->kind = LEX_BAD;
    t->pos = pos_here(lx, at);
    t->text = sentence;
    return LEX_BAD;
}

static enum lex_kind bad_byte(struct lexer *lx, struct token *t, char *at)
{
    if (*at == '\0')
        return bad(lx, t, at, STR("unexpected NUL byte"));
    return bad(lx, t, at, str_printf(lx->arena, "unexpected \"%c\"", *at));
}

/* What a backslash and the byte behind it stand for: *out gets 1 or 2 bytes. */
static char *unescape(char *out, char c)
{
    switch (c) {
    case '"':
    case '\'':
    case '\\': *out++ = c; break;
    case 't': *out++ = '\t'; break;
    case 'r': *out++ = '\r'; break;
    case 'n': *out++ = '\n'; break;
    default:
        *out++ = '\\';
        *out++ = c;
    }
    return out;
}

/* The text of a word, moved to the front over dropped backslashes. Its bytes end at `end`. */
static void take(struct token *t, char *start, char *out)
{
    *out = '\0';
    t->kind = LEX_WORD;
    t->text = str_from(start, (size_t) (out - start));
}

static enum lex_kind lex_quoted(struct lexer *lx, struct token *t)
{
    char quote = *lx->p;
    char *open = lx->p, *start = open + 1, *out = start, *p = start;

    t->pos = pos_here(lx, open);
    for (; p < lx->end && *p != quote; p++) {
        if (*p == '\n')
            newline(lx, p);
        if (*p == '\0')
            break;
        if (*p == '\\' && p + 1 < lx->end && p[1] != '\0') {
            p++;
            if (*p == '\n')
                newline(lx, p);
            out = unescape(out, *p);
        } else {
            *out++ = *p;
        }
        if (out - start > CONF_WORD_MAX) {
            lx->p = p + 1;
            return bad(lx, t, p, str_printf(lx->arena, "too long parameter, probably missing "
                                            "terminating \"%c\" character", quote));
        }
    }
    lx->p = p;
    if (p >= lx->end) {
        t->opened = t->pos.line;
        t->kind = LEX_END;
        t->pos = pos_here(lx, p);
        return LEX_END;
    }
    if (*p == '\0') {
        lx->p++;
        return bad_byte(lx, t, p);
    }
    lx->p++;
    if (lx->p < lx->end && !is_blank(*lx->p) && strchr(";{)", *lx->p) == NULL)
        return bad_byte(lx, t, lx->p);
    /*
     * out is at most the closing quote, so that the NUL overwrites nothing that is still to be
     * read.
     */
    take(t, start, out);
    t->quoted = true;
    return LEX_WORD;
}

static enum lex_kind lex_plain(struct lexer *lx, struct token *t)
{
    char *start = lx->p, *out = start, *p = start;
    bool dollar = false;

    t->pos = pos_here(lx, start);
    for (; p < lx->end; p++) {
        char c = *p;

        if (c == '{' && dollar) {
            dollar = false;
            *out++ = c;
            continue;
        }
        if (c == ';' || c == '{' || c == '\0' || is_blank(c))
            break;
        dollar = c == '$';
        if (c == '\\' && p + 1 < lx->end && p[1] != '\0') {
            p++;
            if (*p == '\n')
                newline(lx, p);
            out = unescape(out, *p);
        } else {
            *out++ = c;
        }
        if (out - start > CONF_WORD_MAX) {
            lx->p = p + 1;
            return bad(lx, t, start,
                str_printf(lx->arena, "too long parameter \"%.10s...\" started", start));
        }
    }
    lx->p = p;
    if (p < lx->end) {
        /* The byte that ends the word gives its place to the NUL: it is remembered instead. */
        if (*p == '\0') {
            lx->p++;
            return bad_byte(lx, t, p);
        }
        if (*p == ';' || *p == '{') {
            lx->held = *p == ';' ? LEX_SEMICOLON : LEX_OPEN;
            lx->held_pos = pos_here(lx, p);
        } else if (*p == '\n') {
            newline(lx, p);
        }
        lx->p++;
    }
    take(t, start, out);
    return LEX_WORD;
}

enum lex_kind lex_next(struct lexer *lx, struct token *t)
{
    t->text = STR_NULL;
    t->opened = 0;
    t->quoted = false;
    if (lx->held != LEX_WORD) {
        t->kind = lx->held;
        t->pos = lx->held_pos;
        lx->held = LEX_WORD;
        return t->kind;
    }
    skip_blanks(lx);
    t->pos = pos_here(lx, lx->p);
    if (lx->p >= lx->end)
        return t->kind = LEX_END;
    switch (*lx->p) {
    case ';': t->kind = LEX_SEMICOLON; break;
    case '{': t->kind = LEX_OPEN; break;
    case '}': t->kind = LEX_CLOSE; break;
    case '"':
    case '\'': return lex_quoted(lx, t);
    case '\0': lx->p++; return bad_byte(lx, t, lx->p - 1);
    default: return lex_plain(lx, t);
    }
    lx->p++;
    return t->kind;
}

/* Over a quoted string that begins at p; the last byte of it, or the end. */
static char *raw_string(struct lexer *lx, char *p)
{
    char quote = *p;

    for (p++; p < lx->end && *p != quote; p++) {
        if (*p == '\\' && p + 1 < lx->end)
            p++;
        if (*p == '\n')
            newline(lx, p);
    }
    return p;
}

int lex_raw_block(struct lexer *lx, struct str *out)
{
    unsigned depth = 1;
    char *start = lx->p, *p;

    for (p = start; p < lx->end; p++) {
        if (*p == '\n')
            newline(lx, p);
        else if (*p == '"' || *p == '\'')
            p = raw_string(lx, p);
        else if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0)
            break;
    }
    if (p >= lx->end) {
        lx->p = lx->end;
        return -1;
    }
    *p = '\0';
    lx->p = p + 1;
    *out = str_from(start, (size_t) (p - start));
    return 0;
}
