/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * browser: $modern_browser, $ancient_browser and $msie from what User-Agent says. The first of the known
 * browsers, in the order of the table below, whose name stands where such browsers put it decides
 * by its version.
 */
#include "core/http/req.h"

/* configure: switch=http_browser_module default=on */

static unsigned browser_slot;

enum { OPERA, MSIE, GECKO, SAFARI, KONQUEROR, BROWSERS };

/* Opera comes first: it has called itself all the others. */
static const struct browser {
    struct str name;  /* in the configuration */
    struct str start; /* the mark is not looked for before the length of this */
    struct str mark;  /* the version follows */
    size_t gap;       /* bytes between the mark and the version */
} browsers[BROWSERS] = {
    [OPERA] = { STR_INIT("opera"), STR_INIT(""), STR_INIT("Opera"), 1 },
    [MSIE] = { STR_INIT("msie"), STR_INIT("Mozilla/4.0 (compatible; "), STR_INIT("MSIE "), 0 },
    [GECKO] = { STR_INIT("gecko"), STR_INIT("Mozilla/5.0 ("), STR_INIT("rv:"), 0 },
    [SAFARI] = { STR_INIT("safari"), STR_INIT("Mozilla/5.0 ("), STR_INIT("Safari/"), 0 },
    [KONQUEROR] = { STR_INIT("konqueror"), STR_INIT("Mozilla/5.0 (compatible; "),
                    STR_INIT("Konqueror/"), 0 },
};

struct modern {
    bool listed[BROWSERS];
    uint64_t version[BROWSERS]; /* the lowest that is modern */
    bool any, unlisted;
};

struct browser_conf {
    struct modern modern;
    struct str_list ancient;
    bool netscape4;
    struct str modern_value, ancient_value;
};

enum kind { KIND_MODERN = 1, KIND_ANCIENT };

/* Judging ---------------------------------------------------------------------------------------- */

/*
 * The version at the front of text: "5.5" is 5050000, two decimal places for each of the lower three parts. *end: where
 * the first byte stands that does not belong to it.
 */
static uint64_t take_version(struct str text, size_t *end)
{
    uint64_t version = 0, part = 0, scale = 1000000;
    size_t i;

    for (i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == '.') {
            version += part * scale;
            part = 0;
            scale /= 100;
        } else if (c >= '0' && c <= '9') {
            part = MIN(part, 100000000) * 10 + (uint64_t) (c - '0');
        } else {
            break;
        }
    }
    *end = i;
    return version + part * scale;
}

/* What follows the browser's mark; nothing: it is another browser. */
static struct str find_mark(const struct browser *b, struct str agent)
{
    struct str rest;
    ssize_t at;

    if (agent.len <= b->start.len)
        return STR_NULL;
    rest = str_skip(agent, b->start.len);
    at = str_find(rest, b->mark);
    if (at < 0)
        return STR_NULL;
    rest = str_skip(rest, (size_t) at + b->mark.len);
    return str_skip(rest, MIN(b->gap, rest.len));
}

/* "^Mozilla/[1-4]" */
static bool is_netscape4(struct str agent)
{
    return agent.len > sizeof("Mozilla/1 ") - 1 && str_starts(agent, STR("Mozilla/"))
           && agent.ptr[8] > '0' && agent.ptr[8] < '5';
}

static bool is_ancient(const struct browser_conf *conf, struct str agent)
{
    for (unsigned i = 0; i < conf->ancient.count; i++) {
        if (str_find(agent, conf->ancient.items[i]) >= 0)
            return true;
    }
    return conf->netscape4 && is_netscape4(agent);
}

static enum kind judge(const struct browser_conf *conf, const struct field *agent)
{
    const struct modern *modern = &conf->modern;

    /* A browser of the list decides; so does Opera, listed or not, lest it be taken for another. */
    for (unsigned i = 0; agent != NULL && modern->any && i < BROWSERS; i++) {
        struct str rest;
        uint64_t version;
        size_t end;

        if (!modern->listed[i] && i != OPERA)
            continue;
        rest = find_mark(&browsers[i], agent->value);
        if (rest.len == 0)
            continue;
        version = take_version(rest, &end);
        return modern->listed[i] && version >= modern->version[i] ? KIND_MODERN : KIND_ANCIENT;
    }
    if (agent != NULL && is_ancient(conf, agent->value))
        return KIND_ANCIENT;
    return modern->unlisted ? KIND_MODERN : KIND_ANCIENT;
}

