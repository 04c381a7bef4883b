/* SPDX-License-Identifier: BSD-2-Clause */
/* Host names with wildcards: three tables, filled while the configuration is read. */
#include "core/http/hostnames.h"

void hostnames_init(struct hostnames *h, struct arena *arena)
{
    *h = (struct hostnames){ .head_max = 0 };
    table_init(&h->exact, arena);
    table_init(&h->head, arena);
    table_init(&h->tail, arena);
}

/* At most one star, no empty label inside, no NUL. */
static bool is_sound(struct str name, unsigned *stars)
{
    *stars = 0;
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '\0' || (name.ptr[i] == '*' && ++*stars > 1)
            || (name.ptr[i] == '.' && i + 1 < name.len && name.ptr[i + 1] == '.'))
            return false;
    }
    return true;
}

static enum hostnames_error put(struct table *t, struct str key, void *value)
{
    if (table_get(t, key) != NULL)
        return HOSTNAMES_CONFLICT;
    table_put(t, key, value);
    return HOSTNAMES_FINE;
}

static enum hostnames_error put_head(struct hostnames *h, struct str key, void *value)
{
    h->head_max = MAX(h->head_max, key.len);
    return put(&h->head, key, value);
}

enum hostnames_error hostnames_add(struct hostnames *h, struct str name, void *value)
{
    unsigned stars;

    if (!is_sound(name, &stars))
        return HOSTNAMES_INVALID;
    if (name.len > 1 && name.ptr[0] == '.') {
        if (table_get(&h->head, name) != NULL
            || put(&h->exact, str_skip(name, 1), value) != HOSTNAMES_FINE)
            return HOSTNAMES_CONFLICT;
        return put_head(h, name, value);
    }
    if (name.len > 2 && str_starts(name, STR("*.")))
        return put_head(h, str_skip(name, 1), value);
    if (name.len > 2 && str_ends(name, STR(".*"))) {
        name.len--;
        h->tail_max = MAX(h->tail_max, name.len);
        return put(&h->tail, name, value);
    }
    return stars > 0 ? HOSTNAMES_INVALID : put(&h->exact, name, value);
}

/* The longest ".example.com" that the name ends with, or is; *key is that. */
static void *find_head(const struct hostnames *h, struct str name, struct str *key)
{
    size_t i = name.len > h->head_max ? name.len - h->head_max : 0;
    void *value;

    for (; h->head_max > 0 && i < name.len; i++) {
        *key = str_skip(name, i);
        if (name.ptr[i] == '.' && (value = table_get(&h->head, *key)) != NULL)
            return value;
    }
    return NULL;
}

/* The longest "www.example." that the name begins with, something behind it; *key is that. */
static void *find_tail(const struct hostnames *h, struct str name, struct str *key)
{
    size_t i = MIN(name.len, h->tail_max + 1);
    void *value;

    while (h->tail_max > 0 && i-- > 1) {
        *key = str_from(name.ptr, i);
        if (name.ptr[i - 1] == '.' && (value = table_get(&h->tail, *key)) != NULL)
            return value;
    }
    return NULL;
}

void *hostnames_find(const struct hostnames *h, struct str name, struct str *key)
{
    void *value = table_get(&h->exact, name);

    *key = name;
    if (value == NULL)
        value = find_head(h, name, key);
    return value != NULL ? value : find_tail(h, name, key);
}
