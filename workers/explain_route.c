/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where an explained request arrives: which of the configuration's addresses takes it, and from
 * whom.
 */
#include "workers/explain_steps.h"

#define CLIENT_PORT 40000

#define EACH_LISTEN(http, l)                                                                     \
    for (struct list *l##_n = (http)->listens.next;                                              \
         l##_n != &(http)->listens && (l = container_of(l##_n, struct http_listen, link), true); \
         l##_n = l##_n->next)

/* 0: it does not take connections to this address; 2: the very address; 1: a wildcard. */
static unsigned fits(const struct http_listen *l, const struct addr *to)
{
    if (addr_eq(&l->addr, to, true))
        return 2;
    if (!l->wildcard || addr_port(&l->addr) != addr_port(to))
        return 0;
    if (l->addr.sa.sa_family == to->sa.sa_family)
        return 1;
    return l->addr.sa.sa_family == AF_INET6 && to->sa.sa_family == AF_INET && !l->options.ipv6only;
}

static struct http_listen *listen_at(struct http_main *http, const struct addr *to)
{
    struct http_listen *l, *best = NULL;
    unsigned found = 0;

    EACH_LISTEN(http, l)
    {
        if (fits(l, to) > found) {
            found = fits(l, to);
            best = l;
        }
    }
    return best;
}

/*
 * Of the addresses with the URL's port: where a server is called by that name, else one for all
 * addresses, else the first.
 */
static struct http_listen *listen_on_port(struct arena *arena, struct http_main *http,
                                          const struct explain_url *url, unsigned *others)
{
    struct http_listen *l, *best = NULL;
    struct str host = str_lower(arena, url->host), name;
    int best_score = -1;

    *others = 0;
    EACH_LISTEN(http, l)
    {
        int score = (l->wildcard ? 2 : 0) + (l->addr.sa.sa_family == AF_INET ? 1 : 0);

        if (l->addr.sa.sa_family == AF_UNIX || addr_port(&l->addr) != url->port)
            continue;
        http_server_reason(l, host, &name);
        score += name.ptr != NULL ? 4 : 0;
        *others += best != NULL;
        if (score > best_score) {
            best_score = score;
            best = l;
        }
    }
    return best;
}

static int no_listen(struct explanation *e, struct http_main *http, struct str where)
{
    struct arena *arena = e->arena;
    struct http_listen *l;
    struct str text = list_empty(&http->listens) ? STR("no listening address at all") : STR("");

    EACH_LISTEN(http, l)
    text = str_printf(arena, "%.*s%s%.*s (%s:%u)", STR_ARG(text), text.len > 0 ? ", " : "",
                      STR_ARG(l->text), l->pos.file, l->pos.line);
    return explain_fail(e, str_printf(arena, "nothing listens on %.*s; there is %.*s",
                                      STR_ARG(where), STR_ARG(text))
                               .ptr);
}

static void add_steps(struct explanation *e, const struct http_listen *l, bool https,
                      unsigned others)
{
    struct str note = STR("");

    if (others > 0)
        note = str_printf(e->arena, " (one of %u on this port: --to ADDRESS chooses another)",
                          others + 1);
    explain_add(e, 0, STR("listen"),
                str_printf(e->arena, "%.*s%.*s", STR_ARG(l->text), STR_ARG(note)), l->pos);
    if (https && !l->ssl)
        explain_add(
            e, 0, STR("note"),
            STR("no TLS is spoken here (\"listen\" without \"ssl\"): an https client gets no "
                "answer; what follows is that to a plain request"),
            l->pos);
    else if (!https && l->ssl)
        explain_add(e, 0, STR("note"), STR("TLS is spoken here: a plain request gets 400"), l->pos);
}

/* 0, or -1: said. */
static int choose_listen(struct explanation *e, const struct options *o,
                         const struct explain_url *url, struct http_main *http,
                         struct explain_route *route)
{
    struct str text = o->to != NULL ? str_cstr(o->to) : url->host;
    struct addr to;
    int rc = addr_parse(&to, text, url->port, false);
    unsigned others = 0;

    if (o->to != NULL && rc != 0)
        return explain_fail(
            e, str_printf(e->arena, "invalid address \"%.*s\" of --to", STR_ARG(text)).ptr);
    route->listen = rc == 0 ? listen_at(http, &to) : listen_on_port(e->arena, http, url, &others);
    if (route->listen == NULL)
        return no_listen(e, http,
                         rc == 0 ? addr_dup_text(e->arena, &to, true)
                                 : str_printf(e->arena, "port %u", url->port));
    route->local = rc == 0 ? to : route->listen->addr;
    if (rc != 0 && route->listen->wildcard) {
        text = route->local.sa.sa_family == AF_INET6 ? STR("[::1]") : STR("127.0.0.1");
        addr_parse(&route->local, text, addr_port(&route->listen->addr), false);
    }
    add_steps(e, route->listen, url->https, others);
    return 0;
}

static int choose_from(struct explanation *e, const struct options *o, struct explain_route *route)
{
    struct str text;

    if (o->from != NULL)
        text = str_cstr(o->from);
    else if (route->local.sa.sa_family == AF_UNIX)
        text = STR("unix:client");
    else
        text = route->local.sa.sa_family == AF_INET6 ? STR("::1") : STR("127.0.0.1");
    /* Two colons: an address of version 6 without the brackets that a port behind it would need. */
    if (text.ptr[0] != '[' && str_chr(text, ':') != str_rchr(text, ':'))
        text = str_printf(e->arena, "[%.*s]", STR_ARG(text));
    if (addr_parse(&route->from, text, CLIENT_PORT, false) != 0)
        return explain_fail(
            e, str_printf(e->arena, "invalid address \"%.*s\" of --from", STR_ARG(text)).ptr);
    return 0;
}

int explain_find_route(struct explanation *e, const struct options *o,
                       const struct explain_url *url, struct http_main *http,
                       struct explain_route *route)
{
    return choose_listen(e, o, url, http, route) != 0 || choose_from(e, o, route) != 0 ? -1 : 0;
}
