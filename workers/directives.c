/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directives of the main and events contexts, as two modules: the setters that need more than
 * the typed ones, the checks across directives, and read access for the master and the workers.
 */
#include "workers/settings.h"

#include <grp.h>
#include <pwd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "core/event/regex.h"
#include "core/os/process.h"
#include "proxyd_config.h"

static unsigned core_slot;
static unsigned events_slot;

const char *core_error_log_path = PROXYD_ERROR_LOG_PATH;

const struct core_conf *core_settings(const struct config *config)
{
    return level_conf(config->main, STORE_MAIN, core_slot);
}

static struct level *events_level(const struct config *config)
{
    for (struct list *l = config->main->children.next; l != &config->main->children; l = l->next) {
        struct level *level = container_of(l, struct level, sibling);

        if (level->context == CTX_EVENTS)
            return level;
    }
    return NULL;
}

const struct events_conf *events_settings(const struct config *config)
{
    const struct level *level = events_level(config);

    return level ? level_conf(level, STORE_MAIN, events_slot) : NULL;
}

bool events_debug_peer(const struct events_conf *events, const struct sockaddr *peer)
{
    if (peer->sa_family == AF_UNIX)
        return events->debug_unix;
    for (unsigned i = 0; i < events->debug_count; i++) {
        if (cidr_match(&events->debug[i], peer))
            return true;
    }
    return false;
}

/* Setters --------------------------------------------------------------------------------- */

/* What nginx says of a number or a value that it cannot read. */
static const char *invalid(struct conf *cf, const char *what)
{
    return conf_error_arg(cf, 1, "\"%.*s\" directive invalid %s", STR_ARG(cf->args[0]), what);
}

static const char *set_rlimit_nofile(struct conf *cf, void *field)
{
    struct core_limit *limit = field;
    uint64_t value;

    if (str_to_u64(cf->args[1], &value) || value > INT32_MAX)
        return invalid(cf, "number");
    *limit = (struct core_limit){ true, (int64_t) value };
    return NULL;
}

static const char *set_workers(struct conf *cf, void *field)
{
    unsigned *n = field;
    uint64_t value;

    if (str_eq(cf->args[1], STR("auto"))) {
        *n = MIN(process_cpus(), WORKERS_MAX);
        return NULL;
    }
    if (str_to_u64(cf->args[1], &value) || value == 0)
        return invalid(cf, "value");
    if (value > WORKERS_MAX)
        return conf_error_arg(cf, 1, "\"worker_processes\" must not exceed %d", WORKERS_MAX);
    *n = (unsigned) value;
    return NULL;
}

/* Workers run as this user and group. NULL, or a sentence, with the argument at fault in *arg. */
static const char *find_user(struct conf *cf, struct core_conf *core, const char *user,
                             const char *group, unsigned *arg)
{
    struct passwd *pw = getpwnam(user);
    struct group *gr;

    *arg = 1;
    if (!pw)
        return conf_error(cf, "getpwnam(\"%s\") failed", user);
    core->uid = pw->pw_uid;
    *arg = 2;
    gr = getgrnam(group);
    if (!gr)
        return conf_error(cf, "getgrnam(\"%s\") failed", group);
    core->gid = gr->gr_gid;
    core->user = str_z(cf->arena, str_cstr(user));
    return NULL;
}

static const char *set_user(struct conf *cf, void *field)
{
    struct core_conf *core = field;
    const char *error;
    unsigned arg;

    if (cf->config->explaining)
        return NULL; /* who it would be makes no difference, and to ask may mean to connect somewhere */
    /* Without the machine it is for, nobody knows who will run it. */
    if (geteuid() != 0 && !cf->config->offline) {
        conf_warn_at(cf, cf->pos, "the \"user\" directive makes sense only if the master process "
                     "runs with super-user privileges, ignored");
        return NULL;
    }
    error = find_user(cf, core, cf->args[1].ptr, cf->args[cf->nargs - 1].ptr, &arg);
    if (!error)
        return NULL;
    if (cf->config->offline) {
        conf_warn_at(cf, cf->pos, "%s", error);
        return NULL;
    }
    return conf_error_arg(cf, MIN(arg, cf->nargs - 1), "%s", error);
}

static const char *set_priority(struct conf *cf, void *field)
{
    struct core_conf *core = field;
    struct str text = cf->args[1];
    int64_t n;

    if (text.len > 1 && text.ptr[0] == '+' && text.ptr[1] != '-')
        text = str_skip(text, 1);
    if (str_to_i64(text, &n) || n < -1000 || n > 1000)
        return invalid(cf, "number");
    core->priority = (int) n;
    core->has_priority = true;
    return NULL;
}

