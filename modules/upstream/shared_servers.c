/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The places of a group in a zone: servers that come into them, are read, change and leave. Everything here runs with the zone's lock
 * held. Who dies in the midst leaves at worst a place that is not used: a server is in its place from the
 * store of its kind on, and all sums are made anew (shared.c, zone_recover).
 */
#include "modules/upstream/shared.h"

#define PLACES_MIN 4

struct zone_server *shared_server(struct zone *zone, const struct zone_group *zg, unsigned i)
{
    return zone_at(zone, places_of(zone, zg)->servers[i]);
}

/* Memory ------------------------------------------------------------------------------------------ */

static void free_places(struct zone *zone, struct zone_places *p)
{
    if (p == NULL)
        return;
    zone_free(zone, zone_at(zone, p->set));
    zone_free(zone, zone_at(zone, p->checks));
    zone_free(zone, p);
}

/* Arrays for so many places. NULL: the zone is full. */
static struct zone_places *new_places(struct zone *zone, unsigned check_count, unsigned capacity)
{
    struct zone_places *p = zone_alloc(zone, sizeof(*p) + capacity * sizeof(p->servers[0]));
    void *set = zone_alloc(zone, peers_size(capacity));
    size_t checks_size = (size_t) check_count * capacity * sizeof(struct peer_check);
    void *checks = checks_size > 0 ? zone_alloc(zone, checks_size) : NULL;

    if (p == NULL || set == NULL || (checks == NULL && checks_size > 0)) {
        zone_free(zone, checks);
        zone_free(zone, set);
        zone_free(zone, p);
        return NULL;
    }
    p->capacity = capacity;
    p->set = zone_off(zone, set);
    p->checks = checks != NULL ? zone_off(zone, checks) : 0;
    return p;
}

int shared_places_init(struct zone *zone, struct zone_group *zg, unsigned capacity, uint32_t scale)
{
    struct zone_places *p = new_places(zone, zg->check_count, MAX(capacity, 1));
    struct peer_view v;

    if (p == NULL)
        return -1;
    peers_init(&v, zone_at(zone, p->set), p->capacity, scale == PEERS_SCALE);
    zg->places = zone_off(zone, p);
    return 0;
}

void shared_places_free(struct zone *zone, struct zone_group *zg)
{
    struct zone_places *p = places_of(zone, zg);

    if (p != NULL) {
        for (unsigned i = 0; i < p->capacity; i++) {
            struct zone_server *s = zone_at(zone, p->servers[i]);

            if (s != NULL)
                zone_free(zone, zone_at(zone, s->data));
            zone_free(zone, s);
        }
    }
    while (p != NULL) {
        zone_off_t older = p->older;

        free_places(zone, p);
        p = zone_at(zone, older);
    }
}

/* Each worker's connections get as much room. 0 or -1. */
static int grow_held(struct zone *zone, const struct zone_group *zg, unsigned capacity)
{
    for (unsigned w = 0; w < ZONE_WORKERS; w++) {
        const struct slot *slot = zone_slot(zone, w);

        for (struct held *h = zone_at(zone, slot->held); h != NULL; h = zone_at(zone, h->next)) {
            void *old = zone_at(zone, h->conns), *conns;

            if (zone_at(zone, h->group) != zg || h->capacity >= capacity)
                continue;
            conns = zone_alloc(zone, capacity * sizeof(uint32_t));
            if (conns == NULL)
                return -1;
            memcpy(conns, old, h->capacity * sizeof(uint32_t));
            ZONE_SET(h->conns, zone_off(zone, conns));
            ZONE_SET(h->capacity, capacity);
            /* It is written with the lock held only, and whoever takes the lock looks where it lies now. */
            zone_free(zone, old);
        }
    }
    return 0;
}

