/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine: a request is taken through its steps until it waits, answers or ends. This file
 * owns the order of phases, the location search between them, satisfy, internal redirects and
 * the end of a request; subrequest.c makes and ends subrequests. It knows no module and no protocol: hooks come
 * from the location, output goes through r->ops.
 */
#include "core/http/req.h"

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/http/client.h"
#include "core/http/error_page.h"
#include "core/http/subrequest.h"
#include "core/http/trace.h"

/* One more than the ten redirects that are allowed. */
#define RESTARTS 11

static void run(struct req *r);

static void run_later(struct later *later)
{
    run(container_of(later, struct req, run_later));
}

static void destroy(struct doomed *item)
{
    struct req *r = container_of(item, struct req, doomed);

    /* Children live in the main request's arena and go with it. */
    if (r == r->main)
        arena_destroy(r->arena);
}

void req_init(struct req *r, struct arena *arena)
{
    r->arena = arena;
    r->eval.arena = arena;
    r->eval.log = &r->log;
    r->restarts_left = RESTARTS;
    r->limit_rate = r->limit_rate_after = UINT64_MAX;
    r->last_modified = -1;
    r->valid_location = true;
    r->run_later.run = run_later;
    r->doomed.destroy = destroy;
    r->start_ms = clock_ms();
    r->start_s = clock_time();
    r->start_msec = clock_time_ms();
    list_init(&r->waits);
    list_init(&r->children);
    list_init(&r->sibling);
    list_init(&r->queue);
    msg_init(&r->out, arena, 8);
    r->out.content_length = -1;
}

struct req *req_new(struct client *client, struct arena *arena)
{
    struct req *r = ARENA_NEW(arena, struct req);

    req_init(r, arena);
    r->main = r;
    r->client = client;
    r->eval.values = &r->values;
    r->depth_left = SUBREQUEST_DEPTH;
    r->body.length = 0;
    return r;
}

/* Verdicts ---------------------------------------------------------------------------------- */

enum verdict req_status(struct req *r, unsigned status)
{
    r->status_wanted = status;
    return V_STATUS;
}

void req_set_exten(struct req *r)
{
    ssize_t dot = str_rchr(r->uri, '.');
    ssize_t slash = str_rchr(r->uri, '/');

    /* A name that begins with its only dot has none here, while it has one in a request line, as in nginx. */
    r->exten = dot > slash + 1 ? str_skip(r->uri, (size_t) dot + 1) : STR_NULL;
}

enum verdict req_restart_uri(struct req *r, struct str uri, struct str args)
{
    r->uri = uri;
    r->args = args.len > 0 ? args : STR_NULL;
    req_set_exten(r);
    r->restart = RESTART_URI;
    return V_RESTART;
}

enum verdict req_restart_named(struct req *r, struct str name)
{
    r->restart = RESTART_NAMED;
    r->restart_name = name;
    return V_RESTART;
}

enum verdict req_redirect(struct req *r, unsigned status, struct str location)
{
    fields_set(&r->out, &r->out.fields, T_LOCATION, location);
    return req_status(r, status);
}

const struct addr *req_peer(const struct req *r, struct addr *room)
{
    const struct addr *realip = r->main->realip;

    return unlikely(realip != NULL) ? realip : client_socket_peer(r->client, room);
}

/* Waits and module state -------------------------------------------------------------------- */

void wait_begin(struct req *r, struct wait *w, void (*cancel)(struct wait *w))
{
    w->req = r;
    w->cancel = cancel;
    list_push_back(&r->waits, &w->link);
}

void wait_end(struct wait *w)
{
    if (w->req == NULL)
        return;
    list_remove(&w->link);
    w->req = NULL;
}

static void cancel_waits(struct req *r)
{
    struct list *n;

    while ((n = list_pop_front(&r->waits)) != NULL) {
        struct wait *w = container_of(n, struct wait, link);

        w->req = NULL;
        w->cancel(w);
    }
}

static void client_gone(struct req *main)
{
    main->on_hup = NULL;
    log_info(&main->log, 0, "client prematurely closed connection");
    req_abort(main, 499);
}

