/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the main and events contexts say: read by the master and the workers. The structures are
 * filled by directives.c and live as long as their configuration.
 */
#ifndef WORKERS_SETTINGS_H
#define WORKERS_SETTINGS_H

#include <sys/types.h>

#include "core/module.h"
#include "core/os/socket.h"

#define CPU_MASK_WORDS 16 /* 1,024 processors */
#define WORKERS_MAX 256   /* half of half the slots of a zone: an old and a new generation fit */

struct cpu_mask {
    uint64_t words[CPU_MASK_WORDS];
};

struct core_limit {
    bool set;
    int64_t n;
};

enum { DEBUG_POINTS_OFF, DEBUG_POINTS_STOP, DEBUG_POINTS_ABORT };

/* Module "core", STORE_MAIN of the main level. */
struct core_conf {
    bool daemon;
    bool master_process;
    bool pcre_jit;
    unsigned debug_points;
    unsigned workers;            /* worker_processes, "auto" counted */
    struct str pid;              /* absolute */
    struct str lock_file;
    struct str working_directory; /* absolute or empty */
    struct str_list env;         /* "NAME" or "NAME=VALUE" */
    const char *user;            /* NULL: stay who we are */
    uid_t uid;
    gid_t gid;
    bool has_priority;
    int priority;                /* nice value */
    struct core_limit rlimit_nofile;
    struct core_limit rlimit_core; /* bytes */
    uint64_t shutdown_timeout_ms; /* 0: none */
    uint64_t timer_resolution_ms; /* accepted: the clock is read once a turn anyway */
    struct cpu_mask *cpus;       /* worker_cpu_affinity */
    unsigned cpu_count;
    bool cpu_auto;               /* one processor of cpus[0] each, in turn */
};

/* Module "events", STORE_MAIN of the events level. */
struct events_conf {
    int64_t connections;
    bool multi_accept;
    bool accept_mutex;
    uint64_t accept_mutex_delay_ms;
    int64_t aio_requests;
    int64_t epoll_events;
    struct cidr *debug;          /* debug_connection */
    unsigned debug_count, debug_capacity;
    bool debug_unix;
};

extern const struct module module_core, module_events;

const struct core_conf *core_settings(const struct config *config);
/* NULL when the file has no events block. */
const struct events_conf *events_settings(const struct config *config);
/* Whether debug_connection names the peer. */
bool events_debug_peer(const struct events_conf *events, const struct sockaddr *peer);

/* The error log where the file names none: absolute path or "stderr". Set by main before any reading. */
extern const char *core_error_log_path;
/* The mask that worker number `index` is bound to; false: none. */
bool core_worker_cpus(const struct core_conf *core, unsigned index, struct cpu_mask *out);
/* "0101": the right-most digit is processor 0. 0; -1: *bad is none of 0 and 1; -2: too many digits. */
int cpu_mask_parse(struct str text, struct cpu_mask *out, char *bad);

#endif
