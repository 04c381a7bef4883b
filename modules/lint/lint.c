/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of rules, and the walk that hands each directive to those who look at it. Called by the
 * master under --lint only.
 */
#include "modules/lint/rules.h"

struct lint {
    struct config *config;
    const struct lint_rule *rule; /* the one that is judging */
    void (*say)(void *data, const struct lint_finding *finding);
    void *data;
    unsigned count;
};

static const struct lint_rule rules[] = {
    { "alias-traversal", " alias ", CTX_LOCATION, lint_alias_traversal },
    { "alias-slash", " alias ", CTX_LOCATION, lint_alias_slash },
    { "proxy-pass-slash", " proxy_pass ", CTX_LOCATION, lint_proxy_pass_slash },
    { "regex-dot", " location server_name rewrite ", CTX_HTTP_ANY, lint_regex_dot },
    { "regex-anchor", " location server_name rewrite ", CTX_HTTP_ANY, lint_regex_anchor },
    { "root-repeated", " server ", CTX_HTTP, lint_root_repeated },
    { "root-exposed", " root alias ", CTX_HTTP_ANY, lint_root_exposed },
    { "capture-without-regex", " return set add_header proxy_set_header proxy_pass alias root ",
      CTX_HTTP_ANY, lint_capture },
    { "header-lost", " add_header add_trailer proxy_set_header grpc_set_header ", CTX_HTTP_ANY,
      lint_header_lost },
    { "host-spoofing",
      " proxy_set_header grpc_set_header return rewrite root proxy_cache_key fastcgi_cache_key ",
      CTX_HTTP_ANY, lint_host_spoofing },
    { "response-splitting", " return rewrite add_header proxy_set_header ", CTX_HTTP_ANY,
      lint_splitting },
    { "merge-slashes-off", " merge_slashes ", CTX_HTTP | CTX_SERVER, lint_merge_slashes },
    { "allow-without-deny", " allow ", CTX_ANY, lint_allow },
    { "satisfy-any", " satisfy ", CTX_HTTP_ANY, lint_satisfy },
    { "status-exposed", " stub_status status api dashboard ", CTX_HTTP_ANY, lint_status },
    { "proxy-target", " proxy_pass grpc_pass ", CTX_HTTP_ANY, lint_proxy_target },
    { "tunnel-open", " tunnel_pass ", CTX_HTTP_ANY, lint_tunnel_open },
    { "tls-protocols", " ssl_protocols ", CTX_ANY, lint_protocols },
    { "listen-443", " listen ", CTX_SERVER, lint_listen_443 },
    { "if-settings", " if elif else ", CTX_LOCATION, lint_if_settings },
    { "if-try-files", " if elif else ", CTX_LOCATION, lint_if_try_files },
    { "server-name-underscore", " server_name ", CTX_SERVER, lint_server_name },
    { "resolver-missing", " proxy_pass grpc_pass ", CTX_HTTP_ANY, lint_resolver },
    { "error-page-status", " error_page ", CTX_HTTP_ANY, lint_error_page },
    { "zone-unused",
      " limit_req_zone limit_conn_zone proxy_cache_path fastcgi_cache_path uwsgi_cache_path "
      "scgi_cache_path ",
      CTX_HTTP, lint_zone_unused },
    { "try-files-proxy", " try_files ", CTX_LOCATION, lint_try_files_proxy },
};

struct arena *lint_arena(struct lint *l)
{
    return l->config->arena;
}

const struct conf_node *lint_root(const struct lint *l)
{
    return l->config->record;
}

/* Whether a comment in the line silences the rule: "# lint: ignore RULE, RULE" or "# lint: ignore all". */
static bool comment_silences(struct str line, const char *rule)
{
    ssize_t at = str_find(line, STR("# lint: ignore "));
    struct str rest;

    if (at < 0)
        return false;
    rest = str_skip(line, (size_t) at + 15);
    while (rest.len) {
        size_t n = 0;
        struct str word;

        while (n < rest.len && strchr(" \t\r,", rest.ptr[n]) == NULL)
            n++;
        word = str_from(rest.ptr, n);
        if (str_eq(word, str_cstr(rule)) || str_eq(word, STR("all")))
            return true;
        rest = str_skip(rest, MIN(n + 1, rest.len));
    }
    return false;
}

/* The comment stands behind the directive, or alone on the line above it. (Asked in the file's order.) */
static bool is_silenced(const struct lint *l, struct conf_pos pos)
{
    struct conf_pos above = pos;
    struct str line;

    if (--above.line > 0) {
        line = str_trim(conf_source_line(l->config, above));
        if (line.len > 0 && line.ptr[0] == '#' && comment_silences(line, l->rule->name))
            return true;
    }
    return comment_silences(conf_source_line(l->config, pos), l->rule->name);
}

void lint_say(struct lint *l, const struct conf_node *n, unsigned arg, const char *remedy,
              const char *fmt, ...)
{
    struct lint_finding f = { .rule = l->rule->name, .remedy = remedy, .pos = n->arg_pos[arg] };
    va_list ap;

    if (is_silenced(l, n->pos) || (f.pos.line != n->pos.line && is_silenced(l, f.pos)))
        return;
    va_start(ap, fmt);
    f.sentence = str_vprintf(lint_arena(l), fmt, ap).ptr;
    va_end(ap);
    l->count++;
    l->say(l->data, &f);
}

static void judge(struct lint *l, const struct conf_node *n)
{
    for (unsigned i = 0; i < ARRAY_LEN(rules); i++) {
        l->rule = &rules[i];
        if ((n->context & l->rule->contexts) && lint_in(n->args[0], l->rule->directives))
            l->rule->judge(l, n);
    }
}

/* The one behind n in the order of the files, down into blocks first; NULL: that was all. */
static const struct conf_node *next(const struct conf_node *n)
{
    if (n->children.next != &n->children)
        return container_of(n->children.next, struct conf_node, link);
    for (; n->parent; n = n->parent) {
        if (n->link.next != &n->parent->children)
            return container_of(n->link.next, struct conf_node, link);
    }
    return NULL;
}

unsigned lint_run(struct config *config,
                  void (*say)(void *data, const struct lint_finding *finding), void *data)
{
    struct lint l = { .config = config, .say = say, .data = data };

    ASSERT(config->record != NULL);
    for (const struct conf_node *n = next(config->record); n; n = next(n))
        judge(&l, n);
    return l.count;
}
