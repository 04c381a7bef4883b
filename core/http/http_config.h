/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files that make the http core's configuration; nobody else includes it. */
#ifndef CORE_HTTP_HTTP_CONFIG_H
#define CORE_HTTP_HTTP_CONFIG_H

#include "core/http/http.h"
#include "proxyd_config.h"

extern const struct directive http_core_directives[];
extern const struct var_row http_core_variables[];

/* http.c */
conf_setter set_http_block, set_server_block, set_location_block, set_limit_except_block;
/* listen.c */
conf_setter set_listen;
/* The address of a server that has no listen directive, once its block has been read. NULL or a sentence. */
const char *listen_default(struct conf *cf, struct server *server);
/* Completes the addresses after the file is read: default servers, names, sockets. 0 or -1. */
int http_listens_finish(struct conf *cf, struct http_main *http);
/* names.c */
conf_setter set_server_name;
/* The table of all names of an address's servers; NULL if there is nothing to choose from. */
struct name_table *name_table_build(struct conf *cf, struct http_listen *l);
/* location.c */
/* The search structure for the locations directly inside `parent` (list in file order). NULL when there is none. */
struct location_tree *location_tree_build(struct conf *cf, struct location **locations, unsigned count);

/* [struct resolver_spec *] for the resolver directive, here and in upstream. */
conf_setter conf_set_resolver;

#endif
