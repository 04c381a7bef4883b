/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps the directives as the parser meets them, and finds one's way among them. */
#include "core/config/record.h"

#include "core/config/parse.h"

static struct conf_node *node_new(struct arena *arena, struct conf_node *parent)
{
    struct conf_node *n = ARENA_NEW(arena, struct conf_node);

    list_init(&n->children);
    list_init(&n->link);
    n->parent = parent;
    if (parent)
        list_push_back(&parent->children, &n->link);
    return n;
}

void record_begin(struct conf *cf)
{
    cf->config->record = node_new(cf->arena, NULL);
    conf_parser(cf)->record_in = conf_parser(cf)->record_last = cf->config->record;
}

void record_directive(struct conf *cf)
{
    struct parser *parser = conf_parser(cf);
    struct conf_node *n;
    struct str *args;
    struct conf_pos *pos;
    bool *quoted;

    if (parser->record_in == NULL)
        return;
    n = node_new(cf->arena, parser->record_in);
    args = arena_alloc(cf->arena, cf->nargs * sizeof(*args));
    pos = arena_alloc(cf->arena, cf->nargs * sizeof(*pos));
    quoted = arena_alloc(cf->arena, cf->nargs * sizeof(*quoted));
    memcpy(args, cf->args, cf->nargs * sizeof(*args));
    memcpy(pos, cf->arg_pos, cf->nargs * sizeof(*pos));
    memcpy(quoted, parser->words.quoted, cf->nargs * sizeof(*quoted));
    n->args = args;
    n->arg_pos = pos;
    n->quoted = quoted;
    n->nargs = cf->nargs;
    n->pos = cf->pos;
    n->context = parser->line ? 0 : cf->level->context;
    n->block = cf->has_block;
    parser->record_last = n;
}

const struct conf_node *conf_node_child(const struct conf_node *n, const char *name)
{
    struct conf_node *c;

    CONF_NODE_EACH(n, c) {
        if (conf_node_is(c, name))
            return c;
    }
    return NULL;
}

const struct conf_node *conf_node_around(const struct conf_node *n, const char *name)
{
    for (n = n->parent; n; n = n->parent) {
        if (conf_node_is(n, name))
            return n;
    }
    return NULL;
}
