/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes from one connection to another without a copy in this process: splice(2) through a pipe. Pipes are
 * lent for as long as bytes are in them, and few are kept for the next who needs one, so that connections at rest hold
 * no descriptors but their own.
 */
#ifndef CORE_EVENT_SPLICE_H
#define CORE_EVENT_SPLICE_H

#include "core/event/conn.h"

struct splice_pipe {
    struct splice_pipe *next; /* private */
    int out, in;              /* private */
    size_t held;              /* bytes in it */
};

/* Most that one call moves: what a pipe holds unless it is told otherwise. */
#define SPLICE_MOST ((size_t) 64 * 1024)

/* Whether the kernel itself reads from or writes to it: a plain socket. */
bool splice_possible(const struct conn *c);
/* An empty one. NULL: there are enough, or no descriptors are left. */
struct splice_pipe *splice_borrow(void);
/* Gives it back; what it held is lost. NULL is allowed. */
void splice_return(struct splice_pipe *p);
/*
 * From the connection into the pipe, which is empty, and from the pipe to the connection. As conn_read and conn_writev: bytes, 0 at
 * the end of data, -1 with errno, EAGAIN among them; whoever gets an error from the first may read instead, for no byte has moved.
 */
ssize_t splice_fill(struct splice_pipe *p, struct conn *from, size_t most);
ssize_t splice_empty(struct splice_pipe *p, struct conn *to);
/* Closes those that are kept. */
void splice_trim(void);

#endif
