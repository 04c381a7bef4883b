/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests choose what nginx's manual says: a second set of numbers, kept here in plain loops that know nothing of orders, states and
 * sums, goes through the same as a group does: attempts that end well and badly in any order, several workers whose clocks differ,
 * servers that come, change and go meanwhile. Unlike passes_test this one shares no code with what it tests.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/clock.h"

/* The clock of the worker whose turn it is. */
static uint64_t fake_ms;
static uint64_t fake_clock_ms(void)
{
    return fake_ms;
}
#define clock_ms fake_clock_ms
#include "modules/upstream/balance.c"
#undef clock_ms
#include "t/unit/tap.h"

#define SERVERS_MAX 1000
#define FLIGHT_MAX 40
#define WORKERS 3

static struct arena *arena;
static struct req *req;

/* Chance ---------------------------------------------------------------------------------------- */

static uint64_t seed = 1;

static unsigned below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned) ((seed >> 33) % n);
}

static bool one_in(unsigned n)
{
    return below(n) == 0;
}

/* The rule ---------------------------------------------------------------------------------------- */

enum rule_method { SMOOTH, LEAST, FASTEST, METHODS };

struct rule_server {
    bool there, down, backup, drain, sick;
    int64_t weight, effective, current;
    int64_t conns, max_conns;
    int64_t fails, max_fails, fail_timeout, accessed, checked;
    float time_ms;
};

static struct rule {
    struct rule_server servers[SERVERS_MAX];
    unsigned count;
    enum rule_method method;
    int64_t now; /* time does not go back, whichever worker tells it */
} rule;

/* The only server is asked whatever it did. */
static bool rule_alone(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < rule.count; i++)
        n += rule.servers[i].there;
    return n == 1;
}

static bool rule_free(const struct rule_server *s, bool alone)
{
    if (!s->there || s->down || s->drain || s->sick)
        return false;
    if (s->max_conns > 0 && s->conns >= s->max_conns)
        return false;
    return alone || s->max_fails == 0 || s->fails < s->max_fails ||
           rule.now - s->checked > s->fail_timeout;
}

/* Whether a's load is less than b's (-1), the same (0) or more. */
static int rule_compare(const struct rule_server *a, const struct rule_server *b)
{
    double x = 0, y = 0;

    if (rule.method == LEAST) {
        int64_t left = a->conns * b->weight, right = b->conns * a->weight;

        return left < right ? -1 : left > right;
    }
    if (rule.method == FASTEST) {
        x = (double) a->time_ms * (double) (a->conns + 1) / (double) a->weight;
        y = (double) b->time_ms * (double) (b->conns + 1) / (double) b->weight;
    }
    return x < y ? -1 : x > y;
}

/* Of the primary servers or of the backups. */
static unsigned rule_among(bool backup, const bool *tried)
{
    static bool in[SERVERS_MAX];
    const struct rule_server *least = NULL;
    unsigned best = PEERS_NONE, many = 0;
    bool alone = rule_alone();
    int64_t total = 0;

    for (unsigned i = 0; i < rule.count; i++) {
        const struct rule_server *s = &rule.servers[i];

        in[i] = rule_free(s, alone) && s->backup == backup && !tried[i];
        if (in[i] && (least == NULL || rule_compare(s, least) < 0))
            least = s;
    }
    for (unsigned i = 0; i < rule.count; i++) {
        in[i] = in[i] && rule_compare(&rule.servers[i], least) == 0;
        many += in[i];
        if (in[i])
            best = i;
    }
    if (many == 0 || (many == 1 && rule.method != SMOOTH))
        return best;
    best = PEERS_NONE;
    for (unsigned i = 0; i < rule.count; i++) {
        struct rule_server *s = &rule.servers[i];

        if (!in[i])
            continue;
        s->current += s->effective;
        total += s->effective;
        if (s->effective < s->weight)
            s->effective++;
        if (best == PEERS_NONE || s->current > rule.servers[best].current)
            best = i;
    }
    rule.servers[best].current -= total;
    return best;
}

