/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subrequests: their output stands where it was placed, in whatever order it comes; who waits for whom;
 * limits; what a request's end does to them; who hears when output has drained.
 */
#include "t/unit/core/http/fake_req.h"

#include "core/base/clock.h"
#include "core/event/loop.h"
#include "core/http/answer.h"
#include "t/unit/tap.h"

static char out[4096];
static size_t out_len;
static uint64_t unsent;
static unsigned flushes;
static bool ended, finished, was_reset;

static enum verdict main_head(struct req *r)
{
    (void) r;
    return V_NEXT;
}

static enum verdict main_body(struct req *r, struct chain *chain, unsigned flags)
{
    struct str s = chain_flatten(chain, r->arena);

    ok(!ended, "nothing comes behind the end");
    memcpy(out + out_len, s.ptr, s.len);
    out_len += s.len;
    out[out_len] = '\0';
    chain_clear(chain);
    flushes += (flags & BODY_FLUSH) != 0;
    if (flags & BODY_END) {
        ended = true;
        r->ended = true;
        req_done(r);
    }
    return V_NEXT;
}

static uint64_t main_buffered(const struct req *r)
{
    (void) r;
    return unsent;
}

static void main_finished(struct req *r)
{
    (void) r;
    finished = true;
}

static void main_reset(struct req *r)
{
    (void) r;
    was_reset = true;
}

static const struct answer_ops main_ops = {
    .head = main_head,
    .body = main_body,
    .buffered = main_buffered,
    .finished = main_finished,
    .reset = main_reset,
};

/* Waits to be told what to answer. */
static enum verdict hold(struct req *r)
{
    (void) r;
    return V_WAIT;
}

static void begin(void)
{
    static const char conf[] = "subrequests_limit 70; server { listen 80; location / { }"
                               "subrequest_output_buffer_size 8; }";

    ASSERT(loop_init(16) == 0);
    out_len = 0;
    out[0] = '\0';
    unsent = flushes = 0;
    ended = finished = was_reset = false;
    fake_start(conf, "/main", "");
    fake->ops = &main_ops;
    ((struct location *) fake->loc)->handler = hold;
    fake->out.status = 200;
    ok(answer_head(fake) == V_NEXT, "the main request's head");
}

static void finish(void)
{
    /* Its memory goes with it, in the turn that follows. */
    if (!finished && !was_reset)
        req_abort(fake, 0);
    loop_turn(0);
    config_free(fake_config);
    loop_free();
}

static void turn(void)
{
    loop_turn(0);
}

static unsigned done_count;
static struct req *done_last;

static void done(struct req *child, void *data)
{
    ok(data == &done_count, "done is handed its data");
    done_count++;
    done_last = child;
}

static struct req *make(struct req *parent, unsigned flags)
{
    return req_subrequest(parent, STR("/child"), STR_NULL, flags, done, &done_count);
}

/* Whether it has been started: hold() is what it came to. */
static bool started(const struct req *r)
{
    return r->step > 1;
}

/* Text from r, a LINK to a child behind it, the end. */
static void say(struct req *r, const char *text, struct req *link, unsigned flags)
{
    struct chain c = CHAIN_INIT;

    if (r != fake && !r->answer_started) {
        r->out.status = 200;
        answer_head(r);
        req_deliver(r, V_ANSWER);
    }
    chain_push_str(&c, str_cstr(text));
    if (link != NULL)
        chain_push_link(&c, &link->sub_out);
    answer_body(r, &c, flags);
    chain_clear(&c);
}

static void test_order(void)
{
    struct req *a, *b;

    begin();
    a = make(fake, 0);
    b = make(fake, 0);
    say(fake, "<", a, 0);
    say(fake, "|", b, 0);
    say(fake, ">", NULL, BODY_END);
    turn();
    is_str(out, "<", "the first child is waited for");
    say(b, "bb", NULL, BODY_END);
    is_str(out, "<", "the second one's output waits");
    say(a, "a1", NULL, 0);
    is_str(out, "<a1", "the first one's goes out as it comes");
    done_count = 0;
    say(a, "a2", NULL, BODY_END);
    is_str(out, "<a1a2|bb>", "and then everything behind it");
    is_uint(done_count, 1, "done once");
    ok(ended && finished, "the end, once the children are over");
    finish();
}

