/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bodies of HTTP/1 messages (RFC 9112, 6 and 7) out of bytes: by length, chunked, until close.
 * Content is handed on by reference; only trailers are copied. Nothing here remembers where bytes
 * lay, so input may be cut anywhere. What a sender can make long without sending content is
 * limited: chunk-size lines with their extensions, and trailers.
 */
#include "core/http/h1.h"

/* Of one line with a chunk's size and extensions, and of all trailer lines together. */
#define CHUNK_LINE_MAX 1024
#define TRAILERS_MAX 8192

enum chunk_state {
    CHUNK_SIZE,      /* at or in the digits */
    CHUNK_BLANK,     /* blanks behind the digits */
    CHUNK_EXTENSION, /* behind ';' */
    CHUNK_SIZE_LF,   /* CR seen */
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER,    /* in a trailer line */
    CHUNK_TRAILER_LF, /* CR seen */
    CHUNK_DONE,
};

void h1_body_init(struct h1_body *b, struct msg *m, bool response, bool head_request)
{
    memset(b, 0, sizeof(*b));
    b->msg = m;
    b->lenient = response;
    if (response && (head_request || m->status < 200 || m->status == 204 || m->status == 304)) {
        b->kind = H1_BODY_NONE;
    } else if (m->chunked) {
        b->kind = H1_BODY_CHUNKED;
    } else if (m->content_length >= 0) {
        b->kind = H1_BODY_LENGTH;
        b->left = (uint64_t) m->content_length;
    } else {
        b->kind = response ? H1_BODY_CLOSE : H1_BODY_NONE;
    }
}

void h1_body_free(struct h1_body *b)
{
    block_unref(b->carry);
    b->carry = NULL;
}

static enum h1_result body_fail(struct h1_body *b, enum h1_error error)
{
    b->error = error;
    return H1_ERROR;
}

/* Trailers ---------------------------------------------------------------------------------- */

/* Fields that mean something only in front of a body (RFC 9110, 6.5.1). */
static bool forbidden_trailer(enum token t)
{
    switch (t) {
    case T_AGE:
    case T_AUTHORIZATION:
    case T_CACHE_CONTROL:
    case T_CONNECTION:
    case T_CONTENT_DISPOSITION:
    case T_CONTENT_ENCODING:
    case T_CONTENT_LENGTH:
    case T_CONTENT_RANGE:
    case T_CONTENT_TYPE:
    case T_COOKIE:
    case T_DATE:
    case T_EXPECT:
    case T_EXPIRES:
    case T_HOST:
    case T_IF_MATCH:
    case T_IF_MODIFIED_SINCE:
    case T_IF_NONE_MATCH:
    case T_IF_RANGE:
    case T_IF_UNMODIFIED_SINCE:
    case T_KEEP_ALIVE:
    case T_LOCATION:
    case T_MAX_FORWARDS:
    case T_PRAGMA:
    case T_PROXY_AUTHENTICATE:
    case T_PROXY_AUTHORIZATION:
    case T_PROXY_CONNECTION:
    case T_RANGE:
    case T_RETRY_AFTER:
    case T_SET_COOKIE:
    case T_TE:
    case T_TRAILER:
    case T_TRANSFER_ENCODING:
    case T_UPGRADE:
    case T_VARY:
    case T_WWW_AUTHENTICATE: return true;
    default: return false;
    }
}

/* The complete line in carry, not empty. */
static enum h1_result trailer_line(struct h1_body *b)
{
    struct str line = str_from(b->carry->data, b->line);
    ssize_t colon = str_chr(line, ':');
    struct str name, value;
    uint32_t hash;

    if (colon <= 0)
        return body_fail(b, H1_BAD_TRAILER);
    name = str_from(line.ptr, (size_t) colon);
    value = str_trim(str_skip(line, (size_t) colon + 1));
    if (!is_token(name) || !is_field_value(value))
        return body_fail(b, H1_BAD_TRAILER);
    if (b->msg == NULL || forbidden_trailer(token_lookup(name, &hash)))
        return H1_MORE;
    fields_add(b->msg, &b->msg->trailers, str_dup(b->msg->arena, name),
               str_dup(b->msg->arena, value));
    return H1_MORE;
}

/* Takes one byte of the trailer section (RFC 9112, 7.1.2). */
static enum h1_result trailer_byte(struct h1_body *b, char c)
{
    if (b->state == CHUNK_TRAILER_LF) {
        enum h1_result result;

        if (c != '\n')
            return body_fail(b, H1_BAD_TRAILER);
        if (b->line == 0) {
            b->state = CHUNK_DONE;
            h1_body_free(b);
            return H1_DONE;
        }
        result = trailer_line(b);
        b->line = 0;
        b->state = CHUNK_TRAILER;
        return result;
    }
    if (c == '\r') {
        b->state = CHUNK_TRAILER_LF;
        return H1_MORE;
    }
    if (c == '\n' || c == '\0' || ++b->trailer_bytes > TRAILERS_MAX)
        return body_fail(b, H1_BAD_TRAILER);
    if (b->carry == NULL)
        b->carry = block_new(TRAILERS_MAX);
    b->carry->data[b->line++] = c;
    return H1_MORE;
}

/* Chunks ------------------------------------------------------------------------------------ */

