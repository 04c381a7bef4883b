/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a zone is worth after the owner of its lock died inside a change. The sources are compiled
 * with a step before each store of shared structure. Every operation is cut short at every step,
 * by SIGKILL in a child that holds the lock, and once more, in this process, at every step of the
 * recovery that follows. After it all invariants hold, the table is as before or as after the
 * operation, no byte is lost, and everything can be allocated again.
 */
#define ZONE_STEPS

#include "t/unit/core/zone/check.h"
#include "t/unit/core/zone/steps.h"


#define VALUE 16

/* The zone under test has a table at its root and, for the slab's own operations, some objects. */
static unsigned inits;
static bool starting;        /* init has begun and not ended */
static bool asked_too_early; /* recover was called on what init had half done */

static struct keyed *table(void)
{
    return zone_at(zone, zone_root(zone));
}

static int table_start(struct zone *z, void *data)
{
    struct keyed *t;

    (void) data;
    inits++;
    starting = true;
    t = keyed_new(z, VALUE, 4);
    if (t == NULL)
        return -1;
    zone_set_root(z, zone_off(z, t));
    starting = false;
    return 0;
}

static bool table_recover(struct zone *z)
{
    asked_too_early = asked_too_early || starting;
    return keyed_recover(z, zone_at(z, zone_root(z)));
}

static const struct zone_kind kept_kind = {
    .name = "kept", .version = 1, .init = table_start, .recover = table_recover
};
static const struct zone_kind wiped_kind = { .name = "wiped", .version = 1, .init = table_start };

static struct str number_key(unsigned n)
{
    static char buf[16];

    return str_from(buf, (size_t) snprintf(buf, sizeof(buf), "key-%u", n));
}

/* Keys beyond 90 are long: their nodes are runs of pages. */
static struct str key(unsigned n)
{
    static char buf[2 * ZONE_PAGE];

    if (n < 90)
        return number_key(n);
    memset(buf, (int) n, sizeof(buf));
    return str_from(buf, sizeof(buf));
}

static void put(unsigned n)
{
    bool created;
    uint64_t *value = keyed_put(zone, table(), key(n), 8, &created);

    if (value == NULL)
        return;
    value[0] = n;
    value[1] = ~(uint64_t) n;
}

static void put_upto(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        put(i);
}

static void delete (unsigned n)
{
    void *value = keyed_get(zone, table(), key(n), false);

    if (value != NULL)
        keyed_delete(zone, table(), value);
}

static void *objects[64];

static void take(unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++)
        objects[i] = zone_alloc(zone, size);
}

/* setup brings the zone, empty but for the table, to where op begins. */
static void setup_nothing(void) {}
static void setup_three(void)
{
    put_upto(3);
}
static void setup_twenty(void)
{
    put_upto(20);
}
static void setup_last_room(void)
{
    take(3, 1024);
}
static void setup_full_page(void)
{
    take(4, 1024);
}
static void setup_one(void)
{
    take(1, 1024);
}
static void setup_runs(void)
{
    take(3, ZONE_PAGE);
}
static void setup_hole(void)
{
    take(3, ZONE_PAGE);
    zone_free(zone, objects[1]);
}
static void setup_between(void)
{
    setup_runs();
    zone_free(zone, objects[0]);
    zone_free(zone, objects[2]);
}
static void setup_two_small_pages(void)
{
    take(8, 1024);
    zone_free(zone, objects[0]);
}
static void setup_last_in_page(void)
{
    take(3, ZONE_PAGE);
    zone_free(zone, objects[1]);
    objects[1] = zone_alloc(zone, 2000);
    zone_free(zone, objects[0]);
    zone_free(zone, objects[2]);
}
static void setup_full(void)
{
    put_upto(20);
    while (zone_alloc(zone, ZONE_PAGE) != NULL)
        ;
    for (unsigned i = 20; zone_bytes_free(zone) >= 48 && i < 85; i++)
        put(i);
}
static void setup_long(void)
{
    put(0);
    put(91);
    put(1);
}

static void op_alloc(void)
{
    (void) zone_alloc(zone, 1024);
}
static void op_alloc_run(void)
{
    (void) zone_alloc(zone, 2 * ZONE_PAGE - 5);
}
static void op_free_first(void)
{
    zone_free(zone, objects[0]);
}
static void op_free_second(void)
{
    zone_free(zone, objects[1]);
}
static void op_free_fifth(void)
{
    zone_free(zone, objects[4]);
}
static void op_put_88(void)
{
    put(88);
}
static void op_put_1(void)
{
    put(1);
}
static void op_put_92(void)
{
    put(92);
}
static void op_touch_0(void)
{
    (void) keyed_get(zone, table(), key(0), true);
}
static void op_touch_7(void)
{
    (void) keyed_get(zone, table(), key(7), true);
}
static void op_delete_0(void)
{
    delete (0);
}
static void op_delete_1(void)
{
    delete (1);
}
static void op_delete_2(void)
{
    delete (2);
}
static void op_delete_19(void)
{
    delete (19);
}
static void op_delete_91(void)
{
    delete (91);
}
static void op_all(void)
{
    put(60);
    put(0);
    delete (1);
    delete (5);
    put(61);
}

