/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clocks as of the last update, and their texts. An update is two calls into the vDSO and no
 * formatting: each text is made when it is first asked for in a second.
 */
#include "core/base/clock.h"

#include "core/base/fmt.h"

#define TEXT_MAX 40

static uint64_t mono_us, mono_ms;
static time_t wall_s;
static unsigned wall_ms;
static bool started;

/* One cached text and the second that it says. */
struct text {
    time_t second;
    bool valid;
    size_t len;
    char buf[TEXT_MAX];
};

void clock_update(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    mono_us = (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
    mono_ms = mono_us / 1000;
    clock_gettime(CLOCK_REALTIME, &ts);
    wall_s = ts.tv_sec;
    wall_ms = (unsigned) (ts.tv_nsec / 1000000);
    started = true;
}

/* What runs before the loop (the configuration, its errors) needs a time as well. */
static void ensure(void)
{
    if (unlikely(!started))
        clock_update();
}

uint64_t clock_ms(void)
{
    ensure();
    return mono_ms;
}

uint64_t clock_us(void)
{
    ensure();
    return mono_us;
}

time_t clock_time(void)
{
    ensure();
    return wall_s;
}

unsigned clock_time_ms(void)
{
    ensure();
    return wall_ms;
}

/* Local time as the pattern says; with `colon`, the zone at the end reads +00:00. */
static size_t format_local(char *buf, const char *pattern, bool colon)
{
    struct tm tm;
    size_t n;

    localtime_r(&wall_s, &tm);
    n = strftime(buf, TEXT_MAX - 1, pattern, &tm);
    if (colon && n >= 2) {
        memmove(buf + n - 1, buf + n - 2, 2);
        buf[n - 2] = ':';
        n++;
    }
    return n;
}

static bool fresh(struct text *t)
{
    ensure();
    if (likely(t->valid && t->second == wall_s))
        return true;
    t->valid = true;
    t->second = wall_s;
    return false;
}

struct str clock_http_date(void)
{
    static struct text t;

    if (!fresh(&t))
        t.len = (size_t) (fmt_http_date(t.buf, wall_s) - t.buf);
    return str_from(t.buf, t.len);
}

struct str clock_log_local(void)
{
    static struct text t;

    if (!fresh(&t))
        t.len = format_local(t.buf, "%d/%b/%Y:%H:%M:%S %z", false);
    return str_from(t.buf, t.len);
}

struct str clock_iso8601(void)
{
    static struct text t;

    if (!fresh(&t))
        t.len = format_local(t.buf, "%Y-%m-%dT%H:%M:%S%z", true);
    return str_from(t.buf, t.len);
}

struct str clock_error_log(void)
{
    static struct text t;

    if (!fresh(&t))
        t.len = format_local(t.buf, "%Y/%m/%d %H:%M:%S", false);
    return str_from(t.buf, t.len);
}

struct str clock_syslog(void)
{
    static struct text t;

    if (!fresh(&t))
        t.len = format_local(t.buf, "%b %e %H:%M:%S", false);
    return str_from(t.buf, t.len);
}
