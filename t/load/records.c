/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client for t/tls_hostile.t that says after a proper handshake what no library would let it say: records of any type and
 * content, correctly encrypted.
 *
 *     records PORT VERSION SPEC…
 *         VERSION: 1.2 or 1.3. A SPEC is TYPE:COUNT:HEX, COUNT records of that type, or "unread", from when on nothing is read
 *         while records are sent (by default what has come is read now and then), or "spoilt": from then on the tag is wrong. "narrow",
 *         as the first: the socket takes little.
 *
 * Prints "sent N" (records that went out before the peer closed or took no more for 2 s), "status N" of the last HTTP answer, if there was
 * one, and "end WHAT": the alert's name, "eof", "reset", or "open" when an answer came and nothing behind it.
 *
 * The library makes the handshake with TLS_AES_128_GCM_SHA256 or its like of 1.2, and reads; the keys for writing are made here once more from
 * the secrets that it tells to whoever wants to log them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY 16
#define TAG 16
#define RECORD_MAX 17000
#define IDLE_MS 2000
#define ANSWER_MS 10000

static struct {
    bool tls13;
    unsigned char secret[48]; /* of the client's traffic (1.3), the master secret (1.2) */
    unsigned char key[KEY], iv[12];
    uint64_t seq;
} writing;

static SSL *ssl;
static int fd;
static bool unread, spoilt, ended;
static char answer[1 << 16];
static size_t answer_len;
static int status;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "records: %s: %s\n", what, errno ? strerror(errno) : "");
    ERR_print_errors_fp(stderr);
    exit(1);
}

static size_t unhex(const char *hex, unsigned char *to, size_t max)
{
    size_t n = 0;
    unsigned byte;

    while (n < max && sscanf(hex, "%2x", &byte) == 1) {
        to[n++] = (unsigned char) byte;
        hex += 2;
    }
    return n;
}

/* Keys --------------------------------------------------------------------------------------- */

static void keylog(const SSL *s, const char *line)
{
    const char *secret = strrchr(line, ' ') + 1;

    (void) s;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) == 0 || strncmp(line, "CLIENT_RANDOM ", 14) == 0)
        unhex(secret, writing.secret, sizeof(writing.secret));
}

static void derive(const char *kdf_name, OSSL_PARAM *params, unsigned char *out, size_t len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, kdf_name, NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);

    if (EVP_KDF_derive(ctx, out, len, params) <= 0)
        die("derive");
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
}

/* RFC 8446, 7.1 */
static void expand_label(const char *label, unsigned char *out, size_t len)
{
    unsigned char info[64];
    size_t label_len = strlen(label);
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[5];

    info[0] = 0;
    info[1] = (unsigned char) len;
    info[2] = (unsigned char) (6 + label_len);
    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, label_len);
    info[9 + label_len] = 0;
    params[0] = OSSL_PARAM_construct_int("mode", &mode);
    params[1] = OSSL_PARAM_construct_utf8_string("digest", (char *) "SHA256", 0);
    params[2] = OSSL_PARAM_construct_octet_string("key", writing.secret, 32);
    params[3] = OSSL_PARAM_construct_octet_string("info", info, 10 + label_len);
    params[4] = OSSL_PARAM_construct_end();
    derive("HKDF", params, out, len);
}

/* RFC 5246, 6.3 */
static void key_block(unsigned char *out, size_t len)
{
    unsigned char seed[13 + 64] = "key expansion";
    OSSL_PARAM params[4];

    SSL_get_server_random(ssl, seed + 13, 32);
    SSL_get_client_random(ssl, seed + 45, 32);
    params[0] = OSSL_PARAM_construct_utf8_string("digest", (char *) "SHA256", 0);
    params[1] = OSSL_PARAM_construct_octet_string("secret", writing.secret, 48);
    params[2] = OSSL_PARAM_construct_octet_string("seed", seed, sizeof(seed));
    params[3] = OSSL_PARAM_construct_end();
    derive("TLS1-PRF", params, out, len);
}

static void make_keys(void)
{
    unsigned char block[2 * KEY + 8];

    if (writing.tls13) {
        expand_label("key", writing.key, KEY);
        expand_label("iv", writing.iv, 12);
        writing.seq = 0;
        return;
    }
    key_block(block, sizeof(block));
    memcpy(writing.key, block, KEY);
    memcpy(writing.iv, block + 2 * KEY, 4);
    writing.seq = 1; /* behind Finished */
}

static void update_keys(void)
{
    unsigned char next[32];

    expand_label("traffic upd", next, sizeof(next));
    memcpy(writing.secret, next, sizeof(next));
    make_keys();
}

/* Records ------------------------------------------------------------------------------------ */

static void put_seq(unsigned char *p)
{
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char) (writing.seq >> (56 - 8 * i));
}

static size_t encrypt(unsigned char *out, const unsigned char *aad, int aad_len, const unsigned char *nonce,
                      const unsigned char *in, size_t len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;

    EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, writing.key, nonce);
    EVP_EncryptUpdate(ctx, NULL, &n, aad, aad_len);
    EVP_EncryptUpdate(ctx, out, &n, in, (int) len);
    EVP_EncryptFinal_ex(ctx, out + len, &n);
    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, out + len);
    EVP_CIPHER_CTX_free(ctx);
    return len + TAG;
}

