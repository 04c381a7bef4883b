/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library's error queue in words: behind a sentence about the configuration, or in a line of the log whose level
 * depends on who can have caused it. Whoever calls into OpenSSL and fails comes here, so that the queue, which all
 * connections of the process share, is never left with something in it.
 */
#include <errno.h>
#include <openssl/err.h>

#include "modules/ssl/ssl.h"

#define TEXT_MAX 1024

const char *ssl_errors(void)
{
    static char text[TEXT_MAX];
    size_t n = (size_t) snprintf(text, sizeof(text), " (SSL:");
    const char *data;
    unsigned long code;
    int flags;

    if (ERR_peek_error() == 0)
        return "";
    while ((code = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
        if (n + 16 >= sizeof(text))
            continue; /* the queue is emptied all the same */
        text[n++] = ' ';
        ERR_error_string_n(code, text + n, sizeof(text) - n - 2);
        n += strlen(text + n);
        if ((flags & ERR_TXT_STRING) && data != NULL && data[0] != '\0' && n + 3 < sizeof(text)) {
            int len = snprintf(text + n, sizeof(text) - n - 2, ":%s", data);

            n = MIN(n + (size_t) MAX(len, 0), sizeof(text) - 3);
        }
    }
    text[n++] = ')';
    text[n] = '\0';
    return text;
}

void ssl_conf_error(struct conf *cf, struct conf_pos pos, const char *fmt, ...)
{
    struct str sentence;
    va_list ap;

    va_start(ap, fmt);
    sentence = str_vprintf(cf->arena, fmt, ap);
    va_end(ap);
    conf_error_at(cf, pos, "%.*s%s", STR_ARG(sentence), ssl_errors());
}

/* Errors of the network that a peer brings about by going away. */
static bool is_peers_errno(int err)
{
    switch (err) {
    case 0:
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
    case ETIMEDOUT:
    case ECONNREFUSED:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH: return true;
    default: return false;
    }
}

/*
 * What the protocol code says is of the peer's making, except where it complains of us: of memory, of itself, or of how we have set it
 * up.
 */
static bool is_peers_error(unsigned long code)
{
    int reason = ERR_GET_REASON(code);

    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        return ERR_GET_LIB(code) == ERR_LIB_X509 || ERR_GET_LIB(code) == ERR_LIB_ASN1 ||
               ERR_GET_LIB(code) == ERR_LIB_EC || ERR_GET_LIB(code) == ERR_LIB_RSA;
    switch (reason) {
    case ERR_R_MALLOC_FAILURE:
    case ERR_R_INTERNAL_ERROR:
    case ERR_R_PASSED_NULL_PARAMETER:
    case SSL_R_NO_CERTIFICATE_ASSIGNED:
    case SSL_R_NO_CERTIFICATE_SET:
    case SSL_R_NO_PRIVATE_KEY_ASSIGNED:
    case SSL_R_NO_METHOD_SPECIFIED:
    case SSL_R_LIBRARY_BUG:
    case SSL_R_SESSION_ID_CONTEXT_UNINITIALIZED:
    case SSL_R_UNINITIALIZED: return false;
    default: return true;
    }
}

void ssl_log_failure(const struct logger *log, int sslerr, int err, const char *what)
{
    enum log_level level = LOG_CRIT_LEVEL;

    if (sslerr == SSL_ERROR_SYSCALL)
        level = is_peers_errno(err) ? LOG_INFO_LEVEL : LOG_CRIT_LEVEL;
    else if (sslerr == SSL_ERROR_SSL && is_peers_error(ERR_peek_last_error()))
        level = LOG_INFO_LEVEL;
    if (log_admits(log, level))
        log_write(log, level, sslerr == SSL_ERROR_SYSCALL ? err : 0, "%s%s", what, ssl_errors());
    else
        ERR_clear_error();
}
