/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The variables of the http core: the table, and those of the connection, the server, the process
 * and the time. Called through core/config/var.c when an expression asks for a value. Which are
 * always computed anew (VAR_FRESH) is nginx's choice, and configurations depend on it.
 */
#include <netinet/tcp.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/proxy_protocol.h"
#include "core/http/var.h"
#include "core/version.h"

bool var_is_number(struct req *r, struct str *out, uint64_t n)
{
    char *p = arena_bytes(r->arena, FMT_U64_MAX);

    *out = str_from(p, (size_t) (fmt_u64(p, n) - p));
    return true;
}

static char *put_three(char *p, unsigned n)
{
    *p++ = (char) ('0' + n / 100 % 10);
    *p++ = (char) ('0' + n / 10 % 10);
    *p++ = (char) ('0' + n % 10);
    return p;
}

bool var_is_seconds(struct req *r, struct str *out, uint64_t ms)
{
    char *start = arena_bytes(r->arena, FMT_U64_MAX + 4), *p;

    p = fmt_u64(start, ms / 1000);
    *p++ = '.';
    p = put_three(p, (unsigned) (ms % 1000));
    *out = str_from(start, (size_t) (p - start));
    return true;
}

static bool is_copy(struct req *r, struct str *out, struct str value)
{
    char *p = arena_bytes(r->arena, value.len);

    fmt_str(p, value);
    *out = str_from(p, value.len);
    return true;
}

/* Addresses --------------------------------------------------------------------------------- */

static bool is_addr(struct req *r, struct str *out, const struct addr *a, bool with_port)
{
    char buf[ADDR_TEXT];

    return is_copy(r, out, str_from(buf, addr_format(a, with_port, buf, sizeof(buf))));
}

/* A unix socket has no port: the value is then empty. */
static bool is_port(struct req *r, struct str *out, const struct addr *a)
{
    unsigned port = addr_port(a);

    return port != 0 ? var_is_number(r, out, port) : var_is(out, STR(""));
}

static bool remote_addr(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct addr room;

    (void) v;
    return is_addr(r, out, req_peer(r, &room), false);
}

static bool remote_port(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct addr room;

    (void) v;
    return is_port(r, out, req_peer(r, &room));
}

static bool binary_remote_addr(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct addr room;
    const struct addr *a = req_peer(r, &room);

    (void) v;
    switch (a->sa.sa_family) {
    case AF_INET:
        return is_copy(r, out, str_from((const char *) &a->in.sin_addr, sizeof(a->in.sin_addr)));
    case AF_INET6: return is_copy(r, out, str_from((const char *) &a->in6.sin6_addr, 16));
    default: return var_is(out, STR("unix:"));
    }
}

/* Only a socket that takes several addresses must be asked which one a connection came to. */
static const struct addr *local_addr(struct req *r)
{
    const struct http_listen *l = r->client->listen;

    return l->wildcard ? client_local(r->client) : &l->addr;
}

static bool server_addr(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct addr *a = local_addr(r);

    (void) v;
    return is_addr(r, out, a, a->sa.sa_family == AF_UNIX);
}

static bool server_port(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return is_port(r, out, &r->client->listen->addr);
}

enum { PROXY_ADDR, PROXY_PORT, PROXY_SERVER_ADDR, PROXY_SERVER_PORT };

static bool proxy_protocol(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct client_extra *x = r->client->extra;

    if (x == NULL || !x->have_proxy)
        return false;
    switch (v->data) {
    case PROXY_ADDR: return is_addr(r, out, &x->proxy_source, false);
    case PROXY_PORT: return is_port(r, out, &x->proxy_source);
    case PROXY_SERVER_ADDR: return is_addr(r, out, &x->proxy_dest, false);
    default: return is_port(r, out, &x->proxy_dest);
    }
}

/* $proxy_protocol_tlv_alpn, …_0x01, …_ssl_cn: the field's bytes as they came. */
static bool proxy_protocol_tlv_value(struct eval *e, const struct var *v, struct str *out)
{
    const struct client_extra *x = req_of(e)->client->extra;
    char buf[16];

    return x != NULL && x->proxy_tlvs.len > 0 &&
           proxy_protocol_tlv(x->proxy_tlvs, v->suffix, buf, out) == 0 &&
           is_copy(req_of(e), out, *out);
}

