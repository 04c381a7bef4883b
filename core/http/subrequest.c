/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subrequests: how one is made, when it is started, and what its end means to its parent and its own
 * children. What it answers goes through answer.c, its steps are those of any request (req.c).
 */
#include "core/http/subrequest.h"

#include "core/http/answer.h"
#include "core/http/trace.h"

/* So many of one request are at work at a time, so that a page with a thousand includes does not take all connections. */
#define AT_WORK_MAX 64

/* Turns -------------------------------------------------------------------------------------- */

/*
 * What has output in the answer is started in the order in which it was made, of each parent one at least:
 * the child whose output comes next is always at work, so that all get on.
 */
static bool has_turn(const struct req *r)
{
    return (r->main->at_work < AT_WORK_MAX && list_empty(&r->main->queue))
           || (r->parent != r->main && r->parent->at_work == 0);
}

static void take_turn(struct req *r)
{
    r->main->at_work++;
    if (r->parent != r->main)
        r->parent->at_work++;
    loop_later(&r->run_later);
}

static void wait_for_turn(struct req *r)
{
    r->queued = true;
    list_push_back(&r->main->queue, &r->turn);
}

void subrequest_leave_turn(struct req *r)
{
    if (r->queued) {
        r->queued = false;
        list_remove(&r->turn);
        return;
    }
    r->main->at_work--;
    if (r->parent != r->main)
        r->parent->at_work--;
}

/* A child of parent is over. */
static void next_turn(struct req *main, struct req *parent)
{
    struct list *n, *next;

    for (n = main->queue.next; n != &main->queue; n = next) {
        struct req *r = container_of(n, struct req, turn);

        next = n->next;
        if (main->at_work >= AT_WORK_MAX) {
            if (parent == main || parent->at_work > 0)
                return;
            if (r->parent != parent)
                continue;
        }
        r->queued = false;
        list_remove(&r->turn);
        take_turn(r);
    }
}

/* The end ------------------------------------------------------------------------------------ */

void subrequest_end_all(struct req *r, bool background)
{
    struct list *n, *next;

    for (n = r->children.next; n != &r->children; n = next) {
        struct req *child = container_of(n, struct req, sibling);

        next = n->next;
        if (child->background && !background)
            continue;
        child->on_child = NULL;
        subrequest_end_all(child, background);
        req_end_log(child);
        list_remove(&child->sibling);
        req_release(child);
        chain_clear(&child->sub_out);
    }
}

/* A subrequest that goes leaves its background children to the main request. */
static void leave_background(struct req *r)
{
    struct list *n, *next;

    for (n = r->children.next; n != &r->children; n = next) {
        struct req *child = container_of(n, struct req, sibling);

        next = n->next;
        if (!child->background)
            continue;
        list_remove(&child->sibling);
        list_push_back(&r->main->children, &child->sibling);
        child->parent = r->main;
        child->on_child = NULL;
    }
}

/* Whether children are at work whose output or end the request waits for. */
static bool waits_for_children(const struct req *r)
{
    for (const struct list *n = r->children.next; n != &r->children; n = n->next) {
        if (!container_of(n, const struct req, sibling)->background)
            return true;
    }
    return false;
}

void req_child_end(struct req *r)
{
    struct req *parent = r->parent, *main = r->main;

    if (r->finished)
        return;
    leave_background(r);
    subrequest_end_all(r, false);
    req_end_log(r);
    list_remove(&r->sibling);
    req_release(r);
    if (r->sub_in_memory)
        answer_settle(r);
    if (r->on_child != NULL)
        r->on_child(r, r->on_child_data);
    if (main->finished)
        return;
    if (main->output_done && list_empty(&main->children)) {
        req_finish_main(main);
        return;
    }
    next_turn(main, parent);
    if (parent != main && parent->ended && !parent->finished && !waits_for_children(parent))
        req_child_end(parent);
    if (r->linked)
        answer_splice(main, 0);
}

void req_child_ended(struct req *r)
{
    r->ended = true;
    if (!waits_for_children(r))
        req_child_end(r);
    else if (r->linked)
        answer_splice(r->main, 0);
}

