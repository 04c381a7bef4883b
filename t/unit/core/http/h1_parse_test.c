/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heads of HTTP/1 messages: what is taken, what is refused and how, what is derived; each input
 * whole, cut in two at every byte, and byte by byte, by every scanner. Last a benchmark, as a
 * remark.
 */
#include <time.h>

#include "t/unit/core/http/h1_feed.h"
#include "t/unit/tap.h"

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" H
#define POST "POST / HTTP/1.1\r\n" H
#define REPLY "HTTP/1.1 200 OK\r\n"
#define STRING(s) s, sizeof(s) - 1

static void (*configure)(struct h1_parser *p);
static bool role_response;

static void start(struct feed *f)
{
    feed_init(f, role_response);
    if (configure != NULL)
        configure(&f->parser);
}

/*
 * Feeds a up to `cut` and then the rest, in one piece or byte by byte; true if the report is the
 * expected one.
 */
static bool same(const char *input, size_t len, size_t cut, size_t step, const char *expected)
{
    struct feed f;
    bool equal;
    size_t at = cut;

    start(&f);
    if (feed_more(&f, input, cut) == H1_MORE) {
        while (at < len) {
            size_t n = MIN(step, len - at);

            if (feed_more(&f, input + at, n) != H1_MORE)
                break;
            at += n;
        }
    }
    equal = strcmp(feed_report(&f), expected) == 0;
    if (!equal)
        diag("cut at %zu, steps of %zu: %s\nwhole: %s", cut, step, feed_report(&f), expected);
    feed_free(&f);
    return equal;
}

/*
 * The error (or H1_OK) that the input ends in, -1 if it is not complete, -2 if cutting it changes
 * anything.
 */
static int outcome(const char *input, size_t len)
{
    struct feed f;
    bool all = true;
    int result;

    start(&f);
    feed_more(&f, input, len);
    for (size_t cut = 0; cut <= len && all; cut++)
        all = same(input, len, cut, len, feed_report(&f));
    all = all && same(input, len, 0, 1, feed_report(&f)) && same(input, len, 0, 7, feed_report(&f));
    result = !all ? -2 : f.result == H1_MORE ? -1 : (int) f.parser.error;
    feed_free(&f);
    return result;
}

struct row {
    const char *what;
    const char *input;
    size_t len;
    int error;
};
#define ROW(what, input, error)    \
    {                              \
        what, STRING(input), error \
    }

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        is_int(outcome(rows[i].input, rows[i].len), rows[i].error, "%s", rows[i].what);
}

