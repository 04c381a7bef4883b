/* SPDX-License-Identifier: BSD-2-Clause */
/* The API on the servers of a group, as they are configured: list, add, change, remove. */
#include "core/base/fmt.h"
#include "modules/api/internal.h"
#include "modules/upstream/upstream.h"

#define ROUTE_MAX 32
#define FORMAT_ERROR "UpstreamConfFormatError"

/* Showing -------------------------------------------------------------------------------------- */

static void put_seconds(struct json *j, const char *name, uint64_t seconds)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%llus", (unsigned long long) seconds);

    json_put_str(j, name, str_from(text, (size_t) n));
}

static void show(struct api *a, const struct upstream_server *s)
{
    struct json *j = &a->json;

    json_object(j);
    json_put_u64(j, "id", s->id);
    json_put_str(j, "server", s->resolves ? s->server : s->name);
    if (s->service.len > 0)
        json_put_str(j, "service", s->service);
    json_put_u64(j, "weight", (uint64_t) s->weight);
    json_put_u64(j, "max_conns", s->max_conns);
    json_put_u64(j, "max_fails", (uint64_t) s->max_fails);
    put_seconds(j, "fail_timeout", s->fail_timeout_s);
    put_seconds(j, "slow_start", s->slow_start_s);
    json_put_str(j, "route", s->route.len > 0 ? s->route : STR(""));
    json_put_bool(j, "backup", s->backup);
    json_put_bool(j, "down", s->down);
    if (s->drain && a->version >= 2)
        json_put_bool(j, "drain", true);
    if (s->parent != UPSTREAM_NO_PARENT) {
        json_put_u64(j, "parent", s->parent);
        json_put_str(j, "host", s->host);
    }
    json_end(j);
}

static enum verdict show_all(struct api *a, struct upstream *g)
{
    struct upstream_status status = { .count = 0 };

    upstream_snapshot(g, a->r->arena, &status);
    json_array(&a->json);
    for (unsigned i = 0; i < status.count; i++)
        show(a, &status.servers[i]);
    json_end(&a->json);
    return api_ok(a);
}

enum verdict api_servers(struct api *a)
{
    enum verdict v;
    struct upstream *g = api_group(a, &v);

    return g != NULL ? show_all(a, g) : v;
}

static const struct upstream_server *find(const struct upstream_status *status, uint32_t id)
{
    for (unsigned i = 0; i < status->count; i++) {
        if (status->servers[i].id == id)
            return &status->servers[i];
    }
    return NULL;
}

/* The group and the server that the path names. NULL: *v is the answer. */
static const struct upstream_server *find_server(struct api *a, struct upstream **g,
                                                 enum verdict *v)
{
    struct upstream_status status = { .count = 0 };
    const struct upstream_server *s;
    uint64_t id;

    *g = api_group(a, v);
    if (*g == NULL)
        return NULL;
    if (str_to_u64(a->names[1], &id) != 0 || id > UINT32_MAX) {
        *v = api_error(a, 400, "UpstreamBadServerId", "invalid server ID");
        return NULL;
    }
    upstream_snapshot(*g, a->r->arena, &status);
    s = find(&status, (uint32_t) id);
    if (s == NULL)
        *v = api_error(a, 404, "UpstreamServerNotFound", "server with ID \"%.*s\" does not exist",
                       STR_ARG(a->names[1]));
    return s;
}

enum verdict api_server(struct api *a)
{
    enum verdict v;
    struct upstream *g;
    const struct upstream_server *s = find_server(a, &g, &v);

    if (s == NULL)
        return v;
    show(a, s);
    return api_ok(a);
}

/* Reading a body ------------------------------------------------------------------------------- */

/* A member of a body, and what it may be. */
struct member {
    const char *name;
    enum { MEMBER_NUMBER, MEMBER_SECONDS, MEMBER_STRING, MEMBER_BOOL, MEMBER_SHOWN } type;
    unsigned change;  /* CHANGE_ bit */
    size_t offset;    /* in struct upstream_change */
    int64_t min, max; /* of a number */
    const char *code; /* of the error for a bad one */
};

#define MEMBER(name_, type_, change_, member_, ...)                      \
    {                                                                    \
        .name = name_, .type = (type_), .change = (change_),             \
        .offset = offsetof(struct upstream_change, member_), __VA_ARGS__ \
    }

