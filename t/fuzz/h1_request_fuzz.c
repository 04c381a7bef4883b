/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: heads of requests. The first two bytes choose settings and how the rest is cut. The
 * outcome must not depend on the cuts or the scanner; what is accepted must be free of anything
 * that the next server could read otherwise, and must come out the same when it is written down and
 * parsed again.
 */
#include "t/unit/core/http/h1_feed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void settings(struct h1_parser *p, unsigned bits)
{
    p->ignore_invalid = bits & 1;
    p->underscores = bits & 2;
    p->allow_connect = p->allow_trace = bits & 4;
    if (bits & 8) {
        p->line_max = 40;
        p->field_max = 30;
        p->fields_max = 5;
    }
}

static void run(struct feed *f, unsigned bits, const char *ptr, size_t len, size_t step)
{
    feed_init(f, false);
    settings(&f->parser, bits);
    f->result = H1_MORE;
    for (size_t at = 0; at < len && f->result == H1_MORE; at += step)
        feed_more(f, ptr + at, MIN(step, len - at));
}

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void check_message(struct feed *f)
{
    struct msg *m = &f->msg;
    struct str path = f->parser.path;
    unsigned hosts = 0;

    check(path.len == 0 || path.ptr[0] == '/' || path.ptr[0] == '*', "the path's first byte");
    check(!m->chunked || m->content_length < 0, "two framings");
    for (unsigned i = 0; i < m->fields.count; i++) {
        struct field *item = &m->fields.items[i];

        check(is_token(item->name) && is_field_value(item->value), "a field that is none");
        check(item->value.len == 0 || (item->value.ptr[0] != ' ' && item->value.ptr[0] != '\t'),
              "not trimmed");
        hosts += item->token == T_HOST;
    }
    check(hosts <= 1 && (hosts == 1 || m->version < HTTP_11), "how many Hosts");
}

/* What is written down from the parts means the same. */
static void check_again(struct feed *f, unsigned bits)
{
    struct msg *m = &f->msg;
    struct str s = str_printf(f->arena, "%.*s %.*s HTTP/1.%u\r\n", STR_ARG(m->method_name),
                              STR_ARG(m->target), m->version - HTTP_10);
    struct feed g;

    for (unsigned i = 0; i < m->fields.count; i++)
        s = str_printf(f->arena, "%.*s%.*s: %.*s\r\n", STR_ARG(s), STR_ARG(m->fields.items[i].name),
                       STR_ARG(m->fields.items[i].value));
    s = str_printf(f->arena, "%.*s\r\n", STR_ARG(s));
    run(&g, bits & ~8u, s.ptr, s.len, s.len);
    check(g.result == H1_DONE && g.pending_len == 0, "not a request any more");
    check(g.msg.fields.count == m->fields.count && g.msg.chunked == m->chunked &&
              g.msg.content_length == m->content_length && g.msg.keep_alive == m->keep_alive &&
              str_eq(g.parser.path, f->parser.path) &&
              str_eq(g.parser.host_value, f->parser.host_value),
          "another request");
    feed_free(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed whole, cut;
    struct uri_parts uri;
    struct str host;
    unsigned port;

    if (size < 2 || size > 20000)
        return 0;
    scan_use(SCAN_PORTABLE);
    run(&whole, data[0], (const char *) data + 2, size - 2, size);
    scan_use(SCAN_BEST);
    run(&cut, data[0], (const char *) data + 2, size - 2, data[1] + 1 + size / 500);
    check(strcmp(feed_report(&whole), feed_report(&cut)) == 0, "it matters how it is cut");
    if (whole.result == H1_DONE) {
        check_message(&whole);
        if (whole.msg.version != HTTP_09)
            check_again(&whole, data[0]);
        uri_normalize(whole.arena, whole.parser.path, true, &uri);
        if (whole.parser.host_value.ptr != NULL)
            check(h1_host_normalize(whole.arena, whole.parser.host_value, &host, &port) == 0,
                  "the host");
    }
    feed_free(&whole);
    feed_free(&cut);
    arena_trim();
    return 0;
}
