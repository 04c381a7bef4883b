/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading files: nginx's sentences with their place, the source line and the caret, several errors
 * in one run, include, -g, blocks read line by line, typed setters, the dump, the manual and a
 * file of ten thousand servers.
 */
#include "t/unit/core/config/toy.h"

#include "core/config/resource.h"

struct toy {
    bool flag;
    int64_t num, ranged;
    size_t size;
    uint64_t off, ms, sec;
    unsigned choice, bits;
    struct str str;
    struct str_list list;
    struct conf_bufs bufs;
    struct conf_path path;
    struct str file, conf_file;
    struct str raw;
    struct str_list lines;
    struct str names;
};

static unsigned toy_slot;
static bool fail_post;
const struct module module_toy;

static const char *open_block(struct conf *cf, void *field)
{
    (void) field;
    if (cf->nargs > 1 && str_eq(cf->args[1], STR("refuse")))
        return conf_error_arg(cf, 1, "refused \"%s\"", cf->args[1].ptr);
    return conf_block(cf, conf_level(cf, (unsigned) (uintptr_t) cf->row->extra, NULL));
}

static const char *add_line(struct conf *cf, void *data)
{
    struct toy *toy = data;

    if (cf->nargs != 2)
        return conf_error(cf, "invalid number of the map parameters");
    str_list_add(cf->arena, &toy->lines,
        str_printf(cf->arena, "%s=%s", cf->args[0].ptr, cf->args[1].ptr));
    return NULL;
}

static const char *set_map(struct conf *cf, void *field)
{
    const char *error = conf_lines(cf, add_line, container_of(field, struct toy, lines));

    ok(error || str_eq(cf->args[0], STR("map")), "after its block a setter finds its own words");
    return error;
}

static const char *set_raw(struct conf *cf, void *field)
{
    *(struct str *) field = cf->raw;
    return NULL;
}

static const struct conf_enum choices[] = { { "any", 1 }, { "all", 2 }, { NULL, 0 } };
static const struct conf_range range = { 1, 9 };

#define BLOCK(name_, in_, makes_, ...) \
    { .name = name_, .contexts = in_, .args = ARGS_ANY | ARG_BLOCK, .set = open_block, \
      .inherit = INHERIT_DONE, .extra = (const void *) (uintptr_t) (makes_) }
#define REPEATED(name_, in_, makes_)                                                             \
    {                                                                                            \
        .name = name_, .contexts = in_, .args = ARGS_ANY | ARG_BLOCK | ARG_REPEAT,               \
        .set = open_block, .inherit = INHERIT_DONE, .extra = (const void *) (uintptr_t) (makes_) \
    }
#define HSL_ROW(name_, args_, set_, member_, ...) \
    ROW(name_, CTX_HSL, args_, set_, STORE_LOC, struct toy, member_, INHERIT_SCALAR, NULL, \
        "value", "A toy.", __VA_ARGS__)

static const struct directive toy_rows[] = {
    BLOCK("http", CTX_MAIN, CTX_HTTP),
    REPEATED("server", CTX_HTTP, CTX_SERVER),
    REPEATED("location", CTX_SERVER | CTX_LOCATION, CTX_LOCATION),
    HSL_ROW("flag", ARG_FLAG, conf_set_flag, flag),
    HSL_ROW("num", ARGS1, conf_set_num, num),
    HSL_ROW("ranged", ARGS1, conf_set_num, ranged, .extra = &range),
    HSL_ROW("size", ARGS1, conf_set_size, size),
    HSL_ROW("off", ARGS1, conf_set_off, off),
    HSL_ROW("ms", ARGS1, conf_set_ms, ms),
    HSL_ROW("sec", ARGS1, conf_set_sec, sec),
    HSL_ROW("choice", ARGS1, conf_set_enum, choice, .extra = choices),
    HSL_ROW("bits", ARGS1_MORE, conf_set_bits, bits, .extra = choices),
    HSL_ROW("str", ARGS1, conf_set_str, str),
    HSL_ROW("list", ARGS2_MORE | ARG_REPEAT, conf_set_list, list),
    HSL_ROW("bufs", ARGS2, conf_set_bufs, bufs),
    HSL_ROW("path", ARGS1 | ARGS2 | ARGS3 | ARGS4, conf_set_path, path),
    HSL_ROW("file", ARGS1, conf_set_file, file),
    HSL_ROW("conf_file", ARGS1, conf_set_conf_file, conf_file),
    HSL_ROW("map", ARGS0 | ARG_BLOCK, set_map, lines),
    HSL_ROW("raw", ARGS0 | ARG_BLOCK | ARG_RAW_BLOCK, set_raw, raw),
    HSL_ROW("proxy_pass", ARGS1, conf_set_str, names),
    { .name = "old", .contexts = CTX_ANY, .args = ARGS1, .set = conf_ignored,
      .inherit = INHERIT_DONE, .syntax = "x", .doc = "Has no meaning here." },
    ROW_END,
};

