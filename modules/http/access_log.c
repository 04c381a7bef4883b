/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * access_log, log_format, open_log_file_cache: which lines a request leaves, and where. Runs when
 * the request has ended, with the settings of the location that it ended in.
 */
#include <errno.h>
#include <sys/stat.h>

#include "core/config/resource.h"
#include "modules/http/log.h"
#include "proxyd_config.h"

/* configure: switch=http_log_module default=always libs=zlib */

#define COMBINED "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent " \
                 "\"$http_referer\" \"$http_user_agent\""
#define GZIP_BUFFER (64 * 1024)

static unsigned log_slot;
extern const struct module module_http_log;

/* One access_log line of the configuration. */
struct access_log {
    const struct log_format *format;
    struct res_file *file;
    struct log_buffer *buffer;     /* NULL: a write for each line */
    struct syslog_target *syslog;  /* instead of a file */
    struct expr *path;             /* instead of a file: with variables */
    struct expr *condition;        /* NULL: always */
};

struct access_logs {
    struct access_log *items;
    unsigned count, capacity;
    bool off;
};

struct log_conf {
    struct access_logs logs;
    struct log_files_conf *cache;
};

struct log_main {
    struct table formats;       /* name -> struct log_format */
    struct access_log fallback; /* where nothing is said: the default file, combined */
    struct list syslogs;        /* struct syslog_entry */
};

struct syslog_entry {
    struct list link;
    struct syslog_target target;
};

/* A request has ended ------------------------------------------------------------------------------ */

/* With variables in its path, a log is only written below a root that exists. */
static bool root_exists(struct req *r)
{
    struct str path;
    size_t root;
    struct stat st;
    char *z;

    if (req_map_path(r, &path, &root, 0) != 0)
        return false;
    z = (char *) str_dup(r->arena, str_from(path.ptr, root)).ptr;
    if (stat(root ? z : "/", &st) != 0) {
        log_error(&r->log, errno, "testing \"%s\" existence failed", z);
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        log_error(&r->log, ENOTDIR, "testing \"%s\" existence failed", z);
        return false;
    }
    return true;
}

static void write_log(struct req *r, const struct log_conf *conf, const struct access_log *log)
{
    static const struct log_files_conf no_cache;
    struct str line;

    if (log->condition != NULL) {
        struct str value = expr_eval(&r->eval, log->condition);

        if (value.len == 0 || (value.len == 1 && value.ptr[0] == '0'))
            return;
    }
    line = log_format_line(r, log->format, log->syslog == NULL);
    if (log->buffer != NULL) {
        log_buffer_write(r, log->buffer, line);
    } else if (log->file != NULL) {
        log_file_write(r, log->file, line);
    } else if (log->syslog != NULL) {
        syslog_send(log->syslog, log->syslog->severity, line.ptr, line.len);
    } else {
        struct str path = expr_eval(&r->eval, log->path);

        if (root_exists(r))
            log_path_write(r, path, conf->cache ? conf->cache : &no_cache, line);
    }
}

static enum verdict log_run(struct req *r)
{
    const struct log_conf *conf = req_loc_conf(r, log_slot);

    if (conf->logs.count == 0 && !conf->logs.off) {
        const struct level *http = r->server->http->level;
        const struct log_main *m = level_conf(http, STORE_MAIN, log_slot);

        write_log(r, conf, &m->fallback);
        return V_NEXT;
    }
    for (unsigned i = 0; i < conf->logs.count; i++)
        write_log(r, conf, &conf->logs.items[i]);
    return V_NEXT;
}

/* Configuration ------------------------------------------------------------------------------------ */

static struct log_main *main_of(struct conf *cf)
{
    struct log_main *m = conf_own(cf, conf_http(cf)->level, &module_http_log, STORE_MAIN);

    if (m->formats.arena == NULL) {
        table_init(&m->formats, cf->arena);
        list_init(&m->syslogs);
    }
    return m;
}

