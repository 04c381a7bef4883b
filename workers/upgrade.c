/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Handing over to a new binary (USR2): the same command line, started by the old master as its child,
 * with the listening sockets and the zones' memory in inherited descriptors that variables of the
 * environment name. The same at the other end, and systemd's LISTEN_FDS, which is alike.
 *
 * Slots in zones must be unlike among all living workers, and for a while both binaries have some. So
 * each binary uses one half, the new one the other: there are never more than two, since a
 * binary that was itself started by a living master refuses to start another.
 *
 * The variables stay in our own environment: what we start gets an environment made anew.
 */
#include "workers/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/os/socket.h"
#include "workers/internal.h"
#include "workers/listen.h"
#include "workers/privileges.h"
#include "workers/signals.h"

#define SYSTEMD_FIRST_FD 3

static char **command;      /* argv, copied */
static char *program;       /* what to execute */
static char *command_line;
static unsigned half;

static char *copy(const char *s)
{
    size_t size = strlen(s) + 1;

    return memcpy(mem_alloc(size), s, size);
}

/* argv[0] where it is a path, made absolute: a link is then followed anew by each upgrade. */
static char *find_program(const char *name)
{
    char path[PATH_MAX], cwd[PATH_MAX];
    ssize_t n;

    if (name[0] == '/')
        return copy(name);
    if (strchr(name, '/') && getcwd(cwd, sizeof(cwd))) {
        size_t size = strlen(cwd) + strlen(name) + 2;
        char *p = mem_alloc(size);

        snprintf(p, size, "%s/%s", cwd, name);
        return p;
    }
    /* Found through PATH. */
    n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n <= 0)
        return copy(name);
    path[n] = '\0';
    return copy(path);
}

void upgrade_remember(int argc, char **argv)
{
    size_t size = 1;
    char *p;

    command = mem_zalloc(((size_t) argc + 1) * sizeof(*command));
    for (int i = 0; i < argc; i++) {
        command[i] = copy(argv[i]);
        size += strlen(argv[i]) + 1;
    }
    command_line = p = mem_zalloc(size);
    for (int i = 0; i < argc; i++)
        p += sprintf(p, i ? " %s" : "%s", argv[i]);
    program = find_program(argc > 0 ? argv[0] : "proxyd");
}

const char *upgrade_command_line(void)
{
    return command_line;
}

unsigned upgrade_half(void)
{
    return half;
}

/* Taking over ----------------------------------------------------------------------------- */

static void inherit_sockets(const char *text)
{
    struct str rest = str_cstr(text);

    log_notice(log_main, 0, "using inherited sockets from \"%s\"", text);
    while (rest.len) {
        ssize_t end = str_chr(rest, ';');
        struct str item = str_from(rest.ptr, end < 0 ? rest.len : (size_t) end);
        uint64_t fd;

        if (str_to_u64(item, &fd) || fd > INT_MAX) {
            log_emerg(log_main, 0, "invalid socket number \"%.*s\" in " UPGRADE_SOCKETS
                      " environment variable, ignoring the rest of the variable", STR_ARG(item));
            return;
        }
        listen_inherit((int) fd);
        rest = str_skip(rest, end < 0 ? rest.len : (size_t) end + 1);
    }
}

/* sd_listen_fds(3): the variables are meant for this very process. */
static void inherit_systemd(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    uint64_t id, n;

    if (pid && count && str_to_u64(str_cstr(pid), &id) == 0 && id == (uint64_t) getpid() &&
        str_to_u64(str_cstr(count), &n) == 0 && n < 4096) {
        log_notice(log_main, 0, "using %s sockets from the service manager", count);
        for (unsigned i = 0; i < n; i++)
            listen_inherit(SYSTEMD_FIRST_FD + (int) i);
    }
}

bool upgrade_inherit(void)
{
    const char *sockets = getenv(UPGRADE_SOCKETS);
    const char *zones = getenv(UPGRADE_ZONES);
    const char *which = getenv(UPGRADE_HALF);
    bool inherited = sockets != NULL;

    if (!inherited) {
        inherit_systemd();
        return false;
    }
    inherit_sockets(sockets);
    if (zones)
        zones_inherit(zones);
    half = which && strcmp(which, "1") == 0;
    return true;
}

/* Handing over ---------------------------------------------------------------------------- */

static void NORETURN execute(const struct config *config, char **env)
{
    listen_cloexec(false);
    zones_cloexec(config, false);
    signals_restore();
    execve(program, command, env);
    log_alert(log_main, errno, "execve() failed while executing new binary process \"%s\"",
              program);
    _exit(1);
}

pid_t upgrade_start(const struct config *config)
{
    struct arena *arena = arena_new();
    struct str sockets = listen_export(arena);
    struct str zones = zones_export(arena, config);
    const char *notify = getenv("NOTIFY_SOCKET");
    const char **extra = ARENA_ARRAY(arena, const char *, 5 + config->env.count);
    unsigned n = 0;
    char **env;
    pid_t pid;

    /* What the configuration's files refer to: the new program will read them. */
    for (unsigned i = 0; i < config->env.count; i++) {
        const char *name = config->env.items[i].ptr, *value = getenv(name);

        if (value)
            extra[n++] = str_printf(arena, "%s=%s", name, value).ptr;
    }
    extra[n++] = str_printf(arena, UPGRADE_SOCKETS "=%.*s", STR_ARG(sockets)).ptr;
    extra[n++] = str_printf(arena, UPGRADE_ZONES "=%.*s", STR_ARG(zones)).ptr;
    extra[n++] = str_printf(arena, UPGRADE_HALF "=%u", !half).ptr;
    if (notify)
        extra[n++] = str_printf(arena, "NOTIFY_SOCKET=%s", notify).ptr;
    extra[n] = NULL;
    env = environment_make(config, extra);
    pid = fork();
    if (pid < 0)
        log_alert(log_main, errno, "fork() failed while starting a new binary");
    if (pid == 0)
        execute(config, env);
    if (pid > 0)
        log_notice(log_main, 0, "start new binary process %d", (int) pid);
    free(env);
    arena_destroy(arena);
    return pid;
}
