/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The built-in pages: what a client sees of a status that no handler and no error_page answered.
 * Called by the engine through answer_builtin.
 */
#include "core/base/fmt.h"
#include "core/http/answer.h"
#include "core/version.h"
#include "proxyd_config.h"

struct str answer_server(struct req *r)
{
    static const struct str plain = STR_INIT("proxyd/" PROXYD_VERSION);
    static const struct str build = STR_INIT(PROXYD_BUILD);

    switch (r->loc->core->server_tokens) {
    case TOKENS_OFF:
        return STR("proxyd");
    case TOKENS_STRING:
        return expr_eval(&r->eval, r->loc->core->server_tokens_text);
    case TOKENS_BUILD:
        return build.len ? STR("proxyd/" PROXYD_VERSION " (" PROXYD_BUILD ")") : plain;
    default:
        return plain;
    }
}

/* Statuses of our own that the client sees as 400 (494 to 497). */
static unsigned public_status(unsigned status)
{
    return status >= 494 && status <= 497 ? 400 : status;
}

/* What a page says where it is not the status line's reason. extra: a second line. */
struct page_text {
    unsigned status;
    struct str title, heading, extra;
};

static const struct page_text page_texts[] = {
    { 302, STR_INIT("302 Found"), STR_INIT("302 Found"), { 0, NULL } },
    { 401, STR_INIT("401 Authorization Required"), STR_INIT("401 Authorization Required"), { 0, NULL } },
    { 494, STR_INIT("400 Request Header Or Cookie Too Large"), STR_INIT("400 Bad Request"),
      STR_INIT("Request Header Or Cookie Too Large") },
    { 495, STR_INIT("400 The SSL certificate error"), STR_INIT("400 Bad Request"),
      STR_INIT("The SSL certificate error") },
    { 496, STR_INIT("400 No required SSL certificate was sent"), STR_INIT("400 Bad Request"),
      STR_INIT("No required SSL certificate was sent") },
    { 497, STR_INIT("400 The plain HTTP request was sent to HTTPS port"), STR_INIT("400 Bad Request"),
      STR_INIT("The plain HTTP request was sent to HTTPS port") },
};

/* Browsers that replace error pages of less than 512 bytes with one of their own (msie_padding). */
#define PADDING_LINE "<!-- Short pages are replaced by some browsers with their own -->\r\n"
#define PADDING PADDING_LINE PADDING_LINE PADDING_LINE PADDING_LINE PADDING_LINE PADDING_LINE

static bool is_msie(struct str agent)
{
    return str_find(agent, STR("MSIE ")) >= 0 && str_find(agent, STR("Opera")) < 0;
}

static bool is_padded(struct req *r, unsigned status)
{
    struct str agent;

    if (status < 400 || !r->loc->core->msie_padding || r->in->version < HTTP_10)
        return false;
    agent = fields_value(&r->in->fields, T_USER_AGENT);
    return agent.len > 0 && (is_msie(agent) || str_find(agent, STR("Chrome/")) >= 0);
}

/* msie_refresh: a page that sends the browser on, in place of a redirect. */
static bool use_refresh(struct req *r, unsigned status, struct str *page)
{
    struct str to;

    if ((status != 301 && status != 302) || likely(!r->loc->core->msie_refresh)
        || !is_msie(fields_value(&r->in->fields, T_USER_AGENT)))
        return false;
    to = fields_value(&r->out.fields, T_LOCATION);
    if (to.ptr == NULL)
        return false;
    to = fmt_escape_dup(r->arena, to, FMT_ESCAPE_HTML);
    *page = str_printf(r->arena,
                       "<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=%.*s\"></head>"
                       "<body></body></html>\r\n",
                       STR_ARG(to));
    fields_delete(&r->out.fields, T_LOCATION);
    return true;
}

static struct str page_of(struct req *r, unsigned status, struct str reason)
{
    struct page_text text = { .status = status };
    struct str server = answer_server(r);

    for (unsigned i = 0; i < ARRAY_LEN(page_texts); i++) {
        if (page_texts[i].status == status)
            text = page_texts[i];
    }
    if (text.title.len == 0)
        text.title = text.heading = str_printf(r->arena, "%u %.*s", status, STR_ARG(reason));
    if (text.extra.len > 0)
        text.extra = str_printf(r->arena, "<center>%.*s</center>\r\n", STR_ARG(text.extra));
    return str_printf(r->arena,
                      "<html>\r\n<head><title>%.*s</title></head>\r\n<body>\r\n"
                      "<center><h1>%.*s</h1></center>\r\n%.*s<hr><center>%.*s</center>\r\n"
                      "</body>\r\n</html>\r\n%s",
                      STR_ARG(text.title), STR_ARG(text.heading), STR_ARG(text.extra),
                      STR_ARG(server), is_padded(r, status) ? PADDING : "");
}

enum verdict answer_builtin(struct req *r, unsigned status)
{
    struct str reason, page = STR("");
    unsigned shown = public_status(status);
    bool has_page = (status >= 301 && status <= 308 && status != 304) || status >= 400;

    reason = status_reason(shown);
    if (use_refresh(r, status, &page))
        shown = 200;
    else if (has_page && reason.len > 0)
        page = page_of(r, status, reason);
    r->err_status = shown;
    r->allow_ranges = false;
    r->charset = STR_NULL;
    answer_clear_last_modified(r);
    answer_clear_etag(r);
    fields_delete(&r->out.fields, T_ACCEPT_RANGES);
    if (page.len == 0)
        fields_delete(&r->out.fields, T_CONTENT_TYPE);
    return answer_text(r, shown, page.len ? STR("text/html") : STR_NULL, page);
}
