/* SPDX-License-Identifier: BSD-2-Clause */
/* The API on groups of servers, as they are. */
#include "modules/api/internal.h"
#include "modules/upstream/upstream.h"

struct upstream *api_group(struct api *a, enum verdict *v)
{
    struct upstream *g = upstream_find(a->config->http, a->names[0]);

    if (g == NULL)
        *v = api_error(a, 404, "UpstreamNotFound", "upstream not found");
    else if (!upstream_is_shared(g))
        *v = api_error(a, 400, "UpstreamStatic", "upstream is static");
    else
        return g;
    return NULL;
}

static void show_codes(struct json *j, const struct upstream_server *s)
{
    char name[8];

    json_key(j, "codes");
    json_object(j);
    for (unsigned i = 0; i < PEER_CODES; i++) {
        if (s->codes[i] == 0)
            continue;
        snprintf(name, sizeof(name), "%u", peer_codes[i]);
        json_put_u64(j, name, s->codes[i]);
    }
    json_end(j);
}

static void show_tls(struct json *j, const struct upstream_server *s)
{
    json_key(j, "ssl");
    json_object(j);
    json_put_u64(j, "handshakes", s->tls[PEER_TLS_HANDSHAKES]);
    json_put_u64(j, "handshakes_failed", s->tls[PEER_TLS_FAILED]);
    json_put_u64(j, "session_reuses", s->tls[PEER_TLS_REUSES]);
    json_put_u64(j, "no_common_protocol", s->tls[PEER_TLS_NO_PROTOCOL]);
    json_put_u64(j, "handshake_timeout", s->tls[PEER_TLS_TIMEOUT]);
    json_put_u64(j, "peer_rejected_cert", s->tls[PEER_TLS_REJECTED]);
    json_key(j, "verify_failures");
    json_object(j);
    json_put_u64(j, "expired_cert", s->tls[PEER_TLS_EXPIRED]);
    json_put_u64(j, "revoked_cert", s->tls[PEER_TLS_REVOKED]);
    json_put_u64(j, "hostname_mismatch", s->tls[PEER_TLS_HOSTNAME]);
    json_put_u64(j, "other", s->tls[PEER_TLS_OTHER]);
    json_end(j);
    json_end(j);
}

static void show_responses(struct json *j, const struct upstream_server *s, unsigned version)
{
    static const char *const names[] = { "1xx", "2xx", "3xx", "4xx", "5xx" };
    uint64_t total = 0;

    json_key(j, "responses");
    json_object(j);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        json_put_u64(j, names[i], s->responses[i]);
        total += s->responses[i];
    }
    if (version >= 7)
        show_codes(j, s);
    json_put_u64(j, "total", total);
    json_end(j);
}

static void show_checks(struct json *j, const struct upstream_server *s)
{
    json_key(j, "health_checks");
    json_object(j);
    json_put_u64(j, "checks", s->checks);
    json_put_u64(j, "fails", s->failed_checks);
    json_put_u64(j, "unhealthy", s->unhealthy);
    if (s->checked)
        json_put_bool(j, "last_passed", s->last_passed);
    json_end(j);
}

static void show_peer(struct json *j, const struct upstream_server *s, unsigned version)
{
    json_object(j);
    json_put_u64(j, "id", s->id);
    json_put_str(j, "server", s->name);
    if (s->service.len > 0)
        json_put_str(j, "service", s->service);
    json_put_str(j, "name", s->host.len > 0 ? s->host : s->server);
    json_put_bool(j, "backup", s->backup);
    json_put_u64(j, "weight", (uint64_t) s->weight);
    json_put_str(j, "state", str_cstr(s->state));
    json_put_u64(j, "active", s->active);
    if (s->max_conns > 0)
        json_put_u64(j, "max_conns", s->max_conns);
    json_put_u64(j, "requests", s->requests);
    if (s->header_time_ms >= 0)
        json_put_u64(j, "header_time", (uint64_t) s->header_time_ms);
    if (s->response_time_ms >= 0)
        json_put_u64(j, "response_time", (uint64_t) s->response_time_ms);
    show_responses(j, s, version);
    json_put_u64(j, "sent", s->sent);
    json_put_u64(j, "received", s->received);
    json_put_u64(j, "fails", s->fails);
    json_put_u64(j, "unavail", s->unavail);
    if (s->has_tls && version >= 8)
        show_tls(j, s);
    show_checks(j, s);
    json_put_u64(j, "downtime", s->downtime_ms);
    if (s->downstart_ms > 0)
        api_put_time(j, "downstart", (uint64_t) s->downstart_ms);
    if (s->selected_ms > 0)
        api_put_time(j, "selected", (uint64_t) s->selected_ms);
    json_end(j);
}

static void show_peers(struct json *j, const struct upstream_status *s, unsigned version)
{
    json_key(j, "peers");
    json_array(j);
    for (unsigned i = 0; i < s->count; i++) {
        if (!s->servers[i].resolves)
            show_peer(j, &s->servers[i], version);
    }
    json_end(j);
}

static void show_group(struct api *a, struct upstream *g)
{
    struct upstream_status status;
    struct json *j = &a->json;

    json_object(j);
    if (upstream_snapshot(g, a->r->arena, &status)) {
        if (api_wants(a, "peers"))
            show_peers(j, &status, a->version);
        if (api_wants(a, "keepalive"))
            json_put_u64(j, "keepalive", status.keepalive);
        if (api_wants(a, "zombies"))
            json_put_u64(j, "zombies", status.zombies);
        if (api_wants(a, "zone"))
            json_put_str(j, "zone", status.zone);
        if (status.has_queue && api_wants(a, "queue")) {
            json_key(j, "queue");
            json_object(j);
            json_put_u64(j, "size", status.queue_size);
            json_put_u64(j, "max_size", status.queue_max);
            json_put_u64(j, "overflows", status.queue_overflows);
            json_end(j);
        }
    }
    json_end(j);
}

enum verdict api_upstreams(struct api *a)
{
    struct upstream *g = NULL;
    struct json *j = &a->json;
    bool names = api_names_only(a);

    if (names)
        json_array(j);
    else
        json_object(j);
    while ((g = upstream_shared_next(a->config->http, g)) != NULL) {
        if (names) {
            json_str(j, g->name);
            continue;
        }
        json_key_str(j, g->name);
        show_group(a, g);
    }
    json_end(j);
    return api_ok(a);
}

enum verdict api_upstream(struct api *a)
{
    enum verdict v;
    struct upstream *g = api_group(a, &v);

    if (g == NULL)
        return v;
    show_group(a, g);
    return api_ok(a);
}

enum verdict api_upstream_reset(struct api *a)
{
    enum verdict v;
    struct upstream *g = api_group(a, &v);

    if (g == NULL)
        return v;
    upstream_reset(g);
    return api_no_content(a);
}
