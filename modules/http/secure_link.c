/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * secure_link: $secure_link says whether a link carries the right MD5 of itself and a secret, and
 * whether its time has come to an end. Two forms: checksum and time anywhere in the request
 * (secure_link, secure_link_md5), or /prefix/MD5/link (secure_link_secret).
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "core/base/clock.h"
#include "core/base/fmt.h"
#include "core/http/req.h"

/* configure: switch=http_secure_link_module default=on libs=openssl */

#define MD5_LEN 16
#define MD5_BASE64 24 /* with padding */

static unsigned secure_slot;

struct secure_conf {
    struct expr *link;
    struct expr *md5;
    struct str secret;
    bool has_secret;
};

static bool md5(struct req *r, struct str a, struct str b, unsigned char *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool done = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_md5(), NULL) == 1
                && EVP_DigestUpdate(ctx, a.ptr, a.len) == 1
                && EVP_DigestUpdate(ctx, b.ptr, b.len) == 1
                && EVP_DigestFinal_ex(ctx, out, NULL) == 1;

    EVP_MD_CTX_free(ctx);
    if (!done)
        log_alert(&r->log, 0, "the library computes no MD5");
    return done;
}

/* The time behind the comma; $secure_link_expires is this text. */
struct expiry {
    struct str text;
};

static bool check_link(struct req *r, const struct secure_conf *conf, struct str *out)
{
    struct str given = expr_eval(&r->eval, conf->link), sum;
    ssize_t comma = str_chr(given, ',');
    unsigned char real[MD5_LEN];
    uint64_t expires = 0;

    if (comma >= 0) {
        struct expiry *e = ARENA_NEW(r->arena, struct expiry);

        e->text = str_skip(given, (size_t) comma + 1);
        given.len = (size_t) comma;
        if (str_to_u64(e->text, &expires) != 0 || expires == 0 || expires > INT64_MAX)
            return false;
        req_ctx_set(r, secure_slot, e, CTX_PASS);
    }
    if (given.len > MD5_BASE64 || fmt_base64_decode(r->arena, given, true, &sum) != 0
        || sum.len != MD5_LEN)
        return false;
    if (!md5(r, expr_eval(&r->eval, conf->md5), STR(""), real)
        || CRYPTO_memcmp(sum.ptr, real, MD5_LEN) != 0)
        return false;
    *out = expires != 0 && expires < (uint64_t) clock_time() ? STR("0") : STR("1");
    return true;
}

/* /prefix/MD5 in hexadecimal/link, as the client wrote it. */
static bool check_path(struct req *r, const struct secure_conf *conf, struct str *out)
{
    struct str rest = r->unparsed_uri, sum;
    unsigned char real[MD5_LEN];
    char text[2 * MD5_LEN];
    ssize_t slash;

    if (rest.len == 0 || (slash = str_chr(str_skip(rest, 1), '/')) < 0)
        return false;
    rest = str_skip(rest, (size_t) slash + 2);
    slash = str_chr(rest, '/');
    if (slash != (ssize_t) sizeof(text))
        return false;
    sum = str_lower(r->arena, str_from(rest.ptr, sizeof(text)));
    rest = str_skip(rest, sizeof(text) + 1);
    if (!md5(r, rest, conf->secret, real))
        return false;
    fmt_hex_bytes(text, real, sizeof(real));
    *out = rest;
    return CRYPTO_memcmp(sum.ptr, text, sizeof(text)) == 0;
}

static bool get_secure_link(struct eval *e, const struct var *v, struct str *out)
{
    struct req *r = req_of(e);
    const struct secure_conf *conf = req_loc_conf(r, secure_slot);

    (void) v;
    if (conf->has_secret)
        return check_path(r, conf, out);
    return conf->link != NULL && conf->md5 != NULL && check_link(r, conf, out);
}

static bool get_expires(struct eval *e, const struct var *v, struct str *out)
{
    const struct expiry *x = req_ctx(req_of(e), secure_slot);

    (void) v;
    if (x == NULL)
        return false;
    *out = x->text;
    return true;
}

static const struct var_row variables[] = {
    { "secure_link", get_secure_link, NULL, 0, 0 },
    { "secure_link_expires", get_expires, NULL, 0, 0 },
    { NULL, NULL, NULL, 0, 0 },
};

static const char *set_secret(struct conf *cf, void *field)
{
    struct secure_conf *conf = container_of(field, struct secure_conf, secret);

    conf->secret = cf->args[1];
    conf->has_secret = true;
    return NULL;
}

/* The two forms exclude each other; either one set here hides the other from above. */
static int secure_finish(struct conf *cf, struct level *level, struct level *parent)
{
    struct secure_conf *conf = level_conf(level, STORE_LOC, secure_slot);
    bool link = conf_is_set(level, cf->module, "secure_link")
                || conf_is_set(level, cf->module, "secure_link_md5");

    (void) parent;
    if (conf_is_set(level, cf->module, "secure_link_secret")) {
        if (link) {
            conf_error_at(cf, level->pos,
                          "\"secure_link_secret\" cannot be mixed with \"secure_link\" and "
                          "\"secure_link_md5\"");
            return -1;
        }
        conf->link = conf->md5 = NULL;
    } else if (conf->link != NULL || conf->md5 != NULL) {
        conf->has_secret = false;
    }
    return 0;
}

enum { GROUP_SECRET = 1 };

static const struct directive directives[] = {
    ROW("secure_link", CTX_HSL, ARGS1, conf_set_expr, STORE_LOC, struct secure_conf, link,
        INHERIT_SCALAR, NULL, "expression",
        "The string from which checksum and lifetime of a link are taken."),
    ROW("secure_link_md5", CTX_HSL, ARGS1, conf_set_expr, STORE_LOC, struct secure_conf, md5,
        INHERIT_SCALAR, NULL, "expression", "The string whose MD5 the checksum must be."),
    ROW("secure_link_secret", CTX_HSL, ARGS1, set_secret, STORE_LOC, struct secure_conf,
        secret, INHERIT_SCALAR, NULL, "word", "The secret in the MD5 of /prefix/MD5/link.",
        .group = GROUP_SECRET),
    { .name = ".has_secret", .store = STORE_LOC, .offset = offsetof(struct secure_conf, has_secret),
      .size = sizeof(bool), .inherit = INHERIT_SCALAR, .group = GROUP_SECRET },
    ROW_END,
};

static const struct http_module http_secure_link = { .variables = variables };

const struct module module_http_secure_link = {
    .name = "http_secure_link",
    .slot = &secure_slot,
    .conf_size = { [STORE_LOC] = sizeof(struct secure_conf) },
    .directives = directives,
    .http = &http_secure_link,
    .finish = secure_finish,
};
