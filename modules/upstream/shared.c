/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups whose numbers lie in a zone: all workers count the same connections and failures, and a reload or a new
 * binary takes over what is known of servers that stay. Each worker keeps its own share of the connections
 * besides, which is the truth: when it dies they are given back, and after a death inside the lock all sums
 * are made anew. Called by groups.c when a configuration is read, and by the zone.
 *
 * A group whose servers a reload changes gets new numbers, that begin with what is known of the servers that stay; the old ones go when
 * the last worker that uses them has gone. What becomes of servers that were changed while they served: with a `state` file they stay, for
 * the file, which is what a reload reads, says the same as the zone. Without one a reload goes back to the `server`
 * lines, as in NGINX Plus, whose manual says of `state` that it is what keeps the state of a group; it is thus that a
 * configuration file means what it says. The old workers go on with the servers that they had.
 */
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "modules/upstream/shared.h"

/* Who has an office and has not shown himself for so long is stopped or stuck. */
#define OFFICE_SILENT_MS 5000

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
    uint64_t h = shared_mix(shared_mix(SHARED_MIX_START, p->server), p->name);

    return p->service.len > 0 ? shared_mix(h, p->service) : h;
}

/* What besides its servers a group's numbers depend on. */
static uint64_t group_frame(const struct upstream *g)
{
    uint64_t h = shared_mix(SHARED_MIX_START, g->state);

    if (g->health == NULL)
        return h;
    for (unsigned c = 0; c < g->health->count; c++)
        h = mix(h, &g->health->checks[c]->id, sizeof(uint64_t));
    return mix(h, &g->health->epoch, sizeof(uint64_t));
}

static uint64_t group_identity(const struct upstream *g)
{
    const struct peer_view *v = &g->own;
    uint64_t h = group_frame(g);

    for (unsigned i = 0; i < g->count; i++) {
        const struct peer_record *rec = &v->records[i];
        const struct peer *p = g->peers[i];
        int64_t numbers[] = { p->resolves ? rec->weight : v->weight[i],
                              (p->resolves ? rec->state : v->state[i])
                                  & (PEER_DOWN | PEER_DRAIN | PEER_BACKUP),
                              rec->max_fails, (int64_t) rec->fail_timeout_s, rec->max_conns,
                              (int64_t) rec->slow_start_s, p->resolves };

        h = shared_mix(mix(mix(h, &p->id, sizeof(uint64_t)), numbers, sizeof(numbers)), p->route);
    }
    return h;
}

/* Groups of a zone ------------------------------------------------------------------------------------ */

static struct zone_root *root_of(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

struct zone_group *shared_first(struct zone *zone)
{
    return zone_at(zone, root_of(zone)->groups);
}

struct zone_group *shared_next_group(struct zone *zone, const struct zone_group *zg)
{
    return zone_at(zone, zg->next);
}

static uint64_t group_name(const struct upstream *g)
{
    return shared_mix(SHARED_MIX_START, g->name);
}

/* The group of that name that is in force, or NULL. */
static struct zone_group *find_current(struct zone *zone, const struct upstream *g)
{
    struct zone_group *zg = shared_first(zone);

    while (zg != NULL && !(zg->current && zg->name == group_name(g)))
        zg = shared_next_group(zone, zg);
    return zg;
}

/* state_hash_of what the state file says now. False: it cannot be read. */
static bool hash_file(struct str path, uint64_t *hash)
{
    int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint64_t h = SHARED_MIX_START;
    char buf[16384];
    ssize_t n;

    if (fd < 0)
        return false;
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        h = mix(h, buf, (size_t) n);
    close(fd);
    *hash = mix(h, "", 1);
    return n == 0;
}

/* Whether somebody may be about to write into the state file's directory. */
static bool is_written(struct str path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path.ptr, '/');
    int fd, rc;

    (void) snprintf(dir, sizeof(dir), "%.*s/", slash != NULL ? (int) (slash - path.ptr) : 0, path.ptr);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    rc = flock(fd, LOCK_EX | LOCK_NB);
    close(fd);
    return rc != 0;
}

