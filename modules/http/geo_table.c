/* SPDX-License-Identifier: BSD-2-Clause */
/* Values by address: see geo_table.h. Knows nothing of requests. */
#include "modules/http/geo_table.h"

#include <endian.h>
#include <stdlib.h>

#include "core/base/arena.h"

#define SLICES 65536  /* by the upper 16 bits of an address */
#define DEPTH_MAX 130 /* networks inside of each other: a prefix length each */
#define LINE 8        /* keys in a cache line */
#define LEVELS_MAX 12 /* 8 to the 11th is more than 32 bits can count */

/* IPv4 addresses are the upper 32 bits of it, so that both kinds sort and nest alike. */
typedef unsigned __int128 address;

/* Looking up ------------------------------------------------------------------------------------- */

/*
 * The addresses from which on there is another value; the first is 0. levels[0] holds their upper halves, each
 * further level every eighth key of the one below it, up to a single line: a look-up reads one line of a
 * level, and the upper levels stay in the cache.
 */
struct steps {
    const uint64_t *levels[LEVELS_MAX];
    unsigned counts[LEVELS_MAX];
    unsigned depth;
    uint64_t *low; /* the lower halves */
    uint32_t *values;
};

struct geo_table {
    struct steps v4, v6;
};

/* The last of the steps up to `at` that does not begin behind the address. */
static unsigned step_back(const struct steps *s, unsigned at, uint64_t high, uint64_t low)
{
    unsigned from = 0;

    while (from < at) {
        unsigned middle = from + (at - from + 1) / 2;
        uint64_t key = s->levels[0][middle];

        if (key < high || (key == high && s->low[middle] <= low))
            from = middle;
        else
            at = middle - 1;
    }
    return from;
}

static uint32_t find(const struct steps *s, uint64_t high, uint64_t low)
{
    unsigned at = 0;

    for (unsigned level = s->depth; level-- > 0;) {
        const uint64_t *line = s->levels[level] + (size_t) at * LINE;
        unsigned n = 0;

        /* On its way while the last line of keys is. */
        if (level == 0)
            __builtin_prefetch(s->values + (size_t) at * LINE);
        for (unsigned i = 0; i < LINE; i++)
            n += line[i] <= high;
        /* The line begins with a key that is not greater. It may end with filling. */
        at = MIN(at * LINE + n, s->counts[level]) - 1;
    }
    /* Several steps have the same upper half. */
    if (unlikely(s->levels[0][at] == high && s->low[at] > low))
        at = step_back(s, at, high, low);
    return s->values[at];
}

uint32_t geo_find4(const struct geo_table *t, uint32_t addr)
{
    return find(&t->v4, (uint64_t) addr << 32, 0);
}

uint32_t geo_find6(const struct geo_table *t, const unsigned char addr[16])
{
    uint64_t high, low;

    memcpy(&high, addr, 8);
    memcpy(&low, addr + 8, 8);
    return find(&t->v6, be64toh(high), be64toh(low));
}

/* Networks --------------------------------------------------------------------------------------- */

struct net {
    address start;
    uint32_t value; /* 0: deleted */
    uint8_t len;    /* of the prefix */
};

/* Networks of one family, found by start and length. */
struct nets {
    struct net *items;
    unsigned count, capacity;
    uint32_t *slots; /* index + 1 of a net; open addressing */
    unsigned mask;
};

struct span {
    uint16_t first, last;
    uint32_t value;
};
/* The ranges in a slice, in order. */
struct slice {
    struct span *items;
    unsigned count, capacity;
};

struct geo_builder {
    struct arena *arena;
    struct nets v4, v6;
    struct slice *slices; /* NULL: no ranges */
};

struct geo_builder *geo_builder_new(struct arena *arena)
{
    struct geo_builder *b = ARENA_NEW(arena, struct geo_builder);

    b->arena = arena;
    return b;
}

static unsigned hash_net(address start, unsigned len)
{
    uint64_t h = ((uint64_t) (start >> 64) ^ len) * 0x9e3779b97f4a7c15u;

    h = (h ^ h >> 32 ^ (uint64_t) start) * 0x9e3779b97f4a7c15u;
    return (unsigned) (h >> 32);
}

/* The slot of that net, or the empty one where it belongs. */
static uint32_t *slot_of(const struct nets *s, address start, unsigned len)
{
    unsigned i = hash_net(start, len) & s->mask;

    for (;; i = (i + 1) & s->mask) {
        const struct net *n;

        if (s->slots[i] == 0)
            return &s->slots[i];
        n = &s->items[s->slots[i] - 1];
        if (n->start == start && n->len == len)
            return &s->slots[i];
    }
}

static void grow_slots(struct arena *arena, struct nets *s)
{
    unsigned size = s->slots != NULL ? 2 * (s->mask + 1) : 64;

    s->slots = ARENA_ARRAY(arena, uint32_t, size);
    s->mask = size - 1;
    for (unsigned i = 0; i < s->count; i++)
        *slot_of(s, s->items[i].start, s->items[i].len) = i + 1;
}

