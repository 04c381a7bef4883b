/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The processes that modules have beside the workers. What they are for is the modules' business; here is only who is to be asked
 * and when.
 */
#include "workers/helpers.h"

#include <unistd.h>

#include "core/module.h"
#include "workers/settings.h"

#define EACH(p)                                             \
    for (unsigned p##_i = 0; p##_i < module_count; p##_i++) \
        if (((p) = modules[p##_i]->processes) != NULL)

int helpers_open(const struct config *config)
{
    const struct core_conf *core = core_settings(config);
    uid_t workers = geteuid() == 0 && core->user ? core->uid : geteuid();
    const struct module_processes *p;

    EACH(p)
    {
        if (p->open(config, workers, !core->master_process)) {
            helpers_close(config);
            return -1;
        }
    }
    return 0;
}

void helpers_close(const struct config *config)
{
    const struct module_processes *p;

    EACH(p)
    p->close(config);
}

int helpers_worker_begin(const struct config *config, unsigned slot)
{
    const struct module_processes *p;

    EACH(p)
    {
        if (p->worker_begin(config, slot)) {
            helpers_worker_ended(config, slot);
            return -1;
        }
    }
    return 0;
}

void helpers_worker_forked(const struct config *config, unsigned slot, bool child)
{
    const struct module_processes *p;

    EACH(p)
    p->worker_forked(config, slot, child);
}

void helpers_worker_ended(const struct config *config, unsigned slot)
{
    const struct module_processes *p;

    EACH(p)
    p->worker_ended(config, slot);
}

void helpers_logs_reopened(const struct config *config)
{
    const struct module_processes *p;

    EACH(p)
    p->logs_reopened(config);
}

bool helpers_reaped(pid_t pid, int status)
{
    const struct module_processes *p;

    EACH(p)
    {
        if (p->reaped(pid, status))
            return true;
    }
    return false;
}

uint64_t helpers_tick(void)
{
    const struct module_processes *p;
    uint64_t next = UINT64_MAX;

    EACH(p)
    next = MIN(next, p->tick());
    return next;
}

void helpers_stop(void)
{
    const struct module_processes *p;

    EACH(p)
    p->stop();
}
