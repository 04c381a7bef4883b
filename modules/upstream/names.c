/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names that are resolved while a group serves: one worker of all, the asker, asks for each name when its records have
 * run out, and puts the addresses into the zone, where all workers see them at once. When the asker's worker goes another one takes
 * over within a second. Addresses that stay keep all that is known of them.
 *
 * A name that cannot be resolved keeps the addresses that it had: records that come and go, or name servers that
 * fail, are no reason to stop serving. That is also so where the name is said not to exist.
 */
#include "core/event/loop.h"
#include "modules/upstream/shared.h"

#define LOOK_MS 1000
#define RETRY_MAX_MS 30000
#define ADDRESSES_MAX 1024     /* of one name */
#define FIXED_WEIGHT_MAX 10000 /* of them all, with a method that hashes */

struct name {
    struct list link; /* struct names.all */
    struct names *names;
    uint32_t number; /* upstream_server.id */
    struct resolve_query query;
    bool asking, seen;
    uint64_t due_ms;
    unsigned failures; /* one after the other */
    char text[];       /* host, then service */
};

struct names {
    struct upstream *group;
    struct timer timer;
    struct list all;     /* empty unless this worker is the asker */
    uint32_t generation; /* of the servers that `all` was made from */
    bool asker;
};

/* Answers -------------------------------------------------------------------------------------------- */

/* One address of an answer, and what it is to be. */
struct target {
    struct place place;
    struct addr addr;
    bool there;
};

static bool same_address(struct zone *zone, const struct zone_server *s, const struct target *t)
{
    const struct zone_text *text = text_of(zone, s);

    return text->addr_len == t->addr.len && memcmp(text->bytes, &t->addr.ss, t->addr.len) == 0;
}

/* The addresses of a name that are there: they stay and change, or go. Whether one changed. */
static bool match_there(struct upstream *g, struct zone_group *zg, uint32_t parent,
                        struct target *targets, unsigned count, unsigned *gone)
{
    bool changed = false;

    for (unsigned i = 0; i < g->view.set->count; i++) {
        const struct zone_server *s = shared_server(g->zone, zg, i);
        struct target *t = NULL;

        if (s->kind != PLACE_SERVER || s->parent != parent)
            continue;
        for (unsigned n = 0; n < count && t == NULL; n++) {
            if (!targets[n].there && same_address(g->zone, s, &targets[n]))
                t = &targets[n];
        }
        if (t == NULL) {
            shared_leave(g->zone, zg, i);
            *gone += 1;
            continue;
        }
        t->there = true;
        if (peers_weight(&g->view, i) != t->place.weight ||
            (g->view.state[i] & PEER_BACKUP) != (t->place.state & PEER_BACKUP)) {
            peers_change(&g->view, i, t->place.weight, t->place.state, &t->place.record);
            changed = true;
        }
    }
    return changed;
}

/* The highest priority serves, the others stand by; 0: the first. */
static unsigned first_priority(const struct resolve_query *q)
{
    unsigned first = UINT16_MAX;

    for (unsigned i = 0; i < q->addr_count; i++)
        first = MIN(first, q->addrs[i].priority);
    return first;
}

/*
 * Weights are what others say: together those of an answer weigh no more than one server may. Methods that hash have tables that
 * grow by them.
 */
static void limit_weights(const struct upstream *g, struct target *targets, unsigned count)
{
    uint64_t sum = 0, max = g->balancer->fixed ? FIXED_WEIGHT_MAX : PEER_WEIGHT_MAX;

    for (unsigned i = 0; i < count; i++)
        sum += (uint64_t) targets[i].place.weight;
    for (unsigned i = 0; i < count && sum > max; i++)
        targets[i].place.weight =
            MAX(1, (int32_t) ((uint64_t) targets[i].place.weight * max / sum));
}

/*
 * What the addresses of an answer are to be. With a service weights and ranks are the records'; of a backup only those of the
 * highest priority are taken. The port of the name is that of a service's record, or the one in its text.
 */
static unsigned make_targets(struct arena *arena, struct upstream *g, const struct place *name,
                             uint32_t parent, unsigned port, const struct resolve_query *q,
                             struct target *targets)
{
    bool service = name->text.service.len > 0;
    unsigned first = first_priority(q), count = 0;

