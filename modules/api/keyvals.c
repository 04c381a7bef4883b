/* SPDX-License-Identifier: BSD-2-Clause */
/* The API on pairs of keys and values. */
#include "modules/api/internal.h"
#include "modules/keyval/keyval.h"

#define WALK_STEP 256 /* pairs visited with the zone locked once */

/* The next keyval zone after prev (NULL: the first one); NULL: no more. */
static struct keyval_zone *next_zone(const struct api *a, const struct keyval_zone *prev)
{
    const struct list *zones = &a->config->resources->zones;
    const struct list *l = prev != NULL ? prev->res->link.next : zones->next;

    for (; l != zones; l = l->next) {
        const struct res_zone *z = container_of(l, struct res_zone, link);

        if (z->zone != NULL && strcmp(z->spec.kind->name, "keyval") == 0)
            return keyval_of(z);
    }
    return NULL;
}

/* The zone that the path names. NULL: *v is the answer. */
static struct keyval_zone *find(struct api *a, enum verdict *v)
{
    struct keyval_zone *kz = NULL;

    while ((kz = next_zone(a, kz)) != NULL) {
        if (str_eq(kz->res->spec.name, a->names[0]))
            return kz;
    }
    *v = api_error(a, 404, "KeyvalNotFound", "keyval not found");
    return NULL;
}

/* Showing -------------------------------------------------------------------------------------- */

static void show_pair(void *data, const struct keyval_pair *pair)
{
    struct json *j = data;

    json_key_str(j, pair->key);
    json_str(j, pair->value.len > 0 ? pair->value : STR(""));
}

/* False: it is more than an answer may be. */
static bool show_zone(struct api *a, struct keyval_zone *kz)
{
    struct keyval_walk *walk = ARENA_NEW(a->r->arena, struct keyval_walk);
    struct json *j = &a->json;

    json_object(j);
    while (keyval_walk(kz, walk, WALK_STEP, show_pair, j)) {
        if (j->len > API_TEXT_MAX)
            return false;
    }
    json_end(j);
    return true;
}

static enum verdict too_much(struct api *a)
{
    return api_error(a, 500, "KeyvalTooLarge", "there are too many pairs for one answer");
}

enum verdict api_keyvals(struct api *a)
{
    struct keyval_zone *kz = NULL;
    struct json *j = &a->json;

    if (api_names_only(a)) {
        json_array(j);
        while ((kz = next_zone(a, kz)) != NULL)
            json_str(j, kz->res->spec.name);
        json_end(j);
        return api_ok(a);
    }
    json_object(j);
    while ((kz = next_zone(a, kz)) != NULL) {
        json_key_str(j, kz->res->spec.name);
        if (!show_zone(a, kz))
            return too_much(a);
    }
    json_end(j);
    return api_ok(a);
}

static enum verdict no_key(struct api *a)
{
    return api_error(a, 404, "KeyvalKeyNotFound", "keyval key not found");
}

enum verdict api_keyval(struct api *a)
{
    enum verdict v;
    struct keyval_zone *kz = find(a, &v);
    struct keyval_pair pair;
    struct str key;

    if (kz == NULL)
        return v;
    if (!api_arg(a->r, STR("key"), &key))
        return show_zone(a, kz) ? api_ok(a) : too_much(a);
    if (keyval_get(kz, key, a->r->arena, &pair) != KEYVAL_OK)
        return no_key(a);
    json_object(&a->json);
    show_pair(&a->json, &pair);
    json_end(&a->json);
    return api_ok(a);
}

/* Changing ------------------------------------------------------------------------------------- */

/* One pair of a body: {"key":"value"}, {"key":{"value":"value","expire":ms}}, {"key":null}. */
struct pair {
    struct str key, value;
    bool has_value, is_null;
    uint64_t expire_ms; /* 0: not said */
};

static enum verdict bad_format(struct api *a, const char *text)
{
    return api_error(a, 400, "KeyvalFormatError", "%s", text);
}

/* What stands behind a key in a pair's object. NULL, or what is wrong. */
static const char *read_members(struct json_reader *j, struct pair *p)
{
    enum json_token t;

    while ((t = json_next(j)) == JSON_KEY) {
        struct str member = j->str;

        t = json_next(j);
        if (str_eq(member, STR("value"))) {
            if (t != JSON_STRING)
                return "invalid value format";
            p->value = j->str;
            p->has_value = true;
        } else if (str_eq(member, STR("expire"))) {
            if (t != JSON_NUMBER || str_to_u64(j->str, &p->expire_ms) != 0 || p->expire_ms == 0)
                return "invalid expire format";
        } else {
            return "invalid key format";
        }
    }
    return p->has_value || p->expire_ms != 0 ? NULL : "value required";
}

