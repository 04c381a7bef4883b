/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pairs of a zone. A value is an object of its own, complete before its entry refers to it and never changed
 * afterwards: whoever dies in the midst leaves the old value or the new one, never half of one. What is derived
 * (how many keys each class has) is counted anew after a death.
 */
#include "core/base/clock.h"
#include "core/base/json_read.h"
#include "core/zone/keyed.h"
#include "modules/keyval/internal.h"

/* Entries that one change looks through for some that have expired. */
#define EXPIRE_STEPS 2
/* Entries that are deleted without giving up the lock. */
#define CLEAR_STEPS 256

struct entry {
    zone_off_t value; /* of a struct value; 0: it was being made */
    uint64_t serial;
    uint64_t expires_ms; /* monotonic; 0: it stays */
};

struct value {
    uint32_t len;
    char bytes[];
};

const char *keyval_result_text(enum keyval_result result)
{
    switch (result) {
    case KEYVAL_OK:
        break;
    case KEYVAL_ABSENT:
        return "there is no such key";
    case KEYVAL_EXISTS:
        return "the key exists already";
    case KEYVAL_FULL:
        return "the zone is full";
    case KEYVAL_TOO_LONG:
        return "key or value is too long";
    case KEYVAL_BAD_KEY:
        return "the key is neither an address nor a network";
    case KEYVAL_BAD_TEXT:
        return "key or value is not UTF-8";
    }
    return "";
}

static struct keyed *table_of(const struct zone *zone, const struct keyval_root *root)
{
    return zone_at(zone, root->table);
}

static uint64_t expiry_of(const struct entry *e)
{
    return e->expires_ms != 0 ? e->expires_ms : UINT64_MAX;
}

static bool has_expired(const struct entry *e)
{
    return e->expires_ms != 0 && e->expires_ms <= clock_ms();
}

static struct str value_of(const struct zone *zone, const struct entry *e)
{
    const struct value *v = zone_at(zone, e->value);

    return str_from(v->bytes, v->len);
}

/* Classes ---------------------------------------------------------------------------------------- */

static void class_add(struct zone *zone, struct keyval_root *root, unsigned class_)
{
    uint32_t *counts = zone_at(zone, root->counts);

    counts[class_]++;
    root->present[class_ / 64] |= UINT64_C(1) << class_ % 64;
}

static void class_remove(struct zone *zone, struct keyval_root *root, unsigned class_)
{
    uint32_t *counts = zone_at(zone, root->counts);

    if (--counts[class_] == 0)
        root->present[class_ / 64] &= ~(UINT64_C(1) << class_ % 64);
}

/* Changes ------------------------------------------------------------------------------------------ */

static void entry_delete(struct zone *zone, enum keyval_type type, struct entry *e)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct keyed *t = table_of(zone, root);
    void *value = zone_at(zone, e->value);

    if (type != KEYVAL_STRING)
        class_remove(zone, root, key_class(type, keyed_key(zone, t, e)));
    ZONE_SET(root->dropping, e->value);
    keyed_delete(zone, t, e);
    zone_free(zone, value);
    ZONE_SET(root->dropping, 0);
}

/* Deletes what has expired among the `steps` oldest. */
static void expire_some(struct zone *zone, enum keyval_type type, unsigned steps)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct keyed *t = table_of(zone, root);
    struct entry *e = keyed_next(zone, t, NULL), *next;

    for (; e != NULL && steps > 0; e = next, steps--) {
        next = keyed_next(zone, t, e);
        if (has_expired(e))
            entry_delete(zone, type, e);
    }
}

