/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zone of pairs whose user died: every change is cut short at every store, by SIGKILL in a child that holds the lock and
 * once more at every store of the recovery that follows. Each pair is then as before or as after, whole; what is derived
 * is right; no byte is lost.
 */
#define ZONE_STEPS

#include "t/unit/core/zone/check.h"
#include "modules/keyval/table.c"
#include "t/unit/core/zone/steps.h"

static struct keyval_zone kz;
static struct res_zone res;
static uint64_t empty_free;

static const char *const ip_keys[] = { "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32" };
static const char *const text_keys[] = { "a", "abc", "abcdef", "b" };
static char long_value[3000];

static struct str key(unsigned n)
{
    return str_cstr(kz.type == KEYVAL_IP ? ip_keys[n] : text_keys[n]);
}

/* "keyN:VERSION", then filler: a torn value shows. */
static struct str value(unsigned n, unsigned version, size_t len)
{
    snprintf(long_value, sizeof(long_value), "%u:%u:", n, version);
    memset(long_value + 4, (int) ('a' + version), len - 4);
    return str_from(long_value, len);
}

static void put(unsigned n, unsigned version, size_t len)
{
    (void) keyval_put(zone, kz.type, key(n), value(n, version, len), 0, KEYVAL_PUT);
}

static void setup(void)
{
    put(0, 0, 20);
    put(1, 0, 20);
    put(2, 0, 2500);
}

static void op_new(void) { put(3, 1, 30); }
static void op_new_long(void) { put(3, 1, 2800); }
static void op_change(void) { put(1, 1, 40); }
static void op_change_long(void) { put(2, 1, 10); }
static void op_delete(void)
{
    struct key k;

    (void) key_make(kz.type, key(1), &k);
    entry_delete(zone, kz.type, entry_find(zone, kz.type, k.bytes));
}
static void op_several(void)
{
    op_change();
    op_delete();
    op_new();
    op_change_long();
}

static const struct op {
    const char *name;
    void (*run)(void);
} ops[] = {
    { "a new pair", op_new },       { "a new long one", op_new_long },
    { "another value", op_change }, { "a short one for a long one", op_change_long },
    { "a deletion", op_delete },    { "several", op_several },
};

/* All pairs are whole, matching finds them, and without them all memory is free. Destroys the contents. */
static const char *check(void)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct keyed *t = table_of(zone, root);
    const char *wrong = slab_check(zone);
    uint32_t counts[CLASS_MAX] = { 0 };
    struct entry *e;

    if (wrong == NULL)
        wrong = keyed_check(zone, t);
    for (e = keyed_next(zone, t, NULL); wrong == NULL && e != NULL; e = keyed_next(zone, t, e)) {
        struct str v = value_of(zone, e);
        unsigned n = (unsigned) (v.ptr[0] - '0'), version = (unsigned) (v.ptr[2] - '0');
        struct key k;

        (void) key_make(kz.type, key(n), &k);
        counts[k.class_]++;
        if (!str_eq(keyed_key(zone, t, e), k.bytes) || !str_eq(v, value(n, version, v.len)))
            wrong = "a value is torn or not its key's";
    }
    for (unsigned i = 0; wrong == NULL && i < class_count(kz.type); i++) {
        uint32_t *have = zone_at(zone, root->counts);

        if (have[i] != counts[i] || (root->present[i / 64] >> i % 64 & 1) != (counts[i] != 0))
            wrong = "the classes were counted wrongly";
    }
    if (root->making != 0 || root->dropping != 0)
        wrong = "something is still under way";
    while (wrong == NULL && (e = keyed_oldest(zone, t, NULL)) != NULL)
        entry_delete(zone, kz.type, e);
    return wrong == NULL && zone_bytes_free(zone) != empty_free ? "memory was lost" : wrong;
}

static void test_type(enum keyval_type type)
{
    struct zone_spec spec = { STR("pairs"), 24 * ZONE_PAGE, &keyval_kind, STR(""), &kz };

    memset(&kz, 0, sizeof(kz));
    kz.type = type;
    kz.res = &res;
    zone = res.zone = zone_create(&spec, log_main);
    if (!ok(zone != NULL, "a zone"))
        return;
    empty_free = zone_bytes_free(zone);
    setup();
    image_save();
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        char name[64];

        (void) snprintf(name, sizeof(name), "type %d, %s", type, ops[i].name);
        test_killed(name, ops[i].run, check);
        test_killed_twice(name, ops[i].run, check);
    }
    image_close();
}

int main(void)
{
    log_quietly();
    test_type(KEYVAL_STRING);
    test_type(KEYVAL_IP);
    test_type(KEYVAL_PREFIX);
    return done_testing();
}
