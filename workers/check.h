/* SPDX-License-Identifier: BSD-2-Clause */
/* -t, -T, --lint: whether a configuration would do. */
#ifndef WORKERS_CHECK_H
#define WORKERS_CHECK_H

#include "core/config/config.h"
#include "workers/options.h"

/* Reads the configuration, tries it out as far as the options allow, says what it found. The exit status. */
int check(const struct options *o, struct config_request *request);

#endif
