/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Methods that find a server by a number: a hash of a key or of the client's address, or chance. Their tables are built
 * once the servers are known. When the server found cannot be asked, the search goes on in a fixed way, so that all
 * workers agree; after twenty misses round robin takes over.
 *
 * ip_hash, hash and hash … consistent give the same server for the same key as nginx does, and the ring of `consistent` is that of
 * Cache::Memcached::Fast (ketama), so that other clients of the same servers agree too. maglev: Eisenbud et al., "Maglev: A
 * Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4.
 */
#include <math.h>

#include "core/base/fmt.h"
#include "core/http/client.h"
#include "core/os/process.h"
#include "modules/upstream/internal.h"

#define MISSES_MAX 20
#define POINTS_PER_WEIGHT 160
#define MAGLEV_SIZE 65537u /* prime, and a hundred times as many as there are usually servers */

static bool is_free(const struct peer_view *v, unsigned i)
{
    return v->state[i] == 0;
}

/* Shares: each primary server owns as many numbers of 0 .. weight - 1 as it weighs -------------------- */

struct shares {
    unsigned count;
    int64_t weight; /* of all */
    int32_t each;   /* where all weigh the same; 0: they do not */
    uint32_t *peer;
    int64_t *upto; /* the first number behind its share */
};

static void build_shares(struct arena *arena, struct upstream *g)
{
    const struct peer_view *v = &g->own;
    struct shares *s = ARENA_NEW(arena, struct shares);
    int64_t upto = 0;

    s->peer = ARENA_ARRAY(arena, uint32_t, v->set->count);
    s->upto = ARENA_ARRAY(arena, int64_t, v->set->count);
    for (unsigned i = 0; i < v->set->count; i++) {
        if (v->state[i] & PEER_BACKUP)
            continue;
        upto += v->weight[i];
        s->peer[s->count] = i;
        s->upto[s->count++] = upto;
    }
    s->weight = upto;
    s->each = v->set->uniform && s->count > 0 ? v->weight[s->peer[0]] : 0;
    g->table = s;
}

static unsigned share_of(const struct upstream *g, uint64_t number)
{
    const struct shares *s = g->table;
    unsigned from = 0, to = s->count - 1;
    int64_t n;

    if (unlikely(s->count == 0))
        return 0; /* a table that is a moment older than the servers */
    n = (int64_t) (number % (uint64_t) s->weight);
    if (s->each > 0)
        return s->peer[n / s->each];
    while (from < to) {
        unsigned mid = from + (to - from) / 2;

        if (n < s->upto[mid])
            to = mid;
        else
            from = mid + 1;
    }
    return s->peer[from];
}

/* ip_hash ------------------------------------------------------------------------------------------ */

static void start_ip_hash(struct choice *c)
{
    c->hash = 89;
    c->rehashes = 0;
}

/* The bytes of the client's address that count: networks of the size that a provider hands out share a server. */
static size_t address_bytes(struct choice *c, const unsigned char **bytes, struct addr *room)
{
    static const unsigned char none[3];
    const struct addr *a = req_peer(c->req, room);

    switch (a->sa.sa_family) {
    case AF_INET:
        *bytes = (const unsigned char *) &a->in.sin_addr;
        return 3;
    case AF_INET6:
        *bytes = (const unsigned char *) &a->in6.sin6_addr;
        return 16;
    default:
        *bytes = none;
        return sizeof(none);
    }
}

static unsigned pick_ip_hash(struct choice *c)
{
    struct peer_view *v = &c->group->view;
    const unsigned char *bytes;
    struct addr room;
    size_t len = address_bytes(c, &bytes, &room);

    while (c->rehashes <= MISSES_MAX) {
        unsigned i;

        for (size_t k = 0; k < len; k++)
            c->hash = (c->hash * 113 + bytes[k]) % 6271;
        i = share_of(c->group, c->hash);
        if (is_free(v, i))
            return i;
        c->rehashes++;
    }
    return peers_smooth(v, 0);
}

/* hash ----------------------------------------------------------------------------------------------- */

