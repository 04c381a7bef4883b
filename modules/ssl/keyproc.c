/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_key_process: which private keys a configuration has. While the file is read nothing is opened: a context gets the public half of
 * its certificate and a number. That the files hold the keys that belong to these is found out by the key process, before the
 * configuration is put into force.
 */
#include "modules/ssl/keyproc.h"
#include "modules/ssl/pairs.h"

#include <grp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pwd.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/module.h"

#define DEFAULT_USER "nobody"
/* Keys that variables name, for each worker, also where no cache is asked for: a handshake needs its key more than once. */
#define NAMED_MIN 64u

static unsigned keyproc_slot;

static struct keyproc_conf *conf_of(const struct config *config)
{
    return level_conf(config->main, STORE_MAIN, keyproc_slot);
}

const struct keyproc_conf *keyproc_conf_of(const struct config *config)
{
    return conf_of(config);
}

bool keyproc_is_on(const struct conf *cf)
{
    const struct config *config = cf->config;
    const struct keyproc_conf *c = config->main != NULL ? conf_of(config) : NULL;

    return c != NULL && c->on && !config->testing && !config->explaining && !config->offline;
}

/* Keys --------------------------------------------------------------------------------------- */

static void key_free(void *data)
{
    struct keyproc_key *key = data;

    X509_free(key->leaf);
    EVP_PKEY_free(key->handle);
}

static struct keyproc_key *key_new(struct conf *cf, struct keyproc_conf *c,
                                   const struct ssl_file *file,
                                   const struct ssl_passwords *passwords)
{
    struct keyproc_key *key = ARENA_NEW(cf->arena, struct keyproc_key);

    key->path = file->path;
    key->passwords = passwords;
    key->pos = file->pos;
    key->number = c->keys.count;
    c->keys.items = arena_grow(cf->arena, c->keys.items, c->keys.count, &c->keys.capacity,
                               sizeof(*c->keys.items));
    c->keys.items[c->keys.count++] = key;
    return key;
}

static struct keyproc_key *key_add(struct conf *cf, struct keyproc_conf *c,
                                   const struct ssl_file *file,
                                   const struct ssl_passwords *passwords, X509 *leaf)
{
    EVP_PKEY *public_half = X509_get0_pubkey(leaf);
    enum keyproc_kind kind = public_half != NULL ? keyproc_kind_of(public_half) : KEYPROC_KINDS;
    struct keyproc_key *key;

    if (kind == KEYPROC_KINDS) {
        conf_error_at(cf, file->pos,
                      "\"ssl_key_process\" cannot keep certificate key \"%.*s\": only RSA, ECDSA, "
                      "Ed25519 and Ed448 keys",
                      STR_ARG(ssl_shown(file->path)));
        return NULL;
    }
    key = key_new(cf, c, file, passwords);
    key->kind = kind;
    key->handle = keyproc_handle(public_half, kind, key->number, 0);
    if (key->handle == NULL) {
        ssl_conf_error(cf, file->pos, "cannot use certificate key \"%.*s\" of the key process",
                       STR_ARG(ssl_shown(file->path)));
        return NULL;
    }
    X509_up_ref(leaf);
    key->leaf = leaf;
    arena_defer(cf->arena, key_free, key);
    return key;
}

static EVP_PKEY *use(struct keyproc_key *key, unsigned uses)
{
    key->uses |= uses;
    EVP_PKEY_up_ref(key->handle);
    return key->handle;
}

EVP_PKEY *keyproc_key(struct conf *cf, const struct ssl_file *file,
                      const struct ssl_passwords *passwords, X509 *leaf, unsigned uses)
{
    struct keyproc_conf *c = conf_of(cf->config);
    struct keyproc_key *key;

    if (c->by_path == NULL) {
        c->by_path = ARENA_NEW(cf->arena, struct table);
        table_init(c->by_path, cf->arena);
    }
    key = table_get(c->by_path, file->path);
    /* A file that stands for two keys, or is opened by two lists of passwords, is two keys; one of them may be wrong. */
    if (key == NULL || key->passwords != passwords ||
        EVP_PKEY_eq(X509_get0_pubkey(leaf), X509_get0_pubkey(key->leaf)) != 1) {
        key = key_add(cf, c, file, passwords, leaf);
        if (key == NULL)
            return NULL;
        table_put(c->by_path, file->path, key);
    }
    return use(key, uses);
}

