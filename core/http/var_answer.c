/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Variables of the answer: status, sizes, times, and the fields as they go out. Some of those are
 * typed values or the HTTP/1 writer's own and stand in no list: what they say must be what is sent.
 */
#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/var.h"

/*
 * Once the head is out, or nothing will be, the status is what it says; before that, an error under
 * way counts more than what has been prepared.
 */
bool var_status(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    unsigned status = r->out.status;
    char *p;

    (void) v;
    if (!r->head_sent && !r->aborted && r->err_status != 0)
        status = r->err_status;
    if (status == 0)
        status = r->err_status != 0 ? r->err_status : r->in->version == HTTP_09 ? 9 : 0;
    p = arena_bytes(r->arena, 3);
    p[0] = (char) ('0' + status / 100 % 10);
    p[1] = (char) ('0' + status / 10 % 10);
    p[2] = (char) ('0' + status % 10);
    return var_is(out, str_from(p, 3));
}

bool var_bytes_sent(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_number(r, out, r->main->sent_bytes);
}

/* What left of the answer behind its head: chunk framing counts, a head that was cut does not. */
bool var_body_bytes_sent(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e), *main = r->main;
    uint64_t sent = main->sent_bytes;

    (void) v;
    return var_is_number(r, out, sent - MIN(sent, main->response_head_bytes));
}

bool var_request_length(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_number(r, out, r->main->head_bytes + r->main->body.wire);
}

bool var_request_time(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_seconds(r, out, clock_ms() - r->start_ms);
}

bool var_request_completion(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->main->output_done ? STR("OK") : STR(""));
}

/* limit_rate: bytes a second. ----------------------------------------------------------------- */

bool var_limit_rate(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    uint64_t rate = r->main->limit_rate;

    (void) v;
    if (rate == UINT64_MAX)
        rate = expr_size(e, &r->loc->core->limit_rate);
    return var_is_number(r, out, rate);
}

void var_set_limit_rate(struct eval *e, const struct var *v, struct str value)
{
    struct req *r = req_of(e);
    uint64_t rate;

    (void) v;
    if (str_to_size(value, &rate) != 0 || rate > INT64_MAX) {
        log_error(&r->log, 0, "invalid $limit_rate \"%.*s\"", STR_ARG(value));
        return;
    }
    r->main->limit_rate = rate;
}

/* Fields that went out ------------------------------------------------------------------------ */

bool var_sent_http(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    return fields_variable(&r->out.fields, v->suffix, r->arena, out);
}

bool var_sent_trailer(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    return fields_variable(&r->out.trailers, v->suffix, r->arena, out);
}

bool var_sent_content_length(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    if (r->out.content_length >= 0)
        return var_is_number(r, out, (uint64_t) r->out.content_length);
    *out = fields_value(&r->out.fields, T_CONTENT_LENGTH);
    return out->ptr != NULL;
}

bool var_sent_last_modified(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    char *p;

    (void) v;
    *out = fields_value(&r->out.fields, T_LAST_MODIFIED);
    if (out->ptr != NULL)
        return true;
    /* Before the head is complete the value is typed; a head that left it out has not sent it. */
    if (r->last_modified == -1 || r->head_sent)
        return false;
    p = arena_bytes(r->arena, FMT_HTTP_DATE);
    *out = str_from(p, (size_t) (fmt_http_date(p, r->last_modified) - p));
    return true;
}

bool var_sent_connection(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    if (r->out.status == 101)
        return var_is(out, STR("upgrade"));
    return var_is(out, r->main->keep_alive ? STR("keep-alive") : STR("close"));
}

bool var_sent_keep_alive(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    uint64_t seconds = r->loc->core->keepalive_header_s;

    (void) v;
    if (!r->main->keep_alive || seconds == 0)
        return false;
    *out = str_printf(r->arena, "timeout=%llu", (unsigned long long) seconds);
    return true;
}

bool var_sent_transfer_encoding(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return req_of(e)->out.chunked && var_is(out, STR("chunked"));
}
