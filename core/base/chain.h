/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bodies. A chain is a queue of pieces with a byte count: a MEM slice of a reference-counted
 * block (or of memory that outlives the chain), a FILE range, or a LINK to another chain: the
 * place where a subrequest's output will stand. Bytes travel by reference: what was read from an upstream
 * socket is what is written to the client's. The end of data is an argument of the calls that
 * pass a chain on, never a flag in it. Pieces and blocks are recycled per process.
 * Not for sharing between threads.
 */
#ifndef CORE_BASE_CHAIN_H
#define CORE_BASE_CHAIN_H

#include <sys/uio.h>

#include "core/base/str.h"

/* I/O buffers. Two recycled sizes; anything else is malloc'ed and freed. */
#define BLOCK_SMALL (16 * 1024 - 32)
#define BLOCK_LARGE (64 * 1024 - 32)

struct block {
    unsigned refs;
    unsigned class_;     /* private: which free list */
    size_t size;         /* bytes at data */
    struct block *next;  /* private: free list */
    char data[] __attribute__((aligned(16)));
};

/* A block with one reference and at least size bytes. Never NULL. */
struct block *block_new(size_t size);
/* The same with no byte to spare, and not recycled: for contents that are kept. */
struct block *block_new_exact(size_t size);
static inline struct block *block_ref(struct block *b)
{
    b->refs++;
    return b;
}
/* Drops a reference; the last one gives the block back. NULL is allowed. */
void block_unref(struct block *b);
/* Frees all recycled blocks and pieces (for leak checks at exit, and when memory is short). */
void block_trim(void);

/*
 * An open file shared by pieces. When the last reference is gone, release is called and owns the
 * structure; without release, fd is closed and the structure freed (it came from chain_file_new).
 */
struct chain_file {
    unsigned refs;
    int fd;
    void (*release)(struct chain_file *file);
};

struct chain_file *chain_file_new(int fd); /* one reference; closes fd at the end */
void chain_file_unref(struct chain_file *file);

enum piece_kind { PIECE_MEM, PIECE_FILE, PIECE_LINK };

struct piece {
    struct piece *next;
    enum piece_kind kind;
    union {
        struct {
            const char *ptr;
            struct block *block; /* NULL: memory that outlives the chain */
        } mem;
        struct {
            off_t offset;
            struct chain_file *file;
        } file;
        struct chain *link; /* owned by the subrequest; counts no bytes here */
    };
    uint64_t len; /* 0 for a LINK */
};

struct chain {
    struct piece *first;
    struct piece *last;
    uint64_t bytes; /* of MEM and FILE pieces */
};

#define CHAIN_INIT ((struct chain){ NULL, NULL, 0 })

static inline bool chain_empty(const struct chain *c)
{
    return c->first == NULL;
}

/* Appends len bytes at ptr inside block, taking a reference of its own. block may be NULL. */
void chain_push_mem(struct chain *c, struct block *block, const char *ptr, size_t len);
void chain_push_str(struct chain *c, struct str s); /* memory that outlives the chain */
/* Appends a file range, taking a reference. */
void chain_push_file(struct chain *c, struct chain_file *file, off_t offset, uint64_t len);
void chain_push_link(struct chain *c, struct chain *link);
/* Copies bytes in, filling the last block if this chain alone holds it and it has room. */
void chain_write(struct chain *c, const char *ptr, size_t len);
void chain_printf(struct chain *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Moves all pieces of src to the end (append) or the front (prepend) of dst. src is empty after. */
void chain_append(struct chain *dst, struct chain *src);
void chain_prepend(struct chain *dst, struct chain *src);
/* Moves the first n bytes (fewer if there are fewer), up to the first LINK, from src to the end of dst. Returns how many. */
uint64_t chain_take(struct chain *dst, struct chain *src, uint64_t n);
/* Drops the first n bytes; n may not exceed bytes. */
void chain_consume(struct chain *c, uint64_t n);
/* Drops the first piece, which is a LINK. */
void chain_drop_link(struct chain *c);
void chain_clear(struct chain *c);
/*
 * Fills at most max iovecs from the leading MEM pieces (stops at the first FILE or LINK).
 * Returns how many; *bytes says how much they hold.
 */
int chain_iov(const struct chain *c, struct iovec *iov, int max, size_t *bytes);
/* Copies all leading MEM bytes into one string in an arena (bodies kept in memory). */
struct str chain_flatten(const struct chain *c, struct arena *arena);

#endif
