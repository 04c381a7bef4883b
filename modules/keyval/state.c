/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file that keeps a zone's pairs: a JSON object, read when the zone is made, written anew soon after a change by the
 * worker that made it. The pairs are collected a few at a time from the loop; writing, syncing and renaming is done
 * by a thread. Of all workers one at a time has the file: it has claimed it in the zone, and its slot says so, lest the
 * claim outlive it.
 */
#include <errno.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/base/json_read.h"
#include "core/event/loop.h"
#include "core/event/threads.h"
#include "core/event/timer.h"
#include "core/os/file.h"
#include "modules/keyval/internal.h"

#define FILE_MAX ((size_t) 1 << 31)
#define FILE_MODE 0600      /* values may be secrets */
#define SAVE_DELAY_MS 300   /* changes that are written together */
#define RETRY_DELAY_MS 5000 /* after a failure */
#define SAVE_STEPS 500      /* pairs that are collected with the lock held */

/* Reading -------------------------------------------------------------------------------------- */

struct reader {
    struct json_reader json;
    struct arena *arena;
    const char *path;
    uint64_t age_ms; /* what has passed since the file was written */
    /* Gets each pair; left_ms 0: no time was given. NULL, or what is wrong with it. */
    const char *(*put)(void *data, struct str key, struct str value, uint64_t left_ms);
    void *data;
    struct str error; /* a sentence */
};

static bool fail(struct reader *r, const char *what)
{
    r->error = str_printf(r->arena, "%s in keyval state file \"%s\":%u",
                          r->json.error != NULL ? r->json.error : what, r->path,
                          json_line(&r->json));
    return false;
}

/* "value": "…", "expire": milliseconds. */
static bool read_members(struct reader *r, struct str *value, uint64_t *left_ms, bool *has_expiry)
{
    struct json_reader *j = &r->json;
    enum json_token token;

    *value = STR_NULL;
    *has_expiry = false;
    while ((token = json_next(j)) == JSON_KEY) {
        struct str name = j->str;

        token = json_next(j);
        if (str_eq(name, STR("value"))) {
            if (token != JSON_STRING)
                return fail(r, "\"value\" is not a string");
            *value = j->str;
        } else if (str_eq(name, STR("expire"))) {
            if (token != JSON_NUMBER || str_to_u64(j->str, left_ms) != 0)
                return fail(r, "\"expire\" is not a number of milliseconds");
            *has_expiry = true;
        } else if (!json_skip(j, token)) {
            return fail(r, "");
        }
    }
    if (token != JSON_OBJECT_END)
        return fail(r, "");
    return value->ptr != NULL || fail(r, "no \"value\"");
}

static bool read_pair(struct reader *r)
{
    struct str key = r->json.str, value;
    uint64_t left_ms = 0;
    bool has_expiry = false;
    const char *error;

    switch (json_next(&r->json)) {
    case JSON_STRING:
        value = r->json.str;
        break;
    case JSON_OBJECT:
        if (!read_members(r, &value, &left_ms, &has_expiry))
            return false;
        break;
    default:
        return fail(r, "a value is not a string");
    }
    if (has_expiry) {
        if (left_ms <= r->age_ms)
            return true; /* it has expired meanwhile */
        left_ms -= r->age_ms;
    }
    error = r->put(r->data, key, value, left_ms);
    return error == NULL || fail(r, error);
}

static bool read_pairs(struct reader *r, struct str text)
{
    enum json_token token;

    json_read(&r->json, r->arena, text);
    if (json_next(&r->json) != JSON_OBJECT)
        return fail(r, "no JSON object");
    while ((token = json_next(&r->json)) == JSON_KEY) {
        if (!read_pair(r))
            return false;
    }
    if (token != JSON_OBJECT_END || json_next(&r->json) != JSON_END)
        return fail(r, "");
    return true;
}

