/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Resolving names at run time, behind core/event/resolve.h. A job is one name being asked for,
 * with everybody who waits for it; its parts are the questions (A, AAAA or SRV) that make up the
 * answer. Replies come from server.c at any time and only mark a part; all decisions are made in
 * job_run, from the loop's run-later list, so that nothing happens inside anybody's call.
 */
#include "modules/resolver/internal.h"

#include "core/base/clock.h"
#include "core/base/hash.h"

#define JOB_BUCKETS 256
#define LAME_MS 10000
#define PARTIAL_VALID_MS 5000                     /* an answer that lacks a family */
#define VALID_MAX_MS (7ull * 24 * 3600 * 1000)    /* RFC 8767, 4 */

struct part {
    struct job *job;
    unsigned type;
    unsigned first;  /* server asked first */
    unsigned server; /* asked now, or last */
    unsigned tries;  /* that failed */
    bool open;       /* a question is out */
    bool done;
    enum resolve_status status;
};

/* The host of an SRV record, resolved by a query of our own. */
struct target {
    struct resolve_query q;
    struct job *job;
    struct dns_record srv;
};

struct job {
    struct job *next; /* of its bucket */
    struct resolver *resolver;
    struct later later;
    struct list waiters;
    struct part parts[2];
    unsigned part_count;
    struct target *targets;
    unsigned target_count;
    unsigned targets_open;
    bool targets_started;
    bool partial; /* something failed that might have added to the answer */
    enum resolve_status target_status;
    struct addr_set addrs;
    uint64_t hash;
    struct str key; /* 'A' or 'S', then the name in lower case; NUL-terminated */
    char key_bytes[];
};

struct waiter {
    struct list link; /* of its job, or of the resolver's ready list */
    struct job *job;  /* NULL: the answer below is ready */
    struct resolver *resolver;
    struct resolve_query *q;
    struct timer timer;
    struct later later;
    enum resolve_status status;
    uint32_t ttl_s;
    struct addr_set addrs;
};

struct resolver {
    const struct resolver_spec *spec;
    const struct logger *log;
    struct resolver_cache cache;
    struct job *jobs[JOB_BUCKETS];
    unsigned job_count;
    struct list ready;
    unsigned rotor;
    unsigned busy; /* inside done calls */
    bool free_wanted;
    struct name_server servers[];
};

static void job_run(struct later *later);

const char *resolve_status_text(enum resolve_status s)
{
    switch (s) {
    case RESOLVE_OK: return "No error";
    case RESOLVE_NOT_FOUND: return "Host not found";
    case RESOLVE_TIMEOUT: return "Operation timed out";
    case RESOLVE_FAILED: break;
    }
    return "Server failure";
}

/* Writes the cache's key for what q asks. Its length, or 0 if no name can be that. */
static size_t make_key(const struct resolve_query *q, char key[RESOLVER_KEY_MAX])
{
    struct str name = q->name;
    size_t n = 0;

    if (name.len > 1 && name.ptr[name.len - 1] == '.')
        name.len--;
    if (name.len == 0 || name.len + q->service.len + 1 > DNS_NAME_MAX ||
        memchr(name.ptr, '\0', name.len))
        return 0;
    key[n++] = q->service.len ? 'S' : 'A';
    if (q->service.len) {
        if (memchr(q->service.ptr, '\0', q->service.len))
            return 0;
        memcpy(key + n, q->service.ptr, q->service.len);
        n += q->service.len;
        key[n++] = '.';
    }
    for (size_t i = 0; i < name.len; i++)
        key[n++] = (char) ascii_lower((unsigned char) name.ptr[i]);
    return n;
}

static struct job **job_find(struct resolver *r, struct str key, uint64_t hash)
{
    struct job **at = &r->jobs[hash % JOB_BUCKETS];

    while (*at && ((*at)->hash != hash || !str_eq((*at)->key, key)))
        at = &(*at)->next;
    return at;
}

