/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core's variables for a request that is made by hand: what each says, when there is none,
 * which are cached, and the two that can be set.
 */
#include "t/unit/core/http/fake_req.h"

#include "core/base/clock.h"
#include "core/http/proxy_protocol.h"
#include "core/version.h"

const struct module *const modules[] = { &module_http_core, NULL };

#define SERVER "server { listen 127.0.0.1:8123; server_name first.test second.test; root /data; }"

#define is_var(name, expected) is_str(fake_var(name), expected, "$%s", name)

static void test_request(void)
{
    fake_start(SERVER, "/a/b.html", "x=1&Y=two&empty=&x=9&y&%41=esc");
    fake_msg.line = STR("GET /a//b.html?x HTTP/1.1");
    is_var("uri", "/a/b.html");
    is_var("document_uri", "/a/b.html");
    is_var("request_uri", "/a/b.html?x=1&Y=two&empty=&x=9&y&%41=esc");
    is_var("args", "x=1&Y=two&empty=&x=9&y&%41=esc");
    is_var("query_string", "x=1&Y=two&empty=&x=9&y&%41=esc");
    is_var("is_args", "?");
    is_var("arg_x", "1");
    is_var("arg_y", "two");
    is_var("arg_Y", "two");
    is_var("arg_empty", "");
    is_var("arg_none", NULL);
    is_var("arg_a", NULL);
    is_var("arg_", NULL);
    is_var("request", "GET /a//b.html?x HTTP/1.1");
    is_var("request_method", "GET");
    is_var("server_protocol", "HTTP/1.1");
    is_var("server_name", "first.test");
    is_var("host", "first.test");
    fake->host = STR("asked.test");
    is_var("host", "asked.test");
    is_var("request_port", "");
    is_var("is_request_port", "");
    fake->host_port = 8080;
    is_var("request_port", "8080");
    is_var("is_request_port", ":");
    is_var("request_filename", "/data/a/b.html");
    is_var("document_root", "/data");
    is_var("scheme", "http");
    is_var("https", "");
    is_var("pipe", ".");
    fake->pipelined = true;
    is_var("pipe", "p");
    fake_msg.version = HTTP_10;
    is_var("server_protocol", "HTTP/1.0");
    fake_msg.version = HTTP_09;
    is_var("server_protocol", NULL);
    fake->args = STR("");
    is_var("is_args", "");
    is_var("args", "");
    fake_end();
}

static void test_fields(void)
{
    fake_start(SERVER, "/", "");
    is_var("http_host", NULL);
    is_var("content_type", NULL);
    is_var("content_length", NULL);
    fake_field("Host", "a:80");
    fake_field("X-One", "1");
    fake_field("x-one", "2");
    fake_field("X-Gone", "3");
    fake_field("X_One", "4");
    fake_field("Cookie", "a=1; B=2");
    fake_field("Cookie", "c=\"3\"; a=4; d=");
    fake_field("Content-Type", "t/t");
    fake_field("Content-Length", "007");
    fields_delete_name(&fake_msg.fields, STR("x-gone"));
    is_var("http_host", "a:80");
    is_var("http_x_one", "1, 2, 4");
    is_var("http_x_gone", NULL);
    is_var("http_x_on", NULL);
    is_var("http_", NULL);
    is_var("http_cookie", "a=1; B=2; c=\"3\"; a=4; d=");
    is_var("cookie_a", "1");
    is_var("cookie_b", "2");
    is_var("cookie_c", "\"3\"");
    is_var("cookie_d", "");
    is_var("cookie_x", NULL);
    is_var("content_type", "t/t");
    is_var("content_length", "007");
    fake_end();
}

static const char *user(const char *authorization)
{
    static char text[64];
    const char *v;

    fake_start(SERVER, "/", "");
    if (authorization != NULL)
        fake_field("Authorization", authorization);
    v = fake_var("remote_user");
    snprintf(text, sizeof(text), "%s", v != NULL ? v : "none");
    fake_end();
    return text;
}

