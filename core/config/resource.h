/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a configuration asks of the process, named during the parse and taken in hand by the
 * master (workers/): log files, listening sockets, zones, directories, thread pools. Kept across a
 * reload where they are the same.
 */
#ifndef CORE_CONFIG_RESOURCE_H
#define CORE_CONFIG_RESOURCE_H

#include "core/config/config.h"
#include "core/event/conn.h"
#include "core/zone/zone.h"

/* A file opened for appending, shared by all who name its path, reopened on USR1. */
struct res_file {
    struct list link;
    struct log_file file;             /* path, fd */
    void (*flush)(struct res_file *f); /* before reopen and at exit; NULL */
    void *data;
    bool secret;                      /* made for the owner's eyes only, where it is not there yet */
};

/* A listening address. One socket per worker (fds[worker]); a unix socket is single. */
struct res_listen {
    struct list link;
    struct addr addr;
    struct str text;                /* "127.0.0.1:80" */
    struct listen_options options;
    bool single;                    /* one socket for all workers: unix, reuseport=off */
    bool inherited;
    struct conf_pos pos;
    /* In the worker: a new connection. Set by http or stream; ownership of c goes along. */
    void (*accept)(struct listener *l, struct conn *c);
    void *owner;                    /* struct http_listen … */
    int *fds;                       /* by worker; set by the master */
    unsigned fd_count;
};

struct res_zone {
    struct list link;
    struct zone_spec spec;
    struct conf_pos pos;
    struct zone *zone;              /* set by the master before workers start, NULL under -t */
};

struct res_path {
    struct list link;
    struct conf_path path;
    struct conf_pos pos;
};

struct res_pool {
    struct list link;
    struct str name;
    unsigned threads, max_queue;
    struct conf_pos pos;
    bool defined;                   /* a thread_pool directive named it */
    struct thread_pool *pool;       /* per worker, made at first use */
};

struct resources {
    struct list files, listens, zones, paths, pools; /* in the order first named */
    struct list counters;           /* struct counter_set: counters.h */
    struct res_zone *counters_zone; /* NULL: there are none */
    struct table by_path, by_addr, by_zone, by_counters; /* private: for the search */
    uint64_t capabilities;          /* bits of CAP_…: what workers keep of the super-user's rights */
};

struct resources *resources_new(struct config *config);
/* The file of that absolute path (found or new). */
struct res_file *res_file(struct config *config, struct str path);
/*
 * error_log's target, shared by all who name it: file path, "stderr", "syslog:…", "memory:…". NULL
 * with a sentence in *error.
 */
struct log_file *res_log_file(struct conf *cf, struct str spec, const char **error);
/*
 * The listening address, found or new (port included in the comparison). text is set, owner is not.
 */
struct res_listen *res_listen(struct config *config, const struct addr *addr);
/*
 * A zone by name. First mention with a size defines it; a mention with size 0 refers to it (before
 * or after).
 * Another size, or another kind, is an error: NULL with a sentence in *error. The same size again
 * is not
 * (several upstream groups may share a zone): a kind that allows one definition looks at spec.data.
 * spec.size is 0 as long as nothing defined it: res_zones_check.
 */
struct res_zone *res_zone(struct conf *cf, struct str name, size_t size,
                          const struct zone_kind *kind, const char **error);
/* After the file is read: reports each zone that was only referred to. 0 or -1. */
int res_zones_check(struct conf *cf);
/* A new one, or the one of that path, whose levels may differ from those asked for. */
struct res_path *res_path(struct config *config, const struct conf_path *path, struct conf_pos pos);
struct res_pool *res_pool(struct config *config, struct str name, struct conf_pos pos);

#endif
