/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_conn: how many connections, or rather requests under way, there may be per key. Counts lie
 * in a shared zone and are those of all workers. Which worker counts on which key is noted in its
 * ledger, so that what a dead one held is given back, and so that counts can be made anew
 * when a death left one half changed.
 */
#include "core/zone/ledger.h"
#include "modules/http/limit.h"

/* configure: switch=http_limit_conn_module default=on */

#define KEY_MAX 255
#define CONN_MAX 65535
#define PREPARED_MAX 4

static unsigned conn_slot;

struct conn_limit {
    struct res_zone *res;
    unsigned max;
    struct conf_pos pos;
};

struct conn_limits {
    struct conn_limit *items;
    unsigned count, capacity;
};

struct conn_conf {
    struct limit_settings settings;
    struct conn_limits limits;
};

/* What a main request holds, until it ends. */
struct held {
    struct wait wait;
    unsigned count;
    struct held_one {
        struct zone *zone;
        struct cells *table;
        unsigned generation;
        uint64_t digest;
        zone_off_t entry;
        struct counter_set *counts; /* of the zone; the caller's of count */
    } items[];
};

/* Counting ----------------------------------------------------------------------------------- */

/* A cell's narrow value is its count; that of a cell in use is above zero. The ledgers are the truth, this is their sum. */
static uint32_t *count_of(struct cell cell)
{
    return &cell.line->narrow[cell.n];
}

static void uncount(struct cells_page *page, struct cell cell)
{
    ZONE_SET(*count_of(cell), *count_of(cell) - 1);
    if (*count_of(cell) == 0)
        cells_drop(page, cell);
}

/* What a recount is about. */
struct recount {
    const struct cells *t;
    struct cells_page *page;
};

static void recount(struct zone *zone, const struct cells *t, struct cells_page *page);

static const struct cells_kind counts = { .mend = recount };

static bool count_again(struct zone *zone, zone_off_t entry, uint64_t digest, void *data)
{
    const struct recount *re = data;
    struct cell cell = { NULL, 0 };

    (void) entry;
    if (cells_is_page_of(zone, re->t, re->page, digest))
        cell = cells_find(re->page, digest);
    if (cell.line != NULL)
        ZONE_SET(*count_of(cell), *count_of(cell) + 1);
    return true;
}

/* After a death: what ledgers hold of a page cannot change while it is locked. */
static void recount(struct zone *zone, const struct cells *t, struct cells_page *page)
{
    struct recount re = { t, page };
    struct cell cell;

    for (unsigned l = 0; l < CELLS_LINES; l++)
        memset(page->lines[l].narrow, 0, sizeof(page->lines[l].narrow));
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++)
        (void) ledger_each(zone, zone_slot(zone, worker), count_again, &re);
    for (cell.line = page->lines; cell.line < page->lines + CELLS_LINES; cell.line++) {
        for (cell.n = 0; cell.n < CELLS_IN_LINE; cell.n++) {
            if (cell.line->digest[cell.n] != 0 && *count_of(cell) == 0)
                cells_drop(page, cell);
        }
    }
}

enum outcome { COUNTED, TOO_MANY, NO_ROOM };

static enum outcome count(struct zone *zone, struct cells *t, uint64_t digest, unsigned max,
                          struct held_one *one)
{
    struct ledger *ledger = zone_my_slot(zone);
    enum outcome outcome = COUNTED;
    struct cells_page *page;
    struct cell cell;

    if (unlikely(!ledger_reserve(zone, ledger)))
        return NO_ROOM;
    page = cells_lock(zone, t, &counts, digest);
    cell = cells_find(page, digest);
    if (cell.line == NULL)
        cell = cells_put(t, &counts, page, digest, NULL);
    if (unlikely(cell.line == NULL)) {
        outcome = NO_ROOM;
    } else if (*count_of(cell) >= max) {
        outcome = TOO_MANY;
    } else {
        one->zone = zone;
        one->table = t;
        one->generation = zone_generation(zone);
        one->digest = digest;
        one->entry = ledger_take(zone, ledger, digest);
        ZONE_SET(*count_of(cell), *count_of(cell) + 1);
    }
    cells_unlock(zone, t, &counts, page);
    return outcome;
}

static void give_one(struct zone *zone, struct cells *t, struct ledger *ledger, uint64_t digest,
                     zone_off_t entry)
{
    struct cells_page *page = cells_lock(zone, t, &counts, digest);
    struct cell cell = cells_find(page, digest);

    ASSERT(cell.line != NULL);
    ledger_give(zone, ledger, entry);
    uncount(page, cell);
    cells_unlock(zone, t, &counts, page);
}

