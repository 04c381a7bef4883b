/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The resolver against name servers of our own, in a child process on loopback: server 0 answers
 * by name (below), server 1 hears and says nothing, server 2 refuses all. What each was asked is
 * counted in shared memory.
 */
#include "core/event/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/event/loop.h"
#include "core/event/timer.h"
#include "modules/resolver/dns.h"
#include "modules/resolver/internal.h"
#include "t/unit/tap.h"

enum { ANSWERS, SILENT, REFUSES, SERVERS };

struct counts {
    unsigned asked[SERVERS];
    unsigned tcp;
};
static struct counts *counts;
static struct addr server_addr[SERVERS];

/* A message being written. */
struct out {
    unsigned char buf[8192];
    size_t len;
    unsigned answers;
};

static void put16(struct out *o, unsigned n)
{
    o->buf[o->len++] = (unsigned char) (n >> 8);
    o->buf[o->len++] = (unsigned char) n;
}

static void put_name(struct out *o, const char *name)
{
    while (*name) {
        size_t n = strcspn(name, ".");

        o->buf[o->len++] = (unsigned char) n;
        memcpy(o->buf + o->len, name, n);
        o->len += n;
        name += n + (name[n] == '.');
    }
    o->buf[o->len++] = 0;
}

static void put_record(struct out *o, unsigned type, unsigned ttl, const void *data, size_t len)
{
    put16(o, 0xc00c); /* the question's name */
    put16(o, type);
    put16(o, 1);
    put16(o, ttl >> 16);
    put16(o, ttl & 0xffff);
    put16(o, (unsigned) len);
    memcpy(o->buf + o->len, data, len);
    o->len += len;
    o->answers++;
}

static void put_a(struct out *o, unsigned ttl, unsigned last)
{
    unsigned char a[4] = { 192, 0, 2, (unsigned char) last };

    put_record(o, DNS_A, ttl, a, 4);
}

static void put_srv(struct out *o, unsigned priority, unsigned weight, unsigned port,
                    const char *target)
{
    struct out data = { .len = 0 };

    put16(&data, priority);
    put16(&data, weight);
    put16(&data, port);
    put_name(&data, target);
    put_record(o, DNS_SRV, 40, data.buf, data.len);
}

