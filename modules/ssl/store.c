/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Private keys by the library's stores: "store:" with a URI whose scheme some provider knows ("pkcs11:", "handle:"), and PEM files that hold a
 * reference to a key in the place of one. Whoever reads them gets a sentence that says what to do: which provider is not
 * there, and that a PIN is asked for. The process that reads the configuration must not open a token of which forks of it will
 * use keys: it has a fork that ends at once look for the key, and gets the public half.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/conf.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/store.h>
#include <openssl/ui.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modules/ssl/provided.h"

#define LABEL_LINE 128
#define SCHEME_MAX 32
#define ANSWER_MAX 4096
#define CONFIGURE (CONF_MFLAGS_DEFAULT_SECTION | CONF_MFLAGS_IGNORE_MISSING_FILE)

static struct {
    bool here;
    char *configuration;   /* of the library, while the environment still names it */
    OSSL_LIB_CTX *library; /* made when it is needed first */
    pthread_mutex_t lock;
} self = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The process --------------------------------------------------------------------------------- */

void ssl_store_use_here(void)
{
    self.here = true;
    if (self.configuration == NULL)
        self.configuration = CONF_get1_default_config_file();
}

OSSL_LIB_CTX *ssl_store_library(void)
{
    OSSL_LIB_CTX *library;

    if (!self.here)
        return NULL;
    pthread_mutex_lock(&self.lock);
    if (self.library == NULL) {
        self.library = OSSL_LIB_CTX_new();
        if (self.library != NULL)
            CONF_modules_load_file_ex(self.library, self.configuration, NULL,
                                      CONFIGURE | CONF_MFLAGS_IGNORE_ERRORS | CONF_MFLAGS_SILENT);
    }
    library = self.library;
    pthread_mutex_unlock(&self.lock);
    return library;
}

/* Marks public halves that stand for a key which another process has seen. */
static int mark(void)
{
    static int index = -1;

    if (index < 0)
        index = EVP_PKEY_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    return index;
}

bool ssl_store_is_elsewhere(const EVP_PKEY *key)
{
    return EVP_PKEY_get_ex_data(key, mark()) != NULL;
}

bool ssl_store_is_foreign(const EVP_PKEY *key)
{
    static const char *const own[] = { "default", "base", "fips", "legacy" };
    const OSSL_PROVIDER *provider = EVP_PKEY_get0_provider(key);

    for (unsigned i = 0; provider != NULL && i < ARRAY_LEN(own); i++) {
        if (strcmp(OSSL_PROVIDER_get0_name(provider), own[i]) == 0)
            return ssl_store_is_elsewhere(key);
    }
    return provider != NULL || ssl_store_is_elsewhere(key);
}

/* References in files ------------------------------------------------------------------------- */

static bool can_rewind(BIO *bio)
{
    struct stat st;
    FILE *file;

    if (BIO_method_type(bio) == BIO_TYPE_MEM)
        return true;
    return BIO_get_fp(bio, &file) > 0 && fstat(fileno(file), &st) == 0 && S_ISREG(st.st_mode);
}

/* "-----BEGIN LABEL-----": the label, or nothing. */
static struct str label_of(const char *line)
{
    static const struct str begin = STR_INIT("-----BEGIN ");
    struct str s = str_cstr(line);
    const char *end;

    if (!str_starts(s, begin))
        return STR_NULL;
    s = str_skip(s, begin.len);
    end = memmem(s.ptr, s.len, "-----", 5);
    return end != NULL ? str_from(s.ptr, (size_t) (end - s.ptr)) : STR_NULL;
}

static bool ends(struct str s, struct str tail)
{
    return s.len >= tail.len && str_eq(str_skip(s, s.len - tail.len), tail);
}

/* Of the library itself. */
static bool is_usual(struct str label)
{
    static const struct str usual[] = {
        STR_INIT("PRIVATE KEY"),     STR_INIT("ENCRYPTED PRIVATE KEY"), STR_INIT("RSA PRIVATE KEY"),
        STR_INIT("EC PRIVATE KEY"),  STR_INIT("DSA PRIVATE KEY"),       STR_INIT("ANY PRIVATE KEY"),
        STR_INIT("SM2 PRIVATE KEY"),
    };

    for (unsigned i = 0; i < ARRAY_LEN(usual); i++) {
        if (str_eq(label, usual[i]))
            return true;
    }
    return false;
}

/* "TSS2 PRIVATE KEY" (tpm2), "PKCS#11 PROVIDER URI" (pkcs11): the first label that is a key's decides. */
bool ssl_store_bio_is_reference(BIO *bio)
{
    char line[LABEL_LINE];
    bool found = false, reference = false;

    if (!can_rewind(bio))
        return false;
    while (!found && BIO_gets(bio, line, sizeof(line)) > 0) {
        struct str label = label_of(line);

        reference = label.len > 0 && (ends(label, STR(" PROVIDER URI")) ||
                                      (ends(label, STR(" PRIVATE KEY")) && !is_usual(label)));
        found = reference || (label.len > 0 && is_usual(label));
    }
    ERR_clear_error();
    return BIO_reset(bio) >= 0 && reference;
}

