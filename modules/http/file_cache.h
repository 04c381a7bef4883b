/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking up files for the modules of this folder: what a path is, and a descriptor of it, with
 * the location's disable_symlinks, directio and open_file_cache applied.
 */
#ifndef MODULES_HTTP_FILE_CACHE_H
#define MODULES_HTTP_FILE_CACHE_H

#include <sys/stat.h>

#include "core/base/chain.h"
#include "core/http/req.h"

struct file_info {
    struct chain_file *file; /* with FILE_OPEN: a reference that is the caller's; else NULL */
    uint64_t size;
    struct timespec mtime, ctime;
    ino_t ino;
    dev_t dev;
    mode_t mode;
    bool direct;        /* the descriptor is O_DIRECT */
    int err;            /* errno of a failed look-up */
    const char *failed; /* "open()", "stat()" …: the call that failed */
};

enum {
    FILE_OPEN = 1, /* a descriptor for reading is wanted, if it is a regular file */
};

/*
 * What is at `path` (NUL-terminated). 0, or -1 with out->err and out->failed; nothing is logged.
 * May be as old as open_file_cache_valid says where open_file_cache is on. Blocks on the file system.
 */
int file_lookup(struct req *r, struct str path, unsigned flags, struct file_info *out);
/*
 * The status for a failed look-up, after logging it as nginx does: 404 (quietly without
 * log_not_found), 403, or 500.
 */
unsigned file_failure(struct req *r, struct str path, const struct file_info *info);

/* A worker leaves: closes all that is cached. */
void file_cache_free(void);

#endif
