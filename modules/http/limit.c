/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What limit_req and limit_conn have in common. It owns no state: zones belong to the configuration,
 * counts to the modules.
 */
#include "modules/http/limit.h"

const struct conf_enum limit_log_levels[] = {
    { "info", LOG_INFO_LEVEL },
    { "notice", LOG_NOTICE_LEVEL },
    { "warn", LOG_WARN_LEVEL },
    { "error", LOG_ERROR_LEVEL },
    { NULL, 0 },
};

const struct conf_range limit_statuses = { 400, 599 };

/* Configuration ------------------------------------------------------------------------------ */

int limit_number(struct str digits, uint64_t max, uint64_t *out)
{
    uint64_t n;

    for (size_t i = 0; i < digits.len; i++) {
        if (digits.ptr[i] < '0' || digits.ptr[i] > '9')
            return -1;
    }
    if (digits.len == 0)
        return -1;
    if (str_to_u64(digits, &n) != 0)
        n = UINT64_MAX;
    if (n == 0)
        return -1;
    *out = MIN(n, max);
    return 0;
}

/* "zone=NAME:SIZE", argument n. An empty name is as if there were none. */
static const char *zone_argument(struct conf *cf, unsigned n, struct str *name, size_t *size)
{
    struct str text = str_skip(cf->args[n], sizeof("zone=") - 1);
    ssize_t colon = str_chr(text, ':');
    uint64_t bytes;

    if (colon < 0 || str_to_size(str_skip(text, (size_t) colon + 1), &bytes) != 0 ||
        bytes > ZONE_MAX)
        return conf_error_arg(cf, n, "invalid zone size \"%.*s\"", STR_ARG(cf->args[n]));
    if (bytes < ZONE_MIN)
        return conf_error_arg(cf, n, "zone \"%.*s\" is too small", STR_ARG(cf->args[n]));
    *name = str_from(text.ptr, (size_t) colon);
    *size = (size_t) bytes;
    return NULL;
}

static const char *define(struct conf *cf, struct limit_zone *zone, const struct zone_kind *kind,
                          struct str name, size_t size)
{
    const struct limit_zone *before;
    const char *error = NULL;

    zone->res = res_zone(cf, name, size, kind, &error);
    if (zone->res == NULL)
        return error;
    before = zone->res->spec.data;
    if (before != NULL)
        return conf_error(cf, "%.*s \"%.*s\" is already bound to key \"%.*s\"",
                          STR_ARG(cf->args[0]), STR_ARG(name), STR_ARG(expr_source(before->key)));
    zone->pos = cf->pos;
    zone->source = expr_source(zone->key);
    zone->res->spec.data = zone;
    /* A zone with another key is another zone: workers/zones.c refuses it on reload. */
    zone->res->spec.params = str_printf(cf->arena, "key=%.*s", STR_ARG(cf->args[1]));
    return NULL;
}

const char *limit_zone_set(struct conf *cf, struct limit_zone *zone, const struct zone_kind *kind,
                           const char *(*other)(struct conf *cf, unsigned n,
                                                struct limit_zone *zone))
{
    const char *error = NULL;
    struct str name = STR_NULL;
    size_t size = 0;

    zone->key = expr_compile(cf, cf->args[1], 0, &error);
    if (zone->key == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    for (unsigned i = 2; i < cf->nargs; i++) {
        if (str_starts(cf->args[i], STR("zone=")))
            error = zone_argument(cf, i, &name, &size);
        else if (other != NULL)
            error = other(cf, i, zone);
        else
            error = conf_error_arg(cf, i, "invalid parameter \"%.*s\"", STR_ARG(cf->args[i]));
        if (error != NULL)
            return error;
    }
    if (name.len == 0)
        return conf_error(cf, "\"%.*s\" must have \"zone\" parameter", STR_ARG(cf->args[0]));
    return define(cf, zone, kind, name, size);
}

/* Requests ----------------------------------------------------------------------------------- */

/* The digest that was made last. */
static struct {
    const struct req *r; /* NULL: none */
    struct str key;      /* the expression's source */
    uint64_t seed[2];
    size_t len; /* of the value */
    uint64_t digest;
} last;

void limit_forget_digest(void)
{
    last.r = NULL;
}

static uint64_t digest_anew(struct req *r, const struct limit_zone *zone, size_t max, bool quietly)
{
    struct str value = expr_eval(&r->eval, zone->key);

    if (value.len == 0)
        return 0;
    if (unlikely(value.len > max)) {
        if (!quietly)
            log_error(&r->log, 0, "the value of the \"%.*s\" key is more than %zu bytes: \"%.*s\"",
                      STR_ARG(zone->source), max, STR_ARG(value));
        return 0;
    }
    last.r = r;
    last.key = zone->source;
    memcpy(last.seed, zone->known.seed, sizeof(last.seed));
    last.len = value.len;
    last.digest = cells_digest(last.seed, value);
    return last.digest;
}

/* Tables of one process and its children have the same seed, unless an older binary made them. */
static bool is_last(const struct req *r, const struct limit_zone *zone, size_t max)
{
    return last.r == r && last.len <= max && last.seed[0] == zone->known.seed[0] &&
           last.seed[1] == zone->known.seed[1] && str_eq(last.key, zone->source);
}

uint64_t limit_digest(struct req *r, struct limit_zone *zone, size_t max, bool quietly)
{
    uint64_t digest;

    (void) cells_know(&zone->known, zone->res->zone);
    digest = is_last(r, zone, max) ? last.digest : digest_anew(r, zone, max, quietly);
    if (likely(digest != 0))
        cells_prefetch(&zone->known, digest);
    return digest;
}

enum verdict limit_refuse(struct req *r, enum limiter limiter,
                          const struct limit_settings *settings)
{
    limit_set_result(r, limiter, settings->dry_run ? LIMIT_REJECTED_DRY_RUN : LIMIT_REJECTED);
    return settings->dry_run ? V_NEXT : req_status(r, (unsigned) settings->status);
}

bool limit_result_text(const struct req *r, enum limiter limiter, struct str *out)
{
    switch (limit_result(r, limiter)) {
    case LIMIT_NOT_JUDGED: return false;
    case LIMIT_PASSED: *out = STR("PASSED"); break;
    case LIMIT_DELAYED: *out = STR("DELAYED"); break;
    case LIMIT_REJECTED: *out = STR("REJECTED"); break;
    case LIMIT_DELAYED_DRY_RUN: *out = STR("DELAYED_DRY_RUN"); break;
    case LIMIT_REJECTED_DRY_RUN: *out = STR("REJECTED_DRY_RUN"); break;
    }
    return true;
}
