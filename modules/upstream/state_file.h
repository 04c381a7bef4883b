/* SPDX-License-Identifier: BSD-2-Clause */
/* The state file of a group: for dynamic.c. */
#ifndef MODULES_UPSTREAM_STATE_FILE_H
#define MODULES_UPSTREAM_STATE_FILE_H

#include "modules/upstream/internal.h"

/* What stands in a line of it. */
struct state_server {
    uint32_t number; /* not in the file: of a server in a zone */
    struct str server, route, service;
    bool resolves;
    int32_t weight;
    uint32_t state;  /* PEER_DOWN, PEER_DRAIN, PEER_BACKUP */
    struct peer_record record;
};
struct str state_text(struct arena *arena, const struct state_server *servers, unsigned count);
uint64_t state_hash_of(struct str text);
/* Waits, a second at most (EBUSY), for those who are changing servers; a descriptor, or -1 with errno. */
int state_lock(struct arena *arena, struct str path);
void state_unlock(int fd);
/* 0 or -1 with errno: the file is as it was. */
int state_write(struct str path, struct str text);

#endif
