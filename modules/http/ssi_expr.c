/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What stands in the parameters of server side includes. A backslash takes the meaning off a
 * following backslash, quote or "$" and vanishes; before any other sign it stays.
 */
#include "modules/http/ssi_expr.h"

#include <stdlib.h>

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

void ssi_scope_free(struct ssi_scope *s)
{
    free(s->left.ptr);
    free(s->right.ptr);
    s->left = s->right = (struct ssi_buf){ NULL, 0, 0 };
}

/* False: it would become too long. */
static bool put(struct ssi_buf *b, struct str s)
{
    if (s.len > SSI_RESULT_MAX - b->len)
        return false;
    if (s.len > b->size - b->len) {
        size_t size = MAX(MAX(b->size * 2, b->len + s.len), (size_t) 256);
        char *ptr = mem_alloc(size);

        if (b->len > 0)
            memcpy(ptr, b->ptr, b->len);
        free(b->ptr);
        b->ptr = ptr;
        b->size = size;
    }
    if (s.len > 0)
        memcpy(b->ptr + b->len, s.ptr, s.len);
    b->len += s.len;
    return true;
}

/* The name behind a "$" at the front of *rest. 0, or -1: logged. */
static int take_name(const struct ssi_scope *s, struct str text, struct str *rest, struct str *name)
{
    bool bracket = rest->len > 0 && rest->ptr[0] == '{';
    size_t n = 0;

    if (bracket)
        *rest = str_skip(*rest, 1);
    while (n < rest->len && is_name(rest->ptr[n]))
        n++;
    *name = str_from(rest->ptr, n);
    if (bracket && rest->len > 0 && (n == rest->len || rest->ptr[n] != '}')) {
        log_error(s->log, 0, "the closing bracket in \"%.*s\" variable is missing", STR_ARG(*name));
        return -1;
    }
    if (n == 0) {
        log_error(s->log, 0, "invalid variable name in \"%.*s\"", STR_ARG(text));
        return -1;
    }
    *rest = str_skip(*rest, n + (bracket ? 1 : 0));
    return 0;
}

/* Literal text up to a "$" that means something. False: too long. */
static bool take_text(struct ssi_buf *out, struct str *rest)
{
    size_t i = 0;

    while (i < rest->len && rest->ptr[i] != '$') {
        size_t from = i;
        bool quoted = false;

        if (rest->ptr[i] == '\\') {
            if (++i == rest->len)
                break;
            quoted = strchr("\\'\"$", rest->ptr[i]) != NULL && rest->ptr[i] != '\0';
        }
        i++;
        if (quoted)
            from++;
        else
            while (i < rest->len && rest->ptr[i] != '$' && rest->ptr[i] != '\\')
                i++;
        if (!put(out, str_from(rest->ptr + from, i - from)))
            return false;
    }
    *rest = str_skip(*rest, i);
    return true;
}

static int expand(const struct ssi_scope *s, struct str text, struct ssi_buf *out)
{
    struct str rest = text;
    bool fits = true;

    while (rest.len > 0 && fits) {
        struct str name, value;

        if (rest.ptr[0] != '$') {
            fits = take_text(out, &rest);
            continue;
        }
        rest = str_skip(rest, 1);
        if (take_name(s, text, &rest, &name) != 0)
            return -1;
        if (s->lookup(s->data, name, &value))
            fits = put(out, value);
    }
    if (!fits)
        log_error(s->log, 0, "too long value of \"%.*s\"", STR_ARG(text));
    return fits ? 0 : -1;
}

int ssi_evaluate(struct ssi_scope *s, struct str text, unsigned flags, struct str *out)
{
    struct ssi_buf *b = &s->right;
    size_t prefix = 0;

    b->len = 0;
    if (flags & SSI_RELATIVE) {
        prefix = (size_t) (str_rchr(s->uri, '/') + 1);
        put(b, str_from(s->uri.ptr, prefix));
    }
    if (expand(s, text, b) != 0)
        return -1;
    *out = b->len > 0 ? str_from(b->ptr, b->len) : STR("");
    if (prefix > 0 && b->len > prefix && b->ptr[prefix] == '/')
        *out = str_skip(*out, prefix);
    return 0;
}

/* Conditions ---------------------------------------------------------------------------------- */

/* The pattern is compiled for this once: its memory ends with the call. */
static int match(const struct ssi_scope *s, struct str subject, struct str pattern)
{
    struct arena *arena = arena_new();
    struct regex_match m;
    struct str error;
    struct regex *re = regex_compile(arena, str_dup(arena, pattern), false, &error);
    int rc = -1;

    if (re == NULL)
        log_error(s->log, 0, "%.*s", STR_ARG(error));
    else if ((rc = regex_exec(re, subject, &m)) < 0)
        log_alert(s->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(), STR_ARG(subject),
                  STR_ARG(pattern));
    else if (rc > 0)
        s->matched(s->data, re, &m, subject);
    arena_destroy(arena);
    return rc;
}

/* What is compared with: "$name", "word". In lower case. */
static struct str take_left(struct ssi_buf *room, struct str *rest)
{
    size_t n = 0;

    while (n < rest->len && (is_name(rest->ptr[n]) || strchr("${}\"'", rest->ptr[n]) != NULL) &&
           rest->ptr[n] != '\0') {
        char c = (char) ascii_lower((unsigned char) rest->ptr[n]);

        put(room, str_from(&c, 1));
        n++;
    }
    *rest = str_skip(*rest, n);
    return str_from(room->ptr, n);
}

static void skip_blanks(struct str *rest)
{
    while (rest->len > 0 && rest->ptr[0] == ' ')
        *rest = str_skip(*rest, 1);
}

static int malformed(const struct ssi_scope *s, struct str text)
{
    log_error(s->log, 0, "invalid expression in \"%.*s\"", STR_ARG(text));
    return -1;
}

int ssi_condition(struct ssi_scope *s, struct str text)
{
    struct str rest = text, left, right;
    bool negative, pattern = false;
    int rc;

    /* The name first, then what stands for it: both in s->left. */
    s->left.len = 0;
    left = take_left(&s->left, &rest);
    skip_blanks(&rest);
    if (ssi_evaluate(s, left, 0, &right) != 0)
        return -1;
    s->left.len = 0;
    if (!put(&s->left, right))
        return -1;
    left = s->left.len > 0 ? str_from(s->left.ptr, s->left.len) : STR("");
    if (rest.len == 0)
        return left.len > 0;

    negative = str_starts(rest, STR("!="));
    if (!negative && rest.ptr[0] != '=')
        return malformed(s, text);
    rest = str_skip(rest, negative ? 2 : 1);
    skip_blanks(&rest);
    if (rest.len > 1 && rest.ptr[0] == '/') {
        if (rest.ptr[rest.len - 1] != '/')
            return malformed(s, text);
        pattern = true;
        rest = str_from(rest.ptr + 1, rest.len - 2);
    } else if (str_starts(rest, STR("\\/"))) {
        rest = str_skip(rest, 1);
    }
    if (ssi_evaluate(s, rest, 0, &right) != 0)
        return -1;
    rc = pattern ? match(s, left, right) : str_eq(left, right);
    return rc < 0 ? rc : (rc > 0) != negative;
}
