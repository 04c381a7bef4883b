/* SPDX-License-Identifier: BSD-2-Clause */
/* The lexer: words, quotes, backslashes, comments, places, and what may not stand where. */
#include "core/config/parse.h"
#include "t/unit/tap.h"

const struct module *const modules[] = { NULL };

static struct arena *arena;

/*
 * All tokens of a text as one string: words in <>, the rest as it is, "!SENTENCE@LINE:COLUMN" for
 * an error.
 */
static const char *lex(const char *text)
{
    struct str copy = str_dup(arena, str_cstr(text)), out = STR("");
    struct lexer lx;
    struct token t;

    lex_init(&lx, arena, (char *) copy.ptr, copy.len, "f");
    for (;;) {
        switch (lex_next(&lx, &t)) {
        case LEX_WORD: out = str_printf(arena, "%s<%s>", out.ptr, t.text.ptr); break;
        case LEX_SEMICOLON: out = str_printf(arena, "%s;", out.ptr); break;
        case LEX_OPEN: out = str_printf(arena, "%s{", out.ptr); break;
        case LEX_CLOSE: out = str_printf(arena, "%s}", out.ptr); break;
        case LEX_BAD:
            return str_printf(arena, "%s!%s@%u:%u", out.ptr, t.text.ptr, t.pos.line,
                t.pos.column).ptr;
        case LEX_END:
            return t.opened ? str_printf(arena, "%s?%u", out.ptr, t.opened).ptr : out.ptr;
        }
    }
}

static void words(void)
{
    static const char *const cases[][2] = {
        { "a b;", "<a><b>;" },
        { "a{b c;}d", "<a>{<b><c>;}<d>" },
        { " \t\r\na\r\n ;", "<a>;" },
        { "a \"b c\" 'd \"e';", "<a><b c><d \"e>;" },
        { "\"a\\\"b\" \"a\\'b\" 'x\\'y'", "<a\"b><a'b><x'y>" },
        { "a\\ b c", "<a\\ b><c>" },
        { "\"a\\tb\\rc\\nd\"", "<a\tb\rc\nd>" },
        { "a\\tb", "<a\tb>" },
        { "\"a\\\\b\" \"a\\qb\" \\\\", "<a\\b><a\\qb><\\>" },
        { "a\\;b a\\{b;", "<a\\;b><a\\{b>;" },
        { "a\"b a\"b c\"d a\";", "<a\"b><a\"b><c\"d><a\">;" },
        { "a#b #c\nd#", "<a#b><d#>" },
        { "#only", "" },
        { "#a;\n#b\n;", ";" },
        { "${x}y x${y}z ${x y}", "<${x}y><x${y}z><${x><y}>" },
        { "${x;y", "<${x>;<y>" },
        { "$x{y", "<$x>{<y>" },
        { "x${y}{z", "<x${y}>{<z>" },
        { "$ a$ x$; ${;}", "<$><a$><x$>;<${>;}" },
        { "$$ $${", "<$$><$${>" },
        { "\\$x \"a\\$b\" \\#b", "<\\$x><a\\$b><\\#b>" },
        { "\\\"a b", "<\"a><b>" },
        { "a}b }b", "<a}b>}<b>" },
        { "\"x;{}#\";", "<x;{}#>;" },
        { "\"\" ''", "<><>" },
        { "(\"a\") 'b'){", "<(\"a\")><b><)>{" },
        { "\"a\"{ \"b\";", "<a>{<b>;" },
        { "a\\\nb \"c\nd\";", "<a\\\nb><c\nd>;" },
        { "a", "<a>" },
        { "\\", "<\\>" },
        { "\"a\\", "?1" },
        { "a \n'b\n", "<a>?2" },
        { "\xc3\xa4 \"\xe2\x82\xac\"", "<\xc3\xa4><\xe2\x82\xac>" },
    };
    static const char *const broken[][2] = {
        { "a \"b\"c", "<a>!unexpected \"c\"@1:6" },
        { "\n  'b'}", "!unexpected \"}\"@2:6" },
        { "\"b\"#", "!unexpected \"#\"@1:4" },
        { "\"b\"\"c\"", "!unexpected \"\"\"@1:4" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        is_str(lex(cases[i][0]), cases[i][1], "words of case %u", i);
    for (unsigned i = 0; i < ARRAY_LEN(broken); i++)
        is_str(lex(broken[i][0]), broken[i][1], "broken case %u", i);
}

static void places(void)
{
    char text[] = "a  \"b\nc\" d;\n\te{ # x\n}";
    static const unsigned expected[][2] = {
        { 1, 1 }, { 1, 4 }, { 2, 4 }, { 2, 5 }, { 3, 2 }, { 3, 3 }, { 4, 1 }, { 4, 2 },
    };
    struct lexer lx;
    struct token t;

    lex_init(&lx, arena, text, sizeof(text) - 1, "f");
    for (unsigned i = 0; i < ARRAY_LEN(expected); i++) {
        lex_next(&lx, &t);
        ok(t.pos.line == expected[i][0] && t.pos.column == expected[i][1],
            "place of token %u is %u:%u", i, t.pos.line, t.pos.column);
    }
    is_int(t.kind, LEX_END, "then the end");
}

static void limits(void)
{
    size_t n = CONF_WORD_MAX + 2;
    char *text = malloc(n + 2);
    struct lexer lx;
    struct token t;

    memset(text, 'x', n);
    text[n] = '\0';
    lex_init(&lx, arena, text, CONF_WORD_MAX, "f");
    is_int(lex_next(&lx, &t), LEX_WORD, "the longest word");
    is_uint(t.text.len, CONF_WORD_MAX, "has its length");
    memset(text, 'x', n);
    lex_init(&lx, arena, text, n, "f");
    is_int(lex_next(&lx, &t), LEX_BAD, "a longer one is an error");
    is_str(t.text.ptr, "too long parameter \"xxxxxxxxxx...\" started", "that says so");
    text[0] = '\'';
    lex_init(&lx, arena, text, n, "f");
    is_int(lex_next(&lx, &t), LEX_BAD, "and in quotes");
    is_str(t.text.ptr, "too long parameter, probably missing terminating \"'\" character",
        "that says why");
    free(text);
    memcpy((text = malloc(8)), "a\0b;\0", 6);
    lex_init(&lx, arena, text, 4, "f");
    is_int(lex_next(&lx, &t), LEX_BAD, "a NUL byte is no part of a word");
    is_str(t.text.ptr, "unexpected NUL byte", "and named");
    free(text);
}

static void raw(void)
{
    char text[] = "x { if (a) { b = \"}\" } }\n} y;";
    struct lexer lx;
    struct token t;
    struct str out;

    lex_init(&lx, arena, text, sizeof(text) - 1, "f");
    lex_next(&lx, &t);
    lex_next(&lx, &t);
    is_int(lex_raw_block(&lx, &out), 0, "a raw block");
    is_str(out.ptr, " if (a) { b = \"}\" } ", "up to the matching brace");
    lex_next(&lx, &t);
    is_int(t.kind, LEX_CLOSE, "what follows is read as usual");
    is_uint(t.pos.line, 2, "with its line");
    is_int(lex_raw_block(&lx, &out), -1, "an open one is an error");
}

int main(void)
{
    arena = arena_new();
    words();
    places();
    limits();
    raw();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
