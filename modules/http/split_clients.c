/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * split_clients: a variable whose value depends on the hash of a string, so that the same client
 * always falls into the same part. The hash and the arithmetic are nginx's: who changes over keeps
 * his groups.
 */
#include "core/http/req.h"

/* configure: switch=http_split_clients_module default=on */

static unsigned split_slot;

struct part {
    uint32_t percent; /* hundredths; 0: the rest */
    uint32_t below;   /* hashes that are less fall into it, unless they are a former part's */
    struct str value;
};

struct split {
    struct expr *source;
    struct part *parts;
    unsigned count, capacity;
    struct conf_pos pos;
};

/* MurmurHash2 of 32 bits, seed 0, little-endian (Austin Appleby, public domain algorithm). */
static uint32_t murmur2(struct str s)
{
    const uint32_t m = 0x5bd1e995;
    const unsigned char *p = (const unsigned char *) s.ptr;
    uint32_t h = (uint32_t) s.len;
    size_t len = s.len;

    for (; len >= 4; p += 4, len -= 4) {
        uint32_t k = (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16
                     | (uint32_t) p[3] << 24;

        k *= m;
        k ^= k >> 24;
        k *= m;
        h = h * m ^ k;
    }
    if (len == 3)
        h ^= (uint32_t) p[2] << 16;
    if (len >= 2)
        h ^= (uint32_t) p[1] << 8;
    if (len >= 1)
        h = (h ^ p[0]) * m;
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

static bool get_part(struct eval *e, const struct var *v, struct str *out)
{
    const struct split *split = (const struct split *) v->data;
    uint32_t hash = murmur2(expr_eval(e, split->source));

    *out = STR("");
    for (unsigned i = 0; i < split->count; i++) {
        const struct part *part = &split->parts[i];

        if (part->percent == 0 || hash < part->below) {
            *out = part->value;
            break;
        }
    }
    req_trace(req_of(e), split->pos, "split_clients makes $%.*s \"%.*s\" of the hash %u",
              STR_ARG(v->name), STR_ARG(*out), hash);
    return true;
}

/* "12", "0.5", "12.25" in hundredths; 0: none of these. */
static uint32_t parse_percent(struct str text)
{
    uint64_t n = 0, scale = 100;
    bool point = false;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == '.' && !point && scale > 1) {
            point = true;
            continue;
        }
        if (c < '0' || c > '9' || scale == 1 || n > UINT32_MAX)
            return 0;
        n = n * 10 + (uint64_t) (c - '0');
        if (point)
            scale /= 10;
    }
    n *= scale;
    return n <= UINT32_MAX ? (uint32_t) n : 0;
}

static const char *split_line(struct conf *cf, void *data)
{
    struct split *split = data;
    struct str text = cf->args[0];
    struct part part = { .percent = 0 };

    if (cf->nargs != 2)
        return conf_error(cf, "invalid number of the split_clients parameters");
    if (!str_eq(text, STR("*"))) {
        if (str_ends(text, STR("%")))
            part.percent = parse_percent(str_from(text.ptr, text.len - 1));
        if (part.percent == 0)
            return conf_error_arg(cf, 0, "invalid percent value \"%.*s\"", STR_ARG(text));
    }
    part.value = str_dup(cf->arena, cf->args[1]);
    split->parts = arena_grow(cf->arena, split->parts, split->count, &split->capacity,
                              sizeof(*split->parts));
    split->parts[split->count++] = part;
    return NULL;
}

/* Where each part ends. A "*" takes all that is left, so nothing may follow it. */
static const char *share_out(struct conf *cf, struct split *split)
{
    uint64_t sum = 0;
    uint32_t last = 0;

    for (unsigned i = 0; i < split->count; i++) {
        struct part *part = &split->parts[i];

        sum = part->percent ? sum + part->percent : 10000;
        if (sum > 10000)
            return conf_error(cf, "percent total is greater than 100%%");
        last += (uint32_t) (part->percent * (uint64_t) UINT32_MAX / 10000);
        part->below = last;
    }
    return NULL;
}

static const char *set_split_clients(struct conf *cf, void *field)
{
    struct split *split = ARENA_NEW(cf->arena, struct split);
    const char *error;
    struct var *v;

    (void) field;
    split->pos = cf->pos;
    error = conf_arg_expr(cf, 1, &split->source);
    if (error == NULL)
        error = conf_define_var(cf, 2, get_part, split, &v);
    if (error == NULL)
        error = conf_lines(cf, split_line, split);
    return error != NULL ? error : share_out(cf, split);
}

static const struct directive directives[] = {
    ROW_CALL("split_clients", CTX_HTTP, ARGS2 | ARG_BLOCK | ARG_REPEAT, set_split_clients,
             STORE_MAIN, "string $variable { ... }",
             "A variable that divides clients into parts of given sizes."),
    ROW_END,
};

static const struct http_module http_split_clients = { .variables = NULL };

const struct module module_http_split_clients = {
    .name = "http_split_clients",
    .slot = &split_slot,
    .directives = directives,
    .http = &http_split_clients,
};
