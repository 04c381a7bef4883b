/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * slice: a large content fetched in parts of one size, each by a request of its own with a Range that $slice_range
 * names (RFC 9110, 14). The first part's 206 is turned into the 200 of the whole, which the range filter may
 * cut for the client; then each further part that is needed is asked for by a clone of the request, whose output follows.
 */
#include "core/http/answer.h"

/* configure: switch=http_slice_module default=on */

/* The next part is asked for when less than this waits for the client. */
#define SLICE_AHEAD ((uint64_t) 64 * 1024)

static unsigned slice_slot;

struct slice_conf {
    size_t size; /* 0: off */
};

/* Of the main request, and of all parts. */
struct slicing {
    struct req *main;
    uint64_t start; /* of the part that is asked for next; before its head has come: of this one */
    uint64_t end;   /* of what the client gets */
    uint64_t length; /* of the whole content */
    uint64_t part_end; /* of the part under way */
    uint64_t at;    /* bytes of the content that its body has brought so far */
    struct str range; /* $slice_range */
    struct str etag;
    bool active; /* the part that was asked for has answered with what it should */
    bool useless; /* the first part that was asked for is none that is needed now */
    bool waits;  /* the first part is over, the end is withheld */
    bool fetching; /* a clone is at work */
    struct later later;
    struct wait wait;
};

struct content_range {
    uint64_t start, end; /* [start, end) */
    uint64_t length;
    bool has_length;
};

/* Ranges ------------------------------------------------------------------------------------------- */

static bool take_number(struct str *s, uint64_t *out)
{
    size_t n = 0;

    while (s->len > 0 && s->ptr[0] == ' ')
        *s = str_skip(*s, 1);
    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (str_to_u64(str_from(s->ptr, n), out) != 0 || *out > INT64_MAX)
        return false;
    *s = str_skip(*s, n);
    while (s->len > 0 && s->ptr[0] == ' ')
        *s = str_skip(*s, 1);
    return true;
}

static bool take_sign(struct str *s, char sign)
{
    if (s->len == 0 || s->ptr[0] != sign)
        return false;
    *s = str_skip(*s, 1);
    return true;
}

/* "bytes first-last/length" (RFC 9110, 14.4). */
static bool parse_content_range(struct str s, struct content_range *cr)
{
    uint64_t last;

    if (!str_starts(s, STR("bytes ")))
        return false;
    s = str_skip(s, 6);
    if (!take_number(&s, &cr->start) || !take_sign(&s, '-') || !take_number(&s, &last)
        || !take_sign(&s, '/') || last < cr->start || last == INT64_MAX)
        return false;
    cr->end = last + 1;
    cr->has_length = !(s.len > 0 && s.ptr[0] == '*');
    if (!cr->has_length)
        return str_trim(str_skip(s, 1)).len == 0;
    return take_number(&s, &cr->length) && s.len == 0 && cr->end <= cr->length;
}

/* Where the client's Range begins, as far as one can say before the length is known; else 0. */
static uint64_t client_start(const struct req *r)
{
    struct str value = fields_value(&r->in->fields, T_RANGE);
    uint64_t start;

    if (!str_casestarts(value, STR("bytes=")) || str_chr(value, ',') >= 0
        || fields_get(&r->in->fields, T_IF_RANGE) != NULL || r->loc->core->max_ranges == 0)
        return 0;
    value = str_skip(value, 6);
    return take_number(&value, &start) ? start : 0;
}

static void set_range(struct slicing *s, size_t size)
{
    s->range = str_printf(s->main->arena, "bytes=%llu-%llu", (unsigned long long) s->start,
                          (unsigned long long) (s->start + size - 1));
}

static void later_run(struct later *later);

/* Asking for the variable is what begins it: without it the server is not asked for parts. */
static bool get_slice_range(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct slice_conf *conf = req_loc_conf(r, slice_slot);
    struct slicing *s = req_ctx(r, slice_slot);

    (void) v;
    if (s == NULL) {
        if (r != r->main || r->answer_started || conf->size == 0)
            return false;
        s = ARENA_NEW(r->arena, struct slicing);
        s->main = r;
        s->later.run = later_run;
        s->start = client_start(r) / conf->size * conf->size;
        set_range(s, conf->size);
        req_ctx_set(r, slice_slot, s, CTX_PASS);
    }
    *out = s->range;
    return true;
}

