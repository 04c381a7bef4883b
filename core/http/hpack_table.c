/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HPACK's dynamic table (RFC 7541, 2.3.2 and 4): entries that push each other out. The strings lie one behind the other in
 * a buffer of twice the table's size at most, in which what is left moves to the front of a new one when its end is reached. Nothing is
 * allocated before there is an entry. Called by hpack.c.
 */
#include "core/http/hpack.h"
#include "core/base/hash.h"

#define BYTES_LEAST 512
#define ENTRIES_LEAST 16 /* a power of two */

void hpack_table_free(struct hpack_table *t)
{
    free(t->entries);
    free(t->bytes);
    *t = (struct hpack_table){ .max = t->max };
}

static const struct hpack_entry *entry(const struct hpack_table *t, unsigned age)
{
    return &t->entries[(t->first + age) & (t->capacity - 1)];
}

static size_t entry_size(const struct hpack_entry *e)
{
    return (size_t) e->name_len + e->value_len + HPACK_ENTRY;
}

/* The oldest ones go until no more than that is left. */
static void evict(struct hpack_table *t, size_t size)
{
    while (t->size > size) {
        const struct hpack_entry *oldest = entry(t, t->count - 1);

        t->size -= entry_size(oldest);
        t->begin = oldest->start + (size_t) oldest->name_len + oldest->value_len;
        t->count--;
    }
    if (t->count == 0)
        t->begin = t->end = 0;
}

void hpack_table_resize(struct hpack_table *t, size_t max)
{
    t->max = max;
    evict(t, max);
    if (max == 0)
        hpack_table_free(t);
}

/* One more entry. */
static void grow_entries(struct hpack_table *t)
{
    unsigned capacity = t->capacity > 0 ? 2 * t->capacity : ENTRIES_LEAST;
    struct hpack_entry *entries;

    if (t->count < t->capacity)
        return;
    entries = mem_alloc(capacity * sizeof(*entries));
    for (unsigned age = 0; age < t->count; age++)
        entries[age] = *entry(t, age);
    free(t->entries);
    t->entries = entries;
    t->first = 0;
    t->capacity = capacity;
}

/*
 * Room for len bytes behind the end. The buffer in which there was none is *old, to be freed once nothing is copied from it
 * any more.
 */
static void make_room(struct hpack_table *t, size_t len, char **old)
{
    size_t used = t->end - t->begin;

    *old = NULL;
    if (t->bytes != NULL && t->room - t->end >= len)
        return;
    *old = t->bytes;
    t->room = MAX(BYTES_LEAST, 2 * (used + len));
    t->bytes = mem_alloc(t->room);
    if (used > 0)
        memcpy(t->bytes, *old + t->begin, used);
    for (unsigned age = 0; age < t->count; age++)
        t->entries[(t->first + age) & (t->capacity - 1)].start -= (uint32_t) t->begin;
    t->begin = 0;
    t->end = used;
}

/* memmove, for a name may be that of an entry which has just gone. */
static void append(struct hpack_table *t, struct str s)
{
    if (s.len > 0)
        memmove(t->bytes + t->end, s.ptr, s.len);
    t->end += s.len;
}

void hpack_table_add(struct hpack_table *t, struct str name, struct str value)
{
    size_t len = name.len + value.len;
    char *old;
    struct hpack_entry *e;

    if (len > HPACK_INT_MAX || len + HPACK_ENTRY > t->max) {
        evict(t, 0);
        return;
    }
    evict(t, t->max - len - HPACK_ENTRY);
    grow_entries(t);
    make_room(t, len, &old);
    t->first = (t->first - 1) & (t->capacity - 1);
    t->count++;
    t->size += len + HPACK_ENTRY;
    e = &t->entries[t->first];
    *e = (struct hpack_entry){ .start = (uint32_t) t->end,
                               .name_len = (uint32_t) name.len,
                               .value_len = (uint32_t) value.len,
                               .hash = hash_name(name) };
    append(t, name);
    append(t, value);
    free(old);
}

struct hpack_field hpack_table_get(const struct hpack_table *t, unsigned age)
{
    const struct hpack_entry *e = entry(t, age);

    return (struct hpack_field){ .name = str_from(t->bytes + e->start, e->name_len),
                                 .value =
                                     str_from(t->bytes + e->start + e->name_len, e->value_len) };
}

int hpack_table_find(const struct hpack_table *t, struct str name, struct str value, bool *exact)
{
    uint32_t hash = hash_name(name);
    int best = -1;

    *exact = false;
    for (unsigned age = 0; age < t->count; age++) {
        struct hpack_field f;

        if (entry(t, age)->hash != hash)
            continue;
        f = hpack_table_get(t, age);
        if (!str_eq(f.name, name))
            continue;
        if (str_eq(f.value, value)) {
            *exact = true;
            return (int) age;
        }
        if (best < 0)
            best = (int) age;
    }
    return best;
}
