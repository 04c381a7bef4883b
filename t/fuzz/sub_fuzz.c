/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: sub_filter's replacing. Input: flags, a step, a count, then strings of a length
 * each, then the text. The text goes in whole and in small pieces; both must give what a plain
 * search from left to right gives.
 */
#include "modules/http/sub_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STRINGS_MAX 8

struct input {
    struct str strings[STRINGS_MAX];
    unsigned count;
    bool once;
    size_t step;
    struct str text;
};

static const char names[STRINGS_MAX][4] = { "", "[1]", "{2}", "(3)", "<4>", "5", "[6]", "a" };

static struct str value(void *data, unsigned which)
{
    (void) data;
    return str_cstr(names[which]);
}

static bool read_input(struct arena *arena, const uint8_t *data, size_t size, struct input *in)
{
    const uint8_t *end = data + size;

    memset(in, 0, sizeof(*in));
    if (size < 3)
        return false;
    in->once = data[0] & 1;
    in->step = data[1] % 40 + 1u;
    in->count = data[2] % STRINGS_MAX + 1u;
    data += 3;
    for (unsigned i = 0; i < in->count; i++) {
        size_t len;

        if (data == end)
            return false;
        len = *data++ % 40 + 1u;
        if ((size_t) (end - data) < len)
            return false;
        in->strings[i] = str_lower(arena, str_from((const char *) data, len));
        data += len;
    }
    in->text = str_from((const char *) data, (size_t) (end - data));
    return true;
}

static struct str plain(struct arena *arena, const struct input *in)
{
    bool used[STRINGS_MAX] = { false };
    struct str lower = str_lower(arena, in->text), result;
    struct chain out = CHAIN_INIT;

    for (size_t at = 0; at < lower.len;) {
        unsigned i = 0;

        while (i < in->count && (used[i] || !str_starts(str_skip(lower, at), in->strings[i])))
            i++;
        if (i == in->count) {
            chain_write(&out, in->text.ptr + at++, 1);
            continue;
        }
        chain_write(&out, names[i], strlen(names[i]));
        used[i] = in->once;
        at += in->strings[i].len;
    }
    result = chain_flatten(&out, arena);
    chain_clear(&out);
    return result;
}

static struct str in_pieces(struct arena *arena, const struct input *in, struct search *search,
                            size_t step)
{
    struct sub_text t = { .search = search };
    struct chain out = CHAIN_INIT, all = CHAIN_INIT;
    struct str result;

    sub_text_init(&t, arena, in->once, value, NULL);
    for (size_t at = 0; at < in->text.len; at += step) {
        size_t n = MIN(step, in->text.len - at);
        struct block *b = block_new_exact(n); /* so that a byte too far is noticed */
        struct chain piece = CHAIN_INIT;

        memcpy(b->data, in->text.ptr + at, n);
        chain_push_mem(&piece, b, b->data, n);
        block_unref(b);
        if (sub_text_over(&t))
            chain_append(&out, &piece);
        else
            sub_text_feed(&t, &piece, &out);
        if (t.held.bytes >= search->max_len) {
            fprintf(stderr, "too much is held\n");
            abort();
        }
    }
    sub_text_end(&t, &out);
    for (const struct piece *p = out.first; p != NULL; p = p->next)
        chain_write(&all, p->mem.ptr, (size_t) p->len);
    result = chain_flatten(&all, arena);
    chain_clear(&out);
    chain_clear(&all);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena;
    struct input in;

    if (size > 4000)
        return 0;
    arena = arena_new();
    if (read_input(arena, data, size, &in)) {
        struct search search;
        struct str expected = plain(arena, &in);

        search_init(&search, arena, in.strings, in.count);
        if (!str_eq(in_pieces(arena, &in, &search, SIZE_MAX / 2), expected) ||
            !str_eq(in_pieces(arena, &in, &search, in.step), expected)) {
            fprintf(stderr, "another text\n");
            abort();
        }
    }
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return 0;
}
