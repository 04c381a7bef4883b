/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening addresses of HTTP: the directive, which servers each address has, and, once the file is
 * read, its default server, its names and its socket. Opens nothing: the master does that with what
 * is asked for here (res_listen).
 */
#include <unistd.h>

#include "core/http/client.h"
#include "core/http/http_config.h"

#define PORT_DEFAULT 80
#define PORT_UNPRIVILEGED 8000 /* of a server without listen, when we are not root */

/* What one directive says: addresses, and what holds for all of them. */
struct listen_line {
    struct addr *addrs;
    unsigned count, capacity;
    struct listen_options options;
    bool options_set; /* a socket option or "bind" was given */
    bool default_server, proxy_protocol, ssl;
};

/* Addresses ---------------------------------------------------------------------------------- */

static void add_addr(struct conf *cf, struct listen_line *line, const struct addr *a, unsigned port)
{
    line->addrs =
        arena_grow(cf->arena, line->addrs, line->count, &line->capacity, sizeof(*line->addrs));
    line->addrs[line->count] = *a;
    addr_set_port(&line->addrs[line->count++], port);
}

struct ports {
    unsigned first, last;
};

/* "80" or "8000-8010". 0 or -1. */
static int parse_ports(struct str text, struct ports *out)
{
    ssize_t dash = str_chr(text, '-');
    uint64_t first, last;

    if (str_to_u64(dash < 0 ? text : str_from(text.ptr, (size_t) dash), &first) != 0)
        return -1;
    last = first;
    if (dash >= 0 && str_to_u64(str_skip(text, (size_t) dash + 1), &last) != 0)
        return -1;
    if (first < 1 || last < first || last > 65535)
        return -1;
    *out = (struct ports){ (unsigned) first, (unsigned) last };
    return 0;
}

static void add_ports(struct conf *cf, struct listen_line *line, const struct addr *a,
                      struct ports ports)
{
    for (unsigned port = ports.first; port <= ports.last; port++)
        add_addr(cf, line, a, port);
}

/* These return what is wrong, for "WHAT in "ADDRESS" of the "listen" directive", or NULL. */

static const char *parse_unix(struct conf *cf, struct listen_line *line, struct str text)
{
    struct addr a;

    if (text.len == 5)
        return "no path in the unix domain socket";
    if (addr_parse(&a, text, 0, false) != 0)
        return "too long path in the unix domain socket";
    add_addr(cf, line, &a, 0);
    return NULL;
}

static const char *parse_v6(struct conf *cf, struct listen_line *line, struct str text)
{
    ssize_t close_at = str_chr(text, ']');
    struct ports ports = { PORT_DEFAULT, PORT_DEFAULT };
    struct addr a;
    struct str rest;

    if (close_at < 0)
        return "invalid host";
    rest = str_skip(text, (size_t) close_at + 1);
    if (rest.len > 0 && rest.ptr[0] != ':')
        return "invalid host";
    if (rest.len > 0 && parse_ports(str_skip(rest, 1), &ports) != 0)
        return "invalid port";
    if (addr_parse(&a, str_from(text.ptr, (size_t) close_at + 1), PORT_DEFAULT, false) != 0)
        return "invalid IPv6 address";
    add_ports(cf, line, &a, ports);
    return NULL;
}

static bool is_port(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((text.ptr[i] < '0' || text.ptr[i] > '9') && text.ptr[i] != '-')
            return false;
    }
    return text.len > 0;
}

static const char *parse_host(struct conf *cf, struct listen_line *line, struct str text)
{
    struct ports ports = { PORT_DEFAULT, PORT_DEFAULT };
    ssize_t colon = str_chr(text, ':');
    struct str host = colon < 0 ? text : str_from(text.ptr, (size_t) colon);
    struct addr a, *found;
    const char *error;
    int n;

    if (str_chr(text, '/') >= 0)
        return "invalid host";
    if (colon < 0 && is_port(text)) {
        if (parse_ports(text, &ports) != 0)
            return "invalid port";
        host = STR("*");
    } else if (colon >= 0 && parse_ports(str_skip(text, (size_t) colon + 1), &ports) != 0) {
        return "invalid port";
    }
    if (host.len == 0)
        return "no host";
    if (addr_parse(&a, host, ports.first, str_eq(host, STR("*"))) == 0) {
        add_ports(cf, line, &a, ports);
        return NULL;
    }
    n = addr_resolve(cf->arena, host, ports.first, &found, &error);
    if (n < 0)
        return "host not found";
    for (int i = 0; i < n; i++) {
        int k = 0;

        while (k < i && !addr_eq(&found[k], &found[i], false))
            k++; /* the system's list may repeat one */
        if (k == i)
            add_ports(cf, line, &found[i], ports);
    }
    return NULL;
}

