/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a group's servers while they serve: weights as they stand, connections, failures.
 * Arrays by the server's index, one for each thing that a choice looks at, so that a pass over a
 * thousand servers reads a few lines of memory in order. No pointers in it: a set can lie in a zone
 * and be used by all workers, each through a view of its own. Used by the balancers and groups.c.
 */
#ifndef MODULES_UPSTREAM_PEERS_H
#define MODULES_UPSTREAM_PEERS_H

#include "core/base/arena.h"
#include "core/base/base.h"

/* Why a server is not chosen: a bit each. What is left, PEER_BACKUP, says when it is. */
enum {
    PEER_DOWN = 1,   /* the configuration says so */
    PEER_BROKEN = 2, /* max_fails failures; asked again when fail_timeout has passed */
    PEER_FULL = 4,   /* max_conns connections */
    PEER_TRIED = 8,  /* by the request that is choosing now; never set between two choices */
    PEER_DRAIN = 16, /* asked for clients that are bound to it, and nobody else */
    PEER_BACKUP = 32, /* asked when no other server can be */
    PEER_SICK = 64,   /* an active health check has failed */
    PEER_UNCHECKED = 128, /* a mandatory health check has not ended yet */
    PEER_GONE = 256,  /* no server is in this place (any more); always with PEER_BACKUP, so that no pass over the primary ones counts it */
};

#define PEERS_NONE UINT32_MAX
/* Of one server, and of a group in sum, so that no pass overflows. */
#define PEER_WEIGHT_MAX 1000000
#define PEERS_WEIGHT_MAX 2000000000
#define PEERS_SCALE 100 /* of groups with slow starts */
/* peers_order.c: for how many different weights an order is kept, and of how many servers a row is. */
#define PEER_CLASSES 16
#define PEER_ROW 16

/* What `server` says of a server, and what is known of it besides. Times are seconds of the monotonic clock. */
struct peer_record {
    int64_t max_fails;
    uint64_t fail_timeout_s;
    uint64_t accessed_s;     /* of the last failure */
    uint64_t checked_s;      /* of the last failure, or of the look after fail_timeout */
    uint32_t fails;
    uint32_t max_conns;      /* 0: no limit */
    uint64_t slow_start_s;   /* 0: none */
    uint64_t slow_from_s;    /* since when its weight grows; 0: it has its weight */
    int32_t slow_weight;     /* to what, while it grows */
    uint32_t unhealthy;      /* how often active checks found it sick */
    uint64_t checks, failed_checks; /* active ones */
    bool last_passed;        /* the last of them */
    uint32_t state;          /* of a name that is resolved at run time: what its addresses get, */
    int32_t weight;          /* as it has no place in the arrays itself */
};

/* What order is kept: of smooth round robin among all, among those without a connection, or of least_time's scores. */
enum peers_keep { PEERS_KEEP_NOTHING, PEERS_KEEP_ALL, PEERS_KEEP_IDLE, PEERS_KEEP_TIMES };

/* Primary servers that weigh the same, while an order is kept. */
struct peer_class {
    double gained;           /* by each that takes part */
    int32_t weight;
    uint32_t row, rows;      /* the first one, and how many */
    uint32_t seats;          /* that are taken in these */
};

struct peer_set {
    uint32_t capacity, count; /* count: places, those without a server included */
    uint32_t gone;           /* places without a server */
    uint32_t primary_live, backup_live; /* without PEER_DOWN */
    uint32_t broken;         /* with PEER_BROKEN */
    uint32_t conns;          /* of all servers */
    uint64_t now_s;          /* the latest time that anybody told: the clocks of workers differ a little */
    uint64_t looked_s;       /* when the broken ones were last looked at */
    int64_t weight;          /* of all primary servers, PEER_DOWN or not */
    uint32_t scale;          /* weights are kept so many times, for slow starts in small steps */
    uint32_t slowing;        /* servers whose weight grows */
    bool lowered;            /* some effective weight may be below the weight */
    bool uniform;            /* all primary servers weigh the same */
    bool busy;               /* nobody was without a connection when that was last looked at */
    /* peers_order.c */
    uint32_t kept;           /* enum peers_keep; `current` of those that take part is then not up to date */
    uint32_t passes;         /* that chose since nothing is kept */
    uint32_t class_count;
    double taking_part;      /* weight of those that do */
    struct peer_class classes[PEER_CLASSES];
};

/* Where the arrays of a set lie in this process. */
struct peer_view {
    struct peer_set *set;
    uint32_t *state;
    int32_t *current, *effective, *weight;
    uint32_t *conns;
    float *time_ms;          /* moving average of the time that the method asks for; 0: none yet */
    double *number;          /* by seat: current without what its class has gained, or the score below 0; who does not take part: -INFINITY */
    double *highest;         /* by row */
    uint32_t *sitting;       /* by seat: which server */
    uint32_t *seat;          /* of each primary server */
    struct peer_record *records;
    uint32_t *held;          /* this worker's share of conns; NULL: nobody asks for it */
};