static const struct member members[] = {
    MEMBER("server", MEMBER_STRING, 0, server, .code = "UpstreamBadAddress"),
    MEMBER("service", MEMBER_STRING, CHANGE_SERVICE, service, .code = "UpstreamBadService"),
    MEMBER("weight", MEMBER_NUMBER, CHANGE_WEIGHT, weight, .min = 1, .max = PEER_WEIGHT_MAX,
           .code = "UpstreamBadWeight"),
    MEMBER("max_conns", MEMBER_NUMBER, CHANGE_MAX_CONNS, max_conns, .max = INT32_MAX,
           .code = "UpstreamBadMaxConns"),
    MEMBER("max_fails", MEMBER_NUMBER, CHANGE_MAX_FAILS, max_fails, .max = INT32_MAX,
           .code = "UpstreamBadMaxFails"),
    MEMBER("fail_timeout", MEMBER_SECONDS, CHANGE_FAIL_TIMEOUT, fail_timeout_s,
           .code = "UpstreamBadFailTimeout"),
    MEMBER("slow_start", MEMBER_SECONDS, CHANGE_SLOW_START, slow_start_s,
           .code = "UpstreamBadSlowStart"),
    MEMBER("route", MEMBER_STRING, CHANGE_ROUTE, route, .code = "UpstreamBadRoute"),
    MEMBER("backup", MEMBER_BOOL, CHANGE_BACKUP, backup, .code = FORMAT_ERROR),
    MEMBER("down", MEMBER_BOOL, CHANGE_DOWN, down, .code = FORMAT_ERROR),
    MEMBER("drain", MEMBER_BOOL, CHANGE_DRAIN, drain, .code = FORMAT_ERROR),
    /* Shown, so that what was shown can be sent back; not to be changed. */
    { .name = "id", .type = MEMBER_SHOWN },
    { .name = "parent", .type = MEMBER_SHOWN },
    { .name = "host", .type = MEMBER_SHOWN },
};

static const struct member *member_of(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(members); i++) {
        if (str_eq(name, str_cstr(members[i].name)))
            return &members[i];
    }
    return NULL;
}

/* A number, or a string with one or with a time. */
static bool take_value(const struct member *m, const struct json_reader *j, enum json_token t,
                       struct upstream_change *change)
{
    void *into = (char *) change + m->offset;
    int64_t number;
    uint64_t ms;

    switch (m->type) {
    case MEMBER_NUMBER:
        if ((t != JSON_NUMBER && t != JSON_STRING) || str_to_i64(j->str, &number) != 0 ||
            number < m->min || number > m->max)
            return false;
        *(int64_t *) into = number;
        return true;
    case MEMBER_SECONDS:
        if ((t != JSON_NUMBER && t != JSON_STRING) || str_to_ms(j->str, true, &ms) != 0)
            return false;
        *(uint64_t *) into = ms / 1000;
        return true;
    case MEMBER_STRING:
        if (t != JSON_STRING)
            return false;
        *(struct str *) into = j->str.len > 0 ? j->str : STR("");
        return true;
    case MEMBER_BOOL:
        if (t != JSON_TRUE && t != JSON_FALSE)
            return false;
        *(bool *) into = t == JSON_TRUE;
        return true;
    default: return true;
    }
}

/* One member, whose name has just been read. False: *v is the answer. */
static bool read_member(struct api *a, struct json_reader *j, struct upstream_change *change,
                        enum verdict *v)
{
    struct str name = j->str;
    const struct member *m = member_of(name);
    enum json_token t = json_next(j);

    if (m == NULL) {
        *v = api_error(a, 400, FORMAT_ERROR, "unknown parameter \"%.*s\"", STR_ARG(name));
    } else if (t == JSON_OBJECT || t == JSON_ARRAY) {
        *v = api_error(a, 400, FORMAT_ERROR, "nested object or list");
    } else if (!take_value(m, j, t, change)) {
        *v = m->type == MEMBER_BOOL || m->type == MEMBER_STRING
                 ? api_error(a, 400, FORMAT_ERROR, "invalid \"%s\" value", m->name)
                 : api_error(a, 400, m->code, "invalid \"%s\"", m->name);
    } else if (m->change == CHANGE_ROUTE && change->route.len > ROUTE_MAX) {
        *v = api_error(a, 400, m->code, "route is too long");
    } else if (m->change == CHANGE_SERVICE && change->service.len == 0) {
        *v = api_error(a, 400, m->code, "\"service\" is empty");
    } else {
        change->what |= m->change;
        return true;
    }
    return false;
}

static bool read_change(struct api *a, struct upstream_change *change, enum verdict *v)
{
    struct json_reader j;

    *change = (struct upstream_change){ .what = 0 };
    if (!api_read_object(a, &j, FORMAT_ERROR, v))
        return false;
    while (json_next(&j) == JSON_KEY) {
        if (!read_member(a, &j, change, v))
            return false;
    }
    return true;
}