static void test_user(void)
{
    is_str(user("Basic dTpw"), "u", "the user of u:p");
    is_str(user("basic  dXNlcjphOmI="), "user",
           "the scheme's case does not matter, nor a second colon");
    is_str(user("Basic dXNlcg=="), "none", "no colon, no user");
    is_str(user("Basic OnA="), "none", "an empty one is none");
    is_str(user("Basic !"), "none", "not Base64");
    is_str(user("Basic "), "none", "nothing");
    is_str(user("Bearer dTpw"), "none", "another scheme");
    is_str(user(NULL), "none", "no field");
}

static void test_body(void)
{
    fake_start(SERVER, "/", "");
    is_var("request_body", NULL);
    is_var("request_body_file", NULL);
    fake->body.started = true;
    is_var("request_body", "");
    chain_push_str(&fake->body.chain, STR("ab"));
    is_var("request_body", "ab");
    chain_push_str(&fake->body.chain, STR("cd"));
    is_var("request_body", "abcd");
    fake->body.length = -1;
    fake->body.received = 4;
    is_var("content_length", "4");
    fake->body.complete = false;
    is_var("request_body", NULL);
    is_var("content_length", NULL);
    fake->body.file_name = STR("/tmp/0001");
    is_var("request_body_file", "/tmp/0001");
    fake->head_bytes = 100;
    fake->body.wire = 14;
    is_var("request_length", "114");
    fake_end();
}

static void test_connection(void)
{
    struct addr realip;
    struct str out;

    fake_start(SERVER, "/", "");
    is_var("remote_addr", "10.1.2.3");
    is_var("remote_port", "50000");
    is_var("server_addr", "127.0.0.1");
    is_var("server_port", "8123");
    ok(var_by_name(&fake->eval, STR("binary_remote_addr"), &out) && out.len == 4 &&
           memcmp(out.ptr, "\12\1\2\3", 4) == 0,
       "$binary_remote_addr");
    is_var("connection", "42");
    is_var("connection_requests", "3");
    is_var("tcpinfo_rtt", NULL);
    is_var("proxy_protocol_addr", NULL);
    is_var("proxy_protocol_tlv_ssl", NULL);
    client_extra(&fake_client);
    fake->realip = &realip;
    ok(addr_parse(&realip, STR("[2001:db8::1]:99"), 0, false) == 0,
       "an address");
    is_var("remote_addr", "2001:db8::1");
    is_var("remote_port", "99");
    ok(var_by_name(&fake->eval, STR("binary_remote_addr"), &out) && out.len == 16 &&
           memcmp(out.ptr, "\x20\x01\x0d\xb8", 4) == 0,
       "$binary_remote_addr has 16 bytes of IPv6");
    fake->realip = NULL;
    fake_conn.peer.sa.sa_family = AF_UNIX;
    fake_conn.peer_len = sizeof(sa_family_t);
    is_var("remote_addr", "unix:");
    is_var("remote_port", "");
    is_var("binary_remote_addr", "unix:");
    fake_client.extra->have_proxy = true;
    ok(addr_parse(&fake_client.extra->proxy_source, STR("1.2.3.4:5"), 0, false) == 0 &&
           addr_parse(&fake_client.extra->proxy_dest, STR("6.7.8.9:10"), 0, false) == 0,
       "two more");
    is_var("proxy_protocol_addr", "1.2.3.4");
    is_var("proxy_protocol_port", "5");
    is_var("proxy_protocol_server_addr", "6.7.8.9");
    is_var("proxy_protocol_server_port", "10");
    fake_end();
    fake_start("server { listen unix:/tmp/x.sock; }", "/", "");
    is_var("server_addr", "unix:/tmp/x.sock");
    is_var("server_port", "");
    fake_end();
}

/*
 * A version 2 header over IPv4 with ALPN, SSL (verified with result 7, CN "me") and a type of its
 * own.
 */
