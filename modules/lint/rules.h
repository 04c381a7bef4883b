/* SPDX-License-Identifier: BSD-2-Clause */
/* What the rules share: how they are listed, how they speak, and how they read directives. */
#ifndef MODULES_LINT_RULES_H
#define MODULES_LINT_RULES_H

#include "modules/lint/lint.h"

struct lint;

struct lint_rule {
    const char *name;
    const char *directives; /* names that it looks at, between blanks: " alias root " */
    unsigned contexts;      /* CTX_ bits: where it looks at them */
    void (*judge)(struct lint *l, const struct conf_node *n);
};

#define CTX_HTTP_ANY \
    (CTX_HTTP | CTX_SERVER | CTX_LOCATION | CTX_IF_SERVER | CTX_IF_LOCATION | CTX_LIMIT_EXCEPT)

/* A finding about argument `arg` of n. */
void lint_say(struct lint *l, const struct conf_node *n, unsigned arg, const char *remedy,
              const char *fmt, ...) PRINTF_LIKE(5, 6);
struct arena *lint_arena(struct lint *l);
const struct conf_node *lint_root(const struct lint *l);

/* words.c: strings */

bool lint_in(struct str word, const char *words); /* words: between blanks */
/* The next $name or ${name} in *rest, which is then what follows; false: there is none. */
bool lint_next_var(struct str *rest, struct str *name);
bool lint_has_var(struct str s);
bool lint_uses(struct str s, const char *names); /* one of these variables */
/* The part of a URL between "//" and the path, and what follows; without "//" all of it is the host. */
void lint_split_url(struct str url, struct str *host, struct str *rest);
bool lint_is_address(struct str host); /* a number, with or without a port, or a unix socket */

/* words.c: regular expressions */

/* One pass over a regular expression, a step a sign; escapes and [classes] are one step. */
struct lint_regex {
    struct str s;
    size_t at, next; /* the sign is from at to next */
};
bool lint_regex_next(struct lint_regex *x);
bool lint_regex_is(const struct lint_regex *x,
                   char c); /* this very character, not escaped, outside classes */
/* The inside of group n (from 1); ptr NULL: there is none. */
struct str lint_group(struct str regex, unsigned n);
struct str lint_named_group(struct str regex, struct str name);

/* words.c: directives */

enum lint_kind { LINT_PREFIX, LINT_EXACT, LINT_REGEX, LINT_NAMED };
struct lint_location {
    enum lint_kind kind;
    struct str path; /* or expression, or name with "@" */
};
/* False if n is no location. */
bool lint_location(const struct conf_node *n, struct lint_location *out);
/* The location around n, through if and limit_except; NULL: none. */
const struct conf_node *lint_location_around(const struct conf_node *n);
/* A directive of one of the names, which take no block, on n's own level or on one above; or NULL. */
const struct conf_node *lint_in_force(const struct conf_node *n, const char *names);
/* The first directive of one of the names in n's block, at any depth below; or NULL. */
const struct conf_node *lint_below(const struct conf_node *n, const char *names);
const struct conf_node *lint_child(const struct conf_node *n, const char *names);
bool lint_is_first(const struct conf_node *n); /* of its name on its level */

/* The rules, by file: paths.c, headers.c, access.c, flow.c */
typedef void lint_judge(struct lint *l, const struct conf_node *n);
lint_judge lint_alias_traversal, lint_alias_slash, lint_proxy_pass_slash, lint_regex_dot,
    lint_regex_anchor, lint_root_repeated, lint_root_exposed, lint_capture;
lint_judge lint_header_lost, lint_host_spoofing, lint_splitting;
lint_judge lint_merge_slashes, lint_allow, lint_satisfy, lint_status, lint_proxy_target,
    lint_protocols, lint_listen_443, lint_tunnel_open;
lint_judge lint_if_settings, lint_if_try_files, lint_server_name, lint_resolver, lint_error_page,
    lint_zone_unused, lint_try_files_proxy;

#endif
