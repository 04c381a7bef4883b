/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * As much of the WebSocket protocol (RFC 6455) as one who passes it on needs: where frames end, so that one of its own may
 * stand between two, and frames that say goodbye.
 */
#ifndef MODULES_UPSTREAM_WEBSOCKET_H
#define MODULES_UPSTREAM_WEBSOCKET_H

#include "core/base/str.h"

/* One direction of a connection, from the first frame on. All zero: nothing has been sent. */
struct ws_track {
    uint64_t left;          /* of the frame under way, behind its head */
    unsigned char head[10]; /* a frame's, without the mask */
    unsigned char have;     /* bytes of it */
    bool closing;           /* the frame under way is a Close */
    bool closed;            /* a Close has been sent: it was the last frame */
    bool lost;              /* not WebSocket: nothing is known */
};

/* len bytes are sent. stop: no more than to the end of a frame. Returns how many it took. */
size_t ws_follow(struct ws_track *t, const char *ptr, size_t len, bool stop);
/* n bytes of the frame under way are sent, unseen: at most t->left. */
void ws_skip(struct ws_track *t, uint64_t n);
/* Between two frames, with none being the last. */
static inline bool ws_between(const struct ws_track *t)
{
    return !t->lost && !t->closed && t->left == 0 && t->have == 0;
}

/* A Close frame with 1001, "going away": as servers send it, and as clients do. Its length. */
#define WS_CLOSE_MAX 8
size_t ws_going_away(char buf[WS_CLOSE_MAX], bool masked);

#endif
