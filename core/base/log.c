/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The error log: one line built on the stack, written to every target that admits it. Called from
 * everywhere; never allocates and leaves errno as it was. Files are opened elsewhere; the special
 * writers (syslog, memory) are in core/os/log_writers.c.
 */
#include "core/base/log.h"

#include <errno.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"

static const char level_names[][8] = {
    "stderr", "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
};

/* Where everything goes until the configuration has said otherwise. */
static struct log_file first_file = { .path = STR_INIT(""),
                                      .fd = STDERR_FILENO,
                                      .is_stderr = true };
static struct log_target first_target = { LOG_NOTICE_LEVEL, &first_file, NULL };
static const struct log_scope first_scope = { LOG_NOTICE_LEVEL, &first_target };
static struct logger first_logger = { .scope = &first_scope };

struct logger *log_main = &first_logger;

static bool copy_to_stderr;
static enum log_level copy_level;

const char *log_level_name(enum log_level level)
{
    ASSERT((unsigned) level < ARRAY_LEN(level_names));
    return level_names[level];
}

int log_level_parse(struct str name)
{
    for (unsigned i = LOG_EMERG_LEVEL; i < ARRAY_LEN(level_names); i++) {
        if (str_eq(name, str_cstr(level_names[i])))
            return (int) i;
    }
    return -1;
}

void log_set_stderr(bool on, enum log_level level)
{
    copy_to_stderr = on;
    copy_level = level;
}

/* A line in the making; what does not fit is cut, one byte is kept for the line feed. */
struct line {
    char *at;
    char *end;
    char *message; /* where the text behind time, level, process and connection begins */
    char buf[LOG_LINE];
};

static void add(struct line *l, struct str s)
{
    s.len = MIN(s.len, (size_t) (l->end - l->at));
    l->at = fmt_str(l->at, s);
}

static void add_number(struct line *l, uint64_t n)
{
    char digits[FMT_U64_MAX];

    add(l, str_from(digits, (size_t) (fmt_u64(digits, n) - digits)));
}

static void add_prefix(struct line *l, enum log_level level, uint64_t conn)
{
    l->at = l->buf;
    l->end = l->buf + sizeof(l->buf) - 1;
    add(l, clock_error_log());
    add(l, STR(" ["));
    add(l, str_cstr(level_names[level]));
    add(l, STR("] "));
    add_number(l, (uint64_t) getpid());
    add(l, STR("#"));
    add_number(l, (uint64_t) gettid());
    add(l, STR(": "));
    if (conn) {
        add(l, STR("*"));
        add_number(l, conn);
        add(l, STR(" "));
    }
    l->message = l->at;
}

static void PRINTF_LIKE(2, 0) add_message(struct line *l, const char *fmt, va_list ap)
{
    size_t room = (size_t) (l->end - l->at);
    /* vsnprintf may put its NUL into the byte that is kept for the line feed. */
    int n = vsnprintf(l->at, room + 1, fmt, ap);

    if (n > 0)
        l->at += MIN((size_t) n, room);
}

static void add_errno(struct line *l, int err)
{
    add(l, STR(" ("));
    add_number(l, (uint64_t) (err < 0 ? -(int64_t) err : err));
    add(l, STR(": "));
    add(l, str_cstr(strerror(err)));
    add(l, STR(")"));
}

static void add_context(struct line *l, const struct logger *log)
{
    if (log->action) {
        add(l, STR(" while "));
        add(l, str_cstr(log->action));
    }
    if (log->describe) {
        size_t room = (size_t) (l->end - l->at);
        size_t n = log->describe(log, l->at, room);

        ASSERT(n <= room);
        l->at += n;
    }
}

/* What came from outside cannot end the line and begin another: control characters are not written. */
static void disarm(struct line *l)
{
    for (char *p = l->message; p < l->at; p++) {
        if (unlikely(((unsigned char) *p < ' ' && *p != '\t') || *p == 127))
            *p = '?';
    }
}

static void write_failed(struct log_file *file, int err)
{
    char buf[512];
    int n;

    if (file->failed)
        return;
    file->failed = true;
    n = snprintf(buf, sizeof(buf), "proxyd: [alert] write() to \"%.*s\" failed (%d: %s)\n",
                 (int) MIN(file->path.len, 300), file->path.ptr, err, strerror(err));
    if (!file->is_stderr && write(STDERR_FILENO, buf, MIN((size_t) n, sizeof(buf) - 1)) < 0) {
        /* there is nowhere left to say it */
    }
}

static void file_write_line(struct log_file *file, const char *line, size_t len)
{
    int fd = file->is_stderr ? STDERR_FILENO : file->fd;
    ssize_t n;

    if (fd < 0)
        return;
    do
        n = write(fd, line, len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        write_failed(file, errno);
    else if ((size_t) n < len)
        write_failed(file, ENOSPC);
}

/* "proxyd: [emerg] message\n": what somebody at a terminal reads. */
static void write_copy(const struct line *l, enum log_level level)
{
    char buf[LOG_LINE];
    struct str message = str_from(l->message, (size_t) (l->at - l->message));
    char *p = fmt_str(buf, STR("proxyd: ["));

    p = fmt_str(p, str_cstr(level_names[level]));
    p = fmt_str(p, STR("] "));
    message.len = MIN(message.len, (size_t) (buf + sizeof(buf) - p));
    p = fmt_str(p, message);
    if (write(STDERR_FILENO, buf, (size_t) (p - buf)) < 0) {
        /* nobody listens */
    }
}

void log_vwrite(const struct logger *log, enum log_level level, int err, const char *fmt,
                va_list ap)
{
    int saved = errno;
    bool copy = copy_to_stderr && level <= copy_level;
    struct line l;

    ASSERT((unsigned) level < ARRAY_LEN(level_names));
    if (level > log->scope->max && !copy)
        return;
    add_prefix(&l, level, log->conn);
    add_message(&l, fmt, ap);
    if (err)
        add_errno(&l, err);
    add_context(&l, log);
    disarm(&l);
    *l.at++ = '\n';
    for (const struct log_target *t = log->scope->targets; t; t = t->next) {
        struct log_file *file = t->file;

        if (level > t->level)
            continue;
        if (copy && file->is_stderr) {
            /* One line on stderr is enough: the copy before there is a log, else the full one. */
            if (file == &first_file)
                continue;
            copy = false;
        }
        if (file->write)
            file->write(file, level, l.buf, (size_t) (l.at - l.buf));
        else
            file_write_line(file, l.buf, (size_t) (l.at - l.buf));
    }
    if (copy)
        write_copy(&l, level);
    errno = saved;
}

void log_write(const struct logger *log, enum log_level level, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_vwrite(log, level, err, fmt, ap);
    va_end(ap);
}
