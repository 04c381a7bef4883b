/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ntlm: schemes that authenticate a connection instead of a request. Once a client has sent an
 * Authorization of such a scheme, the connection to the server that it went over serves this client
 * alone, and ends with its connection. It is in no list of the pool's meanwhile.
 */
#include "modules/upstream/internal.h"

const char *ntlm_set(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;

    (void) field;
    if (g->ntlm)
        return conf_error(cf, "\"%s\" directive is duplicate", cf->args[0].ptr);
    g->ntlm = true;
    return NULL;
}

static struct upconn *of_tie(struct list *n)
{
    return container_of(container_of(n, struct client_tie, link), struct upconn, tie);
}

static void client_gone(struct client_tie *t);

/* The client's idle connection for this location's requests, or NULL. */
static struct upconn *find(const struct exchange *x)
{
    const struct client_extra *extra = x->req->client->extra;

    if (extra == NULL)
        return NULL;
    for (struct list *n = extra->ties.next; n != &extra->ties; n = n->next) {
        struct upconn *u = of_tie(n);

        if (u->tie.gone == client_gone && u->group == x->group && u->resting &&
            pool_fits(u, x))
            return u;
    }
    return NULL;
}

void ntlm_want(struct exchange *x)
{
    const struct upconn *u = find(x);

    if (u != NULL)
        x->choice.wanted = u->peer->index;
}

struct upconn *ntlm_take(struct exchange *x)
{
    struct upconn *u = find(x);

    /* The PROXY header at its beginning names this client: it holds for all that follows. */
    if (u == NULL || u->peer != x->choice.peer || u->announced != (x->conf->proxy_protocol != 0))
        return NULL;
    if (u->conn->ready & (CONN_READ | CONN_HUP)) {
        pool_close(u);
        return NULL;
    }
    u->resting = false;
    u->reused = true;
    return u;
}

void ntlm_untie(struct upconn *u)
{
    list_remove(&u->tie.link);
    u->bound = false;
}

static void client_gone(struct client_tie *t)
{
    struct upconn *u = container_of(t, struct upconn, tie);

    /* One that is at work goes with its exchange, unless that outlives the client. */
    if (u->resting)
        pool_close(u);
}

static void idle_event(struct conn *conn, unsigned ready)
{
    (void) ready;
    pool_close(conn->owner);
}

static bool authenticates(const struct req *r)
{
    struct str v = fields_value(&r->in->fields, T_AUTHORIZATION);

    return str_casestarts(v, STR("NTLM")) || str_casestarts(v, STR("Negotiate"));
}

bool ntlm_keep(struct exchange *x, struct upconn *u)
{
    struct upconn *other;

    if (!u->bound && !authenticates(x->req))
        return false;
    u->requests++;
    if (u->group->keepalive.connections == 0 || !pool_is_quiet(u->conn)) {
        pool_close(u);
        return true;
    }
    if (!u->bound) {
        /* What the client had before has no more use. */
        other = find(x);
        if (other != NULL)
            pool_close(other);
        u->bound = true;
        u->tie.gone = client_gone;
        list_push_front(&client_extra(x->req->client)->ties, &u->tie.link);
    }
    u->resting = true;
    u->conn->handler = idle_event;
    conn_want(u->conn, CONN_READ);
    return true;
}
