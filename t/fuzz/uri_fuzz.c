/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: paths and hosts. A normal form holds no dot segments, no NUL and (merged) no empty
 * segment, and is its own normal form once escaped; so is a host's.
 */
#include "core/base/arena.h"
#include "core/base/fmt.h"
#include "core/http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void check_segments(struct str uri, bool merge)
{
    size_t start = 1;

    check(uri.len > 0 && uri.ptr[0] == '/', "the first byte");
    check(memchr(uri.ptr, '\0', uri.len) == NULL, "NUL");
    for (size_t i = 1; i <= uri.len; i++) {
        struct str segment = str_from(uri.ptr + start, i - start);

        if (i < uri.len && uri.ptr[i] != '/')
            continue;
        check(!str_eq(segment, STR(".")) && !str_eq(segment, STR("..")), "dots");
        check(!merge || segment.len > 0 || i == uri.len, "an empty segment");
        start = i + 1;
    }
}

static void check_uri(struct arena *arena, struct str target, bool merge)
{
    struct uri_parts u, again;
    struct str escaped;

    uri_check_unsafe(target);
    if (uri_normalize(arena, target, merge, &u) != 0)
        return;
    check_segments(u.uri, merge);
    check(u.complex || u.uri.ptr == target.ptr, "copied for nothing");
    check(u.exten.len < u.uri.len &&
              memchr(u.exten.len ? u.exten.ptr : "", '/', u.exten.len) == NULL,
          "exten");
    escaped = fmt_escape_dup(arena, u.uri, FMT_ESCAPE_URI);
    check(uri_normalize(arena, escaped, merge, &again) == 0 && str_eq(again.uri, u.uri),
          "not its own normal form");
    check(uri_check_unsafe(escaped) == 0, "not safe");
}

static void check_host(struct arena *arena, struct str host)
{
    struct str out, again;
    unsigned port;

    if (h1_host_normalize(arena, host, &out, &port) != 0)
        return;
    check(out.len > 0 && port <= 65535, "a host");
    for (size_t i = 0; i < out.len; i++) {
        unsigned char c = (unsigned char) out.ptr[i];

        check(c > 0x20 && c < 0x7f && c != '/' && c != '@' && c != '\\' && !(c >= 'A' && c <= 'Z'),
              "a sign in a host");
    }
    if (out.ptr[out.len - 1] != '.')
        check(h1_host_normalize(arena, out, &again, &port) == 0 && str_eq(again, out),
              "not its own normal host");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    char *copy = malloc(size > 0 ? size : 1);

    if (size > 0)
        memcpy(copy, data, size);
    check_uri(arena, str_from(copy, size), true);
    check_uri(arena, str_from(copy, size), false);
    check_host(arena, str_from(copy, size));
    free(copy);
    arena_destroy(arena);
    arena_trim();
    return 0;
}