/* The pair whose key has just been read. NULL, or what is wrong. */
static const char *read_pair(struct json_reader *j, struct pair *p, bool change)
{
    enum json_token t;

    *p = (struct pair){ .key = j->str };
    t = json_next(j);
    if (t == JSON_STRING) {
        p->value = j->str;
        p->has_value = true;
        return NULL;
    }
    if (t == JSON_NULL && change) {
        p->is_null = true;
        return NULL;
    }
    if (t == JSON_OBJECT)
        return read_members(j, p);
    return "invalid value format";
}

/* All pairs of the body. False: *v is the answer. */
static bool read_pairs(struct api *a, struct keyval_zone *kz, bool change, struct pair **pairs,
                       unsigned *count, enum verdict *v)
{
    struct json_reader j;
    unsigned capacity = 0;

    *pairs = NULL;
    *count = 0;
    if (!api_read_object(a, &j, "KeyvalFormatError", v))
        return false;
    while (json_next(&j) == JSON_KEY) {
        struct pair *p;
        const char *error;

        *pairs = arena_grow(a->r->arena, *pairs, *count, &capacity, sizeof(**pairs));
        p = &(*pairs)[(*count)++];
        error = read_pair(&j, p, change);
        if (error == NULL && p->expire_ms != 0 && kz->timeout_ms == 0)
            error = "keyval timeout is not enabled";
        if (error != NULL) {
            *v = bad_format(a, error);
            return false;
        }
    }
    if (*count > 0)
        return true;
    *v = bad_format(a, "key required");
    return false;
}

static void visited(void *data, const struct keyval_pair *pair)
{
    (void) pair;
    *(bool *) data = true;
}

static bool is_empty(struct keyval_zone *kz, struct arena *arena)
{
    struct keyval_walk *walk = ARENA_NEW(arena, struct keyval_walk);
    bool any = false;

    while (!any && keyval_walk(kz, walk, 1, visited, &any))
        ;
    return !any;
}

/* What a change came to, other than well. */
static enum verdict refused(struct api *a, enum keyval_result rc)
{
    switch (rc) {
    case KEYVAL_EXISTS: return api_error(a, 409, "KeyvalKeyExists", "key already exists");
    case KEYVAL_ABSENT: return no_key(a);
    case KEYVAL_FULL: return api_error(a, 507, "KeyvalOutOfMemory", "%s", keyval_result_text(rc));
    case KEYVAL_TOO_LONG: return api_error(a, 413, "KeyvalTooLong", "%s", keyval_result_text(rc));
    default: return bad_format(a, keyval_result_text(rc));
    }
}

enum verdict api_keyval_add(struct api *a)
{
    enum verdict v;
    struct keyval_zone *kz = find(a, &v);
    struct pair *pairs;
    unsigned count;

    if (kz == NULL || !read_pairs(a, kz, false, &pairs, &count, &v))
        return v;
    if (count > 1 && !is_empty(kz, a->r->arena))
        return bad_format(a, "only one key can be added");
    for (unsigned i = 0; i < count; i++) {
        enum keyval_result rc;

        if (!pairs[i].has_value)
            return bad_format(a, "value required");
        rc = keyval_set(kz, pairs[i].key, pairs[i].value, pairs[i].expire_ms, KEYVAL_ADD);
        if (rc != KEYVAL_OK)
            return refused(a, rc);
    }
    return api_created(a, STR_NULL);
}

enum verdict api_keyval_change(struct api *a)
{
    enum verdict v;
    struct keyval_zone *kz = find(a, &v);
    struct pair *pairs, *p;
    struct keyval_pair old;
    enum keyval_result rc;
    unsigned count;

    if (kz == NULL || !read_pairs(a, kz, true, &pairs, &count, &v))
        return v;
    if (count > 1)
        return bad_format(a, "only one key can be updated");
    p = &pairs[0];
    if (p->is_null) {
        rc = keyval_delete(kz, p->key);
    } else {
        rc = KEYVAL_OK;
        if (!p->has_value) {
            rc = keyval_get(kz, p->key, a->r->arena, &old);
            p->value = old.value;
        }
        if (rc == KEYVAL_OK)
            rc = keyval_set(kz, p->key, p->value, p->expire_ms, KEYVAL_REPLACE);
    }
    return rc == KEYVAL_OK ? api_no_content(a) : refused(a, rc);
}

enum verdict api_keyval_clear(struct api *a)
{
    enum verdict v;
    struct keyval_zone *kz = find(a, &v);

    if (kz == NULL)
        return v;
    keyval_clear(kz);
    return api_no_content(a);
}
