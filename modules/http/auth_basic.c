/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * auth_basic: user names and passwords of the Basic scheme (RFC 7617) against a file. A hash that
 * takes long on purpose is computed in a thread, so that other connections go on meanwhile; what
 * waits there for a client that has gone is skipped, and what fitted a moment ago is not computed
 * again.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/event/threads.h"
#include "core/http/req.h"
#include "modules/http/auth_cache.h"
#include "modules/http/htpasswd.h"

/* configure: switch=http_auth_basic_module default=on libs=libcrypt,openssl */

#define THREADS_MAX 4
#define QUEUE_MAX 1024   /* passwords that wait to be checked; then 503 */
#define USER_SHOWN 256   /* bytes of a user's name in the log */

static unsigned auth_slot;
static struct thread_pool *pool; /* of this worker, made at first use */
static unsigned under_way;       /* checks that the pool has */
static bool stopping;            /* shared with the threads, atomic */

struct auth_conf {
    struct expr *realm;
    struct conf_pos realm_pos;
    struct expr *file;
    uint64_t cache_ms;
};

struct credentials {
    struct str user, password;
};

/* A password that is being checked in a thread. Outlives the request if it must. */
struct check {
    struct thread_task task;
    struct wait wait;
    struct req *r;       /* NULL: gone */
    struct str user;     /* in the request's arena */
    struct auth_mac mac; /* to be remembered if the password fits, unless cache_ms is 0 */
    uint64_t cache_ms;
    bool abandoned;      /* shared with the thread, atomic */
    bool fits;
    struct str password, hash;
    size_t size;         /* of text */
    char text[];
};

/* Answers ------------------------------------------------------------------------------------- */

static enum verdict challenge(struct req *r)
{
    const struct auth_conf *conf = req_loc_conf(r, auth_slot);
    struct str realm = expr_eval(&r->eval, conf->realm);

    fields_add_token(&r->out, &r->out.fields, T_WWW_AUTHENTICATE,
                     str_printf(r->arena, "Basic realm=\"%.*s\"", STR_ARG(realm)));
    return req_status(r, 401);
}

/* A name from outside, as it may stand in a line of the log. */
static struct str shown(struct req *r, struct str user)
{
    size_t len = MIN(user.len, (size_t) USER_SHOWN);
    char *p = arena_bytes(r->arena, len);

    for (size_t i = 0; i < len; i++)
        p[i] = (unsigned char) user.ptr[i] < ' ' || user.ptr[i] == 127 ? '?' : user.ptr[i];
    return str_from(p, len);
}

static enum verdict judge(struct req *r, struct str user, bool fits)
{
    const struct auth_conf *conf = req_loc_conf(r, auth_slot);
    struct str name = shown(r, user);

    if (fits) {
        req_trace(r, conf->realm_pos, "access granted to user \"%.*s\"", STR_ARG(name));
        return V_ALLOW;
    }
    log_error(&r->log, 0, "user \"%.*s\": password mismatch", STR_ARG(name));
    req_refused(r, conf->realm_pos, "user \"%.*s\" refused by \"auth_basic\"", STR_ARG(name));
    return challenge(r);
}

/* The thread ---------------------------------------------------------------------------------- */

static void check_work(struct thread_task *task)
{
    struct check *c = container_of(task, struct check, task);

    if (!__atomic_load_n(&c->abandoned, __ATOMIC_RELAXED)
        && !__atomic_load_n(&stopping, __ATOMIC_RELAXED))
        c->fits = password_matches(c->password, c->hash);
}

static void check_done(struct thread_task *task)
{
    struct check *c = container_of(task, struct check, task);
    struct req *r = c->r;
    struct str user = c->user;
    bool fits = c->fits;

    under_way--;
    if (fits && c->cache_ms > 0)
        auth_cache_put(&c->mac, clock_ms() + c->cache_ms);
    wait_end(&c->wait);
    OPENSSL_cleanse(c->text, c->size);
    free(c);
    if (r == NULL)
        return;
    req_watch_client(r, false);
    req_deliver(r, judge(r, user, fits));
}

static void check_cancel(struct wait *w)
{
    struct check *c = container_of(w, struct check, wait);

    c->r = NULL;
    __atomic_store_n(&c->abandoned, true, __ATOMIC_RELAXED);
}

