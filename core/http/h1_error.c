/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each fault of an HTTP/1 message means to the client (a status) and to the log (nginx's
 * words, which people search for). Called by the drivers on both sides; decides nothing.
 */
#include "core/http/h1.h"

static const struct error_row {
    unsigned status;
    const char *text;
} rows[H1_ERRORS] = {
    [H1_OK] = { 200, "no error" },
    [H1_BAD_METHOD] = { 400, "client sent invalid method" },
    [H1_BAD_REQUEST_LINE] = { 400, "client sent invalid request" },
    [H1_BAD_URI] = { 400, "client sent invalid request" },
    [H1_BAD_VERSION] = { 400, "client sent invalid request" },
    [H1_VERSION_UNSUPPORTED] = { 505, "client sent invalid version" },
    [H1_LINE_TOO_LONG] = { 414, "client sent too long URI" },
    [H1_FIELD_TOO_LONG] = { 494, "client sent too long header line" },
    [H1_HEAD_TOO_LARGE] = { 494, "client sent too large request" },
    [H1_TOO_MANY_FIELDS] = { 400, "client sent too many header lines" },
    [H1_BAD_FIELD] = { 400, "client sent invalid header line" },
    [H1_DUPLICATE_HOST] = { 400, "client sent duplicate host header" },
    [H1_NO_HOST] = { 400, "client sent HTTP/1.1 request without \"Host\" header" },
    [H1_BAD_HOST] = { 400, "client sent invalid host header" },
    [H1_BAD_CONTENT_LENGTH] = { 400, "client sent invalid \"Content-Length\" header" },
    [H1_DUPLICATE_CONTENT_LENGTH] = { 400, "client sent duplicate header line" },
    [H1_BOTH_LENGTH_AND_ENCODING] = { 400, "client sent \"Content-Length\" and "
                                           "\"Transfer-Encoding\" headers at the same time" },
    [H1_UNKNOWN_TRANSFER_ENCODING] = { 501, "client sent unknown \"Transfer-Encoding\"" },
    [H1_ENCODING_IN_10] = { 400, "client sent HTTP/1.0 request with \"Transfer-Encoding\" header" },
    [H1_DUPLICATE_FIELD] = { 400, "client sent duplicate header line" },
    [H1_BAD_CHUNK] = { 400, "client sent invalid chunked body" },
    [H1_BAD_TRAILER] = { 400, "client sent invalid trailer line" },
    [H1_BAD_STATUS_LINE] = { 502, "no valid HTTP/1 status line" },
    [H1_TRACE] = { 405, "client sent TRACE method" },
    [H1_CONNECT] = { 405, "client sent CONNECT method" },
    [H1_BAD_09_METHOD] = { 400, "client sent invalid method in HTTP/0.9 request" },
};

unsigned h1_error_status(enum h1_error e)
{
    ASSERT((unsigned) e < H1_ERRORS);
    return rows[e].status;
}

const char *h1_error_text(enum h1_error e)
{
    ASSERT((unsigned) e < H1_ERRORS);
    return rows[e].text;
}