/* What opens its key is needed as long as there is a process. */
static void keep_passwords(const struct ssl_passwords *passwords)
{
    if (passwords != NULL)
        ((struct ssl_passwords *) (uintptr_t) passwords)->later = true;
}

EVP_PKEY *keyproc_key_watched(struct conf *cf, const struct ssl_file *file,
                              const struct ssl_passwords *passwords, X509 *leaf, unsigned uses,
                              struct watched *watched, struct keyproc_key **key)
{
    if (*key == NULL)
        *key = key_add(cf, conf_of(cf->config), file, passwords, leaf);
    if (*key == NULL)
        return NULL;
    (*key)->watched = watched;
    keep_passwords(passwords);
    return use(*key, uses);
}

struct keyproc_key *keyproc_key_late(struct conf *cf, const struct ssl_file *file,
                                     const struct ssl_passwords *passwords, struct str certificate)
{
    struct keyproc_key *key = key_new(cf, conf_of(cf->config), file, passwords);

    key->certificate = certificate;
    keep_passwords(passwords);
    return key;
}

struct keyproc_key *keyproc_key_named(struct conf *cf, const struct ssl_file *file,
                                      const struct ssl_passwords *passwords,
                                      const struct ssl_cache *cache, unsigned uses)
{
    struct keyproc_key *key = key_new(cf, conf_of(cf->config), file, passwords);

    key->bounds = ssl_name_bounds(cf, file);
    key->cache_max = MAX(ssl_cache_max(cache), NAMED_MIN);
    key->uses = uses;
    keep_passwords(passwords);
    return key;
}

void keyproc_use_late(struct keyproc_key *key, unsigned uses)
{
    key->uses |= uses;
}

void keyproc_handshakes_last(struct conf *cf, uint64_t ms)
{
    struct keyproc_conf *c = conf_of(cf->config);

    c->handshake_ms = MAX(c->handshake_ms, ms);
}

unsigned keyproc_uses(const struct ssl_spec *spec, bool server)
{
    unsigned uses = server ? KEYPROC_SERVER : KEYPROC_CLIENT;

    if (!server)
        return uses;
    if (spec->dhparam.path.len > 0)
        uses |= KEYPROC_DHE;
    for (unsigned i = 0; i < spec->commands.count; i++) {
        if (str_caseeq(spec->commands.items[i].name, STR("DHParameters")))
            uses |= KEYPROC_DHE;
    }
    return uses;
}

static int allows_file(struct conf *cf, const struct ssl_file *file)
{
    if (!str_starts(file->path, STR("data:")))
        return 0;
    conf_error_at(cf, file->pos,
                  "\"ssl_key_process\" cannot keep a key that is written in the configuration: it "
                  "has to be in a file");
    return -1;
}

int keyproc_allows(struct conf *cf, const struct ssl_spec *spec)
{
    if (cf->config->main == NULL || !conf_of(cf->config)->on)
        return 0;
    for (unsigned i = 0; i < spec->keys.count; i++) {
        if (allows_file(cf, &spec->keys.items[i]) != 0)
            return -1;
    }
    for (unsigned i = 0; i < spec->commands.count; i++) {
        const struct ssl_command *command = &spec->commands.items[i];

        if (!str_caseeq(command->name, STR("PrivateKey")))
            continue;
        conf_error_at(
            cf, command->pos,
            "\"ssl_key_process\" cannot keep the key of \"ssl_conf_command PrivateKey\": use "
            "\"ssl_certificate_key\"");
        return -1;
    }
    return 0;
}