/* The zone is full: deletes all that has expired. False: there was nothing. */
static bool expire_all(struct zone *zone, enum keyval_type type)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct keyed *t = table_of(zone, root);
    size_t before = keyed_count(t);
    uint64_t soonest = UINT64_MAX;
    struct entry *e, *next;

    if (root->next_expiry_ms > clock_ms())
        return false;
    for (e = keyed_next(zone, t, NULL); e != NULL; e = next) {
        next = keyed_next(zone, t, e);
        if (has_expired(e))
            entry_delete(zone, type, e);
        else
            soonest = MIN(soonest, expiry_of(e));
    }
    root->next_expiry_ms = soonest;
    return keyed_count(t) < before;
}

/* A complete value that root->making names. NULL: full. */
static struct value *value_make(struct zone *zone, struct keyval_root *root, struct str bytes)
{
    struct value *v = zone_alloc_into(zone, sizeof(*v) + bytes.len, &root->making);

    if (v == NULL)
        return NULL;
    v->len = (uint32_t) bytes.len;
    if (bytes.len > 0)
        memcpy(v->bytes, bytes.ptr, bytes.len);
    return v;
}

static void set_expiry(struct keyval_root *root, struct entry *e, uint64_t expires_ms)
{
    uint64_t ms = expires_ms != 0 ? expires_ms : root->timeout_ms;

    ms = MIN(ms, UINT64_MAX / 4);
    ZONE_SET(e->expires_ms, ms != 0 ? clock_ms() + ms : 0);
    root->next_expiry_ms = MIN(root->next_expiry_ms, expiry_of(e));
}

static bool entry_new(struct zone *zone, enum keyval_type type, const struct key *key,
                      struct str bytes, uint64_t expires_ms)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct value *v = value_make(zone, root, bytes);
    struct entry *e = NULL;
    bool created;

    if (v != NULL)
        e = keyed_put(zone, table_of(zone, root), key->bytes, 0, &created);
    if (e == NULL) {
        zone_free(zone, v);
        ZONE_SET(root->making, 0);
        return false;
    }
    e->serial = ++root->serial;
    set_expiry(root, e, expires_ms);
    if (type != KEYVAL_STRING)
        class_add(zone, root, key->class_);
    ZONE_SET(e->value, zone_off(zone, v));
    ZONE_SET(root->making, 0);
    root->version++;
    return true;
}

static bool entry_change(struct zone *zone, struct entry *e, struct str bytes, uint64_t expires_ms)
{
    struct keyval_root *root = keyval_root_of(zone);
    void *old = zone_at(zone, e->value);
    struct value *v;

    if (!str_eq(value_of(zone, e), bytes)) {
        v = value_make(zone, root, bytes);
        if (v == NULL) {
            ZONE_SET(root->making, 0);
            return false;
        }
        ZONE_SET(root->dropping, e->value);
        ZONE_SET(e->value, zone_off(zone, v));
        ZONE_SET(root->making, 0);
        zone_free(zone, old);
        ZONE_SET(root->dropping, 0);
    } else if (expires_ms == 0 && root->timeout_ms == 0 && e->expires_ms == 0) {
        return true; /* nothing changes: the file need not be written either */
    }
    set_expiry(root, e, expires_ms);
    root->version++;
    return true;
}

/* The living entry of a key, or NULL. */
static struct entry *entry_find(struct zone *zone, enum keyval_type type, struct str bytes)
{
    struct entry *e = keyed_get(zone, table_of(zone, keyval_root_of(zone)), bytes, false);

    if (e == NULL || !has_expired(e))
        return e;
    entry_delete(zone, type, e);
    return NULL;
}

enum keyval_result keyval_put(struct zone *zone, enum keyval_type type, struct str text,
                              struct str value, uint64_t expires_ms, enum keyval_mode mode)
{
    struct key key;
    struct entry *e;
    enum keyval_result rc;

