/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * HTTP/1 (RFC 9112) as a codec without I/O: bytes to {head, body, trailers} and back, for both
 * roles. It is fed contiguous bytes that lie in blocks and refers to them (the caller keeps the
 * blocks for as long as the msg lives). Everything that RFC 9112 makes ambiguous or invalid is
 * refused here: Transfer-Encoding with Content-Length, conflicting lengths, malformed chunks, bad
 * Host …; lenient where nginx is lenient without harm: leading empty lines, bare LF ends of lines
 * in heads.
 */
#ifndef CORE_HTTP_H1_H
#define CORE_HTTP_H1_H

#include "core/base/chain.h"
#include "core/http/msg.h"

enum h1_result { H1_MORE, H1_DONE, H1_ERROR };

/* What is wrong with a message. Each has a status for clients and a sentence for the log. */
enum h1_error {
    H1_OK,
    H1_BAD_METHOD, H1_BAD_REQUEST_LINE, H1_BAD_URI, H1_BAD_VERSION, H1_VERSION_UNSUPPORTED,
    H1_LINE_TOO_LONG, H1_FIELD_TOO_LONG, H1_HEAD_TOO_LARGE, H1_TOO_MANY_FIELDS,
    H1_BAD_FIELD, H1_DUPLICATE_HOST, H1_NO_HOST, H1_BAD_HOST, H1_BAD_CONTENT_LENGTH,
    H1_DUPLICATE_CONTENT_LENGTH, H1_BOTH_LENGTH_AND_ENCODING,
    H1_UNKNOWN_TRANSFER_ENCODING, H1_ENCODING_IN_10, H1_DUPLICATE_FIELD, H1_BAD_CHUNK, H1_BAD_TRAILER,
    H1_BAD_STATUS_LINE, H1_TRACE, H1_CONNECT, H1_BAD_09_METHOD,
    H1_ERRORS
};
unsigned h1_error_status(enum h1_error e);      /* 400, 405, 414, 494, 501, 505 */
const char *h1_error_text(enum h1_error e);     /* as nginx words it: "client sent invalid method" */

struct h1_parser {
    /* limits and leniency; may be changed by `host` in the midst of a head */
    size_t line_max;        /* bytes of the start line */
    size_t field_max;       /* bytes of one field line */
    unsigned fields_max;
    /*
     * nginx's ignore_invalid_headers. On: field lines whose name holds more than letters, digits
     * and hyphens are skipped. Off: names that are tokens (RFC 9110, 5.6.2) are taken, others
     * refused. What could smuggle (no name, blanks or controls in it, folded lines) is refused
     * either way.
     */
    bool ignore_invalid;
    bool underscores;       /* "_" is valid in names (requests; responses may use any token) */
    bool response;          /* role: parse a response head */
    bool allow_connect, allow_trace; /* these methods are handed on instead of refused */
    bool head_request;      /* the response answers a HEAD: no body whatever its fields say */
    /* Called right behind a valid Host field or an absolute-form target (requests). */
    void (*host)(struct h1_parser *p, struct str host);
    /* Called for a field line that is skipped as invalid; for the log. */
    void (*invalid)(struct h1_parser *p, struct str line);
    void *data;
    /* state */
    struct msg *msg;
    unsigned char state;
    bool absolute_target;   /* target was absolute-form; host holds its authority */
    struct str host_value;  /* authority of an absolute target, else Host; as received */
    struct str scheme, path; /* of the target: path begins at '/', incl. query; "*" for OPTIONS * */
    size_t scanned;         /* bytes behind the last complete line already searched for LF */
    unsigned lines;         /* field lines so far, skipped ones included */
    enum h1_error error;
    struct str bad;         /* the offending line or value, for the log */
};

void h1_parser_init(struct h1_parser *p, struct msg *m, bool response);
/*
 * Parses complete lines from ptr. *used: bytes consumed (whole lines only); call again with the
 * rest plus more data: the incomplete line may have been moved elsewhere meanwhile. H1_DONE: the
 * head is complete, the msg's framing is set, *used points behind it. Requests: empty lines in
 * front are skipped. HTTP/0.9 requests are complete with their line (msg.version HTTP_09).
 */
enum h1_result h1_parse(struct h1_parser *p, const char *ptr, size_t len, size_t *used);
/*
 * True if `have` bytes of an incomplete line are more than any acceptable line has. Sets error.
 * h1_parse asks this itself whenever it returns; callers need not.
 */
bool h1_line_too_long(struct h1_parser *p, size_t have);

/*
 * A validated host: lower case, without port and final dot, brackets kept. -1: malformed (RFC 3986
 * 3.2.2, no control, no '/', no NUL, no ".."). *port 0 when absent. out may point into host.
 */
