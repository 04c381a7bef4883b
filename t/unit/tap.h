/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unit tests' side of TAP, without a plan: a test program includes this, calls ok() and its
 * relations, and ends with `return done_testing();`. Names are printf formats. What differs is
 * printed with both values. One process, one thread; a child that is forked must not call these.
 */
#ifndef T_UNIT_TAP_H
#define T_UNIT_TAP_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TAP_UNUSED __attribute__((unused))

static int tap_count TAP_UNUSED;
static int tap_failed TAP_UNUSED;

/* Each is true if the test passed, so that what builds on it can be left out. */
#define ok(cond, ...) tap_ok((cond) ? 1 : 0, #cond, __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, expected, ...) tap_int((got), (expected), __FILE__, __LINE__, __VA_ARGS__)
#define is_uint(got, expected, ...) tap_uint((got), (expected), __FILE__, __LINE__, __VA_ARGS__)
/* NUL-terminated strings; NULL equals only NULL. */
#define is_str(got, expected, ...) tap_str((got), (expected), __FILE__, __LINE__, __VA_ARGS__)
/* len bytes at each. */
#define is_mem(got, expected, len, ...) \
    tap_mem((got), (len), (expected), (len), __FILE__, __LINE__, __VA_ARGS__)
/* Two runs of bytes that need not have one length. */
#define is_bytes(got, got_len, expected, expected_len, ...) \
    tap_mem((got), (got_len), (expected), (expected_len), __FILE__, __LINE__, __VA_ARGS__)

/* A remark, shown when the test is run by hand or fails. */
static inline void TAP_UNUSED __attribute__((format(printf, 1, 2))) diag(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fputs("# ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* The line of one test. A '#' or a line feed in the name would be read as something else. */
static inline int TAP_UNUSED tap_line(int passed, const char *file, int line, const char *fmt,
                                      va_list ap)
{
    char name[256];
    char *p;

    vsnprintf(name, sizeof(name), fmt, ap);
    for (p = name; *p != '\0'; p++) {
        if (*p == '#' || (unsigned char) *p < 0x20) {
            *p = '.';
        }
    }
    printf("%sok %d - %s\n", passed ? "" : "not ", ++tap_count, name);
    fflush(stdout);
    if (!passed) {
        tap_failed++;
        diag("failed: %s, at %s:%d", name, file, line);
    }
    return passed;
}

static inline int TAP_UNUSED __attribute__((format(printf, 5, 6)))
tap_ok(int passed, const char *cond, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tap_line(passed, file, line, fmt, ap);
    va_end(ap);
    if (!passed) {
        diag("    not true: %s", cond);
    }
    return passed;
}

static inline int TAP_UNUSED __attribute__((format(printf, 5, 6)))
tap_int(long long got, long long expected, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tap_line(got == expected, file, line, fmt, ap);
    va_end(ap);
    if (got != expected) {
        diag("         got: %lld (0x%llx)", got, (unsigned long long) got);
        diag("    expected: %lld (0x%llx)", expected, (unsigned long long) expected);
    }
    return got == expected;
}

static inline int TAP_UNUSED __attribute__((format(printf, 5, 6)))
tap_uint(unsigned long long got, unsigned long long expected, const char *file, int line,
         const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    tap_line(got == expected, file, line, fmt, ap);
    va_end(ap);
    if (got != expected) {
        diag("         got: %llu (0x%llx)", got, got);
        diag("    expected: %llu (0x%llx)", expected, expected);
    }
    return got == expected;
}

/* Bytes as a C string, with "..." after the first 200. */
static inline void TAP_UNUSED tap_show(const char *what, const char *p, size_t len)
{
    size_t i;

    fprintf(stderr, "# %s: ", what);
    if (p == NULL) {
        fputs("NULL\n", stderr);
        return;
    }
    fputc('"', stderr);
    for (i = 0; i < len && i < 200; i++) {
        unsigned char c = (unsigned char) p[i];

        if (c == '"' || c == '\\') {
            fprintf(stderr, "\\%c", c);
        } else if (c == '\n') {
            fputs("\\n", stderr);
        } else if (c == '\r') {
            fputs("\\r", stderr);
        } else if (c < 0x20 || c >= 0x7f) {
            fprintf(stderr, "\\x%02x", c);
        } else {
            fputc(c, stderr);
        }
    }
    fprintf(stderr, "\"%s (%zu bytes)\n", i < len ? "..." : "", len);
}

static inline int TAP_UNUSED tap_same(const void *got, size_t got_len, const void *expected,
                                      size_t expected_len, const char *file, int line,
                                      const char *fmt, va_list ap)
{
    const char *g = got;
    const char *e = expected;
    size_t at = 0;
    int same = (g == NULL) == (e == NULL) && got_len == expected_len &&
               (g == NULL || e == NULL || got_len == 0 || memcmp(g, e, got_len) == 0);

    tap_line(same, file, line, fmt, ap);
    if (same) {
        return 1;
    }
    tap_show("        got", g, got_len);
    tap_show("   expected", e, expected_len);
    if (g != NULL && e != NULL) {
        while (at < got_len && at < expected_len && g[at] == e[at]) {
            at++;
        }
        diag("    differ from byte %zu on", at);
    }
    return 0;
}

static inline int TAP_UNUSED __attribute__((format(printf, 5, 6)))
tap_str(const char *got, const char *expected, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    int same;

    va_start(ap, fmt);
    same = tap_same(got, got != NULL ? strlen(got) : 0, expected,
                    expected != NULL ? strlen(expected) : 0, file, line, fmt, ap);
    va_end(ap);
    return same;
}

static inline int TAP_UNUSED __attribute__((format(printf, 7, 8)))
tap_mem(const void *got, size_t got_len, const void *expected, size_t expected_len,
        const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    int same;

    va_start(ap, fmt);
    same = tap_same(got, got_len, expected, expected_len, file, line, fmt, ap);
    va_end(ap);
    return same;
}

/* A test that cannot be made here, with the reason. */
static inline void TAP_UNUSED __attribute__((format(printf, 1, 2))) skip(const char *fmt, ...)
{
    va_list ap;

    printf("ok %d # SKIP ", ++tap_count);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

/* The plan, last. The exit status: 0 if everything passed. */
static inline int TAP_UNUSED done_testing(void)
{
    printf("1..%d\n", tap_count);
    fflush(stdout);
    if (tap_failed > 0) {
        diag("%d of %d failed", tap_failed, tap_count);
    }
    return tap_failed > 0 ? 1 : 0;
}

#endif
