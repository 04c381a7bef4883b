/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proxy_pass: where a request goes and with which URI. At load for what is literal, for each
 * request where variables are in it.
 */
#include "core/http/h1.h"
#include "core/base/fmt.h"
#include "modules/proxy/proxy.h"

#define HTTP_PORT 80
#define HTTPS_PORT 443

/* Splits "http://host:port/uri". NULL or a sentence. */
static const char *split_url(struct str url, struct upstream_address *a, struct str *authority,
                             struct str *uri, bool *tls)
{
    struct str rest;
    size_t n = 0;

    *tls = str_casestarts(url, STR("https://"));
    if (!*tls && !str_casestarts(url, STR("http://")))
        return "invalid URL prefix";
    rest = str_skip(url, *tls ? 8 : 7);
    if (str_starts(rest, STR("unix:"))) {
        ssize_t colon = str_chr(str_skip(rest, 5), ':');

        n = colon < 0 ? rest.len : (size_t) colon + 5;
        *authority = str_from(rest.ptr, n);
        *uri = str_skip(rest, colon < 0 ? n : n + 1);
        return upstream_address_parse(a, *authority, 0);
    }
    while (n < rest.len && rest.ptr[n] != '/' && rest.ptr[n] != '?' && rest.ptr[n] != '#')
        n++;
    *authority = str_from(rest.ptr, n);
    *uri = str_skip(rest, n);
    return upstream_address_parse(a, *authority, *tls ? HTTPS_PORT : HTTP_PORT);
}

static void name_target(const struct upstream_address *a, bool tls, struct str authority,
                        struct str *host_port, struct str *port)
{
    if (a->is_unix) {
        *host_port = STR("localhost");
        *port = STR("");
        return;
    }
    *host_port = authority;
    if (a->has_port) {
        *port = str_skip(authority, a->host.len + 1);
        if (a->port == (tls ? HTTPS_PORT : HTTP_PORT))
            *host_port = a->host;
    } else {
        *port = tls ? STR("443") : STR("80");
    }
}

/* A URI cannot replace a part of the request's where no such part is known. */
static bool has_no_prefix(const struct conf *cf, const struct location *loc)
{
    return loc->kind == LOC_REGEX || loc->kind == LOC_NAMED
           || (cf->level->context & (CTX_IF_LOCATION | CTX_LIMIT_EXCEPT));
}

const char *proxy_set_pass(struct conf *cf, void *field)
{
    struct proxy_pass **out = field, *pass = ARENA_NEW(cf->arena, struct proxy_pass);
    struct location *loc = conf_location(cf);
    struct upstream_address a;
    struct str authority;
    const char *error = NULL;
    struct expr *url;
    struct str literal;

    url = expr_compile(cf, cf->args[1], 0, &error);
    if (url == NULL)
        return error;
    loc->handler = proxy_handler;
    pass->location = loc->name;
    *out = pass;
    if (!expr_is_literal(url, &literal)) {
        pass->url = url;
        upstream_passes(cf, NULL, &proxy_family);
        return NULL;
    }
    error = split_url(literal, &a, &authority, &pass->uri, &pass->tls);
    if (error != NULL && (pass->tls || str_casestarts(literal, STR("http://"))))
        return conf_error_arg(cf, 1, "%s in upstream \"%.*s\"", error,
                              STR_ARG(str_skip(literal, pass->tls ? 8 : 7)));
    if (error != NULL)
        return conf_error_arg(cf, 1, "%s", error);
    if (pass->uri.len > 0 && pass->uri.ptr[0] != '/')
        pass->uri = str_printf(cf->arena, "/%.*s", STR_ARG(pass->uri));
    name_target(&a, pass->tls, authority, &pass->host_port, &pass->port);
    pass->text = str_printf(cf->arena, "http%s://%.*s%s", pass->tls ? "s" : "", STR_ARG(authority), a.is_unix ? ":" : "");
    if (pass->uri.len > 0 && has_no_prefix(cf, loc))
        return "\"proxy_pass\" cannot have URI part in location given by regular expression, or "
               "inside named location, or inside \"if\" statement, or inside \"limit_except\" "
               "block";
    pass->group = upstream_refer(cf, &a);
    upstream_passes(cf, pass->group, &proxy_family);
    return NULL;
}

