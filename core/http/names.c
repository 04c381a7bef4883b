/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Server names: the directive, the table of all names of a listening address, and the choice of a
 * server for a host. Exact names and wildcards are looked up by hash, so the cost does not grow
 * with their number; regexes are tried in the order of the file after those. Called while the file
 * is read and, for each request, by the protocol drivers.
 */
#include <unistd.h>

#include "core/http/http_config.h"

#define HOSTNAME_ROOM 256

struct regex_name {
    const struct server_name *name;
    struct server *server;
};

/*
 * exact: "example.com". head: "*.example.com" under ".example.com". tail: "www.example.*" under
 * "www.example.". A host is only looked for as far as the longest key of a table goes: a peer
 * cannot make us hash a long host once for each of its dots.
 */
struct name_table {
    struct table exact, head, tail;
    size_t head_max, tail_max;
    struct regex_name *regexes;
    unsigned regex_count;
};

/* The directive ------------------------------------------------------------------------------ */

static struct str hostname(struct arena *arena)
{
    char name[HOSTNAME_ROOM];

    if (gethostname(name, sizeof(name)) != 0)
        return STR("");
    name[sizeof(name) - 1] = '\0';
    return str_lower(arena, str_cstr(name));
}

/* Hosts come in lower case: a pattern that has capitals is meant to match them all the same. */
static bool has_capitals(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] >= 'A' && s.ptr[i] <= 'Z')
            return true;
    }
    return false;
}

static const char *add_name(struct conf *cf, unsigned arg, struct server_name *out)
{
    struct str v = cf->args[arg];
    char first = v.len > 0 ? v.ptr[0] : '\0';

    if ((first == '*' && (v.len < 3 || v.ptr[1] != '.')) || (first == '.' && v.len < 2))
        return conf_error_arg(cf, arg, "server name \"%.*s\" is invalid", STR_ARG(v));
    if (first == '~') {
        if (v.len == 1)
            return conf_error_arg(cf, arg, "empty regex in server name \"~\"");
        out->name = str_dup(cf->arena, v);
        return http_regex(cf, arg, str_skip(v, 1), has_capitals(v), &out->regex, &out->captures);
    }
    if (str_chr(v, '/') >= 0)
        conf_warn_at(cf, cf->pos, "server name \"%.*s\" has suspicious symbols", STR_ARG(v));
    out->name = str_caseeq(v, STR("$hostname")) ? hostname(cf->arena) : str_lower(cf->arena, v);
    return NULL;
}

/* server_name NAME … */
const char *set_server_name(struct conf *cf, void *field)
{
    struct server *s = conf_server(cf);

    (void) field;
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct server_name name = { .name = STR_NULL };
        const char *error = add_name(cf, i, &name);

        if (error != NULL)
            return error;
        s->names =
            arena_grow(cf->arena, s->names, s->name_count, &s->name_capacity, sizeof(*s->names));
        s->names[s->name_count++] = name;
    }
    return NULL;
}

/* The table ---------------------------------------------------------------------------------- */

enum name_kind { NAME_EXACT, NAME_HEAD, NAME_BOTH /* ".example.com" */, NAME_TAIL, NAME_INVALID };

/* One wildcard, as the first or the last label; no empty label inside. */
static enum name_kind classify(struct str name)
{
    unsigned stars = 0;

    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '\0' || (name.ptr[i] == '*' && ++stars > 1) ||
            (name.ptr[i] == '.' && i + 1 < name.len && name.ptr[i + 1] == '.'))
            return NAME_INVALID;
    }
    if (name.len > 1 && name.ptr[0] == '.')
        return NAME_BOTH;
    if (stars == 0)
        return NAME_EXACT;
    if (name.len > 2 && name.ptr[0] == '*' && name.ptr[1] == '.')
        return NAME_HEAD;
    if (name.len > 2 && str_ends(name, STR(".*")))
        return NAME_TAIL;
    return NAME_INVALID;
}

/* False: the name is another's already (or the server's own, given twice). */
static bool put_new(struct table *table, struct str key, struct server *server)
{
    if (table_get(table, key) != NULL)
        return false;
    table_put(table, key, server);
    return true;
}

static bool put_name(struct name_table *t, struct str name, enum name_kind kind, struct server *s)
{
    switch (kind) {
    case NAME_EXACT: return put_new(&t->exact, name, s);
    case NAME_HEAD:
        name = str_skip(name, 1);
        t->head_max = MAX(t->head_max, name.len);
        return put_new(&t->head, name, s);
    case NAME_TAIL:
        name.len--;
        t->tail_max = MAX(t->tail_max, name.len);
        return put_new(&t->tail, name, s);
    case NAME_BOTH:
        if (table_get(&t->exact, str_skip(name, 1)) != NULL || table_get(&t->head, name) != NULL)
            return false;
        t->head_max = MAX(t->head_max, name.len);
        return put_new(&t->exact, str_skip(name, 1), s) && put_new(&t->head, name, s);
    case NAME_INVALID: break;
    }
    return true;
}