static int toy_post(struct conf *cf)
{
    if (!fail_post)
        return 0;
    conf_error_at(cf, (struct conf_pos){ cf->config->file, 1, 3 }, "found late");
    return -1;
}

/* .http makes it an http module: no structure of its own at main. */
static const char not_looked_into;
const struct module module_toy = {
    .name = "toy",
    .slot = &toy_slot,
    .conf_size = { 0, 0, sizeof(struct toy) },
    .directives = toy_rows,
    .http = (const struct http_module *) (const void *) &not_looked_into,
    .post = toy_post,
};
const struct module *const modules[] = { &module_toy, NULL };

/* One file, one error: the sentence with its line, and what the caret's line says. */
static void sentences(void)
{
    static const struct {
        const char *text, *sentence;
        unsigned line;
        const char *shown; /* NULL: not looked at */
    } cases[] = {
        { "http { }\n}\n", "unexpected \"}\"", 2, "}\n^ no block is open here\n" },
        { ";", "unexpected \";\"", 1, ";\n^\n" },
        { "http { { } }", "unexpected \"{\"", 1, NULL },
        { "http {\n", "unexpected end of file, expecting \"}\"", 2, NULL },
        { "http", "unexpected end of file, expecting \";\" or \"}\"", 1, NULL },
        { "http {\n str \"a;\n}\n", "unexpected end of file, expecting \";\" or \"}\"", 4,
          "\n^ the quote that opens in line 2 is not closed\n" },
        { "http { str a }", "unexpected \"}\"", 1, NULL },
        { "http { str a { } }", "directive \"str\" is not terminated by \";\"", 1, NULL },
        { "http ;", "directive \"http\" has no opening \"{\"", 1, "http ;\n^\n" },
        { "http {\n\tproxy_pas x;\n}", "unknown directive \"proxy_pas\"", 2,
          "\tproxy_pas x;\n\t^ did you mean \"proxy_pass\"?\n" },
        { "http { serevr { { } \"}\" } }", "unknown directive \"serevr\"", 1, NULL },
        { "ssl_alpn x;", "unknown directive \"ssl_alpn\"", 1,
          "ssl_alpn x;\n^ a directive of nginx that this build of proxyd does not have\n" },
        { "pcre_ji on;", "unknown directive \"pcre_ji\"", 1, "pcre_ji on;\n^\n" },
        { "zzz;", "unknown directive \"zzz\"", 1, "zzz;\n^\n" },
        { "inclde x;", "unknown directive \"inclde\"", 1,
          "inclde x;\n^ did you mean \"include\"?\n" },
        { "server { }", "\"server\" directive is not allowed here", 1,
          "server { }\n^ it may stand in: http\n" },
        { "http { size 1 2; }", "invalid number of arguments in \"size\" directive", 1,
          "http { size 1 2; }\n       ^ its syntax: size value\n" },
        { "http {\nsize 1\nstr 2;\n}", "invalid number of arguments in \"size\" directive", 2,
          "size 1\n^ is a \";\" missing before \"str\" in line 3?\n" },
        { "http { size 1; size 2; }", "\"size\" directive is duplicate", 1,
          "http { size 1; size 2; }\n               ^\n" },
        { "http { } http { }", "\"http\" directive is duplicate", 1, NULL },
        { "http { flag yes; }",
          "invalid value \"yes\" in \"flag\" directive, it must be \"on\" or \"off\"", 1,
          "http { flag yes; }\n            ^\n" },
        { "http { flag; }", "invalid number of arguments in \"flag\" directive", 1, NULL },
        { "http { num x; }", "\"num\" directive invalid number", 1, NULL },
        { "http { num -1; }", "\"num\" directive invalid number", 1, NULL },
        { "http { num 99999999999999999999; }", "\"num\" directive invalid number", 1, NULL },
        { "http { ranged 10; }", "value must be between 1 and 9", 1, NULL },
        { "http { size 1g; }", "\"size\" directive invalid value", 1, NULL },
        { "http { size 1x; }", "\"size\" directive invalid value", 1, NULL },
        { "http { size 99999999999999999999k; }", "\"size\" directive invalid value", 1, NULL },
        { "http { off -1; }", "\"off\" directive invalid value", 1, NULL },
        { "http { ms 1x; }", "\"ms\" directive invalid value", 1, NULL },
        { "http { sec 1ms; }", "\"sec\" directive invalid value", 1, NULL },
        { "http { choice x; }", "invalid value \"x\"", 1,
          "http { choice x; }\n              ^ one of: any, all\n" },
        { "http { bits any x; }", "invalid value \"x\"", 1, NULL },
        { "http { bufs 0 1k; }", "\"bufs\" directive invalid value", 1, NULL },
        { "http { bufs 4 xk; }", "\"bufs\" directive invalid value", 1, NULL },
        { "http { path a 4; }", "\"path\" directive invalid value", 1, NULL },
        { "http { path a 0; }", "\"path\" directive invalid value", 1, NULL },
        { "http { list a; }", "invalid number of arguments in \"list\" directive", 1, NULL },
        { "http { map { a; } }", "invalid number of the map parameters", 1, NULL },
        { "http { map { a b { c d; } } }", "unexpected \"{\"", 1, NULL },
        { "http { map { a b;\n", "unexpected end of file, expecting \"}\"", 2, NULL },
        { "http { raw { { } }", "unexpected end of file, expecting \"}\"", 1, NULL },
        { "http { str \"a\"b; }", "unexpected \"b\"", 1, NULL },
        { "http { server refuse { wrong; } }", "refused \"refuse\"", 1,
          "http { server refuse { wrong; } }\n              ^\n" },
        { "\xef\xbb\xbfhttp { }", "unexpected UTF-8 byte order mark", 1, NULL },
        { "include none.conf;", "failed (2: No such file or directory)", 1, NULL },
        { "include;", "invalid number of arguments in \"include\" directive", 1, NULL },
        { "include {}", "directive \"include\" is not terminated by \";\"", 1, NULL },
        { "include a b;", "invalid number of arguments in \"include\" directive", 1, NULL },
        { "http {\n \xc3\xa4\xc3\xb6 x; }", "unknown directive \"\xc3\xa4\xc3\xb6\"", 2,
          " \xc3\xa4\xc3\xb6 x; }\n ^\n" },
        { "http { str \xc3\xa4 b; }", "invalid number of arguments in \"str\" directive", 1, NULL },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char line[512];

        snprintf(line, sizeof(line), "%s in %s:%u\n", cases[i].sentence, toy_path("t.conf"),
            cases[i].line);
        ok(toy_read(cases[i].text) == NULL, "case %u is refused", i);
        if (!ok(strstr(toy_logged, line) != NULL, "%s", cases[i].sentence))
            diag("%s, not %s", toy_logged, line);
        is_uint(toy_count("[emerg]"), 1, "nothing else is said");
        if (cases[i].shown)
            is_str(toy_shown, cases[i].shown, "what is shown for it");
    }
}