    for (unsigned i = 0; i < q->addr_count && count < ADDRESSES_MAX; i++) {
        const struct resolve_addr *a = &q->addrs[i];
        struct target *t = &targets[count];

        if (service && a->priority != first && ((name->state & PEER_BACKUP) || g->balancer->fixed))
            continue;
        *t = (struct target){ .addr = a->addr, .place = *name };
        if (!service)
            addr_set_port(&t->addr, port);
        t->place.kind = PLACE_SERVER;
        t->place.parent = parent;
        t->place.text.name = addr_dup_text(arena, &t->addr, true);
        t->place.text.service = STR("");
        if (service) {
            t->place.weight = MAX(a->weight, 1);
            t->place.state |= a->priority != first ? PEER_BACKUP : 0;
        }
        count++;
    }
    if (service)
        limit_weights(g, targets, count);
    return count;
}

/* "host:port" */
static unsigned port_of(struct str server)
{
    struct upstream_address a;

    return upstream_address_parse(&a, server, 80) == NULL ? a.port : 80;
}

/* Puts an answer into the zone. False: the zone is full. */
static bool apply(struct arena *arena, struct upstream *g, uint32_t number,
                  const struct resolve_query *q, unsigned *come, unsigned *gone)
{
    struct target *targets = ARENA_ARRAY(arena, struct target, MIN(q->addr_count, ADDRESSES_MAX));
    struct zone_group *zg = shared_lock(g);
    unsigned i = shared_find(g->zone, zg, number), count;
    bool room = true, changed;
    struct place name;

    if (i == PEERS_NONE) {
        upstream_unlock(g);
        return true;
    }
    shared_read(g->zone, zg, i, &name);
    /* Copies: what is in the zone may move when addresses are added. */
    name.text.server = str_dup(arena, name.text.server);
    name.text.route = str_dup(arena, name.text.route);
    name.text.service = str_dup(arena, name.text.service);
    count = make_targets(arena, g, &name, number, port_of(name.text.server), q, targets);
    changed = match_there(g, zg, number, targets, count, gone);
    for (unsigned n = 0; n < count; n++) {
        if (targets[n].there)
            continue;
        targets[n].place.text.addr = &targets[n].addr;
        if (shared_place(g->zone, zg, g->health, &targets[n].place) == PEERS_NONE)
            room = false;
        else
            *come += 1;
    }
    if (changed || *come + *gone > 0 || !room)
        shared_changed(g->zone, zg);
    upstream_unlock(g);
    return room;
}

static void good_answer(struct name *name)
{
    struct upstream *g = name->names->group;
    struct resolve_query *q = &name->query;
    struct arena *arena = arena_new();
    unsigned come = 0, gone = 0;
    uint64_t valid_ms;

    if (!apply(arena, g, name->number, q, &come, &gone))
        log_crit(
            log_main, 0,
            "no memory in zone \"%.*s\" for the addresses of \"%.*s\" in upstream \"%.*s\": make it larger",
            STR_ARG(zone_name(g->zone)), STR_ARG(q->name), STR_ARG(g->name));
    if (come + gone > 0)
        log_notice(log_main, 0,
                   "\"%.*s\" in upstream \"%.*s\" resolved to %u addresses, %u new, %u gone",
                   STR_ARG(q->name), STR_ARG(g->name), q->addr_count, come, gone);
    arena_destroy(arena);
    name->failures = 0;
    valid_ms = g->resolver->valid_ms > 0 ? g->resolver->valid_ms : (uint64_t) q->ttl_s * 1000;
    name->due_ms = clock_ms() + MAX(valid_ms, 1000);
    upstream_look(g);
}

static void bad_answer(struct name *name)
{
    const struct resolve_query *q = &name->query;
    uint64_t wait_ms = MIN(UINT64_C(1000) << MIN(name->failures, 10), RETRY_MAX_MS);

    log_warn(log_main, 0,
             "%.*s could not be resolved (%s) in upstream \"%.*s\", the addresses known stay",
             STR_ARG(q->name), resolve_status_text(q->status), STR_ARG(name->names->group->name));
    name->failures++;
    name->due_ms = clock_ms() + wait_ms;
}

static void run(struct names *names);

static void done(struct resolve_query *q)
{
    struct name *name = container_of(q, struct name, query);

    name->asking = false;
    if (q->status == RESOLVE_OK && q->addr_count > 0)
        good_answer(name);
    else
        bad_answer(name);
    run(name->names);
}

/* Questions ------------------------------------------------------------------------------------------ */

static void free_name(struct name *name)
{
    if (name->asking)
        resolve_cancel(&name->query);
    list_remove(&name->link);
    free(name);
}

