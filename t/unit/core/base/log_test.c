/* SPDX-License-Identifier: BSD-2-Clause */
/* The error log's lines: format, levels, context, cutting, stderr, a disk that is full. */
#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "t/unit/tap.h"

static char text[3 * LOG_LINE];
static int saved_stderr;

static int temp_file(void)
{
    char name[] = "/tmp/proxyd-log-XXXXXX";
    int fd = mkstemp(name);

    unlink(name);
    return fd;
}

/* What has been written to fd since the last call, as a C string in `text`. */
static const char *written(int fd)
{
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET))
        text[0] = '\0';
    return text;
}

static void stderr_to(int fd)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
}

static void stderr_back(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
}

/* "time [level] pid#tid: " in front of rest. */
static const char *line(const char *level, const char *rest)
{
    static char buf[LOG_LINE];
    struct str now = clock_error_log();

    snprintf(buf, sizeof(buf), "%.*s [%s] %d#%d: %s\n", STR_ARG(now), level, (int) getpid(),
             (int) gettid(), rest);
    return buf;
}

static size_t describe(const struct logger *log, char *buf, size_t size)
{
    struct str s = str_cstr(log->data);
    size_t n = MIN(size, s.len);

    memcpy(buf, s.ptr, n);
    return n;
}

static void test_format(void)
{
    struct log_file file = { .path = STR_INIT("/x"), .fd = temp_file() };
    struct log_target target = { LOG_WARN_LEVEL, &file, NULL };
    struct log_scope scope = { LOG_WARN_LEVEL, &target };
    struct logger log = { .scope = &scope };
    char suffix[] = ", client: 127.0.0.1, server: localhost";

    log_error(&log, 0, "plain %d", 1);
    is_str(written(file.fd), line("error", "plain 1"), "a plain line");
    errno = EPERM;
    log_crit(&log, ENOENT, "open() \"%s\" failed", "/a");
    is_int(errno, EPERM, "errno is left as it was");
    is_str(written(file.fd), line("crit", "open() \"/a\" failed (2: No such file or directory)"),
           "a line with an error");
    log.conn = 45;
    log.action = "reading client request line";
    log.describe = describe;
    log.data = suffix;
    log_alert(&log, ECONNRESET, "recv() failed");
    is_str(written(file.fd),
           line("alert", "*45 recv() failed (104: Connection reset by peer) while reading client "
                         "request line, client: 127.0.0.1, server: localhost"),
           "a line with all there can be");
    log.action = NULL;
    log_warn(&log, 0, "x");
    is_str(written(file.fd), line("warn", "*45 x, client: 127.0.0.1, server: localhost"),
           "no action");
    log_notice(&log, 0, "x");
    log_write(&log, LOG_NOTICE_LEVEL, 0, "x");
    is_str(written(file.fd), "", "a level that the target does not admit");
    close(file.fd);
}

static void test_levels(void)
{
    struct log_file a = { .fd = temp_file() }, b = { .fd = temp_file() }, none = { .fd = -1 };
    struct log_target third = { LOG_DEBUG_LEVEL, &none, NULL };
    struct log_target second = { LOG_DEBUG_LEVEL, &b, &third };
    struct log_target first = { LOG_ERROR_LEVEL, &a, &second };
    struct log_scope scope = { LOG_DEBUG_LEVEL, &first };
    struct logger log = { .scope = &scope };

    log_debug(&log, "d");
    is_str(written(a.fd), "", "each target has its level");
    is_str(written(b.fd), line("debug", "d"), "and gets what it admits");
    log_emerg(&log, 0, "e");
    is_str(written(a.fd), line("emerg", "e"), "a line goes to all");
    is_str(written(b.fd), line("emerg", "e"), "that admit it");
    is_int(log_level_parse(STR("emerg")), LOG_EMERG_LEVEL, "a level by name");
    is_int(log_level_parse(STR("debug")), LOG_DEBUG_LEVEL, "another");
    is_int(log_level_parse(STR("stderr")), -1, "stderr is none");
    is_int(log_level_parse(STR("")), -1, "nor is nothing");
    is_int(log_level_parse(STR("Error")), -1, "names are lower case");
    is_str(log_level_name(LOG_CRIT_LEVEL), "crit", "the name of a level");
    close(a.fd);
    close(b.fd);
}

static size_t describe_all(const struct logger *log, char *buf, size_t size)
{
    (void) log;
    memset(buf, 's', size);
    return size;
}

