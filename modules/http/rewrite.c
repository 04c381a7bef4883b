/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rewrite, return, set, if, break: runs a level's instructions, once for the server and once for
 * each location that is entered. Changes the URI, the settings in force (`if`), variables and
 * captures; whatever answers is said by its verdict.
 */
#include "modules/http/rewrite.h"

#include <errno.h>

#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "modules/http/file_cache.h"

/* configure: switch=http_rewrite_module default=on */

static unsigned rewrite_slot;

unsigned rewrite_index(void)
{
    return rewrite_slot;
}

struct rewrite_conf *rewrite_conf_of(struct conf *cf, struct level *level)
{
    return conf_own(cf, level, &module_http_rewrite, STORE_LOC);
}

/* Regular expressions ---------------------------------------------------------------------------- */

/* 1: matches, and $1… are its captures; 0: does not, and there are none; -1: failed, logged. */
static int match(struct req *r, const struct regex *re, struct var **captures, struct str subject,
                 bool log)
{
    struct str pattern = regex_pattern(re);
    int rc = regex_exec(re, subject, &r->match);

    if (rc < 0) {
        r->eval.match = NULL;
        log_alert(&r->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(), STR_ARG(subject),
                  STR_ARG(pattern));
        return -1;
    }
    r->eval.match = rc ? &r->match : NULL;
    r->eval.match_subject = subject;
    if (rc && captures != NULL)
        http_store_captures(&r->eval, captures, &r->match, subject);
    if (log)
        log_notice(&r->log, 0, "\"%.*s\" %s \"%.*s\"", STR_ARG(pattern),
                   rc ? "matches" : "does not match", STR_ARG(subject));
    return rc;
}

/* rewrite ---------------------------------------------------------------------------------------- */

static struct str capture_value(struct req *r, unsigned n)
{
    const struct regex_match *m = r->eval.match;

    if (m == NULL || n >= m->count || m->pos[2 * n] < 0)
        return STR("");
    return str_from(r->eval.match_subject.ptr + m->pos[2 * n],
                    (size_t) (m->pos[2 * n + 1] - m->pos[2 * n]));
}

/* Whether the URI came with escapes that were undone, so that a part of it must be escaped again. */
static bool was_escaped(const struct req *r)
{
    struct str path = r->unparsed_uri;
    ssize_t mark = str_chr(path, '?');

    if (mark >= 0)
        path.len = (size_t) mark;
    return str_chr(path, '%') >= 0 || str_chr(path, '+') >= 0;
}

/* The parts from..to of a replacement, one behind the other. */
static struct str replace(struct req *r, const struct replacement *to, unsigned from, unsigned end,
                          bool escape)
{
    struct str *values = arena_alloc(r->arena, (end - from + 1) * sizeof(*values));
    size_t len = 0;
    char *start, *p;

    for (unsigned i = from; i < end; i++) {
        const struct replace_part *part = &to->parts[i];
        struct str *v = &values[i - from];

        if (part->text != NULL)
            *v = expr_eval(&r->eval, part->text);
        else
            *v = capture_value(r, part->capture);
        if (part->text == NULL && escape && was_escaped(r))
            *v = fmt_escape_dup(r->arena, *v, FMT_ESCAPE_ARGS);
        len += v->len;
    }
    start = p = arena_bytes(r->arena, len + 1);
    for (unsigned i = from; i < end; i++)
        p = fmt_str(p, values[i - from]);
    *p = '\0';
    return str_from(start, len);
}

static enum verdict redirect(struct req *r, const struct rewrite_code *c, bool log)
{
    struct str location = replace(r, &c->to, 0, c->to.count, true);

    if (c->keep_args && r->args.len > 0)
        location = str_printf(r->arena, "%.*s%c%.*s", STR_ARG(location), c->has_args ? '&' : '?',
                              STR_ARG(r->args));
    if (log)
        log_notice(&r->log, 0, "rewritten redirect: \"%.*s\"", STR_ARG(location));
    return req_redirect(r, c->status, location);
}

static enum verdict run_rewrite(struct req *r, const struct rewrite_code *c, bool log, bool *stop)
{
    unsigned uri_end = c->to.args_from >= 0 ? (unsigned) c->to.args_from : c->to.count;
    int rc = match(r, c->regex, c->captures, r->uri, log);
    struct str uri, args = r->args;

