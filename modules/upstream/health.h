/* SPDX-License-Identifier: BSD-2-Clause */
/* Active health checks: what their prober (health.c) and its probes (health_probe.c) share. */
#ifndef MODULES_UPSTREAM_HEALTH_H
#define MODULES_UPSTREAM_HEALTH_H

#include "core/http/h1.h"
#include "modules/upstream/internal.h"

enum probe_state { PROBE_IDLE, PROBE_CONNECT, PROBE_SEND, PROBE_HEAD, PROBE_BODY };

/* An answer under way. */
struct probe_answer {
    struct msg head;
    struct h1_parser parser;
    struct h1_body decoder;
};

/* One check of one server, over and over. */
struct probe {
    struct prober *prober;
    const struct health_check *check;
    unsigned check_index;
    const struct peer *peer;
    struct addr addr;
    struct timer timer; /* the next one */
    struct logger log;
    unsigned deferred_ms; /* since it was due, while too many others are under way */
    enum probe_state state;
    struct conn *conn;  /* NULL: none. While idle: kept alive */
    uint64_t opened_ms; /* the connection */
    bool reused;
    /* While one runs: */
    uint64_t started_us, connect_us, header_us;
    uint64_t deadline_ms; /* of the answer as a whole */
    struct arena *arena;
    struct chain out;
    struct probe_answer *answer;
    struct block *head_block, *block;
    size_t start, end; /* of what is read of the head and not parsed */
    uint64_t received; /* bytes of the answer */
    char *body;        /* as far as it is looked at */
    size_t body_len, body_size;
};

struct prober {
    struct upstream *group;
    struct timer timer;   /* to look whether there is a prober */
    struct probe **probes; /* NULL: this worker is not the prober */
    unsigned count;
    uint32_t generation;  /* of the group's servers that the probes are of */
};

/* Of zeroed memory: one check of one server. The first one is due when the caller has set the timer. */
void probe_init(struct probe *p, struct prober *prober, unsigned check, const struct peer *peer);
/* Ends it, whatever it is doing, without a result. */
void probe_drop(struct probe *p);

#endif