/*
 * Whether the zone, rather than what was read from the state file, says what the servers are: it does where the file says
 * what a worker wrote last, or is about to replace. While a long configuration is read the servers may have
 * changed any number of times; and an older file may have been put back by hand.
 */
static bool is_ours(const struct zone_group *zg, const struct upstream *g)
{
    uint64_t last = zg->state_hashes[zg->state_last];
    uint64_t before = zg->state_hashes[(zg->state_last + 1) % STATE_HASHES];
    uint64_t now = g->state_hash;

    if (g->state_hash == last || (hash_file(g->state, &now) && now == last))
        return true;
    return (now == before || g->state_hash == before) && is_written(g->state);
}

/*
 * Numbers that are there for a group of the configuration: those that it has taken before, or those of the same servers.
 * With a state file the zone is newer than what was read, unless somebody else has written the file.
 */
static struct zone_group *find(struct zone *zone, const struct upstream *g)
{
    uint64_t name = group_name(g), identity = group_identity(g), frame = group_frame(g);

    for (struct zone_group *zg = shared_first(zone); zg != NULL; zg = shared_next_group(zone, zg)) {
        if (zg->name == name && zone_off(zone, zg) == g->zone_group)
            return zg;
    }
    for (struct zone_group *zg = shared_first(zone); zg != NULL; zg = shared_next_group(zone, zg)) {
        if (zg->name != name)
            continue;
        if (g->state.len > 0 ? zg->current && zg->frame == frame && is_ours(zg, g)
                             : zg->identity == identity && !zg->edited)
            return zg;
    }
    return NULL;
}

void shared_view(struct zone *zone, const struct zone_group *zg, struct peer_view *v)
{
    peers_map(v, zone_at(zone, places_of(zone, zg)->set));
}

/* Taking over ------------------------------------------------------------------------------------------- */

/* The place of the same server, or PEERS_NONE. */
static unsigned same_server(struct zone *zone, const struct zone_group *old, const struct zone_server *s)
{
    unsigned count = ((struct peer_set *) zone_at(zone, places_of(zone, old)->set))->count;

    for (unsigned k = 0; k < count; k++) {
        const struct zone_server *o = shared_server(zone, old, k);

        if (o->kind == s->kind && o->who == s->who)
            return k;
    }
    return PEERS_NONE;
}

static bool has_addresses(struct zone *zone, const struct zone_group *zg, uint32_t number, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct zone_server *s = shared_server(zone, zg, i);

        if (s->kind == PLACE_SERVER && s->parent == number)
            return true;
    }
    return false;
}

/* The addresses that a name had resolved to serve until it is asked for again. 0 or -1. */
static int take_addresses(struct zone *zone, const struct zone_group *old, unsigned k,
                          struct zone_group *zg, unsigned i, const struct health *health)
{
    uint32_t was = shared_server(zone, old, k)->number, is = shared_server(zone, zg, i)->number;
    struct peer_view v;
    struct place name;

    shared_view(zone, old, &v);
    shared_read(zone, zg, i, &name);
    for (unsigned n = 0; n < v.set->count; n++) {
        const struct zone_server *o = shared_server(zone, old, n);
        struct place p;
        struct addr addr;

        if (o->kind != PLACE_SERVER || o->parent != was)
            continue;
        shared_read(zone, old, n, &p);
        shared_addr(zone, o, &addr);
        p.text.addr = &addr;
        p.text.route = name.text.route;
        p.parent = is;
        p.record = name.record;
        if (name.text.service.len == 0) {
            p.weight = name.weight;
            p.state = name.state;
        }
        if (shared_place(zone, zg, health, &p) == PEERS_NONE)
            return -1;
    }
    return 0;
}

