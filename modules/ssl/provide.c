/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Certificates that a context does not have, for clients of HTTP: those that are parsed only when they are needed, or have been replaced since it was made, and those whose
 * names hold variables. No request is there yet: the variables are asked of one that lives for this
 * moment alone, and knows the connection, the server chosen by name, and what the client's hello has said.
 */
#include "core/http/h1.h"
#include "core/http/msg.h"
#include "modules/ssl/http.h"
#include "modules/ssl/lazy.h"
#include "modules/ssl/watch.h"

static struct req *request_for(struct client *c, const struct logger *log, struct arena *arena)
{
    struct req *r = req_new(c, arena);
    struct msg *in = ARENA_NEW(arena, struct msg);

    msg_init(in, arena, 1);
    in->content_length = -1;
    r->in = in;
    r->server = c->server;
    r->loc = c->server->root;
    r->log = *log;
    r->eval.space = &c->listen->http->vars;
    r->body.complete = true;
    return r;
}

/* Whoever asks for a name that no host can have is up to something, where the name may be part of a path. */
static bool is_host(SSL *ssl, struct arena *arena)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    struct str host;
    unsigned port;

    return name == NULL ||
           (h1_host_normalize(arena, str_cstr(name), &host, &port) == 0 && port == 0);
}

/* 0, or -1: logged. */
static int provide_dynamic(SSL *ssl, const struct ssl_spec *spec)
{
    const struct conn *conn = conn_tls_of(ssl);
    struct arena *arena = arena_new();
    struct req *r = request_for(conn->owner, &conn->log, arena);
    int rc = 0;

    if (!is_host(ssl, arena)) {
        log_info(&conn->log, 0, "client asked for an invalid server name");
        rc = -1;
    }
    for (unsigned i = 0; i < spec->certificates.count && rc == 0; i++) {
        struct ssl_pair_names names;

        if (!ssl_pair_is_dynamic(spec, i))
            continue;
        names = ssl_pair_eval(&r->eval, spec, i);
        rc = ssl_pair_use(ssl, spec, i, &names, &conn->log);
    }
    arena_destroy(arena);
    return rc;
}

int http_ssl_provide(SSL *ssl, void *arg)
{
    const struct ssl_spec *spec = &((const struct http_ssl *) arg)->spec;

    if (spec->lazy != NULL && ssl_lazy_use(ssl, spec->lazy, &conn_tls_of(ssl)->log) != 0)
        return 0;
    if (spec->watch != NULL && ssl_watch_use(ssl, spec->watch, &conn_tls_of(ssl)->log) != 0)
        return 0;
    return !ssl_has_dynamic(spec) || provide_dynamic(ssl, spec) == 0;
}

/* Stapling ------------------------------------------------------------------------------------ */

#define FOLLOW_MS 1000

static const struct http_main *followed;

static void follow(const struct http_ssl *ssl)
{
    const struct ssl_watch *watch = ssl->spec.watch;

    for (unsigned i = 0; i < watch->count; i++) {
        struct watched *w = watch->pairs[i];

        if (w != NULL && watched_refresh(w, log_main))
            stapling_follow(ssl->staples, w->certificate.path, w->certificate_object.leaf,
                            w->certificate_object.chain);
    }
}

static void follow_all(struct timer *timer)
{
    bool any = false;

    for (unsigned i = 0; i < followed->server_count; i++) {
        const struct http_ssl *ssl = http_ssl_of(followed->servers[i]);

        if (ssl->staples == NULL || ssl->spec.watch == NULL)
            continue;
        any = true;
        follow(ssl);
    }
    if (any)
        timer_set(timer, FOLLOW_MS);
}

static struct timer follower = { .deadline_ms = TIMER_OFF, .fire = follow_all };

void http_ssl_follow(const struct http_main *http)
{
    followed = http;
    follow_all(&follower);
}

void http_ssl_follow_end(void)
{
    timer_drop(&follower);
}