static struct log_format *format_new(struct conf *cf, struct log_main *m, struct str name)
{
    struct log_format *f = ARENA_NEW(cf->arena, struct log_format);

    f->name = str_dup(cf->arena, name);
    table_put(&m->formats, f->name, f);
    return f;
}

/* NULL: there is none of that name. */
static struct log_format *format_of(struct conf *cf, struct log_main *m, struct str name)
{
    struct log_format *f = table_get(&m->formats, name);

    if (f == NULL && str_eq(name, STR("combined"))) {
        f = format_new(cf, m, name);
        log_format_compile(cf, f, STR(COMBINED));
    }
    return f;
}

static const char *set_log_format(struct conf *cf, void *field)
{
    struct log_main *m = main_of(cf);
    struct log_format *f;
    unsigned arg = 2;

    (void) field;
    if (table_get(&m->formats, cf->args[1]) != NULL || str_eq(cf->args[1], STR("combined")))
        return conf_error_arg(cf, 1, "duplicate \"log_format\" name \"%.*s\"",
                              STR_ARG(cf->args[1]));
    f = format_new(cf, m, cf->args[1]);
    if (str_starts(cf->args[2], STR("escape="))) {
        struct str how = str_skip(cf->args[2], 7);

        if (str_eq(how, STR("json")))
            f->escape = ESCAPE_JSON;
        else if (str_eq(how, STR("none")))
            f->escape = ESCAPE_NONE;
        else if (!str_eq(how, STR("default")))
            return conf_error_arg(cf, 2, "unknown log format escaping \"%.*s\"", STR_ARG(how));
        arg++;
    }
    for (; arg < cf->nargs; arg++) {
        const char *error = log_format_compile(cf, f, cf->args[arg]);

        if (error != NULL)
            return conf_error_arg(cf, arg, "%s", error);
    }
    return NULL;
}

struct log_params {
    size_t buffer;
    uint64_t flush_ms;
    int gzip;
};

static const char *log_parameter(struct conf *cf, unsigned arg, struct access_log *log,
                                 struct log_params *p)
{
    struct str v = cf->args[arg];
    uint64_t n;

    if (str_starts(v, STR("buffer="))) {
        if (str_to_size(str_skip(v, 7), &n) != 0 || n == 0 || n > (1u << 30))
            return conf_error_arg(cf, arg, "invalid buffer size \"%.*s\"",
                                  STR_ARG(str_skip(v, 7)));
        p->buffer = (size_t) n;
    } else if (str_starts(v, STR("flush="))) {
        if (str_to_ms(str_skip(v, 6), false, &p->flush_ms) != 0 || p->flush_ms == 0)
            return conf_error_arg(cf, arg, "invalid flush time \"%.*s\"", STR_ARG(str_skip(v, 6)));
    } else if (str_eq(v, STR("gzip"))) {
        p->gzip = 1;
    } else if (str_starts(v, STR("gzip="))) {
        if (str_to_u64(str_skip(v, 5), &n) != 0 || n < 1 || n > 9)
            return conf_error_arg(cf, arg, "invalid compression level \"%.*s\"",
                                  STR_ARG(str_skip(v, 5)));
        p->gzip = (int) n;
    } else if (str_starts(v, STR("if="))) {
        const char *error = NULL;

        log->condition = expr_compile(cf, str_skip(v, 3), 0, &error);
        if (log->condition == NULL)
            return conf_error_arg(cf, arg, "%s", error);
    } else {
        return conf_error_arg(cf, arg, "invalid parameter \"%.*s\"", STR_ARG(v));
    }
    return NULL;
}

static const char *syslog_destination(struct conf *cf, struct access_log *log)
{
    struct log_main *m = main_of(cf);
    struct syslog_entry *e = ARENA_NEW(cf->arena, struct syslog_entry);
    const char *error = NULL;

    if (syslog_parse(cf->arena, str_skip(cf->args[1], strlen("syslog:")), &e->target, &error) != 0)
        return conf_error_arg(cf, 1, "%s", error);
    list_push_back(&m->syslogs, &e->link);
    log->syslog = &e->target;
    return NULL;
}