static void set_header(unsigned char *out, unsigned type, size_t len)
{
    out[0] = (unsigned char) type;
    out[1] = out[2] = 3;
    out[3] = (unsigned char) (len >> 8);
    out[4] = (unsigned char) len;
}

static size_t protect(unsigned char *out, unsigned type, const unsigned char *data, size_t len)
{
    unsigned char nonce[12], aad[13], inner[RECORD_MAX];
    size_t n;

    memcpy(nonce, writing.iv, 12);
    if (writing.tls13) {
        unsigned char seq[8];

        put_seq(seq);
        for (int i = 0; i < 8; i++)
            nonce[4 + i] ^= seq[i];
        memcpy(inner, data, len);
        inner[len] = (unsigned char) type;
        set_header(out, SSL3_RT_APPLICATION_DATA, len + 1 + TAG);
        n = encrypt(out + 5, out, 5, nonce, inner, len + 1);
    } else {
        put_seq(nonce + 4);
        put_seq(aad);
        set_header(aad + 8, type, len);
        memcpy(out + 5, nonce + 4, 8);
        n = 8 + encrypt(out + 13, aad, 13, nonce, data, len);
        set_header(out, type, n);
    }
    writing.seq++;
    if (spoilt)
        out[4 + n] ^= 1;
    return 5 + n;
}

/* Reading ------------------------------------------------------------------------------------ */

static const char *end_of(int n)
{
    int error = SSL_get_error(ssl, n);
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);

    if (error == SSL_ERROR_ZERO_RETURN)
        return "close notify";
    if (error == SSL_ERROR_SYSCALL)
        return errno == ECONNRESET || errno == EPIPE ? "reset" : "eof";
    if (reason > 1000)
        return SSL_alert_desc_string_long(reason - 1000);
    return reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ? "eof" : ERR_reason_error_string(code);
}

static void look_for_status(void)
{
    char *at = answer;

    answer[answer_len] = 0;
    while ((at = strstr(at, "HTTP/1.1 ")) != NULL) {
        status = atoi(at + 9);
        at += 9;
    }
    answer_len = 0;
}

/* What is there; false at the end, which is printed. */
static bool take(void)
{
    for (;;) {
        int n;

        ERR_clear_error();
        errno = 0;
        n = SSL_read(ssl, answer + answer_len, (int) (sizeof(answer) - 1 - answer_len));
        if (n <= 0) {
            if (SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ)
                return true;
            printf("end %s\n", end_of(n));
            ended = true;
            return false;
        }
        answer_len += (size_t) n;
        look_for_status();
    }
}

static bool send_all(const unsigned char *data, size_t len)
{
    while (len > 0) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            if (poll(&p, 1, IDLE_MS) == 0)
                return false;
            if (!unread && !take())
                return false;
            continue;
        }
        if (n < 0)
            return false;
        data += n;
        len -= (size_t) n;
    }
    return true;
}

static unsigned long send_records(char *spec)
{
    unsigned type = (unsigned) strtoul(strtok(spec, ":"), NULL, 10);
    unsigned long count = strtoul(strtok(NULL, ":"), NULL, 10), sent = 0;
    const char *hex = strtok(NULL, ":");
    static unsigned char data[RECORD_MAX], batch[RECORD_MAX * 4];
    size_t len = hex != NULL ? unhex(hex, data, sizeof(data) - 1) : 0, have = 0;

    while (sent < count && !ended) {
        have += protect(batch + have, type, data, len);
        if (writing.tls13 && type == SSL3_RT_HANDSHAKE && len == 5 && data[0] == SSL3_MT_KEY_UPDATE)
            update_keys();
        sent++;
        if (sent == count || have > sizeof(batch) - RECORD_MAX - 100) {
            if (!send_all(batch, have) || (!unread && !take()))
                break;
            have = 0;
        }
    }
    return sent;
}

/* Until the end, or an answer that nothing follows. */
static void rest(void)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (take()) {
        if (poll(&p, 1, status ? 100 : ANSWER_MS) == 0) {
            printf("end %s\n", status ? "open" : "silence");
            return;
        }
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    unsigned long sent = 0;
    int one = 1;

    if (argc < 3)
        die("arguments");
    signal(SIGPIPE, SIG_IGN);
    to.sin_port = htons((uint16_t) atoi(argv[1]));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (argc > 3 && strcmp(argv[3], "narrow") == 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){ 4096 }, sizeof(int));
    if (connect(fd, (struct sockaddr *) &to, sizeof(to)) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    writing.tls13 = strcmp(argv[2], "1.3") == 0;
    SSL_CTX_set_max_proto_version(ctx, writing.tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_min_proto_version(ctx, writing.tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-GCM-SHA256");
    SSL_CTX_set_keylog_callback(ctx, keylog);
    ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1)
        die("handshake");
    make_keys();
    SSL_clear_mode(ssl, SSL_MODE_AUTO_RETRY);
    one = 1;
    BIO_socket_nbio(fd, 1);
    for (int i = 3; i < argc && !ended; i++) {
        if (strcmp(argv[i], "unread") == 0)
            unread = true;
        else if (strcmp(argv[i], "spoilt") == 0)
            spoilt = true;
        else if (strcmp(argv[i], "narrow") != 0)
            sent += send_records(argv[i]);
    }
    if (!ended)
        rest();
    printf("sent %lu\nstatus %d\n", sent, status);
    return 0;
}
