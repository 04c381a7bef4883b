/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The error log. A `log_target` set is what error_log lines of one scope amount to; a `logger`
 * is what code holds: a target set plus the context that ends a line. The format is nginx's:
 *
 *   1994/11/06 08:49:37 [error] PID#TID: *CONN message (ERRNO: text) while ACTION, client: …
 *
 * A line goes to every target whose level admits it, in one write, at most LOG_LINE bytes.
 * Callable from any code of the process; never allocates.
 */
#ifndef CORE_BASE_LOG_H
#define CORE_BASE_LOG_H

#include "core/base/str.h"

#define LOG_LINE 4096

/* Ordered as nginx has them; a target of level N admits lines of level <= N. */
enum log_level {
    LOG_STDERR_LEVEL,
    LOG_EMERG_LEVEL,
    LOG_ALERT_LEVEL,
    LOG_CRIT_LEVEL,
    LOG_ERROR_LEVEL,
    LOG_WARN_LEVEL,
    LOG_NOTICE_LEVEL,
    LOG_INFO_LEVEL,
    LOG_DEBUG_LEVEL,
};

/* "emerg" … "debug". */
const char *log_level_name(enum log_level level);
/* The level of that name (not "stderr"), or -1. */
int log_level_parse(struct str name);

/* Where lines go: a file (shared by all who name it), standard error, syslog or a ring in memory. */
struct log_file {
    struct str path;          /* absolute; empty for stderr and memory */
    int fd;                   /* -1 when not open */
    bool is_stderr;
    /* NULL: one write(2) to fd. The line ends with a line feed. */
    void (*write)(struct log_file *file, enum log_level level, const char *line, size_t len);
    void *data;               /* of a special writer: struct log_syslog, struct log_memory */
    bool failed;              /* a full disk is reported once, on stderr */
};

struct log_target {
    enum log_level level;
    struct log_file *file;
    struct log_target *next;
};

/* One scope's error_log lines. max is the highest level that any target admits. */
struct log_scope {
    enum log_level max;
    struct log_target *targets;
};

/*
 * What code logs to. describe, when set, appends the suffix ("client: …, server: …") to at
 * most size bytes at buf and returns how many it wrote; the chain conn → request → exchange is its business.
 */
struct logger {
    const struct log_scope *scope;
    uint64_t conn; /* number of the connection, 0: none */
    const char *action; /* "reading client request line": printed as " while ACTION"; NULL: none */
    size_t (*describe)(const struct logger *log, char *buf, size_t size);
    void *data;
};

static inline bool log_admits(const struct logger *log, enum log_level level)
{
    return level <= log->scope->max;
}

/* err: an errno value to be named, or 0. Returns nothing; a line that cannot be written is lost. */
void log_write(const struct logger *log, enum log_level level, int err, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void log_vwrite(const struct logger *log, enum log_level level, int err, const char *fmt, va_list ap);

#define LOG(log, level, err, ...) \
    do { \
        if (unlikely(log_admits((log), (level)))) \
            log_write((log), (level), (err), __VA_ARGS__); \
    } while (0)
#define log_emerg(log, err, ...) LOG(log, LOG_EMERG_LEVEL, err, __VA_ARGS__)
#define log_alert(log, err, ...) LOG(log, LOG_ALERT_LEVEL, err, __VA_ARGS__)
#define log_crit(log, err, ...) LOG(log, LOG_CRIT_LEVEL, err, __VA_ARGS__)
#define log_error(log, err, ...) LOG(log, LOG_ERROR_LEVEL, err, __VA_ARGS__)
#define log_warn(log, err, ...) LOG(log, LOG_WARN_LEVEL, err, __VA_ARGS__)
#define log_notice(log, err, ...) LOG(log, LOG_NOTICE_LEVEL, err, __VA_ARGS__)
#define log_info(log, err, ...) LOG(log, LOG_INFO_LEVEL, err, __VA_ARGS__)
#define log_debug(log, ...) LOG(log, LOG_DEBUG_LEVEL, 0, __VA_ARGS__)

/* The process's own logger: standard error until the configuration's error_log is open. */
extern struct logger *log_main;
/*
 * With `on`, a line of `level` or above is also written to stderr as "proxyd: [emerg] message"
 * (start-up, -t), and the first log_main then writes nothing but that. A target that is stderr
 * itself takes the copy's place: nothing is said twice.
 */
void log_set_stderr(bool on, enum log_level level);

#endif
