/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data under keys in a zone. The truth is which data an entry refers to, which one store changes. What is being made, and what is
 * being unmade, stands in the root, so that recovery, having seen what entries refer to, knows what nobody does.
 */
#include "modules/ssl/kept.h"

#define EVICT_MAX 64 /* entries that go, at most, for one thing */

/* The zone's root. */
struct root {
    zone_off_t table;
    zone_off_t making, dropping;
};

struct data {
    uint64_t len;
    char bytes[];
};

static struct root *root_of(const struct zone *zone)
{
    return zone_at(zone, zone_root(zone));
}

struct keyed *kept_table(const struct zone *zone)
{
    return zone_at(zone, root_of(zone)->table);
}

int kept_init(struct zone *zone, size_t value_size)
{
    struct root *root = zone_alloc(zone, sizeof(*root));
    struct keyed *t = root != NULL ? keyed_new(zone, value_size, 0) : NULL;

    if (t == NULL)
        return -1;
    root->table = zone_off(zone, t);
    zone_set_root(zone, zone_off(zone, root));
    return 0;
}

static void data_free(struct zone *zone, zone_off_t off)
{
    struct data *data = zone_at(zone, off);

    if (data == NULL)
        return;
    memset(data->bytes, 0, data->len);
    zone_free(zone, data);
}

/* What an entry refers to no more. */
static void finish_dropping(struct zone *zone)
{
    struct root *root = root_of(zone);

    data_free(zone, root->dropping);
    ZONE_SET(root->dropping, 0);
}

struct str kept_data(const struct zone *zone, const struct kept *k)
{
    const struct data *data = zone_at(zone, k->data);

    return data != NULL ? str_from(data->bytes, data->len) : STR_NULL;
}

void kept_drop(struct zone *zone, struct kept *k)
{
    ZONE_SET(root_of(zone)->dropping, k->data);
    ZONE_SET(k->data, 0);
    finish_dropping(zone);
    keyed_delete(zone, kept_table(zone), k);
}

/* The least recently used one goes, unless it is the one that room is wanted for. */
static bool evict(struct zone *zone, const struct kept *wanted)
{
    struct kept *k = keyed_oldest(zone, kept_table(zone), NULL);

    if (k == NULL || k == wanted)
        return false;
    kept_drop(zone, k);
    return true;
}

void *kept_entry(struct zone *zone, struct str key)
{
    unsigned evicted = 0;
    bool created;
    void *k;

    while ((k = keyed_put(zone, kept_table(zone), key, 0, &created)) == NULL) {
        if (evicted++ == EVICT_MAX || !evict(zone, NULL))
            return NULL;
    }
    return k;
}

void *kept_room(struct zone *zone, struct kept *k, size_t len)
{
    struct root *root = root_of(zone);
    unsigned evicted = 0;
    struct data *data;

    ASSERT(root->making == 0);
    if (len > zone_bytes_total(zone)) /* also keeps the sum below from overflowing */
        return NULL;
    while ((data = zone_alloc_into(zone, sizeof(*data) + len, &root->making)) == NULL) {
        ZONE_SET(root->making, 0);
        if (evicted++ == EVICT_MAX || !evict(zone, k))
            return NULL;
    }
    ZONE_SET(data->len, len);
    return data->bytes;
}

void kept_show(struct zone *zone, struct kept *k)
{
    struct root *root = root_of(zone);

    ZONE_SET(root->dropping, k->data);
    ZONE_SET(k->data, root->making);
    ZONE_SET(root->making, 0);
    finish_dropping(zone);
}

static bool is_data(const struct zone *zone, zone_off_t off)
{
    const struct data *data;

    if (!zone_is_object(zone, off, sizeof(*data)))
        return false;
    data = zone_at(zone, off);
    return data->len <= zone_bytes_total(zone) &&
           zone_is_object(zone, off, sizeof(*data) + data->len);
}

/* What no entry refers to goes, if it has not gone before; its length may not have been written yet. */
static void finish(struct zone *zone, zone_off_t *off)
{
    if (is_data(zone, *off))
        data_free(zone, *off);
    else if (zone_is_object(zone, *off, sizeof(struct data)))
        zone_free(zone, zone_at(zone, *off));
    ZONE_SET(*off, 0);
}

bool kept_recover(struct zone *zone)
{
    struct root *root = root_of(zone);
    struct kept *k, *next;
    struct keyed *t;

    if (root == NULL || !zone_is_object(zone, zone_root(zone), sizeof(*root)))
        return false;
    t = kept_table(zone);
    if (t == NULL || !keyed_recover(zone, t))
        return false;
    for (k = keyed_next(zone, t, NULL); k != NULL; k = next) {
        next = keyed_next(zone, t, k);
        if (!is_data(zone, k->data)) {
            keyed_delete(zone, t, k);
            continue;
        }
        if (k->data == root->making)
            ZONE_SET(root->making, 0);
        if (k->data == root->dropping)
            ZONE_SET(root->dropping, 0);
    }
    finish(zone, &root->making);
    finish(zone, &root->dropping);
    return true;
}
