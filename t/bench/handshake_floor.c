/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor of a handshake: the least that a process can do with the library and still accept TLS connections. One
 * epoll loop; accept, SSL_accept, one SSL_read, one SSL_write of an answer that never changes, SSL_shutdown, close. Everything is
 * as the library has it by default, with the versions and certificates that the servers under test are given.
 *
 *     handshake_floor ECDSA RSA DIRECTORY        (ADDRESS:PORT each; bench.pem and rsa.pem lie in the directory)
 *
 * It is a yardstick, not a server: whatever it is asked for, and in however many pieces, the answer is "ok", and the connection
 * is closed behind it.
 */
#include "common.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

struct end {
    int fd;
    SSL_CTX *ctx; /* of a listener */
    SSL *ssl;     /* of a client */
};

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
static int ep;

static SSL_CTX *context(const char *directory, const char *name)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (ctx == NULL || SSL_CTX_use_certificate_chain_file(ctx, path) != 1
        || SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) != 1
        || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
        bench_die(path);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);    /* tickets are given nevertheless */
    return ctx;
}

static struct end *end_new(int fd)
{
    struct end *e = calloc(1, sizeof *e);

    if (e == NULL)
        bench_die("calloc");
    e->fd = fd;
    return e;
}

static void listener_readable(struct end *listener)
{
    int fd;

    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct end *client = end_new(fd);

        bench_nodelay(fd);
        client->ssl = SSL_new(listener->ctx);
        if (client->ssl == NULL || SSL_set_fd(client->ssl, fd) != 1)
            bench_die("SSL_new");
        SSL_set_accept_state(client->ssl);
        bench_watch(ep, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, client);
    }
}

/* One event is told once, and all of them name this client: it is gone when the turn goes on. */
static void client_readable(struct end *client)
{
    char request[4096];
    int n = SSL_read(client->ssl, request, sizeof request);

    if (n <= 0 && SSL_get_error(client->ssl, n) == SSL_ERROR_WANT_READ)
        return;
    if (n > 0) {
        SSL_write(client->ssl, answer, sizeof answer - 1);
        SSL_shutdown(client->ssl);
    }
    ERR_clear_error();
    SSL_free(client->ssl);
    close(client->fd);
    free(client);
}

int main(int argc, char **argv)
{
    static struct epoll_event events[BENCH_EVENTS];

    if (argc != 4) {
        fprintf(stderr, "usage: handshake_floor ECDSA RSA DIRECTORY\n");
        return 1;
    }
    bench_setup();
    ep = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        struct end *listener = end_new(bench_listen(argv[1 + i]));

        listener->ctx = context(argv[3], i == 0 ? "bench.pem" : "rsa.pem");
        bench_watch(ep, listener->fd, EPOLLIN | EPOLLET, listener);
    }
    for (;;) {      /* ends by a signal */
        int n = epoll_wait(ep, events, BENCH_EVENTS, -1);

        if (n < 0 && errno != EINTR)
            bench_die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct end *e = events[i].data.ptr;

            if (e->ctx != NULL)
                listener_readable(e);
            else
                client_readable(e);
        }
    }
}