static struct name *find_name(struct names *names, uint32_t number)
{
    for (struct list *n = names->all.next; n != &names->all; n = n->next) {
        struct name *name = container_of(n, struct name, link);

        if (name->number == number)
            return name;
    }
    return NULL;
}

/* What is asked for a service: nginx's rule. In text: its length; NULL: only that. */
static size_t service_text(struct str service, char *text)
{
    bool full = str_chr(service, '.') >= 0;
    size_t n = 0;

    if (service.len == 0)
        return 0;
    if (!full)
        text[n++] = '_';
    memcpy(text + n, service.ptr, service.len);
    n += service.len;
    if (!full) {
        memcpy(text + n, "._tcp", 5);
        n += 5;
    }
    return n;
}

static void add_name(struct names *names, const struct peer *p)
{
    struct upstream_address a;
    struct str host = upstream_address_parse(&a, p->server, 80) == NULL ? a.host : p->server;
    struct name *name = mem_zalloc(sizeof(*name) + host.len + p->service.len + 8);

    memcpy(name->text, host.ptr, host.len);
    name->query.name = str_from(name->text, host.len);
    name->query.service =
        str_from(name->text + host.len, service_text(p->service, name->text + host.len));
    name->query.done = done;
    name->query.timeout_ms = names->group->resolver_timeout_ms;
    name->names = names;
    name->number = p->number;
    name->seen = true;
    list_push_back(&names->all, &name->link);
}

/* The names that the group has now. */
static void collect(struct names *names)
{
    struct upstream *g = names->group;
    struct list *n, *next;

    names->generation = g->generation;
    for (n = names->all.next; n != &names->all; n = n->next)
        container_of(n, struct name, link)->seen = false;
    for (unsigned i = 0; i < g->count; i++) {
        const struct peer *p = g->peers[i];
        struct name *name =
            p != NULL && p->resolves && !p->gone ? find_name(names, p->number) : NULL;

        if (name != NULL)
            name->seen = true;
        else if (p != NULL && p->resolves && !p->gone)
            add_name(names, p);
    }
    for (n = names->all.next; n != &names->all; n = next) {
        struct name *name = container_of(n, struct name, link);

        next = n->next;
        if (!name->seen)
            free_name(name);
    }
}

static void ask(struct name *name)
{
    struct upstream *g = name->names->group;

    if (*g->resolver_instance == NULL)
        *g->resolver_instance = resolver_new(g->resolver, log_main);
    name->asking = true;
    resolve_start(*g->resolver_instance, &name->query);
}

/* Asks what is due; sets the timer for the next. */
static void run(struct names *names)
{
    uint64_t now_ms = clock_ms(), wait_ms = LOOK_MS;

    upstream_look(names->group);
    if (names->generation != names->group->generation)
        collect(names);
    for (struct list *n = names->all.next; n != &names->all; n = n->next) {
        struct name *name = container_of(n, struct name, link);

        if (name->asking)
            continue;
        if (name->due_ms <= now_ms)
            ask(name);
        else
            wait_ms = MIN(wait_ms, name->due_ms - now_ms);
    }
    timer_set(&names->timer, wait_ms);
}

static void forget(struct names *names)
{
    while (!list_empty(&names->all))
        free_name(container_of(names->all.next, struct name, link));
    names->generation = names->group->generation - 1;
}

static void look(struct timer *timer)
{
    struct names *names = container_of(timer, struct names, timer);
    struct upstream *g = names->group;

    names->asker = shared_office_take(g, offsetof(struct zone_group, asker));
    if (names->asker) {
        run(names);
        return;
    }
    forget(names);
    timer_set(&names->timer, LOOK_MS);
}

/* A worker ------------------------------------------------------------------------------------------- */

void names_start(struct upstream *g)
{
    struct names *names;

    if (g->resolver == NULL || g->zone == NULL)
        return;
    names = g->names = mem_zalloc(sizeof(*names));
    names->group = g;
    list_init(&names->all);
    names->generation = g->generation - 1;
    names->timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = look };
    timer_set(&names->timer, 0);
}

void names_stop(struct upstream *g)
{
    struct names *names = g->names;

    if (names == NULL)
        return;
    g->names = NULL;
    forget(names);
    timer_drop(&names->timer);
    if (names->asker)
        shared_office_leave(g, offsetof(struct zone_group, asker));
    free(names);
}
