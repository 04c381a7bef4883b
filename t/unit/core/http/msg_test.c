/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages: names, tokens, ordered fields with deletion, lists, cookies, reasons. */
#include "core/base/hash.h"
#include "core/http/msg.h"
#include "t/unit/tap.h"

#define is_s(s, expected, ...)                                                 \
    do {                                                                       \
        struct str s_ = (s);                                                   \
        is_bytes(s_.ptr, s_.len, expected, sizeof(expected) - 1, __VA_ARGS__); \
    } while (0)

static struct arena *arena;

static void test_names(void)
{
    bool all = true;
    uint32_t hash;

    for (unsigned t = T_NONE + 1; t < T_KNOWN; t++) {
        struct str name = token_name((enum token) t), lower = str_lower(arena, name);

        if (name.len == 0 || token_lookup(name, &hash) != t || token_lookup(lower, &hash) != t ||
            hash != hash_name(name)) {
            diag("token %u, \"%.*s\"", t, STR_ARG(name));
            all = false;
        }
    }
    ok(all, "each known name is found, in any case, with its hash");
    is_int(token_lookup(STR("Content-Lengt"), &hash), T_NONE, "a part of a name");
    is_int(token_lookup(STR("Content-Lengths"), &hash), T_NONE, "more than a name");
    is_int(token_lookup(STR(""), &hash), T_NONE, "no name");
    is_int(token_lookup_hashed(STR("Xost"), hash_name(STR("Host"))), T_NONE,
           "a hash alone makes no name");
    is_s(token_name(T_WWW_AUTHENTICATE), "WWW-Authenticate", "canonical spelling");
    is_int(method_lookup(STR("GET")), METHOD_GET, "a method");
    is_int(method_lookup(STR("PROPPATCH")), METHOD_PROPPATCH, "a longer one");
    is_int(method_lookup(STR("get")), METHOD_UNKNOWN, "methods have case");
    is_int(method_lookup(STR("GETX")), METHOD_UNKNOWN, "more than a method");
    is_s(status_reason(302), "Moved Temporarily", "nginx's words");
    is_s(status_reason(413), "Request Entity Too Large", "for what has been renamed");
    is_s(status_reason(503), "Service Temporarily Unavailable", "and for what it names itself");
    is_uint(status_reason(299).len, 0, "an unknown status has no reason");
}

static void test_fields(void)
{
    struct msg m;
    struct fields *f = &m.fields;
    struct field *item;

    msg_init(&m, arena, 1);
    is_int(m.content_length, -1, "no length at first");
    ok(fields_get(f, T_COOKIE) == NULL && fields_find(f, STR("X-A")) == NULL,
       "nothing in an empty list");
    fields_add(&m, f, STR("cookie"), STR("1"));
    fields_add(&m, f, STR("X-A"), STR("a"));
    fields_add_token(&m, f, T_COOKIE, STR("2"));
    fields_add(&m, f, STR("x-a"), STR("b"));
    fields_add(&m, f, STR("COOKIE"), STR("3"));
    is_uint(f->count, 5, "five fields");
    is_s(f->items[0].name, "cookie", "names stay as they came");
    is_s(f->items[2].name, "Cookie", "a token brings its own spelling");
    item = fields_get(f, T_COOKIE);
    is_s(item->value, "1", "the first of a token");
    item = fields_next(f, item);
    is_s(item->value, "2", "the second");
    item = fields_next(f, item);
    is_s(item->value, "3", "the third");
    ok(fields_next(f, item) == NULL, "no fourth");
    ok(fields_find(f, STR("Cookie")) == fields_get(f, T_COOKIE), "found by name as well");
    item = fields_find(f, STR("X-a"));
    is_s(item->value, "a", "an unknown name, without case");
    is_s(fields_next(f, item)->value, "b", "and the next");
    is_s(fields_joined(f, STR("cookie"), STR("; "), arena), "1; 2; 3", "joined");
    is_s(fields_joined(f, STR("X-A"), STR(", "), arena), "a, b", "joined, unknown name");
    ok(fields_joined(f, STR("X-B"), STR(", "), arena).ptr == NULL, "nothing to join");
    ok(fields_value(f, T_HOST).ptr == NULL, "no value");

    fields_get(f, T_COOKIE)->deleted = true;
    is_s(fields_value(f, T_COOKIE), "2", "a deleted field is not found");
    item = fields_set(&m, f, T_COOKIE, STR("new"));
    is_s(fields_joined(f, STR("Cookie"), STR("|"), arena), "new", "set replaces all");
    is_uint((unsigned) (item - f->items), 2, "in the first one's place");
    is_uint(fields_delete(f, T_COOKIE), 1, "delete counts those that were there");
    is_uint(fields_delete(f, T_COOKIE), 0, "and no others");
    ok(fields_get(f, T_COOKIE) == NULL, "gone");
    fields_add(&m, f, STR("Cookie"), STR("again"));
    is_s(fields_value(f, T_COOKIE), "again", "and back");
    ok(fields_next(f, fields_get(f, T_COOKIE)) == NULL, "alone");
    is_uint(fields_delete_name(f, STR("x-A")), 2, "delete by an unknown name");
    is_uint(fields_delete_name(f, STR("Cookie")), 1, "delete by a known one");
    fields_set(&m, f, T_HOST, STR("h"));
    is_s(fields_value(f, T_HOST), "h", "set adds");

    for (unsigned i = 0; i < 5000; i++)
        fields_add_token(&m, f, T_VIA, str_printf(arena, "%u", i));
    item = fields_get(f, T_VIA);
    for (unsigned i = 1; i < 5000; i++)
        item = fields_next(f, item);
    is_s(item->value, "4999", "many of one name, in order");
}

