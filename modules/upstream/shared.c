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
#include "core/config/resource.h"
#include "modules/upstream/internal.h"

/* In the zone. ids and the peer_set follow in allocations of their own. */
struct zone_group {
    zone_off_t next;
    zone_off_t set;
    zone_off_t ids;      /* uint64_t for each server: who it is */
    uint64_t name;       /* hash of the group's name */
    uint64_t identity;   /* hash of everything that its `server` lines say */
    uint32_t count;
    uint32_t users;      /* workers: derived from the slots */
    uint32_t current;    /* of the configuration in force */
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

static uint64_t mix_str(uint64_t h, struct str s)
{
    return mix(mix(h, s.ptr, s.len), "", 1);
}

#define MIX_START UINT64_C(0xcbf29ce484222325)

uint64_t shared_peer_id(const struct peer *p)
{
    return mix_str(mix_str(MIX_START, p->server), p->name);
}

static uint64_t group_identity(const struct upstream *g)
{
    const struct peer_view *v = &g->own;
    uint64_t h = MIX_START;

    for (unsigned i = 0; i < g->count; i++) {
        const struct peer_record *rec = &v->records[i];
        int64_t numbers[] = { v->weight[i], v->state[i] & (PEER_DOWN | PEER_DRAIN | PEER_BACKUP), rec->max_fails,
                              (int64_t) rec->fail_timeout_s, rec->max_conns,
                              (int64_t) rec->slow_start_s };

        h = mix(mix(h, &g->peers[i].id, sizeof(uint64_t)), numbers, sizeof(numbers));
    }
    return h;
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
    uint64_t name = mix_str(MIX_START, g->name);
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

/* What is known of servers that were there before. Their connections stay with those who hold them. */
static void take_over(struct zone *zone, const struct zone_group *old, const struct zone_group *zg)
{
    const uint64_t *old_ids = zone_at(zone, old->ids), *ids = zone_at(zone, zg->ids);
    struct peer_view from, to;

    view_of(zone, old, &from);
    view_of(zone, zg, &to);
    for (unsigned i = 0; i < zg->count; i++) {
        unsigned k = 0;

        while (k < old->count && old_ids[k] != ids[i])
            k++;
        if (k < old->count)
            peers_copy(&to, i, &from, k);
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

    if (zg == NULL || ids == NULL || set == NULL) {
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
    zg->name = mix_str(MIX_START, g->name);
    zg->identity = group_identity(g);
    zg->count = g->count;
    if (old != NULL)
        take_over(zone, old, zg);
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
    for (unsigned i = 0; i < zg->count; i++)
        peers_count(&v, i, add ? (int64_t) h->conns[i] : -(int64_t) h->conns[i]);
}

static bool zone_recover(struct zone *zone)
{
    for (struct zone_group *zg = first_group(zone); zg != NULL; zg = next_group(zone, zg)) {
        struct peer_view v;

        view_of(zone, zg, &v);
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
    .version = 1,
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
        h = zone_alloc(zone, sizeof(*h) + g->count * sizeof(h->conns[0]));
        if (h != NULL) {
            h->group = zone_off(zone, zg);
            h->next = slot->held;
            slot->held = zone_off(zone, h);
            zg->users++;
            g->view.held = h->conns;
        }
    }
    zone_unlock(zone);
    if (g->view.held == NULL)
        log_alert(log_main, 0,
                  "no memory in zone \"%.*s\" for this worker's part of upstream \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)), STR_ARG(g->name));
}
