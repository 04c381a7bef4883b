/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The places of a group in a zone: servers that come into them, are read, change and leave. Everything here runs with the zone's lock
 * held. Who dies in the midst leaves at worst a place that is not used: a server is in its place from the
 * store of its kind on, and all sums are made anew (shared.c, recover_groups).
 */
#include "modules/upstream/shared.h"

#define PLACES_MIN 4

struct zone_server *shared_server(struct zone *zone, const struct zone_group *zg, unsigned i)
{
    return zone_at(zone, places_of(zone, zg)->servers[i]);
}

/* Memory ------------------------------------------------------------------------------------------ */

/* All that is allocated is found from the group at each step, so that no byte is lost in a death. */
static void free_places(struct zone *zone, struct zone_places *p)
{
    if (p == NULL)
        return;
    zone_free(zone, zone_at(zone, p->set));
    zone_free(zone, zone_at(zone, p->checks));
    zone_free(zone, p);
}

static void drop_making(struct zone *zone, struct zone_group *zg)
{
    free_places(zone, zone_at(zone, zg->making));
    ZONE_SET(zg->making, 0);
}

/* Arrays for so many places, in zg->making. NULL: the zone is full. */
static struct zone_places *new_places(struct zone *zone, struct zone_group *zg, unsigned capacity)
{
    size_t checks_size = (size_t) zg->check_count * capacity * sizeof(struct peer_check);
    struct zone_places *p =
        zone_alloc_into(zone, sizeof(*p) + capacity * sizeof(p->servers[0]), &zg->making);

    if (p == NULL)
        return NULL;
    p->capacity = capacity;
    if (zone_alloc_into(zone, peers_size(capacity), &p->set) == NULL ||
        (checks_size > 0 && zone_alloc_into(zone, checks_size, &p->checks) == NULL)) {
        drop_making(zone, zg);
        return NULL;
    }
    return p;
}

int shared_places_init(struct zone *zone, struct zone_group *zg, unsigned capacity, uint32_t scale)
{
    struct zone_places *p = new_places(zone, zg, MAX(capacity, 1));
    struct peer_view v;

    if (p == NULL)
        return -1;
    peers_init(&v, zone_at(zone, p->set), p->capacity, scale == PEERS_SCALE);
    ZONE_SET(zg->places, zg->making);
    ZONE_SET(zg->making, 0);
    return 0;
}

void shared_places_free(struct zone *zone, struct zone_group *zg)
{
    struct zone_places *p = places_of(zone, zg);

    if (p != NULL) {
        for (unsigned i = 0; i < p->capacity; i++) {
            struct zone_server *s = zone_at(zone, p->servers[i]);

            if (s != NULL)
                zone_free(zone, zone_at(zone, s->text));
            zone_free(zone, s);
        }
    }
    while (p != NULL) {
        zone_off_t older = p->older;

        free_places(zone, p);
        p = zone_at(zone, older);
    }
}

/* Takes the place of what is at *at. */
static void replace(struct zone *zone, zone_off_t *at, zone_off_t *making, zone_off_t *dropping)
{
    ZONE_SET(*dropping, *at);
    ZONE_SET(*at, *making);
    ZONE_SET(*making, 0);
    zone_free(zone, zone_at(zone, *dropping));
    ZONE_SET(*dropping, 0);
}

/* The same after a death in it, or before it. */
static void recover_replace(struct zone *zone, const zone_off_t *at, zone_off_t *making,
                            zone_off_t *dropping)
{
    zone_off_t *const both[] = { making, dropping };

    for (unsigned i = 0; i < ARRAY_LEN(both); i++) {
        if (*both[i] == 0)
            continue;
        if (*both[i] != *at && zone_is_object(zone, *both[i], 1))
            zone_free(zone, zone_at(zone, *both[i]));
        ZONE_SET(*both[i], 0);
    }
}

/* What was about to be allocated. */
static void forget_unless_object(struct zone *zone, zone_off_t *at)
{
    if (*at != 0 && !zone_is_object(zone, *at, 1))
        ZONE_SET(*at, 0);
}

/* Each worker's connections get as much room. 0 or -1. */
static int grow_held(struct zone *zone, const struct zone_group *zg, unsigned capacity)
{
    for (unsigned w = 0; w < ZONE_WORKERS; w++) {
        const struct slot *slot = zone_slot(zone, w);

        for (struct held *h = zone_at(zone, slot->held); h != NULL; h = zone_at(zone, h->next)) {
            void *conns;

            if (zone_at(zone, h->group) != zg || h->capacity >= capacity)
                continue;
            conns = zone_alloc_into(zone, capacity * sizeof(uint32_t), &h->making);
            if (conns == NULL)
                return -1;
            memcpy(conns, zone_at(zone, h->conns), h->capacity * sizeof(uint32_t));
            /* It is written with the lock held only, and whoever takes the lock looks where it lies now. */
            replace(zone, &h->conns, &h->making, &h->dropping);
            ZONE_SET(h->capacity, capacity);
        }
    }
    return 0;
}