/* Out of the table: who asks for the name from now on starts anew. */
static void job_unlink(struct job *job)
{
    struct job **at = job_find(job->resolver, job->key, job->hash);

    ASSERT(*at == job);
    *at = job->next;
    job->resolver->job_count--;
}

static void job_free(struct job *job)
{
    for (unsigned i = 0; i < job->target_count; i++)
        resolve_cancel(&job->targets[i].q);
    loop_later_cancel(&job->later);
    free(job->targets);
    free(job->addrs.items);
    free(job);
}

/*
 * Nobody waits for it any more. While a question is out the answer is still awaited: it may serve
 * others.
 */
static void job_abandon(struct job *job)
{
    for (unsigned i = 0; i < job->part_count; i++)
        if (job->parts[i].open)
            return;
    job_unlink(job);
    job_free(job);
}

/* Ends the wait without a word. */
static void waiter_drop(struct waiter *w)
{
    w->q->impl = NULL;
    list_remove(&w->link);
    timer_drop(&w->timer);
    loop_later_cancel(&w->later);
    free(w->addrs.items);
    free(w);
}

static void waiters_drop(struct list *waiters)
{
    struct list *n;

    while ((n = list_pop_front(waiters)) != NULL) {
        ASSERT(waiters->next != n);
        waiter_drop(container_of(n, struct waiter, link));
    }
}

/*
 * Ends the wait and tells its owner. The addresses stay the caller's. Touches w and q no more
 * after done.
 */
static void waiter_finish(struct waiter *w, enum resolve_status status,
                          const struct addr_set *addrs, uint32_t ttl_s)
{
    struct resolve_query *q = w->q;

    waiter_drop(w);
    q->status = status;
    q->addrs = addrs->items;
    q->addr_count = addrs->count;
    q->ttl_s = ttl_s;
    q->done(q);
}

static uint32_t least_ttl(const struct addr_set *addrs)
{
    uint32_t ttl = UINT32_MAX;

    for (unsigned i = 0; i < addrs->count; i++)
        ttl = MIN(ttl, addrs->items[i].ttl_s);
    return addrs->count ? ttl : 0;
}

static struct addr_set addr_set_copy(const struct addr_set *addrs)
{
    struct addr_set copy = { NULL, addrs->count, addrs->count };

    if (addrs->count > 0) {
        copy.items = mem_alloc(addrs->count * sizeof(*copy.items));
        memcpy(copy.items, addrs->items, addrs->count * sizeof(*copy.items));
    }
    return copy;
}

static void resolver_destroy(struct resolver *r);

static void resolver_enter(struct resolver *r)
{
    r->busy++;
}

static void resolver_leave(struct resolver *r)
{
    if (--r->busy == 0 && r->free_wanted)
        resolver_destroy(r);
}

/* resolver_timeout is over. What has arrived so far is better than nothing. */
static void waiter_timeout(struct timer *timer)
{
    struct waiter *w = container_of(timer, struct waiter, timer);
    struct resolver *r = w->resolver;
    struct job *job = w->job;
    struct addr_set addrs = addr_set_copy(&job->addrs);

    list_remove(&w->link);
    if (list_empty(&job->waiters))
        job_abandon(job);
    resolver_enter(r);
    waiter_finish(w, addrs.count ? RESOLVE_OK : RESOLVE_TIMEOUT, &addrs, least_ttl(&addrs));
    free(addrs.items);
    resolver_leave(r);
}

/* An answer that was there at the start. */
static void waiter_ready(struct later *later)
{
    struct waiter *w = container_of(later, struct waiter, later);
    struct resolver *r = w->resolver;
    struct addr_set addrs = w->addrs;

    w->addrs = (struct addr_set){ 0 };
    resolver_enter(r);
    waiter_finish(w, w->status, &addrs, w->ttl_s);
    free(addrs.items);
    resolver_leave(r);
}

static void found_addr(void *arg, const struct dns_record *record)
{
    struct part *part = arg;
    struct resolve_addr a = { .addr = record->addr, .ttl_s = record->ttl_s };

    addr_set_add(&part->job->addrs, &a);
}