/* Twice as many places. 0 or -1: the zone is full. */
static int grow(struct zone *zone, struct zone_group *zg)
{
    struct zone_places *old = places_of(zone, zg), *p;
    unsigned capacity = MAX(PLACES_MIN, old->capacity * 2);
    struct peer_view from;

    /* From here on nobody may use what he knows of where things lie. */
    __atomic_store_n(&zg->generation, zg->generation + 1, __ATOMIC_RELAXED);
    if (grow_held(zone, zg, capacity) != 0)
        return -1;
    p = new_places(zone, zg->check_count, capacity);
    if (p == NULL)
        return -1;
    peers_map(&from, zone_at(zone, old->set));
    peers_move(&from, zone_at(zone, p->set), capacity);
    memcpy(p->servers, old->servers, old->capacity * sizeof(p->servers[0]));
    for (unsigned c = 0; c < zg->check_count; c++)
        memcpy((struct peer_check *) zone_at(zone, p->checks) + (size_t) c * capacity,
               (struct peer_check *) zone_at(zone, old->checks) + (size_t) c * old->capacity,
               old->capacity * sizeof(struct peer_check));
    p->older = zg->places;
    ZONE_SET(zg->places, zone_off(zone, p));
    return 0;
}

/* Servers ------------------------------------------------------------------------------------------- */

static char *append(char *p, struct str text)
{
    if (text.len > 0)
        memcpy(p, text.ptr, text.len);
    return p + text.len;
}

/* The address and the texts. 0, or -1: the zone is full. */
static int set_data(struct zone *zone, struct zone_server *s, const struct place_text *t)
{
    size_t addr_len = t->addr != NULL ? t->addr->len : 0;
    size_t size = addr_len + t->name.len + t->server.len + t->route.len + t->service.len;
    zone_off_t old = s->data;
    char *data = zone_alloc(zone, MAX(size, 1)), *p = data;

    if (data == NULL)
        return -1;
    if (addr_len > 0)
        p = append(p, str_from((const char *) &t->addr->ss, addr_len));
    p = append(p, t->name);
    p = append(p, t->server);
    p = append(p, t->route);
    append(p, t->service);
    s->addr_len = (uint16_t) addr_len;
    s->name_len = (uint16_t) t->name.len;
    s->server_len = (uint16_t) t->server.len;
    s->route_len = (uint16_t) t->route.len;
    s->service_len = (uint16_t) t->service.len;
    ZONE_SET(s->data, zone_off(zone, data));
    zone_free(zone, zone_at(zone, old));
    return 0;
}

/* A place without a server and without connections; PEERS_NONE: the zone is full. */
static unsigned free_place(struct zone *zone, struct zone_group *zg)
{
    struct peer_view v;

    shared_view(zone, zg, &v);
    for (unsigned i = 0; i < v.set->count && v.set->gone > 0; i++) {
        const struct zone_server *s = shared_server(zone, zg, i);

        if (s->kind == PLACE_FREE && v.conns[i] == 0)
            return i;
    }
    if (v.set->count == v.set->capacity && grow(zone, zg) != 0)
        return PEERS_NONE;
    return v.set->count;
}

static uint64_t who(const struct place_text *t)
{
    const struct peer p = { .name = t->name, .server = t->server, .service = t->service };

    return shared_peer_id(&p);
}

