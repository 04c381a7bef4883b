/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers, dates, escapes and base64 as text, without printf. Called from hot paths; writers
 * trust the caller for room and never allocate unless handed an arena.
 */
#include "core/base/fmt.h"

#include "core/base/arena.h"
#include "core/base/clock.h"

static const char digit_pairs[201] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";

static const char hex_digits[17] = "0123456789abcdef";
static const char hex_upper[17] = "0123456789ABCDEF";

char *fmt_u64(char *p, uint64_t n)
{
    char buf[FMT_U64_MAX];
    char *at = buf + sizeof(buf);
    size_t len;

    while (n >= 100) {
        at -= 2;
        memcpy(at, digit_pairs + n % 100 * 2, 2);
        n /= 100;
    }
    if (n >= 10) {
        at -= 2;
        memcpy(at, digit_pairs + n * 2, 2);
    } else {
        *--at = (char) ('0' + n);
    }
    len = (size_t) (buf + sizeof(buf) - at);
    memcpy(p, at, len);
    return p + len;
}

char *fmt_hex(char *p, uint64_t n)
{
    int shift = n ? (63 - __builtin_clzll(n)) & ~3 : 0;

    for (; shift >= 0; shift -= 4)
        *p++ = hex_digits[n >> shift & 15];
    return p;
}

char *fmt_hex_bytes(char *p, const void *ptr, size_t len)
{
    const unsigned char *s = ptr;

    for (size_t i = 0; i < len; i++) {
        *p++ = hex_digits[s[i] >> 4];
        *p++ = hex_digits[s[i] & 15];
    }
    return p;
}

/* Dates. The calendar is the proleptic Gregorian one; years are counted from March of year 0. */

