/* SPDX-License-Identifier: BSD-2-Clause */
/* How rules read directives: words, variables, URLs, regular expressions, locations and levels. */
#include "core/os/socket.h"
#include "modules/lint/rules.h"

/* Strings ------------------------------------------------------------------------------------- */

bool lint_in(struct str word, const char *words)
{
    struct str rest = str_cstr(words);
    ssize_t at;

    while (word.len && (at = str_find(rest, word)) >= 0) {
        size_t end = (size_t) at + word.len;

        if (at > 0 && rest.ptr[at - 1] == ' ' && end < rest.len && rest.ptr[end] == ' ')
            return true;
        rest = str_skip(rest, (size_t) at + 1);
    }
    return false;
}

static bool is_name_byte(char c)
{
    unsigned char l = ascii_lower((unsigned char) c);

    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

bool lint_next_var(struct str *rest, struct str *name)
{
    ssize_t at;

    while ((at = str_chr(*rest, '$')) >= 0) {
        size_t n = 0;

        *rest = str_skip(*rest, (size_t) at + 1);
        if (rest->len && rest->ptr[0] == '{')
            *rest = str_skip(*rest, 1);
        /* A capture is one digit. */
        if (rest->len && rest->ptr[0] >= '1' && rest->ptr[0] <= '9')
            n = 1;
        else
            while (n < rest->len && is_name_byte(rest->ptr[n]))
                n++;
        *name = str_from(rest->ptr, n);
        *rest = str_skip(*rest, n);
        if (n)
            return true;
    }
    return false;
}

bool lint_has_var(struct str s)
{
    struct str name;

    return lint_next_var(&s, &name);
}

bool lint_uses(struct str s, const char *names)
{
    struct str name;

    while (lint_next_var(&s, &name)) {
        if (lint_in(name, names))
            return true;
    }
    return false;
}

/* Where the path begins behind a host: at a slash, or at a variable that begins with one. */
static size_t host_length(struct str s)
{
    size_t i = 0;
    struct str name;

    if (str_starts(s, STR("unix:"))) {
        ssize_t colon = str_chr(str_skip(s, 5), ':');

        return colon < 0 ? s.len : (size_t) colon + 5;
    }
    for (; i < s.len && s.ptr[i] != '/' && s.ptr[i] != '?'; i++) {
        struct str rest = str_skip(s, i);

        if (i > 0 && s.ptr[i] == '$' && lint_next_var(&rest, &name)
            && lint_in(name, " request_uri uri document_uri "))
            break;
    }
    return i;
}

void lint_split_url(struct str url, struct str *host, struct str *rest)
{
    ssize_t slashes = str_find(url, STR("://"));
    struct str s = slashes < 0 ? url : str_skip(url, (size_t) slashes + 3);

    *host = str_from(s.ptr, host_length(s));
    *rest = str_skip(s, host->len);
    if (str_starts(*host, STR("unix:")) && rest->len)
        *rest = str_skip(*rest, 1);
}

bool lint_is_address(struct str host)
{
    struct addr a;

    return str_starts(host, STR("unix:")) || addr_parse(&a, host, 80, false) == 0;
}

/* Regular expressions ------------------------------------------------------------------------- */

/* Behind the class that begins at i. */
static size_t class_end(struct str s, size_t i)
{
    i++;
    if (i < s.len && s.ptr[i] == '^')
        i++;
    if (i < s.len && s.ptr[i] == ']')
        i++;
    for (; i < s.len && s.ptr[i] != ']'; i++) {
        if (s.ptr[i] == '\\')
            i++;
    }
    return MIN(i + 1, s.len);
}

bool lint_regex_next(struct lint_regex *x)
{
    x->at = x->next;
    if (x->at >= x->s.len)
        return false;
    if (x->s.ptr[x->at] == '\\')
        x->next = MIN(x->at + 2, x->s.len);
    else if (x->s.ptr[x->at] == '[')
        x->next = class_end(x->s, x->at);
    else
        x->next = x->at + 1;
    return true;
}

bool lint_regex_is(const struct lint_regex *x, char c)
{
    return x->next == x->at + 1 && x->s.ptr[x->at] == c;
}

/* Whether the "(" at `at` begins a capture; *name is that of a named one. */
static bool is_capture(struct str s, size_t at, struct str *name)
{
    struct str rest = str_skip(s, at + 1);
    ssize_t end;

    *name = STR_NULL;
    if (!rest.len || rest.ptr[0] != '?')
        return true;
    rest = str_skip(rest, 1);
    if (rest.len && rest.ptr[0] == 'P')
        rest = str_skip(rest, 1);
    if (rest.len < 2 || (rest.ptr[0] != '<' && rest.ptr[0] != '\'') || rest.ptr[1] == '='
        || rest.ptr[1] == '!')
        return false;
    end = str_chr(str_skip(rest, 1), rest.ptr[0] == '<' ? '>' : '\'');
    if (end >= 0)
        *name = str_from(rest.ptr + 1, (size_t) end);
    return true;
}

/* From behind the "(" at `from` to its partner. */
static struct str group_inside(struct str s, size_t from)
{
    struct lint_regex x = { .s = str_skip(s, from) };
    int depth = 1;

    while (lint_regex_next(&x)) {
        if (lint_regex_is(&x, '('))
            depth++;
        else if (lint_regex_is(&x, ')') && --depth == 0)
            break;
    }
    return str_from(x.s.ptr, x.at);
}

static struct str find_group(struct str regex, unsigned n, struct str wanted)
{
    struct lint_regex x = { .s = regex };
    struct str name;

    while (lint_regex_next(&x)) {
        if (!lint_regex_is(&x, '(') || !is_capture(regex, x.at, &name))
            continue;
        if (n ? --n == 0 : name.ptr != NULL && str_eq(name, wanted))
            return group_inside(regex, x.next);
    }
    return STR_NULL;
}

struct str lint_group(struct str regex, unsigned n)
{
    return find_group(regex, n, STR_NULL);
}

struct str lint_named_group(struct str regex, struct str name)
{
    return find_group(regex, 0, name);
}

/* Directives ---------------------------------------------------------------------------------- */

bool lint_location(const struct conf_node *n, struct lint_location *out)
{
    static const struct {
        struct str sign;
        enum lint_kind kind;
    } signs[] = {
        { STR_INIT("~*"), LINT_REGEX }, { STR_INIT("^~"), LINT_PREFIX },
        { STR_INIT("~"), LINT_REGEX },  { STR_INIT("="), LINT_EXACT },
    };
    struct str first;

    if (!conf_node_is(n, "location") || n->nargs < 2)
        return false;
    first = n->args[1];
    *out = (struct lint_location){ LINT_PREFIX, n->args[n->nargs - 1] };
    for (unsigned i = 0; i < ARRAY_LEN(signs); i++) {
        if (!str_starts(first, signs[i].sign))
            continue;
        out->kind = signs[i].kind;
        if (n->nargs == 2)
            out->path = str_skip(first, signs[i].sign.len);
        return true;
    }
    if (str_starts(first, STR("@")))
        out->kind = LINT_NAMED;
    return true;
}

const struct conf_node *lint_location_around(const struct conf_node *n)
{
    for (n = n->parent; n; n = n->parent) {
        if (conf_node_is(n, "location"))
            return n;
        if (n->nargs && !lint_in(n->args[0], " if elif else limit_except "))
            return NULL;
    }
    return NULL;
}

const struct conf_node *lint_child(const struct conf_node *n, const char *names)
{
    struct conf_node *c;

    CONF_NODE_EACH(n, c) {
        if (lint_in(c->args[0], names))
            return c;
    }
    return NULL;
}

const struct conf_node *lint_in_force(const struct conf_node *n, const char *names)
{
    for (n = n->parent; n; n = n->parent) {
        const struct conf_node *c = lint_child(n, names);

        if (c)
            return c;
    }
    return NULL;
}

/* Blocks are nested CONF_BLOCK_MAX deep at most. */
const struct conf_node *lint_below(const struct conf_node *n, const char *names)
{
    const struct conf_node *found = lint_child(n, names);
    struct conf_node *c;

    if (found)
        return found;
    CONF_NODE_EACH(n, c) {
        if (c->block && (found = lint_below(c, names)) != NULL)
            return found;
    }
    return NULL;
}

bool lint_is_first(const struct conf_node *n)
{
    struct conf_node *c;

    CONF_NODE_EACH(n->parent, c) {
        if (str_eq(c->args[0], n->args[0]))
            return c == n;
    }
    return false;
}
