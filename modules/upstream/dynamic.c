/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Servers that change while they serve: added, changed and removed from outside, in all workers at once. With a state file the change is
 * written there first, so that what has been confirmed is never lost; the lock of the file's directory is held
 * meanwhile (state_file.c), the zone's only for moments. Called by whoever lets people edit the servers.
 */
#include <errno.h>
#include <stdarg.h>

#include "modules/upstream/servers.h"
#include "modules/upstream/shared.h"
#include "modules/upstream/state_file.h"

/* Above the longest name with a port. Zeros before a port could be more than a line of the state file may have. */
#define SERVER_TEXT_MAX 300

/* Changing ------------------------------------------------------------------------------------------------- */

/* A change on its way. */
struct edit {
    struct upstream *g;
    struct arena *arena;
    struct str *error;
    int lock;                     /* of the state file; -1: there is none */
    struct state_server *servers; /* those that were told of, as they are to be */
    unsigned count;
    struct str before; /* the state file as it is */
};

static enum upstream_edit refuse(struct edit *e, enum upstream_edit why, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static enum upstream_edit refuse(struct edit *e, enum upstream_edit why, const char *fmt, ...)
{
    char buf[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(buf, sizeof(buf), fmt, args);
    va_end(args);
    *e->error = str_dup(e->arena, str_cstr(buf));
    return why;
}

static int by_number(const void *a, const void *b)
{
    const struct state_server *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

/*
 * The servers that people have told of, those that names resolved to left out, in the order in which they came; the lock is
 * held.
 */
static void gather(struct edit *e, const struct zone_group *zg)
{
    struct upstream *g = e->g;

    e->servers = ARENA_ARRAY(e->arena, struct state_server, g->count + 1);
    for (unsigned i = 0; i < g->count; i++) {
        const struct zone_server *s = shared_server(g->zone, zg, i);
        struct place p;

        if (s->kind == PLACE_FREE || s->parent != UPSTREAM_NO_PARENT)
            continue;
        shared_read(g->zone, zg, i, &p);
        e->servers[e->count++] = (struct state_server){
            .number = s->number,
            .server = str_dup(e->arena, p.text.server),
            .route = str_dup(e->arena, p.text.route),
            .service = str_dup(e->arena, p.text.service),
            .resolves = s->kind == PLACE_NAME,
            .weight = p.weight,
            .state = p.state,
            .record = p.record,
        };
    }
    qsort(e->servers, e->count, sizeof(*e->servers), by_number);
}

static enum upstream_edit edit_begin(struct edit *e, struct upstream *g, struct arena *arena,
                                     struct str *error)
{
    const struct zone_group *zg;
    bool current;

    *e = (struct edit){ .g = g, .arena = arena, .error = error, .lock = -1 };
    *error = STR("");
    if (g->zone == NULL)
        return refuse(e, EDIT_STATIC, "upstream \"%.*s\" is not in shared memory",
                      STR_ARG(g->name));
    if (g->state.len > 0) {
        e->lock = state_lock(arena, g->state);
        if (e->lock < 0) {
            int err = errno;

            log_error(log_main, err, "the directory of state file \"%.*s\" cannot be locked",
                      STR_ARG(g->state));
            return refuse(e, EDIT_NOT_SAVED, "the state file cannot be written (%s)",
                          strerror(err));
        }
    }
    zg = shared_lock(g);
    gather(e, zg);
    current = zg->current;
    upstream_unlock(g);
    e->before = state_text(arena, e->servers, e->count);
    return current ? EDIT_OK
                   : refuse(e, EDIT_NOT_SAVED, "the configuration has been replaced, ask again");
}

/* What the file is about to say is ours, whoever reads it from now on. The last one: what the zone says as well. */
static void remember(struct upstream *g, struct str text)
{
    struct zone_group *zg = shared_lock(g);
    uint32_t next = (zg->state_last + 1) % STATE_HASHES;

    zg->state_hashes[next] = state_hash_of(text);
    zg->state_last = next;
    upstream_unlock(g);
}

/* Writes the servers as they are to be. */
static enum upstream_edit edit_save(struct edit *e, struct str text)
{
    struct upstream *g = e->g;
    int err;

    if (g->state.len == 0)
        return EDIT_OK;
    remember(g, text);
    if (state_write(g->state, text) == 0)
        return EDIT_OK;
    err = errno;
    remember(g, e->before);
    log_crit(
        log_main, err,
        "writing state file \"%.*s\" of upstream \"%.*s\" failed, its servers stay as they are",
        STR_ARG(g->state), STR_ARG(g->name));
    return refuse(e, EDIT_NOT_SAVED, "the state file cannot be written (%s)", strerror(err));
}

/* The change could not be made after all. */
static enum upstream_edit edit_back(struct edit *e)
{
    edit_save(e, e->before);
    return refuse(e, EDIT_NO_MEMORY, "no memory in zone \"%.*s\": make it larger",
                  STR_ARG(zone_name(e->g->zone)));
}

static enum upstream_edit edit_end(struct edit *e, enum upstream_edit result)
{
    state_unlock(e->lock);
    if (e->g->zone != NULL)
        upstream_look(e->g);
    return result;
}

static struct state_server *find_told(struct edit *e, uint32_t id)
{
    for (unsigned i = 0; i < e->count; i++) {
        if (e->servers[i].number == id)
            return &e->servers[i];
    }
    return NULL;
}

/* Of an id that is none of a server that was told of. */
static enum upstream_edit not_told(struct edit *e, uint32_t id)
{
    const struct zone_group *zg = shared_lock(e->g);
    unsigned i = shared_find(e->g->zone, zg, id);

    upstream_unlock(e->g);
    if (i != PEERS_NONE)
        return refuse(e, EDIT_IMMUTABLE, "server \"%u\" is an address that a name resolved to", id);
    return refuse(e, EDIT_NOT_FOUND, "server with ID \"%u\" does not exist", id);
}

/* No byte that the configuration's language would take for more than itself. */
static bool is_plain(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char) text.ptr[i];

        if (c <= ' ' || c == 127 || strchr("\"'\\;{}$#", c) != NULL)
            return false;
    }
    return true;
}

static enum upstream_edit bad(struct edit *e, const char *name)
{
    return refuse(e, EDIT_BAD_PARAMETER, "invalid \"%s\" value", name);
}

/* A value's worth of a change into the settings. */
static enum upstream_edit merge(struct edit *e, struct state_server *s,
                                const struct upstream_change *c)
{
    bool fixed = e->g->balancer->fixed;

    if ((c->what & CHANGE_WEIGHT) && (c->weight < 1 || c->weight > PEER_WEIGHT_MAX))
        return bad(e, "weight");
    if ((c->what & CHANGE_MAX_CONNS) && (c->max_conns < 0 || c->max_conns > INT32_MAX))
        return bad(e, "max_conns");
    if ((c->what & CHANGE_MAX_FAILS) && (c->max_fails < 0 || c->max_fails > INT32_MAX))
        return bad(e, "max_fails");
    if ((c->what & CHANGE_FAIL_TIMEOUT) && c->fail_timeout_s > INT32_MAX)
        return bad(e, "fail_timeout");
    if ((c->what & CHANGE_SLOW_START) &&
        (c->slow_start_s > INT32_MAX || (fixed && c->slow_start_s > 0)))
        return bad(e, "slow_start");
    if ((c->what & CHANGE_ROUTE) && (c->route.len > ROUTE_MAX || !is_plain(c->route)))
        return bad(e, "route");
    if ((c->what & CHANGE_BACKUP) && c->backup && fixed)
        return refuse(e, EDIT_NO_BACKUP, "upstream \"%.*s\" has no backup", STR_ARG(e->g->name));
    if ((c->what & CHANGE_DRAIN) && !c->drain && (s->state & PEER_DRAIN))
        return bad(e, "drain");
    if (c->what & CHANGE_WEIGHT)
        s->weight = (int32_t) c->weight;
    if (c->what & CHANGE_MAX_CONNS)
        s->record.max_conns = (uint32_t) c->max_conns;
    if (c->what & CHANGE_MAX_FAILS)
        s->record.max_fails = c->max_fails;
    if (c->what & CHANGE_FAIL_TIMEOUT)
        s->record.fail_timeout_s = c->fail_timeout_s;
    if (c->what & CHANGE_SLOW_START)
        s->record.slow_start_s = c->slow_start_s;
    if (c->what & CHANGE_ROUTE)
        s->route = c->route;
    if ((c->what & CHANGE_DOWN) && !c->down)
        s->state &= ~(uint32_t) (PEER_DOWN | PEER_DRAIN);
    if ((c->what & CHANGE_DOWN) && c->down)
        s->state |= PEER_DOWN;
    if ((c->what & CHANGE_DRAIN) && c->drain)
        s->state |= PEER_DRAIN;
    return EDIT_OK;
}

/* Sums are kept in 32 bits. */
static enum upstream_edit check_sums(struct edit *e)
{
    uint64_t weight = 0;

    for (unsigned i = 0; i < e->count; i++)
        weight += (uint64_t) e->servers[i].weight;
    /* A name stands for several. */
    if (weight * PEERS_SCALE > PEERS_WEIGHT_MAX)
        return refuse(e, EDIT_BAD_PARAMETER, "the weights add up to more than %d",
                      PEERS_WEIGHT_MAX / PEERS_SCALE);
    return EDIT_OK;
}

static bool is_name(struct str host)
{
    if (host.len == 0 || host.len > 253)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        unsigned char c = (unsigned char) host.ptr[i];

        if (!(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z') && c != '-' &&
            c != '_' && c != '.')
            return false;
    }
    return true;
}

/* What `server` says. *resolves: it is a name. */
static enum upstream_edit parse_server(struct edit *e, const struct upstream_change *c,
                                       struct addr *addr, struct state_server *s)
{
    struct upstream_address a;
    bool service = (c->what & CHANGE_SERVICE) && c->service.len > 0;
    const char *error;

    if (c->server.len == 0)
        return refuse(e, EDIT_NO_ADDRESS, "missing \"server\" argument");
    error = c->server.len <= SERVER_TEXT_MAX && is_plain(c->server)
                ? upstream_address_parse(&a, c->server, 80)
                : "invalid host";
    if (error != NULL)
        return refuse(e, EDIT_BAD_ADDRESS, "%s in upstream \"%.*s\"", error, STR_ARG(c->server));
    s->server = c->server;
    if (addr_parse(addr, a.host, a.is_unix ? 0 : a.port, false) == 0)
        return service ? bad(e, "service") : EDIT_OK;
    if (a.is_unix || !is_name(a.host))
        return refuse(e, EDIT_BAD_ADDRESS, "invalid host in upstream \"%.*s\"", STR_ARG(c->server));
    if (e->g->resolver == NULL)
        return refuse(e, EDIT_NO_RESOLVER, "no resolver defined to resolve \"%.*s\"",
                      STR_ARG(c->server));
    s->resolves = true;
    if (!service)
        return EDIT_OK;
    if (a.has_port || !is_name(c->service))
        return bad(e, "service");
    s->service = c->service;
    return EDIT_OK;
}

/* Under the lock: whether the weights are kept finely enough for a slow start. */
static void make_room(struct upstream *g, const struct zone_group *zg,
                      const struct peer_record *record)
{
    struct peer_view v;

    shared_view(g->zone, zg, &v);
    if (record->slow_start_s > 0)
        peers_rescale(&v);
}

/* Puts a server into the zone. */
static bool place(struct edit *e, const struct state_server *s, const struct addr *addr,
                  uint32_t *id)
{
    struct upstream *g = e->g;
    struct zone_group *zg;
    struct place p = {
        .kind = s->resolves ? PLACE_NAME : PLACE_SERVER,
        .parent = UPSTREAM_NO_PARENT,
        .text = { s->resolves ? STR("") : addr_dup_text(e->arena, addr, true), s->server, s->route,
                  s->service, s->resolves ? NULL : addr },
        .weight = s->weight,
        .state = s->state,
        .record = s->record,
    };
    unsigned i;

    zg = shared_lock(g);
    make_room(g, zg, &s->record);
    i = shared_place(g->zone, zg, g->health, &p);
    if (i != PEERS_NONE) {
        *id = shared_server(g->zone, zg, i)->number;
        zg->edited = 1;
    }
    shared_changed(g->zone, zg);
    upstream_unlock(g);
    return i != PEERS_NONE;
}

enum upstream_edit upstream_server_add(struct upstream *g, struct arena *arena,
                                       const struct upstream_change *change, uint32_t *id,
                                       struct str *error)
{
    struct edit e;
    struct addr addr;
    enum upstream_edit result = edit_begin(&e, g, arena, error);
    struct state_server *s = result == EDIT_OK ? &e.servers[e.count] : NULL;

    if (result == EDIT_OK) {
        *s = (struct state_server){ .number = UINT32_MAX,
                                    .weight = server_defaults.weight,
                                    .record = server_defaults.record };
        result = parse_server(&e, change, &addr, s);
    }
    if (result == EDIT_OK)
        result = merge(&e, s, change);
    if (result == EDIT_OK) {
        s->state |= (change->what & CHANGE_BACKUP) && change->backup ? PEER_BACKUP : 0;
        e.count++;
        result = check_sums(&e);
    }
    if (result == EDIT_OK)
        result = edit_save(&e, state_text(arena, e.servers, e.count));
    if (result == EDIT_OK && !place(&e, s, &addr, id))
        result = edit_back(&e);
    return edit_end(&e, result);
}

/* What a server is to be, and what that means for the addresses of a name. False: the zone is full. */
static bool alter(struct edit *e, const struct state_server *s)
{
    struct upstream *g = e->g;
    struct zone_group *zg = shared_lock(g);
    bool done = true;

    make_room(g, zg, &s->record);
    for (unsigned i = 0; i < g->count; i++) {
        struct zone_server *zs = shared_server(g->zone, zg, i);
        bool child = zs->parent == s->number;
        int32_t weight = s->weight;
        uint32_t state = s->state;

        if (zs->kind == PLACE_FREE || (zs->number != s->number && !child))
            continue;
        if (child && s->service.len > 0) {
            /* Weight and rank are the record's. */
            weight = peers_weight(&g->view, i);
            state = (state & ~(uint32_t) PEER_BACKUP) | (g->view.state[i] & PEER_BACKUP);
        }
        peers_change(&g->view, i, weight, state, &s->record);
        g->view.records[i].weight = weight;
        g->view.records[i].state = state;
        if (text_of(g->zone, zs)->route_len + s->route.len > 0)
            done &= shared_route(g->zone, zs, s->route) == 0;
    }
    zg->edited = 1;
    shared_changed(g->zone, zg);
    upstream_unlock(g);
    return done;
}

enum upstream_edit upstream_server_change(struct upstream *g, struct arena *arena, uint32_t id,
                                          const struct upstream_change *change, struct str *error)
{
    struct edit e;
    enum upstream_edit result = edit_begin(&e, g, arena, error);
    struct state_server *s = NULL, was;

    if (result == EDIT_OK) {
        s = find_told(&e, id);
        result = s == NULL ? not_told(&e, id) : EDIT_OK;
    }
    if (result == EDIT_OK && (change->what & CHANGE_BACKUP) &&
        change->backup != ((s->state & PEER_BACKUP) != 0))
        result = bad(&e, "backup");
    if (result == EDIT_OK) {
        was = *s;
        result = merge(&e, s, change);
    }
    if (result == EDIT_OK)
        result = check_sums(&e);
    if (result == EDIT_OK)
        result = edit_save(&e, state_text(arena, e.servers, e.count));
    if (result == EDIT_OK && !alter(&e, s)) {
        alter(&e, &was);
        result = edit_back(&e);
    }
    return edit_end(&e, result);
}

enum upstream_edit upstream_server_remove(struct upstream *g, struct arena *arena, uint32_t id,
                                          struct str *error)
{
    struct edit e;
    enum upstream_edit result = edit_begin(&e, g, arena, error);
    struct state_server *s = NULL;
    struct zone_group *zg;

    if (result == EDIT_OK) {
        s = find_told(&e, id);
        result = s == NULL ? not_told(&e, id) : EDIT_OK;
    }
    if (result == EDIT_OK) {
        e.count--;
        memmove(s, s + 1, (size_t) (e.servers + e.count - s) * sizeof(*s));
        result = edit_save(&e, state_text(arena, e.servers, e.count));
    }
    if (result == EDIT_OK) {
        zg = shared_lock(g);
        for (unsigned i = 0; i < g->count; i++) {
            const struct zone_server *zs = shared_server(g->zone, zg, i);

            if (zs->kind != PLACE_FREE && (zs->number == id || zs->parent == id))
                shared_leave(g->zone, zg, i);
        }
        zg->edited = 1;
        shared_changed(g->zone, zg);
        upstream_unlock(g);
    }
    return edit_end(&e, result);
}
