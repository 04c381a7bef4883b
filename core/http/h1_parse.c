/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Heads of HTTP/1 messages (RFC 9112, 2 to 6) out of bytes, for both roles. Each field line is read
 * in one pass: the name and its class, then the value, both by SIMD up to their ends; only lines
 * that fail there are looked at again, to say what is wrong. The outcome depends on the bytes
 * alone, never on how they were cut: a line is judged when it is complete, save control bytes in a
 * start line and lines that are too long, which are refused at the byte that makes them so.
 */
#include "core/http/h1.h"

#include "core/base/hash.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state { STATE_START, STATE_FIELDS, STATE_DONE };

#define LINE_MAX_DEFAULT 8192
#define FIELDS_MAX_DEFAULT 1000
#define BAD_SHOWN 128 /* bytes of a too long line that go to the log */

/* clang-format off */
/* 1: letters, digits, hyphen; 2: underscore; 4: the other signs of tokens (RFC 9110, 5.6.2); 0: none. */
enum { CLASS_PLAIN = 1, CLASS_UNDERSCORE = 2, CLASS_OTHER = 4 };
static const unsigned char name_class[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 4, 0, 4, 4, 4, 4, 4, 0, 0, 4, 4, 0, 1, 4, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 4, 2,
    4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 4, 0, 4, 0,
};
/* clang-format on */

void h1_parser_init(struct h1_parser *p, struct msg *m, bool response)
{
    memset(p, 0, sizeof(*p));
    p->line_max = p->field_max = LINE_MAX_DEFAULT;
    p->fields_max = FIELDS_MAX_DEFAULT;
    p->ignore_invalid = !response;
    p->response = response;
    p->msg = m;
}

static enum h1_result fail(struct h1_parser *p, enum h1_error error)
{
    p->error = error;
    p->bad = STR_NULL;
    return H1_ERROR;
}

static enum h1_result fail_with(struct h1_parser *p, enum h1_error error, struct str bad)
{
    p->error = error;
    p->bad = bad;
    return H1_ERROR;
}

static size_t current_max(const struct h1_parser *p)
{
    return p->state == STATE_START ? p->line_max : p->field_max;
}

bool h1_line_too_long(struct h1_parser *p, size_t have)
{
    if (p->error != H1_OK)
        return p->error == H1_LINE_TOO_LONG || p->error == H1_FIELD_TOO_LONG;
    /* The last byte may be the CR of the line's end. */
    if (p->state == STATE_DONE || have <= current_max(p) + 1)
        return false;
    p->error = p->state == STATE_START && !p->response ? H1_LINE_TOO_LONG : H1_FIELD_TOO_LONG;
    return true;
}

static enum h1_result too_long(struct h1_parser *p, struct str line)
{
    if (p->state == STATE_START) {
        p->msg->line = line;
        return fail(p, p->response ? H1_FIELD_TOO_LONG : H1_LINE_TOO_LONG);
    }
    line.len = MIN(line.len, BAD_SHOWN);
    return fail_with(p, H1_FIELD_TOO_LONG, line);
}

/* Start lines ------------------------------------------------------------------------------- */

/* First control byte at or behind `from`, or line.len. */
static size_t find_control(struct str line, size_t from)
{
    while (from < line.len) {
        from += scan_span(SCAN_URI, line.ptr + from, line.len - from);
        if (from == line.len || line.ptr[from] != ' ')
            break;
        from++;
    }
    return from;
}

static size_t method_span(struct str line)
{
    size_t i = 0;

    while (i < line.len &&
           ((line.ptr[i] >= 'A' && line.ptr[i] <= 'Z') || line.ptr[i] == '_' || line.ptr[i] == '-'))
        i++;
    return i;
}

/* A line with a control byte in it is wrong in the same way however much of it has come. */
static enum h1_result control_in_line(struct h1_parser *p, struct str line, size_t at)
{
    size_t n = method_span(line);

    p->msg->line = line;
    return fail(p, n > 0 && n < at && line.ptr[n] == ' ' ? H1_BAD_REQUEST_LINE : H1_BAD_METHOD);
}

/* The target of an absolute form (RFC 9112, 3.2.2): scheme "://" authority [path] ["?" query]. */
static enum h1_error absolute_form(struct h1_parser *p, struct str target)
{
    size_t i = 0, start;
    struct str rest;
    char *path;

