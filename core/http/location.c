/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding the location for a URI. The prefix and exact locations of a block are a radix tree over
 * the bytes of their names, so that a search costs what the URI is long, whatever their number;
 * regexes follow in the order of the file. Built once after the file is read, then constant. Called
 * by the engine (req.c); knows nothing of requests.
 */
#include "core/http/http_config.h"

/*
 * label: the bytes between the parent and here, never empty but at the root. Children differ in
 * their first byte; those bytes stand side by side in `first`, in the children's order.
 */
struct radix {
    struct str label;
    const struct location *exact;
    const struct location *prefix;
    unsigned count;
    unsigned capacity;
    unsigned char *first;
    struct radix **children;
};

struct location_tree {
    struct radix root;
    const struct location **regexes; /* in the order of the file */
    unsigned regex_count;
};

/* Building ---------------------------------------------------------------------------------- */

static struct radix *find_child(const struct radix *node, unsigned char byte)
{
    const unsigned char *at;

    if (node->count == 0)
        return NULL;
    at = memchr(node->first, byte, node->count);
    return at ? node->children[at - node->first] : NULL;
}

static struct radix *add_child(struct arena *arena, struct radix *node, struct str label)
{
    struct radix *child = ARENA_NEW(arena, struct radix);
    unsigned capacity = node->capacity;

    child->label = label;
    node->children =
        arena_grow(arena, node->children, node->count, &node->capacity, sizeof(*node->children));
    node->first = arena_grow(arena, node->first, node->count, &capacity, 1);
    node->children[node->count] = child;
    node->first[node->count++] = (unsigned char) label.ptr[0];
    return child;
}

/* Parts a node after n bytes of its label: what it was becomes its only child. */
static void split(struct arena *arena, struct radix *node, size_t n)
{
    struct radix *rest = ARENA_NEW(arena, struct radix);
    struct str head = str_from(node->label.ptr, n);

    *rest = *node;
    rest->label = str_skip(node->label, n);
    *node = (struct radix){ .label = head };
    node->children = arena_grow(arena, NULL, 0, &node->capacity, sizeof(*node->children));
    node->first = arena_alloc(arena, node->capacity);
    node->children[0] = rest;
    node->first[0] = (unsigned char) rest->label.ptr[0];
    node->count = 1;
}

static size_t common(struct str a, struct str b)
{
    size_t n = 0, max = MIN(a.len, b.len);

    while (n < max && a.ptr[n] == b.ptr[n])
        n++;
    return n;
}

/* The node for a name, made if there is none. */
static struct radix *insert(struct arena *arena, struct radix *node, struct str name)
{
    while (name.len > 0) {
        struct radix *child = find_child(node, (unsigned char) name.ptr[0]);
        size_t n;

        if (child == NULL)
            return add_child(arena, node, name);
        n = common(child->label, name);
        if (n < child->label.len)
            split(arena, child, n);
        name = str_skip(name, n);
        node = child;
    }
    return node;
}

struct location_tree *location_tree_build(struct conf *cf, struct location **locations,
                                          unsigned count)
{
    struct location_tree *tree;
    unsigned capacity = 0;

    if (count == 0)
        return NULL;
    tree = ARENA_NEW(cf->arena, struct location_tree);
    for (unsigned i = 0; i < count; i++) {
        const struct location *loc = locations[i];
        const struct location **slot;
        struct radix *node;

        if (loc->kind == LOC_REGEX) {
            tree->regexes = arena_grow(cf->arena, tree->regexes, tree->regex_count, &capacity,
                                       sizeof(*tree->regexes));
            tree->regexes[tree->regex_count++] = loc;
            continue;
        }
        node = insert(cf->arena, &tree->root, loc->name);
        slot = loc->kind == LOC_EXACT ? &node->exact : &node->prefix;
        if (*slot != NULL)
            conf_error_at(cf, loc->pos, "duplicate location \"%.*s\"", STR_ARG(loc->name));
        else
            *slot = loc;
    }
    return tree;
}

/* Searching --------------------------------------------------------------------------------- */

/* How far a search has got. */
enum found {
    FOUND_NONE,
    FOUND_PREFIX, /* regexes may still take it */
    FOUND_FINAL,  /* exact, or to be redirected */
};

struct search {
    struct str uri;
    struct eval *eval;
    struct regex_match *match;
    const struct location *best;
    bool redirect;
    bool failed;
};