void shared_slot_recover(struct zone *zone, struct slot *slot)
{
    struct held *h = zone_at(zone, slot->making);

    if (slot->making != slot->held && zone_is_object(zone, slot->making, sizeof(*h))) {
        forget_unless_object(zone, &h->conns);
        zone_free(zone, zone_at(zone, h->conns));
        zone_free(zone, h);
    }
    if (slot->making != 0)
        ZONE_SET(slot->making, 0);
    for (h = zone_at(zone, slot->held); h != NULL; h = zone_at(zone, h->next))
        recover_replace(zone, &h->conns, &h->making, &h->dropping);
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
    p = new_places(zone, zg, capacity);
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
    ZONE_SET(zg->places, zg->making);
    ZONE_SET(zg->making, 0);
    return 0;
}

void shared_places_recover(struct zone *zone, struct zone_group *zg)
{
    struct peer_view v;

    struct zone_places *making = zone_at(zone, zg->making);

    if (zg->making != zg->places && zone_is_object(zone, zg->making, sizeof(*making))) {
        /* Who dies here finds it again, less what has been freed. */
        forget_unless_object(zone, &making->set);
        forget_unless_object(zone, &making->checks);
        free_places(zone, making);
    }
    ZONE_SET(zg->making, 0);
    shared_view(zone, zg, &v);
    for (unsigned i = 0; i < v.set->capacity; i++) {
        struct zone_server *s;

        forget_unless_object(zone, &places_of(zone, zg)->servers[i]);
        s = shared_server(zone, zg, i);
        if (s == NULL)
            continue;
        recover_replace(zone, &s->text, &s->making, &s->dropping);
        if (i >= v.set->count)
            ZONE_SET(s->kind, PLACE_FREE);
        else if (s->kind == PLACE_FREE && !(v.state[i] & PEER_GONE))
            peers_leave(&v, i);
    }
}

/* Servers ------------------------------------------------------------------------------------------- */

static char *append(char *p, struct str text)
{
    if (text.len > 0)
        memcpy(p, text.ptr, text.len);
    return p + text.len;
}

/* The address and the texts. 0, or -1: the zone is full. */
static int set_text(struct zone *zone, struct zone_server *s, const struct place_text *t)
{
    size_t addr_len = t->addr != NULL ? t->addr->len : 0;
    size_t size = addr_len + t->name.len + t->server.len + t->route.len + t->service.len;
    struct zone_text *text = zone_alloc_into(zone, sizeof(*text) + size, &s->making);
    char *p;

    if (text == NULL)
        return -1;
    text->addr_len = (uint16_t) addr_len;
    text->name_len = (uint16_t) t->name.len;
    text->server_len = (uint16_t) t->server.len;
    text->route_len = (uint16_t) t->route.len;
    text->service_len = (uint16_t) t->service.len;
    p = text->bytes;
    if (addr_len > 0)
        p = append(p, str_from((const char *) &t->addr->ss, addr_len));
    p = append(p, t->name);
    p = append(p, t->server);
    p = append(p, t->route);
    append(p, t->service);
    replace(zone, &s->text, &s->making, &s->dropping);
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
        s = zone_alloc_into(zone, sizeof(*s), &places_of(zone, zg)->servers[i]);
        if (s == NULL)
            return PEERS_NONE;
    }
    if (set_text(zone, s, &p->text) != 0)
        return PEERS_NONE;
    s->who = who(&p->text);
    s->number = zg->next_number++;
    s->parent = p->parent;
    memset(&s->stats, 0, sizeof(s->stats));
    shared_view(zone, zg, &v);
    peers_place(&v, i, p->weight, p->kind == PLACE_NAME ? PEER_GONE | PEER_BACKUP : p->state,
                &p->record);
    /* Of a name the state is what its addresses get: it has none itself. */
    v.records[i].state = p->state & (PEER_DOWN | PEER_DRAIN | PEER_BACKUP);
    v.records[i].weight = p->weight;
    ZONE_SET(s->kind, (uint32_t) p->kind);
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

static void read_text(const struct zone_text *from, struct place_text *t)
{
    const char *at = from->bytes + from->addr_len;

    t->addr = NULL;
    t->name = take(&at, from->name_len);
    t->server = take(&at, from->server_len);
    t->route = take(&at, from->route_len);
    t->service = take(&at, from->service_len);
}

void shared_read(struct zone *zone, const struct zone_group *zg, unsigned i, struct place *p)
{
    const struct zone_server *s = shared_server(zone, zg, i);
    const uint32_t said = PEER_DOWN | PEER_DRAIN | PEER_BACKUP;
    struct peer_view v;

    shared_view(zone, zg, &v);
    *p = (struct place){ .kind = s->kind, .parent = s->parent, .record = v.records[i] };
    read_text(text_of(zone, s), &p->text);
    p->weight = s->kind == PLACE_SERVER ? peers_weight(&v, i) : v.records[i].weight;
    p->state = s->kind == PLACE_SERVER ? v.state[i] & said : v.records[i].state;
}

int shared_route(struct zone *zone, struct zone_server *s, struct str route)
{
    struct addr addr;
    struct place_text t;

    read_text(text_of(zone, s), &t);
    shared_addr(zone, s, &addr);
    t.addr = addr.len > 0 ? &addr : NULL;
    t.route = route;
    return set_text(zone, s, &t);
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
    bool out = shared_is_out(state);

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
