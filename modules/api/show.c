/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing what was counted as JSON, as far as ?fields= wants it and the API's version knows it. */
#include <time.h>

#include "core/config/counters.h"
#include "core/http/status.h"
#include "modules/api/internal.h"

#define NESTED 4 /* objects in objects that the name of a counter may say */

bool api_wants(const struct api *a, const char *field)
{
    if (!a->has_fields)
        return true;
    for (unsigned i = 0; i < a->fields.count; i++) {
        if (str_eq(a->fields.items[i], str_cstr(field)))
            return true;
    }
    return false;
}

bool api_names_only(const struct api *a)
{
    return a->has_fields && a->fields.count == 0;
}

/* The objects around the counter that was written last. */
struct nesting {
    struct str open[NESTED];
    unsigned depth;
};

/* Ends the objects that a name is not in and begins those that it is in; leaves its last part. */
static struct str go_to(struct json *j, struct nesting *n, struct str name)
{
    unsigned depth = 0;
    ssize_t dot;

    while ((dot = str_chr(name, '.')) >= 0) {
        struct str part = str_from(name.ptr, (size_t) dot);

        name = str_skip(name, part.len + 1);
        if (depth < n->depth && !str_eq(n->open[depth], part)) {
            for (; n->depth > depth; n->depth--)
                json_end(j);
        }
        if (depth == n->depth) {
            ASSERT(depth < NESTED);
            json_key_str(j, part);
            json_object(j);
            n->open[n->depth++] = part;
        }
        depth++;
    }
    for (; n->depth > depth; n->depth--)
        json_end(j);
    return name;
}

static bool shows(const struct api *a, struct str name)
{
    ssize_t dot = str_chr(name, '.');
    struct str top = dot < 0 ? name : str_from(name.ptr, (size_t) dot);

    if (a->version < 8 && str_eq(top, STR("ssl")))
        return false;
    if (a->version < 7 && str_eq(name, STR("responses.codes")))
        return false;
    return api_wants(a, str_z(a->r->arena, top));
}

static void put_tags(struct json *j, const struct counter_sums *sums)
{
    json_object(j);
    for (unsigned i = 0; i < sums->tag_count; i++) {
        char text[8];

        (void) snprintf(text, sizeof(text), "%u", sums->tags[i].tag);
        json_put_u64(j, text, sums->tags[i].count);
    }
    json_end(j);
}

void api_show_kind(struct api *a, const struct counter_set *set, const struct counter_kind *kind)
{
    struct counter_sums sums = { .values = NULL };
    struct nesting nesting = { .depth = 0 };
    struct json *j = &a->json;

    if (set != NULL)
        counters_sum(set, a->r->arena, &sums);
    json_object(j);
    for (unsigned i = 0; kind->names[i] != NULL; i++) {
        struct str name = str_cstr(kind->names[i]);

        if (!shows(a, name))
            continue;
        json_key_str(j, go_to(j, &nesting, name));
        if (i + 1 == kind->tags)
            put_tags(j, &sums);
        else
            json_u64(j, sums.values != NULL ? sums.values[i] : 0);
    }
    for (; nesting.depth > 0; nesting.depth--)
        json_end(j);
    json_end(j);
}

void api_show_counters(struct api *a, const struct counter_set *set)
{
    api_show_kind(a, set, set->kind);
}

void api_put_time(struct json *j, const char *name, uint64_t ms)
{
    char text[64];
    time_t seconds = (time_t) (ms / 1000);
    struct tm tm;
    size_t n;

    gmtime_r(&seconds, &tm);
    n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t) snprintf(text + n, sizeof(text) - n, ".%03uZ", (unsigned) (ms % 1000));
    json_put_str(j, name, str_from(text, n));
}
