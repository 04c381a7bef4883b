/* SPDX-License-Identifier: BSD-2-Clause */
/* The API on the process itself: version, workers, connections, requests, shared memory, TLS. */
#include <limits.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/config/counters.h"
#include "core/http/client.h"
#include "core/http/status.h"
#include "core/os/instance.h"
#include "core/version.h"
#include "modules/api/internal.h"

static void put_u64(struct api *a, const char *name, uint64_t n)
{
    if (api_wants(a, name))
        json_put_u64(&a->json, name, n);
}

static void put_str(struct api *a, const char *name, struct str s)
{
    if (api_wants(a, name))
        json_put_str(&a->json, name, s);
}

enum verdict api_nginx(struct api *a)
{
    struct json *j = &a->json;
    char address[ADDR_TEXT];
    size_t n = addr_format(client_local(a->r->client), false, address, sizeof(address));

    json_object(j);
    put_str(a, "version", STR(PROXYD_NGINX_LEVEL));
    put_str(a, "build", STR("proxyd/" PROXYD_VERSION));
    put_str(a, "address", str_from(address, n));
    put_u64(a, "generation", instance.generation);
    if (api_wants(a, "load_timestamp"))
        api_put_time(j, "load_timestamp", instance.loaded_ms);
    if (api_wants(a, "timestamp"))
        api_put_time(j, "timestamp", (uint64_t) clock_time() * 1000 + clock_time_ms());
    put_u64(a, "pid", (uint64_t) getpid());
    put_u64(a, "ppid", (uint64_t) getppid());
    json_end(j);
    return api_ok(a);
}

enum verdict api_processes(struct api *a)
{
    json_object(&a->json);
    put_u64(a, "respawned", instance_respawns());
    json_end(&a->json);
    return api_ok(a);
}

enum verdict api_processes_reset(struct api *a)
{
    instance_reset_respawns();
    return api_no_content(a);
}

/* Connections ---------------------------------------------------------------------------------- */

static void show_connections(struct json *j, const struct client_counts *c)
{
    json_put_u64(j, "accepted", c->accepted);
    json_put_u64(j, "dropped", c->accepted - c->handled);
    json_put_u64(j, "active", c->active - c->waiting);
    json_put_u64(j, "idle", c->waiting);
}

enum verdict api_connections(struct api *a)
{
    struct client_counts c;

    client_counts_since(&c);
    json_object(&a->json);
    put_u64(a, "accepted", c.accepted);
    put_u64(a, "dropped", c.accepted - c.handled);
    put_u64(a, "active", c.active - c.waiting);
    put_u64(a, "idle", c.waiting);
    json_end(&a->json);
    return api_ok(a);
}

enum verdict api_connections_reset(struct api *a)
{
    client_counts_reset(CLIENT_RESET_CONNECTIONS);
    return api_no_content(a);
}

enum verdict api_requests(struct api *a)
{
    struct client_counts c;

    client_counts_since(&c);
    json_object(&a->json);
    put_u64(a, "total", c.requests);
    put_u64(a, "current", c.reading + c.writing);
    json_end(&a->json);
    return api_ok(a);
}

enum verdict api_requests_reset(struct api *a)
{
    client_counts_reset(CLIENT_RESET_REQUESTS);
    return api_no_content(a);
}

/* Workers -------------------------------------------------------------------------------------- */

static void show_worker(struct api *a, const struct client_worker *w)
{
    struct json *j = &a->json;

    json_object(j);
    put_u64(a, "id", w->id);
    put_u64(a, "pid", (uint64_t) w->pid);
    if (api_wants(a, "connections")) {
        json_key(j, "connections");
        json_object(j);
        show_connections(j, &w->counts);
        json_end(j);
    }
    if (api_wants(a, "http")) {
        json_key(j, "http");
        json_object(j);
        json_key(j, "requests");
        json_object(j);
        json_put_u64(j, "total", w->counts.requests);
        json_put_u64(j, "current", w->counts.reading + w->counts.writing);
        json_end(j);
        json_end(j);
    }
    json_end(j);
}

enum verdict api_workers(struct api *a)
{
    struct client_worker *workers;
    unsigned n = client_counts_workers(a->r->arena, &workers);

    json_array(&a->json);
    for (unsigned i = 0; i < n; i++)
        show_worker(a, &workers[i]);
    json_end(&a->json);
    return api_ok(a);
}

enum verdict api_workers_reset(struct api *a)
{
    client_counts_reset_worker(UINT_MAX);
    return api_no_content(a);
}

