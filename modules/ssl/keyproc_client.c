/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The worker's end of the socket to the key process. A handshake that needs a key sends its request and pauses; the answer, found by
 * its id, lets it go on. When the process has been replaced, all that is not answered is sent again, so that its death
 * costs time and no handshake, as long as its successor comes before the time is over.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/event/loop.h"
#include "core/event/timer.h"
#include "core/os/process.h"
#include "modules/ssl/fibre.h"
#include "modules/ssl/keyproc.h"

#define TIMEOUT_MS 10000
#define ANSWERS_MAX 64 /* in one turn of the loop */

/* A request under way, on the stack of the handshake that waits for it. */
struct call {
    const struct keyproc_request *rq;
    struct str name;
    const unsigned char *payload;
    unsigned char *out;
    size_t room, len;
    struct conn *conn;
    struct timer timer;
    const char *failure;
    bool unsent, done;
};

static struct {
    struct watch watch;
    struct call *calls[FIBRES_MAX]; /* by the id's low bits */
    uint64_t number;                /* of the next request */
    unsigned count;
    bool active, gone, writing;
} self = { .watch = { .fd = -1 } };

static void end(struct call *call, const char *failure)
{
    call->failure = failure;
    call->done = true;
    conn_tls_go_on(call->conn);
}

static void timed_out(struct timer *timer)
{
    end(container_of(timer, struct call, timer), "did not answer in time");
}

static void end_all(const char *failure)
{
    for (unsigned i = 0; i < FIBRES_MAX; i++) {
        if (self.calls[i] != NULL && !self.calls[i]->done)
            end(self.calls[i], failure);
    }
}

static void process_gone(void)
{
    if (!self.gone)
        loop_unwatch(&self.watch);
    self.gone = true;
    end_all("has gone");
}

/* Sending ------------------------------------------------------------------------------------ */

/* False: the socket takes no more now. */
static bool send_call(struct call *call)
{
    struct iovec iov[] = {
        { (void *) (uintptr_t) call->rq, sizeof(*call->rq) },
        { (void *) (uintptr_t) call->name.ptr, call->name.len },
        { (void *) (uintptr_t) call->payload, call->rq->len },
    };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = ARRAY_LEN(iov) };

    call->unsent = false;
    if (sendmsg(self.watch.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return true;
    if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) {
        call->unsent = true;
        return false;
    }
    call->failure = "cannot be reached";
    call->done = true;
    return true;
}

