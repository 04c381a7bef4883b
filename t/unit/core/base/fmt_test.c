/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers, dates, escapes and base64 as text. */
#include "core/base/fmt.h"

#include <time.h>

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "t/unit/tap.h"

static void test_numbers(void)
{
    static const uint64_t samples[] = { 0,           1,           9,
                                        10,          11,          99,
                                        100,         101,         999,
                                        1000,        65535,       123456789,
                                        4294967295u, 4294967296u, 9999999999999999999u,
                                        UINT64_MAX };
    char buf[64], want[64];

    for (unsigned i = 0; i < ARRAY_LEN(samples); i++) {
        snprintf(want, sizeof(want), "%llu", (unsigned long long) samples[i]);
        is_bytes(buf, (size_t) (fmt_u64(buf, samples[i]) - buf), want, strlen(want), "%s", want);
        snprintf(want, sizeof(want), "%llx", (unsigned long long) samples[i]);
        is_bytes(buf, (size_t) (fmt_hex(buf, samples[i]) - buf), want, strlen(want), "0x%s", want);
    }
    is_bytes(buf, (size_t) (fmt_hex_bytes(buf, "\x00\x7f\xff", 3) - buf), "007fff", 6, "bytes");
    is_bytes(buf, (size_t) (fmt_str(buf, STR_NULL) - buf), "", 0, "an absent string");
}

static void test_date_writing(void)
{
    char buf[FMT_HTTP_DATE + 1], want[64];
    bool same = true, back = true;
    time_t t = 0;
    struct tm tm;

    is_int(fmt_http_date(buf, 784111777) - buf, FMT_HTTP_DATE, "a date has a fixed length");
    is_mem(buf, "Sun, 06 Nov 1994 08:49:37 GMT", FMT_HTTP_DATE, "the one of RFC 9110");
    fmt_http_date(buf, 951782400);
    is_mem(buf, "Tue, 29 Feb 2000 00:00:00 GMT", FMT_HTTP_DATE, "2000 was a leap year");
    fmt_http_date(buf, 4107542400);
    is_mem(buf, "Mon, 01 Mar 2100 00:00:00 GMT", FMT_HTTP_DATE, "2100 is none");
    fmt_http_date(buf, -5);
    is_mem(buf, "Thu, 01 Jan 1970 00:00:00 GMT", FMT_HTTP_DATE, "before the epoch");
    fmt_http_date(buf, (time_t) INT64_MAX);
    is_mem(buf, "Fri, 31 Dec 9999 23:59:59 GMT", FMT_HTTP_DATE, "beyond four digits");
    for (int i = 0; i < 20000; i++, t += 86400 * 37 + 3607) {
        if (t > 253402300799)
            t = 11 * i;
        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        fmt_http_date(buf, t);
        same = same && memcmp(buf, want, FMT_HTTP_DATE) == 0;
        back = back && fmt_parse_http_date(str_from(buf, FMT_HTTP_DATE)) == t;
    }
    ok(same, "20000 dates as the C library writes them");
    ok(back, "and read back");
}

