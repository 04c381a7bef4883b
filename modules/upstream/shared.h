/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups in a zone: what lies there. For shared.c (the groups, taking over, dead workers), shared_servers.c
 * (servers that come, change and go), shared_local.c (what a worker makes of it) and shared_checks.c.
 *
 * A group has places by index. A server keeps its place; all that is known of one place lies in arrays and objects that are found by that
 * index, so that a choice is a pass over a few arrays, while names, addresses and counters lie elsewhere. When the places do not suffice,
 * larger arrays are made and take over at one store; the older ones stay where they are until the group
 * goes, for workers may be reading them without the lock (together they are smaller than the new ones).
 * Counters never move: workers add to them without the lock.
 */
#ifndef MODULES_UPSTREAM_SHARED_H
#define MODULES_UPSTREAM_SHARED_H

#include "core/base/clock.h"
#include "modules/upstream/internal.h"

enum place_kind { PLACE_FREE, PLACE_SERVER, PLACE_NAME };

/* The address and the texts of a server, which change as one. */
struct zone_text {
    uint16_t addr_len, name_len, server_len, route_len, service_len;
    char bytes[];        /* one behind the other */
};

/* The server in one place. */
struct zone_server {
    struct peer_stats stats; /* first: it begins with a cache line */
    zone_off_t text;
    zone_off_t making, dropping; /* the next one and the one before, while it changes */
    uint64_t who;        /* shared_peer_id */
    uint32_t number;     /* upstream_server.id */
    uint32_t parent;     /* number of the name that it is an address of; UPSTREAM_NO_PARENT */
    uint32_t kind;       /* PLACE_…; set last */
};

/* What one active check has found out about one server. */
struct peer_check {
    uint64_t id;         /* of the check */
    uint64_t started_ms; /* the last one, on the monotonic clock; 0: none */
    uint32_t fails, passes; /* one after the other */
    bool sick;
    bool unchecked;      /* mandatory, and none has ended yet */
};

/* The arrays of a group. */
struct zone_places {
    zone_off_t older;    /* struct zone_places that these replaced */
    zone_off_t set;      /* struct peer_set */
    zone_off_t checks;   /* struct peer_check: for each check one for each place; 0: there are none */
    uint32_t capacity;
    zone_off_t servers[]; /* struct zone_server; 0: there never was one */
};

/* An office that one worker of all holds, until it leaves it, dies or is silent for too long. */
struct zone_office {
    zone_off_t holder;   /* struct held of that worker; 0: nobody */
    uint64_t seen_ms;    /* when it last showed that it is there, on the monotonic clock */
};

#define STATE_HASHES 2

struct zone_group {
    zone_off_t next;
    zone_off_t places;
    zone_off_t making;   /* the next ones, while they are made */
    struct zone_office prober, asker; /* who makes the health checks; who resolves the names */
    uint64_t name;       /* hash of the group's name */
    uint64_t identity;   /* hash of everything that its `server` lines say, and of frame */
    uint64_t frame;      /* hash of what else its numbers depend on */
    /* What was written to the state file last, at state_last, and before that: what is in it is one of these, or somebody else's. */
    uint64_t state_hashes[STATE_HASHES];
    uint32_t state_last;
    uint32_t check_count;
    uint32_t users;      /* workers: derived from the slots */
    uint32_t current;    /* of the configuration in force */
    uint32_t generation; /* grows with every change of the servers */
    uint32_t next_number;
    uint32_t edited;     /* its servers are not those of the configuration any more */
    uint64_t queue_overflows;
};

struct zone_root {
    zone_off_t groups;
};

/* A worker's part in one group. */
struct held {
    zone_off_t next;
    zone_off_t group;
    zone_off_t conns;    /* uint32_t: its connections to the server of each place */
    zone_off_t making, dropping; /* the next ones and those before, while they change */
    uint32_t capacity;
    uint32_t idle;       /* kept-alive connections */
    uint32_t queued;     /* requests that wait for a server */
};

struct slot {
    zone_off_t held;
    zone_off_t making;   /* one that is to be the first of them */
};