static unsigned rule_choose(const bool *tried)
{
    unsigned i = rule_among(false, tried);
    struct rule_server *s;

    if (i == PEERS_NONE)
        i = rule_among(true, tried);
    if (i == PEERS_NONE)
        return i;
    s = &rule.servers[i];
    s->conns++;
    if (rule.now - s->checked > s->fail_timeout)
        s->checked = rule.now;
    return i;
}

static void rule_end(unsigned i, enum peer_outcome outcome, float time_ms)
{
    struct rule_server *s = &rule.servers[i];

    s->conns--;
    if (outcome == PEER_STALE)
        return;
    if (time_ms >= 0)
        s->time_ms = s->time_ms > 0 ? s->time_ms + (time_ms - s->time_ms) * 0.125f : time_ms;
    if (rule_alone() || !s->there)
        return;
    if (outcome == PEER_FAILED) {
        s->fails++;
        s->accessed = s->checked = rule.now;
        if (s->max_fails > 0)
            s->effective = MAX(0, s->effective - s->weight / s->max_fails);
    } else if (s->accessed < s->checked) {
        s->fails = 0;
    }
}

static unsigned rule_tries(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < rule.count; i++)
        n += rule.servers[i].there && !rule.servers[i].down;
    return n;
}

/* Changes ------------------------------------------------------------------------------------------- */

/* What the servers of a round are like. */
struct kind {
    unsigned servers;
    int32_t weight_max; /* 0: all weigh 5 */
    unsigned trouble;   /* one attempt in so many fails; 0: none */
    unsigned changes;   /* one step in so many changes a server; 0: none */
    bool clocks;        /* of the workers, that differ */
};

static const struct kind *kind;
static struct upstream workers[WORKERS];
static uint64_t now_ms;

/* All mappings are of the same memory. */
static struct peer_view *view(void)
{
    return &workers[0].view;
}

static int32_t some_weight(void)
{
    return kind->weight_max == 0 ? 5 : 1 + (int32_t) below((unsigned) kind->weight_max);
}

static struct peer_record some_record(void)
{
    return (struct peer_record){ .max_fails = below(4),
                                 .fail_timeout_s = below(5),
                                 .max_conns = one_in(4) ? 1 + below(3) : 0 };
}

/* What `server` says of both. */
static uint32_t told(unsigned i, int32_t weight, uint32_t state, const struct peer_record *rec)
{
    struct rule_server *s = &rule.servers[i];

    s->down = (state & PEER_DOWN) != 0;
    s->backup = (state & PEER_BACKUP) != 0;
    s->drain = (state & PEER_DRAIN) != 0;
    s->weight = s->effective = weight;
    s->max_fails = rec->max_fails;
    s->fail_timeout = (int64_t) rec->fail_timeout_s;
    s->max_conns = rec->max_conns;
    return state;
}

static uint32_t some_state(void)
{
    return (one_in(6) ? PEER_BACKUP : 0) | (one_in(12) ? PEER_DOWN : 0) |
           (one_in(12) ? PEER_DRAIN : 0);
}

static void changed(void)
{
    peers_recount(view());
    for (unsigned i = 0; i < rule.count && rule_alone(); i++)
        rule.servers[i].fails = 0;
}

static void come(unsigned i)
{
    struct peer_record rec = some_record();
    int32_t weight = some_weight();

    rule.servers[i] = (struct rule_server){ .there = true };
    peers_place(view(), i, weight, told(i, weight, some_state(), &rec), &rec);
    changed();
}

static void leave(unsigned i)
{
    peers_leave(view(), i);
    rule.servers[i] = (struct rule_server){ .conns = rule.servers[i].conns, .weight = 1 };
    changed();
}

