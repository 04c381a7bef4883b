/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master's part of ssl_certificate_watch. Once a second it asks the system about each file, by its path, so that it
 * does not matter how it was replaced: by a rename, through a link that leads elsewhere now, or written in place. Where
 * something has changed both files are read; if they are whole and fit, the bytes go into shared memory, and
 * workers take them from there. If they do not, all stays as it is: somebody may be in the midst of it, and only when it looks the
 * same a second later it is complained of, once.
 *
 * What leaves the master is in watch_publish() and nothing else: a key that workers must not see stops there.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/list.h"
#include "core/module.h"
#include "modules/ssl/provided.h"
#include "modules/ssl/watch.h"

#define LOOK_MS 1000
#define YOUNG_S 2 /* what a file system's clock may be too coarse to tell apart */
#define CHUNK 64  /* slots that are mapped together */
#define CHUNK_SIZE (CHUNK * 64 * 1024)
#define READ_MAX 32   /* pairs that are read before signals are looked at again */
#define OFFERS_MAX 32 /* with the key process: its socket has to have room for other things */
#define REPORT_MS 10  /* until its reports are looked for */

_Static_assert(CHUNK * sizeof(struct watch_slot) <= CHUNK_SIZE, "a slot is 64 KiB at most");

struct watch_chunks {
    void **items;
    unsigned count, capacity;
};

struct watch_main {
    struct list link; /* all that this process has, of whatever configuration */
    struct watched *first;
    struct table by_name;
    struct watch_chunks chunks;
    unsigned chunk_used;  /* slots of the last one */
    int fd;               /* of the chunks' memory; -1: closed */
    struct watched *rest; /* where to go on; NULL: all have been looked at */
    uint64_t look_ms;     /* when to look again */
    unsigned offers;      /* of which the key process has not reported yet */
    uint64_t instance;    /* of that process */
};

static unsigned ssl_watch_slot;
static struct list mains = { &mains, &mains };

/* Configuration ------------------------------------------------------------------------------- */

static void unmap(void *data)
{
    struct watch_main *m = data;

    list_remove(&m->link);
    for (unsigned i = 0; i < m->chunks.count; i++)
        munmap(m->chunks.items[i], CHUNK_SIZE);
    if (m->fd >= 0)
        close(m->fd);
}

