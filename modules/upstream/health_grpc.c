/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A check by gRPC: calls grpc.health.v1.Health/Check over HTTP/2, for which a connection with one stream is enough. All that
 * is sent is known when the configuration is: it goes out at once, and what comes back is taken frame by frame, each of
 * them, and all together, within limits. Driven by health_probe.c.
 */
#include "core/http/h2_frame.h"
#include "core/http/hpack.h"
#include "modules/upstream/health.h"

#define FRAMES_MAX 256     /* of an answer; a good one has fewer than 20 */
#define ANSWER_MAX 131072  /* all together; a good one has a few hundred bytes */
#define FIELDS_MAX 16384   /* of a block of fields, as it is sent and decoded */
#define DATA_MAX H2_WINDOW /* with padding: the window, which is never opened again */
#define MESSAGE_MAX 1024   /* an answer of the service has two bytes, but may learn more */
#define PREFIX 5           /* of a message: whether it is compressed, and its length */
#define STREAM 1
#define PATH "/grpc.health.v1.Health/Check"

enum { SERVING = 1 };
static const char *const serving_names[] = { "UNKNOWN", "SERVING", "NOT_SERVING",
                                             "SERVICE_UNKNOWN" };

/* An answer under way. */
struct grpc_check {
    struct hpack_decoder decoder;
    struct block *block; /* what has come and is not taken yet: less than a frame */
    size_t len;
    unsigned frames;
    char *fields; /* of a block that is not complete */
    size_t fields_len;
    bool in_fields, ends; /* one has begun; it ends the stream */
    bool has_head;        /* and it was not an informational one */
    size_t data;
    char message[PREFIX + MESSAGE_MAX];
    size_t message_len;
    /* of the fields */
    unsigned status;   /* :status, of this block; 0: there was none */
    int grpc_status;   /* -1: none */
    const char *fault; /* found by a callback */
};

/* The request --------------------------------------------------------------------------------- */

/* Fields of HTTP/1 that say nothing here, or are ours. */
static bool is_left_out(struct str name)
{
    static const struct str names[] = {
        STR_INIT("host"),
        STR_INIT("connection"),
        STR_INIT("keep-alive"),
        STR_INIT("proxy-connection"),
        STR_INIT("te"),
        STR_INIT("transfer-encoding"),
        STR_INIT("upgrade"),
        STR_INIT("content-type"),
        STR_INIT("content-length"),
    };

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eq(name, names[i]))
            return true;
    }
    return false;
}

/* The next of "NAME: VALUE" CRLF. */
static bool next_line(struct str *lines, struct str *name, struct str *value)
{
    ssize_t colon = str_find(*lines, STR(": ")), end = str_find(*lines, STR("\r\n"));

    if (colon < 0 || end < colon)
        return false;
    *name = str_from(lines->ptr, (size_t) colon);
    *value = str_from(lines->ptr + colon + 2, (size_t) (end - colon) - 2);
    *lines = str_skip(*lines, (size_t) end + 2);
    return true;
}

static char *put_fields(char *p, struct arena *arena, const struct health_check *hc,
                        struct str fields)
{
    struct hpack_encoder e;
    struct str name, value, host = hc->group->name;

    for (struct str lines = fields; next_line(&lines, &name, &value);) {
        if (str_caseeq(name, STR("Host")))
            host = value;
    }
    hpack_encoder_init(&e, 0);
    p = hpack_encode_begin(&e, p);
    p = hpack_encode(&e, p, STR(":method"), STR("POST"), HPACK_PLAIN);
    p = hpack_encode(&e, p, STR(":scheme"),
                     hc->conf->tls.client != NULL ? STR("https") : STR("http"), HPACK_PLAIN);
    p = hpack_encode(&e, p, STR(":path"), STR(PATH), HPACK_PLAIN);
    p = hpack_encode(&e, p, STR(":authority"), host, HPACK_PLAIN);
    p = hpack_encode(&e, p, STR("content-type"), STR("application/grpc"), HPACK_PLAIN);
    p = hpack_encode(&e, p, STR("te"), STR("trailers"), HPACK_PLAIN);
    while (next_line(&fields, &name, &value)) {
        name = str_lower(arena, name);
        if (!is_left_out(name))
            p = hpack_encode(&e, p, name, value, HPACK_PLAIN);
    }
    hpack_encoder_free(&e);
    return p;
}

