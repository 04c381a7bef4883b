/* SPDX-License-Identifier: BSD-2-Clause */
/* An intrusive doubly linked list with a sentinel; O(1) removal from anywhere. */
#ifndef CORE_BASE_LIST_H
#define CORE_BASE_LIST_H

#include "core/base/base.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_insert_after(struct list *pos, struct list *n)
{
    n->next = pos->next;
    n->prev = pos;
    pos->next->prev = n;
    pos->next = n;
}
static inline void list_push_front(struct list *l, struct list *n)
{
    list_insert_after(l, n);
}
static inline void list_push_back(struct list *l, struct list *n)
{
    list_insert_after(l->prev, n);
}
/* Safe on a node that is initialised but in no list; the node is initialised after. */
static inline void list_remove(struct list *n)
{
    n->next->prev = n->prev;
    n->prev->next = n->next;
    list_init(n);
}
static inline struct list *list_pop_front(struct list *l)
{
    struct list *n = l->next;

    if (n == l)
        return NULL;
    list_remove(n);
    return n;
}

#endif