static void several(void)
{
    struct config *config =
        toy_read("http {\n proxy_pas x;\n server {\n  flag maybe;\n  location / {\n"
                 "   unknown_block { listen 80; ; } size 1; size 2; }\n"
                 "  str \"a\"b c; num x }\n server { off z; }\n}\nfoo;\n");
    static const char *const expected[] = {
        "unknown directive \"proxy_pas\"",
        "invalid value \"maybe\"",
        "unknown directive \"unknown_block\"",
        "\"size\" directive is duplicate",
        "unexpected \"b\"",
        "unexpected \"}\"",
        "\"off\" directive invalid value",
        "unknown directive \"foo\"",
    };
    const char *p = toy_logged;

    ok(config == NULL, "a file with several errors");
    for (unsigned i = 0; i < ARRAY_LEN(expected); i++) {
        p = p ? strstr(p, expected[i]) : NULL;
        ok(p != NULL, "in order: %s", expected[i]);
    }
    is_uint(toy_count("[emerg]"), ARRAY_LEN(expected), "and no others");
}

static void too_many(void)
{
    char text[4096] = "http {\n";

    for (int i = 0; i < 100; i++)
        strcat(text, "nonsense x;\n");
    strcat(text, "}\n");
    ok(toy_read(text) == NULL, "a hundred errors");
    is_uint(toy_count("unknown directive"), CONF_ERRORS_MAX, "of which twenty are shown");
    is_uint(toy_count("giving up"), 1, "and the rest announced");
}

