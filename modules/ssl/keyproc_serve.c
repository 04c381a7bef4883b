/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The key process. It begins as a fork of the master with all the master's rights, from which it inherits the list of keys; reads them,
 * says what is wrong with them as the master would have, gives up its rights, and serves each worker with a thread.
 * A worker may be anybody's: whatever it sends is checked, answered or refused, and touches no other worker.
 *
 * The process ends when the master has let go of it (by its own end as well) and no worker is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/os/log_writers.h"
#include "core/os/process.h"
#include "modules/ssl/keyproc.h"
#include "modules/ssl/pairs.h"
#include "modules/ssl/provided.h"

#define STACK_SIZE (512 * 1024)
#define DESCRIPTORS_MAX 4096
#define COMPLAINT_MS 1000
#define UNREAD_MAX 4096 /* requests in a socket */

static struct {
    const struct keyproc_start *start;
    const struct keyproc_conf *conf;
    pthread_mutex_t lock; /* of what follows, and of the log */
    unsigned workers;
    bool orphan; /* the master has let go */
    uint64_t complained_ms, missed_ms;
} self = { .lock = PTHREAD_MUTEX_INITIALIZER };

void keyproc_log_begin(void)
{
    pthread_mutex_lock(&self.lock);
    clock_update();
}

void keyproc_log_end(void)
{
    pthread_mutex_unlock(&self.lock);
}

/* Requests ----------------------------------------------------------------------------------- */

/* Nobody fills the log from outside. */
static void refuse(const char *why)
{
    keyproc_log_begin();
    if (self.complained_ms == 0 || clock_ms() - self.complained_ms >= COMPLAINT_MS) {
        self.complained_ms = clock_ms();
        log_alert(log_main, 0, "the key process refused a worker's request: %s", why);
    }
    keyproc_log_end();
}

/* Why a key that variables name is not there: nobody fills the log with that either. */
static void complain(const struct keyproc_key *key, struct str name, const char *why)
{
    struct str path = str_skip(name, MIN(name.len, (size_t) KEYPROC_PRINT_LEN));

    keyproc_log_begin();
    if (self.missed_ms == 0 || clock_ms() - self.missed_ms >= COMPLAINT_MS) {
        self.missed_ms = clock_ms();
        log_error(log_main, 0, "cannot load certificate key \"%.*s\": %s%s in %s:%u",
                  (int) MIN(path.len, (size_t) 1024), path.ptr, why, ssl_errors(), key->pos.file,
                  key->pos.line);
    }
    keyproc_log_end();
}

static unsigned use(const struct keyproc_secret *s, const unsigned char *data, size_t size,
                    const struct keyproc_request *rq, unsigned char *out, size_t *len)
{
    const char *why = keyproc_check(data, size, s->kind, s->uses);

    if (why != NULL) {
        refuse(why);
        return KEYPROC_REFUSED;
    }
    if (rq->op == KEYPROC_FIND)
        return KEYPROC_OK;
    return keyproc_secret_use(s, rq, data + sizeof(*rq) + rq->name_len, out, len) == 0
               ? KEYPROC_OK
               : KEYPROC_FAILED;
}

static unsigned use_named(struct ssl_cache **cache, const struct keyproc_key *key,
                          const unsigned char *data, size_t size, const struct keyproc_request *rq,
                          unsigned char *out, size_t *len)
{
    struct str name = str_from((const char *) data + sizeof(*rq), rq->name_len);
    struct keyproc_secret s;
    const char *why;
    unsigned status;

    if (!keyproc_named_allows(key, name)) {
        refuse("the key's name is not one of the configuration's");
        return KEYPROC_REFUSED;
    }
    why = keyproc_named_get(cache, key, name, &s);
    if (why != NULL) {
        complain(key, name, why);
        return KEYPROC_NO_KEY;
    }
    status = use(&s, data, size, rq, out, len);
    keyproc_named_put(&s);
    return status;
}

/* What a worker has sent. The status; with KEYPROC_OK *len bytes are in out. */
static unsigned answer(struct ssl_cache **cache, const unsigned char *data, size_t size,
                       struct keyproc_request *rq, unsigned char *out, size_t *len)
{
    const struct keyproc_secret *s;
    const struct keyproc_key *key;
    unsigned status;

    *len = 0;
    memset(rq, 0, sizeof(*rq));
    if (keyproc_parse(rq, data, size) != 0) {
        refuse("sizes do not match");
        return KEYPROC_REFUSED;
    }
    if (rq->key >= keyproc_store_count()) {
        refuse("there is no such key");
        return KEYPROC_REFUSED;
    }
    key = keyproc_store_key(rq->key);
    if (key->bounds != NULL)
        return use_named(cache, key, data, size, rq, out, len);
    if (rq->name_len > 0) {
        refuse("the key has no name");
        return KEYPROC_REFUSED;
    }
    s = keyproc_store_get(rq->key, rq->generation);
    if (s == NULL)
        return KEYPROC_NO_KEY;
    status = use(s, data, size, rq, out, len);
    keyproc_store_put(s);
    return status;
}

