/* SPDX-License-Identifier: BSD-2-Clause */
/* --explain. Called by main; not there yet. */
#include "workers/explain.h"

int explain(const struct options *o UNUSED, const struct config_request *request UNUSED)
{
    fprintf(stderr, "proxyd: --explain is not implemented yet\n");
    return 1;
}
