/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Server names: what the directive accepts, the order of the kinds of names, conflicts, and random
 * sets of servers compared with a search that looks at every name.
 */
#include "t/unit/core/config/toy.h"

#include "core/http/http.h"

const struct module *const modules[] = { &module_http_core, NULL };

static struct eval eval;
static struct value *values;
static struct regex_match match;
static struct config *config;

static struct http_listen *listen_of(const struct config *c)
{
    return container_of(config_http(c)->listens.next, struct http_listen, link);
}

static void done(void)
{
    arena_destroy(eval.arena);
    config_free(config);
    config = NULL;
}

/* Servers named by a list of server_name lines; "" is a server without one. */
static void servers(const char *const *lines)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    fputs("http {\n", f);
    for (; *lines != NULL; lines++)
        fprintf(f, "server { listen 127.0.0.1:80; %s%s%s }\n", **lines ? "server_name " : "",
                *lines, **lines ? ";" : "");
    fputs("}\n", f);
    fclose(f);
    config = toy_read(text);
    if (config == NULL)
        diag("%s", toy_logged);
    ASSERT(config != NULL);
    free(text);
    values = NULL;
    eval = (struct eval){ .arena = arena_new(),
                          .space = &config_http(config)->vars,
                          .values = &values,
                          .log = &toy_log };
}

/* The server's number, from 0. */
static int number_of(const struct server *s)
{
    const struct http_main *http = config_http(config);

    for (unsigned i = 0; i < http->server_count; i++) {
        if (http->servers[i] == s)
            return (int) i;
    }
    return -1;
}

static int found(const char *host)
{
    return number_of(http_server_find(listen_of(config), str_cstr(host), &eval, &match));
}

#define LINES(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define finds(host, n) is_int(found(host), n, "\"%s\" is server %d", host, n)

static void test_kinds(void)
{
    servers(LINES("default.test", "Example.ORG www.example.org", "*.example.org", "*.a.example.org",
                  ".both.test", "mail.*", "mail.example.*", "~^www\\d+\\.",
                  "~^(?<n>.+)\\.re\\.test$", "\"\" empty.test"));
    finds("default.test", 0);
    finds("nobody.test", 0);
    finds("example.org", 1);
    finds("www.example.org", 1);
    finds("x.example.org", 2);
    finds("y.x.example.org", 2);
    finds("x.a.example.org", 3);
    finds("a.example.org", 2);
    finds(".example.org", 2); /* what stands for the star may be empty, as in nginx */
    finds("both.test", 4);
    finds("x.y.both.test", 4);
    finds("mail.com", 5);
    finds("mail.co.uk", 5);
    finds("mail.example.co.uk", 6);
    finds("mail.example.org", 2); /* leading wildcards come before trailing ones */
    finds("mail", 0);
    finds("mail.", 0);
    finds("www12.nowhere", 7);
    finds("joe.re.test", 8);
    ok(eval.match == &match && str_eq(eval.match_subject, STR("joe.re.test")), "with its captures");
    struct str out;
    ok(var_by_name(&eval, STR("n"), &out) && str_eq(out, STR("joe")), "the named one too");
    finds("", 9);
    finds("empty.test", 9);
    finds(".example.org", 2); /* what stands for the star may be empty, as in nginx */
    is_int(number_of(http_server_find(listen_of(config), STR("joe.re.test"), NULL, NULL)), 8,
           "without captures being wanted");
    done();
}

static void test_order(void)
{
    servers(LINES("~^a", "~^ab", "~B$", "abc"));
    finds("abx", 0);
    finds("xb", 2); /* capitals in a pattern: caseless */
    finds("abc", 3);
    finds("", 0);
    done();
    servers(LINES("a.test", "", "b.test"));
    finds("", 1);
    finds("c.test", 0);
    done();
}

static void test_alone(void)
{
    servers(LINES("a.test"));
    ok(listen_of(config)->names == NULL, "one server needs no table");
    finds("b.test", 0);
    done();
    servers(LINES("a.test \"~^(?<x>.)\""));
    ok(listen_of(config)->names != NULL, "but for the captures of a regex");
    finds("b.test", 0);
    ok(match.count == 2, "which are there");
    done();
}

static void test_primary(void)
{
    servers(LINES(".dot.test b", "\"~^r\" c", "$hostname"));
    const struct http_main *http = config_http(config);
    ok(str_eq(http->servers[0]->name, STR("dot.test")), "$server_name is without the dot");
    ok(str_eq(http->servers[1]->name, STR("~^r")), "a regex as it was written");
    char name[256];
    gethostname(name, sizeof(name));
    ok(str_caseeq(http->servers[2]->name, str_cstr(name)), "$hostname is the machine's");
    done();
}

