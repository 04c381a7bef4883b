/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The search in a password file and the comparison of a password with its hash. Called by the
 * auth_basic module; password_matches also in a thread, so it touches nothing but its arguments.
 */
#include "modules/http/htpasswd.h"

#include <crypt.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <unistd.h>

/* configure: switch=http_auth_basic_module default=on libs=libcrypt,openssl */

/* The file ------------------------------------------------------------------------------------ */

enum { LINE_START, LINE_NAME, LINE_HASH, LINE_SKIP };

void htpasswd_start(struct htpasswd *h, struct str user)
{
    ASSERT(user.len > 0);
    h->user = user;
    h->state = LINE_START;
    h->found = h->unusable = false;
    h->matched = h->len = 0;
}

bool htpasswd_end(struct htpasswd *h)
{
    h->found = h->state == LINE_HASH;
    h->state = LINE_SKIP;
    h->hash[h->len] = '\0';
    return h->found;
}

static void take_name(struct htpasswd *h, char c)
{
    if (h->matched == h->user.len)
        h->state = c == ':' ? LINE_HASH : LINE_SKIP;
    else if (c == h->user.ptr[h->matched])
        h->matched++;
    else
        h->state = LINE_SKIP;
}

bool htpasswd_feed(struct htpasswd *h, const char *p, size_t len)
{
    for (const char *end = p + len; p < end; p++) {
        char c = *p;

        if (h->state == LINE_HASH) {
            if (c == '\n' || c == '\r' || c == ':')
                return htpasswd_end(h);
            if (h->len < HTPASSWD_HASH_MAX)
                h->hash[h->len++] = c;
            else
                h->unusable = true;
            continue;
        }
        if (c == '\n') {
            h->state = LINE_START;
            h->matched = 0;
            continue;
        }
        if (h->state == LINE_START)
            h->state = c == '#' ? LINE_SKIP : LINE_NAME;
        if (h->state == LINE_NAME) {
            take_name(h, c);
        } else {
            /* Nothing on the rest of the line is wanted. */
            p = memchr(p, '\n', (size_t) (end - p));
            if (p == NULL)
                break;
            p--;
        }
    }
    return false;
}