/* What is known of servers that were there before. Their connections stay with those who hold them. 0 or -1. */
static int take_over(struct zone *zone, const struct zone_group *old, struct zone_group *zg,
                     const struct health *health)
{
    struct peer_view from, to;

    shared_view(zone, zg, &to);
    for (unsigned i = 0, n = to.set->count; i < n; i++) {
        const struct zone_server *s = shared_server(zone, zg, i);
        unsigned k = s->kind == PLACE_NAME && !has_addresses(zone, zg, s->number, n)
                         ? same_server(zone, old, s) : PEERS_NONE;

        if (k != PEERS_NONE && take_addresses(zone, old, k, zg, i, health) != 0)
            return -1;
    }
    shared_view(zone, old, &from);
    shared_view(zone, zg, &to);
    for (unsigned i = 0; i < to.set->count; i++) {
        struct zone_server *s = shared_server(zone, zg, i);
        unsigned k = s->kind == PLACE_SERVER ? same_server(zone, old, s) : PEERS_NONE;

        if (k == PEERS_NONE)
            continue;
        peers_copy(&to, i, &from, k);
        s->stats = shared_server(zone, old, k)->stats;
        shared_checks_copy(zone, zg, i, old, k, health);
    }
    return 0;
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
    shared_places_free(zone, zg);
    zone_free(zone, zg);
}

/* The servers of the configuration. 0 or -1. */
static int place_own(struct zone *zone, struct zone_group *zg, const struct upstream *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        const struct peer *peer = g->peers[i];
        struct place p = {
            .kind = peer->resolves ? PLACE_NAME : PLACE_SERVER,
            .parent = peer->parent == PEERS_NONE ? UPSTREAM_NO_PARENT : peer->parent,
            .text = { peer->name, peer->server, peer->route, peer->service,
                      peer->resolves ? NULL : &peer->addr },
            .weight = peer->resolves ? g->own.records[i].weight : peers_weight(&g->own, i),
            .state = peer->resolves ? g->own.records[i].state : g->own.state[i],
            .record = g->own.records[i],
        };

        /* Numbers begin with 0, so that a parent's number is its index. */
        if (shared_place(zone, zg, g->health, &p) == PEERS_NONE)
            return -1;
    }
    return 0;
}

/* Those of another group, as they were told to be last. 0 or -1. */
static int place_old(struct zone *zone, struct zone_group *zg, const struct zone_group *old,
                     const struct health *health)
{
    struct peer_view v;

    shared_view(zone, old, &v);
    for (unsigned i = 0; i < v.set->count; i++) {
        const struct zone_server *s = shared_server(zone, old, i);
        struct addr addr;
        struct place p;

        if (s->kind == PLACE_FREE || s->parent != UPSTREAM_NO_PARENT)
            continue;
        shared_read(zone, old, i, &p);
        shared_addr(zone, s, &addr);
        p.text.addr = s->kind == PLACE_NAME ? NULL : &addr;
        p.record = (struct peer_record){ .max_fails = p.record.max_fails,
                                         .fail_timeout_s = p.record.fail_timeout_s,
                                         .max_conns = p.record.max_conns,
                                         .slow_start_s = p.record.slow_start_s };
        if (shared_place(zone, zg, health, &p) == PEERS_NONE)
            return -1;
    }
    return 0;
}

/* Numbers for a group of the configuration. NULL: the zone is full. */
static struct zone_group *make(struct zone *zone, const struct upstream *g)
{
    struct zone_group *zg = zone_alloc(zone, sizeof(*zg)), *old = find_current(zone, g);
    /* Changed since the file was read: by a worker of ours, whose word counts. */
    bool newer = old != NULL && g->state.len > 0 && is_ours(old, g)
                 && old->state_hashes[old->state_last] != g->state_hash;
    int rc;

    if (zg == NULL)
        return NULL;
    zg->name = group_name(g);
    zg->identity = group_identity(g);
    zg->frame = group_frame(g);
    zg->check_count = g->health != NULL ? g->health->count : 0;
    if (newer)
        memcpy(zg->state_hashes, old->state_hashes, sizeof(zg->state_hashes));
    else
        zg->state_hashes[0] = g->state_hash;
    zg->state_last = newer ? old->state_last : 0;
    zg->next = root_of(zone)->groups;
    rc = shared_places_init(zone, zg, g->count, g->own.set->scale);
    if (rc == 0)
        rc = newer ? place_old(zone, zg, old, g->health) : place_own(zone, zg, g);
    if (rc == 0 && old != NULL)
        rc = take_over(zone, old, zg, g->health);
    if (rc != 0) {
        shared_places_free(zone, zg);
        zone_free(zone, zg);
        return NULL;
    }
    shared_changed(zone, zg);
    root_of(zone)->groups = zone_off(zone, zg);
    return zg;
}

