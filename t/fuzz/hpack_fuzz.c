/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: HPACK. Blocks of one connection, each behind its length, are decoded with one table; what comes of them is encoded again
 * and must come back. Strings are bounded by what the block can hold.
 */
#include "core/base/chain.h"
#include "core/http/hpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIELDS_MAX 4096

struct list {
    struct arena *arena;
    struct hpack_field fields[FIELDS_MAX];
    size_t count;
};

static void take(void *data, const struct hpack_field *f)
{
    struct list *l = data;

    if (l->count == FIELDS_MAX)
        return;
    l->fields[l->count] = *f;
    l->fields[l->count].name = str_dup(l->arena, f->name);
    l->fields[l->count++].value = str_dup(l->arena, f->value);
}

static void check(bool fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* The list through an encoder and a decoder that go along with each other. */
static void there_and_back(struct hpack_encoder *e, struct hpack_decoder *d, const struct list *in)
{
    static struct list out;
    size_t room = HPACK_BEGIN_MAX;
    char *buf, *p;

    for (size_t i = 0; i < in->count; i++)
        room += hpack_room(in->fields[i].name, in->fields[i].value);
    buf = malloc(room);
    p = hpack_encode_begin(e, buf);
    for (size_t i = 0; i < in->count; i++)
        p = hpack_encode(e, p, in->fields[i].name, in->fields[i].value,
                         in->fields[i].never_indexed ? HPACK_NEVER : HPACK_INDEX);
    check((size_t) (p - buf) <= room, "more than there was room for");
    out.arena = in->arena;
    out.count = 0;
    check(hpack_decode(d, in->arena, str_from(buf, (size_t) (p - buf)), SIZE_MAX, take, &out) ==
              HPACK_OK,
          "our own block is not decoded");
    free(buf);
    check(out.count == in->count, "another number of fields");
    for (size_t i = 0; i < in->count; i++)
        check(str_eq(out.fields[i].name, in->fields[i].name) &&
                  str_eq(out.fields[i].value, in->fields[i].value) &&
                  out.fields[i].never_indexed == in->fields[i].never_indexed,
              "another field");
    check(e->table.size == d->table.size && e->table.count == d->table.count, "other tables");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct list list;
    struct hpack_decoder d, back;
    struct hpack_encoder e;

    hpack_decoder_init(&d);
    hpack_decoder_init(&back);
    hpack_encoder_init(&e, 512);
    while (size > 2 && size < 20000) {
        size_t limit = data[0] * 64u, len = MIN((size_t) data[1] * 4u + 1, size - 2);
        char *block = malloc(len);
        enum hpack_result result;

        memcpy(block, data + 2, len);
        data += 2 + len;
        size -= 2 + len;
        list.arena = arena_new();
        list.count = 0;
        /* Settings of ours that the peer has acknowledged. */
        if (limit & 64)
            hpack_decoder_limit(&d, limit / 4);
        if (limit & 128)
            hpack_decoder_limit(&d, limit);
        result = hpack_decode(&d, list.arena, str_from(block, len), limit * 16, take, &list);
        check(result != HPACK_ERROR || d.why != NULL, "an error without reason");
        check(d.table.size <= d.table.max, "more in the table than may be");
        check(result == HPACK_ERROR || d.table.max <= d.limit, "too large a table");
        there_and_back(&e, &back, &list);
        arena_destroy(list.arena);
        free(block);
        if (result == HPACK_ERROR)
            break;
    }
    hpack_decoder_free(&d);
    hpack_decoder_free(&back);
    hpack_encoder_free(&e);
    arena_trim();
    block_trim();
    return 0;
}
