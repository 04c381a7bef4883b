/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The location search: the manual's rules one by one, and random sets of nested locations compared
 * with a search that knows no tree and looks at every location in turn.
 */
#include "t/unit/core/config/toy.h"

#include <time.h>

#include "core/http/http.h"

static enum verdict handle(struct req *r)
{
    (void) r;
    return V_ABORT;
}

static const char *set_handler(struct conf *cf, void *field)
{
    (void) field;
    conf_location(cf)->handler = handle;
    return NULL;
}

static const struct directive rows[] = {
    ROW_CALL("handler", CTX_LOCATION, ARGS0, set_handler, STORE_LOC, "", "A toy."),
    ROW_END,
};
static unsigned toy_slot;
static const struct module module_toy = { .name = "toy", .slot = &toy_slot, .directives = rows };
const struct module *const modules[] = { &module_http_core, &module_toy, NULL };

static struct eval eval;
static struct value *values;
static struct regex_match match;

static struct server *first_server(const struct config *config)
{
    return config_http(config)->servers[0];
}

static struct config *read_server(const char *body)
{
    static char text[1 << 20];
    struct config *config;

    snprintf(text, sizeof(text), "http { server { listen unix:/nowhere; %s } }", body);
    config = toy_read(text);
    if (config == NULL)
        diag("%s", toy_logged);
    ASSERT(config != NULL);
    values = NULL;
    eval = (struct eval){ .arena = arena_new(),
                          .space = &config_http(config)->vars,
                          .values = &values,
                          .log = &toy_log };
    return config;
}

static void done(struct config *config)
{
    arena_destroy(eval.arena);
    config_free(config);
}

/* The found location's name; "name>" for a redirect to it, "-" for none. */
static const char *found(const struct config *config, const char *uri)
{
    static char text[256];
    bool redirect, failed;
    const struct location *loc = http_location_find(first_server(config)->root, str_cstr(uri),
                                                    &eval, &match, &redirect, &failed);

    if (failed)
        return "failed";
    if (loc == NULL)
        return "-";
    snprintf(text, sizeof(text), "%s%.*s%s",
             loc->kind == LOC_EXACT   ? "="
             : loc->kind == LOC_REGEX ? "~"
                                      : "",
             STR_ARG(loc->name), redirect ? ">" : "");
    return text;
}

#define finds(uri, expected) is_str(found(config, uri), expected, "%s is for %s", uri, expected)

static void test_rules(void)
{
    struct config *config = read_server(
        "location = / { } location / { } location /documents/ { } location ^~ /images/ { }"
        "location ~* \"\\.(gif|jpg|jpeg)$\" { } location = /exact { } location /doc { }"
        "location ~ \\.txt$ { } location /Case { }");

    finds("/", "=/");
    finds("/index.html", "/");
    finds("/documents/document.html", "/documents/");
    finds("/documents", "/doc");
    finds("/images/1.gif", "/images/");
    finds("/documents/1.jpg", "~\\.(gif|jpg|jpeg)$");
    finds("/documents/1.JPG", "~\\.(gif|jpg|jpeg)$");
    finds("/documents/1.TXT", "/documents/");
    finds("/exact", "=/exact");
    finds("/exact/", "/");
    finds("/exac", "/");
    finds("/case", "/");
    finds("/Cases", "/Case");
    finds("x", "-");
    finds("", "-");
    done(config);
}

static void test_nested(void)
{
    struct config *config = read_server(
        "location /a/ { location /a/b/ { location ~ inner { } } location ~ middle { } }"
        "location ~ outer { location /a/x { } location ~ \\.css$ { } }"
        "location ^~ /f/ { location /f/g/ { location ~ inner { } } location ~ middle { } }"
        "location /n/ { location ^~ /n/o/ { } location ~ middle { } location = /n/same { } }");

    finds("/a/b/inner-middle-outer", "~inner");
    finds("/a/b/middle-outer", "~middle");
    finds("/a/b/outer", "~outer");
    finds("/a/b/c", "/a/b/");
    finds("/a/c", "/a/");
    finds("/a/x-outer", "/a/x");
    finds("/a/outer.css", "~\\.css$");
    finds("/f/g/inner-outer", "~inner");
    finds("/f/g/middle-outer", "~middle");
    finds("/f/g/outer", "/f/g/");
    finds("/n/o/middle", "/n/o/");
    finds("/n/o/outer", "~outer");
    finds("/n/same", "=/n/same");
    finds("/n/same-outer", "~outer");
    done(config);
}

