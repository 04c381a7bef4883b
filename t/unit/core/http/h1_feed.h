/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Feeds heads to the HTTP/1 parser in pieces and writes down what came out as text, so that two
 * ways of feeding can be compared. Every piece lies in fresh memory of exactly its size together
 * with what was not consumed before: reading past the end is seen by the sanitizer, and so is
 * keeping a pointer into an incomplete line. Shared by unit tests and fuzz targets.
 */
#ifndef T_UNIT_CORE_HTTP_H1_FEED_H
#define T_UNIT_CORE_HTTP_H1_FEED_H

#include <stdio.h>
#include <stdlib.h>

#include "core/base/arena.h"
#include "core/http/h1.h"

struct feed {
    struct h1_parser parser;
    struct msg msg;
    struct arena *arena;
    char **buffers; /* what the msg points into */
    unsigned count, capacity;
    char *pending;
    size_t pending_len;
    size_t consumed;
    unsigned skipped, hosts;
    enum h1_result result;
};

static inline void feed_on_invalid(struct h1_parser *p, struct str line)
{
    (void) line;
    ((struct feed *) p->data)->skipped++;
}

static inline void feed_on_host(struct h1_parser *p, struct str host)
{
    (void) host;
    ((struct feed *) p->data)->hosts++;
}

static inline void feed_init(struct feed *f, bool response)
{
    memset(f, 0, sizeof(*f));
    f->arena = arena_new();
    msg_init(&f->msg, f->arena, 4);
    h1_parser_init(&f->parser, &f->msg, response);
    f->parser.invalid = feed_on_invalid;
    f->parser.host = feed_on_host;
    f->parser.data = f;
}

static inline char *feed_buffer(struct feed *f, size_t len)
{
    char *p = malloc(len > 0 ? len : 1);

    if (f->count == f->capacity) {
        f->capacity = f->capacity * 2 + 16;
        f->buffers = realloc(f->buffers, f->capacity * sizeof(*f->buffers));
    }
    f->buffers[f->count++] = p;
    return p;
}

static inline enum h1_result feed_more(struct feed *f, const char *ptr, size_t len)
{
    size_t have = f->pending_len + len, used = 0, mark = f->consumed;
    char *buffer = feed_buffer(f, have);

    if (f->pending_len > 0)
        memcpy(buffer, f->pending, f->pending_len);
    if (len > 0)
        memcpy(buffer + f->pending_len, ptr, len);
    if (f->pending != NULL) {
        /* Nobody may look at where the incomplete line was. */
        memset(f->pending, 'Z', f->pending_len);
    }
    f->result = h1_parse(&f->parser, buffer, have, &used);
    f->consumed = mark + used;
    f->pending = buffer + used;
    f->pending_len = have - used;
    return f->result;
}

static inline void feed_free(struct feed *f)
{
    for (unsigned i = 0; i < f->count; i++)
        free(f->buffers[i]);
    free(f->buffers);
    arena_destroy(f->arena);
}

/* What came out, in the arena. After an error that is all that counts. */
static inline const char *feed_report(struct feed *f)
{
    const struct msg *m = &f->msg;
    const struct h1_parser *p = &f->parser;
    struct str s;

    if (f->result == H1_ERROR)
        return str_printf(f->arena, "error %d", (int) p->error).ptr;
    if (f->result == H1_MORE)
        return str_printf(f->arena, "more").ptr;
    s = str_printf(
        f->arena,
        "%u %u \"%.*s\" %.*s %u target=%.*s scheme=%.*s path=%.*s host=%.*s reason=%.*s length=%lld"
        " chunked=%d keep=%d upgrade=%d expect=%d consumed=%zu skipped=%u hosts=%u",
        m->version, (unsigned) m->method, STR_ARG(m->line), STR_ARG(m->method_name), m->status,
        STR_ARG(m->target), STR_ARG(p->scheme), STR_ARG(p->path), STR_ARG(p->host_value),
        STR_ARG(m->reason), (long long) m->content_length, m->chunked, m->keep_alive, m->upgrade,
        m->expect_continue, f->consumed, f->skipped, f->hosts);
    for (unsigned i = 0; i < m->fields.count; i++) {
        const struct field *item = &m->fields.items[i];

        s = str_printf(f->arena, "%.*s\n%.*s=%.*s/%u/%u", STR_ARG(s), STR_ARG(item->name),
                       STR_ARG(item->value), item->token, item->next);
    }
    return s.ptr;
}

#endif
