/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_key_log, proxy_ssl_key_log: the secrets of connections, a line each, in the form of NSS that Wireshark reads (SSLKEYLOGFILE). Whoever
 * has the file can read these connections, so it is made for its owner alone. It is opened and reopened as logs are.
 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/config/resource.h"
#include "modules/ssl/ssl.h"

static int file_index = -1;

const char *ssl_set_key_log(struct conf *cf, void *field)
{
    struct res_file *file;

    if (cf->args[1].len == 0)
        return conf_error_arg(cf, 1, "the path of \"%.*s\" is empty", STR_ARG(cf->args[0]));
    file = res_file(cf->config, conf_path(cf, cf->args[1], false));
    file->secret = true;
    *(struct res_file **) field = file;
    return NULL;
}

/* One write, for other workers append to the file, too. */
static void write_line(const SSL *ssl, const char *line)
{
    struct res_file *f = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), file_index);
    struct iovec iov[2] = { { (void *) (uintptr_t) line, strlen(line) }, { "\n", 1 } };
    ssize_t n;

    if (f->file.fd < 0)
        return;
    do
        n = writev(f->file.fd, iov, 2);
    while (n < 0 && errno == EINTR);
    if (n < 0 && !f->file.failed) {
        f->file.failed = true; /* said once, until the file is opened again */
        log_alert(log_main, errno, "write() to \"%.*s\" failed", STR_ARG(f->file.path));
    }
}

int ssl_log_keys(SSL_CTX *ctx, struct res_file *file)
{
    if (file_index < 0)
        file_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (file_index < 0 || SSL_CTX_set_ex_data(ctx, file_index, file) != 1)
        return -1;
    SSL_CTX_set_keylog_callback(ctx, write_line);
    return 0;
}