static void list_is(struct str list, const char *expected, const char *what)
{
    char text[256] = "";
    struct str m;

    for (size_t pos = 0; list_next(list, &pos, &m);)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "<%.*s>", STR_ARG(m));
    is_str(text, expected, "%s", what);
}

static void test_lists(void)
{
    list_is(STR("a, b,c"), "<a><b><c>", "members");
    list_is(STR(" ,, a ,\t, b ,"), "<a><b>", "empty ones are left out");
    list_is(STR(""), "", "no list");
    list_is(STR(","), "", "nothing but a comma");
    list_is(STR("\"a,b\", W/\"c\""), "<\"a,b\"><W/\"c\">", "a comma in quotes");
    list_is(STR("a=\"x, b"), "<a=\"x><b>", "a quote that is never closed is a sign like any other");
    list_is(STR("\""), "<\">", "a quote alone");
    ok(list_has(STR("foo, Close"), STR("close")), "has, without case");
    ok(!list_has(STR("closed, xclose"), STR("close")), "whole members only");
}

/* Trailers have no index: the same questions are answered by looking through them. */
static void test_trailers(void)
{
    struct msg m;
    struct fields *f = &m.trailers;
    struct field *item;

    msg_init(&m, arena, 0);
    ok(fields_get(f, T_COOKIE) == NULL, "nothing in none");
    fields_add(&m, f, STR("cookie"), STR("1"));
    fields_add(&m, f, STR("X-A"), STR("a"));
    fields_add(&m, f, STR("Cookie"), STR("2"));
    item = fields_get(f, T_COOKIE);
    ok(item != NULL && str_eq(item->value, STR("1")), "the first");
    item = item != NULL ? fields_next(f, item) : NULL;
    ok(item != NULL && str_eq(item->value, STR("2")), "the second");
    ok(item != NULL && fields_next(f, item) == NULL, "no third");
    ok(fields_find(f, STR("x-a")) != NULL, "one without a token");
    is_uint(fields_delete(f, T_COOKIE), 2, "both deleted");
    ok(fields_find(f, STR("Cookie")) == NULL && fields_get(&m.fields, T_COOKIE) == NULL, "gone");
}

static void test_cookies(void)
{
    struct msg m;
    struct str v;

    msg_init(&m, arena, 0);
    ok(!cookie_get(&m.fields, STR("a"), &v), "no Cookie field");
    fields_add_token(&m, &m.fields, T_COOKIE, STR("ab=0; a=1;b=;c ; d=x=y ;e=  z"));
    fields_add_token(&m, &m.fields, T_COOKIE, STR("f=2; a=3"));
    ok(cookie_get(&m.fields, STR("a"), &v), "found");
    is_s(v, "1", "the first of that name, and no longer name's");
    ok(cookie_get(&m.fields, STR("A"), &v), "without case");
    ok(cookie_get(&m.fields, STR("b"), &v) && v.len == 0, "an empty one");
    ok(!cookie_get(&m.fields, STR("c"), &v), "no equals sign, no cookie");
    ok(cookie_get(&m.fields, STR("d"), &v), "d");
    is_s(v, "x=y ", "an equals sign in the value");
    ok(cookie_get(&m.fields, STR("e"), &v), "e");
    is_s(v, "z", "trimmed");
    ok(cookie_get(&m.fields, STR("f"), &v), "in another field");
}

static void test_classes(void)
{
    ok(is_token(STR("X-a_!#$%&'*+.^`|~9")), "all signs of tokens");
    ok(!is_token(STR("")), "no empty token");
    ok(!is_token(STR("a b")) && !is_token(STR("a:")) && !is_token(STR("\"a\"")) &&
           !is_token(STR("\xe4")),
       "no tokens");
    ok(is_field_value(STR("a\t\x01\xff b")) && is_field_value(STR("")), "values");
    ok(!is_field_value(STR("a\rb")) && !is_field_value(STR("a\n")) && !is_field_value(STR("\0")),
       "no values");
}

int main(void)
{
    arena = arena_new();
    test_names();
    test_fields();
    test_lists();
    test_trailers();
    test_cookies();
    test_classes();
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