static const char *destination(struct conf *cf, struct access_log *log)
{
    const char *error = NULL;

    if (str_starts(cf->args[1], STR("syslog:")))
        return syslog_destination(cf, log);
    if (str_chr(cf->args[1], '$') < 0) {
        log->file = res_file(cf->config, conf_path(cf, cf->args[1], false));
        return NULL;
    }
    log->path = expr_compile(cf, cf->args[1], EXPR_PREFIX | EXPR_Z, &error);
    return log->path ? NULL : conf_error_arg(cf, 1, "%s", error);
}

static const char *use_buffer(struct conf *cf, struct access_log *log, struct log_params *p)
{
    bool conflict;

    if (p->gzip != 0 && p->buffer == 0)
        p->buffer = GZIP_BUFFER;
    if (p->flush_ms != 0 && p->buffer == 0)
        return conf_error(cf, "no buffer is defined for access_log \"%.*s\"", STR_ARG(cf->args[1]));
    if (p->buffer != 0 && log->path != NULL)
        return "buffered logs cannot have variables in name";
    if (p->buffer != 0 && log->syslog != NULL)
        return "logs to syslog cannot be buffered";
    if (log->file == NULL)
        return NULL;
    if (p->buffer == 0 && log->file->flush == NULL)
        return NULL;
    log->buffer = log_buffer_of(cf, log->file, p->buffer, p->flush_ms, p->gzip, &conflict);
    if (conflict)
        return conf_error(cf, "access_log \"%.*s\" already defined with conflicting parameters",
                          STR_ARG(log->file->file.path));
    return NULL;
}

static const char *set_access_log(struct conf *cf, void *field)
{
    struct access_logs *logs = field;
    struct access_log log = { .format = NULL };
    struct log_params params = { 0, 0, 0 };
    struct str name = cf->nargs > 2 ? cf->args[2] : STR("combined");
    const char *error;

    if (str_eq(cf->args[1], STR("off"))) {
        if (cf->nargs > 2)
            return conf_error_arg(cf, 2, "invalid parameter \"%.*s\"", STR_ARG(cf->args[2]));
        logs->off = true;
        logs->count = 0;
        return NULL;
    }
    error = destination(cf, &log);
    if (error != NULL)
        return error;
    log.format = format_of(cf, main_of(cf), name);
    if (log.format == NULL)
        return conf_error_arg(cf, 2, "unknown log format \"%.*s\"", STR_ARG(name));
    for (unsigned i = 3; i < cf->nargs; i++) {
        error = log_parameter(cf, i, &log, &params);
        if (error != NULL)
            return error;
    }
    error = use_buffer(cf, &log, &params);
    if (error != NULL || logs->off)
        return error;
    logs->items = arena_grow(cf->arena, logs->items, logs->count, &logs->capacity,
                             sizeof(*logs->items));
    logs->items[logs->count++] = log;
    return NULL;
}

/* off | max=N [inactive=time] [min_uses=N] [valid=time] */
static const char *set_log_files(struct conf *cf, void *field)
{
    struct log_files_conf **out = field, *c = ARENA_NEW(cf->arena, struct log_files_conf);

    *out = c;
    c->inactive_s = 10;
    c->valid_s = 60;
    c->min_uses = 1;
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str v = cf->args[i];
        uint64_t n;

        if (str_eq(v, STR("off")) && cf->nargs == 2)
            return NULL;
        if (str_starts(v, STR("max=")) && str_to_u64(str_skip(v, 4), &n) == 0 && n > 0) {
            c->max = (unsigned) MIN(n, UINT32_MAX);
            c->on = true;
        } else if (str_starts(v, STR("inactive="))
                   && str_to_ms(str_skip(v, 9), true, &n) == 0) {
            c->inactive_s = n / 1000;
        } else if (str_starts(v, STR("min_uses=")) && str_to_u64(str_skip(v, 9), &n) == 0
                   && n > 0) {
            c->min_uses = n;
        } else if (str_starts(v, STR("valid=")) && str_to_ms(str_skip(v, 6), true, &n) == 0) {
            c->valid_s = n / 1000;
        } else {
            return conf_error_arg(cf, i, "invalid \"open_log_file_cache\" parameter \"%.*s\"",
                                  STR_ARG(v));
        }
    }
    if (!c->on)
        return "\"open_log_file_cache\" must have \"max\" parameter";
    return NULL;
}

