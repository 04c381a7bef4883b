/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_req: requests are let through at a rate, by the method of the leaky bucket. A key's bucket
 * holds how many requests, in thousandths, came faster than the rate allows. It leaks at that rate;
 * more than `burst` in it and a request is refused, more than `delay` and it waits until the bucket
 * has leaked that far. Buckets lie in a shared zone, in cells; one that has leaked dry makes way for others.
 */
#include "core/base/clock.h"
#include "modules/http/limit.h"

/* configure: switch=http_limit_req_module default=on */

#define KEY_MAX 65535
#define REQUEST 1000 /* what one of them adds to a bucket */
#define RATE_MAX (UINT64_C(1) << 31)
#define BURST_MAX (UINT64_C(1) << 30)
#define EXCESS_MAX ((UINT64_C(1) << 40) - 1)
#define ASKED_MAX UINT16_MAX
#define CLOCKS_MAY_DIFFER_MS 60000

static unsigned req_slot;

/* As a cell holds it: 40 bits of time, 40 of excess, 16 of what asked is later than time. */
struct bucket {
    uint64_t time_ms;  /* of the last request that passed */
    uint64_t asked_ms; /* of the last one, by which the age of buckets is told */
    uint64_t excess;   /* at time_ms, in thousandths of a request */
};

struct req_zone {
    struct limit_zone zone; /* first */
    uint64_t rate;          /* thousandths of a request per second */
};

struct req_limit {
    struct res_zone *res;
    uint64_t burst, delay; /* thousandths of a request */
    struct conf_pos pos;
};

struct req_limits {
    struct req_limit *items;
    unsigned count, capacity;
};

struct req_conf {
    struct limit_settings settings;
    struct req_limits limits;
};

/* A request that waits. */
struct delay {
    struct wait wait;
    struct timer timer;
};

/* Buckets ------------------------------------------------------------------------------------ */

static struct bucket bucket_of(struct cell cell)
{
    uint64_t wide = cell.line->wide[cell.n];
    struct bucket b = {
        .time_ms = wide >> 24,
        .asked_ms = (wide >> 24) + (wide & UINT16_MAX),
        .excess = (wide >> 16 & UINT8_MAX) << 32 | cell.line->narrow[cell.n],
    };

    return b;
}

/* Two stores, of which a death in between lets one request leak too early or too late. */
static void bucket_store(struct cell cell, const struct bucket *b)
{
    uint64_t asked_later = b->asked_ms > b->time_ms ? b->asked_ms - b->time_ms : 0;
    uint64_t excess = MIN(b->excess, EXCESS_MAX);

    cell.line->narrow[cell.n] = (uint32_t) excess;
    cell.line->wide[cell.n] = b->time_ms << 24 | excess >> 32 << 16 | MIN(asked_later, ASKED_MAX);
}

/* How long ago the last request passed. Workers read their clocks at different times, so it may lie ahead. */
static uint64_t bucket_age(const struct bucket *b, uint64_t now)
{
    if (likely(b->time_ms <= now))
        return now - b->time_ms;
    return b->time_ms - now > CLOCKS_MAY_DIFFER_MS ? 1 : 0;
}

/* What leaks out in so many milliseconds. */
static uint64_t leaked(uint64_t rate, uint64_t age_ms)
{
    uint64_t product;

    return __builtin_mul_overflow(rate, age_ms, &product) ? UINT64_MAX : product / 1000;
}

/* What the bucket would hold with one more request. */
static uint64_t bucket_with_one(const struct bucket *b, uint64_t rate, uint64_t now)
{
    uint64_t out = leaked(rate, bucket_age(b, now)), in = b->excess + REQUEST;

    return in > out ? in - out : 0;
}

static void bucket_charge(struct bucket *b, uint64_t excess, uint64_t now)
{
    if (bucket_age(b, now) != 0)
        b->time_ms = now;
    b->excess = excess;
}

/* For the table: who puts a bucket into it, and when. */
struct newcomer {
    uint64_t rate, now;
};

/*
 * Nothing, once the next request would find what it would find in a new bucket; then it counts how long ago the bucket
 * was asked for.
 */
static uint64_t bucket_worth(struct cell cell, const void *data)
{
    const struct newcomer *newcomer = data;
    struct bucket b = bucket_of(cell);

    if (bucket_with_one(&b, newcomer->rate, newcomer->now) == 0)
        return 0;
    return b.asked_ms + 1;
}

static const struct cells_kind buckets = { .worth = bucket_worth };

/* The limits of a request -------------------------------------------------------------------- */

/*
 * Whether one more request fits under a limit, and what its bucket then holds. Of several limits only
 * the last one is also `charged` at once: before, all must have agreed.
 */
