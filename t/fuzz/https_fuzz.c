/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a client of HTTPS, from its hello on, to servers as a configuration makes them: chosen by SNI and ALPN, with settings, certificates
 * and rules of their own, the first of which an address's context has. The first byte says what the rest is:
 *
 *   0  bytes as they come;
 *   1  the hello of a client of ours, damaged: a name, a list of protocols, then a place and a byte to be changed, repeated;
 *   2  a handshake that goes well, with this name and these protocols, then what is said in it;
 *   3  the same in TLS 1.2.
 *
 * Bit 2: a PROXY header goes before. The upper bits: how it is cut. Whatever comes, nothing of a client is left in the end.
 */
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/config/resource.h"
#include "core/http/client.h"
#include "core/http/http.h"
#include "core/module.h"
#include "modules/ssl/ssl.h"
#include "workers/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ADDRESSES 2
#define ANSWERS                                                                                   \
    "return 200 \"$server_name $ssl_server_name $ssl_alpn_protocol $ssl_ciphers $ssl_curves "     \
    "$ssl_curve $ssl_sigalgs $ssl_sigalg $ssl_ja3_hash $ssl_ja4 $ssl_session_id $ssl_early_data " \
    "$ssl_client_verify $ssl_protocol\";"

static const char text[] =
    "http {\n"
    "access_log off; ssl_certificate pair.pem; ssl_certificate_key pair.pem; root /nowhere;\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2 ssl proxy_protocol; server_name a.test; "
    "ssl_session_cache shared:one:64k; ssl_ecdh_curve secp384r1:X25519; " ANSWERS " }\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2; server_name b.test *.w.test ~^r\\d; "
    "ssl_protocols TLSv1.2; ssl_verify_client optional_no_ca; " ANSWERS " }\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2; server_name c.test; "
    "ssl_reject_handshake on; }\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2; server_name d.test; "
    "ssl_verify_client on; ssl_client_certificate pair.pem; ssl_session_tickets off; }\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2; server_name *.e.test; "
    "ssl_certificate $ssl_server_name.pem; ssl_certificate_key $ssl_server_name.pem; }\n"
    "server { listen 127.0.0.1:1 ssl; listen 127.0.0.1:2; server_name f.test; "
    "ssl_early_data on; error_page 497 /x; location / { } }\n"
    "}\n";

static char dir[] = "/tmp/proxyd-fuzz-XXXXXX";
static struct http_listen *listens[ADDRESSES];
static SSL_CTX *client_ctx;
static struct log_scope silent = { LOG_STDERR_LEVEL, NULL };

/* What is left of the input. */
struct input {
    const uint8_t *data;
    size_t left;
};

/* The beginning: as many bytes as the first one says. */
static struct str take_text(struct input *in)
{
    size_t n = in->left > 0 ? MIN((size_t) in->data[0], in->left - 1) : 0;
    struct str taken = str_from(in->left > 0 ? (const char *) in->data + 1 : "", n);

    in->left -= in->left > 0 ? n + 1 : 0;
    in->data += n + 1;
    return taken;
}

/* Set up -------------------------------------------------------------------------------------- */

static void leave(void)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/pair.pem", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/fuzz.conf", dir);
    unlink(path);
    rmdir(dir);
}

static FILE *create(const char *name)
{
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (f == NULL)
        abort();
    return f;
}

static void write_files(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    FILE *f = create("pair.pem");

    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    if (X509_sign(cert, key, EVP_sha256()) <= 0 || !PEM_write_X509(f, cert) ||
        !PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL))
        abort();
    fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
    f = create("fuzz.conf");
    fputs(text, f);
    fclose(f);
}

static void find_listens(const struct http_main *http)
{
    unsigned n = 0;

    for (struct list *l = http->listens.next; l != &http->listens && n < ADDRESSES; l = l->next)
        listens[n++] = container_of(l, struct http_listen, link);
    if (n != ADDRESSES)
        abort();
}

static void start(void)
{
    static struct log_scope loud = { LOG_ERROR_LEVEL, NULL };
    static struct logger log = { .scope = &loud };
    struct config_request request = { .prefix = dir, .details = stderr };
    struct config *config;
    static char file[64];

    if (mkdtemp(dir) == NULL)
        abort();
    atexit(leave);
    snprintf(file, sizeof(file), "%s/fuzz.conf", dir);
    request.file = file;
    write_files();
    clock_update();
    config_modules_init();
    config = config_read(&request, &log);
    if (config == NULL || zones_open(config, NULL) != 0)
        abort();
    zone_set_worker(0);
    if (loop_init(64) != 0)
        abort();
    for (unsigned i = 0; i < module_count; i++) {
        if (modules[i]->worker_start != NULL && modules[i]->worker_start(config) != 0)
            abort();
    }
    find_listens(config->http);
    client_ctx = SSL_CTX_new(TLS_client_method());
}

