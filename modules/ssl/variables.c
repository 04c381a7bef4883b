/* SPDX-License-Identifier: BSD-2-Clause */
/* $ssl_… : what is known of the request's connection and of the client's certificate. */
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pem.h>

#include "core/base/fmt.h"
#include "modules/ssl/http.h"

/* NULL where the request did not come over TLS (or is only explained). */
static SSL *ssl_of(struct eval *e)
{
    const struct client *c = req_of(e)->client;

    return c->tls && conn_is_tls(c->conn) ? conn_tls_ssl(c->conn) : NULL;
}

static struct str hex(struct arena *arena, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    char *buf = arena_bytes(arena, len * 2 + 1);

    for (size_t i = 0; i < len; i++) {
        buf[2 * i] = digits[bytes[i] >> 4];
        buf[2 * i + 1] = digits[bytes[i] & 15];
    }
    return str_from(buf, len * 2);
}

/* The connection ------------------------------------------------------------------------------ */

typedef struct str of_connection(struct eval *e, SSL *ssl);

static struct str protocol(struct eval *e UNUSED, SSL *ssl)
{
    return str_cstr(SSL_get_version(ssl));
}

static struct str cipher(struct eval *e UNUSED, SSL *ssl)
{
    return str_cstr(SSL_get_cipher_name(ssl));
}

static struct str session_reused(struct eval *e UNUSED, SSL *ssl)
{
    return SSL_session_reused(ssl) ? STR("r") : STR(".");
}

static struct str session_id(struct eval *e, SSL *ssl)
{
    const SSL_SESSION *session = SSL_get0_session(ssl);
    const unsigned char *id;
    unsigned len;

    if (session == NULL)
        return STR("");
    id = SSL_SESSION_get_id(session, &len);
    return hex(e->arena, id, len);
}

static struct str server_name(struct eval *e, SSL *ssl)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    return name != NULL ? str_dup(e->arena, str_cstr(name)) : STR("");
}

static struct str alpn(struct eval *e UNUSED, SSL *ssl)
{
    const unsigned char *name;
    unsigned len;

    SSL_get0_alpn_selected(ssl, &name, &len);
    return str_from((const char *) name, len);
}

static struct str ja3(struct eval *e, SSL *ssl)
{
    return str_dup(e->arena, http_ssl_ja3(ssl));
}

static struct str ja4(struct eval *e, SSL *ssl)
{
    return str_dup(e->arena, http_ssl_ja4(ssl));
}

static struct str early_data(struct eval *e UNUSED, SSL *ssl)
{
    return SSL_is_init_finished(ssl) ? STR("") : STR("1");
}

/* The client's offer, by the library's names; what it does not know as a number. */
static struct str ciphers(struct eval *e, SSL *ssl)
{
    const unsigned char *raw, *p;
    size_t width = SSL_get0_raw_cipherlist(ssl, NULL), len = SSL_get0_raw_cipherlist(ssl, &raw);
    size_t room = 1;
    char *buf, *end;

    if (width < 2 || len == 0)
        return STR("");
    for (p = raw; p + width <= raw + len; p += width) {
        const SSL_CIPHER *c = SSL_CIPHER_find(ssl, p);

        room += (c != NULL ? strlen(SSL_CIPHER_get_name(c)) : 6) + 1;
    }
    buf = end = arena_bytes(e->arena, room);
    for (p = raw; p + width <= raw + len; p += width) {
        const SSL_CIPHER *c = SSL_CIPHER_find(ssl, p);

        if (c != NULL)
            end = stpcpy(end, SSL_CIPHER_get_name(c));
        else
            end += snprintf(end, 7, "0x%02x%02x", p[0], p[1]);
        *end++ = ':';
    }
    return str_from(buf, (size_t) (end - buf) - 1);
}

/* A group of the client's by its short name, or its number. */
static char *put_group(char *p, size_t room, int nid)
{
    int n = nid & TLSEXT_nid_unknown ? snprintf(p, room, "0x%04x", (unsigned) nid & 0xffff)
                                     : snprintf(p, room, "%s", OBJ_nid2sn(nid));

    return p + MIN((size_t) MAX(n, 0), room - 1);
}

#define GROUP_ROOM 64

static struct str curve(struct eval *e, SSL *ssl)
{
    int nid = (int) SSL_get_negotiated_group(ssl);
    char *buf;

    if (nid == NID_undef)
        return STR("");
    buf = arena_bytes(e->arena, GROUP_ROOM);
    return str_from(buf, (size_t) (put_group(buf, GROUP_ROOM, nid) - buf));
}

static struct str curves(struct eval *e, SSL *ssl)
{
    int n = SSL_get1_groups(ssl, NULL);
    char *buf, *end;
    int *nids;

