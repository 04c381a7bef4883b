/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formatting without printf, for hot paths, and the textual forms that HTTP and the logs
 * share. All writers return the first byte behind what they wrote and add no NUL.
 */
#ifndef CORE_BASE_FMT_H
#define CORE_BASE_FMT_H

#include <time.h>

#include "core/base/str.h"

#define FMT_U64_MAX 20
#define FMT_HTTP_DATE 29 /* "Sun, 06 Nov 1994 08:49:37 GMT" */

char *fmt_u64(char *p, uint64_t n);
char *fmt_hex(char *p, uint64_t n);                     /* lower case, no leading zeros */
char *fmt_hex_bytes(char *p, const void *ptr, size_t len); /* two digits a byte */
static inline char *fmt_str(char *p, struct str s)
{
    if (s.len)
        memcpy(p, s.ptr, s.len);
    return p + s.len;
}
/* IMF-fixdate (RFC 9110, 5.6.7), FMT_HTTP_DATE bytes. */
char *fmt_http_date(char *p, time_t t);
/* Reads all three HTTP date forms (RFC 9110, 5.6.7). -1 if s is none of them. */
time_t fmt_parse_http_date(struct str s);

/* What an escape leaves alone. */
enum fmt_escape {
    /* A path: escapes space, % ? # " < > \ ^ ` { | }, controls and bytes >= 0x80. */
    FMT_ESCAPE_URI,
    FMT_ESCAPE_URI_COMPONENT, /* all but unreserved characters */
    FMT_ESCAPE_ARGS,          /* space, % & + # ; ?, controls, >= 0x80 */
    FMT_ESCAPE_HTML,          /* & < > " as entities */
};
/* Worst-case growth is 6 bytes a byte. */
char *fmt_escape(char *p, struct str s, enum fmt_escape how);
struct str fmt_escape_dup(struct arena *arena, struct str s, enum fmt_escape how);
/* Decodes %XX (a malformed one stays as it is); dst may be s.ptr itself. Returns the end. */
char *fmt_unescape(char *dst, struct str s);

/* Base64 (RFC 4648); `url` takes the URL-safe alphabet without padding. Decode: -1 if malformed. */
struct str fmt_base64(struct arena *arena, struct str s, bool url);
int fmt_base64_decode(struct arena *arena, struct str s, bool url, struct str *out);

#endif
