/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: recoding (the first byte says which way), whole and in small pieces (the second
 * byte): the same must come out. ASCII is never lost, and what came from well-formed UTF-8 goes
 * back to it.
 */
#include "modules/http/charset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void add(struct arena *arena, struct recoding *there, struct recoding *back,
                unsigned char byte, const char *text)
{
    unsigned code;
    int n = utf8_decode((const unsigned char *) text, strlen(text), &code);

    check(n == (int) strlen(text), "a character");
    there->wide[byte].len = (unsigned char) n;
    memcpy(there->wide[byte].text, text, (size_t) n);
    recoding_add_page(arena, back, code, byte);
}

/* In pieces of `step` bytes, each in memory of its own. */
static struct str recode(struct arena *arena, const struct recoding *rec, const uint8_t *data,
                         size_t len, size_t step)
{
    struct recode_state state = { .len = 0 };
    struct chain out = CHAIN_INIT;
    struct str all;

    for (size_t at = 0; at < len || at == 0; at += step) {
        size_t n = MIN(step, len - at);
        struct chain in = CHAIN_INIT;
        char *copy = malloc(n + 1);

        memcpy(copy, data + at, n);
        chain_push_mem(&in, NULL, copy, n);
        recode_chain(rec, &state, &in, at + n >= len);
        for (const struct piece *p = in.first; p != NULL; p = p->next)
            chain_write(&out, p->mem.ptr, (size_t) p->len);
        chain_clear(&in);
        free(copy);
        if (len == 0)
            break;
    }
    check(state.len == 0, "something is left");
    all = chain_flatten(&out, arena);
    chain_clear(&out);
    return all;
}

static size_t count_ascii(const char *p, size_t len, char c)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += p[i] == c;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena;
    struct recoding *there, *back, *rec;
    struct str whole, pieces;
    size_t step;

    if (size < 2)
        return 0;
    arena = arena_new();
    there = recoding_new(arena, 1, RECODE_TO_UTF8);
    back = recoding_new(arena, 0, RECODE_FROM_UTF8);
    add(arena, there, back, 0x80, "\xe2\x82\xac");
    add(arena, there, back, 0xc1, "\xd0\xb0");
    add(arena, there, back, 0xff, "\xef\xbf\xbd");
    rec = data[0] & 1 ? there : back;
    step = data[1] % 16 + 1u;
    whole = recode(arena, rec, data + 2, size - 2, size);
    pieces = recode(arena, rec, data + 2, size - 2, step);
    check(str_eq(whole, pieces), "pieces differ from the whole");
    check(count_ascii((const char *) data + 2, size - 2, '<') ==
              count_ascii(whole.ptr, whole.len, '<'),
          "markup is lost");
    if (rec == there) {
        /* Back again it is what it was, but for what has no counterpart. */
        struct str again = recode(arena, back, (const uint8_t *) whole.ptr, whole.len, step);

        check(again.len == size - 2, "another length");
        for (size_t i = 0; i < again.len; i++)
            check((uint8_t) again.ptr[i] == data[i + 2] || again.ptr[i] == '?', "another byte");
    }
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return 0;
}