static bool starts(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

/* The answers by name. Returns the rcode, or -1 for none at all. *flags: 0x0200 is truncated. */
static int answer(struct out *o, const char *name, unsigned type, bool tcp, unsigned *flags)
{
    static const unsigned char v6[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };

    if (strcasecmp(name, "a.test") == 0 && type == DNS_A)
        put_a(o, 60, 1);
    if (starts(name, "dual.") && type == DNS_A)
        put_a(o, 60, 2), put_a(o, 50, 3);
    if (starts(name, "dual.") && type == DNS_AAAA)
        put_record(o, DNS_AAAA, 70, v6, 16);
    if (starts(name, "cname.") && type == DNS_A) {
        struct out alias = { .len = 0 };

        put_name(&alias, "other.test");
        put_record(o, 5, 7, alias.buf, alias.len);
        put_a(o, 300, 4);
    }
    if (starts(name, "zero."))
        put_a(o, 0, 5);
    if (starts(name, "n") && type == DNS_A) /* n0.test … */
        put_a(o, 600, 6);
    if (starts(name, "big.") && type == DNS_A) {
        if (!tcp)
            *flags |= 0x0200;
        else
            for (unsigned i = 0; i < 200; i++)
                put_a(o, 60, i);
    }
    if (starts(name, "bad."))
        put_record(o, DNS_A, 60, "xyz", 3);
    if (starts(name, "cut.")) {
        put_a(o, 60, 1);
        o->len -= 2;
    }
    if (starts(name, "half.")) {
        if (type == DNS_AAAA)
            return -1;
        put_a(o, 60, 7);
    }
    if (starts(name, "_http._tcp.svc.")) {
        put_srv(o, 1, 10, 8081, "t1.svc.test");
        put_srv(o, 2, 20, 8082, "t2.svc.test");
        put_srv(o, 3, 30, 8083, "gone.svc.test");
    }
    if (starts(name, "_none._tcp."))
        put_srv(o, 0, 0, 0, "");
    if (starts(name, "t1.svc.") && type == DNS_A)
        put_a(o, 30, 11);
    if (starts(name, "t2.svc.") && type == DNS_A)
        put_a(o, 90, 12), put_a(o, 90, 13);
    if (starts(name, "silent."))
        return -1;
    if (starts(name, "nx.") || starts(name, "gone."))
        return 3;
    return starts(name, "fail.") ? 2 : 0;
}

/* Turns a question into its reply. The length, or 0 for none. */
static size_t reply(const unsigned char *q, size_t len, struct out *o, unsigned which, bool tcp)
{
    char name[256] = "";
    size_t at = 12, n = 0;
    unsigned flags = 0x8180;
    int rcode;

    while (at < len && q[at]) {
        memcpy(name + n, q + at + 1, q[at]);
        n += q[at];
        at += q[at] + 1u;
        name[n++] = '.';
    }
    name[n ? n - 1 : 0] = '\0';
    at += 5;
    o->len = at;
    o->answers = 0;
    memcpy(o->buf, q, at);
    counts->asked[which]++;
    counts->tcp += tcp;
    if (which == SILENT)
        return 0;
    rcode = 5;
    if (which == ANSWERS)
        rcode = answer(o, name, (unsigned) q[at - 4] << 8 | q[at - 3], tcp, &flags);
    if (rcode < 0)
        return 0;
    flags |= (unsigned) rcode;
    o->buf[2] = (unsigned char) (flags >> 8);
    o->buf[3] = (unsigned char) flags;
    memset(o->buf + 6, 0, 6);
    o->buf[6] = (unsigned char) (o->answers >> 8);
    o->buf[7] = (unsigned char) o->answers;
    return o->len;
}

static void serve_tcp(int listener)
{
    unsigned char q[512];
    struct out o = { .len = 0 };
    int fd = accept(listener, NULL, NULL);
    ssize_t n = recv(fd, q, 2, MSG_WAITALL);

    if (n == 2)
        n = recv(fd, q, (size_t) q[0] << 8 | q[1], MSG_WAITALL);
    if (n > 16) {
        size_t len = reply(q, (size_t) n, &o, ANSWERS, true);
        unsigned char head[2] = { (unsigned char) (len >> 8), (unsigned char) len };

        if (send(fd, head, 2, MSG_NOSIGNAL) != 2 ||
            send(fd, o.buf, len, MSG_NOSIGNAL) != (ssize_t) len)
            _exit(1);
    }
    close(fd);
}

static void NORETURN serve(const int udp[SERVERS], int listener)
{
    struct pollfd p[SERVERS + 1];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i <= SERVERS; i++)
        p[i] = (struct pollfd){ .fd = i < SERVERS ? udp[i] : listener, .events = POLLIN };
    for (;;) {
        poll(p, SERVERS + 1, -1);
        for (unsigned i = 0; i < SERVERS; i++) {
            unsigned char q[512];
            struct sockaddr_in from;
            socklen_t len = sizeof(from);
            struct out o;
            ssize_t n;
            size_t size;

            if (!(p[i].revents & POLLIN))
                continue;
            n = recvfrom(udp[i], q, sizeof(q), 0, (struct sockaddr *) &from, &len);
            size = n > 16 ? reply(q, (size_t) n, &o, i, false) : 0;
            if (size)
                sendto(udp[i], o.buf, size, 0, (struct sockaddr *) &from, len);
        }
        if (p[SERVERS].revents & POLLIN)
            serve_tcp(listener);
    }
}

/* A socket for datagrams, and one for connections on the same port: what is free for one may be
 * taken for the other. */
static int bind_pair(struct sockaddr_in *a, int *listener)
{
    for (;;) {
        socklen_t len = sizeof(*a);
        int udp = socket(AF_INET, SOCK_DGRAM, 0);

        *listener = socket(AF_INET, SOCK_STREAM, 0);
        a->sin_port = 0;
        ASSERT(bind(udp, (struct sockaddr *) a, len) == 0);
        getsockname(udp, (struct sockaddr *) a, &len);
        if (bind(*listener, (struct sockaddr *) a, len) == 0 && listen(*listener, 4) == 0)
            return udp;
        ASSERT(errno == EADDRINUSE);
        close(udp);
        close(*listener);
    }
}

static pid_t servers_start(void)
{
    int udp[SERVERS], listener = -1;
    pid_t pid;

    counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < SERVERS; i++) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int unused;

        udp[i] = bind_pair(&a, i == ANSWERS ? &listener : &unused);
        if (i != ANSWERS)
            close(unused);
        server_addr[i] = (struct addr){ .len = sizeof(a) };
        server_addr[i].in = a;
    }
    pid = fork();
    if (pid == 0)
        serve(udp, listener);
    for (unsigned i = 0; i < SERVERS; i++)
        close(udp[i]);
    close(listener);
    return pid;
}