/* The beginning ------------------------------------------------------------------------------ */

/* True: not one more; logged. */
static bool too_many(struct req *parent, struct str uri, unsigned flags)
{
    struct req *main = parent->main;

    if (parent->depth_left == 0) {
        log_error(&parent->log, 0, "subrequests cycle while processing \"%.*s\"", STR_ARG(uri));
        return true;
    }
    if ((flags & SUB_CLONE) == 0
        && main->subrequests++ >= (uint64_t) parent->loc->core->subrequests_limit) {
        log_error(&parent->log, 0,
                  "more than %lld subrequests (subrequests_limit) while processing \"%.*s\"",
                  (long long) parent->loc->core->subrequests_limit, STR_ARG(uri));
        return true;
    }
    return false;
}

/* A clone goes on where its parent stands: its location and all that was found out about the URI. */
static void clone_place(struct req *r, const struct req *parent)
{
    r->valid_unparsed_uri = parent->valid_unparsed_uri;
    r->valid_location = parent->valid_location;
    r->uri_below_alias = parent->uri_below_alias;
    r->complex_uri = parent->complex_uri;
    r->match = parent->match;
    r->eval.match = parent->eval.match ? &r->match : NULL;
    r->eval.match_subject = parent->eval.match_subject;
    req_enter_location(r, parent->loc);
    r->step = STEP_CONTENT;
}

static void set_flags(struct req *r, unsigned flags)
{
    r->background = flags & SUB_BACKGROUND;
    r->sub_in_memory = flags & SUB_IN_MEMORY;
    r->sub_head_only = flags & SUB_HEAD_ONLY;
    r->sub_with_body = flags & (SUB_WITH_BODY | SUB_KEEP_METHOD | SUB_CLONE);
    r->sub_clone = flags & SUB_CLONE;
    r->dropped = !r->sub_in_memory && (r->background || r->sub_head_only || r->parent->dropped);
    r->linked = !r->sub_in_memory && !r->dropped;
    if (r->sub_in_memory)
        r->collector = r;
    else if (r->linked)
        r->collector = r->parent->collector;
    r->in_memory = r->collector != NULL;
}

/* What nobody has taken when the main request ends: of children that were over before their turn came, too. */
static void drop_output(void *arg)
{
    chain_clear(arg);
}

struct req *req_subrequest(struct req *parent, struct str uri, struct str args, unsigned flags,
                           void (*done)(struct req *child, void *data), void *data)
{
    bool keep_method = flags & (SUB_KEEP_METHOD | SUB_CLONE);
    struct req *r;

    if (too_many(parent, uri, flags))
        return NULL;
    r = ARENA_NEW(parent->arena, struct req);
    req_init(r, parent->arena);
    arena_defer(r->arena, drop_output, &r->sub_out);
    r->main = parent->main;
    r->parent = parent;
    r->client = parent->client;
    r->ops = &subrequest_ops;
    r->server = parent->server;
    r->eval.space = parent->eval.space;
    r->eval.values = parent->eval.values;
    r->depth_left = parent->depth_left - 1;
    r->in = parent->in;
    r->method = keep_method ? parent->method : METHOD_GET;
    r->method_name = keep_method ? parent->method_name : STR("GET");
    r->unparsed_uri = parent->unparsed_uri;
    r->host = parent->host;
    r->uri = uri;
    r->args = args.len > 0 ? args : STR_NULL;
    req_set_exten(r);
    r->internal = true;
    r->start_ms = parent->start_ms;
    r->log = parent->log;
    r->log.data = r;
    set_flags(r, flags);
    r->main->has_links |= r->linked;
    r->on_child = done;
    r->on_child_data = data;
    list_push_back(&parent->children, &r->sibling);
    if (flags & SUB_CLONE) {
        clone_place(r, parent);
    } else {
        req_enter_location(r, r->server->root);
        r->step = STEP_SERVER_REWRITE;
    }
    if (req_explained())
        trace_subrequest(r);
    if (!r->linked)
        loop_later(&r->run_later);
    else if (has_turn(r))
        take_turn(r);
    else
        wait_for_turn(r);
    return r;
}
