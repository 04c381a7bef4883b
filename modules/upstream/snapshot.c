/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a group in a zone, for those who let people look at it; and its counters, set to nothing. Each look is one hold of the
 * zone's lock, so that its numbers agree with each other. Changes are made by dynamic.c.
 */
#include "modules/upstream/shared.h"

/* Looking ------------------------------------------------------------------------------------------------ */

struct upstream *upstream_shared_next(const struct http_main *http, const struct upstream *prev)
{
    struct upstream_main *m = level_conf(http->level, STORE_MAIN, upstream_slot);
    struct list *n;

    if (m == NULL || !m->ready)
        return NULL;
    for (n = prev != NULL ? prev->link.next : m->groups.next; n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);

        if (g->level != NULL && g->zone_spec != NULL)
            return g;
    }
    return NULL;
}

bool upstream_is_shared(const struct upstream *g)
{
    return g->zone != NULL;
}

static const char *state_name(uint32_t state)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        { PEER_DOWN, "down" },          { PEER_DRAIN, "draining" }, { PEER_SICK, "unhealthy" },
        { PEER_UNCHECKED, "checking" }, { PEER_BROKEN, "unavail" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (state & names[i].bit)
            return names[i].name;
    }
    return "up";
}

static int64_t average_ms(int64_t us)
{
    return us > 0 ? us / 1000 : -1;
}

/* Each status once, in order, and the classes of all. */
static void fill_responses(struct upstream_server *out, const struct peer_stats *stats)
{
    memcpy(out->responses, stats->responses, sizeof(out->responses));
    for (unsigned i = 0; i < PEER_CODES; i++) {
        uint64_t count = __atomic_load_n(&stats->code_counts[i], __ATOMIC_RELAXED);
        uint16_t code = __atomic_load_n(&stats->codes[i], __ATOMIC_RELAXED);
        unsigned at = out->code_count;

        if (count == 0 || code < 100 || code > 599)
            continue;
        out->responses[code / 100 - 1] += count;
        for (; at > 0 && out->codes[at - 1] > code; at--) {
            out->codes[at] = out->codes[at - 1];
            out->code_counts[at] = out->code_counts[at - 1];
        }
        out->codes[at] = code;
        out->code_counts[at] = count;
        out->code_count++;
    }
}

static void fill_numbers(struct upstream_server *out, const struct peer_view *v, unsigned i,
                         struct peer_stats *stats)
{
    const struct peer_record *rec = &v->records[i];
    uint32_t state = v->state[i];

    shared_note_state(stats, state);
    out->state = state_name(state);
    out->active = v->conns[i];
    out->requests = stats->requests;
    fill_responses(out, stats);
    memcpy(out->tls, stats->tls, sizeof(out->tls));
    out->has_tls |= out->tls[PEER_TLS_HANDSHAKES] + out->tls[PEER_TLS_FAILED] > 0;
    out->sent = stats->sent;
    out->received = stats->received;
    out->fails = stats->fails;
    out->unavail = stats->unavail;
    out->checked = rec->checks > 0;
    out->last_passed = rec->last_passed;
    out->checks = rec->checks;
    out->failed_checks = rec->failed_checks;
    out->unhealthy = rec->unhealthy;
    out->downtime_ms = stats->downtime_ms;
    out->downstart_ms = stats->downstart_ms;
    if (stats->downstart_ms != 0)
        out->downtime_ms += (uint64_t) MAX(shared_wall_ms() - stats->downstart_ms, 0);
    out->selected_ms = stats->selected_ms;
    out->header_time_ms = average_ms(stats->header_us);
    out->response_time_ms = average_ms(stats->response_us);
}

static void fill(struct arena *arena, struct upstream *g, const struct zone_group *zg, unsigned i,
                 struct upstream_server *out)
{
    struct zone_server *s = shared_server(g->zone, zg, i);
    struct place p;

