/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rewrite, return, set, if, break: runs a level's instructions, once for the server and once for
 * each location that is entered. Changes the URI, the settings in force (`if`), variables and
 * captures; whatever answers is said by its verdict.
 */
#include "modules/http/rewrite.h"

#include "core/base/fmt.h"
#include "core/http/answer.h"

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

int rewrite_match(struct req *r, const struct regex *re, struct var **captures, struct str subject,
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
    return r == r->main && (str_chr(path, '%') >= 0 || str_chr(path, '+') >= 0);
}

/*
 * A redirect's escapes up to its arguments are undone again where they stand for what needs none, so that
 * "/" or "&" in a capture do not go out as %2F and %26.
 */
static struct str unescape_redirect(struct arena *arena, struct str s)
{
    char *start = arena_bytes(arena, s.len + 1), *p = start;
    size_t i;

    for (i = 0; i < s.len && s.ptr[i] != '?'; i++) {
        uint64_t c;

        if (s.ptr[i] == '%' && i + 2 < s.len && str_to_hex64(str_from(s.ptr + i + 1, 2), &c) == 0
            && c > '%' && c < 0x7f) {
            *p++ = (char) c;
            i += 2;
            if (c == '?') {
                i++;
                break;
            }
        } else {
            *p++ = s.ptr[i];
        }
    }
    p = fmt_str(p, str_skip(s, i));
    return str_from(start, (size_t) (p - start));
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

struct str rewrite_value(struct req *r, const struct value_code *v, const struct run *run)
{
    if (v->parts == NULL)
        return expr_eval(&r->eval, v->text);
    return replace(r, v->parts, 0, v->parts->count, run->escape);
}

static enum verdict redirect(struct req *r, const struct code *code, bool log)
{
    const struct rewrite_code *c = &code->rewrite;
    struct str location = unescape_redirect(r->arena, replace(r, &c->to, 0, c->to.count, true));

    if (c->keep_args && r->args.len > 0)
        location = str_printf(r->arena, "%.*s%c%.*s", STR_ARG(location), c->has_args ? '&' : '?',
                              STR_ARG(r->args));
    if (log)
        log_notice(&r->log, 0, "rewritten redirect: \"%.*s\"", STR_ARG(location));
    req_trace(r, code->pos, "rewrite \"%.*s\" redirects (%u) to \"%.*s\"",
              STR_ARG(regex_pattern(c->regex)), c->status, STR_ARG(location));
    return req_redirect(r, c->status, location);
}

/* The new arguments; args_at is where those of the replacement begin. */
static struct str new_args(struct req *r, const struct rewrite_code *c, unsigned args_at)
{
    struct str args = r->args;

    if (c->to.args_from >= 0) {
        args = replace(r, &c->to, args_at, c->to.count, true);
        if (c->keep_args && r->args.len > 0)
            args = str_printf(r->arena, "%.*s&%.*s", STR_ARG(args), STR_ARG(r->args));
    } else if (!c->keep_args) {
        args = STR("");
    }
    return args;
}

static enum verdict run_rewrite(struct req *r, const struct code *code, struct run *run)
{
    const struct rewrite_code *c = &code->rewrite;
    unsigned uri_end = c->to.args_from >= 0 ? (unsigned) c->to.args_from : c->to.count;
    int rc = rewrite_match(r, c->regex, c->captures, r->uri, run->log);
    struct str uri, args;

    if (rc < 0)
        return req_status(r, 500);
    if (rc == 0)
        return V_NEXT;
    if (c->status != 0)
        return redirect(r, code, run->log);
    run->escape = false;
    uri = replace(r, &c->to, 0, uri_end, false);
    args = new_args(r, c, uri_end);
    if (run->log)
        log_notice(&r->log, 0, "rewritten data: \"%.*s\", args: \"%.*s\"", STR_ARG(uri),
                   STR_ARG(args));
    if (uri.len == 0) {
        log_error(&r->log, 0, "the rewritten URI has a zero length");
        return req_status(r, 500);
    }
    req_trace(r, code->pos, "rewrite \"%.*s\" to \"%.*s%s%.*s\"%s",
              STR_ARG(regex_pattern(c->regex)), STR_ARG(uri), args.len ? "?" : "", STR_ARG(args),
              c->is_break ? ", break" : c->last ? ", last" : "");
    r->uri = uri;
    r->args = args;
    req_set_exten(r);
    r->internal = true;
    r->valid_unparsed_uri = false;
    /* What is searched for anew begins with its location again. */
    if (c->is_break)
        r->valid_location = false;
    r->uri_changed = !c->is_break;
    run->stop = c->last;
    return V_NEXT;
}

/* return ----------------------------------------------------------------------------------------- */

/* These have neither content nor a type. */
static enum verdict answer_empty(struct req *r, unsigned status)
{
    struct chain none = CHAIN_INIT;
    enum verdict v;

