/* SPDX-License-Identifier: BSD-2-Clause */
/* empty_gif: a transparent picture of one pixel, from memory. */
#include "core/http/answer.h"

/* configure: switch=http_empty_gif_module default=on */

static unsigned empty_gif_slot;

/* nginx's date of it: a fixed one, so that nobody fetches it twice. */
#define GIF_TIME 23349600

static const char gif[] =
    "GIF89a"
    "\x01\x00\x01\x00" /* one by one */
    "\x80\x01\x00"     /* a table of two colours, the second is the background */
    "\x00\x00\x00\xff\xff\xff"
    "\x21\xf9\x04\x01\x00\x00\x01\x00" /* the second one is transparent */
    "\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00"
    "\x02\x02\x4c\x01\x00"
    "\x3b";

static enum verdict empty_gif_run(struct req *r)
{
    if ((r->method & (METHOD_GET | METHOD_HEAD)) == 0)
        return req_status(r, 405);
    req_trace(r, req_where(r, "empty_gif"), "empty_gif answers");
    r->last_modified = GIF_TIME;
    return answer_text(r, 200, STR("image/gif"), str_from(gif, sizeof(gif) - 1));
}

static const char *set_empty_gif(struct conf *cf, void *field)
{
    (void) field;
    conf_location(cf)->handler = empty_gif_run;
    return NULL;
}

static const struct directive directives[] = {
    ROW_CALL("empty_gif", CTX_LOCATION, ARGS0 | ARG_REPEAT, set_empty_gif, STORE_LOC, "",
             "Answers with a transparent picture of one pixel."),
    ROW_END,
};

static const struct http_module http_empty_gif = { .variables = NULL };

const struct module module_http_empty_gif = {
    .name = "http_empty_gif",
    .slot = &empty_gif_slot,
    .directives = directives,
    .http = &http_empty_gif,
};