void req_on_hup(struct req *main, void (*f)(struct req *r))
{
    struct conn *conn = main->client->conn;

    main->on_hup = f;
    /* The connection has told it once, to nobody: it is asked to tell it again. */
    if ((conn->ready & CONN_HUP) && !conn->closed)
        conn_want(conn, conn->wants);
}

void req_watch_client(struct req *r, bool on)
{
    struct req *main = r->main;

    if (on && main->on_hup == NULL)
        req_on_hup(main, client_gone);
    else if (!on && main->on_hup == client_gone)
        main->on_hup = NULL;
}

void *req_ctx(const struct req *r, unsigned slot)
{
    for (const struct req_ctx *c = r->ctx; c != NULL; c = c->next) {
        if (c->slot == slot)
            return c->data;
    }
    return NULL;
}

void req_ctx_set(struct req *r, unsigned slot, void *data, unsigned lifetime)
{
    struct req_ctx *c;

    for (c = r->ctx; c != NULL; c = c->next) {
        if (c->slot == slot)
            break;
    }
    if (c == NULL) {
        c = ARENA_NEW(r->arena, struct req_ctx);
        c->slot = slot;
        c->next = r->ctx;
        r->ctx = c;
    }
    c->lifetime = lifetime;
    c->data = data;
}

void req_forget_pass(struct req *r)
{
    for (struct req_ctx **p = &r->ctx; *p != NULL;) {
        if ((*p)->lifetime == CTX_PASS)
            *p = (*p)->next;
        else
            p = &(*p)->next;
    }
    r->filters = NULL;
    r->filter_count = 0;
    r->in_memory = r->collector != NULL;
    r->merged_in_memory = false;
}

/* Location search --------------------------------------------------------------------------- */

/* keepalive_disable: browsers known to misbehave on a connection that is kept alive. */
static bool misbehaves(struct req *r, unsigned browsers)
{
    struct str agent;

    if (likely(r->method != METHOD_POST) && !(browsers & KA_DISABLE_SAFARI))
        return false;
    agent = fields_value(&r->in->fields, T_USER_AGENT);
    if (agent.len == 0)
        return false;
    if ((browsers & KA_DISABLE_MSIE6) && r->method == METHOD_POST
        && str_find(agent, STR("MSIE 6.")) >= 0 && str_find(agent, STR("Opera")) < 0)
        return true;
    return (browsers & KA_DISABLE_SAFARI) && str_find(agent, STR("Safari/")) >= 0
           && str_find(agent, STR("Mac OS X")) >= 0 && str_find(agent, STR("Chrome")) < 0;
}

/* Keep-alive as far as the location and the connection's age decide it. */
static void judge_keep_alive(struct req *r)
{
    const struct core_loc *core = r->loc->core;
    struct client *c = r->client;

    if (!r->keep_alive || r != r->main)
        return;
    if (core->keepalive_timeout_ms == 0 || (int64_t) c->requests >= core->keepalive_requests
        || clock_ms() - c->start_ms > core->keepalive_time_ms || c->draining
        || misbehaves(r, core->keepalive_disable))
        r->keep_alive = false;
}

/* A location's settings come into force. */
void req_enter_location(struct req *r, const struct location *loc)
{
    r->loc = loc;
    r->log.scope = r->client->debug ? r->client->debug : loc->core->error_log;
    judge_keep_alive(r);
}

static enum verdict auto_slash(struct req *r)
{
    struct str path = fmt_escape_dup(r->arena, r->uri, FMT_ESCAPE_URI);

    return req_redirect(r, 301,
                        str_printf(r->arena, "%.*s/%s%.*s", STR_ARG(path), r->args.len ? "?" : "",
                                   STR_ARG(r->args)));
}

/* limit_except: other settings for the methods that it does not list. */
static const struct location *for_method(const struct req *r, const struct location *loc)
{
    return unlikely(loc->limit_except != NULL) && (r->method & loc->limit_except_methods) == 0
               ? loc->limit_except
               : loc;
}

static enum verdict find_location(struct req *r)
{
    bool redirect = false, failed = false;
    const struct location *loc;