static const struct op {
    const char *name;
    void (*setup)(void);
    void (*run)(void);
    bool slab; /* works on the slab alone: one object may be lost */
} ops[] = {
    { "alloc with a new page", setup_nothing, op_alloc, true },
    { "alloc from a page with room", setup_one, op_alloc, true },
    { "alloc of a page's last object", setup_last_room, op_alloc, true },
    { "alloc beside full pages", setup_full_page, op_alloc, true },
    { "alloc of a run", setup_runs, op_alloc_run, true },
    { "alloc of a run past a hole", setup_hole, op_alloc_run, true },
    { "free of a page's only object", setup_one, op_free_first, true },
    { "free in a full page", setup_full_page, op_free_second, true },
    { "free in a full page beside another", setup_two_small_pages, op_free_fifth, true },
    { "free of a page between free ones", setup_last_in_page, op_free_second, true },
    { "free of a run at the start", setup_runs, op_free_first, true },
    { "free of a run between free ones", setup_between, op_free_second, true },
    { "put into an empty table", setup_nothing, op_put_88, false },
    { "put into a chain", setup_twenty, op_put_88, false },
    { "put of a long key", setup_long, op_put_92, false },
    { "put of an existing key", setup_three, op_put_1, false },
    { "put with eviction", setup_full, op_put_88, false },
    { "touch of the oldest", setup_three, op_touch_0, false },
    { "touch in the middle", setup_twenty, op_touch_7, false },
    { "delete of the oldest", setup_twenty, op_delete_0, false },
    { "delete in the middle", setup_three, op_delete_1, false },
    { "delete of the youngest", setup_three, op_delete_2, false },
    { "delete at a chain's head", setup_twenty, op_delete_19, false },
    { "delete of a long key", setup_long, op_delete_91, false },
    { "several changes at once", setup_twenty, op_all, false },
};

static uint64_t empty_free; /* bytes free with nothing but the table */

/*
 * Which of the keys 0..99 are there, a bit each in two words; false when a value is not its key's.
 */
static bool keys_present(uint64_t set[2])
{
    set[0] = set[1] = 0;
    for (void *v = keyed_next(zone, table(), NULL); v != NULL; v = keyed_next(zone, table(), v)) {
        uint64_t *value = v;
        unsigned n = (unsigned) value[0];

        if (value[0] == 0 && value[1] == 0) { /* just put: the owner died before it filled it */
            for (n = 0; n < 100 && !str_eq(key(n), keyed_key(zone, table(), v)); n++)
                ;
        } else if (n >= 100 || value[1] != ~value[0] ||
                   !str_eq(key(n), keyed_key(zone, table(), v))) {
            return false;
        }
        set[n / 64] |= 1ull << (n & 63);
    }
    return true;
}

struct expected {
    uint64_t keys[2][2]; /* before and after */
    uint64_t bytes_free[2];
    bool many; /* entries may come and go one by one */
};

/* What is under test, and what it may leave. */
static const struct op *op;
static struct expected expected;

static void expect(void)
{
    struct expected *e = &expected;

    image_restore();
    inits = 0;
    op->setup();
    image_save();
    e->bytes_free[0] = zone_bytes_free(zone);
    (void) keys_present(e->keys[0]);
    op->run();
    e->bytes_free[1] = zone_bytes_free(zone);
    (void) keys_present(e->keys[1]);
    e->many = op->run == op_all || op->setup == setup_full;
    image_restore();
}