static int hex_value(char c)
{
    unsigned char l = ascii_lower((unsigned char) c);

    if (l >= '0' && l <= '9')
        return l - '0';
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

/* A byte behind the digits of a chunk's size, up to its CR. */
static enum h1_result behind_size(struct h1_body *b, char c)
{
    bool blank = c == ' ' || c == '\t';

    if (c == '\r') {
        /* Blanks are there for an extension to follow; only old servers pad with them. */
        if (b->state == CHUNK_BLANK && !b->lenient)
            return body_fail(b, H1_BAD_CHUNK);
        b->state = CHUNK_SIZE_LF;
        return H1_MORE;
    }
    if (b->state == CHUNK_EXTENSION) {
        if (((unsigned char) c < 0x20 && c != '\t') || c == 0x7f)
            return body_fail(b, H1_BAD_CHUNK);
        return H1_MORE;
    }
    if (c == ';')
        b->state = CHUNK_EXTENSION;
    else if (blank)
        b->state = CHUNK_BLANK;
    else
        return body_fail(b, H1_BAD_CHUNK);
    return H1_MORE;
}

/* A byte of the line with a chunk's size (RFC 9112, 7.1). */
static enum h1_result size_byte(struct h1_body *b, char c)
{
    int digit;

    if (b->state == CHUNK_SIZE_LF) {
        if (c != '\n')
            return body_fail(b, H1_BAD_CHUNK);
        b->line = 0;
        b->state = b->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
        return H1_MORE;
    }
    if (++b->line > CHUNK_LINE_MAX)
        return body_fail(b, H1_BAD_CHUNK);
    if (b->state != CHUNK_SIZE)
        return behind_size(b, c);
    digit = hex_value(c);
    if (digit < 0)
        return b->line > 1 ? behind_size(b, c) : body_fail(b, H1_BAD_CHUNK);
    /* Sizes are kept below 2^63, so that sums of lengths stay representable. */
    if (b->left >> 59 != 0)
        return body_fail(b, H1_BAD_CHUNK);
    b->left = b->left << 4 | (uint64_t) digit;
    return H1_MORE;
}

/* One byte of framing, whatever the state but DATA. */
static enum h1_result framing_byte(struct h1_body *b, char c)
{
    switch ((enum chunk_state) b->state) {
    case CHUNK_SIZE:
    case CHUNK_BLANK:
    case CHUNK_EXTENSION:
    case CHUNK_SIZE_LF: return size_byte(b, c);
    case CHUNK_DATA_CR:
        if (c != '\r')
            return body_fail(b, H1_BAD_CHUNK);
        b->state = CHUNK_DATA_LF;
        return H1_MORE;
    case CHUNK_DATA_LF:
        if (c != '\n')
            return body_fail(b, H1_BAD_CHUNK);
        b->state = CHUNK_SIZE;
        return H1_MORE;
    case CHUNK_TRAILER:
    case CHUNK_TRAILER_LF: return trailer_byte(b, c);
    case CHUNK_DATA:
    case CHUNK_DONE: break;
    }
    ASSERT(!"a byte of framing where there is none");
    return H1_ERROR;
}

/* Content: as much of len as `left` and `room` allow. Returns how much. */
static size_t take_content(struct h1_body *b, struct block *block, const char *ptr, size_t len,
                           uint64_t room, struct chain *out)
{
    size_t n = len;

    if (b->kind != H1_BODY_CLOSE) {
        n = (size_t) MIN((uint64_t) n, b->left);
    }
    n = (size_t) MIN((uint64_t) n, room);
    if (out != NULL)
        chain_push_mem(out, block, ptr, n);
    if (b->kind != H1_BODY_CLOSE)
        b->left -= n;
    b->received += n;
    return n;
}

static enum h1_result decode_chunked(struct h1_body *b, struct block *block, const char *ptr,
                                     size_t len, uint64_t max_out, struct chain *out, size_t *used)
{
    size_t at = 0;
    enum h1_result result = b->state == CHUNK_DONE ? H1_DONE : H1_MORE;

    while (result == H1_MORE && at < len) {
        if (b->state == CHUNK_DATA) {
            size_t n = take_content(b, block, ptr + at, len - at, max_out, out);

            if (n == 0)
                break;
            at += n;
            max_out -= n;
            if (b->left == 0)
                b->state = CHUNK_DATA_CR;
        } else {
            result = framing_byte(b, ptr[at++]);
        }
    }
    *used = at;
    return result;
}

enum h1_result h1_body_decode(struct h1_body *b, struct block *block, const char *ptr, size_t len,
                              uint64_t max_out, struct chain *out, size_t *used)
{
    *used = 0;
    if (b->error != H1_OK)
        return H1_ERROR;
    switch (b->kind) {
    case H1_BODY_NONE: return H1_DONE;
    case H1_BODY_LENGTH:
        *used = take_content(b, block, ptr, len, max_out, out);
        return b->left == 0 ? H1_DONE : H1_MORE;
    case H1_BODY_CHUNKED: return decode_chunked(b, block, ptr, len, max_out, out, used);
    case H1_BODY_CLOSE: *used = take_content(b, block, ptr, len, max_out, out); return H1_MORE;
    }
    return H1_ERROR;
}
