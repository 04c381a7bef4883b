/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core's own decisions, said in words to req_tracer (--explain). Each is called only where
 * somebody listens.
 */
#ifndef CORE_HTTP_TRACE_H
#define CORE_HTTP_TRACE_H

#include "core/http/req.h"

/* The server that the host led to. */
void trace_server(struct req *r);
/* The location found. redirect: only its final slash is lacking. */
void trace_location(struct req *r, bool redirect);
/* Whether the declared length of the body is within client_max_body_size. */
void trace_body_size(struct req *r);
/* A redirect that the client does not see, about to be followed. */
void trace_restart(struct req *r);
/* The error page for the status wanted; NULL: the built-in one. */
void trace_error_page(struct req *r, const struct error_page *page);
/* A subrequest that has been made and not yet begun. */
void trace_subrequest(struct req *r);
/* The request has come to its end. */
void trace_end(struct req *r);

#endif