    if (n <= 0)
        return STR("");
    nids = ARENA_ARRAY(e->arena, int, (size_t) n);
    n = SSL_get1_groups(ssl, nids);
    buf = end = arena_bytes(e->arena, (size_t) n * GROUP_ROOM);
    for (int i = 0; i < n; i++) {
        end = put_group(end, GROUP_ROOM - 1, nids[i]);
        *end++ = ':';
    }
    return str_from(buf, (size_t) (end - buf) - 1);
}

/* The client's certificate --------------------------------------------------------------------- */

static struct str bio_text(struct arena *arena, BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    struct str text = str_dup(arena, str_from(data, (size_t) MAX(len, 0)));

    BIO_free(bio);
    return text;
}

static struct str pem(struct eval *e, X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return STR("");
    PEM_write_bio_X509(bio, cert);
    return bio_text(e->arena, bio);
}

/* The same as the value of a header field folded over lines: a tab behind each line feed, and none at the end. */
static struct str pem_folded(struct eval *e, X509 *cert)
{
    struct str text = pem(e, cert);
    char *buf = arena_bytes(e->arena, text.len * 2 + 1), *end = buf;

    if (text.len > 0 && text.ptr[text.len - 1] == '\n')
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        *end++ = text.ptr[i];
        if (text.ptr[i] == '\n')
            *end++ = '\t';
    }
    return str_from(buf, (size_t) (end - buf));
}

static struct str pem_escaped(struct eval *e, X509 *cert)
{
    return fmt_escape_dup(e->arena, pem(e, cert), FMT_ESCAPE_URI_COMPONENT);
}

static struct str name_text(struct eval *e, const X509_NAME *name)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return STR("");
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253);
    return bio_text(e->arena, bio);
}

static struct str name_line(struct eval *e, const X509_NAME *name)
{
    char *line = X509_NAME_oneline(name, NULL, 0);
    struct str text = line != NULL ? str_dup(e->arena, str_cstr(line)) : STR("");

    OPENSSL_free(line);
    return text;
}

static struct str subject(struct eval *e, X509 *cert)
{
    return name_text(e, X509_get_subject_name(cert));
}

static struct str issuer(struct eval *e, X509 *cert)
{
    return name_text(e, X509_get_issuer_name(cert));
}

static struct str subject_line(struct eval *e, X509 *cert)
{
    return name_line(e, X509_get_subject_name(cert));
}

static struct str issuer_line(struct eval *e, X509 *cert)
{
    return name_line(e, X509_get_issuer_name(cert));
}

static struct str serial(struct eval *e, X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return STR("");
    i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(cert));
    return bio_text(e->arena, bio);
}

static struct str fingerprint(struct eval *e, X509 *cert)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;

    return X509_digest(cert, EVP_sha1(), digest, &len) ? hex(e->arena, digest, len) : STR("");
}

static struct str time_text(struct eval *e, const ASN1_TIME *t)
{
    BIO *bio = BIO_new(BIO_s_mem());

    if (bio == NULL)
        return STR("");
    ASN1_TIME_print(bio, t);
    return bio_text(e->arena, bio);
}

static struct str valid_from(struct eval *e, X509 *cert)
{
    return time_text(e, X509_get0_notBefore(cert));
}

static struct str valid_until(struct eval *e, X509 *cert)
{
    return time_text(e, X509_get0_notAfter(cert));
}

static struct str days_left(struct eval *e, X509 *cert)
{
    int days, seconds;

    if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)))
        return STR("");
    return str_printf(e->arena, "%d", MAX(days, 0));
}

typedef struct str of_certificate(struct eval *e, X509 *cert);

static of_certificate *const certificate_values[] = {
    pem,         pem_folded, pem_escaped, subject,    issuer,      subject_line,
    issuer_line, serial,     fingerprint, valid_from, valid_until, days_left,
};
enum {
    PEM,
    PEM_FOLDED,
    PEM_ESCAPED,
    SUBJECT,
    ISSUER,
    SUBJECT_LINE,
    ISSUER_LINE,
    SERIAL,
    FINGERPRINT,
    VALID_FROM,
    VALID_UNTIL,
    DAYS_LEFT,
};

static bool get_certificate(struct eval *e, const struct var *v, struct str *out)
{
    SSL *ssl = ssl_of(e);
    X509 *cert = ssl != NULL ? SSL_get0_peer_certificate(ssl) : NULL;

    *out = cert != NULL ? certificate_values[v->data](e, cert) : STR("");
    ERR_clear_error();
    return out->len > 0;
}

