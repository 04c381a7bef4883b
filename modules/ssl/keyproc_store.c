/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keys that the key process has. Most are read when it begins. Where ssl_certificate_load says so only the file's bytes are taken then,
 * and parsed by the first request that needs the key. Where ssl_certificate_watch does, a key may come later, in the place of another one,
 * which is kept until no handshake can need it any more: a key has generations.
 *
 * One thread for each worker takes keys from here, and one changes them. A key that goes is wiped when nobody is in the midst of using it.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "modules/ssl/keyproc.h"

#define LATE_MAX (1024 * 1024)
#define OFFER_MAX (64 * 1024)

/* A key, in one generation. */
struct held {
    struct keyproc_secret secret;
    struct held *next; /* an older one */
    uint32_t generation;
    unsigned users;
    bool gone; /* out of the list: the last user frees it */
    uint64_t ends_ms;
};

enum { READY, RAW, PARSING };

/* By the key's number. */
struct place {
    struct held *newest;
    uint32_t current; /* the generation that is in force; a later one is an offer */
    unsigned state;
    char *bytes; /* RAW: "data:" and the file */
    size_t len;
};

static struct {
    const struct keyproc_start *start;
    struct keyproc_key **keys;
    struct place *places;
    unsigned count, failures;
    uint64_t next_ms; /* when the next key is to go; of the one thread */
    pthread_mutex_t lock;
    pthread_cond_t parsed;
} self = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .parsed = PTHREAD_COND_INITIALIZER,
           .next_ms = UINT64_MAX };

static const struct ssl_passwords no_passwords; /* where there is no terminal to ask */

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

static void held_free(struct held *h)
{
    if (h == NULL)
        return;
    EVP_PKEY_free(h->secret.key);
    OPENSSL_cleanse(h, sizeof(*h));
    free(h);
}

static void bytes_free(char *bytes, size_t len)
{
    if (bytes != NULL)
        OPENSSL_cleanse(bytes, len);
    free(bytes);
}

/* Complaints --------------------------------------------------------------------------------- */

static void complain(const struct keyproc_key *key, const char *what, const char *why)
{
    const struct config *config = self.start->config;
    const char *errors;

    keyproc_log_begin();
    errors = ssl_errors();
    self.failures++;
    if (!self.start->first) {
        log_alert(log_main, 0,
                  "%s(\"%.*s\")%s%s, the key process goes on without this key in %s:%u", what,
                  STR_ARG(ssl_shown(key->path)), why, errors, key->pos.file, key->pos.line);
    } else {
        log_emerg(log_main, 0, "%s(\"%.*s\")%s%s in %s:%u", what, STR_ARG(ssl_shown(key->path)), why, errors,
                  key->pos.file, key->pos.line);
        if (config->details != NULL)
            conf_show_source(config, config->details, key->pos, NULL);
    }
    keyproc_log_end();
}

static void complain_load(const struct keyproc_key *key, const char *error)
{
    const struct config *config = self.start->config;
    const char *errors;

    keyproc_log_begin();
    errors = ssl_errors();
    self.failures++;
    LOG(log_main, self.start->first ? LOG_EMERG_LEVEL : LOG_ALERT_LEVEL, 0,
        "cannot load certificate key \"%.*s\": %s%s%s in %s:%u", STR_ARG(ssl_shown(key->path)), error, errors,
        self.start->first ? "" : ", the key process goes on without it", key->pos.file,
        key->pos.line);
    if (self.start->first && config->details != NULL)
        conf_show_source(config, config->details, key->pos, NULL);
    keyproc_log_end();
}

/* Of a key that is parsed late: a worker's handshake fails for it. */
static void complain_late(const struct keyproc_key *key, const char *what, const char *why)
{
    keyproc_log_begin();
    log_error(log_main, 0,
              "cannot load %s \"%.*s\": %s%s in %s:%u (by \"ssl_certificate_load lazy\"; \"proxyd "
              "-t\" checks all certificates)",
              what, STR_ARG(ssl_shown(key->path)), why, ssl_errors(), key->pos.file, key->pos.line);
    keyproc_log_end();
}