static const char *set_rlimit_core(struct conf *cf, void *field)
{
    struct core_limit *limit = field;
    uint64_t value;

    if (str_to_size(cf->args[1], &value) || value > INT64_MAX)
        return invalid(cf, "value");
    *limit = (struct core_limit){ true, (int64_t) value };
    return NULL;
}

static const char *set_mask(struct conf *cf, unsigned arg, struct cpu_mask *out)
{
    char bad;

    switch (cpu_mask_parse(cf->args[arg], out, &bad)) {
    case 0:
        return NULL;
    case -1:
        return conf_error_arg(cf, arg, "invalid character \"%c\" in \"worker_cpu_affinity\"",
                              bad);
    default:
        return conf_error_arg(cf, arg, "\"worker_cpu_affinity\" supports up to %d CPUs only",
                              CPU_MASK_WORDS * 64);
    }
}

static const char *set_affinity(struct conf *cf, void *field)
{
    struct core_conf *core = field;
    unsigned first = 1;

    if (str_eq(cf->args[1], STR("auto"))) {
        if (cf->nargs > 3)
            return conf_error(cf,
                "invalid number of arguments in \"worker_cpu_affinity\" directive");
        core->cpu_auto = true;
        first = 2;
    }
    core->cpu_count = MAX(cf->nargs - first, 1);
    core->cpus = ARENA_ARRAY(cf->arena, struct cpu_mask, core->cpu_count);
    if (cf->nargs == first)
        memset(core->cpus, 0xff, sizeof(*core->cpus));
    for (unsigned i = first; i < cf->nargs; i++) {
        const char *error = set_mask(cf, i, &core->cpus[i - first]);

        if (error)
            return error;
    }
    return NULL;
}

static const char *set_env(struct conf *cf, void *field)
{
    struct core_conf *core = field;

    str_list_add(cf->arena, &core->env, cf->args[1]);
    return NULL;
}

/* A level's name, also one of nginx's groups of debug messages: those are all one here. */
static int error_log_level(struct str name)
{
    static const char *const groups[] = { "debug_core", "debug_alloc", "debug_mutex",
                                          "debug_event", "debug_http", "debug_mail",
                                          "debug_stream" };

    for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
        if (str_eq(name, str_cstr(groups[i])))
            return LOG_DEBUG_LEVEL;
    }
    return log_level_parse(name);
}

static const char *error_log_add(struct conf *cf, struct str spec, enum log_level level)
{
    struct log_scope *scope = &cf->config->log;
    const char *error = NULL;
    struct log_target *target;
    struct log_target **end = &scope->targets;
    struct log_file *file = res_log_file(cf, spec, &error);

    if (!file)
        return error;
    while (*end) {
        if ((*end)->file == file && (*end)->level == level)
            return NULL;
        end = &(*end)->next;
    }
    target = ARENA_NEW(cf->arena, struct log_target);
    *target = (struct log_target){ level, file, NULL };
    *end = target;
    scope->max = MAX(scope->max, level);
    return NULL;
}

static const char *set_error_log(struct conf *cf, void *field UNUSED)
{
    int level = LOG_ERROR_LEVEL;

    if (cf->nargs > 2) {
        level = error_log_level(cf->args[2]);
        if (level < 0)
            return conf_error_arg(cf, 2, "invalid log level \"%.*s\"", STR_ARG(cf->args[2]));
    }
    if (cf->nargs > 3)
        return conf_error_arg(cf, 3, "error_log parameter \"%.*s\" is not supported",
                              STR_ARG(cf->args[3]));
    return error_log_add(cf, cf->args[1], (enum log_level) level);
}

/* A number behind "threads=" or "max_queue=". */
static const char *pool_number(struct conf *cf, unsigned arg, const char *name, uint64_t min,
                               unsigned *out)
{
    struct str text = str_skip(cf->args[arg], strlen(name) + 1);
    uint64_t n;

    if (str_to_u64(text, &n) || n < min || n > INT32_MAX)
        return conf_error_arg(cf, arg, "invalid %s value \"%.*s\"", name, STR_ARG(cf->args[arg]));
    *out = (unsigned) n;
    return NULL;
}

