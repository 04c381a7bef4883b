/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * health_check: its parameters, and to which group of servers each of them belongs. Called while the
 * configuration is read.
 */
#include "core/http/h1.h"
#include "core/os/process.h"
#include "modules/upstream/internal.h"

#define COUNT_MAX 1000000
#define GRPC_SERVICE_MAX 1024

/* By number. */
static const char *const grpc_names[] = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
};

/* Parameters ----------------------------------------------------------------------------------- */

static const char *invalid(struct conf *cf, unsigned arg)
{
    return conf_error_arg(cf, arg, "invalid parameter \"%s\"", cf->args[arg].ptr);
}

static bool take_ms(struct str text, uint64_t min, uint64_t *ms)
{
    return str_to_ms(text, false, ms) == 0 && *ms >= min;
}

static bool take_number(struct str text, uint64_t max, uint32_t *n)
{
    uint64_t value;

    if (str_to_u64(text, &value) != 0 || value == 0 || value > max)
        return false;
    *n = (uint32_t) value;
    return true;
}

static bool take_uri(struct str text, struct str *uri)
{
    *uri = text;
    return text.len > 0 && text.ptr[0] == '/' &&
           scan_span(SCAN_URI, text.ptr, text.len) == text.len;
}

static bool take_match(struct str text, struct str *name)
{
    *name = text;
    return text.len > 0;
}

const char *health_grpc_status(unsigned status)
{
    return status < ARRAY_LEN(grpc_names) ? grpc_names[status] : NULL;
}

/* A number from 1 to 16, or its name. */
static bool take_grpc_status(struct str text, unsigned *status)
{
    uint64_t n;

    if (str_to_u64(text, &n) != 0) {
        for (n = 1; n < ARRAY_LEN(grpc_names) && !str_eq(text, str_cstr(grpc_names[n])); n++)
            ;
    }
    *status = (unsigned) n;
    return n > 0 && n < ARRAY_LEN(grpc_names);
}

/* type=…; grpc's own parameters come behind it, and no others. */
static const char *take_type(struct conf *cf, unsigned arg, struct str text,
                             struct health_check *hc)
{
    hc->tcp = str_eq(text, STR("tcp"));
    hc->grpc = str_eq(text, STR("grpc"));
    return hc->tcp || hc->grpc || str_eq(text, STR("http")) ? NULL : invalid(cf, arg);
}

static const char *grpc_parameter(struct conf *cf, unsigned arg, struct str name, struct str value,
                                  struct health_check *hc)
{
    bool fine = false;

    if (str_eq(name, STR("grpc_service="))) {
        hc->grpc_service = value;
        fine = value.len > 0 && value.len <= GRPC_SERVICE_MAX;
    } else if (str_eq(name, STR("grpc_status="))) {
        fine = take_grpc_status(value, &hc->grpc_status);
    }
    return fine ? NULL : invalid(cf, arg);
}

static const char *parameter(struct conf *cf, unsigned arg, struct health_check *hc, bool *http)
{
    struct str text = cf->args[arg], value = STR_NULL;
    ssize_t equals = str_chr(text, '=');
    struct str name = equals < 0 ? text : str_from(text.ptr, (size_t) equals + 1);
    bool fine;

    if (equals >= 0)
        value = str_skip(text, (size_t) equals + 1);
    if (hc->grpc)
        return grpc_parameter(cf, arg, name, value, hc);
    if (str_eq(name, STR("type=")))
        return take_type(cf, arg, value, hc);
    if (str_eq(name, STR("interval=")))
        fine = take_ms(value, 1, &hc->interval_ms);
    else if (str_eq(name, STR("jitter=")))
        fine = take_ms(value, 0, &hc->jitter_ms);
    else if (str_eq(name, STR("fails=")))
        fine = take_number(value, COUNT_MAX, &hc->fails);
    else if (str_eq(name, STR("passes=")))
        fine = take_number(value, COUNT_MAX, &hc->passes);
    else if (str_eq(name, STR("port=")))
        fine = take_number(value, 65535, &hc->port);
    else if (str_eq(name, STR("uri=")))
        fine = take_uri(value, &hc->uri);
    else if (str_eq(name, STR("match=")))
        fine = take_match(value, &hc->match_name);
    else if (str_eq(name, STR("keepalive_time=")))
        fine = take_ms(value, 1, &hc->keepalive_time_ms);
    else if (str_eq(name, STR("mandatory")))
        fine = hc->mandatory = true;
    else if (str_eq(name, STR("persistent")))
        fine = hc->persistent = true;
    else
        fine = false;
    if (str_eq(name, STR("uri=")) || str_eq(name, STR("match=")) ||
        str_eq(name, STR("keepalive_time=")))
        *http = true;
    return fine ? NULL : invalid(cf, arg);
}

