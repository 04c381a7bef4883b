/* SPDX-License-Identifier: BSD-2-Clause */
/* Where WebSocket frames end, however they are cut; and the Close frames. */
#include "modules/upstream/websocket.h"

#include "t/unit/tap.h"

#define FRAME(s)         \
    {                    \
        s, sizeof(s) - 1 \
    }

static const struct {
    const char *ptr;
    size_t len;
} frames[] = {
    FRAME("\x81\x02hi"),
    FRAME("\x82\x00"),
    FRAME("\x01\x83\1\2\3\4abc"),
    FRAME("\x80\x80\1\2\3\4"),
    FRAME("\x82\x7e\x00\x05hello"),
    FRAME("\x82\x7f\0\0\0\0\0\0\0\x03xyz"),
    FRAME("\x82\xff\0\0\0\0\0\0\0\x03mmmmxyz"),
    FRAME("\x89\x04ping"),
};

/* All of them behind each other. */
static size_t all(char *buf, size_t *ends)
{
    size_t n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(frames); i++) {
        memcpy(buf + n, frames[i].ptr, frames[i].len);
        n += frames[i].len;
        ends[i] = n;
    }
    return n;
}

static void test_pieces(void)
{
    char buf[256];
    size_t ends[ARRAY_LEN(frames)], n = all(buf, ends);

    for (size_t piece = 1; piece <= n; piece++) {
        struct ws_track t = { .left = 0 };
        unsigned wrong = 0, next = 0;

        for (size_t at = 0; at < n; at += piece) {
            size_t len = MIN(piece, n - at);

            if (ws_follow(&t, buf + at, len, false) != len)
                wrong++;
            while (next < ARRAY_LEN(frames) && ends[next] < at + len)
                next++;
            if (ws_between(&t) != (next < ARRAY_LEN(frames) && ends[next] == at + len))
                wrong++;
        }
        is_uint(wrong, 0, "pieces of %zu bytes", piece);
    }
}

static void test_stop(void)
{
    char buf[256];
    size_t ends[ARRAY_LEN(frames)], n = all(buf, ends), at = 0;
    struct ws_track t = { .left = 0 };

    for (unsigned i = 0; i < ARRAY_LEN(frames); i++) {
        at += ws_follow(&t, buf + at, n - at, true);
        is_uint(at, ends[i], "stops behind frame %u", i);
        ok(ws_between(&t), "between two");
    }
}

static void test_close(void)
{
    struct ws_track t = { .left = 0 };
    char buf[WS_CLOSE_MAX];
    size_t n = ws_going_away(buf, false);

    is_bytes(buf, n, "\x88\x02\x03\xe9", (size_t) 4, "a server's Close");
    ws_follow(&t, buf, n - 1, false);
    ok(!t.closed, "not yet closed");
    ws_follow(&t, buf + n - 1, 1, false);
    ok(t.closed && !ws_between(&t), "closed: nothing follows");
    t = (struct ws_track){ .left = 0 };
    n = ws_going_away(buf, true);
    is_uint(n, 8, "a client's Close is masked");
    is_int(buf[6] ^ buf[2], 0x03, "1001, first byte");
    is_int((unsigned char) (buf[7] ^ buf[3]), 0xe9, "1001, second byte");
    ws_follow(&t, buf, n, false);
    ok(t.closed, "closed");
    t = (struct ws_track){ .left = 0 };
    ws_follow(&t, "\x88\x00", 2, false);
    ok(t.closed, "a Close without a code");
    t = (struct ws_track){ .left = 0 };
    ws_follow(&t, "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 10, false);
    ok(t.lost && !ws_between(&t), "a length that cannot be: nothing is known any more");
    is_uint(ws_follow(&t, "abc", 3, true), 3, "and all is passed on");
    t = (struct ws_track){ .left = 0 };
    ws_follow(&t, "\x82\x7f\0\0\0\0\x40\0\0\0", 10, false);
    ws_skip(&t, UINT64_C(0x3fffffff));
    is_uint(t.left, 1, "skipped");
    ws_skip(&t, 1);
    ok(ws_between(&t), "to the end of the frame");
}

int main(void)
{
    test_pieces();
    test_stop();
    test_close();
    return done_testing();
}
