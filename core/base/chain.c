/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chains of pieces, the blocks they refer to, and the free lists of both. Called by everything
 * that moves a body; does no I/O of its own but closing a file with its last reference. No piece
 * but a LINK is ever empty, so an empty chain has no pieces.
 */
#include "core/base/chain.h"

#include <unistd.h>

#include "core/base/arena.h"

enum block_class { CLASS_SMALL, CLASS_LARGE, CLASS_OTHER };

/* What is kept for reuse; LIFO, so that what is reused is still in the processor's cache. */
#define FREE_SMALL_MAX 1024
#define FREE_LARGE_MAX 256
#define FREE_PIECES_MAX 4096

static struct block_list {
    struct block *first;
    unsigned count;
    unsigned max;
    size_t size;
} free_blocks[CLASS_OTHER] = {
    [CLASS_SMALL] = { NULL, 0, FREE_SMALL_MAX, BLOCK_SMALL },
    [CLASS_LARGE] = { NULL, 0, FREE_LARGE_MAX, BLOCK_LARGE },
};

static struct piece *free_pieces;
static unsigned free_pieces_count;

struct block *block_new(size_t size)
{
    unsigned class_ = size <= BLOCK_SMALL   ? CLASS_SMALL
                      : size <= BLOCK_LARGE ? CLASS_LARGE
                                            : CLASS_OTHER;
    struct block_list *list = &free_blocks[class_];
    struct block *b;

    if (likely(class_ != CLASS_OTHER)) {
        b = list->first;
        if (likely(b != NULL)) {
            list->first = b->next;
            list->count--;
            MEM_UNPOISON(b->data, b->size);
            b->refs = 1;
            return b;
        }
        size = list->size;
    }
    b = mem_alloc(size > SIZE_MAX - sizeof(*b) ? SIZE_MAX : sizeof(*b) + size);
    b->refs = 1;
    b->class_ = class_;
    b->size = size;
    b->next = NULL;
    return b;
}

void block_unref(struct block *b)
{
    struct block_list *list;

    if (b == NULL)
        return;
    ASSERT(b->refs > 0);
    if (--b->refs > 0)
        return;
    if (b->class_ == CLASS_OTHER || free_blocks[b->class_].count >= free_blocks[b->class_].max) {
        free(b);
        return;
    }
    list = &free_blocks[b->class_];
    b->next = list->first;
    list->first = b;
    list->count++;
    MEM_POISON(b->data, b->size);
}

struct block *block_new_exact(size_t size)
{
    struct block *b = mem_alloc(size > SIZE_MAX - sizeof(*b) ? SIZE_MAX : sizeof(*b) + size);

    b->refs = 1;
    b->class_ = CLASS_OTHER;
    b->size = size;
    b->next = NULL;
    return b;
}

static struct piece *piece_new(enum piece_kind kind, uint64_t len)
{
    struct piece *p = free_pieces;

    if (likely(p != NULL)) {
        MEM_UNPOISON(p, sizeof(*p));
        free_pieces = p->next;
        free_pieces_count--;
    } else {
        p = mem_alloc(sizeof(*p));
    }
    p->next = NULL;
    p->kind = kind;
    p->len = len;
    return p;
}

/* Gives the piece's reference and the piece back. */
static void piece_free(struct piece *p)
{
    if (p->kind == PIECE_MEM)
        block_unref(p->mem.block);
    else if (p->kind == PIECE_FILE)
        chain_file_unref(p->file.file);
    if (free_pieces_count >= FREE_PIECES_MAX) {
        free(p);
        return;
    }
    p->next = free_pieces;
    free_pieces = p;
    free_pieces_count++;
    MEM_POISON(p, sizeof(*p));
}

void block_trim(void)
{
    for (unsigned i = 0; i < ARRAY_LEN(free_blocks); i++) {
        struct block_list *list = &free_blocks[i];

        while (list->first) {
            struct block *b = list->first;

            list->first = b->next;
            MEM_UNPOISON(b->data, b->size);
            free(b);
        }
        list->count = 0;
    }
    while (free_pieces) {
        struct piece *p = free_pieces;

        MEM_UNPOISON(p, sizeof(*p));
        free_pieces = p->next;
        free(p);
    }
    free_pieces_count = 0;
}

struct chain_file *chain_file_new(int fd)
{
    struct chain_file *file = mem_alloc(sizeof(*file));

    file->refs = 1;
    file->fd = fd;
    file->release = NULL;
    return file;
}

