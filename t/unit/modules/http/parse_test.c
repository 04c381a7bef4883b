/* SPDX-License-Identifier: BSD-2-Clause */
/* What the http modules read and write without a request: Range, expires, log escapes, ETags. */
#include "core/base/arena.h"
#include "modules/http/expires.h"
#include "modules/http/log.h"
#include "modules/http/range.h"
#include "modules/http/small_files.h"
#include "t/unit/tap.h"

/* "P 0-3 8-10" for parts (last byte included), "I" for the whole, "U" for 416. */
static void is_range(const char *value, uint64_t length, uint64_t max, const char *want)
{
    struct arena *arena = arena_new();
    struct byte_ranges ranges;
    char got[512];
    int n = 0;

    switch (range_parse(arena, str_cstr(value), length, max, &ranges)) {
    case RANGE_IGNORE:
        snprintf(got, sizeof(got), "I");
        break;
    case RANGE_UNSATISFIABLE:
        snprintf(got, sizeof(got), "U");
        break;
    case RANGE_PARTIAL:
        n = snprintf(got, sizeof(got), "P");
        for (unsigned i = 0; i < ranges.count; i++)
            n += snprintf(got + n, sizeof(got) - (size_t) n, " %llu-%llu",
                          (unsigned long long) ranges.items[i].start,
                          (unsigned long long) ranges.items[i].end - 1);
        break;
    }
    is_bytes(got, strlen(got), want, strlen(want), "Range \"%s\" of %llu", value,
             (unsigned long long) length);
    arena_destroy(arena);
}

