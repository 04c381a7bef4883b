/* SPDX-License-Identifier: BSD-2-Clause */
/* Setters of the values in an ssl_spec, for all directives that fill one in. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config/expr.h"
#include "modules/ssl/pairs.h"

#define PASSWORDS_MAX (64 * 1024) /* bytes of a password file */

const struct conf_enum ssl_protocol_names[] = {
    { "SSLv2", SSL_PROTO_SSL2 },
    { "SSLv3", SSL_PROTO_SSL3 },
    { "TLSv1", SSL_PROTO_TLS1 },
    { "TLSv1.1", SSL_PROTO_TLS11 },
    { "TLSv1.2", SSL_PROTO_TLS12 },
    { "TLSv1.3", SSL_PROTO_TLS13 },
    { NULL, 0 },
};

const struct conf_enum ssl_verify_names[] = {
    { "off", SSL_VERIFY_OFF },
    { "on", SSL_VERIFY_ON },
    { "optional", SSL_VERIFY_OPTIONAL },
    { "optional_no_ca", SSL_VERIFY_NO_CA },
    { NULL, 0 },
};

static struct ssl_file file_of(struct conf *cf)
{
    struct str path = cf->args[1];

    if (ssl_is_file(path) && path.len > 0)
        path = conf_path(cf, path, true);
    return (struct ssl_file){ .path = path, .pos = cf->pos };
}

const char *ssl_set_file(struct conf *cf, void *field)
{
    *(struct ssl_file *) field = file_of(cf);
    return NULL;
}

const char *ssl_set_file_list(struct conf *cf, void *field)
{
    struct ssl_files *files = field;
    struct ssl_file file = { .path = cf->args[1], .pos = cf->pos };
    const char *error = NULL;

    if (str_starts(cf->args[1], STR("engine:")))
        return conf_error_arg(cf, 1,
                              "engines are not supported, OpenSSL 3 has providers "
                              "(\"store:…\") in their place");
    if (str_chr(cf->args[1], '$') >= 0 && conf_var_space(cf) != NULL)
        file.name = ssl_name_compile(cf, &error);
    else
        file = file_of(cf);
    if (error != NULL)
        return error;
    files->items =
        arena_grow(cf->arena, files->items, files->count, &files->capacity, sizeof(*files->items));
    files->items[files->count++] = file;
    return NULL;
}

const char *ssl_set_text(struct conf *cf, void *field)
{
    *(struct ssl_text *) field = (struct ssl_text){ .text = cf->args[1], .pos = cf->pos };
    return NULL;
}

const char *ssl_set_command(struct conf *cf, void *field)
{
    struct ssl_commands *commands = field;

    commands->items = arena_grow(cf->arena, commands->items, commands->count, &commands->capacity,
                                 sizeof(*commands->items));
    commands->items[commands->count++] =
        (struct ssl_command){ .name = cf->args[1], .value = cf->args[2], .pos = cf->pos };
    return NULL;
}

/* Passwords ----------------------------------------------------------------------------------- */

static void wipe(void *data)
{
    struct ssl_passwords *passwords = data;

    for (unsigned i = 0; i < passwords->list.count; i++)
        OPENSSL_cleanse((char *) passwords->list.items[i].ptr, passwords->list.items[i].len);
}

static const char *read_passwords(struct conf *cf, struct ssl_passwords *passwords, int fd,
                                  struct str path)
{
    char *buf = mem_zalloc(PASSWORDS_MAX);
    ssize_t n = 1;
    struct str rest = { 0, buf };

    while (n > 0 && rest.len < PASSWORDS_MAX) {
        n = read(fd, buf + rest.len, PASSWORDS_MAX - rest.len);
        rest.len += (size_t) MAX(n, 0);
    }
    while (n == 0 && rest.len > 0) {
        ssize_t end = str_chr(rest, '\n');
        struct str line = str_from(rest.ptr, end < 0 ? rest.len : (size_t) end);

        rest = str_skip(rest, MIN(line.len + 1, rest.len));
        if (line.len > 0 && line.ptr[line.len - 1] == '\r')
            line.len--;
        if (line.len > 0)
            str_list_add(cf->arena, &passwords->list, str_dup(cf->arena, line));
    }
    OPENSSL_cleanse(buf, PASSWORDS_MAX);
    free(buf);
    if (n < 0)
        return conf_error(cf, "read() \"%.*s\" failed (%d: %s)", STR_ARG(path), errno,
                          strerror(errno));
    return n == 0 ? NULL : conf_error_arg(cf, 1, "\"%.*s\" is too large", STR_ARG(path));
}

const char *ssl_set_password_file(struct conf *cf, void *field)
{
    struct ssl_passwords *passwords = ARENA_NEW(cf->arena, struct ssl_passwords);
    struct str path = conf_path(cf, cf->args[1], true);
    const char *error;
    int fd;

    *(struct ssl_passwords **) field = passwords;
    passwords->pos = cf->pos;
    if (cf->config->offline)
        return NULL;
    fd = open(path.ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return conf_error_arg(cf, 1, "open() \"%.*s\" failed (%d: %s)", STR_ARG(path), errno,
                              strerror(errno));
    arena_defer(cf->arena, wipe, passwords);
    error = read_passwords(cf, passwords, fd, path);
    close(fd);
    return error;
}
