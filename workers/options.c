/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: single letters, which may stand together; the value follows at once or as the next argument. */
#include "workers/options.h"

#include <stdio.h>

#include "workers/signals.h"

/* What a letter that takes a value lacks, and where the value goes. */
static const char **value_of(struct options *o, char letter, const char **lacks)
{
    *lacks = "parameter";
    switch (letter) {
    case 'p':
        *lacks = "directory name";
        return &o->prefix;
    case 'c':
        *lacks = "file name";
        return &o->file;
    case 'e':
        *lacks = "file name";
        return &o->error_log;
    case 'g':
        return &o->globals;
    case 's':
        return &o->signal;
    case 'x':
        return &o->manual;
    default:
        return NULL;
    }
}

static bool set_flag(struct options *o, char letter)
{
    switch (letter) {
    case '?':
    case 'h':
        o->help = o->version = true;
        return true;
    case 'v':
        o->version = true;
        return true;
    case 'V':
        o->version = o->configure = true;
        return true;
    case 't':
        o->test = true;
        return true;
    case 'T':
        o->test = o->dump = true;
        return true;
    case 'q':
        o->quiet = true;
        return true;
    default:
        return false;
    }
}

static int check_values(struct options *o, char *error, size_t size)
{
    if (o->signal && (o->signal_number = signal_by_word(o->signal)) == 0) {
        snprintf(error, size, "invalid option: \"-s %s\"", o->signal);
        return -1;
    }
    if (o->manual && strcmp(o->manual, "directives") != 0) {
        snprintf(error, size, "invalid option: \"-x %s\"", o->manual);
        return -1;
    }
    return 0;
}

int options_parse(struct options *o, int argc, char *const *argv, char *error, size_t size)
{
    memset(o, 0, sizeof(*o));
    for (int i = 1; i < argc; i++) {
        const char *p = argv[i];

        if (*p++ != '-') {
            snprintf(error, size, "invalid option: \"%s\"", argv[i]);
            return -1;
        }
        for (; *p; p++) {
            const char *lacks;
            const char **value;

            if (set_flag(o, *p))
                continue;
            value = value_of(o, *p, &lacks);
            if (!value) {
                snprintf(error, size, "invalid option: \"%c\"", *p);
                return -1;
            }
            *value = p[1] ? p + 1 : i + 1 < argc ? argv[++i] : NULL;
            if (!*value) {
                snprintf(error, size, "option \"-%c\" requires %s", *p, lacks);
                return -1;
            }
            break;
        }
    }
    return check_values(o, error, size);
}
