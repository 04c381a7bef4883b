/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups whose numbers lie in a zone: all workers count the same connections and failures, and a reload or a new
 * binary takes over what is known of servers that stay. Each worker keeps its own share of the connections
 * besides, which is the truth: when it dies they are given back, and after a death inside the lock all sums
 * are made anew. Called by groups.c when a configuration is read, and by the zone.
 *
 * A group whose servers a reload changes gets new numbers, that begin with what is known of the servers that stay; the old ones go when
 * the last worker that uses them has gone.
 */
#include "core/base/clock.h"
#include "core/config/resource.h"
#include "modules/upstream/internal.h"

/* A prober that has not shown itself for so long is stopped or stuck. */
#define PROBER_SILENT_MS 5000

/* In the zone. ids and the peer_set follow in allocations of their own. */
struct zone_group {
    zone_off_t next;
    zone_off_t set;
    zone_off_t ids;      /* uint64_t for each server: who it is */
    zone_off_t checks;   /* struct peer_check: for each check one for each server; 0: there are none */
    zone_off_t prober;   /* struct held of the worker that makes the checks; 0: nobody does */
    uint64_t prober_ms;  /* when it last showed that it is there, on the monotonic clock */
    uint64_t name;       /* hash of the group's name */
    uint64_t identity;   /* hash of everything that its `server` lines say */
    uint32_t count;
    uint32_t check_count;
    uint32_t users;      /* workers: derived from the slots */
    uint32_t current;    /* of the configuration in force */
};

/* What one active check has found out about one server. */
struct peer_check {
    uint64_t id;         /* of the check */
    uint64_t started_ms; /* the last one, on the monotonic clock; 0: none */
    uint32_t fails, passes; /* one after the other */
    bool sick;
    bool unchecked;      /* mandatory, and none has ended yet */
};

struct zone_root {
    zone_off_t groups;
};

/* A worker's connections to the servers of one group. */
struct held {
    zone_off_t next;
    zone_off_t group;
    uint32_t conns[];
};

struct slot {
    zone_off_t held;
};

/* Identity ----------------------------------------------------------------------------------------- */

