/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directives of the http core: rows and the setters that are not typed ones. Blocks and
 * addresses (http, server, location, listen, server_name, limit_except) are in http.c.
 */
#include "core/http/http_config.h"

#include "core/http/status.h"

static const struct conf_enum satisfy_names[] = {
    { "all", SATISFY_ALL }, { "any", SATISFY_ANY }, { NULL, 0 }
};
static const struct conf_enum ims_names[] = {
    { "off", IMS_OFF }, { "exact", IMS_EXACT }, { "before", IMS_BEFORE }, { NULL, 0 }
};
static const struct conf_enum linger_names[] = {
    { "off", LINGER_OFF }, { "on", LINGER_ON }, { "always", LINGER_ALWAYS }, { NULL, 0 }
};
static const struct conf_enum body_file_names[] = {
    { "off", BODY_FILE_OFF }, { "on", BODY_FILE_ON }, { "clean", BODY_FILE_CLEAN }, { NULL, 0 }
};
static const struct conf_enum ka_disable_names[] = {
    { "none", KA_DISABLE_NONE }, { "msie6", KA_DISABLE_MSIE6 }, { "safari", KA_DISABLE_SAFARI },
    { NULL, 0 }
};
static const struct conf_range keepalive_range = { 0, INT32_MAX };

/* keepalive_timeout TIME [HEADER_TIME] */
static const char *set_keepalive_timeout(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, keepalive_timeout_ms);

    if (str_to_ms(cf->args[1], false, &loc->keepalive_timeout_ms) != 0)
        return conf_error_arg(cf, 1, "\"keepalive_timeout\" directive invalid value");
    loc->keepalive_header_s = 0;
    if (cf->nargs == 3) {
        uint64_t ms;

        if (str_to_ms(cf->args[2], true, &ms) != 0)
            return conf_error_arg(cf, 2, "\"keepalive_timeout\" directive invalid value");
        loc->keepalive_header_s = ms / 1000;
    }
    return NULL;
}

static const char *compile(struct conf *cf, unsigned arg, struct expr **out)
{
    const char *error = NULL;

    *out = expr_compile(cf, cf->args[arg], 0, &error);
    return *out ? NULL : conf_error_arg(cf, arg, "%s", error);
}

/* root PATH: with variables in it, a relative path is completed when it is evaluated (path.c). */
static const char *set_root(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, root);
    struct str *path = &cf->args[1];

    if (conf_is_set(cf->level, cf->module, "alias"))
        return conf_error(cf, "\"root\" directive is duplicate, \"alias\" directive was specified "
                              "earlier");
    if (str_find(*path, STR("$document_root")) >= 0 || str_find(*path, STR("${document_root}")) >= 0)
        return conf_error_arg(cf, 1, "the $document_root variable cannot be used in the \"root\" "
                                     "directive");
    if (str_find(*path, STR("$realpath_root")) >= 0 || str_find(*path, STR("${realpath_root}")) >= 0)
        return conf_error_arg(cf, 1, "the $realpath_root variable cannot be used in the \"root\" "
                                     "directive");
    while (path->len > 1 && path->ptr[path->len - 1] == '/')
        path->len--;
    if (path->len == 1 && path->ptr[0] == '/')
        path->len = 0;
    else if (str_chr(*path, '$') < 0)
        *path = conf_path(cf, *path, false);
    return compile(cf, 1, &loc->root);
}

static const char *set_alias(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, alias);
    struct location *at = conf_location(cf);

    if (conf_is_set(cf->level, cf->module, "root"))
        return conf_error(cf, "\"alias\" directive is duplicate, \"root\" directive was specified "
                              "earlier");
    if (at == NULL || at->kind == LOC_NAMED)
        return conf_error(cf, "the \"alias\" directive cannot be used inside the named location");
    if (str_chr(cf->args[1], '$') < 0)
        cf->args[1] = conf_path(cf, cf->args[1], false);
    loc->alias_prefix = at->kind == LOC_REGEX ? 0 : at->name.len;
    loc->alias_regex = at->kind == LOC_REGEX;
    return compile(cf, 1, &loc->alias);
}

