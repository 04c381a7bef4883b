/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sub_filter: strings in the body replaced by others. Texts on both sides of a subrequest's output
 * are two texts. The replacing itself is in sub_text.c.
 */
#include "core/http/answer.h"
#include "core/http/mime_types.h"
#include "modules/http/sub_text.h"

/* configure: switch=http_sub_module default=on */

static unsigned sub_slot;

struct sub_pair {
    struct expr *match;
    struct expr *value;
};

struct sub_pairs {
    struct sub_pair *items;
    unsigned count, capacity;
};

struct sub_conf {
    struct sub_pairs pairs;
    struct mime_types types;
    bool once, last_modified;
    struct search *search; /* NULL: some string has variables, so that each request makes its own */
};

struct sub {
    const struct sub_conf *conf;
    struct req *r;
    struct sub_text text;
    const unsigned *pair_of; /* string of the search -> pair; NULL: the same number */
    struct str *values;      /* replacements, evaluated once; ptr NULL: not yet */
};

static struct str value_of(void *data, unsigned which)
{
    struct sub *s = data;
    unsigned pair = s->pair_of != NULL ? s->pair_of[which] : which;
    struct str *value = &s->values[pair];

    if (value->ptr == NULL) {
        *value = expr_eval(&s->r->eval, s->conf->pairs.items[pair].value);
        if (value->ptr == NULL)
            *value = STR("");
    }
    return *value;
}

static enum verdict sub_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct sub *s = ctx;
    struct chain out = CHAIN_INIT;

    (void) r;
    while (chain->first != NULL && !sub_text_over(&s->text)) {
        if (chain->first->kind == PIECE_MEM) {
            sub_text_feed(&s->text, chain, &out);
            continue;
        }
        sub_text_end(&s->text, &out);
        if (chain->first->kind == PIECE_LINK) {
            chain_push_link(&out, chain->first->link);
            chain_drop_link(chain);
        } else {
            chain_take(&out, chain, chain->first->len);
        }
    }
    if (*flags & BODY_END)
        sub_text_end(&s->text, &out);
    chain_append(&out, chain);
    *chain = out;
    return V_NEXT;
}

/* The head ------------------------------------------------------------------------------------- */

/* The strings as they are for this request; those that are empty are left out. False: all are. */
static bool make_search(struct req *r, struct sub *s)
{
    const struct sub_pairs *pairs = &s->conf->pairs;
    struct str *strings;
    unsigned *pair_of, n = 0;
    struct search *search;

    if (s->conf->search != NULL) {
        s->text.search = s->conf->search;
        return true;
    }
    strings = ARENA_ARRAY(r->arena, struct str, pairs->count);
    pair_of = ARENA_ARRAY(r->arena, unsigned, pairs->count);
    for (unsigned i = 0; i < pairs->count; i++) {
        struct str string = expr_eval(&r->eval, pairs->items[i].match);

        if (string.len == 0)
            continue;
        strings[n] = str_lower(r->arena, string);
        pair_of[n++] = i;
    }
    if (n == 0)
        return false;
    search = ARENA_NEW(r->arena, struct search);
    search_init(search, r->arena, strings, n);
    s->text.search = search;
    s->pair_of = pair_of;
    return true;
}

static void release(void *arg)
{
    struct sub *s = arg;

    chain_clear(&s->text.held);
}

static enum head_verdict sub_head(struct req *r, void **ctx)
{
    const struct sub_conf *conf = req_loc_conf(r, sub_slot);
    struct sub *s;

    if (r->out.content_length == 0 || !mime_types_match(&conf->types, r))
        return HEAD_PASS;
    s = ARENA_NEW(r->arena, struct sub);
    s->conf = conf;
    s->r = r;
    if (!make_search(r, s))
        return HEAD_PASS;
    s->values = ARENA_ARRAY(r->arena, struct str, conf->pairs.count);
    sub_text_init(&s->text, r->arena, conf->once, value_of, s);
    arena_defer(r->arena, release, s);
    *ctx = s;
    if (r == r->main)
        answer_body_changes(r, conf->last_modified);
    return HEAD_TAKE;
}

/* Configuration -------------------------------------------------------------------------------- */

static const char *set_sub_filter(struct conf *cf, void *field)
{
    struct sub_pairs *pairs = field;
    struct sub_pair pair;
    const char *error = NULL;

    if (cf->args[1].len == 0)
        return conf_error_arg(cf, 1, "empty search pattern");
    pair.match = expr_compile(cf, cf->args[1], 0, &error);
    if (pair.match == NULL)
        return conf_error_arg(cf, 1, "%s", error);
    pair.value = expr_compile(cf, cf->args[2], 0, &error);
    if (pair.value == NULL)
        return conf_error_arg(cf, 2, "%s", error);
    pairs->items =
        arena_grow(cf->arena, pairs->items, pairs->count, &pairs->capacity, sizeof(*pairs->items));
    pairs->items[pairs->count++] = pair;
    return NULL;
}

static int sub_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct sub_conf *conf = level_conf(level, STORE_LOC, sub_slot);
    const struct sub_conf *above = NULL;
    struct str *strings;

    if (conf == NULL || conf->pairs.count == 0)
        return 0;
    if (parent != NULL && parent->conf[STORE_LOC] != NULL)
        above = level_conf(parent, STORE_LOC, sub_slot);
    if (above != NULL && above->pairs.items == conf->pairs.items) {
        conf->search = above->search;
        return 0;
    }
    strings = ARENA_ARRAY(cf->arena, struct str, conf->pairs.count);
    for (unsigned i = 0; i < conf->pairs.count; i++) {
        struct str text;

        if (!expr_is_literal(conf->pairs.items[i].match, &text))
            return 0;
        strings[i] = str_lower(cf->arena, text);
    }
    conf->search = ARENA_NEW(cf->arena, struct search);
    search_init(conf->search, cf->arena, strings, conf->pairs.count);
    return 0;
}

static bool sub_wanted(const struct level *level)
{
    const struct sub_conf *conf = level_conf(level, STORE_LOC, sub_slot);

    return conf->pairs.count > 0;
}

static const struct directive directives[] = {
    ROW("sub_filter", CTX_HSL, ARGS2 | ARG_REPEAT, set_sub_filter, STORE_LOC, struct sub_conf,
        pairs, INHERIT_WHOLE, NULL, "string replacement",
        "Replaces a string in the body, whatever its case, by another."),
    ROW("sub_filter_types", CTX_HSL, ARGS1_MORE | ARG_REPEAT, conf_set_mime_types, STORE_LOC,
        struct sub_conf, types, INHERIT_WHOLE, "text/html", "mime-type ...",
        "Types of answers that sub_filter works on beside text/html; * is all."),
    ROW("sub_filter_once", CTX_HSL, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC, struct sub_conf,
        once, INHERIT_SCALAR, "on", "on | off", "Replaces each string once only."),
    ROW("sub_filter_last_modified", CTX_HSL, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC,
        struct sub_conf, last_modified, INHERIT_SCALAR, "off", "on | off",
        "Keeps Last-Modified, and a weak ETag, although the body changes."),
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_SUB,
      .head = sub_head,
      .body = sub_body,
      .wanted = sub_wanted,
      .in_memory = true },
    FILTER_END,
};

static const struct http_module http_sub = { .filters = filters };

const struct module module_http_sub = {
    .name = "http_sub",
    .slot = &sub_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct sub_conf) },
    .directives = directives,
    .http = &http_sub,
    .finish = sub_finish,
};