/* Heads ---------------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with a part's answer. */
static const char *judge_part(struct req *r, struct slicing *s, size_t size,
                              struct content_range *cr)
{
    struct str etag = fields_value(&r->out.fields, T_ETAG);
    uint64_t end;

    if (s->etag.len > 0 && !str_eq(s->etag, etag))
        return "etag mismatch in slice response";
    if (!parse_content_range(fields_value(&r->out.fields, T_CONTENT_RANGE), cr))
        return "invalid range in slice response";
    if (!cr->has_length)
        return "no complete length in slice response";
    end = MIN(s->start + size, cr->length);
    if (cr->start != s->start || cr->end != end)
        return str_printf(r->arena, "unexpected range in slice response: %llu-%llu",
                          (unsigned long long) cr->start, (unsigned long long) cr->end)
            .ptr;
    if (etag.len > 0)
        s->etag = str_dup(r->arena, etag);
    return NULL;
}

/* A part's answer becomes that of the whole, which begins at an offset. */
static void make_whole(struct req *r, const struct content_range *cr)
{
    r->out.status = 200;
    r->out.reason = STR_NULL;
    answer_clear_length(r);
    r->out.content_length = (int64_t) cr->length;
    fields_delete(&r->out.fields, T_CONTENT_RANGE);
    fields_delete(&r->out.fields, T_ACCEPT_RANGES);
    r->content_offset = cr->start;
    r->allow_ranges = true;
    r->single_range = true;
    r->ranges_of_main = true;
}

static enum head_verdict slice_head(struct req *r, void **ctx)
{
    const struct slice_conf *conf = req_loc_conf(r, slice_slot);
    struct slicing *s = req_ctx(r, slice_slot);
    struct content_range cr;
    const char *wrong;

    if (s == NULL)
        return HEAD_PASS;
    if (r->out.status != 206) {
        if (r == r->main) { /* the server does not do parts, or has none: its answer as it is */
            req_ctx_set(r, slice_slot, NULL, CTX_PASS);
            return HEAD_PASS;
        }
        log_error(&r->log, 0, "unexpected status code %u in slice response", r->out.status);
        return HEAD_FAIL;
    }
    wrong = judge_part(r, s, conf->size, &cr);
    if (wrong != NULL) {
        log_error(&r->log, 0, "%s", wrong);
        return HEAD_FAIL;
    }
    s->at = cr.start;
    s->start = s->part_end = cr.end;
    s->length = cr.length;
    s->active = true;
    make_whole(r, &cr);
    *ctx = s;
    return HEAD_TAKE;
}

/* When the range filter has spoken: which parts are needed at all. */
static enum head_verdict slice_after_head(struct req *r, void **ctx)
{
    const struct slice_conf *conf = req_loc_conf(r, slice_slot);
    struct slicing *s = req_ctx(r, slice_slot);

    (void) ctx;
    if (s == NULL || r != r->main || !s->active)
        return HEAD_PASS;
    if (r->out.status != 206) {
        s->end = s->length;
        if (s->at > 0) { /* the client's Range does not hold after all: the part was not the first */
            s->useless = true;
            s->start = 0;
        }
        return HEAD_PASS;
    }
    if (s->start + conf->size <= r->content_offset)
        s->start = r->content_offset / conf->size * conf->size;
    s->end = r->content_offset + (uint64_t) r->out.content_length;
    return HEAD_PASS;
}

/* Parts ---------------------------------------------------------------------------------------------- */

static void cancel(struct wait *w)
{
    struct slicing *s = container_of(w, struct slicing, wait);

    loop_later_cancel(&s->later);
}

static void drained(struct req *main)
{
    struct slicing *s = req_ctx(main, slice_slot);

    main->on_drain = NULL;
    if (s != NULL)
        loop_later(&s->later);
}

static void part_done(struct req *child, void *data)
{
    struct slicing *s = data;

    (void) child;
    s->fetching = false;
    loop_later(&s->later);
}