/* types { text/html html htm; }: a type may stand there without any. */
static const char *types_line(struct conf *cf, void *data)
{
    struct types_table *types = data;
    struct str *type = ARENA_NEW(cf->arena, struct str);

    *type = str_dup(cf->arena, cf->args[0]);
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str ext = str_lower(cf->arena, cf->args[i]);
        const struct str *old = table_put(&types->by_ext, ext, type);

        if (old != NULL && !str_eq(*old, *type))
            conf_warn_at(cf, cf->pos,
                         "duplicate extension \"%.*s\", content type: \"%.*s\", previous content "
                         "type: \"%.*s\"",
                         STR_ARG(ext), STR_ARG(*type), STR_ARG(*old));
    }
    return NULL;
}

static const char *set_types(struct conf *cf, void *field)
{
    struct types_table **types = field;

    if (*types == NULL) {
        *types = ARENA_NEW(cf->arena, struct types_table);
        table_init(&(*types)->by_ext, cf->arena);
    }
    return conf_lines(cf, types_line, *types);
}

/* error_page CODE … [=[CODE]] URI */
static const char *set_error_page(struct conf *cf, void *field)
{
    struct error_pages *pages = field;
    struct error_page page = { .overwrite = -1, .pos = cf->pos };
    unsigned last = cf->nargs - 1, codes = last - 1;
    const char *error;

    if (cf->args[last - 1].len > 0 && cf->args[last - 1].ptr[0] == '=') {
        struct str value = str_skip(cf->args[last - 1], 1);
        uint64_t n = 0;

        if (last - 1 == 1 || (value.len > 0 && str_to_u64(value, &n) != 0))
            return conf_error_arg(cf, last - 1, "invalid value \"%.*s\"",
                                  STR_ARG(cf->args[last - 1]));
        page.overwrite = (int) n;
        codes--;
    }
    page.codes = ARENA_ARRAY(cf->arena, unsigned, codes);
    page.code_count = codes;
    for (unsigned i = 0; i < codes; i++) {
        uint64_t code;

        if (str_to_u64(cf->args[i + 1], &code) != 0)
            return conf_error_arg(cf, i + 1, "invalid value \"%.*s\"", STR_ARG(cf->args[i + 1]));
        if (code == 499)
            return conf_error_arg(cf, i + 1, "invalid value \"499\"");
        if (code < 300 || code > 599)
            return conf_error_arg(cf, i + 1, "value \"%.*s\" must be between 300 and 599",
                                  STR_ARG(cf->args[i + 1]));
        page.codes[i] = (unsigned) code;
        /* The client of a plain request on a TLS port is redirected unless told otherwise. */
        if (page.overwrite < 0 && (code == 494 || code == 495 || code == 496 || code == 497))
            page.overwrite = 400;
    }
    error = compile(cf, last, &page.uri);
    if (error != NULL)
        return error;
    pages->items = arena_grow(cf->arena, pages->items, pages->count, &pages->capacity,
                              sizeof(*pages->items));
    pages->items[pages->count++] = page;
    return NULL;
}

static const char *set_server_tokens(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, server_tokens);
    struct str v = cf->args[1];

    if (str_eq(v, STR("on")))
        loc->server_tokens = TOKENS_ON;
    else if (str_eq(v, STR("off")))
        loc->server_tokens = TOKENS_OFF;
    else if (str_eq(v, STR("build")))
        loc->server_tokens = TOKENS_BUILD;
    else {
        loc->server_tokens = TOKENS_STRING;
        return compile(cf, 1, &loc->server_tokens_text);
    }
    return NULL;
}

static const char *set_aio(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, aio);
    struct str v = cf->args[1];

    if (str_eq(v, STR("off"))) {
        loc->aio = AIO_OFF;
    } else if (str_eq(v, STR("on"))) {
        loc->aio = AIO_ON;
    } else if (str_starts(v, STR("threads"))) {
        struct str name = STR("default");

        if (v.len > 7) {
            if (v.ptr[7] != '=' || v.len == 8)
                return conf_error_arg(cf, 1, "invalid value \"%.*s\"", STR_ARG(v));
            name = str_skip(v, 8);
        }
        loc->aio = AIO_THREADS;
        loc->aio_pool = res_pool(cf->config, str_dup(cf->arena, name), cf->pos);
    } else {
        return conf_error_arg(cf, 1, "\"aio\" directive invalid value");
    }
    return NULL;
}

