/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a worker makes of a group in a zone: a peer for each server, with its strings and kept-alive connections, copies of the numbers that the
 * tables of the methods are built from, and these tables. Whoever takes the lock looks whether the servers have changed since
 * (upstream_lock), so that a view is never older than the zone; tables are built anew before a request chooses (upstream_look), and
 * are such that ones that are a moment older do no harm. A worker that has no requests looks once a second.
 *
 * When a server goes its kept-alive connections are closed. Its peer stays as long as there are requests under way, for its place
 * is not used again before that; then the peer is put aside and freed at the end of the turn.
 */
#include "core/event/loop.h"
#include "modules/upstream/shared.h"

#define LOOK_MS 1000

struct shared_local {
    struct upstream *g;
    struct list retired;  /* struct peer.retired */
    struct later later;   /* to free them */
    struct timer timer;   /* to look */
    unsigned capacity;    /* of g->peers and g->own */
    bool stopped;         /* the worker ends: only requests that are cut off are still to come */
    struct arena *tables; /* NULL: those of the configuration are in use */
};

/* Peers ------------------------------------------------------------------------------------------- */

static struct str copy(char **at, struct str text)
{
    struct str s = str_from(*at, text.len);

    memcpy(*at, text.ptr, text.len);
    *at += text.len;
    return s;
}

static struct peer *new_peer(struct zone *zone, struct zone_server *s, const struct place *place,
                             unsigned i)
{
    const struct place_text *t = &place->text;
    struct peer *p = mem_alloc_line(sizeof(*p) + t->name.len + t->server.len + t->service.len);
    char *at = (char *) (p + 1);

    *p = (struct peer){ .index = i };
    shared_addr(zone, s, &p->addr);
    p->name = copy(&at, t->name);
    p->server = copy(&at, t->server);
    p->service = copy(&at, t->service);
    p->id = s->who;
    p->number = s->number;
    p->parent = PEERS_NONE;
    p->resolves = s->kind == PLACE_NAME;
    p->stats = &s->stats;
    p->resolved = s->parent != UPSTREAM_NO_PARENT;
    list_init(&p->idle);
    list_init(&p->retired);
    return p;
}

static void set_route(struct peer *p, struct str route)
{
    char *own;

    if (str_eq(p->route, route))
        return;
    own = mem_alloc(MAX(route.len, 1));
    memcpy(own, route.ptr, route.len);
    free((void *) (uintptr_t) p->route.ptr);
    p->route = str_from(own, route.len);
}

static void close_idle(struct peer *p)
{
    while (!list_empty(&p->idle))
        pool_close(container_of(p->idle.next, struct upconn, peer_link));
}

static void free_peer(struct peer *p)
{
    close_idle(p);
    list_remove(&p->retired);
    free((void *) (uintptr_t) p->route.ptr);
    free(p);
}

static void free_retired(struct later *later)
{
    struct shared_local *l = container_of(later, struct shared_local, later);
    struct upstream *g = l->g;
    struct list doomed, *n;

    /* Only these: who looks for servers in the meantime may find that more have gone. */
    list_init(&doomed);
    while ((n = l->retired.next) != &l->retired) {
        list_remove(n);
        list_push_back(&doomed, n);
    }
    health_renew(g);
    for (unsigned i = 0; i < g->count; i++) {
        if (g->peers[i] != NULL && g->peers[i]->gone)
            close_idle(g->peers[i]);
    }
    while (!list_empty(&doomed))
        free_peer(container_of(doomed.next, struct peer, retired));
}

/* It is not the peer of this place any more. */
static void retire(struct shared_local *l, unsigned i)
{
    struct peer *p = l->g->peers[i];

    if (p == NULL)
        return;
    l->g->peers[i] = NULL;
    p->gone = true;
    list_push_back(&l->retired, &p->retired);
}

static void refresh_place(struct upstream *g, const struct zone_group *zg, unsigned i)
{
    struct zone_server *s = shared_server(g->zone, zg, i);
    struct place place;

    if (s->kind == PLACE_FREE) {
        if (g->peers[i] != NULL)
            g->peers[i]->gone = true;
        return;
    }
    if (g->peers[i] != NULL && g->peers[i]->number != s->number)
        retire(g->local, i);
    shared_read(g->zone, zg, i, &place);
    if (g->peers[i] == NULL)
        g->peers[i] = new_peer(g->zone, s, &place, i);
    set_route(g->peers[i], place.text.route);
}

/* Refreshing ------------------------------------------------------------------------------------------ */