static void take_cidr(const struct cidr *c, address *start, unsigned *len)
{
    unsigned bytes = c->family == AF_INET ? 4 : 16;

    *start = 0;
    *len = 0;
    for (unsigned i = 0; i < bytes; i++) {
        *start |= (address) c->addr[i] << (120 - 8 * i);
        *len += (unsigned) __builtin_popcount(c->mask[i]);
    }
}

uint32_t geo_add_net(struct geo_builder *b, const struct cidr *net, uint32_t value)
{
    struct nets *s = net->family == AF_INET ? &b->v4 : &b->v6;
    uint32_t *slot, old;
    address start;
    unsigned len;

    take_cidr(net, &start, &len);
    if (s->slots == NULL || s->count >= s->mask / 2)
        grow_slots(b->arena, s);
    slot = slot_of(s, start, len);
    if (*slot == 0) {
        s->items = arena_grow(b->arena, s->items, s->count, &s->capacity, sizeof(*s->items));
        s->items[s->count++] = (struct net){ start, 0, (uint8_t) len };
        *slot = s->count;
    }
    old = s->items[*slot - 1].value;
    s->items[*slot - 1].value = value;
    return old;
}

bool geo_delete_net(struct geo_builder *b, const struct cidr *net)
{
    struct nets *s = net->family == AF_INET ? &b->v4 : &b->v6;
    uint32_t *slot;
    address start;
    unsigned len;

    take_cidr(net, &start, &len);
    if (s->slots == NULL)
        return false;
    slot = slot_of(s, start, len);
    if (*slot == 0 || s->items[*slot - 1].value == 0)
        return false;
    s->items[*slot - 1].value = 0;
    return true;
}

/* Ranges ----------------------------------------------------------------------------------------- */

static void insert_span(struct arena *arena, struct slice *s, unsigned at, struct span span)
{
    s->items = arena_grow(arena, s->items, s->count, &s->capacity, sizeof(*s->items));
    memmove(s->items + at + 1, s->items + at, (s->count - at) * sizeof(*s->items));
    s->items[at] = span;
    s->count++;
}

/* Puts span into the one at `at`, which holds it and keeps what is left on both sides. */
static void split_span(struct arena *arena, struct slice *s, unsigned at, struct span span)
{
    struct span whole = s->items[at];

    s->items[at] = span;
    if (span.last < whole.last)
        insert_span(arena, s, at + 1,
                    (struct span){ (uint16_t) (span.last + 1), whole.last, whole.value });
    if (span.first > whole.first)
        insert_span(arena, s, at,
                    (struct span){ whole.first, (uint16_t) (span.first - 1), whole.value });
}

static enum geo_range_result add_span(struct arena *arena, struct slice *s, struct span span,
                                      uint32_t *old, struct span *other)
{
    unsigned i = s->count;

    /* From the end: ranges mostly come in order. */
    while (i > 0 && span.last < s->items[i - 1].first)
        i--;
    if (i == 0 || span.first > s->items[i - 1].last) {
        insert_span(arena, s, i, span);
        return GEO_RANGE_ADDED;
    }
    *other = s->items[i - 1];
    if (span.first == other->first && span.last == other->last) {
        *old = other->value;
        s->items[i - 1] = span;
        return GEO_RANGE_REPLACED;
    }
    if (span.first < other->first || span.last > other->last)
        return GEO_RANGE_OVERLAPS;
    split_span(arena, s, i - 1, span);
    return GEO_RANGE_ADDED;
}

/* The part of r that lies in a slice. */
static struct span part_of(struct geo_range r, uint32_t slice, uint32_t value)
{
    return (struct span){ (uint16_t) (slice == r.first >> 16 ? r.first : 0),
                          (uint16_t) (slice == r.last >> 16 ? r.last : 0xffff), value };
}

enum geo_range_result geo_add_range(struct geo_builder *b, struct geo_range r, uint32_t value,
                                    uint32_t *old, struct geo_range *other)
{
    enum geo_range_result result = GEO_RANGE_ADDED, one;
    struct span clash;

    if (b->slices == NULL)
        b->slices = ARENA_ARRAY(b->arena, struct slice, SLICES);
    for (uint32_t i = r.first >> 16; i <= r.last >> 16; i++) {
        one = add_span(b->arena, &b->slices[i], part_of(r, i, value), old, &clash);
        if (one == GEO_RANGE_OVERLAPS) {
            *other = (struct geo_range){ i << 16 | clash.first, i << 16 | clash.last };
            return one;
        }
        if (one != GEO_RANGE_ADDED)
            result = one;
    }
    return result;
}

bool geo_delete_range(struct geo_builder *b, struct geo_range r)
{
    bool all = b->slices != NULL;

    for (uint32_t i = r.first >> 16; b->slices != NULL && i <= r.last >> 16; i++) {
        struct span part = part_of(r, i, 0);
        struct slice *s = &b->slices[i];
        unsigned n = s->count;

        while (n > 0 && (s->items[n - 1].first != part.first || s->items[n - 1].last != part.last))
            n--;
        if (n == 0) {
            all = false;
            continue;
        }
        memmove(s->items + n - 1, s->items + n, (s->count - n) * sizeof(*s->items));
        s->count--;
    }
    return all;
}

