/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening addresses: what each form of the directive amounts to, which socket takes what, default
 * servers and the sentences for what is wrong.
 */
#include "t/unit/core/config/toy.h"

#include "core/http/client.h"

const struct module *const modules[] = { &module_http_core, NULL };

static struct config *config;

static void done(void)
{
    config_free(config);
    config = NULL;
}

static void servers(const char *body)
{
    char text[4096];

    snprintf(text, sizeof(text), "http { %s }", body);
    config = toy_read(text);
    if (config == NULL)
        diag("%s", toy_logged);
    ASSERT(config != NULL);
}

static struct http_listen *address(const char *text)
{
    struct http_main *http = config_http(config);

    for (struct list *n = http->listens.next; n != &http->listens; n = n->next) {
        struct http_listen *l = container_of(n, struct http_listen, link);

        if (str_eq(l->text, str_cstr(text)))
            return l;
    }
    return NULL;
}

static unsigned sockets(void)
{
    unsigned n = 0;

    for (struct list *l = config->resources->listens.next; l != &config->resources->listens;
         l = l->next)
        n++;
    return n;
}

#define has(text) ok(address(text) != NULL, "listens on %s", text)

static void test_forms(void)
{
    servers("server { listen 8001; listen *:8002; listen 127.0.0.1; listen 127.0.0.1:8003;"
            " listen [::1]:8004; listen [::]; listen unix:/tmp/x.sock; listen localhost:8005;"
            " listen 8010-8012; listen 127.0.0.1:8020-8021; listen [::1]:8030-8031; }");
    has("0.0.0.0:8001");
    has("0.0.0.0:8002");
    has("127.0.0.1:80");
    has("127.0.0.1:8003");
    has("[::1]:8004");
    has("[::]:80");
    has("unix:/tmp/x.sock");
    has("127.0.0.1:8005");
    has("0.0.0.0:8010");
    has("0.0.0.0:8012");
    has("127.0.0.1:8021");
    has("[::1]:8031");
    ok(address("0.0.0.0:8013") == NULL, "a range ends where it says");
    ok(address("unix:/tmp/x.sock")->socket->single, "a unix socket is for all workers");
    ok(!address("127.0.0.1:8003")->socket->single, "others have one each");
    ok(address("[::]:80")->options.ipv6only, "IPv6 sockets take IPv6 only");
    done();
}

static void test_none(void)
{
    servers("server { server_name a; } server { listen 80; server_name b; }"
            "server { listen 8000; server_name c; }");
    if (geteuid() == 0) {
        is_uint(address("0.0.0.0:80")->server_count, 2, "no listen is port 80 for root");
        ok(str_eq(address("0.0.0.0:80")->default_server->name, STR("a")), "in file order");
    } else {
        is_uint(address("0.0.0.0:8000")->server_count, 2, "no listen is port 8000");
        ok(str_eq(address("0.0.0.0:8000")->default_server->name, STR("a")), "in file order");
    }
    done();
}

static void test_default(void)
{
    servers("server { listen 81; listen 82; server_name a; }"
            "server { listen 81 default_server; listen 82; server_name b; }"
            "server { listen 83 default; server_name c; }");
    ok(str_eq(address("0.0.0.0:81")->default_server->name, STR("b")), "the one that says so");
    ok(str_eq(address("0.0.0.0:82")->default_server->name, STR("a")), "else the first");
    ok(str_eq(address("0.0.0.0:83")->default_server->name, STR("c")), "the old word for it");
    ok(address("0.0.0.0:81")->names != NULL, "two servers have a table of names");
    ok(address("0.0.0.0:83")->names == NULL, "one has none");
    done();
}

static void test_sharing(void)
{
    struct http_listen *any;

    servers("server { listen 127.0.0.1:81; listen 127.0.0.2:81 bind; listen 127.0.0.3:82;"
            " listen [::1]:81; listen 127.0.0.5:81; }"
            "server { listen 81; listen [::]:83; listen [::1]:83; }");
    any = address("0.0.0.0:81");
    ok(address("127.0.0.1:81")->socket == NULL, "an address beside the wildcard has no socket");
    ok(address("127.0.0.2:81")->socket != NULL, "unless it says bind");
    ok(address("127.0.0.3:82")->socket != NULL, "or the wildcard is of another port");
    ok(address("[::1]:81")->socket != NULL, "or of another family");
    ok(address("[::1]:83")->socket == NULL, "IPv6 shares too");
    ok(any->specific != NULL && any->specific[0] == address("127.0.0.1:81") &&
           any->specific[1] == address("127.0.0.5:81") && any->specific[2] == NULL,
       "the wildcard knows the addresses it answers for");
    is_uint(sockets(), 5, "sockets");
    ok(any->socket->owner == any && any->socket->accept == client_accept, "connections come to it");
    done();
}