/* The predefined format, before the variables are checked. */
static int log_finish(struct conf *cf, struct level *level, struct level *parent)
{
    (void) parent;
    if (level->context == CTX_HTTP)
        format_of(cf, main_of(cf), STR("combined"));
    return 0;
}

/* The default file is only opened where some server has nothing else. */
static int log_post(struct conf *cf)
{
    struct http_main *http = conf_http(cf);
    bool needed = false;

    if (http == NULL)
        return 0;
    for (unsigned i = 0; i < http->server_count && !needed; i++) {
        const struct log_conf *c = level_conf(http->servers[i]->level, STORE_LOC, log_slot);

        needed = c->logs.count == 0 && !c->logs.off;
    }
    if (needed) {
        struct log_main *m = main_of(cf);

        m->fallback.format = format_of(cf, m, STR("combined"));
        m->fallback.file =
            res_file(cf->config, conf_path(cf, STR(PROXYD_HTTP_LOG_PATH), false));
        m->fallback.buffer = m->fallback.file->flush ? m->fallback.file->data : NULL;
    }
    return 0;
}

static void log_worker_stop(const struct config *config)
{
    const struct http_main *http = config->http;
    const struct log_main *m;

    log_files_stop(config);
    log_format_free();
    if (http == NULL)
        return;
    m = level_conf(http->level, STORE_MAIN, log_slot);
    if (m->formats.arena == NULL)
        return;
    for (const struct list *l = m->syslogs.next; l != &m->syslogs; l = l->next)
        syslog_close(&container_of(l, struct syslog_entry, link)->target);
}

static bool log_wanted(const struct level *level)
{
    const struct log_conf *conf = level_conf(level, STORE_LOC, log_slot);

    return conf->logs.count > 0 || !conf->logs.off;
}

static const struct directive directives[] = {
    ROW_CALL("log_format", CTX_HTTP, ARGS2_MORE | ARG_REPEAT, set_log_format, STORE_MAIN,
             "name [escape=default|json|none] string ...", "Defines a format of access logs."),
    ROW("access_log", CTX_HSLI | CTX_LIMIT_EXCEPT, ARGS1_MORE | ARG_REPEAT, set_access_log,
        STORE_LOC, struct log_conf, logs, INHERIT_WHOLE, NULL,
        "path [format [buffer=size] [gzip[=level]] [flush=time] [if=condition]] | off",
        "Where requests are logged; " PROXYD_HTTP_LOG_PATH " combined where nothing is said."),
    ROW("open_log_file_cache", CTX_HSL, ARGS1_MORE, set_log_files, STORE_LOC, struct log_conf,
        cache, INHERIT_SCALAR, NULL,
        "max=N [inactive=time] [min_uses=N] [valid=time] | off",
        "Keeps logs open whose names hold variables."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_LOG, HOOK_LOG, log_run, log_wanted },
    HOOK_END,
};

static const struct http_module http_log = { .hooks = hooks };

const struct module module_http_log = {
    .name = "http_log",
    .slot = &log_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct log_main), [STORE_LOC] = sizeof(struct log_conf) },
    .directives = directives,
    .http = &http_log,
    .finish = log_finish,
    .post = log_post,
    .worker_stop = log_worker_stop,
};
