/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker is killed at any instruction of what it does to a group's numbers, an order of the servers that is being made or kept
 * included. When these are made anew (as recover_groups does), everything is whole, and choices are those of a plain loop.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/base.h"
#include "modules/upstream/peers.h"
#include "t/unit/tap.h"

#define SERVERS 40
#define SCALED(weight) ((weight) *PEERS_SCALE)

static uint64_t seed = 1;

static unsigned below(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned) ((seed >> 33) % n);
}

static struct peer_view v;
static uint64_t now_s = 1000;
static int32_t weights[SERVERS]; /* as they were told */

static struct peer_record some_record(void)
{
    return (struct peer_record){ .max_fails = below(3),
                                 .fail_timeout_s = 1,
                                 .slow_start_s = 1 + below(5) };
}

static void make(void)
{
    void *p = mmap(NULL, peers_size(SERVERS) + SERVERS * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    ASSERT(p != MAP_FAILED);
    peers_init(&v, p, SERVERS, true);
    v.held = (uint32_t *) (void *) ((char *) p + peers_size(SERVERS));
    for (unsigned i = 0; i < SERVERS; i++) {
        struct peer_record rec = some_record();

        weights[i] = 1 + (int32_t) below(3);
        peers_place(&v, i, weights[i], below(10) == 0 ? PEER_BACKUP : 0, &rec);
    }
    peers_recount(&v);
}

/* Anything that may happen to them. */
static void something(void)
{
    unsigned i = below(SERVERS), what = below(9);

    if (v.held[i] == 0 && what < 2)
        what = 8;
    switch (what) {
    case 0: peers_give_back(&v, i); break;
    case 1: peers_failed(&v, i, now_s); break;
    case 2: peers_fine(&v, i, now_s); break;
    case 3: peers_checked(&v, i, below(2) ? PEER_SICK : 0, now_s); break;
    case 4: peers_look(&v, now_s); break;
    case 5: peers_timed(&v, i, 3); break;
    case 6: v.set->passes = 1000; break;
    case 7: (void) (below(2) ? peers_fastest(&v, 0) : peers_smooth(&v, 0)); break;
    default:
        i = peers_least(&v, 0);
        if (i != PEERS_NONE)
            peers_take(&v, i, now_s);
    }
}

/* A child does something, and dies after so many instructions. False: that cannot be had here. */
static bool die(unsigned instructions)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        raise(SIGSTOP);
        something();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return false;
    for (unsigned n = 0; n < instructions && WIFSTOPPED(status); n++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid)
            break;
    }
    if (WIFSTOPPED(status)) {
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, &status, 0);
    }
    return true;
}

/* What recover_groups and shared_changed do. */
static void recover(void)
{
    v.set->kept = PEERS_KEEP_NOTHING;
    peers_reset(&v);
    peers_recount(&v);
    for (unsigned i = 0; i < SERVERS; i++)
        peers_count(&v, i, v.held[i]);
}

static const char *check_server(unsigned i)
{
    const struct peer_record *rec = &v.records[i];
    int32_t full = SCALED(weights[i]);

    if (v.conns[i] != v.held[i])
        return "connections are counted wrongly";
    if (v.effective[i] != v.weight[i] || v.weight[i] < 1 || v.weight[i] > full)
        return "a weight is wrong";
    if (rec->slow_from_s == 0 ? v.weight[i] != full : rec->slow_weight != full)
        return "a weight has been lost";
    return NULL;
}

/* Smooth round robin, plainly. */
static unsigned plain_choice(int64_t *current)
{
    unsigned best = PEERS_NONE;
    int64_t total = 0;

    for (unsigned i = 0; i < SERVERS; i++) {
        if (v.state[i] != 0)
            continue;
        current[i] += v.weight[i];
        total += v.weight[i];
        if (best == PEERS_NONE || current[i] > current[best])
            best = i;
    }
    if (best != PEERS_NONE)
        current[best] -= total;
    return best;
}

static const char *check(void)
{
    int64_t current[SERVERS] = { 0 };
    const char *error = NULL;

    for (unsigned i = 0; i < SERVERS && error == NULL; i++)
        error = check_server(i);
    for (unsigned n = 0; n < 50 && error == NULL; n++) {
        v.set->passes = 1000;
        if (peers_smooth(&v, 0) != plain_choice(current))
            error = "another one was chosen";
    }
    return error;
}

int main(void)
{
    unsigned wrong = 0, cut = 0;

    make();
    for (unsigned n = 0; n < 800; n++) {
        const char *error;

        for (unsigned k = below(30); k > 0; k--)
            something();
        now_s += below(2);
        /* The signal that stops it, and then what there is to do. */
        if (!die(below(4) ? below(400) : below(3000)))
            break;
        cut++;
        seed += cut;
        recover();
        error = check();
        if (error != NULL && wrong++ < 5)
            diag("death %u: %s", n, error);
    }
    if (cut == 0)
        diag("nobody can be traced here");
    is_uint(wrong, 0, "after %u deaths all is whole", cut);
    return done_testing();
}
