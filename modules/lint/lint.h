/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --lint: warns of what a configuration may say but hardly means. Rules look at the record of the
 * directives as they were written (core/config/record.h), so they know modules that this build lacks and
 * cost nothing when nobody asks. docs/lint.md explains each to people.
 */
#ifndef MODULES_LINT_LINT_H
#define MODULES_LINT_LINT_H

#include "core/config/record.h"

struct lint_finding {
    const char *rule;
    const char *sentence; /* what is wrong, and why */
    const char *remedy;
    struct conf_pos pos;
};

/*
 * Judges a configuration that was read with config_request.record; say is called for each finding that no
 * comment "# lint: ignore RULE" silences, in the order of the files. Strings live as long as the config.
 * How many there were.
 */
unsigned lint_run(struct config *config,
                  void (*say)(void *data, const struct lint_finding *finding), void *data);

#endif
