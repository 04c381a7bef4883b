/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/os/process.h"
#include "t/unit/tap.h"

static bool refused(long rc)
{
    return rc < 0 && errno == EPERM;
}

int main(void)
{
    char name[] = "/tmp/renounce-XXXXXX", byte = 'x', other[64];
    int open_before = mkstemp(name), fd, status;
    pid_t child = fork();

    if (child > 0) {
        /* Somebody must be able to clear up. */
        waitpid(child, &status, 0);
        unlink(name);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    ok(open_before >= 0, "a file, open for writing");
    snprintf(other, sizeof(other), "%s.other", name);
    if (!process_renounce()) {
        ok(true, "skipped: not offered here");
        return done_testing();
    }
    ok(refused(socket(AF_INET, SOCK_STREAM, 0)), "no socket");
    ok(refused(fork()), "no process");
    ok(refused(open(name, O_WRONLY)), "no file for writing");
    ok(refused(open(name, O_RDWR)), "nor for both");
    ok(refused(open(name, O_RDONLY | O_TRUNC)), "nor truncated");
    ok(refused(open(other, O_RDONLY | O_CREAT, 0600)), "nor made");
    ok(refused(openat(AT_FDCWD, other, O_RDWR | O_CREAT, 0600)), "nor made in another way");
    ok(refused(unlink(name)), "none removed");
    ok(refused(rename(name, other)), "nor renamed");
    ok(refused(mkdir(other, 0700)), "no directory");
    ok(refused(truncate(name, 0)), "nothing cut");
    ok(refused(chmod(name, 0)), "no mode");
    fd = open(name, O_RDONLY | O_CLOEXEC);
    ok(fd >= 0, "files can be read");
    ok(write(open_before, &byte, 1) == 1, "what is open stays usable");
    ok(read(fd, &byte, 1) == 1, "both ways");
    return done_testing();
}
