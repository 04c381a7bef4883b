/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zone of sessions whose user died: every change is cut short at every store, by SIGKILL in a child that holds the lock and once
 * more at every store of the recovery that follows. Each session is then whole and its id's, those that the change is not about are
 * there, no byte is lost, and nothing of what went is left to be read.
 */
#define ZONE_STEPS

#include "t/unit/core/zone/check.h"
#include "modules/ssl/kept.c"
#include "modules/ssl/sessions.c"
#include "t/unit/core/zone/steps.h"

#define IDS 100

static uint64_t empty_free;

static struct str id(unsigned n)
{
    static char buf[32];

    memset(buf, (int) n + 1, sizeof(buf));
    return str_from(buf, sizeof(buf));
}

/* "nnn:VERSION:", then a filler that nothing else in a zone looks like. */
static struct str session(unsigned n, unsigned version, size_t len)
{
    static char buf[8192];

    memset(buf, 0xa5, len);
    buf[snprintf(buf, 8, "%03u:%u:", n, version)] = (char) 0xa5;
    return str_from(buf, len);
}

static void save(unsigned n, unsigned version, size_t len)
{
    (void) put(zone, id(n), session(n, version, len), 1000 + n);
}

static struct cached *find(unsigned n)
{
    return keyed_get(zone, kept_table(zone), id(n), false);
}

static void setup_few(void)
{
    save(0, 0, 120);
    save(1, 0, 3000);
    save(2, 0, 120);
}
static void setup_full(void)
{
    for (unsigned i = 0; i < 90; i++)
        save(i, 0, 1500);
}

static void op_new(void) { save(95, 1, 200); }
static void op_new_long(void) { save(95, 1, 6000); }
static void op_again(void) { save(0, 1, 150); }
static void op_again_long(void) { save(1, 1, 5000); }
static void op_shorter(void) { save(1, 1, 40); }
static void op_expire(void) { expire(zone, 1002); }
static void op_drop(void)
{
    struct cached *c = find(2);

    if (c != NULL)
        kept_drop(zone, &c->kept);
}
static void op_several(void)
{
    op_new();
    op_drop();
    op_again_long();
    op_expire();
}

static const struct op {
    const char *name;
    void (*setup)(void);
    void (*run)(void);
    unsigned kept; /* a session that must be there afterwards, whatever happens */
} ops[] = {
    { "a new session", setup_few, op_new, 2 },
    { "a new long one", setup_few, op_new_long, 2 },
    { "an id's session again", setup_few, op_again, 0 },
    { "a long one again", setup_few, op_again_long, 1 },
    { "a short one for a long one", setup_few, op_shorter, 1 },
    { "expiry", setup_few, op_expire, 2 },
    { "removal", setup_few, op_drop, 1 },
    { "several", setup_few, op_several, IDS },
    { "room made for a new session", setup_full, op_new, 89 },
    { "room made for a long one", setup_full, op_new_long, 89 },
};
static const struct op *op;

/* Destroys the contents. */
static const char *check(void)
{
    struct keyed *t = kept_table(zone);
    const char *wrong = slab_check(zone);
    struct cached *c;

    if (wrong == NULL)
        wrong = keyed_check(zone, t);
    if (wrong == NULL && op->kept < IDS && find(op->kept) == NULL)
        wrong = "a session is gone that nobody wanted to go";
    for (c = keyed_next(zone, t, NULL); wrong == NULL && c != NULL; c = keyed_next(zone, t, c)) {
        struct str data = kept_data(zone, &c->kept);
        unsigned n = (unsigned char) keyed_key(zone, t, c).ptr[0] - 1u;

        if (data.len < 8)
            wrong = "a session has no data";
        else if (!str_eq(data, session(n, (unsigned) (data.ptr[4] - '0'), data.len)))
            wrong = "a session is torn or not its id's";
        /* zero: it was not shown yet when its user died, or is that of the one before */
        else if (c->expires_s != 0 && c->expires_s != 1000 + n)
            wrong = "a session has another's time";
    }
    if (wrong == NULL && (root_of(zone)->making != 0 || root_of(zone)->dropping != 0))
        wrong = "something is still under way";
    while (wrong == NULL && (c = keyed_oldest(zone, t, NULL)) != NULL)
        kept_drop(zone, &c->kept);
    if (wrong == NULL && zone_bytes_free(zone) != empty_free)
        wrong = "memory was lost";
    for (size_t i = 0; wrong == NULL && i + 8 < zone->total; i += 8) {
        if (memcmp(zone->base + i, "\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5", 8) == 0)
            wrong = "what went can still be read";
    }
    return wrong;
}

int main(void)
{
    struct zone_spec spec = { STR("sessions"), 24 * ZONE_PAGE, &cache_kind, STR(""), NULL };
    char *empty;

    log_quietly();
    zone = zone_create(&spec, log_main);
    if (!ok(zone != NULL, "a zone"))
        return done_testing();
    empty_free = zone_bytes_free(zone);
    image_save();
    empty = mem_alloc(zone->total);
    memcpy(empty, image, zone->total);
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        op = &ops[i];
        memcpy(image, empty, zone->total);
        image_restore();
        op->setup();
        image_save();
        ok(op->kept == IDS || find(op->kept) != NULL, "%s: set up", op->name);
        test_killed(op->name, op->run, check);
        test_killed_twice(op->name, op->run, check);
    }
    free(empty);
    image_close();
    return done_testing();
}
