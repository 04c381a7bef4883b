/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes for splice(2), kept and counted for each process, and the two halves of a transfer. */
#include "core/event/splice.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PIPES_MOST 128 /* lent at a time: well below what the kernel gives one user at full size */
#define PIPES_KEPT 16  /* for the next who needs one */

static struct splice_pipe *kept;
static unsigned kept_count, lent_count;

bool splice_possible(const struct conn *c)
{
    struct conn_info info;

    conn_info(c, &info);
    return info.fd >= 0 && info.plain;
}

struct splice_pipe *splice_borrow(void)
{
    struct splice_pipe *p = kept;
    int ends[2];

    if (lent_count >= PIPES_MOST)
        return NULL;
    if (p != NULL) {
        kept = p->next;
        kept_count--;
    } else {
        if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
            return NULL;
        p = mem_zalloc(sizeof(*p));
        p->out = ends[0];
        p->in = ends[1];
    }
    lent_count++;
    return p;
}

static void pipe_close(struct splice_pipe *p)
{
    close(p->out);
    close(p->in);
    free(p);
}

void splice_return(struct splice_pipe *p)
{
    if (p == NULL)
        return;
    lent_count--;
    if (p->held > 0 || kept_count >= PIPES_KEPT) {
        pipe_close(p);
        return;
    }
    p->next = kept;
    kept = p;
    kept_count++;
}

void splice_trim(void)
{
    while (kept != NULL) {
        struct splice_pipe *p = kept;

        kept = p->next;
        pipe_close(p);
    }
    kept_count = 0;
}

static ssize_t move(int from, int to, size_t most)
{
    ssize_t n;

    do
        n = splice(from, NULL, to, NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n;
}

ssize_t splice_fill(struct splice_pipe *p, struct conn *from, size_t most)
{
    ssize_t n;

    ASSERT(p->held == 0);
    if (!(from->ready & CONN_READ)) {
        errno = EAGAIN;
        return -1;
    }
    n = move(from->watch.fd, p->in, MIN(most, SPLICE_MOST));
    if (n > 0) {
        /* Fewer bytes than asked for may fill the pipe: that nothing is left is seen by EAGAIN alone. */
        p->held = (size_t) n;
        from->bytes_in += (uint64_t) n;
    } else if (n < 0 && errno == EAGAIN) {
        from->ready &= (unsigned char) ~CONN_READ;
    }
    return n;
}

ssize_t splice_empty(struct splice_pipe *p, struct conn *to)
{
    size_t before = p->held;

    while (p->held > 0 && (to->ready & CONN_WRITE)) {
        ssize_t n = move(p->out, to->watch.fd, p->held);

        if (n > 0) {
            p->held -= (size_t) n;
            to->bytes_out += (uint64_t) n;
        } else if (n < 0 && errno == EAGAIN) {
            to->ready &= (unsigned char) ~CONN_WRITE;
        } else {
            if (n == 0)
                errno = EPIPE;
            return -1;
        }
    }
    if (before == p->held && before > 0) {
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t) (before - p->held);
}
