/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is noted of each attempt: for the request's variables and log lines, and, in groups with a zone, for the server's
 * counters, which all workers add to without a lock. Called by the exchange.
 */
#include "core/base/clock.h"
#include "modules/upstream/internal.h"

/* In a zone: the server may be gone when the log asks for its name. */
static void count_request(struct exchange *x, struct upstream_record *rec)
{
    __atomic_add_fetch(&x->choice.peer->stats->requests, 1, __ATOMIC_RELAXED);
    rec->peer = str_dup(x->req->arena, rec->peer);
    rec->server = str_dup(x->req->arena, rec->server);
}

/* Into a moving average, which may lose a value to another worker. */
static void average(int64_t *to, int64_t us)
{
    int64_t old = __atomic_load_n(to, __ATOMIC_RELAXED);

    if (us >= 0)
        __atomic_store_n(to, old > 0 ? old + (us - old) / 8 : MAX(us, 1), __ATOMIC_RELAXED);
}

#define STATUS(status) status,
const uint16_t peer_codes[PEER_CODES] = { PEER_STATUSES(STATUS) };

static void count_status(struct peer_stats *stats, unsigned status)
{
#define PLACE(status) [status] = PEER_STATUS_##status + 1,
    static const uint8_t places[600] = { PEER_STATUSES(PLACE) };
    uint64_t *count = likely(places[status] != 0) ? &stats->codes[places[status] - 1]
                                                  : &stats->responses[status / 100 - 1];

    __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
}

void exchange_count(struct exchange *x, unsigned status)
{
    struct peer_stats *stats = x->choice.peer != NULL ? x->choice.peer->stats : NULL;
    const struct upstream_record *rec;

    if (likely(stats == NULL) || x->record == 0)
        return;
    rec = exchange_record(x);
    __atomic_add_fetch(&stats->sent, rec->bytes_sent, __ATOMIC_RELAXED);
    __atomic_add_fetch(&stats->received, rec->bytes_received, __ATOMIC_RELAXED);
    if (status < 100 || status > 599)
        return;
    count_status(stats, status);
    average(&stats->header_us, rec->header_us);
    average(&stats->response_us, (int64_t) (clock_us() - x->started_us));
}

void exchange_record_begin(struct exchange *x, struct str peer)
{
    struct upstream_records *all = &x->req->upstream;
    struct upstream_record *rec;

    if (likely(all->items == NULL)) {
        /* Most requests ask one server: here it lies with what is touched at the same time. */
        all->items = &x->first_record;
        all->capacity = 1;
    } else {
        all->items = arena_grow(x->req->arena, all->items, all->count, &all->capacity,
                                sizeof(*all->items));
    }
    rec = &all->items[all->count];
    *rec = (struct upstream_record){ .peer = peer, .connect_us = -1, .header_us = -1,
                                     .response_us = -1,
                                     .queue_us = x->group->queue != NULL ? x->queue_us : -1,
                                     .new_exchange = x->record == 0 };
    if (x->choice.peer != NULL) {
        rec->server = x->choice.peer->server;
        if (unlikely(x->choice.peer->stats != NULL))
            count_request(x, rec);
    }
    x->record = ++all->count;
    x->started_us = clock_us();
}

void exchange_record_end(struct exchange *x)
{
    struct upstream_record *rec;

    if (x->record == 0)
        return;
    rec = exchange_record(x);
    if (rec->response_us < 0)
        rec->response_us = (int64_t) (clock_us() - x->started_us);
    rec->response_length = x->received;
}
