/* SPDX-License-Identifier: BSD-2-Clause */
/* Passwords checked a moment ago: what is the same, for how long, and how many. */
#include "core/base/base.h"
#include "modules/http/auth_cache.h"
#include "modules/http/htpasswd.h"
#include "t/unit/tap.h"

static struct auth_mac mac_of(const char *password, const char *hash)
{
    struct auth_mac mac;

    ASSERT(auth_cache_mac(str_cstr(password), str_cstr(hash), &mac) == 0);
    return mac;
}

static void test_same(void)
{
    struct auth_mac a = mac_of("pw", "hash"), b = mac_of("pw", "hash");

    is_mem(a.bytes, b.bytes, sizeof(a.bytes), "the same pair");
    auth_cache_put(&a, 1000);
    ok(auth_cache_has(&b, 999), "is known");
    ok(!auth_cache_has(&b, 1000), "until its time has come");
    b = mac_of("pw2", "hash");
    ok(!auth_cache_has(&b, 1), "another password");
    b = mac_of("pw", "hash2");
    ok(!auth_cache_has(&b, 1), "another hash");
    b = mac_of("wpw", "hash");
    ok(!auth_cache_has(&b, 1), "other places of the same bytes");
    auth_cache_put(&a, 2000);
    ok(auth_cache_has(&a, 1999), "renewed");
    auth_cache_free();
    b = mac_of("pw", "hash");
    ok(!auth_cache_has(&b, 1), "forgotten");
    ok(memcmp(a.bytes, b.bytes, sizeof(a.bytes)) != 0, "under another key");
}

static void test_limits(void)
{
    char text[HTPASSWD_HASH_MAX + 2];
    struct auth_mac mac;

    memset(text, 'x', sizeof(text));
    ok(auth_cache_mac(str_from(text, AUTH_CACHE_PASSWORD_MAX), str_from(text, HTPASSWD_HASH_MAX),
                      &mac) == 0,
       "the longest");
    is_int(auth_cache_mac(str_from(text, AUTH_CACHE_PASSWORD_MAX + 1), STR("h"), &mac), -1,
           "a longer password");
    is_int(auth_cache_mac(STR("p"), str_from(text, HTPASSWD_HASH_MAX + 1), &mac), -1,
           "a longer hash");
}

static void test_many(void)
{
    unsigned known = 0, recent = 0;

    for (unsigned i = 0; i < 20000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "p%u", i);
        struct auth_mac mac = mac_of(name, "h");

        auth_cache_put(&mac, i + 1);
    }
    for (unsigned i = 0; i < 20000; i++) {
        char name[32];

        snprintf(name, sizeof(name), "p%u", i);
        struct auth_mac mac = mac_of(name, "h");

        if (auth_cache_has(&mac, 0)) {
            known++;
            recent += i >= 10000;
        }
    }
    is_uint(known, 1024, "as many as there is room for");
    is_uint(recent, known, "of the later half");
}

int main(void)
{
    test_same();
    test_limits();
    test_many();
    auth_cache_free();
    return done_testing();
}