int htpasswd_search(struct htpasswd *h, int fd)
{
    char buf[8192];
    size_t total = 0;
    ssize_t n;

    for (;;) {
        n = read(fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (htpasswd_feed(h, buf, (size_t) n))
            return 0;
        total += (size_t) n;
        if (total > HTPASSWD_FILE_MAX) {
            errno = EFBIG;
            return -1;
        }
    }
    if (n == 0)
        htpasswd_end(h);
    return n == 0 ? 0 : -1;
}

/* Comparing ----------------------------------------------------------------------------------- */

static bool equal(struct str a, struct str b)
{
    return a.len == b.len && CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0;
}

/* One digest of up to two parts. The digest's size, 0 when the library refuses. */
static unsigned digest(const EVP_MD *md, struct str a, struct str b, unsigned char *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned len = 0;

    if (ctx == NULL || EVP_DigestInit_ex(ctx, md, NULL) != 1
        || EVP_DigestUpdate(ctx, a.ptr, a.len) != 1 || EVP_DigestUpdate(ctx, b.ptr, b.len) != 1
        || EVP_DigestFinal_ex(ctx, out, &len) != 1)
        len = 0;
    EVP_MD_CTX_free(ctx);
    return len;
}

/* Takes as long as the given password is, whatever the length of the right one. */
static bool matches_plain(struct str password, struct str data)
{
    volatile unsigned char differ = password.len != data.len;

    for (size_t i = 0; i < password.len && data.len > 0; i++)
        differ |= (unsigned char) (password.ptr[i] ^ data.ptr[i % data.len]);
    return differ == 0;
}

#define SHA1_LEN 20

/* {SHA}, and with a salt behind the digest {SSHA} (RFC 2307, 5.3). */
static bool matches_sha(struct str password, struct str data, bool salted)
{
    unsigned char raw[HTPASSWD_HASH_MAX], sum[EVP_MAX_MD_SIZE];
    struct str salt;
    int len;

    if (data.len == 0 || data.len > HTPASSWD_HASH_MAX || data.len % 4 != 0)
        return false;
    len = EVP_DecodeBlock(raw, (const unsigned char *) data.ptr, (int) data.len);
    if (len < 0)
        return false;
    /* The padding has been decoded as if it stood for bytes. */
    for (size_t i = data.len; i > data.len - 2 && data.ptr[i - 1] == '='; i--)
        len--;
    if (len < SHA1_LEN || (!salted && len != SHA1_LEN))
        return false;
    salt = str_from((const char *) raw + SHA1_LEN, (size_t) len - SHA1_LEN);
    return digest(EVP_sha1(), password, salt, sum) == SHA1_LEN
           && CRYPTO_memcmp(raw, sum, SHA1_LEN) == 0;
}

/* apr1: the MD5 of crypt(3) under another name ------------------------------------------------ */

#define MD5_LEN 16
#define APR1_ROUNDS 1000
#define APR1_SALT 8

struct md5 {
    EVP_MD *md;
    EVP_MD_CTX *ctx;
    bool failed;
};

static void md5_start(struct md5 *m)
{
    m->failed |= EVP_DigestInit_ex(m->ctx, m->md, NULL) != 1;
}

static void md5_add(struct md5 *m, const void *p, size_t len)
{
    m->failed |= EVP_DigestUpdate(m->ctx, p, len) != 1;
}

static void md5_end(struct md5 *m, unsigned char *out)
{
    m->failed |= EVP_DigestFinal_ex(m->ctx, out, NULL) != 1;
}

static void apr1_first(struct md5 *m, struct str password, struct str salt, unsigned char *sum)
{
    unsigned char inner[MD5_LEN];

    md5_start(m);
    md5_add(m, password.ptr, password.len);
    md5_add(m, salt.ptr, salt.len);
    md5_add(m, password.ptr, password.len);
    md5_end(m, inner);

    md5_start(m);
    md5_add(m, password.ptr, password.len);
    md5_add(m, "$apr1$", 6);
    md5_add(m, salt.ptr, salt.len);
    for (size_t left = password.len; left > 0; left -= MIN(left, (size_t) MD5_LEN))
        md5_add(m, inner, MIN(left, (size_t) MD5_LEN));
    for (size_t bits = password.len; bits > 0; bits >>= 1)
        md5_add(m, bits & 1 ? "" : password.ptr, 1);
    md5_end(m, sum);
}

static void apr1_round(struct md5 *m, unsigned i, struct str password, struct str salt,
                       unsigned char *sum)
{
    md5_start(m);
    if (i & 1)
        md5_add(m, password.ptr, password.len);
    else
        md5_add(m, sum, MD5_LEN);
    if (i % 3 != 0)
        md5_add(m, salt.ptr, salt.len);
    if (i % 7 != 0)
        md5_add(m, password.ptr, password.len);
    if (i & 1)
        md5_add(m, sum, MD5_LEN);
    else
        md5_add(m, password.ptr, password.len);
    md5_end(m, sum);
}

/* 22 digits of six bits, the lowest first. */
static void apr1_text(const unsigned char *sum, char *p)
{
    static const char digits[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    for (unsigned i = 0; i < 5; i++) {
        unsigned last = i == 4 ? 5 : i + 12;
        unsigned v = (unsigned) sum[i] << 16 | (unsigned) sum[i + 6] << 8 | sum[last];

        for (unsigned k = 0; k < 4; k++, v >>= 6)
            *p++ = digits[v & 63];
    }
    *p++ = digits[sum[11] & 63];
    *p = digits[sum[11] >> 6];
}

#define APR1_TEXT 22

static bool matches_apr1(struct str password, struct str data)
{
    struct md5 m = { EVP_MD_fetch(NULL, "MD5", NULL), EVP_MD_CTX_new(), false };
    ssize_t dollar = str_chr(data, '$');
    struct str salt = str_from(data.ptr, (size_t) MAX(dollar, (ssize_t) 0));
    unsigned char sum[MD5_LEN];
    char text[APR1_TEXT];
    bool fits = false;

    if (m.md != NULL && m.ctx != NULL && dollar >= 0 && dollar <= APR1_SALT) {
        apr1_first(&m, password, salt, sum);
        for (unsigned i = 0; i < APR1_ROUNDS; i++)
            apr1_round(&m, i, password, salt, sum);
        apr1_text(sum, text);
        fits = !m.failed && equal(str_from(text, sizeof(text)), str_skip(data, salt.len + 1));
    }
    EVP_MD_CTX_free(m.ctx);
    EVP_MD_free(m.md);
    return fits;
}

/* The kinds ----------------------------------------------------------------------------------- */

static bool matches_crypt(struct str password, struct str hash)
{
    struct crypt_data *data = mem_zalloc(sizeof(*data));
    const char *made = crypt_r(password.ptr, hash.ptr, data);
    /* What could not be computed is a text that no hash begins with. */
    bool fits = made != NULL && made[0] != '*' && equal(str_cstr(made), hash);

    OPENSSL_cleanse(data, sizeof(*data));
    free(data);
    return fits;
}

bool password_is_slow(struct str hash)
{
    return !str_starts(hash, STR("{"));
}

bool password_matches(struct str password, struct str hash)
{
    if (hash.len == 0 || str_chr(password, '\0') >= 0 || str_chr(hash, '\0') >= 0)
        return false;
    if (str_starts(hash, STR("{PLAIN}")))
        return matches_plain(password, str_skip(hash, 7));
    if (str_starts(hash, STR("{SSHA}")))
        return matches_sha(password, str_skip(hash, 6), true);
    if (str_starts(hash, STR("{SHA}")))
        return matches_sha(password, str_skip(hash, 5), false);
    if (str_starts(hash, STR("$apr1$")))
        return matches_apr1(password, str_skip(hash, 6));
    return matches_crypt(password, hash);
}
