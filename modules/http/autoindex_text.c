/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a directory listing says, byte for byte as nginx writes it: people parse these pages. Names
 * come from the disk, of whose making they are nobody knows: each form escapes them.
 */
#include "modules/http/autoindex.h"

#include "core/base/clock.h"
#include "core/base/fmt.h"

#define COLUMNS 50 /* of a name in a page */
#define NAME_BYTES (255 * 6 + 64)

static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

/* Writes s escaped; names are short, but a URI need not be. */
static void put_html(struct chain *out, struct str s)
{
    char buf[NAME_BYTES];

    while (s.len > 0) {
        size_t n = MIN(s.len, sizeof(buf) / 6);

        chain_write(out, buf,
                    (size_t) (fmt_escape(buf, str_from(s.ptr, n), FMT_ESCAPE_HTML) - buf));
        s = str_skip(s, n);
    }
}

static void put_json(struct chain *out, struct str s)
{
    char buf[NAME_BYTES], *p = buf;

    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char) s.ptr[i];
        static const char letters[] = "btnvfr"; /* 8 … 13; \v has none in JSON */

        if (p > buf + sizeof(buf) - 8) {
            chain_write(out, buf, (size_t) (p - buf));
            p = buf;
        }
        if (c == '"' || c == '\\') {
            *p++ = '\\';
            *p++ = (char) c;
        } else if (c >= 8 && c <= 13 && c != 11) {
            *p++ = '\\';
            *p++ = letters[c - 8];
        } else if (c < 0x20) {
            p = fmt_str(p, STR("\\u00"));
            *p++ = (char) ('0' + (c >> 4));
            *p++ = "0123456789ABCDEF"[c & 15];
        } else {
            *p++ = (char) c;
        }
    }
    chain_write(out, buf, (size_t) (p - buf));
}