static void test_options(void)
{
    const struct listen_options *o;

    servers("server { listen 81 backlog=7 rcvbuf=8k sndbuf=1m fastopen=0 deferred"
            " so_keepalive=30m::10; tcp_nodelay off; }"
            "server { listen [::]:82 ipv6only=off so_keepalive=off multipath proxy_protocol; }"
            "server { listen 83; } server { listen 81; }");
    o = &address("0.0.0.0:81")->socket->options;
    ok(o->backlog == 7 && o->rcvbuf == 8192 && o->sndbuf == 1 << 20 && o->fastopen == 0 &&
           o->deferred,
       "what was given");
    ok(o->keepalive == 1 && o->keepidle == 1800 && o->keepintvl == 0 && o->keepcnt == 10,
       "keep-alive in parts");
    ok(!o->nodelay, "tcp_nodelay off");
    ok(address("0.0.0.0:81")->bind, "options imply bind");
    o = &address("[::]:82")->socket->options;
    ok(!o->ipv6only && o->ipv6only_set && o->keepalive == 0 && o->multipath && o->nodelay,
       "others");
    ok(address("[::]:82")->proxy_protocol, "the PROXY protocol belongs to the address");
    o = &address("0.0.0.0:83")->socket->options;
    ok(o->backlog == 511 && o->rcvbuf == -1 && o->keepalive == -1 && o->reuseport && o->nodelay &&
           !o->deferred && !o->multipath,
       "what is not said");
    ok(!address("0.0.0.0:83")->bind && !address("0.0.0.0:83")->proxy_protocol, "and not implied");
    done();
}

static void refused(const char *body, const char *why)
{
    char text[1024];

    snprintf(text, sizeof(text), "http { %s }", body);
    config = toy_read(text);
    ok(config == NULL && toy_count(why) == 1 && toy_count("[emerg]") == 1, "%s: %s", body, why);
    if (config != NULL || toy_count(why) != 1)
        diag("%s", toy_logged);
    config_free(config);
}

static void test_refused(void)
{
#define IN(text) " in \"" text "\" of the \"listen\" directive in "
    refused("server { listen 0; }", "invalid port" IN("0"));
    refused("server { listen 65536; }", "invalid port" IN("65536"));
    refused("server { listen 90-80; }", "invalid port" IN("90-80"));
    refused("server { listen a:b; }", "invalid port" IN("a:b"));
    refused("server { listen 127.0.0.1:; }", "invalid port" IN("127.0.0.1:"));
    refused("server { listen :80; }", "no host" IN(":80"));
    refused("server { listen \"\"; }", "no host" IN(""));
    refused("server { listen a/b:80; }", "invalid host" IN("a/b:80"));
    refused("server { listen [::1; }", "invalid host" IN("[::1"));
    refused("server { listen [::1]80; }", "invalid host" IN("[::1]80"));
    refused("server { listen [::1]:x; }", "invalid port" IN("[::1]:x"));
    refused("server { listen [zz]:80; }", "invalid IPv6 address" IN("[zz]:80"));
    refused("server { listen unix:; }", "no path in the unix domain socket" IN("unix:"));
    refused("server { listen no.such.invalid:80; }", "host not found" IN("no.such.invalid:80"));
    refused("server { listen 81 x; }", "invalid parameter \"x\" in ");
    refused("server { listen 81 backlog=0; }", "invalid backlog \"backlog=0\" in ");
    refused("server { listen 81 rcvbuf=x; }", "invalid rcvbuf \"rcvbuf=x\" in ");
    refused("server { listen 81 sndbuf=; }", "invalid sndbuf \"sndbuf=\" in ");
    refused("server { listen 81 fastopen=-1; }", "invalid fastopen \"fastopen=-1\" in ");
    refused("server { listen 81 ipv6only=x; }", "invalid parameter \"ipv6only=x\" in ");
    refused("server { listen 81 so_keepalive=::; }", "invalid so_keepalive value: \"::\" in ");
    refused("server { listen 81 so_keepalive=1:2:x; }",
            "invalid so_keepalive value: \"1:2:x\" in ");
    refused("server { listen 81 so_keepalive=1:2:3:4; }", "invalid so_keepalive value: ");
    refused("server { listen 81 setfib=1; }", "invalid parameter \"setfib=1\"");
    refused("server { listen 81 accept_filter=x; }",
            "accept filters \"accept_filter=x\" are not supported on this platform");
    refused("server { listen 81 ssl; }", "the \"ssl\" parameter requires ngx_http_ssl_module in ");
    refused("server { listen 81; listen *:81; }", "a duplicate listen 0.0.0.0:81 in ");
    refused("server { listen 81 bind; } server { listen 81 backlog=5; }",
            "duplicate listen options for 0.0.0.0:81 in ");
    refused("server { listen 81 default; } server { listen 81 default; }",
            "a duplicate default server for 0.0.0.0:81 in ");
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    test_forms();
    test_none();
    test_default();
    test_sharing();
    test_options();
    test_refused();
    toy_end(files);
    return done_testing();
}
