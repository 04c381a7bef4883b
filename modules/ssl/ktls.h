/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Encryption of records by the kernel: what has to be said to a socket for it (ktls.c). Nothing here knows of connections; conn_tls_kernel.c
 * does.
 */
#ifndef MODULES_SSL_KTLS_H
#define MODULES_SSL_KTLS_H

#include <sys/types.h>

#include "core/base/log.h"
#include "modules/ssl/seal.h"

/* The writing half of a socket whose keys the kernel has. Zeroed: it has none. */
struct ktls {
    uint64_t sum;     /* private: bytes that TCP was given, less what encryption added to them */
    uint8_t extra;    /* private: what it adds to a record; 0: the kernel has no keys */
    uint8_t info_len; /* private: of the keys in the kernel's form */
};

static inline bool ktls_active(const struct ktls *k)
{
    return k->extra != 0;
}

/* What is written from now on has been encrypted by the kernel, or is on its way to be. */
static inline void ktls_wrote(struct ktls *k, size_t n)
{
    k->sum += n;
}

/*
 * For the master: whether the kernel could do it at all, which also makes it load the module, as only the master may. If not, that is logged,
 * and workers need not ask.
 */
void ktls_prepare(const struct logger *log);
/*
 * The keys of s, with the number of the next record, go to the kernel for good; whatever was encrypted with them has been written before. False:
 * it does not take them, and s is used further. What no other socket would fare better with is asked once in a process, and logged.
 */
bool ktls_give(struct ktls *k, int fd, const struct seal *s, const struct logger *log);
/* A record of another type than data, as a whole. Bytes, or -1 with errno. */
ssize_t ktls_say(struct ktls *k, int fd, uint8_t type, const void *ptr, size_t len);

struct ktls_progress {
    uint64_t acked; /* bytes that the peer has confirmed */
    bool done;      /* TCP has all that was written, or nothing can be done for it any more */
    bool idle;      /* TCP has nothing to send */
};

/*
 * Where what was written is. The kernel accepts up to a record more than TCP has room for, and forgets that when the socket is closed, or its
 * end is announced.
 */
struct ktls_progress ktls_progress(const struct ktls *k, int fd);

#endif
