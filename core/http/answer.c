/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Responses on their way from the handler to the protocol: the pass of the head through the
 * filters, the body through those that accepted it, and the LINK boundary where the output of
 * subrequests is put in its place. Called by handlers, exchanges and filters; knows no protocol.
 */
#include "core/http/answer.h"

#include "core/base/fmt.h"
#include "core/http/client.h"

/* Head -------------------------------------------------------------------------------------- */

static void forget_response(struct req *r)
{
    struct arena *arena = r->arena;

    msg_init(&r->out, arena, 8);
    r->out.content_length = -1;
    r->last_modified = -1;
    r->allow_ranges = r->single_range = r->expect_trailers = false;
    r->content_offset = 0;
    r->charset = r->override_charset = STR_NULL;
    r->answer_started = false;
    r->err_status = 0;
    req_forget_pass(r);
}

/* Its place among the accepted ones is that of its rank, whenever its head was judged. */
static void accept_filter(struct req *r, const struct filter *f, void *ctx)
{
    unsigned i;

    if (r->filters == NULL)
        r->filters = arena_alloc(r->arena, sizeof(*r->filters) * FILTER_RANKS * 2);
    ASSERT(r->filter_count < FILTER_RANKS * 2);
    for (i = r->filter_count++; i > 0 && r->filters[i - 1].filter->rank > f->rank; i--)
        r->filters[i] = r->filters[i - 1];
    r->filters[i] = (struct filter_run){ .filter = f, .ctx = ctx };
    r->in_memory |= f->in_memory;
    r->merged_in_memory |= f->in_memory && f->rank > FILTER_LINK;
}

/* A server-relative Location becomes absolute with the scheme, the requested host and the listening port. */
static void absolutise_location(struct req *r)
{
    const struct core_loc *core = r->loc->core;
    struct field *f = fields_get(&r->out.fields, T_LOCATION);
    struct str host, scheme = STR("http");
    unsigned port, standard = 80;

    if (f == NULL)
        return;
    f->in_order = !core->absolute_redirect || f->value.len == 0 || f->value.ptr[0] != '/'
                  || r->location_as_is;
    if (f->in_order)
        return;
    host = core->server_name_in_redirect ? r->server->name : r->host;
    if (host.len == 0) {
        const struct addr *a = client_local(r->client);

        host = a != NULL ? addr_dup_text(r->arena, a, false) : STR("");
    }
    port = core->port_in_redirect ? addr_port(client_local(r->client)) : 0;
    if (r->client->tls) {
        scheme = STR("https");
        standard = 443;
    }
    if (port != 0 && port != standard)
        f->value = str_printf(r->arena, "%.*s://%.*s:%u%.*s", STR_ARG(scheme), STR_ARG(host), port,
                              STR_ARG(f->value));
    else
        f->value = str_printf(r->arena, "%.*s://%.*s%.*s", STR_ARG(scheme), STR_ARG(host),
                              STR_ARG(f->value));
}

/* What the filters no longer change: typed values become fields. */
static void complete_head(struct req *r)
{
    struct field *type = fields_get(&r->out.fields, T_CONTENT_TYPE);

    /* A 204 has no content to be of a type, unless add_header says so. */
    if (unlikely(r->out.status == 204) && type != NULL && !type->in_order) {
        type->deleted = true;
        r->charset = STR_NULL;
    }
    if (r->last_modified != -1 && fields_get(&r->out.fields, T_LAST_MODIFIED) == NULL
        && (r->out.status == 200 || r->out.status == 206 || r->out.status == 304)) {
        char *date = arena_bytes(r->arena, FMT_HTTP_DATE);

        fmt_http_date(date, r->last_modified);
        fields_add_token(&r->out, &r->out.fields, T_LAST_MODIFIED, str_from(date, FMT_HTTP_DATE));
    }
    if (r->charset.len > 0 && type != NULL)
        type->value = str_printf(r->arena, "%.*s; charset=%.*s", STR_ARG(type->value),
                                 STR_ARG(r->charset));
    absolutise_location(r);
}

static enum verdict send_head(struct req *r)
{
    complete_head(r);
    r->head_sent = true;
    return r->ops->head(r);
}

static enum verdict judge_with(struct req *r, const struct filter *f)
{
    void *ctx = NULL;