const char *health_set_check(struct conf *cf, void *field)
{
    struct health_check *hc = ARENA_NEW(cf->arena, struct health_check);
    bool http = false;

    (void) field;
    *hc = (struct health_check){ .location = conf_location(cf),
                                 .level = cf->level,
                                 .pos = cf->pos,
                                 .interval_ms = 5000,
                                 .fails = 1,
                                 .passes = 1,
                                 .uri = STR("/") };
    for (unsigned i = 1; i < cf->nargs; i++) {
        const char *error = parameter(cf, i, hc, &http);

        if (error != NULL)
            return error;
    }
    if (hc->persistent && !hc->mandatory)
        return conf_error(cf, "\"persistent\" requires \"mandatory\"");
    if (hc->tcp && http)
        return conf_error(
            cf, "\"type=tcp\" does not go with \"uri\", \"match\" and \"keepalive_time\"");
    if (hc->grpc && http)
        return conf_error(
            cf, "\"type=grpc\" does not go with \"uri\", \"match\" and \"keepalive_time\"");
    list_push_back(&upstream_main_of(cf)->checks, &hc->link);
    return NULL;
}

/* Once all is read ----------------------------------------------------------------------------- */

/* Who asks the same as another is another one all the same. */
static uint64_t identity(const struct health *h, const struct health_check *hc)
{
    uint64_t id = shared_mix(shared_mix(SHARED_MIX_START, hc->uri), hc->match_name);
    unsigned same;

    id = shared_mix(id, hc->tcp ? STR("tcp") : hc->grpc ? STR("grpc") : STR("http"));
    id = shared_mix(id, hc->grpc_service);
    if (hc->grpc_status > 0)
        id = shared_mix(id, str_from((const char *) &hc->grpc_status, sizeof(hc->grpc_status)));
    id = shared_mix(id, str_from((const char *) &hc->port, sizeof(hc->port)));
    do {
        same = 0;
        for (unsigned i = 0; i < h->count; i++)
            same += h->checks[i]->id == id;
        id += same;
    } while (same > 0);
    return id;
}

static void add_check(struct arena *arena, struct upstream *g, struct health_check *hc)
{
    struct health *h = g->health;

    if (h == NULL)
        h = g->health = ARENA_NEW(arena, struct health);
    hc->id = identity(h, hc);
    h->checks = arena_grow(arena, h->checks, h->count, &h->capacity, sizeof(struct health_check *));
    h->checks[h->count++] = hc;
    if (hc->mandatory && !hc->persistent && h->epoch == 0)
        h->epoch = random_u64() | 1;
}

/* What the location's requests are given goes along, as far as it is the same for all of them. */
static struct str request(struct arena *arena, const struct health_check *hc,
                          const struct upstream_family *family)
{
    bool keep = hc->keepalive_time_ms > 0, host = false;
    struct str fields = STR("");

    if (family->fields != NULL)
        fields = family->fields(arena, hc->level, &host);
    if (hc->grpc)
        return health_grpc_request(arena, hc, fields);
    if (!host)
        fields = str_printf(arena, "Host: %.*s\r\n%.*s", STR_ARG(hc->group->name), STR_ARG(fields));
    return str_printf(arena, "GET %.*s HTTP/1.%d\r\n%s%.*s\r\n", STR_ARG(hc->uri), keep,
                      keep ? "" : "Connection: close\r\n", STR_ARG(fields));
}

static void name_for_tls(struct health_check *hc, const struct upstream_family *family)
{
    const struct upstream_tls *tls = &hc->conf->tls;

    hc->tls_name = STR_NULL;
    if (tls->client != NULL && tls->name != NULL && family->known != NULL &&
        !family->known(hc->level, tls->name, &hc->tls_name))
        hc->tls_name = STR_NULL;
}

static int configure(struct conf *cf, struct health_check *hc)
{
    const struct upstream_loc *loc = level_conf(hc->level, STORE_LOC, upstream_slot);
    const char *settings;

    if (loc == NULL || loc->level != hc->level) {
        conf_error_at(
            cf, hc->pos,
            "\"health_check\" needs a location that passes requests to a group of servers");
        return -1;
    }
    if (loc->group == NULL) {
        conf_error_at(
            cf, hc->pos,
            "\"health_check\" cannot be used where the group of servers depends on variables");
        return -1;
    }
    hc->group = loc->group;
    if (hc->group->zone_spec == NULL) {
        conf_error_at(
            cf, hc->pos,
            "no shared memory zone is defined in upstream \"%.*s\", which \"health_check\" needs",
            STR_ARG(hc->group->name));
        return -1;
    }
    if (hc->match_name.len > 0 && (hc->match = health_match_find(cf, hc->match_name)) == NULL) {
        conf_error_at(cf, hc->pos, "unknown match \"%.*s\"", STR_ARG(hc->match_name));
        return -1;
    }
    settings = level_conf(hc->level, STORE_LOC, *loc->family->module->slot);
    hc->conf = (const struct upstream_conf *) (settings + loc->family->conf);
    name_for_tls(hc, loc->family);
    hc->request = request(cf->arena, hc, loc->family);
    if (hc->request.ptr == NULL) {
        conf_error_at(cf, hc->pos, "the fields of requests here are too many for \"type=grpc\"");
        return -1;
    }
    add_check(cf->arena, hc->group, hc);
    return 0;
}

int health_configure(struct conf *cf)
{
    struct list *all = &upstream_main_of(cf)->checks;
    int rc = 0;

    for (struct list *n = all->next; n != all; n = n->next) {
        if (configure(cf, container_of(n, struct health_check, link)) != 0)
            rc = -1;
    }
    return rc;
}