static const struct location *slash_location(const struct radix *node)
{
    if (node == NULL)
        return NULL;
    if (node->exact != NULL && node->exact->auto_slash)
        return node->exact;
    return node->prefix != NULL && node->prefix->auto_slash ? node->prefix : NULL;
}

/* The exact and the longest prefix location of one level. */
static enum found find_static(const struct location_tree *tree, struct search *s)
{
    const struct radix *node = &tree->root, *slash = NULL;
    struct str rest = s->uri;
    enum found found = FOUND_NONE;

    for (;;) {
        const struct radix *child;

        if (rest.len == 0) {
            if (node->exact != NULL) {
                s->best = node->exact;
                return FOUND_FINAL;
            }
            if (node->prefix != NULL) {
                s->best = node->prefix;
                return FOUND_PREFIX;
            }
            child = find_child(node, '/');
            slash = child != NULL && child->label.len == 1 ? child : NULL;
            break;
        }
        if (node->prefix != NULL) {
            s->best = node->prefix;
            found = FOUND_PREFIX;
        }
        child = find_child(node, (unsigned char) rest.ptr[0]);
        if (child == NULL)
            break;
        if (!str_starts(rest, child->label)) {
            if (child->label.len == rest.len + 1 && child->label.ptr[rest.len] == '/' &&
                memcmp(child->label.ptr, rest.ptr, rest.len) == 0)
                slash = child;
            break;
        }
        rest = str_skip(rest, child->label.len);
        node = child;
    }
    if (slash_location(slash) == NULL)
        return found;
    s->best = slash_location(slash);
    s->redirect = true;
    return FOUND_FINAL;
}

/* The first regex that matches. NULL: none, or the engine failed (s->failed). */
static const struct location *find_regex(const struct location_tree *tree, struct search *s)
{
    for (unsigned i = 0; i < tree->regex_count; i++) {
        const struct location *loc = tree->regexes[i];
        int rc = regex_exec(loc->regex, s->uri, s->match);

        if (rc > 0) {
            s->eval->match = s->match;
            s->eval->match_subject = s->uri;
            if (loc->captures != NULL)
                http_store_captures(s->eval, loc->captures, s->match, s->uri);
            return loc;
        }
        if (rc < 0) {
            log_alert(s->eval->log, 0, "%s on \"%.*s\" using \"%.*s\"", regex_error(),
                      STR_ARG(s->uri), STR_ARG(loc->name));
            s->failed = true;
            return NULL;
        }
    }
    return NULL;
}

/*
 * One level and what is nested in it. The regexes of the innermost level come first, then those
 * around it; "^~" holds off the regexes of its own level only. After a regex the search goes on
 * inside it, and does not come back. As deep as the file nests blocks (CONF_BLOCK_MAX).
 */
static enum found search_level(const struct location *from, struct search *s)
{
    const struct location_tree *tree = from->tree;
    const struct location *loc;
    enum found found;
    bool final = false;

    if (tree == NULL)
        return FOUND_NONE;
    found = find_static(tree, s);
    if (found == FOUND_FINAL)
        return found;
    if (found == FOUND_PREFIX) {
        final = s->best->kind == LOC_PREFIX_FINAL;
        if (search_level(s->best, s) == FOUND_FINAL || s->failed)
            return FOUND_FINAL;
    }
    if (final || tree->regex_count == 0)
        return found;
    loc = find_regex(tree, s);
    if (loc == NULL)
        return s->failed ? FOUND_FINAL : found;
    s->best = loc;
    search_level(loc, s);
    return FOUND_FINAL;
}

const struct location *http_location_find(const struct location *from, struct str uri,
                                          struct eval *e, struct regex_match *match, bool *redirect,
                                          bool *failed)
{
    struct search s = { .uri = uri, .eval = e, .match = match };

    search_level(from, &s);
    *redirect = s.redirect;
    *failed = s.failed;
    return s.best;
}

bool http_location_has_regexes(const struct location *loc)
{
    if (loc->tree != NULL && loc->tree->regex_count > 0)
        return true;
    return loc->parent->tree != NULL && loc->parent->tree->regex_count > 0;
}

void http_store_captures(struct eval *e, struct var **captures, const struct regex_match *match,
                         struct str subject)
{
    for (unsigned g = 1; g < match->count; g++) {
        int from = match->pos[2 * g], to = match->pos[2 * g + 1];

        if (captures[g] == NULL)
            continue;
        if (from < 0 || to < from)
            var_store(e, captures[g], STR(""));
        else
            var_store(e, captures[g], str_from(subject.ptr + from, (size_t) (to - from)));
    }
}
