/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * addition: what two subrequests answer, before and after the body of a main request that went
 * well.
 */
#include "core/http/answer.h"
#include "modules/http/type_set.h"

/* configure: switch=http_addition_module default=on */

static unsigned addition_slot;

struct addition_conf {
    struct str before, after; /* URIs; empty: none */
    struct type_set *types;
};

struct addition {
    const struct addition_conf *conf;
    bool before_sent;
};

/* Puts a subrequest's output at the end of chain. */
static bool add(struct req *r, struct str uri, struct chain *chain)
{
    struct req *child = req_subrequest(r, uri, STR_NULL, SUB_WITH_BODY, NULL, NULL);

    if (child == NULL)
        return false;
    chain_push_link(chain, &child->sub_out);
    return true;
}

static enum verdict addition_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct addition *a = ctx;

    if (r->header_only)
        return V_NEXT;
    if (!a->before_sent) {
        struct chain before = CHAIN_INIT;

        a->before_sent = true;
        if (a->conf->before.len > 0 && !add(r, a->conf->before, &before))
            return V_ABORT;
        chain_prepend(chain, &before);
    }
    if ((*flags & BODY_END) && a->conf->after.len > 0 && !add(r, a->conf->after, chain))
        return V_ABORT;
    return V_NEXT;
}

static enum head_verdict addition_head(struct req *r, void **ctx)
{
    const struct addition_conf *conf = req_loc_conf(r, addition_slot);
    struct addition *a;

    if (r != r->main || r->out.status != 200 || !type_set_has(conf->types, r))
        return HEAD_PASS;
    a = ARENA_NEW(r->arena, struct addition);
    a->conf = conf;
    *ctx = a;
    answer_clear_length(r);
    answer_clear_ranges(r);
    answer_weak_etag(r);
    return HEAD_TAKE;
}

static bool addition_wanted(const struct level *level)
{
    const struct addition_conf *conf = level_conf(level, STORE_LOC, addition_slot);

    return conf->before.len > 0 || conf->after.len > 0;
}

static const struct directive directives[] = {
    ROW("add_before_body", CTX_HSL, ARGS1, conf_set_str, STORE_LOC, struct addition_conf, before,
        INHERIT_SCALAR, NULL, "uri", "Puts what a subrequest answers before the body."),
    ROW("add_after_body", CTX_HSL, ARGS1, conf_set_str, STORE_LOC, struct addition_conf, after,
        INHERIT_SCALAR, NULL, "uri", "Puts what a subrequest answers after the body."),
    ROW("addition_types", CTX_HSL, TYPE_SET_ARGS, type_set_setter, STORE_LOC, struct addition_conf,
        types, INHERIT_WHOLE, "text/html", "mime-type ...",
        "Types of answers that text is added to beside text/html; * is all."),
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_ADDITION,
      .head = addition_head,
      .body = addition_body,
      .wanted = addition_wanted },
    FILTER_END,
};

static const struct http_module http_addition = { .filters = filters };

const struct module module_http_addition = {
    .name = "http_addition",
    .slot = &addition_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct addition_conf) },
    .directives = directives,
    .http = &http_addition,
};
