/* SPDX-License-Identifier: BSD-2-Clause */
/* Pairs in a zone: setting, matching by the three rules, expiry, walking, a full zone, what is refused, the state file. */
#include <stdlib.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/os/file.h"
#include "modules/keyval/internal.h"
#include "t/unit/tap.h"

static struct keyval_zone kz;
static struct res_zone res;
static struct arena *arena;
static char dir[] = "/tmp/keyval-test-XXXXXX";
static unsigned errors;
static char last_error[LOG_LINE];

static void log_keep(struct log_file *file, enum log_level level, const char *line, size_t len)
{
    (void) file;
    (void) level;
    snprintf(last_error, sizeof(last_error), "%.*s", (int) len, line);
    errors++;
}

static bool zone_new(enum keyval_type type, size_t size, uint64_t timeout_ms, const char *state)
{
    struct zone_spec spec = { STR("pairs"), size, &keyval_kind, STR(""), &kz };

    memset(&kz, 0, sizeof(kz));
    kz.type = type;
    kz.timeout_ms = timeout_ms;
    kz.res = &res;
    kz.state = state != NULL ? str_printf(arena, "%s/%s", dir, state) : STR("");
    res.zone = zone_create(&spec, log_main);
    return res.zone != NULL;
}

static int set(const char *key, const char *value)
{
    return (int) keyval_set(&kz, str_cstr(key), str_cstr(value), 0, KEYVAL_PUT);
}

/* What a variable would have; NULL: nothing. */
static const char *match(const char *wanted)
{
    struct str value;

    return keyval_match(&kz, str_cstr(wanted), arena, &value) ? value.ptr : NULL;
}

static void visit(void *data, const struct keyval_pair *pair)
{
    char *out = data;

    sprintf(out + strlen(out), "%.*s=%.*s;", STR_ARG(pair->key), STR_ARG(pair->value));
}

static const char *all(unsigned at_a_time)
{
    static char out[4096];
    struct keyval_walk walk = { .serial = 0 };

    out[0] = '\0';
    while (keyval_walk(&kz, &walk, at_a_time, visit, out))
        ;
    return out;
}

static void test_strings(void)
{
    struct keyval_pair pair;

    ok(zone_new(KEYVAL_STRING, ZONE_MIN, 0, NULL), "a zone of 32k");
    is_str(match("a"), NULL, "nothing yet");
    is_int(set("a", "1"), KEYVAL_OK, "set");
    is_int(set("b", ""), KEYVAL_OK, "an empty value");
    is_int(set("", "e"), KEYVAL_OK, "an empty key");
    is_str(match("a"), "1", "found");
    is_str(match("b"), "", "found, empty");
    is_str(match(""), "e", "the empty key");
    is_str(match("A"), NULL, "case counts");
    is_str(match("aa"), NULL, "no prefix");
    is_int(set("a", "another one"), KEYVAL_OK, "changed");
    is_str(match("a"), "another one", "to this");
    is_int(keyval_set(&kz, STR("a"), STR("x"), 0, KEYVAL_ADD), KEYVAL_EXISTS, "add: is there");
    is_int(keyval_set(&kz, STR("c"), STR("x"), 0, KEYVAL_REPLACE), KEYVAL_ABSENT, "replace: is not");
    is_int(keyval_set(&kz, STR("c"), STR("x"), 0, KEYVAL_ADD), KEYVAL_OK, "add");
    is_int(keyval_set(&kz, STR("c"), STR("y"), 0, KEYVAL_REPLACE), KEYVAL_OK, "replace");
    is_str(all(1), "a=another one;b=;=e;c=y;", "all of them, oldest first");
    is_str(all(3), "a=another one;b=;=e;c=y;", "three at a time");
    is_int(keyval_get(&kz, STR("c"), arena, &pair), KEYVAL_OK, "get");
    ok(str_eq(pair.key, STR("c")) && str_eq(pair.value, STR("y")) && pair.left_ms == 0, "the pair");
    is_int(keyval_delete(&kz, STR("a")), KEYVAL_OK, "deleted");
    is_int(keyval_delete(&kz, STR("a")), KEYVAL_ABSENT, "only once");
    is_int(keyval_get(&kz, STR("a"), arena, &pair), KEYVAL_ABSENT, "is gone");
    keyval_clear(&kz);
    is_str(all(9), "", "nothing is left");
    zone_destroy(res.zone);
}

