/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of what looks at a request: one that no protocol has read, of a configuration that the
 * test writes. Its connection is a structure without a socket.
 */
#ifndef T_UNIT_CORE_HTTP_FAKE_REQ_H
#define T_UNIT_CORE_HTTP_FAKE_REQ_H

#include "t/unit/core/config/toy.h"

#include "core/http/client.h"

static struct config *fake_config;
static struct client fake_client;
static struct conn fake_conn;
static struct req *fake;
static struct msg fake_msg;

static void fake_info(const struct conn *c, struct conn_info *info)
{
    (void) c;
    *info = (struct conn_info){ .kind = "fake", .fd = -1 };
}

static const struct conn_ops fake_ops = { .kind = "fake", .info = fake_info };

/* A request for uri in the first server of an http block; the location is searched. */
static inline void fake_start(const char *http, const char *uri, const char *args)
{
    char text[8192];
    bool redirect, failed;
    struct server *server;
    struct http_main *main;
    const struct location *loc;

    snprintf(text, sizeof(text), "http { %s }", http);
    fake_config = toy_read(text);
    if (fake_config == NULL)
        diag("%s", toy_logged);
    ASSERT(fake_config != NULL);
    main = config_http(fake_config);
    server = main->servers[0];
    fake_conn = (struct conn){ .ops = &fake_ops, .log.conn = 42 };
    fake_conn.peer.in.sin_family = AF_INET;
    fake_conn.peer.in.sin_addr.s_addr = htonl(0x0a010203);
    fake_conn.peer.in.sin_port = htons(50000);
    fake_conn.peer_len = sizeof(fake_conn.peer.in);
    fake_client = (struct client){ .conn = &fake_conn, .server = server, .requests = 3 };
    fake_client.listen = container_of(main->listens.next, struct http_listen, link);
    fake = req_new(&fake_client, arena_new());
    fake->server = server;
    fake->eval.space = &main->vars;
    fake->log = toy_log;
    msg_init(&fake_msg, fake->arena, 4);
    fake->in = &fake_msg;
    fake_msg.version = HTTP_11;
    fake->method = METHOD_GET;
    fake->method_name = STR("GET");
    fake->uri = str_cstr(uri);
    fake->args = str_cstr(args);
    fake->unparsed_uri = str_printf(fake->arena, "%s%s%s", uri, *args ? "?" : "", args);
    fake->body.complete = true;
    loc =
        http_location_find(server->root, fake->uri, &fake->eval, &fake->match, &redirect, &failed);
    fake->loc = loc != NULL ? loc : server->root;
}

static inline void fake_end(void)
{
    if (fake_client.extra != NULL)
        free((char *) fake_client.extra->proxy_tlvs.ptr);
    free(fake_client.extra);
    chain_clear(&fake->body.chain);
    arena_destroy(fake->arena);
    config_free(fake_config);
}

static inline void fake_field(const char *name, const char *value)
{
    fields_add(&fake_msg, &fake_msg.fields, str_cstr(name), str_cstr(value));
}

/* NUL-terminated; NULL: not found. */
static inline const char *fake_var(const char *name)
{
    struct str out;

    return var_by_name(&fake->eval, str_cstr(name), &out) ? str_z(fake->arena, out) : NULL;
}

#endif