static bool judge(const struct req_limit *limit, uint64_t digest, bool charged, uint64_t *excess)
{
    const struct req_zone *z = limit->res->spec.data;
    struct zone *zone = limit->res->zone;
    struct cells *t = z->zone.known.table;
    struct cells_page *page = cells_lock(zone, t, &buckets, digest);
    struct cell cell = cells_find(page, digest);
    uint64_t now = clock_ms();
    struct bucket b = { now, now, 0 };
    bool fits = true;

    *excess = 0;
    if (likely(cell.line != NULL)) {
        b = bucket_of(cell);
        b.asked_ms = now;
        *excess = bucket_with_one(&b, z->rate, now);
        fits = *excess <= limit->burst;
        if (fits && charged)
            bucket_charge(&b, *excess, now);
    } else if (charged) {
        cell = cells_put(t, &buckets, page, digest, &(struct newcomer){ z->rate, now });
    }
    if (likely(cell.line != NULL))
        bucket_store(cell, &b);
    cells_unlock(zone, t, &buckets, page);
    return fits;
}

/* Charges a bucket that was judged before; what it holds now. */
static uint64_t charge(const struct req_limit *limit, uint64_t digest)
{
    const struct req_zone *z = limit->res->spec.data;
    struct zone *zone = limit->res->zone;
    struct cells *t = z->zone.known.table;
    struct cells_page *page = cells_lock(zone, t, &buckets, digest);
    struct cell cell = cells_find(page, digest);
    uint64_t now = clock_ms(), excess = 0;
    struct bucket b = { now, now, 0 };

    if (cell.line != NULL) {
        b = bucket_of(cell);
        b.asked_ms = now;
        excess = bucket_with_one(&b, z->rate, now);
        bucket_charge(&b, excess, now);
    } else {
        cell = cells_put(t, &buckets, page, digest, &(struct newcomer){ z->rate, now });
    }
    bucket_store(cell, &b);
    cells_unlock(zone, t, &buckets, page);
    return excess;
}

static uint64_t delay_of(const struct req_limit *limit, uint64_t excess)
{
    const struct req_zone *z = limit->res->spec.data;

    return excess > limit->delay ? (excess - limit->delay) * 1000 / z->rate : 0;
}

/* Log lines ---------------------------------------------------------------------------------- */

static void log_refused(struct req *r, const struct req_conf *conf, const struct req_limit *limit,
                        uint64_t excess)
{
    const char *dry = conf->settings.dry_run ? ", dry run" : "";

    LOG(&r->log, conf->settings.log_level, 0,
        "limiting requests%s, excess: %llu.%03llu by zone \"%.*s\"", dry,
        (unsigned long long) excess / 1000, (unsigned long long) excess % 1000,
        STR_ARG(limit->res->spec.name));
    if (!conf->settings.dry_run)
        req_refused(r, limit->pos, "limited by \"limit_req zone=%.*s\"",
                    STR_ARG(limit->res->spec.name));
}

static void log_delayed(struct req *r, const struct req_conf *conf, const struct req_limit *limit,
                        uint64_t excess, uint64_t delay_ms)
{
    /* A delay matters less than a refusal by one level, but there is none below info. */
    unsigned level = MIN(conf->settings.log_level + 1, (unsigned) LOG_INFO_LEVEL);
    const char *dry = conf->settings.dry_run ? ", dry run" : "";

    LOG(&r->log, level, 0, "delaying request%s, excess: %llu.%03llu, by zone \"%.*s\"", dry,
        (unsigned long long) excess / 1000, (unsigned long long) excess % 1000,
        STR_ARG(limit->res->spec.name));
    req_trace(r, limit->pos, "delayed by %llu ms by \"limit_req zone=%.*s\"",
              (unsigned long long) delay_ms, STR_ARG(limit->res->spec.name));
}

/* Waiting ------------------------------------------------------------------------------------ */

static void delay_cancel(struct wait *w)
{
    timer_drop(&container_of(w, struct delay, wait)->timer);
}

static void delay_over(struct timer *timer)
{
    struct delay *d = container_of(timer, struct delay, timer);
    struct req *r = d->wait.req;

    wait_end(&d->wait);
    timer_drop(timer);
    if (!r->background)
        req_watch_client(r, false);
    req_deliver(r, V_NEXT);
}

static enum verdict delay_start(struct req *r, uint64_t ms)
{
    struct delay *d = ARENA_NEW(r->arena, struct delay);

    d->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = delay_over };
    wait_begin(r, &d->wait, delay_cancel);
    if (!r->background)
        req_watch_client(r, true);
    timer_set(&d->timer, ms);
    return V_WAIT;
}

