/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: heads of responses, cut as the first byte says. The outcome must not depend on the
 * cuts; what is accepted goes through the writer, into memory of the promised size, and must come
 * back the same.
 */
#include "t/unit/core/http/h1_feed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(struct feed *f, unsigned bits, const char *ptr, size_t len, size_t step)
{
    feed_init(f, true);
    f->parser.head_request = bits & 1;
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

/* Fields that the writer leaves to itself. */
static bool framing(const struct field *f)
{
    return f->token == T_CONTENT_LENGTH || f->token == T_TRANSFER_ENCODING ||
           f->token == T_CONNECTION || f->token == T_KEEP_ALIVE;
}

static void check_written(struct feed *f, unsigned bits)
{
    struct h1_response r = { .msg = &f->msg,
                             .chunked = f->msg.chunked,
                             .connection_field = true,
                             .keep_alive = f->msg.keep_alive };
    size_t size = h1_response_size(&r);
    char *buf = malloc(size), *end = h1_write_response(&r, buf);
    unsigned fields = 0;
    struct feed g;

    check((size_t) (end - buf) <= size, "longer than promised");
    run(&g, bits, buf, (size_t) (end - buf), size);
    check(g.result == H1_DONE && g.pending_len == 0, "not a response any more");
    check(g.msg.status == f->msg.status && str_eq(g.msg.reason, f->msg.reason), "another status");
    check(g.msg.chunked == f->msg.chunked, "another framing");
    for (unsigned i = 0; i < f->msg.fields.count; i++)
        fields += !framing(&f->msg.fields.items[i]);
    for (unsigned i = 0; i < g.msg.fields.count; i++)
        fields -= !framing(&g.msg.fields.items[i]);
    check(fields == 0, "other fields");
    feed_free(&g);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed whole, cut;

    if (size < 2 || size > 20000)
        return 0;
    run(&whole, data[0], (const char *) data + 1, size - 1, size);
    run(&cut, data[0], (const char *) data + 1, size - 1, (data[0] >> 1) + 1 + size / 500);
    check(strcmp(feed_report(&whole), feed_report(&cut)) == 0, "it matters how it is cut");
    if (whole.result == H1_DONE)
        check_written(&whole, data[0]);
    feed_free(&whole);
    feed_free(&cut);
    arena_trim();
    return 0;
}