static void start_hash(struct choice *c)
{
    c->key = expr_eval(&c->req->eval, c->group->method.key);
    c->hash = 0;
    /* Without a key servers take turns. */
    c->rehashes = c->key.len > 0 ? 0 : UINT32_MAX;
}

static unsigned pick_hash(struct choice *c)
{
    struct peer_view *v = &c->group->view;

    while (c->rehashes <= MISSES_MAX) {
        char number[FMT_U64_MAX];
        size_t len = c->rehashes ? (size_t) (fmt_u64(number, c->rehashes) - number) : 0;
        uint32_t h = hash_crc32(hash_crc32(0, number, len), c->key.ptr, c->key.len);
        unsigned i;

        c->hash += (h >> 16) & 0x7fff;
        c->rehashes++;
        i = share_of(c->group, c->hash);
        if (is_free(v, i))
            return i;
    }
    return peers_smooth(v, 0);
}

/* hash … consistent ------------------------------------------------------------------------------------ */

struct point {
    uint32_t hash;
    uint32_t peer; /* the first of the server's addresses */
};

struct ring {
    struct point *points;
    unsigned count;
    unsigned shift;  /* of a hash to its place in `from` */
    uint32_t *from;  /* the first point of those whose hash begins so, or behind it; and one more for the end */
    uint32_t *next; /* of each server's address: the next one of the same server; PEERS_NONE: the last */
};

static int compare_points(const void *a, const void *b)
{
    const struct point *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->peer < y->peer ? -1 : x->peer > y->peer;
}

/* "host:port" in two; a port is what stands behind the last colon, if it is a number. */
static void split_server(struct str server, struct str *host, struct str *port)
{
    size_t digits = 0;

    *host = server;
    *port = STR("");
    if (str_casestarts(server, STR("unix:"))) {
        *host = str_skip(server, 5);
        return;
    }
    while (digits < server.len && server.ptr[server.len - 1 - digits] >= '0'
           && server.ptr[server.len - 1 - digits] <= '9')
        digits++;
    if (digits < server.len && server.ptr[server.len - 1 - digits] == ':') {
        host->len = server.len - digits - 1;
        *port = str_skip(server, server.len - digits);
    }
}

static void add_points(struct ring *ring, struct str server, uint32_t peer, unsigned n)
{
    struct str host, port;
    uint32_t base, h;
    unsigned char previous[4] = { 0 };

    split_server(server, &host, &port);
    base = hash_crc32(0, host.ptr, host.len);
    base = hash_crc32(base, "", 1);
    base = hash_crc32(base, port.ptr, port.len);
    for (unsigned i = 0; i < n; i++) {
        h = hash_crc32(base, previous, sizeof(previous));
        ring->points[ring->count++] = (struct point){ h, peer };
        for (unsigned k = 0; k < 4; k++)
            previous[k] = (unsigned char) (h >> (8 * k));
    }
}

/*
 * What decides where a server stands on the ring: what `server` says; of a name that is resolved at run time each address by itself, so
 * that few keys move when one comes or goes.
 */
static struct str ring_name(const struct peer *p)
{
    return p->resolved ? p->name : p->server;
}

/* The address before i of the same server, or PEERS_NONE. */
static unsigned same_server(struct table *servers, const struct upstream *g, unsigned i)
{
    uintptr_t before = (uintptr_t) table_get(servers, ring_name(g->peers[i]));

    return before == 0 ? PEERS_NONE : (unsigned) before - 1;
}

/* A first step of the search for a point that leaves a few to search: a cache line, not a dozen. */
static void index_ring(struct arena *arena, struct ring *ring)
{
    unsigned bits = 1, places, k = 0;

    while (bits < 20 && (4u << bits) < ring->count)
        bits++;
    places = 1u << bits;
    ring->shift = 32 - bits;
    ring->from = ARENA_ARRAY(arena, uint32_t, places + 1);
    for (unsigned i = 0; i < places; i++) {
        while (k < ring->count && ring->points[k].hash >> ring->shift < i)
            k++;
        ring->from[i] = k;
    }
    ring->from[places] = ring->count;
}

