/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON writer: commas, nesting, numbers, and strings of any bytes. */
#include "core/base/json.h"

#include "t/unit/tap.h"

static struct arena *arena;

static void string_is(struct str s, const char *want, const char *name)
{
    struct json j;

    json_init(&j, arena);
    json_str(&j, s);
    is_str(json_text(&j).ptr, want, "%s", name);
}

int main(void)
{
    struct json j;
    char longer[5000];

    arena = arena_new();
    json_init(&j, arena);
    json_object(&j);
    json_put_bool(&j, "ok", true);
    json_key(&j, "list");
    json_array(&j);
    json_u64(&j, UINT64_MAX);
    json_i64(&j, INT64_MIN);
    json_i64(&j, 7);
    json_bool(&j, false);
    json_null(&j);
    json_object(&j);
    json_end(&j);
    json_array(&j);
    json_end(&j);
    json_end(&j);
    json_put_str(&j, "a\"b", STR("c"));
    json_put_str(&j, "none", STR_NULL);
    json_put_u64(&j, "n", 0);
    json_end(&j);
    is_str(json_text(&j).ptr,
           "{\"ok\":true,\"list\":[18446744073709551615,-9223372036854775808,7,false,null,{},[]],"
           "\"a\\\"b\":\"c\",\"none\":null,\"n\":0}",
           "values, keys and nesting");

    string_is(STR(""), "\"\"", "an empty string");
    string_is(STR("a\"\\\b\f\n\r\t/"), "\"a\\\"\\\\\\b\\f\\n\\r\\t/\"", "what has a short escape");
    string_is(STR("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\\u007f\"", "controls");
    string_is(STR("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"",
              "UTF-8 stays");
    string_is(STR("a\xff" "b"), "\"a\xef\xbf\xbd" "b\"", "a byte that is none");
    string_is(STR("\xc0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\"", "overlong, two bytes");
    string_is(STR("\xe0\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"", "overlong, three");
    string_is(STR("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"", "a surrogate");
    string_is(STR("\xf4\x90\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
              "above U+10FFFF");
    string_is(STR("\xe2\x82"), "\"\xef\xbf\xbd\xef\xbf\xbd\"", "cut short");
    memset(longer, 'x', sizeof(longer));
    json_init(&j, arena);
    json_str(&j, str_from(longer, sizeof(longer)));
    is_uint(json_text(&j).len, sizeof(longer) + 2, "a long one");
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
