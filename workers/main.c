/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where it begins: the command line, the first log, and the way to a running server, a tested
 * configuration or a signal sent. Errors go to standard error and to the log named by -e until the
 * configuration has its own.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/os/file.h"
#include "core/os/instance.h"
#include "core/os/process.h"
#include "core/version.h"
#include "proxyd_config.h"
#include "workers/check.h"
#include "workers/cycle.h"
#include "workers/explain.h"
#include "workers/listen.h"
#include "workers/master.h"
#include "workers/options.h"
#include "workers/pidfile.h"
#include "workers/settings.h"
#include "workers/signals.h"
#include "workers/upgrade.h"
#include "workers/worker.h"

/* The log before there is a configuration. Without a file, only the copy on standard error is left. */
static struct log_file first_file = { .fd = -1 };
static struct log_target first_target = { LOG_NOTICE_LEVEL, &first_file, NULL };
static struct log_scope first_scope = { LOG_WARN_LEVEL, NULL };

static char *prefix;    /* absolute, with a final slash */
static char *conf_file; /* absolute */

static void show_version(const struct options *o)
{
    fprintf(stderr, "proxyd version: proxyd/" PROXYD_VERSION "%s%s%s\n",
            PROXYD_BUILD[0] ? " (" : "", PROXYD_BUILD, PROXYD_BUILD[0] ? ")" : "");
    fprintf(stderr, "nginx version: nginx/" PROXYD_NGINX_LEVEL "\n");
    if (!o->configure)
        return;
    fprintf(stderr, "built by " PROXYD_COMPILER "\n");
#ifdef PROXYD_OPENSSL_VERSION
    fprintf(stderr, "built with OpenSSL " PROXYD_OPENSSL_VERSION "\n");
    fprintf(stderr, "TLS SNI support enabled\n");
#endif
    fprintf(stderr, "configure arguments: " PROXYD_CONFIGURE_ARGS "\n");
}

static void show_help(void)
{
    fprintf(stderr,
        "Usage: proxyd [-?hvVtTq] [-s signal] [-p prefix]\n"
        "             [-e filename] [-c filename] [-g directives] [-x directives]\n"
        "             [--lint] [--offline] [--json]\n"
        "             [--explain URL [-X method] [-H 'name: value']... [--from address] [--to address]]\n"
        "\n"
        "Options:\n"
        "  -?,-h         : this help\n"
        "  -v            : show version and exit\n"
        "  -V            : show version and configure options then exit\n"
        "  -t            : test configuration and exit\n"
        "  -T            : test configuration, dump it and exit\n"
        "  -q            : suppress non-error messages during configuration testing\n"
        "  -s signal     : send signal to a master process: stop, quit, reopen, reload\n"
        "  -p prefix     : set prefix path (default: " PROXYD_PREFIX ")\n"
        "  -e filename   : set error log file (default: " PROXYD_ERROR_LOG_PATH ")\n"
        "  -c filename   : set configuration file (default: " PROXYD_CONF_PATH ")\n"
        "  -g directives : set global directives out of configuration file\n"
        "  -x directives : print the manual of all directives and exit\n"
        "\n"
        "  --lint        : test configuration, warn of well-known traps in it and exit\n"
        "  --offline     : test configuration without the machine it is for: no log or directory\n"
        "                  is opened, no socket bound, no name looked up\n"
        "  --json        : say the result of -t, --lint or --explain as JSON on stdout\n"
        "  --explain URL : show line by line what happens to a request and exit\n"
        "  -X method     : method of the explained request (default: GET)\n"
        "  -H header     : header field of the explained request, \"name: value\", may be repeated\n"
        "  --from address: client's address of the explained request (default: 127.0.0.1)\n"
        "  --to address  : the listening address that the client connects to\n"
        "  --help        : same as -h\n"
        "  --version     : same as -v\n"
        "\n");
}

/* a + b, absolute: a is put in front unless b begins with a slash. */
static char *join(const char *a, const char *b, const char *end)
{
    size_t size = strlen(a) + strlen(b) + strlen(end) + 1;
    char *p = mem_alloc(size);

    snprintf(p, size, "%s%s%s", b[0] == '/' ? "" : a, b, end);
    return p;
}

static int find_paths(const struct options *o)
{
    const char *given = o->prefix && o->prefix[0] ? o->prefix : PROXYD_PREFIX;
    bool slash = given[strlen(given) - 1] == '/';
    char cwd[PATH_MAX + 1] = "/";
    size_t len;

    if (given[0] != '/') {
        if (!getcwd(cwd, sizeof(cwd) - 1)) {
            fprintf(stderr, "proxyd: [emerg] getcwd() failed (%d: %s)\n", errno, strerror(errno));
            return -1;
        }
        len = strlen(cwd);
        if (cwd[len - 1] != '/')
            memcpy(cwd + len, "/", 2);
    }
    prefix = join(cwd, given, slash ? "" : "/");
    conf_file = join(prefix, o->file ? o->file : PROXYD_CONF_PATH, "");
    if (o->error_log)
        core_error_log_path = o->error_log[0] ? o->error_log : "stderr";
    return 0;
}