static const char *parse_address(struct conf *cf, struct listen_line *line)
{
    struct str text = cf->args[1];
    const char *error;

    if (str_casestarts(text, STR("unix:")))
        error = parse_unix(cf, line, text);
    else if (text.len > 0 && text.ptr[0] == '[')
        error = parse_v6(cf, line, text);
    else
        error = parse_host(cf, line, text);
    if (error == NULL)
        return NULL;
    return conf_error_arg(cf, 1, "%s in \"%.*s\" of the \"listen\" directive", error,
                          STR_ARG(text));
}

/* Parameters --------------------------------------------------------------------------------- */

/* on | off | [idle]:[interval]:[count] */
static int parse_keepalive(struct str v, struct listen_options *o)
{
    struct str part[3] = { STR_NULL, STR_NULL, STR_NULL };
    uint64_t ms;

    o->keepalive = !str_eq(v, STR("off"));
    if (str_eq(v, STR("on")) || str_eq(v, STR("off")))
        return 0;
    for (unsigned i = 0; i < 3; i++) {
        ssize_t colon = i < 2 ? str_chr(v, ':') : -1;

        part[i] = colon < 0 ? v : str_from(v.ptr, (size_t) colon);
        if (colon < 0)
            break;
        v = str_skip(v, (size_t) colon + 1);
    }
    if (part[0].len + part[1].len + part[2].len == 0)
        return -1;
    for (unsigned i = 0; i < 2; i++) {
        if (part[i].len == 0)
            continue;
        if (str_to_ms(part[i], true, &ms) != 0 || ms < 1000 || ms / 1000 > INT32_MAX)
            return -1;
        *(i == 0 ? &o->keepidle : &o->keepintvl) = (int) (ms / 1000);
    }
    if (part[2].len > 0) {
        if (str_to_u64(part[2], &ms) != 0 || ms == 0 || ms > INT32_MAX)
            return -1;
        o->keepcnt = (int) ms;
    }
    return 0;
}

/* A number (backlog, fastopen) or a size (rcvbuf, sndbuf) behind "name=". */
static const char *number_option(struct conf *cf, unsigned arg, const char *name, bool size,
                                 unsigned min, int *out)
{
    struct str v = cf->args[arg], value = str_skip(v, strlen(name) + 1);
    uint64_t n;

    if ((size ? str_to_size(value, &n) : str_to_u64(value, &n)) != 0 || n < min || n > INT32_MAX)
        return conf_error_arg(cf, arg, "invalid %s \"%.*s\"", name, STR_ARG(v));
    *out = (int) n;
    return NULL;
}

/* Parameters with a value. *known tells whether it is one. */
static const char *value_parameter(struct conf *cf, unsigned arg, struct listen_line *line,
                                   bool *known)
{
    struct str v = cf->args[arg];
    struct listen_options *o = &line->options;

    *known = true;
    if (str_starts(v, STR("backlog=")))
        return number_option(cf, arg, "backlog", false, 1, &o->backlog);
    if (str_starts(v, STR("rcvbuf=")))
        return number_option(cf, arg, "rcvbuf", true, 0, &o->rcvbuf);
    if (str_starts(v, STR("sndbuf=")))
        return number_option(cf, arg, "sndbuf", true, 0, &o->sndbuf);
    if (str_starts(v, STR("fastopen=")))
        return number_option(cf, arg, "fastopen", false, 0, &o->fastopen);
    if (str_starts(v, STR("setfib=")))
        return conf_error_arg(cf, arg,
                              "invalid parameter \"%.*s\": routing tables are not "
                              "supported on this platform",
                              STR_ARG(v));
    if (str_starts(v, STR("accept_filter=")))
        return conf_error_arg(cf, arg, "accept filters \"%.*s\" are not supported on this platform",
                              STR_ARG(v));
    if (str_starts(v, STR("so_keepalive="))) {
        struct str value = str_skip(v, 13);

        if (parse_keepalive(value, o) != 0)
            return conf_error_arg(cf, arg, "invalid so_keepalive value: \"%.*s\"", STR_ARG(value));
        return NULL;
    }
    if (str_eq(v, STR("ipv6only=on")) || str_eq(v, STR("ipv6only=off"))) {
        o->ipv6only = v.ptr[v.len - 1] == 'n';
        o->ipv6only_set = true;
        return NULL;
    }
    *known = false;
    return NULL;
}

