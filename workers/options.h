/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: nginx's letters, and words of our own. */
#ifndef WORKERS_OPTIONS_H
#define WORKERS_OPTIONS_H

#include "core/base/base.h"

#define OPTIONS_HEADERS_MAX 64

struct options {
    bool help, version, configure, test, dump, quiet;
    bool lint;             /* --lint, which says test too */
    bool offline;          /* --offline, with test or explain */
    bool json;             /* --json, with test or explain */
    const char *signal;    /* a known word, or NULL */
    int signal_number;
    const char *prefix;    /* as given, or NULL */
    const char *file;
    const char *error_log;
    const char *globals;
    const char *manual;    /* "directives" */
    const char *explain;   /* the URL of --explain, or NULL */
    const char *method;    /* -X, with explain: as given, or NULL for GET */
    /* -H, with explain: "Name: value" as given, in their order; there is a colon behind a name. */
    const char *headers[OPTIONS_HEADERS_MAX];
    unsigned header_count;
    const char *from;      /* --from, with explain: the client's address, or NULL */
    const char *to;        /* --to, with explain: the address it connects to, or NULL */
};

/* 0; or -1 with what is wrong, without the program's name, in error. */
int options_parse(struct options *o, int argc, char *const *argv, char *error, size_t size);

#endif
