/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A module: one constant structure, found by configure through its name
 * (`const struct module module_NAME = {` at the start of a line). Nothing is registered at run time.
 */
#ifndef CORE_MODULE_H
#define CORE_MODULE_H

#include <sys/types.h>

#include "core/config/config.h"

struct http_module;   /* core/http/http.h */
struct stream_module; /* core/stream/stream.h */
struct worker;

/*
 * Processes that a module has beside the workers. All of this is called in the master, in whose memory their state is. A configuration is
 * opened before it is put into force, and closed when its last worker has ended; or when it could not be put into force.
 */
struct module_processes {
    /* workers: their user. alone: there is no master. What -t calls as well (config->testing) checks, and starts nothing. -1: logged. */
    int (*open)(const struct config *config, uid_t workers, bool alone);
    void (*close)(const struct config *config);
    /* A worker is about to be forked (-1, logged: not now); has been, where child
     * says in which of the two processes this is; has ended, or could not be forked. */
    int (*worker_begin)(const struct config *config, unsigned slot);
    void (*worker_forked)(const struct config *config, unsigned slot, bool child);
    void (*worker_ended)(const struct config *config, unsigned slot);
    /* USR1: the log files are others now. */
    void (*logs_reopened)(const struct config *config);
    /* A child has ended. Whether it was one of these. */
    bool (*reaped)(pid_t pid, int status);
    /* Milliseconds until this is to be called again: starts what is to be started anew. */
    uint64_t (*tick)(void);
    /* The master leaves. */
    void (*stop)(void);
};

struct module {
    const char *name;             /* "http_static" */
    unsigned *slot;               /* the module's own static: its index, set once at start */
    size_t conf_size[STORES];     /* 0: no structure of that kind */
    const struct directive *directives;
    const struct http_module *http;
    const struct stream_module *stream;
    /* Before the file is read / when a structure has been made and inheritance has run for a level that owns
     * it (called per level, top down) / after everything. Non-zero: errors were reported by conf_error_at. */
    int (*begin)(struct conf *cf);
    int (*finish)(struct conf *cf, struct level *level, struct level *parent);
    int (*post)(struct conf *cf);
    /*
     * In the master, which has the rights to read keys, with the configuration in force: what the module does there by itself. It must
     * not wait. Called when it has asked for it, and at other times. In how many milliseconds it is wanted again; UINT64_MAX: never.
     */
    uint64_t (*master_tick)(const struct config *config);
    /* In each worker, before it gives up the master's rights; -1: the worker exits (logged). */
    int (*worker_prepare)(const struct config *config);
    /* In each worker, after privileges are dropped and the loop runs; -1: the worker exits (logged). */
    int (*worker_start)(const struct config *config);
    /* The worker is leaving: flush, close. No more requests will come. */
    void (*worker_stop)(const struct config *config);
    /* No new connections; idle ones are to be closed (QUIT, reload). */
    void (*worker_drain)(const struct config *config);
    /* worker_shutdown_timeout is over: connections are to be closed. True: some have taken leave of their clients, and a moment may be
     * waited for the answers. Called again each turn, until there are none or the moment is over. */
    bool (*worker_part)(const struct config *config);
    /* worker_connections are nearly all in use: close up to n connections that are at rest, those which
     * have rested longest first. How many were closed. */
    unsigned (*worker_shed)(const struct config *config, unsigned n);
    const struct module_processes *processes;
};

#endif
