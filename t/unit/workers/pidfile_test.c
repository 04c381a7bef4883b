/* SPDX-License-Identifier: BSD-2-Clause */
/* The pid file: written, checked without a trace, moved aside and back, and what is no id. */
#include "workers/pidfile.h"

#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/os/file.h"
#include "t/unit/tap.h"

static char said[LOG_LINE];

static void keep(struct log_file *file TAP_UNUSED, enum log_level level TAP_UNUSED,
                 const char *line, size_t len)
{
    snprintf(said, sizeof(said), "%.*s", (int) len, line);
}

static void put(const char *path, const char *text)
{
    file_replace(path, str_cstr(text), 0644);
}

int main(void)
{
    struct log_file sink = { .fd = -1, .write = keep };
    struct log_target target = { LOG_DEBUG_LEVEL, &sink, NULL };
    struct log_scope scope = { LOG_DEBUG_LEVEL, &target };
    char dir[] = "/tmp/proxyd-pidfile-XXXXXX", path[64], old[80], none[64];

    clock_update();
    log_main->scope = &scope;
    ok(mkdtemp(dir) != NULL, "a directory");
    snprintf(path, sizeof(path), "%s/p", dir);
    snprintf(old, sizeof(old), "%s.oldbin", path);
    snprintf(none, sizeof(none), "%s/none/p", dir);

    is_int(pidfile_read(path), -1, "no file");
    ok(strstr(said, "[error]") && strstr(said, "open() \"") && strstr(said, "(2: No such file"),
       "in nginx's words");
    is_int(pidfile_check(path), 0, "it could be written");
    ok(access(path, F_OK) != 0, "and was not");
    is_int(pidfile_check(none), -1, "not where there is no directory");
    ok(strstr(said, "[emerg]") && strstr(said, "/none/p\" failed (2: No such file"), "said");
    is_int(pidfile_write(path), 0, "written");
    is_int(pidfile_read(path), getpid(), "it is our id");
    is_int(pidfile_check(path), 0, "a check of one that is there");
    is_int(pidfile_read(path), getpid(), "leaves it alone");
    is_int(pidfile_to_old(path), 0, "moved aside");
    ok(access(path, F_OK) != 0 && access(old, F_OK) == 0, "as .oldbin");
    is_int(pidfile_from_old(path), 0, "and back");
    is_int(pidfile_read(path), getpid(), "unharmed");
    put(path, "");
    is_int(pidfile_read(path), -1, "an empty file");
    ok(strstr(said, "invalid PID number \"\" in \"") != NULL, "in nginx's words");
    put(path, "12x\n");
    is_int(pidfile_read(path), -1, "a file with something else");
    ok(strstr(said, "invalid PID number \"12x\" in \"") != NULL, "names it");
    put(path, "0\n");
    is_int(pidfile_read(path), -1, "kill(0) would be the whole group");
    pidfile_remove(path);
    pidfile_remove_old(path);
    ok(access(path, F_OK) != 0, "removed");
    rmdir(dir);
    return done_testing();
}