/* URIs ---------------------------------------------------------------------------------------- */

static struct str with_args(struct req *r, struct str prefix, struct str path, bool escape)
{
    size_t room = prefix.len + path.len * 3 + 1 + r->args.len;
    char *buf = arena_bytes(r->arena, room), *p = fmt_str(buf, prefix);

    p = escape ? fmt_escape(p, path, FMT_ESCAPE_URI) : fmt_str(p, path);
    if (r->args.len > 0) {
        *p++ = '?';
        p = fmt_str(p, r->args);
    }
    return str_from(buf, (size_t) (p - buf));
}

/* Decoded bytes are escaped again; what never was escaped stays as the client wrote it. */
static bool wants_escape(const struct req *r)
{
    return r->complex_uri || r->internal;
}

/* As it came, while nothing has changed it; else the normalised one, escaped again. */
static struct str own_uri(struct req *r)
{
    if (likely(r->valid_unparsed_uri))
        return r->unparsed_uri;
    return with_args(r, STR(""), r->uri, wants_escape(r));
}

/* The location's part of the URI replaced by proxy_pass's. */
static struct str mapped_uri(struct req *r, const struct proxy_pass *pass)
{
    size_t skip = pass->location.len;

    if (!r->valid_location)
        return own_uri(r); /* rewritten in this location: the given URI is ignored */
    if (r->uri.len < skip)
        skip = r->uri.len;
    return with_args(r, pass->uri, str_skip(r->uri, skip), wants_escape(r));
}

/*
 * What variables made may hold blanks and line ends, decoded from the client's URI: they would end the
 * request line (RFC 9112, 11.2). They go out as they came in, escaped.
 */
static struct str one_word(struct arena *arena, struct str uri)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t clean = scan_span(SCAN_URI, uri.ptr, uri.len);
    char *copy, *p;

    if (likely(clean == uri.len))
        return uri;
    p = copy = arena_bytes(arena, 3 * uri.len);
    for (size_t i = 0; i < uri.len; i++) {
        unsigned char c = (unsigned char) uri.ptr[i];

        if (c > ' ' && c != 0x7f) {
            *p++ = (char) c;
            continue;
        }
        *p++ = '%';
        *p++ = digits[c >> 4];
        *p++ = digits[c & 15];
    }
    return str_from(copy, (size_t) (p - copy));
}

static int evaluate(struct req *r, const struct proxy_pass *pass, struct proxy_target *t)
{
    struct str url = expr_eval(&r->eval, pass->url), authority, uri;
    struct upstream_address a;
    const char *error = split_url(url, &a, &authority, &uri, &t->tls);
    struct addr addr;

    if (error != NULL) {
        log_error(&r->log, 0, "%s in \"%.*s\"", error, STR_ARG(url));
        return -1;
    }
    name_target(&a, t->tls, authority, &t->host_port, &t->port);
    t->host = a.host;
    t->port_number = a.port;
    if (uri.len == 0)
        t->uri = own_uri(r);
    else if (uri.ptr[0] != '/')
        t->uri = str_printf(r->arena, "/%.*s", STR_ARG(uri));
    else
        t->uri = uri;
    t->uri = one_word(r->arena, t->uri);
    if (!a.has_port && !a.is_unix) {
        t->group = upstream_find(r->server->http, str_lower(r->arena, a.host));
        if (t->group != NULL)
            return 0;
    }
    if (addr_parse(&addr, a.host, a.is_unix ? 0 : a.port, false) == 0)
        t->group = upstream_temporary(r->arena, authority, &addr, 1);
    return 0;
}

int proxy_find_target(struct req *r, const struct proxy_pass *pass, struct proxy_target *t)
{
    if (unlikely(pass->url != NULL))
        return evaluate(r, pass, t);
    t->group = pass->group;
    t->host_port = pass->host_port;
    t->port = pass->port;
    t->tls = pass->tls;
    t->uri = pass->uri.len == 0 ? own_uri(r) : mapped_uri(r, pass);
    return 0;
}