/* The table -------------------------------------------------------------------------------------- */

struct step {
    address start;
    uint32_t value;
};

struct step_list {
    struct arena *arena;
    struct step *items;
    unsigned count, capacity;
};

/* From start on it is value. Starts come in order; of several at one place the last one counts. */
static void emit(struct step_list *s, address start, uint32_t value)
{
    if (s->count > 0 && s->items[s->count - 1].start == start)
        s->count--;
    if (s->count > 0 && s->items[s->count - 1].value == value)
        return;
    s->items = arena_grow(s->arena, s->items, s->count, &s->capacity, sizeof(*s->items));
    s->items[s->count++] = (struct step){ start, value };
}

/* The wider of two networks with one start comes first. */
static int by_start(const void *a, const void *b)
{
    const struct net *x = a, *y = b;

    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return (int) x->len - (int) y->len;
}

static address net_end(const struct net *n)
{
    return n->len >= 128 ? n->start : n->start | ~(address) 0 >> n->len;
}

static bool are_sorted(const struct nets *nets)
{
    for (unsigned i = 1; i < nets->count; i++) {
        if (by_start(&nets->items[i - 1], &nets->items[i]) > 0)
            return false;
    }
    return true;
}

/* Networks lie one inside the other or apart: what is open at an address is a stack. */
static void steps_of_nets(struct nets *nets, struct step_list *out)
{
    const struct net *open[DEPTH_MAX];
    unsigned depth = 0;

    if (!are_sorted(nets))
        qsort(nets->items, nets->count, sizeof(*nets->items), by_start);
    emit(out, 0, 0);
    for (unsigned i = 0; i <= nets->count; i++) {
        const struct net *n = i < nets->count ? &nets->items[i] : NULL;

        if (n != NULL && n->value == 0)
            continue;
        while (depth > 0 && (n == NULL || net_end(open[depth - 1]) < n->start)) {
            address end = net_end(open[--depth]);

            if (end != ~(address) 0)
                emit(out, end + 1, depth > 0 ? open[depth - 1]->value : 0);
        }
        if (n != NULL) {
            ASSERT(depth < DEPTH_MAX);
            emit(out, n->start, n->value);
            open[depth++] = n;
        }
    }
}

static void steps_of_slices(const struct slice *slices, struct step_list *out)
{
    emit(out, 0, 0);
    for (uint32_t i = 0; i < SLICES; i++) {
        for (unsigned n = 0; n < slices[i].count; n++) {
            const struct span *span = &slices[i].items[n];

            emit(out, (address) (i << 16 | span->first) << 96, span->value);
            if ((i << 16 | span->last) != UINT32_MAX)
                emit(out, (address) ((i << 16 | span->last) + 1) << 96, 0);
        }
    }
}

/* Room for the keys of a level, in whole lines, filled with what is greater than all keys but one. */
static uint64_t *new_level(struct arena *arena, unsigned count)
{
    size_t lines = ((size_t) count + LINE - 1) / LINE;
    char *room = arena_alloc(arena, (lines + 1) * LINE * sizeof(uint64_t));
    uint64_t *keys = (uint64_t *) (void *) (room + (-(uintptr_t) room & 63));

    memset(keys, 0xff, lines * LINE * sizeof(uint64_t));
    return keys;
}

static void make_steps(struct arena *arena, const struct step_list *list, struct steps *s)
{
    unsigned count = list->count;
    uint64_t *keys = new_level(arena, count);

    s->low = ARENA_ARRAY(arena, uint64_t, count);
    s->values = ARENA_ARRAY(arena, uint32_t, count);
    for (unsigned i = 0; i < count; i++) {
        keys[i] = (uint64_t) (list->items[i].start >> 64);
        s->low[i] = (uint64_t) list->items[i].start;
        s->values[i] = list->items[i].value;
    }
    for (;;) {
        const uint64_t *below = keys;

        ASSERT(s->depth < LEVELS_MAX);
        s->counts[s->depth] = count;
        s->levels[s->depth++] = keys;
        if (count <= LINE)
            break;
        count = (count + LINE - 1) / LINE;
        keys = new_level(arena, count);
        for (unsigned i = 0; i < count; i++)
            keys[i] = below[(size_t) i * LINE];
    }
}

struct geo_table *geo_table_new(struct geo_builder *b, struct arena *arena)
{
    struct geo_table *t = ARENA_NEW(arena, struct geo_table);
    struct step_list v4 = { .arena = b->arena }, v6 = { .arena = b->arena };

    if (b->slices != NULL)
        steps_of_slices(b->slices, &v4);
    else
        steps_of_nets(&b->v4, &v4);
    steps_of_nets(&b->v6, &v6);
    make_steps(arena, &v4, &t->v4);
    make_steps(arena, &v6, &t->v6);
    return t;
}
