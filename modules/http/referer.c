/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * valid_referers: $invalid_referer is empty where the Referer field names a page that may point here,
 * else "1". Hosts are looked up in a hash, then regular expressions are tried.
 */
#include "core/http/hostnames.h"
#include "core/http/req.h"

/* configure: switch=http_referer_module default=on */

#define HOST_MAX 256
/* What is shorter cannot be a URL with a scheme: "http://i.ru". */
#define URL_MIN 11

static unsigned referer_slot;

struct referers {
    struct hostnames hosts;  /* -> struct str *: what the path must begin with */
    struct regex **regexes;  /* on what follows the scheme */
    unsigned regex_count, regex_capacity;
    bool none, blocked, server_names, finished;
    const struct server *server; /* with server_names: its regexes count too */
    struct conf_pos pos;
};

struct referer_conf {
    struct referers *referers; /* NULL: everything is valid */
    int64_t hash_sizes[2];
};

static struct str any_path = STR_INIT("");

/* The variable ------------------------------------------------------------------------------------ */

static bool matches(struct eval *e, const struct regex *re, struct str text)
{
    int rc = regex_exec(re, text, NULL);

    if (rc < 0)
        log_alert(e->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(), STR_ARG(text),
                  STR_ARG(regex_pattern(re)));
    return rc > 0;
}

static bool matches_server(struct eval *e, const struct server *s, struct str host)
{
    for (unsigned i = 0; s != NULL && i < s->name_count; i++) {
        if (s->names[i].regex != NULL && matches(e, s->names[i].regex, host))
            return true;
    }
    return false;
}

/* rest: what follows the scheme. */
static bool is_valid_url(struct eval *e, const struct referers *refs, struct str rest)
{
    char lower[HOST_MAX];
    size_t n = 0;
    struct str host, found;
    const struct str *path;

    while (n < rest.len && rest.ptr[n] != '/' && rest.ptr[n] != ':') {
        if (n == sizeof(lower))
            return false;
        lower[n] = (char) ascii_lower((unsigned char) rest.ptr[n]);
        n++;
    }
    host = str_from(lower, n);
    path = hostnames_find(&refs->hosts, host, &found);
    if (path != NULL) {
        while (n < rest.len && rest.ptr[n] != '/')
            n++;
        return str_starts(str_skip(rest, n), *path);
    }
    if (matches_server(e, refs->server, host))
        return true;
    for (unsigned i = 0; i < refs->regex_count; i++) {
        if (matches(e, refs->regexes[i], rest))
            return true;
    }
    return false;
}

static bool is_valid(struct eval *e, const struct referers *refs)
{
    const struct field *f;

    if (refs == NULL)
        return true;
    f = fields_get(&req_of(e)->in->fields, T_REFERER);
    if (f == NULL)
        return refs->none;
    if (f->value.len >= URL_MIN && str_casestarts(f->value, STR("http://")))
        return is_valid_url(e, refs, str_skip(f->value, 7));
    if (f->value.len >= URL_MIN && str_casestarts(f->value, STR("https://")))
        return is_valid_url(e, refs, str_skip(f->value, 8));
    return refs->blocked;
}

