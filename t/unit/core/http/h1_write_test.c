/* SPDX-License-Identifier: BSD-2-Clause */
/* Heads of responses and chunk framing as bytes. */
#include "core/base/arena.h"
#include "core/http/h1.h"
#include "t/unit/tap.h"

static struct arena *arena;
static struct msg m;

static void reset(unsigned status, int64_t length)
{
    msg_init(&m, arena, 0);
    m.status = status;
    m.content_length = length;
}

static void add(struct str name, struct str value)
{
    fields_add(&m, &m.fields, name, value);
}

/* The head is written into memory of the promised size, no more. */
static void head_is(struct h1_response r, const char *expected, const char *what)
{
    size_t size;
    char *buf, *end;

    r.msg = &m;
    size = h1_response_size(&r);
    buf = malloc(size);
    end = h1_write_response(&r, buf);
    is_bytes(buf, (size_t) (end - buf), expected, strlen(expected), "%s", what);
    ok((size_t) (end - buf) <= size, "%s: no longer than promised", what);
    free(buf);
}

static void test_order(void)
{
    reset(200, 12);
    add(STR("X-First"), STR("1"));
    add(STR("location"), STR("/x"));
    add(STR("Vary"), STR("a"));
    add(STR("Content-Type"), STR("text/html"));
    add(STR("Last-Modified"), STR("lm"));
    add(STR("Set-Cookie"), STR("a=b"));
    add(STR("Content-Length"), STR("999"));
    add(STR("Transfer-Encoding"), STR("gzip"));
    add(STR("Connection"), STR("x"));
    add(STR("Keep-Alive"), STR("y"));
    add(STR("Vary"), STR("b"));
    add(STR("Set-Cookie"), STR("c=d"));
    fields_find(&m.fields, STR("X-First"))->deleted = true;
    head_is(
        (struct h1_response){ .server = STR("s"),
                              .date = STR("d"),
                              .keep_alive = true,
                              .connection_field = true,
                              .keep_alive_s = 60 },
        "HTTP/1.1 200 OK\r\nServer: s\r\nDate: d\r\nContent-Type: text/html\r\nContent-Length: 12\r\n"
        "Last-Modified: lm\r\nlocation: /x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=60\r\n"
        "Vary: a\r\nVary: b\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
        "everything in its place, framing from the msg alone");
    reset(200, -1);
    add(STR("Server"), STR("other"));
    add(STR("Date"), STR("then"));
    head_is(
        (struct h1_response){
            .server = STR("s"), .date = STR("d"), .chunked = true, .connection_field = true },
        "HTTP/1.1 200 OK\r\nServer: other\r\nDate: then\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        "the msg's own Server and Date, chunked, close");
}

static void test_statuses(void)
{
    const struct h1_response none = { .msg = NULL };
    const struct h1_response upgrade = { .connection_field = true, .upgrade = true };

    reset(204, 0);
    head_is(none, "HTTP/1.1 204 No Content\r\n\r\n", "204 has no length");
    reset(304, 5);
    head_is(none, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 may have one");
    reset(100, 0);
    head_is(none, "HTTP/1.1 100 Continue\r\n\r\n", "100");
    reset(103, -1);
    add(STR("Link"), STR("</a>"));
    head_is(none, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "103 with its fields");
    reset(101, -1);
    add(STR("Upgrade"), STR("websocket"));
    head_is(upgrade,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "101");
    reset(302, 0);
    head_is(none, "HTTP/1.1 302 Moved Temporarily\r\nContent-Length: 0\r\n\r\n",
            "302 in nginx's words");
    reset(299, -1);
    head_is(none, "HTTP/1.1 299 \r\n\r\n", "no reason is known");
    reset(200, -1);
    m.reason = STR("Fine");
    head_is(none, "HTTP/1.1 200 Fine\r\n\r\n", "the msg's own reason");
    m.reason = STR("");
    head_is(none, "HTTP/1.1 200 \r\n\r\n", "an empty one too");
    reset(200, INT64_MAX);
    head_is(none, "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n",
            "the longest length");
}

static void test_injection(void)
{
    reset(302, -1);
    m.reason = STR("a\r\nX: y");
    add(STR("Location"), STR("/a\r\nSet-Cookie: x\n\0\r"));
    add(STR("X\r\nY"), STR("z"));
    head_is(
        (struct h1_response){ .server = STR("s\nt") },
        "HTTP/1.1 302 a  X: y\r\nServer: s t\r\nLocation: /a  Set-Cookie: x   \r\nX  Y: z\r\n\r\n",
        "no value ends its line");
}

static void test_chunks(void)
{
    struct chain out = CHAIN_INIT;
    struct str s;
    char buf[H1_CHUNK_HEAD_MAX], *end;

    end = h1_write_chunk_head(buf, 0x1a2b);
    is_bytes(buf, (size_t) (end - buf), "1a2b\r\n", 6, "the head of a chunk");
    end = h1_write_chunk_head(buf, UINT64_MAX);
    ok(end - buf <= H1_CHUNK_HEAD_MAX, "the longest fits");
    h1_write_last_chunk(NULL, &out);
    s = chain_flatten(&out, arena);
    is_bytes(s.ptr, s.len, "0\r\n\r\n", 5, "the last chunk");
    chain_clear(&out);
    reset(200, -1);
    fields_add(&m, &m.trailers, STR("X"), STR("1"));
    fields_add(&m, &m.trailers, STR("Y"), STR("2"));
    fields_add(&m, &m.trailers, STR("Z"), STR("a\r\nb\n"));
    fields_delete_name(&m.trailers, STR("Y"));
    h1_write_last_chunk(&m.trailers, &out);
    s = chain_flatten(&out, arena);
    is_bytes(s.ptr, s.len, "0\r\nX: 1\r\nZ: a  b \r\n\r\n", 21, "with trailers");
    chain_clear(&out);
}

int main(void)
{
    arena = arena_new();
    test_order();
    test_statuses();
    test_injection();
    test_chunks();
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return done_testing();
}
