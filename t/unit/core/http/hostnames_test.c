/* SPDX-License-Identifier: BSD-2-Clause */
/* Host names with wildcards: which of them a name finds, and which are refused. */
#include "core/base/arena.h"
#include "core/http/hostnames.h"
#include "t/unit/tap.h"

static void test_find(void)
{
    static const char *const names[] = {
        "example.com", "*.example.com", ".example.net", "www.example.*", "mail.*",
        "*.deep.example.com", "mail.example.*", ".", ".*", "",
    };
    static const struct {
        const char *name, *want;
    } rows[] = {
        { "example.com", "example.com" },
        { "www.example.com", "*.example.com" },
        { "a.b.example.com", "*.example.com" },
        { "x.deep.example.com", "*.deep.example.com" },
        { "deep.example.com", "*.example.com" },
        { ".example.com", "*.example.com" },
        { "xexample.com", NULL },
        { "example.net", ".example.net" },
        { "x.example.net", ".example.net" },
        { "www.example.org", "www.example.*" },
        { "www.example.", NULL },
        { "www.example", NULL },
        { "www.example.a.b", "www.example.*" },
        { "mail.org", "mail.*" },
        { "mail.example.org", "mail.example.*" },
        { "", "" },
        { ".", "." },
        { "*", ".*" },
        { "com", NULL },
    };
    struct arena *arena = arena_new();
    struct hostnames h;
    struct str key;

    hostnames_init(&h, arena);
    ok(hostnames_empty(&h), "empty");
    ok(hostnames_find(&h, STR("a.b"), &key) == NULL, "nothing is found");
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        is_int(hostnames_add(&h, str_cstr(names[i]), (void *) names[i]), HOSTNAMES_FINE, "%s",
               names[i]);
    ok(!hostnames_empty(&h), "no more");
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        is_str(hostnames_find(&h, str_cstr(rows[i].name), &key), rows[i].want, "%s finds",
               rows[i].name);
    hostnames_find(&h, STR("a.b.example.com"), &key);
    ok(str_eq(key, STR(".example.com")), "by what it ends with");
    hostnames_find(&h, STR("www.example.a.b"), &key);
    ok(str_eq(key, STR("www.example.")), "by what it begins with");
    hostnames_find(&h, STR("example.com"), &key);
    ok(str_eq(key, STR("example.com")), "by itself");
    arena_destroy(arena);
}

static void test_refused(void)
{
    static const struct {
        const char *name;
        enum hostnames_error error;
    } rows[] = {
        { "a", HOSTNAMES_FINE },       { "a", HOSTNAMES_CONFLICT },
        { ".a", HOSTNAMES_CONFLICT },  { "*.a", HOSTNAMES_FINE },
        { "*.a", HOSTNAMES_CONFLICT }, { ".b", HOSTNAMES_FINE },
        { "b", HOSTNAMES_CONFLICT },   { "*.b", HOSTNAMES_CONFLICT },
        { ".b", HOSTNAMES_CONFLICT },  { "a.*", HOSTNAMES_FINE },
        { "a.*", HOSTNAMES_CONFLICT }, { "a*", HOSTNAMES_INVALID },
        { "*", HOSTNAMES_INVALID },    { "*.", HOSTNAMES_INVALID },
        { "a*b", HOSTNAMES_INVALID },  { "a.*.b", HOSTNAMES_INVALID },
        { "*.a.*", HOSTNAMES_INVALID }, { "a..b", HOSTNAMES_INVALID },
        { "..", HOSTNAMES_INVALID },
    };
    struct arena *arena = arena_new();
    struct hostnames h;

    hostnames_init(&h, arena);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        is_int(hostnames_add(&h, str_cstr(rows[i].name), (void *) rows[i].name), rows[i].error,
               "%s", rows[i].name);
    is_int(hostnames_add(&h, STR("a\0b"), &h), HOSTNAMES_INVALID, "a NUL");
    arena_destroy(arena);
}

int main(void)
{
    test_find();
    test_refused();
    arena_trim();
    return done_testing();
}