    if (rc < 0)
        return req_status(r, 500);
    if (rc == 0)
        return V_NEXT;
    if (c->status != 0)
        return redirect(r, c, log);
    uri = replace(r, &c->to, 0, uri_end, false);
    if (c->to.args_from >= 0) {
        args = replace(r, &c->to, uri_end, c->to.count, true);
        if (c->keep_args && r->args.len > 0)
            args = str_printf(r->arena, "%.*s&%.*s", STR_ARG(args), STR_ARG(r->args));
    } else if (!c->keep_args) {
        args = STR("");
    }
    if (log)
        log_notice(&r->log, 0, "rewritten data: \"%.*s\", args: \"%.*s\"", STR_ARG(uri),
                   STR_ARG(args));
    if (uri.len == 0) {
        log_error(&r->log, 0, "the rewritten URI has a zero length");
        return req_status(r, 500);
    }
    r->uri = uri;
    r->args = args;
    req_set_exten(r);
    r->internal = true;
    r->valid_unparsed_uri = false;
    r->valid_location = false;
    r->uri_changed = !c->is_break;
    *stop = c->last;
    return V_NEXT;
}

/* return ----------------------------------------------------------------------------------------- */

/* These have neither content nor a type. */
static enum verdict answer_empty(struct req *r, unsigned status)
{
    struct chain none = CHAIN_INIT;
    enum verdict v;

    r->out.status = status;
    r->out.content_length = -1;
    if (!r->body.complete)
        body_discard(r);
    v = answer_head(r);
    if (v != V_NEXT)
        return v;
    return answer_body(r, &none, BODY_END) == V_ABORT ? V_ABORT : V_ANSWER;
}

static enum verdict run_return(struct req *r, const struct return_code *c)
{
    struct str text = STR("");

    if (c->text != NULL) {
        r->out.status = c->status; /* which the text may already name */
        text = expr_eval(&r->eval, c->text);
    }
    switch (c->status) {
    case 204:
    case 304:
        return answer_empty(r, c->status);
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
        return req_redirect(r, c->status, text);
    default:
        if (c->status >= 400 && c->text == NULL)
            return req_status(r, c->status);
        return answer_text(r, c->status, req_content_type(r), text);
    }
}

/* if --------------------------------------------------------------------------------------------- */

static bool is_true(struct str s)
{
    return s.len > 0 && !(s.len == 1 && s.ptr[0] == '0');
}

static bool test_file(struct req *r, const struct if_code *c)
{
    struct str path = expr_eval(&r->eval, c->operand);
    struct file_info info;

    if (file_lookup(r, path, 0, &info) != 0) {
        if (info.err != ENOENT && info.err != ENOTDIR && info.err != ENAMETOOLONG)
            log_crit(&r->log, info.err, "%s \"%.*s\" failed", info.failed, STR_ARG(path));
        return false;
    }
    switch (c->test) {
    case IF_FILE:
        return S_ISREG(info.mode);
    case IF_DIR:
        return S_ISDIR(info.mode);
    case IF_EXEC:
        return (info.mode & S_IXUSR) != 0;
    default:
        return true;
    }
}

/* 1, 0, or -1: failed, logged. */
static int test(struct req *r, const struct if_code *c, bool log)
{
    struct str value = STR("");
    bool yes;
    int rc;

    if (c->var != NULL)
        var_value(&r->eval, c->var, &value);
    switch (c->test) {
    case IF_TRUE:
        yes = is_true(value);
        break;
    case IF_EQUAL:
        yes = str_eq(value, expr_eval(&r->eval, c->operand));
        break;
    case IF_REGEX:
        rc = match(r, c->regex, c->captures, value, log);
        if (rc < 0)
            return -1;
        yes = rc > 0;
        break;
    default:
        yes = test_file(r, c);
    }
    return yes != c->negated;
}

/* The list ---------------------------------------------------------------------------------------- */

static void run_set(struct req *r, const struct set_code *c)
{
    struct str value = expr_eval(&r->eval, c->value);

    if (c->var->set != NULL)
        c->var->set(&r->eval, c->var, value);
    else
        var_store(&r->eval, c->var, value);
}