void chain_file_unref(struct chain_file *file)
{
    if (file == NULL)
        return;
    ASSERT(file->refs > 0);
    if (--file->refs > 0)
        return;
    if (file->release) {
        file->release(file);
        return;
    }
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

static void push(struct chain *c, struct piece *p)
{
    if (c->last)
        c->last->next = p;
    else
        c->first = p;
    c->last = p;
    c->bytes += p->len;
}

void chain_push_mem(struct chain *c, struct block *block, const char *ptr, size_t len)
{
    struct piece *last = c->last;
    struct piece *p;

    if (len == 0)
        return;
    /* Consecutive reads into one block make one piece, hence one iovec. */
    if (block && last && last->kind == PIECE_MEM && last->mem.block == block &&
        last->mem.ptr + last->len == ptr) {
        last->len += len;
        c->bytes += len;
        return;
    }
    p = piece_new(PIECE_MEM, len);
    p->mem.ptr = ptr;
    p->mem.block = block ? block_ref(block) : NULL;
    push(c, p);
}

void chain_push_str(struct chain *c, struct str s)
{
    chain_push_mem(c, NULL, s.ptr, s.len);
}

void chain_push_file(struct chain *c, struct chain_file *file, off_t offset, uint64_t len)
{
    struct piece *last = c->last;
    struct piece *p;

    if (len == 0)
        return;
    if (last && last->kind == PIECE_FILE && last->file.file == file &&
        last->file.offset + (off_t) last->len == offset) {
        last->len += len;
        c->bytes += len;
        return;
    }
    p = piece_new(PIECE_FILE, len);
    p->file.offset = offset;
    p->file.file = file;
    file->refs++;
    push(c, p);
}

void chain_push_link(struct chain *c, struct chain *link)
{
    struct piece *p = piece_new(PIECE_LINK, 0);

    p->link = link;
    push(c, p);
}

/*
 * How many bytes may be written behind the last piece: none unless its block is held by this one
 * piece alone, for else somebody may be reading or filling what follows.
 */
static size_t tail_room(const struct chain *c, char **end)
{
    const struct piece *p = c->last;
    struct block *b;
    size_t at;

    if (p == NULL || p->kind != PIECE_MEM || (b = p->mem.block) == NULL || b->refs != 1)
        return 0;
    at = (size_t) (p->mem.ptr + p->len - b->data);
    *end = b->data + at;
    return b->size - at;
}

void chain_write(struct chain *c, const char *ptr, size_t len)
{
    while (len) {
        char *end = NULL;
        size_t room = tail_room(c, &end);
        struct block *b;
        size_t n;

        if (room) {
            n = MIN(room, len);
            memcpy(end, ptr, n);
            c->last->len += n;
            c->bytes += n;
        } else {
            b = block_new(len > BLOCK_SMALL ? BLOCK_LARGE : len);
            n = MIN(b->size, len);
            memcpy(b->data, ptr, n);
            chain_push_mem(c, b, b->data, n);
            block_unref(b);
        }
        ptr += n;
        len -= n;
    }
}

void chain_printf(struct chain *c, const char *fmt, ...)
{
    char small[1024];
    char *big;
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    if ((size_t) n < sizeof(small)) {
        chain_write(c, small, (size_t) n);
    } else {
        big = mem_alloc((size_t) n + 1);
        vsnprintf(big, (size_t) n + 1, fmt, again);
        chain_write(c, big, (size_t) n);
        free(big);
    }
    va_end(again);
}

void chain_append(struct chain *dst, struct chain *src)
{
    ASSERT(dst != src);
    if (src->first == NULL)
        return;
    if (dst->last)
        dst->last->next = src->first;
    else
        dst->first = src->first;
    dst->last = src->last;
    dst->bytes += src->bytes;
    *src = CHAIN_INIT;
}

void chain_prepend(struct chain *dst, struct chain *src)
{
    ASSERT(dst != src);
    chain_append(src, dst);
    *dst = *src;
    *src = CHAIN_INIT;
}

/* Takes the first piece off. */
static struct piece *pop(struct chain *c)
{
    struct piece *p = c->first;

    c->first = p->next;
    if (c->first == NULL)
        c->last = NULL;
    c->bytes -= p->len;
    p->next = NULL;
    return p;
}

/* Shortens the first piece, which has more than n bytes, from the front. */
static void advance(struct chain *c, uint64_t n)
{
    struct piece *p = c->first;

    if (p->kind == PIECE_MEM)
        p->mem.ptr += n;
    else
        p->file.offset += (off_t) n;
    p->len -= n;
    c->bytes -= n;
}

uint64_t chain_take(struct chain *dst, struct chain *src, uint64_t n)
{
    uint64_t left = n;

    ASSERT(dst != src);
    while (left && src->first && src->first->kind != PIECE_LINK) {
        struct piece *p = src->first;

        if (p->len <= left) {
            left -= p->len;
            push(dst, pop(src));
            continue;
        }
        if (p->kind == PIECE_MEM)
            chain_push_mem(dst, p->mem.block, p->mem.ptr, (size_t) left);
        else
            chain_push_file(dst, p->file.file, p->file.offset, left);
        advance(src, left);
        left = 0;
    }
    return n - left;
}

void chain_consume(struct chain *c, uint64_t n)
{
    ASSERT(n <= c->bytes);
    while (n) {
        struct piece *p = c->first;

        ASSERT(p->kind != PIECE_LINK);
        if (p->len > n) {
            advance(c, n);
            return;
        }
        n -= p->len;
        piece_free(pop(c));
    }
}

void chain_clear(struct chain *c)
{
    while (c->first)
        piece_free(pop(c));
}

int chain_iov(const struct chain *c, struct iovec *iov, int max, size_t *bytes)
{
    int n = 0;

    *bytes = 0;
    for (const struct piece *p = c->first; p && p->kind == PIECE_MEM && n < max; p = p->next) {
        iov[n].iov_base = (void *) (uintptr_t) p->mem.ptr;
        iov[n].iov_len = (size_t) p->len;
        *bytes += (size_t) p->len;
        n++;
    }
    return n;
}

struct str chain_flatten(const struct chain *c, struct arena *arena)
{
    size_t len = 0;
    const struct piece *p;
    char *ptr, *at;

    for (p = c->first; p && p->kind == PIECE_MEM; p = p->next)
        len += (size_t) p->len;
    ptr = at = arena_bytes(arena, len + 1);
    for (p = c->first; p && p->kind == PIECE_MEM; p = p->next) {
        memcpy(at, p->mem.ptr, (size_t) p->len);
        at += p->len;
    }
    *at = '\0';
    return str_from(ptr, len);
}

void chain_drop_link(struct chain *c)
{
    ASSERT(c->first != NULL && c->first->kind == PIECE_LINK);
    piece_free(pop(c));
}