/* Milliseconds since the file was written; 0 for one from the future. */
static uint64_t age_of(const char *path)
{
    struct timespec now;
    struct stat st;
    int64_t ms;

    if (stat(path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0)
        return 0;
    ms = ((int64_t) now.tv_sec - st.st_mtim.tv_sec) * 1000
         + (now.tv_nsec - st.st_mtim.tv_nsec) / 1000000;
    return ms > 0 ? (uint64_t) ms : 0;
}

/* A file that is not there, or empty, has no pairs. 0; or -1 with r->error. */
static int read_file(struct reader *r)
{
    struct str text;

    r->age_ms = age_of(r->path);
    if (file_read(r->arena, r->path, FILE_MAX, &text) != 0) {
        if (errno == ENOENT)
            return 0;
        r->error = str_printf(r->arena, "reading keyval state file \"%s\" failed (%d: %s)", r->path,
                              errno, strerror(errno));
        return -1;
    }
    return text.len == 0 || read_pairs(r, text) ? 0 : -1;
}

struct load {
    struct zone *zone;
    enum keyval_type type;
};

static const char *load_pair(void *data, struct str key, struct str value, uint64_t left_ms)
{
    const struct load *load = data;
    enum keyval_result rc = keyval_put(load->zone, load->type, key, value, left_ms, KEYVAL_PUT);

    return rc == KEYVAL_OK ? NULL : keyval_result_text(rc);
}

int keyval_load(struct keyval_zone *kz, struct zone *zone)
{
    struct load load = { zone, kz->type };
    struct reader reader = { .arena = arena_new_large(), .path = kz->state.ptr, .put = load_pair,
                             .data = &load };
    int rc;

    clock_update();
    rc = read_file(&reader);
    if (rc != 0)
        log_emerg(log_main, 0, "%.*s", STR_ARG(reader.error));
    arena_destroy(reader.arena);
    return rc;
}

static const char *check_pair(void *data, struct str key, struct str value, uint64_t left_ms)
{
    const struct keyval_zone *kz = data;
    struct key room;
    enum keyval_result rc = key_make(kz->type, key, &room);

    (void) left_ms;
    if (rc == KEYVAL_OK && value.len > KEYVAL_VALUE_MAX)
        rc = KEYVAL_TOO_LONG;
    return rc == KEYVAL_OK ? NULL : keyval_result_text(rc);
}

/* -t makes no zones, but says what is wrong with their files. */
int keyval_check_states(struct conf *cf)
{
    struct list *zones = &cf->config->resources->zones;
    int rc = 0;

    if (!cf->config->testing)
        return 0;
    for (struct list *l = zones->next; l != zones; l = l->next) {
        const struct res_zone *res = container_of(l, struct res_zone, link);
        struct keyval_zone *kz = res->spec.data;
        struct reader reader;

        if (res->spec.kind != &keyval_kind || kz == NULL || kz->state.len == 0)
            continue;
        reader = (struct reader){ .arena = arena_new_large(), .path = kz->state.ptr,
                                  .put = check_pair, .data = kz };
        if (read_file(&reader) != 0) {
            conf_error_at(cf, kz->pos, "%.*s", STR_ARG(reader.error));
            rc = -1;
        }
        arena_destroy(reader.arena);
    }
    return rc;
}

/* Writing -------------------------------------------------------------------------------------- */

struct keyval_saver {
    struct keyval_saver *next;
    struct keyval_zone *kz;
    struct timer timer;
    struct later later; /* collects the next pairs */
    struct keyval_walk walk;
    char *text; /* malloc'ed: what has been collected */
    size_t len, size;
    uint64_t version; /* that the text amounts to */
    struct thread_task task;
    int err; /* of the last attempt: an errno value */
    bool busy; /* the file is ours */
};

/* Of this worker. */
static struct {
    struct keyval_saver *savers;
    struct thread_pool *pool; /* made at first use */
    bool stopping;
} worker;

static char *text_room(struct keyval_saver *s, size_t n)
{
    if (s->size - s->len < n) {
        s->size = MAX(s->size * 2, s->len + n);
        s->text = mem_realloc(s->text, s->size);
    }
    return s->text + s->len;
}

static char *put_json(char *p, struct str s)
{
    static const char names[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";

    *p++ = '"';
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];
        const char *at = c != '\0' ? strchr(names, c) : NULL;

        if (at != NULL) {
            *p++ = '\\';
            *p++ = letters[at - names];
        } else if (c < 0x20 || c == 0x7f) {
            p += sprintf(p, "\\u%04x", c);
        } else {
            *p++ = (char) c;
        }
    }
    *p++ = '"';
    return p;
}

/* One line a pair, so that an error in the file has a line that says something. */
static void collect(void *data, const struct keyval_pair *pair)
{
    struct keyval_saver *s = data;
    char *p = text_room(s, 6 * (pair->key.len + pair->value.len) + 64);

    p = fmt_str(p, s->len == 0 ? STR("{") : STR(",\n"));
    p = put_json(p, pair->key);
    *p++ = ':';
    if (pair->left_ms != 0)
        p = fmt_str(p, STR("{\"value\":"));
    p = put_json(p, pair->value);
    if (pair->left_ms != 0) {
        p = fmt_str(p, STR(",\"expire\":"));
        p = fmt_u64(p, pair->left_ms);
        *p++ = '}';
    }
    s->len = (size_t) (p - s->text);
}

static void write_text(struct keyval_saver *s)
{
    int rc = file_replace(s->kz->state.ptr, str_from(s->text, s->len), FILE_MODE);

    s->err = rc == 0 ? 0 : errno;
}