    loc = http_location_find(r->server->root, r->uri, &r->eval, &r->match, &redirect, &failed);
    if (unlikely(failed))
        return req_status(r, 500);
    if (loc == NULL)
        loc = r->server->root;
    loc = for_method(r, loc);
    req_enter_location(r, loc);
    if (req_explained()) {
        trace_location(r, redirect);
        trace_body_size(r);
    }
    if (unlikely(loc->core->internal) && !r->internal)
        return req_status(r, 404);
    if (redirect)
        return auto_slash(r);
    if (r->main->body.length > 0 && !r->main->body.discarding && loc->core->client_max_body_size != 0
        && (uint64_t) r->main->body.length > loc->core->client_max_body_size) {
        log_error(&r->log, 0, "client intended to send too large body: %lld bytes",
                  (long long) r->main->body.length);
        r->main->body.discarding = true;
        return req_status(r, 413);
    }
    return V_NEXT;
}

static enum verdict post_rewrite(struct req *r)
{
    if (likely(!r->uri_changed))
        return V_NEXT;
    if (--r->restarts_left == 0) {
        log_error(&r->log, 0, "rewrite or internal redirection cycle while processing \"%.*s\"",
                  STR_ARG(r->uri));
        return req_status(r, 500);
    }
    r->uri_changed = false;
    r->loc = r->server->root;
    r->step = STEP_FIND;
    return V_NEXT;
}

/* Phases ------------------------------------------------------------------------------------ */

static enum verdict run_hooks(struct req *r, enum phase phase)
{
    enum verdict (*const *hooks)(struct req *) = r->loc->hooks[phase];

    for (; hooks[r->hook] != NULL; r->hook++) {
        enum verdict v = hooks[r->hook](r);

        if (v != V_NEXT)
            return v;
    }
    return V_NEXT;
}

static bool is_refusal(unsigned status)
{
    return status == 401 || status == 403 || status == 407;
}

/*
 * satisfy, hook by hook: under `all` the first refusal decides, under `any` the first hook that
 * allows. Only 401, 403 and 407 are refusals; any other status ends the request either way.
 */
static enum verdict judge_access(struct req *r, enum verdict v)
{
    bool any = r->loc->core->satisfy == SATISFY_ANY;

    if (v == V_ALLOW) {
        if (!any)
            return V_NEXT;
        r->refused = 0;
        fields_delete(&r->out.fields, T_WWW_AUTHENTICATE);
        return V_ALLOW;
    }
    if (v == V_STATUS && any && is_refusal(r->status_wanted)) {
        req_trace(r, req_where(r, "satisfy"), "satisfy any: %u is not the last word", r->status_wanted);
        if (r->refused != 401)
            r->refused = r->status_wanted;
        return V_NEXT;
    }
    return v;
}

static enum verdict run_access(struct req *r)
{
    enum verdict (*const *hooks)(struct req *) = r->loc->hooks[PHASE_ACCESS];

    if (r != r->main)
        return V_NEXT;
    for (; hooks[r->hook] != NULL; r->hook++) {
        enum verdict v = judge_access(r, hooks[r->hook](r));

        if (v == V_ALLOW)
            return V_NEXT;
        if (v != V_NEXT)
            return v;
    }
    return V_NEXT;
}

static enum verdict post_access(struct req *r)
{
    /* The refusal stands until a restart: whoever comes by here again while auth_delay waits is refused too. */
    if (likely(r->refused == 0))
        return V_NEXT;
    req_trace(r, req_where(r, "satisfy"), "satisfy any: nothing has granted access");
    if (r->refused == 403)
        log_error(&r->log, 0, "access forbidden by rule");
    return req_status(r, r->refused);
}

/* auth_delay: a 401 of the access phase waits, so that its time tells nothing of what was compared. */
struct auth_delay {
    struct wait wait;
    struct timer timer;
};

static void delay_cancel(struct wait *w)
{
    timer_drop(&container_of(w, struct auth_delay, wait)->timer);
}

static void delay_over(struct timer *timer)
{
    struct auth_delay *d = container_of(timer, struct auth_delay, timer);
    struct req *r = d->wait.req;

    wait_end(&d->wait);
    timer_drop(timer);
    req_watch_client(r, false);
    r->delayed = true;
    req_deliver(r, req_status(r, 401));
}

static enum verdict delay_refusal(struct req *r)
{
    uint64_t ms = r->loc->core->auth_delay_ms;
    struct auth_delay *d;