static bool get_verify(struct eval *e, const struct var *v UNUSED, struct str *out)
{
    const struct ocsp_spec *ocsp = &http_ssl_of(req_of(e)->server)->ocsp;
    SSL *ssl = ssl_of(e);
    const char *failure;
    bool asked;
    long result;

    if (ssl == NULL)
        return false;
    result = SSL_get_verify_result(ssl);
    failure = ocsp_check_failure(ssl, ocsp, &asked);
    if (SSL_get0_peer_certificate(ssl) == NULL)
        *out = STR("NONE");
    else if (result == X509_V_OK && failure != NULL)
        *out = str_printf(e->arena, "FAILED:%s", failure);
    else if (result == X509_V_OK)
        *out = STR("SUCCESS");
    else
        *out = str_printf(e->arena, "FAILED:%s", X509_verify_cert_error_string(result));
    return true;
}

/* Algorithms of signatures ---------------------------------------------------------------------- */

/* RFC 8446, 4.2.3. type and hash as the library numbers them; pss: the key itself is for RSA-PSS only. */
static const struct sigalg {
    unsigned code;
    int type, hash;
    bool pss;
    const char *name;
} sigalgs[] = {
    { 0x0403, EVP_PKEY_EC, NID_sha256, false, "ecdsa_secp256r1_sha256" },
    { 0x0503, EVP_PKEY_EC, NID_sha384, false, "ecdsa_secp384r1_sha384" },
    { 0x0603, EVP_PKEY_EC, NID_sha512, false, "ecdsa_secp521r1_sha512" },
    { 0x0804, EVP_PKEY_RSA_PSS, NID_sha256, false, "rsa_pss_rsae_sha256" },
    { 0x0805, EVP_PKEY_RSA_PSS, NID_sha384, false, "rsa_pss_rsae_sha384" },
    { 0x0806, EVP_PKEY_RSA_PSS, NID_sha512, false, "rsa_pss_rsae_sha512" },
    { 0x0809, EVP_PKEY_RSA_PSS, NID_sha256, true, "rsa_pss_pss_sha256" },
    { 0x080a, EVP_PKEY_RSA_PSS, NID_sha384, true, "rsa_pss_pss_sha384" },
    { 0x080b, EVP_PKEY_RSA_PSS, NID_sha512, true, "rsa_pss_pss_sha512" },
    { 0x0807, EVP_PKEY_ED25519, NID_undef, false, "ed25519" },
    { 0x0808, EVP_PKEY_ED448, NID_undef, false, "ed448" },
    { 0x0401, EVP_PKEY_RSA, NID_sha256, false, "rsa_pkcs1_sha256" },
    { 0x0501, EVP_PKEY_RSA, NID_sha384, false, "rsa_pkcs1_sha384" },
    { 0x0601, EVP_PKEY_RSA, NID_sha512, false, "rsa_pkcs1_sha512" },
    { 0x0303, EVP_PKEY_EC, NID_sha224, false, "ecdsa_sha224" },
    { 0x0203, EVP_PKEY_EC, NID_sha1, false, "ecdsa_sha1" },
    { 0x0301, EVP_PKEY_RSA, NID_sha224, false, "rsa_pkcs1_sha224" },
    { 0x0201, EVP_PKEY_RSA, NID_sha1, false, "rsa_pkcs1_sha1" },
};

static struct str sigalg_name(int type, int hash, X509 *cert)
{
    bool pss = cert != NULL && EVP_PKEY_is_a(X509_get0_pubkey(cert), "RSA-PSS");

    for (unsigned i = 0; i < ARRAY_LEN(sigalgs); i++) {
        if (sigalgs[i].type == type && sigalgs[i].pss == pss &&
            (sigalgs[i].hash == hash || sigalgs[i].hash == NID_undef))
            return str_cstr(sigalgs[i].name);
    }
    return STR("");
}

static struct str server_sigalg(struct eval *e UNUSED, SSL *ssl)
{
    int type, hash;

    if (!SSL_get_signature_type_nid(ssl, &type) || !SSL_get_signature_nid(ssl, &hash))
        return STR("");
    return sigalg_name(type, hash, SSL_get_certificate(ssl));
}

static struct str client_sigalg(struct eval *e UNUSED, SSL *ssl)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    int type, hash;

    if (cert == NULL || !SSL_get_peer_signature_type_nid(ssl, &type) ||
        !SSL_get_peer_signature_nid(ssl, &hash))
        return STR("");
    return sigalg_name(type, hash, cert);
}

#define SIGALG_ROOM 32

