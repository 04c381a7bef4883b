/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loads of t/load and their origins have in common: a body that both ends can make from a
 * seed, and messages cut out of a stream. Included by one file each, hence static.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define BUFFER (128 * 1024)

static char octet(unsigned seed, size_t i)
{
    return (char) ('a' + (seed + i * 7 + i / 26) % 26);
}

static void fill(char *p, unsigned seed, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = octet(seed, i);
}

static size_t decode_chunked(const char *p, size_t n, char *to, size_t *used);

/* Length of the head with its empty line, or 0 when it is not all there. */
static size_t head_length(const char *p, size_t n)
{
    const char *end = memmem(p, n, "\r\n\r\n", 4);

    return end ? (size_t) (end - p) + 4 : 0;
}

/* The value of a field, or NULL; the head is cut at its end for the search. */
static const char *field(char *p, size_t head, const char *name)
{
    char last = p[head - 1];
    const char *at = NULL;
    char line[64];

    snprintf(line, sizeof line, "\n%s: ", name);
    p[head - 1] = 0;
    at = strcasestr(p, line);
    p[head - 1] = last;
    return at ? at + strlen(line) : NULL;
}

/*
 * A complete message's length, 0 when more is needed, -1 when it is wrong. *body is set to its
 * body, in place (the chunks are moved together), *body_len to its length.
 */
static ssize_t message(char *p, size_t n, char **body, size_t *body_len)
{
    size_t head = head_length(p, n), used = 0;
    const char *value;

    if (head == 0)
        return n >= BUFFER ? -1 : 0;
    *body = p + head;
    if (field(p, head, "Transfer-Encoding")) {
        *body_len = decode_chunked(p + head, n - head, NULL, &used);
        if (used == 0)
            return 0;
        decode_chunked(p + head, n - head, p + head, &used);
        return (ssize_t) (head + used);
    }
    value = field(p, head, "Content-Length");
    *body_len = value ? strtoul(value, NULL, 10) : 0;
    if (*body_len > BUFFER - head)
        return -1;
    return n - head >= *body_len ? (ssize_t) (head + *body_len) : 0;
}

/* Octets of content; *used is 0 unless all chunks are there. Copies where `to` is given. */
static size_t decode_chunked(const char *p, size_t n, char *to, size_t *used)
{
    size_t at = 0, len = 0;

    *used = 0;
    for (;;) {
        const char *nl = memmem(p + at, n - at, "\r\n", 2);
        char *end;
        size_t size;

        if (nl == NULL)
            return 0;
        size = strtoul(p + at, &end, 16);
        at = (size_t) (nl - p) + 2;
        if (n - at < size + 2)
            return 0;
        if (size == 0) {
            *used = at + 2;
            return len;
        }
        if (to)
            memmove(to + len, p + at, size);
        len += size;
        at += size + 2;
    }
}

static size_t put_chunked(char *to, const char *body, size_t n)
{
    size_t at = 0;

    for (size_t done = 0; done < n;) {
        size_t piece = n - done < 1500 ? n - done : 1500;

        at += (size_t) sprintf(to + at, "%zx\r\n", piece);
        memcpy(to + at, body + done, piece);
        at += piece;
        memcpy(to + at, "\r\n", 2);
        at += 2;
        done += piece;
    }
    memcpy(to + at, "0\r\n\r\n", 5);
    return at + 5;
}
