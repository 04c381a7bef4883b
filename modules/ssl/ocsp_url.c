/* SPDX-License-Identifier: BSD-2-Clause */
/* Where an OCSP responder is: its URL, from a directive or from a certificate. Only http:// will do (RFC 6960, A.1). */
#include <openssl/x509v3.h>

#include "modules/ssl/ocsp.h"

#define URL_MAX 2048

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char) s.ptr[i] <= ' ' || s.ptr[i] == 0x7f)
            return false;
    }
    return true;
}

/* "name:port", "[::1]:port". */
static int split_host(struct arena *arena, struct str host, struct ocsp_responder *out,
                      const char **error)
{
    struct str port = STR_NULL;
    uint64_t n = 80;
    ssize_t colon;

    if (host.len > 0 && host.ptr[0] == '[') {
        ssize_t end = str_chr(host, ']');

        if (end < 0) {
            *error = "invalid host";
            return -1;
        }
        out->name = str_dup(arena, str_from(host.ptr + 1, (size_t) end - 1));
        port = str_skip(host, (size_t) end + 1);
        colon = port.len > 0 ? 0 : -1;
    } else {
        colon = str_chr(host, ':');
        out->name = str_dup(arena, str_from(host.ptr, colon < 0 ? host.len : (size_t) colon));
        port = colon < 0 ? STR_NULL : str_skip(host, (size_t) colon);
    }
    if (out->name.len == 0) {
        *error = "no host";
        return -1;
    }
    if (str_chr(host, '@') >= 0) {
        *error = "invalid host";
        return -1;
    }
    if (colon >= 0 &&
        (port.ptr[0] != ':' || str_to_u64(str_skip(port, 1), &n) != 0 || n == 0 || n > 65535)) {
        *error = "invalid port";
        return -1;
    }
    out->port = (unsigned) n;
    return 0;
}

static int find_addresses(struct arena *arena, struct ocsp_responder *out, bool lookup,
                          const char **error)
{
    struct addr addr;
    struct str text =
        str_chr(out->name, ':') >= 0 ? str_printf(arena, "[%.*s]", STR_ARG(out->name)) : out->name;
    int n;

    if (addr_parse(&addr, text, out->port, false) == 0) {
        out->addrs = arena_alloc(arena, sizeof(addr));
        out->addrs[0] = addr;
        out->addr_count = 1;
        out->numeric = true;
        return 0;
    }
    if (!lookup)
        return 0;
    n = addr_resolve(arena, out->name, out->port, &out->addrs, error);
    out->addr_count = n > 0 ? (unsigned) n : 0;
    return n > 0 ? 0 : -1;
}

int ocsp_responder_parse(struct arena *arena, struct str url, bool lookup,
                         struct ocsp_responder *out, const char **error)
{
    struct str rest, host;
    ssize_t slash;

    *out = (struct ocsp_responder){ .url = str_dup(arena, url) };
    if (!str_casestarts(url, STR("http://"))) {
        *error = "invalid URL prefix";
        return -1;
    }
    rest = str_skip(out->url, sizeof("http://") - 1);
    if (url.len > URL_MAX || !is_plain(rest)) {
        *error = "invalid URL";
        return -1;
    }
    slash = str_chr(rest, '/');
    host = str_from(rest.ptr, slash < 0 ? rest.len : (size_t) slash);
    out->host = host;
    out->path = slash < 0 ? STR("/") : str_skip(rest, (size_t) slash);
    if (split_host(arena, host, out, error) != 0)
        return -1;
    return find_addresses(arena, out, lookup, error);
}

struct str ocsp_responder_of(struct arena *arena, X509 *cert)
{
    STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(cert);
    struct str url = STR_NULL;

    if (urls != NULL && sk_OPENSSL_STRING_num(urls) > 0)
        url = str_dup(arena, str_cstr(sk_OPENSSL_STRING_value(urls, 0)));
    X509_email_free(urls);
    return url;
}
