/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Recoding of text between charsets of one byte and from and to UTF-8. What has no counterpart
 * becomes "?", from UTF-8 a numeric reference of HTML. Bytes that stay as they are go on by
 * reference. Malformed input is never swallowed together with what follows it, which may be
 * markup.
 */
#include "modules/http/charset.h"

#include "core/base/fmt.h"

#define BUFFER 2048
#define REFERENCE_MAX 10 /* "&#1114111;" */

struct recoding *recoding_new(struct arena *arena, unsigned to, enum recode_kind kind)
{
    struct recoding *rec = ARENA_NEW(arena, struct recoding);

    rec->to = to;
    rec->kind = kind;
    for (unsigned i = 0; i < 256; i++) {
        rec->bytes[i] = i < 0x80 ? (unsigned char) i : '?';
        rec->wide[i].len = 1;
        rec->wide[i].text[0] = (char) rec->bytes[i];
    }
    return rec;
}

void recoding_add_page(struct arena *arena, struct recoding *rec, unsigned code, unsigned char byte)
{
    unsigned char **page = &rec->pages[code >> 8];

    if (*page == NULL)
        *page = ARENA_ARRAY(arena, unsigned char, 256);
    (*page)[code & 0xff] = byte;
}

/* UTF-8 ---------------------------------------------------------------------------------------- */

int utf8_decode(const unsigned char *p, size_t len, unsigned *code)
{
    unsigned char low = 0x80, high = 0xbf;
    int n;

    if (p[0] < 0x80) {
        *code = p[0];
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return -1;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    *code = p[0] & (0xffu >> (n + 1));
    /* The second byte excludes overlong forms, surrogates, and what lies behind the last plane. */
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    for (int i = 1; i < n; i++) {
        if ((size_t) i == len)
            return 0;
        if (p[i] < low || p[i] > high)
            return -1;
        *code = *code << 6 | (p[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

/* Output --------------------------------------------------------------------------------------- */

struct writer {
    struct chain *out;
    size_t used;
    char buf[BUFFER];
};

static void flush(struct writer *w)
{
    if (w->used > 0)
        chain_write(w->out, w->buf, w->used);
    w->used = 0;
}

static char *room(struct writer *w, size_t n)
{
    if (w->used + n > sizeof(w->buf))
        flush(w);
    return w->buf + w->used;
}

static void put_code(struct writer *w, const struct recoding *rec, unsigned code)
{
    char *p = room(w, REFERENCE_MAX), *end;
    unsigned char byte = 0;

    if (code < 0x80) {
        *p = (char) code;
        w->used++;
        return;
    }
    if (code < 0x10000 && rec->pages[code >> 8] != NULL)
        byte = rec->pages[code >> 8][code & 0xff];
    if (byte != 0) {
        *p = (char) byte;
        w->used++;
        return;
    }
    end = fmt_u64(fmt_str(p, STR("&#")), code);
    *end++ = ';';
    w->used += (size_t) (end - p);
}

static void put_unknown(struct writer *w)
{
    *room(w, 1) = '?';
    w->used++;
}

/* From UTF-8 ----------------------------------------------------------------------------------- */

/* Completes what the piece before began. How many bytes of p that took. */
static size_t finish_partial(struct writer *w, const struct recoding *rec, struct recode_state *s,
                             const unsigned char *p, size_t len)
{
    size_t took = 0;

    while (s->len > 0 && took < len) {
        unsigned code;
        int n;

        s->partial[s->len] = p[took];
        n = utf8_decode(s->partial, s->len + 1u, &code);
        if (n < 0) {
            /* It ended before this byte, which begins something of its own. */
            put_unknown(w);
            s->len = 0;
            break;
        }
        took++;
        if (n == 0) {
            s->len++;
        } else {
            put_code(w, rec, code);
            s->len = 0;
        }
    }
    return took;
}

/* The bytes of a malformed sequence: all that could have begun a character together. */
static size_t malformed(const unsigned char *p, size_t len)
{
    size_t n = 1;
    unsigned code;

    while (n < len && n < UTF8_MAX && utf8_decode(p, n, &code) == 0 &&
           utf8_decode(p, n + 1, &code) >= 0)
        n++;
    return n;
}

static void from_utf8(struct writer *w, const struct recoding *rec, struct recode_state *s,
                      const unsigned char *p, size_t len)
{
    size_t i = finish_partial(w, rec, s, p, len);

    while (i < len) {
        unsigned code;
        int n = utf8_decode(p + i, len - i, &code);

        if (n > 0) {
            put_code(w, rec, code);
            i += (size_t) n;
        } else if (n < 0) {
            put_unknown(w);
            i += malformed(p + i, len - i);
        } else {
            s->len = (unsigned char) (len - i);
            memcpy(s->partial, p + i, len - i);
            return;
        }
    }
}

/* Pieces --------------------------------------------------------------------------------------- */

static bool stays(const struct recoding *rec, unsigned char c)
{
    switch (rec->kind) {
    case RECODE_BYTES: return rec->bytes[c] == c;
    case RECODE_TO_UTF8: return rec->wide[c].len == 1 && (unsigned char) rec->wide[c].text[0] == c;
    case RECODE_FROM_UTF8: break;
    }
    return c < 0x80;
}

static void recode(struct writer *w, const struct recoding *rec, struct recode_state *s,
                   const unsigned char *p, size_t len)
{
    if (rec->kind == RECODE_FROM_UTF8) {
        from_utf8(w, rec, s, p, len);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        char *to = room(w, UTF8_MAX);

        if (rec->kind == RECODE_BYTES) {
            *to = (char) rec->bytes[p[i]];
            w->used++;
        } else {
            memcpy(to, rec->wide[p[i]].text, UTF8_MAX);
            w->used += rec->wide[p[i]].len;
        }
    }
}

/* The first piece of `in`, recoded, behind w->out. */
static void recode_piece(struct writer *w, const struct recoding *rec, struct recode_state *s,
                         struct chain *in)
{
    const struct piece *piece = in->first;
    const unsigned char *p = (const unsigned char *) piece->mem.ptr;
    size_t len = (size_t) piece->len, same = 0;

    ASSERT(piece->kind == PIECE_MEM);
    if (s->len == 0) {
        while (same < len && stays(rec, p[same]))
            same++;
    }
    if (same == len) {
        flush(w);
        chain_take(w->out, in, len);
        return;
    }
    recode(w, rec, s, p, len);
    chain_consume(in, len);
}

static void give_up_partial(struct writer *w, struct recode_state *s)
{
    if (s->len == 0)
        return;
    put_unknown(w);
    s->len = 0;
}

void recode_chain(const struct recoding *rec, struct recode_state *state, struct chain *chain,
                  bool end)
{
    struct chain out = CHAIN_INIT;
    struct writer w = { .out = &out, .used = 0 };

    while (!chain_empty(chain)) {
        if (chain->first->kind == PIECE_LINK) {
            give_up_partial(&w, state);
            flush(&w);
            chain_push_link(&out, chain->first->link);
            chain_drop_link(chain);
        } else {
            recode_piece(&w, rec, state, chain);
        }
    }
    if (end)
        give_up_partial(&w, state);
    flush(&w);
    chain_append(chain, &out);
}
