/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regular expressions by PCRE2, behind core/event/regex.h. One process shares one match
 * context (limits, JIT stack) and one block for match results, so that a match allocates
 * nothing. Limits keep a pattern that backtracks without end from stopping the worker.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/base/arena.h"
#include "core/event/regex.h"

#define MATCH_LIMIT 1000000    /* steps of backtracking in one match */
#define HEAP_LIMIT_KIB 16384   /* memory that one match may take for it */
#define JIT_STACK_FIRST (32 * 1024)
#define JIT_STACK_MAX (1024 * 1024)

struct regex {
    pcre2_code *code;
    struct str pattern;
    unsigned groups;
    unsigned names;
    unsigned name_size; /* bytes of an entry: number (2), name, NUL */
    const char *name_table;
};

static pcre2_match_context *context;
static pcre2_match_data *result;
static bool use_jit;
static char error_text[192];

void regex_use_jit(bool on)
{
    use_jit = on;
}

/* What all matches share. Lives as long as the process. */
static void share_init(void)
{
    pcre2_jit_stack *stack;

    if (context)
        return;
    context = pcre2_match_context_create(NULL);
    result = pcre2_match_data_create(REGEX_CAPTURES_MAX, NULL);
    ASSERT(context && result);
    pcre2_set_match_limit(context, MATCH_LIMIT);
    pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
    stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
    /* NULL where PCRE2 has no JIT: then nothing uses it. */
    if (stack)
        pcre2_jit_stack_assign(context, NULL, stack);
}

static void code_free(void *code)
{
    pcre2_code_free(code);
}

static struct str compile_error(struct arena *arena, struct str pattern, int code, size_t at)
{
    PCRE2_UCHAR text[160];

    if (pcre2_get_error_message(code, text, sizeof(text)) < 0)
        snprintf((char *) text, sizeof(text), "error %d", code);
    if (at >= pattern.len)
        return str_printf(arena, "pcre2_compile() failed: %s in \"%.*s\"", (char *) text,
                          STR_ARG(pattern));
    return str_printf(arena, "pcre2_compile() failed: %s in \"%.*s\" at \"%.*s\"", (char *) text,
                      STR_ARG(pattern), STR_ARG(str_skip(pattern, at)));
}

struct regex *regex_compile(struct arena *arena, struct str pattern, bool caseless,
                            struct str *error)
{
    uint32_t options = caseless ? PCRE2_CASELESS : 0, value;
    struct regex *re;
    pcre2_code *code;
    PCRE2_SIZE at;
    int failed;

    share_init();
    code = pcre2_compile((PCRE2_SPTR) (pattern.len ? pattern.ptr : ""), pattern.len, options,
                         &failed, &at, NULL);
    if (!code) {
        *error = compile_error(arena, pattern, failed, at);
        return NULL;
    }
    arena_defer(arena, code_free, code);
    /* Failure leaves the interpreter, which does the same more slowly. */
    if (use_jit)
        pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    re = ARENA_NEW(arena, struct regex);
    re->code = code;
    re->pattern = str_dup(arena, pattern);
    pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &value);
    re->groups = value;
    pcre2_pattern_info(code, PCRE2_INFO_NAMECOUNT, &value);
    re->names = value;
    pcre2_pattern_info(code, PCRE2_INFO_NAMEENTRYSIZE, &value);
    re->name_size = value;
    pcre2_pattern_info(code, PCRE2_INFO_NAMETABLE, &re->name_table);
    return re;
}

/* All groups of the pattern: those behind the last one that took part are unset by the library. */
static void report(const struct regex *re, struct regex_match *match)
{
    const PCRE2_SIZE *ovector = pcre2_get_ovector_pointer(result);

    match->count = MIN(re->groups + 1, REGEX_CAPTURES_MAX);
    for (unsigned i = 0; i < match->count * 2; i++)
        match->pos[i] = ovector[i] == PCRE2_UNSET ? -1 : (int) ovector[i];
}

int regex_exec(const struct regex *re, struct str subject, struct regex_match *match)
{
    int rc;

    if (subject.len > INT32_MAX) {
        snprintf(error_text, sizeof(error_text), "subject is too long");
        return -1;
    }
    rc = pcre2_match(re->code, (PCRE2_SPTR) (subject.len ? subject.ptr : ""), subject.len, 0, 0,
                     result, context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        PCRE2_UCHAR text[128];

        if (pcre2_get_error_message(rc, text, sizeof(text)) < 0)
            snprintf((char *) text, sizeof(text), "unknown error");
        snprintf(error_text, sizeof(error_text), "pcre2_match() failed: %s (%d)",
                 (char *) text, rc);
        return -1;
    }
    if (match)
        report(re, match);
    return 1;
}

const char *regex_error(void)
{
    return error_text;
}

unsigned regex_groups(const struct regex *re)
{
    return re->groups;
}

unsigned regex_names(const struct regex *re)
{
    return re->names;
}

struct str regex_name(const struct regex *re, unsigned i, unsigned *group)
{
    const char *entry = re->name_table + (size_t) i * re->name_size;

    ASSERT(i < re->names);
    *group = (unsigned) (unsigned char) entry[0] << 8 | (unsigned char) entry[1];
    return str_cstr(entry + 2);
}

struct str regex_pattern(const struct regex *re)
{
    return re->pattern;
}
