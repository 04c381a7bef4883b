/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HPACK: blocks of fields to lists and back (RFC 7541, 5 and 6). Called by whoever speaks HTTP/2; the dynamic table is
 * hpack_table.c's, Huffman's code hpack_huffman.c's.
 */
#include "core/http/hpack.h"

#define HPACK_TABLE_STATIC
#include "core/http/hpack_tables.h"

#define STATIC_COUNT ARRAY_LEN(static_table) /* indices from 1 on; behind it is the dynamic table */

/* The first bits of what a block consists of, and how many bits of a number are left behind them. */
enum {
    INDEXED = 0x80,
    INDEXED_BITS = 7,
    LITERAL_INDEX = 0x40,
    LITERAL_INDEX_BITS = 6,
    SIZE_UPDATE = 0x20,
    SIZE_UPDATE_BITS = 5,
    LITERAL_NEVER = 0x10,
    LITERAL_PLAIN = 0,
    LITERAL_BITS = 4,
    HUFFMAN = 0x80,
    STRING_BITS = 7,
};

/* Integers (5.1) ------------------------------------------------------------------------------ */

bool hpack_read_int(const char **p, const char *end, unsigned prefix, uint32_t *value)
{
    const unsigned char *in = (const unsigned char *) *p;
    uint32_t most = (1u << prefix) - 1, n;
    unsigned shift = 0;

    if (*p == end)
        return false;
    n = *in++ & most;
    if (n == most) {
        unsigned char byte;

        do {
            if (in == (const unsigned char *) end || shift > 21)
                return false;
            byte = *in++;
            n += (uint32_t) (byte & 0x7f) << shift; /* 2^28 + 254 at most */
            shift += 7;
        } while (byte & 0x80);
    }
    *p = (const char *) in;
    *value = n;
    return n <= HPACK_INT_MAX;
}

char *hpack_write_int(char *p, unsigned first, unsigned prefix, uint32_t value)
{
    uint32_t most = (1u << prefix) - 1;

    if (value < most) {
        *p++ = (char) (first | value);
        return p;
    }
    *p++ = (char) (first | most);
    for (value -= most; value >= 0x80; value >>= 7)
        *p++ = (char) (value | 0x80);
    *p++ = (char) value;
    return p;
}

/* Decoding ------------------------------------------------------------------------------------ */

/* A block that is being decoded. */
struct reading {
    struct hpack_decoder *d;
    struct arena *arena;
    const char *p, *end;
    size_t left; /* of list_max */
    bool too_large;
    void (*field)(void *data, const struct hpack_field *f);
    void *data;
};

void hpack_decoder_init(struct hpack_decoder *d)
{
    *d = (struct hpack_decoder){ .table = { .max = HPACK_TABLE_DEFAULT },
                                 .limit = HPACK_TABLE_DEFAULT };
}

void hpack_decoder_limit(struct hpack_decoder *d, size_t limit)
{
    d->limit = MIN(limit, HPACK_INT_MAX);
    if (d->update_due)
        d->least = MIN(d->least, d->limit);
    else
        d->least = d->limit;
    d->update_due |= d->limit < d->table.max;
}

void hpack_decoder_free(struct hpack_decoder *d)
{
    hpack_table_free(&d->table);
}

static bool fails(struct reading *r, const char *why)
{
    r->d->why = why;
    return false;
}

static bool read_string(struct reading *r, struct str *s)
{
    bool coded;
    uint32_t len;
    char *to, *end;

    if (r->p == r->end)
        return fails(r, "with a field that is cut");
    coded = *r->p & HUFFMAN;
    if (!hpack_read_int(&r->p, r->end, STRING_BITS, &len))
        return fails(r, "with a bad length");
    if (len > (size_t) (r->end - r->p))
        return fails(r, "with a string that is cut");
    *s = str_from(r->p, len);
    r->p += len;
    if (!coded)
        return true;
    to = arena_bytes(r->arena, hpack_huffman_room(len));
    end = hpack_huffman_decode(to, *s);
    if (end == NULL)
        return fails(r, "with a bad Huffman code");
    *s = str_from(to, (size_t) (end - to));
    return true;
}

static bool lookup(struct reading *r, uint32_t index, struct hpack_field *f)
{
    const struct hpack_table *t = &r->d->table;

    if (index == 0 || index - 1 >= STATIC_COUNT + t->count)
        return fails(r, "with an index that nothing is at");
    *f = index <= STATIC_COUNT ? static_table[index - 1]
                               : hpack_table_get(t, index - 1 - (unsigned) STATIC_COUNT);
    return true;
}

static void hand_on(struct reading *r, const struct hpack_field *f)
{
    size_t size = f->name.len + f->value.len + HPACK_ENTRY;

    if (r->too_large || size > r->left) {
        r->too_large = true;
        return;
    }
    r->left -= size;
    r->field(r->data, f);
}

static bool read_literal(struct reading *r, unsigned bits, bool indexed, bool never)
{
    struct hpack_field f = { .name = STR_NULL };
    uint32_t index;

    if (!hpack_read_int(&r->p, r->end, bits, &index))
        return fails(r, "with a bad index");
    if (!(index > 0 ? lookup(r, index, &f) : read_string(r, &f.name)) || !read_string(r, &f.value))
        return false;
    f.never_indexed = never;
    hand_on(r, &f);
    if (indexed)
        hpack_table_add(&r->d->table, f.name, f.value);
    return true;
}

/* The first one behind a smaller limit has to be within that (4.2), whatever was allowed later. */
static bool read_size(struct reading *r)
{
    size_t limit = r->d->update_due ? r->d->least : r->d->limit;
    uint32_t max;

    if (!hpack_read_int(&r->p, r->end, SIZE_UPDATE_BITS, &max) || max > limit)
        return fails(r, "with a table size that is not allowed");
    hpack_table_resize(&r->d->table, max);
    r->d->update_due = false;
    return true;
}