static void found_target(void *arg, const struct dns_record *record)
{
    struct job *job = ((struct part *) arg)->job;

    /* "." says that there is no such service (RFC 2782). */
    if (job->target_count == RESOLVER_TARGETS_MAX || record->target[0] == '\0')
        return;
    job->targets = mem_realloc(job->targets, (job->target_count + 1) * sizeof(*job->targets));
    job->targets[job->target_count++] = (struct target){ .job = job, .srv = *record };
}

static enum resolve_status part_parse(struct part *part, const struct server_reply *reply)
{
    struct job *job = part->job;
    unsigned before = job->addrs.count;
    int n = dns_answers(reply->msg, reply->len, part->type,
                        part->type == DNS_SRV ? found_target : found_addr, part);

    if (n < 0) {
        job->addrs.count = before;
        job->target_count = part->type == DNS_SRV ? 0 : job->target_count;
        return RESOLVE_FAILED;
    }
    return n > 0 ? RESOLVE_OK : RESOLVE_NOT_FOUND;
}

static void server_lame(struct resolver *r, struct name_server *s, enum resolve_status status)
{
    char text[ADDR_TEXT];
    size_t n = addr_format(&s->addr, true, text, sizeof(text));

    if (s->lame_until_ms <= clock_ms())
        log_warn(r->log, 0, "name server %.*s failed: %s", (int) n, text,
                 resolve_status_text(status));
    s->lame_until_ms = clock_ms() + LAME_MS;
}

/* From server.c, perhaps from inside name_server_ask. */
static void part_replied(void *arg, const struct server_reply *reply)
{
    struct part *part = arg;
    struct resolver *r = part->job->resolver;
    struct name_server *s = &r->servers[part->server];

    part->open = false;
    part->status = reply->status;
    if (reply->status == RESOLVE_OK)
        part->status = part_parse(part, reply);
    if (part->status == RESOLVE_OK || part->status == RESOLVE_NOT_FOUND) {
        part->done = true;
        s->lame_until_ms = 0;
    } else {
        part->tries++;
        if (reply->lame)
            server_lame(r, s, reply->status);
    }
    loop_later(&part->job->later);
}

/* In turn, those that failed lately last. */
static unsigned pick_server(struct resolver *r, const struct part *part)
{
    unsigned n = r->spec->server_count;
    unsigned first = part->first + part->tries;

    ASSERT(n > 0);
    for (unsigned k = 0; k < n; k++)
        if (r->servers[(first + k) % n].lame_until_ms <= clock_ms())
            return (first + k) % n;
    return first % n;
}

/* Asks the next server, or gives up. A silent server is asked again for as long as anybody
 * waits, unless the answer's other half is there. */
static void part_next(struct part *part)
{
    struct job *job = part->job;
    struct resolver *r = job->resolver;

    if (part->tries >= r->spec->server_count &&
        (part->status == RESOLVE_FAILED || job->addrs.count > 0)) {
        part->done = true;
        job->partial = true;
        return;
    }
    part->server = pick_server(r, part);
    part->open = true;
    name_server_ask(&r->servers[part->server], job->key.ptr + 1, part->type, part_replied, part);
}

static void target_done(struct resolve_query *q)
{
    struct target *t = container_of(q, struct target, q);
    struct job *job = t->job;

    for (unsigned i = 0; i < q->addr_count; i++) {
        struct resolve_addr a = q->addrs[i];

        addr_set_port(&a.addr, t->srv.port);
        a.priority = t->srv.priority;
        a.weight = t->srv.weight;
        a.ttl_s = MIN(a.ttl_s, t->srv.ttl_s);
        addr_set_add(&job->addrs, &a);
    }
    if (q->status != RESOLVE_OK) {
        job->target_status = q->status;
        job->partial |= q->status != RESOLVE_NOT_FOUND;
    }
    if (--job->targets_open == 0)
        loop_later(&job->later);
}

