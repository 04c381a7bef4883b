/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sticky: requests of one client go to one server. Which one is told by a cookie of ours, by a route that the server
 * puts into what the client sends, or by a table of the servers' own sessions in a zone. A server that cannot be asked is left to
 * the group's method, as for a client that is new. Called by the balancer's common part and when an answer's head has come.
 */
#include <openssl/evp.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/config/resource.h"
#include "core/zone/keyed.h"
#include "modules/upstream/internal.h"

#define ID_BYTES 16
#define EVICT_MAX 16
#define EXPIRES_MAX "Thu, 31-Dec-37 23:55:55 GMT"
#define EXPIRES_MAX_AGE 315360000

enum sticky_kind { STICKY_COOKIE, STICKY_ROUTE, STICKY_LEARN };

struct sticky {
    enum sticky_kind kind;
    /* cookie */
    struct str name;
    struct str attributes;        /* "; domain=…; path=…", as far as they are known */
    struct expr *samesite;        /* NULL: none, or known */
    bool has_expires;
    uint64_t expires_s;           /* UINT64_MAX: max */
    /* route: variables; learn: where sessions are looked for and made */
    struct expr_list lookup, create;
    struct res_zone *zone;
    uint64_t timeout_s;
    bool at_head;
    /* Which server a route is (of learn: an id), and further addresses of it. */
    struct table routes;          /* -> index + 1 */
    uint32_t *next;
};

/* A session in the zone; its key is a digest of what the server calls it. */
struct session {
    uint64_t peer;                /* shared_peer_id */
    uint64_t used_s;
};

/* Routes ------------------------------------------------------------------------------------------- */

/*
 * 32 digits, by MD5 as documented: clients who were bound by nginx stay bound. Where the library has none, others will do.
 */
static struct str digest(struct arena *arena, struct str text)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    char *out = arena_bytes(arena, 2 * ID_BYTES);

    memset(bytes, 0, ID_BYTES);
    if (EVP_Digest(text.ptr, text.len, bytes, NULL, EVP_md5(), NULL) == 0)
        EVP_Digest(text.ptr, text.len, bytes, NULL, EVP_sha256(), NULL);
    fmt_hex_bytes(out, bytes, ID_BYTES);
    return str_from(out, 2 * ID_BYTES);
}

/* Sessions name a server by its id. */
static struct str id_key(const uint64_t *id)
{
    return str_from((const char *) id, sizeof(*id));
}

void sticky_build(struct arena *arena, struct upstream *g)
{
    struct sticky *s = g->sticky;

    table_init(&s->routes, arena);
    s->next = ARENA_ARRAY(arena, uint32_t, g->count);
    for (unsigned i = 0; i < g->count; i++) {
        struct peer *p = g->peers[i];
        struct str route;
        uintptr_t first;

        s->next[i] = PEERS_NONE;
        if (p == NULL || p->gone || p->resolves)
            continue;
        p->cookie = p->route.len == 0 && s->kind == STICKY_COOKIE ? digest(arena, p->name)
                                                                  : str_dup(arena, p->route);
        route = s->kind == STICKY_LEARN ? str_dup(arena, id_key(&p->id)) : p->cookie;
        if (route.len == 0)
            continue;
        first = (uintptr_t) table_get(&s->routes, route);
        if (first == 0) {
            table_put(&s->routes, route, (void *) (uintptr_t) (i + 1));
        } else {
            s->next[i] = s->next[first - 1];
            s->next[first - 1] = i;
        }
    }
}

/* The first server of a route, or PEERS_NONE. */
static unsigned index_of(const struct upstream *g, struct str route)
{
    uintptr_t first = (uintptr_t) table_get(&g->sticky->routes, route);

    return first == 0 ? PEERS_NONE : (unsigned) first - 1;
}

static unsigned by_route(const struct upstream *g, struct str route)
{
    unsigned i = index_of(g, route);

    while (i != PEERS_NONE && !peers_serves(&g->view, i))
        i = g->sticky->next[i];
    return i;
}

static struct str first_value(struct req *r, const struct expr_list *list)
{
    for (unsigned i = 0; i < list->count; i++) {
        struct str value = expr_eval(&r->eval, list->items[i]);

        if (value.len > 0)
            return value;
    }
    return STR_NULL;
}

