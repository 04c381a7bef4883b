/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: server side includes, parsed whole and in small pieces (first byte), with a limit
 * on values (second byte): the same text and the same commands must come out, and the values and
 * conditions in them are evaluated.
 */
#include "modules/http/ssi_expr.h"
#include "modules/http/ssi_parse.h"
#include "core/base/chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct log_scope quiet_scope;
static struct logger quiet = { .scope = &quiet_scope };

static bool lookup(void *data, struct str name, struct str *out)
{
    (void) data;
    *out = name.len > 3 ? STR("/x$y") : STR("abc");
    return name.len != 2;
}

static void matched(void *data, const struct regex *re, const struct regex_match *m,
                    struct str subject)
{
    (void) data;
    (void) re;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->pos[2 * i + 1] > (int) subject.len)
            abort();
    }
}

static void evaluate(struct arena *arena, const struct ssi_parser *p)
{
    struct ssi_scope scope = {
        .log = &quiet, .uri = STR("/dir/page"), .lookup = lookup, .matched = matched
    };

    for (unsigned i = 0; i < MIN(p->param_count, (unsigned) SSI_PARAMS_MAX); i++) {
        struct str value = str_dup(arena, p->params[i].value), out;

        if (ssi_evaluate(&scope, value, SSI_RELATIVE, &out) == 0 && out.len == 0)
            abort();
        ssi_evaluate(&scope, value, 0, &out);
        ssi_condition(&scope, value);
    }
    ssi_scope_free(&scope);
}

/* Text as it stands, commands in brackets. */
static struct str outcome(struct arena *arena, const struct search *opening, const uint8_t *data,
                          size_t size, size_t step, size_t value_max, bool values)
{
    struct ssi_parser p = {
        .arena = arena, .log = &quiet, .opening = opening, .value_max = value_max
    };
    struct chain out = CHAIN_INIT;
    struct str result;

    for (size_t at = 0; at < size; at += step) {
        size_t n = MIN(step, size - at), done = 0, used;
        char *piece = malloc(n);

        memcpy(piece, data + at, n);
        while (done < n) {
            struct ssi_text text;
            enum ssi_event event = ssi_parse(&p, str_from(piece + done, n - done), &used, &text);

            if (used == 0 || used > n - done || text.len > used || text.opening > 4)
                abort();
            chain_write(&out, SSI_OPENING, text.opening);
            chain_write(&out, piece + done, text.len);
            done += used;
            if (event == SSI_BROKEN)
                chain_write(&out, "\1broken\2", 8);
            if (event != SSI_COMMAND)
                continue;
            chain_printf(&out, "\1%.*s %u", STR_ARG(p.command), p.param_count);
            for (unsigned i = 0; i < MIN(p.param_count, (unsigned) SSI_PARAMS_MAX); i++) {
                if (p.params[i].value.len > value_max || p.params[i].name.len > SSI_NAME_MAX)
                    abort();
                chain_write(&out, p.params[i].name.ptr, p.params[i].name.len);
                chain_write(&out, &p.params[i].quote, 1);
                chain_write(&out, p.params[i].value.ptr, p.params[i].value.len);
            }
            chain_write(&out, "\2", 1);
            if (values)
                evaluate(arena, &p);
        }
        free(piece);
    }
    chain_write(&out, SSI_OPENING, ssi_parse_end(&p));
    result = chain_flatten(&out, arena);
    chain_clear(&out);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena;
    struct search *opening;

    if (size < 2 || size > 8000)
        return 0;
    arena = arena_new();
    opening = ssi_opening(arena);
    if (!str_eq(outcome(arena, opening, data + 2, size - 2, SIZE_MAX / 2, data[1], true),
                outcome(arena, opening, data + 2, size - 2, data[0] % 20 + 1u, data[1], false))) {
        fprintf(stderr, "another outcome\n");
        abort();
    }
    arena_destroy(arena);
    arena_trim();
    block_trim();
    return 0;
}