/* Pages that nobody touches cost nothing. NULL + errno. */
static void *chunk_new(struct conf *cf, struct watch_main *m)
{
    unsigned n = m->chunks.count;
    void *chunk;

    if (n == 0) {
        m->fd = memfd_create("proxyd-pairs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (m->fd < 0)
            return NULL;
        list_push_back(&mains, &m->link);
        arena_defer(cf->arena, unmap, m);
    }
    if (ftruncate(m->fd, (off_t) CHUNK_SIZE * (n + 1)) != 0)
        return NULL;
    chunk = mmap(NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd,
                 (off_t) CHUNK_SIZE * n);
    if (chunk == MAP_FAILED)
        return NULL;
    m->chunks.items =
        arena_grow(cf->arena, m->chunks.items, n, &m->chunks.capacity, sizeof(*m->chunks.items));
    m->chunks.items[m->chunks.count++] = chunk;
    return chunk;
}

/* NULL: reported. */
static struct watch_slot *slot_new(struct conf *cf, struct watch_main *m)
{
    struct watch_slot *chunk;

    if (m->chunks.count == 0 || m->chunk_used == CHUNK) {
        if (chunk_new(cf, m) == NULL) {
            conf_error_at(cf, cf->pos, "memory for \"ssl_certificate_watch\" failed (%d: %s)",
                          errno, strerror(errno));
            return NULL;
        }
        m->chunk_used = 0;
    }
    chunk = m->chunks.items[m->chunks.count - 1];
    return &chunk[m->chunk_used++];
}

/* What all workers go by is not a single worker's to write, whoever has taken it over: not even by another mapping. */
void ssl_watch_forked(void)
{
    for (struct list *l = mains.next; l != &mains; l = l->next) {
        struct watch_main *m = container_of(l, struct watch_main, link);

        fcntl(m->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
        for (unsigned i = 0; i < m->chunks.count; i++) {
            if (mmap(m->chunks.items[i], CHUNK_SIZE, PROT_READ,
                     MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd,
                     (off_t) CHUNK_SIZE * i) == MAP_FAILED)
                log_alert(log_main, errno, "mmap() for \"ssl_certificate_watch\" failed");
        }
        close(m->fd);
        m->fd = -1;
    }
}

void watch_look_at(const struct watched *w, struct watch_state *now)
{
    memset(now, 0, sizeof(*now));
    if (stat(w->certificate.path.ptr, &now->certificate) != 0)
        memset(&now->certificate, 0, sizeof(now->certificate));
    if (stat(w->key.path.ptr, &now->key) != 0)
        memset(&now->key, 0, sizeof(now->key));
}

static bool changed_lately(const struct stat *st)
{
    time_t last = MAX(st->st_mtim.tv_sec, st->st_ctim.tv_sec), now = time(NULL);

    return last >= now - YOUNG_S && last <= now + YOUNG_S;
}

static bool is_young(const struct watch_state *s)
{
    return changed_lately(&s->certificate) || changed_lately(&s->key);
}

static void watched_free(void *arg)
{
    struct watched *w = arg;

    ssl_object_free(&w->certificate_object);
    ssl_object_free(&w->key_object);
    watch_offer_free(w);
}

static struct watched *watched_new(struct conf *cf, struct watch_main *m,
                                   const struct ssl_spec *spec, unsigned i)
{
    struct watched *w = ARENA_NEW(cf->arena, struct watched);

    w->certificate = spec->certificates.items[i];
    w->key = spec->keys.items[i];
    w->passwords = spec->passwords;
    w->offers = &m->offers;
    arena_defer(cf->arena, watched_free, w);
    if (!ssl_is_file(w->certificate.path) || !ssl_is_file(w->key.path) ||
        ssl_store_is_reference(w->key.path))
        return w;
    w->slot = slot_new(cf, m);
    if (w->slot == NULL)
        return NULL;
    watch_look_at(w, &w->settled);
    w->young = is_young(&w->settled);
    w->next = m->first;
    m->first = w;
    return w;
}

static struct watched *watched_find(struct conf *cf, struct watch_main *m,
                                    const struct ssl_spec *spec, unsigned i)
{
    struct str name =
        str_printf(cf->arena, "%.*s\n%.*s\n%p", STR_ARG(spec->certificates.items[i].path),
                   STR_ARG(spec->keys.items[i].path), (void *) spec->passwords);
    struct watched *w;

    if (m->by_name.arena == NULL)
        table_init(&m->by_name, cf->arena);
    w = table_get(&m->by_name, name);
    if (w == NULL && (w = watched_new(cf, m, spec, i)) != NULL)
        table_put(&m->by_name, name, w);
    return w;
}

extern const struct module module_ssl_watch;

struct ssl_watch *ssl_watch_new(struct conf *cf, const struct ssl_spec *spec)
{
    struct watch_main *m = conf_own(cf, cf->config->main, &module_ssl_watch, STORE_MAIN);
    struct ssl_watch *watch = ARENA_NEW(cf->arena, struct ssl_watch);

    watch->count = spec->certificates.count;
    watch->pairs = ARENA_ARRAY(cf->arena, struct watched *, MAX(watch->count, 1u));
    for (unsigned i = 0; i < watch->count; i++) {
        if (ssl_pair_is_dynamic(spec, i))
            continue;
        watch->pairs[i] = watched_find(cf, m, spec, i);
        if (watch->pairs[i] == NULL)
            return NULL;
    }
    return watch;
}

void ssl_watch_keep(struct ssl_watch *watch, unsigned i, SSL_CTX *ctx)
{
    struct watched *w = watch->pairs[i];
    STACK_OF(X509) *chain = NULL;

    if (w->certificate_object.leaf != NULL)
        return;
    SSL_CTX_get0_chain_certs(ctx, &chain);
    w->certificate_object.leaf = SSL_CTX_get0_certificate(ctx);
    w->key_object.key = SSL_CTX_get0_privatekey(ctx);
    X509_up_ref(w->certificate_object.leaf);
    EVP_PKEY_up_ref(w->key_object.key);
    w->certificate_object.chain = chain != NULL ? X509_chain_up_ref(chain) : NULL;
}

int ssl_watch_key(struct conf *cf, const struct ssl_watch *watch, unsigned i, X509 *leaf,
                  unsigned uses, EVP_PKEY **key)
{
    struct watched *w = watch != NULL ? watch->pairs[i] : NULL;

    *key = NULL;
    if (w == NULL || w->slot == NULL)
        return 0;
    *key = keyproc_key_watched(cf, &w->key, w->passwords, leaf, uses, w, &w->kept);
    return *key != NULL ? 0 : -1;
}

/* Looking ------------------------------------------------------------------------------------- */

/* "data:" and what a file holds, at most room bytes. NULL, or why not. */
static const char *read_file(struct str path, const struct stat *want, char *to, size_t room,
                             uint32_t *len)
{
    int fd = open(path.ptr, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    const char *why = NULL;
    struct stat st;
    size_t n = 5;
    ssize_t got = 1;

    if (fd < 0)
        return strerror(errno);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        why = "not a regular file";
    else if (!ssl_same_file(&st, want))
        why = ""; /* it changes as we speak */
    else if (room < 5)
        why = "too large";
    else
        memcpy(to, "data:", 5);
    while (why == NULL && got > 0) {
        got = n < room ? read(fd, to + n, room - n) : 0;
        n += (size_t) MAX(got, 0);
        if (n == room)
            why = "too large";
        else if (got < 0)
            why = strerror(errno);
    }
    close(fd);
    *len = (uint32_t) n;
    return why;
}

bool watch_blame(struct watch_reading *r, const struct ssl_file *file, const char *why)
{
    snprintf(r->why, sizeof(r->why), "\"%.*s\": %s%s", STR_ARG(file->path), why, ssl_errors());
    return false;
}

bool watch_read_certificate(const struct watched *w, const struct watch_state *now,
                            struct watch_reading *r)
{
    const char *why = read_file(w->certificate.path, &now->certificate, r->bytes, sizeof(r->bytes),
                                &r->certificate_len);

    r->why[0] = '\0';
    r->key_len = 0;
    if (why == NULL)
        return true;
    return why[0] != '\0' && watch_blame(r, &w->certificate, why);
}

static bool read_both(const struct watched *w, const struct watch_state *now,
                      struct watch_reading *r)
{
    const char *why;

    if (!watch_read_certificate(w, now, r))
        return false;
    why = read_file(w->key.path, &now->key, r->bytes + r->certificate_len,
                    sizeof(r->bytes) - r->certificate_len, &r->key_len);
    return why == NULL || (why[0] != '\0' && watch_blame(r, &w->key, why));
}

bool watch_same_chain(const STACK_OF(X509) * a, const STACK_OF(X509) * b)
{
    int n = a != NULL ? sk_X509_num(a) : 0;

    if (n != (b != NULL ? sk_X509_num(b) : 0))
        return false;
    while (n-- > 0) {
        if (X509_cmp(sk_X509_value(a, n), sk_X509_value(b, n)) != 0)
            return false;
    }
    return true;
}

/* Whether they are a certificate and its key; and, in r->known, what the configuration's reader has seen. */
static bool fits(const struct watched *w, struct watch_reading *r)
{
    static const struct ssl_passwords none;
    struct ssl_object o = { .leaf = NULL };
    const char *error = NULL;
    bool ok = true;

    ERR_clear_error();
    o.leaf = ssl_load_certificate(str_from(r->bytes, r->certificate_len), &o.chain, &error);
    if (o.leaf == NULL) {
        o.chain = NULL;
        return watch_blame(r, &w->certificate, error);
    }
    o.key = ssl_load_key(str_from(r->bytes + r->certificate_len, r->key_len),
                         w->passwords != NULL ? w->passwords : &none, &error);
    if (o.key == NULL)
        ok = watch_blame(r, &w->key, error);
    else if (X509_check_private_key(o.leaf, o.key) != 1)
        ok = watch_blame(r, &w->key, "it is not the certificate's key");
    r->known = ok && w->slot->generation == 0 &&
               X509_cmp(o.leaf, w->certificate_object.leaf) == 0 &&
               watch_same_chain(o.chain, w->certificate_object.chain) &&
               EVP_PKEY_eq(o.key, w->key_object.key) == 1;
    ERR_clear_error();
    ssl_object_free(&o);
    return ok;
}

void watch_publish(struct watched *w, const char *bytes, uint32_t certificate_len, uint32_t key_len,
                   uint32_t key_generation)
{
    struct watch_slot *slot = w->slot;
    uint64_t generation = slot->generation;

    __atomic_store_n(&slot->generation, generation + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    slot->certificate_len = certificate_len;
    slot->key_len = key_len;
    slot->key_generation = key_generation;
    memcpy(slot->bytes, bytes, certificate_len + key_len);
    __atomic_store_n(&slot->generation, generation + 2, __ATOMIC_RELEASE);
    log_notice(log_main, 0, "certificate \"%.*s\" was replaced", STR_ARG(w->certificate.path));
}

bool watch_same_state(const struct watch_state *a, const struct watch_state *b)
{
    return ssl_same_file(&a->certificate, &b->certificate) && ssl_same_file(&a->key, &b->key);
}

/* What is there is what is served now. */
void watch_settle(struct watched *w, const struct watch_state *now)
{
    w->settled = *now;
    w->young = is_young(now);
    w->complained = false;
    memset(&w->bad, 0xff, sizeof(w->bad));
}

static void take(struct watched *w, const struct watch_state *now, struct watch_reading *r)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    struct watch_state after;

    watch_look_at(w, &after);
    if (!watch_same_state(now, &after))
        return; /* somebody is at it: in a second */
    SHA256((const unsigned char *) r->bytes, r->certificate_len + r->key_len, digest);
    if (memcmp(digest, w->digest, sizeof(digest)) != 0) {
        memcpy(w->digest, digest, sizeof(digest));
        if (!r->known)
            watch_publish(w, r->bytes, r->certificate_len, r->key_len, 0);
    }
    watch_settle(w, now);
}

void watch_unfit(struct watched *w, const struct watch_state *now, const char *why)
{
    if (why[0] == '\0' || !watch_same_state(now, &w->bad)) {
        w->bad = *now;
        w->complained = false;
        return;
    }
    w->complained = true;
    log_error(log_main, 0,
              "certificate \"%.*s\" has changed, but cannot be used: %s; the one before it "
              "stays in force, for \"ssl_certificate\" in %s:%u",
              STR_ARG(w->certificate.path), why, w->certificate.pos.file, w->certificate.pos.line);
}

/* Whether the files are to be read: something has changed, or may have. */
static bool is_due(struct watched *w, const struct watch_state *now)
{
    if (!watch_same_state(now, &w->settled))
        return !w->complained || !watch_same_state(now, &w->bad);
    if (unlikely(w->lacks))
        return !w->complained || !watch_same_state(now, &w->bad);
    w->complained = false; /* as it was, or again */
    memset(&w->bad, 0xff, sizeof(w->bad));
    if (likely(!w->young))
        return false;
    /* Here, too: it may not be fit to be read, where its password was typed in. */
    w->young = is_young(now);
    return true;
}

/* Whether the files have been read. */
static bool look(const struct config *config, struct watched *w, struct watch_reading *r)
{
    struct watch_state now;

    if (w->offer != NULL)
        return false;
    watch_look_at(w, &now);
    if (!is_due(w, &now))
        return false;
    if (w->kept != NULL) {
        if (!watch_offer(config, w, &now, r))
            watch_unfit(w, &now, r->why);
    } else if (read_both(w, &now, r) && fits(w, r)) {
        take(w, &now, r);
    } else {
        watch_unfit(w, &now, r->why);
    }
    return true;
}

/* A key may take a millisecond: where all have been replaced, signals do not wait for the last of them. */
static void look_at_some(const struct config *config, struct watch_main *m, struct watch_reading *r)
{
    for (unsigned n = 0; m->rest != NULL && n < READ_MAX && m->offers < OFFERS_MAX;
         m->rest = m->rest->next)
        n += look(config, m->rest, r);
}

/* What was sent to a key process that has gone is lost; its successor has what is in force, if that can still be read. */
static void meet_process(const struct config *config, struct watch_main *m)
{
    uint64_t instance = keyproc_instance(config);

    if (likely(instance == m->instance))
        return;
    for (struct watched *w = m->first; w != NULL; w = w->next)
        watch_offer_free(w);
    m->instance = instance;
    m->look_ms = 0;
}

static uint64_t watch_tick(const struct config *config)
{
    struct watch_main *m = level_conf(config->main, STORE_MAIN, ssl_watch_slot);
    struct watch_reading *r;

    if (m->first == NULL)
        return UINT64_MAX;
    meet_process(config, m);
    watch_heed_reports(config);
    if (m->rest == NULL && clock_ms() >= m->look_ms) {
        m->rest = m->first;
        m->look_ms = clock_ms() + LOOK_MS;
    }
    if (m->rest != NULL && m->offers < OFFERS_MAX) {
        r = mem_alloc(sizeof(*r));
        look_at_some(config, m, r);
        OPENSSL_cleanse(r, sizeof(*r));
        free(r);
        clock_update();
    }
    if (m->offers > 0)
        return REPORT_MS;
    return m->rest != NULL ? 1 : m->look_ms - MIN(clock_ms(), m->look_ms);
}

static const struct directive directives[] = { ROW_END };

const struct module module_ssl_watch = {
    .name = "ssl_watch",
    .slot = &ssl_watch_slot,
    .conf_size = { [STORE_MAIN] = sizeof(struct watch_main) },
    .directives = directives,
    .master_tick = watch_tick,
};
