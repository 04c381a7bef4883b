/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON reader: every kind of value, what is not JSON and where, depth, skipping, UTF-8. */
#include "core/base/json_read.h"

#include "core/base/arena.h"
#include "t/unit/tap.h"

static struct arena *arena;

/* All tokens as one text: "{ k:a s:b }" and the like; "! ERROR@LINE" where it ends badly. */
static const char *read_all(const char *text, size_t len)
{
    static char out[4096];
    char *copy = malloc(len > 0 ? len : 1), *p = out; /* so that reading past the end is seen */
    struct json_reader j;

    memcpy(copy, text, len);
    *p = '\0';
    json_read(&j, arena, str_from(copy, len));
    for (;;) {
        enum json_token token = json_next(&j);

        p += snprintf(p, 1000, "%s", p > out ? " " : "");
        switch (token) {
        case JSON_BAD: snprintf(p, 100, "! %s@%u", j.error, json_line(&j)); break;
        case JSON_END: snprintf(p, 100, "."); break;
        case JSON_OBJECT: p += snprintf(p, 100, "{"); continue;
        case JSON_OBJECT_END: p += snprintf(p, 100, "}"); continue;
        case JSON_ARRAY: p += snprintf(p, 100, "["); continue;
        case JSON_ARRAY_END: p += snprintf(p, 100, "]"); continue;
        case JSON_KEY: p += snprintf(p, 100, "k:%.*s", STR_ARG(j.str)); continue;
        case JSON_STRING: p += snprintf(p, 100, "s:%.*s", STR_ARG(j.str)); continue;
        case JSON_NUMBER: p += snprintf(p, 100, "n:%.*s", STR_ARG(j.str)); continue;
        case JSON_TRUE: p += snprintf(p, 100, "true"); continue;
        case JSON_FALSE: p += snprintf(p, 100, "false"); continue;
        case JSON_NULL: p += snprintf(p, 100, "null"); continue;
        }
        if (token == JSON_BAD)
            is_int(json_next(&j), JSON_BAD, "and stays so");
        free(copy);
        return out;
    }
}