void keyproc_wipe(const struct config *config, bool later)
{
    const struct keyproc_conf *c = conf_of(config);

    for (unsigned i = 0; i < c->keys.count; i++) {
        const struct ssl_passwords *passwords = c->keys.items[i]->passwords;

        if (passwords == NULL || (later && passwords->later))
            continue;
        for (unsigned n = 0; n < passwords->list.count; n++)
            OPENSSL_cleanse((char *) (uintptr_t) passwords->list.items[n].ptr,
                            passwords->list.items[n].len);
    }
}

/* Directives --------------------------------------------------------------------------------- */

/* NULL, or a sentence, with the argument at fault in *arg. */
static const char *find_user(struct conf *cf, struct keyproc_conf *c, const char *user,
                             const char *group, unsigned *arg)
{
    const struct passwd *pw = getpwnam(user);
    const struct group *gr;

    *arg = 1;
    if (pw == NULL)
        return conf_error(cf, "getpwnam(\"%s\") failed", user);
    if (pw->pw_uid == 0)
        return conf_error(cf, "the key process cannot be the super-user's");
    c->uid = pw->pw_uid;
    c->gid = pw->pw_gid;
    c->user = str_z(cf->arena, str_cstr(user));
    if (group == NULL)
        return NULL;
    *arg = 2;
    gr = getgrnam(group);
    if (gr == NULL)
        return conf_error(cf, "getgrnam(\"%s\") failed", group);
    c->gid = gr->gr_gid;
    return NULL;
}

static const char *set_on(struct conf *cf, void *field)
{
    container_of(field, struct keyproc_conf, on)->pos = cf->pos;
    return conf_set_flag(cf, field);
}

static const char *set_user(struct conf *cf, void *field)
{
    struct keyproc_conf *c = field;
    const char *error;
    unsigned arg;

    if (cf->config->explaining)
        return NULL;
    if (geteuid() != 0 && !cf->config->offline) {
        conf_warn_at(cf, cf->pos,
                     "the \"ssl_key_process_user\" directive makes sense only if the "
                     "master process runs with super-user privileges, ignored");
        return NULL;
    }
    error = find_user(cf, c, cf->args[1].ptr, cf->nargs > 2 ? cf->args[2].ptr : NULL, &arg);
    if (error == NULL || !cf->config->offline)
        return error != NULL ? conf_error_arg(cf, arg, "%s", error) : NULL;
    conf_warn_at(cf, cf->pos, "%s", error);
    return NULL;
}

static int keyproc_finish(struct conf *cf, struct level *level, struct level *parent UNUSED)
{
    struct keyproc_conf *c;
    const char *error;
    unsigned arg;

    if (level->context != CTX_MAIN)
        return 0;
    c = level_conf(level, STORE_MAIN, keyproc_slot);
    if (!c->on || c->user != NULL || geteuid() != 0 || cf->config->offline ||
        cf->config->explaining)
        return 0;
    error = find_user(cf, c, DEFAULT_USER, NULL, &arg);
    if (error == NULL)
        return 0;
    conf_error_at(cf, level->pos, "%s, name another user by \"ssl_key_process_user\"", error);
    return -1;
}

static const struct directive directives[] = {
    ROW("ssl_key_process", CTX_MAIN, ARG_FLAG, set_on, STORE_MAIN, struct keyproc_conf, on,
        INHERIT_SCALAR, "off", "on | off",
        "Keeps private keys in a process of its own: workers have them sign and decrypt there.", ),
    ROW_CALL("ssl_key_process_user", CTX_MAIN, ARGS12, set_user, STORE_MAIN, "user [group]",
             "The user of that process, other than the workers'; \"nobody\" if none is named."),
    ROW_END,
};

/* A worker's life ------------------------------------------------------------------------------- */

static int keyproc_worker_start(const struct config *config UNUSED)
{
    return keyproc_client_start();
}

static void keyproc_worker_stop(const struct config *config UNUSED)
{
    keyproc_client_stop();
}

const struct module module_ssl_key_process = {
    .name = "ssl_key_process",
    .slot = &keyproc_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct keyproc_conf) },
    .directives = directives,
    .finish = keyproc_finish,
    .worker_start = keyproc_worker_start,
    .worker_stop = keyproc_worker_stop,
    .processes = &keyproc_processes,
};