/* A client ------------------------------------------------------------------------------------ */

static void turns(unsigned n)
{
    while (n-- > 0)
        loop_turn(0);
}

static void read_all(struct conn *c, unsigned ready)
{
    char buf[4096];
    ssize_t n = 0;

    while ((ready & CONN_READ) && (n = conn_read(c, buf, sizeof(buf))) > 0)
        continue;
    if (n < 0 && errno == EAGAIN)
        conn_want(c, CONN_READ);
}

/* The server's end, as if it had been accepted. */
static void serve(struct conn *conn, struct http_listen *l)
{
    struct listener listener = { .owner = l };
    struct client_extra *x;

    conn->peer.sa.sa_family = AF_INET;
    conn->peer_len = sizeof(struct sockaddr_in);
    conn->log.scope = &silent;
    client_accept(&listener, conn);
    x = client_extra(conn->owner);
    x->local = l->addr;
    x->have_local = true;
}

static void send_pieces(struct conn *to, const void *bytes, size_t size, size_t piece)
{
    for (size_t at = 0; at < size;) {
        struct iovec iov = { (char *) (uintptr_t) bytes + at, MIN(piece, size - at) };
        ssize_t n = conn_writev(to, &iov, 1);

        turns(1);
        if (n <= 0 && !(n < 0 && errno == EAGAIN && (to->ready & CONN_WRITE)))
            return;
        at += (size_t) MAX(n, 0);
    }
}

static void set_up(SSL *ssl, struct input *in, int version)
{
    struct str name = take_text(in), alpn = take_text(in);
    char host[256];

    memcpy(host, name.ptr, name.len);
    host[name.len] = '\0';
    if (host[0] != '\0')
        SSL_set_tlsext_host_name(ssl, host);
    if (alpn.len > 0)
        SSL_set_alpn_protos(ssl, (const unsigned char *) alpn.ptr, (unsigned) alpn.len);
    SSL_set_max_proto_version(ssl, version);
}

/* A hello, of which bytes are changed. */
static void damaged_hello(struct conn *to, struct input *in, size_t piece)
{
    SSL *ssl = SSL_new(client_ctx);
    BIO *out = BIO_new(BIO_s_mem()), *empty = BIO_new(BIO_s_mem());
    char *bytes;
    long len;

    SSL_set_bio(ssl, empty, out);
    SSL_set_connect_state(ssl);
    set_up(ssl, in, 0);
    SSL_do_handshake(ssl);
    len = BIO_get_mem_data(out, &bytes);
    for (; len > 0 && in->left >= 3; in->data += 3, in->left -= 3)
        bytes[(in->data[0] << 8 | in->data[1]) % len] ^= (char) in->data[2];
    send_pieces(to, bytes, (size_t) MAX(len, 0), piece);
    SSL_free(ssl);
    ERR_clear_error();
}

/* What it says once the handshake has gone well. */
static struct conn *talk(struct conn *raw, struct input *in, size_t piece, int version)
{
    static const struct conn_tls_options options = { .buffer_size = 16384 };
    static int mark;
    struct conn *client = conn_tls_connect(raw, client_ctx, &options);

    client->handler = read_all;
    client->owner = &mark;
    client->log.scope = &silent;
    set_up(conn_tls_ssl(client), in, version);
    conn_want(client, CONN_READ);
    turns(10);
    if (conn_tls_established(client))
        send_pieces(client, in->data, in->left, piece);
    return client;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char proxied[] = "PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n";
    static bool ready;
    struct conn *raw[2], *mine;
    struct input in;
    uint8_t how;
    size_t piece;

    if (!ready)
        start();
    ready = true;
    if (size < 1)
        return 0;
    how = data[0];
    in = (struct input){ data + 1, size - 1 };
    piece = how & 0xf0 ? (size_t) (how >> 4) * (how & 8 ? 100 : 1) : SIZE_MAX;
    conn_mem_pair(raw, 20000);
    mine = raw[0];
    mine->handler = read_all;
    serve(raw[1], listens[how & 4 ? 1 : 0]);
    if (how & 4)
        send_pieces(mine, proxied, sizeof(proxied) - 1, piece);
    switch (how & 3) {
    case 0:
        conn_want(mine, CONN_READ);
        send_pieces(mine, in.data, in.left, piece);
        break;
    case 1:
        conn_want(mine, CONN_READ);
        damaged_hello(mine, &in, piece);
        break;
    case 2: mine = talk(mine, &in, piece, 0); break;
    default: mine = talk(mine, &in, piece, TLS1_2_VERSION);
    }
    turns(4);
    conn_close(mine);
    turns(2);
    client_close_all();
    turns(2);
    if (client_counts->active != 0)
        abort();
    block_trim(); /* lists of what is free would pass for leaks */
    arena_trim();
    return 0;
}
