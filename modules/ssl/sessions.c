/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sessions that the server keeps (ssl_session_cache): TLS 1.2 by session id, and TLS 1.3 where tickets are off, since then a ticket is
 * but the id of a kept session. A shared cache is a zone: all workers, and those of the next configuration or binary, find a session
 * there. What is stored is the library's own encoding, behind a table by id in the order of last use, from whose old
 * end entries go when they have expired or when room is needed.
 *
 * A server chosen by name uses its own zone, tickets and lifetime. What the library asks of the context that a connection began with
 * ("off", "builtin") is as the default server of the address has it.
 */
#include <time.h>

#include "modules/ssl/kept.h"
#include "modules/ssl/ocsp_check.h"
#include "modules/ssl/sessions.h"

#define BUILTIN_DEFAULT 20480
#define SESSION_MAX \
    8192 /* bytes of an encoded session; larger ones (of huge client certificates) are not kept */
#define EXPIRE_MAX 2 /* entries looked at for each new one */

/* In the zone. Its data is an encoded session. */
struct cached {
    struct kept kept;   /* first */
    uint64_t expires_s; /* wall clock, which another binary shares */
};

enum cache_mode {
    CACHE_NONE,    /* unless there is a zone */
    CACHE_BUILTIN, /* and the zone, if there is one */
    CACHE_REFUSED, /* "none", "off": whatever else has been said */
    CACHE_OFF,
};

struct ssl_session_cache {
    enum cache_mode mode;
    uint64_t builtin_size;
    struct res_zone *shared; /* NULL: none */
};

static int spec_index = -1;

const struct ssl_spec *ssl_spec_of(const SSL *ssl)
{
    return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), spec_index);
}

/* The zone ----------------------------------------------------------------------------------- */

static int cache_init(struct zone *zone, void *data UNUSED)
{
    if (kept_init(zone, sizeof(struct cached)) == 0)
        return 0;
    log_emerg(log_main, 0, "session cache \"%.*s\" is too small", STR_ARG(zone_name(zone)));
    return -1;
}

static int cache_adopt(struct zone *zone UNUSED, void *data UNUSED)
{
    return 0;
}

static const struct zone_kind cache_kind = {
    .name = "ssl_session_cache",
    .version = 2,
    .init = cache_init,
    .adopt = cache_adopt,
    .recover = kept_recover,
};

static void expire(struct zone *zone, uint64_t now)
{
    for (unsigned i = 0; i < EXPIRE_MAX; i++) {
        struct cached *c = keyed_oldest(zone, kept_table(zone), NULL);

        if (c == NULL || c->expires_s >= now)
            return;
        kept_drop(zone, &c->kept);
    }
}

static bool put(struct zone *zone, struct str id, struct str session, uint64_t expires_s)
{
    struct cached *c = kept_entry(zone, id);
    void *room = c != NULL ? kept_room(zone, &c->kept, session.len) : NULL;

    if (room != NULL) {
        memcpy(room, session.ptr, session.len);
        c->expires_s = expires_s;
        kept_show(zone, &c->kept);
    } else if (c != NULL) {
        kept_drop(zone, &c->kept);
    }
    return room != NULL;
}

/* What the library calls --------------------------------------------------------------------- */

static struct zone *zone_of(const struct ssl_spec *spec)
{
    const struct ssl_session_cache *cache = spec != NULL ? spec->session_cache : NULL;

    return cache != NULL && cache->mode < CACHE_REFUSED && cache->shared != NULL
               ? cache->shared->zone
               : NULL;
}

static struct str id_of(const SSL_SESSION *session)
{
    unsigned len;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);

    return str_from((const char *) id, len);
}