static bool get_invalid_referer(struct eval *e, const struct var *v, struct str *out)
{
    const struct referer_conf *conf = req_loc_conf(req_of(e), referer_slot);

    (void) v;
    *out = is_valid(e, conf->referers) ? STR("") : STR("1");
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

static const char *add_host(struct conf *cf, struct referers *refs, struct str host,
                            struct str *path)
{
    switch (hostnames_add(&refs->hosts, str_lower(cf->arena, host), path)) {
    case HOSTNAMES_INVALID:
        return conf_error(cf, "invalid hostname or wildcard \"%.*s\"", STR_ARG(host));
    case HOSTNAMES_CONFLICT:
        return conf_error(cf, "conflicting parameter \"%.*s\"", STR_ARG(host));
    case HOSTNAMES_FINE:
        break;
    }
    return NULL;
}

static const char *add_regex(struct conf *cf, struct referers *refs, unsigned arg)
{
    struct str pattern = str_skip(cf->args[arg], 1), error;
    struct regex *re;

    if (pattern.len == 0)
        return conf_error_arg(cf, arg, "empty regex in \"%s\"", cf->args[arg].ptr);
    re = regex_compile(cf->arena, pattern, true, &error);
    if (re == NULL)
        return conf_error_arg(cf, arg, "%.*s", STR_ARG(error));
    refs->regexes = arena_grow(cf->arena, refs->regexes, refs->regex_count, &refs->regex_capacity,
                               sizeof(*refs->regexes));
    refs->regexes[refs->regex_count++] = re;
    return NULL;
}

static const char *add_referer(struct conf *cf, struct referers *refs, unsigned arg)
{
    struct str host = cf->args[arg], *path = &any_path;
    ssize_t slash = str_chr(host, '/');
    const char *error;

    if (slash >= 0) {
        path = ARENA_NEW(cf->arena, struct str);
        *path = str_dup(cf->arena, str_skip(host, (size_t) slash));
        host.len = (size_t) slash;
    }
    error = add_host(cf, refs, host, path);
    return error != NULL ? conf_error_arg(cf, arg, "%s", error) : NULL;
}

static const char *set_valid_referers(struct conf *cf, void *field)
{
    struct referers **at = field, *refs = *at;

    if (refs == NULL) {
        refs = *at = ARENA_NEW(cf->arena, struct referers);
        hostnames_init(&refs->hosts, cf->arena);
        refs->pos = cf->pos;
    }
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str arg = cf->args[i];
        const char *error = NULL;

        if (arg.len == 0)
            return conf_error_arg(cf, i, "invalid referer \"\"");
        if (str_eq(arg, STR("none")))
            refs->none = true;
        else if (str_eq(arg, STR("blocked")))
            refs->blocked = true;
        else if (str_eq(arg, STR("server_names")))
            refs->server_names = true;
        else if (arg.ptr[0] == '~')
            error = add_regex(cf, refs, i);
        else
            error = add_referer(cf, refs, i);
        if (error != NULL)
            return error;
    }
    return NULL;
}

static void add_server_names(struct conf *cf, struct referers *refs, const struct level *level)
{
    while (level->context != CTX_SERVER)
        level = level->parent;
    refs->server = level->object;
    for (unsigned i = 0; i < refs->server->name_count; i++) {
        const struct server_name *name = &refs->server->names[i];
        const char *error = NULL;

        if (name->regex == NULL)
            error = add_host(cf, refs, name->name, &any_path);
        if (error != NULL)
            conf_error_at(cf, refs->pos, "%s", error);
    }
}

/* The names of the server are known only now. */
static int referer_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct referers *refs = ((struct referer_conf *) level_conf(level, STORE_LOC, referer_slot))->referers;
    unsigned errors = cf->config->errors;

    (void) parent;
    if (refs == NULL || refs->finished)
        return 0;
    refs->finished = true;
    if (refs->server_names)
        add_server_names(cf, refs, level);
    /* Regexes alone do not count: so it is in nginx. */
    if ((refs->none || refs->blocked) && hostnames_empty(&refs->hosts)
        && (refs->server == NULL || refs->server->name_count > 0))
        conf_error_at(cf, refs->pos,
                      "the \"none\" or \"blocked\" referers are specified in the "
                      "\"valid_referers\" directive without any valid referer");
    return cf->config->errors != errors ? -1 : 0;
}

static const struct var_row variables[] = {
    { "invalid_referer", get_invalid_referer, NULL, 0, VAR_CHANGEABLE },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct directive directives[] = {
    ROW("valid_referers", CTX_SERVER | CTX_LOCATION, ARGS1_MORE | ARG_REPEAT, set_valid_referers,
        STORE_LOC, struct referer_conf, referers, INHERIT_WHOLE, NULL,
        "none | blocked | server_names | string ...",
        "The values of Referer for which $invalid_referer is empty."),
    ROW("referer_hash_max_size", CTX_SERVER | CTX_LOCATION, ARGS1, conf_set_num, STORE_LOC,
        struct referer_conf, hash_sizes[0], INHERIT_SCALAR, "2048", "size",
        "Table of valid_referers. Accepted; tables here grow by themselves."),
    ROW("referer_hash_bucket_size", CTX_SERVER | CTX_LOCATION, ARGS1, conf_set_num, STORE_LOC,
        struct referer_conf, hash_sizes[1], INHERIT_SCALAR, "64", "size",
        "Table of valid_referers. Accepted; tables here grow by themselves."),
    ROW_END,
};

static const struct http_module http_referer = { .variables = variables };

const struct module module_http_referer = {
    .name = "http_referer",
    .slot = &referer_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct referer_conf) },
    .directives = directives,
    .http = &http_referer,
    .finish = referer_finish,
};