/* The connection ------------------------------------------------------------------------------ */

static bool connection(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_number(r, out, r->client->conn->log.conn);
}

static bool connection_requests(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_number(r, out, r->client->requests);
}

static bool connection_time(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);

    (void) v;
    return var_is_seconds(r, out, clock_ms() - r->client->start_ms);
}

static bool pipe_state(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->main->pipelined ? STR("p") : STR("."));
}

static bool scheme(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->client->tls ? STR("https") : STR("http"));
}

static bool https(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->client->tls ? STR("on") : STR(""));
}

enum { TCP_RTT, TCP_RTTVAR, TCP_SND_CWND, TCP_RCV_SPACE };

static bool tcpinfo(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    struct tcp_info ti;
    socklen_t len = sizeof(ti);
    struct conn_info info;

    conn_info(r->client->conn, &info);
    if (info.fd < 0 || getsockopt(info.fd, IPPROTO_TCP, TCP_INFO, &ti, &len) != 0)
        return false;
    switch (v->data) {
    case TCP_RTT: return var_is_number(r, out, ti.tcpi_rtt);
    case TCP_RTTVAR: return var_is_number(r, out, ti.tcpi_rttvar);
    case TCP_SND_CWND: return var_is_number(r, out, ti.tcpi_snd_cwnd);
    default: return var_is_number(r, out, ti.tcpi_rcv_space);
    }
}

/* Server, process, time ------------------------------------------------------------------------ */

static bool server_name(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is(out, req_of(e)->server->name);
}

static bool hostname(struct eval *e, const struct var *v, struct str *out)
{
    static char name[256];

    (void) e;
    (void) v;
    if (name[0] == '\0') {
        if (gethostname(name, sizeof(name)) != 0)
            return false;
        name[sizeof(name) - 1] = '\0';
        for (char *p = name; *p != '\0'; p++)
            *p = (char) ascii_lower((unsigned char) *p);
    }
    return var_is(out, str_cstr(name));
}

static bool nginx_version(struct eval *e, const struct var *v, struct str *out)
{
    (void) e;
    (void) v;
    return var_is(out, STR(PROXYD_NGINX_LEVEL));
}

static bool pid(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is_number(req_of(e), out, (uint64_t) getpid());
}

static bool msec(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return var_is_seconds(req_of(e), out, (uint64_t) clock_time() * 1000 + clock_time_ms());
}

static bool time_iso8601(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return is_copy(req_of(e), out, clock_iso8601());
}

/* "1994-11-06T08:49:37.123+00:00" */
static bool time_iso8601_ms(struct eval *e, const struct var *v, struct str *out)
{
    struct str text = clock_iso8601();
    size_t seconds = sizeof("1994-11-06T08:49:37") - 1;
    char *start = arena_bytes(req_of(e)->arena, text.len + 4), *p;

    (void) v;
    ASSERT(text.len > seconds);
    p = fmt_str(start, str_from(text.ptr, seconds));
    *p++ = '.';
    p = put_three(p, clock_time_ms());
    p = fmt_str(p, str_skip(text, seconds));
    *out = str_from(start, (size_t) (p - start));
    return true;
}

static bool time_local(struct eval *e, const struct var *v, struct str *out)
{
    (void) v;
    return is_copy(req_of(e), out, clock_log_local());
}

/* The table ------------------------------------------------------------------------------------ */

#define VAR(name_, get_)           \
    {                              \
        .name = name_, .get = get_ \
    }
#define FRESH(name_, get_)                             \
    {                                                  \
        .name = name_, .get = get_, .flags = VAR_FRESH \
    }
#define FAMILY(name_, get_, flags_)                                \
    {                                                              \
        .name = name_, .get = get_, .flags = VAR_PREFIX | (flags_) \
    }
#define VALUED(name_, get_, data_, flags_)                         \
    {                                                              \
        .name = name_, .get = get_, .data = data_, .flags = flags_ \
    }

