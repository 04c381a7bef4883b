/* SPDX-License-Identifier: BSD-2-Clause */
/* Regular expressions, interpreted and with JIT: captures, names, errors, limits. */
#include "core/event/regex.h"

#include "core/base/arena.h"
#include "t/unit/tap.h"

static struct arena *arena;

static struct regex *compile(const char *pattern, bool caseless)
{
    struct str error = STR_NULL;
    struct regex *re = regex_compile(arena, str_cstr(pattern), caseless, &error);

    if (!re)
        diag("%.*s", STR_ARG(error));
    ASSERT(re);
    return re;
}

static void test_match(const char *how)
{
    struct regex *re = compile("^/(\\w+)/(x)?(?<rest>.*)$", false);
    struct regex_match m;
    struct str name;
    unsigned group = 0;

    is_int(regex_exec(re, STR("/abc/def"), &m), 1, "%s: match", how);
    is_uint(m.count, 4, "groups with the whole");
    ok(m.pos[0] == 0 && m.pos[1] == 8 && m.pos[2] == 1 && m.pos[3] == 4, "offsets");
    ok(m.pos[4] == -1 && m.pos[5] == -1 && m.pos[6] == 5, "an unset group is -1");
    is_int(regex_exec(re, STR("abc"), &m), 0, "no match");
    is_int(regex_exec(re, STR_NULL, NULL), 0, "an absent subject is empty");
    is_uint(regex_groups(re), 3, "groups");
    is_uint(regex_names(re), 1, "names");
    name = regex_name(re, 0, &group);
    ok(str_eq(name, STR("rest")) && group == 3, "the name and its number");
    ok(str_eq(regex_pattern(re), STR("^/(\\w+)/(x)?(?<rest>.*)$")), "the pattern is kept");
    is_int(regex_exec(compile("ABC", true), STR("xabcx"), NULL), 1, "caseless");
    is_int(regex_exec(compile("ABC", false), STR("xabcx"), NULL), 0, "not caseless");
    is_int(regex_exec(compile("", false), STR("a"), &m), 1, "an empty pattern matches");
    is_int(regex_exec(compile("^\xc3.$", false), STR("\xc3\xff"), NULL), 1, "bytes, not UTF-8");
}

static void test_limits(const char *how)
{
    struct regex *re = compile("^(a+)+$", false);
    char subject[64];
    struct regex_match m;
    struct str many = STR_NULL;

    memset(subject, 'a', sizeof(subject));
    subject[sizeof(subject) - 1] = 'b';
    is_int(regex_exec(re, str_from(subject, sizeof(subject)), &m), -1,
           "%s: endless backtracking is cut short", how);
    ok(strstr(regex_error(), "pcre2_match() failed: ") == regex_error(), "and named: %s",
       regex_error());
    for (int i = 0; i < 40; i++)
        many = str_printf(arena, "%.*s(%c)?", STR_ARG(many), 'a' + i % 26);
    re = compile(many.ptr, false);
    is_int(regex_exec(re, STR("abcdefghijklmnopqrstuvwxyzabcdefghijklmnop"), &m), 1,
           "more groups than are reported");
    is_uint(m.count, REGEX_CAPTURES_MAX, "leave those that fit");
    ok(m.pos[62] == 30 && m.pos[63] == 31, "in place");
}

static void test_errors(void)
{
    struct str error = STR_NULL;

    ok(!regex_compile(arena, STR("a(b"), false, &error), "does not compile");
    is_bytes(error.ptr, error.len, "pcre2_compile() failed: missing closing parenthesis in \"a(b\"",
             strlen("pcre2_compile() failed: missing closing parenthesis in \"a(b\""),
             "an error at the end");
    ok(!regex_compile(arena, STR("a)b"), false, &error), "does not compile");
    ok(str_ends(error, STR(" in \"a)b\" at \")b\"")), "an error with its place: %.*s",
       STR_ARG(error));
}

int main(void)
{
    struct regex *re;
    uint64_t allocations;

    arena = arena_new();
    test_match("interpreted");
    test_limits("interpreted");
    regex_use_jit(true);
    test_match("jit");
    test_limits("jit");
    test_errors();
    re = compile("b(.)d", false);
    allocations = mem_allocations;
    for (int i = 0; i < 100; i++)
        regex_exec(re, STR("abcde"), NULL);
    is_uint(mem_allocations, allocations, "a match allocates nothing");
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