static bool get_browser(struct eval *e, const struct var *v, struct str *out)
{
    const struct req *r = req_of(e);
    const struct browser_conf *conf = req_loc_conf(r, browser_slot);

    *out = STR("");
    if (judge(conf, fields_get(&r->in->fields, T_USER_AGENT)) == (enum kind) v->data)
        *out = v->data == KIND_MODERN ? conf->modern_value : conf->ancient_value;
    return true;
}

static bool get_msie(struct eval *e, const struct var *v, struct str *out)
{
    struct str agent = fields_value(&req_of(e)->in->fields, T_USER_AGENT);
    ssize_t at = str_find(agent, STR("MSIE "));

    (void) v;
    *out = STR("");
    if (at >= 0 && (size_t) at + 7 < agent.len && str_find(agent, STR("Opera")) < 0)
        *out = STR("1");
    return true;
}

/* Configuration ---------------------------------------------------------------------------------- */

static const char *set_modern(struct conf *cf, void *field)
{
    struct modern *modern = field;
    struct str name = cf->args[1], version;
    size_t end;

    if (cf->nargs == 2) {
        if (!str_eq(name, STR("unlisted")))
            return conf_error_arg(cf, 1, "invalid parameter \"%s\"", name.ptr);
        modern->unlisted = true;
        return NULL;
    }
    version = cf->args[2];
    take_version(version, &end);
    if (end < version.len)
        return conf_error_arg(cf, 2, "invalid browser version \"%s\"", version.ptr);
    for (unsigned i = 0; i < BROWSERS; i++) {
        if (!str_eq(name, browsers[i].name))
            continue;
        /* The first of several counts. */
        if (!modern->listed[i])
            modern->version[i] = take_version(version, &end);
        modern->listed[i] = modern->any = true;
        return NULL;
    }
    return conf_error_arg(cf, 1, "unknown browser name \"%s\"", name.ptr);
}

static const char *set_ancient(struct conf *cf, void *field)
{
    struct browser_conf *conf = container_of(field, struct browser_conf, ancient);

    for (unsigned i = 1; i < cf->nargs; i++) {
        if (str_eq(cf->args[i], STR("netscape4")))
            conf->netscape4 = true;
        else
            str_list_add(cf->arena, &conf->ancient, str_dup(cf->arena, cf->args[i]));
    }
    return NULL;
}

static const struct var_row variables[] = {
    { "modern_browser", get_browser, NULL, KIND_MODERN, VAR_CHANGEABLE },
    { "ancient_browser", get_browser, NULL, KIND_ANCIENT, VAR_CHANGEABLE },
    { "msie", get_msie, NULL, 0, VAR_CHANGEABLE },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct directive directives[] = {
    ROW("modern_browser", CTX_HSL, ARGS12 | ARG_REPEAT, set_modern, STORE_LOC, struct browser_conf,
        modern, INHERIT_WHOLE, NULL, "browser version | unlisted",
        "From which version on a browser is modern."),
    ROW("ancient_browser", CTX_HSL, ARGS1_MORE | ARG_REPEAT, set_ancient, STORE_LOC,
        struct browser_conf, ancient, INHERIT_WHOLE, NULL, "string ...",
        "What makes a browser ancient when it is found in User-Agent.", .group = 1),
    /* Written by the same setter: it travels along. */
    { .name = ".netscape4", .store = STORE_LOC,
      .offset = offsetof(struct browser_conf, netscape4), .size = sizeof(bool),
      .inherit = INHERIT_WHOLE, .group = 1 },
    ROW("modern_browser_value", CTX_HSL, ARGS1 | ARG_REPEAT, conf_set_str, STORE_LOC,
        struct browser_conf, modern_value, INHERIT_SCALAR, "1", "string",
        "What $modern_browser is for a modern browser."),
    ROW("ancient_browser_value", CTX_HSL, ARGS1 | ARG_REPEAT, conf_set_str, STORE_LOC,
        struct browser_conf, ancient_value, INHERIT_SCALAR, "1", "string",
        "What $ancient_browser is for an ancient one."),
    ROW_END,
};

static const struct http_module http_browser = { .variables = variables };

const struct module module_http_browser = {
    .name = "http_browser",
    .slot = &browser_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct browser_conf) },
    .directives = directives,
    .http = &http_browser,
};
