/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directives as they were written, whatever module they belong to: a tree that follows blocks, with
 * what is included in the place of the include. Kept only when it is asked for (config_request.record), for
 * those who judge a configuration rather than run it.
 */
#ifndef CORE_CONFIG_RECORD_H
#define CORE_CONFIG_RECORD_H

#include "core/config/config.h"

struct conf_node {
    struct list link;
    struct list children;     /* in file order */
    struct conf_node *parent; /* NULL: the root, which has no words */
    const struct str *args;   /* args[0] is the name; ${env:…} is replaced */
    const struct conf_pos *arg_pos;
    const bool *quoted;       /* by argument: it stood in quotes */
    unsigned nargs;
    struct conf_pos pos;
    unsigned context;         /* CTX_ bit of the block it stands in; 0: a row of map, types … */
    bool block;               /* it has a block of its own */
};

#define CONF_NODE_EACH(parent_, n) \
    for (struct list *n##_l = (parent_)->children.next; \
         n##_l != &(parent_)->children && \
         ((n) = container_of(n##_l, struct conf_node, link), true); n##_l = n##_l->next)

static inline bool conf_node_is(const struct conf_node *n, const char *name)
{
    return n->nargs > 0 && str_eq(n->args[0], str_cstr(name));
}

/* The first child of that name; or NULL. */
const struct conf_node *conf_node_child(const struct conf_node *n, const char *name);
/* The nearest directive of that name around n, n itself not included; or NULL. */
const struct conf_node *conf_node_around(const struct conf_node *n, const char *name);
/* A line of the files that were read, without its line feed; ptr NULL: there is none. */
struct str conf_source_line(const struct config *config, struct conf_pos pos);

#endif