    switch (f->head(r, &ctx)) {
    case HEAD_PASS:
        break;
    case HEAD_TAKE:
        if (f->body != NULL)
            accept_filter(r, f, ctx);
        break;
    case HEAD_HOLD:
        accept_filter(r, f, ctx);
        r->next_filter++;
        r->head_held = true;
        return V_WAIT;
    case HEAD_REPLACE: {
        unsigned status = r->status_wanted;

        forget_response(r);
        return req_status(r, status);
    }
    case HEAD_FAIL:
        return V_ABORT;
    }
    return V_NEXT;
}

/* Filters from r->next_filter on judge the head, those last that are to see what the others made of it. V_WAIT: one holds it. */
static enum verdict judge_head(struct req *r)
{
    const struct filter **filters = r->loc->filters;

    for (;;) {
        for (; filters[r->next_filter] != NULL; r->next_filter++) {
            const struct filter *f = filters[r->next_filter];
            enum verdict v;

            if (r != r->main && f->rank > FILTER_LINK)
                break;
            if (f->after != r->heads_after)
                continue;
            v = judge_with(r, f);
            if (v != V_NEXT)
                return v;
        }
        if (r->heads_after || !r->loc->filters_after)
            return V_NEXT;
        r->heads_after = true;
        r->next_filter = 0;
    }
}

enum verdict answer_head(struct req *r)
{
    enum verdict v;

    ASSERT(!r->head_sent);
    if (r->err_status != 0) {
        r->out.status = r->err_status;
        r->out.reason = STR_NULL;
    }
    r->answer_started = true;
    r->header_only = r->method == METHOD_HEAD || r->out.status == 204 || r->out.status == 304
        || r->out.status < 200 || (r->method == METHOD_CONNECT && r->out.status < 300);
    r->next_filter = 0;
    r->heads_after = false;
    v = judge_head(r);
    if (v == V_WAIT)
        return V_NEXT;
    return v == V_NEXT ? send_head(r) : v;
}

void answer_release_head(struct req *r)
{
    enum verdict v;

    ASSERT(r->head_held);
    r->head_held = false;
    v = judge_head(r);
    if (v == V_NEXT)
        v = send_head(r);
    if (v == V_STATUS || v == V_ABORT)
        req_deliver(r, v);
}

/* Body -------------------------------------------------------------------------------------- */

/* Runs the accepted filters from `first` on whose rank is on the given side of the boundary. */
static enum verdict run_filters(struct req *r, bool below, struct chain *chain, unsigned *flags)
{
    for (unsigned i = 0; i < r->filter_count; i++) {
        struct filter_run *f = &r->filters[i];
        enum verdict v;

        if ((f->filter->rank > FILTER_LINK) != below || f->filter->body == NULL)
            continue;
        v = f->filter->body(r, f->ctx, chain, flags);
        f->waits = v == V_WAIT;
        if (v == V_WAIT)
            r->filter_waits = true;
        else if (v != V_NEXT)
            return V_ABORT;
    }
    return V_NEXT;
}

/* Below the boundary: the merged stream on its way to the protocol. */
static enum verdict send_merged(struct req *main, struct chain *chain, unsigned flags)
{
    if (main->filter_count > 0 && run_filters(main, true, chain, &flags) != V_NEXT)
        return V_ABORT;
    if (flags == 0 && chain_empty(chain))
        return V_NEXT;
    return main->ops->body(main, chain, flags);
}

static struct req *linked_child(const struct piece *p)
{
    return container_of(p->link, struct req, sub_out);
}

/* The child whose output comes next: nothing that stands behind it can move before it has ended. */
static struct req *front_child(const struct req *main)
{
    const struct piece *first = main->boundary.first;

    return first != NULL && first->kind == PIECE_LINK ? linked_child(first) : NULL;
}

/* Takes what stands before the first LINK whose child is still at work. */
static void take_ready(struct chain *queue, struct chain *out)
{
    while (queue->first != NULL) {
        struct req *child;

        if (queue->first->kind != PIECE_LINK) {
            chain_take(out, queue, queue->bytes);
            continue;
        }
        child = linked_child(queue->first);
        if (!chain_empty(&child->sub_out)) {
            /* The child's pieces, LINKs to its own children among them, stand before what follows. */
            chain_prepend(queue, &child->sub_out);
            continue;
        }
        if (!child->ended && !child->finished)
            return;
        chain_drop_link(queue);
    }
}