/* A question of the tests, and a copy of its result. */
struct asked {
    struct resolve_query q;
    unsigned done;
    enum resolve_status status;
    struct resolve_addr addrs[RESOLVER_ADDRS_MAX];
    unsigned count;
    uint32_t ttl_s;
    struct resolve_query *cancels;
    struct resolver *frees;
};

static bool inside;
static bool called_inside;

static void on_done(struct resolve_query *q)
{
    struct asked *a = container_of(q, struct asked, q);

    called_inside |= inside;
    a->done++;
    a->status = q->status;
    a->count = q->addr_count;
    a->ttl_s = q->ttl_s;
    for (unsigned i = 0; i < q->addr_count; i++)
        a->addrs[i] = q->addrs[i];
    if (a->cancels)
        resolve_cancel(a->cancels);
    if (a->frees)
        resolver_free(a->frees);
}

static void start(struct resolver *r, struct asked *a, const char *name, uint64_t timeout_ms)
{
    memset(a, 0, sizeof(*a));
    a->q.name = str_cstr(name);
    a->q.timeout_ms = timeout_ms;
    a->q.done = on_done;
    inside = true;
    resolve_start(r, &a->q);
    inside = false;
}

static void ask(struct resolver *r, struct asked *a, const char *name)
{
    start(r, a, name, 20000);
    while (!a->done)
        loop_turn(100);
}

/* Whether an address ending so is in the answer. */
static const struct resolve_addr *has(const struct asked *a, unsigned last)
{
    for (unsigned i = 0; i < a->count; i++)
        if (a->addrs[i].addr.sa.sa_family == AF_INET &&
            (ntohl(a->addrs[i].addr.in.sin_addr.s_addr) & 0xff) == last)
            return &a->addrs[i];
    return NULL;
}

static struct resolver_spec spec_of(unsigned first, unsigned n, bool ipv4, bool ipv6)
{
    return (struct resolver_spec){ .servers = server_addr + first, .server_count = n,
                                   .ipv4 = ipv4, .ipv6 = ipv6 };
}

static void test_answers(void)
{
    struct resolver_spec spec = spec_of(ANSWERS, 1, true, true);
    struct resolver *r = resolver_new(&spec, log_main);
    struct asked a, b;
    unsigned asked;

    ask(r, &a, "a.test");
    ok(a.status == RESOLVE_OK && a.count == 1 && has(&a, 1), "an A record");
    ok(a.ttl_s == 60 && addr_port(&a.addrs[0].addr) == 0, "its TTL, no port");
    asked = counts->asked[ANSWERS];
    memset(&b, 0, sizeof(b));
    b.q.name = STR("A.Test.");
    ok(resolve_cached(r, &b.q) && b.q.addr_count == 1, "is cached, in whatever case");
    ask(r, &b, "a.test");
    ok(b.done == 1 && b.count == 1, "also through resolve_start");
    is_uint(counts->asked[ANSWERS], asked, "without a question");
    ask(r, &a, "dual.test");
    ok(a.count == 3 && has(&a, 2) && has(&a, 3) && a.ttl_s == 50, "both families, the least TTL");
    ask(r, &a, "cname.test");
    ok(a.count == 1 && has(&a, 4) && a.ttl_s == 7, "an alias limits the TTL");
    ask(r, &a, "nx.test");
    ok(a.status == RESOLVE_NOT_FOUND && a.count == 0, "NXDOMAIN");
    b.q.name = STR("nx.test");
    ok(!resolve_cached(r, &b.q), "is not remembered");
    ask(r, &a, "empty.test");
    is_int(a.status, RESOLVE_NOT_FOUND, "no address");
    ask(r, &a, "zero.test");
    b.q.name = STR("zero.test");
    ok(a.status == RESOLVE_OK && !resolve_cached(r, &b.q), "TTL 0 is used and not remembered");
    ask(r, &a, "fail.test");
    is_int(a.status, RESOLVE_FAILED, "SERVFAIL");
    ask(r, &a, "bad.test");
    is_int(a.status, RESOLVE_FAILED, "a malformed record");
    ask(r, &a, "cut.test");
    is_int(a.status, RESOLVE_FAILED, "a message that ends too soon");
    ask(r, &a, "big.test");
    is_int(a.status, RESOLVE_OK, "a truncated answer");
    ok(counts->tcp > 0 && a.count == RESOLVER_ADDRS_MAX, "comes over TCP, bounded: %u", a.count);
    ask(r, &a, "");
    is_int(a.status, RESOLVE_NOT_FOUND, "no name");
    ask(r, &a, "a..test");
    is_int(a.status, RESOLVE_NOT_FOUND, "a name that cannot be");
    resolver_free(r);
    loop_turn(0);
}

