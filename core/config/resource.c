/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a configuration asks of the process, collected while it is read: each thing once, however
 * often it is named. Called by setters; the master opens, maps and creates later what stands
 * here. Opens nothing itself.
 */
#include "core/config/parse.h"
#include "core/config/resource.h"
#include "core/os/log_writers.h"

struct resources *resources_new(struct config *config)
{
    struct resources *r = ARENA_NEW(config->arena, struct resources);

    list_init(&r->files);
    list_init(&r->listens);
    list_init(&r->zones);
    list_init(&r->paths);
    list_init(&r->pools);
    list_init(&r->counters);
    table_init(&r->by_path, config->arena);
    table_init(&r->by_addr, config->arena);
    table_init(&r->by_zone, config->arena);
    table_init(&r->by_counters, config->arena);
    return r;
}

struct res_file *res_file(struct config *config, struct str path)
{
    struct resources *r = config->resources;
    struct res_file *f = table_get(&r->by_path, path);

    if (f)
        return f;
    f = ARENA_NEW(config->arena, struct res_file);
    f->file.path = str_dup(config->arena, path);
    f->file.fd = -1;
    list_push_back(&r->files, &f->link);
    table_put(&r->by_path, f->file.path, f);
    return f;
}

/* Targets that are no file stand in the same table under what was written, but in no list. */
static struct log_file *special_target(struct conf *cf, struct str spec, const char **error)
{
    struct resources *r = cf->config->resources;
    struct res_file *f = table_get(&r->by_path, spec);

    if (f)
        return &f->file;
    f = ARENA_NEW(cf->arena, struct res_file);
    f->file.fd = -1;
    if (str_eq(spec, STR("stderr"))) {
        f->file.is_stderr = true;
        f->file.fd = 2;
    } else if (log_file_open_special(cf->arena, spec, &f->file, error)) {
        return NULL;
    }
    table_put(&r->by_path, str_dup(cf->arena, spec), f);
    return &f->file;
}

struct log_file *res_log_file(struct conf *cf, struct str spec, const char **error)
{
    if (spec.len == 0) {
        *error = "an empty log file name";
        return NULL;
    }
    if (str_eq(spec, STR("stderr")) || log_file_is_special(spec))
        return special_target(cf, spec, error);
    return &res_file(cf->config, conf_path(cf, spec, false))->file;
}

struct res_listen *res_listen(struct config *config, const struct addr *addr)
{
    struct resources *r = config->resources;
    struct str text = addr_dup_text(config->arena, addr, true);
    struct res_listen *l = table_get(&r->by_addr, text);

    if (l)
        return l;
    l = ARENA_NEW(config->arena, struct res_listen);
    l->addr = *addr;
    l->text = text;
    l->options = LISTEN_OPTIONS_DEFAULT;
    list_push_back(&r->listens, &l->link);
    table_put(&r->by_addr, text, l);
    return l;
}

struct res_zone *res_zone(struct conf *cf, struct str name, size_t size,
                          const struct zone_kind *kind, const char **error)
{
    struct resources *r = cf->config->resources;
    struct res_zone *z = table_get(&r->by_zone, name);

    if (z == NULL) {
        z = ARENA_NEW(cf->arena, struct res_zone);
        z->spec.name = str_dup(cf->arena, name);
        z->spec.kind = kind;
        z->pos = cf->pos;
        list_push_back(&r->zones, &z->link);
        table_put(&r->by_zone, z->spec.name, z);
    }
    if (z->spec.kind != kind) {
        *error = conf_error(cf,
            "the shared memory zone \"%s\" is already declared for a different use",
            z->spec.name.ptr);
        return NULL;
    }
    if (size && z->spec.size && size != z->spec.size) {
        *error = conf_error(cf,
            "the size %zu of shared memory zone \"%s\" conflicts with already declared size %zu",
            size, z->spec.name.ptr, z->spec.size);
        return NULL;
    }
    if (size && z->spec.size == 0) {
        z->spec.size = size;
        z->pos = cf->pos;
    }
    return z;
}

int res_zones_check(struct conf *cf)
{
    struct list *zones = &cf->config->resources->zones;
    int rc = 0;

    for (struct list *l = zones->next; l != zones; l = l->next) {
        struct res_zone *z = container_of(l, struct res_zone, link);

        if (z->spec.size)
            continue;
        conf_error_at(cf, z->pos, "zero size shared memory zone \"%s\"", z->spec.name.ptr);
        rc = -1;
    }
    return rc;
}

struct res_path *res_path(struct config *config, const struct conf_path *path, struct conf_pos pos)
{
    struct list *paths = &config->resources->paths;
    struct res_path *p;

    for (struct list *l = paths->next; l != paths; l = l->next) {
        p = container_of(l, struct res_path, link);
        if (str_eq(p->path.path, path->path))
            return p;
    }
    p = ARENA_NEW(config->arena, struct res_path);
    p->path = *path;
    p->pos = pos;
    list_push_back(paths, &p->link);
    return p;
}

struct res_pool *res_pool(struct config *config, struct str name, struct conf_pos pos)
{
    struct list *pools = &config->resources->pools;
    struct res_pool *p;

    for (struct list *l = pools->next; l != pools; l = l->next) {
        p = container_of(l, struct res_pool, link);
        if (str_eq(p->name, name))
            return p;
    }
    p = ARENA_NEW(config->arena, struct res_pool);
    p->name = str_dup(config->arena, name);
    p->pos = pos;
    list_push_back(pools, &p->link);
    return p;
}
