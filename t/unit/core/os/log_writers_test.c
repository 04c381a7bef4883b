/* SPDX-License-Identifier: BSD-2-Clause */
/* Syslog's parameters and datagrams, a server that goes and comes back, and the ring in memory. */
#include "core/os/log_writers.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/os/process.h"
#include "t/unit/tap.h"

static struct arena *arena;
static char dir[] = "/tmp/proxyd-syslog-XXXXXX";

static int server(const char *path)
{
    struct addr a;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    ASSERT(addr_parse(&a, str_cstr(path), 0, false) == 0);
    ASSERT(bind(fd, &a.sa, a.len) == 0);
    return fd;
}

/* The next datagram, as a C string; "" if there is none. */
static const char *received(int fd)
{
    static char buf[LOG_LINE + 512];
    ssize_t n = recv(fd, buf, sizeof(buf) - 1, 0);

    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

static void test_parse(void)
{
    static const struct {
        const char *params, *error;
    } bad[] = {
        { "", "unknown syslog parameter \"\"" },
        { "facility=user", "no syslog server specified" },
        { "server=127.0.0.1,facility=none", "unknown syslog facility \"none\"" },
        { "server=127.0.0.1,severity=loud", "unknown syslog severity \"loud\"" },
        { "server=127.0.0.1,colour=red", "unknown syslog parameter \"colour=red\"" },
        { "server=127.0.0.1,", "unknown syslog parameter \"\"" },
        { "server=127.0.0.1,server=127.0.0.1", "duplicate syslog \"server\"" },
        { "server=127.0.0.1,tag=a-b",
          "syslog \"tag\" only allows alphanumeric characters and underscore in \"a-b\"" },
        { "server=127.0.0.1,tag=", "syslog \"tag\" must have 1 to 32 characters, not \"\"" },
        { "server=127.0.0.1:99999", "invalid syslog server \"127.0.0.1:99999\"" },
        { "server=", "invalid syslog server \"\"" },
    };
    struct syslog_target t;
    const char *error;
    char text[ADDR_TEXT];

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        error = NULL;
        is_int(syslog_parse(arena, str_cstr(bad[i].params), &t, &error), -1, "\"%s\" is refused",
               bad[i].params);
        is_str(error, bad[i].error, "and why");
    }
    is_int(syslog_parse(arena, STR("server=127.0.0.1"), &t, &error), 0, "a server alone");
    addr_format(&t.addr, true, text, sizeof(text));
    is_str(text, "127.0.0.1:514", "has syslog's port");
    ok(t.facility == 23 && t.severity == LOG_INFO_LEVEL && str_eq(t.tag, STR("proxyd")) &&
           !t.nohostname && t.fd == -1,
       "and the defaults");
    is_int(syslog_parse(
               arena, STR("server=[::1]:12345,facility=authpriv,tag=a_1,severity=emerg,nohostname"),
               &t, &error),
           0, "all that can be said");
    addr_format(&t.addr, true, text, sizeof(text));
    is_str(text, "[::1]:12345", "a server with its port");
    ok(t.facility == 10 && t.severity == LOG_EMERG_LEVEL && str_eq(t.tag, STR("a_1")) &&
           t.nohostname,
       "and the rest");
    is_int(syslog_parse(arena, STR("server=localhost:1514"), &t, &error), 0, "a name");
    is_uint(addr_port(&t.addr), 1514, "and a port");
}