static void refused(const char *line, const char *why)
{
    char text[256];

    snprintf(text, sizeof(text), "http { server { server_name %s; } server { server_name b; } }",
             line);
    ok(toy_read(text) == NULL, "%s is refused", line);
    ok(toy_count(why) == 1, "with: %s", why);
}

static void test_refused(void)
{
    refused("*", "server name \"*\" is invalid in ");
    refused("*a.test", "server name \"*a.test\" is invalid in ");
    refused("*.", "server name \"*.\" is invalid in ");
    refused(".", "server name \".\" is invalid in ");
    refused("~", "empty regex in server name \"~\" in ");
    refused("\"~(\"", "missing closing parenthesis in \"(\"");
    refused("www.*.test", "invalid server name or wildcard \"www.*.test\" on 0.0.0.0:");
    refused("*.a.*", "invalid server name or wildcard \"*.a.*\" on 0.0.0.0:");
    refused("a..b", "invalid server name or wildcard \"a..b\" on 0.0.0.0:");
    refused("a*", "invalid server name or wildcard \"a*\" on 0.0.0.0:");
}

static void warned(const char *a, const char *b, const char *name)
{
    char sentence[256];

    servers(LINES(a, b));
    snprintf(sentence, sizeof(sentence),
             "conflicting server name \"%s\" on 127.0.0.1:80, ignored\n", name);
    ok(toy_count(sentence) == 1 && toy_count("[warn]") == 1, "%s and %s: %s", a, b, sentence);
    done();
}

static void test_conflicts(void)
{
    warned("a.test", "A.test", "a.test");
    warned("a.test", ".a.test", ".a.test");
    warned(".a.test", "a.test", "a.test");
    warned("*.a.test", ".a.test", ".a.test");
    warned(".a.test", "*.a.test", "*.a.test");
    warned("a.*", "b a.*", "a.*");
    warned("", "\"\"", "");
    servers(LINES("a/b c", "d"));
    ok(toy_count("server name \"a/b\" has suspicious symbols in ") == 1, "a slash is suspicious");
    done();
    servers(LINES("*.a.test", ".a.test x"));
    finds("a.test", 0); /* the whole name was ignored */
    finds("b.a.test", 0);
    finds("x", 1);
    done();
}

/* Random sets ---------------------------------------------------------------------------------- */

static uint32_t seed = 7;

