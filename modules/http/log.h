/* SPDX-License-Identifier: BSD-2-Clause */
/* What the access log's three files share: formats, and the files that lines go to. */
#ifndef MODULES_HTTP_LOG_H
#define MODULES_HTTP_LOG_H

#include "core/event/timer.h"
#include "core/http/req.h"
#include "core/os/log_writers.h"

/* Formats (log_format.c) -------------------------------------------------------------------------- */

enum log_escape { ESCAPE_DEFAULT, ESCAPE_JSON, ESCAPE_NONE };

struct log_segment {
    struct str text;       /* literal, if var is NULL */
    const struct var *var;
};

struct log_format {
    struct str name;
    enum log_escape escape;
    struct log_segment *segments;
    unsigned count, capacity;
};

/* Adds the segments of one string of a log_format. NULL or a sentence. */
const char *log_format_compile(struct conf *cf, struct log_format *format, struct str text);
/*
 * The line for a request, with its line feed when asked for: in memory of the process that lasts until the
 * next call.
 */
struct str log_format_line(struct req *r, const struct log_format *format, bool line_feed);
/* Writes s escaped; at most 6 bytes a byte. Returns the end. */
char *log_escape(char *p, struct str s, enum log_escape how);
void log_format_free(void);

/* Files (log_file.c) ------------------------------------------------------------------------------ */

/* A file that lines are collected for. One for each res_file, in each worker. */
struct log_buffer {
    struct res_file *file;
    size_t size;
    uint64_t flush_ms; /* 0: when full only */
    int gzip;          /* level, 0: no */
    char *data;        /* made with the first line */
    size_t used;
    struct timer timer;
};

/* open_log_file_cache. */
struct log_files_conf {
    bool on;
    unsigned max;
    uint64_t inactive_s, valid_s, min_uses;
};

/* Names the buffer of a file; buf NULL: not buffered. False: it has other parameters already. */
struct log_buffer *log_buffer_of(struct conf *cf, struct res_file *file, size_t size,
                                 uint64_t flush_ms, int gzip, bool *conflict);
/* Writes a line to the file, at once. Failures are logged, at most once a minute. */
void log_file_write(struct req *r, struct res_file *file, struct str line);
void log_buffer_write(struct req *r, struct log_buffer *b, struct str line);
/* To the file of that name, opened for it or taken from the cache. */
void log_path_write(struct req *r, struct str path, const struct log_files_conf *cache,
                    struct str line);
/* A worker leaves: everything is written, everything is closed. */
void log_files_stop(const struct config *config);

#endif