    while (i < target.len && target.ptr[i] != ':') {
        unsigned char c = ascii_lower((unsigned char) target.ptr[i]);
        bool letter = c >= 'a' && c <= 'z';

        if (!letter && (i == 0 || !((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')))
            return H1_BAD_URI;
        i++;
    }
    if (i == 0 || target.len - i < 3 || memcmp(target.ptr + i, "://", 3) != 0)
        return H1_BAD_URI;
    p->scheme = str_from(target.ptr, i);
    start = i += 3;
    while (i < target.len && target.ptr[i] != '/' && target.ptr[i] != '?' && target.ptr[i] != '#')
        i++;
    p->host_value = str_from(target.ptr + start, i - start);
    rest = str_skip(target, i);
    /* A target has no fragment. An escaped name would be another one to whoever decodes it. */
    if (!h1_host_valid(p->host_value) || str_chr(p->host_value, '%') >= 0 ||
        (rest.len > 0 && rest.ptr[0] == '#'))
        return H1_BAD_URI;
    p->absolute_target = true;
    if (rest.len == 0) {
        p->path = STR("/");
    } else if (rest.ptr[0] == '/') {
        p->path = rest;
    } else {
        path = arena_bytes(p->msg->arena, rest.len + 1);
        path[0] = '/';
        memcpy(path + 1, rest.ptr, rest.len);
        p->path = str_from(path, rest.len + 1);
    }
    return H1_OK;
}

/* RFC 9112, 3.2. */
static enum h1_error parse_target(struct h1_parser *p, struct str target)
{
    p->msg->target = target;
    if (likely(target.ptr[0] == '/')) {
        p->path = target;
        return H1_OK;
    }
    if (p->msg->method == METHOD_CONNECT) {
        ssize_t colon = str_rchr(target, ':');

        if (!h1_host_valid(target) || colon < 0 || (size_t) colon + 1 == target.len ||
            target.ptr[target.len - 1] == ']')
            return H1_BAD_URI;
        p->host_value = target;
        p->absolute_target = true;
        p->path = STR("");
        return H1_OK;
    }
    if (target.len == 1 && target.ptr[0] == '*' && p->msg->method == METHOD_OPTIONS) {
        p->path = target;
        return H1_OK;
    }
    return absolute_form(p, target);
}

static enum h1_error parse_version(struct msg *m, struct str s)
{
    size_t end = s.len;

    if (likely(s.len == 8 && memcmp(s.ptr, "HTTP/1.1", 8) == 0)) {
        m->version = HTTP_11;
        return H1_OK;
    }
    while (end > 0 && s.ptr[end - 1] == ' ')
        end--;
    if (end != 8 || memcmp(s.ptr, "HTTP/", 5) != 0 || s.ptr[6] != '.' || s.ptr[5] < '1' ||
        s.ptr[5] > '9' || s.ptr[7] < '0' || s.ptr[7] > '9')
        return H1_BAD_VERSION;
    if (s.ptr[5] != '1')
        return H1_VERSION_UNSUPPORTED;
    m->version = s.ptr[7] == '0' ? HTTP_10 : HTTP_11;
    return H1_OK;
}

/* RFC 9112, 3: method SP target [SP version]; more than one space is taken, as nginx takes it. */
static enum h1_error split_request_line(struct h1_parser *p, struct str line)
{
    struct msg *m = p->msg;
    size_t i = method_span(line), start;
    enum h1_error error;

    if (i == 0 || i == line.len || line.ptr[i] != ' ')
        return H1_BAD_METHOD;
    m->method_name = str_from(line.ptr, i);
    m->method = method_lookup(m->method_name);
    while (i < line.len && line.ptr[i] == ' ')
        i++;
    start = i;
    i += scan_span(SCAN_URI, line.ptr + i, line.len - i);
    if (i == start || (i < line.len && line.ptr[i] != ' '))
        return H1_BAD_REQUEST_LINE;
    error = parse_target(p, str_from(line.ptr + start, i - start));
    if (error != H1_OK)
        return error;
    while (i < line.len && line.ptr[i] == ' ')
        i++;
    if (i < line.len)
        return parse_version(m, str_skip(line, i));
    m->version = HTTP_09;
    return m->method == METHOD_GET ? H1_OK : H1_BAD_09_METHOD;
}

/* The server that the host names may refuse it, and may change the limits. */
static enum h1_result call_host(struct h1_parser *p)
{
    if (p->host != NULL)
        p->host(p, p->host_value);
    if (likely(p->error == H1_OK))
        return H1_MORE;
    /* The log shows the host in its own place. */
    if (p->error == H1_BAD_HOST)
        p->bad = STR_NULL;
    return H1_ERROR;
}

static enum h1_result request_line(struct h1_parser *p, struct str line)
{
    enum h1_error error;

    p->msg->line = line;
    error = split_request_line(p, line);
    if (unlikely(error != H1_OK)) {
        size_t at = find_control(line, 0);

        return at < line.len ? control_in_line(p, line, at) : fail(p, error);
    }
    p->state = STATE_FIELDS;
    if (p->absolute_target && call_host(p) != H1_MORE)
        return H1_ERROR;
    if (p->msg->version == HTTP_09) {
        p->state = STATE_DONE;
        return H1_DONE;
    }
    return H1_MORE;
}

/* RFC 9112, 4. What stands between status and reason is looked at kindly. */
static enum h1_result status_line(struct h1_parser *p, struct str line)
{
    struct msg *m = p->msg;
    const char *s = line.ptr, *end = line.ptr + line.len;

    m->line = line;
    if (line.len < 12 || memcmp(s, "HTTP/1.", 7) != 0 || s[7] < '0' || s[7] > '9' || s[8] != ' ')
        return fail_with(p, H1_BAD_STATUS_LINE, line);
    m->version = s[7] == '0' ? HTTP_10 : HTTP_11;
    s += 9;
    while (s < end && *s == ' ')
        s++;
    if (end - s < 3 || s[0] < '1' || s[0] > '9' || s[1] < '0' || s[1] > '9' || s[2] < '0' ||
        s[2] > '9' || (end - s > 3 && s[3] != ' '))
        return fail_with(p, H1_BAD_STATUS_LINE, line);
    m->status =
        (unsigned) (s[0] - '0') * 100 + (unsigned) (s[1] - '0') * 10 + (unsigned) (s[2] - '0');
    s += end - s > 3 ? 4 : 3;
    m->reason = str_from(s, (size_t) (end - s));
    if (!is_field_value(m->reason))
        return fail_with(p, H1_BAD_STATUS_LINE, line);
    p->state = STATE_FIELDS;
    return H1_MORE;
}

/* What has come of a start line can be refused before its end: nobody who sends this goes on. */
static enum h1_result early_start(struct h1_parser *p, const char *ptr, size_t len, size_t from)
{
    static const char http[] = "HTTP/1.";
    struct str line = str_from(ptr, MIN(len, p->line_max + 2));
    size_t at;

    if (p->response) {
        at = MIN(len, sizeof(http) - 1);
        return memcmp(ptr, http, at) == 0 ? H1_MORE
                                          : fail_with(p, H1_BAD_STATUS_LINE, str_from(ptr, at));
    }
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    at = find_control(line, MIN(from, line.len));
    return at < line.len ? control_in_line(p, line, at) : H1_MORE;
}

/* The complete line at ptr, len bytes without its LF. */
static enum h1_result start_line(struct h1_parser *p, const char *ptr, size_t len)
{
    struct str line = str_from(ptr, len > 0 && ptr[len - 1] == '\r' ? len - 1 : len);

    if (line.len == 0 && !p->response)
        return H1_MORE;
    if (unlikely(line.len > p->line_max)) {
        if (early_start(p, ptr, len, 0) == H1_ERROR)
            return H1_ERROR;
        return too_long(p, str_from(ptr, MIN(line.len, p->line_max + 2)));
    }
    return p->response ? status_line(p, line) : request_line(p, line);
}

/* Fields ------------------------------------------------------------------------------------ */

/* Fields of which a request may have one (nginx refuses the same ones). */
static enum h1_error if_repeated(enum token t)
{
    switch (t) {
    case T_HOST: return H1_DUPLICATE_HOST;
    case T_CONTENT_LENGTH: return H1_DUPLICATE_CONTENT_LENGTH;
    case T_TRANSFER_ENCODING:
    case T_IF_MODIFIED_SINCE:
    case T_IF_UNMODIFIED_SINCE:
    case T_IF_MATCH:
    case T_IF_NONE_MATCH:
    case T_IF_RANGE:
    case T_CONTENT_RANGE:
    case T_EXPECT:
    case T_AUTHORIZATION: return H1_DUPLICATE_FIELD;
    default: return H1_OK;
    }
}

static enum h1_result host_field(struct h1_parser *p, struct str value)
{
    if (!h1_host_valid(value))
        return fail(p, H1_BAD_HOST);
    /* An absolute target has the say (RFC 9112, 3.2.2). */
    if (p->absolute_target)
        return H1_MORE;
    p->host_value = value;
    return call_host(p);
}

static enum h1_result add_field(struct h1_parser *p, struct str line, struct str name,
                                struct str value)
{
    uint32_t hash = hash_name(name);
    enum token t = token_lookup_hashed(name, hash);
    struct fields *f = &p->msg->fields;
    bool repeated = t != T_NONE && f->index->first[t] != 0;

    fields_add_hashed(p->msg, f, t, hash, name, value);
    if (p->response) {
        if (repeated && t == T_CONTENT_LENGTH)
            return fail_with(p, H1_DUPLICATE_CONTENT_LENGTH, line);
        if (repeated && t == T_TRANSFER_ENCODING)
            return fail_with(p, H1_DUPLICATE_FIELD, line);
        return H1_MORE;
    }
    if (unlikely(repeated)) {
        enum h1_error error = if_repeated(t);

        if (error != H1_OK)
            return fail_with(p, error, line);
    }
    return t == T_HOST ? host_field(p, value) : H1_MORE;
}

/* The name is no token, or the line no field at all. line is complete, without its end. */
static enum h1_result odd_field(struct h1_parser *p, struct str line)
{
    size_t i = 0;

    while (i < line.len && line.ptr[i] != ':') {
        unsigned char c = (unsigned char) line.ptr[i++];

        if (c <= 0x20 || c == 0x7f)
            return fail_with(p, H1_BAD_FIELD, line);
    }
    if (i == 0 || i == line.len || !is_field_value(str_skip(line, i)))
        return fail_with(p, H1_BAD_FIELD, line);
    if (p->response || !p->ignore_invalid)
        return fail_with(p, H1_BAD_FIELD, line);
    if (p->invalid != NULL)
        p->invalid(p, line);
    return H1_MORE;
}

/* Which classes of signs make a name one to be skipped. */
static unsigned refused_classes(const struct h1_parser *p)
{
    if (p->response || !p->ignore_invalid)
        return 0;
    return CLASS_OTHER | (p->underscores ? 0 : CLASS_UNDERSCORE);
}

/* A line that the quick pass could not take. Not complete: H1_MORE with *used 0. */
static enum h1_result slow_field(struct h1_parser *p, const char *ptr, size_t len, size_t *used)
{
    const char *lf = memchr(ptr, '\n', len);
    struct str line;

    *used = 0;
    if (lf == NULL)
        return H1_MORE;
    line = str_from(ptr, (size_t) (lf - ptr));
    *used = line.len + 1;
    if (line.len > 0 && lf[-1] == '\r')
        line.len--;
    if (line.len > p->field_max)
        return too_long(p, line);
    if (++p->lines > p->fields_max)
        return fail_with(p, H1_TOO_MANY_FIELDS, line);
    return odd_field(p, line);
}

#ifdef __SSE2__
/* How many of the 16 bytes at s, from the first on, are letters, digits or hyphens. */
static inline unsigned plain_span16(const unsigned char *s)
{
    __m128i v = _mm_loadu_si128((const __m128i *) (const void *) s);
    __m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
    __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    __m128i is_hyphen = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));
    __m128i plain = _mm_or_si128(is_letter, _mm_or_si128(is_digit, is_hyphen));

    return (unsigned) __builtin_ctz(~(unsigned) _mm_movemask_epi8(plain));
}
#endif

/*
 * The end of a name's token signs. Those that are not plain leave their bits in *classes. Sixteen bytes
 * at once where there are as many: names by table were a fifth of all instructions of a request.
 */
static inline const unsigned char *name_end(const unsigned char *s, const unsigned char *end,
                                            unsigned *classes)
{
    unsigned c;

#ifdef __SSE2__
    while (end - s >= 16) {
        unsigned n = plain_span16(s);

        s += n;
        if (n < 16)
            break;
    }
#endif
    while (likely(s < end) && (c = name_class[*s]) != 0) {
        *classes |= c;
        s++;
    }
    return s;
}

/*
 * One field line (RFC 9112, 5) at ptr, which is not the empty line. *used: its bytes with the end,
 * 0 if it is not complete.
 */
static enum h1_result field_line(struct h1_parser *p, const char *ptr, size_t len, size_t *used)
{
    const unsigned char *s = (const unsigned char *) ptr, *end = s + len;
    unsigned classes = 0;
    const char *value, *stop, *next;
    struct str line, name;

    s = name_end(s, end, &classes);
    if (unlikely(s == end || *s != ':' || (const char *) s == ptr))
        return slow_field(p, ptr, len, used);
    name = str_from(ptr, (size_t) ((const char *) s - ptr));
    do
        s++;
    while (s < end && (*s == ' ' || *s == '\t'));
    value = (const char *) s;
    stop = value + scan_span(SCAN_FIELD_VALUE, value, (size_t) (end - s));
    next = stop + 1;
    if (likely(next < (const char *) end && stop[0] == '\r' && stop[1] == '\n'))
        next++;
    else if (stop == (const char *) end || *stop != '\n')
        return slow_field(p, ptr, len, used);
    *used = (size_t) (next - ptr);
    line = str_from(ptr, (size_t) (stop - ptr));
    if (unlikely(line.len > p->field_max))
        return too_long(p, line);
    if (unlikely(++p->lines > p->fields_max || p->msg->fields.count == FIELDS_LIMIT))
        return fail_with(p, H1_TOO_MANY_FIELDS, line);
    if (unlikely(classes & refused_classes(p))) {
        if (p->invalid != NULL)
            p->invalid(p, line);
        return H1_MORE;
    }
    while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    return add_field(p, line, name, str_from(value, (size_t) (stop - value)));
}

/* The end of the head ----------------------------------------------------------------------- */

/* What the members of one Connection field ask for. */
struct connection_options {
    bool close, keep, upgrade;
};

static void connection_option(struct connection_options *o, struct str member)
{
    switch (member.len) {
    case 5: o->close |= str_caseeq(member, STR("close")); break;
    case 7: o->upgrade |= str_caseeq(member, STR("upgrade")); break;
    case 10: o->keep |= str_caseeq(member, STR("keep-alive")); break;
    default: break;
    }
}

/* RFC 9112, 9.3, and RFC 9110, 7.8. */
static void derive_connection(struct msg *m)
{
    struct connection_options o = { false, false, false };

    m->keep_alive = m->version >= HTTP_11;
    for (struct field *f = fields_get(&m->fields, T_CONNECTION); f != NULL;
         f = fields_next(&m->fields, f)) {
        struct str member;

        /* The one that nearly every client sends, without taking the list apart. */
        if (likely(str_eq(f->value, STR("keep-alive")))) {
            o.keep = true;
            continue;
        }
        for (size_t pos = 0; list_next(f->value, &pos, &member);)
            connection_option(&o, member);
    }
    if (o.close)
        m->keep_alive = false;
    else if (o.keep)
        m->keep_alive = true;
    m->upgrade = o.upgrade && m->version >= HTTP_11 && fields_get(&m->fields, T_UPGRADE) != NULL;
}

/* RFC 9112, 6. Repeated fields have been refused already. */
static enum h1_result derive_length(struct h1_parser *p)
{
    struct msg *m = p->msg;
    struct field *length = fields_get(&m->fields, T_CONTENT_LENGTH);
    struct field *encoding = fields_get(&m->fields, T_TRANSFER_ENCODING);
    uint64_t n;

    m->content_length = -1;
    m->chunked = false;
    if (length != NULL) {
        if (str_to_u64(length->value, &n) != 0 || n > INT64_MAX)
            return fail(p, H1_BAD_CONTENT_LENGTH);
        m->content_length = (int64_t) n;
    }
    if (encoding == NULL)
        return H1_DONE;
    if (!str_caseeq(encoding->value, STR("chunked")))
        return fail_with(p, H1_UNKNOWN_TRANSFER_ENCODING, encoding->value);
    if (length != NULL)
        return fail(p, H1_BOTH_LENGTH_AND_ENCODING);
    if (m->version < HTTP_11 && !p->response)
        return fail(p, H1_ENCODING_IN_10);
    m->chunked = true;
    return H1_DONE;
}

static enum h1_result request_done(struct h1_parser *p)
{
    struct msg *m = p->msg;

    if (m->version >= HTTP_11 && fields_get(&m->fields, T_HOST) == NULL)
        return fail(p, H1_NO_HOST);
    if (derive_length(p) == H1_ERROR)
        return H1_ERROR;
    if (!p->allow_trace && m->method == METHOD_TRACE)
        return fail(p, H1_TRACE);
    if (!p->allow_connect && m->method == METHOD_CONNECT)
        return fail(p, H1_CONNECT);
    if (m->method == METHOD_CONNECT && !p->absolute_target)
        return fail(p, H1_BAD_URI);
    derive_connection(m);
    m->expect_continue = m->version >= HTTP_11 &&
                         str_caseeq(fields_value(&m->fields, T_EXPECT), STR("100-continue"));
    return H1_DONE;
}

static enum h1_result response_done(struct h1_parser *p)
{
    struct msg *m = p->msg;
    bool no_body = m->status < 200 || m->status == 204;

    if (derive_length(p) == H1_ERROR)
        return H1_ERROR;
    derive_connection(m);
    if (no_body) {
        /* Such a response has no body; one that announces it may send it all the same. */
        if (m->chunked || m->content_length > 0)
            m->keep_alive = false;
        m->chunked = false;
        m->content_length = -1;
        return H1_DONE;
    }
    if (m->chunked && m->version < HTTP_11)
        m->keep_alive = false;
    if (!m->chunked && m->content_length < 0 && !p->head_request && m->status != 304)
        m->keep_alive = false;
    return H1_DONE;
}

static enum h1_result head_done(struct h1_parser *p)
{
    p->state = STATE_DONE;
    return p->response ? response_done(p) : request_done(p);
}

/* The loop over lines ------------------------------------------------------------------------ */

/* One start line, complete or not. */
static enum h1_result take_start(struct h1_parser *p, const char *ptr, size_t len, size_t *used)
{
    const char *lf = p->scanned > 0 ? NULL : memchr(ptr, '\n', len);

    *used = 0;
    if (lf == NULL)
        return early_start(p, ptr, len, p->scanned > 0 ? p->scanned - 1 : 0);
    *used = (size_t) (lf - ptr) + 1;
    return start_line(p, ptr, *used - 1);
}

static enum h1_result take_field(struct h1_parser *p, const char *ptr, size_t len, size_t *used)
{
    *used = 0;
    if (ptr[0] == '\n') {
        *used = 1;
        return head_done(p);
    }
    if (ptr[0] == '\r') {
        if (len == 1)
            return H1_MORE;
        if (ptr[1] == '\n') {
            *used = 2;
            return head_done(p);
        }
    }
    return field_line(p, ptr, len, used);
}

enum h1_result h1_parse(struct h1_parser *p, const char *ptr, size_t len, size_t *used)
{
    size_t at = 0;

    *used = 0;
    if (p->error != H1_OK)
        return H1_ERROR;
    ASSERT(p->state != STATE_DONE && p->scanned <= len);
    if (p->scanned > 0 && memchr(ptr + p->scanned, '\n', len - p->scanned) != NULL)
        p->scanned = 0;
    while (at < len) {
        enum h1_result result = H1_MORE;
        size_t n = 0;

        /* What was not complete and still is not has nothing new to say, but for a start line. */
        if (p->state == STATE_START)
            result = take_start(p, ptr + at, len - at, &n);
        else if (p->scanned == 0)
            result = take_field(p, ptr + at, len - at, &n);
        at += n;
        *used = at;
        if (result != H1_MORE)
            return result;
        if (n == 0)
            break;
    }
    p->scanned = len - at;
    if (unlikely(h1_line_too_long(p, len - at)))
        return too_long(p, str_from(ptr + at, MIN(len - at, current_max(p) + 2)));
    return H1_MORE;
}
