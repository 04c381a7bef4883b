/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A provider for the library whose keys have their public half, which it takes from the default one, and a number in place of the other: what
 * needs that is asked of the key process. It stands in a library context of its own, so that nothing but
 * these keys ever finds it; the library goes to the provider that a key belongs to.
 */
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>

#include "modules/ssl/provided.h"

#define NUMBER "keyproc-number" /* and the generation */
#define NAME "keyproc-name"
#define FUNCTION(id_, f_)         \
    {                             \
        id_, (void (*)(void))(f_) \
    }
#define FUNCTIONS_END \
    {                 \
        0, NULL       \
    }

static OSSL_LIB_CTX *library;
static OSSL_PROVIDER *provider;

struct key {
    EVP_PKEY *public_half;
    enum keyproc_kind kind;
    uint64_t number; /* and the generation, in the lower half */
    bool numbered;
    void *name; /* as requests have it; NULL: it goes by its number alone */
    size_t name_len;
};

static const char *const kind_names[] = {
    [KEYPROC_RSA] = "RSA",         [KEYPROC_RSA_PSS] = "RSA-PSS", [KEYPROC_EC] = "EC",
    [KEYPROC_ED25519] = "ED25519", [KEYPROC_ED448] = "ED448",
};

/* Keys --------------------------------------------------------------------------------------- */

static void *key_new(enum keyproc_kind kind)
{
    struct key *key = OPENSSL_zalloc(sizeof(*key));

    if (key != NULL)
        key->kind = kind;
    return key;
}

static void *rsa_new(void *context UNUSED)
{
    return key_new(KEYPROC_RSA);
}

static void *rsa_pss_new(void *context UNUSED)
{
    return key_new(KEYPROC_RSA_PSS);
}

static void *ec_new(void *context UNUSED)
{
    return key_new(KEYPROC_EC);
}

static void *ed25519_new(void *context UNUSED)
{
    return key_new(KEYPROC_ED25519);
}

static void *ed448_new(void *context UNUSED)
{
    return key_new(KEYPROC_ED448);
}

static void key_free(void *data)
{
    struct key *key = data;

    if (key == NULL)
        return;
    EVP_PKEY_free(key->public_half);
    OPENSSL_free(key->name);
    OPENSSL_free(key);
}

static int key_has(const void *data, int selection)
{
    const struct key *key = data;

    if (key == NULL || ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) && !key->numbered))
        return 0;
    return key->public_half != NULL;
}

static int key_match(const void *a, const void *b, int selection)
{
    const struct key *one = a, *other = b;

    if (one->public_half == NULL || other->public_half == NULL)
        return 0;
    if (selection & OSSL_KEYMGMT_SELECT_KEYPAIR)
        return EVP_PKEY_eq(one->public_half, other->public_half) == 1;
    return EVP_PKEY_parameters_eq(one->public_half, other->public_half) == 1;
}

static int key_import(void *data, int selection, const OSSL_PARAM params[])
{
    struct key *key = data;
    const OSSL_PARAM *number = OSSL_PARAM_locate_const(params, NUMBER),
                     *name = OSSL_PARAM_locate_const(params, NAME);
    EVP_PKEY_CTX *ctx;
    int ok;

    if (key->public_half != NULL || !(selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY))
        return 0;
    if (number != NULL && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)) {
        if (!OSSL_PARAM_get_uint64(number, &key->number))
            return 0;
        if (name != NULL &&
            !OSSL_PARAM_get_octet_string(name, &key->name, KEYPROC_NAME_MAX, &key->name_len))
            return 0;
        key->numbered = true;
    }
    ctx = EVP_PKEY_CTX_new_from_name(NULL, kind_names[key->kind], NULL);
    ok = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
         EVP_PKEY_fromdata(ctx, &key->public_half, EVP_PKEY_PUBLIC_KEY,
                           (OSSL_PARAM *) (uintptr_t) params) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

/* Only the public half: where the other one is asked for, the library must come to us. */
static int key_export(void *data, int selection, OSSL_CALLBACK *callback, void *arg)
{
    const struct key *key = data;
    OSSL_PARAM *params = NULL;
    int what =
        selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEY_PARAMETERS;
    int ok;

    if (key->public_half == NULL || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY))
        return 0;
    if (EVP_PKEY_todata(key->public_half, what, &params) != 1)
        return 0;
    ok = callback(params, arg);
    OSSL_PARAM_free(params);
    return ok;
}