/* Bytes for `capacity` servers. */
size_t peers_size(unsigned capacity);
/* Makes an empty set of zeroed memory of that size, aligned to 16. slow: some servers will have slow_start_s. */
void peers_init(struct peer_view *v, void *memory, unsigned capacity, bool slow);
/* A view of a set that is there. */
void peers_map(struct peer_view *v, void *memory);
/* Adds a server (count < capacity): its index. state: PEER_DOWN and PEER_BACKUP. */
unsigned peers_add(struct peer_view *v, int32_t weight, uint32_t state,
                   const struct peer_record *record);

/* The only server of its group: never taken out for failures. */
static inline bool peers_alone(const struct peer_view *v)
{
    return v->set->count - v->set->gone == 1;
}

/* Whether a client that is bound to the server can be served by it. */
static inline bool peers_serves(const struct peer_view *v, unsigned i)
{
    return (v->state[i] & ~(uint32_t) (PEER_DRAIN | PEER_BACKUP)) == 0;
}

/* Broken servers whose fail_timeout is over may be chosen again, slow ones grow. Once a second is enough. */
void peers_look(struct peer_view *v, uint64_t now_s);
/* Chosen: the connection is counted. */
void peers_take(struct peer_view *v, unsigned i, uint64_t now_s);
/* The connection is over. */
void peers_give_back(struct peer_view *v, unsigned i);
/* An attempt has failed. True: the server is out for a while now. */
bool peers_failed(struct peer_view *v, unsigned i, uint64_t now_s);
/* An attempt went well: if it was the look after fail_timeout, failures are forgotten. */
void peers_fine(struct peer_view *v, unsigned i, uint64_t now_s);
/* What active checks say of a server from now on: of PEER_SICK and PEER_UNCHECKED. One that gets well begins slowly. */
void peers_checked(struct peer_view *v, unsigned i, uint32_t state, uint64_t now_s);
/* While a request chooses again it does not ask who it has asked: PEER_TRIED or not. */
void peers_tried(struct peer_view *v, unsigned i, bool on);
/* What is known of server k of another set is known of server i. */
void peers_copy(struct peer_view *v, unsigned i, const struct peer_view *from, unsigned k);
/* n connections more or fewer, of another worker. */
void peers_count(struct peer_view *v, unsigned i, int64_t n);
/* After somebody died in the midst of a change: no connections, nobody's turn, sums made anew. */
void peers_reset(struct peer_view *v);
/* Into the moving average of an answer's time. */
void peers_timed(struct peer_view *v, unsigned i, float ms);

/*
 * One step of smooth weighted round robin among the servers whose state is exactly `want` (0 or PEER_BACKUP): each gains its
 * weight, the richest, of equals the first, is chosen and pays for all. PEERS_NONE: there is none.
 */
unsigned peers_smooth(struct peer_view *v, uint32_t want);
/* The one with the fewest connections for its weight; several take turns by weight. */
unsigned peers_least(struct peer_view *v, uint32_t want);
/* The one with the least time x (connections + 1) / weight. Those of which no time is known come first. */
unsigned peers_fastest(struct peer_view *v, uint32_t want);
/* Whether some server can be asked now, be it a backup; and whether one only lacks a free connection. */
void peers_glance(const struct peer_view *v, bool *free, bool *full);
/* The passes for any processor instead of the fastest ones: for tests. */
void peers_force_portable(bool on);

/* peers_order.c: choices that need not look at all servers. */

/* least_time's. */
static inline double peers_time_score(const struct peer_view *v, unsigned i)
{
    return (double) v->time_ms[i] * (v->conns[i] + 1) / v->weight[i];
}

/* The next one by smooth round robin (PEERS_NONE: nobody takes part). False: no order is kept, a pass has to choose. */
bool peers_next(struct peer_view *v, enum peers_keep keep, unsigned *chosen);
/* The one with the lowest score. False: a pass has to choose, be it among equals. */
bool peers_next_time(struct peer_view *v, unsigned *chosen);
/* A server's state, or its connections or time, have changed; or its effective weight. */
void peers_reorder(struct peer_view *v, unsigned i);
/* Keeps no order any more, `current` is up to date: before numbers change from outside. */
void peers_settle(struct peer_view *v);

/* peers_edit.c: servers that come, change and go while others serve. After some of these, peers_recount. */

/* A server in place i: the one behind the last (count < capacity), or one without server or connections. */
void peers_place(struct peer_view *v, unsigned i, int32_t weight, uint32_t state,
                 const struct peer_record *record);
/* What `server` says of a server that is there. Of state: PEER_DOWN, PEER_DRAIN and PEER_BACKUP. */
void peers_change(struct peer_view *v, unsigned i, int32_t weight, uint32_t state,
                  const struct peer_record *record);
/* No server any more: not chosen. Its connections are counted until they are over. */
void peers_leave(struct peer_view *v, unsigned i);
/* As peers_place says of it. */
int32_t peers_weight(const struct peer_view *v, unsigned i);
/* Weights are kept PEERS_SCALE times from now on, as slow starts need it. */
void peers_rescale(struct peer_view *v);
/* All sums anew. */
void peers_recount(struct peer_view *v);
/* All of a set into the empty memory of a larger one. */
void peers_move(struct peer_view *from, void *memory, unsigned capacity);

#endif
