/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HPACK (RFC 7541), the compression of fields in HTTP/2: a decoder and an encoder without I/O, each with its dynamic
 * table, which lives as long as the connection. What fields mean is left to others, as is whether a name is one.
 */
#ifndef CORE_HTTP_HPACK_H
#define CORE_HTTP_HPACK_H

#include "core/base/arena.h"
#include "core/base/str.h"

#define HPACK_TABLE_DEFAULT 4096 /* SETTINGS_HEADER_TABLE_SIZE, before anybody says anything */
#define HPACK_ENTRY 32 /* what an entry of a table, or of a list, counts beside its strings */

struct hpack_field {
    struct str name, value;
    bool never_indexed; /* who passes it on says so too */
};

/* A dynamic table. Private to hpack_table.c. */
struct hpack_entry {
    uint32_t start, name_len, value_len;
    uint32_t hash; /* of the name */
};
struct hpack_table {
    size_t max;                  /* as the encoder has it now */
    size_t size;                 /* of what is in it, HPACK_ENTRY included */
    struct hpack_entry *entries; /* a ring: the newest at first */
    unsigned first, count, capacity;
    char *bytes; /* of the strings, without gaps from the oldest to the newest */
    size_t begin, end, room;
};

/* Decoding ------------------------------------------------------------------------------------ */

enum hpack_result {
    HPACK_OK,
    HPACK_ERROR, /* the peer's fault, after which nothing more can be decoded: COMPRESSION_ERROR */
    HPACK_TOO_LARGE, /* the list exceeds its limit: the request is refused, but the connection may go on */
};

struct hpack_decoder {
    struct hpack_table table;
    size_t limit;    /* what the peer's encoder may set max to */
    bool update_due; /* the limit has sunk below max: the peer has to say what it makes of that */
    size_t least;    /* update_due: of the limits since then, though it may have risen again */
    const char *why; /* HPACK_ERROR: a sentence's end, "with …" */
};

void hpack_decoder_init(struct hpack_decoder *d);
/* The peer has acknowledged a SETTINGS_HEADER_TABLE_SIZE of ours. */
void hpack_decoder_limit(struct hpack_decoder *d, size_t limit);
void hpack_decoder_free(struct hpack_decoder *d);
/*
 * A whole block of fields, each of which is handed to `field`: its strings last only so long. list_max: of the sum of names,
 * values and HPACK_ENTRY each; behind it fields are handed on no more. Memory is taken from the arena for strings that are
 * Huffman-coded: less than twice the block.
 */
enum hpack_result hpack_decode(struct hpack_decoder *d, struct arena *arena, struct str block,
                               size_t list_max,
                               void (*field)(void *data, const struct hpack_field *f), void *data);

/* Encoding ------------------------------------------------------------------------------------ */

enum hpack_how {
    HPACK_INDEX, /* into the table, if it fits there */
    HPACK_PLAIN, /* not: it will hardly come again */
    HPACK_NEVER, /* nor by anybody who passes it on: secrets that could be guessed (RFC 7541, 7.1.3) */
};

struct hpack_encoder {
    struct hpack_table table;
    size_t own_max; /* more is not used, whatever the peer allows */
    size_t least;   /* of table.max since the last block */
    bool update;    /* table.max has changed since then */
};

/* own_max: at most this much memory for the table, though the peer may allow more. */
void hpack_encoder_init(struct hpack_encoder *e, size_t own_max);
/* The peer's SETTINGS_HEADER_TABLE_SIZE. */
void hpack_encoder_limit(struct hpack_encoder *e, size_t limit);
void hpack_encoder_free(struct hpack_encoder *e);
/* The most that a field may take, or that hpack_encode_begin may. */
#define HPACK_BEGIN_MAX 12
static inline size_t hpack_room(struct str name, struct str value)
{
    return name.len + value.len + 24;
}
/* What a block begins with, mostly nothing; then each field, its name in lower case. Return the end. */
char *hpack_encode_begin(struct hpack_encoder *e, char *p);
char *hpack_encode(struct hpack_encoder *e, char *p, struct str name, struct str value,
                   enum hpack_how how);

/* Parts, for QPACK, which has the same ones (RFC 9204, 4.1) ------------------------------------ */

/*
 * An integer whose first byte has `prefix` bits of it: *p is behind it then. False: it is cut, or larger than HPACK_INT_MAX.
 */
#define HPACK_INT_MAX ((UINT32_C(1) << 28) - 1)
bool hpack_read_int(const char **p, const char *end, unsigned prefix, uint32_t *value);
/* first: what stands in the first byte before it. */
char *hpack_write_int(char *p, unsigned first, unsigned prefix, uint32_t value);

/* hpack_huffman.c. How many bytes a string comes to. */
size_t hpack_huffman_len(struct str s);
char *hpack_huffman_encode(char *p, struct str s);
/* The bytes that `len` coded ones come to, at most. */
static inline size_t hpack_huffman_room(size_t len)
{
    return len * 8 / 5;
}
/* The end of what was decoded; NULL: that is no code, or it ends in the midst of one. */
char *hpack_huffman_decode(char *p, struct str s);

/* hpack_table.c. Entries by age: 0 is the newest. */
void hpack_table_free(struct hpack_table *t);
void hpack_table_resize(struct hpack_table *t, size_t max);
/* The name may be an entry's own. One that does not fit empties the table. */
void hpack_table_add(struct hpack_table *t, struct str name, struct str value);
struct hpack_field hpack_table_get(const struct hpack_table *t, unsigned age);
/* The youngest entry of that name, and value if there is one: *exact. -1: not even the name is there. */
int hpack_table_find(const struct hpack_table *t, struct str name, struct str value, bool *exact);

#endif