static void test_send(void)
{
    const char *path = str_printf(arena, "unix:%s/log", dir).ptr;
    struct str now = clock_syslog(), host = process_hostname();
    int fd = server(path), null, saved;
    struct syslog_target t;
    struct logger quiet = { .scope = &(struct log_scope){ LOG_STDERR_LEVEL, NULL } };
    struct logger *main_log = log_main;
    struct log_file file;
    struct log_target target = { LOG_DEBUG_LEVEL, &file, NULL };
    struct log_scope scope = { LOG_DEBUG_LEVEL, &target };
    struct logger log = { .scope = &scope };
    const char *error, *got;

    is_int(syslog_parse(arena, str_printf(arena, "server=%s,tag=web", path), &t, &error), 0,
           "a socket");
    syslog_send(&t, LOG_INFO_LEVEL, "hello", 5);
    is_str(received(fd), str_printf(arena, "<190>%.*s %s web: hello", STR_ARG(now), host.ptr).ptr,
           "local7, info, time, host, tag and text");
    t.nohostname = true;
    t.facility = 0;
    syslog_send(&t, LOG_EMERG_LEVEL, "x", 1);
    is_str(received(fd), str_printf(arena, "<0>%.*s web: x", STR_ARG(now)).ptr,
           "kern, emerg, without host");
    close(fd);
    unlink(path + 5);
    log_main = &quiet;
    syslog_send(&t, LOG_INFO_LEVEL, "lost", 4);
    ok(t.failed && t.fd == -1, "a server that has gone");
    fd = server(path);
    syslog_send(&t, LOG_INFO_LEVEL, "back", 4);
    is_str(received(fd), str_printf(arena, "<6>%.*s web: back", STR_ARG(now)).ptr,
           "is found when it is back");
    ok(!t.failed, "and all is well");
    close(fd);
    unlink(path + 5);
    fd = server(path);
    syslog_send(&t, LOG_INFO_LEVEL, "anew", 4);
    is_str(received(fd), str_printf(arena, "<6>%.*s web: anew", STR_ARG(now)).ptr,
           "a server that was started anew loses nothing");
    for (int i = 0; i < 10000; i++)
        syslog_send(&t, LOG_INFO_LEVEL, "flood", 5);
    ok(!t.failed && t.fd >= 0, "a server that does not read blocks nobody");
    syslog_close(&t);
    while (received(fd)[0])
        continue;

    is_int(log_file_open_special(arena, str_printf(arena, "syslog:server=%s,nohostname", path),
                                 &file, &error),
           0, "as an error log");
    log_error(&log, ENOENT, "open() failed");
    got = received(fd);
    ok(strncmp(got, "<187>", 5) == 0, "the message's level is its severity");
    got = strstr(got, " proxyd: ");
    ok(got && strstr(got, " [error] ") &&
           strcmp(got + strlen(got) - 44, "open() failed (2: No such file or directory)") == 0,
       "the line is whole, without its line feed");
    /* The log that complains of the server is that server: nothing comes back, nothing loops. */
    log_main = &log;
    close(fd);
    unlink(path + 5);
    null = open("/dev/null", O_WRONLY);
    saved = dup(2);
    dup2(null, 2);
    log_error(&log, 0, "lost");
    log_error(&log, 0, "lost");
    dup2(saved, 2);
    close(saved);
    close(null);
    ok(((struct syslog_target *) file.data)->failed, "a server that is the main log itself");
    log_main = main_log;
}

static const char *ring(const struct log_file *file)
{
    struct str run[2];

    log_memory_read(file->data, run);
    return str_printf(arena, "%.*s%.*s", STR_ARG(run[0]), STR_ARG(run[1])).ptr;
}

static void test_memory(void)
{
    static const char *const bad[] = { "memory:",
                                       "memory:0",
                                       "memory:x",
                                       "memory:-1",
                                       "memory:17179869184g",
                                       "memory:9223372036854775807" };
    struct log_file file;
    const char *error;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        error = NULL;
        ok(log_file_open_special(arena, str_cstr(bad[i]), &file, &error) == -1 && error,
           "\"%s\" is refused", bad[i]);
    }
    is_int(log_file_open_special(arena, STR("memory:10"), &file, &error), 0, "a ring");
    is_str(ring(&file), "", "is empty");
    file.write(&file, LOG_INFO_LEVEL, "abcd\n", 5);
    is_str(ring(&file), "abcd\n", "a line");
    file.write(&file, LOG_INFO_LEVEL, "efgh\n", 5);
    is_str(ring(&file), "abcd\nefgh\n", "just full");
    file.write(&file, LOG_INFO_LEVEL, "ij\n", 3);
    is_str(ring(&file), "d\nefgh\nij\n", "the oldest bytes go");
    file.write(&file, LOG_INFO_LEVEL, "0123456789abcdef\n", 17);
    is_str(ring(&file), "789abcdef\n", "of a line that is too long, the end stays");
    ok(!log_file_is_special(STR("logs/error.log")) && log_file_is_special(STR("memory:1k")) &&
           log_file_is_special(STR("syslog:server=a")),
       "what is special");
}

int main(void)
{
    arena = arena_new();
    if (mkdtemp(dir) == NULL)
        return 1;
    test_parse();
    test_send();
    test_memory();
    is_int(rmdir(dir), 0, "cleaned up");
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
