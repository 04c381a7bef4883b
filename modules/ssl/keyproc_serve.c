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
#include <openssl/err.h>
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
#include "modules/ssl/provided.h"

#define STACK_SIZE (512 * 1024)
#define DESCRIPTORS_MAX 4096
#define COMPLAINT_MS 1000
#define UNREAD_MAX 4096 /* requests in a socket */

static struct {
    const struct keyproc_start *start;
    const struct keyproc_conf *conf;
    struct keyproc_secret *secrets;
    unsigned count;
    pthread_mutex_t lock; /* of what follows, and of the log */
    unsigned workers;
    bool orphan; /* the master has let go */
    uint64_t complained_ms;
} self = { .lock = PTHREAD_MUTEX_INITIALIZER };

static unsigned failures;

/* Reading the keys --------------------------------------------------------------------------- */

static void complain(const struct keyproc_key *key, const char *what, const char *why)
{
    const struct config *config = self.start->config;
    const char *errors = ssl_errors();

    failures++;
    if (!self.start->first) {
        log_alert(log_main, 0,
                  "%s(\"%.*s\")%s%s, the key process goes on without this key in %s:%u", what,
                  STR_ARG(ssl_shown(key->path)), why, errors, key->pos.file, key->pos.line);
        return;
    }
    log_emerg(log_main, 0, "%s(\"%.*s\")%s%s in %s:%u", what, STR_ARG(ssl_shown(key->path)), why,
              errors, key->pos.file, key->pos.line);
    if (config->details != NULL)
        conf_show_source(config, config->details, key->pos, NULL);
}

static void complain_load(const struct keyproc_key *key, const char *error)
{
    const struct config *config = self.start->config;
    const char *errors = ssl_errors();

    failures++;
    LOG(log_main, self.start->first ? LOG_EMERG_LEVEL : LOG_ALERT_LEVEL, 0,
        "cannot load certificate key \"%.*s\": %s%s%s in %s:%u", STR_ARG(ssl_shown(key->path)),
        error, errors, self.start->first ? "" : ", the key process goes on without it",
        key->pos.file, key->pos.line);
    if (self.start->first && config->details != NULL)
        conf_show_source(config, config->details, key->pos, NULL);
}

static void load_key(const struct keyproc_key *key, struct keyproc_secret *s)
{
    const char *error;

    s->kind = key->kind;
    s->uses = key->uses;
    s->key = ssl_load_key(key->path, key->passwords, &error);
    if (s->key == NULL) {
        complain_load(key, error);
        return;
    }
    /* X509_check_private_key's reasons are the ones that SSL_CTX_use_PrivateKey would give. */
    if (X509_check_private_key(key->leaf, s->key) == 1 && keyproc_kind_of(s->key) == key->kind &&
        EVP_PKEY_get_size(s->key) <= KEYPROC_RESULT_MAX && keyproc_secret_prepare(s) == 0)
        return;
    EVP_PKEY_free(s->key);
    s->key = NULL;
    complain(key, "SSL_CTX_use_PrivateKey", " failed");
}

/* Not more of them than the master would have said. */
static void load_keys(void)
{
    const struct keyproc_keys *keys = &self.conf->keys;

    self.count = keys->count;
    self.secrets = mem_zalloc(MAX(self.count, 1u) * sizeof(*self.secrets));
    for (unsigned i = 0; i < self.count; i++) {
        load_key(keys->items[i], &self.secrets[i]);
        if (self.start->first && failures >= CONF_ERRORS_MAX)
            return;
    }
    ERR_clear_error();
}

/* Requests ----------------------------------------------------------------------------------- */

/* The log is one thread's at a time, and nobody fills it from outside. */
static void refuse(const char *why)
{
    pthread_mutex_lock(&self.lock);
    clock_update();
    if (self.complained_ms == 0 || clock_ms() - self.complained_ms >= COMPLAINT_MS) {
        self.complained_ms = clock_ms();
        log_alert(log_main, 0, "the key process refused a worker's request: %s", why);
    }
    pthread_mutex_unlock(&self.lock);
}

/* What a worker has sent. The status; with KEYPROC_OK *len bytes are in out. */
static unsigned answer(const unsigned char *data, size_t size, struct keyproc_request *rq,
                       unsigned char *out, size_t *len)
{
    const struct keyproc_secret *s;
    const char *why;

    *len = 0;
    memset(rq, 0, sizeof(*rq));
    if (keyproc_parse(rq, data, size) != 0) {
        refuse("sizes do not match");
        return KEYPROC_REFUSED;
    }
    if (rq->key >= self.count) {
        refuse("there is no such key");
        return KEYPROC_REFUSED;
    }
    s = &self.secrets[rq->key];
    why = keyproc_check(data, size, s->kind, s->uses);
    if (why != NULL) {
        refuse(why);
        return KEYPROC_REFUSED;
    }
    if (s->key == NULL)
        return KEYPROC_NO_KEY;
    return keyproc_secret_use(s, rq, data + sizeof(*rq), out, len) == 0 ? KEYPROC_OK
                                                                        : KEYPROC_FAILED;
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
    const size_t room = sizeof(struct keyproc_request) + KEYPROC_PAYLOAD_MAX;
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
        status = answer(data, (size_t) n <= room ? (size_t) n : 0, &rq, out, &len);
        if (send_answer(fd, rq.id, status, out, len) != 0)
            break;
    }
    OPENSSL_cleanse(out, sizeof(out));
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

/* The sockets of new workers come from the master, and its logs. */
static void listen_to_master(int control)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } space;
    uint32_t what;
    struct iovec iov = { &what, sizeof(what) };

    for (;;) {
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)
        };
        ssize_t n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c;
        int fd;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        c = CMSG_FIRSTHDR(&msg);
        if (c == NULL || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
            continue;
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        if (what == KEYPROC_NEW_WORKER)
            worker_add(fd, false);
        else
            reopened(what, fd);
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
    load_keys();
    keyproc_wipe(start->config);
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
        pause();
}