/* False: another worker is at it, or there is nothing to write. */
static bool claim(struct keyval_saver *s)
{
    struct zone *zone = s->kz->res->zone;
    struct keyval_slot *slot = zone_my_slot(zone);
    struct keyval_root *root;
    bool due;

    zone_lock(zone);
    root = keyval_root_of(zone);
    due = root->version != root->saved;
    if (due && root->writer == 0) {
        ZONE_SET(slot->writer, zone_worker + 1);
        ZONE_SET(root->writer, zone_worker + 1);
        s->version = root->version;
        s->busy = true;
    }
    zone_unlock(zone);
    if (due && !s->busy)
        timer_set(&s->timer, SAVE_DELAY_MS);
    return s->busy;
}

static void release(struct keyval_saver *s, int err)
{
    struct zone *zone = s->kz->res->zone;
    struct keyval_slot *slot = zone_my_slot(zone);
    struct keyval_root *root;
    bool due;

    zone_lock(zone);
    root = keyval_root_of(zone);
    if (err == 0)
        root->saved = s->version;
    root->writer = 0;
    slot->writer = 0;
    due = root->version != root->saved;
    zone_unlock(zone);
    s->busy = false;
    free(s->text);
    s->text = NULL;
    s->len = s->size = 0;
    if (due)
        timer_set(&s->timer, err == 0 ? SAVE_DELAY_MS : RETRY_DELAY_MS);
}

static void written(struct keyval_saver *s)
{
    if (s->err != 0)
        log_crit(log_main, s->err, "writing keyval state file \"%s\" failed", s->kz->state.ptr);
    release(s, s->err);
}

static void task_work(struct thread_task *task)
{
    write_text(container_of(task, struct keyval_saver, task));
}

static void task_done(struct thread_task *task)
{
    written(container_of(task, struct keyval_saver, task));
}

static void hand_over(struct keyval_saver *s)
{
    if (s->len == 0)
        s->len = (size_t) (fmt_str(text_room(s, 4), STR("{}\n")) - s->text);
    else
        s->len = (size_t) (fmt_str(text_room(s, 4), STR("}\n")) - s->text);
    s->task.work = task_work;
    s->task.done = task_done;
    if (worker.pool == NULL && !worker.stopping)
        worker.pool = thread_pool_new(STR("keyval"), 1, UINT16_MAX);
    if (worker.pool != NULL && thread_pool_post(worker.pool, &s->task) == 0)
        return;
    write_text(s);
    written(s);
}

static void collect_some(struct later *later)
{
    struct keyval_saver *s = container_of(later, struct keyval_saver, later);

    if (keyval_walk(s->kz, &s->walk, SAVE_STEPS, collect, s))
        loop_later(&s->later);
    else
        hand_over(s);
}

static void save_due(struct timer *timer)
{
    struct keyval_saver *s = container_of(timer, struct keyval_saver, timer);

    if (s->busy || !claim(s))
        return;
    s->walk.serial = 0;
    collect_some(&s->later);
}

void keyval_changed(struct keyval_zone *kz)
{
    struct keyval_saver *s = kz->saver;

    if (s != NULL && !s->busy && !timer_active(&s->timer))
        timer_set(&s->timer, SAVE_DELAY_MS);
}

int keyval_workers_start(const struct config *config)
{
    struct list *zones = &config->resources->zones;

    worker.stopping = false;
    for (struct list *l = zones->next; l != zones; l = l->next) {
        struct res_zone *res = container_of(l, struct res_zone, link);
        struct keyval_zone *kz = res->spec.data;
        struct keyval_saver *s;

        if (res->spec.kind != &keyval_kind || kz->state.len == 0 || kz->saver != NULL)
            continue;
        s = mem_zalloc(sizeof(*s));
        s->kz = kz;
        s->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = save_due };
        s->later.run = collect_some;
        s->next = worker.savers;
        worker.savers = s;
        kz->saver = s;
        /* One that died may have left something to write. */
        timer_set(&s->timer, SAVE_DELAY_MS);
    }
    return 0;
}

/* What is still due is written before the worker goes, unless that has just failed. */
static void finish(struct keyval_saver *s)
{
    if (!s->busy) {
        s->err = 0;
    } else {
        loop_later_cancel(&s->later);
        while (keyval_walk(s->kz, &s->walk, SAVE_STEPS, collect, s))
            ;
        hand_over(s);
    }
    if (s->err == 0 && claim(s)) {
        s->walk.serial = 0;
        while (keyval_walk(s->kz, &s->walk, SAVE_STEPS, collect, s))
            ;
        hand_over(s);
    }
    timer_drop(&s->timer);
    s->kz->saver = NULL;
    free(s);
}

void keyval_workers_stop(const struct config *config)
{
    struct keyval_saver *s, *next;

    (void) config;
    worker.stopping = true;
    if (worker.pool != NULL)
        thread_pool_free(worker.pool);
    worker.pool = NULL;
    for (s = worker.savers; s != NULL; s = next) {
        next = s->next;
        finish(s);
    }
    worker.savers = NULL;
}
