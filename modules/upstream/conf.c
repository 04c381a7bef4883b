/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings that all families of directives share (UPSTREAM_ROWS): setters and what follows from the
 * values once they are inherited. Called by the modules whose tables hold the rows.
 */
#include <linux/capability.h>

#include "modules/upstream/internal.h"

const struct conf_enum upstream_next_names[] = {
    { "error", NEXT_ERROR },
    { "timeout", NEXT_TIMEOUT },
    { "denied", NEXT_DENIED },
    { "invalid_header", NEXT_INVALID_HEADER },
    { "http_500", NEXT_HTTP_500 },
    { "http_502", NEXT_HTTP_502 },
    { "http_503", NEXT_HTTP_503 },
    { "http_504", NEXT_HTTP_504 },
    { "http_403", NEXT_HTTP_403 },
    { "http_404", NEXT_HTTP_404 },
    { "http_429", NEXT_HTTP_429 },
    { "non_idempotent", NEXT_NON_IDEMPOTENT },
    { "off", NEXT_OFF },
    { NULL, 0 },
};

const struct conf_enum upstream_ignore_names[] = {
    { "X-Accel-Redirect", IGNORE_XA_REDIRECT },
    { "X-Accel-Expires", IGNORE_XA_EXPIRES },
    { "X-Accel-Limit-Rate", IGNORE_XA_LIMIT_RATE },
    { "X-Accel-Buffering", IGNORE_XA_BUFFERING },
    { "X-Accel-Charset", IGNORE_XA_CHARSET },
    { "Expires", IGNORE_EXPIRES },
    { "Cache-Control", IGNORE_CACHE_CONTROL },
    { "Set-Cookie", IGNORE_SET_COOKIE },
    { "Vary", IGNORE_VARY },
    { NULL, 0 },
};

const struct conf_enum upstream_buffering_names[] = {
    { "on", BUFFERING_ON },
    { "off", BUFFERING_OFF },
    { "auto", BUFFERING_AUTO },
    { NULL, 0 },
};

const struct conf_enum upstream_protocol_names[] = {
    { "off", 0 },
    { "v1", 1 },
    { "v2", 2 },
    { NULL, 0 },
};

const char *upstream_set_socket_size(struct conf *cf, void *field)
{
    const char *error = conf_set_size(cf, field);

    if (error == NULL && *(size_t *) field > INT32_MAX)
        return conf_error_arg(cf, 1, "invalid value");
    return error;
}

int upstream_bind_parse(struct addr *addr, struct str text)
{
    bool with_port = addr_parse(addr, text, 0, false) == 0;

    if (!with_port && addr_parse(addr, text, 1, false) != 0)
        return -1;
    if (addr->sa.sa_family == AF_UNIX)
        return -1;
    if (!with_port)
        addr_set_port(addr, 0);
    return 0;
}

const char *upstream_set_bind(struct conf *cf, void *field)
{
    struct upstream_bind *b = field;
    const char *error = NULL;
    struct str literal;
    struct addr addr;

    if (cf->nargs == 2 && str_eq(cf->args[1], STR("off")))
        return NULL;
    b->addr = expr_compile(cf, cf->args[1], 0, &error);
    if (b->addr == NULL)
        return error;
    if (expr_is_literal(b->addr, &literal) && upstream_bind_parse(&addr, literal) != 0)
        return conf_error_arg(cf, 1, "invalid address \"%s\"", cf->args[1].ptr);
    if (cf->nargs == 3) {
        if (!str_eq(cf->args[2], STR("transparent")))
            return conf_error_arg(cf, 2, "invalid parameter \"%s\"", cf->args[2].ptr);
        b->transparent = true;
        cf->config->resources->capabilities |= UINT64_C(1) << CAP_NET_RAW;
    }
    return NULL;
}

const char *upstream_set_allow(struct conf *cf, void *field)
{
    struct upstream_allow *a = field;

    a->name = cf->args[0];
    a->pos = cf->pos;
    return conf_set_exprs(cf, &a->conditions);
}

static void hide(struct arena *arena, struct hidden_fields *h, unsigned *capacity, struct str name,
                 bool on)
{
    uint32_t hash;
    enum token t = token_lookup(name, &hash);

    if (t != T_NONE) {
        h->token[t] = on ? FIELD_HIDDEN : 0;
        return;
    }
    for (unsigned i = 0; i < h->count; i++) {
        if (h->hashes[i] != hash || !str_caseeq(h->names[i], name))
            continue;
        if (!on) {
            h->count--;
            h->names[i] = h->names[h->count];
            h->hashes[i] = h->hashes[h->count];
        }
        return;
    }
    if (!on)
        return;
    if (h->count == *capacity) {
        unsigned more = *capacity ? *capacity * 2 : 8;
        struct str *names = ARENA_ARRAY(arena, struct str, more);
        uint32_t *hashes = ARENA_ARRAY(arena, uint32_t, more);

        for (unsigned i = 0; i < h->count; i++) {
            names[i] = h->names[i];
            hashes[i] = h->hashes[i];
        }
        h->names = names;
        h->hashes = hashes;
        *capacity = more;
    }
    h->names[h->count] = name;
    h->hashes[h->count++] = hash;
}