/* Nobody goes out by it: no fewer failures are allowed, and nobody is out for longer. */
static void change(unsigned i)
{
    struct peer_record rec = some_record();
    int32_t weight = some_weight();

    rec.max_fails = one_in(3) ? 0 : MAX(rec.max_fails, rule.servers[i].max_fails);
    if (rule.servers[i].max_fails == 0)
        rec.max_fails = 0;
    rec.fail_timeout_s = MIN(rec.fail_timeout_s, (uint64_t) rule.servers[i].fail_timeout);
    peers_change(view(), i, weight, told(i, weight, some_state(), &rec), &rec);
    changed();
}

static void check(unsigned i)
{
    rule.servers[i].sick = one_in(2);
    peers_checked(view(), i, rule.servers[i].sick ? PEER_SICK : 0, (uint64_t) rule.now);
}

static void some_change(void)
{
    unsigned i = below(rule.count);
    const struct rule_server *s = &rule.servers[i];

    if (!s->there && s->conns == 0)
        come(i);
    else if (s->there && one_in(3))
        leave(i);
    else if (s->there && one_in(2))
        check(i);
    else if (s->there)
        change(i);
}

/* Requests -------------------------------------------------------------------------------------------- */

struct request {
    struct choice choice;
    unsigned at; /* its server, or PEERS_NONE */
    bool tried[SERVERS_MAX];
};

static struct request flight[FLIGHT_MAX];
static unsigned wrong, chosen, by_order;

/* Some worker's turn. */
static struct upstream *turn(void)
{
    struct upstream *g = &workers[below(WORKERS)];

    fake_ms = now_ms - (kind->clocks ? below(2500) : 0);
    return g;
}

static void differ(const char *what, unsigned got, unsigned expected)
{
    if (wrong++ == 0)
        diag("%u servers, weights to %d, method %u: %s %u, expected %u", rule.count,
             kind->weight_max, rule.method, what, got, expected);
}

/* The next attempt. False: there is none. */
static bool attempt(struct request *q)
{
    unsigned got, expected;

    rule.now = MAX(rule.now, (int64_t) fake_ms / 1000);
    got = choice_next(&q->choice) == 0 ? q->choice.peer->index : PEERS_NONE;
    expected = rule_choose(q->tried);
    q->at = got;
    if (got != expected) {
        differ("chosen is", got, expected);
        return false;
    }
    if (got == PEERS_NONE)
        return false;
    chosen++;
    by_order += view()->set->kept != PEERS_KEEP_NOTHING;
    q->tried[got] = true;
    return true;
}

static void end(struct request *q, enum peer_outcome outcome)
{
    float ms =
        rule.method == FASTEST && !one_in(3) ? (float) below(6) * (one_in(2) ? 0.37f : 10) : -1;
    unsigned i = q->at;

    if (outcome == PEER_FAILED)
        rule.now = MAX(rule.now, (int64_t) fake_ms / 1000);
    if (outcome == PEER_STALE)
        q->tried[i] = false;
    choice_end(&q->choice, outcome, ms);
    rule_end(i, outcome, ms);
    q->at = PEERS_NONE;
}

static void begin(struct request *q)
{
    memset(q->tried, 0, sizeof(q->tried));
    choice_start(&q->choice, turn(), req);
    if (q->choice.tries != rule_tries())
        differ("tries are", q->choice.tries, rule_tries());
    if (attempt(q) && one_in(2))
        end(q, PEER_OK);
}

static void go_on(struct request *q)
{
    enum peer_outcome outcome = PEER_OK;

    q->choice.group = turn();
    if (kind->trouble > 0 && one_in(kind->trouble))
        outcome = PEER_FAILED;
    else if (one_in(10))
        outcome = one_in(2) ? PEER_NEXT : PEER_STALE;
    end(q, outcome);
    if (outcome != PEER_OK && q->choice.tries > 0)
        (void) attempt(q);
}

static void step(void)
{
    struct request *q = &flight[below(FLIGHT_MAX)];

    if (one_in(20))
        now_ms += below(one_in(20) ? 60000 : 1500);
    if (kind->changes > 0 && one_in(kind->changes))
        some_change();
    /* An order is kept again sooner than after so many passes. */
    if (one_in(3))
        view()->set->passes = 1000;
    if (q->at == PEERS_NONE)
        begin(q);
    else
        go_on(q);
}