static const char *set_thread_pool(struct conf *cf, void *field UNUSED)
{
    struct res_pool *pool = res_pool(cf->config, cf->args[1], cf->pos);
    const char *error = NULL;

    if (pool->defined)
        return conf_error_arg(cf, 1, "duplicate thread pool \"%.*s\"", STR_ARG(cf->args[1]));
    pool->defined = true;
    pool->threads = 0;
    pool->max_queue = 65536;
    for (unsigned i = 2; i < cf->nargs && !error; i++) {
        if (str_starts(cf->args[i], STR("threads=")))
            error = pool_number(cf, i, "threads", 1, &pool->threads);
        else if (str_starts(cf->args[i], STR("max_queue=")))
            error = pool_number(cf, i, "max_queue", 0, &pool->max_queue);
        else
            error = conf_error_arg(cf, i, "invalid parameter \"%.*s\"", STR_ARG(cf->args[i]));
    }
    if (!error && pool->threads == 0)
        error = conf_error(cf, "\"thread_pool\" must have \"threads\" parameter");
    return error;
}

/* "modules/ngx_http_brotli_filter_module.so" → whether configure lists http_brotli_filter_module as built in. */
static bool built_in(struct str name)
{
    char option[128];
    const char *at = PROXYD_CONFIGURE_ARGS;
    size_t len;

    if (str_starts(name, STR("ngx_")))
        name = str_skip(name, 4);
    if (str_eq(name, STR("stream_module")) || str_eq(name, STR("mail_module")))
        name.len -= sizeof("_module") - 1;
    len = (size_t) snprintf(option, sizeof(option), "--with-%.*s", STR_ARG(name));
    if (len >= sizeof(option))
        return false;
    while ((at = strstr(at, option)) != NULL) {
        at += len;
        if (*at == ' ' || *at == '\0')
            return true;
    }
    if (str_ends(name, STR("_module")))
        name.len -= sizeof("_module") - 1;
    for (unsigned i = 0; modules[i]; i++) {
        if (str_eq(name, str_cstr(modules[i]->name)))
            return true;
    }
    return false;
}

static const char *set_load_module(struct conf *cf, void *field UNUSED)
{
    struct str name = cf->args[1];
    ssize_t slash = str_rchr(name, '/');

    if (slash >= 0)
        name = str_skip(name, (size_t) slash + 1);
    if (str_ends(name, STR(".so")))
        name.len -= 3;
    if (built_in(name))
        conf_notice_at(cf, cf->pos, "module \"%.*s\" is built in, \"load_module\" has no effect",
                       STR_ARG(name));
    else
        conf_warn_at(cf, cf->pos, "module \"%.*s\" is not there: modules are compiled in, "
                     "\"load_module\" is ignored", STR_ARG(name));
    return NULL;
}

static const char *set_ssl_engine(struct conf *cf, void *field UNUSED)
{
    return conf_error(cf, "\"ssl_engine\" is not supported: OpenSSL 3 has providers in its place");
}

static const char *set_pcre_jit(struct conf *cf, void *field)
{
    const char *error = conf_set_flag(cf, field);

    if (!error)
        regex_use_jit(*(bool *) field);
    return error;
}

static const char *set_events(struct conf *cf, void *field UNUSED)
{
    return conf_block(cf, conf_level(cf, CTX_EVENTS, NULL));
}

static const char *set_event_number(struct conf *cf, void *field)
{
    int64_t *n = field;
    uint64_t value;

    if (str_to_u64(cf->args[1], &value) || value > INT32_MAX)
        return conf_error_arg(cf, 1, "invalid number \"%.*s\"", STR_ARG(cf->args[1]));
    *n = (int64_t) value;
    return NULL;
}

static const char *set_use(struct conf *cf, void *field UNUSED)
{
    if (!str_eq(cf->args[1], STR("epoll")))
        return conf_error_arg(cf, 1, "invalid event type \"%.*s\"", STR_ARG(cf->args[1]));
    return NULL;
}

static void debug_add(struct conf *cf, struct events_conf *events, const struct cidr *cidr)
{
    events->debug = arena_grow(cf->arena, events->debug, events->debug_count,
                               &events->debug_capacity, sizeof(*cidr));
    events->debug[events->debug_count++] = *cidr;
}

static const char *set_debug_connection(struct conf *cf, void *field)
{
    struct events_conf *events = field;
    struct str text = cf->args[1];
    struct addr *addrs;
    struct cidr cidr;
    const char *why;
    int rc, n;

    if (!PROXYD_DEBUG)
        conf_warn_at(cf, cf->pos, "\"debug_connection\" is ignored, you need to rebuild proxyd "
                     "using --with-debug option to enable it");
    if (str_eq(text, STR("unix:"))) {
        events->debug_unix = true;
        return NULL;
    }
    rc = cidr_parse(&cidr, text);
    if (rc >= 0) {
        if (rc == 1)
            conf_warn_at(cf, cf->pos, "low address bits of %.*s are meaningless", STR_ARG(text));
        debug_add(cf, events, &cidr);
        return NULL;
    }
    n = addr_resolve(cf->arena, text, 0, &addrs, &why);
    if (n < 0)
        return conf_error_arg(cf, 1, "%s in debug_connection \"%.*s\"", why, STR_ARG(text));
    for (int i = 0; i < n; i++) {
        struct str one = addr_dup_text(cf->arena, &addrs[i], false);

        if (cidr_parse(&cidr, one) >= 0)
            debug_add(cf, events, &cidr);
    }
    return NULL;
}