static enum verdict flow(struct req *main, unsigned flags)
{
    struct chain ready = CHAIN_INIT;
    enum verdict v;

    main->boundary_flags |= flags;
    take_ready(&main->boundary, &ready);
    flags = main->boundary_flags;
    if (!chain_empty(&main->boundary))
        flags &= ~(unsigned) BODY_END;
    main->boundary_flags &= ~flags;
    v = send_merged(main, &ready, flags);
    chain_clear(&ready);
    return v;
}

/*
 * Those who paused because of what waited at the boundary must hear of it; from the loop, since the
 * child that moved it is still on the stack.
 */
static void drain_run(struct later *later)
{
    answer_drained(container_of(later, struct req, drain));
}

void answer_splice(struct req *main, unsigned flags)
{
    const struct req *front = front_child(main);
    uint64_t waited = main->boundary.bytes;

    if (main->finished || !main->head_sent)
        return;
    if (flow(main, flags) == V_ABORT) {
        req_abort(main, 0);
        return;
    }
    if (main->finished || (front == front_child(main) && waited == main->boundary.bytes))
        return;
    main->drain.run = drain_run;
    loop_later(&main->drain);
}

void answer_settle(struct req *child)
{
    struct chain whole = CHAIN_INIT;

    take_ready(&child->sub_out, &whole);
    chain_append(&child->sub_out, &whole);
}

/* Those who make r's body, the last filter first: what it still has comes before what it is given. */
static void produce(struct req *r)
{
    for (unsigned i = r->filter_count; i-- > 0 && !r->finished;) {
        const struct filter_run *f = &r->filters[i];

        if (f->filter->drained != NULL)
            f->filter->drained(r, f->ctx);
    }
    if (!r->finished && r->on_drain != NULL)
        r->on_drain(r);
}

void answer_drained(struct req *main)
{
    struct req *front;

    produce(main);
    if (main->finished)
        return;
    front = front_child(main);
    if (front != NULL)
        produce(front);
}

void answer_go_on(struct req *r)
{
    struct chain none = CHAIN_INIT;

    r->filter_waits = false;
    if (answer_body(r, &none, 0) == V_ABORT && !r->finished)
        req_abort(r, 0);
    produce(r);
}

bool answer_waits_behind(const struct req *r, enum filter_rank rank)
{
    for (unsigned i = r->filter_count; i-- > 0 && r->filters[i].filter->rank > rank;) {
        if (r->filters[i].waits)
            return true;
    }
    return false;
}

enum verdict answer_body(struct req *r, struct chain *chain, unsigned flags)
{
    if (r->header_only)
        chain_clear(chain);
    if (r->filter_count > 0) {
        if (run_filters(r, false, chain, &flags) != V_NEXT) {
            chain_clear(chain);
            return V_ABORT;
        }
        if (r->head_held) {
            r->held_flags |= flags;
            ASSERT(chain_empty(chain));
            return V_NEXT;
        }
        flags |= r->held_flags;
        r->held_flags = 0;
    }
    if (r != r->main)
        return r->ops->body(r, chain, flags);
    if (likely(!r->has_links))
        return send_merged(r, chain, flags);
    chain_append(&r->boundary, chain);
    return flow(r, flags);
}

enum verdict answer_continue(struct req *r)
{
    struct chain none = CHAIN_INIT;
    enum verdict v;

    if (!r->filter_waits)
        return V_WAIT;
    r->filter_waits = false;
    v = answer_body(r, &none, 0);
    return v == V_ABORT ? V_ABORT : V_WAIT;
}

uint64_t answer_buffered(const struct req *r)
{
    return r->ops->buffered(r) + r->boundary.bytes;
}

bool answer_full(const struct req *r, uint64_t mark)
{
    return answer_buffered(r) >= mark;
}

void answer_informational(struct req *r, unsigned status, const struct fields *fields)
{
    if (r == r->main && !r->head_sent)
        r->ops->informational(r, status, fields);
}

/* Whole responses --------------------------------------------------------------------------- */

enum verdict answer_text(struct req *r, unsigned status, struct str type, struct str body)
{
    struct chain chain = CHAIN_INIT;
    enum verdict v;

