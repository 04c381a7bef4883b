/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The contents of small files that are asked for often, in memory, with what their heads say.
 * Whether an entry is still true is decided for each request by what the file system says now.
 */
#ifndef MODULES_HTTP_SMALL_FILES_H
#define MODULES_HTTP_SMALL_FILES_H

#include "core/base/fmt.h"
#include "modules/http/file_cache.h"

#define SMALL_FILE_MAX (32 * 1024)
#define FILE_ETAG_MAX 40 /* two 64-bit numbers in hex, a hyphen, quotes */

struct small_file {
    struct block *content; /* info.size bytes at data; NULL: an empty file */
    struct file_info info; /* without a descriptor */
    char date[FMT_HTTP_DATE];
    unsigned char etag_len;
    char etag[FILE_ETAG_MAX];
};

/* "mtime-size" in hex, quoted, as nginx writes it. Returns the length. */
size_t file_etag(char etag[FILE_ETAG_MAX], const struct file_info *info);
/* How many bytes the worker's cache may hold; 0 turns it off. */
void small_files_limit(size_t bytes);
/* The entry for a path, or NULL. Valid until the next call of a function of this file. */
struct small_file *small_files_find(struct str path);
/* Whether the entry is what the file system now has there. */
bool small_file_current(const struct small_file *f, const struct file_info *now);
/*
 * Reads the file of `info` (with its descriptor) into a new entry. NULL if it cannot be had whole or does not
 * fit. An entry that may be changing right now is given for this once and not kept.
 */
struct small_file *small_files_read(struct str path, const struct file_info *info);
void small_files_forget(struct str path);
void small_files_free(void);

#endif
