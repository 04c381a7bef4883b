/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Server side includes: the filter. Text goes on by reference, commands are carried out as they
 * are met, and where one waits, what follows waits here. Pages that are included go through the
 * filter with their own location's settings.
 */
#include "modules/http/ssi.h"

/* configure: switch=http_ssi_module default=on */

/* More than this is not made out of one piece before what has been made is on its way. */
#define OUTPUT_MAX ((uint64_t) 256 * 1024)

unsigned ssi_slot;

struct ssi_main {
    bool used; /* "ssi on" stands somewhere */
};

struct ssi_request *ssi_request(struct req *r)
{
    struct ssi_request *q = req_ctx(r, ssi_slot);

    if (q == NULL) {
        q = ARENA_NEW(r->arena, struct ssi_request);
        req_ctx_set(r, ssi_slot, q, CTX_REQUEST);
    }
    return q;
}

/* Text ----------------------------------------------------------------------------------------- */

/* n bytes at the front of s->in, after those of an opening that was none. */
static void put_text(struct ssi *s, const struct ssi_text *text, struct chain *out)
{
    struct chain piece = CHAIN_INIT;

    chain_push_str(&piece, str_from(SSI_OPENING, text->opening));
    chain_take(&piece, &s->in, text->len);
    if (s->output)
        chain_append(out, &piece);
    else if (!s->block)
        chain_clear(&piece);
    else
        ssi_shared_add(s->shared, &s->current, &piece, &s->r->log);
}

static void end_text(struct ssi *s, struct chain *out)
{
    struct ssi_text text = { ssi_parse_end(&s->parser), 0 };

    if (text.opening > 0)
        put_text(s, &text, out);
    ssi_shared_block_end(s->shared, &s->current);
}

static void put_error(struct ssi *s, struct chain *out)
{
    if (!s->conf->silent_errors)
        chain_push_str(out, s->errmsg);
}

/* Waiting -------------------------------------------------------------------------------------- */

static void cancel(struct wait *w)
{
    struct ssi *s = container_of(w, struct ssi, wait);

    loop_later_cancel(&s->later);
    chain_clear(&s->in);
}

static void go_on(struct ssi *s)
{
    wait_end(&s->wait);
    s->waiting = s->paused = false;
    answer_go_on(s->r);
}

static void ssi_drained(struct req *r, void *ctx)
{
    struct ssi *s = ctx;

    if (s->paused && !answer_full(r, OUTPUT_MAX))
        go_on(s);
}

/*
 * In the turn after: what was made before a pause has been passed on, and some of it may still be
 * there.
 */
static void resume(struct later *later)
{
    struct ssi *s = container_of(later, struct ssi, later);

    if (s->pausing && answer_full(s->r, OUTPUT_MAX))
        s->paused = true;
    else
        go_on(s);
}

static enum verdict begin_wait(struct ssi *s, bool pausing)
{
    s->waiting = true;
    s->pausing = pausing;
    if (pausing)
        loop_later(&s->later);
    wait_begin(s->r, &s->wait, cancel);
    return V_WAIT;
}

void ssi_go_on(struct ssi *s)
{
    if (s->waiting)
        loop_later(&s->later);
}

/* The filter ----------------------------------------------------------------------------------- */

/* One step through the first piece of s->in, which is a MEM piece. */
static enum verdict step(struct ssi *s, struct chain *out)
{
    const struct piece *first = s->in.first;
    enum ssi_result result = SSI_OK;
    struct ssi_text text;
    enum ssi_event event;
    size_t used;

    event = ssi_parse(&s->parser, str_from(first->mem.ptr, (size_t) first->len), &used, &text);
    if (event == SSI_TEXT)
        put_text(s, &text, out);
    chain_consume(&s->in, used - text.len);
    if (event == SSI_COMMAND)
        result = ssi_command(s, out);
    if (event == SSI_BROKEN || result == SSI_FAILED)
        put_error(s, out);
    return result == SSI_WAIT ? V_WAIT : V_NEXT;
}

static enum verdict work(struct ssi *s, struct chain *out)
{
    while (s->in.first != NULL) {
        if (s->in.first->kind == PIECE_MEM) {
            if (step(s, out) == V_WAIT)
                return begin_wait(s, false);
            /* A few signs of a page may make a lot of output. */
            if (out->bytes >= OUTPUT_MAX && s->in.first != NULL)
                return begin_wait(s, true);
        } else if (s->in.first->kind == PIECE_LINK) {
            end_text(s, out);
            chain_push_link(out, s->in.first->link);
            chain_drop_link(&s->in);
        } else {
            chain_take(out, &s->in, s->in.first->len);
        }
    }
    if (s->flags & BODY_END)
        end_text(s, out);
    return V_NEXT;
}

static enum verdict ssi_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct ssi *s = ctx;
    struct chain out = CHAIN_INIT;
    enum verdict v;

    (void) r;
    chain_append(&s->in, chain);
    s->flags |= *flags & BODY_END;
    *flags &= ~(unsigned) BODY_END;
    if (s->waiting)
        return V_WAIT;
    v = work(s, &out);
    chain_append(chain, &out);
    if (v == V_WAIT) {
        *flags |= chain_empty(chain) ? 0 : BODY_FLUSH;
        return v;
    }
    *flags |= s->flags;
    s->flags = 0;
    return V_NEXT;
}

/* The head ------------------------------------------------------------------------------------- */