static void test_slash(void)
{
    struct config *config = read_server(
        "location / { } location /p/ { handler; } location /q/ { handler; } location = /q { }"
        "location /r/ { handler; } location /r { } location /s/ { } location = /e/ { handler; }"
        "location /p/deep/ { handler; } location /p/deepest/ { handler; }"
        "location /n/ { location /n/m/ { handler; } } location ~ ^/p$ { }");

    finds("/p", "/p/>");
    finds("/p/", "/p/");
    finds("/p/x", "/p/");
    finds("/pp", "/");
    finds("/q", "=/q");
    finds("/r", "/r");
    finds("/s", "/");
    finds("/e", "=/e/>");
    finds("/p/deep", "/p/deep/>");
    finds("/p/deepe", "/p/");
    finds("/p/deepest", "/p/deepest/>");
    finds("/n/m", "/n/m/>");
    finds("/n", "/");
    done(config);
}

static struct str value_of(const char *name)
{
    struct str out;

    return var_by_name(&eval, str_cstr(name), &out) ? out : STR("absent");
}

static void test_captures(void)
{
    struct config *config =
        read_server("location ~ \"^/u/(?<who>[^/]+)(/)?(?<rest>.+)?$\" { root /x/$who/$rest; }"
                    "location ~ ^/plain { }");

    finds("/u/joe/a/b", "~^/u/(?<who>[^/]+)(/)?(?<rest>.+)?$");
    ok(eval.match == &match && match.count == 4, "the match is kept");
    ok(str_eq(eval.match_subject, STR("/u/joe/a/b")), "with what it was made on");
    ok(str_eq(value_of("who"), STR("joe")), "a named group is a variable");
    ok(str_eq(value_of("rest"), STR("a/b")), "and another");
    finds("/u/ann", "~^/u/(?<who>[^/]+)(/)?(?<rest>.+)?$");
    ok(str_eq(value_of("who"), STR("ann")), "found again, it changes");
    ok(str_eq(value_of("rest"), STR("")), "a group that took no part is empty, not the old value");
    finds("/nothing", "-");
    ok(str_eq(value_of("who"), STR("ann")), "no match leaves them");
    finds("/plain", "~^/plain");
    is_uint(match.count, 1, "a pattern without groups leaves none");
    done(config);
}

static void test_duplicates(void)
{
    ok(toy_read("http { server { location /a { } location ^~ /a { } } }") == NULL,
       "a prefix twice");
    ok(toy_count("duplicate location \"/a\" in ") == 1, "is said");
    ok(toy_read("http { server { location = /a { } location =/a { } } }") == NULL, "= twice");
    ok(toy_count("duplicate location \"/a\" in ") == 1, "is said");
    struct config *config = read_server("location = /a { } location /a { } location ~ /a { } "
                                        "location ~ /a { } location /a/ { location /a/ { } }");
    finds("/a", "=/a");
    done(config);
}

/* A pattern that runs into the engine's limits must not open what another location guards. */
static void test_failure(void)
{
    struct config *config = read_server("location / { } location ~ ^/(a+)+$ { }");
    char uri[64];

    memset(uri, 'a', sizeof(uri));
    uri[0] = '/';
    uri[sizeof(uri) - 2] = 'b';
    uri[sizeof(uri) - 1] = '\0';
    finds(uri, "failed");
    done(config);
}

/* Random sets ---------------------------------------------------------------------------------- */

static uint32_t seed = 1;