/* What does not depend on the configuration. */
static const struct {
    unsigned char token, how;
} fixed_fields[] = {
    { T_CONNECTION, FIELD_HOP }, { T_KEEP_ALIVE, FIELD_HOP }, { T_PROXY_CONNECTION, FIELD_HOP },
    { T_TE, FIELD_HOP }, { T_TRANSFER_ENCODING, FIELD_HOP }, { T_CONTENT_LENGTH, FIELD_HOP },
    { T_UPGRADE, FIELD_LOOK }, { T_TRAILER, FIELD_LOOK }, { T_ACCEPT_RANGES, FIELD_LOOK },
    { T_LOCATION, FIELD_LOOK }, { T_REFRESH, FIELD_LOOK }, { T_SET_COOKIE, FIELD_LOOK },
    { T_CONTENT_TYPE, FIELD_LOOK }, { T_SERVER, FIELD_PLACE }, { T_DATE, FIELD_PLACE },
    { T_LAST_MODIFIED, FIELD_PLACE }, { T_VARY, FIELD_PLACE },
};

/* The family's own list and *_hide_header, less *_pass_header. */
static const struct hidden_fields *make_hidden(struct arena *arena, const struct upstream_conf *uc,
                                               const char *const *own)
{
    struct hidden_fields *h = ARENA_NEW(arena, struct hidden_fields);
    unsigned capacity = 0;

    for (; *own != NULL; own++)
        hide(arena, h, &capacity, str_cstr(*own), true);
    for (unsigned i = 0; i < uc->hide_headers.count; i++)
        hide(arena, h, &capacity, uc->hide_headers.items[i], true);
    for (unsigned i = 0; i < uc->pass_headers.count; i++)
        hide(arena, h, &capacity, uc->pass_headers.items[i], false);
    for (unsigned i = 0; i < ARRAY_LEN(fixed_fields); i++)
        h->token[fixed_fields[i].token] |= fixed_fields[i].how;
    return h;
}

static size_t largest_of(const struct upstream_conf *uc)
{
    return MAX(uc->buffer_size, uc->buffers.size);
}

/* Sizes that do not fit each other. */
static const char *find_misfit(const struct upstream_conf *uc, struct arena *arena, const char *f)
{
    size_t largest = largest_of(uc);
    struct str larger = str_printf(arena, "must be equal to or greater than the maximum of the value "
                                          "of \"%s_buffer_size\" and one of the \"%s_buffers\"",
                                   f, f);

    if (uc->buffers.count < 2)
        return str_printf(arena, "there must be at least 2 \"%s_buffers\"", f).ptr;
    if (uc->busy < largest)
        return str_printf(arena, "\"%s_busy_buffers_size\" %s", f, larger.ptr).ptr;
    if (uc->busy_buffers_size && uc->busy > (uc->buffers.count - 1) * uc->buffers.size)
        return str_printf(arena, "\"%s_busy_buffers_size\" must be less than the size of all "
                                 "\"%s_buffers\" minus one buffer", f, f).ptr;
    if (uc->write_size < largest)
        return str_printf(arena, "\"%s_temp_file_write_size\" %s", f, larger.ptr).ptr;
    if (uc->max_temp_file_size != 0 && uc->max_temp_file_size < largest)
        return str_printf(arena, "\"%s_max_temp_file_size\" must be equal to zero to disable "
                                 "temporary files usage or %s", f, larger.ptr).ptr;
    return NULL;
}

int upstream_conf_finish(struct conf *cf, struct level *level, struct upstream_conf *uc,
                         const struct upstream_conf *parent, const char *family,
                         const char *const *own)
{
    size_t largest = largest_of(uc);
    const char *misfit;

    uc->memory = uc->buffer_size + uc->buffers.count * uc->buffers.size;
    uc->busy = uc->busy_buffers_size ? uc->busy_buffers_size : 2 * largest;
    uc->write_size = uc->temp_file_write_size ? uc->temp_file_write_size : 2 * largest;
    uc->hidden = make_hidden(cf->arena, uc, own);
    misfit = find_misfit(uc, cf->arena, family);
    if (misfit == NULL)
        return 0;
    if (parent == NULL || find_misfit(parent, cf->arena, family) == NULL)
        conf_error_at(cf, level->pos, "%s", misfit);
    return -1;
}
