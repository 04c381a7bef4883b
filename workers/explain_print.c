/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The steps that --explain has collected, for people: what, how, and the line of the configuration.
 */
#include <stdio.h>

#include "core/base/json.h"
#include "workers/explain_steps.h"

#define WHAT_WIDTH 13
#define TEXT_WIDTH_MAX 64 /* places stand further to the right only behind longer texts */

int explain_fail(struct explanation *e, const char *sentence)
{
    e->error = sentence;
    fprintf(stderr, "proxyd: %s\n", sentence);
    return -1;
}

void explain_replace(struct explanation *e, struct explain_step *s, struct str what,
                     struct str text, struct conf_pos pos)
{
    s->what = str_dup(e->arena, what);
    s->text = str_dup(e->arena, text);
    s->pos = pos;
}

void explain_add(struct explanation *e, unsigned request, struct str what, struct str text,
                 struct conf_pos pos)
{
    struct explain_step *s = ARENA_NEW(e->arena, struct explain_step);

    s->request = request;
    explain_replace(e, s, what, text, pos);
    if (e->last != NULL)
        e->last->next = s;
    else
        e->first = s;
    e->last = s;
}

/* What came from the URL may hold anything: a terminal is not to take it for commands. */
static struct str readable(struct arena *arena, struct str s)
{
    static const char digits[] = "0123456789abcdef";
    char *buf = arena_bytes(arena, 4 * s.len + 1), *p = buf;

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];

        if (c >= ' ' && c != 0x7f) {
            *p++ = (char) c;
            continue;
        }
        *p++ = '\\';
        *p++ = 'x';
        *p++ = digits[c >> 4];
        *p++ = digits[c & 15];
    }
    return str_from(buf, (size_t) (p - buf));
}

/* Files beside the configuration's own are named from there. */
static const char *short_file(const struct explanation *e, const char *file)
{
    size_t n = strlen(e->config->conf_prefix);

    return strncmp(file, e->config->conf_prefix, n) == 0 ? file + n : file;
}

static void print_step(const struct explanation *e, const struct explain_step *s, bool same,
                       size_t width)
{
    struct str text = readable(e->arena, s->text);
    char number[16] = "";
    int n = 0;

    /* Several subrequests may be under way at the same time. */
    if (s->request > 0)
        n = snprintf(number, sizeof(number), "#%u ", s->request);
    /* "what" once for steps of a kind that follow each other. */
    printf("  %s%-*.*s ", number, WHAT_WIDTH - n, same ? 0 : (int) s->what.len, s->what.ptr);
    if (s->pos.file == NULL)
        printf("%.*s\n", STR_ARG(text));
    else
        printf("%-*.*s  %s:%u\n", (int) width, STR_ARG(text), short_file(e, s->pos.file),
               s->pos.line);
}

static size_t text_width(const struct explanation *e)
{
    size_t width = 0;

    for (const struct explain_step *s = e->first; s != NULL; s = s->next) {
        size_t n = readable(e->arena, s->text).len;

        if (s->pos.file != NULL && n <= TEXT_WIDTH_MAX)
            width = MAX(width, n);
    }
    return width;
}

int explain_print(const struct explanation *e)
{
    const struct explain_step *before = NULL;
    size_t width = text_width(e);

    printf("%.*s %s\n", STR_ARG(e->method), e->url);
    for (const struct explain_step *s = e->first; s != NULL; before = s, s = s->next)
        print_step(e, s,
                   before != NULL && before->request == s->request && str_eq(before->what, s->what),
                   width);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -1;
}

/* JSON ----------------------------------------------------------------------------------------- */

static void json_step(struct json *j, const struct explain_step *s)
{
    json_object(j);
    json_put_u64(j, "request", s->request);
    json_put_str(j, "what", s->what);
    json_put_str(j, "text", s->text);
    json_put_str(j, "file", s->pos.file != NULL ? str_cstr(s->pos.file) : STR_NULL);
    json_key(j, "line");
    if (s->pos.file != NULL)
        json_u64(j, s->pos.line);
    else
        json_null(j);
    json_end(j);
}

int explain_print_json(const struct explanation *e)
{
    struct json j;
    struct str text;

    json_init(&j, e->arena);
    json_object(&j);
    json_put_bool(&j, "ok", e->error == NULL);
    json_put_str(&j, "method", e->method);
    json_put_str(&j, "url", str_cstr(e->url));
    if (e->error != NULL)
        json_put_str(&j, "error", str_cstr(e->error));
    json_key(&j, "steps");
    json_array(&j);
    for (const struct explain_step *s = e->first; s != NULL; s = s->next)
        json_step(&j, s);
    json_end(&j);
    json_key(&j, "status");
    if (e->status != 0 && !e->upstream)
        json_u64(&j, e->status);
    else
        json_null(&j);
    json_put_bool(&j, "upstream", e->upstream);
    json_end(&j);
    text = json_text(&j);
    printf("%.*s\n", STR_ARG(text));
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -1;
}