/* The hook ----------------------------------------------------------------------------------- */

/* A request before one limit whose key it has. */
struct judged {
    const struct req_limit *limit;
    uint64_t digest;
    uint64_t excess;
    bool charged;
};

/* As enum limit_result has them, from LIMIT_PASSED on. */
static const char *const counter_names[] = { "passed",          "delayed",          "rejected",
                                             "delayed_dry_run", "rejected_dry_run", NULL };
static const struct counter_kind req_counters = { "limit_req", counter_names, 0, 0 };

static void count_result(const struct req_limit *limit, enum limit_result result)
{
    const struct req_zone *z = limit->res->spec.data;

    counters_add(z->zone.counts, (unsigned) (result - LIMIT_PASSED), 1);
}

/* All limits agree: charges those that have not been, and waits for as long as the slowest one says. */
static enum verdict let_pass(struct req *r, const struct req_conf *conf, struct judged *judged,
                             unsigned count)
{
    const struct judged *slowest = NULL;
    uint64_t longest_ms = 0;

    for (struct judged *j = judged + count; j-- > judged;) {
        uint64_t ms;

        if (!j->charged)
            j->excess = charge(j->limit, j->digest);
        ms = delay_of(j->limit, j->excess);
        count_result(j->limit, ms == 0                   ? LIMIT_PASSED
                               : conf->settings.dry_run ? LIMIT_DELAYED_DRY_RUN
                                                        : LIMIT_DELAYED);
        if (ms > longest_ms) {
            longest_ms = ms;
            slowest = j;
        }
    }
    if (likely(slowest == NULL)) {
        limit_set_result(r, LIMITER_REQ, LIMIT_PASSED);
        return V_NEXT;
    }
    log_delayed(r, conf, slowest->limit, slowest->excess, longest_ms);
    if (conf->settings.dry_run) {
        limit_set_result(r, LIMITER_REQ, LIMIT_DELAYED_DRY_RUN);
        return V_NEXT;
    }
    limit_set_result(r, LIMITER_REQ, LIMIT_DELAYED);
    return delay_start(r, longest_ms);
}

static enum verdict req_run(struct req *r)
{
    const struct req_conf *conf = req_loc_conf(r, req_slot);
    unsigned limits = conf->limits.count, count = 0;
    struct judged one, *judged = &one;

    if (limit_result(r, LIMITER_REQ) != LIMIT_NOT_JUDGED)
        return V_NEXT;
    if (unlikely(limits > 1))
        judged = ARENA_ARRAY(r->arena, struct judged, limits);
    /* All digests first: while one is made, the memory fetches what the ones before it need. */
    for (unsigned i = 0; i < limits; i++) {
        struct judged *j = &judged[count];

        j->limit = &conf->limits.items[i];
        j->digest = limit_digest(r, j->limit->res->spec.data, KEY_MAX, false);
        j->charged = i + 1 == limits;
        count += j->digest != 0;
    }
    limit_forget_digest();
    for (struct judged *j = judged; j < judged + count; j++) {
        if (unlikely(!judge(j->limit, j->digest, j->charged, &j->excess))) {
            log_refused(r, conf, j->limit, j->excess);
            count_result(j->limit,
                         conf->settings.dry_run ? LIMIT_REJECTED_DRY_RUN : LIMIT_REJECTED);
            return limit_refuse(r, LIMITER_REQ, &conf->settings);
        }
    }
    return count > 0 ? let_pass(r, conf, judged, count) : V_NEXT;
}

static bool req_wanted(const struct level *level)
{
    const struct req_conf *conf = level_conf(level, STORE_LOC, req_slot);

    return conf->limits.count > 0;
}

/* Zones -------------------------------------------------------------------------------------- */