static void values(void)
{
    struct config *config = toy_read(
        "http { flag ON; num 7; ranged 9; size 4K; off 2g; ms 1m30s; sec 2h; choice ALL;\n"
        "bits any all any; str \"\"; list a b; list c d; bufs 4 8k; path spool/ 1 2; file logs/x; conf_file k;\n"
        "map { a b; \"c d\" e; } raw { x = { } } old y; }");
    struct level *http;
    struct toy *toy;

    if (!ok(config != NULL, "values of every type"))
        return;
    http = container_of(config->main->children.next, struct level, sibling);
    toy = level_conf(http, STORE_LOC, toy_slot);
    ok(toy->flag, "flag");
    is_int(toy->num, 7, "number");
    is_int(toy->ranged, 9, "number in a range");
    is_uint(toy->size, 4096, "size");
    is_uint(toy->off, 2ull << 30, "offset");
    is_uint(toy->ms, 90000, "milliseconds");
    is_uint(toy->sec, 7200, "seconds");
    is_uint(toy->choice, 2, "one of several, in any case");
    is_uint(toy->bits, 3, "several of several");
    is_uint(toy_count("duplicate value \"any\""), 1, "one of them twice is a warning");
    ok(toy->str.ptr != NULL && toy->str.len == 0, "an empty string is there");
    is_uint(toy->list.count, 4, "lists add up");
    ok(toy->bufs.count == 4 && toy->bufs.size == 8192, "number and size");
    is_str(toy->path.path.ptr, toy_path("spool"), "a path below the prefix");
    ok(toy->path.levels[0] == 1 && toy->path.levels[1] == 2 && toy->path.levels[2] == 0,
       "its levels");
    ok(!list_empty(&config->resources->paths), "which will be made at the start");
    is_str(toy->file.ptr, toy_path("logs/x"), "a file below the prefix");
    is_str(toy->conf_file.ptr, toy_path("k"), "a file below the configuration's directory");
    is_uint(toy->lines.count, 2, "a block line by line");
    is_str(toy->lines.items[1].ptr, "c d=e", "with its words");
    is_str(toy->raw.ptr, " x = { } ", "a block unread");
    config_free(config);
}

static void includes(void)
{
    struct config *config;
    char *dump;
    size_t len;
    FILE *out;

    toy_put("b.inc", "str b;", 6);
    toy_put("a.inc", "num 1", 5);
    ok(toy_read("http { include a.inc; }") == NULL,
       "an included file must end its directives itself");
    toy_put("a.inc", "server { num 1; } ", 18);
    config = toy_read("http { include *.inc; include none*.inc; map { include m.map; } }");
    ok(config == NULL, "a missing file inside a map");
    toy_put("m.map", "x y;\n", 5);
    config = toy_read("http { include [ab].inc; include none*.inc; server { include b.inc; }\n"
                      "map { include m.map; } }");
    if (!ok(config != NULL, "files in files"))
        return;
    out = open_memstream(&dump, &len);
    config_dump(config, out);
    fclose(out);
    is_uint(len, strlen(dump), "the dump");
    ok(strstr(dump, "/t.conf:\nhttp { include [ab].inc;") != NULL, "begins with the file itself");
    ok(strstr(dump, "/a.inc:\nserver { num 1; } \n# configuration file ") != NULL, "then in order");
    ok(strstr(strstr(dump, "/b.inc:") + 1, "/b.inc:") == NULL, "each file once");
    free(dump);
    config_free(config);
    toy_put("b.inc", "}", 1);
    ok(toy_read("http { include b.inc; }") == NULL, "a block ends in the file where it began");
    is_uint(toy_count("unexpected \"}\" in"), 1, "and says so");
    toy_put("b.inc", "include b.inc;", 14);
    ok(toy_read("include b.inc;") == NULL, "a file that includes itself");
    is_uint(toy_count("too many nested includes"), 1, "ends");
    toy_put("b.inc", "include ?.inc; include ?.inc;", 29);
    ok(toy_read("include b.inc;") == NULL, "even if it does so twice");
}

