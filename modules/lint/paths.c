/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about paths: alias, root, what proxy_pass makes of a URI, and regular expressions that match too much. */
#include "modules/lint/rules.h"

static bool is_alnum(char c)
{
    unsigned char l = ascii_lower((unsigned char) c);

    return (l >= 'a' && l <= 'z') || (l >= '0' && l <= '9');
}

/* The prefix location right around n. */
static bool in_prefix_location(const struct conf_node *n, struct lint_location *loc)
{
    return lint_location(n->parent, loc) && loc->kind == LINT_PREFIX;
}

/* alias --------------------------------------------------------------------------------------- */

void lint_alias_traversal(struct lint *l, const struct conf_node *n)
{
    struct lint_location loc;
    struct str to = n->args[1];

    if (!in_prefix_location(n, &loc) || str_ends(loc.path, STR("/")) || !str_ends(to, STR("/")))
        return;
    lint_say(l, n, 1, "let both end with a slash",
             "\"location %.*s\" also matches \"%.*s../\", which alias makes \"%.*s../\": files beside "
             "the directory can be read",
             STR_ARG(loc.path), STR_ARG(loc.path), STR_ARG(to));
}

void lint_alias_slash(struct lint *l, const struct conf_node *n)
{
    struct lint_location loc;
    struct str to = n->args[1];

    if (!in_prefix_location(n, &loc) || !str_ends(loc.path, STR("/")) || str_ends(to, STR("/"))
        || lint_has_var(to))
        return;
    lint_say(l, n, 1, "add a slash to the end of the alias",
             "what follows \"%.*s\" is put right behind \"%.*s\": \"%.*sx\" becomes \"%.*sx\"",
             STR_ARG(loc.path), STR_ARG(to), STR_ARG(loc.path), STR_ARG(to));
}

/* root ---------------------------------------------------------------------------------------- */

void lint_root_exposed(struct lint *l, const struct conf_node *n)
{
    struct str dir = n->args[1];
    struct lint_location loc;

    while (dir.len > 1 && dir.ptr[dir.len - 1] == '/')
        dir.len--;
    if (!lint_in(dir, " / /bin /boot /dev /etc /etc/nginx /etc/proxyd /etc/ssl /home /lib /proc /root /run /sbin "
                      "/sys /usr /usr/local /var "))
        return;
    /* root puts the whole URI behind it: below a location of two segments little is left to see. */
    if (conf_node_is(n, "root") && lint_location(n->parent, &loc)
        && (loc.kind != LINT_PREFIX || loc.path.len > 1))
        return;
    if (lint_location(n->parent, &loc) && loc.kind == LINT_EXACT)
        return;
    lint_say(l, n, 1, "name the directory that is meant to be seen",
             "\"%.*s\" holds more than a web site: whatever the workers can read there is served",
             STR_ARG(n->args[1]));
}

/* n is a server: its locations name the server's root again, or, where it has none, one root three times. */
void lint_root_repeated(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *own = lint_child(n, " root "), *first = own;
    unsigned same = own ? 3 : 0;
    struct conf_node *c;

    CONF_NODE_EACH(n, c) {
        const struct conf_node *root = conf_node_is(c, "location") ? lint_child(c, " root ") : NULL;

        if (!root)
            continue;
        if (!first)
            first = root;
        if (!str_eq(first->args[1], root->args[1]) || ++same < 3)
            continue;
        lint_say(l, root, 1, own ? "leave it out: locations inherit the server's root"
                                 : "write it once, on the server's level",
                 "the same root as in line %u", first->pos.line);
        return;
    }
}

/* proxy_pass ---------------------------------------------------------------------------------- */

/* A rewrite … break hands on its own URI, and proxy_pass's is not looked at. */
static bool has_rewrite_break(const struct conf_node *location)
{
    struct conf_node *c;

    CONF_NODE_EACH(location, c) {
        if (conf_node_is(c, "rewrite") && str_eq(c->args[c->nargs - 1], STR("break")))
            return true;
    }
    return false;
}

void lint_proxy_pass_slash(struct lint *l, const struct conf_node *n)
{
    struct lint_location loc;
    struct str host, uri;
    bool slash;

    if (!in_prefix_location(n, &loc) || lint_has_var(n->args[1]) || has_rewrite_break(n->parent))
        return;
    lint_split_url(n->args[1], &host, &uri);
    if (uri.len == 0 || str_chr(uri, '?') >= 0)
        return;
    slash = str_ends(loc.path, STR("/"));
    if (slash == str_ends(uri, STR("/")))
        return;
    if (slash)
        lint_say(l, n, 1, "add a slash to the end of the URL",
                 "\"%.*s\" is replaced by \"%.*s\": \"%.*sx\" is passed on as \"%.*sx\"",
                 STR_ARG(loc.path), STR_ARG(uri), STR_ARG(loc.path), STR_ARG(uri));
    else
        lint_say(l, n, 1, "let both end with a slash, or neither",
                 "\"%.*s\" is replaced by \"%.*s\": \"%.*s/x\" is passed on as \"%.*s/x\", and "
                 "\"%.*s../x\" as \"%.*s../x\"",
                 STR_ARG(loc.path), STR_ARG(uri), STR_ARG(loc.path), STR_ARG(uri),
                 STR_ARG(loc.path), STR_ARG(uri));
}

/* Regular expressions ------------------------------------------------------------------------- */