static int session_new(SSL *ssl, SSL_SESSION *session)
{
    struct zone *zone = zone_of(ssl_spec_of(ssl));
    static unsigned char buf[SESSION_MAX];
    unsigned char *p = buf;
    long timeout = SSL_CTX_get_timeout(SSL_get_SSL_CTX(ssl));
    uint64_t now = (uint64_t) time(NULL);
    struct str id = id_of(session);
    int len;
    bool done;

    SSL_SESSION_set_timeout(session, timeout);
    /* A ticket of TLS 1.3 holds the session itself unless tickets are off. */
    if (zone == NULL || id.len == 0 ||
        (SSL_version(ssl) == TLS1_3_VERSION && !(SSL_get_options(ssl) & SSL_OP_NO_TICKET)))
        return 0;
    len = i2d_SSL_SESSION(session, NULL);
    if (len <= 0 || len > SESSION_MAX)
        return 0;
    len = i2d_SSL_SESSION(session, &p);
    zone_lock(zone);
    expire(zone, now);
    done = put(zone, id, str_from((char *) buf, (size_t) len), now + (uint64_t) timeout);
    zone_unlock(zone);
    OPENSSL_cleanse(buf, (size_t) len);
    if (!done)
        log_alert(&conn_tls_of(ssl)->log, 0,
                  "could not allocate new session in SSL session shared cache \"%.*s\"",
                  STR_ARG(zone_name(zone)));
    return 0;
}

/* What is stored of a session has its certificate, but not those behind it. */
static bool has_chain(SSL *ssl, SSL_SESSION *session)
{
    X509 *cert = SSL_SESSION_get0_peer(session);
    STACK_OF(X509) * chain;

    if (cert == NULL)
        return true;
    chain = ocsp_chain(ssl, cert, NULL);
    sk_X509_pop_free(chain, X509_free);
    return chain != NULL;
}

static SSL_SESSION *session_get(SSL *ssl, const unsigned char *id, int id_len, int *copy)
{
    struct zone *zone = zone_of(ssl_spec_of(ssl));
    static unsigned char buf[SESSION_MAX];
    const unsigned char *p = buf;
    SSL_SESSION *session;
    struct str data = STR_NULL;
    struct cached *c;

    *copy = 0;
    if (zone == NULL)
        return NULL;
    zone_lock(zone);
    c = keyed_get(zone, kept_table(zone), str_from((const char *) id, (size_t) id_len), true);
    if (c != NULL && c->expires_s < (uint64_t) time(NULL))
        kept_drop(zone, &c->kept);
    else if (c != NULL)
        data = kept_data(zone, &c->kept);
    if (data.len > 0 && data.len <= SESSION_MAX)
        memcpy(buf, data.ptr, data.len);
    zone_unlock(zone);
    if (data.len == 0 || data.len > SESSION_MAX)
        return NULL;
    session = d2i_SSL_SESSION(NULL, &p, (long) data.len);
    OPENSSL_cleanse(buf, data.len);
    if (session != NULL && ssl_spec_of(ssl)->keep_chain && !has_chain(ssl, session)) {
        SSL_SESSION_free(session);
        return NULL;
    }
    return session;
}

/* The library does not want to see it again: a connection of it has failed. */
static void session_remove(SSL_CTX *ctx, SSL_SESSION *session)
{
    struct zone *zone = zone_of(SSL_CTX_get_ex_data(ctx, spec_index));
    struct cached *c;

    if (zone == NULL)
        return;
    zone_lock(zone);
    c = keyed_get(zone, kept_table(zone), id_of(session), false);
    if (c != NULL)
        kept_drop(zone, &c->kept);
    zone_unlock(zone);
}

/* Before a ticket is made: its lifetime is that of the server which was chosen. */
static int ticket_made(SSL *ssl, void *arg UNUSED)
{
    SSL_SESSION_set_timeout(SSL_get_session(ssl), SSL_CTX_get_timeout(SSL_get_SSL_CTX(ssl)));
    return 1;
}

