/* SPDX-License-Identifier: BSD-2-Clause */
/* Counted strings: comparing, searching, and every edge of the number parsers. */
#include "core/base/str.h"

#include "core/base/arena.h"
#include "t/unit/tap.h"

static void test_compare(void)
{
    ok(str_eq(STR(""), STR_NULL), "an empty string equals an absent one byte for byte");
    ok(!str_eq(STR("a"), STR("b")), "different bytes");
    ok(str_caseeq(STR("HoSt"), STR("hOsT")), "case is folded");
    ok(!str_caseeq(STR("a@"), STR("a`")), "only letters are folded, not bytes 0x20 apart");
    ok(!str_caseeq(STR("[]"), STR("{}")), "brackets are no letters");
    ok(!str_caseeq(STR("ab"), STR("abc")), "lengths count");
    ok(str_cmp(STR("a"), STR("b")) < 0, "memcmp order");
    ok(str_cmp(STR("ab"), STR("a")) > 0, "then the longer one is greater");
    ok(str_cmp(STR("\xff"), STR("a")) > 0, "bytes compare unsigned");
    is_int(str_cmp(STR("x"), STR("x")), 0, "equal");
    is_int(str_cmp(STR_NULL, STR("")), 0, "absent against empty");
    ok(str_starts(STR("abc"), STR("ab")) && !str_starts(STR("a"), STR("ab")), "starts");
    ok(str_starts(STR("abc"), STR("")), "everything starts with nothing");
    ok(str_casestarts(STR("ABC"), STR("ab")), "starts, case folded");
    ok(str_ends(STR("abc"), STR("bc")) && !str_ends(STR("c"), STR("bc")), "ends");
}

static void test_search(void)
{
    is_int(str_chr(STR("a:b:c"), ':'), 1, "the first byte");
    is_int(str_rchr(STR("a:b:c"), ':'), 3, "the last byte");
    is_int(str_chr(STR_NULL, ':'), -1, "nothing in nothing");
    is_int(str_rchr(STR("abc"), ':'), -1, "not there");
    is_int(str_find(STR("aab"), STR("ab")), 1, "a sub-string");
    is_int(str_find(STR("aab"), STR("")), 0, "the empty sub-string");
    is_int(str_find(STR("a"), STR("ab")), -1, "longer than what is searched");
    is_int(str_casefind(STR("xxABy"), STR("aB")), 2, "a sub-string, case folded");
    is_int(str_casefind(STR("xxA"), STR("ab")), -1, "half of it at the end");
    is_int(str_casefind(STR("ab"), STR("ab")), 0, "the whole");
    is_int(str_casefind(STR_NULL, STR("a")), -1, "something in nothing");
    struct str t = str_trim(STR(" \t a b\t "));
    is_bytes(t.ptr, t.len, "a b", 3, "trim");
    is_uint(str_trim(STR(" \t ")).len, 0, "trim of blanks alone");
    is_uint(str_trim(STR("\n")).len, 1, "a line feed is no blank");
}

static void test_copies(void)
{
    struct arena *arena = arena_new();
    char big[600];
    struct str s;

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    is_str(str_dup(arena, str_from("abc", 2)).ptr, "ab", "a copy ends with a NUL");
    is_str(str_dup(arena, STR_NULL).ptr, "", "a copy of nothing is an empty C string");
    is_str(str_lower(arena, STR("AbZ@[")).ptr, "abz@[", "lower case");
    is_str(str_z(arena, str_from("xyz", 1)), "x", "as a C string");
    s = str_printf(arena, "%d-%s", 7, "x");
    is_bytes(s.ptr, s.len, "7-x", 3, "printf");
    s = str_printf(arena, "%s!", big);
    is_uint(s.len, 600, "printf of more than the first buffer holds");
    ok(s.ptr[599] == '!' && s.ptr[600] == '\0', "with its end");
    s = str_printf(arena, "%.*s", 255, big);
    is_uint(strlen(s.ptr), 255, "printf that fills the first buffer exactly");
    s = str_printf(arena, "%.*s", 256, big);
    is_uint(strlen(s.ptr), 256, "printf one byte past it");
    arena_destroy(arena);
}

struct number {
    const char *text;
    int rc;
    uint64_t value;
};

static void check(const char *what, int (*parse)(struct str s, uint64_t *out),
                  const struct number *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 424242;
        int rc = parse(str_cstr(cases[i].text), &v);

        ok(rc == cases[i].rc && v == (rc ? 424242 : cases[i].value), "%s \"%s\"", what,
           cases[i].text);
    }
}