bool ssl_store_is_reference(struct str path)
{
    struct stat st;
    bool reference;
    BIO *bio;

    if (str_starts(path, STR("data:")))
        bio = BIO_new_mem_buf(path.ptr + 5, (int) path.len - 5);
    else if (ssl_is_file(path) && stat(path.ptr, &st) == 0 && S_ISREG(st.st_mode))
        bio = BIO_new_file(path.ptr, "r");
    else
        return false;
    reference = bio != NULL && ssl_store_bio_is_reference(bio);
    BIO_free(bio);
    ERR_clear_error();
    return reference;
}

/* Loading ------------------------------------------------------------------------------------- */

struct attempt {
    struct str pin;
    bool any, asked;
};

static int give_pin(char *buf, int size, int rwflag, void *data)
{
    struct attempt *attempt = data;

    if (rwflag)
        return -1;
    attempt->asked = true;
    if (!attempt->any || attempt->pin.len > (size_t) size)
        return -1; /* nobody is asked on a terminal: workers and the key process have none */
    memcpy(buf, attempt->pin.ptr, attempt->pin.len);
    return (int) attempt->pin.len;
}

static EVP_PKEY *take_key(OSSL_STORE_CTX *store, const char **error)
{
    EVP_PKEY *key = NULL;

    *error = "no private key is found there";
    OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY);
    while (key == NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);

        if (info == NULL) {
            if (OSSL_STORE_error(store) || ERR_peek_error() != 0) {
                *error = "OSSL_STORE_load() failed";
                break;
            }
            continue;
        }
        if (OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    return key;
}

static EVP_PKEY *try(const char *uri, BIO *bio, struct attempt *attempt, const char **error)
{
    UI_METHOD *ui = UI_UTIL_wrap_read_pem_callback(give_pin, 0);
    OSSL_LIB_CTX *library = ssl_store_library();
    OSSL_STORE_CTX *store = NULL;
    EVP_PKEY *key = NULL;

    *error = "OSSL_STORE_open() failed";
    if (ui != NULL)
        store = bio != NULL
                    ? OSSL_STORE_attach(bio, "file", library, NULL, ui, attempt, NULL, NULL, NULL)
                    : OSSL_STORE_open_ex(uri, library, NULL, ui, attempt, NULL, NULL, NULL);
    if (store != NULL)
        key = take_key(store, error);
    UI_destroy_method(ui);
    return key;
}

/* Into the queue: why the providers of a configuration could not be loaded, of which the library has said nothing. */
static void try_providers(const CONF *conf)
{
    OSSL_LIB_CTX *trial = OSSL_LIB_CTX_new();
    const char *start = NCONF_get_string(conf, NULL, "openssl_conf");
    const char *list = start != NULL ? NCONF_get_string(conf, start, "providers") : NULL;
    STACK_OF(CONF_VALUE) *providers = list != NULL ? NCONF_get_section(conf, list) : NULL;

    ERR_clear_error();
    for (int i = 0; trial != NULL && providers != NULL && i < sk_CONF_VALUE_num(providers); i++) {
        const CONF_VALUE *p = sk_CONF_VALUE_value(providers, i);
        const char *module;
        OSSL_PROVIDER *loaded;

        ERR_set_mark();
        module = NCONF_get_string(conf, p->value, "module");
        ERR_pop_to_mark();
        loaded = OSSL_PROVIDER_try_load(trial, module != NULL ? module : p->name, 1);
        if (loaded != NULL)
            OSSL_PROVIDER_unload(loaded);
    }
    OSSL_LIB_CTX_free(trial);
}

static void recall_errors(const char *configuration)
{
    CONF *conf = NCONF_new(NULL);

    if (conf != NULL && configuration != NULL && NCONF_load(conf, configuration, NULL) > 0)
        try_providers(conf);
    NCONF_free(conf);
}

/* NULL, or a sentence: no provider knows the scheme. */
static const char *without_provider(const char *uri)
{
    static char sentence[512];
    const char *colon = strchr(uri, ':');
    char scheme[SCHEME_MAX];
    OSSL_STORE_LOADER *loader;
    char *configuration;

    if (colon == NULL || colon - uri >= SCHEME_MAX || memchr(uri, '/', (size_t) (colon - uri)))
        return NULL;
    snprintf(scheme, sizeof(scheme), "%.*s", (int) (colon - uri), uri);
    loader = OSSL_STORE_LOADER_fetch(ssl_store_library(), scheme, NULL);
    OSSL_STORE_LOADER_free(loader);
    if (loader != NULL)
        return NULL;
    ERR_clear_error();
    configuration = CONF_get1_default_config_file();
    recall_errors(configuration);
    snprintf(
        sentence, sizeof(sentence),
        "no provider for \"%s:\" is loaded, activate one in \"%.200s\" (or name another file by "
        "the environment's OPENSSL_CONF)",
        scheme, configuration != NULL ? configuration : "openssl.cnf");
    OPENSSL_free(configuration);
    return sentence;
}

