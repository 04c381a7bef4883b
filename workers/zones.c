/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The zones of a configuration: the same zone goes on across a reload and, by its descriptor, in a
 * new binary; another size makes it anew; another key of a limit is refused, since the counts would
 * then mean something else. Called by the master only.
 */
#include <errno.h>
#include <unistd.h>

#include "core/base/fmt.h"
#include "core/config/resource.h"
#include "core/os/socket.h"
#include "workers/cycle.h"
#include "workers/internal.h"

struct inherited_zone {
    struct list link;
    int fd;
    struct str name; /* allocated together with the structure */
};

static struct list heirlooms = { &heirlooms, &heirlooms };

#define EACH_ZONE(config, z) \
    for (struct list *z##_l = (config)->resources->zones.next; \
         z##_l != &(config)->resources->zones && \
         (z = container_of(z##_l, struct res_zone, link), true); z##_l = z##_l->next)

static struct res_zone *find(const struct config *config, struct str name)
{
    struct res_zone *z;

    if (!config)
        return NULL;
    EACH_ZONE(config, z) {
        if (str_eq(z->spec.name, name))
            return z;
    }
    return NULL;
}

/* "key=$remote_addr" without "key=". */
static struct str key_of(struct str params)
{
    return str_starts(params, STR("key=")) ? str_skip(params, 4) : STR_NULL;
}

static bool refused(const struct res_zone *z, const struct res_zone *old)
{
    struct str now = key_of(z->spec.params), before = key_of(old->spec.params);

    if (!now.ptr || !before.ptr || z->spec.kind != old->spec.kind || str_eq(now, before))
        return false;
    log_emerg(log_main, 0,
              "%s \"%.*s\" uses the \"%.*s\" key while previously it used the \"%.*s\" key",
              z->spec.kind->name, STR_ARG(z->spec.name), STR_ARG(now), STR_ARG(before));
    return true;
}

static struct zone *attach(const struct res_zone *z)
{
    for (struct list *l = heirlooms.next; l != &heirlooms; l = l->next) {
        struct inherited_zone *h = container_of(l, struct inherited_zone, link);
        struct zone *zone;

        if (!str_eq(h->name, z->spec.name))
            continue;
        zone = zone_attach(h->fd, &z->spec, log_main);
        if (!zone)
            return NULL; /* the descriptor goes with zones_forget */
        list_remove(&h->link);
        free(h);
        if (zone_adopt(zone, &z->spec, log_main) == 0)
            return zone;
        zone_destroy(zone);
        return NULL;
    }
    return NULL;
}

static int open_zone(struct res_zone *z, const struct config *old)
{
    struct res_zone *before = find(old, z->spec.name);

    if (z->spec.size == 0)
        return 0; /* named but not defined: the modules have said so */
    if (before && before->zone) {
        if (zone_matches(before->zone, &z->spec)) {
            if (zone_adopt(before->zone, &z->spec, log_main))
                return -1;
            z->zone = zone_share(before->zone);
            return 0;
        }
        if (refused(z, before))
            return -1;
    }
    z->zone = attach(z);
    if (!z->zone)
        z->zone = zone_create(&z->spec, log_main);
    return z->zone ? 0 : -1;
}

int zones_open(struct config *config, const struct config *old)
{
    struct res_zone *z;

    EACH_ZONE(config, z) {
        if (open_zone(z, old)) {
            zones_close(config, old);
            return -1;
        }
    }
    return 0;
}

int zones_try(const struct config *config)
{
    const struct res_zone *z;

    EACH_ZONE(config, z) {
        struct zone *zone;

        if (z->spec.size == 0 || !z->spec.kind->tried)
            continue;
        zone = zone_create(&z->spec, log_main);
        if (zone == NULL)
            return -1;
        zone_destroy(zone);
    }
    return 0;
}

void zones_close(struct config *config, const struct config *restore)
{
    struct res_zone *z;

    EACH_ZONE(config, z) {
        struct res_zone *theirs = z->zone ? find(restore, z->spec.name) : NULL;

        /* What was adopted for this configuration is the other one's again. */
        if (theirs && theirs->zone == z->zone)
            zone_adopt(theirs->zone, &theirs->spec, log_main);
        zone_destroy(z->zone);
        z->zone = NULL;
    }
}

void zones_worker_gone(const struct config *config, unsigned slot)
{
    struct res_zone *z;

    EACH_ZONE(config, z) {
        if (z->zone)
            zone_worker_gone(z->zone, slot, log_main);
    }
}

/* To a new binary ------------------------------------------------------------------------- */

struct str zones_export(struct arena *arena, const struct config *config)
{
    struct str all = str_dup(arena, STR(""));
    struct res_zone *z;

    EACH_ZONE(config, z) {
        struct str name = fmt_escape_dup(arena, z->spec.name, FMT_ESCAPE_URI_COMPONENT);

        if (z->zone)
            all = str_printf(arena, "%.*s%.*s:%d;", STR_ARG(all), STR_ARG(name),
                             zone_fd(z->zone));
    }
    return all;
}

void zones_cloexec(const struct config *config, bool on)
{
    struct res_zone *z;

    EACH_ZONE(config, z) {
        if (z->zone)
            socket_cloexec(zone_fd(z->zone), on);
    }
}

static void inherit_one(struct str name, struct str number)
{
    struct inherited_zone *h;
    uint64_t fd;
    char *copy;

    if (str_to_u64(number, &fd) || fd > INT32_MAX || socket_cloexec((int) fd, true)) {
        log_alert(log_main, 0, "invalid zone descriptor \"%.*s\" was inherited", STR_ARG(number));
        return;
    }
    h = mem_zalloc(sizeof(*h) + name.len);
    copy = (char *) (h + 1);
    h->fd = (int) fd;
    h->name = str_from(copy, (size_t) (fmt_unescape(copy, name) - copy));
    list_push_back(&heirlooms, &h->link);
}

void zones_inherit(const char *text)
{
    struct str rest = str_cstr(text);

    while (rest.len) {
        ssize_t end = str_chr(rest, ';');
        struct str item = str_from(rest.ptr, end < 0 ? rest.len : (size_t) end);
        ssize_t colon = str_rchr(item, ':');

        if (colon > 0)
            inherit_one(str_from(item.ptr, (size_t) colon), str_skip(item, (size_t) colon + 1));
        rest = str_skip(rest, end < 0 ? rest.len : (size_t) end + 1);
    }
}

void zones_forget(void)
{
    struct list *l;

    while ((l = list_pop_front(&heirlooms)) != NULL) {
        struct inherited_zone *h = container_of(l, struct inherited_zone, link);

        close(h->fd);
        free(h);
    }
}