static void build_ring(struct arena *arena, struct upstream *g)
{
    const struct peer_view *v = &g->own;
    struct ring *ring = ARENA_NEW(arena, struct ring);
    struct table servers;
    unsigned kept = 0;
    uint32_t *last;

    ring->points = ARENA_ARRAY(arena, struct point, (size_t) v->set->weight * POINTS_PER_WEIGHT);
    ring->next = ARENA_ARRAY(arena, uint32_t, v->set->count);
    last = ARENA_ARRAY(arena, uint32_t, v->set->count);
    table_init(&servers, arena);
    for (unsigned i = 0; i < v->set->count; i++) {
        unsigned first;

        ring->next[i] = PEERS_NONE;
        if (v->state[i] & PEER_BACKUP)
            continue;
        first = same_server(&servers, g, i);
        if (first == PEERS_NONE) {
            table_put(&servers, ring_name(g->peers[i]), (void *) (uintptr_t) (i + 1));
            add_points(ring, ring_name(g->peers[i]), i, (unsigned) v->weight[i] * POINTS_PER_WEIGHT);
            last[i] = i;
        } else {
            ring->next[last[first]] = i;
            last[first] = i;
        }
    }
    qsort(ring->points, ring->count, sizeof(*ring->points), compare_points);
    for (unsigned i = 0; i < ring->count; i++) {
        if (kept == 0 || ring->points[kept - 1].hash != ring->points[i].hash)
            ring->points[kept++] = ring->points[i];
    }
    ring->count = kept;
    index_ring(arena, ring);
    g->table = ring;
}

