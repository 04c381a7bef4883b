/* SPDX-License-Identifier: BSD-2-Clause */
/* Titles, descriptors, privileges, randomness, shared memory, the service manager's socket. */
#include "core/os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/arena.h"
#include "core/base/log.h"
#include "core/os/file.h"
#include "t/unit/tap.h"

/* The exit status of a child that runs fn; -1 if it was killed. */
static int in_child(int (*fn)(void))
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        _exit(fn());
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_title(struct arena *arena)
{
    struct str s = STR_NULL;
    char big[100000];

    process_title("proxyd: worker process");
    file_read(arena, "/proc/self/cmdline", 1 << 20, &s);
    is_str(s.ptr, "proxyd: worker process", "the title is what the kernel shows");
    is_str(getenv("PROXYD_TEST"), "kept", "the environment is still there");
    memset(big, 't', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    process_title(big);
    is_str(getenv("PROXYD_TEST"), "kept", "even after a title that is too long");
    process_title("short");
    file_read(arena, "/proc/self/cmdline", 1 << 20, &s);
    is_str(s.ptr, "short", "a shorter title leaves nothing of a longer one");
}

static int closed_descriptors(void)
{
    struct stat st, null;

    close(0);
    close(1);
    close(2);
    if (process_std_descriptors() || stat("/dev/null", &null))
        return 1;
    for (int fd = 0; fd <= 2; fd++) {
        if (fstat(fd, &st) || st.st_rdev != null.st_rdev)
            return 2;
    }
    return 0;
}

static int open_descriptors(void)
{
    int before = dup(0), after;

    close(before);
    if (process_std_descriptors())
        return 1;
    after = dup(0);
    return before == after ? 0 : 2;
}

static int report_fd;

static int daemonized(void)
{
    struct stat null, in, out;
    char answer = 'n';

    if (process_daemonize(log_main))
        return 1;
    if (getsid(0) == getpid() && stat("/dev/null", &null) == 0 && fstat(0, &in) == 0 &&
        fstat(1, &out) == 0 && in.st_rdev == null.st_rdev && out.st_rdev == null.st_rdev &&
        fcntl(2, F_GETFD) >= 0)
        answer = 'y';
    if (write(report_fd, &answer, 1) != 1)
        return 2;
    return 77; /* the daemon's own status, which nobody waits for */
}

static void test_daemon(void)
{
    int fds[2];
    char answer = 0;

    if (pipe(fds))
        return;
    report_fd = fds[1];
    is_int(in_child(daemonized), 0, "who starts a daemon ends well");
    close(fds[1]);
    is_int(read(fds[0], &answer, 1), 1, "the daemon goes on");
    is_int(answer, 'y', "in a session of its own, with /dev/null in the place of the terminal");
    close(fds[0]);
}

static int dropped(void)
{
    uid_t r, e, s;

    if (process_drop(log_main, "nobody", 65534, 65534, 1u << CAP_NET_RAW))
        return 1;
    if (getresuid(&r, &e, &s) || r != 65534 || e != 65534 || s != 65534 || getegid() != 65534)
        return 2;
    if (setuid(0) == 0)
        return 3;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 4;
    /* CAP_NET_RAW was kept and is in force, nothing else is. */
    struct arena *arena = arena_new();
    struct str status = STR_NULL;
    file_read(arena, "/proc/self/status", 1 << 20, &status);
    int rc = str_find(status, STR("CapEff:\t0000000000002000\n")) >= 0 ? 0 : 5;
    arena_destroy(arena);
    arena_trim();
    return rc;
}

static int dropped_all(void)
{
    struct arena *arena = arena_new();
    struct str status = STR_NULL;
    int rc;

    if (process_drop(log_main, "nobody", 65534, 65534, 0))
        return 1;
    file_read(arena, "/proc/self/status", 1 << 20, &status);
    rc = str_find(status, STR("CapPrm:\t0000000000000000\n")) >= 0 ? 0 : 5;
    arena_destroy(arena);
    arena_trim();
    return rc;
}

static void test_random(void)
{
    uint64_t a[4], mine, childs = 0;
    unsigned buckets[16] = { 0 };
    int fds[2], status;
    bool even = true;
    pid_t pid;

    memset(a, 0, sizeof(a));
    random_bytes(a, sizeof(a));
    ok(a[0] && a[1] && a[0] != a[1] && a[2] != a[3], "random bytes");
    for (int i = 0; i < 160000; i++)
        buckets[random_u64() >> 60]++;
    for (unsigned i = 0; i < 16; i++)
        even = even && buckets[i] > 9000 && buckets[i] < 11000;
    ok(even, "random numbers are spread evenly");
    if (pipe(fds))
        return;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        mine = random_u64();
        _exit(write(fds[1], &mine, sizeof(mine)) != sizeof(mine));
    }
    mine = random_u64();
    is_int(read(fds[0], &childs, sizeof(childs)), sizeof(childs), "a child's number");
    ok(childs != mine, "is not its parent's");
    waitpid(pid, &status, 0);
    close(fds[0]);
    close(fds[1]);
}

