/* SPDX-License-Identifier: BSD-2-Clause */
/* Active health checks: what their prober (health.c) and its probes (health_probe.c) share. */
#ifndef MODULES_UPSTREAM_HEALTH_H
#define MODULES_UPSTREAM_HEALTH_H

#include "core/http/h1.h"
#include "modules/upstream/internal.h"

enum probe_state { PROBE_IDLE, PROBE_CONNECT, PROBE_SHAKE, PROBE_SEND, PROBE_ANSWER };

struct probe;

/* What is spoken with the server. */
struct probe_protocol {
    /* A connection is there: what is sent first goes behind what p->out has. May be called again in a probe, before any answer. */
    void (*start)(struct probe *p);
    /* Where bytes that come may be put. */
    char *(*room)(struct probe *p, size_t *size);
    /* n bytes have come there. What is to be sent for it goes behind p->out. False: the probe is over. */
    bool (*take)(struct probe *p, size_t n);
    /* No more has come for now. NULL: that is nothing. */
    void (*pause)(struct probe *p);
    /* The server has closed the connection; cut: anybody may have done so. True: the probe is over by that. */
    bool (*closed)(struct probe *p, bool cut);
    /* The probe is over, and p->data goes with its arena. */
    void (*free)(struct probe *p);
};
extern const struct probe_protocol probe_http, probe_grpc;

/* One check of one server, over and over. */
struct probe {
    struct prober *prober;
    const struct health_check *check;
    const struct probe_protocol *protocol; /* NULL: the connection is all that is asked for */
    unsigned check_index;
    const struct peer *peer;
    struct addr addr;
    struct timer timer; /* the next one */
    struct logger log;
    unsigned deferred_ms; /* since it was due, while too many others are under way */
    enum probe_state state;
    struct conn *conn;  /* NULL: none. While idle: kept alive */
    struct secure tls;  /* of it */
    uint64_t opened_ms; /* the connection */
    bool reused;
    bool hindered;      /* the last time the server could not be asked, by our own fault */
    /* While one runs: */
    uint64_t started_us, connect_us, header_us;
    uint64_t deadline_ms; /* of the answer as a whole */
    struct arena *arena;
    struct chain out;
    uint64_t received; /* bytes of the answer */
    void *data;        /* the protocol's, in the arena */
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
/* For protocols: the result is there. keep: the connection may be used again. */
void probe_end(struct probe *p, bool passed, bool keep);
/* It has failed, which the log says. error: 0, or errno. */
void probe_failed(struct probe *p, int error, const char *why);
/* health_http.c: a request that stands for the check where there are variables. NULL: there cannot be one. */
struct req *probe_request(struct probe *p, struct conn *conn);

#endif
