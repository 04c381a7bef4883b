/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What responders have said of clients' certificates (ssl_ocsp_cache), in a zone that all workers share: a status and the time
 * until which it holds, by a digest of who was asked and about whom. Answers that do not say how long they hold are not kept.
 */
#include <time.h>

#include "core/zone/keyed.h"
#include "modules/ssl/ocsp_check.h"

#define EVICT_MAX 4

/* In the zone. Without a time it is half made. */
struct known {
    int64_t valid_s; /* wall clock, which another binary shares */
    int64_t status;  /* V_OCSP_CERTSTATUS_… */
};

static struct keyed *table_of(const struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

static int cache_init(struct zone *zone, void *data UNUSED)
{
    struct keyed *t = keyed_new(zone, sizeof(struct known), 0);

    if (t == NULL) {
        log_emerg(log_main, 0, "OCSP cache \"%.*s\" is too small", STR_ARG(zone_name(zone)));
        return -1;
    }
    zone_set_root(zone, zone_off(zone, t));
    return 0;
}

static int cache_adopt(struct zone *zone UNUSED, void *data UNUSED)
{
    return 0;
}

static bool cache_recover(struct zone *zone)
{
    struct keyed *t = table_of(zone);

    return t != NULL && keyed_recover(zone, t);
}

static const struct zone_kind cache_kind = {
    .name = "ssl_ocsp_cache",
    .version = 1,
    .init = cache_init,
    .adopt = cache_adopt,
    .recover = cache_recover,
};

static struct zone *zone_of(const struct ocsp_cache *cache)
{
    return cache != NULL && cache->shared != NULL ? cache->shared->zone : NULL;
}

static struct str key_text(const struct ocsp_key *key)
{
    return str_from((const char *) key->digest, sizeof(key->digest));
}

bool ocsp_cache_get(const struct ocsp_cache *cache, const struct ocsp_key *key, int *status)
{
    struct zone *zone = zone_of(cache);
    struct known *k;
    bool found = false;

    if (zone == NULL)
        return false;
    zone_lock(zone);
    k = keyed_get(zone, table_of(zone), key_text(key), true);
    if (k != NULL && k->valid_s > (int64_t) time(NULL)) {
        *status = (int) k->status;
        found = true;
    } else if (k != NULL) {
        keyed_delete(zone, table_of(zone), k);
    }
    zone_unlock(zone);
    return found;
}

void ocsp_cache_put(const struct ocsp_cache *cache, const struct ocsp_key *key,
                    const struct ocsp_verdict *verdict, const struct logger *log)
{
    struct zone *zone = zone_of(cache);
    struct known *k;
    bool created;

    if (zone == NULL || verdict->valid == 0)
        return;
    zone_lock(zone);
    k = keyed_put(zone, table_of(zone), key_text(key), EVICT_MAX, &created);
    if (k != NULL) {
        ZONE_SET(k->valid_s, 0);
        ZONE_SET(k->status, verdict->status);
        ZONE_SET(k->valid_s, (int64_t) verdict->valid);
    }
    zone_unlock(zone);
    if (k == NULL)
        log_alert(log, 0, "could not allocate new entry in OCSP cache \"%.*s\"",
                  STR_ARG(zone_name(zone)));
}

/* [struct ocsp_cache *] off | shared:NAME:SIZE */
const char *ocsp_set_cache(struct conf *cf, void *field)
{
    struct ocsp_cache *cache = ARENA_NEW(cf->arena, struct ocsp_cache);
    struct str arg = cf->args[1], text, name;
    const char *error = NULL;
    ssize_t colon;
    uint64_t size;

    *(struct ocsp_cache **) field = cache;
    if (str_eq(arg, STR("off")))
        return NULL;
    text = str_starts(arg, STR("shared:")) ? str_skip(arg, sizeof("shared:") - 1) : STR("");
    colon = str_chr(text, ':');
    if (colon <= 0 || str_to_size(str_skip(text, (size_t) colon + 1), &size) != 0 ||
        size > ZONE_MAX)
        return conf_error_arg(cf, 1, "invalid OCSP cache \"%.*s\"", STR_ARG(arg));
    name = str_from(text.ptr, (size_t) colon);
    if (size < ZONE_MIN)
        return conf_error_arg(cf, 1, "OCSP cache \"%.*s\" is too small", STR_ARG(arg));
    cache->shared = res_zone(cf, name, (size_t) size, &cache_kind, &error);
    return cache->shared != NULL ? NULL : error;
}
