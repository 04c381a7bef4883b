/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A provider of OpenSSL for the tests, which stands for one that speaks PKCS #11 to a token. Its section of openssl.cnf:
 *
 *   folder = DIR   TOKEN/OBJECT.pem are the private keys; "log" gets a line for each login and signature, with the process
 *   pin = PIN      three wrong ones in a row lock the token
 *
 * Keys are named by "pkcs11:token=TOKEN;object=OBJECT?pin-value=PIN" (or pin-source=FILE), and sign and decrypt here alone: no
 * private half is exported. As with the less obliging modules of PKCS #11, a fork
 * of a process that has opened the token cannot use it any more, and what
 * it opens (the log) it uses for ever.
 */
#include <fcntl.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define F(id, f)                \
    {                           \
        id, (void (*)(void))(f) \
    }
#define F_END   \
    {           \
        0, NULL \
    }
#define UNUSED __attribute__((unused))

struct token {
    const OSSL_CORE_HANDLE *handle;
    OSSL_FUNC_core_new_error_fn *new_error;
    OSSL_FUNC_core_vset_error_fn *vset_error;
    OSSL_LIB_CTX *library; /* where the keys really are */
    const char *folder, *pin;
    int wrong;
};

struct key {
    struct token *token;
    EVP_PKEY *real;
};

static int fail(struct token *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    t->new_error(t->handle);
    t->vset_error(t->handle, 1, fmt, ap);
    va_end(ap);
    return 0;
}

static void note(const struct token *t, const char *what)
{
    static int fd = -1;
    char path[4096];

    if (fd < 0) {
        snprintf(path, sizeof(path), "%s/log", t->folder);
        fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    }
    if (dprintf(fd, "%d %s\n", (int) getpid(), what) < 0)
        abort();
}

/* CKR_CRYPTOKI_NOT_INITIALIZED, as a fork of the process gets it. */
static int enter(struct token *t)
{
    static pid_t owner;

    if (owner == 0)
        owner = getpid();
    if (owner == getpid())
        return 1;
    note(t, "inherited");
    return fail(t, "the token was opened by another process");
}

/* Keys --------------------------------------------------------------------------------------- */

static void *key_new(void *context)
{
    struct key *key = calloc(1, sizeof(*key));

    if (key != NULL)
        key->token = context;
    return key;
}

static void key_free(void *data)
{
    struct key *key = data;

    if (key == NULL)
        return;
    if (key->real != NULL)
        enter(key->token); /* C_DestroyObject and the like speak to the token too */
    EVP_PKEY_free(key->real);
    free(key);
}

static void *key_load(const void *reference, size_t size)
{
    struct key **ours = (void *) (unsigned long) reference, *key;

    if (size != sizeof(*ours))
        return NULL;
    key = *ours;
    *ours = NULL;
    return key;
}

static int key_has(const void *data, int selection UNUSED)
{
    return data != NULL && ((const struct key *) data)->real != NULL;
}

static int key_match(const void *a, const void *b, int selection UNUSED)
{
    const struct key *one = a, *other = b;

    return one->real != NULL && other->real != NULL && EVP_PKEY_eq(one->real, other->real) == 1;
}

static int key_export(void *data, int selection, OSSL_CALLBACK *callback, void *arg)
{
    const struct key *key = data;
    OSSL_PARAM *params = NULL;
    int ok;

    if (key->real == NULL || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY))
        return 0;
    if (EVP_PKEY_todata(key->real, EVP_PKEY_PUBLIC_KEY, &params) != 1)
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
        OSSL_PARAM_END,
    };

    return types;
}

static int key_get_params(void *data, OSSL_PARAM params[])
{
    const struct key *key = data;

    return key->real != NULL && EVP_PKEY_get_params(key->real, params) == 1;
}

static const OSSL_PARAM *key_gettable(void *context UNUSED)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_END,
    };

    return types;
}