static bool same(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

/* Takes everything in objects of one size until nothing is left; that must be all that is free. */
static const char *all_can_be_taken(size_t size)
{
    uint32_t free_pages = 0;
    size_t n = 0, room = 0;
    void *p;

    for (uint32_t i = 0, len; i < zone->header->slab.count; i += len) {
        const struct zone_page *page = &zone->pages[i];

        len = page_type(page) == PAGE_RUN ? (uint32_t) page_arg(page) : 1;
        free_pages += page_type(page) == PAGE_FREE;
        if (page_type(page) == PAGE_SMALL && page_arg(page) == class_of(size))
            room += class_objects(class_of(size)) - page->taken;
    }
    while ((p = zone_alloc(zone, size)) != NULL) {
        if (*(char *) p != 0 || ((char *) p)[size - 1] != 0)
            return "memory was not zeroed";
        memset(p, 0xff, size);
        n++;
    }
    return n == room + free_pages * class_objects(class_of(size)) ? NULL : "not all can be taken";
}

static const char *check_soundness(void)
{
    const char *wrong = slab_check(zone);

    return wrong != NULL ? wrong : keyed_check(zone, table());
}

/* After a recovery. Destroys the contents. */
static const char *check_outcome(void)
{
    const struct expected *e = &expected;
    const char *wrong = check_soundness();
    uint64_t keys[2];
    void *value;

    if (wrong != NULL)
        return wrong;
    if (inits != 0)
        return "the zone was wiped";
    if (!keys_present(keys))
        return "a value is not its key's";
    if (!e->many && !same(keys, e->keys[0]) && !same(keys, e->keys[1]))
        return "other keys than before or after";
    if (op->slab && zone_bytes_free(zone) != e->bytes_free[0] &&
        zone_bytes_free(zone) != e->bytes_free[1])
        return "more than the one object was lost";
    if (!op->slab) {
        size_t pages = 0;

        while ((value = keyed_oldest(zone, table(), NULL)) != NULL)
            keyed_delete(zone, table(), value);
        for (uint32_t p = 0; op->setup == setup_full && p < zone->header->slab.count; p++)
            pages += zone->pages[p].kind == (PAGE_RUN | 1 << 8);
        if (zone_bytes_free(zone) + pages * ZONE_PAGE != empty_free)
            return "memory was lost";
    }
    if ((wrong = all_can_be_taken(64)) != NULL)
        return wrong;
    return check_soundness();
}

static bool zone_open(const struct zone_kind *kind)
{
    struct zone_spec spec = { STR("death"), 12 * ZONE_PAGE, kind, STR(""), NULL };

    zone = zone_create(&spec, log_main);
    if (zone == NULL)
        return false;
    empty_free = zone_bytes_free(zone);
    image_save();
    return true;
}

static void test_operations(void)
{
    char *empty;

    if (!ok(zone_open(&kept_kind), "a zone"))
        return;
    empty = mem_alloc(zone->total);
    memcpy(empty, image, zone->total);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        memcpy(image, empty, zone->total);
        op = &ops[i];
        expect();
        ok(check_soundness() == NULL, "%s: sound before", op->name);
        test_killed(op->name, op->run, check_outcome);
        test_killed_twice(op->name, op->run, check_outcome);
    }
    free(empty);
    image_close();
}

/*
 * Without a way to recover, or with data that is damaged, the zone is wiped. A death in the wiping
 * wipes again: recover is not asked about what is half wiped (it would find no table).
 */
static void test_wipe(const struct zone_kind *kind)
{
    const char *wrong = NULL;
    unsigned long step;
    unsigned generation;
    bool cut = true;

    if (!ok(zone_open(kind), "a zone to wipe"))
        return;
    put_upto(20);
    if (kind->recover != NULL)
        node_at(zone, table()->oldest)->chain = UINT32_MAX;
    image_save();
    for (step = 1; cut && wrong == NULL; step++) {
        image_restore();
        generation = zone_generation(zone);
        cut = cut_short(steps_recover, step);
        if (cut)
            zone_recover(zone);
        starting = false;
        wrong = asked_too_early ? "recover was asked about half an init" : check_soundness();
        if (wrong == NULL && (keyed_count(table()) != 0 || zone_bytes_free(zone) != empty_free))
            wrong = "something was left";
        if (wrong == NULL && zone_generation(zone) == generation)
            wrong = "the generation is the old one";
    }
    ok(wrong == NULL, "wiped (%s), dead at each of %lu steps of it%s%s", kind->name, step - 2,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
    image_close();
}

/* Damage that no half-done change explains: recovery must end, and say that it cannot. */
static void test_damage(void)
{
    struct node *a, *b;
    uint64_t kind;

    if (!ok(zone_open(&kept_kind), "a zone to damage"))
        return;
    put_upto(20);
    image_save();
    a = node_at(zone, table()->oldest);
    b = node_at(zone, a->younger);
    b->younger = table()->oldest;
    ok(!table_recover(zone), "a loop in the order of use");
    image_restore();
    a->chain = node_ref(zone, a);
    ok(!table_recover(zone), "a loop in a chain");
    image_restore();
    a->chain = UINT32_MAX;
    ok(!table_recover(zone), "a chain that leaves the zone");
    image_restore();
    a->key_len = UINT32_MAX;
    ok(!table_recover(zone), "a key longer than its node");
    image_restore();
    table()->mask = UINT32_MAX;
    ok(!table_recover(zone), "more buckets than there is memory for");
    image_restore();
    kind = zone->pages[0].kind;
    zone->pages[0].kind = PAGE_RUN | (uint64_t) UINT32_MAX << 8;
    ok(!slab_recover(zone), "a run that leaves the pool");
    zone->pages[0].kind = kind | 99 << 8;
    ok(!slab_recover(zone), "a class that does not exist");
    zone->header->slab.count = UINT32_MAX;
    inits = 0;
    zone_recover(zone);
    ok(inits == 1 && check_soundness() == NULL && keyed_count(table()) == 0,
       "a damaged zone starts anew");
    image_close();
}

int main(void)
{
    log_quietly();
    test_operations();
    test_wipe(&wiped_kind);
    test_wipe(&kept_kind);
    test_damage();
    return done_testing();
}