    shared_read(g->zone, zg, i, &p);
    *out = (struct upstream_server){
        .id = s->number,
        .parent = s->parent,
        .resolves = s->kind == PLACE_NAME,
        .name = str_dup(arena, p.text.name),
        .server = str_dup(arena, p.text.server),
        .service = str_dup(arena, p.text.service),
        .route = str_dup(arena, p.text.route),
        .backup = (p.state & PEER_BACKUP) != 0,
        .down = (p.state & PEER_DOWN) != 0,
        .drain = (p.state & PEER_DRAIN) != 0,
        .weight = p.weight,
        .max_conns = p.record.max_conns,
        .max_fails = p.record.max_fails,
        .fail_timeout_s = p.record.fail_timeout_s,
        .slow_start_s = p.record.slow_start_s,
        .has_tls = g->tls,
        .state = "up",
        .header_time_ms = -1,
        .response_time_ms = -1,
    };
    if (s->parent != UPSTREAM_NO_PARENT) {
        out->host = out->server;
        out->server = out->name;
    }
    if (s->kind == PLACE_SERVER)
        fill_numbers(out, &g->view, i, &s->stats);
    if (s->kind == PLACE_SERVER && out->route.len == 0 && g->peers[i] != NULL)
        out->route = str_dup(arena, g->peers[i]->cookie);
}

static int by_id(const void *a, const void *b)
{
    const struct upstream_server *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/* What each worker tells of itself, in sum. */
static void sum_workers(struct upstream *g, const struct zone_group *zg,
                        struct upstream_status *out, unsigned *workers)
{
    for (unsigned w = 0; w < ZONE_WORKERS; w++) {
        const struct slot *slot = zone_slot(g->zone, w);

        for (const struct held *h = zone_at(g->zone, slot->held); h != NULL;
             h = zone_at(g->zone, h->next)) {
            if (zone_at(g->zone, h->group) != zg)
                continue;
            out->keepalive += h->idle;
            out->queue_size += h->queued;
            *workers += 1;
        }
    }
}

bool upstream_snapshot(struct upstream *g, struct arena *arena, struct upstream_status *out)
{
    struct zone_group *zg;
    unsigned workers = 0;

    *out = (struct upstream_status){ 0 };
    if (g->zone == NULL)
        return false;
    upstream_look(g);
    zg = shared_lock(g);
    peers_look(&g->view, clock_ms() / 1000);
    out->zone = zone_name(g->zone);
    out->servers = ARENA_ARRAY(arena, struct upstream_server, g->count);
    for (unsigned i = 0; i < g->count; i++) {
        if (shared_server(g->zone, zg, i)->kind != PLACE_FREE)
            fill(arena, g, zg, i, &out->servers[out->count++]);
        else
            out->zombies += g->view.conns[i] > 0;
    }
    sum_workers(g, zg, out, &workers);
    out->queue_overflows = zg->queue_overflows;
    upstream_unlock(g);
    out->has_queue = g->queue != NULL;
    out->queue_max = g->queue != NULL ? queue_max(g->queue) * workers : 0;
    qsort(out->servers, out->count, sizeof(*out->servers), by_id);
    return true;
}

/* Statistics -------------------------------------------------------------------------------------------------- */

static void reset_server(struct upstream *g, const struct zone_group *zg, unsigned i)
{
    struct peer_stats *stats = &shared_server(g->zone, zg, i)->stats;
    struct peer_record *rec = &g->view.records[i];
    int64_t out = stats->downstart_ms != 0 ? shared_wall_ms() : 0;

    memset(stats, 0, offsetof(struct peer_stats, codes));
    memset(stats->code_counts, 0, sizeof(*stats) - offsetof(struct peer_stats, code_counts));
    stats->downstart_ms = out;
    rec->checks = rec->failed_checks = 0;
    rec->unhealthy = 0;
}

enum upstream_edit upstream_reset(struct upstream *g)
{
    struct zone_group *zg;

    if (g->zone == NULL)
        return EDIT_STATIC;
    zg = shared_lock(g);
    for (unsigned i = 0; i < g->count; i++)
        reset_server(g, zg, i);
    zg->queue_overflows = 0;
    upstream_unlock(g);
    return EDIT_OK;
}

enum upstream_edit upstream_server_reset(struct upstream *g, uint32_t id)
{
    const struct zone_group *zg;
    unsigned i;

    if (g->zone == NULL)
        return EDIT_STATIC;
    zg = shared_lock(g);
    i = shared_find(g->zone, zg, id);
    if (i != PEERS_NONE)
        reset_server(g, zg, i);
    upstream_unlock(g);
    return i != PEERS_NONE ? EDIT_OK : EDIT_NOT_FOUND;
}