static const OSSL_PARAM *key_types(int selection UNUSED)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_uint64(NUMBER, NULL),
        OSSL_PARAM_octet_string(NAME, NULL, 0),
        OSSL_PARAM_END,
    };

    return types;
}

static int key_get_params(void *data, OSSL_PARAM params[])
{
    const struct key *key = data;

    return key->public_half != NULL && EVP_PKEY_get_params(key->public_half, params) == 1;
}

static const OSSL_PARAM *key_gettable(void *context UNUSED)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_END,
    };

    return types;
}

static const char *rsa_operation(int operation UNUSED)
{
    return "RSA";
}

static const char *ec_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

#define KEY_FUNCTIONS(name_, new_, ...)                            \
    static const OSSL_DISPATCH name_[] = {                         \
        FUNCTION(OSSL_FUNC_KEYMGMT_NEW, new_),                     \
        FUNCTION(OSSL_FUNC_KEYMGMT_FREE, key_free),                \
        FUNCTION(OSSL_FUNC_KEYMGMT_HAS, key_has),                  \
        FUNCTION(OSSL_FUNC_KEYMGMT_MATCH, key_match),              \
        FUNCTION(OSSL_FUNC_KEYMGMT_IMPORT, key_import),            \
        FUNCTION(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_types),       \
        FUNCTION(OSSL_FUNC_KEYMGMT_EXPORT, key_export),            \
        FUNCTION(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, key_types),       \
        FUNCTION(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),    \
        FUNCTION(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable), \
        __VA_ARGS__ FUNCTIONS_END,                                 \
    }

KEY_FUNCTIONS(rsa_key, rsa_new, );
KEY_FUNCTIONS(rsa_pss_key, rsa_pss_new,
              FUNCTION(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, rsa_operation), );
KEY_FUNCTIONS(ec_key, ec_new, FUNCTION(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, ec_operation), );
KEY_FUNCTIONS(ed25519_key, ed25519_new, );
KEY_FUNCTIONS(ed448_key, ed448_new, );

/* Signatures and decryption ------------------------------------------------------------------ */

struct operation {
    const struct key *key;
    unsigned padding, digest;
    unsigned version, other_version;
};

static void *operation_new(void *context UNUSED, const char *properties UNUSED)
{
    return OPENSSL_zalloc(sizeof(struct operation));
}

static void *decryption_new(void *context UNUSED)
{
    return OPENSSL_zalloc(sizeof(struct operation));
}

static void operation_free(void *data)
{
    OPENSSL_free(data);
}

static bool set_padding(struct operation *o, const OSSL_PARAM *p)
{
    int padding = 0;

    if (p->data_type == OSSL_PARAM_UTF8_STRING) {
        struct str name = str_from(p->data, p->data_size);

        padding = str_eq(name, STR(OSSL_PKEY_RSA_PAD_MODE_PSS))       ? RSA_PKCS1_PSS_PADDING
                  : str_eq(name, STR(OSSL_PKEY_RSA_PAD_MODE_PKCSV15)) ? RSA_PKCS1_PADDING
                                                                      : 0;
    } else if (!OSSL_PARAM_get_int(p, &padding)) {
        return false;
    }
    switch (padding) {
    case RSA_PKCS1_PSS_PADDING: o->padding = KEYPROC_PSS; return true;
    case RSA_PKCS1_PADDING: o->padding = KEYPROC_PKCS1; return true;
    case RSA_PKCS1_WITH_TLS_PADDING: o->padding = KEYPROC_PLAIN; return true;
    default: return false;
    }
}

/* As long as the digest: TLS knows no other. */
static bool is_tls_salt(const OSSL_PARAM *p)
{
    int n;

    if (p->data_type == OSSL_PARAM_UTF8_STRING)
        return str_eq(str_from(p->data, p->data_size), STR(OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST)) ||
               str_eq(str_from(p->data, p->data_size), STR("-1"));
    return OSSL_PARAM_get_int(p, &n) && (n == RSA_PSS_SALTLEN_DIGEST || n >= 32);
}

static bool set_version(const OSSL_PARAM *p, unsigned *version)
{
    return p == NULL || OSSL_PARAM_get_uint(p, version);
}

static int operation_set_params(void *data, const OSSL_PARAM params[])
{
    struct operation *o = data;
    const OSSL_PARAM *p;

    if (params == NULL)
        return 1;
    p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
    if (p != NULL && !set_padding(o, p))
        return 0;
    p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN);
    if (p != NULL && !is_tls_salt(p))
        return 0;
    return set_version(OSSL_PARAM_locate_const(params, OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION),
                       &o->version) &&
           set_version(
               OSSL_PARAM_locate_const(params, OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION),
               &o->other_version);
}

