/* SPDX-License-Identifier: BSD-2-Clause */
/* Bodies of HTTP/1 messages: framing by length, chunks, close; whole and cut at every byte. */
#include "core/base/arena.h"
#include "core/http/h1.h"
#include "t/unit/tap.h"

#define STRING(s) s, sizeof(s) - 1

#define BAD_CHUNK "bad chunk"
#define BAD_TRAILER "bad trailer"

static struct arena *arena;
static bool response;

static void framed(struct msg *m, struct h1_body *b, bool chunked, int64_t length)
{
    msg_init(m, arena, 0);
    m->status = 200;
    m->chunked = chunked;
    m->content_length = length;
    h1_body_init(b, m, response, false);
}

/* Decodes in steps; the outcome as text. Input lies in memory of its exact size. */
static const char *decode(const char *input, size_t len, size_t first, size_t step,
                          uint64_t max_out, bool chunked, int64_t length)
{
    struct chain out = CHAIN_INIT;
    struct h1_body b;
    struct msg m;
    enum h1_result result = H1_MORE;
    size_t at = 0, n = first;
    struct str text, content;
    char *copy = malloc(len > 0 ? len : 1);

    memcpy(copy, input, len);
    framed(&m, &b, chunked, length);
    do {
        size_t used = 0, end = MIN(len, at + n);
        uint64_t before = out.bytes;

        result = h1_body_decode(&b, NULL, copy + at, end - at, max_out, &out, &used);
        if (out.bytes - before > max_out || used > end - at ||
            (result == H1_MORE && used < end - at && out.bytes - before != max_out))
            result = H1_ERROR, b.error = H1_ERRORS; /* the contract is broken */
        at += used;
        n = step;
    } while (result == H1_MORE && at < len);
    content = chain_flatten(&out, arena);
    if (result == H1_ERROR)
        text = b.error == H1_BAD_CHUNK     ? STR(BAD_CHUNK)
               : b.error == H1_BAD_TRAILER ? STR(BAD_TRAILER)
                                           : STR("not as the contract says");
    else
        text = str_printf(arena, "%s \"%.*s\" used %zu received %llu",
                          result == H1_DONE ? "done" : "more", STR_ARG(content), at,
                          (unsigned long long) b.received);
    for (unsigned i = 0; result == H1_DONE && i < m.trailers.count; i++)
        text = str_printf(arena, "%.*s %.*s=%.*s", STR_ARG(text), STR_ARG(m.trailers.items[i].name),
                          STR_ARG(m.trailers.items[i].value));
    chain_clear(&out);
    h1_body_free(&b);
    free(copy);
    return text.ptr;
}

static void chunked_is(const char *input, size_t len, const char *expected, const char *what)
{
    const char *whole = decode(input, len, len, len, UINT64_MAX, true, -1);
    bool same = true;

    is_str(whole, expected, "%s", what);
    for (size_t cut = 0; cut <= len && same; cut++)
        same = strcmp(decode(input, len, cut, len, UINT64_MAX, true, -1), whole) == 0;
    for (size_t step = 1; step < 4 && same; step++)
        same = strcmp(decode(input, len, step, step, UINT64_MAX, true, -1), whole) == 0 &&
               strcmp(decode(input, len, len, len, step, true, -1), whole) == 0;
    ok(same, "%s: the same however it is cut", what);
}

#define CHUNKED(what, input, expected) chunked_is(STRING(input), expected, what)