static int zone_init(struct zone *zone, void *data)
{
    struct cells *t = cells_new(zone, zone_bytes_free(zone));

    (void) data;
    if (t == NULL) {
        log_emerg(log_main, 0, "limit_req zone \"%.*s\" is too small", STR_ARG(zone_name(zone)));
        return -1;
    }
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

/* Nobody changes anything with the zone's lock. */
static bool zone_recover_all(struct zone *zone)
{
    (void) zone;
    return true;
}

static const struct zone_kind req_kind = {
    .name = "limit_req",
    .version = 3,
    .scattered = true,
    .init = zone_init,
    .recover = zone_recover_all,
};

/* Configuration ------------------------------------------------------------------------------ */

/* "rate=10r/s", "rate=30r/m"; a bare number is per second. */
static const char *set_rate(struct conf *cf, unsigned n, struct req_zone *z)
{
    struct str text = str_skip(cf->args[n], sizeof("rate=") - 1);
    uint64_t scale = 1, rate;

    if (str_ends(text, STR("r/s"))) {
        text.len -= 3;
    } else if (str_ends(text, STR("r/m"))) {
        text.len -= 3;
        scale = 60;
    }
    if (limit_number(text, RATE_MAX, &rate) != 0)
        return conf_error_arg(cf, n, "invalid rate \"%.*s\"", STR_ARG(cf->args[n]));
    z->rate = rate * REQUEST / scale;
    return NULL;
}

static const char *zone_parameter(struct conf *cf, unsigned n, struct limit_zone *zone)
{
    if (str_starts(cf->args[n], STR("rate=")))
        return set_rate(cf, n, container_of(zone, struct req_zone, zone));
    if (str_eq(cf->args[n], STR("sync")))
        return conf_error_arg(
            cf, n, "\"sync\" is not supported: servers do not share the state of a zone");
    return conf_error_arg(cf, n, "invalid parameter \"%.*s\"", STR_ARG(cf->args[n]));
}

static const char *set_zone(struct conf *cf, void *field)
{
    struct req_zone *z = ARENA_NEW(cf->arena, struct req_zone);
    const char *error;

    (void) field;
    z->rate = REQUEST;
    error = limit_zone_set(cf, &z->zone, &req_kind, zone_parameter);
    if (error == NULL)
        z->zone.counts = counters_define(cf, &req_counters, z->zone.res->spec.name);
    return error;
}

/* One parameter of limit_req. */
static const char *limit_parameter(struct conf *cf, unsigned n, struct req_limit *limit)
{
    struct str text = cf->args[n];
    const char *error = NULL;
    uint64_t number;

    if (str_starts(text, STR("zone="))) {
        limit->res = res_zone(cf, str_skip(text, 5), 0, &req_kind, &error);
        return error;
    }
    if (str_starts(text, STR("burst="))) {
        if (limit_number(str_skip(text, 6), BURST_MAX, &number) != 0)
            return conf_error_arg(cf, n, "invalid burst value \"%.*s\"", STR_ARG(text));
        limit->burst = number * REQUEST;
        return NULL;
    }
    if (str_starts(text, STR("delay="))) {
        if (limit_number(str_skip(text, 6), BURST_MAX, &number) != 0)
            return conf_error_arg(cf, n, "invalid delay value \"%.*s\"", STR_ARG(text));
        limit->delay = number * REQUEST;
        return NULL;
    }
    if (str_eq(text, STR("nodelay"))) {
        limit->delay = BURST_MAX * REQUEST;
        return NULL;
    }
    return conf_error_arg(cf, n, "invalid parameter \"%.*s\"", STR_ARG(text));
}

static const char *set_limit(struct conf *cf, void *field)
{
    struct req_limits *limits = field;
    struct req_limit limit = { .pos = cf->pos };

    for (unsigned i = 1; i < cf->nargs; i++) {
        const char *error = limit_parameter(cf, i, &limit);

        if (error != NULL)
            return error;
    }
    if (limit.res == NULL)
        return conf_error(cf, "\"limit_req\" must have \"zone\" parameter");
    for (unsigned i = 0; i < limits->count; i++) {
        if (limits->items[i].res == limit.res)
            return conf_error(cf, "\"limit_req\" directive is duplicate");
    }
    limits->items = arena_grow(cf->arena, limits->items, limits->count, &limits->capacity,
                               sizeof(*limits->items));
    limits->items[limits->count++] = limit;
    return NULL;
}

static bool get_status(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return limit_result_text(req_of(e), LIMITER_REQ, out);
}

static const struct var_row variables[] = {
    { "limit_req_status", get_status, NULL, 0, VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct directive directives[] = {
    ROW_CALL(
        "limit_req_zone", CTX_HTTP, ARGS3 | ARGS4 | ARG_REPEAT, set_zone, STORE_LOC,
        "key zone=name:size rate=rate [sync]",
        "A shared memory zone in which requests are counted by a key, and their allowed rate."),
    ROW("limit_req", CTX_HSL, ARGS123 | ARG_REPEAT, set_limit, STORE_LOC, struct req_conf, limits,
        INHERIT_WHOLE, NULL, "zone=name [burst=number] [nodelay | delay=number]",
        "Limits the rate of requests per key of a zone."),
    LIMIT_ROWS("limit_req", struct req_conf),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_PREACCESS, HOOK_LIMIT_REQ, req_run, req_wanted },
    HOOK_END,
};

static const struct http_module http_limit_req = { .variables = variables, .hooks = hooks };

const struct module module_http_limit_req = {
    .name = "http_limit_req",
    .slot = &req_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct req_conf) },
    .directives = directives,
    .http = &http_limit_req,
};