int h1_host_normalize(struct arena *arena, struct str host, struct str *out, unsigned *port);
bool h1_host_valid(struct str host);

/*
 * A request path as nginx normalises it: percent-decoding, "." and ".." resolved, repeated slashes
 * merged if asked; splits off "?args" and "#fragment" (dropped). uri is in the arena (or in target
 * if nothing had to change), args and exten are views. -1: malformed (bad escape, NUL, above the
 * root).
 */
struct uri_parts {
    struct str uri, args, exten;
    bool complex;  /* anything was decoded or resolved */
    bool has_args; /* a '?' was there, even with nothing behind */
};
int uri_normalize(struct arena *arena, struct str target, bool merge_slashes, struct uri_parts *out);
/*
 * For URIs that an internal redirect takes from outside (X-Accel-Redirect and the like): -1 if any
 * segment of the path is "..", plain or escaped, or there is a NUL: nginx refuses these rather than
 * resolve them.
 */
int uri_check_unsafe(struct str uri);

/*
 * A body being decoded. Chunked framing is taken strictly: CRLF only, lines and trailers limited,
 * no blanks where there need not be any (responses may pad a chunk's size, as old servers do).
 * Trailers are copied to the msg's arena; those that RFC 9110, 6.5.1, does not allow (framing,
 * routing, authentication …) are dropped.
 */
enum h1_body_kind { H1_BODY_NONE, H1_BODY_LENGTH, H1_BODY_CHUNKED, H1_BODY_CLOSE };
struct h1_body {
    enum h1_body_kind kind;
    uint64_t left;          /* of the body (LENGTH) or the current chunk */
    unsigned char state;
    bool lenient;           /* private: a response */
    unsigned line;          /* bytes in the current chunk-size or trailer line, limited */
    unsigned trailer_bytes; /* of all trailers, limited */
    struct msg *msg;        /* where trailers go; NULL: dropped */
    struct block *carry;    /* private: the trailer line under way */
    enum h1_error error;
    uint64_t received;      /* bytes of content decoded so far */
};
/* From the framing of a complete head (RFC 9112 6.3). */
void h1_body_init(struct h1_body *b, struct msg *m, bool response, bool head_request);
/*
 * Decodes len bytes at ptr inside block: content slices are appended to out by reference (out NULL:
 * discarded). *used says how far it got; less than len only with H1_DONE (what follows is the next
 * message) or when max_out content bytes were produced (then H1_MORE).
 */
enum h1_result h1_body_decode(struct h1_body *b, struct block *block, const char *ptr, size_t len,
                              uint64_t max_out, struct chain *out, size_t *used);
void h1_body_free(struct h1_body *b);

/*
 * Writers. Responses in nginx's order: status line, Server, Date, Content-Type, Content-Length,
 * Last-Modified, Location, Transfer-Encoding, Connection, Keep-Alive, Vary, then the rest in
 * insertion order.
 */
struct h1_response {
    const struct msg *msg;
    struct str server;        /* empty: no Server field (unless msg has one) */
    struct str date;          /* empty: none */
    bool chunked;             /* send Transfer-Encoding: chunked */
    bool keep_alive;          /* Connection: keep-alive | close */
    bool upgrade;             /* Connection: upgrade (101) */
    bool connection_field;    /* write a Connection field at all (not for 1xx) */
    uint64_t keep_alive_s;    /* Keep-Alive: timeout=N; 0: none */
};
size_t h1_response_size(const struct h1_response *r);               /* upper bound, bytes */
char *h1_write_response(const struct h1_response *r, char *p);      /* returns the end */
/* Chunk framing around a body piece. */
#define H1_CHUNK_HEAD_MAX 20
char *h1_write_chunk_head(char *p, uint64_t size);
/* "0\r\n" trailers "\r\n"; appended to out. */
void h1_write_last_chunk(const struct fields *trailers, struct chain *out);

/*
 * Scanning with SIMD (SSE4.2/AVX2 chosen at run time, portable fallback): first byte that is not
 * allowed in the class, or len. Exposed for tests.
 */
enum scan_class { SCAN_TOKEN, SCAN_FIELD_VALUE, SCAN_URI };
size_t scan_span(enum scan_class c, const char *ptr, size_t len);
void scan_force_portable(bool on);
/* The best that the processor has, but no better than `kind`. For tests. */
enum scan_kind { SCAN_PORTABLE, SCAN_SSE42, SCAN_AVX2, SCAN_BEST = SCAN_AVX2 };
void scan_use(enum scan_kind kind);

#endif
