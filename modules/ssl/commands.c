/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ssl_conf_command: what the library's own configuration commands do to a context. One of them is ours to heed: "Options KTLS". The
 * library's option for that is on in any case, for it is what makes the library hand its keys over (seal.c); that the kernel is to have
 * them has been asked for only if it was written.
 */
#include "modules/ssl/ktls.h"
#include "modules/ssl/ssl.h"

static int kernel_index = -1;

bool ssl_asks_kernel(const SSL *ssl)
{
    return kernel_index >= 0 && SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), kernel_index) != NULL;
}

/* What a list of options says of KTLS: 1, 0 ("-KTLS"), or -1: nothing. */
static int kernel_option(struct str list)
{
    int said = -1;

    while (list.len > 0) {
        ssize_t comma = str_chr(list, ',');
        struct str item = str_trim(str_from(list.ptr, comma < 0 ? list.len : (size_t) comma));
        bool off = item.len > 0 && item.ptr[0] == '-';

        list = str_skip(list, comma < 0 ? list.len : (size_t) comma + 1);
        if (off || (item.len > 0 && item.ptr[0] == '+'))
            item = str_skip(item, 1);
        if (str_caseeq(item, STR("KTLS")))
            said = !off;
    }
    return said;
}

static int ask_kernel(struct conf *cf, SSL_CTX *ctx, const struct ssl_command *by, bool pads)
{
    static const struct config *prepared;

    if (pads) {
        conf_warn_at(
            cf, by->pos,
            "\"Options KTLS\" is ignored: the kernel pads no records, as \"RecordPadding\" "
            "wants it");
        return 0;
    }
    if (!seal_known()) {
        conf_warn_at(
            cf, by->pos,
            "\"Options KTLS\" is ignored: %s does not hand its keys over in a way that is known",
            OpenSSL_version(OPENSSL_VERSION));
        return 0;
    }
    if (prepared != cf->config && !cf->config->testing && !cf->config->explaining) {
        prepared = cf->config;
        ktls_prepare(log_main);
    }
    if (kernel_index < 0)
        kernel_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    return kernel_index >= 0 && SSL_CTX_set_ex_data(ctx, kernel_index, &kernel_index) ? 0 : -1;
}

/* A command's value; what is a file's name is below the configuration's folder, as all of them are. */
static const char *command_value(struct conf *cf, SSL_CONF_CTX *conf, const struct ssl_command *c)
{
    int type = SSL_CONF_cmd_value_type(conf, c->name.ptr);

    return type == SSL_CONF_TYPE_FILE || type == SSL_CONF_TYPE_DIR
               ? conf_path(cf, c->value, true).ptr
               : c->value.ptr;
}

static int run_commands(struct conf *cf, SSL_CONF_CTX *conf, const struct ssl_commands *commands)
{
    for (unsigned i = 0; i < commands->count; i++) {
        const struct ssl_command *c = &commands->items[i];

        if (SSL_CONF_cmd(conf, c->name.ptr, command_value(cf, conf, c)) <= 0) {
            ssl_conf_error(cf, c->pos, "SSL_CONF_cmd(\"%.*s\", \"%.*s\") failed", STR_ARG(c->name),
                           STR_ARG(c->value));
            return -1;
        }
    }
    if (SSL_CONF_CTX_finish(conf) != 1) {
        ssl_conf_error(cf, commands->items[0].pos, "SSL_CONF_finish() failed");
        return -1;
    }
    return 0;
}

int ssl_use_commands(struct conf *cf, SSL_CTX *ctx, const struct ssl_commands *commands,
                     bool server)
{
    const struct ssl_command *asking = NULL;
    SSL_CONF_CTX *conf;
    bool pads = false;
    int rc;

    if (commands->count == 0)
        return 0;
    conf = SSL_CONF_CTX_new();
    if (conf == NULL)
        return -1;
    SSL_CONF_CTX_set_flags(conf, SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_CERTIFICATE |
                                     SSL_CONF_FLAG_SHOW_ERRORS |
                                     (server ? SSL_CONF_FLAG_SERVER : SSL_CONF_FLAG_CLIENT));
    SSL_CONF_CTX_set_ssl_ctx(conf, ctx);
    rc = run_commands(cf, conf, commands);
    SSL_CONF_CTX_free(conf);
    for (unsigned i = 0; rc == 0 && i < commands->count; i++) {
        const struct ssl_command *c = &commands->items[i];
        int said = str_caseeq(c->name, STR("Options")) ? kernel_option(c->value) : -1;

        pads |= str_caseeq(c->name, STR("RecordPadding"));
        if (said >= 0)
            asking = said ? c : NULL;
    }
    if (pads)
        SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_KTLS); /* only the library pads */
    if (rc == 0 && asking != NULL)
        rc = ask_kernel(cf, ctx, asking, pads);
    return rc;
}
