/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What belongs to the process as a whole: its title, its privileges, its processors, randomness
 * and shared memory. Called by the master and at the start of a worker; randomness from anywhere.
 */
#include "core/os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/log.h"

#define CPUS_MAX 8192
#define SHM_HUGE ((size_t) 2 << 20)
#define SHM_HUGE_MIN (8 * SHM_HUGE) /* of less, a few huge pages would be most */
#define SHM_REMOVE_MIN (64u << 10) /* less is zeroed sooner than it is taken out and put back */

/* The memory of argv and environ, which the kernel shows as the command line. */
static char *title_start;
static size_t title_room;
/* The environment's new home; setenv() may leave it behind, so it is remembered here. */
static char **title_environ __attribute__((used));

void process_title_init(int argc, char **argv)
{
    char *end;
    size_t n = 0;

    if (argc < 1)
        return;
    end = argv[0];
    for (int i = 0; i < argc && argv[i] == end; i++)
        end += strlen(argv[i]) + 1;
    while (environ && environ[n]) {
        if (environ[n] == end)
            end += strlen(environ[n]) + 1;
        n++;
    }
    title_start = argv[0];
    title_room = (size_t) (end - argv[0]);
    /* Both live on elsewhere for as long as the process does. */
    title_environ = mem_alloc((n + 1) * sizeof(*title_environ));
    for (size_t i = 0; i < n; i++) {
        title_environ[i] = strdup(environ[i]);
        ASSERT(title_environ[i] != NULL);
    }
    title_environ[n] = NULL;
    environ = title_environ;
    for (int i = 0; i < argc; i++) {
        argv[i] = strdup(argv[i]);
        ASSERT(argv[i] != NULL);
    }
}

void process_title(const char *title)
{
    size_t len;

    if (title_room == 0)
        return;
    len = MIN(strlen(title), title_room - 1);
    memcpy(title_start, title, len);
    memset(title_start + len, 0, title_room - len);
}

int process_std_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        /* open() takes the lowest free number, which is fd itself: those below are open. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return -1;
    }
    return 0;
}

int process_daemonize(const struct logger *log)
{
    pid_t pid;
    int fd;

    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        log_emerg(log, errno, "fork() failed");
        return -1;
    }
    if (pid > 0)
        _exit(0);
    if (setsid() < 0) {
        log_emerg(log, errno, "setsid() failed");
        return -1;
    }
    umask(0);
    fd = open("/dev/null", O_RDWR);
    if (fd < 0) {
        log_emerg(log, errno, "open(\"/dev/null\") failed");
        return -1;
    }
    if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0) {
        log_emerg(log, errno, "dup2() failed");
        close(fd);
        return -1;
    }
    if (fd > STDERR_FILENO)
        close(fd);
    return 0;
}

static void get_capabilities(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

    memset(data, 0, 2 * sizeof(data[0]));
    (void) syscall(SYS_capget, &head, data);
}

uint64_t process_capabilities(void)
{
    struct __user_cap_data_struct data[2];

    get_capabilities(data);
    return data[0].effective | (uint64_t) data[1].effective << 32;
}

/* After setuid took the effective ones away, those of caps that were kept permitted are put in force, and no others stay so. */
static int set_capabilities(uint64_t caps)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];

    get_capabilities(data);
    data[0].effective = data[0].permitted &= (uint32_t) caps;
    data[1].effective = data[1].permitted &= (uint32_t) (caps >> 32);
    data[0].inheritable = data[1].inheritable = 0;
    return (int) syscall(SYS_capset, &head, data);
}

static int become(const struct logger *log, const char *user, uid_t uid, gid_t gid, uint64_t caps)
{
    if (setgid(gid)) {
        log_emerg(log, errno, "setgid(%u) failed", gid);
        return -1;
    }
    if (initgroups(user, gid)) {
        log_emerg(log, errno, "initgroups(%s, %u) failed", user, gid);
        return -1;
    }
    if (caps && uid != 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)) {
        log_emerg(log, errno, "prctl(PR_SET_KEEPCAPS, 1) failed");
        return -1;
    }
    if (setuid(uid)) {
        log_emerg(log, errno, "setuid(%u) failed", uid);
        return -1;
    }
    if (caps && uid != 0 && set_capabilities(caps)) {
        log_emerg(log, errno, "capset() failed");
        return -1;
    }
    return 0;
}

/* Without a way back, and with nothing to be gained by another program. */
static int drop(const struct logger *log, const char *user, uid_t uid, gid_t gid, uint64_t keep_caps)
{
    if (geteuid() == 0 && become(log, user, uid, gid, keep_caps))
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        return 0;
    log_emerg(log, errno, "prctl(PR_SET_NO_NEW_PRIVS) failed");
    return -1;
}

int process_drop(const struct logger *log, const char *user, uid_t uid, gid_t gid,
                 uint64_t keep_caps)
{
    if (drop(log, user, uid, gid, keep_caps))
        return -1;
    /* Changing the user forbids core dumps; worker_rlimit_core decides about them, not this. */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        log_alert(log, errno, "prctl(PR_SET_DUMPABLE) failed");
    return 0;
}

