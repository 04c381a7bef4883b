/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an exchange comes to for a request that is only explained: the group, the server that would
 * be asked and the request it would get are said; nothing is connected or sent. The request goes on
 * as if the server had answered 200 without a field, so that what the configuration adds to an
 * answer shows as well.
 */
#include "core/http/error_page.h"
#include "modules/upstream/internal.h"

#define HEAD_MAX 65536

static struct conf_pos where_server(const struct upstream *g, const struct peer *p)
{
    return g->level != NULL ? conf_where(g->level, "server", p->server)
                            : (struct conf_pos){ NULL, 0, 0 };
}

static void explain_peer(struct req *r, const struct upstream *g, const struct peer *p, bool chosen)
{
    int32_t weight = p->resolves ? g->own.records[p->index].weight : peers_weight(&g->own, p->index);
    uint32_t state = p->resolves ? g->own.records[p->index].state : g->own.state[p->index];
    char weighs[32] = "";
    bool stand_in = addr_is_stand_in(&p->addr);
    struct str name = stand_in || p->resolves ? p->server : p->name;

    if (weight != 1)
        snprintf(weighs, sizeof(weighs), " weight=%d", weight);
    req_trace(r, where_server(g, p), "peer %.*s%s%s%s%s%s", STR_ARG(name), weighs,
              state & PEER_BACKUP ? " backup" : "", state & PEER_DOWN ? " down" : "",
              p->resolves ? " (a name that is asked of the resolver)"
              : stand_in  ? " (a name that is not looked up here)"
                          : "",
              chosen && g->count > 1 ? ", asked first" : "");
}

/* A name that is resolved at run time is said, and not what stands in for its addresses. */
static bool is_said(const struct peer *p)
{
    return p->parent == PEERS_NONE || !addr_is_stand_in(&p->addr);
}

static unsigned count_said(const struct upstream *g)
{
    unsigned n = 0;

    for (unsigned i = 0; i < g->count; i++)
        n += is_said(g->peers[i]);
    return n;
}

static void explain_group(struct req *r, const struct exchange *x)
{
    const struct upstream *g = x->group;
    unsigned count = g != NULL ? count_said(g) : 0;

    if (g == NULL) {
        req_trace(r, req_where(r, "resolver"),
                  "upstream %.*s:%u, asked of the resolver for each request",
                  STR_ARG(x->resolve_name), x->resolve_port);
        return;
    }
    req_trace(r, g->pos, "upstream %.*s (%s%u server%s)", STR_ARG(g->name),
              count > 1 ? str_printf(r->arena, "%s, ", g->balancer->name).ptr : "", count,
              count == 1 ? "" : "s");
    for (unsigned i = 0; i < g->count; i++) {
        if (is_said(g->peers[i]))
            explain_peer(r, g, g->peers[i], x->choice.peer == g->peers[i]);
    }
}

/* The request's head line by line, where the protocol is one that people read. */
static void explain_head(struct req *r, const struct exchange *x)
{
    char text[HEAD_MAX];
    struct str rest;
    size_t len = 0;
    ssize_t end;

    for (const struct piece *p = x->out.first; p != NULL && p->kind == PIECE_MEM; p = p->next) {
        size_t n = MIN((size_t) p->len, sizeof(text) - len);

        memcpy(text + len, p->mem.ptr, n);
        len += n;
    }
    rest = str_from(text, len);
    while ((end = str_chr(rest, '\n')) > 1) {
        req_trace(r, ((struct conf_pos){ NULL, 0, 0 }), "send %.*s", (int) end - 1, rest.ptr);
        rest = str_skip(rest, (size_t) end + 1);
    }
}

/* What becomes of failures, where the configuration says so. */
static void explain_errors(struct req *r, const struct exchange *x)
{
    static const unsigned statuses[] = { 502, 504 };

    for (unsigned i = 0; i < ARRAY_LEN(statuses); i++) {
        const struct error_page *page = error_page_find(r, statuses[i]);

        if (page != NULL)
            req_trace(r, page->pos, "error_page %u, if no server answers: %.*s", statuses[i],
                      STR_ARG(expr_source(page->uri)));
    }
    if (x->conf->intercept_errors && r->loc->core->error_page.count > 0)
        req_trace(r, r->loc->core->error_page.items[0].pos,
                  "error_page takes the upstream's statuses from 300 on as well");
}

void exchange_explain(struct exchange *x)
{
    struct req *r = x->req;

    explain_group(r, x);
    if (str_starts(str_cstr(x->backend->scheme), STR("http")))
        explain_head(r, x);
    explain_errors(r, x);
    exchange_over(x);
    r->out.reason = STR("as the upstream answers");
    x->verdict = answer_text(r, 200, STR_NULL, STR(""));
}
