/* SPDX-License-Identifier: BSD-2-Clause */
/* Process-wide services of the platform: title, privileges, limits, descriptors, randomness, memory. */
#ifndef CORE_OS_PROCESS_H
#define CORE_OS_PROCESS_H

#include <sys/types.h>

#include "core/base/str.h"

struct logger;

/* Moves argv and environ aside so that the title can be longer. Call once, first thing in main. */
void process_title_init(int argc, char **argv);
/* Shown by ps: "proxyd: worker process". */
void process_title(const char *title);
/* Opens /dev/null on descriptors 0, 1, 2 that the starter left closed. */
int process_std_descriptors(void);
/*
 * Forks into the background with a session of its own and umask 0; standard input and output go to
 * /dev/null, standard error stays for what start-up still has to say. Returns in the child, with 0,
 * or -1; the parent ends with status 0.
 */
int process_daemonize(const struct logger *log);
/*
 * setgid, initgroups, setuid, no_new_privs; keeps those of the named capabilities (bit mask of
 * CAP_NET_RAW …) that it has, if root.
 */
int process_drop(const struct logger *log, const char *user, uid_t uid, gid_t gid, uint64_t keep_caps);
/* The capabilities in force, as a bit mask. */
uint64_t process_capabilities(void);
/* No core file, no debugger, nothing in /proc for others than the super-user: for a process with secrets. 0, or -1 (logged). */
int process_hide(const struct logger *log);
/* process_drop for such a process, which is at no time open to others of that user. */
int process_drop_hidden(const struct logger *log, const char *user, uid_t uid, gid_t gid);
/* Closes all descriptors but these, which stand in rising order. 0, or -1 with errno. */
int process_keep_descriptors(const int *keep, unsigned count);
/*
 * From now on no call of this process connects, binds, starts a process or changes the file system: they fail with
 * EPERM. What is open stays usable. False: the kernel does not offer it. Not in builds with AddressSanitizer.
 */
bool process_renounce(void);
unsigned process_cpus(void); /* online processors that we may run on, at least 1 */
int process_set_affinity(const uint64_t *mask, unsigned words);
/* Sends a datagram to $NOTIFY_SOCKET (sd_notify protocol): "READY=1". Silently nothing when unset. */
void process_notify(const char *state);

/* Bytes from getrandom(2). */
void random_bytes(void *out, size_t len);
/* Fast, seeded per process: for balancing and jitter, never for secrets. */
uint64_t random_u64(void);

/* A shared mapping backed by a memfd of that name; *fd_out can be inherited by a new binary. NULL + errno. */
void *shm_create(const char *name, size_t size, int *fd_out);
void *shm_attach(int fd, size_t size);
/* Of a large mapping, which is read and written all over: in huge pages, if the system lets it. */
void shm_want_huge(void *ptr, size_t size);
/*
 * Of a place in a mapping that is being used for the first time, with so many bytes of the mapping from there on: if a huge page can
 * begin there, it becomes one, whatever the system does by itself. Takes about a millisecond then. Where that is not to
 * be had, nothing happens.
 */
void shm_make_huge(void *ptr, size_t size);
void shm_destroy(void *ptr, size_t size, int fd);
/* Makes whole pages of it zero; of many, the memory goes back to the kernel until they are touched. */
void shm_zero(void *ptr, size_t size);

#define PROCESS_HOSTNAME_MAX 256

/* This machine's name as of the first call, at most PROCESS_HOSTNAME_MAX bytes, NUL-terminated. */
struct str process_hostname(void);

size_t process_page_size(void);

#endif