/* The arguments of location, rewrite and server_name that are regular expressions, one by one. */
static bool next_regex(const struct conf_node *n, unsigned *arg, struct str *regex)
{
    struct lint_location loc;

    if (conf_node_is(n, "server_name")) {
        while (++*arg < n->nargs) {
            *regex = n->args[*arg];
            if (str_starts(*regex, STR("~"))) {
                *regex = str_skip(*regex, 1);
                return true;
            }
        }
        return false;
    }
    if (*arg)
        return false;
    *arg = 1;
    *regex = n->args[1];
    if (conf_node_is(n, "rewrite"))
        return true;
    *arg = n->nargs - 1;
    if (!lint_location(n, &loc) || loc.kind != LINT_REGEX)
        return false;
    *regex = loc.path;
    return true;
}

/* Behind a dot: php$, html|, (png|jpe?g)$ …: what a file's name ends with. */
static bool is_extension(struct str s)
{
    bool group = s.len && s.ptr[0] == '(';
    size_t i = 0, letters = 0, shortest = 9;

    if (group)
        i = s.len > 2 && s.ptr[1] == '?' && s.ptr[2] == ':' ? 3 : 1;
    for (; i < s.len && (is_alnum(s.ptr[i]) || (group && strchr("|?", s.ptr[i]))); i++) {
        if (s.ptr[i] == '|') {
            shortest = MIN(shortest, letters);
            letters = 0;
        } else if (s.ptr[i] != '?' && ++letters > 5) {
            return false;
        }
    }
    if (MIN(shortest, letters) < 2)
        return false;
    if (group) {
        if (i >= s.len || s.ptr[i] != ')')
            return false;
        i++;
        return i == s.len || s.ptr[i] == '$';
    }
    return i == s.len || (s.ptr[i] && strchr("$|)", s.ptr[i]));
}

/* The dot at `at` can only have been meant as one. */
static bool is_literal_dot(const struct conf_node *n, struct str regex, size_t at)
{
    struct str behind = str_skip(regex, at + 1);
    bool name = behind.len && is_alnum(behind.ptr[0]);

    if (conf_node_is(n, "server_name"))
        return name && at > 0;
    return is_extension(behind) || (name && at > 0 && regex.ptr[at - 1] == '/');
}

void lint_regex_dot(struct lint *l, const struct conf_node *n)
{
    struct str regex;

    for (unsigned arg = 0; next_regex(n, &arg, &regex);) {
        struct lint_regex x = { .s = regex };

        while (lint_regex_next(&x)) {
            if (!lint_regex_is(&x, '.') || !is_literal_dot(n, regex, x.at))
                continue;
            lint_say(l, n, arg, "write \"\\.\" for a dot",
                     "the \".\" before \"%.*s\" in \"%.*s\" matches any character",
                     STR_ARG(str_skip(regex, x.next)), STR_ARG(regex));
            break;
        }
    }
}

/* A path without any sign of a regular expression, as one would write a prefix. */
static bool is_plain_path(struct str s)
{
    if (s.len < 2 || s.ptr[0] != '/' || !is_alnum(s.ptr[1]))
        return false;
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] == '\\' && i + 1 < s.len && strchr("./-_", s.ptr[i + 1]))
            i++;
        else if (!is_alnum(s.ptr[i]) && strchr("/_-", s.ptr[i]) == NULL)
            return false;
    }
    return true;
}

static bool has_anchor(struct str regex)
{
    struct lint_regex x = { .s = regex };

    while (lint_regex_next(&x)) {
        if (lint_regex_is(&x, '^') || lint_regex_is(&x, '$'))
            return true;
    }
    return false;
}

void lint_regex_anchor(struct lint *l, const struct conf_node *n)
{
    struct str regex;

    for (unsigned arg = 0; next_regex(n, &arg, &regex);) {
        if (conf_node_is(n, "server_name")) {
            if (regex.len && !has_anchor(regex))
                lint_say(l, n, arg, "begin it with \"^\" and end it with \"$\"",
                         "\"%.*s\" matches anywhere in a host name, also in those of others",
                         STR_ARG(regex));
        } else if (is_plain_path(regex)) {
            lint_say(l, n, arg, conf_node_is(n, "location")
                         ? "leave out the \"~\", or begin the expression with \"^\""
                         : "begin the expression with \"^\"",
                     "the regular expression \"%.*s\" matches anywhere in a URI, not only at its beginning",
                     STR_ARG(regex));
        }
    }
}

/* Captures ------------------------------------------------------------------------------------ */

static bool has_group(struct str regex)
{
    return str_chr(regex, '(') >= 0;
}

/* Whether anything in the block, at any depth, may leave captures behind. */
static bool makes_captures(const struct conf_node *block)
{
    struct conf_node *c;
    struct lint_location loc;

    CONF_NODE_EACH(block, c) {
        if (lint_location(c, &loc) && loc.kind == LINT_REGEX && has_group(loc.path))
            return true;
        if (lint_in(c->args[0], " rewrite if elif map server_name auth_request_set sub_filter "))
            return true;
        /* What this build does not know of. */
        if (str_starts(c->args[0], STR("~")) || (c->block && makes_captures(c)))
            return true;
    }
    return false;
}

static bool has_capture(struct str s)
{
    struct str name;

    while (lint_next_var(&s, &name)) {
        if (name.ptr[0] >= '1' && name.ptr[0] <= '9')
            return true;
    }
    return false;
}

void lint_capture(struct lint *l, const struct conf_node *n)
{
    const struct conf_node *server = conf_node_around(n, "server"), *http;

    for (unsigned i = 1; i < n->nargs; i++) {
        if (!has_capture(n->args[i]))
            continue;
        http = conf_node_around(n, "http");
        if (!http || lint_child(http, " map ") || makes_captures(server ? server : http))
            return;
        lint_say(l, n, i, "a dollar cannot be escaped: take it from a variable that \"geo\" or \"map\" makes",
                 "\"%.*s\": no regular expression leaves captures here, \"$\" and a digit are always empty",
                 STR_ARG(n->args[i]));
        return;
    }
}
