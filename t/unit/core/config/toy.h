/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the tests of core/config: writes files into a directory of its own, reads them as a
 * configuration, and keeps what was logged and what was shown of the source. The test defines
 * modules[].
 */
#ifndef T_UNIT_CORE_CONFIG_TOY_H
#define T_UNIT_CORE_CONFIG_TOY_H

#include <unistd.h>

#include "core/config/config.h"
#include "core/config/expr.h"
#include "core/module.h"
#include "t/unit/tap.h"

static char toy_dir[] = "/tmp/proxyd-config-XXXXXX";
static char toy_logged[65536];
static size_t toy_logged_len;
static char *toy_shown;
static size_t toy_shown_len;

static void toy_write(struct log_file *file, enum log_level level, const char *line, size_t len)
{
    size_t room = sizeof(toy_logged) - 1 - toy_logged_len;

    (void) file;
    (void) level;
    len = MIN(len, room);
    memcpy(toy_logged + toy_logged_len, line, len);
    toy_logged_len += len;
    toy_logged[toy_logged_len] = '\0';
}

static struct log_file toy_file = { .fd = -1, .write = toy_write };
static struct log_target toy_target = { LOG_NOTICE_LEVEL, &toy_file, NULL };
static struct log_scope toy_scope = { LOG_NOTICE_LEVEL, &toy_target };
static struct logger toy_log = { .scope = &toy_scope };

static inline const char *toy_path(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", toy_dir, name);
    return p;
}

static inline void toy_put(const char *name, const char *text, size_t len)
{
    FILE *f = fopen(toy_path(name), "w");

    fwrite(text, 1, len, f);
    fclose(f);
}

static inline void toy_start(void)
{
    if (mkdtemp(toy_dir) == NULL)
        exit(1);
    config_modules_init();
}

/* names: the files that were put, ended by NULL. */
static inline void toy_end(const char *const *names)
{
    for (; *names; names++)
        unlink(toy_path(*names));
    rmdir(toy_dir);
    free(toy_shown);
    config_modules_free();
    arena_trim();
}

static bool toy_explaining TAP_UNUSED; /* read as for --explain */

static inline struct config *toy_read_with(const char *globals)
{
    static char prefix[64], file[64];
    struct config_request req = { .prefix = prefix, .file = file, .globals = globals,
                                  .explaining = toy_explaining };
    struct config *config;

    snprintf(prefix, sizeof(prefix), "%s", toy_dir);
    snprintf(file, sizeof(file), "%s/t.conf", toy_dir);
    toy_logged_len = 0;
    toy_logged[0] = '\0';
    free(toy_shown);
    req.details = open_memstream(&toy_shown, &toy_shown_len);
    config = config_read(&req, &toy_log);
    fclose(req.details);
    return config;
}

static inline struct config *toy_read(const char *text)
{
    toy_put("t.conf", text, strlen(text));
    return toy_read_with(NULL);
}

/* How often a text was logged. */
static inline unsigned toy_count(const char *text)
{
    unsigned n = 0;

    for (const char *p = toy_logged; (p = strstr(p, text)) != NULL; p += strlen(text))
        n++;
    return n;
}

#endif