static struct thread_pool *check_pool(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    if (pool == NULL)
        pool = thread_pool_new(STR("auth_basic"), (unsigned) MAX(1, MIN(n, THREADS_MAX)),
                               QUEUE_MAX);
    return pool;
}

static enum verdict check_in_thread(struct req *r, const struct credentials *given, struct str hash,
                                    const struct auth_mac *mac, uint64_t cache_ms)
{
    struct thread_pool *threads = check_pool();
    size_t size = given->password.len + hash.len + 2;
    struct check *c = mem_zalloc(sizeof(*c) + size);

    c->size = size;
    c->password = str_from(c->text, given->password.len);
    c->hash = str_from(c->text + given->password.len + 1, hash.len);
    memcpy(c->text, given->password.ptr, given->password.len);
    memcpy(c->text + given->password.len + 1, hash.ptr, hash.len);
    c->user = given->user;
    c->mac = *mac;
    c->cache_ms = cache_ms;
    c->r = r;
    c->task.work = check_work;
    c->task.done = check_done;
    if (threads == NULL || thread_pool_post(threads, &c->task) != 0) {
        log_error(&r->log, errno, "a password could not be handed to a thread");
        OPENSSL_cleanse(c->text, c->size);
        free(c);
        return req_status(r, 503);
    }
    under_way++;
    wait_begin(r, &c->wait, check_cancel);
    req_watch_client(r, true);
    return V_WAIT;
}

/* A slow hash: known from a moment ago, or to be computed. */
static enum verdict check_slow(struct req *r, const struct credentials *given, struct str hash)
{
    const struct auth_conf *conf = req_loc_conf(r, auth_slot);
    uint64_t cache_ms = conf->cache_ms;
    struct auth_mac mac = { { 0 } };

    if (cache_ms > 0 && auth_cache_mac(given->password, hash, &mac) != 0)
        cache_ms = 0;
    if (cache_ms > 0 && auth_cache_has(&mac, clock_ms())) {
        log_debug(&r->log, "the password fitted a moment ago");
        return judge(r, given->user, true);
    }
    return check_in_thread(r, given, hash, &mac, cache_ms);
}

/* The request --------------------------------------------------------------------------------- */

/* Authorization: Basic BASE64(user:password). False: there is nothing usable. */
static bool take_credentials(struct req *r, struct credentials *out)
{
    struct str value = fields_value(&r->in->fields, T_AUTHORIZATION), plain;
    ssize_t colon;

    if (!str_casestarts(value, STR("Basic ")))
        return false;
    value = str_trim(str_skip(value, 6));
    if (value.len == 0 || fmt_base64_decode(r->arena, value, false, &plain) != 0)
        return false;
    colon = str_chr(plain, ':');
    if (colon <= 0)
        return false;
    out->user = str_from(plain.ptr, (size_t) colon);
    out->password = str_skip(plain, (size_t) colon + 1);
    return true;
}

/* Looks the user up. V_NEXT: h tells; V_STATUS: the file cannot be had. */
static enum verdict search(struct req *r, struct str path, struct str user, struct htpasswd *h)
{
    int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err;

    if (fd < 0) {
        if (errno == ENOENT) {
            log_error(&r->log, errno, "open() \"%s\" failed", path.ptr);
            return req_status(r, 403);
        }
        log_crit(&r->log, errno, "open() \"%s\" failed", path.ptr);
        return req_status(r, 500);
    }
    htpasswd_start(h, user);
    err = htpasswd_search(h, fd) != 0 ? errno : 0;
    close(fd);
    if (err == 0)
        return V_NEXT;
    log_crit(&r->log, err, "read() \"%s\" failed", path.ptr);
    return req_status(r, 500);
}

static enum verdict auth_basic_run(struct req *r)
{
    const struct auth_conf *conf = req_loc_conf(r, auth_slot);
    struct credentials given;
    struct htpasswd h;
    struct str path, hash;
    enum verdict v;