static const char *set_directio(struct conf *cf, void *field)
{
    uint64_t *value = field;

    if (str_eq(cf->args[1], STR("off"))) {
        *value = UINT64_MAX;
        return NULL;
    }
    if (str_to_size(cf->args[1], value) != 0)
        return conf_error_arg(cf, 1, "\"directio\" directive invalid value");
    return NULL;
}

/* off | on [from=PART] | if_not_owner [from=PART] */
static const char *set_disable_symlinks(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, disable_symlinks);
    bool mode = false;

    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str v = cf->args[i];

        if (str_eq(v, STR("off")) && cf->nargs == 2) {
            loc->disable_symlinks = SYMLINKS_ALLOWED;
            mode = true;
        } else if (str_eq(v, STR("on"))) {
            loc->disable_symlinks = SYMLINKS_REFUSED;
            mode = true;
        } else if (str_eq(v, STR("if_not_owner"))) {
            loc->disable_symlinks = SYMLINKS_SAME_OWNER;
            mode = true;
        } else if (str_starts(v, STR("from="))) {
            const char *error = NULL;

            loc->disable_symlinks_from = expr_compile(cf, str_skip(v, 5), EXPR_PREFIX, &error);
            if (error != NULL)
                return conf_error_arg(cf, i, "%s", error);
        } else {
            return conf_error_arg(cf, i, "invalid parameter \"%.*s\"", STR_ARG(v));
        }
    }
    if (!mode)
        return conf_error(cf, "\"disable_symlinks\" directive requires \"off\", \"on\", or "
                              "\"if_not_owner\" parameter");
    return NULL;
}

/* off | max=N [inactive=TIME] */
static const char *set_open_file_cache(struct conf *cf, void *field)
{
    struct open_file_cache_conf *c = field;

    c->inactive_s = 60;
    for (unsigned i = 1; i < cf->nargs; i++) {
        struct str v = cf->args[i];
        uint64_t n;

        if (str_eq(v, STR("off")) && cf->nargs == 2) {
            c->on = false;
            return NULL;
        }
        if (str_starts(v, STR("max=")) && str_to_u64(str_skip(v, 4), &n) == 0 && n > 0) {
            c->max = (unsigned) MIN(n, UINT32_MAX);
            c->on = true;
        } else if (str_starts(v, STR("inactive=")) && str_to_ms(str_skip(v, 9), true, &n) == 0) {
            c->inactive_s = n / 1000;
        } else {
            return conf_error_arg(cf, i, "invalid \"open_file_cache\" parameter \"%.*s\"",
                                  STR_ARG(v));
        }
    }
    if (!c->on)
        return conf_error(cf, "\"open_file_cache\" must have the \"max\" parameter");
    return NULL;
}

/* resolver ADDRESS … [valid=TIME] [ipv4=on|off] [ipv6=on|off] [status_zone=ZONE] */
static const char *resolver_parameter(struct conf *cf, unsigned arg, struct resolver_spec *spec,
                                      bool *known)
{
    struct str v = cf->args[arg];

    *known = true;
    if (str_starts(v, STR("valid="))) {
        if (str_to_ms(str_skip(v, 6), true, &spec->valid_ms) != 0)
            return conf_error_arg(cf, arg, "invalid parameter: %.*s", STR_ARG(v));
    } else if (str_starts(v, STR("ipv4=")) || str_starts(v, STR("ipv6="))) {
        bool *flag = v.ptr[3] == '4' ? &spec->ipv4 : &spec->ipv6;
        struct str value = str_skip(v, 5);

        if (!str_eq(value, STR("on")) && !str_eq(value, STR("off")))
            return conf_error_arg(cf, arg, "invalid parameter: %.*s", STR_ARG(v));
        *flag = str_eq(value, STR("on"));
    } else if (str_starts(v, STR("status_zone="))) {
        struct str name = str_skip(v, strlen("status_zone="));

        if (name.len == 0)
            return conf_error_arg(cf, arg, "invalid parameter: %.*s", STR_ARG(v));
        spec->counts = &counters_define(cf, &resolver_kind, name)->mine;
    } else {
        *known = false;
    }
    return NULL;
}

