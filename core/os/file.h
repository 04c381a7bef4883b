/* SPDX-License-Identifier: BSD-2-Clause */
/* Files: opening, whole reads, complete writes, temporary files, directories. errno tells why. */
#ifndef CORE_OS_FILE_H
#define CORE_OS_FILE_H

#include <sys/stat.h>
#include <sys/uio.h>

#include "core/base/str.h"

/* Reads a whole regular file into an arena, NUL-terminated. 0, or -1 with errno (EFBIG past max). */
int file_read(struct arena *arena, const char *path, size_t max, struct str *out);
/* Writes all of it, through EINTR and short writes. 0 or -1 with errno. */
int file_write(int fd, const void *ptr, size_t len);
int file_pwrite(int fd, const void *ptr, size_t len, off_t offset);
/* One writev at `offset` for all of iov, completed if short. Returns 0 or -1 with errno. */
int file_pwritev(int fd, struct iovec *iov, int n, off_t offset);
/* Opens for appending, created with mode; O_CLOEXEC. fd or -1. */
int file_open_append(const char *path, mode_t mode);
/*
 * Writes to path.tmp, syncs and renames: readers, and who comes after a crash, see the old or the new whole, also
 * where several processes do so at a time. 0 or -1.
 */
int file_replace(const char *path, struct str content, mode_t mode);
/* mkdir -p for the directory `path`. 0 or -1. */
int file_mkdirs(const char *path, mode_t mode);
/*
 * A temporary file in dir, whose sub-directories are spread as nginx's "path level1 level2
 * level3" (levels of 0..3 digits, 0 ends the list), created as needed. With `unlinked` no name
 * is left behind and path_out may be NULL. fd or -1.
 */
int file_temp(struct arena *arena, struct str dir, const unsigned char levels[3], bool unlinked,
              mode_t mode, struct str *path_out);

#endif
