/* SPDX-License-Identifier: BSD-2-Clause */
/* URIs to paths under root and alias, and media types by extension. */
#include "t/unit/core/http/fake_req.h"

const struct module *const modules[] = { &module_http_core, NULL };

/* The path for a URI in a server with these locations: "ROOT|REST", or "failed". */
static const char *map(const char *server, const char *uri, const char *args)
{
    static char out[512];
    char http[4096];
    struct str path;
    size_t root_len;

    snprintf(http, sizeof(http), "server { listen unix:/nowhere; %s }", server);
    fake_start(http, uri, args);
    fake_field("X-Root", "/x-root");
    fake_field("Authorization", "Basic YQBiOmM="); /* "a", a zero byte, "b:c" */
    if (req_map_path(fake, &path, &root_len, 20) != 0) {
        strcpy(out, "failed");
    } else {
        ASSERT(path.ptr[path.len] == '\0');
        memset((char *) path.ptr + path.len + 1, 'x', 20);
        snprintf(out, sizeof(out), "%.*s|%s", (int) root_len, path.ptr, path.ptr + root_len);
    }
    fake_end();
    return out;
}

/* The prefix, which is the test's directory, stands for "P". */
static const char *short_map(const char *server, const char *uri, const char *args)
{
    const char *out = map(server, uri, args);
    static char text[512];

    if (strncmp(out, toy_dir, strlen(toy_dir)) != 0)
        return out;
    snprintf(text, sizeof(text), "P%s", out + strlen(toy_dir));
    return text;
}

#define maps(server, uri, expected) \
    is_str(short_map(server, uri, ""), expected, "%s: %s is %s", server, uri, expected)

static void test_root(void)
{
    maps("", "/a.html", "P/html|/a.html");
    maps("root /data;", "/a/b", "/data|/a/b");
    maps("root /data/;", "/a/b", "/data|/a/b");
    maps("root /;", "/a", "|/a");
    maps("root data;", "/a", "P/data|/a");
    maps("root /data; location /i/ { }", "/i/x", "/data|/i/x");
    maps("root /data; location /i/ { root /other; }", "/i/x", "/other|/i/x");
    maps("root /data/$http_x_none;", "/a", "/data/|/a");
    maps("root $http_x_root;", "/a", "/x-root|/a");
    maps("root $server_name;", "/a", "P/|/a");
    maps("root rel/$http_host;", "/a", "P/rel/|/a");
    maps("root /h/$remote_user;", "/a", "failed");
}

static void test_alias(void)
{
    maps("location /i/ { alias /data/w/; }", "/i/top.gif", "/data/w/|top.gif");
    maps("location /i { alias /data; }", "/i/top.gif", "/data|/top.gif");
    maps("location /i/ { alias rel/; }", "/i/top.gif", "P/rel/|top.gif");
    maps("location /i/ { alias /data/$http_x_none/; }", "/i/x", "/data//|x");
    maps("location ~ ^/users/(.+\\.gif)$ { alias /data/w/$1; }", "/users/a/b.gif",
         "/data/w/a/b.gif|");
    maps("location ~ ^/u/(?<f>.+)$ { alias /data/$f; }", "/u/x", "/data/x|");
    maps("location ~ ^/fixed { alias /data/one; }", "/fixed/x", "/data/one|");
    maps("location ~ ^/r/(.+)$ { alias r/$1; }", "/r/x", "P/r/x|");
    maps("location = /robots.txt { alias /data/r.txt; }", "/robots.txt", "/data/r.txt|");
    maps("location /i/ { alias /data/; location /i/j/ { } }", "/i/j/x", "/data/|j/x");
    maps("location /i/ { alias /data/; location /i/j/ { root /r; } }", "/i/j/x", "/r|/i/j/x");
}

static void test_rewritten(void)
{
    struct str path;
    size_t root_len;

    fake_start("server { listen unix:/nowhere; location /longer/ { alias /data/; } }", "/longer/x",
               "");
    fake->uri = STR("/new");
    is_int(req_map_path(fake, &path, &root_len, 0), -1, "an alias does not fit a rewritten URI");
    is_uint(toy_count("\"alias\" cannot be used in location \"/longer/\" where URI was rewritten"),
            1, "which is logged");
    fake_end();
}

static void test_types(void)
{
    fake_start("default_type a/b; types { text/html html HTM; x/y z; }"
               " server { listen unix:/nowhere; location /none/ { types { } } }",
               "/", "");
    fake->exten = STR("html");
    ok(str_eq(req_content_type(fake), STR("text/html")), "by extension");
    fake->exten = STR("hTm");
    ok(str_eq(req_content_type(fake), STR("text/html")), "whatever its case");
    fake->exten = STR("zz");
    ok(str_eq(req_content_type(fake), STR("a/b")), "the default");
    fake->exten = STR_NULL;
    ok(str_eq(req_content_type(fake), STR("a/b")), "and without one");
    fake_end();
    fake_start("server { listen unix:/nowhere; }", "/", "");
    fake->exten = STR("gif");
    ok(str_eq(req_content_type(fake), STR("image/gif")), "built in");
    fake->exten = STR("bin");
    ok(str_eq(req_content_type(fake), STR("text/plain")), "the built-in default");
    fake_end();
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    test_root();
    test_alias();
    test_rewritten();
    test_types();
    toy_end(files);
    return done_testing();
}