static const struct {
    const char *text, *tokens;
} cases[] = {
    { "{}", "{ } ." },
    { "[]", "[ ] ." },
    { " \t\r\n[ ] \n", "[ ] ." },
    { "\"a\"", "s:a ." },
    { "0", "n:0 ." },
    { "-0.5e+10", "n:-0.5e+10 ." },
    { "12E3", "n:12E3 ." },
    { "true", "true ." },
    { "[true,false,null]", "[ true false null ] ." },
    { "{\"a\":\"b\",\"c\":{\"d\":[1,2]},\"e\":{}}",
      "{ k:a s:b k:c { k:d [ n:1 n:2 ] } k:e { } } ." },
    { "{\"\":\"\"}", "{ k: s: } ." },
    { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "s:\"\\/\b\f\n\r\t ." },
    { "\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"", "s:A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 ." },
    { "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"", "s:\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f ." },
    { "", "! unexpected end@1" },
    { "  \n ", "! unexpected end@2" },
    { "{", "{ ! unexpected end@1" },
    { "[", "[ ! unexpected end@1" },
    { "{\"a\"", "{ ! unexpected end@1" },
    { "{\"a\":", "{ k:a ! unexpected end@1" },
    { "{\"a\":1", "{ k:a n:1 ! unexpected end@1" },
    { "{\"a\" 1}", "{ ! unexpected character@1" },
    { "{\"a\":1,}", "{ k:a n:1 ! unexpected character@1" },
    { "{,}", "{ ! unexpected character@1" },
    { "{a:1}", "{ ! unexpected character@1" },
    { "{1:1}", "{ ! unexpected character@1" },
    { "[1,]", "[ n:1 ! unexpected character@1" },
    { "[,1]", "[ ! unexpected character@1" },
    { "[1 2]", "[ n:1 ! unexpected character@1" },
    { "[1}", "[ n:1 ! unexpected character@1" },
    { "{\"a\":1]", "{ k:a n:1 ! unexpected character@1" },
    { "{}{}", "{ } ! unexpected character@1" },
    { "1 2", "n:1 ! unexpected character@1" },
    { "]", "! unexpected character@1" },
    { "\xef\xbb\xbf{}", "! unexpected character@1" },
    { "{\n\"a\":\n  x}", "{ k:a ! unexpected character@3" },
    { "01", "n:0 ! unexpected character@1" },
    { "-", "! invalid number@1" },
    { "1.", "! invalid number@1" },
    { ".5", "! unexpected character@1" },
    { "1e", "! invalid number@1" },
    { "+1", "! unexpected character@1" },
    { "tru", "! unexpected character@1" },
    { "nulll", "null ! unexpected character@1" },
    { "NaN", "! unexpected character@1" },
    { "'a'", "! unexpected character@1" },
    { "\"a", "! unexpected end@1" },
    { "\"a\\\"", "! unexpected end@1" },
    { "\"a\\", "! unexpected end@1" },
    { "\"a\nb\"", "! control character in a string@1" },
    { "\"\\x\"", "! invalid escape@1" },
    { "\"\\u12\"", "! invalid escape@1" },
    { "\"\\u12g4\"", "! invalid escape@1" },
    { "\"\\ud800\"", "! invalid escape@1" },
    { "\"\\ud800\\u0041\"", "! invalid escape@1" },
    { "\"\\udc00\"", "! invalid escape@1" },
    { "\"\x80\"", "! invalid UTF-8@1" },
    { "\"\xc3\"", "! invalid UTF-8@1" },
    { "\"\xc0\xaf\"", "! invalid UTF-8@1" },
    { "\"\xed\xa0\x80\"", "! invalid UTF-8@1" },
    { "// c\n1", "! unexpected character@1" },
};

static void test_depth(void)
{
    char text[2 * JSON_DEPTH_MAX + 4];
    struct json_reader j;
    unsigned n = 0;

    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    json_read(&j, arena, str_from(text, 2 * JSON_DEPTH_MAX));
    while (json_next(&j) > JSON_END)
        n++;
    ok(n == 2 * JSON_DEPTH_MAX && j.error == NULL, "as deep as may be");
    memset(text, '[', sizeof(text));
    json_read(&j, arena, str_from(text, sizeof(text)));
    while (json_next(&j) > JSON_END)
        ;
    is_str(j.error, "nested too deep", "deeper");
}

static void test_skip(void)
{
    static const char text[] = "{\"a\":{\"b\":[1,{\"c\":2}]},\"d\":[[],[]],\"e\":3}";
    struct json_reader j;
    enum json_token token;
    char keys[64] = "";

    json_read(&j, arena, STR(text));
    json_next(&j);
    while ((token = json_next(&j)) == JSON_KEY) {
        strncat(keys, j.str.ptr, j.str.len);
        ok(json_skip(&j, json_next(&j)), "skipped");
    }
    ok(token == JSON_OBJECT_END && json_next(&j) == JSON_END, "to the end");
    is_str(keys, "ade", "the keys between");
    json_read(&j, arena, STR("[[1"));
    ok(!json_skip(&j, json_next(&j)), "what does not end");
}

static void test_utf8(void)
{
    ok(str_is_utf8(STR("")) && str_is_utf8(STR("a\0b")) && str_is_utf8(STR("\xf4\x8f\xbf\xbf")), "UTF-8");
    ok(!str_is_utf8(STR("\xf4\x90\x80\x80")), "above U+10FFFF");
    ok(!str_is_utf8(STR("\xe0\x80\x80")) && !str_is_utf8(STR("\xf0\x80\x80\x80")), "overlong");
    ok(!str_is_utf8(STR("a\xff")) && !str_is_utf8(STR("\xe2\x82")), "foreign bytes, and cut");
}

int main(void)
{
    struct json_reader j;

    arena = arena_new();
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        is_str(read_all(cases[i].text, strlen(cases[i].text)), cases[i].tokens, "%s", cases[i].text);
    json_read(&j, arena, STR("\"a\\u0000b\""));
    ok(json_next(&j) == JSON_STRING && str_eq(j.str, STR("a\0b")), "a NUL in a string");
    is_str(read_all("1\0", 2), "n:1 ! unexpected character@1", "a NUL behind it");
    test_depth();
    test_skip();
    test_utf8();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
