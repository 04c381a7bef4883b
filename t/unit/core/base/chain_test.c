/* SPDX-License-Identifier: BSD-2-Clause */
/* Chains: mixes of memory, files and links, references, splitting, recycling. */
#include "core/base/chain.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/sanitize.h"
#include "t/unit/tap.h"

/* The invariants that every chain keeps. */
static bool sound(const struct chain *c)
{
    const struct piece *p, *last = NULL;
    uint64_t sum = 0;

    for (p = c->first; p; p = p->next) {
        if ((p->kind == PIECE_LINK) != (p->len == 0))
            return false;
        sum += p->len;
        last = p;
    }
    return sum == c->bytes && last == c->last;
}

static unsigned pieces(const struct chain *c)
{
    unsigned n = 0;

    for (const struct piece *p = c->first; p; p = p->next)
        n++;
    return n;
}

#define IS_TEXT(c, text, ...)                                                    \
    do {                                                                         \
        struct arena *text_arena = arena_new();                                  \
        struct str text_got = chain_flatten((c), text_arena);                    \
        is_bytes(text_got.ptr, text_got.len, (text), strlen(text), __VA_ARGS__); \
        ok(sound(c), "which is sound");                                          \
        arena_destroy(text_arena);                                               \
    } while (0)

static void test_memory(void)
{
    struct chain c = CHAIN_INIT, d = CHAIN_INIT;
    struct block *b = block_new(100);
    struct iovec iov[4];
    size_t bytes;

    ok(b->size >= 100 && (uintptr_t) b->data % 16 == 0, "a block is large enough and aligned");
    memcpy(b->data, "0123456789", 10);
    chain_push_mem(&c, b, b->data, 4);
    chain_push_mem(&c, b, b->data + 4, 3);
    is_uint(pieces(&c), 1, "slices that follow each other are one piece");
    is_uint(b->refs, 2, "with one reference");
    chain_push_mem(&c, b, b->data + 8, 2);
    chain_push_mem(&c, b, b->data, 0);
    chain_push_str(&c, STR("xyz"));
    chain_push_str(&c, STR(""));
    is_uint(pieces(&c), 3, "others are pieces of their own, empty ones none");
    is_uint(b->refs, 3, "each with its reference");
    IS_TEXT(&c, "012345689xyz", "all of it");
    is_int(chain_iov(&c, iov, 2, &bytes), 2, "as many iovecs as are asked for");
    is_uint(bytes, 9, "and what they hold");
    is_int(chain_iov(&c, iov, 4, &bytes), 3, "or as there are");
    is_uint(bytes, 12, "with all bytes");
    is_mem(iov[2].iov_base, "xyz", 3, "memory that outlives the chain goes by reference");

    is_uint(chain_take(&d, &c, 5), 5, "taking splits a piece");
    IS_TEXT(&d, "01234", "the front");
    IS_TEXT(&c, "5689xyz", "the rest");
    is_uint(b->refs, 4, "both halves hold the block");
    is_uint(chain_take(&d, &c, 2), 2, "taking up to a border");
    is_uint(b->refs, 4, "moves the piece itself");
    is_uint(chain_take(&d, &c, 100), 5, "taking more than there is takes all");
    ok(chain_empty(&c) && c.bytes == 0 && sound(&c), "and leaves nothing");
    is_uint(chain_take(&d, &c, 1), 0, "nothing from nothing");
    IS_TEXT(&d, "012345689xyz", "put together again");

    chain_consume(&d, 0);
    chain_consume(&d, 3);
    IS_TEXT(&d, "345689xyz", "consuming within a piece");
    chain_consume(&d, 6);
    IS_TEXT(&d, "xyz", "and over borders");
    is_uint(b->refs, 1, "gives references back");
    chain_consume(&d, 3);
    ok(chain_empty(&d) && d.last == NULL, "to the end");
    block_unref(b);
    block_unref(NULL);
}