static void globals(void)
{
    static const char *const broken[][2] = {
        { "foo 1;", "unknown directive \"foo\" in command line\n" },
        { "old 1", "unexpected end of parameter, expecting \";\" in command line\n" },
        { "http { }", "block directives are not supported in -g option in command line\n" },
    };
    struct config *config;

    toy_put("t.conf", "http { }", 8);
    config = toy_read_with("old 1;");
    ok(config != NULL, "-g is read before the file");
    config_free(config);
    for (unsigned i = 0; i < ARRAY_LEN(broken); i++) {
        ok(toy_read_with(broken[i][0]) == NULL, "-g %s", broken[i][0]);
        ok(strstr(toy_logged, broken[i][1]) != NULL, "%s", broken[i][1]);
    }
    toy_put("t.conf", "old 2;", 6);
    ok(toy_read_with("old 1;") == NULL, "what -g has set");
    is_uint(toy_count("\"old\" directive is duplicate in"), 1, "is a duplicate in the file");
}

static void late(void)
{
    fail_post = true;
    ok(toy_read("http { }") == NULL, "an error found after reading");
    ok(strstr(toy_logged, "found late in ") != NULL, "is an error like others");
    is_str(toy_shown, "http { }\n  ^\n", "with its place");
    fail_post = false;
}

static void manual(void)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    config_manual(out);
    fclose(out);
    ok(strstr(text, "## toy\n") != NULL, "the manual goes by module");
    ok(strstr(text, "### size\n\nA toy.\n\n- Syntax: `size value;`\n- Default: none\n"
                    "- Context: http, server, location\n") != NULL, "an entry");
    ok(strstr(text, "### include\n") != NULL, "include is there too");
    free(text);
}

static void deep(void)
{
    size_t n = CONF_BLOCK_MAX + 50, len = 0;
    char *text = malloc(n * 16 + 64);

    len += (size_t) sprintf(text, "http { server { ");
    for (size_t i = 0; i < n; i++)
        len += (size_t) sprintf(text + len, "location / { ");
    for (size_t i = 0; i < n + 2; i++)
        len += (size_t) sprintf(text + len, "}");
    ok(toy_read(text) == NULL, "blocks without end");
    is_uint(toy_count("too many nested blocks"), 1, "are an error");
    is_uint(toy_count("[emerg]"), 1, "and one only");
    free(text);
}

static void many_servers(void)
{
    enum { N = 10000 };
    size_t len = 0;
    char *text = malloc(N * 256);
    struct config *config;
    struct level *http;
    unsigned servers = 0, own = 0;

    len += (size_t) sprintf(text, "http {\n");
    for (int i = 0; i < N; i++)
        len += (size_t) sprintf(text + len, "server {\n  list host%d.example www.host%d.example;\n"
            "  num 80;\n  location / { proxy_pass http://10.0.0.%d; }\n"
            "  location /static/ { str /srv/host%d; off 10m; }\n}\n", i, i, i % 250, i);
    sprintf(text + len, "}\n");
    config = toy_read(text);
    free(text);
    if (!ok(config != NULL, "ten thousand servers"))
        return;
    http = container_of(config->main->children.next, struct level, sibling);
    for (struct list *l = http->children.next; l != &http->children; l = l->next) {
        struct level *server = container_of(l, struct level, sibling);
        struct level *location = container_of(server->children.prev, struct level, sibling);
        struct toy *toy = level_conf(location, STORE_LOC, toy_slot);

        own += toy->num == 80 && toy->list.count == 2 && toy->off == 10 << 20;
        servers++;
    }
    is_uint(servers, N, "all of them there");
    is_uint(own, N, "each with its values, in its last location too");
    config_free(config);
}

int main(void)
{
    static const char *const files[] = { "t.conf", "a.inc", "b.inc", "m.map", NULL };

    toy_start();
    sentences();
    several();
    too_many();
    values();
    includes();
    globals();
    late();
    manual();
    deep();
    many_servers();
    toy_end(files);
    return done_testing();
}