/* Workers ------------------------------------------------------------------------------------ */

static int send_answer(int fd, uint64_t id, unsigned status, const unsigned char *out, size_t len)
{
    struct keyproc_answer head = { .id = id, .status = status, .len = (uint32_t) len };
    struct iovec iov[] = { { &head, sizeof(head) }, { (void *) (uintptr_t) out, len } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = ARRAY_LEN(iov) };
    ssize_t n;

    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

static void serve(int fd)
{
    const size_t room = sizeof(struct keyproc_request) + KEYPROC_NAME_MAX + KEYPROC_PAYLOAD_MAX;
    struct ssl_cache *cache = NULL; /* a worker who wants all keys at once is a burden to itself */
    unsigned char *data = mem_alloc(room), out[KEYPROC_RESULT_MAX];
    struct keyproc_request rq;

    for (;;) {
        ssize_t n = recv(fd, data, room, MSG_TRUNC);
        unsigned status;
        size_t len;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        status = answer(&cache, data, (size_t) n <= room ? (size_t) n : 0, &rq, out, &len);
        if (send_answer(fd, rq.id, status, out, len) != 0)
            break;
    }
    OPENSSL_cleanse(out, sizeof(out));
    ssl_cache_free(cache);
    free(data);
}

static void leave_if_alone(void)
{
    if (self.orphan && self.workers == 0)
        _exit(0);
}

struct worker {
    int fd;
    bool inherited; /* from a key process that has died */
};

/*
 * Requests that the last process has not read are sent again, as those that it has. There are not more of them than a socket holds,
 * unless the worker goes on sending: that is not to be told from its new requests, then, and these are answered.
 */
static void take_over(int fd)
{
    char byte;

    for (unsigned i = 0; i < UNREAD_MAX && recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) > 0; i++) {
    }
    send_answer(fd, 0, KEYPROC_RESTARTED, NULL, 0);
}

/* All that may wait for the worker, which may have stopped reading, is done here. */
static void *worker_thread(void *arg)
{
    struct worker worker = *(struct worker *) arg;

    free(arg);
    if (worker.inherited)
        take_over(worker.fd);
    serve(worker.fd);
    close(worker.fd);
    OPENSSL_thread_stop();
    ssl_memory_trim();
    pthread_mutex_lock(&self.lock);
    self.workers--;
    leave_if_alone();
    pthread_mutex_unlock(&self.lock);
    return NULL;
}

static void worker_add(int fd, bool inherited)
{
    struct worker *worker = mem_alloc(sizeof(*worker));
    pthread_attr_t attr;
    pthread_t thread;
    int err;

    *worker = (struct worker){ fd, inherited };
    pthread_mutex_lock(&self.lock);
    self.workers++;
    pthread_mutex_unlock(&self.lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    err = pthread_create(&thread, &attr, worker_thread, worker);
    pthread_attr_destroy(&attr);
    if (err == 0)
        return;
    /* Another process, which the master will start, may have more luck. */
    log_emerg(log_main, err, "pthread_create() failed in the key process");
    _exit(2);
}

/* The log has been opened anew, by who may do that: the n-th target's file. */
static void reopened(unsigned n, int fd)
{
    const struct log_target *t = self.start->config->log.targets;

    while (t != NULL && n-- > 0)
        t = t->next;
    if (t != NULL && t->file->fd >= 0)
        dup3(fd, t->file->fd, O_CLOEXEC);
    close(fd);
}

/* The key of a file that has been replaced, and what is said of it. */
static void offered(int control, const struct keyproc_order *order, const unsigned char *bytes,
                    int fd)
{
    struct keyproc_report report;

    keyproc_store_offer(order, bytes, fd, &report);
    close(fd);
    send(control, &report, sizeof(report), MSG_NOSIGNAL);
}

/* What the master has sent, in len bytes; fd -1: no descriptor was with it. */
static void obey(int control, const struct keyproc_order *order, const unsigned char *bytes,
                 size_t len, int fd)
{
    bool known = order->number < keyproc_store_count() && len == order->len;

    if (order->what == KEYPROC_COMMIT && known)
        keyproc_store_commit(order);
    else if (order->what == KEYPROC_WORKER && fd >= 0)
        worker_add(fd, false);
    else if (order->what == KEYPROC_LOG && fd >= 0)
        reopened(order->number, fd);
    else if (order->what == KEYPROC_OFFER && known && fd >= 0)
        offered(control, order, bytes, fd);
    else if (fd >= 0)
        close(fd);
}

/* The next order. False: the master has let go. */
static bool take_order(int control)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } space;
    static unsigned char bytes[KEYPROC_PUBLIC_MAX];
    struct keyproc_order order;
    struct iovec iov[] = { { &order, sizeof(order) }, { bytes, sizeof(bytes) } };
    struct msghdr msg = { .msg_iov = iov,
                          .msg_iovlen = ARRAY_LEN(iov),
                          .msg_control = &space,
                          .msg_controllen = sizeof(space) };
    ssize_t n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c;
    int fd = -1;

    if (n <= 0)
        return n < 0 && errno == EINTR;
    c = CMSG_FIRSTHDR(&msg);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    if ((size_t) n >= sizeof(order))
        obey(control, &order, bytes, (size_t) n - sizeof(order), fd);
    return true;
}