    if (value.len > KEYVAL_VALUE_MAX)
        return KEYVAL_TOO_LONG;
    rc = key_make(type, text, &key);
    if (rc != KEYVAL_OK)
        return rc;
    if (!str_is_utf8(text) || !str_is_utf8(value))
        return KEYVAL_BAD_TEXT;
    expire_some(zone, type, EXPIRE_STEPS);
    for (;;) {
        e = entry_find(zone, type, key.bytes);
        if (e != NULL && mode == KEYVAL_ADD)
            return KEYVAL_EXISTS;
        if (e == NULL && mode == KEYVAL_REPLACE)
            return KEYVAL_ABSENT;
        if (e != NULL ? entry_change(zone, e, value, expires_ms)
                      : entry_new(zone, type, &key, value, expires_ms))
            return KEYVAL_OK;
        if (!expire_all(zone, type))
            return KEYVAL_FULL;
    }
}

/* Calls ---------------------------------------------------------------------------------------------- */

enum keyval_result keyval_set(struct keyval_zone *kz, struct str key, struct str value,
                              uint64_t expires_ms, enum keyval_mode mode)
{
    struct zone *zone = kz->res->zone;
    enum keyval_result rc;

    zone_lock(zone);
    rc = keyval_put(zone, kz->type, key, value, expires_ms, mode);
    zone_unlock(zone);
    if (rc == KEYVAL_OK)
        keyval_changed(kz);
    return rc;
}

enum keyval_result keyval_delete(struct keyval_zone *kz, struct str text)
{
    struct zone *zone = kz->res->zone;
    struct key key;
    struct entry *e;
    enum keyval_result rc = key_make(kz->type, text, &key);

    if (rc != KEYVAL_OK)
        return rc == KEYVAL_TOO_LONG ? KEYVAL_ABSENT : rc;
    zone_lock(zone);
    e = entry_find(zone, kz->type, key.bytes);
    if (e != NULL) {
        entry_delete(zone, kz->type, e);
        keyval_root_of(zone)->version++;
    }
    zone_unlock(zone);
    if (e == NULL)
        return KEYVAL_ABSENT;
    keyval_changed(kz);
    return KEYVAL_OK;
}

/* Deletes some of the pairs that were there up to `last`. True: there may be more. */
static bool clear_some(struct zone *zone, enum keyval_type type, uint64_t last)
{
    struct keyval_root *root = keyval_root_of(zone);
    struct entry *e;

    root->version++;
    for (unsigned n = 0; n < CLEAR_STEPS; n++) {
        e = keyed_oldest(zone, table_of(zone, root), NULL);
        if (e == NULL || e->serial > last)
            return false;
        entry_delete(zone, type, e);
    }
    return true;
}

void keyval_clear(struct keyval_zone *kz)
{
    struct zone *zone = kz->res->zone;
    uint64_t last;
    bool more;

    zone_lock(zone);
    last = keyval_root_of(zone)->serial;
    zone_unlock(zone);
    /* What is made meanwhile stays; the lock is given up in between. */
    do {
        zone_lock(zone);
        more = clear_some(zone, kz->type, last);
        zone_unlock(zone);
    } while (more);
    keyval_changed(kz);
}

static void pair_of(struct zone *zone, enum keyval_type type, const struct entry *e, char *room,
                    struct keyval_pair *pair)
{
    struct keyed *t = table_of(zone, keyval_root_of(zone));

    pair->key = key_text(type, keyed_key(zone, t, e), room);
    pair->value = value_of(zone, e);
    pair->left_ms = e->expires_ms != 0 ? e->expires_ms - clock_ms() : 0;
}

enum keyval_result keyval_get(struct keyval_zone *kz, struct str text, struct arena *arena,
                              struct keyval_pair *out)
{
    struct zone *zone = kz->res->zone;
    char room[KEY_TEXT_MAX];
    struct key key;
    const struct entry *e;
    enum keyval_result rc = key_make(kz->type, text, &key);

    if (rc != KEYVAL_OK)
        return rc == KEYVAL_TOO_LONG ? KEYVAL_ABSENT : rc;
    zone_lock(zone);
    e = entry_find(zone, kz->type, key.bytes);
    if (e != NULL) {
        pair_of(zone, kz->type, e, room, out);
        out->key = str_dup(arena, out->key);
        out->value = str_dup(arena, out->value);
    }
    zone_unlock(zone);
    return e != NULL ? KEYVAL_OK : KEYVAL_ABSENT;
}