static void test_cut(void)
{
    struct log_file file = { .fd = temp_file() };
    struct log_target target = { LOG_ERROR_LEVEL, &file, NULL };
    struct log_scope scope = { LOG_ERROR_LEVEL, &target };
    struct logger log = { .scope = &scope, .describe = describe_all };
    static char big[2 * LOG_LINE];
    size_t prefix;

    log_error(&log, 0, "%s", "m");
    is_uint(strlen(written(file.fd)), LOG_LINE, "a suffix fills a line to its end");
    ok(text[LOG_LINE - 1] == '\n' && text[LOG_LINE - 2] == 's', "and leaves the line feed");
    prefix = strlen(line("error", "")) - 1;
    memset(big, 'm', sizeof(big) - 1);
    log_error(&log, ENOENT, "%s", big);
    is_uint(strlen(written(file.fd)), LOG_LINE, "a long message is cut");
    ok(text[LOG_LINE - 1] == '\n' && text[LOG_LINE - 2] == 'm', "with a line feed");
    log.describe = NULL;
    for (size_t i = 0; i < 3; i++) {
        log_error(&log, 0, "%.*s", (int) (LOG_LINE - 2 - prefix + i), big);
        is_uint(strlen(written(file.fd)), MIN(LOG_LINE - 1 + i, LOG_LINE), "around the limit, %zu",
                i);
        ok(strchr(text, '\n') == text + strlen(text) - 1, "with one line feed, at the end");
    }
    close(file.fd);
}

static void test_stderr(void)
{
    int err = temp_file();
    struct log_file file = { .fd = temp_file() }, on_stderr = { .fd = -1, .is_stderr = true };
    struct log_target target = { LOG_ERROR_LEVEL, &file, NULL };
    struct log_target to_stderr = { LOG_ERROR_LEVEL, &on_stderr, NULL };
    struct log_scope scope = { LOG_ERROR_LEVEL, &target };
    struct logger log = { .scope = &scope };

    stderr_to(err);
    log_notice(log_main, 0, "first");
    is_str(written(err), line("notice", "first"), "the first logger writes to stderr");
    log_info(log_main, 0, "x");
    is_str(written(err), "", "from notice on");
    log_set_stderr(true, LOG_WARN_LEVEL);
    log_emerg(log_main, ENOENT, "open() failed");
    is_str(written(err), "proxyd: [emerg] open() failed (2: No such file or directory)\n",
           "with copies on, it writes the copy alone");
    log_error(&log, 0, "e");
    is_str(written(err), "proxyd: [error] e\n", "a copy");
    is_str(written(file.fd), line("error", "e"), "of a line in a file");
    log_warn(&log, 0, "w");
    is_str(written(err), "", "what no target admits is not looked at");
    log_write(&log, LOG_WARN_LEVEL, 0, "w");
    is_str(written(err), "proxyd: [warn] w\n", "unless log_write is called");
    is_str(written(file.fd), "", "and the file's level holds");
    scope.targets = &to_stderr;
    log_error(&log, 0, "e");
    is_str(written(err), line("error", "e"), "a target that is stderr takes the copy's place");
    log_set_stderr(false, LOG_WARN_LEVEL);
    scope.targets = &target;
    log_error(&log, 0, "e");
    is_str(written(err), "", "off again");
    stderr_back();
    close(err);
    close(file.fd);
}

static unsigned calls;
static size_t last_len;

static void count_writer(struct log_file *file, enum log_level level, const char *s, size_t len)
{
    calls += file->data == &calls && level == LOG_ERROR_LEVEL && s[len - 1] == '\n';
    last_len = len;
}

static void test_failure(void)
{
    int err = temp_file();
    struct log_file full = { .path = STR_INIT("/dev/full"), .fd = open("/dev/full", O_WRONLY) };
    struct log_file special = { .fd = -1, .write = count_writer, .data = &calls };
    struct log_target second = { LOG_ERROR_LEVEL, &special, NULL };
    struct log_target first = { LOG_ERROR_LEVEL, &full, &second };
    struct log_scope scope = { LOG_ERROR_LEVEL, &first };
    struct logger log = { .scope = &scope };

    stderr_to(err);
    log_error(&log, 0, "a");
    log_error(&log, 0, "b");
    stderr_back();
    is_str(written(err),
           "proxyd: [alert] write() to \"/dev/full\" failed (28: No space left on device)\n",
           "a full disk is reported once");
    is_uint(calls, 2, "other targets get their lines");
    is_uint(last_len, strlen(line("error", "b")), "whole");
    close(full.fd);
    close(err);
}

int main(void)
{
    test_format();
    test_levels();
    test_cut();
    test_stderr();
    test_failure();
    return done_testing();
}
