/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kinds of connection share with conn.c and nobody else sees: those of core/event, and those
 * of modules that embed a struct conn in something larger (TLS).
 */
#ifndef CORE_EVENT_CONN_KIND_H
#define CORE_EVENT_CONN_KIND_H

#include "core/event/conn.h"

/* Gives zeroed memory its operations, number and log, and counts it as open. */
void conn_setup(struct conn *c, const struct conn_ops *ops);
/*
 * The same for one that stands on `below` and takes its place in the eyes of its owner: it has the other's number, log
 * and peer, and is not counted itself.
 */
void conn_setup_over(struct conn *c, const struct conn_ops *ops, const struct conn *below);
/* The want operation of every kind here: what is ready already is told at the end of the turn. */
void conn_want_later(struct conn *c, unsigned what);
/* From an event: notes `what` as ready and calls the handler at once if anything wanted is. */
void conn_deliver(struct conn *c, unsigned what);

#endif