static bool read_field(struct reading *r)
{
    unsigned first = (unsigned char) *r->p;
    struct hpack_field f;
    uint32_t index;

    if (first & INDEXED) {
        if (!hpack_read_int(&r->p, r->end, INDEXED_BITS, &index))
            return fails(r, "with a bad index");
        if (!lookup(r, index, &f))
            return false;
        hand_on(r, &f);
        return true;
    }
    if (first & LITERAL_INDEX)
        return read_literal(r, LITERAL_INDEX_BITS, true, false);
    if (first & SIZE_UPDATE)
        return fails(r, "with a table size in the midst of a block");
    return read_literal(r, LITERAL_BITS, false, first & LITERAL_NEVER);
}

static bool is_size_update(const struct reading *r)
{
    return r->p < r->end && ((unsigned char) *r->p & 0xe0) == SIZE_UPDATE;
}

enum hpack_result hpack_decode(struct hpack_decoder *d, struct arena *arena, struct str block,
                               size_t list_max,
                               void (*field)(void *data, const struct hpack_field *f), void *data)
{
    struct reading r = { .d = d,
                         .arena = arena,
                         .p = block.ptr,
                         .end = block.ptr + block.len,
                         .left = list_max,
                         .field = field,
                         .data = data };

    d->why = NULL;
    while (is_size_update(&r)) {
        if (!read_size(&r))
            return HPACK_ERROR;
    }
    if (d->update_due) {
        d->why = "without the table size that is due";
        return HPACK_ERROR;
    }
    while (r.p < r.end) {
        if (!read_field(&r))
            return HPACK_ERROR;
    }
    return r.too_large ? HPACK_TOO_LARGE : HPACK_OK;
}

/* Encoding ------------------------------------------------------------------------------------ */

void hpack_encoder_init(struct hpack_encoder *e, size_t own_max)
{
    *e = (struct hpack_encoder){ .table = { .max = HPACK_TABLE_DEFAULT },
                                 .own_max = MIN(own_max, HPACK_INT_MAX) };
    if (e->own_max < HPACK_TABLE_DEFAULT)
        hpack_encoder_limit(e, HPACK_TABLE_DEFAULT);
}

void hpack_encoder_limit(struct hpack_encoder *e, size_t limit)
{
    size_t max = MIN(limit, e->own_max);

    if (max == e->table.max)
        return;
    e->least = e->update ? MIN(e->least, max) : max;
    e->update = true;
    hpack_table_resize(&e->table, max);
}

void hpack_encoder_free(struct hpack_encoder *e)
{
    hpack_table_free(&e->table);
}

char *hpack_encode_begin(struct hpack_encoder *e, char *p)
{
    if (!e->update)
        return p;
    e->update = false;
    if (e->least < e->table.max)
        p = hpack_write_int(p, SIZE_UPDATE, SIZE_UPDATE_BITS, (uint32_t) e->least);
    return hpack_write_int(p, SIZE_UPDATE, SIZE_UPDATE_BITS, (uint32_t) e->table.max);
}

/* As hpack_table_find, of the static table: an index, or 0. */
static unsigned static_find(struct str name, struct str value, bool *exact)
{
    unsigned best = 0;

    *exact = false;
    if (name.len > NAME_LONGEST)
        return 0;
    for (unsigned i = length_first[name.len]; i < length_first[name.len + 1]; i++) {
        const struct hpack_field *f = &static_table[by_length[i]];

        if (!str_eq(f->name, name))
            continue;
        if (str_eq(f->value, value)) {
            *exact = true;
            return by_length[i] + 1u;
        }
        if (best == 0)
            best = by_length[i] + 1u;
    }
    return best;
}

/* The index of the field, or of its name; 0: there is none. */
static unsigned find(const struct hpack_encoder *e, struct str name, struct str value, bool *exact)
{
    unsigned index = static_find(name, value, exact);
    bool dynamic_exact;
    int age;

    if (*exact)
        return index;
    age = hpack_table_find(&e->table, name, value, &dynamic_exact);
    if (age < 0 || (index > 0 && !dynamic_exact))
        return index;
    *exact = dynamic_exact;
    return (unsigned) STATIC_COUNT + 1 + (unsigned) age;
}

static char *write_string(char *p, struct str s)
{
    size_t coded = hpack_huffman_len(s);

    if (coded < s.len)
        return hpack_huffman_encode(hpack_write_int(p, HUFFMAN, STRING_BITS, (uint32_t) coded), s);
    p = hpack_write_int(p, 0, STRING_BITS, (uint32_t) s.len);
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return p + s.len;
}

char *hpack_encode(struct hpack_encoder *e, char *p, struct str name, struct str value,
                   enum hpack_how how)
{
    bool exact, index = how == HPACK_INDEX && name.len + value.len + HPACK_ENTRY <= e->table.max;
    unsigned at = find(e, name, value, &exact);

    if (exact && how != HPACK_NEVER)
        return hpack_write_int(p, INDEXED, INDEXED_BITS, at);
    if (index)
        p = hpack_write_int(p, LITERAL_INDEX, LITERAL_INDEX_BITS, at);
    else
        p = hpack_write_int(p, how == HPACK_NEVER ? LITERAL_NEVER : LITERAL_PLAIN, LITERAL_BITS,
                            at);
    if (at == 0)
        p = write_string(p, name);
    p = write_string(p, value);
    if (index)
        hpack_table_add(&e->table, name, value);
    return p;
}
