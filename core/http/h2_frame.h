/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames of HTTP/2 (RFC 9113, 4 and 6): their heads, and those parts of their payloads that have one form whoever sends
 * them. A codec: no I/O, and no state of a connection.
 */
#ifndef CORE_HTTP_H2_FRAME_H
#define CORE_HTTP_H2_FRAME_H

#include "core/base/str.h"

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_HEAD 9          /* bytes in front of each payload */
#define H2_FRAME_MAX 16384 /* of a payload, unless a larger SETTINGS_MAX_FRAME_SIZE was announced */
#define H2_WINDOW 65535    /* that connection and streams begin with */
#define H2_WINDOW_MAX 0x7fffffff

enum h2_type {
    H2_DATA,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST_STREAM,
    H2_SETTINGS,
    H2_PUSH_PROMISE,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW_UPDATE,
    H2_CONTINUATION,
};

enum {
    H2_END_STREAM = 0x1,
    H2_ACK = 0x1,
    H2_END_HEADERS = 0x4,
    H2_PADDED = 0x8,
    H2_PRIORITISED = 0x20,
};

enum h2_setting {
    H2_HEADER_TABLE_SIZE = 1,
    H2_ENABLE_PUSH,
    H2_MAX_CONCURRENT_STREAMS,
    H2_INITIAL_WINDOW_SIZE,
    H2_MAX_FRAME_SIZE,
    H2_MAX_HEADER_LIST_SIZE,
};

enum h2_error {
    H2_NO_ERROR,
    H2_PROTOCOL_ERROR,
    H2_INTERNAL_ERROR,
    H2_FLOW_CONTROL_ERROR,
    H2_SETTINGS_TIMEOUT,
    H2_STREAM_CLOSED,
    H2_FRAME_SIZE_ERROR,
    H2_REFUSED_STREAM,
    H2_CANCEL,
    H2_COMPRESSION_ERROR,
    H2_CONNECT_ERROR,
    H2_ENHANCE_YOUR_CALM,
    H2_INADEQUATE_SECURITY,
    H2_HTTP_1_1_REQUIRED,
};

struct h2_frame {
    uint32_t len; /* of the payload */
    uint8_t type; /* enum h2_type, or one that is to be ignored */
    uint8_t flags;
    uint32_t stream; /* without the reserved bit */
};

static inline uint32_t h2_get16(const char *p)
{
    const unsigned char *u = (const unsigned char *) p;

    return (uint32_t) u[0] << 8 | u[1];
}

static inline uint32_t h2_get32(const char *p)
{
    return h2_get16(p) << 16 | h2_get16(p + 2);
}

static inline char *h2_put32(char *p, uint32_t n)
{
    p[0] = (char) (n >> 24);
    p[1] = (char) (n >> 16);
    p[2] = (char) (n >> 8);
    p[3] = (char) n;
    return p + 4;
}

/* H2_HEAD bytes. */
static inline struct h2_frame h2_head(const char *p)
{
    return (struct h2_frame){ .len = h2_get16(p) << 8 | (unsigned char) p[2],
                              .type = (uint8_t) p[3],
                              .flags = (uint8_t) p[4],
                              .stream = h2_get32(p + 5) & 0x7fffffff };
}

/* Returns the end, as do the next ones. */
char *h2_put_head(char *p, struct h2_frame f);
/* One of the pairs in the payload of SETTINGS: 6 bytes. */
char *h2_put_setting(char *p, enum h2_setting setting, uint32_t value);

/*
 * What is wrong with a frame by its head alone (RFC 9113, 6): H2_NO_ERROR, or the error of the connection. max: the largest
 * payload that we take.
 */
enum h2_error h2_head_check(struct h2_frame f, uint32_t max);
/*
 * Of a DATA or HEADERS frame: payload loses what is padding, and of HEADERS the priority. False: there is less than it says,
 * PROTOCOL_ERROR.
 */
bool h2_unpad(struct h2_frame f, struct str *payload);

#endif
