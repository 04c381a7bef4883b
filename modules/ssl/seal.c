/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Encryption of records without the library's record layer. OpenSSL can hand the keys of a direction to whoever carries its bytes, so
 * that the kernel encrypts (SSL_OP_ENABLE_KTLS); the BIO of conn_tls_wire.c takes them as a socket would, and what is to be sent is
 * encrypted here: from where it lies straight into the buffer that is sent. The library's way copies each record twice
 * more, and allocates eight times for it.
 *
 * Nothing is decrypted here, no key is ever made here, and no two records can have one nonce: a sequence number goes up with each record,
 * and keys come with the first one from the library, which writes no record with them itself from then on.
 *
 * The ciphers' contexts are shared by all connections, for the key's schedule is made faster than it is fetched from memory
 * that has not been touched for a while; a connection keeps the key.
 */
#include "modules/ssl/seal.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#define HEADER 5
#define TAG 16
#define EXPLICIT 8
#define AAD_TLS12 13

enum kind { KIND_NONE, KIND_AES128, KIND_AES256, KIND_CHACHA20, KIND_COUNT };

_Static_assert(KIND_COUNT == SEAL_KINDS, "seal.h says how many there are");

static const struct {
    const char *name;
    uint8_t key_len;
} ciphers[KIND_COUNT] = {
    [KIND_AES128] = { "AES-128-GCM", 16 },
    [KIND_AES256] = { "AES-256-GCM", 32 },
    [KIND_CHACHA20] = { "ChaCha20-Poly1305", 32 },
};

static EVP_CIPHER_CTX *contexts[KIND_COUNT];
static const struct seal *keyed[KIND_COUNT]; /* whose key a context has */

/* The record under way. */
static struct {
    EVP_CIPHER_CTX *ctx; /* NULL: something has failed */
    char *start, *at;
    uint8_t type; /* to be hidden behind the contents; 0: it stands in front */
} record;

bool seal_known(void)
{
#if defined(TLS_CIPHER_CHACHA20_POLY1305) && !defined(OPENSSL_NO_KTLS)
    /*
     * From 3.2 on the library keeps books on records in another way; the interface is its internal one. And where a FIPS module is asked
     * for, it is the module that has to make the nonces of TLS 1.2.
     */
    return OPENSSL_version_major() == 3 && OPENSSL_version_minor() < 2 &&
           !EVP_default_properties_is_fips_enabled(NULL);
#else
    return false;
#endif
}

static EVP_CIPHER_CTX *context_of(enum kind kind)
{
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *ctx;

    if (likely(contexts[kind] != NULL))
        return contexts[kind];
    cipher = EVP_CIPHER_fetch(NULL, ciphers[kind].name, NULL);
    ctx = cipher != NULL ? EVP_CIPHER_CTX_new() : NULL;
    if (ctx != NULL && EVP_EncryptInit_ex(ctx, cipher, NULL, NULL, NULL) != 1) {
        EVP_CIPHER_CTX_free(ctx);
        ctx = NULL;
    }
    EVP_CIPHER_free(cipher);
    return contexts[kind] = ctx;
}