static const struct row request_rows[] = {
    ROW("plain", GET "\r\n", H1_OK),
    ROW("bare LF", "GET / HTTP/1.1\nHost: a\n\n", H1_OK),
    ROW("empty lines in front", "\r\n\n\r\n" GET "\r\n", H1_OK),
    ROW("nothing", "", -1),
    ROW("only empty lines", "\r\n\r\n", -1),
    ROW("not complete", GET, -1),
    ROW("CR of the last line only", GET "\r", -1),
    ROW("a CR in front", "\rGET / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("lower case", "get / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("mixed case", "GeT / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("digits in the method", "GET2 / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("underscore and hyphen", "A_B-C / HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("method only", "GET\r\n", H1_BAD_METHOD),
    ROW("method and a blank", "GET \r\n", H1_BAD_REQUEST_LINE),
    ROW("a tab behind the method", "GET\t/ HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("leading blank", " GET / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("NUL in the method", "GE\0T / HTTP/1.1\r\n" H "\r\n", H1_BAD_METHOD),
    ROW("NUL in the method, no end of line", "GE\0T", H1_BAD_METHOD),
    ROW("TLS on a plain port", "\x16\x03\x01\x02\0\x01", H1_BAD_METHOD),
    ROW("lower case without an end of line waits", "get /", -1),
    ROW("several blanks", "GET   /   HTTP/1.1  \r\n" H "\r\n", H1_OK),
    ROW("blank in the target", "GET /a b HTTP/1.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("tab in the target", "GET /a\tb HTTP/1.1\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("CR in the target", "GET /a\rb HTTP/1.1\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("NUL in the target", "GET /a\0b HTTP/1.1\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("DEL in the target", "GET /a\x7f HTTP/1.1\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("vertical tab for a blank", "GET /\vHTTP/1.1\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("a control byte behind a wrong target", "GET foo\x01 HTTP/1.1\r\n" H "\r\n",
        H1_BAD_REQUEST_LINE),
    ROW("a control byte behind a wrong version", "GET / HTTP/9.1\x01\r\n" H "\r\n",
        H1_BAD_REQUEST_LINE),
    ROW("high bytes in the target", "GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("no slash", "GET foo HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("a backslash for a slash", "GET \\foo HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("asterisk", "GET * HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("asterisk for OPTIONS", "OPTIONS * HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("asterisk and more for OPTIONS", "OPTIONS *x HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute", "GET http://b/x HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("absolute, no path", "GET http://b HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("absolute, arguments at once", "GET http://b?x=y HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("absolute, other scheme", "GET ftp+x.1-2://b/ HTTP/1.1\r\n" H "\r\n", H1_OK),
    ROW("absolute, scheme begins with a digit", "GET 1http://b/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, no scheme", "GET ://b/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, one slash", "GET http:/b HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, no host", "GET http:///x HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, only a port", "GET http://:80/x HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, user info", "GET http://u@b/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, backslash in the host", "GET http://a\\@b/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, bad port", "GET http://b:99999/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, a fragment behind the host", "GET http://b#/x HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, an escape in the host", "GET http://b%00/ HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, cut", "GET http HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("absolute, but no Host", "GET http://b/ HTTP/1.1\r\n\r\n", H1_NO_HOST),
    ROW("absolute, but a bad Host", "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", H1_BAD_HOST),
    ROW("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", H1_OK),
    ROW("HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", H1_OK),
    ROW("HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", H1_VERSION_UNSUPPORTED),
    ROW("HTTP/9.9", "GET / HTTP/9.9\r\n" H "\r\n", H1_VERSION_UNSUPPORTED),
    ROW("HTTP/0.9 in words", "GET / HTTP/0.9\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/1", "GET / HTTP/1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/1.", "GET / HTTP/1.\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/1.x", "GET / HTTP/1.x\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/1.10", "GET / HTTP/1.10\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/01.1", "GET / HTTP/01.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/11.1", "GET / HTTP/11.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTP/1,1", "GET / HTTP/1,1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("http/1.1", "GET / http/1.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("HTTPS/1.1", "GET / HTTPS/1.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("a word behind the version", "GET / HTTP/1.1 x\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("two versions", "GET / HTTP/1.1 HTTP/1.1\r\n" H "\r\n", H1_BAD_VERSION),
    ROW("two CRs", "GET / HTTP/1.1\r\r\n" H "\r\n", H1_BAD_REQUEST_LINE),
    ROW("HTTP/0.9", "GET /x\r\n", H1_OK),
    ROW("HTTP/0.9, bare LF", "GET /x\n", H1_OK),
    ROW("HTTP/0.9, a blank behind", "GET /x \r\n", H1_OK),
    ROW("HTTP/0.9, POST", "POST /x\r\n", H1_BAD_09_METHOD),
    ROW("TRACE", "TRACE / HTTP/1.1\r\n" H "\r\n", H1_TRACE),
    ROW("CONNECT, a path", "CONNECT / HTTP/1.1\r\n" H "\r\n", H1_CONNECT),
    ROW("CONNECT", "CONNECT b:443 HTTP/1.1\r\n" H "\r\n", H1_CONNECT),
    ROW("CONNECT without a port", "CONNECT b HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("CONNECT, an address without a port", "CONNECT [::1] HTTP/1.1\r\n" H "\r\n", H1_BAD_URI),
    ROW("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H1_BAD_URI),
};

static const struct row field_rows[] = {
    ROW("no blank behind the colon", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", H1_OK),
    ROW("blanks and tabs around", "GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n", H1_OK),
    ROW("odd case", "GET / HTTP/1.1\r\nhOsT: a\r\n\r\n", H1_OK),
    ROW("empty value", GET "X:\r\n\r\n", H1_OK),
    ROW("blank value", GET "X:  \t \r\n\r\n", H1_OK),
    ROW("value of one blank and LF", GET "X: \n\n", H1_OK),
    ROW("colons in the value", GET "X: a:b::c\r\n\r\n", H1_OK),
    ROW("blank before the colon", GET "X : a\r\n\r\n", H1_BAD_FIELD),
    ROW("tab before the colon", GET "X\t: a\r\n\r\n", H1_BAD_FIELD),
    ROW("blank in the name", GET "X Y: a\r\n\r\n", H1_BAD_FIELD),
    ROW("blank before the colon of the length", POST "Content-Length : 3\r\n\r\n", H1_BAD_FIELD),
    ROW("blank before the colon of the encoding", POST "Transfer-Encoding : chunked\r\n\r\n",
        H1_BAD_FIELD),
    ROW("folded", GET "X: a\r\n b\r\n\r\n", H1_BAD_FIELD),
    ROW("folded with a tab", GET "X: a\r\n\tb\r\n\r\n", H1_BAD_FIELD),
    ROW("folded encoding", POST "Transfer-Encoding:\r\n chunked\r\n\r\n", H1_BAD_FIELD),
    ROW("a first line of blanks", "GET / HTTP/1.1\r\n " H "\r\n", H1_BAD_FIELD),
    ROW("a line of one blank", GET " \r\n\r\n", H1_BAD_FIELD),
    ROW("no colon", GET "foo\r\n\r\n", H1_BAD_FIELD),
    ROW("no name", GET ": foo\r\n\r\n", H1_BAD_FIELD),
    ROW("a colon alone", GET ":\r\n\r\n", H1_BAD_FIELD),
    ROW("NUL in the name", GET "X\0Y: a\r\n\r\n", H1_BAD_FIELD),
    ROW("control byte in the name", GET "Transfer-Encoding\x0b: chunked\r\n\r\n", H1_BAD_FIELD),
    ROW("CR in the name", GET "X\rY: a\r\n\r\n", H1_BAD_FIELD),
    ROW("DEL in the name", GET "X\x7f: a\r\n\r\n", H1_BAD_FIELD),
    ROW("NUL in the value", GET "X: a\0b\r\n\r\n", H1_BAD_FIELD),
    ROW("CR in the value", GET "X: a\rb\r\n\r\n", H1_BAD_FIELD),
    ROW("CR CR LF", GET "X: a\r\r\n\r\n", H1_BAD_FIELD),
    ROW("CR for a line end", GET "X: a\rTransfer-Encoding: chunked\r\n\r\n", H1_BAD_FIELD),
    ROW("CR CR LF at the end", GET "\r\r\n", H1_BAD_FIELD),
    ROW("CR and a letter at the end", GET "\rX\n", H1_BAD_FIELD),
    ROW("control bytes in the value", GET "X: a\x01\x1b\x7f\r\n\r\n", H1_OK),
    ROW("high bytes in the value", GET "X: \xe4\xff\r\n\r\n", H1_OK),
    ROW("a wrong field that never ends waits", GET "X : a", -1),
    /* Names that are skipped. */
    ROW("a dot", GET "X.Y: a\r\n\r\n", H1_OK),
    ROW("an underscore", GET "X_Y: a\r\n\r\n", H1_OK),
    ROW("a parenthesis", GET "X(Y: a\r\n\r\n", H1_OK),
    ROW("a high byte", GET "X\xe4: a\r\n\r\n", H1_OK),
    ROW("a quoted name", POST "\"Content-Length\": 3\r\n\r\n", H1_OK),
    ROW("a skipped name with NUL in its value", GET "X(Y: a\0b\r\n\r\n", H1_BAD_FIELD),
    ROW("a skipped name with CR in its value", GET "X.Y: a\rb\r\n\r\n", H1_BAD_FIELD),
    ROW("a skipped name and a blank", GET "X( : a\r\n\r\n", H1_BAD_FIELD),
    /* Host. */
    ROW("no Host", "GET / HTTP/1.1\r\n\r\n", H1_NO_HOST),
    ROW("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", H1_BAD_HOST),
    ROW("empty Host, 1.0", "GET / HTTP/1.0\r\nHost: \r\n\r\n", H1_BAD_HOST),
    ROW("the same Host twice", GET H "\r\n", H1_DUPLICATE_HOST),
    ROW("two Hosts", GET "Host: b\r\n\r\n", H1_DUPLICATE_HOST),
    ROW("two Hosts, 1.0", "GET / HTTP/1.0\r\n" H H "\r\n", H1_DUPLICATE_HOST),
    ROW("two Hosts behind an absolute target", "GET http://a/ HTTP/1.1\r\n" H H "\r\n",
        H1_DUPLICATE_HOST),
    ROW("user info in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", H1_BAD_HOST),
    ROW("a list in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", H1_BAD_HOST),
    ROW("NUL in Host", "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", H1_BAD_FIELD),
    /* Fields of which there may be one. */
    ROW("If-Match twice", GET "If-Match: a\r\nIf-Match: b\r\n\r\n", H1_DUPLICATE_FIELD),
    ROW("Authorization twice", GET "Authorization: a\r\nAuthorization: a\r\n\r\n",
        H1_DUPLICATE_FIELD),
    ROW("Expect twice", GET "Expect: a\r\nexpect: a\r\n\r\n", H1_DUPLICATE_FIELD),
    ROW("Cookie twice", GET "Cookie: a\r\nCookie: b\r\n\r\n", H1_OK),
    /* Lengths. */
    ROW("length", POST "Content-Length: 3\r\n\r\n", H1_OK),
    ROW("length with leading zeros", POST "Content-Length: 003\r\n\r\n", H1_OK),
    ROW("the longest length", POST "Content-Length: 9223372036854775807\r\n\r\n", H1_OK),
    ROW("one more", POST "Content-Length: 9223372036854775808\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("2^64 + 3", POST "Content-Length: 18446744073709551619\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("no length", POST "Content-Length:\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("plus", POST "Content-Length: +3\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("minus", POST "Content-Length: -3\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("hexadecimal", POST "Content-Length: 0x3\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("a blank between", POST "Content-Length: 3 3\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("a list of equal lengths", POST "Content-Length: 3, 3\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("vertical tab",
        POST "Content-Length: \x0b"
             "3\r\n\r\n",
        H1_BAD_CONTENT_LENGTH),
    ROW("equal lengths", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        H1_DUPLICATE_CONTENT_LENGTH),
    ROW("two lengths", POST "Content-Length: 3\r\ncontent-length: 4\r\n\r\n",
        H1_DUPLICATE_CONTENT_LENGTH),
    /* Encodings. */
    ROW("chunked", POST "Transfer-Encoding: chunked\r\n\r\n", H1_OK),
    ROW("chunked, odd case, blanks", POST "TRANSFER-ENCODING: \t CHUNKed \t\r\n\r\n", H1_OK),
    ROW("and a length", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        H1_BOTH_LENGTH_AND_ENCODING),
    ROW("a length and", POST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1_BOTH_LENGTH_AND_ENCODING),
    ROW("GET with both", GET "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1_BOTH_LENGTH_AND_ENCODING),
    ROW("identity", POST "Transfer-Encoding: identity\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("none", POST "Transfer-Encoding:\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n",
        H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("chunked, chunked", POST "Transfer-Encoding: chunked, chunked\r\n\r\n",
        H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("chunked,", POST "Transfer-Encoding: chunked,\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("quoted", POST "Transfer-Encoding: \"chunked\"\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("parameter", POST "Transfer-Encoding: chunked;q=1\r\n\r\n", H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("vertical tab in front",
        POST "Transfer-Encoding: \x0b"
             "chunked\r\n\r\n",
        H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1_DUPLICATE_FIELD),
    ROW("twice, one other", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        H1_DUPLICATE_FIELD),
    ROW("in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", H1_ENCODING_IN_10),
};

static const struct row response_rows[] = {
    ROW("plain", REPLY "\r\n", H1_OK),
    ROW("bare LF", "HTTP/1.1 200 OK\nX: y\n\n", H1_OK),
    ROW("no reason", "HTTP/1.1 200\r\n\r\n", H1_OK),
    ROW("an empty reason", "HTTP/1.1 200 \r\n\r\n", H1_OK),
    ROW("a reason with high bytes", "HTTP/1.1 404 Nicht da: \xe4\r\n\r\n", H1_OK),
    ROW("more blanks", "HTTP/1.1  200 OK\r\n\r\n", H1_OK),
    ROW("HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", H1_OK),
    ROW("HTTP/2", "HTTP/2 200 OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("an empty line in front", "\r\n" REPLY "\r\n", H1_BAD_STATUS_LINE),
    ROW("garbage without an end", "hello", H1_BAD_STATUS_LINE),
    ROW("the beginning of a status line", "HTT", -1),
    ROW("two digits", "HTTP/1.1 20 OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("four digits", "HTTP/1.1 2000 OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("status 099", "HTTP/1.1 099 OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("letters", "HTTP/1.1 2xx OK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("no status", "HTTP/1.1\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("NUL in the reason", "HTTP/1.1 200 O\0K\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", H1_BAD_STATUS_LINE),
    ROW("names of any token", REPLY "X_y.z!: a\r\n\r\n", H1_OK),
    ROW("a name that is no token", REPLY "X(y: a\r\n\r\n", H1_BAD_FIELD),
    ROW("folded", REPLY "X: a\r\n b\r\n\r\n", H1_BAD_FIELD),
    ROW("blank before the colon", REPLY "X : a\r\n\r\n", H1_BAD_FIELD),
    ROW("no colon", REPLY "foo\r\n\r\n", H1_BAD_FIELD),
    ROW("NUL", REPLY "X: a\0b\r\n\r\n", H1_BAD_FIELD),
    ROW("length and encoding", REPLY "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1_BOTH_LENGTH_AND_ENCODING),
    ROW("two lengths", REPLY "Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        H1_DUPLICATE_CONTENT_LENGTH),
    ROW("a bad length", REPLY "Content-Length: x\r\n\r\n", H1_BAD_CONTENT_LENGTH),
    ROW("an unknown encoding", REPLY "Transfer-Encoding: gzip, chunked\r\n\r\n",
        H1_UNKNOWN_TRANSFER_ENCODING),
    ROW("two encodings", REPLY "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        H1_DUPLICATE_FIELD),
    ROW("chunked by HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", H1_OK),
    ROW("fields that requests may have once", REPLY "Authorization: a\r\nAuthorization: b\r\n\r\n",
        H1_OK),
};

static void test_rows(void)
{
    static const char *names[] = { "portable", "SSE4.2", "AVX2" };

    for (unsigned k = SCAN_PORTABLE; k <= SCAN_AVX2; k++) {
        diag("scanner: %s, or what the processor has", names[k]);
        scan_use((enum scan_kind) k);
        role_response = false;
        check_rows(request_rows, ARRAY_LEN(request_rows));
        check_rows(field_rows, ARRAY_LEN(field_rows));
        role_response = true;
        check_rows(response_rows, ARRAY_LEN(response_rows));
    }
    role_response = false;
    scan_use(SCAN_BEST);
}

/* One head, whole; kept until the next call. */
static struct feed last;
static bool have_last;

static struct msg *parse(const char *input)
{
    if (have_last)
        feed_free(&last);
    have_last = true;
    start(&last);
    feed_more(&last, input, strlen(input));
    return &last.msg;
}

#define is_s(s, expected, ...)                                                 \
    do {                                                                       \
        struct str s_ = (s);                                                   \
        is_bytes(s_.ptr, s_.len, expected, sizeof(expected) - 1, __VA_ARGS__); \
    } while (0)

static void test_request_parts(void)
{
    struct msg *m = parse(
        "PUT /a?b#c HTTP/1.1\r\nHost: Ex.org:80 \r\nX-A:  v \t\r\nx-a: w\r\nExpect: 100-Continue\r\n"
        "Content-Length: 12\r\n\r\nrest");

    is_int(last.result, H1_DONE, "a request");
    is_s(m->line, "PUT /a?b#c HTTP/1.1", "its line");
    is_s(m->method_name, "PUT", "method");
    is_int(m->method, METHOD_PUT, "as a bit");
    is_s(m->target, "/a?b#c", "target");
    is_s(last.parser.path, "/a?b#c", "path");
    is_s(last.parser.host_value, "Ex.org:80", "host, as it came");
    is_uint(last.hosts, 1, "the callback saw it");
    is_uint(m->version, HTTP_11, "version");
    is_int(m->content_length, 12, "length");
    ok(m->expect_continue, "expects 100, odd case");
    ok(m->keep_alive && !m->chunked && !m->upgrade, "kept alive, not chunked, no upgrade");
    is_s(fields_find(&m->fields, STR("X-a"))->value, "v", "a value is trimmed");
    is_s(fields_next(&m->fields, fields_find(&m->fields, STR("X-a")))->value, "w",
         "the next of that name");
    is_uint(last.pending_len, 4, "what follows the head is not touched");

    m = parse("GET HTTPS://B.org:8443?x HTTP/1.1\r\nHost: a\r\n\r\n");
    is_s(last.parser.scheme, "HTTPS", "absolute: scheme");
    is_s(last.parser.host_value, "B.org:8443", "absolute: the target's authority, not Host");
    is_s(last.parser.path, "/?x", "absolute: a path is put in");
    is_uint(last.hosts, 1, "absolute: one callback");
    m = parse("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n");
    is_s(last.parser.path, "/", "absolute: no path");
    m = parse("GET http://[::1]:80/x HTTP/1.1\r\nHost: a\r\n\r\n");
    is_s(last.parser.host_value, "[::1]:80", "absolute: an address");
    m = parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    is_s(last.parser.path, "*", "OPTIONS *");
    m = parse("GET /\r\nHost: a\r\n\r\n");
    is_uint(m->version, HTTP_09, "HTTP/0.9");
    ok(!m->keep_alive, "is not kept alive");
    is_uint(last.pending_len, 11, "and is complete with its line");
    m = parse("FOO / HTTP/1.2\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    is_int(m->method, METHOD_UNKNOWN, "an unknown method");
    is_uint(m->version, HTTP_11, "a later minor version");
    ok(m->chunked && m->content_length == -1, "chunked");
    m = parse("garbage\r\n\r\n");
    is_s(m->line, "garbage", "a bad line is kept for the log");
    ok(last.parser.bad.ptr == NULL, "and is not shown twice");
    parse(GET "Content-Length: 1\r\nContent-Length: 2\r\n\r\n");
    is_s(last.parser.bad, "Content-Length: 2", "the offending line is named");
    parse(GET "Transfer-Encoding: foo\r\n\r\n");
    is_s(last.parser.bad, "foo", "the unknown encoding is named");
    parse("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    ok(last.parser.bad.ptr == NULL, "a bad host is not named, for it stands in the line's suffix");
    is_s(fields_value(&last.msg.fields, T_HOST), "a b", "from this field");
    is_uint(last.hosts, 0, "and no callback sees it");
}

static void test_connection(void)
{
    ok(!parse(GET "Connection: close\r\n\r\n")->keep_alive, "close");
    ok(!parse(GET "Connection: foo, \tCLOSE ,bar\r\n\r\n")->keep_alive,
       "close in a list, odd case");
    ok(!parse(GET "Connection: keep-alive\r\nConnection: close\r\n\r\n")->keep_alive, "close wins");
    ok(parse(GET "Connection: closed\r\n\r\n")->keep_alive, "another word");
    ok(!parse("GET / HTTP/1.0\r\n\r\n")->keep_alive, "HTTP/1.0");
    ok(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")->keep_alive,
       "HTTP/1.0 with keep-alive");
    ok(parse(GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")->upgrade, "upgrade");
    ok(!parse(GET "Connection: upgrade\r\n\r\n")->upgrade, "upgrade to nothing");
    ok(!parse(GET "Upgrade: websocket\r\n\r\n")->upgrade, "upgrade not named in Connection");
    ok(!parse("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")->upgrade,
       "upgrade in HTTP/1.0");
    ok(!parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")->expect_continue,
       "expect in HTTP/1.0");
    ok(!parse(GET "Expect: other\r\n\r\n")->expect_continue, "another expectation");
}

static void test_response_parts(void)
{
    struct msg *m;

    role_response = true;
    m = parse("HTTP/1.0 404 Not  There\r\nContent-Length: 5\r\n\r\n");
    is_uint(m->status, 404, "status");
    is_s(m->reason, "Not  There", "reason as received");
    is_uint(m->version, HTTP_10, "version");
    ok(!m->keep_alive, "HTTP/1.0 closes");
    m = parse("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n");
    ok(m->reason.ptr != NULL && m->reason.len == 0, "no reason is not the standard one");
    ok(m->keep_alive && m->content_length == 5, "kept alive with a length");
    ok(!parse(REPLY "\r\n")->keep_alive, "a body until close");
    ok(parse(REPLY "Transfer-Encoding: chunked\r\n\r\n")->keep_alive, "kept alive when chunked");
    ok(!parse("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n")
            ->keep_alive,
       "not when HTTP/1.0 says chunked");
    ok(parse("HTTP/1.1 304 x\r\n\r\n")->keep_alive, "304 has no body");
    m = parse("HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n");
    ok(m->keep_alive && m->content_length == 7, "304 tells a length");
    m = parse("HTTP/1.1 204 x\r\nContent-Length: 7\r\n\r\n");
    ok(!m->keep_alive && m->content_length == -1, "204 with a length is not trusted");
    m = parse("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    ok(m->status == 101 && m->upgrade, "101");
    role_response = false;
}

static void head_answer(struct h1_parser *p)
{
    p->head_request = true;
}
static void names_off(struct h1_parser *p)
{
    p->ignore_invalid = false;
}
static void underscores(struct h1_parser *p)
{
    p->underscores = true;
}
static void tight(struct h1_parser *p)
{
    p->line_max = 20;
    p->field_max = 20;
    p->fields_max = 3;
}
static void connect_on(struct h1_parser *p)
{
    p->allow_connect = p->allow_trace = true;
}

static void refuse_host(struct h1_parser *p, struct str host)
{
    if (str_eq(host, STR("bad"))) {
        p->error = H1_BAD_HOST;
        p->bad = host;
    } else {
        p->underscores = true;
    }
}
static void host_hook(struct h1_parser *p)
{
    p->host = refuse_host;
}

static void test_settings(void)
{
    configure = names_off;
    is_int(outcome(STRING(GET "X.Y_z: a\r\n\r\n")), H1_OK,
           "ignore_invalid off: any token is taken");
    ok(fields_find(&parse(GET "X.Y_z: a\r\n\r\n")->fields, STR("x.y_Z")) != NULL, "and kept");
    is_int(outcome(STRING(GET "X(Y: a\r\n\r\n")), H1_BAD_FIELD, "but nothing else");
    configure = underscores;
    ok(fields_find(&parse(GET "X_Y: a\r\n\r\n")->fields, STR("x_y")) != NULL, "underscores on");
    configure = NULL;
    ok(fields_find(&parse(GET "X_Y: a\r\n\r\n")->fields, STR("x_y")) == NULL, "underscores off");
    is_uint(last.skipped, 1, "the skipped line is told");
    configure = tight;
    is_int(outcome(STRING("GET /567890 HTTP/1.1\r\n" H "\r\n")), H1_OK, "a line of line_max bytes");
    is_int(outcome(STRING("GET /5678901 HTTP/1.1\r\n" H "\r\n")), H1_LINE_TOO_LONG, "one more");
    is_int(outcome(STRING("GET /5678901234567890")), -1,
           "one more, but its last byte could yet be CR");
    is_int(outcome(STRING("GET /56789012345678901")), H1_LINE_TOO_LONG, "too long before its end");
    is_int(outcome(STRING("GET /567890 HTTP/1.1\r\nHost: 78901234567890\r\n\r\n")), H1_OK,
           "a field of field_max bytes");
    is_int(outcome(STRING("GET /567890 HTTP/1.1\r\nHost: 789012345678901\r\n\r\n")),
           H1_FIELD_TOO_LONG, "one more");
    is_int(outcome(STRING("GET / HTTP/1.1\r\nX : 78901234567890123\r\n\r\n")), H1_FIELD_TOO_LONG,
           "too long comes before wrong");
    is_int(outcome(STRING("GET / HTTP/1.1\r\n" H "A: b\r\nX.Y: c\r\n\r\n")), H1_OK,
           "fields_max lines");
    is_int(outcome(STRING("GET / HTTP/1.1\r\n" H "A: b\r\nX.Y: c\r\nD: e\r\n\r\n")),
           H1_TOO_MANY_FIELDS, "one more, skipped ones count");
    is_int(outcome(STRING("GET /5678901234\x01 HTTP/1.1\r\n\r\n")), H1_BAD_REQUEST_LINE,
           "a control byte in a too long line");
    is_int(outcome(STRING("GET /567890123456789012345\x01 HTTP/1.1\r\n\r\n")), H1_LINE_TOO_LONG,
           "behind the limit");
    configure = connect_on;
    is_int(outcome(STRING("CONNECT /b HTTP/1.1\r\n" H "\r\n")), H1_BAD_URI,
           "CONNECT allowed: not to a path");
    is_int(outcome(STRING("CONNECT b:443 HTTP/1.1\r\n" H "\r\n")), H1_OK, "CONNECT allowed");
    parse("CONNECT b:443 HTTP/1.1\r\n" H "\r\n");
    is_s(last.parser.host_value, "b:443", "its authority");
    is_int(outcome(STRING("TRACE / HTTP/1.1\r\n" H "\r\n")), H1_OK, "TRACE allowed");
    configure = host_hook;
    is_int(outcome(STRING("GET / HTTP/1.1\r\nHost: bad\r\nX : y\r\n\r\n")), H1_BAD_HOST,
           "the callback refuses");
    is_int(outcome(STRING("GET http://bad/ HTTP/1.1\r\n" H "\r\n")), H1_BAD_HOST,
           "an absolute target too");
    ok(fields_find(&parse("GET / HTTP/1.1\r\nA_B: c\r\nHost: b\r\nA_B: d\r\n\r\n")->fields,
                   STR("A_B")) != NULL,
       "the callback changes the rules");
    is_s(fields_find(&last.msg.fields, STR("A_B"))->value, "d", "for the lines behind Host");
    configure = head_answer;
    role_response = true;
    ok(parse(REPLY "\r\n")->keep_alive, "an answer to HEAD without a length is complete");
    role_response = false;
    configure = NULL;
}

static void test_many_fields(void)
{
    size_t cap = 70000 * 6 + 100, n = 0;
    char *text = malloc(cap);
    struct feed f;

    n += (size_t) snprintf(text, cap, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 0; i < 70000; i++)
        n += (size_t) snprintf(text + n, cap - n, "A:b\r\n");
    n += (size_t) snprintf(text + n, cap - n, "\r\n");
    feed_init(&f, false);
    f.parser.fields_max = UINT32_MAX;
    feed_more(&f, text, n);
    is_int(f.parser.error, H1_TOO_MANY_FIELDS,
           "more fields than a msg can hold are an error, whatever the limit");
    feed_free(&f);
    free(text);
}

static void test_errors(void)
{
    for (unsigned e = H1_OK + 1; e < H1_ERRORS; e++) {
        unsigned status = h1_error_status((enum h1_error) e);

        if (!(status >= 400 && status < 600) || h1_error_text((enum h1_error) e) == NULL)
            ok(false, "error %u has a status and a text", e);
    }
    is_uint(h1_error_status(H1_UNKNOWN_TRANSFER_ENCODING), 501, "an unknown encoding");
    is_uint(h1_error_status(H1_LINE_TOO_LONG), 414, "a long line");
    is_uint(h1_error_status(H1_FIELD_TOO_LONG), 494, "a long field");
    is_uint(h1_error_status(H1_VERSION_UNSUPPORTED), 505, "a version");
    is_uint(h1_error_status(H1_TRACE), 405, "TRACE");
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

static void benchmark(void)
{
    static const char head[] =
        "GET /assets/app.9f8e7d6c.js?v=12 HTTP/1.1\r\n"
        "Host: www.example.org\r\n"
        "Connection: keep-alive\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
        "Accept-Encoding: gzip, deflate, br\r\n"
        "Accept-Language: en-US,en;q=0.9\r\n"
        "Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";
    static const char *names[] = { "portable", "SSE4.2", "AVX2" };
    enum { ROUNDS = 100000 };

    for (unsigned k = SCAN_PORTABLE; k <= SCAN_AVX2; k++) {
        double best = 1e18;

        scan_use((enum scan_kind) k);
        for (unsigned round = 0; round < 3; round++) {
            double begin = now_ns();

            for (unsigned i = 0; i < ROUNDS / 3; i++) {
                struct arena *arena = arena_new();
                struct h1_parser p;
                struct msg m;
                size_t used;

                msg_init(&m, arena, 24);
                h1_parser_init(&p, &m, false);
                if (h1_parse(&p, head, sizeof(head) - 1, &used) != H1_DONE)
                    abort();
                arena_destroy(arena);
            }
            best = MIN(best, (now_ns() - begin) / (ROUNDS / 3));
        }
        diag("%s: %.0f ns for a head of %zu bytes, arena included", names[k], best,
             sizeof(head) - 1);
    }
    scan_use(SCAN_BEST);
}

int main(void)
{
    test_rows();
    test_request_parts();
    test_connection();
    test_response_parts();
    test_settings();
    test_many_fields();
    test_errors();
    benchmark();
    if (have_last)
        feed_free(&last);
    arena_trim();
    return done_testing();
}