static void test_date_reading(void)
{
    static const struct {
        const char *text;
        time_t value;
    } cases[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 },
        { "Sunday, 06-Nov-94 08:49:37 GMT", 784111777 },
        { "Sun Nov  6 08:49:37 1994", 784111777 },
        { "Wed Nov 16 08:49:37 1994", 784975777 },
        { "Sun, 06-Nov-1994 08:49:37 GMT", 784111777 },
        { "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
        { "Wed, 31 Dec 1969 23:59:59 GMT", -1 },
        { "Tue, 29 Feb 2000 00:00:00 GMT", 951782400 },
        { "Thu, 29 Feb 1996 00:00:00 GMT", 825552000 },
        { "Mon, 29 Feb 2100 00:00:00 GMT", -1 },
        { "Thu, 29 Feb 2001 00:00:00 GMT", -1 },
        { "Tue, 31 Apr 2001 00:00:00 GMT", -1 },
        { "Tue, 32 Jan 2001 00:00:00 GMT", -1 },
        { "Tue, 00 Jan 2001 00:00:00 GMT", -1 },
        { "Sat, 31 Dec 2016 23:59:60 GMT", 1483228800 },
        { "Sat, 31 Dec 2016 23:59:61 GMT", -1 },
        { "Sat, 31 Dec 2016 23:60:00 GMT", -1 },
        { "Sat, 31 Dec 2016 24:00:00 GMT", -1 },
        { "Fri, 31 Dec 9999 23:59:59 GMT", 253402300799 },
        { "Sun, 06 Nov 1994 08:49:37 UTC", -1 },
        { "Sun, 06 Nov 1994 08:49:37", -1 },
        { "Sun, 06 Nov 1994 08:49:37 GMT ", -1 },
        { "Sun, 6 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 94 08:49:37 GMT", -1 },
        { "Sun, 06-Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 8:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 08:-9:37 GMT", -1 },
        { "Sun,06 Nov 1994 08:49:37 GMT", -1 },
        { "Sun Nov 6 08:49:37 1994", -1 },
        { "Sun Nov  6 08:49:37 1994 GMT", -1 },
        { ", 06 Nov 1994 08:49:37 GMT", -1 },
        { "0", -1 },
        { "784111777", -1 },
        { "Sun", -1 },
        { "Sun, ", -1 },
        { "", -1 },
    };
    const char *full = cases[0].text;
    bool cut = true;
    char buf[64];
    int year;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        is_int(fmt_parse_http_date(str_cstr(cases[i].text)), cases[i].value, "\"%s\"",
               cases[i].text);
    for (size_t len = 0; len < strlen(full); len++)
        cut = cut && fmt_parse_http_date(str_from(full, len)) == -1;
    ok(cut, "no beginning of a date is a date");
    /* Two digits: at most 50 years ahead. */
    fmt_http_date(buf, clock_time());
    year = (int) strtol(str_from(buf + 12, 4).ptr, NULL, 10);
    snprintf(buf, sizeof(buf), "Friday, 01-Jan-%02d 00:00:00 GMT", (year + 50) % 100);
    ok(fmt_parse_http_date(str_cstr(buf)) > clock_time(), "50 years ahead is the future");
    snprintf(buf, sizeof(buf), "Friday, 01-Jan-%02d 00:00:00 GMT", (year + 51) % 100);
    ok(fmt_parse_http_date(str_cstr(buf)) < clock_time(), "51 years ahead is the past");
}

