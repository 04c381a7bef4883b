/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state: the servers of a group in a file, as lines of the configuration's own language, which is how they are read again
 * (servers.c). Each change writes the file anew: to another one that takes its name, so that whoever reads it, after a crash too,
 * finds the one or the other whole. Who changes servers holds a lock on the file's directory from before he reads
 * the servers until the zone says what the file says: no change is lost to another worker. The kernel gives the lock back
 * when its holder dies.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/os/file.h"
#include "modules/upstream/shared.h"
#include "modules/upstream/state_file.h"

#define LOCK_WAIT_MS 1000

struct text {
    struct arena *arena;
    char *ptr;
    size_t len, size;
};

static void add(struct text *t, struct str s)
{
    if (t->size - t->len < s.len) {
        char *more;

        t->size = MAX(2 * t->size, t->len + s.len);
        more = arena_bytes(t->arena, t->size);
        if (t->len > 0)
            memcpy(more, t->ptr, t->len);
        t->ptr = more;
    }
    memcpy(t->ptr + t->len, s.ptr, s.len);
    t->len += s.len;
}

/* A word, quoted where it has to be. */
static void add_word(struct text *t, const char *name, struct str value)
{
    bool plain = value.len > 0;

    for (size_t i = 0; i < value.len; i++)
        plain &= value.ptr[i] > ' ' && strchr("\"'\\;{}#", value.ptr[i]) == NULL;
    add(t, STR(" "));
    if (!plain)
        add(t, STR("\""));
    add(t, str_cstr(name));
    for (size_t i = 0; i < value.len; i++) {
        if (!plain && (value.ptr[i] == '"' || value.ptr[i] == '\\'))
            add(t, STR("\\"));
        add(t, str_from(value.ptr + i, 1));
    }
    if (!plain)
        add(t, STR("\""));
}

static void add_number(struct text *t, const char *name, uint64_t n, uint64_t usual,
                       const char *unit)
{
    if (n != usual)
        add(t, str_printf(t->arena, " %s=%llu%s", name, (unsigned long long) n, unit));
}

struct str state_text(struct arena *arena, const struct state_server *servers, unsigned count)
{
    struct text t = { .arena = arena };

    for (unsigned i = 0; i < count; i++) {
        const struct state_server *s = &servers[i];

        add(&t, STR("server"));
        add_word(&t, "", s->server);
        add_number(&t, "weight", (uint64_t) s->weight, 1, "");
        add_number(&t, "max_conns", s->record.max_conns, 0, "");
        add_number(&t, "max_fails", (uint64_t) s->record.max_fails, 1, "");
        add_number(&t, "fail_timeout", s->record.fail_timeout_s, 10, "s");
        add_number(&t, "slow_start", s->record.slow_start_s, 0, "s");
        if (s->route.len > 0)
            add_word(&t, "route=", s->route);
        if (s->service.len > 0)
            add_word(&t, "service=", s->service);
        if (s->resolves)
            add(&t, STR(" resolve"));
        if (s->state & PEER_BACKUP)
            add(&t, STR(" backup"));
        if (s->state & PEER_DOWN)
            add(&t, STR(" down"));
        if (s->state & PEER_DRAIN)
            add(&t, STR(" drain"));
        add(&t, STR(";\n"));
    }
    return str_from(t.ptr, t.len);
}

uint64_t state_hash_of(struct str text)
{
    return shared_mix(SHARED_MIX_START, text);
}

uint64_t state_hash(struct arena *arena, const struct upstream *g)
{
    struct state_server *servers = ARENA_ARRAY(arena, struct state_server, g->count);
    unsigned n = 0;

    for (unsigned i = 0; i < g->count; i++) {
        const struct peer *p = g->peers[i];
        const struct peer_record *rec = &g->own.records[i];

        if (p->parent != PEERS_NONE)
            continue;
        servers[n++] = (struct state_server){
            .server = p->server,
            .route = p->route,
            .service = p->service,
            .resolves = p->resolves,
            .weight = rec->weight,
            .state = rec->state,
            .record = *rec,
        };
    }
    return state_hash_of(state_text(arena, servers, n));
}

int state_lock(struct arena *arena, struct str path)
{
    static const struct timespec pause = { 0, 1000000 };
    struct str dir = str_dup(arena, path);
    unsigned waited_ms = 0;
    int fd;

    while (dir.len > 1 && dir.ptr[dir.len - 1] != '/')
        dir.len--;
    fd = open(str_printf(arena, "%.*s", STR_ARG(dir)).ptr, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    /* Others hold it for one write. Who holds it longer is stuck, and this worker has clients that wait. */
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int err = errno == EWOULDBLOCK ? EBUSY : errno;

        if (err == EINTR)
            continue;
        if (err != EBUSY || waited_ms++ == LOCK_WAIT_MS) {
            close(fd);
            errno = err;
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    return fd;
}

void state_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

int state_write(struct str path, struct str text)
{
    return file_replace(path.ptr, text, 0644);
}