/* Room for so many servers, and where everything lies now. */
static void remap(struct upstream *g, const struct zone_group *zg)
{
    struct shared_local *l = g->local;
    struct held *held = zone_at(g->zone, g->zone_held);
    struct peer_view v;

    shared_view(g->zone, zg, &g->view);
    g->view.held = zone_at(g->zone, held->conns);
    if (l->capacity >= g->view.set->capacity)
        return;
    g->peers = mem_realloc(g->peers, g->view.set->capacity * sizeof(*g->peers));
    memset(g->peers + l->capacity, 0, (g->view.set->capacity - l->capacity) * sizeof(*g->peers));
    free(l->capacity > 0 ? g->own.set : NULL);
    l->capacity = g->view.set->capacity;
    peers_init(&v, mem_zalloc(peers_size(l->capacity)), l->capacity, false);
    g->own = v;
}

void shared_refresh(struct upstream *g)
{
    const struct zone_group *zg = zone_at(g->zone, g->zone_group);
    unsigned count;

    remap(g, zg);
    count = g->view.set->count;
    for (unsigned i = 0; i < count; i++)
        refresh_place(g, zg, i);
    *g->own.set = *g->view.set;
    g->own.set->capacity = g->local->capacity;
    memcpy(g->own.state, g->view.state, count * sizeof(*g->own.state));
    memcpy(g->own.weight, g->view.weight, count * sizeof(*g->own.weight));
    g->count = count;
    g->generation = zg->generation;
    if (!g->local->stopped)
        loop_later(&g->local->later);
}

static void build_tables(struct upstream *g)
{
    struct arena *old = g->local->tables;

    if (g->balancer->build != NULL || g->sticky != NULL) {
        g->local->tables = arena_new();
        upstream_build(g->local->tables, g);
        arena_destroy(old);
    }
    g->table_generation = g->generation;
}

void shared_look(struct upstream *g)
{
    upstream_lock(g);
    upstream_unlock(g);
    if (g->table_generation != g->generation)
        build_tables(g);
    if (g->queue != NULL)
        queue_wake(g->queue);
}

/* Counters ------------------------------------------------------------------------------------------- */

void shared_selected(struct upstream *g, unsigned i)
{
    struct peer_stats *stats = g->peers[i]->stats;

    stats->selected_ms = shared_wall_ms();
    /* The lock would be held while memory comes that nobody has touched for long: it is taken for what is rare. */
    if (likely(shared_is_out(g->view.state[i]) == (stats->downstart_ms != 0)))
        return;
    zone_lock(g->zone);
    if (*g->live == g->generation)
        shared_note_state(stats, g->view.state[i]);
    zone_unlock(g->zone);
}

void shared_judged(struct upstream *g, unsigned i, bool failed, bool out)
{
    struct peer_stats *stats = g->peers[i]->stats;

    stats->fails += failed;
    stats->unavail += out;
    if (!(g->view.state[i] & PEER_GONE))
        shared_note_state(stats, g->view.state[i]);
}

void shared_publish(struct upstream *g)
{
    struct held *h = zone_at(g->zone, g->zone_held);

    __atomic_store_n(&h->idle, g->idle_count, __ATOMIC_RELAXED);
    __atomic_store_n(&h->queued, g->queue != NULL ? queue_length(g->queue) : 0, __ATOMIC_RELAXED);
}

void shared_queue_overflow(struct upstream *g)
{
    struct zone_group *zg = zone_at(g->zone, g->zone_group);

    __atomic_add_fetch(&zg->queue_overflows, 1, __ATOMIC_RELAXED);
}

/* A worker -------------------------------------------------------------------------------------------- */

static void look(struct timer *timer)
{
    struct shared_local *l = container_of(timer, struct shared_local, timer);

    upstream_look(l->g);
    timer_set(&l->timer, LOOK_MS);
}

void shared_local_start(struct upstream *g)
{
    struct shared_local *l = mem_zalloc(sizeof(*l));

    l->g = g;
    list_init(&l->retired);
    l->later.run = free_retired;
    l->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = look };
    g->local = l;
    g->peers = NULL;
    shared_refresh(g);
    g->table_generation = g->generation - 1;
    timer_set(&l->timer, LOOK_MS);
}

void shared_stop(struct upstream *g)
{
    struct shared_local *l = g->local;

    if (l == NULL || l->stopped)
        return;
    timer_drop(&l->timer);
    loop_later_cancel(&l->later);
    free_retired(&l->later);
    l->stopped = true;
}

void shared_free(void *arg)
{
    struct upstream *g = arg;
    struct shared_local *l = g->local;

    while (!list_empty(&l->retired))
        free_peer(container_of(l->retired.next, struct peer, retired));
    for (unsigned i = 0; i < g->count; i++) {
        if (g->peers[i] != NULL)
            free_peer(g->peers[i]);
    }
    arena_destroy(l->tables);
    free(g->peers);
    free(g->own.set);
    free(l);
}