/* The bytes of the UTF-8 character at s (RFC 3629), 0 if there is none. */
static size_t character(struct str s)
{
    const unsigned char *p = (const unsigned char *) s.ptr;
    size_t n;

    if (p[0] < 0x80)
        return 1;
    n = p[0] >= 0xc2 && p[0] < 0xe0   ? 2
        : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
        : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                      : 0;
    if (n == 0 || n > s.len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

/*
 * Bytes of the first `columns` characters; *width: how many there are. A name that is not UTF-8 is
 * counted in bytes.
 */
static size_t measure(struct str name, bool utf8, size_t columns, size_t *width)
{
    size_t i = 0, cut = 0;

    *width = 0;
    if (utf8) {
        while (i < name.len) {
            size_t n = character(str_skip(name, i));

            if (n == 0)
                break;
            if (*width < columns)
                cut = i + n;
            i += n;
            ++*width;
        }
    }
    if (utf8 && i == name.len)
        return cut;
    *width = name.len;
    return MIN(name.len, columns);
}

/*
 * HTML -------------------------------------------------------------------------------------------
 */

static void put_size(struct chain *out, const struct autoindex_list *list,
                     const struct autoindex_entry *e)
{
    static const struct {
        uint64_t from, unit;
        char letter;
    } scales[] = {
        { (1u << 30) - 1, 1u << 30, 'G' },
        { (1u << 20) - 1, 1u << 20, 'M' },
        { 9999, 1u << 10, 'K' },
    };

    if (list->exact_size) {
        if (e->kind == ENTRY_DIRECTORY)
            chain_printf(out, "%19s", "-");
        else
            chain_printf(out, "%19llu", (unsigned long long) e->size);
        return;
    }
    if (e->kind == ENTRY_DIRECTORY) {
        chain_printf(out, "%7s", "-");
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(scales); i++) {
        if (e->size > scales[i].from) {
            uint64_t n = e->size / scales[i].unit;

            if (e->size % scales[i].unit > scales[i].unit / 2 - 1)
                n++;
            chain_printf(out, "%6llu%c", (unsigned long long) n, scales[i].letter);
            return;
        }
    }
    chain_printf(out, " %6llu", (unsigned long long) e->size);
}

static void put_html_entry(struct chain *out, const struct autoindex_list *list,
                           const struct autoindex_entry *e)
{
    bool dir = e->kind == ENTRY_DIRECTORY;
    char href[255 * 3 + 1];
    size_t width, cut;
    struct tm tm;

    chain_write(out, "<a href=\"", 9);
    for (struct str rest = e->name; rest.len > 0;) {
        size_t n = MIN(rest.len, sizeof(href) / 3);

        chain_write(
            out, href,
            (size_t) (fmt_escape(href, str_from(rest.ptr, n), FMT_ESCAPE_URI_COMPONENT) - href));
        rest = str_skip(rest, n);
    }
    chain_write(out, "/\">", dir ? 3 : 0);
    if (!dir)
        chain_write(out, "\">", 2);
    cut = measure(e->name, list->utf8, COLUMNS - 3, &width);
    if (width > COLUMNS) {
        put_html(out, str_from(e->name.ptr, cut));
        chain_write(out, "..&gt;</a>", 10);
        width = COLUMNS;
    } else {
        put_html(out, e->name);
        if (dir && width < COLUMNS) {
            chain_write(out, "/", 1);
            width++;
        }
        chain_write(out, "</a>", 4);
    }
    if (list->localtime)
        localtime_r(&e->mtime, &tm);
    else
        gmtime_r(&e->mtime, &tm);
    chain_printf(out, "%*s %02d-%s-%d %02d:%02d ", (int) (COLUMNS - width), "", tm.tm_mday,
                 months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min);
    put_size(out, list, e);
    chain_write(out, "\r\n", 2);
}

/*
 * XML and JSON -----------------------------------------------------------------------------------
 */

static void put_xml_entry(struct chain *out, const struct autoindex_entry *e)
{
    static const char *const names[] = { "directory", "file", "other" };
    struct tm tm;

    gmtime_r(&e->mtime, &tm);
    chain_printf(out, "<%s mtime=\"%04d-%02d-%02dT%02d:%02d:%02dZ\"", names[e->kind],
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    if (e->kind == ENTRY_FILE)
        chain_printf(out, " size=\"%llu\"", (unsigned long long) e->size);
    chain_write(out, ">", 1);
    put_html(out, e->name);
    chain_printf(out, "</%s>\r\n", names[e->kind]);
}

static void put_json_entry(struct chain *out, const struct autoindex_entry *e, bool first)
{
    static const char *const names[] = { "directory", "file", "other" };
    char date[FMT_HTTP_DATE];

    chain_printf(out, "%s\r\n{ \"name\":\"", first ? "" : ",");
    put_json(out, e->name);
    fmt_http_date(date, e->mtime);
    chain_printf(out, "\", \"type\":\"%s\", \"mtime\":\"%.*s\"", names[e->kind], FMT_HTTP_DATE,
                 date);
    if (e->kind == ENTRY_FILE)
        chain_printf(out, ", \"size\":%llu", (unsigned long long) e->size);
    chain_write(out, " }", 2);
}

/*
 * The whole --------------------------------------------------------------------------------------
 */

static void put_start(struct chain *out, const struct autoindex_list *list)
{
    switch (list->format) {
    case AUTOINDEX_HTML:
        chain_printf(out, "<html>\r\n<head><title>Index of ");
        put_html(out, list->uri);
        chain_printf(out, "</title></head>\r\n<body>\r\n<h1>Index of ");
        put_html(out, list->uri);
        chain_printf(out, "</h1><hr><pre><a href=\"../\">../</a>\r\n");
        break;
    case AUTOINDEX_XML: chain_printf(out, "<?xml version=\"1.0\"?>\r\n<list>\r\n"); break;
    case AUTOINDEX_JSONP:
        chain_printf(out, "/* callback */\r\n");
        chain_write(out, list->callback.ptr, list->callback.len);
        chain_write(out, "(", 1);
        __attribute__((fallthrough));
    case AUTOINDEX_JSON: chain_write(out, "[", 1); break;
    }
}

static void put_end(struct chain *out, const struct autoindex_list *list)
{
    switch (list->format) {
    case AUTOINDEX_HTML: chain_printf(out, "</pre><hr></body>\r\n</html>\r\n"); break;
    case AUTOINDEX_XML: chain_printf(out, "</list>\r\n"); break;
    case AUTOINDEX_JSON: chain_printf(out, "\r\n]"); break;
    case AUTOINDEX_JSONP: chain_printf(out, "\r\n]);"); break;
    }
}

bool autoindex_text(struct autoindex_list *list, struct chain *out, size_t size)
{
    if (!list->begun) {
        list->begun = true;
        put_start(out, list);
    }
    while (list->next < list->count) {
        const struct autoindex_entry *e = &list->items[list->next];

        if (out->bytes >= size)
            return false;
        if (list->format == AUTOINDEX_HTML)
            put_html_entry(out, list, e);
        else if (list->format == AUTOINDEX_XML)
            put_xml_entry(out, e);
        else
            put_json_entry(out, e, list->next == 0);
        list->next++;
    }
    put_end(out, list);
    return true;
}