/* Groups that no configuration names and no worker uses. */
static void sweep(struct zone *zone)
{
    for (struct zone_group *zg = shared_first(zone), *next; zg != NULL; zg = next) {
        next = shared_next_group(zone, zg);
        if (!zg->current && zg->users == 0)
            free_group(zone, zg);
    }
}

static int zone_take_groups(struct zone *zone, const struct shared_groups *groups)
{
    for (struct upstream *g = groups->first; g != NULL; g = g->next_shared) {
        struct zone_group *zg = find(zone, g);

        if (zg == NULL)
            zg = make(zone, g);
        if (zg != NULL) {
            g->zone_group = zone_off(zone, zg);
            continue;
        }
        log_emerg(log_main, 0, "no memory in zone \"%.*s\" for upstream \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)), STR_ARG(g->name));
        sweep(zone); /* what was made for this configuration */
        return -1;
    }
    for (struct zone_group *zg = shared_first(zone); zg != NULL; zg = shared_next_group(zone, zg))
        zg->current = 0;
    for (const struct upstream *g = groups->first; g != NULL; g = g->next_shared)
        find(zone, g)->current = 1;
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
    const uint32_t *conns = zone_at(zone, h->conns);
    struct peer_view v;

    shared_view(zone, zg, &v);
    zg->users += add ? 1 : UINT32_MAX;
    if (!add && zg->prober.holder == zone_off(zone, h))
        zg->prober.holder = 0;
    if (!add && zg->asker.holder == zone_off(zone, h))
        zg->asker.holder = 0;
    for (unsigned i = 0; i < v.set->count && i < h->capacity; i++)
        peers_count(&v, i, add ? (int64_t) conns[i] : -(int64_t) conns[i]);
}

static bool recover_groups(struct zone *zone)
{
    for (struct zone_group *zg = shared_first(zone); zg != NULL; zg = shared_next_group(zone, zg)) {
        struct peer_view v;

        shared_view(zone, zg, &v);
        v.set->kept = PEERS_KEEP_NOTHING; /* it may be half an order */
        shared_places_recover(zone, zg);
        shared_view(zone, zg, &v);
        for (unsigned i = 0; i < v.set->count; i++) {
            if (shared_server(zone, zg, i)->kind == PLACE_SERVER)
                shared_checks_settle(zone, zg, &v, i);
        }
        peers_reset(&v);
        zg->users = 0;
        shared_changed(zone, zg);
    }
    for (unsigned w = 0; w < ZONE_WORKERS; w++) {
        struct slot *slot = zone_slot(zone, w);

        shared_slot_recover(zone, slot);
        for (const struct held *h = zone_at(zone, slot->held); h != NULL; h = zone_at(zone, h->next))
            count_held(zone, h, true);
    }
    return true;
}

static void give_back(struct zone *zone, struct slot *slot)
{
    struct held *h;

    while ((h = zone_at(zone, slot->held)) != NULL) {
        slot->held = h->next;
        count_held(zone, h, false);
        zone_free(zone, zone_at(zone, h->conns));
        zone_free(zone, h);
    }
    sweep(zone);
}

static void worker_gone(struct zone *zone, void *data)
{
    zone_lock(zone);
    give_back(zone, data);
    zone_unlock(zone);
}

static const struct zone_kind upstream_zone = {
    .name = "upstream",
    .version = 6,
    .tried = true,
    .slot_size = sizeof(struct slot),
    .init = zone_init,
    .adopt = zone_adopt_groups,
    .recover = recover_groups,
    .worker_gone = worker_gone,
};

/* Configuration and workers ----------------------------------------------------------------------------- */

/* A zone of its own, that nobody asked for, has room for a name's addresses. */
#define PRIVATE_ZONE_SIZE (128 * 1024)

static void join(struct conf *cf, struct upstream *g, struct res_zone *z)
{
    struct shared_groups *groups;

    if (z->spec.data == NULL)
        z->spec.data = ARENA_NEW(cf->arena, struct shared_groups);
    groups = z->spec.data;
    g->next_shared = groups->first;
    groups->first = g;
    g->zone_spec = z;
}

const char *shared_set_zone(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;
    const char *error = NULL;
    uint64_t size = 0;
    struct res_zone *z;

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
    join(cf, g, z);
    return NULL;
}

int shared_private_zone(struct conf *cf, struct upstream *g)
{
    const char *error = NULL;
    struct res_zone *z = res_zone(cf, str_printf(cf->arena, "upstream \"%.*s\"", STR_ARG(g->name)),
                                  PRIVATE_ZONE_SIZE, &upstream_zone, &error);

    if (z == NULL) {
        conf_error_at(cf, g->pos, "%s", error);
        return -1;
    }
    join(cf, g, z);
    return 0;
}


/* This worker's part in the group. NULL: the zone is full. */
static struct held *hold(struct zone *zone, struct zone_group *zg)
{
    uint32_t capacity = places_of(zone, zg)->capacity;
    struct slot *slot = zone_my_slot(zone);
    struct held *h = zone_alloc_into(zone, sizeof(*h), &slot->making);

    if (h == NULL)
        return NULL;
    if (zone_alloc_into(zone, capacity * sizeof(uint32_t), &h->conns) == NULL) {
        ZONE_SET(slot->making, 0);
        zone_free(zone, h);
        return NULL;
    }
    h->capacity = capacity;
    h->group = zone_off(zone, zg);
    h->next = slot->held;
    ZONE_SET(slot->held, slot->making);
    ZONE_SET(slot->making, 0);
    zg->users++;
    return h;
}

void shared_attach(struct upstream *g)
{
    struct zone *zone = g->zone_spec != NULL ? g->zone_spec->zone : NULL;
    struct zone_group *zg;
    struct held *h = NULL;

    if (zone == NULL)
        return;
    zone_lock(zone);
    zg = find(zone, g);
    if (zg != NULL)
        h = hold(zone, zg);
    if (h != NULL) {
        g->zone = zone;
        g->zone_group = zone_off(zone, zg);
        g->zone_held = zone_off(zone, h);
        g->live = &zg->generation;
        shared_local_start(g);
    }
    zone_unlock(zone);
    if (h == NULL)
        log_alert(log_main, 0,
                  "no memory in zone \"%.*s\" for this worker's part of upstream \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)), STR_ARG(g->name));
    else
        upstream_look(g);
}

struct zone_group *shared_lock(struct upstream *g)
{
    upstream_lock(g);
    return zone_at(g->zone, g->zone_group);
}

/* Offices -------------------------------------------------------------------------------------------------- */

static struct zone_office *office_at(struct upstream *g, size_t office)
{
    return (struct zone_office *) (void *) ((char *) zone_at(g->zone, g->zone_group) + office);
}

static bool is_vacant(const struct zone_office *o, zone_off_t holder)
{
    uint64_t seen_ms = __atomic_load_n(&o->seen_ms, __ATOMIC_RELAXED), now_ms = clock_ms();

    return holder == 0 || (now_ms > seen_ms && now_ms - seen_ms > OFFICE_SILENT_MS);
}

bool shared_office_take(struct upstream *g, size_t office)
{
    struct zone_office *o;
    zone_off_t holder;

    if (g->zone == NULL || g->zone_held == 0)
        return false;
    o = office_at(g, office);
    holder = __atomic_load_n(&o->holder, __ATOMIC_RELAXED);
    /* Workers without the office look every second: not under the lock. */
    if (holder != g->zone_held && !is_vacant(o, holder))
        return false;
    zone_lock(g->zone);
    if (o->holder != g->zone_held && is_vacant(o, o->holder))
        o->holder = g->zone_held;
    holder = o->holder;
    if (holder == g->zone_held)
        o->seen_ms = clock_ms();
    zone_unlock(g->zone);
    return holder == g->zone_held;
}

void shared_office_leave(struct upstream *g, size_t office)
{
    struct zone_office *o = office_at(g, office);

    zone_lock(g->zone);
    if (o->holder == g->zone_held)
        o->holder = 0;
    zone_unlock(g->zone);
}
