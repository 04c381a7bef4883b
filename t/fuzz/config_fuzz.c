/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: any bytes as a configuration file, read as -t does, with the setters of the modules
 * of the build. Slashes are taken out, so that no file of the system is included or named, and it
 * works in a directory of its own: name the corpus with its whole path.
 */
#include <unistd.h>

#include "core/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/proxyd-fuzz-XXXXXX";
static char file[64];

static void leave(void)
{
    unlink(file);
    if (chdir("/") == 0)
        rmdir(dir);
}

static void start(void)
{
    if (mkdtemp(dir) == NULL || chdir(dir))
        abort();
    snprintf(file, sizeof(file), "%s/fuzz.conf", dir);
    atexit(leave);
    config_modules_init();
}

static void put(const uint8_t *data, size_t size)
{
    FILE *f = fopen(file, "w");

    for (size_t i = 0; i < size; i++)
        fputc(data[i] == '/' ? '_' : data[i], f);
    fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct log_scope nowhere = { LOG_STDERR_LEVEL, NULL };
    static struct logger log = { .scope = &nowhere };
    static FILE *null;
    struct config_request req = { .prefix = dir, .file = file, .testing = true,
                                  .offline = true, .record = true };

    if (null == NULL) {
        start();
        null = fopen("/dev/null", "w");
    }
    put(data, size);
    req.details = null;
    config_free(config_read(&req, &log));
    return 0;
}
