/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Conditional requests (RFC 9110, 13): 304 and 412 for answers that would be 200 and say what they
 * are a version of. The first filter, so that what the others do to a body cannot matter.
 */
#include "core/base/fmt.h"
#include "core/http/answer.h"

/* configure: switch=http_not_modified_module default=always */

static unsigned not_modified_slot;

/* An upstream has judged the conditions itself: they were passed on. */
static bool judged_upstream(const struct req *r)
{
    return r->upstream.count > 0 && r->loc->handler != NULL;
}

static struct str strip_weak(struct str tag)
{
    return str_starts(tag, STR("W/")) ? str_skip(tag, 2) : tag;
}

/* One entity tag at the front of *list, quotes included; false at the end or where it is malformed. */
static bool next_tag(struct str *list, struct str *tag)
{
    size_t n = 0, start;

    while (n < list->len && (list->ptr[n] == ' ' || list->ptr[n] == '\t' || list->ptr[n] == ','))
        n++;
    *list = str_skip(*list, n);
    start = str_starts(*list, STR("W/")) ? 2 : 0;
    if (list->len <= start || list->ptr[start] != '"')
        return false;
    for (n = start + 1; n < list->len && list->ptr[n] != '"'; n++)
        ;
    if (n == list->len)
        return false;
    *tag = str_from(list->ptr, n + 1);
    *list = str_skip(*list, n + 1);
    return true;
}

/* Whether a list of entity tags, over all lines of the field, names `etag` (RFC 9110, 8.8.3.2). */
static bool list_names(const struct fields *fields, const struct field *f, struct str etag,
                       bool weak)
{
    for (; f != NULL; f = fields_next(fields, f)) {
        struct str list = f->value, tag;

        if (str_eq(str_trim(list), STR("*")))
            return true;
        if (etag.len == 0)
            continue;
        while (next_tag(&list, &tag)) {
            if (weak ? str_eq(strip_weak(tag), strip_weak(etag))
                     : str_eq(tag, etag) && !str_starts(tag, STR("W/")))
                return true;
        }
    }
    return false;
}

static bool unmodified_since(const struct req *r, struct str value)
{
    if (r->last_modified == -1)
        return false;
    return fmt_parse_http_date(value) >= r->last_modified;
}

static bool modified_since(const struct req *r, struct str value)
{
    time_t t;

    if (r->last_modified == -1 || r->loc->core->if_modified_since == IMS_OFF)
        return true;
    t = fmt_parse_http_date(value);
    if (t == r->last_modified)
        return false;
    return r->loc->core->if_modified_since == IMS_EXACT || t < r->last_modified;
}

static void make_304(struct req *r)
{
    r->out.status = 304;
    r->out.reason = STR_NULL;
    r->header_only = true;
    r->charset = STR_NULL;
    fields_delete(&r->out.fields, T_CONTENT_TYPE);
    fields_delete(&r->out.fields, T_CONTENT_ENCODING);
    answer_clear_length(r);
    answer_clear_ranges(r);
}

/* Whether a condition that protects against lost updates fails. */
static bool precondition_fails(const struct req *r, struct str etag)
{
    const struct fields *in = &r->in->fields;
    const struct field *f = fields_get(in, T_IF_UNMODIFIED_SINCE);

    if (f != NULL && !unmodified_since(r, f->value))
        return true;
    f = fields_get(in, T_IF_MATCH);
    return f != NULL && !list_names(in, f, etag, false);
}

/*
 * RFC 9110, 13.2.2 would have a date ignored beside a tag. As in nginx, all that is said has to hold: whoever
 * gives both gets the content, or 412, when in doubt.
 */
static enum head_verdict not_modified_head(struct req *r, void **ctx)
{
    const struct fields *in = &r->in->fields;
    const struct field *none_match, *since;
    struct str etag;

    (void) ctx;
    if (r != r->main || r->out.status != 200 || judged_upstream(r))
        return HEAD_PASS;
    none_match = fields_get(in, T_IF_NONE_MATCH);
    since = fields_get(in, T_IF_MODIFIED_SINCE);
    etag = fields_value(&r->out.fields, T_ETAG);
    if (precondition_fails(r, etag)) {
        r->status_wanted = 412;
        return HEAD_REPLACE;
    }
    if (none_match == NULL && since == NULL)
        return HEAD_PASS;
    if ((since == NULL || !modified_since(r, since->value))
        && (none_match == NULL || list_names(in, none_match, etag, true)))
        make_304(r);
    return HEAD_PASS;
}

static const struct filter filters[] = {
    { .rank = FILTER_NOT_MODIFIED, .head = not_modified_head },
    FILTER_END,
};

static const struct http_module http_not_modified = { .filters = filters };

const struct module module_http_not_modified = {
    .name = "http_not_modified",
    .slot = &not_modified_slot,
    .http = &http_not_modified,
};