    r->out.status = status;
    r->out.content_length = (int64_t) body.len;
    if (type.len > 0)
        fields_set(&r->out, &r->out.fields, T_CONTENT_TYPE, type);
    if (!r->body.complete)
        body_discard(r);
    v = answer_head(r);
    if (v != V_NEXT)
        return v;
    chain_push_str(&chain, body);
    v = answer_body(r, &chain, BODY_END);
    return v == V_ABORT ? V_ABORT : V_ANSWER;
}

/* Helpers for filters ----------------------------------------------------------------------- */

void answer_clear_length(struct req *r)
{
    r->out.content_length = -1;
    fields_delete(&r->out.fields, T_CONTENT_LENGTH);
}

void answer_clear_ranges(struct req *r)
{
    r->allow_ranges = false;
    fields_delete(&r->out.fields, T_ACCEPT_RANGES);
}

void answer_clear_etag(struct req *r)
{
    fields_delete(&r->out.fields, T_ETAG);
}

void answer_clear_last_modified(struct req *r)
{
    r->last_modified = -1;
    fields_delete(&r->out.fields, T_LAST_MODIFIED);
}

time_t answer_last_modified(const struct req *r)
{
    struct str text;

    if (r->last_modified != -1)
        return r->last_modified;
    text = fields_value(&r->out.fields, T_LAST_MODIFIED);
    return text.len > 0 ? fmt_parse_http_date(text) : -1;
}

/* A changed body is no longer byte for byte what a strong ETag names (RFC 9110, 8.8.1). */
void answer_weak_etag(struct req *r)
{
    struct field *f = fields_get(&r->out.fields, T_ETAG);

    if (f == NULL || str_starts(f->value, STR("W/")))
        return;
    if (f->value.len < 2 || f->value.ptr[0] != '"')
        answer_clear_etag(r);
    else
        f->value = str_printf(r->arena, "W/%.*s", STR_ARG(f->value));
}

void answer_body_changes(struct req *r, bool last_modified)
{
    answer_clear_length(r);
    answer_clear_ranges(r);
    if (last_modified) {
        answer_weak_etag(r);
        return;
    }
    answer_clear_last_modified(r);
    answer_clear_etag(r);
}

/* Subrequests: their output is collected, and stands in the main stream where its LINK is. ----- */

static enum verdict sub_head(struct req *r)
{
    if (r->sub_head_only) {
        r->ended = true;
        r->header_only = true;
        req_child_end(r);
    }
    return V_NEXT;
}

/* What is collected in memory has a limit. */
static bool too_long(struct req *r, const struct chain *chain)
{
    struct req *collector = r->collector;
    size_t max;

    if (likely(collector == NULL))
        return false;
    collector->collected += chain->bytes;
    max = collector->loc->core->subrequest_output_buffer_size;
    if (collector->collected <= max)
        return false;
    log_error(&r->log, 0, "too big subrequest response: more than %zu bytes", max);
    return true;
}

static enum verdict sub_body(struct req *r, struct chain *chain, unsigned flags)
{
    if (r->dropped || r->header_only || r->finished || too_long(r, chain)) {
        bool failed = !r->finished && r->collector != NULL && !r->header_only;

        chain_clear(chain);
        if (failed)
            return V_ABORT;
    }
    chain_append(&r->sub_out, chain);
    if ((flags & BODY_END) && !r->finished && !r->ended)
        req_child_ended(r);
    else if (r->linked && front_child(r->main) == r)
        answer_splice(r->main, flags & BODY_FLUSH);
    return V_NEXT;
}

/*
 * What waits before this child's next byte can be taken: the client's connection counts only for the one
 * that writes to it. What is not part of the answer never waits.
 */
static uint64_t sub_buffered(const struct req *r)
{
    if (!r->linked || r->collector != NULL)
        return 0;
    return r->sub_out.bytes + (front_child(r->main) == r ? r->main->ops->buffered(r->main) : 0);
}

static void sub_informational(struct req *r, unsigned status, const struct fields *fields)
{
    (void) r;
    (void) status;
    (void) fields;
}

static void sub_read_body(struct req *r, bool on)
{
    r->main->ops->read_body(r->main, on);
}

static void sub_nothing(struct req *r)
{
    (void) r;
}

const struct answer_ops subrequest_ops = {
    .head = sub_head,
    .body = sub_body,
    .buffered = sub_buffered,
    .informational = sub_informational,
    .read_body = sub_read_body,
    .finished = sub_nothing,
    .reset = sub_nothing,
};