/* The first point at or behind the hash. */
static unsigned find_point(const struct ring *ring, uint32_t hash)
{
    unsigned from = ring->from[hash >> ring->shift], to = ring->from[(hash >> ring->shift) + 1];

    while (from < to) {
        unsigned mid = from + (to - from) / 2;

        if (ring->points[mid].hash < hash)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

/*
 * Whether one more connection leaves a server within its bound: that many times its share of all connections
 * (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016).
 */
static bool within_bound(const struct upstream *g, unsigned i)
{
    const struct peer_set *set = g->view.set;
    double share;

    if (g->method.bound == 0)
        return true;
    share = ((double) set->conns + 1) * g->view.weight[i] / (double) set->weight;
    return g->view.conns[i] + 1 <= ceil(share * g->method.bound);
}

/* Of a server's addresses that can be asked the one with the fewest connections, or PEERS_NONE. */
static unsigned best_address(const struct upstream *g, const struct ring *ring, unsigned first)
{
    const struct peer_view *v = &g->view;
    unsigned best = PEERS_NONE;

    for (unsigned i = first; i != PEERS_NONE; i = ring->next[i]) {
        if (is_free(v, i) && within_bound(g, i) && (best == PEERS_NONE || v->conns[i] < v->conns[best]))
            best = i;
    }
    return best;
}

static void start_consistent(struct choice *c)
{
    const struct ring *ring = c->group->table;

    start_hash(c);
    c->hash = find_point(ring, hash_crc32(0, c->key.ptr, c->key.len));
}

static unsigned pick_consistent(struct choice *c)
{
    struct upstream *g = c->group;
    const struct ring *ring = g->table;
    /* A bound has to be looked for, and is always there to be found. */
    unsigned misses_max = g->method.bound > 0 ? ring->count : MISSES_MAX;

    while (ring->count > 0 && c->rehashes <= misses_max) {
        unsigned i = best_address(g, ring, ring->points[c->hash % ring->count].peer);

        if (i != PEERS_NONE)
            return i;
        c->hash++;
        c->rehashes++;
    }
    return peers_smooth(&g->view, 0);
}

/* maglev ------------------------------------------------------------------------------------------------- */

struct maglev {
    uint32_t peer[MAGLEV_SIZE];
};

/* One server's way through the table. */
struct walk {
    uint32_t at, step, peer;
    double due; /* turns that it is owed */
};

static void build_maglev(struct arena *arena, struct upstream *g)
{
    const struct peer_view *v = &g->own;
    struct maglev *m = ARENA_NEW(arena, struct maglev);
    struct walk *walks = ARENA_ARRAY(arena, struct walk, v->set->count);
    unsigned count = 0, filled = 0;
    int32_t heaviest = 0;

    for (unsigned i = 0; i < v->set->count; i++) {
        struct str name;

        if (v->state[i] & PEER_BACKUP)
            continue;
        name = g->peers[i]->name;
        heaviest = MAX(heaviest, v->weight[i]);
        walks[count++] = (struct walk){
            .at = hash_crc32(0, name.ptr, name.len) % MAGLEV_SIZE,
            .step = hash_crc32(hash_crc32(0, "maglev", 6), name.ptr, name.len) % (MAGLEV_SIZE - 1) + 1,
            .peer = i,
        };
    }
    memset(m->peer, 0xff, sizeof(m->peer));
    /* In turns, the lighter ones less often, each takes the next place of its walk that is free. */
    for (unsigned k = 0; count > 0 && filled < MAGLEV_SIZE; k = (k + 1) % count) {
        struct walk *w = &walks[k];

        w->due += (double) v->weight[w->peer] / heaviest;
        if (w->due < 1)
            continue;
        w->due -= 1;
        while (m->peer[w->at] != PEERS_NONE)
            w->at = (w->at + w->step) % MAGLEV_SIZE;
        m->peer[w->at] = w->peer;
        filled++;
    }
    g->table = m;
}

static void start_maglev(struct choice *c)
{
    start_hash(c);
    c->hash = hash_crc32(0, c->key.ptr, c->key.len) % MAGLEV_SIZE;
}

static unsigned pick_maglev(struct choice *c)
{
    const struct maglev *m = c->group->table;

    while (c->rehashes <= MISSES_MAX) {
        unsigned i = m->peer[(c->hash + c->rehashes) % MAGLEV_SIZE];

        if (i != PEERS_NONE && is_free(&c->group->view, i))
            return i;
        c->rehashes++;
    }
    return peers_smooth(&c->group->view, 0);
}

/* random ------------------------------------------------------------------------------------------------- */

/* A server by chance that can be asked and is not `other`; PEERS_NONE after too many misses. */
static unsigned by_chance(struct choice *c, unsigned other)
{
    for (; c->rehashes <= MISSES_MAX; c->rehashes++) {
        unsigned i = share_of(c->group, random_u64());

        if (is_free(&c->group->view, i) && i != other)
            return i;
    }
    return PEERS_NONE;
}

static void start_random(struct choice *c)
{
    c->rehashes = 0;
}

/* Whether a is at least as good as b. */
static bool is_better(const struct upstream *g, unsigned a, unsigned b)
{
    const struct peer_view *v = &g->view;
    double x = v->conns[a] + 1.0, y = v->conns[b] + 1.0;

    if (g->method.time != TIME_NONE) {
        x *= v->time_ms[a];
        y *= v->time_ms[b];
    } else {
        x--;
        y--;
    }
    return x * v->weight[b] <= y * v->weight[a];
}

static unsigned pick_random(struct choice *c)
{
    unsigned first = by_chance(c, PEERS_NONE), second;

    if (first == PEERS_NONE)
        return peers_smooth(&c->group->view, 0);
    if (!c->group->method.two)
        return first;
    second = by_chance(c, first);
    if (second == PEERS_NONE)
        return first;
    return is_better(c->group, first, second) ? first : second;
}

const struct balancer balancer_ip_hash = {
    .name = "ip_hash", .build = build_shares, .start = start_ip_hash, .pick = pick_ip_hash, .fixed = true,
};
const struct balancer balancer_hash = {
    .name = "hash", .build = build_shares, .start = start_hash, .pick = pick_hash, .fixed = true,
};
const struct balancer balancer_consistent = {
    .name = "hash", .build = build_ring, .start = start_consistent, .pick = pick_consistent, .fixed = true,
};
const struct balancer balancer_maglev = {
    .name = "maglev", .build = build_maglev, .start = start_maglev, .pick = pick_maglev, .fixed = true,
};
const struct balancer balancer_random = {
    .name = "random", .build = build_shares, .start = start_random, .pick = pick_random, .fixed = true,
};
