/* SPDX-License-Identifier: BSD-2-Clause */
/* Hash functions against known values, and the table against a plain list. */
#include "core/base/hash.h"

#include "core/base/arena.h"
#include "t/unit/tap.h"

static void test_functions(void)
{
    char a[64] = "", b[64] = "";
    bool differ = true;
    uint64_t h;

    /* The check values that CRC-32/ISO-HDLC is published with. */
    is_uint(hash_crc32(0, "123456789", 9), 0xcbf43926u, "crc32");
    is_uint(hash_crc32(hash_crc32(0, "1234", 4), "56789", 5), 0xcbf43926u, "crc32 in two parts");
    is_uint(hash_crc32(0, "", 0), 0, "crc32 of nothing");

    /* Names: no matter how they are spelled; every byte of every length counts. */
    for (size_t len = 1; len < sizeof(a); len++) {
        memset(a, 'k', len);
        memset(b, 'K', len);
        if (hash_name(str_from(a, len)) != hash_name(str_from(b, len))
            || hash_name(str_from(a, len)) == hash_name(str_from(a, len - 1)))
            differ = false;
        for (size_t i = 0; i < len; i++) {
            b[i] = 'L';
            if (hash_name(str_from(a, len)) == hash_name(str_from(b, len)))
                differ = false;
            b[i] = 'K';
        }
    }
    ok(differ, "names: folded, and each byte counts");
    differ = true;
    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));

    /* Every bit of every position of every length counts. */
    for (size_t len = 1; len < sizeof(a); len++) {
        h = hash_bytes(a, len);
        for (size_t i = 0; i < len; i++) {
            b[i] = (char) (1 << i % 8);
            differ = differ && hash_bytes(b, len) != h;
            b[i] = 0;
        }
        differ = differ && h != hash_bytes(a, len - 1);
        if (hash_bytes(b, len) != h)
            differ = false;
    }
    ok(differ, "each byte and the length change the hash");
    h = hash_bytes("key", 3);
    hash_seed(12345);
    ok(hash_bytes("key", 3) != h, "so does the seed");
    ok(hash_bytes("key", 3) == hash_bytes("key", 3), "the same for the same seed");
    is_uint(hash_bytes(NULL, 0), hash_bytes("x", 0), "nothing has one hash");
}

static void test_table(void)
{
    struct arena *arena = arena_new();
    struct table t;
    int values[2000];
    bool all = true;
    unsigned i = 0, n = 0;
    const struct table_entry *e;

    table_init(&t, arena);
    ok(table_get(&t, STR("a")) == NULL, "an empty table has nothing");
    ok(table_next(&t, &i) == NULL, "and nothing to visit");
    for (unsigned k = 0; k < ARRAY_LEN(values); k++) {
        values[k] = 0;
        if (table_put(&t, str_printf(arena, "key%u", k), &values[k]))
            all = false;
    }
    ok(all, "new keys replace nothing");
    for (unsigned k = 0; k < ARRAY_LEN(values); k++)
        all = all && table_get(&t, str_printf(arena, "key%u", k)) == &values[k];
    ok(all, "every key is found");
    is_uint(t.count, 2000, "and counted");
    ok(table_get(&t, STR("key2000")) == NULL, "others are not");
    ok(table_get(&t, STR("KEY1")) == NULL, "keys compare by bytes");
    ok(table_put(&t, STR("key7"), &values[0]) == &values[7], "the old value is given back");
    ok(table_get(&t, STR("key7")) == &values[0], "the new one is found");
    is_uint(t.count, 2000, "replacing counts nothing");
    for (i = 0; (e = table_next(&t, &i)) != NULL; n++)
        ++*(int *) e->value;
    is_uint(n, 2000, "every entry is visited");
    ok(values[0] == 2 && values[7] == 0 && values[1999] == 1, "once");
    ok(table_put(&t, STR(""), &values[3]) == NULL && table_get(&t, STR_NULL) == &values[3],
       "the empty key is a key");
    arena_destroy(arena);
}

int main(void)
{
    test_functions();
    test_table();
    arena_trim();
    return done_testing();
}
