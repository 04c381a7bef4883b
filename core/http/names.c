/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Server names: the directive, the table of all names of a listening address, and the choice of a
 * server for a host. Exact names and wildcards are looked up by hash, so the cost does not grow
 * with their number; regexes are tried in the order of the file after those. Called while the file
 * is read and, for each request, by the protocol drivers.
 */
#include <unistd.h>

#include "core/http/hostnames.h"
#include "core/http/http_config.h"

#define HOSTNAME_ROOM 256

struct regex_name {
    const struct server_name *name;
    struct server *server;
};

struct name_table {
    struct hostnames names; /* -> struct server * */
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

static void add_to_table(struct conf *cf, struct http_listen *l, struct name_table *t,
                         struct server *server, const struct server_name *n, unsigned *capacity)
{
    if (n->regex != NULL) {
        t->regexes =
            arena_grow(cf->arena, t->regexes, t->regex_count, capacity, sizeof(*t->regexes));
        t->regexes[t->regex_count++] = (struct regex_name){ n, server };
        return;
    }
    switch (hostnames_add(&t->names, n->name, server)) {
    case HOSTNAMES_INVALID:
        conf_error_at(cf, server->pos, "invalid server name or wildcard \"%.*s\" on %.*s",
                      STR_ARG(n->name), STR_ARG(l->text));
        break;
    case HOSTNAMES_CONFLICT:
        /* Another's already, or the server's own, given twice. */
        cf->config->warnings++;
        log_warn(cf->log, 0, "conflicting server name \"%.*s\" on %.*s, ignored", STR_ARG(n->name),
                 STR_ARG(l->text));
        break;
    case HOSTNAMES_FINE:
        break;
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
    hostnames_init(&t->names, cf->arena);
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
    struct server *s = hostnames_find(&t->names, host, name);

    return s != NULL || host.len == 0 ? s : find_regex(t, host, e, match, name);
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
