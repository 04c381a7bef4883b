/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keys that session tickets are encrypted with: those of files (ssl_session_ticket_key), in nginx's layout so that
 * servers of both kinds can share them, or, without files, random ones in a zone, which all workers share, and reloads and new binaries
 * keep. Random keys are replaced after the lifetime of a session and not used after twice that; as long as tickets are made, they
 * are wiped then too, so that what has been recorded cannot be read with what is found here later.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/os/process.h"
#include "modules/ssl/kept.h"
#include "modules/ssl/sessions.h"

#define FILE_SMALL 48
#define FILE_LARGE 80
#define NAME_SIZE 16
#define ZONE_NAME "ssl_session_ticket_keys"

struct ssl_ticket_key {
    unsigned char name[NAME_SIZE];
    unsigned char cipher[32], mac[32];
    uint32_t size; /* of both: 16 (AES-128) or 32 (AES-256) */
};

/* In the zone, for each lifetime that servers have (the key of the table): replaced as a whole. */
struct rotating {
    struct {
        struct ssl_ticket_key key;
        uint64_t made_s; /* wall clock */
    } current, previous;
    uint64_t lifetime_s;
};

/* Shared keys -------------------------------------------------------------------------------- */

static int keys_init(struct zone *zone, void *data UNUSED)
{
    return kept_init(zone, sizeof(struct kept));
}

static int keys_adopt(struct zone *zone UNUSED, void *data UNUSED)
{
    return 0;
}

static const struct zone_kind keys_kind = {
    .name = ZONE_NAME,
    .version = 2,
    .init = keys_init,
    .adopt = keys_adopt,
    .recover = kept_recover,
};

static void make_key(struct ssl_ticket_key *key)
{
    random_bytes(key->name, sizeof(key->name));
    random_bytes(key->cipher, sizeof(key->cipher));
    random_bytes(key->mac, sizeof(key->mac));
    key->size = sizeof(key->cipher);
}

/* What an entry has, or zeros. */
static struct rotating rotating_of(const struct zone *zone, const struct kept *k)
{
    struct rotating r = { .lifetime_s = 0 };
    struct str data = kept_data(zone, k);

    if (data.len == sizeof(r))
        memcpy(&r, data.ptr, sizeof(r));
    return r;
}

/* False: there is no room. */
static bool rotate(struct zone *zone, struct kept *k, struct rotating *r, uint64_t now)
{
    void *room = kept_room(zone, k, sizeof(*r));

    if (room == NULL)
        return false;
    r->previous = r->current;
    make_key(&r->current.key);
    r->current.made_s = now;
    memcpy(room, r, sizeof(*r));
    kept_show(zone, k);
    return true;
}

static bool current_key(struct zone *zone, uint64_t lifetime_s, struct ssl_ticket_key *key)
{
    struct str name = str_from((const char *) &lifetime_s, sizeof(lifetime_s));
    uint64_t now = (uint64_t) time(NULL);
    struct rotating r = { .lifetime_s = 0 };
    struct kept *k;
    bool found;

    zone_lock(zone);
    k = kept_entry(zone, name);
    if (k != NULL)
        r = rotating_of(zone, k);
    r.lifetime_s = lifetime_s;
    found = k != NULL && ((r.current.made_s != 0 && now < r.current.made_s + lifetime_s) ||
                          rotate(zone, k, &r, now));
    zone_unlock(zone);
    *key = r.current.key;
    OPENSSL_cleanse(&r, sizeof(r));
    return found;
}

static bool is_valid(const struct ssl_ticket_key *key, uint64_t made_s, uint64_t lifetime_s,
                     const unsigned char *name)
{
    return made_s != 0 && (uint64_t) time(NULL) <= made_s + 2 * lifetime_s &&
           memcmp(key->name, name, NAME_SIZE) == 0;
}

/* Of any lifetime: a reload may have changed it. */
static bool find_shared(struct zone *zone, const unsigned char *name, struct ssl_ticket_key *key)
{
    struct keyed *t;
    struct kept *k = NULL;
    bool found = false;

    zone_lock(zone);
    t = kept_table(zone);
    while (!found && (k = keyed_next(zone, t, k)) != NULL) {
        struct rotating r = rotating_of(zone, k);

        found = true;
        if (is_valid(&r.current.key, r.current.made_s, r.lifetime_s, name))
            *key = r.current.key;
        else if (is_valid(&r.previous.key, r.previous.made_s, r.lifetime_s, name))
            *key = r.previous.key;
        else
            found = false;
        OPENSSL_cleanse(&r, sizeof(r));
    }
    zone_unlock(zone);
    return found;
}

/* What the library calls --------------------------------------------------------------------- */

/* The key for a new ticket; false: there is none. */
static bool key_to_encrypt(const SSL *ssl, const struct ssl_spec *spec, struct ssl_ticket_key *key)
{
    if (spec->ticket_keys.count > 0) {
        *key = spec->ticket_keys.items[0];
        return true;
    }
    return spec->ticket_zone != NULL && spec->ticket_zone->zone != NULL &&
           current_key(spec->ticket_zone->zone,
                       (uint64_t) MAX(SSL_CTX_get_timeout(SSL_get_SSL_CTX(ssl)), 1), key);
}