static const char *ec_operation(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

#define KEY_FUNCTIONS(name, ...)                            \
    static const OSSL_DISPATCH name[] = {                   \
        F(OSSL_FUNC_KEYMGMT_NEW, key_new),                  \
        F(OSSL_FUNC_KEYMGMT_FREE, key_free),                \
        F(OSSL_FUNC_KEYMGMT_LOAD, key_load),                \
        F(OSSL_FUNC_KEYMGMT_HAS, key_has),                  \
        F(OSSL_FUNC_KEYMGMT_MATCH, key_match),              \
        F(OSSL_FUNC_KEYMGMT_EXPORT, key_export),            \
        F(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, key_types),       \
        F(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),    \
        F(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable), \
        __VA_ARGS__ F_END,                                  \
    }

KEY_FUNCTIONS(rsa_key, );
KEY_FUNCTIONS(ec_key, F(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, ec_operation), );

/* Operations --------------------------------------------------------------------------------- */

struct operation {
    struct token *token;
    EVP_MD_CTX *md;
    EVP_PKEY_CTX *ctx; /* md's, or of its own where that is NULL */
};

static void *sign_new(void *context, const char *properties UNUSED)
{
    struct operation *o = calloc(1, sizeof(*o));

    if (o != NULL)
        o->token = context;
    return o;
}

static void *decrypt_new(void *context)
{
    return sign_new(context, NULL);
}

static void operation_free(void *data)
{
    struct operation *o = data;

    if (o->md == NULL)
        EVP_PKEY_CTX_free(o->ctx);
    EVP_MD_CTX_free(o->md);
    free(o);
}

static int set_params(void *data, const OSSL_PARAM params[])
{
    struct operation *o = data;

    return params == NULL || o->ctx == NULL || EVP_PKEY_CTX_set_params(o->ctx, params) == 1;
}

static const OSSL_PARAM *settable(void *data UNUSED, void *context UNUSED)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_END,
    };

    return types;
}

static int sign_init(void *data, const char *digest, void *key, const OSSL_PARAM params[])
{
    struct operation *o = data;
    struct key *k = key;

    o->md = EVP_MD_CTX_new();
    return o->md != NULL &&
           EVP_DigestSignInit_ex(o->md, &o->ctx, digest, o->token->library, NULL, k->real, NULL) ==
               1 &&
           set_params(o, params);
}

static int sign(void *data, unsigned char *sig, size_t *sig_len, size_t sig_size,
                const unsigned char *in, size_t in_len)
{
    struct operation *o = data;

    if (sig == NULL)
        return EVP_DigestSign(o->md, NULL, sig_len, in, in_len) == 1;
    if (!enter(o->token))
        return 0;
    note(o->token, "sign");
    *sig_len = sig_size;
    return EVP_DigestSign(o->md, sig, sig_len, in, in_len) == 1;
}

static int decrypt_init(void *data, void *key, const OSSL_PARAM params[])
{
    struct operation *o = data;
    struct key *k = key;

    o->ctx = EVP_PKEY_CTX_new_from_pkey(o->token->library, k->real, NULL);
    return o->ctx != NULL && EVP_PKEY_decrypt_init(o->ctx) == 1 && set_params(o, params);
}

static int decrypt(void *data, unsigned char *out, size_t *out_len, size_t out_size,
                   const unsigned char *in, size_t in_len)
{
    struct operation *o = data;

    if (out == NULL)
        return EVP_PKEY_decrypt(o->ctx, NULL, out_len, in, in_len) == 1;
    if (!enter(o->token))
        return 0;
    note(o->token, "decrypt");
    *out_len = out_size;
    return EVP_PKEY_decrypt(o->ctx, out, out_len, in, in_len) == 1;
}

static const OSSL_DISPATCH signature[] = {
    F(OSSL_FUNC_SIGNATURE_NEWCTX, sign_new),
    F(OSSL_FUNC_SIGNATURE_FREECTX, operation_free),
    F(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, sign_init),
    F(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, sign),
    F(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, set_params),
    F(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, settable),
    F_END,
};