    if (r->status_wanted != 401 || ms == 0)
        return V_STATUS;
    if (r->delayed) {
        r->delayed = false;
        return V_STATUS;
    }
    log_info(&r->log, 0, "delaying unauthorized request");
    d = ARENA_NEW(r->arena, struct auth_delay);
    d->timer.fire = delay_over;
    wait_begin(r, &d->wait, delay_cancel);
    timer_set(&d->timer, ms);
    req_watch_client(r, true);
    return V_WAIT;
}

static enum verdict run_content(struct req *r)
{
    enum verdict v;

    if (unlikely(r->method == METHOD_CONNECT) && !r->loc->allow_connect)
        return req_status(r, 405);
    if (r->loc->handler != NULL)
        return r->loc->handler(r);
    v = run_hooks(r, PHASE_CONTENT);
    if (v != V_NEXT)
        return v;
    if (r->uri.len > 0 && r->uri.ptr[r->uri.len - 1] == '/') {
        struct str path;
        size_t root;

        if (req_map_path(r, &path, &root, 0) == 0)
            log_error(&r->log, 0, "directory index of \"%s\" is forbidden", path.ptr);
        return req_status(r, 403);
    }
    log_error(&r->log, 0, "no handler found");
    return req_status(r, 404);
}

static enum verdict run_step(struct req *r)
{
    switch ((enum step) r->step) {
    case STEP_POST_READ:
        return run_hooks(r, PHASE_POST_READ);
    case STEP_SERVER_REWRITE:
        return run_hooks(r, PHASE_SERVER_REWRITE);
    case STEP_FIND:
        return find_location(r);
    case STEP_REWRITE:
        return run_hooks(r, PHASE_REWRITE);
    case STEP_POST_REWRITE:
        return post_rewrite(r);
    case STEP_PREACCESS:
        return run_hooks(r, PHASE_PREACCESS);
    case STEP_ACCESS:
        return run_access(r);
    case STEP_POST_ACCESS:
        return post_access(r);
    case STEP_PRECONTENT:
        return run_hooks(r, PHASE_PRECONTENT);
    case STEP_CONTENT:
        return run_content(r);
    case STEP_ANSWERING:
        break;
    }
    return answer_continue(r);
}

/* A verdict that came from outside stands for the waiting hook's. True: use *v as the step's. */
static bool take_pending(struct req *r, enum verdict *v)
{
    if (!r->has_pending)
        return false;
    r->has_pending = false;
    *v = r->pending;
    if (r->step == STEP_ACCESS) {
        *v = judge_access(r, *v);
        if (*v == V_ALLOW) {
            *v = V_NEXT; /* granted: the phase is over */
            return true;
        }
    }
    if (*v == V_NEXT && r->step != STEP_CONTENT) {
        r->hook++; /* that hook has spoken: ask the next one */
        return false;
    }
    return true;
}

static enum verdict restart(struct req *r)
{
    if (--r->restarts_left == 0) {
        log_error(&r->log, 0, "rewrite or internal redirection cycle while %s \"%.*s\"",
                  r->restart == RESTART_NAMED ? "redirect to named location" : "internally redirecting to",
                  STR_ARG(r->restart == RESTART_NAMED ? r->restart_name : r->uri));
        return req_status(r, 500);
    }
    if (req_explained())
        trace_restart(r);
    r->internal = true;
    r->uri_changed = false;
    r->hook = 0;
    r->refused = 0;
    r->range_refused = false;
    r->uri_below_alias = false;
    if (r->restart == RESTART_URI) {
        r->valid_unparsed_uri = false;
        r->valid_location = true;
        req_forget_pass(r);
        req_enter_location(r, r->server->root);
        r->step = STEP_SERVER_REWRITE;
        return V_NEXT;
    }
    if (r->uri.len == 0) {
        log_error(&r->log, 0, "empty URI in redirect to named location \"%.*s\"",
                  STR_ARG(r->restart_name));
        return req_status(r, 500);
    }
    const struct location *loc = http_location_named(r->server, r->restart_name);

    if (loc == NULL) {
        log_error(&r->log, 0, "could not find named location \"%.*s\"", STR_ARG(r->restart_name));
        return req_status(r, 500);
    }
    req_forget_pass(r);
    req_enter_location(r, for_method(r, loc));
    if (req_explained())
        trace_location(r, false);
    r->step = STEP_REWRITE;
    return V_NEXT;
}