static void test_tlvs(void)
{
    static const char header[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x28"
                                 "\1\2\3\4\5\6\7\10\0\1\0\2"
                                 "\x01\0\2h2"
                                 "\x20\0\x0d\x05\0\0\0\x07\x22\0\2me\x21\0\0"
                                 "\xe0\0\4abcd";
    size_t len = sizeof(header) - 1;
    struct addr source, dest;
    bool known;

    fake_start(SERVER, "/", "");
    is_int(proxy_protocol_parse(header, len, &source, &dest, &known), (long long) len, "a header");
    client_extra(&fake_client)->proxy_tlvs = proxy_protocol_tlvs(header, len);
    is_var("proxy_protocol_tlv_alpn", "h2");
    is_var("proxy_protocol_tlv_0x01", "h2");
    is_var("proxy_protocol_tlv_0xe0", "abcd");
    is_var("proxy_protocol_tlv_ssl_verify", "7");
    is_var("proxy_protocol_tlv_ssl_cn", "me");
    is_var("proxy_protocol_tlv_ssl_version", "");
    is_var("proxy_protocol_tlv_ssl_cipher", NULL);
    is_var("proxy_protocol_tlv_authority", NULL);
    is_var("proxy_protocol_tlv_0x99", NULL);
    is_var("proxy_protocol_tlv_0x1e0", NULL);
    is_var("proxy_protocol_tlv_bogus", NULL);
    ok(proxy_protocol_tlvs(header, 28).ptr == NULL, "no fields");
    ok(proxy_protocol_tlvs("PROXY UNKNOWN\r\n", 15).ptr == NULL, "nor in version 1");
    fake_client.extra->proxy_tlvs.len -= 1;
    is_var("proxy_protocol_tlv_0xe0", NULL); /* cut short */
    is_var("proxy_protocol_tlv_alpn", "h2");
    fake_end();
}

static void test_answer(void)
{
    fake_start("server { listen 127.0.0.1:8123; keepalive_timeout 75 20; limit_rate 10k; }", "/",
               "");
    is_var("status", "000");
    is_var("sent_http_content_length", NULL);
    is_var("sent_http_last_modified", NULL);
    is_var("sent_http_transfer_encoding", NULL);
    is_var("sent_http_x", NULL);
    is_var("sent_http_connection", "close");
    is_var("sent_http_keep_alive", NULL);
    fake->keep_alive = true;
    is_var("sent_http_connection", "keep-alive");
    is_var("sent_http_keep_alive", "timeout=20");
    fake->out.status = 200;
    is_var("status", "200");
    fake->err_status = 404;
    is_var("status", "404");
    fake->head_sent = true;
    is_var("status", "200");
    fake->head_sent = false;
    fake->aborted = true;
    fake->out.status = 499;
    is_var("status", "499");
    fake->out.status = 101;
    is_var("sent_http_connection", "upgrade");
    fake->out.content_length = 12;
    is_var("sent_http_content_length", "12");
    fake->last_modified = 784111777;
    is_var("sent_http_last_modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    fake->out.chunked = true;
    is_var("sent_http_transfer_encoding", "chunked");
    fields_add(&fake->out, &fake->out.fields, STR("Link"), STR("a"));
    fields_add(&fake->out, &fake->out.fields, STR("Link"), STR("b"));
    fields_add_token(&fake->out, &fake->out.fields, T_LOCATION, STR("/x"));
    fields_add(&fake->out, &fake->out.trailers, STR("X-Sum"), STR("9"));
    is_var("sent_http_link", "a, b");
    is_var("sent_http_location", "/x");
    is_var("sent_trailer_x_sum", "9");
    is_var("sent_http_x_sum", NULL);
    fake->sent_bytes = 50;
    fake->response_head_bytes = 80;
    is_var("bytes_sent", "50");
    is_var("body_bytes_sent", "0");
    fake->sent_bytes = 100;
    is_var("body_bytes_sent", "20");
    is_var("request_completion", "");
    fake->output_done = true;
    is_var("request_completion", "OK");
    is_var("limit_rate", "10240");
    fake->limit_rate = 5;
    is_var("limit_rate", "5");
    fake_end();
}

static void test_process(void)
{
    char text[32];
    const char *a, *b;

    fake_start(SERVER, "/", "");
    snprintf(text, sizeof(text), "%d", (int) getpid());
    is_var("pid", text);
    is_var("nginx_version", PROXYD_NGINX_LEVEL);
    gethostname(text, sizeof(text));
    ok(str_caseeq(str_cstr(fake_var("hostname")), str_cstr(text)), "$hostname");
    a = fake_var("request_id");
    b = fake_var("request_id");
    ok(strlen(a) == 32 && strspn(a, "0123456789abcdef") == 32, "$request_id is %s", a);
    ok(strcmp(a, b) != 0, "and another one if it is not cached");
    a = fake_var("time_iso8601");
    b = fake_var("time_iso8601_ms");
    ok(strlen(a) == 25 && strlen(b) == 29 && strncmp(a, b, 19) == 0 && b[19] == '.' &&
           strcmp(a + 19, b + 23) == 0,
       "$time_iso8601_ms: %s", b);
    ok(strlen(fake_var("time_local")) == 26, "$time_local");
    a = fake_var("msec");
    ok(strspn(a, "0123456789.") == strlen(a) && a[strlen(a) - 4] == '.', "$msec: %s", a);
    fake->start_ms = clock_ms() - 1015;
    is_var("request_time", "1.015");
    fake_client.start_ms = clock_ms() - 7;
    is_var("connection_time", "0.007");
    fake_end();
}

/* By index, as expressions get them. */
static struct str indexed(const char *name)
{
    const struct var_space *s = fake->eval.space;
    struct str out = STR_NULL;

    for (unsigned i = 0; i < s->count; i++) {
        if (str_eq(s->indexed[i]->name, str_cstr(name)))
            var_value(&fake->eval, s->indexed[i], &out);
    }
    return out;
}

static const struct var *variable(const char *name)
{
    return table_get(&fake->eval.space->names, str_cstr(name));
}

static void test_caching(void)
{
    fake_start("server { listen 80; location /x { root"
               " /$uri$args$arg_a$http_x$host$sent_http_y$request_id$status$limit_rate; } }",
               "/1", "a=1");
    ok(str_eq(indexed("uri"), STR("/1")) && str_eq(indexed("arg_a"), STR("1")), "first values");
    ok(indexed("http_x").len == 0 && indexed("sent_http_y").len == 0, "absent ones");
    fake->uri = STR("/2");
    fake_field("X", "late");
    fields_add(&fake->out, &fake->out.fields, STR("Y"), STR("late"));
    ok(str_eq(indexed("uri"), STR("/2")), "$uri is asked anew");
    ok(indexed("http_x").len == 0, "$http_ is not");
    ok(indexed("sent_http_y").len == 0, "$sent_http_ read too early stays empty");
    struct str id = indexed("request_id");
    ok(id.len == 32 && indexed("request_id").ptr == id.ptr, "$request_id is one");
    fake->valid_unparsed_uri = true;
    variable("args")->set(&fake->eval, variable("args"), STR("a=2&b"));
    ok(str_eq(indexed("args"), STR("a=2&b")) && str_eq(indexed("arg_a"), STR("2")), "$args is set");
    ok(!fake->valid_unparsed_uri, "and the URI as received is out of date");
    variable("limit_rate")->set(&fake->eval, variable("limit_rate"), STR("4k"));
    is_uint(fake->limit_rate, 4096, "$limit_rate is set");
    ok(str_eq(indexed("limit_rate"), STR("4096")), "and read");
    variable("limit_rate")->set(&fake->eval, variable("limit_rate"), STR("fast"));
    is_uint(fake->limit_rate, 4096, "a bad one changes nothing");
    is_uint(toy_count("invalid $limit_rate \"fast\""), 1, "and is logged");
    ok(variable("uri")->set == NULL && !(variable("uri")->flags & VAR_CHANGEABLE),
       "$uri cannot be set");
    fake_end();
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    clock_update();
    test_request();
    test_fields();
    test_user();
    test_body();
    test_connection();
    test_tlvs();
    test_answer();
    test_process();
    test_caching();
    toy_end(files);
    block_trim();
    return done_testing();
}
