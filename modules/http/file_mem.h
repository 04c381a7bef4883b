/* SPDX-License-Identifier: BSD-2-Clause */
/* Files that cannot go out by reference: what their producer says to the filter that reads them. */
#ifndef MODULES_HTTP_FILE_MEM_H
#define MODULES_HTTP_FILE_MEM_H

#include "core/http/req.h"

/* The FILE pieces of this answer come from a descriptor that is O_DIRECT. Before the head. */
void file_mem_direct(struct req *r);

#endif