static const char *explain(const char *uri, const struct attempt *attempt, const char *error)
{
    const char *why = uri != NULL ? without_provider(uri) : NULL;

    if (why != NULL)
        return why;
    if (attempt->asked && !attempt->any)
        return "it asks for a PIN, name a file that holds it by \"ssl_password_file\" or in the URI "
               "by \"pin-source\"";
    if (uri == NULL && ERR_peek_error() == 0)
        return "it refers to a key in a token, and no provider that finds it is loaded, activate one "
               "in the library's configuration (OPENSSL_CONF)";
    return error;
}

static EVP_PKEY *load_here(const char *uri, BIO *bio, const struct ssl_passwords *passwords,
                           const char **error)
{
    struct attempt attempt = { .pin = STR_NULL };
    unsigned count = passwords != NULL ? passwords->list.count : 0, i = 0;
    EVP_PKEY *key;

    ERR_clear_error();
    do {
        if (i > 0) {
            ERR_clear_error();
            if (bio != NULL && BIO_reset(bio) < 0)
                break;
        }
        attempt.any = i < count;
        attempt.asked = false;
        if (attempt.any)
            attempt.pin = passwords->list.items[i];
        key = try(uri, bio, &attempt, error);
        /* A token counts wrong PINs, and locks itself: what has nothing to do with the PIN is not tried again. */
    } while (key == NULL && attempt.asked && ++i < count);
    if (key == NULL)
        *error = explain(uri, &attempt, *error);
    else
        ERR_clear_error();
    return key;
}

/* In another process --------------------------------------------------------------------------- */

enum { FOUND = 'k', OWN = 'o', NOT_FOUND = 'n' };

/* In the fork: FOUND and the public half, OWN, or NOT_FOUND and why. */
static void tell(int fd, const char *uri, BIO *bio, const struct ssl_passwords *passwords)
{
    unsigned char *bytes = NULL;
    const char *error = "its provider does not tell the public half";
    char text[ANSWER_MAX];
    EVP_PKEY *key;
    int n = 0;

    ssl_store_use_here();
    key = load_here(uri, bio, passwords, &error);
    text[0] = NOT_FOUND;
    if (key != NULL && !ssl_store_is_foreign(key)) {
        text[0] = OWN;
        n = 1;
    } else if (key != NULL && (n = i2d_PUBKEY(key, &bytes)) > 0 && n < ANSWER_MAX) {
        text[0] = FOUND;
        memcpy(text + 1, bytes, (size_t) n++);
    } else {
        n = 1 + snprintf(text + 1, sizeof(text) - 1, "%s%s", error, ssl_errors());
        n = MIN(n, ANSWER_MAX);
    }
    if (write(fd, text, (size_t) n) != n)
        _exit(1);
}

/* How many bytes it has said. */
static size_t listen_to(int fd, pid_t pid, char *buf, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, buf + len, size - len)) > 0 || (n < 0 && errno == EINTR))
        len += (size_t) MAX(n, 0);
    close(fd);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return len;
}

/* -1: no process, errno says why. Else the descriptor that it writes to. */
static int ask(const char *uri, BIO *bio, const struct ssl_passwords *passwords, pid_t *pid)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    fflush(NULL);
    *pid = fork();
    if (*pid == 0) {
        close(ends[0]);
        tell(ends[1], uri, bio, passwords);
        _exit(0);
    }
    close(ends[1]);
    if (*pid > 0)
        return ends[0];
    close(ends[0]);
    return -1;
}

static EVP_PKEY *look_for(const char *uri, BIO *bio, const struct ssl_passwords *passwords,
                          const char **error)
{
    static char text[ANSWER_MAX];
    const unsigned char *bytes = (const unsigned char *) text + 1;
    pid_t pid;
    int fd = ask(uri, bio, passwords, &pid);
    size_t n = fd >= 0 ? listen_to(fd, pid, text, sizeof(text) - 1) : 0;
    EVP_PKEY *key;

    *error = "the process that was to look for it has failed";
    text[n] = '\0';
    if (n == 0)
        return NULL;
    if (text[0] == OWN) /* in a file, or the like */
        return bio == NULL || BIO_reset(bio) >= 0 ? load_here(uri, bio, passwords, error) : NULL;
    if (text[0] != FOUND) {
        *error = text + 1;
        return NULL;
    }
    key = d2i_PUBKEY(NULL, &bytes, (long) n - 1);
    if (key != NULL && EVP_PKEY_set_ex_data(key, mark(), &self) == 1)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

EVP_PKEY *ssl_store_load(const char *uri, BIO *bio, const struct ssl_passwords *passwords,
                         const char **error)
{
    return self.here ? load_here(uri, bio, passwords, error) : look_for(uri, bio, passwords, error);
}