    /* An error page that stands for another status is an empty one. */
    if (r->err_status != 0 && r->err_status != status)
        return answer_text(r, status, req_content_type(r), STR(""));
    r->out.status = status;
    r->out.content_length = -1;
    if (!r->body.complete)
        body_discard(r);
    v = answer_head(r);
    if (v != V_NEXT)
        return v;
    return answer_body(r, &none, BODY_END) == V_ABORT ? V_ABORT : V_ANSWER;
}

static enum verdict run_return(struct req *r, const struct code *code)
{
    const struct return_code *c = &code->ret;
    struct str text = STR("");

    if (c->text != NULL) {
        r->out.status = c->status; /* which the text may already name */
        text = expr_eval(&r->eval, c->text);
    }
    req_trace(r, code->pos, text.len ? "return %u \"%.*s\"" : "return %u", c->status,
              STR_ARG(text));
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
        /* A type that is there already came with an X-Accel-Redirect. */
        return answer_text(r, c->status,
                           fields_get(&r->out.fields, T_CONTENT_TYPE) ? STR("")
                                                                      : req_content_type(r),
                           text);
    }
}

/* The list ---------------------------------------------------------------------------------------- */

static void run_set(struct req *r, const struct set_code *c, struct conf_pos pos,
                    const struct run *run)
{
    struct str value = rewrite_value(r, &c->value, run);

    req_trace(r, pos, "set $%.*s to \"%.*s\"", STR_ARG(c->var->name), STR_ARG(value));
    if (c->var->set != NULL)
        c->var->set(&r->eval, c->var, value);
    else
        var_store(&r->eval, c->var, value);
}

static void run_break(struct req *r, struct conf_pos pos)
{
    req_trace(r, pos, "break");
    if (!r->uri_changed)
        return;
    r->uri_changed = false;
    r->valid_location = false;
}

static enum verdict run_codes(struct req *r, const struct code_list *list, struct run *run);

/* The first arm that holds, if there is one, comes into force. */
static enum verdict run_if(struct req *r, const struct if_code *c, struct run *run)
{
    for (unsigned i = 0; i < c->count; i++) {
        const struct if_arm *arm = &c->arms[i];
        int rc = arm->condition ? condition_test(r, arm->condition, run) : 1;

        if (rc < 0)
            return req_status(r, 500);
        req_trace(r, arm->pos, "%.*s %s", STR_ARG(arm->text),
                  arm->condition == NULL ? "applies" : rc ? "is true" : "is false");
        if (rc == 0)
            continue;
        req_enter_location(r, arm->loc);
        return arm->inner != NULL ? run_codes(r, arm->inner, run) : V_NEXT;
    }
    return V_NEXT;
}

static enum verdict run_codes(struct req *r, const struct code_list *list, struct run *run)
{
    for (unsigned i = 0; i < list->count && !run->stop; i++) {
        const struct code *code = &list->items[i];
        enum verdict v = V_NEXT;

        switch (code->op) {
        case CODE_REWRITE:
            v = run_rewrite(r, code, run);
            break;
        case CODE_RETURN:
            return run_return(r, code);
        case CODE_SET:
            run_set(r, &code->set, code->pos, run);
            break;
        case CODE_BREAK:
            run_break(r, code->pos);
            run->stop = true;
            break;
        case CODE_IF:
            v = run_if(r, &code->cond, run);
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
    struct run run = { .log = conf->log, .escape = true };

    return conf->codes != NULL ? run_codes(r, conf->codes, &run) : V_NEXT;
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
    ROW_CALL("elif", CTX_SERVER | CTX_LOCATION, ARGS1_MORE | ARG_BLOCK | ARG_REPEAT, set_elif,
             STORE_LOC, "(condition) { ... }",
             "Behind if or elif: for requests that none of the conditions before held for."),
    ROW_CALL("else", CTX_SERVER | CTX_LOCATION, ARGS_ANY | ARG_BLOCK | ARG_REPEAT, set_else,
             STORE_LOC, "{ ... }",
             "Behind if or elif: for requests that none of the conditions held for."),
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
