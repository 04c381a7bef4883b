/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zone of pairs whose user died: every change is cut short at every store, by SIGKILL in a child that holds the lock and
 * once more at every store of the recovery that follows. Each pair is then as before or as after, whole; what is derived
 * is right; no byte is lost.
 */
#define ZONE_STEPS

#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/core/zone/check.h"
#include "modules/keyval/table.c"
#include "t/unit/tap.h"

static unsigned long steps_left; /* 0: nobody dies */
static bool steps_kill;
static jmp_buf steps_end;

void zone_step(void)
{
    if (steps_left == 0 || --steps_left != 0)
        return;
    if (steps_kill)
        (void) kill(getpid(), SIGKILL);
    longjmp(steps_end, 1);
}

static struct keyval_zone kz;
static struct res_zone res;
static struct zone *zone;
static char *image;
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

static bool cut_short(void (*fn)(void), unsigned long step)
{
    volatile bool cut = true;

    steps_left = step;
    if (setjmp(steps_end) == 0) {
        fn();
        cut = false;
    }
    steps_left = 0;
    return cut;
}

static void recover(void)
{
    zone_recover(zone);
}

static bool child_dies(const struct op *op, unsigned long step)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        zone_lock(zone);
        steps_kill = true;
        steps_left = step;
        op->run();
        steps_left = 0;
        zone_unlock(zone);
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status);
}

static void test_killed(const struct op *op)
{
    const char *wrong = NULL;
    unsigned long step;
    bool died = true;

    for (step = 1; died && wrong == NULL; step++) {
        memcpy(zone->base, image, zone->total);
        died = child_dies(op, step);
        zone_lock(zone);
        wrong = zone_generation(zone) != 0 ? "the zone was wiped" : check();
        zone_unlock(zone);
    }
    ok(wrong == NULL, "type %d, %s: killed at each of %lu steps%s%s", kz.type, op->name, step - 2,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
}

static void test_killed_twice(const struct op *op)
{
    const char *wrong = NULL;
    unsigned long first, second = 0, cases = 0;
    bool again;

    for (first = 1; wrong == NULL; first++) {
        memcpy(zone->base, image, zone->total);
        if (!cut_short(op->run, first))
            break;
        for (second = 1, again = true; again && wrong == NULL; second++, cases++) {
            memcpy(zone->base, image, zone->total);
            (void) cut_short(op->run, first);
            again = cut_short(recover, second);
            if (again)
                zone_recover(zone);
            wrong = check();
        }
    }
    ok(wrong == NULL, "type %d, %s: dead in the recovery too, %lu cases%s%s", kz.type, op->name, cases,
       wrong != NULL ? ": " : "", wrong != NULL ? wrong : "");
    if (wrong != NULL)
        diag("at step %lu, then %lu", first - 1, second - 1);
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
    image = mem_alloc(zone->total);
    memcpy(image, zone->base, zone->total);
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        test_killed(&ops[i]);
        test_killed_twice(&ops[i]);
    }
    free(image);
    zone_destroy(zone);
}

int main(void)
{
    log_quietly();
    test_type(KEYVAL_STRING);
    test_type(KEYVAL_IP);
    test_type(KEYVAL_PREFIX);
    return done_testing();
}