static const OSSL_PARAM *operation_settable(void *data UNUSED, void *context UNUSED)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_uint(OSSL_ASYM_CIPHER_PARAM_TLS_CLIENT_VERSION, NULL),
        OSSL_PARAM_uint(OSSL_ASYM_CIPHER_PARAM_TLS_NEGOTIATED_VERSION, NULL),
        OSSL_PARAM_END,
    };

    return types;
}

static int sign_init(void *data, const char *digest, void *key, const OSSL_PARAM params[])
{
    struct operation *o = data;

    if (key != NULL)
        o->key = key;
    if (o->key == NULL || !o->key->numbered)
        return 0;
    o->padding = o->key->kind == KEYPROC_RSA       ? KEYPROC_PKCS1
                 : o->key->kind == KEYPROC_RSA_PSS ? KEYPROC_PSS
                                                   : KEYPROC_PLAIN;
    o->digest = keyproc_digest_by_name(digest != NULL ? digest : "");
    return o->digest < KEYPROC_DIGESTS && operation_set_params(o, params);
}

/* 1 or 0, as all of them. */
static int ask(const struct operation *o, unsigned op, unsigned char *out, size_t *out_len,
               const unsigned char *in, size_t in_len)
{
    struct keyproc_request rq = { .key = (uint32_t) (o->key->number >> 32),
                                  .generation = (uint32_t) o->key->number,
                                  .op = (uint8_t) op,
                                  .padding = (uint8_t) o->padding,
                                  .digest = (uint8_t) o->digest };

    if (in_len > KEYPROC_PAYLOAD_MAX)
        return 0;
    rq.len = (uint32_t) in_len;
    rq.name_len = (uint32_t) o->key->name_len;
    if (op == KEYPROC_DECRYPT) {
        rq.version = (uint16_t) o->version;
        rq.other_version = (uint16_t) o->other_version;
    }
    if (rq.key >= SSL_PROVIDED_FIRST)
        return ssl_provided_call(&rq, in, out, out_len) == 0;
    return keyproc_call(&rq, str_from(o->key->name, o->key->name_len), in, out, out_len) == 0;
}

static int sign(void *data, unsigned char *sig, size_t *sig_len, size_t sig_size,
                const unsigned char *in, size_t in_len)
{
    const struct operation *o = data;
    size_t max = (size_t) MAX(EVP_PKEY_get_size(o->key->public_half), 0);

    *sig_len = max;
    if (sig == NULL)
        return 1;
    *sig_len = MIN(max, sig_size);
    return ask(o, KEYPROC_SIGN, sig, sig_len, in, in_len);
}

static int decrypt_init(void *data, void *key, const OSSL_PARAM params[])
{
    struct operation *o = data;

    if (key != NULL)
        o->key = key;
    o->padding = KEYPROC_PKCS1; /* until something better is asked for */
    return o->key != NULL && o->key->numbered && operation_set_params(o, params);
}

static int decrypt(void *data, unsigned char *out, size_t *out_len, size_t out_size,
                   const unsigned char *in, size_t in_len)
{
    const struct operation *o = data;

    if (o->padding != KEYPROC_PLAIN)
        return 0;
    *out_len = KEYPROC_SECRET_LEN;
    if (out == NULL)
        return 1;
    if (out_size < KEYPROC_SECRET_LEN)
        return 0;
    return ask(o, KEYPROC_DECRYPT, out, out_len, in, in_len) && *out_len == KEYPROC_SECRET_LEN;
}

static const OSSL_DISPATCH signature[] = {
    FUNCTION(OSSL_FUNC_SIGNATURE_NEWCTX, operation_new),
    FUNCTION(OSSL_FUNC_SIGNATURE_FREECTX, operation_free),
    FUNCTION(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, sign_init),
    FUNCTION(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, sign),
    FUNCTION(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, operation_set_params),
    FUNCTION(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, operation_settable),
    FUNCTIONS_END,
};

static const OSSL_DISPATCH cipher[] = {
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_NEWCTX, decryption_new),
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_FREECTX, operation_free),
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, decrypt_init),
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_DECRYPT, decrypt),
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS, operation_set_params),
    FUNCTION(OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS, operation_settable),
    FUNCTIONS_END,
};

/* The provider ------------------------------------------------------------------------------- */

#define PROPERTIES "provider=keyproc"

