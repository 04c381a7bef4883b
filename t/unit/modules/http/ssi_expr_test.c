/* SPDX-License-Identifier: BSD-2-Clause */
/* Values and conditions of server side includes; the search for several strings at once. */
#include "modules/http/ssi_expr.h"

#include <stdlib.h>

#include "modules/http/search.h"
#include "t/unit/tap.h"

static struct log_scope quiet_scope;
static struct logger quiet = { .scope = &quiet_scope };
static char captured[64];

static bool lookup(void *data, struct str name, struct str *out)
{
    (void) data;
    *out = str_caseeq(name, STR("a")) ? STR("one") : STR("/two.html");
    return str_caseeq(name, STR("a")) || str_caseeq(name, STR("page_2"));
}

static void matched(void *data, const struct regex *re, const struct regex_match *m,
                    struct str subject)
{
    (void) data;
    (void) re;
    if (m->count > 1)
        snprintf(captured, sizeof(captured), "%.*s", m->pos[3] - m->pos[2],
                 subject.ptr + m->pos[2]);
}

static struct ssi_scope scope = { .log = &quiet, .uri = STR_INIT("/dir/page.html"),
                                  .lookup = lookup, .matched = matched };

static void test_values(void)
{
    static const struct {
        const char *text, *value, *relative; /* NULL: malformed */
    } table[] = {
        { "", "", "/dir/" },
        { "x y", "x y", "/dir/x y" },
        { "/x", "/x", "/x" },
        { "$a", "one", "/dir/one" },
        { "${A}b$a-", "onebone-", "/dir/onebone-" },
        { "$page_2", "/two.html", "/two.html" },
        { "$none$page_2", "/two.html", "/two.html" },
        { "\\$a\\\\\\'\\\"\\n", "$a\\'\"\\n", "/dir/$a\\'\"\\n" },
        { "$a\\", "one", "/dir/one" },
        { "$", NULL, NULL },
        { "a$-", NULL, NULL },
        { "${", NULL, NULL },
        { "${a", NULL, NULL },
        { "${}", NULL, NULL },
        { "${a-}", NULL, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        for (unsigned flags = 0; flags <= SSI_RELATIVE; flags++) {
            const char *want = flags ? table[i].relative : table[i].value;
            struct str out;
            int rc = ssi_evaluate(&scope, str_cstr(table[i].text), flags, &out);

            is_int(rc, want ? 0 : -1, "\"%s\" %s", table[i].text, want ? "has a value" : "has none");
            if (want != NULL && rc == 0)
                is_bytes(out.ptr, out.len, want, strlen(want), "which is \"%s\"", want);
        }
    }
}

static void test_conditions(void)
{
    static const struct {
        const char *text;
        int holds;
    } table[] = {
        { "$a", 1 },
        { "$none", 0 },
        { "", 0 },
        { "word", 1 },
        { "$a = one", 1 },
        { "$a=one", 1 },
        { "$a != one", 0 },
        { "$a = One", 0 },
        { "$A  =  one", 1 },
        { "$a = one ", 0 },
        { "$none = ", 1 },
        { "$a = $a", 1 },
        { "$a = /o(n)e/", 1 },
        { "$a != /^x/", 1 },
        { "$a = /^on\\w\\$/", 1 },
        { "$page_2 = \\/two.html", 1 },
        { "$a = /", 0 },
        { "$a = /x", -1 },
        { "$a ! one", -1 },
        { "$a ~ one", -1 },
        { "= x", 0 },
        { "(", -1 },
        { "$a = /(/", -1 },
        { "$a = $", -1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        is_int(ssi_condition(&scope, str_cstr(table[i].text)), table[i].holds, "if %s",
               table[i].text);
    is_str(captured, "n", "what the last match with a group has captured");
}

static void test_limit(void)
{
    char *text = mem_alloc(SSI_RESULT_MAX + 1);
    struct str out;

    memset(text, 'x', SSI_RESULT_MAX + 1);
    is_int(ssi_evaluate(&scope, str_from(text, SSI_RESULT_MAX), 0, &out), 0, "the longest value");
    is_int(ssi_evaluate(&scope, str_from(text, SSI_RESULT_MAX + 1), 0, &out), -1, "one more");
    free(text);
}

static void test_search(void)
{
    struct arena *arena = arena_new();
    struct str strings[] = { STR("abcd"), STR("abc"), STR("</x>"), STR("zz"), STR("y1"),
                             STR("9") };
    static const struct {
        const char *text;
        bool end;
        size_t at;
        int which;
    } table[] = {
        { "--abcd", false, 2, 0 },
        { "--ABCx", false, 2, 1 },
        { "--abc", false, 2, SEARCH_MORE },
        { "--abc", true, 2, 1 },
        { "--ab", true, 4, SEARCH_NONE },
        { "--</X", false, 2, SEARCH_MORE },
        { "................................z............</X>", false, 45, 2 },
        { "......................................................................y19", true, 70, 4 },
        { "", false, 0, SEARCH_NONE },
    };

    for (unsigned count = 3; count <= ARRAY_LEN(strings); count += 3) {
        struct search s;

        search_init(&s, arena, strings, count);
        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
            struct str text = str_cstr(table[i].text);
            int which;
            size_t at;

            if (table[i].which >= (int) count)
                continue;
            at = search_find(&s, text, 0, text.len, table[i].end, NULL, &which);
            is_uint(at, table[i].at, "%u strings in \"%s\": where", count, table[i].text);
            is_int(which, table[i].which, "and which");
        }
    }
    arena_destroy(arena);
}

int main(void)
{
    test_values();
    test_conditions();
    test_limit();
    test_search();
    ssi_scope_free(&scope);
    arena_trim();
    return done_testing();
}