/* HealthCheckRequest { string service = 1; } behind a message's prefix. */
static char *put_message(char *p, struct str service)
{
    char head[8], *end = head;

    if (service.len > 0) {
        *end++ = 1 << 3 | 2;
        for (size_t n = service.len;; n >>= 7) {
            *end++ = (char) (n < 0x80 ? n : n | 0x80);
            if (n < 0x80)
                break;
        }
    }
    *p++ = 0;
    p = h2_put32(p, (uint32_t) ((size_t) (end - head) + service.len));
    memcpy(p, head, (size_t) (end - head));
    p += end - head;
    if (service.len > 0)
        memcpy(p, service.ptr, service.len);
    return p + service.len;
}

/* Fills the head in, at `frame`, of a frame that ends here. False: it is too long. */
static bool close_frame(char *frame, const char *end, enum h2_type type, unsigned flags,
                        uint32_t stream)
{
    size_t len = (size_t) (end - frame) - H2_HEAD;

    h2_put_head(frame, (struct h2_frame){ .len = (uint32_t) len,
                                          .type = (uint8_t) type,
                                          .flags = (uint8_t) flags,
                                          .stream = stream });
    return len <= H2_FRAME_MAX;
}

struct str health_grpc_request(struct arena *arena, const struct health_check *hc,
                               struct str fields)
{
    size_t room = 1000 + 16 * fields.len + hc->group->name.len + hc->grpc_service.len;
    char *buf = arena_bytes(arena, room), *p = buf, *frame;
    bool fits;

    memcpy(p, H2_PREFACE, sizeof(H2_PREFACE) - 1);
    frame = p += sizeof(H2_PREFACE) - 1;
    p = h2_put_setting(p + H2_HEAD, H2_ENABLE_PUSH, 0);
    p = h2_put_setting(p, H2_MAX_HEADER_LIST_SIZE, FIELDS_MAX);
    close_frame(frame, p, H2_SETTINGS, 0, 0);
    frame = p;
    p = put_fields(frame + H2_HEAD, arena, hc, fields);
    fits = close_frame(frame, p, H2_HEADERS, H2_END_HEADERS, STREAM);
    frame = p;
    p = put_message(frame + H2_HEAD, hc->grpc_service);
    close_frame(frame, p, H2_DATA, H2_END_STREAM, STREAM);
    return fits ? str_from(buf, (size_t) (p - buf)) : STR_NULL;
}

/* The answer ---------------------------------------------------------------------------------- */

static struct grpc_check *check_of(const struct probe *p)
{
    return p->data;
}

static bool fail(struct probe *p, const char *why)
{
    probe_failed(p, 0, why);
    return false;
}

static bool fail_by(struct probe *p, const char *why, uint32_t error)
{
    return fail(p, str_printf(p->arena, "%s with error %u", why, error).ptr);
}

