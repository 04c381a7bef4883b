/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A byte stream with a peer: seven operations, whatever carries them: tcp and unix sockets, mem (a
 * pair in memory, for tests), later TLS over any conn and QUIC streams. Everything above is
 * ignorant of which.
 *
 * Readiness: `ready` holds what is known to be possible without EAGAIN; the operations keep it.
 * The owner says with conn_want what it wishes to be told; its handler is then called from the
 * loop (never from inside conn_want) whenever something wanted becomes or already is ready. A
 * socket is added to epoll once, edge-triggered, and never touched again.
 */
#ifndef CORE_EVENT_CONN_H
#define CORE_EVENT_CONN_H

#include <sys/uio.h>

#include "core/base/log.h"
#include "core/base/chain.h"
#include "core/event/loop.h"
#include "core/event/timer.h"
#include "core/os/socket.h"

enum {
    CONN_READ = 1,  /* data, or the end of it, or an error: a read will not return EAGAIN */
    CONN_WRITE = 2, /* room, or an error */
    CONN_HUP = 4,   /* the peer sent FIN (half close) or RST, seen without reading */
};

struct conn;

struct conn_info {
    const char *kind;      /* "tcp", "unix", "mem", "tls" */
    int fd;                /* -1 when there is none of its own */
    bool plain;            /* a socket on whose descriptor the kernel reads and writes what the conn does */
};

/*
 * read, writev, sendfile: bytes moved (> 0); 0 from read is the end of data; -1 with errno: EAGAIN
 * (the ready bit is cleared) or an error, after which only close makes sense. A write shorter than
 * asked clears the ready bit too, and so does such a read unless the peer has already hung up.
 * With the bit clear they return EAGAIN without asking the system. A file that ends before its
 * range does is ENODATA. A conn that never sends files by reference has NULL for sendfile; one that does not send this one
 * so, now, says EOPNOTSUPP, and the file is read.
 */
struct conn_ops {
    const char *kind;
    ssize_t (*read)(struct conn *c, void *buf, size_t len);
    ssize_t (*writev)(struct conn *c, const struct iovec *iov, int n);
    ssize_t (*sendfile)(struct conn *c, int fd, off_t offset, size_t len);
    void (*want)(struct conn *c, unsigned what);
    int (*shutdown)(struct conn *c);              /* no more writing: FIN, close_notify */
    void (*close)(struct conn *c);                /* called by conn_close only */
    void (*info)(const struct conn *c, struct conn_info *info);
};

struct conn {
    const struct conn_ops *ops;
    /* Called from the loop with the wanted bits that are ready. Set before the first conn_want. */
    void (*handler)(struct conn *c, unsigned ready);
    void *owner;
    struct watch watch;
    unsigned char ready;
    unsigned char wants;
    bool closed;
    bool reset_on_close;  /* close with RST (reset_timedout_connection) */
    bool corked : 1;      /* private to conn_send: more follows at once (MSG_MORE) */
    bool ends : 1;        /* the owner's: nothing is written after what conn_send is given next */
    bool last : 1;        /* private to conn_send: nor after this call; an end that is said (close_notify) can go with it */
    bool layered : 1;     /* stands on another conn, which is the one that counts */
    bool unix_peer;
    uint16_t peer_len;    /* of peer */
    uint64_t bytes_in;
    uint64_t bytes_out;
    /* To here a cache line: all that reading and writing touch. */
    struct timer timer;   /* the owner's: set its fire */
    union {
        struct later later;   /* private: delivers readiness that was already there */
        struct doomed doomed; /* private, once closed */
    };
    struct logger log;    /* log.conn: the serial number of the connection, also in $connection */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer; /* unix peers: family only */
};

/*
 * Takes over a connected or connecting non-blocking socket: adds it to epoll. ready is 0 until
 * epoll has spoken; whoever knows the socket to be connected sets CONN_WRITE (the listener does).
 * While it connects, CONN_WRITE comes with the outcome: ask socket_error. The struct is recycled
 * memory, zeroed. log is the process's, with the new number. NULL + errno (the fd is then still
 * the caller's).
 */
struct conn *conn_tcp(int fd, const struct sockaddr *peer, socklen_t peer_len);
/* Two ends in memory, each with a buffer of `capacity` bytes; for tests. */
void conn_mem_pair(struct conn *ends[2], size_t capacity);

static inline ssize_t conn_read(struct conn *c, void *buf, size_t len)
{
    return c->ops->read(c, buf, len);
}
static inline ssize_t conn_writev(struct conn *c, const struct iovec *iov, int n)
{
    return c->ops->writev(c, iov, n);
}
/*
 * what: the complete new set of wishes (0: leave me alone). The wishes stay until changed, but one
 * readiness is told once: a handler that leaves something readable unread asks again to be
 * called again.
 */
static inline void conn_want(struct conn *c, unsigned what)
{
    c->ops->want(c, what);
}
/*
 * Writes as much of the chain as goes, MEM by writev and FILE by sendfile (or read + writev where
 * the conn does not), at most `limit` bytes (0: no limit); consumes what was written. Bytes written (0
 * if nothing could be), or -1 with errno (never EAGAIN). With more to come (MSG_MORE in effect)
 * when `more`.
 */
ssize_t conn_send(struct conn *c, struct chain *chain, uint64_t limit, bool more);
int conn_shutdown(struct conn *c);
/* Closes at once; memory is given back when the turn is over. Timer and later are dropped. */
void conn_close(struct conn *c);
void conn_info(const struct conn *c, struct conn_info *info);
/* The local address (getsockname). 0 or -1. */
int conn_local_addr(const struct conn *c, struct addr *out);

/*
 * For other kinds (TLS over a conn): a recycled, zeroed conn that counts, with number and log.
 * Never NULL.
 */
struct conn *conn_new(const struct conn_ops *ops);
/* Notes that `what` is ready and lets the handler know from the loop if it is wanted. */
void conn_set_ready(struct conn *c, unsigned what);

/* Connections open in this process, and given serial numbers. */
extern unsigned conn_count;
uint64_t conn_next_number(void);
/* From here on this process and those that it forks give each number once. Without memory for that each counts by itself. */
void conn_share_numbers(void);
/* Frees recycled memory (leak checks). */
void conn_trim(void);

/* A listening socket in the loop. accept and burst are set before listener_start. */
struct listener {
    struct watch watch;
    struct timer timer; /* private: the end of a pause for want of descriptors */
    void *owner;
    int fd;             /* private */
    bool paused;        /* by the owner */
    bool starved;       /* private: paused for want of descriptors */
    bool complained;    /* private: that has been logged, and no connection accepted since */
    unsigned burst; /* how many are accepted an event: 1 (more while they queue up), or UINT_MAX for multi_accept */
    unsigned allowed;   /* private: by the next event */
    uint64_t last_turn; /* private: in which one accepted all that it was allowed */
    /* A new connection; takes ownership of c. */
    void (*accept)(struct listener *l, struct conn *c);
};

/*
 * Starts accepting on fd. Out of descriptors (EMFILE…): pauses for 500 ms, logs crit once. 0 or
 * -1.
 */
int listener_start(struct listener *l, int fd);
/* Stops accepting; the descriptor stays open (the master holds it too). */
void listener_stop(struct listener *l);
/* Pauses and resumes when all worker_connections are in use. */
void listener_pause(struct listener *l);
void listener_resume(struct listener *l);

#endif