/* Sessions ------------------------------------------------------------------------------------------- */

static int sessions_init(struct zone *zone, void *data)
{
    struct keyed *t = keyed_new(zone, sizeof(struct session), 0);

    (void) data;
    if (t == NULL)
        return -1;
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

static int sessions_adopt(struct zone *zone, void *data)
{
    (void) zone;
    (void) data;
    return 0;
}

static struct keyed *sessions(struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static bool sessions_recover(struct zone *zone)
{
    return keyed_recover(zone, sessions(zone));
}

static const struct zone_kind sessions_zone = {
    .name = "sticky", .version = 1, .init = sessions_init, .adopt = sessions_adopt,
    .recover = sessions_recover,
};

static struct str session_key(struct str id, unsigned char *room)
{
    EVP_Digest(id.ptr, id.len, room, NULL, EVP_sha256(), NULL);
    return str_from((const char *) room, ID_BYTES);
}

/* A few that were not used for too long go with each look. The lock is held. */
static void expire(struct zone *zone, struct keyed *t, uint64_t timeout_s, uint64_t now_s)
{
    for (unsigned i = 0; i < 2; i++) {
        struct str key;
        const struct session *old = keyed_oldest(zone, t, &key);

        if (old == NULL || now_s - old->used_s <= timeout_s)
            return;
        keyed_delete(zone, t, (void *) (uintptr_t) old);
    }
}

static unsigned by_session(const struct upstream *g, struct str id)
{
    struct zone *zone = g->sticky->zone->zone;
    unsigned char room[EVP_MAX_MD_SIZE];
    uint64_t now_s = clock_ms() / 1000, peer = 0;
    struct session *found;

    if (zone == NULL)
        return PEERS_NONE;
    zone_lock(zone);
    expire(zone, sessions(zone), g->sticky->timeout_s, now_s);
    found = keyed_get(zone, sessions(zone), session_key(id, room), true);
    if (found != NULL && now_s - found->used_s <= g->sticky->timeout_s) {
        found->used_s = now_s;
        peer = found->peer;
    }
    zone_unlock(zone);
    return index_of(g, id_key(&peer));
}

/* The server that answered has begun a session, or goes on with one. */
static void learn(struct exchange *x)
{
    const struct sticky *s = x->group->sticky;
    struct zone *zone = s->zone->zone;
    struct str id = first_value(x->req, &s->create);
    unsigned char room[EVP_MAX_MD_SIZE];
    struct session *session;
    bool created;

    if (id.len == 0 || zone == NULL)
        return;
    zone_lock(zone);
    session = keyed_put(zone, sessions(zone), session_key(id, room), EVICT_MAX, &created);
    if (session != NULL) {
        session->peer = x->choice.last->id;
        session->used_s = clock_ms() / 1000;
    }
    zone_unlock(zone);
    if (session == NULL)
        log_alert(&x->req->log, 0, "could not remember a session in zone \"%.*s\": make it larger",
                  STR_ARG(zone_name(zone)));
}

/* Requests and answers -------------------------------------------------------------------------------- */

unsigned sticky_find(const struct upstream *g, struct req *r)
{
    const struct sticky *s = g->sticky;
    struct str value;

    if (s->kind == STICKY_COOKIE)
        return cookie_get(&r->in->fields, s->name, &value) ? by_route(g, value) : PEERS_NONE;
    value = first_value(r, &s->lookup);
    if (value.len == 0)
        return PEERS_NONE;
    return s->kind == STICKY_ROUTE ? by_route(g, value) : by_session(g, value);
}

/* "; expires=…; max-age=…" */
static struct str expiry(struct req *r, const struct sticky *s)
{
    char date[FMT_HTTP_DATE];

    if (!s->has_expires)
        return STR("");
    if (s->expires_s == UINT64_MAX)
        return str_printf(r->arena, "; expires=" EXPIRES_MAX "; max-age=%d", EXPIRES_MAX_AGE);
    fmt_http_date(date, clock_time() + (time_t) s->expires_s);
    date[7] = date[11] = '-'; /* as cookies were first specified, and some clients still want it */
    return str_printf(r->arena, "; expires=%.*s; max-age=%llu", FMT_HTTP_DATE, date,
                      (unsigned long long) s->expires_s);
}

static struct str samesite(struct req *r, const struct sticky *s)
{
    struct str value = s->samesite != NULL ? expr_eval(&r->eval, s->samesite) : STR("");

    return value.len > 0 ? str_printf(r->arena, "; samesite=%.*s", STR_ARG(value)) : STR("");
}

/* A client that is bound already is told again only where the cookie would run out. */
static void set_cookie(struct exchange *x)
{
    const struct sticky *s = x->group->sticky;
    const struct peer *p = x->choice.last;
    struct req *r = x->req;
    struct str now, ends, same;

    if (p->gone)
        return; /* it would bind to nobody, and its cookie went with the tables that knew it */
    if (!s->has_expires && cookie_get(&r->in->fields, s->name, &now) && str_eq(now, p->cookie))
        return;
    ends = expiry(r, s);
    same = samesite(r, s);
    fields_add_token(&r->out, &r->out.fields, T_SET_COOKIE,
                     str_printf(r->arena, "%.*s=%.*s%.*s%.*s%.*s", STR_ARG(s->name),
                                STR_ARG(p->cookie), STR_ARG(ends), STR_ARG(s->attributes),
                                STR_ARG(same)));
}

void sticky_head(struct exchange *x)
{
    const struct sticky *s = x->group->sticky;

    if (s->kind == STICKY_COOKIE)
        set_cookie(x);
    else if (s->kind == STICKY_LEARN && s->at_head)
        learn(x);
}

void sticky_done(struct exchange *x)
{
    const struct sticky *s = x->group->sticky;

    if (s->kind == STICKY_LEARN && !s->at_head)
        learn(x);
}

/* Configuration ---------------------------------------------------------------------------------------- */

static const char *invalid(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid parameter \"%s\"", cf->args[arg].ptr);
}

/* The rest of an argument behind "name=", or false. */
static bool takes(struct str arg, const char *name, struct str *value)
{
    struct str prefix = str_cstr(name);

    if (!str_starts(arg, prefix))
        return false;
    *value = str_skip(arg, prefix.len);
    return true;
}

static void add_attribute(struct conf *cf, struct sticky *s, const char *name, struct str value)
{
    s->attributes = str_printf(cf->arena, "%.*s; %s%s%.*s", STR_ARG(s->attributes), name,
                               value.len ? "=" : "", STR_ARG(value));
}

static const char *set_samesite(struct conf *cf, unsigned arg, struct str value, struct sticky *s)
{
    const char *error = NULL;

    if (value.len > 0 && value.ptr[0] == '$') {
        s->samesite = expr_compile(cf, value, 0, &error);
        return s->samesite ? NULL : conf_error_arg(cf, arg, "%s", error);
    }
    if (!str_eq(value, STR("strict")) && !str_eq(value, STR("lax")) && !str_eq(value, STR("none")))
        return invalid(cf, arg);
    add_attribute(cf, s, "samesite", value);
    return NULL;
}

static const char *cookie_parameter(struct conf *cf, unsigned arg, struct sticky *s)
{
    struct str text = cf->args[arg], value;
    uint64_t ms;

    if (takes(text, "expires=", &value)) {
        s->has_expires = true;
        s->expires_s = UINT64_MAX;
        if (str_eq(value, STR("max")))
            return NULL;
        if (str_to_ms(value, true, &ms) != 0)
            return invalid(cf, arg);
        s->expires_s = ms / 1000;
    } else if (takes(text, "domain=", &value) && value.len > 0) {
        add_attribute(cf, s, "domain", value);
    } else if (takes(text, "path=", &value) && value.len > 0) {
        add_attribute(cf, s, "path", value);
    } else if (takes(text, "samesite=", &value)) {
        return set_samesite(cf, arg, value, s);
    } else if (str_eq(text, STR("secure")) || str_eq(text, STR("httponly"))) {
        add_attribute(cf, s, text.ptr, STR(""));
    } else {
        return invalid(cf, arg);
    }
    return NULL;
}

static const char *set_cookie_kind(struct conf *cf, struct sticky *s)
{
    s->kind = STICKY_COOKIE;
    if (cf->nargs < 3)
        return conf_error(cf, "no cookie name in \"sticky cookie\"");
    if (!is_token(cf->args[2]))
        return conf_error_arg(cf, 2, "invalid cookie name \"%s\"", cf->args[2].ptr);
    s->name = cf->args[2];
    s->attributes = STR("");
    for (unsigned i = 3; i < cf->nargs; i++) {
        const char *error = cookie_parameter(cf, i, s);

        if (error != NULL)
            return error;
    }
    return NULL;
}

static const char *add_variable(struct conf *cf, unsigned arg, struct str text, struct expr_list *list)
{
    const char *error = NULL;
    struct expr *x;

    if (text.len < 2 || text.ptr[0] != '$')
        return conf_error_arg(cf, arg, "invalid variable name \"%.*s\"", STR_ARG(text));
    x = expr_compile(cf, text, 0, &error);
    if (x == NULL)
        return conf_error_arg(cf, arg, "%s", error);
    list->items = arena_grow(cf->arena, list->items, list->count, &list->capacity, sizeof(*list->items));
    list->items[list->count++] = x;
    return NULL;
}

static const char *set_route_kind(struct conf *cf, struct sticky *s)
{
    s->kind = STICKY_ROUTE;
    if (cf->nargs < 3)
        return conf_error(cf, "no variable in \"sticky route\"");
    for (unsigned i = 2; i < cf->nargs; i++) {
        const char *error = add_variable(cf, i, cf->args[i], &s->lookup);

        if (error != NULL)
            return error;
    }
    return NULL;
}

static const char *set_sessions_zone(struct conf *cf, unsigned arg, struct str text, struct sticky *s)
{
    ssize_t colon = str_chr(text, ':');
    const char *error = NULL;
    uint64_t size;

    if (colon <= 0 || str_to_size(str_skip(text, (size_t) colon + 1), &size) != 0 || size > ZONE_MAX)
        return conf_error_arg(cf, arg, "invalid zone size \"%.*s\"", STR_ARG(text));
    if (size < ZONE_MIN)
        return conf_error_arg(cf, arg, "zone \"%.*s\" is too small", (int) colon, text.ptr);
    s->zone = res_zone(cf, str_from(text.ptr, (size_t) colon), (size_t) size, &sessions_zone, &error);
    return s->zone != NULL ? NULL : error;
}

static const char *learn_parameter(struct conf *cf, unsigned arg, struct sticky *s)
{
    struct str text = cf->args[arg], value;
    uint64_t ms;

    if (takes(text, "create=", &value))
        return add_variable(cf, arg, value, &s->create);
    if (takes(text, "lookup=", &value))
        return add_variable(cf, arg, value, &s->lookup);
    if (takes(text, "zone=", &value))
        return set_sessions_zone(cf, arg, value, s);
    if (takes(text, "timeout=", &value)) {
        if (str_to_ms(value, true, &ms) != 0 || ms < 1000)
            return invalid(cf, arg);
        s->timeout_s = ms / 1000;
        return NULL;
    }
    if (str_eq(text, STR("header"))) {
        s->at_head = true;
        return NULL;
    }
    if (str_eq(text, STR("sync")))
        return conf_error_arg(cf, arg, "sessions cannot be shared between hosts (\"sync\")");
    return invalid(cf, arg);
}

static const char *set_learn_kind(struct conf *cf, struct sticky *s)
{
    s->kind = STICKY_LEARN;
    s->timeout_s = 600;
    for (unsigned i = 2; i < cf->nargs; i++) {
        const char *error = learn_parameter(cf, i, s);

        if (error != NULL)
            return error;
    }
    if (s->create.count == 0)
        return conf_error(cf, "\"sticky learn\" requires \"create\"");
    if (s->lookup.count == 0)
        return conf_error(cf, "\"sticky learn\" requires \"lookup\"");
    if (s->zone == NULL)
        return conf_error(cf, "\"sticky learn\" requires \"zone\"");
    return NULL;
}

const char *sticky_set(struct conf *cf, void *field)
{
    struct upstream *g = cf->level->object;
    struct sticky *s = ARENA_NEW(cf->arena, struct sticky);

    (void) field;
    g->sticky = s;
    if (str_eq(cf->args[1], STR("cookie")))
        return set_cookie_kind(cf, s);
    if (str_eq(cf->args[1], STR("route")))
        return set_route_kind(cf, s);
    if (str_eq(cf->args[1], STR("learn")))
        return set_learn_kind(cf, s);
    return invalid(cf, 1);
}
