/* SPDX-License-Identifier: BSD-2-Clause */
/* Whatever is counted in sets of counters: zones of servers and locations, limits, resolvers, caches. */
#include "core/config/counters.h"
#include "modules/api/internal.h"

static const struct api_sets *sets_of(const struct api *a)
{
    return a->route->data;
}

enum verdict api_sets(struct api *a)
{
    const char *kind = sets_of(a)->kind;
    struct counter_set *set = NULL;
    struct json *j = &a->json;

    if (api_names_only(a)) {
        json_array(j);
        while ((set = counters_next(a->config, kind, set)) != NULL)
            json_str(j, set->name);
        json_end(j);
        return api_ok(a);
    }
    json_object(j);
    while ((set = counters_next(a->config, kind, set)) != NULL) {
        json_key_str(j, set->name);
        api_show_counters(a, set);
    }
    json_end(j);
    return api_ok(a);
}

static struct counter_set *find(const struct api *a)
{
    struct counter_set *set = NULL;

    while ((set = counters_next(a->config, sets_of(a)->kind, set)) != NULL) {
        if (str_eq(set->name, a->names[0]))
            return set;
    }
    return NULL;
}

static enum verdict none(struct api *a)
{
    return api_error(a, 404, sets_of(a)->code, "%s", sets_of(a)->text);
}

enum verdict api_set(struct api *a)
{
    const struct counter_set *set = find(a);

    if (set == NULL)
        return none(a);
    api_show_counters(a, set);
    return api_ok(a);
}

enum verdict api_set_reset(struct api *a)
{
    const struct counter_set *set = find(a);

    if (set == NULL)
        return none(a);
    counters_reset(set);
    return api_no_content(a);
}