static uint64_t get64(const unsigned char *p)
{
    uint64_t n = 0;

    for (int i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return n;
}

static void put64(unsigned char *p, uint64_t n)
{
    for (int i = 8; i-- > 0; n >>= 8)
        p[i] = (unsigned char) n;
}

static void take_parts(struct seal *s, const unsigned char *key, const void *salt, size_t salt_len,
                       const void *iv, const unsigned char *sequence)
{
    memcpy(s->key, key, ciphers[s->kind].key_len);
    memcpy(s->iv, salt, salt_len);
    memcpy(s->iv + salt_len, iv, sizeof(s->iv) - salt_len);
    s->explicit_ = get64(s->iv + sizeof(s->iv) - EXPLICIT);
    s->sequence = get64(sequence);
}

bool seal_take(struct seal *s, const void *info)
{
    const struct tls_crypto_info *common = info;
    const struct tls12_crypto_info_aes_gcm_128 *aes128 = info;
    const struct tls12_crypto_info_aes_gcm_256 *aes256 = info;
    const struct tls12_crypto_info_chacha20_poly1305 *chacha20 = info;
    enum kind kind = KIND_NONE;

    if (!seal_known() || (common->version != TLS_1_3_VERSION && common->version != TLS_1_2_VERSION))
        return false;
    switch (common->cipher_type) {
    case TLS_CIPHER_AES_GCM_128: kind = KIND_AES128; break;
    case TLS_CIPHER_AES_GCM_256: kind = KIND_AES256; break;
    case TLS_CIPHER_CHACHA20_POLY1305: kind = KIND_CHACHA20; break;
    default: return false;
    }
    if (context_of(kind) == NULL)
        return false;
    seal_drop(s);
    s->kind = (uint8_t) kind;
    s->tls13 = common->version == TLS_1_3_VERSION;
    if (kind == KIND_AES128)
        take_parts(s, aes128->key, aes128->salt, sizeof(aes128->salt), aes128->iv, aes128->rec_seq);
    else if (kind == KIND_AES256)
        take_parts(s, aes256->key, aes256->salt, sizeof(aes256->salt), aes256->iv, aes256->rec_seq);
    else
        take_parts(s, chacha20->key, "", 0, chacha20->iv, chacha20->rec_seq);
    return true;
}

#define GIVE_PARTS(to, salt_bytes)                           \
    do {                                                     \
        memcpy((to).key, s->key, sizeof((to).key));          \
        memcpy((to).iv, iv + (salt_bytes), sizeof((to).iv)); \
        put64((to).rec_seq, s->sequence);                    \
    } while (0)

size_t seal_give(const struct seal *s, struct seal_info *info)
{
    unsigned char iv[sizeof(s->iv)];

    memset(info, 0, sizeof(*info));
    memcpy(iv, s->iv, sizeof(iv));
    info->common.version = s->tls13 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
    if (s->kind == KIND_CHACHA20) {
        info->common.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
        GIVE_PARTS(info->chacha20, 0);
        return sizeof(info->chacha20);
    }
    /* In TLS 1.2 this half of the nonce goes with the record; it has to be one that none before has had. */
    if (!s->tls13)
        put64(iv + sizeof(iv) - EXPLICIT, s->explicit_);
    if (s->kind == KIND_AES128) {
        info->common.cipher_type = TLS_CIPHER_AES_GCM_128;
        memcpy(info->aes128.salt, iv, sizeof(info->aes128.salt));
        GIVE_PARTS(info->aes128, sizeof(info->aes128.salt));
        return sizeof(info->aes128);
    }
    info->common.cipher_type = TLS_CIPHER_AES_GCM_256;
    memcpy(info->aes256.salt, iv, sizeof(info->aes256.salt));
    GIVE_PARTS(info->aes256, sizeof(info->aes256.salt));
    return sizeof(info->aes256);
}

uint64_t seal_sequence_of(const struct seal_info *info)
{
    switch (info->common.cipher_type) {
    case TLS_CIPHER_AES_GCM_128: return get64(info->aes128.rec_seq);
    case TLS_CIPHER_AES_GCM_256: return get64(info->aes256.rec_seq);
    default: return get64(info->chacha20.rec_seq);
    }
}

uint8_t seal_extra(const struct seal *s)
{
    return (uint8_t) (HEADER + TAG + (s->tls13 ? 1 : s->kind == KIND_CHACHA20 ? 0 : EXPLICIT));
}

const char *seal_name(const struct seal *s)
{
    return ciphers[s->kind].name;
}

void seal_drop(struct seal *s)
{
    static const unsigned char none[sizeof(s->key)];

    if (s->kind == KIND_NONE)
        return;
    if (keyed[s->kind] == s) {
        /* What was made of the key must not outlive the connection in the context, either. */
        EVP_EncryptInit_ex(contexts[s->kind], NULL, NULL, none, NULL);
        keyed[s->kind] = NULL;
    }
    OPENSSL_cleanse(s, sizeof(*s));
}

/* What is authenticated beside the contents: the header; in TLS 1.2 the number, and the length as it was before. */
static size_t additional(const struct seal *s, const char *header, size_t len, unsigned char *aad)
{
    if (likely(s->tls13)) {
        memcpy(aad, header, HEADER);
        return HEADER;
    }
    put64(aad, s->sequence);
    memcpy(aad + 8, header, 3);
    aad[11] = (unsigned char) (len >> 8);
    aad[12] = (unsigned char) len;
    return AAD_TLS12;
}

/* The nonce of this record. True: a part of it has to be sent. */
static bool nonce_of(struct seal *s, unsigned char *nonce)
{
    memcpy(nonce, s->iv, sizeof(s->iv));
    if (!s->tls13 && s->kind != KIND_CHACHA20) {
        put64(nonce + sizeof(s->iv) - EXPLICIT, s->explicit_++);
        return true;
    }
    put64(nonce + sizeof(s->iv) - 8, get64(s->iv + sizeof(s->iv) - 8) ^ s->sequence);
    return false;
}

void seal_begin(struct seal *s, uint8_t type, size_t len, char *out)
{
    unsigned char nonce[sizeof(s->iv)], aad[AAD_TLS12], *header = (unsigned char *) out;
    bool sent = nonce_of(s, nonce);
    size_t whole = len + TAG + (sent ? EXPLICIT : 0) + s->tls13, aad_len;
    int n;

    ASSERT(len <= SEAL_MAX);
    header[0] = s->tls13 ? SEAL_DATA : type;
    header[1] = header[2] = 3;
    header[3] = (unsigned char) (whole >> 8);
    header[4] = (unsigned char) whole;
    record.start = out;
    record.at = out + HEADER;
    if (sent)
        record.at = mempcpy(record.at, nonce + sizeof(s->iv) - EXPLICIT, EXPLICIT);
    record.type = s->tls13 ? type : 0;
    record.ctx = contexts[s->kind];
    aad_len = additional(s, out, len, aad);
    s->sequence++;
    if (EVP_EncryptInit_ex(record.ctx, NULL, NULL, keyed[s->kind] == s ? NULL : s->key, nonce) !=
            1 ||
        EVP_EncryptUpdate(record.ctx, NULL, &n, aad, (int) aad_len) != 1)
        record.ctx = NULL;
    keyed[s->kind] = record.ctx != NULL ? s : NULL;
}

void seal_add(const char *ptr, size_t len)
{
    int n;

    if (unlikely(record.ctx == NULL || len == 0))
        return;
    if (EVP_EncryptUpdate(record.ctx, (unsigned char *) record.at, &n, (const unsigned char *) ptr,
                          (int) len) == 1 &&
        (size_t) n == len)
        record.at += len;
    else
        record.ctx = NULL;
}

size_t seal_end(void)
{
    int n = 0;

    if (record.type != 0)
        seal_add((const char *) &record.type, 1);
    if (unlikely(record.ctx == NULL) ||
        EVP_EncryptFinal_ex(record.ctx, (unsigned char *) record.at, &n) != 1 || n != 0 ||
        EVP_CIPHER_CTX_ctrl(record.ctx, EVP_CTRL_AEAD_GET_TAG, TAG, record.at) != 1)
        return 0;
    return (size_t) (record.at + TAG - record.start);
}

void seal_trim(void)
{
    for (unsigned i = 0; i < KIND_COUNT; i++) {
        EVP_CIPHER_CTX_free(contexts[i]);
        contexts[i] = NULL;
        keyed[i] = NULL;
    }
}