static void test_joining(void)
{
    struct resolver_spec spec = spec_of(ANSWERS, 1, true, false);
    struct resolver *r = resolver_new(&spec, log_main);
    struct asked a, b, c;
    unsigned asked = counts->asked[ANSWERS];

    start(r, &a, "a.test", 20000);
    start(r, &b, "A.TEST", 20000);
    start(r, &c, "a.test", 20000);
    a.cancels = &b.q;
    while (!c.done)
        loop_turn(100);
    is_uint(counts->asked[ANSWERS] - asked, 1, "equal questions are asked once, for one family");
    ok(a.done == 1 && b.done == 0 && c.done == 1,
       "a wait cancelled from another's done is not told");
    resolve_cancel(&c.q);
    start(r, &a, "n1.test", 20000);
    resolve_cancel(&a.q);
    start(r, &b, "n1.test", 20000);
    while (!b.done)
        loop_turn(100);
    ok(a.done == 0 && b.status == RESOLVE_OK, "cancelled and asked again");
    resolver_free(r);
    loop_turn(0);
}

static void test_valid_and_eviction(void)
{
    struct resolver_spec spec = spec_of(ANSWERS, 1, true, false);
    struct resolver *r;
    struct asked a, b = { .done = 0 };
    char name[32];

    spec.valid_ms = 1;
    r = resolver_new(&spec, log_main);
    ask(r, &a, "a.test");
    for (uint64_t t = clock_ms(); clock_ms() < t + 3;)
        loop_turn(1);
    b.q.name = STR("a.test");
    ok(!resolve_cached(r, &b.q), "valid= overrides the TTL");
    resolver_free(r);
    spec.valid_ms = 0;
    r = resolver_new(&spec, log_main);
    ask(r, &a, "n0.test");
    ask(r, &a, "n1.test");
    for (unsigned i = 2; i <= RESOLVER_CACHE_MAX; i++) {
        b.q.name = STR("n0.test");
        resolve_cached(r, &b.q); /* keeps it recent */
        snprintf(name, sizeof(name), "n%u.test", i);
        ask(r, &a, name);
    }
    ok(resolve_cached(r, &b.q), "the cache keeps what is used");
    b.q.name = STR("n1.test");
    ok(!resolve_cached(r, &b.q), "and lets go of what is not");
    b.q.name = STR("n2.test");
    ok(resolve_cached(r, &b.q), "one at a time");
    resolver_free(r);
    loop_turn(0);
}

static void test_timeouts(void)
{
    struct resolver_spec spec = spec_of(ANSWERS, 1, true, true);
    struct resolver *r = resolver_new(&spec, log_main);
    struct asked a, b;

    start(r, &a, "silent.test", 30);
    start(r, &b, "half.test", 30);
    while (!a.done || !b.done)
        loop_turn(100);
    is_int(a.status, RESOLVE_TIMEOUT, "no answer within the time");
    ok(b.status == RESOLVE_OK && b.count == 1 && has(&b, 7),
       "half an answer is better than none when time is up");
    ask(r, &b, "half.test");
    ok(b.status == RESOLVE_OK && has(&b, 7), "the missing half is given up after a try");
    memset(&a, 0, sizeof(a));
    a.q.name = STR("half.test");
    ok(resolve_cached(r, &a.q), "and what there is remembered");
    start(r, &a, "silent.test", 20000);
    loop_turn(1);
    resolver_free(r);
    loop_turn(0);
    ok(!a.done && a.q.impl == NULL, "freeing the resolver ends questions without a word");
}

static void test_servers(void)
{
    struct resolver_spec spec;
    struct resolver *r;
    struct asked a;
    struct addr mixed[3] = { server_addr[REFUSES], server_addr[SILENT], server_addr[ANSWERS] };
    unsigned asked;

    spec = spec_of(REFUSES, 1, true, false);
    r = resolver_new(&spec, log_main);
    ask(r, &a, "a.test");
    is_int(a.status, RESOLVE_FAILED, "refused by the only server");
    resolver_free(r);
    spec = spec_of(0, 3, true, false);
    spec.servers = mixed;
    r = resolver_new(&spec, log_main);
    ask(r, &a, "a.test");
    ok(a.status == RESOLVE_OK && has(&a, 1),
       "one that refuses and one that is silent are passed over");
    asked = counts->asked[SILENT] + counts->asked[REFUSES];
    for (unsigned i = 0; i < 6; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%u.test", i);
        ask(r, &a, name);
    }
    is_uint(counts->asked[SILENT] + counts->asked[REFUSES], asked, "and left alone for a while");
    resolver_free(r);
    addr_set_port(&mixed[0], 1); /* nobody listens there */
    spec.server_count = 1;
    r = resolver_new(&spec, log_main);
    ask(r, &a, "a.test");
    is_int(a.status, RESOLVE_FAILED, "no server at all is an error at once");
    resolver_free(r);
    loop_turn(0);
}

