/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Servers that change while they serve: what the groups in zones are asked for and told from outside. Called by whoever
 * lets people look at the servers and edit them.
 */
#include "modules/upstream/internal.h"

struct upstream *upstream_shared_next(const struct http_main *http, const struct upstream *prev)
{
    struct upstream_main *m = level_conf(http->level, STORE_MAIN, upstream_slot);
    struct list *n;

    if (m == NULL || !m->ready)
        return NULL;
    for (n = prev != NULL ? prev->link.next : m->groups.next; n != &m->groups; n = n->next) {
        struct upstream *g = container_of(n, struct upstream, link);

        if (g->level != NULL && g->zone_spec != NULL)
            return g;
    }
    return NULL;
}

bool upstream_is_shared(const struct upstream *g)
{
    return g->zone != NULL;
}

bool upstream_snapshot(struct upstream *g, struct arena *arena, struct upstream_status *out)
{
    (void) arena;
    *out = (struct upstream_status){ 0 };
    return g->zone != NULL;
}

enum upstream_edit upstream_server_add(struct upstream *g, struct arena *arena,
                                       const struct upstream_change *change, uint32_t *id,
                                       struct str *error)
{
    (void) g, (void) arena, (void) change, (void) id;
    *error = STR("not there yet");
    return EDIT_STATIC;
}

enum upstream_edit upstream_server_change(struct upstream *g, struct arena *arena, uint32_t id,
                                          const struct upstream_change *change, struct str *error)
{
    (void) g, (void) arena, (void) change, (void) id;
    *error = STR("not there yet");
    return EDIT_STATIC;
}

enum upstream_edit upstream_server_remove(struct upstream *g, struct arena *arena, uint32_t id,
                                          struct str *error)
{
    (void) g, (void) arena, (void) id;
    *error = STR("not there yet");
    return EDIT_STATIC;
}

enum upstream_edit upstream_reset(struct upstream *g)
{
    (void) g;
    return EDIT_STATIC;
}

enum upstream_edit upstream_server_reset(struct upstream *g, uint32_t id)
{
    (void) g, (void) id;
    return EDIT_STATIC;
}
