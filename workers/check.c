/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Testing a configuration: read it, open what it names (not with --offline), look for traps (--lint), and say
 * so to people on standard error and to programs, as JSON, on standard output. Called by main.
 */
#include "workers/check.h"

#include "core/base/json.h"
#include "modules/lint/lint.h"
#include "workers/cycle.h"
#include "workers/pidfile.h"
#include "workers/settings.h"

/* What only shows when files and sockets are opened. */
static int try_out(struct config *config)
{
    if (cycle_open(config, NULL))
        return -1;
    return config->offline ? 0 : pidfile_check(core_settings(config)->pid.ptr);
}

/* --json: the log's lines while the configuration is read and tried, and what became of it. */
static struct conf_report report;

static void report_line(struct log_file *file UNUSED, enum log_level level, const char *line,
                        size_t len)
{
    conf_report_line(&report, level, str_from(line, len));
}

static void open_report(void)
{
    static struct log_file file = { .fd = -1, .write = report_line };
    static struct log_target target = { LOG_NOTICE_LEVEL, &file, NULL };
    static struct log_scope scope;

    conf_report_init(&report, arena_new());
    target.next = log_main->scope->targets;
    scope.max = MAX(log_main->scope->max, LOG_NOTICE_LEVEL);
    scope.targets = &target;
    log_main->scope = &scope;
}

static void write_message(struct json *j, const struct conf_message *m)
{
    json_object(j);
    json_put_str(j, "level", str_cstr(log_level_name(m->level)));
    json_put_str(j, "message", m->text);
    json_put_str(j, "file", m->pos.file ? str_cstr(m->pos.file) : STR_NULL);
    json_key(j, "line");
    if (m->pos.line)
        json_u64(j, m->pos.line);
    else
        json_null(j);
    json_key(j, "column");
    if (m->pos.column)
        json_u64(j, m->pos.column);
    else
        json_null(j);
    json_put_str(j, "hint", m->hint ? str_cstr(m->hint) : STR_NULL);
    if (m->rule)
        json_put_str(j, "rule", str_cstr(m->rule));
    json_end(j);
}

static void write_report(const char *file, int status)
{
    struct json j;
    struct str text;

    json_init(&j, report.arena);
    json_object(&j);
    json_put_bool(&j, "ok", status == 0);
    json_put_str(&j, "file", str_cstr(file));
    json_key(&j, "messages");
    json_array(&j);
    for (struct list *l = report.messages.next; l != &report.messages; l = l->next)
        write_message(&j, container_of(l, struct conf_message, link));
    json_end(&j);
    json_end(&j);
    text = json_text(&j);
    fwrite(text.ptr, 1, text.len, stdout);
    putchar('\n');
    fflush(stdout);
    arena_destroy(report.arena);
    arena_trim();
}

/* --lint: the line that can be found by programs, the source line, and the remedy below it. */
static void say_finding(void *data, const struct lint_finding *f)
{
    const struct config *config = data;
    struct conf_message parts = {
        .text = str_cstr(f->sentence), .pos = f->pos, .hint = f->remedy, .rule = f->rule
    };

    report.pending = &parts;
    log_warn(log_main, 0, "%s: %s in %s:%u", f->rule, f->sentence, f->pos.file, f->pos.line);
    report.pending = NULL;
    conf_show_source(config, stderr, f->pos, f->remedy);
}

static void lint(const struct options *o, struct config *config)
{
    unsigned n = lint_run(config, say_finding, config);

    if (!o->quiet)
        fprintf(stderr, "proxyd: %u lint warning%s in configuration file %s\n", n,
                n == 1 ? "" : "s", config->file);
}

/* -t, -T, --lint */
static int test(const struct options *o, struct config *config)
{
    if (!o->quiet)
        fprintf(stderr, "proxyd: the configuration file %s syntax is ok\n", config->file);
    if (try_out(config)) {
        fprintf(stderr, "proxyd: configuration file %s test failed\n", config->file);
        return 1;
    }
    if (!o->quiet)
        fprintf(stderr, "proxyd: configuration file %s test is successful\n", config->file);
    if (o->lint)
        lint(o, config);
    if (o->dump) {
        config_dump(config, stdout);
        fflush(stdout);
    }
    return 0;
}

int check(const struct options *o, struct config_request *request)
{
    static struct config *config __attribute__((used)); /* to the end: the log writes to its targets */
    int status = 1;

    request->record = o->lint;
    if (o->json) {
        open_report();
        request->report = &report;
    }
    config = config_read(request, log_main);
    if (config)
        status = test(o, config);
    else
        fprintf(stderr, "proxyd: configuration file %s test failed\n", request->file);
    if (o->json)
        write_report(request->file, status);
    return status;
}