/* The library looks at the age of TLS 1.2's tickets only. */
static SSL_TICKET_RETURN ticket_read(SSL *ssl, SSL_SESSION *session,
                                     const unsigned char *name UNUSED, size_t name_len UNUSED,
                                     SSL_TICKET_STATUS status, void *arg UNUSED)
{
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if ((long) time(NULL) - SSL_SESSION_get_time(session) > SSL_SESSION_get_timeout(session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (ssl_spec_of(ssl)->keep_chain && !has_chain(ssl, session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* Configuration ------------------------------------------------------------------------------ */

static const char *invalid(struct conf *cf, unsigned n)
{
    return conf_error_arg(cf, n, "invalid session cache \"%.*s\"", STR_ARG(cf->args[n]));
}

/* "shared:NAME:SIZE", argument n. */
static const char *set_shared(struct conf *cf, unsigned n, struct ssl_session_cache *cache)
{
    struct str text = str_skip(cf->args[n], sizeof("shared:") - 1), name;
    ssize_t colon = str_chr(text, ':');
    const char *error = NULL;
    uint64_t size;

    if (colon <= 0 || str_to_size(str_skip(text, (size_t) colon + 1), &size) != 0 ||
        size > ZONE_MAX)
        return invalid(cf, n);
    name = str_from(text.ptr, (size_t) colon);
    if (size < ZONE_MIN)
        return conf_error_arg(cf, n, "session cache \"%.*s\" is too small", STR_ARG(cf->args[n]));
    cache->shared = res_zone(cf, name, (size_t) size, &cache_kind, &error);
    return cache->shared != NULL ? NULL : error;
}

/* Given again, it adds to what it has said before on the level. */
const char *ssl_set_session_cache(struct conf *cf, void *field)
{
    struct ssl_session_cache **place = field, *cache = *place;
    const char *error = NULL;

    if (cache == NULL)
        *place = cache = ARENA_NEW(cf->arena, struct ssl_session_cache);
    for (unsigned i = 1; i < cf->nargs && error == NULL; i++) {
        struct str arg = cf->args[i];

        if (str_eq(arg, STR("off"))) {
            cache->mode = CACHE_OFF;
        } else if (str_eq(arg, STR("none"))) {
            cache->mode = CACHE_REFUSED;
        } else if (str_eq(arg, STR("builtin"))) {
            cache->mode = CACHE_BUILTIN;
            cache->builtin_size = BUILTIN_DEFAULT;
        } else if (str_starts(arg, STR("builtin:"))) {
            cache->mode = CACHE_BUILTIN;
            if (str_to_u64(str_skip(arg, sizeof("builtin:") - 1), &cache->builtin_size) != 0 ||
                cache->builtin_size > INT32_MAX)
                error = invalid(cf, i);
        } else if (str_starts(arg, STR("shared:"))) {
            error = set_shared(cf, i, cache);
        } else {
            error = invalid(cf, i);
        }
    }
    return error;
}

static void set_cache(SSL_CTX *ctx, const struct ssl_session_cache *cache)
{
    bool builtin = cache != NULL && cache->mode == CACHE_BUILTIN;

    if (cache != NULL && cache->mode == CACHE_OFF) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_SERVER |
                                            (builtin ? 0 : SSL_SESS_CACHE_NO_INTERNAL));
    if (builtin)
        SSL_CTX_sess_set_cache_size(ctx, (long) cache->builtin_size);
    SSL_CTX_sess_set_new_cb(ctx, session_new);
    SSL_CTX_sess_set_get_cb(ctx, session_get);
    /* With a cache of the library's own this would also be called for what no longer fits there. */
    if (!builtin)
        SSL_CTX_sess_set_remove_cb(ctx, session_remove);
}

int ssl_use_sessions(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    if (spec_index < 0)
        spec_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (spec_index < 0 || !SSL_CTX_set_ex_data(ctx, spec_index, (void *) (uintptr_t) spec))
        return -1;
    SSL_CTX_set_timeout(ctx, (long) MIN(spec->session_timeout_s, (uint64_t) INT32_MAX));
    set_cache(ctx, spec->session_cache);
    SSL_CTX_set_session_ticket_cb(ctx, ticket_made, ticket_read, NULL);
    if (!spec->session_tickets)
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    return ssl_use_tickets(cf, ctx, spec);
}
