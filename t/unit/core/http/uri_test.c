/* SPDX-License-Identifier: BSD-2-Clause */
/* Normal forms of request paths, and of hosts. */
#include "core/base/arena.h"
#include "core/http/h1.h"
#include "t/unit/tap.h"

static struct arena *arena;

#define STRING(s) s, sizeof(s) - 1

static struct str normal(const char *ptr, size_t len, bool merge)
{
    struct uri_parts u;
    char *copy = arena_bytes(arena, len);

    memcpy(copy, ptr, len);
    memset(&u, 'x', sizeof(u));
    if (uri_normalize(arena, str_from(copy, len), merge, &u) != 0)
        return STR("bad");
    return str_printf(arena, "%.*s%s%.*s .%.*s%s", STR_ARG(u.uri), u.has_args ? "?" : "",
                      STR_ARG(u.args), STR_ARG(u.exten), u.complex ? " !" : "");
}

#define NORMAL(input, merge, expected)                                   \
    do {                                                                 \
        struct str n_ = normal(STRING(input), merge);                    \
        is_bytes(n_.ptr, n_.len, expected, sizeof(expected) - 1, "%s%s", \
                 merge ? "" : "unmerged: ", input);                      \
    } while (0)
#define IS(input, expected) NORMAL(input, true, expected)
#define APART(input, expected) NORMAL(input, false, expected)

static void test_normalize(void)
{
    IS("/", "/ .");
    IS("/a/b/", "/a/b/ .");
    IS("/a.html", "/a.html .html");
    IS("/a.tar.gz", "/a.tar.gz .gz");
    IS("/a.b/c", "/a.b/c .");
    IS("/a.", "/a. .");
    IS("/.html", "/.html .");
    IS("/a/.b.c", "/a/.b.c .c");
    IS("//", "/ . !");
    IS("///a//b", "/a/b . !");
    IS("/a/./b", "/a/b . !");
    IS("/a/.", "/a/ . !");
    IS("/.", "/ . !");
    IS("/a/..", "/ . !");
    IS("/a/../b", "/b . !");
    IS("/a/b/../../c", "/c . !");
    IS("/a/b/..", "/a/ . !");
    IS("/a/.b", "/a/.b .");
    IS("/a/..b", "/a/..b .b");
    IS("/a/...", "/a/... .");
    IS("/a./b", "/a./b .");
    IS("/a/%2e%2e/b", "/b . !");
    IS("/a/%2E/b", "/a/b . !");
    IS("/a%2fb", "/a/b . !");
    IS("/a%2f%2Fb", "/a/b . !");
    IS("/a%2f../b", "/b . !");
    IS("/a//../b", "/b . !");
    IS("/.%2f", "/ . !");
    IS("/a/b%2f%2e%2e", "/a/ . !");
    IS("/%41%62.%68", "/Ab.h .h !");
    IS("/a%2541", "/a%41 . !");
    IS("/a%252e%252e/b", "/a%2e%2e/b . !");
    IS("/a%3fb?c", "/a?b?c . !");
    IS("/a%23b", "/a#b . !");
    IS("/a%0ab", "/a\nb . !");
    IS("/%c3%a4", "/\xc3\xa4 . !");
    IS("/a+b", "/a+b .");
    IS("/a\\..\\b", "/a\\..\\b .\\b");
    IS("/a?", "/a? .");
    IS("/a??b", "/a??b .");
    IS("/a?b?c", "/a?b?c .");
    IS("/a?../b//%zz%00", "/a?../b//%zz%00 .");
    IS("/a#frag?x", "/a .");
    IS("/a?b#frag", "/a?b .");
    IS("/a?#frag", "/a? .");
    IS("/a/..?x", "/?x . !");
    IS("/a.b?c.d", "/a.b?c.d .b");
    APART("/a//b", "/a//b .");
    APART("//", "// .");
    APART("/a//../b", "/a/b . !");
    APART("/a%2f/b", "/a//b . !");
    APART("//../a", "/a . !");
    APART("/a/./b", "/a/b . !");
    APART("/..", "bad");
    APART("//../..", "bad");
    IS("", "bad");
    IS("a", "bad");
    IS("*", "bad");
    IS("/%", "bad");
    IS("/%2", "bad");
    IS("/%zz", "bad");
    IS("/%2g", "bad");
    IS("/%2?0", "bad");
    IS("/%00", "bad");
    IS("/a\0b", "bad");
    IS("/..", "bad");
    IS("/../", "bad");
    IS("/a/../..", "bad");
    IS("/a/../../b", "bad");
    IS("/%2e%2e/", "bad");
    IS("/..%2f", "bad");
    IS("/a/.%2e/%2e./b", "bad");
    IS("//../a", "bad");
}

