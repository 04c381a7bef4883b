/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The dump of -T: every file that was read, each once, in nginx's form, which tools split at the
 * comment lines. Called by main after a successful test.
 */
#include "core/config/config.h"

void config_dump(const struct config *config, FILE *out)
{
    for (struct list *l = config->files.next; l != &config->files; l = l->next) {
        const struct conf_file *f = container_of(l, struct conf_file, link);

        fprintf(out, "# configuration file %s:\n", f->path);
        fwrite(f->content.ptr, 1, f->content.len, out);
        fputc('\n', out);
    }
}