/* FNV-1a: the same in every process, unlike the hash of tables. */
static uint64_t mix(uint64_t h, const void *ptr, size_t len)
{
    const unsigned char *p = ptr;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

uint64_t shared_mix(uint64_t h, struct str s)
{
    return mix(mix(h, s.ptr, s.len), "", 1);
}

uint64_t shared_peer_id(const struct peer *p)
{
    return shared_mix(shared_mix(SHARED_MIX_START, p->server), p->name);
}

static uint64_t group_identity(const struct upstream *g)
{
    const struct peer_view *v = &g->own;
    uint64_t h = SHARED_MIX_START;

    for (unsigned i = 0; i < g->count; i++) {
        const struct peer_record *rec = &v->records[i];
        int64_t numbers[] = { v->weight[i], v->state[i] & (PEER_DOWN | PEER_DRAIN | PEER_BACKUP), rec->max_fails,
                              (int64_t) rec->fail_timeout_s, rec->max_conns,
                              (int64_t) rec->slow_start_s };

        h = mix(mix(h, &g->peers[i].id, sizeof(uint64_t)), numbers, sizeof(numbers));
    }
    if (g->health == NULL)
        return h;
    for (unsigned c = 0; c < g->health->count; c++)
        h = mix(h, &g->health->checks[c]->id, sizeof(uint64_t));
    return mix(h, &g->health->epoch, sizeof(uint64_t));
}

/* Groups of a zone ------------------------------------------------------------------------------------ */

static struct zone_root *root_of(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static struct zone_group *first_group(struct zone *zone)
{
    return zone_at(zone, root_of(zone)->groups);
}

static struct zone_group *next_group(struct zone *zone, const struct zone_group *zg)
{
    return zone_at(zone, zg->next);
}

static struct zone_group *find(struct zone *zone, const struct upstream *g, bool same_servers)
{
    uint64_t name = shared_mix(SHARED_MIX_START, g->name);
    uint64_t identity = group_identity(g);

    for (struct zone_group *zg = first_group(zone); zg != NULL; zg = next_group(zone, zg)) {
        if (zg->name == name && (same_servers ? zg->identity == identity : zg->current))
            return zg;
    }
    return NULL;
}

static void view_of(struct zone *zone, const struct zone_group *zg, struct peer_view *v)
{
    peers_map(v, zone_at(zone, zg->set));
}

/* Active checks in the zone ------------------------------------------------------------------------------ */

static struct peer_check *check_at(struct zone *zone, const struct zone_group *zg, unsigned c, unsigned i)
{
    struct peer_check *all = zone_at(zone, zg->checks);

    return &all[(size_t) c * zg->count + i];
}

/* What all checks together say of a server. */
static uint32_t checked_state(struct zone *zone, const struct zone_group *zg, unsigned i)
{
    uint32_t state = 0;

    for (unsigned c = 0; c < zg->check_count; c++) {
        const struct peer_check *pc = check_at(zone, zg, c, i);

        state |= (pc->sick ? PEER_SICK : 0) | (pc->unchecked ? PEER_UNCHECKED : 0);
    }
    return state;
}

/* As a server is that nobody has checked. */
static void init_checks(struct zone *zone, struct zone_group *zg, const struct health *health)
{
    for (unsigned c = 0; c < zg->check_count; c++) {
        for (unsigned i = 0; i < zg->count; i++)
            *check_at(zone, zg, c, i) = (struct peer_check){ .id = health->checks[c]->id,
                                                             .unchecked = health->checks[c]->mandatory };
    }
}

/* What the same checks have found out about server k of another group. */
static void copy_checks(struct zone *zone, const struct zone_group *zg, unsigned i,
                        const struct zone_group *old, unsigned k, const struct health *health)
{
    for (unsigned c = 0; c < zg->check_count; c++) {
        struct peer_check *to = check_at(zone, zg, c, i);

        if (health->checks[c]->mandatory && !health->checks[c]->persistent)
            continue;
        for (unsigned o = 0; o < old->check_count; o++) {
            const struct peer_check *from = check_at(zone, old, o, k);

            if (from->id == to->id)
                *to = *from;
        }
    }
}

/* The states that follow from what the checks say. */
static void settle_checks(struct zone *zone, const struct zone_group *zg, struct peer_view *v)
{
    for (unsigned i = 0; i < zg->count; i++)
        peers_checked(v, i, checked_state(zone, zg, i), clock_ms() / 1000);
}

/* Taking over ------------------------------------------------------------------------------------------- */

/* What is known of servers that were there before. Their connections stay with those who hold them. */
static void take_over(struct zone *zone, const struct zone_group *old, const struct zone_group *zg,
                      const struct health *health)
{
    const uint64_t *old_ids = zone_at(zone, old->ids), *ids = zone_at(zone, zg->ids);
    struct peer_view from, to;

    view_of(zone, old, &from);
    view_of(zone, zg, &to);
    for (unsigned i = 0; i < zg->count; i++) {
        unsigned k = 0;

        while (k < old->count && old_ids[k] != ids[i])
            k++;
        if (k == old->count)
            continue;
        peers_copy(&to, i, &from, k);
        copy_checks(zone, zg, i, old, k, health);
    }
}

static void free_group(struct zone *zone, struct zone_group *zg)
{
    zone_off_t *link = &root_of(zone)->groups;

    for (struct zone_group *g; (g = zone_at(zone, *link)) != NULL; link = &g->next) {
        if (g == zg) {
            *link = zg->next;
            break;
        }
    }
    zone_free(zone, zone_at(zone, zg->checks));
    zone_free(zone, zone_at(zone, zg->ids));
    zone_free(zone, zone_at(zone, zg->set));
    zone_free(zone, zg);
}

/* Numbers for a group of the configuration. NULL: the zone is full. */
static struct zone_group *make(struct zone *zone, const struct upstream *g)
{
    struct zone_group *zg = zone_alloc(zone, sizeof(*zg)), *old = find(zone, g, false);
    uint64_t *ids = zone_alloc(zone, g->count * sizeof(*ids));
    void *set = zone_alloc(zone, peers_size(g->count));
    unsigned check_count = g->health != NULL ? g->health->count : 0;
    size_t checks_size = (size_t) check_count * g->count * sizeof(struct peer_check);
    void *checks = checks_size > 0 ? zone_alloc(zone, checks_size) : NULL;
    struct peer_view v;

    if (zg == NULL || ids == NULL || set == NULL || (checks == NULL && checks_size > 0)) {
        zone_free(zone, checks);
        zone_free(zone, set);
        zone_free(zone, ids);
        zone_free(zone, zg);
        return NULL;
    }
    memcpy(set, g->own.set, peers_size(g->count));
    for (unsigned i = 0; i < g->count; i++)
        ids[i] = g->peers[i].id;
    zg->set = zone_off(zone, set);
    zg->ids = zone_off(zone, ids);
    zg->name = shared_mix(SHARED_MIX_START, g->name);
    zg->identity = group_identity(g);
    zg->count = g->count;
    zg->checks = checks != NULL ? zone_off(zone, checks) : 0;
    zg->check_count = check_count;
    init_checks(zone, zg, g->health);
    if (old != NULL)
        take_over(zone, old, zg, g->health);
    view_of(zone, zg, &v);
    settle_checks(zone, zg, &v);
    zg->next = root_of(zone)->groups;
    root_of(zone)->groups = zone_off(zone, zg);
    return zg;
}

/* Groups that no configuration names and no worker uses. */
static void sweep(struct zone *zone)
{
    for (struct zone_group *zg = first_group(zone), *next; zg != NULL; zg = next) {
        next = next_group(zone, zg);
        if (!zg->current && zg->users == 0)
            free_group(zone, zg);
    }
}

static int zone_take_groups(struct zone *zone, const struct shared_groups *groups)
{
    for (const struct upstream *g = groups->first; g != NULL; g = g->next_shared) {
        if (find(zone, g, true) != NULL || make(zone, g) != NULL)
            continue;
        log_emerg(log_main, 0, "no memory in zone \"%.*s\" for upstream \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)), STR_ARG(g->name));
        sweep(zone); /* what was made for this configuration */
        return -1;
    }
    for (struct zone_group *zg = first_group(zone); zg != NULL; zg = next_group(zone, zg))
        zg->current = 0;
    for (const struct upstream *g = groups->first; g != NULL; g = g->next_shared)
        find(zone, g, true)->current = 1;
    sweep(zone);
    return 0;
}

/* The kind ------------------------------------------------------------------------------------------- */

static int zone_init(struct zone *zone, void *data)
{
    struct zone_root *root = zone_alloc(zone, sizeof(*root));

    if (root == NULL)
        return -1;
    zone_set_root(zone, zone_off(zone, root));
    return zone_take_groups(zone, data);
}

static int zone_adopt_groups(struct zone *zone, void *data)
{
    return zone_take_groups(zone, data);
}

/* Adds a worker's connections to the sums, or takes them off again. */
static void count_held(struct zone *zone, const struct held *h, bool add)
{
    struct zone_group *zg = zone_at(zone, h->group);
    struct peer_view v;

    view_of(zone, zg, &v);
    zg->users += add ? 1 : UINT32_MAX;
    if (!add && zg->prober == zone_off(zone, h))
        zg->prober = 0;
    for (unsigned i = 0; i < zg->count; i++)
        peers_count(&v, i, add ? (int64_t) h->conns[i] : -(int64_t) h->conns[i]);
}

static bool zone_recover(struct zone *zone)
{
    for (struct zone_group *zg = first_group(zone); zg != NULL; zg = next_group(zone, zg)) {
        struct peer_view v;

        view_of(zone, zg, &v);
        settle_checks(zone, zg, &v);
        peers_reset(&v);
        zg->users = 0;
    }
    for (unsigned w = 0; w < ZONE_WORKERS; w++) {
        const struct slot *slot = zone_slot(zone, w);

        for (const struct held *h = zone_at(zone, slot->held); h != NULL; h = zone_at(zone, h->next))
            count_held(zone, h, true);
    }
    return true;
}

static void worker_gone(struct zone *zone, void *data)
{
    struct slot *slot = data;
    struct held *h;

    zone_lock(zone);
    while ((h = zone_at(zone, slot->held)) != NULL) {
        slot->held = h->next;
        count_held(zone, h, false);
        zone_free(zone, h);
    }
    sweep(zone);
    zone_unlock(zone);
}

static const struct zone_kind upstream_zone = {
    .name = "upstream",
    .version = 2,
    .slot_size = sizeof(struct slot),
    .init = zone_init,
    .adopt = zone_adopt_groups,
    .recover = zone_recover,
    .worker_gone = worker_gone,
};

/* Configuration and workers ----------------------------------------------------------------------------- */

const char *shared_set_zone(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;
    const char *error = NULL;
    uint64_t size = 0;
    struct res_zone *z;
    struct shared_groups *groups;

    (void) field;
    if (cf->args[1].len == 0)
        return conf_error_arg(cf, 1, "invalid zone name \"%s\"", cf->args[1].ptr);
    if (cf->nargs == 3) {
        if (str_to_size(cf->args[2], &size) != 0 || size > ZONE_MAX)
            return conf_error_arg(cf, 2, "invalid zone size \"%s\"", cf->args[2].ptr);
        if (size < ZONE_MIN)
            return conf_error_arg(cf, 2, "zone \"%s\" is too small", cf->args[1].ptr);
    }
    z = res_zone(cf, cf->args[1], (size_t) size, &upstream_zone, &error);
    if (z == NULL)
        return error;
    if (z->spec.data == NULL)
        z->spec.data = ARENA_NEW(cf->arena, struct shared_groups);
    groups = z->spec.data;
    g->next_shared = groups->first;
    groups->first = g;
    g->zone_spec = z;
    return NULL;
}

void shared_attach(struct upstream *g)
{
    struct zone *zone = g->zone_spec != NULL ? g->zone_spec->zone : NULL;
    struct zone_group *zg;
    struct held *h;

    if (zone == NULL)
        return;
    zone_lock(zone);
    zg = find(zone, g, true);
    if (zg != NULL) {
        struct slot *slot = zone_my_slot(zone);

        view_of(zone, zg, &g->view);
        g->zone = zone;
        g->zone_group = zone_off(zone, zg);
        h = zone_alloc(zone, sizeof(*h) + g->count * sizeof(h->conns[0]));
        if (h != NULL) {
            h->group = zone_off(zone, zg);
            h->next = slot->held;
            slot->held = zone_off(zone, h);
            zg->users++;
            g->view.held = h->conns;
            g->zone_held = zone_off(zone, h);
        }
    }
    zone_unlock(zone);
    if (g->view.held == NULL)
        log_alert(log_main, 0,
                  "no memory in zone \"%.*s\" for this worker's part of upstream \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)), STR_ARG(g->name));
}

/* The prober ---------------------------------------------------------------------------------------------- */

/* The group in its zone, locked. */
static struct zone_group *lock_group(struct upstream *g)
{
    zone_lock(g->zone);
    return zone_at(g->zone, g->zone_group);
}

static bool is_vacant(const struct zone_group *zg, zone_off_t prober)
{
    uint64_t seen_ms = __atomic_load_n(&zg->prober_ms, __ATOMIC_RELAXED), now_ms = clock_ms();

    return prober == 0 || (now_ms > seen_ms && now_ms - seen_ms > PROBER_SILENT_MS);
}

bool shared_prober_take(struct upstream *g)
{
    struct zone_group *zg;
    zone_off_t prober;

    if (g->zone == NULL || g->zone_held == 0)
        return false;
    zg = zone_at(g->zone, g->zone_group);
    prober = __atomic_load_n(&zg->prober, __ATOMIC_RELAXED);
    /* Workers without the office look every second: not under the lock. */
    if (prober != g->zone_held && !is_vacant(zg, prober))
        return false;
    zone_lock(g->zone);
    if (zg->prober != g->zone_held && is_vacant(zg, zg->prober))
        zg->prober = g->zone_held;
    prober = zg->prober;
    if (prober == g->zone_held)
        zg->prober_ms = clock_ms();
    zone_unlock(g->zone);
    return prober == g->zone_held;
}

void shared_prober_leave(struct upstream *g)
{
    struct zone_group *zg = lock_group(g);

    if (zg->prober == g->zone_held)
        zg->prober = 0;
    zone_unlock(g->zone);
}

uint64_t shared_check_started(struct upstream *g, unsigned check, unsigned peer, bool *awaited)
{
    struct zone_group *zg = lock_group(g);
    const struct peer_check *pc = check_at(g->zone, zg, check, peer);
    uint64_t ms = pc->started_ms;

    *awaited = pc->unchecked;
    zone_unlock(g->zone);
    return ms;
}

bool shared_check_begin(struct upstream *g, unsigned check, unsigned peer)
{
    struct zone_group *zg = lock_group(g);
    bool go = zg->prober == g->zone_held && !(g->view.state[peer] & PEER_DOWN);

    if (go)
        check_at(g->zone, zg, check, peer)->started_ms = clock_ms();
    zone_unlock(g->zone);
    return go;
}

/* Counts the result. */
static void count_check(struct peer_check *pc, struct peer_record *rec, const struct health_check *conf,
                        bool passed)
{
    rec->checks++;
    rec->last_passed = passed;
    if (passed) {
        pc->fails = 0;
        pc->passes = MIN(pc->passes + 1, conf->passes);
        if (pc->unchecked || pc->passes == conf->passes)
            pc->sick = false;
    } else {
        rec->failed_checks++;
        pc->passes = 0;
        pc->fails = MIN(pc->fails + 1, conf->fails);
        if (pc->unchecked || pc->fails == conf->fails)
            pc->sick = true;
    }
    pc->unchecked = false;
}

enum health_change shared_check_end(struct upstream *g, unsigned check, unsigned peer, bool passed)
{
    struct zone_group *zg = lock_group(g);
    struct peer_view *v = &g->view;
    uint32_t before = v->state[peer] & (PEER_SICK | PEER_UNCHECKED), after = before;

    if (zg->prober == g->zone_held) {
        count_check(check_at(g->zone, zg, check, peer), &v->records[peer], g->health->checks[check], passed);
        after = checked_state(g->zone, zg, peer);
        peers_checked(v, peer, after, clock_ms() / 1000);
    }
    zone_unlock(g->zone);
    if (after & ~before & PEER_SICK)
        return HEALTH_SICK;
    return before != 0 && after == 0 ? HEALTH_WELL : HEALTH_SAME;
}