static unsigned roll(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void put_uri(char *p, unsigned max)
{
    static const char *const parts[] = { "/", "a", "b", "ab", "/a", "/b/", "a/", "c" };
    unsigned n = roll(max) + 1;

    strcpy(p, "/");
    while (n-- > 0)
        strcat(p, parts[roll(ARRAY_LEN(parts))]);
}

/* Locations under one whose URIs begin with `under`. */
static void put_locations(FILE *f, const char *under, unsigned depth)
{
    static const char *const patterns[] = { "a$", "b", "^/a.*b", "/$", "ab", "c/", "^/b" };
    char seen[16][96];
    unsigned n = roll(7), made = 0;

    while (n-- > 0) {
        static const char *const kinds[] = { "", "^~", "=", "" };
        const char *kind = kinds[roll(4)];
        char name[96], key[96];
        unsigned i = 0;

        if (roll(4) == 0) {
            fprintf(f, "location ~ %s {", patterns[roll(ARRAY_LEN(patterns))]);
            if (depth > 0)
                put_locations(f, under, depth - 1);
            fprintf(f, "}\n");
            continue;
        }
        put_uri(name, 4);
        if (under[0] != '\0')
            snprintf(name, sizeof(name), "%s%s", under, roll(3) ? &"a/"[roll(2)] : "b");
        snprintf(key, sizeof(key), "%c%.90s", kind[0] == '=' ? '=' : '-', name);
        while (i < made && strcmp(seen[i], key) != 0)
            i++;
        if (i < made)
            continue;
        strcpy(seen[made++], key);
        fprintf(f, "location %s %s {", kind, name);
        if (roll(2) == 0)
            fprintf(f, " handler;");
        if (depth > 0 && kind[0] != '=')
            put_locations(f, name, depth - 1);
        fprintf(f, "}\n");
    }
}

struct answer {
    const struct location *loc;
    bool redirect, final;
};

/* The rules as the manual has them, with a look at every location. */
static struct answer slow_find(const struct location *from, struct str uri)
{
    struct answer best = { NULL, false, false };
    const struct location *slash = NULL;

#define EACH_CHILD(child)                                                                          \
    for (struct list *n = from->level->children.next; n != &from->level->children; n = n->next)    \
        for (const struct location *child = container_of(n, struct level, sibling)->object; child; \
             child = NULL)

    EACH_CHILD(l)
    {
        if (l->kind == LOC_EXACT && str_eq(l->name, uri))
            return (struct answer){ l, false, true };
        if (l->kind == LOC_REGEX)
            continue;
        if (l->kind != LOC_EXACT && str_starts(uri, l->name) &&
            (best.loc == NULL || best.loc->name.len < l->name.len))
            best.loc = l;
        if (l->auto_slash && l->name.len == uri.len + 1 && str_starts(l->name, uri) &&
            (slash == NULL || l->kind == LOC_EXACT))
            slash = l;
    }
    if (slash != NULL && (best.loc == NULL || best.loc->name.len < uri.len))
        return (struct answer){ slash, true, true };
    const struct location *prefix = best.loc;

    if (prefix != NULL) {
        struct answer inner = slow_find(prefix, uri);

        if (inner.final)
            return inner;
        if (inner.loc != NULL)
            best = inner;
        if (prefix->kind == LOC_PREFIX_FINAL)
            return best;
    }
    EACH_CHILD(l)
    {
        if (l->kind == LOC_REGEX && regex_exec(l->regex, uri, NULL) > 0) {
            struct answer inner = slow_find(l, uri);

            if (inner.loc == NULL)
                inner.loc = l;
            inner.final = true;
            return inner;
        }
    }
    return best;
}

static void test_random(void)
{
    unsigned wrong = 0, compared = 0, redirects = 0;

    for (unsigned round = 0; round < 300; round++) {
        char *text;
        size_t len;
        FILE *f = open_memstream(&text, &len);
        struct config *config;

        put_locations(f, "", 2);
        fclose(f);
        config = read_server(text);
        for (unsigned i = 0; i < 200; i++) {
            char uri[96];
            bool redirect, failed;
            const struct location *loc, *root = first_server(config)->root;
            struct answer expected;

            put_uri(uri, 6);
            loc = http_location_find(root, str_cstr(uri), &eval, &match, &redirect, &failed);
            expected = slow_find(root, str_cstr(uri));
            compared++;
            redirects += redirect;
            if (loc != expected.loc || redirect != expected.redirect || failed) {
                if (wrong++ == 0)
                    diag("seed %u, %s: %s, not %s in\n%s", seed, uri, loc ? loc->name.ptr : "-",
                         expected.loc ? expected.loc->name.ptr : "-", text);
            }
        }
        done(config);
        free(text);
    }
    is_uint(wrong, 0, "%u searches find what a search without a tree finds", compared);
    ok(redirects > 100, "redirects among them");
}

/* For the record: nanoseconds a search with ten and with ten thousand locations. */
static double cost(unsigned count)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    struct config *config;
    struct timespec a, b;
    unsigned hits = 0;

    for (unsigned i = 0; i < count; i++)
        fprintf(f, "location /service-%u/ { }\n", i * 7919 % 100000);
    fclose(f);
    config = read_server(text);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (unsigned i = 0; i < 200000; i++) {
        bool redirect, failed;
        char uri[64];
        int n = snprintf(uri, sizeof(uri), "/service-%u/some/path.html", i % count * 7919 % 100000);

        hits += http_location_find(first_server(config)->root, str_from(uri, (size_t) n), &eval,
                                   &match, &redirect, &failed) != NULL;
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    ok(hits == 200000, "each of %u locations is found", count);
    done(config);
    free(text);
    return ((double) (b.tv_sec - a.tv_sec) * 1e9 + (double) (b.tv_nsec - a.tv_nsec)) / 200000;
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    test_rules();
    test_nested();
    test_slash();
    test_captures();
    test_duplicates();
    test_failure();
    test_random();
    double few = cost(10), many = cost(10000);
    diag("a search, its URI's printing included: %.0f ns among 10 locations, %.0f ns among 10,000",
         few, many);
    toy_end(files);
    return done_testing();
}