    if (conf->realm == NULL || conf->file == NULL
        || str_eq(expr_eval(&r->eval, conf->realm), STR("off")))
        return V_NEXT;
    if (!take_credentials(r, &given)) {
        log_info(&r->log, 0, "no user/password was provided for basic authentication");
        req_trace(r, conf->realm_pos, "no user or password came for \"auth_basic\"");
        return challenge(r);
    }
    path = expr_eval(&r->eval, conf->file);
    v = search(r, path, given.user, &h);
    if (v != V_NEXT)
        return v;
    if (!h.found) {
        struct str name = shown(r, given.user);

        log_error(&r->log, 0, "user \"%.*s\" was not found in \"%s\"", STR_ARG(name), path.ptr);
        req_refused(r, conf->realm_pos, "user \"%.*s\" refused by \"auth_basic\"", STR_ARG(name));
        return challenge(r);
    }
    hash = str_from(h.hash, h.unusable ? 0 : h.len);
    if (hash.len > 0 && password_is_slow(hash))
        return check_slow(r, &given, hash);
    return judge(r, given.user, password_matches(given.password, hash));
}

/* Configuration ------------------------------------------------------------------------------- */

static const char *set_realm(struct conf *cf, void *field)
{
    struct auth_conf *conf = container_of(field, struct auth_conf, realm);
    const char *error = NULL;

    conf->realm = expr_compile(cf, cf->args[1], 0, &error);
    conf->realm_pos = cf->pos;
    return conf->realm != NULL ? NULL : conf_error_arg(cf, 1, "%s", error);
}

static const char *set_file(struct conf *cf, void *field)
{
    struct expr **file = field;
    const char *error = NULL;

    *file = expr_compile(cf, cf->args[1], EXPR_Z | EXPR_CONF_PREFIX, &error);
    return *file != NULL ? NULL : conf_error_arg(cf, 1, "%s", error);
}

static bool auth_basic_wanted(const struct level *level)
{
    const struct auth_conf *conf = level_conf(level, STORE_LOC, auth_slot);
    struct str text;

    return conf->realm != NULL && conf->file != NULL
           && !(expr_is_literal(conf->realm, &text) && str_eq(text, STR("off")));
}

/* What a worker before this one in the same process has left to its threads is theirs. */
static int auth_basic_start(const struct config *config)
{
    (void) config;
    pool = NULL;
    under_way = 0;
    stopping = false;
    return 0;
}

static void auth_basic_stop(const struct config *config)
{
    (void) config;
    __atomic_store_n(&stopping, true, __ATOMIC_RELAXED);
    /* A hash that is being computed cannot be told to end, and the process has no time to wait for it. */
    if (under_way > 0)
        return;
    if (pool != NULL)
        thread_pool_free(pool);
    pool = NULL;
    auth_cache_free();
}

enum { GROUP_REALM = 1 };

static const struct directive directives[] = {
    ROW("auth_basic", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1, set_realm, STORE_LOC, struct auth_conf,
        realm, INHERIT_SCALAR, "off", "string | off",
        "Asks for a user name and password; the string is the realm.", .group = GROUP_REALM),
    { .name = ".realm_pos", .store = STORE_LOC, .offset = offsetof(struct auth_conf, realm_pos),
      .size = sizeof(struct conf_pos), .inherit = INHERIT_SCALAR, .group = GROUP_REALM },
    ROW("auth_basic_user_file", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1, set_file, STORE_LOC,
        struct auth_conf, file, INHERIT_SCALAR, NULL, "file",
        "The file of user names and password hashes."),
    ROW("auth_basic_cache_time", CTX_HSL | CTX_LIMIT_EXCEPT, ARGS1, conf_set_ms, STORE_LOC,
        struct auth_conf, cache_ms, INHERIT_SCALAR, "60s", "time",
        "For how long a password that fitted a slow hash is not computed again; 0: not at all."),
    ROW_END,
};

static const struct hook hooks[] = {
    { PHASE_ACCESS, HOOK_AUTH_BASIC, auth_basic_run, auth_basic_wanted },
    HOOK_END,
};

static const struct http_module http_auth_basic = { .hooks = hooks };

const struct module module_http_auth_basic = {
    .name = "http_auth_basic",
    .slot = &auth_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct auth_conf) },
    .directives = directives,
    .http = &http_auth_basic,
    .worker_start = auth_basic_start,
    .worker_stop = auth_basic_stop,
};