/* Everything has been fetched: the end that was withheld. */
static void finish(struct slicing *s)
{
    struct req *main = s->main;
    struct chain none = CHAIN_INIT;

    s->waits = false;
    wait_end(&s->wait);
    req_ctx_set(main, slice_slot, NULL, CTX_PASS);
    if (answer_body(main, &none, BODY_END) == V_ABORT)
        req_abort(main, 0);
}

static void fetch(struct slicing *s)
{
    struct req *main = s->main;
    const struct slice_conf *conf = req_loc_conf(main, slice_slot);
    struct chain place = CHAIN_INIT;
    struct req *child = req_subrequest(main, main->uri, main->args, SUB_CLONE, part_done, s);

    if (child == NULL) {
        req_abort(main, 0);
        return;
    }
    set_range(s, conf->size);
    s->active = false;
    s->fetching = true;
    /* For as long as it lives, and without error_page: a page instead of the part must not pass for one. */
    req_ctx_set(child, slice_slot, s, CTX_REQUEST);
    child->error_page_used = true;
    chain_push_link(&place, &child->sub_out);
    /* The client need not wait for the server's next answer to get what is here. */
    if (answer_body(main, &place, BODY_FLUSH) == V_ABORT)
        req_abort(main, 0);
}

/* A part is over, or output has drained: what is next? */
static void later_run(struct later *later)
{
    struct slicing *s = container_of(later, struct slicing, later);
    struct req *main = s->main;

    if (main->finished || !s->waits || s->fetching)
        return;
    if (!s->active) {
        log_error(&main->log, 0, "missing slice response");
        req_abort(main, 0);
        return;
    }
    if (s->start >= s->end) {
        finish(s);
        return;
    }
    if (main->filter_waits)
        return; /* a filter still has data to work off: slice_body hears when it goes on */
    if (answer_full(main, SLICE_AHEAD) && (main->on_drain == NULL || main->on_drain == drained)) {
        main->on_drain = drained;
        return;
    }
    fetch(s);
}

/* The part's body has as many bytes as its head said. */
static bool is_whole(struct req *r, const struct slicing *s)
{
    if (s->at == s->part_end)
        return true;
    log_error(&r->log, 0, "slice response ends at %llu instead of %llu",
              (unsigned long long) s->at, (unsigned long long) s->part_end);
    return false;
}

static enum verdict slice_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct slicing *s = ctx;

    if (r->header_only)
        return V_NEXT;
    if (r == r->main && s->waits) {
        if (!s->fetching)
            loop_later(&s->later);
        return V_NEXT;
    }
    s->at += chain->bytes;
    if (unlikely(s->useless) && r == r->main)
        chain_clear(chain);
    if (!(*flags & BODY_END))
        return V_NEXT;
    if (!is_whole(r, s))
        return V_ABORT;
    if (r != r->main)
        return V_NEXT;
    if (s->start >= s->end) {
        req_ctx_set(r, slice_slot, NULL, CTX_PASS);
        return V_NEXT;
    }
    *flags &= ~(unsigned) BODY_END;
    s->waits = true;
    wait_begin(r, &s->wait, cancel);
    loop_later(&s->later);
    return V_NEXT;
}

/* Configuration -------------------------------------------------------------------------------------- */

static bool slice_wanted(const struct level *level)
{
    const struct slice_conf *conf = level_conf(level, STORE_LOC, slice_slot);

    return conf->size != 0;
}

static const struct directive directives[] = {
    ROW("slice", CTX_HSL, ARGS1, conf_set_size, STORE_LOC, struct slice_conf, size, INHERIT_SCALAR,
        "0", "size", "Fetches contents in parts of this size; 0: as a whole."),
    ROW_END,
};

static const struct var_row variables[] = {
    { "slice_range", get_slice_range, NULL, 0, VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct filter filters[] = {
    { .rank = FILTER_SLICE, .head = slice_head, .body = slice_body, .wanted = slice_wanted },
    { .rank = FILTER_SLICE, .head = slice_after_head, .after = true, .wanted = slice_wanted },
    FILTER_END,
};

static const struct http_module http_slice = { .variables = variables, .filters = filters };

const struct module module_http_slice = {
    .name = "http_slice",
    .slot = &slice_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct slice_conf) },
    .directives = directives,
    .http = &http_slice,
};
