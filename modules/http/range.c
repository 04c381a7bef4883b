/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parts of a content (RFC 9110, 14). The head is judged after every filter that may forbid ranges;
 * the body is cut before any of them, so that of a large file only the wanted part is ever read. FILE and
 * MEM pieces are cut by reference.
 */
#include "modules/http/range.h"

#include "core/base/fmt.h"
#include "core/http/answer.h"

/* configure: switch=http_range_module default=always */

static unsigned range_slot;

struct range_state {
    bool active;
    bool refused; /* 416 was said: the page that answers it names the length */
    struct byte_ranges ranges;
    uint64_t length;   /* of the whole content */
    uint64_t passed;   /* content bytes seen */
    struct chain held; /* several ranges: the content until it is complete */
    struct str *heads; /* of each part */
    struct str tail;
};

/* The field ------------------------------------------------------------------------------------ */

static void skip_blanks(struct str *s)
{
    while (s->len > 0 && s->ptr[0] == ' ')
        *s = str_skip(*s, 1);
}

/* Digits at the front. False: none, or too many. */
static bool take_number(struct str *s, uint64_t *out)
{
    size_t n = 0;

    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (str_to_u64(str_from(s->ptr, n), out) != 0 || *out > INT64_MAX)
        return false;
    *s = str_skip(*s, n);
    return true;
}

/* One "first-last", "first-" or "-suffix". False: malformed. */
static bool take_spec(struct str *s, uint64_t length, struct byte_range *range)
{
    uint64_t first = 0, last = 0;
    bool suffix, open = false;

    skip_blanks(s);
    suffix = s->len > 0 && s->ptr[0] == '-';
    if (!suffix) {
        if (!take_number(s, &first))
            return false;
        skip_blanks(s);
        if (s->len == 0 || s->ptr[0] != '-')
            return false;
    }
    *s = str_skip(*s, 1);
    skip_blanks(s);
    open = !suffix && (s->len == 0 || s->ptr[0] == ',');
    if (!open) {
        if (!take_number(s, &last))
            return false;
        skip_blanks(s);
        if (s->len > 0 && s->ptr[0] != ',')
            return false;
    }
    if (suffix) {
        range->start = last < length ? length - last : 0;
        range->end = length;
    } else {
        range->start = first;
        range->end = open || last >= length ? length : last + 1;
    }
    return true;
}

enum range_result range_parse(struct arena *arena, struct str value, uint64_t length, uint64_t max,
                              struct byte_ranges *out)
{
    struct str s;

    *out = (struct byte_ranges){ NULL, 0, 0, 0 };
    if (!str_casestarts(value, STR("bytes=")) || value.len == 6)
        return RANGE_IGNORE;
    s = str_skip(value, 6);
    for (;;) {
        struct byte_range range;

        if (!take_spec(&s, length, &range))
            return RANGE_UNSATISFIABLE;
        if (range.start < range.end) {
            if (out->count >= max)
                return RANGE_IGNORE;
            out->items = arena_grow(arena, out->items, out->count, &out->capacity,
                                    sizeof(*out->items));
            out->items[out->count++] = range;
            out->bytes += range.end - range.start;
            if (out->bytes > length)
                return RANGE_IGNORE;
        } else if (range.start == 0) {
            return RANGE_IGNORE; /* any range of an empty content */
        }
        if (s.len == 0)
            break;
        s = str_skip(s, 1);
    }
    return out->count > 0 ? RANGE_PARTIAL : RANGE_UNSATISFIABLE;
}

/* The head -------------------------------------------------------------------------------------- */

/* If-Range (RFC 9110, 13.1.5): a strong tag or an exact date. */
static bool if_range_holds(const struct req *r)
{
    const struct field *f = fields_get(&r->in->fields, T_IF_RANGE);
    struct str etag;
    time_t modified;

    if (f == NULL)
        return true;
    if (f->value.len >= 2 && f->value.ptr[f->value.len - 1] == '"') {
        etag = fields_value(&r->out.fields, T_ETAG);
        return etag.len > 0 && str_eq(f->value, etag) && !str_starts(etag, STR("W/"));
    }
    modified = answer_last_modified(r);
    return modified != -1 && fmt_parse_http_date(f->value) == modified;
}