/* All with the lock held, unless they say otherwise. */

/* shared.c */
struct zone_group *shared_first(struct zone *zone);
struct zone_group *shared_next_group(struct zone *zone, const struct zone_group *zg);
static inline struct zone_places *places_of(struct zone *zone, const struct zone_group *zg)
{
    return zone_at(zone, zg->places);
}
void shared_view(struct zone *zone, const struct zone_group *zg, struct peer_view *v);
static inline struct zone_text *text_of(struct zone *zone, const struct zone_server *s)
{
    return zone_at(zone, s->text);
}
/* An address as it lies there. */
static inline void shared_addr(struct zone *zone, const struct zone_server *s, struct addr *addr)
{
    const struct zone_text *t = text_of(zone, s);

    addr->len = t->addr_len;
    memcpy(&addr->ss, t->bytes, t->addr_len);
}
/* What is in a place; NULL: there never was a server. */
struct zone_server *shared_server(struct zone *zone, const struct zone_group *zg, unsigned i);
/* Takes the lock: the group in its zone, in a worker; its view is up to date. */
struct zone_group *shared_lock(struct upstream *g);
/* Whether this worker has the office, which it takes where it is vacant. Not under the lock. */
bool shared_office_take(struct upstream *g, size_t office);
void shared_office_leave(struct upstream *g, size_t office);

/* shared_servers.c */
struct place_text {
    struct str name, server, route, service;
    const struct addr *addr; /* NULL: a name */
};
/* What is to be in a place. */
struct place {
    enum place_kind kind;
    uint32_t parent;
    struct place_text text;
    int32_t weight;
    uint32_t state;
    struct peer_record record;
};
/* Memory for a group of so many places, all of them free. 0, or -1: the zone is full (what was taken is in the group). */
int shared_places_init(struct zone *zone, struct zone_group *zg, unsigned capacity, uint32_t scale);
void shared_places_free(struct zone *zone, struct zone_group *zg);
/* After a death in the midst of something: what was on its way into a place, or out of it. */
void shared_places_recover(struct zone *zone, struct zone_group *zg);
void shared_slot_recover(struct zone *zone, struct slot *slot);
/* A server in a free place. Its index, or PEERS_NONE: the zone is full. */
unsigned shared_place(struct zone *zone, struct zone_group *zg, const struct health *health,
                      const struct place *p);
/* What is in a place, with texts that are those of the zone. */
void shared_read(struct zone *zone, const struct zone_group *zg, unsigned i, struct place *p);
/* Another route. 0, or -1: the zone is full. */
int shared_route(struct zone *zone, struct zone_server *s, struct str route);
void shared_leave(struct zone *zone, struct zone_group *zg, unsigned i);
/* After changes: sums, and all workers are to look. */
void shared_changed(struct zone *zone, struct zone_group *zg);
/* The place of a server by its number, or PEERS_NONE. */
unsigned shared_find(struct zone *zone, const struct zone_group *zg, uint32_t number);
/* Milliseconds since 1970. */
static inline int64_t shared_wall_ms(void)
{
    return (int64_t) clock_time() * 1000 + clock_time_ms();
}
/* Whether a server cannot be asked, which is counted as downtime. */
static inline bool shared_is_out(uint32_t state)
{
    return (state & (PEER_BROKEN | PEER_SICK | PEER_UNCHECKED)) != 0;
}
/* The time that a server could not be asked begins or ends. */
void shared_note_state(struct peer_stats *stats, uint32_t state);

/* shared_checks.c */
/* As a server is that nobody has checked. */
void shared_checks_begin(struct zone *zone, const struct zone_group *zg, unsigned i,
                         const struct health *health);
void shared_checks_copy(struct zone *zone, const struct zone_group *zg, unsigned i,
                        const struct zone_group *old, unsigned k, const struct health *health);
/* The state of a server that follows from what the checks say. */
void shared_checks_settle(struct zone *zone, const struct zone_group *zg, struct peer_view *v, unsigned i);

/* shared_local.c */
/* Copies of what is in the zone; the lock is held. */
void shared_local_start(struct upstream *g);

#endif