const struct var_row http_core_variables[] = {
    /* what the request said */
    FAMILY("arg_", var_arg, VAR_FRESH),
    FAMILY("http_", var_http, 0),
    FAMILY("cookie_", var_cookie, 0),
    { .name = "args", .get = var_args, .set = var_set_args, .flags = VAR_FRESH | VAR_CHANGEABLE },
    FRESH("query_string", var_args),
    FRESH("is_args", var_is_args),
    FRESH("uri", var_uri),
    FRESH("document_uri", var_uri),
    VAR("request", var_request_line),
    VAR("request_uri", var_request_uri),
    FRESH("request_method", var_request_method),
    VAR("request_id", var_request_id),
    VAR("request_body", var_request_body),
    VAR("request_body_file", var_request_body_file),
    FRESH("request_filename", var_request_filename),
    FRESH("document_root", var_document_root),
    FRESH("realpath_root", var_realpath_root),
    VAR("host", var_host),
    VALUED("request_port", var_request_port, false, 0),
    VALUED("is_request_port", var_request_port, true, 0),
    FRESH("content_length", var_content_length), /* a chunked body has one once it is read */
    VAR("content_type", var_content_type),
    VAR("remote_user", var_remote_user),
    VAR("server_protocol", var_server_protocol),
    /* what became of it */
    FRESH("status", var_status),
    FRESH("bytes_sent", var_bytes_sent),
    FRESH("body_bytes_sent", var_body_bytes_sent),
    FRESH("request_length", var_request_length),
    FRESH("request_time", var_request_time),
    VAR("request_completion", var_request_completion),
    { .name = "limit_rate",
      .get = var_limit_rate,
      .set = var_set_limit_rate,
      .flags = VAR_FRESH | VAR_CHANGEABLE },
    FAMILY("sent_http_", var_sent_http, 0),
    FAMILY("sent_trailer_", var_sent_trailer, 0),
    VAR("sent_http_content_length", var_sent_content_length),
    VAR("sent_http_last_modified", var_sent_last_modified),
    VAR("sent_http_connection", var_sent_connection),
    VAR("sent_http_keep_alive", var_sent_keep_alive),
    VAR("sent_http_transfer_encoding", var_sent_transfer_encoding),
    /* the connection */
    VAR("remote_addr", remote_addr),
    VAR("remote_port", remote_port),
    VAR("binary_remote_addr", binary_remote_addr),
    VAR("server_addr", server_addr),
    VAR("server_port", server_port),
    VALUED("proxy_protocol_addr", proxy_protocol, PROXY_ADDR, 0),
    VALUED("proxy_protocol_port", proxy_protocol, PROXY_PORT, 0),
    VALUED("proxy_protocol_server_addr", proxy_protocol, PROXY_SERVER_ADDR, 0),
    VALUED("proxy_protocol_server_port", proxy_protocol, PROXY_SERVER_PORT, 0),
    FAMILY("proxy_protocol_tlv_", proxy_protocol_tlv_value, 0),
    VAR("connection", connection),
    VAR("connection_requests", connection_requests),
    FRESH("connection_time", connection_time),
    VAR("pipe", pipe_state),
    VAR("scheme", scheme),
    VAR("https", https),
    VALUED("tcpinfo_rtt", tcpinfo, TCP_RTT, VAR_FRESH),
    VALUED("tcpinfo_rttvar", tcpinfo, TCP_RTTVAR, VAR_FRESH),
    VALUED("tcpinfo_snd_cwnd", tcpinfo, TCP_SND_CWND, VAR_FRESH),
    VALUED("tcpinfo_rcv_space", tcpinfo, TCP_RCV_SPACE, VAR_FRESH),
    /* server, process, time */
    VAR("server_name", server_name),
    VAR("hostname", hostname),
    VAR("nginx_version", nginx_version),
    VAR("pid", pid),
    FRESH("msec", msec),
    FRESH("time_iso8601", time_iso8601),
    FRESH("time_iso8601_ms", time_iso8601_ms),
    FRESH("time_local", time_local),
    { .name = NULL },
};