/* There from the start, whatever the configuration will say. */
static void open_first_log(bool offline)
{
    char *path;

    log_set_stderr(true, LOG_WARN_LEVEL);
    log_main->scope = &first_scope;
    if (offline || strcmp(core_error_log_path, "stderr") == 0 || strchr(core_error_log_path, ':'))
        return;
    path = join(prefix, core_error_log_path, "");
    first_file.fd = file_open_append(path, 0644);
    if (first_file.fd < 0) {
        char why[PATH_MAX + 32];

        snprintf(why, sizeof(why), "open() \"%s\" failed", path);
        log_alert(log_main, errno, "could not open error log file: %s", why);
        free(path);
        return;
    }
    first_file.path = str_cstr(path);
    first_scope = (struct log_scope){ LOG_NOTICE_LEVEL, &first_target };
}

static void banner(void)
{
    struct utsname name;
    struct rlimit limit;

    log_notice(log_main, 0, "using the \"epoll\" event method");
    log_notice(log_main, 0, "proxyd/" PROXYD_VERSION);
    log_notice(log_main, 0, "built by " PROXYD_COMPILER);
    if (uname(&name) == 0)
        log_notice(log_main, 0, "OS: %s %s", name.sysname, name.release);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        log_notice(log_main, 0, "getrlimit(RLIMIT_NOFILE): %lld:%lld", (long long) limit.rlim_cur,
                   (long long) limit.rlim_max);
}

/* -s */
static int send_signal(const struct options *o, const struct config *config)
{
    pid_t pid;

    log_notice(log_main, 0, "signal process started");
    pid = pidfile_read(core_settings(config)->pid.ptr);
    if (pid < 0)
        return 1;
    if (kill(pid, o->signal_number) == 0)
        return 0;
    log_alert(log_main, errno, "kill(%d, %d) failed", (int) pid, o->signal_number);
    return 1;
}

static int run_single(struct config *config)
{
    struct worker worker = { .config = config, .channel = -1, .single = true };
    int status;

    process_notify("READY=1");
    status = worker_run(&worker);
    pidfile_remove(core_settings(config)->pid.ptr);
    listen_close_all(true);
    return status;
}

/* In the background, or where we were started; then the pid file, the sockets listening already. */
static int settle(struct config *config, bool inherited, bool *daemon)
{
    const struct core_conf *core = core_settings(config);
    int fd = logs_error_fd(config);

    *daemon = inherited;
    if (!inherited && core->daemon) {
        /* While the starter can still be told. */
        if (pidfile_check(core->pid.ptr) || process_daemonize(log_main))
            return -1;
        *daemon = true;
    }
    if (pidfile_write(core->pid.ptr))
        return -1;
    if (*daemon && fd >= 0)
        dup2(fd, STDERR_FILENO);
    log_set_stderr(false, LOG_WARN_LEVEL);
    if (first_file.fd >= 0)
        close(first_file.fd);
    first_file.fd = -1;
    return 0;
}

static void set_title(void)
{
    char *title = join("", "proxyd: master process ", upgrade_command_line());

    process_title(title);
    free(title);
}

static int serve(struct config *config, const struct config_request *request, bool inherited)
{
    struct master_start start = { .config = config, .request = *request, .inherited = inherited };

    if (cycle_open(config, NULL))
        return 1;
    cycle_commit(config);
    instance_init();
    instance_loaded();
    banner();
    if (settle(config, inherited, &start.daemon)) {
        listen_close_all(!inherited);
        return 1;
    }
    if (!core_settings(config)->master_process)
        return run_single(config);
    if (signals_init() < 0)
        return 1;
    set_title();
    return master_run(&start);
}

static int run(const struct options *o)
{
    struct config_request request = { .prefix = prefix, .file = conf_file, .globals = o->globals,
                                      .details = stderr, .testing = o->test || o->explain,
                                      .offline = o->offline };
    static struct config *config __attribute__((used)); /* lives as long as the process: log_main writes to its targets */
    bool inherited = false;

    if (o->explain)
        return explain(o, &request);
    if (o->test)
        return check(o, &request);
    if (!o->signal)
        inherited = upgrade_inherit();
    config = config_read(&request, log_main);
    if (!config)
        return 1;
    if (o->signal)
        return send_signal(o, config);
    return serve(config, &request, inherited);
}

int main(int argc, char **argv)
{
    char error[512];
    struct options o;

    if (process_std_descriptors())
        return 1;
    if (options_parse(&o, argc, argv, error, sizeof(error))) {
        fprintf(stderr, "proxyd: %s\n", error);
        return 1;
    }
    if (o.version) {
        show_version(&o);
        if (o.help)
            show_help();
        return 0;
    }
    clock_update();
    upgrade_remember(argc, argv);
    process_title_init(argc, argv);
    hash_seed(random_u64()); /* before any table is filled: workers look up what the master put in */
    /* The strings moved. */
    options_parse(&o, argc, argv, error, sizeof(error));
    config_modules_init();
    if (o.manual) {
        config_manual(stdout);
        arena_trim();
        return fflush(stdout) ? 1 : 0;
    }
    if (find_paths(&o))
        return 1;
    open_first_log(o.offline || o.explain);
    return run(&o);
}