const char *conf_set_resolver(struct conf *cf, void *field)
{
    struct resolver_spec **out = field, *spec = ARENA_NEW(cf->arena, struct resolver_spec);
    unsigned capacity = 0;

    spec->ipv4 = spec->ipv6 = true;
    for (unsigned i = 1; i < cf->nargs; i++) {
        bool known;
        struct addr *found;
        struct addr numeric;
        const char *error = resolver_parameter(cf, i, spec, &known);
        int n = 1;

        if (error != NULL)
            return error;
        if (known)
            continue;
        found = &numeric;
        if (addr_parse(&numeric, cf->args[i], 53, false) != 0) {
            n = addr_resolve(cf->arena, cf->args[i], 53, &found, &error);
            if (n < 0)
                return conf_error_arg(cf, i, "%s in resolver \"%.*s\"", error,
                                      STR_ARG(cf->args[i]));
        }
        for (int k = 0; k < n; k++) {
            spec->servers = arena_grow(cf->arena, spec->servers, spec->server_count, &capacity,
                                       sizeof(*spec->servers));
            spec->servers[spec->server_count++] = found[k];
        }
    }
    if (spec->server_count == 0)
        return conf_error(cf, "no name servers defined");
    if (!spec->ipv4 && !spec->ipv6)
        return conf_error(cf, "\"ipv4\" and \"ipv6\" cannot both be \"off\"");
    *out = spec;
    return NULL;
}

static const char *set_resolver(struct conf *cf, void *field)
{
    struct core_loc *loc = container_of(field, struct core_loc, resolver);

    loc->resolver_instance = ARENA_NEW(cf->arena, struct resolver *);
    return conf_set_resolver(cf, &loc->resolver);
}

