/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Puts a configuration into force, in the order in which a failure costs least: logs and
 * directories, zones, the modules' processes, and sockets last, since opening a socket is the one step that the world can see.
 */
#include "workers/cycle.h"

#include <errno.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "core/module.h"
#include "core/os/file.h"
#include "workers/helpers.h"
#include "workers/internal.h"
#include "workers/listen.h"
#include "workers/settings.h"

#define EACH_PATH(config, p) \
    for (struct list *p##_l = (config)->resources->paths.next; \
         p##_l != &(config)->resources->paths && \
         (p = container_of(p##_l, struct res_path, link), true); p##_l = p##_l->next)

/* A directory that the workers write into: there, and theirs. */
static int path_open(const struct core_conf *core, const char *path)
{
    struct stat st;

    if (file_mkdirs(path, 0700)) {
        log_emerg(log_main, errno, "mkdir() \"%s\" failed", path);
        return -1;
    }
    if (geteuid() != 0 || !core->user)
        return 0;
    if (stat(path, &st)) {
        log_emerg(log_main, errno, "stat() \"%s\" failed", path);
        return -1;
    }
    if (st.st_uid != core->uid && chown(path, core->uid, (gid_t) -1)) {
        log_emerg(log_main, errno, "chown(\"%s\", %u) failed", path, core->uid);
        return -1;
    }
    if ((st.st_mode & S_IRWXU) != S_IRWXU && chmod(path, st.st_mode | S_IRWXU)) {
        log_emerg(log_main, errno, "chmod() \"%s\" failed", path);
        return -1;
    }
    return 0;
}

static int paths_open(struct config *config)
{
    struct res_path *p;

    EACH_PATH(config, p) {
        if (path_open(core_settings(config), p->path.path.ptr))
            return -1;
    }
    return 0;
}

static int check_connections(const struct config *config, const struct events_conf *events)
{
    int64_t n = 0;

    for (struct list *l = config->resources->listens.next; l != &config->resources->listens;
         l = l->next)
        n++;
    if (events->connections > n)
        return 0;
    log_emerg(log_main, 0, "%lld worker_connections are not enough for %lld listening sockets",
              (long long) events->connections, (long long) n);
    return -1;
}

int cycle_open(struct config *config, const struct config *old)
{
    const struct events_conf *events = events_settings(config);
    const struct core_conf *core = core_settings(config);

    if (!events) {
        log_emerg(log_main, 0, "no \"events\" section in configuration");
        return -1;
    }
    if (check_connections(config, events))
        return -1;
    if (config->offline)
        return zones_try(config);
    if (paths_open(config) || logs_open(config))
        goto failed;
    /* -t makes hardly any zone: their memory would only be thrown away. */
    if (config->testing ? zones_try(config) : zones_open(config, old))
        goto failed;
    if (helpers_open(config))
        goto unzone;
    if (listen_open(config, core->master_process ? core->workers : 1, config->testing) == 0)
        return 0;
    helpers_close(config);
unzone:
    if (!config->testing)
        zones_close(config, old);
failed:
    logs_close(config);
    return -1;
}

void cycle_commit(struct config *config)
{
    log_main->scope = &config->log;
    listen_commit();
    zones_forget();
}

void cycle_free(struct config *config)
{
    helpers_close(config);
    zones_close(config, NULL);
    logs_close(config);
    config_free(config);
}

uint64_t cycle_tick(const struct config *config)
{
    uint64_t next = UINT64_MAX;

    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->master_tick != NULL)
            next = MIN(next, modules[i]->master_tick(config));
    }
    return next;
}