static void test_ranges(void)
{
    static const struct {
        const char *value, *want;
    } rows[] = {
        { "bytes=0-3", "P 0-3" },       { "bytes=4-", "P 4-9" },
        { "bytes=-3", "P 7-9" },        { "bytes=-99", "P 0-9" },
        { "bytes=5-99", "P 5-9" },      { "bytes=0-9", "P 0-9" },
        { "bytes=9-9", "P 9-9" },       { "bytes= 1 - 2 ", "P 1-2" },
        { "BYTES=1-2", "P 1-2" },       { "bytes=0-1,4-5,-2", "P 0-1 4-5 8-9" },
        { "bytes=4-5,0-1", "P 4-5 0-1" }, { "bytes=0-1,20-30", "P 0-1" },
        { "bytes=10-", "U" },           { "bytes=10-20", "U" },
        { "bytes=5-2", "U" },           { "bytes=-0", "U" },
        { "bytes=-", "U" },             { "bytes=", "I" },
        { "bytes=a-b", "U" },           { "bytes=1", "U" },
        { "bytes=1-2x", "U" },          { "bytes=1-2,", "U" },
        { "bytes=--1", "U" },           { "bytes=0-99999999999999999999", "U" },
        { "bytes=99999999999999999999-", "U" }, { "bytes=9223372036854775808-", "U" },
        { "bytes=0-9223372036854775807", "P 0-9" },
        { "bytes", "I" },               { "lines=0-1", "I" },
        { "bytes=0-9,0-9", "I" },       { "", "I" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        is_range(rows[i].value, 10, 100, rows[i].want);
    is_range("bytes=0-0", 0, 100, "I");
    is_range("bytes=-1", 0, 100, "I");
    is_range("bytes=5-", 0, 100, "U");
    is_range("bytes=0-1,3-4", 10, 2, "P 0-1 3-4");
    is_range("bytes=0-1,3-4", 10, 1, "I");
    is_range("bytes=0-1,20-30", 10, 1, "P 0-1");
}

static void is_expires(const char *text, bool modified, enum expires_error error,
                       enum expires_kind kind, int64_t seconds)
{
    struct expires x;

    is_int(expires_parse(str_cstr(text), modified, &x), error, "expires %s%s",
           modified ? "modified " : "", text);
    if (error != EXPIRES_FINE)
        return;
    is_int(x.kind, kind, "its kind");
    is_int(x.seconds, seconds, "its seconds");
}

static void test_expires(void)
{
    is_expires("1h", false, EXPIRES_FINE, EXPIRES_ACCESS, 3600);
    is_expires("+1h", false, EXPIRES_FINE, EXPIRES_ACCESS, 3600);
    is_expires("-1", false, EXPIRES_FINE, EXPIRES_ACCESS, -1);
    is_expires("0", false, EXPIRES_FINE, EXPIRES_ACCESS, 0);
    is_expires("1h30m", true, EXPIRES_FINE, EXPIRES_MODIFIED, 5400);
    is_expires("-24h", true, EXPIRES_FINE, EXPIRES_MODIFIED, -86400);
    is_expires("@15h30m", false, EXPIRES_FINE, EXPIRES_DAILY, 55800);
    is_expires("epoch", false, EXPIRES_FINE, EXPIRES_EPOCH, 0);
    is_expires("max", false, EXPIRES_FINE, EXPIRES_MAX, 0);
    is_expires("off", false, EXPIRES_FINE, EXPIRES_OFF, 0);
    is_expires("@25h", false, EXPIRES_LONG_DAILY, 0, 0);
    is_expires("@-1h", false, EXPIRES_INVALID, 0, 0);
    is_expires("", false, EXPIRES_INVALID, 0, 0);
    is_expires("+", false, EXPIRES_INVALID, 0, 0);
    is_expires("sometime", false, EXPIRES_INVALID, 0, 0);
    is_expires("10ms", false, EXPIRES_INVALID, 0, 0);
    is_expires("max", true, EXPIRES_INVALID, 0, 0);
    is_expires("@15h", true, EXPIRES_DAILY_MODIFIED, 0, 0);
}

static void is_escaped(struct str in, enum log_escape how, struct str want)
{
    char buf[512];
    size_t n = (size_t) (log_escape(buf, in, how) - buf);

    is_bytes(buf, n, want.ptr, want.len, "escaped: %.*s", STR_ARG(want));
}

static void test_log_escapes(void)
{
    static const char all[] = "a\"b\\c\td\n\r\b\f\x01\x1f\x7f\x80\xff/";
    char every[256], out[256 * 6];
    bool clean = true;

    is_escaped(str_from(all, sizeof(all) - 1), ESCAPE_DEFAULT,
               STR("a\\x22b\\x5Cc\\x09d\\x0A\\x0D\\x08\\x0C\\x01\\x1F\\x7F\\x80\\xFF/"));
    is_escaped(str_from(all, sizeof(all) - 1), ESCAPE_JSON,
               STR("a\\\"b\\\\c\\td\\n\\r\\b\\f\\u0001\\u001F\x7f\x80\xff/"));
    is_escaped(str_from(all, sizeof(all) - 1), ESCAPE_NONE, str_from(all, sizeof(all) - 1));
    is_escaped(STR(""), ESCAPE_JSON, STR(""));
    for (unsigned i = 0; i < sizeof(every); i++)
        every[i] = (char) i;
    for (char *p = out, *end = log_escape(out, str_from(every, sizeof(every)), ESCAPE_DEFAULT);
         p < end; p++)
        clean = clean && *p >= 0x20 && *p < 0x7f;
    ok(clean, "no byte that a terminal would obey");
}

static void test_etag(void)
{
    struct file_info info = { .size = 11, .mtime = { 1000000000, 5 } };
    char etag[FILE_ETAG_MAX];
    size_t n = file_etag(etag, &info);

    is_bytes(etag, n, "\"3b9aca00-b\"", 12, "the time and the size in hex");
    info.size = UINT64_MAX;
    info.mtime.tv_sec = -1;
    n = file_etag(etag, &info);
    ok(n <= FILE_ETAG_MAX, "the longest one fits");
}

int main(void)
{
    test_ranges();
    test_expires();
    test_log_escapes();
    test_etag();
    return done_testing();
}