/* The entry of the longest key that `key`, which it cuts, begins with. */
static const struct entry *find_longest(struct zone *zone, enum keyval_type type, struct key *key)
{
    const struct keyval_root *root = keyval_root_of(zone);
    unsigned floor = class_floor(type, key->class_);
    int class_ = class_next(root->present, key->class_, floor);

    while (class_ >= 0) {
        const struct entry *e;

        key_cut(type, key, (unsigned) class_);
        e = entry_find(zone, type, key->bytes);
        if (e != NULL)
            return e;
        if ((unsigned) class_ == floor)
            break;
        class_ = class_next(root->present, (unsigned) class_ - 1, floor);
    }
    return NULL;
}

bool keyval_match(struct keyval_zone *kz, struct str wanted, struct arena *arena,
                  struct str *value)
{
    struct zone *zone = kz->res->zone;
    const struct entry *e;
    struct key key;

    if (kz->type == KEYVAL_PREFIX)
        wanted.len = MIN(wanted.len, KEYVAL_PREFIX_MAX);
    if (key_make(kz->type, wanted, &key) != KEYVAL_OK)
        return false;
    zone_lock(zone);
    e = kz->type == KEYVAL_STRING ? entry_find(zone, kz->type, key.bytes)
                                  : find_longest(zone, kz->type, &key);
    if (e != NULL)
        *value = str_dup(arena, value_of(zone, e));
    zone_unlock(zone);
    return e != NULL;
}

/* Walking ---------------------------------------------------------------------------------------------- */

/* Where to go on: behind the entry visited last, which may be gone by now. */
static struct entry *walk_resume(struct zone *zone, const struct keyval_walk *walk)
{
    struct keyed *t = table_of(zone, keyval_root_of(zone));
    struct entry *e;

    if (walk->serial == 0)
        return keyed_next(zone, t, NULL);
    e = keyed_get(zone, t, str_from(walk->key, walk->key_len), false);
    if (e != NULL && e->serial == walk->serial)
        return keyed_next(zone, t, e);
    for (e = keyed_next(zone, t, NULL); e != NULL && e->serial <= walk->serial;)
        e = keyed_next(zone, t, e);
    return e;
}

bool keyval_walk(struct keyval_zone *kz, struct keyval_walk *walk, unsigned max,
                 void (*visit)(void *data, const struct keyval_pair *pair), void *data)
{
    struct zone *zone = kz->res->zone;
    struct entry *e, *last = NULL;
    struct keyed *t;

    zone_lock(zone);
    t = table_of(zone, keyval_root_of(zone));
    for (e = walk_resume(zone, walk); e != NULL && max > 0; max--) {
        char room[KEY_TEXT_MAX];
        struct keyval_pair pair;

        last = e;
        if (!has_expired(e)) {
            pair_of(zone, kz->type, e, room, &pair);
            visit(data, &pair);
        }
        e = keyed_next(zone, t, e);
    }
    if (last != NULL) {
        struct str key = keyed_key(zone, t, last);

        walk->serial = last->serial;
        walk->key_len = key.len;
        memcpy(walk->key, key.ptr, key.len);
    }
    zone_unlock(zone);
    return e != NULL;
}

/* The zone --------------------------------------------------------------------------------------------- */

