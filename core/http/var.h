/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What computes the http core's variables. Shared by var*.c only: the table is in var.c, what a
 * request said in var_request.c, what became of it in var_answer.c.
 */
#ifndef CORE_HTTP_VAR_H
#define CORE_HTTP_VAR_H

#include "core/http/client.h"
#include "core/http/http_config.h"

/* For get functions: found, with a value that lives as long as the request. */
static inline bool var_is(struct str *out, struct str value)
{
    *out = value;
    return true;
}
/* A number in the request's arena. */
bool var_is_number(struct req *r, struct str *out, uint64_t n);
/* Milliseconds as seconds with three places: "0.015". */
bool var_is_seconds(struct req *r, struct str *out, uint64_t ms);

/* var_request.c */
var_get var_arg, var_args, var_is_args, var_uri, var_request_uri, var_request_line,
    var_request_method, var_request_id, var_request_body, var_request_body_file,
    var_request_filename, var_document_root, var_realpath_root, var_host, var_request_port,
    var_http, var_cookie, var_content_length, var_content_type, var_remote_user,
    var_server_protocol;
var_set var_set_args;

/* var_answer.c */
var_get var_status, var_bytes_sent, var_body_bytes_sent, var_request_length, var_request_time,
    var_request_completion, var_limit_rate, var_sent_http, var_sent_trailer,
    var_sent_content_length, var_sent_last_modified, var_sent_connection, var_sent_keep_alive,
    var_sent_transfer_encoding;
var_set var_set_limit_rate;

#endif