/* Checks ----------------------------------------------------------------------------------- */

static int default_user(struct conf *cf, struct core_conf *core, struct level *level)
{
    const char *error;
    unsigned arg;

    if (core->user || geteuid() != 0 || cf->config->explaining
        || conf_is_set(level, &module_core, "user"))
        return 0;
    error = find_user(cf, core, PROXYD_USER, PROXYD_GROUP, &arg);
    if (!error || cf->config->offline)
        return 0;
    conf_error_at(cf, level->pos, "%s", error);
    return -1;
}

static int core_finish(struct conf *cf, struct level *level, struct level *parent UNUSED)
{
    struct core_conf *core;

    if (level->context != CTX_MAIN)
        return 0;
    core = level_conf(level, STORE_MAIN, core_slot);
    if (!cf->config->log.targets) {
        const char *error = error_log_add(cf, str_cstr(core_error_log_path), LOG_ERROR_LEVEL);

        if (error) {
            conf_error_at(cf, level->pos, "%s", error);
            return -1;
        }
    }
    if (!core->cpu_auto && core->cpu_count > 1 && core->cpu_count != core->workers)
        log_warn(cf->log, 0, "the number of \"worker_processes\" is not equal to the number of "
                 "\"worker_cpu_affinity\" masks, using last mask for remaining worker processes");
    return default_user(cf, core, level);
}

static int events_finish(struct conf *cf, struct level *level, struct level *parent UNUSED)
{
    const struct events_conf *events;
    const struct core_conf *core;
    struct rlimit limit;
    int64_t allowed;

    if (level->context != CTX_EVENTS)
        return 0;
    events = level_conf(level, STORE_MAIN, events_slot);
    core = core_settings(cf->config);
    if (core->rlimit_nofile.set)
        allowed = core->rlimit_nofile.n;
    else if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= INT32_MAX)
        allowed = (int64_t) limit.rlim_cur;
    else
        return 0;
    if (events->connections > allowed)
        log_warn(cf->log, 0, "%lld worker_connections exceed open file resource limit: %lld",
                 (long long) events->connections, (long long) allowed);
    return 0;
}

/* Tables ----------------------------------------------------------------------------------- */

#define MAIN_ROW(name, args, set, member, def, syntax, doc, ...) \
    ROW(name, CTX_MAIN, args, set, STORE_MAIN, struct core_conf, member, INHERIT_SCALAR, def, \
        syntax, doc, __VA_ARGS__)
#define MAIN_CALL(name, args, set, syntax, doc) \
    ROW_CALL(name, CTX_MAIN, args, set, STORE_MAIN, syntax, doc)
#define EVENTS_ROW(name, args, set, member, def, syntax, doc, ...) \
    ROW(name, CTX_EVENTS, args, set, STORE_MAIN, struct events_conf, member, INHERIT_SCALAR, def, \
        syntax, doc, __VA_ARGS__)
#define EVENTS_CALL(name, args, set, syntax, doc) \
    ROW_CALL(name, CTX_EVENTS, args, set, STORE_MAIN, syntax, doc)

static const struct conf_enum debug_points[] = {
    { "stop", DEBUG_POINTS_STOP },
    { "abort", DEBUG_POINTS_ABORT },
    { NULL, 0 },
};