int process_hide(const struct logger *log)
{
    struct rlimit none = { 0, 0 };

    if (setrlimit(RLIMIT_CORE, &none) == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
        return 0;
    log_emerg(log, errno, "prctl(PR_SET_DUMPABLE) failed");
    return -1;
}

int process_drop_hidden(const struct logger *log, const char *user, uid_t uid, gid_t gid)
{
    return drop(log, user, uid, gid, 0) || process_hide(log) ? -1 : 0;
}

int process_keep_descriptors(const int *keep, unsigned count)
{
    unsigned first = 0;

    for (unsigned i = 0; i < count; i++) {
        unsigned fd = (unsigned) keep[i];

        if (fd > first && close_range(first, fd - 1, 0))
            return -1;
        first = MAX(first, fd + 1);
    }
    return close_range(first, UINT_MAX, 0);
}

unsigned process_cpus(void)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    int n = 0;

    if (set && sched_getaffinity(0, size, set) == 0)
        n = CPU_COUNT_S(size, set);
    CPU_FREE(set);
    if (n < 1)
        n = (int) sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned) n;
}

int process_set_affinity(const uint64_t *mask, unsigned words)
{
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    int rc;

    if (set == NULL)
        return -1;
    CPU_ZERO_S(size, set);
    for (unsigned i = 0; i < words * 64 && i < CPUS_MAX; i++) {
        if (mask[i / 64] >> (i % 64) & 1)
            CPU_SET_S(i, size, set);
    }
    rc = sched_setaffinity(0, size, set);
    CPU_FREE(set);
    return rc;
}

void process_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd;

    if (len < 2 || len > sizeof(un.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(un.sun_path, path, len);
    if (path[0] == '@')
        un.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *) &un,
               (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
        /* The manager has gone: it will find out about us by itself. */
    }
    close(fd);
}

void random_bytes(void *out, size_t len)
{
    char *p = out;

    while (len) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        /* Since Linux 3.17 this can only fail by our own mistake; guessing on is not an answer. */
        ASSERT(n > 0);
        p += n;
        len -= (size_t) n;
    }
}

static uint64_t random_state[2];
static bool random_seeded;

static void random_forget(void)
{
    random_seeded = false;
}

static uint64_t rotate(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

uint64_t random_u64(void)
{
    static bool registered;
    uint64_t a, b;

    if (unlikely(!random_seeded)) {
        /* A forked child must not repeat its parent's numbers. */
        if (!registered)
            registered = pthread_atfork(NULL, NULL, random_forget) == 0;
        random_bytes(random_state, sizeof(random_state));
        random_state[0] |= 1; /* all zeroes would stay all zeroes */
        random_seeded = true;
    }
    /* A xoroshiro generator: 128 bits of state, a few instructions a number. */
    a = random_state[0];
    b = random_state[1] ^ a;
    random_state[0] = rotate(a, 24) ^ b ^ b << 16;
    random_state[1] = rotate(b, 37);
    return rotate((a + (b ^ a)) * 5, 7) * 9;
}

/* So that a huge page of memory can be one of addresses. NULL: anywhere. */
static void *aligned_place(size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *p = mmap(NULL, size + SHM_HUGE, PROT_NONE, flags, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    munmap(p, size + SHM_HUGE);
    return p + (SHM_HUGE - (uintptr_t) p % SHM_HUGE) % SHM_HUGE;
}

void *shm_attach(int fd, size_t size)
{
    void *place = size >= SHM_HUGE_MIN ? aligned_place(size) : NULL;
    void *p = mmap(place, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

void shm_want_huge(void *ptr, size_t size)
{
    if (size >= SHM_HUGE_MIN)
        (void) madvise(ptr, size, MADV_HUGEPAGE);
}

void shm_make_huge(void *ptr, size_t size)
{
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
    char *first = ptr;

    if ((uintptr_t) ptr % SHM_HUGE != 0 || size < SHM_HUGE)
        return;
    /* The kernel wants something there to begin with. */
    __atomic_fetch_or(first, 0, __ATOMIC_RELAXED);
    (void) madvise(ptr, SHM_HUGE, MADV_COLLAPSE);
}

void *shm_create(const char *name, size_t size, int *fd_out)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    void *p = NULL;

    if (fd < 0)
        return NULL;
    if (ftruncate(fd, (off_t) size) == 0)
        p = shm_attach(fd, size);
    if (p == NULL) {
        int saved = errno;

        close(fd);
        errno = saved;
        return NULL;
    }
    *fd_out = fd;
    return p;
}

void shm_destroy(void *ptr, size_t size, int fd)
{
    if (ptr)
        munmap(ptr, size);
    if (fd >= 0)
        close(fd);
}

void shm_zero(void *ptr, size_t size)
{
    if (size < SHM_REMOVE_MIN || madvise(ptr, size, MADV_REMOVE) != 0)
        memset(ptr, 0, size);
}

size_t process_page_size(void)
{
    static size_t size;

    if (size == 0)
        size = (size_t) sysconf(_SC_PAGESIZE);
    return size;
}

struct str process_hostname(void)
{
    static char name[PROCESS_HOSTNAME_MAX + 1];

    if (name[0] == '\0' && gethostname(name, PROCESS_HOSTNAME_MAX))
        memcpy(name, "-", 2);
    return str_cstr(name);
}