/* Changing ------------------------------------------------------------------------------------- */

/* What an edit came to, other than well. */
static enum verdict refused(struct api *a, enum upstream_edit rc, struct str error)
{
    static const struct {
        unsigned status;
        const char *code;
    } kinds[] = {
        [EDIT_STATIC] = { 400, "UpstreamStatic" },
        [EDIT_NOT_FOUND] = { 404, "UpstreamServerNotFound" },
        [EDIT_NO_ADDRESS] = { 400, FORMAT_ERROR },
        [EDIT_BAD_ADDRESS] = { 400, "UpstreamBadAddress" },
        [EDIT_BAD_PARAMETER] = { 400, FORMAT_ERROR },
        [EDIT_NO_BACKUP] = { 400, "UpstreamNoBackup" },
        [EDIT_NO_RESOLVER] = { 400, "UpstreamConfNoResolver" },
        [EDIT_IMMUTABLE] = { 400, "UpstreamServerImmutable" },
        [EDIT_NO_MEMORY] = { 400, "UpstreamOutOfMemory" },
        [EDIT_NOT_SAVED] = { 500, "UpstreamNotSaved" },
    };

    return api_error(a, kinds[rc].status, kinds[rc].code, "%.*s", STR_ARG(error));
}

static enum verdict show_one(struct api *a, struct upstream *g, uint32_t id, bool created)
{
    struct upstream_status status = { .count = 0 };
    const struct upstream_server *s;
    struct str uri;

    upstream_snapshot(g, a->r->arena, &status);
    s = find(&status, id);
    if (s != NULL) {
        show(a, s);
    } else { /* another worker was quicker */
        json_object(&a->json);
        json_end(&a->json);
    }
    if (!created)
        return api_ok(a);
    uri = fmt_escape_dup(a->r->arena, a->r->uri, FMT_ESCAPE_URI);
    return api_created(a, str_printf(a->r->arena, "%.*s%s%u", STR_ARG(uri),
                                     str_ends(uri, STR("/")) ? "" : "/", (unsigned) id));
}

enum verdict api_server_add(struct api *a)
{
    enum verdict v;
    struct upstream *g = api_group(a, &v);
    struct upstream_change change;
    struct str error = STR("");
    enum upstream_edit rc;
    uint32_t id;

    if (g == NULL || !read_change(a, &change, &v))
        return v;
    if (change.server.len == 0)
        return api_error(a, 400, FORMAT_ERROR, "missing \"server\" argument");
    rc = upstream_server_add(g, a->r->arena, &change, &id, &error);
    return rc == EDIT_OK ? show_one(a, g, id, true) : refused(a, rc, error);
}

/* What cannot be changed may be said, as long as it is what it is. */
static bool fixed_stays(struct api *a, const struct upstream_server *s,
                        struct upstream_change *change, enum verdict *v)
{
    const char *what = NULL;

    if (change->server.ptr != NULL && !str_eq(change->server, s->server) &&
        !str_eq(change->server, s->name))
        what = "address";
    if ((change->what & CHANGE_BACKUP) && change->backup != s->backup)
        what = "backup";
    if ((change->what & CHANGE_SERVICE) && !str_eq(change->service, s->service))
        what = "service";
    if (what != NULL) {
        *v = api_error(a, 400, "UpstreamServerImmutable", "server \"%u\" %s is immutable",
                       (unsigned) s->id, what);
        return false;
    }
    change->server = STR_NULL;
    change->what &= ~(unsigned) (CHANGE_BACKUP | CHANGE_SERVICE);
    return true;
}

enum verdict api_server_change(struct api *a)
{
    enum verdict v;
    struct upstream *g;
    const struct upstream_server *s = find_server(a, &g, &v);
    struct upstream_change change;
    struct str error = STR("");
    enum upstream_edit rc;

    if (s == NULL || !read_change(a, &change, &v) || !fixed_stays(a, s, &change, &v))
        return v;
    rc = upstream_server_change(g, a->r->arena, s->id, &change, &error);
    return rc == EDIT_OK ? show_one(a, g, s->id, false) : refused(a, rc, error);
}

enum verdict api_server_remove(struct api *a)
{
    enum verdict v;
    struct upstream *g;
    const struct upstream_server *s = find_server(a, &g, &v);
    struct str error = STR("");
    enum upstream_edit rc;

    if (s == NULL)
        return v;
    rc = upstream_server_remove(g, a->r->arena, s->id, &error);
    return rc == EDIT_OK ? show_all(a, g) : refused(a, rc, error);
}