static void targets_start(struct job *job)
{
    struct waiter *w = container_of(job->waiters.next, struct waiter, link);
    uint64_t timeout_ms = w->q->timeout_ms;

    job->targets_started = true;
    job->targets_open = job->target_count;
    for (unsigned i = 0; i < job->target_count; i++) {
        struct target *t = &job->targets[i];

        t->q.name = str_cstr(t->srv.target);
        t->q.timeout_ms = timeout_ms;
        t->q.done = target_done;
        resolve_start(job->resolver, &t->q);
    }
}

static enum resolve_status job_status(const struct job *job)
{
    enum resolve_status status = RESOLVE_NOT_FOUND;

    if (job->addrs.count > 0)
        return RESOLVE_OK;
    if (job->targets_started && job->target_count > 0)
        return job->target_status;
    for (unsigned i = 0; i < job->part_count; i++)
        if (job->parts[i].status > status)
            status = job->parts[i].status;
    return status;
}

static void job_remember(struct job *job, uint32_t ttl_s)
{
    struct resolver *r = job->resolver;
    uint64_t valid_ms = r->spec->valid_ms ? r->spec->valid_ms : (uint64_t) ttl_s * 1000;

    if (job->partial)
        valid_ms = MIN(valid_ms, (uint64_t) PARTIAL_VALID_MS);
    if (valid_ms > 0)
        cache_put(&r->cache, job->key, addr_set_copy(&job->addrs), ttl_s,
                  MIN(valid_ms, (uint64_t) VALID_MAX_MS));
}

static void job_finish(struct job *job)
{
    struct resolver *r = job->resolver;
    enum resolve_status status = job_status(job);
    uint32_t ttl_s = least_ttl(&job->addrs);
    struct list *n;

    job_unlink(job);
    if (status == RESOLVE_OK)
        job_remember(job, ttl_s);
    resolver_enter(r);
    while (!r->free_wanted && (n = list_pop_front(&job->waiters)) != NULL) {
        ASSERT(job->waiters.next != n);
        waiter_finish(container_of(n, struct waiter, link), status, &job->addrs, ttl_s);
    }
    /* The resolver was freed by one of them: the others are not told. */
    waiters_drop(&job->waiters);
    job_free(job);
    resolver_leave(r);
}

static void job_run(struct later *later)
{
    struct job *job = container_of(later, struct job, later);
    bool waited_for = !list_empty(&job->waiters);
    bool all_done = true;

    for (unsigned i = 0; i < job->part_count; i++) {
        struct part *part = &job->parts[i];

        if (waited_for && !part->done && !part->open)
            part_next(part);
        all_done &= part->done;
    }
    if (!all_done) {
        if (!waited_for)
            job_abandon(job);
        return;
    }
    if (job->target_count > 0 && !job->targets_started && waited_for)
        targets_start(job);
    if (job->targets_open > 0 && waited_for)
        return;
    job_finish(job);
}

static void job_add_part(struct job *job, unsigned type)
{
    struct part *part = &job->parts[job->part_count++];

    *part = (struct part){ .job = job, .type = type, .first = job->resolver->rotor };
}

static struct job *job_new(struct resolver *r, struct str key, uint64_t hash)
{
    struct job *job = mem_zalloc(sizeof(*job) + key.len + 1);

    memcpy(job->key_bytes, key.ptr, key.len);
    job->key = str_from(job->key_bytes, key.len);
    job->hash = hash;
    job->resolver = r;
    job->later.run = job_run;
    job->target_status = RESOLVE_NOT_FOUND;
    list_init(&job->waiters);
    job->next = r->jobs[hash % JOB_BUCKETS];
    r->jobs[hash % JOB_BUCKETS] = job;
    r->job_count++;
    r->rotor++;
    if (key.ptr[0] == 'S') {
        job_add_part(job, DNS_SRV);
    } else {
        if (r->spec->ipv4)
            job_add_part(job, DNS_A);
        if (r->spec->ipv6)
            job_add_part(job, DNS_AAAA);
    }
    loop_later(&job->later);
    return job;
}

