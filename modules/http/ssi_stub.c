/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What stands in for an include that fails or is empty: the block that its "stub" names. It takes
 * the included request's way through that request's own filters.
 */
#include "modules/http/ssi.h"

/* Nothing has been produced, and a status was to be: the block instead of an error page. */
static enum verdict on_status(struct req *child)
{
    struct ssi_request *q = ssi_request(child);
    struct str type = fields_value(&child->parent->out.fields, T_CONTENT_TYPE);
    struct chain body = CHAIN_INIT;
    enum verdict v;

    child->on_status = NULL;
    child->err_status = 0;
    child->out.status = 200;
    child->out.content_length = -1;
    if (type.len > 0)
        fields_set(&child->out, &child->out.fields, T_CONTENT_TYPE, type);
    q->stub_needed = false;
    v = answer_head(child);
    if (v != V_NEXT)
        return v;
    chain_append(&body, q->stub);
    v = answer_body(child, &body, BODY_END);
    chain_clear(&body);
    return v == V_ABORT ? V_ABORT : V_ANSWER;
}

static void release(void *arg)
{
    chain_clear(arg);
}

void ssi_stub_attach(struct req *child, struct chain *stub)
{
    struct ssi_request *q = ssi_request(child);

    q->stub = ARENA_NEW(child->arena, struct chain);
    chain_append(q->stub, stub);
    q->stub_needed = true;
    child->on_status = on_status;
    arena_defer(child->arena, release, q->stub);
}

/* The first of all filters: what comes by here is what the included request itself has produced. */
enum head_verdict ssi_stub_head(struct req *r, void **ctx)
{
    struct ssi_request *q;

    if (likely(r == r->main))
        return HEAD_PASS;
    q = req_ctx(r, ssi_slot);
    if (q == NULL || !q->stub_needed)
        return HEAD_PASS;
    *ctx = q;
    return HEAD_TAKE;
}

enum verdict ssi_stub_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct ssi_request *q = ctx;

    if (!chain_empty(chain))
        q->stub_needed = false;
    if ((*flags & BODY_END) && q->stub_needed) {
        q->stub_needed = false;
        r->header_only = false; /* 204 is as empty as an answer can be */
        chain_append(chain, q->stub);
    }
    return V_NEXT;
}