static void test_escapes(void)
{
    struct arena *arena = arena_new();
    static const struct {
        enum fmt_escape how;
        const char *plain, *escaped;
    } cases[] = {
        { FMT_ESCAPE_URI, "/a b%c?d#e", "/a%20b%25c%3Fd%23e" },
        { FMT_ESCAPE_URI, "/~-._!$&'()*+,;=:@[]", "/~-._!$&'()*+,;=:@[]" },
        { FMT_ESCAPE_URI, "\"<>\\^`{|}", "%22%3C%3E%5C%5E%60%7B%7C%7D" },
        { FMT_ESCAPE_URI, "\x01\x1f\x7f\x80\xff", "%01%1F%7F%80%FF" },
        { FMT_ESCAPE_URI_COMPONENT, "azAZ09-._~", "azAZ09-._~" },
        { FMT_ESCAPE_URI_COMPONENT, "/:@[`{&=+ %", "%2F%3A%40%5B%60%7B%26%3D%2B%20%25" },
        { FMT_ESCAPE_URI_COMPONENT, ",!^|}\x7f\xc3", "%2C%21%5E%7C%7D%7F%C3" },
        { FMT_ESCAPE_ARGS, "a=b&c d+e%#", "a=b%26c%20d%2Be%25%23" },
        { FMT_ESCAPE_ARGS, "/?:;\x7f\xe9", "/%3F:%3B%7F%E9" },
        { FMT_ESCAPE_HTML, "<a href=\"x\">'&'</a>",
          "&lt;a href=&quot;x&quot;&gt;'&amp;'&lt;/a&gt;" },
        { FMT_ESCAPE_URI, "", "" },
        { FMT_ESCAPE_HTML, "", "" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct str s = fmt_escape_dup(arena, str_cstr(cases[i].plain), cases[i].how);

        is_bytes(s.ptr, s.len, cases[i].escaped, strlen(cases[i].escaped), "escape %u", i);
        is_int(s.ptr[s.len], 0, "with a NUL behind");
    }
    is_str(fmt_escape_dup(arena, str_from("\0", 1), FMT_ESCAPE_ARGS).ptr, "%00", "a NUL byte");
    arena_destroy(arena);
}

static void test_unescape(void)
{
    static const struct {
        const char *escaped, *plain;
    } cases[] = {
        { "a%20b", "a b" }, { "%41%7a%7A", "Azz" }, { "%", "%" },       { "%4", "%4" },
        { "%4g", "%4g" },   { "%%41", "%A" },       { "%2541", "%41" }, { "100%", "100%" },
        { "%ff", "\xff" },  { "a+b", "a+b" },       { "", "" },         { "%4%41", "%4A" },
    };
    char buf[64];

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].escaped);

        memcpy(buf, cases[i].escaped, len);
        is_bytes(buf, (size_t) (fmt_unescape(buf, str_from(buf, len)) - buf), cases[i].plain,
                 strlen(cases[i].plain), "unescape \"%s\" in place", cases[i].escaped);
    }
}

static void test_base64(void)
{
    static const struct {
        const char *plain, *std, *url;
    } cases[] = {
        /* RFC 4648, section 10. */
        { "", "", "" },
        { "f", "Zg==", "Zg" },
        { "fo", "Zm8=", "Zm8" },
        { "foo", "Zm9v", "Zm9v" },
        { "foob", "Zm9vYg==", "Zm9vYg" },
        { "fooba", "Zm9vYmE=", "Zm9vYmE" },
        { "foobar", "Zm9vYmFy", "Zm9vYmFy" },
        { "\xfb\xff\xfe", "+//+", "-__-" },
    };
    static const char *const bad[] = {
        "A",        "AAAAA", "Zg=",    "Zm8==", "=",     "====",
        "Zg==Zg==", "Z g=",  "Zm9v\n", "Zm-_",  "Zm9v=", "Zm9vYg==="
    };
    struct arena *arena = arena_new();
    struct str s, out = STR("untouched");

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].plain);

        for (int url = 0; url < 2; url++) {
            const char *text = url ? cases[i].url : cases[i].std;

            s = fmt_base64(arena, str_cstr(cases[i].plain), url);
            is_bytes(s.ptr, s.len, text, strlen(text), "encode %u, url %d", i, url);
            is_int(fmt_base64_decode(arena, s, url, &out), 0, "decodes");
            is_bytes(out.ptr, out.len, cases[i].plain, len, "to what it was");
        }
        is_int(fmt_base64_decode(arena, str_cstr(cases[i].url), true, &out), 0, "without padding");
    }
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        out = STR("untouched");
        is_int(fmt_base64_decode(arena, str_cstr(bad[i]), false, &out), -1, "malformed: \"%s\"",
               bad[i]);
        ok(out.len == 9, "and nothing came of it");
    }
    is_int(fmt_base64_decode(arena, STR("+//+"), true, &out), -1, "the wrong alphabet");
    arena_destroy(arena);
}

int main(void)
{
    test_numbers();
    test_date_writing();
    test_date_reading();
    test_escapes();
    test_unescape();
    test_base64();
    arena_trim();
    return done_testing();
}