static const OSSL_DISPATCH cipher[] = {
    F(OSSL_FUNC_ASYM_CIPHER_NEWCTX, decrypt_new),
    F(OSSL_FUNC_ASYM_CIPHER_FREECTX, operation_free),
    F(OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, decrypt_init),
    F(OSSL_FUNC_ASYM_CIPHER_DECRYPT, decrypt),
    F(OSSL_FUNC_ASYM_CIPHER_SET_CTX_PARAMS, set_params),
    F(OSSL_FUNC_ASYM_CIPHER_SETTABLE_CTX_PARAMS, settable),
    F_END,
};

/* The store ---------------------------------------------------------------------------------- */

struct store {
    struct token *token;
    char path[4096], pin[64];
    int done;
};

/* NAME=value of a URI, which ends at one of these. */
static void attribute(const char *uri, const char *name, char *out, size_t size)
{
    const char *at = strstr(uri, name);

    out[0] = '\0';
    if (at != NULL)
        snprintf(out, size, "%.*s", (int) strcspn(at + strlen(name), ";?&"), at + strlen(name));
}

static void *store_open(void *context, const char *uri)
{
    struct store *s;
    char token[256], object[256], source[1024];
    FILE *f;

    if (strncmp(uri, "pkcs11:", 7) != 0)
        return NULL;
    s = calloc(1, sizeof(*s));
    s->token = context;
    attribute(uri, "token=", token, sizeof(token));
    attribute(uri, "object=", object, sizeof(object));
    attribute(uri, "pin-value=", s->pin, sizeof(s->pin));
    attribute(uri, "pin-source=", source, sizeof(source));
    f = source[0] != '\0' ? fopen(source, "r") : NULL;
    if (f != NULL && fgets(s->pin, sizeof(s->pin), f) != NULL)
        s->pin[strcspn(s->pin, "\n")] = '\0';
    if (f != NULL)
        fclose(f);
    snprintf(s->path, sizeof(s->path), "%s/%s/%s.pem", s->token->folder, token, object);
    return s;
}

static const OSSL_PARAM *store_settable(void *context UNUSED)
{
    static const OSSL_PARAM types[] = { OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
                                        OSSL_PARAM_END };

    return types;
}

static int store_set(void *data UNUSED, const OSSL_PARAM params[] UNUSED)
{
    return 1;
}

static int login(struct store *s, OSSL_PASSPHRASE_CALLBACK *ask, void *arg)
{
    struct token *t = s->token;
    size_t n = 0;

    if (s->pin[0] == '\0') {
        if (!ask(s->pin, sizeof(s->pin) - 1, &n, NULL, arg))
            return fail(t, "no PIN");
        s->pin[n] = '\0';
    }
    if (t->wrong == 3)
        return fail(t, "the token is locked");
    if (strcmp(s->pin, t->pin) != 0) {
        t->wrong++;
        note(t, "wrong");
        return fail(t, "the PIN is wrong");
    }
    t->wrong = 0;
    note(t, "login");
    return 1;
}

static int store_load(void *data, OSSL_CALLBACK *object, void *object_arg,
                      OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    struct store *s = data;
    BIO *bio = access(s->path, R_OK) == 0 ? BIO_new_file(s->path, "r") : NULL;
    struct key *key;
    OSSL_PARAM params[4];
    int type = OSSL_OBJECT_PKEY, ok;

    s->done = 1;
    if (bio == NULL)
        return 1; /* there is no such object */
    if (!enter(s->token) || !login(s, ask, ask_arg)) {
        BIO_free(bio);
        return 0;
    }
    key = key_new(s->token);
    key->real = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, s->token->library, NULL);
    BIO_free(bio);
    if (key->real == NULL) {
        key_free(key);
        return 0;
    }
    params[0] = OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE,
                                                 EVP_PKEY_is_a(key->real, "RSA") ? "RSA" : "EC", 0);
    params[2] = OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &key, sizeof(key));
    params[3] = OSSL_PARAM_construct_end();
    ok = object(params, object_arg);
    key_free(key);
    return ok;
}