static void test_write(void)
{
    struct chain c = CHAIN_INIT, d = CHAIN_INIT;
    size_t big_len = 3 * BLOCK_LARGE + 77;
    char *big = mem_alloc(big_len);
    struct arena *arena = arena_new();
    struct block *b;
    struct str s;

    for (size_t i = 0; i < big_len; i++)
        big[i] = (char) (i * 31 >> 3);
    chain_write(&c, "abc", 3);
    chain_printf(&c, "-%d-", 42);
    chain_write(&c, "", 0);
    is_uint(pieces(&c), 1, "small writes fill one block");
    IS_TEXT(&c, "abc-42-", "one after the other");

    /* The tail of a block that another chain also holds must not be written to. */
    is_uint(chain_take(&d, &c, 3), 3, "a half goes elsewhere");
    chain_write(&d, "XYZ", 3);
    IS_TEXT(&c, "-42-", "the other half is as it was");
    IS_TEXT(&d, "abcXYZ", "though the first was written on");
    chain_write(&c, "c", 1);
    IS_TEXT(&c, "-42-c", "a shared block is not filled");
    is_uint(pieces(&c), 2, "but a new one begun");
    chain_clear(&d);
    chain_clear(&c);

    b = block_new(10);
    memcpy(b->data, "hello!", 6);
    chain_push_mem(&c, b, b->data, 5);
    chain_write(&c, "?", 1);
    is_mem(b->data, "hello!", 6, "a block that somebody still fills is left alone");
    IS_TEXT(&c, "hello?", "the text goes on elsewhere");
    block_unref(b);
    chain_clear(&c);

    chain_write(&c, big, 10);
    chain_write(&c, big + 10, big_len - 10);
    is_uint(c.bytes, big_len, "a large write");
    s = chain_flatten(&c, arena);
    is_bytes(s.ptr, s.len, big, big_len, "keeps every byte");
    chain_clear(&c);
    chain_printf(&c, "%.*s%s", 2000, "", "x");
    IS_TEXT(&c, "x", "printf");
    memset(big, 'q', 5000);
    chain_printf(&c, "%.*s", 5000, big);
    is_uint(c.bytes, 5001, "printf of more than its first buffer");
    chain_clear(&c);
    arena_destroy(arena);
    free(big);
}

static void test_files_and_links(void)
{
    char name[] = "/tmp/proxyd-chain-XXXXXX";
    int fd = mkstemp(name);
    struct chain c = CHAIN_INIT, d = CHAIN_INIT, sub = CHAIN_INIT;
    struct chain_file *file = chain_file_new(fd);
    struct iovec iov[4];
    size_t bytes;

    unlink(name);
    chain_push_str(&c, STR("head"));
    chain_push_file(&c, file, 100, 50);
    chain_push_file(&c, file, 150, 10);
    chain_push_file(&c, file, 200, 0);
    is_uint(pieces(&c), 2, "file ranges that follow each other are one piece");
    is_uint(file->refs, 2, "with one reference");
    chain_push_link(&c, &sub);
    chain_push_str(&c, STR("tail"));
    is_uint(c.bytes, 68, "a link counts nothing");
    is_int(chain_iov(&c, iov, 4, &bytes), 1, "iovecs stop at a file");
    is_uint(bytes, 4, "with the bytes before it");

    is_uint(chain_take(&d, &c, 24), 24, "memory and a part of a file");
    is_uint(file->refs, 3, "both parts hold the file");
    ok(d.last->file.offset == 100 && d.last->len == 20, "the front part");
    ok(c.first->file.offset == 120 && c.first->len == 40, "the rear part");
    is_uint(chain_take(&d, &c, 1000), 40, "taking stops at the link");
    is_uint(pieces(&d), 3, "a whole piece is moved as it is");
    ok(c.first->kind == PIECE_LINK && c.first->link == &sub && c.bytes == 4, "which stays");
    is_uint(chain_take(&d, &c, 1), 0, "nothing passes it");
    is_int(chain_iov(&c, iov, 4, &bytes), 0, "no iovec either");
    ok(sound(&c) && sound(&d), "both are sound");
    chain_drop_link(&c);
    ok(c.first->kind == PIECE_MEM && c.bytes == 4 && sound(&c), "a link that is done is dropped");

    chain_consume(&d, 4 + 10);
    ok(d.first->kind == PIECE_FILE && d.first->file.offset == 110 && d.first->len == 10,
       "consuming moves a file's offset");
    chain_prepend(&c, &d);
    ok(chain_empty(&d) && c.bytes == 54 && sound(&c), "prepended");
    ok(c.first->kind == PIECE_FILE && c.last->kind == PIECE_MEM, "in order");
    chain_append(&d, &c);
    chain_append(&d, &c);
    ok(chain_empty(&c) && d.bytes == 54 && sound(&d),
       "appended, and an empty chain changes nothing");
    chain_prepend(&d, &c);
    ok(d.bytes == 54 && sound(&d) && sound(&c), "nor does it when prepended");
    chain_clear(&d);
    is_uint(file->refs, 1, "clearing gives the references back");
    ok(fcntl(fd, F_GETFD) >= 0, "the file is open while somebody holds it");
    chain_file_unref(file);
    ok(fcntl(fd, F_GETFD) < 0, "and closed by the last");
    chain_file_unref(NULL);
}

