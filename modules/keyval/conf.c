/* SPDX-License-Identifier: BSD-2-Clause */
/* keyval_zone, for http and whoever else has it. */
#include "modules/keyval/internal.h"

struct res_zone *keyval_refer(struct conf *cf, struct str name, const char **error)
{
    return res_zone(cf, name, 0, &keyval_kind, error);
}

/* "NAME:SIZE" */
static const char *take_zone(struct conf *cf, unsigned arg, struct str text, struct keyval_zone *kz)
{
    ssize_t colon = str_chr(text, ':');
    const char *error = NULL;
    uint64_t size;

    if (colon <= 0 || str_to_size(str_skip(text, (size_t) colon + 1), &size) != 0)
        return conf_error_arg(cf, arg, "invalid zone size \"%.*s\"", STR_ARG(cf->args[arg]));
    if (kz->res != NULL)
        return conf_error_arg(cf, arg, "duplicate parameter \"%.*s\"", STR_ARG(cf->args[arg]));
    text.len = (size_t) colon;
    if (size < ZONE_MIN)
        return conf_error_arg(cf, arg, "zone \"%.*s\" is too small", STR_ARG(text));
    if (size > ZONE_MAX)
        return conf_error_arg(cf, arg, "zone \"%.*s\" is too large", STR_ARG(text));
    kz->res = res_zone(cf, text, (size_t) size, &keyval_kind, &error);
    if (kz->res == NULL)
        return error;
    if (kz->res->spec.data != NULL)
        return conf_error_arg(cf, arg, "duplicate zone \"%.*s\"", STR_ARG(text));
    kz->res->spec.data = kz;
    return NULL;
}

static const char *take_type(struct conf *cf, unsigned arg, struct str text, struct keyval_zone *kz)
{
    static const char *const names[] = { "string", "ip", "prefix" };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eq(text, str_cstr(names[i]))) {
            kz->type = (enum keyval_type) i;
            return NULL;
        }
    }
    return conf_error_arg(cf, arg, "invalid type \"%.*s\"", STR_ARG(text));
}

static const char *take_parameter(struct conf *cf, unsigned arg, struct keyval_zone *kz)
{
    struct str text = cf->args[arg];

    if (str_starts(text, STR("zone=")))
        return take_zone(cf, arg, str_skip(text, 5), kz);
    if (str_starts(text, STR("state=")) && text.len > 6) {
        kz->state = conf_path(cf, str_skip(text, 6), false);
        return NULL;
    }
    if (str_starts(text, STR("timeout="))) {
        if (str_to_ms(str_skip(text, 8), false, &kz->timeout_ms) != 0 || kz->timeout_ms == 0)
            return conf_error_arg(cf, arg, "invalid timeout value \"%.*s\"", STR_ARG(text));
        return NULL;
    }
    if (str_starts(text, STR("type=")))
        return take_type(cf, arg, str_skip(text, 5), kz);
    if (str_eq(text, STR("sync")))
        return conf_error_arg(cf, arg, "\"sync\" of keyval_zone is not supported yet");
    return conf_error_arg(cf, arg, "invalid parameter \"%.*s\"", STR_ARG(text));
}

const char *keyval_set_zone(struct conf *cf, void *field)
{
    struct keyval_zone *kz = ARENA_NEW(cf->arena, struct keyval_zone);
    struct list *zones = &cf->config->resources->zones;

    (void) field;
    kz->pos = cf->pos;
    for (unsigned i = 1; i < cf->nargs; i++) {
        const char *error = take_parameter(cf, i, kz);

        if (error != NULL)
            return error;
    }
    if (kz->res == NULL)
        return conf_error(cf, "\"%.*s\" must have \"zone\" parameter", STR_ARG(cf->args[0]));
    for (struct list *l = zones->next; kz->state.len > 0 && l != zones; l = l->next) {
        const struct res_zone *res = container_of(l, struct res_zone, link);
        const struct keyval_zone *other = res->spec.data;

        if (res->spec.kind == &keyval_kind && other != NULL && other != kz
            && str_eq(other->state, kz->state))
            return conf_error(cf, "state file \"%s\" is that of keyval zone \"%s\" already",
                              kz->state.ptr, res->spec.name.ptr);
    }
    /* Another type is another index, another file other pairs: a zone made anew. */
    kz->res->spec.params = str_printf(cf->arena, "type=%u state=%.*s", (unsigned) kz->type,
                                      STR_ARG(kz->state));
    return NULL;
}
