/* SPDX-License-Identifier: BSD-2-Clause */
/* stub_status: how many connections and requests there are, in nginx's few lines of text. */
#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/http/client.h"

/* configure: switch=http_stub_status_module default=on */

static unsigned stub_slot;

static enum verdict stub_run(struct req *r)
{
    struct client_counts c;

    if ((r->method & (METHOD_GET | METHOD_HEAD)) == 0)
        return req_status(r, 405);
    req_trace(r, req_where(r, "stub_status"), "stub_status answers");
    client_counts_sum(&c);
    return answer_text(
        r, 200, STR("text/plain"),
        str_printf(r->arena,
                   "Active connections: %u \n"
                   "server accepts handled requests\n"
                   " %llu %llu %llu \n"
                   "Reading: %u Writing: %u Waiting: %u \n",
                   c.active, (unsigned long long) c.accepted, (unsigned long long) c.handled,
                   (unsigned long long) c.requests, c.reading, c.writing, c.waiting));
}

static const char *set_stub_status(struct conf *cf, void *field)
{
    (void) field;
    conf_location(cf)->handler = stub_run;
    return NULL;
}

static bool get_count(struct eval *e, const struct var *v, struct str *out)
{
    char *p = arena_bytes(e->arena, FMT_U64_MAX);
    struct client_counts c;
    unsigned n;

    client_counts_sum(&c);
    memcpy(&n, (const char *) &c + v->data, sizeof(n));
    *out = str_from(p, (size_t) (fmt_u64(p, n) - p));
    return true;
}

static const struct var_row variables[] = {
    { "connections_active", get_count, NULL, offsetof(struct client_counts, active), VAR_FRESH },
    { "connections_reading", get_count, NULL, offsetof(struct client_counts, reading), VAR_FRESH },
    { "connections_writing", get_count, NULL, offsetof(struct client_counts, writing), VAR_FRESH },
    { "connections_waiting", get_count, NULL, offsetof(struct client_counts, waiting), VAR_FRESH },
    { NULL, NULL, NULL, 0, 0 },
};

static const struct directive directives[] = {
    ROW_CALL("stub_status", CTX_SERVER | CTX_LOCATION, ARGS0 | ARGS1, set_stub_status, STORE_LOC, "",
             "Answers with the numbers of connections and requests."),
    ROW_END,
};

static const struct http_module http_stub_status = { .variables = variables };

const struct module module_http_stub_status = {
    .name = "http_stub_status",
    .slot = &stub_slot,
    .directives = directives,
    .http = &http_stub_status,
};