static void test_integers(void)
{
    static const struct number u64[] = {
        { "0", 0, 0 },
        { "007", 0, 7 },
        { "18446744073709551615", 0, UINT64_MAX },
        { "00018446744073709551615", 0, UINT64_MAX },
        { "18446744073709551616", -1, 0 },
        { "18446744073709551620", -1, 0 },
        { "99999999999999999999", -1, 0 },
        { "184467440737095516150", -1, 0 },
        { "", -1, 0 },
        { "-1", -1, 0 },
        { "+1", -1, 0 },
        { " 1", -1, 0 },
        { "1 ", -1, 0 },
        { "1/", -1, 0 },
        { "1:", -1, 0 },
        { "0x1", -1, 0 },
    };
    static const struct number hex[] = {
        { "0", 0, 0 },
        { "fF", 0, 255 },
        { "ffffffffffffffff", 0, UINT64_MAX },
        { "0000ffffffffffffffff", 0, UINT64_MAX },
        { "10000000000000000", -1, 0 },
        { "", -1, 0 },
        { "g", -1, 0 },
        { "@", -1, 0 },
        { "`", -1, 0 },
        { ":", -1, 0 },
        { "?", -1, 0 },
        { "/", -1, 0 },
        { "0x1", -1, 0 },
        { "-1", -1, 0 },
        { "1\t", -1, 0 },
    };
    static const struct number size[] = {
        { "0", 0, 0 },
        { "10", 0, 10 },
        { "10k", 0, 10240 },
        { "10K", 0, 10240 },
        { "3m", 0, 3145728 },
        { "3M", 0, 3145728 },
        { "2g", 0, 2147483648u },
        { "2G", 0, 2147483648u },
        { "17179869183g", 0, 17179869183u << 30 },
        { "17179869184g", -1, 0 },
        { "18014398509481983k", 0, 18014398509481983u << 10 },
        { "18014398509481984k", -1, 0 },
        { "18446744073709551615", 0, UINT64_MAX },
        { "k", -1, 0 },
        { "", -1, 0 },
        { "1kk", -1, 0 },
        { "1b", -1, 0 },
        { "-1k", -1, 0 },
        { "1 k", -1, 0 },
    };
    uint64_t v = 5;

    check("u64", str_to_u64, u64, ARRAY_LEN(u64));
    check("hex", str_to_hex64, hex, ARRAY_LEN(hex));
    check("size", str_to_size, size, ARRAY_LEN(size));
    ok(str_to_u64(str_from("1\0", 2), &v) == -1 && v == 5, "a NUL is a foreign byte");
    ok(str_to_u64(STR_NULL, &v) == -1, "an absent string is no number");
}

static void test_signed(void)
{
    static const struct {
        const char *text;
        int rc;
        int64_t value;
    } cases[] = {
        { "0", 0, 0 },
        { "-0", 0, 0 },
        { "-1", 0, -1 },
        { "9223372036854775807", 0, INT64_MAX },
        { "9223372036854775808", -1, 0 },
        { "-9223372036854775808", 0, INT64_MIN },
        { "-9223372036854775809", -1, 0 },
        { "18446744073709551615", -1, 0 },
        { "--1", -1, 0 },
        { "-", -1, 0 },
        { "", -1, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t v = 4242;
        int rc = str_to_i64(str_cstr(cases[i].text), &v);

        ok(rc == cases[i].rc && v == (rc ? 4242 : cases[i].value), "i64 \"%s\"", cases[i].text);
    }
}

static int ms(struct str s, uint64_t *out)
{
    return str_to_ms(s, false, out);
}

static int seconds(struct str s, uint64_t *out)
{
    return str_to_ms(s, true, out);
}

static void test_times(void)
{
    static const struct number times[] = {
        { "0", 0, 0 },
        { "10", 0, 10000 },
        { "10s", 0, 10000 },
        { "250ms", 0, 250 },
        { "1h 30m", 0, 5400000 },
        { "1h30m", 0, 5400000 },
        { "1m 30", 0, 90000 },
        { "1s 500ms", 0, 1500 },
        { "1y", 0, 31536000000u },
        { "1M", 0, 2592000000u },
        { "1w 2d", 0, 777600000 },
        { "1y 1M 1w 1d 1h 1m 1s 1ms", 0,
          31536000000u + 2592000000u + 604800000 + 86400000 + 3600000 + 60000 + 1000 + 1 },
        { "18446744073709551615ms", 0, UINT64_MAX },
        { "18446744073709551616ms", -1, 0 },
        { "18446744073709552", -1, 0 },
        { "18446744073709551s 616ms", -1, 0 },
        { "18446744073709551s 615ms", 0, UINT64_MAX },
        { "584942418y", -1, 0 },
        { "30m 1h", -1, 0 },
        { "1h 1h", -1, 0 },
        { "1s 1", -1, 0 },
        { "1 5", -1, 0 },
        { "1ms 1s", -1, 0 },
        { "", -1, 0 },
        { " ", -1, 0 },
        { "1s ", -1, 0 },
        { " 1s", -1, 0 },
        { "s", -1, 0 },
        { "1x", -1, 0 },
        { "1H", -1, 0 },
        { "1 h", -1, 0 },
        { "-1s", -1, 0 },
        { "1.5s", -1, 0 },
        { "1msx", -1, 0 },
    };
    static const struct number whole[] = {
        { "1m", 0, 60000 },
        { "5", 0, 5000 },
        { "5ms", -1, 0 },
        { "1s 5ms", -1, 0 },
    };

    check("time", ms, times, ARRAY_LEN(times));
    check("seconds", seconds, whole, ARRAY_LEN(whole));
}

static void test_list(void)
{
    struct arena *arena = arena_new();
    struct str_list list = { NULL, 0, 0 };
    bool same = true;

    for (int i = 0; i < 1000; i++)
        str_list_add(arena, &list, str_printf(arena, "%d", i));
    for (int i = 0; i < 1000; i++)
        same = same && str_eq(list.items[i], str_printf(arena, "%d", i));
    is_uint(list.count, 1000, "a list grows");
    ok(same, "and keeps what it holds");
    arena_destroy(arena);
}

int main(void)
{
    test_compare();
    test_search();
    test_copies();
    test_integers();
    test_signed();
    test_times();
    test_list();
    arena_trim();
    return done_testing();
}
