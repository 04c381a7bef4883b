/* SPDX-License-Identifier: BSD-2-Clause */
/* WebSocket frames as they go by. Only their heads are looked at. */
#include "modules/upstream/websocket.h"

#include "core/os/process.h"

#define OPCODE_CLOSE 8
#define GOING_AWAY 1001
#define MASK_SIZE 4

static void frame_ended(struct ws_track *t)
{
    if (t->closing)
        t->closed = true;
}

void ws_skip(struct ws_track *t, uint64_t n)
{
    ASSERT(n <= t->left);
    t->left -= n;
    if (t->left == 0)
        frame_ended(t);
}

/* How long the head is that begins with these bytes, two of which are there. */
static unsigned head_size(const unsigned char *head)
{
    switch (head[1] & 0x7f) {
    case 126: return 4;
    case 127: return 10;
    default: return 2;
    }
}

static void head_ended(struct ws_track *t)
{
    unsigned size = t->have;
    uint64_t n = 0;

    if (size == 2)
        n = t->head[1] & 0x7f;
    for (unsigned i = 2; i < size; i++)
        n = n << 8 | t->head[i];
    if (n >> 63) {
        t->lost = true;
        return;
    }
    t->left = n + (t->head[1] & 0x80 ? MASK_SIZE : 0);
    t->closing = (t->head[0] & 0x0f) == OPCODE_CLOSE;
    t->have = 0;
    if (t->left == 0)
        frame_ended(t);
}

size_t ws_follow(struct ws_track *t, const char *ptr, size_t len, bool stop)
{
    size_t at = 0;

    while (at < len && !t->lost && !t->closed) {
        if (t->left > 0) {
            size_t n = (size_t) MIN(t->left, (uint64_t) (len - at));

            ws_skip(t, n);
            at += n;
        } else {
            t->head[t->have++] = (unsigned char) ptr[at++];
            if (t->have < 2 || t->have < head_size(t->head))
                continue;
            head_ended(t);
        }
        if (stop && t->left == 0 && t->have == 0)
            return at;
    }
    return len;
}

size_t ws_going_away(char buf[WS_CLOSE_MAX], bool masked)
{
    unsigned char code[2] = { GOING_AWAY >> 8, GOING_AWAY & 0xff };
    size_t at = 2;

    buf[0] = (char) (0x80 | OPCODE_CLOSE);
    buf[1] = (char) (sizeof(code) | (masked ? 0x80 : 0));
    if (masked) {
        random_bytes(buf + at, MASK_SIZE);
        at += MASK_SIZE;
    }
    for (unsigned i = 0; i < sizeof(code); i++)
        buf[at + i] = (char) (code[i] ^ (masked ? (unsigned char) buf[2 + i] : 0));
    return at + sizeof(code);
}
