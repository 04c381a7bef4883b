/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statuses that nobody has answered: the error_page lines of the location in force, or the
 * built-in page. Called by the engine only (req.c). Nothing has been sent when this runs.
 */
#include "core/http/error_page.h"

#include "core/http/answer.h"
#include "core/http/trace.h"

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

const struct error_page *error_page_find(const struct req *r, unsigned status)
{
    const struct error_pages *pages = &r->loc->core->error_page;

    for (unsigned i = 0; i < pages->count; i++) {
        const struct error_page *p = &pages->items[i];

        for (unsigned k = 0; k < p->code_count; k++) {
            if (p->codes[k] == status)
                return p;
        }
    }
    return NULL;
}

/*
 * A local target is fetched by GET whatever the request's method was, a named location keeps it; another
 * place is a redirect, 302 unless "=3xx" says which.
 */
static enum verdict use_page(struct req *r, const struct error_page *page)
{
    struct str target;
    ssize_t mark;

    /* Before the target is made, which may name $status. */
    if (page->overwrite >= 0)
        r->err_status = (unsigned) page->overwrite;
    target = expr_eval(&r->eval, page->uri);
    if (target.len > 0 && target.ptr[0] == '/') {
        struct str args = STR_NULL;

        mark = str_chr(target, '?');
        if (mark >= 0) {
            args = str_skip(target, (size_t) mark + 1);
            target.len = (size_t) mark;
        }
        if (r->method != METHOD_HEAD) {
            r->method = METHOD_GET;
            r->method_name = STR("GET");
        }
        return req_restart_uri(r, target, args);
    }
    if (target.len > 0 && target.ptr[0] == '@')
        return req_restart_named(r, target);

    r->err_status = is_redirect(r->err_status) ? r->err_status : 302;
    fields_set(&r->out, &r->out.fields, T_LOCATION, target);
    return answer_builtin(r, r->err_status);
}

/* After these the connection cannot be trusted to be at a message boundary, or nginx thinks so. */
static bool ends_keep_alive(unsigned status)
{
    switch (status) {
    case 400:
    case 413:
    case 414:
    case 494:
    case 495:
    case 496:
    case 497:
    case 500:
    case 501:
        return true;
    default:
        return false;
    }
}

enum verdict error_page_handle(struct req *r)
{
    unsigned status = r->status_wanted;
    const struct core_loc *core = r->loc->core;

    r->err_status = status;
    if (status == 408 || status == 444 || status == 499)
        return V_ABORT; /* the log shows it, the client nothing */
    r->out.reason = STR_NULL;
    if (unlikely(r->on_status != NULL))
        return r->on_status(r);
    if (ends_keep_alive(status))
        r->keep_alive = false;
    if (core->error_page.count > 0 && r->restarts_left > 0
        && !r->error_page_used) {
        const struct error_page *page = error_page_find(r, status);

        /* Where the first error came from decides, not the page's location. */
        r->error_page_used = !core->recursive_error_pages;
        if (req_explained())
            trace_error_page(r, page);
        if (page != NULL)
            return use_page(r, page);
    }
    return answer_builtin(r, status);
}
