/* SPDX-License-Identifier: BSD-2-Clause */
/* Heads of HTTP/2's frames, there and back; what is wrong with them by RFC 9113, 4.2 and 6; padding. */
#include "core/http/h2_frame.h"
#include "t/unit/tap.h"

static struct h2_frame frame(unsigned type, unsigned flags, uint32_t stream, uint32_t len)
{
    return (struct h2_frame){
        .len = len, .type = (uint8_t) type, .flags = (uint8_t) flags, .stream = stream
    };
}

static void test_heads(void)
{
    char buf[H2_HEAD];
    struct h2_frame f;

    h2_put_head(buf, frame(H2_CONTINUATION, 0xf4, 0x7fffffff, 0xffffff));
    is_bytes(buf, sizeof(buf), "\xff\xff\xff\x09\xf4\x7f\xff\xff\xff", 9, "the largest head");
    f = h2_head("\x01\x02\xff\xfe\x80\xff\xff\xff\xfe");
    is_uint(f.len, 0x102ff, "length");
    is_uint(f.type, 0xfe, "type");
    is_uint(f.flags, 0x80, "flags");
    is_uint(f.stream, 0x7ffffffe, "stream, without the reserved bit");
}

static void test_checks(void)
{
    const uint32_t max = 16384;
    static const struct {
        unsigned type, flags;
        uint32_t stream, len;
        enum h2_error error;
    } all[] = {
        { H2_DATA, 0, 1, 16384, H2_NO_ERROR },
        { H2_DATA, 0, 1, 16385, H2_FRAME_SIZE_ERROR },
        { H2_DATA, 0, 0, 1, H2_PROTOCOL_ERROR },
        { H2_DATA, 0, 1, 0, H2_NO_ERROR },
        { H2_DATA, H2_PADDED, 1, 0, H2_FRAME_SIZE_ERROR },
        { H2_DATA, H2_PADDED, 1, 1, H2_NO_ERROR },
        { H2_HEADERS, H2_PADDED, 1, 0, H2_FRAME_SIZE_ERROR },
        { H2_HEADERS, H2_PRIORITISED, 1, 4, H2_FRAME_SIZE_ERROR },
        { H2_HEADERS, H2_PRIORITISED, 1, 5, H2_NO_ERROR },
        { H2_HEADERS, H2_PRIORITISED | H2_PADDED, 1, 5, H2_FRAME_SIZE_ERROR },
        { H2_HEADERS, 0, 0, 5, H2_PROTOCOL_ERROR },
        { H2_PRIORITY, 0, 1, 4, H2_NO_ERROR }, /* the stream's */
        { H2_PRIORITY, 0, 0, 5, H2_PROTOCOL_ERROR },
        { H2_RST_STREAM, 0, 1, 4, H2_NO_ERROR },
        { H2_RST_STREAM, 0, 1, 3, H2_FRAME_SIZE_ERROR },
        { H2_RST_STREAM, 0, 0, 4, H2_PROTOCOL_ERROR },
        { H2_SETTINGS, 0, 0, 12, H2_NO_ERROR },
        { H2_SETTINGS, 0, 0, 13, H2_FRAME_SIZE_ERROR },
        { H2_SETTINGS, H2_ACK, 0, 6, H2_FRAME_SIZE_ERROR },
        { H2_SETTINGS, 0, 1, 6, H2_PROTOCOL_ERROR },
        { H2_PUSH_PROMISE, 0, 1, 3, H2_FRAME_SIZE_ERROR },
        { H2_PUSH_PROMISE, H2_PADDED, 1, 4, H2_FRAME_SIZE_ERROR },
        { H2_PING, 0, 0, 8, H2_NO_ERROR },
        { H2_PING, 0, 0, 9, H2_FRAME_SIZE_ERROR },
        { H2_PING, 0, 1, 8, H2_PROTOCOL_ERROR },
        { H2_GOAWAY, 0, 0, 7, H2_FRAME_SIZE_ERROR },
        { H2_GOAWAY, 0, 0, 99, H2_NO_ERROR },
        { H2_GOAWAY, 0, 1, 8, H2_PROTOCOL_ERROR },
        { H2_WINDOW_UPDATE, 0, 0, 4, H2_NO_ERROR },
        { H2_WINDOW_UPDATE, 0, 9, 4, H2_NO_ERROR },
        { H2_WINDOW_UPDATE, 0, 9, 5, H2_FRAME_SIZE_ERROR },
        { H2_CONTINUATION, 0, 1, 0, H2_NO_ERROR },
        { H2_CONTINUATION, 0, 0, 0, H2_PROTOCOL_ERROR },
        { 10, 0xff, 0, 0, H2_NO_ERROR },
        { 255, 0xff, 7, 16385, H2_FRAME_SIZE_ERROR },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        is_int(h2_head_check(frame(all[i].type, all[i].flags, all[i].stream, all[i].len), max),
               all[i].error, "type %u, flags %x, stream %u, %u bytes", all[i].type, all[i].flags,
               all[i].stream, all[i].len);
}

static void test_padding(void)
{
    static const struct {
        unsigned type, flags;
        const char *payload;
        size_t len;
        const char *left; /* NULL: an error */
    } all[] = {
        { H2_DATA, 0, "abc", 3, "abc" },
        { H2_DATA, H2_PADDED, "\0abc", 4, "abc" },
        { H2_DATA, H2_PADDED, "\2abc", 4, "a" },
        { H2_DATA, H2_PADDED, "\3abc", 4, "" },
        { H2_DATA, H2_PADDED, "\4abc", 4, NULL },
        { H2_DATA, H2_PADDED,
          "\xff"
          "abc",
          4, NULL },
        { H2_DATA, H2_PRIORITISED, "abcdef", 6, "abcdef" },
        { H2_HEADERS, H2_PRIORITISED, "12345abc", 8, "abc" },
        { H2_HEADERS, H2_PRIORITISED | H2_PADDED,
          "\1"
          "12345abc",
          9, "ab" },
        { H2_HEADERS, H2_PRIORITISED | H2_PADDED,
          "\4"
          "12345abc",
          9, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        struct str payload = str_from(all[i].payload, all[i].len);
        bool fine = h2_unpad(frame(all[i].type, all[i].flags, 1, (uint32_t) all[i].len), &payload);

        ok(fine == (all[i].left != NULL), "%zu: padding", i);
        if (fine)
            is_bytes(payload.ptr, payload.len, all[i].left, strlen(all[i].left),
                     "%zu: what is left", i);
    }
}

int main(void)
{
    test_heads();
    test_checks();
    test_padding();
    return done_testing();
}