static enum verdict run_codes(struct req *r, const struct code_list *list, bool *stop)
{
    const struct rewrite_conf *conf = req_loc_conf(r, rewrite_slot);
    bool log = conf->log;

    for (unsigned i = 0; i < list->count && !*stop; i++) {
        const struct code *code = &list->items[i];
        enum verdict v = V_NEXT;
        int rc;

        switch (code->op) {
        case CODE_REWRITE:
            v = run_rewrite(r, &code->rewrite, log, stop);
            break;
        case CODE_RETURN:
            return run_return(r, &code->ret);
        case CODE_SET:
            run_set(r, &code->set);
            break;
        case CODE_BREAK:
            r->uri_changed = false;
            *stop = true;
            break;
        case CODE_IF:
            rc = test(r, &code->cond, log);
            if (rc < 0)
                return req_status(r, 500);
            if (rc == 0)
                break;
            req_enter_location(r, code->cond.loc);
            if (code->cond.inner != NULL)
                v = run_codes(r, code->cond.inner, stop);
            break;
        }
        if (v != V_NEXT)
            return v;
    }
    return V_NEXT;
}

static enum verdict run_level(struct req *r)
{
    const struct rewrite_conf *conf = req_loc_conf(r, rewrite_slot);
    bool stop = false;

    return conf->codes != NULL ? run_codes(r, conf->codes, &stop) : V_NEXT;
}

static enum verdict server_rewrite_run(struct req *r)
{
    enum verdict v = run_level(r);

    r->uri_changed = false; /* the search for the location comes anyway */
    return v;
}

static enum verdict rewrite_run(struct req *r)
{
    /* Without a location the server's own instructions have run already. */
    return r->loc == r->server->root ? V_NEXT : run_level(r);
}

static bool rewrite_wanted(const struct level *level)
{
    const struct rewrite_conf *conf = level_conf(level, STORE_LOC, rewrite_slot);

    return conf->codes != NULL;
}

#define CTX_REWRITE (CTX_SERVER | CTX_LOCATION | CTX_IF_SERVER | CTX_IF_LOCATION)

static const struct directive directives[] = {
    ROW_CALL("rewrite", CTX_REWRITE, ARGS2 | ARGS3 | ARG_REPEAT, set_rewrite, STORE_LOC,
             "regex replacement [last | break | redirect | permanent]",
             "Changes the URI where it matches."),
    ROW_CALL("return", CTX_REWRITE, ARGS12 | ARG_REPEAT, set_return, STORE_LOC,
             "code [text] | code URL | URL", "Answers with a status, a text or a redirect."),
    ROW_CALL("set", CTX_REWRITE, ARGS2 | ARG_REPEAT, set_set, STORE_LOC, "$variable value",
             "Sets a variable."),
    ROW_CALL("break", CTX_REWRITE, ARGS0 | ARG_REPEAT, set_break, STORE_LOC, "",
             "Ends this module's directives here."),
    ROW_CALL("if", CTX_SERVER | CTX_LOCATION, ARGS1_MORE | ARG_BLOCK | ARG_REPEAT, set_if,
             STORE_LOC, "(condition) { ... }", "Settings for requests that a condition holds for."),
    ROW("rewrite_log", CTX_HSL | CTX_IF_SERVER | CTX_IF_LOCATION, ARG_FLAG, conf_set_flag,
        STORE_LOC, struct rewrite_conf, log, INHERIT_SCALAR, "off", "on | off",
        "Logs what this module does at level notice."),
    ROW("uninitialized_variable_warn", CTX_HSL | CTX_IF_SERVER | CTX_IF_LOCATION, ARG_FLAG,
        conf_set_flag, STORE_LOC, struct rewrite_conf, warn, INHERIT_SCALAR, "on", "on | off",
        "Warns of variables that were never set."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_SERVER_REWRITE, HOOK_REWRITE, server_rewrite_run, rewrite_wanted },
    { PHASE_REWRITE, HOOK_REWRITE, rewrite_run, rewrite_wanted },
    HOOK_END,
};

static const struct http_module http_rewrite = { .hooks = hooks };

const struct module module_http_rewrite = {
    .name = "http_rewrite",
    .slot = &rewrite_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct rewrite_conf) },
    .directives = directives,
    .http = &http_rewrite,
};