static void one_part(struct req *r, struct range_state *s)
{
    const struct byte_range *range = &s->ranges.items[0];

    fields_add_token(&r->out, &r->out.fields, T_CONTENT_RANGE,
                     str_printf(r->arena, "bytes %llu-%llu/%llu", (unsigned long long) range->start,
                                (unsigned long long) range->end - 1,
                                (unsigned long long) s->length));
    r->out.content_length = (int64_t) (range->end - range->start);
    r->content_offset = range->start;
}

/* A number that no part's content is likely to hold. */
static struct str boundary(struct req *r)
{
    static uint64_t counter;

    if (counter == 0)
        counter = (uint64_t) r->start_s * 1000003u + (uint64_t) r->start_msec;
    counter = counter * 6364136223846793005u + 1442695040888963407u;
    return str_printf(r->arena, "%020llu", (unsigned long long) counter);
}

static void release(void *arg)
{
    struct range_state *s = arg;

    chain_clear(&s->held);
}

static void several_parts(struct req *r, struct range_state *s)
{
    struct str mark = boundary(r);
    struct str type = fields_value(&r->out.fields, T_CONTENT_TYPE);
    uint64_t total = 0;

    arena_defer(r->arena, release, s);
    if (type.len > 0 && r->charset.len > 0)
        type = str_printf(r->arena, "%.*s; charset=%.*s", STR_ARG(type), STR_ARG(r->charset));
    r->charset = STR_NULL;
    s->heads = ARENA_ARRAY(r->arena, struct str, s->ranges.count);
    for (unsigned i = 0; i < s->ranges.count; i++) {
        const struct byte_range *range = &s->ranges.items[i];

        s->heads[i] = str_printf(
            r->arena, "\r\n--%.*s%s%.*s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n",
            STR_ARG(mark), type.len ? "\r\nContent-Type: " : "", STR_ARG(type),
            (unsigned long long) range->start, (unsigned long long) range->end - 1,
            (unsigned long long) s->length);
        total += s->heads[i].len + (range->end - range->start);
    }
    s->tail = str_printf(r->arena, "\r\n--%.*s--\r\n", STR_ARG(mark));
    fields_set(&r->out, &r->out.fields, T_CONTENT_TYPE,
               str_printf(r->arena, "multipart/byteranges; boundary=%.*s", STR_ARG(mark)));
    r->out.content_length = (int64_t) (total + s->tail.len);
}

static enum head_verdict range_head(struct req *r, void **ctx)
{
    struct range_state *s = req_ctx(r, range_slot);
    const struct field *f;
    enum range_result result = RANGE_IGNORE;

    (void) ctx;
    if (unlikely(s != NULL && s->refused)) {
        if (r->out.status == 416)
            fields_set(&r->out, &r->out.fields, T_CONTENT_RANGE,
                       str_printf(r->arena, "bytes */%llu", (unsigned long long) s->length));
        return HEAD_PASS;
    }
    if (r->out.status != 200 || r->out.content_length < 0 || !r->allow_ranges
        || r->in->version < HTTP_10 || r->loc->core->max_ranges == 0)
        return HEAD_PASS;
    f = fields_get(&r->in->fields, T_RANGE);
    if (f != NULL && s != NULL && if_range_holds(r)) {
        s->length = (uint64_t) r->out.content_length;
        result = range_parse(r->arena, f->value, s->length, (uint64_t) r->loc->core->max_ranges,
                             &s->ranges);
        /* Parts may overlap and come in any order: that takes a content that can be read again. */
        if (result == RANGE_PARTIAL && s->ranges.count > 1 && r->single_range)
            result = RANGE_IGNORE;
    }
    switch (result) {
    case RANGE_IGNORE:
        fields_set(&r->out, &r->out.fields, T_ACCEPT_RANGES, STR("bytes"));
        break;
    case RANGE_PARTIAL:
        s->active = true;
        r->out.status = 206;
        r->out.reason = STR_NULL; /* an upstream's own words were about the whole */
        fields_delete(&r->out.fields, T_ACCEPT_RANGES);
        if (s->ranges.count == 1)
            one_part(r, s);
        else
            several_parts(r, s);
        break;
    case RANGE_UNSATISFIABLE:
        r->status_wanted = 416;
        s->refused = r->range_refused = true;
        req_ctx_set(r, range_slot, s, CTX_REQUEST);
        return HEAD_REPLACE;
    }
    return HEAD_PASS;
}