static void test_chunks(void)
{
    CHUNKED("one", "3\r\nabc\r\n0\r\n\r\nGET", "done \"abc\" used 13 received 3");
    CHUNKED("several", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "done \"abc\" used 18 received 3");
    CHUNKED("none", "0\r\n\r\n", "done \"\" used 5 received 0");
    CHUNKED("hexadecimal", "A\r\n0123456789\r\n0\r\n\r\n",
            "done \"0123456789\" used 20 received 10");
    CHUNKED("leading zeros", "0003\r\nabc\r\n000\r\n\r\n", "done \"abc\" used 18 received 3");
    CHUNKED("extensions", "3;a=b;c=\"d;e\"\r\nabc\r\n0;x\r\n\r\n",
            "done \"abc\" used 27 received 3");
    CHUNKED("blanks in front of an extension", "3 \t;a\r\nabc\r\n0\r\n\r\n",
            "done \"abc\" used 17 received 3");
    CHUNKED("content that looks like framing", "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n",
            "done \"0\r\n\r\n\r\n\" used 17 received 7");
    CHUNKED("not complete", "3\r\nab", "more \"ab\" used 5 received 2");
    CHUNKED("the end is missing", "0\r\n", "more \"\" used 3 received 0");
    CHUNKED("no size", "\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("no size but an extension", ";a\r\n", BAD_CHUNK);
    CHUNKED("a letter", "g\r\n", BAD_CHUNK);
    CHUNKED("a letter behind", "3g\r\n", BAD_CHUNK);
    CHUNKED("0x", "0x3\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("minus", "-3\r\n", BAD_CHUNK);
    CHUNKED("plus", "+3\r\n", BAD_CHUNK);
    CHUNKED("a blank in front", " 3\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("a blank behind", "3 \r\nabc\r\n", BAD_CHUNK);
    CHUNKED("a blank between", "3 3\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("bare LF", "3\nabc\r\n", BAD_CHUNK);
    CHUNKED("bare LF behind the data", "3\r\nabc\n0\r\n\r\n", BAD_CHUNK);
    CHUNKED("bare LF in an extension", "3;a\nabc\r\n", BAD_CHUNK);
    CHUNKED("bare CR behind the size", "3\rabc\r\n", BAD_CHUNK);
    CHUNKED("bare CR in an extension", "3;a\rb\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("NUL in an extension", "3;\0\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("data too long", "3\r\nabcd\r\n", BAD_CHUNK);
    CHUNKED("data too short", "5\r\nabc\r\n0\r\n\r\n", BAD_CHUNK);
    CHUNKED("no line end behind the data", "3\r\nabc0\r\n\r\n", BAD_CHUNK);
    CHUNKED("two CRs behind the data", "3\r\nabc\r\r\n", BAD_CHUNK);
    CHUNKED("17 digits", "fffffffffffffffff\r\n", BAD_CHUNK);
    CHUNKED("wraps to 3", "10000000000000003\r\nabc\r\n", BAD_CHUNK);
    CHUNKED("2^63", "8000000000000000\r\n", BAD_CHUNK);
    CHUNKED("2^63 - 1", "7fffffffffffffff\r\nabc", "more \"abc\" used 21 received 3");
}

static void test_trailers(void)
{
    CHUNKED("trailers", "0\r\nX-T: 1\r\nX-u:\t2 \r\n\r\nx",
            "done \"\" used 22 received 0 X-T=1 X-u=2");
    CHUNKED("an empty one", "0\r\nX:\r\n\r\n", "done \"\" used 9 received 0 X=");
    CHUNKED("framing in trailers is dropped",
            "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: x\r\nX: y\r\n\r\n",
            "done \"\" used 67 received 0 X=y");
    CHUNKED("no colon", "0\r\nfoo\r\n\r\n", BAD_TRAILER);
    CHUNKED("no name", "0\r\n: foo\r\n\r\n", BAD_TRAILER);
    CHUNKED("a blank in front of the colon", "0\r\nX : y\r\n\r\n", BAD_TRAILER);
    CHUNKED("folded", "0\r\nX: y\r\n z\r\n\r\n", BAD_TRAILER);
    CHUNKED("NUL", "0\r\nX: a\0b\r\n\r\n", BAD_TRAILER);
    CHUNKED("bare CR", "0\r\nX: a\rb\r\n\r\n", BAD_TRAILER);
    CHUNKED("bare LF", "0\r\nX: a\n\r\n", BAD_TRAILER);
    CHUNKED("bare LF at the end", "0\r\n\n", BAD_TRAILER);
    CHUNKED("another request instead", "0\r\nGET / HTTP/1.1\r\n\r\n", BAD_TRAILER);
}

static void test_limits(void)
{
    char text[20000];
    size_t n;

    n = (size_t) snprintf(text, sizeof(text), "1;");
    memset(text + n, 'x', 1500);
    memcpy(text + n + 1500, "\r\na", 4);
    is_str(decode(text, n + 1503, n, 1, UINT64_MAX, true, -1), BAD_CHUNK, "an extension too long");
    memset(text, '0', 1500);
    is_str(decode(text, 1500, 1500, 1, UINT64_MAX, true, -1), BAD_CHUNK,
           "a size of too many zeros");
    n = (size_t) snprintf(text, sizeof(text), "0\r\nX: ");
    memset(text + n, 'x', 10000);
    is_str(decode(text, n + 10000, 1, 1000, UINT64_MAX, true, -1), BAD_TRAILER,
           "a trailer too long");
    n = (size_t) snprintf(text, sizeof(text), "0\r\n");
    for (unsigned i = 0; i < 2000; i++)
        n += (size_t) snprintf(text + n, sizeof(text) - n, "X:yyyy\r\n");
    is_str(decode(text, n, 1, 1000, UINT64_MAX, true, -1), BAD_TRAILER, "too many trailers");
}

static void test_others(void)
{
    struct h1_body b;
    struct msg m;
    size_t used;

    is_str(decode(STRING("abcdef"), 6, 6, UINT64_MAX, false, 3), "done \"abc\" used 3 received 3",
           "by length");
    is_str(decode(STRING("abcdef"), 1, 1, UINT64_MAX, false, 3), "done \"abc\" used 3 received 3",
           "byte by byte");
    is_str(decode(STRING("abc"), 3, 3, 2, false, 3), "done \"abc\" used 3 received 3",
           "at most two at once");
    is_str(decode(STRING("ab"), 2, 2, UINT64_MAX, false, 3), "more \"ab\" used 2 received 2",
           "not complete");
    is_str(decode(STRING("ab"), 2, 2, UINT64_MAX, false, 0), "done \"\" used 0 received 0",
           "length 0");
    is_str(decode(STRING("ab"), 2, 2, UINT64_MAX, false, -1), "done \"\" used 0 received 0",
           "a request without either");
    response = true;
    is_str(decode(STRING("ab"), 2, 2, UINT64_MAX, false, -1), "more \"ab\" used 2 received 2",
           "a response until close");
    is_str(decode(STRING("3  \r\nabc\r\n0 \r\n\r\n"), 99, 1, UINT64_MAX, true, -1),
           "done \"abc\" used 16 received 3", "a response may pad its sizes");
    is_str(decode(STRING("3 3\r\nabc\r\n"), 99, 1, UINT64_MAX, true, -1), BAD_CHUNK,
           "but with blanks alone");

    msg_init(&m, arena, 0);
    m.content_length = 5;
    for (unsigned i = 0; i < 3; i++) {
        m.status = (unsigned[]){ 101, 204, 304 }[i];
        h1_body_init(&b, &m, true, false);
        is_int(b.kind, H1_BODY_NONE, "%u has no body", m.status);
    }
    m.status = 200;
    h1_body_init(&b, &m, true, true);
    is_int(b.kind, H1_BODY_NONE, "nor has the answer to HEAD");
    response = false;

    framed(&m, &b, true, -1);
    is_int(h1_body_decode(&b, NULL, "3\r\nabc\r\n0\r\nX: y\r\n\r\n", 19, UINT64_MAX, NULL, &used),
           H1_DONE, "discarded");
    is_uint(used, 19, "to its end");
    is_uint(b.received, 3, "and counted");
    is_int(h1_body_decode(&b, NULL, "x", 1, UINT64_MAX, NULL, &used), H1_DONE, "done stays done");
    is_uint(used, 0, "and takes nothing");
    framed(&m, &b, true, -1);
    b.msg = NULL;
    is_int(h1_body_decode(&b, NULL, "0\r\nX: y\r\n\r\n", 11, UINT64_MAX, NULL, &used), H1_DONE,
           "trailers for nobody");
    framed(&m, &b, true, -1);
    b.msg = NULL;
    is_int(h1_body_decode(&b, NULL, "0\r\nX y\r\n\r\n", 10, UINT64_MAX, NULL, &used), H1_ERROR,
           "are checked all the same");
    is_int(h1_body_decode(&b, NULL, "0", 1, UINT64_MAX, NULL, &used), H1_ERROR, "an error stays");
    h1_body_free(&b);
}

static void test_references(void)
{
    struct block *block = block_new(100);
    struct chain out = CHAIN_INIT;
    struct h1_body b;
    struct msg m;
    size_t used;

    memcpy(block->data, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 20);
    framed(&m, &b, true, -1);
    is_int(h1_body_decode(&b, block, block->data, 20, UINT64_MAX, &out, &used), H1_DONE,
           "decoded in a block");
    is_uint(block->refs, 3, "each piece holds the block");
    ok(out.first->mem.ptr == block->data + 3, "content is where it was read");
    chain_clear(&out);
    is_uint(block->refs, 1, "and lets it go");
    block_unref(block);
}

int main(void)
{
    arena = arena_new();
    test_chunks();
    test_trailers();
    test_limits();
    test_others();
    test_references();
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return done_testing();
}
