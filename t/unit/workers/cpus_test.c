/* SPDX-License-Identifier: BSD-2-Clause */
/* Sets of processors: reading them, and who gets which. */
#include "workers/settings.h"

#include "t/unit/tap.h"

static struct cpu_mask mask(const char *text)
{
    struct cpu_mask m;
    char bad;

    ok(cpu_mask_parse(str_cstr(text), &m, &bad) == 0, "\"%s\" is a set", text);
    return m;
}

int main(void)
{
    struct cpu_mask masks[2] = { mask("0101"), mask("10") }, out;
    struct core_conf core = { 0 };
    char wide[CPU_MASK_WORDS * 64 + 2];
    char bad = 0;

    is_uint(masks[0].words[0], 5, "processors 0 and 2");
    is_int(cpu_mask_parse(STR("0120"), &out, &bad), -1, "a digit that is none");
    is_int(bad, '2', "is named");
    memset(wide, '1', sizeof(wide));
    is_int(cpu_mask_parse(str_from(wide, sizeof(wide) - 2), &out, &bad), 0, "all 1,024");
    is_uint(out.words[CPU_MASK_WORDS - 1], UINT64_MAX, "up to the last");
    is_int(cpu_mask_parse(str_from(wide, sizeof(wide) - 1), &out, &bad), -2, "one more is too many");

    ok(!core_worker_cpus(&core, 0, &out), "nothing said, nothing bound");
    core.cpus = masks;
    core.cpu_count = 2;
    ok(core_worker_cpus(&core, 0, &out) && out.words[0] == 5, "the first worker has the first set");
    ok(core_worker_cpus(&core, 7, &out) && out.words[0] == 2, "those without one have the last");
    core.cpu_auto = true;
    core.cpu_count = 1;
    masks[0] = mask("1");
    ok(core_worker_cpus(&core, 0, &out) && out.words[0] == 1, "auto: the only processor allowed");
    ok(core_worker_cpus(&core, 3, &out) && out.words[0] == 1, "for everybody");
    masks[0] = mask("0");
    ok(!core_worker_cpus(&core, 0, &out), "auto of none binds nobody");
    return done_testing();
}
