/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * OCSP stapling (RFC 6066, 8): the server shows what the authority says of its certificate, so that clients need not ask.
 *
 * A worker asks as soon as it has started, not when the first client wants it: a certificate that says "must staple" is
 * no good without. No handshake ever waits. What one worker has been told lies in shared memory: the others, and those of
 * the next configuration, take it from there, and judge it themselves. Who asks says so there first.
 *
 * A response is asked for anew when half of its time is over, or an hour later; and after a failure, after a second, two,
 * four … five minutes. It is shown until its time is over.
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "modules/ssl/kept.h"
#include "modules/ssl/stapling.h"

#define REFRESH_MAX_S 3600
#define RETRY_MAX_S 300
#define CLAIM_S \
    (OCSP_TIMEOUT_MS / 1000 + 30) /* a question takes no longer, unless its worker is dead */
#define POLL_MS 100               /* while another worker asks */

/* The shared memory -------------------------------------------------------------------------- */

/* For each certificate. */
struct shared {
    struct kept kept; /* first */
    int64_t claim_s;  /* somebody asks, until then: wall clock, as all are */
    int64_t retry_s;  /* nobody asks before, for it has failed */
};

/* Its data. */
struct response {
    int64_t stored_s;
    int64_t refresh_s;
    char der[];
};

static int zone_begin(struct zone *zone, void *data UNUSED)
{
    return kept_init(zone, sizeof(struct shared));
}

const struct zone_kind stapling_kind = {
    .name = "ssl_stapling", .version = 2, .init = zone_begin, .recover = kept_recover
};

/* The locked zone's entry, or NULL. */
static struct shared *shared_of(struct zone *zone, const struct staple *s)
{
    return kept_entry(zone, str_from((const char *) s->key, sizeof(s->key)));
}

/* What others have been told; NULL: nothing. */
static const struct response *response_of(const struct zone *zone, const struct shared *e,
                                          size_t *len)
{
    struct str data = kept_data(zone, &e->kept);

    if (data.len < sizeof(struct response))
        return NULL;
    *len = data.len - sizeof(struct response);
    return (const struct response *) (const void *) data.ptr;
}

static void publish(struct zone *zone, struct staple *s, struct str der, time_t refresh)
{
    const struct response *old = NULL;
    struct response *new = NULL;
    struct shared *e;
    size_t len;

    zone_lock(zone);
    e = shared_of(zone, s);
    if (e != NULL) {
        e->claim_s = e->retry_s = 0;
        old = response_of(zone, e, &len);
        new = kept_room(zone, &e->kept, sizeof(*new) + der.len);
    }
    if (new != NULL) {
        s->stored = MAX(time(NULL), old != NULL ? (time_t) old->stored_s + 1 : 0);
        new->stored_s = s->stored;
        new->refresh_s = refresh;
        memcpy(new->der, der.ptr, der.len);
        kept_show(zone, &e->kept);
    }
    zone_unlock(zone);
}

static void publish_failure(struct zone *zone, struct staple *s, unsigned pause_s)
{
    struct shared *e;

    zone_lock(zone);
    e = shared_of(zone, s);
    if (e != NULL) {
        e->claim_s = 0;
        e->retry_s = time(NULL) + pause_s;
    }
    zone_unlock(zone);
}

/* Asking ------------------------------------------------------------------------------------- */

static struct zone *zone_of(const struct staple *s)
{
    return s->zone != NULL ? s->zone->zone : NULL;
}

static unsigned pause_of(struct staple *s)
{
    unsigned pause_s = s->failures < 9 ? 1u << s->failures : RETRY_MAX_S;

    s->failures++;
    return MIN(pause_s, (unsigned) RETRY_MAX_S);
}

/* When it is to be asked for anew. */
static time_t refresh_of(time_t valid)
{
    time_t now = time(NULL);
    time_t half = valid != 0 ? MAX((valid - now) / 2, 1) : REFRESH_MAX_S;

    return now + MIN(half, REFRESH_MAX_S);
}

/* A response, judged and shown from now on. 0 or -1 (logged). */
static int take(struct staple *s, struct str der, const struct logger *log)
{
    struct ocsp_verdict verdict;
    char *copy;

    if (ocsp_judge(&s->subject, &s->trust, der, log, &verdict) != 0)
        return -1;
    if (verdict.status != V_OCSP_CERTSTATUS_GOOD) {
        log_error(log, 0, "certificate status \"%s\" in the OCSP response",
                  OCSP_cert_status_str(verdict.status));
        return -1;
    }
    copy = mem_alloc(der.len);
    memcpy(copy, der.ptr, der.len);
    free((char *) s->der.ptr);
    s->der = str_from(copy, der.len);
    s->valid = verdict.valid;
    s->failures = 0;
    return 0;
}

static void tick_in(struct staple *s, time_t at)
{
    time_t now = time(NULL);

    timer_set(&s->timer, at > now ? (uint64_t) (at - now) * 1000 : 1);
}

