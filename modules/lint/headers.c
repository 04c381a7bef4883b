/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about fields: lost by inheritance, taken from the client as they are, or cut in two by a line end. */
#include "modules/lint/rules.h"

/* Inheritance --------------------------------------------------------------------------------- */

static bool names_field(const struct conf_node *block, struct str directive, struct str field)
{
    struct conf_node *c;

    CONF_NODE_EACH(block, c) {
        if (str_eq(c->args[0], directive) && c->nargs > 1 && str_caseeq(c->args[1], field))
            return true;
    }
    return false;
}

static bool is_merged(const struct conf_node *n)
{
    const struct conf_node *how = lint_in_force(n, " add_header_inherit add_trailer_inherit ");

    return how && how->nargs > 1 && !str_eq(how->args[1], STR("on"));
}

/* The level above that sets any of the same; only that is inherited. */
static const struct conf_node *level_above(const struct conf_node *n)
{
    const struct conf_node *up;

    for (up = n->parent->parent; up; up = up->parent) {
        if (conf_node_child(up, n->args[0].ptr))
            return up;
    }
    return NULL;
}

void lint_header_lost(struct lint *l, const struct conf_node *n)
{
    struct str lost = STR("");
    const struct conf_node *up;
    struct conf_node *c;
    unsigned line = 0;

    /* In an if that is another rule's business. */
    if (!lint_is_first(n) || n->context == CTX_IF_LOCATION || is_merged(n) || (up = level_above(n)) == NULL)
        return;
    CONF_NODE_EACH(up, c) {
        if (!str_eq(c->args[0], n->args[0]) || c->nargs < 3
            || names_field(n->parent, n->args[0], c->args[1]))
            continue;
        lost = str_printf(lint_arena(l), "%.*s%s%.*s", STR_ARG(lost), lost.len ? ", " : "",
                          STR_ARG(c->args[1]));
        if (line == 0)
            line = c->pos.line;
    }
    if (lost.len)
        lint_say(l, n, 0, "repeat them here",
                 "this level has %s of its own, so that those of \"%s\" (line %u) do not hold here: %.*s",
                 n->args[0].ptr, up->nargs ? up->args[0].ptr : "main", line, STR_ARG(lost));
}

/* Host ---------------------------------------------------------------------------------------- */

void lint_host_spoofing(struct lint *l, const struct conf_node *n)
{
    bool field = lint_in(n->args[0], " proxy_set_header grpc_set_header ");

    if (field && (n->nargs < 3 || !str_caseeq(n->args[1], STR("Host"))))
        return;
    for (unsigned i = 1; i < n->nargs; i++) {
        if (!lint_uses(n->args[i], " http_host "))
            continue;
        lint_say(l, n, i, "use $host",
                 "$http_host is whatever the client wrote into its Host field, even when the request line "
                 "or the server chosen say otherwise");
        return;
    }
}

/* Line ends ----------------------------------------------------------------------------------- */

static bool is_redirect(const struct conf_node *n)
{
    struct str s = n->args[1];

    if (conf_node_is(n, "rewrite"))
        return lint_in(n->args[n->nargs - 1], " redirect permanent ")
            || str_starts(n->args[2], STR("http")) || str_starts(n->args[2], STR("$scheme"));
    return n->nargs == 2 ? str_starts(s, STR("http")) || str_starts(s, STR("$scheme"))
                         : lint_in(s, " 301 302 303 307 308 ");
}

/* Whether what a group matches may hold a line end: it excludes some characters, but not that one. */
static bool takes_newline(struct str group)
{
    struct lint_regex x = { .s = group };

    while (lint_regex_next(&x)) {
        struct str sign = str_from(group.ptr + x.at, x.next - x.at);

        if (str_starts(sign, STR("[^")) && str_find(sign, STR("\\n")) < 0
            && str_find(sign, STR("\\s")) < 0)
            return true;
    }
    return false;
}

/* The variable's name if it may hold a line end that came escaped in the URI. */
static bool is_decoded(const struct conf_node *n, struct str name)
{
    const struct conf_node *around = lint_location_around(n);
    struct lint_location loc;
    struct str group;

    if (lint_in(name, " uri document_uri "))
        return true;
    if (!around || !lint_location(around, &loc) || loc.kind != LINT_REGEX)
        return false;
    if (name.len == 1 && name.ptr[0] >= '1' && name.ptr[0] <= '9')
        /* A rewrite or an if beside may have matched meanwhile. */
        group = lint_child(around, " rewrite if ") ? STR_NULL
                                                   : lint_group(loc.path, (unsigned) (name.ptr[0] - '0'));
    else
        group = lint_named_group(loc.path, name);
    return group.ptr && takes_newline(group);
}

void lint_splitting(struct lint *l, const struct conf_node *n)
{
    bool field = lint_in(n->args[0], " add_header proxy_set_header ");
    bool rewrite = conf_node_is(n, "rewrite");
    unsigned arg = field || rewrite || n->nargs > 2 ? 2 : 1;
    struct str rest, name;

    if (arg >= n->nargs || (!field && !is_redirect(n)))
        return;
    rest = n->args[arg];
    while (lint_next_var(&rest, &name)) {
        /* Captures in a redirect by rewrite are escaped. */
        if (rewrite && name.ptr[0] >= '1' && name.ptr[0] <= '9')
            continue;
        if (!is_decoded(n, name))
            continue;
        lint_say(l, n, arg, lint_in(name, " uri document_uri ")
                     ? "use $request_uri, which is as the client sent it"
                     : "exclude line ends from the group: [^/\\n]",
                 "$%.*s is decoded: a %%0D%%0A in the request's URI would end the line, and what follows "
                 "be a field of its own", STR_ARG(name));
        return;
    }
}