/* The body -------------------------------------------------------------------------------------- */

/* Early in the order: makes the state that the head's judgement fills later. */
static enum head_verdict range_body_head(struct req *r, void **ctx)
{
    const struct range_state *outer;
    struct range_state *s;

    if (r->out.status != 200 || !r->allow_ranges || (r != r->main && !r->ranges_of_main)
        || fields_get(&r->in->fields, T_RANGE) == NULL)
        return HEAD_PASS;
    s = ARENA_NEW(r->arena, struct range_state);
    s->passed = r->content_offset;
    if (r != r->main) {
        outer = req_ctx(r->main, range_slot);
        if (outer == NULL || !outer->active)
            return HEAD_PASS;
        s->active = true;
        s->ranges = outer->ranges;
    }
    req_ctx_set(r, range_slot, s, CTX_PASS);
    *ctx = s;
    return HEAD_TAKE;
}

/* One range: what comes before is dropped, what comes behind too. A LINK stays where it is. */
static void cut_one(struct range_state *s, struct chain *chain)
{
    const struct byte_range *range = &s->ranges.items[0];
    struct chain kept = CHAIN_INIT;

    while (!chain_empty(chain)) {
        uint64_t n = chain->first->len, skip = 0, keep = 0;

        if (chain->first->kind == PIECE_LINK) {
            chain_push_link(&kept, chain->first->link);
            chain_drop_link(chain);
            continue;
        }
        if (s->passed < range->start)
            skip = MIN(n, range->start - s->passed);
        if (s->passed + skip < range->end)
            keep = MIN(n - skip, range->end - s->passed - skip);
        s->passed += n;
        chain_consume(chain, skip);
        chain_take(&kept, chain, keep);
        chain_consume(chain, n - skip - keep);
    }
    chain_append(chain, &kept);
}

/* References to the bytes [start, end) of whole, behind out. */
static void copy_part(struct chain *out, const struct chain *whole, const struct byte_range *range)
{
    uint64_t at = 0;

    for (const struct piece *p = whole->first; p != NULL && at < range->end; p = p->next) {
        uint64_t from = MAX(at, range->start), to = MIN(at + p->len, range->end);

        if (from < to && p->kind == PIECE_MEM)
            chain_push_mem(out, p->mem.block, p->mem.ptr + (from - at), (size_t) (to - from));
        else if (from < to && p->kind == PIECE_FILE)
            chain_push_file(out, p->file.file, p->file.offset + (off_t) (from - at), to - from);
        at += p->len;
    }
}

static void cut_several(struct range_state *s, struct chain *chain, bool end)
{
    s->passed += chain->bytes;
    chain_append(&s->held, chain);
    if (!end)
        return;
    for (unsigned i = 0; i < s->ranges.count; i++) {
        chain_push_str(chain, s->heads[i]);
        copy_part(chain, &s->held, &s->ranges.items[i]);
    }
    chain_push_str(chain, s->tail);
    chain_clear(&s->held);
}

static enum verdict range_body(struct req *r, void *ctx, struct chain *chain, unsigned *flags)
{
    struct range_state *s = ctx;

    (void) r;
    if (!s->active || s->refused || r->header_only)
        return V_NEXT;
    if (s->ranges.count == 1)
        cut_one(s, chain);
    else
        cut_several(s, chain, *flags & BODY_END);
    return V_NEXT;
}

static bool range_wanted(const struct level *level)
{
    return level_core(level)->max_ranges != 0;
}

static const struct filter filters[] = {
    { .rank = FILTER_RANGE_BODY, .head = range_body_head, .body = range_body,
      .wanted = range_wanted },
    { .rank = FILTER_RANGE, .head = range_head, .wanted = range_wanted },
    FILTER_END,
};

static const struct http_module http_range = { .filters = filters };

const struct module module_http_range = {
    .name = "http_range",
    .slot = &range_slot,
    .http = &http_range,
};