static bool read_varint(const unsigned char **p, const unsigned char *end, uint64_t *n)
{
    *n = 0;
    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        unsigned char byte = *(*p)++;

        *n |= (uint64_t) (byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* HealthCheckResponse { ServingStatus status = 1; }; other fields are skipped. False: that is none. */
static bool read_serving(const unsigned char *p, const unsigned char *end, uint64_t *status)
{
    *status = 0;
    while (p < end) {
        uint64_t key, n = 0;

        if (!read_varint(&p, end, &key))
            return false;
        switch (key & 7) {
        case 0:
            if (!read_varint(&p, end, &n))
                return false;
            if (key >> 3 == 1)
                *status = n;
            n = 0;
            break;
        case 1: n = 8; break;
        case 2:
            if (!read_varint(&p, end, &n))
                return false;
            break;
        case 5: n = 4; break;
        default: return false;
        }
        if (n > (size_t) (end - p))
            return false;
        p += n;
    }
    return true;
}

/* What the message says. NULL: all is well. */
static const char *judge_message(struct probe *p)
{
    const struct grpc_check *c = check_of(p);
    const unsigned char *message = (const unsigned char *) c->message;
    uint64_t status;

    if (c->message_len < PREFIX || h2_get32(c->message + 1) != c->message_len - PREFIX)
        return "upstream sent no single whole gRPC message";
    if (c->message[0] != 0)
        return "upstream sent a compressed gRPC message";
    if (!read_serving(message + PREFIX, message + c->message_len, &status))
        return "upstream sent an invalid gRPC message";
    if (status == SERVING)
        return NULL;
    return str_printf(p->arena, "the service is in status %lu%s%s", (unsigned long) status,
                      status < ARRAY_LEN(serving_names) ? " " : "",
                      status < ARRAY_LEN(serving_names) ? serving_names[status] : "")
        .ptr;
}

/* The stream has ended. */
static bool judge(struct probe *p)
{
    const struct grpc_check *c = check_of(p);
    const char *fault = NULL, *name;

    p->log.action = "checking gRPC status";
    if (c->grpc_status < 0)
        return fail(p, "upstream sent no grpc-status");
    if (c->grpc_status == 0)
        fault = judge_message(p);
    else if ((unsigned) c->grpc_status != p->check->grpc_status) {
        name = health_grpc_status((unsigned) c->grpc_status);
        fault = str_printf(p->arena, "the gRPC status is %d%s%s", c->grpc_status,
                           name != NULL ? " " : "", name != NULL ? name : "")
                    .ptr;
    }
    if (fault != NULL)
        return fail(p, fault);
    probe_end(p, true, false);
    return false;
}

/* Fields -------------------------------------------------------------------------------------- */

static void take_status(struct grpc_check *c, struct str value)
{
    uint64_t n;

    if (c->status != 0 || value.len != 3 || str_to_u64(value, &n) != 0 || n < 100)
        c->fault = "upstream sent invalid :status";
    else
        c->status = (unsigned) n;
}

static void take_field(void *data, const struct hpack_field *f)
{
    struct grpc_check *c = data;
    uint64_t n;

    if (str_eq(f->name, STR(":status"))) {
        take_status(c, f->value);
    } else if (str_eq(f->name, STR("content-type"))) {
        if (!c->has_head && c->status == 200 && !str_starts(f->value, STR("application/grpc")))
            c->fault = "upstream sent an answer that is not of gRPC by its content-type";
    } else if (str_eq(f->name, STR("grpc-status"))) {
        if (str_to_u64(f->value, &n) != 0 || n > INT32_MAX)
            c->fault = "upstream sent invalid grpc-status";
        else
            c->grpc_status = (int) n;
    }
}

/* A block is complete. */
static bool fields_done(struct probe *p)
{
    struct grpc_check *c = check_of(p);
    enum hpack_result result;

    c->in_fields = false;
    c->status = 0;
    c->grpc_status = -1; /* that of the last block counts */
    result = hpack_decode(&c->decoder, p->arena, str_from(c->fields, c->fields_len), FIELDS_MAX,
                          take_field, c);
    if (result == HPACK_ERROR)
        return fail(
            p, str_printf(p->arena, "upstream sent invalid header block %s", c->decoder.why).ptr);
    if (result == HPACK_TOO_LARGE)
        return fail(p, "upstream sent too big header");
    if (c->fault != NULL)
        return fail(p, c->fault);
    if (c->has_head && (c->status != 0 || !c->ends))
        return fail(p, "upstream sent invalid trailers");
    if (!c->has_head && c->status == 0)
        return fail(p, "upstream sent no :status");
    if (!c->has_head && c->status < 200)
        return c->ends ? fail(p, "upstream sent an informational answer alone") : true;
    if (!c->has_head && c->status != 200) {
        p->log.action = "checking status code";
        return fail(p, str_printf(p->arena, "the status is %u", c->status).ptr);
    }
    c->has_head = true;
    return c->ends ? judge(p) : true;
}

static bool more_fields(struct probe *p, struct h2_frame f, struct str payload)
{
    struct grpc_check *c = check_of(p);

    if (c->fields_len + payload.len > FIELDS_MAX)
        return fail(p, "upstream sent too big header");
    if (c->fields == NULL)
        c->fields = arena_bytes(p->arena, FIELDS_MAX);
    if (payload.len > 0)
        memcpy(c->fields + c->fields_len, payload.ptr, payload.len);
    c->fields_len += payload.len;
    return (f.flags & H2_END_HEADERS) ? fields_done(p) : true;
}

/* Frames -------------------------------------------------------------------------------------- */

static bool take_data(struct probe *p, struct h2_frame f, struct str payload)
{
    struct grpc_check *c = check_of(p);

    if (!c->has_head)
        return fail(p, "upstream sent DATA in front of HEADERS");
    c->data += f.len;
    if (c->data > DATA_MAX || payload.len > sizeof(c->message) - c->message_len)
        return fail(p, "upstream sent too big response");
    if (payload.len > 0)
        memcpy(c->message + c->message_len, payload.ptr, payload.len);
    c->message_len += payload.len;
    return (f.flags & H2_END_STREAM) ? judge(p) : true;
}

static void answer_frame(struct probe *p, enum h2_type type, struct str payload)
{
    char head[H2_HEAD];

    h2_put_head(head, (struct h2_frame){
                          .len = (uint32_t) payload.len, .type = (uint8_t) type, .flags = H2_ACK });
    chain_write(&p->out, head, sizeof(head));
    if (payload.len > 0)
        chain_write(&p->out, payload.ptr, payload.len);
}

/* A frame of the connection, or one that does not matter. */
static bool take_control(struct probe *p, struct h2_frame f, struct str payload)
{
    switch (f.type) {
    case H2_SETTINGS:
        /* Nothing is sent any more that they would change. */
        if (!(f.flags & H2_ACK))
            answer_frame(p, H2_SETTINGS, STR(""));
        return true;
    case H2_PING:
        if (!(f.flags & H2_ACK))
            answer_frame(p, H2_PING, payload);
        return true;
    case H2_GOAWAY:
        return (h2_get32(payload.ptr) & 0x7fffffff) >= STREAM
                   ? true
                   : fail_by(p, "upstream sent GOAWAY", h2_get32(payload.ptr + 4));
    case H2_PUSH_PROMISE: return fail(p, "upstream sent PUSH_PROMISE");
    default: return true;
    }
}

static bool take_frame(struct probe *p, struct h2_frame f, struct str payload)
{
    struct grpc_check *c = check_of(p);
    bool ours = f.type == H2_DATA || f.type == H2_HEADERS || f.type == H2_CONTINUATION ||
                f.type == H2_RST_STREAM;

    if (c->in_fields != (f.type == H2_CONTINUATION))
        return fail(p, "upstream sent another frame than CONTINUATION, or that unasked");
    if (ours && f.stream != STREAM)
        return fail(p, "upstream sent a frame for a stream that there is not");
    if ((f.type == H2_DATA || f.type == H2_HEADERS) && !h2_unpad(f, &payload))
        return fail(p, "upstream sent a frame with too long padding");
    switch (f.type) {
    case H2_DATA: return take_data(p, f, payload);
    case H2_HEADERS:
        c->in_fields = true;
        c->ends = f.flags & H2_END_STREAM;
        c->fields_len = 0;
        return more_fields(p, f, payload);
    case H2_CONTINUATION: return more_fields(p, f, payload);
    case H2_RST_STREAM: return fail_by(p, "upstream reset the stream", h2_get32(payload.ptr));
    default: return take_control(p, f, payload);
    }
}

/* False: the probe is over. */
static bool check_head(struct probe *p, struct h2_frame f)
{
    struct grpc_check *c = check_of(p);
    enum h2_error error;

    if (c->frames == 0 && (f.type != H2_SETTINGS || (f.flags & H2_ACK) || f.stream != 0))
        return fail(p, "upstream does not speak HTTP/2: it did not begin with SETTINGS");
    error = h2_head_check(f, H2_FRAME_MAX);
    if (error != H2_NO_ERROR)
        return fail(p, str_printf(p->arena, "upstream sent invalid frame of type %u and %u bytes",
                                  f.type, f.len)
                           .ptr);
    return true;
}

/* For the reading ----------------------------------------------------------------------------- */

static void grpc_start(struct probe *p)
{
    struct grpc_check *c = p->data = ARENA_NEW(p->arena, struct grpc_check);

    hpack_decoder_init(&c->decoder);
    c->grpc_status = -1;
    chain_push_str(&p->out, p->check->request);
}

static char *grpc_room(struct probe *p, size_t *size)
{
    struct grpc_check *c = check_of(p);

    if (c->block == NULL)
        c->block = block_new(BLOCK_LARGE);
    *size = c->block->size - c->len;
    return c->block->data + c->len;
}

static bool grpc_take(struct probe *p, size_t n)
{
    struct grpc_check *c = check_of(p);
    const char *data = c->block->data;
    size_t at = 0;

    if (p->received > ANSWER_MAX)
        return fail(p, "upstream sent too big response");
    c->len += n;
    while (c->len - at >= H2_HEAD) {
        struct h2_frame f = h2_head(data + at);

        if (!check_head(p, f))
            return false;
        if (c->len - at - H2_HEAD < f.len)
            break;
        if (++c->frames > FRAMES_MAX)
            return fail(p, "upstream sent too many frames");
        if (!take_frame(p, f, str_from(data + at + H2_HEAD, f.len)))
            return false;
        at += H2_HEAD + f.len;
    }
    if (at > 0)
        memmove(c->block->data, data + at, c->len - at);
    c->len -= at;
    return true;
}

static void grpc_pause(struct probe *p)
{
    struct grpc_check *c = check_of(p);

    if (c->len > 0)
        return;
    block_unref(c->block);
    c->block = NULL;
}

static bool grpc_closed(struct probe *p, bool cut)
{
    (void) cut;
    if (check_of(p)->has_head)
        p->log.action = "reading response body from upstream";
    return false;
}

static void grpc_free(struct probe *p)
{
    struct grpc_check *c = check_of(p);

    hpack_decoder_free(&c->decoder);
    block_unref(c->block);
}

const struct probe_protocol probe_grpc = {
    .start = grpc_start,
    .room = grpc_room,
    .take = grpc_take,
    .pause = grpc_pause,
    .closed = grpc_closed,
    .free = grpc_free,
};
