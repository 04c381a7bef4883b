/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Errors for the user: the log line in nginx's wording with FILE:LINE, then the source line, a
 * caret under the word at fault and, where there is one, a remark that helps. Counts errors and
 * stops the parse when there are too many. Called by all of core/config and, through
 * conf_error_at, by modules; decides nothing about the configuration.
 */
#include "core/config/parse.h"
#include "core/config/record.h"

const char conf_stopped[] = "stopped";

static const char *vsentence(struct conf *cf, const char *fmt, va_list ap)
{
    return str_vprintf(cf->arena, fmt, ap).ptr;
}

const char *conf_error(struct conf *cf, const char *fmt, ...)
{
    const char *s;
    va_list ap;

    va_start(ap, fmt);
    s = vsentence(cf, fmt, ap);
    va_end(ap);
    return s;
}

const char *conf_error_arg(struct conf *cf, unsigned n, const char *fmt, ...)
{
    const char *s;
    va_list ap;

    va_start(ap, fmt);
    s = vsentence(cf, fmt, ap);
    va_end(ap);
    conf_parser(cf)->caret = n < cf->nargs ? n : 0;
    return s;
}

/* " in FILE:LINE", or where else it is. */
static struct str place(struct conf *cf, struct conf_pos pos)
{
    if (pos.file == NULL)
        return STR("");
    if (pos.line == 0 || pos.file == conf_command_line)
        return str_printf(cf->arena, " in %s", pos.file);
    return str_printf(cf->arena, " in %s:%u", pos.file, pos.line);
}

struct str conf_source_line(const struct config *config, struct conf_pos pos)
{
    for (struct list *l = config->files.next; l != &config->files; l = l->next) {
        const struct conf_file *f = container_of(l, struct conf_file, link);
        struct str rest = f->content;

        if (f->path != pos.file && strcmp(f->path, pos.file) != 0)
            continue;
        for (unsigned line = 1; line < pos.line; line++) {
            ssize_t nl = str_chr(rest, '\n');

            if (nl < 0)
                return STR_NULL;
            rest = str_skip(rest, (size_t) nl + 1);
        }
        if (str_chr(rest, '\n') >= 0)
            rest.len = (size_t) str_chr(rest, '\n');
        return rest;
    }
    return STR_NULL;
}

static bool is_continuation(char c)
{
    return ((unsigned char) c & 0xc0) == 0x80;
}

void conf_show_source(const struct config *config, FILE *out, struct conf_pos pos, const char *hint)
{
    struct str line = pos.line ? conf_source_line(config, pos) : STR_NULL;
    size_t from = 0, to, caret = pos.column ? pos.column - 1 : 0;

    if (line.ptr == NULL) {
        if (hint)
            fprintf(out, "%s\n", hint);
        return;
    }
    if (line.len && line.ptr[line.len - 1] == '\r')
        line.len--;
    caret = MIN(caret, line.len);
    if (caret > 80)
        from = caret - 40;
    to = MIN(line.len, from + 120);
    while (from > 0 && is_continuation(line.ptr[from]))
        from--;
    while (to < line.len && is_continuation(line.ptr[to]))
        to++;
    for (size_t i = from; i < to; i++) {
        unsigned char c = (unsigned char) line.ptr[i];

        fputc(c == '\t' || (c >= 0x20 && c != 0x7f) ? c : '?', out);
    }
    fputc('\n', out);
    if (pos.column) {
        for (size_t i = from; i < caret; i++) {
            if (!is_continuation(line.ptr[i]))
                fputc(line.ptr[i] == '\t' ? '\t' : ' ', out);
        }
        fprintf(out, hint ? "^ %s\n" : "^\n", hint);
    } else if (hint) {
        fprintf(out, "%s\n", hint);
    }
}

/* A line of the log about a place; the report, if there is one, gets its parts. */
static void say(struct conf *cf, enum log_level level, struct conf_pos pos, const char *sentence,
                const char *hint)
{
    struct conf_report *report = cf->config->report;
    struct conf_message parts = { .text = str_cstr(sentence), .pos = pos, .hint = hint };

    if (report)
        report->pending = &parts;
    LOG(cf->log, level, 0, "%s%s", sentence, place(cf, pos).ptr);
    if (report)
        report->pending = NULL;
}

void error_report(struct conf *cf, struct conf_pos pos, const char *sentence, const char *hint)
{
    struct config *config = cf->config;
    struct parser *parser = conf_parser(cf);

    if (config->errors >= CONF_ERRORS_MAX)
        return;
    config->errors++;
    say(cf, LOG_EMERG_LEVEL, pos, sentence, hint);
    if (config->details)
        conf_show_source(config, config->details, pos, hint);
    if (config->errors == CONF_ERRORS_MAX) {
        log_emerg(cf->log, 0, "%u errors in the configuration, giving up", config->errors);
        parser->stop = true;
    }
}