/*
 * Advances r until it waits, answers or ends. Never re-entered for the same request: whoever calls
 * in from inside (a body read that completes at once) is served by the run that is on the stack.
 */
static void run(struct req *r)
{
    bool at_start = false; /* the step was just (re)entered by a restart: do not advance it */

    if (r->running || r->finished)
        return;
    r->running = true;
    for (;;) {
        unsigned char step = r->step;
        enum verdict v;

        if (!take_pending(r, &v))
            v = run_step(r);
        if (unlikely(r->finished))
            break;
        if (unlikely(v == V_STATUS) && (step == STEP_ACCESS || step == STEP_POST_ACCESS))
            v = delay_refusal(r);
        if (unlikely(r->head_sent) && (v == V_STATUS || v == V_RESTART))
            v = V_ABORT;
        at_start = false;
        while (v == V_STATUS || v == V_RESTART) {
            v = v == V_STATUS ? error_page_handle(r) : restart(r);
            at_start = true;
        }
        if (v == V_NEXT || v == V_ALLOW) {
            if (step == STEP_ANSWERING)
                break;
            if (!at_start && r->step == step) {
                r->step++;
                r->hook = 0;
            }
            continue;
        }
        if (v == V_ANSWER)
            r->step = STEP_ANSWERING;
        if (v == V_ABORT) {
            r->running = false;
            req_abort(r, 0);
            return;
        }
        break;
    }
    r->running = false;
}

void req_start(struct req *r)
{
    r->loc = r->server->root;
    req_enter_location(r, r->loc);
    r->step = STEP_POST_READ;
    run(r);
}

void req_start_error(struct req *r, unsigned status)
{
    req_enter_location(r, r->server->root);
    r->step = STEP_CONTENT;
    r->pending = req_status(r, status);
    r->has_pending = true;
    run(r);
}

void req_resume(struct req *r)
{
    if (!r->finished)
        loop_later(&r->run_later);
}

void req_deliver(struct req *r, enum verdict v)
{
    if (r->finished)
        return;
    r->pending = v;
    r->has_pending = true;
    if (!r->running)
        run(r);
}

/* The end ------------------------------------------------------------------------------------ */

void req_end_log(struct req *r)
{
    if (req_explained()) {
        /* There was no request, and no log is to say so. */
        if (!r->logged)
            trace_end(r);
        r->logged = true;
        return;
    }
    if (r->logged || (r != r->main && !r->loc->core->log_subrequest))
        return;
    r->logged = true;
    r->log.action = "logging request";
    r->hook = 0;
    run_hooks(r, PHASE_LOG);
}

void req_release(struct req *r)
{
    if (r->linked)
        subrequest_leave_turn(r);
    r->finished = true;
    loop_later_cancel(&r->run_later);
    loop_later_cancel(&r->drain);
    cancel_waits(r);
    chain_clear(&r->boundary);
    if (r == r->main) {
        body_release(r);
        loop_destroy_soon(&r->doomed);
    }
}

void req_abort(struct req *r, unsigned status)
{
    if (r->finished)
        return;
    if (r != r->main) {
        r->aborted = true;
        if (r->collector != NULL && r->collector != r) {
            req_abort(r->collector, status);
            return;
        }
        /* A broken child breaks the stream that it is part of; one of which only the status is
         * wanted, or which lives for itself, just ends. */
        if (r->dropped || r->sub_in_memory) {
            if (r->out.status == 0)
                r->out.status = status ? status : 500;
            req_child_end(r);
            return;
        }
        req_abort(r->main, status);
        return;
    }
    if (status != 0 && !r->head_sent)
        r->out.status = status;
    r->aborted = true;
    cancel_waits(r);
    subrequest_end_all(r, true);
    req_end_log(r);
    req_release(r);
    r->ops->reset(r);
}

void req_finish_main(struct req *r)
{
    req_end_log(r);
    req_release(r);
    r->ops->finished(r);
}

void req_done(struct req *r)
{
    if (r->finished || r->output_done)
        return;
    r->output_done = true;
    cancel_waits(r);
    subrequest_end_all(r, false);
    if (list_empty(&r->children))
        req_finish_main(r);
}
