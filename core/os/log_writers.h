/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log destinations that are no file: a syslog server, for error_log and access_log alike, and a
 * ring in memory for error_log.
 */
#ifndef CORE_OS_LOG_WRITERS_H
#define CORE_OS_LOG_WRITERS_H

#include "core/base/log.h"
#include "core/os/socket.h"

#define SYSLOG_TAG_MAX 32

/*
 * A syslog server, as "syslog:server=ADDRESS[,facility=…][,severity=…][,tag=…][,nohostname]" names
 * it. Messages are datagrams after RFC 3164: "<PRI>Nov  6 08:49:37 HOST TAG: text".
 */
struct syslog_target {
    struct str server; /* as it was written */
    struct addr addr;
    unsigned facility;       /* 0..23 */
    enum log_level severity; /* what access_log sends with; default info */
    struct str tag;          /* default "proxyd" */
    bool nohostname;
    int fd;      /* connected when first needed; -1 */
    bool failed; /* said once, until a message gets through again */
    bool busy;   /* sending: a complaint must not come back here */
};

/*
 * Reads what stands behind "syslog:"; a server's name is resolved now, and blocks. Strings are
 * copied into the arena. 0, or -1 with *error a sentence (static or in the arena).
 */
int syslog_parse(struct arena *arena, struct str params, struct syslog_target *out,
                 const char **error);
/*
 * Sends text (without a line feed) in one datagram. Never blocks: what the socket does not take is
 * lost. The socket is opened, and opened anew after the server went away, as needed.
 */
void syslog_send(struct syslog_target *target, enum log_level severity, const char *text,
                 size_t len);
void syslog_close(struct syslog_target *target);

/* The last `size` bytes of a log: found by a debugger, read by tests and the status page. */
struct log_memory {
    size_t size;
    size_t at;    /* where the next byte goes */
    bool wrapped; /* it has been full: the oldest byte is at `at` */
    char *data;
};

/* What the ring holds, oldest first, in two runs (either may be empty). */
void log_memory_read(const struct log_memory *memory, struct str out[2]);

/* Whether an error_log's destination is one of these: "syslog:…" or "memory:…". */
bool log_file_is_special(struct str spec);
/*
 * Makes *out a writer for "syslog:…" or "memory:SIZE"; lasts as long as the arena. 0, or -1 with
 * *error a sentence (static or in the arena). A memory ring belongs to its process: after a fork
 * parent and child each go on with their own.
 */
int log_file_open_special(struct arena *arena, struct str spec, struct log_file *out,
                          const char **error);
/* Closes what a special writer has opened; it opens it anew when it is needed. For a process that closes what it has inherited. */
void log_file_disconnect(struct log_file *file);

#endif