/* What a protocol module would have to take care of. NULL when the parameter is not one of them. */
static const char *module_parameter(struct conf *cf, unsigned arg)
{
    static const struct {
        struct str name;
        const char *module;
    } list[] = {
        { STR_INIT("http2"), "ngx_http_v2_module" },
        { STR_INIT("quic"), "ngx_http_v3_module" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
        if (str_eq(cf->args[arg], list[i].name))
            return conf_error_arg(cf, arg, "the \"%s\" parameter requires %s", list[i].name.ptr,
                                  list[i].module);
    }
    return NULL;
}

static const char *parse_parameter(struct conf *cf, unsigned arg, struct listen_line *line)
{
    struct str v = cf->args[arg];
    bool known;
    const char *error;

    if (str_eq(v, STR("default_server")) || str_eq(v, STR("default"))) {
        line->default_server = true;
        return NULL;
    }
    if (str_eq(v, STR("proxy_protocol"))) {
        line->proxy_protocol = true;
        return NULL;
    }
    if (str_eq(v, STR("ssl"))) {
        if (conf_http(cf)->tls == NULL)
            return conf_error_arg(cf, arg,
                                  "the \"ssl\" parameter requires ngx_http_ssl_module");
        line->ssl = true;
        return NULL;
    }
    error = module_parameter(cf, arg);
    if (error != NULL)
        return error;
    line->options_set = true;
    /* Each worker has its own socket anyway; as in nginx the parameter implies "bind". */
    if (str_eq(v, STR("bind")) || str_eq(v, STR("reuseport")))
        return NULL;
    if (str_eq(v, STR("deferred"))) {
        line->options.deferred = true;
        return NULL;
    }
    if (str_eq(v, STR("multipath"))) {
        line->options.multipath = true;
        return NULL;
    }
    error = value_parameter(cf, arg, line, &known);
    if (error == NULL && !known)
        return conf_error_arg(cf, arg, "invalid parameter \"%.*s\"", STR_ARG(v));
    return error;
}

/* Addresses and their servers ---------------------------------------------------------------- */

static struct http_listen *find_or_add(struct conf *cf, struct http_main *http,
                                       const struct addr *addr)
{
    struct str text = addr_dup_text(cf->arena, addr, true);
    struct http_listen *l;

    if (http->listen_by_text.arena == NULL)
        table_init(&http->listen_by_text, cf->arena);
    l = table_get(&http->listen_by_text, text);
    if (l != NULL)
        return l;
    l = ARENA_NEW(cf->arena, struct http_listen);
    l->http = http;
    l->addr = *addr;
    l->text = text;
    l->options = LISTEN_OPTIONS_DEFAULT;
    l->options.reuseport = addr->sa.sa_family != AF_UNIX;
    l->wildcard = addr_is_wildcard(addr);
    l->pos = cf->pos;
    list_push_back(&http->listens, &l->link);
    table_put(&http->listen_by_text, text, l);
    return l;
}

/* What is spoken on an address is said by any of its lines; two that do not say the same may not mean what comes of it. */
static void set_protocols(struct conf *cf, struct http_listen *l, const struct listen_line *line)
{
    if (!line->proxy_protocol && !line->ssl)
        return;
    if ((l->proxy_protocol || l->ssl) &&
        (l->proxy_protocol != line->proxy_protocol || l->ssl != line->ssl))
        conf_warn_at(cf, cf->pos, "protocol options redefined for %.*s", STR_ARG(l->text));
    l->proxy_protocol |= line->proxy_protocol;
    l->ssl |= line->ssl;
}

static const char *add_server(struct conf *cf, struct server *server, const struct addr *addr,
                              const struct listen_line *line)
{
    struct http_listen *l = find_or_add(cf, server->http, addr);

    /* Servers come one after the other: one that has the address already was the last to get it. */
    if (l->server_count > 0 && l->servers[l->server_count - 1] == server)
        return conf_error_arg(cf, 1, "a duplicate listen %.*s", STR_ARG(l->text));
    if (line->options_set) {
        if (l->options_set)
            return conf_error(cf, "duplicate listen options for %.*s", STR_ARG(l->text));
        l->options = line->options;
        l->options.reuseport = addr->sa.sa_family != AF_UNIX;
        l->options_set = l->bind = true;
        l->pos = cf->pos;
    }
    if (line->default_server) {
        if (l->default_set)
            return conf_error(cf, "a duplicate default server for %.*s", STR_ARG(l->text));
        l->default_set = true;
        l->default_server = server;
    }
    set_protocols(cf, l, line);
    l->servers = arena_grow(cf->arena, l->servers, l->server_count, &l->server_capacity,
                            sizeof(struct server *));
    l->servers[l->server_count++] = server;
    return NULL;
}

/* listen ADDRESS [PARAMETER …] */
const char *set_listen(struct conf *cf, void *field)
{
    struct server *server = conf_server(cf);
    struct listen_line line = { .options = LISTEN_OPTIONS_DEFAULT };
    const char *error;

    (void) field;
    server->listens = true;
    error = parse_address(cf, &line);
    for (unsigned i = 2; error == NULL && i < cf->nargs; i++)
        error = parse_parameter(cf, i, &line);
    for (unsigned i = 0; error == NULL && i < line.count; i++)
        error = add_server(cf, server, &line.addrs[i], &line);
    return error;
}

const char *listen_default(struct conf *cf, struct server *server)
{
    struct listen_line line = { .options = LISTEN_OPTIONS_DEFAULT };
    struct addr any;
    unsigned port = geteuid() == 0 ? PORT_DEFAULT : PORT_UNPRIVILEGED;
    int rc = addr_parse(&any, STR("*"), port, true);

    ASSERT(rc == 0);
    return add_server(cf, server, &any, &line);
}

/* Completion --------------------------------------------------------------------------------- */

/* The address whose socket also takes what comes for l; NULL: l has one of its own. */
static struct http_listen *sharer(struct conf *cf, struct http_main *http,
                                  const struct http_listen *l)
{
    struct addr any;
    int family = l->addr.sa.sa_family;

    if (l->bind || l->wildcard || family == AF_UNIX)
        return NULL;
    if (addr_parse(&any, family == AF_INET6 ? STR("[::]") : STR("*"), addr_port(&l->addr), true) !=
        0)
        return NULL;
    return table_get(&http->listen_by_text, addr_dup_text(cf->arena, &any, true));
}

static void share(struct conf *cf, struct http_listen *wildcard, struct http_listen *l)
{
    unsigned *n = &wildcard->specific_count;

    /* One more for the NULL at the end: the arena zeroes nothing here. */
    wildcard->specific = arena_grow(cf->arena, wildcard->specific, *n, &wildcard->specific_capacity,
                                    sizeof(*wildcard->specific));
    wildcard->specific[(*n)++] = l;
    wildcard->specific = arena_grow(cf->arena, wildcard->specific, *n, &wildcard->specific_capacity,
                                    sizeof(*wildcard->specific));
    wildcard->specific[*n] = NULL;
}

static int ask_for_socket(struct conf *cf, struct http_listen *l)
{
    struct res_listen *socket = res_listen(cf->config, &l->addr);

    if (socket->owner != NULL) {
        conf_error_at(cf, l->pos, "duplicate \"%.*s\" address and port pair", STR_ARG(l->text));
        return -1;
    }
    /* Accepted sockets inherit it: no system call for each connection. */
    l->options.nodelay =
        l->addr.sa.sa_family != AF_UNIX && l->default_server->core_loc->tcp_nodelay;
    socket->options = l->options;
    socket->single = l->addr.sa.sa_family == AF_UNIX;
    socket->pos = l->pos;
    socket->accept = client_accept;
    socket->owner = l;
    l->socket = socket;
    return 0;
}

int http_listens_finish(struct conf *cf, struct http_main *http)
{
    unsigned errors = cf->config->errors;
    int rc = 0;

    for (struct list *n = http->listens.next; n != &http->listens; n = n->next) {
        struct http_listen *l = container_of(n, struct http_listen, link);
        struct http_listen *wildcard = sharer(cf, http, l);

        if (l->server_count == 0)
            continue; /* its directive was wrong, which has been said */
        if (l->default_server == NULL)
            l->default_server = l->servers[0];
        l->names = name_table_build(cf, l);
        if (wildcard != NULL)
            share(cf, wildcard, l);
        else if (ask_for_socket(cf, l) != 0)
            rc = -1;
    }
    return rc != 0 || cf->config->errors != errors ? -1 : 0;
}
