/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HTTP/1 spoken with servers: requests from the template, answers through the codec. Called by
 * the exchange; does no I/O.
 */
#include "core/base/fmt.h"
#include "modules/proxy/proxy.h"

#define FIELDS_HINT 16
#define FIELDS_MAX 60000 /* the size of the head is what limits */

static int encode(struct exchange *x, struct chain *out)
{
    struct proxy_req *pr = x->data;

    if (pr->head.ptr == NULL || x->conf->request_dynamic) {
        proxy_make_parts(x, pr);
        pr->head = proxy_encode_head(x, pr);
    }
    chain_push_str(out, pr->head);
    if (pr->body.ptr != NULL)
        chain_push_str(out, pr->body);
    else if (pr->has_body && !x->stream_body)
        body_copy(x->req, out);
    return 0;
}

static void encode_body(struct exchange *x, struct chain *in, bool end, struct chain *out)
{
    const struct proxy_req *pr = x->data;

    if (pr->body.ptr != NULL || !pr->has_body) {
        chain_clear(in);
        return;
    }
    if (pr->chunked && in->bytes > 0) {
        char size[H1_CHUNK_HEAD_MAX];

        chain_write(out, size, (size_t) (h1_write_chunk_head(size, in->bytes) - size));
        chain_append(out, in);
        chain_push_str(out, STR("\r\n"));
    } else {
        chain_append(out, in);
    }
    if (pr->chunked && end)
        chain_push_str(out, STR("0\r\n\r\n"));
}

/* Half a trailer line, if any. */
static void drop_carry(struct proxy_answer *answer)
{
    if (unlikely(answer->decoder.carry != NULL))
        h1_body_free(&answer->decoder);
}

static void reset(struct exchange *x)
{
    struct proxy_req *pr = x->data;
    struct proxy_answer *answer = pr->answer;

    if (likely(answer == NULL)) {
        answer = pr->answer = arena_alloc(x->req->arena, sizeof(*answer));
        x->head = &answer->head;
    } else {
        drop_carry(answer);
    }
    answer->decoder.carry = NULL; /* the rest is set when the head is complete */
    msg_init(&answer->head, x->req->arena, FIELDS_HINT);
    h1_parser_init(&answer->parser, &answer->head, true);
    answer->parser.line_max = answer->parser.field_max = x->conf->buffer_size;
    answer->parser.fields_max = FIELDS_MAX;
    answer->parser.underscores = true;
    answer->parser.head_request = pr->head_request;
}

/* The sentence for the log. */
static const char *sentence(struct exchange *x, const struct h1_parser *p)
{
    switch (p->error) {
    case H1_BAD_STATUS_LINE:
    case H1_BAD_VERSION:
    case H1_VERSION_UNSUPPORTED:
        return "upstream sent no valid HTTP/1.0 header";
    case H1_LINE_TOO_LONG:
    case H1_FIELD_TOO_LONG:
    case H1_HEAD_TOO_LARGE:
    case H1_TOO_MANY_FIELDS:
        return "upstream sent too big header";
    case H1_BAD_CONTENT_LENGTH:
        return "upstream sent invalid \"Content-Length\" header";
    case H1_DUPLICATE_CONTENT_LENGTH:
        return "upstream sent duplicate header line: \"Content-Length\"";
    case H1_BOTH_LENGTH_AND_ENCODING:
        return "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same "
               "time";
    case H1_UNKNOWN_TRANSFER_ENCODING:
        return "upstream sent unknown \"Transfer-Encoding\"";
    case H1_ENCODING_IN_10:
        return "upstream sent \"Transfer-Encoding\" in a response of HTTP/1.0";
    default:
        return str_printf(x->req->arena, "upstream sent invalid header: \"%.*s\"", STR_ARG(p->bad))
            .ptr;
    }
}

/* RFC 9110, 7.8: a server may change to what the client has named, and to nothing else. */
static bool was_offered(const struct exchange *x, const struct proxy_req *pr)
{
    struct str all = fields_joined(&x->head->fields, STR("Upgrade"), STR(", "), x->req->arena), one;
    bool named = false;

    for (size_t pos = 0; list_next(all, &pos, &one); named = true) {
        if (!list_has(pr->upgrade, one))
            return false;
    }
    return named;
}

static enum backend_result head(struct exchange *x, const char *ptr, size_t len, size_t *used)
{
    struct proxy_req *pr = x->data;
    enum h1_result result = h1_parse(&pr->answer->parser, ptr, len, used);

    if (result == H1_MORE && h1_line_too_long(&pr->answer->parser, len - *used))
        result = H1_ERROR;
    if (result == H1_MORE)
        return BACKEND_MORE;
    if (result == H1_ERROR) {
        x->error = sentence(x, &pr->answer->parser);
        return BACKEND_INVALID;
    }
    if (x->head->status == 101 && (!x->http_upgrade || !x->sent_all)) {
        x->error = "upstream sent unexpected status 101";
        return BACKEND_INVALID;
    }
    if (x->head->status == 101 && pr->upgrade.len > 0 && !was_offered(x, pr)) {
        x->error = "upstream changed to a protocol that was not offered";
        return BACKEND_INVALID;
    }
    if (x->head->status < 200 && x->head->status != 101)
        return BACKEND_INTERIM;
    h1_body_init(&pr->answer->decoder, x->head, true, pr->head_request);
    return BACKEND_DONE;
}

static enum backend_result body(struct exchange *x, struct block *block, const char *ptr,
                                size_t len, struct chain *out, size_t *used)
{
    struct proxy_req *pr = x->data;

    switch (h1_body_decode(&pr->answer->decoder, block, ptr, len, UINT64_MAX, out, used)) {
    case H1_MORE:
        return BACKEND_MORE;
    case H1_DONE:
        return BACKEND_DONE;
    case H1_ERROR:
        break;
    }
    x->error = pr->answer->decoder.error == H1_BAD_TRAILER ? "upstream sent invalid trailer"
                                                   : "upstream sent invalid chunked response";
    return BACKEND_INVALID;
}

static bool eof(struct exchange *x)
{
    const struct proxy_req *pr = x->data;

    return pr->answer->decoder.kind == H1_BODY_CLOSE;
}

static bool reusable(const struct exchange *x)
{
    return x->head->keep_alive && x->head->status != 101;
}

static void release(struct exchange *x)
{
    struct proxy_req *pr = x->data;

    if (pr->answer != NULL)
        drop_carry(pr->answer);
}

const struct backend backend_http1 = {
    .scheme = "http://",
    .encode = encode,
    .encode_body = encode_body,
    .reset = reset,
    .head = head,
    .body = body,
    .eof = eof,
    .reusable = reusable,
    .field = proxy_rewrite_field,
    .free = release,
};