/* error_log FILE [LEVEL]: an inner scope replaces the outer; several lines on a level add up. */
static const char *set_error_log(struct conf *cf, void *field)
{
    struct log_scope **scope = field;
    struct log_target *target = ARENA_NEW(cf->arena, struct log_target);
    const char *error = NULL;
    int level = LOG_ERROR_LEVEL;

    if (cf->nargs > 2 && (level = log_level_parse(cf->args[2])) < 0)
        return conf_error_arg(cf, 2, "invalid log level \"%.*s\"", STR_ARG(cf->args[2]));
    target->file = res_log_file(cf, cf->args[1], &error);
    if (target->file == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    target->level = (enum log_level) level;
    if (*scope == NULL)
        *scope = ARENA_NEW(cf->arena, struct log_scope);
    target->next = (*scope)->targets;
    (*scope)->targets = target;
    (*scope)->max = MAX((*scope)->max, target->level);
    return NULL;
}

static const char *set_internal(struct conf *cf, void *field)
{
    bool *flag = field;

    (void) cf;
    *flag = true;
    return NULL;
}

#define LOC_ROW(name, ctx, args, set, member, def, syntax, doc, ...) \
    ROW(name, ctx, args, set, STORE_LOC, struct core_loc, member, INHERIT_SCALAR, def, syntax, doc, __VA_ARGS__)
#define SRV_ROW(name, args, set, member, def, syntax, doc) \
    ROW(name, CTX_HTTP | CTX_SERVER, args, set, STORE_SRV, struct core_srv, member, INHERIT_SCALAR, \
        def, syntax, doc)
#define LOC_FLAG(name, member, def, doc) \
    LOC_ROW(name, CTX_HSL, ARG_FLAG, conf_set_flag, member, def, "on | off", doc)
#define LOC_TIME(name, member, def, doc) \
    LOC_ROW(name, CTX_HSL, ARGS1, conf_set_ms, member, def, "time", doc)
#define HASH_ROW(name, ctx, n, doc) \
    ROW(name, ctx, ARGS1, conf_set_num, STORE_MAIN, struct core_main, hash_sizes[n], \
        INHERIT_SCALAR, NULL, "size", doc " Accepted; tables here grow by themselves.")

/*
 * Further members that a directive's setter writes travel with it: hidden rows of the same group. Such
 * setters reach the structure from the row's own member.
 */
#define WITH(what_, member_, group_) \
    { .name = "." what_, .store = STORE_LOC, .offset = offsetof(struct core_loc, member_), \
      .size = sizeof(((struct core_loc *) 0)->member_), .inherit = INHERIT_SCALAR, .group = (group_) }

enum { GROUP_NONE, GROUP_ROOT, GROUP_TOKENS, GROUP_AIO, GROUP_SYMLINKS, GROUP_RESOLVER, GROUP_KEEPALIVE };

const struct directive http_core_directives[] = {
    ROW_CALL("http", CTX_MAIN, ARGS0 | ARG_BLOCK, set_http_block, STORE_MAIN, "{ ... }",
             "Holds the configuration of all HTTP servers."),
    ROW_CALL("server", CTX_HTTP, ARGS0 | ARG_BLOCK | ARG_REPEAT, set_server_block, STORE_SRV,
             "{ ... }", "Sets the configuration of a virtual server."),
    ROW_CALL("location", CTX_SERVER | CTX_LOCATION, ARGS12 | ARG_BLOCK | ARG_REPEAT,
             set_location_block, STORE_LOC, "[ = | ~ | ~* | ^~ ] uri | @name { ... }",
             "Sets the configuration for requests whose URI matches."),
    ROW_CALL("limit_except", CTX_LOCATION, ARGS1_MORE | ARG_BLOCK, set_limit_except_block,
             STORE_LOC, "method ... { ... }", "Settings for methods other than the listed ones."),
    ROW_CALL("listen", CTX_SERVER, ARGS1_MORE | ARG_REPEAT, set_listen, STORE_SRV,
             "address[:port] | port | unix:path [parameter ...]",
             "An address and port, or a unix socket, on which the server takes requests."),
    ROW_CALL("server_name", CTX_SERVER, ARGS1_MORE | ARG_REPEAT, set_server_name, STORE_SRV,
             "name ...", "Names of a virtual server: exact, wildcard, or ~regex."),

    LOC_ROW("root", CTX_HSLI, ARGS1, set_root, root, "html", "path",
             "Directory under which files are looked up.", .group = GROUP_ROOT),
    LOC_ROW("alias", CTX_LOCATION, ARGS1, set_alias, alias, NULL, "path",
             "Replaces the location's part of the URI by a path.", .group = GROUP_ROOT),
    WITH("alias_prefix", alias_prefix, GROUP_ROOT), WITH("alias_regex", alias_regex, GROUP_ROOT),
    LOC_ROW("types", CTX_HSL, ARGS0 | ARG_BLOCK | ARG_REPEAT, set_types, types, NULL, "{ ... }",
            "Maps file name extensions to media types."),
    LOC_ROW("default_type", CTX_HSL, ARGS1, conf_set_str, default_type, "text/plain", "mime-type",
            "Media type of responses whose extension is not mapped."),
    ROW("error_page", CTX_HSLI, ARGS2_MORE | ARG_REPEAT, set_error_page, STORE_LOC, struct core_loc,
        error_page, INHERIT_WHOLE, NULL, "code ... [=[response]] uri",
        "The URI shown for the given error codes."),
    ROW("error_log", CTX_HSL, ARGS12 | ARG_REPEAT, set_error_log, STORE_LOC, struct core_loc,
        error_log, INHERIT_WHOLE, NULL, "file [level]", "Where errors of this scope are logged."),
    LOC_ROW("server_tokens", CTX_HSL, ARGS1, set_server_tokens, server_tokens, "on", "on | off | build | string",
             "What the Server field and error pages say.", .group = GROUP_TOKENS),
    WITH("server_tokens_text", server_tokens_text, GROUP_TOKENS),
    LOC_ROW("internal", CTX_LOCATION, ARGS0, set_internal, internal, NULL, "",
            "The location answers internal requests only; others get 404."),
    LOC_ROW("satisfy", CTX_HSL, ARGS1, conf_set_enum, satisfy, "all", "all | any",
            "Whether all or any of the access modules must allow a request.",
            .extra = satisfy_names),
    LOC_TIME("auth_delay", auth_delay_ms, "0s",
             "Delays 401 answers of the access phase, against guessing by time."),

    /* request bodies */
    LOC_ROW("client_max_body_size", CTX_HSL, ARGS1, conf_set_off, client_max_body_size, "1m", "size",
            "Largest request body; 413 above it, 0 for no limit."),
    LOC_ROW("client_body_buffer_size", CTX_HSL, ARGS1, conf_set_size, client_body_buffer_size, "16k",
            "size", "How much of a request body is kept in memory."),
    LOC_TIME("client_body_timeout", client_body_timeout_ms, "60s",
             "Longest pause between two reads of a request body."),
    LOC_ROW("client_body_temp_path", CTX_HSL, ARGS1 | ARGS2 | ARGS3 | ARGS4, conf_set_path,
            client_body_temp_path, PROXYD_CLIENT_BODY_TEMP_PATH, "path [level1 [level2 [level3]]]",
            "Directory for request bodies that do not fit in memory."),
    LOC_ROW("client_body_in_file_only", CTX_HSL, ARGS1, conf_set_enum, client_body_in_file_only,
            "off", "on | clean | off", "Saves the whole request body to a file.",
            .extra = body_file_names),
    LOC_FLAG("client_body_in_single_buffer", client_body_in_single_buffer, "off",
             "Accepted; $request_body makes one piece of the body when it is asked for."),

    /* request heads */
    SRV_ROW("client_header_timeout", ARGS1, conf_set_ms, client_header_timeout_ms, "60s", "time",
            "How long a client may take to send a request head."),
    SRV_ROW("client_header_buffer_size", ARGS1, conf_set_size, client_header_buffer_size, "1k", "size",
            "First buffer for a request head."),
    SRV_ROW("large_client_header_buffers", ARGS2, conf_set_bufs, large_client_header_buffers, "4 8k",
            "number size", "Bounds of a request head: one line in one buffer, all in that many."),
    SRV_ROW("max_headers", ARGS1, conf_set_num, max_headers, "1000", "number",
            "Most field lines in a request head."),
    SRV_ROW("connection_pool_size", ARGS1, conf_set_size, connection_pool_size, "512", "size",
            "Accepted; memory is pooled across connections."),
    SRV_ROW("request_pool_size", ARGS1, conf_set_size, request_pool_size, "4k", "size",
            "Accepted; request memory comes in recycled blocks."),
    SRV_ROW("ignore_invalid_headers", ARG_FLAG, conf_set_flag, ignore_invalid_headers, "on",
            "on | off", "Skips fields with invalid names instead of refusing the request."),
    SRV_ROW("underscores_in_headers", ARG_FLAG, conf_set_flag, underscores_in_headers, "off",
            "on | off", "Allows underscores in field names."),
    SRV_ROW("merge_slashes", ARG_FLAG, conf_set_flag, merge_slashes, "on", "on | off",
            "Makes one slash of several adjacent ones in the URI."),

    /* the connection */
    LOC_ROW("keepalive_timeout", CTX_HSL, ARGS12, set_keepalive_timeout, keepalive_timeout_ms, "75s", "timeout [header_timeout]",
             "How long an idle connection stays open; 0 closes after each answer.", .group = GROUP_KEEPALIVE),
    WITH("keepalive_header", keepalive_header_s, GROUP_KEEPALIVE),
    LOC_ROW("keepalive_requests", CTX_HSL, ARGS1, conf_set_num, keepalive_requests, "1000", "number",
            "Most requests over one connection.", .extra = &keepalive_range),
    LOC_TIME("keepalive_time", keepalive_time_ms, "1h", "Longest life of a kept-alive connection."),
    LOC_TIME("keepalive_min_timeout", keepalive_min_timeout_ms, "0",
             "Shortest time an idle connection is kept during a graceful shutdown."),
    LOC_ROW("keepalive_disable", CTX_HSL, ARGS1_MORE | ARG_REPEAT, conf_set_bits, keepalive_disable, "msie6",
            "none | browser ...", "Browsers with which connections are not kept alive.",
            .extra = ka_disable_names),
    LOC_ROW("lingering_close", CTX_HSL, ARGS1, conf_set_enum, lingering_close, "on",
            "off | on | always", "Whether data still sent by the client is awaited when closing.",
            .extra = linger_names),
    LOC_TIME("lingering_time", lingering_time_ms, "30s", "Longest lingering close."),
    LOC_TIME("lingering_timeout", lingering_timeout_ms, "5s", "Longest pause while lingering."),
    LOC_TIME("send_timeout", send_timeout_ms, "60s", "Longest pause between two writes."),
    LOC_FLAG("reset_timedout_connection", reset_timedout_connection, "off",
             "Closes connections that timed out with RST."),
    LOC_FLAG("tcp_nodelay", tcp_nodelay, "on", "TCP_NODELAY on connections."),
    LOC_FLAG("tcp_nopush", tcp_nopush, "off", "Accepted; a head and the start of a file always go together."),
    LOC_ROW("send_lowat", CTX_HSL, ARGS1, conf_set_size, send_lowat, "0", "size",
            "Accepted; has no effect on Linux."),
    LOC_ROW("postpone_output", CTX_HSL, ARGS1, conf_set_size, postpone_output, "1460", "size",
            "Least output that is written before the answer ends."),
    ROW("limit_rate", CTX_HSLI, ARGS1, conf_set_expr_size, STORE_LOC, struct core_loc, limit_rate,
        INHERIT_SCALAR, "0", "rate", "Bytes a second sent to a client."),
    ROW("limit_rate_after", CTX_HSLI, ARGS1, conf_set_expr_size, STORE_LOC, struct core_loc,
        limit_rate_after, INHERIT_SCALAR, "0", "size", "Bytes sent before limit_rate applies."),

    /* files */
    LOC_ROW("sendfile", CTX_HSLI, ARG_FLAG, conf_set_flag, sendfile, "off", "on | off",
            "Sends files with sendfile()."),
    LOC_ROW("sendfile_max_chunk", CTX_HSL, ARGS1, conf_set_off, sendfile_max_chunk, "2m", "size",
            "Most that one sendfile() call sends."),
    LOC_ROW("output_buffers", CTX_HSL, ARGS2, conf_set_bufs, output_buffers, "2 32k", "number size",
            "Buffers for reading a file."),
    LOC_ROW("read_ahead", CTX_HSL, ARGS1, conf_set_size, read_ahead, "0", "size",
            "Accepted; the kernel decides how far it reads ahead."),
    LOC_ROW("aio", CTX_HSL, ARGS1, set_aio, aio, "off", "on | off | threads[=pool]",
             "Reads files without blocking the worker.", .group = GROUP_AIO),
    WITH("aio_pool", aio_pool, GROUP_AIO),
    LOC_FLAG("aio_write", aio_write, "off", "Accepted; temporary files are written by the worker itself."),
    LOC_ROW("directio", CTX_HSL, ARGS1, set_directio, directio, "off", "size | off",
            "Reads files of at least that size past the page cache."),
    LOC_ROW("directio_alignment", CTX_HSL, ARGS1, conf_set_off, directio_alignment, "512", "size",
            "Accepted; direct reads are aligned to 4096 bytes, which every file system takes."),
    LOC_ROW("disable_symlinks", CTX_HSL, ARGS12, set_disable_symlinks, disable_symlinks, "off", "off | on | if_not_owner [from=part]",
             "How symbolic links are treated in paths.", .group = GROUP_SYMLINKS),
    WITH("disable_symlinks_from", disable_symlinks_from, GROUP_SYMLINKS),
    ROW("open_file_cache", CTX_HSL, ARGS12, set_open_file_cache, STORE_LOC, struct core_loc,
        open_file_cache, INHERIT_SCALAR, "off", "off | max=N [inactive=time]",
        "Keeps descriptors, sizes and times of files."),
    LOC_ROW("open_file_cache_valid", CTX_HSL, ARGS1, conf_set_sec, open_file_cache_valid_s, "60s", "time",
            "Age at which a cached file is checked again."),
    LOC_ROW("open_file_cache_min_uses", CTX_HSL, ARGS1, conf_set_num, open_file_cache_min_uses, "1",
            "number", "Uses within inactive that keep a descriptor open."),
    LOC_FLAG("open_file_cache_errors", open_file_cache_errors, "off", "Caches failed look-ups too."),
    LOC_FLAG("log_not_found", log_not_found, "on", "Logs files that are not found."),
    LOC_FLAG("log_subrequest", log_subrequest, "off", "Writes subrequests to access logs."),
    LOC_ROW("if_modified_since", CTX_HSL, ARGS1, conf_set_enum, if_modified_since, "exact",
            "off | exact | before", "How If-Modified-Since is compared.", .extra = ims_names),
    LOC_ROW("max_ranges", CTX_HSL, ARGS1, conf_set_num, max_ranges, "2147483647", "number",
            "Most ranges in one request; 0 turns ranges off."),
    LOC_FLAG("etag", etag, "on", "Sends ETag for static files."),

    /* answers */
    LOC_FLAG("absolute_redirect", absolute_redirect, "on", "Makes own redirects absolute."),
    LOC_FLAG("port_in_redirect", port_in_redirect, "on", "Names the port in own redirects."),
    LOC_FLAG("server_name_in_redirect", server_name_in_redirect, "off",
             "Uses the first server_name in own redirects."),
    LOC_FLAG("recursive_error_pages", recursive_error_pages, "off",
             "Lets an error page have an error page."),
    LOC_FLAG("chunked_transfer_encoding", chunked_transfer_encoding, "on",
             "Chunked answers for HTTP/1.1."),
    LOC_FLAG("msie_padding", msie_padding, "on", "Pads built-in error pages for old browsers."),
    LOC_FLAG("msie_refresh", msie_refresh, "off", "Sends refreshes instead of redirects to MSIE."),
    LOC_ROW("subrequest_output_buffer_size", CTX_HSL, ARGS1, conf_set_size,
            subrequest_output_buffer_size, "4k", "size", "Bounds a subrequest kept in memory."),
    LOC_ROW("subrequests_limit", CTX_HSL, ARGS1, conf_set_num, subrequests_limit, "1000", "number",
            "How many subrequests one request may make (include, mirror and the like)."),
    LOC_ROW("resolver_timeout", CTX_HSL, ARGS1, conf_set_ms, resolver_timeout_ms, "30s", "time",
            "How long a name may take to resolve."),
    LOC_ROW("resolver", CTX_HSL, ARGS1_MORE, set_resolver, resolver, NULL, "address ... [valid=time] [ipv4=on|off] [ipv6=on|off] [status_zone=zone]",
             "Name servers for names met at run time.", .group = GROUP_RESOLVER),
    WITH("resolver_instance", resolver_instance, GROUP_RESOLVER),
    ROW("early_hints", CTX_HSL, ARGS1_MORE | ARG_REPEAT, conf_set_exprs, STORE_LOC, struct core_loc,
        early_hints, INHERIT_WHOLE, NULL, "string ...",
        "Passes 103 answers on where a string is neither empty nor \"0\"."),

    HASH_ROW("server_names_hash_max_size", CTX_HTTP, 0, "Table of server names."),
    HASH_ROW("server_names_hash_bucket_size", CTX_HTTP, 1, "Table of server names."),
    HASH_ROW("variables_hash_max_size", CTX_HTTP, 2, "Table of variables."),
    HASH_ROW("variables_hash_bucket_size", CTX_HTTP, 3, "Table of variables."),
    ROW("types_hash_max_size", CTX_HSL, ARGS1, conf_set_num, STORE_LOC, struct core_loc,
        types_hash_sizes[0], INHERIT_SCALAR, NULL, "size",
        "Table of types. Accepted; tables here grow by themselves."),
    ROW("types_hash_bucket_size", CTX_HSL, ARGS1, conf_set_num, STORE_LOC, struct core_loc,
        types_hash_sizes[1], INHERIT_SCALAR, NULL, "size",
        "Table of types. Accepted; tables here grow by themselves."),
    ROW_END,
};
