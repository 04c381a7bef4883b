/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paths of requests in the form that locations and files are chosen by (RFC 3986, 6.2.2; nginx's
 * rules): decoded once, dot segments resolved, slashes merged. An escaped slash or dot counts like
 * a plain one, so that nobody behind us can resolve what we have not. Called once a request.
 */
#include "core/base/arena.h"
#include "core/http/h1.h"

static int hex_value(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What follows the last dot of the last segment; a dot in front of everything does not count. */
static struct str find_exten(struct str uri)
{
    for (size_t i = uri.len; i > 1 && uri.ptr[i - 1] != '/'; i--) {
        if (uri.ptr[i - 1] == '.' && uri.ptr[i - 2] != '/')
            return str_skip(uri, i);
    }
    return STR_NULL;
}

static bool is_dots(const char *segment, size_t len)
{
    return (len == 1 && segment[0] == '.') || (len == 2 && segment[0] == '.' && segment[1] == '.');
}

/* Bytes of the path in front of '?' or '#', or all; *changes: it is not in normal form. */
static size_t path_span(struct str target, bool merge_slashes, bool *changes)
{
    size_t i, segment = 1;

    *changes = false;
    for (i = 1; i < target.len; i++) {
        switch (target.ptr[i]) {
        case '/':
            if (is_dots(target.ptr + segment, i - segment) || (merge_slashes && i == segment))
                *changes = true;
            segment = i + 1;
            break;
        case '%':
        case '\0': *changes = true; break;
        case '?':
        case '#': goto end;
        default: break;
        }
    }
end:
    if (is_dots(target.ptr + segment, i - segment))
        *changes = true;
    return i;
}

/* A path being put together: text[0] is '/', segment is where the one under way begins. */
struct builder {
    char *text;
    size_t len, segment;
};

/* Resolves the segment that has ended if it is "." or "..". True if it was; -1 above the root. */
static int resolve_dots(struct builder *b)
{
    size_t n = b->len - b->segment;

    if (!is_dots(b->text + b->segment, n))
        return 0;
    b->len = b->segment;
    if (n == 1)
        return 1;
    if (b->segment == 1)
        return -1;
    do
        b->len--;
    while (b->text[b->len - 1] != '/');
    b->segment = b->len;
    return 1;
}

static int add_slash(struct builder *b, bool merge_slashes)
{
    int dots = resolve_dots(b);

    /* What dots leave behind ends in a slash already. */
    if (dots != 0)
        return dots < 0 ? -1 : 0;
    if (merge_slashes && b->len == b->segment)
        return 0;
    b->text[b->len++] = '/';
    b->segment = b->len;
    return 0;
}

static int rebuild(struct arena *arena, struct str path, bool merge_slashes, struct str *out)
{
    struct builder b = { .text = arena_bytes(arena, path.len), .len = 1, .segment = 1 };

    b.text[0] = '/';
    for (size_t i = 1; i < path.len; i++) {
        unsigned char c = (unsigned char) path.ptr[i];

        if (c == '%') {
            int high, low;

            if (path.len - i < 3 || (high = hex_value((unsigned char) path.ptr[i + 1])) < 0 ||
                (low = hex_value((unsigned char) path.ptr[i + 2])) < 0)
                return -1;
            c = (unsigned char) (high << 4 | low);
            i += 2;
        }
        if (c == '\0')
            return -1;
        if (c == '/') {
            if (add_slash(&b, merge_slashes) != 0)
                return -1;
        } else {
            b.text[b.len++] = (char) c;
        }
    }
    if (resolve_dots(&b) < 0)
        return -1;
    *out = str_from(b.text, b.len);
    return 0;
}

int uri_normalize(struct arena *arena, struct str target, bool merge_slashes, struct uri_parts *out)
{
    const char *fragment;
    size_t n;

    if (target.len == 0 || target.ptr[0] != '/')
        return -1;
    memset(out, 0, sizeof(*out));
    n = path_span(target, merge_slashes, &out->complex);
    out->uri = str_from(target.ptr, n);
    if (n < target.len && target.ptr[n] == '?') {
        out->has_args = true;
        out->args = str_skip(target, n + 1);
        fragment = out->args.len > 0 ? memchr(out->args.ptr, '#', out->args.len) : NULL;
        if (fragment != NULL)
            out->args.len = (size_t) (fragment - out->args.ptr);
    }
    if (unlikely(out->complex) && rebuild(arena, out->uri, merge_slashes, &out->uri) != 0)
        return -1;
    out->exten = find_exten(out->uri);
    return 0;
}

int uri_check_unsafe(struct str uri)
{
    unsigned dots = 0;
    bool only_dots = true;

    if (uri.len == 0)
        return -1;
    for (size_t i = 0; i < uri.len && uri.ptr[i] != '?' && uri.ptr[i] != '#'; i++) {
        unsigned char c = (unsigned char) uri.ptr[i];
        int high, low;

        if (c == '%' && uri.len - i >= 3 &&
            (high = hex_value((unsigned char) uri.ptr[i + 1])) >= 0 &&
            (low = hex_value((unsigned char) uri.ptr[i + 2])) >= 0) {
            c = (unsigned char) (high << 4 | low);
            i += 2;
        }
        if (c == '\0')
            return -1;
        if (c == '/') {
            if (only_dots && dots == 2)
                return -1;
            only_dots = true;
            dots = 0;
        } else if (c == '.') {
            dots++;
        } else {
            only_dots = false;
        }
    }
    return only_dots && dots == 2 ? -1 : 0;
}
