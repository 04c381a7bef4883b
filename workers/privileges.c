/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Turns a fork of the master into a worker's process: resource limits, priority and processors
 * while that is still allowed, then the environment, then the user and no way back, then the directory.
 * The privileged master calls nothing of this for itself but environment_make.
 */
#include "workers/privileges.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "core/os/process.h"
#include "workers/settings.h"

/* Strings of it live on in the new one. */
static char **starters_environment;

static void set_limit(int what, const char *name, const struct core_limit *limit)
{
    struct rlimit rlimit = { (rlim_t) limit->n, (rlim_t) limit->n };

    if (limit->set && setrlimit((__rlimit_resource_t) what, &rlimit))
        log_alert(log_main, errno, "setrlimit(%s, %lld) failed", name, (long long) limit->n);
}

static void set_scheduling(const struct core_conf *core, unsigned index)
{
    struct cpu_mask mask;

    if (core->has_priority && geteuid() == 0 && setpriority(PRIO_PROCESS, 0, core->priority))
        log_alert(log_main, errno, "setpriority(%d) failed", core->priority);
    if (core_worker_cpus(core, index, &mask) &&
        process_set_affinity(mask.words, CPU_MASK_WORDS))
        log_alert(log_main, errno, "sched_setaffinity() failed");
}

/* The variable in our own environment as "NAME=VALUE", or NULL. */
static char *environment_find(struct str name)
{
    for (char **e = environ; e && *e; e++) {
        if (strncmp(*e, name.ptr, name.len) == 0 && (*e)[name.len] == '=')
            return *e;
    }
    return NULL;
}

static bool environment_names(const struct str_list *list, struct str name)
{
    for (unsigned i = 0; i < list->count; i++) {
        struct str item = list->items[i];

        if (str_starts(item, name) && (item.len == name.len || item.ptr[name.len] == '='))
            return true;
    }
    return false;
}

char **environment_make(const struct config *config, const char *const *extra)
{
    const struct str_list *list = &core_settings(config)->env;
    unsigned n = 0, more = 0;
    char **env, *tz;

    while (extra && extra[more])
        more++;
    env = mem_alloc((list->count + more + 2) * sizeof(*env));
    tz = environment_names(list, STR("TZ")) ? NULL : environment_find(STR("TZ"));
    if (tz)
        env[n++] = tz;
    for (unsigned i = 0; i < list->count; i++) {
        struct str item = list->items[i];
        char *found = str_chr(item, '=') >= 0 ? (char *) (uintptr_t) item.ptr
                                              : environment_find(item);

        if (found)
            env[n++] = found;
    }
    for (unsigned i = 0; extra && i < more; i++)
        env[n++] = (char *) (uintptr_t) extra[i];
    env[n] = NULL;
    return env;
}

/* What *_bind transparent needs. Said once: requests say it each where it matters. */
static void look_for_capabilities(uint64_t wanted, unsigned index)
{
    if (index == 0 && (wanted & ~process_capabilities()) != 0)
        log_error(
            log_main, 0,
            "\"transparent\" needs the capability CAP_NET_RAW, which workers do not have: "
            "start as root, or have it granted (AmbientCapabilities=CAP_NET_RAW in systemd's unit)");
}

int privileges_apply(const struct config *config, unsigned index)
{
    const struct core_conf *core = core_settings(config);

    set_limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", &core->rlimit_nofile);
    set_limit(RLIMIT_CORE, "RLIMIT_CORE", &core->rlimit_core);
    set_scheduling(core, index);
    starters_environment = environ;
    environ = environment_make(config, NULL);
    if (geteuid() == 0 && core->user) {
        if (process_drop(log_main, core->user, core->uid, core->gid,
                         config->resources->capabilities))
            return -1;
    } else if (process_drop(log_main, NULL, geteuid(), getegid(), 0)) {
        return -1;
    }
    look_for_capabilities(config->resources->capabilities, index);
    if (core->working_directory.len && chdir(core->working_directory.ptr)) {
        log_alert(log_main, errno, "chdir(\"%s\") failed", core->working_directory.ptr);
        return -1;
    }
    return 0;
}