static void add_to_table(struct conf *cf, struct http_listen *l, struct name_table *t,
                         struct server *server, const struct server_name *n, unsigned *capacity)
{
    enum name_kind kind;

    if (n->regex != NULL) {
        t->regexes =
            arena_grow(cf->arena, t->regexes, t->regex_count, capacity, sizeof(*t->regexes));
        t->regexes[t->regex_count++] = (struct regex_name){ n, server };
        return;
    }
    kind = classify(n->name);
    if (kind == NAME_INVALID) {
        conf_error_at(cf, server->pos, "invalid server name or wildcard \"%.*s\" on %.*s",
                      STR_ARG(n->name), STR_ARG(l->text));
    } else if (!put_name(t, n->name, kind, server)) {
        cf->config->warnings++;
        log_warn(cf->log, 0, "conflicting server name \"%.*s\" on %.*s, ignored", STR_ARG(n->name),
                 STR_ARG(l->text));
    }
}

/* With one server there is something to choose only for the sake of a regex's captures. */
static bool is_needed(const struct http_listen *l)
{
    const struct server *only = l->default_server;

    if (l->server_count > 1)
        return true;
    for (unsigned i = 0; i < only->name_count; i++) {
        if (only->names[i].regex != NULL)
            return true;
    }
    return false;
}

struct name_table *name_table_build(struct conf *cf, struct http_listen *l)
{
    /* What a server without server_name is called. */
    static const struct server_name nameless = { .name = STR_INIT("") };
    struct name_table *t;
    unsigned capacity = 0;

    if (!is_needed(l) && !cf->config->explaining)
        return NULL;
    t = ARENA_NEW(cf->arena, struct name_table);
    table_init(&t->exact, cf->arena);
    table_init(&t->head, cf->arena);
    table_init(&t->tail, cf->arena);
    for (unsigned i = 0; i < l->server_count; i++) {
        struct server *s = l->servers[i];

        if (s->name_count == 0)
            add_to_table(cf, l, t, s, &nameless, &capacity);
        for (unsigned k = 0; k < s->name_count; k++)
            add_to_table(cf, l, t, s, &s->names[k], &capacity);
    }
    return t;
}

/* The choice --------------------------------------------------------------------------------- */

/* The longest ".example.com" that the host ends with, some label before it; *name is that. */
static struct server *find_head(const struct name_table *t, struct str host, struct str *name)
{
    size_t i = host.len > t->head_max ? host.len - t->head_max : 1;

    for (; t->head_max > 0 && i < host.len; i++) {
        struct server *s;

        if (host.ptr[i] == '.' && (s = table_get(&t->head, str_skip(host, i))) != NULL) {
            *name = str_skip(host, i);
            return s;
        }
    }
    return NULL;
}

/* The longest "www.example." that the host begins with, something behind it; *name is that. */
static struct server *find_tail(const struct name_table *t, struct str host, struct str *name)
{
    size_t i = MIN(host.len, t->tail_max + 1);

    while (t->tail_max > 0 && i-- > 1) {
        struct server *s;

        if (host.ptr[i - 1] == '.' && (s = table_get(&t->tail, str_from(host.ptr, i))) != NULL) {
            *name = str_from(host.ptr, i);
            return s;
        }
    }
    return NULL;
}

static struct server *find_regex(const struct name_table *t, struct str host, struct eval *e,
                                 struct regex_match *match, struct str *name)
{
    for (unsigned i = 0; i < t->regex_count; i++) {
        const struct server_name *n = t->regexes[i].name;
        int rc = regex_exec(n->regex, host, match);

        if (rc < 0)
            log_alert(e != NULL ? e->log : log_main, 0, "%s on \"%.*s\" using \"%.*s\"",
                      regex_error(), STR_ARG(host), STR_ARG(n->name));
        if (rc <= 0)
            continue;
        if (e != NULL) {
            e->match = match;
            e->match_subject = host;
            if (n->captures != NULL)
                http_store_captures(e, n->captures, match, host);
        }
        *name = n->name;
        return t->regexes[i].server;
    }
    return NULL;
}

/* NULL: no name fits. */
static struct server *find(const struct name_table *t, struct str host, struct eval *e,
                           struct regex_match *match, struct str *name)
{
    struct server *s;

    *name = host;
    if ((s = table_get(&t->exact, host)) != NULL || host.len == 0 ||
        (s = find_head(t, host, name)) != NULL || (s = find_tail(t, host, name)) != NULL)
        return s;
    return find_regex(t, host, e, match, name);
}

struct server *http_server_find(struct http_listen *l, struct str host, struct eval *e,
                                struct regex_match *match)
{
    struct str name;
    struct server *s = l->names != NULL ? find(l->names, host, e, match, &name) : NULL;

    return s != NULL ? s : l->default_server;
}

struct server *http_server_reason(struct http_listen *l, struct str host, struct str *name)
{
    struct regex_match match;
    struct server *s = l->names != NULL ? find(l->names, host, NULL, &match, name) : NULL;

    if (s != NULL)
        return s;
    *name = STR_NULL;
    return l->default_server;
}
