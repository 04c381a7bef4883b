/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocator of a zone without any accident: sizes, exhaustion, joining of free runs, and a
 * random run.
 */
#include "t/unit/core/zone/check.h"
#include "t/unit/tap.h"

static const struct zone_kind kind = { .name = "slab", .version = 1 };

static struct zone *open_zone(size_t size)
{
    struct zone_spec spec = { STR("slab"), size, &kind, STR(""), NULL };

    return zone_create(&spec, log_main);
}

static void test_sizes(void)
{
    struct zone *zone = open_zone(64 * ZONE_PAGE);
    size_t before = zone_bytes_free(zone);
    const char *wrong = NULL;

    is_uint(before, zone_bytes_total(zone), "all of a new zone is free");
    for (size_t size = 0; size <= 3 * ZONE_PAGE && wrong == NULL; size++) {
        char *a = zone_alloc(zone, size);
        char *b = zone_alloc(zone, size);

        if (a == NULL || b == NULL)
            wrong = "no memory";
        else if ((uintptr_t) a % 16 != 0 || (uintptr_t) b % 16 != 0)
            wrong = "not aligned";
        else if ((size_t) (a > b ? a - b : b - a) < size)
            wrong = "objects overlap";
        else if (!slab_is_object(zone, zone_off(zone, a), size))
            wrong = "the object is not known as one";
        else if (slab_is_object(zone, zone_off(zone, a) + 16, 1) && size > 16 &&
                 zone_off(zone, a) + 16 != zone_off(zone, b))
            wrong = "the middle of an object is taken for one";
        for (size_t i = 0; wrong == NULL && i < size; i++)
            wrong = a[i] != 0 ? "not zeroed" : NULL;
        if (wrong == NULL && size != 0)
            memset(a, 0xee, size);
        if (wrong == NULL)
            wrong = slab_check(zone);
        zone_free(zone, a);
        zone_free(zone, b);
        if (wrong == NULL)
            wrong = slab_check(zone);
    }
    ok(wrong == NULL, "every size up to three pages%s%s", wrong ? ": " : "", wrong ? wrong : "");
    is_uint(zone_bytes_free(zone), before, "and all of it given back");
    zone_free(zone, NULL);
    for (unsigned c = 0; c < ZONE_CLASSES; c++) {
        if (class_of(class_size(c)) != c ||
            (c + 1 < ZONE_CLASSES && class_of(class_size(c) + 1) != c + 1))
            wrong = "a class";
    }
    ok(wrong == NULL && class_size(ZONE_CLASSES - 1) == ZONE_SMALL_MAX, "classes and sizes agree");
    zone_destroy(zone);
}

static void test_full(void)
{
    struct zone *zone = open_zone(ZONE_MIN);
    size_t total = zone_bytes_total(zone), n = 0;
    void *all, *p, *list[8];

    is_uint(total, 7 * ZONE_PAGE, "a page of descriptors, the rest is there to be used");
    ok(zone_alloc(zone, total + 1) == NULL, "more than there is");
    ok(zone_alloc(zone, SIZE_MAX) == NULL, "far more than there is");
    all = zone_alloc(zone, total);
    ok(all != NULL && zone_bytes_free(zone) == 0, "all of it at once");
    ok(zone_alloc(zone, 1) == NULL, "then nothing is left");
    zone_free(zone, all);
    for (n = 0; (p = zone_alloc(zone, ZONE_PAGE)) != NULL; n++)
        list[n] = p;
    is_uint(n, 7, "page by page");
    for (size_t i = 0; i < n; i += 2)
        zone_free(zone, list[i]);
    ok(zone_alloc(zone, ZONE_PAGE + 1) == NULL, "no two pages in a row");
    for (size_t i = 1; i < n; i += 2)
        zone_free(zone, list[i]);
    ok(slab_check(zone) == NULL, "sound after pages were given back in another order");
    all = zone_alloc(zone, total);
    ok(all != NULL, "joined to one run again");
    zone_free(zone, all);
    for (n = 0; zone_alloc(zone, 16) != NULL; n++)
        ;
    is_uint(n, total / 16, "small objects fill the zone");
    zone_destroy(zone);
}

static uint64_t seed = 88172645463325252ull;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t) (seed >> 32);
}

/* Objects carry their number in every byte: one that another overlaps shows it when it is freed. */
static void test_random(void)
{
    struct zone *zone = open_zone(128 * ZONE_PAGE);
    static struct {
        unsigned char *p;
        size_t size;
    } held[512];
    const char *wrong = NULL;
    unsigned refused = 0;

    for (unsigned i = 0; i < 200000 && wrong == NULL; i++) {
        unsigned n = rnd() % ARRAY_LEN(held);

        if (held[n].p != NULL) {
            for (size_t k = 0; k < held[n].size; k += 7)
                wrong = held[n].p[k] != (n & 0xff) ? "an object was overwritten" : wrong;
            zone_free(zone, held[n].p);
            held[n].p = NULL;
        } else {
            held[n].size = 1 + rnd() % (rnd() % 8 != 0 ? 600 : 4 * ZONE_PAGE);
            held[n].p = zone_alloc(zone, held[n].size);
            if (held[n].p != NULL)
                memset(held[n].p, (int) n, held[n].size);
            else
                refused++;
        }
        if (wrong == NULL && i % 512 == 0)
            wrong = slab_check(zone);
        if (wrong == NULL && i % 8192 == 0) /* what recovery rebuilds is what was there */
            wrong = slab_recover(zone) ? slab_check(zone) : "a sound zone is not recovered";
    }
    ok(wrong == NULL, "200000 random calls%s%s", wrong ? ": " : "", wrong ? wrong : "");
    ok(refused > 0, "among them some that were refused");
    for (unsigned n = 0; n < ARRAY_LEN(held); n++)
        zone_free(zone, held[n].p);
    is_uint(zone_bytes_free(zone), zone_bytes_total(zone), "nothing is lost");
    ok(slab_check(zone) == NULL, "and all joined");
    zone_destroy(zone);
}

int main(void)
{
    test_sizes();
    test_full();
    test_random();
    return done_testing();
}