static void test_prefixes(void)
{
    char text[2000];

    ok(zone_new(KEYVAL_PREFIX, 2 * ZONE_MIN, 0, NULL), "a zone of 64k");
    is_str(match("/a"), NULL, "nothing yet");
    set("/a", "1");
    set("/a/b", "2");
    set("/a/b/c", "3");
    set("/z", "4");
    is_str(match("/a"), "1", "the key itself");
    is_str(match("/a/b/cc"), "3", "the longest prefix");
    is_str(match("/a/b/"), "2", "a shorter one");
    is_str(match("/a/x/c"), "1", "the shortest");
    is_str(match("/b"), NULL, "none");
    is_str(match("/"), NULL, "too short for any");
    is_str(match(""), NULL, "nothing");
    keyval_delete(&kz, STR("/a/b"));
    is_str(match("/a/b/"), "1", "one less");
    set("", "all");
    is_str(match("/b"), "all", "the empty key is a prefix of everything");
    is_str(match(""), "all", "of nothing too");
    memset(text, '/', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    is_str(match(text), "all", "a long text");
    is_int(set(text, "x"), KEYVAL_TOO_LONG, "too long a key");
    text[KEYVAL_PREFIX_MAX] = '\0';
    is_int(set(text, "longest"), KEYVAL_OK, "the longest key");
    text[KEYVAL_PREFIX_MAX] = '/';
    is_str(match(text), "longest", "is found");
    zone_destroy(res.zone);
}

static void test_addresses(void)
{
    ok(zone_new(KEYVAL_IP, ZONE_MIN, 0, NULL), "a zone of 32k");
    is_int(set("10.0.0.0/8", "8"), KEYVAL_OK, "a network");
    is_int(set("10.1.0.0/16", "16"), KEYVAL_OK, "a smaller one");
    is_int(set("10.1.2.3", "host"), KEYVAL_OK, "an address");
    is_int(set("2001:db8::/32", "v6"), KEYVAL_OK, "IPv6");
    is_int(set("2001:db8::1", "v6 host"), KEYVAL_OK, "an address");
    is_int(set("nonsense", ""), KEYVAL_BAD_KEY, "no address");
    is_int(set("10.0.0.0/33", ""), KEYVAL_BAD_KEY, "no such network");
    is_str(match("10.1.2.3"), "host", "the address");
    is_str(match("10.1.2.4"), "16", "the smaller network");
    is_str(match("10.2.0.1"), "8", "the larger");
    is_str(match("11.0.0.1"), NULL, "neither");
    is_str(match("10.1.0.0/16"), "16", "a network is looked for: itself");
    is_str(match("10.1.2.0/24"), "16", "the one it lies in");
    is_str(match("10.0.0.0/7"), NULL, "larger than any");
    is_str(match("2001:db8::1"), "v6 host", "IPv6");
    is_str(match("2001:db8:ffff::1"), "v6", "IPv6 network");
    is_str(match("2001:db9::1"), NULL, "outside");
    is_str(match("::ffff:10.1.2.3"), "host", "IPv4 in IPv6");
    is_str(match("unix:"), NULL, "no address");
    is_str(match(""), NULL, "nothing");
    is_int(set("0.0.0.0/0", "any"), KEYVAL_OK, "all IPv4");
    is_str(match("11.0.0.1"), "any", "now it is found");
    is_str(match("2001:db9::1"), NULL, "IPv6 is not among them");
    is_int(set("10.9.9.9/8", "again"), KEYVAL_OK, "host bits do not count");
    is_int(set("::ffff:10.1.2.3", "mapped"), KEYVAL_OK, "the same address");
    is_str(all(2), "10.0.0.0/8=again;10.1.0.0/16=16;10.1.2.3=mapped;2001:db8::/32=v6;"
                   "2001:db8::1=v6 host;0.0.0.0/0=any;", "keys as people write them");
    is_int(keyval_delete(&kz, STR("10.1.2.3/32")), KEYVAL_OK, "deleted by another name");
    is_str(match("10.1.2.3"), "16", "the network is left");
    zone_destroy(res.zone);
}

static void test_expiry(void)
{
    struct keyval_pair pair;

    ok(zone_new(KEYVAL_PREFIX, ZONE_MIN, 30, NULL), "a zone with a timeout");
    set("a", "long");
    keyval_set(&kz, STR("ab"), STR("short"), 1, KEYVAL_PUT);
    keyval_set(&kz, STR("b"), STR("own"), 100000, KEYVAL_PUT);
    is_str(match("abc"), "short", "not yet");
    usleep(3000);
    clock_update();
    is_str(match("abc"), "long", "expired, the next longest is found");
    is_str(all(9), "a=long;b=own;", "not listed");
    is_int(keyval_get(&kz, STR("b"), arena, &pair), KEYVAL_OK, "the one with a time of its own");
    ok(pair.left_ms > 90000 && pair.left_ms <= 100000, "has most of it left");
    usleep(40000);
    clock_update();
    is_str(match("a"), NULL, "all over");
    is_int(keyval_get(&kz, STR("a"), arena, &pair), KEYVAL_ABSENT, "nowhere");
    is_str(match("b"), "own", "but this one");
    zone_destroy(res.zone);
}

static void test_full(void)
{
    char key[32];
    unsigned n = 0, again = 0;
    static char big[KEYVAL_VALUE_MAX + 2];

    ok(zone_new(KEYVAL_STRING, ZONE_MIN, 20, NULL), "a zone");
    for (; n < 10000; n++) {
        snprintf(key, sizeof(key), "key%u", n);
        if (set(key, "some value") != KEYVAL_OK)
            break;
    }
    ok(n > 150 && n < 2000, "%u pairs fit into 32k", n);
    is_int(set(key, "x"), KEYVAL_FULL, "full");
    memset(big, 'x', 4000);
    is_int(set("key0", big), KEYVAL_FULL, "no room for a longer value");
    is_str(match("key0"), "some value", "the old one stays");
    usleep(25000);
    clock_update();
    for (; again < 10000; again++) {
        snprintf(key, sizeof(key), "new%u", again);
        if (set(key, "some value") != KEYVAL_OK)
            break;
    }
    ok(again >= n - 5, "what has expired makes room (%u)", again);
    memset(big, 'x', sizeof(big) - 1);
    is_int(set("big", big), KEYVAL_TOO_LONG, "too long a value");
    is_int(set(big, "big"), KEYVAL_TOO_LONG, "too long a key");
    is_int(set("a\xff", "b"), KEYVAL_BAD_TEXT, "a key that is not UTF-8");
    is_int(set("a", "b\xc3"), KEYVAL_BAD_TEXT, "a value that is not UTF-8");
    zone_destroy(res.zone);
}

/* Pairs go and come while they are listed. */
static void test_walk(void)
{
    struct keyval_walk walk = { .serial = 0 };
    char out[256] = "";

    ok(zone_new(KEYVAL_STRING, ZONE_MIN, 0, NULL), "a zone");
    set("a", "1");
    set("b", "2");
    set("c", "3");
    set("d", "4");
    ok(keyval_walk(&kz, &walk, 2, visit, out), "two of four");
    keyval_delete(&kz, STR("b"));
    keyval_delete(&kz, STR("a"));
    set("b", "5");
    set("c", "6");
    ok(!keyval_walk(&kz, &walk, 9, visit, out), "the others");
    is_str(out, "a=1;b=2;c=6;d=4;b=5;", "in their present state");
    zone_destroy(res.zone);
}

/* State files ------------------------------------------------------------------------------------- */

static bool load(enum keyval_type type, const char *text)
{
    file_replace(str_printf(arena, "%s/s", dir).ptr, str_cstr(text), 0600);
    last_error[0] = '\0';
    return zone_new(type, ZONE_MIN, 0, "s");
}

static void test_load(void)
{
    static const struct {
        const char *text, *error;
    } bad[] = {
        { "x", "unexpected character" },
        { "[]", "no JSON object" },
        { "{\"a\":1}", "a value is not a string" },
        { "{\"a\":null}", "a value is not a string" },
        { "{\"a\":[\"b\"]}", "a value is not a string" },
        { "{\"a\":{}}", "no \"value\"" },
        { "{\"a\":{\"expire\":1}}", "no \"value\"" },
        { "{\"a\":{\"value\":1}}", "\"value\" is not a string" },
        { "{\"a\":{\"value\":\"b\",\"expire\":\"c\"}}", "\"expire\" is not a number of milliseconds" },
        { "{\"a\":{\"value\":\"b\",\"expire\":-1}}", "\"expire\" is not a number of milliseconds" },
        { "{\"a\":{\"value\":\"b\",\"expire\":1e3}}", "\"expire\" is not a number of milliseconds" },
        { "{\"a\":\"b\"", "unexpected end" },
        { "{\"a\":\"b\"} x", "unexpected character" },
        { "{\"a\":\"\xff\"}", "invalid UTF-8" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        ok(!load(KEYVAL_STRING, bad[i].text), "refused: %s", bad[i].text);
        ok(strstr(last_error, bad[i].error) != NULL && strstr(last_error, "/s\":1") != NULL,
           "%s", last_error);
    }
    ok(!load(KEYVAL_IP, "{\n\"10.0.0.1\":\"a\",\n\"b\":\"c\"}"), "no address");
    ok(strstr(last_error, "neither an address nor a network in keyval state file") != NULL
           && strstr(last_error, "/s\":3") != NULL, "%s", last_error);
    ok(load(KEYVAL_STRING, ""), "an empty file");
    zone_destroy(res.zone);
    ok(load(KEYVAL_STRING, "{\"a\":\"1\",\"b\":{\"other\":[{}],\"value\":\"2\"},\"\\u00e9\":\"\\\"\","
                           "\"t\":{\"value\":\"3\",\"expire\":60000}, \"a\": \"4\"}"), "pairs");
    is_str(all(9), "a=4;b=2;\xc3\xa9=\";t=3;", "are there, the last of a key");
    zone_destroy(res.zone);
    ok(zone_new(KEYVAL_STRING, ZONE_MIN, 0, "none"), "a file that is not there");
    zone_destroy(res.zone);
    ok(!zone_new(KEYVAL_STRING, ZONE_MIN, 0, "."), "a directory");
    ok(strstr(last_error, "reading keyval state file") != NULL, "%s", last_error);
}

int main(void)
{
    static struct log_file file = { .fd = -1, .write = log_keep };
    static struct log_target target = { LOG_ERROR_LEVEL, &file, NULL };
    static const struct log_scope scope = { LOG_ERROR_LEVEL, &target };

    log_main->scope = &scope;
    arena = arena_new();
    if (!ok(mkdtemp(dir) != NULL, "a directory"))
        return done_testing();
    clock_update();
    test_strings();
    test_prefixes();
    test_addresses();
    test_expiry();
    test_full();
    test_walk();
    test_load();
    unlink(str_printf(arena, "%s/s", dir).ptr);
    rmdir(dir);
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