static void test_nested(void)
{
    struct req *a, *inner;

    begin();
    a = make(fake, 0);
    say(fake, "<", a, 0);
    say(fake, ">", NULL, BODY_END);
    turn();
    inner = make(a, 0);
    say(a, "(", inner, 0);
    done_count = 0;
    say(a, ")", NULL, BODY_END);
    is_uint(done_count, 0, "a child that has written all waits for its own child");
    is_str(out, "<(", "as its output does");
    turn();
    say(inner, "i", NULL, BODY_END);
    is_str(out, "<(i)>", "in order");
    is_uint(done_count, 2, "both are done");
    ok(done_last == a, "the inner one first");
    ok(finished, "and the request");
    finish();
}

static void test_link_in_ended_child(void)
{
    struct req *a, *b, *inner;

    begin();
    a = make(fake, 0);
    b = make(fake, 0);
    say(fake, "<", a, 0);
    say(fake, "|", b, BODY_END);
    turn();
    inner = make(b, 0);
    say(b, "(", inner, BODY_END);
    turn();
    say(inner, "i", NULL, BODY_END);
    is_str(out, "<", "what is complete behind waits too");
    say(a, "a", NULL, BODY_END);
    is_str(out, "<a|(i", "nothing is lost");
    ok(finished, "the end");
    finish();
}

static void test_memory(void)
{
    struct req *a, *inner;

    begin();
    a = make(fake, SUB_IN_MEMORY);
    turn();
    inner = make(a, 0);
    say(a, "(", inner, 0);
    say(a, ")", NULL, BODY_END);
    turn();
    done_count = 0;
    say(inner, "123", NULL, BODY_END);
    is_uint(done_count, 2, "done with its own child");
    ok(str_eq(chain_flatten(&a->sub_out, fake->arena), STR("(123)")) && !a->aborted,
       "whose output is in it");
    is_str(out, "", "nothing of it goes to the client");
    chain_clear(&a->sub_out);

    a = make(fake, SUB_IN_MEMORY);
    turn();
    done_count = 0;
    {
        struct chain c = CHAIN_INIT;

        a->out.status = 200;
        answer_head(a);
        req_deliver(a, V_ANSWER);
        chain_push_str(&c, STR("123456789"));
        ok(answer_body(a, &c, 0) == V_ABORT, "more than subrequest_output_buffer_size is refused");
        req_deliver(a, V_ABORT);
    }
    is_uint(done_count, 1, "the parent is told");
    ok(a->aborted && !fake->finished, "that it failed, and goes on");
    finish();
}

static void test_limits(void)
{
    struct req *r, *last = NULL;
    unsigned depth = 0, count = 0;

    begin();
    for (r = fake; (r = make(r, 0)) != NULL; depth++) {
        last = r;
        r->log.scope = toy_log.scope;
    }
    is_uint(depth, 51, "as deep as nginx");
    ok(strstr(toy_logged, "subrequests cycle while processing \"/child\"") != NULL, "and it is said");
    ok(last != NULL, "the deepest one");
    while (make(fake, 0) != NULL)
        count++;
    is_uint(depth + count, 70, "subrequests_limit counts all");
    ok(strstr(toy_logged, "more than 70 subrequests (subrequests_limit)") != NULL, "and is named");
    ok(make(fake, SUB_CLONE) != NULL, "clones are not counted");
    finish();
}

/* What a child in the background includes is seen by nobody either, and breaks nothing. */
static void test_dropped(void)
{
    struct req *background, *a, *b;

    begin();
    background = make(fake, SUB_BACKGROUND);
    a = make(background, 0);
    b = make(background, 0);
    turn();
    say(background, "x", a, 0);
    say(background, "x", b, BODY_END);
    say(a, "output", NULL, 0);
    is_uint(answer_buffered(a), 0, "nothing waits");
    is_uint(a->sub_out.bytes, 0, "nothing is kept");
    req_abort(a, 0);
    ok(!fake->finished && !background->finished, "a broken one ends");
    say(b, "y", NULL, BODY_END);
    ok(background->finished && !fake->finished, "and then all of it");
    say(fake, ".", NULL, BODY_END);
    is_str(out, ".", "the answer knows nothing of it");
    finish();
}