static bool lookup(void *data, struct str name, struct str *out)
{
    struct ssi *s = data;

    return ssi_shared_get(s->shared, name, out) || var_by_name(&s->r->eval, name, out);
}

static void matched(void *data, const struct regex *re, const struct regex_match *m,
                    struct str subject)
{
    struct ssi *s = data;

    ssi_shared_matched(s->shared, re, m, subject, &s->r->log);
}

static void release(void *arg)
{
    struct ssi *s = arg;

    chain_clear(&s->in);
    ssi_scope_free(&s->scope);
}

static struct ssi *begin(struct req *r, const struct ssi_conf *conf)
{
    struct ssi *s = ARENA_NEW(r->arena, struct ssi);

    s->r = r;
    s->conf = conf;
    s->shared = ssi_shared(r);
    s->parser.arena = r->arena;
    s->parser.log = &r->log;
    s->parser.opening = conf->opening;
    s->parser.value_max = conf->value_length;
    s->scope.log = &r->log;
    s->scope.uri = r->uri;
    s->scope.lookup = lookup;
    s->scope.matched = matched;
    s->scope.data = s;
    s->output = true;
    s->encoding = SSI_ENTITY;
    s->timefmt = SSI_TIMEFMT;
    s->errmsg = STR("[an error occurred while processing the directive]");
    s->later.run = resume;
    arena_defer(r->arena, release, s);
    return s;
}

static enum head_verdict ssi_head(struct req *r, void **ctx)
{
    const struct ssi_conf *conf = req_loc_conf(r, ssi_slot);
    struct ssi *s;

    if (r->out.content_length == 0 || !mime_types_match(&conf->types, r))
        return HEAD_PASS;
    s = begin(r, conf);
    ssi_request(r)->pass = s;
    *ctx = s;
    if (r == r->main)
        answer_body_changes(r, conf->last_modified);
    return HEAD_TAKE;
}

/* Configuration -------------------------------------------------------------------------------- */

static bool ssi_wanted(const struct level *level)
{
    const struct ssi_conf *conf = level_conf(level, STORE_LOC, ssi_slot);

    return conf->enable;
}

static bool stub_wanted(const struct level *level)
{
    const struct ssi_main *m = level_conf(level, STORE_MAIN, ssi_slot);

    return m->used;
}

static int ssi_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct ssi_conf *conf = level_conf(level, STORE_LOC, ssi_slot);
    struct ssi_main *m = level_conf(level, STORE_MAIN, ssi_slot);
    const struct ssi_conf *above = NULL;

    if (conf == NULL || m == NULL)
        return 0;
    if (parent != NULL && parent->conf[STORE_LOC] != NULL)
        above = level_conf(parent, STORE_LOC, ssi_slot);
    conf->opening =
        above != NULL && above->opening != NULL ? above->opening : ssi_opening(cf->arena);
    m->used |= conf->enable;
    return 0;
}

static const struct directive directives[] = {
    ROW("ssi", CTX_HSLI, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC, struct ssi_conf, enable,
        INHERIT_SCALAR, "off", "on | off", "Carries out the commands of server side includes."),
    ROW("ssi_types", CTX_HSL, ARGS1_MORE | ARG_REPEAT, conf_set_mime_types, STORE_LOC,
        struct ssi_conf, types, INHERIT_WHOLE, "text/html", "mime-type ...",
        "Types of answers that may hold commands beside text/html; * is all."),
    ROW("ssi_silent_errors", CTX_HSL, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC, struct ssi_conf,
        silent_errors, INHERIT_SCALAR, "off", "on | off",
        "Says nothing in the page where a command fails."),
    ROW("ssi_value_length", CTX_HSL, ARGS1, conf_set_size, STORE_LOC, struct ssi_conf, value_length,
        INHERIT_SCALAR, "256", "length", "Bounds the values of parameters of commands."),
    ROW("ssi_last_modified", CTX_HSL, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC, struct ssi_conf,
        last_modified, INHERIT_SCALAR, "off", "on | off",
        "Keeps Last-Modified, and a weak ETag, although the body changes."),
    ROW("ssi_min_file_chunk", CTX_HSL, ARGS1, conf_set_size, STORE_LOC, struct ssi_conf,
        min_file_chunk, INHERIT_SCALAR, "1k", "size",
        "From which size on parts are sent from the file. Accepted; parts here refer to what was read."),
    ROW("ssi_ignore_recycled_buffers", CTX_HSL, ARGS1 | ARG_FLAG, conf_set_flag, STORE_LOC,
        struct ssi_conf, ignore_recycled_buffers, INHERIT_SCALAR, "off", "on | off",
        "Accepted; buffers here are shared by reference and none is held up."),
    ROW_END,
};

static const struct filter filters[] = {
    { .rank = FILTER_SLICE, .head = ssi_stub_head, .body = ssi_stub_body, .wanted = stub_wanted },
    { .rank = FILTER_SSI,
      .head = ssi_head,
      .body = ssi_body,
      .drained = ssi_drained,
      .wanted = ssi_wanted,
      .in_memory = true },
    FILTER_END,
};

static const struct http_module http_ssi = { .variables = ssi_variables, .filters = filters };

const struct module module_http_ssi = {
    .name = "http_ssi",
    .slot = &ssi_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct ssi_main), [STORE_LOC] = sizeof(struct ssi_conf) },
    .directives = directives,
    .http = &http_ssi,
    .finish = ssi_finish,
};