static void test_views(void)
{
    struct str target = STR("/a/b.c?d#e");
    struct uri_parts u;
    size_t before = arena_used(arena);

    is_int(uri_normalize(arena, target, true, &u), 0, "a plain path");
    is_uint(arena_used(arena), before, "takes no memory");
    ok(u.uri.ptr == target.ptr && u.args.ptr == target.ptr + 7 && u.exten.ptr == target.ptr + 5,
       "but views");
}

static void test_unsafe(void)
{
    is_int(uri_check_unsafe(STR("/a/b")), 0, "a safe path");
    is_int(uri_check_unsafe(STR("/a/..b/.../c..")), 0, "dots that climb nowhere");
    is_int(uri_check_unsafe(STR("/a?/../")), 0, "arguments are not looked at");
    is_int(uri_check_unsafe(STR("")), -1, "nothing");
    is_int(uri_check_unsafe(STR("..")), -1, "two dots");
    is_int(uri_check_unsafe(STR("../a")), -1, "two dots in front");
    is_int(uri_check_unsafe(STR("/a/../b")), -1, "even when the root is not left");
    is_int(uri_check_unsafe(STR("/a/..")), -1, "at the end");
    is_int(uri_check_unsafe(STR("/a/..?x")), -1, "in front of arguments");
    is_int(uri_check_unsafe(STR("/a/%2e./b")), -1, "escaped dots");
    is_int(uri_check_unsafe(STR("/a%2f..%2fb")), -1, "escaped slashes");
    is_int(uri_check_unsafe(STR("/a%00b")), -1, "escaped NUL");
    is_int(uri_check_unsafe(STR("/a\0b")), -1, "NUL");
}

static void host_is(const char *ptr, size_t len, const char *expected, unsigned port)
{
    struct str out = STR_NULL;
    unsigned got = 12345;
    int rc = h1_host_normalize(arena, str_from(ptr, len), &out, &got);

    if (expected == NULL) {
        ok(rc == -1 && !h1_host_valid(str_from(ptr, len)), "no host: \"%s\"", ptr);
        return;
    }
    ok(rc == 0 && h1_host_valid(str_from(ptr, len)), "a host: \"%s\"", ptr);
    is_bytes(out.ptr, out.len, expected, strlen(expected), "\"%s\" is %s", ptr, expected);
    is_uint(got, port, "its port");
}

static void test_hosts(void)
{
    host_is(STRING("a"), "a", 0);
    host_is(STRING("Ex.ORG"), "ex.org", 0);
    host_is(STRING("ex.org."), "ex.org", 0);
    host_is(STRING("ex.org.:81"), "ex.org", 81);
    host_is(STRING("a:65535"), "a", 65535);
    host_is(STRING("a:"), "a", 0);
    host_is(STRING("1.2.3.4:80"), "1.2.3.4", 80);
    host_is(STRING("a_b-c~d"), "a_b-c~d", 0);
    host_is(STRING("a%20b"), "a%20b", 0);
    host_is(STRING("[::1]"), "[::1]", 0);
    host_is(STRING("[FE80::1]:8080"), "[fe80::1]", 8080);
    host_is(STRING("[::ffff:1.2.3.4]"), "[::ffff:1.2.3.4]", 0);
    host_is(STRING(""), NULL, 0);
    host_is(STRING("."), NULL, 0);
    host_is(STRING(":80"), NULL, 0);
    host_is(STRING("a..b"), NULL, 0);
    host_is(STRING("a.."), NULL, 0);
    host_is(STRING("a:b"), NULL, 0);
    host_is(STRING("a:65536"), NULL, 0);
    host_is(STRING("a:+1"), NULL, 0);
    host_is(STRING("a:80:80"), NULL, 0);
    host_is(STRING("a:80 "), NULL, 0);
    host_is(STRING("a b"), NULL, 0);
    host_is(STRING("a/b"), NULL, 0);
    host_is(STRING("a\\b"), NULL, 0);
    host_is(STRING("u@a"), NULL, 0);
    host_is(STRING("a?b"), NULL, 0);
    host_is(STRING("a#b"), NULL, 0);
    host_is(STRING("<a>"), NULL, 0);
    host_is(STRING("a\"b"), NULL, 0);
    host_is(STRING("a\0b"), NULL, 0);
    host_is(STRING("a\x7f"), NULL, 0);
    host_is(STRING("\xc3\xa4"), NULL, 0);
    host_is(STRING("a%2"), NULL, 0);
    host_is(STRING("a%zz"), NULL, 0);
    host_is(STRING("[::1"), NULL, 0);
    host_is(STRING("[]"), NULL, 0);
    host_is(STRING("[1.2.3.4]"), NULL, 0);
    host_is(STRING("[::1]x"), NULL, 0);
    host_is(STRING("[::1\0]"), NULL, 0);
    host_is(STRING("[::1%eth0]"), NULL, 0);
    host_is(STRING("[00000000000000000000000000000000000000000000000000000000001]"), NULL, 0);
    host_is(STRING("::1"), NULL, 0);
}

int main(void)
{
    arena = arena_new();
    test_normalize();
    test_views();
    test_unsafe();
    test_hosts();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