static unsigned roll(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void put_host(char *p, unsigned labels)
{
    static const char *const parts[] = { "a", "b", "ab", "c", "www" };

    *p = '\0';
    while (labels-- > 0) {
        strcat(p, parts[roll(ARRAY_LEN(parts))]);
        if (labels > 0)
            strcat(p, ".");
    }
}

static void put_name(char *p)
{
    char host[64];

    put_host(host, roll(3) + 1);
    switch (roll(5)) {
    case 0: sprintf(p, "*.%s", host); break;
    case 1: sprintf(p, ".%s", host); break;
    case 2: sprintf(p, "%s.*", host); break;
    case 3: sprintf(p, "~^%c.*%c$", "abcw"[roll(4)], "abcw"[roll(4)]); break;
    default: strcpy(p, host);
    }
}

static bool behind(struct str host, struct str suffix)
{
    return host.len > suffix.len && str_ends(host, suffix);
}

/*
 * Every name looked at, by the kinds in their order. First come is first served where names
 * conflict.
 */
static int slow_find(struct str host)
{
    const struct http_main *http = config_http(config);
    int result = -1;
    size_t best = 0;

#define EACH_NAME(s, n)                                             \
    for (unsigned s = 0; s < http->server_count; s++)               \
        for (unsigned k = 0; k < http->servers[s]->name_count; k++) \
            for (const struct server_name *n = &http->servers[s]->names[k]; n; n = NULL)

    EACH_NAME(s, n)
    {
        bool dot = n->regex == NULL && n->name.ptr[0] == '.';

        if (n->regex == NULL && str_eq(dot ? str_skip(n->name, 1) : n->name, host))
            return (int) s;
    }
    EACH_NAME(s, n)
    {
        struct str tail = n->name.ptr[0] == '*' ? str_skip(n->name, 1) : n->name;

        if (n->regex == NULL && tail.ptr[0] == '.' && behind(host, tail) && tail.len > best) {
            best = tail.len;
            result = (int) s;
        }
    }
    if (result >= 0)
        return result;
    EACH_NAME(s, n)
    {
        struct str head = str_from(n->name.ptr, n->name.len - 1);

        if (n->regex == NULL && str_ends(n->name, STR(".*")) && str_starts(host, head) &&
            host.len > head.len && head.len > best) {
            best = head.len;
            result = (int) s;
        }
    }
    if (result >= 0)
        return result;
    EACH_NAME(s, n)
    {
        if (n->regex != NULL && regex_exec(n->regex, host, NULL) > 0)
            return (int) s;
    }
    return 0;
}

/* Whether two names would be in each other's way: the table then ignores one of them. */
static bool conflict(const char *a, const char *b)
{
    if (a[0] == '~' || b[0] == '~')
        return false;
    if (a[0] == '*')
        a++;
    if (b[0] == '*')
        b++;
    return strcmp(a, b) == 0 || (a[0] == '.' && strcmp(a + 1, b) == 0) ||
           (b[0] == '.' && strcmp(a, b + 1) == 0);
}

static void test_random(void)
{
    unsigned wrong = 0, compared = 0;

    for (unsigned round = 0; round < 300; round++) {
        char lines[13][64], *list[13] = { NULL };
        unsigned n = 0;

        for (unsigned i = 0; i < 12; i++) {
            unsigned k = 0;

            put_name(lines[n]);
            while (k < n && !conflict(lines[k], lines[n]))
                k++;
            if (k == n) {
                list[n] = lines[n];
                n++;
            }
        }
        list[n] = NULL;
        servers((const char *const *) list);
        for (unsigned i = 0; i < 100; i++) {
            char host[64];
            int got, expected;

            put_host(host, roll(4) + 1);
            got = found(host);
            expected = slow_find(str_cstr(host));
            compared++;
            if (got != expected && wrong++ == 0)
                diag("%s is %d, not %d (%s, %s)", host, got, expected, list[got], list[expected]);
        }
        done();
    }
    is_uint(wrong, 0, "%u hosts find the server that a search of all names finds", compared);
}

/* Hosts far longer than any name, made of dots: this takes minutes if each dot costs a look. */
static void test_long(void)
{
    static char host[1 << 20];
    int got = 0;

    memset(host, '.', sizeof(host) - 1);
    servers(LINES("a", "*.b.test", "www.b.*"));
    for (unsigned i = 0; i < 1000; i++)
        got += found(host);
    is_int(got, 0, "a long host costs what the longest name costs");
    memcpy(host + sizeof(host) - 1 - 9, ".x.b.test", 9);
    finds(host + sizeof(host) - 12, 1);
    is_int(found(host), 1, "and still has its end looked at");
    done();
}

static void reason_is(const char *host, int number, const char *want)
{
    struct str name;
    struct server *s = http_server_reason(listen_of(config), str_cstr(host), &name);

    is_int(number_of(s), number, "%s: server", host);
    if (want != NULL)
        ok(str_eq(name, str_cstr(want)), "%s: for what reason", host);
    else
        ok(name.ptr == NULL, "%s: by default", host);
}

static unsigned line_of(const struct level *level, const char *name, const char *arg)
{
    return conf_where(level, name, arg != NULL ? str_cstr(arg) : STR_NULL).line;
}

/* What only --explain asks. */
static void test_explaining(void)
{
    const struct level *level;

    toy_explaining = true;
    servers(LINES("a.test *.b.test", "c.* ~^d(.)$"));
    reason_is("a.test", 0, "a.test");
    reason_is("x.y.b.test", 0, ".b.test");
    reason_is("c.org", 1, "c.");
    reason_is("d1", 1, "~^d(.)$");
    reason_is("nobody", 0, NULL);
    reason_is("", 0, NULL);
    done();
    servers(LINES("alone.test"));
    reason_is("alone.test", 0, "alone.test");
    reason_is("other.test", 0, NULL);
    done();

    config = toy_read("http {\nroot /a;\nerror_page 404 /x;\nserver {\nlisten 80;\nerror_page 500 /y;\n"
                      "error_page 502 /z;\n}\nserver { listen 81; }\n}\n");
    ASSERT(config != NULL);
    level = config_http(config)->servers[0]->level;
    is_uint(line_of(level, "listen", NULL), 5, "a directive's line");
    is_uint(line_of(level, "root", NULL), 2, "one of an outer block");
    is_uint(line_of(level, "error_page", NULL), 6, "the nearest block's, the first there");
    is_uint(line_of(level, "error_page", "502"), 7, "by its argument");
    is_uint(line_of(level, "error_page", "404"), 3, "further out by its argument");
    is_uint(line_of(level, "alias", NULL), 0, "none");
    config_free(config);
    toy_explaining = false;

    config = toy_read("http { server { listen 80; } }");
    ASSERT(config != NULL);
    level = config_http(config)->servers[0]->level;
    ok(conf_where(level, "listen", STR_NULL).file == NULL, "nothing is kept for servers");
    config_free(config);
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    test_kinds();
    test_order();
    test_alone();
    test_primary();
    test_refused();
    test_conflicts();
    test_random();
    test_long();
    test_explaining();
    toy_end(files);
    return done_testing();
}
