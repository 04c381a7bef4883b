/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection over TLS, for the three files that it is made of: what is said and heard (conn_tls_wire.c), the handshake with its early data
 * (conn_tls_shake.c), and the operations of a conn (conn_tls.c). Nobody else includes this.
 */
#ifndef MODULES_SSL_CONN_TLS_H
#define MODULES_SSL_CONN_TLS_H

#include <errno.h>

#include "core/base/list.h"
#include "core/event/conn_kind.h"
#include "modules/ssl/ktls.h"
#include "modules/ssl/ssl.h"

#define SILENT_MAX \
    32 /* records without data (key updates, alerts) that one read looks at: then others have their turn */
#define EARLY_MAX CONN_TLS_EARLY_MAX

enum {
    TLS_SHAKING,
    TLS_EARLY, /* shaking, but early data has come: it can be read, and answers be written */
    TLS_OPEN,
    TLS_FAILED,
};

struct conn_tls {
    struct conn conn; /* first */
    struct conn *raw;
    SSL *ssl;
    const struct conn_tls_options *options;
    struct tls_first first; /* to be read before anything of raw */
    struct block *out;      /* encrypted and not sent: bytes out_start..out_end */
    size_t out_start, out_end;
    struct block *
        early; /* came before the handshake's end and has not been read: bytes early_start..early_end */
    size_t early_start, early_end;
    size_t accepted;   /* bytes that were encrypted, but that writev has not reported yet */
    uint64_t wrote_ms; /* when something was last written */
    uint32_t burst;    /* bytes written since the last pause */
    uint32_t records;  /* written since we last changed our key */
    char *failure; /* the client's end: what failed, for whoever uses it, who knows what it was about */
    int failure_errno, failure_reason;
    struct seal seal;    /* active: records are encrypted by us */
    struct ktls kernel;  /* active: by the kernel */
    uint8_t seal_type;   /* of what the library writes next; 0: data */
    uint8_t out_type;    /* of what `out` holds, which the kernel will encrypt; 0: it has been encrypted */
    bool kernel_settled; /* it is known whether the kernel has the keys, and stays so */
    uint8_t state;
    bool eof;        /* of raw */
    bool rejected;   /* a callback of ours wanted the handshake to fail */
    bool shut;       /* close_notify is out, or on its way */
    bool shut_raw;   /* raw is to be shut as soon as `out` has gone */
    bool early_due;  /* early data may come, or more of it */
    bool held;       /* early data is not to be told of before the handshake has ended */
    bool shut_later; /* shutdown was asked for before the handshake's end */
    bool answered;   /* what the fibre waits for has come */
    bool queued;     /* in `waiting` */
    struct fibre *fibre; /* the handshake has paused in it; NULL: it has not */
    struct list wait;    /* for a fibre, in `waiting` */
};

static inline struct conn_tls *tls_of(const struct conn *c)
{
    return container_of(c, struct conn_tls, conn);
}

/* More can be read without waiting: of what has come already, or of raw. */
static inline bool tls_more_in(const struct conn_tls *t)
{
    return t->early != NULL || SSL_has_pending(t->ssl) || t->first.block != NULL ||
           (t->raw->ready & CONN_READ);
}

/* An operation has failed for good: -1 with errno. */
static inline int tls_give_up(struct conn_tls *t, int err)
{
    t->state = TLS_FAILED;
    t->conn.ready = CONN_READ | CONN_WRITE | CONN_HUP;
    errno = err;
    return -1;
}

/* Where in the caller's vector a write is. */
struct cursor {
    const struct iovec *iov;
    size_t offset; /* into *iov */
    size_t left;   /* in all */
};

static inline void cursor_skip(struct cursor *at, size_t n)
{
    at->left -= n;
    at->offset += n;
    while (at->left > 0 && at->offset >= at->iov->iov_len)
        at->offset -= (at->iov++)->iov_len;
}

/* conn_tls_wire.c ---------------------------------------------------------------------------- */

/* The library's way in and out. NULL: no memory. */
BIO *wire_bio(struct conn_tls *t);
/* Before a function of the library is called. What was kept goes first. */
void wire_begin(struct conn_tls *t);
/* After it: one send. How many bytes of the wire have gone; what has not is kept. -1 with errno: raw is broken. */
ssize_t wire_end(struct conn_tls *t);
/* After it: nothing is sent yet; what is behind the first n bytes is kept. */
void wire_keep(struct conn_tls *t, size_t n);
/* After it: whatever it has written is void. */
void wire_void(void);
bool wire_is_empty(void);
/* What is kept, as far as raw takes it. 0 or -1. */
int wire_flush(struct conn_tls *t);
/* close_notify, once. 0, or -1: raw is broken. */
int wire_goodbye(struct conn_tls *t);
/* That and the end of raw, as soon as what is kept has gone. */
int wire_shut(struct conn_tls *t);
/* Encrypts as much as one send takes, and sends it. Bytes reported, -1 with errno. */
ssize_t wire_write(struct conn_tls *t, struct cursor *at);
/* raw takes no more: it will say when it does. */
void wire_blocked(struct conn_tls *t);
/* Frees what connections share. */
void wire_trim(void);

/* conn_tls_kernel.c -------------------------------------------------------------------------- */

/*
 * Whether the kernel encrypts what is written next, of which so many bytes are a file's. Where it is to, and enough is written for that, it is
 * given the keys here.
 */
bool kernel_writes(struct conn_tls *t, size_t file_bytes);
/* As wire_write, and the same of a file, where it does. */
ssize_t kernel_write(struct conn_tls *t, struct cursor *at);
ssize_t kernel_sendfile(struct conn_tls *t, int fd, off_t offset, size_t len);
/* The end of raw, as soon as the kernel has given everything to TCP. 0 or -1. */
int kernel_shut(struct conn_tls *t);
/* raw is closed then; t may go before. */
void kernel_close(struct conn_tls *t);

/* conn_tls_shake.c ---------------------------------------------------------------------------- */

/* The handshake, as far as it goes now. */
void tls_shake(struct conn_tls *t);
void tls_shake_failed(struct conn_tls *t, int sslerr, int err);
/* The connection ends in the midst of it: the library gets no answer, and comes back. */
void tls_abandon(struct conn_tls *t);
void tls_drop_early(struct conn_tls *t);
/* Of no further use; whoever waits for anything learns of it. */
void tls_fail(struct conn_tls *t);
/* A function of the library has failed: logged, or, at the client's end, noted. */
void tls_tell_failure(struct conn_tls *t, int sslerr, int err, const char *what);

#endif