void conf_error_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...)
{
    const char *s;
    va_list ap;

    va_start(ap, fmt);
    s = vsentence(cf, fmt, ap);
    va_end(ap);
    error_report(cf, pos, s, NULL);
}

void conf_warn_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...)
{
    const char *s;
    va_list ap;

    va_start(ap, fmt);
    s = vsentence(cf, fmt, ap);
    va_end(ap);
    cf->config->warnings++;
    say(cf, LOG_WARN_LEVEL, pos, s, NULL);
}

void conf_notice_at(struct conf *cf, struct conf_pos pos, const char *fmt, ...)
{
    const char *s;
    va_list ap;

    va_start(ap, fmt);
    s = vsentence(cf, fmt, ap);
    va_end(ap);
    say(cf, LOG_NOTICE_LEVEL, pos, s, NULL);
}

#define NEAR_MAX 40 /* longer names are not compared */

/*
 * How many insertions, deletions, changes and swaps of neighbours make a into b, or limit + 1 if
 * more than limit (optimal string alignment).
 */
static unsigned edit_distance(struct str a, struct str b, unsigned limit)
{
    unsigned char rows[3][NEAR_MAX + 1];
    unsigned char *before = rows[0], *above = rows[1], *now = rows[2];

    if (a.len > NEAR_MAX || b.len > NEAR_MAX || a.len > b.len + limit || b.len > a.len + limit)
        return limit + 1;
    for (size_t j = 0; j <= b.len; j++)
        above[j] = (unsigned char) j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned char *spare = before;

        now[0] = (unsigned char) i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned d = above[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);

            d = MIN(d, MIN(above[j], now[j - 1]) + 1u);
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1])
                d = MIN(d, before[j - 2] + 1u);
            now[j] = (unsigned char) d;
        }
        before = above;
        above = now;
        now = spare;
    }
    return MIN((unsigned) above[b.len], limit + 1);
}

/* How far off a name may be and still be meant: one slip in short names, three in long ones. */
static unsigned near_limit(struct str name)
{
    return name.len < 3 ? 0 : name.len < 6 ? 1 : name.len < 12 ? 2 : 3;
}

int error_nearest(struct str name, const struct str *candidates, unsigned count)
{
    unsigned best = near_limit(name);
    int found = -1;

    for (unsigned i = 0; i < count; i++) {
        unsigned d = edit_distance(name, candidates[i], best);

        if (d < best || (d == best && found < 0)) {
            best = d;
            found = (int) i;
        }
    }
    return found;
}

const char *error_near_directive(struct conf *cf, struct str name)
{
    /*
     * A name that may stand here counts half a slip less; ties go to the alphabet, not to the
     * table.
     */
    unsigned limit = near_limit(name), i = 0, best = limit * 2 + 2;
    struct str nearest = STR_NULL;
    struct known_row include = { .row = &include_row };
    const struct known_row *k = &include;

    for (; k; k = known_next(&i)) {
        struct str other = str_cstr(k->row->name);
        unsigned d = edit_distance(name, other, limit);
        bool here = false;

        if (d > limit)
            continue;
        for (const struct known_row *r = k; r; r = r->next)
            here |= (r->row->contexts & cf->level->context) != 0;
        d = d * 2 + !here;
        if (d < best || (d == best && nearest.ptr && str_cmp(other, nearest) < 0)) {
            best = d;
            nearest = other;
        }
    }
    if (nearest.ptr == NULL)
        return NULL;
    return str_printf(cf->arena, "did you mean \"%.*s\"?", STR_ARG(nearest)).ptr;
}

struct str context_names(struct arena *arena, unsigned contexts)
{
    static const struct {
        unsigned context;
        const char *name;
    } all[] = {
        { CTX_MAIN, "main" }, { CTX_EVENTS, "events" }, { CTX_HTTP, "http" },
        { CTX_STREAM, "stream" }, { CTX_UPSTREAM | CTX_STREAM_UPSTREAM, "upstream" },
        { CTX_SERVER | CTX_STREAM_SERVER, "server" }, { CTX_LOCATION, "location" },
        { CTX_IF_SERVER, "if in server" }, { CTX_IF_LOCATION, "if in location" },
        { CTX_LIMIT_EXCEPT, "limit_except" }, { CTX_MATCH, "match" },
    };
    struct str s = STR("");

    if (contexts == CTX_ANY)
        return STR("any");
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        if (contexts & all[i].context)
            s = str_printf(arena, "%.*s%s%s", STR_ARG(s), s.len ? ", " : "", all[i].name);
    }
    return s;
}
