/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What --explain shows of the core's own decisions: which server and location were chosen and why,
 * internal redirects, error pages. Called by the engine and the protocol drivers after they have
 * decided; decides nothing.
 */
#include "core/http/trace.h"

#include "core/http/client.h"

static const struct conf_pos nowhere = { NULL, 0, 0 };

/* Servers ------------------------------------------------------------------------------------- */

void trace_server(struct req *r)
{
    const struct server *s = r->server;
    struct str how;
    struct str name = s->name.len > 0 ? s->name : STR("\"\"");

    http_server_reason(r->client->listen, r->host, &how);
    if (how.ptr == NULL)
        req_trace(r, s->pos, "server %.*s (%s)", STR_ARG(name),
                  r->client->listen->server_count > 1 ? "the default server: no name fits"
                                                      : "the only server of this address");
    else if (str_eq(how, r->host))
        req_trace(r, s->pos, "server %.*s (exact name)", STR_ARG(how));
    else if (str_starts(how, STR("~")))
        req_trace(r, s->pos, "server %.*s (%.*s matches)", STR_ARG(name), STR_ARG(how));
    else
        req_trace(r, s->pos, "server %.*s (wildcard %s%.*s%s)", STR_ARG(name),
                  str_starts(how, STR(".")) ? "*" : "", STR_ARG(how),
                  str_starts(how, STR(".")) ? "" : "*");
}

/* Locations ----------------------------------------------------------------------------------- */

static const char *modifier(const struct location *loc)
{
    switch (loc->kind) {
    case LOC_EXACT: return "= ";
    case LOC_PREFIX_FINAL: return "^~ ";
    case LOC_REGEX: return loc->caseless ? "~* " : "~ ";
    default: return "";
    }
}

static const char *reason(const struct location *loc, bool redirect)
{
    if (redirect)
        return "the URI lacks only the final slash";
    switch (loc->kind) {
    case LOC_EXACT: return "exact";
    case LOC_PREFIX_FINAL: return "longest prefix, no regex is asked";
    case LOC_REGEX: return "the first regex that matches";
    case LOC_PREFIX:
        return http_location_has_regexes(loc) ? "longest prefix, no regex matches"
                                              : "longest prefix";
    default: return "";
    }
}

void trace_location(struct req *r, bool redirect)
{
    const struct location *loc = r->loc, *up;
    char inside[512];
    int n = 0;

    if (loc->kind == LOC_SERVER) {
        req_trace(r, loc->server->pos, "location none (the server's own settings)");
        return;
    }
    if (loc->kind == LOC_LIMIT_EXCEPT)
        loc = loc->parent;
    inside[0] = '\0';
    for (up = loc->parent; up->kind != LOC_SERVER && (size_t) n < sizeof(inside); up = up->parent)
        n += snprintf(inside + n, sizeof(inside) - (size_t) n, ", inside %s%.*s", modifier(up),
                      STR_ARG(up->name));
    req_trace(r, loc->pos, "location %s%.*s (%s%s)", modifier(loc), STR_ARG(loc->name),
              reason(loc, redirect), inside);
    if (r->loc != loc)
        req_trace(r, r->loc->pos, "limit_except has other settings for %.*s",
                  STR_ARG(r->method_name));
    if (loc->core->internal && !r->internal)
        req_trace(r, req_where(r, "internal"), "internal 404: not for requests from outside");
}

void trace_body_size(struct req *r)
{
    uint64_t max = r->loc->core->client_max_body_size, n = (uint64_t) r->main->body.length;

    /* The default is worth a line only where it refuses. */
    if (r->main->body.length <= 0 ||
        (req_where(r, "client_max_body_size").file == NULL && (max == 0 || n <= max)))
        return;
    req_trace(r, req_where(r, "client_max_body_size"),
              "limit client_max_body_size %llu: a body of %llu bytes is %s",
              (unsigned long long) max, (unsigned long long) n,
              max != 0 && n > max ? "too large" : "let in");
}

/* Redirects, pages and children --------------------------------------------------------------- */

void trace_restart(struct req *r)
{
    if (r->restart == RESTART_NAMED)
        req_trace(r, nowhere, "redirect internally to %.*s", STR_ARG(r->restart_name));
    else
        req_trace(r, nowhere, "redirect internally to %.*s%s%.*s", STR_ARG(r->uri),
                  r->args.len > 0 ? "?" : "", STR_ARG(r->args));
}

void trace_error_page(struct req *r, const struct error_page *page)
{
    unsigned status = r->status_wanted;

    if (page != NULL && page->overwrite > 0)
        req_trace(r, page->pos, "error_page %u =%d %.*s", status, page->overwrite,
                  STR_ARG(expr_source(page->uri)));
    else if (page != NULL)
        req_trace(r, page->pos, "error_page %u %s%.*s", status, page->overwrite == 0 ? "= " : "",
                  STR_ARG(expr_source(page->uri)));
}

void trace_subrequest(struct req *r)
{
    req_trace(r, nowhere, "subrequest %.*s %.*s%s%.*s%s", STR_ARG(r->method_name), STR_ARG(r->uri),
              r->args.len > 0 ? "?" : "", STR_ARG(r->args),
              r->background ? " (in the background)" : "");
}

void trace_end(struct req *r)
{
    req_tracer(r, nowhere, NULL);
}