static void give_back(struct held *held)
{
    while (held->count > 0) {
        struct held_one *one = &held->items[--held->count];

        /* A wipe has forgotten it. */
        if (likely(zone_generation(one->zone) == one->generation))
            give_one(one->zone, one->table, zone_my_slot(one->zone), one->digest, one->entry);
    }
}

static void request_ends(struct wait *w)
{
    give_back(container_of(w, struct held, wait));
}

/* The hook ----------------------------------------------------------------------------------- */

enum { COUNT_PASSED, COUNT_REJECTED, COUNT_REJECTED_DRY_RUN };
static const char *const counter_names[] = { "passed", "rejected", "rejected_dry_run", NULL };
static const struct counter_kind conn_counters = { "limit_conn", counter_names, 0, 0 };

static struct limit_zone *zone_of(const struct conn_limit *limit)
{
    return limit->res->spec.data;
}

static enum verdict refuse(struct req *r, const struct conn_conf *conf,
                           const struct conn_limit *limit, enum outcome outcome)
{
    struct str name = limit->res->spec.name;

    counters_add(zone_of(limit)->counts,
                 conf->settings.dry_run ? COUNT_REJECTED_DRY_RUN : COUNT_REJECTED, 1);
    if (outcome == NO_ROOM)
        log_crit(log_main, 0, "no memory in limit_conn_zone \"%.*s\"", STR_ARG(name));
    else
        LOG(&r->log, conf->settings.log_level, 0, "limiting connections%s by zone \"%.*s\"",
            conf->settings.dry_run ? ", dry run," : "", STR_ARG(name));
    if (!conf->settings.dry_run)
        req_refused(r, limit->pos, "limited by \"limit_conn %.*s %u\"", STR_ARG(name), limit->max);
    return limit_refuse(r, LIMITER_CONN, &conf->settings);
}

/*
 * Digests are made before limit_req has its turn: what is known of them comes from memory together with what limit_req
 * needs. They are kept here, since nothing but limit_req is between; if that makes the request wait, they are made again.
 * So is one of a key that is not to be counted, since what there is to log must not be before limit_req's lines.
 */
static struct {
    const struct req *r;
    uint64_t digests[PREPARED_MAX];
} prepared;

static enum verdict conn_prepare(struct req *r)
{
    const struct conn_limits *limits = &((struct conn_conf *) req_loc_conf(r, conn_slot))->limits;

    if (limit_result(r, LIMITER_CONN) != LIMIT_NOT_JUDGED)
        return V_NEXT;
    prepared.r = r;
    for (unsigned i = 0; i < MIN(limits->count, PREPARED_MAX); i++)
        prepared.digests[i] = limit_digest(r, zone_of(&limits->items[i]), KEY_MAX, true);
    return V_NEXT;
}

static uint64_t conn_digest(struct req *r, const struct conn_limits *limits, unsigned n)
{
    if (likely(prepared.r == r && n < PREPARED_MAX && prepared.digests[n] != 0))
        return prepared.digests[n];
    return limit_digest(r, zone_of(&limits->items[n]), KEY_MAX, false);
}

static enum verdict judge(struct req *r, const struct conn_conf *conf)
{
    struct held *held = NULL;

    for (unsigned i = 0; i < conf->limits.count; i++) {
        const struct conn_limit *limit = &conf->limits.items[i];
        uint64_t digest = conn_digest(r, &conf->limits, i);
        enum outcome outcome;

        if (digest == 0)
            continue;
        if (held == NULL) {
            held = arena_alloc(r->main->arena,
                               sizeof(*held) + conf->limits.count * sizeof(held->items[0]));
            held->count = 0;
        }
        outcome = count(limit->res->zone, zone_of(limit)->known.table, digest, limit->max,
                        &held->items[held->count]);
        if (unlikely(outcome != COUNTED)) {
            give_back(held);
            return refuse(r, conf, limit, outcome);
        }
        held->items[held->count++].counts = zone_of(limit)->counts;
    }
    if (held == NULL)
        return V_NEXT;
    for (unsigned i = 0; i < held->count; i++)
        counters_add(held->items[i].counts, COUNT_PASSED, 1);
    limit_set_result(r, LIMITER_CONN, LIMIT_PASSED);
    wait_begin(r->main, &held->wait, request_ends);
    return V_NEXT;
}

static enum verdict conn_run(struct req *r)
{
    enum verdict verdict = V_NEXT;

    if (limit_result(r, LIMITER_CONN) == LIMIT_NOT_JUDGED)
        verdict = judge(r, req_loc_conf(r, conn_slot));
    limit_forget_digest();
    return verdict;
}

static bool conn_wanted(const struct level *level)
{
    const struct conn_conf *conf = level_conf(level, STORE_LOC, conn_slot);

    return conf->limits.count > 0;
}