static void test_srv(void)
{
    struct resolver_spec spec = spec_of(ANSWERS, 1, true, true);
    struct resolver *r = resolver_new(&spec, log_main);
    struct asked a = { .q = { .name = STR("svc.test"), .service = STR("_http._tcp"),
                              .timeout_ms = 20000, .done = on_done } };
    const struct resolve_addr *t1, *t2;

    resolve_start(r, &a.q);
    while (!a.done)
        loop_turn(100);
    t1 = has(&a, 11);
    t2 = has(&a, 13);
    ok(a.status == RESOLVE_OK && a.count == 3 && t1 && t2, "SRV: addresses of all targets found");
    ok(t1 && addr_port(&t1->addr) == 8081 && t1->priority == 1 && t1->weight == 10, "the first's");
    ok(t2 && addr_port(&t2->addr) == 8082 && t2->priority == 2 && t2->weight == 20, "the second's");
    ok(t1 && t1->ttl_s == 30 && t2->ttl_s == 40 && a.ttl_s == 30,
       "the lesser TTL of the two records");
    ok(resolve_cached(r, &a.q) && a.q.addr_count == 3, "cached as a whole");
    a.q.service = STR_NULL;
    ok(!resolve_cached(r, &a.q), "and apart from the plain name");
    a = (struct asked){ .q = { .name = STR("svc.test"), .service = STR("_none._tcp"),
                               .timeout_ms = 20000, .done = on_done } };
    resolve_start(r, &a.q);
    while (!a.done)
        loop_turn(100);
    is_int(a.status, RESOLVE_NOT_FOUND, "a target of \".\" is no service");
    a = (struct asked){ .q = { .name = STR("svc.test"), .service = STR("_http._tcp"),
                               .timeout_ms = 20000, .done = on_done } };
    a.frees = r;
    resolve_start(r, &a.q);
    while (!a.done)
        loop_turn(100);
    is_uint(a.done, 1, "a resolver may be freed from done");
    loop_turn(0);
}

static void nothing(void *arg UNUSED, const struct dns_record *record UNUSED)
{
}

/* Every message cut at every length, and with every byte changed: no reading beyond its end. */
static void test_hostile_messages(void)
{
    static const unsigned char head[] = { 0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0,
                                          0, 0, 1, 'x', 0, 0, 33, 0, 1 };
    struct out o = { .len = sizeof(head) };
    int whole;

    memcpy(o.buf, head, sizeof(head));
    put_srv(&o, 1, 2, 3, "some.target.test");
    put_srv(&o, 1, 2, 3, "b");
    o.buf[7] = 2;
    whole = dns_answers(o.buf, o.len, DNS_SRV, nothing, NULL);
    is_int(whole, 2, "two records");
    for (size_t len = 0; len < o.len; len++) {
        unsigned char *exact = mem_alloc(len + 1);

        memcpy(exact + 1, o.buf, len);
        whole += dns_answers(exact + 1, len, DNS_SRV, nothing, NULL) >= 0;
        free(exact);
    }
    is_int(whole, 2, "cut anywhere it is malformed");
    for (size_t i = 0; i < o.len; i++) {
        for (unsigned v = 0; v < 256; v++) {
            unsigned char *exact = mem_alloc(o.len);

            memcpy(exact, o.buf, o.len);
            exact[i] = (unsigned char) v;
            dns_answers(exact, o.len, DNS_SRV, nothing, NULL);
            dns_answers(exact, o.len, DNS_A, nothing, NULL);
            free(exact);
        }
    }
    ok(true, "changed anywhere it is harmless");
}

int main(void)
{
    pid_t pid = servers_start();

    loop_init(64);
    test_answers();
    test_joining();
    test_valid_and_eviction();
    test_timeouts();
    test_servers();
    test_srv();
    test_hostile_messages();
    ok(!called_inside, "done was never called from inside resolve_start");
    ok(timer_next_ms() == UINT64_MAX, "no timer is left behind");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    loop_free();
    return done_testing();
}