/* Rounds ---------------------------------------------------------------------------------------------- */

static const struct balancer *const methods[] = { &balancer_round_robin, &balancer_least_conn,
                                                  &balancer_least_time };

/* One memory, at another address in each worker. */
static void make_workers(unsigned count, int fd)
{
    struct addr addr;
    struct addr *addrs = ARENA_ARRAY(arena, struct addr, count);
    struct upstream *g;

    (void) addr_parse(&addr, STR("127.0.0.1:80"), 0, false);
    for (unsigned i = 0; i < count; i++)
        addrs[i] = addr;
    g = upstream_temporary(arena, STR("group"), addrs, count);
    g->balancer = methods[rule.method];
    for (unsigned w = 0; w < WORKERS; w++) {
        void *p = mmap(NULL, peers_size(count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        ASSERT(p != MAP_FAILED);
        workers[w] = *g;
        workers[w].live = &workers[w].generation;
        if (w == 0)
            peers_init(&workers[w].view, p, count, false);
        else
            peers_map(&workers[w].view, p);
    }
}

/* Whether all numbers agree in the end. */
static void compare(void)
{
    struct peer_view *v = view();

    peers_settle(v);
    for (unsigned i = 0; i < rule.count; i++) {
        const struct rule_server *s = &rule.servers[i];

        if (v->current[i] != s->current || v->effective[i] != MAX(s->effective, !s->there) ||
            v->conns[i] != s->conns)
            differ("the numbers are wrong of", i, i);
    }
}

static void play(enum rule_method method, const struct kind *k, unsigned steps)
{
    int fd = memfd_create("peers", MFD_CLOEXEC);

    arena = arena_new();
    req->arena = arena;
    kind = k;
    memset(&rule, 0, sizeof(rule));
    rule.count = k->servers;
    rule.method = method;
    now_ms = 5000000;
    ASSERT(fd >= 0 && ftruncate(fd, (off_t) peers_size(k->servers)) == 0);
    make_workers(k->servers, fd);
    for (unsigned i = 0; i < k->servers; i++)
        come(i);
    for (unsigned i = 0; i < FLIGHT_MAX; i++)
        flight[i].at = PEERS_NONE;
    for (unsigned n = 0, before = wrong; n < steps && wrong == before; n++)
        step();
    compare();
    for (unsigned w = 0; w < WORKERS; w++)
        munmap(workers[w].view.set, peers_size(k->servers));
    close(fd);
    arena_destroy(arena);
}

static void test_rule(void)
{
    static const char *const names[] = { "round robin", "least_conn", "least_time" };
    static const unsigned counts[] = { 1, 2, 3, 5, 16, 17, 40, 250, SERVERS_MAX };
    static const int32_t weights[] = { 0, 1, 3, 12, 1000 };
    static const unsigned troubles[] = { 0, 100, 8, 2 }, changes[] = { 0, 200, 10 };

    for (unsigned method = 0; method < METHODS; method++) {
        wrong = chosen = by_order = 0;
        for (unsigned n = 0; n < ARRAY_LEN(counts) * 5 * 4 * 3 * 2; n++) {
            struct kind k = { .servers = counts[n % 9],
                              .weight_max = weights[n / 9 % 5],
                              .trouble = troubles[n / 45 % 4],
                              .changes = changes[n / 180 % 3],
                              .clocks = n / 540 != 0 };

            play((enum rule_method) method, &k, k.servers >= 250 ? 300 : 1500);
        }
        is_uint(wrong, 0, "%s: what the rule says", names[method]);
        ok(chosen > 200000 && by_order > chosen / 20, "%u choices, %u of them by a kept order",
           chosen, by_order);
    }
}

int main(void)
{
    static struct log_scope quiet;
    struct req room = { .method = 0 };

    clock_update();
    req = &room;
    req->log.scope = &quiet;
    test_rule();
    arena_trim();
    return done_testing();
}