/* Reading ------------------------------------------------------------------------------------ */

/* "data:" and what a regular file holds, less than max bytes, which the caller wipes. NULL: *why says why not, or errno where that is NULL. */
static char *read_all(int fd, size_t max, size_t *len, const char **why)
{
    struct stat st;
    size_t n = 5;
    ssize_t got;
    char *bytes;

    *why = NULL;
    if (fstat(fd, &st) != 0)
        return NULL;
    if (!S_ISREG(st.st_mode)) {
        *why = "not a regular file";
        return NULL;
    }
    bytes = mem_alloc(max);
    memcpy(bytes, "data:", 5);
    while ((got = read(fd, bytes + n, max - n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || (n += (size_t) got) == max)
            break;
    }
    *len = n;
    if (got == 0)
        return bytes;
    if (got > 0)
        *why = "too large";
    bytes_free(bytes, n);
    return NULL;
}

static struct held *held_new(EVP_PKEY *key, unsigned uses, uint32_t generation)
{
    struct held *h = mem_zalloc(sizeof(*h));

    h->secret.key = key;
    h->secret.kind = key != NULL ? keyproc_kind_of(key) : KEYPROC_KINDS;
    h->secret.uses = uses;
    h->generation = generation;
    h->ends_ms = UINT64_MAX;
    return h;
}

static bool is_fit(struct held *h)
{
    return h->secret.kind != KEYPROC_KINDS &&
           EVP_PKEY_get_size(h->secret.key) <= KEYPROC_RESULT_MAX &&
           keyproc_secret_prepare(&h->secret) == 0;
}

static void load(const struct keyproc_key *key, struct place *p)
{
    const char *error;
    struct held *h =
        held_new(ssl_load_key(key->path, key->passwords, &error), key->uses, key->generation);

    if (h->secret.key == NULL) {
        complain_load(key, error);
    } else if (X509_check_private_key(key->leaf, h->secret.key) == 1 &&
               h->secret.kind == key->kind && is_fit(h)) {
        /* (X509_check_private_key's reasons are the ones that SSL_CTX_use_PrivateKey would give.) */
        p->newest = h;
        return;
    } else {
        complain(key, "SSL_CTX_use_PrivateKey", " failed");
    }
    held_free(h);
}

/* Keys that come late ------------------------------------------------------------------------ */

static void take_bytes(const struct keyproc_key *key, struct place *p)
{
    int fd = open(key->path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *why = NULL;
    char text[200];

    if (fd >= 0)
        p->bytes = read_all(fd, LATE_MAX, &p->len, &why);
    if (p->bytes != NULL) {
        /* As much as there is, and no more. */
        char *bytes = mem_alloc(p->len);

        memcpy(bytes, p->bytes, p->len);
        bytes_free(p->bytes, p->len);
        p->bytes = bytes;
        p->state = RAW;
    } else {
        if (why == NULL) {
            snprintf(text, sizeof(text), "it cannot be read (%d: %s)", errno, strerror(errno));
            why = text;
        }
        complain_load(key, why);
    }
    if (fd >= 0)
        close(fd);
}

/* NULL: logged. */
static struct held *parse(const struct keyproc_key *key, const char *bytes, size_t len)
{
    const struct ssl_passwords *passwords = key->passwords != NULL ? key->passwords : &no_passwords;
    STACK_OF(X509) *chain = NULL;
    const char *error = NULL;
    struct held *h = NULL;
    X509 *leaf;

    ERR_clear_error();
    leaf = ssl_load_certificate(key->certificate, &chain, &error);
    if (leaf == NULL)
        return NULL; /* of which the worker complains */
    ssl_memory_wipe(true);
    h = held_new(ssl_load_key(str_from(bytes, len), passwords, &error), key->uses, 0);
    if (h->secret.key == NULL) {
        complain_late(key, "certificate key", error);
    } else if (X509_check_private_key(leaf, h->secret.key) != 1 || !is_fit(h)) {
        complain_late(key, "certificate key", "it is not the certificate's key");
        EVP_PKEY_free(h->secret.key);
        h->secret.key = NULL;
    }
    if (h->secret.key == NULL) {
        held_free(h);
        h = NULL;
    }
    ssl_memory_wipe(false);
    sk_X509_pop_free(chain, X509_free);
    X509_free(leaf);
    ERR_clear_error();
    return h;
}

/* Others that want the key wait; those that want another one do not. What has failed is not tried again: it is the same bytes. */
static void parse_late(uint32_t number, struct place *p)
{
    struct held *h;

    p->state = PARSING;
    pthread_mutex_unlock(&self.lock);
    h = parse(self.keys[number], p->bytes, p->len);
    bytes_free(p->bytes, p->len);
    pthread_mutex_lock(&self.lock);
    p->bytes = NULL;
    p->newest = h;
    p->state = READY;
    pthread_cond_broadcast(&self.parsed);
}

/* All keys ----------------------------------------------------------------------------------- */

/* Not more complaints than the master would have made. */
unsigned keyproc_store_load(const struct keyproc_start *start)
{
    const struct keyproc_keys *keys = &keyproc_conf_of(start->config)->keys;

    self.start = start;
    self.keys = keys->items;
    self.count = keys->count;
    self.places = mem_zalloc(MAX(self.count, 1u) * sizeof(*self.places));
    for (unsigned i = 0; i < self.count; i++) {
        const struct keyproc_key *key = keys->items[i];

        self.places[i].current = key->generation;
        if (key->leaf != NULL)
            load(key, &self.places[i]);
        else if (key->bounds == NULL)
            take_bytes(key, &self.places[i]);
        if (start->first && self.failures >= CONF_ERRORS_MAX)
            break;
    }
    ERR_clear_error();
    return self.failures;
}

const struct keyproc_key *keyproc_store_key(uint32_t number)
{
    return self.keys[number];
}

unsigned keyproc_store_count(void)
{
    return self.count;
}

static struct held *find(const struct place *p, uint32_t generation)
{
    struct held *h = p->newest;

    while (h != NULL && h->generation != generation)
        h = h->next;
    return h;
}

const struct keyproc_secret *keyproc_store_get(uint32_t number, uint32_t generation)
{
    struct place *p = &self.places[number];
    struct held *h;

    pthread_mutex_lock(&self.lock);
    while (p->state == PARSING)
        pthread_cond_wait(&self.parsed, &self.lock);
    if (p->state == RAW)
        parse_late(number, p);
    h = find(p, generation);
    if (h != NULL)
        h->users++;
    pthread_mutex_unlock(&self.lock);
    return h != NULL ? &h->secret : NULL;
}

void keyproc_store_put(const struct keyproc_secret *s)
{
    struct held *h = (struct held *) (uintptr_t) s; /* its first member */
    bool last;

    pthread_mutex_lock(&self.lock);
    last = --h->users == 0 && h->gone;
    pthread_mutex_unlock(&self.lock);
    if (last)
        held_free(h);
}

bool keyproc_store_lacks(uint32_t *number, struct keyproc_report *report)
{
    for (; *number < self.count; (*number)++) {
        const struct place *p = &self.places[*number];

        if (self.keys[*number]->watched == NULL || find(p, p->current) != NULL)
            continue;
        *report = (struct keyproc_report){ .number = (*number)++,
                                           .generation = p->current,
                                           .status = KEYPROC_NO_KEY };
        return true;
    }
    return false;
}

/* Generations -------------------------------------------------------------------------------- */

/* Out of the list: to be freed by us, or, NULL, by who uses it. */
static struct held *take_out(struct held **at)
{
    struct held *h = *at;

    *at = h->next;
    h->gone = true;
    return h->users == 0 ? h : NULL;
}

/* The key that the bytes hold. NULL: why says why not. */
static struct held *judge(const struct keyproc_key *key, const struct keyproc_order *order,
                          EVP_PKEY *public_half, struct str bytes, char *why, size_t size)
{
    const struct ssl_passwords *passwords = key->passwords != NULL ? key->passwords : &no_passwords;
    const char *error = NULL;
    struct held *h;

    ERR_clear_error();
    h = held_new(ssl_load_key(bytes, passwords, &error), key->uses, order->generation);
    if (h->secret.key != NULL && EVP_PKEY_eq(public_half, h->secret.key) != 1)
        error = "it is not the certificate's key";
    else if (h->secret.key != NULL && !is_fit(h))
        error = "only RSA, ECDSA, Ed25519 and Ed448 keys can be kept by \"ssl_key_process\"";
    else if (h->secret.key != NULL)
        return h;
    keyproc_log_begin();
    snprintf(why, size, "%s%s", error, ssl_errors());
    keyproc_log_end();
    held_free(h);
    return NULL;
}

/* In the place of what was offered before, if that has not come into force; where the generation is there it remains. */
static void add(struct place *p, struct held *h)
{
    struct held *unused = NULL, *offered = NULL;

    pthread_mutex_lock(&self.lock);
    if (p->newest != NULL && p->newest->generation > p->current)
        offered = take_out(&p->newest);
    if (find(p, h->generation) != NULL) {
        unused = h;
    } else {
        h->next = p->newest;
        p->newest = h;
    }
    pthread_mutex_unlock(&self.lock);
    held_free(unused);
    held_free(offered);
}

void keyproc_store_offer(const struct keyproc_order *order, const unsigned char *public_half,
                         int fd, struct keyproc_report *report)
{
    const char *why = NULL;
    EVP_PKEY *wanted = d2i_PUBKEY(NULL, &public_half, (long) order->len);
    struct held *h = NULL;
    size_t len = 0;
    char *bytes;

    *report = (struct keyproc_report){ .number = order->number,
                                       .generation = order->generation,
                                       .status = KEYPROC_FAILED };
    ssl_memory_wipe(true);
    bytes = read_all(fd, OFFER_MAX, &len, &why);
    if (bytes == NULL)
        snprintf(report->why, sizeof(report->why), "%s", why != NULL ? why : strerror(errno));
    else
        h = judge(self.keys[order->number], order, wanted, str_from(bytes, len), report->why,
                  sizeof(report->why));
    bytes_free(bytes, len);
    if (h != NULL) {
        add(&self.places[order->number], h);
        report->status = KEYPROC_OK;
    }
    ERR_clear_error();
    ssl_memory_wipe(false);
    EVP_PKEY_free(wanted);
}

void keyproc_store_commit(const struct keyproc_order *order)
{
    struct place *p = &self.places[order->number];
    uint64_t ends_ms = now_ms() + order->ms;

    self.next_ms = MIN(self.next_ms, ends_ms);
    pthread_mutex_lock(&self.lock);
    p->current = order->generation;
    for (struct held *h = p->newest; h != NULL; h = h->next) {
        if (h->generation < p->current)
            h->ends_ms = MIN(h->ends_ms, ends_ms);
    }
    pthread_mutex_unlock(&self.lock);
}

/* Those of one key whose time is over, in a list of their own. When the next one's is. */
static uint64_t retire(struct place *p, uint64_t now, struct held **gone)
{
    uint64_t next = UINT64_MAX;

    for (struct held **at = &p->newest; *at != NULL;) {
        struct held *h = *at;

        if (h->ends_ms > now) {
            next = MIN(next, h->ends_ms);
            at = &h->next;
            continue;
        }
        h = take_out(at);
        if (h == NULL)
            continue;
        h->next = *gone;
        *gone = h;
    }
    return next;
}

int keyproc_store_retire(void)
{
    uint64_t now = now_ms(), next = UINT64_MAX;
    struct held *gone = NULL;

    if (self.next_ms > now)
        return self.next_ms == UINT64_MAX ? -1 : (int) MIN(self.next_ms - now, 60000ul);
    pthread_mutex_lock(&self.lock);
    for (unsigned i = 0; i < self.count; i++)
        next = MIN(next, retire(&self.places[i], now, &gone));
    pthread_mutex_unlock(&self.lock);
    while (gone != NULL) {
        struct held *h = gone;

        gone = h->next;
        held_free(h);
    }
    self.next_ms = next;
    return next == UINT64_MAX ? -1 : (int) MIN(next - now, 60000ul);
}
