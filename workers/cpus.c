/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of processors, as worker_cpu_affinity names them, and which of them is whose. */
#include <unistd.h>

#include "workers/settings.h"

int cpu_mask_parse(struct str text, struct cpu_mask *out, char *bad)
{
    unsigned n = 0;

    *out = (struct cpu_mask){ { 0 } };
    for (size_t i = text.len; i-- > 0;) {
        char c = text.ptr[i];

        if (c == ' ')
            continue;
        *bad = c;
        if (c != '0' && c != '1')
            return -1;
        if (n == CPU_MASK_WORDS * 64)
            return -2;
        if (c == '1')
            out->words[n / 64] |= 1ull << (n % 64);
        n++;
    }
    return 0;
}

static bool has(const struct cpu_mask *set, unsigned cpu)
{
    return set->words[cpu / 64] >> (cpu % 64) & 1;
}

/* The single processors of a set, in turn; never one that is not there. */
static bool one_in_turn(const struct cpu_mask *set, unsigned index, struct cpu_mask *out)
{
    long configured = sysconf(_SC_NPROCESSORS_CONF);
    unsigned last = MIN((unsigned) MAX(configured, 1), CPU_MASK_WORDS * 64u);
    unsigned count = 0;

    for (unsigned i = 0; i < last; i++)
        count += has(set, i);
    if (count == 0)
        return false;
    index %= count;
    for (unsigned i = 0; i < last; i++) {
        if (!has(set, i) || index-- != 0)
            continue;
        *out = (struct cpu_mask){ { 0 } };
        out->words[i / 64] = 1ull << (i % 64);
        return true;
    }
    return false;
}

bool core_worker_cpus(const struct core_conf *core, unsigned index, struct cpu_mask *out)
{
    if (core->cpu_count == 0)
        return false;
    if (core->cpu_auto)
        return one_in_turn(&core->cpus[0], index, out);
    *out = core->cpus[MIN(index, core->cpu_count - 1)];
    return true;
}
