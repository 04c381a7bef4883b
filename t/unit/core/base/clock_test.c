/* SPDX-License-Identifier: BSD-2-Clause */
/* The clock's texts, in a zone that is not UTC, and that it stands still between updates. */
#include "core/base/clock.h"

#include "core/base/fmt.h"
#include "t/unit/tap.h"

static void is_local(struct str got, const char *pattern, const char *what)
{
    time_t t = clock_time();
    char want[64];
    struct tm tm;

    localtime_r(&t, &tm);
    strftime(want, sizeof(want), pattern, &tm);
    is_bytes(got.ptr, got.len, want, strlen(want), "%s", what);
}

int main(void)
{
    char date[FMT_HTTP_DATE];
    uint64_t us;

    setenv("TZ", "XXX-05:45", 1);
    tzset();
    ok(clock_time() > 1500000000, "a clock that was never updated updates itself");
    ok(clock_time_ms() < 1000, "milliseconds within the second");
    us = clock_us();
    is_uint(clock_us(), us, "the clock stands still");
    is_uint(clock_ms(), us / 1000, "in both units");
    do
        clock_update();
    while (clock_us() == us);
    ok(clock_us() > us, "until it is updated, and never goes back");
    fmt_http_date(date, clock_time());
    is_bytes(clock_http_date().ptr, clock_http_date().len, date, sizeof(date),
             "HTTP's date is GMT");
    is_local(clock_log_local(), "%d/%b/%Y:%H:%M:%S +0545", "the access log's");
    is_local(clock_iso8601(), "%Y-%m-%dT%H:%M:%S+05:45", "ISO 8601");
    is_local(clock_error_log(), "%Y/%m/%d %H:%M:%S", "the error log's");
    is_local(clock_syslog(), "%b %e %H:%M:%S", "syslog's");
    return done_testing();
}
