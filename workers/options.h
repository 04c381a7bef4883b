/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line, as nginx's. */
#ifndef WORKERS_OPTIONS_H
#define WORKERS_OPTIONS_H

#include "core/base/base.h"

struct options {
    bool help, version, configure, test, dump, quiet;
    const char *signal;    /* a known word, or NULL */
    int signal_number;
    const char *prefix;    /* as given, or NULL */
    const char *file;
    const char *error_log;
    const char *globals;
    const char *manual;    /* "directives" */
};

/* 0; or -1 with what is wrong, without the program's name, in error. */
int options_parse(struct options *o, int argc, char *const *argv, char *error, size_t size);

#endif