/* The client's offer, what is not known as a number. */
static struct str offered_sigalgs(struct eval *e, SSL *ssl)
{
    int n = SSL_get_sigalgs(ssl, -1, NULL, NULL, NULL, NULL, NULL);
    char *buf = arena_bytes(e->arena, (size_t) MAX(n, 0) * SIGALG_ROOM + 1), *end = buf;

    for (int i = 0; i < n; i++) {
        unsigned char low, high;
        const char *name = NULL;
        unsigned code;

        SSL_get_sigalgs(ssl, i, NULL, NULL, NULL, &low, &high);
        code = (unsigned) high << 8 | low;
        for (unsigned k = 0; k < ARRAY_LEN(sigalgs) && name == NULL; k++)
            name = sigalgs[k].code == code ? sigalgs[k].name : NULL;
        end += name != NULL ? snprintf(end, SIGALG_ROOM, "%s:", name)
                            : snprintf(end, SIGALG_ROOM, "0x%04x:", code);
    }
    return str_from(buf, end > buf ? (size_t) (end - buf) - 1 : 0);
}

/* The rows ------------------------------------------------------------------------------------- */

/* data of a row: which of these. */
static of_connection *const connection_values[] = {
    protocol, cipher, session_reused, session_id,    server_name,     alpn, early_data, ciphers,
    curve,    curves, server_sigalg,  client_sigalg, offered_sigalgs, ja3,  ja4,
};
enum {
    PROTOCOL,
    CIPHER,
    SESSION_REUSED,
    SESSION_ID,
    SERVER_NAME,
    ALPN,
    EARLY_DATA,
    CIPHERS,
    CURVE,
    CURVES,
    SERVER_SIGALG,
    CLIENT_SIGALG,
    OFFERED_SIGALGS,
    JA3,
    JA4,
};

static bool get_connection(struct eval *e, const struct var *v, struct str *out)
{
    SSL *ssl = ssl_of(e);

    *out = ssl != NULL ? connection_values[v->data](e, ssl) : STR("");
    ERR_clear_error();
    return out->len > 0;
}

/* Of an encrypted hello: there is none without ssl_ech_file. */
static bool get_nothing(struct eval *e UNUSED, const struct var *v UNUSED, struct str *out)
{
    *out = STR("");
    return false;
}

#define CONNECTION(name_, what_)                            \
    {                                                       \
        .name = name_, .get = get_connection, .data = what_ \
    }
#define CERTIFICATE(name_, what_)                            \
    {                                                        \
        .name = name_, .get = get_certificate, .data = what_ \
    }

const struct var_row http_ssl_variables[] = {
    CONNECTION("ssl_protocol", PROTOCOL),
    CONNECTION("ssl_cipher", CIPHER),
    CONNECTION("ssl_ciphers", CIPHERS),
    CONNECTION("ssl_curve", CURVE),
    CONNECTION("ssl_curves", CURVES),
    CONNECTION("ssl_session_id", SESSION_ID),
    CONNECTION("ssl_session_reused", SESSION_REUSED),
    CONNECTION("ssl_early_data", EARLY_DATA),
    CONNECTION("ssl_server_name", SERVER_NAME),
    CONNECTION("ssl_alpn_protocol", ALPN),
    CERTIFICATE("ssl_client_cert", PEM_FOLDED),
    CERTIFICATE("ssl_client_raw_cert", PEM),
    CERTIFICATE("ssl_client_escaped_cert", PEM_ESCAPED),
    CERTIFICATE("ssl_client_s_dn", SUBJECT),
    CERTIFICATE("ssl_client_i_dn", ISSUER),
    CERTIFICATE("ssl_client_s_dn_legacy", SUBJECT_LINE),
    CERTIFICATE("ssl_client_i_dn_legacy", ISSUER_LINE),
    CERTIFICATE("ssl_client_serial", SERIAL),
    CERTIFICATE("ssl_client_fingerprint", FINGERPRINT),
    CERTIFICATE("ssl_client_v_start", VALID_FROM),
    CERTIFICATE("ssl_client_v_end", VALID_UNTIL),
    CERTIFICATE("ssl_client_v_remain", DAYS_LEFT),
    { .name = "ssl_client_verify", .get = get_verify },
    CONNECTION("ssl_sigalg", SERVER_SIGALG),
    CONNECTION("ssl_sigalgs", OFFERED_SIGALGS),
    CONNECTION("ssl_client_sigalg", CLIENT_SIGALG),
    { .name = "ssl_ech_status", .get = get_nothing },
    { .name = "ssl_ech_outer_server_name", .get = get_nothing },
    /* Known only where the text of the configuration has one of them: see fingerprint.c. */
    CONNECTION("ssl_ja3_hash", JA3),
    CONNECTION("ssl_ja4", JA4),
    { .name = NULL },
};
