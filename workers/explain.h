/* SPDX-License-Identifier: BSD-2-Clause */
/* --explain: what the configuration would do with a request, line by line. */
#ifndef WORKERS_EXPLAIN_H
#define WORKERS_EXPLAIN_H

#include "core/config/config.h"
#include "workers/options.h"

/*
 * Reads the configuration that is asked for and shows on standard output how it treats the request
 * that the options describe (explain, method, headers, from, to; as JSON with json). Nothing is
 * opened but for reading, nothing bound, connected or sent. Returns the exit status.
 */
int explain(const struct options *o, const struct config_request *request);

#endif