/* The sockets of new workers come from the master, its logs, and files in which keys have been replaced. */
static void listen_to_master(int control)
{
    struct pollfd p = { .fd = control, .events = POLLIN };
    struct keyproc_report report;

    for (uint32_t number = 0; keyproc_store_lacks(&number, &report);)
        send(control, &report, sizeof(report), MSG_NOSIGNAL);
    for (;;) {
        int n = poll(&p, 1, keyproc_store_retire());

        if (n > 0 && !take_order(control))
            return;
    }
}

/* The process -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    return *(const int *) a - *(const int *) b;
}

static unsigned add_targets(int *fds, unsigned n, const struct log_scope *scope)
{
    for (const struct log_target *t = scope->targets; t != NULL && n < DESCRIPTORS_MAX - 8;
         t = t->next) {
        if (t->file->fd >= 0)
            fds[n++] = t->file->fd;
    }
    return n;
}

/* No writer may go on with the number of a descriptor that is closed now and will be a worker's socket soon. */
static void disconnect_targets(const struct log_scope *scope)
{
    for (const struct log_target *t = scope->targets; t != NULL; t = t->next)
        log_file_disconnect(t->file);
}

/*
 * Whoever holds the master's end of a socket keeps its other end from seeing the master die. While keys are read errors still go to
 * where the master's do.
 */
static int close_others(void)
{
    static int fds[DESCRIPTORS_MAX];
    unsigned n = 0;

    if (self.start->count > DESCRIPTORS_MAX / 2)
        return -1;
    for (int fd = 0; fd <= 2; fd++)
        fds[n++] = fd;
    fds[n++] = self.start->control;
    for (unsigned i = 0; i < self.start->count; i++)
        fds[n++] = self.start->workers[i];
    n = add_targets(fds, n, log_main->scope);
    n = add_targets(fds, n, &self.start->config->log);
    disconnect_targets(log_main->scope);
    disconnect_targets(&self.start->config->log);
    qsort(fds, n, sizeof(fds[0]), compare);
    return process_keep_descriptors(fds, n);
}

static bool has_target(const struct log_scope *scope, int fd)
{
    for (const struct log_target *t = scope->targets; t != NULL; t = t->next) {
        if (t->file->fd == fd)
            return true;
    }
    return false;
}

/* And no more than these: what providers have opened to reach their keys they need. */
static void close_targets(const struct log_scope *scope)
{
    for (const struct log_target *t = scope->targets; t != NULL; t = t->next) {
        if (t->file->fd > 2 && !has_target(&self.start->config->log, t->file->fd))
            close(t->file->fd);
    }
}

static void set_signals(void)
{
    static const int ignored[] = { SIGTERM, SIGINT,  SIGQUIT,  SIGHUP,
                                   SIGUSR1, SIGUSR2, SIGWINCH, SIGPIPE };
    sigset_t none;

    /* They are the master's: the process ends when it is not needed any more. */
    for (unsigned i = 0; i < ARRAY_LEN(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What is allocated from here on stays out of the swap space, where the system lets us. */
static void stay_in_memory(void)
{
    struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

    if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0)
        mlockall(MCL_FUTURE | MCL_ONFAULT);
}

static void settle(void)
{
    int null;

    log_set_stderr(false, LOG_WARN_LEVEL);
    if (log_main->scope != &self.start->config->log)
        close_targets(log_main->scope);
    log_main->scope = &self.start->config->log;
    for (const struct log_target *t = log_main->scope->targets; t != NULL; t = t->next) {
        if (t->file->is_stderr)
            return; /* ours as well */
    }
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd <= 2; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

static int become(void)
{
    bool root = geteuid() == 0;

    return process_drop_hidden(log_main, self.conf->user, root ? self.conf->uid : geteuid(),
                               root ? self.conf->gid : getegid());
}

void keyproc_serve(const struct keyproc_start *start)
{
    unsigned failures;

    self.start = start;
    self.conf = keyproc_conf_of(start->config);
    process_title("proxyd: key process");
    set_signals();
    if (close_others() != 0) {
        log_emerg(log_main, errno, "the key process cannot close what is not its own");
        _exit(2);
    }
    if (process_hide(log_main) != 0)
        _exit(2);
    stay_in_memory();
    ssl_store_use_here();
    failures = keyproc_store_load(start);
    keyproc_wipe(start->config, true);
    if ((start->first && failures > 0) || become() != 0)
        _exit(2);
    settle();
    if (send(start->control, "", 1, MSG_NOSIGNAL) != 1)
        _exit(2);
    for (unsigned i = 0; i < start->count; i++)
        worker_add(start->workers[i], true);
    listen_to_master(start->control);
    pthread_mutex_lock(&self.lock);
    self.orphan = true;
    leave_if_alone();
    pthread_mutex_unlock(&self.lock);
    for (;;)
        poll(NULL, 0, keyproc_store_retire());
}