static const struct directive core_rows[] = {
    MAIN_ROW("daemon", ARG_FLAG, conf_set_flag, daemon, "on", "on | off",
             "Whether to go into the background."),
    MAIN_ROW("master_process", ARG_FLAG, conf_set_flag, master_process, "on", "on | off",
             "Off: one process does everything, for debugging."),
    MAIN_ROW("pid", ARGS1, conf_set_file, pid, PROXYD_PID_PATH, "file",
             "The file that holds the master's process id."),
    MAIN_ROW("lock_file", ARGS1, conf_set_file, lock_file, PROXYD_LOCK_PATH, "file",
             "Accepted: locks live in shared memory here."),
    MAIN_CALL("user", ARGS12, set_user, "user [group]",
              "The workers' user and group, if the master is the super-user."),
    MAIN_ROW("worker_processes", ARGS1, set_workers, workers, "1", "number | auto",
             "How many workers there are; auto: one per processor."),
    MAIN_CALL("worker_cpu_affinity", ARGS1_MORE, set_affinity, "cpumask ... | auto [cpumask]",
              "Binds each worker to a set of processors."),
    MAIN_CALL("worker_priority", ARGS1, set_priority, "number",
              "The workers' nice value: negative is a higher priority."),
    MAIN_ROW("worker_rlimit_nofile", ARGS1, set_rlimit_nofile, rlimit_nofile, NULL, "number",
             "The workers' limit of open files (RLIMIT_NOFILE)."),
    MAIN_ROW("worker_rlimit_core", ARGS1, set_rlimit_core, rlimit_core, NULL, "size",
             "The largest core file of a worker (RLIMIT_CORE)."),
    MAIN_ROW("worker_shutdown_timeout", ARGS1, conf_set_ms, shutdown_timeout_ms, NULL, "time",
             "How long a worker that is shutting down waits for its connections."),
    MAIN_ROW("working_directory", ARGS1, conf_set_file, working_directory, NULL, "directory",
             "The workers' current directory, where core files go."),
    MAIN_CALL("env", ARGS1 | ARG_REPEAT, set_env, "variable[=value]",
              "Keeps or sets a variable of the environment; all others but TZ are removed."),
    MAIN_CALL("error_log", ARGS123 | ARG_REPEAT, set_error_log,
              "file | stderr | syslog:server=address[,parameter=value] | memory:size [level]",
              "Where errors are logged, and from which level on."),
    MAIN_ROW("debug_points", ARGS1, conf_set_enum, debug_points, NULL, "abort | stop",
             "Accepted: a process whose own state is wrong always ends with a core file.", .extra = debug_points),
    MAIN_ROW("timer_resolution", ARGS1, conf_set_ms, timer_resolution_ms, NULL, "interval",
             "Accepted: the clock is read once per turn of the event loop."),
    MAIN_ROW("pcre_jit", ARG_FLAG, set_pcre_jit, pcre_jit, "off", "on | off",
             "Compiles regular expressions to machine code."),
    MAIN_CALL("thread_pool", ARGS2_MORE | ARGS1 | ARG_REPEAT, set_thread_pool,
              "name threads=number [max_queue=number]",
              "Defines a pool of threads for reading and writing files."),
    MAIN_CALL("load_module", ARGS1 | ARG_REPEAT, set_load_module, "file",
              "Accepted: modules are compiled in."),
    MAIN_CALL("ssl_engine", ARGS1, set_ssl_engine, "device", "Not supported."),
    MAIN_CALL("events", ARGS0 | ARG_BLOCK, set_events, "{ ... }",
              "The block of directives on connection processing."),
    ROW_END
};

static const struct directive events_rows[] = {
    EVENTS_ROW("worker_connections", ARGS1, set_event_number, connections, "512", "number",
               "How many connections a worker may have open, those to upstreams included."),
    EVENTS_CALL("use", ARGS1, set_use, "method", "The event method: epoll is the only one."),
    EVENTS_ROW("multi_accept", ARG_FLAG, conf_set_flag, multi_accept, "off", "on | off",
               "Whether to accept all waiting connections at once."),
    EVENTS_ROW("accept_mutex", ARG_FLAG, conf_set_flag, accept_mutex, "off", "on | off",
               "Accepted: each worker has sockets of its own."),
    EVENTS_ROW("accept_mutex_delay", ARGS1, conf_set_ms, accept_mutex_delay_ms, "500ms", "time",
               "Accepted without effect, as accept_mutex."),
    EVENTS_ROW("worker_aio_requests", ARGS1, set_event_number, aio_requests, "32", "number",
               "Accepted: file work goes to thread pools."),
    EVENTS_ROW("epoll_events", ARGS1, set_event_number, epoll_events, "512", "number",
               "How many events one turn of the loop takes from the kernel."),
    EVENTS_CALL("debug_connection", ARGS1 | ARG_REPEAT, set_debug_connection,
                "address | CIDR | unix:", "Logs these clients at debug level."),
    ROW_END
};

const struct module module_core = {
    .name = "core",
    .slot = &core_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct core_conf) },
    .directives = core_rows,
    .finish = core_finish,
};

const struct module module_events = {
    .name = "events",
    .slot = &events_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct events_conf) },
    .directives = events_rows,
    .finish = events_finish,
};