static void answered(void *data, struct str der, const struct logger *log)
{
    struct staple *s = data;
    struct zone *zone = zone_of(s);
    unsigned pause_s;
    time_t refresh;

    s->fetch = NULL;
    if (der.ptr != NULL && take(s, der, log) == 0) {
        refresh = refresh_of(s->valid);
        if (zone != NULL)
            publish(zone, s, der, refresh);
        tick_in(s, refresh);
        return;
    }
    pause_s = pause_of(s);
    if (zone != NULL)
        publish_failure(zone, s, pause_s);
    timer_set(&s->timer, (uint64_t) pause_s * 1000);
}

static void ask(struct staple *s)
{
    struct ocsp_question question = { .responder = &s->responder,
                                      .core = s->core,
                                      .subject = &s->subject,
                                      .certificate = s->name,
                                      .done = answered,
                                      .data = s };

    if (s->fetch == NULL)
        s->fetch = ocsp_fetch_start(&question, s->core->error_log, 0);
}

/* What the shared memory says is to be done: take what is there, wait for another, or ask. */
struct advice {
    char *der; /* a copy */
    size_t len;
    time_t stored, refresh, wait;
    bool poll;
};

static void consult(struct zone *zone, struct staple *s, struct advice *a)
{
    const struct response *response = NULL;
    time_t now = time(NULL);
    struct shared *e;
    size_t len;

    *a = (struct advice){ .der = NULL };
    zone_lock(zone);
    e = shared_of(zone, s);
    if (e != NULL)
        response = response_of(zone, e, &len);
    if (response != NULL && response->refresh_s > now && response->stored_s > s->stored) {
        a->der = mem_alloc(len);
        a->len = len;
        a->stored = response->stored_s;
        a->refresh = response->refresh_s;
        memcpy(a->der, response->der, len);
    } else if (e != NULL && e->claim_s > now && e->claim_s <= now + CLAIM_S) {
        a->poll = true;
    } else if (e != NULL && e->retry_s > now && e->retry_s <= now + RETRY_MAX_S) {
        a->wait = e->retry_s;
    } else if (e != NULL) {
        e->claim_s = now + CLAIM_S;
    }
    zone_unlock(zone);
}

static void tick(struct timer *timer)
{
    struct staple *s = container_of(timer, struct staple, timer);
    struct zone *zone = zone_of(s);
    struct logger log = { .scope = s->core->error_log };
    struct advice a;

    if (zone == NULL) {
        ask(s);
        return;
    }
    consult(zone, s, &a);
    if (a.der != NULL) {
        s->stored = a.stored; /* it is not looked at twice, whatever it is */
        if (take(s, str_from(a.der, a.len), &log) == 0)
            tick_in(s, a.refresh);
        else
            timer_set(&s->timer, POLL_MS);
        free(a.der);
    } else if (a.poll) {
        timer_set(&s->timer, POLL_MS);
    } else if (a.wait != 0) {
        tick_in(s, a.wait);
    } else {
        ask(s);
    }
}

void stapling_start(struct staples *staples)
{
    if (staples->started)
        return;
    staples->started = true;
    for (unsigned i = 0; i < staples->count; i++) {
        struct staple *s = &staples->items[i];

        s->timer.fire = tick;
        if (s->fixed.len == 0)
            tick(&s->timer);
    }
}

void stapling_rest(struct staples *staples)
{
    for (unsigned i = 0; i < staples->count; i++) {
        struct staple *s = &staples->items[i];
        struct zone *zone = zone_of(s);

        if (s->fetch != NULL && zone != NULL)
            publish_failure(zone, s, 0); /* somebody else is to ask, at once */
        ocsp_fetch_cancel(s->fetch);
        timer_drop(&s->timer);
        s->fetch = NULL;
    }
}

void stapling_stop(struct staples *staples)
{
    stapling_rest(staples);
    for (unsigned i = 0; i < staples->count; i++) {
        free((char *) staples->items[i].der.ptr);
        staples->items[i].der = STR_NULL;
        stapling_drop(&staples->items[i]);
    }
    staples->started = false;
}

/* Handshakes --------------------------------------------------------------------------------- */

int stapling_show(SSL *ssl, void *arg)
{
    const struct staples *staples = arg;
    X509 *cert = SSL_get_certificate(ssl);

    for (unsigned i = 0; i < staples->count; i++) {
        const struct staple *s = &staples->items[i];
        struct str der = s->fixed.len > 0 ? s->fixed : s->der;
        time_t until = s->fixed.len > 0 ? s->fixed_until : s->valid;
        unsigned char *copy;

        if (s->cert != cert)
            continue;
        if (der.len == 0 || (until != 0 && until < time(NULL)))
            return SSL_TLSEXT_ERR_NOACK;
        copy = OPENSSL_malloc(der.len);
        if (copy == NULL)
            return SSL_TLSEXT_ERR_NOACK;
        memcpy(copy, der.ptr, der.len);
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long) der.len);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}