static bool key_by_name(const struct ssl_spec *spec, const unsigned char *name,
                        struct ssl_ticket_key *key)
{
    for (unsigned i = 0; i < spec->ticket_keys.count; i++) {
        if (memcmp(spec->ticket_keys.items[i].name, name, NAME_SIZE) == 0) {
            *key = spec->ticket_keys.items[i];
            return true;
        }
    }
    return spec->ticket_keys.count == 0 && spec->ticket_zone != NULL &&
           spec->ticket_zone->zone != NULL && find_shared(spec->ticket_zone->zone, name, key);
}

static bool set_up(EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, const struct ssl_ticket_key *key,
                   const unsigned char *iv, bool encrypt)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *) (uintptr_t) key->mac,
                                          key->size),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA256" }, 0),
        OSSL_PARAM_construct_end(),
    };
    const EVP_CIPHER *aes = key->size == 16 ? EVP_aes_128_cbc() : EVP_aes_256_cbc();

    return EVP_CipherInit_ex(cipher, aes, NULL, key->cipher, iv, encrypt) == 1 &&
           EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* -1: failed; 0: no key, do without; 1: goes on; 2: goes on, and the client is to have a new ticket. */
static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int encrypt)
{
    const struct ssl_spec *spec = ssl_spec_of(ssl);
    struct ssl_ticket_key key, first;
    int rc = 0;

    if (encrypt) {
        if (!key_to_encrypt(ssl, spec, &key))
            return 0;
        memcpy(name, key.name, NAME_SIZE);
        random_bytes(iv, (size_t) EVP_CIPHER_get_iv_length(EVP_aes_256_cbc()));
        rc = set_up(cipher, mac, &key, iv, true) ? 1 : -1;
    } else if (key_by_name(spec, name, &key)) {
        rc = set_up(cipher, mac, &key, iv, false) ? 1 : -1;
        /* Clients use a ticket of TLS 1.3 once. An old key's is replaced. */
        if (rc == 1 && (SSL_version(ssl) == TLS1_3_VERSION || !key_to_encrypt(ssl, spec, &first) ||
                        memcmp(first.name, name, NAME_SIZE) != 0))
            rc = 2;
        OPENSSL_cleanse(&first, sizeof(first));
    }
    OPENSSL_cleanse(&key, sizeof(key));
    return rc;
}

int ssl_use_tickets(struct conf *cf, SSL_CTX *ctx, const struct ssl_spec *spec)
{
    const char *error = NULL;

    if (spec->session_tickets && spec->ticket_keys.count == 0) {
        /* Workers look for it in the spec, which is only const to who makes contexts. */
        struct ssl_spec *mine = (struct ssl_spec *) (uintptr_t) spec;

        mine->ticket_zone = res_zone(cf, STR(ZONE_NAME), ZONE_MIN, &keys_kind, &error);
        if (mine->ticket_zone == NULL)
            return -1;
    }
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key) ? 0 : -1;
}

/* Files -------------------------------------------------------------------------------------- */

static void wipe(void *keys)
{
    OPENSSL_cleanse(keys, sizeof(struct ssl_ticket_key));
}

/* 48 bytes: name, cipher's key, mac's; 80: name, mac's, cipher's. */
static void split(struct ssl_ticket_key *key, const unsigned char *buf, size_t size)
{
    memcpy(key->name, buf, NAME_SIZE);
    key->size = size == FILE_SMALL ? 16 : 32;
    memcpy(size == FILE_SMALL ? key->cipher : key->mac, buf + NAME_SIZE, key->size);
    memcpy(size == FILE_SMALL ? key->mac : key->cipher, buf + NAME_SIZE + key->size, key->size);
}

static const char *read_key(struct conf *cf, struct str path, int fd, struct ssl_ticket_key *key)
{
    unsigned char buf[FILE_LARGE];
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) != 0)
        return conf_error_arg(cf, 1, "fstat() \"%.*s\" failed (%d: %s)", STR_ARG(path), errno,
                              strerror(errno));
    if (st.st_size != FILE_SMALL && st.st_size != FILE_LARGE)
        return conf_error_arg(cf, 1, "\"%.*s\" must be 48 or 80 bytes", STR_ARG(path));
    n = read(fd, buf, (size_t) st.st_size);
    if (n < 0)
        return conf_error_arg(cf, 1, "read() \"%.*s\" failed (%d: %s)", STR_ARG(path), errno,
                              strerror(errno));
    if (n != st.st_size)
        return conf_error_arg(cf, 1, "read() \"%.*s\" returned only %zd bytes instead of %lld",
                              STR_ARG(path), n, (long long) st.st_size);
    split(key, buf, (size_t) n);
    OPENSSL_cleanse(buf, sizeof(buf));
    return NULL;
}

const char *ssl_set_ticket_key(struct conf *cf, void *field)
{
    struct ssl_ticket_keys *keys = field;
    struct str path = conf_path(cf, cf->args[1], true);
    struct ssl_ticket_key *items;
    const char *error;
    int fd;

    if (cf->config->offline)
        return NULL;
    fd = open(path.ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return conf_error_arg(cf, 1, "open() \"%.*s\" failed (%d: %s)", STR_ARG(path), errno,
                              strerror(errno));
    items = arena_grow(cf->arena, keys->items, keys->count, &keys->capacity, sizeof(*items));
    for (unsigned i = 0; items != keys->items && i < keys->count; i++)
        arena_defer(cf->arena, wipe, &items[i]);
    keys->items = items;
    error = read_key(cf, path, fd, &items[keys->count]);
    close(fd);
    if (error != NULL)
        return error;
    arena_defer(cf->arena, wipe, &items[keys->count]);
    keys->count++;
    return NULL;
}
