/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: chunked bodies, for both roles (first byte), decoded whole and in small pieces with
 * a limited output (second byte): the same content and trailers must come out. What was accepted is
 * framed anew and decoded again.
 */
#include "core/base/arena.h"
#include "core/http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum h1_result result;
    struct str content;
    size_t used;
    struct msg msg;
};

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static struct outcome decode(struct arena *arena, bool response, const char *ptr, size_t len,
                             size_t step, uint64_t max_out)
{
    struct chain out = CHAIN_INIT;
    struct outcome o = { .result = H1_MORE };
    struct h1_body b;

    msg_init(&o.msg, arena, 0);
    o.msg.status = 200;
    o.msg.chunked = true;
    h1_body_init(&b, &o.msg, response, false);
    while (o.result == H1_MORE && o.used < len) {
        size_t n = MIN(step, len - o.used), used;
        uint64_t before = out.bytes;
        char *copy = malloc(n);
        struct chain got = CHAIN_INIT;

        memcpy(copy, ptr + o.used, n);
        o.result = h1_body_decode(&b, NULL, copy, n, max_out, &got, &used);
        for (struct piece *p = got.first; p != NULL; p = p->next)
            chain_write(&out, p->mem.ptr, p->len);
        chain_clear(&got);
        free(copy);
        check(used <= n && out.bytes - before <= max_out, "more than asked for");
        check(o.result != H1_MORE || used == n || out.bytes - before == max_out,
              "less than asked for");
        o.used += used;
    }
    o.content = chain_flatten(&out, arena);
    check(b.received == o.content.len, "how much was received");
    chain_clear(&out);
    h1_body_free(&b);
    return o;
}

static void again(struct arena *arena, const struct outcome *o)
{
    struct chain framed = CHAIN_INIT;
    struct str text;
    struct outcome p;
    char head[H1_CHUNK_HEAD_MAX];

    if (o->content.len > 0) {
        chain_write(&framed, head, (size_t) (h1_write_chunk_head(head, o->content.len) - head));
        chain_write(&framed, o->content.ptr, o->content.len);
        chain_write(&framed, "\r\n", 2);
    }
    h1_write_last_chunk(&o->msg.trailers, &framed);
    text = chain_flatten(&framed, arena);
    chain_clear(&framed);
    if (o->msg.trailers.count > 500)
        return; /* longer with blanks than the limit, perhaps */
    p = decode(arena, false, text.ptr, text.len, text.len, UINT64_MAX);
    check(p.result == H1_DONE && p.used == text.len && str_eq(p.content, o->content) &&
              p.msg.trailers.count == o->msg.trailers.count,
          "another body");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena;
    struct outcome a, b;
    const char *ptr = (const char *) data + 2;
    bool response;

    if (size < 3 || size > 20000)
        return 0;
    size -= 2;
    response = data[0] & 1;
    arena = arena_new();
    a = decode(arena, response, ptr, size, size, UINT64_MAX);
    b = decode(arena, response, ptr, size, (data[0] >> 1) + 1u, data[1] + 1u);
    check(a.result == b.result, "another result");
    check(str_eq(a.content, b.content), "other content");
    check(a.result == H1_ERROR ||
              (a.used == b.used && a.msg.trailers.count == b.msg.trailers.count),
          "another end");
    for (unsigned i = 0; i < a.msg.trailers.count; i++)
        check(is_token(a.msg.trailers.items[i].name) &&
                  is_field_value(a.msg.trailers.items[i].value),
              "a trailer");
    if (a.result == H1_DONE)
        again(arena, &a);
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return 0;
}