static const OSSL_ALGORITHM keys[] = {
    { "RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, rsa_key, NULL },
    { "RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10", PROPERTIES, rsa_pss_key, NULL },
    { "EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, ec_key, NULL },
    { "ED25519:1.3.101.112", PROPERTIES, ed25519_key, NULL },
    { "ED448:1.3.101.113", PROPERTIES, ed448_key, NULL },
    { NULL, NULL, NULL, NULL },
};

static const OSSL_ALGORITHM signatures[] = {
    { "RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, signature, NULL },
    { "ECDSA", PROPERTIES, signature, NULL },
    { "ED25519:1.3.101.112", PROPERTIES, signature, NULL },
    { "ED448:1.3.101.113", PROPERTIES, signature, NULL },
    { NULL, NULL, NULL, NULL },
};

static const OSSL_ALGORITHM ciphers[] = {
    { "RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, cipher, NULL },
    { NULL, NULL, NULL, NULL },
};

static const OSSL_ALGORITHM *query(void *context UNUSED, int operation, int *no_store)
{
    *no_store = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT: return keys;
    case OSSL_OP_SIGNATURE: return signatures;
    case OSSL_OP_ASYM_CIPHER: return ciphers;
    default: return NULL;
    }
}

static const OSSL_DISPATCH provider_functions[] = {
    FUNCTION(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
    FUNCTIONS_END,
};

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in UNUSED,
                         const OSSL_DISPATCH **out, void **context)
{
    *out = provider_functions;
    *context = (void *) (uintptr_t) handle;
    return 1;
}

static int load(void)
{
    if (provider != NULL)
        return 0;
    if (library == NULL)
        library = OSSL_LIB_CTX_new();
    if (library == NULL || OSSL_PROVIDER_add_builtin(library, "keyproc", provider_init) != 1)
        return -1;
    provider = OSSL_PROVIDER_load(library, "keyproc");
    return provider != NULL ? 0 : -1;
}

/* The parameters of the public half with the number, and the name, behind them. */
static OSSL_PARAM *with_number(const OSSL_PARAM *params, uint64_t *number, struct str name)
{
    size_t n = 0;
    OSSL_PARAM *all;

    while (params[n].key != NULL)
        n++;
    all = mem_alloc((n + 3) * sizeof(*all));
    memcpy(all, params, n * sizeof(*all));
    all[n++] = OSSL_PARAM_construct_uint64(NUMBER, number);
    if (name.len > 0)
        all[n++] = OSSL_PARAM_construct_octet_string(NAME, (void *) (uintptr_t) name.ptr, name.len);
    all[n] = OSSL_PARAM_construct_end();
    return all;
}

static EVP_PKEY *handle(EVP_PKEY *public_half, enum keyproc_kind kind, uint64_t number,
                        struct str name)
{
    OSSL_PARAM *params = NULL, *all = NULL;
    EVP_PKEY_CTX *ctx = NULL;
    EVP_PKEY *key = NULL;

    if (load() == 0)
        ctx = EVP_PKEY_CTX_new_from_name(library, kind_names[kind], NULL);
    if (ctx == NULL || EVP_PKEY_todata(public_half, EVP_PKEY_PUBLIC_KEY, &params) != 1)
        goto out;
    all = with_number(params, &number, name);
    if (EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, all) != 1)
        key = NULL;
out:
    free(all);
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

EVP_PKEY *keyproc_handle(EVP_PKEY *public_half, enum keyproc_kind kind, uint32_t number,
                         uint32_t generation)
{
    return handle(public_half, kind, (uint64_t) number << 32 | generation, STR(""));
}

EVP_PKEY *keyproc_handle_named(EVP_PKEY *public_half, uint32_t number, struct str path)
{
    enum keyproc_kind kind = keyproc_kind_of(public_half);
    char name[KEYPROC_NAME_MAX];

    if (kind == KEYPROC_KINDS || path.len > sizeof(name) - KEYPROC_PRINT_LEN ||
        keyproc_print(public_half, (unsigned char *) name) != 0)
        return NULL;
    memcpy(name + KEYPROC_PRINT_LEN, path.ptr, path.len);
    return handle(public_half, kind, (uint64_t) number << 32,
                  str_from(name, KEYPROC_PRINT_LEN + path.len));
}

enum keyproc_kind keyproc_kind_of(const EVP_PKEY *key)
{
    for (unsigned i = 0; i < ARRAY_LEN(kind_names); i++) {
        if (EVP_PKEY_is_a(key, kind_names[i]))
            return (enum keyproc_kind) i;
    }
    return KEYPROC_KINDS;
}
