/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames of HTTP/2: h2_frame.h says what this is. */
#include "core/http/h2_frame.h"

char *h2_put_head(char *p, struct h2_frame f)
{
    *p++ = (char) (f.len >> 16);
    *p++ = (char) (f.len >> 8);
    *p++ = (char) f.len;
    *p++ = (char) f.type;
    *p++ = (char) f.flags;
    return h2_put32(p, f.stream);
}

char *h2_put_setting(char *p, enum h2_setting setting, uint32_t value)
{
    *p++ = (char) (setting >> 8);
    *p++ = (char) setting;
    return h2_put32(p, value);
}

/* What the payload begins with in any case. */
static uint32_t least(struct h2_frame f)
{
    uint32_t padding = (f.flags & H2_PADDED) ? 1 : 0;

    switch (f.type) {
    case H2_DATA: return padding;
    case H2_HEADERS: return padding + ((f.flags & H2_PRIORITISED) ? 5 : 0);
    case H2_PUSH_PROMISE: return padding + 4;
    case H2_GOAWAY: return 8;
    default: return 0;
    }
}

enum h2_error h2_head_check(struct h2_frame f, uint32_t max)
{
    static const struct {
        enum { OF_ANY, OF_STREAM, OF_CONNECTION } of;
        uint32_t exactly; /* 0: any length */
    } rules[] = {
        [H2_DATA] = { OF_STREAM, 0 },         [H2_HEADERS] = { OF_STREAM, 0 },
        [H2_PRIORITY] = { OF_STREAM, 0 }, /* of another length than 5: the stream's error */
        [H2_RST_STREAM] = { OF_STREAM, 4 },   [H2_SETTINGS] = { OF_CONNECTION, 0 },
        [H2_PUSH_PROMISE] = { OF_STREAM, 0 }, [H2_PING] = { OF_CONNECTION, 8 },
        [H2_GOAWAY] = { OF_CONNECTION, 0 },   [H2_WINDOW_UPDATE] = { OF_ANY, 4 },
        [H2_CONTINUATION] = { OF_STREAM, 0 },
    };

    if (f.len > max)
        return H2_FRAME_SIZE_ERROR;
    if (f.type >= ARRAY_LEN(rules))
        return H2_NO_ERROR;
    if ((rules[f.type].of == OF_STREAM && f.stream == 0) ||
        (rules[f.type].of == OF_CONNECTION && f.stream != 0))
        return H2_PROTOCOL_ERROR;
    if (rules[f.type].exactly > 0 && f.len != rules[f.type].exactly)
        return H2_FRAME_SIZE_ERROR;
    if (f.type == H2_SETTINGS && ((f.flags & H2_ACK) ? f.len != 0 : f.len % 6 != 0))
        return H2_FRAME_SIZE_ERROR;
    return f.len < least(f) ? H2_FRAME_SIZE_ERROR : H2_NO_ERROR;
}

bool h2_unpad(struct h2_frame f, struct str *payload)
{
    size_t before = 0, padding = 0;

    if (f.flags & H2_PADDED) {
        if (payload->len < 1)
            return false;
        padding = (unsigned char) payload->ptr[0];
        before = 1;
    }
    if (f.type == H2_HEADERS && (f.flags & H2_PRIORITISED))
        before += 5;
    if (before + padding > payload->len)
        return false;
    *payload = str_from(payload->ptr + before, payload->len - before - padding);
    return true;
}