static enum verdict no_worker(struct api *a)
{
    return api_error(a, 404, "WorkerNotFound", "worker not found");
}

/* The number in the path; UINT_MAX: it is none. */
static unsigned worker_id(const struct api *a)
{
    uint64_t id;

    return str_to_u64(a->names[0], &id) == 0 && id < UINT_MAX ? (unsigned) id : UINT_MAX;
}

enum verdict api_worker(struct api *a)
{
    struct client_worker *workers;
    unsigned n = client_counts_workers(a->r->arena, &workers), id = worker_id(a);

    for (unsigned i = 0; i < n; i++) {
        if (workers[i].id == id) {
            show_worker(a, &workers[i]);
            return api_ok(a);
        }
    }
    return no_worker(a);
}

enum verdict api_worker_reset(struct api *a)
{
    unsigned id = worker_id(a);

    if (id == UINT_MAX || !client_counts_reset_worker(id))
        return no_worker(a);
    return api_no_content(a);
}

/* Shared memory -------------------------------------------------------------------------------- */

static void show_slots(struct json *j, const struct zone_slab_status *s)
{
    json_key(j, "slots");
    json_object(j);
    for (unsigned i = 0; i < s->count; i++) {
        char size[16];

        (void) snprintf(size, sizeof(size), "%u", (unsigned) s->slots[i].size);
        json_key(j, size);
        json_object(j);
        json_put_u64(j, "used", s->slots[i].used);
        json_put_u64(j, "free", s->slots[i].free);
        json_put_u64(j, "reqs", s->slots[i].asked);
        json_put_u64(j, "fails", s->slots[i].failed);
        json_end(j);
    }
    json_end(j);
}

static void show_slab(struct api *a, const struct zone *zone)
{
    struct zone_slab_status s;
    struct json *j = &a->json;

    zone_slab_status(zone, &s);
    json_object(j);
    if (api_wants(a, "pages")) {
        json_key(j, "pages");
        json_object(j);
        json_put_u64(j, "used", s.pages_used);
        json_put_u64(j, "free", s.pages_free);
        json_end(j);
    }
    if (api_wants(a, "slots"))
        show_slots(j, &s);
    json_end(j);
}

/* The next zone after prev (NULL: the first one) that there is memory for; NULL: no more. */
static const struct res_zone *next_zone(const struct api *a, const struct res_zone *prev)
{
    const struct list *zones = &a->config->resources->zones;
    const struct list *l = prev != NULL ? prev->link.next : zones->next;

    for (; l != zones; l = l->next) {
        const struct res_zone *z = container_of(l, struct res_zone, link);

        if (z->zone != NULL)
            return z;
    }
    return NULL;
}

enum verdict api_slabs(struct api *a)
{
    const struct res_zone *z = NULL;
    struct json *j = &a->json;
    bool names = api_names_only(a);

    if (names)
        json_array(j);
    else
        json_object(j);
    while ((z = next_zone(a, z)) != NULL) {
        if (names) {
            json_str(j, z->spec.name);
            continue;
        }
        json_key_str(j, z->spec.name);
        show_slab(a, z->zone);
    }
    json_end(j);
    return api_ok(a);
}

static const struct res_zone *find_zone(const struct api *a)
{
    const struct res_zone *z = NULL;

    while ((z = next_zone(a, z)) != NULL && !str_eq(z->spec.name, a->names[0]))
        ;
    return z;
}

static enum verdict no_slab(struct api *a)
{
    return api_error(a, 404, "SlabNotFound", "slab not found");
}

enum verdict api_slab(struct api *a)
{
    const struct res_zone *z = find_zone(a);

    if (z == NULL)
        return no_slab(a);
    show_slab(a, z->zone);
    return api_ok(a);
}

enum verdict api_slab_reset(struct api *a)
{
    const struct res_zone *z = find_zone(a);

    if (z == NULL)
        return no_slab(a);
    zone_slab_reset(z->zone);
    return api_no_content(a);
}

/* TLS ------------------------------------------------------------------------------------------ */

/* Where nobody counts, all are 0. */
enum verdict api_ssl(struct api *a)
{
    api_show_kind(a, counters_next(a->config, ssl_kind.name, NULL), &ssl_kind);
    return api_ok(a);
}

enum verdict api_ssl_reset(struct api *a)
{
    const struct counter_set *set = counters_next(a->config, ssl_kind.name, NULL);

    if (set != NULL)
        counters_reset(set);
    return api_no_content(a);
}