/* Zones -------------------------------------------------------------------------------------- */

static int zone_init(struct zone *zone, void *data)
{
    /* The rest is for ledgers. */
    struct cells *t = cells_new(zone, zone_bytes_free(zone) / 8 * 5);

    (void) data;
    if (t == NULL) {
        log_emerg(log_main, 0, "limit_conn_zone \"%.*s\" is too small", STR_ARG(zone_name(zone)));
        return -1;
    }
    ledger_forget_all(zone);
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

static bool recover(struct zone *zone)
{
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++)
        ledger_recover(zone, zone_slot(zone, worker));
    return true;
}

static bool give_of_dead(struct zone *zone, zone_off_t entry, uint64_t digest, void *ledger)
{
    give_one(zone, limit_table(zone), ledger, digest, entry);
    return true;
}

static void worker_gone(struct zone *zone, void *slot)
{
    (void) ledger_each(zone, slot, give_of_dead, slot);
    zone_lock(zone);
    ledger_drop(zone, slot);
    zone_unlock(zone);
}

static const struct zone_kind conn_kind = {
    .name = "limit_conn_zone", /* as it stands in messages on zones */
    .version = 4,
    .scattered = true,
    .slot_size = sizeof(struct ledger),
    .init = zone_init,
    .recover = recover,
    .worker_gone = worker_gone,
};

/* Configuration ------------------------------------------------------------------------------ */

static const char *set_zone(struct conf *cf, void *field)
{
    struct limit_zone *z = ARENA_NEW(cf->arena, struct limit_zone);
    const char *error = limit_zone_set(cf, z, &conn_kind, NULL);

    (void) field;
    if (error == NULL)
        z->counts = counters_define(cf, &conn_counters, z->res->spec.name);
    return error;
}

static const char *set_limit(struct conf *cf, void *field)
{
    struct conn_limits *limits = field;
    struct conn_limit limit = { .pos = cf->pos };
    const char *error = NULL;
    uint64_t max;

    limit.res = res_zone(cf, cf->args[1], 0, &conn_kind, &error);
    if (limit.res == NULL)
        return error;
    for (unsigned i = 0; i < limits->count; i++) {
        if (limits->items[i].res == limit.res)
            return conf_error(cf, "\"limit_conn\" directive is duplicate");
    }
    if (limit_number(cf->args[2], UINT32_MAX, &max) != 0)
        return conf_error_arg(cf, 2, "invalid number of connections \"%.*s\"",
                              STR_ARG(cf->args[2]));
    if (max > CONN_MAX)
        return conf_error_arg(cf, 2, "connection limit must be less %d", CONN_MAX + 1);
    limit.max = (unsigned) max;
    limits->items = arena_grow(cf->arena, limits->items, limits->count, &limits->capacity,
                               sizeof(*limits->items));
    limits->items[limits->count++] = limit;
    return NULL;
}

static const char *set_limit_zone(struct conf *cf, void *field)
{
    (void) field;
    return conf_error(cf,
                      "directive \"limit_zone\" is obsolete, use "
                      "\"limit_conn_zone %.*s zone=%.*s:%.*s;\" instead",
                      STR_ARG(cf->args[2]), STR_ARG(cf->args[1]), STR_ARG(cf->args[3]));
}

static bool get_status(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return limit_result_text(req_of(e), LIMITER_CONN, out);
}

static const struct var_row variables[] = {
    { "limit_conn_status", get_status, NULL, 0, VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct directive directives[] = {
    ROW_CALL("limit_conn_zone", CTX_HTTP, ARGS2 | ARG_REPEAT, set_zone, STORE_LOC,
             "key zone=name:size",
             "A shared memory zone in which connections are counted by a key."),
    ROW_CALL("limit_zone", CTX_HTTP, ARGS3 | ARG_REPEAT, set_limit_zone, STORE_LOC,
             "name $variable size", "Obsolete, and an error: limit_conn_zone is its successor."),
    ROW("limit_conn", CTX_HSL, ARGS2 | ARG_REPEAT, set_limit, STORE_LOC, struct conn_conf, limits,
        INHERIT_WHOLE, NULL, "zone number", "Limits the number of connections per key of a zone."),
    LIMIT_ROWS("limit_conn", struct conn_conf),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_PREACCESS, HOOK_LIMIT_PREPARE, conn_prepare, conn_wanted },
    { PHASE_PREACCESS, HOOK_LIMIT_CONN, conn_run, conn_wanted },
    HOOK_END,
};

static const struct http_module http_limit_conn = { .variables = variables, .hooks = hooks };

const struct module module_http_limit_conn = {
    .name = "http_limit_conn",
    .slot = &conn_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct conn_conf) },
    .directives = directives,
    .http = &http_limit_conn,
};