unsigned shared_place(struct zone *zone, struct zone_group *zg, const struct health *health,
                      const struct place *p)
{
    unsigned i = free_place(zone, zg);
    struct zone_server *s;
    struct peer_view v;

    if (i == PEERS_NONE)
        return PEERS_NONE;
    s = shared_server(zone, zg, i);
    if (s == NULL) {
        s = zone_alloc(zone, sizeof(*s));
        if (s == NULL)
            return PEERS_NONE;
        ZONE_SET(places_of(zone, zg)->servers[i], zone_off(zone, s));
    }
    if (set_data(zone, s, &p->text) != 0)
        return PEERS_NONE;
    s->who = who(&p->text);
    s->number = zg->next_number++;
    s->parent = p->parent;
    memset(&s->stats, 0, sizeof(s->stats));
    shared_view(zone, zg, &v);
    peers_place(&v, i, p->weight, p->kind == PLACE_NAME ? PEER_GONE | PEER_BACKUP : p->state, &p->record);
    /* Of a name the state is what its addresses get: it has none itself. */
    v.records[i].state = p->state & (PEER_DOWN | PEER_DRAIN | PEER_BACKUP);
    v.records[i].weight = p->weight;
    ZONE_SET(s->kind, (uint16_t) p->kind);
    shared_checks_begin(zone, zg, i, health);
    if (p->kind == PLACE_SERVER)
        shared_checks_settle(zone, zg, &v, i);
    return i;
}

static struct str take(const char **p, size_t len)
{
    struct str s = str_from(*p, len);

    *p += len;
    return s;
}

void shared_read(struct zone *zone, const struct zone_group *zg, unsigned i, struct place *p)
{
    const struct zone_server *s = shared_server(zone, zg, i);
    const char *at = zone_at(zone, s->data);
    const uint32_t said = PEER_DOWN | PEER_DRAIN | PEER_BACKUP;
    struct peer_view v;

    shared_view(zone, zg, &v);
    at += s->addr_len;
    *p = (struct place){ .kind = s->kind, .parent = s->parent, .record = v.records[i] };
    p->text.name = take(&at, s->name_len);
    p->text.server = take(&at, s->server_len);
    p->text.route = take(&at, s->route_len);
    p->text.service = take(&at, s->service_len);
    p->weight = s->kind == PLACE_SERVER ? peers_weight(&v, i) : v.records[i].weight;
    p->state = s->kind == PLACE_SERVER ? v.state[i] & said : v.records[i].state;
}

int shared_route(struct zone *zone, struct zone_server *s, struct str route)
{
    const char *at = zone_at(zone, s->data);
    struct addr addr = { .len = s->addr_len };
    struct place_text t = { .addr = s->addr_len > 0 ? &addr : NULL, .route = route };

    memcpy(&addr.ss, at, s->addr_len);
    at += s->addr_len;
    t.name = take(&at, s->name_len);
    t.server = take(&at, s->server_len);
    take(&at, s->route_len);
    t.service = take(&at, s->service_len);
    return set_data(zone, s, &t);
}

void shared_leave(struct zone *zone, struct zone_group *zg, unsigned i)
{
    struct peer_view v;

    shared_view(zone, zg, &v);
    ZONE_SET(shared_server(zone, zg, i)->kind, PLACE_FREE);
    peers_leave(&v, i);
}

void shared_changed(struct zone *zone, struct zone_group *zg)
{
    struct peer_view v;

    shared_view(zone, zg, &v);
    peers_recount(&v);
    __atomic_store_n(&zg->generation, zg->generation + 1, __ATOMIC_RELAXED);
}

unsigned shared_find(struct zone *zone, const struct zone_group *zg, uint32_t number)
{
    struct peer_view v;

    shared_view(zone, zg, &v);
    for (unsigned i = 0; i < v.set->count; i++) {
        const struct zone_server *s = shared_server(zone, zg, i);

        if (s->kind != PLACE_FREE && s->number == number)
            return i;
    }
    return PEERS_NONE;
}

/* Times in which it could not be asked ---------------------------------------------------------------- */

void shared_note_state(struct peer_stats *stats, uint32_t state)
{
    bool out = (state & (PEER_BROKEN | PEER_SICK | PEER_UNCHECKED)) != 0;

    if (likely(out == (stats->downstart_ms != 0)))
        return;
    if (out) {
        stats->downstart_ms = shared_wall_ms();
    } else {
        int64_t since = stats->downstart_ms, now = shared_wall_ms();

        stats->downtime_ms += (uint64_t) MAX(now - since, 0);
        stats->downstart_ms = 0;
    }
}
