/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror: copies of a request, sent in the background to other URIs of the server, whose answers nobody looks at. The
 * client's answer does not wait for them; the log line and the connection's next request do.
 */
#include "core/http/req.h"

/* configure: switch=http_mirror_module default=on */

static unsigned mirror_slot;

struct mirror_conf {
    struct mirror_uris {
        struct str_list list;
        bool off; /* said in so many words */
    } uris;
    bool request_body;
};

static enum verdict mirror_run(struct req *r)
{
    const struct mirror_conf *conf = req_loc_conf(r, mirror_slot);
    const struct str_list *uris = &conf->uris.list;

    if (r != r->main || uris->count == 0)
        return V_NEXT;
    if (conf->request_body) {
        enum verdict v = body_read(r);

        if (v != V_NEXT)
            return v;
    }
    for (unsigned i = 0; i < uris->count; i++) {
        struct req *copy = req_subrequest(r, uris->items[i], r->args,
                                          SUB_BACKGROUND | SUB_HEAD_ONLY | SUB_KEEP_METHOD, NULL,
                                          NULL);

        if (copy == NULL)
            return req_status(r, 500);
        copy->sub_with_body = conf->request_body;
    }
    return V_NEXT;
}

static const char *set_mirror(struct conf *cf, void *field)
{
    struct mirror_uris *uris = field;
    bool off = str_eq(cf->args[1], STR("off"));

    if (uris->off || (off && uris->list.count > 0))
        return conf_error(cf, "\"mirror\" directive is duplicate");
    if (off)
        uris->off = true;
    else
        str_list_add(cf->arena, &uris->list, cf->args[1]);
    return NULL;
}

static bool mirror_wanted(const struct level *level)
{
    const struct mirror_conf *conf = level_conf(level, STORE_LOC, mirror_slot);

    return conf->uris.list.count > 0;
}

static const struct directive directives[] = {
    ROW("mirror", CTX_HSL, ARGS1 | ARG_REPEAT, set_mirror, STORE_LOC, struct mirror_conf, uris,
        INHERIT_WHOLE, "off", "uri | off", "Sends a copy of each request to another URI."),
    ROW("mirror_request_body", CTX_HSL, ARG_FLAG, conf_set_flag, STORE_LOC, struct mirror_conf,
        request_body, INHERIT_SCALAR, "on", "on | off", "Whether copies have the request's body."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_PRECONTENT, HOOK_MIRROR, mirror_run, mirror_wanted },
    HOOK_END,
};

static const struct http_module http_mirror = { .hooks = hooks };

const struct module module_http_mirror = {
    .name = "http_mirror",
    .slot = &mirror_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct mirror_conf) },
    .directives = directives,
    .http = &http_mirror,
};
