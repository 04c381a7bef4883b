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
/*
 * Entries live no longer than requests, so there are few of them for the size of the zone: a table of half a
 * megabyte stays in the processor's caches, and a million entries still make chains of eight only.
 */
#define BUCKETS_MAX (1u << 17)

static unsigned conn_slot;

/* In the zone. The ledgers are the truth, this is their sum. */
struct counter {
    uint32_t count;
};

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
        zone_off_t entry;
        unsigned generation;
    } items[];
};

/* Counting ----------------------------------------------------------------------------------- */

static void uncount(struct zone *zone, struct counter *c)
{
    if (--c->count == 0)
        keyed_delete(zone, limit_table(zone), c);
}

enum outcome { COUNTED, TOO_MANY, NO_ROOM };

static enum outcome count(struct zone *zone, struct keyed_key *key, unsigned max,
                          struct held_one *one)
{
    enum outcome outcome = COUNTED;
    struct counter *c;
    bool created;

    zone_lock(zone);
    c = keyed_put_prepared(zone, limit_table(zone), key, 0, &created);
    if (c == NULL) {
        outcome = NO_ROOM;
    } else if (c->count >= max) {
        outcome = TOO_MANY;
    } else {
        one->zone = zone;
        one->generation = zone_generation(zone);
        one->entry = ledger_take(zone, c);
        if (one->entry != 0)
            c->count++;
        else
            outcome = NO_ROOM;
        if (unlikely(c->count == 0))
            keyed_delete(zone, limit_table(zone), c);
    }
    zone_unlock(zone);
    return outcome;
}

static void give_back(struct held *held)
{
    while (held->count > 0) {
        struct held_one *one = &held->items[--held->count];
        struct counter *c;

        zone_lock(one->zone);
        /* A wipe has forgotten it. */
        if (likely(zone_generation(one->zone) == one->generation)) {
            c = ledger_held(one->zone, one->entry);
            ledger_give(one->zone, one->entry);
            uncount(one->zone, c);
        }
        zone_unlock(one->zone);
    }
}

static void request_ends(struct wait *w)
{
    give_back(container_of(w, struct held, wait));
}

/* The hook ----------------------------------------------------------------------------------- */

static enum verdict refuse(struct req *r, const struct conn_conf *conf,
                           const struct conn_limit *limit, enum outcome outcome)
{
    struct str name = limit->res->spec.name;

    if (outcome == NO_ROOM)
        log_crit(log_main, 0, "no memory in limit_conn_zone \"%.*s\"", STR_ARG(name));
    else
        LOG(&r->log, conf->settings.log_level, 0, "limiting connections%s by zone \"%.*s\"",
            conf->settings.dry_run ? ", dry run," : "", STR_ARG(name));
    if (!conf->settings.dry_run)
        req_refused(r, limit->pos, "limited by \"limit_conn %.*s %u\"", STR_ARG(name), limit->max);
    return limit_refuse(r, conn_slot, &conf->settings);
}

static enum verdict conn_run(struct req *r)
{
    const struct conn_conf *conf = req_loc_conf(r, conn_slot);
    struct held *held = NULL;

    if (limit_result(r, conn_slot) != LIMIT_NOT_JUDGED)
        return V_NEXT;
    for (unsigned i = 0; i < conf->limits.count; i++) {
        const struct conn_limit *limit = &conf->limits.items[i];
        enum outcome outcome;
        struct keyed_key key;

        if (!limit_key(r, limit->res->spec.data, KEY_MAX, &key))
            continue;
        if (held == NULL) {
            held = arena_alloc(r->main->arena,
                               sizeof(*held) + conf->limits.count * sizeof(held->items[0]));
            held->count = 0;
        }
        outcome = count(limit->res->zone, &key, limit->max, &held->items[held->count]);
        if (unlikely(outcome != COUNTED)) {
            give_back(held);
            return refuse(r, conf, limit, outcome);
        }
        held->count++;
    }
    if (held == NULL)
        return V_NEXT;
    limit_set_result(r, conn_slot, LIMIT_PASSED);
    wait_begin(r->main, &held->wait, request_ends);
    return V_NEXT;
}

static bool conn_wanted(const struct level *level)
{
    const struct conn_conf *conf = level_conf(level, STORE_LOC, conn_slot);

    return conf->limits.count > 0;
}

/* Zones -------------------------------------------------------------------------------------- */

static int zone_init(struct zone *zone, void *data)
{
    size_t most = zone_bytes_free(zone) / 128;
    struct keyed *t = keyed_new(zone, sizeof(struct counter), MIN(most, BUCKETS_MAX));

    (void) data;
    if (t == NULL) {
        log_emerg(log_main, 0, "limit_conn_zone \"%.*s\" is too small", STR_ARG(zone_name(zone)));
        return -1;
    }
    ledger_forget_all(zone);
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

static bool count_again(struct zone *zone, zone_off_t object)
{
    if (!keyed_has_value(zone, limit_table(zone), object))
        return false;
    ((struct counter *) zone_at(zone, object))->count++;
    return true;
}

static bool recount(struct zone *zone)
{
    struct keyed *t = limit_table(zone);
    struct counter *c, *next;

    if (!keyed_recover(zone, t))
        return false;
    for (c = keyed_next(zone, t, NULL); c != NULL; c = keyed_next(zone, t, c))
        c->count = 0;
    for (unsigned worker = 0; worker < ZONE_WORKERS; worker++) {
        struct ledger *ledger = zone_slot(zone, worker);

        ledger_recover(zone, ledger);
        if (!ledger_each(zone, ledger, count_again))
            return false;
    }
    for (c = keyed_next(zone, t, NULL); c != NULL; c = next) {
        next = keyed_next(zone, t, c);
        if (c->count == 0)
            keyed_delete(zone, t, c);
    }
    return true;
}

static bool uncount_one(struct zone *zone, zone_off_t object)
{
    uncount(zone, zone_at(zone, object));
    return true;
}

static void worker_gone(struct zone *zone, void *slot)
{
    zone_lock(zone);
    (void) ledger_each(zone, slot, uncount_one);
    ledger_drop(zone, slot);
    zone_unlock(zone);
}

static const struct zone_kind conn_kind = {
    .name = "limit_conn_zone", /* as it stands in messages on zones */
    .version = 2,
    .slot_size = sizeof(struct ledger),
    .init = zone_init,
    .recover = recount,
    .worker_gone = worker_gone,
};

/* Configuration ------------------------------------------------------------------------------ */

static const char *set_zone(struct conf *cf, void *field)
{
    (void) field;
    return limit_zone_set(cf, ARENA_NEW(cf->arena, struct limit_zone), &conn_kind, NULL);
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
    return limit_result_text(req_of(e), conn_slot, out);
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
