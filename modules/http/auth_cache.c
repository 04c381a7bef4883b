/* SPDX-License-Identifier: BSD-2-Clause */
/* The worker's table of passwords checked a moment ago: a fixed number of digests, with a time each. */
#include "modules/http/auth_cache.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "modules/http/htpasswd.h"

/* configure: switch=http_auth_basic_module default=on libs=libcrypt,openssl */

#define ROWS 256
#define WAYS 4

struct entry {
    struct auth_mac mac;
    uint64_t until_ms; /* 0: free */
};

struct cache {
    unsigned char key[32];
    struct entry rows[ROWS][WAYS];
};

static struct cache *cache;

static struct entry *row_of(const struct auth_mac *mac)
{
    return cache->rows[mac->bytes[0] % ROWS];
}

int auth_cache_mac(struct str password, struct str hash, struct auth_mac *out)
{
    unsigned char text[HTPASSWD_HASH_MAX + 1 + AUTH_CACHE_PASSWORD_MAX];
    unsigned len = 0;
    size_t size = hash.len + 1 + password.len;

    if (hash.len > HTPASSWD_HASH_MAX || password.len > AUTH_CACHE_PASSWORD_MAX)
        return -1;
    if (cache == NULL) {
        cache = mem_zalloc(sizeof(*cache));
        if (RAND_bytes(cache->key, sizeof(cache->key)) != 1) {
            auth_cache_free();
            return -1;
        }
    }
    memcpy(text, hash.ptr, hash.len);
    text[hash.len] = '\0';
    memcpy(text + hash.len + 1, password.ptr, password.len);
    if (HMAC(EVP_sha256(), cache->key, sizeof(cache->key), text, size, out->bytes, &len) == NULL)
        len = 0;
    OPENSSL_cleanse(text, size);
    return len == sizeof(out->bytes) ? 0 : -1;
}

bool auth_cache_has(const struct auth_mac *mac, uint64_t now_ms)
{
    const struct entry *e = row_of(mac);

    for (unsigned i = 0; i < WAYS; i++) {
        if (e[i].until_ms > now_ms
            && CRYPTO_memcmp(e[i].mac.bytes, mac->bytes, sizeof(mac->bytes)) == 0)
            return true;
    }
    return false;
}

void auth_cache_put(const struct auth_mac *mac, uint64_t until_ms)
{
    struct entry *e = row_of(mac), *oldest = e;

    for (unsigned i = 0; i < WAYS; i++) {
        if (CRYPTO_memcmp(e[i].mac.bytes, mac->bytes, sizeof(mac->bytes)) == 0) {
            oldest = &e[i];
            break;
        }
        if (e[i].until_ms < oldest->until_ms)
            oldest = &e[i];
    }
    oldest->mac = *mac;
    oldest->until_ms = until_ms;
}

void auth_cache_free(void)
{
    if (cache != NULL)
        OPENSSL_cleanse(cache, sizeof(*cache));
    free(cache);
    cache = NULL;
}