static int keyval_init(struct zone *zone, void *data)
{
    struct keyval_zone *kz = data;
    struct keyval_root *root = zone_alloc(zone, sizeof(*root));
    unsigned classes = class_count(kz->type);
    void *counts = classes > 0 ? zone_alloc(zone, classes * sizeof(uint32_t)) : NULL;
    struct keyed *t = keyed_new(zone, sizeof(struct entry), 0);

    if (root == NULL || t == NULL || (classes > 0 && counts == NULL)) {
        log_emerg(log_main, 0, "keyval zone \"%.*s\" is too small", STR_ARG(zone_name(zone)));
        return -1;
    }
    root->type = kz->type;
    root->table = zone_off(zone, t);
    root->counts = counts != NULL ? zone_off(zone, counts) : 0;
    root->timeout_ms = kz->timeout_ms;
    root->next_expiry_ms = UINT64_MAX;
    zone_set_root(zone, zone_off(zone, root));
    if (kz->state.len == 0 || keyval_load(kz, zone) == 0) {
        root->saved = root->version;
        return 0;
    }
    /* After a wipe the server goes on with what could be read; the file is left until something changes. */
    if (zone_generation(zone) == 0)
        return -1;
    root->saved = root->version;
    return 0;
}

static int keyval_adopt(struct zone *zone, void *data)
{
    const struct keyval_zone *kz = data;

    keyval_root_of(zone)->timeout_ms = kz->timeout_ms;
    return 0;
}

/* What an entry refers to is a value, and its length is one. */
static bool entry_is_sound(const struct zone *zone, const struct entry *e)
{
    const struct value *v;

    if (!zone_is_object(zone, e->value, sizeof(*v)))
        return false;
    v = zone_at(zone, e->value);
    return zone_is_object(zone, e->value, sizeof(*v) + v->len);
}

/* Gives back the value that `*word` names, if it has no place in the table. */
static void give_back(struct zone *zone, zone_off_t *word, bool has_place)
{
    if (!has_place && zone_is_object(zone, *word, sizeof(struct value)))
        zone_free(zone, zone_at(zone, *word));
    ZONE_SET(*word, 0);
}

static bool keyval_recover(struct zone *zone)
{
    struct keyval_root *root = keyval_root_of(zone);
    bool made = false, dropped = false;
    struct entry *e, *next;
    unsigned classes;
    struct keyed *t;

    if (root == NULL || !zone_is_object(zone, zone_root(zone), sizeof(*root))
        || root->type > KEYVAL_PREFIX)
        return false;
    classes = class_count(root->type);
    if ((classes > 0 && !zone_is_object(zone, root->counts, classes * sizeof(uint32_t)))
        || !keyed_recover(zone, table_of(zone, root)))
        return false;
    t = table_of(zone, root);
    memset(root->present, 0, sizeof(root->present));
    if (classes > 0)
        memset(zone_at(zone, root->counts), 0, classes * sizeof(uint32_t));
    for (e = keyed_next(zone, t, NULL); e != NULL; e = next) {
        next = keyed_next(zone, t, e);
        if (!entry_is_sound(zone, e)) {
            keyed_delete(zone, t, e);
            continue;
        }
        made |= e->value == root->making;
        dropped |= e->value == root->dropping;
        root->serial = MAX(root->serial, e->serial);
        if (classes > 0)
            class_add(zone, root, key_class(root->type, keyed_key(zone, t, e)));
    }
    give_back(zone, &root->making, made || root->making == root->dropping);
    give_back(zone, &root->dropping, dropped);
    root->next_expiry_ms = 0;
    root->version++;
    return true;
}

/* Who wrote the file is gone: it is still due. */
static void keyval_worker_gone(struct zone *zone, void *data)
{
    const struct keyval_slot *slot = data;
    struct keyval_root *root;

    if (slot->writer == 0)
        return;
    zone_lock(zone);
    root = keyval_root_of(zone);
    if (root->writer == slot->writer)
        root->writer = 0;
    zone_unlock(zone);
}

const struct zone_kind keyval_kind = {
    .name = "keyval",
    .version = 1,
    .slot_size = sizeof(struct keyval_slot),
    .init = keyval_init,
    .adopt = keyval_adopt,
    .recover = keyval_recover,
    .worker_gone = keyval_worker_gone,
};