static void test_shared_memory(void)
{
    int fd = -1, status;
    char *p = shm_create("proxyd-test", 10000, &fd), *q;
    pid_t pid;

    ok(p != NULL && fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC, "a shared mapping");
    ok(p[0] == 0 && p[9999] == 0, "of zeroes");
    q = shm_attach(fd, 10000);
    ok(q != NULL && q != p, "attached a second time");
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        p[9999] = 'c';
        _exit(0);
    }
    waitpid(pid, &status, 0);
    is_int(q[9999], 'c', "what a child writes is seen by all");
    shm_destroy(q, 10000, -1);
    shm_destroy(p, 10000, fd);
    ok(fcntl(fd, F_GETFD) < 0, "gone");
    ok(shm_create("proxyd-test", 0, &fd) == NULL && errno == EINVAL, "nothing cannot be mapped");
}

static void test_notify(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char name[64], buf[64];
    size_t len;
    ssize_t n;

    unsetenv("NOTIFY_SOCKET");
    process_notify("READY=1");
    len = (size_t) snprintf(name, sizeof(name), "@proxyd-test-%d", (int) getpid());
    memcpy(un.sun_path + 1, name + 1, len - 1);
    ASSERT(bind(fd, (struct sockaddr *) (void *) &un,
                (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len)) == 0);
    setenv("NOTIFY_SOCKET", name, 1);
    process_notify("READY=1");
    n = recv(fd, buf, sizeof(buf), 0);
    is_bytes(buf, n < 0 ? 0 : (size_t) n, "READY=1", 7, "the service manager is told");
    setenv("NOTIFY_SOCKET", "relative", 1);
    process_notify("READY=1");
    is_int(recv(fd, buf, sizeof(buf), 0), -1, "an address that is none is ignored");
    unsetenv("NOTIFY_SOCKET");
    close(fd);
}

int main(int argc, char **argv)
{
    struct arena *arena = arena_new();
    uint64_t all[16];

    /* The environment must be the one that the kernel laid out: set before we were started. */
    if (getenv("PROXYD_TEST") == NULL) {
        setenv("PROXYD_TEST", "kept", 1);
        execv("/proc/self/exe", argv);
        return 1;
    }
    process_title_init(argc, argv);
    test_title(arena);
    is_int(in_child(closed_descriptors), 0, "closed standard descriptors are opened");
    is_int(in_child(open_descriptors), 0, "open ones are left alone");
    test_daemon();
    if (geteuid() == 0) {
        is_int(in_child(dropped), 0, "privileges are dropped, but for what is kept");
        is_int(in_child(dropped_all), 0, "or all of them");
    } else {
        skip("not root");
        skip("not root");
    }
    test_random();
    test_shared_memory();
    test_notify();
    ok(process_cpus() >= 1, "there is a processor");
    memset(all, 0xff, sizeof(all));
    is_int(process_set_affinity(all, 16), 0, "any processor will do");
    memset(all, 0, sizeof(all));
    is_int(process_set_affinity(all, 16), -1, "none will not");
    ok(process_page_size() >= 4096 && process_page_size() % 4096 == 0, "pages");
    ok(process_hostname().len > 0, "a name");
    arena_destroy(arena);
    arena_trim();
    return done_testing();
}
