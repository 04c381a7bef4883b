/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line's side of --explain: the URL taken apart, and the request a client would make of
 * it.
 */
#include "core/http/msg.h"
#include "workers/explain_steps.h"

static const char *parse_port(struct arena *arena, struct str text, struct explain_url *url)
{
    uint64_t port;

    if (text.len == 0)
        return NULL; /* "http://host:/": the default one */
    if (str_to_u64(text, &port) != 0 || port == 0 || port > 65535)
        return str_printf(arena, "invalid port \"%.*s\" in the URL", STR_ARG(text)).ptr;
    url->port = (unsigned) port;
    return NULL;
}

static const char *parse_authority(struct arena *arena, struct str text, struct explain_url *url)
{
    unsigned standard = url->https ? 443 : 80;
    size_t host_end = 0;
    const char *error;
    ssize_t colon;

    if (str_chr(text, '@') >= 0)
        return "a user's name in the URL is not part of a request: give the field with "
               "-H 'Authorization: ...'";
    if (text.len > 0 && text.ptr[0] == '[') {
        ssize_t close = str_chr(text, ']');

        if (close < 0)
            return "no \"]\" behind the address in the URL";
        host_end = (size_t) close + 1;
        if (host_end < text.len && text.ptr[host_end] != ':')
            return "something between \"]\" and the port in the URL";
    }
    url->port = standard;
    url->host = text;
    colon = str_chr(str_skip(text, host_end), ':');
    if (colon >= 0) {
        url->host.len = host_end + (size_t) colon;
        error = parse_port(arena, str_skip(text, url->host.len + 1), url);
        if (error != NULL)
            return error;
    }
    if (url->host.len == 0)
        return "no host in the URL";
    url->authority = url->host;
    if (url->port != standard)
        url->authority = str_printf(arena, "%.*s:%u", STR_ARG(url->host), url->port);
    return NULL;
}

const char *explain_parse_url(struct arena *arena, const char *text, struct explain_url *url)
{
    struct str rest = str_cstr(text);
    ssize_t scheme = str_find(rest, STR("://"));
    size_t n = 0;
    const char *error;

    for (size_t i = 0; i < rest.len; i++) {
        unsigned char c = (unsigned char) rest.ptr[i];

        if (c <= ' ' || c == 0x7f)
            return str_printf(arena, "the URL holds a byte that ends a request line: write %%%02X",
                              c)
                .ptr;
    }
    memset(url, 0, sizeof(*url));
    if (str_casestarts(rest, STR("https://")))
        url->https = true;
    else if (scheme >= 0 && !str_casestarts(rest, STR("http://")))
        return str_printf(arena, "the URL's scheme \"%.*s\" is neither http nor https",
                          (int) scheme, rest.ptr)
            .ptr;
    if (scheme >= 0)
        rest = str_skip(rest, (size_t) scheme + 3);
    while (n < rest.len && rest.ptr[n] != '/' && rest.ptr[n] != '?' && rest.ptr[n] != '#')
        n++;
    error = parse_authority(arena, str_from(rest.ptr, n), url);
    if (error != NULL)
        return error;
    rest = str_skip(rest, n);
    if (str_chr(rest, '#') >= 0)
        rest.len = (size_t) str_chr(rest, '#'); /* a client keeps it to itself */
    url->target =
        rest.len > 0 && rest.ptr[0] == '/' ? rest : str_printf(arena, "/%.*s", STR_ARG(rest));
    return NULL;
}

/* One -H. NULL or a sentence. */
static const char *check_header(struct arena *arena, struct str text, struct str *name,
                                struct str *value)
{
    ssize_t colon = str_chr(text, ':');

    *name = str_from(text.ptr, colon < 0 ? text.len : (size_t) colon);
    *value = colon < 0 ? STR("") : str_trim(str_skip(text, (size_t) colon + 1));
    if (colon < 0 || !is_token(*name))
        return str_printf(arena, "\"%.*s\" is no header field: \"Name: value\" is needed",
                          STR_ARG(text))
            .ptr;
    if (!is_field_value(*value))
        return str_printf(arena, "the value of the field \"%.*s\" holds a line end", STR_ARG(*name))
            .ptr;
    return NULL;
}

struct str explain_request(struct arena *arena, const struct options *o,
                           const struct explain_url *url, const char **error)
{
    struct str method = str_cstr(o->method != NULL ? o->method : "GET");
    struct str fields = str_dup(arena, STR("")), target = url->target;
    bool host_given = false;

    *error = NULL;
    if (!is_token(method)) {
        *error = str_printf(arena, "\"%.*s\" is no method", STR_ARG(method)).ptr;
        return STR_NULL;
    }
    for (unsigned i = 0; i < o->header_count && *error == NULL; i++) {
        struct str name, value;

        *error = check_header(arena, str_cstr(o->headers[i]), &name, &value);
        host_given |= str_caseeq(name, STR("Host"));
        fields =
            str_printf(arena, "%.*s%.*s: %.*s\r\n", STR_ARG(fields), STR_ARG(name), STR_ARG(value));
    }
    if (*error != NULL)
        return STR_NULL;
    if (str_eq(method, STR("CONNECT")))
        target = str_printf(arena, "%.*s:%u", STR_ARG(url->host), url->port);
    return str_printf(arena, "%.*s %.*s HTTP/1.1\r\n%s%.*s%s%.*s\r\n", STR_ARG(method),
                      STR_ARG(target),
                      host_given ? "" : "Host: ", host_given ? 0 : (int) url->authority.len,
                      url->authority.ptr, host_given ? "" : "\r\n", STR_ARG(fields));
}