static int store_eof(void *data)
{
    return ((struct store *) data)->done;
}

static int store_close(void *data)
{
    free(data);
    return 1;
}

static const OSSL_DISPATCH store[] = {
    F(OSSL_FUNC_STORE_OPEN, store_open),
    F(OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, store_settable),
    F(OSSL_FUNC_STORE_SET_CTX_PARAMS, store_set),
    F(OSSL_FUNC_STORE_LOAD, store_load),
    F(OSSL_FUNC_STORE_EOF, store_eof),
    F(OSSL_FUNC_STORE_CLOSE, store_close),
    F_END,
};

/* The provider ------------------------------------------------------------------------------- */

#define PROPERTIES "provider=token"

static const OSSL_ALGORITHM *query(void *context UNUSED, int operation, int *no_cache)
{
    static const OSSL_ALGORITHM keys[] = { { "RSA:rsaEncryption", PROPERTIES, rsa_key, NULL },
                                           { "EC:id-ecPublicKey", PROPERTIES, ec_key, NULL },
                                           { NULL, NULL, NULL, NULL } };
    static const OSSL_ALGORITHM signatures[] = { { "RSA:rsaEncryption", PROPERTIES, signature,
                                                   NULL },
                                                 { "ECDSA", PROPERTIES, signature, NULL },
                                                 { NULL, NULL, NULL, NULL } };
    static const OSSL_ALGORITHM ciphers[] = { { "RSA:rsaEncryption", PROPERTIES, cipher, NULL },
                                              { NULL, NULL, NULL, NULL } };
    static const OSSL_ALGORITHM stores[] = { { "pkcs11", PROPERTIES, store, NULL },
                                             { NULL, NULL, NULL, NULL } };

    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT: return keys;
    case OSSL_OP_SIGNATURE: return signatures;
    case OSSL_OP_ASYM_CIPHER: return ciphers;
    case OSSL_OP_STORE: return stores;
    default: return NULL;
    }
}

static void teardown(void *context)
{
    struct token *t = context;

    OSSL_LIB_CTX_free(t->library);
    free(t);
}

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                       const OSSL_DISPATCH **out, void **context);

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                       const OSSL_DISPATCH **out, void **context)
{
    static const OSSL_DISPATCH functions[] = {
        F(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
        F(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
        F_END,
    };
    struct token *t = calloc(1, sizeof(*t));
    OSSL_FUNC_core_get_params_fn *get_params = NULL;
    OSSL_PARAM params[3];

    if (t == NULL)
        return 0;
    for (; in->function_id != 0; in++) {
        switch (in->function_id) {
        case OSSL_FUNC_CORE_GET_PARAMS: get_params = OSSL_FUNC_core_get_params(in); break;
        case OSSL_FUNC_CORE_NEW_ERROR: t->new_error = OSSL_FUNC_core_new_error(in); break;
        case OSSL_FUNC_CORE_VSET_ERROR: t->vset_error = OSSL_FUNC_core_vset_error(in); break;
        default: break;
        }
    }
    t->handle = handle;
    t->library = OSSL_LIB_CTX_new();
    params[0] = OSSL_PARAM_construct_utf8_ptr("folder", (char **) &t->folder, 0);
    params[1] = OSSL_PARAM_construct_utf8_ptr("pin", (char **) &t->pin, 0);
    params[2] = OSSL_PARAM_construct_end();
    if (t->library == NULL || get_params == NULL || !get_params(handle, params) ||
        t->folder == NULL || t->pin == NULL) {
        teardown(t);
        return 0;
    }
    *out = functions;
    *context = t;
    return 1;
}
