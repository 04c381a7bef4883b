/* SPDX-License-Identifier: BSD-2-Clause */
/* The file with the master's process id. Paths are absolute C strings; errors are logged. */
#ifndef WORKERS_PIDFILE_H
#define WORKERS_PIDFILE_H

#include <sys/types.h>

/* Whether it can be written (-t, and before going into the background); leaves no new file behind. 0 or -1. */
int pidfile_check(const char *path);
/* Writes our own id. 0 or -1. */
int pidfile_write(const char *path);
void pidfile_remove(const char *path);
/* Between PATH and PATH.oldbin, where the old master of an upgrade keeps its own. 0 or -1. */
int pidfile_to_old(const char *path);
int pidfile_from_old(const char *path);
void pidfile_remove_old(const char *path);
/* The id in it, or -1 in nginx's words. */
pid_t pidfile_read(const char *path);

#endif
