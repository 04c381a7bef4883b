/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Giving up for good what a process that only looks has no use for: the network, other processes
 * and changes of the file system. The kernel enforces it (seccomp), so that it holds for code that
 * nobody has thought of.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/base/sanitize.h"
#include "core/os/process.h"

#define WRITING (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

static const unsigned short denied[] = {
    SYS_socket,      SYS_socketpair,   SYS_connect,      SYS_bind,      SYS_listen,
    SYS_sendto,      SYS_sendmsg,      SYS_sendmmsg,     SYS_clone,     SYS_clone3,
    SYS_execve,      SYS_execveat,     SYS_kill,         SYS_ptrace,    SYS_unlinkat,
    SYS_renameat2,   SYS_mkdirat,      SYS_mknodat,      SYS_linkat,    SYS_symlinkat,
    SYS_truncate,    SYS_ftruncate,    SYS_fchmod,       SYS_fchmodat,  SYS_fchown,
    SYS_fchownat,    SYS_utimensat,    SYS_setxattr,     SYS_lsetxattr, SYS_fsetxattr,
    SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, SYS_openat2,
#ifdef SYS_renameat
    SYS_renameat,
#endif
#ifdef SYS_open /* the older calls, on processors that have them */
    SYS_fork,        SYS_vfork,        SYS_creat,        SYS_unlink,    SYS_rename,
    SYS_mkdir,       SYS_rmdir,        SYS_mknod,        SYS_link,      SYS_symlink,
    SYS_chmod,       SYS_chown,        SYS_lchown,       SYS_utime,     SYS_utimes,
    SYS_futimesat,
#endif
};

/* Calls that open a file, and which argument says how. */
static const struct {
    unsigned short call, arg;
} opens[] = {
    { SYS_openat, 2 },
#ifdef SYS_open
    { SYS_open, 1 },
#endif
};

/* The low half of an argument. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LOW_HALF 4
#else
#define LOW_HALF 0
#endif

static struct sock_filter statement(unsigned short code, uint32_t k)
{
    return (struct sock_filter) BPF_STMT(code, k);
}

static struct sock_filter jump(unsigned short code, uint32_t k, unsigned char yes, unsigned char no)
{
    return (struct sock_filter) BPF_JUMP(code, k, yes, no);
}

bool process_renounce(void)
{
    struct sock_filter code[2 * ARRAY_LEN(denied) + 5 * ARRAY_LEN(opens) + 2], *p = code;
    struct sock_fprog program = { .filter = code };

#ifdef WITH_ASAN
    return false; /* its checks at the end need a process of their own */
#endif
    *p++ = statement(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < ARRAY_LEN(denied); i++) {
        *p++ = jump(BPF_JMP | BPF_JEQ | BPF_K, denied[i], 0, 1);
        *p++ = statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    for (unsigned i = 0; i < ARRAY_LEN(opens); i++) {
        size_t at = offsetof(struct seccomp_data, args) + opens[i].arg * sizeof(uint64_t);

        *p++ = jump(BPF_JMP | BPF_JEQ | BPF_K, opens[i].call, 0, 4);
        *p++ = statement(BPF_LD | BPF_W | BPF_ABS, (uint32_t) at + LOW_HALF);
        *p++ = jump(BPF_JMP | BPF_JSET | BPF_K, WRITING, 0, 1);
        *p++ = statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
        *p++ = statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    *p++ = statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = (unsigned short) (p - code);
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}
