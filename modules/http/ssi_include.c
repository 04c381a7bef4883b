/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * include: a subrequest whose output stands where the command stood. They all run at once; the
 * page goes on at once too unless it is to wait, or the answer is to become a variable.
 */
#include "core/base/fmt.h"
#include "core/http/h1.h"
#include "modules/http/ssi_commands.h"

struct include {
    struct ssi *s;
    bool set;
    struct str name; /* of the variable */
};

/* What the page waits for is over. */
static void on_end(struct req *child, void *data)
{
    struct include *i = data;

    if (i->set) {
        if (!child->aborted && child->out.status < 300 && child->sub_out.bytes > 0)
            ssi_shared_set(i->s->shared, i->name, chain_flatten(&child->sub_out, child->arena),
                           &child->log);
        chain_clear(&child->sub_out);
    }
    ssi_go_on(i->s);
}

/* "yes" or "no". False: logged. */
static bool read_wait(struct ssi *s, const struct str *wait, const struct str *file, bool *yes)
{
    *yes = false;
    if (wait == NULL)
        return true;
    if (file != NULL) {
        log_error(&s->r->log, 0, "\"wait\" cannot be used with file=\"%.*s\"", STR_ARG(*file));
        return false;
    }
    *yes = str_caseeq(*wait, STR("yes"));
    if (*yes || str_caseeq(*wait, STR("no")))
        return true;
    log_error(&s->r->log, 0, "invalid value \"%.*s\" in the \"wait\" parameter", STR_ARG(*wait));
    return false;
}

static bool check(struct ssi *s, const struct str *const *params)
{
    const struct logger *log = &s->r->log;

    if (params[INCLUDE_VIRTUAL] != NULL && params[INCLUDE_FILE] != NULL) {
        log_error(log, 0, "inclusion may be either virtual=\"%.*s\" or file=\"%.*s\"",
                  STR_ARG(*params[INCLUDE_VIRTUAL]), STR_ARG(*params[INCLUDE_FILE]));
        return false;
    }
    if (params[INCLUDE_VIRTUAL] == NULL && params[INCLUDE_FILE] == NULL) {
        log_error(log, 0, "no parameter in \"include\" SSI command");
        return false;
    }
    if (params[INCLUDE_SET] != NULL && params[INCLUDE_STUB] != NULL) {
        log_error(log, 0,
                  "\"set\" and \"stub\" cannot be used together in \"include\" SSI command");
        return false;
    }
    return true;
}

/* The path is decoded once; one that leads upwards is refused, however it is written. */
static bool read_uri(struct ssi *s, struct str text, struct str *uri, struct str *args)
{
    bool safe;
    ssize_t mark;
    char *end;

    if (ssi_evaluate(&s->scope, text, SSI_RELATIVE, &text) != 0)
        return false;
    text = str_dup(s->r->arena, text);
    mark = str_chr(text, '?');
    *args = mark < 0 ? STR_NULL : str_skip(text, (size_t) mark + 1);
    *uri = mark < 0 ? text : str_from(text.ptr, (size_t) mark);
    safe = uri_check_unsafe(*uri) == 0;
    end = fmt_unescape((char *) (uintptr_t) uri->ptr, *uri);
    uri->len = (size_t) (end - uri->ptr);
    if (!safe)
        log_error(&s->r->log, 0, "unsafe URI \"%.*s\" was detected", STR_ARG(*uri));
    return safe;
}

static struct req *start(struct ssi *s, const struct str *const *params, bool wait)
{
    const struct str *set = params[INCLUDE_SET];
    unsigned flags = SUB_WITH_BODY | (set != NULL ? SUB_IN_MEMORY : 0);
    struct include *i = NULL;
    struct str uri, args, text;

    if (!read_uri(
            s, params[INCLUDE_VIRTUAL] != NULL ? *params[INCLUDE_VIRTUAL] : *params[INCLUDE_FILE],
            &uri, &args))
        return NULL;
    if (wait) {
        i = ARENA_NEW(s->r->arena, struct include);
        i->s = s;
        i->set = set != NULL;
        if (i->set)
            i->name = str_dup(s->r->arena, *set);
    }
    /* Empty, should nothing come of it. */
    if (set != NULL && !ssi_shared_get(s->shared, *set, &text) &&
        !ssi_shared_set(s->shared, *set, STR(""), &s->r->log))
        return NULL;
    return req_subrequest(s->r, uri, args, flags, wait ? on_end : NULL, i);
}

enum ssi_result ssi_include(struct ssi *s, const struct str *const *params, struct chain *out)
{
    const struct str *file = params[INCLUDE_FILE], *name = params[INCLUDE_STUB];
    struct chain stub = CHAIN_INIT;
    struct req *child;
    bool wait;

    if (!check(s, params) || !read_wait(s, params[INCLUDE_WAIT], file, &wait))
        return SSI_FAILED;
    if (name != NULL && !ssi_shared_stub(s->shared, *name, &stub)) {
        log_error(&s->r->log, 0, "\"stub\"=\"%.*s\" for \"include\" not found", STR_ARG(*name));
        return SSI_FAILED;
    }
    wait |= file != NULL || params[INCLUDE_SET] != NULL;
    child = start(s, params, wait);
    if (child == NULL) {
        chain_clear(&stub);
        return SSI_FAILED;
    }
    if (name != NULL)
        ssi_stub_attach(child, &stub);
    if (params[INCLUDE_SET] == NULL)
        chain_push_link(out, &child->sub_out);
    return wait ? SSI_WAIT : SSI_OK;
}