/* 64 are at work at a time, and of each parent one. */
static void test_turns(void)
{
    struct req *child[67], *inner[2], *memory;
    unsigned i;

    begin();
    for (i = 0; i < ARRAY_LEN(child); i++)
        child[i] = make(fake, 0);
    turn();
    ok(started(child[63]), "64 are at work");
    ok(!started(child[64]) && !started(child[66]), "those behind them wait");
    memory = make(fake, SUB_IN_MEMORY);
    inner[0] = make(child[63], 0);
    inner[1] = make(child[63], 0);
    turn();
    ok(started(memory), "what has no output in the answer never waits");
    ok(started(inner[0]) && !started(inner[1]), "one of each parent gets on");
    say(inner[0], "", NULL, BODY_END);
    turn();
    ok(started(inner[1]), "and the next, when it is over");
    ok(!started(child[64]), "for others it is not yet time");
    say(child[0], "", NULL, BODY_END);
    say(inner[1], "", NULL, BODY_END);
    turn();
    ok(started(child[64]) && !started(child[65]), "then it is");
    req_abort(fake, 0);
    turn();
    ok(was_reset, "an abort ends those that wait, too");
    finish();
}

static void test_abort(void)
{
    struct req *a, *background;

    begin();
    a = make(fake, 0);
    background = make(fake, SUB_BACKGROUND);
    say(fake, "<", a, 0);
    turn();
    done_count = 0;
    req_abort(a, 0);
    ok(was_reset && fake->finished, "a child that breaks breaks the answer");
    ok(background->finished, "and ends even those with a life of their own");
    is_uint(done_count, 0, "nobody is told, for nobody is left");
    finish();

    begin();
    a = make(fake, SUB_HEAD_ONLY);
    turn();
    done_count = 0;
    req_abort(a, 502);
    is_uint(done_count, 1, "one of which only the head is wanted just ends");
    is_uint(a->out.status, 502, "with that status");
    ok(!fake->finished, "the request goes on");
    finish();
}

static void test_background(void)
{
    struct req *a, *background;

    begin();
    a = make(fake, 0);
    say(fake, "", a, 0);
    turn();
    background = make(a, SUB_BACKGROUND);
    say(a, "a", NULL, BODY_END);
    say(fake, "b", NULL, BODY_END);
    is_str(out, "ab", "the answer is out");
    ok(ended && !finished, "but the request is not over before its background child is");
    turn();
    say(background, "never seen", NULL, BODY_END);
    ok(finished, "it is now");
    is_str(out, "ab", "what it answered is dropped");
    finish();
}

static unsigned drained;
static struct req *drained_last;

static void on_drain(struct req *r)
{
    drained++;
    drained_last = r;
}

static void test_drain(void)
{
    struct req *a, *b;

    begin();
    a = make(fake, 0);
    b = make(fake, 0);
    say(fake, "<", a, 0);
    say(fake, "|", b, 0);
    turn();
    a->on_drain = b->on_drain = on_drain;
    unsent = 100;
    say(a, "a", NULL, 0);
    ok(answer_full(a, 100), "the child in front sees what the connection holds");
    ok(!answer_full(b, 1), "the one behind does not");
    say(b, "bb", NULL, 0);
    ok(answer_full(b, 2), "but what waits of its own");
    drained = 0;
    answer_drained(fake);
    ok(drained == 1 && drained_last == a, "output has drained: the one in front goes on");
    drained = 0;
    say(a, "a", NULL, BODY_END);
    turn();
    ok(drained == 1 && drained_last == b, "at its end the next one is in front, and hears of it");
    is_str(out, "<aa|bb", "its output is out");
    flushes = 0;
    say(b, "b", NULL, BODY_FLUSH);
    is_uint(flushes, 1, "a child's flush is one");
    finish();
}

int main(void)
{
    static const char *const files[] = { "t.conf", NULL };

    toy_start();
    clock_update();
    test_order();
    test_nested();
    test_link_in_ended_child();
    test_memory();
    test_limits();
    test_turns();
    test_dropped();
    test_abort();
    test_background();
    test_drain();
    toy_end(files);
    block_trim();
    return done_testing();
}