static void want_write(bool on)
{
    if (self.writing == on || self.gone)
        return;
    self.writing = on;
    loop_rewatch(&self.watch, on ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void send_unsent(void)
{
    for (unsigned i = 0; i < FIBRES_MAX; i++) {
        struct call *call = self.calls[i];

        if (call == NULL || !call->unsent || call->done)
            continue;
        if (!send_call(call)) {
            want_write(true);
            return;
        }
        if (call->done)
            conn_tls_go_on(call->conn);
    }
    want_write(false);
}

/* Answers ------------------------------------------------------------------------------------ */

static const char *failure_of(uint32_t status)
{
    switch (status) {
    case KEYPROC_OK: return NULL;
    case KEYPROC_REFUSED: return "refused it";
    case KEYPROC_NO_KEY: return "does not have the key";
    default: return "failed";
    }
}

static void got_answer(const struct keyproc_answer *answer, const unsigned char *result)
{
    struct call *call = self.calls[answer->id % FIBRES_MAX];

    /* Of a request that has been given up, or was sent twice. */
    if (call == NULL || call->done || call->rq->id != answer->id)
        return;
    if (answer->status == KEYPROC_OK && answer->len <= call->room) {
        memcpy(call->out, result, answer->len);
        call->len = answer->len;
        end(call, NULL);
    } else {
        end(call, answer->status == KEYPROC_OK ? "sent too much" : failure_of(answer->status));
    }
}

static void restarted(void)
{
    for (unsigned i = 0; i < FIBRES_MAX; i++) {
        if (self.calls[i] != NULL)
            self.calls[i]->unsent = true;
    }
    send_unsent();
}

static void ready(struct watch *watch, uint32_t events)
{
    union {
        struct keyproc_answer answer;
        unsigned char bytes[sizeof(struct keyproc_answer) + KEYPROC_RESULT_MAX];
    } in;

    for (unsigned i = 0; i < ANSWERS_MAX; i++) {
        ssize_t n = recv(watch->fd, &in, sizeof(in), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            process_gone();
            return;
        }
        if ((size_t) n < sizeof(in.answer) || (size_t) n != sizeof(in.answer) + in.answer.len)
            continue;
        if (in.answer.status == KEYPROC_RESTARTED)
            restarted();
        else
            got_answer(&in.answer, in.bytes + sizeof(in.answer));
    }
    if (events & EPOLLOUT)
        send_unsent();
}

/* Calls -------------------------------------------------------------------------------------- */

/* There are never more calls than fibres. */
static unsigned place(struct call *call)
{
    for (unsigned i = 0; i < FIBRES_MAX; i++) {
        unsigned at = (unsigned) ((self.number + i) % FIBRES_MAX);

        if (self.calls[at] != NULL)
            continue;
        self.calls[at] = call;
        self.number += i;
        self.count++;
        return at;
    }
    ASSERT(!"more calls than fibres");
    return 0;
}

static void wait_for(struct call *call, struct keyproc_request *rq, struct fibre *fibre)
{
    unsigned at = place(call);

    rq->id = self.number++;
    if (self.writing)
        call->unsent = true; /* behind those that wait already */
    else if (!send_call(call))
        want_write(true);
    timer_set(&call->timer, TIMEOUT_MS);
    while (!call->done && !fibre_is_cancelled(fibre))
        fibre_pause();
    timer_drop(&call->timer);
    self.calls[at] = NULL;
    self.count--;
}

static void complain(const struct call *call)
{
    static const char *const to[] = {
        [KEYPROC_SIGN] = "sign",
        [KEYPROC_DECRYPT] = "decrypt",
    };

    log_error(&call->conn->log, 0, "the key process %s, while it was to %s with key %u",
              call->failure, to[call->rq->op], call->rq->key);
}

int keyproc_call(struct keyproc_request *rq, struct str name, const unsigned char *payload,
                 unsigned char *out, size_t *len)
{
    struct fibre *fibre = fibre_current();
    struct call call = { .rq = rq, .name = name, .payload = payload, .out = out, .room = *len };

    call.timer = (struct timer){ .deadline_ms = TIMER_OFF, .fire = timed_out };
    if (fibre == NULL) {
        log_alert(log_main, 0, "a private key was asked for outside of a handshake");
        return -1;
    }
    if (fibre_is_cancelled(fibre))
        return -1;
    call.conn = fibre_arg(fibre);
    if (self.gone || !self.active)
        call.failure = "has gone";
    else
        wait_for(&call, rq, fibre);
    if (call.failure == NULL && !call.done)
        return -1; /* nobody waits for it any more */
    if (call.failure != NULL) {
        if (rq->op != KEYPROC_FIND)
            complain(&call);
        return -1;
    }
    *len = call.len;
    return 0;
}

bool keyproc_find(EVP_PKEY *public_half, uint32_t number, struct str path)
{
    struct keyproc_request rq = { .key = number, .op = KEYPROC_FIND };
    char name[KEYPROC_NAME_MAX];
    unsigned char none;
    size_t len = 0;

    if (fibre_current() == NULL)
        return true;
    if (path.len > sizeof(name) - KEYPROC_PRINT_LEN ||
        keyproc_print(public_half, (unsigned char *) name) != 0)
        return false;
    memcpy(name + KEYPROC_PRINT_LEN, path.ptr, path.len);
    rq.name_len = (uint32_t) (KEYPROC_PRINT_LEN + path.len);
    return keyproc_call(&rq, str_from(name, rq.name_len), NULL, &none, &len) == 0;
}

/* Begin and end ------------------------------------------------------------------------------ */

void keyproc_client_init(int fd)
{
    self.watch = (struct watch){ fd, ready };
    self.active = true;
}

int keyproc_client_start(void)
{
    if (!self.active)
        return 0;
    /* Answers to a number that nobody has sent are dropped: let no other know ours. */
    random_bytes(&self.number, sizeof(self.number));
    self.number >>= 1;
    if (loop_watch(&self.watch, EPOLLIN) == 0)
        return 0;
    log_emerg(log_main, errno, "epoll_ctl() for the key process failed");
    return -1;
}

void keyproc_client_stop(void)
{
    if (!self.active)
        return;
    if (!self.gone)
        loop_unwatch(&self.watch);
    self.gone = true;
    close(self.watch.fd);
    self.watch.fd = -1;
    self.active = false;
    fibre_trim();
}

bool keyproc_client_active(void)
{
    return self.active;
}
