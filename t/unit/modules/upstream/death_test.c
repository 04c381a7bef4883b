/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker that changes the servers of a group dies at every single store of the change, and whoever recovers dies
 * once more at every store of the recovery. Each server is then as before or as after, whole; the sums are right; and when all workers and
 * the group have gone no byte of the zone is missing.
 */
#define ZONE_STEPS

#include "t/unit/core/zone/check.h"
#include "modules/upstream/shared.c"
#include "modules/upstream/shared_servers.c"
#include "t/unit/core/zone/steps.h"

static uint64_t empty_free;
static struct health_check check_conf = { .id = 7, .mandatory = true };
static struct health_check *checks[] = { &check_conf };
static struct health health = { .checks = checks, .count = 1 };

static struct zone_group *group(void)
{
    return shared_first(zone);
}

/* A server whose texts all say its number. */
static unsigned come(unsigned n)
{
    char name[32], route[32];
    struct place p = { .kind = PLACE_SERVER, .parent = UPSTREAM_NO_PARENT, .weight = 1,
                       .record = { .max_fails = 1, .fail_timeout_s = 10 } };
    struct addr addr;
    unsigned i;

    snprintf(name, sizeof(name), "127.0.0.%u:80", n);
    snprintf(route, sizeof(route), "r%u", n);
    (void) addr_parse(&addr, str_cstr(name), 0, false);
    p.text = (struct place_text){ str_cstr(name), str_cstr(name), str_cstr(route), STR(""), &addr };
    i = shared_place(zone, group(), &health, &p);
    shared_changed(zone, group());
    return i;
}

static void leave(unsigned i)
{
    shared_leave(zone, group(), i);
    shared_changed(zone, group());
}

static void op_come(void) { come(9); }
static void op_leave(void) { leave(1); }
static void op_route(void) { (void) shared_route(zone, shared_server(zone, group(), 1), STR("r2")); }
static void op_again(void)
{
    leave(0);
    come(9);
}
static void op_attach(void)
{
    zone_set_worker(2);
    (void) hold(zone, group());
}
static void op_grow(void)
{
    come(7);
    come(8);
    come(9);
}
static void op_several(void)
{
    op_again();
    op_route();
    op_attach();
    op_grow();
}

static const struct op {
    const char *name;
    void (*run)(void);
} ops[] = {
    { "a server comes", op_come },      { "one leaves", op_leave },
    { "a route changes", op_route },    { "one leaves, one comes in its place", op_again },
    { "a worker begins", op_attach },   { "more come than there was room for", op_grow },
    { "several", op_several },
};

/* Its texts are those of one server. */
static bool is_whole(unsigned i)
{
    const struct zone_server *s = shared_server(zone, group(), i);
    struct place p;
    struct addr addr;
    char text[ADDR_TEXT], route[32];
    unsigned n;

    shared_read(zone, group(), i, &p);
    shared_addr(zone, s, &addr);
    if (!str_eq(p.text.name, p.text.server) || !str_starts(p.text.name, STR("127.0.0.")))
        return false;
    n = (unsigned) (p.text.name.ptr[8] - '0');
    snprintf(route, sizeof(route), "r%u", n);
    return str_eq(p.text.name, str_from(text, addr_format(&addr, true, text, sizeof(text))))
           && (str_eq(p.text.route, str_cstr(route)) || (i == 1 && str_eq(p.text.route, STR("r2"))));
}

static const char *check_places(void)
{
    struct peer_view v;
    struct peer_set sums;

    shared_view(zone, group(), &v);
    sums = *v.set;
    peers_recount(&v);
    if (memcmp(&sums.primary_live, &v.set->primary_live, sizeof(uint32_t)) != 0 || sums.gone != v.set->gone
        || sums.weight != v.set->weight || sums.conns != v.set->conns)
        return "the sums are wrong";
    for (unsigned i = 0; i < v.set->count; i++) {
        const struct zone_server *s = shared_server(zone, group(), i);

        if (s == NULL || (s->kind == PLACE_FREE) != ((v.state[i] & PEER_GONE) != 0))
            return "a place is neither free nor not";
        if (s->kind != PLACE_FREE && !is_whole(i))
            return "a server is torn";
        if (v.conns[i] != (i < 2 ? 2 : 0) && s->kind != PLACE_FREE)
            return "connections were counted wrongly";
    }
    return NULL;
}

/* All is whole; without the workers and the group all memory is free. Destroys the contents. */
static const char *check(void)
{
    const char *wrong = slab_check(zone);

    if (wrong == NULL)
        wrong = check_places();
    for (unsigned w = 0; w < 4 && wrong == NULL; w++)
        give_back(zone, zone_slot(zone, w));
    if (wrong != NULL)
        return wrong;
    if (group()->users != 0)
        return "users were counted wrongly";
    group()->current = 0;
    sweep(zone);
    return zone_bytes_free(zone) != empty_free ? "memory was lost" : NULL;
}

/* Two workers, each with a connection to the first two servers. */
static void setup(void)
{
    come(1);
    come(2);
    come(3);
    for (unsigned w = 0; w < 2; w++) {
        struct peer_view v;

        zone_set_worker(w);
        shared_view(zone, group(), &v);
        v.held = zone_at(zone, hold(zone, group())->conns);
        for (unsigned i = 0; i < 2; i++)
            peers_take(&v, i, 1);
    }
}

int main(void)
{
    struct arena *arena = arena_new();
    struct upstream *g = upstream_temporary(arena, STR("g"), NULL, 0);
    struct shared_groups groups = { g };
    struct zone_spec spec = { STR("z"), 64 * ZONE_PAGE, &upstream_zone, STR(""), &groups };

    log_quietly();
    g->health = &health;
    zone = zone_create(&spec, log_main);
    if (!ok(zone != NULL, "a zone"))
        return done_testing();
    image_save();
    group()->current = 0;
    sweep(zone);
    empty_free = zone_bytes_free(zone);
    image_restore();
    setup();
    image_save();
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        test_killed(ops[i].name, ops[i].run, check);
        test_killed_twice(ops[i].name, ops[i].run, check);
    }
    image_close();
    arena_destroy(arena);
    return done_testing();
}
