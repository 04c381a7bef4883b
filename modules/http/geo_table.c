/* SPDX-License-Identifier: BSD-2-Clause */
/* Values by address: see geo_table.h. Knows nothing of requests. */
#include "modules/http/geo_table.h"

#include <endian.h>
#include <stdlib.h>

#include "core/base/arena.h"

#define SLICES 65536     /* by the upper 16 bits of an address */
#define INDEX_MIN 256    /* steps from which on an index by slices pays */
#define DEPTH_MAX 130    /* networks inside of each other: a prefix length each */

/* IPv4 addresses are the upper 32 bits of it, so that both kinds sort and nest alike. */
typedef unsigned __int128 address;

/* Looking up ------------------------------------------------------------------------------------- */

/* From here to the next one. The first begins at 0. */
struct step4 {
    uint32_t start, value;
};
struct step6 {
    uint64_t high, low;
    uint32_t value;
};

struct geo_table {
    struct step4 *steps4;
    struct step6 *steps6;
    unsigned count4, count6;
    /* The first step that begins in a slice, for SLICES slices and the end; NULL: few steps. */
    uint32_t *index4, *index6;
};

uint32_t geo_find4(const struct geo_table *t, uint32_t addr)
{
    uint32_t low = 0, high = t->count4;

    if (t->index4 != NULL) {
        low = t->index4[addr >> 16];
        high = t->index4[(addr >> 16) + 1];
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (t->steps4[middle].start <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    return t->steps4[low - 1].value;
}

uint32_t geo_find6(const struct geo_table *t, const unsigned char addr[16])
{
    uint64_t h, l;
    uint32_t low = 0, high = t->count6;

    memcpy(&h, addr, 8);
    memcpy(&l, addr + 8, 8);
    h = be64toh(h);
    l = be64toh(l);
    if (t->index6 != NULL) {
        low = t->index6[h >> 48];
        high = t->index6[(h >> 48) + 1];
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct step6 *s = &t->steps6[middle];

        if (s->high < h || (s->high == h && s->low <= l))
            low = middle + 1;
        else
            high = middle;
    }
    return t->steps6[low - 1].value;
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

struct steps {
    struct arena *arena;
    struct step *items;
    unsigned count, capacity;
};

/* From start on it is value. Starts come in order; of several at one place the last one counts. */
static void emit(struct steps *s, address start, uint32_t value)
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
static void steps_of_nets(struct nets *nets, struct steps *out)
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

static void steps_of_slices(const struct slice *slices, struct steps *out)
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

static uint32_t *make_index(struct arena *arena, const struct steps *s)
{
    uint32_t *index;
    unsigned at = 0;

    if (s->count < INDEX_MIN)
        return NULL;
    index = ARENA_ARRAY(arena, uint32_t, SLICES + 1);
    for (unsigned slice = 0; slice < SLICES; slice++) {
        while (at < s->count && (uint64_t) (s->items[at].start >> 112) < slice)
            at++;
        index[slice] = at;
    }
    index[SLICES] = s->count;
    return index;
}

struct geo_table *geo_table_new(struct geo_builder *b, struct arena *arena)
{
    struct geo_table *t = ARENA_NEW(arena, struct geo_table);
    struct steps v4 = { .arena = b->arena }, v6 = { .arena = b->arena };

    if (b->slices != NULL)
        steps_of_slices(b->slices, &v4);
    else
        steps_of_nets(&b->v4, &v4);
    steps_of_nets(&b->v6, &v6);
    t->count4 = v4.count;
    t->count6 = v6.count;
    t->index4 = make_index(arena, &v4);
    t->index6 = make_index(arena, &v6);
    t->steps4 = ARENA_ARRAY(arena, struct step4, v4.count);
    for (unsigned i = 0; i < v4.count; i++)
        t->steps4[i] = (struct step4){ (uint32_t) (v4.items[i].start >> 96), v4.items[i].value };
    t->steps6 = ARENA_ARRAY(arena, struct step6, v6.count);
    for (unsigned i = 0; i < v6.count; i++)
        t->steps6[i] = (struct step6){ (uint64_t) (v6.items[i].start >> 64),
                                       (uint64_t) v6.items[i].start, v6.items[i].value };
    return t;
}