static void start_ready(struct waiter *w, enum resolve_status status, const struct cache_entry *e)
{
    w->status = status;
    if (e) {
        w->addrs = addr_set_copy(&e->addrs);
        w->ttl_s = e->ttl_s;
    }
    list_push_back(&w->resolver->ready, &w->link);
    loop_later(&w->later);
}

void resolve_start(struct resolver *r, struct resolve_query *q)
{
    struct waiter *w = mem_zalloc(sizeof(*w));
    char bytes[RESOLVER_KEY_MAX];
    struct str key = str_from(bytes, make_key(q, bytes));
    struct cache_entry *e;
    uint64_t hash;

    ASSERT(!r->free_wanted);
    w->resolver = r;
    w->q = q;
    w->timer.fire = waiter_timeout;
    w->later.run = waiter_ready;
    q->impl = w;
    if (key.len == 0) {
        start_ready(w, RESOLVE_NOT_FOUND, NULL);
        return;
    }
    e = cache_get(&r->cache, key);
    if (e) {
        start_ready(w, RESOLVE_OK, e);
        return;
    }
    hash = hash_bytes(key.ptr, key.len);
    w->job = *job_find(r, key, hash);
    if (!w->job && r->job_count >= RESOLVER_JOBS_MAX) {
        log_error(r->log, 0, "too many names are being resolved at a time: %u", r->job_count);
        start_ready(w, RESOLVE_FAILED, NULL);
        return;
    }
    if (!w->job)
        w->job = job_new(r, key, hash);
    else if (list_empty(&w->job->waiters))
        loop_later(&w->job->later); /* it had been given up */
    list_push_back(&w->job->waiters, &w->link);
    timer_set(&w->timer, q->timeout_ms);
}

bool resolve_cached(struct resolver *r, struct resolve_query *q)
{
    char bytes[RESOLVER_KEY_MAX];
    struct str key = str_from(bytes, make_key(q, bytes));
    struct cache_entry *e = key.len ? cache_get(&r->cache, key) : NULL;

    if (!e)
        return false;
    q->status = RESOLVE_OK;
    q->addrs = e->addrs.items;
    q->addr_count = e->addrs.count;
    q->ttl_s = e->ttl_s;
    return true;
}

void resolve_cancel(struct resolve_query *q)
{
    struct waiter *w = q->impl;
    struct job *job;

    if (!w)
        return;
    job = w->job;
    waiter_drop(w);
    /* A job that is being finished is out of the table and sees to itself. */
    if (job && list_empty(&job->waiters) && *job_find(job->resolver, job->key, job->hash) == job)
        job_abandon(job);
}

struct resolver *resolver_new(const struct resolver_spec *spec, const struct logger *log)
{
    struct resolver *r;

    ASSERT(spec->server_count > 0 && (spec->ipv4 || spec->ipv6));
    r = mem_zalloc(sizeof(*r) + spec->server_count * sizeof(r->servers[0]));
    r->spec = spec;
    r->log = log;
    r->rotor = spec->server_count - 1; /* the first name asks the first server */
    cache_init(&r->cache);
    list_init(&r->ready);
    for (unsigned i = 0; i < spec->server_count; i++) {
        r->servers[i].resolver = r;
        r->servers[i].counts = spec->counts;
        if (name_server_init(&r->servers[i], &spec->servers[i], log) != 0) {
            resolver_destroy(r);
            return NULL;
        }
    }
    return r;
}

static void resolver_destroy(struct resolver *r)
{
    for (unsigned i = 0; i < r->spec->server_count; i++)
        name_server_free(&r->servers[i]);
    waiters_drop(&r->ready);
    for (unsigned i = 0; i < JOB_BUCKETS; i++) {
        while (r->jobs[i]) {
            struct job *job = r->jobs[i];

            r->jobs[i] = job->next;
            r->job_count--;
            waiters_drop(&job->waiters);
            job_free(job);
        }
    }
    cache_clear(&r->cache);
    free(r);
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    r->free_wanted = true;
    if (r->busy == 0)
        resolver_destroy(r);
}