static const char day_names[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
static const char month_names[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

#define DAYS_TO_1970 719468 /* from 0000-03-01 */
#define DAYS_400Y 146097
#define LAST_SECOND 253402300799 /* of the year 9999 */

struct date {
    int64_t year;
    unsigned month; /* 0..11 */
    unsigned day;   /* 1..31 */
};

static struct date date_from_days(uint64_t days)
{
    uint64_t n = days + DAYS_TO_1970;
    uint64_t era = n / DAYS_400Y;
    uint64_t doe = n % DAYS_400Y;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned month = (unsigned) (5 * doy + 2) / 153; /* 0: March */
    struct date d;

    d.day = (unsigned) (doy - (153 * month + 2) / 5) + 1;
    d.month = month < 10 ? month + 2 : month - 10;
    d.year = (int64_t) (era * 400 + yoe) + (d.month < 2);
    return d;
}

static int64_t days_from_date(const struct date *d)
{
    int64_t y = d->year - (d->month < 2);
    int64_t era = y / 400;
    int64_t yoe = y % 400;
    int64_t month = d->month < 2 ? d->month + 10 : d->month - 2;
    int64_t doy = (153 * month + 2) / 5 + d->day - 1;

    return era * DAYS_400Y + yoe * 365 + yoe / 4 - yoe / 100 + doy - DAYS_TO_1970;
}

static char *two(char *p, unsigned n, char after)
{
    memcpy(p, digit_pairs + (size_t) n * 2, 2);
    p[2] = after;
    return p + 3;
}

char *fmt_http_date(char *p, time_t t)
{
    uint64_t s = t < 0 ? 0 : MIN((uint64_t) t, LAST_SECOND);
    uint64_t days = s / 86400;
    unsigned second = (unsigned) (s % 86400);
    struct date d = date_from_days(days);

    memcpy(p, day_names[(days + 4) % 7], 3);
    p[3] = ',';
    p[4] = ' ';
    p = two(p + 5, d.day, ' ');
    memcpy(p, month_names[d.month], 3);
    p[3] = ' ';
    memcpy(p + 4, digit_pairs + (size_t) (d.year / 100) * 2, 2);
    p = two(p + 6, (unsigned) (d.year % 100), ' ');
    p = two(p, second / 3600, ':');
    p = two(p, second / 60 % 60, ':');
    p = two(p, second % 60, ' ');
    memcpy(p, "GMT", 3);
    return p + 3;
}

/* Takes exactly n digits off the front of s. -1 if they are not there. */
static int take_digits(struct str *s, size_t n)
{
    uint64_t v;

    if (s->len < n || str_to_u64(str_from(s->ptr, n), &v))
        return -1;
    *s = str_skip(*s, n);
    return (int) v;
}

static bool take(struct str *s, struct str what)
{
    if (!str_starts(*s, what))
        return false;
    *s = str_skip(*s, what.len);
    return true;
}

static int take_month(struct str *s)
{
    for (int m = 0; m < 12; m++) {
        if (take(s, str_from(month_names[m], 3)))
            return m;
    }
    return -1;
}

/* "08:49:37" into seconds of the day; -1. A leap second is the next minute's first one. */
static int take_clock(struct str *s)
{
    int h, m, sec;

    if ((h = take_digits(s, 2)) < 0 || h > 23 || !take(s, STR(":")) ||
        (m = take_digits(s, 2)) < 0 || m > 59 || !take(s, STR(":")) ||
        (sec = take_digits(s, 2)) < 0 || sec > 60)
        return -1;
    return h * 3600 + m * 60 + sec;
}

static bool date_valid(const struct date *d)
{
    static const unsigned char lengths[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = d->year % 4 == 0 && (d->year % 100 != 0 || d->year % 400 == 0);

    return d->day >= 1 && d->day <= lengths[d->month] + (unsigned) (leap && d->month == 1);
}

/* A year of two digits is never more than 50 years ahead (RFC 9110, 5.6.7). */
static int full_year(int yy)
{
    int now = (int) date_from_days((uint64_t) clock_time() / 86400).year;
    int year = now - now % 100 + yy;

    return year > now + 50 ? year - 100 : year;
}

/* "06 Nov 1994 " or "06-Nov-94 " (also with four digits), behind the day's name. */
static bool take_date(struct str *s, struct date *d)
{
    int day = take_digits(s, 2);
    bool dashes = take(s, STR("-"));
    struct str sep = dashes ? STR("-") : STR(" ");
    int month, year;

    if (day < 0 || (!dashes && !take(s, sep)) || (month = take_month(s)) < 0 || !take(s, sep))
        return false;
    if (dashes && s->len > 2 && s->ptr[2] == ' ') {
        year = take_digits(s, 2);
        year = year < 0 ? -1 : full_year(year);
    } else {
        year = take_digits(s, 4);
    }
    *d = (struct date){ year, (unsigned) month, (unsigned) day };
    return year >= 0 && take(s, STR(" "));
}

/* "Nov  6 08:49:37 1994", behind the day's name. */
static bool take_asctime(struct str *s, struct date *d, int *second)
{
    int month = take_month(s);
    int day, year;

    if (month < 0 || !take(s, STR(" ")))
        return false;
    day = take(s, STR(" ")) ? take_digits(s, 1) : take_digits(s, 2);
    if (day < 0 || !take(s, STR(" ")) || (*second = take_clock(s)) < 0 || !take(s, STR(" ")) ||
        (year = take_digits(s, 4)) < 0)
        return false;
    *d = (struct date){ year, (unsigned) month, (unsigned) day };
    return true;
}

time_t fmt_parse_http_date(struct str s)
{
    struct date d;
    size_t letters = 0;
    int second;

    /* Which day of the week it claims to be decides nothing, so it is not looked at. */
    while (letters < s.len && ascii_lower((unsigned char) s.ptr[letters]) >= 'a' &&
           ascii_lower((unsigned char) s.ptr[letters]) <= 'z')
        letters++;
    if (letters < 3)
        return -1;
    s = str_skip(s, letters);
    if (take(&s, STR(", "))) {
        if (!take_date(&s, &d) || (second = take_clock(&s)) < 0 || !take(&s, STR(" GMT")))
            return -1;
    } else if (!take(&s, STR(" ")) || !take_asctime(&s, &d, &second)) {
        return -1;
    }
    if (s.len || d.year < 1970 || !date_valid(&d))
        return -1;
    return (time_t) (days_from_date(&d) * 86400 + second);
}

/* One bit per byte: 1 is escaped. Bytes of 0x80 and up and controls are in all but HTML's. */
#define BIT(c) (1u << ((c) &31))

static const uint32_t escape_maps[3][8] = {
    [FMT_ESCAPE_URI] = { 0xffffffff,
                         BIT(' ') | BIT('%') | BIT('?') | BIT('#') | BIT('"') | BIT('<') | BIT('>'),
                         BIT('\\') | BIT('^'),
                         BIT('`') | BIT('{') | BIT('|') | BIT('}') | BIT(0x7f), 0xffffffff,
                         0xffffffff, 0xffffffff, 0xffffffff },
    /* Left alone: letters, digits, - . _ ~ (RFC 3986, 2.3). */
    [FMT_ESCAPE_URI_COMPONENT] = { 0xffffffff, (uint32_t) ~(0x03ffu << 16 | BIT('-') | BIT('.')),
                                   (uint32_t) ~(0x07fffffeu | BIT('_')),
                                   (uint32_t) ~(0x07fffffeu | BIT('~')), 0xffffffff, 0xffffffff,
                                   0xffffffff, 0xffffffff },
    [FMT_ESCAPE_ARGS] = { 0xffffffff,
                          BIT(' ') | BIT('%') | BIT('&') | BIT('+') | BIT('#') | BIT(';') | BIT('?'), 0,
                          BIT(0x7f), 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
};

static struct str html_entity(char c)
{
    switch (c) {
    case '&': return STR("&amp;");
    case '<': return STR("&lt;");
    case '>': return STR("&gt;");
    case '"': return STR("&quot;");
    }
    return STR_NULL;
}

static char *escape_html(char *p, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        struct str entity = html_entity(s.ptr[i]);

        if (entity.ptr)
            p = fmt_str(p, entity);
        else
            *p++ = s.ptr[i];
    }
    return p;
}

static bool needs_escape(const uint32_t *map, unsigned char c)
{
    return map[c >> 5] >> (c & 31) & 1;
}

char *fmt_escape(char *p, struct str s, enum fmt_escape how)
{
    const uint32_t *map;

    if (how == FMT_ESCAPE_HTML)
        return escape_html(p, s);
    map = escape_maps[how];
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];

        if (needs_escape(map, c)) {
            p[0] = '%';
            p[1] = hex_upper[c >> 4];
            p[2] = hex_upper[c & 15];
            p += 3;
        } else {
            *p++ = (char) c;
        }
    }
    return p;
}

struct str fmt_escape_dup(struct arena *arena, struct str s, enum fmt_escape how)
{
    size_t len = s.len;
    char *p;

    for (size_t i = 0; i < s.len; i++) {
        if (how == FMT_ESCAPE_HTML) {
            struct str entity = html_entity(s.ptr[i]);

            len += entity.ptr ? entity.len - 1 : 0;
        } else if (needs_escape(escape_maps[how], (unsigned char) s.ptr[i])) {
            len += 2;
        }
    }
    p = arena_bytes(arena, len + 1);
    *fmt_escape(p, s, how) = '\0';
    return str_from(p, len);
}

/* -1 for anything but a hexadecimal digit. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char) ascii_lower((unsigned char) c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *fmt_unescape(char *dst, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        int high, low;

        if (s.ptr[i] == '%' && s.len - i > 2 && (high = hex_value(s.ptr[i + 1])) >= 0 &&
            (low = hex_value(s.ptr[i + 2])) >= 0) {
            *dst++ = (char) (high << 4 | low);
            i += 2;
        } else {
            *dst++ = s.ptr[i];
        }
    }
    return dst;
}

static const char base64_std[65] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[65] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct str fmt_base64(struct arena *arena, struct str s, bool url)
{
    const char *alphabet = url ? base64_url : base64_std;
    const unsigned char *in = (const unsigned char *) s.ptr;
    char *ptr = arena_bytes(arena, (s.len / 3 + 1) * 4 + 1);
    char *p = ptr;
    size_t i;

    for (i = 0; s.len - i >= 3; i += 3) {
        uint32_t v = (uint32_t) in[i] << 16 | (uint32_t) in[i + 1] << 8 | in[i + 2];

        *p++ = alphabet[v >> 18];
        *p++ = alphabet[v >> 12 & 63];
        *p++ = alphabet[v >> 6 & 63];
        *p++ = alphabet[v & 63];
    }
    if (i < s.len) {
        uint32_t v = (uint32_t) in[i] << 16 | (s.len - i > 1 ? (uint32_t) in[i + 1] << 8 : 0);

        *p++ = alphabet[v >> 18];
        *p++ = alphabet[v >> 12 & 63];
        if (s.len - i > 1)
            *p++ = alphabet[v >> 6 & 63];
        else if (!url)
            *p++ = '=';
        if (!url)
            *p++ = '=';
    }
    *p = '\0';
    return str_from(ptr, (size_t) (p - ptr));
}

/* The six bits of a digit of the alphabet, or -1. */
static int base64_value(char c, bool url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (url ? '-' : '+'))
        return 62;
    return c == (url ? '_' : '/') ? 63 : -1;
}

int fmt_base64_decode(struct arena *arena, struct str s, bool url, struct str *out)
{
    uint32_t v = 0;
    unsigned bits = 0;
    char *ptr, *p;
    size_t pad = 0;

    while (pad < 2 && s.len && s.ptr[s.len - 1] == '=') {
        s.len--;
        pad++;
    }
    /* Padding may be left out; if it is there, it must be what the length calls for. */
    if (s.len % 4 == 1 || (pad && (s.len + pad) % 4))
        return -1;
    ptr = p = arena_bytes(arena, s.len / 4 * 3 + 3);
    for (size_t i = 0; i < s.len; i++) {
        int d = base64_value(s.ptr[i], url);

        if (d < 0)
            return -1;
        v = v << 6 | (uint32_t) d;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *p++ = (char) (v >> bits & 255);
        }
    }
    *p = '\0';
    *out = str_from(ptr, (size_t) (p - ptr));
    return 0;
}