static struct chain_file *released;

static void on_release(struct chain_file *file)
{
    released = file;
}

static void test_release(void)
{
    struct chain_file file = { .refs = 1, .fd = -1, .release = on_release };
    struct chain c = CHAIN_INIT;

    chain_push_file(&c, &file, 0, 1);
    chain_file_unref(&file);
    ok(released == NULL, "a file is not released while a chain holds it");
    chain_clear(&c);
    ok(released == &file, "then its owner is told");
}

static void pass(size_t len, const char *data)
{
    struct chain in = CHAIN_INIT, out = CHAIN_INIT;
    struct block *b = block_new(BLOCK_LARGE);

    memcpy(b->data, data, len);
    chain_push_mem(&in, b, b->data, len);
    block_unref(b);
    chain_write(&out, "head", 4);
    chain_take(&out, &in, 7);
    chain_append(&out, &in);
    while (!chain_empty(&out))
        chain_consume(&out, MIN(out.bytes, 5));
}

static void test_recycling(void)
{
    struct block *a, *b;
    uint64_t before;

    pass(100, "0123456789012345678901234567890123456789012345678901234567890123456789"
              "012345678901234567890123456789");
    before = mem_allocations;
    for (int i = 0; i < 1000; i++)
        pass(20, "01234567890123456789");
    is_uint(mem_allocations, before, "moving bodies costs no call to malloc once warm");
    a = block_new(1);
    block_unref(a);
    b = block_new(BLOCK_SMALL);
    ok(a == b, "the block given back last is used first");
    is_uint(b->size, BLOCK_SMALL, "a small block");
    block_unref(b);
    b = block_new(BLOCK_SMALL + 1);
    is_uint(b->size, BLOCK_LARGE, "a large block");
    block_unref(b);
    b = block_new(BLOCK_LARGE + 1);
    is_uint(b->size, BLOCK_LARGE + 1, "a block of its own size");
    b->data[BLOCK_LARGE] = 'x';
    block_unref(b);
    block_trim();
    before = mem_allocations;
    block_unref(block_new(1));
    is_uint(mem_allocations, before + 1, "after a trim nothing is kept");
}

static void test_many(void)
{
    static struct block *blocks[600];

    /* More than the free list keeps: the rest must go back to malloc, which the leak check sees. */
    for (unsigned i = 0; i < ARRAY_LEN(blocks); i++)
        blocks[i] = block_new(1);
    for (unsigned i = 0; i < ARRAY_LEN(blocks); i++)
        block_unref(blocks[i]);
    ok(1, "many blocks come and go");
}

static void test_poison(void)
{
#ifdef WITH_ASAN
    struct chain c = CHAIN_INIT;
    const char *data;
    struct piece *p;

    chain_write(&c, "x", 1);
    p = c.first;
    data = p->mem.ptr;
    ok(!__asan_address_is_poisoned(data), "a block in use");
    chain_clear(&c);
    ok(__asan_address_is_poisoned(data), "a recycled block is not to be touched");
    ok(__asan_address_is_poisoned(p), "nor is a recycled piece");
#else
    skip("built without the sanitizer");
#endif
}

int main(void)
{
    test_memory();
    test_write();
    test_files_and_links();
    test_release();
    test_recycling();
    test_many();
    test_poison();
    block_trim();
    arena_trim();
    return done_testing();
}
